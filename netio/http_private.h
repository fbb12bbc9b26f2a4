/*
 * What the files of the HTTP server share; nobody else includes this.
 *
 * http_server.c   the daemon on the loop, the moments of a request
 * http_conn.c     connections
 * http_reply.c    answers
 * http_body.c     bodies: memory, spool, limits
 * http_target.c   the request target: path and query
 */
#ifndef PRATAI_HTTP_PRIVATE_H
#define PRATAI_HTTP_PRIVATE_H

#include <microhttpd.h>
#include <sys/queue.h>

#include "core/base/buf.h"
#include "netio/http_server.h"
#include "netio/loop.h"

enum { HTTP_ACCEPT_BATCH = 64 };

/* A connection is waiting while there is no request on it, or one with its headers not yet
 * complete; else busy, with a request. */
struct http_conn {
	struct http_server *server;
	int fd;
	struct loop_timer *deadline;
	struct http_request *request;
	bool waiting, ended;
	TAILQ_ENTRY(http_conn) link; /* in waiting or busy, oldest first */
};

struct http_server {
	struct loop *loop;
	struct http_server_config config;
	struct http_handler handler;
	void *arg;

	struct MHD_Daemon *daemon;
	struct loop_fd *daemon_watch, *listen_watch;
	struct loop_hook *hook;
	bool run;        /* the daemon has work */
	uint64_t due_ns; /* and has some of its own at this time */
	unsigned barren_runs; /* that it asked for, and that called for nothing */

	struct loop_timer *accept_again;
	bool accepting;
	uint64_t complain_ns; /* not before: that connections cannot be taken */
	unsigned connections;
	TAILQ_HEAD(, http_conn) waiting, busy;
	unsigned busy_count;
	size_t bodies_memory_bytes;

	bool stopping, freeing;
	struct loop_timer *grace;
	void (*stopped)(void *arg);
	void *stopped_arg;
};

struct http_param {
	char *name, *value;
};

struct http_target {
	char *text; /* holds all the others */
	char *path;
	struct http_param params[HTTP_QUERY_MAX];
	unsigned count;
};

struct http_request_body {
	struct buf memory;
	size_t counted; /* of memory, in the server's sum */
	int fd;         /* -1: in memory */
	size_t len;
	void *map;
	size_t map_len;
};

enum http_stage {
	HTTP_HEADERS,
	HTTP_BEGINNING, /* the handler has them */
	HTTP_BODY,
	HTTP_COMPLETE,
};

struct http_request {
	struct http_server *server;
	struct http_conn *conn;
	struct MHD_Connection *mhd;
	const char *method;
	struct http_target target;
	const char *target_fault; /* why it is a 400, or NULL */
	void *user;

	enum http_stage stage;
	bool has_body;
	bool known;     /* the handler has been told of it: gets gone */
	bool handled;   /* and that it is complete */
	bool held;      /* until http_go_on or http_reply */
	bool waits;     /* complete, for one of them; the daemon knows */
	bool suspended;

	int64_t limit_bytes;
	struct http_request_body body;
	size_t progress_bytes; /* body length when the deadline was last put off */
	bool discarding;
	size_t discarded_bytes;

	bool replied;
	unsigned status;
	struct MHD_Response *response; /* until it is queued */
	struct buf words;              /* the whole answer as text, for http_reply_last_words */
};

/* The listening socket has something; the pause after a failure is over. */
void http_conn_listen(void *server, uint32_t events);
void http_conn_accept_again(void *server);
/* The daemon's notification: *context is the struct http_conn, or NULL without memory. */
void http_conn_notify(void *server, struct MHD_Connection *mhd, void **context,
		      enum MHD_ConnectionNotificationCode code);
/* A request has its headers; it has ended.  Both also when it is so already. */
void http_conn_busy(struct http_conn *conn);
void http_conn_waiting(struct http_conn *conn);
/* Puts off the deadline by twice the idle time. */
void http_conn_put_off(struct http_conn *conn);
void http_conn_end(struct http_conn *conn);

/* 0 and *fault NULL, or -1: *fault is a sentence for the client.  target->text is to be
 * freed either way. */
int http_target_parse(struct http_target *target, const char *raw, const char **fault);

/* 0, or -1: it can be kept nowhere (logged). */
int http_body_put(struct http_request *r, const void *data, size_t len);
void http_body_drop(struct http_request *r);
/* It is answered: what is still to come is thrown away, for a while. */
void http_body_discard(struct http_request *r);

/* An answer of the server's own, as application/problem+json. */
void http_reply_problem(struct http_request *r, int status, const char *type, const char *detail);
/* Hands the answer to the daemon; from within its callbacks.  False: it did not take it. */
bool http_reply_queue(struct http_request *r);
/* Writes the answer to the socket past the daemon, which takes none while a body arrives. */
void http_reply_last_words(struct http_request *r);

#endif
