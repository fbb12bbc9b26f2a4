/*
 * What a sandbox with network "egress" may reach, as rules of nftables in its own network
 * namespace, which nothing in the sandbox can change.
 *
 * Everything of the Internet, over IPv4, and nothing that is near: not the machine's loopback
 * nor any address of its own, no private, shared, link-local, multicast or reserved range;
 * but for what the list allows.  Names are looked up at EGRESS_RESOLVER, which hands the
 * question to the machine's resolver; those of the machine's resolv.conf can be asked
 * directly, too.
 *
 * Pure: text in, text out.  uplink.c does the rest.
 */
#ifndef PRATAI_SANDBOX_EGRESS_H
#define PRATAI_SANDBOX_EGRESS_H

#include <stdint.h>

struct buf;
struct err;

enum { EGRESS_ALLOW_MAX = 64, EGRESS_OWN_MAX = 64 };

/* The stack's own network, see slirp4netns(1). */
#define EGRESS_GATEWAY "10.0.2.2"  /* the machine's loopback, if that is allowed */
#define EGRESS_RESOLVER "10.0.2.3"
#define EGRESS_DEVICE "tap0"

/* Addresses and ports in the machine's order of bytes.  last 0: all ports, all protocols. */
struct egress_rule {
	uint32_t address;
	uint8_t prefix;
	uint16_t first, last;
};

struct egress_policy {
	struct egress_rule allow[EGRESS_ALLOW_MAX];
	unsigned allow_count;
};

/* ADDRESS[/PREFIX][:PORT[-PORT]].  -1: ERR_INPUT, and why. */
int egress_rule_parse(const char *text, struct egress_rule *out, struct err *e);

/* A port of the machine's loopback is allowed. */
int egress_allows_loopback(const struct egress_policy *p);

/*
 * A script for nft(8).  own: addresses that the machine has; resolvers: that it asks.
 * -1: out is full.
 */
int egress_ruleset(const struct egress_policy *p, const uint32_t *own, unsigned own_count,
		   const uint32_t *resolvers, unsigned resolver_count, struct buf *out);

#endif
