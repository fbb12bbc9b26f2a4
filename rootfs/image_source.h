/*
 * Where an image comes from, told by its content:
 *
 *   a layout   an OCI image layout, a directory or a tar of one
 *   docker     what `docker save` writes, a tar with manifest.json
 *   rootfs     any other tar: the files of a root directory, one layer
 *
 * A tar may be packed as a whole.  Its members are copied out once, hashed, as blobs; a
 * directory's when they are asked for, through a broker: the process here may not open the
 * user's files, so it asks for a name over a socket and gets a descriptor (image_import.h).
 */
#ifndef PRATAI_IMAGE_SOURCE_H
#define PRATAI_IMAGE_SOURCE_H

#include <stddef.h>
#include <stdint.h>

#include "rootfs/image_blobs.h"

enum {
	SOURCE_MEMBERS_MAX = 4096,
	SOURCE_NAME_MAX = 255,
	SOURCE_TEXT_MAX = 4 << 20, /* bytes of a manifest, an index, a configuration */
};

enum source_kind { SOURCE_LAYOUT, SOURCE_DOCKER, SOURCE_ROOTFS };

struct source_member {
	char name[SOURCE_NAME_MAX + 1];
	char alias[SOURCE_NAME_MAX + 1]; /* of a link: the name that it means */
	char hex[SHA256_HEX_MAX];        /* "" for a link */
	uint64_t bytes;
};

struct image_source {
	enum source_kind kind;
	const struct blobs *blobs;
	int broker; /* of a directory; -1: a tar */
	struct source_member *members;
	size_t member_count;
	char rootfs[SHA256_HEX_MAX]; /* SOURCE_ROOTFS: the blob */
	uint64_t rootfs_bytes;
};

/* fd: a file, a pipe or a directory.  s is to be freed whatever comes back. */
int source_open(struct image_source *s, int fd, int broker, const struct blobs *blobs,
		struct err *e);
void source_free(struct image_source *s);

/* A small file of the layout or archive. */
int source_text(struct image_source *s, const char *name, struct buf *out, struct err *e);
/* The blob is among the blobs when this returns, verified; bytes: as its descriptor says, or
 * -1.  what names it in errors ("layer", "manifest"). */
int source_blob(struct image_source *s, const char *what, const char *hex, int64_t bytes,
		struct err *e);
/* The blob of an archive's member. */
int source_member(struct image_source *s, const char *name, char hex[SHA256_HEX_MAX],
		  uint64_t *bytes, struct err *e);

#endif
