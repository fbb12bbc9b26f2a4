/*
 * What is said between the node and a runtime.  The other side is a user's process: every
 * member is checked for type and range before it goes into a record, texts are cut at a
 * character's edge, and a reply that breaks the rules fails the event with a sentence that
 * the function's owner can act on.
 */
#include "core/node/runtime.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/json.h"
#include "core/node/utf8.h"

enum {
	FIELDS_BYTES_MAX = 16 << 10,
	MESSAGE_BYTES_MAX = 8 << 10,
};

int
runtime_event_line(const struct event *ev, uint64_t timeout_ms, struct buf *out)
{
	const struct id *request = id_is_zero(&ev->root) ? &ev->id : &ev->root;
	char event[ID_TEXT_MAX], function[ID_TEXT_MAX], request_id[ID_TEXT_MAX];

	id_format(&ev->id, event);
	id_format(&ev->function_id, function);
	id_format(request, request_id);
	return buf_printf(out,
			  "{\"v\":1,\"type\":\"event\",\"event_id\":\"%s\",\"function_id\":\"%s\","
			  "\"request_id\":\"%s\",\"source\":\"%s\",\"attempt\":%u,"
			  "\"timeout_ms\":%llu,\"payload\":\"%s\",\"bytes\":%llu}\n",
			  event, function, request_id, event_source_name(ev->source),
			  ev->attempts ? ev->attempts : 1, (unsigned long long)timeout_ms,
			  payload_kind_name(ev->payload_kind),
			  (unsigned long long)ev->payload_bytes);
}

/* The member as a count; absent is 0.  -1: not a count. */
static int
get_count(const struct json *j, const char *key, uint64_t *out, struct err *e)
{
	int64_t value = 0;

	if (json_get(j, key) && (!json_whole(j, key, &value) || value < 0))
		return err_set(e, ERR_FUNCTION, "the runtime's answer is malformed: '%s' is not a "
			       "whole number from 0", key);
	*out = (uint64_t)value;
	return 0;
}

static bool
is_visible(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			return false;
	return true;
}

/* A header field's name: RFC 9110's token. */
static bool
is_token(const char *s)
{
	const char *p = s;

	for (; *p; p++)
		if (!strchr("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
			    "ABCDEFGHIJKLMNOPQRSTUVWXYZ", *p))
			return false;
	return p != s && p - s < 128;
}

/* Fields of the connection and of the platform: the server's to set. */
static bool
is_server_field(const char *name)
{
	static const char *const names[] = { "connection", "content-length",   "date",
					     "keep-alive", "proxy-connection", "te",
					     "trailer",	   "transfer-encoding", "upgrade" };

	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (!strcasecmp(name, names[i]))
			return true;
	return !strncasecmp(name, "pratai-", strlen("pratai-"));
}

static int
get_fields(const struct json *fields, struct event *ev, struct err *e)
{
	struct json *kept;
	size_t bytes = 0;

	if (!fields)
		return 0;
	if (!json_is_object(fields) || json_count(fields) > EVENT_FIELDS_MAX)
		return err_set(e, ERR_FUNCTION, "the answer's headers are not an object of at most %d "
			       "names", EVENT_FIELDS_MAX);
	kept = json_object();
	for (const struct json *f = json_first(fields); f; f = json_next(f)) {
		const char *name = json_key(f), *value = json_string_value(f);

		if (!is_token(name) || !value || !is_visible(value) ||
		    (bytes += strlen(name) + strlen(value)) > FIELDS_BYTES_MAX) {
			json_free(kept);
			return err_set(e, ERR_FUNCTION, "the answer's header '%.60s' is not a name "
				       "and a text without control characters, or is too long",
				       is_token(name) ? name : "?");
		}
		if (!is_server_field(name))
			json_put_str(kept, name, value);
	}
	free(ev->response_fields);
	ev->response_fields = json_count(kept) ? json_print(kept) : NULL;
	json_free(kept);
	return 0;
}

static int
parse_success(const struct json *j, const struct runtime_reply *r, struct event *ev, struct err *e)
{
	const struct json *type = json_get(j, "content_type"), *status = json_get(j, "status");
	const char *text = type ? json_string_value(type) : "application/octet-stream";
	int64_t code = 0;

	if (!text || !is_visible(text) || strlen(text) >= EVENT_CONTENT_TYPE_MAX)
		return err_set(e, ERR_FUNCTION, "the answer's content type is not a text of at most "
			       "%d characters", EVENT_CONTENT_TYPE_MAX - 1);
	if (status && (!json_whole(j, "status", &code) || code < 200 || code > 599))
		return err_set(e, ERR_FUNCTION, "the answer's status is not a number from 200 to 599");
	if (r->bytes > EVENT_RESPONSE_MAX)
		return err_set(e, ERR_FUNCTION, "the answer of %llu bytes is larger than %d bytes",
			       (unsigned long long)r->bytes, EVENT_RESPONSE_MAX);
	if (get_fields(json_get(j, "fields"), ev, e))
		return -1;
	memcpy(ev->response_content_type, text, strlen(text) + 1);
	ev->response_status = (int)code;
	ev->has_response = true;
	ev->response_bytes = r->bytes;
	return 0;
}

/* A copy of the member's text, at most max bytes; NULL when it is not a text. */
static char *
copy_text(const struct json *object, const char *key, size_t max)
{
	const char *s = json_str(object, key);

	return s && *s ? strndup(s, utf8_cut(s, strlen(s), max)) : NULL;
}

static void
parse_failure(const struct json *j, struct event *ev)
{
	const struct json *error = json_get(j, "error");
	const char *type = json_str(error, "type");
	size_t n;

	if (!type || !*type)
		type = "Error";
	n = utf8_cut(type, strlen(type), sizeof ev->error_type - 1);
	memcpy(ev->error_type, type, n);
	ev->error_type[n] = '\0';
	free(ev->error_message);
	free(ev->error_traceback);
	ev->error_message = copy_text(error, "message", MESSAGE_BYTES_MAX);
	ev->error_traceback = copy_text(error, "traceback", RUNTIME_TRACEBACK_MAX);
	ev->reason = REASON_FUNCTION_FAILED;
}

static int
parse_members(const struct json *j, struct runtime_reply *out, struct event *ev, struct err *e)
{
	const char *type = json_str(j, "type");

	if (json_int(j, "v", 0) != 1 || !type)
		return err_set(e, ERR_FUNCTION,
			       "the runtime's answer is malformed: no 'type', or 'v' is not 1");
	if (get_count(j, "start_us", &out->start_us, e) ||
	    get_count(j, "import_us", &out->import_us, e) ||
	    get_count(j, "run_us", &out->run_us, e) || get_count(j, "bytes", &out->bytes, e))
		return -1;
	if (!strcmp(type, "imported") || !strcmp(type, "network")) {
		out->type = *type == 'i' ? RUNTIME_IMPORTED : RUNTIME_NETWORK;
		out->ok = true;
		return 0;
	}
	if (!strcmp(type, "dependencies")) {
		out->type = RUNTIME_DEPENDENCIES;
		out->ok = true;
		if (out->bytes < 1 || out->bytes > RUNTIME_NEEDS_MAX)
			return err_set(e, ERR_FUNCTION, "what the build needs is not a text of at most "
				       "%d bytes", RUNTIME_NEEDS_MAX);
		return 0;
	}
	if (strcmp(type, "result") && strcmp(type, "layer"))
		return err_set(e, ERR_FUNCTION, "the runtime's answer is malformed: unknown 'type'");
	if (!json_is_bool(json_get(j, "ok")))
		return err_set(e, ERR_FUNCTION,
			       "the runtime's answer is malformed: 'ok' is not true or false");
	out->type = *type == 'l' ? RUNTIME_LAYER : RUNTIME_RESULT;
	out->ok = json_bool_value(json_get(j, "ok"));
	if (!out->ok)
		parse_failure(j, ev);
	return out->ok && out->type == RUNTIME_RESULT ? parse_success(j, out, ev, e) : 0;
}

int
runtime_reply_parse(const char *line, size_t len, struct runtime_reply *out, struct event *ev,
		    struct err *e)
{
	struct err why = { 0 };
	struct json *j;
	int rc;

	memset(out, 0, sizeof *out);
	if (len >= RUNTIME_LINE_MAX)
		return err_set(e, ERR_FUNCTION, "the runtime's answer has a line over %d bytes",
			       RUNTIME_LINE_MAX);
	j = json_parse(line, len, &why);
	if (!j)
		return err_set(e, ERR_FUNCTION, "the runtime's answer is malformed: %s", why.text);
	if (json_is_object(j))
		rc = parse_members(j, out, ev, e);
	else
		rc = err_set(e, ERR_FUNCTION, "the runtime's answer is malformed: not an object");
	json_free(j);
	return rc;
}
