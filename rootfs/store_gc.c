/*
 * What no name leads to is removed; what a name leads to is read again and hashed.
 *
 * The live set is a sorted list of words, a letter for the kind and a digest.  A layer is
 * renamed to tmp.ID before its files go, so that half a layer never has a layer's name.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/str.h"
#include "rootfs/store_private.h"

enum { LIVE_MAX = 10000000, WORD_MAX = SHA256_HEX_MAX + 1 };

struct live {
	char (*words)[WORD_MAX];
	size_t count, room;
};

static int
add(struct live *l, char kind, const char *digest)
{
	if (l->count == l->room) {
		size_t room = l->room ? l->room * 2 : 256;
		void *more = room > LIVE_MAX ? NULL : realloc(l->words, room * sizeof *l->words);

		if (!more)
			return -1;
		l->words = more;
		l->room = room;
	}
	snprintf(l->words[l->count++], WORD_MAX, "%c%.64s", kind, digest);
	return 0;
}

static int
compare(const void *a, const void *b)
{
	return memcmp(a, b, WORD_MAX - 1);
}

static bool
is_live(const struct live *l, char kind, const char *digest)
{
	char word[WORD_MAX];

	snprintf(word, sizeof word, "%c%.64s", kind, digest);
	return l->count && bsearch(word, l->words, l->count, sizeof *l->words, compare);
}

static void
sort_once(struct live *l)
{
	size_t kept = 0;

	if (l->count)
		qsort(l->words, l->count, sizeof *l->words, compare);
	for (size_t i = 0; i < l->count; i++)
		if (i == 0 || compare(l->words[i], l->words[kept - 1]) != 0)
			memmove(l->words[kept++], l->words[i], WORD_MAX);
	l->count = kept;
}

static int
add_image(struct live *l, const struct image *i)
{
	int rc = add(l, 'm', i->manifest) || add(l, 'b', i->manifest) || add(l, 'b', i->config);

	for (unsigned k = 0; rc == 0 && k < i->layer_count; k++)
		rc = add(l, 'b', i->layers[k].blob) || add(l, 'l', i->layers[k].key);
	return rc ? -1 : 0;
}

/* With a name whose record cannot be read nothing is known, so nothing may be removed. */
static int
find_live(struct image_store *s, struct live *l, struct err *e)
{
	char **names = NULL;
	size_t count = 0;
	int rc = store_names(s, &names, &count, e);

	for (size_t i = 0; rc == 0 && i < count; i++) {
		struct image image;

		rc = store_image(s, names[i], &image, e);
		if (rc == 0 && add_image(l, &image))
			rc = err_set(e, ERR_NODE, "no memory for the list of what is used");
		else if (rc && e->cls == ERR_NOT_FOUND)
			rc = 0; /* forgotten meanwhile */
		else if (rc)
			err_wrap(e, "image '%.100s'", names[i]);
		image_free(&image);
	}
	store_names_free(names, count);
	sort_once(l);
	return rc;
}

/* ---- Removing ---- */

static int
remove_layer(struct image_store *s, const char *path, struct store_gc *done, struct err *e)
{
	CLEAN_FD int fd = openat(s->dir, path, STORE_OPEN_DIR);
	char name[STORE_TEMP_MAX], to[STORE_PATH_MAX];
	CLEAN_FD int temp = -1;
	int rc = 0;

	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) {
		done->in_use++;
		return 0;
	}
	temp = store_temp(s, name, e);
	if (temp < 0)
		return -1;
	snprintf(to, sizeof to, "%s/layer", name);
	if (renameat(s->dir, path, s->dir, to))
		rc = err_sys(e, ERR_NODE, "take %s out of %.200s", path, s->path);
	else
		done->layers++;
	store_discard(s, name);
	return rc;
}

static int
remove_file(struct image_store *s, const char *path, uint64_t *count, uint64_t *bytes,
	    struct err *e)
{
	struct stat st;

	if (fstatat(s->dir, path, &st, AT_SYMLINK_NOFOLLOW) || unlinkat(s->dir, path, 0))
		return err_sys(e, ERR_NODE, "remove %s of %.200s", path, s->path);
	++*count;
	*bytes += (uint64_t)st.st_size;
	return 0;
}

static int
collect_part(struct image_store *s, const char *part, char kind, const struct live *l,
	     struct store_gc *done, struct err *e)
{
	int fd = openat(s->dir, part, STORE_OPEN_DIR), rc = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	uint64_t ignored = 0;

	if (!dir) {
		fd_close(&fd);
		return err_sys(e, ERR_NODE, "read %s of %.200s", part, s->path);
	}
	while (rc == 0 && (entry = readdir(dir))) {
		char path[STORE_PATH_MAX];

		if (!image_is_digest(entry->d_name) || is_live(l, kind, entry->d_name))
			continue;
		snprintf(path, sizeof path, "%s/%.64s", part, entry->d_name);
		rc = kind == 'l' ? remove_layer(s, path, done, e)
		     : kind == 'b' ? remove_file(s, path, &done->blobs, &done->bytes, e)
				   : remove_file(s, path, &done->images, &ignored, e);
	}
	closedir(dir);
	return rc;
}

int
store_collect(struct image_store *s, struct store_gc *done, struct err *e)
{
	struct live live = { 0 };
	int rc;

	*done = (struct store_gc){ 0 };
	/* Without the directory of names it is new, or damaged. */
	if (s->dir < 0 || faccessat(s->dir, "refs", F_OK, AT_SYMLINK_NOFOLLOW))
		return 0;
	/* A record goes before what it names. */
	rc = find_live(s, &live, e) || collect_part(s, "records", 'm', &live, done, e) ||
	     collect_part(s, "layers", 'l', &live, done, e) ||
	     collect_part(s, "blobs/sha256", 'b', &live, done, e) || store_steps_collect(s, e);
	free(live.words);
	return rc ? -1 : 0;
}

/* ---- Checking ---- */

static int
hash_blob(struct image_store *s, const char *path, char hex[SHA256_HEX_MAX], uint64_t *bytes)
{
	CLEAN_FD int fd = openat(s->dir, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	static char block[256 << 10];
	uint8_t digest[SHA256_BYTES];
	struct sha256 sha;
	ssize_t n;

	sha256_init(&sha);
	while ((n = fd < 0 ? -1 : read(fd, block, sizeof block)) != 0) {
		if (n < 0 && errno == EINTR && fd >= 0)
			continue;
		if (n < 0)
			return -1;
		sha256_update(&sha, block, (size_t)n);
		*bytes += (uint64_t)n;
	}
	sha256_final(&sha, digest);
	str_hex(digest, sizeof digest, hex);
	return 0;
}

static void
check_word(struct image_store *s, const char *word, struct store_check *done,
	   void (*fault)(void *arg, const char *sentence), void *arg)
{
	char path[STORE_PATH_MAX], hex[SHA256_HEX_MAX], sentence[STORE_PATH_MAX + 160] = "";

	if (word[0] == 'l') {
		done->layers++;
	} else if (word[0] == 'b') {
		done->blobs++;
		snprintf(path, sizeof path, "blobs/sha256/%.64s", word + 1);
		if (hash_blob(s, path, hex, &done->bytes))
			snprintf(sentence, sizeof sentence, "the blob sha256:%.64s cannot be read: %s",
				 word + 1, strerror(errno));
		else if (strcmp(hex, word + 1) != 0)
			snprintf(sentence, sizeof sentence, "the blob sha256:%.64s has the digest %s",
				 word + 1, hex);
	} else {
		done->images++;
	}
	if (sentence[0]) {
		done->bad++;
		fault(arg, sentence);
	}
}

int
store_verify(struct image_store *s, struct store_check *done,
	     void (*fault)(void *arg, const char *sentence), void *arg, struct err *e)
{
	struct live live = { 0 };
	int rc;

	*done = (struct store_check){ 0 };
	rc = s->dir < 0 ? 0 : find_live(s, &live, e);
	for (size_t i = 0; rc == 0 && i < live.count; i++)
		check_word(s, live.words[i], done, fault, arg);
	free(live.words);
	return rc;
}
