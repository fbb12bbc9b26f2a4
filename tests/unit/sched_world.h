/*
 * A scheduler's state with a clock that only moves when a test says so, for the tests of
 * core/model/sched.h.  Ids are small numbers; what the rules give to `lost` is noted and
 * then dealt with as the test chose.
 */
#ifndef PRATAI_TEST_SCHED_WORLD_H
#define PRATAI_TEST_SCHED_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/model/sched.h"

enum { TERM = 7, LOST_MAX = 64, SENT_MAX = 1024 };

/* Round numbers, in seconds: what a test writes is what it means. */
static const struct sched_config world_config = {
	.term = TERM,
	.accept_ns = 2 * NS_PER_S,
	.lease_ns = 15 * NS_PER_S,
	.silence_ns = 3 * NS_PER_S,
	.adopt_ns = 3 * NS_PER_S,
	.patience_ns = 5 * NS_PER_S,
};

struct world {
	struct sched *s;
	uint64_t now;
	bool finish_lost; /* lost jobs are finished, else they wait again */
	struct lease sent[SENT_MAX]; /* all that world_send sent */
	size_t sent_count;
	unsigned lost_count;
	struct {
		struct id id;
		char why[64];
	} lost[LOST_MAX];
};

static inline struct id
number_id(unsigned n)
{
	struct id id = { { 1 } };

	memcpy(id.b + 12, &n, sizeof n);
	return id;
}

static inline unsigned
id_number(const struct id *id)
{
	unsigned n;

	memcpy(&n, id->b + 12, sizeof n);
	return n;
}

static inline void
world_lost(void *arg, struct sched_job *job, const char *why)
{
	struct world *w = arg;

	assert_true(w->lost_count < LOST_MAX);
	assert_false(job->held);
	w->lost[w->lost_count].id = job->entry->id;
	snprintf(w->lost[w->lost_count++].why, sizeof w->lost[0].why, "%s", why);
	if (w->finish_lost)
		sched_finish(w->s, job);
	else
		sched_requeue(w->s, job, 0);
}

/* A state whose adopt time is over. */
static inline struct world
world_new(void)
{
	struct world w = { .now = 1000 * NS_PER_S };

	w.s = sched_new(&world_config, w.now);
	assert_non_null(w.s);
	w.now += world_config.adopt_ns;
	return w;
}

static inline void
world_free(struct world *w)
{
	sched_free(w->s, NULL);
}

static inline void
world_function(struct world *w, unsigned function, uint32_t memory_mib, uint32_t limit)
{
	struct id id = number_id(function);

	sched_function(w->s, &id, 1, memory_mib, limit);
}

static inline void
world_add(struct world *w, unsigned event, unsigned function)
{
	struct sched_add a = { .id = number_id(event), .function = number_id(function) };

	assert_int_equal(sched_add(w->s, &a), 1);
}

static inline struct sched_node *
world_node(struct world *w, const char *name, unsigned session, unsigned incarnation,
	   uint64_t memory_mib)
{
	struct sched_node n = { .session = number_id(session), .incarnation = number_id(incarnation),
				.slots = 64, .memory_mib = memory_mib };
	struct sched_node *up;

	snprintf(n.node_id, sizeof n.node_id, "%s", name);
	snprintf(n.name, sizeof n.name, "%s", name);
	up = sched_node_up(w->s, &n, w->now, world_lost, w);
	assert_non_null(up);
	return up;
}

/* leases: those that the node says it holds. */
static inline void
world_beat(struct world *w, struct sched_node *n, uint64_t received, uint64_t granted,
	   struct lease *leases, size_t count)
{
	struct message m = { .type = MSG_HEARTBEAT, .received = received, .granted = granted,
			     .leases = leases, .lease_count = count };

	sched_heartbeat(w->s, n, &m, w->now, world_lost, w);
}

/* As a healthy node has it: it got all that was sent, holds all that is not over, and has
 * room for `more`. */
static inline void
world_beat_all(struct world *w, struct sched_node *n, uint64_t more)
{
	struct lease held[SENT_MAX];
	size_t count = 0;

	for (size_t i = 0; i < w->sent_count; i++) {
		const struct sched_job *job = sched_find(w->s, &w->sent[i]);

		if (job && job->node == n)
			held[count++] = w->sent[i];
	}
	world_beat(w, n, n->sent, n->sent + more, held, count);
}

/* Picks and sends, as the shell does.  The event's number; 0: nothing could be sent. */
static inline unsigned
world_send(struct world *w, struct lease *lease)
{
	struct sched_job *job = sched_pick(w->s, w->now);

	if (!job)
		return 0;
	sched_sent(w->s, job, w->now);
	assert_true(w->sent_count < SENT_MAX);
	w->sent[w->sent_count++] = job->lease;
	if (lease)
		*lease = job->lease;
	return id_number(&job->entry->id);
}

static inline void
world_finish(struct world *w, const struct lease *lease)
{
	struct sched_job *job = sched_find(w->s, lease);

	assert_non_null(job);
	sched_finish(w->s, job);
}

static inline void
world_tick(struct world *w, uint64_t seconds)
{
	w->now += seconds * NS_PER_S;
	sched_tick(w->s, w->now, world_lost, w);
}

#endif
