/*
 * Starting and watching `pratai-unpack` for the image store: the process that reads what
 * strangers wrote, while ours reads no byte of it.
 *
 * The worker is in a user namespace of its own and has none of the machine's ids: as root's,
 * the namespace maps 0 to 65535 to IMAGE_ID_BASE and on, so that it can give files to an
 * image's users and still is nobody on the machine; as an ordinary user's it maps 0 to that
 * user alone, and all files become the user's.
 *
 * The layers that are kept belong to the same ids.  So that even a worker that was taken over
 * cannot change them, root's gets the store as a mount of its own that is read-only, and its
 * temporary directory as another, from which no ".." leads out.
 *
 * The broker: the worker may not open the user's files, so for a layout directory it asks
 * for names over a socket, and gets descriptors of "index.json" and "blobs/sha256/HEX" below
 * the directory, and of nothing else.
 */
#ifndef PRATAI_IMAGE_WORKER_H
#define PRATAI_IMAGE_WORKER_H

#include <stdint.h>

#include "rootfs/store.h"

struct buf;
struct err;

struct image_worker {
	const char *program; /* path of pratai-unpack */
	const char *verb;    /* see core/build/unpack_main.c */
	const char *word;    /* what follows the verb */
	int source;          /* its standard input; a directory: asked of the broker */
	/* what: "archive", "layer 2 of 3", ...; total 0: not known.  Or NULL. */
	void (*progress)(void *arg, const char *what, uint64_t done, uint64_t total);
	void *arg;
};

/*
 * Runs it to its end, with a new temporary directory of the store's, which becomes the
 * worker's: *temp, the caller's to close, and its name, the caller's to store_discard, also
 * after a failure if name is not "".  0: what it said besides its progress is in text.
 * -1: ERR_INPUT and ERR_LIMIT are the fault of what it read.
 */
int image_worker_run(const struct image_worker *m, struct image_store *s, int *temp,
		     char name[STORE_TEMP_MAX], struct buf *text, struct err *e);

#endif
