/*
 * What the scheduler's files share.
 *
 *   scheduler.c  life, hints, heartbeats, time
 *   recover.c    the term, and what had not ended when we started
 *   dispatch.c   a picked job: what it lacks is read, then it is sent
 *   collector.c  results: recorded, answered, acknowledged
 *   watch.c      who wants to hear of an event's end
 *   versions.c   versions and functions as the store has them
 *   unused.c     versions and blobs that nobody needs any more
 *
 * A job is found again by its lease and an entry by its id after every asynchronous step:
 * either may be gone by then.
 */
#ifndef PRATAI_SCHEDULER_INTERNAL_H
#define PRATAI_SCHEDULER_INTERNAL_H

#include "core/model/function_record.h"
#include "core/model/message.h"
#include "core/model/sched.h"
#include "core/scheduler/scheduler.h"
#include "netio/mq.h"
#include "store/store.h"

enum {
	REPLY_MAX = sizeof((struct message *)0)->reply_to,
	REPLY_PEERS_MAX = 64,
	VERSION_BUCKETS = 4096,
	WORK_COUNT_MAX = 20000,          /* events kept whole in memory; more: only entries */
	WORK_BYTES_MAX = 64 << 20,       /* their payloads; as much again for those that wait */
	SWEEP_PAGE = 500,
	WATCH_MAX = 65536,
	WATCH_BUCKETS = 4096,
};

/* An entry's attachment: the event, as far as it is in memory. */
struct work {
	struct event event;
	bool event_loaded, payload_loaded;
	void *payload;
	size_t payload_len;
	char reply_to[REPLY_MAX];
};

struct cached_version {
	struct function_version v;
	struct cached_version *next;
};

struct reply_peer {
	char to[REPLY_MAX];
	struct mq_socket *socket;
};

struct scheduler {
	struct scheduler_config config;
	struct sched *sched;
	uint64_t term;
	bool ready;
	bool pumping;
	int fetching; /* recovery: store requests on the way */
	struct mq_socket *events, *dispatch, *collect;
	struct loop_timer *tick, *sweep, *unused;
	uint64_t ticked_ns;  /* clock_mono_ns of the last tick; 0: none yet */
	uint64_t paused_ns;  /* that scheduler_now leaves out */
	struct id sweep_after;
	bool sweeping;
	struct reply_peer peers[REPLY_PEERS_MAX];
	unsigned peer_count;
	struct cached_version *versions[VERSION_BUCKETS];
	size_t work_count, work_bytes, work_bytes_max;
	char *runtimes; /* JSON array that the last registration offered, or NULL */
	struct watch *watches[WATCH_BUCKETS], *watch_oldest, *watch_newest;
	size_t watch_count;
	uint64_t dropped; /* messages that did not decode */
};

/* A context for one asynchronous step about a job. */
struct step {
	struct scheduler *s;
	struct lease lease;
};
struct step *step_new(struct scheduler *s, const struct lease *lease);
/* The job if it is still there; frees the step. */
struct sched_job *step_job(struct step *step, struct scheduler **s);

/* scheduler.c */
struct work *work_new(struct scheduler *s);
void work_free(struct scheduler *s, struct work *w);
void scheduler_pump(struct scheduler *s);
/* The rules' clock: monotonic time without the pauses of this process. */
uint64_t scheduler_now(const struct scheduler *s);
/* The rules' time for a real one, 0 when that is over. */
uint64_t scheduler_not_before_ns(const struct scheduler *s, int64_t not_before_us);
/* Counts a message that is none, and says so now and then. */
void scheduler_dropped(struct scheduler *s, const char *socket, const char *why);
/* Between two times of clocks that may differ or step: nought at least, and what fits. */
uint32_t scheduler_span_us(int64_t from_us, int64_t to_us);
void scheduler_lost(void *arg, struct sched_job *job, const char *why);
/* Adds an event that is (or soon will be) in the store as queued. */
void scheduler_queue(struct scheduler *s, const struct event *ev, struct work *w);
int scheduler_send_node(struct scheduler *s, const struct id *session, const struct message *m,
			const void *payload, size_t len, struct err *e);
void scheduler_settled(struct scheduler *s, const struct id *session, const struct lease *lease);
void scheduler_queue_build(struct scheduler *s, const struct function_version *v);

/* Makes the rules' state, with s->term. */
int scheduler_rules(struct scheduler *s, struct err *e);

/* recover.c: calls scheduler_recovered when the queue is complete. */
int scheduler_recover(struct scheduler *s, struct err *e);
void scheduler_recovered(struct scheduler *s);
/* Reads the next page of what has not ended and adds what is not known. */
void scheduler_sweep(struct scheduler *s);

/* dispatch.c */
void dispatch_job(struct scheduler *s, struct sched_job *job);

/* collector.c */
void collector_result(void *arg, const struct mq_frame *frames, size_t n);
/* PRINTED: what a build has printed so far, for its owner. */
void collector_build_printed(struct scheduler *s, const struct sched_node *node,
			     const struct message *m);
/* Ends an event that has no (more) node: reason and text become its outcome. */
void collector_end(struct scheduler *s, struct sched_job *job, enum event_reason reason,
		   const char *error_type, const char *text);
/* The same for one that is not leased: w is its event, loaded. */
void collector_end_queued(struct scheduler *s, struct sched_entry *entry, struct work *w,
			  enum event_reason reason, const char *error_type, const char *text);
void collector_answer(struct scheduler *s, const char *reply_to, const struct event *ev,
		      const void *response, size_t len);

/* watch.c */
void watch_add(struct scheduler *s, const struct id *event, const char *reply_to);
/* Tells and forgets those who watch ev, which has ended. */
void watch_tell(struct scheduler *s, const struct event *ev);
void watches_free(struct scheduler *s);

/* versions.c */
const struct function_version *version_find(const struct scheduler *s, const struct id *function,
					    uint32_t version);
void version_keep(struct scheduler *s, const struct function_version *v);
void versions_free(struct scheduler *s);
/* Writes what a build came to: the version, then the function (by compare-and-set), then
 * done(arg, error). */
void version_built(struct scheduler *s, const struct function_version *v,
		   void (*done)(void *arg, const struct err *e), void *arg);
/* A version that was ready when it was made serves from now on. */
void version_serve(struct scheduler *s, const struct function_version *v);
/* Tells the rules what the function's document says. */
void version_apply(struct scheduler *s, const struct function *f);
/* The function's documents are gone: its versions are forgotten, so that what waits is
 * ended when its turn comes, also what waited for a first version. */
void version_function_gone(struct scheduler *s, const struct id *function);
/* One version's document is gone; id is its. */
void version_forget(struct scheduler *s, const char *id);
/* A version's document as it is in the store; -1: it does not read. */
int version_read(struct function_version *v, const char *json, struct err *e);

/* unused.c: a timer of its own; before_us: what is younger may be on its way to be needed; keep:
 * versions of each function, beside the one that serves. */
int scheduler_watch_unused(struct scheduler *s, struct err *e);
void scheduler_remove_unused(struct scheduler *s, int64_t before_us, unsigned keep);

#endif
