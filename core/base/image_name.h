/*
 * How images are named: by a name that somebody gave (a machine's store and a project's images
 * have the same rule), or by the digest of the manifest, "sha256:" and 64 hex digits.
 */
#ifndef PRATAI_IMAGE_NAME_H
#define PRATAI_IMAGE_NAME_H

struct err;

enum { IMAGE_NAME_MAX = 200 };

/*
 * A name: letters, digits, and '.', '_', '-', '/', ':', '@' after the first, no "..", at
 * most IMAGE_NAME_MAX; "host" is the built-in image's, and a digest is none.  0, or -1
 * (ERR_INPUT).
 */
int image_check_name(const char *name, struct err *e);

/* The digits of a digest, "sha256:…", with a NUL.  -1: text is none. */
int image_parse_digest(const char *text, char hex[65]);

#endif
