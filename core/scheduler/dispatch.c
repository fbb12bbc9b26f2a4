/*
 * From a picked job to a message on its way: what is not in memory is read first, one
 * thing at a time; the job is held meanwhile, so that it does not time out.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/log.h"
#include "core/scheduler/internal.h"

enum { RETRY_READ_MS = 500 };

/* The store is away: later. */
static void
put_back(struct scheduler *s, struct sched_job *job, const struct err *e)
{
	log_err("a job's record could not be read", e);
	sched_requeue(s->sched, job, scheduler_now(s) + RETRY_READ_MS * NS_PER_MS);
}

/* Its record says that there is nothing to do (any more). */
static void
drop(struct scheduler *s, struct sched_job *job)
{
	work_free(s, job->entry->attachment);
	job->entry->attachment = NULL;
	sched_finish(s->sched, job);
}

static void
on_event(void *arg, const struct store_answer *a, const struct err *e)
{
	struct scheduler *s;
	struct sched_job *job = step_job(arg, &s);
	struct work *w;

	if (!job)
		return;
	w = job->entry->attachment;
	if (e && e->cls == ERR_NOT_FOUND) { /* expired meanwhile */
		drop(s, job);
		return;
	}
	if (e || event_copy(&w->event, &a->events[0])) {
		struct err memory;

		err_set(&memory, ERR_NODE, "out of memory");
		put_back(s, job, e ? e : &memory);
		return;
	}
	w->event_loaded = true;
	w->payload_loaded = w->event.payload_bytes == 0;
	if (event_state_ended(w->event.state)) {
		drop(s, job);
		return;
	}
	dispatch_job(s, job);
}

static void
on_payload(void *arg, const struct store_answer *a, const struct err *e)
{
	struct scheduler *s;
	struct sched_job *job = step_job(arg, &s);
	struct err memory;
	struct work *w;

	if (!job)
		return;
	w = job->entry->attachment;
	err_set(&memory, ERR_NODE, "out of memory");
	if (!e && (w->payload = malloc(a->len ? a->len : 1))) {
		memcpy(w->payload, a->bytes, a->len);
		w->payload_len = a->len;
		w->payload_loaded = true;
		s->work_bytes += a->len;
		dispatch_job(s, job);
		return;
	}
	if (e && e->cls == ERR_NOT_FOUND) /* the record of a wait_for_response event was refused */
		collector_end(s, job, REASON_NODE_LOST, "PayloadLost",
			      "there was no room to keep the event until its turn came");
	else
		put_back(s, job, e ? e : &memory);
}

/* The version is gone: with its function, or because nobody needed it any more when this event
 * was on its way in; then the one that serves now runs it. */
static void
on_function(void *arg, const struct store_answer *a, const struct err *e)
{
	struct scheduler *s;
	struct sched_job *job = step_job(arg, &s);
	struct function f;
	struct err bad;
	bool another;

	if (!job)
		return;
	if (e && e->cls != ERR_NOT_FOUND) {
		put_back(s, job, e);
		return;
	}
	if (e || function_decode(a->docs[0].json, strlen(a->docs[0].json), &f, &bad)) {
		collector_end(s, job, REASON_CANCELLED, "FunctionDeleted", "the function was deleted");
		return;
	}
	another = f.serving && f.serving != job->version;
	version_apply(s, &f);
	function_clear(&f);
	if (another) {
		job->entry->version = 0;
		sched_requeue(s->sched, job, 0);
		scheduler_pump(s);
	} else {
		collector_end(s, job, REASON_FUNCTION_FAILED, "VersionLost",
			      "the record of the function's version is not there any more");
	}
}

static void
on_version(void *arg, const struct store_answer *a, const struct err *e)
{
	struct scheduler *s;
	struct sched_job *job = step_job(arg, &s);
	struct function_version v;
	char function[ID_TEXT_MAX];
	struct err bad;

	if (!job)
		return;
	if (e && e->cls == ERR_NOT_FOUND && job->entry->kind == JOB_BUILD) {
		drop(s, job); /* the function was deleted: nobody waits for a build of it */
		scheduler_pump(s);
		return;
	}
	if (e && e->cls == ERR_NOT_FOUND) {
		id_format(&((struct work *)job->entry->attachment)->event.function_id, function);
		store_doc_get(s->config.store, STORE_FUNCTION, function, on_function,
			      step_new(s, &job->lease));
		return;
	}
	if (e) {
		put_back(s, job, e);
		return;
	}
	if (version_read(&v, a->docs[0].json, &bad)) {
		log_err("a version's record does not read", &bad);
		collector_end(s, job, REASON_FUNCTION_FAILED, "BadVersion", bad.text);
		return;
	}
	version_keep(s, &v);
	if (job->entry->kind == JOB_EVENT && v.state == VERSION_BUILDING) {
		err_set(&bad, ERR_AGAIN, "version %u is still being built", v.version);
		put_back(s, job, &bad);
	} else {
		dispatch_job(s, job);
	}
	function_version_clear(&v);
}

/* Memory of a queued event that came from the store is given back when it is done. */
static struct work *
ensure_work(struct scheduler *s, struct sched_job *job)
{
	struct work *w = job->entry->attachment;

	if (!w)
		job->entry->attachment = w = work_new(s);
	return w;
}

static void
send_job(struct scheduler *s, struct sched_job *job, const struct function_version *v)
{
	struct work *w = job->entry->attachment;
	struct message m = { .type = MSG_JOB, .kind = (enum job_kind)job->entry->kind,
			     .lease = job->lease, .session = job->node->session,
			     .accept_by_ms = 2000, .event = w->event, .version = *v };
	struct err e;

	/* m borrows what w and the cache own: it is not cleared. */
	job->held = false;
	if (scheduler_send_node(s, &job->node->session, &m, w->payload, w->payload_len, &e)) {
		log_debug("a job could not be sent", "error", e.text, NULL);
		sched_requeue(s->sched, job, scheduler_now(s) + 50 * NS_PER_MS);
		return;
	}
	sched_sent(s->sched, job, scheduler_now(s));
}

void
dispatch_job(struct scheduler *s, struct sched_job *job)
{
	struct work *w = ensure_work(s, job);
	const struct function_version *v;
	char id[VERSION_ID_MAX];

	if (!w) {
		sched_requeue(s->sched, job, scheduler_now(s) + RETRY_READ_MS * NS_PER_MS);
		return;
	}
	job->held = true;
	if (!w->event_loaded) {
		store_event_get(s->config.store, &job->entry->id, NULL, on_event, step_new(s, &job->lease));
		return;
	}
	if (!w->payload_loaded) {
		store_event_payload(s->config.store, &job->entry->id, on_payload,
				    step_new(s, &job->lease));
		return;
	}
	v = version_find(s, &w->event.function_id,
			 job->entry->kind == JOB_BUILD ? w->event.function_version : job->version);
	if (!v || (job->entry->kind == JOB_EVENT && v->state == VERSION_BUILDING)) {
		function_version_id(&w->event.function_id,
				    job->entry->kind == JOB_BUILD ? w->event.function_version
								  : job->version,
				    id);
		store_doc_get(s->config.store, STORE_VERSION, id, on_version, step_new(s, &job->lease));
		return;
	}
	if (!job->node) { /* its node went away while we read */
		sched_requeue(s->sched, job, 0);
		return;
	}
	if (job->entry->kind == JOB_EVENT && v->state == VERSION_FAILED) {
		collector_end(s, job, REASON_BUILD_FAILED, "BuildFailed",
			      v->reason ? v->reason : "the version could not be built");
		return;
	}
	if (job->entry->kind == JOB_EVENT) {
		w->event.function_version = job->version;
		w->event.attempts = job->entry->attempts;
		w->event.failures = job->entry->failures;
		w->event.lease = job->lease;
		memcpy(w->event.node_id, job->node->node_id, sizeof w->event.node_id);
	}
	send_job(s, job, v);
}
