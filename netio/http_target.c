/*
 * The request target: decoded strictly and once, here, because every later reader would
 * have to agree on what "%2", "%00" or "%ff" mean.  The text is decoded in place; it only
 * gets shorter.
 */
#include "netio/http_private.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/base/str.h"

/* Decodes text[0..len) in place and ends it with a NUL.  In a query '+' means a space; in a
 * path an encoded '/' is HTTP_SLASH. */
static int
decode(char *text, size_t len, bool query)
{
	size_t at = 0, out = 0;

	while (at < len) {
		unsigned char c = (unsigned char)text[at++];
		bool slash = false;

		if (c == ' ')
			return -1;
		if (c == '%') {
			char pair[3];

			if (len - at < 2)
				return -1;
			memcpy(pair, text + at, 2);
			pair[2] = '\0';
			if (str_unhex(pair, &c, 1) < 0)
				return -1;
			at += 2;
			slash = c == '/' && !query;
		} else if (c == '+' && query) {
			c = ' ';
		}
		if (c < 0x20 || c == 0x7f)
			return -1;
		text[out++] = slash ? HTTP_SLASH : (char)c;
	}
	text[out] = '\0';
	return str_is_utf8(text, out) ? 0 : -1;
}

/* Past "http://host" of a target in absolute form, which RFC 9112 asks servers to take. */
static char *
after_authority(char *text)
{
	if (strncasecmp(text, "http://", strlen("http://")) == 0)
		text += strlen("http://");
	else if (strncasecmp(text, "https://", strlen("https://")) == 0)
		text += strlen("https://");
	else
		return text;
	return text + strcspn(text, "/?#");
}

static int
parse_query(struct http_target *t, char *query, const char **fault)
{
	*fault = "the query has a malformed escape, a blank, a control character or is not UTF-8";
	while (query && *query) {
		char *next = strchr(query, '&'), *value;

		if (next)
			*next++ = '\0';
		if (*query) {
			value = strchr(query, '=');
			if (value)
				*value++ = '\0';
			else
				value = query + strlen(query);
			if (t->count == HTTP_QUERY_MAX) {
				*fault = "the query has too many parameters";
				return -1;
			}
			if (decode(query, strlen(query), true) < 0 ||
			    decode(value, strlen(value), true) < 0)
				return -1;
			t->params[t->count++] = (struct http_param){query, value};
		}
		query = next;
	}
	return 0;
}

int
http_target_parse(struct http_target *t, const char *raw, const char **fault)
{
	char *query;

	/* A byte more in front: "http://host?x" and "http://host" have no path of their own. */
	t->text = malloc(strlen(raw) + 2);
	if (!t->text) {
		*fault = "out of memory";
		return -1;
	}
	t->text[0] = '/';
	memcpy(t->text + 1, raw, strlen(raw) + 1);
	t->path = after_authority(t->text + 1);
	if (strchr(t->path, '#')) {
		*fault = "a request target has no fragment";
		return -1;
	}
	query = strchr(t->path, '?');
	if (query)
		*query++ = '\0';
	if (!*t->path)
		t->path = memcpy(t->text, "/", 2);
	if (*t->path != '/') {
		*fault = "the request target is no path";
		return -1;
	}
	if (decode(t->path, strlen(t->path), false) < 0) {
		*fault = "the path has a malformed escape, a blank, a control character or is not "
			 "UTF-8";
		return -1;
	}
	if (parse_query(t, query, fault) < 0)
		return -1;
	*fault = NULL;
	return 0;
}

const char *
http_path(const struct http_request *r)
{
	return r->target.path;
}

int
http_range(const struct http_request *r, uint64_t total, uint64_t *from)
{
	const char *text = http_header(r, "Range"), *dash;
	char number[24];
	int64_t first;

	*from = 0;
	if (!text || strncasecmp(text, "bytes=", strlen("bytes=")) != 0)
		return 0;
	text += strlen("bytes=");
	dash = text + strspn(text, "0123456789");
	if (dash == text || strcmp(dash, "-") != 0)
		return 0;
	/* With more digits than any file's size has it begins beyond the end, too. */
	if (str_copy(number, sizeof(number), text))
		return 416;
	number[dash - text] = '\0';
	if (str_int(number, 0, INT64_MAX, &first) || (uint64_t)first >= total)
		return 416;
	*from = (uint64_t)first;
	return 206;
}

const char *
http_query(const struct http_request *r, const char *name)
{
	for (unsigned i = 0; i < r->target.count; i++)
		if (strcmp(r->target.params[i].name, name) == 0)
			return r->target.params[i].value;
	return NULL;
}

const char *
http_query_other(const struct http_request *r, const char *names)
{
	for (unsigned i = 0; i < r->target.count; i++)
		if (!str_is_word(names, r->target.params[i].name))
			return r->target.params[i].name;
	return NULL;
}
