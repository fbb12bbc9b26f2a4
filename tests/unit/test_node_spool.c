/*
 * The node's spool: results stay until they are settled, in memory up to its bound and in
 * files beyond, and are sent again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/log.h"
#include "core/node/spool.h"
#include "netio/loop.h"

enum { RESPONSE = 6 << 20, MANY = 14 }; /* 84 MiB */

static struct {
	char dir[64];
	int dir_fd;
	struct loop *loop;
	struct loop_timer *stop;
	struct spool *spool;
	int sent[MANY + 2], busy, stop_at;
	uint64_t sent_at[3];
	bool wrong;
} t;

/* Entry n is n times the byte n, and "log n". */
static int
on_send(void *arg, struct message *m, const void *response, size_t response_len, const void *logs,
	size_t logs_len)
{
	const unsigned char *p = response;
	uint64_t n = m->lease.seq;

	(void)arg;
	if (t.busy) {
		t.busy--;
		return -1;
	}
	if (n == 1 && t.sent[n] < 3)
		t.sent_at[t.sent[n]] = clock_mono_ns();
	if (++t.sent[n] == t.stop_at)
		loop_stop(t.loop);
	if (response_len != RESPONSE || p[0] != n || p[RESPONSE - 1] != n || logs_len != 4 ||
	    memcmp(logs, "log\n", 4))
		t.wrong = true;
	return 0;
}

static void
on_stop(void *arg)
{
	(void)arg;
	loop_stop(t.loop);
}

static void
run_for(uint64_t ns)
{
	struct err e = { 0 };

	loop_timer_after(t.stop, ns);
	assert_int_equal(loop_run(t.loop, &e), 0);
}

static int
files(void)
{
	DIR *dir = opendir(t.dir);
	struct dirent *d;
	int n = 0;

	while ((d = readdir(dir)))
		n += !strncmp(d->d_name, "result.", 7);
	closedir(dir);
	return n;
}

static int
setup(void **state)
{
	struct err e = { 0 };

	(void)state;
	memset(&t, 0, sizeof t);
	strcpy(t.dir, "/tmp/pratai-spool.XXXXXX");
	if (!mkdtemp(t.dir))
		return -1;
	t.dir_fd = open(t.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	close(openat(t.dir_fd, "result.1.99", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	t.loop = loop_new(&e);
	t.stop = loop_timer_add(t.loop, on_stop, NULL, &e);
	t.spool = spool_new(t.loop, t.dir_fd, on_send, NULL, &e);
	return t.spool ? 0 : -1;
}

static int
teardown(void **state)
{
	struct err e = { 0 };
	int left;

	(void)state;
	spool_free(t.spool);
	left = files();
	loop_timer_remove(t.stop);
	loop_free(t.loop);
	close(t.dir_fd);
	return dir_remove(AT_FDCWD, t.dir, &e) || left;
}

static void
add(uint64_t n)
{
	struct message m = { .type = MSG_RESULT, .lease = { 1, n } };
	char *response = malloc(RESPONSE);
	struct err e = { 0 };

	memset(response, (int)n, RESPONSE);
	assert_int_equal(spool_add(t.spool, &m, response, RESPONSE, "log\n", 4, &e), 0);
	free(response);
}

static void
beyond_its_memory_it_uses_files(void **state)
{
	struct lease leases[MANY], l = { 1, 0 };
	struct id events[MANY];

	(void)state;
	assert_int_equal(files(), 0); /* that of an earlier process is gone */
	for (uint64_t n = 1; n <= MANY; n++)
		add(n);
	assert_int_equal(spool_count(t.spool), MANY);
	assert_int_equal(files(), MANY - 10); /* 10 fit in 64 MiB */
	assert_false(spool_is_full(t.spool));
	spool_leases(t.spool, leases, events);
	for (uint64_t n = 1; n <= MANY; n++)
		assert_int_equal(t.sent[n], 1);
	spool_resend(t.spool);
	run_for(300 * NS_PER_MS);
	for (uint64_t n = 1; n <= MANY; n++) {
		assert_int_equal(t.sent[n], 2);
		l.seq = n;
		assert_true(spool_has(t.spool, &l));
		assert_true(spool_remove(t.spool, &l));
		assert_false(spool_remove(t.spool, &l));
		assert_false(spool_has(t.spool, &l));
	}
	assert_int_equal(files(), 0);
	assert_int_equal(spool_count(t.spool), 0);
	assert_false(t.wrong);
}

static void
each_is_sent_after_one_second_then_two(void **state)
{
	(void)state;
	t.stop_at = 3;
	add(1);
	run_for(30 * NS_PER_S);
	assert_int_equal(t.sent[1], 3);
	assert_true(t.sent_at[1] - t.sent_at[0] > 990 * NS_PER_MS);
	assert_true(t.sent_at[2] - t.sent_at[1] > 1990 * NS_PER_MS);
}

static void
what_could_not_be_sent_is_tried_soon(void **state)
{
	(void)state;
	t.busy = 3;
	t.stop_at = 1;
	add(1);
	assert_int_equal(t.sent[1], 0);
	run_for(30 * NS_PER_S);
	assert_int_equal(t.sent[1], 1);
	assert_int_equal(t.busy, 0);
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		EACH(beyond_its_memory_it_uses_files),
		EACH(each_is_sent_after_one_second_then_two),
		EACH(what_could_not_be_sent_is_tried_soon),
	};

	log_open("test", LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
