/*
 * The control plane is asked to let the name mean the manifest; it answers with the blobs that it
 * misses: the manifest itself first, then what that names.  They are sent from the store's
 * files, and it is asked again, until it takes the name.
 */
#include "core/client/image_upload.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/str.h"
#include "core/client/api.h"
#include "rootfs/store.h"

/* The manifest, what it names, and both again should they be forgotten meanwhile. */
enum { ROUNDS_MAX = 4 };
/* A slow line is no reason to give up. */
#define SLOWEST_BYTES_PER_S 50000

/* What the blob is in the image, for people.  -1: it is none of it. */
static int
describe(const struct image *i, const char *hex, char *out, size_t size)
{
	if (!strcmp(hex, i->manifest))
		snprintf(out, size, "manifest");
	else if (!strcmp(hex, i->config))
		snprintf(out, size, "configuration");
	else
		out[0] = '\0';
	for (unsigned k = 0; !out[0] && k < i->layer_count; k++)
		if (!strcmp(hex, i->layers[k].blob))
			snprintf(out, size, "layer %u of %u", k + 1, i->layer_count);
	return out[0] ? 0 : -1;
}

static int
send_blob(struct api *api, struct image_store *s, const struct image *i, const char *hex,
	  struct err *e)
{
	char path[96], what[40], bar[60];
	struct api_answer a = { 0 };
	struct stat st;
	CLEAN_FD int fd = -1;

	if (describe(i, hex, what, sizeof what))
		return err_set(e, ERR_NODE, "the control plane wants sha256:%.64s, which is none of the image",
			       hex);
	snprintf(path, sizeof path, "blobs/sha256/%.64s", hex);
	fd = open_beneath(s->dir, path, O_RDONLY | O_NOFOLLOW, 0, 0);
	if (fd < 0 || fstat(fd, &st))
		return err_sys(e, ERR_NODE, "open the blob %.12s... of the store", hex);
	snprintf(path, sizeof path, "/v1/images/blobs/%.64s", hex);
	snprintf(bar, sizeof bar, "uploading %s", what);
	if (api_expect(api, &(struct api_request){
			.method = "PUT", .path = path, .content_type = "application/octet-stream",
			.body_fd = fd, .progress = bar,
			.total_ns = (600 + (uint64_t)st.st_size / SLOWEST_BYTES_PER_S) * NS_PER_S }, &a, e))
		return err_wrap(e, "%s", what);
	api_answer_clear(&a);
	return 0;
}

static int
send_missing(struct api *api, struct image_store *s, const struct image *i,
	     const struct api_answer *refusal, struct err *e)
{
	struct span list = { 0 }, one;
	size_t at = 0, count = 0;
	int rc = api_json(refusal, &list, e);

	list = span_member(list, "missing");
	while (rc == 0 && span_next(list, &at, NULL, &one)) {
		char *text = span_text(one);

		if (!text)
			rc = err_set(e, ERR_NODE, "no memory");
		else
			rc = send_blob(api, s, i, str_starts(text, "sha256:") ? text + 7 : text, e);
		count++;
		free(text);
	}
	if (rc == 0 && !count)
		rc = err_set(e, ERR_NODE, "the control plane does not say what it misses");
	return rc;
}

/* 1: blobs were missing, and have been sent. */
static int
ask(struct api *api, struct image_store *s, const struct api_request *r, const struct image *i,
    struct api_answer *a, struct err *e)
{
	char type[40];
	int rc;

	if (api_call(api, r, a, e))
		return -1;
	if (a->status / 100 == 2)
		return 0;
	api_problem_type(a, type, sizeof type);
	if (a->status == 409 && !strcmp(type, "missing_blobs"))
		rc = send_missing(api, s, i, a, e) ? -1 : 1;
	else
		rc = api_refusal(api, a, e);
	if (rc < 0)
		api_answer_clear(a);
	return rc;
}

int
image_upload(struct api *api, struct image_store *s, const char *name, const struct image *i,
	     struct api_answer *a, struct err *e)
{
	struct buf path = { 0 };
	char body[SHA256_HEX_MAX + 32];
	struct api_request r = { .method = "PUT", .content_type = "application/json", .body = body };
	int rc = 1;

	memset(a, 0, sizeof *a);
	r.body_len = (size_t)snprintf(body, sizeof body, "{\"digest\":\"sha256:%s\"}", i->manifest);
	buf_puts(&path, "/v1/images/");
	if (api_segment(&path, name, e)) {
		buf_free(&path);
		return -1;
	}
	r.path = path.data;
	for (int round = 0; rc == 1 && round < ROUNDS_MAX; round++) {
		api_answer_clear(a);
		rc = ask(api, s, &r, i, a, e);
	}
	if (rc == 1) {
		api_answer_clear(a);
		rc = err_set(e, ERR_NODE, "the control plane misses again and again what it was sent");
	}
	buf_free(&path);
	return rc;
}
