/*
 * The HTTP client: libcurl's multi interface on the loop.  Connections are kept and used
 * again; redirects are answers like others; a proxy of the environment is used but for
 * loopback addresses.  Nothing is asked twice, but for a kept connection that the server
 * had closed before it read anything.
 */
#ifndef PRATAI_HTTP_CLIENT_H
#define PRATAI_HTTP_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#include "netio/http_server.h" /* struct http_field */

struct err;
struct loop;
struct http_client;
struct http_call;

/* Ignores SIGPIPE in this process from then on. */
struct http_client *http_client_new(struct loop *l, struct err *e);
/* Calls under way are cancelled.  Not from within a callback of its own; NULL is fine. */
void http_client_free(struct http_client *c);

struct http_ask {
	const char *method, *url;
	const struct http_field *fields; /* ends with .name == NULL; NULL: none */
	const void *body;   /* copied unless body_fd is given */
	size_t body_len;
	/* As in struct http_reply, 0 (or less) means none: {0} is an ask without either. */
	int body_fd;        /* a regular file instead, whole; duplicated */
	int out_fd;         /* the answer's body goes there, not into memory; duplicated */
	size_t answer_max;  /* bytes; a longer answer is ERR_LIMIT; 0: 64 MiB */
	uint64_t connect_ns, total_ns; /* 0: 5 s, none */
	/* Progress of the upload, for a bar; NULL: none. */
	void (*progress)(void *arg, uint64_t sent, uint64_t total);
};

struct http_answer {
	int status;
	const char *content_type; /* "" if none */
	const char *body;         /* NUL-terminated; "" if none; valid during the callback */
	size_t len;
	const struct http_call *call; /* for http_answer_field */
};

/* a NULL: no answer; e says why: ERR_AGAIN: the server could not be reached, was too slow,
 * or left; ERR_DENIED: its certificate is not trusted; ERR_LIMIT: the answer is too long;
 * ERR_NODE: ours. */
typedef void (*http_answer_fn)(void *arg, const struct http_answer *a, const struct err *e);

/* Never calls back before it returned.  NULL: not sent (ERR_INPUT: the URL, the method or a
 * field is malformed; only http and https). */
struct http_call *http_client_ask(struct http_client *c, const struct http_ask *ask,
				  http_answer_fn fn, void *arg, struct err *e);
void http_call_cancel(struct http_call *call); /* no callback any more; NULL is fine */

/* An answer's header field, case-insensitive; NULL if absent. */
const char *http_answer_field(const struct http_answer *a, const char *name);

#endif
