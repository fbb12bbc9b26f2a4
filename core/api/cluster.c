/*
 * The platform about itself, and the nodes' registration.
 */
#include <stdlib.h>
#include <string.h>

#include "core/api/internal.h"
#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/json.h"
#include "core/scheduler/scheduler.h"

void
cluster_discovery(struct call *c)
{
	struct json *j = json_object();

	json_put_str(j, "name", "Pratai");
	json_put_str(j, "version", PRATAI_VERSION);
	json_put_str(j, "api", "/v1");
	call_json(c, 200, j);
}

void
cluster_health(struct call *c)
{
	struct json *j = json_object();

	json_put_str(j, "status", "ok");
	call_json(c, 200, j);
}

void
cluster_ready(struct call *c)
{
	const struct scheduler *s = c->api->config.scheduler;
	struct json *j;

	if (!store_healthy(c->api->config.store)) {
		call_problem(c, 503, "store_unavailable", "the store does not answer");
		return;
	}
	if (s && !scheduler_ready(s)) {
		call_problem(c, 503, "not_ready", "the scheduler is reading its queue");
		return;
	}
	if (s && scheduler_nodes_alive(s) == 0) {
		call_problem(c, 503, "no_node", "no node takes work");
		return;
	}
	j = json_object();
	json_put_str(j, "status", "ready");
	call_json(c, 200, j);
}

static void
put_roles(struct json *j, const char *roles)
{
	struct json *list = json_array();
	char *copy = strdup(roles), *save = NULL;

	for (char *role = copy ? strtok_r(copy, ",", &save) : NULL; role; role = strtok_r(NULL, ",", &save))
		json_add_str(list, role);
	free(copy);
	json_put(j, "roles", list);
}

static void
on_counts(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	const struct api_config *config = &c->api->config;
	struct json *j, *events;
	char started[CLOCK_RFC3339_MAX];
	uint64_t accepted = 0;

	if (e) {
		call_error(c, e);
		call_release(c);
		return;
	}
	j = json_object();
	events = json_object();
	clock_format(config->started_us, started);
	json_put_str(j, "version", PRATAI_VERSION);
	put_roles(j, config->roles);
	json_put_str(j, "started_at", started);
	json_put_bool(j, "store_healthy", store_healthy(config->store));
	for (int i = 0; i < EVENT_STATE_COUNT; i++) {
		accepted += a->counts[i];
		json_put_int(events, event_state_name((enum event_state)i), (int64_t)a->counts[i]);
	}
	/* accepted = queued + running + ended, by construction: each record has one state. */
	json_put_int(events, "accepted", (int64_t)accepted);
	json_put(j, "events", events);
	if (config->scheduler) {
		json_put_int(j, "term", (int64_t)scheduler_term(config->scheduler));
		json_put(j, "nodes", scheduler_node_list(config->scheduler));
	}
	call_json(c, 200, j);
	call_release(c);
}

void
cluster_status(struct call *c)
{
	call_hold(c);
	store_event_counts(c->api->config.store, c->project, on_counts, c);
}

void
cluster_nodes(struct call *c)
{
	struct scheduler *s = c->api->config.scheduler;

	call_items(c, s ? scheduler_node_list(s) : json_array(), NULL);
}

/* ---- for nodes ---- */

void
node_register(struct call *c)
{
	size_t len;
	const void *body = http_body(c->request, &len);
	struct json *ask, *answer;
	struct err e;

	ask = json_parse(body, len, &e);
	if (!ask) {
		call_error(c, &e);
		return;
	}
	if (!c->api->config.scheduler) {
		json_free(ask);
		call_problem(c, 503, "not_ready", "there is no scheduler in this process");
		return;
	}
	answer = scheduler_register(c->api->config.scheduler, ask, &e);
	json_free(ask);
	if (!answer)
		call_error(c, &e);
	else
		call_json(c, 200, answer);
}
