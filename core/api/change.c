/*
 * Create, update and rollback of a function: one path, since an update is a create over what
 * there is, and a rollback an update whose settings, package and layer are an earlier version's.
 *
 *   read the request ─► settings ─► runtime ─► image ─► package checked and stored ─► version ─► function
 *   ─► build
 *
 * The version is written before the function, so that a function never points at one that
 * is not there; the function's write decides: its name must be free (create), or its
 * revision still the one that was read (update).
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
#include "core/model/runtime_rule.h"
#include "core/scheduler/scheduler.h"

struct change {
	bool update;
	struct json *metadata;
	const void *zip; /* into the request's body */
	size_t zip_len;
	struct function f; /* as it will be */
	uint64_t rev;      /* update: of the document that we read */
	bool needs_version;
	uint32_t back_to; /* rollback: the version; 0: none */
	struct version_layers layers; /* its, so that nothing need be built */
	struct json *image_blobs; /* of the version that is made; NULL: of host, none */
	struct json *earlier_blobs; /* rollback: of that version's image */
	struct json *runtime; /* of the project's own, its document; NULL: a node's */
	struct function_version version;
	unsigned tries;
};
enum { VERSION_TRIES = 8 };

static void
drop_change(void *data)
{
	struct change *g = data;

	json_free(g->metadata);
	json_free(g->image_blobs);
	json_free(g->earlier_blobs);
	json_free(g->runtime);
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

/* A version keeps its runtime, whatever becomes of the runtime's name. */
static int
take_runtime(struct change *g)
{
	struct json *j = runtime_rule_inline(g->runtime);
	const char *image = json_str(g->runtime, "image");

	g->version.own_runtime = json_print(j);
	json_free(j);
	if (!strcmp(g->version.image, "host") && image)
		snprintf(g->version.image, sizeof g->version.image, "%s", image);
	return g->version.own_runtime ? 0 : -1;
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
	if (g->layers.own[0]) {
		g->f.state = VERSION_READY;
		g->f.serving = g->f.latest;
	}
	free(g->f.state_reason);
	g->f.state_reason = NULL;
	function_version_clear(&g->version);
	if (function_version_from_settings(g->f.settings, &g->f.id, c->project, g->f.latest,
					   g->f.package_digest, &g->version, &e)) {
		call_error(c, &e);
		return;
	}
	g->version.state = g->f.state;
	memcpy(g->version.layer_digest, g->layers.own, sizeof g->layers.own);
	memcpy(g->version.dependencies_digest, g->layers.dependencies, sizeof g->layers.dependencies);
	memcpy(g->version.image_digest, g->f.image_digest, sizeof g->version.image_digest);
	if (g->runtime && take_runtime(g)) {
		call_problem(c, 503, "store_unavailable", "out of memory");
		return;
	}
	function_version_id(&g->f.id, g->f.latest, id);
	id_format(&g->f.id, parent);
	j = function_version_document(&g->version, &g->f, g->image_blobs, g->f.updated_us);
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

/* The name may have moved since the last version. */
static void
take_image(struct call *c, const char *digest, const struct json *blobs)
{
	struct change *g = c->data;

	if (strcmp(g->f.image_digest, digest))
		g->needs_version = true;
	snprintf(g->f.image_digest, sizeof g->f.image_digest, "%s", digest);
	json_free(g->image_blobs);
	g->image_blobs = blobs ? json_copy(blobs) : NULL;
	check_package(c);
}

/* The image of the runtime, where the function says none of its own. */
static void
on_runtime(struct call *c, const struct json *own)
{
	struct change *g = c->data;
	const char *image = json_str(g->f.settings, "image");

	g->runtime = own ? json_copy(own) : NULL;
	if (strcmp(image, "host")) {
		image_find(c, image, take_image);
	} else if (own) {
		struct json *blobs = json_array();

		for (const struct json *b = json_first(json_get(own, "blobs")); b; b = json_next(b))
			json_add_str(blobs, json_str(b, "digest"));
		image_again(c, json_str(own, "image_digest"), blobs, take_image);
		json_free(blobs);
	} else {
		take_image(c, "", NULL);
	}
}

/* What makes a version, or might since it says which image it wants. */
static void
find_runtime(struct call *c)
{
	struct change *g = c->data;

	if (!g->needs_version && !g->zip && !json_get(g->metadata, "image"))
		check_package(c);
	else
		runtime_find(c, json_str(g->f.settings, "runtime"), on_runtime);
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
		find_runtime(c);
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
	if (!g->f.settings) {
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

/* ---- Rollback ---- */

static void
take_earlier_image(struct call *c, const char *digest, const struct json *blobs)
{
	struct change *g = c->data;

	(void)digest; /* function_restore took it */
	g->image_blobs = json_copy(blobs);
	store_change(c);
}

static void
restore_image(struct call *c, const struct json *own)
{
	struct change *g = c->data;

	(void)own;
	if (g->f.image_digest[0])
		image_again(c, g->f.image_digest, g->earlier_blobs, take_earlier_image);
	else
		store_change(c);
}

/* A runtime of the project's own is as it was then, also when it is not there any more. */
static void
restore_parts(struct call *c, const struct json *document)
{
	struct change *g = c->data;
	const struct json *own = json_get(document, "own_runtime");

	g->earlier_blobs = json_copy(json_get(document, "image_blobs"));
	if (!own) {
		runtime_find(c, json_str(g->f.settings, "runtime"), restore_image);
		return;
	}
	g->runtime = json_copy(own);
	json_put_str(g->runtime, "image", json_str(document, "image"));
	restore_image(c, NULL);
}

static void
on_earlier(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	struct change *g = c->data;
	struct json *document = NULL;
	struct err bad;

	if (e && e->cls == ERR_NOT_FOUND)
		call_problem(c, 404, "not_found", "there is no version %u (any more; see function-versions)",
			     g->back_to);
	else if (e)
		call_error(c, e);
	else if (!(document = json_parse(a->docs[0].json, strlen(a->docs[0].json), &bad)) ||
		 function_restore(&g->f, document, &g->layers, &bad))
		call_error(c, &bad);
	else if (c->request)
		restore_parts(c, document);
	json_free(document);
	call_release(c);
}

static void
find_earlier(struct call *c)
{
	struct change *g = c->data;
	char id[VERSION_ID_MAX];

	g->needs_version = true;
	function_version_id(&g->f.id, g->back_to, id);
	call_hold(c);
	store_doc_get(c->api->config.store, STORE_VERSION, id, on_earlier, c);
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
	} else if (g->back_to) {
		g->rev = a->docs[0].rev;
		find_earlier(c);
	} else if (!(settings = function_settings_update(g->f.settings, g->metadata, &bad))) {
		call_error(c, &bad);
	} else {
		g->rev = a->docs[0].rev;
		g->needs_version = function_settings_need_version(g->f.settings, settings);
		json_free(g->f.settings);
		g->f.settings = settings;
		function_settle(&g->f);
		if (c->request)
			find_runtime(c);
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

void
functions_rollback(struct call *c)
{
	struct change *g = calloc(1, sizeof *g);
	struct err e;
	int64_t version;
	size_t len;
	const void *body = http_body(c->request, &len);
	struct json *j;

	if (!g) {
		call_problem(c, 503, "store_unavailable", "out of memory");
		return;
	}
	g->update = true;
	c->data = g;
	c->drop = drop_change;
	j = json_parse(body, len, &e);
	if (!j) {
		call_error(c, &e);
		return;
	}
	if (!json_whole(j, "version", &version) || version < 1 || version > UINT32_MAX || json_count(j) != 1) {
		call_problem(c, 400, "invalid_request", "the body must be {\"version\": N}, N from 1 on");
	} else {
		g->back_to = (uint32_t)version;
		function_get(c, c->param, true, update);
	}
	json_free(j);
}
