/*
 * The collector: what a node says of a job becomes the record, once.
 *
 * Only the holder of the lease counts.  A wait_for_response answer goes out before the
 * store has it; a node gets its `settled` only when the store has it, and sends its result
 * again until then.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/model/retry.h"
#include "core/scheduler/internal.h"

/* ---- answers to the API process that waits ---- */

static struct mq_socket *
reply_socket(struct scheduler *s, const char *to, struct err *e)
{
	struct reply_peer *peer;
	char endpoint[REPLY_MAX + 32];
	struct mq_options o = { .connect = endpoint, .high_water = 100000 };

	for (unsigned i = 0; i < s->peer_count; i++)
		if (!strcmp(s->peers[i].to, to))
			return s->peers[i].socket;
	if (s->peer_count == REPLY_PEERS_MAX) { /* the oldest is of an API that is long gone */
		mq_close(s->peers[0].socket);
		memmove(&s->peers[0], &s->peers[1], sizeof s->peers - sizeof s->peers[0]);
		s->peer_count--;
	}
	snprintf(endpoint, sizeof endpoint, "inproc://answers.%s", to);
	peer = &s->peers[s->peer_count];
	peer->socket = mq_open(s->config.mq, MQ_PUSH, &o, NULL, NULL, e);
	if (!peer->socket)
		return NULL;
	memcpy(peer->to, to, sizeof peer->to);
	s->peer_count++;
	return peer->socket;
}

void
collector_answer(struct scheduler *s, const char *reply_to, const struct event *ev,
		 const void *response, size_t len)
{
	struct message m = { .type = MSG_ANSWER, .event = *ev };
	struct mq_frame frames[2];
	struct mq_socket *socket;
	struct err e;
	char *envelope;

	if (!reply_to[0])
		return;
	socket = reply_socket(s, reply_to, &e);
	envelope = socket ? message_encode(&m) : NULL;
	frames[0].data = envelope;
	frames[0].len = envelope ? strlen(envelope) : 0;
	frames[1].data = response;
	frames[1].len = len;
	if (!envelope || mq_send(socket, frames, response ? 2 : 1, &e))
		log_debug("an answer could not be sent", "to", reply_to, NULL);
	free(envelope);
}

/* ---- an end in the store ---- */

struct ending {
	struct scheduler *s;
	struct lease lease; /* zero: the entry was not leased */
	struct id id;
	struct id session;  /* to be told; zero: nobody */
	struct event event; /* for its watchers */
};

static void
forget(struct scheduler *s, const struct id *id)
{
	struct sched_entry *entry = sched_entry(s->sched, id);
	struct work *w = entry ? entry->attachment : NULL;

	if (!entry)
		return;
	entry->attachment = NULL;
	work_free(s, w);
	if (entry->job)
		sched_finish(s->sched, entry->job);
	else
		sched_forget(s->sched, entry);
}

static void
on_settled(void *arg, const struct store_answer *a, const struct err *e)
{
	struct ending *end = arg;
	struct scheduler *s = end->s;
	struct sched_job *job = sched_find(s->sched, &end->lease);

	(void)a;
	if (e && e->cls != ERR_NOT_FOUND) {
		log_err("an outcome could not be stored", e);
		if (job)
			job->held = false; /* the node sends its result again */
	} else {
		if (!id_is_zero(&end->session))
			scheduler_settled(s, &end->session, &end->lease);
		watch_tell(s, &end->event);
		forget(s, &end->id);
		scheduler_pump(s);
	}
	event_clear(&end->event);
	free(end);
}

static struct store_bytes
copy_bytes(const void *data, size_t len)
{
	struct store_bytes b = { .fd = -1, .len = len };

	if (len && (b.owned = malloc(len))) {
		memcpy(b.owned, data, len);
		b.data = b.owned;
	} else {
		b.len = 0;
	}
	return b;
}

static void
settle(struct scheduler *s, const struct event *ev, const char *reply_to, const struct id *session,
       const struct lease *lease, const void *response, size_t len, const void *logs, size_t logs_len)
{
	struct ending *end = calloc(1, sizeof *end);

	if (!end || event_copy(&end->event, ev)) {
		free(end);
		return; /* the node, or the sweep, brings it again */
	}
	end->s = s;
	end->id = ev->id;
	if (session)
		end->session = *session;
	if (lease)
		end->lease = *lease;
	if (ev->type == TYPE_WAIT)
		collector_answer(s, reply_to, ev, response, len);
	store_event_settle(s->config.store, ev, copy_bytes(response, len), copy_bytes(logs, logs_len),
			   on_settled, end);
}

static void
set_error(struct event *ev, const char *type, const char *text)
{
	free(ev->error_message);
	free(ev->error_traceback);
	ev->error_traceback = NULL;
	snprintf(ev->error_type, sizeof ev->error_type, "%s", type);
	ev->error_message = strdup(text);
}

static void
end_without_node(struct scheduler *s, struct work *w, const struct lease *lease,
		 enum event_reason reason, const char *error_type, const char *text)
{
	struct retry_decision d = retry_decide(w->event.type, reason, UINT32_MAX, 0, 0);

	w->event.state = d.state == EVENT_QUEUED ? EVENT_DEAD : d.state;
	w->event.reason = reason;
	w->event.finished_us = clock_real_us();
	set_error(&w->event, error_type, text);
	settle(s, &w->event, w->reply_to, NULL, lease, NULL, 0, NULL, 0);
}

static void
on_event_for_end(void *arg, const struct store_answer *a, const struct err *e)
{
	struct scheduler *s;
	struct sched_job *job = step_job(arg, &s);
	struct work *w;

	if (!job)
		return;
	if (e ? e->cls == ERR_NOT_FOUND : event_state_ended(a->events[0].state)) {
		forget(s, &job->entry->id); /* nothing is left to be ended */
		return;
	}
	w = job->entry->attachment;
	if (e || !w || event_copy(&w->event, &a->events[0])) {
		job->held = false; /* lost again at the next tick */
		return;
	}
	w->event_loaded = true;
	end_without_node(s, w, &job->lease, REASON_NODE_LOST, "NodeLost", "the node was lost");
}

void
collector_end(struct scheduler *s, struct sched_job *job, enum event_reason reason,
	      const char *error_type, const char *text)
{
	struct work *w = job->entry->attachment;

	job->held = true;
	if (!w)
		job->entry->attachment = w = work_new(s);
	if (w && w->event_loaded) {
		end_without_node(s, w, &job->lease, reason, error_type, text);
		return;
	}
	store_event_get(s->config.store, &job->entry->id, NULL, on_event_for_end,
			step_new(s, &job->lease));
}

void
collector_end_queued(struct scheduler *s, struct sched_entry *entry, struct work *w,
		     enum event_reason reason, const char *error_type, const char *text)
{
	struct event ev;
	char reply_to[REPLY_MAX];

	if (event_copy(&ev, &w->event))
		return;
	memcpy(reply_to, w->reply_to, sizeof reply_to);
	entry->attachment = NULL;
	work_free(s, w);
	sched_forget(s->sched, entry);
	ev.state = retry_decide(ev.type, reason, UINT32_MAX, 0, 0).state;
	if (ev.state == EVENT_QUEUED)
		ev.state = EVENT_DEAD;
	ev.reason = reason;
	ev.finished_us = clock_real_us();
	set_error(&ev, error_type, text);
	settle(s, &ev, reply_to, NULL, NULL, NULL, 0, NULL, 0);
	event_clear(&ev);
}

/* ---- another attempt ---- */

static void
on_requeued(void *arg, const struct store_answer *a, const struct err *e)
{
	struct ending *end = arg;
	struct scheduler *s = end->s;
	struct sched_job *job = sched_find(s->sched, &end->lease);

	if (e) {
		log_err("a retry could not be stored", e);
		if (job)
			job->held = false;
	} else {
		if (!id_is_zero(&end->session))
			scheduler_settled(s, &end->session, &end->lease);
		if (job && a->changed) {
			job->entry->failures = (uint16_t)end->event.failures;
			sched_requeue(s->sched, job,
				      scheduler_not_before_ns(s, end->event.not_before_us));
		} else if (job) {
			forget(s, &end->id); /* it had ended */
		}
		scheduler_pump(s);
	}
	event_clear(&end->event);
	free(end);
}

static void
requeue(struct scheduler *s, const struct event *ev, const struct id *session,
	const struct lease *lease, const void *logs, size_t logs_len)
{
	struct ending *end = calloc(1, sizeof *end);

	if (!end || event_copy(&end->event, ev)) {
		free(end);
		return;
	}
	end->s = s;
	end->id = ev->id;
	end->session = *session;
	end->lease = *lease;
	store_event_requeue(s->config.store, ev, copy_bytes(logs, logs_len), on_requeued, end);
}

/* ---- a result of an event ---- */

static void
move_text(char **to, char **from)
{
	free(*to);
	*to = *from;
	*from = NULL;
}

/* What the node found out, over what was known. */
static void
take_outcome(struct event *ev, struct event *from)
{
	int64_t now = clock_real_us();

	ev->reason = from->reason;
	ev->start = from->start;
	ev->wall_us = from->wall_us;
	ev->cpu_us = from->cpu_us;
	ev->memory_peak_bytes = from->memory_peak_bytes;
	ev->logs_bytes = from->logs_bytes;
	ev->logs_truncated = from->logs_truncated;
	ev->has_response = from->has_response;
	ev->response_bytes = from->response_bytes;
	ev->response_status = from->response_status;
	memcpy(ev->response_content_type, from->response_content_type, sizeof ev->response_content_type);
	memcpy(ev->error_type, from->error_type, sizeof ev->error_type);
	move_text(&ev->response_fields, &from->response_fields);
	move_text(&ev->error_message, &from->error_message);
	move_text(&ev->error_traceback, &from->error_traceback);
	ev->timeline_us[PHASE_SANDBOX] = from->timeline_us[PHASE_SANDBOX];
	ev->timeline_us[PHASE_IMPORT] = from->timeline_us[PHASE_IMPORT];
	ev->timeline_us[PHASE_RUN] = from->timeline_us[PHASE_RUN];
	if (from->finished_us)
		ev->timeline_us[PHASE_COLLECT] = scheduler_span_us(from->finished_us, now);
	ev->finished_us = now;
	if (!ev->started_us)
		ev->started_us = from->started_us ? from->started_us : now;
}

static void
event_result(struct scheduler *s, struct sched_job *job, struct message *m,
	     const struct mq_frame *response, const struct mq_frame *logs)
{
	struct work *w = job->entry->attachment;
	const struct function_version *v = version_find(s, &w->event.function_id, job->version);
	struct retry_decision d;
	uint32_t random = 0;

	if (getrandom(&random, sizeof random, 0) != sizeof random)
		random = 0;
	take_outcome(&w->event, &m->event);
	w->event.attempts = job->entry->attempts;
	d = retry_decide(w->event.type, w->event.reason, job->entry->failures, v ? v->retries : 0, random);
	w->event.failures = job->entry->failures + d.counts;
	w->event.state = d.state;
	job->held = true;
	if (w->event.reason == REASON_NODE_LOST)
		d.delay_us = retry_lost_delay_us(w->event.attempts - w->event.failures);
	if (d.state == EVENT_QUEUED) {
		w->event.not_before_us = d.delay_us ? clock_real_us() + (int64_t)d.delay_us : 0;
		requeue(s, &w->event, &m->session, &job->lease, logs->data, logs->len);
	} else {
		settle(s, &w->event, w->reply_to, &m->session, &job->lease, response->data, response->len,
		       logs->data, logs->len);
	}
}

/* An event that was adopted after a restart is not in memory: it is read, and its version
 * for the retries that it has; the node sends its result again meanwhile. */
static void
on_version_for_result(void *arg, const struct store_answer *a, const struct err *e)
{
	struct scheduler *s;
	struct sched_job *job = step_job(arg, &s);
	struct function_version v;
	struct err bad;
	struct work *w;

	if (!job)
		return;
	job->held = false;
	w = job->entry->attachment;
	if (e && e->cls == ERR_NOT_FOUND) {
		w->event_loaded = true; /* the function was deleted: no retries */
	} else if (e || version_read(&v, a->docs[0].json, &bad)) {
		log_err("the version of a result could not be read", e ? e : &bad);
	} else {
		version_keep(s, &v);
		function_version_clear(&v);
		w->event_loaded = true;
	}
}

static void
on_event_for_result(void *arg, const struct store_answer *a, const struct err *e)
{
	struct scheduler *s;
	struct sched_job *job = step_job(arg, &s);
	struct work *w;
	char id[VERSION_ID_MAX];

	if (!job)
		return;
	if (e ? e->cls == ERR_NOT_FOUND : event_state_ended(a->events[0].state)) {
		forget(s, &job->entry->id); /* so that the result is settled when it comes again */
		return;
	}
	w = job->entry->attachment;
	event_clear(&w->event);
	if (e || event_copy(&w->event, &a->events[0])) {
		job->held = false;
		return;
	}
	w->payload_loaded = w->event.payload_bytes == 0;
	job->entry->failures = (uint16_t)(w->event.failures > UINT16_MAX ? UINT16_MAX : w->event.failures);
	if (w->event.function_version)
		job->version = w->event.function_version;
	if (version_find(s, &w->event.function_id, job->version)) {
		w->event_loaded = true;
		job->held = false;
		return;
	}
	function_version_id(&w->event.function_id, job->version, id);
	store_doc_get(s->config.store, STORE_VERSION, id, on_version_for_result, step_new(s, &job->lease));
}

static void
load_for_result(struct scheduler *s, struct sched_job *job)
{
	struct step *step = step_new(s, &job->lease);

	if (!job->entry->attachment)
		job->entry->attachment = work_new(s);
	if (!job->entry->attachment || !step) {
		free(step);
		return; /* it comes again */
	}
	job->held = true;
	store_event_get(s->config.store, &job->entry->id, NULL, on_event_for_result, step);
}

/* ---- a result of a build ---- */

static void
on_built(void *arg, const struct err *e)
{
	struct ending *end = arg;
	struct scheduler *s = end->s;
	struct sched_job *job = sched_find(s->sched, &end->lease);

	if (e) {
		log_err("a build's outcome could not be stored", e);
		if (job)
			job->held = false;
	} else {
		scheduler_settled(s, &end->session, &end->lease);
		if (job)
			forget(s, &job->entry->id);
		scheduler_pump(s);
	}
	free(end);
}

/* What a build printed, on its way into the store. */
struct build_log {
	struct scheduler *s;
	char id[VERSION_ID_MAX], parent[ID_TEXT_MAX], project[EVENT_PROJECT_MAX];
	char *json;
	bool create;
	unsigned tries;
};
enum { LOG_TRIES = 4 };

static void write_build_log(struct build_log *l);

static void
on_log_written(void *arg, const struct store_answer *a, const struct err *e)
{
	struct build_log *l = arg;

	(void)a;
	/* The first that it printed; or what was the first a moment ago has come in between. */
	if (e && (e->cls == ERR_NOT_FOUND || e->cls == ERR_CONFLICT) && ++l->tries < LOG_TRIES) {
		l->create = e->cls == ERR_NOT_FOUND;
		write_build_log(l);
		return;
	}
	if (e)
		log_err("a build's output could not be stored", e);
	free(l->json);
	free(l);
}

static void
write_build_log(struct build_log *l)
{
	const struct store_doc doc = { .kind = STORE_BUILD, .id = l->id, .parent = l->parent,
				       .project = l->project, .json = l->json };

	(l->create ? store_doc_create : store_doc_update)(l->s->config.store, &doc, on_log_written, l);
}

static void
store_build_log(struct scheduler *s, const struct function_version *v, const char *text)
{
	struct build_log *l = calloc(1, sizeof *l);
	struct json *j = json_object();

	json_put_str(j, "log", text ? text : "");
	if (!l || !(l->json = json_print(j))) {
		log_error("a build's output could not be stored: out of memory", NULL);
		free(l);
		json_free(j);
		return;
	}
	json_free(j);
	l->s = s;
	function_version_id(&v->function_id, v->version, l->id);
	id_format(&v->function_id, l->parent);
	memcpy(l->project, v->project_id, sizeof l->project);
	write_build_log(l);
}

void
collector_build_printed(struct scheduler *s, const struct sched_node *node, const struct message *m)
{
	const struct sched_job *job = sched_find(s->sched, &m->lease);
	const struct work *w = job ? job->entry->attachment : NULL;
	const struct function_version *v;

	/* Held: its outcome is being written, with all that it printed. */
	if (!w || job->node != node || job->held || job->entry->kind != JOB_BUILD)
		return;
	v = version_find(s, &w->event.function_id, w->event.function_version);
	if (v)
		store_build_log(s, v, m->build_log);
}

static void
build_result(struct scheduler *s, struct sched_job *job, struct message *m)
{
	struct work *w = job->entry->attachment;
	const struct function_version *known =
		version_find(s, &w->event.function_id, w->event.function_version);
	struct function_version v;
	struct ending *end;

	if (m->event.reason == REASON_NODE_LOST || m->version.state == VERSION_BUILDING) {
		scheduler_settled(s, &m->session, &job->lease);
		sched_requeue(s->sched, job, scheduler_now(s) + NS_PER_S);
		return;
	}
	if (!known) { /* the function was deleted: nobody waits for the outcome */
		scheduler_settled(s, &m->session, &job->lease);
		forget(s, &job->entry->id);
		scheduler_pump(s);
		return;
	}
	end = calloc(1, sizeof *end);
	if (!end || function_version_copy(&v, known)) {
		free(end);
		return; /* it comes again */
	}
	/* Only the outcome is the node's to say. */
	v.state = m->version.state;
	memcpy(v.layer_digest, m->version.layer_digest, sizeof v.layer_digest);
	memcpy(v.dependencies_digest, m->version.dependencies_digest, sizeof v.dependencies_digest);
	free(v.reason);
	v.reason = m->version.reason;
	m->version.reason = NULL;
	end->s = s;
	end->lease = job->lease;
	end->session = m->session;
	job->held = true;
	store_build_log(s, &v, m->build_log);
	version_built(s, &v, on_built, end);
	function_version_clear(&v);
}

/* ---- what comes in ---- */

void
collector_result(void *arg, const struct mq_frame *frames, size_t n)
{
	static const struct mq_frame nothing = { "", 0 };
	struct scheduler *s = arg;
	struct sched_job *job;
	struct sched_node *node;
	struct message m;
	struct err e;
	struct work *w;

	if (!s->ready)
		return; /* it comes again */
	if (message_decode(frames[0].data, frames[0].len, &m, &e)) {
		scheduler_dropped(s, "collect", e.text);
		return;
	}
	if (m.type != MSG_RESULT) {
		scheduler_dropped(s, "collect", "not a result");
		message_clear(&m);
		return;
	}
	node = sched_node_by_session(s->sched, &m.session);
	job = sched_find(s->sched, &m.lease);
	w = job ? job->entry->attachment : NULL;
	if (!node) {
		log_debug("a result of an unknown session was dropped", NULL);
	} else if (!job) {
		/* Settled before, or the lease was lost: it counts for nothing. */
		scheduler_settled(s, &m.session, &m.lease);
	} else if (job->held || (job->node && job->node != node)) {
		log_debug("a result came again", NULL);
	} else if (!w || !w->event_loaded) {
		load_for_result(s, job);
	} else if ((enum job_kind)job->entry->kind == JOB_BUILD && m.kind == JOB_BUILD) {
		build_result(s, job, &m);
	} else if ((enum job_kind)job->entry->kind == JOB_EVENT && m.kind == JOB_EVENT) {
		event_result(s, job, &m, n > 1 ? &frames[1] : &nothing, n > 2 ? &frames[2] : &nothing);
	}
	message_clear(&m);
}
