/*
 * The process behind network "egress": it writes the rules into the sandbox's network
 * namespace, then becomes the user-mode stack (slirp4netns) that carries its packets.
 *
 * Chosen over a veth pair with masquerading: it changes nothing of the machine's own network
 * (no forwarding, no firewall rules), needs no root, and ends
 * with its sandbox.  Ready in 3 to 4 ms, while the sandbox mounts its root; 3 MiB.
 *
 * It can be made ahead, with a network namespace of its own that a sandbox then moves into: of a
 * user namespace that its user, the sandbox's first id, has created, like the sandbox's own.
 *
 * As root it is process 1 of a pid namespace of its own, so that nothing of it outlives it.
 *
 *   caller ── fork ──► uplink: rules (nft, inside) ─► slirp4netns ── "1" ─► init goes on
 *      └── pidfd, and a pipe whose end of life ends it
 */
#ifndef PRATAI_SANDBOX_UPLINK_H
#define PRATAI_SANDBOX_UPLINK_H

#include <stdbool.h>
#include <sys/types.h>

#include "sandbox/egress.h"

struct uplink_spec {
	const struct net_rules *allow;
	const struct egress_names *names; /* allowed, too; NULL: none.  Not without root */
	int host_netns;   /* where it leads to; -1: the caller's */
	uid_t uid;        /* whom it becomes: the creator of the user namespace; 0: nobody else */
	int ready_w;      /* a socket: brings the namespaces (uplink_offer), gets one byte, or a
			   * struct err */
	bool ahead;       /* for no sandbox yet, with a uid: it makes the namespaces itself, and
			   * sends that of the network over ready_w, before anything else */
};

struct uplink {
	int pidfd; /* -1: there is none */
	int end;   /* closing it ends the process */
};

/* 0; -1: nothing was started. */
int uplink_start(struct uplink *u, const struct uplink_spec *spec, struct err *e);
/* Orders its end. */
void uplink_kill(struct uplink *u);
/* 1: it is gone and was waited for; 0: not yet. */
int uplink_reap(struct uplink *u);

/* The same, however long it takes: it has been killed, or dies by itself. */
void uplink_wait_end(struct uplink *u);

/* In the sandbox's init, at its start: its user and network namespace, for the process outside,
 * which has no right to take them.  ready_r: the other end. */
int uplink_offer(int ready_r, struct err *e);
/* Later: waits until the way out is there. */
int uplink_wait(int ready_r, struct err *e);

#endif
