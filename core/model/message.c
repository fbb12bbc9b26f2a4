#include "core/model/message.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/str.h"
#include "core/model/event_json.h"

enum { BUILD_LOG_MAX = 512 << 10 };

static const char *const type_words[] = {
	[MSG_EVENT] = "event",         [MSG_BUILD] = "build",     [MSG_JOB] = "job",
	[MSG_SETTLED] = "settled",     [MSG_CANCEL] = "cancel",   [MSG_HEARTBEAT] = "heartbeat",
	[MSG_WATCH] = "watch",
	[MSG_STARTED] = "started",     [MSG_RESULT] = "result",   [MSG_ANSWER] = "answer",
};
_Static_assert(sizeof type_words / sizeof type_words[0] == MSG_TYPE_COUNT, "a word for each");

void
message_clear(struct message *m)
{
	event_clear(&m->event);
	function_version_clear(&m->version);
	free(m->build_log);
	free(m->leases);
	free(m->lease_events);
	memset(m, 0, sizeof *m);
}

static struct json *
lease_encode(const struct lease *l)
{
	struct json *pair = json_array();

	json_add(pair, json_new_int((int64_t)l->term));
	json_add(pair, json_new_int((int64_t)l->seq));
	return pair;
}

static int
lease_decode(const struct json *pair, struct lease *l)
{
	const struct json *first = json_first(pair), *second = json_next(first);
	double term = json_number_value(first), seq = json_number_value(second);

	if (!json_is_number(first) || !json_is_number(second) || term < 0 || seq < 0 || term > 9e15 ||
	    seq > 9e15)
		return -1;
	l->term = (uint64_t)term;
	l->seq = (uint64_t)seq;
	return 0;
}

static void
put_id(struct json *j, const char *key, const struct id *id)
{
	char text[ID_TEXT_MAX];

	id_format(id, text);
	json_put_str(j, key, text);
}

static void
put_version(struct json *j, const struct function_version *v)
{
	json_put(j, "version", function_version_encode(v));
}

static void
put_heartbeat(struct json *j, const struct message *m)
{
	struct json *leases = json_array();

	put_id(j, "incarnation", &m->incarnation);
	json_put_int(j, "granted", (int64_t)m->granted);
	json_put_int(j, "received", (int64_t)m->received);
	json_put_int(j, "memory_free", (int64_t)m->memory_free_mib);
	for (size_t i = 0; i < m->lease_count; i++) {
		struct json *triple = lease_encode(&m->leases[i]);
		char id[ID_TEXT_MAX];

		if (m->lease_events && !id_is_zero(&m->lease_events[i])) {
			id_format(&m->lease_events[i], id);
			json_add_str(triple, id);
		}
		json_add(leases, triple);
	}
	json_put(j, "leases", leases);
}

char *
message_encode(const struct message *m)
{
	struct json *j = json_object();
	char *text;

	json_put_int(j, "v", MESSAGE_VERSION);
	json_put_str(j, "t", type_words[m->type]);
	if (m->type == MSG_HEARTBEAT) {
		put_id(j, "session", &m->session);
		put_heartbeat(j, m);
	} else if (m->type != MSG_EVENT && m->type != MSG_ANSWER && m->type != MSG_BUILD &&
		   m->type != MSG_WATCH) {
		put_id(j, "session", &m->session);
		json_put(j, "lease", lease_encode(&m->lease));
	}
	if (m->type == MSG_JOB || m->type == MSG_RESULT)
		json_put_str(j, "kind", m->kind == JOB_BUILD ? "build" : "event");
	if (m->type == MSG_JOB)
		json_put_int(j, "accept_by", (int64_t)m->accept_by_ms);
	if (m->type == MSG_EVENT || m->type == MSG_ANSWER || m->type == MSG_WATCH ||
	    ((m->type == MSG_JOB || m->type == MSG_RESULT) && m->kind == JOB_EVENT) ||
	    (m->type == MSG_CANCEL && !id_is_zero(&m->event.id)))
		json_put(j, "event", event_encode(&m->event));
	if (m->has_payload)
		json_put_bool(j, "has_payload", true);
	if (m->reply_to[0])
		json_put_str(j, "reply_to", m->reply_to);
	if (m->type == MSG_JOB || m->type == MSG_BUILD ||
	    (m->type == MSG_RESULT && m->kind == JOB_BUILD))
		put_version(j, &m->version);
	if (m->build_log)
		json_put_str(j, "build_log", m->build_log);
	if (m->build_layer_bytes)
		json_put_int(j, "layer_bytes", (int64_t)m->build_layer_bytes);
	text = json_print(j);
	json_free(j);
	return text;
}

static int
get_id(const struct json *j, const char *key, struct id *id)
{
	const char *text = json_str(j, key);

	return !text ? 0 : id_parse(text, id);
}

static int
get_count(const struct json *j, const char *key, uint64_t *out)
{
	int64_t value = 0;

	if (json_get(j, key) && (!json_whole(j, key, &value) || value < 0))
		return -1;
	*out = (uint64_t)value;
	return 0;
}

static int
get_leases(const struct json *j, struct message *m)
{
	const struct json *list = json_get(j, "leases"), *item;
	int n = json_count(list);

	if (n > MESSAGE_LEASES_MAX)
		return -1;
	if (n <= 0)
		return 0;
	m->leases = calloc((size_t)n, sizeof *m->leases);
	m->lease_events = calloc((size_t)n, sizeof *m->lease_events);
	if (!m->leases || !m->lease_events)
		return -1;
	for (item = json_first(list); item; item = json_next(item)) {
		const char *id = json_string_value(json_next(json_next(json_first(item))));
		size_t i = m->lease_count++;

		if (lease_decode(item, &m->leases[i]) || (id && id_parse(id, &m->lease_events[i])))
			return -1;
	}
	return 0;
}

static int
wrong(struct err *e, const char *member)
{
	return err_set(e, ERR_INPUT, "message: member '%s' is missing or wrong", member);
}

static int
decode_rest(const struct json *j, struct message *m, struct err *e)
{
	const char *kind = json_str(j, "kind"), *reply_to = json_str(j, "reply_to");
	const char *build_log = json_str(j, "build_log");

	if (json_get(j, "lease") && lease_decode(json_get(j, "lease"), &m->lease))
		return wrong(e, "lease");
	if (kind && strcmp(kind, "event") && strcmp(kind, "build"))
		return wrong(e, "kind");
	m->kind = kind && !strcmp(kind, "build") ? JOB_BUILD : JOB_EVENT;
	if (get_count(j, "accept_by", &m->accept_by_ms))
		return wrong(e, "accept_by");
	if (get_id(j, "session", &m->session) || get_id(j, "incarnation", &m->incarnation))
		return wrong(e, "session");
	m->has_payload = json_bool(j, "has_payload", false);
	if (reply_to && str_copy(m->reply_to, sizeof m->reply_to, reply_to))
		return wrong(e, "reply_to");
	if (get_count(j, "granted", &m->granted) || get_count(j, "received", &m->received) ||
	    get_count(j, "memory_free", &m->memory_free_mib) ||
	    get_count(j, "layer_bytes", &m->build_layer_bytes))
		return wrong(e, "granted");
	if (get_leases(j, m))
		return wrong(e, "leases");
	if (build_log) {
		if (strlen(build_log) > BUILD_LOG_MAX || !(m->build_log = strdup(build_log)))
			return wrong(e, "build_log");
	}
	if (json_get(j, "event") && event_decode(json_get(j, "event"), &m->event, e))
		return -1;
	if (json_get(j, "version") && function_version_parse(json_get(j, "version"), &m->version, e))
		return -1;
	return 0;
}

static bool
complete(const struct json *j, const struct message *m)
{
	switch (m->type) {
	case MSG_EVENT:
	case MSG_WATCH:
	case MSG_ANSWER:
		return json_get(j, "event") != NULL;
	case MSG_BUILD:
		return json_get(j, "version") != NULL;
	case MSG_JOB:
		return json_get(j, "version") && json_get(j, "lease") &&
		       (m->kind == JOB_BUILD || json_get(j, "event"));
	case MSG_RESULT:
		return json_get(j, "lease") &&
		       json_get(j, m->kind == JOB_BUILD ? "version" : "event");
	case MSG_HEARTBEAT:
		return json_get(j, "session") && json_get(j, "incarnation");
	default:
		return json_get(j, "lease") != NULL;
	}
}

int
message_decode(const void *data, size_t len, struct message *m, struct err *e)
{
	struct json *j;
	const char *word;
	int type = -1, rc = -1;

	memset(m, 0, sizeof *m);
	if (len > MESSAGE_ENVELOPE_MAX)
		return err_set(e, ERR_INPUT, "message: envelope of %zu bytes", len);
	j = json_parse(data, len, e);
	if (!j)
		return err_wrap(e, "message");
	word = json_str(j, "t");
	for (int i = 0; word && i < MSG_TYPE_COUNT; i++)
		if (!strcmp(word, type_words[i]))
			type = i;
	if (json_int(j, "v", 0) != MESSAGE_VERSION)
		wrong(e, "v");
	else if (type < 0)
		wrong(e, "t");
	else {
		m->type = (enum message_type)type;
		rc = decode_rest(j, m, e);
		if (rc == 0 && !complete(j, m))
			rc = wrong(e, "event, version, lease or session");
	}
	json_free(j);
	if (rc)
		message_clear(m);
	return rc;
}
