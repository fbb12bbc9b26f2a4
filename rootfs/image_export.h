/*
 * An image of the store as an OCI image layout, a directory or a tar of one, that other tools
 * take: blobs as they came, hashed again on the way, and an index with the one image, under the
 * name after the last ':' of its own ("latest" when there is none).
 *
 * https://github.com/opencontainers/image-spec/blob/v1.0.2/image-layout.md
 */
#ifndef PRATAI_IMAGE_EXPORT_H
#define PRATAI_IMAGE_EXPORT_H

#include <stdint.h>

struct err;
struct image;
struct image_store;

struct image_export {
	const char *name; /* of the image in the store */
	const char *path; /* what is made; "-": a tar to standard output */
	/* Called as bytes are written; or NULL. */
	void (*progress)(void *arg, const char *what, uint64_t done, uint64_t total);
	void *arg;
};

/*
 * A path that ends in ".tar" becomes a file, any other a directory, which must not be there.
 * *i is the image, to be freed whatever comes back.  -1: what was made of it is gone again;
 * ERR_NOT_FOUND, ERR_CONFLICT (it is there), ERR_NODE (also: a blob is damaged).
 */
int image_export(struct image_store *s, const struct image_export *x, struct image *i,
		 struct err *e);

#endif
