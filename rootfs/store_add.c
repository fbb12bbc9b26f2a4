/*
 * Adding to the store: an import's temporary directory, and its commit.  Content is on disk
 * before the first name leads to it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/id.h"
#include "rootfs/store_private.h"

/* ---- Temporary directories ---- */

int
store_temp(struct image_store *s, char name[STORE_TEMP_MAX], struct err *e)
{
	struct id id = id_new();
	char text[ID_TEXT_MAX];
	int fd;

	id_format(&id, text);
	snprintf(name, STORE_TEMP_MAX, "tmp.%s", text);
	if (mkdirat(s->dir, name, 0700))
		return err_sys(e, ERR_NODE, "make a directory in %.200s", s->path);
	fd = openat(s->dir, name, STORE_OPEN_DIR);
	if (fd < 0) {
		err_sys(e, ERR_NODE, "open a directory in %.200s", s->path);
		store_discard(s, name);
	}
	return fd;
}

void
store_discard(struct image_store *s, const char *name)
{
	dir_remove(s->dir, name, NULL);
}

/* ---- Adding ---- */

/* Moves path of temp to to, unless that is there.  1: moved; 0: it was there. */
static int
move(struct image_store *s, int temp, const char *path, const char *to, struct err *e)
{
	if (!renameat2(temp, path, s->dir, to, RENAME_NOREPLACE))
		return 1;
	if (errno == EEXIST ||
	    (errno == ENOENT && !faccessat(s->dir, to, F_OK, AT_SYMLINK_NOFOLLOW)))
		return 0;
	return err_sys(e, ERR_NODE, "put %s into %.200s", to, s->path);
}

static int
commit_blob(struct image_store *s, int temp, const char *digest, struct err *e)
{
	char from[STORE_PATH_MAX], to[STORE_PATH_MAX];
	CLEAN_FD int fd = -1;
	struct stat st;
	int moved;

	snprintf(from, sizeof from, "blobs/%s", digest);
	snprintf(to, sizeof to, "blobs/sha256/%s", digest);
	/* Made by the worker: a file of one name, and from now on ours. */
	fd = openat(temp, from, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0 && (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_nlink != 1 ||
			fchown(fd, geteuid(), getegid()) || fchmod(fd, 0644)))
		return err_sys(e, ERR_NODE, "take the blob %.12s...", digest);
	moved = move(s, temp, from, to, e);
	return moved < 0 ? -1 : 0;
}

static int
commit_layer(struct image_store *s, int temp, const char *key, struct err *e)
{
	char from[STORE_PATH_MAX], to[STORE_PATH_MAX];
	struct stat st;

	snprintf(from, sizeof from, "layers/%s", key);
	snprintf(to, sizeof to, "layers/%s", key);
	if (!fstatat(temp, from, &st, AT_SYMLINK_NOFOLLOW) && !S_ISDIR(st.st_mode))
		return err_set(e, ERR_NODE, "the layer %.12s... is no directory", key);
	return move(s, temp, from, to, e) < 0 ? -1 : 0;
}

static int
sync_part(struct image_store *s, const char *part, struct err *e)
{
	CLEAN_FD int fd = openat(s->dir, part, STORE_OPEN_DIR);

	if (fd < 0 || fsync(fd))
		return err_sys(e, ERR_NODE, "write %s of %.200s to disk", part, s->path);
	return 0;
}

/* A small file, by way of temp. */
static int
put_file(struct image_store *s, int temp, const char *to, const void *data, size_t len,
	 struct err *e)
{
	CLEAN_FD int fd = -1;

	if (dir_remove(temp, "new", e))
		return -1;
	fd = openat(temp, "new", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0 || fd_write_all(fd, data, len) || fsync(fd) || renameat(temp, "new", s->dir, to))
		return err_sys(e, ERR_NODE, "write %s of %.200s", to, s->path);
	return 0;
}

static int
put_names(struct image_store *s, int temp, const char *name, const struct image *i, struct err *e)
{
	struct buf text = { .max = IMAGE_RECORD_MAX + 65536 };
	char path[STORE_PATH_MAX], ref[SHA256_HEX_MAX + 1];
	int rc;

	snprintf(path, sizeof path, "records/%s", i->manifest);
	rc = image_print(i, &text) ? err_set(e, ERR_LIMIT, "the image's configuration is too large")
				   : put_file(s, temp, path, text.data, text.len, e);
	buf_free(&text);
	if (rc || sync_part(s, "records", e))
		return -1;
	snprintf(ref, sizeof ref, "%s\n", i->manifest);
	store_ref_path(name, path);
	return put_file(s, temp, path, ref, strlen(ref), e) || sync_part(s, "refs", e) ? -1 : 0;
}

int
store_commit_layers(struct image_store *s, int temp, const struct image *i, struct err *e)
{
	/* All content before any name: one call, since a layer has many thousands of files. */
	if (syncfs(s->dir))
		return err_sys(e, ERR_NODE, "write the image to disk");
	for (unsigned k = 0; k < i->layer_count; k++)
		if (commit_blob(s, temp, i->layers[k].blob, e) ||
		    commit_layer(s, temp, i->layers[k].key, e))
			return -1;
	return sync_part(s, "blobs/sha256", e) || sync_part(s, "layers", e) ? -1 : 0;
}

int
store_commit(struct image_store *s, int temp, const char *name, const struct image *i,
	     struct err *e)
{
	if (store_commit_layers(s, temp, i, e))
		return -1;
	if (commit_blob(s, temp, i->manifest, e) || commit_blob(s, temp, i->config, e) ||
	    sync_part(s, "blobs/sha256", e))
		return -1;
	return put_names(s, temp, name, i, e);
}
