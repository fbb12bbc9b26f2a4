/*
 * The event loop: order of timers, removal in every awkward moment, signals, children,
 * hooks and deferred calls.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "netio/loop.h"

static struct loop *l;
static struct err e;

static int
setup(void **state)
{
	(void)state;
	memset(&e, 0, sizeof(e));
	l = loop_new(&e);
	return l ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	loop_free(l);
	return 0;
}

static void
stop(void *arg)
{
	(void)arg;
	loop_stop(l);
}

/* ---- Timers ---- */

static int fired[2000], fired_count;

static void
record(void *arg)
{
	fired[fired_count++] = (int)(intptr_t)arg;
}

static void
test_timers_in_order(void **state)
{
	struct loop_timer *t[1000], *end = loop_timer_add(l, stop, NULL, &e);
	uint64_t at = clock_mono_ns() + NS_PER_MS;
	unsigned seed = 1;

	(void)state;
	fired_count = 0;
	for (int i = 0; i < 1000; i++) {
		int rank = (int)(((unsigned)i * 7919u) % 1000u); /* a permutation */

		t[rank] = loop_timer_add(l, record, (void *)(intptr_t)rank, &e);
		assert_non_null(t[rank]);
		loop_timer_at(t[rank], at + (uint64_t)rank / 2 * 1000);
	}
	/* Pairs share a time: the one set first comes first.  Set them all again in order. */
	for (int i = 0; i < 1000; i++)
		loop_timer_at(t[i], at + (uint64_t)i / 2 * 1000);
	for (int i = 0; i < 500; i++) {
		seed = seed * 1103515245u + 12345u;
		loop_timer_clear(t[seed / 65536 % 1000]);
	}
	loop_timer_at(end, at + NS_PER_MS);
	assert_int_equal(loop_run(l, &e), 0);
	assert_in_range(fired_count, 500, 900);
	for (int i = 1; i < fired_count; i++)
		assert_true(fired[i - 1] < fired[i]);
	for (int i = 0; i < 1000; i++)
		assert_false(loop_timer_pending(t[i]));
}

static struct loop_timer *victim, *self;

static void
remove_both(void *arg)
{
	(void)arg;
	fired_count++;
	loop_timer_remove(victim);
	loop_timer_remove(victim);
	loop_timer_remove(self);
	loop_timer_at(self, 0); /* a removed timer cannot be set */
}

static void
must_not_run(void *arg)
{
	(void)arg;
	fail_msg("a removed callback was called");
}

static void
test_timer_removes_itself_and_next(void **state)
{
	struct loop_timer *end = loop_timer_add(l, stop, NULL, &e);

	(void)state;
	fired_count = 0;
	self = loop_timer_add(l, remove_both, NULL, &e);
	victim = loop_timer_add(l, must_not_run, NULL, &e);
	loop_timer_at(self, 1);
	loop_timer_at(victim, 2);
	loop_timer_after(end, 2 * NS_PER_MS);
	assert_int_equal(loop_run(l, &e), 0);
	assert_int_equal(fired_count, 1);
}

static int rounds;

static void
set_again(void *arg)
{
	(void)arg;
	rounds++;
	loop_timer_after(self, 0);
}

static void
on_readable_stop(void *arg, uint32_t events)
{
	(void)arg;
	(void)events;
	loop_stop(l);
}

/* A timer that is always due does not keep descriptors from being served. */
static void
test_greedy_timer(void **state)
{
	int fd = eventfd(1, EFD_CLOEXEC);

	(void)state;
	self = loop_timer_add(l, set_again, NULL, &e);
	loop_timer_at(self, 0);
	assert_non_null(loop_fd_add(l, fd, EPOLLIN, on_readable_stop, NULL, &e));
	assert_int_equal(loop_run(l, &e), 0);
	close(fd);
}

static void
test_timer_waits_long_enough(void **state)
{
	struct loop_timer *end = loop_timer_add(l, stop, NULL, &e);
	uint64_t before = clock_mono_ns();

	(void)state;
	loop_timer_after(end, 3 * NS_PER_MS + 300 * NS_PER_US);
	assert_int_equal(loop_run(l, &e), 0);
	assert_true(clock_mono_ns() - before >= 3 * NS_PER_MS + 300 * NS_PER_US);
	loop_timer_after(end, UINT64_MAX);
	assert_true(loop_timer_pending(end));
}

/* ---- Descriptors ---- */

struct pair_member {
	struct loop_fd *watch, **other;
	int fd;
};

static int pair_calls;

static void
kill_other(void *arg, uint32_t events)
{
	struct pair_member *p = arg;

	assert_true(events & EPOLLIN);
	pair_calls++;
	loop_fd_remove(*p->other);
	loop_fd_remove(p->watch);
	loop_defer(l, stop, NULL);
}

/* Both are ready in one iteration; whoever is first removes both. */
static void
test_removed_in_same_iteration(void **state)
{
	struct pair_member a, b;

	(void)state;
	pair_calls = 0;
	a.fd = eventfd(1, EFD_CLOEXEC);
	b.fd = eventfd(1, EFD_CLOEXEC);
	a.watch = loop_fd_add(l, a.fd, EPOLLIN, kill_other, &a, &e);
	b.watch = loop_fd_add(l, b.fd, EPOLLIN, kill_other, &b, &e);
	a.other = &b.watch;
	b.other = &a.watch;
	assert_int_equal(loop_run(l, &e), 0);
	assert_int_equal(pair_calls, 1);
	close(a.fd);
	close(b.fd);
}

static void
test_fd_errors(void **state)
{
	struct loop_fd *f;
	int fd = eventfd(0, EFD_CLOEXEC);

	(void)state;
	assert_null(loop_fd_add(l, -1, EPOLLIN, on_readable_stop, NULL, &e));
	assert_int_equal(e.errnum, EBADF);
	f = loop_fd_add(l, fd, 0, on_readable_stop, NULL, &e);
	assert_non_null(f);
	assert_int_equal(loop_fd_set(f, EPOLLOUT), 0);
	assert_int_equal(loop_run(l, &e), 0);
	loop_fd_remove(f);
	loop_fd_remove(f);
	loop_fd_remove(NULL);
	close(fd);
}

/* ---- Signals and children ---- */

static int got_signal;

static void
on_signal(void *arg, int signo)
{
	got_signal = signo;
	if (++*(int *)arg == 2)
		loop_stop(l);
}

static void
test_signals(void **state)
{
	int count = 0;

	(void)state;
	assert_int_equal(loop_signal(l, SIGUSR1, on_signal, &count, &e), 0);
	assert_int_equal(loop_signal(l, SIGUSR2, on_signal, &count, &e), 0);
	assert_int_equal(loop_signal(l, 0, on_signal, &count, &e), -1);
	kill(getpid(), SIGUSR1);
	kill(getpid(), SIGUSR2);
	assert_int_equal(loop_run(l, &e), 0);
	assert_int_equal(count, 2);
	assert_int_equal(got_signal, SIGUSR2);
}

static int ended_count, ended_code[2], ended_status[2];
static pid_t ended_pid[2];

static void
on_child(void *arg, pid_t pid, int code, int status)
{
	int which = (int)(intptr_t)arg;

	ended_pid[which] = pid;
	ended_code[which] = code;
	ended_status[which] = status;
	if (++ended_count == 2)
		loop_stop(l);
}

static void
test_children(void **state)
{
	pid_t first = fork(), second;

	(void)state;
	if (!first)
		_exit(7);
	second = fork();
	if (!second)
		for (;;)
			pause();
	ended_count = 0;
	assert_int_equal(loop_child(l, first, on_child, (void *)0, &e), 0);
	assert_int_equal(loop_child(l, second, on_child, (void *)1, &e), 0);
	kill(second, SIGKILL);
	assert_int_equal(loop_run(l, &e), 0);
	assert_int_equal(ended_pid[0], first);
	assert_int_equal(ended_code[0], CLD_EXITED);
	assert_int_equal(ended_status[0], 7);
	assert_int_equal(ended_code[1], CLD_KILLED);
	assert_int_equal(ended_status[1], SIGKILL);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(loop_child(l, first, on_child, NULL, &e), -1);
	assert_int_equal(e.errnum, ESRCH);
}

static void
test_a_child_unheard(void **state)
{
	pid_t first = fork(), second;

	(void)state;
	if (!first)
		_exit(0);
	second = fork();
	if (!second)
		_exit(0);
	ended_count = 1;
	ended_pid[0] = 0;
	assert_int_equal(loop_child(l, first, on_child, (void *)0, &e), 0);
	loop_child_unheard(l, first);
	assert_int_equal(waitid(P_PID, (id_t)first, &(siginfo_t){0}, WEXITED | WNOWAIT), 0);
	assert_int_equal(loop_child(l, second, on_child, (void *)1, &e), 0);
	assert_int_equal(loop_run(l, &e), 0);
	assert_int_equal(ended_pid[0], 0);
	assert_int_equal(ended_pid[1], second);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

/* ---- Hooks and deferred calls ---- */

static struct loop_hook *hook_a, *hook_b;
static int calls_a, calls_b, woken;

static uint64_t
first_hook(void *arg)
{
	(void)arg;
	calls_a++;
	if (woken && calls_a > woken)
		loop_stop(l);
	return UINT64_MAX;
}

/* Work for the first hook, which has had its turn: without loop_again this never ends. */
static uint64_t
second_hook(void *arg)
{
	(void)arg;
	if (++calls_b == 1) {
		woken = calls_a;
		loop_again(l);
	}
	return UINT64_MAX;
}

static void
test_hook_wakes_hook(void **state)
{
	(void)state;
	calls_a = calls_b = woken = 0;
	hook_a = loop_hook_add(l, first_hook, NULL, &e);
	hook_b = loop_hook_add(l, second_hook, NULL, &e);
	assert_int_equal(loop_run(l, &e), 0);
	assert_int_equal(calls_a, 2);
}

static uint64_t
removes_next(void *arg)
{
	(void)arg;
	loop_hook_remove(hook_b);
	loop_hook_remove(hook_a);
	loop_defer(l, stop, NULL);
	return UINT64_MAX;
}

static uint64_t
never_called(void *arg)
{
	must_not_run(arg);
	return 0;
}

static void
test_hook_removed_by_hook(void **state)
{
	(void)state;
	hook_a = loop_hook_add(l, removes_next, NULL, &e);
	hook_b = loop_hook_add(l, never_called, NULL, &e);
	assert_int_equal(loop_run(l, &e), 0);
	loop_hook_remove(NULL);
}

static uint64_t
short_wait(void *arg)
{
	(void)arg;
	if (++calls_a == 3)
		loop_stop(l);
	return NS_PER_MS;
}

static void
test_hook_bounds_wait(void **state)
{
	uint64_t before = clock_mono_ns();

	(void)state;
	calls_a = 0;
	assert_non_null(loop_hook_add(l, short_wait, NULL, &e));
	assert_int_equal(loop_run(l, &e), 0);
	assert_true(clock_mono_ns() - before >= NS_PER_MS);
}

static void
defer_more(void *arg)
{
	intptr_t left = (intptr_t)arg;

	fired_count++;
	if (left)
		loop_defer(l, defer_more, (void *)(left - 1));
	else
		loop_stop(l);
}

static void
test_defer(void **state)
{
	(void)state;
	fired_count = 0;
	for (int i = 0; i < 100; i++)
		loop_defer(l, record, NULL);
	loop_defer(l, defer_more, (void *)5);
	assert_int_equal(fired_count, 0);
	assert_int_equal(loop_run(l, &e), 0);
	assert_int_equal(fired_count, 106);
	loop_defer(l, record, NULL); /* loop_free calls it */
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_timers_in_order),
		T(test_timer_removes_itself_and_next),
		T(test_greedy_timer),
		T(test_timer_waits_long_enough),
		T(test_removed_in_same_iteration),
		T(test_fd_errors),
		T(test_signals),
		T(test_children),
		T(test_a_child_unheard),
		T(test_hook_wakes_hook),
		T(test_hook_removed_by_hook),
		T(test_hook_bounds_wait),
		T(test_defer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
