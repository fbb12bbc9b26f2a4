/*
 * An image built by a recipe, step by step: the base, packages, files, each command.  What a step
 * writes becomes a layer, is taken into the store by the unpacker like any other's layer, and is
 * remembered by the step's key, so that the same step on the same layers is not run again:
 *
 *   step_key   layers below, text, scripts, content of files → key
 *   cached     layer of that key in the store
 *   else       run it on a writable directory in the store's tmp.ID (step_run.h), pack that
 *              (tree_pack.h), import layout (image_import.h), remember
 *
 * What fails leaves no image; layers of the steps before it stay until image-gc.
 */
#ifndef PRATAI_BUILD_IMAGE_BUILD_H
#define PRATAI_BUILD_IMAGE_BUILD_H

#include <stdbool.h>
#include <stdint.h>

#include "core/build/step_run.h"

struct err;
struct image_store;

struct image_build {
	const char *root;     /* of the store, absolute */
	const char *unpacker; /* path of pratai-unpack */
	const char *recipes;  /* directory of those that are shipped */
	const char *file;     /* the recipe, or the name of one that is shipped */
	const char *name;     /* that the image is to have */
	struct step_limits limits;
	int64_t epoch; /* no time in the layers is later; INT64_MAX: they stay */
	bool live;     /* tell of each step and show what it prints, on standard error */

	unsigned steps, cached; /* done in all, and of these not run */
};

/* s is open with STORE_ADD.  -1: ERR_FUNCTION (a command failed, its last lines were shown),
 * ERR_INPUT (the recipe, or a layer), ERR_LIMIT, ERR_NOT_FOUND, ERR_AGAIN, ERR_NODE. */
int image_build(struct image_build *b, struct image_store *s, struct err *e);

#endif
