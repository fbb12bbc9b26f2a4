/*
 * What a sandbox that was made ahead is told when its event comes: the parts of the spec that
 * were not known before, in memory that its processes share with their caller.
 *
 * The pages are mapped before the clone, so they have the same address on both sides and the
 * pointers in them hold.  Nothing else that the caller forks gets them.  The descriptors of the
 * spec go another way (child_send).
 */
#ifndef PRATAI_SANDBOX_ORDERS_H
#define PRATAI_SANDBOX_ORDERS_H

#include <stdalign.h>
#include <stddef.h>

#include "sandbox/sandbox.h"

enum { ORDERS_ROOM = 384 << 10 }; /* for strings and the pointers to them; paid as it is used */

struct orders {
	struct sandbox_spec spec;
	size_t used;
	alignas(8) char room[ORDERS_ROOM];
};

/* Shared memory for one; NULL with errno. */
struct orders *orders_new(void);
/* From here on the caller's other children do not have it.  0; -1 with errno. */
int orders_keep_back(struct orders *o);
void orders_free(struct orders *o);

/* A copy of spec and of all that it points to but `allow` and `filter`, which must not be there.
 * Once.  ERR_LIMIT: there is no room for it. */
int orders_write(struct orders *o, const struct sandbox_spec *spec, struct err *e);

#endif
