/*
 * The scheduler and collector whole, on a real store and real queues, with a node and an
 * API that this test plays: what waits, runs, fails, restarts and is deleted comes to its
 * end, once.  (A scheduler sends nothing for 2.5 s after its start: tests share starts.)
 */
#include "core/scheduler/internal.h"

#include "core/base/json.h"
#include "core/model/function_record.h"
#include "core/model/message.h"
#include "netio/mq.h"
#include "tests/unit/store_fixture.h"

enum { HELD_MAX = 64, ANSWERS_MAX = 32, SLOTS = 8 };

struct held {
	struct lease lease;
	struct id event;
	struct function_version version;
	enum job_kind kind;
	uint32_t attempts;
	bool done; /* its result goes out with each beat until it is settled */
	enum event_reason reason;
};

static struct world {
	struct fixture f;
	struct mq *mq;
	struct scheduler *s;
	struct mq_socket *events, *answers, *dispatch, *collect;
	struct loop_timer *beat, *look;
	struct id session, incarnation;
	bool registered, keep; /* keep: jobs run until the test says so */
	enum event_reason reason; /* of events that are not kept */
	enum version_state built; /* of builds */
	uint64_t received;
	struct held held[HELD_MAX];
	size_t held_count;
	unsigned jobs, settled;
	char payload[64]; /* of the last job */
	struct {
		struct event event;
		char body[64];
	} answer[ANSWERS_MAX];
	unsigned answer_count;
	bool (*until)(const struct id *id);
	const struct id *until_id;
} w;

static const struct id function = { { 1, 0x93, 0, 0, 0, 1, 0x70, 0, 0x80, 1 } };

/* ---- the node ---- */

static void
send_to(struct mq_socket *to, const struct message *m, const char *second)
{
	char *text = message_encode(m);
	struct mq_frame frames[] = { { text, strlen(text) }, { second, second ? strlen(second) : 0 } };
	struct err e;

	if (to)
		mq_send(to, frames, second ? 2 : 1, &e); /* not connected yet: with the next beat */
	free(text);
}

static void
send_result(const struct held *h)
{
	struct message m = { .type = MSG_RESULT, .kind = h->kind, .lease = h->lease, .session = w.session,
			     .version = h->version };

	m.event.id = h->event;
	m.event.reason = h->reason;
	m.event.has_response = h->reason == REASON_NONE;
	if (h->reason != REASON_NONE)
		snprintf(m.event.error_type, sizeof m.event.error_type, "Broken");
	m.version.state = h->kind == JOB_BUILD ? w.built : h->version.state;
	send_to(w.collect, &m, h->kind == JOB_EVENT ? "\"done\"" : NULL);
}

static void
forget(const struct lease *l)
{
	for (size_t i = 0; i < w.held_count; i++)
		if (w.held[i].lease.term == l->term && w.held[i].lease.seq == l->seq) {
			function_version_clear(&w.held[i].version);
			w.held[i] = w.held[--w.held_count];
			return;
		}
}

static void
on_job(struct message *m, const char *payload, size_t len)
{
	struct message started = { .type = MSG_STARTED, .lease = m->lease, .session = w.session };
	struct held *h = &w.held[w.held_count++];

	assert_true(w.held_count < HELD_MAX);
	snprintf(w.payload, sizeof w.payload, "%.*s", (int)len, payload ? payload : "");
	assert_true(id_equal(&m->session, &w.session));
	memset(h, 0, sizeof *h);
	h->lease = m->lease;
	h->event = m->event.id;
	h->kind = m->kind;
	h->attempts = m->event.attempts;
	function_version_copy(&h->version, &m->version);
	w.received++;
	w.jobs++;
	send_to(w.dispatch, &started, NULL);
	if (w.keep)
		return;
	h->done = true;
	h->reason = h->kind == JOB_BUILD ? REASON_NONE : w.reason;
	send_result(h);
}

static void
on_dispatch(void *arg, const struct mq_frame *frames, size_t n)
{
	struct message m;
	struct err e;

	(void)arg;
	assert_int_equal(message_decode(frames[0].data, frames[0].len, &m, &e), 0);
	if (m.type == MSG_JOB)
		on_job(&m, n > 1 ? frames[1].data : NULL, n > 1 ? frames[1].len : 0);
	else if (m.type == MSG_CANCEL && !m.lease.term)
		w.registered = false;
	else if (m.type == MSG_SETTLED && m.lease.term)
		w.settled++;
	if (m.type != MSG_JOB && m.lease.term)
		forget(&m.lease);
	message_clear(&m);
}

/* Registers until it is taken; then heartbeats, and results that are not settled. */
static void
on_beat(void *arg)
{
	struct message m = { .type = MSG_HEARTBEAT, .session = w.session, .incarnation = w.incarnation,
			     .received = w.received, .granted = w.received + SLOTS - w.held_count };
	struct mq_options o = { .connect = "inproc://dispatch", .routing_id = w.session.b,
				.routing_id_len = sizeof w.session.b };
	struct lease leases[HELD_MAX];
	char text[200], id[ID_TEXT_MAX];
	struct json *ask, *answer;
	struct err e;

	(void)arg;
	loop_timer_after(w.beat, 50 * NS_PER_MS);
	if (!w.registered) {
		id_format(&w.incarnation, id);
		snprintf(text, sizeof text, "{\"v\":1,\"name\":\"n\",\"incarnation\":\"%s\",\"slots\":%d,"
			 "\"memory_mib\":4096,\"runtimes\":[]}", id, SLOTS);
		ask = json_parse(text, strlen(text), &e);
		answer = scheduler_register(w.s, ask, &e);
		json_free(ask);
		if (!answer)
			return;
		assert_int_equal(id_parse(json_str(answer, "session"), &w.session), 0);
		json_free(answer);
		mq_close(w.dispatch);
		w.dispatch = mq_open(w.mq, MQ_DEALER, &o, on_dispatch, NULL, &e);
		assert_non_null(w.dispatch);
		w.registered = true;
		w.received = 0;
		return;
	}
	for (size_t i = 0; i < w.held_count; i++) {
		leases[i] = w.held[i].lease;
		if (w.held[i].done)
			send_result(&w.held[i]);
	}
	m.leases = leases;
	m.lease_count = w.held_count;
	send_to(w.dispatch, &m, NULL);
}

/* ---- the API ---- */

static void
on_answer(void *arg, const struct mq_frame *frames, size_t n)
{
	struct message m;
	struct err e;

	(void)arg;
	assert_int_equal(message_decode(frames[0].data, frames[0].len, &m, &e), 0);
	assert_true(w.answer_count < ANSWERS_MAX);
	if (n > 1)
		snprintf(w.answer[w.answer_count].body, 64, "%.*s", (int)frames[1].len, (const char *)frames[1].data);
	w.answer[w.answer_count++].event = m.event;
	memset(&m.event, 0, sizeof m.event);
	message_clear(&m);
}

/* stored: also in the store.  hint: the scheduler is told, with the payload. */
static struct id
send_event(enum event_type type, uint32_t version, const char *payload, bool stored, bool hint)
{
	struct message m = { .type = MSG_EVENT, .reply_to = "api", .has_payload = *payload != '\0' };
	struct event *ev = &m.event;

	ev->id = ev->root = id_new();
	ev->function_id = function;
	ev->function_version = version;
	ev->type = type;
	ev->payload_kind = *payload ? PAYLOAD_TEXT : PAYLOAD_NONE;
	ev->payload_bytes = strlen(payload);
	ev->created_us = ev->queued_us = clock_real_us();
	snprintf(ev->project_id, sizeof ev->project_id, "p");
	snprintf(ev->function_name, sizeof ev->function_name, "f");
	if (stored)
		assert_int_equal(DO(&w.f, store_event_create, ev, bytes_of(payload), NULL, NULL),
				 ERR_NONE);
	if (hint)
		send_to(w.events, &m, *payload ? payload : NULL);
	return ev->id;
}

static struct id
make_event(enum event_type type, uint32_t version, bool hint)
{
	return send_event(type, version, "", true, hint);
}

/* A package in the store. */
static void
put_package(uint32_t number, char digest[SHA256_HEX_MAX])
{
	char text[32];
	int fd;

	snprintf(text, sizeof text, "package %u", number);
	fd = file_of(&w.f, text, strlen(text));
	sha256_hex(text, strlen(text), digest);
	assert_int_equal(DO(&w.f, store_blob_put, digest, fd), ERR_NONE);
	close(fd);
}

/* As the API makes it: its package and its version first. */
static struct function_version
make_version(uint32_t number, uint32_t retries)
{
	struct function f = { .id = function, .project_id = "p", .user_id = "u", .latest = number,
			      .serving = number - 1, .state = VERSION_BUILDING, .created_us = 1,
			      .updated_us = 1 };
	char metadata[100], id[VERSION_ID_MAX], text_id[ID_TEXT_MAX], *text;
	struct store_doc doc = { .kind = STORE_VERSION, .id = id, .project = "p", .parent = text_id };
	struct function_version v;
	struct json *j;
	struct err e;

	snprintf(metadata, sizeof metadata, "{\"name\":\"f\",\"retries\":%u}", retries);
	j = json_parse(metadata, strlen(metadata), &e);
	f.settings = function_settings_new(j, &e);
	json_free(j);
	function_settle(&f);
	put_package(number, f.package_digest);
	assert_int_equal(function_version_from_settings(f.settings, &f.id, "p", number, f.package_digest,
							&v, &e), 0);
	function_version_id(&f.id, number, id);
	id_format(&f.id, text_id);
	doc.json = text = json_print(j = function_version_encode(&v));
	json_free(j);
	assert_int_equal(DO(&w.f, store_doc_create, &doc), ERR_NONE);
	free(text);
	doc = (struct store_doc){ .kind = STORE_FUNCTION, .id = text_id, .project = "p", .name = "f" };
	doc.json = text = json_print(j = function_encode(&f));
	json_free(j);
	DO(&w.f, store_doc_delete, STORE_FUNCTION, text_id);
	assert_int_equal(DO(&w.f, store_doc_create, &doc), ERR_NONE);
	free(text);
	function_clear(&f);
	return v;
}

static void
make_function(uint32_t retries)
{
	struct function_version v = make_version(1, retries);

	function_version_clear(&v);
}

/* ---- life ---- */

static void
begin(void)
{
	struct mq_options events = { .connect = "inproc://events" }, answers = { .bind = "inproc://answers.api" };
	struct mq_options collect = { .connect = "inproc://collect" };
	struct scheduler_config c = { .loop = w.f.loop, .store = w.f.store, .events = "inproc://events",
				      .dispatch = "inproc://dispatch", .collect = "inproc://collect",
				      .build_memory_mib = 256 };
	struct err e;

	c.mq = w.mq = mq_new(w.f.loop, -1, &e);
	w.s = scheduler_new(&c, &e);
	assert_non_null(w.s);
	w.events = mq_open(w.mq, MQ_PUSH, &events, NULL, NULL, &e);
	w.collect = mq_open(w.mq, MQ_PUSH, &collect, NULL, NULL, &e);
	w.answers = mq_open(w.mq, MQ_PULL, &answers, on_answer, NULL, &e);
	w.beat = loop_timer_add(w.f.loop, on_beat, NULL, &e);
	assert_true(w.events && w.collect && w.answers && w.beat);
	loop_timer_after(w.beat, 0);
	w.registered = false;
}

static void
end(void)
{
	loop_timer_remove(w.beat);
	store_close(w.f.store); /* as the control plane does: callbacks still come */
	scheduler_free(w.s);
	mq_close(w.events);
	mq_close(w.answers);
	mq_close(w.dispatch);
	mq_close(w.collect);
	w.dispatch = NULL;
	mq_free(w.mq);
	loop_free(w.f.loop);
}

static void
on_look(void *arg)
{
	(void)arg;
	if (w.until(w.until_id))
		loop_stop(w.f.loop);
	else
		loop_timer_after(w.look, 10 * NS_PER_MS);
}

static void
wait_for(bool (*until)(const struct id *id), const struct id *id)
{
	struct err e;

	w.until = until;
	w.until_id = id;
	w.look = loop_timer_add(w.f.loop, on_look, NULL, &e);
	loop_timer_after(w.look, 0);
	loop_timer_after(w.f.deadline, 30 * NS_PER_S);
	assert_int_equal(loop_run(w.f.loop, &e), 0);
	loop_timer_clear(w.f.deadline);
	loop_timer_remove(w.look);
}

static bool
is_ready(const struct id *id)
{
	(void)id;
	return scheduler_ready(w.s) && scheduler_nodes_alive(w.s);
}

static bool
holds_event(const struct id *id)
{
	for (size_t i = 0; i < w.held_count; i++)
		if (id_equal(&w.held[i].event, id))
			return true;
	return false;
}

static bool
holds_nothing(const struct id *id)
{
	(void)id;
	return w.held_count == 0;
}

static bool
has_answer(const struct id *id)
{
	for (unsigned i = 0; i < w.answer_count; i++)
		if (id_equal(&w.answer[i].event.id, id))
			return true;
	return false;
}

/* Read again and again until it has ended; the result is cleared by the caller. */
static struct result *
ended(const struct id *id)
{
	uint64_t until = clock_mono_ns() + 30 * NS_PER_S;

	for (;;) {
		struct result *r = CALL(&w.f, store_event_get, id, NULL);

		assert_int_equal(r->err.cls, ERR_NONE);
		if (event_state_ended(r->event.state))
			return r;
		assert_true(clock_mono_ns() < until);
		result_clear(r);
	}
}

static void
ends_as(const struct id *id, enum event_state state, enum event_reason reason, uint32_t attempts)
{
	RESULT r = ended(id);

	assert_int_equal(r->event.state, state);
	assert_int_equal(r->event.reason, reason);
	assert_int_equal(r->event.attempts, attempts);
}

static int
set_up(void **state)
{
	(void)state;
	memset(&w, 0, sizeof w);
	w.f.spec = "sqlite:";
	w.incarnation = id_new();
	w.built = VERSION_READY;
	fixture_dir(&w.f);
	fixture_start(&w.f);
	assert_int_equal(crypto_init(NULL), 0);
	return 0;
}

static int
tear_down(void **state)
{
	(void)state;
	end();
	while (w.held_count)
		forget(&w.held[0].lease);
	for (unsigned i = 0; i < w.answer_count; i++)
		event_clear(&w.answer[i].event);
	fixture_remove(&w.f);
	return 0;
}

static void
restart(void)
{
	end();
	fixture_start(&w.f);
	begin();
}

/* ---- tests ---- */

/* From before the first moment: what comes while the queue is read is not lost, and a
 * version is built before its events run. */
static void
test_events_wait_for_their_build_then_run(void **state)
{
	struct id early, late, waits;
	struct message beat = { .type = MSG_HEARTBEAT, .session = id_new(), .incarnation = id_new() };
	struct mq_options o = { .connect = "inproc://dispatch", .routing_id = "0123456789abcdef",
				.routing_id_len = 16 };
	struct err e;

	(void)state;
	make_function(2);
	early = make_event(TYPE_ASYNC, 0, false);
	begin();
	/* Of a node and an API that were there before us, in the first iteration. */
	w.dispatch = mq_open(w.mq, MQ_DEALER, &o, on_dispatch, NULL, &e);
	send_to(w.dispatch, &beat, NULL);
	late = make_event(TYPE_ASYNC, 0, true);
	waits = make_event(TYPE_WAIT, 0, false);
	wait_for(is_ready, NULL);
	ends_as(&early, EVENT_SUCCEEDED, REASON_NONE, 1);
	ends_as(&late, EVENT_SUCCEEDED, REASON_NONE, 1);
	waits = make_event(TYPE_WAIT, 1, true);
	wait_for(has_answer, &waits);
	assert_int_equal(w.answer[0].event.state, EVENT_SUCCEEDED);
	assert_string_equal(w.answer[0].body, "\"done\"");
	ends_as(&waits, EVENT_SUCCEEDED, REASON_NONE, 1);
	wait_for(holds_nothing, NULL); /* each result was settled in the end */
	assert_int_equal(w.answer_count, 1);
}

static void
test_a_failed_build_ends_what_waits_for_it(void **state)
{
	struct id async, waits;

	(void)state;
	w.built = VERSION_FAILED;
	make_function(2);
	begin();
	async = make_event(TYPE_ASYNC, 0, false);
	wait_for(is_ready, NULL);
	waits = make_event(TYPE_WAIT, 0, true);
	wait_for(has_answer, &waits);
	ends_as(&async, EVENT_DEAD, REASON_BUILD_FAILED, 0);
	ends_as(&waits, EVENT_FAILED, REASON_BUILD_FAILED, 0);
	assert_int_equal(w.jobs, 1); /* the build */
}

static void
test_a_restart_adopts_what_runs_and_keeps_its_retries(void **state)
{
	struct id runs, waits;

	(void)state;
	make_function(1);
	begin();
	runs = make_event(TYPE_ASYNC, 0, false);
	ends_as(&runs, EVENT_SUCCEEDED, REASON_NONE, 1); /* the build is over */
	w.keep = true;
	runs = make_event(TYPE_ASYNC, 1, true);
	waits = make_event(TYPE_WAIT, 1, true);
	wait_for(holds_event, &runs);
	wait_for(holds_event, &waits);
	restart();
	/* Its caller is gone: it ends, and the node is told. */
	ends_as(&waits, EVENT_FAILED, REASON_NODE_LOST, 1);
	wait_for(is_ready, NULL);
	while (holds_event(&waits))
		wait_for(is_ready, NULL);
	assert_int_equal(w.held_count, 1);
	/* The attempt of before fails: it is the first of two. */
	w.held[0].reason = REASON_FUNCTION_FAILED;
	w.held[0].done = true;
	w.keep = false;
	w.reason = REASON_FUNCTION_FAILED;
	ends_as(&runs, EVENT_DEAD, REASON_FUNCTION_FAILED, 2);
}

static void
test_a_lost_node_ends_or_repeats(void **state)
{
	struct id runs, waits;

	(void)state;
	make_function(0);
	begin();
	runs = make_event(TYPE_ASYNC, 0, false);
	ends_as(&runs, EVENT_SUCCEEDED, REASON_NONE, 1);
	w.keep = true;
	runs = make_event(TYPE_ASYNC, 1, true);
	waits = make_event(TYPE_WAIT, 1, true);
	wait_for(holds_event, &runs);
	wait_for(holds_event, &waits);
	/* The node starts again and knows nothing. */
	while (w.held_count)
		forget(&w.held[0].lease);
	w.incarnation = id_new();
	w.registered = false;
	w.keep = false;
	ends_as(&runs, EVENT_SUCCEEDED, REASON_NONE, 2);
	wait_for(has_answer, &waits);
	assert_int_equal(w.answer[0].event.reason, REASON_NODE_LOST);
	ends_as(&waits, EVENT_FAILED, REASON_NODE_LOST, 1);
}

static void
test_a_deleted_functions_events_end(void **state)
{
	struct id queued, first;
	char id[ID_TEXT_MAX], version[VERSION_ID_MAX];

	(void)state;
	make_function(0);
	begin();
	first = make_event(TYPE_ASYNC, 0, false);
	w.keep = true; /* the build takes its time */
	wait_for(is_ready, NULL);
	while (!w.held_count)
		wait_for(is_ready, NULL);
	id_format(&function, id);
	function_version_id(&function, 1, version);
	assert_int_equal(DO(&w.f, store_doc_delete, STORE_FUNCTION, id), ERR_NONE);
	assert_int_equal(DO(&w.f, store_doc_delete, STORE_VERSION, version), ERR_NONE);
	scheduler_function_gone(w.s, &function);
	ends_as(&first, EVENT_CANCELLED, REASON_CANCELLED, 0);
	/* Accepted before the deletion, its hint lost, found after a restart. */
	queued = make_event(TYPE_ASYNC, 0, false);
	w.keep = false;
	restart();
	ends_as(&queued, EVENT_CANCELLED, REASON_CANCELLED, 0);
}

/* Its result is settled, so that its place is free for other builds. */
static void
test_a_build_that_outlives_its_function(void **state)
{
	char id[ID_TEXT_MAX], version[VERSION_ID_MAX];

	(void)state;
	make_function(0);
	begin();
	w.keep = true;
	while (!w.held_count)
		wait_for(is_ready, NULL);
	assert_int_equal(w.held[0].kind, JOB_BUILD);
	id_format(&function, id);
	function_version_id(&function, 1, version);
	assert_int_equal(DO(&w.f, store_doc_delete, STORE_FUNCTION, id), ERR_NONE);
	assert_int_equal(DO(&w.f, store_doc_delete, STORE_VERSION, version), ERR_NONE);
	scheduler_function_gone(w.s, &function);
	w.held[0].done = true;
	wait_for(holds_nothing, NULL);
	assert_int_equal(w.settled, 1);
}

/* Also of those that somebody waits for, payloads take no more memory than there is for them. */
static void
test_payloads_that_memory_has_no_room_for(void **state)
{
	struct id event;

	(void)state;
	make_function(0);
	begin();
	w.s->work_bytes_max = 2;
	event = make_event(TYPE_ASYNC, 0, false);
	ends_as(&event, EVENT_SUCCEEDED, REASON_NONE, 1);
	event = send_event(TYPE_WAIT, 1, "four", true, true);
	ends_as(&event, EVENT_SUCCEEDED, REASON_NONE, 1);
	assert_string_equal(w.payload, "four");
	event = send_event(TYPE_WAIT, 1, "of the store", true, true);
	wait_for(has_answer, &event);
	ends_as(&event, EVENT_SUCCEEDED, REASON_NONE, 1);
	assert_string_equal(w.payload, "of the store");
	assert_int_equal(w.s->work_bytes, 0);
	/* The store had no room either: its caller is told. */
	event = send_event(TYPE_WAIT, 1, "of nowhere", false, true);
	wait_for(has_answer, &event);
	assert_int_equal(w.answer[w.answer_count - 1].event.state, EVENT_FAILED);
	assert_int_equal(w.answer[w.answer_count - 1].event.reason, REASON_NODE_LOST);
}

/* Recorded when the clock was a day ahead: it waits for no longer than any retry does. */
static void
test_a_clock_that_was_set_back(void **state)
{
	uint64_t until = clock_mono_ns() + 30 * NS_PER_S;
	struct sched_entry *entry;
	struct event ev = { .function_id = function };
	struct result *r;
	struct id event;

	(void)state;
	make_function(1);
	event = make_event(TYPE_ASYNC, 0, false);
	r = CALL(&w.f, store_event_get, &event, NULL);
	assert_int_equal(event_copy(&ev, &r->event), 0);
	result_clear(r);
	ev.not_before_us = clock_real_us() + 86400 * US_PER_S;
	assert_int_equal(DO(&w.f, store_event_requeue, &ev, bytes_of("")), ERR_NONE);
	event_clear(&ev);
	begin();
	wait_for(is_ready, NULL);
	entry = sched_entry(w.s->sched, &event);
	assert_non_null(entry);
	assert_true(entry->not_before_ns > 0);
	assert_true(entry->not_before_ns < until + 60 * NS_PER_S);
}

/* A kill between the two writes that a build's outcome takes: the next start makes the second. */
static void
test_a_build_that_was_recorded_by_half(void **state)
{
	uint64_t until = clock_mono_ns() + 30 * NS_PER_S;
	struct function_version v = make_version(1, 0);
	struct store_doc doc = { .kind = STORE_VERSION, .project = "p" };
	char id[VERSION_ID_MAX], function_id[ID_TEXT_MAX], *text;
	enum version_state now = VERSION_BUILDING;
	struct json *j;
	struct id event;

	(void)state;
	v.state = VERSION_READY;
	function_version_id(&function, 1, id);
	id_format(&function, function_id);
	doc.id = id;
	doc.json = text = json_print(j = function_version_encode(&v));
	json_free(j);
	assert_int_equal(DO(&w.f, store_doc_update, &doc), ERR_NONE);
	free(text);
	function_version_clear(&v);
	event = make_event(TYPE_ASYNC, 0, false);
	begin();
	while (now != VERSION_READY) {
		RESULT r = CALL(&w.f, store_doc_get, STORE_FUNCTION, function_id);
		struct function f;

		assert_int_equal(function_decode(r->json, strlen(r->json), &f, NULL), 0);
		now = f.state;
		function_clear(&f);
		assert_true(clock_mono_ns() < until);
	}
	ends_as(&event, EVENT_SUCCEEDED, REASON_NONE, 1);
}

static bool
is_there(uint32_t version, const char *package)
{
	char id[VERSION_ID_MAX];
	RESULT blob = CALL(&w.f, store_blob_open, package);

	function_version_id(&function, version, id);
	if (blob->err.cls == ERR_NONE)
		close(blob->answer.fd);
	return DO(&w.f, store_doc_get, STORE_VERSION, id) == ERR_NONE && blob->err.cls == ERR_NONE;
}

static void
put_upload(const char *id, const char *digest, int64_t at_us)
{
	char json[60];
	struct store_doc d = { .kind = STORE_UPLOAD, .id = id, .project = "p", .name = digest,
			       .json = json };

	snprintf(json, sizeof json, "{\"at_us\":%lld}", (long long)at_us);
	assert_int_equal(DO(&w.f, store_doc_create, &d), ERR_NONE);
}

/* Version 2 serves; 1 goes with what only it named, and so does an upload of before yesterday.
 * An event of it that was on its way in all the while is run by 2. */
static void
test_a_superseded_version_goes(void **state)
{
	uint64_t until = clock_mono_ns() + 30 * NS_PER_S;
	char first[SHA256_HEX_MAX], second[SHA256_HEX_MAX];
	struct function_version v;
	struct id event;

	(void)state;
	make_function(0);
	begin();
	event = make_event(TYPE_ASYNC, 0, false);
	ends_as(&event, EVENT_SUCCEEDED, REASON_NONE, 1);
	v = make_version(2, 0);
	scheduler_queue_build(w.s, &v);
	function_version_clear(&v);
	event = make_event(TYPE_ASYNC, 2, true);
	ends_as(&event, EVENT_SUCCEEDED, REASON_NONE, 1); /* so 2 is built */
	put_package(1, first);
	put_package(2, second);
	put_upload("old", first, clock_real_us() - (int64_t)48 * 3600 * US_PER_S);
	put_upload("new", second, clock_real_us());
	do {
		assert_true(clock_mono_ns() < until);
		scheduler_remove_unused(w.s, clock_real_us() + 10 * US_PER_S, 0);
	} while (is_there(1, first));
	assert_true(is_there(2, second));
	assert_int_equal(DO(&w.f, store_doc_get, STORE_UPLOAD, "old"), ERR_NOT_FOUND);
	assert_int_equal(DO(&w.f, store_doc_get, STORE_UPLOAD, "new"), ERR_NONE);
	event = make_event(TYPE_ASYNC, 1, true);
	{
		RESULT r = ended(&event);

		assert_int_equal(r->event.state, EVENT_SUCCEEDED);
		assert_int_equal(r->event.function_version, 2);
	}
}

/* The store no longer has what the queue wants to build: the places of builds are free again. */
static void
test_a_deleted_functions_build_is_forgotten(void **state)
{
	struct function_version v;
	struct id first;

	(void)state;
	begin();
	wait_for(is_ready, NULL);
	v = make_version(1, 0);
	for (unsigned i = 0; i < 4; i++) {
		v.function_id = id_new();
		scheduler_queue_build(w.s, &v);
		scheduler_function_gone(w.s, &v.function_id);
	}
	v.function_id = function;
	scheduler_queue_build(w.s, &v);
	function_version_clear(&v);
	first = make_event(TYPE_ASYNC, 0, true);
	ends_as(&first, EVENT_SUCCEEDED, REASON_NONE, 1); /* so its version was built */
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_events_wait_for_their_build_then_run, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_failed_build_ends_what_waits_for_it, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_restart_adopts_what_runs_and_keeps_its_retries, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_lost_node_ends_or_repeats, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_deleted_functions_events_end, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_build_that_outlives_its_function, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_payloads_that_memory_has_no_room_for, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_clock_that_was_set_back, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_build_that_was_recorded_by_half, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_superseded_version_goes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_deleted_functions_build_is_forgotten, set_up, tear_down),
	};

	return cmocka_run_group_tests_name("scheduler", tests, NULL, NULL);
}
