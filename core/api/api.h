/*
 * The API: HTTP in, records and events out.  One process may hold this role beside the
 * scheduler, or alone (then the hooks are NULL).
 */
#ifndef PRATAI_API_H
#define PRATAI_API_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/id.h"

struct api;
struct err;
struct json;
struct loop;
struct mq;
struct scheduler;
struct store;

struct api_config {
	struct loop *loop;
	struct mq *mq;
	struct store *store;
	struct scheduler *scheduler; /* of this process */
	const char *events;          /* endpoint of the scheduler's PULL */
	int listen_fd, spool_fd;
	const char *join_token;      /* what nodes show; "" : none may register */
	int unpack_fd;               /* O_PATH of the helper that checks packages */
	const char *roles;           /* for cluster-status */
	size_t payload_max, body_memory_bytes;
	unsigned connections_max;
	int64_t started_us;
};

struct api *api_new(const struct api_config *c, struct err *e);
/* Takes no more requests; those that run end unanswered.  After store_close: what the store
 * still does comes back to this API. */
void api_free(struct api *a);

/* The function's document changed behind the API's back (a build ended). */
void api_function_changed(void *api, const struct id *function);

/*
 * Makes the token with this secret (project and user "admin") if it was never made: one that
 * was deleted stays deleted.  secret stays until done is called, once, with NULL on success.
 */
void api_first_token(struct store *store, const char *secret,
		     void (*done)(void *arg, const struct err *e), void *arg);

#endif
