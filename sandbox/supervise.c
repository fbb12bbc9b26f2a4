/*
 * From a sandbox's start to its last trace: a state machine that never waits.
 *
 *   HELD    ─ its event has come ─► RUNNING; else as RUNNING, which never ends by itself
 *   RUNNING ─ the command ended, failed to start, or init died ─► ENDING
 *   RUNNING ─ deadline, memory, an order (kill: the reason is fixed) ─► ENDING
 *   ENDING  ─ init reaped, the cgroup empty, read and removed ─► DONE
 *
 * Why it ended is never guessed: the deadline is the one that was compared with the clock,
 * memory is what the cgroup counted, an exit status is what init's wait returned.  The
 * first reason stands, with one exception: a command that ended by itself while a process
 * of its sandbox was killed for memory is MEMORY_EXCEEDED.
 *
 * In ENDING everything in the sandbox is already dying: init's end makes the kernel kill
 * the rest.  A CPU quota can hold that up, so after a moment the group is killed as well,
 * which lifts the quota; and again, until it is empty.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/fdio.h"
#include "sandbox/child.h"

enum {
	GRACE_NS = 5000000,  /* for the kernel's own kill after init's end */
	AGAIN_NS = 10000000, /* between two kills */
	RETRY_NS = 1000000,  /* for a group that is still busy */
};

const char *
sandbox_reason_name(enum sandbox_reason r)
{
	static const char *const names[] = {
		[SANDBOX_EXITED] = "exited",
		[SANDBOX_SIGNALED] = "signaled",
		[SANDBOX_TIMEOUT] = "timeout",
		[SANDBOX_MEMORY_EXCEEDED] = "memory_exceeded",
		[SANDBOX_OUTPUT_EXCEEDED] = "output_exceeded",
		[SANDBOX_CANCELLED] = "cancelled",
		[SANDBOX_SETUP_FAILED] = "setup_failed",
		[SANDBOX_NOT_FOUND] = "not_found",
		[SANDBOX_NOT_EXECUTABLE] = "not_executable",
		[SANDBOX_LOST] = "lost",
	};
	_Static_assert(sizeof names / sizeof names[0] == SANDBOX_REASON_COUNT, "a name for each");

	return names[r];
}

unsigned
sandbox_events(const struct sandbox *sb, struct pollfd p[SANDBOX_POLL_MAX], uint64_t *until_ns)
{
	unsigned n = 0;
	short oom_events;
	int fd;

	*until_ns = UINT64_MAX;
	if (sb->state == SANDBOX_DONE)
		return 0;
	if (sb->status >= 0 && sb->watch_status)
		p[n++] = (struct pollfd){ .fd = sb->status, .events = POLLIN };
	if (sb->pidfd >= 0)
		p[n++] = (struct pollfd){ .fd = sb->pidfd, .events = POLLIN };
	if (sb->state <= SANDBOX_RUNNING) {
		fd = sb->group ? cgroup_oom_fd(sb->group, &oom_events) : -1;
		if (fd >= 0)
			p[n++] = (struct pollfd){ .fd = fd, .events = oom_events };
		if (sb->deadline_ns)
			*until_ns = sb->deadline_ns;
	} else if (sb->pidfd < 0 && sb->uplink.pidfd >= 0) {
		p[n++] = (struct pollfd){ .fd = sb->uplink.pidfd, .events = POLLIN };
	} else if (sb->pidfd < 0 && sb->group && (fd = cgroup_populated_fd(sb->group)) >= 0) {
		p[n++] = (struct pollfd){ .fd = fd, .events = POLLPRI };
	}
	if (sb->kill_again_ns && sb->kill_again_ns < *until_ns)
		*until_ns = sb->kill_again_ns;
	return n;
}

/* What its processes have noted. */
static void
take_progress(struct sandbox *sb)
{
	const struct progress *p = sb->progress;
	struct sandbox_outcome *o = &sb->outcome;

	o->steps_done = __atomic_load_n(&p->steps_done, __ATOMIC_RELAXED);
	memcpy(o->step_us, p->step_us, sizeof o->step_us);
	if (p->running_ns)
		o->setup_ns = p->running_ns - sb->start_ns;
}

static void
kill_now(struct sandbox *sb, uint64_t now_ns)
{
	struct err ignored;

	/* Both: the group's kill reaches those who are slow to be told, init's makes the
	 * kernel refuse new forks.  What fails is tried again. */
	if (sb->group)
		cgroup_kill(sb->group, &ignored);
	if (sb->pidfd >= 0)
		pidfd_send_signal(sb->pidfd, SIGKILL, NULL, 0);
	sb->kill_again_ns = now_ns + AGAIN_NS;
}

void
sandbox_kill(struct sandbox *sb, enum sandbox_reason why, uint64_t now_ns)
{
	if (sb->state > SANDBOX_RUNNING)
		return;
	sb->outcome.reason = why;
	sb->ordered = true;
	sb->state = SANDBOX_ENDING;
	take_progress(sb);
	if (sb->progress->running_ns)
		sb->outcome.wall_ns = now_ns - sb->progress->running_ns;
	kill_now(sb, now_ns);
}

static void
take_failed(struct sandbox *sb, const struct record *r)
{
	struct sandbox_outcome *o = &sb->outcome;

	if (sb->ordered || sb->failed || r->code < 0 || r->code >= SANDBOX_REASON_COUNT)
		return;
	sb->failed = true;
	o->reason = (enum sandbox_reason)r->code;
	o->error = r->error;
	o->error.step[sizeof o->error.step - 1] = '\0';
	o->error.text[sizeof o->error.text - 1] = '\0';
}

static void
take_ended(struct sandbox *sb, const struct record *r)
{
	struct sandbox_outcome *o = &sb->outcome;

	if (sb->failed || sb->ordered)
		return;
	if (sb->progress->failed.kind == RECORD_FAILED) {
		take_failed(sb, &sb->progress->failed);
		return;
	}
	sb->reported = true;
	o->reason = WIFSIGNALED(r->code) ? SANDBOX_SIGNALED : SANDBOX_EXITED;
	o->code = WIFSIGNALED(r->code) ? WTERMSIG(r->code) : WEXITSTATUS(r->code);
	o->wall_ns = sb->progress->running_ns ? r->at_ns - sb->progress->running_ns : 0;
}

/* Reads what init has said.  True: it will say no more. */
static bool
read_records(struct sandbox *sb)
{
	struct record r;
	ssize_t n;

	while (sb->status >= 0) {
		n = read(sb->status, &r, sizeof r);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return false;
		if (n != (ssize_t)sizeof r) {
			fd_close(&sb->status);
			return true;
		}
		if (r.kind == RECORD_FAILED)
			take_failed(sb, &r);
		else if (r.kind == RECORD_ENDED)
			take_ended(sb, &r);
		if (sb->failed || sb->reported)
			return true;
	}
	return true;
}

static void
step_running(struct sandbox *sb, uint64_t now_ns)
{
	/* A failed setup's memory may be what failed it: the group is asked first. */
	bool ended = read_records(sb);

	if (sb->group && cgroup_oom(sb->group)) {
		sandbox_kill(sb, SANDBOX_MEMORY_EXCEEDED, now_ns);
	} else if (ended) {
		sb->state = SANDBOX_ENDING;
		sb->kill_again_ns = now_ns + GRACE_NS;
	} else if (sb->deadline_ns && now_ns >= sb->deadline_ns) {
		sandbox_kill(sb, SANDBOX_TIMEOUT, now_ns);
	}
}

static uint64_t
nanoseconds(const struct timeval *t)
{
	return (uint64_t)t->tv_sec * NS_PER_S + (uint64_t)t->tv_usec * NS_PER_US;
}

static void
reap(struct sandbox *sb)
{
	siginfo_t info = { 0 };
	struct rusage used = { 0 };

	if (sb->pidfd < 0)
		return;
	/* The raw call, which also tells what init and all that it reaped have used: without
	 * a cgroup, the only count there is. */
	if (syscall(SYS_waitid, P_PIDFD, sb->pidfd, &info, WEXITED | WNOHANG, &used) < 0 &&
	    errno != EINTR)
		info.si_pid = sb->pid; /* ECHILD: somebody else has reaped it */
	if (!info.si_pid)
		return;
	fd_close(&sb->pidfd);
	if (!sb->group)
		sb->outcome.usage.cpu_ns = nanoseconds(&used.ru_utime) + nanoseconds(&used.ru_stime);
}

static void
settle(struct sandbox *sb)
{
	struct sandbox_outcome *o = &sb->outcome;

	take_progress(sb);
	if (sb->ordered)
		return;
	if (o->usage.oom_kills || (sb->group && cgroup_oom(sb->group))) {
		o->reason = SANDBOX_MEMORY_EXCEEDED;
	} else if (!sb->failed && !sb->reported) {
		o->reason = SANDBOX_LOST;
		err_set(&o->error, ERR_NODE, "the sandbox's init died");
	}
}

/* All processes are gone: what the group counted, then the group. */
static void
step_gone(struct sandbox *sb, uint64_t now_ns)
{
	struct err e = { 0 };

	if (sb->group && !sb->counted) {
		if (cgroup_populated(sb->group, &e) == 1) {
			if (!sb->kill_again_ns || now_ns >= sb->kill_again_ns)
				kill_now(sb, now_ns);
			if (cgroup_populated_fd(sb->group) < 0)
				sb->kill_again_ns = now_ns + RETRY_NS;
			return;
		}
		cgroup_usage(sb->group, &sb->outcome.usage, &e);
	}
	if (!sb->counted)
		settle(sb);
	sb->counted = true;
	if (sb->group && !sb->remains_later) {
		/* First: of a file that is open while its directory goes, the kernel keeps the name
		 * and what is behind it until memory is short. */
		cgroup_close(sb->group);
		if (cgroup_remove(sb->group, &e) && e.cls == ERR_AGAIN) {
			sb->kill_again_ns = now_ns + RETRY_NS;
			return;
		}
		sb->group = NULL;
	}
	fd_close(&sb->status);
	sb->state = SANDBOX_DONE;
}

enum sandbox_state
sandbox_step(struct sandbox *sb, uint64_t now_ns)
{
	if (sb->state <= SANDBOX_RUNNING)
		step_running(sb, now_ns);
	if (sb->state == SANDBOX_ENDING) {
		/* Its end is seen by the pidfd; the pipe would wake us for nothing. */
		fd_close(&sb->status);
		reap(sb);
		uplink_kill(&sb->uplink);
		if (sb->pidfd < 0 && uplink_reap(&sb->uplink))
			step_gone(sb, now_ns);
		else if (sb->kill_again_ns && now_ns >= sb->kill_again_ns)
			kill_now(sb, now_ns);
	}
	return sb->state;
}

void
sandbox_release(struct sandbox *sb)
{
	if (sb->state != SANDBOX_DONE)
		kill_now(sb, clock_mono_ns());
	uplink_kill(&sb->uplink);
	fd_close(&sb->uplink.pidfd);
	fd_close(&sb->pidfd);
	fd_close(&sb->status);
	if (!sb->remains_later)
		fd_close(&sb->go);
	if (sb->progress)
		munmap(sb->progress, sizeof *sb->progress);
	sb->progress = NULL;
	fd_close(&sb->word);
	orders_free(sb->orders);
	sb->orders = NULL;
}
