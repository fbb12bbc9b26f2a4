/*
 * Which layer nodes made for which dependencies, so that what is the same is installed once.
 * The key is the nodes' (core/build/dependencies.h); here it is 64 digits.
 *
 * A document names a layer and does not keep it: versions do.  A node that asks will name the
 * layer in a version soon, so its blob counts as put now, as if the node had made it; with
 * the blob gone there is no answer, and the node makes it again and says so.
 */
#include <stdlib.h>
#include <string.h>

#include "core/api/internal.h"
#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/json.h"
#include "core/model/function.h"

enum { WRITE_TRIES = 4 };

static bool
is_digest(const char *text)
{
	return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

static int
check_key(struct call *c)
{
	if (is_digest(c->param))
		return 0;
	call_problem(c, 400, "invalid_request", "'%s' is not a SHA-256", c->param);
	return -1;
}

/* ---- GET ---- */

static void
on_layer_kept(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;

	(void)a;
	if (e) {
		call_error(c, e);
	} else {
		call_json(c, 200, c->data);
		c->data = NULL;
	}
	call_release(c);
}

static void
drop_json(void *data)
{
	json_free(data);
}

static void
on_found(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	struct err bad;
	struct json *j = e ? NULL : json_parse(a->docs[0].json, strlen(a->docs[0].json), &bad);
	const char *digest = json_str(j, "layer_digest");

	if (e) {
		call_error(c, e);
	} else if (!digest || !is_digest(digest)) {
		call_problem(c, 404, "not_found", "what is known of these dependencies names no layer");
		json_free(j);
	} else {
		c->data = j;
		c->drop = drop_json;
		call_hold(c);
		store_blob_put(c->api->config.store, digest, -1, on_layer_kept, c);
	}
	call_release(c);
}

void
node_dependencies_get(struct call *c)
{
	if (check_key(c))
		return;
	call_hold(c);
	store_doc_get(c->api->config.store, STORE_DEPENDENCIES, c->param, on_found, c);
}

/* ---- PUT ---- */

struct put {
	char *json;
	int tries;
	bool update;
};

static void
drop_put(void *data)
{
	struct put *p = data;

	free(p->json);
	free(p);
}

static void write_document(struct call *c);

/* Another node's that is there is as good, but its layer may be gone: the last one counts. */
static void
on_written(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	struct put *p = c->data;

	(void)a;
	if (e && (e->cls == ERR_CONFLICT || e->cls == ERR_NOT_FOUND) && ++p->tries < WRITE_TRIES) {
		p->update = e->cls == ERR_CONFLICT;
		write_document(c);
	} else if (e) {
		call_error(c, e);
	} else {
		call_status(c, 204);
	}
	call_release(c);
}

static void
write_document(struct call *c)
{
	struct put *p = c->data;
	const struct store_doc doc = { .kind = STORE_DEPENDENCIES, .id = c->param, .project = "",
				       .json = p->json };

	call_hold(c);
	(p->update ? store_doc_update : store_doc_create)(c->api->config.store, &doc, on_written, c);
}

/* The document's text, made of what the node sent; NULL and e. */
static char *
read_document(struct call *c, struct err *e)
{
	size_t len;
	const void *body = http_body(c->request, &len);
	struct json *ask = json_parse(body, len, e), *j;
	const char *digest = json_str(ask, "layer_digest");
	int64_t bytes = 0;
	char *text = NULL;

	if (!ask)
		return NULL;
	if (!digest || !is_digest(digest) || !json_whole(ask, "bytes", &bytes) || bytes < 1 ||
	    bytes > FUNCTION_LAYER_MAX_BYTES) {
		err_set(e, ERR_INPUT, "the body must name a layer by 'layer_digest' and its 'bytes'");
	} else {
		j = json_object();
		json_put_str(j, "layer_digest", digest);
		json_put_int(j, "bytes", bytes);
		json_put_int(j, "made_us", clock_real_us());
		text = json_print(j);
		json_free(j);
	}
	json_free(ask);
	return text;
}

void
node_dependencies_put(struct call *c)
{
	struct put *p;
	struct err e = { 0 };

	if (check_key(c))
		return;
	p = calloc(1, sizeof *p);
	if (!p) {
		call_problem(c, 503, "store_unavailable", "out of memory");
		return;
	}
	c->data = p;
	c->drop = drop_put;
	p->json = read_document(c, &e);
	if (!p->json)
		call_error(c, &e);
	else
		write_document(c);
}
