#include "rootfs/store_steps.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/str.h"
#include "rootfs/store_private.h"

#define FIRST_WORD "pratai-step-1"
enum { RECORD_MAX = 4096, WORDS = 7 };

/* FIRST_WORD BLOB DIFF KEY BYTES MEDIA CREATED, spaces between; in place. */
static int
parse(struct store_step *step, char *text)
{
	struct image_layer *l = &step->layer;
	char *word[WORDS];
	int64_t bytes;

	for (int i = 0; i < WORDS; i++) {
		word[i] = text;
		text += strcspn(text, " \n");
		if (!*text)
			return -1;
		*text++ = '\0';
	}
	if (*text || strcmp(word[0], FIRST_WORD) || !image_is_digest(word[1]) || !image_is_digest(word[2]) ||
	    !image_is_digest(word[3]) || str_int(word[4], 0, INT64_MAX, &bytes) ||
	    str_copy(l->media, sizeof l->media, word[5]) ||
	    str_copy(step->created, sizeof step->created, word[6]))
		return -1;
	l->blob_bytes = (uint64_t)bytes;
	memcpy(l->blob, word[1], sizeof l->blob);
	memcpy(l->diff, word[2], sizeof l->diff);
	memcpy(l->key, word[3], sizeof l->key);
	return 0;
}

static bool
is_there(struct image_store *s, const char *part, const char *digest)
{
	char path[STORE_PATH_MAX];

	snprintf(path, sizeof path, "%s/%.64s", part, digest);
	return !faccessat(s->dir, path, F_OK, AT_SYMLINK_NOFOLLOW);
}

int
store_step_find(struct image_store *s, const char *key, struct store_step *step, struct err *e)
{
	struct buf text = { .max = RECORD_MAX + 65536 };
	char path[STORE_PATH_MAX];
	int rc;

	memset(step, 0, sizeof *step);
	snprintf(path, sizeof path, "builds/%.64s", key);
	rc = file_slurp(s->dir, path, RECORD_MAX, &text, e);
	if (rc && e->cls == ERR_NOT_FOUND) {
		err_clear(e);
		rc = 0;
	} else if (rc == 0) {
		/* One that is damaged is as good as none. */
		rc = text.len && strlen(text.data) == text.len && !parse(step, text.data) &&
				     is_there(s, "blobs/sha256", step->layer.blob) &&
				     is_there(s, "layers", step->layer.key)
			     ? 1 : 0;
	}
	buf_free(&text);
	return rc;
}

int
store_step_put(struct image_store *s, const char *key, const struct store_step *step, struct err *e)
{
	const struct image_layer *l = &step->layer;
	char path[STORE_PATH_MAX], text[RECORD_MAX];

	snprintf(path, sizeof path, "builds/%.64s", key);
	snprintf(text, sizeof text, FIRST_WORD " %s %s %s %" PRIu64 " %s %s\n", l->blob, l->diff, l->key,
		 l->blob_bytes, l->media, step->created);
	return file_replace(s->dir, path, 0644, text, strlen(text), e);
}

int
store_steps_collect(struct image_store *s, struct err *e)
{
	int fd = openat(s->dir, "builds", STORE_OPEN_DIR), rc = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (fd < 0 && errno == ENOENT)
		return 0; /* made by an older program */
	if (!dir) {
		fd_close(&fd);
		return err_sys(e, ERR_NODE, "read builds of %.200s", s->path);
	}
	while (rc == 0 && (entry = readdir(dir))) {
		struct store_step step;

		if (entry->d_name[0] == '.')
			continue;
		rc = image_is_digest(entry->d_name) ? store_step_find(s, entry->d_name, &step, e) : 0;
		if (rc == 0 && unlinkat(dirfd(dir), entry->d_name, 0))
			rc = err_sys(e, ERR_NODE, "remove builds/%.64s of %.200s", entry->d_name, s->path);
		else
			rc = rc < 0 ? -1 : 0;
	}
	closedir(dir);
	return rc;
}
