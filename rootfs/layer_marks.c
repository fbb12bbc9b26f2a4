/*
 * Deletions, after everything else of the layer is there: whiteouts and opaque marks are about
 * the layers below only, in whatever order a tar has them, and a tool may well say that
 * "log/x" is gone when "log" itself is a link now, or gone as a whole.  So they are collected,
 * sorted (what is above comes before what is below it), and then applied:
 *
 *   below something that is no directory in this layer, or deleted: nothing is left to delete
 *   a name that this layer has: a directory hides what lower ones have, all else does anyway
 *   any other: a whiteout
 *
 * A name that is there only because a hard link had it copied up is deleted like a lower one.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/fdio.h"
#include "rootfs/layer_write_private.h"

enum { OPEN_DIR = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC };

struct layer_mark {
	const char *path; /* into the pool */
	size_t offset;
	enum layer_mark_kind kind;
};

int
layer_note_mark(struct layer_writer *w, enum layer_mark_kind kind, const char *path, struct err *e)
{
	struct layer_mark mark = { .kind = kind };
	void *p;

	if (layer_note_path(w, path, &mark.offset, e))
		return -1;
	p = layer_grow(w->marks, &w->mark_room, w->mark_count + 1, sizeof *w->marks);
	if (!p)
		return err_set(e, ERR_NODE, "no memory for the whiteouts of a layer");
	w->marks = p;
	w->marks[w->mark_count++] = mark;
	return 0;
}

static int
compare(const void *a, const void *b)
{
	const struct layer_mark *x = a, *y = b;
	int order = strcmp(x->path, y->path);

	return order ? order : (int)x->kind - (int)y->kind;
}

/* Whether something on the way to path's last part, in this layer, is no directory.  1, 0, -1. */
static int
is_covered(struct layer_writer *w, const char *path, struct err *e)
{
	CLEAN_FD int dir = fcntl(w->stack.dirs[0], F_DUPFD_CLOEXEC, 3);
	const char *end;

	for (const char *p = path; dir >= 0 && (end = strchr(p, '/')); p = end + 1) {
		char part[NAME_MAX + 1];
		struct stat st;
		int next;

		memcpy(part, p, (size_t)(end - p)); /* clean_name bounded it */
		part[end - p] = '\0';
		if (fstatat(dir, part, &st, AT_SYMLINK_NOFOLLOW))
			return errno == ENOENT ? 0 : layer_cannot(path, e);
		if (!S_ISDIR(st.st_mode))
			return 1;
		next = openat(dir, part, OPEN_DIR);
		if (next < 0)
			return layer_cannot(path, e);
		close(dir);
		dir = next;
	}
	return dir < 0 ? layer_cannot(path, e) : 0;
}

static int
apply_opaque(struct layer_writer *w, const char *path, struct err *e)
{
	CLEAN_FD int fd = -1;
	const char *last;
	struct stat st;
	int dir;

	if (!*path)
		return layer_set_opaque(w->stack.dirs[0], path, e);
	dir = layer_parent(w, path, &last, e);
	if (dir < 0)
		return -1;
	if (!fstatat(dir, last, &st, AT_SYMLINK_NOFOLLOW) && !S_ISDIR(st.st_mode))
		return 0;
	fd = layer_imply_dir(w, dir, last, path, e);
	return fd < 0 ? -1 : layer_set_opaque(fd, path, e);
}

static int
apply_whiteout(struct layer_writer *w, const char *path, bool copied, struct err *e)
{
	const char *last;
	int dir = layer_parent(w, path, &last, e);
	CLEAN_FD int fd = -1;
	struct stat st;

	if (dir < 0)
		return -1;
	if (copied && unlinkat(dir, last, 0) && errno != ENOENT)
		return layer_cannot(path, e);
	if (!fstatat(dir, last, &st, AT_SYMLINK_NOFOLLOW)) {
		if (!S_ISDIR(st.st_mode))
			return 0;
		fd = openat(dir, last, OPEN_DIR);
		return fd < 0 ? layer_cannot(path, e) : layer_set_opaque(fd, path, e);
	}
	if (errno != ENOENT)
		return layer_cannot(path, e);
	if (!mknodat(dir, last, S_IFCHR, 0))
		return 0;
	if (errno == EPERM)
		return err_set(e, ERR_NODE, "the image store's file system cannot hold whiteouts, which a "
			       "layer's deletions need (an overlay cannot; see --root)");
	return layer_cannot(path, e);
}

int
layer_apply_marks(struct layer_writer *w, struct err *e)
{
	bool copied = false;

	for (size_t i = 0; i < w->mark_count; i++)
		w->marks[i].path = w->paths + w->marks[i].offset;
	if (w->mark_count)
		qsort(w->marks, w->mark_count, sizeof *w->marks, compare);
	for (size_t i = 0; i < w->mark_count; i++) {
		const struct layer_mark *m = &w->marks[i];
		int covered = is_covered(w, m->path, e);

		if (covered < 0)
			return -1;
		if (i == 0 || strcmp(m->path, w->marks[i - 1].path) != 0)
			copied = false;
		if (m->kind == LAYER_COPIED)
			copied = true;
		else if (covered)
			continue;
		else if (m->kind == LAYER_IS_OPAQUE ? apply_opaque(w, m->path, e)
						     : apply_whiteout(w, m->path, copied, e))
			return -1;
	}
	return 0;
}
