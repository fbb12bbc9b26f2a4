#include "rootfs/image_blobs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/str.h"

#define PART "blobs/part"
enum { BLOCK = 256 << 10 };

int
blobs_open(const struct blobs *b, const char *hex)
{
	char path[96];
	int fd;

	snprintf(path, sizeof path, "blobs/sha256/%.64s", hex);
	fd = openat(b->store, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0 || errno != ENOENT)
		return fd;
	snprintf(path, sizeof path, "blobs/%.64s", hex);
	return openat(b->temp, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
}

int
blobs_slurp(const struct blobs *b, const char *hex, size_t max, struct buf *out, struct err *e)
{
	CLEAN_FD int fd = blobs_open(b, hex);
	char name[32];

	snprintf(name, sizeof name, "blob %.12s...", hex);
	if (fd < 0)
		return err_sys(e, ERR_INPUT, "%s", name);
	out->max = max + (64 << 10);
	return fd_slurp(fd, name, max, out, e);
}

int
blob_begin(const struct blobs *b, struct blob_write *w, struct err *e)
{
	*w = (struct blob_write){ .fd = -1 };
	sha256_init(&w->sha);
	w->fd = openat(b->temp, PART, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	return w->fd < 0 ? err_sys(e, ERR_NODE, "make a file in the image store") : 0;
}

int
blob_put(struct blob_write *w, const void *data, size_t len, struct err *e)
{
	sha256_update(&w->sha, data, len);
	w->bytes += len;
	return fd_write_all(w->fd, data, len) ? err_sys(e, ERR_NODE, "write into the image store") : 0;
}

void
blob_drop(const struct blobs *b, struct blob_write *w)
{
	if (w->fd >= 0)
		unlinkat(b->temp, PART, 0);
	fd_close(&w->fd);
}

int
blob_end(const struct blobs *b, struct blob_write *w, char hex[SHA256_HEX_MAX], struct err *e)
{
	uint8_t digest[SHA256_BYTES];
	char path[96];
	int there;

	sha256_final(&w->sha, digest);
	str_hex(digest, sizeof digest, hex);
	there = blobs_open(b, hex);
	if (there >= 0) {
		close(there);
		blob_drop(b, w);
		return 0;
	}
	fd_close(&w->fd);
	snprintf(path, sizeof path, "blobs/%.64s", hex);
	if (renameat(b->temp, PART, b->temp, path))
		return err_sys(e, ERR_NODE, "write into the image store");
	return 0;
}

int
blobs_copy(const struct blobs *b, int fd, const char *what, uint64_t total,
	   char hex[SHA256_HEX_MAX], uint64_t *bytes, struct err *e)
{
	static char block[BLOCK];
	struct blob_write w;
	ssize_t n;

	if (blob_begin(b, &w, e))
		return -1;
	while ((n = read(fd, block, sizeof block)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			err_sys(e, ERR_NODE, "read %s", what);
		if (n < 0 || blob_put(&w, block, (size_t)n, e)) {
			blob_drop(b, &w);
			return -1;
		}
		b->progress(what, w.bytes, total);
	}
	*bytes = w.bytes;
	return blob_end(b, &w, hex, e);
}

int
blobs_put(const struct blobs *b, const void *data, size_t len, char hex[SHA256_HEX_MAX],
	  struct err *e)
{
	struct blob_write w;

	if (blob_begin(b, &w, e))
		return -1;
	if (blob_put(&w, data, len, e)) {
		blob_drop(b, &w);
		return -1;
	}
	return blob_end(b, &w, hex, e);
}
