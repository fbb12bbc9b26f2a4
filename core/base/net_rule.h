/*
 * An address that may be reached, as users, operators and `pratai run` write it:
 * ADDRESS[/PREFIX][:PORT[-PORT]], IPv4.
 */
#ifndef PRATAI_NET_RULE_H
#define PRATAI_NET_RULE_H

#include <stdbool.h>
#include <stdint.h>

struct err;

enum { NET_RULES_MAX = 64, NET_RULE_TEXT_MAX = 32 };

/* Addresses and ports in the machine's order of bytes.  last 0: all ports, all protocols. */
struct net_rule {
	uint32_t address;
	uint8_t prefix, zero;
	uint16_t first, last;
};

struct net_rules {
	struct net_rule list[NET_RULES_MAX];
	uint32_t count;
};

/* -1: ERR_INPUT, and why. */
int net_rule_parse(const char *text, struct net_rule *out, struct err *e);
void net_rule_format(const struct net_rule *r, char out[NET_RULE_TEXT_MAX]);

/* Whether it is one that net_rule_parse could have made; it may be a stranger's bytes. */
bool net_rule_is_valid(const struct net_rule *r);
/* Whether one of outer covers it, addresses and ports. */
bool net_rule_is_within(const struct net_rule *r, const struct net_rules *outer);

#endif
