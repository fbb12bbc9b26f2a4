/* The scheduler's rules, one by one, on a clock of our own. */
#include "sched_world.h"

enum { A = 1001, B = 1002, C = 1003, BIG = 1004 };

/* ---- order ---- */

static void
test_events_of_one_function_run_in_their_order(void **state)
{
	struct world w = world_new();
	struct sched_node *n = world_node(&w, "n", 1, 1, 10000);

	(void)state;
	world_function(&w, A, 10, 0);
	for (unsigned i = 1; i <= 20; i++)
		world_add(&w, i, A);
	world_beat(&w, n, 0, 20, NULL, 0);
	for (unsigned i = 1; i <= 20; i++)
		assert_int_equal(world_send(&w, NULL), i);
	world_free(&w);
}

static void
test_a_flood_of_one_function_starves_no_other(void **state)
{
	struct world w = world_new();
	struct sched_node *n = world_node(&w, "n", 1, 1, 10000);
	unsigned b_at = 0, c_at = 0;

	(void)state;
	world_function(&w, A, 10, 0);
	world_function(&w, B, 10, 0);
	world_function(&w, C, 10, 0);
	for (unsigned i = 1; i <= 500; i++)
		world_add(&w, i, A);
	world_add(&w, 600, B);
	world_add(&w, 601, C);
	world_beat(&w, n, 0, 10, NULL, 0);
	for (unsigned i = 1; i <= 10; i++) {
		unsigned sent = world_send(&w, NULL);

		b_at = sent == 600 ? i : b_at;
		c_at = sent == 601 ? i : c_at;
	}
	assert_in_range(b_at, 1, 3);
	assert_in_range(c_at, 1, 3);
	world_free(&w);
}

static void
test_two_floods_share_evenly(void **state)
{
	struct world w = world_new();
	struct sched_node *n = world_node(&w, "n", 1, 1, 10000);
	unsigned of_a = 0;

	(void)state;
	world_function(&w, A, 10, 0);
	world_function(&w, B, 10, 0);
	for (unsigned i = 1; i <= 100; i++) {
		world_add(&w, i, A);
		world_add(&w, 100 + i, B);
	}
	world_beat(&w, n, 0, 40, NULL, 0);
	for (int i = 0; i < 40; i++)
		of_a += world_send(&w, NULL) <= 100;
	assert_int_equal(of_a, 20);
	world_free(&w);
}

static void
test_retries_come_in_the_order_of_their_times(void **state)
{
	static const unsigned after_s[] = { 9, 2, 7, 2, 30, 1, 4, 60, 3, 8 };
	enum { N = sizeof after_s / sizeof after_s[0] };
	struct world w = world_new();
	struct sched_node *n = world_node(&w, "n", 1, 1, 10000);
	uint64_t start = w.now, last = 0;

	(void)state;
	world_function(&w, A, 10, 0);
	for (unsigned i = 0; i < N; i++) {
		struct sched_add a = { .id = number_id(i + 1), .function = number_id(A),
				       .not_before_ns = start + after_s[i] * NS_PER_S };

		assert_int_equal(sched_add(w.s, &a), 1);
	}
	assert_int_equal(sched_next_ns(w.s, w.now), start + NS_PER_S);
	for (unsigned s = 0, seen = 0; seen < N; s++) {
		unsigned event;

		assert_in_range(s, 0, 60);
		w.now = start + s * NS_PER_S;
		world_beat_all(&w, n, 20);
		while ((event = world_send(&w, NULL))) {
			assert_int_equal(after_s[event - 1], s);
			assert_true(after_s[event - 1] >= last);
			last = after_s[event - 1];
			seen++;
		}
	}
	world_free(&w);
}

static void
test_a_job_given_back_is_first_in_line(void **state)
{
	struct world w = world_new();
	struct sched_node *n = world_node(&w, "n", 1, 1, 10000);
	struct lease l;

	(void)state;
	world_function(&w, A, 10, 0);
	world_add(&w, 1, A);
	world_add(&w, 2, A);
	world_beat(&w, n, 0, 4, NULL, 0);
	assert_int_equal(world_send(&w, &l), 1);
	sched_requeue(w.s, sched_find(w.s, &l), 0);
	assert_int_equal(world_send(&w, NULL), 1);
	assert_int_equal(world_send(&w, NULL), 2);
	world_free(&w);
}

static void
test_the_lost_of_one_node_keep_their_order(void **state)
{
	struct world w = world_new();
	struct sched_node *n = world_node(&w, "n", 1, 1, 10000);

	(void)state;
	world_function(&w, A, 10, 0);
	for (unsigned i = 1; i <= 5; i++)
		world_add(&w, i, A);
	world_beat(&w, n, 0, 4, NULL, 0);
	for (unsigned i = 1; i <= 4; i++)
		assert_int_equal(world_send(&w, NULL), i);
	n = world_node(&w, "n", 2, 2, 10000);
	assert_int_equal(w.lost_count, 4);
	world_beat(&w, n, 0, 5, NULL, 0);
	for (unsigned i = 1; i <= 5; i++)
		assert_int_equal(world_send(&w, NULL), i);
	world_free(&w);
}

/* ---- what a node may be given ---- */

static void
test_no_more_is_sent_than_was_granted(void **state)
{
	struct world w = world_new();
	struct sched_node *n = world_node(&w, "n", 1, 1, 10000);

	(void)state;
	world_function(&w, A, 10, 0);
	for (unsigned i = 1; i <= 10; i++)
		world_add(&w, i, A);
	assert_int_equal(world_send(&w, NULL), 0); /* nothing before the first heartbeat */
	world_beat(&w, n, 0, 3, NULL, 0);
	for (unsigned i = 1; i <= 3; i++)
		assert_int_equal(world_send(&w, NULL), i);
	assert_int_equal(world_send(&w, NULL), 0);
	assert_int_equal(sched_running_total(w.s), 3);
	assert_int_equal(sched_queued_total(w.s), 7);
	world_free(&w);
}

/* A job is charged from pick on: reading what it lacks may take a while. */
static void
test_a_job_that_is_not_sent_yet_takes_credit(void **state)
{
	struct world w = world_new();
	struct sched_node *n = world_node(&w, "n", 1, 1, 10000);
	struct sched_job *first, *second;

	(void)state;
	world_function(&w, A, 10, 0);
	for (unsigned i = 1; i <= 3; i++)
		world_add(&w, i, A);
	world_beat(&w, n, 0, 2, NULL, 0);
	first = sched_pick(w.s, w.now);
	second = sched_pick(w.s, w.now);
	assert_non_null(first);
	assert_non_null(second);
	assert_null(sched_pick(w.s, w.now));
	sched_requeue(w.s, second, 0);
	assert_non_null(second = sched_pick(w.s, w.now));
	sched_sent(w.s, first, w.now);
	sched_sent(w.s, second, w.now);
	assert_null(sched_pick(w.s, w.now));
	assert_int_equal(n->unsent, 0);
	world_free(&w);
}

/* The connection broke: what was in it is sent again, and must not count for ever. */
static void
test_jobs_lost_on_the_way_take_no_credit(void **state)
{
	struct world w = world_new();
	struct sched_node *n = world_node(&w, "n", 1, 1, 10000);

	(void)state;
	world_function(&w, A, 10, 0);
	for (unsigned i = 1; i <= 4; i++)
		world_add(&w, i, A);
	world_beat(&w, n, 0, 2, NULL, 0);
	assert_int_equal(world_send(&w, NULL), 1);
	assert_int_equal(world_send(&w, NULL), 2);
	world_tick(&w, 1);
	world_beat(&w, n, 0, 2, NULL, 0); /* it got none of them */
	world_tick(&w, 1);
	assert_int_equal(w.lost_count, 2);
	world_beat(&w, n, 0, 2, NULL, 0);
	assert_int_equal(world_send(&w, NULL), 1);
	assert_int_equal(world_send(&w, NULL), 2);
	assert_int_equal(world_send(&w, NULL), 0);
	world_free(&w);
}

static void
test_memory_is_promised_once(void **state)
{
	struct world w = world_new();
	struct sched_node *n = world_node(&w, "n", 1, 1, 256);
	struct lease l;

	(void)state;
	world_function(&w, A, 100, 0);
	for (unsigned i = 1; i <= 4; i++)
		world_add(&w, i, A);
	world_beat(&w, n, 0, 10, NULL, 0);
	assert_int_equal(world_send(&w, &l), 1);
	assert_int_equal(world_send(&w, NULL), 2);
	assert_int_equal(world_send(&w, NULL), 0);
	assert_int_equal(n->memory_used_mib, 200);
	world_finish(&w, &l);
	assert_int_equal(n->memory_used_mib, 100);
	assert_int_equal(world_send(&w, NULL), 3);
	world_free(&w);
}

static void
test_what_does_not_fit_stands_in_nobodys_way(void **state)
{
	struct world w = world_new();
	struct sched_node *n = world_node(&w, "n", 1, 1, 256);

	(void)state;
	world_function(&w, BIG, 4096, 0);
	world_function(&w, A, 100, 0);
	world_add(&w, 1, BIG);
	world_add(&w, 2, A);
	world_beat(&w, n, 0, 10, NULL, 0);
	assert_int_equal(world_send(&w, NULL), 2);
	/* No node is large enough: waiting makes no node empty for it. */
	world_add(&w, 3, A);
	w.now += 60 * NS_PER_S;
	world_beat_all(&w, n, 10);
	assert_int_equal(world_send(&w, NULL), 3);
	world_free(&w);
}

/* A flood of small ones would fill every gap before a large one fits. */
static void
test_a_large_function_is_not_starved_by_small_ones(void **state)
{
	struct world w = world_new();
	struct sched_node *n = world_node(&w, "n", 1, 1, 400);
	struct lease small[4], fresh;
	unsigned event = 1, big_after = 0;

	(void)state;
	world_function(&w, BIG, 400, 0);
	world_function(&w, A, 100, 0);
	for (; event <= 200; event++)
		world_add(&w, event, A);
	world_beat(&w, n, 0, 100, NULL, 0);
	for (int i = 0; i < 4; i++)
		assert_int_not_equal(world_send(&w, &small[i]), 0);
	world_add(&w, 999, BIG);
	/* One small one ends each second, one may begin. */
	for (unsigned s = 0; s < 60 && !big_after; s++) {
		w.now += NS_PER_S;
		world_beat_all(&w, n, 100);
		if (sched_find(w.s, &small[s % 4]))
			world_finish(&w, &small[s % 4]);
		event = world_send(&w, &fresh);
		if (event == 999)
			big_after = s;
		else if (event)
			small[s % 4] = fresh;
	}
	assert_in_range(big_after, 1, 15);
	world_free(&w);
}

static void
test_a_functions_limit_holds_it_back_and_no_other(void **state)
{
	struct world w = world_new();
	struct sched_node *n = world_node(&w, "n", 1, 1, 10000);
	struct lease l;

	(void)state;
	world_function(&w, A, 10, 2);
	world_function(&w, B, 10, 0);
	for (unsigned i = 1; i <= 4; i++)
		world_add(&w, i, A);
	world_beat(&w, n, 0, 20, NULL, 0);
	assert_int_equal(world_send(&w, &l), 1);
	assert_int_equal(world_send(&w, NULL), 2);
	assert_int_equal(world_send(&w, NULL), 0);
	world_add(&w, 10, B);
	assert_int_equal(world_send(&w, NULL), 10);
	world_finish(&w, &l);
	assert_int_equal(world_send(&w, NULL), 3);
	assert_int_equal(world_send(&w, NULL), 0);
	world_function(&w, A, 10, 0); /* its owner lifts the limit */
	assert_int_equal(world_send(&w, NULL), 4);
	world_free(&w);
}

static void
test_events_wait_for_a_version(void **state)
{
	struct world w = world_new();
	struct sched_node *n = world_node(&w, "n", 1, 1, 10000);
	struct sched_add fixed = { .id = number_id(2), .function = number_id(B), .version = 3 };
	struct id a = number_id(A);
	struct sched_job *job;

	(void)state;
	sched_function(w.s, &a, 0, 10, 0);
	assert_true(sched_function_known(w.s, &a));
	world_add(&w, 1, A);
	world_beat(&w, n, 0, 20, NULL, 0);
	assert_int_equal(world_send(&w, NULL), 0);
	assert_int_equal(sched_add(w.s, &fixed), 1); /* one that names its version does not wait */
	job = sched_pick(w.s, w.now);
	assert_int_equal(job->version, 3);
	sched_sent(w.s, job, w.now);
	sched_function(w.s, &a, 5, 10, 0);
	job = sched_pick(w.s, w.now);
	assert_int_equal(job->version, 5);
	sched_sent(w.s, job, w.now);
	world_free(&w);
}

static void
test_work_spreads_and_avoids_the_silent(void **state)
{
	struct world w = world_new();
	struct sched_node *one = world_node(&w, "one", 1, 1, 10000);
	struct sched_node *two = world_node(&w, "two", 2, 2, 10000);

	(void)state;
	world_function(&w, A, 10, 0);
	for (unsigned i = 1; i <= 8; i++)
		world_add(&w, i, A);
	world_beat(&w, one, 0, 4, NULL, 0);
	world_beat(&w, two, 0, 4, NULL, 0);
	for (unsigned i = 0; i < 4; i++)
		assert_int_not_equal(world_send(&w, NULL), 0);
	assert_int_equal(one->running, 2);
	assert_int_equal(two->running, 2);
	w.now += world_config.silence_ns;
	assert_false(sched_node_alive(w.s, one, w.now));
	assert_int_equal(world_send(&w, NULL), 0);
	world_beat(&w, two, 2, 6, NULL, 0);
	assert_int_not_equal(world_send(&w, NULL), 0);
	assert_int_equal(one->running, 2);
	world_free(&w);
}

/* ---- entries ---- */

static void
test_an_id_is_there_once(void **state)
{
	struct world w = world_new();
	struct sched_add a = { .id = number_id(1), .function = number_id(A) };
	struct lease l = { TERM - 1, 1 };

	(void)state;
	assert_int_equal(sched_add(w.s, &a), 1);
	assert_int_equal(sched_add(w.s, &a), 0);
	assert_int_equal(sched_add_running(w.s, &a, &l, w.now), 0);
	a.id = number_id(2);
	assert_int_equal(sched_add_running(w.s, &a, &l, w.now), 1);
	a.id = number_id(3);
	assert_int_equal(sched_add_running(w.s, &a, &l, w.now), 0); /* the lease is taken */
	assert_int_equal(sched_queued(w.s, &a.function), 1);
	world_free(&w);
}

static void
test_an_entry_is_forgotten_wherever_it_waits(void **state)
{
	struct world w = world_new();
	struct sched_node *n = world_node(&w, "n", 1, 1, 10000);
	struct id first = number_id(1), second = number_id(2), middle = number_id(3);
	struct id last = number_id(5);
	struct sched_add later = { .id = number_id(6), .function = number_id(A),
				   .not_before_ns = w.now + NS_PER_S };

	(void)state;
	world_function(&w, A, 10, 0);
	for (unsigned i = 1; i <= 5; i++)
		world_add(&w, i, A);
	assert_int_equal(sched_add(w.s, &later), 1);
	sched_forget(w.s, sched_entry(w.s, &middle));
	sched_forget(w.s, sched_entry(w.s, &last));
	sched_forget(w.s, sched_entry(w.s, &first));
	sched_forget(w.s, sched_entry(w.s, &later.id));
	assert_null(sched_entry(w.s, &middle));
	assert_int_equal(sched_queued_total(w.s), 2);
	w.now += 2 * NS_PER_S;
	world_beat(&w, n, 0, 20, NULL, 0);
	assert_int_equal(world_send(&w, NULL), 2);
	assert_int_equal(world_send(&w, NULL), 4);
	assert_int_equal(world_send(&w, NULL), 0);
	sched_forget(w.s, sched_entry(w.s, &second)); /* it runs: not forgotten */
	assert_non_null(sched_entry(w.s, &second));
	world_free(&w);
}

static void
test_attempts_count_what_was_sent(void **state)
{
	struct world w = world_new();
	struct sched_node *n = world_node(&w, "n", 1, 1, 10000);
	struct id id = number_id(1);
	struct sched_job *job;

	(void)state;
	world_function(&w, A, 10, 0);
	world_add(&w, 1, A);
	world_beat(&w, n, 0, 20, NULL, 0);
	for (int i = 0; i < 5; i++) { /* the store is away: never sent */
		job = sched_pick(w.s, w.now);
		assert_int_equal(job->entry->attempts, 1);
		sched_requeue(w.s, job, 0);
	}
	assert_int_equal(world_send(&w, NULL), 1);
	assert_int_equal(sched_entry(w.s, &id)->attempts, 1);
	sched_requeue(w.s, sched_entry(w.s, &id)->job, 0);
	assert_int_equal(world_send(&w, NULL), 1);
	assert_int_equal(sched_entry(w.s, &id)->attempts, 2);
	world_free(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_events_of_one_function_run_in_their_order),
		cmocka_unit_test(test_a_flood_of_one_function_starves_no_other),
		cmocka_unit_test(test_two_floods_share_evenly),
		cmocka_unit_test(test_retries_come_in_the_order_of_their_times),
		cmocka_unit_test(test_a_job_given_back_is_first_in_line),
		cmocka_unit_test(test_the_lost_of_one_node_keep_their_order),
		cmocka_unit_test(test_no_more_is_sent_than_was_granted),
		cmocka_unit_test(test_a_job_that_is_not_sent_yet_takes_credit),
		cmocka_unit_test(test_jobs_lost_on_the_way_take_no_credit),
		cmocka_unit_test(test_memory_is_promised_once),
		cmocka_unit_test(test_what_does_not_fit_stands_in_nobodys_way),
		cmocka_unit_test(test_a_large_function_is_not_starved_by_small_ones),
		cmocka_unit_test(test_a_functions_limit_holds_it_back_and_no_other),
		cmocka_unit_test(test_events_wait_for_a_version),
		cmocka_unit_test(test_work_spreads_and_avoids_the_silent),
		cmocka_unit_test(test_an_id_is_there_once),
		cmocka_unit_test(test_an_entry_is_forgotten_wherever_it_waits),
		cmocka_unit_test(test_attempts_count_what_was_sent),
	};

	return cmocka_run_group_tests_name("sched", tests, NULL, NULL);
}
