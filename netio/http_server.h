/*
 * The HTTP server: libmicrohttpd on the loop.  Requests arrive whole (body in memory, or
 * spooled to an unlinked file when larger); answers may come later.
 *
 * Ten thousand idle connections, slow senders and half-open requests cost memory of
 * their own and stop nobody; a request's headers, its body and its idleness have limits.
 */
#ifndef PRATAI_HTTP_SERVER_H
#define PRATAI_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct loop;
struct http_server;
struct http_request;

struct http_server_config {
	int listen_fd;             /* a listening socket; not owned */
	int spool_fd;              /* directory for spooled bodies (O_TMPFILE) */
	size_t body_memory_bytes;  /* larger bodies go to the spool */
	unsigned connections_max;
	unsigned idle_seconds;     /* without progress, while not waiting for our answer */
};

/*
 * The two moments of a request.
 *
 * begin: the headers are there.  Returns the most bytes the body may have (0: none).
 * It may answer at once with http_reply (no token, wrong path): the body is then read
 * and thrown away (at most 64 MiB or 10 s) before the answer is sent, unless the client
 * said `Expect: 100-continue`, which gets the answer in place of a "100".  A longer body
 * than allowed gets too_large's answer in the same way, see http_server_new.
 *
 * handle: the body is complete.  Must lead to http_reply, now or later.
 *
 * gone: the request has ended (answered and sent, or the client left): the last call for
 * it; what the handler keeps for it (http_request_set) is to be let go.
 */
struct http_handler {
	int64_t (*begin)(void *arg, struct http_request *r);
	void (*handle)(void *arg, struct http_request *r);
	void (*too_large)(void *arg, struct http_request *r, int64_t limit_bytes);
	void (*gone)(void *arg, struct http_request *r);
};

struct http_server *http_server_new(struct loop *l, const struct http_server_config *c,
				    const struct http_handler *h, void *arg, struct err *e);
/* Stops taking connections, lets running requests end for at most grace_ns, then frees. */
void http_server_free(struct http_server *s);

const char *http_method(const struct http_request *r);
/* Percent-decoded path without the query; "" never, always starts with '/'. A path with
 * an encoded NUL or malformed escape is answered 400 before begin. */
const char *http_path(const struct http_request *r);
const char *http_query(const struct http_request *r, const char *name); /* decoded, or NULL */
const char *http_header(const struct http_request *r, const char *name);
/* The body: contiguous bytes (a spooled one is mapped).  Valid until gone. */
const void *http_body(struct http_request *r, size_t *len);
/* The spooled body's descriptor (the request's), or -1 when it is in memory. */
int http_body_fd(struct http_request *r);

/* Takes the body out of the request: malloc'd memory (*data, to free()) or, when it was
 * spooled, a descriptor (*fd, to close; *data is NULL).  The request's body is then empty. */
int http_body_take(struct http_request *r, void **data, size_t *len, int *fd, struct err *e);

void http_request_set(struct http_request *r, void *user);
void *http_request_get(const struct http_request *r);

struct http_field {
	const char *name, *value; /* a value with control characters is dropped and logged */
};

struct http_reply {
	int status;
	const char *content_type; /* NULL: none */
	const struct http_field *fields; /* ends with .name == NULL; NULL: none */
	const void *body;
	size_t len;
	int file_fd; /* a file as the body instead, from 0 to len; closed afterwards; 0: none */
	bool close;  /* Connection: close */
};

/* Once per request.  Copies everything (file_fd is taken over). */
void http_reply(struct http_request *r, const struct http_reply *reply);

/* multipart/form-data (RFC 7578) over a complete body. */
struct http_part {
	const char *name, *filename; /* decoded; "" and NULL when absent */
	const void *data;            /* into the body */
	size_t len;
};
enum { HTTP_PARTS_MAX = 16 };
/* Fills parts, returns their count; -1: ERR_INPUT says what is wrong (truncated, no
 * boundary, too many parts, part without name).  Names are freed with
 * http_multipart_free. */
int http_multipart(const char *content_type, const void *body, size_t len,
		   struct http_part parts[HTTP_PARTS_MAX], struct err *e);
void http_multipart_free(struct http_part *parts, int n);

#endif
