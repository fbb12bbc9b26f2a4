/*
 * Nodes.  A session's credit is what its last heartbeat granted beyond what it had received
 * by then, less what is on the way: a job leaves that count when a heartbeat says that it
 * arrived, or when it is over, so that a job lost with its connection takes no credit.
 *
 * A job's place on its node is kept in four counters of the node (running, unsent,
 * in_flight, memory), changed here and nowhere else.
 */
#include "core/model/sched_impl.h"

#include <stdlib.h>
#include <string.h>

void
sched_job_to_node(struct sched_job *job, struct sched_node *n)
{
	job->node = n;
	n->running++;
	n->memory_used_mib += job->memory_mib;
}

void
sched_job_from_node(struct sched_job *job)
{
	struct sched_node *n = job->node;

	if (!n)
		return;
	n->running--;
	n->unsent -= !job->sent;
	n->in_flight -= job->in_flight;
	n->memory_used_mib -= job->memory_mib;
	job->node = NULL;
	job->in_flight = false;
}

uint64_t
sched_node_credit(const struct sched_node *n)
{
	uint64_t free = n->granted > n->received ? n->granted - n->received : 0;
	uint64_t taken = (uint64_t)n->in_flight + n->unsent;

	return free > taken ? free - taken : 0;
}

/* ---- nodes ---- */

const struct sched_node *
sched_nodes(const struct sched *s)
{
	return s->nodes;
}

bool
sched_node_alive(const struct sched *s, const struct sched_node *n, uint64_t now)
{
	return now < n->last_seen_ns + s->config.silence_ns;
}

struct sched_node *
sched_node_by_session(const struct sched *s, const struct id *session)
{
	struct sched_node *n = s->nodes;

	while (n && !id_equal(&n->session, session))
		n = n->next;
	return n;
}

static void
lose_jobs_of(struct sched *s, struct sched_node *n, sched_lost_fn lost, void *arg)
{
	struct sched_job *next;

	for (struct sched_job *job = s->jobs; job; job = next) {
		next = job->next;
		if (job->node == n && !job->held)
			lost(arg, job, "the node started again");
	}
}

struct sched_node *
sched_node_up(struct sched *s, const struct sched_node *from, uint64_t now, sched_lost_fn lost,
	      void *arg)
{
	struct sched_node *n = s->nodes;

	while (n && strcmp(n->node_id, from->node_id))
		n = n->next;
	if (n && !id_equal(&n->incarnation, &from->incarnation))
		lose_jobs_of(s, n, lost, arg);
	if (!n) {
		n = calloc(1, sizeof *n);
		if (!n)
			return NULL;
		n->next = s->nodes;
		s->nodes = n;
		memcpy(n->node_id, from->node_id, sizeof n->node_id);
	}
	memcpy(n->name, from->name, sizeof n->name);
	memcpy(n->version, from->version, sizeof n->version);
	n->session = from->session;
	n->incarnation = from->incarnation;
	n->slots = from->slots;
	n->memory_mib = from->memory_mib;
	n->granted = n->received = n->sent = 0; /* until the session's first heartbeat */
	n->in_flight = 0;
	n->last_seen_ns = now;
	/* Jobs of an earlier session of this incarnation have no number in this one: a heartbeat
	 * lists them, or they time out. */
	for (struct sched_job *job = s->jobs; job; job = job->next)
		if (job->node == n && job->sent) {
			job->number = UINT64_MAX;
			job->in_flight = false;
		}
	return n;
}

static void
claim(struct sched *s, struct sched_node *n, const struct lease *lease, const struct id *event,
      uint64_t beat, uint64_t now)
{
	struct sched_job *job = sched_find(s, lease);
	struct sched_entry *e;

	/* Sent before our start, and the record of it was not written any more. */
	if (!job && !id_is_zero(event) && lease->term < s->config.term &&
	    (e = sched_entry(s, event)) && !e->job) {
		sched_dequeue(s, e);
		job = sched_job_new(s, e, lease);
		if (!job) {
			sched_enqueue(s, e, true);
			return;
		}
		e->attempts += e->attempts < UINT16_MAX;
		job->sent = true;
	}
	if (!job || !job->sent)
		return;
	if (!job->node)
		sched_job_to_node(job, n);
	if (job->node != n)
		return;
	job->number = 0; /* listed once: from now on its absence is a loss */
	job->beat = beat;
	if (job->in_flight) {
		job->in_flight = false;
		n->in_flight--;
	}
	sched_started(s, job, now);
}

/* By a heartbeat that has received it and does not list it. */
static bool
is_missing(const struct sched_job *job, uint64_t received, uint64_t beat)
{
	return job->sent && !job->held && job->number <= received && job->beat != beat;
}

void
sched_heartbeat(struct sched *s, struct sched_node *n, const struct message *m, uint64_t now,
		sched_lost_fn lost, void *arg)
{
	static const struct id none;
	struct sched_job *next;

	n->last_seen_ns = now;
	if (m->received < n->received)
		return;
	n->granted = m->granted;
	n->received = m->received;
	s->beats++;
	for (size_t i = 0; i < m->lease_count; i++)
		claim(s, n, &m->leases[i], m->lease_events ? &m->lease_events[i] : &none, s->beats, now);
	for (struct sched_job *job = s->jobs; job; job = next) {
		next = job->next;
		if (job->node != n)
			continue;
		if (job->in_flight && job->number <= m->received) {
			job->in_flight = false;
			n->in_flight--;
		}
		if (is_missing(job, m->received, s->beats))
			lost(arg, job, "the node does not have it any more");
	}
}
