/*
 * Zips for tests, byte by byte, with whatever is to be wrong in them.  Entries are stored.
 */
#ifndef PRATAI_TEST_ZIP_BYTES_H
#define PRATAI_TEST_ZIP_BYTES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "core/base/buf.h"

#define UNIX_ATTRIBUTES(mode) ((uint32_t)(mode) << 16)

struct item {
	const char *name;
	const char *data; /* stored */
	uint32_t attributes;
	/* What deviates: */
	const char *local_name; /* of the header, when not name */
	size_t name_len;        /* when the name holds a NUL */
	uint16_t flags, method, local_method;
	uint32_t crc_xor, size_add, offset_add;
	const char *before; /* bytes in front of the header that belong to nothing */
	bool descriptor;
	const char *extra; /* of the header: id, length and content */
	size_t extra_len;
	const char *central_extra; /* of the directory */
	size_t central_extra_len;
};

struct shape {
	const char *prefix, *suffix, *comment;
	int count_add, disk;
	uint32_t directory_add;
	bool zip64;
};

static void
put16(struct buf *b, uint32_t v)
{
	unsigned char p[2] = { (unsigned char)v, (unsigned char)(v >> 8) };

	buf_put(b, p, sizeof(p));
}

static void
put32(struct buf *b, uint32_t v)
{
	put16(b, v & 0xffff);
	put16(b, v >> 16);
}

static void
put64(struct buf *b, uint64_t v)
{
	put32(b, (uint32_t)v);
	put32(b, (uint32_t)(v >> 32));
}

static uint32_t
crc32_of(const char *data, size_t len)
{
	uint32_t crc = ~0u;

	for (size_t i = 0; i < len; i++) {
		crc ^= (unsigned char)data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return ~crc;
}

static size_t
name_len(const struct item *x)
{
	return x->name_len ? x->name_len : strlen(x->name);
}

static void
put_local(struct buf *b, const struct item *x)
{
	size_t len = strlen(x->data);
	const char *name = x->local_name ? x->local_name : x->name;
	size_t n = x->local_name ? strlen(name) : name_len(x);
	uint32_t crc = crc32_of(x->data, len) ^ x->crc_xor;
	bool later = x->descriptor;

	buf_puts(b, x->before ? x->before : "");
	buf_put(b, "PK\3\4\24", 6);
	put16(b, x->flags | (later ? 8 : 0));
	put16(b, x->local_method ? x->local_method : x->method);
	put32(b, 0x00210000);
	put32(b, later ? 0 : crc);
	put32(b, later ? 0 : (uint32_t)len);
	put32(b, later ? 0 : (uint32_t)len + x->size_add);
	put16(b, (uint32_t)n);
	put16(b, (uint32_t)x->extra_len);
	buf_put(b, name, n);
	if (x->extra_len)
		buf_put(b, x->extra, x->extra_len);
	buf_puts(b, x->data);
	if (later) {
		buf_put(b, "PK\7\10", 4);
		put32(b, crc);
		put32(b, (uint32_t)len);
		put32(b, (uint32_t)len);
	}
}

static void
put_central(struct buf *b, const struct item *x, uint32_t offset)
{
	size_t len = strlen(x->data);

	buf_put(b, "PK\1\2\24\3\24", 8);
	put16(b, x->flags | (x->descriptor ? 8 : 0));
	put16(b, x->method);
	put32(b, 0x00210000);
	put32(b, crc32_of(x->data, len) ^ x->crc_xor);
	put32(b, (uint32_t)len);
	put32(b, (uint32_t)len + x->size_add);
	put16(b, (uint32_t)name_len(x));
	put16(b, (uint32_t)x->central_extra_len);
	put16(b, 0); /* comment */
	put32(b, 0); /* disk, internal attributes */
	put32(b, x->attributes);
	put32(b, offset + x->offset_add);
	buf_put(b, x->name, name_len(x));
	if (x->central_extra_len)
		buf_put(b, x->central_extra, x->central_extra_len);
}

static void
put_end64(struct buf *b, uint64_t count, uint64_t size, uint64_t at)
{
	uint64_t here = b->len;

	buf_put(b, "PK\6\6", 4);
	put64(b, 44);
	put32(b, 45 | 45 << 16);
	put64(b, 0);
	put64(b, count);
	put64(b, count);
	put64(b, size);
	put64(b, at);
	buf_put(b, "PK\6\7", 4);
	put32(b, 0);
	put64(b, here);
	put32(b, 1);
}

static void
build_zip(struct buf *b, const struct item *items, size_t count, const struct shape *shape)
{
	static const struct shape plain;
	const struct shape *s = shape ? shape : &plain;
	uint32_t offsets[16];
	uint32_t at, size;

	buf_puts(b, s->prefix ? s->prefix : "");
	for (size_t i = 0; i < count; i++) {
		offsets[i] = (uint32_t)b->len + (uint32_t)(items[i].before ? strlen(items[i].before) : 0);
		put_local(b, &items[i]);
	}
	at = (uint32_t)b->len;
	for (size_t i = 0; i < count; i++)
		put_central(b, &items[i], offsets[i]);
	size = (uint32_t)b->len - at;
	if (s->zip64)
		put_end64(b, count, size, at);
	buf_put(b, "PK\5\6", 4);
	put16(b, (uint32_t)s->disk);
	put16(b, (uint32_t)s->disk);
	put16(b, s->zip64 ? 0xffff : (uint32_t)count + (uint32_t)s->count_add);
	put16(b, s->zip64 ? 0xffff : (uint32_t)count + (uint32_t)s->count_add);
	put32(b, s->zip64 ? ~0u : size);
	put32(b, s->zip64 ? ~0u : at + s->directory_add);
	put16(b, s->comment ? (uint32_t)strlen(s->comment) : 0);
	buf_puts(b, s->comment ? s->comment : "");
	buf_puts(b, s->suffix ? s->suffix : "");
}

#endif
