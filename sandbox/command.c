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
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/fdio.h"
#include "core/base/caps.h"
#include "sandbox/child.h"
#include "sandbox/filter.h"
#include "sandbox/seccomp.h"
#include "sandbox/tree.h"

/* Where the pipes are from STEP_STDIO on, and the socket if a listener is to be sent; all are
 * closed by exec. */
enum { STATUS_FD = 4, GATE_FD = 5, GO_FD = 6 };

/* A descriptor over the socket for us alone; -1 when none is meant. */
static int
take_given(struct child *c, int meant)
{
	return meant < 0 ? -1 : fd_receive(c->word_r, 0);
}

/*
 * Made ahead: here it waits for its event.  What is its own comes straight from the caller,
 * when the limits are set; init has got the rest, and is mounting the root meanwhile.
 */
int
step_orders_command(struct child *c, unsigned index, struct err *e)
{
	struct sandbox_spec *spec = &c->orders->spec;
	struct pollfd word = { .fd = c->word_r, .events = POLLIN };
	int keep[] = { c->status_w, c->gate_r, c->word_r, c->dev };
	char byte;

	(void)index;
	/* Init's, while there is time. */
	if (fd_close_but(keep, sizeof keep / sizeof keep[0]))
		return err_sys(e, ERR_NODE, "close descriptors");
	while (poll(&word, 1, -1) < 0)
		;
	c->spec = spec;
	for (int i = 0; i < 3; i++) {
		c->stdio[i] = take_given(c, spec->stdio[i]);
		if (spec->stdio[i] >= 0 && c->stdio[i] < 0)
			return err_sys(e, ERR_NODE, "take standard input and output over");
	}
	c->channel = take_given(c, spec->channel);
	if (spec->channel >= 0 && c->channel < 0)
		return err_sys(e, ERR_NODE, "take the channel over");
	if (fd_read_all(c->word_r, &byte, 1) != 1)
		_exit(1); /* the caller is gone */
	return 0;
}

/* Made ahead: init has the root, which is now ours, too. */
int
step_turn(struct child *c, unsigned index, struct err *e)
{
	struct statx root;
	char byte;

	(void)index;
	if (fd_read_all(GATE_FD, &byte, 1) != 1)
		_exit(1); /* init has said why */
	/* Its pivot_root has moved everybody who had the old one. */
	if (statx(AT_FDCWD, "/", 0, STATX_MNT_ID, &root))
		return err_sys(e, ERR_NODE, "look at the root");
	if (root.stx_mnt_id != c->progress->root_mount)
		return err_set(e, ERR_NODE, "the command's process is not in the new root");
	return 0;
}

int
step_stdio(struct child *c, unsigned index, struct err *e)
{
	int from[4] = { c->stdio[0], c->stdio[1], c->stdio[2], c->channel };

	(void)index;
	/* All out of the way first: one may sit where another has to go. */
	for (int i = 0; i < 4; i++) {
		int given = from[i];

		if (given < 0 && i < 3 && (given = openat(c->dev, "null", O_RDWR | O_CLOEXEC)) < 0)
			return err_sys(e, ERR_NODE, "open /dev/null");
		if (given >= 0 && (from[i] = fcntl(given, F_DUPFD_CLOEXEC, 16)) < 0)
			return err_sys(e, ERR_INPUT, "descriptor %d for the command", given);
	}
	if (c->spec->watched && (c->go_r = fcntl(c->go_r, F_DUPFD_CLOEXEC, 16)) < 0)
		return err_sys(e, ERR_NODE, "keep the socket");
	for (int i = 0; i < 4; i++)
		if (from[i] >= 0 && dup2(from[i], i) < 0)
			return err_sys(e, ERR_NODE, "place descriptor %d", i);
	if (from[3] < 0)
		close(3);
	if (dup3(c->status_w, STATUS_FD, O_CLOEXEC) < 0 || dup3(c->gate_r, GATE_FD, O_CLOEXEC) < 0 ||
	    (c->spec->watched && dup3(c->go_r, GO_FD, O_CLOEXEC) < 0) ||
	    close_range(c->spec->watched ? GO_FD + 1 : GATE_FD + 1, ~0u, 0))
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
	gid_t gid = sandbox_gid(c->spec);

	(void)index;
	/* From init's session: a signal to process group 0 shall stay among the command's. */
	if (setsid() < 0)
		return err_sys(e, ERR_NODE, "start a session");
	/* Groups were dropped with init's identity.  The raw calls: one thread. */
	if (!c->rootless &&
	    (syscall(SYS_setresgid, gid, gid, gid) || syscall(SYS_setresuid, uid, uid, uid)))
		return err_sys(e, ERR_NODE, "become uid %u", uid);
	/* The securebits are locked: the change of uid dropped nothing. */
	return c->spec->caps ? caps_shrink(c->spec->caps, e) : caps_clear(e);
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
explain(const char *tried, int errnum, bool may_look, struct err *e)
{
	errno = errnum;
	switch (errnum) {
	case ENOENT:
		if (may_look && strchr(tried, '/') && !access(tried, F_OK)) {
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

/*
 * A filter that asks cannot be asked about the call that hands its listener over: whoever
 * would answer does not have it yet.  So a second process, which shares our descriptors and
 * has no such filter, sends it, and is gone before the command runs.  It sees the number in
 * the page that both share, as we see there that it is done, without a system call.
 */
static _Noreturn void
send_listener(struct child *c, pid_t command)
{
	static const struct timespec moment = { .tv_nsec = 20000 };
	int32_t listener;
	struct err e;

	while (!(listener = __atomic_load_n(&c->progress->listener, __ATOMIC_ACQUIRE)))
		nanosleep(&moment, NULL);
	if (listener > 0 && fd_send(GO_FD, listener - 1)) {
		err_sys(&e, ERR_NODE, "send the listener");
		err_step(&e, step_name(STEP_FILTER));
		child_report_failure(c, SANDBOX_SETUP_FAILED, &e);
		kill(command, SIGKILL);
	}
	__atomic_store_n(&c->progress->listener_sent, 1, __ATOMIC_RELEASE);
	_exit(0);
}

static int
load_filter(struct child *c, struct err *e)
{
	const struct filter *f = c->spec->filter;
	pid_t self = (pid_t)syscall(SYS_getpid);
	long pid;
	int fd;

	if (!c->spec->watched)
		return seccomp_install_other(f->code, f->length, e);
	/* Init's child as we are, so that the command has none that it does not know. */
	pid = syscall(SYS_clone, CLONE_FILES | CLONE_PARENT | SIGCHLD, NULL, NULL, NULL, 0);
	if (pid == 0)
		send_listener(c, self);
	if (pid < 0)
		return err_sys(e, ERR_NODE, "fork who sends the listener");
	fd = seccomp_install_listener(f->code, f->length, e);
	__atomic_store_n(&c->progress->listener, fd < 0 ? -1 : fd + 1, __ATOMIC_RELEASE);
	while (fd >= 0 && !__atomic_load_n(&c->progress->listener_sent, __ATOMIC_ACQUIRE))
		;
	return fd < 0 ? -1 : 0;
}

static void
leave_word(struct child *c, const char *tried, int errnum, bool may_look)
{
	struct record r = { .kind = RECORD_FAILED };

	r.code = (int32_t)explain(tried, errnum, may_look, &r.error);
	err_step(&r.error, step_name(STEP_EXEC));
	c->progress->failed = r;
}

enum sandbox_reason
command_exec(struct child *c, struct err *e)
{
	char tried[4096], byte;
	int errnum;

	/* No byte: init could not drop what it holds, and has said so. */
	if (fd_read_all(GATE_FD, &byte, 1) != 1)
		_exit(1);
	child_done(c, STEP_EXEC, 0);
	c->progress->running_ns = child_now_ns(c);
	/* From here on nothing is called but execve: it may be all that the filter allows. */
	if (c->spec->filter && load_filter(c, e)) {
		err_step(e, step_name(STEP_FILTER));
		return SANDBOX_SETUP_FAILED;
	}
	errnum = try_exec(c->spec, tried, sizeof tried);
	if (!c->spec->filter)
		return explain(tried, errnum, true, e);
	/* The next call may be the end of us, and none need be: not even that to exit. */
	leave_word(c, tried, errnum, false);
	leave_word(c, tried, errnum, true);
	__builtin_trap();
}
