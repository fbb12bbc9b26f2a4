/*
 * An entry is any number of extra headers ('x' and 'g' of pax, 'L' and 'K' of GNU), each with
 * its data, and then the entry's own header.  Each header is a block of 512 bytes.
 */
#include "rootfs/tar_names.h"

#include <string.h>

enum { BLOCK = 512, TYPE_AT = 156, SIZE_AT = 124, SIZE_LEN = 12, EXTRA_MAX = 16 };

/* The byte at an offset that is in the window. */
static char
byte_at(const struct tar_window *w, uint64_t at)
{
	return w->data[at % w->size];
}

/* Octal, or base 256.  UINT64_MAX: neither. */
static uint64_t
read_size(const struct tar_window *w, uint64_t header)
{
	uint64_t value = 0;
	unsigned char first = (unsigned char)byte_at(w, header + SIZE_AT);

	if (first & 0x80) {
		for (int i = 1; i < SIZE_LEN; i++) {
			if (value >> 48)
				return UINT64_MAX;
			value = value << 8 | (unsigned char)byte_at(w, header + SIZE_AT + (uint64_t)i);
		}
		return value;
	}
	for (int i = 0; i < SIZE_LEN; i++) {
		char c = byte_at(w, header + SIZE_AT + (uint64_t)i);

		if (c >= '0' && c <= '7')
			value = value << 3 | (uint64_t)(c - '0');
		else if (c != ' ' || value)
			break;
	}
	return value;
}

static int
take(const struct tar_window *w, uint64_t from, uint64_t to, char out[TAR_NAME_MAX])
{
	size_t n = 0;

	if (to - from >= TAR_NAME_MAX)
		return -1;
	for (; from < to; from++) {
		out[n] = byte_at(w, from);
		if (!out[n++])
			return -1;
	}
	out[n] = '\0';
	return 0;
}

/* One record, "LENGTH KEY=VALUE\n", at from.  Its end; 0: it is none. */
static uint64_t
read_record(const struct tar_window *w, uint64_t from, uint64_t end, struct tar_names *out)
{
	char key[32];
	uint64_t at = from, length = 0, record_end;
	size_t n = 0;

	for (; at < end && byte_at(w, at) >= '0' && byte_at(w, at) <= '9' && length < 1u << 28; at++)
		length = length * 10 + (uint64_t)(byte_at(w, at) - '0');
	if (at == end || byte_at(w, at) != ' ' || length <= at + 1 - from || length > end - from)
		return 0;
	record_end = from + length;
	if (byte_at(w, record_end - 1) != '\n')
		return 0;
	for (at++; at < record_end - 1 && byte_at(w, at) != '='; at++)
		if (n < sizeof key - 1)
			key[n++] = byte_at(w, at);
	key[n] = '\0';
	if (at == record_end - 1)
		return 0;
	if (!strcmp(key, "path") || !strcmp(key, "GNU.sparse.name"))
		return take(w, at + 1, record_end - 1, out->path) ? 0 : record_end;
	if (!strcmp(key, "linkpath"))
		return take(w, at + 1, record_end - 1, out->target) ? 0 : record_end;
	return record_end;
}

int
tar_names_read(const struct tar_window *w, uint64_t at, struct tar_names *out)
{
	out->path[0] = out->target[0] = '\0';
	for (int i = 0; i < EXTRA_MAX; i++) {
		uint64_t size, from;
		char type;

		if (at < w->from || at > w->to || w->to - at < BLOCK)
			return -1;
		type = byte_at(w, at + TYPE_AT);
		if (type != 'x' && type != 'g' && type != 'L' && type != 'K')
			return 0;
		size = read_size(w, at);
		from = at + BLOCK;
		if (size > w->to - from)
			return -1;
		for (uint64_t p = from; type == 'x' && p < from + size;)
			if (!(p = read_record(w, p, from + size, out)))
				return -1;
		at = from + (size + BLOCK - 1) / BLOCK * BLOCK;
	}
	return -1;
}
