#include "rootfs/tar_write.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/str.h"

enum { BLOCK = 512, NAME_FIELD = 100, PAX_MAX = 64 << 20 };
#define OCTAL_SIZE_MAX 077777777777ull /* what eleven digits hold */

struct tar_writer {
	int fd;
	int errnum; /* of write */
	struct archive *packer;
	struct sha256 plain, packed;
	uint64_t bytes;
};

static la_ssize_t
on_packed(struct archive *a, void *arg, const void *data, size_t len)
{
	struct tar_writer *w = arg;

	if (fd_write_all(w->fd, data, len)) {
		w->errnum = errno;
		archive_set_error(a, errno, "cannot be written");
		return -1;
	}
	sha256_update(&w->packed, data, len);
	w->bytes += len;
	return (la_ssize_t)len;
}

static int
failed(const struct tar_writer *w, struct err *e)
{
	errno = w->errnum ? w->errnum : archive_errno(w->packer);
	return err_sys(e, ERR_NODE, "write a layer");
}

/* A raw stream behind gzip, whose header says no time. */
static int
open_packer(struct tar_writer *w)
{
	struct archive_entry *entry = archive_entry_new();
	int rc = -1;

	w->packer = archive_write_new();
	if (w->packer && entry && archive_write_add_filter_gzip(w->packer) == ARCHIVE_OK &&
	    archive_write_set_filter_option(w->packer, "gzip", "timestamp", NULL) == ARCHIVE_OK &&
	    archive_write_set_filter_option(w->packer, "gzip", "compression-level", "4") == ARCHIVE_OK &&
	    archive_write_set_format_raw(w->packer) == ARCHIVE_OK &&
	    archive_write_set_bytes_in_last_block(w->packer, 1) == ARCHIVE_OK &&
	    archive_write_open(w->packer, w, NULL, on_packed, NULL) == ARCHIVE_OK) {
		archive_entry_set_filetype(entry, AE_IFREG);
		rc = archive_write_header(w->packer, entry) == ARCHIVE_OK ? 0 : -1;
	}
	archive_entry_free(entry);
	return rc;
}

struct tar_writer *
tar_write_begin(int fd, struct err *e)
{
	struct tar_writer *w = calloc(1, sizeof *w);

	if (!w) {
		err_set(e, ERR_NODE, "no memory for a layer");
		return NULL;
	}
	w->fd = fd;
	sha256_init(&w->plain);
	sha256_init(&w->packed);
	if (open_packer(w)) {
		if (w->packer)
			failed(w, e);
		else
			err_set(e, ERR_NODE, "no memory for a layer");
		tar_write_free(w);
		return NULL;
	}
	return w;
}

void
tar_write_free(struct tar_writer *w)
{
	if (w && w->packer)
		archive_write_free(w->packer);
	free(w);
}

int
tar_write_data(struct tar_writer *w, const void *data, size_t len, struct err *e)
{
	sha256_update(&w->plain, data, len);
	if (len && archive_write_data(w->packer, data, len) != (la_ssize_t)len)
		return failed(w, e);
	return 0;
}

int
tar_write_pad(struct tar_writer *w, uint64_t size, struct err *e)
{
	static const char zeros[BLOCK];
	size_t rest = (size_t)(size % BLOCK);

	return rest ? tar_write_data(w, zeros, BLOCK - rest, e) : 0;
}

/* ---- Headers ---- */

static int
header(struct tar_writer *w, const struct tar_item *x, char type, const char *name, uint64_t size,
       struct err *e)
{
	char h[BLOCK] = { 0 };
	unsigned sum = 0;
	size_t len = strlen(name);

	memcpy(h, name, len < NAME_FIELD ? len : NAME_FIELD);
	snprintf(h + 100, 8, "%07o", x->mode & 07777);
	snprintf(h + 108, 8, "%07o", x->uid & 07777777);
	snprintf(h + 116, 8, "%07o", x->gid & 07777777);
	snprintf(h + 124, 12, "%011" PRIo64, size <= OCTAL_SIZE_MAX ? size : 0);
	snprintf(h + 136, 12, "%011" PRIo64,
		 x->mtime_s >= 0 && (uint64_t)x->mtime_s <= OCTAL_SIZE_MAX ? (uint64_t)x->mtime_s : 0);
	memset(h + 148, ' ', 8);
	h[156] = type;
	if (x->target && type != 'x') {
		len = strlen(x->target);
		memcpy(h + 157, x->target, len < NAME_FIELD ? len : NAME_FIELD);
	}
	memcpy(h + 257, "ustar\00000", 8);
	for (size_t i = 0; i < sizeof h; i++)
		sum += (unsigned char)h[i];
	snprintf(h + 148, 8, "%06o", sum);
	return tar_write_data(w, h, sizeof h, e);
}

/* "LEN KEY=VALUE\n", LEN counting itself. */
static void
put_record(struct buf *b, const char *key, const char *more, const void *value, size_t len)
{
	size_t rest = strlen(key) + strlen(more) + len + 3, total = rest, digits;

	do {
		char text[24];

		digits = (size_t)snprintf(text, sizeof text, "%zu", total);
		total = rest + digits;
		digits = (size_t)snprintf(text, sizeof text, "%zu", total);
	} while (total != rest + digits);
	buf_printf(b, "%zu %s%s=", total, key, more);
	buf_put(b, value, len);
	buf_put(b, "\n", 1);
}

static void
put_text(struct buf *b, const char *key, const char *value)
{
	put_record(b, key, "", value, strlen(value));
}

static void
put_records(struct buf *b, const struct tar_item *x)
{
	char text[64];
	bool early = x->mtime_s < 0;

	if (strlen(x->name) + (x->type == TAR_TYPE_DIR) > NAME_FIELD)
		put_text(b, "path", x->name);
	if (x->target && strlen(x->target) > NAME_FIELD)
		put_text(b, "linkpath", x->target);
	if (x->size > OCTAL_SIZE_MAX) {
		snprintf(text, sizeof text, "%" PRIu64, x->size);
		put_text(b, "size", text);
	}
	/* Before 1970 the fraction counts backwards; such times have none here. */
	if (early || x->mtime_ns || (uint64_t)x->mtime_s > OCTAL_SIZE_MAX) {
		snprintf(text, sizeof text, "%" PRId64, x->mtime_s);
		if (!early && x->mtime_ns)
			snprintf(text, sizeof text, "%" PRId64 ".%09ld", x->mtime_s, x->mtime_ns);
		put_text(b, "mtime", text);
	}
	for (size_t i = 0; i < x->attribute_count; i++)
		put_record(b, "SCHILY.xattr.", x->attributes[i].name, x->attributes[i].value,
			   x->attributes[i].len);
}

int
tar_write_item(struct tar_writer *w, const struct tar_item *x, struct err *e)
{
	static const struct tar_item extended = { .mode = 0644 };
	struct buf records = { .max = PAX_MAX };
	char name[NAME_FIELD + 1];
	int rc = 0;

	put_records(&records, x);
	if (records.failed)
		rc = err_set(e, ERR_LIMIT, "the attributes of '%.100s' are too large", x->name);
	else if (records.len)
		rc = header(w, &extended, 'x', "pax", records.len, e) ||
		     tar_write_data(w, records.data, records.len, e) ||
		     tar_write_pad(w, records.len, e);
	buf_free(&records);
	if (rc)
		return -1;
	if (x->type != TAR_TYPE_DIR || strlen(x->name) >= NAME_FIELD)
		return header(w, x, (char)x->type, x->name, x->size, e);
	snprintf(name, sizeof name, "%s/", x->name);
	return header(w, x, (char)x->type, name, 0, e);
}

int
tar_write_end(struct tar_writer *w, char diff[SHA256_HEX_MAX], char blob[SHA256_HEX_MAX],
	      uint64_t *bytes, struct err *e)
{
	static const char zeros[2 * BLOCK];
	uint8_t digest[SHA256_BYTES];

	if (tar_write_data(w, zeros, sizeof zeros, e))
		return -1;
	if (archive_write_close(w->packer) != ARCHIVE_OK)
		return failed(w, e);
	sha256_final(&w->plain, digest);
	str_hex(digest, sizeof digest, diff);
	sha256_final(&w->packed, digest);
	str_hex(digest, sizeof digest, blob);
	*bytes = w->bytes;
	return 0;
}
