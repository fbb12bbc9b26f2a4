#include "rootfs/image_source.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/str.h"
#include "rootfs/image.h"
#include "rootfs/tar_stream.h"
#include "rootfs/unpack_names.h"

/* ---- Names in an archive ---- */

static const char *
without_dots(const char *name)
{
	for (;;) {
		if (name[0] == '.' && name[1] == '/')
			name += 2;
		else if (name[0] == '/')
			name++;
		else
			return name;
	}
}

static bool
is_root(const char *name)
{
	return !*without_dots(name) || !strcmp(name, ".");
}

/* Whether a tar whose first entry has this name is an image archive: no root directory has
 * such names. */
static bool
is_archive_name(const char *name)
{
	static const char *const names[] = { "oci-layout", "index.json", "manifest.json",
					     "repositories", "blobs", "blobs/" };
	size_t hex;

	name = without_dots(name);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (!strcmp(name, names[i]))
			return true;
	if (str_starts(name, "blobs/sha256"))
		return true;
	hex = strspn(name, "0123456789abcdef");
	return hex == 64 && (name[64] == '/' || !strcmp(name + 64, ".json") || !strcmp(name + 64, ".tar"));
}

static struct source_member *
find_member(struct image_source *s, const char *name)
{
	name = without_dots(name);
	for (size_t i = 0; i < s->member_count; i++)
		if (!strcmp(s->members[i].name, name))
			return &s->members[i];
	return NULL;
}

/* target, which stands in name's directory if relative, as a name of the archive. */
static void
resolve(const char *name, const char *target, bool relative, char out[SOURCE_NAME_MAX + 1])
{
	char parts[2 * SOURCE_NAME_MAX + 4];
	const char *slash = strrchr(name, '/');
	size_t at = 0;

	snprintf(parts, sizeof parts, "%.*s%s", relative && slash ? (int)(slash - name) + 1 : 0, name,
		 without_dots(target));
	out[0] = '\0';
	for (const char *p = parts; *p;) {
		size_t len = strcspn(p, "/");

		if (len == 2 && p[0] == '.' && p[1] == '.') {
			while (at && out[at - 1] != '/')
				at--;
			at -= at > 0;
		} else if (len && !(len == 1 && *p == '.') && at + len + 1 < SOURCE_NAME_MAX) {
			if (at)
				out[at++] = '/';
			memcpy(out + at, p, len);
			at += len;
		}
		out[at] = '\0';
		p += len + (p[len] == '/');
	}
}

/* ---- Reading an archive ---- */

static int
copy_member(struct image_source *s, struct tar_stream *t, struct source_member *m, struct err *e)
{
	static const char zeros[4096];
	struct blob_write w;
	const void *data;
	uint64_t at;
	size_t len;
	int rc;

	if (blob_begin(s->blobs, &w, e))
		return -1;
	while ((rc = tar_data(t, &data, &len, &at, e)) > 0) {
		while (rc > 0 && w.bytes < at) /* a hole */
			if (blob_put(&w, zeros, at - w.bytes < sizeof zeros ? (size_t)(at - w.bytes)
									    : sizeof zeros, e))
				rc = -1;
		if (rc < 0 || blob_put(&w, data, len, e)) {
			rc = -1;
			break;
		}
	}
	if (rc < 0) {
		blob_drop(s->blobs, &w);
		return -1;
	}
	m->bytes = w.bytes;
	return blob_end(s->blobs, &w, m->hex, e);
}

static int
take_member(struct image_source *s, struct tar_stream *t, const struct tar_entry *x, struct err *e)
{
	const char *name = without_dots(x->name);
	char shown[NAME_SHOWN_MAX];
	struct source_member *m;

	if (x->kind != TAR_FILE && x->kind != TAR_LINK && x->kind != TAR_HARDLINK)
		return 0;
	names_show(name, strlen(name), shown);
	if (strlen(name) > SOURCE_NAME_MAX)
		return err_set(e, ERR_INPUT, "the member '%s' has a name of more than %d bytes", shown,
			       SOURCE_NAME_MAX);
	if (s->member_count == SOURCE_MEMBERS_MAX)
		return err_set(e, ERR_LIMIT, "the archive has more than %d files", SOURCE_MEMBERS_MAX);
	if (find_member(s, name))
		return err_set(e, ERR_INPUT, "the member '%s' is there twice", shown);
	m = &s->members[s->member_count];
	*m = (struct source_member){ 0 };
	snprintf(m->name, sizeof m->name, "%s", name);
	if (x->kind == TAR_FILE) {
		if (copy_member(s, t, m, e))
			return -1;
	} else {
		if (!x->target || strlen(x->target) > SOURCE_NAME_MAX)
			return err_set(e, ERR_INPUT, "the member '%s' is a link to nothing", shown);
		resolve(name, x->target, x->kind == TAR_LINK, m->alias);
	}
	s->member_count++;
	return 0;
}

struct position {
	const struct blobs *blobs;
	uint64_t total;
};

static void
on_bytes(void *arg, uint64_t bytes)
{
	const struct position *p = arg;

	p->blobs->progress("archive", bytes, p->total);
}

/* 1: an image archive, taken; 0: another tar. */
static int
read_archive(struct image_source *s, int fd, uint64_t total, struct err *e)
{
	struct position position = { s->blobs, total };
	struct tar_stream *t = tar_open(fd, on_bytes, &position, e);
	struct tar_entry x;
	bool known = false;
	int rc = t ? 1 : -1;

	while (rc > 0 && (rc = tar_next(t, &x, e)) > 0) {
		if (!known && !is_root(x.name)) {
			if (!is_archive_name(x.name)) {
				tar_free(t);
				return 0;
			}
			known = true;
		}
		rc = take_member(s, t, &x, e) ? -1 : 1;
	}
	tar_free(t);
	return rc < 0 ? -1 : known;
}

/* A pipe is read only once: into a file without a name. */
static int
spool(struct image_source *s, int fd, struct err *e)
{
	CLEAN_FD int file = openat(s->blobs->temp, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	static char block[256 << 10];
	uint64_t bytes = 0;
	ssize_t n;

	if (file < 0)
		return err_sys(e, ERR_NODE, "make a file in the image store");
	while ((n = read(fd, block, sizeof block)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, ERR_NODE, "read the archive");
		if (fd_write_all(file, block, (size_t)n))
			return err_sys(e, ERR_NODE, "write into the image store");
		s->blobs->progress("input", bytes += (uint64_t)n, 0);
	}
	return fd_steal(&file);
}

static int
open_tar(struct image_source *s, int fd, struct err *e)
{
	uint64_t total;
	off_t end = lseek(fd, 0, SEEK_END);
	int rc;

	if (end < 0 || lseek(fd, 0, SEEK_SET) < 0)
		return err_sys(e, ERR_NODE, "read the archive");
	total = (uint64_t)end;
	if (!total)
		return err_set(e, ERR_INPUT, "it is empty");
	rc = read_archive(s, fd, total, e);
	if (rc < 0)
		return -1;
	if (rc == 0) {
		s->kind = SOURCE_ROOTFS;
		return lseek(fd, 0, SEEK_SET) < 0
			       ? err_sys(e, ERR_NODE, "read the archive")
			       : blobs_copy(s->blobs, fd, "archive", total, s->rootfs, &s->rootfs_bytes, e);
	}
	if (find_member(s, "index.json") && find_member(s, "oci-layout"))
		s->kind = SOURCE_LAYOUT;
	else if (find_member(s, "manifest.json"))
		s->kind = SOURCE_DOCKER;
	else
		return err_set(e, ERR_INPUT, "the archive has blobs, but no index.json and no manifest.json");
	return 0;
}

int
source_open(struct image_source *s, int fd, int broker, const struct blobs *blobs, struct err *e)
{
	struct stat st;
	CLEAN_FD int file = -1;

	*s = (struct image_source){ .kind = SOURCE_LAYOUT, .blobs = blobs, .broker = -1 };
	if (fstat(fd, &st))
		return err_sys(e, ERR_NODE, "read the image");
	if (S_ISDIR(st.st_mode)) {
		s->broker = broker;
		return 0;
	}
	s->members = calloc(SOURCE_MEMBERS_MAX, sizeof *s->members);
	if (!s->members)
		return err_set(e, ERR_NODE, "no memory for the image's parts");
	if (S_ISREG(st.st_mode))
		return open_tar(s, fd, e);
	file = spool(s, fd, e);
	return file < 0 ? -1 : open_tar(s, file, e);
}

void
source_free(struct image_source *s)
{
	free(s->members);
	s->members = NULL;
}

/* ---- Parts of it ---- */

/* A file of the directory, by the broker. */
static int
ask(struct image_source *s, const char *name, struct err *e)
{
	int fd = -1;

	if (send(s->broker, name, strlen(name), MSG_NOSIGNAL) > 0)
		fd = fd_receive(s->broker, 0);
	return fd < 0 ? err_set(e, ERR_INPUT, "the directory has no file %.100s that can be read", name)
		      : fd;
}

int
source_member(struct image_source *s, const char *name, char hex[SHA256_HEX_MAX], uint64_t *bytes,
	      struct err *e)
{
	struct source_member *m = find_member(s, name);
	char shown[NAME_SHOWN_MAX];

	for (int links = 0; m && !m->hex[0] && links < 8; links++)
		m = find_member(s, m->alias);
	if (!m || !m->hex[0])
		return err_set(e, ERR_INPUT, "the archive has no file '%s'",
			       names_show(name, strlen(name), shown));
	memcpy(hex, m->hex, SHA256_HEX_MAX);
	*bytes = m->bytes;
	return 0;
}

int
source_text(struct image_source *s, const char *name, struct buf *out, struct err *e)
{
	char hex[SHA256_HEX_MAX];
	CLEAN_FD int fd = -1;
	uint64_t bytes;

	if (s->broker < 0)
		return source_member(s, name, hex, &bytes, e) ? -1
			: blobs_slurp(s->blobs, hex, SOURCE_TEXT_MAX, out, e);
	fd = ask(s, name, e);
	out->max = SOURCE_TEXT_MAX + (64 << 10);
	return fd < 0 ? -1 : fd_slurp(fd, name, SOURCE_TEXT_MAX, out, e);
}

int
source_blob(struct image_source *s, const char *what, const char *hex, int64_t bytes, struct err *e)
{
	char name[SOURCE_NAME_MAX + 1], got[SHA256_HEX_MAX];
	uint64_t got_bytes = 0;
	int there = blobs_open(s->blobs, hex);
	struct stat st;

	snprintf(name, sizeof name, "blobs/sha256/%.64s", hex);
	if (there >= 0) {
		/* Of an earlier import, or of this archive; its name is its digest. */
		got_bytes = fstat(there, &st) ? 0 : (uint64_t)st.st_size;
		memcpy(got, hex, SHA256_HEX_MAX);
		close(there);
	} else if (s->broker >= 0) {
		CLEAN_FD int fd = ask(s, name, e);

		if (fd < 0 || blobs_copy(s->blobs, fd, what, bytes > 0 ? (uint64_t)bytes : 0, got, &got_bytes, e))
			return -1;
	} else if (source_member(s, name, got, &got_bytes, e)) {
		return -1;
	}
	if (strcmp(got, hex) != 0)
		return err_set(e, ERR_INPUT, "the %s sha256:%.64s has the digest sha256:%.64s", what, hex, got);
	if (bytes >= 0 && (uint64_t)bytes != got_bytes)
		return err_set(e, ERR_INPUT, "the %s sha256:%.64s has %" PRIu64 " bytes, not the %" PRId64
			       " that its descriptor says", what, hex, got_bytes, bytes);
	return 0;
}
