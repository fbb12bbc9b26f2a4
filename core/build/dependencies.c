/*
 * Claims of one key are in the order in which they came; the first has its turn.
 */
#include "core/build/dependencies.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "core/base/buf.h"
#include "core/base/crypto.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/json.h"
#include "core/base/str.h"
#include "core/model/function.h"
#include "core/node/blob.h"
#include "core/node/native.h"

enum { TEXT_MAX = 4 << 10 };

struct claim {
	struct native *native;
	char key[SHA256_HEX_MAX];
	struct blob_call *call;
	int file; /* what is sent */
	claim_fn fn;
	void *arg;
	TAILQ_ENTRY(claim) link;
};

/* Each text with its end, so that none can pass for the beginning of the next. */
static void
make_key(const struct function_version *v, const void *needs, size_t len, char key[SHA256_HEX_MAX])
{
	const char *image = v->image_digest[0] ? v->image_digest : "host";
	const char *own = v->own_runtime ? v->own_runtime : "";
	const char *texts[] = { v->project_id, v->runtime, own, image };
	uint8_t digest[SHA256_BYTES];
	struct sha256 hash;

	sha256_init(&hash);
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
		sha256_update(&hash, texts[i], strlen(texts[i]) + 1);
	sha256_update(&hash, needs, len);
	sha256_final(&hash, digest);
	str_hex(digest, sizeof digest, key);
}

/* False: what came names no layer. */
static bool
read_answer(int fd, struct made_layer *out)
{
	struct buf text = { 0 };
	struct json *j = fd_slurp(fd, "dependencies", TEXT_MAX, &text, NULL)
				 ? NULL
				 : json_parse(text.data ? text.data : "", text.len, NULL);
	const char *digest = json_str(j, "layer_digest");
	int64_t bytes = json_int(j, "bytes", 0);
	bool good = digest && blob_is_digest(digest) && bytes > 0;

	if (good) {
		memcpy(out->digest, digest, sizeof out->digest);
		out->bytes = (uint64_t)bytes;
	}
	json_free(j);
	buf_free(&text);
	return good;
}

static void
on_answer(void *arg, int fd, const struct err *e)
{
	struct claim *c = arg;
	struct made_layer found = { 0 };
	bool good = !e && read_answer(fd, &found);

	c->call = NULL;
	fd_close(&fd);
	if (e && e->cls != ERR_NOT_FOUND)
		c->fn(c->arg, NULL, e);
	else
		c->fn(c->arg, good ? &found : NULL, NULL);
}

static struct claim *
first_of(struct native *n, const char *key)
{
	struct claim *c;

	TAILQ_FOREACH (c, &n->claims, link)
		if (!strcmp(c->key, key))
			return c;
	return NULL;
}

static int
ask(struct claim *c, struct err *e)
{
	c->call = dependencies_get(c->native->c.blobs, c->key, on_answer, c, e);
	return c->call ? 0 : -1;
}

struct claim *
claim_new(struct native *n, const struct function_version *v, const void *needs, size_t len,
	  claim_fn fn, void *arg, struct err *e)
{
	struct claim *c = calloc(1, sizeof *c);

	if (!c) {
		err_set(e, ERR_NODE, "build: out of memory");
		return NULL;
	}
	c->native = n;
	c->file = -1;
	c->fn = fn;
	c->arg = arg;
	make_key(v, needs, len, c->key);
	TAILQ_INSERT_TAIL(&n->claims, c, link);
	if (first_of(n, c->key) == c && ask(c, e)) {
		TAILQ_REMOVE(&n->claims, c, link);
		free(c);
		return NULL;
	}
	return c;
}

static void
on_kept(void *arg, int fd, const struct err *e)
{
	struct claim *c = arg;

	(void)fd;
	c->call = NULL;
	c->fn(c->arg, NULL, e);
}

int
claim_keep(struct claim *c, const struct made_layer *made, claim_fn fn, struct err *e)
{
	struct blobs *blobs = c->native->c.blobs;
	struct json *j = json_object();
	char *text;
	int rc = 0;

	json_put_str(j, "layer_digest", made->digest);
	json_put_int(j, "bytes", (int64_t)made->bytes);
	text = json_print(j);
	json_free(j);
	c->fn = fn;
	c->file = blob_temp(blobs, e);
	if (c->file < 0)
		rc = -1;
	else if (!text || fd_write_all(c->file, text, strlen(text)))
		rc = err_sys(e, ERR_NODE, "write what dependencies were made");
	free(text);
	c->call = rc ? NULL : dependencies_put(blobs, c->key, c->file, on_kept, c, e);
	return c->call ? 0 : -1;
}

void
claim_free(struct claim *c)
{
	struct claim *next;
	struct native *n;
	struct err e = { 0 };
	bool first;

	if (!c)
		return;
	n = c->native;
	first = first_of(n, c->key) == c;
	TAILQ_REMOVE(&n->claims, c, link);
	next = first ? first_of(n, c->key) : NULL;
	blob_cancel(c->call);
	fd_close(&c->file);
	free(c);
	if (next && ask(next, &e))
		next->fn(next->arg, NULL, &e);
}
