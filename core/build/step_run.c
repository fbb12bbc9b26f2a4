#include "core/build/step_run.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/build/disk_use.h"
#include "core/node/utf8.h"
#include "sandbox/slots.h"

/* Over the image's own files and users; nothing that reaches the kernel's other parts. */
#define STEP_CAPS                                                                                  \
	(1ull << CAP_CHOWN | 1ull << CAP_DAC_OVERRIDE | 1ull << CAP_FOWNER | 1ull << CAP_FSETID |  \
	 1ull << CAP_SETUID | 1ull << CAP_SETGID | 1ull << CAP_KILL)

enum { STEP_PIDS = 2048, LINE_MAX_SHOWN = 8192 };
#define LOOK_NS (200 * NS_PER_MS)
#define DISK_RESERVE (512ull << 20) /* of free space that a build leaves */

struct watcher {
	struct step_run *r;
	struct sandbox sb;
	int disk, out, signals;
	uint64_t free_at_start, look_ns;
	struct err why; /* we have ended it */
	struct buf line;
};

/* ---- What it prints ---- */

static void
show(struct watcher *w, size_t len)
{
	struct buf clean = { 0 };

	utf8_put_plain(&clean, w->line.data, len);
	if (clean.len)
		fd_write_all(STDERR_FILENO, clean.data, clean.len);
	buf_free(&clean);
	buf_consume(&w->line, len);
}

/* False: its end. */
static bool
take_output(struct watcher *w)
{
	char chunk[16 << 10], *end;
	ssize_t n = read(w->out, chunk, sizeof chunk);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return errno == EINTR;
	if (n <= 0)
		return false;
	tail_add(&w->r->log, chunk, (size_t)n);
	if (!w->r->live || buf_put(&w->line, chunk, (size_t)n))
		return true;
	end = memrchr(w->line.data, '\n', w->line.len);
	if (end || w->line.len > LINE_MAX_SHOWN)
		show(w, end ? (size_t)(end - w->line.data) + 1 : w->line.len);
	return true;
}

/* ---- Limits ---- */

static void
end(struct watcher *w, enum sandbox_reason reason, const struct err *why)
{
	if (w->why.cls != ERR_NONE)
		return;
	w->why = *why;
	sandbox_kill(&w->sb, reason, clock_mono_ns());
}

static uint64_t
free_bytes(int fd)
{
	struct statvfs v;

	return fstatvfs(fd, &v) ? UINT64_MAX : (uint64_t)v.f_bavail * v.f_frsize;
}

static void
look_at_disk(struct watcher *w)
{
	uint64_t now = free_bytes(w->disk), max = w->r->limits.disk_bytes, used;
	struct err e = { 0 };

	if (now < DISK_RESERVE) {
		err_set(&e, ERR_LIMIT, "the disk of the image store is full: less than %llu MiB are free",
			DISK_RESERVE >> 20);
		end(w, SANDBOX_CANCELLED, &e);
	} else if (now < w->free_at_start && w->free_at_start - now > max) {
		used = disk_use(w->disk, max);
		if (used > max) {
			err_set(&e, ERR_LIMIT, "it wrote more than %llu MiB (--disk)",
				(unsigned long long)max >> 20);
			end(w, SANDBOX_CANCELLED, &e);
		}
		/* The rest is others'. */
		w->free_at_start = now + used;
	}
}

static void
take_signal(struct watcher *w)
{
	struct signalfd_siginfo info;
	struct err e = { 0 };

	if (read(w->signals, &info, sizeof info) != (ssize_t)sizeof info)
		return;
	err_set(&e, ERR_AGAIN, "interrupted by signal %d", (int)info.ssi_signo);
	end(w, SANDBOX_CANCELLED, &e);
}

/* ---- Its life ---- */

static int
supervise(struct watcher *w, struct err *e)
{
	struct pollfd p[SANDBOX_POLL_MAX + 2];

	while (sandbox_step(&w->sb, clock_mono_ns()) != SANDBOX_DONE) {
		uint64_t until, now = clock_mono_ns();
		unsigned n = sandbox_events(&w->sb, p, &until);
		struct timespec t;

		if (now >= w->look_ns) {
			look_at_disk(w);
			w->look_ns = now + LOOK_NS;
			continue;
		}
		until = until < w->look_ns ? until : w->look_ns;
		until = until > now ? until - now : 0;
		t = (struct timespec){ .tv_sec = (time_t)(until / NS_PER_S),
				       .tv_nsec = (long)(until % NS_PER_S) };
		p[n] = (struct pollfd){ .fd = w->signals, .events = POLLIN };
		p[n + 1] = (struct pollfd){ .fd = w->out, .events = POLLIN };
		if (ppoll(p, n + 2, &t, NULL) < 0) {
			if (errno == EINTR)
				continue;
			return err_sys(e, ERR_NODE, "wait for a build step");
		}
		if (p[n].revents)
			take_signal(w);
		if (p[n + 1].revents && !take_output(w))
			fd_close(&w->out);
	}
	/* Nobody can write any more: what is in the pipe is all. */
	while (w->out >= 0 && take_output(w))
		;
	if (w->line.len)
		show(w, w->line.len);
	return 0;
}

static int
judge(const struct watcher *w, struct err *e)
{
	const struct sandbox_outcome *o = &w->sb.outcome;
	const struct step_limits *l = &w->r->limits;
	const char *name;

	if (w->why.cls != ERR_NONE) {
		*e = w->why;
		return -1;
	}
	switch (o->reason) {
	case SANDBOX_EXITED:
		return o->code ? err_set(e, ERR_FUNCTION, "it ended with exit status %d", o->code) : 0;
	case SANDBOX_SIGNALED:
		name = sigabbrev_np(o->code);
		return err_set(e, ERR_FUNCTION, "it was ended by signal %s%s", name ? "SIG" : "",
			       name ? name : "unknown");
	case SANDBOX_TIMEOUT:
		return err_set(e, ERR_LIMIT, "it did not end within %llu s (--timeout)",
			       (unsigned long long)(l->timeout_ns / NS_PER_S));
	case SANDBOX_MEMORY_EXCEEDED:
		return err_set(e, ERR_LIMIT, "it needed more than %llu MiB of memory (--memory)",
			       (unsigned long long)l->memory_bytes >> 20);
	case SANDBOX_NOT_FOUND:
	case SANDBOX_NOT_EXECUTABLE:
		return err_set(e, ERR_FUNCTION, "%s", o->error.text);
	default:
		return err_set(e, ERR_NODE, "its sandbox: %s%s%s", o->error.step,
			       o->error.step[0] ? ": " : "",
			       o->error.text[0] ? o->error.text : sandbox_reason_name(o->reason));
	}
}

static int
take_group(struct step_run *r, struct cgroup_manager **manager, struct err *e)
{
	char name[CGROUP_NAME_MAX];

	*manager = cgroup_manager_new(CGROUP_INSTANCE_RUN, NULL, &r->spec.limits, e);
	if (!*manager)
		return err_wrap(e, "cgroup");
	cgroup_sweep(*manager, NULL); /* what a killed one left; its failure is not ours */
	if (cgroup_run_name(name, e))
		return -1;
	r->spec.group = cgroup_begin(*manager, name, e);
	return r->spec.group ? 0 : -1;
}

static void
fill_spec(struct step_run *r, int out)
{
	static const struct net_rules none;
	struct sandbox_spec *s = &r->spec;

	s->hostname = "build";
	s->uid = 0;
	s->caps = STEP_CAPS;
	s->stdio[0] = -1;
	s->stdio[1] = s->stdio[2] = out;
	s->channel = s->netns = s->netns_home = s->uplink_netns = s->devices = -1;
	s->tmp_bytes = r->limits.memory_bytes / 2;
	s->limits = (struct cgroup_limits){ .memory_bytes = r->limits.memory_bytes, .pids = STEP_PIDS };
	s->network = r->names ? SANDBOX_NET_EGRESS : SANDBOX_NET_NONE;
	s->allow = &none;
	s->allow_names = r->names;
}

static int
run(struct watcher *w, int out, struct err *e)
{
	struct step_run *r = w->r;
	struct cgroup_manager *manager = NULL;
	CLEAN_FD int slot = -1;
	int rc = -1;

	fill_spec(r, out);
	if (!take_group(r, &manager, e) && (slot = slots_take(&r->spec.uid_base, e)) >= 0) {
		r->spec.deadline_ns = clock_mono_ns() + r->limits.timeout_ns;
		rc = sandbox_start(&w->sb, &r->spec, e);
	}
	close(out); /* the command's */
	if (rc == 0) {
		r->spec.group = NULL;
		rc = supervise(w, e);
		sandbox_release(&w->sb);
		if (rc == 0)
			rc = judge(w, e);
	}
	if (r->spec.group)
		cgroup_remove(r->spec.group, NULL);
	r->spec.group = NULL;
	cgroup_manager_free(manager);
	return rc;
}

/* Ours, blocked from the first step on: a build ends by them, and cleans up. */
static int
take_signals(struct err *e)
{
	static const int ours[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
	sigset_t set;
	int fd;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
		sigaddset(&set, ours[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? err_sys(e, ERR_NODE, "signalfd") : fd;
}

int
step_run(struct step_run *r, struct err *e)
{
	struct watcher w = { .r = r, .disk = -1, .out = -1, .signals = -1 };
	int pipe_fds[2], rc = -1;

	w.disk = open(r->spec.disk.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	w.signals = take_signals(e);
	if (w.disk < 0 || pipe2(pipe_fds, O_CLOEXEC)) {
		err_sys(e, ERR_NODE, "prepare a build step");
	} else {
		w.out = pipe_fds[0];
		w.free_at_start = free_bytes(w.disk);
		/* Programs that log to /dev/stdout open it anew, with the sandbox's user's rights. */
		if (w.signals < 0 || fd_set_nonblocking(w.out) || fchmod(pipe_fds[1], 0622)) {
			close(pipe_fds[1]);
			err_sys(e, ERR_NODE, "set up a pipe");
		} else {
			rc = run(&w, pipe_fds[1], e);
		}
	}
	fd_close(&w.disk);
	fd_close(&w.out);
	fd_close(&w.signals);
	buf_free(&w.line);
	return rc;
}
