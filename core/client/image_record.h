/*
 * An image's record as commands print it.
 */
#ifndef PRATAI_CLIENT_IMAGE_RECORD_H
#define PRATAI_CLIENT_IMAGE_RECORD_H

#include <stdbool.h>
#include <stdint.h>

struct image;

/* JSON, malloc'd; NULL: no memory. */
char *image_record(const char *name, const struct image *i);
/* With what was left out of its layers. */
char *image_record_imported(const char *name, const struct image *i, bool uploaded);
/* With the number of steps, and of those that were not run. */
char *image_record_built(const char *name, const struct image *i, int64_t steps, int64_t cached,
			 bool uploaded);

#endif
