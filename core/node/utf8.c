/*
 * UTF-8 as RFC 3629 has it: no surrogates, shortest forms only, up to U+10FFFF.  The second
 * byte's range depends on the first (table 3-7 of the Unicode standard); all others are
 * 80..BF.
 */
#include "core/node/utf8.h"

#include "core/base/buf.h"

static int
lead_length(unsigned char c)
{
	if (c < 0x80)
		return 1;
	if (c >= 0xc2 && c <= 0xdf)
		return 2;
	if (c >= 0xe0 && c <= 0xef)
		return 3;
	return c >= 0xf0 && c <= 0xf4 ? 4 : -1;
}

static int
second_fits(unsigned char lead, unsigned char c)
{
	unsigned char low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
	unsigned char high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;

	return c >= low && c <= high;
}

int
utf8_length(const char *s, size_t len)
{
	const unsigned char *p = (const unsigned char *)s;
	int n;

	if (!len)
		return 0;
	n = lead_length(p[0]);
	for (int i = 1; i < n; i++) {
		if ((size_t)i == len)
			return 0;
		if (i == 1 ? !second_fits(p[0], p[1]) : (p[i] & 0xc0) != 0x80)
			return -1;
	}
	return n;
}

size_t
utf8_cut(const char *s, size_t len, size_t max)
{
	size_t cut = max;

	if (len <= max)
		return len;
	/* At most three bytes back stands the first byte of the character that max cuts. */
	for (int back = 0; back < 4 && cut; back++, cut--)
		if (((unsigned char)s[cut] & 0xc0) != 0x80)
			return cut;
	return max;
}

static int
put_escaped(struct buf *out, unsigned char c)
{
	switch (c) {
	case '"':
		return buf_put(out, "\\\"", 2);
	case '\\':
		return buf_put(out, "\\\\", 2);
	case '\n':
		return buf_put(out, "\\n", 2);
	case '\r':
		return buf_put(out, "\\r", 2);
	case '\t':
		return buf_put(out, "\\t", 2);
	default:
		return buf_printf(out, "\\u%04x", c);
	}
}

int
utf8_put_json(struct buf *out, const char *s, size_t len)
{
	size_t from = 0, at = 0;

	while (at < len) {
		unsigned char c = (unsigned char)s[at];
		int n = utf8_length(s + at, len - at);

		if (n > 0 && c >= 0x20 && c != '"' && c != '\\' && c != 0x7f) {
			at += (size_t)n;
			continue;
		}
		if (buf_put(out, s + from, at - from))
			return -1;
		if (n > 0 && c ? put_escaped(out, c) : buf_put(out, "\xef\xbf\xbd", 3))
			return -1;
		from = ++at;
	}
	return buf_put(out, s + from, at - from);
}

int
utf8_put_plain(struct buf *out, const char *s, size_t len)
{
	size_t from = 0, at = 0;

	while (at < len) {
		unsigned char c = (unsigned char)s[at];
		int n = utf8_length(s + at, len - at);

		if (n > 0 && (c >= 0x20 || c == '\n' || c == '\t') && c != 0x7f) {
			at += (size_t)n;
			continue;
		}
		if (buf_put(out, s + from, at - from) || buf_put(out, "?", 1))
			return -1;
		from = ++at;
	}
	return buf_put(out, s + from, at - from);
}
