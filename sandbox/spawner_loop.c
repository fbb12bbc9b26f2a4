/*
 * The life of the spawner: one epoll loop over the driver's socket and the sandboxes.
 *
 * A slot is one live sandbox and the range of user ids that goes with it; it is free again
 * only when the sandbox is DONE and its result has been sent, and the search for a free
 * one goes round, so a range rests as long as possible between two users.  A descriptor of
 * a sandbox is armed for one event at a time (EPOLLONESHOT): children hold copies for a
 * moment, and a level-triggered event of a description that we have closed would wake us
 * for ever.
 *
 * Between messages, when nothing has happened for a moment, the loop removes the cgroups of
 * sandboxes that have ended and makes things ahead: cgroups and /dev, ways out, sandboxes.
 *
 * Anything of the driver's that is not well formed ends the loop, and so the spawner.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/fdio.h"
#include "core/base/log.h"
#include "sandbox/cgroup.h"
#include "sandbox/spawner_state.h"

enum { QUIET_MS = 1, BUSY_QUIET_MS = 2, END_NS = 2000000000 }; /* for the sandboxes to go when the driver is gone */
#define FILLER_AGAIN_NS (1ull * NS_PER_S)

static const uint64_t tag_driver = UINT64_MAX, tag_filler = UINT64_MAX - 1;

/* ---- Results ---- */

static enum spawn_reason
wire_reason(enum sandbox_reason r)
{
	static const enum spawn_reason map[] = {
		[SANDBOX_EXITED] = SPAWN_EXITED,
		[SANDBOX_SIGNALED] = SPAWN_SIGNALED,
		[SANDBOX_TIMEOUT] = SPAWN_TIMEOUT,
		[SANDBOX_MEMORY_EXCEEDED] = SPAWN_MEMORY_EXCEEDED,
		[SANDBOX_OUTPUT_EXCEEDED] = SPAWN_OUTPUT_EXCEEDED,
		[SANDBOX_CANCELLED] = SPAWN_CANCELLED,
		[SANDBOX_SETUP_FAILED] = SPAWN_SETUP_FAILED,
		[SANDBOX_NOT_FOUND] = SPAWN_SETUP_FAILED,
		[SANDBOX_NOT_EXECUTABLE] = SPAWN_SETUP_FAILED,
		[SANDBOX_LOST] = SPAWN_LOST,
	};
	_Static_assert(sizeof map / sizeof map[0] == SANDBOX_REASON_COUNT, "one for each");

	return map[r];
}

static void
put_error(struct spawn_result *r, const struct err *e)
{
	r->err_class = (int)e->cls;
	snprintf(r->step, sizeof r->step, "%s", e->step);
	snprintf(r->text, sizeof r->text, "%.*s", (int)sizeof r->text - 1, e->text);
}

static void
fill_result(struct live *l)
{
	const struct sandbox_outcome *o = &l->sandbox.outcome;
	struct spawn_result *r = &l->result.result;

	r->reason = wire_reason(o->reason);
	r->code = o->code;
	r->wall_ns = o->wall_ns;
	r->cpu_ns = o->usage.cpu_ns;
	r->memory_peak_bytes = o->usage.memory_peak_bytes;
	r->pids_peak = o->usage.pids_peak;
	r->pids_limit_hits = o->usage.pids_limit_hits;
	r->oom_kills = o->usage.oom_kills;
	r->setup_us = (uint32_t)(o->setup_ns / NS_PER_US);
	_Static_assert((int)STEP_COUNT <= (int)SPAWN_STEPS_MAX, "all steps fit");
	for (int s = 0; s < STEP_COUNT; s++) {
		if (!(o->steps_done >> s & 1) || s == STEP_EXEC)
			continue;
		snprintf(r->steps[r->step_count].name, sizeof r->steps[0].name, "%s",
			 step_name((enum step)s));
		r->steps[r->step_count++].us = o->step_us[s];
	}
	put_error(r, &o->error);
}

static void
watch_driver(struct spawner_state *s)
{
	struct epoll_event ev = { .events = EPOLLIN | (s->unsent ? EPOLLOUT : 0),
				  .data.u64 = tag_driver };

	epoll_ctl(s->epoll, EPOLL_CTL_MOD, SPAWNER_FD_DRIVER, &ev);
}

/* 0: sent; 1: the socket is full; -1: the driver is gone. */
static int
send_result(struct spawner_state *s, const struct wire_result *w)
{
	ssize_t n = send(SPAWNER_FD_DRIVER, w, sizeof *w, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n == (ssize_t)sizeof *w)
		return 0;
	if (n < 0 && (errno == EAGAIN || errno == ENOBUFS || errno == EINTR))
		return 1;
	s->ending = true;
	return -1;
}

static void
send_or_keep(struct spawner_state *s, struct live *l)
{
	int rc = send_result(s, &l->result);

	if (rc == 1) {
		if (s->unsent++ == 0)
			watch_driver(s);
		return;
	}
	l->used = false;
	s->request_count--;
}

static void
send_unsent(struct spawner_state *s)
{
	for (unsigned i = 0; i < s->slot_count && s->unsent; i++) {
		struct live *l = &s->slots[i];

		if (!l->used || !l->done)
			continue;
		if (send_result(s, &l->result) == 1)
			return;
		l->used = false;
		s->request_count--;
		s->unsent--;
	}
	watch_driver(s);
}

/* ---- Sandboxes ---- */

/* What is left of it, empty and read, is not in the answer's way. */
static void
spent(struct spawner_state *s, struct sandbox *sb)
{
	fd_close(&sb->go);
	cgroup_close(sb->group);
	if (s->trash_count < TRASH_MAX)
		s->trash[s->trash_count++] = sb->group;
	else
		spawner_discard_group(s, sb->group);
}

static void
arm(struct spawner_state *s, unsigned slot)
{
	struct live *l = &s->slots[slot];
	struct pollfd p[SANDBOX_POLL_MAX];
	unsigned n = sandbox_events(&l->sandbox, p, &l->until_ns);

	for (unsigned i = 0; i < n; i++) {
		struct epoll_event ev = { .events = (uint32_t)(unsigned short)p[i].events | EPOLLONESHOT,
					  .data.u64 = (uint64_t)l->generation << 32 | slot };

		if (epoll_ctl(s->epoll, EPOLL_CTL_MOD, p[i].fd, &ev) && errno == ENOENT)
			epoll_ctl(s->epoll, EPOLL_CTL_ADD, p[i].fd, &ev);
	}
}

static void
step(struct spawner_state *s, unsigned slot, uint64_t now_ns)
{
	struct live *l = &s->slots[slot];

	if (sandbox_step(&l->sandbox, now_ns) != SANDBOX_DONE) {
		arm(s, slot);
		return;
	}
	if (!l->held)
		fill_result(l);
	sandbox_release(&l->sandbox);
	l->until_ns = UINT64_MAX;
	if (l->held) {
		spawner_lost_held(s, slot);
		l->used = l->held = false;
	} else {
		l->done = true;
		send_or_keep(s, l);
	}
	spent(s, &l->sandbox);
}

/* ---- Things made ahead ---- */

void
spawner_discard_group(struct spawner_state *s, struct cgroup *g)
{
	struct err e = { 0 };

	if (cgroup_remove(g, &e) == 0 || e.cls != ERR_AGAIN)
		return;
	if (s->trash_count < TRASH_MAX)
		s->trash[s->trash_count++] = g;
	else
		cgroup_leave(g);
}

static struct cgroup *
new_group(struct spawner_state *s, struct err *e)
{
	char name[CGROUP_NAME_MAX];

	snprintf(name, sizeof name, "%llu", (unsigned long long)++s->group_number);
	return cgroup_create(s->in->cgroups, name, e);
}

struct cgroup *
spawner_take_group(struct spawner_state *s, struct err *e)
{
	return s->group_count ? s->groups[--s->group_count] : new_group(s, e);
}

/* One thing; false when all is there. */
static bool
make_ahead(struct spawner_state *s)
{
	struct err e;

	if (s->trash_count) {
		unsigned before = s->trash_count;
		struct cgroup *g = s->trash[0];

		/* The oldest; one that is still busy goes to the end. */
		memmove(s->trash, s->trash + 1, --s->trash_count * sizeof s->trash[0]);
		spawner_discard_group(s, g);
		if (s->trash_count < before)
			return true;
	}
	if (spawner_keep_held(s) || spawner_way_make(s))
		return true;
	if (s->group_count < AHEAD_MAX && s->group_count < s->in->boot->slots) {
		struct cgroup *g = new_group(s, &e);

		if (g)
			s->groups[s->group_count++] = g;
		return g != NULL;
	}
	if (s->device_count < AHEAD_MAX && s->device_count < s->in->boot->slots) {
		int fd = devices_make(&e);

		if (fd >= 0)
			s->devices[s->device_count++] = fd;
		return fd >= 0;
	}
	return false;
}

/*
 * How long nothing is to happen before something is made ahead.  What is made takes a
 * processor and the kernel's cgroup lock, which a sandbox that starts or ends just now wants
 * too; so as long as there is one of each, the sandbox goes first: where one runs, as long as a
 * short command takes from its start to its end.
 */
static int
quiet_ms(const struct spawner_state *s)
{
	if (!s->group_count || !s->device_count || s->trash_count >= TRASH_MAX / 2)
		return 0;
	return s->request_count ? BUSY_QUIET_MS : QUIET_MS;
}

void
spawner_started(struct spawner_state *s, unsigned slot)
{
	arm(s, slot);
}

void
spawner_failed(struct spawner_state *s, unsigned slot, const struct err *why)
{
	struct live *l = &s->slots[slot];

	l->result.result.reason = SPAWN_SETUP_FAILED;
	put_error(&l->result.result, why);
	l->done = true;
	send_or_keep(s, l);
}

void
spawner_end_slot(struct spawner_state *s, unsigned slot, enum sandbox_reason why)
{
	uint64_t now = clock_mono_ns();

	sandbox_kill(&s->slots[slot].sandbox, why, now);
	step(s, slot, now);
}

void
spawner_end_tag(struct spawner_state *s, uint64_t tag, enum sandbox_reason why)
{
	for (unsigned i = 0; i < s->slot_count; i++) {
		struct live *l = &s->slots[i];

		if (l->used && !l->held && !l->done && l->tag == tag)
			spawner_end_slot(s, i, why);
	}
}

/* ---- The loop ---- */

static void
on_driver(struct spawner_state *s, uint32_t events)
{
	struct err e = { 0 };
	int rc = 1;

	if (s->ending)
		return;
	if (events & EPOLLOUT)
		send_unsent(s);
	/* A few at a time, so that deadlines are looked at in between. */
	for (int i = 0; i < 16 && rc == 1; i++)
		rc = spawner_receive(s, &e);
	if (rc < 0) {
		s->ending = true;
		if (e.cls != ERR_NONE)
			log_err("the driver broke the protocol", &e);
	}
}

static void
on_filler(struct spawner_state *s)
{
	log_warning("the maker of network namespaces died", NULL);
	netpool_close(&s->in->nets);
	s->filler_again_ns = clock_mono_ns() + FILLER_AGAIN_NS;
}

static void
watch_filler(struct spawner_state *s)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = tag_filler };

	if (s->in->nets.pidfd >= 0)
		epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->in->nets.pidfd, &ev);
}

/* Sandboxes whose time has come; and when the next one's will. */
static uint64_t
run_timers(struct spawner_state *s)
{
	uint64_t now = clock_mono_ns(), next = UINT64_MAX;

	for (unsigned i = 0; i < s->slot_count; i++) {
		struct live *l = &s->slots[i];

		if (l->used && !l->done && now >= l->until_ns)
			step(s, i, now);
		if (l->used && !l->done && l->until_ns < next)
			next = l->until_ns;
	}
	if (s->filler_again_ns && now >= s->filler_again_ns) {
		struct err e;

		s->filler_again_ns = 0;
		if (netpool_start(&s->in->nets, &e))
			s->filler_again_ns = now + FILLER_AGAIN_NS;
		watch_filler(s);
	}
	if (s->filler_again_ns && s->filler_again_ns < next)
		next = s->filler_again_ns;
	if (s->hold_again_ns > now && s->hold_again_ns < next)
		next = s->hold_again_ns;
	if (s->way_again_ns > now && s->way_again_ns < next)
		next = s->way_again_ns;
	return spawner_held_until_ns(s) < next ? spawner_held_until_ns(s) : next;
}

static int
wait_ms(uint64_t until_ns)
{
	uint64_t now = clock_mono_ns();

	if (until_ns == UINT64_MAX)
		return -1;
	if (until_ns <= now)
		return 0;
	return (int)((until_ns - now) / NS_PER_MS >= 3600000 ? 3600000 : (until_ns - now) / NS_PER_MS + 1);
}

static void
turn(struct spawner_state *s, bool may_wait)
{
	struct epoll_event ev[64];
	uint64_t next = run_timers(s), now;
	int quiet = s->ending || s->quiet ? 0 : quiet_ms(s), due = wait_ms(next);
	int n = epoll_wait(s->epoll, ev, 64, due >= 0 && due < quiet ? due : quiet);

	/* Nothing waits: a good moment to make something ahead. */
	if (n == 0 && (s->ending || !make_ahead(s)) && may_wait)
		n = epoll_wait(s->epoll, ev, 64, wait_ms(run_timers(s)));
	s->quiet = n == 0;
	now = clock_mono_ns();
	for (int i = 0; i < n; i++) {
		uint64_t data = ev[i].data.u64;
		unsigned slot = (unsigned)(data & UINT32_MAX);

		if (data == tag_driver)
			on_driver(s, ev[i].events);
		else if (data == tag_filler)
			on_filler(s);
		else if (slot < s->slot_count && s->slots[slot].used && !s->slots[slot].done &&
			 s->slots[slot].generation == data >> 32)
			step(s, slot, now);
	}
}

/* The driver is gone: so is everything that ran for it. */
static void
end_all(struct spawner_state *s)
{
	uint64_t end = clock_mono_ns() + END_NS;
	bool any = true;

	epoll_ctl(s->epoll, EPOLL_CTL_DEL, SPAWNER_FD_DRIVER, NULL);
	for (unsigned i = 0; i < s->slot_count; i++)
		if (s->slots[i].used && !s->slots[i].done)
			sandbox_kill(&s->slots[i].sandbox, SANDBOX_CANCELLED, clock_mono_ns());
	while (any && clock_mono_ns() < end) {
		any = false;
		for (unsigned i = 0; i < s->slot_count; i++) {
			struct live *l = &s->slots[i];

			if (l->used && !l->done) {
				any = true;
				l->until_ns = 0; /* look at each in turn */
			}
		}
		turn(s, false);
		if (any)
			usleep(500);
	}
	while (s->group_count)
		cgroup_remove(s->groups[--s->group_count], NULL);
	cgroup_sweep(s->in->cgroups, NULL);
	cgroup_manager_free(s->in->cgroups);
}

void
spawner_loop(struct spawner_inside *in)
{
	static struct spawner_state s;
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = tag_driver };

	size_t bytes;

	s.in = in;
	s.slot_count = in->boot->slots + SPAWN_SPARE_MAX;
	bytes = s.slot_count * sizeof *s.slots;
	s.slots = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	s.epoll = epoll_create1(EPOLL_CLOEXEC);
	/* Nothing of a sandbox's needs it, and a fork copies the tables of what it gets. */
	if (s.slots == MAP_FAILED || madvise(s.slots, bytes, MADV_DONTFORK) || s.epoll < 0 || epoll_ctl(s.epoll, EPOLL_CTL_ADD, SPAWNER_FD_DRIVER, &ev)) {
		log_error("the spawner cannot make its loop", NULL);
		return;
	}
	watch_filler(&s);
	while (!s.ending)
		turn(&s, true);
	end_all(&s);
	munmap(s.slots, bytes);
	close(s.epoll);
}
