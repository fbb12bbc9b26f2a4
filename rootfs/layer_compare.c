/*
 * The two trees are walked together, directory by directory, by descriptors.  A level takes
 * two of them (and two more while names are read), and no tree is deeper than
 * LAYER_DEPTH_MAX.
 */
#include "rootfs/layer_compare.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/fdio.h"
#include "rootfs/layer_write.h"

enum { BLOCK = 64 << 10, OPEN_DIR = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC };

struct compare {
	void (*differs)(void *arg, const char *path, const char *what);
	void *arg;
	unsigned found;
	char path[LAYER_PATH_MAX + NAME_MAX + 2];
	char a[BLOCK], b[BLOCK];
};

static int
say(struct compare *c, const char *what)
{
	if (c->found++ < LAYER_DIFFERENCES_MAX)
		c->differs(c->arg, c->path, what);
	return 0;
}

static int
failed(struct compare *c, struct err *e)
{
	return err_sys(e, ERR_NODE, "read '%.200s' of a layer", c->path);
}

/* 1: the same; 0; -1. */
static int
same_content(struct compare *c, int kept, int want, struct err *e)
{
	for (;;) {
		ssize_t n = fd_read_all(want, c->b, sizeof c->b), m = fd_read_all(kept, c->a, sizeof c->a);

		if (n < 0 || m < 0)
			return failed(c, e);
		if (n != m || memcmp(c->a, c->b, (size_t)n) != 0)
			return 0;
		if (n == 0)
			return 1;
	}
}

/* All names of one are in the other with the same value.  1, 0, -1. */
static int
has_attributes(struct compare *c, int of, int in, struct err *e)
{
	char names[BLOCK];
	ssize_t n = flistxattr(of, names, sizeof names);

	if (n < 0)
		return errno == EOPNOTSUPP ? 1 : failed(c, e);
	for (ssize_t at = 0; at < n; at += (ssize_t)strlen(names + at) + 1) {
		ssize_t a, b;

		if (strncmp(names + at, "user.", 5) != 0)
			continue; /* the machine's own: security labels */
		a = fgetxattr(of, names + at, c->a, sizeof c->a);
		b = fgetxattr(in, names + at, c->b, sizeof c->b);
		if (a < 0 || a != b || memcmp(c->a, c->b, (size_t)a) != 0)
			return 0;
	}
	return 1;
}

static int compare_dirs(struct compare *c, int kept, int want, struct err *e);

static int
compare_open(struct compare *c, int kept, int want, bool directory, struct err *e)
{
	int same = has_attributes(c, kept, want, e);

	if (same > 0)
		same = has_attributes(c, want, kept, e);
	if (same == 0)
		say(c, "has other attributes");
	if (same >= 0 && directory)
		return compare_dirs(c, kept, want, e);
	if (same >= 0 && (same = same_content(c, kept, want, e)) == 0)
		say(c, "has other content");
	return same < 0 ? -1 : 0;
}

static int
compare_links(struct compare *c, int kept, int want, const char *name, struct err *e)
{
	ssize_t a = readlinkat(kept, name, c->a, sizeof c->a), b = readlinkat(want, name, c->b, sizeof c->b);

	if (a < 0 || b < 0)
		return failed(c, e);
	return a != b || memcmp(c->a, c->b, (size_t)a) != 0 ? say(c, "leads elsewhere") : 0;
}

static int
compare_entry(struct compare *c, int kept, int want, const char *name, struct err *e)
{
	struct stat a, b;
	CLEAN_FD int fa = -1, fb = -1;
	bool directory;
	int flags;

	if (fstatat(want, name, &b, AT_SYMLINK_NOFOLLOW))
		return failed(c, e);
	if (fstatat(kept, name, &a, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? say(c, "is missing") : failed(c, e);
	if ((a.st_mode & S_IFMT) != (b.st_mode & S_IFMT) || a.st_rdev != b.st_rdev)
		return say(c, "is something else");
	directory = S_ISDIR(a.st_mode);
	if (a.st_mode != b.st_mode || a.st_uid != b.st_uid || a.st_gid != b.st_gid)
		say(c, "has another owner or mode");
	/* A whiteout's time is that of its making. */
	if (!directory && !S_ISCHR(a.st_mode) &&
	    (a.st_mtim.tv_sec != b.st_mtim.tv_sec || a.st_mtim.tv_nsec != b.st_mtim.tv_nsec))
		say(c, "has another time");
	if (!directory && a.st_nlink != b.st_nlink)
		say(c, "has other hard links");
	if (S_ISLNK(a.st_mode))
		return compare_links(c, kept, want, name, e);
	if (!directory && !S_ISREG(a.st_mode))
		return 0;
	if (!directory && a.st_size != b.st_size)
		return say(c, "has another size");
	flags = directory ? OPEN_DIR : O_RDONLY | O_NOFOLLOW | O_CLOEXEC;
	fa = openat(kept, name, flags);
	fb = openat(want, name, flags);
	return fa < 0 || fb < 0 ? failed(c, e) : compare_open(c, fa, fb, directory, e);
}

/* Names of dir: with other, only those that it lacks. */
static int
walk(struct compare *c, int dir, int kept, int want, bool extra, struct err *e)
{
	int copy = openat(dir, ".", OPEN_DIR), rc = 0;
	DIR *list = copy < 0 ? NULL : fdopendir(copy);
	size_t len = strlen(c->path);
	struct dirent *entry;
	struct stat st;

	if (!list) {
		fd_close(&copy);
		return failed(c, e);
	}
	while (rc == 0 && c->found < LAYER_DIFFERENCES_MAX && (entry = readdir(list))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		snprintf(c->path + len, sizeof c->path - len, "%s%s", len ? "/" : "", entry->d_name);
		if (!extra)
			rc = compare_entry(c, kept, want, entry->d_name, e);
		else if (fstatat(want, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) && errno == ENOENT)
			say(c, "does not belong there");
		c->path[len] = '\0';
	}
	closedir(list);
	return rc;
}

static int
compare_dirs(struct compare *c, int kept, int want, struct err *e)
{
	return walk(c, want, kept, want, false, e) || walk(c, kept, kept, want, true, e) ? -1 : 0;
}

int
layer_compare(int kept, int want, void (*differs)(void *arg, const char *path, const char *what),
	      void *arg, struct err *e)
{
	struct compare *c = calloc(1, sizeof *c);
	struct stat a, b;
	int rc = -1;

	if (!c)
		return err_set(e, ERR_NODE, "no memory to compare layers");
	c->differs = differs;
	c->arg = arg;
	if (fstat(kept, &a) || fstat(want, &b)) {
		failed(c, e);
	} else {
		if (a.st_mode != b.st_mode || a.st_uid != b.st_uid || a.st_gid != b.st_gid)
			say(c, "has another owner or mode");
		rc = compare_open(c, kept, want, true, e);
	}
	free(c);
	return rc;
}
