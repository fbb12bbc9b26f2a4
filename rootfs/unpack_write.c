/*
 * Writing what an archive holds.  The checks of names already keep everything inside;
 * here the kernel keeps it there a second time: parents are opened with openat2 and
 * RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS, and the last part is created with O_EXCL, mkdirat
 * or symlinkat, none of which follows or replaces what is there.
 */
#include "rootfs/unpack_write.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/fdio.h"

static const struct timespec times[2] = { { .tv_sec = UNPACK_MTIME }, { .tv_sec = UNPACK_MTIME } };

void
write_begin(struct writer *w, int root)
{
	*w = (struct writer){ .root = root, .dir = -1 };
}

void
write_end(struct writer *w)
{
	fd_close(&w->dir);
}

static int
cannot(const char *path, struct err *e)
{
	char shown[NAME_SHOWN_MAX];
	int errnum = errno;

	names_show(path, strlen(path), shown);
	errno = errnum;
	return err_sys(e, ERR_NODE, "cannot unpack '%s'", shown);
}

static int
open_dir(int root, const char *path)
{
	return open_beneath(root, *path ? path : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0,
			    RESOLVE_NO_SYMLINKS);
}

/* The descriptor of path's directory; *last is path's last part.  Entries of a directory
 * mostly follow each other, so the last one is kept. */
static int
parent_of(struct writer *w, const char *path, const char **last)
{
	const char *slash = strrchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) : 0;

	*last = slash ? slash + 1 : path;
	if (w->dir >= 0 && strlen(w->parent) == len && memcmp(w->parent, path, len) == 0)
		return w->dir;
	fd_close(&w->dir);
	memcpy(w->parent, path, len);
	w->parent[len] = '\0';
	w->dir = open_dir(w->root, w->parent);
	return w->dir;
}

int
write_dirs(struct writer *w, const struct names *names, struct err *e)
{
	char path[NAME_PATH_MAX + 1];
	const char *last;

	/* A name's parents come before it. */
	for (; w->made < names_count(names); w->made++) {
		int dir;

		if (names_kind(names, w->made) != NAME_DIR)
			continue;
		names_path(names, w->made, path);
		dir = parent_of(w, path, &last);
		if (dir < 0 || mkdirat(dir, last, 0755) < 0)
			return cannot(path, e);
	}
	return 0;
}

int
write_file(struct writer *w, const char *path, struct err *e)
{
	const char *last;
	int dir = parent_of(w, path, &last), fd = -1;

	if (dir >= 0)
		fd = openat(dir, last, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	return fd < 0 ? cannot(path, e) : fd;
}

int
write_file_end(int fd, bool executable, struct err *e)
{
	int failed = fchmod(fd, executable ? 0555 : 0444) < 0 || futimens(fd, times) < 0;

	if (failed)
		err_sys(e, ERR_NODE, "cannot finish an unpacked file");
	if (close(fd) < 0 && !failed)
		return err_sys(e, ERR_NODE, "cannot write an unpacked file");
	return failed ? -1 : 0;
}

int
write_link(struct writer *w, const char *path, const char *target, struct err *e)
{
	const char *last;
	int dir = parent_of(w, path, &last);

	if (dir < 0 || symlinkat(target, dir, last) < 0 ||
	    utimensat(dir, last, times, AT_SYMLINK_NOFOLLOW) < 0)
		return cannot(path, e);
	return 0;
}

static int
finish_dir(int root, const char *path, struct err *e)
{
	CLEAN_FD int fd = open_dir(root, path);

	if (fd < 0 || fchmod(fd, 0555) < 0 || futimens(fd, times) < 0)
		return cannot(path, e);
	return 0;
}

int
write_finish(struct writer *w, const struct names *names, struct err *e)
{
	char path[NAME_PATH_MAX + 1];

	for (size_t i = 0; i < names_count(names); i++) {
		if (names_kind(names, i) != NAME_DIR)
			continue;
		names_path(names, i, path);
		if (finish_dir(w->root, path, e) < 0)
			return -1;
	}
	return 0;
}

int
write_finish_root(struct writer *w, struct err *e)
{
	return finish_dir(w->root, "", e);
}
