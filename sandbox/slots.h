/*
 * Ranges of host ids for sandboxes that root starts without a node: slots of 65536, each held
 * by a lock on one byte of a file below /run, so that two never share one.
 */
#ifndef PRATAI_SANDBOX_SLOTS_H
#define PRATAI_SANDBOX_SLOTS_H

#include <stdint.h>

struct err;

enum {
	/* Above what systemd-nspawn uses (up to 0x6fffffff) and what a node does by default
	 * (1024 slots from 0x70000000), below what image layers have (0x78000000). */
	SLOTS_UID_BASE = 0x74000000,
	SLOTS_MAX = 1024,
};

/* A range that nobody else has, from *uid_base on, for the life of the descriptor that is
 * returned.  -1: ERR_AGAIN when all are taken. */
int slots_take(uint32_t *uid_base, struct err *e);

#endif
