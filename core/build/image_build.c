#include "core/build/image_build.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/str.h"
#include "core/build/image_build_private.h"
#include "core/build/recipe_files.h"
#include "rootfs/image_import.h"
#include "rootfs/oci.h"
#include "rootfs/oci_make.h"

#define DEBIAN "debian:"

/* ---- Steps ---- */

/* Writable by the sandbox, packed afterwards. */
static int
run_and_pack(struct build_step *st, struct step_command *c, struct tar_writer *t, struct err *e)
{
	char disk[PATH_MAX];

	c->disk = disk;
	return step_disk(st, "disk", disk, e) || step_command(st, c, e) ||
			       step_pack(st, disk, false, t, e) ? -1 : 0;
}

static int
make_packages(struct build_step *st, struct tar_writer *t, void *arg, struct err *e)
{
	const struct recipe *r = arg;
	const char **argv = calloc(r->packages.count + 3, sizeof *argv);
	struct step_command c = { .argv = argv, .workdir = "/", .network = true, .apt = true,
				  .variable = "PRATAI_MACHINE_SUITE=" };
	char suite[80];
	int rc;

	if (!argv)
		return err_set(e, ERR_NODE, "no memory for a step");
	if (!build_machine_suite(suite, sizeof suite))
		c.variable = suite;
	argv[0] = "/bin/sh";
	argv[1] = "/tmp/pratai/recipes/packages.sh";
	for (size_t i = 0; i < r->packages.count; i++)
		argv[i + 2] = r->packages.list[i];
	rc = run_and_pack(st, &c, t, e);
	free(argv);
	return rc;
}

static int
packages(struct work *w, const struct recipe *r, struct image *i, struct err *e)
{
	struct build_step st;

	if (!r->packages.count)
		return 0;
	step_begin(&st, w, i, "packages", "packages");
	step_words(&st, &r->packages);
	return step_script(&st, "packages.sh", e) || step_script(&st, "sources.sh", e) ||
			       step_script(&st, "tidy.sh", e)
		       ? -1 : step_done(&st, make_packages, (void *)(uintptr_t)r, e);
}

static int
make_files(struct build_step *st, struct tar_writer *t, void *arg, struct err *e)
{
	return recipe_files_pack(arg, st->w->b->epoch, t, e);
}

static int
files(struct work *w, const struct recipe *r, struct image *i, struct err *e)
{
	struct build_step st;

	if (!r->file_count)
		return 0;
	step_begin(&st, w, i, "files", "files");
	return recipe_files_hash(r, &st.key, e) ? -1 : step_done(&st, make_files, (void *)(uintptr_t)r, e);
}

struct one_command {
	const struct recipe *r;
	const struct recipe_command *c;
};

static int
make_command(struct build_step *st, struct tar_writer *t, void *arg, struct err *e)
{
	const struct one_command *one = arg;
	struct step_command c = { .argv = (const char *const *)one->c->argv.list, .env = &one->r->env,
				  .workdir = one->r->workdir ? one->r->workdir : "/", .network = true };

	return run_and_pack(st, &c, t, e);
}

static int
commands(struct work *w, const struct recipe *r, struct image *i, struct err *e)
{
	for (size_t k = 0; k < r->command_count; k++) {
		struct one_command one = { r, &r->commands[k] };
		struct build_step st;
		char what[64];

		snprintf(what, sizeof what, "command %zu of %zu", k + 1, r->command_count);
		step_begin(&st, w, i, "command", what);
		step_words(&st, &one.c->argv);
		step_words(&st, &i->env);
		step_words(&st, &r->env);
		step_word(&st, r->workdir ? r->workdir : "/");
		if (step_done(&st, make_command, &one, e))
			return -1;
	}
	return 0;
}

/* ---- What the image says of itself ---- */

static int
copy_words(struct image_words *to, const struct image_words *from)
{
	for (size_t i = 0; i < from->count; i++)
		if (image_word(to, from->list[i]))
			return -1;
	return 0;
}

/* The recipe's variables in place of the base's of the same name. */
static int
merge_env(struct image *i, const struct recipe *r)
{
	struct image_words *env = &i->env;

	for (size_t k = 0; k < r->env.count; k++) {
		size_t name = strcspn(r->env.list[k], "=") + 1, at = 0;

		while (at < env->count && strncmp(env->list[at], r->env.list[k], name))
			at++;
		if (at == env->count) {
			if (image_word(env, r->env.list[k]))
				return -1;
			continue;
		}
		free(env->list[at]);
		if (!(env->list[at] = strdup(r->env.list[k])))
			return env->count = at, -1;
	}
	return 0;
}

static void
clear(struct image_words *w)
{
	for (size_t i = 0; i < w->count; i++)
		free(w->list[i]);
	free(w->list);
	*w = (struct image_words){ 0 };
}

static int
replace(char **to, const char *text)
{
	if (!text)
		return 0;
	free(*to);
	return (*to = strdup(text)) ? 0 : -1;
}

static int
configure(struct image *i, const struct recipe *r, struct err *e)
{
	if (r->has_entrypoint) {
		clear(&i->entrypoint);
		clear(&i->cmd); /* which was for the other */
	}
	if (r->has_cmd)
		clear(&i->cmd);
	if (merge_env(i, r) || copy_words(&i->entrypoint, &r->entrypoint) || copy_words(&i->cmd, &r->cmd) ||
	    replace(&i->workdir, r->workdir) || replace(&i->user, r->user))
		return err_set(e, ERR_LIMIT, "the image's configuration is too large");
	return 0;
}

/* ---- The base ---- */

static int build(struct work *w, const char *path, const char *name, struct image *i, struct err *e);

/* An image of the store, a recipe that is shipped, a suite of Debian: the first that there is. */
static int
take_base(struct work *w, const char *base, struct image *i, struct err *e)
{
	char path[PATH_MAX];
	int rc = store_image(w->s, base, i, e);

	if (rc == 0 || e->cls != ERR_NOT_FOUND)
		return rc;
	image_free(i);
	if (recipe_is_shipped(base, w->b->recipes, path)) {
		err_clear(e);
		if (w->depth == BUILD_DEPTH_MAX)
			return err_set(e, ERR_INPUT, "recipes are built on each other more than %d deep",
				       BUILD_DEPTH_MAX);
		return build(w, path, base, i, e);
	}
	if (!str_starts(base, DEBIAN))
		return err_wrap(e, "base");
	err_clear(e);
	memset(i, 0, sizeof *i);
	i->uid = i->gid = -1;
	snprintf(i->os, sizeof i->os, "linux");
	snprintf(i->arch, sizeof i->arch, "%.31s", oci_arch());
	return build_debian(w, i, base + strlen(DEBIAN), e);
}

/* ---- A recipe ---- */

/* The image is what the name means when this returns; if it did so before, nothing was done. */
static int
commit(struct work *w, const char *name, struct image *i, struct err *e)
{
	struct image_import m = { .program = w->b->unpacker, .name = name, .source = -1 };
	struct image *taken = calloc(1, sizeof *taken);
	char temp[STORE_TEMP_MAX];
	int rc = -1;

	if (!taken)
		return err_set(e, ERR_NODE, "no memory for an image");
	m.source = store_temp(w->s, temp, e);
	if (m.source >= 0 && !oci_make_layout(m.source, i, e)) {
		if (!store_image(w->s, name, taken, e) && !strcmp(taken->manifest, i->manifest)) {
			rc = 0;
		} else {
			err_clear(e);
			image_free(taken);
			rc = image_import(w->s, &m, taken, e);
		}
	}
	if (m.source >= 0) {
		fd_close(&m.source);
		store_discard(w->s, temp);
	}
	image_free(i);
	*i = *taken;
	free(taken);
	return rc;
}

static int
build(struct work *w, const char *path, const char *name, struct image *i, struct err *e)
{
	struct recipe *r = calloc(1, sizeof *r);
	int rc;

	if (!r)
		return err_set(e, ERR_NODE, "no memory for a recipe");
	w->depth++;
	rc = recipe_load(r, path, e);
	if (rc == 0) {
		rc = take_base(w, r->base, i, e) || packages(w, r, i, e) || files(w, r, i, e) ||
		     commands(w, r, i, e) || configure(i, r, e) || commit(w, name, i, e) ? -1 : 0;
		if (rc && !strstr(e->text, path))
			err_wrap(e, "%.200s", path);
	}
	w->depth--;
	recipe_free(r);
	free(r);
	return rc;
}

int
image_build(struct image_build *b, struct image_store *s, struct err *e)
{
	struct work *w = calloc(1, sizeof *w);
	struct image *i = calloc(1, sizeof *i);
	char path[PATH_MAX];
	int rc = -1;

	b->steps = b->cached = 0;
	if (!w || !i) {
		err_set(e, ERR_NODE, "no memory for a build");
	} else {
		w->b = b;
		w->s = s;
		rc = image_check_name(b->name, e) || recipe_find(b->file, b->recipes, path, e) ||
		     build(w, path, b->name, i, e) ? -1 : 0;
		if (w->shown[0])
			store_discard(s, w->shown);
		build_env_free(&w->env);
		image_free(i);
	}
	free(i);
	free(w);
	return rc;
}
