/*
 * The names in a tar's extended headers as the bytes that they are.  libarchive normalizes
 * them (to NFC), so that two names become one; what a layer calls a file is its name, byte by
 * byte.  So the headers are looked at a second time, in the part of the stream that has just
 * gone by.
 */
#ifndef PRATAI_TAR_NAMES_H
#define PRATAI_TAR_NAMES_H

#include <stddef.h>
#include <stdint.h>

enum { TAR_NAME_MAX = 8192 };

/* A window on the stream: the bytes [from, to) of it, at data[offset % size]. */
struct tar_window {
	const char *data;
	size_t size; /* a multiple of 512 */
	uint64_t from, to;
};

struct tar_names {
	char path[TAR_NAME_MAX], target[TAR_NAME_MAX]; /* "" : not in an extended header */
};

/*
 * Of the entry whose first header is at offset `at`.  0; -1: what is there is no sequence of
 * headers that can be read, or a name is too long or has a NUL in it.
 */
int tar_names_read(const struct tar_window *w, uint64_t at, struct tar_names *out);

#endif
