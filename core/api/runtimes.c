/*
 * Runtimes: those that the nodes offer, and those that a project made for itself: an image by
 * its digest and the command that is started in it (pratai-runtime(7)).  A version of a function
 * takes along all that it needs of one, so nodes know nothing of them, and a runtime can go while
 * versions run on it.  A node's own runtime comes first: its name cannot be taken.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/api/internal.h"
#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/json.h"
#include "core/model/function.h"
#include "core/model/runtime_rule.h"
#include "core/scheduler/scheduler.h"

enum { NAME_MAX_BYTES = 31, DESCRIPTION_MAX = 4096 };

/* What its owner sees of it. */
static struct json *
record(const struct json *doc)
{
	static const char *const kept[] = { "name", "project_id", "image", "command", "build", "env",
					    "description" };
	struct json *j = json_object();
	char text[CLOCK_RFC3339_MAX], digest[80];

	for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
		json_put(j, kept[i], json_copy(json_get(doc, kept[i])));
	snprintf(digest, sizeof digest, "sha256:%.64s", json_str(doc, "image_digest"));
	json_put_str(j, "image_digest", digest);
	clock_format(json_int(doc, "created_us", 0), text);
	json_put_str(j, "created_at", text);
	return j;
}

/* A node's of that name, or NULL. */
static struct json *
of_nodes(struct api *a, const char *name)
{
	struct json *list = a->config.scheduler ? scheduler_runtime_list(a->config.scheduler) : json_array();
	struct json *found = NULL;

	for (const struct json *r = json_first(list); r && !found; r = json_next(r))
		if (!strcmp(json_str(r, "name"), name))
			found = json_copy(r);
	json_free(list);
	return found;
}

/* ---- Create ---- */

static int
read_ask(struct call *c, struct json *ask, struct err *e)
{
	static const char *const known[] = { "name", "image", "command", "build", "env", "description" };
	const char *name = json_str(ask, "name"), *description = json_str(ask, "description");
	struct json *taken;

	if (!json_is_object(ask))
		return err_set(e, ERR_INPUT, "the body must be an object");
	for (const struct json *m = json_first(ask); m; m = json_next(m)) {
		size_t i = 0;

		while (i < sizeof known / sizeof *known && strcmp(json_key(m), known[i]))
			i++;
		if (i == sizeof known / sizeof *known)
			return err_set(e, ERR_INPUT, "field '%.80s': unknown", json_key(m));
	}
	if (!name)
		return err_set(e, ERR_INPUT, "field 'name': missing");
	if (function_name_check(name, e))
		return -1;
	if (strlen(name) > NAME_MAX_BYTES)
		return err_set(e, ERR_INPUT, "field 'name': at most %d characters are allowed", NAME_MAX_BYTES);
	if (!json_str(ask, "image"))
		return err_set(e, ERR_INPUT, "field 'image': missing");
	if (json_get(ask, "description") && (!description || strlen(description) > DESCRIPTION_MAX))
		return err_set(e, ERR_INPUT, "field 'description': must be a text of at most %d bytes",
			       DESCRIPTION_MAX);
	if (runtime_rule_check(ask, e))
		return -1;
	taken = of_nodes(c->api, name);
	json_free(taken);
	return taken ? err_set(e, ERR_CONFLICT, "'%s' is a runtime of the nodes", name) : 0;
}

static void
on_created(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	const struct json *doc = c->data;
	char location[80];

	(void)a;
	if (e && e->cls == ERR_CONFLICT) {
		call_problem(c, 409, "conflict", "a runtime called '%s' exists already in this project",
			     json_str(doc, "name"));
	} else if (e) {
		call_error(c, e);
	} else {
		snprintf(location, sizeof location, "/v1/runtimes/%s", json_str(doc, "name"));
		call_json_at(c, 201, record(doc), location);
	}
	call_release(c);
}

static void
on_image(struct call *c, const char *digest, const struct json *blobs)
{
	struct json *doc = c->data, *list = json_array();
	struct id id = id_new();
	char id_text[ID_TEXT_MAX];
	struct store_doc d = { .kind = STORE_RUNTIME, .id = id_text, .project = c->project,
			       .name = json_str(doc, "name"), .parent = digest };
	char *text;

	id_format(&id, id_text);
	for (const struct json *b = json_first(blobs); b; b = json_next(b)) {
		struct json *one = json_object();

		json_put_str(one, "digest", json_string_value(b));
		json_add(list, one);
	}
	json_put(doc, "blobs", list);
	json_put_str(doc, "image_digest", digest);
	json_put_str(doc, "project_id", c->project);
	json_put_int(doc, "created_us", clock_real_us());
	text = json_print(doc);
	d.json = text;
	call_hold(c);
	store_doc_create(c->api->config.store, &d, on_created, c);
	free(text);
}

static void
drop_json(void *data)
{
	json_free(data);
}

static void
put_default(struct json *j, const char *key, struct json *value)
{
	if (!json_get(j, key) || json_is_null(json_get(j, key)))
		json_put(j, key, value);
	else
		json_free(value);
}

void
runtimes_create(struct call *c)
{
	const struct scheduler *s = c->api->config.scheduler;
	struct err e;
	size_t len;
	const void *body = http_body(c->request, &len);
	struct json *ask = json_parse(body, len, &e);

	c->data = ask;
	c->drop = drop_json;
	if (s && scheduler_nodes_alive(s) == 0) {
		call_problem(c, 503, "no_node", "no node says which names of runtimes are taken");
	} else if (!ask || read_ask(c, ask, &e)) {
		call_error(c, &e);
	} else {
		put_default(ask, "build", json_array());
		put_default(ask, "env", json_object());
		if (!json_get(ask, "description"))
			json_put_str(ask, "description", "");
		image_find(c, json_str(ask, "image"), on_image);
	}
}

/* ---- List, show, delete ---- */

static void
on_list(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	struct json *list = c->data;

	if (e) {
		call_error(c, e);
		call_release(c);
		return;
	}
	for (size_t i = 0; i < a->doc_count; i++) {
		struct json *doc = json_parse(a->docs[i].json, strlen(a->docs[i].json), NULL);

		if (doc)
			json_add(list, record(doc));
		json_free(doc);
	}
	c->data = NULL;
	call_items(c, list, a->next);
	call_release(c);
}

/* The nodes' first, all on the first page; then the project's. */
void
runtimes_list(struct call *c)
{
	struct scheduler *s = c->api->config.scheduler;
	unsigned limit = STORE_LIST_MAX;
	const char *cursor;

	if (call_limit(c, &limit) || call_cursor(c, &cursor))
		return;
	c->data = s && !cursor ? scheduler_runtime_list(s) : json_array();
	c->drop = drop_json;
	call_hold(c);
	store_doc_list(c->api->config.store, STORE_RUNTIME, c->project, NULL, cursor, limit, on_list, c);
}

/* Answers for what is not there; a name of no form is not there either. */
static bool
was_found(struct call *c, const struct err *e)
{
	if (e && (e->cls == ERR_NOT_FOUND || e->cls == ERR_INPUT))
		call_problem(c, 404, "not_found", "no runtime is called '%s'", c->param);
	else if (e)
		call_error(c, e);
	return !e;
}

static void
on_show(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	struct json *doc = e ? NULL : json_parse(a->docs[0].json, strlen(a->docs[0].json), NULL);

	if (was_found(c, e))
		call_json(c, 200, record(doc));
	json_free(doc);
	call_release(c);
}

void
runtimes_show(struct call *c)
{
	struct json *node = of_nodes(c->api, c->param);

	if (node) {
		call_json(c, 200, node);
		return;
	}
	call_hold(c);
	store_doc_find(c->api->config.store, STORE_RUNTIME, c->project, c->param, on_show, c);
}

static void
on_to_delete(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;

	if (was_found(c, e)) {
		call_hold(c);
		store_doc_delete(c->api->config.store, STORE_RUNTIME, a->docs[0].id, call_done, c);
	}
	call_release(c);
}

static void
on_to_delete_of_nodes(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;

	if (e && e->cls == ERR_NOT_FOUND)
		call_problem(c, 403, "forbidden", "'%s' is a runtime of the nodes", c->param);
	else
		on_to_delete(c, a, e);
	if (e && e->cls == ERR_NOT_FOUND)
		call_release(c);
}

/* A project's is found also when a node has come with one of its name. */
void
runtimes_delete(struct call *c)
{
	struct json *node = of_nodes(c->api, c->param);

	call_hold(c);
	store_doc_find(c->api->config.store, STORE_RUNTIME, c->project, c->param,
		       node ? on_to_delete_of_nodes : on_to_delete, c);
	json_free(node);
}

/* ---- For functions ---- */

struct runtime_use {
	struct call *call;
	runtime_fn fn;
	char name[64];
};

static void
on_runtime(void *arg, const struct store_answer *a, const struct err *e)
{
	struct runtime_use *u = arg;
	struct call *c = u->call;
	struct scheduler *s = c->api->config.scheduler;
	bool there_is_none = e && e->cls == ERR_NOT_FOUND;
	struct json *doc = e ? NULL : json_parse(a->docs[0].json, strlen(a->docs[0].json), NULL);

	if (e && !there_is_none)
		call_error(c, e);
	else if (there_is_none && s && scheduler_nodes_alive(s) > 0)
		call_problem(c, 400, "invalid_request", "field 'runtime': '%.60s' is neither one that a node offers "
			     "nor one of this project (see runtime-list)", u->name);
	else if (c->request)
		u->fn(c, doc); /* without a node nobody can tell whether one has it */
	json_free(doc);
	free(u);
	call_release(c);
}

void
runtime_find(struct call *c, const char *name, runtime_fn fn)
{
	struct scheduler *s = c->api->config.scheduler;
	struct runtime_use *u;

	if (s && scheduler_has_runtime(s, name)) {
		fn(c, NULL);
		return;
	}
	u = calloc(1, sizeof *u);
	if (!u) {
		call_problem(c, 503, "store_unavailable", "out of memory");
		return;
	}
	u->call = c;
	u->fn = fn;
	snprintf(u->name, sizeof u->name, "%s", name);
	call_hold(c);
	store_doc_find(c->api->config.store, STORE_RUNTIME, c->project, name, on_runtime, u);
}
