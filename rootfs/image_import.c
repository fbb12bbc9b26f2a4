#include "rootfs/image_import.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "rootfs/image_worker.h"

int
image_import(struct image_store *s, const struct image_import *m, struct image *i, struct err *e)
{
	const struct image_worker worker = {
		.program = m->program,
		.verb = "image",
		.word = m->select ? m->select : m->name ? m->name : "",
		.source = m->source,
		.progress = m->progress,
		.arg = m->arg,
	};
	struct buf text = { .max = IMAGE_RECORD_MAX + 65536 };
	char name[STORE_TEMP_MAX];
	CLEAN_FD int temp = -1;
	int rc;

	memset(i, 0, sizeof *i);
	if (m->name && image_check_name(m->name, e))
		return -1;
	rc = image_worker_run(&worker, s, &temp, name, &text, e);
	if (rc == 0)
		rc = image_parse(i, text.data ? text.data : "", text.len, e);
	if (rc == 0)
		rc = m->name ? store_commit(s, temp, m->name, i, e) : store_commit_layers(s, temp, i, e);
	if (name[0])
		store_discard(s, name);
	buf_free(&text);
	return rc;
}

/* ---- Verifying ---- */

/* "BLOB DIFF KEY" and the keys below it, the topmost first: a line of what the worker reads. */
static int
put_layer(struct buf *out, const struct image *i, unsigned k)
{
	const struct image_layer *l = &i->layers[k];

	buf_printf(out, "%s %s %s", l->blob, l->diff, l->key);
	while (k--)
		buf_printf(out, " %s", i->layers[k].key);
	return buf_puts(out, "\n");
}

/* Whether a line for the key is there; there are not many. */
static bool
is_listed(const struct buf *list, const char *key)
{
	char middle[SHA256_HEX_MAX + 2];

	/* The third word of a line: after two others, or at its end. */
	snprintf(middle, sizeof middle, " %s", key);
	for (const char *line = list->data; line && *line; line = strchr(line, '\n') + 1)
		if (!strncmp(line + 2 * SHA256_HEX_MAX - 1, middle, SHA256_HEX_MAX))
			return true;
	return false;
}

static int
list_layers(struct image_store *s, struct buf *out, struct err *e)
{
	static struct image image; /* large */
	char **names = NULL;
	size_t count = 0;
	int rc = store_names(s, &names, &count, e);

	for (size_t n = 0; rc == 0 && n < count; n++) {
		rc = store_image(s, names[n], &image, e);
		if (rc && e->cls == ERR_NOT_FOUND)
			rc = 0; /* forgotten meanwhile; then it has no layers here */
		for (unsigned k = 0; rc == 0 && k < image.layer_count; k++)
			if (!is_listed(out, image.layers[k].key) && put_layer(out, &image, k))
				rc = err_set(e, ERR_NODE, "no memory for the list of layers");
		image_free(&image);
	}
	store_names_free(names, count);
	return rc;
}

static int
spool(struct image_store *s, const struct buf *list, struct err *e)
{
	int fd = openat(s->dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd >= 0 && (!list->len || !fd_write_all(fd, list->data, list->len)) && !lseek(fd, 0, SEEK_SET))
		return fd;
	err_sys(e, ERR_NODE, "make a file in %.200s", s->path);
	fd_close(&fd);
	return -1;
}

int
image_verify_layers(struct image_store *s, const char *program,
		    void (*progress)(void *arg, const char *what, uint64_t done, uint64_t total),
		    void (*fault)(void *arg, const char *sentence), void *arg, uint64_t *faults,
		    struct err *e)
{
	struct image_worker worker = { .program = program, .verb = "verify", .word = "layers",
				       .progress = progress, .arg = arg };
	struct buf list = { .max = 64 << 20 }, text = { .max = 4 << 20 };
	char name[STORE_TEMP_MAX] = "";
	CLEAN_FD int temp = -1;
	int rc = list_layers(s, &list, e);

	worker.source = rc ? -1 : spool(s, &list, e);
	rc = worker.source < 0 ? -1 : image_worker_run(&worker, s, &temp, name, &text, e);
	for (char *line = text.data, *end; rc == 0 && line && (end = strchr(line, '\n')); line = end + 1) {
		*end = '\0';
		fault(arg, line);
		++*faults;
	}
	if (name[0])
		store_discard(s, name);
	fd_close(&worker.source);
	buf_free(&list);
	buf_free(&text);
	return rc;
}
