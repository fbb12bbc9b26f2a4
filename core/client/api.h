/*
 * The client's way to the control plane: one request at a time on a loop of its own, as a
 * command line program wants it.  Nothing else of the client knows HTTP.
 */
#ifndef PRATAI_CLIENT_API_H
#define PRATAI_CLIENT_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/buf.h"
#include "core/client/span.h"

struct api;
struct err;

#define API_URL_DEFAULT "http://127.0.0.1:9096"

enum { API_URL_MAX = 1024, API_TOKEN_MAX = 4096, API_PATH_MAX = 4096 };

/*
 * url: the endpoint, with or without a final slash or "/v1"; token: sent as X-Auth-Token;
 * "": none.  Both are checked (ERR_INPUT).  NULL on failure.
 */
struct api *api_open(const char *url, const char *token, struct err *e);
void api_close(struct api *api); /* NULL is fine */

struct api_request {
	const char *method, *path; /* path: "/v1/..." with its query, already encoded */
	const char *content_type;  /* of the body; NULL: none */
	const void *body;
	size_t body_len;
	int body_fd;       /* a regular file instead when > 0; stays the caller's */
	uint64_t total_ns; /* 0: 60 s */
	const char *progress; /* what is uploaded, for a bar on a terminal; NULL: no bar */
};

struct api_answer {
	int status;
	bool is_json;
	struct buf body;
	char event_id[64], state[32]; /* Pratai-Event-Id, Pratai-State, or "" */
	char location[256];           /* Location, or "" */
};
void api_answer_clear(struct api_answer *a);

/*
 * Sends and waits.  0: an answer, whatever its status.  -1: none came (ERR_AGAIN names the
 * URL and the variable to set).  *a is zeroed first and cleared on failure.
 */
int api_call(struct api *api, const struct api_request *r, struct api_answer *a, struct err *e);

/* As api_call, and any status but 2xx is an error: api_refusal of the answer. */
int api_expect(struct api *api, const struct api_request *r, struct api_answer *a,
	       struct err *e);

/*
 * The error in an answer (problem+json): its detail, with the class of its status, which
 * is never ERR_INPUT: that one is for the command line itself.  Returns -1.
 */
int api_refusal(const struct api *api, const struct api_answer *a, struct err *e);
/* The problem's stable type ("function_failed"), without what stands before the last '/' or
 * ':'; "" when there is none. */
void api_problem_type(const struct api_answer *a, char *out, size_t size);

/* The answer's body, an object of JSON.  ERR_NODE when it is not. */
int api_json(const struct api_answer *a, struct span *value, struct err *e);

/*
 * GET of a list, page after page ("items", "next"), up to max records.  path without
 * limit and cursor.  *rows (malloc'd) point into *pages; free both with api_rows_free.
 */
struct api_rows {
	struct span *rows;
	size_t count;
	struct api_answer *pages;
	size_t page_count;
	bool more; /* there would be more than max */
};
int api_list(struct api *api, const char *path, size_t max, struct api_rows *out, struct err *e);
void api_rows_free(struct api_rows *r);

/* Waits, for polling. */
void api_pause(struct api *api, uint64_t ns);

/* Appends text to a path as one segment or query value, percent-encoded. */
void api_encode(struct buf *path, const char *text);
/* A name or id as a segment; refuses "", "." and ".." (ERR_INPUT), which a URL would swallow. */
int api_segment(struct buf *path, const char *text, struct err *e);

#endif
