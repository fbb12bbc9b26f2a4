/*
 * Layers from the lowest up.  One that is there already, under its diff id or (if it depends
 * on those below) under its chain id, is not unpacked again.
 */
#include "rootfs/image_unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/str.h"
#include "rootfs/image_source.h"
#include "rootfs/layer_write.h"
#include "rootfs/oci.h"
#include "rootfs/tar_stream.h"

#define NEW_LAYER "layers/new"
enum {
	OPEN_DIR = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
	ACCOUNTS_BYTES_MAX = 1 << 20, /* of /etc/passwd */
};

struct work {
	const struct image_unpack *u;
	struct image *image;
	/* The descriptors of layers, the topmost first, from [IMAGE_LAYERS_MAX - count] on. */
	int dirs[IMAGE_LAYERS_MAX];
	unsigned count;
	char what[32];
	uint64_t total;
};

static struct layer_stack
stack_of(const struct work *w)
{
	return (struct layer_stack){ w->dirs + IMAGE_LAYERS_MAX - w->count, w->count };
}

static void
push(struct work *w, int dir)
{
	w->dirs[IMAGE_LAYERS_MAX - ++w->count] = dir;
}

static int
open_layer(const struct work *w, const char *key)
{
	char path[96];
	int fd;

	snprintf(path, sizeof path, "layers/%.64s", key);
	fd = openat(w->u->blobs.temp, path, OPEN_DIR);
	return fd >= 0 ? fd : openat(w->u->blobs.store, path, OPEN_DIR);
}

/* ---- A layer ---- */

/* Of a layer that came without: by how it begins. */
static int
find_media(const struct work *w, struct image_layer *l, struct err *e)
{
	static const struct {
		const char *magic, *suffix;
		size_t len;
	} known[] = { { "\x1f\x8b", "+gzip", 2 },
		      { "\x28\xb5\x2f\xfd", "+zstd", 4 },
		      { "\xfd" "7zXZ", "+xz", 5 } };
	CLEAN_FD int fd = blobs_open(&w->u->blobs, l->blob);
	const char *suffix = "";
	char head[8] = "";

	if (fd < 0 || fd_read_all(fd, head, sizeof head) < 0)
		return err_sys(e, ERR_NODE, "read the blob of a layer");
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (!memcmp(head, known[i].magic, known[i].len))
			suffix = known[i].suffix;
	snprintf(l->media, sizeof l->media, "application/vnd.oci.image.layer.v1.tar%s", suffix);
	return 0;
}

static void
on_bytes(void *arg, uint64_t bytes)
{
	const struct work *w = arg;

	w->u->blobs.progress(w->what, bytes, w->total);
}

static int
write_entries(struct work *w, struct tar_stream *t, struct layer_writer *writer, struct err *e)
{
	struct tar_entry x;
	int rc;

	(void)w;
	while ((rc = tar_next(t, &x, e)) > 0)
		if (layer_write_entry(writer, t, &x, e))
			return -1;
	return rc < 0 ? -1 : layer_write_finish(writer, e);
}

/* The tar in fd, into the directory that is on top of the stack. */
static int
write_layer(struct work *w, int fd, struct image_layer *l, bool *depends, struct err *e)
{
	struct tar_stream *t = tar_open(fd, on_bytes, w, e);
	const struct layer_stack stack = stack_of(w);
	struct layer_writer writer;
	char diff[SHA256_HEX_MAX];
	int rc = -1;

	if (!t)
		return -1;
	layer_write_begin(&writer, &stack, w->u->owners);
	if (!write_entries(w, t, &writer, e) && !tar_end(t, diff, e))
		rc = 0;
	if (rc == 0 && !l->diff[0])
		memcpy(l->diff, diff, sizeof l->diff);
	else if (rc == 0 && strcmp(l->diff, diff) != 0)
		rc = err_set(e, ERR_INPUT, "it unpacks to sha256:%s, which is not the diff id sha256:%s",
			     diff, l->diff);
	*depends = writer.depends;
	w->image->devices += writer.devices;
	w->image->attributes += writer.attributes;
	w->image->owners += writer.foreign_owners;
	layer_write_end(&writer);
	tar_free(t);
	return rc;
}

static int
unpack_layer(struct work *w, struct image_layer *l, const char *below, struct err *e)
{
	CLEAN_FD int fd = blobs_open(&w->u->blobs, l->blob);
	char to[96], chain[SHA256_HEX_MAX];
	bool depends = false;
	int dir;

	if (fd < 0)
		return err_sys(e, ERR_NODE, "open its blob");
	if (mkdirat(w->u->blobs.temp, NEW_LAYER, 0755) ||
	    (dir = openat(w->u->blobs.temp, NEW_LAYER, OPEN_DIR)) < 0)
		return err_sys(e, ERR_NODE, "make a directory in the image store");
	push(w, dir);
	if (write_layer(w, fd, l, &depends, e))
		return -1;
	oci_chain(below, l->diff, chain);
	memcpy(l->key, depends ? chain : l->diff, sizeof l->key);
	snprintf(to, sizeof to, "layers/%s", l->key);
	if (renameat(w->u->blobs.temp, NEW_LAYER, w->u->blobs.temp, to))
		return err_sys(e, ERR_NODE, "rename a layer");
	return 0;
}

static int
take_layer(struct work *w, unsigned k, char chain[SHA256_HEX_MAX], struct err *e)
{
	struct image_layer *l = &w->image->layers[k];
	const char *below = k ? chain : NULL;
	char own[SHA256_HEX_MAX];
	int dir = -1;

	snprintf(w->what, sizeof w->what, "layer %u of %u", k + 1, w->image->layer_count);
	w->total = l->blob_bytes;
	if (!l->media[0] && find_media(w, l, e))
		return -1;
	if (l->diff[0]) {
		oci_chain(below, l->diff, own);
		memcpy(l->key, own, sizeof l->key);
		dir = open_layer(w, own);
	}
	if (dir < 0 && l->diff[0]) {
		memcpy(l->key, l->diff, sizeof l->key);
		dir = open_layer(w, l->diff);
	}
	if (dir >= 0)
		push(w, dir);
	else if (unpack_layer(w, l, below, e))
		return err_wrap(e, "layer %u", k + 1);
	if (layer_is_opaque(w->dirs[IMAGE_LAYERS_MAX - w->count]))
		w->image->base = k;
	oci_chain(below, l->diff, own);
	memcpy(chain, own, sizeof own);
	return 0;
}

/* ---- The user ---- */

/* The text of a file of the image. */
static int
slurp(struct work *w, const char *path, struct buf *out)
{
	const struct layer_stack stack = stack_of(w);
	struct stat st;
	CLEAN_FD int fd = layer_lookup(&stack, path, &st);

	out->max = ACCOUNTS_BYTES_MAX + (64 << 10);
	return fd < 0 || !S_ISREG(st.st_mode) ? -1 : fd_slurp(fd, path, ACCOUNTS_BYTES_MAX, out, NULL);
}

/* Field n (from 0) of a line of /etc/passwd or /etc/group, as an id; -1. */
static int64_t
id_field(const char *line, unsigned n)
{
	int64_t id;
	char text[16];
	size_t len;

	while (n--) {
		line += strcspn(line, ":\n");
		if (*line != ':')
			return -1;
		line++;
	}
	len = strcspn(line, ":\n");
	if (len >= sizeof text)
		return -1;
	memcpy(text, line, len);
	text[len] = '\0';
	return str_int(text, 0, IMAGE_ID_NOBODY, &id) ? -1 : id;
}

/* The line whose name is word, or whose id (field 2) is; NULL. */
static const char *
find_line(const char *text, const char *word, int64_t id)
{
	size_t len = strlen(word);

	for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		if ((!strncmp(line, word, len) && line[len] == ':') || (id >= 0 && id_field(line, 2) == id))
			return line;
	return NULL;
}

/* "name", "7", "name:group", "7:8" */
static int
find_user(struct work *w, struct err *e)
{
	struct image *i = w->image;
	char user[128], *group;
	struct buf passwd = { 0 }, groups = { 0 };
	const char *line;
	int rc = 0;

	if (!i->user)
		return 0;
	if (str_copy(user, sizeof user, i->user))
		return err_set(e, ERR_INPUT, "the image's user has a name that is too long");
	group = strchr(user, ':');
	if (group)
		*group++ = '\0';
	slurp(w, "etc/passwd", &passwd);
	slurp(w, "etc/group", &groups);
	str_int(user, 0, IMAGE_ID_NOBODY, &i->uid);
	line = find_line(passwd.data ? passwd.data : "", user, i->uid);
	if (i->uid < 0 && line)
		i->uid = id_field(line, 2);
	i->gid = line && !group ? id_field(line, 3) : group ? -1 : 0;
	if (group && str_int(group, 0, IMAGE_ID_NOBODY, &i->gid)) {
		line = find_line(groups.data ? groups.data : "", group, -1);
		i->gid = line ? id_field(line, 2) : -1;
	}
	if (i->uid < 0)
		rc = err_set(e, ERR_INPUT, "the image's user '%.60s' is not in its /etc/passwd, and no id "
			     "up to %u", user, IMAGE_ID_NOBODY);
	else if (i->gid < 0)
		rc = err_set(e, ERR_INPUT, "the group of the image's user '%.60s' is not in its /etc/group, "
			     "and no id up to %u", i->user, IMAGE_ID_NOBODY);
	buf_free(&passwd);
	buf_free(&groups);
	return rc;
}

/* ---- The image ---- */

int
image_unpack(const struct image_unpack *u, struct image *i, struct err *e)
{
	struct work *w = calloc(1, sizeof *w);
	char chain[SHA256_HEX_MAX] = "";
	struct image_source s = { 0 };
	int rc = -1;

	memset(i, 0, sizeof *i);
	if (!w)
		return err_set(e, ERR_NODE, "no memory for an image");
	w->u = u;
	w->image = i;
	if ((mkdirat(u->blobs.temp, "blobs", 0755) || mkdirat(u->blobs.temp, "layers", 0755)) &&
	    errno != EEXIST)
		err_sys(e, ERR_NODE, "make a directory in the image store");
	else
		rc = source_open(&s, u->source, u->broker, &u->blobs, e) || oci_resolve(&s, u->select, i, e);
	for (unsigned k = 0; rc == 0 && k < i->layer_count; k++)
		rc = take_layer(w, k, chain, e);
	if (rc == 0)
		rc = oci_complete(&s, i, e) || find_user(w, e) ? -1 : 0;
	for (unsigned k = 0; k < w->count; k++)
		close(w->dirs[IMAGE_LAYERS_MAX - 1 - k]);
	source_free(&s);
	free(w);
	return rc ? -1 : 0;
}
