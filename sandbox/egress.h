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

#include <stddef.h>
#include <stdint.h>

#include "core/base/net_rule.h"

struct buf;
struct err;

enum { EGRESS_OWN_MAX = 64, EGRESS_NAMES_MAX = 32, EGRESS_HOST_MAX = 254 };

/* The stack's own network, see slirp4netns(1). */
#define EGRESS_GATEWAY "10.0.2.2"  /* the machine's loopback, if that is allowed */
#define EGRESS_RESOLVER "10.0.2.3"
#define EGRESS_DEVICE "tap0"

/* Hosts that are allowed by name, whatever their addresses are: uplink.c looks them up. */
struct egress_names {
	struct {
		char host[EGRESS_HOST_MAX]; /* or an address */
		uint16_t port;
	} list[EGRESS_NAMES_MAX];
	uint32_t count;
};

/*
 * Adds the host and port that url leads to: SCHEME://[USER@]HOST[:PORT][/...], of http, https
 * or socks; of a proxy's the scheme may be missing.  What is none of these, or too much, is
 * passed over.  len: bytes at url.
 */
void egress_names_add(struct egress_names *names, const char *url, size_t len, int is_proxy);

/* A port of the machine's loopback is allowed. */
int egress_allows_loopback(const struct net_rules *allow);

/*
 * A script for nft(8).  own: addresses that the machine has; resolvers: that it asks.
 * -1: out is full.
 */
int egress_ruleset(const struct net_rules *allow, const uint32_t *own, unsigned own_count,
		   const uint32_t *resolvers, unsigned resolver_count, struct buf *out);

#endif
