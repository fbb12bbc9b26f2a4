/*
 * The form of a zip file, before anything is inflated: where its entries are and what
 * they are called.
 *
 * A zip says everything twice, in a directory at its end and in a header before each
 * entry, and may hold bytes that neither mentions.  Readers differ in whom they believe,
 * which is how one program can be shown other files than the next.  So only a file with
 * one meaning is taken: it is the zip from its first byte to its last; entries follow
 * each other without gap or overlap, up to the directory; both places agree on name,
 * method, checksum and sizes (where the header has them).  zip64 and data descriptors are
 * known; several disks, encryption and methods other than stored and deflated are not
 * taken.
 */
#ifndef PRATAI_ZIP_H
#define PRATAI_ZIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rootfs/unpack_names.h"

struct err;

enum { ZIP_BYTES_MAX = 64 << 20, ZIP_ENTRIES_MAX = 20000 };

struct zip_entry {
	const char *name; /* into the directory: no NUL, no "./" before, no "/" after it */
	uint16_t name_len; /* 0: the entry "./", which is the root itself */
	enum name_kind kind;
	bool executable;
	uint64_t offset; /* of its header in the file */
	uint64_t compressed, size; /* bytes, as the directory says */
	const char *raw; /* the name as it stands in the file */
	uint16_t raw_len;
};

struct zip {
	struct zip_entry *entries; /* in the order of the file */
	size_t count;
	uint64_t bytes; /* of the file */
	char *directory;
};

/* Reads the form of the regular file fd.  -1: ERR_INPUT, ERR_LIMIT or ERR_NODE. */
int zip_read(int fd, struct zip *z, struct err *e);
void zip_free(struct zip *z);

#endif
