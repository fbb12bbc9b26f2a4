/*
 * The HTTP client against the real server of the fixture, and against sockets that do
 * what servers should not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/http_fixture.h"

#include "netio/http_client.h"

static struct loop *l;
static struct http_client *client;
static struct loop_timer *deadline;
static struct err e;

/* What the last answer was. */
static struct {
	int calls, status;
	char body[256], type[64], field[64];
	size_t len;
	enum err_class cls;
	char text[472];
} last;
static int wanted;

static void
too_late(void *arg)
{
	(void)arg;
	fail_msg("no answer, and no error");
}

static int
start(void **state)
{
	(void)state;
	site_start((struct http_server_config){.idle_seconds = 30, .discard_seconds = 1}, NULL);
	l = loop_new(&e);
	client = http_client_new(l, &e);
	deadline = loop_timer_add(l, too_late, NULL, &e);
	loop_timer_after(deadline, PATIENCE_SECONDS * NS_PER_S);
	memset(&last, 0, sizeof(last));
	return client ? 0 : -1;
}

static int
end(void **state)
{
	(void)state;
	http_client_free(client);
	loop_free(l);
	assert_int_equal(site_end(), 0);
	return 0;
}

static void
on_answer(void *arg, const struct http_answer *a, const struct err *why)
{
	const char *field = a ? http_answer_field(a, "x-method") : NULL;

	(void)arg;
	assert_true(!a != !why);
	last.calls++;
	last.status = a ? a->status : 0;
	last.len = a ? a->len : 0;
	last.cls = why ? why->cls : ERR_NONE;
	snprintf(last.text, sizeof(last.text), "%s", why ? why->text : "");
	snprintf(last.body, sizeof(last.body), "%s", a ? a->body : "");
	snprintf(last.type, sizeof(last.type), "%s", a ? a->content_type : "");
	snprintf(last.field, sizeof(last.field), "%s", field ? field : "");
	if (last.calls >= wanted)
		loop_stop(l);
}

static char *
url(const char *path)
{
	static char text[256];

	snprintf(text, sizeof(text), "http://127.0.0.1:%d%s", site_port, path);
	return text;
}

static struct http_call *
ask(const struct http_ask *how)
{
	struct http_call *call = http_client_ask(client, how, on_answer, NULL, &e);

	assert_int_equal(last.calls, 0); /* never before it returned */
	return call;
}

static void
ask_and_wait(const struct http_ask *how)
{
	last.calls = 0;
	wanted = 1;
	if (!ask(how))
		fail_msg("%s", e.text);
	assert_int_equal(loop_run(l, &e), 0);
	assert_int_equal(last.calls, 1);
}

static void
test_methods(void **state)
{
	static const struct http_field fields[] = {
		{"Content-Type", "text/x"}, {"X-Empty", ""}, {NULL, NULL}};

	(void)state;
	ask_and_wait(&(struct http_ask){.url = url("/path/x")});
	assert_int_equal(last.status, 200);
	assert_string_equal(last.body, "/path/x");
	assert_string_equal(last.type, "text/plain");
	ask_and_wait(&(struct http_ask){.method = "POST",
					.url = url("/echo"),
					.body = "hello",
					.body_len = 5,
					.fields = fields});
	assert_string_equal(last.body, "hello");
	assert_string_equal(last.type, "text/x");
	assert_string_equal(last.field, "POST");
	ask_and_wait(&(struct http_ask){
		.method = "PATCH", .url = url("/echo"), .body = "a\0b", .body_len = 3});
	assert_int_equal(last.len, 3);
	assert_string_equal(last.type, "");
	assert_string_equal(last.field, "PATCH");
	ask_and_wait(&(struct http_ask){.method = "PUT", .url = url("/echo")});
	assert_string_equal(last.field, "PUT");
	ask_and_wait(&(struct http_ask){.method = "DELETE", .url = url("/empty")});
	assert_int_equal(last.status, 204);
	ask_and_wait(&(struct http_ask){.method = "HEAD", .url = url("/path/x")});
	assert_int_equal(last.status, 200);
	assert_int_equal(last.len, 0);
	ask_and_wait(&(struct http_ask){.url = url("/nowhere?a=%zz")});
	assert_int_equal(last.status, 400);
	assert_string_equal(last.type, "application/problem+json");
}

static uint64_t progress_sent, progress_total;

static void
on_progress(void *arg, uint64_t sent, uint64_t total)
{
	(void)arg;
	assert_true(sent >= progress_sent);
	progress_sent = sent;
	progress_total = total;
}

static void
test_files(void **state)
{
	char path[] = "/tmp/pratai-http-XXXXXX";
	int in = mkstemp(path), out;
	char byte = 0;
	size_t size = 1000000; /* curl says Expect: 100-continue from 1 MiB on */

	(void)state;
	unlink(path);
	strcpy(path, "/tmp/pratai-http-XXXXXX");
	out = mkstemp(path);
	unlink(path);
	for (int i = 0; i < 2; i++, size += 48576) {
		assert_int_equal(ftruncate(in, (off_t)size), 0);
		assert_int_equal(pwrite(in, "end", 3, (off_t)size - 3), 3);
		assert_int_equal(ftruncate(out, 0), 0);
		assert_int_equal(lseek(out, 0, SEEK_SET), 0);
		progress_sent = 0;
		ask_and_wait(&(struct http_ask){.method = "POST",
						.url = url("/later"),
						.body_fd = in,
						.out_fd = out,
						.progress = on_progress});
		assert_int_equal(last.status, 200);
		assert_int_equal(last.len, size);
		assert_int_equal(lseek(out, 0, SEEK_END), (off_t)size);
		assert_int_equal(pread(out, &byte, 1, (off_t)size - 1), 1);
		assert_int_equal(byte, 'd');
		assert_int_equal(progress_sent, size);
		assert_int_equal(progress_total, size);
	}
	/* Too large: 413 in place of "100 Continue". */
	assert_int_equal(ftruncate(in, 30 << 20), 0);
	ask_and_wait(&(struct http_ask){.method = "POST", .url = url("/echo"), .body_fd = in});
	assert_int_equal(last.status, 413);
	assert_string_equal(last.body, "at most 1048576 bytes");
	close(in);
	close(out);
}

static void
failed(const struct http_ask *how, enum err_class cls, const char *text)
{
	ask_and_wait(how);
	assert_int_equal(last.status, 0);
	if (last.cls != cls || !strstr(last.text, text))
		fail_msg("%d %s", last.cls, last.text);
}

static void
test_limits(void **state)
{
	char *big = calloc(1, 100000);

	(void)state;
	failed(&(struct http_ask){.method = "POST",
				  .url = url("/echo"),
				  .body = big,
				  .body_len = 100000,
				  .answer_max = 99999},
	       ERR_LIMIT, "is longer than 99999 bytes");
	ask_and_wait(&(struct http_ask){.method = "POST",
					.url = url("/echo"),
					.body = big,
					.body_len = 100000,
					.answer_max = 100000});
	assert_int_equal(last.len, 100000);
	failed(&(struct http_ask){.url = url("/never"), .total_ns = 50 * NS_PER_MS}, ERR_AGAIN,
	       "did not answer in time");
	free(big);
}

/* A listener that takes one connection, reads the request, and says just this. */
static pid_t
rude_server(const char *says, size_t len, int *port)
{
	int listener = listen_somewhere(port);
	pid_t pid = fork();
	char request[4096];

	if (!pid) {
		int fd = accept(listener, NULL, NULL);

		if (recv(fd, request, sizeof(request), 0) < 0 ||
		    send(fd, says, len, MSG_NOSIGNAL) < 0)
			_exit(1);
		close(fd);
		_exit(0);
	}
	close(listener);
	return pid;
}

static void
rude(const char *says, enum err_class cls, const char *text)
{
	char where[64];
	int port, status;
	pid_t pid = rude_server(says, strlen(says), &port);

	snprintf(where, sizeof(where), "http://localhost:%d/", port);
	failed(&(struct http_ask){.url = where}, cls, text);
	waitpid(pid, &status, 0);
}

static void
test_failures(void **state)
{
	char text[64], where[64];
	int port, fd = listen_somewhere(&port);

	(void)state;
	snprintf(where, sizeof(where), "http://127.0.0.1:%d/", port);
	close(fd);
	snprintf(text, sizeof(text), "cannot reach 127.0.0.1:%d: Connection refused", port);
	failed(&(struct http_ask){.url = where}, ERR_AGAIN, text);
	rude("", ERR_AGAIN, "closed the connection before its answer was complete");
	rude("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", ERR_AGAIN,
	     "before its answer was complete");
	rude("SSH-2.0-x\r\n", ERR_AGAIN, "does not speak HTTP");
	failed(&(struct http_ask){.url = "http://no-such-host.invalid/"}, ERR_AGAIN,
	       "cannot reach no-such-host.invalid:80");
}

/* A redirect is an answer. */
static void
test_redirect(void **state)
{
	static const char says[] =
		"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
	char where[64];
	int port, status;
	pid_t pid = rude_server(says, sizeof(says) - 1, &port);

	(void)state;
	snprintf(where, sizeof(where), "http://127.0.0.1:%d/", port);
	ask_and_wait(&(struct http_ask){.url = where});
	assert_int_equal(last.status, 302);
	waitpid(pid, &status, 0);
}

/* No proxy between us and this machine. */
static void
test_no_proxy_for_loopback(void **state)
{
	(void)state;
	setenv("http_proxy", "http://127.0.0.1:1/", 1);
	ask_and_wait(&(struct http_ask){.url = url("/path/x")});
	assert_int_equal(last.status, 200);
	failed(&(struct http_ask){.url = "http://192.0.2.1/"}, ERR_AGAIN,
	       "cannot reach 192.0.2.1:80: Connection refused");
	unsetenv("http_proxy");
}

static void
refused(const struct http_ask *how, const char *text)
{
	err_clear(&e);
	if (ask(how))
		fail_msg("taken: %s", how->url);
	assert_int_equal(e.cls, ERR_INPUT);
	if (!strstr(e.text, text))
		fail_msg("%s", e.text);
}

static void
test_bad_asks(void **state)
{
	static const struct http_field bad[][2] = {{{"X-A", "b\r\nX-C: d"}},
						   {{"X A", "b"}},
						   {{"X:A", "b"}},
						   {{"", "b"}},
						   {{"X-A\n", "b"}}};
	int pipes[2];

	(void)state;
	refused(&(struct http_ask){.url = "ftp://127.0.0.1/"}, "http or https is needed");
	refused(&(struct http_ask){.url = "file:///etc/passwd"}, "URL");
	refused(&(struct http_ask){.url = ""}, "not a URL");
	refused(&(struct http_ask){.url = "http://"}, "not a URL");
	refused(&(struct http_ask){.url = "http://a b/"}, "not a URL");
	refused(&(struct http_ask){.url = "http://127.0.0.1/\r\nX: y"}, "not a URL");
	refused(&(struct http_ask){.url = "http://127.0.0.1:99999/"}, "not a URL");
	refused(&(struct http_ask){.url = url("/"), .method = "GET /x"}, "not a method");
	refused(&(struct http_ask){.url = url("/"), .method = ""}, "not a method");
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		refused(&(struct http_ask){.url = url("/"), .fields = bad[i]},
			"not a header field");
	assert_int_equal(pipe(pipes), 0);
	assert_null(
		ask(&(struct http_ask){.url = url("/"), .method = "POST", .body_fd = pipes[0]}));
	assert_int_equal(e.cls, ERR_NODE);
	close(pipes[0]);
	close(pipes[1]);
}

/* ---- Many at once, and cancelling ---- */

static void
test_many(void **state)
{
	enum { MANY = 200 };

	(void)state;
	last.calls = 0;
	wanted = MANY;
	for (int i = 0; i < MANY; i++)
		assert_non_null(ask(&(struct http_ask){
			.method = "POST", .url = url("/later"), .body = "abc", .body_len = 3}));
	assert_int_equal(loop_run(l, &e), 0);
	assert_int_equal(last.calls, MANY);
	assert_int_equal(last.status, 200);
}

static struct http_call *others[3];

static void
must_not_answer(void *arg, const struct http_answer *a, const struct err *why)
{
	(void)arg;
	(void)a;
	(void)why;
	fail_msg("a cancelled call was answered");
}

static void
cancel_others(void *arg, const struct http_answer *a, const struct err *why)
{
	(void)a;
	(void)why;
	for (int i = 0; i < 3; i++)
		http_call_cancel(others[i]);
	http_call_cancel(*(struct http_call **)arg); /* itself: too late, and harmless */
	wanted = 1;
	assert_non_null(ask(&(struct http_ask){.url = url("/path/x")}));
}

static void
cancel_in_progress(void *arg, uint64_t sent, uint64_t total)
{
	(void)arg;
	(void)sent;
	(void)total;
	http_call_cancel(others[0]);
}

static void
test_cancel(void **state)
{
	struct http_call *first;
	char *big = calloc(1, 900000);

	(void)state;
	last.calls = 0;
	for (int i = 0; i < 3; i++)
		others[i] = http_client_ask(client,
					    &(struct http_ask){.url = url(i ? "/never" : "/later")},
					    must_not_answer, NULL, &e);
	first = http_client_ask(client, &(struct http_ask){.url = url("/path/y")}, cancel_others,
				&first, &e);
	assert_non_null(first);
	assert_int_equal(loop_run(l, &e), 0);
	assert_int_equal(last.status, 200);
	http_call_cancel(NULL);
	/* From within curl; and one that is still there when the client ends. */
	others[0] = http_client_ask(client,
				    &(struct http_ask){.url = url("/later"),
						       .method = "POST",
						       .body = big,
						       .body_len = 900000,
						       .progress = cancel_in_progress},
				    must_not_answer, NULL, &e);
	ask_and_wait(&(struct http_ask){.url = url("/later")});
	assert_non_null(http_client_ask(client, &(struct http_ask){.url = url("/never")},
					must_not_answer, NULL, &e));
	free(big);
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, start, end)
	const struct CMUnitTest tests[] = {
		T(test_methods),  T(test_files),    T(test_limits),
		T(test_failures), T(test_redirect), T(test_no_proxy_for_loopback),
		T(test_bad_asks), T(test_many),     T(test_cancel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
