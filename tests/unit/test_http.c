/*
 * The HTTP server, by bytes on real sockets: what well-behaved clients see, and every way
 * of misbehaving that must not hurt the others.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <sys/resource.h>
#include <time.h>

#include "tests/unit/http_fixture.h"

static int
start(void **state)
{
	(void)state;
	site_start((struct http_server_config){.idle_seconds = 30, .discard_seconds = 1}, NULL);
	return 0;
}

static int
start_impatient(void **state)
{
	(void)state;
	site_start((struct http_server_config){.idle_seconds = 1, .discard_seconds = 1}, NULL);
	return 0;
}

static int
end(void **state)
{
	(void)state;
	assert_int_equal(site_end(), 0);
	return 0;
}

/* Sends text on a connection of its own and wants status, and body unless NULL. */
static void
expect(const char *text, int status, const char *body)
{
	int fd = dial();
	struct got g;

	assert_int_equal(put(fd, text), 0);
	g = get(fd);
	if (g.status != status || (body && (!g.body || strcmp(g.body, body) != 0)))
		fail_msg("%.60s...: %d %s", text, g.status, g.body ? g.body : "");
	got_free(&g);
	close(fd);
}

static void
want_answer(int fd, int status, const char *body)
{
	struct got g = get(fd);

	assert_int_equal(g.status, status);
	assert_string_equal(g.body, body);
	got_free(&g);
}

#define H "Host: x\r\n"

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

/* ---- Clients that leave or dawdle ---- */

static void
want_all_gone(void)
{
	uint64_t give_up = clock_mono_ns() + 10 * NS_PER_S;
	unsigned begun = 0, handled, gone = 0;

	do {
		int fd = dial();
		struct got g;

		put(fd, "GET /stats HTTP/1.1\r\n" H "\r\n");
		g = get(fd);
		assert_int_equal(sscanf(g.body, "%u %u %u", &begun, &handled, &gone), 3);
		got_free(&g);
		close(fd);
		usleep(10000);
	} while (gone + 1 < begun && clock_mono_ns() < give_up);
	assert_int_equal(gone + 1, begun); /* but the one that asks */
}

static void
test_clients_leave(void **state)
{
	static const char *const unfinished[] = {
		"",
		"GET",
		"GET /echo HTTP/1.1\r\n",
		"GET /echo HTTP/1.1\r\nHo",
		"POST /echo HTTP/1.1\r\n" H "Content-Length: 100\r\n\r\nabc",
		"POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n5\r\nab",
		"POST /huge HTTP/1.1\r\n" H "Content-Length: 100000\r\n\r\nabc",
		"POST /later HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabc",
		"POST /deny HTTP/1.1\r\n" H "Content-Length: 300\r\n\r\nabc",
		"POST /ask/yes HTTP/1.1\r\n" H "Content-Length: 300\r\n\r\nabc",
		"POST /ask/no HTTP/1.1\r\n" H "Content-Length: 300\r\n\r\nabc",
	};
	struct linger abort_it = {.l_onoff = 1};

	(void)state;
	for (size_t i = 0; i < 2 * sizeof(unfinished) / sizeof(*unfinished); i++) {
		int fd = dial();

		put(fd, unfinished[i / 2]);
		if (i % 2) /* RST in place of FIN */
			setsockopt(fd, SOL_SOCKET, SO_LINGER, &abort_it, sizeof(abort_it));
		close(fd);
	}
	want_all_gone();
}

/* How often the server has gone to sleep. */
static uint64_t
sleeps(void)
{
	char path[64], text[4096];
	const char *at;
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)site_pid);
	f = fopen(path, "r");
	assert_non_null(f);
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = '\0';
	at = strstr(text, "\nvoluntary_ctxt_switches:");
	assert_non_null(at);
	return strtoull(strchr(at, ':') + 1, NULL, 10);
}

/* A chunk's line without an end fills the daemon's buffer: a server that spun on it would not
 * sleep between the others' requests, each of which it answers 20 ms later. */
static void
test_a_chunk_without_end(void **state)
{
	int fd = dial(), other = dial();
	uint64_t before;

	(void)state;
	put(fd, "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n3;");
	assert_int_equal(put_many(fd, 40000), 0);
	before = sleeps();
	for (int i = 0; i < 20; i++) {
		put(other, "POST /later HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\none");
		want_answer(other, 200, "one");
	}
	assert_true(sleeps() - before >= 20);
	close(fd);
	close(other);
}

/* idle_seconds is 1: silence ends after 1 s, a drip after 2 s; an answer is waited for. */
static void
test_slow_clients(void **state)
{
	static const char drip[] = "POST /echo HTTP/1.1\r\n" H
				   "Content-Length: 99999\r\n\r\nabcdefghijklmnopqrstuvwxyz";
	int silent = dial(), half = dial(), dripping = dial(), slow_body = dial(), waits = dial();
	uint64_t before = clock_mono_ns();
	bool dripping_ended = false, body_ended = false;

	(void)state;
	put(half, "GET /ec");
	put(waits, "GET /never HTTP/1.1\r\n" H "\r\n");
	put(slow_body, "POST /echo HTTP/1.1\r\n" H "Content-Length: 99999\r\n\r\n");
	for (size_t i = 0; i < sizeof(drip) - 1 && !(dripping_ended && body_ended); i++) {
		char c;

		if (!dripping_ended && send(dripping, drip + i, 1, MSG_NOSIGNAL) < 0)
			dripping_ended = true;
		if (!body_ended && send(slow_body, "x", 1, MSG_NOSIGNAL) < 0)
			body_ended = true;
		usleep(100000); /* the drip itself */
		if (recv(dripping, &c, 1, MSG_DONTWAIT) == 0)
			dripping_ended = true;
		if (recv(slow_body, &c, 1, MSG_DONTWAIT) == 0)
			body_ended = true;
	}
	assert_true(dripping_ended && body_ended);
	assert_in_range((clock_mono_ns() - before) / NS_PER_MS, 1900, 4500);
	assert_true(at_end(silent));
	assert_true(at_end(half));
	{
		struct timeval moment = {.tv_usec = 1000};
		char c;

		setsockopt(waits, SOL_SOCKET, SO_RCVTIMEO, &moment, sizeof(moment));
		assert_int_equal(recv(waits, &c, 1, 0), -1);
		assert_int_equal(errno, EAGAIN);
	}
	close(silent);
	close(half);
	close(dripping);
	close(slow_body);
	close(waits);
}

/* ---- Many connections ---- */

static void
few_descriptors(void)
{
	struct rlimit limit = {.rlim_cur = 40, .rlim_max = 40};

	setrlimit(RLIMIT_NOFILE, &limit);
}

static uint64_t
cpu_ms(pid_t pid)
{
	char path[64], text[1024] = "";
	unsigned long user = 0, kernel = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	assert_non_null(f);
	assert_non_null(fgets(text, sizeof(text), f));
	fclose(f);
	sscanf(strrchr(text, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
	       &kernel);
	return (user + kernel) * 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
}

/* Idle connections up to every limit there is; each newcomer is served, by and by. */
static void
flood_then_ask(int connections)
{
	int *idle = calloc((size_t)connections, sizeof(int));
	uint64_t cpu;

	for (int i = 0; i < connections; i++)
		idle[i] = dial();
	cpu = cpu_ms(site_pid);
	for (int i = 0; i < 20; i++)
		expect("GET /path/served HTTP/1.1\r\n" H "\r\n", 200, "/path/served");
	usleep(300000); /* a server that spins now would show it */
	assert_in_range(cpu_ms(site_pid) - cpu, 0, 250);
	for (int i = 0; i < connections; i++)
		close(idle[i]);
	free(idle);
}

static void
test_connections_max(void **state)
{
	(void)state;
	site_start((struct http_server_config){.idle_seconds = 30, .connections_max = 50}, NULL);
	flood_then_ask(300);
	assert_int_equal(site_end(), 0);
}

static void
test_descriptors_run_out(void **state)
{
	(void)state;
	site_start((struct http_server_config){.idle_seconds = 30, .connections_max = 1000},
		   few_descriptors);
	flood_then_ask(300); /* none of which waits for another to be given up by itself */
	assert_int_equal(site_end(), 0);
}

static long
resident_kib(pid_t pid)
{
	char path[64];
	long pages = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
	f = fopen(path, "re");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%*d %ld", &pages), 1);
	fclose(f);
	return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void
test_ten_thousand_idle(void **state)
{
	struct rlimit limit;
	int count = 10000, *fds;
	long empty, full;
	uint64_t before, took_ns;

	(void)state;
#ifdef __SANITIZE_ADDRESS__
	count = 1000;
#endif
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur < (rlim_t)count + 200)
		count = (int)limit.rlim_cur - 200;
	site_start((struct http_server_config){.idle_seconds = 60, .connections_max = 20000}, NULL);
	expect("GET /path/x HTTP/1.1\r\n" H "\r\n", 200, NULL);
	empty = resident_kib(site_pid);
	fds = calloc((size_t)count, sizeof(int));
	assert_non_null(fds);
	for (int i = 0; i < count; i++) {
		fds[i] = dial();
		if (i % 2) /* half of them half-open requests */
			put(fds[i], "POST /echo HTTP/1.1\r\n" H "Content-Len");
	}
	before = clock_mono_ns();
	for (int i = 0; i < 100; i++)
		expect("GET /path/x HTTP/1.1\r\n" H "\r\n", 200, NULL);
	took_ns = clock_mono_ns() - before;
	full = resident_kib(site_pid);
	print_message("%d idle: %ld KiB, %.1f KiB each; 100 requests in %.1f ms\n", count, full,
		      (double)(full - empty) / count, (double)took_ns / 1e6);
	assert_true(took_ns < 5 * NS_PER_S);
	assert_true(full - empty < count * 40L + 20000);
	for (int i = 0; i < count; i++)
		close(fds[i]);
	free(fds);
	assert_int_equal(site_end(), 0);
}

/* ---- The end ---- */

static void
test_stop_waits_for_requests(void **state)
{
	int fd = dial(), idle = dial(), never = dial(), status;

	(void)state;
	put(never, "GET /never HTTP/1.1\r\n" H "\r\n");
	put(fd, "POST /later HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabc");
	expect("GET /path/x HTTP/1.1\r\n" H "\r\n", 200, NULL); /* those before have arrived */
	kill(site_pid, SIGTERM);
	want_answer(fd, 200, "abc");
	assert_true(at_end(fd));
	assert_true(at_end(idle));
	assert_true(at_end(never)); /* at the end of the grace */
	assert_int_equal(waitpid(site_pid, &status, 0), site_pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	close(fd);
	close(idle);
	close(never);
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, start, end)
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
		T(test_too_large),
		T(test_expect_continue),
		T(test_decided_later),
		T(test_endless_bodies),
		T(test_a_chunk_without_end),
		cmocka_unit_test_setup_teardown(test_clients_leave, start_impatient, end),
		cmocka_unit_test_setup_teardown(test_slow_clients, start_impatient, end),
		cmocka_unit_test(test_connections_max),
		cmocka_unit_test(test_descriptors_run_out),
		cmocka_unit_test(test_ten_thousand_idle),
		cmocka_unit_test_setup(test_stop_waits_for_requests, start),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
