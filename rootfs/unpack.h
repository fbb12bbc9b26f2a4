/*
 * Archives from outside: a user's zip, checked or unpacked, and the tar that a build
 * sandbox sends.  For the program pratai-unpack, which locks itself in first: no other
 * process of ours reads an archive of a stranger's.
 *
 * Limits of a zip: ZIP_BYTES_MAX (64 MiB) itself; 512 MiB unpacked, counted while
 * inflating; 20,000 files and directories; 32 parts in a name; an entry above 1 MiB at
 * most 1000 times its compressed size.  Of a tar: 1 GiB of content (512 MiB of function
 * and dependencies, and what is compiled from them), 100,000 entries, 64 parts.
 *
 * Only files, directories and links inside are taken (unpack_names.h).
 */
#ifndef PRATAI_UNPACK_H
#define PRATAI_UNPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/crypto.h"

struct err;

enum {
	UNPACK_ZIP_BYTES_MAX = 512 << 20,
	UNPACK_ZIP_DEPTH_MAX = 32,
	UNPACK_RATIO_MAX = 1000,
	UNPACK_RATIO_FROM = 1 << 20, /* bytes of an entry from which the ratio counts */
	UNPACK_TAR_BYTES_MAX = 1 << 30,
	UNPACK_TAR_ENTRIES_MAX = 100000,
	UNPACK_TAR_DEPTH_MAX = 64,
};

struct unpack_result {
	uint64_t entries; /* as the archive has them */
	uint64_t bytes;   /* of all files */
	uint64_t archive_bytes;
	char sha256[SHA256_HEX_MAX]; /* of the archive */
};

/*
 * Reads the zip in the regular file fd.  dest >= 0: an empty directory, in which
 * "function" is made and filled.  -1: ERR_INPUT and ERR_LIMIT are the archive's fault,
 * the sentence names the entry; ERR_NODE is this machine's.  What was written until then
 * stays for the caller to remove.
 */
int unpack_zip(int fd, int dest, struct unpack_result *r, struct err *e);

/*
 * Reads an uncompressed tar from fd (a pipe will do) to its end and unpacks it into the
 * empty directory dest, whose own mode stays; entries are function/… and opt/deps/….
 * Errors as above.  Nothing is synced to disk.
 */
int unpack_tar(int fd, int dest, struct unpack_result *r, struct err *e);

#endif
