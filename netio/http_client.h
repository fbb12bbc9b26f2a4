/*
 * The HTTP client: libcurl's multi interface on the loop.
 */
#ifndef PRATAI_HTTP_CLIENT_H
#define PRATAI_HTTP_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#include "netio/http_server.h" /* struct http_field */

struct http_client;
struct http_call;

struct http_client *http_client_new(struct loop *l, struct err *e);
void http_client_free(struct http_client *c); /* calls that are under way end without an answer */

struct http_ask {
	const char *method, *url;
	const struct http_field *fields; /* ends with .name == NULL; NULL: none */
	const void *body;   /* copied unless body_fd is given */
	size_t body_len;
	int body_fd;        /* a regular file instead; -1: none; stays the caller's */
	int out_fd;         /* the answer's body goes there; -1: into memory */
	size_t answer_max;  /* bytes; a longer answer is ERR_LIMIT; 0: 64 MiB */
	uint64_t connect_ns, total_ns; /* 0: 5 s, none */
	/* Progress of the upload, for a bar; NULL: none. */
	void (*progress)(void *arg, uint64_t sent, uint64_t total);
};

struct http_answer {
	int status;
	const char *content_type; /* "" if none */
	const char *body;         /* NUL-terminated; valid during the callback */
	size_t len;
	const struct http_call *call; /* for http_answer_field */
};

/* a NULL: no answer; e says why (ERR_AGAIN: the server could not be reached, or left). */
typedef void (*http_answer_fn)(void *arg, const struct http_answer *a, const struct err *e);

/* Never calls back before it returned.  NULL: not sent. */
struct http_call *http_client_ask(struct http_client *c, const struct http_ask *ask,
				  http_answer_fn fn, void *arg, struct err *e);
void http_call_cancel(struct http_call *call); /* no callback any more */

/* An answer's header field, case-insensitive; NULL if absent. */
const char *http_answer_field(const struct http_answer *a, const char *name);

#endif
