#include "core/base/net_rule.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "core/base/err.h"
#include "core/base/str.h"

_Static_assert(sizeof "255.255.255.255/32:65535-65535" <= NET_RULE_TEXT_MAX, "the longest fits");

static int
wrong(const char *text, struct err *e)
{
	return err_set(e, ERR_INPUT, "'%.60s' is not an IPv4 ADDRESS[/PREFIX][:PORT[-PORT]]", text);
}

static int
parse_ports(const char *ports, struct net_rule *r)
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

static uint32_t
mask_of(uint8_t prefix)
{
	return prefix ? UINT32_MAX << (32 - prefix) : 0;
}

int
net_rule_parse(const char *text, struct net_rule *out, struct err *e)
{
	char address[NET_RULE_TEXT_MAX];
	size_t len = strcspn(text, ":");
	struct net_rule r = { .prefix = 32 };
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
	if (r.address & ~mask_of(r.prefix))
		return err_set(e, ERR_INPUT, "'%.60s' has bits of its address beyond its prefix", text);
	*out = r;
	return 0;
}

void
net_rule_format(const struct net_rule *r, char out[NET_RULE_TEXT_MAX])
{
	uint32_t a = r->address;
	size_t n = (size_t)snprintf(out, NET_RULE_TEXT_MAX, "%u.%u.%u.%u", a >> 24, a >> 16 & 255,
				    a >> 8 & 255, a & 255);

	if (r->prefix < 32)
		n += (size_t)snprintf(out + n, NET_RULE_TEXT_MAX - n, "/%u", r->prefix);
	if (r->last)
		n += (size_t)snprintf(out + n, NET_RULE_TEXT_MAX - n, ":%u", r->first);
	if (r->last > r->first)
		snprintf(out + n, NET_RULE_TEXT_MAX - n, "-%u", r->last);
}

bool
net_rule_is_valid(const struct net_rule *r)
{
	return r->prefix <= 32 && !r->zero && !(r->address & ~mask_of(r->prefix)) &&
	       r->first <= r->last && (r->first || !r->last);
}

bool
net_rule_is_within(const struct net_rule *r, const struct net_rules *outer)
{
	for (uint32_t i = 0; i < outer->count; i++) {
		const struct net_rule *o = &outer->list[i];

		if (r->prefix < o->prefix || (r->address & mask_of(o->prefix)) != o->address)
			continue;
		if (!o->last || (r->last && r->first >= o->first && r->last <= o->last))
			return true;
	}
	return false;
}
