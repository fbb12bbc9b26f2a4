/*
 * The scheduler's rules under a seeded random life: nodes that get jobs late or never,
 * break, come back; a shell that holds, sends, gives back, finishes.  After every step
 * all that is counted is counted again from what there is.
 *
 * The nodes are modelled as they are: a pipe that keeps the order, jobs held, heartbeats
 * that may wait in their own pipe.  A failing run prints its seed.
 */
#include "core/model/sched_impl.h"

#include <stdlib.h>

#include "sched_world.h"

enum {
	FUNCTIONS = 6,
	EVENTS_MAX = 120,
	NODES = 3,
	PIPE_MAX = 64,
	BEATS_MAX = 4,
	SEEDS = 12,
	STEPS = 25000,
};

struct sim_beat {
	uint64_t received, granted;
	struct lease leases[PIPE_MAX];
	size_t count;
	unsigned session;
};

struct sim_node {
	struct sched_node *up; /* NULL: never registered, or forgotten */
	unsigned session, incarnation, slots;
	uint64_t received;
	struct lease pipe[PIPE_MAX], held[PIPE_MAX];
	size_t pipe_count, held_count;
	struct sim_beat beats[BEATS_MAX];
	size_t beat_count;
};

struct sim {
	struct sched *s;
	uint64_t now, random;
	unsigned next_event, next_session;
	unsigned events[EVENTS_MAX]; /* those that have not ended */
	size_t event_count;
	struct lease unsent[PIPE_MAX]; /* picked and held, as while the store is read */
	size_t unsent_count;
	struct sim_node nodes[NODES];
	uint64_t finished, lost;
};

static unsigned
draw(struct sim *m, unsigned below)
{
	m->random ^= m->random << 13; /* xorshift64 */
	m->random ^= m->random >> 7;
	m->random ^= m->random << 17;
	return (unsigned)(m->random >> 33) % below;
}

static struct id
function_id(unsigned i)
{
	return number_id(100000 + i);
}

/* ---- everything counted again ---- */

static size_t
check_queue(const struct sched_function *f)
{
	size_t n = 0;
	const struct sched_entry *last = NULL;

	for (const struct sched_entry *e = f->head; e; last = e, e = e->next, n++) {
		assert_ptr_equal(e->function, f);
		assert_null(e->job);
		assert_int_equal(e->heap_index, NOT_IN_HEAP);
	}
	assert_ptr_equal(f->tail, last);
	return n;
}

static void
check_functions(const struct sched *s, size_t *in_queues)
{
	size_t ring = 0;

	for (const struct sched_function *f = s->ring_head; f; f = f->ring_next, ring++)
		assert_true(f->in_ring);
	assert_int_equal(ring, s->ring_count);
	for (unsigned i = 0; i < FUNCTIONS; i++) {
		struct id id = function_id(i);
		const struct sched_function *f = s->functions[id_hash(&id) & (s->function_buckets - 1)];
		size_t queued, in_heap = 0, running = 0;

		while (f && !id_equal(&f->id, &id))
			f = f->hash_next;
		if (!f)
			continue;
		queued = check_queue(f);
		*in_queues += queued;
		for (size_t h = 0; h < s->heap_count; h++)
			in_heap += s->heap[h]->function == f;
		for (const struct sched_job *job = s->jobs; job; job = job->next)
			running += job->entry->function == f;
		assert_int_equal(f->queued, queued + in_heap);
		assert_int_equal(f->running, running);
		/* Nobody who could run is out of the ring: it would wait for ever. */
		if (f->head && (!f->limit || f->running < f->limit) && (f->head->version || f->version))
			assert_true(f->in_ring);
	}
}

static void
check_heap(const struct sched *s)
{
	for (size_t i = 0; i < s->heap_count; i++) {
		assert_int_equal(s->heap[i]->heap_index, i);
		assert_null(s->heap[i]->job);
		if (i)
			assert_true(s->heap[(i - 1) / 2]->not_before_ns <= s->heap[i]->not_before_ns);
	}
}

static void
check_nodes(const struct sched *s)
{
	for (const struct sched_node *n = s->nodes; n; n = n->next) {
		uint32_t running = 0, unsent = 0, in_flight = 0;
		uint64_t memory = 0;

		for (const struct sched_job *job = s->jobs; job; job = job->next) {
			if (job->node != n)
				continue;
			running++;
			unsent += !job->sent;
			in_flight += job->in_flight;
			memory += job->memory_mib;
		}
		assert_int_equal(n->running, running);
		assert_int_equal(n->unsent, unsent);
		assert_int_equal(n->in_flight, in_flight);
		assert_int_equal(n->memory_used_mib, memory);
	}
}

/* No node has more valid leases than it said it could take.  (Void ones that it has not
 * been told of yet come on top.) */
static void
check_slots(const struct sched *s, const struct sim_node *n)
{
	size_t valid = 0;

	for (size_t i = 0; i < n->pipe_count; i++)
		valid += sched_find(s, &n->pipe[i]) != NULL;
	for (size_t i = 0; i < n->held_count; i++)
		valid += sched_find(s, &n->held[i]) != NULL;
	assert_true(valid <= n->slots);
}

static void
check(const struct sim *m)
{
	const struct sched *s = m->s;
	size_t in_queues = 0, jobs = 0;

	check_functions(s, &in_queues);
	check_heap(s);
	check_nodes(s);
	for (const struct sched_job *job = s->jobs; job; job = job->next, jobs++) {
		assert_ptr_equal(job->entry->job, job);
		assert_ptr_equal(sched_find(s, &job->lease), job);
		assert_int_equal(job->entry->heap_index, NOT_IN_HEAP);
	}
	assert_int_equal(jobs, s->job_count);
	assert_int_equal(s->entry_count, in_queues + s->heap_count + jobs);
	assert_int_equal(s->entry_count, m->event_count); /* nothing lost, nothing invented */
	for (size_t i = 0; i < m->event_count; i++) {
		struct id id = number_id(m->events[i]);

		assert_non_null(sched_entry(s, &id));
	}
	for (unsigned i = 0; i < NODES; i++)
		check_slots(s, &m->nodes[i]);
}

/* ---- what may happen ---- */

static void
forget_event(struct sim *m, unsigned event)
{
	for (size_t i = 0; i < m->event_count; i++)
		if (m->events[i] == event) {
			m->events[i] = m->events[--m->event_count];
			return;
		}
	fail_msg("event %u ended twice", event);
}

static void
lost(void *arg, struct sched_job *job, const char *why)
{
	struct sim *m = arg;

	(void)why;
	assert_false(job->held);
	m->lost++;
	if (draw(m, 4)) {
		sched_requeue(m->s, job, 0);
	} else { /* as for who waits for a response */
		forget_event(m, id_number(&job->entry->id));
		sched_finish(m->s, job);
	}
}

static void
add(struct sim *m)
{
	struct sched_add a = { .function = function_id(draw(m, FUNCTIONS)) };
	struct lease old = { TERM - 1, m->next_event };

	if (m->event_count == EVENTS_MAX)
		return;
	a.id = number_id(m->next_event);
	a.version = draw(m, 5) ? 0 : 2;
	a.memory_mib = draw(m, 5) ? 0 : 1 + draw(m, 300);
	a.not_before_ns = draw(m, 3) ? 0 : m->now + draw(m, 5000) * NS_PER_MS;
	m->events[m->event_count++] = m->next_event++;
	if (draw(m, 50))
		assert_int_equal(sched_add(m->s, &a), 1);
	else
		assert_int_equal(sched_add_running(m->s, &a, &old, m->now), 1);
	assert_int_equal(sched_add(m->s, &a), 0);
}

static struct sim_node *
node_of(struct sim *m, const struct sched_node *up)
{
	for (unsigned i = 0; i < NODES; i++)
		if (m->nodes[i].up == up)
			return &m->nodes[i];
	fail_msg("a job of no node");
	return NULL;
}

static void
send(struct sim *m, struct sched_job *job)
{
	struct sim_node *n = node_of(m, job->node);

	job->held = false;
	sched_sent(m->s, job, m->now);
	assert_true(n->pipe_count < PIPE_MAX);
	n->pipe[n->pipe_count++] = job->lease;
}

static void
pick(struct sim *m)
{
	struct sched_job *job = sched_pick(m->s, m->now);

	if (!job)
		return;
	assert_true(sched_node_alive(m->s, job->node, m->now));
	assert_true(job->node->memory_used_mib <= job->node->memory_mib);
	assert_true(job->node->in_flight + job->node->unsent + job->node->received <=
		    job->node->granted);
	if (draw(m, 4) == 0 && m->unsent_count < PIPE_MAX) {
		job->held = true;
		m->unsent[m->unsent_count++] = job->lease;
	} else if (draw(m, 8) == 0) {
		sched_requeue(m->s, job, draw(m, 2) ? m->now + 50 * NS_PER_MS : 0);
	} else {
		send(m, job);
	}
}

/* What was read arrived: a held job is never gone. */
static void
send_held(struct sim *m)
{
	struct sched_job *job;

	if (!m->unsent_count)
		return;
	job = sched_find(m->s, &m->unsent[--m->unsent_count]);
	assert_non_null(job);
	if (draw(m, 5))
		send(m, job);
	else
		sched_requeue(m->s, job, m->now + NS_PER_MS);
}

static void
deliver(struct sim *m, struct sim_node *n)
{
	struct sched_job *job;
	struct lease l;

	if (!n->pipe_count)
		return;
	l = n->pipe[0];
	memmove(n->pipe, n->pipe + 1, --n->pipe_count * sizeof l);
	n->received++;
	job = sched_find(m->s, &l);
	if (!job || job->node != n->up)
		return; /* too late: cancelled as soon as it is there */
	n->held[n->held_count++] = l;
	if (!job->started)
		sched_started(m->s, job, m->now);
}

static void
result(struct sim *m, struct sim_node *n)
{
	struct sched_job *job;
	size_t at;

	if (!n->held_count)
		return;
	at = draw(m, (unsigned)n->held_count);
	job = sched_find(m->s, &n->held[at]);
	n->held[at] = n->held[--n->held_count];
	if (!job || job->held)
		return;
	if (draw(m, 4) == 0) {
		sched_requeue(m->s, job, m->now + draw(m, 3000) * NS_PER_MS);
		return;
	}
	forget_event(m, id_number(&job->entry->id));
	sched_finish(m->s, job);
	m->finished++;
}

static void
make_beat(struct sim *m, struct sim_node *n)
{
	struct sim_beat *b = &n->beats[n->beat_count];

	(void)m;
	if (n->beat_count == BEATS_MAX)
		return;
	n->beat_count++;
	b->session = n->session;
	b->received = n->received;
	b->granted = n->received + (n->held_count < n->slots ? n->slots - n->held_count : 0);
	b->count = n->held_count;
	memcpy(b->leases, n->held, sizeof b->leases);
}

/* The first that waits, or rarely another one: then the first comes late. */
static void
deliver_beat(struct sim *m, struct sim_node *n)
{
	struct id session;
	struct sched_node *up;
	struct message beat = { .type = MSG_HEARTBEAT };
	struct sim_beat b;
	size_t at;

	if (!n->beat_count)
		return;
	at = draw(m, 10) ? 0 : draw(m, (unsigned)n->beat_count);
	/* Two that say the same count cannot be told apart: their order stays. */
	for (size_t i = 0; i < at; i++)
		if (n->beats[i].received == n->beats[at].received)
			at = i;
	b = n->beats[at];
	memmove(&n->beats[at], &n->beats[at + 1], (--n->beat_count - at) * sizeof b);
	session = number_id(b.session);
	up = sched_node_by_session(m->s, &session);
	if (!up)
		return;
	beat.received = b.received;
	beat.granted = b.granted;
	beat.leases = b.leases;
	beat.lease_count = b.count;
	sched_heartbeat(m->s, up, &beat, m->now, lost, m);
}

static void
register_node(struct sim *m, unsigned i, bool again)
{
	struct sim_node *n = &m->nodes[i];
	struct sched_node from = { .slots = n->slots, .memory_mib = 600 };

	snprintf(from.node_id, sizeof from.node_id, "node%u", i);
	if (again || !n->incarnation) {
		n->incarnation = ++m->next_session;
		n->held_count = 0;
	}
	n->session = ++m->next_session;
	n->received = 0;
	n->pipe_count = n->beat_count = 0; /* the old connection's */
	from.session = number_id(n->session);
	from.incarnation = number_id(n->incarnation);
	n->up = sched_node_up(m->s, &from, m->now, lost, m);
	assert_non_null(n->up);
}

static void
tick(struct sim *m, unsigned ms)
{
	m->now += ms * NS_PER_MS;
	sched_tick(m->s, m->now, lost, m);
	for (unsigned i = 0; i < NODES; i++) {
		struct id session = number_id(m->nodes[i].session);

		m->nodes[i].up = sched_node_by_session(m->s, &session);
	}
}

static void
cancel(struct sim *m)
{
	struct sched_entry *e;
	struct id id;

	if (!m->event_count)
		return;
	id = number_id(m->events[draw(m, (unsigned)m->event_count)]);
	e = sched_entry(m->s, &id);
	if (e->job)
		return;
	forget_event(m, id_number(&id));
	sched_forget(m->s, e);
}

static void
change_function(struct sim *m)
{
	struct id id = function_id(draw(m, FUNCTIONS));

	sched_function(m->s, &id, draw(m, 4) ? 1 : 0, 1 + draw(m, 500), draw(m, 3) ? 0 : 1 + draw(m, 4));
}

static void
step(struct sim *m)
{
	struct sim_node *n = &m->nodes[draw(m, NODES)];
	unsigned what = draw(m, 1000);

	if (what < 200)
		add(m);
	else if (what < 450)
		pick(m);
	else if (what < 500)
		send_held(m);
	else if (what < 650)
		deliver(m, n);
	else if (what < 750)
		result(m, n);
	else if (what < 820)
		make_beat(m, n);
	else if (what < 900)
		deliver_beat(m, n);
	else if (what < 970)
		tick(m, draw(m, 200));
	else if (what < 980)
		change_function(m);
	else if (what < 990)
		cancel(m);
	else if (what < 993)
		n->pipe_count = 0; /* the connection broke; ZeroMQ makes a new one by itself */
	else if (what < 996)
		register_node(m, (unsigned)(n - m->nodes), draw(m, 2));
	else if (what < 998)
		tick(m, draw(m, 4000));
	else if (what < 999)
		tick(m, 20000);
	else
		n->beat_count = 0;
}

/* From wherever it got to: when all is well again, everything ends. */
static void
drain(struct sim *m)
{
	while (m->unsent_count)
		send_held(m);
	for (unsigned i = 0; i < FUNCTIONS; i++) {
		struct id id = function_id(i);

		sched_function(m->s, &id, 1, 100, 2);
	}
	for (unsigned round = 0; m->event_count; round++) {
		assert_in_range(round, 0, 5000);
		for (unsigned i = 0; i < NODES; i++) {
			struct sim_node *n = &m->nodes[i];

			if (!n->up)
				register_node(m, i, false);
			while (n->pipe_count)
				deliver(m, n);
			result(m, n);
			make_beat(m, n);
			while (n->beat_count)
				deliver_beat(m, n);
		}
		for (int i = 0; i < 20; i++)
			pick(m);
		while (m->unsent_count)
			send_held(m);
		tick(m, 100);
		check(m);
	}
}

static void
live(unsigned seed, bool *passed)
{
	struct sim m = { .random = 88172645463325252ull + seed * 7919, .next_event = 1 };

	m.s = sched_new(&world_config, m.now = 1000 * NS_PER_S);
	assert_non_null(m.s);
	for (unsigned i = 0; i < NODES; i++) {
		m.nodes[i].slots = 2 + 4 * i;
		register_node(&m, i, true);
	}
	for (int i = 0; i < STEPS; i++) {
		step(&m);
		check(&m);
	}
	drain(&m);
	assert_int_equal(m.s->entry_count, 0);
	assert_true(m.finished > STEPS / 100);
	assert_true(m.lost > 10);
	sched_free(m.s, NULL);
	*passed = true;
}

static void
test_a_random_life_loses_and_doubles_nothing(void **state)
{
	const char *only = getenv("PRATAI_TEST_SEED");

	(void)state;
	for (unsigned seed = only ? (unsigned)strtoul(only, NULL, 10) : 1; seed <= (only ? (unsigned)strtoul(only, NULL, 10) : SEEDS); seed++) {
		bool passed = false;

		fprintf(stderr, "seed %u\n", seed);
		live(seed, &passed);
		assert_true(passed);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_random_life_loses_and_doubles_nothing),
	};

	return cmocka_run_group_tests_name("sched random", tests, NULL, NULL);
}
