/*
 * An image's manifest: which blobs the image is made of.  OCI's (image specification 1.0) and
 * docker's of schema 2, which say the same.  It comes from outside: nothing in it is believed
 * but that it says so.
 */
#ifndef PRATAI_MANIFEST_H
#define PRATAI_MANIFEST_H

#include <stddef.h>
#include <stdint.h>

struct err;
struct json;

enum {
	MANIFEST_MAX_BYTES = 4 << 20, /* of its text, and of a configuration's */
	MANIFEST_LAYERS_MAX = 127,
	MANIFEST_MEDIA_MAX = 128,
};
/* What a layer, as it comes, may have. */
#define IMAGE_BLOB_MAX_BYTES ((int64_t)8 << 30)

struct manifest_blob {
	char digest[65]; /* hex */
	uint64_t bytes;  /* at most IMAGE_BLOB_MAX_BYTES */
	char media[MANIFEST_MEDIA_MAX]; /* its media type; "": not said */
};

struct manifest {
	struct manifest_blob config;
	struct manifest_blob layers[MANIFEST_LAYERS_MAX]; /* the lowest first */
	unsigned layer_count; /* at least 1 */
};

/* ERR_INPUT: it is none, or its image has more than is allowed here. */
int manifest_parse(const void *text, size_t len, struct manifest *m, struct err *e);

#endif
