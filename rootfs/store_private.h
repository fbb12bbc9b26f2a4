/*
 * What the store's files share.
 */
#ifndef PRATAI_STORE_PRIVATE_H
#define PRATAI_STORE_PRIVATE_H

#include <fcntl.h>

#include "rootfs/store.h"

enum { STORE_PARTS = 6, STORE_OPEN_DIR = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC };

/* The directories of a store, parents first. */
extern const char *const store_parts[STORE_PARTS];

/* Removes records of steps whose layers have gone. */
int store_steps_collect(struct image_store *s, struct err *e);

/* refs/NAME, as a file's name. */
void store_ref_path(const char *name, char path[STORE_PATH_MAX]);

#endif
