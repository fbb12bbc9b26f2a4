/*
 * What the files of the layer writer share: layer_write.c has the entries, layer_dirs.c the
 * directories that they are in, layer_marks.c the deletions, layer_links.c the names over links of lower
 * layers.
 */
#ifndef PRATAI_LAYER_WRITE_PRIVATE_H
#define PRATAI_LAYER_WRITE_PRIVATE_H

#include "rootfs/layer_write.h"

/* "the entry 'NAME' WHAT", ERR_INPUT. */
int layer_refuse(const char *path, const char *what, struct err *e);
/* "cannot unpack 'NAME': " and errno, ERR_NODE. */
int layer_cannot(const char *path, struct err *e);

/*
 * The directory that path ("a/b/c", clean) is in, made where it is missing: the writer's own
 * descriptor, good until the next call.  *last is the last part.  Root: path "" is not
 * allowed here.
 */
int layer_parent(struct layer_writer *w, const char *path, const char **last, struct err *e);

/* Where the name leads over links of lower layers, what it means. */
int layer_resolve(struct layer_writer *w, char path[LAYER_PATH_MAX + 1], struct err *e);

/* The directory dir/last is there when this returns, empty or not; its descriptor.  What else
 * was there is replaced, and what lower layers have below it hidden. */
int layer_make_dir(struct layer_writer *w, int dir, const char *last, const char *path,
		   struct err *e);
/* Removes what is at dir/last, a whole tree, too.  1: there was something that hid the lower
 * layers' (not a directory); 0; -1. */
int layer_clear(int dir, const char *last, const char *path, struct err *e);
int layer_set_opaque(int fd, const char *path, struct err *e);

/* The same, and when it is new it looks as it does in the lower layers. */
int layer_imply_dir(struct layer_writer *w, int dir, const char *last, const char *path,
		    struct err *e);

/* The mtime of the directory at path, to be set at the end. */
int layer_note_time(struct layer_writer *w, const char *path, const struct timespec *t, struct err *e);

/* Of one path in this order. */
enum layer_mark_kind { LAYER_COPIED, LAYER_IS_OPAQUE, LAYER_WHITEOUT };
/* That path is to be deleted of lower layers, or (a directory) hide theirs; or was copied up. */
int layer_note_mark(struct layer_writer *w, enum layer_mark_kind kind, const char *path, struct err *e);
int layer_apply_marks(struct layer_writer *w, struct err *e);

/* The attributes that are kept. */
int layer_copy_attributes(int from, int to, const char *path, struct err *e);

/* A copy of path in the pool, at *offset. */
int layer_note_path(struct layer_writer *w, const char *path, size_t *offset, struct err *e);
/* A larger array, or NULL; *room counts items. */
void *layer_grow(void *array, size_t *room, size_t need, size_t size);

#endif
