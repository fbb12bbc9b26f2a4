/*
 * Capabilities by the raw system calls: safe after fork, no library.
 */
#ifndef PRATAI_CAPS_H
#define PRATAI_CAPS_H

#include <stdint.h>

struct err;

/* Gives up every capability: bounding, ambient, inheritable, permitted and effective
 * sets, and locks the securebits so that uid 0 means nothing; checks that they are gone. */
int caps_drop_all(struct err *e);

/* Keeps those in mask (1ull << CAP_…) and drops the rest from all sets. */
int caps_keep(uint64_t mask, struct err *e);

/* The effective set of the caller. */
uint64_t caps_effective(void);

#endif
