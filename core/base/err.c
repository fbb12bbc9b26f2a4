#include "core/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/base/str.h"

static const char *const class_names[] = {
	[ERR_NONE] = "none",         [ERR_INPUT] = "input",       [ERR_DENIED] = "denied",
	[ERR_NOT_FOUND] = "missing", [ERR_CONFLICT] = "conflict", [ERR_FUNCTION] = "function",
	[ERR_LIMIT] = "limit",       [ERR_NODE] = "node",         [ERR_AGAIN] = "again",
};
_Static_assert(sizeof class_names / sizeof class_names[0] == ERR_CLASS_COUNT, "a name for each");

/* The bytes of the UTF-8 character that s begins with; 0: it is none, or a control
 * character (U+0080 to U+009F are some, too: terminals obey them). */
static size_t
printable_len(const char *s)
{
	const unsigned char *c = (const unsigned char *)s;

	if (c[0] < 0x20 || c[0] == 0x7f || (c[0] == 0xc2 && c[1] < 0xa0))
		return 0;
	for (size_t n = 1; n <= 4 && s[n - 1]; n++)
		if (str_is_utf8(s, n))
			return n;
	return 0;
}

/* Errors may quote what an attacker sent, or a part of it: one line, no control
 * characters, and UTF-8 also where a character was cut. */
static void
make_printable(char *s)
{
	while (*s) {
		size_t n = printable_len(s);

		if (!n)
			*s = '?';
		s += n ? n : 1;
	}
}

static void
fill(struct err *e, enum err_class cls, int errnum, const char *fmt, va_list ap)
{
	e->cls = cls;
	e->errnum = errnum;
	e->step[0] = '\0';
	vsnprintf(e->text, sizeof e->text, fmt, ap);
}

int
err_set(struct err *e, enum err_class cls, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return -1;
	va_start(ap, fmt);
	fill(e, cls, 0, fmt, ap);
	va_end(ap);
	make_printable(e->text);
	return -1;
}

int
err_sys(struct err *e, enum err_class cls, const char *fmt, ...)
{
	int errnum = errno;
	va_list ap;
	size_t len;

	if (!e)
		return -1;
	va_start(ap, fmt);
	fill(e, cls, errnum, fmt, ap);
	va_end(ap);
	len = strlen(e->text);
	snprintf(e->text + len, sizeof e->text - len, ": %s", strerrordesc_np(errnum));
	make_printable(e->text);
	errno = errnum;
	return -1;
}

int
err_wrap(struct err *e, const char *fmt, ...)
{
	char context[sizeof e->text], text[2 * sizeof e->text + 2];
	va_list ap;

	if (!e)
		return -1;
	va_start(ap, fmt);
	vsnprintf(context, sizeof context, fmt, ap);
	va_end(ap);
	snprintf(text, sizeof text, "%s: %s", context, e->text);
	text[sizeof e->text - 1] = '\0';
	memcpy(e->text, text, sizeof e->text);
	make_printable(e->text);
	return -1;
}

void
err_step(struct err *e, const char *step)
{
	if (e)
		snprintf(e->step, sizeof e->step, "%s", step);
}

void
err_clear(struct err *e)
{
	if (e)
		memset(e, 0, sizeof *e);
}

const char *
err_class_name(enum err_class cls)
{
	return (unsigned)cls < ERR_CLASS_COUNT ? class_names[cls] : "unknown";
}
