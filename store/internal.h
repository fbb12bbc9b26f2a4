/*
 * What the backends of the store share: completions on their way to the loop, and the
 * care for bytes that the store has taken over.
 *
 * A request becomes a completion when it is submitted (completion_begin, on the loop's
 * thread) and is delivered exactly once, later, on the loop's thread, whoever finished it
 * and however it ended.  completions_post may be called by any thread.
 */
#ifndef PRATAI_STORE_INTERNAL_H
#define PRATAI_STORE_INTERNAL_H

#include <stddef.h>

#include "core/base/err.h"
#include "store/store.h"

struct loop;

struct completion {
	struct completion *next;
	store_fn fn; /* NULL: nobody wants to know */
	void *arg;
	struct store_answer answer; /* points into what release frees */
	struct err err;             /* cls ERR_NONE: success */
	void (*release)(struct completion *c); /* frees it, and what a callback did not take */
};

/* NULL, and e: no descriptor, no memory. */
struct completions *completions_new(struct loop *l, struct err *e);
/* None may be outstanding. */
void completions_free(struct completions *cs);

/* Loop's thread: one more will come. */
void completion_begin(struct completions *cs, struct completion *c, store_fn fn, void *arg);
/* Any thread: a list of finished ones, linked by next, in order. */
void completions_post(struct completions *cs, struct completion *first, struct completion *last);
/* Loop's thread: those begun and not delivered. */
size_t completions_outstanding(const struct completions *cs);
/* Loop's thread: delivers until none is outstanding, those begun by callbacks included. */
void completions_drain(struct completions *cs);

/* Fails a request that was never begun: the callback comes from the loop. */
void store_refuse(struct store *s, store_fn fn, void *arg, const struct err *e);

/* For a backend's open: fills the common part.  And undoes that. */
int store_init(struct store *s, const struct store_ops *ops, struct loop *l, struct err *e);
void store_fini(struct store *s);

/* Memory for a record of a fixed, small size, zeroed.  A request that cannot be recorded
 * cannot be answered either: when there is none the process ends (and recovers, as from
 * any kill). */
void *store_alloc(size_t size);

/* Frees and closes what b owns; b is empty then. */
void store_bytes_release(struct store_bytes *b);

extern const struct store_ops store_sqlite_ops;

#endif
