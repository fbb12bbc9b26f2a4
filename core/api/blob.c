/*
 * Blobs: out to nodes, which take up where they broke off; in from nodes (what they built) and
 * from users (what their images are made of).  Users read none: a digest is no secret.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/api/internal.h"
#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/model/manifest.h"

enum { ROOM_LEFT = 64 << 20 }; /* of the disk */

/* Else c is answered. */
static bool
names_digest(struct call *c)
{
	if (strlen(c->param) == 64 && strspn(c->param, "0123456789abcdef") == 64)
		return true;
	call_problem(c, 400, "invalid_request", "'%s' is not a SHA-256", c->param);
	return false;
}

/* ---- out ---- */

static void
on_blob(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	char range[80];
	struct http_field fields[] = { { "Accept-Ranges", "bytes" }, { "Content-Range", range },
				       { NULL, NULL } };
	struct http_reply reply = { .status = 200, .content_type = "application/octet-stream",
				    .fields = fields };
	int part;

	if (e) {
		call_error(c, e);
		call_release(c);
		return;
	}
	part = c->request ? http_range(c->request, a->len, &reply.file_offset) : 0;
	reply.file_fd = a->fd;
	reply.len = a->len - reply.file_offset;
	if (part == 206) {
		reply.status = part;
		snprintf(range, sizeof range, "bytes %" PRIu64 "-%zu/%zu", reply.file_offset, a->len - 1,
			 a->len);
	} else if (part == 0) {
		fields[1].name = NULL;
	}
	if (part == 416) {
		close(a->fd);
		snprintf(range, sizeof range, "bytes */%zu", a->len);
		call_problem_with(c, 416, "invalid_request", "the range begins beyond the end", fields,
				  NULL, NULL);
	} else {
		call_reply(c, &reply);
	}
	call_release(c);
}

void
node_blob_get(struct call *c)
{
	if (!names_digest(c))
		return;
	call_hold(c);
	store_blob_open(c->api->config.store, c->param, on_blob, c);
}

/* ---- in ---- */

static void
close_file(void *data)
{
	int *fd = data;

	fd_close(fd);
	free(fd);
}

/* The store wants a file: a spooled body is one, a small one becomes one. */
static int
body_file(struct call *c, struct err *e)
{
	void *data;
	size_t len;
	int fd;

	if (http_body_take(c->request, &data, &len, &fd, e))
		return -1;
	if (fd >= 0)
		return fd;
	fd = openat(c->api->config.spool_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0 || fd_write_all(fd, data, len)) {
		err_sys(e, ERR_AGAIN, "the blob could not be kept");
		fd_close(&fd);
	}
	free(data);
	return fd;
}

/* fn: a store's callback with c, which it releases. */
static void
put(struct call *c, store_fn fn)
{
	int *fd;
	struct err e;

	if (!names_digest(c))
		return;
	fd = malloc(sizeof *fd);
	if (!fd) {
		call_problem(c, 503, "store_unavailable", "out of memory");
		return;
	}
	*fd = body_file(c, &e);
	c->data = fd;
	c->drop = close_file;
	if (*fd < 0) {
		call_error(c, &e);
		return;
	}
	call_hold(c);
	store_blob_put(c->api->config.store, c->param, *fd, fn, c);
}

void
node_blob_put(struct call *c)
{
	put(c, call_done);
}

/* ---- in, from users ---- */

static void note_upload(struct call *c, bool again);

static void
on_upload_noted(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;

	(void)a;
	if (e && e->cls == ERR_CONFLICT)
		note_upload(c, true);
	else if (e && e->cls == ERR_NOT_FOUND) /* it was forgotten just now */
		note_upload(c, false);
	else if (e)
		call_error(c, e);
	else
		call_status(c, 204);
	call_release(c);
}

/* That the project has the blob: it may make images of it.  again: it did so before, and is
 * given as much time as then to name it. */
static void
note_upload(struct call *c, bool again)
{
	char id[SHA256_HEX_MAX], text[EVENT_PROJECT_MAX + SHA256_HEX_MAX], json[48];
	struct store_doc doc = { .kind = STORE_UPLOAD, .id = id, .project = c->project,
				 .name = c->param, .json = json };

	snprintf(text, sizeof text, "%s %.64s", c->project, c->param);
	sha256_hex(text, strlen(text), id);
	snprintf(json, sizeof json, "{\"at_us\":%" PRId64 "}", clock_real_us());
	call_hold(c);
	if (again)
		store_doc_update(c->api->config.store, &doc, on_upload_noted, c);
	else
		store_doc_create(c->api->config.store, &doc, on_upload_noted, c);
}

static void
on_image_blob_kept(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;

	(void)a;
	if (e)
		call_error(c, e);
	else
		note_upload(c, false);
	call_release(c);
}

/* It takes its place twice, in the spool and as a blob, and leaves some to events. */
int64_t
images_blob_room(const struct api *a)
{
	struct statvfs fs;
	uint64_t left;

	if (fstatvfs(a->config.spool_fd, &fs))
		return IMAGE_BLOB_MAX_BYTES;
	left = (uint64_t)fs.f_bavail * fs.f_frsize;
	left = left > ROOM_LEFT ? (left - ROOM_LEFT) / 2 : 0;
	return left < (uint64_t)IMAGE_BLOB_MAX_BYTES ? (int64_t)left : IMAGE_BLOB_MAX_BYTES;
}

void
images_blob_put(struct call *c)
{
	put(c, on_image_blob_kept);
}
