/*
 * The second wall: what namespaces, capabilities and the filter refuse already, landlock
 * refuses once more, by other code of the kernel's.  A bug in one of them is then not enough.
 *
 *   - a ruleset over files, whatever is in it, ends every change of mounts (mount, umount,
 *     move_mount, pivot_root) and all tracing of processes outside of it;
 *   - no device nodes can be made, linked or renamed;
 *   - from Linux 6.12 on, no signal leaves (also not through a pidfd that somebody passed in,
 *     or as the owner of a file's SIGIO), and no abstract unix socket outside is reached.
 *
 * Nothing that an ordinary program does is touched: rights that the ruleset does not name cost
 * and restrict nothing.  REFER is the exception, refused unless named and given: links and
 * renames between directories stay allowed below the root, hence everywhere.
 *
 * Init restricts itself before it forks the command's process, so both are in one domain.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/base/fdio.h"
#include "core/base/probe.h"
#include "sandbox/child.h"

/* struct landlock_ruleset_attr as of Linux 6.12, which the system's header may not know. */
struct ruleset {
	uint64_t files, network, scoped;
};
enum { SCOPE_ABSTRACT_UNIX_SOCKET = 1, SCOPE_SIGNAL = 2 };

static int
make_ruleset(void)
{
	const struct ruleset r = {
		.files = LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK |
			 LANDLOCK_ACCESS_FS_REFER,
		.scoped = SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL,
	};
	int fd = (int)syscall(SYS_landlock_create_ruleset, &r, sizeof r, 0);

	/* Older kernels: something behind the end of what they know is not zero. */
	if (fd < 0 && errno == E2BIG)
		fd = (int)syscall(SYS_landlock_create_ruleset, &r, sizeof r.files, 0);
	return fd;
}

int
step_landlock(struct child *c, unsigned index, struct err *e)
{
	CLEAN_FD int rules = -1, root = -1;
	struct landlock_path_beneath_attr everywhere = {
		.allowed_access = LANDLOCK_ACCESS_FS_REFER,
	};

	(void)c;
	(void)index;
	if (!probe_has(PROBE_LANDLOCK))
		return 0;
	root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	everywhere.parent_fd = root;
	rules = make_ruleset();
	if (root < 0 || rules < 0 ||
	    syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &everywhere, 0) ||
	    syscall(SYS_landlock_restrict_self, rules, 0))
		return err_sys(e, ERR_NODE, "restrict the sandbox by landlock");
	return 0;
}
