/*
 * vfork and not posix_spawn, for the parent-death signal; between vfork and exec only
 * system calls, on values computed before.  The child's descriptors are lifted above
 * LIFT_FROM first, so that placing one cannot run over another.
 */
#include "netio/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "netio/loop.h"

enum { LIFT_FROM = 10 };

struct helper {
	struct loop *loop;
	pid_t pid;
	bool ended;
	int status;
	int fd; /* what it writes */
	struct loop_fd *watch;
	struct loop_timer *timer;
	struct buf text;
	helper_fn fn;
	void *arg;
};

static void
helper_free(struct helper *h)
{
	loop_fd_remove(h->watch);
	loop_timer_remove(h->timer);
	fd_close(&h->fd);
	buf_free(&h->text);
	free(h);
}

static void
finish_if_over(struct helper *h)
{
	if (!h->ended || h->fd >= 0)
		return;
	while (h->text.len && h->text.data[h->text.len - 1] == '\n')
		h->text.len--;
	buf_terminate(&h->text);
	h->fn(h->arg, h->status, h->text.data ? h->text.data : "");
	helper_free(h);
}

static void
read_output(struct helper *h)
{
	char chunk[4096];
	ssize_t n = read(h->fd, chunk, sizeof chunk);

	if (n > 0) {
		if (h->text.len + (size_t)n <= HELPER_OUTPUT_MAX)
			buf_put(&h->text, chunk, (size_t)n);
		return;
	}
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	loop_fd_remove(h->watch);
	h->watch = NULL;
	fd_close(&h->fd);
}

static void
on_output(void *arg, uint32_t events)
{
	struct helper *h = arg;

	(void)events;
	read_output(h);
	finish_if_over(h);
}

static void
on_end(void *arg, pid_t pid, int code, int status)
{
	struct helper *h = arg;

	(void)pid;
	h->ended = true;
	h->status = code == CLD_EXITED ? status : -1;
	finish_if_over(h);
}

static void
on_timeout(void *arg)
{
	struct helper *h = arg;

	if (!h->ended) /* not reaped, so that the pid is still its own */
		kill(h->pid, SIGKILL);
}

struct placed {
	int program, input, output, dir;
	const char *const *argv;
	pid_t parent;
};

static _Noreturn void
become(const struct placed *p)
{
	static char *const no_environment[] = { NULL };
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != p->parent ||
	    dup2(p->input, 0) < 0 || dup2(p->output, 1) < 0 ||
	    (p->dir >= 0 && dup2(p->dir, 3) < 0))
		_exit(2);
	execveat(p->program, "", (char *const *)p->argv, no_environment, AT_EMPTY_PATH);
	_exit(2);
}

static pid_t
spawn(const struct placed *p)
{
	pid_t pid = vfork();

	if (pid == 0)
		become(p);
	return pid;
}

static int
lift(int fd, struct err *e)
{
	int lifted = fcntl(fd, F_DUPFD_CLOEXEC, LIFT_FROM);

	if (lifted < 0)
		err_sys(e, ERR_NODE, "helper: descriptor");
	return lifted;
}

static int
start(struct helper *h, const struct helper_task *task, struct err *e)
{
	CLEAN_FD int null = open("/dev/null", O_RDWR | O_CLOEXEC), output = -1, input = -1, dir = -1;
	struct placed p = { .program = task->program_fd, .argv = task->argv, .parent = getpid() };
	int fds[2];

	if (null < 0 || pipe2(fds, O_CLOEXEC))
		return err_sys(e, ERR_NODE, "helper: descriptor");
	h->fd = fds[0];
	output = lift(fds[1], e);
	close(fds[1]);
	input = lift(task->input >= 0 ? task->input : null, e);
	dir = task->dir >= 0 ? lift(task->dir, e) : -1;
	if (output < 0 || input < 0 || (task->dir >= 0 && dir < 0) || fd_set_nonblocking(h->fd))
		return -1;
	p.input = input;
	p.output = output;
	p.dir = dir;
	h->pid = spawn(&p);
	if (h->pid < 0)
		return err_sys(e, ERR_NODE, "vfork");
	if (loop_child(h->loop, h->pid, on_end, h, e)) {
		kill(h->pid, SIGKILL);
		waitpid(h->pid, NULL, 0);
		return -1;
	}
	return 0;
}

struct helper *
helper_start(struct loop *l, const struct helper_task *task, helper_fn fn, void *arg, struct err *e)
{
	struct helper *h = calloc(1, sizeof *h);

	if (!h) {
		err_set(e, ERR_NODE, "helper: out of memory");
		return NULL;
	}
	h->loop = l;
	h->fd = -1;
	h->fn = fn;
	h->arg = arg;
	h->text.max = HELPER_OUTPUT_MAX;
	h->timer = loop_timer_add(l, on_timeout, h, e);
	if (!h->timer || start(h, task, e)) {
		helper_free(h);
		return NULL;
	}
	loop_timer_after(h->timer, task->timeout_ns);
	/* The child is there: without the watch its end is still seen, its text is not. */
	h->watch = loop_fd_add(l, h->fd, EPOLLIN, on_output, h, e);
	if (!h->watch)
		fd_close(&h->fd);
	return h;
}

void
helper_cancel(struct helper *h)
{
	if (!h->ended) {
		kill(h->pid, SIGKILL);
		loop_child_unheard(h->loop, h->pid);
	}
	helper_free(h);
}

static int
open_below(const char *dir, const char *name)
{
	char path[4096 + 64];

	if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
		return -1;
	return open(path, O_PATH | O_CLOEXEC);
}

int
helper_open(const char *name, struct err *e)
{
	char self[3900], dir[4000];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	int fd = -1;

	if (n > 0) {
		self[n] = '\0';
		*strrchr(self, '/') = '\0';
		fd = open_below(self, name);
		snprintf(dir, sizeof dir, "%s/../lib/pratai", self);
		if (fd < 0)
			fd = open_below(dir, name);
	}
	if (fd < 0)
		fd = open_below(PRATAI_PREFIX "/lib/pratai", name);
	if (fd < 0)
		err_sys(e, ERR_NODE, "%s is neither beside this program nor in lib/pratai", name);
	return fd;
}
