/*
 * The names in an archive: checked one by one, and as a tree in which each stands for one
 * thing only.  Used by the unpacker before anything is written.
 *
 * A name is refused when it is absolute, has an empty, "." or ".." part, a backslash, a
 * drive letter, a control character, bytes that are not UTF-8, a part of more than 255
 * bytes, more than 4095 bytes in all or too many parts, or a part that begins with ".wh."
 * (in a layer that deletes a file of a layer below).  Names that differ only in case are
 * different names.
 */
#ifndef PRATAI_UNPACK_NAMES_H
#define PRATAI_UNPACK_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

enum { NAME_PART_MAX = 255, NAME_PATH_MAX = 4095, NAME_SHOWN_MAX = 168 };

enum name_kind { NAME_DIR, NAME_FILE, NAME_LINK };

struct names; /* a tree of names; its root is the directory that all are in */

/* max: how many names the tree may hold, the directories that are only implied counted;
 * depth: how many parts a name may have.  NULL: no memory. */
struct names *names_new(size_t max, unsigned depth);
void names_free(struct names *n);

/*
 * Adds the name path[0..len), which has no slash at its end.  0, or -1: ERR_INPUT when
 * the name is bad, was there before or needs a directory where a file is; ERR_LIMIT
 * when there are too many.
 */
int names_add(struct names *n, const char *path, size_t len, enum name_kind kind, struct err *e);

/*
 * Whether the link at `path` (checked by names_add) may lead to target: relative, and by
 * its leading ".." parts not out of the tree; ".." after another part is refused, since
 * that part may be a link itself.  So no chain of such links leads out.
 */
int names_check_link(const char *path, size_t len, const char *target, struct err *e);

size_t names_count(const struct names *n); /* with implied directories, without the root */
enum name_kind names_kind(const struct names *n, size_t i);
/* The path of the i-th, NUL-terminated. */
void names_path(const struct names *n, size_t i, char out[NAME_PATH_MAX + 1]);

/* The name for people: what is not printable ASCII or well-formed UTF-8 as \xNN, cut
 * with "..." where it is long. */
const char *names_show(const char *path, size_t len, char out[NAME_SHOWN_MAX]);

#endif
