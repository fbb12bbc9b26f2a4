/*
 * Message queues: nothing is lost or stuck between two ends that live, whatever the
 * callbacks do; and each way of not sending says which it was.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "netio/loop.h"
#include "netio/mq.h"

#define DEADLINE_NS (10 * NS_PER_S)
#define ENDPOINT(how, where) (&(struct mq_options){.how = where})

static struct loop *l;
static struct mq *m;
static struct err e;
static struct loop_timer *deadline;
static char run_path[32];
static int run_fd;

static void
stop(void *arg)
{
	(void)arg;
	loop_stop(l);
}

static void
too_late(void *arg)
{
	(void)arg;
	fail_msg("the test did not come to its end");
}

static int
setup(void **state)
{
	(void)state;
	memset(&e, 0, sizeof(e));
	strcpy(run_path, "/tmp/pratai-mq-XXXXXX");
	assert_non_null(mkdtemp(run_path));
	run_fd = open(run_path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	l = loop_new(&e);
	m = mq_new(l, run_fd, &e);
	deadline = loop_timer_add(l, too_late, NULL, &e);
	loop_timer_after(deadline, DEADLINE_NS);
	return m ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	mq_free(m);
	loop_free(l);
	close(run_fd);
	return dir_remove(AT_FDCWD, run_path, &e);
}

/* A port that nobody listens on at the moment. */
static const char *
free_port(void)
{
	static char text[64];
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&addr, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
	close(fd);
	snprintf(text, sizeof(text), "tcp://127.0.0.1:%d", ntohs(addr.sin_port));
	return text;
}

static int
send_text(struct mq_socket *s, const char *text)
{
	struct mq_frame f = {text, strlen(text)};

	return mq_send(s, &f, 1, &e);
}

static bool
frame_is(const struct mq_frame *f, const char *text)
{
	return f->len == strlen(text) && memcmp(f->data, text, f->len) == 0;
}

/* Runs the loop for a moment at a time until it works: the other end needs to connect. */
static struct mq_socket *retry_socket;
static const char *retry_text;
static struct loop_timer *retry_timer;

static void
retry_send(void *arg)
{
	(void)arg;
	if (send_text(retry_socket, retry_text) < 0) {
		assert_int_equal(e.cls, ERR_AGAIN);
		loop_timer_after(retry_timer, NS_PER_MS);
	}
}

static void
send_when_connected(struct mq_socket *s, const char *text)
{
	retry_socket = s;
	retry_text = text;
	retry_timer = loop_timer_add(l, retry_send, NULL, &e);
	loop_timer_after(retry_timer, 0);
}

/* ---- PUSH to PULL ---- */

enum { MANY = 20000 };
static struct mq_socket *push;
static uint32_t sent, received;

static uint64_t
push_what_fits(void *arg)
{
	(void)arg;
	while (sent < MANY) {
		struct mq_frame f[2] = {{"head", 4}, {&sent, sizeof(sent)}};

		if (mq_send(push, f, 2, &e) < 0) {
			assert_int_equal(e.cls, ERR_AGAIN);
			return NS_PER_MS;
		}
		sent++;
	}
	return UINT64_MAX;
}

static void
count_in_order(void *arg, const struct mq_frame *f, size_t n)
{
	uint32_t number;

	(void)arg;
	assert_int_equal(n, 2);
	assert_true(frame_is(&f[0], "head"));
	memcpy(&number, f[1].data, sizeof(number));
	assert_int_equal(number, received);
	if (++received == MANY)
		loop_stop(l);
}

static void
test_push_pull(void **state)
{
	const char *const where[] = {"inproc://a", "ipc:a", free_port()};

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct mq_socket *pull;
		struct loop_hook *hook;

		sent = received = 0;
		pull = mq_open(m, MQ_PULL, ENDPOINT(bind, where[i]), count_in_order, NULL, &e);
		push = mq_open(m, MQ_PUSH, ENDPOINT(connect, where[i]), NULL, NULL, &e);
		assert_non_null(pull);
		assert_non_null(push);
		hook = loop_hook_add(l, push_what_fits, NULL, &e);
		assert_int_equal(loop_run(l, &e), 0);
		loop_hook_remove(hook);
		mq_close(push);
		mq_close(pull);
	}
}

/* ---- ROUTER and DEALER: strict question and answer, where a lost wake-up hangs ---- */

static struct mq_socket *router, *dealer;
static int turns;

static void
answer(void *arg, const struct mq_frame *f, size_t n)
{
	(void)arg;
	assert_int_equal(n, 2);
	assert_true(frame_is(&f[0], "node-1"));
	assert_int_equal(mq_send(router, f, 2, &e), 0); /* from within the callback */
}

static void
ask_again(void *arg, const struct mq_frame *f, size_t n)
{
	(void)arg;
	assert_int_equal(n, 1);
	assert_true(frame_is(&f[0], "ping"));
	if (++turns == 2000)
		loop_stop(l);
	else
		assert_int_equal(send_text(dealer, "ping"), 0);
}

static struct mq_socket *
open_dealer(const char *id, mq_fn fn)
{
	struct mq_options o = {.connect = "ipc:r", .routing_id = id, .routing_id_len = strlen(id)};

	return mq_open(m, MQ_DEALER, &o, fn, NULL, &e);
}

static void
test_ping_pong(void **state)
{
	(void)state;
	turns = 0;
	dealer = open_dealer("node-1", ask_again);
	router = mq_open(m, MQ_ROUTER, ENDPOINT(bind, "ipc:r"), answer, NULL, &e);
	assert_non_null(router);
	send_when_connected(dealer, "ping");
	assert_int_equal(loop_run(l, &e), 0);
	mq_close(router);
	mq_close(dealer);
}

static void
test_no_peer(void **state)
{
	struct mq_frame f[2] = {{"nobody", 6}, {"x", 1}};

	(void)state;
	router = mq_open(m, MQ_ROUTER, ENDPOINT(bind, "ipc:r"), answer, NULL, &e);
	assert_int_equal(mq_send(router, f, 2, &e), -1);
	assert_int_equal(e.cls, ERR_NOT_FOUND);
	push = mq_open(m, MQ_PUSH, ENDPOINT(connect, "ipc:nobody"), NULL, NULL, &e);
	assert_int_equal(send_text(push, "x"), -1);
	assert_int_equal(e.cls, ERR_AGAIN);
	mq_close(push);
	assert_int_equal(send_text(push, "x"), -1); /* closed, and not yet freed */
	mq_close(push);
	mq_close(router);
}

/* A newer connection takes over the routing id; the older one gets nothing any more. */
static int to_new;

static void
old_one(void *arg, const struct mq_frame *f, size_t n)
{
	(void)arg;
	(void)n;
	if (frame_is(&f[0], "to-new"))
		fail_msg("the old connection got the message");
}

static void
new_one(void *arg, const struct mq_frame *f, size_t n)
{
	(void)arg;
	(void)n;
	assert_true(frame_is(&f[0], "to-new"));
	to_new++;
	loop_stop(l);
}

static void
on_hello(void *arg, const struct mq_frame *f, size_t n)
{
	struct mq_frame out[2] = {{"node-1", 6}, {"to-new", 6}};

	(void)arg;
	assert_int_equal(n, 2);
	if (frame_is(&f[1], "old here"))
		send_when_connected(open_dealer("node-1", new_one), "new here");
	else
		assert_int_equal(mq_send(router, out, 2, &e), 0);
}

static void
test_handover(void **state)
{
	(void)state;
	to_new = 0;
	router = mq_open(m, MQ_ROUTER, ENDPOINT(bind, "ipc:r"), on_hello, NULL, &e);
	send_when_connected(open_dealer("node-1", old_one), "old here");
	assert_int_equal(loop_run(l, &e), 0);
	assert_int_equal(to_new, 1);
}

/* ---- Callbacks that close ---- */

static struct mq_socket *pulls[2];
static int closed_calls;

static void
close_all(void *arg, const struct mq_frame *f, size_t n)
{
	(void)arg;
	closed_calls++;
	mq_close(pulls[0]);
	mq_close(pulls[1]);
	assert_int_equal(n, 1);
	assert_true(frame_is(&f[0], "x")); /* the frames outlive the socket */
	loop_defer(l, stop, NULL);
}

static void
test_close_in_callback(void **state)
{
	(void)state;
	closed_calls = 0;
	for (int i = 0; i < 2; i++) {
		const char *where = i ? "inproc://1" : "inproc://0";

		pulls[i] = mq_open(m, MQ_PULL, ENDPOINT(bind, where), close_all, NULL, &e);
		push = mq_open(m, MQ_PUSH, ENDPOINT(connect, where), NULL, NULL, &e);
		for (int k = 0; k < 3; k++)
			assert_int_equal(send_text(push, "x"), 0);
	}
	assert_int_equal(loop_run(l, &e), 0);
	assert_int_equal(closed_calls, 1);
}

/* ---- Fairness: one socket that always has a message, another that has one ---- */

static struct mq_socket *busy_push;
static unsigned busy_count;

static void
feed_itself(void *arg, const struct mq_frame *f, size_t n)
{
	(void)arg;
	(void)f;
	(void)n;
	if (++busy_count > 1000000)
		fail_msg("the busy socket starves the other");
	assert_int_equal(send_text(busy_push, "again"), 0);
}

static void
stop_on_message(void *arg, const struct mq_frame *f, size_t n)
{
	(void)arg;
	(void)f;
	(void)n;
	loop_stop(l);
}

static void
test_fairness(void **state)
{
	struct loop_timer *t;

	(void)state;
	busy_count = 0;
	mq_open(m, MQ_PULL, ENDPOINT(bind, "inproc://busy"), feed_itself, NULL, &e);
	busy_push = mq_open(m, MQ_PUSH, ENDPOINT(connect, "inproc://busy"), NULL, NULL, &e);
	mq_open(m, MQ_PULL, ENDPOINT(bind, "ipc:quiet"), stop_on_message, NULL, &e);
	push = mq_open(m, MQ_PUSH, ENDPOINT(connect, "ipc:quiet"), NULL, NULL, &e);
	for (int i = 0; i < 200; i++)
		assert_int_equal(send_text(busy_push, "x"), 0);
	send_when_connected(push, "hello"); /* a timer, too, has its turn */
	t = retry_timer;
	assert_int_equal(loop_run(l, &e), 0);
	assert_false(loop_timer_pending(t));
	assert_true(busy_count > 200);
}

/* ---- Bad messages ---- */

static void
want_good(void *arg, const struct mq_frame *f, size_t n)
{
	(void)arg;
	if (n == MQ_FRAMES_MAX)
		return;
	assert_int_equal(n, 1);
	assert_true(frame_is(&f[0], "good"));
	loop_stop(l);
}

static void
test_bad_messages(void **state)
{
	struct mq_frame f[MQ_FRAMES_MAX + 3];
	size_t long_len = (size_t)MQ_FRAME_BYTES_MAX + 1;
	char *data = calloc(1, long_len);

	(void)state;
	mq_open(m, MQ_PULL, ENDPOINT(bind, "inproc://bad"), want_good, NULL, &e);
	push = mq_open(m, MQ_PUSH, ENDPOINT(connect, "inproc://bad"), NULL, NULL, &e);
	for (size_t i = 0; i < MQ_FRAMES_MAX + 3; i++)
		f[i] = (struct mq_frame){"x", i % 2};
	assert_int_equal(mq_send(push, f, MQ_FRAMES_MAX, &e), 0);
	assert_int_equal(mq_send(push, f, MQ_FRAMES_MAX + 1, &e), 0);
	assert_int_equal(mq_send(push, f, MQ_FRAMES_MAX + 3, &e), 0);
	f[0] = (struct mq_frame){data, long_len};
	assert_int_equal(mq_send(push, f, 1, &e), 0);
	assert_int_equal(send_text(push, "good"), 0);
	assert_int_equal(loop_run(l, &e), 0);
	free(data);
}

/* ---- Frames that are not copied ---- */

static int done_calls;

static void
done(void *data, void *hint)
{
	assert_string_equal(data, "body");
	__atomic_add_fetch((int *)hint, 1, __ATOMIC_SEQ_CST);
	free(data);
}

static void
test_send_last(void **state)
{
	struct mq_frame f[2] = {{"head", 4}, {NULL, 4}};

	(void)state;
	done_calls = 0;
	push = mq_open(m, MQ_PUSH, ENDPOINT(connect, "ipc:nobody"), NULL, NULL, &e);
	f[1].data = strdup("body");
	assert_int_equal(mq_send_last(push, f, 2, done, &done_calls, &e), -1);
	assert_int_equal(e.cls, ERR_AGAIN);
	assert_int_equal(done_calls, 1);
	f[1].data = strdup("body");
	assert_int_equal(mq_send_last(push, f + 1, 1, done, &done_calls, &e), -1);
	assert_int_equal(done_calls, 2);
	mq_close(push);

	mq_open(m, MQ_PULL, ENDPOINT(bind, "inproc://last"), stop_on_message, NULL, &e);
	push = mq_open(m, MQ_PUSH, ENDPOINT(connect, "inproc://last"), NULL, NULL, &e);
	f[1].data = strdup("body");
	assert_int_equal(mq_send_last(push, f, 2, done, &done_calls, &e), 0);
	assert_int_equal(loop_run(l, &e), 0);
	assert_int_equal(__atomic_load_n(&done_calls, __ATOMIC_SEQ_CST), 3);
}

/* ---- Endpoints ---- */

static void
test_stale_socket_and_mode(void **state)
{
	struct mq_options o = {.bind = "ipc:s"};
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct mq_socket *pull;
	struct stat st;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)state;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/s", run_path);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	close(fd); /* the name stays, as after a kill */
	pull = mq_open(m, MQ_PULL, &o, stop_on_message, NULL, &e);
	assert_non_null(pull);
	assert_int_equal(fstatat(run_fd, "s", &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	o = (struct mq_options){.bind = "ipc:t", .socket_mode = 0660};
	assert_non_null(mq_open(m, MQ_PULL, &o, stop_on_message, NULL, &e));
	assert_int_equal(fstatat(run_fd, "t", &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0660);
	push = mq_open(m, MQ_PUSH, ENDPOINT(connect, "ipc:s"), NULL, NULL, &e);
	send_when_connected(push, "x");
	assert_int_equal(loop_run(l, &e), 0);

	fd = openat(run_fd, "file", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	close(fd);
	assert_null(mq_open(m, MQ_PULL, ENDPOINT(bind, "ipc:file"), stop_on_message, NULL, &e));
	assert_int_equal(e.cls, ERR_CONFLICT);
	assert_int_equal(fstatat(run_fd, "file", &st, 0), 0);
}

static void
test_bad_endpoints(void **state)
{
	static const char *const bad[] = {
		"ipc:",
		"ipc:../x",
		"ipc:a/b",
		"ipc:..",
		"ipc:.",
		"udp://x:1",
		"ipc:0123456789012345678901234567890123456789012345678901234567890123456789",
		"tcp://nowhere",
		"tcp://127.0.0.1:99999",
		""};
	const char *port = free_port();

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		err_clear(&e);
		if (mq_open(m, MQ_PULL, ENDPOINT(bind, bad[i]), stop_on_message, NULL, &e))
			fail_msg("taken: %s", bad[i]);
		assert_true(e.cls != ERR_NONE && e.text[0]);
	}
	assert_null(mq_open(m, MQ_PULL, &(struct mq_options){.bind = NULL}, NULL, NULL, &e));
	assert_non_null(mq_open(m, MQ_PULL, ENDPOINT(bind, port), stop_on_message, NULL, &e));
	assert_null(mq_open(m, MQ_PULL, ENDPOINT(bind, port), stop_on_message, NULL, &e));
	assert_int_equal(e.errnum, EADDRINUSE);
}

/* The end that binds goes away and comes back: the connected one finds it again. */
static struct mq_socket *comes_and_goes;
static struct loop_timer *reopen_timer;
static int comebacks;

static void
go_away(void *arg, const struct mq_frame *f, size_t n)
{
	(void)arg;
	(void)f;
	(void)n;
	mq_close(comes_and_goes);
	if (++comebacks == 3)
		loop_stop(l);
	else
		loop_timer_after(reopen_timer, 20 * NS_PER_MS);
}

static void
come_back(void *arg)
{
	(void)arg;
	comes_and_goes = mq_open(m, MQ_PULL, ENDPOINT(bind, "ipc:back"), go_away, NULL, &e);
	assert_non_null(comes_and_goes);
	send_when_connected(push, "hello");
}

static void
test_reconnect(void **state)
{
	(void)state;
	comebacks = 0;
	push = mq_open(m, MQ_PUSH, ENDPOINT(connect, "ipc:back"), NULL, NULL, &e);
	reopen_timer = loop_timer_add(l, come_back, NULL, &e);
	loop_timer_after(reopen_timer, 0);
	assert_int_equal(loop_run(l, &e), 0);
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_push_pull),     T(test_ping_pong),         T(test_no_peer),
		T(test_handover),      T(test_close_in_callback), T(test_fairness),
		T(test_bad_messages),  T(test_send_last),         T(test_stale_socket_and_mode),
		T(test_bad_endpoints), T(test_reconnect),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
