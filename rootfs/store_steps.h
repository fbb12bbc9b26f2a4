/*
 * What a step of a build made, kept by the step's key (core/build/step_key.h), as builds/KEY in the
 * store: so that the same step on the same layers need not run again.
 *
 * Such a record keeps nothing alive: it counts as long as its layer is there, packed and unpacked,
 * which it is while an image has it; store_collect removes those whose layer has gone.
 */
#ifndef PRATAI_STORE_STEPS_H
#define PRATAI_STORE_STEPS_H

#include "rootfs/store.h"

struct store_step {
	struct image_layer layer;
	char created[64]; /* RFC 3339 */
};

/* 1: found; 0: not (or its layer is gone); -1. */
int store_step_find(struct image_store *s, const char *key, struct store_step *step, struct err *e);
int store_step_put(struct image_store *s, const char *key, const struct store_step *step,
		   struct err *e);

#endif
