/*
 * Which URLs allow what, and the rules that come of it.  What the rules do is tried by
 * tests/sandbox/test_egress.py.
 */
#include "sandbox/egress.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/buf.h"
#include "core/base/err.h"

static struct egress_names
named(const char *url, int is_proxy)
{
	struct egress_names n = { .count = 0 };

	egress_names_add(&n, url, strlen(url), is_proxy);
	return n;
}

static void
test_urls(void **state)
{
	static const struct {
		const char *url, *host;
		uint16_t port;
		int is_proxy;
	} good[] = {
		{"http://a.example", "a.example", 80, 0},
		{"https://a.example/simple/", "a.example", 443, 0},
		{"HTTPS://A-b_c.example?x=http://y", "A-b_c.example", 443, 0},
		{"https://user:p%40ss@a.example:8443/x@y", "a.example", 8443, 0},
		{"http://user:p@ss@a.example/x", "a.example", 80, 0},
		{"http://127.0.0.1:3141/root/pypi/+simple/", "127.0.0.1", 3141, 0},
		{"git+https://a.example/x.git", "a.example", 443, 0},
		{"socks5h://a.example", "a.example", 1080, 1},
		{"a.example:3128", "a.example", 3128, 1},
		{"a.example", "a.example", 80, 1},
		{"user:pass@a.example:3128/", "a.example", 3128, 1},
	};
	static const char *const bad[] = {
		"", "a.example:3128", "/usr/share", "file:///x", "file://a.example/x", "ftp://a.example",
		"http://", "http:///x", "http://:80", "http://a:0", "http://a:65536", "http://a:1x",
		"http://a:", "http://[::1]:80/", "http://-x/", "http://a b/", "http://a\n/", "://a",
		"http://a$(x)/",
	};
	struct egress_names many = { .count = 0 };
	char long_name[400] = "http://";

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		struct egress_names n = named(good[i].url, good[i].is_proxy);

		assert_int_equal(n.count, 1);
		assert_string_equal(n.list[0].host, good[i].host);
		assert_int_equal(n.list[0].port, good[i].port);
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		if (named(bad[i], 0).count)
			fail_msg("'%s' was taken", bad[i]);
	memset(long_name + 7, 'a', 253);
	assert_int_equal(named(long_name, 0).count, 1);
	long_name[7 + 253] = 'a';
	assert_int_equal(named(long_name, 0).count, 0);
	for (int i = 0; i < 2 * EGRESS_NAMES_MAX; i++) {
		char url[32];
		int n = snprintf(url, sizeof url, "http://a:%d", 1 + i);

		egress_names_add(&many, url, (size_t)n, 0);
		egress_names_add(&many, url, (size_t)n, 0); /* once only */
	}
	assert_int_equal(many.count, EGRESS_NAMES_MAX);
	assert_int_equal(many.list[EGRESS_NAMES_MAX - 1].port, EGRESS_NAMES_MAX);
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
	struct net_rules p = {0};
	struct buf out = {0};
	const char *last;
	struct err e;

	(void)state;
	assert_int_equal(net_rule_parse("10.9.0.0/24:80-81", &p.list[p.count++], &e), 0);
	assert_false(egress_allows_loopback(&p));
	assert_int_equal(egress_ruleset(&p, own, 1, asked, 1, &out), 0);
	last = position(&out, "ip daddr 10.9.0.0/24 meta l4proto { 6, 17 } th dport 80-81 accept");
	assert_true(position(&out, "th dport 53 ip daddr 10.9.0.2 accept") < last);
	assert_true(last < position(&out, "10.0.0.0/8"));
	assert_true(position(&out, "10.0.0.0/8") < position(&out, "ip daddr 198.51.100.1 goto refuse"));
	assert_true(position(&out, "198.51.100.1") < position(&out, "meta nfproto ipv4 accept"));
	position(&out, "policy drop");
	assert_null(strstr(out.data, "dnat"));
	buf_free(&out);
	assert_int_equal(net_rule_parse("127.0.0.1:3128", &p.list[p.count++], &e), 0);
	assert_true(egress_allows_loopback(&p));
	assert_int_equal(egress_ruleset(&p, NULL, 0, NULL, 0, &out), 0);
	position(&out, "ip daddr 127.0.0.1 meta l4proto { 6, 17 } th dport 3128-3128 dnat ip to 10.0.2.2");
	buf_free(&out);
	out.max = 200;
	assert_int_equal(egress_ruleset(&p, NULL, 0, NULL, 0, &out), -1);
	buf_free(&out);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_urls),
		cmocka_unit_test(test_rules),
	};

	return cmocka_run_group_tests_name("egress", tests, NULL, NULL);
}
