/*
 * Nodes as they register, and as they are listed.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/base/str.h"
#include "core/scheduler/internal.h"

enum { RUNTIMES_TEXT_MAX = 16 << 10, RUNTIMES_MAX = 64 };

static int
read_registration(const struct json *body, struct sched_node *n, struct err *e)
{
	const char *name = json_str(body, "name"), *incarnation = json_str(body, "incarnation");
	const char *version = json_str(body, "version");
	int64_t slots, memory;

	if (json_int(body, "v", 0) != MESSAGE_VERSION)
		return err_set(e, ERR_INPUT, "field 'v': only version %d is understood", MESSAGE_VERSION);
	if (!name || function_name_check(name, NULL) || str_copy(n->name, sizeof n->name, name))
		return err_set(e, ERR_INPUT, "field 'name': not a node's name");
	if (!incarnation || id_parse(incarnation, &n->incarnation))
		return err_set(e, ERR_INPUT, "field 'incarnation': not an id");
	if (!json_whole(body, "slots", &slots) || slots < 1 || slots > 100000)
		return err_set(e, ERR_INPUT, "field 'slots': 1 to 100000");
	if (!json_whole(body, "memory_mib", &memory) || memory < 1 || memory > (int64_t)1 << 32)
		return err_set(e, ERR_INPUT, "field 'memory_mib': 1 to 2^32");
	if (version && str_copy(n->version, sizeof n->version, version))
		return err_set(e, ERR_INPUT, "field 'version': too long");
	n->slots = (uint32_t)slots;
	n->memory_mib = (uint64_t)memory;
	/* One node a name: a second process of the same name takes its place. */
	memcpy(n->node_id, n->name, sizeof n->node_id);
	return 0;
}

static int
keep_runtimes(struct scheduler *s, const struct json *body, struct err *e)
{
	const struct json *list = json_get(body, "runtimes");
	struct json *kept;
	char *text;

	if (!json_is_array(list) || json_count(list) > RUNTIMES_MAX)
		return err_set(e, ERR_INPUT, "field 'runtimes': a list of at most %d", RUNTIMES_MAX);
	kept = json_array();
	for (const struct json *r = json_first(list); r; r = json_next(r)) {
		const char *name = json_str(r, "name"), *description = json_str(r, "description");
		struct json *one;

		if (!name || function_name_check(name, NULL))
			continue;
		one = json_object();
		json_put_str(one, "name", name);
		json_put_str(one, "image", "host");
		json_put_str(one, "description", description ? description : "");
		json_add(kept, one);
	}
	text = json_print(kept);
	json_free(kept);
	if (!text || strlen(text) > RUNTIMES_TEXT_MAX) {
		free(text);
		return err_set(e, ERR_INPUT, "field 'runtimes': too long");
	}
	free(s->runtimes);
	s->runtimes = text;
	return 0;
}

struct json *
scheduler_register(struct scheduler *s, const struct json *body, struct err *e)
{
	struct sched_node from = { .session = id_new() };
	struct json *answer;
	char session[ID_TEXT_MAX];

	if (!s->ready) {
		err_set(e, ERR_AGAIN, "the scheduler has not read its queue yet");
		return NULL;
	}
	if (read_registration(body, &from, e) || keep_runtimes(s, body, e))
		return NULL;
	if (!sched_node_up(s->sched, &from, scheduler_now(s), scheduler_lost, s)) {
		err_set(e, ERR_NODE, "out of memory");
		return NULL;
	}
	id_format(&from.session, session);
	log_info("node registered", "node", from.node_id, "session", session, NULL);
	answer = json_object();
	json_put_int(answer, "v", MESSAGE_VERSION);
	json_put_str(answer, "node_id", from.node_id);
	json_put_str(answer, "session", session);
	json_put_str(answer, "dispatch", s->config.dispatch);
	json_put_str(answer, "collect", s->config.collect);
	json_put_int(answer, "heartbeat_ms", 1000);
	json_put_int(answer, "lease_ms", 15000);
	return answer;
}

unsigned
scheduler_nodes_alive(const struct scheduler *s)
{
	unsigned alive = 0;

	if (!s->sched)
		return 0;
	for (const struct sched_node *n = sched_nodes(s->sched); n; n = n->next)
		alive += n->granted > 0 && sched_node_alive(s->sched, n, scheduler_now(s));
	return alive;
}

struct json *
scheduler_node_list(const struct scheduler *s)
{
	struct json *list = json_array();
	const struct sched_node *n = s->sched ? sched_nodes(s->sched) : NULL;

	for (; n; n = n->next) {
		struct json *j = json_object();
		char seen[CLOCK_RFC3339_MAX];

		json_put_str(j, "node_id", n->node_id);
		json_put_str(j, "name", n->name);
		json_put_str(j, "state",
			     sched_node_alive(s->sched, n, scheduler_now(s)) ? "alive" : "silent");
		json_put_int(j, "slots", n->slots);
		json_put_int(j, "running", n->running);
		json_put_int(j, "memory_mib", (int64_t)n->memory_mib);
		json_put_int(j, "memory_used_mib", (int64_t)n->memory_used_mib);
		json_put_str(j, "version", n->version);
		clock_format(n->last_seen_us, seen);
		json_put_str(j, "last_seen", n->last_seen_us ? seen : NULL);
		json_add(list, j);
	}
	return list;
}

struct json *
scheduler_runtime_list(const struct scheduler *s)
{
	return s->runtimes ? json_parse(s->runtimes, strlen(s->runtimes), NULL) : json_array();
}

bool
scheduler_has_runtime(const struct scheduler *s, const char *name)
{
	struct json *list = scheduler_runtime_list(s);
	bool found = false;

	for (const struct json *r = json_first(list); r; r = json_next(r))
		found = found || !strcmp(json_str(r, "name"), name);
	json_free(list);
	return found;
}
