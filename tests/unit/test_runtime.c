/*
 * What the node reads from a sandbox: the runtime's lines, its output, text in any
 * encoding.  All of it is a stranger's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/str.h"
#include "core/build/tail.h"
#include "core/node/env.h"
#include "core/node/output.h"
#include "core/node/runtime.h"
#include "core/node/utf8.h"

static const int64_t NOW_US = 1767323045678901ll;

/* ---- runtime.c ---- */

static int
parse(const char *line, struct runtime_reply *r, struct event *ev, struct err *e)
{
	memset(ev, 0, sizeof *ev);
	memset(e, 0, sizeof *e);
	return runtime_reply_parse(line, strlen(line), r, ev, e);
}

static void
event_line_is_one_line_of_json(void **state)
{
	struct event ev = { .source = SOURCE_TIMER, .payload_kind = PAYLOAD_JSON,
			    .payload_bytes = 12, .attempts = 3 };
	struct buf line = { 0 };
	struct json *j;
	char id[ID_TEXT_MAX];

	(void)state;
	ev.id = id_new();
	ev.function_id = id_new();
	id_format(&ev.id, id);
	assert_int_equal(runtime_event_line(&ev, 60000, &line), 0);
	assert_ptr_equal(memchr(line.data, '\n', line.len), line.data + line.len - 1);
	j = json_parse(line.data, line.len, NULL);
	assert_non_null(j);
	assert_int_equal(json_int(j, "v", 0), 1);
	assert_string_equal(json_str(j, "type"), "event");
	assert_string_equal(json_str(j, "event_id"), id);
	assert_string_equal(json_str(j, "request_id"), id);
	assert_string_equal(json_str(j, "source"), "timer");
	assert_string_equal(json_str(j, "payload"), "json");
	assert_int_equal(json_int(j, "attempt", 0), 3);
	assert_int_equal(json_int(j, "timeout_ms", 0), 60000);
	assert_int_equal(json_int(j, "bytes", 0), 12);
	json_free(j);
	buf_free(&line);
}

static void
answers_are_taken(void **state)
{
	struct runtime_reply r;
	struct event ev;
	struct err e;

	(void)state;
	assert_int_equal(parse("{\"v\":1,\"type\":\"imported\",\"start_us\":5,\"import_us\":7}", &r,
			       &ev, &e), 0);
	assert_int_equal(r.type, RUNTIME_IMPORTED);
	assert_int_equal(r.start_us, 5);
	assert_int_equal(r.import_us, 7);
	assert_int_equal(parse("{\"v\":1,\"type\":\"result\",\"ok\":true,\"run_us\":9,\"status\":201,"
			       "\"content_type\":\"text/plain\",\"bytes\":4,\"new\":[],"
			       "\"fields\":{\"X-A\":\"b\",\"Content-Length\":\"9\","
			       "\"DATE\":\"d\",\"pratai-state\":\"succeeded\"}}", &r, &ev, &e), 0);
	assert_int_equal(r.type, RUNTIME_RESULT);
	assert_true(r.ok && ev.has_response);
	assert_int_equal(r.bytes, 4);
	assert_int_equal(ev.response_bytes, 4);
	assert_int_equal(ev.response_status, 201);
	assert_string_equal(ev.response_content_type, "text/plain");
	assert_string_equal(ev.response_fields, "{\"X-A\":\"b\"}");
	assert_int_equal(ev.reason, REASON_NONE);
	event_clear(&ev);
	assert_int_equal(parse("{\"v\":1,\"type\":\"layer\",\"ok\":true}", &r, &ev, &e), 0);
	assert_int_equal(r.type, RUNTIME_LAYER);
}

static void
failures_are_kept_within_bounds(void **state)
{
	struct runtime_reply r;
	struct event ev;
	struct err e;
	struct buf line = { 0 };

	(void)state;
	assert_int_equal(parse("{\"v\":1,\"type\":\"result\",\"ok\":false,\"error\":{\"type\":"
			       "\"ValueError\",\"message\":\"no\",\"traceback\":\"T\"}}", &r, &ev, &e), 0);
	assert_false(r.ok);
	assert_int_equal(ev.reason, REASON_FUNCTION_FAILED);
	assert_string_equal(ev.error_type, "ValueError");
	assert_string_equal(ev.error_message, "no");
	assert_string_equal(ev.error_traceback, "T");
	event_clear(&ev);

	assert_int_equal(parse("{\"v\":1,\"type\":\"result\",\"ok\":false}", &r, &ev, &e), 0);
	assert_string_equal(ev.error_type, "Error");
	assert_null(ev.error_message);
	event_clear(&ev);

	/* 40 kB of two-byte characters: cut, and not in the middle of one */
	buf_puts(&line, "{\"v\":1,\"type\":\"result\",\"ok\":false,\"error\":{\"type\":\"");
	for (int i = 0; i < 100; i++)
		buf_puts(&line, "\xc3\xa9");
	buf_puts(&line, "\",\"message\":\"x");
	for (int i = 0; i < 10000; i++)
		buf_puts(&line, "\xc3\xa9");
	buf_puts(&line, "\",\"traceback\":\"x");
	for (int i = 0; i < 20000; i++)
		buf_puts(&line, "\xc3\xa9");
	buf_puts(&line, "\"}}");
	assert_int_equal(parse(line.data, &r, &ev, &e), 0);
	assert_true(strlen(ev.error_type) < EVENT_ERROR_TYPE_MAX);
	assert_true(str_is_utf8(ev.error_type, strlen(ev.error_type)));
	assert_true(strlen(ev.error_traceback) <= RUNTIME_TRACEBACK_MAX);
	assert_true(strlen(ev.error_traceback) > RUNTIME_TRACEBACK_MAX - 3);
	assert_true(str_is_utf8(ev.error_traceback, strlen(ev.error_traceback)));
	assert_true(str_is_utf8(ev.error_message, strlen(ev.error_message)));
	event_clear(&ev);
	buf_free(&line);
}

static void
bad_answers_are_refused(void **state)
{
	static const char *const bad[] = {
		"", "x", "[]", "null", "{}", "{\"v\":2,\"type\":\"result\",\"ok\":true}",
		"{\"v\":1,\"type\":\"other\"}", "{\"v\":1,\"type\":7}",
		"{\"v\":1,\"type\":\"result\"}", "{\"v\":1,\"type\":\"result\",\"ok\":1}",
		"{\"v\":1,\"type\":\"result\",\"ok\":true,\"bytes\":-1}",
		"{\"v\":1,\"type\":\"result\",\"ok\":true,\"bytes\":1.5}",
		"{\"v\":1,\"type\":\"result\",\"ok\":true,\"bytes\":\"4\"}",
		"{\"v\":1,\"type\":\"result\",\"ok\":true,\"bytes\":1e300}",
		"{\"v\":1,\"type\":\"result\",\"ok\":true,\"bytes\":6291457}",
		"{\"v\":1,\"type\":\"result\",\"ok\":true,\"run_us\":-4}",
		"{\"v\":1,\"type\":\"result\",\"ok\":true,\"status\":199}",
		"{\"v\":1,\"type\":\"result\",\"ok\":true,\"status\":600}",
		"{\"v\":1,\"type\":\"result\",\"ok\":true,\"status\":\"200\"}",
		"{\"v\":1,\"type\":\"result\",\"ok\":true,\"content_type\":\"a\\r\\nB: c\"}",
		"{\"v\":1,\"type\":\"result\",\"ok\":true,\"content_type\":3}",
		"{\"v\":1,\"type\":\"result\",\"ok\":true,\"fields\":[]}",
		"{\"v\":1,\"type\":\"result\",\"ok\":true,\"fields\":{\"a b\":\"c\"}}",
		"{\"v\":1,\"type\":\"result\",\"ok\":true,\"fields\":{\"\":\"c\"}}",
		"{\"v\":1,\"type\":\"result\",\"ok\":true,\"fields\":{\"a\":\"b\\nc\"}}",
		"{\"v\":1,\"type\":\"result\",\"ok\":true,\"fields\":{\"a\":1}}",
		"{\"v\":1,\"type\":\"result\",\"ok\":true} x",
		"{\"v\":1,\"type\":\"result\",\"ok\":true,\"content_type\":\"\xff\"}",
	};
	struct runtime_reply r;
	struct event ev;
	struct err e;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		if (parse(bad[i], &r, &ev, &e) == 0)
			fail_msg("taken: %s", bad[i]);
		assert_int_equal(e.cls, ERR_FUNCTION);
		assert_true(e.text[0] && !strchr(e.text, '\n'));
		event_clear(&ev);
	}
}

static void
many_and_long_fields_are_refused(void **state)
{
	struct buf line = { 0 };
	struct runtime_reply r;
	struct event ev;
	struct err e;

	(void)state;
	buf_puts(&line, "{\"v\":1,\"type\":\"result\",\"ok\":true,\"fields\":{\"a\":\"b\"");
	for (int i = 0; i < 64; i++)
		buf_printf(&line, ",\"a%d\":\"b\"", i);
	buf_puts(&line, "}}");
	assert_int_equal(parse(line.data, &r, &ev, &e), -1);
	buf_free(&line);
	buf_puts(&line, "{\"v\":1,\"type\":\"result\",\"ok\":true,\"fields\":{\"a\":\"");
	for (int i = 0; i < 17 << 10; i++)
		buf_puts(&line, "b");
	buf_puts(&line, "\"}}");
	assert_int_equal(parse(line.data, &r, &ev, &e), -1);
	buf_free(&line);
}

/* ---- utf8.c ---- */

static void
utf8_is_judged_like_the_base_does(void **state)
{
	char s[4];

	(void)state;
	/* every sequence of three bytes from the ranges' edges */
	static const unsigned char edge[] = { 0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0,
					      0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef,
					      0xf0, 0xf1, 0xf4, 0xf5, 0xff };
	for (size_t a = 0; a < sizeof edge; a++)
		for (size_t b = 0; b < sizeof edge; b++)
			for (size_t c = 0; c < sizeof edge; c++)
				for (size_t d = 0; d < sizeof edge; d++) {
					size_t at = 0;
					int n;

					s[0] = (char)edge[a];
					s[1] = (char)edge[b];
					s[2] = (char)edge[c];
					s[3] = (char)edge[d];
					while (at < 4 && (n = utf8_length(s + at, 4 - at)) > 0)
						at += (size_t)n;
					assert_int_equal(at == 4, str_is_utf8(s, 4));
				}
	assert_int_equal(utf8_length("\xf0\x9f\x98", 3), 0);
	assert_int_equal(utf8_length("", 0), 0);
}

static void
plain_text_has_no_controls(void **state)
{
	struct buf out = { 0 };

	(void)state;
	assert_int_equal(utf8_put_plain(&out, "a\x1b[1m\tb\r\n\xff\x7f" "c\0d\xc3\xa9", 16), 0);
	assert_string_equal(out.data, "a?[1m\tb?\n??c?d\xc3\xa9");
	buf_free(&out);
}

/* ---- output.c ---- */

static int
records(struct output *o, char lines[][OUTPUT_LINE_MAX + 8], char streams[], int max)
{
	const char *at = o->records.data ? o->records.data : "";
	int n = 0;

	while (*at) {
		const char *end = strchr(at, '\n');
		struct json *j = json_parse(at, (size_t)(end - at), NULL);

		assert_non_null(j);
		assert_true(n < max);
		assert_string_equal(json_str(j, "t"), "2026-01-02T03:04:05.678901Z");
		snprintf(lines[n], sizeof lines[n], "%s", json_str(j, "l"));
		streams[n++] = json_str(j, "s")[3]; /* 'o'ut, 'e'rr */
		json_free(j);
		at = end + 1;
	}
	return n;
}

static char lines[64][OUTPUT_LINE_MAX + 8];
static char streams[64];

static void
feed(struct output *o, enum output_stream s, const char *text)
{
	output_feed(o, s, text, strlen(text), NOW_US);
}

static void
a_nul_costs_no_line(void **state)
{
	struct output o;

	(void)state;
	output_init(&o, 1 << 20);
	output_feed(&o, OUTPUT_STDOUT, "a\0b\n\0", 5, NOW_US);
	output_end(&o, NOW_US);
	assert_int_equal(records(&o, lines, streams, 64), 2);
	assert_string_equal(lines[0], "a\xef\xbf\xbd" "b");
	assert_string_equal(lines[1], "\xef\xbf\xbd");
	output_free(&o);
}

static void
lines_are_kept_in_order(void **state)
{
	struct output o;

	(void)state;
	output_init(&o, 1 << 20);
	feed(&o, OUTPUT_STDOUT, "one\ntw");
	feed(&o, OUTPUT_STDERR, "err \"quoted\" \\ \x1b\n");
	feed(&o, OUTPUT_STDOUT, "o\n\nlast");
	output_end(&o, NOW_US);
	assert_int_equal(records(&o, lines, streams, 64), 5);
	assert_string_equal(lines[0], "one");
	assert_string_equal(lines[1], "err \"quoted\" \\ \x1b");
	assert_string_equal(lines[2], "two");
	assert_string_equal(lines[3], "");
	assert_string_equal(lines[4], "last");
	assert_memory_equal(streams, "oeooo", 5);
	assert_false(o.truncated);
	output_free(&o);
}

static void
bad_bytes_and_long_lines(void **state)
{
	struct output o;
	size_t total = 0;

	(void)state;
	output_init(&o, 1 << 20);
	feed(&o, OUTPUT_STDOUT, "a\xff\xc3");
	feed(&o, OUTPUT_STDOUT, "\xa9z\n"); /* a character over two reads */
	for (int i = 0; i < 10000; i++)
		feed(&o, OUTPUT_STDERR, "\xe2\x82\xac");
	feed(&o, OUTPUT_STDERR, "\n");
	output_end(&o, NOW_US);
	assert_int_equal(records(&o, lines, streams, 64), 1 + 4);
	assert_string_equal(lines[0], "a\xef\xbf\xbd\xc3\xa9z");
	for (int i = 1; i < 5; i++) {
		assert_true(strlen(lines[i]) <= OUTPUT_LINE_MAX && strlen(lines[i]) % 3 == 0);
		assert_null(strstr(lines[i], "\xef\xbf\xbd"));
		total += strlen(lines[i]);
	}
	assert_int_equal(total, 30000);
	output_free(&o);
}

static void
output_is_cut_exactly_and_says_so(void **state)
{
	struct output o;

	(void)state;
	output_init(&o, 10);
	feed(&o, OUTPUT_STDOUT, "12345");
	feed(&o, OUTPUT_STDERR, "abcde");
	assert_false(o.exceeded);
	feed(&o, OUTPUT_STDOUT, "6");
	assert_true(o.exceeded);
	feed(&o, OUTPUT_STDOUT, "7\n");
	output_end(&o, NOW_US);
	assert_int_equal(o.bytes, 10);
	assert_int_equal(records(&o, lines, streams, 64), 3);
	assert_string_equal(lines[0], "12345");
	assert_string_equal(lines[1], "abcde");
	assert_string_equal(lines[2], "output limit of 10 bytes exceeded, cut here");
	assert_true(o.truncated);
	output_free(&o);
}

static void
empty_lines_do_not_fill_memory(void **state)
{
	char block[4096];
	struct output o;
	const char *last;

	(void)state;
	memset(block, '\n', sizeof block);
	output_init(&o, 1 << 20);
	for (int i = 0; i < 256; i++)
		output_feed(&o, OUTPUT_STDOUT, block, sizeof block, NOW_US);
	output_end(&o, NOW_US);
	assert_false(o.exceeded);
	assert_true(o.truncated);
	assert_true(o.records.len <= OUTPUT_RECORDS_MAX);
	last = memrchr(o.records.data, '\n', o.records.len - 1);
	assert_non_null(strstr(last, "records exceed"));
	output_free(&o);
}

/* ---- tail.c, env.c ---- */

static void
tail_keeps_the_end(void **state)
{
	struct tail t = { 0 };
	char block[1000], *text;

	(void)state;
	memset(block, 'x', sizeof block);
	for (int i = 0; i < 2000; i++)
		assert_int_equal(tail_add(&t, block, sizeof block), 0);
	assert_int_equal(tail_add(&t, "the end\n", 8), 0);
	assert_true(t.kept.len <= 2 * TAIL_MAX);
	text = tail_text(&t);
	assert_true(str_starts(text, "["));
	assert_non_null(strstr(text, "bytes before this are left out]\nxxxx"));
	assert_string_equal(text + strlen(text) - 8, "the end\n");
	assert_true(strlen(text) <= TAIL_MAX + 64);
	free(text);
	tail_free(&t);
	text = tail_text(&t);
	assert_string_equal(text, "");
	free(text);
}

static void
environment_replaces_and_refuses(void **state)
{
	static const char object[] = "{\"PATH\":\"/x\",\"A\":\"b=c\"}";
	struct json *own = json_parse(object, strlen(object), NULL);
	struct env env;
	struct err e = { 0 };
	char *huge = malloc(ENV_BYTES_MAX + 1);

	(void)state;
	assert_int_equal(env_base(&env, &e), 0);
	assert_int_equal(env_set_all(&env, own, &e), 0);
	assert_int_equal(env.count, 4);
	assert_string_equal(env.list[0], "PATH=/x");
	assert_string_equal(env.list[3], "A=b=c");
	assert_null(env.list[4]);
	assert_int_equal(env_set(&env, "", "x", &e), -1);
	assert_int_equal(env_set(&env, "A=B", "x", &e), -1);
	memset(huge, 'h', ENV_BYTES_MAX);
	huge[ENV_BYTES_MAX] = '\0';
	assert_int_equal(env_set(&env, "HUGE", huge, &e), -1);
	assert_int_equal(e.cls, ERR_INPUT);
	free(huge);
	env_free(&env);
	json_free(own);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(event_line_is_one_line_of_json),
		cmocka_unit_test(answers_are_taken),
		cmocka_unit_test(failures_are_kept_within_bounds),
		cmocka_unit_test(bad_answers_are_refused),
		cmocka_unit_test(many_and_long_fields_are_refused),
		cmocka_unit_test(utf8_is_judged_like_the_base_does),
		cmocka_unit_test(plain_text_has_no_controls),
		cmocka_unit_test(lines_are_kept_in_order),
		cmocka_unit_test(a_nul_costs_no_line),
		cmocka_unit_test(bad_bytes_and_long_lines),
		cmocka_unit_test(output_is_cut_exactly_and_says_so),
		cmocka_unit_test(empty_lines_do_not_fill_memory),
		cmocka_unit_test(tail_keeps_the_end),
		cmocka_unit_test(environment_replaces_and_refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
