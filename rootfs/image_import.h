/*
 * An image into the store of this machine: whoever owns the store (root, or an ordinary
 * user for one of its own) starts the worker, watches it, and commits what it made.
 *
 * Two processes.  The worker, `pratai-unpack image`, reads what strangers wrote; it is in a
 * user namespace of its own and has none of the machine's ids: as root's, the namespace maps
 * 0 to 65535 to IMAGE_ID_BASE and on, so that it can give files to an image's users and
 * still is nobody on the machine; as an ordinary user's it maps 0 to that user alone, and
 * all files become the user's.  The other process, ours, reads no byte of the image but the
 * record that the worker prints.
 *
 * The broker: the worker may not open the user's files, so for a layout directory it asks
 * for names over a socket, and gets descriptors of "index.json" and "blobs/sha256/HEX" below
 * the directory, and of nothing else.
 */
#ifndef PRATAI_IMAGE_IMPORT_H
#define PRATAI_IMAGE_IMPORT_H

#include <stdint.h>

#include "rootfs/store.h"

struct image_import {
	const char *program; /* path of pratai-unpack */
	int source;          /* a file or pipe to be read, or a directory */
	const char *name;    /* that the image is to have */
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

#endif
