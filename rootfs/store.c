/*
 * The store's directory, its lock, names and records.  See store.h for what holds;
 * store_add.c adds, store_gc.c removes and checks.
 */
#include "rootfs/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "rootfs/store_private.h"

enum { NAMES_MAX = 100000 };

const char *const store_parts[STORE_PARTS] = { "refs", "records", "blobs", "blobs/sha256", "layers",
					     "builds" };

int
store_root(const char *option, char path[PATH_MAX], struct err *e)
{
	const char *root = option, *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	int n;

	if (!root)
		root = getenv("PRATAI_ROOT");
	if (root && *root)
		n = snprintf(path, PATH_MAX, "%s", root);
	else if (geteuid() == 0)
		n = snprintf(path, PATH_MAX, "/var/lib/pratai");
	else if (cache && cache[0] == '/')
		n = snprintf(path, PATH_MAX, "%s/pratai", cache);
	else if (home && home[0] == '/')
		n = snprintf(path, PATH_MAX, "%s/.cache/pratai", home);
	else
		return err_set(e, ERR_INPUT, "no place for images: HOME is not set (see --root)");
	/* Room for what is below it. */
	return n < PATH_MAX - STORE_PATH_MAX ? 0 : err_set(e, ERR_INPUT, "the image store's path is "
							   "too long");
}

/* ---- Opening ---- */

static int
make_store(const char *root, struct image_store *s, struct err *e)
{
	CLEAN_FD int dir = -1;

	if (dir_make(AT_FDCWD, root, 0755, e))
		return -1;
	dir = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 || (mkdirat(dir, "images", 0700) && errno != EEXIST))
		return err_sys(e, ERR_INPUT, "make %.200s", s->path);
	s->dir = openat(dir, "images", STORE_OPEN_DIR);
	/* The unpacker, who has that group, finds lower layers by the directory's descriptor. */
	if (s->dir < 0 || (geteuid() == 0 && (fchown(s->dir, 0, IMAGE_ID_BASE) || fchmod(s->dir, 0710))))
		return err_sys(e, ERR_INPUT, "open %.200s", s->path);
	for (size_t i = 0; i < STORE_PARTS; i++)
		if (mkdirat(s->dir, store_parts[i], 0755) && errno != EEXIST)
			return err_sys(e, ERR_NODE, "make %s in %.200s", store_parts[i], s->path);
	return 0;
}

static int
take_lock(struct image_store *s, int how, void (*waiting)(void), struct err *e)
{
	bool told = !waiting;

	while (flock(s->lock, how | (told ? 0 : LOCK_NB))) {
		if (errno == EWOULDBLOCK && !told) {
			told = true;
			waiting();
		} else if (errno != EINTR) {
			return err_sys(e, ERR_NODE, "lock %.200s", s->path);
		}
	}
	return 0;
}

/* Under the exclusive lock: nobody is at work on any of them. */
static int
sweep(struct image_store *s, struct err *e)
{
	CLEAN_FD int fd = openat(s->dir, ".", STORE_OPEN_DIR);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!dir)
		return err_sys(e, ERR_NODE, "read %.200s", s->path);
	fd_steal(&fd);
	while ((entry = readdir(dir)))
		if (!strncmp(entry->d_name, "tmp.", 4))
			dir_remove(s->dir, entry->d_name, NULL);
	closedir(dir);
	return 0;
}

static int
lock_for(struct image_store *s, enum store_use use, void (*waiting)(void), struct err *e)
{
	if (use == STORE_REMOVE)
		return take_lock(s, LOCK_EX, waiting, e) || sweep(s, e) ? -1 : 0;
	/* A dead one's things are swept by the first who finds nobody else here. */
	if (use == STORE_ADD && !flock(s->lock, LOCK_EX | LOCK_NB) && sweep(s, e))
		return -1;
	return take_lock(s, LOCK_SH, NULL, e);
}

int
image_store_open(struct image_store *s, const char *root, enum store_use use, void (*waiting)(void),
	   struct err *e)
{
	*s = (struct image_store){ .dir = -1, .lock = -1 };
	if (snprintf(s->path, sizeof s->path, "%s/images", root) >= PATH_MAX - STORE_PATH_MAX)
		return err_set(e, ERR_INPUT, "the image store's path is too long");
	if (use == STORE_ADD) {
		if (make_store(root, s, e))
			goto fail;
	} else {
		s->dir = open(s->path, STORE_OPEN_DIR);
		if (s->dir < 0 && errno == ENOENT)
			return 0;
		if (s->dir < 0) {
			err_sys(e, ERR_INPUT, "image store %.200s", s->path);
			goto fail;
		}
	}
	s->lock = openat(s->dir, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (s->lock < 0) {
		err_sys(e, ERR_NODE, "open the lock of %.200s", s->path);
		goto fail;
	}
	if (!lock_for(s, use, waiting, e))
		return 0;
fail:
	image_store_close(s);
	return -1;
}

void
image_store_close(struct image_store *s)
{
	fd_close(&s->lock);
	fd_close(&s->dir);
}

/* ---- Names ---- */

void
store_ref_path(const char *name, char path[STORE_PATH_MAX])
{
	snprintf(path, STORE_PATH_MAX, "refs/%.*s", IMAGE_NAME_MAX, name);
	for (char *p = path + 5; *p; p++)
		if (*p == '/')
			*p = '%';
}

static int
by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int
add_name(char ***names, size_t *count, const char *file)
{
	char **more = *count < NAMES_MAX ? realloc(*names, (*count + 1) * sizeof *more) : NULL;
	char *name = more ? strdup(file) : NULL;

	if (more)
		*names = more;
	if (!name)
		return -1;
	for (char *p = name; *p; p++)
		if (*p == '%')
			*p = '/';
	more[(*count)++] = name;
	return 0;
}

int
store_names(struct image_store *s, char ***names, size_t *count, struct err *e)
{
	int fd = s->dir < 0 ? -1 : openat(s->dir, "refs", STORE_OPEN_DIR);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	int rc = 0;

	*names = NULL;
	*count = 0;
	if (s->dir < 0)
		return 0;
	if (fd < 0 && errno == ENOENT)
		return 0; /* it is being made */
	if (!dir) {
		fd_close(&fd);
		return err_sys(e, ERR_NODE, "read the names in %.200s", s->path);
	}
	while (rc == 0 && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			rc = add_name(names, count, entry->d_name);
	closedir(dir);
	if (rc) {
		store_names_free(*names, *count);
		return err_set(e, ERR_NODE, "no memory for the names of images");
	}
	if (*count)
		qsort(*names, *count, sizeof **names, by_name);
	return 0;
}

void
store_names_free(char **names, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(names[i]);
	free(names);
}

static int
not_found(struct image_store *s, const char *name, struct err *e)
{
	size_t count = 0, at = 0;
	char **names = NULL, list[240] = "host";

	if (store_names(s, &names, &count, e))
		return -1;
	at = strlen(list);
	for (size_t i = 0; i < count && at < sizeof list - 40; i++)
		at += (size_t)snprintf(list + at, sizeof list - at, ", %.*s",
				       (int)(sizeof list - at) - 8, names[i]);
	if (at >= sizeof list - 40)
		snprintf(list + (at < sizeof list - 6 ? at : sizeof list - 6), 6, ", ...");
	store_names_free(names, count);
	return err_set(e, ERR_NOT_FOUND, "no image '%.100s' (there is: %s)", name, list);
}

int
store_forget(struct image_store *s, const char *name, struct err *e)
{
	char path[STORE_PATH_MAX];

	if (image_check_name(name, e))
		return -1;
	store_ref_path(name, path);
	if (s->dir >= 0 && !unlinkat(s->dir, path, 0))
		return 0;
	return s->dir < 0 || errno == ENOENT ? not_found(s, name, e)
					     : err_sys(e, ERR_NODE, "forget the image '%.100s'", name);
}

/* ---- Records ---- */

int
store_record(struct image_store *s, const char *manifest, struct image *i, struct err *e)
{
	char path[STORE_PATH_MAX];
	struct buf text = { .max = IMAGE_RECORD_MAX + 65536 };
	int rc;

	memset(i, 0, sizeof *i);
	snprintf(path, sizeof path, "records/%.64s", manifest);
	rc = file_slurp(s->dir, path, IMAGE_RECORD_MAX, &text, e);
	if (rc == 0)
		rc = image_parse(i, text.data, text.len, e);
	buf_free(&text);
	if (rc && e->cls == ERR_NOT_FOUND)
		e->cls = ERR_NODE; /* a name leads here: this is damage */
	return rc ? err_wrap(e, "image store %.200s", s->path) : 0;
}

int
store_image(struct image_store *s, const char *name, struct image *i, struct err *e)
{
	char path[STORE_PATH_MAX];
	struct buf text = { 0 };
	int rc;

	memset(i, 0, sizeof *i);
	if (image_check_name(name, e))
		return -1;
	store_ref_path(name, path);
	rc = s->dir < 0 ? not_found(s, name, e) : file_slurp(s->dir, path, 256, &text, e);
	if (rc && e->cls == ERR_NOT_FOUND)
		not_found(s, name, e);
	if (rc == 0 && text.len && text.data[text.len - 1] == '\n')
		text.data[text.len - 1] = '\0';
	if (rc == 0 && (!text.len || !image_is_digest(text.data)))
		rc = err_set(e, ERR_NODE, "what the name '%.100s' means is damaged in %.200s", name,
			     s->path);
	if (rc == 0)
		rc = store_record(s, text.data, i, e);
	buf_free(&text);
	return rc;
}

/* ---- Layers ---- */

int
store_layer_path(const struct image_store *s, const char *key, char path[PATH_MAX])
{
	return snprintf(path, PATH_MAX, "%s/layers/%.64s", s->path, key) < PATH_MAX ? 0 : -1;
}

int
store_hold_layer(struct image_store *s, const char *key, struct err *e)
{
	char path[STORE_PATH_MAX];
	int fd;

	snprintf(path, sizeof path, "layers/%.64s", key);
	fd = openat(s->dir, path, STORE_OPEN_DIR);
	if (fd < 0 || flock(fd, LOCK_SH)) {
		err_sys(e, ERR_NODE, "the layer %.12s... of the image in %.200s", key, s->path);
		fd_close(&fd);
	}
	return fd;
}
