#include "core/model/event_json.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/str.h"
#include "core/model/event.h"

/* A message comes from a peer that may lie: longer texts than these are refused. */
enum { ERROR_TEXT_MAX = 64 << 10, FIELDS_TEXT_MAX = 64 << 10 };

static void
put_id(struct json *j, const char *key, const struct id *id)
{
	char text[ID_TEXT_MAX];

	if (id_is_zero(id))
		return;
	id_format(id, text);
	json_put_str(j, key, text);
}

static void
put_int(struct json *j, const char *key, int64_t value)
{
	if (value)
		json_put_int(j, key, value);
}

static void
put_str(struct json *j, const char *key, const char *s)
{
	if (s && *s)
		json_put_str(j, key, s);
}

struct json *
event_encode(const struct event *ev)
{
	struct json *j = json_object(), *timeline;

	put_id(j, "id", &ev->id);
	put_id(j, "function", &ev->function_id);
	put_id(j, "parent", &ev->parent);
	put_id(j, "root", &ev->root);
	put_str(j, "project", ev->project_id);
	put_str(j, "name", ev->function_name);
	put_int(j, "version", ev->function_version);
	json_put_str(j, "source", event_source_name(ev->source));
	json_put_str(j, "type", event_type_name(ev->type));
	json_put_str(j, "state", event_state_name(ev->state));
	put_str(j, "reason", event_reason_name(ev->reason));
	json_put_str(j, "start", event_start_name(ev->start));
	put_int(j, "attempts", ev->attempts);
	put_int(j, "failures", ev->failures);
	put_int(j, "term", (int64_t)ev->lease.term);
	put_int(j, "seq", (int64_t)ev->lease.seq);
	put_str(j, "node", ev->node_id);
	put_int(j, "created", ev->created_us);
	put_int(j, "queued", ev->queued_us);
	put_int(j, "started", ev->started_us);
	put_int(j, "finished", ev->finished_us);
	put_int(j, "not_before", ev->not_before_us);
	timeline = json_array();
	for (int i = 0; i < PHASE_COUNT; i++)
		json_add(timeline, json_new_int(ev->timeline_us[i]));
	json_put(j, "timeline", timeline);
	json_put_str(j, "payload", payload_kind_name(ev->payload_kind));
	put_int(j, "payload_bytes", (int64_t)ev->payload_bytes);
	put_int(j, "wall", (int64_t)ev->wall_us);
	put_int(j, "cpu", (int64_t)ev->cpu_us);
	put_int(j, "peak", (int64_t)ev->memory_peak_bytes);
	put_int(j, "logs_bytes", (int64_t)ev->logs_bytes);
	if (ev->logs_truncated)
		json_put_bool(j, "logs_truncated", true);
	if (ev->has_response)
		json_put_bool(j, "has_response", true);
	put_int(j, "response_bytes", (int64_t)ev->response_bytes);
	put_int(j, "status", ev->response_status);
	put_str(j, "content_type", ev->response_content_type);
	put_str(j, "fields", ev->response_fields);
	put_str(j, "error_type", ev->error_type);
	put_str(j, "error", ev->error_message);
	put_str(j, "traceback", ev->error_traceback);
	return j;
}

/* Reading: each helper notes the first member that is wrong. */
struct reader {
	const struct json *j;
	const char *wrong;
};

static void
get_id(struct reader *r, const char *key, struct id *id)
{
	const struct json *member = json_get(r->j, key);
	const char *text = json_string_value(member);

	if (member && (!text || id_parse(text, id)))
		r->wrong = key;
}

static void
get_str(struct reader *r, const char *key, char *out, size_t size)
{
	const struct json *member = json_get(r->j, key);
	const char *text = json_string_value(member);

	if (member && (!text || str_copy(out, size, text)))
		r->wrong = key;
}

static void
get_text(struct reader *r, const char *key, size_t max, char **out)
{
	const struct json *member = json_get(r->j, key);
	const char *text = json_string_value(member);

	if (!member)
		return;
	if (!text || strlen(text) > max || !(*out = strdup(text)))
		r->wrong = key;
}

static int64_t
get_int(struct reader *r, const char *key, int64_t max)
{
	int64_t value = 0;

	if (json_get(r->j, key) && (!json_whole(r->j, key, &value) || value < 0 || value > max)) {
		r->wrong = key;
		return 0;
	}
	return value;
}

static int
get_word(struct reader *r, const char *key, int (*parse)(const char *), int missing)
{
	const struct json *member = json_get(r->j, key);
	const char *word = json_string_value(member);
	int value;

	if (!member)
		return missing;
	value = word ? parse(word) : -1;
	if (value < 0) {
		r->wrong = key;
		return missing;
	}
	return value;
}

static void
get_timeline(struct reader *r, struct event *ev)
{
	const struct json *item = json_first(json_get(r->j, "timeline"));

	for (int i = 0; item && i < PHASE_COUNT; i++, item = json_next(item)) {
		double us = json_number_value(item);
		ev->timeline_us[i] = us < 0 ? 0 : us > 4e9 ? 4000000000u : (uint32_t)us;
	}
}

/* Doubles hold whole numbers up to 2^53 exactly; nothing here comes near. */
#define WHOLE_MAX ((int64_t)1 << 53)

int
event_decode(const struct json *j, struct event *ev, struct err *e)
{
	struct reader r = { .j = j };

	memset(ev, 0, sizeof *ev);
	if (!json_is_object(j))
		return err_set(e, ERR_INPUT, "event: not an object");
	get_id(&r, "id", &ev->id);
	get_id(&r, "function", &ev->function_id);
	get_id(&r, "parent", &ev->parent);
	get_id(&r, "root", &ev->root);
	get_str(&r, "project", ev->project_id, sizeof ev->project_id);
	get_str(&r, "name", ev->function_name, sizeof ev->function_name);
	ev->function_version = (uint32_t)get_int(&r, "version", UINT32_MAX);
	ev->source = (enum event_source)get_word(&r, "source", event_source_parse, SOURCE_WEBHOOK);
	ev->type = (enum event_type)get_word(&r, "type", event_type_parse, TYPE_ASYNC);
	ev->state = (enum event_state)get_word(&r, "state", event_state_parse, EVENT_QUEUED);
	ev->reason = (enum event_reason)get_word(&r, "reason", event_reason_parse, REASON_NONE);
	ev->start = (enum event_start)get_word(&r, "start", event_start_parse, START_COLD);
	ev->attempts = (uint32_t)get_int(&r, "attempts", UINT32_MAX);
	ev->failures = (uint32_t)get_int(&r, "failures", UINT32_MAX);
	ev->lease.term = (uint64_t)get_int(&r, "term", WHOLE_MAX);
	ev->lease.seq = (uint64_t)get_int(&r, "seq", WHOLE_MAX);
	get_str(&r, "node", ev->node_id, sizeof ev->node_id);
	ev->created_us = get_int(&r, "created", WHOLE_MAX);
	ev->queued_us = get_int(&r, "queued", WHOLE_MAX);
	ev->started_us = get_int(&r, "started", WHOLE_MAX);
	ev->finished_us = get_int(&r, "finished", WHOLE_MAX);
	ev->not_before_us = get_int(&r, "not_before", WHOLE_MAX);
	get_timeline(&r, ev);
	ev->payload_kind = (enum payload_kind)get_word(&r, "payload", payload_kind_parse, PAYLOAD_NONE);
	ev->payload_bytes = (uint64_t)get_int(&r, "payload_bytes", WHOLE_MAX);
	ev->wall_us = (uint64_t)get_int(&r, "wall", WHOLE_MAX);
	ev->cpu_us = (uint64_t)get_int(&r, "cpu", WHOLE_MAX);
	ev->memory_peak_bytes = (uint64_t)get_int(&r, "peak", WHOLE_MAX);
	ev->logs_bytes = (uint64_t)get_int(&r, "logs_bytes", WHOLE_MAX);
	ev->logs_truncated = json_bool(j, "logs_truncated", false);
	ev->has_response = json_bool(j, "has_response", false);
	ev->response_bytes = (uint64_t)get_int(&r, "response_bytes", WHOLE_MAX);
	ev->response_status = (int)get_int(&r, "status", 999);
	get_str(&r, "content_type", ev->response_content_type, sizeof ev->response_content_type);
	get_text(&r, "fields", FIELDS_TEXT_MAX, &ev->response_fields);
	get_str(&r, "error_type", ev->error_type, sizeof ev->error_type);
	get_text(&r, "error", ERROR_TEXT_MAX, &ev->error_message);
	get_text(&r, "traceback", ERROR_TEXT_MAX, &ev->error_traceback);
	if (r.wrong) {
		event_clear(ev);
		return err_set(e, ERR_INPUT, "event: member '%s' is not what it must be", r.wrong);
	}
	return 0;
}
