/*
 * Whether two unpacked layers are the same.
 */
#ifndef PRATAI_LAYER_COMPARE_H
#define PRATAI_LAYER_COMPARE_H

#include <stddef.h>

struct err;

enum { LAYER_DIFFERENCES_MAX = 20 };

/*
 * kept, want: the roots.  Calls differs with a path and what is wrong there ("is missing", "has
 * other content", ...) for at most LAYER_DIFFERENCES_MAX paths.  Times of directories do not
 * count: one that is only implied has that of its making.  0; -1: something cannot be read.
 */
int layer_compare(int kept, int want, void (*differs)(void *arg, const char *path, const char *what),
		  void *arg, struct err *e);

#endif
