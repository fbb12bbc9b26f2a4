/*
 * From the control plane into a directory: an OCI image layout of one image, without the blobs
 * that are not wanted.
 */
#ifndef PRATAI_NODE_IMAGE_FETCH_H
#define PRATAI_NODE_IMAGE_FETCH_H

#include <stdint.h>

struct blobs;
struct err;
struct image_fetch;

enum { IMAGE_FETCH_PARTS_MAX = 128 }; /* a configuration and 127 layers */

struct image_part {
	char digest[65];
	uint64_t bytes;
};

/* What the manifest names, each once. */
struct image_parts {
	unsigned count;
	struct image_part list[IMAGE_FETCH_PARTS_MAX];
};

/* e NULL: done.  ERR_NOT_FOUND: the control plane lacks it; ERR_FUNCTION: it is no image;
 * else this node could not, just now. */
typedef void (*image_fetch_fn)(void *arg, const struct err *e);

/*
 * The image's manifest into the directory dir_fd/<digest>, which is made, with an index.json;
 * what is there already of an earlier time counts.  fn comes later; then *parts is filled.
 */
struct image_fetch *image_fetch_manifest(struct blobs *b, int dir_fd, const char *digest,
					 struct image_parts *parts, image_fetch_fn fn, void *arg,
					 struct err *e);
/* Then those of the parts whose `wanted` (one for each) is not 0, several at a time.  1: fn comes
 * later; 0: all are there from an earlier time; -1. */
int image_fetch_parts(struct image_fetch *f, const uint8_t *wanted, struct err *e);

int image_fetch_dir(const struct image_fetch *f); /* the layout's descriptor */
/* Ends what goes on; what was fetched stays. */
void image_fetch_free(struct image_fetch *f);
/* The same, and what was fetched goes. */
void image_fetch_discard(struct image_fetch *f);

#endif
