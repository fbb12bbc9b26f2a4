/*
 * The files that a recipe copies: found below its directory and nowhere else (no link is followed,
 * on any level), once to tell whether they have changed, once to be put into a layer.
 *
 * In the image they belong to root.  Directories are copied whole, in the order of their names;
 * they become 0755, files 0755 when they have an x bit, else 0644, or what the recipe says.
 */
#ifndef PRATAI_BUILD_RECIPE_FILES_H
#define PRATAI_BUILD_RECIPE_FILES_H

#include <stdint.h>

#include "core/base/crypto.h"
#include "core/build/recipe.h"

struct tar_writer;

/* Names, modes and content of all of them. */
int recipe_files_hash(const struct recipe *r, struct sha256 *sha, struct err *e);
/* epoch: no time is later; INT64_MAX: they stay. */
int recipe_files_pack(const struct recipe *r, int64_t epoch, struct tar_writer *w, struct err *e);

#endif
