/*
 * One request on its way through the API.
 *
 * The HTTP server may let go of it at any moment (the client left); whatever waits for the
 * store or for an event holds the call, so that it finds it again: answers to a request
 * that is gone go nowhere.  The first answer counts.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/api/internal.h"
#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/str.h"
#include "netio/loop.h"

struct call *
call_new(struct api *a, struct http_request *r, const struct route *route, const char *param)
{
	struct call *c = calloc(1, sizeof *c);

	if (!c)
		return NULL;
	c->api = a;
	c->request = r;
	c->route = route;
	c->begun_ns = clock_mono_ns();
	c->begun_us = clock_real_us();
	snprintf(c->param, sizeof c->param, "%s", param);
	return c;
}

static void
free_call(struct call *c)
{
	call_unwait(c);
	loop_timer_remove(c->timer);
	if (c->drop)
		c->drop(c->data);
	free(c);
}

void
call_hold(struct call *c)
{
	c->holds++;
}

void
call_release(struct call *c)
{
	if (--c->holds == 0 && !c->request)
		free_call(c);
}

void
call_gone(struct call *c)
{
	c->request = NULL;
	if (c->holds == 0)
		free_call(c);
}

/* ---- waiting for an event ---- */

void
call_wait(struct call *c, const struct id *event)
{
	struct call **head = &c->api->waiting[id_hash(event) % CALL_BUCKETS];

	c->event_id = *event;
	c->wait_next = *head;
	*head = c;
	c->waiting = true;
}

void
call_unwait(struct call *c)
{
	struct call **p = &c->api->waiting[id_hash(&c->event_id) % CALL_BUCKETS];

	if (!c->waiting)
		return;
	while (*p != c)
		p = &(*p)->wait_next;
	*p = c->wait_next;
	c->waiting = false;
}

/* ---- answers ---- */

void
call_reply(struct call *c, const struct http_reply *reply)
{
	if (!c->request || c->answered) {
		if (reply->file_fd > 0)
			close(reply->file_fd);
		return;
	}
	c->answered = true;
	call_unwait(c);
	http_reply(c->request, reply);
}

int
call_limit(struct call *c, unsigned *limit)
{
	const char *text = http_query(c->request, "limit");
	int64_t number = *limit;

	if (text && str_int(text, 1, STORE_LIST_MAX, &number)) {
		call_problem(c, 400, "invalid_request", "limit: 1 to %d", STORE_LIST_MAX);
		return -1;
	}
	*limit = (unsigned)number;
	return 0;
}

int
call_cursor(struct call *c, const char **id)
{
	struct id parsed;

	*id = http_query(c->request, "cursor");
	if (*id && id_parse(*id, &parsed)) {
		call_problem(c, 400, "invalid_request", "cursor: '%.60s' is not one that a list gave", *id);
		return -1;
	}
	return 0;
}

void
call_json_fields(struct call *c, int status, struct json *j, const struct http_field *fields)
{
	char *text = json_print(j);
	struct http_reply reply = {
		.status = text ? status : 500,
		.content_type = "application/json",
		.fields = fields,
		.body = text,
		.len = text ? strlen(text) : 0,
	};

	json_free(j);
	call_reply(c, &reply);
	free(text);
}

void
call_json_at(struct call *c, int status, struct json *j, const char *location)
{
	struct http_field fields[] = { { "Location", location }, { NULL, NULL } };

	call_json_fields(c, status, j, location ? fields : NULL);
}

void
call_json(struct call *c, int status, struct json *j)
{
	call_json_fields(c, status, j, NULL);
}

void
call_items(struct call *c, struct json *items, const char *next)
{
	struct json *j = json_object();

	json_put(j, "items", items);
	json_put_str(j, "next", next);
	call_json(c, 200, j);
}

void
call_status(struct call *c, int status)
{
	struct http_reply reply = { .status = status };

	call_reply(c, &reply);
}

static const struct {
	const char *type, *title;
} titles[] = {
	{ "invalid_request", "The request is not right" },
	{ "unauthorized", "A valid token is needed" },
	{ "forbidden", "Not allowed" },
	{ "not_found", "There is no such thing" },
	{ "method_not_allowed", "This method is not allowed here" },
	{ "conflict", "It is there already, or was changed meanwhile" },
	{ "build_failed", "The function's build failed" },
	{ "missing_blobs", "Parts of the image are not there" },
	{ "too_large", "Too large" },
	{ "queue_full", "The function's queue is full" },
	{ "limit_reached", "A limit was reached" },
	{ "function_failed", "The function failed" },
	{ "memory_exceeded", "The function used more memory than it may" },
	{ "output_exceeded", "The function printed more than it may" },
	{ "node_lost", "The node was lost while the function ran" },
	{ "cancelled", "The event was cancelled" },
	{ "no_node", "No node takes work now" },
	{ "not_ready", "Not ready" },
	{ "store_unavailable", "The store does not answer" },
	{ "timeout", "The function did not end in time" },
	{ "internal", "Pratai failed" },
};

static struct json *
problem(int status, const char *type, const char *detail)
{
	struct json *j = json_object();
	const char *title = "";

	for (size_t i = 0; i < sizeof titles / sizeof titles[0]; i++)
		if (!strcmp(titles[i].type, type))
			title = titles[i].title;
	json_put_str(j, "type", type);
	json_put_str(j, "title", title);
	json_put_int(j, "status", status);
	json_put_str(j, "detail", detail);
	return j;
}

/* Frees j. */
static void
send_problem(struct http_request *r, int status, struct json *j, const struct http_field *fields)
{
	char *text = json_print(j);
	struct http_reply reply = {
		.status = status,
		.content_type = "application/problem+json",
		.fields = fields,
		.body = text,
		.len = text ? strlen(text) : 0,
	};

	json_free(j);
	http_reply(r, &reply);
	free(text);
}

void
request_problem(struct http_request *r, int status, const char *type, const char *detail,
		const struct http_field *fields)
{
	send_problem(r, status, problem(status, type, detail), fields);
}

void
call_problem_with(struct call *c, int status, const char *type, const char *detail,
		  const struct http_field *fields, const char *key, struct json *member)
{
	struct json *j = problem(status, type, detail);

	if (key)
		json_put(j, key, member);
	if (!c->request || c->answered) {
		json_free(j);
		return;
	}
	c->answered = true;
	call_unwait(c);
	send_problem(c->request, status, j, fields);
}

void
call_problem(struct call *c, int status, const char *type, const char *fmt, ...)
{
	static const struct http_field retry_soon[] = { { "Retry-After", "1" }, { NULL, NULL } };
	static const struct http_field challenge[] = {
		{ "WWW-Authenticate", "Bearer realm=\"pratai\"" }, { NULL, NULL }
	};
	char detail[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(detail, sizeof detail, fmt, ap);
	va_end(ap);
	call_problem_with(c, status, type, detail,
			  status == 429 || status == 503 ? retry_soon : status == 401 ? challenge : NULL,
			  NULL, NULL);
}

void
call_error(struct call *c, const struct err *e)
{
	static const struct {
		int status;
		const char *type;
	} table[] = {
		[ERR_NONE] = { 500, "internal" },
		[ERR_INPUT] = { 400, "invalid_request" },
		[ERR_DENIED] = { 401, "unauthorized" },
		[ERR_NOT_FOUND] = { 404, "not_found" },
		[ERR_CONFLICT] = { 409, "conflict" },
		[ERR_FUNCTION] = { 502, "function_failed" },
		[ERR_LIMIT] = { 400, "invalid_request" },
		[ERR_NODE] = { 503, "store_unavailable" },
		[ERR_AGAIN] = { 503, "store_unavailable" },
	};
	_Static_assert(sizeof table / sizeof table[0] == ERR_CLASS_COUNT, "an answer for each class");

	call_problem(c, table[e->cls].status, table[e->cls].type, "%s", e->text);
}

void
call_done(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;

	(void)a;
	if (e)
		call_error(c, e);
	else
		call_status(c, 204);
	call_release(c);
}
