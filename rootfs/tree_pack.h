/*
 * From what was written on an overlay (its upper directory) to the tar of a layer: the reverse of
 * layer_write.h.  The tree was made by somebody's program and is believed nothing: it is read
 * below one descriptor, no link is followed, no special file opened, and everything is bounded.
 * Nobody may change it meanwhile.
 *
 *   character device 0, 0   a whiteout (.wh.NAME)
 *   user.overlay.opaque     of a directory: .wh..wh..opq in it
 *   other devices, sockets  left out (counted)
 *   hard links              to the first name of the file in the order of the tar
 *   attributes              user.*, but not user.overlay.*
 *   owners                  id_base is 0 in the tar
 *   times                   none later than epoch
 *
 * Entries come in the order of their names, so that the same tree gives the same bytes.  A name
 * that begins with ".wh." cannot be in a layer and is refused.
 */
#ifndef PRATAI_TREE_PACK_H
#define PRATAI_TREE_PACK_H

#include <stddef.h>
#include <stdint.h>

struct err;
struct tar_writer;

struct tree_pack {
	int top;
	const char *const *without; /* paths that are left out, with all below */
	size_t without_count;
	const char *made; /* a directory that may be there only because what is left out is: if nothing else
			   * is below, and it is root's 0755, it is no entry.  NULL: none */
	uint32_t id_base;
	int64_t epoch;      /* INT64_MAX: times stay */
	uint64_t bytes_max; /* of all files' sizes */

	/* What came of it. */
	uint64_t entries, bytes, left_out;
};

/* ERR_INPUT and ERR_LIMIT: the tree's fault, named. */
int tree_pack(struct tree_pack *p, struct tar_writer *w, struct err *e);

#endif
