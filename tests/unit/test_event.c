/* Events: words, copies, and the record that users see. */
#include "core/model/event.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/json.h"
#include "core/base/str.h"

typedef const char *(*name_fn)(int);
typedef int (*parse_fn)(const char *);

#define NAMED(fn, type)                                                                            \
	static const char *fn##_of(int i)                                                          \
	{                                                                                          \
		return fn((type)i);                                                                \
	}
NAMED(event_state_name, enum event_state)
NAMED(event_reason_name, enum event_reason)
NAMED(event_source_name, enum event_source)
NAMED(event_type_name, enum event_type)
NAMED(event_start_name, enum event_start)
NAMED(payload_kind_name, enum payload_kind)

static void
test_words_are_total_and_parse_back(void **state)
{
	static const struct {
		name_fn name;
		parse_fn parse;
		int first, count;
	} tables[] = {
		{event_state_name_of, event_state_parse, 0, EVENT_STATE_COUNT},
		{event_reason_name_of, event_reason_parse, 1, REASON_COUNT},
		{event_source_name_of, event_source_parse, 0, SOURCE_COUNT},
		{event_type_name_of, event_type_parse, 0, TYPE_COUNT},
		{event_start_name_of, event_start_parse, 0, START_COUNT},
		{payload_kind_name_of, payload_kind_parse, 0, PAYLOAD_KIND_COUNT},
	};

	(void)state;
	for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++) {
		for (int i = tables[t].first; i < tables[t].count; i++) {
			assert_non_null(tables[t].name(i));
			assert_int_equal(tables[t].parse(tables[t].name(i)), i);
		}
		assert_null(tables[t].name(tables[t].count));
		assert_null(tables[t].name(-1));
		assert_int_equal(tables[t].parse("nothing of the kind"), -1);
		assert_int_equal(tables[t].parse(""), -1);
		assert_int_equal(tables[t].parse(NULL), -1);
	}
	assert_null(event_reason_name(REASON_NONE));
}

static void
test_which_states_end(void **state)
{
	(void)state;
	for (int s = 0; s < EVENT_STATE_COUNT; s++)
		assert_int_equal(event_state_ended((enum event_state)s),
				 s != EVENT_QUEUED && s != EVENT_RUNNING);
	assert_false(event_state_ended((enum event_state)99));
}

static struct event
sample(void)
{
	struct event e = {
		.project_id = "p1",
		.function_name = "music_tag",
		.function_version = 3,
		.source = SOURCE_CHAIN,
		.state = EVENT_SUCCEEDED,
		.start = START_SPARE,
		.attempts = 2,
		.node_id = "n1",
		.created_us = 1767323045678901,
		.queued_us = 1767323045678902,
		.started_us = 1767323046000000,
		.finished_us = 1767323047000000,
		.timeline_us = {[PHASE_ACCEPT] = 10, [PHASE_RUN] = 300},
		.payload_kind = PAYLOAD_JSON,
		.payload_bytes = 15,
		.wall_us = 1000,
		.cpu_us = 900,
		.memory_peak_bytes = 5 << 20,
		.logs_bytes = 7,
		.has_response = true,
		.response_content_type = "application/json",
	};

	id_parse("0199b2c0-0000-7000-8000-000000000001", &e.id);
	id_parse("0199b2c0-0000-7000-8000-000000000002", &e.function_id);
	id_parse("0199b2c0-0000-7000-8000-000000000003", &e.parent);
	return e;
}

static void
test_copy_is_deep(void **state)
{
	struct event from = sample(), to;

	(void)state;
	from.response_fields = strdup("{\"x\":\"y\"}");
	from.error_message = strdup("message");
	from.error_traceback = strdup("traceback");
	assert_int_equal(event_copy(&to, &from), 0);
	assert_ptr_not_equal(to.error_message, from.error_message);
	event_clear(&from);
	assert_null(from.error_message);
	assert_true(id_is_zero(&from.id));
	assert_string_equal(to.response_fields, "{\"x\":\"y\"}");
	assert_string_equal(to.error_message, "message");
	assert_string_equal(to.error_traceback, "traceback");
	assert_string_equal(to.function_name, "music_tag");
	event_clear(&to);
}

static void
test_an_outcome_is_forgotten_whole(void **state)
{
	struct event e = sample();

	(void)state;
	e.reason = REASON_FUNCTION_FAILED;
	e.error_message = strdup("message");
	e.error_traceback = strdup("traceback");
	snprintf(e.error_type, sizeof e.error_type, "ValueError");
	e.logs_truncated = e.has_response = true;
	e.wall_us = e.response_bytes = 5;
	e.attempts = 2;
	event_forget_outcome(&e);
	assert_int_equal(e.reason, REASON_NONE);
	assert_null(e.error_message);
	assert_null(e.error_traceback);
	assert_string_equal(e.error_type, "");
	assert_false(e.logs_truncated || e.has_response || e.wall_us || e.response_bytes);
	assert_int_equal(e.attempts, 2);
	assert_string_equal(e.function_name, "music_tag");
	event_clear(&e);
}

/* The record as text and back, as a client reads it. */
static struct json *
record_of(const struct event *e, const void *response, size_t len)
{
	struct json *made = event_record(e, response, len), *read;
	char *text = json_print(made);

	assert_non_null(text);
	read = json_parse(text, strlen(text), NULL);
	assert_non_null(read);
	json_free(made);
	free(text);
	return read;
}

static void
test_record(void **state)
{
	struct event e = sample();
	struct json *r = record_of(&e, "{\"n\":12345678901234567890}", 26);
	const struct json *timeline = json_get(r, "timeline_us"), *usage = json_get(r, "usage");
	char *text;

	(void)state;
	assert_string_equal(json_str(r, "event_id"), "0199b2c0-0000-7000-8000-000000000001");
	assert_string_equal(json_str(r, "parent_event_id"), "0199b2c0-0000-7000-8000-000000000003");
	assert_true(json_is_null(json_get(r, "root_event_id")));
	assert_string_equal(json_str(r, "project_id"), "p1");
	assert_string_equal(json_str(r, "function_name"), "music_tag");
	assert_int_equal(json_int(r, "function_version", 0), 3);
	assert_string_equal(json_str(r, "source"), "chain");
	assert_string_equal(json_str(r, "type"), "async");
	assert_string_equal(json_str(r, "state"), "succeeded");
	assert_string_equal(json_str(r, "start"), "spare");
	assert_true(json_is_null(json_get(r, "reason")));
	assert_true(json_is_null(json_get(r, "retry_at")));
	assert_int_equal(json_int(r, "attempts", 0), 2);
	assert_string_equal(json_str(r, "created_at"), "2026-01-02T03:04:05.678901Z");
	assert_string_equal(json_str(r, "finished_at"), "2026-01-02T03:04:07.000000Z");
	assert_int_equal(json_count(timeline), PHASE_COUNT);
	assert_int_equal(json_int(timeline, "accept", 0), 10);
	assert_true(json_is_null(json_get(timeline, "persist")));
	assert_int_equal(json_int(timeline, "run", 0), 300);
	assert_int_equal(json_int(usage, "wall_us", 0), 1000);
	assert_int_equal(json_int(usage, "memory_peak_bytes", 0), 5 << 20);
	assert_true(json_is_null(json_get(r, "error")));
	assert_false(json_bool(r, "logs_truncated", true));
	json_free(r);
	/* The function's own bytes, not numbers that went through a double. */
	r = event_record(&e, "{\"n\":12345678901234567890}", 26);
	text = json_print(r);
	assert_non_null(strstr(text, "\"response\":{\"n\":12345678901234567890}"));
	free(text);
	json_free(r);
}

static void
test_record_of_a_new_event(void **state)
{
	struct event e = {.created_us = 1, .error_type = "", .not_before_us = 2000000};
	struct json *r = record_of(&e, NULL, 0);
	static const char *const nulls[] = {"reason", "node_id", "start", "started_at", "finished_at",
					    "function_version", "error", "response_content_type",
					    "parent_event_id"};

	(void)state;
	for (size_t i = 0; i < sizeof(nulls) / sizeof(nulls[0]); i++)
		assert_true(json_is_null(json_get(r, nulls[i])));
	assert_null(json_get(r, "response"));
	assert_string_equal(json_str(r, "state"), "queued");
	assert_string_equal(json_str(r, "created_at"), "1970-01-01T00:00:00.000001Z");
	assert_string_equal(json_str(r, "retry_at"), "1970-01-01T00:00:02.000000Z");
	assert_true(json_is_null(json_get(json_get(r, "usage"), "wall_us")));
	json_free(r);
	r = record_of(&e, "", 0); /* asked for, but it has none */
	assert_true(json_is_null(json_get(r, "response")));
	json_free(r);
}

static void
test_record_of_a_failure(void **state)
{
	struct event e = sample();
	struct json *r;

	(void)state;
	e.state = EVENT_DEAD;
	e.reason = REASON_FUNCTION_FAILED;
	strcpy(e.error_type, "ValueError");
	e.error_message = strdup("bad \"thing\"\n");
	r = record_of(&e, NULL, 0);
	assert_string_equal(json_str(r, "reason"), "function_failed");
	assert_string_equal(json_str(json_get(r, "error"), "type"), "ValueError");
	assert_string_equal(json_str(json_get(r, "error"), "message"), "bad \"thing\"\n");
	assert_true(json_is_null(json_get(json_get(r, "error"), "traceback")));
	json_free(r);
	event_clear(&e);
}

static void
test_shapes_of_the_response(void **state)
{
	static const struct {
		const char *type, *bytes;
		size_t len;
		const char *printed; /* the member "response" */
	} cases[] = {
		{"application/json", "[1, 2.50]", 9, "[1,2.5"}, /* the parser prints 2.5 */
		{"application/problem+json; charset=utf-8", "{}", 2, "{}"},
		{"APPLICATION/JSON", "true", 4, "true"},
		{"application/json", "{broken", 7, "\"{broken\""},
		{"application/json", "", 0, "\"\""},
		{"text/html; charset=utf-8", "<p>\xc3\xa9</p>", 9, "\"<p>\xc3\xa9</p>\""},
		{"text/plain", "a\0b", 3, "{\"base64\":\"YQBi\"}"},
		{"text/plain", "\xff", 1, "{\"base64\":\"/w==\"}"},
		{"application/octet-stream", "plain", 5, "{\"base64\":\"cGxhaW4=\"}"},
		{"image/svg+xml", "<svg/>", 6, "\"<svg/>\""},
		{"", "", 0, "{\"base64\":\"\"}"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct event e = sample();
		struct json *r;
		char *text;

		assert_int_equal(str_copy(e.response_content_type, sizeof(e.response_content_type),
					  cases[i].type), 0);
		r = record_of(&e, cases[i].bytes, cases[i].len);
		text = json_print(json_get(r, "response"));
		assert_non_null(text);
		assert_memory_equal(text, cases[i].printed, strlen(cases[i].printed));
		free(text);
		json_free(r);
	}
}

static void
test_base64(void **state)
{
	static const char *const cases[][2] = { /* RFC 4648, 10 */
		{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"},
		{"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"},
	};
	char out[STR_BASE64_MAX(6)];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		str_base64(cases[i][0], strlen(cases[i][0]), out);
		assert_string_equal(out, cases[i][1]);
		assert_int_equal(strlen(out) + 1, STR_BASE64_MAX(strlen(cases[i][0])));
	}
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_words_are_total_and_parse_back),
		cmocka_unit_test(test_which_states_end),
		cmocka_unit_test(test_copy_is_deep),
		cmocka_unit_test(test_an_outcome_is_forgotten_whole),
		cmocka_unit_test(test_record),
		cmocka_unit_test(test_record_of_a_new_event),
		cmocka_unit_test(test_record_of_a_failure),
		cmocka_unit_test(test_shapes_of_the_response),
		cmocka_unit_test(test_base64),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
