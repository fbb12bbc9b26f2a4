/*
 * Blobs: files named by the SHA-256 of their content, blobs/sha256/ab/cdef….
 *
 * A put copies to a temporary name beside the target, hashing on the way, compares, syncs,
 * renames, syncs the directory.  A digest's name therefore always has its whole content.
 * What an interrupted put left begins with "tmp." and is removed when the store is opened;
 * only the process that holds the store's lock does that.
 *
 * Runs in the reader's thread, a large one piece by piece: what else is asked for comes in between.
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

/* A piece is some 20 ms of work. */
enum { BLOB_PATH_MAX = 128, COPY_BYTES = 256 << 10, PIECE_BYTES = 8 << 20 };

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

int64_t
blob_touch(int dir_fd, const char *digest)
{
	char dir[BLOB_PATH_MAX], file[BLOB_PATH_MAX];
	struct stat st;

	paths(digest, dir, file);
	if (fstatat(dir_fd, file, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode) ||
	    utimensat(dir_fd, file, NULL, AT_SYMLINK_NOFOLLOW))
		return -1;
	return st.st_size;
}

/* A blob on its way in: a file beside its place, written piece by piece.  One that is there
 * already is read all the same: who puts a blob shows that he has it. */
struct blob_copy {
	int fd; /* -1: it is there */
	int dir_fd;
	char temp[2 * BLOB_PATH_MAX]; /* the file, while it is there; else "" */
	struct sha256 hash;
	off_t at; /* in the caller's file, whose offset is the caller's */
};

static void
end(struct request *r)
{
	struct blob_copy *copy = r->copy;

	if (!copy)
		return;
	if (copy->temp[0])
		unlinkat(copy->dir_fd, copy->temp, 0);
	fd_close(&copy->fd);
	free(copy);
	r->copy = NULL;
}

/* Two may put the same blob at the same time: each has a file of its own. */
static int
begin(struct request *r, const char *dir)
{
	static const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
	struct err *e = &r->done.err;

	r->copy = calloc(1, sizeof(*r->copy));
	if (!r->copy)
		return err_set(e, ERR_AGAIN, "out of memory to copy a blob");
	r->copy->dir_fd = r->dir_fd;
	r->copy->fd = -1;
	sha256_init(&r->copy->hash);
	/* Its age counts from now: the sweep must not take it before it is named. */
	if (blob_touch(r->dir_fd, r->digest) >= 0)
		return 0;
	if (mkdirat(r->dir_fd, dir, 0700) && errno != EEXIST)
		return err_sys(e, ERR_AGAIN, "create the directory of a blob");
	snprintf(r->copy->temp, sizeof(r->copy->temp), "%s/tmp.%p", dir, (void *)r);
	r->copy->fd = openat(r->dir_fd, r->copy->temp, flags, 0600);
	return r->copy->fd < 0 ? err_sys(e, ERR_AGAIN, "create a file for the blob") : 0;
}

/* 1: there is more to copy; 0: that was all; -1. */
static int
copy_piece(struct request *r)
{
	CLEAN_FREE char *chunk = malloc(COPY_BYTES);
	struct blob_copy *copy = r->copy;
	struct err *e = &r->done.err;
	off_t start = copy->at;

	if (!chunk)
		return err_set(e, ERR_AGAIN, "out of memory to copy a blob");
	while (copy->at - start < PIECE_BYTES) {
		ssize_t n = pread(r->fd, chunk, COPY_BYTES, copy->at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, ERR_NODE, "read the blob");
		if (!n)
			return 0;
		sha256_update(&copy->hash, chunk, (size_t)n);
		if (copy->fd >= 0 && fd_write_all(copy->fd, chunk, (size_t)n))
			return err_sys(e, ERR_AGAIN, "write the blob");
		copy->at += n;
	}
	/* On its way to the disk now, so that the sync at the end is short. */
	if (copy->fd >= 0)
		sync_file_range(copy->fd, start, copy->at - start, SYNC_FILE_RANGE_WRITE);
	return 1;
}

static int
finish(struct request *r, const char *dir, const char *file)
{
	struct blob_copy *copy = r->copy;
	struct err *e = &r->done.err;
	uint8_t digest[SHA256_BYTES];
	char hex[SHA256_HEX_MAX];

	sha256_final(&copy->hash, digest);
	str_hex(digest, sizeof(digest), hex);
	if (strcmp(hex, r->digest))
		return err_set(e, ERR_INPUT, "the content's SHA-256 is %s, not %s", hex, r->digest);
	if (copy->fd < 0)
		return 0;
	if (fchmod(copy->fd, 0400) || fsync(copy->fd))
		return err_sys(e, ERR_AGAIN, "sync the blob");
	if (renameat(r->dir_fd, copy->temp, r->dir_fd, file))
		return err_sys(e, ERR_AGAIN, "keep the blob");
	copy->temp[0] = '\0';
	if (fsync_dir(r->dir_fd, dir) || fsync_dir(r->dir_fd, BLOB_DIR))
		return err_sys(e, ERR_AGAIN, "keep the blob");
	r->done.answer.changed = true;
	return 0;
}

int
blob_put(struct db *db, struct request *r)
{
	char dir[BLOB_PATH_MAX], file[BLOB_PATH_MAX];
	int more = -1;

	(void)db;
	paths(r->digest, dir, file);
	if (r->fd < 0) {
		if (blob_touch(r->dir_fd, r->digest) < 0)
			err_set(&r->done.err, ERR_NOT_FOUND, "blob %s does not exist", r->digest);
		return SQLITE_OK;
	}
	if (r->copy && atomic_load(&r->store->closing))
		err_set(&r->done.err, ERR_AGAIN, "the store is closing");
	else if (r->copy || !begin(r, dir))
		more = copy_piece(r);
	if (more == 0)
		finish(r, dir, file);
	r->again = more == 1;
	if (!r->again)
		end(r);
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
