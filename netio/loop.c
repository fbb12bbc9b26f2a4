/*
 * The event loop.  One iteration is: hooks, wait, descriptors, timers, deferred calls,
 * frees.
 *
 * Whatever is removed is marked dead at once and freed at the iteration's end, so that an
 * event which epoll has already handed out for it is seen to be stale, and a callback
 * may remove itself, or the one that would have been next.
 *
 * Timers are in a binary heap ordered by (time, order of setting); each knows its place in
 * it, so that clearing one costs O(log n).  The heap's room is reserved when a timer is
 * made, so that setting one cannot fail.
 *
 * A hook may find work for another hook that has had its turn in this iteration (a message
 * answers an HTTP request).  loop_again makes the next wait take no time then.
 */
#include "netio/loop.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/queue.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/log.h"

enum { EVENTS_MAX = 128, NOT_IN_HEAP = -1 };

struct loop_fd {
	struct loop *loop;
	int fd;
	bool dead;
	loop_fd_fn fn;
	void *arg;
	LIST_ENTRY(loop_fd) link; /* in loop's fds, or dead_fds */
};

struct loop_timer {
	struct loop *loop;
	uint64_t at_ns, order;
	ssize_t place; /* in the heap, or NOT_IN_HEAP */
	bool dead;
	loop_fn fn;
	void *arg;
	LIST_ENTRY(loop_timer) link; /* in loop's timers, or dead_timers */
};

struct loop_hook {
	struct loop *loop;
	bool dead;
	loop_hook_fn fn;
	void *arg;
	TAILQ_ENTRY(loop_hook) link;
};

struct loop_child_watch {
	struct loop *loop;
	pid_t pid;
	int pidfd;
	struct loop_fd *watch;
	loop_child_fn fn;
	void *arg;
	LIST_ENTRY(loop_child_watch) link;
};

struct deferred {
	loop_fn fn;
	void *arg;
};

struct loop {
	int epoll_fd, signal_fd;
	bool stopping, again;
	uint64_t now_ns, order;
	LIST_HEAD(, loop_fd) fds, dead_fds;
	LIST_HEAD(, loop_timer) timers, dead_timers;
	TAILQ_HEAD(, loop_hook) hooks;
	LIST_HEAD(, loop_child_watch) children;
	struct loop_timer **heap;
	size_t heap_len, heap_cap, timer_count;
	struct deferred *deferred;
	size_t deferred_len, deferred_cap;
	sigset_t signals;
	struct {
		loop_signal_fn fn;
		void *arg;
	} on_signal[NSIG];
};

static void
bury(struct loop *l)
{
	struct loop_fd *f;
	struct loop_timer *t;
	struct loop_hook *h, *next;

	while ((f = LIST_FIRST(&l->dead_fds))) {
		LIST_REMOVE(f, link);
		free(f);
	}
	while ((t = LIST_FIRST(&l->dead_timers))) {
		LIST_REMOVE(t, link);
		free(t);
	}
	for (h = TAILQ_FIRST(&l->hooks); h; h = next) {
		next = TAILQ_NEXT(h, link);
		if (h->dead) {
			TAILQ_REMOVE(&l->hooks, h, link);
			free(h);
		}
	}
}

struct loop *
loop_new(struct err *e)
{
	struct loop *l = calloc(1, sizeof(*l));

	if (!l) {
		err_set(e, ERR_NODE, "out of memory for the event loop");
		return NULL;
	}
	l->signal_fd = -1;
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (l->epoll_fd < 0) {
		err_sys(e, ERR_NODE, "cannot make an epoll descriptor");
		free(l);
		return NULL;
	}
	l->now_ns = clock_mono_ns();
	LIST_INIT(&l->fds);
	LIST_INIT(&l->dead_fds);
	LIST_INIT(&l->timers);
	LIST_INIT(&l->dead_timers);
	TAILQ_INIT(&l->hooks);
	LIST_INIT(&l->children);
	sigemptyset(&l->signals);
	return l;
}

static void
child_forget(struct loop_child_watch *child)
{
	loop_fd_remove(child->watch);
	close(child->pidfd);
	LIST_REMOVE(child, link);
	free(child);
}

void
loop_free(struct loop *l)
{
	struct loop_hook *h;

	if (!l)
		return;
	for (size_t i = 0; i < l->deferred_len; i++) /* the array may grow meanwhile */
		l->deferred[i].fn(l->deferred[i].arg);
	while (!LIST_EMPTY(&l->children))
		child_forget(LIST_FIRST(&l->children));
	while (!LIST_EMPTY(&l->fds))
		loop_fd_remove(LIST_FIRST(&l->fds));
	while (!LIST_EMPTY(&l->timers))
		loop_timer_remove(LIST_FIRST(&l->timers));
	TAILQ_FOREACH(h, &l->hooks, link)
		h->dead = true;
	bury(l);
	if (l->signal_fd >= 0)
		close(l->signal_fd);
	close(l->epoll_fd);
	free(l->heap);
	free(l->deferred);
	free(l);
}

uint64_t
loop_now(const struct loop *l)
{
	return l->now_ns;
}

void
loop_stop(struct loop *l)
{
	l->stopping = true;
}

void
loop_again(struct loop *l)
{
	l->again = true;
}

/* ---- Descriptors ---- */

struct loop_fd *
loop_fd_add(struct loop *l, int fd, uint32_t events, loop_fd_fn fn, void *arg, struct err *e)
{
	struct loop_fd *f = calloc(1, sizeof(*f));
	struct epoll_event event = {.events = events, .data.ptr = f};

	if (!f) {
		err_set(e, ERR_NODE, "out of memory to watch a descriptor");
		return NULL;
	}
	*f = (struct loop_fd){.loop = l, .fd = fd, .fn = fn, .arg = arg};
	if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
		err_sys(e, ERR_NODE, "cannot watch descriptor %d", fd);
		free(f);
		return NULL;
	}
	LIST_INSERT_HEAD(&l->fds, f, link);
	return f;
}

int
loop_fd_set(struct loop_fd *f, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = f};

	return epoll_ctl(f->loop->epoll_fd, EPOLL_CTL_MOD, f->fd, &event);
}

void
loop_fd_remove(struct loop_fd *f)
{
	if (!f || f->dead)
		return;
	epoll_ctl(f->loop->epoll_fd, EPOLL_CTL_DEL, f->fd, NULL);
	f->dead = true;
	LIST_REMOVE(f, link);
	LIST_INSERT_HEAD(&f->loop->dead_fds, f, link);
}

/* ---- Timers ---- */

static bool
heap_before(const struct loop_timer *a, const struct loop_timer *b)
{
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void
heap_set(struct loop *l, size_t place, struct loop_timer *t)
{
	l->heap[place] = t;
	t->place = (ssize_t)place;
}

static void
heap_up(struct loop *l, size_t place, struct loop_timer *t)
{
	while (place && heap_before(t, l->heap[(place - 1) / 2])) {
		heap_set(l, place, l->heap[(place - 1) / 2]);
		place = (place - 1) / 2;
	}
	heap_set(l, place, t);
}

static void
heap_down(struct loop *l, size_t place, struct loop_timer *t)
{
	for (;;) {
		size_t child = 2 * place + 1;

		if (child >= l->heap_len)
			break;
		if (child + 1 < l->heap_len && heap_before(l->heap[child + 1], l->heap[child]))
			child++;
		if (!heap_before(l->heap[child], t))
			break;
		heap_set(l, place, l->heap[child]);
		place = child;
	}
	heap_set(l, place, t);
}

struct loop_timer *
loop_timer_add(struct loop *l, loop_fn fn, void *arg, struct err *e)
{
	struct loop_timer *t = calloc(1, sizeof(*t));

	if (t && l->timer_count == l->heap_cap) {
		size_t cap = l->heap_cap ? 2 * l->heap_cap : 16;
		struct loop_timer **heap = reallocarray(l->heap, cap, sizeof(struct loop_timer *));

		if (heap) {
			l->heap = heap;
			l->heap_cap = cap;
		} else {
			free(t);
			t = NULL;
		}
	}
	if (!t) {
		err_set(e, ERR_NODE, "out of memory for a timer");
		return NULL;
	}
	*t = (struct loop_timer){.loop = l, .place = NOT_IN_HEAP, .fn = fn, .arg = arg};
	LIST_INSERT_HEAD(&l->timers, t, link);
	l->timer_count++;
	return t;
}

void
loop_timer_clear(struct loop_timer *t)
{
	struct loop *l = t->loop;
	struct loop_timer *last;
	size_t place;

	if (t->place == NOT_IN_HEAP)
		return;
	place = (size_t)t->place;
	t->place = NOT_IN_HEAP;
	last = l->heap[--l->heap_len];
	if (last == t)
		return;
	if (place && heap_before(last, l->heap[(place - 1) / 2]))
		heap_up(l, place, last);
	else
		heap_down(l, place, last);
}

void
loop_timer_at(struct loop_timer *t, uint64_t mono_ns)
{
	if (t->dead)
		return;
	loop_timer_clear(t);
	t->at_ns = mono_ns;
	t->order = t->loop->order++;
	heap_up(t->loop, t->loop->heap_len++, t);
}

/* From now, not from the iteration's start: a slow callback must not shorten it. */
void
loop_timer_after(struct loop_timer *t, uint64_t ns)
{
	uint64_t at;

	if (__builtin_add_overflow(clock_mono_ns(), ns, &at))
		at = UINT64_MAX;
	loop_timer_at(t, at);
}

bool
loop_timer_pending(const struct loop_timer *t)
{
	return t->place != NOT_IN_HEAP;
}

void
loop_timer_remove(struct loop_timer *t)
{
	if (!t || t->dead)
		return;
	loop_timer_clear(t);
	t->dead = true;
	t->loop->timer_count--;
	LIST_REMOVE(t, link);
	LIST_INSERT_HEAD(&t->loop->dead_timers, t, link);
}

/* At most as many calls as there were timers, so that one which sets itself to "now"
 * does not keep the loop from its descriptors. */
static void
run_timers(struct loop *l)
{
	for (size_t left = l->heap_len; left && l->heap_len; left--) {
		struct loop_timer *t = l->heap[0];

		if (t->at_ns > l->now_ns)
			break;
		loop_timer_clear(t);
		t->fn(t->arg);
	}
}

/* ---- Signals and children ---- */

static void
read_signals(void *arg, uint32_t events)
{
	struct loop *l = arg;
	struct signalfd_siginfo info;

	(void)events;
	while (read(l->signal_fd, &info, sizeof(info)) == sizeof(info))
		if (info.ssi_signo < NSIG && l->on_signal[info.ssi_signo].fn)
			l->on_signal[info.ssi_signo].fn(l->on_signal[info.ssi_signo].arg,
							(int)info.ssi_signo);
}

int
loop_signal(struct loop *l, int signo, loop_signal_fn fn, void *arg, struct err *e)
{
	int fd;

	if (signo < 1 || signo >= NSIG)
		return err_set(e, ERR_NODE, "there is no signal %d", signo);
	sigaddset(&l->signals, signo);
	/* Blocked first: between the two it would still have its default effect. */
	if (sigprocmask(SIG_BLOCK, &l->signals, NULL) < 0)
		return err_sys(e, ERR_NODE, "cannot block signal %d", signo);
	fd = signalfd(l->signal_fd, &l->signals, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0)
		return err_sys(e, ERR_NODE, "cannot take signal %d", signo);
	l->on_signal[signo].fn = fn;
	l->on_signal[signo].arg = arg;
	if (l->signal_fd < 0) {
		l->signal_fd = fd;
		if (!loop_fd_add(l, fd, EPOLLIN, read_signals, l, e))
			return -1;
	}
	return 0;
}

static void
child_ended(void *arg, uint32_t events)
{
	struct loop_child_watch *child = arg;
	struct loop_child_watch ended = *child;
	siginfo_t info = {.si_pid = 0};

	(void)events;
	if (waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED | WNOHANG) < 0) {
		if (errno == EINTR)
			return;
		memset(&info, 0, sizeof(info));
	} else if (!info.si_pid) {
		return; /* not yet */
	}
	child_forget(child);
	if (ended.fn)
		ended.fn(ended.arg, ended.pid, info.si_code, info.si_status);
}

int
loop_child(struct loop *l, pid_t pid, loop_child_fn fn, void *arg, struct err *e)
{
	struct loop_child_watch *child = calloc(1, sizeof(*child));

	if (!child)
		return err_set(e, ERR_NODE, "out of memory to watch a child");
	*child = (struct loop_child_watch){.loop = l, .pid = pid, .fn = fn, .arg = arg};
	child->pidfd = pidfd_open(pid, 0); /* close-on-exec by itself */
	if (child->pidfd < 0) {
		err_sys(e, ERR_NODE, "cannot watch process %d", (int)pid);
		free(child);
		return -1;
	}
	child->watch = loop_fd_add(l, child->pidfd, EPOLLIN, child_ended, child, e);
	if (!child->watch) {
		close(child->pidfd);
		free(child);
		return -1;
	}
	LIST_INSERT_HEAD(&l->children, child, link);
	return 0;
}

void
loop_child_unheard(struct loop *l, pid_t pid)
{
	struct loop_child_watch *child;

	LIST_FOREACH(child, &l->children, link)
		if (child->pid == pid)
			child->fn = NULL;
}

/* ---- Hooks and deferred calls ---- */

struct loop_hook *
loop_hook_add(struct loop *l, loop_hook_fn fn, void *arg, struct err *e)
{
	struct loop_hook *h = calloc(1, sizeof(*h));

	if (!h) {
		err_set(e, ERR_NODE, "out of memory for a hook of the event loop");
		return NULL;
	}
	*h = (struct loop_hook){.loop = l, .fn = fn, .arg = arg};
	TAILQ_INSERT_TAIL(&l->hooks, h, link);
	l->again = true;
	return h;
}

void
loop_hook_remove(struct loop_hook *h)
{
	if (h)
		h->dead = true;
}

void
loop_defer(struct loop *l, loop_fn fn, void *arg)
{
	if (l->deferred_len == l->deferred_cap) {
		size_t cap = l->deferred_cap ? 2 * l->deferred_cap : 16;
		struct deferred *list = reallocarray(l->deferred, cap, sizeof(*list));

		if (!list) {
			/* A leak is better than a free of what is in use. */
			log_error("out of memory for a deferred call, it is lost", NULL);
			return;
		}
		l->deferred = list;
		l->deferred_cap = cap;
	}
	l->deferred[l->deferred_len++] = (struct deferred){fn, arg};
}

/* What a deferred call defers has its turn in the next iteration. */
static void
run_deferred(struct loop *l)
{
	size_t n = l->deferred_len;

	for (size_t i = 0; i < n; i++) {
		struct deferred d = l->deferred[i];

		d.fn(d.arg);
	}
	l->deferred_len -= n;
	if (l->deferred_len)
		memmove(l->deferred, l->deferred + n, l->deferred_len * sizeof(*l->deferred));
}

static uint64_t
run_hooks(struct loop *l)
{
	struct loop_hook *h;
	uint64_t wait_ns = UINT64_MAX;

	TAILQ_FOREACH(h, &l->hooks, link) {
		uint64_t may_ns;

		if (h->dead)
			continue;
		may_ns = h->fn(h->arg);
		if (may_ns < wait_ns && !h->dead)
			wait_ns = may_ns;
	}
	return wait_ns;
}

/* ---- Running ---- */

static int
wait_for_events(struct loop *l, struct epoll_event *events, uint64_t wait_ns)
{
	struct timespec span, *limit = &span;

	if (l->again || l->deferred_len || l->stopping)
		wait_ns = 0;
	if (wait_ns && l->heap_len) {
		uint64_t at_ns = l->heap[0]->at_ns, now_ns = clock_mono_ns();
		uint64_t left_ns = at_ns > now_ns ? at_ns - now_ns : 0;

		if (left_ns < wait_ns)
			wait_ns = left_ns;
	}
	l->again = false;
	if (wait_ns == UINT64_MAX) {
		limit = NULL;
	} else {
		span.tv_sec = (time_t)(wait_ns / NS_PER_S);
		span.tv_nsec = (long)(wait_ns % NS_PER_S);
	}
	return epoll_pwait2(l->epoll_fd, events, EVENTS_MAX, limit, NULL);
}

static int
iterate(struct loop *l, struct err *e)
{
	struct epoll_event events[EVENTS_MAX];
	uint64_t wait_ns;
	int n;

	l->now_ns = clock_mono_ns();
	wait_ns = run_hooks(l);
	n = wait_for_events(l, events, wait_ns);
	if (n < 0 && errno != EINTR)
		return err_sys(e, ERR_NODE, "the event loop cannot wait");
	l->now_ns = clock_mono_ns();
	for (int i = 0; i < n; i++) {
		struct loop_fd *f = events[i].data.ptr;

		if (!f->dead)
			f->fn(f->arg, events[i].events);
	}
	run_timers(l);
	run_deferred(l);
	bury(l);
	return 0;
}

int
loop_run(struct loop *l, struct err *e)
{
	int rc = 0;

	while (!l->stopping && rc == 0)
		rc = iterate(l, e);
	l->stopping = false;
	return rc;
}
