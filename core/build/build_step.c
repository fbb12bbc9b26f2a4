/*
 * A step: its key, its sandbox, its layer.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/str.h"
#include "core/build/apt_conf.h"
#include "core/build/image_build_private.h"
#include "rootfs/image_import.h"
#include "rootfs/oci.h"
#include "rootfs/oci_make.h"
#include "rootfs/store_steps.h"
#include "rootfs/tar_write.h"
#include "rootfs/tree_pack.h"

#define MEDIA_LAYER "application/vnd.oci.image.layer.v1.tar+gzip"
#define RECIPES_SHOWN "/tmp/pratai/recipes"
enum { SCRIPT_BYTES_MAX = 64 << 10, LINES_SHOWN = 20 };

int
build_path(char path[PATH_MAX], const char *dir, const char *name, struct err *e)
{
	return snprintf(path, PATH_MAX, "%s/%s", dir, name) < PATH_MAX
		       ? 0 : err_set(e, ERR_INPUT, "the path %.200s... is too long", dir);
}

/* ---- Its key ---- */

void
step_word(struct build_step *st, const char *word)
{
	sha256_update(&st->key, word, strlen(word) + 1);
}

void
step_words(struct build_step *st, const struct image_words *words)
{
	char count[24];

	snprintf(count, sizeof count, "%zu", words->count);
	step_word(st, count);
	for (size_t i = 0; i < words->count; i++)
		step_word(st, words->list[i]);
}

/* The chain id of all layers; "": there are none. */
static void
chain_of(const struct image *i, char chain[SHA256_HEX_MAX])
{
	char next[SHA256_HEX_MAX];

	chain[0] = '\0';
	for (unsigned k = 0; k < i->layer_count; k++) {
		oci_chain(k ? chain : NULL, i->layers[k].diff, next);
		memcpy(chain, next, sizeof next);
	}
}

void
step_begin(struct build_step *st, struct work *w, struct image *image, const char *kind,
	   const char *what)
{
	char chain[SHA256_HEX_MAX], epoch[24];

	*st = (struct build_step){ .w = w, .image = image, .what = what };
	sha256_init(&st->key);
	step_word(st, "pratai step 1");
	step_word(st, kind);
	chain_of(image, chain);
	step_word(st, chain);
	snprintf(epoch, sizeof epoch, "%lld", (long long)w->b->epoch);
	step_word(st, epoch);
}

int
step_script(struct build_step *st, const char *name, struct err *e)
{
	struct buf text = { 0 };
	char path[PATH_MAX];
	int rc = build_path(path, st->w->b->recipes, name, e);

	if (rc == 0)
		rc = file_slurp(AT_FDCWD, path, SCRIPT_BYTES_MAX, &text, e);
	if (rc == 0)
		sha256_update(&st->key, text.data ? text.data : "", text.len + 1);
	buf_free(&text);
	return rc;
}

/* ---- Its sandbox ---- */

/* In this process's name and as the image's root. */
static int
make_dir(const char *path, struct err *e)
{
	if (mkdir(path, 0755) || chown(path, IMAGE_ID_BASE, IMAGE_ID_BASE))
		return err_sys(e, ERR_NODE, "make %.200s", path);
	return 0;
}

int
step_disk(struct build_step *st, const char *name, char path[PATH_MAX], struct err *e)
{
	char below[PATH_MAX];

	return build_path(path, st->path, name, e) || make_dir(path, e) ||
			       build_path(below, path, "upper", e) || make_dir(below, e) ||
			       build_path(below, path, "work", e) || make_dir(below, e) ? -1 : 0;
}

/* Once for the whole build: the machine's settings, where sandboxes can be shown them. */
static int
collect_settings(struct work *w, bool apt, struct err *e)
{
	char path[PATH_MAX];

	if (!w->shown[0]) {
		int fd = store_temp(w->s, w->shown, e);

		if (fd < 0)
			return w->shown[0] = '\0', -1;
		close(fd);
		if (build_path(w->shown_path, w->s->path, w->shown, e))
			return -1;
	}
	if (!w->has_env) {
		if (build_env_collect(&w->env, environ, "/root", "/etc", e))
			return -1;
		w->has_env = true;
		for (uint32_t i = 0; i < w->env.names.count && w->names.count < EGRESS_NAMES_MAX; i++)
			w->names.list[w->names.count++] = w->env.names.list[i];
	}
	if (!apt || w->has_apt)
		return 0;
	if (build_path(path, w->shown_path, "apt", e))
		return -1;
	if (mkdir(path, 0755) && errno != EEXIST)
		return err_sys(e, ERR_NODE, "make %.200s", path);
	if (apt_conf_collect("/etc", path, &w->names, e))
		return -1;
	w->has_apt = true;
	return 0;
}

/* What the machine's settings are mounted on, where an image lacks it, is in a layer below all of
 * its own: so the layer that is being made has nothing of it. */
static int
make_point(int points, const char *target, bool directory, struct err *e)
{
	char path[PATH_MAX];

	for (size_t at = strspn(target, "/"); target[at];) {
		size_t n = strcspn(target + at, "/");
		bool last = !target[at + n + strspn(target + at + n, "/")];

		snprintf(path, sizeof path, "%.*s", (int)(at + n) - 1, target + 1);
		if ((last && !directory ? mknodat(points, path, S_IFREG | 0644, 0)
					: mkdirat(points, path, 0755)) && errno != EEXIST)
			return err_sys(e, ERR_NODE, "make %.200s for a build", target);
		if (fchownat(points, path, IMAGE_ID_BASE, IMAGE_ID_BASE, AT_SYMLINK_NOFOLLOW))
			return err_sys(e, ERR_NODE, "make %.200s for a build", target);
		at += n + strspn(target + at + n, "/");
	}
	return 0;
}

static int
make_points(struct work *w, struct sandbox_spec *s, struct err *e)
{
	CLEAN_FD int points = -1;
	struct stat st;

	if (build_path(w->points, w->shown_path, "points", e))
		return -1;
	if (access(w->points, F_OK) && make_dir(w->points, e))
		return -1;
	points = open(w->points, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (points < 0)
		return err_sys(e, ERR_NODE, "open %.200s", w->points);
	for (unsigned i = 0; i < s->bind_count; i++)
		if (!str_starts(s->binds[i].target, "/tmp/") && !stat(s->binds[i].source.path, &st) &&
		    make_point(points, s->binds[i].target, S_ISDIR(st.st_mode), e))
			return -1;
	s->layers[s->layer_count++] = (struct sandbox_tree){ .at = AT_FDCWD, .path = w->points,
							     .ids = IMAGE_ID_BASE };
	return 0;
}

static void
add_bind(struct sandbox_spec *s, const char *from, const char *to)
{
	s->binds[s->bind_count++] = (struct sandbox_bind){
		.source = { .at = AT_FDCWD, .path = from }, .target = to,
	};
}

/* A tool's own file may be root's alone on the machine: a copy can be read. */
static int
bind_setting(struct work *w, struct sandbox_spec *s, size_t i, struct err *e)
{
	struct buf text = { .max = BUILD_ENV_SETTINGS_MAX + 65536 };
	char *path = w->bind_paths[i + 2], name[32];
	CLEAN_FD int fd = -1;
	int rc = 0;

	if (!w->env.binds[i].settings) {
		add_bind(s, w->env.binds[i].source, w->env.binds[i].target);
		return 0;
	}
	snprintf(name, sizeof name, "setting.%zu", i);
	if (build_path(path, w->shown_path, name, e))
		return -1;
	if (access(path, F_OK)) {
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
		if (file_slurp(AT_FDCWD, w->env.binds[i].source, BUILD_ENV_SETTINGS_MAX, &text, e) || fd < 0 ||
		    fd_write_all(fd, text.data ? text.data : "", text.len))
			rc = err_sys(e, ERR_NODE, "copy %.200s", w->env.binds[i].source);
		buf_free(&text);
	}
	if (rc == 0)
		add_bind(s, path, w->env.binds[i].target);
	return rc;
}

/* Not how the machine looks names up: packages change that file in the image. */
static int
bind_settings(struct work *w, struct step_run *r, bool apt, struct err *e)
{
	if (collect_settings(w, apt, e))
		return -1;
	r->names = &w->names;
	/* Where packages are installed, files of the machine's would be in their way. */
	for (size_t i = 0; !apt && i < w->env.bind_count; i++)
		if (strcmp(w->env.binds[i].target, "/etc/nsswitch.conf") && bind_setting(w, &r->spec, i, e))
			return -1;
	if (!apt)
		return make_points(w, &r->spec, e);
	if (build_path(w->bind_paths[0], w->shown_path, "apt", e))
		return -1;
	add_bind(&r->spec, w->bind_paths[0], APT_CONF_SHOWN);
	_Static_assert((int)BUILD_ENV_BINDS + 2 <= (int)SANDBOX_BINDS_MAX, "all of them fit");
	return 0;
}

/* Unless a variable of that name is there; there is room. */
static void
add_variable(const char **envp, size_t *count, const char *text)
{
	size_t name = strcspn(text, "=") + 1;

	for (size_t i = 0; i < *count; i++)
		if (!strncmp(envp[i], text, name))
			return;
	if (*count < BUILD_ENV_WORDS && text[name - 1] == '=')
		envp[(*count)++] = text;
}

static bool
is_proxy(const char *variable)
{
	size_t name = strcspn(variable, "=");

	return name > 6 && !strncasecmp(variable + name - 6, "_proxy", 6);
}

static void
fill_environment(const struct build_step *st, const struct step_command *c, const char **envp)
{
	static const char *const defaults[] = {
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LANG=C.UTF-8",
	};
	const struct image_words *own = &st->image->env;
	static char epoch[48];
	size_t count = 0;

	if (c->variable)
		add_variable(envp, &count, c->variable);
	for (size_t i = 0; c->env && i < c->env->count; i++)
		add_variable(envp, &count, c->env->list[i]);
	for (size_t i = 0; i < own->count; i++)
		add_variable(envp, &count, own->list[i]);
	for (size_t i = 0; c->network && i < st->w->env.var_count; i++)
		if (!c->apt || is_proxy(st->w->env.vars[i]))
			add_variable(envp, &count, st->w->env.vars[i]);
	for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++)
		add_variable(envp, &count, defaults[i]);
	if (st->w->b->epoch != INT64_MAX) {
		snprintf(epoch, sizeof epoch, "SOURCE_DATE_EPOCH=%lld", (long long)st->w->b->epoch);
		add_variable(envp, &count, epoch);
	}
	envp[count] = NULL;
}

/* The last lines, where they were not shown while they came. */
static void
show_log(const struct build_step *st, const struct step_run *r)
{
	char *text = tail_text(&r->log), *from;
	size_t len = text ? strlen(text) : 0;
	unsigned lines = 0;

	if (text && !st->w->b->live) {
		for (from = text + len; from > text && lines <= LINES_SHOWN; from--)
			lines += from[-1] == '\n' && from != text + len;
		from += lines > LINES_SHOWN ? 2 : 0;
		fprintf(stderr, "%s%s", from, len && text[len - 1] != '\n' ? "\n" : "");
	}
	free(text);
}

int
step_command_on(struct build_step *st, struct step_run *r, const struct step_command *c,
		struct err *e)
{
	const char **envp = calloc(BUILD_ENV_WORDS + 1, sizeof *envp);
	int rc = envp ? 0 : err_set(e, ERR_NODE, "no memory for an environment");

	r->limits = st->w->b->limits;
	r->live = st->w->b->live;
	r->spec.disk = (struct sandbox_tree){ .at = AT_FDCWD, .path = c->disk, .ids = IMAGE_ID_BASE };
	r->spec.argv = c->argv;
	r->spec.envp = envp;
	r->spec.workdir = c->workdir;
	if (rc == 0 && c->network)
		rc = bind_settings(st->w, r, c->apt, e);
	add_bind(&r->spec, st->w->b->recipes, RECIPES_SHOWN);
	if (rc == 0) {
		fill_environment(st, c, envp);
		rc = step_run(r, e);
		if (rc && e->cls != ERR_NODE)
			show_log(st, r);
	}
	tail_free(&r->log);
	free(envp);
	return rc;
}

int
step_command(struct build_step *st, const struct step_command *c, struct err *e)
{
	struct step_run *r = calloc(1, sizeof *r);
	const struct image *i = st->image;
	char (*paths)[PATH_MAX] = calloc(IMAGE_LAYERS_MAX, sizeof *paths);
	int rc = r && paths ? 0 : err_set(e, ERR_NODE, "no memory for a step");

	for (unsigned k = i->layer_count; rc == 0 && k-- > i->base;) {
		struct sandbox_tree *t = &r->spec.layers[r->spec.layer_count];
		char *path = paths[r->spec.layer_count++];

		store_layer_path(st->w->s, i->layers[k].key, path);
		*t = (struct sandbox_tree){ .at = AT_FDCWD, .path = path, .ids = IMAGE_ID_BASE };
	}
	if (rc == 0)
		rc = step_command_on(st, r, c, e);
	free(paths);
	free(r);
	return rc;
}

int
step_pack(struct build_step *st, const char *disk, bool whole, struct tar_writer *t, struct err *e)
{
	static const char *const without[] = { "proc", "dev", "tmp", "etc/resolv.conf" };
	const struct work *w = st->w;
	char path[PATH_MAX];
	CLEAN_FD int top = -1;
	struct tree_pack p = {
		.without = without,
		.without_count = whole ? 0 : sizeof without / sizeof *without,
		.made = whole ? NULL : "etc",
		.id_base = IMAGE_ID_BASE,
		.epoch = w->b->epoch,
		.bytes_max = w->b->limits.disk_bytes,
	};

	if (build_path(path, disk, "upper", e))
		return -1;
	top = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (top < 0)
		return err_sys(e, ERR_NODE, "open %.200s", path);
	p.top = top;
	return tree_pack(&p, t, e);
}

/* ---- Its layer ---- */

static void
say(const struct build_step *st, const char *how)
{
	if (st->w->b->live)
		fprintf(stderr, "pratai: %s%s\n", st->what, how);
}

/* The layer's blob, packed, in the layout; i grows by it. */
static int
make_blob(struct build_step *st, step_make_fn make, void *arg, struct err *e)
{
	struct image_layer *l = &st->image->layers[st->image->layer_count];
	char part[PATH_MAX], to[PATH_MAX], name[SHA256_HEX_MAX + 32];
	CLEAN_FD int fd = -1;
	struct tar_writer *t;
	int rc;

	if (build_path(part, st->path, "layout/blobs/sha256", e) || dir_make(AT_FDCWD, part, 0755, e))
		return -1;
	if (build_path(part, st->path, "layout/part", e))
		return -1;
	fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return err_sys(e, ERR_NODE, "make a file in the image store");
	t = tar_write_begin(fd, e);
	if (!t)
		return -1;
	memset(l, 0, sizeof *l);
	rc = make(st, t, arg, e) || tar_write_end(t, l->diff, l->blob, &l->blob_bytes, e) ? -1 : 0;
	tar_write_free(t);
	snprintf(l->media, sizeof l->media, "%s", MEDIA_LAYER);
	snprintf(name, sizeof name, "layout/blobs/sha256/%s", l->blob);
	if (rc == 0)
		rc = build_path(to, st->path, name, e);
	if (rc == 0 && rename(part, to))
		rc = err_sys(e, ERR_NODE, "rename a layer");
	return rc;
}

static void
draw(void *arg, const char *what, uint64_t done, uint64_t total)
{
	(void)arg;
	(void)what;
	if (total && done <= total)
		fprintf(stderr, "\r\033[Kunpacking %d %%", (int)(done * 100 / total));
}

/* As any image's layer: read, verified and unpacked by the unpacker; its key is what we need. */
static int
import_layer(struct build_step *st, struct err *e)
{
	struct image *taken = calloc(1, sizeof *taken), *i = st->image;
	struct image_import m = { .program = st->w->b->unpacker, .source = -1,
				  .progress = st->w->b->live ? draw : NULL };
	unsigned k = i->layer_count - 1;
	char path[PATH_MAX];
	int rc = -1;

	if (!taken)
		return err_set(e, ERR_NODE, "no memory for an image");
	if (build_path(path, st->path, "layout", e))
		return free(taken), -1;
	m.source = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (m.source < 0)
		err_sys(e, ERR_NODE, "open %.200s", path);
	else if (!oci_make_layout(m.source, i, e))
		rc = image_import(st->w->s, &m, taken, e);
	if (st->w->b->live)
		fputs("\r\033[K", stderr);
	if (rc == 0 && (taken->layer_count != i->layer_count ||
			strcmp(taken->layers[k].diff, i->layers[k].diff)))
		rc = err_set(e, ERR_NODE, "the unpacker took another layer");
	if (rc == 0) {
		memcpy(i->layers[k].key, taken->layers[k].key, sizeof i->layers[k].key);
		i->base = taken->base;
	}
	image_free(taken);
	free(taken);
	fd_close(&m.source);
	return rc;
}

static void
now_text(const struct work *w, char out[64])
{
	char text[CLOCK_RFC3339_MAX];
	int64_t s = clock_real_us() / US_PER_S;

	clock_format((s < w->b->epoch ? s : w->b->epoch) * US_PER_S, text);
	snprintf(out, 64, "%.19sZ", text);
}

static int
make_layer(struct build_step *st, const char *key, step_make_fn make, void *arg, struct err *e)
{
	struct image *i = st->image;
	struct store_step made = { 0 };
	int fd = store_temp(st->w->s, st->temp, e), rc;

	if (fd < 0)
		return -1;
	close(fd);
	rc = build_path(st->path, st->w->s->path, st->temp, e) || make_blob(st, make, arg, e) ? -1 : 0;
	if (rc == 0) {
		now_text(st->w, i->created);
		i->layer_count++;
		rc = import_layer(st, e);
	}
	store_discard(st->w->s, st->temp);
	if (rc)
		return -1;
	made.layer = i->layers[i->layer_count - 1];
	memcpy(made.created, i->created, sizeof made.created);
	return store_step_put(st->w->s, key, &made, e);
}

int
step_done(struct build_step *st, step_make_fn make, void *arg, struct err *e)
{
	struct image *i = st->image;
	uint8_t digest[SHA256_BYTES];
	char key[SHA256_HEX_MAX];
	struct store_step found;
	int rc;

	sha256_final(&st->key, digest);
	str_hex(digest, sizeof digest, key);
	if (i->layer_count == IMAGE_LAYERS_MAX)
		return err_set(e, ERR_INPUT, "the image has more than %d layers", IMAGE_LAYERS_MAX);
	rc = store_step_find(st->w->s, key, &found, e);
	if (rc < 0)
		return -1;
	st->w->b->steps++;
	if (rc) {
		say(st, ": cached");
		st->w->b->cached++;
		i->layers[i->layer_count++] = found.layer;
		memcpy(i->created, found.created, sizeof i->created);
		return 0;
	}
	say(st, "");
	return make_layer(st, key, make, arg, e) ? err_wrap(e, "%s", st->what) : 0;
}
