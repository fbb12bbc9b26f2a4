/*
 * Directories of a layer that is being written: found, made, and given their times when
 * nothing is put into them any more.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/fdio.h"
#include "rootfs/layer_write_private.h"

enum { OPEN_DIR = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC };

/* ---- Times ---- */

struct layer_time {
	size_t path; /* in the pool */
	struct timespec mtime;
};

void *
layer_grow(void *array, size_t *room, size_t need, size_t size)
{
	size_t more = *room ? *room : 256;
	void *bigger;

	if (need <= *room)
		return array;
	while (more < need)
		more *= 2;
	bigger = realloc(array, more * size);
	if (bigger)
		*room = more;
	return bigger;
}

int
layer_note_path(struct layer_writer *w, const char *path, size_t *offset, struct err *e)
{
	size_t len = strlen(path) + 1;
	char *p;

	if (w->paths_len + len > LAYER_NAMES_BYTES_MAX)
		return err_set(e, ERR_LIMIT, "the names of the layer's directories and whiteouts have more "
			       "than %d MiB", LAYER_NAMES_BYTES_MAX >> 20);
	p = layer_grow(w->paths, &w->paths_room, w->paths_len + len, 1);
	if (!p)
		return err_set(e, ERR_NODE, "no memory for the names of a layer");
	w->paths = p;
	memcpy(p + w->paths_len, path, len);
	*offset = w->paths_len;
	w->paths_len += len;
	return 0;
}

int
layer_note_time(struct layer_writer *w, const char *path, const struct timespec *t, struct err *e)
{
	struct layer_time time = { .mtime = *t };
	void *p;

	if (layer_note_path(w, path, &time.path, e))
		return -1;
	p = layer_grow(w->times, &w->time_room, w->time_count + 1, sizeof *w->times);
	if (!p)
		return err_set(e, ERR_NODE, "no memory for the directories of a layer");
	w->times = p;
	w->times[w->time_count++] = time;
	return 0;
}

int
layer_write_finish(struct layer_writer *w, struct err *e)
{
	if (layer_apply_marks(w, e))
		return -1;
	/* In the order of the entries: of two for one directory the last one counts. */
	for (size_t i = 0; i < w->time_count; i++) {
		const char *path = w->paths + w->times[i].path;
		const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, w->times[i].mtime };
		CLEAN_FD int fd = open_beneath(w->stack.dirs[0], *path ? path : ".",
					       O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0,
					       RESOLVE_NO_SYMLINKS);

		/* It was replaced by something else later in the layer. */
		if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
			continue;
		if (fd < 0 || futimens(fd, times))
			return layer_cannot(path, e);
	}
	return 0;
}

/* ---- Making ---- */

int
layer_set_opaque(int fd, const char *path, struct err *e)
{
	if (!fsetxattr(fd, LAYER_OPAQUE, "y", 1, 0))
		return 0;
	if (errno == EOPNOTSUPP)
		return err_set(e, ERR_NODE, "the image store's file system has no user attributes, which "
			       "a layer's opaque directories need");
	return layer_cannot(path, e);
}

int
layer_clear(int dir, const char *last, const char *path, struct err *e)
{
	struct stat st;

	if (fstatat(dir, last, &st, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? 0 : layer_cannot(path, e);
	if (S_ISDIR(st.st_mode))
		return dir_remove(dir, last, e);
	return unlinkat(dir, last, 0) ? layer_cannot(path, e) : 1;
}

int
layer_make_dir(struct layer_writer *w, int dir, const char *last, const char *path, struct err *e)
{
	CLEAN_FD int fd = openat(dir, last, OPEN_DIR);
	int hid;

	(void)w;
	if (fd >= 0)
		return fd_steal(&fd);
	if (errno != ENOENT && errno != ENOTDIR && errno != ELOOP)
		return layer_cannot(path, e);
	hid = layer_clear(dir, last, path, e);
	if (hid < 0)
		return -1;
	if (mkdirat(dir, last, 0755) || (fd = openat(dir, last, OPEN_DIR)) < 0)
		return layer_cannot(path, e);
	return hid && layer_set_opaque(fd, path, e) ? -1 : fd_steal(&fd);
}

/*
 * The directory at path, which is only implied by what is in it, and new: it looks as it does
 * below, if there is one.
 */
static int
imply(struct layer_writer *w, int fd, const char *path, struct err *e)
{
	const struct layer_stack lower = { w->stack.dirs + 1, w->stack.count - 1 };
	CLEAN_FD int found = -1;
	struct stat st;

	w->depends = true;
	found = layer_lookup(&lower, path, &st);
	if (found < 0 && errno == ELOOP)
		return layer_refuse(path, "is below a symbolic link of a lower layer", e);
	if (found < 0 && errno != ENOENT && errno != ENOTDIR)
		return layer_cannot(path, e);
	if (found < 0 || !S_ISDIR(st.st_mode)) {
		if (found >= 0 && S_ISLNK(st.st_mode))
			return layer_refuse(path, "is a symbolic link in a lower layer, and a directory here", e);
		return 0;
	}
	if ((w->owners && fchown(fd, st.st_uid, st.st_gid)) || fchmod(fd, st.st_mode & 07777))
		return layer_cannot(path, e);
	return layer_copy_attributes(found, fd, path, e) ? -1 : layer_note_time(w, path, &st.st_mtim, e);
}

/* -1 with *e; the descriptor of the directory. */
int
layer_imply_dir(struct layer_writer *w, int dir, const char *part, const char *path, struct err *e)
{
	CLEAN_FD int fd = openat(dir, part, OPEN_DIR);
	struct stat st;
	bool missing;

	if (fd >= 0)
		return fd_steal(&fd);
	missing = errno == ENOENT;
	if (!missing && fstatat(dir, part, &st, AT_SYMLINK_NOFOLLOW))
		return layer_cannot(path, e);
	if (!missing && S_ISLNK(st.st_mode))
		return layer_refuse(path, "is a symbolic link, and something is to be below it", e);
	if (!missing)
		return layer_refuse(path, "is no directory, and something is to be below it", e);
	fd = layer_make_dir(w, dir, part, path, e);
	if (fd < 0 || imply(w, fd, path, e))
		return -1;
	return fd_steal(&fd);
}

static int
make_parent(struct layer_writer *w, struct err *e)
{
	CLEAN_FD int dir = fcntl(w->stack.dirs[0], F_DUPFD_CLOEXEC, 3);
	char *path = w->parent;

	if (dir < 0)
		return err_sys(e, ERR_NODE, "open a layer's directory");
	for (char *p = path; *p;) {
		char *end = p + strcspn(p, "/"), saved = *end;
		int next;

		*end = '\0';
		next = layer_imply_dir(w, dir, p, path, e);
		*end = saved;
		if (next < 0)
			return -1;
		close(dir);
		dir = next;
		p = end + (saved == '/');
	}
	return fd_steal(&dir);
}

int
layer_parent(struct layer_writer *w, const char *path, const char **last, struct err *e)
{
	const char *slash = strrchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) : 0;

	*last = slash ? slash + 1 : path;
	/* Entries of a directory mostly follow each other. */
	if (w->dir >= 0 && strlen(w->parent) == len && !memcmp(w->parent, path, len))
		return w->dir;
	fd_close(&w->dir);
	memcpy(w->parent, path, len);
	w->parent[len] = '\0';
	w->dir = open_beneath(w->stack.dirs[0], len ? w->parent : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW,
			      0, RESOLVE_NO_SYMLINKS);
	if (w->dir < 0)
		w->dir = make_parent(w, e);
	return w->dir;
}
