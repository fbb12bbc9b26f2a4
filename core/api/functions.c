/*
 * Functions: their records, and the cache that webhooks read them from.
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
	struct json *list, *answer;

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
	answer = json_object();
	json_put(answer, "items", list);
	json_put_str(answer, "next", a->next);
	call_json(c, 200, answer);
	call_release(c);
}

void
functions_list(struct call *c)
{
	call_hold(c);
	store_doc_list(c->api->config.store, STORE_FUNCTION, c->project, NULL,
		       http_query(c->request, "cursor"), STORE_LIST_MAX, on_list, c);
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

	if (!v)
		return;
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

/* ---- create and update: one path, since an update is a create over what there is ---- */

struct change {
	bool update;
	struct json *metadata;
	const void *zip; /* into the request's body */
	size_t zip_len;
	struct function f; /* as it will be */
	uint64_t rev;      /* update: of the document that we read */
	bool needs_version;
	struct function_version version;
	unsigned tries;
};
enum { VERSION_TRIES = 8 };

static void
drop_change(void *data)
{
	struct change *g = data;

	json_free(g->metadata);
	function_clear(&g->f);
	function_version_clear(&g->version);
	free(g);
}

static int
read_metadata(struct change *g, const void *text, size_t len, struct err *e)
{
	if (len > FUNCTION_METADATA_MAX_BYTES)
		return err_set(e, ERR_INPUT, "metadata: %zu bytes, at most %d are allowed", len,
			       FUNCTION_METADATA_MAX_BYTES);
	g->metadata = json_parse(text, len, e);
	return g->metadata ? 0 : err_wrap(e, "metadata");
}

static int
read_parts(struct change *g, const char *type, const void *body, size_t len, struct err *e)
{
	struct http_part parts[HTTP_PARTS_MAX];
	int n = http_multipart(type, body, len, parts, e), rc = 0;

	if (n < 0)
		return -1;
	for (int i = 0; rc == 0 && i < n; i++) {
		if (!strcmp(parts[i].name, "metadata") && !g->metadata) {
			rc = read_metadata(g, parts[i].data, parts[i].len, e);
		} else if (!strcmp(parts[i].name, "zip_file") && !g->zip) {
			g->zip = parts[i].data;
			g->zip_len = parts[i].len;
		} else {
			rc = err_set(e, ERR_INPUT, "part '%.80s': unknown, or given twice", parts[i].name);
		}
	}
	http_multipart_free(parts, n);
	return rc;
}

static struct change *
read_change(struct call *c, bool update, struct err *e)
{
	const char *type = http_header(c->request, "Content-Type");
	struct change *g = calloc(1, sizeof *g);
	size_t len;
	const void *body = http_body(c->request, &len);
	int rc;

	if (!g) {
		err_set(e, ERR_AGAIN, "out of memory");
		return NULL;
	}
	g->update = update;
	if (type && !strncasecmp(type, "multipart/form-data", 19))
		rc = read_parts(g, type, body, len, e);
	else if (update)
		rc = read_metadata(g, body, len, e);
	else
		rc = err_set(e, ERR_INPUT, "the body must be multipart/form-data with zip_file and metadata");
	if (rc == 0 && g->zip_len > FUNCTION_PACKAGE_MAX_BYTES)
		rc = err_set(e, ERR_INPUT, "zip_file: %zu bytes, at most %d are allowed", g->zip_len,
			     FUNCTION_PACKAGE_MAX_BYTES);
	if (rc == 0 && !update && !g->zip)
		rc = err_set(e, ERR_INPUT, "part 'zip_file': missing");
	if (rc == 0 && !g->metadata && !(g->metadata = update ? json_object() : NULL))
		rc = err_set(e, ERR_INPUT, "part 'metadata': missing");
	if (rc) {
		drop_change(g);
		return NULL;
	}
	return g;
}

static int
check_runtime(struct api *a, const struct json *settings, struct err *e)
{
	const char *runtime = json_str(settings, "runtime");
	struct scheduler *s = a->config.scheduler;

	if (!s || scheduler_nodes_alive(s) == 0 || scheduler_has_runtime(s, runtime))
		return 0;
	return err_set(e, ERR_INPUT, "field 'runtime': '%.60s' is not one that a node offers (see runtime-list)",
		       runtime);
}

static void
on_function_stored(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	struct change *g = c->data;
	struct message m = { .type = MSG_BUILD, .version = g->version };
	struct err lost;
	char id[ID_TEXT_MAX], location[64];

	(void)a;
	function_cache_drop(c->api, &g->f.id);
	if (e && e->cls == ERR_CONFLICT) {
		char version_id[VERSION_ID_MAX];

		function_version_id(&g->f.id, g->version.version, version_id);
		if (g->needs_version) /* nobody knows of it */
			store_doc_delete(c->api->config.store, STORE_VERSION, version_id, NULL, NULL);
		call_problem(c, 409, "conflict",
			     g->update ? "the function was changed meanwhile: try again"
				       : "a function called '%s' exists already in this project",
			     g->f.name);
	} else if (e) {
		call_error(c, e);
	} else {
		/* A lost hint is found again at the scheduler's next start; in one process none is. */
		if (g->needs_version && api_send(c->api, &m, NULL, 0, &lost))
			log_err("a build could not be announced", &lost);
		id_format(&g->f.id, id);
		snprintf(location, sizeof location, "/v1/functions/%s", id);
		call_json_at(c, g->update ? 200 : 201, function_record(&g->f), location);
	}
	call_release(c);
}

static void
store_function(struct call *c)
{
	struct change *g = c->data;
	char id[ID_TEXT_MAX];
	struct store_doc doc = { .kind = STORE_FUNCTION, .id = id, .project = c->project,
				 .name = g->f.name, .rev = g->rev };
	struct json *j = function_encode(&g->f);
	char *text = json_print(j);

	json_free(j);
	id_format(&g->f.id, id);
	doc.json = text;
	call_hold(c);
	if (g->update)
		store_doc_update(c->api->config.store, &doc, on_function_stored, c);
	else
		store_doc_create(c->api->config.store, &doc, on_function_stored, c);
	free(text);
}

static void store_change(struct call *c);

static void
on_version_stored(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	struct change *g = c->data;

	(void)a;
	/* Somebody else's update, or what one left that did not end: the next number. */
	if (e && e->cls == ERR_CONFLICT && ++g->tries < VERSION_TRIES)
		store_change(c);
	else if (e)
		call_error(c, e);
	else
		store_function(c);
	call_release(c);
}

/* The version first: a function never points at one that is not there. */
static void
store_change(struct call *c)
{
	struct change *g = c->data;
	char id[VERSION_ID_MAX], parent[ID_TEXT_MAX];
	struct store_doc doc = { .kind = STORE_VERSION, .id = id, .project = c->project, .parent = parent };
	struct json *j;
	struct err e;
	char *text;

	g->f.updated_us = clock_real_us();
	if (!g->needs_version) {
		store_function(c);
		return;
	}
	g->f.latest++;
	g->f.state = VERSION_BUILDING;
	free(g->f.state_reason);
	g->f.state_reason = NULL;
	function_version_clear(&g->version);
	if (function_version_from_settings(g->f.settings, &g->f.id, c->project, g->f.latest,
					   g->f.package_digest, &g->version, &e)) {
		call_error(c, &e);
		return;
	}
	function_version_id(&g->f.id, g->f.latest, id);
	id_format(&g->f.id, parent);
	j = function_version_encode(&g->version);
	text = json_print(j);
	json_free(j);
	doc.json = text;
	call_hold(c);
	store_doc_create(c->api->config.store, &doc, on_version_stored, c);
	free(text);
}

static void
on_package(void *arg, const struct package_info *p, const struct err *e)
{
	struct call *c = arg;
	struct change *g = c->data;

	if (e) {
		call_error(c, e);
	} else {
		memcpy(g->f.package_digest, p->digest, sizeof g->f.package_digest);
		g->f.package_bytes = p->bytes;
		g->needs_version = true;
		store_change(c);
	}
	call_release(c);
}

static void
check_package(struct call *c)
{
	struct change *g = c->data;

	if (!g->zip) {
		store_change(c);
		return;
	}
	call_hold(c);
	package_store(c->api, g->zip, g->zip_len, on_package, c);
}

/* Early, so that a taken name costs no check of a package; doc_create decides. */
static void
on_name(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	struct change *g = c->data;

	(void)a;
	if (!e)
		call_problem(c, 409, "conflict", "a function called '%s' exists already in this project",
			     g->f.name);
	else if (e->cls != ERR_NOT_FOUND)
		call_error(c, e);
	else if (c->request)
		check_package(c);
	call_release(c);
}

void
functions_create(struct call *c)
{
	struct change *g;
	struct err e;

	g = read_change(c, false, &e);
	if (!g) {
		call_error(c, &e);
		return;
	}
	c->data = g;
	c->drop = drop_change;
	g->f.settings = function_settings_new(g->metadata, &e);
	if (!g->f.settings || check_runtime(c->api, g->f.settings, &e)) {
		call_error(c, &e);
		return;
	}
	function_settle(&g->f);
	g->f.id = id_new();
	g->f.created_us = clock_real_us();
	memcpy(g->f.project_id, c->project, sizeof g->f.project_id);
	memcpy(g->f.user_id, c->user, sizeof g->f.user_id);
	g->needs_version = true;
	call_hold(c);
	store_doc_find(c->api->config.store, STORE_FUNCTION, c->project, g->f.name, on_name, c);
}

static void
on_document(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	struct change *g = c->data;
	struct json *settings;
	struct err bad;

	if (e) {
		call_error(c, e);
	} else if (function_decode(a->docs[0].json, strlen(a->docs[0].json), &g->f, &bad)) {
		call_error(c, &bad);
	} else if (!(settings = function_settings_update(g->f.settings, g->metadata, &bad)) ||
		   check_runtime(c->api, settings, &bad)) {
		json_free(settings);
		call_error(c, &bad);
	} else {
		g->rev = a->docs[0].rev;
		g->needs_version = function_settings_need_version(g->f.settings, settings);
		json_free(g->f.settings);
		g->f.settings = settings;
		function_settle(&g->f);
		if (c->request)
			check_package(c);
	}
	call_release(c);
}

static void
update(struct call *c, const struct function *f)
{
	char id[ID_TEXT_MAX];

	id_format(&f->id, id);
	call_hold(c);
	store_doc_get(c->api->config.store, STORE_FUNCTION, id, on_document, c);
}

void
functions_update(struct call *c)
{
	struct change *g;
	struct err e;

	g = read_change(c, true, &e);
	if (!g) {
		call_error(c, &e);
		return;
	}
	c->data = g;
	c->drop = drop_change;
	function_get(c, c->param, true, update);
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
