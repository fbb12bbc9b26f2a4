/*
 * function-execute: an event by hand.
 *
 * The payload goes out byte for byte.  A 202 is an async event: its id is printed, or, with
 * --wait, its response is asked for until the event has ended, also over a restart of the
 * control plane.  An answer with Pratai-State: succeeded is the function's own, whatever its
 * status; one with a problem is either the function's failure (exit 3) or the platform's
 * refusal (exit 1).
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/fdio.h"
#include "core/base/json.h"
#include "core/base/str.h"
#include "core/client/client.h"

#define PAYLOAD_BYTES_MAX ((size_t)64 << 20)
#define CALL_NS (3700 * NS_PER_S) /* a function's longest time, and what is around it */
#define POLL_S 30
#define AWAY_NS (60 * NS_PER_S)

static int
read_payload(const struct opt_values *v, struct buf *out, struct err *e)
{
	const char *file = opt_get(v, "file"), *data = opt_get(v, "data");
	bool is_stdin = file && !strcmp(file, "-");
	struct stat st;
	CLEAN_FD int fd = -1;
	int rc;

	out->max = PAYLOAD_BYTES_MAX;
	if (file && data)
		return err_set(e, ERR_INPUT, "give --data or --file, not both");
	if (data)
		return buf_puts(out, data) ? err_set(e, ERR_NODE, "no memory") : 0;
	if (!file)
		return 0;
	fd = is_stdin ? dup(STDIN_FILENO) : open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st))
		return err_sys(e, ERR_INPUT, "%.200s", *file ? file : "--file ''");
	if (S_ISDIR(st.st_mode))
		return err_set(e, ERR_INPUT, "%.200s: is a directory", file);
	rc = fd_slurp(fd, is_stdin ? "stdin" : file, PAYLOAD_BYTES_MAX, out, e);
	if (rc && e->cls != ERR_NODE)
		e->cls = ERR_INPUT;
	return rc;
}

static const char *
payload_type(const struct buf *payload)
{
	if (payload->len == 0)
		return NULL;
	if (json_check(payload->data, payload->len) == JSON_FORM_OK)
		return "application/json";
	if (str_is_utf8(payload->data, payload->len))
		return "text/plain; charset=utf-8";
	return "application/octet-stream";
}

static void
print_body(const struct api_answer *a)
{
	fwrite(a->body.data ? a->body.data : "", 1, a->body.len, stdout);
	if (isatty(STDOUT_FILENO) && a->body.len && a->body.data[a->body.len - 1] != '\n')
		putchar('\n');
}

static bool
is_the_functions_fault(const char *type)
{
	static const char *const types[] = { "function_failed", "memory_exceeded", "output_exceeded",
					     "timeout" };

	for (size_t i = 0; i < sizeof types / sizeof *types; i++)
		if (!strcmp(type, types[i]))
			return true;
	return false;
}

/* `function_failed: ValueError: message` into *e. */
static void
describe_failure(const char *type, struct span problem, struct err *e)
{
	char *title = span_text(span_member(problem, "title"));
	char *message = span_text(span_member(problem, "message"));
	bool has_title = title && *title && strcmp(title, type);
	bool has_message = message && *message;

	err_set(e, ERR_FUNCTION, "%s%s%.60s%s%.*s", type, has_title ? ": " : "",
		has_title ? title : "", has_message ? ": " : "",
		has_message ? (int)strcspn(message, "\n") : 0, has_message ? message : "");
	free(title);
	free(message);
}

/* The detail of a failure is the traceback, or the message again. */
static void
print_traceback(struct span problem)
{
	char *detail = span_text(span_member(problem, "detail"));
	char *message = span_text(span_member(problem, "message"));

	if (detail && *detail && (!message || strcmp(detail, message))) {
		render_escaped(stderr, detail, strlen(detail));
		if (detail[strlen(detail) - 1] != '\n')
			fputc('\n', stderr);
	}
	free(detail);
	free(message);
}

static int
refuse(const struct client *c, const struct api_answer *a)
{
	struct span problem = { 0 };
	struct err e = { 0 };
	char type[64];
	int rc;

	api_problem_type(a, type, sizeof type);
	if (!is_the_functions_fault(type) || api_json(a, &problem, &e)) {
		api_refusal(c->api, a, &e);
		return client_fail(&e);
	}
	describe_failure(type, problem, &e);
	rc = client_fail(&e);
	print_traceback(problem);
	return rc;
}

static bool
has_succeeded(const struct api_answer *a)
{
	return !strcmp(a->state, "succeeded");
}

/* What became of an event that has ended. */
static int
settle(const struct client *c, const struct api_answer *a)
{
	if (!has_succeeded(a) && (a->state[0] || a->status / 100 != 2))
		return refuse(c, a);
	print_body(a);
	return CLIENT_OK;
}

/* Asks for the response until there is one. */
static int
wait_response(struct client *c, const char *event_id)
{
	uint64_t heard = clock_mono_ns();
	struct buf path = { 0 };
	struct err e = { 0 };
	int rc = -1;

	if (client_path(&path, "/v1/events/", event_id, "/response?wait=", &e) ||
	    buf_printf(&path, "%d", POLL_S)) {
		buf_free(&path);
		return client_fail(&e);
	}
	while (rc < 0) {
		struct api_request r = { .method = "GET", .path = path.data,
					 .total_ns = (POLL_S + 30) * NS_PER_S };
		struct api_answer a;
		int failed = api_call(c->api, &r, &a, &e);
		bool away = failed || (a.status == 503 && !a.state[0]);

		if (!away)
			heard = clock_mono_ns();
		if (away && clock_mono_ns() - heard < AWAY_NS)
			api_pause(c->api, 200 * NS_PER_MS);
		else if (failed)
			rc = client_fail(&e);
		else if (a.status != 202 || has_succeeded(&a)) /* 202 may be the function's own */
			rc = settle(c, &a);
		else /* also when the server answers without having waited */
			api_pause(c->api, 10 * NS_PER_MS);
		if (!failed)
			api_answer_clear(&a);
	}
	buf_free(&path);
	return rc;
}

static int
print_accepted(const struct client *c, const char *id, const char *location)
{
	struct json *record = json_object();
	struct err e = { 0 };
	char *text;
	int rc;

	json_put_str(record, "event_id", id);
	if (*location)
		json_put_str(record, "location", location);
	text = json_print(record);
	json_free(record);
	rc = text ? render_record(&c->out, span_of(text, strlen(text)), "event_id", &e)
		  : err_set(&e, ERR_NODE, "no memory");
	free(text);
	return rc ? client_fail(&e) : CLIENT_OK;
}

/* An async event: its id and where it is, or with --wait its response. */
static int
accepted(struct client *c, const struct api_answer *a)
{
	struct span record;
	struct err e = { 0 };
	char *id;
	int rc;

	if (api_json(a, &record, &e))
		return client_fail(&e);
	id = span_text(span_member(record, "event_id"));
	if (!id || !*id) {
		free(id);
		err_set(&e, ERR_NODE, "the answer names no event: is OS_PRATAI_URL Pratai's?");
		return client_fail(&e);
	}
	if (opt_given(&c->v, "wait")) {
		rc = wait_response(c, id);
	} else {
		rc = print_accepted(c, id, a->location);
	}
	free(id);
	return rc;
}

int
cmd_function_execute(struct client *c)
{
	struct buf payload = { 0 }, path = { 0 };
	struct api_answer a = { 0 };
	struct err e = { 0 };
	int rc;

	if (read_payload(&c->v, &payload, &e) ||
	    client_path(&path, "/v1/functions/", c->v.operands[0], "", &e) ||
	    api_call(c->api, &(struct api_request){
			.method = "POST", .path = path.data, .content_type = payload_type(&payload),
			.body = payload.data ? payload.data : "", .body_len = payload.len,
			.total_ns = CALL_NS, .progress = "sending" }, &a, &e))
		rc = client_fail(&e);
	else if (a.status == 202 && !has_succeeded(&a))
		rc = accepted(c, &a);
	else
		rc = settle(c, &a);
	api_answer_clear(&a);
	buf_free(&payload);
	buf_free(&path);
	return rc;
}
