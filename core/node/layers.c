/*
 * A fetch is: blob to an unnamed file, pratai-unpack into tmp.<id>, digest compared,
 * rename.  Trees are removed one after the other by a helper process, since the removal of
 * 20,000 files would hold up the loop.
 */
#include "core/node/layers.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/crypto.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/base/str.h"
#include "core/model/function.h"
#include "core/node/blob.h"
#include "netio/helper.h"
#include "netio/loop.h"

/* A layer's tar: what may be unpacked, plus headers of 1 KiB and padding for each entry. */
#define PRIVATE_PREFIX "00000000000000000000000000000000"
static const uint64_t UNPACK_MAX_NS = 180 * NS_PER_S, REMOVE_MAX_NS = 600 * NS_PER_S;

struct layer_wait {
	layer_fn fn;
	void *arg;
	TAILQ_ENTRY(layer_wait) link;
	struct layer_fetch *fetch;
};

struct layer_fetch {
	struct layers *layers;
	char digest[65], name[LAYER_NAME_MAX];
	int fd, dir;
	struct blob_call *blob;
	struct helper *helper;
	TAILQ_HEAD(, layer_wait) waits;
	LIST_ENTRY(layer_fetch) link;
};

struct doomed {
	char name[LAYER_NAME_MAX];
	TAILQ_ENTRY(doomed) link;
};

/* One that is there. */
struct layer {
	char digest[65];
	unsigned uses;
	uint64_t used_ns; /* when a use last began or ended */
	TAILQ_ENTRY(layer) link;
};

struct layers {
	struct layers_config c;
	struct loop_timer *pass;
	unsigned count;
	TAILQ_HEAD(layer_list, layer) layers; /* the one that was used last is last */
	LIST_HEAD(, layer_fetch) fetches;
	TAILQ_HEAD(, doomed) doomed;
	struct helper *remover;
};

static void
layer_path(const char *digest, char path[80])
{
	snprintf(path, 80, "sha256/%.64s", digest);
}

static bool
is_there(const struct layers *s, const char *digest)
{
	char path[80];

	layer_path(digest, path);
	return blob_is_digest(digest) && !faccessat(s->c.dir_fd, path, F_OK, AT_SYMLINK_NOFOLLOW);
}

/* ---- Use ---- */

static void
touch(struct layers *s, struct layer *l)
{
	l->used_ns = clock_mono_ns();
	TAILQ_REMOVE(&s->layers, l, link);
	TAILQ_INSERT_TAIL(&s->layers, l, link);
}

/* NULL: out of memory; then it stays until the next start. */
static struct layer *
note(struct layers *s, const char *digest)
{
	struct layer *l;

	TAILQ_FOREACH_REVERSE (l, &s->layers, layer_list, link)
		if (!memcmp(l->digest, digest, sizeof l->digest - 1))
			return l;
	l = calloc(1, sizeof *l);
	if (!l)
		return NULL;
	snprintf(l->digest, sizeof l->digest, "%.64s", digest);
	l->used_ns = clock_mono_ns();
	TAILQ_INSERT_TAIL(&s->layers, l, link);
	s->count++;
	return l;
}

static void
forget(struct layers *s, struct layer *l)
{
	TAILQ_REMOVE(&s->layers, l, link);
	s->count--;
	free(l);
}

bool
layers_use(struct layers *s, const char *digest)
{
	struct layer *l = is_there(s, digest) ? note(s, digest) : NULL;

	if (!l)
		return false;
	l->uses++;
	touch(s, l);
	return true;
}

void
layers_unuse(struct layers *s, const char *digest)
{
	struct layer *l = note(s, digest);

	if (!l || !l->uses)
		return;
	l->uses--;
	touch(s, l);
}

static bool
disk_is_low(const struct layers *s)
{
	struct statvfs fs;

	return !fstatvfs(s->c.dir_fd, &fs) &&
	       (uint64_t)fs.f_bavail * fs.f_frsize < s->c.free_min_bytes;
}

/* Removal takes its time: for want of room one goes each pass. */
static void
on_pass(void *arg)
{
	struct layers *s = arg;
	struct layer *l = TAILQ_FIRST(&s->layers), *next;
	bool low = disk_is_low(s);

	for (; l; l = next) {
		next = TAILQ_NEXT(l, link);
		if (l->uses)
			continue;
		if (!low && s->count <= s->c.max_count &&
		    clock_mono_ns() - l->used_ns < s->c.idle_ns)
			break; /* the others were used later */
		low = false;
		log_debug("a layer that is not used is removed", "digest", l->digest, NULL);
		layers_remove(s, l->digest);
		forget(s, l);
	}
	loop_timer_after(s->pass, s->c.pass_ns);
}

/* ---- Removal ---- */

static void remove_next(struct layers *s);

static void
on_removed(void *arg, int status, const char *text)
{
	struct layers *s = arg;
	struct doomed *d = TAILQ_FIRST(&s->doomed);

	s->remover = NULL;
	if (status)
		log_warning("cannot remove a directory, the next start tries again", "name",
			    d->name, "reason", text, NULL);
	TAILQ_REMOVE(&s->doomed, d, link);
	free(d);
	remove_next(s);
}

static void
remove_next(struct layers *s)
{
	struct doomed *d = TAILQ_FIRST(&s->doomed);
	struct err e = { 0 };
	const char *argv[] = { "pratai-node", LAYERS_REMOVE, d ? d->name : NULL, NULL };
	struct helper_task task = { .program_fd = s->c.self_fd, .argv = argv, .input = -1,
				    .dir = s->c.dir_fd, .timeout_ns = REMOVE_MAX_NS };

	if (!d || s->remover)
		return;
	s->remover = helper_start(s->c.loop, &task, on_removed, s, &e);
	if (!s->remover)
		log_err("cannot remove a directory, the next start tries again", &e);
}

void
layers_discard(struct layers *s, const char *name)
{
	struct doomed *d = calloc(1, sizeof *d);

	if (!d)
		return; /* the next start removes it */
	snprintf(d->name, sizeof d->name, "%s", name);
	TAILQ_INSERT_TAIL(&s->doomed, d, link);
	remove_next(s);
}

static void
temp_name(char name[LAYER_NAME_MAX])
{
	struct id id = id_new();

	memcpy(name, "tmp.", 4);
	id_format(&id, name + 4);
}

/* sha256/<digest> to a new tmp.<id>.  False: it is not there. */
static bool
rename_away(struct layers *s, const char *digest, char name[LAYER_NAME_MAX])
{
	char path[80];

	temp_name(name);
	layer_path(digest, path);
	return renameat(s->c.dir_fd, path, s->c.dir_fd, name) == 0;
}

void
layers_remove(struct layers *s, const char *digest)
{
	char name[LAYER_NAME_MAX];

	if (rename_away(s, digest, name))
		layers_discard(s, name);
}

int
layers_remove_main(const char *name)
{
	struct err e = { 0 };

	if (strncmp(name, "tmp.", 4) || strchr(name, '/'))
		return 2;
	if (dir_remove(3, name, &e)) {
		puts(e.text);
		return 1;
	}
	return 0;
}

/* ---- Start ---- */

static DIR *
open_list(struct layers *s, const char *path, struct err *e)
{
	int fd = openat(s->c.dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (!dir) {
		err_sys(e, ERR_NODE, "read the layers' directory");
		fd_close(&fd);
	}
	return dir;
}

static int
sweep(struct layers *s, struct err *e)
{
	char name[LAYER_NAME_MAX];
	struct dirent *entry;
	DIR *dir = open_list(s, "sha256", e);

	/* First these: they become tmp.*. */
	while (dir && (entry = readdir(dir)))
		if (!strncmp(entry->d_name, PRIVATE_PREFIX, strlen(PRIVATE_PREFIX)))
			rename_away(s, entry->d_name, name);
		else if (blob_is_digest(entry->d_name))
			note(s, entry->d_name);
	if (dir)
		closedir(dir);
	dir = dir ? open_list(s, ".", e) : NULL;
	if (!dir)
		return -1;
	while ((entry = readdir(dir)))
		if (!strncmp(entry->d_name, "tmp.", 4) && strlen(entry->d_name) < LAYER_NAME_MAX)
			layers_discard(s, entry->d_name);
	closedir(dir);
	return 0;
}

static int
forget_other_boots(struct layers *s, struct err *e)
{
	struct buf now = { 0 }, then = { 0 };
	char name[LAYER_NAME_MAX];
	int rc = file_slurp(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &now, e);

	if (rc == 0 && file_slurp(s->c.dir_fd, "boot", 64, &then, NULL))
		buf_consume(&then, then.len);
	if (rc == 0 && (now.len != then.len || memcmp(now.data, then.data, now.len))) {
		temp_name(name);
		if (renameat(s->c.dir_fd, "sha256", s->c.dir_fd, name) && errno != ENOENT)
			rc = err_sys(e, ERR_NODE, "rename the layers of an earlier boot");
		else
			rc = file_replace(s->c.dir_fd, "boot", 0600, now.data, now.len, e);
	}
	buf_free(&now);
	buf_free(&then);
	return rc ? -1 : dir_make(s->c.dir_fd, "sha256", 0755, e);
}

struct layers *
layers_new(const struct layers_config *c, struct err *e)
{
	struct layers *s = calloc(1, sizeof *s);

	if (!s) {
		err_set(e, ERR_NODE, "layers: out of memory");
		return NULL;
	}
	s->c = *c;
	LIST_INIT(&s->fetches);
	TAILQ_INIT(&s->doomed);
	TAILQ_INIT(&s->layers);
	s->pass = loop_timer_add(c->loop, on_pass, s, e);
	if (!s->pass || forget_other_boots(s, e) || sweep(s, e)) {
		layers_free(s);
		return NULL;
	}
	loop_timer_after(s->pass, c->pass_ns);
	return s;
}

static void
fetch_free(struct layer_fetch *f)
{
	struct layer_wait *w;

	while ((w = TAILQ_FIRST(&f->waits))) {
		TAILQ_REMOVE(&f->waits, w, link);
		free(w);
	}
	blob_cancel(f->blob);
	if (f->helper)
		helper_cancel(f->helper);
	fd_close(&f->fd);
	fd_close(&f->dir);
	free(f);
}

void
layers_free(struct layers *s)
{
	struct layer_fetch *f;
	struct doomed *d;

	if (!s)
		return;
	while ((f = LIST_FIRST(&s->fetches))) {
		LIST_REMOVE(f, link);
		fetch_free(f);
	}
	if (s->remover)
		helper_cancel(s->remover);
	while ((d = TAILQ_FIRST(&s->doomed))) {
		TAILQ_REMOVE(&s->doomed, d, link);
		free(d);
	}
	while (!TAILQ_EMPTY(&s->layers))
		forget(s, TAILQ_FIRST(&s->layers));
	loop_timer_remove(s->pass);
	free(s);
}

/* ---- Directories ---- */

int
layers_temp(struct layers *s, char name[LAYER_NAME_MAX], struct err *e)
{
	int fd;

	temp_name(name);
	if (mkdirat(s->c.dir_fd, name, 0755))
		return err_sys(e, ERR_NODE, "make a directory for a layer");
	fd = openat(s->c.dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0) {
		err_sys(e, ERR_NODE, "open a layer's directory");
		layers_discard(s, name);
	}
	return fd;
}

int
layers_commit(struct layers *s, const char *name, const char *digest, struct err *e)
{
	char path[80];

	layer_path(digest, path);
	if (renameat(s->c.dir_fd, name, s->c.dir_fd, path)) {
		if (errno != EEXIST && errno != ENOTEMPTY)
			return err_sys(e, ERR_NODE, "rename a layer");
		layers_discard(s, name);
	}
	/* A private one goes with its build. */
	if (strncmp(digest, PRIVATE_PREFIX, strlen(PRIVATE_PREFIX)))
		note(s, digest);
	return 0;
}

int
layers_commit_private(struct layers *s, const char *name, char digest[65], struct err *e)
{
	uint8_t random[16];
	char hex[33];

	random_bytes(random, sizeof random);
	str_hex(random, sizeof random, hex);
	snprintf(digest, 65, "%s%s", PRIVATE_PREFIX, hex);
	return layers_commit(s, name, digest, e);
}

int
layers_publish(struct layers *s, const char *private, const char *digest, struct err *e)
{
	char name[LAYER_NAME_MAX];

	if (!rename_away(s, private, name))
		return err_sys(e, ERR_NODE, "rename a package");
	if (layers_commit(s, name, digest, e) == 0)
		return 0;
	layers_discard(s, name);
	return -1;
}

struct helper *
layers_unpack(struct layers *s, const char *kind, int fd, int dir,
	      void (*fn)(void *arg, int status, const char *text), void *arg, struct err *e)
{
	const char *argv[] = { "pratai-unpack", kind, NULL };
	struct helper_task task = { .program_fd = s->c.unpack_fd, .argv = argv, .input = fd,
				    .dir = dir, .timeout_ns = UNPACK_MAX_NS };

	if (lseek(fd, 0, SEEK_SET) < 0) {
		err_sys(e, ERR_NODE, "seek");
		return NULL;
	}
	return helper_start(s->c.loop, &task, fn, arg, e);
}

int
layers_unpacked(int status, const char *text, char digest[65], struct err *e)
{
	struct json *j;
	const char *sum;
	int rc = 0;

	if (status == 1)
		return err_set(e, ERR_FUNCTION, "%s", *text ? text : "the archive is refused");
	if (status)
		return err_set(e, ERR_NODE, "unpack: %s",
			       *text ? text : status < 0 ? "killed" : "failed");
	j = json_parse(text, strlen(text), NULL);
	sum = json_str(j, "sha256");
	if (!sum || !blob_is_digest(sum))
		rc = err_set(e, ERR_NODE, "unpack: its report names no sha256");
	else if (!*digest)
		memcpy(digest, sum, 65);
	else if (strcmp(sum, digest))
		rc = err_set(e, ERR_NODE, "content of %.12s… has the digest %.12s…", digest, sum);
	json_free(j);
	return rc;
}

/* ---- Fetch ---- */

static void
fetch_end(struct layer_fetch *f, const struct err *e)
{
	struct layer_wait *w;

	if (e && f->name[0])
		layers_discard(f->layers, f->name);
	LIST_REMOVE(f, link); /* who asks for the digest from now on begins another one */
	while ((w = TAILQ_FIRST(&f->waits))) {
		TAILQ_REMOVE(&f->waits, w, link);
		w->fetch = NULL;
		w->fn(w->arg, e);
		free(w);
	}
	fetch_free(f);
}

static void
on_unpacked(void *arg, int status, const char *text)
{
	struct layer_fetch *f = arg;
	struct err e = { 0 };
	int rc;

	f->helper = NULL;
	rc = layers_unpacked(status, text, f->digest, &e);
	if (rc == 0)
		rc = layers_commit(f->layers, f->name, f->digest, &e);
	if (rc)
		err_wrap(&e, "layer %.12s…", f->digest);
	fetch_end(f, rc ? &e : NULL);
}

/* A tar begins with the name of an entry, which is function or opt. */
static const char *
kind_of(int fd)
{
	char magic[4];

	return pread(fd, magic, sizeof magic, 0) == sizeof magic && !memcmp(magic, "PK\3\4", 4) ? "zip"
												: "tar";
}

static void
on_blob(void *arg, int fd, const struct err *why)
{
	struct layer_fetch *f = arg;
	struct err e = { 0 };

	f->blob = NULL;
	if (why) {
		fetch_end(f, why);
		return;
	}
	f->fd = fd;
	f->dir = layers_temp(f->layers, f->name, &e);
	if (f->dir >= 0)
		f->helper = layers_unpack(f->layers, kind_of(f->fd), f->fd, f->dir, on_unpacked, f, &e);
	if (!f->helper)
		fetch_end(f, &e);
}

static struct layer_fetch *
fetch_start(struct layers *s, const char *digest, struct err *e)
{
	struct layer_fetch *f = calloc(1, sizeof *f);

	if (!f) {
		err_set(e, ERR_NODE, "layer: out of memory");
		return NULL;
	}
	f->layers = s;
	f->fd = f->dir = -1;
	TAILQ_INIT(&f->waits);
	LIST_INSERT_HEAD(&s->fetches, f, link);
	snprintf(f->digest, sizeof f->digest, "%.64s", digest);
	f->blob = blob_get(s->c.blobs, digest, FUNCTION_LAYER_MAX_BYTES, on_blob, f, e);
	if (!f->blob) {
		LIST_REMOVE(f, link);
		fetch_free(f);
		return NULL;
	}
	return f;
}

struct layer_wait *
layers_fetch(struct layers *s, const char *digest, layer_fn fn, void *arg, struct err *e)
{
	struct layer_wait *w = calloc(1, sizeof *w);
	struct layer_fetch *f;

	if (!w) {
		err_set(e, ERR_NODE, "layer: out of memory");
		return NULL;
	}
	LIST_FOREACH (f, &s->fetches, link)
		if (!strcmp(f->digest, digest))
			break;
	if (!f)
		f = fetch_start(s, digest, e);
	if (!f) {
		free(w);
		return NULL;
	}
	w->fn = fn;
	w->arg = arg;
	w->fetch = f;
	TAILQ_INSERT_TAIL(&f->waits, w, link);
	return w;
}

void
layer_wait_cancel(struct layer_wait *w)
{
	if (!w || !w->fetch)
		return;
	TAILQ_REMOVE(&w->fetch->waits, w, link);
	free(w);
}
