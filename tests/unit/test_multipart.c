/*
 * Forms: what curl, browsers and Python's requests write is read; whatever two readers
 * could read differently is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/err.h"
#include "netio/http_server.h"

#define TYPE "multipart/form-data; boundary=XX"
#define PART(fields, data) "--XX\r\n" fields "\r\n\r\n" data "\r\n"
#define NAMED(name, data) PART("Content-Disposition: form-data; name=\"" name "\"", data)
#define LAST "--XX--\r\n"

static struct http_part parts[HTTP_PARTS_MAX];
static struct err e;

/* In memory of just its size, for the address sanitizer. */
static int
parse(const char *type, const char *body, size_t len, char **copy)
{
	*copy = malloc(len ? len : 1);
	assert_non_null(*copy);
	memcpy(*copy, body, len);
	err_clear(&e);
	return http_multipart(type, *copy, len, parts, &e);
}

static void
part_is(const struct http_part *p, const char *name, const char *filename, const char *data,
	size_t len)
{
	assert_string_equal(p->name, name);
	if (filename)
		assert_string_equal(p->filename, filename);
	else
		assert_null(p->filename);
	assert_int_equal(p->len, len);
	assert_memory_equal(p->data, data, len);
}

static void
test_good(void **state)
{
	static const char body[] = NAMED("metadata", "{\"name\": \"x\"}")
		PART("Content-Disposition: form-data; name=\"zip_file\"; filename=\"p "
		     "\\\"q\\\".zip\"\r\n"
		     "Content-Type: application/zip\r\nContent-Transfer-Encoding: binary",
		     "PK\0\r\n--X\r\n--XXX\r\n--XX-\r\nend") NAMED("empty", "")
			PART("content-disposition:form-data;name=bare;filename=\"caf\xc3\xa9%22\";",
			     "\r\n") LAST;
	static const char bare[] = "--XX\r\nContent-Disposition: form-data; name=a\r\n\r\n--XX--";
	char *copy;

	(void)state;
	assert_int_equal(parse("Multipart/Form-Data;charset=utf-8; boundary=\"XX\"", body,
			       sizeof(body) - 1, &copy),
			 4);
	part_is(&parts[0], "metadata", NULL, "{\"name\": \"x\"}", 13);
	part_is(&parts[1], "zip_file", "p \"q\".zip", "PK\0\r\n--X\r\n--XXX\r\n--XX-\r\nend", 27);
	part_is(&parts[2], "empty", NULL, "", 0);
	part_is(&parts[3], "bare", "caf\xc3\xa9\"", "\r\n", 2);
	http_multipart_free(parts, 4);
	/* Every prefix is refused, but the one that lacks only the very last CRLF. */
	for (size_t n = 0; n < sizeof(body) - 3; n++) {
		free(copy);
		if (parse(TYPE, body, n, &copy) >= 0)
			fail_msg("taken with %zu bytes", n);
		assert_int_equal(e.cls, ERR_INPUT);
	}
	free(copy);
	assert_int_equal(parse(TYPE, body, sizeof(body) - 3, &copy), 4);
	http_multipart_free(parts, 4);
	free(copy);
	/* A part without data, its delimiter right behind its header; a form without parts. */
	assert_int_equal(parse(TYPE, bare, sizeof(bare) - 1, &copy), 1);
	part_is(&parts[0], "a", NULL, "", 0);
	http_multipart_free(parts, 1);
	free(copy);
	assert_int_equal(parse(TYPE, LAST, 8, &copy), 0);
	free(copy);
}

static void
refused(const char *type, const char *body, const char *why)
{
	char *copy;
	int n = parse(type, body, strlen(body), &copy);

	if (n >= 0)
		fail_msg("taken: %s", body);
	if (!strstr(e.text, why))
		fail_msg("%s: %s", body, e.text);
	assert_int_equal(e.cls, ERR_INPUT);
	free(copy);
}

static void
test_bad(void **state)
{
	(void)state;
	refused(NULL, "", "is not multipart/form-data");
	refused("application/json", "", "is not multipart/form-data");
	refused("multipart/form-data", "", "no boundary");
	refused("multipart/form-data; boundary=", "", "malformed");
	refused("multipart/form-data; boundary=\"\"", "", "no boundary");
	refused("multipart/form-data; boundary=\"XX", "", "malformed");
	refused("multipart/form-data; boundary=XX; boundary=YY", LAST, "two boundaries");
	refused("multipart/form-dataX; boundary=XX", LAST, "malformed");
	refused("multipart/form-data; boundary="
		"01234567890123456789012345678901234567890123456789012345678901234567890",
		"", "1 to 70");
	refused(TYPE, "", "does not begin");
	refused(TYPE, "preamble\r\n" LAST, "does not begin");
	refused(TYPE, "--XY\r\n", "does not begin");
	refused(TYPE, NAMED("a", "1") LAST "epilogue", "after the multipart body");
	refused(TYPE, NAMED("a", "1") "--XX", "truncated");
	refused(TYPE, NAMED("a", "1"), "truncated");
	refused(TYPE, "--XX\r\nContent-Disposition: form-data; name=a",
		"truncated in a part's header");
	refused(TYPE, PART("Content-Type: text/plain", "1") LAST, "has no name");
	refused(TYPE, PART("Content-Disposition: form-data", "1") LAST, "has no name");
	refused(TYPE, PART("Content-Disposition: form-data; name=\"\"", "1") LAST, "has no name");
	refused(TYPE, PART("Content-Disposition: attachment; name=a", "1") LAST, "not form-data");
	refused(TYPE, PART("Content-Disposition: form-data; name=a; name=b", "1") LAST,
		"malformed");
	refused(TYPE, PART("Content-Disposition: form-data; name=\"a", "1") LAST, "malformed");
	refused(TYPE, PART("Content-Disposition: form-data; name=\"a\x01\"", "1") LAST,
		"malformed");
	refused(TYPE, PART("Content-Disposition: form-data; name=\"\xff\"", "1") LAST, "malformed");
	refused(TYPE,
		PART("Content-Disposition: form-data; name=a\r\nContent-Disposition: form-data; "
		     "name=b",
		     "1") LAST,
		"not form-data");
	refused(TYPE,
		PART("Content-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: base64",
		     "1") LAST,
		"Content-Transfer-Encoding");
	refused(TYPE,
		PART("Content-Disposition: form-data; filename=a\r\n"
		     "Content-Disposition: form-data; name=b; filename=c",
		     "1") LAST,
		"has no name");
	refused(TYPE, PART("no colon", "1") LAST, "malformed header");
	refused(TYPE, PART(" folded: x", "1") LAST, "malformed header");
}

static void
test_bounds(void **state)
{
	char *body = calloc(1, 64 << 10), *copy;
	size_t n = 0;

	(void)state;
	assert_non_null(body);
	for (int i = 0; i <= HTTP_PARTS_MAX; i++)
		n += strlen(strcpy(body + n, NAMED("a", "1")));
	strcpy(body + n, LAST);
	refused(TYPE, body, "more than 16 parts");
	n -= strlen(NAMED("a", "1"));
	strcpy(body + n, LAST);
	assert_int_equal(parse(TYPE, body, strlen(body), &copy), HTTP_PARTS_MAX);
	http_multipart_free(parts, HTTP_PARTS_MAX);
	free(copy);
	n = strlen(strcpy(body, "--XX\r\n"));
	for (int i = 0; i < 300; i++)
		n += strlen(strcpy(body + n, "X-Field: 0123456789012345678901234567890\r\n"));
	strcpy(body + n, "\r\n\r\n" LAST);
	refused(TYPE, body, "too long");
	free(body);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
