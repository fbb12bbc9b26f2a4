#include "rootfs/layer_write.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/fdio.h"
#include "rootfs/image.h"
#include "rootfs/layer_write_private.h"
#include "rootfs/unpack_names.h"

#define WHITEOUT ".wh."
#define OPAQUE ".wh..wh..opq"
#define META ".wh..wh." /* of aufs' own; only OPAQUE of it means anything */

int
layer_refuse(const char *path, const char *what, struct err *e)
{
	char shown[NAME_SHOWN_MAX];

	return err_set(e, ERR_INPUT, "the entry '%s' %s", names_show(path, strlen(path), shown), what);
}

int
layer_cannot(const char *path, struct err *e)
{
	char shown[NAME_SHOWN_MAX];
	int errnum = errno;

	names_show(path, strlen(path), shown);
	errno = errnum;
	return err_sys(e, ERR_NODE, "cannot unpack '%s'", shown);
}

void
layer_write_begin(struct layer_writer *w, const struct layer_stack *stack, bool owners)
{
	*w = (struct layer_writer){ .stack = *stack, .owners = owners, .dir = -1 };
}

void
layer_write_end(struct layer_writer *w)
{
	fd_close(&w->dir);
	free(w->times);
	free(w->marks);
	free(w->paths);
	w->times = NULL;
	w->marks = NULL;
	w->paths = NULL;
}

/* ---- Names ---- */

/* name without "/", "./" and "//", in out; "" is the layer's root. */
static int
clean_name(const char *name, char out[LAYER_PATH_MAX + 1], struct err *e)
{
	size_t at = 0;
	unsigned depth = 0;

	for (const char *p = name; *p;) {
		size_t len = strcspn(p, "/");

		if (len == 2 && p[0] == '.' && p[1] == '.')
			return layer_refuse(name, "has '..' as a part of its name", e);
		if (len > NAME_MAX)
			return layer_refuse(name, "has a part of more than 255 bytes in its name", e);
		if (len && !(len == 1 && p[0] == '.')) {
			if (++depth > LAYER_DEPTH_MAX)
				return layer_refuse(name, "is in too many directories, one in another", e);
			if (at + len + 1 > LAYER_PATH_MAX)
				return layer_refuse(name, "has a name of more than 4095 bytes", e);
			if (at)
				out[at++] = '/';
			memcpy(out + at, p, len);
			at += len;
		}
		p += len;
		p += *p == '/';
	}
	out[at] = '\0';
	return 0;
}

static bool
starts(const char *s, const char *with)
{
	return !strncmp(s, with, strlen(with));
}

/* Something below a whiteout's own name, or below what aufs kept for itself. */
static bool
below_mark(const char *path)
{
	for (const char *p = path, *slash; (slash = strchr(p, '/')); p = slash + 1)
		if (starts(p, WHITEOUT))
			return true;
	return false;
}

/* ---- What all kinds have ---- */

static int
take_owner(struct layer_writer *w, const char *path, const struct tar_entry *x, uid_t *uid,
	   gid_t *gid, struct err *e)
{
	if (x->uid < 0 || x->gid < 0 || x->uid >= UINT32_MAX || x->gid >= UINT32_MAX)
		return layer_refuse(path, "has an owner that is no user id", e);
	if (w->owners && (x->uid >= IMAGE_IDS || x->gid >= IMAGE_IDS))
		w->foreign_owners++;
	*uid = x->uid < IMAGE_IDS ? (uid_t)x->uid : IMAGE_ID_NOBODY;
	*gid = x->gid < IMAGE_IDS ? (gid_t)x->gid : IMAGE_ID_NOBODY;
	return 0;
}

static bool
is_kept(const char *name)
{
	return starts(name, "user.") && !starts(name, "user.overlay.");
}

int
layer_copy_attributes(int from, int to, const char *path, struct err *e)
{
	char list[64 << 10], value[LAYER_ATTRIBUTE_BYTES_MAX];
	ssize_t n = flistxattr(from, list, sizeof list);

	for (ssize_t at = 0; at < n; at += (ssize_t)strlen(list + at) + 1) {
		ssize_t len;

		if (!is_kept(list + at))
			continue;
		len = fgetxattr(from, list + at, value, sizeof value);
		if (len < 0 || fsetxattr(to, list + at, value, (size_t)len, 0))
			return layer_cannot(path, e);
	}
	return 0;
}

static int
set_attributes(struct layer_writer *w, struct tar_stream *t, int fd, const char *path, struct err *e)
{
	const char *name;
	const void *value;
	unsigned count = 0;
	size_t len;

	while (tar_attribute(t, &name, &value, &len)) {
		if (++count > LAYER_ATTRIBUTES_MAX || len > LAYER_ATTRIBUTE_BYTES_MAX)
			return layer_refuse(path, "has too many or too large extended attributes", e);
		if (fd < 0 || !is_kept(name))
			w->attributes++;
		else if (fsetxattr(fd, name, value, len, 0))
			return layer_cannot(path, e);
	}
	return 0;
}

/* For what is no file and no directory: fd is a parent's. */
static int
finish_at(struct layer_writer *w, struct tar_stream *t, int dir, const char *last, const char *path,
	  const struct tar_entry *x, struct err *e)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT },
					   { .tv_sec = x->mtime_s, .tv_nsec = x->mtime_ns } };
	uid_t uid;
	gid_t gid;

	if (take_owner(w, path, x, &uid, &gid, e))
		return -1;
	if ((w->owners && fchownat(dir, last, uid, gid, AT_SYMLINK_NOFOLLOW)) ||
	    (x->kind == TAR_FIFO && fchmodat(dir, last, x->mode & 01777, 0)) ||
	    utimensat(dir, last, times, AT_SYMLINK_NOFOLLOW))
		return layer_cannot(path, e);
	return set_attributes(w, t, -1, path, e);
}

static int
finish_fd(struct layer_writer *w, struct tar_stream *t, int fd, const char *path,
	  const struct tar_entry *x, unsigned mode, struct err *e)
{
	uid_t uid;
	gid_t gid;

	if (take_owner(w, path, x, &uid, &gid, e))
		return -1;
	if ((w->owners && fchown(fd, uid, gid)) || fchmod(fd, mode))
		return layer_cannot(path, e);
	return set_attributes(w, t, fd, path, e);
}

/* ---- Kinds ---- */

static int
write_dir(struct layer_writer *w, struct tar_stream *t, const char *path, const struct tar_entry *x,
	  struct err *e)
{
	const struct timespec mtime = { .tv_sec = x->mtime_s, .tv_nsec = x->mtime_ns };
	const char *last;
	CLEAN_FD int fd = -1;

	if (*path) {
		int dir = layer_parent(w, path, &last, e);

		fd = dir < 0 ? -1 : layer_make_dir(w, dir, last, path, e);
		if (fd < 0)
			return -1;
	} else if ((fd = fcntl(w->stack.dirs[0], F_DUPFD_CLOEXEC, 3)) < 0) {
		return layer_cannot(path, e);
	}
	if (finish_fd(w, t, fd, path, x, x->mode, e))
		return -1;
	return layer_note_time(w, path, &mtime, e);
}

static int
write_data(struct layer_writer *w, struct tar_stream *t, int fd, const char *path, uint64_t size,
	   struct err *e)
{
	const void *data;
	uint64_t at, end = 0;
	size_t len;
	int rc;

	if (size > LAYER_FILE_MAX)
		return layer_refuse(path, "is larger than any file may be", e);
	while ((rc = tar_data(t, &data, &len, &at, e)) > 0) {
		if (at > size || len > size - at)
			return layer_refuse(path, "does not have the size that it says", e);
		w->bytes += len;
		if (w->bytes > LAYER_BYTES_MAX)
			return err_set(e, ERR_LIMIT, "the layer unpacks to more than %d GiB",
				       (int)(LAYER_BYTES_MAX >> 30));
		for (size_t done = 0; done < len;) {
			ssize_t n = pwrite(fd, (const char *)data + done, len - done, (off_t)(at + done));

			if (n < 0 && errno != EINTR)
				return layer_cannot(path, e);
			done += n < 0 ? 0 : (size_t)n;
		}
		end = at + len > end ? at + len : end;
	}
	if (rc == 0 && end < size && ftruncate(fd, (off_t)size))
		return layer_cannot(path, e);
	return rc;
}

static int
write_file(struct layer_writer *w, struct tar_stream *t, int dir, const char *last, const char *path,
	   const struct tar_entry *x, struct err *e)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT },
					   { .tv_sec = x->mtime_s, .tv_nsec = x->mtime_ns } };
	CLEAN_FD int fd = openat(dir, last, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return layer_cannot(path, e);
	if (write_data(w, t, fd, path, x->size, e) || finish_fd(w, t, fd, path, x, x->mode & 01777, e))
		return -1;
	return futimens(fd, times) ? layer_cannot(path, e) : 0;
}

static int
write_link(struct layer_writer *w, struct tar_stream *t, int dir, const char *last, const char *path,
	   const struct tar_entry *x, struct err *e)
{
	if (!x->target || !*x->target || strlen(x->target) > LAYER_PATH_MAX)
		return layer_refuse(path, "is a symbolic link that is empty or too long", e);
	if (symlinkat(x->target, dir, last))
		return layer_cannot(path, e);
	return finish_at(w, t, dir, last, path, x, e);
}

/* ---- Hard links ---- */

static int
copy_content(int from, int to, const char *path, struct err *e)
{
	char block[64 << 10];
	ssize_t n;

	while ((n = read(from, block, sizeof block)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 || fd_write_all(to, block, (size_t)n))
			return layer_cannot(path, e);
	}
	return 0;
}

/* The lower layers' file or link at path, made again in this one. */
static int
copy_up(struct layer_writer *w, int from, const struct stat *st, const char *path, struct err *e)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, st->st_mtim };
	const char *last;
	int dir = layer_parent(w, path, &last, e);
	char target[LAYER_PATH_MAX + 1];
	CLEAN_FD int fd = -1;
	ssize_t n;

	if (dir < 0)
		return -1;
	if (S_ISLNK(st->st_mode)) {
		n = readlinkat(from, "", target, LAYER_PATH_MAX);
		if (n < 0)
			return layer_cannot(path, e);
		target[n] = '\0';
		if (symlinkat(target, dir, last) ||
		    (w->owners && fchownat(dir, last, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW)) ||
		    utimensat(dir, last, times, AT_SYMLINK_NOFOLLOW))
			return layer_cannot(path, e);
		return 0;
	}
	fd = openat(dir, last, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return layer_cannot(path, e);
	if (copy_content(from, fd, path, e) || layer_copy_attributes(from, fd, path, e))
		return -1;
	if ((w->owners && fchown(fd, st->st_uid, st->st_gid)) || fchmod(fd, st->st_mode & 01777) ||
	    futimens(fd, times))
		return layer_cannot(path, e);
	return 0;
}

/* The target is in this layer when this returns. */
static int
find_target(struct layer_writer *w, const char *path, const char *target, struct err *e)
{
	const struct layer_stack here = { w->stack.dirs, 1 };
	struct stat st;
	CLEAN_FD int fd = layer_lookup(&here, target, &st);

	if (fd < 0) {
		fd = layer_lookup(&w->stack, target, &st);
		/* It is not known what is below: with other layers it may be there. */
		w->depends = true;
		if (fd < 0)
			return errno == ENOENT || errno == ENOTDIR || errno == ELOOP
				       ? layer_refuse(path, "is a hard link to a name that is not there", e)
				       : layer_cannot(path, e);
		if (S_ISREG(st.st_mode) || S_ISLNK(st.st_mode))
			return copy_up(w, fd, &st, target, e) ? -1 : layer_note_mark(w, LAYER_COPIED, target, e);
	}
	if (S_ISDIR(st.st_mode))
		return layer_refuse(path, "is a hard link to a directory", e);
	return S_ISREG(st.st_mode) || S_ISLNK(st.st_mode) || S_ISFIFO(st.st_mode)
		       ? 0 : layer_refuse(path, "is a hard link to what cannot be linked", e);
}

static int
write_hardlink(struct layer_writer *w, const char *path, const struct tar_entry *x, struct err *e)
{
	char target[LAYER_PATH_MAX + 1], *slash;
	CLEAN_FD int from = -1;
	const char *last;
	int dir;

	if (!x->target || clean_name(x->target, target, e))
		return x->target ? -1 : layer_refuse(path, "is a hard link to nothing", e);
	if (!*target || below_mark(target) || starts(strrchr(target, '/') ? strrchr(target, '/') + 1 : target,
						      WHITEOUT))
		return layer_refuse(path, "is a hard link to what cannot be linked", e);
	if (layer_resolve(w, target, e) || find_target(w, path, target, e))
		return -1;
	if (!strcmp(path, target))
		return 0;
	dir = layer_parent(w, path, &last, e);
	if (dir < 0 || layer_clear(dir, last, path, e) < 0)
		return -1;
	slash = strrchr(target, '/');
	if (slash)
		*slash = '\0';
	from = open_beneath(w->stack.dirs[0], slash ? target : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0,
			    RESOLVE_NO_SYMLINKS);
	/* Without AT_SYMLINK_FOLLOW: a link to a link is one to the link itself. */
	if (from < 0 || linkat(from, slash ? slash + 1 : target, dir, last, 0))
		return layer_cannot(path, e);
	return 0;
}

/* ---- Deletions ---- */

/* path ends in a whiteout's name. */
static int
write_whiteout(struct layer_writer *w, const char *path, struct err *e)
{
	const char *slash = strrchr(path, '/');
	size_t dir = slash ? (size_t)(slash - path) + 1 : 0;
	const char *name = path + dir + strlen(WHITEOUT);
	char target[LAYER_PATH_MAX + 1];

	if (!*name || !strcmp(name, ".") || !strcmp(name, "..") || starts(name, WHITEOUT))
		return layer_refuse(path, "deletes no name", e);
	memcpy(target, path, dir);
	memcpy(target + dir, name, strlen(name) + 1);
	return layer_note_mark(w, LAYER_WHITEOUT, target, e);
}

static int
write_opaque(struct layer_writer *w, const char *path, struct err *e)
{
	const char *slash = strrchr(path, '/');
	char dir[LAYER_PATH_MAX + 1];

	snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) : 0, path);
	return layer_note_mark(w, LAYER_IS_OPAQUE, dir, e);
}

/* ---- An entry ---- */

static int
write_other(struct layer_writer *w, struct tar_stream *t, const char *path, const struct tar_entry *x,
	    struct err *e)
{
	const char *last;
	int dir;

	if (x->kind == TAR_DEVICE || x->kind == TAR_SOCKET) {
		w->devices++;
		return 0;
	}
	if (!*path)
		return layer_refuse(x->name, "is the root, and no directory", e);
	if (x->kind == TAR_HARDLINK)
		return write_hardlink(w, path, x, e);
	dir = layer_parent(w, path, &last, e);
	if (dir < 0 || layer_clear(dir, last, path, e) < 0)
		return -1;
	if (x->kind == TAR_FILE)
		return write_file(w, t, dir, last, path, x, e);
	if (x->kind == TAR_LINK)
		return write_link(w, t, dir, last, path, x, e);
	if (mknodat(dir, last, S_IFIFO | 0600, 0))
		return layer_cannot(path, e);
	return finish_at(w, t, dir, last, path, x, e);
}

int
layer_write_entry(struct layer_writer *w, struct tar_stream *t, const struct tar_entry *x,
		  struct err *e)
{
	char path[LAYER_PATH_MAX + 1];
	const char *slash, *last;

	if (++w->entries > LAYER_ENTRIES_MAX)
		return err_set(e, ERR_LIMIT, "the layer has more than %d entries", LAYER_ENTRIES_MAX);
	if (clean_name(x->name, path, e) || layer_resolve(w, path, e))
		return -1;
	slash = strrchr(path, '/');
	last = slash ? slash + 1 : path;
	if (x->has_acl)
		w->attributes++;
	if (below_mark(path)) {
		/* aufs' own directories; anything else is below a deleted name. */
		return starts(path, META) || strstr(path, "/" META)
			       ? 0 : layer_refuse(path, "is below a name that begins with '.wh.'", e);
	}
	if (!strcmp(last, OPAQUE))
		return write_opaque(w, path, e);
	if (starts(last, META) && last[strlen(META)])
		return 0;
	if (starts(last, WHITEOUT))
		return write_whiteout(w, path, e);
	return x->kind == TAR_DIR ? write_dir(w, t, path, x, e) : write_other(w, t, path, x, e);
}
