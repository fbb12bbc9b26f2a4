/* The scheduler's rules about nodes: sessions, heartbeats, leases, losses, restarts. */
#include "sched_world.h"

enum { A = 1001 };

/* One node with credit, and events 1 to n of function A. */
static struct sched_node *
begin(struct world *w, unsigned events)
{
	struct sched_node *n;

	*w = world_new();
	n = world_node(w, "n", 1, 1, 10000);
	world_function(w, A, 10, 0);
	for (unsigned i = 1; i <= events; i++)
		world_add(w, i, A);
	world_beat(w, n, 0, 8, NULL, 0);
	return n;
}

static void
send_and_start(struct world *w, unsigned event, struct lease *l)
{
	assert_int_equal(world_send(w, l), event);
	sched_started(w->s, sched_find(w->s, l), w->now);
}

/* ---- losses ---- */

static void
test_a_job_not_accepted_in_time_waits_again(void **state)
{
	struct world w;
	struct lease l;

	(void)state;
	begin(&w, 1);
	assert_int_equal(world_send(&w, &l), 1);
	world_tick(&w, 1);
	assert_int_equal(w.lost_count, 0);
	world_tick(&w, 1);
	assert_int_equal(w.lost_count, 1);
	assert_string_equal(w.lost[0].why, "the node did not accept it in time");
	assert_null(sched_find(w.s, &l));
	assert_int_equal(sched_queued_total(w.s), 1);
	world_free(&w);
}

static void
test_heartbeats_renew_what_they_list(void **state)
{
	struct world w;
	struct sched_node *n = begin(&w, 1);
	struct lease l;

	(void)state;
	send_and_start(&w, 1, &l);
	for (int i = 0; i < 120; i++) {
		world_tick(&w, 1);
		world_beat(&w, n, 1, 9, &l, 1);
	}
	assert_int_equal(w.lost_count, 0);
	world_tick(&w, 14);
	assert_int_equal(w.lost_count, 0);
	world_tick(&w, 1); /* 15 s of silence: the lease is over */
	assert_int_equal(w.lost_count, 1);
	assert_string_equal(w.lost[0].why, "the node was not heard of any more");
	assert_null(sched_nodes(w.s)); /* and the node with it */
	world_free(&w);
}

static void
test_a_job_that_was_received_and_is_not_listed_is_lost(void **state)
{
	struct world w;
	struct sched_node *n = begin(&w, 2);
	struct lease l[2];

	(void)state;
	send_and_start(&w, 1, &l[0]);
	send_and_start(&w, 2, &l[1]);
	/* Made before the second arrived: it says nothing of the second. */
	world_beat(&w, n, 1, 9, l, 1);
	assert_int_equal(w.lost_count, 0);
	world_beat(&w, n, 2, 9, l + 1, 1);
	assert_int_equal(w.lost_count, 1);
	assert_string_equal(w.lost[0].why, "the node does not have it any more");
	assert_int_equal(id_number(&w.lost[0].id), 1);
	world_free(&w);
}

/* Being dispatched or settled: the shell decides about it. */
static void
test_what_the_shell_holds_is_never_lost(void **state)
{
	struct world w;
	struct sched_node *n = begin(&w, 1);
	struct lease l;

	(void)state;
	send_and_start(&w, 1, &l);
	sched_find(w.s, &l)->held = true;
	world_beat(&w, n, 1, 9, NULL, 0);
	world_tick(&w, 100);
	n = world_node(&w, "n", 2, 2, 10000);
	assert_int_equal(w.lost_count, 0);
	sched_find(w.s, &l)->held = false;
	world_tick(&w, 1);
	assert_int_equal(w.lost_count, 1);
	world_free(&w);
}

static void
test_an_old_heartbeat_takes_nothing_back(void **state)
{
	struct world w;
	struct sched_node *n = begin(&w, 12);
	struct lease l[10];

	(void)state;
	for (unsigned i = 0; i < 6; i++)
		send_and_start(&w, i + 1, &l[i]);
	world_beat(&w, n, 6, 14, l, 6); /* six received, eight more */
	world_beat(&w, n, 2, 8, l, 2);  /* late */
	assert_int_equal(w.lost_count, 0);
	for (unsigned i = 6; i < 10; i++)
		assert_int_equal(world_send(&w, &l[i]), i + 1);
	world_free(&w);
}

static void
test_a_foreign_or_unsent_lease_is_not_renewed(void **state)
{
	struct world w;
	struct sched_node *n = begin(&w, 2), *other = world_node(&w, "other", 2, 2, 10000);
	struct sched_job *job;
	struct lease l[3];

	(void)state;
	assert_int_equal(world_send(&w, &l[0]), 1);
	job = sched_pick(w.s, w.now);
	l[1] = job->lease;
	l[2] = (struct lease){ 999, 999 };
	world_beat(&w, other, 5, 5, l, 3);
	world_beat(&w, n, 0, 8, l + 1, 2);
	assert_false(sched_find(w.s, &l[0])->started);
	assert_false(job->started);
	assert_ptr_equal(sched_find(w.s, &l[0])->node, n);
	assert_int_equal(w.lost_count, 0);
	world_free(&w);
}

/* ---- sessions and incarnations ---- */

static void
test_a_new_incarnation_loses_all_at_once(void **state)
{
	struct world w;
	struct sched_node *n = begin(&w, 3), *again;
	struct id old = number_id(1);
	struct lease l[3];

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		send_and_start(&w, i + 1, &l[i]);
	w.finish_lost = true;
	again = world_node(&w, "n", 2, 2, 5000);
	assert_ptr_equal(again, n);
	assert_int_equal(w.lost_count, 3);
	assert_string_equal(w.lost[0].why, "the node started again");
	assert_int_equal(n->running, 0);
	assert_int_equal(n->memory_used_mib, 0);
	assert_int_equal(n->memory_mib, 5000);
	assert_null(sched_node_by_session(w.s, &old));
	assert_int_equal(sched_running_total(w.s), 0);
	world_free(&w);
}

/* Only the connection broke: what runs goes on. */
static void
test_a_new_session_of_the_same_incarnation_keeps_its_jobs(void **state)
{
	struct world w;
	struct sched_node *n = begin(&w, 6);
	struct lease l[3];

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		send_and_start(&w, i + 1, &l[i]);
	world_beat(&w, n, 3, 11, l, 3);
	n = world_node(&w, "n", 2, 1, 10000);
	assert_int_equal(w.lost_count, 0);
	assert_int_equal(n->running, 3);
	assert_int_equal(world_send(&w, NULL), 0); /* credit starts again with its heartbeat */
	world_beat(&w, n, 0, 5, l, 3);
	assert_int_equal(w.lost_count, 0);
	assert_int_equal(world_send(&w, NULL), 4);
	world_beat(&w, n, 0, 5, l, 2); /* now it lacks one that it had */
	assert_int_equal(w.lost_count, 1);
	assert_int_equal(id_number(&w.lost[0].id), 3);
	world_free(&w);
}

/* A job that was on the way to the old session was dropped by the node. */
static void
test_what_was_on_the_way_to_an_old_session_times_out(void **state)
{
	struct world w;
	struct sched_node *n = begin(&w, 1);

	(void)state;
	assert_int_equal(world_send(&w, NULL), 1);
	n = world_node(&w, "n", 2, 1, 10000);
	world_beat(&w, n, 0, 8, NULL, 0);
	assert_int_equal(w.lost_count, 0);
	world_tick(&w, 2);
	assert_int_equal(w.lost_count, 1);
	world_beat(&w, n, 0, 1, NULL, 0);
	assert_int_equal(world_send(&w, NULL), 1);
	assert_int_equal(world_send(&w, NULL), 0);
	world_free(&w);
}

static void
test_a_job_picked_before_a_new_session_is_sent_in_it(void **state)
{
	struct world w;
	struct sched_node *n = begin(&w, 2);
	struct sched_job *job = sched_pick(w.s, w.now);

	(void)state;
	job->held = true;
	n = world_node(&w, "n", 2, 1, 10000);
	job->held = false;
	sched_sent(w.s, job, w.now);
	assert_int_equal(job->number, 1);
	world_beat(&w, n, 0, 1, NULL, 0); /* made before it arrived */
	assert_int_equal(world_send(&w, NULL), 0);
	world_beat(&w, n, 1, 2, &job->lease, 1);
	assert_int_equal(world_send(&w, NULL), 2);
	assert_int_equal(w.lost_count, 0);
	world_free(&w);
}

static void
test_silent_nodes_without_jobs_are_forgotten(void **state)
{
	struct world w;
	struct lease l;

	(void)state;
	begin(&w, 1);
	world_node(&w, "idle", 2, 2, 10000);
	send_and_start(&w, 1, &l);
	world_tick(&w, 14);
	assert_non_null(sched_nodes(w.s));
	assert_non_null(sched_nodes(w.s)->next);
	sched_find(w.s, &l)->held = true; /* its result is being written */
	world_tick(&w, 1);
	assert_non_null(sched_nodes(w.s));
	assert_null(sched_nodes(w.s)->next);
	assert_string_equal(sched_nodes(w.s)->name, "n");
	world_finish(&w, &l);
	world_tick(&w, 1);
	assert_null(sched_nodes(w.s));
	world_free(&w);
}

/* ---- after a restart ---- */

static void
add_running(struct world *w, unsigned event, struct lease *l)
{
	struct sched_add a = { .id = number_id(event), .function = number_id(A), .attempts = 1 };

	assert_int_equal(sched_add_running(w->s, &a, l, w->now), 1);
}

static struct world
restarted(void)
{
	struct world w = { .now = 5000 * NS_PER_S };

	w.s = sched_new(&world_config, w.now);
	world_function(&w, A, 10, 0);
	return w;
}

static void
test_a_lease_of_before_is_claimed_by_who_lists_it(void **state)
{
	struct world w = restarted();
	struct lease l[2] = { { TERM - 1, 4 }, { TERM - 1, 5 } };
	struct sched_node *n;

	(void)state;
	add_running(&w, 1, &l[0]);
	add_running(&w, 2, &l[1]);
	world_tick(&w, 1);
	n = world_node(&w, "n", 1, 1, 100);
	world_beat(&w, n, 0, 8, l, 1);
	assert_ptr_equal(sched_find(w.s, &l[0])->node, n);
	assert_int_equal(n->running, 1);
	assert_int_equal(n->memory_used_mib, 10);
	world_tick(&w, 2); /* the adopt time is over */
	assert_int_equal(w.lost_count, 1);
	assert_int_equal(id_number(&w.lost[0].id), 2);
	assert_string_equal(w.lost[0].why, "no node reported it after a restart");
	assert_int_equal(world_send(&w, NULL), 2);
	world_finish(&w, &l[0]);
	assert_int_equal(n->running, 1);
	world_free(&w);
}

/* The record that it runs was not written any more: its event's id finds it. */
static void
test_a_lease_of_before_is_claimed_by_its_event(void **state)
{
	struct world w = restarted();
	struct lease l = { TERM - 1, 4 }, mine = { TERM, 4 };
	struct id ids[1] = { number_id(1) };
	struct message m = { .type = MSG_HEARTBEAT, .granted = 8, .leases = &l, .lease_events = ids,
			     .lease_count = 1 };
	struct sched_node *n = world_node(&w, "n", 1, 1, 100);

	(void)state;
	world_add(&w, 1, A);
	m.leases = &mine; /* of this term: we would know of it */
	sched_heartbeat(w.s, n, &m, w.now, world_lost, &w);
	assert_null(sched_find(w.s, &mine));
	m.leases = &l;
	sched_heartbeat(w.s, n, &m, w.now, world_lost, &w);
	assert_non_null(sched_find(w.s, &l));
	assert_true(sched_find(w.s, &l)->started);
	assert_int_equal(sched_entry(w.s, &ids[0])->attempts, 1);
	assert_int_equal(sched_queued_total(w.s), 0);
	w.now += world_config.adopt_ns;
	assert_int_equal(world_send(&w, NULL), 0);
	sched_heartbeat(w.s, n, &m, w.now, world_lost, &w); /* again: nothing new */
	assert_int_equal(n->running, 1);
	world_free(&w);
}

static void
test_nothing_is_sent_before_the_adopt_time_is_over(void **state)
{
	struct world w = restarted();
	struct sched_node *n = world_node(&w, "n", 1, 1, 100);

	(void)state;
	world_add(&w, 1, A);
	world_beat(&w, n, 0, 8, NULL, 0);
	assert_int_equal(world_send(&w, NULL), 0);
	assert_int_equal(sched_next_ns(w.s, w.now), w.now + world_config.adopt_ns);
	w.now += world_config.adopt_ns - 1;
	world_beat(&w, n, 0, 8, NULL, 0);
	assert_int_equal(world_send(&w, NULL), 0);
	w.now += 1;
	assert_int_equal(world_send(&w, NULL), 1);
	world_free(&w);
}

/* Reading a long queue takes longer than nodes are given to report: their time begins when
 * they can be heard. */
static void
test_the_adopt_time_begins_when_nodes_can_be_heard(void **state)
{
	struct world w = restarted();
	struct lease l = { TERM - 1, 4 };
	struct sched_node *n;

	(void)state;
	add_running(&w, 1, &l);
	world_add(&w, 2, A);
	w.now += 30 * NS_PER_S;
	sched_listen(w.s, w.now);
	world_tick(&w, 1);
	assert_int_equal(w.lost_count, 0);
	n = world_node(&w, "n", 1, 1, 100);
	world_beat(&w, n, 0, 8, &l, 1);
	assert_int_equal(world_send(&w, NULL), 0);
	world_tick(&w, 2);
	assert_int_equal(w.lost_count, 0);
	assert_int_equal(world_send(&w, NULL), 2);
	world_free(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_job_not_accepted_in_time_waits_again),
		cmocka_unit_test(test_heartbeats_renew_what_they_list),
		cmocka_unit_test(test_a_job_that_was_received_and_is_not_listed_is_lost),
		cmocka_unit_test(test_what_the_shell_holds_is_never_lost),
		cmocka_unit_test(test_an_old_heartbeat_takes_nothing_back),
		cmocka_unit_test(test_a_foreign_or_unsent_lease_is_not_renewed),
		cmocka_unit_test(test_a_new_incarnation_loses_all_at_once),
		cmocka_unit_test(test_a_new_session_of_the_same_incarnation_keeps_its_jobs),
		cmocka_unit_test(test_what_was_on_the_way_to_an_old_session_times_out),
		cmocka_unit_test(test_a_job_picked_before_a_new_session_is_sent_in_it),
		cmocka_unit_test(test_silent_nodes_without_jobs_are_forgotten),
		cmocka_unit_test(test_a_lease_of_before_is_claimed_by_who_lists_it),
		cmocka_unit_test(test_a_lease_of_before_is_claimed_by_its_event),
		cmocka_unit_test(test_nothing_is_sent_before_the_adopt_time_is_over),
		cmocka_unit_test(test_the_adopt_time_begins_when_nodes_can_be_heard),
	};

	return cmocka_run_group_tests_name("sched nodes", tests, NULL, NULL);
}
