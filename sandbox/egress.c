/*
 * See egress.h.  The order of the rules is the policy: what is allowed by name comes before
 * what is refused, and what is neither is the Internet.  A refusal is an answer, so that a
 * program fails at once and does not wait; for TCP a reset, since of ICMP it takes no notice
 * before it has tried again.
 *
 * The machine's loopback is reached through the stack's gateway.  A program inside asks for
 * 127.0.0.1, which is its own; so an allowed port of it is turned into the gateway's.
 */
#include "sandbox/egress.h"

#include <arpa/inet.h>
#include <string.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/str.h"

/* RFC 6890, and multicast. */
static const char near_ranges[] = "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, "
			   "172.16.0.0/12, 192.0.0.0/24, 192.168.0.0/16, 198.18.0.0/15, "
			   "224.0.0.0/3";

static int
wrong(const char *text, struct err *e)
{
	return err_set(e, ERR_INPUT, "'%.60s' is not an IPv4 ADDRESS[/PREFIX][:PORT[-PORT]]", text);
}

static int
parse_ports(const char *ports, struct egress_rule *r)
{
	const char *dash = strchr(ports, '-');
	char first[8];
	size_t len = dash ? (size_t)(dash - ports) : strlen(ports);
	int64_t a, b;

	if (len == 0 || len >= sizeof first)
		return -1;
	memcpy(first, ports, len);
	first[len] = '\0';
	if (str_int(first, 1, 65535, &a) || str_int(dash ? dash + 1 : first, a, 65535, &b))
		return -1;
	r->first = (uint16_t)a;
	r->last = (uint16_t)b;
	return 0;
}

int
egress_rule_parse(const char *text, struct egress_rule *out, struct err *e)
{
	char address[32];
	size_t len = strcspn(text, ":");
	struct egress_rule r = { .prefix = 32 };
	struct in_addr in;
	int64_t prefix;
	char *slash;

	if (len >= sizeof address)
		return wrong(text, e);
	memcpy(address, text, len);
	address[len] = '\0';
	slash = strchr(address, '/');
	if (slash) {
		*slash++ = '\0';
		if (str_int(slash, 0, 32, &prefix))
			return wrong(text, e);
		r.prefix = (uint8_t)prefix;
	}
	if (inet_pton(AF_INET, address, &in) != 1 || (text[len] && parse_ports(text + len + 1, &r)))
		return wrong(text, e);
	r.address = ntohl(in.s_addr);
	if (r.prefix < 32 && (r.address & (UINT32_MAX >> r.prefix)))
		return err_set(e, ERR_INPUT, "'%.60s' has bits of its address beyond its prefix", text);
	*out = r;
	return 0;
}

static int
is_loopback(const struct egress_rule *r)
{
	return r->prefix >= 8 && r->address >> 24 == 127;
}

int
egress_allows_loopback(const struct egress_policy *p)
{
	for (unsigned i = 0; i < p->allow_count; i++)
		if (is_loopback(&p->allow[i]))
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
put_ports(struct buf *out, const struct egress_rule *r)
{
	if (r->last)
		buf_printf(out, " meta l4proto { tcp, udp } th dport %u-%u", r->first, r->last);
}

static void
put_allowed(struct buf *out, const struct egress_policy *p)
{
	for (unsigned i = 0; i < p->allow_count; i++) {
		const struct egress_rule *r = &p->allow[i];

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
put_loopback(struct buf *out, const struct egress_policy *p)
{
	buf_puts(out, " chain turn {\n  type nat hook output priority -100;\n");
	for (unsigned i = 0; i < p->allow_count; i++) {
		const struct egress_rule *r = &p->allow[i];

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
egress_ruleset(const struct egress_policy *p, const uint32_t *own, unsigned own_count,
	       const uint32_t *resolvers, unsigned resolver_count, struct buf *out)
{
	buf_puts(out, "table inet pratai {\n"
		      " chain refuse {\n  meta l4proto tcp reject with tcp reset\n"
		      "  reject with icmpx admin-prohibited\n }\n chain out {\n"
		      "  type filter hook output priority filter; policy drop;\n"
		      "  oifname \"lo\" accept\n  ct state established,related accept\n"
		      "  meta l4proto { tcp, udp } th dport 53 ip daddr " EGRESS_RESOLVER " accept\n");
	for (unsigned i = 0; i < resolver_count; i++) {
		buf_puts(out, "  meta l4proto { tcp, udp } th dport 53 ip daddr ");
		put_address(out, resolvers[i], 32);
		buf_puts(out, " accept\n");
	}
	put_allowed(out, p);
	buf_printf(out, "  ip daddr { %s } goto refuse\n", near_ranges);
	for (unsigned i = 0; i < own_count; i++) {
		buf_puts(out, "  ip daddr ");
		put_address(out, own[i], 32);
		buf_puts(out, " goto refuse\n");
	}
	buf_puts(out, "  meta nfproto ipv4 accept\n  goto refuse\n }\n");
	if (egress_allows_loopback(p))
		put_loopback(out, p);
	return buf_puts(out, "}\n") || out->failed ? -1 : 0;
}
