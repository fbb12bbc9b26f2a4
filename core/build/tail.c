/*
 * A buffer of up to twice what is kept, whose front half is thrown away when it is full:
 * each byte moves once at most.
 */
#include "core/build/tail.h"

#include <string.h>

#include "core/node/utf8.h"

int
tail_add(struct tail *t, const char *data, size_t len)
{
	t->bytes += len;
	if (len > TAIL_MAX) {
		data += len - TAIL_MAX;
		len = TAIL_MAX;
	}
	if (t->kept.len + len > 2 * TAIL_MAX)
		buf_consume(&t->kept, t->kept.len - (TAIL_MAX - len));
	return buf_put(&t->kept, data, len);
}

char *
tail_text(const struct tail *t)
{
	size_t len = t->kept.len < TAIL_MAX ? t->kept.len : TAIL_MAX;
	const char *from = len ? t->kept.data + t->kept.len - len : "";
	uint64_t before = t->bytes - len;
	struct buf out = { 0 };

	/* Not from the middle of a character. */
	for (int i = 0; before && i < 3 && len && ((unsigned char)*from & 0xc0) == 0x80; i++) {
		from++;
		len--;
		before++;
	}
	if (before)
		buf_printf(&out, "[%llu bytes before this are left out]\n",
			   (unsigned long long)before);
	utf8_put_plain(&out, from, len);
	return buf_steal(&out);
}

void
tail_free(struct tail *t)
{
	buf_free(&t->kept);
	memset(t, 0, sizeof *t);
}
