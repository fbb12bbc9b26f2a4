/*
 * JSON as bytes: what is found in it, and that printing changes nothing but space.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/buf.h"
#include "core/base/json.h"
#include "core/client/span.h"

static struct span
text(const char *json)
{
	assert_int_equal(json_check(json, strlen(json)), JSON_FORM_OK);
	return span_of(json, strlen(json));
}

static void
assert_span(struct span s, const char *expected)
{
	assert_non_null(s.p);
	assert_int_equal(s.n, strlen(expected));
	assert_memory_equal(s.p, expected, s.n);
}

static void
members_are_found(void **state)
{
	struct span s = text(" {\"a\" : 1 ,\"b\":{\"c\":[1,{\"d\":2}],\"e\":\"}\\\"]\"},"
			     "\"n\":null,\"big\":12345678901234567890.50} ");

	(void)state;
	assert_span(span_member(s, "a"), "1");
	assert_span(span_member(s, "n"), "null");
	assert_span(span_member(s, "big"), "12345678901234567890.50");
	assert_span(span_path(s, "b.c"), "[1,{\"d\":2}]");
	assert_span(span_path(s, "b.e"), "\"}\\\"]\"");
	assert_null(span_member(s, "zz").p);
	assert_null(span_path(s, "b.c.d").p);
	assert_null(span_path(s, "a.b").p);
	assert_span(span_path(s, "n.b.c"), "null");
	assert_null(span_path(s, "").p);
}

static void
items_are_walked(void **state)
{
	static const char *const expected[] = { "1", "\"two, ]\"", "[3]", "{}", "true" };
	struct span s = text("[1, \"two, ]\" ,[3],{} , true]"), value;
	size_t at = 0, n = 0;

	(void)state;
	while (span_next(s, &at, NULL, &value))
		assert_span(value, expected[n++]);
	assert_int_equal(n, 5);
	at = 0;
	assert_false(span_next(text("[ ]"), &at, NULL, &value));
	at = 0;
	assert_false(span_next(text("{}"), &at, NULL, &value));
	at = 0;
	assert_false(span_next(text("7"), &at, NULL, &value));
	at = 0;
	assert_false(span_next((struct span){ 0 }, &at, NULL, &value));
}

static void
assert_text(const char *json, const char *expected)
{
	char *t = span_text(text(json));

	assert_string_equal(t, expected);
	free(t);
}

static void
text_of_values(void **state)
{
	(void)state;
	assert_text("\"a\\nb\\u00e9\"", "a\nbé");
	assert_text("null", "");
	assert_text("1.50", "1.50");
	assert_text("false", "false");
	assert_text("[1, 2]", "[1, 2]");
}

static void
assert_pretty(const char *json, const char *expected)
{
	struct buf out = { 0 }, back = { 0 }, compact = { 0 };

	span_pretty(text(json), &out);
	assert_string_equal(out.data, expected);
	/* Without its space it is what it was without its space. */
	span_compact(span_of(out.data, out.len), &back);
	span_compact(text(json), &compact);
	assert_string_equal(back.data, compact.data);
	buf_free(&out);
	buf_free(&back);
	buf_free(&compact);
}

static void
printing_changes_space_alone(void **state)
{
	(void)state;
	assert_pretty("{\"a\":1,\"b\":[1,2],\"c\":{},\"d\":[ ]}",
		      "{\n  \"a\": 1,\n  \"b\": [\n    1,\n    2\n  ],\n  \"c\": {},\n  \"d\": []\n}");
	assert_pretty("\"x: {1, 2}\"", "\"x: {1, 2}\"");
	assert_pretty("1.000e5", "1.000e5");
	assert_pretty("[]", "[]");
	assert_pretty("[{}]", "[\n  {}\n]");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(members_are_found),
		cmocka_unit_test(items_are_walked),
		cmocka_unit_test(text_of_values),
		cmocka_unit_test(printing_changes_space_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
