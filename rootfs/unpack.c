/*
 * Unpacking.  libarchive only reads: it inflates, and gives headers of a tar.  Which
 * entries a zip has is known before, from zip_read(), and libarchive must then see the
 * same ones in the same order; where it does not (an extra field that renames an entry,
 * say), the zip has more than one meaning and is refused.
 *
 * Sizes are counted as bytes come out, since a header may say anything.
 */
#include "rootfs/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/str.h"
#include "rootfs/unpack_names.h"
#include "rootfs/unpack_write.h"
#include "rootfs/zip.h"

enum { BLOCK_BYTES = 128 << 10 };

/* One archive being read. */
struct unpack {
	struct archive *archive;
	struct names *names;
	struct writer writer;
	bool writes;
	uint64_t bytes_max;
	struct unpack_result *result;
	/* tar: what libarchive reads through us */
	int fd;
	int errnum;
	uint64_t zeros; /* the stream's last bytes that are zero */
	struct sha256 sha;
	char block[BLOCK_BYTES];
};

static int
refuse(const char *name, size_t len, enum err_class cls, const char *what, struct err *e)
{
	char shown[NAME_SHOWN_MAX];

	return err_set(e, cls, "the entry '%s' %s", names_show(name, len, shown), what);
}

/* libarchive's complaint, in a sentence about the entry. */
static int
damaged(struct unpack *u, const char *name, size_t len, struct err *e)
{
	const char *why = archive_error_string(u->archive);
	char shown[NAME_SHOWN_MAX];

	if (archive_errno(u->archive) == ENOMEM)
		return err_set(e, ERR_NODE, "out of memory for an archive");
	return err_set(e, ERR_INPUT, "the entry '%s' is damaged: %.200s",
		       names_show(name, len, shown), why ? why : "its data cannot be read");
}

/*
 * The content of the entry that libarchive is at, into out (or nowhere when out is -1).
 * packed: its bytes in the archive, for the bound on the ratio; 0: no such bound.
 */
static int
copy_data(struct unpack *u, const char *name, size_t len, uint64_t packed, int out,
	  uint64_t *size, struct err *e)
{
	char buffer[BLOCK_BYTES];

	*size = 0;
	for (;;) {
		la_ssize_t n = archive_read_data(u->archive, buffer, sizeof(buffer));

		if (n < 0)
			return damaged(u, name, len, e);
		if (n == 0)
			return 0;
		*size += (uint64_t)n;
		u->result->bytes += (uint64_t)n;
		if (u->result->bytes > u->bytes_max)
			return err_set(e, ERR_LIMIT, "the archive unpacks to more than %" PRIu64
				       " MiB", u->bytes_max >> 20);
		if (packed && *size > UNPACK_RATIO_FROM && *size / UNPACK_RATIO_MAX >= packed)
			return refuse(name, len, ERR_LIMIT, "unpacks to more than 1000 times its "
				      "compressed size", e);
		if (out >= 0 && fd_write_all(out, buffer, (size_t)n) < 0)
			return err_sys(e, ERR_NODE, "cannot write an unpacked file");
	}
}

static int
take_file(struct unpack *u, const char *path, uint64_t packed, bool executable, uint64_t *size,
	  struct err *e)
{
	size_t len = strlen(path);
	int fd;

	if (!u->writes)
		return copy_data(u, path, len, packed, -1, size, e);
	fd = write_file(&u->writer, path, e);
	if (fd < 0)
		return -1;
	if (copy_data(u, path, len, packed, fd, size, e) < 0) {
		close(fd);
		return -1;
	}
	return write_file_end(fd, executable, e);
}

static int
take_link(struct unpack *u, const char *path, const char *target, struct err *e)
{
	if (!target)
		return refuse(path, strlen(path), ERR_INPUT, "is a link without a target", e);
	if (names_check_link(path, strlen(path), target, e) < 0)
		return -1;
	return u->writes ? write_link(&u->writer, path, target, e) : 0;
}

static void
finish(struct unpack *u)
{
	archive_read_free(u->archive);
	names_free(u->names);
	write_end(&u->writer);
}

/* ---- zip ---- */

static int
hash_file(struct unpack *u, int fd, struct err *e)
{
	uint8_t digest[SHA256_BYTES];
	struct sha256 sha;
	off_t at = 0;
	ssize_t n;

	sha256_init(&sha);
	while ((n = pread(fd, u->block, sizeof(u->block), at)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, ERR_NODE, "cannot read the zip");
		sha256_update(&sha, u->block, (size_t)n);
		at += n;
	}
	sha256_final(&sha, digest);
	str_hex(digest, sizeof(digest), u->result->sha256);
	return 0;
}

/* libarchive's header is that of the entry x. */
static int
check_same(struct archive_entry *entry, const struct zip_entry *x, struct err *e)
{
	const char *name = archive_entry_pathname(entry);
	size_t len = name ? strlen(name) : 0;
	unsigned type = archive_entry_filetype(entry);
	bool slash = x->raw_len && x->raw[x->raw_len - 1] == '/';
	bool added = !slash && len == x->raw_len + 1u && name[len - 1] == '/'; /* by libarchive */

	if (archive_entry_is_encrypted(entry))
		return refuse(x->raw, x->raw_len, ERR_INPUT, "is encrypted", e);
	if (!name || (len != x->raw_len && !added) || memcmp(name, x->raw, x->raw_len) != 0 ||
	    archive_entry_hardlink(entry) ||
	    (x->kind == NAME_FILE && type != AE_IFREG) || (x->kind == NAME_LINK && type != AE_IFLNK) ||
	    (x->kind == NAME_DIR && type != AE_IFDIR && type != AE_IFREG))
		return refuse(x->raw, x->raw_len, ERR_INPUT, "is described in two different ways", e);
	return 0;
}

static int
take_zip_entry(struct unpack *u, struct archive_entry *entry, const struct zip_entry *x,
	       struct err *e)
{
	char path[NAME_PATH_MAX + 1];
	const char *target = archive_entry_symlink(entry);
	uint64_t size = 0;

	if (check_same(entry, x, e) < 0)
		return -1;
	memcpy(path, x->name, x->name_len); /* bounded by names_add */
	path[x->name_len] = '\0';
	if (x->kind == NAME_DIR)
		return 0;
	if (x->kind == NAME_LINK) {
		if (target && strlen(target) != x->size)
			return refuse(path, x->name_len, ERR_INPUT, "is a damaged link", e);
		return take_link(u, path, target, e);
	}
	/* What an `exec` function begins with runs, whatever the program that zipped it knew of modes. */
	if (take_file(u, path, x->compressed, x->executable || !strcmp(path, "main"), &size, e) < 0)
		return -1;
	if (size != x->size)
		return refuse(path, x->name_len, ERR_INPUT, "does not have the size that it says", e);
	return 0;
}

static int
add_zip_names(struct unpack *u, const struct zip *z, struct err *e)
{
	for (size_t i = 0; i < z->count; i++) {
		const struct zip_entry *x = &z->entries[i];

		if (memchr(x->raw, '\0', x->raw_len))
			return refuse(x->raw, x->raw_len, ERR_INPUT,
				      "has a control character in its name", e);
		if (x->name_len && names_add(u->names, x->name, x->name_len, x->kind, e) < 0)
			return -1;
	}
	return 0;
}

static int
read_zip_entries(struct unpack *u, int fd, const struct zip *z, struct err *e)
{
	struct archive_entry *entry;

	if (lseek(fd, 0, SEEK_SET) < 0)
		return err_sys(e, ERR_NODE, "cannot read the zip");
	if (archive_read_support_format_zip_seekable(u->archive) != ARCHIVE_OK ||
	    archive_read_open_fd(u->archive, fd, BLOCK_BYTES) != ARCHIVE_OK)
		return err_set(e, ERR_INPUT, "the zip cannot be read: %.200s",
			       archive_error_string(u->archive));
	for (size_t i = 0; i < z->count; i++) {
		const struct zip_entry *x = &z->entries[i];

		if (archive_read_next_header(u->archive, &entry) != ARCHIVE_OK)
			return damaged(u, x->raw, x->raw_len, e);
		if (take_zip_entry(u, entry, x, e) < 0)
			return -1;
	}
	if (archive_read_next_header(u->archive, &entry) != ARCHIVE_EOF)
		return err_set(e, ERR_INPUT, "the zip has more entries than its directory says");
	return 0;
}

/* Makes dest/function and lets the writer begin there. */
static int
begin_function(struct unpack *u, int dest, struct err *e)
{
	int root;

	if (mkdirat(dest, "function", 0755) < 0)
		return err_sys(e, ERR_NODE, "cannot make the directory function");
	root = openat(dest, "function", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (root < 0)
		return err_sys(e, ERR_NODE, "cannot open the directory function");
	write_begin(&u->writer, root);
	u->writes = true;
	return write_dirs(&u->writer, u->names, e);
}

static int
run_zip(struct unpack *u, int fd, int dest, struct zip *z, struct err *e)
{
	if (hash_file(u, fd, e) < 0 || zip_read(fd, z, e) < 0 || add_zip_names(u, z, e) < 0)
		return -1;
	if (dest >= 0 && begin_function(u, dest, e) < 0)
		return -1;
	if (read_zip_entries(u, fd, z, e) < 0)
		return -1;
	u->result->entries = z->count;
	u->result->archive_bytes = z->bytes;
	if (!u->writes)
		return 0;
	return write_finish(&u->writer, u->names, e) < 0 || write_finish_root(&u->writer, e) < 0 ? -1
												  : 0;
}

int
unpack_zip(int fd, int dest, struct unpack_result *r, struct err *e)
{
	struct unpack u = { .writer = { .dir = -1 }, .bytes_max = UNPACK_ZIP_BYTES_MAX, .result = r };
	struct zip z = { 0 };
	int rc = -1;

	*r = (struct unpack_result){ 0 };
	u.archive = archive_read_new();
	u.names = names_new(ZIP_ENTRIES_MAX, UNPACK_ZIP_DEPTH_MAX);
	if (u.archive && u.names)
		rc = run_zip(&u, fd, dest, &z, e);
	else
		err_set(e, ERR_NODE, "out of memory for an archive");
	if (u.writes)
		close(u.writer.root);
	finish(&u);
	zip_free(&z);
	return rc;
}

/* ---- tar ---- */

static void
count_zeros(struct unpack *u, size_t len)
{
	size_t i = len;

	while (i && !u->block[i - 1])
		i--;
	u->zeros = i ? len - i : u->zeros + len;
}

/* libarchive's read callback: the next bytes of the stream, hashed on their way. */
static la_ssize_t
read_stream(struct archive *a, void *arg, const void **out)
{
	struct unpack *u = arg;
	ssize_t n;

	do
		n = read(u->fd, u->block, sizeof(u->block));
	while (n < 0 && errno == EINTR);
	if (n < 0) {
		u->errnum = errno;
		archive_set_error(a, errno, "cannot read the stream");
		return -1;
	}
	u->result->archive_bytes += (uint64_t)n;
	/* Headers and padding at most double the content. */
	if (u->result->archive_bytes > 2ull * UNPACK_TAR_BYTES_MAX) {
		archive_set_error(a, EFBIG, "the stream is too long");
		return -1;
	}
	sha256_update(&u->sha, u->block, (size_t)n);
	count_zeros(u, (size_t)n);
	*out = u->block;
	return n;
}

static bool
is_below(const char *path, size_t len, const char *dir)
{
	size_t n = strlen(dir);

	return len >= n && memcmp(path, dir, n) == 0 && (len == n || path[n] == '/');
}

static int
take_tar_entry(struct unpack *u, struct archive_entry *entry, struct err *e)
{
	const char *path = archive_entry_pathname(entry);
	size_t len = path ? strlen(path) : 0;
	char name[NAME_PATH_MAX + 1];
	unsigned type = archive_entry_filetype(entry);
	enum name_kind kind = type == AE_IFDIR ? NAME_DIR : type == AE_IFLNK ? NAME_LINK : NAME_FILE;
	uint64_t size;

	if (!path)
		return err_set(e, ERR_INPUT, "an entry has no name, or one that is not UTF-8");
	if (len && kind == NAME_DIR && path[len - 1] == '/')
		len--;
	if (archive_entry_hardlink(entry))
		return refuse(path, len, ERR_INPUT, "is a hard link", e);
	if (type != AE_IFREG && type != AE_IFDIR && type != AE_IFLNK)
		return refuse(path, len, ERR_INPUT, "is a device, a pipe or a socket", e);
	if (archive_entry_sparse_count(entry))
		return refuse(path, len, ERR_INPUT, "is a sparse file", e);
	if (names_add(u->names, path, len, kind, e) < 0)
		return -1;
	memcpy(name, path, len);
	name[len] = '\0';
	if (!is_below(path, len, "function") && !is_below(path, len, "opt/deps") &&
	    (strcmp(name, "opt") != 0 || kind != NAME_DIR))
		return refuse(path, len, ERR_INPUT, "is not in function/ or opt/deps/", e);
	if (write_dirs(&u->writer, u->names, e) < 0)
		return -1;
	if (kind == NAME_LINK)
		return take_link(u, name, archive_entry_symlink(entry), e);
	if (kind == NAME_FILE)
		return take_file(u, name, 0, archive_entry_perm(entry) & 0111, &size, e);
	return 0;
}

static int
read_tar_entries(struct unpack *u, struct err *e)
{
	struct archive_entry *entry;
	int rc;

	if (archive_read_support_format_tar(u->archive) != ARCHIVE_OK ||
	    archive_read_open(u->archive, u, NULL, read_stream, NULL) != ARCHIVE_OK)
		return err_set(e, ERR_INPUT, "the tar cannot be read: %.200s",
			       archive_error_string(u->archive));
	while ((rc = archive_read_next_header(u->archive, &entry)) == ARCHIVE_OK) {
		u->result->entries++;
		if (take_tar_entry(u, entry, e) < 0)
			return -1;
	}
	if (rc != ARCHIVE_EOF)
		return err_set(e, ERR_INPUT, "the tar is damaged: %.200s",
			       archive_error_string(u->archive));
	return 0;
}

static int
run_tar(struct unpack *u, int dest, struct err *e)
{
	uint8_t digest[SHA256_BYTES];
	const void *rest;
	la_ssize_t n;

	sha256_init(&u->sha);
	write_begin(&u->writer, dest);
	u->writes = true;
	if (read_tar_entries(u, e) < 0)
		return u->errnum ? err_set(e, ERR_NODE, "cannot read the tar: %s",
					   strerror(u->errnum)) : -1;
	/* The padding: a digest is of the whole stream. */
	while ((n = read_stream(u->archive, u, &rest)) > 0)
		;
	if (n < 0)
		return err_set(e, u->errnum ? ERR_NODE : ERR_LIMIT, "the tar cannot be read: %.200s",
			       archive_error_string(u->archive));
	if (u->zeros < 1024)
		return err_set(e, ERR_INPUT, "the tar is cut short");
	sha256_final(&u->sha, digest);
	str_hex(digest, sizeof(digest), u->result->sha256);
	return write_finish(&u->writer, u->names, e);
}

int
unpack_tar(int fd, int dest, struct unpack_result *r, struct err *e)
{
	struct unpack u = { .writer = { .dir = -1 }, .bytes_max = UNPACK_TAR_BYTES_MAX,
			    .result = r, .fd = fd };
	int rc = -1;

	*r = (struct unpack_result){ 0 };
	u.archive = archive_read_new();
	u.names = names_new(UNPACK_TAR_ENTRIES_MAX, UNPACK_TAR_DEPTH_MAX);
	if (u.archive && u.names)
		rc = run_tar(&u, dest, e);
	else
		err_set(e, ERR_NODE, "out of memory for an archive");
	finish(&u);
	return rc;
}
