/*
 * The HTTP server under strain: clients that leave, dawdle or come in crowds, none of which
 * may hurt the others; and its end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <sys/resource.h>

#include "tests/unit/http_fixture.h"

static int
start_impatient(void **state)
{
	(void)state;
	site_start((struct http_server_config){.idle_seconds = 1, .discard_seconds = 1}, NULL);
	return 0;
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

static void
few_descriptors(void)
{
	struct rlimit limit = {.rlim_cur = 40, .rlim_max = 40};

	setrlimit(RLIMIT_NOFILE, &limit);
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
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_a_chunk_without_end, site_setup, site_teardown),
		cmocka_unit_test_setup_teardown(test_clients_leave, start_impatient, site_teardown),
		cmocka_unit_test_setup_teardown(test_slow_clients, start_impatient, site_teardown),
		cmocka_unit_test(test_connections_max),
		cmocka_unit_test(test_descriptors_run_out),
		cmocka_unit_test(test_ten_thousand_idle),
		cmocka_unit_test_setup(test_stop_waits_for_requests, site_setup),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
