/*
 * Blobs: files named by the SHA-256 of their content, blobs/sha256/ab/cdef….
 *
 * A put copies to a temporary name beside the target, hashing on the way, compares, syncs,
 * renames, syncs the directory.  A digest's name therefore always has its whole content.
 * What an interrupted put left begins with "tmp." and is removed when the store is opened;
 * only the process that holds the store's lock does that.
 *
 * Runs in the reader's thread: a package of 64 MiB must not hold up accepts.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/sqlite_impl.h"

#include "core/base/clock.h"
#include "core/base/fdio.h"
#include "core/base/str.h"

#define BLOB_DIR "blobs/sha256"

enum { BLOB_PATH_MAX = 128, COPY_BYTES = 256 << 10 };

/* "blobs/sha256/ab" and "blobs/sha256/ab/cdef…" */
static void
paths(const char *digest, char dir[BLOB_PATH_MAX], char file[BLOB_PATH_MAX])
{
	snprintf(dir, BLOB_PATH_MAX, BLOB_DIR "/%.2s", digest);
	snprintf(file, BLOB_PATH_MAX, BLOB_DIR "/%.2s/%.62s", digest, digest + 2);
}

static int
fsync_dir(int dir_fd, const char *path)
{
	CLEAN_FD int fd = openat(dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -1 : fsync(fd);
}

/* From the start of from, whatever its offset, which is the caller's. */
static int
copy_hashed(int from, int to, char hex[SHA256_HEX_MAX], struct err *e)
{
	CLEAN_FREE char *chunk = malloc(COPY_BYTES);
	uint8_t digest[SHA256_BYTES];
	struct sha256 hash;
	off_t at = 0;

	if (!chunk)
		return err_set(e, ERR_AGAIN, "out of memory to copy a package");
	sha256_init(&hash);
	for (;;) {
		ssize_t n = pread(from, chunk, COPY_BYTES, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, ERR_NODE, "read the package");
		if (!n)
			break;
		sha256_update(&hash, chunk, (size_t)n);
		if (fd_write_all(to, chunk, (size_t)n))
			return err_sys(e, ERR_AGAIN, "write the package");
		at += n;
	}
	sha256_final(&hash, digest);
	str_hex(digest, sizeof(digest), hex);
	return 0;
}

/* temp is there with the content of from, or not at all. */
static int
write_temp(struct request *r, const char *temp)
{
	static const int flags = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC;
	CLEAN_FD int fd = openat(r->dir_fd, temp, flags, 0600);
	char hex[SHA256_HEX_MAX];
	struct err *e = &r->done.err;

	if (fd < 0)
		return err_sys(e, ERR_AGAIN, "create a file for the package");
	if (copy_hashed(r->fd, fd, hex, e))
		return -1;
	if (strcmp(hex, r->digest))
		return err_set(e, ERR_INPUT, "the content's SHA-256 is %s, not %s", hex, r->digest);
	if (fchmod(fd, 0400) || fsync(fd))
		return err_sys(e, ERR_AGAIN, "sync the package");
	return 0;
}

int
blob_put(struct db *db, struct request *r)
{
	char dir[BLOB_PATH_MAX], file[BLOB_PATH_MAX], temp[2 * BLOB_PATH_MAX];
	struct err *e = &r->done.err;
	struct stat st;

	(void)db;
	paths(r->digest, dir, file);
	if (!fstatat(r->dir_fd, file, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode)) {
		/* Its age counts from now: the sweep must not take it before it is named. */
		if (utimensat(r->dir_fd, file, NULL, AT_SYMLINK_NOFOLLOW))
			err_sys(e, ERR_AGAIN, "keep the package");
		return SQLITE_OK;
	}
	if (mkdirat(r->dir_fd, dir, 0700) && errno != EEXIST) {
		err_sys(e, ERR_AGAIN, "create the directory of a package");
		return SQLITE_OK;
	}
	snprintf(temp, sizeof(temp), "%s/tmp.%.62s", dir, r->digest + 2);
	if (!write_temp(r, temp)) {
		if (renameat(r->dir_fd, temp, r->dir_fd, file) || fsync_dir(r->dir_fd, dir) ||
		    fsync_dir(r->dir_fd, BLOB_DIR))
			err_sys(e, ERR_AGAIN, "keep the package");
		else
			r->done.answer.changed = true;
	}
	unlinkat(r->dir_fd, temp, 0);
	return SQLITE_OK;
}

int
blob_open(struct db *db, struct request *r)
{
	char dir[BLOB_PATH_MAX], file[BLOB_PATH_MAX];
	struct stat st;
	CLEAN_FD int fd = -1;

	(void)db;
	paths(r->digest, dir, file);
	fd = openat(r->dir_fd, file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		err_set(&r->done.err, ERR_NOT_FOUND, "blob %s does not exist", r->digest);
	else if (fd < 0 || fstat(fd, &st))
		err_sys(&r->done.err, ERR_AGAIN, "open blob %s", r->digest);
	if (r->done.err.cls != ERR_NONE)
		return SQLITE_OK;
	r->done.answer.len = (size_t)st.st_size;
	r->done.answer.fd = fd_steal(&fd);
	return SQLITE_OK;
}

/* ---- All of them ---- */

static int
each_directory(int dir_fd, int (*fn)(int fd, const char *name, void *arg), void *arg, struct err *e)
{
	int fd = openat(dir_fd, BLOB_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), rc = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!dir) {
		err_sys(e, ERR_NODE, "open " BLOB_DIR);
		fd_close(&fd);
		return -1;
	}
	while (!rc && (entry = readdir(dir))) {
		int one;

		if (entry->d_name[0] == '.')
			continue;
		one = openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (one >= 0)
			rc = fn(one, entry->d_name, arg); /* which closes it */
		else if (errno != ENOTDIR && errno != ELOOP)
			rc = -1;
		if (rc)
			err_sys(e, ERR_NODE, "sweep " BLOB_DIR "/%s", entry->d_name);
	}
	closedir(dir);
	return rc;
}

struct removal {
	bool (*fn)(void *arg, const char *digest, int64_t put_us);
	void *arg;
	int count;
};

static int
remove_some(int fd, const char *name, void *arg)
{
	struct removal *removal = arg;
	DIR *dir = fdopendir(fd);
	struct dirent *entry;
	struct stat st;

	if (!dir) {
		fd_close(&fd);
		return -1;
	}
	while ((entry = readdir(dir))) {
		char digest[SHA256_HEX_MAX];

		if (strlen(name) != 2 || strlen(entry->d_name) != sizeof(digest) - 3 ||
		    fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
			continue;
		snprintf(digest, sizeof(digest), "%.2s%.62s", name, entry->d_name);
		if (removal->fn(removal->arg, digest, (int64_t)st.st_mtim.tv_sec * US_PER_S) &&
		    !unlinkat(fd, entry->d_name, 0))
			removal->count++;
	}
	closedir(dir);
	return 0;
}

int
blob_remove_if(int dir_fd, bool (*fn)(void *arg, const char *digest, int64_t put_us), void *arg,
	       struct err *e)
{
	struct removal removal = {.fn = fn, .arg = arg};

	return each_directory(dir_fd, remove_some, &removal, e) ? -1 : removal.count;
}

/* ---- At opening ---- */

static int
remove_unfinished(int fd, const char *name, void *arg)
{
	DIR *dir = fdopendir(fd);
	struct dirent *entry;

	(void)name;
	(void)arg;
	if (!dir) {
		fd_close(&fd);
		return -1;
	}
	while ((entry = readdir(dir)))
		if (str_starts(entry->d_name, "tmp."))
			unlinkat(fd, entry->d_name, 0);
	closedir(dir);
	return 0;
}

int
blob_start(int dir_fd, struct err *e)
{
	if (dir_make(dir_fd, BLOB_DIR, 0700, e))
		return -1;
	return each_directory(dir_fd, remove_unfinished, NULL, e);
}
