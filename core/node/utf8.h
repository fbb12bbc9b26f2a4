/*
 * Text that strangers wrote, made fit for records: well-formed UTF-8, cut at a
 * character's edge, escaped for JSON.
 */
#ifndef PRATAI_NODE_UTF8_H
#define PRATAI_NODE_UTF8_H

#include <stddef.h>

struct buf;

/*
 * The length of the well-formed character at s[0..len), 1 to 4.  0: what stands there can
 * still become one when more bytes come (only when the text ends inside it).  -1: it cannot.
 */
int utf8_length(const char *s, size_t len);

/* The longest prefix of s[0..len) that is at most max bytes and does not cut a character. */
size_t utf8_cut(const char *s, size_t len, size_t max);

/*
 * Appends s[0..len) as the inside of a JSON string: escaped, and NUL, which json_parse()
 * refuses, and what is not UTF-8 as U+FFFD, one for each byte.  0, or -1 when out is full.
 */
int utf8_put_json(struct buf *out, const char *s, size_t len);

/*
 * Appends s[0..len) as plain text: what is not UTF-8, and control characters but newline
 * and tab, become '?', so that no terminal obeys it and it grows by nothing.
 */
int utf8_put_plain(struct buf *out, const char *s, size_t len);

#endif
