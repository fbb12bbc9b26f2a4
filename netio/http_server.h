/*
 * The HTTP server: libmicrohttpd on the loop.  Requests arrive whole (body in memory, or
 * spooled to an unlinked file when larger); answers may come later.
 *
 * Ten thousand idle connections, slow senders and half-open requests cost memory of
 * their own and stop nobody; a request's headers, its body and its idleness have limits:
 *
 * - A header block is at most HTTP_HEADERS_MAX bytes, else 431 (or 414, 413).
 * - A connection without progress is closed after idle_seconds; one that does not complete
 *   its headers, or sends less than HTTP_PROGRESS_BYTES of its body, after twice that.
 * - At connections_max the connection that has been idle longest makes room for a new one;
 *   when descriptors run out, too, and accepting pauses for a moment.
 * - Bodies in memory are at most HTTP_BODIES_MEMORY_MAX together; then they are spooled at
 *   any size.
 *
 * A client that leaves while its request waits for an answer is not noticed before the
 * answer is sent: gone is called then.  One that leaves in the midst of its request is
 * noticed after idle_seconds at the latest.
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

enum {
	HTTP_HEADERS_MAX = 16 << 10,
	HTTP_PROGRESS_BYTES = 16 << 10,
	HTTP_BODIES_MEMORY_MAX = 64 << 20,
	HTTP_DISCARD_MAX = 64 << 20, /* of a body that nobody wants */
	HTTP_DISCARD_SECONDS = 10,
	HTTP_QUERY_MAX = 32, /* parameters */
	HTTP_SLASH = 0x1f,   /* control characters are in no path else */
};

struct http_server_config {
	int listen_fd;             /* a listening socket; duplicated, made non-blocking */
	int spool_fd;              /* directory for spooled bodies (O_TMPFILE); duplicated */
	size_t body_memory_bytes;  /* larger bodies go to the spool */
	unsigned connections_max;
	unsigned discard_seconds;  /* 0: HTTP_DISCARD_SECONDS */
	unsigned idle_seconds;     /* without progress, while not waiting for our answer; 0: 60 */
};

/*
 * The moments of a request.
 *
 * begin: the headers are there.  Returns the most bytes the body may have (0: none).
 * It may answer at once with http_reply (no token, wrong path): the body is then read
 * and thrown away (at most HTTP_DISCARD_MAX bytes or discard_seconds: then the answer is
 * sent as far as the socket takes it, and the connection ends) before the answer is sent,
 * unless the client said `Expect: 100-continue`, which gets the answer in place of a "100".
 *
 * too_large: the body is longer than that; called once, as soon as it is known, and answers
 * before it returns.  What follows is as above.
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

/* Ignores SIGPIPE in this process from then on.  h is copied. */
struct http_server *http_server_new(struct loop *l, const struct http_server_config *c,
				    const struct http_handler *h, void *arg, struct err *e);
/* Takes no more connections, ends idle ones, and calls done when the last request has been
 * answered, or after grace_ns.  Call http_server_free then. */
void http_server_stop(struct http_server *s, uint64_t grace_ns, void (*done)(void *arg), void *arg);
/* At once: what is under way ends without an answer (gone is called).  NULL is fine.  Not
 * from within a callback of its own: use loop_defer. */
void http_server_free(struct http_server *s);

/* From begin, when it needs time to decide: a body is not asked for ("100"), spooled or
 * handed over until http_go_on, or http_reply refuses it.  A client that sends without being
 * asked is read into memory meanwhile. */
void http_hold(struct http_request *r);
void http_go_on(struct http_request *r);

const char *http_method(const struct http_request *r);
/* Percent-decoded path without the query; "" never, always starts with '/'.  A '/' that came
 * encoded is HTTP_SLASH: it is part of a segment and ends none.  A target with a malformed escape, a control character or bytes that are not UTF-8, encoded or not, is
 * answered 400 before begin; so are malformed header fields and doubtful lengths. */
const char *http_path(const struct http_request *r);
const char *http_query(const struct http_request *r, const char *name); /* decoded, or NULL */
/* The first parameter of the query that is none of names ("a|b"), or NULL. */
const char *http_query_other(const struct http_request *r, const char *names);
const char *http_header(const struct http_request *r, const char *name); /* the first, or NULL */
/* The body: contiguous bytes (a spooled one is mapped).  Valid until gone or taken.  NULL
 * with *len 0 when it cannot be mapped; never NULL for an empty one. */
const void *http_body(struct http_request *r, size_t *len);
/* The spooled body's descriptor (the request's), or -1 when it is in memory. */
int http_body_fd(struct http_request *r);

/* Takes the body out of the request: malloc'd memory (*data, to free()) or, when it was
 * spooled, a descriptor (*fd, to close; *data is NULL).  The request's body is then empty. */
int http_body_take(struct http_request *r, void **data, size_t *len, int *fd, struct err *e);

void http_request_set(struct http_request *r, void *user);
void *http_request_get(const struct http_request *r);

struct http_field {
	/* A field with control characters, or one that belongs to the connection
	 * (Content-Length, Connection, Transfer-Encoding, ...), is dropped and logged. */
	const char *name, *value;
};

struct http_reply {
	int status;
	const char *content_type; /* NULL: none */
	const struct http_field *fields; /* ends with .name == NULL; NULL: none */
	const void *body;
	size_t len;
	int file_fd; /* a file as the body instead; closed afterwards; 0: none */
	uint64_t file_offset; /* where in it the len bytes begin */
	bool close;  /* Connection: close */
};

/*
 * What a request for a part of total bytes gets.  Only "Range: bytes=N-" is understood: from N to
 * the end, 206; or nothing, 416.  0: the whole, since there is no such field or it has another
 * form.
 */
int http_range(const struct http_request *r, uint64_t total, uint64_t *from);

/* Once per request; another is logged and ignored.  Copies everything (file_fd is taken over).
 * A status that is none (200 to 599) becomes 500. */
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
