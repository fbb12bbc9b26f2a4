/*
 * A layer as it is packed: a tar (ustar with pax records where those do not do) in gzip, written
 * once from front to end.  The bytes are hashed twice on their way: plain, which gives the diff
 * id, and packed, which gives the blob's digest.  The same entries give the same bytes.
 *
 * gzip, since all tools take it; libarchive packs, the tar is ours.
 */
#ifndef PRATAI_TAR_WRITE_H
#define PRATAI_TAR_WRITE_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/crypto.h"

struct err;
struct tar_writer;

/* The type of an entry, as the header has it. */
enum tar_type {
	TAR_TYPE_FILE = '0',
	TAR_TYPE_HARDLINK = '1',
	TAR_TYPE_LINK = '2',
	TAR_TYPE_DIR = '5',
	TAR_TYPE_FIFO = '6',
};

struct tar_attribute {
	const char *name; /* "user.x" */
	const void *value;
	size_t len;
};

struct tar_item {
	enum tar_type type;
	const char *name;   /* relative, without "./" and the last "/" */
	const char *target; /* of links */
	unsigned mode;      /* 07777 */
	uint32_t uid, gid;
	uint64_t size; /* of a file's data, which follows */
	int64_t mtime_s;
	long mtime_ns;
	const struct tar_attribute *attributes;
	size_t attribute_count;
};

/* The packed bytes go to fd, which stays the caller's.  NULL: ERR_NODE. */
struct tar_writer *tar_write_begin(int fd, struct err *e);
void tar_write_free(struct tar_writer *w);

int tar_write_item(struct tar_writer *w, const struct tar_item *item, struct err *e);
/* The data of a file, in pieces that add up to its size; then tar_write_pad. */
int tar_write_data(struct tar_writer *w, const void *data, size_t len, struct err *e);
int tar_write_pad(struct tar_writer *w, uint64_t size, struct err *e);

/* After the last: both digests, and the blob's bytes. */
int tar_write_end(struct tar_writer *w, char diff[SHA256_HEX_MAX], char blob[SHA256_HEX_MAX],
		  uint64_t *bytes, struct err *e);

#endif
