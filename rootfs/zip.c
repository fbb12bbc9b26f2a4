/*
 * Reading the form of a zip, after PKWARE's APPNOTE.TXT 6.3.10.  All numbers are
 * little-endian.  From the end of the file: the end record (22 bytes and a comment),
 * before it for zip64 a locator (20 bytes) and a second end record (56 bytes or more),
 * before that the directory, before that the entries.
 *
 * Nothing here trusts a number of the file: each offset is checked against what is
 * before and after it, and the directory is read whole only when its place is known to
 * be right.
 */
#include "rootfs/zip.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/fdio.h"

enum {
	END_BYTES = 22,
	LOCATOR_BYTES = 20,
	END64_BYTES = 56,
	CENTRAL_BYTES = 46,
	LOCAL_BYTES = 30,
	COMMENT_MAX = 4096, /* libarchive looks for the end record in the last 16 KiB only */

	FLAG_ENCRYPTED = 0x0001,
	FLAG_DESCRIPTOR = 0x0008,
	FLAG_PATCH = 0x0020,
	FLAG_STRONG = 0x0040,
	FLAG_MASKED = 0x2000,

	EXTRA_ZIP64 = 0x0001,
	EXTRA_UNICODE_PATH = 0x7075,

	SYSTEM_UNIX = 3,
	SYSTEM_MAC = 19,
	DOS_DIRECTORY = 0x10,
};

static uint32_t
u16(const unsigned char *p)
{
	return (uint32_t)(p[0] | p[1] << 8);
}

static uint32_t
u32(const unsigned char *p)
{
	return u16(p) | u16(p + 2) << 16;
}

static uint64_t
u64(const unsigned char *p)
{
	return u32(p) | (uint64_t)u32(p + 4) << 32;
}

/* All len bytes at offset. */
static int
read_at(int fd, uint64_t offset, void *out, size_t len, struct err *e)
{
	char *p = out;

	while (len) {
		ssize_t n = pread(fd, p, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, ERR_NODE, "cannot read the zip");
		if (n == 0)
			return err_set(e, ERR_INPUT, "the zip is truncated");
		p += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

/* ---- the end of the file ---- */

struct end {
	uint64_t at; /* where the end records begin, and the directory must end */
	uint64_t entries, directory_bytes, directory_at;
};

/* The last end record whose comment ends with the file. */
static int
find_end(int fd, uint64_t bytes, uint64_t *at, struct err *e)
{
	unsigned char tail[END_BYTES + COMMENT_MAX], head[4];
	size_t len = bytes < sizeof(tail) ? (size_t)bytes : sizeof(tail);
	bool seen = false;

	if (len < END_BYTES)
		return err_set(e, ERR_INPUT, bytes ? "the file is not a zip" : "the zip is empty");
	if (read_at(fd, bytes - len, tail, len, e) < 0 || read_at(fd, 0, head, 4, e) < 0)
		return -1;
	for (size_t i = len - END_BYTES + 1; i-- > 0;) {
		if (memcmp(tail + i, "PK\5\6", 4) != 0)
			continue;
		if (i + END_BYTES + u16(tail + i + 20) == len) {
			/* Readers that search from the end would stop at the later one. */
			if (seen)
				break;
			*at = bytes - len + i;
			return 0;
		}
		seen = true;
	}
	if (seen)
		return err_set(e, ERR_INPUT, "the zip does not end where it says: something "
			       "follows its end, or its end is cut off");
	if (memcmp(head, "PK\3\4", 4) == 0)
		return err_set(e, ERR_INPUT, "the zip is truncated, or has a comment of more than "
			       "%d bytes", COMMENT_MAX);
	return err_set(e, ERR_INPUT, "the file is not a zip");
}

/* A 32-bit value that zip64 may have moved: all ones there, or equal in both places. */
static bool
same_or_moved(uint64_t narrow, uint64_t ones, uint64_t wide)
{
	return narrow == ones || narrow == wide;
}

static int
read_end64(int fd, const unsigned char *end, struct end *out, struct err *e)
{
	unsigned char locator[LOCATOR_BYTES], wide[END64_BYTES];
	uint64_t at;

	if (out->at < LOCATOR_BYTES)
		return 0;
	if (read_at(fd, out->at - LOCATOR_BYTES, locator, sizeof(locator), e) < 0)
		return -1;
	if (memcmp(locator, "PK\6\7", 4) != 0)
		return 0;
	at = u64(locator + 8);
	if (out->at - LOCATOR_BYTES < END64_BYTES || at > out->at - LOCATOR_BYTES - END64_BYTES)
		return err_set(e, ERR_INPUT, "the zip's zip64 end record is not where it should be");
	if (read_at(fd, at, wide, sizeof(wide), e) < 0)
		return -1;
	if (memcmp(wide, "PK\6\6", 4) != 0 || u64(wide + 4) != out->at - LOCATOR_BYTES - at - 12 ||
	    u32(locator + 4) || u32(wide + 16) || u32(wide + 20) || u64(wide + 24) != u64(wide + 32) ||
	    !same_or_moved(u16(end + 10), UINT16_MAX, u64(wide + 32)) ||
	    !same_or_moved(u32(end + 12), UINT32_MAX, u64(wide + 40)) ||
	    !same_or_moved(u32(end + 16), UINT32_MAX, u64(wide + 48)))
		return err_set(e, ERR_INPUT, "the zip's two end records disagree");
	out->entries = u64(wide + 32);
	out->directory_bytes = u64(wide + 40);
	out->directory_at = u64(wide + 48);
	out->at = at;
	return 0;
}

static int
read_end(int fd, uint64_t bytes, struct end *out, struct err *e)
{
	unsigned char end[END_BYTES];

	if (find_end(fd, bytes, &out->at, e) < 0 || read_at(fd, out->at, end, sizeof(end), e) < 0)
		return -1;
	if ((u16(end + 4) && u16(end + 4) != UINT16_MAX) ||
	    (u16(end + 6) && u16(end + 6) != UINT16_MAX) || u16(end + 8) != u16(end + 10))
		return err_set(e, ERR_INPUT, "the zip is one part of several");
	out->entries = u16(end + 10);
	out->directory_bytes = u32(end + 12);
	out->directory_at = u32(end + 16);
	if (read_end64(fd, end, out, e) < 0)
		return -1;
	if (out->entries > ZIP_ENTRIES_MAX)
		return err_set(e, ERR_LIMIT, "the zip has %" PRIu64 " entries; at most %d are allowed",
			       out->entries, ZIP_ENTRIES_MAX);
	if (out->directory_bytes > out->at || out->directory_at > out->at - out->directory_bytes)
		return err_set(e, ERR_INPUT, "the zip's directory is not inside the file");
	if (out->directory_at + out->directory_bytes != out->at)
		return err_set(e, ERR_INPUT, "the zip does not begin at the start of the file, or "
			       "something stands between its directory and its end");
	if (out->entries == 0)
		return err_set(e, ERR_INPUT, "the zip is empty");
	return 0;
}

/* ---- the directory ---- */

static int
refuse(const struct zip_entry *x, enum err_class cls, const char *what, struct err *e)
{
	char shown[NAME_SHOWN_MAX];

	return err_set(e, cls, "the entry '%s' %s", names_show(x->raw, x->raw_len, shown), what);
}

/* The extra fields: the values that zip64 has moved there, in their fixed order; and a name,
 * which some readers take instead of the entry's own. */
static int
read_extra(struct zip_entry *x, const unsigned char *p, size_t len, struct err *e)
{
	uint64_t *moved[3];
	size_t wanted = 0;

	if (x->size == UINT32_MAX)
		moved[wanted++] = &x->size;
	if (x->compressed == UINT32_MAX)
		moved[wanted++] = &x->compressed;
	if (x->offset == UINT32_MAX)
		moved[wanted++] = &x->offset;
	for (size_t n; len >= 4; p += 4 + n, len -= 4 + n) {
		n = u16(p + 2);
		if (n > len - 4)
			return refuse(x, ERR_INPUT, "has a damaged extra field", e);
		if (u16(p) == EXTRA_ZIP64 && n >= 8 * wanted)
			while (wanted) {
				wanted--;
				*moved[wanted] = u64(p + 4 + 8 * wanted);
			}
		/* A version and a checksum stand before the name. */
		if (u16(p) == EXTRA_UNICODE_PATH &&
		    (n != x->raw_len + 5u || memcmp(p + 9, x->raw, x->raw_len) != 0))
			return refuse(x, ERR_INPUT, "has two different names", e);
	}
	return wanted ? refuse(x, ERR_INPUT, "has no size", e) : 0;
}

/* Kind and x bit from the attributes, of whose systems only some have either. */
static int
read_kind(struct zip_entry *x, unsigned system, uint32_t attributes, struct err *e)
{
	bool slash = x->raw_len && x->raw[x->raw_len - 1] == '/';
	uint32_t mode = system == SYSTEM_UNIX || system == SYSTEM_MAC ? attributes >> 16 : 0;
	bool dos_dir = !system && (attributes & DOS_DIRECTORY);

	x->executable = mode & 0111;
	switch (mode & S_IFMT) {
	case 0:
		x->kind = slash || dos_dir ? NAME_DIR : NAME_FILE;
		break;
	case S_IFREG:
		x->kind = NAME_FILE;
		break;
	case S_IFDIR:
		x->kind = NAME_DIR;
		break;
	case S_IFLNK:
		x->kind = NAME_LINK;
		break;
	default:
		return refuse(x, ERR_INPUT, "is a device, a pipe or a socket", e);
	}
	if (slash && x->kind != NAME_DIR)
		return refuse(x, ERR_INPUT, "has a '/' at the end of its name, but is no directory", e);
	if (x->kind == NAME_DIR && x->size)
		return refuse(x, ERR_INPUT, "is a directory with content", e);
	return 0;
}

/* The entry whose record is at p, len bytes to the end; *used is the record's length. */
static int
read_central(struct zip_entry *x, const unsigned char *p, size_t len, size_t *used, struct err *e)
{
	size_t name, extra;

	if (len < CENTRAL_BYTES || memcmp(p, "PK\1\2", 4) != 0)
		return err_set(e, ERR_INPUT, "the zip's directory is damaged");
	name = u16(p + 28);
	extra = u16(p + 30);
	*used = CENTRAL_BYTES + name + extra + u16(p + 32);
	if (*used > len)
		return err_set(e, ERR_INPUT, "the zip's directory is damaged");
	x->raw = x->name = (const char *)p + CENTRAL_BYTES;
	x->raw_len = (uint16_t)name;
	if (u16(p + 8) & (FLAG_ENCRYPTED | FLAG_STRONG | FLAG_MASKED))
		return refuse(x, ERR_INPUT, "is encrypted", e);
	if ((u16(p + 10) != 0 && u16(p + 10) != 8) || (u16(p + 8) & FLAG_PATCH))
		return refuse(x, ERR_INPUT, "is compressed by a method other than deflate", e);
	if (u16(p + 34) && u16(p + 34) != UINT16_MAX)
		return err_set(e, ERR_INPUT, "the zip is one part of several");
	x->compressed = u32(p + 20);
	x->size = u32(p + 24);
	x->offset = u32(p + 42);
	if (read_extra(x, p + CENTRAL_BYTES + name, extra, e) < 0 ||
	    read_kind(x, p[5], u32(p + 38), e) < 0)
		return -1;
	if (u16(p + 10) == 0 && x->compressed != x->size)
		return refuse(x, ERR_INPUT, "is stored, but has two sizes", e);
	/* "./" before a name is what some tools write for the directory they packed. */
	if (name >= 2 && memcmp(x->name, "./", 2) == 0) {
		x->name += 2;
		name -= 2;
	}
	if (name && x->name[name - 1] == '/')
		name--;
	x->name_len = (uint16_t)name;
	if (!name && (x->raw_len != 2 || x->kind != NAME_DIR))
		return refuse(x, ERR_INPUT, "has no name", e);
	return 0;
}

static int
compare_offsets(const void *a, const void *b)
{
	const struct zip_entry *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int
read_directory(int fd, const struct end *end, struct zip *z, struct err *e)
{
	size_t at = 0;

	if (end->entries > end->directory_bytes / CENTRAL_BYTES)
		return err_set(e, ERR_INPUT, "the zip's directory is damaged");
	z->directory = malloc((size_t)end->directory_bytes);
	z->entries = calloc((size_t)end->entries, sizeof(*z->entries));
	if (!z->directory || !z->entries)
		return err_set(e, ERR_NODE, "out of memory for the directory of a zip");
	if (read_at(fd, end->directory_at, z->directory, (size_t)end->directory_bytes, e) < 0)
		return -1;
	for (; z->count < end->entries; z->count++) {
		size_t used = 0;

		if (read_central(&z->entries[z->count], (unsigned char *)z->directory + at,
				 (size_t)end->directory_bytes - at, &used, e) < 0)
			return -1;
		at += used;
	}
	if (at != end->directory_bytes)
		return err_set(e, ERR_INPUT, "the zip's directory has more entries than it says");
	qsort(z->entries, z->count, sizeof(*z->entries), compare_offsets);
	return 0;
}

/* ---- the entries ---- */

/* Bytes between the end of an entry's data and what follows: a data descriptor (with or
 * without signature, 32 or 64 bits) or nothing. */
static bool
descriptor_fits(uint32_t flags, uint64_t gap)
{
	return gap == 0 ||
	       ((flags & FLAG_DESCRIPTOR) && (gap == 12 || gap == 16 || gap == 20 || gap == 24));
}

/* The header before the entry's data says the same as the directory; its data ends at next. */
static int
check_local(int fd, const struct zip_entry *x, const unsigned char *central, uint64_t next,
	    struct err *e)
{
	unsigned char p[LOCAL_BYTES];
	char name[UINT16_MAX];
	uint64_t data;

	if (next < LOCAL_BYTES || x->offset > next - LOCAL_BYTES)
		return refuse(x, ERR_INPUT, "overlaps with what follows it", e);
	if (read_at(fd, x->offset, p, sizeof(p), e) < 0)
		return -1;
	data = x->offset + LOCAL_BYTES + u16(p + 26) + u16(p + 28);
	if (memcmp(p, "PK\3\4", 4) != 0)
		return refuse(x, ERR_INPUT, "is not where the zip's directory says", e);
	if (data > next || x->compressed > next - data)
		return refuse(x, ERR_INPUT, "overlaps with what follows it", e);
	if (!descriptor_fits(u16(p + 6), next - data - x->compressed))
		return refuse(x, ERR_INPUT, "is followed by bytes that belong to nothing", e);
	if (u16(p + 26) != x->raw_len)
		return refuse(x, ERR_INPUT, "has two different names", e);
	if (read_at(fd, x->offset + LOCAL_BYTES, name, x->raw_len, e) < 0)
		return -1;
	if (memcmp(name, x->raw, x->raw_len) != 0)
		return refuse(x, ERR_INPUT, "has two different names", e);
	/* The method; checksum and sizes where they do not come after the data.  Of the flags
	 * only those count that change what is read: some writers differ in the others. */
	if ((u16(p + 6) & (FLAG_ENCRYPTED | FLAG_PATCH | FLAG_STRONG | FLAG_MASKED)) ||
	    memcmp(p + 8, central + 10, 2) != 0 ||
	    (!(u16(p + 6) & FLAG_DESCRIPTOR) &&
	     (memcmp(p + 14, central + 16, 4) != 0 ||
	      !same_or_moved(u32(p + 18), UINT32_MAX, x->compressed) ||
	      !same_or_moved(u32(p + 22), UINT32_MAX, x->size))))
		return refuse(x, ERR_INPUT, "is described in two different ways", e);
	return 0;
}

static int
check_entries(int fd, const struct zip *z, uint64_t directory_at, struct err *e)
{
	if (z->entries[0].offset != 0)
		return err_set(e, ERR_INPUT, "the zip does not begin at the start of the file");
	for (size_t i = 0; i < z->count; i++) {
		const struct zip_entry *x = &z->entries[i];
		uint64_t next = i + 1 < z->count ? x[1].offset : directory_at;

		if (check_local(fd, x, (const unsigned char *)x->raw - CENTRAL_BYTES, next, e) < 0)
			return -1;
	}
	return 0;
}

void
zip_free(struct zip *z)
{
	free(z->entries);
	free(z->directory);
	*z = (struct zip){ 0 };
}

int
zip_read(int fd, struct zip *z, struct err *e)
{
	struct end end = { 0 };
	struct stat st;

	*z = (struct zip){ 0 };
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return err_set(e, ERR_NODE, "the zip is not a regular file");
	z->bytes = (uint64_t)st.st_size;
	if (z->bytes > ZIP_BYTES_MAX)
		return err_set(e, ERR_LIMIT, "the zip has %" PRIu64 " bytes; at most %d MiB are allowed",
			       z->bytes, ZIP_BYTES_MAX >> 20);
	if (read_end(fd, z->bytes, &end, e) < 0 || read_directory(fd, &end, z, e) < 0 ||
	    check_entries(fd, z, end.directory_at, e) < 0) {
		zip_free(z);
		return -1;
	}
	return 0;
}
