/*
 * The manifest is a stranger's text, read here for two things: digests and sizes.  Whether all
 * of it is an image is for who takes it in to say (keeper.h).
 */
#include "core/node/image_fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/log.h"
#include "core/model/manifest.h"
#include "core/node/blob.h"

enum { AT_ONCE = 4, PATH_ROOM = 96 };

struct transfer {
	struct image_fetch *fetch;
	struct blob_call *blob;
	int fd;
};

struct image_fetch {
	struct blobs *blobs;
	int parent, dir;
	char digest[65];
	struct image_parts *parts;
	bool has_manifest;
	uint8_t wanted[IMAGE_FETCH_PARTS_MAX];
	struct transfer transfers[AT_ONCE];
	unsigned next, busy;
	image_fetch_fn fn;
	void *arg;
};

static void
stop(struct image_fetch *f)
{
	for (int i = 0; i < AT_ONCE; i++) {
		blob_cancel(f->transfers[i].blob);
		f->transfers[i].blob = NULL;
		fd_close(&f->transfers[i].fd);
	}
	f->busy = 0;
}

static int
open_part(struct image_fetch *f, const char *digest, struct err *e)
{
	char path[PATH_ROOM];
	int fd;

	snprintf(path, sizeof path, "blobs/sha256/%.64s", digest);
	fd = openat(f->dir, path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	return fd < 0 ? err_sys(e, ERR_NODE, "make a file for a part of an image") : fd;
}

/* ---- The manifest ---- */

/* One that is named twice is fetched once. */
static void
add_part(struct image_parts *parts, const struct manifest_blob *blob)
{
	for (unsigned i = 0; i < parts->count; i++)
		if (!strcmp(parts->list[i].digest, blob->digest))
			return;
	memcpy(parts->list[parts->count].digest, blob->digest, sizeof parts->list[0].digest);
	parts->list[parts->count++].bytes = blob->bytes;
}

static int
read_parts(const struct buf *text, struct image_parts *parts, struct err *e)
{
	static struct manifest m; /* large */

	_Static_assert((int)IMAGE_FETCH_PARTS_MAX > (int)MANIFEST_LAYERS_MAX, "all of them fit");
	if (manifest_parse(text->data, text->len, &m, e))
		return -1;
	parts->count = 0;
	add_part(parts, &m.config);
	for (unsigned i = 0; i < m.layer_count; i++)
		add_part(parts, &m.layers[i]);
	return 0;
}

static int
write_index(struct image_fetch *f, size_t bytes, struct err *e)
{
	char text[256];
	int n = snprintf(text, sizeof text,
			 "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"application/vnd.oci.image."
			 "manifest.v1+json\",\"digest\":\"sha256:%s\",\"size\":%zu}]}\n", f->digest, bytes);

	return file_replace(f->dir, "index.json", 0600, text, (size_t)n, e);
}

static int
take_manifest(struct image_fetch *f, int fd, struct err *e)
{
	struct buf text = { .max = MANIFEST_MAX_BYTES + 4096 };
	int rc = lseek(fd, 0, SEEK_SET) < 0 ? err_sys(e, ERR_NODE, "seek")
					    : fd_slurp(fd, "manifest", MANIFEST_MAX_BYTES, &text, e);

	if (rc == 0 && read_parts(&text, f->parts, e)) {
		e->cls = ERR_FUNCTION;
		rc = -1;
	}
	if (rc == 0)
		rc = write_index(f, text.len, e);
	buf_free(&text);
	f->has_manifest = rc == 0;
	return rc;
}

/* ---- Transfers ---- */

static int start_next(struct image_fetch *f, struct err *e);

static void
on_blob(void *arg, int none, const struct err *why)
{
	struct transfer *t = arg;
	struct image_fetch *f = t->fetch;
	struct err e = { 0 };
	int rc = why ? -1 : 0;

	(void)none;
	t->blob = NULL;
	f->busy--;
	if (why)
		e = *why;
	else if (!f->has_manifest)
		rc = take_manifest(f, t->fd, &e);
	fd_close(&t->fd);
	if (rc == 0 && f->next)
		rc = start_next(f, &e);
	if (rc)
		stop(f);
	if (rc || !f->busy)
		f->fn(f->arg, rc ? &e : NULL);
}

static int
start(struct image_fetch *f, const char *digest, uint64_t max_bytes, struct err *e)
{
	struct transfer *t = f->transfers;

	while (t->blob)
		t++;
	t->fd = open_part(f, digest, e);
	if (t->fd < 0)
		return -1;
	t->blob = blob_continue(f->blobs, digest, t->fd, max_bytes, on_blob, t, e);
	if (!t->blob) {
		fd_close(&t->fd);
		return -1;
	}
	f->busy++;
	return 0;
}

/* The parts in their order, AT_ONCE of them; what is there whole from an earlier time is not
 * asked for.  One of another size than the manifest's is begun anew. */
static int
start_next(struct image_fetch *f, struct err *e)
{
	for (; f->next <= f->parts->count && f->busy < AT_ONCE; f->next++) {
		const struct image_part *p = &f->parts->list[f->next - 1];
		char path[PATH_ROOM];
		struct stat st;

		if (!f->wanted[f->next - 1])
			continue;
		snprintf(path, sizeof path, "blobs/sha256/%.64s", p->digest);
		if (!fstatat(f->dir, path, &st, AT_SYMLINK_NOFOLLOW)) {
			if ((uint64_t)st.st_size == p->bytes)
				continue;
			if ((uint64_t)st.st_size > p->bytes)
				unlinkat(f->dir, path, 0);
		}
		if (start(f, p->digest, p->bytes ? p->bytes : 1, e))
			return -1;
	}
	return 0;
}

/* ---- For others ---- */

static int
make_dir(struct image_fetch *f, struct err *e)
{
	char path[PATH_ROOM];

	snprintf(path, sizeof path, "%s/blobs/sha256", f->digest);
	if (dir_make(f->parent, path, 0700, e))
		return -1;
	f->dir = openat(f->parent, f->digest, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return f->dir < 0 ? err_sys(e, ERR_NODE, "open a directory for an image") : 0;
}

struct image_fetch *
image_fetch_manifest(struct blobs *b, int dir_fd, const char *digest, struct image_parts *parts,
		     image_fetch_fn fn, void *arg, struct err *e)
{
	struct image_fetch *f = calloc(1, sizeof *f);

	if (!f) {
		err_set(e, ERR_NODE, "image: out of memory");
		return NULL;
	}
	*f = (struct image_fetch){ .blobs = b, .parent = dir_fd, .dir = -1, .parts = parts, .fn = fn,
				   .arg = arg };
	snprintf(f->digest, sizeof f->digest, "%.64s", digest);
	for (int i = 0; i < AT_ONCE; i++)
		f->transfers[i] = (struct transfer){ .fetch = f, .fd = -1 };
	if (make_dir(f, e) || start(f, digest, MANIFEST_MAX_BYTES, e)) {
		image_fetch_free(f);
		return NULL;
	}
	return f;
}

int
image_fetch_parts(struct image_fetch *f, const uint8_t *wanted, struct err *e)
{
	memcpy(f->wanted, wanted, sizeof f->wanted);
	f->next = 1;
	if (start_next(f, e)) {
		stop(f);
		return -1;
	}
	return f->busy ? 1 : 0;
}

int
image_fetch_dir(const struct image_fetch *f)
{
	return f->dir;
}

void
image_fetch_free(struct image_fetch *f)
{
	if (!f)
		return;
	stop(f);
	fd_close(&f->dir);
	free(f);
}

void
image_fetch_discard(struct image_fetch *f)
{
	struct err e;

	if (f && dir_remove(f->parent, f->digest, &e))
		log_err("cannot remove what was fetched of an image", &e);
	image_fetch_free(f);
}
