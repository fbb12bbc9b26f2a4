/*
 * An image into the store of this machine, and out of it again to see whether it is still
 * the same: whoever owns the store (root, or an ordinary user for one of its own) starts the
 * worker (image_worker.h) and commits what it made.
 */
#ifndef PRATAI_IMAGE_IMPORT_H
#define PRATAI_IMAGE_IMPORT_H

#include <stdint.h>

#include "rootfs/store.h"

struct image_import {
	const char *program; /* path of pratai-unpack */
	int source;          /* a file or pipe to be read, or a directory */
	const char *name;    /* that the image is to have; NULL: only its layers are kept */
	const char *select;  /* which image, of several there; NULL: as name */
	/* what: "archive", "layer 2 of 3", ...; total 0: not known.  Or NULL. */
	void (*progress)(void *arg, const char *what, uint64_t done, uint64_t total);
	void *arg;
};

/*
 * s is open with STORE_ADD.  *i is what was taken in, to be freed whatever comes back.
 * -1: ERR_INPUT and ERR_LIMIT are the image's fault; nothing is left in the store.
 */
int image_import(struct image_store *s, const struct image_import *m, struct image *i,
		 struct err *e);

/*
 * Unpacks every layer that a name leads to once more and compares it with what is kept: names,
 * content, modes, owners, times, attributes.  s is open with STORE_ADD.  A sentence for each
 * fault.  -1: it could not be done.
 */
int image_verify_layers(struct image_store *s, const char *program,
			void (*progress)(void *arg, const char *what, uint64_t done, uint64_t total),
			void (*fault)(void *arg, const char *sentence), void *arg, uint64_t *faults,
			struct err *e);

#endif
