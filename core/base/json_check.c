/*
 * JSON as bytes: an iterative checker of RFC 8259 that builds nothing and needs 64 bytes
 * of state for a nesting of 512, one bit a level, whatever the size of the text.
 * Everything from outside goes through it, payloads included, which are never printed
 * again but cut out and passed on as they stand.
 */
#include "core/base/json.h"

#include <string.h>

#include "core/base/str.h"

struct scan {
	const unsigned char *p, *end;
};

static void
scan_space(struct scan *s)
{
	while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r'))
		s->p++;
}

static bool
scan_char(struct scan *s, int c)
{
	if (s->p == s->end || *s->p != c)
		return false;
	s->p++;
	return true;
}

/* What follows a backslash; p is behind it. */
static bool
scan_escape(struct scan *s)
{
	if (s->p == s->end)
		return false;
	switch (*s->p++) {
	case '"':
	case '\\':
	case '/':
	case 'b':
	case 'f':
	case 'n':
	case 'r':
	case 't':
		return true;
	case 'u':
		for (int i = 0; i < 4; i++, s->p++)
			if (s->p == s->end || str_hex_digit(*s->p) < 0)
				return false;
		return true;
	default:
		s->p--;
		return false;
	}
}

static bool
scan_string(struct scan *s)
{
	const unsigned char *from = s->p + 1;
	unsigned char high = 0;

	if (!scan_char(s, '"'))
		return false;
	for (;;) {
		if (s->p == s->end || *s->p < 0x20)
			return false;
		if (*s->p == '"')
			break;
		high |= *s->p;
		if (*s->p++ == '\\' && !scan_escape(s))
			return false;
	}
	/* A quote or backslash is never a part of a longer character, so that the end found
	 * above is the right one if the text is UTF-8 at all. */
	if ((high & 0x80) && !str_is_utf8(from, (size_t)(s->p - from))) {
		s->p = from;
		return false;
	}
	s->p++;
	return true;
}

static bool
scan_digits(struct scan *s)
{
	const unsigned char *from = s->p;

	while (s->p < s->end && *s->p >= '0' && *s->p <= '9')
		s->p++;
	return s->p > from;
}

static bool
scan_number(struct scan *s)
{
	scan_char(s, '-');
	if (!scan_char(s, '0') && !scan_digits(s))
		return false;
	if (scan_char(s, '.') && !scan_digits(s))
		return false;
	if (scan_char(s, 'e') || scan_char(s, 'E')) {
		if (!scan_char(s, '+'))
			scan_char(s, '-');
		return scan_digits(s);
	}
	return true;
}

static bool
scan_word(struct scan *s, const char *word)
{
	size_t len = strlen(word);

	if ((size_t)(s->end - s->p) < len || memcmp(s->p, word, len) != 0)
		return false;
	s->p += len;
	return true;
}

static bool
scan_scalar(struct scan *s)
{
	if (s->p == s->end)
		return false;
	switch (*s->p) {
	case '"':
		return scan_string(s);
	case 't':
		return scan_word(s, "true");
	case 'f':
		return scan_word(s, "false");
	case 'n':
		return scan_word(s, "null");
	default:
		return scan_number(s);
	}
}

/* `"key" :` and the space around it, up to the value. */
static bool
scan_key(struct scan *s)
{
	if (!scan_string(s))
		return false;
	scan_space(s);
	if (!scan_char(s, ':'))
		return false;
	scan_space(s);
	return true;
}

/* One bit a level: an object, or else an array. */
struct nesting {
	uint64_t object[JSON_DEPTH_MAX / 64];
	unsigned depth;
};
_Static_assert(JSON_DEPTH_MAX % 64 == 0, "whole words of levels");

static bool
nesting_in_object(const struct nesting *n)
{
	return n->object[(n->depth - 1) / 64] >> ((n->depth - 1) % 64) & 1;
}

static bool
nesting_push(struct nesting *n, bool object)
{
	uint64_t bit = 1ull << (n->depth % 64);

	if (n->depth == JSON_DEPTH_MAX)
		return false;
	if (object)
		n->object[n->depth / 64] |= bit;
	else
		n->object[n->depth / 64] &= ~bit;
	n->depth++;
	return true;
}

/*
 * After a value: closes what is closed here and goes to where the next value begins.
 * depth 0 afterwards: the outermost value is complete.
 */
static bool
scan_after_value(struct scan *s, struct nesting *n)
{
	while (n->depth) {
		bool object = nesting_in_object(n);

		scan_space(s);
		if (scan_char(s, ',')) {
			scan_space(s);
			return object ? scan_key(s) : true;
		}
		if (!scan_char(s, object ? '}' : ']'))
			return false;
		n->depth--;
	}
	return true;
}

/* One value, whatever it holds; p is behind it afterwards, or where the fault is. */
static enum json_form
scan_value(struct scan *s)
{
	struct nesting n = {.depth = 0};

	do {
		bool object = scan_char(s, '{');

		if (!object && !scan_char(s, '[')) {
			if (!scan_scalar(s))
				return JSON_FORM_BAD;
		} else {
			if (!nesting_push(&n, object))
				return JSON_FORM_DEEP;
			scan_space(s);
			if (!scan_char(s, object ? '}' : ']')) {
				if (object && !scan_key(s))
					return JSON_FORM_BAD;
				continue;
			}
			n.depth--;
		}
		if (!scan_after_value(s, &n))
			return JSON_FORM_BAD;
	} while (n.depth);
	return JSON_FORM_OK;
}

enum json_form
json_scan(const void *data, size_t len, size_t *at)
{
	struct scan s = {.p = data, .end = (const unsigned char *)data + len};
	enum json_form form = JSON_FORM_BAD;

	if (len) {
		scan_space(&s);
		form = scan_value(&s);
		if (form == JSON_FORM_OK) {
			scan_space(&s);
			if (s.p != s.end)
				form = JSON_FORM_BAD;
		}
		*at = (size_t)(s.p - (const unsigned char *)data);
	} else {
		*at = 0;
	}
	return form;
}

enum json_form
json_check(const void *data, size_t len)
{
	size_t at;

	return json_scan(data, len, &at);
}

/* Is the JSON string from..to (without quotes) key, an ASCII word?  Escapes count. */
static bool
key_is(const unsigned char *from, const unsigned char *to, const char *key)
{
	static const char escapes[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
	int c;

	for (; from < to; key++) {
		c = *from++;
		if (c == '\\' && *from == 'u') {
			c = 0;
			for (int i = 1; i <= 4; i++)
				c = c * 16 + str_hex_digit(from[i]);
			from += 5;
		} else if (c == '\\') {
			c = meant[strchr(escapes, *from++) - escapes];
		}
		if (!*key || c != (unsigned char)*key)
			return false;
	}
	return *key == '\0';
}

/* After the brace or a comma: whether the next member is called key, and its value. */
static bool
next_member(struct scan *s, const char *key, struct scan *value)
{
	const unsigned char *from, *quote;

	scan_space(s);
	from = s->p + 1;
	value->p = value->end = NULL;
	if (!scan_string(s))
		return false;
	quote = s->p - 1;
	scan_space(s);
	if (!scan_char(s, ':'))
		return false;
	scan_space(s);
	value->p = s->p;
	if (scan_value(s) != JSON_FORM_OK)
		return false;
	value->end = s->p;
	scan_space(s);
	return key_is(from, quote, key);
}

static void
tell_place(const struct scan *value, const void *data, size_t *at, size_t *n)
{
	*at = (size_t)(value->p - (const unsigned char *)data);
	*n = (size_t)(value->end - value->p);
}

bool
json_member(const void *data, size_t len, const char *key, size_t *at, size_t *n)
{
	struct scan s = {.p = data, .end = (const unsigned char *)data + len}, value;

	scan_space(&s);
	if (!scan_char(&s, '{'))
		return false;
	do {
		if (next_member(&s, key, &value)) {
			tell_place(&value, data, at, n);
			return true;
		}
	} while (value.end && scan_char(&s, ','));
	return false;
}

bool
json_only_member(const void *data, size_t len, const char *key, size_t *at, size_t *n)
{
	struct scan s = {.p = data, .end = (const unsigned char *)data + len}, value;

	scan_space(&s);
	/* The place is told last: a caller that was told no goes on with what it had. */
	if (!scan_char(&s, '{') || !next_member(&s, key, &value) || !scan_char(&s, '}'))
		return false;
	tell_place(&value, data, at, n);
	return true;
}
