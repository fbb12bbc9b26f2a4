/*
 * A tar, packed by gzip, zstd or xz or not at all, read from a descriptor once and to its
 * end, with little memory.  The only file of the image store's that knows libarchive, which
 * only reads.
 *
 * Two readers, one behind the other: the first unpacks, the second takes the tar apart; in
 * between, the bytes are hashed, which gives the diff id.  What kind it is is told by the
 * content.  A bomb is bounded by its ratio (from TAR_RATIO_FROM bytes on) and by the limits
 * of whoever takes the entries.
 */
#ifndef PRATAI_TAR_STREAM_H
#define PRATAI_TAR_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/crypto.h"

struct err;
struct tar_stream;

enum {
	TAR_RATIO_MAX = 1100, /* gzip's own limit is 1032 */
	TAR_RATIO_FROM = 256 << 20,
};

enum tar_kind {
	TAR_FILE,
	TAR_DIR,
	TAR_LINK,     /* symbolic */
	TAR_HARDLINK,
	TAR_FIFO,
	TAR_DEVICE,
	TAR_SOCKET,
};

struct tar_entry {
	enum tar_kind kind;
	const char *name;   /* as it stands there */
	const char *target; /* of links */
	unsigned mode;      /* 07777 */
	int64_t uid, gid;
	uint64_t size;
	int64_t mtime_s;
	long mtime_ns;
	bool has_acl;
};

/* bytes: called now and then with the packed bytes read so far; or NULL.  fd stays the caller's. */
struct tar_stream *tar_open(int fd, void (*bytes)(void *arg, uint64_t bytes), void *arg,
			    struct err *e);
void tar_free(struct tar_stream *t);

/* 1: *entry, good until the next call; 0: the end; -1: ERR_INPUT, ERR_LIMIT or ERR_NODE. */
int tar_next(struct tar_stream *t, struct tar_entry *entry, struct err *e);
/* The next piece of the entry's data and where it belongs (holes are skipped).  1, 0, -1. */
int tar_data(struct tar_stream *t, const void **data, size_t *len, uint64_t *offset, struct err *e);
/* The next extended attribute of the entry.  False: no more. */
bool tar_attribute(struct tar_stream *t, const char **name, const void **value, size_t *len);

/* Reads what follows the tar's own end; then the diff id, of the whole unpacked stream. */
int tar_end(struct tar_stream *t, char diff[SHA256_HEX_MAX], struct err *e);

#endif
