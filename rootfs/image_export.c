#include "rootfs/image_export.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/crypto.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/json.h"
#include "core/base/str.h"
#include "rootfs/store.h"

enum { MANIFEST_MAX = 4 << 20, BLOCK = 512, CHUNK = 128 << 10 };
#define OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"

/* Where it goes. */
struct out {
	const struct image_export *x;
	bool tar;
	int fd;  /* of the tar */
	int dir; /* of the layout */
	uint64_t done, total;
};

static int
failed(const struct out *o, struct err *e)
{
	return err_sys(e, ERR_NODE, "write %.200s", o->x->path);
}

/* ---- Members, of a tar (ustar, POSIX.1-1988) or a directory ---- */

/* Octal digits and a NUL; where it does not fit, the binary form that all tars read. */
static void
put_number(char *field, size_t size, uint64_t value)
{
	if (value >> (3 * (size - 1)) == 0) {
		snprintf(field, size, "%0*llo", (int)size - 1, (unsigned long long)value);
		return;
	}
	memset(field, 0, size);
	field[0] = (char)0x80;
	for (size_t i = 1; i <= 8; i++)
		field[size - i] = (char)(value >> (8 * (i - 1)));
}

static int
tar_header(struct out *o, const char *name, uint64_t size, bool directory, struct err *e)
{
	char h[BLOCK] = { 0 };
	unsigned sum = 0;

	snprintf(h, 100, "%s", name);
	put_number(h + 100, 8, directory ? 0755 : 0644);
	put_number(h + 108, 8, 0);
	put_number(h + 116, 8, 0);
	put_number(h + 124, 12, size);
	put_number(h + 136, 12, 0);
	memset(h + 148, ' ', 8);
	h[156] = directory ? '5' : '0';
	memcpy(h + 257, "ustar\00000", 8);
	for (size_t i = 0; i < sizeof h; i++)
		sum += (unsigned char)h[i];
	snprintf(h + 148, 8, "%06o", sum);
	return fd_write_all(o->fd, h, sizeof h) ? failed(o, e) : 0;
}

static int
tar_pad(struct out *o, uint64_t size, struct err *e)
{
	static const char zeros[BLOCK];
	size_t rest = (size_t)(size % BLOCK);

	return rest && fd_write_all(o->fd, zeros, BLOCK - rest) ? failed(o, e) : 0;
}

static int
put_dir(struct out *o, const char *name, struct err *e)
{
	if (o->tar)
		return tar_header(o, name, 0, true, e);
	return mkdirat(o->dir, name, 0755) ? failed(o, e) : 0;
}

/* Its descriptor; in a tar it is the tar's. */
static int
begin(struct out *o, const char *name, uint64_t size, struct err *e)
{
	int fd;

	if (o->tar)
		return tar_header(o, name, size, false, e) ? -1 : o->fd;
	fd = openat(o->dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	return fd < 0 ? failed(o, e) : fd;
}

static int
end(struct out *o, int fd, uint64_t size, struct err *e)
{
	if (o->tar)
		return tar_pad(o, size, e);
	return close(fd) ? failed(o, e) : 0;
}

static int
put_text(struct out *o, const char *name, const char *text, struct err *e)
{
	size_t len = strlen(text);
	int fd = begin(o, name, len, e);

	if (fd < 0)
		return -1;
	if (fd_write_all(fd, text, len)) {
		failed(o, e);
		if (!o->tar)
			close(fd);
		return -1;
	}
	return end(o, fd, len, e);
}

/* ---- Blobs ---- */

static int
copy(struct out *o, int from, int to, uint64_t size, struct sha256 *sha, struct err *e)
{
	static char block[CHUNK];
	uint64_t left = size;

	while (left) {
		ssize_t n = fd_read_all(from, block, left < sizeof block ? (size_t)left : sizeof block);

		if (n <= 0)
			return n ? err_sys(e, ERR_NODE, "read a blob of the store")
				 : err_set(e, ERR_NODE, "a blob of the store became shorter");
		sha256_update(sha, block, (size_t)n);
		if (fd_write_all(to, block, (size_t)n))
			return failed(o, e);
		left -= (uint64_t)n;
		o->done += (uint64_t)n;
		if (o->x->progress)
			o->x->progress(o->x->arg, "writing", o->done, o->total);
	}
	return 0;
}

static int
put_blob(struct out *o, struct image_store *s, const char *digest, struct err *e)
{
	uint8_t raw[SHA256_BYTES];
	char name[96], found[SHA256_HEX_MAX];
	struct sha256 sha;
	struct stat st;
	CLEAN_FD int from = -1;
	int to, rc;

	snprintf(name, sizeof name, "blobs/sha256/%s", digest);
	from = open_beneath(s->dir, name, O_RDONLY | O_NOFOLLOW, 0, 0);
	if (from < 0 || fstat(from, &st))
		return err_sys(e, ERR_NODE, "open the blob %.12s... of the store", digest);
	to = begin(o, name, (uint64_t)st.st_size, e);
	if (to < 0)
		return -1;
	sha256_init(&sha);
	rc = copy(o, from, to, (uint64_t)st.st_size, &sha, e);
	if (rc) {
		if (!o->tar)
			close(to);
		return -1;
	}
	sha256_final(&sha, raw);
	str_hex(raw, sizeof raw, found);
	if (end(o, to, (uint64_t)st.st_size, e))
		return -1;
	return strcmp(found, digest) ? err_set(e, ERR_NODE, "the blob %.12s... of the store is damaged", digest)
				     : 0;
}

/* Each once: layers may be the same. */
static int
put_blobs(struct out *o, struct image_store *s, const struct image *i, struct err *e)
{
	if (put_blob(o, s, i->manifest, e) || put_blob(o, s, i->config, e))
		return -1;
	for (unsigned k = 0; k < i->layer_count; k++) {
		bool again = false;

		for (unsigned j = 0; j < k; j++)
			again |= !strcmp(i->layers[j].blob, i->layers[k].blob);
		if (!again && put_blob(o, s, i->layers[k].blob, e))
			return -1;
	}
	return 0;
}

/* ---- The index ---- */

/* What the manifest says that it is, and its size. */
static int
look_at_manifest(struct image_store *s, const struct image *i, char media[IMAGE_MEDIA_MAX],
		 size_t *size, struct err *e)
{
	struct buf text = { 0 };
	char name[96];
	struct json *j;
	int rc;

	snprintf(name, sizeof name, "blobs/sha256/%s", i->manifest);
	rc = file_slurp(s->dir, name, MANIFEST_MAX, &text, e);
	*size = text.len;
	j = rc ? NULL : json_parse(text.data, text.len, e);
	buf_free(&text);
	if (!j)
		return -1;
	if (!json_str(j, "mediaType") || str_copy(media, IMAGE_MEDIA_MAX, json_str(j, "mediaType")))
		snprintf(media, IMAGE_MEDIA_MAX, OCI_MANIFEST);
	json_free(j);
	return 0;
}

static int
put_index(struct out *o, struct image_store *s, const struct image *i, struct err *e)
{
	struct json *index = json_object(), *list = json_array(), *m = json_object();
	struct json *platform = json_object(), *notes = json_object();
	const char *slash = strrchr(o->x->name, '/'), *colon = strrchr(slash ? slash : o->x->name, ':');
	char media[IMAGE_MEDIA_MAX] = "", digest[SHA256_HEX_MAX + 8], *text;
	size_t size = 0;
	int rc = look_at_manifest(s, i, media, &size, e);

	snprintf(digest, sizeof digest, "sha256:%s", i->manifest);
	json_put_str(platform, "architecture", i->arch);
	json_put_str(platform, "os", i->os);
	json_put_str(notes, "org.opencontainers.image.ref.name", colon && colon[1] ? colon + 1 : "latest");
	json_put_str(m, "mediaType", media);
	json_put_int(m, "size", (int64_t)size);
	json_put_str(m, "digest", digest);
	json_put(m, "platform", platform);
	json_put(m, "annotations", notes);
	json_add(list, m);
	json_put_int(index, "schemaVersion", 2);
	json_put(index, "manifests", list);
	text = json_print(index);
	json_free(index);
	if (rc == 0)
		rc = text ? put_text(o, "index.json", text, e) : err_set(e, ERR_NODE, "no memory");
	free(text);
	return rc;
}

/* ---- All of it ---- */

static int
open_out(struct out *o, struct err *e)
{
	const char *path = o->x->path;
	bool exists;

	errno = 0;
	o->tar = !strcmp(path, "-") || (strlen(path) > 4 && !strcmp(path + strlen(path) - 4, ".tar"));
	if (!strcmp(path, "-"))
		o->fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	else if (o->tar)
		o->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	else if (!mkdir(path, 0755))
		o->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	exists = errno == EEXIST;
	if ((o->tar ? o->fd : o->dir) >= 0)
		return 0;
	return exists ? err_set(e, ERR_CONFLICT, "%.200s is there already", path) : failed(o, e);
}

/* oci-layout comes last: a layout without it is none. */
static int
write_all(struct out *o, struct image_store *s, const struct image *i, struct err *e)
{
	static const char zeros[2 * BLOCK];

	if (put_dir(o, "blobs", e) || put_dir(o, "blobs/sha256", e) || put_blobs(o, s, i, e) ||
	    put_index(o, s, i, e) || put_text(o, "oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}", e))
		return -1;
	if (o->tar && fd_write_all(o->fd, zeros, sizeof zeros))
		return failed(o, e);
	/* A pipe has no disk. */
	if ((o->tar ? fsync(o->fd) : syncfs(o->dir)) && errno != EINVAL && errno != EROFS)
		return failed(o, e);
	return 0;
}

int
image_export(struct image_store *s, const struct image_export *x, struct image *i, struct err *e)
{
	struct out o = { .x = x, .fd = -1, .dir = -1 };
	int rc;

	if (store_image(s, x->name, i, e) || open_out(&o, e))
		return -1;
	for (unsigned k = 0; k < i->layer_count; k++)
		o.total += i->layers[k].blob_bytes;
	rc = write_all(&o, s, i, e);
	if (rc && o.tar && strcmp(x->path, "-"))
		unlink(x->path);
	if (rc && !o.tar)
		dir_remove(AT_FDCWD, x->path, NULL);
	fd_close(&o.fd);
	fd_close(&o.dir);
	return rc;
}
