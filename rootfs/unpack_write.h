/*
 * The unpacker's writing side: files, directories and links below one directory
 * descriptor, made new and never opened again, never through a link.
 *
 * Only names that names_add() has taken may be given.  Modes and times are ours: files
 * 0444 or 0555, directories 0555 (0755 until write_finish), times UNPACK_MTIME.
 */
#ifndef PRATAI_UNPACK_WRITE_H
#define PRATAI_UNPACK_WRITE_H

#include <stdbool.h>
#include <stddef.h>

#include "rootfs/unpack_names.h"

struct err;

/* 1980-01-01T00:00:00Z, the first time that a zip can hold: a function that zips its own
 * files works, and the same package unpacks to the same bytes and times. */
#define UNPACK_MTIME 315532800

struct writer {
	int root;                     /* the caller's */
	int dir;                      /* of the last parent used, or -1 */
	char parent[NAME_PATH_MAX + 1]; /* its path; "" is the root */
	size_t made;                  /* directories of names made so far */
};

void write_begin(struct writer *w, int root);
void write_end(struct writer *w);

/* Makes the directories among names that are not there yet. */
int write_dirs(struct writer *w, const struct names *names, struct err *e);
/* A new, empty file: its descriptor, to be ended with write_file_end. */
int write_file(struct writer *w, const char *path, struct err *e);
int write_file_end(int fd, bool executable, struct err *e); /* closes fd */
int write_link(struct writer *w, const char *path, const char *target, struct err *e);

/* Gives all directories of names their mode and times; the root apart, which may be the
 * caller's own. */
int write_finish(struct writer *w, const struct names *names, struct err *e);
int write_finish_root(struct writer *w, struct err *e);

#endif
