/*
 * What the API's files share.
 *
 *   api.c        life, routes, what comes back from the scheduler
 *   call.c       one request: its context, its answers
 *   auth.c       tokens: who is asking
 *   functions.c  show, list, delete, and the cache
 *   change.c     create, update
 *   package.c    from an uploaded zip to a checked, stored package
 *   invoke.c     the webhook: a request becomes an event
 *   events.c     events, their answers and logs
 *   blob.c       blobs for nodes, from nodes and from users
 *   images.c     images: their records, and which one a function means
 *   cluster.c    status, nodes' registration
 *   dependencies.c  which layer nodes made for which dependencies
 */
#ifndef PRATAI_API_INTERNAL_H
#define PRATAI_API_INTERNAL_H

#include <stdbool.h>

#include "core/api/api.h"
#include "core/base/crypto.h"
#include "core/model/function_record.h"
#include "core/model/message.h"
#include "netio/http_server.h"
#include "netio/mq.h"
#include "store/store.h"

enum {
	CALL_BUCKETS = 16384,
	CACHE_BUCKETS = 1024,
	SMALL_BODY_MAX = 256 << 10,
	PARAM_MAX = 256, /* an image's name is the longest */
	USER_MAX = EVENT_PROJECT_MAX,
	HINT_PAYLOAD_MAX = 256 << 10, /* larger async payloads are read from the store */
};

enum route_auth { AUTH_NONE, AUTH_TOKEN, AUTH_JOIN };

struct call;
struct route {
	const char *method, *pattern; /* "{}" stands for one segment */
	enum route_auth auth;
	int64_t body_max; /* -1: the payload's maximum */
	const char *query; /* the parameters that it takes ("a|b"); NULL: any, which it ignores */
	void (*handle)(struct call *c);
};

/* One request.  Lives until the server says gone and no asynchronous step holds it. */
struct call {
	struct api *api;
	struct http_request *request; /* NULL: gone */
	const struct route *route;
	char param[PARAM_MAX];
	char project[EVENT_PROJECT_MAX], user[USER_MAX];
	unsigned holds;
	bool answered;
	uint64_t begun_ns;
	int64_t begun_us;

	/* Who waits for an event: in api->waiting by event id. */
	struct id event_id;
	bool waiting;
	bool no_version; /* none was ready when the event was accepted */
	uint64_t wait_until_ns;
	struct call *wait_next;
	struct loop_timer *timer;

	void *data;              /* the handler's own, freed by drop */
	void (*drop)(void *data);
};

struct identity {
	char hash[SHA256_HEX_MAX]; /* of the token's secret */
	char project[EVENT_PROJECT_MAX], user[USER_MAX];
	uint64_t until_ns;
	struct identity *next;
};

struct cached_function {
	struct function f;
	uint64_t until_ns;
	struct cached_function *next;
};

struct api {
	struct api_config config;
	struct http_server *http;
	struct mq_socket *events, *answers;
	char reply_to[48];
	char join_hash[SHA256_HEX_MAX];
	struct call *waiting[CALL_BUCKETS];
	struct identity *identities[CACHE_BUCKETS];
	size_t identity_count;
	struct cached_function *functions[CACHE_BUCKETS];
	size_t function_count;
	bool closing;
};

/* ---- call.c ---- */
struct call *call_new(struct api *a, struct http_request *r, const struct route *route,
		      const char *param);
/* An asynchronous step keeps the call: hold before, release in the callback. */
void call_hold(struct call *c);
void call_release(struct call *c);
void call_gone(struct call *c);
void call_wait(struct call *c, const struct id *event);
void call_unwait(struct call *c);

/* Which page of a list is asked for: *limit has the default.  -1: c is answered 400. */
int call_limit(struct call *c, unsigned *limit);
int call_cursor(struct call *c, const char **id); /* an id, or NULL: from the start */

/* The first answer counts; a later one, or one to a request that is gone, goes nowhere. */
void call_reply(struct call *c, const struct http_reply *reply);
void call_json(struct call *c, int status, struct json *j); /* frees j */
/* fields: to a NULL name; NULL: none. */
void call_json_fields(struct call *c, int status, struct json *j, const struct http_field *fields);
void call_json_at(struct call *c, int status, struct json *j, const char *location);
/* A list's answer: takes items over. */
void call_items(struct call *c, struct json *items, const char *next);
void call_status(struct call *c, int status);
/* A store_fn, for what has no more to say than that it is done: 204, or the error; arg: the call,
 * which is released. */
void call_done(void *arg, const struct store_answer *a, const struct err *e);
/* problem+json; type is one of CONTRACT.md's. */
void call_problem(struct call *c, int status, const char *type, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* With fields (to a NULL name; NULL: none), and, unless key is NULL, one member more, which is
 * taken over. */
void call_problem_with(struct call *c, int status, const char *type, const char *detail,
		       const struct http_field *fields, const char *key, struct json *member);
/* The answer that an error class has: the one table from classes to statuses. */
void call_error(struct call *c, const struct err *e);
/* Sends a problem for a request that has no call yet. */
void request_problem(struct http_request *r, int status, const char *type, const char *detail,
		     const struct http_field *fields);

/* ---- auth.c ---- */
/* The request's token's hash into hex; -1: it has none. */
int auth_token(struct http_request *r, char hex[SHA256_HEX_MAX]);
/* Finds out whose token it is that hex is the hash of: fills c's project and user, and
 * holds the request until it has, or has answered 401. */
void auth_find(struct call *c, const char *hex);
void auth_forget_all(struct api *a);
void tokens_create(struct call *c);
void tokens_list(struct call *c);
void tokens_delete(struct call *c);

/* ---- functions.c, change.c ---- */
typedef void (*function_fn)(struct call *c, const struct function *f);
/* The function that ref (name or id) names in c's project, from the cache or the store;
 * answers 404 itself.  max_age: 0 for what must be fresh. */
void function_get(struct call *c, const char *ref, bool fresh, function_fn fn);
void function_cache_drop(struct api *a, const struct id *id);
void functions_create(struct call *c);
void functions_list(struct call *c);
void functions_show(struct call *c);
void functions_update(struct call *c);
void functions_delete(struct call *c);
void functions_build(struct call *c);
void functions_versions(struct call *c);
void functions_rollback(struct call *c);

/* ---- package.c ---- */
struct package_info {
	char digest[65];
	uint64_t bytes;
};
/* Checks the zip (with the helper program), keeps it as a blob; e NULL: done. */
typedef void (*package_fn)(void *arg, const struct package_info *p, const struct err *e);
void package_store(struct api *a, const void *zip, size_t len, package_fn fn, void *arg);

/* ---- invoke.c ---- */
void invoke(struct call *c);
/* The answer to whoever waits for ev: its own body, or a problem. */
void invoke_answer(struct call *c, const struct event *ev, const void *response, size_t len);
/* A wait_for_response event is over, or given up.  c may be gone afterwards. */
void invoke_over(struct call *c);

/* ---- events.c ---- */
void events_list(struct call *c);
void events_show(struct call *c);
void events_response(struct call *c);
void events_logs(struct call *c);
void events_payload(struct call *c);
/* An async event ended: whoever waits for its response reads it now. */
void events_ended(struct call *c);

/* ---- cluster.c ---- */
void cluster_discovery(struct call *c);
void cluster_health(struct call *c);
void cluster_ready(struct call *c);
void cluster_status(struct call *c);
void cluster_nodes(struct call *c);
void node_register(struct call *c);

/* ---- blob.c ---- */
void node_blob_get(struct call *c);
void node_blob_put(struct call *c);
void images_blob_put(struct call *c);
/* The bytes that a blob may have now: less than IMAGE_BLOB_MAX_BYTES when the disk gets full. */
int64_t images_blob_room(const struct api *a);

/* ---- images.c ---- */
void images_put(struct call *c);
void images_list(struct call *c);
void images_show(struct call *c);
void images_delete(struct call *c);
/* digest: of the manifest, hex; blobs: an array of the hex digests of all that it is made of,
 * which are safe from the sweep for an hour. */
typedef void (*image_fn)(struct call *c, const char *digest, const struct json *blobs);
/* The image of c's project that ref (a name, or "sha256:…") names; answers 400 itself. */
void image_find(struct call *c, const char *ref, image_fn fn);
/* The same for an image that c's project has used: answers 409 when it is not there any more. */
void image_again(struct call *c, const char *digest, const struct json *blobs, image_fn fn);

/* ---- dependencies.c ---- */
void node_dependencies_get(struct call *c);
void node_dependencies_put(struct call *c);

/* ---- runtimes.c ---- */
void runtimes_list(struct call *c);
void runtimes_show(struct call *c);
void runtimes_create(struct call *c);
void runtimes_delete(struct call *c);
/* own: the document of a runtime of the project's, lent; NULL: a node's.  Answers 400 itself when
 * there is none of that name. */
typedef void (*runtime_fn)(struct call *c, const struct json *own);
void runtime_find(struct call *c, const char *name, runtime_fn fn);

/* ---- api.c ---- */
int api_send(struct api *a, const struct message *m, const void *payload, size_t len, struct err *e);

#endif
