/*
 * The tree is walked below one descriptor: names are opened beneath it, so that neither a
 * link nor a race leads out of it, and what a name is is asked of the descriptor that was
 * opened.  A file that shrinks or grows while it is read is an error rather than a zip
 * with something else in it.
 */
#include "core/client/zip.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/str.h"

enum { PATH_BYTES_MAX = 4096, COPY_BYTES = 64 << 10 };
static const time_t entry_time = 315532800; /* 1980-01-01, where a zip's calendar begins */

struct zip {
	struct archive *archive;
	int root_fd, out_fd;
	uint64_t in_bytes, out_bytes;
	size_t entries;
	bool too_large;
	int write_errno;
	char path[PATH_BYTES_MAX]; /* of the entry at hand, below the root */
	char block[COPY_BYTES];
};

/*
 * Never fails: libarchive does not free a compressor whose output failed.  What went wrong
 * is kept, and asked for after each block.
 */
static la_ssize_t
write_out(struct archive *archive, void *arg, const void *data, size_t len)
{
	struct zip *z = arg;

	(void)archive;
	if (z->too_large || z->write_errno)
		return (la_ssize_t)len;
	z->out_bytes += len;
	if (z->out_bytes > ZIP_BYTES_MAX)
		z->too_large = true;
	else if (fd_write_all(z->out_fd, data, len))
		z->write_errno = errno;
	return (la_ssize_t)len;
}

static int
check_output(const struct zip *z, struct err *e)
{
	if (z->too_large)
		return err_set(e, ERR_INPUT, "more than %d MiB zipped", ZIP_BYTES_MAX >> 20);
	if (z->write_errno) {
		errno = z->write_errno;
		return err_sys(e, ERR_NODE, "cannot keep the zip");
	}
	return 0;
}

static int
archive_failed(struct zip *z, struct err *e)
{
	const char *text = archive_error_string(z->archive);

	return err_set(e, ERR_NODE, "%s", text ? text : "cannot zip");
}

static int
put_content(struct zip *z, int fd, uint64_t size, struct err *e)
{
	uint64_t done = 0;

	for (;;) {
		ssize_t n = fd_read_all(fd, z->block, sizeof z->block);

		if (n < 0)
			return err_sys(e, ERR_INPUT, "%s: cannot read", z->path);
		if (n == 0)
			break;
		done += (uint64_t)n;
		if (done > size)
			break;
		if (archive_write_data(z->archive, z->block, (size_t)n) != n)
			return archive_failed(z, e);
		if (check_output(z, e))
			return -1;
	}
	if (done != size)
		return err_set(e, ERR_INPUT, "%s: changed while it was read", z->path);
	return 0;
}

static int
put_file(struct zip *z, int fd, const struct stat *st, struct err *e)
{
	struct archive_entry *entry;
	int rc;

	z->in_bytes += (uint64_t)st->st_size;
	if (z->in_bytes > ZIP_INPUT_BYTES_MAX)
		return err_set(e, ERR_INPUT, "%s: more than %d MiB in all", z->path,
			       ZIP_INPUT_BYTES_MAX >> 20);
	if (++z->entries > ZIP_ENTRIES_MAX)
		return err_set(e, ERR_INPUT, "%s: more than %d files", z->path, ZIP_ENTRIES_MAX);
	entry = archive_entry_new();
	if (!entry)
		return err_set(e, ERR_NODE, "no memory");
	archive_entry_set_pathname_utf8(entry, z->path);
	archive_entry_set_filetype(entry, AE_IFREG);
	archive_entry_set_perm(entry, st->st_mode & 0111 ? 0755 : 0644);
	archive_entry_set_size(entry, st->st_size);
	archive_entry_set_mtime(entry, entry_time, 0);
	rc = archive_write_header(z->archive, entry) < ARCHIVE_WARN ? archive_failed(z, e) : 0;
	archive_entry_free(entry);
	return rc ? -1 : put_content(z, fd, (uint64_t)st->st_size, e);
}

static int
by_bytes(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void
names_free(char **names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(names[i]);
	free(names);
}

static bool
is_left_out(const char *name)
{
	return !strcmp(name, ".") || !strcmp(name, "..") || !strcmp(name, ".git") ||
	       !strcmp(name, "__pycache__");
}

/* The names in fd (taken over), sorted. */
static int
read_names(const struct zip *z, int fd, char ***names, size_t *count, struct err *e)
{
	DIR *dir = fdopendir(fd);
	struct dirent *d;
	size_t n = 0, room = 0;
	char **list = NULL;
	int rc = 0;

	if (!dir) {
		close(fd);
		return err_sys(e, ERR_NODE, "cannot list a directory");
	}
	while (errno = 0, rc == 0 && (d = readdir(dir))) {
		if (is_left_out(d->d_name))
			continue;
		if (n == ZIP_ENTRIES_MAX) {
			rc = err_set(e, ERR_INPUT, "%s: more than %d names in a directory", z->path,
				     ZIP_ENTRIES_MAX);
		} else if (n == room) {
			char **more;

			room = room ? room * 2 : 64;
			more = reallocarray(list, room, sizeof *list);
			if (!more)
				rc = err_set(e, ERR_NODE, "no memory");
			else
				list = more;
		}
		if (rc == 0 && !(list[n++] = strdup(d->d_name)))
			rc = err_set(e, ERR_NODE, "no memory");
	}
	if (rc == 0 && errno)
		rc = err_sys(e, ERR_INPUT, "%s: cannot list the directory", z->path);
	closedir(dir);
	if (rc) {
		names_free(list, n);
		return -1;
	}
	if (n)
		qsort(list, n, sizeof *list, by_bytes);
	*names = list;
	*count = n;
	return 0;
}

static int walk(struct zip *z, int fd, size_t len, int depth, struct err *e);

/* The entry z->path (len bytes). */
static int
put_entry(struct zip *z, size_t len, int depth, struct err *e)
{
	CLEAN_FD int fd = open_beneath(z->root_fd, z->path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0, 0);
	struct stat st, link;

	if (fd < 0 && errno == EXDEV)
		return err_set(e, ERR_INPUT, "%s: a link that leads out of the directory", z->path);
	if (fd < 0 || fstat(fd, &st) || fstatat(z->root_fd, z->path, &link, AT_SYMLINK_NOFOLLOW))
		return err_sys(e, ERR_INPUT, "%s: cannot open", z->path);
	if (S_ISREG(st.st_mode))
		return put_file(z, fd, &st, e);
	if (!S_ISDIR(st.st_mode))
		return err_set(e, ERR_INPUT, "%s: neither a file nor a directory", z->path);
	if (S_ISLNK(link.st_mode))
		return err_set(e, ERR_INPUT, "%s: a link to a directory", z->path);
	if (depth == ZIP_DEPTH_MAX)
		return err_set(e, ERR_INPUT, "%s: nested deeper than %d", z->path, ZIP_DEPTH_MAX);
	return walk(z, fd_steal(&fd), len, depth + 1, e);
}

/* All in the directory fd (taken over), whose path is z->path[0..len). */
static int
walk(struct zip *z, int fd, size_t len, int depth, struct err *e)
{
	char **names = NULL;
	size_t count = 0;
	int rc;

	rc = read_names(z, fd, &names, &count, e);
	for (size_t i = 0; rc == 0 && i < count; i++) {
		size_t n = strlen(names[i]), at = len;

		if (!str_is_utf8(names[i], n)) {
			rc = err_set(e, ERR_INPUT, "%s: a name in it is not UTF-8",
				     len ? z->path : "the directory");
			break;
		}
		if (len + 1 + n >= sizeof z->path) {
			rc = err_set(e, ERR_INPUT, "%.100s…: the path is too long", z->path);
			break;
		}
		if (len)
			z->path[at++] = '/';
		memcpy(z->path + at, names[i], n + 1);
		rc = put_entry(z, at + n, depth, e);
		z->path[len] = '\0';
	}
	names_free(names, count);
	return rc;
}

static int
open_writer(struct zip *z, struct err *e)
{
	z->archive = archive_write_new();
	if (!z->archive)
		return err_set(e, ERR_NODE, "no memory");
	if (archive_write_set_format_zip(z->archive) != ARCHIVE_OK ||
	    archive_write_set_options(z->archive, "zip:hdrcharset=UTF-8") < ARCHIVE_WARN ||
	    archive_write_set_bytes_in_last_block(z->archive, 1) != ARCHIVE_OK ||
	    archive_write_open(z->archive, z, NULL, write_out, NULL) != ARCHIVE_OK)
		return archive_failed(z, e);
	return 0;
}

int
zip_directory(int dir_fd, const char *name, int out_fd, struct err *e)
{
	struct zip *z = calloc(1, sizeof *z);
	int fd, rc;

	if (!z)
		return err_set(e, ERR_NODE, "no memory");
	z->root_fd = dir_fd;
	z->out_fd = out_fd;
	rc = open_writer(z, e);
	if (rc == 0) {
		fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		rc = fd < 0 ? err_sys(e, ERR_INPUT, "cannot open") : walk(z, fd, 0, 0, e);
	}
	if (rc == 0 && archive_write_close(z->archive) != ARCHIVE_OK)
		rc = archive_failed(z, e);
	if (rc == 0)
		rc = check_output(z, e);
	if (rc)
		err_wrap(e, "%.200s", name);
	if (z->archive)
		archive_write_free(z->archive);
	free(z);
	return rc;
}
