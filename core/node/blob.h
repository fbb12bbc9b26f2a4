/*
 * Packages and layers by their SHA-256, from and to the control plane:
 * GET and PUT {join}/v1/node/blobs/<digest>; and what it knows of dependencies by their key:
 * /v1/node/dependencies/<key>, a small text each.  What may be passing (no answer, 5xx) is tried
 * again a few times.
 */
#ifndef PRATAI_NODE_BLOB_H
#define PRATAI_NODE_BLOB_H

#include <stdbool.h>
#include <stdint.h>

struct blob_call;
struct blobs;
struct err;
struct http_client;
struct loop;

/* join, token: valid as long as the blobs are.  tmp_fd: a directory for downloads; the caller's. */
struct blobs *blobs_new(struct loop *l, struct http_client *http, const char *join,
			const char *token, int tmp_fd, struct err *e);
void blobs_free(struct blobs *b); /* after its calls */

/* A new file without a name, to read and write; the caller's. */
int blob_temp(struct blobs *b, struct err *e);

/* 64 lower-case hex digits. */
bool blob_is_digest(const char *text);

/*
 * fd: the download, at its beginning, without a name, the callee's to close (a PUT: -1).
 * e NULL: done; else ERR_NOT_FOUND (the control plane does not have it), ERR_LIMIT (longer
 * than max), ERR_AGAIN (it could not be reached, or failed), ERR_NODE.  The content is not
 * checked: who reads it compares the digest.
 */
typedef void (*blob_fn)(void *arg, int fd, const struct err *e);

/* fn is called once, later.  NULL: not started. */
struct blob_call *blob_get(struct blobs *b, const char *digest, uint64_t max_bytes, blob_fn fn,
			   void *arg, struct err *e);
/*
 * The same into the file fd, which stays the caller's and open until fn (whose fd is -1): what
 * it has counts as the blob's beginning, and what has come of it is kept when the rest does not.
 */
struct blob_call *blob_continue(struct blobs *b, const char *digest, int fd, uint64_t max_bytes,
				blob_fn fn, void *arg, struct err *e);
/* fd: a regular file, which stays the caller's and open until fn. */
struct blob_call *blob_put(struct blobs *b, const char *digest, int fd, blob_fn fn, void *arg,
			   struct err *e);
/* The same for dependencies; what comes, and fd, is the JSON text. */
struct blob_call *dependencies_get(struct blobs *b, const char *key, blob_fn fn, void *arg,
				   struct err *e);
struct blob_call *dependencies_put(struct blobs *b, const char *key, int fd, blob_fn fn, void *arg,
				   struct err *e);
void blob_cancel(struct blob_call *c); /* NULL is fine; fn is not called */

#endif
