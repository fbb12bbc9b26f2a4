/*
 * Capabilities by the raw system calls: safe after fork (async-signal-safe but for the
 * text of an error), no library.
 */
#ifndef PRATAI_CAPS_H
#define PRATAI_CAPS_H

#include <stdint.h>

struct err;

/*
 * Gives up every capability: bounding, ambient, inheritable, permitted and effective
 * sets, and locks the securebits so that uid 0 means nothing (needs CAP_SETPCAP while
 * there is something to give up); checks that they are gone.  A caller that has none
 * and whose bounding set is empty succeeds.
 */
int caps_drop_all(struct err *e);

/*
 * The same in two halves, for a process that forks in between and then changes its uid.
 * caps_lock: bounding and ambient sets, securebits; what the caller has it keeps, through
 * a change of uid as well.  caps_clear: permitted, effective and inheritable sets.
 */
int caps_lock(struct err *e);
int caps_clear(struct err *e);

/*
 * The same for a command that keeps some of them, uid 0 of a user namespace: the bounding set
 * becomes mask, the ambient one empty; then permitted and effective sets lose what mask has not.
 * Securebits stay as they are, so that being uid 0 still means something.
 */
int caps_bound(uint64_t mask, struct err *e);
int caps_shrink(uint64_t mask, struct err *e);

/*
 * Keeps those in mask (1ull << CAP_…) that the caller has, in its permitted and effective
 * sets, and drops the rest from all sets; ambient and inheritable become empty.  The
 * bounding set keeps mask too, or a program executed as root would lose them.
 */
int caps_keep(uint64_t mask, struct err *e);

/* Makes the permitted set effective again, which a change of the effective uid empties. */
int caps_raise(void);

/* Those in mask, which the caller has, are had by a program that it executes, too, whoever its
 * user is.  0, or -1 with errno. */
int caps_pass_on(uint64_t mask);

/* The effective set of the caller. */
uint64_t caps_effective(void);

#endif
