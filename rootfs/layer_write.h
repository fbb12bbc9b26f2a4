/*
 * The writing side of unpacking a layer: one tree below one directory descriptor, in the
 * form in which the sandbox's overlay takes it (mounted with "userxattr").
 *
 * Never outside: a parent is opened by openat2 with RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
 * the last part is made, removed or changed by *at calls that follow nothing.  A name with
 * ".." is refused, one that begins with "/" or "./" is taken from the layer's root, one
 * below a symbolic link of its own layer is refused (of a lower one: layer_links.c).
 *
 *   whiteout (.wh.NAME, whatever its type)  a character device 0, 0, which an overlay in a
 *                      user namespace honours and anybody may make
 *   opaque (.wh..wh..opq) the attribute user.overlay.opaque, "y"; of a directory that was
 *                      a file before in this layer, or was whited out, too
 *   hard link          to the same inode; a target that only lower layers have is first
 *                      copied up to its own name
 *   owner              the archive's, of IMAGE_IDS; others become nobody's (counted)
 *   mode               without set-user-ID and set-group-ID on files (sandboxes do not
 *                      honour them, and here a program would have the rights of the one who
 *                      owns the store's files); of directories as they are
 *   times              mtimes, in nanoseconds; directories' at the end
 *   attributes         user.*, but not user.overlay.*; all others (security.*, trusted.*,
 *                      system.*, access control lists) are left out (counted)
 *   devices, sockets   left out (counted): no sandbox opens one, and 0, 0 would be a forged
 *                      whiteout
 *
 * Deletions are applied when all else is there, so that their order means nothing
 * (layer_marks.c).
 *
 * A directory that has no entry of its own looks as it does in the lower layers; the tree
 * then depends on them, as it does by a link into them.
 *
 * Bounds: LAYER_* below.
 */
#ifndef PRATAI_LAYER_WRITE_H
#define PRATAI_LAYER_WRITE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "rootfs/layer_lookup.h"
#include "rootfs/tar_stream.h"

struct err;

enum {
	LAYER_ENTRIES_MAX = 2000000,
	LAYER_DEPTH_MAX = 256,
	LAYER_PATH_MAX = 4095,
	LAYER_NAMES_BYTES_MAX = 128 << 20, /* of directories and deletions, kept until the end */
	LAYER_ATTRIBUTES_MAX = 256,       /* of an entry */
	LAYER_ATTRIBUTE_BYTES_MAX = 64 << 10,
};
#define LAYER_BYTES_MAX (64ull << 30) /* of content */
#define LAYER_FILE_MAX (1ull << 40)   /* of one file, holes included */

struct layer_writer {
	struct layer_stack stack; /* the caller's: [0] is written, an empty directory; below it
				   * the other layers, the topmost first */
	bool owners;              /* whether files can be given to other ids */

	/* What came of it. */
	bool depends; /* on the lower layers */
	uint64_t entries, bytes, devices, attributes, foreign_owners;

	/* layer_write.c's own */
	int dir;                        /* of the last parent used, or -1 */
	char parent[LAYER_PATH_MAX + 1]; /* its path */
	struct layer_time *times; /* of directories, due at the end */
	size_t time_count, time_room;
	struct layer_mark *marks; /* whiteouts, also due at the end */
	size_t mark_count, mark_room;
	char *paths; /* of both, each with its NUL */
	size_t paths_len, paths_room;
};

void layer_write_begin(struct layer_writer *w, const struct layer_stack *stack, bool owners);
void layer_write_end(struct layer_writer *w);

/* The entry that t is at, with its data.  ERR_INPUT or ERR_LIMIT: its fault, named. */
int layer_write_entry(struct layer_writer *w, struct tar_stream *t, const struct tar_entry *entry,
		      struct err *e);
/* After the last. */
int layer_write_finish(struct layer_writer *w, struct err *e);

#endif
