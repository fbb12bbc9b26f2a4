/*
 * Taking an image in, as the process that reads what strangers wrote does it: blobs are
 * copied and hashed, JSON is read, layers are unpacked, all below the descriptor temp, whose
 * owner then commits it (store_commit).  Which process, and what it is kept from:
 * core/build/unpack_main.c and image_import.h.
 */
#ifndef PRATAI_IMAGE_UNPACK_H
#define PRATAI_IMAGE_UNPACK_H

#include <stdbool.h>

#include "rootfs/image.h"
#include "rootfs/image_blobs.h"

struct image_unpack {
	int source, broker; /* see image_source.h */
	struct blobs blobs; /* with the two directories and the progress */
	const char *select; /* see oci.h */
	bool owners;        /* whether files can be given to IMAGE_IDS ids */
};

/* The record of what is then below blobs.temp (blobs/HEX, layers/KEY) and in the store.  To be
 * freed whatever comes back.  -1: ERR_INPUT and ERR_LIMIT are the image's fault. */
int image_unpack(const struct image_unpack *u, struct image *i, struct err *e);

/*
 * source: a list, for each layer that is kept a line "BLOB DIFF KEY" and the keys of those below
 * it, the topmost first.  Unpacks each again and compares; a sentence for each fault.  -1: it
 * cannot go on.
 */
int image_verify(const struct image_unpack *u, void (*fault)(const char *sentence), struct err *e);

#endif
