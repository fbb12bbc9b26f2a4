/*
 * Images of projects: a name that means a manifest, and with it the blobs that the manifest
 * names.  The client puts blobs (blob.c), then the name:
 *
 *   may the project use the manifest? ─► read it ─► may it use all that it names? ─► read the
 *   configuration ─► the record, new or moved to this manifest
 *
 * What is missing is answered as a list, and nothing is made.  "Missing" is also what another
 * project has: who knows a digest alone gets nothing by it, and does not learn that it is there.
 * Names move, versions of functions do not: each keeps the digest and the blobs of its image.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/api/internal.h"
#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/image_name.h"
#include "core/base/json.h"
#include "core/base/str.h"
#include "core/model/manifest.h"

enum { PUT_TRIES = 8, BLOBS_MAX = MANIFEST_LAYERS_MAX + 2 };

struct image_put {
	struct manifest_blob manifest;
	struct manifest m;
	char architecture[32];
	char id[ID_TEXT_MAX];
	int64_t created_us, updated_us;
	bool is_new;
	unsigned tries;
};

/* ---- Records ---- */

static uint64_t
layers_bytes(const struct manifest *m)
{
	uint64_t bytes = 0; /* 127 times 8 GiB fit */

	for (unsigned i = 0; i < m->layer_count; i++)
		bytes += m->layers[i].bytes;
	return bytes;
}

/* The manifest, the configuration, the layers from the lowest on: i from 0. */
static const struct manifest_blob *
nth_blob(const struct image_put *p, unsigned i)
{
	return i == 0 ? &p->manifest : i == 1 ? &p->m.config : &p->m.layers[i - 2];
}

static struct json *
document(const struct call *c, const struct image_put *p)
{
	struct json *j = json_object(), *blobs = json_array();

	json_put_str(j, "image_id", p->id);
	json_put_str(j, "project_id", c->project);
	json_put_str(j, "name", c->param);
	json_put_str(j, "digest", p->manifest.digest);
	for (unsigned i = 0; i < p->m.layer_count + 2; i++) {
		const struct manifest_blob *b = nth_blob(p, i);
		struct json *one = json_object();

		json_put_str(one, "digest", b->digest);
		json_put_int(one, "bytes", (int64_t)b->bytes);
		json_put_str(one, "media", b->media);
		json_add(blobs, one);
	}
	json_put(j, "blobs", blobs);
	json_put_int(j, "size_bytes", (int64_t)layers_bytes(&p->m));
	json_put_int(j, "layers", p->m.layer_count);
	json_put_str(j, "architecture", p->architecture);
	json_put_int(j, "created_us", p->created_us);
	json_put_int(j, "updated_us", p->updated_us);
	return j;
}

static void
put_digest(struct json *j, const char *key, const char *hex)
{
	char text[80];

	snprintf(text, sizeof text, "sha256:%.64s", hex);
	json_put_str(j, key, text);
}

static void
put_time(struct json *j, const char *key, int64_t us)
{
	char text[CLOCK_RFC3339_MAX];

	clock_format(us, text);
	json_put_str(j, key, text);
}

/* What its owner sees of it. */
static struct json *
record(const struct json *doc)
{
	struct json *j = json_object();

	json_put_str(j, "image_id", json_str(doc, "image_id"));
	json_put_str(j, "project_id", json_str(doc, "project_id"));
	json_put_str(j, "name", json_str(doc, "name"));
	put_digest(j, "digest", json_str(doc, "digest") ? json_str(doc, "digest") : "");
	json_put_int(j, "layers", json_int(doc, "layers", 0));
	json_put_int(j, "size_bytes", json_int(doc, "size_bytes", 0));
	json_put_str(j, "architecture", json_str(doc, "architecture"));
	put_time(j, "created_at", json_int(doc, "created_us", 0));
	put_time(j, "updated_at", json_int(doc, "updated_us", 0));
	return j;
}

/* ---- Put: the record ---- */

static void
on_put(void *arg, const struct store_answer *a, const struct err *e);

static void
on_current(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	struct image_put *p = c->data;
	struct store_doc doc = { .kind = STORE_IMAGE, .id = p->id, .project = c->project,
				 .name = c->param, .parent = p->manifest.digest };
	struct json *j;
	char *text;

	if (e && e->cls != ERR_NOT_FOUND) {
		call_error(c, e);
		call_release(c);
		return;
	}
	p->is_new = e != NULL;
	p->updated_us = clock_real_us();
	if (e) {
		struct id id = id_new();

		id_format(&id, p->id);
		p->created_us = p->updated_us;
	} else {
		j = json_parse(a->docs[0].json, strlen(a->docs[0].json), NULL);
		snprintf(p->id, sizeof p->id, "%s", a->docs[0].id);
		p->created_us = json_int(j, "created_us", 0);
		json_free(j);
	}
	j = document(c, p);
	text = json_print(j);
	json_free(j);
	doc.json = text;
	if (!p->is_new) /* whatever its revision: all of it is replaced */
		store_doc_update(c->api->config.store, &doc, on_put, c);
	else
		store_doc_create(c->api->config.store, &doc, on_put, c);
	free(text);
}

static void
on_put(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	struct image_put *p = c->data;
	struct json *doc;

	(void)a;
	/* Somebody else made or deleted it meanwhile: who comes last, counts. */
	if (e && (e->cls == ERR_CONFLICT || e->cls == ERR_NOT_FOUND) && ++p->tries < PUT_TRIES) {
		store_doc_find(c->api->config.store, STORE_IMAGE, c->project, c->param, on_current, c);
		return;
	}
	if (e) {
		call_error(c, e);
	} else {
		doc = document(c, p);
		call_json(c, p->is_new ? 201 : 200, record(doc));
		json_free(doc);
	}
	call_release(c);
}

/* ---- Put: the parts ---- */

/* ERR_INPUT when it is longer than max. */
static char *
read_text(int fd, uint64_t len, const char *what, struct err *e)
{
	char *text = len <= MANIFEST_MAX_BYTES ? malloc(len + 1) : NULL;

	if (len > MANIFEST_MAX_BYTES) {
		err_set(e, ERR_INPUT, "%s has %" PRIu64 " bytes, at most %d are allowed", what, len,
			MANIFEST_MAX_BYTES);
	} else if (!text || fd_read_all(fd, text, len) != (ssize_t)len) {
		err_set(e, ERR_AGAIN, "%s could not be read", what);
		free(text);
		return NULL;
	} else {
		text[len] = '\0';
	}
	return text;
}

static void
on_config(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	struct image_put *p = c->data;
	struct err bad;
	char *text = e ? NULL : read_text(a->fd, a->len, "the configuration", &bad);
	struct json *j = text ? json_parse(text, a->len, &bad) : NULL;
	const char *architecture = json_str(j, "architecture");
	bool fits = !str_copy(p->architecture, sizeof p->architecture, architecture ? architecture : "");

	free(text);
	if (!e)
		fd_close(&(int){ a->fd });
	if (e || !j) {
		call_error(c, e ? e : &bad);
	} else if (!json_is_object(j) || !fits) {
		call_problem(c, 400, "invalid_request", "the configuration is none of an image");
	} else {
		call_hold(c);
		store_doc_find(c->api->config.store, STORE_IMAGE, c->project, c->param, on_current, c);
	}
	json_free(j);
	call_release(c);
}

static void
say_missing(struct call *c, const struct image_put *p, unsigned count, const int64_t *sizes)
{
	struct json *missing = json_array();
	unsigned n = 0;
	char detail[80];

	for (unsigned i = 0; i < count; i++) {
		char text[80];
		unsigned k = 0;

		while (k < i && strcmp(nth_blob(p, k)->digest, nth_blob(p, i)->digest))
			k++;
		if (sizes[i] >= 0 || k < i)
			continue;
		snprintf(text, sizeof text, "sha256:%s", nth_blob(p, i)->digest);
		json_add_str(missing, text);
		n++;
	}
	snprintf(detail, sizeof detail, "%u of the image's blobs are not there: upload them first", n);
	call_problem_with(c, 409, "missing_blobs", detail, NULL, "missing", missing);
}

static void
on_parts(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	const struct image_put *p = c->data;
	const struct manifest_blob *wrong = NULL;
	bool missing = false;

	for (unsigned i = 0; !e && i < p->m.layer_count + 2; i++) {
		missing = missing || a->sizes[i] < 0;
		if (a->sizes[i] >= 0 && (uint64_t)a->sizes[i] != nth_blob(p, i)->bytes)
			wrong = nth_blob(p, i);
	}
	if (e) {
		call_error(c, e);
	} else if (missing) {
		say_missing(c, p, p->m.layer_count + 2, a->sizes);
	} else if (wrong) {
		call_problem(c, 400, "invalid_request",
			     "the manifest: the blob sha256:%s does not have %" PRIu64 " bytes",
			     wrong->digest, wrong->bytes);
	} else {
		call_hold(c);
		store_blob_open(c->api->config.store, p->m.config.digest, on_config, c);
	}
	call_release(c);
}

static void
on_manifest(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	struct image_put *p = c->data;
	struct buf digests = { .max = BLOBS_MAX * SHA256_HEX_MAX + 1 };
	struct err bad;
	char *text = e ? NULL : read_text(a->fd, a->len, "the manifest", &bad);

	if (!e)
		fd_close(&(int){ a->fd });
	if (e || !text || manifest_parse(text, a->len, &p->m, &bad)) {
		call_error(c, e ? e : &bad);
	} else {
		p->manifest.bytes = a->len;
		for (unsigned i = 0; i < p->m.layer_count + 2; i++)
			buf_puts(&digests, nth_blob(p, i)->digest);
		call_hold(c);
		store_blob_keep(c->api->config.store, c->project, digests.data, p->m.layer_count + 2,
				on_parts, c);
	}
	buf_free(&digests);
	free(text);
	call_release(c);
}

static void
on_manifest_kept(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	const struct image_put *p = c->data;

	if (e) {
		call_error(c, e);
	} else if (a->sizes[0] < 0) {
		say_missing(c, p, 1, a->sizes);
	} else {
		call_hold(c);
		store_blob_open(c->api->config.store, p->manifest.digest, on_manifest, c);
	}
	call_release(c);
}

/* {"digest": "sha256:…"} and nothing else. */
static int
read_ask(struct call *c, char hex[65], struct err *e)
{
	size_t len;
	const void *body = http_body(c->request, &len);
	struct json *j = json_parse(body, len, e);
	const char *digest = json_str(j, "digest");
	int rc = j ? 0 : -1;

	if (rc == 0 && (!digest || json_count(j) != 1 || image_parse_digest(digest, hex)))
		rc = err_set(e, ERR_INPUT, "the body must be {\"digest\": \"sha256:…\"}, with the digest of a "
			     "manifest in lower-case hex");
	json_free(j);
	return rc;
}

void
images_put(struct call *c)
{
	struct image_put *p = calloc(1, sizeof *p);
	struct err e;

	if (!p) {
		call_problem(c, 503, "store_unavailable", "out of memory");
		return;
	}
	c->data = p;
	c->drop = free;
	if (image_check_name(c->param, &e) || read_ask(c, p->manifest.digest, &e)) {
		call_error(c, &e);
		return;
	}
	call_hold(c);
	store_blob_keep(c->api->config.store, c->project, p->manifest.digest, 1, on_manifest_kept, c);
}

/* ---- List, show, delete ---- */

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
		struct json *doc = json_parse(a->docs[i].json, strlen(a->docs[i].json), NULL);

		if (doc)
			json_add(list, record(doc));
		json_free(doc);
	}
	call_items(c, list, a->next);
	call_release(c);
}

void
images_list(struct call *c)
{
	unsigned limit = STORE_LIST_MAX;
	const char *cursor;

	if (call_limit(c, &limit) || call_cursor(c, &cursor))
		return;
	call_hold(c);
	store_doc_list(c->api->config.store, STORE_IMAGE, c->project, NULL, cursor, limit, on_list, c);
}

/* Answers for what is not there; the name's rule is not asked, since nothing else has a name. */
static bool
was_found(struct call *c, const struct err *e)
{
	if (e && (e->cls == ERR_NOT_FOUND || e->cls == ERR_INPUT))
		call_problem(c, 404, "not_found", "no image is called '%s' in this project", c->param);
	else if (e)
		call_error(c, e);
	return !e;
}

static void
on_show(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	struct json *doc;

	if (was_found(c, e)) {
		doc = json_parse(a->docs[0].json, strlen(a->docs[0].json), NULL);
		call_json(c, 200, record(doc));
		json_free(doc);
	}
	call_release(c);
}

void
images_show(struct call *c)
{
	call_hold(c);
	store_doc_find(c->api->config.store, STORE_IMAGE, c->project, c->param, on_show, c);
}

static void
on_to_delete(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;

	if (was_found(c, e)) {
		call_hold(c);
		store_doc_delete(c->api->config.store, STORE_IMAGE, a->docs[0].id, call_done, c);
	}
	call_release(c);
}

void
images_delete(struct call *c)
{
	call_hold(c);
	store_doc_find(c->api->config.store, STORE_IMAGE, c->project, c->param, on_to_delete, c);
}

/* ---- For functions ---- */

struct image_use {
	struct call *call;
	image_fn fn;
	bool again;
	char ref[IMAGE_NAME_MAX + 1];
	char digest[65];
	struct json *blobs; /* hex digests */
};

static void
end_use(struct image_use *u)
{
	struct call *c = u->call;

	json_free(u->blobs);
	free(u);
	call_release(c);
}

static void
on_kept(void *arg, const struct store_answer *a, const struct err *e)
{
	struct image_use *u = arg;
	struct call *c = u->call;
	size_t lost = 0;

	for (size_t i = 0; !e && i < a->len; i++)
		lost += a->sizes[i] < 0;
	if (e)
		call_error(c, e);
	else if (lost)
		call_problem(c, 409, "conflict", u->again ? "the image sha256:%s is not there any more"
							  : "the image sha256:%s is not there: upload it again",
			     u->digest);
	else if (c->request)
		u->fn(c, u->digest, u->blobs);
	end_use(u);
}

static void
keep(struct image_use *u)
{
	struct buf digests = { .max = BLOBS_MAX * SHA256_HEX_MAX + 1 };

	for (const struct json *b = json_first(u->blobs); b; b = json_next(b))
		buf_puts(&digests, json_string_value(b) ? json_string_value(b) : "");
	store_blob_keep(u->call->api->config.store, u->call->project, digests.data ? digests.data : "",
			(size_t)json_count(u->blobs), on_kept, u);
	buf_free(&digests);
}

static void
on_image(void *arg, const struct store_answer *a, const struct err *e)
{
	struct image_use *u = arg;
	struct json *doc;

	if ((e && e->cls == ERR_NOT_FOUND) || (!e && !a->doc_count)) {
		call_problem(u->call, 400, "invalid_request",
			     "field 'image': '%s' is not an image of this project (see image-list --uploaded)",
			     u->ref);
	} else if (e) {
		call_error(u->call, e);
	} else {
		doc = json_parse(a->docs[0].json, strlen(a->docs[0].json), NULL);
		snprintf(u->digest, sizeof u->digest, "%s", json_str(doc, "digest"));
		for (const struct json *b = json_first(json_get(doc, "blobs")); b; b = json_next(b))
			json_add_str(u->blobs, json_str(b, "digest"));
		json_free(doc);
		keep(u);
		return;
	}
	end_use(u);
}

/* NULL: c is answered; else it is held. */
static struct image_use *
begin_use(struct call *c, image_fn fn, struct json *blobs)
{
	struct image_use *u = calloc(1, sizeof *u);

	if (!u) {
		json_free(blobs);
		call_problem(c, 503, "store_unavailable", "out of memory");
		return NULL;
	}
	u->call = c;
	u->fn = fn;
	u->blobs = blobs;
	call_hold(c);
	return u;
}

void
image_find(struct call *c, const char *ref, image_fn fn)
{
	struct image_use *u = begin_use(c, fn, json_array());
	char hex[65];

	if (!u)
		return;
	snprintf(u->ref, sizeof u->ref, "%s", ref);
	if (!image_parse_digest(ref, hex)) /* several names may mean it: they have the same blobs */
		store_doc_list(c->api->config.store, STORE_IMAGE, c->project, hex, NULL, 1, on_image, u);
	else
		store_doc_find(c->api->config.store, STORE_IMAGE, c->project, ref, on_image, u);
}

void
image_again(struct call *c, const char *digest, const struct json *blobs, image_fn fn)
{
	struct image_use *u = begin_use(c, fn, json_copy(blobs));

	if (!u)
		return;
	u->again = true;
	snprintf(u->digest, sizeof u->digest, "%s", digest);
	keep(u);
}
