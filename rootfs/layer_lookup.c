/*
 * Layer by layer from the top, a path's parts one after the other.  A layer answers with the
 * thing itself, with "not mine, look below", or with "hidden": then nobody below is asked.
 * That is what an overlay does, since a directory is merged only with directories below it.
 */
#include "rootfs/layer_lookup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "core/base/fdio.h"

bool
layer_is_whiteout(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && st->st_rdev == 0;
}

bool
layer_is_opaque(int dir)
{
	char value = 0;

	return fgetxattr(dir, LAYER_OPAQUE, &value, 1) == 1 && value == 'y';
}

enum answer { FOUND, BELOW, HIDDEN, FAILED };

/* One layer's: its thing at path in *fd. */
static enum answer
ask(int root, const char *path, int *fd, struct stat *st)
{
	CLEAN_FD int dir = fcntl(root, F_DUPFD_CLOEXEC, 3);
	bool opaque = dir >= 0 && layer_is_opaque(dir);

	if (dir < 0)
		return FAILED;
	for (const char *p = path;;) {
		size_t len = strcspn(p, "/");
		char part[NAME_MAX + 1];
		int next;

		if (len > NAME_MAX) {
			errno = ENAMETOOLONG;
			return FAILED;
		}
		memcpy(part, p, len);
		part[len] = '\0';
		if (fstatat(dir, part, st, AT_SYMLINK_NOFOLLOW))
			return errno != ENOENT ? FAILED : opaque ? HIDDEN : BELOW;
		if (layer_is_whiteout(st))
			return HIDDEN;
		if (!p[len]) {
			bool read = S_ISREG(st->st_mode) || S_ISDIR(st->st_mode);

			*fd = openat(dir, part, (read ? O_RDONLY : O_PATH) | O_NOFOLLOW | O_CLOEXEC);
			return *fd < 0 ? FAILED : FOUND;
		}
		if (!S_ISDIR(st->st_mode)) {
			errno = S_ISLNK(st->st_mode) ? ELOOP : ENOTDIR;
			return FAILED;
		}
		next = openat(dir, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (next < 0)
			return FAILED;
		close(dir);
		dir = next;
		opaque = opaque || layer_is_opaque(dir);
		p += len + 1;
	}
}

int
layer_lookup(const struct layer_stack *s, const char *path, struct stat *st)
{
	for (size_t i = 0; i < s->count; i++) {
		int fd = -1;

		switch (ask(s->dirs[i], path, &fd, st)) {
		case FOUND:
			return fd;
		case FAILED:
			return -1;
		case HIDDEN:
			errno = ENOENT;
			return -1;
		case BELOW:
			break;
		}
	}
	errno = ENOENT;
	return -1;
}
