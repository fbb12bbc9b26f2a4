/*
 * What the scheduler's rules share among their files; nobody else includes this.
 *
 *   sched.c        life, jobs, picking, time
 *   sched_queue.c  functions and their queues, entries, the heap of retries
 *   sched_node.c   nodes, sessions, heartbeats
 *
 * An entry is in one place: its function's queue, the heap, or a job.
 */
#ifndef PRATAI_SCHED_IMPL_H
#define PRATAI_SCHED_IMPL_H

#include "core/model/sched.h"

struct sched_function {
	struct id id;
	struct sched_entry *head, *tail;
	size_t queued; /* in the queue or the heap */
	uint32_t running, limit;
	uint32_t version, memory_mib;
	bool known, in_ring;
	uint64_t passed_ns; /* since when its first lacks memory only; 0: it does not */
	struct sched_function *ring_next;
	struct sched_function *hash_next;
};

struct sched {
	struct sched_config config;
	uint64_t adopt_until_ns, seq, beats;

	struct sched_entry **entries; /* by id */
	size_t entry_buckets, entry_count;
	struct sched_function **functions; /* by id */
	size_t function_buckets, function_count;
	/* Functions with something in their queue, in turn. */
	struct sched_function *ring_head, *ring_tail;
	size_t ring_count;
	/* The one that has waited for memory for too long: a node is kept free for it. */
	struct sched_function *starving;

	struct sched_entry **heap; /* retries, by not_before_ns */
	size_t heap_count, heap_cap;

	struct sched_job *jobs; /* all */
	struct sched_job **job_hash; /* by lease */
	size_t job_buckets, job_count;
	struct sched_node *nodes;
};

enum { SCHED_BUCKETS_FIRST = 256, NOT_IN_HEAP = UINT32_MAX };

/* sched_queue.c */
struct sched_entry *sched_entry_new(struct sched *s, const struct sched_add *a);
void sched_entry_delete(struct sched *s, struct sched_entry *e);
/* Waits by its time if it has one, else in line: as the first or the last. */
void sched_enqueue(struct sched *s, struct sched_entry *e, bool first);
/* Takes an entry that waits out of its queue or the heap. */
void sched_dequeue(struct sched *s, struct sched_entry *e);
/* What has waited long enough goes in line. */
void sched_ripen(struct sched *s, uint64_t now);
void sched_ring_append(struct sched *s, struct sched_function *f);
struct sched_function *sched_ring_pop(struct sched *s);

/* sched.c */
struct sched_job *sched_job_new(struct sched *s, struct sched_entry *e, const struct lease *lease);

/* sched_node.c */
void sched_job_to_node(struct sched_job *job, struct sched_node *n);
void sched_job_from_node(struct sched_job *job);
/* How many jobs it may be sent now. */
uint64_t sched_node_credit(const struct sched_node *n);

#endif
