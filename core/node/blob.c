/*
 * A call is one transfer with its retries.  A download's own file has no name, so that a crash
 * leaves nothing, and each attempt begins at its start; in a file of the caller's it begins where
 * the one before has ended.
 */
#include "core/node/blob.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/id.h"
#include "netio/http_client.h"
#include "netio/loop.h"

enum { GET_ATTEMPTS = 4, PUT_ATTEMPTS = 7, DEPENDENCIES_TEXT_MAX = 4 << 10 };

static const uint64_t FIRST_PAUSE_NS = 200 * NS_PER_MS, LAST_PAUSE_NS = 5 * NS_PER_S;

struct blobs {
	struct loop *loop;
	struct http_client *http;
	const char *join, *token;
	int tmp_fd;
};

struct blob_call {
	struct blobs *blobs;
	bool upload, resumes; /* neither: a download into a file of its own */
	const char *kind; /* the path's word */
	char digest[65];
	uint64_t max_bytes;
	int fd;
	off_t from; /* of this attempt */
	int attempts_left;
	uint64_t pause_ns;
	struct http_call *http;
	struct loop_timer *timer;
	blob_fn fn;
	void *arg;
};

bool
blob_is_digest(const char *text)
{
	return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

struct blobs *
blobs_new(struct loop *l, struct http_client *http, const char *join, const char *token,
	  int tmp_fd, struct err *e)
{
	struct blobs *b = calloc(1, sizeof *b);

	if (!b) {
		err_set(e, ERR_NODE, "blobs: out of memory");
		return NULL;
	}
	b->loop = l;
	b->http = http;
	b->join = join;
	b->token = token;
	b->tmp_fd = tmp_fd;
	return b;
}

void
blobs_free(struct blobs *b)
{
	free(b);
}

int
blob_temp(struct blobs *b, struct err *e)
{
	int dirfd = b->tmp_fd, fd = openat(dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	char name[8 + ID_TEXT_MAX] = "blob.";
	struct id id;

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR)) {
		if (fd < 0)
			err_sys(e, ERR_NODE, "open a temporary file");
		return fd;
	}
	id = id_new();
	id_format(&id, name + 5);
	fd = openat(dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		err_sys(e, ERR_NODE, "create a temporary file");
	else
		unlinkat(dirfd, name, 0);
	return fd;
}

static void
call_free(struct blob_call *c)
{
	loop_timer_remove(c->timer);
	if (!c->upload && !c->resumes)
		fd_close(&c->fd);
	free(c);
}

static void
finish(struct blob_call *c, const struct err *e)
{
	blob_fn fn = c->fn;
	void *arg = c->arg;
	int fd = -1;

	if (!e && !c->upload && !c->resumes)
		fd = fd_steal(&c->fd);
	call_free(c);
	fn(arg, fd, e);
}

static void attempt(void *arg);

static void
fail(struct blob_call *c, struct err *e)
{
	err_wrap(e, "%s %s/%.12s…", c->upload ? "upload of" : "download of", c->kind, c->digest);
	if (e->cls != ERR_AGAIN || --c->attempts_left <= 0) {
		finish(c, e);
		return;
	}
	loop_timer_after(c->timer, c->pause_ns);
	c->pause_ns = c->pause_ns * 4 < LAST_PAUSE_NS ? c->pause_ns * 4 : LAST_PAUSE_NS;
}

/* The file again as it was before an answer that was not what was asked for. */
static void
take_back(struct blob_call *c, off_t to)
{
	if (c->resumes && ftruncate(c->fd, to))
		c->attempts_left = 1;
}

/* The connection broke.  Who gets on may try for ever. */
static void
lose(struct blob_call *c, const struct err *why)
{
	struct err e = *why;
	struct stat st;

	if (c->resumes && !fstat(c->fd, &st) && st.st_size > c->from) {
		c->attempts_left = GET_ATTEMPTS;
		c->pause_ns = FIRST_PAUSE_NS;
	}
	fail(c, &e);
}

static void
on_answer(void *arg, const struct http_answer *a, const struct err *why)
{
	struct blob_call *c = arg;
	struct err e = { 0 };

	c->http = NULL;
	if (!a) {
		lose(c, why);
	} else if (c->from > 0 && a->status != 206 && (a->status < 300 || a->status == 416)) {
		take_back(c, 0);
		err_set(&e, ERR_AGAIN, "the control plane does not give a part of it");
		fail(c, &e);
	} else if (a->status >= 200 && a->status < 300) {
		if (!c->upload && lseek(c->fd, 0, SEEK_SET) < 0) {
			err_sys(&e, ERR_NODE, "seek");
			fail(c, &e);
		} else {
			finish(c, NULL);
		}
	} else {
		bool passing = a->status >= 500 || a->status == 429;

		take_back(c, c->from);
		err_set(&e, a->status == 404 ? ERR_NOT_FOUND : passing ? ERR_AGAIN : ERR_NODE,
			"the control plane answered %d", a->status);
		fail(c, &e);
	}
}

static int
ask(struct blob_call *c, struct err *e)
{
	struct blobs *b = c->blobs;
	char range[48];
	struct http_field fields[] = { { "X-Pratai-Join", b->token },
				       { "Content-Type", "application/octet-stream" },
				       { NULL, NULL } };
	struct http_ask q = { .method = c->upload ? "PUT" : "GET", .fields = fields,
			      .body_fd = -1, .out_fd = -1, .answer_max = c->max_bytes };
	char url[2048];
	struct stat st;

	if (snprintf(url, sizeof url, "%s/v1/node/%s/%s", b->join, c->kind, c->digest) >=
	    (int)sizeof url)
		return err_set(e, ERR_INPUT, "the control plane's URL is too long");
	q.url = url;
	if (c->upload) {
		if (fstat(c->fd, &st))
			return err_sys(e, ERR_NODE, "stat");
		q.body_fd = c->fd;
		q.body_len = (size_t)st.st_size;
	} else {
		if ((!c->resumes && ftruncate(c->fd, 0)) || (c->from = lseek(c->fd, 0, SEEK_END)) < 0)
			return err_sys(e, ERR_NODE, "truncate");
		snprintf(range, sizeof range, "bytes=%lld-", (long long)c->from);
		fields[1] = c->from ? (struct http_field){ "Range", range } : (struct http_field){ NULL, NULL };
		q.answer_max -= (uint64_t)c->from < q.answer_max ? (size_t)c->from : q.answer_max - 1;
		q.out_fd = c->fd;
	}
	c->http = http_client_ask(b->http, &q, on_answer, c, e);
	return c->http ? 0 : -1;
}

static void
attempt(void *arg)
{
	struct blob_call *c = arg;
	struct err e = { 0 };

	if (ask(c, &e))
		fail(c, &e);
}

static struct blob_call *
call_new(struct blobs *b, const char *kind, const char *digest, blob_fn fn, void *arg,
	 struct err *e)
{
	struct blob_call *c;

	if (!blob_is_digest(digest)) {
		err_set(e, ERR_INPUT, "'%.80s' is not a digest", digest);
		return NULL;
	}
	c = calloc(1, sizeof *c);
	if (!c) {
		err_set(e, ERR_NODE, "blob: out of memory");
		return NULL;
	}
	c->blobs = b;
	c->kind = kind;
	c->fd = -1;
	c->pause_ns = FIRST_PAUSE_NS;
	c->fn = fn;
	c->arg = arg;
	memcpy(c->digest, digest, sizeof c->digest);
	c->timer = loop_timer_add(b->loop, attempt, c, e);
	if (!c->timer) {
		free(c);
		return NULL;
	}
	return c;
}

static struct blob_call *
get(struct blobs *b, const char *kind, const char *digest, uint64_t max_bytes, blob_fn fn,
    void *arg, struct err *e)
{
	struct blob_call *c = call_new(b, kind, digest, fn, arg, e);

	if (!c)
		return NULL;
	c->max_bytes = max_bytes;
	c->attempts_left = GET_ATTEMPTS;
	c->fd = blob_temp(b, e);
	if (c->fd < 0) {
		call_free(c);
		return NULL;
	}
	loop_timer_after(c->timer, 0);
	return c;
}

struct blob_call *
blob_continue(struct blobs *b, const char *digest, int fd, uint64_t max_bytes, blob_fn fn, void *arg,
	      struct err *e)
{
	struct blob_call *c = call_new(b, "blobs", digest, fn, arg, e);

	if (!c)
		return NULL;
	c->resumes = true;
	c->max_bytes = max_bytes;
	c->attempts_left = GET_ATTEMPTS;
	c->fd = fd;
	loop_timer_after(c->timer, 0);
	return c;
}

static struct blob_call *
put(struct blobs *b, const char *kind, const char *digest, int fd, blob_fn fn, void *arg,
    struct err *e)
{
	struct blob_call *c = call_new(b, kind, digest, fn, arg, e);

	if (!c)
		return NULL;
	c->upload = true;
	c->max_bytes = 64 << 10;
	c->attempts_left = PUT_ATTEMPTS;
	c->fd = fd;
	loop_timer_after(c->timer, 0);
	return c;
}

struct blob_call *
blob_get(struct blobs *b, const char *digest, uint64_t max_bytes, blob_fn fn, void *arg,
	 struct err *e)
{
	return get(b, "blobs", digest, max_bytes, fn, arg, e);
}

struct blob_call *
blob_put(struct blobs *b, const char *digest, int fd, blob_fn fn, void *arg, struct err *e)
{
	return put(b, "blobs", digest, fd, fn, arg, e);
}

struct blob_call *
dependencies_get(struct blobs *b, const char *key, blob_fn fn, void *arg, struct err *e)
{
	return get(b, "dependencies", key, DEPENDENCIES_TEXT_MAX, fn, arg, e);
}

struct blob_call *
dependencies_put(struct blobs *b, const char *key, int fd, blob_fn fn, void *arg, struct err *e)
{
	return put(b, "dependencies", key, fd, fn, arg, e);
}

void
blob_cancel(struct blob_call *c)
{
	if (!c)
		return;
	if (c->http)
		http_call_cancel(c->http);
	call_free(c);
}
