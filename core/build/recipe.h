/*
 * A recipe of an image, as its file (JSON, pratai-recipe(5)) says: checked whole before anything
 * is done.
 */
#ifndef PRATAI_BUILD_RECIPE_H
#define PRATAI_BUILD_RECIPE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "rootfs/image.h"

struct err;

enum { RECIPE_BYTES_MAX = 1 << 20, RECIPE_FILES_MAX = 1000, RECIPE_COMMANDS_MAX = 100 };

struct recipe_file {
	char *from; /* below the recipe's directory, no ".." in it */
	char *to;   /* absolute, in the image, no ".." in it */
	int mode;   /* -1: by the source's x bit */
};

struct recipe_command {
	struct image_words argv; /* a text is run by /bin/sh -c */
};

struct recipe {
	char path[PATH_MAX], dir[PATH_MAX];
	char *base;
	struct image_words packages, env, cmd, entrypoint;
	bool has_cmd, has_entrypoint;
	struct recipe_file *files;
	size_t file_count;
	struct recipe_command *commands;
	size_t command_count;
	char *workdir, *user;
};

/* r is to be freed whatever comes back.  ERR_INPUT names the file and the member. */
int recipe_load(struct recipe *r, const char *path, struct err *e);
void recipe_free(struct recipe *r);

/* The path of the recipe: file itself, or, if it is a plain word of which there is no file, the
 * one that is shipped under that name, below shipped.  ERR_NOT_FOUND names those that there are. */
int recipe_find(const char *file, const char *shipped, char path[PATH_MAX], struct err *e);
/* Whether a recipe of that name is shipped; its path. */
bool recipe_is_shipped(const char *name, const char *shipped, char path[PATH_MAX]);

#endif
