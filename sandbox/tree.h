/*
 * Mounts on descriptors: detached trees, and targets in a root that somebody else wrote.
 * A path of such a root is never given to the kernel as a string that it resolves by its
 * own rules: the last word is always a descriptor found with RESOLVE_IN_ROOT.
 */
#ifndef PRATAI_SANDBOX_TREE_H
#define PRATAI_SANDBOX_TREE_H

#include <stdbool.h>
#include <stdint.h>

struct err;
struct sandbox_tree;

/* An O_PATH descriptor of t's directory or file, or -1 with errno. */
int tree_open(const struct sandbox_tree *t);
/* A detached copy of what path below at names ("" : at itself), with the mounts below it if
 * recursive.  A descriptor, or -1 with errno. */
int tree_clone(int at, const char *path, bool recursive);
/* Adds MOUNT_ATTR_* to a mount.  0, or -1 with errno. */
int tree_restrict(int tree, uint64_t attributes, bool recursive);
/* Puts the tree on the directory or file that at is. */
int tree_attach(int tree, int at);
/* The same, on name below at, which is ours or has no links (a tmpfs or procfs of ours). */
int tree_attach_at(int tree, int at, const char *name);

/* A new file system of a type that needs no device; options are pairs of key and value,
 * NULL-ended.  A descriptor of the detached mount, or -1 with errno. */
int tree_new(const char *type, const char *const *options, uint64_t attributes);

/* Changes options of the file system of an attached mount.  0, or -1 with errno. */
int tree_configure(int tree, const char *const *options);

/*
 * O_PATH descriptor of path inside root, as a process whose root it is would find it, but
 * for magic links.  links: whether symbolic links may be followed at all.  -1, errno.
 */
int root_resolve(int root, const char *path, bool links);
/* Makes what is missing of path inside root: directories, and the last component as a
 * directory or an empty file.  0, or -1 with errno. */
int root_make(int root, const char *path, bool directory);

#endif
