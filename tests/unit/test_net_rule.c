/*
 * Words that name addresses and ports: read, written again, checked as bytes, compared.
 */
#include "core/base/net_rule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/err.h"

static struct err e;

static void
test_words(void **state)
{
	static const struct {
		const char *text;
		struct net_rule rule;
	} good[] = {
		{"10.1.2.3", {0x0a010203, 32, 0, 0, 0}},
		{"10.1.2.0/24", {0x0a010200, 24, 0, 0, 0}},
		{"0.0.0.0/0:443", {0, 0, 0, 443, 443}},
		{"127.0.0.1:3128", {0x7f000001, 32, 0, 3128, 3128}},
		{"255.255.255.255:1-65535", {0xffffffff, 32, 0, 1, 65535}},
		{"100.100.100.100/30:10000-10001", {0x64646464, 30, 0, 10000, 10001}},
	};
	static const char *const bad[] = {
		"", ":", "10", "10.1.2", "10.1.2.3.4", "10.1.2.256", "010.1.2.3x", "10.1.2.3/", "10.1.2.3/33",
		"10.1.2.3/-1", "10.1.2.3/8", "0.0.0.1/0", "10.1.2.3:", "10.1.2.3:0", "10.1.2.3:65536",
		"10.1.2.3:5-4", "10.1.2.3:5-", "10.1.2.3:-5", "10.1.2.3:http", "::1", "[::1]:5", "a.example",
		"10.1.2.3 accept", "1.1.1.1\n", "10.1.2.3:5 ", "11111111111111111111111111111111111111",
	};

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		char text[NET_RULE_TEXT_MAX];
		struct net_rule r = {0};

		assert_int_equal(net_rule_parse(good[i].text, &r, &e), 0);
		assert_memory_equal(&r, &good[i].rule, sizeof r);
		assert_true(net_rule_is_valid(&r));
		net_rule_format(&r, text);
		assert_string_equal(text, good[i].text);
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct net_rule r = {.prefix = 77};

		memset(&e, 0, sizeof e);
		if (!net_rule_parse(bad[i], &r, &e))
			fail_msg("'%s' was taken", bad[i]);
		assert_int_equal(e.cls, ERR_INPUT);
		assert_int_equal(r.prefix, 77);
	}
}

/* Bytes of a stranger's. */
static void
test_bytes(void **state)
{
	static const struct net_rule bad[] = {
		{0x0a000000, 33, 0, 0, 0}, {0x0a000000, 255, 0, 0, 0}, {0x0a000000, 8, 1, 0, 0},
		{0x0a000001, 8, 0, 0, 0}, {1, 0, 0, 0, 0}, {0x0a000000, 8, 0, 2, 1},
		{0x0a000000, 8, 0, 0, 5}, {0x0a000000, 8, 0, 5, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		if (net_rule_is_valid(&bad[i]))
			fail_msg("number %zu was taken", i);
}

static int
is_within(const char *inner, const char *a, const char *b)
{
	struct net_rules outer = {.count = 2};
	struct net_rule r;

	assert_int_equal(net_rule_parse(inner, &r, &e), 0);
	assert_int_equal(net_rule_parse(a, &outer.list[0], &e), 0);
	assert_int_equal(net_rule_parse(b, &outer.list[1], &e), 0);
	return net_rule_is_within(&r, &outer);
}

static void
test_within(void **state)
{
	static const struct net_rules none;
	struct net_rule any = {0};

	(void)state;
	assert_true(is_within("10.1.2.3:80", "1.1.1.1", "10.0.0.0/8"));
	assert_true(is_within("10.1.2.0/24:80-90", "1.1.1.1", "10.1.2.0/24:80-90"));
	assert_true(is_within("10.1.2.3", "0.0.0.0/0", "10.1.2.3:80"));
	assert_false(is_within("10.0.0.0/7", "10.0.0.0/8", "11.0.0.0/8"));
	assert_false(is_within("11.1.2.3", "10.0.0.0/8", "1.1.1.1"));
	assert_false(is_within("10.1.2.3", "10.0.0.0/8:1-65535", "1.1.1.1")); /* other protocols */
	assert_false(is_within("10.1.2.3:79", "10.0.0.0/8:80-90", "1.1.1.1"));
	assert_false(is_within("10.1.2.3:85-91", "10.0.0.0/8:80-90", "10.0.0.0/8:91"));
	assert_false(is_within("0.0.0.0/0", "127.0.0.1", "10.0.0.0/8"));
	assert_false(net_rule_is_within(&any, &none));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_within),
	};

	return cmocka_run_group_tests_name("net_rule", tests, NULL, NULL);
}
