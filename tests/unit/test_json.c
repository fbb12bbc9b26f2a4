/*
 * JSON from outside: the checker on RFC 8259's corners, what the tree refuses beyond it,
 * and that numbers and raw bytes come out as they went in.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/json.h"

#define CHECK(text) json_check(text, sizeof(text) - 1)

static void
test_check_takes(void **state)
{
	static const char *const good[] = {
		"null",
		" true\n",
		"false",
		"0",
		"-0",
		"-0.0e-0",
		"1E+2",
		"123456789012345678901234567890",
		"1e999",
		"\"\"",
		"\"a\\u0000\\\"\\/\\b\\f\\n\\r\\t\\\\\"",
		"\"\\ud800\"",
		"\"\x7f\"",
		"\"\xc3\xa9\xf4\x8f\xbf\xbf\"",
		"[]",
		"[ ]",
		"{}",
		"{ }",
		"[1,[2,{\"a\":[]}],3]",
		"{\"a\":1,\"a\":2}",
		"\t{\r\n\"a\" : [ 1 , 2 ] }",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
		if (json_check(good[i], strlen(good[i])) != JSON_FORM_OK)
			fail_msg("refused: %s", good[i]);
}

static void
test_check_refuses(void **state)
{
	static const char *const bad[] = {
		"",
		" ",
		"nul",
		"nulll",
		"True",
		"NaN",
		"Infinity",
		"-",
		"+1",
		"01",
		"-01",
		"1.",
		".5",
		"1e",
		"1e+",
		"0x1",
		"1 2",
		"\"",
		"\"\\\"",
		"\"\\x\"",
		"\"\\u12\"",
		"\"\\u12g4\"",
		"\"a\nb\"",
		"\"\xff\"",
		"\"\xc0\x80\"",
		"\"\xed\xa0\x80\"",
		"\"\xf4\x90\x80\x80\"",
		"\"\xc3\"",
		"\xef\xbb\xbf{}",
		"[",
		"]",
		"[1",
		"[1,",
		"[1,]",
		"[,1]",
		"[1 2]",
		"{",
		"{\"a\"",
		"{\"a\":",
		"{\"a\":1",
		"{\"a\":1,}",
		"{\"a\" 1}",
		"{a:1}",
		"{1:1}",
		"{,}",
		"[}",
		"{]",
		"[1}",
		"{\"a\":1]",
		"{}}",
		"// c\n1",
		"'a'",
		"\xc2\xa0"
		"1",
		"[\f1]",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		if (json_check(bad[i], strlen(bad[i])) != JSON_FORM_BAD)
			fail_msg("taken: %s", bad[i]);
	assert_int_equal(CHECK("1\0"), JSON_FORM_BAD);
	assert_int_equal(CHECK("\"a\0b\""), JSON_FORM_BAD);
}

/* Every prefix of a valid text, in memory of just its size (for the address sanitizer). */
static void
test_check_truncated(void **state)
{
	static const char text[] =
		"{\"k\\u00e9y\": [1.5e+3, true, \"\xe2\x82\xac\\n\", {\"b\": null}]}";

	(void)state;
	for (size_t n = 0; n < sizeof(text) - 1; n++) {
		char *copy = malloc(n ? n : 1);
		size_t at, got;

		assert_non_null(copy);
		memcpy(copy, text, n);
		assert_int_equal(json_scan(copy, n, &at), JSON_FORM_BAD);
		assert_true(at <= n);
		json_only_member(copy, n, "key", &at, &got);
		free(copy);
	}
}

static void
test_depth(void **state)
{
	size_t deep = 100000;
	char *text = malloc(2 * deep);
	struct err e = {0};
	struct json *j;

	(void)state;
	assert_non_null(text);
	memset(text, '[', deep);
	assert_int_equal(json_check(text, deep), JSON_FORM_DEEP);
	memset(text + deep, ']', deep);
	assert_int_equal(json_check(text, 2 * deep), JSON_FORM_DEEP);
	assert_int_equal(json_check(text + deep - JSON_DEPTH_MAX, 2 * JSON_DEPTH_MAX),
			 JSON_FORM_OK);
	assert_int_equal(json_check(text + deep - JSON_DEPTH_MAX - 1, 2 * JSON_DEPTH_MAX + 2),
			 JSON_FORM_DEEP);
	assert_null(json_parse(text, 2 * deep, &e));
	assert_int_equal(e.cls, ERR_INPUT);
	assert_non_null(strstr(e.text, "nested deeper than 512"));
	j = json_parse(text + deep - JSON_DEPTH_MAX, 2 * JSON_DEPTH_MAX, &e);
	assert_non_null(j);
	json_free(j);
	free(text);
}

static void
only(const char *text, const char *value)
{
	size_t at = 1000, n = 2000;
	bool is = json_only_member(text, strlen(text), "payload", &at, &n);

	if (is != (value != NULL) || (!is && (at != 1000 || n != 2000)))
		fail_msg("%s", text);
	if (value && (n != strlen(value) || memcmp(text + at, value, n) != 0))
		fail_msg("%s: %.*s", text, (int)n, text + at);
}

static void
test_only_member(void **state)
{
	(void)state;
	only("{\"payload\":1.000000000000000000001}", "1.000000000000000000001");
	only(" { \"payload\" : { \"a\" : [ 1 ] } } ", "{ \"a\" : [ 1 ] }");
	only("{\"p\\u0061ylo\\u0061d\":\"x\\\"}\"}", "\"x\\\"}\"");
	only("{\"payload\":null}", "null");
	only("{\"payload\":1,\"b\":2}", NULL);
	only("{\"payload\":1,\"payload\":2}", NULL);
	only("{\"payloads\":1}", NULL);
	only("{\"payloa\":1}", NULL);
	only("{\"payload\\u0000\":1}", NULL);
	only("{\"\":1}", NULL);
	only("{}", NULL);
	only("[\"payload\"]", NULL);
	only("\"payload\"", NULL);
}

static void
member(const char *text, const char *key, const char *expected)
{
	size_t at = 0, n = 0;
	bool is = json_member(text, strlen(text), key, &at, &n);

	assert_int_equal(is, expected != NULL);
	if (expected) {
		assert_int_equal(n, strlen(expected));
		assert_memory_equal(text + at, expected, n);
	}
}

static void
test_member(void **state)
{
	static const char text[] = " { \"a\" : { \"b\" : 1 } , \"s\":\"\\\"b\\\":2\",\"\\u0062\":[3] ,\"b\":4}";

	(void)state;
	member(text, "a", "{ \"b\" : 1 }");
	member(text, "b", "[3]");
	member(text, "s", "\"\\\"b\\\":2\"");
	member(text, "c", NULL);
	member("{}", "a", NULL);
	member("[1]", "a", NULL);
	member("\"a\"", "a", NULL);
}

static void
refused(const char *text, const char *why)
{
	struct err e = {0};
	struct json *j = json_parse(text, strlen(text), &e);

	if (j)
		fail_msg("taken: %s", text);
	assert_int_equal(e.cls, ERR_INPUT);
	if (!strstr(e.text, why))
		fail_msg("%s: %s", text, e.text);
}

static void
test_parse_refuses(void **state)
{
	(void)state;
	refused("", "empty");
	refused("{\"a\":1,}", "not JSON at byte 7");
	refused("{\"a\":", "not JSON at byte 5, its end");
	refused("{} x", "not JSON at byte 3");
	refused("{\"a\":1,\"b\":2,\"a\":3}", "the key \"a\" twice");
	refused("[{\"x\":{\"a\":1,\"\\u0061\":3}}]", "the key \"a\" twice");
	refused("{\"a\\u0000b\":1}", "encoded NUL");
	refused("\"\\ud800\"", "cannot be kept");
	refused("1e999", "out of range");
}

/* Versions of cJSON differ: some read 63 characters of a number and go on behind them. */
static void
test_long_number(void **state)
{
	static const char digits[] =
		"1111111111222222222233333333334444444444555555555566666666667777";
	struct err e = {0};
	struct json *j = json_parse(digits, sizeof(digits) - 1, &e);

	(void)state;
	if (j)
		assert_true(json_number_value(j) > 1.1e63 && json_number_value(j) < 1.2e63);
	else
		assert_non_null(strstr(e.text, "cannot be kept"));
	json_free(j);
}

static void
test_parse_reads(void **state)
{
	static const char text[] =
		"{\"s\":\"\\\\u0000\",\"i\":-5,\"big\":9007199254740991,\"over\":9007199254740993,"
		"\"f\":1.5,\"t\":true,\"n\":null,\"A\":1,\"a\":2,\"l\":[1,2,3],\"e\":1e3}";
	struct err e = {0};
	struct json *j = json_parse(text, strlen(text), &e);
	int64_t i = 0;
	CLEAN_FREE char *out = NULL;

	(void)state;
	assert_non_null(j);
	assert_string_equal(json_str(j, "s"), "\\u0000");
	assert_int_equal(json_int(j, "i", 7), -5);
	assert_true(json_whole(j, "big", &i));
	assert_true(i == 9007199254740991);
	assert_true(json_is_number(json_get(j, "big")));
	assert_false(json_whole(j, "over", &i));
	assert_false(json_whole(j, "f", &i));
	assert_int_equal(json_int(j, "f", 7), 7);
	assert_true(json_whole(j, "e", &i) && i == 1000);
	assert_int_equal(json_int(j, "t", 7), 7);
	assert_true(json_number_value(json_get(j, "f")) == 1.5);
	assert_true(json_bool(j, "t", false));
	assert_true(json_bool(j, "i", true));
	assert_true(json_is_null(json_get(j, "n")));
	assert_false(json_is_null(json_get(j, "missing")));
	assert_int_equal(json_int(j, "A", 0), 1);
	assert_int_equal(json_int(j, "a", 0), 2);
	assert_int_equal(json_count(json_get(j, "l")), 3);
	assert_int_equal(json_count(NULL), 0);
	assert_null(json_get(NULL, "x"));
	assert_null(json_str(NULL, "x"));
	assert_string_equal(json_key(json_first(j)), "s");
	assert_string_equal(json_key(json_next(json_first(j))), "i");
	out = json_print(j);
	assert_non_null(strstr(out, "\"big\":9007199254740991,"));
	json_free(j);
}

static void
test_build(void **state)
{
	struct json *j = json_object(), *list = json_array(), *copy;
	CLEAN_FREE char *text = NULL, *again = NULL;
	int64_t i;

	(void)state;
	json_put_int(j, "min", INT64_MIN);
	json_put_int(j, "max", INT64_MAX);
	json_put_int(j, "us", 1763860123456789);
	json_put_int(j, "small", -42);
	json_put_str(j, "null", NULL);
	json_put_str(j, "bad", "a\xff\xc3\xa9\xc3");
	json_put_raw(j, "raw", "1.00000000000000000000001xx", 25);
	json_put_double(j, "d", 0.25);
	json_put_bool(j, "b", true);
	json_put_null(j, "gone");
	json_remove(j, "gone");
	json_put_int(j, "small", 43);
	json_add_str(list, "x");
	json_add(list, json_new_int(2));
	json_put(j, "list", list);
	json_put(j, "none", NULL);
	assert_true(json_whole(j, "max", &i) && i == INT64_MAX);
	assert_true(json_whole(j, "min", &i) && i == INT64_MIN);
	text = json_print(j);
	assert_string_equal(text, "{\"min\":-9223372036854775808,\"max\":9223372036854775807,"
				  "\"us\":1763860123456789,\"small\":43,\"null\":null,"
				  "\"bad\":\"a\xef\xbf\xbd\xc3\xa9\xef\xbf\xbd\","
				  "\"raw\":1.00000000000000000000001,\"d\":0.25,\"b\":true,"
				  "\"list\":[\"x\",2]}");
	copy = json_copy(j);
	again = json_print(copy);
	assert_string_equal(text, again);
	json_free(copy);
	json_free(j);
}

/* An object with many members must not take quadratic time to be refused. */
static void
test_many_members(void **state)
{
	enum { MEMBERS = 200000 };
	char *text = malloc(MEMBERS * 16 + 2), *p = text;
	struct err e = {0};

	(void)state;
	assert_non_null(text);
	*p++ = '{';
	for (int i = 0; i < MEMBERS; i++)
		p += sprintf(p, "%s\"k%d\":0", i ? "," : "", i == MEMBERS - 1 ? 0 : i);
	*p++ = '}';
	assert_null(json_parse(text, (size_t)(p - text), &e));
	assert_non_null(strstr(e.text, "\"k0\" twice"));
	free(text);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_check_takes),     cmocka_unit_test(test_check_refuses),
		cmocka_unit_test(test_check_truncated), cmocka_unit_test(test_depth),
		cmocka_unit_test(test_member), cmocka_unit_test(test_only_member),     cmocka_unit_test(test_parse_refuses),
		cmocka_unit_test(test_parse_reads),     cmocka_unit_test(test_build),
		cmocka_unit_test(test_many_members),    cmocka_unit_test(test_long_number),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
