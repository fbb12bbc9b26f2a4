/*
 * See egress.h.  The order of the rules is the policy: what is allowed by name comes before
 * what is refused, and what is neither is the Internet.  A refusal is an answer, so that a
 * program fails at once and does not wait; for TCP a reset, since of ICMP it takes no notice
 * before it has tried again.
 *
 * Protocols are numbers (6 TCP, 17 UDP): nft knows their names from a file that may be missing.
 *
 * The machine's loopback is reached through the stack's gateway.  A program inside asks for
 * 127.0.0.1, which is its own; so an allowed port of it is turned into the gateway's.
 */
#include "sandbox/egress.h"

#include <string.h>
#include <strings.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/str.h"

/* RFC 6890, and multicast. */
static const char near_ranges[] = "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, "
			   "172.16.0.0/12, 192.0.0.0/24, 192.168.0.0/16, 198.18.0.0/15, "
			   "224.0.0.0/3";

/* ---- Names ---- */

static const struct {
	const char *scheme;
	uint16_t port;
} schemes[] = {
	{ "http", 80 }, { "https", 443 }, { "socks4", 1080 }, { "socks4a", 1080 },
	{ "socks5", 1080 }, { "socks5h", 1080 },
};

static uint16_t
port_of(const char *scheme, size_t len)
{
	for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++)
		if (strlen(schemes[i].scheme) == len && !strncasecmp(schemes[i].scheme, scheme, len))
			return schemes[i].port;
	return 0;
}

/* HOST[:PORT], len bytes. */
static void
add_host(struct egress_names *names, const char *text, size_t len, uint16_t port)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
	size_t host = 0;
	char number[8] = "";
	int64_t value;

	while (host < len && memchr(letters, text[host], sizeof letters - 1))
		host++;
	if (host == 0 || host >= EGRESS_HOST_MAX || text[0] == '-' || len - host > 6)
		return;
	if (host < len) {
		memcpy(number, text + host + 1, len - host - 1);
		if (text[host] != ':' || str_int(number, 1, 65535, &value))
			return;
		port = (uint16_t)value;
	}
	for (uint32_t i = 0; i < names->count; i++)
		if (names->list[i].port == port && !strncmp(names->list[i].host, text, host) &&
		    !names->list[i].host[host])
			return;
	if (names->count == EGRESS_NAMES_MAX)
		return;
	memcpy(names->list[names->count].host, text, host);
	names->list[names->count].host[host] = '\0';
	names->list[names->count++].port = port;
}

void
egress_names_add(struct egress_names *names, const char *url, size_t len, int is_proxy)
{
	const char *colon = memmem(url, len, "://", 3), *end = url + len, *at;
	const char *host = colon ? colon + 3 : url;
	uint16_t port = 80;

	if (colon) {
		/* "git+https" */
		const char *plus = memrchr(url, '+', (size_t)(colon - url));
		const char *scheme = plus ? plus + 1 : url;

		port = port_of(scheme, (size_t)(colon - scheme));
	}
	if (!port || (!colon && !is_proxy))
		return;
	for (const char *p = host; p < end; p++)
		if (memchr("/?#", *p, 4)) /* or NUL */
			end = p;
	at = memrchr(host, '@', (size_t)(end - host));
	if (at)
		host = at + 1;
	add_host(names, host, (size_t)(end - host), port);
}

/* ---- Rules ---- */

static int
is_loopback(const struct net_rule *r)
{
	return r->prefix >= 8 && r->address >> 24 == 127;
}

int
egress_allows_loopback(const struct net_rules *allow)
{
	for (unsigned i = 0; i < allow->count; i++)
		if (is_loopback(&allow->list[i]))
			return 1;
	return 0;
}

static void
put_address(struct buf *out, uint32_t a, unsigned prefix)
{
	buf_printf(out, "%u.%u.%u.%u", a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255);
	if (prefix < 32)
		buf_printf(out, "/%u", prefix);
}

static void
put_ports(struct buf *out, const struct net_rule *r)
{
	if (r->last)
		buf_printf(out, " meta l4proto { 6, 17 } th dport %u-%u", r->first, r->last);
}

static void
put_allowed(struct buf *out, const struct net_rules *allow)
{
	for (unsigned i = 0; i < allow->count; i++) {
		const struct net_rule *r = &allow->list[i];

		buf_puts(out, "  ip daddr ");
		if (is_loopback(r))
			buf_puts(out, EGRESS_GATEWAY);
		else
			put_address(out, r->address, r->prefix);
		put_ports(out, r);
		buf_puts(out, " accept\n");
	}
}

static void
put_loopback(struct buf *out, const struct net_rules *allow)
{
	buf_puts(out, " chain turn {\n  type nat hook output priority -100;\n");
	for (unsigned i = 0; i < allow->count; i++) {
		const struct net_rule *r = &allow->list[i];

		if (!is_loopback(r))
			continue;
		buf_puts(out, "  ip daddr ");
		put_address(out, r->address, r->prefix);
		put_ports(out, r);
		buf_puts(out, " dnat ip to " EGRESS_GATEWAY "\n");
	}
	buf_puts(out, " }\n chain leave {\n  type nat hook postrouting priority srcnat;\n"
		      "  oifname \"" EGRESS_DEVICE "\" masquerade\n }\n");
}

int
egress_ruleset(const struct net_rules *allow, const uint32_t *own, unsigned own_count,
	       const uint32_t *resolvers, unsigned resolver_count, struct buf *out)
{
	buf_puts(out, "table inet pratai {\n"
		      " chain refuse {\n  meta l4proto 6 reject with tcp reset\n"
		      "  reject with icmpx admin-prohibited\n }\n chain out {\n"
		      "  type filter hook output priority filter; policy drop;\n"
		      "  oifname \"lo\" accept\n  ct state established,related accept\n"
		      "  meta l4proto { 6, 17 } th dport 53 ip daddr " EGRESS_RESOLVER " accept\n");
	for (unsigned i = 0; i < resolver_count; i++) {
		buf_puts(out, "  meta l4proto { 6, 17 } th dport 53 ip daddr ");
		put_address(out, resolvers[i], 32);
		buf_puts(out, " accept\n");
	}
	put_allowed(out, allow);
	buf_printf(out, "  ip daddr { %s } goto refuse\n", near_ranges);
	for (unsigned i = 0; i < own_count; i++) {
		buf_puts(out, "  ip daddr ");
		put_address(out, own[i], 32);
		buf_puts(out, " goto refuse\n");
	}
	buf_puts(out, "  meta nfproto ipv4 accept\n  goto refuse\n }\n");
	if (egress_allows_loopback(allow))
		put_loopback(out, allow);
	return buf_puts(out, "}\n") || out->failed ? -1 : 0;
}
