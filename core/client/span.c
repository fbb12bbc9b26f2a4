#include "core/client/span.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/buf.h"
#include "core/base/json.h"

static bool
is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static size_t
skip_space(struct span s, size_t at)
{
	while (at < s.n && is_space(s.p[at]))
		at++;
	return at;
}

/* The offset after the string whose opening quote is at `at`. */
static size_t
skip_string(struct span s, size_t at)
{
	for (at++; at < s.n && s.p[at] != '"'; at++)
		if (s.p[at] == '\\')
			at++;
	return at < s.n ? at + 1 : s.n;
}

/* The offset after the value that begins at `at`. */
static size_t
skip_value(struct span s, size_t at)
{
	size_t depth = 0;

	while (at < s.n) {
		char c = s.p[at];

		if (c == '"') {
			at = skip_string(s, at);
		} else if (c == '{' || c == '[') {
			depth++;
			at++;
		} else if (c == '}' || c == ']') {
			depth--;
			at++;
		} else if (depth > 0) {
			at++;
			continue;
		} else { /* a number or a word at the top: up to what cannot be in one */
			while (at < s.n && !is_space(s.p[at]) && !strchr(",]}:", s.p[at]))
				at++;
		}
		if (depth == 0)
			return at;
	}
	return s.n;
}

struct span
span_of(const void *data, size_t len)
{
	struct span s = { data, len };
	size_t begin = skip_space(s, 0);

	while (s.n > begin && is_space(s.p[s.n - 1]))
		s.n--;
	return (struct span){ s.p + begin, s.n - begin };
}

bool
span_is(struct span s, char first)
{
	return s.p && s.n > 0 && s.p[0] == first;
}

bool
span_next(struct span container, size_t *at, struct span *key, struct span *value)
{
	struct span s = container;
	size_t i = *at, begin;

	if (!span_is(s, '{') && !span_is(s, '['))
		return false;
	i = skip_space(s, i ? i : 1);
	if (i < s.n && s.p[i] == ',')
		i = skip_space(s, i + 1);
	if (i >= s.n || s.p[i] == '}' || s.p[i] == ']')
		return false;
	if (s.p[0] == '{') {
		begin = i;
		i = skip_string(s, i);
		if (key)
			*key = (struct span){ s.p + begin + 1, i - begin - 2 };
		i = skip_space(s, i);
		i = skip_space(s, i < s.n ? i + 1 : i); /* the colon */
	}
	begin = i;
	i = skip_value(s, i);
	*value = (struct span){ s.p + begin, i - begin };
	*at = i;
	return i > begin;
}

static struct span
member(struct span object, const char *key, size_t len)
{
	struct span name, value;
	size_t at = 0;

	if (!span_is(object, '{'))
		return (struct span){ 0 };
	while (span_next(object, &at, &name, &value))
		if (name.n == len && !memcmp(name.p, key, len))
			return value;
	return (struct span){ 0 };
}

struct span
span_member(struct span object, const char *key)
{
	return member(object, key, strlen(key));
}

struct span
span_path(struct span object, const char *dotted)
{
	for (;;) {
		size_t len = strcspn(dotted, ".");

		object = member(object, dotted, len);
		if (!object.p || dotted[len] == '\0' || span_is(object, 'n'))
			return object;
		dotted += len + 1;
	}
}

char *
span_text(struct span s)
{
	struct json *tree;
	const char *text;
	char *copy;

	if (!s.p || span_is(s, 'n'))
		return strdup("");
	if (!span_is(s, '"'))
		return strndup(s.p, s.n);
	tree = json_parse(s.p, s.n, NULL);
	text = json_string_value(tree);
	copy = strdup(text ? text : "");
	json_free(tree);
	return copy;
}

static void
newline(struct buf *out, size_t depth)
{
	buf_put(out, "\n", 1);
	for (size_t i = 0; i < depth; i++)
		buf_put(out, "  ", 2);
}

static void
print(struct span s, struct buf *out, bool pretty)
{
	size_t depth = 0;

	for (size_t i = 0; i < s.n;) {
		char c = s.p[i];
		size_t next = i + 1;

		if (is_space(c)) {
			i++;
			continue;
		}
		if (c == '"') {
			next = skip_string(s, i);
		} else if (c == '{' || c == '[') {
			depth++;
			next = skip_space(s, next);
			if (next < s.n && s.p[next] == c + 2) { /* empty: '}' and ']' are two further */
				depth--;
				buf_put(out, c == '{' ? "{}" : "[]", 2);
				i = next + 1;
				continue;
			}
		} else if ((c == '}' || c == ']') && depth > 0) {
			depth--;
			if (pretty)
				newline(out, depth);
			next = i + 1;
		}
		buf_put(out, s.p + i, c == '"' ? next - i : 1);
		if (pretty && (c == '{' || c == '[' || c == ','))
			newline(out, depth);
		else if (pretty && c == ':')
			buf_put(out, " ", 1);
		i = next;
	}
}

void
span_pretty(struct span s, struct buf *out)
{
	print(s, out, true);
}

void
span_compact(struct span s, struct buf *out)
{
	print(s, out, false);
}
