#include "core/build/recipe_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/fdio.h"
#include "rootfs/tar_write.h"

enum { DEPTH_MAX = 64, CHUNK = 64 << 10 };
#define OPEN_FLAGS (O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)

struct copy {
	const struct recipe_file *file;
	struct sha256 *sha;   /* or */
	struct tar_writer *w;
	int64_t epoch;
	char to[PATH_MAX]; /* in the image, without the first '/' */
	unsigned depth;
};

static int
cannot(const struct copy *c, struct err *e)
{
	return err_sys(e, ERR_INPUT, "'files': %.200s (for /%.200s)", c->file->from, c->to);
}

static int
give(struct copy *c, const void *data, size_t len, struct err *e)
{
	if (c->w)
		return tar_write_data(c->w, data, len, e);
	sha256_update(c->sha, data, len);
	return 0;
}

static int
give_head(struct copy *c, enum tar_type type, unsigned mode, const struct stat *st, struct err *e)
{
	struct tar_item x = { .type = type, .name = c->to, .mode = mode, .mtime_s = st->st_mtim.tv_sec,
			      .mtime_ns = st->st_mtim.tv_nsec,
			      .size = type == TAR_TYPE_FILE ? (uint64_t)st->st_size : 0 };
	char text[PATH_MAX + 64];

	if (x.mtime_s >= c->epoch) {
		x.mtime_s = c->epoch;
		x.mtime_ns = 0;
	}
	if (c->w)
		return tar_write_item(c->w, &x, e);
	/* Not the time: what was only touched has not changed. */
	snprintf(text, sizeof text, "%c %04o %llu %s", (char)type, mode, (unsigned long long)x.size, c->to);
	sha256_update(c->sha, text, strlen(text) + 1);
	return 0;
}

static int
copy_file(struct copy *c, int fd, const struct stat *st, struct err *e)
{
	unsigned mode = c->file->mode >= 0 ? (unsigned)c->file->mode : st->st_mode & 0111 ? 0755 : 0644;
	uint64_t left = (uint64_t)st->st_size;
	char chunk[CHUNK];

	if (give_head(c, TAR_TYPE_FILE, mode, st, e))
		return -1;
	while (left) {
		ssize_t n = read(fd, chunk, left < CHUNK ? (size_t)left : CHUNK);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return cannot(c, e);
		if (n == 0)
			return err_set(e, ERR_INPUT, "'files': /%.200s became shorter while it was read", c->to);
		if (give(c, chunk, (size_t)n, e))
			return -1;
		left -= (uint64_t)n;
	}
	return c->w ? tar_write_pad(c->w, (uint64_t)st->st_size, e) : 0;
}

static int copy_any(struct copy *c, int fd, struct err *e);

static int
copy_names(struct copy *c, int fd, struct dirent **names, int count, struct err *e)
{
	size_t len = strlen(c->to);

	for (int i = 0; i < count; i++) {
		const char *name = names[i]->d_name;
		CLEAN_FD int below = -1;

		if (!strcmp(name, ".") || !strcmp(name, ".."))
			continue;
		if (snprintf(c->to + len, sizeof c->to - len, "/%s", name) >= (int)(sizeof c->to - len))
			return err_set(e, ERR_INPUT, "'files': a path below %.200s is too long",
				       c->file->from);
		if (!strncmp(name, ".wh.", 4))
			return err_set(e, ERR_INPUT, "'files': /%.300s has a name that begins with '.wh.', "
				       "which no image can hold", c->to);
		below = openat(fd, name, OPEN_FLAGS);
		if (below < 0 && errno == ELOOP)
			return err_set(e, ERR_INPUT, "'files': /%.300s: its source is a symbolic link", c->to);
		if (below < 0)
			return cannot(c, e);
		if (copy_any(c, below, e))
			return -1;
		c->to[len] = '\0';
	}
	return 0;
}

static int
copy_directory(struct copy *c, int fd, const struct stat *st, struct err *e)
{
	struct dirent **names = NULL;
	int count, rc;

	if (c->file->mode >= 0)
		return err_set(e, ERR_INPUT, "'files': %.200s is a directory, for which no mode can be "
			       "given", c->file->from);
	if (c->depth == DEPTH_MAX)
		return err_set(e, ERR_INPUT, "'files': directories below %.200s are too deep", c->file->from);
	if (give_head(c, TAR_TYPE_DIR, 0755, st, e))
		return -1;
	count = scandirat(fd, ".", &names, NULL, alphasort);
	if (count < 0)
		return cannot(c, e);
	c->depth++;
	rc = copy_names(c, fd, names, count, e);
	c->depth--;
	for (int i = 0; i < count; i++)
		free(names[i]);
	free(names);
	return rc;
}

static int
copy_any(struct copy *c, int fd, struct err *e)
{
	struct stat st;

	if (fstat(fd, &st))
		return cannot(c, e);
	if (S_ISDIR(st.st_mode))
		return copy_directory(c, fd, &st, e);
	if (S_ISREG(st.st_mode))
		return copy_file(c, fd, &st, e);
	return err_set(e, ERR_INPUT, "'files': /%.200s: its source is neither a file nor a directory", c->to);
}

static int
copy_all(const struct recipe *r, struct copy *c, struct err *e)
{
	CLEAN_FD int dir = open(r->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir < 0)
		return err_sys(e, ERR_INPUT, "%.200s", r->dir);
	for (size_t i = 0; i < r->file_count; i++) {
		CLEAN_FD int fd = open_beneath(dir, r->files[i].from, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0,
					       RESOLVE_NO_SYMLINKS);

		c->file = &r->files[i];
		snprintf(c->to, sizeof c->to, "%s", c->file->to + 1);
		if (fd < 0 && (errno == ELOOP || errno == EXDEV))
			return err_set(e, ERR_INPUT, "'files': %.200s is, or is behind, a symbolic link",
				       c->file->from);
		if (fd < 0)
			return cannot(c, e);
		if (copy_any(c, fd, e))
			return -1;
	}
	return 0;
}

int
recipe_files_hash(const struct recipe *r, struct sha256 *sha, struct err *e)
{
	struct copy *c = calloc(1, sizeof *c);
	int rc;

	if (!c)
		return err_set(e, ERR_NODE, "no memory for a recipe's files");
	c->sha = sha;
	c->epoch = INT64_MAX;
	rc = copy_all(r, c, e);
	free(c);
	return rc ? err_wrap(e, "%.200s", r->path) : 0;
}

int
recipe_files_pack(const struct recipe *r, int64_t epoch, struct tar_writer *w, struct err *e)
{
	struct copy *c = calloc(1, sizeof *c);
	int rc;

	if (!c)
		return err_set(e, ERR_NODE, "no memory for a recipe's files");
	c->w = w;
	c->epoch = epoch;
	rc = copy_all(r, c, e);
	free(c);
	return rc ? err_wrap(e, "%.200s", r->path) : 0;
}
