/*
 * Events: the words for what is counted in enums, copies, and the record that users see.
 *
 * Each enum has one table of words; a _Static_assert holds every table to its enum, so
 * that a new state cannot be without a name.  The record says null where nothing is
 * known: a time that has not come, a phase that did not take place (every phase that did
 * took at least a microsecond), what no attempt has measured.
 */
#include "core/model/event.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/str.h"

static const char *const state_names[] = {
	[EVENT_QUEUED] = "queued",       [EVENT_RUNNING] = "running",
	[EVENT_SUCCEEDED] = "succeeded", [EVENT_CANCELLED] = "cancelled",
	[EVENT_DEAD] = "dead",           [EVENT_FAILED] = "failed",
	[EVENT_TIMEOUT] = "timeout",     [EVENT_MEMORY_EXCEEDED] = "memory_exceeded",
};
static const bool state_ended[] = {
	[EVENT_QUEUED] = false,   [EVENT_RUNNING] = false, [EVENT_SUCCEEDED] = true,
	[EVENT_CANCELLED] = true, [EVENT_DEAD] = true,     [EVENT_FAILED] = true,
	[EVENT_TIMEOUT] = true,   [EVENT_MEMORY_EXCEEDED] = true,
};
static const char *const reason_names[] = {
	[REASON_NONE] = NULL,
	[REASON_FUNCTION_FAILED] = "function_failed",
	[REASON_TIMEOUT] = "timeout",
	[REASON_MEMORY_EXCEEDED] = "memory_exceeded",
	[REASON_OUTPUT_EXCEEDED] = "output_exceeded",
	[REASON_NODE_LOST] = "node_lost",
	[REASON_EXPIRED] = "expired",
	[REASON_CHAIN_TOO_DEEP] = "chain_too_deep",
	[REASON_CANCELLED] = "cancelled",
	[REASON_BUILD_FAILED] = "build_failed",
};
static const char *const source_names[] = {
	[SOURCE_WEBHOOK] = "webhook",   [SOURCE_MESSAGE] = "message", [SOURCE_TIMER] = "timer",
	[SOURCE_DATABASE] = "database", [SOURCE_CHAIN] = "chain",     [SOURCE_REPLAY] = "replay",
};
static const char *const type_names[] = {
	[TYPE_ASYNC] = "async",
	[TYPE_WAIT] = "wait_for_response",
};
static const char *const payload_names[] = {
	[PAYLOAD_NONE] = "none",
	[PAYLOAD_JSON] = "json",
	[PAYLOAD_TEXT] = "text",
	[PAYLOAD_BYTES] = "bytes",
};
static const char *const start_names[] = {
	[START_COLD] = "cold",
	[START_ZYGOTE] = "zygote",
	[START_SPARE] = "spare",
	[START_PRELOAD] = "preload",
};
static const char *const phase_names[] = {
	[PHASE_ACCEPT] = "accept",   [PHASE_PERSIST] = "persist", [PHASE_QUEUE] = "queue",
	[PHASE_SANDBOX] = "sandbox", [PHASE_IMPORT] = "import",   [PHASE_RUN] = "run",
	[PHASE_COLLECT] = "collect",
};

#define COUNT(table) ((int)(sizeof(table) / sizeof((table)[0])))
_Static_assert(COUNT(state_names) == EVENT_STATE_COUNT, "a name for each state");
_Static_assert(COUNT(state_ended) == EVENT_STATE_COUNT, "every state ends or does not");
_Static_assert(COUNT(reason_names) == REASON_COUNT, "a name for each reason");
_Static_assert(COUNT(source_names) == SOURCE_COUNT, "a name for each source");
_Static_assert(COUNT(type_names) == TYPE_COUNT, "a name for each type");
_Static_assert(COUNT(payload_names) == PAYLOAD_KIND_COUNT, "a name for each kind of payload");
_Static_assert(COUNT(start_names) == START_COUNT, "a name for each kind of start");
_Static_assert(COUNT(phase_names) == PHASE_COUNT, "a name for each phase");

static const char *
name_in(const char *const *names, int count, unsigned value)
{
	return value < (unsigned)count ? names[value] : NULL;
}

static int
parse_in(const char *const *names, int count, const char *word)
{
	for (int i = 0; word && i < count; i++)
		if (names[i] && !strcmp(names[i], word))
			return i;
	return -1;
}

bool
event_state_ended(enum event_state s)
{
	return (unsigned)s < EVENT_STATE_COUNT && state_ended[s];
}

const char *
event_state_name(enum event_state s)
{
	return name_in(state_names, COUNT(state_names), s);
}

const char *
event_reason_name(enum event_reason r)
{
	return name_in(reason_names, COUNT(reason_names), r);
}

const char *
event_source_name(enum event_source s)
{
	return name_in(source_names, COUNT(source_names), s);
}

const char *
event_type_name(enum event_type t)
{
	return name_in(type_names, COUNT(type_names), t);
}

const char *
event_start_name(enum event_start s)
{
	return name_in(start_names, COUNT(start_names), s);
}

const char *
payload_kind_name(enum payload_kind k)
{
	return name_in(payload_names, COUNT(payload_names), k);
}

int
event_state_parse(const char *word)
{
	return parse_in(state_names, COUNT(state_names), word);
}

int
event_reason_parse(const char *word)
{
	return parse_in(reason_names, COUNT(reason_names), word);
}

int
event_source_parse(const char *word)
{
	return parse_in(source_names, COUNT(source_names), word);
}

int
event_type_parse(const char *word)
{
	return parse_in(type_names, COUNT(type_names), word);
}

int
event_start_parse(const char *word)
{
	return parse_in(start_names, COUNT(start_names), word);
}

int
payload_kind_parse(const char *word)
{
	return parse_in(payload_names, COUNT(payload_names), word);
}

/* ---- Copies ---- */

void
event_clear(struct event *e)
{
	free(e->response_fields);
	free(e->error_message);
	free(e->error_traceback);
	memset(e, 0, sizeof(*e));
}

void
event_forget_outcome(struct event *e)
{
	free(e->response_fields);
	free(e->error_message);
	free(e->error_traceback);
	e->response_fields = e->error_message = e->error_traceback = NULL;
	e->error_type[0] = e->response_content_type[0] = '\0';
	e->reason = REASON_NONE;
	e->wall_us = e->cpu_us = e->memory_peak_bytes = 0;
	e->logs_bytes = e->response_bytes = 0;
	e->logs_truncated = e->has_response = false;
	e->response_status = 0;
}

/* 0 also when there is nothing to copy. */
static int
copy_text(char **to, const char *from)
{
	*to = from ? strdup(from) : NULL;
	return from && !*to ? -1 : 0;
}

int
event_copy(struct event *to, const struct event *from)
{
	int rc = 0;

	*to = *from;
	rc |= copy_text(&to->response_fields, from->response_fields);
	rc |= copy_text(&to->error_message, from->error_message);
	rc |= copy_text(&to->error_traceback, from->error_traceback);
	if (rc)
		event_clear(to);
	return rc;
}

/* ---- The record ---- */

static void
put_id(struct json *record, const char *key, const struct id *id)
{
	char text[ID_TEXT_MAX];

	id_format(id, text);
	json_put_str(record, key, id_is_zero(id) ? NULL : text);
}

static void
put_time(struct json *record, const char *key, int64_t real_us)
{
	char text[CLOCK_RFC3339_MAX];

	if (real_us)
		clock_format(real_us, text);
	json_put_str(record, key, real_us ? text : NULL);
}

static void
put_text(struct json *record, const char *key, const char *text)
{
	json_put_str(record, key, text && *text ? text : NULL);
}

/* 0 is "nobody measured it". */
static void
put_measured(struct json *object, const char *key, uint64_t value)
{
	if (value)
		json_put_int(object, key, (int64_t)value);
	else
		json_put_null(object, key);
}

static void
put_timeline(struct json *record, const struct event *e)
{
	struct json *timeline = json_object();

	for (int i = 0; i < PHASE_COUNT; i++)
		put_measured(timeline, phase_names[i], e->timeline_us[i]);
	json_put(record, "timeline_us", timeline);
}

static void
put_usage(struct json *record, const struct event *e)
{
	struct json *usage = json_object();

	put_measured(usage, "wall_us", e->wall_us);
	put_measured(usage, "cpu_us", e->cpu_us);
	put_measured(usage, "memory_peak_bytes", e->memory_peak_bytes);
	json_put(record, "usage", usage);
}

static void
put_error(struct json *record, const struct event *e)
{
	struct json *error;

	if (!e->error_type[0] && !e->error_message) {
		json_put_null(record, "error");
		return;
	}
	error = json_object();
	put_text(error, "type", e->error_type);
	json_put_str(error, "message", e->error_message);
	json_put_str(error, "traceback", e->error_traceback);
	json_put(record, "error", error);
}

/* The media type without parameters ends in (or, for a whole one, is) what. */
static bool
media_type_is(const char *content_type, const char *what)
{
	size_t len = strcspn(content_type, "; \t"), n = strlen(what);

	if (what[0] == '+')
		return len > n && !strncasecmp(content_type + len - n, what, n);
	return len == n && !strncasecmp(content_type, what, n);
}

static bool
media_type_is_json(const char *content_type)
{
	return media_type_is(content_type, "application/json") ||
	       media_type_is(content_type, "+json");
}

/* By its type and not only by its bytes: a binary answer that happens to be ASCII must
 * not change its shape in the record from one event to the next. */
static bool
media_type_is_text(const char *content_type)
{
	return !strncasecmp(content_type, "text/", 5) || media_type_is_json(content_type) ||
	       media_type_is(content_type, "application/xml") ||
	       media_type_is(content_type, "+xml") ||
	       media_type_is(content_type, "application/javascript") ||
	       media_type_is(content_type, "application/x-www-form-urlencoded");
}

static void
put_base64(struct json *record, const void *data, size_t len)
{
	struct json *wrapped = json_object();
	char *text = malloc(STR_BASE64_MAX(len));

	if (text)
		str_base64(data, len, text);
	json_put_str(wrapped, "base64", text);
	free(text);
	json_put(record, "response", wrapped);
}

static void
put_response(struct json *record, const struct event *e, const void *data, size_t len)
{
	const char *content_type = e->response_content_type;
	char *text;

	if (!e->has_response) {
		json_put_null(record, "response");
	} else if (media_type_is_json(content_type) && json_check(data, len) == JSON_FORM_OK) {
		json_put_raw(record, "response", data, len);
	} else if (media_type_is_text(content_type) && !memchr(data, '\0', len) &&
		   str_is_utf8(data, len)) {
		text = strndup(data, len);
		json_put_str(record, "response", text);
		free(text);
	} else {
		put_base64(record, data, len);
	}
}

static void
put_what(struct json *record, const struct event *e)
{
	put_id(record, "event_id", &e->id);
	put_text(record, "project_id", e->project_id);
	put_id(record, "function_id", &e->function_id);
	put_text(record, "function_name", e->function_name);
	put_measured(record, "function_version", e->function_version);
	json_put_str(record, "source", event_source_name(e->source));
	json_put_str(record, "type", event_type_name(e->type));
	json_put_str(record, "state", event_state_name(e->state));
	json_put_int(record, "attempts", e->attempts);
	json_put_str(record, "reason", event_reason_name(e->reason));
	put_text(record, "node_id", e->node_id);
	json_put_str(record, "start", e->started_us ? event_start_name(e->start) : NULL);
	put_id(record, "parent_event_id", &e->parent);
	put_id(record, "root_event_id", &e->root);
}

struct json *
event_record(const struct event *e, const void *response, size_t len)
{
	struct json *record = json_object();
	bool waits = e->state == EVENT_QUEUED;

	put_what(record, e);
	put_time(record, "created_at", e->created_us);
	put_time(record, "queued_at", e->queued_us);
	put_time(record, "retry_at", waits ? e->not_before_us : 0);
	put_time(record, "started_at", e->started_us);
	put_time(record, "finished_at", e->finished_us);
	put_timeline(record, e);
	json_put_int(record, "payload_bytes", (int64_t)e->payload_bytes);
	if (response)
		put_response(record, e, response, len);
	put_text(record, "response_content_type", e->response_content_type);
	json_put_int(record, "response_bytes", (int64_t)e->response_bytes);
	json_put_int(record, "logs_bytes", (int64_t)e->logs_bytes);
	json_put_bool(record, "logs_truncated", e->logs_truncated);
	put_usage(record, e);
	put_error(record, e);
	return record;
}
