#include "rootfs/tree_pack.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/fdio.h"
#include "rootfs/image.h"
#include "rootfs/layer_write.h"
#include "rootfs/tar_write.h"
#include "rootfs/unpack_names.h"

#define WHITEOUT ".wh."
#define OPAQUE_NAME ".wh..wh..opq"
#define OPAQUE_ATTRIBUTE "user.overlay.opaque"

enum { CHUNK = 256 << 10 };

/* The first name of each file that has more than one, by inode: a table of open addressing. */
struct first_name {
	ino_t inode;
	char *path; /* NULL: free */
};

struct walk {
	struct tree_pack *p;
	struct tar_writer *w;
	char path[LAYER_PATH_MAX + 1];
	size_t len;
	unsigned depth;
	struct first_name *names;
	size_t name_count, name_room;
	uint64_t name_bytes; /* of all names that are kept at once */
	struct tar_item pending; /* a directory that is no entry yet; its name is the tree_pack's */
	bool is_pending;
	char chunk[CHUNK];
};

static int
refuse(const struct walk *k, const char *what, struct err *e)
{
	char shown[NAME_SHOWN_MAX];

	return err_set(e, ERR_INPUT, "'/%s' %s", names_show(k->path, k->len, shown), what);
}

static int
cannot(const struct walk *k, struct err *e)
{
	char shown[NAME_SHOWN_MAX];
	int errnum = errno;

	names_show(k->path, k->len, shown);
	errno = errnum;
	return err_sys(e, ERR_NODE, "read '/%s' of a layer", shown);
}

static int
write_item(struct walk *k, const struct tar_item *x, struct err *e)
{
	if (k->is_pending && tar_write_item(k->w, &k->pending, e))
		return -1;
	k->is_pending = false;
	return tar_write_item(k->w, x, e);
}

/* ---- Hard links ---- */

static struct first_name *
find_name(struct first_name *names, size_t room, ino_t inode)
{
	size_t i = (size_t)(inode * 0x9e3779b97f4a7c15ull >> 20) & (room - 1);

	while (names[i].path && names[i].inode != inode)
		i = (i + 1) & (room - 1);
	return &names[i];
}

static int
grow_names(struct walk *k)
{
	size_t room = k->name_room ? k->name_room * 2 : 256;
	struct first_name *more = calloc(room, sizeof *more);

	if (!more)
		return -1;
	for (size_t i = 0; i < k->name_room; i++)
		if (k->names[i].path)
			*find_name(more, room, k->names[i].inode) = k->names[i];
	free(k->names);
	k->names = more;
	k->name_room = room;
	return 0;
}

/* The name that the file has in the tar already, or NULL: this one is its first. */
static int
first_name(struct walk *k, ino_t inode, const char **first, struct err *e)
{
	struct first_name *n;

	*first = NULL;
	if (k->name_count * 2 >= k->name_room && grow_names(k))
		return err_set(e, ERR_NODE, "no memory for the hard links of a layer");
	n = find_name(k->names, k->name_room, inode);
	if (n->path) {
		*first = n->path;
		return 0;
	}
	k->name_bytes += k->len + 1;
	n->path = k->name_bytes > LAYER_NAMES_BYTES_MAX ? NULL : strdup(k->path);
	if (!n->path)
		return err_set(e, ERR_LIMIT, "a layer has too many hard links");
	n->inode = inode;
	k->name_count++;
	return 0;
}

/* ---- Attributes ---- */

struct attributes {
	struct tar_attribute list[LAYER_ATTRIBUTES_MAX];
	size_t count;
	char names[64 << 10];
	bool opaque;
};

static void
free_attributes(struct attributes *a)
{
	for (size_t i = 0; i < a->count; i++)
		free((void *)(uintptr_t)a->list[i].value);
	a->count = 0;
}

static int
by_attribute(const void *a, const void *b)
{
	return strcmp(((const struct tar_attribute *)a)->name, ((const struct tar_attribute *)b)->name);
}

static int
take_attribute(struct walk *k, struct attributes *a, int fd, const char *name, struct err *e)
{
	char value[LAYER_ATTRIBUTE_BYTES_MAX];
	ssize_t len = fgetxattr(fd, name, value, sizeof value);
	void *copy;

	if (len < 0)
		return cannot(k, e);
	if (!strcmp(name, OPAQUE_ATTRIBUTE))
		a->opaque = len == 1 && value[0] == 'y';
	if (strncmp(name, "user.", 5) || !strncmp(name, "user.overlay.", 13))
		return 0;
	if (a->count == LAYER_ATTRIBUTES_MAX)
		return refuse(k, "has too many extended attributes", e);
	copy = malloc((size_t)len + 1);
	if (!copy)
		return err_set(e, ERR_NODE, "no memory for attributes");
	memcpy(copy, value, (size_t)len);
	a->list[a->count++] = (struct tar_attribute){ name, copy, (size_t)len };
	return 0;
}

static int
read_attributes(struct walk *k, struct attributes *a, int fd, struct err *e)
{
	ssize_t n = flistxattr(fd, a->names, sizeof a->names);

	a->count = 0;
	a->opaque = false;
	if (n < 0)
		return errno == ENOTSUP ? 0 : cannot(k, e);
	for (ssize_t at = 0; at < n; at += (ssize_t)strlen(a->names + at) + 1)
		if (take_attribute(k, a, fd, a->names + at, e))
			return -1;
	qsort(a->list, a->count, sizeof *a->list, by_attribute);
	return 0;
}

/* ---- Entries ---- */

static int
fill(struct walk *k, const struct stat *st, struct tar_item *x, struct err *e)
{
	uint64_t uid = (uint64_t)st->st_uid - k->p->id_base, gid = (uint64_t)st->st_gid - k->p->id_base;

	if (++k->p->entries > LAYER_ENTRIES_MAX)
		return err_set(e, ERR_LIMIT, "a layer has more than %d entries", LAYER_ENTRIES_MAX);
	if (uid >= IMAGE_IDS || gid >= IMAGE_IDS)
		return refuse(k, "belongs to somebody who is not in the image", e);
	*x = (struct tar_item){ .name = k->path, .mode = st->st_mode & 07777, .uid = (uint32_t)uid,
				.gid = (uint32_t)gid, .mtime_s = st->st_mtim.tv_sec,
				.mtime_ns = st->st_mtim.tv_nsec };
	if (x->mtime_s >= k->p->epoch) {
		x->mtime_s = k->p->epoch;
		x->mtime_ns = 0;
	}
	return 0;
}

/* name in the directory that the path is; "" adds nothing. */
static int
put_mark(struct walk *k, const char *prefix, const char *name, struct err *e)
{
	char path[LAYER_PATH_MAX + sizeof OPAQUE_NAME + 1];
	struct tar_item x = { .type = TAR_TYPE_FILE, .name = path, .mtime_s = 0 };
	size_t dir = name ? k->len - strlen(name) : k->len;

	if (++k->p->entries > LAYER_ENTRIES_MAX)
		return err_set(e, ERR_LIMIT, "a layer has more than %d entries", LAYER_ENTRIES_MAX);
	if (name && strlen(name) + strlen(WHITEOUT) > NAME_MAX)
		return refuse(k, "was deleted, and its name is too long to say so in a layer", e);
	snprintf(path, sizeof path, "%.*s%s%s%s", (int)dir, k->path, name || !k->len ? "" : "/", prefix,
		 name ? name : "");
	return write_item(k, &x, e);
}

static int
put_data(struct walk *k, int fd, uint64_t size, struct err *e)
{
	for (uint64_t left = size; left;) {
		ssize_t n = read(fd, k->chunk, left < CHUNK ? (size_t)left : CHUNK);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return cannot(k, e);
		if (n == 0)
			return refuse(k, "is shorter than its size says", e);
		if (tar_write_data(k->w, k->chunk, (size_t)n, e))
			return -1;
		left -= (uint64_t)n;
	}
	return tar_write_pad(k->w, size, e);
}

static int
put_file(struct walk *k, int dir, const char *name, const struct stat *st, struct err *e)
{
	CLEAN_FD int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	static struct attributes a; /* large; nothing here calls itself */
	struct tar_item x;
	struct stat now;
	int rc;

	if (fd < 0 || fstat(fd, &now))
		return cannot(k, e);
	if (!S_ISREG(now.st_mode) || now.st_ino != st->st_ino)
		return refuse(k, "changes while it is read", e);
	if (fill(k, &now, &x, e))
		return -1;
	x.type = TAR_TYPE_FILE;
	x.size = (uint64_t)now.st_size;
	k->p->bytes += x.size;
	if (x.size > k->p->bytes_max || k->p->bytes > k->p->bytes_max)
		return err_set(e, ERR_LIMIT, "a layer's files are larger than %llu MiB together",
			       (unsigned long long)k->p->bytes_max >> 20);
	rc = read_attributes(k, &a, fd, e);
	x.attributes = a.list;
	x.attribute_count = a.count;
	if (rc == 0)
		rc = write_item(k, &x, e) || put_data(k, fd, x.size, e) ? -1 : 0;
	free_attributes(&a);
	return rc;
}

static int
put_link(struct walk *k, int dir, const char *name, const struct stat *st, struct err *e)
{
	char target[LAYER_PATH_MAX + 2];
	ssize_t n = readlinkat(dir, name, target, sizeof target);
	struct tar_item x;

	if (n < 0)
		return cannot(k, e);
	if (n > LAYER_PATH_MAX)
		return refuse(k, "is a symbolic link that is too long", e);
	target[n] = '\0';
	if (fill(k, st, &x, e))
		return -1;
	x.type = TAR_TYPE_LINK;
	x.target = target;
	return write_item(k, &x, e);
}

static int put_directory(struct walk *k, int dir, const char *name, struct err *e);

static int
put_entry(struct walk *k, int dir, const char *name, struct err *e)
{
	const char *first = NULL;
	struct tar_item x;
	struct stat st;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
		return cannot(k, e);
	if (S_ISCHR(st.st_mode) && st.st_rdev == makedev(0, 0))
		return put_mark(k, WHITEOUT, name, e);
	if (!strncmp(name, WHITEOUT, strlen(WHITEOUT)))
		return refuse(k, "has a name that begins with '.wh.', which no layer can hold", e);
	if (S_ISDIR(st.st_mode))
		return put_directory(k, dir, name, e);
	if (!S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode) && !S_ISFIFO(st.st_mode)) {
		k->p->left_out++;
		return 0;
	}
	if (st.st_nlink > 1 && first_name(k, st.st_ino, &first, e))
		return -1;
	if (!first && S_ISREG(st.st_mode))
		return put_file(k, dir, name, &st, e);
	if (!first && S_ISLNK(st.st_mode))
		return put_link(k, dir, name, &st, e);
	if (fill(k, &st, &x, e))
		return -1;
	x.type = first ? TAR_TYPE_HARDLINK : TAR_TYPE_FIFO;
	x.target = first;
	return write_item(k, &x, e);
}

/* ---- Directories ---- */

static int
by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int
list(struct walk *k, int fd, char ***names, size_t *count, struct err *e)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *entry;
	size_t room = 0;
	int rc = 0;

	if (!d) {
		fd_close(&copy);
		return cannot(k, e);
	}
	while (rc == 0 && (errno = 0, entry = readdir(d))) {
		char **more = *names;

		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (*count == room && (more = realloc(more, (room = room ? room * 2 : 64) * sizeof *more)))
			*names = more;
		k->name_bytes += strlen(entry->d_name) + 1;
		if (!more || k->name_bytes > LAYER_NAMES_BYTES_MAX || !(more[*count] = strdup(entry->d_name)))
			rc = err_set(e, ERR_LIMIT, "a directory of a layer has too many names");
		else
			++*count;
	}
	if (rc == 0 && errno)
		rc = cannot(k, e);
	closedir(d);
	if (*count)
		qsort(*names, *count, sizeof **names, by_name);
	return rc;
}

static bool
is_left_out(const struct walk *k)
{
	for (size_t i = 0; i < k->p->without_count; i++)
		if (!strcmp(k->path, k->p->without[i]))
			return true;
	return false;
}

static int
walk_directory(struct walk *k, int fd, struct err *e)
{
	size_t count = 0, len = k->len;
	char **names = NULL;
	int rc = ++k->depth > LAYER_DEPTH_MAX
			 ? refuse(k, "is in too many directories, one in another", e)
			 : list(k, fd, &names, &count, e);

	for (size_t i = 0; i < count; i++) {
		size_t n = strlen(names[i]);

		if (rc == 0 && len + n + 1 > LAYER_PATH_MAX)
			rc = refuse(k, "has a name in it that is too long", e);
		if (rc == 0) {
			k->len = len + (size_t)snprintf(k->path + len, sizeof k->path - len, "%s%s",
							len ? "/" : "", names[i]);
			rc = is_left_out(k) ? 0 : put_entry(k, fd, names[i], e);
			k->path[k->len = len] = '\0';
		}
		k->name_bytes -= n + 1;
		free(names[i]);
	}
	free(names);
	k->depth--;
	return rc;
}

static int
put_directory(struct walk *k, int dir, const char *name, struct err *e)
{
	CLEAN_FD int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	static struct attributes a; /* large; done with before the next */
	struct tar_item x;
	struct stat st;
	bool opaque;
	int rc;

	if (fd < 0 || fstat(fd, &st))
		return cannot(k, e);
	if (fill(k, &st, &x, e))
		return -1;
	rc = read_attributes(k, &a, fd, e);
	x.type = TAR_TYPE_DIR;
	x.attributes = a.list;
	x.attribute_count = a.count;
	opaque = a.opaque;
	if (rc == 0 && k->p->made && !strcmp(k->path, k->p->made) && !opaque && !a.count && !x.uid && !x.gid &&
	    x.mode == 0755) {
		k->pending = x;
		k->pending.name = k->p->made;
		k->is_pending = true;
	} else if (rc == 0) {
		rc = write_item(k, &x, e);
	}
	free_attributes(&a);
	if (rc == 0 && opaque)
		rc = put_mark(k, OPAQUE_NAME, NULL, e);
	rc = rc ? -1 : walk_directory(k, fd, e);
	k->is_pending = false;
	return rc;
}

int
tree_pack(struct tree_pack *p, struct tar_writer *w, struct err *e)
{
	struct walk *k = calloc(1, sizeof *k);
	int rc;

	if (!k)
		return err_set(e, ERR_NODE, "no memory for a layer");
	k->p = p;
	k->w = w;
	p->entries = p->bytes = p->left_out = 0;
	rc = walk_directory(k, p->top, e);
	for (size_t i = 0; i < k->name_room; i++)
		free(k->names[i].path);
	free(k->names);
	free(k);
	return rc;
}
