#include "runtimes/exec/run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/fdio.h"

extern char **environ;

enum { EXIT_NODE_GONE = 70 };
enum watched { WATCH_CHANNEL, WATCH_INPUT, WATCH_OUTPUT, WATCH_END, WATCH_COUNT };

struct pump {
	struct run *run;
	pid_t pid;
	int input, output, end; /* the program's 0 and 1, its pidfd; -1 when closed */
	size_t at, len;         /* of run->early: what goes into input next */
};

/* One byte more than allowed shows that there is more.  Pages that are not used cost nothing. */
static char answer[RUN_ANSWER_MAX + 1];

/* ---- Start ---- */

static int
open_pipes(int in[2], int out[2], struct failure *f)
{
	if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 ||
	    fd_set_nonblocking(in[1]) < 0 || fd_set_nonblocking(out[0]) < 0)
		return failure_set(f, "BadMain", "main cannot be started: no pipe: %s",
				   strerror(errno));
	return 0;
}

static int
spawn(const char *path, int in, int out, pid_t *pid)
{
	char *argv[] = { (char *)path, NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t all, none;
	int rc;

	sigfillset(&all);
	sigemptyset(&none);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	posix_spawn_file_actions_adddup2(&actions, in, 0);
	posix_spawn_file_actions_adddup2(&actions, out, 1);
	posix_spawnattr_setsigdefault(&attr, &all);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
	rc = posix_spawn(pid, path, &actions, &attr, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attr);
	return rc;
}

static int
start(struct pump *p, struct failure *f)
{
	int in[2] = { -1, -1 }, out[2] = { -1, -1 };
	int rc = open_pipes(in, out, f), error;

	if (rc == 0 && (error = spawn(p->run->path, in[0], out[1], &p->pid)))
		rc = failure_set(f, "BadMain", "main cannot be executed: %s", strerror(error));
	fd_close(&in[0]);
	fd_close(&out[1]);
	p->input = in[1];
	p->output = out[0];
	p->end = rc ? -1 : (int)syscall(SYS_pidfd_open, p->pid, 0);
	if (rc == 0 && p->end < 0)
		rc = failure_set(f, "BadMain", "main cannot be waited for: %s", strerror(errno));
	return rc;
}

/* ---- In and out ---- */

/* More of the payload; blocks if none is there. */
static void
read_payload(struct pump *p)
{
	struct run *r = p->run;
	size_t want = r->payload_left < RUN_CHUNK ? (size_t)r->payload_left : RUN_CHUNK;
	ssize_t n;

	do
		n = read(r->channel, r->early, want);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		_exit(EXIT_NODE_GONE);
	r->payload_left -= (uint64_t)n;
	p->at = 0;
	p->len = (size_t)n;
}

/* The program reads, or has stopped reading: then the rest is for nobody. */
static void
write_input(struct pump *p)
{
	ssize_t n = write(p->input, p->run->early + p->at, p->len - p->at);

	if (n >= 0)
		p->at += (size_t)n;
	else if (errno != EAGAIN && errno != EINTR)
		fd_close(&p->input);
}

/* At most max bytes.  -1: more than an answer may have. */
static int
read_output(struct pump *p, size_t max)
{
	struct run *r = p->run;
	size_t room = sizeof answer - r->answer_len;
	ssize_t n = read(p->output, answer + r->answer_len, max < room ? max : room);

	if (n > 0)
		r->answer_len += (size_t)n;
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		fd_close(&p->output);
	return r->answer_len > RUN_ANSWER_MAX ? -1 : 0;
}

static bool
has_input(const struct pump *p)
{
	return p->at < p->len;
}

/* Until the program ended, or wrote too much. */
static int
pump(struct pump *p)
{
	for (;;) {
		bool more = p->run->payload_left > 0;
		struct pollfd fds[WATCH_COUNT] = {
			[WATCH_CHANNEL] = { .fd = p->input >= 0 && !has_input(p) && more
							  ? p->run->channel : -1, .events = POLLIN },
			[WATCH_INPUT] = { .fd = has_input(p) ? p->input : -1, .events = POLLOUT },
			[WATCH_OUTPUT] = { .fd = p->output, .events = POLLIN },
			[WATCH_END] = { .fd = p->end, .events = POLLIN },
		};

		if (p->input >= 0 && !has_input(p) && !more)
			fd_close(&p->input);
		if (poll(fds, WATCH_COUNT, -1) < 0)
			continue; /* a signal */
		if (fds[WATCH_INPUT].revents)
			write_input(p);
		if (fds[WATCH_CHANNEL].revents)
			read_payload(p);
		if (fds[WATCH_OUTPUT].revents && read_output(p, sizeof answer))
			return -1;
		if (fds[WATCH_END].revents)
			return 0;
	}
}

/* What was written before the end, and not what children go on to write. */
static int
read_rest(struct pump *p)
{
	int left = 0;

	if (p->output < 0 || ioctl(p->output, FIONREAD, &left) < 0)
		return 0;
	while (left > 0 && p->output >= 0) {
		size_t before = p->run->answer_len;

		if (read_output(p, (size_t)left))
			return -1;
		left -= (int)(p->run->answer_len - before);
	}
	return 0;
}

/* ---- End ---- */

static int
judge(pid_t pid, struct failure *f)
{
	const char *name;
	int status = 0;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (WIFEXITED(status))
		return failure_set(f, "ExitStatus", "main ended with exit status %d",
				   WEXITSTATUS(status));
	/* Most likely for want of memory, which the node knows better: what it sees is how the
	 * sandbox's first process ended. */
	if (WTERMSIG(status) == SIGKILL)
		raise(SIGKILL);
	name = sigabbrev_np(WTERMSIG(status));
	return failure_set(f, "Signal", "main was ended by signal %s%s", name ? "SIG" : "",
			   name ? name : "unknown");
}

static int
too_large(struct pump *p, struct failure *f)
{
	kill(p->pid, SIGKILL);
	return failure_set(f, "ResponseTooLarge", "the answer has more than the %d bytes that are "
			   "allowed", RUN_ANSWER_MAX);
}

int
run_program(struct run *r, struct failure *f)
{
	struct pump p = { .run = r, .input = -1, .output = -1, .end = -1, .len = r->early_len };
	uint64_t began_ns = clock_mono_ns();
	int rc = start(&p, f);

	r->answer = answer;
	if (rc == 0) {
		if (pump(&p) || read_rest(&p))
			rc = too_large(&p, f);
		else
			rc = judge(p.pid, f);
	}
	r->run_us = (clock_mono_ns() - began_ns) / NS_PER_US;
	fd_close(&p.input);
	fd_close(&p.output);
	fd_close(&p.end);
	while (r->payload_left)
		read_payload(&p);
	return rc;
}
