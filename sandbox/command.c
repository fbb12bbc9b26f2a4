/*
 * The command's process, pid 2: from init's copy to the user's program.
 *
 * It gives up, in this order, what it holds: descriptors (before the working directory is
 * entered, so that no path can name one: CVE-2024-21626), the uid (which drops nothing by
 * itself here), and every capability explicitly.  The right to gain new ones and system
 * calls init has given up for both.  Then it waits for init to be done with its own, and
 * executes.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/fdio.h"
#include "core/base/caps.h"
#include "sandbox/child.h"
#include "sandbox/tree.h"

/* Where the pipes are from STEP_STDIO on; both are closed by exec. */
enum { STATUS_FD = 4, GATE_FD = 5 };

int
step_stdio(struct child *c, unsigned index, struct err *e)
{
	int from[4] = { c->spec->stdio[0], c->spec->stdio[1], c->spec->stdio[2], c->spec->channel };

	(void)index;
	/* All out of the way first: one may sit where another has to go. */
	for (int i = 0; i < 4; i++) {
		int given = from[i];

		if (given < 0 && i < 3 && (given = open("/dev/null", O_RDWR | O_CLOEXEC)) < 0)
			return err_sys(e, ERR_NODE, "open /dev/null");
		if (given >= 0 && (from[i] = fcntl(given, F_DUPFD_CLOEXEC, 16)) < 0)
			return err_sys(e, ERR_INPUT, "descriptor %d for the command", given);
	}
	for (int i = 0; i < 4; i++)
		if (from[i] >= 0 && dup2(from[i], i) < 0)
			return err_sys(e, ERR_NODE, "place descriptor %d", i);
	if (from[3] < 0)
		close(3);
	if (dup3(c->status_w, STATUS_FD, O_CLOEXEC) < 0 || dup3(c->gate_r, GATE_FD, O_CLOEXEC) < 0 ||
	    close_range(GATE_FD + 1, ~0u, 0))
		return err_sys(e, ERR_NODE, "close descriptors");
	c->status_w = STATUS_FD;
	c->gate_r = GATE_FD;
	return 0;
}

int
step_workdir(struct child *c, unsigned index, struct err *e)
{
	struct open_how how = { .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
				.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
	const char *dir = c->spec->workdir;
	CLEAN_FD int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	CLEAN_FD int fd = root < 0 ? -1 : (int)syscall(SYS_openat2, root, dir, &how, sizeof how);
	char cwd[4096];

	(void)index;
	if (fd < 0 || fchdir(fd))
		return err_sys(e, ERR_INPUT, "working directory %s", dir);
	/* The kernel says "(unreachable)…" for one that is outside of the root. */
	if (syscall(SYS_getcwd, cwd, sizeof cwd) < 0 || cwd[0] != '/')
		return err_set(e, ERR_NODE, "working directory %s is not in the sandbox", dir);
	return 0;
}

int
step_user(struct child *c, unsigned index, struct err *e)
{
	uid_t uid = c->spec->uid;

	(void)index;
	/* From init's session: a signal to process group 0 shall stay among the command's. */
	if (setsid() < 0)
		return err_sys(e, ERR_NODE, "start a session");
	/* Groups were dropped with init's identity.  The raw calls: one thread. */
	if (!c->rootless &&
	    (syscall(SYS_setresgid, uid, uid, uid) || syscall(SYS_setresuid, uid, uid, uid)))
		return err_sys(e, ERR_NODE, "become uid %u", uid);
	/* The securebits are locked: the change of uid dropped nothing. */
	return caps_clear(e);
}

static const char *
environment_path(const char *const *envp)
{
	for (; *envp; envp++)
		if (!strncmp(*envp, "PATH=", 5))
			return *envp + 5;
	return "/usr/local/bin:/usr/bin:/bin";
}

/* execve of name, searched in PATH when it has no '/'.  Returns errno. */
static int
try_exec(const struct sandbox_spec *spec, char *tried, size_t size)
{
	char *const *argv = (char *const *)(uintptr_t)spec->argv;
	char *const *envp = (char *const *)(uintptr_t)spec->envp;
	const char *name = spec->argv[0], *dir = environment_path(spec->envp);
	int denied = 0;

	snprintf(tried, size, "%s", name);
	if (strchr(name, '/')) {
		execve(name, argv, envp);
		return errno;
	}
	for (;; dir++) {
		size_t n = strcspn(dir, ":");

		if ((size_t)snprintf(tried, size, "%.*s%s%s", (int)n, dir, n ? "/" : "", name) < size)
			execve(tried, argv, envp);
		else
			errno = ENAMETOOLONG;
		if (errno != ENOENT && errno != ENOTDIR && errno != EACCES && errno != ENAMETOOLONG)
			return errno;
		if (errno == EACCES)
			denied = EACCES;
		dir += n;
		if (!*dir)
			break;
	}
	snprintf(tried, size, "%s", name);
	return denied ? denied : ENOENT;
}

static enum sandbox_reason
explain(const char *tried, int errnum, struct err *e)
{
	errno = errnum;
	switch (errnum) {
	case ENOENT:
		if (strchr(tried, '/') && !access(tried, F_OK)) {
			err_set(e, ERR_INPUT, "%s: its interpreter is not in the sandbox", tried);
			return SANDBOX_NOT_EXECUTABLE;
		}
		err_set(e, ERR_INPUT, "%s: not found", tried);
		return SANDBOX_NOT_FOUND;
	case ENOTDIR:
		err_set(e, ERR_INPUT, "%s: not found", tried);
		return SANDBOX_NOT_FOUND;
	case ENOMEM:
	case EAGAIN:
	case EMFILE:
	case ENFILE:
	case EIO:
		err_sys(e, ERR_NODE, "execute %s", tried);
		return SANDBOX_SETUP_FAILED;
	default:
		err_sys(e, ERR_INPUT, "%s: not executable", tried);
		return SANDBOX_NOT_EXECUTABLE;
	}
}

enum sandbox_reason
command_exec(struct child *c, struct err *e)
{
	char tried[4096], byte;

	/* No byte: init could not drop what it holds, and has said so. */
	if (fd_read_all(GATE_FD, &byte, 1) != 1)
		_exit(1);
	c->steps_done |= 1ull << STEP_EXEC;
	memcpy(c->progress->step_us, c->step_us, sizeof c->step_us);
	c->progress->steps_done = c->steps_done;
	c->progress->running_ns = clock_mono_ns();
	return explain(tried, try_exec(c->spec, tried, sizeof tried), e);
}
