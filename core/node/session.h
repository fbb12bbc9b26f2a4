/*
 * The node's tie to the control plane: registration over HTTP, then a DEALER for jobs and
 * heartbeats and a PUSH for results.
 *
 * A registration opens a session.  When the scheduler is silent for three heartbeats, or
 * says that it does not know the session, the node registers again, for ever, at first
 * after 0.1 s and then each 2 s at most; running jobs go on, the lease decides what
 * their results count.
 */
#ifndef PRATAI_NODE_SESSION_H
#define PRATAI_NODE_SESSION_H

#include <stdbool.h>
#include <stddef.h>

#include "core/model/message.h"

struct err;
struct http_client;
struct loop;
struct mq;
struct session;

struct session_config {
	struct loop *loop;
	struct mq *mq;
	struct http_client *http;
	const char *join, *token;
	const char *body; /* the registration, JSON */
	/* A session has begun: counters start again at nought. */
	void (*opened)(void *arg);
	/* A message of the scheduler's: JOB, SETTLED or CANCEL with a lease that is not {0,0}.
	 * m's content may be taken over (zeroed); it is cleared afterwards. */
	void (*message)(void *arg, struct message *m, const void *payload, size_t len);
	/* What a heartbeat says: granted, received, memory_free_mib, leases (owned by m). */
	void (*fill)(void *arg, struct message *m);
	void *arg;
};

/* config is copied; its strings stay the caller's and valid. */
struct session *session_new(const struct session_config *config, struct err *e);
void session_free(struct session *s);

/* Zero until the first registration. */
const struct id *session_id(const struct session *s);

/* A heartbeat at the end of this iteration: capacity has changed. */
void session_heartbeat_soon(struct session *s);

/* STARTED and PRINTED to the scheduler, RESULT (with response and logs) to the collector; the session is
 * put into m.  -1: not now. */
int session_tell(struct session *s, struct message *m);
int session_send_result(struct session *s, struct message *m, const void *response,
			size_t response_len, const void *logs, size_t logs_len);

#endif
