/* Messages between the parts: what goes out comes back, and nothing else is taken. */
#include "core/model/message.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/err.h"
#include "core/base/json.h"

static const struct id ids[] = {
	{ { 1, 0x93, 0x11, 0, 0, 1, 0x70, 1, 0x80, 1 } }, { { 1, 0x93, 0x11, 0, 0, 2, 0x70, 1, 0x80, 2 } },
	{ { 1, 0x93, 0x11, 0, 0, 3, 0x70, 1, 0x80, 3 } }, { { 1, 0x93, 0x11, 0, 0, 4, 0x70, 1, 0x80, 4 } },
};

static struct function_version
sample_version(void)
{
	struct function_version v = {
		.function_id = ids[1], .project_id = "p", .name = "echo", .version = 4294967295u,
		.state = VERSION_READY, .type = TYPE_WAIT, .runtime = "python3", .image = "host",
		.memory_mib = 128, .tmp_size_mib = 64, .cpu_millis = 500, .pids = 64, .timeout_s = 60,
		.retries = 2, .limit = 7, .output_bytes = 1 << 20, .network = "none",
	};

	memset(v.package_digest, 'a', 64);
	memset(v.layer_digest, '0', 64);
	memset(v.image_digest, 'b', 64);
	memset(v.dependencies_digest, 'c', 64);
	v.env = strdup("{\"K\":\"v \\\"q\\\" \xc3\xa9\"}");
	v.reason = strdup("line one\nline two");
	return v;
}

static struct event
sample_event(void)
{
	struct event ev = {
		.id = ids[0], .function_id = ids[1], .parent = ids[2], .root = ids[3],
		.project_id = "p", .function_name = "echo", .function_version = 3,
		.source = SOURCE_REPLAY, .type = TYPE_WAIT, .state = EVENT_MEMORY_EXCEEDED,
		.reason = REASON_MEMORY_EXCEEDED, .start = START_PRELOAD, .attempts = 2, .failures = 1,
		.lease = { (1ull << 53) - 2, 77 }, .node_id = "node-1", .created_us = 1700000000000001,
		.queued_us = 1700000000000002, .started_us = 1700000000000003,
		.finished_us = 1700000000000004, .not_before_us = 1700000000000005,
		.timeline_us = { 1, 2, 3, 4, 5, 6, 4000000000u }, .payload_kind = PAYLOAD_BYTES,
		.payload_bytes = 6 << 20, .wall_us = 8, .cpu_us = 9, .memory_peak_bytes = 1ull << 40,
		.logs_bytes = 10, .logs_truncated = true, .has_response = true, .response_bytes = 11,
		.response_status = 418, .response_content_type = "text/plain; charset=utf-8",
		.error_type = "ValueError",
	};

	ev.response_fields = strdup("{\"X-A\":\"b\"}");
	ev.error_message = strdup("no \"such\" thing\n\t\x7f");
	ev.error_traceback = strdup("Traceback …");
	return ev;
}

/* Filled with everything that its type carries, and more: what does not belong is left out. */
static struct message
sample(enum message_type type, enum job_kind kind)
{
	struct message m = { .type = type, .lease = { 3, 9 }, .session = ids[2], .incarnation = ids[3],
			     .granted = 1ull << 40, .received = 12, .memory_free_mib = 2048 };

	if (type == MSG_JOB || type == MSG_RESULT)
		m.kind = kind;
	if (type == MSG_JOB)
		m.accept_by_ms = 2000;
	if (type == MSG_EVENT) {
		m.has_payload = true;
		snprintf(m.reply_to, sizeof m.reply_to, "0191-a.b");
	}
	m.event = sample_event();
	m.version = sample_version();
	if (type == MSG_RESULT && kind == JOB_BUILD) {
		m.build_log = strdup("collecting numpy\r\n\x1b[31mred");
		m.build_layer_bytes = 123456;
	}
	if (type == MSG_PRINTED)
		m.build_log = strdup("so far");
	m.lease_count = 3;
	m.leases = calloc(3, sizeof *m.leases);
	m.lease_events = calloc(3, sizeof *m.lease_events);
	for (unsigned i = 0; i < 3; i++)
		m.leases[i] = (struct lease){ 1 + i, 9000000000000000ull - i };
	m.lease_events[1] = ids[0];
	return m;
}

static const struct {
	enum message_type type;
	enum job_kind kind;
	const char *needs[4];
} types[] = {
	{ MSG_EVENT, JOB_EVENT, { "event" } },
	{ MSG_BUILD, JOB_EVENT, { "version" } },
	{ MSG_WATCH, JOB_EVENT, { "event" } },
	{ MSG_JOB, JOB_EVENT, { "lease", "version", "event" } },
	{ MSG_JOB, JOB_BUILD, { "lease", "version" } },
	{ MSG_SETTLED, JOB_EVENT, { "lease" } },
	{ MSG_CANCEL, JOB_EVENT, { "lease" } },
	{ MSG_HEARTBEAT, JOB_EVENT, { "session", "incarnation" } },
	{ MSG_STARTED, JOB_EVENT, { "lease" } },
	{ MSG_PRINTED, JOB_EVENT, { "lease", "build_log" } },
	{ MSG_RESULT, JOB_EVENT, { "lease", "event" } },
	{ MSG_RESULT, JOB_BUILD, { "lease", "version" } },
	{ MSG_ANSWER, JOB_EVENT, { "event" } },
};
enum { TYPES = sizeof types / sizeof types[0] };

static char *
encoded(int i)
{
	struct message m = sample(types[i].type, types[i].kind);
	char *text = message_encode(&m);

	message_clear(&m);
	assert_non_null(text);
	return text;
}

/* Decodes, encodes again, and compares: whatever is lost on the way shows. */
static void
test_every_type_survives_the_way(void **state)
{
	bool seen[MSG_TYPE_COUNT] = { false };

	(void)state;
	for (int i = 0; i < TYPES; i++) {
		char *text = encoded(i), *again;
		struct message m;
		struct err e;

		seen[types[i].type] = true;
		assert_int_equal(message_decode(text, strlen(text), &m, &e), 0);
		assert_int_equal(m.type, types[i].type);
		assert_int_equal(m.kind, types[i].kind);
		again = message_encode(&m);
		assert_string_equal(text, again);
		message_clear(&m);
		free(text);
		free(again);
	}
	for (int t = 0; t < MSG_TYPE_COUNT; t++)
		assert_true(seen[t]);
}

static void
test_each_member_has_its_value(void **state)
{
	struct event ev = sample_event();
	struct message m;
	struct err e;
	char *text = encoded(3); /* JOB of an event */

	(void)state;
	assert_int_equal(message_decode(text, strlen(text), &m, &e), 0);
	assert_int_equal(m.lease.term, 3);
	assert_int_equal(m.lease.seq, 9);
	assert_int_equal(m.accept_by_ms, 2000);
	assert_true(id_equal(&m.session, &ids[2]));
	assert_int_equal(m.version.version, 4294967295u);
	assert_string_equal(m.version.reason, "line one\nline two");
	assert_string_equal(m.event.error_message, ev.error_message);
	assert_string_equal(m.event.response_fields, ev.response_fields);
	/* All but the owned texts is plain memory. */
	free(m.event.response_fields);
	free(m.event.error_message);
	free(m.event.error_traceback);
	m.event.response_fields = ev.response_fields;
	m.event.error_message = ev.error_message;
	m.event.error_traceback = ev.error_traceback;
	assert_int_equal(m.event.lease.term, ev.lease.term);
	assert_int_equal(m.event.memory_peak_bytes, ev.memory_peak_bytes);
	assert_memory_equal(m.event.timeline_us, ev.timeline_us, sizeof ev.timeline_us);
	assert_int_equal(m.event.not_before_us, ev.not_before_us);
	message_clear(&m); /* frees ev's texts */
	free(text);
}

static void
test_a_heartbeat_has_leases_and_their_events(void **state)
{
	struct message m;
	struct err e;
	char *text = encoded(7);

	(void)state;
	assert_int_equal(message_decode(text, strlen(text), &m, &e), 0);
	assert_int_equal(m.lease_count, 3);
	assert_int_equal(m.leases[2].term, 3);
	assert_int_equal(m.leases[2].seq, 8999999999999998ull);
	assert_true(id_is_zero(&m.lease_events[0]));
	assert_true(id_equal(&m.lease_events[1], &ids[0]));
	assert_int_equal(m.granted, 1ull << 40);
	assert_true(id_equal(&m.incarnation, &ids[3]));
	message_clear(&m);
	free(text);
}

/* A cleared message, -1, class input, and the member's name. */
static void
refused(const char *text, size_t len, const char *named)
{
	struct message m, zero = { 0 };
	struct err e = { 0 };
	int rc;

	memset(&m, 0xa5, sizeof m);
	rc = message_decode(text, len, &m, &e);
	if (rc == 0)
		print_error("taken: %.*s\n", (int)(len < 300 ? len : 300), text);
	assert_int_equal(rc, -1);
	assert_int_equal(e.cls, ERR_INPUT);
	assert_memory_equal(&m, &zero, sizeof m);
	if (!strstr(e.text, named)) {
		print_error("'%s' does not name '%s'\n", e.text, named);
		fail();
	}
}

static void
refused_with(const struct json *j, const char *key, struct json *value, const char *named)
{
	struct json *copy = json_copy(j);
	char *text;

	json_remove(copy, key);
	if (value)
		json_put(copy, key, value);
	text = json_print(copy);
	json_free(copy);
	refused(text, strlen(text), named);
	free(text);
}

static void
test_what_a_type_needs_is_named_when_it_is_missing(void **state)
{
	(void)state;
	for (int i = 0; i < TYPES; i++) {
		char *text = encoded(i);
		struct json *j = json_parse(text, strlen(text), NULL);

		for (int k = 0; types[i].needs[k]; k++)
			refused_with(j, types[i].needs[k], NULL, types[i].needs[k]);
		refused_with(j, "t", NULL, "'t'");
		refused_with(j, "v", NULL, "'v'");
		json_free(j);
		free(text);
	}
}

static void
test_every_wrong_member_is_named(void **state)
{
	static const struct {
		const char *key, *values[8];
	} wrong[] = {
		{ "v", { "0", "2", "\"1\"", "null", "1.5", "[]" } },
		{ "t", { "\"jobs\"", "\"\"", "1", "null", "{}" } },
		{ "lease", { "7", "[]", "[1]", "[1,-2]", "[1,2,3]", "[1,1e300]", "[1.5,2]", "{\"a\":1,\"b\":2}" } },
		{ "kind", { "\"zip\"", "1", "null", "\"\"" } },
		{ "session", { "1", "\"\"", "\"x\"", "\"0191\"", "null" } },
		{ "incarnation", { "1", "\"zz\"", "false" } },
		{ "accept_by", { "-1", "\"2\"", "1.5", "1e300", "null" } },
		{ "granted", { "-1", "\"2\"", "1e19", "[]" } },
		{ "received", { "-1", "true", "0.1" } },
		{ "memory_free", { "-1", "\"\"" } },
		{ "layer_bytes", { "-1", "\"\"" } },
		{ "has_payload", { "1", "\"true\"", "null" } },
		{ "reply_to", { "1", "null", "\"0123456789012345678901234567890123456789012345678\"" } },
		{ "build_log", { "1", "null", "[]" } },
		{ "leases", { "1", "{\"a\":[1,2]}", "[1]", "[[1]]", "[[1,2,3]]", "[[1,2,\"x\"]]",
			      "[[1,2],[3,\"4\"]]", "\"\"" } },
		{ "event", { "1", "[]", "null", "{\"id\":5}" } },
		{ "version", { "1", "[]", "null", "{}" } },
	};
	char *text = encoded(3);
	struct json *j = json_parse(text, strlen(text), NULL);

	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
		for (int k = 0; k < 8 && wrong[i].values[k]; k++)
			refused_with(j, wrong[i].key,
				     json_parse(wrong[i].values[k], strlen(wrong[i].values[k]), NULL),
				     wrong[i].key);
	json_free(j);
	free(text);
}

static void
test_every_wrong_member_of_event_and_version_is_named(void **state)
{
	static const struct {
		const char *part, *key, *value;
	} wrong[] = {
		{ "event", "id", "\"x\"" }, { "event", "function", "1" }, { "event", "parent", "null" },
		{ "event", "root", "\"\"" }, { "event", "project", "5" }, { "event", "version", "-1" },
		{ "event", "version", "4294967296" }, { "event", "source", "\"mail\"" },
		{ "event", "type", "\"sync\"" }, { "event", "state", "\"done\"" },
		{ "event", "reason", "\"none\"" }, { "event", "start", "\"warm\"" },
		{ "event", "attempts", "1.5" }, { "event", "failures", "\"1\"" }, { "event", "term", "-1" },
		{ "event", "seq", "1e17" }, { "event", "node", "[]" }, { "event", "created", "-5" },
		{ "event", "payload", "\"xml\"" }, { "event", "payload_bytes", "-1" },
		{ "event", "status", "1000" }, { "event", "content_type", "1" },
		{ "event", "fields", "{}" }, { "event", "error", "7" }, { "event", "traceback", "[]" },
		{ "version", "function_id", "\"x\"" }, { "version", "state", "\"done\"" },
		{ "version", "type", "5" }, { "version", "name", "null" }, { "version", "runtime", "\"../x\"" },
		{ "version", "runtime", "\"a/b\"" }, { "version", "image", "1" },
		{ "version", "image_digest", "\"b\"" }, { "version", "image_digest", "null" },
		{ "version", "dependencies_digest", "\"c\"" }, { "version", "dependencies_digest", "5" },
		{ "version", "package_digest", "\"abc\"" }, { "version", "layer_digest", "\"../../etc\"" },
		{ "version", "memory_mib", "-1" }, { "version", "memory_mib", "1048577" },
		{ "version", "timeout_s", "86401" }, { "version", "pids", "\"1\"" },
		{ "version", "retries", "null" }, { "version", "limit", "1.5" },
		{ "version", "output_bytes", "1e10" }, { "version", "env", "[]" },
		{ "version", "own_runtime", "5" }, { "version", "own_runtime", "{}" },
		{ "version", "own_runtime", "{\"command\":[\"sh\"]}" },
		{ "version", "own_runtime", "{\"command\":[\"/x\"],\"env\":{\"A\":1}}" },
	};
	char *text = encoded(3);
	struct json *j = json_parse(text, strlen(text), NULL);

	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		struct json *part = json_copy(json_get(j, wrong[i].part));

		json_remove(part, wrong[i].key);
		json_put(part, wrong[i].key, json_parse(wrong[i].value, strlen(wrong[i].value), NULL));
		refused_with(j, wrong[i].part, part, wrong[i].key);
	}
	json_free(j);
	free(text);
}

/* ---- what is no message at all ---- */

static void
test_a_message_cut_anywhere_is_refused(void **state)
{
	(void)state;
	for (int i = 0; i < TYPES; i++) {
		char *text = encoded(i);
		size_t len = strlen(text);

		for (size_t cut = 0; cut < len; cut++)
			refused(text, cut, "message");
		free(text);
	}
}

/* One byte changed at a time: refused or taken, never read past its end (sanitizers). */
static void
test_a_changed_byte_does_no_harm(void **state)
{
	uint32_t random = 1;

	(void)state;
	for (int i = 0; i < TYPES; i++) {
		char *text = encoded(i);
		size_t len = strlen(text);

		for (int round = 0; round < 2000; round++) {
			char *copy = malloc(len); /* no NUL behind it */
			struct message m;
			struct err e;

			memcpy(copy, text, len);
			for (int k = 0; k < 1 + round % 3; k++) {
				random = random * 1664525 + 1013904223;
				copy[(random >> 8) % len] = (char)(random >> 24);
			}
			if (message_decode(copy, len, &m, &e) == 0)
				message_clear(&m);
			free(copy);
		}
		free(text);
	}
}

static void
test_garbage_is_refused(void **state)
{
	static const char *const garbage[] = {
		"", "\0", "null", "1", "\"t\"", "[]", "{}", "{\"v\":1}", "{\"v\":1,\"t\":\"job\"}",
		"{\"v\":1,\"v\":1,\"t\":\"cancel\",\"lease\":[1,2]}",
		"{\"v\":1,\"t\":\"cancel\",\"lease\":[1,2]}x", "\xff\xfe", "GET / HTTP/1.1\r\n\r\n",
		"{\"v\":1,\"t\":\"can\\u0000cel\",\"lease\":[1,2]}",
	};

	(void)state;
	for (size_t i = 0; i < sizeof garbage / sizeof garbage[0]; i++)
		refused(garbage[i], i == 1 ? 1 : strlen(garbage[i]), "message");
}

static void
test_depth_and_size_are_bounded(void **state)
{
	const size_t huge = MESSAGE_ENVELOPE_MAX + 1;
	static const char head[] = "{\"v\":1,\"t\":\"cancel\",\"lease\":[1,2]}";
	char *text = malloc(huge);
	struct message m;
	struct err e;

	(void)state;
	memset(text, '[', huge);
	refused(text, 100000, "deeper");
	memset(text, ' ', huge);
	memcpy(text, head, strlen(head));
	assert_int_equal(message_decode(text, MESSAGE_ENVELOPE_MAX, &m, &e), 0);
	message_clear(&m);
	refused(text, huge, "1048577 bytes");
	free(text);
}

static void
test_leases_are_bounded(void **state)
{
	(void)state;
	for (size_t n = MESSAGE_LEASES_MAX; n <= MESSAGE_LEASES_MAX + 1; n++) {
		struct message m = { .type = MSG_HEARTBEAT, .session = ids[0], .incarnation = ids[1],
				     .leases = calloc(n, sizeof *m.leases), .lease_count = n }, back;
		struct err e;
		char *text = message_encode(&m);

		if (n <= MESSAGE_LEASES_MAX) {
			assert_int_equal(message_decode(text, strlen(text), &back, &e), 0);
			assert_int_equal(back.lease_count, n);
			message_clear(&back);
		} else {
			refused(text, strlen(text), "leases");
		}
		free(text);
		message_clear(&m);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_type_survives_the_way),
		cmocka_unit_test(test_each_member_has_its_value),
		cmocka_unit_test(test_a_heartbeat_has_leases_and_their_events),
		cmocka_unit_test(test_what_a_type_needs_is_named_when_it_is_missing),
		cmocka_unit_test(test_every_wrong_member_is_named),
		cmocka_unit_test(test_every_wrong_member_of_event_and_version_is_named),
		cmocka_unit_test(test_a_message_cut_anywhere_is_refused),
		cmocka_unit_test(test_a_changed_byte_does_no_harm),
		cmocka_unit_test(test_garbage_is_refused),
		cmocka_unit_test(test_depth_and_size_are_bounded),
		cmocka_unit_test(test_leases_are_bounded),
	};

	return cmocka_run_group_tests_name("message", tests, NULL, NULL);
}
