/*
 * See foreground.h.  One poll loop; nothing in it blocks but the poll.
 *
 * The descriptors that we write to are the caller's and shared with others, so they are
 * not made non-blocking.  Instead at most PIPE_BUF bytes are written after poll said
 * POLLOUT, which a pipe takes without blocking, and a terminal or file as well.
 *
 * The cut is exact: one byte more than is left is asked for; when it comes, the limit is
 * exceeded, what fits is passed on, and the sandbox ends.
 */
#include "sandbox/foreground.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/fdio.h"
#include "sandbox/sandbox.h"
#include "sandbox/watch.h"

int
run_io_open(struct run_io *io, int stdio[3], struct err *e)
{
	static const int ours[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
	struct sigaction sa;
	sigset_t set;

	io->input = io->ends[0] = io->ends[1] = io->pumps[0].from = io->pumps[1].from = -1;
	sigemptyset(&set);
	for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
		if (!sigaction(ours[i], NULL, &sa) && sa.sa_handler != SIG_IGN)
			sigaddset(&set, ours[i]);
	signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	io->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (io->signals < 0)
		return err_sys(e, ERR_NODE, "signalfd");
	if (io->output_max != UINT64_MAX && (fcntl(stdio[0], F_GETFL) & O_ACCMODE) == O_RDWR) {
		/* A terminal, to which the command could write past the limit. */
		int fd = open("/proc/self/fd/0", O_RDONLY | O_NOCTTY | O_CLOEXEC);

		if (fd >= 0)
			io->input = stdio[0] = fd;
	}
	for (int i = 0; io->output_max != UINT64_MAX && i < 2; i++) {
		int fds[2];

		if (pipe2(fds, O_CLOEXEC))
			return err_sys(e, ERR_NODE, "make a pipe");
		io->pumps[i].from = fds[0];
		io->pumps[i].to = stdio[i + 1];
		io->ends[i] = stdio[i + 1] = fds[1];
		/* Programs that log to /dev/stdout open it anew, with the sandbox's user's rights. */
		if (fd_set_nonblocking(fds[0]) || fchmod(fds[1], 0622))
			return err_sys(e, ERR_NODE, "set up a pipe");
	}
	return 0;
}

void
run_io_started(struct run_io *io)
{
	fd_close(&io->input);
	fd_close(&io->ends[0]);
	fd_close(&io->ends[1]);
}

void
run_io_close(struct run_io *io)
{
	run_io_started(io);
	fd_close(&io->signals);
	fd_close(&io->pumps[0].from);
	fd_close(&io->pumps[1].from);
}

/* True when the limit is exceeded. */
static bool
pump_in(struct run_io *io, struct pump *p)
{
	uint64_t left = io->output_max - io->output_bytes;
	size_t want = left < PUMP_BYTES ? (size_t)left + 1 : PUMP_BYTES;
	ssize_t n;

	if (want > PUMP_BYTES)
		want = PUMP_BYTES;
	n = read(p->from, p->data, want);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return false;
	if (n <= 0) {
		fd_close(&p->from);
		return false;
	}
	p->at = 0;
	p->len = (uint64_t)n > left ? (size_t)left : (size_t)n;
	io->output_bytes += p->len;
	return (uint64_t)n > left;
}

static void
pump_out(struct pump *p)
{
	size_t n = p->len < PIPE_BUF ? p->len : PIPE_BUF;
	ssize_t put = write(p->to, p->data + p->at, n);

	if (put < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (put < 0) {
		/* Nobody reads any more: the command finds out as it would without us. */
		fd_close(&p->from);
		p->len = 0;
		return;
	}
	p->at += (size_t)put;
	p->len -= (size_t)put;
}

static void
cut(struct sandbox *sb, struct run_io *io)
{
	fd_close(&io->pumps[0].from);
	fd_close(&io->pumps[1].from);
	sandbox_kill(sb, SANDBOX_OUTPUT_EXCEEDED, clock_mono_ns());
	/* It had ended by itself, and its output was still in the pipe. */
	if (sb->outcome.reason == SANDBOX_EXITED || sb->outcome.reason == SANDBOX_SIGNALED)
		sb->outcome.reason = SANDBOX_OUTPUT_EXCEEDED;
}

/* True when the rest of the output is to be given up. */
static bool
take_signal(struct sandbox *sb, struct run_io *io)
{
	struct signalfd_siginfo info;
	bool done = sb->state == SANDBOX_DONE;

	if (read(io->signals, &info, sizeof info) != (ssize_t)sizeof info)
		return false;
	if (sb->state == SANDBOX_RUNNING || done) {
		sandbox_kill(sb, SANDBOX_CANCELLED, clock_mono_ns());
		sb->outcome.reason = SANDBOX_CANCELLED;
		sb->outcome.code = (int)info.ssi_signo;
	}
	fd_close(&io->pumps[0].from);
	fd_close(&io->pumps[1].from);
	return true;
}

static unsigned
pump_events(const struct run_io *io, struct pollfd *p)
{
	unsigned n = 0;

	for (int i = 0; i < 2; i++) {
		const struct pump *pump = &io->pumps[i];

		if (pump->len)
			p[n++] = (struct pollfd){ .fd = pump->to, .events = POLLOUT };
		else if (pump->from >= 0)
			p[n++] = (struct pollfd){ .fd = pump->from, .events = POLLIN };
	}
	return n;
}

static void
pump(struct sandbox *sb, struct run_io *io, const struct pollfd *p, unsigned n)
{
	for (unsigned k = 0; k < n; k++) {
		if (!p[k].revents)
			continue;
		for (int i = 0; i < 2; i++) {
			struct pump *pump = &io->pumps[i];

			if (pump->len && (p[k].events & POLLOUT) && p[k].fd == pump->to) {
				pump_out(pump);
				break;
			}
			if (!pump->len && (p[k].events & POLLIN) && p[k].fd == pump->from) {
				if (pump_in(io, pump))
					cut(sb, io);
				break;
			}
		}
	}
}

static int
wait_until(struct pollfd *p, unsigned n, uint64_t until_ns)
{
	uint64_t now = clock_mono_ns(), left = until_ns > now ? until_ns - now : 0;
	struct timespec t = { .tv_sec = (time_t)(left / NS_PER_S), .tv_nsec = (long)(left % NS_PER_S) };

	return ppoll(p, n, until_ns == UINT64_MAX ? NULL : &t, NULL);
}

int
run_supervise(struct sandbox *sb, struct run_io *io, struct err *e)
{
	struct pollfd p[SANDBOX_POLL_MAX + 4];
	bool give_up = false;

	for (;;) {
		bool done = sandbox_step(sb, clock_mono_ns()) == SANDBOX_DONE;
		uint64_t until;
		unsigned of_sandbox, pumps, watched;

		of_sandbox = sandbox_events(sb, p, &until);
		pumps = pump_events(io, p + of_sandbox);
		if (done && (pumps == 0 || give_up))
			break;
		if (give_up)
			pumps = 0;
		p[of_sandbox + pumps] = (struct pollfd){ .fd = io->signals, .events = POLLIN };
		watched = of_sandbox + pumps + 1;
		p[watched].revents = 0;
		if (wait_until(p, watched + (io->watch ? watch_events(io->watch, sb, p + watched) : 0),
			       until) < 0) {
			if (errno == EINTR)
				continue;
			sandbox_kill(sb, SANDBOX_SETUP_FAILED, clock_mono_ns());
			return err_sys(e, ERR_NODE, "poll");
		}
		if (io->watch)
			watch_step(io->watch, sb, p[watched].revents);
		if (p[of_sandbox + pumps].revents && take_signal(sb, io))
			give_up = true;
		else
			pump(sb, io, p + of_sandbox, pumps);
	}
	return 0;
}
