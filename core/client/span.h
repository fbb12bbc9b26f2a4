/*
 * JSON as the bytes that arrived: finding members and items, text of a value, and
 * printing, without a tree in between, so that what the client prints is exactly what the
 * control plane said (a number keeps its digits, a record its order).
 *
 * Every function here wants bytes that json_check accepted.
 */
#ifndef PRATAI_CLIENT_SPAN_H
#define PRATAI_CLIENT_SPAN_H

#include <stdbool.h>
#include <stddef.h>

struct buf;

/* One value, without space around it; p NULL: not there.  Points into somebody's bytes. */
struct span {
	const char *p;
	size_t n;
};

/* The value that the text holds. */
struct span span_of(const void *data, size_t len);

/*
 * The next member or item of an object or array.  *at is 0 before the first.  For an
 * object *key (may be NULL) is the key's bytes between its quotes.  False after the last
 * and for values of other types.
 */
bool span_next(struct span container, size_t *at, struct span *key, struct span *value);

/* A member of an object by its key (plain ASCII); absent: p is NULL. */
struct span span_member(struct span object, const char *key);
/* The same through objects in objects: "usage.wall_us"; null when one on the way is. */
struct span span_path(struct span object, const char *dotted);

bool span_is(struct span s, char first); /* '{', '[', '"', 'n' (null), 't', 'f' */

/* malloc'd text: a string decoded, null and absent "", all else as it stands; NULL: no memory. */
char *span_text(struct span s);

/* Appends the value indented by two spaces a level, or without any space. */
void span_pretty(struct span s, struct buf *out);
void span_compact(struct span s, struct buf *out);

#endif
