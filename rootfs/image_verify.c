/*
 * The worker's side of image-verify: each layer of a list is unpacked from its blob again, with
 * the layers below it as they are kept, and compared with what is kept.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/fdio.h"
#include "rootfs/image_unpack.h"
#include "rootfs/layer_compare.h"
#include "rootfs/layer_write.h"
#include "rootfs/tar_stream.h"
#include "rootfs/unpack_names.h"

#define NEW_LAYER "again"
enum {
	OPEN_DIR = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
	WORDS_MAX = IMAGE_LAYERS_MAX + 2, /* blob, diff id, and the keys */
};

struct verify {
	const struct image_unpack *u;
	const char *key; /* of the layer at work */
	uint64_t total;
	void (*fault)(const char *sentence);
};

static void
on_bytes(void *arg, uint64_t bytes)
{
	const struct verify *v = arg;
	char what[24];

	snprintf(what, sizeof what, "layer %.12s", v->key);
	v->u->blobs.progress(what, bytes, v->total);
}

static void
on_difference(void *arg, const char *path, const char *what)
{
	const struct verify *v = arg;
	char shown[NAME_SHOWN_MAX], sentence[NAME_SHOWN_MAX + 160];

	snprintf(sentence, sizeof sentence, "the unpacked layer %.64s: '%s' %s", v->key,
		 *path ? names_show(path, strlen(path), shown) : "/", what);
	v->fault(sentence);
}

static int
unpack_again(struct verify *v, int blob, const struct layer_stack *stack, const char *diff,
	     struct err *e)
{
	struct tar_stream *t = tar_open(blob, on_bytes, v, e);
	struct layer_writer writer;
	char got[SHA256_HEX_MAX];
	struct tar_entry x;
	int rc = t ? 1 : -1;

	layer_write_begin(&writer, stack, v->u->owners);
	while (rc > 0 && (rc = tar_next(t, &x, e)) > 0)
		rc = layer_write_entry(&writer, t, &x, e) ? -1 : 1;
	if (rc == 0)
		rc = layer_write_finish(&writer, e) || tar_end(t, got, e) ? -1 : 0;
	if (rc == 0 && strcmp(got, diff) != 0)
		rc = err_set(e, ERR_INPUT, "it unpacks to another diff id");
	layer_write_end(&writer);
	tar_free(t);
	return rc;
}

/* dirs: [0] is made here; the kept layers from [1] on, the one in question first. */
static int
verify_layer(struct verify *v, char *const *word, int dirs[WORDS_MAX], size_t count, struct err *e)
{
	int stack_dirs[WORDS_MAX];
	const struct layer_stack stack = { stack_dirs, count - 2 };
	CLEAN_FD int blob = blobs_open(&v->u->blobs, word[0]);
	char path[96];
	struct stat st;

	for (size_t i = 2; i < count; i++) {
		snprintf(path, sizeof path, "layers/%.64s", word[i]);
		dirs[i - 1] = openat(v->u->blobs.store, path, OPEN_DIR);
		if (dirs[i - 1] < 0)
			return i == 2 ? err_sys(e, ERR_INPUT, "it cannot be opened")
				      : err_sys(e, ERR_INPUT, "the layer %.12s... below it", word[i]);
	}
	if (blob < 0 || fstat(blob, &st))
		return err_sys(e, ERR_INPUT, "its blob sha256:%.64s", word[0]);
	v->total = (uint64_t)st.st_size;
	if (mkdirat(v->u->blobs.temp, NEW_LAYER, 0755) ||
	    (dirs[0] = openat(v->u->blobs.temp, NEW_LAYER, OPEN_DIR)) < 0)
		return err_sys(e, ERR_NODE, "make a directory in the image store");
	stack_dirs[0] = dirs[0];
	memcpy(stack_dirs + 1, dirs + 2, (count - 3) * sizeof *dirs);
	return unpack_again(v, blob, &stack, word[1], e) ||
	       layer_compare(dirs[1], dirs[0], on_difference, v, e) ? -1 : 0;
}

static int
verify_line(struct verify *v, char *line, struct err *e)
{
	char *word[WORDS_MAX], sentence[700];
	int dirs[WORDS_MAX];
	size_t count = 0;
	int rc;

	for (char *p = line; p && *p && count < WORDS_MAX;) {
		word[count++] = p;
		p = strpbrk(p, " \n");
		if (p)
			*p++ = '\0';
		if (!image_is_digest(word[count - 1]))
			count = WORDS_MAX + 1;
	}
	if (count < 3 || count > WORDS_MAX)
		return err_set(e, ERR_NODE, "the list of layers is damaged");
	for (size_t i = 0; i < WORDS_MAX; i++)
		dirs[i] = -1;
	v->key = word[2];
	rc = verify_layer(v, word, dirs, count, e);
	for (size_t i = 0; i < WORDS_MAX; i++)
		fd_close(&dirs[i]);
	if (rc && e->cls != ERR_NODE) {
		snprintf(sentence, sizeof sentence, "the unpacked layer %.64s: %s", v->key, e->text);
		v->fault(sentence);
		rc = 0;
	}
	return dir_remove(v->u->blobs.temp, NEW_LAYER, rc ? NULL : e) || rc ? -1 : 0;
}

int
image_verify(const struct image_unpack *u, void (*fault)(const char *sentence), struct err *e)
{
	struct verify v = { .u = u, .fault = fault };
	FILE *list = fdopen(u->source, "r");
	char *line = NULL;
	size_t room = 0;
	int rc = list ? 0 : err_sys(e, ERR_NODE, "read the list of layers");

	while (rc == 0 && getline(&line, &room, list) > 0)
		rc = verify_line(&v, line, e);
	free(line);
	return rc;
}
