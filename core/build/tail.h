/*
 * The end of a long text: what a build printed.
 */
#ifndef PRATAI_BUILD_TAIL_H
#define PRATAI_BUILD_TAIL_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/buf.h"

enum { TAIL_MAX = 256 << 10 };

struct tail {
	struct buf kept; /* at most twice TAIL_MAX between calls */
	uint64_t bytes;  /* in all */
};

/* 0, or -1 when memory ran out. */
int tail_add(struct tail *t, const char *data, size_t len);
/* The last TAIL_MAX bytes as clean text (utf8_put_plain), after a line that says how much is
 * left out if any is; malloc'd.  NULL: out of memory. */
char *tail_text(const struct tail *t);
void tail_free(struct tail *t);

#endif
