/*
 * Life, jobs, and what is picked next.
 */
#include "core/model/sched.h"

#include <stdlib.h>
#include <string.h>

#include "core/model/sched_impl.h"

struct sched *
sched_new(const struct sched_config *c, uint64_t now)
{
	struct sched *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	s->config = *c;
	s->adopt_until_ns = now + c->adopt_ns;
	s->entry_buckets = s->function_buckets = s->job_buckets = SCHED_BUCKETS_FIRST;
	s->entries = calloc(s->entry_buckets, sizeof *s->entries);
	s->functions = calloc(s->function_buckets, sizeof *s->functions);
	s->job_hash = calloc(s->job_buckets, sizeof *s->job_hash);
	if (!s->entries || !s->functions || !s->job_hash) {
		sched_free(s, NULL);
		return NULL;
	}
	return s;
}

void
sched_listen(struct sched *s, uint64_t now)
{
	s->adopt_until_ns = now + s->config.adopt_ns;
	for (struct sched_job *job = s->jobs; job; job = job->next)
		if (!job->node)
			job->expires_ns = s->adopt_until_ns;
}

void
sched_free(struct sched *s, void (*drop)(void *attachment))
{
	if (!s)
		return;
	for (size_t i = 0; s->entries && i < s->entry_buckets; i++)
		for (struct sched_entry *e = s->entries[i], *next; e; e = next) {
			next = e->hash_next;
			if (e->attachment && drop)
				drop(e->attachment);
			free(e->job);
			free(e);
		}
	for (size_t i = 0; s->functions && i < s->function_buckets; i++)
		for (struct sched_function *f = s->functions[i], *next; f; f = next) {
			next = f->hash_next;
			free(f);
		}
	for (struct sched_node *n = s->nodes, *next; n; n = next) {
		next = n->next;
		free(n);
	}
	free(s->entries);
	free(s->functions);
	free(s->job_hash);
	free(s->heap);
	free(s);
}

/* ---- jobs ---- */

static uint64_t
lease_hash(const struct lease *l)
{
	return (l->seq ^ l->term << 40) * 0x9e3779b97f4a7c15ull >> 20;
}

static void
grow_jobs(struct sched *s)
{
	size_t n = s->job_buckets * 2;
	struct sched_job **table;

	if (s->job_count < s->job_buckets || !(table = calloc(n, sizeof *table)))
		return;
	for (struct sched_job *j = s->jobs; j; j = j->next) {
		size_t at = lease_hash(&j->lease) & (n - 1);

		j->hash_next = table[at];
		table[at] = j;
	}
	free(s->job_hash);
	s->job_hash = table;
	s->job_buckets = n;
}

struct sched_job *
sched_job_new(struct sched *s, struct sched_entry *e, const struct lease *lease)
{
	struct sched_job *job = calloc(1, sizeof *job);
	size_t at;

	if (!job)
		return NULL;
	job->entry = e;
	job->lease = *lease;
	job->version = e->version ? e->version : e->function->version;
	job->memory_mib = e->memory_mib ? e->memory_mib : e->function->memory_mib;
	e->job = job;
	e->function->running++;
	grow_jobs(s);
	at = lease_hash(lease) & (s->job_buckets - 1);
	job->hash_next = s->job_hash[at];
	s->job_hash[at] = job;
	job->next = s->jobs;
	if (s->jobs)
		s->jobs->prev = job;
	s->jobs = job;
	s->job_count++;
	return job;
}

static void
delete_job(struct sched *s, struct sched_job *job)
{
	struct sched_job **p = &s->job_hash[lease_hash(&job->lease) & (s->job_buckets - 1)];

	while (*p != job)
		p = &(*p)->hash_next;
	*p = job->hash_next;
	if (job->prev)
		job->prev->next = job->next;
	else
		s->jobs = job->next;
	if (job->next)
		job->next->prev = job->prev;
	sched_job_from_node(job);
	job->entry->job = NULL;
	job->entry->function->running--;
	s->job_count--;
	if (job->entry->function->head) /* its limit may have held others back */
		sched_ring_append(s, job->entry->function);
	free(job);
}

struct sched_job *
sched_find(const struct sched *s, const struct lease *lease)
{
	struct sched_job *job = s->job_hash[lease_hash(lease) & (s->job_buckets - 1)];

	while (job && (job->lease.term != lease->term || job->lease.seq != lease->seq))
		job = job->hash_next;
	return job;
}

int
sched_add_running(struct sched *s, const struct sched_add *a, const struct lease *lease, uint64_t now)
{
	struct sched_entry *e;
	struct sched_job *job;

	if (sched_entry(s, &a->id) || sched_find(s, lease))
		return 0;
	e = sched_entry_new(s, a);
	if (!e)
		return -1;
	job = sched_job_new(s, e, lease);
	if (!job) {
		sched_entry_delete(s, e);
		return -1;
	}
	job->sent = job->started = true;
	job->expires_ns = now + s->config.adopt_ns;
	return 1;
}

void
sched_started(struct sched *s, struct sched_job *job, uint64_t now)
{
	job->started = true;
	job->expires_ns = now + s->config.lease_ns;
}

void
sched_finish(struct sched *s, struct sched_job *job)
{
	struct sched_entry *e = job->entry;

	delete_job(s, job);
	sched_entry_delete(s, e);
}

void
sched_requeue(struct sched *s, struct sched_job *job, uint64_t not_before_ns)
{
	struct sched_entry *e = job->entry;

	e->attempts -= !job->sent && e->attempts;
	delete_job(s, job);
	e->not_before_ns = not_before_ns;
	sched_enqueue(s, e, true);
}

/* ---- picking ---- */

static bool
any_credit(const struct sched *s, uint64_t now)
{
	const struct sched_node *n = s->nodes;

	while (n && (!sched_node_credit(n) || !sched_node_alive(s, n, now)))
		n = n->next;
	return n != NULL;
}

/* Below nought when a node came back smaller than what runs on it. */
static int64_t
memory_left(const struct sched_node *n)
{
	return (int64_t)n->memory_mib - (int64_t)n->memory_used_mib;
}

/* The one with the most free slots: work spreads before it piles up. */
static struct sched_node *
choose_node(const struct sched *s, uint32_t memory_mib, const struct sched_node *except, uint64_t now)
{
	struct sched_node *best = NULL;

	for (struct sched_node *n = s->nodes; n; n = n->next)
		if (n != except && sched_node_credit(n) && sched_node_alive(s, n, now) &&
		    memory_left(n) >= (int64_t)memory_mib &&
		    (!best || sched_node_credit(n) > sched_node_credit(best)))
			best = n;
	return best;
}

/* The node that is nearest to having room for so much; NULL: none is large enough. */
static struct sched_node *
roomiest_node(const struct sched *s, uint32_t memory_mib, uint64_t now)
{
	struct sched_node *best = NULL;

	for (struct sched_node *n = s->nodes; n; n = n->next)
		if (n->memory_mib >= memory_mib && sched_node_alive(s, n, now) &&
		    (!best || memory_left(n) > memory_left(best)))
			best = n;
	return best;
}

static bool
may_run(const struct sched_function *f)
{
	return f->head && (!f->limit || f->running < f->limit) && (f->head->version || f->version);
}

/* Of its first in line. */
static uint32_t
memory_of(const struct sched_function *f)
{
	return f->head->memory_mib ? f->head->memory_mib : f->memory_mib;
}

static void
stop_starving(struct sched *s, struct sched_function *f)
{
	f->passed_ns = 0;
	if (s->starving == f)
		s->starving = NULL;
}

/* The node that takes nothing but the starving function's; NULL: no function starves. */
static struct sched_node *
node_kept_free(struct sched *s, uint64_t now)
{
	struct sched_node *n = NULL;

	if (s->starving && may_run(s->starving))
		n = roomiest_node(s, memory_of(s->starving), now);
	if (s->starving && !n)
		stop_starving(s, s->starving);
	return n;
}

static void
pass_over(struct sched *s, struct sched_function *f, uint64_t now)
{
	if (!roomiest_node(s, memory_of(f), now))
		f->passed_ns = 0; /* for want of such a node, not because of the others */
	else if (!f->passed_ns)
		f->passed_ns = now;
	else if (!s->starving && now - f->passed_ns >= s->config.patience_ns)
		s->starving = f;
	sched_ring_append(s, f);
}

static struct sched_job *
lease_to(struct sched *s, struct sched_function *f, struct sched_node *n, uint64_t now)
{
	struct lease lease = { s->config.term, s->seq + 1 };
	struct sched_entry *e = f->head;
	struct sched_job *job = sched_job_new(s, e, &lease);

	if (!job)
		return NULL;
	s->seq++;
	stop_starving(s, f);
	sched_dequeue(s, e);
	e->attempts += e->attempts < UINT16_MAX;
	sched_job_to_node(job, n);
	n->unsent++;
	job->expires_ns = now + s->config.accept_ns;
	return job;
}

struct sched_job *
sched_pick(struct sched *s, uint64_t now)
{
	struct sched_node *kept, *n;
	struct sched_job *job = NULL;

	if (now < s->adopt_until_ns)
		return NULL;
	sched_ripen(s, now);
	if (!any_credit(s, now))
		return NULL;
	kept = node_kept_free(s, now);
	for (size_t turns = s->ring_count; turns > 0 && !job; turns--) {
		struct sched_function *f = sched_ring_pop(s);

		if (!may_run(f)) { /* sched_function or the end of a job brings it back */
			stop_starving(s, f);
			continue;
		}
		n = choose_node(s, memory_of(f), s->starving == f ? NULL : kept, now);
		job = n ? lease_to(s, f, n, now) : NULL;
		if (!n)
			pass_over(s, f, now); /* a smaller one of another function may fit */
		else if (f->head)
			sched_ring_append(s, f);
	}
	return job;
}

void
sched_sent(struct sched *s, struct sched_job *job, uint64_t now)
{
	job->sent = true;
	job->node->unsent--;
	job->in_flight = true;
	job->node->in_flight++;
	job->number = ++job->node->sent;
	job->expires_ns = now + s->config.accept_ns;
}

void
sched_tick(struct sched *s, uint64_t now, sched_lost_fn lost, void *arg)
{
	struct sched_job *next;
	struct sched_node **p = &s->nodes;

	for (struct sched_job *job = s->jobs; job; job = next) {
		next = job->next;
		if (!job->held && job->expires_ns <= now)
			lost(arg, job, !job->started ? "the node did not accept it in time"
				       : !job->node  ? "no node reported it after a restart"
						     : "the node was not heard of any more");
	}
	while (*p) {
		struct sched_node *n = *p;

		if (n->running == 0 && now >= n->last_seen_ns + s->config.lease_ns) {
			*p = n->next;
			free(n);
		} else {
			p = &n->next;
		}
	}
}

uint64_t
sched_next_ns(const struct sched *s, uint64_t now)
{
	uint64_t next = UINT64_MAX;

	for (const struct sched_job *job = s->jobs; job; job = job->next)
		if (!job->held && job->expires_ns < next)
			next = job->expires_ns;
	if (s->heap_count && s->heap[0]->not_before_ns < next)
		next = s->heap[0]->not_before_ns;
	if (now < s->adopt_until_ns && s->ring_count && s->adopt_until_ns < next)
		next = s->adopt_until_ns;
	return next;
}
