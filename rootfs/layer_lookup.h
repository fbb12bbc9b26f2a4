/*
 * What a stack of unpacked layers shows at a path, as an overlay of them would: the topmost
 * that has it, unless a whiteout or an opaque directory above hides it.  Nothing is followed:
 * a symbolic link on the way ends the search, one at the end is found as itself.
 */
#ifndef PRATAI_LAYER_LOOKUP_H
#define PRATAI_LAYER_LOOKUP_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

/* In a layer, the overlay's mark of a deleted name: a character device 0, 0. */
bool layer_is_whiteout(const struct stat *st);
/* The attribute of a directory that hides what is below it in lower layers. */
#define LAYER_OPAQUE "user.overlay.opaque"
bool layer_is_opaque(int dir);

struct layer_stack {
	const int *dirs; /* the roots, the topmost first */
	size_t count;
};

/*
 * path: relative, clean ("a/b").  A descriptor of what is there (of a file or a directory, to
 * read it; else O_PATH), with *st; or -1:
 * ENOENT, ELOOP (a link is on the way), ENOTDIR (a file is), or another error of openat.
 */
int layer_lookup(const struct layer_stack *s, const char *path, struct stat *st);

#endif
