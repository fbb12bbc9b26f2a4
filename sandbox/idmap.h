/*
 * Mounts that show files as other owners' than they are on disk: the files of image layers,
 * which belong to a range of host ids that nobody has, as the ids of one sandbox.
 */
#ifndef PRATAI_SANDBOX_IDMAP_H
#define PRATAI_SANDBOX_IDMAP_H

#include <stdint.h>

struct err;

/*
 * A user namespace that says: ids from on (count of them) on disk are the host ids to and on.
 * A descriptor for idmap_apply; -1.  Needs root.  Its process is gone when this returns.
 */
int idmap_open(uint32_t from, uint32_t to, uint32_t count, struct err *e);

/* Shows the detached mount tree so.  0; -1 with errno: EINVAL where the file system (or the
 * kernel) cannot, then it stays as it was. */
int idmap_apply(int tree, int ids);

#endif
