/*
 * A function's directory as a zip: the only file of the client that knows libarchive.
 */
#ifndef PRATAI_CLIENT_ZIP_H
#define PRATAI_CLIENT_ZIP_H

#include <stdint.h>

struct err;

enum {
	ZIP_BYTES_MAX = 64 << 20,       /* of the zip */
	ZIP_INPUT_BYTES_MAX = 512 << 20, /* of what is zipped */
	ZIP_ENTRIES_MAX = 20000,
	ZIP_DEPTH_MAX = 64,
};

/*
 * Appends the zip of the directory dir_fd to out_fd.  Entries have relative paths in
 * byte order, a fixed time and the modes 0644 or 0755, so that the same content is the
 * same zip.  Directories called .git and __pycache__ are left out.  A link to a file
 * below the directory becomes that file; a link elsewhere or to a directory, a special
 * file, a name that is not UTF-8, and anything over the bounds above are ERR_INPUT,
 * naming the entry.  name is the directory's, for errors.
 */
int zip_directory(int dir_fd, const char *name, int out_fd, struct err *e);

#endif
