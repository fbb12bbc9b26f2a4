#include "core/scheduler/scheduler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/base/str.h"
#include "core/model/retry.h"
#include "core/scheduler/internal.h"
#include "netio/loop.h"

enum { HEARTBEAT_MS = 1000, LEASE_MS = 15000, ACCEPT_MS = 2000, SILENCE_MS = 3500, ADOPT_MS = 2500,
       PATIENCE_MS = 5000 };
enum { TICK_MS = 100, IDLE_TICK_MS = 1000, PAUSE_MS = 3000, SWEEP_MS = 2000 };

/* ---- small things that all files use ---- */

uint64_t
scheduler_now(const struct scheduler *s)
{
	return clock_mono_ns() - s->paused_ns;
}

uint32_t
scheduler_span_us(int64_t from_us, int64_t to_us)
{
	if (to_us <= from_us)
		return 0;
	return to_us - from_us > UINT32_MAX ? UINT32_MAX : (uint32_t)(to_us - from_us);
}

uint64_t
scheduler_not_before_ns(const struct scheduler *s, int64_t not_before_us)
{
	int64_t wait_us = not_before_us ? not_before_us - clock_real_us() : 0;

	if (wait_us <= 0)
		return 0;
	if (wait_us > RETRY_DELAY_MAX_US)
		wait_us = RETRY_DELAY_MAX_US;
	return scheduler_now(s) + (uint64_t)wait_us * NS_PER_US;
}

/* Says so at each power of two: who sends garbage must not fill the disk with our log. */
void
scheduler_dropped(struct scheduler *s, const char *socket, const char *why)
{
	char count[24];

	s->dropped++;
	if (s->dropped & (s->dropped - 1))
		return;
	snprintf(count, sizeof count, "%llu", (unsigned long long)s->dropped);
	log_warning("a message was dropped", "socket", socket, "error", why, "dropped", count, NULL);
}

struct step *
step_new(struct scheduler *s, const struct lease *lease)
{
	struct step *step = malloc(sizeof *step);

	if (step) {
		step->s = s;
		step->lease = *lease;
	}
	return step;
}

struct sched_job *
step_job(struct step *step, struct scheduler **s)
{
	struct sched_job *job = sched_find(step->s->sched, &step->lease);

	*s = step->s;
	free(step);
	return job;
}

struct work *
work_new(struct scheduler *s)
{
	struct work *w = calloc(1, sizeof *w);

	if (w)
		s->work_count++;
	return w;
}

void
work_free(struct scheduler *s, struct work *w)
{
	if (!w)
		return;
	s->work_count--;
	if (w->payload)
		s->work_bytes -= w->payload_len;
	free(w->payload);
	event_clear(&w->event);
	free(w);
}

static void
drop_attachment(void *attachment)
{
	struct work *w = attachment;

	free(w->payload);
	event_clear(&w->event);
	free(w);
}

/* ---- towards nodes ---- */

int
scheduler_send_node(struct scheduler *s, const struct id *session, const struct message *m,
		    const void *payload, size_t len, struct err *e)
{
	char *envelope = message_encode(m);
	struct mq_frame frames[3] = {
		{ session->b, sizeof session->b },
		{ envelope, envelope ? strlen(envelope) : 0 },
		{ payload, len },
	};
	int rc;

	if (!envelope)
		return err_set(e, ERR_NODE, "out of memory");
	rc = mq_send(s->dispatch, frames, payload ? 3 : 2, e);
	free(envelope);
	return rc;
}

/* Lost acknowledgements cost nothing: the node sends its result again. */
void
scheduler_settled(struct scheduler *s, const struct id *session, const struct lease *lease)
{
	struct message m = { .type = MSG_SETTLED, .lease = *lease, .session = *session };
	struct err e;

	if (scheduler_send_node(s, session, &m, NULL, 0, &e))
		log_debug("no acknowledgement could be sent", "error", e.text, NULL);
}

/* ---- losses ---- */

void
scheduler_lost(void *arg, struct sched_job *job, const char *why)
{
	struct scheduler *s = arg;
	uint64_t delay_us = retry_lost_delay_us(job->entry->attempts - job->entry->failures);
	char id[ID_TEXT_MAX];

	id_format(&job->entry->id, id);
	log_warning("job lost", "id", id, "node", job->node ? job->node->node_id : NULL, "why", why, NULL);
	if (job->entry->kind == JOB_EVENT && job->entry->type == TYPE_WAIT) {
		/* Never sent twice: whether it ran is not known. */
		collector_end(s, job, REASON_NODE_LOST, "NodeLost", why);
		return;
	}
	sched_requeue(s->sched, job, delay_us ? scheduler_now(s) + delay_us * NS_PER_US : 0);
}

/* ---- what comes in ---- */

void
scheduler_queue(struct scheduler *s, const struct event *ev, struct work *w)
{
	const struct function_version *v = version_find(s, &ev->function_id, ev->function_version);
	struct sched_add add = {
		.id = ev->id,
		.function = ev->function_id,
		.kind = JOB_EVENT,
		.type = ev->type,
		.version = ev->function_version,
		.memory_mib = v ? v->memory_mib : 0,
		.attempts = ev->attempts,
		.failures = ev->failures,
		.not_before_ns = scheduler_not_before_ns(s, ev->not_before_us),
		.attachment = w,
	};

	if (sched_add(s->sched, &add) != 1)
		work_free(s, w); /* known already, or found again by the sweep */
}

/* Keeps in memory what there is room for; the rest is read again when its turn comes.  (The
 * API gave the store a wait_for_response event with its payload right after the hint.) */
static struct work *
keep_work(struct scheduler *s, struct message *m, const struct mq_frame *payload)
{
	bool must = m->event.type == TYPE_WAIT;
	struct work *w;

	if (!must && s->work_count >= WORK_COUNT_MAX)
		return NULL;
	w = work_new(s);
	if (!w)
		return NULL;
	w->event = m->event;
	memset(&m->event, 0, sizeof m->event);
	w->event_loaded = true;
	memcpy(w->reply_to, m->reply_to, sizeof w->reply_to);
	if (w->event.payload_bytes == 0) {
		w->payload_loaded = true;
	} else if (payload && payload->len == w->event.payload_bytes &&
		   s->work_bytes + payload->len <= s->work_bytes_max * (must ? 2 : 1)) {
		w->payload = malloc(payload->len);
		if (w->payload) {
			memcpy(w->payload, payload->data, payload->len);
			w->payload_len = payload->len;
			w->payload_loaded = true;
			s->work_bytes += payload->len;
		}
	}
	return w;
}

static void
cancel_event(struct scheduler *s, const struct event *ev)
{
	struct sched_entry *entry = sched_entry(s->sched, &ev->id);
	struct work *w = entry ? entry->attachment : NULL;

	if (!entry)
		return;
	if (entry->job && entry->job->node && entry->job->sent) {
		struct message m = { .type = MSG_CANCEL, .lease = entry->job->lease,
				     .session = entry->job->node->session };
		struct err e;

		if (scheduler_send_node(s, &m.session, &m, NULL, 0, &e))
			log_debug("no cancellation could be sent", "error", e.text, NULL);
		return;
	}
	if (!entry->job && w && w->event_loaded)
		collector_end_queued(s, entry, w, REASON_TIMEOUT, "Timeout",
				     "no sandbox was free for it within the function's timeout");
}

static void
on_event(void *arg, const struct mq_frame *frames, size_t n)
{
	struct scheduler *s = arg;
	struct message m;
	struct err e;

	if (!s->sched)
		return; /* the term is not taken yet: what was accepted is read from the store */
	if (message_decode(frames[0].data, frames[0].len, &m, &e)) {
		scheduler_dropped(s, "events", e.text);
		return;
	}
	if (m.type == MSG_EVENT) {
		struct event hint = m.event; /* numbers and ids stay good when keep_work takes the rest */
		struct work *w = keep_work(s, &m, n > 1 && m.has_payload ? &frames[1] : NULL);

		scheduler_queue(s, w ? &w->event : &hint, w);
	} else if (m.type == MSG_BUILD && m.version.state == VERSION_READY) {
		version_serve(s, &m.version); /* a rollback: the layer is there */
	} else if (m.type == MSG_BUILD) {
		scheduler_queue_build(s, &m.version);
	} else if (m.type == MSG_CANCEL) {
		cancel_event(s, &m.event);
	} else if (m.type == MSG_WATCH) {
		watch_add(s, &m.event.id, m.reply_to);
		/* It may have ended while the watch was on its way: the API looks once more. */
		if (!s->ready || !sched_entry(s->sched, &m.event.id))
			collector_answer(s, m.reply_to, &m.event, NULL, 0);
	}
	message_clear(&m);
	scheduler_pump(s);
}

void
scheduler_queue_build(struct scheduler *s, const struct function_version *v)
{
	struct sched_add add = {
		.id = function_build_id(&v->function_id, v->version),
		/* All builds are one function to the rules: in line, two at a time. */
		.function = { { 0 } },
		.kind = JOB_BUILD,
		.version = v->version,
		.memory_mib = s->config.build_memory_mib,
	};

	version_keep(s, v);
	if (!sched_function_known(s->sched, &v->function_id))
		sched_function(s->sched, &v->function_id, 0, 0, 0);
	if (sched_entry(s->sched, &add.id))
		return;
	struct work *w = work_new(s);
	if (!w)
		return;
	/* Which version the entry builds: events use the same members. */
	w->event.function_id = v->function_id;
	w->event.function_version = v->version;
	w->event_loaded = w->payload_loaded = true;
	add.attachment = w;
	if (sched_add(s->sched, &add) != 1)
		work_free(s, w);
}

/* ---- from nodes, on the ROUTER: frame 0 is the session ---- */

static void
unknown_session(struct scheduler *s, const struct id *session)
{
	struct message m = { .type = MSG_CANCEL, .session = *session };
	struct err e;

	if (scheduler_send_node(s, session, &m, NULL, 0, &e))
		log_debug("an unknown session could not be told", "error", e.text, NULL);
}

/* Leases that the node holds and that are over here: it is to end them. */
static void
cancel_void_leases(struct scheduler *s, const struct id *session, const struct message *m)
{
	for (size_t i = 0; s->ready && i < m->lease_count; i++) {
		struct message cancel = { .type = MSG_CANCEL, .lease = m->leases[i], .session = *session };
		struct err e;

		if (!sched_find(s->sched, &m->leases[i]) &&
		    scheduler_send_node(s, session, &cancel, NULL, 0, &e))
			log_debug("no cancellation could be sent", "error", e.text, NULL);
	}
}

static void
on_heartbeat(struct scheduler *s, struct sched_node *node, const struct message *m)
{
	static const struct lease none;

	node->last_seen_us = clock_real_us();
	sched_heartbeat(s->sched, node, m, scheduler_now(s), scheduler_lost, s);
	cancel_void_leases(s, &node->session, m);
	scheduler_settled(s, &node->session, &none); /* the pong */
}

static void
on_started(struct scheduler *s, struct sched_node *node, const struct message *m)
{
	struct sched_job *job = sched_find(s->sched, &m->lease);
	struct work *w = job ? job->entry->attachment : NULL;

	if (!job || job->node != node || job->started)
		return;
	sched_started(s->sched, job, scheduler_now(s));
	if (job->entry->kind != JOB_EVENT || !w || !w->event_loaded)
		return;
	w->event.state = EVENT_RUNNING;
	w->event.started_us = clock_real_us();
	w->event.timeline_us[PHASE_QUEUE] = scheduler_span_us(w->event.queued_us, w->event.started_us);
	store_event_running(s->config.store, &w->event, NULL, NULL);
}

static void
on_dispatch(void *arg, const struct mq_frame *frames, size_t n)
{
	struct scheduler *s = arg;
	struct sched_node *node;
	struct message m;
	struct id session;
	struct err e;

	if (!s->sched)
		return; /* a node of before our start: the next heartbeat comes in a second */
	if (n != 2 || frames[0].len != sizeof session.b) {
		scheduler_dropped(s, "dispatch", "not two frames");
		return;
	}
	memcpy(session.b, frames[0].data, sizeof session.b);
	if (message_decode(frames[1].data, frames[1].len, &m, &e)) {
		scheduler_dropped(s, "dispatch", e.text);
		return;
	}
	node = sched_node_by_session(s->sched, &session);
	if (!node)
		unknown_session(s, &session);
	else if (m.type == MSG_HEARTBEAT)
		on_heartbeat(s, node, &m);
	else if (m.type == MSG_STARTED)
		on_started(s, node, &m);
	else if (m.type == MSG_PRINTED)
		collector_build_printed(s, node, &m);
	message_clear(&m);
	scheduler_pump(s);
}

/* ---- time ---- */

void
scheduler_pump(struct scheduler *s)
{
	struct sched_job *job;

	if (!s->ready || s->pumping)
		return;
	s->pumping = true;
	while ((job = sched_pick(s->sched, scheduler_now(s))))
		dispatch_job(s, job);
	s->pumping = false;
}

/*
 * A tick that comes much too late tells that this process stood still (a suspended machine,
 * a frozen cgroup, a disk that hung).  Nodes spoke meanwhile, and what they said is still to
 * be read: time that we slept through counts against nobody's lease.
 */
static void
note_pause(struct scheduler *s)
{
	uint64_t now = clock_mono_ns(), late = now - s->ticked_ns;
	char ms[24];

	if (s->ticked_ns && late > PAUSE_MS * NS_PER_MS) {
		s->paused_ns += late - IDLE_TICK_MS * NS_PER_MS;
		snprintf(ms, sizeof ms, "%llu", (unsigned long long)(late / NS_PER_MS));
		log_warning("this process stood still", "ms", ms, NULL);
	}
	s->ticked_ns = now;
}

static void
on_tick(void *arg)
{
	struct scheduler *s = arg;
	bool idle;

	note_pause(s);
	sched_tick(s->sched, scheduler_now(s), scheduler_lost, s);
	scheduler_pump(s);
	idle = !sched_queued_total(s->sched) && !sched_running_total(s->sched);
	loop_timer_after(s->tick, (idle ? IDLE_TICK_MS : TICK_MS) * NS_PER_MS);
}

static void
on_sweep(void *arg)
{
	struct scheduler *s = arg;

	scheduler_sweep(s);
	loop_timer_after(s->sweep, SWEEP_MS * NS_PER_MS);
}

/* ---- life ---- */

void
scheduler_recovered(struct scheduler *s)
{
	char queued[24], running[24], term[24];

	s->ready = true;
	sched_listen(s->sched, scheduler_now(s));
	snprintf(queued, sizeof queued, "%zu", sched_queued_total(s->sched));
	snprintf(running, sizeof running, "%zu", sched_running_total(s->sched));
	snprintf(term, sizeof term, "%llu", (unsigned long long)s->term);
	log_info("scheduling", "term", term, "queued", queued, "running", running, NULL);
	loop_timer_after(s->tick, TICK_MS * NS_PER_MS);
	loop_timer_after(s->sweep, SWEEP_MS * NS_PER_MS);
	scheduler_pump(s);
}

static int
open_sockets(struct scheduler *s, struct err *e)
{
	const struct scheduler_config *c = &s->config;
	struct mq_options events = { .bind = c->events, .high_water = 100000 };
	struct mq_options dispatch = { .bind = c->dispatch, .high_water = 10000, .socket_mode = 0660 };
	struct mq_options collect = { .bind = c->collect, .high_water = 10000, .socket_mode = 0660 };

	s->events = mq_open(c->mq, MQ_PULL, &events, on_event, s, e);
	s->dispatch = s->events ? mq_open(c->mq, MQ_ROUTER, &dispatch, on_dispatch, s, e) : NULL;
	s->collect = s->dispatch ? mq_open(c->mq, MQ_PULL, &collect, collector_result, s, e) : NULL;
	return s->collect ? 0 : -1;
}

struct scheduler *
scheduler_new(const struct scheduler_config *c, struct err *e)
{
	struct scheduler *s = calloc(1, sizeof *s);

	if (!s) {
		err_set(e, ERR_NODE, "out of memory");
		return NULL;
	}
	s->config = *c;
	s->work_bytes_max = WORK_BYTES_MAX;
	s->tick = loop_timer_add(c->loop, on_tick, s, e);
	s->sweep = s->tick ? loop_timer_add(c->loop, on_sweep, s, e) : NULL;
	if (!s->sweep || scheduler_watch_unused(s, e) || open_sockets(s, e) || scheduler_recover(s, e)) {
		scheduler_free(s);
		return NULL;
	}
	return s;
}

int
scheduler_rules(struct scheduler *s, struct err *e)
{
	struct sched_config rules = {
		.term = s->term,
		.accept_ns = ACCEPT_MS * NS_PER_MS,
		.lease_ns = LEASE_MS * NS_PER_MS,
		.silence_ns = SILENCE_MS * NS_PER_MS,
		.adopt_ns = ADOPT_MS * NS_PER_MS,
		.patience_ns = PATIENCE_MS * NS_PER_MS,
	};
	static const struct id builds;

	s->sched = sched_new(&rules, scheduler_now(s));
	if (!s->sched)
		return err_set(e, ERR_NODE, "out of memory");
	sched_function(s->sched, &builds, 1, s->config.build_memory_mib, 2);
	return 0;
}

void
scheduler_free(struct scheduler *s)
{
	if (!s)
		return;
	loop_timer_remove(s->tick);
	loop_timer_remove(s->sweep);
	loop_timer_remove(s->unused);
	mq_close(s->events);
	mq_close(s->dispatch);
	mq_close(s->collect);
	for (unsigned i = 0; i < s->peer_count; i++)
		mq_close(s->peers[i].socket);
	if (s->sched)
		sched_free(s->sched, drop_attachment);
	versions_free(s);
	watches_free(s);
	free(s->runtimes);
	free(s);
}

bool
scheduler_ready(const struct scheduler *s)
{
	return s->ready;
}

uint64_t
scheduler_term(const struct scheduler *s)
{
	return s->term;
}

size_t
scheduler_queued(const struct scheduler *s, const struct id *function)
{
	return s->sched ? sched_queued(s->sched, function) : 0;
}
