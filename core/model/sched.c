#include "core/model/sched.h"

#include <stdlib.h>
#include <string.h>

struct sched_function {
	struct id id;
	struct sched_entry *head, *tail;
	size_t queued; /* in the queue or the heap */
	uint32_t running, limit;
	uint32_t version, memory_mib;
	bool known, in_ring;
	struct sched_function *ring_next;
	struct sched_function *hash_next;
};

struct sched {
	struct sched_config config;
	uint64_t adopt_until_ns, seq;

	struct sched_entry **entries; /* by id */
	size_t entry_buckets, entry_count;
	struct sched_function **functions; /* by id */
	size_t function_buckets, function_count;
	/* Functions with something in their queue, in turn. */
	struct sched_function *ring_head, *ring_tail;
	size_t ring_count;

	struct sched_entry **heap; /* retries, by not_before_ns */
	size_t heap_count, heap_cap;

	struct sched_job *jobs; /* all */
	struct sched_job **job_hash; /* by lease */
	size_t job_buckets, job_count;
	struct sched_node *nodes;
};

enum { BUCKETS_FIRST = 256, NOT_IN_HEAP = UINT32_MAX };

struct sched *
sched_new(const struct sched_config *c, uint64_t now)
{
	struct sched *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	s->config = *c;
	s->adopt_until_ns = now + c->adopt_ns;
	s->entry_buckets = s->function_buckets = s->job_buckets = BUCKETS_FIRST;
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

/* ---- hash tables: chains that double; growth is skipped when memory is short ---- */

static uint64_t
lease_hash(const struct lease *l)
{
	return (l->seq ^ l->term << 40) * 0x9e3779b97f4a7c15ull >> 20;
}

static void
grow_entries(struct sched *s)
{
	size_t n = s->entry_buckets * 2;
	struct sched_entry **table;

	if (s->entry_count < s->entry_buckets || !(table = calloc(n, sizeof *table)))
		return;
	for (size_t i = 0; i < s->entry_buckets; i++)
		for (struct sched_entry *e = s->entries[i], *next; e; e = next) {
			size_t at = id_hash(&e->id) & (n - 1);

			next = e->hash_next;
			e->hash_next = table[at];
			table[at] = e;
		}
	free(s->entries);
	s->entries = table;
	s->entry_buckets = n;
}

static void
grow_functions(struct sched *s)
{
	size_t n = s->function_buckets * 2;
	struct sched_function **table;

	if (s->function_count < s->function_buckets || !(table = calloc(n, sizeof *table)))
		return;
	for (size_t i = 0; i < s->function_buckets; i++)
		for (struct sched_function *f = s->functions[i], *next; f; f = next) {
			size_t at = id_hash(&f->id) & (n - 1);

			next = f->hash_next;
			f->hash_next = table[at];
			table[at] = f;
		}
	free(s->functions);
	s->functions = table;
	s->function_buckets = n;
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

/* ---- functions ---- */

static struct sched_function *
find_function(const struct sched *s, const struct id *id)
{
	struct sched_function *f = s->functions[id_hash(id) & (s->function_buckets - 1)];

	while (f && !id_equal(&f->id, id))
		f = f->hash_next;
	return f;
}

static struct sched_function *
get_function(struct sched *s, const struct id *id)
{
	struct sched_function *f = find_function(s, id);
	size_t at;

	if (f)
		return f;
	f = calloc(1, sizeof *f);
	if (!f)
		return NULL;
	f->id = *id;
	grow_functions(s);
	at = id_hash(id) & (s->function_buckets - 1);
	f->hash_next = s->functions[at];
	s->functions[at] = f;
	s->function_count++;
	return f;
}

static void
ring_append(struct sched *s, struct sched_function *f)
{
	if (f->in_ring)
		return;
	f->in_ring = true;
	f->ring_next = NULL;
	if (s->ring_tail)
		s->ring_tail->ring_next = f;
	else
		s->ring_head = f;
	s->ring_tail = f;
	s->ring_count++;
}

static struct sched_function *
ring_pop(struct sched *s)
{
	struct sched_function *f = s->ring_head;

	if (!f)
		return NULL;
	s->ring_head = f->ring_next;
	if (!s->ring_head)
		s->ring_tail = NULL;
	f->in_ring = false;
	s->ring_count--;
	return f;
}

void
sched_function(struct sched *s, const struct id *id, uint32_t version, uint32_t memory_mib,
	       uint32_t limit)
{
	struct sched_function *f = get_function(s, id);

	if (!f)
		return;
	f->known = true;
	f->version = version;
	f->memory_mib = memory_mib;
	f->limit = limit;
	if (f->head)
		ring_append(s, f);
}

bool
sched_function_known(const struct sched *s, const struct id *id)
{
	const struct sched_function *f = find_function(s, id);

	return f && f->known;
}

size_t
sched_queued(const struct sched *s, const struct id *id)
{
	const struct sched_function *f = find_function(s, id);

	return f ? f->queued : 0;
}

size_t
sched_queued_total(const struct sched *s)
{
	return s->entry_count - s->job_count;
}

size_t
sched_running_total(const struct sched *s)
{
	return s->job_count;
}

/* ---- the heap of entries that wait for a time ---- */

static void
heap_place(struct sched *s, size_t at, struct sched_entry *e)
{
	s->heap[at] = e;
	e->heap_index = (uint32_t)at;
}

static void
heap_up(struct sched *s, size_t at, struct sched_entry *e)
{
	while (at > 0 && s->heap[(at - 1) / 2]->not_before_ns > e->not_before_ns) {
		heap_place(s, at, s->heap[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	heap_place(s, at, e);
}

static void
heap_down(struct sched *s, size_t at, struct sched_entry *e)
{
	for (;;) {
		size_t child = 2 * at + 1;

		if (child + 1 < s->heap_count &&
		    s->heap[child + 1]->not_before_ns < s->heap[child]->not_before_ns)
			child++;
		if (child >= s->heap_count || s->heap[child]->not_before_ns >= e->not_before_ns)
			break;
		heap_place(s, at, s->heap[child]);
		at = child;
	}
	heap_place(s, at, e);
}

static int
heap_push(struct sched *s, struct sched_entry *e)
{
	if (s->heap_count == s->heap_cap) {
		size_t cap = s->heap_cap ? s->heap_cap * 2 : 64;
		struct sched_entry **heap = realloc(s->heap, cap * sizeof *heap);

		if (!heap)
			return -1;
		s->heap = heap;
		s->heap_cap = cap;
	}
	heap_up(s, s->heap_count++, e);
	return 0;
}

static void
heap_remove(struct sched *s, struct sched_entry *e)
{
	size_t at = e->heap_index;
	struct sched_entry *last = s->heap[--s->heap_count];

	e->heap_index = NOT_IN_HEAP;
	if (last == e)
		return;
	if (at > 0 && s->heap[(at - 1) / 2]->not_before_ns > last->not_before_ns)
		heap_up(s, at, last);
	else
		heap_down(s, at, last);
}

/* ---- entries ---- */

static void
queue_append(struct sched *s, struct sched_entry *e)
{
	struct sched_function *f = e->function;

	e->next = NULL;
	if (f->tail)
		f->tail->next = e;
	else
		f->head = e;
	f->tail = e;
	ring_append(s, f);
}

static void
queue_prepend(struct sched *s, struct sched_entry *e)
{
	struct sched_function *f = e->function;

	e->next = f->head;
	f->head = e;
	if (!f->tail)
		f->tail = e;
	ring_append(s, f);
}

static void
queue_remove(struct sched_entry *e)
{
	struct sched_function *f = e->function;
	struct sched_entry *before = NULL;

	if (f->head == e) {
		f->head = e->next;
	} else {
		for (before = f->head; before && before->next != e; before = before->next)
			;
		if (!before)
			return;
		before->next = e->next;
	}
	if (f->tail == e)
		f->tail = before;
}

struct sched_entry *
sched_entry(const struct sched *s, const struct id *id)
{
	struct sched_entry *e = s->entries[id_hash(id) & (s->entry_buckets - 1)];

	while (e && !id_equal(&e->id, id))
		e = e->hash_next;
	return e;
}

static struct sched_entry *
new_entry(struct sched *s, const struct sched_add *a)
{
	struct sched_function *f = get_function(s, &a->function);
	struct sched_entry *e = f ? calloc(1, sizeof *e) : NULL;
	size_t at;

	if (!e)
		return NULL;
	e->id = a->id;
	e->function = f;
	e->attachment = a->attachment;
	e->version = a->version;
	e->memory_mib = (uint16_t)(a->memory_mib > UINT16_MAX ? UINT16_MAX : a->memory_mib);
	e->attempts = (uint16_t)(a->attempts > UINT16_MAX ? UINT16_MAX : a->attempts);
	e->failures = (uint16_t)(a->failures > UINT16_MAX ? UINT16_MAX : a->failures);
	e->kind = (uint8_t)a->kind;
	e->type = (uint8_t)a->type;
	e->not_before_ns = a->not_before_ns;
	e->heap_index = NOT_IN_HEAP;
	grow_entries(s);
	at = id_hash(&e->id) & (s->entry_buckets - 1);
	e->hash_next = s->entries[at];
	s->entries[at] = e;
	s->entry_count++;
	return e;
}

/* Waits by time if it must, else in line.  Memory too short for the heap: in line. */
static void
enqueue(struct sched *s, struct sched_entry *e, bool first)
{
	e->function->queued++;
	if (e->not_before_ns && heap_push(s, e) == 0)
		return;
	if (first)
		queue_prepend(s, e);
	else
		queue_append(s, e);
}

int
sched_add(struct sched *s, const struct sched_add *a)
{
	struct sched_entry *e;

	if (sched_entry(s, &a->id))
		return 0;
	e = new_entry(s, a);
	if (!e)
		return -1;
	enqueue(s, e, false);
	return 1;
}

static void
delete_entry(struct sched *s, struct sched_entry *e)
{
	struct sched_entry **p = &s->entries[id_hash(&e->id) & (s->entry_buckets - 1)];

	while (*p != e)
		p = &(*p)->hash_next;
	*p = e->hash_next;
	s->entry_count--;
	free(e);
}

/* Takes an entry that waits out of its queue or the heap. */
static void
dequeue(struct sched *s, struct sched_entry *e)
{
	if (e->heap_index != NOT_IN_HEAP)
		heap_remove(s, e);
	else
		queue_remove(e);
	e->function->queued--;
}

void
sched_forget(struct sched *s, struct sched_entry *e)
{
	if (e->job)
		return;
	dequeue(s, e);
	delete_entry(s, e);
}

/* ---- jobs ---- */

static struct sched_job *
new_job(struct sched *s, struct sched_entry *e, const struct lease *lease)
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
job_to_node(struct sched_job *job, struct sched_node *n)
{
	job->node = n;
	n->running++;
	n->memory_used_mib += job->memory_mib;
}

static void
job_from_node(struct sched_job *job)
{
	struct sched_node *n = job->node;

	if (!n)
		return;
	n->running--;
	n->unsent -= !job->sent;
	n->memory_used_mib -= job->memory_mib;
	job->node = NULL;
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
	job_from_node(job);
	job->entry->job = NULL;
	job->entry->function->running--;
	s->job_count--;
	if (job->entry->function->head) /* its limit may have held others back */
		ring_append(s, job->entry->function);
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
	e = new_entry(s, a);
	if (!e)
		return -1;
	job = new_job(s, e, lease);
	if (!job) {
		delete_entry(s, e);
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
	delete_entry(s, e);
}

void
sched_requeue(struct sched *s, struct sched_job *job, uint64_t not_before_ns)
{
	struct sched_entry *e = job->entry;

	delete_job(s, job);
	e->not_before_ns = not_before_ns;
	enqueue(s, e, true);
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
	n->granted = n->sent = 0; /* until the session's first heartbeat */
	n->last_seen_ns = now;
	/* Jobs of an earlier session of this incarnation have no number in this one: they must be
	 * listed by the heartbeat after next, or time out by their lease. */
	for (struct sched_job *job = s->jobs; job; job = job->next)
		if (job->node == n && job->sent)
			job->number = UINT64_MAX;
	return n;
}

static void
claim(struct sched *s, struct sched_node *n, const struct lease *lease, const struct id *event,
      uint64_t now)
{
	struct sched_job *job = sched_find(s, lease);
	struct sched_entry *e;

	/* Sent before our start, and the record of it was not written any more. */
	if (!job && !id_is_zero(event) && lease->term < s->config.term &&
	    (e = sched_entry(s, event)) && !e->job) {
		dequeue(s, e);
		job = new_job(s, e, lease);
		if (!job) {
			enqueue(s, e, true);
			return;
		}
		e->attempts++;
		job->sent = true;
	}
	if (!job || !job->sent)
		return;
	if (!job->node)
		job_to_node(job, n);
	if (job->node != n)
		return;
	job->number = 0; /* listed once: from now on its absence is a loss */
	sched_started(s, job, now);
}

static bool
listed(const struct message *m, const struct lease *l)
{
	for (size_t i = 0; i < m->lease_count; i++)
		if (m->leases[i].term == l->term && m->leases[i].seq == l->seq)
			return true;
	return false;
}

void
sched_heartbeat(struct sched *s, struct sched_node *n, const struct message *m, uint64_t now,
		sched_lost_fn lost, void *arg)
{
	static const struct id none;
	struct sched_job *next;

	n->last_seen_ns = now;
	/* Cumulative: an old heartbeat that comes late takes nothing back. */
	if (m->granted > n->granted)
		n->granted = m->granted;
	for (size_t i = 0; i < m->lease_count; i++)
		claim(s, n, &m->leases[i], m->lease_events ? &m->lease_events[i] : &none, now);
	for (struct sched_job *job = s->jobs; job; job = next) {
		next = job->next;
		if (job->node == n && job->sent && !job->held && job->number <= m->received &&
		    !listed(m, &job->lease))
			lost(arg, job, "the node does not have it any more");
	}
}

/* ---- picking ---- */

/* The one with the most free slots: work spreads before it piles up. */
static struct sched_node *
choose_node(const struct sched *s, uint32_t memory_mib, uint64_t now)
{
	struct sched_node *best = NULL;

	for (struct sched_node *n = s->nodes; n; n = n->next) {
		if (n->sent + n->unsent >= n->granted || !sched_node_alive(s, n, now) ||
		    n->memory_used_mib + memory_mib > n->memory_mib)
			continue;
		if (!best || n->granted - n->sent - n->unsent >
				     best->granted - best->sent - best->unsent)
			best = n;
	}
	return best;
}

static void
ripen(struct sched *s, uint64_t now)
{
	while (s->heap_count && s->heap[0]->not_before_ns <= now) {
		struct sched_entry *e = s->heap[0];

		heap_remove(s, e);
		e->not_before_ns = 0;
		queue_append(s, e);
	}
}

static bool
may_run(const struct sched_function *f)
{
	return f->head && (!f->limit || f->running < f->limit) && (f->head->version || f->version);
}

struct sched_job *
sched_pick(struct sched *s, uint64_t now)
{
	if (now < s->adopt_until_ns)
		return NULL;
	ripen(s, now);
	for (size_t turns = s->ring_count; turns > 0; turns--) {
		struct sched_function *f = ring_pop(s);
		struct sched_entry *e = f->head;
		struct lease lease = { s->config.term, s->seq + 1 };
		struct sched_node *n;
		struct sched_job *job;

		if (!may_run(f))
			continue; /* sched_function or the end of a job brings it back */
		n = choose_node(s, e->memory_mib ? e->memory_mib : f->memory_mib, now);
		job = n ? new_job(s, e, &lease) : NULL;
		if (!job) {
			ring_append(s, f);
			continue; /* a smaller one of another function may fit */
		}
		s->seq++;
		queue_remove(e);
		f->queued--;
		e->attempts += e->attempts < UINT16_MAX;
		job_to_node(job, n);
		n->unsent++;
		job->expires_ns = now + s->config.accept_ns;
		if (f->head)
			ring_append(s, f);
		return job;
	}
	return NULL;
}

void
sched_sent(struct sched *s, struct sched_job *job, uint64_t now)
{
	job->sent = true;
	job->node->unsent--;
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
