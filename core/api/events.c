/*
 * Events as their owner sees them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/api/internal.h"
#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/base/str.h"
#include "netio/loop.h"

/* Who waits is told when an event ends; LOOK_S is for what is not told: the event's end was
 * brought about by another process, or the word of it was lost. */
enum { LIST_DEFAULT = 100, WAIT_MAX_S = 3600, LOOK_S = 3 };

static int
event_id(struct call *c, struct id *id)
{
	if (!id_parse(c->param, id))
		return 0;
	call_problem(c, 404, "not_found", "'%s' is not an event's id", c->param);
	return -1;
}

static void
no_such_event(struct call *c, const struct err *e)
{
	if (e->cls == ERR_NOT_FOUND)
		call_problem(c, 404, "not_found", "there is no event '%s' in this project", c->param);
	else
		call_error(c, e);
}

/* ---- list ---- */

static void
on_events(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	struct json *list;

	if (e) {
		if (!strcmp(e->step, "searches"))
			call_problem(c, 429, "limit_reached", "%s", e->text);
		else
			call_error(c, e);
		call_release(c);
		return;
	}
	list = json_array();
	for (size_t i = 0; i < a->event_count; i++)
		json_add(list, event_record(&a->events[i], NULL, 0));
	call_items(c, list, a->next);
	call_release(c);
}

static int
read_filter(struct call *c, struct store_event_filter *f)
{
	const char *state = http_query(c->request, "state"), *source = http_query(c->request, "source");
	const char *since = http_query(c->request, "since");

	f->limit = LIST_DEFAULT;
	f->state = f->source = -1;
	if (state && (f->state = event_state_parse(state)) < 0) {
		call_problem(c, 400, "invalid_request", "state: '%.60s' is not a state", state);
		return -1;
	}
	if (source && (f->source = event_source_parse(source)) < 0) {
		call_problem(c, 400, "invalid_request", "source: '%.60s' is not a source", source);
		return -1;
	}
	if (since && clock_parse(since, &f->since_us)) {
		call_problem(c, 400, "invalid_request", "since: '%.60s' is not a time such as 2026-01-02T03:04:05Z",
			     since);
		return -1;
	}
	if (call_limit(c, &f->limit))
		return -1;
	f->project = c->project;
	f->query = http_query(c->request, "q");
	f->cursor = http_query(c->request, "cursor");
	return 0;
}

static void
list_events(struct call *c, const struct id *function)
{
	struct store_event_filter f = { 0 };

	if (read_filter(c, &f))
		return;
	if (function)
		f.function_id = *function;
	call_hold(c);
	store_event_list(c->api->config.store, &f, on_events, c);
}

static void
list_of_function(struct call *c, const struct function *f)
{
	list_events(c, &f->id);
}

void
events_list(struct call *c)
{
	const char *function = http_query(c->request, "function");
	struct id id;

	if (!function) {
		list_events(c, NULL);
	} else if (!id_parse(function, &id)) {
		list_events(c, &id); /* also of a function that is deleted by now */
	} else {
		snprintf(c->param, sizeof c->param, "%s", function);
		function_get(c, function, false, list_of_function);
	}
}

/* ---- one ---- */

static void
on_event(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;

	if (e)
		no_such_event(c, e);
	else
		call_json(c, 200, event_record(&a->events[0], a->bytes ? a->bytes : "", a->len));
	call_release(c);
}

void
events_show(struct call *c)
{
	struct id id;

	if (event_id(c, &id))
		return;
	call_hold(c);
	store_event_get(c->api->config.store, &id, c->project, on_event, c);
}

/* ---- its answer, waited for if asked ---- */

static void read_response(struct call *c, store_fn fn);

static void
not_finished(struct call *c, const struct event *ev)
{
	struct json *j = json_object();

	json_put_str(j, "event_id", c->param);
	json_put_str(j, "state", event_state_name(ev->state));
	call_json(c, 202, j);
}

/* The last look: finished or not, this is the answer. */
static void
on_response_now(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;

	if (e)
		no_such_event(c, e);
	else if (event_state_ended(a->events[0].state))
		invoke_answer(c, &a->events[0], a->bytes, a->len);
	else
		not_finished(c, &a->events[0]);
	call_release(c);
}

static void
look_again_later(struct call *c)
{
	uint64_t now = clock_mono_ns(), next = now + LOOK_S * NS_PER_S;

	loop_timer_at(c->timer, next < c->wait_until_ns ? next : c->wait_until_ns);
}

static void
on_look(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;

	if (!e && c->request && c->waiting && !event_state_ended(a->events[0].state)) {
		look_again_later(c);
		call_release(c);
		return;
	}
	call_unwait(c);
	on_response_now(arg, a, e);
}

static void
on_timer(void *arg)
{
	struct call *c = arg;

	read_response(c, clock_mono_ns() < c->wait_until_ns ? on_look : on_response_now);
}

/* Told by the scheduler, which also tells when it does not know: then the wait goes on. */
static void
on_response_again(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;

	if (e)
		no_such_event(c, e);
	else if (event_state_ended(a->events[0].state))
		invoke_answer(c, &a->events[0], a->bytes, a->len);
	call_release(c);
}

void
events_ended(struct call *c)
{
	read_response(c, on_response_again);
}

/* The scheduler may not hear it: the end of the wait reads the store in any case. */
static void
watch(struct call *c, const struct id *event)
{
	struct message m = { .type = MSG_WATCH };
	struct err e;

	call_wait(c, event);
	m.event.id = *event;
	snprintf(m.reply_to, sizeof m.reply_to, "%s", c->api->reply_to);
	if (api_send(c->api, &m, NULL, 0, &e))
		log_debug("a watch was lost", "error", e.text, NULL);
}

static void
on_response(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	int64_t seconds = 0;
	const char *wait = c->request ? http_query(c->request, "wait") : NULL;
	struct err bad;

	if (e) {
		no_such_event(c, e);
	} else if (event_state_ended(a->events[0].state)) {
		invoke_answer(c, &a->events[0], a->bytes, a->len);
	} else if (!wait || str_int(wait, 0, WAIT_MAX_S, &seconds) || seconds == 0) {
		not_finished(c, &a->events[0]);
	} else if (!(c->timer = loop_timer_add(c->api->config.loop, on_timer, c, &bad))) {
		call_error(c, &bad);
	} else {
		c->wait_until_ns = clock_mono_ns() + (uint64_t)seconds * NS_PER_S;
		look_again_later(c);
		call_release(c);
		return;
	}
	call_unwait(c);
	call_release(c);
}

static void
read_response(struct call *c, store_fn fn)
{
	struct id id;

	if (event_id(c, &id))
		return;
	call_hold(c);
	store_event_get(c->api->config.store, &id, c->project, fn, c);
}

void
events_response(struct call *c)
{
	const char *wait = http_query(c->request, "wait");
	int64_t seconds = 0;
	struct id id;

	if (wait && str_int(wait, 0, WAIT_MAX_S, &seconds)) {
		call_problem(c, 400, "invalid_request", "wait: 0 to %d seconds", WAIT_MAX_S);
		return;
	}
	if (event_id(c, &id))
		return;
	/* Watch first, read then: an end in between is seen by one of the two. */
	if (seconds)
		watch(c, &id);
	read_response(c, on_response);
}

/* ---- logs and payload: only of events of the project ---- */

static void
on_logs(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	struct json *list;
	const char *p, *end;

	if (e) {
		no_such_event(c, e);
		call_release(c);
		return;
	}
	list = json_array();
	p = a->bytes;
	end = p + a->len;
	while (p && p < end) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		size_t len = nl ? (size_t)(nl - p) : (size_t)(end - p);
		struct json *line = json_parse(p, len, NULL);

		if (line)
			json_add(list, line);
		p += len + 1;
	}
	call_items(c, list, NULL);
	call_release(c);
}

static void
on_payload(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	const enum payload_kind *kind = c->data;
	struct http_reply reply = { .status = 200, .body = a ? a->bytes : NULL, .len = a ? a->len : 0 };

	if (e) {
		no_such_event(c, e);
	} else {
		reply.content_type = *kind == PAYLOAD_JSON   ? "application/json"
				     : *kind == PAYLOAD_TEXT ? "text/plain; charset=utf-8"
							     : "application/octet-stream";
		call_reply(c, &reply);
	}
	call_release(c);
}

static void
on_owned_for_logs(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	struct id id;

	(void)a;
	if (e) {
		no_such_event(c, e);
	} else if (!event_id(c, &id)) {
		call_hold(c);
		store_event_logs(c->api->config.store, &id, on_logs, c);
	}
	call_release(c);
}

static void
on_owned_for_payload(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	enum payload_kind *kind = malloc(sizeof *kind);
	struct id id;

	if (e || !kind) {
		free(kind);
		if (e)
			no_such_event(c, e);
		else
			call_problem(c, 503, "store_unavailable", "out of memory");
	} else if (!event_id(c, &id)) {
		*kind = a->events[0].payload_kind;
		c->data = kind;
		c->drop = free;
		call_hold(c);
		store_event_payload(c->api->config.store, &id, on_payload, c);
	}
	call_release(c);
}

void
events_logs(struct call *c)
{
	read_response(c, on_owned_for_logs);
}

void
events_payload(struct call *c)
{
	read_response(c, on_owned_for_payload);
}
