#include "core/api/api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/api/internal.h"
#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/base/str.h"
#include "core/model/manifest.h"
#include "netio/loop.h"

enum { PACKAGE_BODY_MAX = FUNCTION_PACKAGE_MAX_BYTES + FUNCTION_METADATA_MAX_BYTES + (64 << 10) };
enum { IDLE_SECONDS = 60 };

static const struct route routes[] = {
	{ "GET", "/", AUTH_NONE, 0, NULL, cluster_discovery },
	{ "GET", "/healthz", AUTH_NONE, 0, NULL, cluster_health },
	{ "GET", "/readyz", AUTH_NONE, 0, NULL, cluster_ready },
	{ "POST", "/v1/functions", AUTH_TOKEN, PACKAGE_BODY_MAX, "", functions_create },
	{ "GET", "/v1/functions", AUTH_TOKEN, 0, "limit|cursor", functions_list },
	{ "GET", "/v1/functions/{}", AUTH_TOKEN, 0, "", functions_show },
	{ "PATCH", "/v1/functions/{}", AUTH_TOKEN, PACKAGE_BODY_MAX, "", functions_update },
	{ "DELETE", "/v1/functions/{}", AUTH_TOKEN, 0, "", functions_delete },
	{ "POST", "/v1/functions/{}", AUTH_TOKEN, -1, NULL, invoke },
	{ "GET", "/v1/functions/{}/build", AUTH_TOKEN, 0, "", functions_build },
	{ "GET", "/v1/functions/{}/versions", AUTH_TOKEN, 0, "limit", functions_versions },
	{ "POST", "/v1/functions/{}/rollback", AUTH_TOKEN, SMALL_BODY_MAX, "", functions_rollback },
	{ "GET", "/v1/events", AUTH_TOKEN, 0,
	  "function|state|source|since|q|limit|cursor", events_list },
	{ "GET", "/v1/events/{}", AUTH_TOKEN, 0, "", events_show },
	{ "GET", "/v1/events/{}/response", AUTH_TOKEN, 0, "wait", events_response },
	{ "GET", "/v1/events/{}/logs", AUTH_TOKEN, 0, "", events_logs },
	{ "GET", "/v1/events/{}/payload", AUTH_TOKEN, 0, "", events_payload },
	{ "GET", "/v1/cluster", AUTH_TOKEN, 0, "", cluster_status },
	/* This list is short and comes whole, whatever page is asked for. */
	{ "GET", "/v1/nodes", AUTH_TOKEN, 0, "limit|cursor", cluster_nodes },
	{ "GET", "/v1/runtimes", AUTH_TOKEN, 0, "limit|cursor", runtimes_list },
	{ "POST", "/v1/runtimes", AUTH_TOKEN, SMALL_BODY_MAX, "", runtimes_create },
	{ "GET", "/v1/runtimes/{}", AUTH_TOKEN, 0, "", runtimes_show },
	{ "DELETE", "/v1/runtimes/{}", AUTH_TOKEN, 0, "", runtimes_delete },
	{ "POST", "/v1/tokens", AUTH_TOKEN, SMALL_BODY_MAX, "", tokens_create },
	{ "GET", "/v1/tokens", AUTH_TOKEN, 0, "limit|cursor", tokens_list },
	{ "DELETE", "/v1/tokens/{}", AUTH_TOKEN, 0, "", tokens_delete },
	{ "POST", "/v1/node/register", AUTH_JOIN, SMALL_BODY_MAX, "", node_register },
	{ "PUT", "/v1/images/blobs/{}", AUTH_TOKEN, IMAGE_BLOB_MAX_BYTES, "", images_blob_put },
	{ "GET", "/v1/images", AUTH_TOKEN, 0, "limit|cursor", images_list },
	{ "GET", "/v1/images/{}", AUTH_TOKEN, 0, "", images_show },
	{ "PUT", "/v1/images/{}", AUTH_TOKEN, SMALL_BODY_MAX, "", images_put },
	{ "DELETE", "/v1/images/{}", AUTH_TOKEN, 0, "", images_delete },
	{ "GET", "/v1/node/blobs/{}", AUTH_JOIN, 0, "", node_blob_get },
	{ "PUT", "/v1/node/blobs/{}", AUTH_JOIN, FUNCTION_LAYER_MAX_BYTES, "", node_blob_put },
	{ "GET", "/v1/node/dependencies/{}", AUTH_JOIN, 0, "", node_dependencies_get },
	{ "PUT", "/v1/node/dependencies/{}", AUTH_JOIN, SMALL_BODY_MAX, "", node_dependencies_put },
};
enum { ROUTE_COUNT = sizeof routes / sizeof routes[0] };

/* ---- routes ---- */

static void
plain_slashes(char *text)
{
	for (; *text; text++)
		if (*text == HTTP_SLASH)
			*text = '/';
}

/* True when path is pattern, with the segment at "{}" in param. */
static bool
matches(const char *pattern, const char *path, char param[PARAM_MAX])
{
	const char *hole = strstr(pattern, "{}");
	size_t before = hole ? (size_t)(hole - pattern) : strlen(pattern), n;

	param[0] = '\0';
	if (strncmp(pattern, path, before))
		return false;
	if (!hole)
		return path[before] == '\0';
	n = strcspn(path + before, "/");
	if (n == 0 || n >= PARAM_MAX || strcmp(path + before + n, hole + 2))
		return false;
	memcpy(param, path + before, n);
	param[n] = '\0';
	plain_slashes(param);
	return true;
}

static const struct route *
find_route(const char *method, const char *path, char param[PARAM_MAX], char allow[64])
{
	const struct route *found = NULL;
	char hole[PARAM_MAX];

	if (!strcmp(method, "HEAD"))
		method = "GET";
	allow[0] = '\0';
	for (int i = 0; i < ROUTE_COUNT && !found; i++) {
		size_t len = strlen(allow);

		if (!matches(routes[i].pattern, path, hole))
			continue;
		snprintf(allow + len, 64 - len, "%s%s%s", len ? ", " : "", routes[i].method,
			 strcmp(routes[i].method, "GET") ? "" : ", HEAD");
		if (!strcmp(routes[i].method, method)) {
			found = &routes[i];
			memcpy(param, hole, PARAM_MAX);
		}
	}
	return found;
}

static bool
may_join(const struct api *a, struct http_request *r)
{
	const char *token = http_header(r, "X-Pratai-Join");
	char hex[SHA256_HEX_MAX];

	if (!token || !a->config.join_token[0])
		return false;
	sha256_hex(token, strlen(token), hex);
	return equal_in_constant_time(hex, a->join_hash, SHA256_HEX_MAX);
}

/* The headers are there: what can be refused without the body is refused now. */
static int64_t
on_begin(void *arg, struct http_request *r)
{
	static const struct http_field challenge[] = {
		{ "WWW-Authenticate", "Bearer realm=\"pratai\"" }, { NULL, NULL }
	};
	struct api *a = arg;
	char param[PARAM_MAX], allow[64], detail[256], hex[SHA256_HEX_MAX];
	const struct route *route = find_route(http_method(r), http_path(r), param, allow);
	const char *other;
	struct http_field allowed[] = { { "Allow", allow }, { NULL, NULL } };
	struct call *c;

	if (a->closing) {
		request_problem(r, 503, "not_ready", "this process is ending", NULL);
		return 0;
	}
	if (!route && allow[0]) {
		snprintf(detail, sizeof detail, "%.16s is not allowed here, only %s", http_method(r), allow);
		request_problem(r, 405, "method_not_allowed", detail, allowed);
		return 0;
	}
	if (!route) {
		snprintf(detail, sizeof detail, "there is nothing at '%.150s'", http_path(r));
		plain_slashes(detail);
		request_problem(r, 404, "not_found", detail, NULL);
		return 0;
	}
	if (route->auth == AUTH_JOIN && !may_join(a, r)) {
		request_problem(r, 401, "unauthorized", "the join token is missing or wrong", NULL);
		return 0;
	}
	if (route->auth == AUTH_TOKEN && auth_token(r, hex)) {
		request_problem(r, 401, "unauthorized",
				"no token: send X-Auth-Token or Authorization: Bearer", challenge);
		return 0;
	}
	if (route->query && (other = http_query_other(r, route->query))) {
		snprintf(detail, sizeof detail, "the query's '%.60s' is not known here%s%s", other,
			 *route->query ? ", only " : "", route->query);
		request_problem(r, 400, "invalid_request", detail, NULL);
		return 0;
	}
	c = call_new(a, r, route, param);
	if (!c) {
		request_problem(r, 503, "store_unavailable", "out of memory", NULL);
		return 0;
	}
	http_request_set(r, c);
	if (route->auth == AUTH_TOKEN)
		auth_find(c, hex);
	if (route->handle == images_blob_put)
		return images_blob_room(a);
	return route->body_max < 0 ? (int64_t)a->config.payload_max : route->body_max;
}

static void
on_handle(void *arg, struct http_request *r)
{
	struct call *c = http_request_get(r);

	(void)arg;
	c->route->handle(c);
}

static void
on_too_large(void *arg, struct http_request *r, int64_t limit)
{
	const struct call *c = http_request_get(r);
	const char *length = http_header(r, "Content-Length");
	char detail[128];
	int64_t bytes;

	(void)arg;
	/* Too long for any disk, or for ours now? */
	if (c && c->route->handle == images_blob_put && length &&
	    !str_int(length, 0, INT64_MAX, &bytes) && bytes > IMAGE_BLOB_MAX_BYTES)
		limit = IMAGE_BLOB_MAX_BYTES;
	if (c && c->route->handle == images_blob_put && limit < IMAGE_BLOB_MAX_BYTES) {
		snprintf(detail, sizeof detail, "the disk has no room for a blob of more than %lld bytes now",
			 (long long)limit);
		request_problem(r, 503, "store_unavailable", detail, NULL);
		return;
	}
	snprintf(detail, sizeof detail, "the body is larger than the %lld bytes that are allowed here",
		 (long long)limit);
	request_problem(r, 413, "too_large", detail, NULL);
}

static void
on_gone(void *arg, struct http_request *r)
{
	struct call *c = http_request_get(r);

	(void)arg;
	if (c)
		call_gone(c);
}

/* ---- answers from the collector ---- */

/* What a wait_for_response caller waits for; watchers are told with less. */
static bool
is_answer(const struct event *ev, size_t frames)
{
	return event_state_ended(ev->state) && (frames > 1 || !ev->has_response);
}

static void
on_answer(void *arg, const struct mq_frame *frames, size_t n)
{
	struct api *a = arg;
	struct message m;
	struct err e;
	struct call *c, *next;

	if (message_decode(frames[0].data, frames[0].len, &m, &e)) {
		log_warning("a message was dropped", "socket", "answers", "error", e.text, NULL);
		return;
	}
	for (c = a->waiting[id_hash(&m.event.id) % CALL_BUCKETS]; c; c = next) {
		next = c->wait_next;
		if (!id_equal(&c->event_id, &m.event.id))
			continue;
		if (c->route->handle != invoke) {
			events_ended(c);
		} else if (is_answer(&m.event, n)) {
			invoke_answer(c, &m.event, n > 1 ? frames[1].data : NULL, n > 1 ? frames[1].len : 0);
			invoke_over(c);
		}
	}
	message_clear(&m);
}

int
api_send(struct api *a, const struct message *m, const void *payload, size_t len, struct err *e)
{
	char *envelope = message_encode(m);
	struct mq_frame frames[2] = { { envelope, envelope ? strlen(envelope) : 0 }, { payload, len } };
	int rc;

	if (!envelope)
		return err_set(e, ERR_AGAIN, "out of memory");
	rc = mq_send(a->events, frames, payload ? 2 : 1, e);
	free(envelope);
	return rc;
}

/* ---- life ---- */

static int
open_sockets(struct api *a, struct err *e)
{
	char endpoint[96];
	struct mq_options events = { .connect = a->config.events, .high_water = 100000 };
	struct mq_options answers = { .bind = endpoint, .high_water = 100000 };
	struct id boot = id_new();
	char text[ID_TEXT_MAX];

	/* Of this process and this start only: answers for an earlier one find nobody. */
	id_format(&boot, text);
	snprintf(a->reply_to, sizeof a->reply_to, "%s", text);
	snprintf(endpoint, sizeof endpoint, "inproc://answers.%s", a->reply_to);
	a->answers = mq_open(a->config.mq, MQ_PULL, &answers, on_answer, a, e);
	a->events = a->answers ? mq_open(a->config.mq, MQ_PUSH, &events, NULL, NULL, e) : NULL;
	return a->events ? 0 : -1;
}

struct api *
api_new(const struct api_config *config, struct err *e)
{
	static const struct http_handler handler = { on_begin, on_handle, on_too_large, on_gone };
	struct api *a = calloc(1, sizeof *a);
	struct http_server_config http = {
		.listen_fd = config->listen_fd,
		.spool_fd = config->spool_fd,
		.body_memory_bytes = config->body_memory_bytes,
		.connections_max = config->connections_max,
		.idle_seconds = IDLE_SECONDS,
	};

	if (!a) {
		err_set(e, ERR_NODE, "out of memory");
		return NULL;
	}
	a->config = *config;
	sha256_hex(config->join_token, strlen(config->join_token), a->join_hash);
	if (open_sockets(a, e) || !(a->http = http_server_new(config->loop, &http, &handler, a, e))) {
		api_free(a);
		return NULL;
	}
	return a;
}

void
api_free(struct api *a)
{
	if (!a)
		return;
	a->closing = true;
	if (a->http)
		http_server_free(a->http);
	/* What is left waits for events whose callers are gone. */
	for (int i = 0; i < CALL_BUCKETS; i++)
		while (a->waiting[i])
			invoke_over(a->waiting[i]);
	mq_close(a->events);
	mq_close(a->answers);
	auth_forget_all(a);
	function_cache_drop(a, NULL);
	free(a);
}
