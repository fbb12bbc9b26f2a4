/*
 * A growing string of bytes with a maximum that its owner states.  Always followed by
 * a NUL that does not count, so that text in it is a C string.
 */
#ifndef PRATAI_BUF_H
#define PRATAI_BUF_H

#include <stdbool.h>
#include <stddef.h>

struct buf {
	char *data;
	size_t len;
	size_t cap;
	size_t max; /* 0: BUF_MAX_DEFAULT */
	bool failed; /* a put did not fit, or memory ran out; len is what did fit */
};

#define BUF_MAX_DEFAULT ((size_t)64 << 20)

void buf_free(struct buf *b);

/* These return 0, or -1 (and set failed) when max or memory is exceeded: nothing of
 * the put is kept then. */
int buf_put(struct buf *b, const void *data, size_t len);
int buf_puts(struct buf *b, const char *s);
int buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Room for len more bytes at the returned address; add what was used to b->len, then
 * call buf_terminate.  NULL: does not fit. */
char *buf_reserve(struct buf *b, size_t len);
void buf_terminate(struct buf *b);

/* Removes n bytes from the front. */
void buf_consume(struct buf *b, size_t n);

/* The string, now the caller's to free(); the buf is empty.  NULL if failed. */
char *buf_steal(struct buf *b);

#endif
