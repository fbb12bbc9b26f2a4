/*
 * multipart/form-data (RFC 7578) over a complete body: parts are found, not copied.
 *
 *     --BOUNDARY CRLF  fields CRLF CRLF  data  CRLF --BOUNDARY CRLF ... CRLF --BOUNDARY--
 *
 * Strict where readers differ, because what one takes for a part another takes for data:
 * no text before the first boundary or after the last, CRLF at every line's end, no field
 * or parameter twice.  Names are UTF-8 without control characters; `\"` and `%22` in them
 * are the quote that clients could not write.
 */
#include "netio/http_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/base/err.h"
#include "core/base/str.h"

enum {
	BOUNDARY_MAX = 70, /* RFC 2046 */
	FIELDS_MAX = 8 << 10,
	LINE_MAX_BYTES = 4 << 10,
	VALUE_MAX = 1 << 10,
};

/* A stretch of text that is not ended by a NUL. */
struct span {
	const char *p, *end;
};

static void
skip_blanks(struct span *s)
{
	while (s->p < s->end && (*s->p == ' ' || *s->p == '\t'))
		s->p++;
}

static bool
skip_char(struct span *s, char c)
{
	if (s->p == s->end || *s->p != c)
		return false;
	s->p++;
	return true;
}

static bool
span_is(struct span s, const char *word)
{
	return (size_t)(s.end - s.p) == strlen(word) && strncasecmp(s.p, word, strlen(word)) == 0;
}

static bool
is_token_char(char c)
{
	return c > 0x20 && c < 0x7f && !strchr("()<>@,;:\\\"/[]?=", c);
}

static struct span
take_token(struct span *s)
{
	struct span token = {s->p, s->p};

	while (s->p < s->end && is_token_char(*s->p))
		s->p++;
	token.end = s->p;
	return token;
}

/* A token or a quoted string, into out with its NUL.  -1: malformed or too long. */
static int
take_value(struct span *s, char out[VALUE_MAX])
{
	size_t n = 0;

	if (!skip_char(s, '"')) {
		struct span token = take_token(s);

		n = (size_t)(token.end - token.p);
		if (!n || n >= VALUE_MAX)
			return -1;
		memcpy(out, token.p, n);
		out[n] = '\0';
		return 0;
	}
	while (s->p < s->end && *s->p != '"') {
		char c = *s->p++;

		if (c == '\\' && s->p < s->end && (*s->p == '"' || *s->p == '\\'))
			c = *s->p++;
		else if (c == '%' && s->end - s->p >= 2 && memcmp(s->p, "22", 2) == 0) {
			c = '"';
			s->p += 2;
		}
		if ((unsigned char)c < 0x20 || c == 0x7f || n + 1 >= VALUE_MAX)
			return -1;
		out[n++] = c;
	}
	out[n] = '\0';
	return skip_char(s, '"') && str_is_utf8(out, n) ? 0 : -1;
}

/* `; name=value` once more: 1 with *name and value filled, 0 at the end, -1 malformed. */
static int
take_parameter(struct span *s, struct span *name, char value[VALUE_MAX])
{
	skip_blanks(s);
	if (s->p == s->end)
		return 0;
	if (!skip_char(s, ';'))
		return -1;
	skip_blanks(s);
	if (s->p == s->end)
		return 0; /* a last `;`, which some write */
	*name = take_token(s);
	if (name->p == name->end || !skip_char(s, '='))
		return -1;
	return take_value(s, value) < 0 ? -1 : 1;
}

static int
find_boundary(const char *content_type, char boundary[VALUE_MAX], struct err *e)
{
	static const char type[] = "multipart/form-data";
	struct span s, name;
	char value[VALUE_MAX];
	int rc;

	boundary[0] = '\0';
	if (!content_type || strncasecmp(content_type, type, strlen(type)) != 0)
		return err_set(e, ERR_INPUT, "the request's body is not %s", type);
	s = (struct span){content_type + strlen(type), content_type + strlen(content_type)};
	while ((rc = take_parameter(&s, &name, value)) > 0) {
		if (!span_is(name, "boundary"))
			continue;
		if (boundary[0])
			return err_set(e, ERR_INPUT,
				       "the multipart content type has two boundaries");
		str_copy(boundary, VALUE_MAX, value);
	}
	if (rc < 0)
		return err_set(e, ERR_INPUT, "the multipart content type is malformed");
	if (!boundary[0] || strlen(boundary) > BOUNDARY_MAX)
		return err_set(e, ERR_INPUT,
			       "the multipart content type has no boundary of 1 to %d characters",
			       BOUNDARY_MAX);
	return 0;
}

static char *
keep(char **slot, const char *value)
{
	if (*slot)
		return NULL;
	return *slot = strdup(value);
}

/* Content-Disposition: form-data; name="..."; filename="..." */
static int
read_disposition(struct span s, struct http_part *part, struct err *e)
{
	struct span name;
	char value[VALUE_MAX], *part_name = NULL, *filename = NULL;
	int rc;

	name = take_token(&s);
	if (part->name || !span_is(name, "form-data"))
		return err_set(e, ERR_INPUT, "a part's Content-Disposition is not form-data");
	while ((rc = take_parameter(&s, &name, value)) > 0)
		if ((span_is(name, "name") && !keep(&part_name, value)) ||
		    (span_is(name, "filename") && !keep(&filename, value)))
			break;
	if (rc || !part_name || !*part_name) {
		free(part_name);
		free(filename);
		return err_set(e, ERR_INPUT,
			       rc ? "a part's Content-Disposition is malformed"
				  : "a part of the form has no name");
	}
	part->name = part_name;
	part->filename = filename;
	return 0;
}

static int
read_field(struct span line, struct http_part *part, struct err *e)
{
	struct span name = take_token(&line);
	char value[VALUE_MAX];

	if (name.p == name.end || !skip_char(&line, ':'))
		return err_set(e, ERR_INPUT, "a part has a malformed header field");
	skip_blanks(&line);
	if (span_is(name, "Content-Disposition"))
		return read_disposition(line, part, e);
	if (span_is(name, "Content-Transfer-Encoding") &&
	    (take_value(&line, value) < 0 ||
	     (strcasecmp(value, "binary") && strcasecmp(value, "8bit") &&
	      strcasecmp(value, "7bit"))))
		return err_set(e, ERR_INPUT,
			       "a part has a Content-Transfer-Encoding, which forms have not");
	return 0;
}

/* The fields up to the empty line; s is behind it then. */
static int
read_fields(struct span *s, struct http_part *part, struct err *e)
{
	const char *from = s->p;

	for (;;) {
		const char *eol = memmem(s->p, (size_t)(s->end - s->p), "\r\n", 2);
		struct span line = {s->p, eol};

		if (!eol)
			return err_set(e, ERR_INPUT,
				       "the multipart body is truncated in a part's header");
		s->p = eol + 2;
		if (s->p - from > FIELDS_MAX || eol - line.p > LINE_MAX_BYTES)
			return err_set(e, ERR_INPUT, "a part's header is too long");
		if (line.p == line.end)
			break;
		if (read_field(line, part, e) < 0)
			return -1;
	}
	if (!part->name)
		return err_set(e, ERR_INPUT, "a part of the form has no name");
	return 0;
}

enum delimiter { NO_DELIMITER, NEXT_PART, LAST_PART };

/* What stands at s, behind "--BOUNDARY"; moves s past the line's end. */
static enum delimiter
after_boundary(struct span *s)
{
	struct span t = *s;
	bool last = t.end - t.p >= 2 && memcmp(t.p, "--", 2) == 0;

	if (last)
		t.p += 2;
	skip_blanks(&t);
	if (!(skip_char(&t, '\r') && skip_char(&t, '\n')) && !(last && t.p == t.end))
		return NO_DELIMITER;
	*s = t;
	return last ? LAST_PART : NEXT_PART;
}

/* Data up to the next delimiter, of which mark is "CRLF--BOUNDARY". */
static enum delimiter
read_data(struct span *s, const char *mark, struct http_part *part)
{
	const char *from = s->p, *at;
	size_t mark_len = strlen(mark);
	enum delimiter kind;

	/* An empty part's data may end where its header does. */
	struct span look = {from - 2, s->end};

	while ((at = memmem(look.p, (size_t)(look.end - look.p), mark, mark_len))) {
		look.p = at + mark_len;
		kind = after_boundary(&look);
		if (kind == NO_DELIMITER)
			continue; /* a longer line that begins like it */
		part->data = from;
		part->len = at < from ? 0 : (size_t)(at - from);
		s->p = look.p;
		return kind;
	}
	return NO_DELIMITER;
}

static int
parse(const char *mark, struct span s, struct http_part *parts, int *n, struct err *e)
{
	enum delimiter kind = NO_DELIMITER;
	size_t len = strlen(mark);

	if ((size_t)(s.end - s.p) >= len - 2 && memcmp(s.p, mark + 2, len - 2) == 0) {
		s.p += len - 2;
		kind = after_boundary(&s);
	}
	if (kind == NO_DELIMITER)
		return err_set(e, ERR_INPUT, "the multipart body does not begin with its boundary");
	while (kind == NEXT_PART) {
		struct http_part *part = &parts[*n];

		if (*n == HTTP_PARTS_MAX)
			return err_set(e, ERR_INPUT, "the form has more than %d parts",
				       HTTP_PARTS_MAX);
		*part = (struct http_part){.data = ""};
		++*n;
		if (read_fields(&s, part, e) < 0)
			return -1;
		kind = read_data(&s, mark, part);
		if (kind == NO_DELIMITER)
			return err_set(e, ERR_INPUT,
				       "the multipart body is truncated: it does not end with its "
				       "boundary");
	}
	if (s.p != s.end)
		return err_set(e, ERR_INPUT,
			       "there is something after the multipart body's last boundary");
	return 0;
}

int
http_multipart(const char *content_type, const void *body, size_t len,
	       struct http_part parts[HTTP_PARTS_MAX], struct err *e)
{
	char boundary[VALUE_MAX], mark[BOUNDARY_MAX + 8];
	struct span s = {body, (const char *)body + len};
	int n = 0;

	if (find_boundary(content_type, boundary, e) < 0)
		return -1;
	snprintf(mark, sizeof(mark), "\r\n--%.*s", BOUNDARY_MAX, boundary);
	if (parse(mark, s, parts, &n, e) < 0) {
		http_multipart_free(parts, n);
		return -1;
	}
	return n;
}

void
http_multipart_free(struct http_part *parts, int n)
{
	for (int i = 0; i < n; i++) {
		free((char *)(uintptr_t)parts[i].name);
		free((char *)(uintptr_t)parts[i].filename);
	}
}
