#include "core/base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void
buf_free(struct buf *b)
{
	free(b->data);
	b->data = NULL;
	b->len = b->cap = 0;
	b->failed = false;
}

char *
buf_reserve(struct buf *b, size_t len)
{
	size_t max = b->max ? b->max : BUF_MAX_DEFAULT;
	size_t need, cap = b->cap ? b->cap : 128;
	char *data;

	if (__builtin_add_overflow(b->len, len, &need) || need > max) {
		b->failed = true;
		return NULL;
	}
	if (need + 1 > b->cap) {
		while (cap < need + 1)
			cap *= 2;
		data = realloc(b->data, cap);
		if (!data) {
			b->failed = true;
			return NULL;
		}
		b->data = data;
		b->cap = cap;
	}
	return b->data + b->len;
}

void
buf_terminate(struct buf *b)
{
	if (b->data)
		b->data[b->len] = '\0';
}

int
buf_put(struct buf *b, const void *data, size_t len)
{
	char *to = buf_reserve(b, len);

	if (!to)
		return -1;
	if (len)
		memcpy(to, data, len);
	b->len += len;
	b->data[b->len] = '\0';
	return 0;
}

int
buf_puts(struct buf *b, const char *s)
{
	return buf_put(b, s, strlen(s));
}

int
buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	int n;
	char *to;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0 || !(to = buf_reserve(b, (size_t)n))) {
		b->failed = true;
		return -1;
	}
	va_start(ap, fmt);
	vsnprintf(to, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len += (size_t)n;
	return 0;
}

void
buf_consume(struct buf *b, size_t n)
{
	if (n >= b->len) {
		b->len = 0;
	} else {
		memmove(b->data, b->data + n, b->len - n);
		b->len -= n;
	}
	buf_terminate(b);
}

char *
buf_steal(struct buf *b)
{
	char *data;

	if (b->failed || !buf_reserve(b, 0)) {
		buf_free(b);
		return NULL;
	}
	buf_terminate(b);
	data = b->data;
	b->data = NULL;
	b->len = b->cap = 0;
	return data;
}
