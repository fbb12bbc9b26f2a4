/*
 * The webhook: a request becomes an event.
 *
 * async: the record is durable before the 202; then the scheduler gets a hint.
 * wait_for_response: the hint goes first, with the payload; the record is written in the
 * background, and the request waits for the collector's answer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/api/internal.h"
#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/base/str.h"
#include "core/scheduler/scheduler.h"
#include "netio/loop.h"

enum { WAIT_GRACE_S = 5, KEY_MAX = 255, PRATAI_FIELDS_MAX = 7 };

/* An event on its way in. */
struct intake {
	struct event event;
	struct store_bytes bytes;
	const void *payload; /* for the hint; into bytes or the request's body */
	char key[KEY_MAX + 1];
	char sha256[SHA256_HEX_MAX];
};

static void
drop_intake(void *data)
{
	struct intake *in = data;

	event_clear(&in->event);
	free(in);
}

/* ---- answers ---- */

struct event_fields {
	char id[ID_TEXT_MAX], duration[24], cpu[24], memory[24];
	struct http_field fields[PRATAI_FIELDS_MAX + EVENT_FIELDS_MAX + 1];
	size_t n;
};

static void
add_field(struct event_fields *f, const char *name, const char *value)
{
	f->fields[f->n].name = name;
	f->fields[f->n++].value = value;
	f->fields[f->n].name = NULL;
}

static void
fields_of(struct event_fields *f, const struct event *ev)
{
	f->n = 0;
	id_format(&ev->id, f->id);
	add_field(f, "Pratai-Event-Id", f->id);
	add_field(f, "Pratai-State", event_state_name(ev->state));
	if (!event_state_ended(ev->state))
		return;
	snprintf(f->duration, sizeof f->duration, "%llu", (unsigned long long)ev->wall_us);
	snprintf(f->cpu, sizeof f->cpu, "%llu", (unsigned long long)ev->cpu_us);
	snprintf(f->memory, sizeof f->memory, "%llu", (unsigned long long)ev->memory_peak_bytes);
	add_field(f, "Pratai-Duration-Us", f->duration);
	add_field(f, "Pratai-Cpu-Us", f->cpu);
	add_field(f, "Pratai-Memory-Peak-Bytes", f->memory);
	add_field(f, "Pratai-Start", event_start_name(ev->start));
	if (ev->node_id[0])
		add_field(f, "Pratai-Node", ev->node_id);
}

static void
answer_success(struct call *c, const struct event *ev, const void *response, size_t len)
{
	struct json *own = ev->response_fields
				   ? json_parse(ev->response_fields, strlen(ev->response_fields), NULL)
				   : NULL;
	struct event_fields f;
	struct http_reply reply = {
		.status = ev->response_status ? ev->response_status : 200,
		.content_type = ev->response_content_type[0] ? ev->response_content_type : NULL,
		.fields = f.fields,
		.body = response,
		.len = len,
	};

	fields_of(&f, ev);
	for (const struct json *m = json_first(own); m && f.n < PRATAI_FIELDS_MAX + EVENT_FIELDS_MAX;
	     m = json_next(m))
		if (json_is_string(m))
			add_field(&f, json_key(m), json_string_value(m));
	call_reply(c, &reply);
	json_free(own);
}

static const struct {
	enum event_reason reason;
	int status;
	const char *type;
} failures[] = {
	{ REASON_FUNCTION_FAILED, 502, "function_failed" },
	{ REASON_TIMEOUT, 504, "timeout" },
	{ REASON_MEMORY_EXCEEDED, 502, "memory_exceeded" },
	{ REASON_OUTPUT_EXCEEDED, 502, "output_exceeded" },
	{ REASON_NODE_LOST, 502, "node_lost" },
	{ REASON_EXPIRED, 504, "timeout" },
	{ REASON_CANCELLED, 502, "cancelled" },
	{ REASON_BUILD_FAILED, 409, "build_failed" },
};

static void
answer_failure(struct call *c, const struct event *ev)
{
	struct json *j = json_object();
	struct event_fields f;
	struct http_reply reply = { .status = 502, .content_type = "application/problem+json",
				    .fields = f.fields };
	const char *type = "function_failed", *message = ev->error_message ? ev->error_message : "";
	char *text;

	for (size_t i = 0; i < sizeof failures / sizeof failures[0]; i++)
		if (failures[i].reason == ev->reason) {
			reply.status = failures[i].status;
			type = failures[i].type;
		}
	fields_of(&f, ev);
	json_put_str(j, "type", type);
	json_put_str(j, "title", ev->error_type[0] ? ev->error_type : type);
	json_put_int(j, "status", reply.status);
	json_put_str(j, "detail", ev->error_traceback && *ev->error_traceback ? ev->error_traceback : message);
	json_put_str(j, "message", message);
	json_put_str(j, "event_id", f.id);
	text = json_print(j);
	json_free(j);
	reply.body = text;
	reply.len = text ? strlen(text) : 0;
	call_reply(c, &reply);
	free(text);
}

void
invoke_answer(struct call *c, const struct event *ev, const void *response, size_t len)
{
	if (ev->state == EVENT_SUCCEEDED)
		answer_success(c, ev, response, len);
	else
		answer_failure(c, ev);
}

/* ---- reading the request ---- */

/* What the body is to the function, and which bytes of it: `{"payload": …}` is unwrapped. */
static int
read_payload(struct event *ev, const char *body, size_t len, size_t *at, size_t *n, struct err *e)
{
	*at = 0;
	*n = len;
	if (len == 0) {
		ev->payload_kind = PAYLOAD_NONE;
		return 0;
	}
	switch (json_check(body, len)) {
	case JSON_FORM_OK:
		ev->payload_kind = PAYLOAD_JSON;
		json_only_member(body, len, "payload", at, n);
		break;
	case JSON_FORM_DEEP:
		return err_set(e, ERR_INPUT, "payload: JSON that is nested deeper than %d", JSON_DEPTH_MAX);
	case JSON_FORM_BAD:
		ev->payload_kind = str_is_utf8(body, len) ? PAYLOAD_TEXT : PAYLOAD_BYTES;
		break;
	}
	ev->payload_bytes = *n;
	return 0;
}

static int
read_key(struct call *c, struct intake *in, struct err *e)
{
	const char *key = http_header(c->request, "Idempotency-Key");

	if (!key || in->event.type != TYPE_ASYNC)
		return 0;
	if (!*key || str_copy(in->key, sizeof in->key, key))
		return err_set(e, ERR_INPUT, "header Idempotency-Key: 1 to %d bytes are allowed", KEY_MAX);
	return 0;
}

static struct intake *
take_in(struct call *c, const struct function *f, struct err *e)
{
	struct intake *in = calloc(1, sizeof *in);
	struct event *ev;
	const char *body;
	size_t len, at, n, body_len;
	void *owned;

	if (!in) {
		err_set(e, ERR_AGAIN, "out of memory");
		return NULL;
	}
	ev = &in->event;
	ev->id = id_new();
	ev->root = ev->id;
	ev->function_id = f->id;
	ev->function_version = f->serving;
	ev->source = SOURCE_WEBHOOK;
	ev->type = f->type;
	memcpy(ev->project_id, f->project_id, sizeof ev->project_id);
	memcpy(ev->function_name, f->name, sizeof ev->function_name);
	ev->created_us = c->begun_us;
	ev->queued_us = clock_real_us();
	body = http_body(c->request, &len);
	if (read_payload(ev, body, len, &at, &n, e) || read_key(c, in, e)) {
		drop_intake(in);
		return NULL;
	}
	if (in->key[0])
		sha256_hex(body + at, n, in->sha256);
	if (http_body_take(c->request, &owned, &body_len, &in->bytes.fd, e)) {
		drop_intake(in);
		return NULL;
	}
	in->bytes.owned = owned;
	in->bytes.data = owned ? (const char *)owned + at : NULL;
	in->bytes.offset = at;
	in->bytes.len = n;
	ev->timeline_us[PHASE_ACCEPT] = (uint32_t)((clock_mono_ns() - c->begun_ns) / NS_PER_US);
	return in;
}

/* The payload's bytes for a hint: from memory, or read from the spooled body. */
static const void *
hint_payload(struct intake *in, void **to_free)
{
	ssize_t n;

	*to_free = NULL;
	if (in->bytes.data || !in->bytes.len)
		return in->bytes.data;
	if (in->event.type == TYPE_ASYNC && in->bytes.len > HINT_PAYLOAD_MAX)
		return NULL;
	*to_free = malloc(in->bytes.len);
	n = *to_free ? pread(in->bytes.fd, *to_free, in->bytes.len, (off_t)in->bytes.offset) : -1;
	if (n == (ssize_t)in->bytes.len)
		return *to_free;
	free(*to_free);
	*to_free = NULL;
	return NULL;
}

static int
send_hint(struct call *c, struct intake *in, struct err *e)
{
	struct message m = { .type = MSG_EVENT, .event = in->event };
	void *to_free;
	const void *payload = hint_payload(in, &to_free);
	int rc;

	m.has_payload = payload != NULL;
	snprintf(m.reply_to, sizeof m.reply_to, "%s", c->api->reply_to);
	rc = api_send(c->api, &m, payload, payload ? in->bytes.len : 0, e);
	free(to_free);
	return rc;
}

/* ---- async ---- */

/* state: NULL when only the store knows it (an event that was accepted earlier). */
static void
accepted(struct call *c, const struct id *id, const char *state)
{
	struct json *j = json_object();
	char id_text[ID_TEXT_MAX], location[80];
	struct http_field fields[] = {
		{ "Location", location },
		{ "Pratai-Event-Id", id_text },
		{ state ? "Pratai-State" : NULL, state },
		{ NULL, NULL },
	};

	id_format(id, id_text);
	snprintf(location, sizeof location, "/v1/events/%s", id_text);
	json_put_str(j, "event_id", id_text);
	call_json_fields(c, 202, j, fields);
}

static void
on_created(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	struct intake *in = c->data;
	struct err lost;

	if (e) {
		if (e->cls == ERR_CONFLICT)
			call_problem(c, 409, "conflict",
				     "this Idempotency-Key was used with another payload");
		else if (e->cls == ERR_INPUT) /* a key with control characters, say: trying again is vain */
			call_error(c, e);
		else
			call_problem(c, 503, "store_unavailable", "the event was not accepted: %s", e->text);
	} else if (!id_is_zero(&a->existing)) {
		accepted(c, &a->existing, NULL);
	} else {
		struct message m = { .type = MSG_EVENT, .event = in->event };

		m.has_payload = in->payload != NULL;
		m.event.timeline_us[PHASE_PERSIST] =
			(uint32_t)((clock_mono_ns() - c->begun_ns) / NS_PER_US) -
			m.event.timeline_us[PHASE_ACCEPT];
		if (api_send(c->api, &m, in->payload, in->payload ? in->event.payload_bytes : 0, &lost))
			log_debug("a hint was lost; the sweep finds the event", "error", lost.text, NULL);
		accepted(c, &in->event.id, event_state_name(EVENT_QUEUED));
	}
	call_release(c);
}

static void
drop_async(void *data)
{
	struct intake *in = data;

	free((void *)(uintptr_t)in->payload);
	drop_intake(in);
}

static void
accept_async(struct call *c, struct intake *in)
{
	c->data = in;
	c->drop = drop_async;
	/* A copy for the hint, so that a small event need not be read back. */
	if (in->bytes.data && in->bytes.len && in->bytes.len <= HINT_PAYLOAD_MAX) {
		void *copy = malloc(in->bytes.len);

		if (copy)
			in->payload = memcpy(copy, in->bytes.data, in->bytes.len);
	}
	call_hold(c);
	store_event_create(c->api->config.store, &in->event, in->bytes, in->key[0] ? in->key : NULL,
			   in->sha256, on_created, c);
}

/* ---- wait_for_response ---- */

static void
on_recorded(void *arg, const struct store_answer *a, const struct err *e)
{
	(void)arg;
	(void)a;
	if (e)
		log_err("an event could not be recorded", e);
}

void
invoke_over(struct call *c)
{
	call_unwait(c);
	loop_timer_clear(c->timer);
	call_release(c);
}

/* The sandbox's own deadline ends what runs; this one is for what never started, whether
 * its caller is still there or not. */
static void
on_deadline(void *arg)
{
	struct call *c = arg;
	struct message m = { .type = MSG_CANCEL };
	struct err e;

	m.event.id = c->event_id;
	if (api_send(c->api, &m, NULL, 0, &e))
		log_debug("a cancellation was lost", "error", e.text, NULL);
	if (c->api->config.scheduler && scheduler_nodes_alive(c->api->config.scheduler) == 0)
		call_problem(c, 503, "no_node", "no node takes work now");
	else if (c->no_version)
		call_problem(c, 503, "not_ready", "the function's first version was not ready in time");
	else
		call_problem(c, 504, "timeout", "the function did not answer in time");
	invoke_over(c);
}

static void
accept_wait(struct call *c, struct intake *in, uint32_t timeout_s)
{
	struct err e;

	c->timer = loop_timer_add(c->api->config.loop, on_deadline, c, &e);
	if (!c->timer || send_hint(c, in, &e)) {
		call_problem(c, 503, "not_ready", "the event was not accepted: %s", e.text);
		free(in->bytes.owned);
		if (in->bytes.fd >= 0)
			close(in->bytes.fd);
		drop_intake(in);
		return;
	}
	call_wait(c, &in->event.id);
	call_hold(c); /* until invoke_over */
	c->no_version = in->event.function_version == 0;
	loop_timer_after(c->timer, (timeout_s + WAIT_GRACE_S) * NS_PER_S);
	store_event_create(c->api->config.store, &in->event, in->bytes, NULL, NULL, on_recorded, NULL);
	drop_intake(in);
}

/* ---- the call ---- */

static void
invoke_function(struct call *c, const struct function *f)
{
	struct scheduler *s = c->api->config.scheduler;
	uint32_t timeout_s = f->timeout_s;
	struct intake *in;
	struct err e;

	if (!f->serving && f->state == VERSION_FAILED) {
		call_problem(c, 409, "build_failed", "the function's build failed: %s",
			     f->state_reason ? f->state_reason : "");
		return;
	}
	if (s && scheduler_queued(s, &f->id) >= FUNCTION_QUEUE_MAX) {
		call_problem(c, 429, "queue_full", "%d events of this function wait already",
			     FUNCTION_QUEUE_MAX);
		return;
	}
	if (f->type == TYPE_WAIT && s && !scheduler_ready(s)) {
		call_problem(c, 503, "not_ready", "the scheduler is starting");
		return;
	}
	in = take_in(c, f, &e);
	if (!in)
		call_error(c, &e);
	else if (in->event.type == TYPE_WAIT)
		accept_wait(c, in, timeout_s);
	else
		accept_async(c, in);
}

void
invoke(struct call *c)
{
	function_get(c, c->param, false, invoke_function);
}
