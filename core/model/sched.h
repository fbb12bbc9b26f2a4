/*
 * The scheduler's rules: which event runs next, where, under which lease, and when a
 * lease is over.  Pure: state, input, now.  No socket, no store, no clock; the shell
 * (core/scheduler) sends, stores and asks what time it is.
 *
 * Every function has a first-in-first-out queue; functions take turns, so that a flood
 * of one does not starve another.  A retry waits in a heap until its time.  A job is
 * sent only against a node's credit (its last heartbeat's granted - received, less what is
 * on the way) and only while the memory limits of what runs there fit what the node
 * promised.  A function whose memory never fits beside a flood of small ones gets, after
 * patience_ns, a node that is kept free for it.
 *
 *   add ──► queued ──pick──► sent ──started──► running ──find, release──► gone
 *              ▲               │ accept_by          │ lease over, node lost
 *              └───────────────┴────────────────────┘  (the shell decides by kind)
 */
#ifndef PRATAI_SCHED_H
#define PRATAI_SCHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/id.h"
#include "core/model/event.h"
#include "core/model/message.h"

struct sched;
struct sched_node;

struct sched_config {
	uint64_t term;         /* of this scheduler's leases */
	uint64_t accept_ns;    /* a job not started by then is sent elsewhere; 2 s */
	uint64_t lease_ns;     /* a lease not renewed by then is over; 15 s */
	uint64_t silence_ns;   /* a node that says nothing gets no more jobs; 3 s */
	uint64_t adopt_ns;     /* after a start: how long leases of before may be claimed; 3 s */
	uint64_t patience_ns;  /* how long a function may be passed over for its memory; 5 s */
};

/* What waits in memory for one event: at most 96 bytes. */
struct sched_entry {
	struct id id;
	struct sched_function *function;
	struct sched_entry *next;      /* in its function's queue */
	struct sched_entry *hash_next; /* by id */
	struct sched_job *job;         /* while it is sent or running */
	void *attachment;              /* the shell's: payload, who waits; NULL: all in the store */
	uint64_t not_before_ns;
	uint32_t version; /* 0: the one that is in force when it is picked */
	uint32_t heap_index;
	uint16_t attempts, failures;
	uint16_t memory_mib; /* 0: the function's */
	uint8_t kind;        /* enum job_kind */
	uint8_t type;        /* enum event_type */
};
_Static_assert(sizeof(struct sched_entry) <= 96, "a million queued events are 96 MB");

struct sched_job {
	struct sched_entry *entry;
	struct lease lease;
	struct sched_node *node; /* NULL: of before our start, not claimed yet */
	uint64_t number;         /* the session's n-th job, from 1; 0: known to be there */
	uint64_t expires_ns;     /* accept_by until started, then the lease's end */
	uint32_t version, memory_mib;
	uint64_t beat;           /* of the last heartbeat that listed it */
	bool sent, started;
	bool in_flight; /* sent in this session, and not received as of the last heartbeat */
	bool held; /* the shell reads or writes for it: no timeouts meanwhile */
	struct sched_job *prev, *next, *hash_next;
};

struct sched_node {
	struct id session, incarnation;
	char node_id[EVENT_NODE_MAX];
	char name[EVENT_NODE_MAX];
	char version[32];
	uint32_t slots;
	uint64_t memory_mib, memory_used_mib;
	uint64_t granted, received; /* cumulative in the session, of the last heartbeat */
	uint64_t sent;              /* cumulative in the session */
	uint32_t running, unsent, in_flight; /* jobs leased to it; of them: not sent, on the way */
	uint64_t last_seen_ns;
	int64_t last_seen_us;   /* real time, for records; the shell sets it */
	struct sched_node *next;
};

struct sched *sched_new(const struct sched_config *c, uint64_t now);
/* Nodes can be heard from now on: the adopt time begins (before, with sched_new). */
void sched_listen(struct sched *s, uint64_t now);
/* drop is called with each attachment that is left. */
void sched_free(struct sched *s, void (*drop)(void *attachment));

/* ---- Functions ---- */

/*
 * What holds for a function's events: the version that entries with version 0 run (0:
 * none is ready, they wait), its memory, and how many may run at once (0: no limit).
 */
void sched_function(struct sched *s, const struct id *function, uint32_t version,
		    uint32_t memory_mib, uint32_t limit);
/* Whether sched_function was called for it. */
bool sched_function_known(const struct sched *s, const struct id *function);
size_t sched_queued(const struct sched *s, const struct id *function);
size_t sched_queued_total(const struct sched *s);
size_t sched_running_total(const struct sched *s);

/* ---- Entries ---- */

struct sched_add {
	struct id id, function;
	enum job_kind kind;
	enum event_type type;
	uint32_t version, memory_mib;
	uint32_t attempts, failures;
	uint64_t not_before_ns;
	void *attachment;
};
/* 1; 0: this id is here already (the attachment stays the caller's); -1: no memory. */
int sched_add(struct sched *s, const struct sched_add *a);
/* An event that ran under lease before our start: waits to be claimed by a heartbeat that
 * lists it, else is lost after adopt_ns.  As sched_add. */
int sched_add_running(struct sched *s, const struct sched_add *a, const struct lease *lease,
		      uint64_t now);
struct sched_entry *sched_entry(const struct sched *s, const struct id *id);

/* ---- Nodes ---- */

/*
 * A registration opens a session; an older one of the same node ends.  Its jobs go on when
 * the incarnation is the same, else each goes to lost (see sched_tick).
 */
typedef void (*sched_lost_fn)(void *arg, struct sched_job *job, const char *why);
struct sched_node *sched_node_up(struct sched *s, const struct sched_node *from, uint64_t now,
				 sched_lost_fn lost, void *arg);
struct sched_node *sched_node_by_session(const struct sched *s, const struct id *session);
const struct sched_node *sched_nodes(const struct sched *s); /* a list by ->next */
bool sched_node_alive(const struct sched *s, const struct sched_node *n, uint64_t now);

/* Takes its credit, renews the leases that it lists, claims those of before our start, and
 * loses those that the node has received (by number) but does not list.  One that comes
 * late (it has received less than was said before) only shows that the node lives. */
void sched_heartbeat(struct sched *s, struct sched_node *n, const struct message *heartbeat,
		     uint64_t now, sched_lost_fn lost, void *arg);

/* ---- Jobs ---- */

/*
 * The next job, leased to a node with credit and memory.  The shell sends it and then says
 * sched_sent, or gives it back with sched_requeue.  NULL: nothing can be sent now.
 * Nothing is given before the adopt time is over.
 */
struct sched_job *sched_pick(struct sched *s, uint64_t now);
void sched_sent(struct sched *s, struct sched_job *job, uint64_t now);
struct sched_job *sched_find(const struct sched *s, const struct lease *lease);
void sched_started(struct sched *s, struct sched_job *job, uint64_t now);

/* The job is over; its entry is forgotten (the attachment is the caller's again). */
void sched_finish(struct sched *s, struct sched_job *job);
/* The job is over; its entry waits again: first in line, or until not_before_ns.  One that
 * was not sent was no attempt. */
void sched_requeue(struct sched *s, struct sched_job *job, uint64_t not_before_ns);
/* An entry that is not a job is forgotten. */
void sched_forget(struct sched *s, struct sched_entry *entry);

/*
 * Ends what is over: jobs not accepted or not renewed go to lost, which must call
 * sched_finish or sched_requeue (or mark it held); silent nodes without jobs are
 * forgotten after lease_ns.
 */
void sched_tick(struct sched *s, uint64_t now, sched_lost_fn lost, void *arg);
/* When sched_tick or sched_pick has something to do next at the latest. */
uint64_t sched_next_ns(const struct sched *s, uint64_t now);

#endif
