/*
 * Which words allow what, and the rules that come of it.  What the rules do is tried by
 * tests/sandbox/test_egress.py.
 */
#include "sandbox/egress.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/buf.h"
#include "core/base/err.h"

static void
test_words(void **state)
{
	static const struct {
		const char *text;
		struct egress_rule rule;
	} good[] = {
		{"10.1.2.3", {0x0a010203, 32, 0, 0}},
		{"10.1.2.0/24", {0x0a010200, 24, 0, 0}},
		{"0.0.0.0/0:443", {0, 0, 443, 443}},
		{"127.0.0.1:3128", {0x7f000001, 32, 3128, 3128}},
		{"255.255.255.255/32:1-65535", {0xffffffff, 32, 1, 65535}},
	};
	static const char *const bad[] = {
		"", ":", "10", "10.1.2", "10.1.2.3.4", "10.1.2.256", "010.1.2.3x", "10.1.2.3/", "10.1.2.3/33",
		"10.1.2.3/-1", "10.1.2.3/8", "0.0.0.1/0", "10.1.2.3:", "10.1.2.3:0", "10.1.2.3:65536",
		"10.1.2.3:5-4", "10.1.2.3:5-", "10.1.2.3:-5", "10.1.2.3:http", "::1", "[::1]:5", "a.example",
		"10.1.2.3 accept", "1.1.1.1\n", "10.1.2.3:5 ", "11111111111111111111111111111111111111",
	};
	struct err e;

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		struct egress_rule r = {0};

		assert_int_equal(egress_rule_parse(good[i].text, &r, &e), 0);
		assert_int_equal(r.address, good[i].rule.address);
		assert_int_equal(r.prefix, good[i].rule.prefix);
		assert_int_equal(r.first, good[i].rule.first);
		assert_int_equal(r.last, good[i].rule.last);
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct egress_rule r = {.prefix = 77};

		memset(&e, 0, sizeof e);
		if (!egress_rule_parse(bad[i], &r, &e))
			fail_msg("'%s' was taken", bad[i]);
		assert_int_equal(e.cls, ERR_INPUT);
		assert_int_equal(r.prefix, 77);
	}
}

static const char *
position(const struct buf *b, const char *text)
{
	const char *at = strstr(b->data, text);

	if (!at)
		fail_msg("no '%s' in:\n%s", text, b->data);
	return at;
}

/* What is allowed comes before what is refused, and that before the Internet. */
static void
test_rules(void **state)
{
	const uint32_t own[] = {0xc6336401}, asked[] = {0x0a090002};
	struct egress_policy p = {0};
	struct buf out = {0};
	const char *last;
	struct err e;

	(void)state;
	assert_int_equal(egress_rule_parse("10.9.0.0/24:80-81", &p.allow[p.allow_count++], &e), 0);
	assert_false(egress_allows_loopback(&p));
	assert_int_equal(egress_ruleset(&p, own, 1, asked, 1, &out), 0);
	last = position(&out, "ip daddr 10.9.0.0/24 meta l4proto { tcp, udp } th dport 80-81 accept");
	assert_true(position(&out, "th dport 53 ip daddr 10.9.0.2 accept") < last);
	assert_true(last < position(&out, "10.0.0.0/8"));
	assert_true(position(&out, "10.0.0.0/8") < position(&out, "ip daddr 198.51.100.1 goto refuse"));
	assert_true(position(&out, "198.51.100.1") < position(&out, "meta nfproto ipv4 accept"));
	position(&out, "policy drop");
	assert_null(strstr(out.data, "dnat"));
	buf_free(&out);
	assert_int_equal(egress_rule_parse("127.0.0.1:3128", &p.allow[p.allow_count++], &e), 0);
	assert_true(egress_allows_loopback(&p));
	assert_int_equal(egress_ruleset(&p, NULL, 0, NULL, 0, &out), 0);
	position(&out, "ip daddr 127.0.0.1 meta l4proto { tcp, udp } th dport 3128-3128 dnat ip to 10.0.2.2");
	buf_free(&out);
	out.max = 200;
	assert_int_equal(egress_ruleset(&p, NULL, 0, NULL, 0, &out), -1);
	buf_free(&out);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_rules),
	};

	return cmocka_run_group_tests_name("egress", tests, NULL, NULL);
}
