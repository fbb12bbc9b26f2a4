/*
 * Blobs while an image is taken in: each is hashed while it is written to the import's
 * temporary directory (blobs/HEX), unless the store has it.
 */
#ifndef PRATAI_IMAGE_BLOBS_H
#define PRATAI_IMAGE_BLOBS_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/crypto.h"

struct buf;
struct err;

struct blobs {
	int temp;  /* tmp.ID/ */
	int store; /* images/ */
	/* Called as bytes are copied or unpacked.  total 0: not known. */
	void (*progress)(const char *what, uint64_t done, uint64_t total);
};

/* A descriptor to read the blob; -1 with errno. */
int blobs_open(const struct blobs *b, const char *hex);
/* What it holds, which is small.  ERR_LIMIT: more than max. */
int blobs_slurp(const struct blobs *b, const char *hex, size_t max, struct buf *out, struct err *e);

/* One that is being written: begin, write..., then end (gives the digest) or drop. */
struct blob_write {
	int fd;
	uint64_t bytes;
	struct sha256 sha;
};
int blob_begin(const struct blobs *b, struct blob_write *w, struct err *e);
int blob_put(struct blob_write *w, const void *data, size_t len, struct err *e);
int blob_end(const struct blobs *b, struct blob_write *w, char hex[SHA256_HEX_MAX], struct err *e);
void blob_drop(const struct blobs *b, struct blob_write *w);

/* A copy of all that fd has. */
int blobs_copy(const struct blobs *b, int fd, const char *what, uint64_t total,
	       char hex[SHA256_HEX_MAX], uint64_t *bytes, struct err *e);
int blobs_put(const struct blobs *b, const void *data, size_t len, char hex[SHA256_HEX_MAX],
	      struct err *e);

#endif
