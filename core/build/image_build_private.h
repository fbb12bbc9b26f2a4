/*
 * What the files of image_build.h share: image_build.c has a recipe's life, build_step.c a step's,
 * build_debian.c the lowest layer of a Debian image.
 */
#ifndef PRATAI_BUILD_IMAGE_BUILD_PRIVATE_H
#define PRATAI_BUILD_IMAGE_BUILD_PRIVATE_H

#include "core/build/image_build.h"
#include "core/build/recipe.h"
#include "rootfs/store.h"

enum { BUILD_DEPTH_MAX = 8, BUILD_ENV_WORDS = IMAGE_WORDS_MAX + BUILD_ENV_VARS + 16 };

struct work {
	struct image_build *b;
	struct image_store *s;
	/* Of the whole build, in the store: what sandboxes are shown of the machine. */
	char shown[STORE_TEMP_MAX], shown_path[PATH_MAX];
	char points[PATH_MAX]; /* see build_step.c */
	bool has_apt, has_env;
	struct build_env env;
	struct egress_names names;
	char bind_paths[BUILD_ENV_BINDS + 2][PATH_MAX];
	unsigned depth;
};

struct build_step {
	struct work *w;
	struct image *image; /* grows by a layer */
	const char *what;    /* "packages", "command 2 of 3" */
	struct sha256 key;
	/* While it is made: the store's directory for it. */
	char temp[STORE_TEMP_MAX], path[PATH_MAX];
};

/* ---- build_step.c ---- */

/* dir/name, of a length that the store's path leaves room for (STORE_PATH_MAX). */
int build_path(char path[PATH_MAX], const char *dir, const char *name, struct err *e);

void step_begin(struct build_step *st, struct work *w, struct image *image, const char *kind,
		const char *what);
void step_word(struct build_step *st, const char *word);
void step_words(struct build_step *st, const struct image_words *words);
/* A script of the shipped recipes' directory. */
int step_script(struct build_step *st, const char *name, struct err *e);

struct tar_writer;
typedef int (*step_make_fn)(struct build_step *st, struct tar_writer *t, void *arg, struct err *e);
/* Finds its layer, or has make write it.  Then the image has it. */
int step_done(struct build_step *st, step_make_fn make, void *arg, struct err *e);

/* A new directory with upper/ and work/ below the step's; its path. */
int step_disk(struct build_step *st, const char *name, char path[PATH_MAX], struct err *e);
/* Runs argv in the image's layers (NULL-ended), network and the machine's settings for it or not,
 * writing to disk. */
struct step_command {
	const char *const *argv;
	const char *disk;
	const char *workdir;
	const struct image_words *env; /* besides the image's own; or NULL */
	bool network, apt;
	const char *variable; /* one more; or NULL */
};
int step_command(struct build_step *st, const struct step_command *c, struct err *e);
/* The same with other layers: r->spec has layers and usr. */
int step_command_on(struct build_step *st, struct step_run *r, const struct step_command *c,
		    struct err *e);
/* What was written to disk, as a layer; whole: nothing is left out. */
int step_pack(struct build_step *st, const char *disk, bool whole, struct tar_writer *t, struct err *e);

/* ---- build_debian.c ---- */

/* The image's first layer: a minimal Debian of that suite. */
int build_debian(struct work *w, struct image *image, const char *suite, struct err *e);

/* "PRATAI_MACHINE_SUITE=bookworm": what the machine's own sources are for.  -1: it does not say. */
int build_machine_suite(char *out, size_t size);

#endif
