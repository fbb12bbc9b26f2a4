/*
 * The body of a function's upload: multipart/form-data with its metadata and its zip,
 * in memory that is a file (memfd), so that it is sent from there whatever its size.
 */
#ifndef PRATAI_CLIENT_PACKAGE_H
#define PRATAI_CLIENT_PACKAGE_H

#include <stddef.h>

struct err;

enum { PACKAGE_TYPE_MAX = 96 };

struct package {
	int fd; /* the body; the caller's to close */
	char content_type[PACKAGE_TYPE_MAX];
};

/*
 * path: a zip, a directory (zipped here) or "-" (a zip on stdin).  metadata: a JSON
 * object's text.  ERR_INPUT names the path.
 */
int package_make(const char *path, const char *metadata, struct package *out, struct err *e);

#endif
