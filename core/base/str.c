#include "core/base/str.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/base/clock.h"
#include "core/base/err.h"

int
str_copy(char *dst, size_t size, const char *src)
{
	size_t len = strlen(src);

	if (len >= size)
		return -1;
	memcpy(dst, src, len + 1);
	return 0;
}

int
str_int(const char *text, int64_t min, int64_t max, int64_t *out)
{
	char *end;
	long long value;

	if (!isdigit((unsigned char)text[0]) && !(text[0] == '-' && isdigit((unsigned char)text[1])))
		return -1;
	errno = 0;
	value = strtoll(text, &end, 10);
	if (errno || *end || value < min || value > max)
		return -1;
	*out = value;
	return 0;
}

/* Only digits and one point: strtod alone would take "inf", "nan", "0x1p3" and "1e9". */
static int
fraction(const char *text, const char **end, double *out)
{
	const char *p = text;
	char *stop;

	while (isdigit((unsigned char)*p))
		p++;
	if (*p == '.')
		for (p++; isdigit((unsigned char)*p); p++)
			;
	if (!isdigit((unsigned char)text[0]) || p - text > 30)
		return -1;
	*out = strtod(text, &stop);
	if (stop != p) /* "1e5": strtod read on */
		return -1;
	*end = p;
	return 0;
}

int
str_double(const char *text, double min, double max, double *out)
{
	const char *end;
	double value;

	if (fraction(text, &end, &value) || *end || value < min || value > max)
		return -1;
	*out = value;
	return 0;
}

int
str_size(const char *what, const char *text, uint64_t min, uint64_t max, uint64_t *bytes,
	 struct err *e)
{
	static const char units[] = "BKMGT";
	unsigned long long value;
	uint64_t result;
	const char *unit;
	char *end;
	int shift = 0;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (!isdigit((unsigned char)text[0]) || errno)
		return err_set(e, ERR_INPUT, "%s: '%.40s' is not a size such as 64M", what, text);
	if (*end) {
		unit = strchr(units, toupper((unsigned char)*end));
		if (!unit || end[1])
			return err_set(e, ERR_INPUT, "%s: '%.40s' is not a size: its unit is none of B K M G T",
				       what, text);
		shift = 10 * (int)(unit - units);
	}
	if (__builtin_mul_overflow((uint64_t)value, (uint64_t)1 << shift, &result) || result < min ||
	    result > max)
		return err_set(e, ERR_INPUT, "%s: '%.40s' is out of range (%llu to %llu bytes)", what, text,
			       (unsigned long long)min, (unsigned long long)max);
	*bytes = result;
	return 0;
}

int
str_duration(const char *what, const char *text, uint64_t min_ns, uint64_t max_ns, uint64_t *ns,
	     struct err *e)
{
	static const struct {
		const char *unit;
		double ns;
	} units[] = { { "us", 1e3 }, { "ms", 1e6 }, { "s", 1e9 }, { "m", 60e9 }, { "h", 3600e9 } };
	const char *end;
	double value;

	if (fraction(text, &end, &value))
		return err_set(e, ERR_INPUT, "%s: '%.40s' is not a time such as 5s", what, text);
	for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
		if (strcmp(end, units[i].unit))
			continue;
		value *= units[i].ns;
		if (value < (double)min_ns || value > (double)max_ns)
			return err_set(e, ERR_INPUT, "%s: '%.40s' is out of range (%.15gs to %.15gs)", what, text,
				       (double)min_ns / 1e9, (double)max_ns / 1e9);
		*ns = (uint64_t)llround(value);
		return 0;
	}
	return err_set(e, ERR_INPUT, "%s: '%.40s' needs a unit: us, ms, s, m or h", what, text);
}

bool
str_is_utf8(const void *data, size_t len)
{
	const unsigned char *p = data, *end = p + len;

	while (p < end) {
		uint32_t c = *p++, least;
		int more;

		if (c < 0x80)
			continue;
		if (c >= 0xc2 && c <= 0xdf)
			more = 1, least = 0x80, c &= 0x1f;
		else if (c >= 0xe0 && c <= 0xef)
			more = 2, least = 0x800, c &= 0x0f;
		else if (c >= 0xf0 && c <= 0xf4)
			more = 3, least = 0x10000, c &= 0x07;
		else
			return false;
		for (; more; more--) {
			if (p == end || (*p & 0xc0) != 0x80)
				return false;
			c = c << 6 | (*p++ & 0x3f);
		}
		if (c < least || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
			return false;
	}
	return true;
}

void
str_hex(const void *data, size_t len, char *out)
{
	static const char digits[] = "0123456789abcdef";
	const unsigned char *p = data;

	for (size_t i = 0; i < len; i++) {
		*out++ = digits[p[i] >> 4];
		*out++ = digits[p[i] & 15];
	}
	*out = '\0';
}

int
str_hex_digit(int c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int
str_unhex(const char *text, void *out, size_t len)
{
	unsigned char *p = out;

	if (strlen(text) != 2 * len)
		return -1;
	for (size_t i = 0; i < len; i++) {
		int high = str_hex_digit(text[2 * i]), low = str_hex_digit(text[2 * i + 1]);
		if (high < 0 || low < 0)
			return -1;
		p[i] = (unsigned char)(high << 4 | low);
	}
	return 0;
}

void
str_base64(const void *data, size_t len, char *out)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *p = data;

	for (; len; p += 3) {
		size_t n = len < 3 ? len : 3;
		uint32_t bits = (uint32_t)p[0] << 16 | (n > 1 ? (uint32_t)p[1] << 8 : 0) | (n > 2 ? p[2] : 0);

		*out++ = digits[bits >> 18];
		*out++ = digits[bits >> 12 & 63];
		*out++ = n > 1 ? digits[bits >> 6 & 63] : '=';
		*out++ = n > 2 ? digits[bits & 63] : '=';
		len -= n;
	}
	*out = '\0';
}

bool
str_starts(const char *s, const char *prefix)
{
	return !strncmp(s, prefix, strlen(prefix));
}

bool
str_is_word(const char *words, const char *text)
{
	size_t len = strlen(text);

	for (const char *p = words; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL)
		if (strcspn(p, "|") == len && !strncmp(p, text, len))
			return true;
	return false;
}
