/*
 * The HTTP server, by bytes on real sockets: what a request may be, and what is answered.
 * Clients that leave, dawdle or come in crowds: test_http_strain.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/http_fixture.h"

static void
test_keep_alive_and_methods(void **state)
{
	int fd = dial();
	struct got g;

	(void)state;
	for (int i = 0; i < 3; i++) {
		put(fd, "POST /echo HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhello");
		g = get(fd);
		assert_int_equal(g.status, 200);
		assert_string_equal(g.body, "hello");
		assert_non_null(strstr(g.head, "X-Spooled: no"));
		got_free(&g);
	}
	put(fd, "PATCH /echo HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n");
	g = get(fd);
	assert_non_null(strstr(g.head, "X-Method: PATCH"));
	got_free(&g);
	put(fd, "GET /empty HTTP/1.1\r\n" H "\r\n");
	g = get(fd);
	assert_int_equal(g.status, 204);
	got_free(&g);
	put(fd, "HEAD /path/x HTTP/1.1\r\n" H "\r\nGET /close HTTP/1.1\r\n" H "\r\n");
	g.status = 0;
	/* HEAD states a length and sends no body. */
	{
		char head[512] = "";
		size_t n = 0;

		while (n < sizeof(head) - 1 && !strstr(head, "\r\n\r\n") &&
		       recv(fd, head + n, 1, 0) == 1)
			n++;
		assert_non_null(strstr(head, "Content-Length: 7"));
	}
	g = get(fd);
	assert_string_equal(g.body, "bye");
	assert_non_null(strcasestr(g.head, "Connection: close"));
	got_free(&g);
	assert_true(at_end(fd));
	close(fd);
}

static void
test_later_and_pipelined(void **state)
{
	int fd = dial();

	(void)state;
	put(fd, "POST /later HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\none"
		"POST /echo HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\ntwo"
		"POST /later HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nthree");
	for (int i = 0; i < 3; i++) {
		static const char *const want[] = {"one", "two", "three"};
		struct got g = get(fd);

		assert_int_equal(g.status, 200);
		assert_string_equal(g.body, want[i]);
		got_free(&g);
	}
	close(fd);
}

/* A client may close its sending side and wait for the answer. */
static void
test_half_closed(void **state)
{
	int fd = dial();
	struct got g;

	(void)state;
	put(fd, "POST /later HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\none");
	shutdown(fd, SHUT_WR);
	g = get(fd);
	assert_int_equal(g.status, 200);
	assert_string_equal(g.body, "one");
	got_free(&g);
	close(fd);
	/* Also on a connection that the server has seen idle, once it has the request. */
	for (int i = 0; i < 2; i++) {
		int other = dial();

		fd = dial();
		put(other, "GET /path/a HTTP/1.1\r\n" H "\r\n");
		want_answer(other, 200, "/path/a");
		put(fd, i ? "GET /ask/yes HTTP/1.1\r\n" H "\r\n"
			  : "GET /later HTTP/1.1\r\n" H "\r\n");
		put(other, "GET /path/b HTTP/1.1\r\n" H "\r\n");
		want_answer(other, 200, "/path/b");
		shutdown(fd, SHUT_WR);
		want_answer(fd, 200, "");
		close(fd);
		close(other);
	}
}

static void
test_bodies(void **state)
{
	static const size_t sizes[] = {0, 1, MEMORY_BYTES, MEMORY_BYTES + 1, 300000, LIMIT_BYTES};
	static const char *const paths[] = {"/echo", "/take", "/later"};
	char head[128];

	(void)state;
	for (size_t i = 0; i < 18; i++) {
		size_t size = sizes[i / 3];
		int fd = dial();
		struct got g;

		snprintf(head, sizeof(head), "POST %s HTTP/1.1\r\n" H "Content-Length: %zu\r\n\r\n",
			 paths[i % 3], size);
		assert_int_equal(put(fd, head), 0);
		assert_int_equal(put_many(fd, size), 0);
		g = get(fd);
		assert_int_equal(g.status, 200);
		assert_int_equal(g.len, size);
		assert_int_equal(strspn(g.body, "x"), size);
		if (i % 3 == 0)
			assert_non_null(strstr(g.head, size > MEMORY_BYTES ? "X-Spooled: yes"
									   : "X-Spooled: no"));
		got_free(&g);
		close(fd);
	}
}

static void
test_chunked(void **state)
{
	(void)state;
	expect("POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"
	       "3;ext=1\r\nabc\r\n00a\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n",
	       200, "abc0123456789");
	expect("POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", 200, "");
	expect("POST /echo HTTP/1.1\r\n" H
	       "Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
	       400, NULL);
	expect("POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"
	       "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
	       413, NULL);
}

static void
test_doubtful_lengths(void **state)
{
	(void)state;
	expect("POST /echo HTTP/1.1\r\n" H
	       "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	       400, NULL);
	expect("POST /echo HTTP/1.1\r\n" H "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400,
	       NULL);
	expect("POST /echo HTTP/1.1\r\n" H "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400,
	       NULL);
	expect("POST /echo HTTP/1.1\r\n" H "Content-Length : 3\r\n\r\nabc", 400, NULL);
	expect("POST /echo HTTP/1.1\r\n" H "Content-Length: -3\r\n\r\nabc", 400, NULL);
	expect("POST /echo HTTP/1.1\r\n" H "Content-Length: 3x\r\n\r\nabc", 400, NULL);
	expect("POST /echo HTTP/1.1\r\n" H "Content-Length: 99999999999999999999\r\n\r\nabc", 413,
	       NULL);
	expect("POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n", 501, NULL);
	expect("POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, NULL);
	expect("GET /echo HTTP/1.1\r\n" H H "\r\n", 400, NULL);
	expect("GET /echo HTTP/1.1\r\n\r\n", 400,
	       "{\"type\":\"invalid_request\",\"title\":\"Bad Request\",\"status\":400,"
	       "\"detail\":\"the header field Host is missing\"}\n");
	expect("GET /echo HTTP/1.0\r\n\r\n", 200, "");
	expect("GET /echo\r\n\r\n", 400, NULL);
	expect("nonsense\r\n\r\n", 0, NULL);
}

static void
test_targets(void **state)
{
	(void)state;
	expect("GET /path/a%20b%C3%A9+c?x=1 HTTP/1.1\r\n" H "\r\n", 200, "/path/a b\xc3\xa9+c");
	expect("GET http://other/path/x HTTP/1.1\r\n" H "\r\n", 200, "/path/x");
	expect("GET HTTP://other/path/x HTTP/1.1\r\n" H "\r\n", 200, "/path/x");
	/* An encoded slash ends no segment. */
	expect("GET /path/a%2Fb/c%2fd HTTP/1.1\r\n" H "\r\n", 200, "/path/a\x1f" "b/c\x1f" "d");
	expect("GET /path/a%1fb HTTP/1.1\r\n" H "\r\n", 400, NULL);
	expect("GET /query?a=b%2Fc HTTP/1.1\r\n" H "\r\n", 200, "b/c");
	expect("GET /path/a b HTTP/1.1\r\n" H "\r\n", 400, NULL);
	expect("GET /query?b=2&a=%26+x%3D&a=3 HTTP/1.1\r\n" H "\r\n", 200, "& x=");
	expect("GET /query?a HTTP/1.1\r\n" H "\r\n", 200, "");
	expect("GET /query?a=x=y&& HTTP/1.1\r\n" H "\r\n", 200, "x=y");
	expect("GET /query? HTTP/1.1\r\n" H "\r\n", 404, "");
	expect("GET /path/%00 HTTP/1.1\r\n" H "\r\n", 400, NULL);
	expect("GET /path/%0a HTTP/1.1\r\n" H "\r\n", 400, NULL);
	expect("GET /path/%2 HTTP/1.1\r\n" H "\r\n", 400, NULL);
	expect("GET /path/%zz HTTP/1.1\r\n" H "\r\n", 400, NULL);
	expect("GET /path/%ff HTTP/1.1\r\n" H "\r\n", 400, NULL);
	expect("GET /path/\x01 HTTP/1.1\r\n" H "\r\n", 400, NULL);
	expect("GET /query?a=%0 HTTP/1.1\r\n" H "\r\n", 400, NULL);
	expect("GET /query?a=%c0%80 HTTP/1.1\r\n" H "\r\n", 400, NULL);
	expect("GET /path/a#b HTTP/1.1\r\n" H "\r\n", 400, NULL);
	expect("OPTIONS * HTTP/1.1\r\n" H "\r\n", 400, NULL);
	expect("GET "
	       "/query?1&2&3&4&5&6&7&8&9&10&11&12&13&14&15&16&17&18&19&20&21&22&23&24&25&26&27&28&"
	       "29&30"
	       "&31&32&33 HTTP/1.1\r\n" H "\r\n",
	       400, NULL);
}

/* A header block of just above 16 KiB, in one long field and in many. */
static void
test_long_headers(void **state)
{
	char *text = malloc(40000);
	size_t n;

	(void)state;
	assert_non_null(text);
	for (int i = 0; i < 3; i++) {
		n = (size_t)sprintf(text, "GET /echo HTTP/1.1\r\n" H "X: ");
		memset(text + n, 'a', 38000);
		strcpy(text + n + (i == 0 ? 15000 : i == 1 ? 16400 : 36000), "\r\n\r\n");
		expect(text, i ? 431 : 200, NULL);
	}
	n = (size_t)sprintf(text, "GET /echo HTTP/1.1\r\n" H);
	while (n < 36000)
		n += (size_t)sprintf(
			text + n, "X%zu: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n", n);
	strcpy(text + n, "\r\n");
	expect(text, 431, NULL);
	n = (size_t)sprintf(text, "GET /");
	memset(text + n, 'a', 36000);
	strcpy(text + n + 35000, " HTTP/1.1\r\n" H "\r\n");
	expect(text, 414, NULL);
	expect("GET /echo HTTP/1.1\r\n" H "X(Y): 1\r\n\r\n", 400, NULL);
	expect("GET /echo HTTP/1.1\r\n" H "X: a\x01\r\n\r\n", 400, NULL);
	free(text);
}

/* A function's own fields cannot split the answer nor change its length. */
static void
test_answer_fields(void **state)
{
	int fd = dial();
	struct got g;

	(void)state;
	put(fd, "GET /fields HTTP/1.1\r\n" H "\r\n");
	g = get(fd);
	assert_int_equal(g.status, 500);
	assert_string_equal(g.body, "ok");
	assert_non_null(strstr(g.head, "X-Good: yes \xc3\xa9\r\n"));
	assert_non_null(strstr(g.head, "X-Twice: 1\r\nX-Twice: 2\r\n"));
	assert_null(strstr(g.head, "Evil"));
	assert_null(strstr(g.head, "X Bad"));
	assert_null(strcasestr(g.head, "upgrade"));
	assert_null(strcasestr(g.head, "Transfer-Encoding"));
	assert_non_null(strstr(g.head, "Content-Type: text/first\r\n"));
	assert_null(strstr(g.head, "text/second"));
	got_free(&g);
	close(fd);
	expect("GET /twice HTTP/1.1\r\n" H "\r\n", 200, "once");
}

/* "bytes=N-" is a part; another form is the whole. */
static void
test_ranges(void **state)
{
	static const struct {
		const char *field;
		int status;
		const char *body;
	} asks[] = {
		{"", 200, "0123456789"},
		{"Range: bytes=0-\r\n", 206, "0123456789"},
		{"Range: bytes=3-\r\n", 206, "3456789"},
		{"range: Bytes=0000000000000009-\r\n", 206, "9"},
		{"Range: bytes=10-\r\n", 416, ""},
		{"Range: bytes=9223372036854775808-\r\n", 416, ""},
		{"Range: bytes=999999999999999999999999999999999999-\r\n", 416, ""},
		{"Range: bytes=3-5\r\n", 200, "0123456789"},
		{"Range: bytes=-5\r\n", 200, "0123456789"},
		{"Range: bytes=3-,5-\r\n", 200, "0123456789"},
		{"Range: bytes=3--\r\n", 200, "0123456789"},
		{"Range: bytes=-\r\n", 200, "0123456789"},
		{"Range: bytes=\r\n", 200, "0123456789"},
		{"Range: bytes=+3-\r\n", 200, "0123456789"},
		{"Range: lines=3-\r\n", 200, "0123456789"},
	};
	char text[200];

	(void)state;
	for (size_t i = 0; i < sizeof(asks) / sizeof(asks[0]); i++) {
		snprintf(text, sizeof(text), "GET /range HTTP/1.1\r\n" H "%s\r\n", asks[i].field);
		expect(text, asks[i].status, asks[i].body);
	}
}

/* ---- Bodies that nobody wants ---- */

static void
test_too_large(void **state)
{
	int fd = dial();

	(void)state;
	/* A client that sends everything before it reads; then the connection serves on. */
	put(fd, "POST /echo HTTP/1.1\r\n" H "Content-Length: 8000000\r\n\r\n");
	assert_int_equal(put_many(fd, 8000000), 0);
	want_answer(fd, 413, "at most 1048576 bytes");
	put(fd, "GET /none HTTP/1.1\r\n" H "Content-Length: 1\r\n\r\nx");
	want_answer(fd, 413, "at most 0 bytes");
	/* The same without a stated length. */
	put(fd, "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n");
	for (int i = 0; i < 40; i++) {
		put(fd, "10000\r\n");
		assert_int_equal(put_many(fd, 65536), 0);
		put(fd, "\r\n");
	}
	put(fd, "0\r\n\r\n");
	want_answer(fd, 413, "at most 1048576 bytes");
	put(fd, "POST /deny HTTP/1.1\r\n" H "Content-Length: 3000000\r\n\r\n");
	assert_int_equal(put_many(fd, 3000000), 0);
	want_answer(fd, 401, "who are you?");
	put(fd, "GET /deny HTTP/1.1\r\n" H "\r\n");
	want_answer(fd, 401, "who are you?");
	put(fd, "GET /path/still-here HTTP/1.1\r\n" H "\r\n");
	want_answer(fd, 200, "/path/still-here");
	close(fd);
}

static void
test_expect_continue(void **state)
{
	struct got g;
	int fd = dial();

	(void)state;
	put(fd,
	    "POST /echo HTTP/1.1\r\n" H "Content-Length: 8000000\r\nExpect: 100-continue\r\n\r\n");
	want_answer(fd, 413, "at most 1048576 bytes");
	assert_true(at_end(fd));
	close(fd);
	fd = dial();
	put(fd, "POST /deny HTTP/1.1\r\n" H "Content-Length: 80\r\nExpect: 100-Continue\r\n\r\n");
	want_answer(fd, 401, "who are you?");
	close(fd);
	fd = dial();
	put(fd, "POST /later HTTP/1.1\r\n" H "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n");
	g = get(fd);
	assert_int_equal(g.status, 100);
	got_free(&g);
	put(fd, "hello");
	want_answer(fd, 200, "hello");
	close(fd);
}

/* A body is not asked for, nor handed over, before the handler has decided. */
static void
test_decided_later(void **state)
{
	struct got g;
	int fd = dial();

	(void)state;
	put(fd, "POST /ask/no HTTP/1.1\r\n" H
		"Content-Length: 80\r\nExpect: 100-continue\r\n\r\n");
	want_answer(fd, 401, "who are you?");
	assert_true(at_end(fd));
	close(fd);
	fd = dial();
	put(fd, "POST /ask/no HTTP/1.1\r\n" H "Content-Length: 3000000\r\n\r\n");
	assert_int_equal(put_many(fd, 3000000), 0);
	want_answer(fd, 401, "who are you?");
	put(fd, "GET /ask/no HTTP/1.1\r\n" H "\r\nGET /ask/yes HTTP/1.1\r\n" H "\r\n");
	want_answer(fd, 401, "who are you?");
	want_answer(fd, 200, "");
	put(fd, "POST /ask/yes HTTP/1.1\r\n" H "Content-Length: 8000000\r\n\r\n");
	assert_int_equal(put_many(fd, 8000000), 0);
	want_answer(fd, 413, "at most 1048576 bytes");
	put(fd, "POST /ask/yes HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"
		"5\r\nhello\r\n0\r\n\r\n");
	want_answer(fd, 200, "hello");
	put(fd, "POST /ask/yes HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n7a1200\r\n");
	assert_int_equal(put_many(fd, 8000000), 0);
	put(fd, "\r\n0\r\n\r\n");
	want_answer(fd, 413, "at most 1048576 bytes");
	put(fd, "POST /ask/yes HTTP/1.1\r\n" H "Content-Length: 1048576\r\n\r\n");
	assert_int_equal(put_many(fd, LIMIT_BYTES), 0);
	g = get(fd);
	assert_int_equal(g.status, 200);
	assert_int_equal(g.len, LIMIT_BYTES);
	got_free(&g);
	put(fd, "POST /ask/yes HTTP/1.1\r\n" H
		"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n");
	g = get(fd);
	assert_int_equal(g.status, 100);
	got_free(&g);
	put(fd, "hello");
	want_answer(fd, 200, "hello");
	put(fd, "POST /ask/yes HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhello");
	shutdown(fd, SHUT_WR); /* it still reads */
	want_answer(fd, 200, "hello");
	close(fd);
}

/* More than 64 MiB, and a body that does not come: the answer is sent and that is the end. */
static void
test_endless_bodies(void **state)
{
	uint64_t before;
	int fd = dial();

	(void)state;
	put(fd, "POST /echo HTTP/1.1\r\n" H "Content-Length: 1000000000000\r\n\r\n");
	put_many(fd, 80 << 20); /* breaks off somewhere */
	want_answer(fd, 413, "at most 1048576 bytes");
	assert_true(at_end(fd));
	close(fd);
	for (int i = 0; i < 2; i++) {
		fd = dial();
		before = clock_mono_ns();
		put(fd, i ? "POST /ask/no HTTP/1.1\r\n" H "Content-Length: 1000\r\n\r\nabc"
			  : "POST /deny HTTP/1.1\r\n" H "Content-Length: 1000\r\n\r\n");
		want_answer(fd, 401, "who are you?");
		assert_in_range((clock_mono_ns() - before) / NS_PER_MS, 900, 3000);
		assert_true(at_end(fd));
		close(fd);
	}
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, site_setup, site_teardown)
	const struct CMUnitTest tests[] = {
		T(test_keep_alive_and_methods),
		T(test_later_and_pipelined),
		T(test_half_closed),
		T(test_bodies),
		T(test_chunked),
		T(test_doubtful_lengths),
		T(test_targets),
		T(test_long_headers),
		T(test_answer_fields),
		T(test_ranges),
		T(test_too_large),
		T(test_expect_continue),
		T(test_decided_later),
		T(test_endless_bodies),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
