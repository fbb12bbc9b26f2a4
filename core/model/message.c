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
	[MSG_STARTED] = "started",     [MSG_PRINTED] = "printed", [MSG_RESULT] = "result",   [MSG_ANSWER] = "answer",
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

/* [term, seq] or, in a heartbeat, [term, seq, "event"]. */
static int
lease_decode(const struct json *item, struct lease *l, struct id *event)
{
	const struct json *first = json_first(item), *second = json_next(first);
	const struct json *third = json_next(second);
	double term = json_number_value(first), seq = json_number_value(second);
	const char *text = json_string_value(third);

	if (!json_is_array(item) || !json_is_number(first) || !json_is_number(second) || term < 0 ||
	    seq < 0 || term > 9e15 || seq > 9e15)
		return -1;
	l->term = (uint64_t)term;
	l->seq = (uint64_t)seq;
	if ((double)l->term != term || (double)l->seq != seq || json_count(item) > (event ? 3 : 2))
		return -1;
	return third && (!text || id_parse(text, event)) ? -1 : 0;
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

/* Reading: each helper notes the first member that is wrong. */
struct reader {
	const struct json *j;
	const char *wrong;
};

static void
note(struct reader *r, const char *key, bool bad)
{
	if (bad && !r->wrong)
		r->wrong = key;
}

static void
get_id(struct reader *r, const char *key, struct id *id)
{
	const struct json *member = json_get(r->j, key);
	const char *text = json_string_value(member);

	note(r, key, member && (!text || id_parse(text, id)));
}

static void
get_count(struct reader *r, const char *key, uint64_t *out)
{
	int64_t value = 0;

	note(r, key, json_get(r->j, key) && (!json_whole(r->j, key, &value) || value < 0));
	*out = value < 0 ? 0 : (uint64_t)value;
}

static void
get_kind(struct reader *r, enum job_kind *kind)
{
	const struct json *member = json_get(r->j, "kind");
	const char *word = json_string_value(member);

	*kind = word && !strcmp(word, "build") ? JOB_BUILD : JOB_EVENT;
	note(r, "kind", member && (!word || (*kind == JOB_EVENT && strcmp(word, "event"))));
}

static void
get_texts(struct reader *r, struct message *m)
{
	const struct json *reply_to = json_get(r->j, "reply_to"), *log = json_get(r->j, "build_log");
	const struct json *has_payload = json_get(r->j, "has_payload");
	const char *text = json_string_value(reply_to);

	note(r, "has_payload", has_payload && !json_is_bool(has_payload));
	m->has_payload = json_bool_value(has_payload);
	note(r, "reply_to", reply_to && (!text || str_copy(m->reply_to, sizeof m->reply_to, text)));
	text = json_string_value(log);
	if (text && strlen(text) <= BUILD_LOG_MAX)
		m->build_log = strdup(text);
	note(r, "build_log", log && !m->build_log);
}

static void
get_leases(struct reader *r, struct message *m)
{
	const struct json *list = json_get(r->j, "leases");
	int n = json_count(list);

	note(r, "leases", list && (!json_is_array(list) || n > MESSAGE_LEASES_MAX));
	if (r->wrong || n <= 0)
		return;
	m->leases = calloc((size_t)n, sizeof *m->leases);
	m->lease_events = calloc((size_t)n, sizeof *m->lease_events);
	if (!m->leases || !m->lease_events) {
		note(r, "leases", true);
		return;
	}
	for (const struct json *item = json_first(list); item; item = json_next(item)) {
		size_t i = m->lease_count++;

		note(r, "leases", lease_decode(item, &m->leases[i], &m->lease_events[i]));
	}
}

static int
wrong(struct err *e, const char *member)
{
	return err_set(e, ERR_INPUT, "message: member '%s' is missing or wrong", member);
}

static int
decode_rest(const struct json *j, struct message *m, struct err *e)
{
	struct reader r = { .j = j };

	note(&r, "lease", json_get(j, "lease") && lease_decode(json_get(j, "lease"), &m->lease, NULL));
	get_kind(&r, &m->kind);
	get_id(&r, "session", &m->session);
	get_id(&r, "incarnation", &m->incarnation);
	get_count(&r, "accept_by", &m->accept_by_ms);
	get_count(&r, "granted", &m->granted);
	get_count(&r, "received", &m->received);
	get_count(&r, "memory_free", &m->memory_free_mib);
	get_count(&r, "layer_bytes", &m->build_layer_bytes);
	get_texts(&r, m);
	get_leases(&r, m);
	if (r.wrong)
		return wrong(e, r.wrong);
	if (json_get(j, "event") && event_decode(json_get(j, "event"), &m->event, e))
		return -1;
	if (json_get(j, "version") && function_version_parse(json_get(j, "version"), &m->version, e))
		return -1;
	return 0;
}

/* What a message of this type cannot do without and lacks, or NULL. */
static const char *
lacks(const struct json *j, const struct message *m)
{
	static const struct {
		const char *event[4], *build[4]; /* members, by kind */
	} needs[MSG_TYPE_COUNT] = {
		[MSG_EVENT] = { { "event" }, { "event" } },
		[MSG_WATCH] = { { "event" }, { "event" } },
		[MSG_ANSWER] = { { "event" }, { "event" } },
		[MSG_BUILD] = { { "version" }, { "version" } },
		[MSG_JOB] = { { "lease", "version", "event" }, { "lease", "version" } },
		[MSG_RESULT] = { { "lease", "event" }, { "lease", "version" } },
		[MSG_HEARTBEAT] = { { "session", "incarnation" }, { "session", "incarnation" } },
		[MSG_SETTLED] = { { "lease" }, { "lease" } },
		[MSG_CANCEL] = { { "lease" }, { "lease" } },
		[MSG_STARTED] = { { "lease" }, { "lease" } },
		[MSG_PRINTED] = { { "lease", "build_log" }, { "lease", "build_log" } },
	};
	const char *const *member = m->kind == JOB_BUILD ? needs[m->type].build : needs[m->type].event;

	while (*member && json_get(j, *member))
		member++;
	return *member;
}

int
message_decode(const void *data, size_t len, struct message *m, struct err *e)
{
	struct json *j;
	const char *word, *missing;
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
		missing = rc == 0 ? lacks(j, m) : NULL;
		if (missing)
			rc = wrong(e, missing);
	}
	json_free(j);
	if (rc)
		message_clear(m);
	return rc;
}
