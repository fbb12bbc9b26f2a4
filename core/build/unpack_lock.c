#include "core/build/unpack_lock.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/base/caps.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "sandbox/seccomp.h"

/* Of later landlock than the system's header knows. */
#define REFER (1ull << 13)
#define TRUNCATE (1ull << 14)

static int
limit(int resource, rlim_t value, struct err *e)
{
	struct rlimit now, want = { value, value };

	if (getrlimit(resource, &now) < 0)
		return err_sys(e, ERR_NODE, "cannot read a limit");
	if (want.rlim_max > now.rlim_max) /* what is lower already stays */
		want.rlim_cur = want.rlim_max = now.rlim_max;
	return setrlimit(resource, &want) < 0 ? err_sys(e, ERR_NODE, "cannot set a limit") : 0;
}

static int
set_limits(const struct unpack_lock *l, struct err *e)
{
#ifndef __SANITIZE_ADDRESS__ /* whose shadow memory is larger than any machine's */
	if (limit(RLIMIT_AS, l->memory_bytes, e) < 0)
		return -1;
#endif
	return limit(RLIMIT_CPU, l->cpu_seconds, e) < 0 || limit(RLIMIT_FSIZE, l->file_bytes, e) < 0 ||
	       limit(RLIMIT_NOFILE, l->files, e) < 0 || limit(RLIMIT_CORE, 0, e) < 0 ? -1 : 0;
}

/* All rights over files that this kernel's landlock knows. */
static uint64_t
landlock_rights(int version)
{
	uint64_t rights = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1; /* version 1: bits 0 to 12 */

	if (version >= 2)
		rights |= REFER;
	if (version >= 3)
		rights |= TRUNCATE;
	if (version >= 5)
		rights |= 1ull << 15; /* IOCTL_DEV */
	return rights;
}

static int
allow(int rules, int dir, uint64_t rights)
{
	struct landlock_path_beneath_attr beneath = { .parent_fd = dir, .allowed_access = rights };

	return dir < 0 ? 0 : (int)syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH,
					  &beneath, 0);
}

/* No path but below the directories, and there only what making a tree needs. */
static int
lock_paths(const struct unpack_lock *l, struct err *e)
{
	int version = (int)syscall(SYS_landlock_create_ruleset, NULL, 0,
				   LANDLOCK_CREATE_RULESET_VERSION);
	struct landlock_ruleset_attr attr = { .handled_access_fs = landlock_rights(version) };
	uint64_t writing = LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_WRITE_FILE |
			   LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |
			   LANDLOCK_ACCESS_FS_MAKE_SYM;
	uint64_t whole = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_REMOVE_FILE |
			 LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_MAKE_CHAR |
			 LANDLOCK_ACCESS_FS_MAKE_FIFO | REFER | TRUNCATE;
	CLEAN_FD int rules = -1;

	if (version < 1)
		return 0; /* not in this kernel, or not switched on */
	if (l->whole_trees)
		writing |= whole & attr.handled_access_fs;
	rules = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr.handled_access_fs), 0);
	if (rules < 0 || allow(rules, l->dest, writing) < 0 ||
	    allow(rules, l->source, LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR) < 0 ||
	    syscall(SYS_landlock_restrict_self, rules, 0) < 0)
		return err_sys(e, ERR_NODE, "cannot restrict paths by landlock");
	return 0;
}

/* What the sandboxes' filter, which follows, allows to functions, and nobody needs here.
 * That one ends processes of other architectures, so that numbers are this one's. */
static int
lock_calls(struct err *e)
{
	static const struct { uint16_t nr; } refused[] = {
		{ SYS_socket }, { SYS_socketpair }, { SYS_connect }, { SYS_bind },
		{ SYS_clone }, { SYS_clone3 }, { SYS_execve }, { SYS_execveat },
		{ SYS_kill }, { SYS_tkill }, { SYS_memfd_create },
#ifdef SYS_fork
		{ SYS_fork }, { SYS_vfork },
#endif
	};
	enum { COUNT = sizeof(refused) / sizeof(refused[0]) };
	struct sock_filter code[COUNT + 3];
	struct sock_fprog program = { .len = COUNT + 3, .filter = code };
	size_t n = 0;

	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
						 offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < COUNT; i++)
		code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, refused[i].nr,
							 (uint8_t)(COUNT - i), 0);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
		return err_sys(e, ERR_NODE, "cannot load the system call filter");
	return seccomp_install(e);
}

/* Of the user namespace that whoever started us has made; none of the machine's. */
static int
keep_capabilities(const struct unpack_lock *l, struct err *e)
{
	const uint64_t kept = 1ull << CAP_CHOWN | 1ull << CAP_DAC_OVERRIDE | 1ull << CAP_FOWNER |
			      1ull << CAP_FSETID;

	return l->whole_trees && caps_effective() ? caps_keep(kept, e) : 0;
}

int
unpack_lock_in(const struct unpack_lock *l, struct err *e)
{
	/* A write beyond RLIMIT_FSIZE is an error, and so is a reader that has gone. */
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	umask(l->whole_trees ? 0 : 022);
	if (close_range((unsigned)l->first_closed, ~0u, 0) < 0)
		return err_sys(e, ERR_NODE, "cannot close inherited descriptors");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return err_sys(e, ERR_NODE, "cannot give up privileges");
	if (keep_capabilities(l, e) < 0 || set_limits(l, e) < 0 || lock_paths(l, e) < 0)
		return -1;
	return lock_calls(e);
}
