/*
 * Functions: their records, and the cache that webhooks read them from.  Create and update
 * are in change.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/api/internal.h"
#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/scheduler/scheduler.h"

enum { CACHE_SECONDS = 5, CACHED_FUNCTIONS_MAX = 20000 };

/* ---- the cache: by id; a name is found by a walk of its own table's bucket ---- */

static size_t
name_bucket(const char *project, const char *name)
{
	size_t at = 5381;

	for (const char *p = project; *p; p++)
		at = at * 33 + (unsigned char)*p;
	for (const char *p = name; *p; p++)
		at = at * 33 + (unsigned char)*p;
	return at % CACHE_BUCKETS;
}

static void
free_cached(struct api *a, struct cached_function **p)
{
	struct cached_function *c = *p;

	*p = c->next;
	function_clear(&c->f);
	free(c);
	a->function_count--;
}

void
function_cache_drop(struct api *a, const struct id *id)
{
	for (int b = 0; b < CACHE_BUCKETS; b++)
		for (struct cached_function **p = &a->functions[b]; *p;) {
			if (!id || id_equal(&(*p)->f.id, id))
				free_cached(a, p);
			else
				p = &(*p)->next;
		}
}

void
api_function_changed(void *api, const struct id *function)
{
	function_cache_drop(api, function);
}

static const struct function *
cached(struct api *a, const char *project, const char *name)
{
	struct cached_function *c = a->functions[name_bucket(project, name)];

	while (c && (strcmp(c->f.name, name) || strcmp(c->f.project_id, project)))
		c = c->next;
	return c && c->until_ns > clock_mono_ns() ? &c->f : NULL;
}

/* Takes f over.  The function as it is now kept, or NULL when there is no memory. */
static const struct function *
keep(struct api *a, struct function *f)
{
	struct cached_function **head = &a->functions[name_bucket(f->project_id, f->name)], **p = head;
	struct cached_function *c;

	while (*p && (strcmp((*p)->f.name, f->name) || strcmp((*p)->f.project_id, f->project_id)))
		p = &(*p)->next;
	if (*p)
		free_cached(a, p);
	if (a->function_count >= CACHED_FUNCTIONS_MAX)
		function_cache_drop(a, NULL);
	c = calloc(1, sizeof *c);
	if (!c) {
		function_clear(f);
		return NULL;
	}
	c->f = *f;
	memset(f, 0, sizeof *f);
	c->until_ns = clock_mono_ns() + CACHE_SECONDS * NS_PER_S;
	c->next = *head;
	*head = c;
	a->function_count++;
	return &c->f;
}

/* ---- finding one ---- */

struct lookup {
	struct call *call;
	function_fn fn;
};

static void
on_function(void *arg, const struct store_answer *a, const struct err *e)
{
	struct lookup *l = arg;
	struct call *c = l->call;
	function_fn fn = l->fn;
	const struct function *kept;
	struct function f;
	struct err bad;

	free(l);
	if (e && e->cls == ERR_NOT_FOUND) {
		call_problem(c, 404, "not_found", "no function is called '%s' in this project", c->param);
	} else if (e) {
		call_error(c, e);
	} else if (function_decode(a->docs[0].json, strlen(a->docs[0].json), &f, &bad)) {
		call_error(c, &bad);
	} else if (strcmp(f.project_id, c->project)) {
		function_clear(&f);
		call_problem(c, 404, "not_found", "no function is called '%s' in this project", c->param);
	} else if ((kept = keep(c->api, &f)) && c->request) {
		fn(c, kept);
	}
	call_release(c);
}

void
function_get(struct call *c, const char *ref, bool fresh, function_fn fn)
{
	const struct function *known = fresh ? NULL : cached(c->api, c->project, ref);
	struct lookup *l;
	struct id id;

	if (known) {
		fn(c, known);
		return;
	}
	l = malloc(sizeof *l);
	if (!l) {
		call_problem(c, 503, "store_unavailable", "out of memory");
		return;
	}
	l->call = c;
	l->fn = fn;
	call_hold(c);
	if (!id_parse(ref, &id)) {
		char text[ID_TEXT_MAX];

		id_format(&id, text);
		store_doc_get(c->api->config.store, STORE_FUNCTION, text, on_function, l);
	} else {
		store_doc_find(c->api->config.store, STORE_FUNCTION, c->project, ref, on_function, l);
	}
}

/* ---- list, show, build output ---- */

static void
on_list(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	struct json *list;

	if (e) {
		call_error(c, e);
		call_release(c);
		return;
	}
	list = json_array();
	for (size_t i = 0; i < a->doc_count; i++) {
		struct function f;

		if (function_decode(a->docs[i].json, strlen(a->docs[i].json), &f, NULL))
			continue;
		json_add(list, function_record(&f));
		function_clear(&f);
	}
	call_items(c, list, a->next);
	call_release(c);
}

void
functions_list(struct call *c)
{
	unsigned limit = STORE_LIST_MAX;
	const char *cursor;

	if (call_limit(c, &limit) || call_cursor(c, &cursor))
		return;
	call_hold(c);
	store_doc_list(c->api->config.store, STORE_FUNCTION, c->project, NULL, cursor, limit, on_list, c);
}

static void
show(struct call *c, const struct function *f)
{
	call_json(c, 200, function_record(f));
}

void
functions_show(struct call *c)
{
	function_get(c, c->param, true, show);
}

struct build_view {
	uint32_t version;
	enum version_state state;
	char *reason;
};

static void
drop_build_view(void *data)
{
	struct build_view *v = data;

	free(v->reason);
	free(v);
}

static void
on_build(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	struct build_view *v = c->data;
	struct json *answer, *doc = NULL;

	if (e && e->cls != ERR_NOT_FOUND) {
		call_error(c, e);
		call_release(c);
		return;
	}
	if (!e)
		doc = json_parse(a->docs[0].json, strlen(a->docs[0].json), NULL);
	answer = json_object();
	json_put_int(answer, "version", v->version);
	json_put_str(answer, "state", version_state_name(v->state));
	json_put_str(answer, "state_reason", v->reason);
	json_put_str(answer, "log", json_str(doc, "log") ? json_str(doc, "log") : "");
	json_free(doc);
	call_json(c, 200, answer);
	call_release(c);
}

static void
build(struct call *c, const struct function *f)
{
	struct build_view *v = calloc(1, sizeof *v);
	char id[VERSION_ID_MAX];

	if (!v) {
		call_problem(c, 503, "store_unavailable", "out of memory");
		return;
	}
	v->version = f->latest;
	v->state = f->state;
	v->reason = f->state_reason ? strdup(f->state_reason) : NULL;
	c->data = v;
	c->drop = drop_build_view;
	function_version_id(&f->id, f->latest, id);
	call_hold(c);
	store_doc_get(c->api->config.store, STORE_BUILD, id, on_build, c);
}

void
functions_build(struct call *c)
{
	function_get(c, c->param, true, build);
}

/* ---- versions ---- */

struct versions_view {
	uint32_t serving;
	unsigned limit;
};

static int
by_version(const void *a, const void *b)
{
	int64_t one = json_int(*(struct json *const *)a, "version", 0);
	int64_t other = json_int(*(struct json *const *)b, "version", 0);

	return one < other ? -1 : one > other;
}

static void
on_versions(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	const struct versions_view *view = c->data;
	struct json **all = e ? NULL : calloc(a->doc_count + 1, sizeof *all), *list;
	size_t n = 0;

	if (!all) {
		call_error(c, e ? e : &(struct err){ .cls = ERR_AGAIN, .text = "out of memory" });
		call_release(c);
		return;
	}
	for (size_t i = 0; i < a->doc_count; i++)
		if ((all[n] = json_parse(a->docs[i].json, strlen(a->docs[i].json), NULL)))
			n++;
	qsort(all, n, sizeof *all, by_version); /* the store's order is that of texts */
	list = json_array();
	for (size_t i = 0; i < n; i++) {
		if (n - i <= view->limit)
			json_add(list, function_version_record(all[i], view->serving));
		json_free(all[i]);
	}
	free(all);
	call_items(c, list, NULL);
	call_release(c);
}

/* One page: what was superseded long ago is removed, so they are few. */
static void
versions(struct call *c, const struct function *f)
{
	char id[ID_TEXT_MAX];

	((struct versions_view *)c->data)->serving = f->serving;
	id_format(&f->id, id);
	call_hold(c);
	store_doc_list(c->api->config.store, STORE_VERSION, NULL, id, NULL, STORE_LIST_MAX, on_versions, c);
}

void
functions_versions(struct call *c)
{
	struct versions_view *view = calloc(1, sizeof *view);

	c->data = view;
	c->drop = free;
	if (!view) {
		call_problem(c, 503, "store_unavailable", "out of memory");
		return;
	}
	view->limit = STORE_LIST_MAX;
	if (!call_limit(c, &view->limit))
		function_get(c, c->param, true, versions);
}

/* ---- delete ---- */

static void
on_versions_to_delete(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;

	if (!e) {
		for (size_t i = 0; i < a->doc_count; i++) {
			store_doc_delete(c->api->config.store, STORE_VERSION, a->docs[i].id, NULL, NULL);
			store_doc_delete(c->api->config.store, STORE_BUILD, a->docs[i].id, NULL, NULL);
		}
	}
	if (c->api->config.scheduler)
		scheduler_function_gone(c->api->config.scheduler, &c->event_id);
	call_release(c);
}

static void
on_deleted(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	char id[ID_TEXT_MAX];

	(void)a;
	function_cache_drop(c->api, &c->event_id);
	if (e) {
		call_error(c, e);
	} else {
		id_format(&c->event_id, id);
		call_hold(c);
		store_doc_list(c->api->config.store, STORE_VERSION, NULL, id, NULL, STORE_LIST_MAX,
			       on_versions_to_delete, c);
		call_status(c, 204);
	}
	call_release(c);
}

static void
delete(struct call *c, const struct function *f)
{
	char id[ID_TEXT_MAX];

	c->event_id = f->id; /* the id that this call is about */
	id_format(&f->id, id);
	call_hold(c);
	store_doc_delete(c->api->config.store, STORE_FUNCTION, id, on_deleted, c);
}

void
functions_delete(struct call *c)
{
	function_get(c, c->param, true, delete);
}
