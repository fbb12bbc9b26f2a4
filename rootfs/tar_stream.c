#include "rootfs/tar_stream.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/str.h"
#include "rootfs/tar_names.h"

enum { PACKED_BLOCK = 256 << 10, PLAIN_BLOCK = 256 << 10, WINDOW = 16 * PLAIN_BLOCK };

struct tar_stream {
	int fd;
	void (*bytes)(void *arg, uint64_t bytes);
	void *arg;
	struct archive *unpacker, *tar;
	struct archive_entry *entry; /* the tar's current one */
	uint64_t packed, plain;
	int errnum;    /* of read */
	bool too_packed;
	bool ended;    /* the unpacked stream */
	struct sha256 sha;
	struct tar_names names;
	char in[PACKED_BLOCK];
	char window[WINDOW]; /* the last of the unpacked stream: byte n at n % WINDOW */
};

static la_ssize_t
read_packed(struct archive *a, void *arg, const void **data)
{
	struct tar_stream *t = arg;
	ssize_t n;

	do
		n = read(t->fd, t->in, sizeof t->in);
	while (n < 0 && errno == EINTR);
	if (n < 0) {
		t->errnum = errno;
		archive_set_error(a, errno, "cannot be read");
		return -1;
	}
	t->packed += (uint64_t)n;
	if (t->bytes && n)
		t->bytes(t->arg, t->packed);
	*data = t->in;
	return n;
}

/* The unpacked stream, hashed on its way to the second reader. */
static la_ssize_t
read_plain(struct archive *a, void *arg, const void **data)
{
	struct tar_stream *t = arg;
	size_t at = t->plain % WINDOW, room = WINDOW - at;
	char *out = t->window + at;
	la_ssize_t n = t->ended ? 0 : archive_read_data(t->unpacker, out,
							room < PLAIN_BLOCK ? room : PLAIN_BLOCK);

	if (n < 0) {
		archive_set_error(a, archive_errno(t->unpacker), "%.160s",
				  archive_error_string(t->unpacker) ? archive_error_string(t->unpacker)
								    : "cannot be unpacked");
		return -1;
	}
	t->ended = n == 0;
	t->plain += (uint64_t)n;
	if (t->plain > TAR_RATIO_FROM && t->plain / TAR_RATIO_MAX > t->packed) {
		t->too_packed = true;
		archive_set_error(a, EFBIG, "unpacks to too much");
		return -1;
	}
	sha256_update(&t->sha, out, (size_t)n);
	*data = out;
	return n;
}

static int
failed(struct tar_stream *t, struct archive *a, struct err *e)
{
	const char *why = archive_error_string(a);

	if (t->errnum) {
		errno = t->errnum;
		return err_sys(e, ERR_NODE, "read the archive");
	}
	if (t->too_packed)
		return err_set(e, ERR_LIMIT, "the archive unpacks to more than %d times its size",
			       TAR_RATIO_MAX);
	if (archive_errno(a) == ENOMEM)
		return err_set(e, ERR_NODE, "out of memory for an archive");
	return err_set(e, ERR_INPUT, "the archive is damaged: %.200s", why ? why : "it cannot be read");
}

static int
open_readers(struct tar_stream *t, struct err *e)
{
	struct archive_entry *entry;
	int rc;

	t->unpacker = archive_read_new();
	t->tar = archive_read_new();
	if (!t->unpacker || !t->tar)
		return err_set(e, ERR_NODE, "out of memory for an archive");
	archive_read_support_filter_gzip(t->unpacker);
	archive_read_support_filter_zstd(t->unpacker);
	archive_read_support_filter_xz(t->unpacker);
	archive_read_support_format_raw(t->unpacker);
	archive_read_support_format_empty(t->unpacker);
	archive_read_support_format_tar(t->tar);
	if (archive_read_open(t->unpacker, t, NULL, read_packed, NULL) != ARCHIVE_OK)
		return failed(t, t->unpacker, e);
	rc = archive_read_next_header(t->unpacker, &entry);
	if (rc == ARCHIVE_EOF)
		t->ended = true;
	else if (rc != ARCHIVE_OK)
		return failed(t, t->unpacker, e);
	/* Ours and the descriptor's; one more is what it is packed by. */
	if (archive_filter_count(t->unpacker) > 2)
		return err_set(e, ERR_INPUT, "the archive is packed more than once");
	return 0;
}

struct tar_stream *
tar_open(int fd, void (*bytes)(void *arg, uint64_t bytes), void *arg, struct err *e)
{
	struct tar_stream *t = calloc(1, sizeof *t);

	if (!t) {
		err_set(e, ERR_NODE, "out of memory for an archive");
		return NULL;
	}
	t->fd = fd;
	t->bytes = bytes;
	t->arg = arg;
	sha256_init(&t->sha);
	if (open_readers(t, e)) {
		tar_free(t);
		return NULL;
	}
	if (archive_read_open(t->tar, t, NULL, read_plain, NULL) != ARCHIVE_OK && t->plain) {
		failed(t, t->tar, e);
		tar_free(t);
		return NULL;
	}
	return t;
}

void
tar_free(struct tar_stream *t)
{
	if (!t)
		return;
	if (t->unpacker)
		archive_read_free(t->unpacker);
	if (t->tar)
		archive_read_free(t->tar);
	free(t);
}

static enum tar_kind
kind_of(struct archive_entry *a)
{
	if (archive_entry_hardlink(a))
		return TAR_HARDLINK;
	switch (archive_entry_filetype(a)) {
	case AE_IFDIR: return TAR_DIR;
	case AE_IFLNK: return TAR_LINK;
	case AE_IFIFO: return TAR_FIFO;
	case AE_IFSOCK: return TAR_SOCKET;
	case AE_IFCHR:
	case AE_IFBLK: return TAR_DEVICE;
	default: return TAR_FILE;
	}
}

/* What libarchive has made of the names is replaced by what stands there. */
static int
take_raw_names(struct tar_stream *t, struct tar_entry *entry, struct err *e)
{
	const struct tar_window w = {
		.data = t->window,
		.size = WINDOW,
		/* The next block overwrites what is older. */
		.from = t->plain > WINDOW - PLAIN_BLOCK ? t->plain - (WINDOW - PLAIN_BLOCK) : 0,
		.to = t->plain,
	};

	if (tar_names_read(&w, (uint64_t)archive_read_header_position(t->tar), &t->names))
		return err_set(e, ERR_INPUT, "an entry of the archive has headers that cannot be read");
	if (t->names.path[0])
		entry->name = t->names.path;
	if (t->names.target[0] && entry->target)
		entry->target = t->names.target;
	return 0;
}

int
tar_next(struct tar_stream *t, struct tar_entry *entry, struct err *e)
{
	struct archive_entry *a = NULL;
	int rc;

	if (t->plain == 0 && t->ended)
		return 0; /* an empty layer */
	rc = archive_read_next_header(t->tar, &a);
	if (rc == ARCHIVE_EOF)
		return 0;
	/* A warning is of a header that was not understood as it was meant. */
	if (rc != ARCHIVE_OK)
		return failed(t, t->tar, e);
	*entry = (struct tar_entry){
		.kind = kind_of(a),
		.name = archive_entry_pathname(a),
		.mode = archive_entry_perm(a) & 07777,
		.uid = archive_entry_uid(a),
		.gid = archive_entry_gid(a),
		.size = archive_entry_size(a) < 0 ? UINT64_MAX : (uint64_t)archive_entry_size(a),
		.mtime_s = archive_entry_mtime(a),
		.mtime_ns = archive_entry_mtime_nsec(a),
		.has_acl = archive_entry_acl_types(a) != 0,
	};
	entry->target = entry->kind == TAR_HARDLINK ? archive_entry_hardlink(a)
			: entry->kind == TAR_LINK ? archive_entry_symlink(a) : NULL;
	if (!entry->name)
		return err_set(e, ERR_INPUT, "an entry of the archive has no name that can be read");
	archive_entry_xattr_reset(a);
	t->entry = a;
	return take_raw_names(t, entry, e) ? -1 : 1;
}

int
tar_data(struct tar_stream *t, const void **data, size_t *len, uint64_t *offset, struct err *e)
{
	la_int64_t at = 0;
	int rc = archive_read_data_block(t->tar, data, len, &at);

	if (rc == ARCHIVE_EOF)
		return 0;
	if (rc != ARCHIVE_OK)
		return failed(t, t->tar, e);
	if (at < 0)
		return err_set(e, ERR_INPUT, "the archive is damaged: data before a file's beginning");
	*offset = (uint64_t)at;
	return 1;
}

bool
tar_attribute(struct tar_stream *t, const char **name, const void **value, size_t *len)
{
	return archive_entry_xattr_next(t->entry, name, value, len) == ARCHIVE_OK && *name;
}

int
tar_end(struct tar_stream *t, char diff[SHA256_HEX_MAX], struct err *e)
{
	uint8_t digest[SHA256_BYTES];
	const void *rest;
	la_ssize_t n;

	while ((n = read_plain(t->tar, t, &rest)) > 0)
		;
	if (n < 0)
		return failed(t, t->tar, e);
	/* And what follows the packed stream, which belongs to the blob. */
	while ((n = read_packed(t->unpacker, t, &rest)) > 0)
		;
	if (n < 0)
		return failed(t, t->unpacker, e);
	sha256_final(&t->sha, digest);
	str_hex(digest, sizeof digest, diff);
	return 0;
}
