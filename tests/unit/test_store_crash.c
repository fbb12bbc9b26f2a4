/*
 * SQLite and what happens around it: another process, no privileges, a kill at any moment,
 * a full disk.
 */
#include "store_fixture.h"

#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* In a child, where an assertion of cmocka's would run the rest of the tests. */
#define MUST(condition)                                                                            \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);            \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)

/* A child that dies with us. */
static pid_t
fork_child(void)
{
	pid_t parent = getpid(), pid = fork();

	assert_true(pid >= 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
	}
	return pid;
}

static void
assert_exits_0(pid_t pid)
{
	int status = 0;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void
assert_refused(struct fixture *f, enum err_class cls, const char *text)
{
	struct err e = {0};

	assert_null(store_open(f->spec, f->dir_fd, f->loop, &e));
	assert_int_equal(e.cls, cls);
	if (!strstr(e.text, text))
		fail_msg("'%s' lacks '%s'", e.text, text);
}

/* ---- Other processes ---- */

static void
child_holds_the_store(struct fixture *f, int ready)
{
	struct err e;

	f->loop = loop_new(&e);
	f->store = store_open(f->spec, f->dir_fd, f->loop, &e);
	MUST(f->store);
	MUST(write(ready, "x", 1) == 1);
	for (;;)
		pause();
}

static void
test_one_process_only(void **state)
{
	struct fixture *f = *state;
	int ready[2], status;
	char byte, text[64];
	struct err e;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork_child();
	if (!pid)
		child_holds_the_store(f, ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	f->loop = loop_new(&e);
	snprintf(text, sizeof(text), "in use by process %d", (int)pid);
	assert_refused(f, ERR_NODE, text);
	loop_free(f->loop);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	fixture_start(f); /* a killed one does not block */
	fixture_stop(f);
	close(ready[0]);
	close(ready[1]);
}

static void
await_one(void *arg, const struct store_answer *a, const struct err *e)
{
	int *left = arg;

	(void)a;
	MUST(!e);
	--*left;
}

static void
run_without_privileges(struct fixture *f, const char *path)
{
	struct event ev = event_of("p1", 1);
	char hex[SHA256_HEX_MAX];
	struct err e;
	int left = 0, fd;

	MUST(!setgroups(0, NULL) && !setresgid(3000000001u, 3000000001u, 3000000001u) &&
	     !setresuid(3000000001u, 3000000001u, 3000000001u));
	MUST(open(path, O_RDONLY) < 0 && errno == EACCES); /* the way is closed */
	for (int round = 0; round < 2; round++) {
		f->loop = loop_new(&e);
		f->store = store_open("sqlite:", f->dir_fd, f->loop, &e);
		if (!f->store)
			fprintf(stderr, "%s\n", e.text);
		MUST(f->store);
		left = 3;
		if (!round)
			store_event_create(f->store, &ev, bytes_of("x"), NULL, NULL, await_one, &left);
		else
			store_event_get(f->store, &ev.id, NULL, await_one, &left);
		sha256_hex("x", 1, hex);
		fd = openat(f->dir_fd, "x", O_RDWR | O_CREAT, 0600);
		MUST(fd >= 0 && write(fd, "x", 1) == 1);
		store_blob_put(f->store, hex, fd, await_one, &left);
		store_event_counts(f->store, NULL, await_one, &left);
		store_close(f->store);
		MUST(left == 0);
		close(fd);
		unlinkat(f->dir_fd, "x", 0);
		loop_free(f->loop);
	}
	_exit(0);
}

static void
test_without_privileges(void **state)
{
	struct fixture *f = *state, below = {.spec = "sqlite:"};
	char path[128];
	pid_t pid;

	if (geteuid() != 0)
		skip(); /* only root can give its privileges up */
	snprintf(path, sizeof(path), "%s/control", f->path);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(chown(path, 3000000001u, 3000000001u), 0);
	below.dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	pid = fork_child();
	if (!pid)
		run_without_privileges(&below, path);
	assert_exits_0(pid);
	close(below.dir_fd);
}

/* ---- Kill -9 ---- */

static int acknowledge_fd;

static void
acknowledge(void *arg, const struct store_answer *a, const struct err *e)
{
	struct event *ev = arg;

	(void)a;
	MUST(!e);
	MUST(write(acknowledge_fd, &ev->id, sizeof(ev->id)) == sizeof(ev->id));
	free(ev);
}

static uint64_t
keep_accepting(void *arg)
{
	struct fixture *f = arg;

	for (int i = 0; i < 20; i++) {
		struct event *ev = malloc(sizeof(*ev));

		*ev = event_of("p1", 1);
		store_event_create(f->store, ev, bytes_of("payload"), NULL, NULL, acknowledge, ev);
	}
	return NS_PER_MS;
}

static void
child_accepts(struct fixture *f, int ids)
{
	struct err e;

	acknowledge_fd = ids;
	f->loop = loop_new(&e);
	f->store = store_open(f->spec, f->dir_fd, f->loop, &e);
	MUST(f->store);
	MUST(loop_hook_add(f->loop, keep_accepting, f, &e));
	loop_run(f->loop, &e);
	_exit(1);
}

static struct id *
read_ids(int fd, struct id *ids, size_t *count, size_t until)
{
	while (*count < until) {
		ids = realloc(ids, (*count + 1) * sizeof(*ids));
		if (fd_read_all(fd, &ids[*count], sizeof(*ids)) != sizeof(*ids))
			break;
		++*count;
	}
	return ids;
}

/* Whatever was acknowledged before the kill is there, with its payload. */
static void
test_kill_at_any_moment(void **state)
{
	struct fixture *f = *state;
	struct id *ids = NULL;
	size_t count = 0, checked = 0;
	unsigned seed = (unsigned)getpid();

	for (int round = 0; round < 25; round++) {
		int pipes[2], status;
		pid_t pid;

		assert_int_equal(pipe(pipes), 0);
		pid = fork_child();
		if (!pid)
			child_accepts(f, pipes[1]);
		close(pipes[1]);
		ids = read_ids(pipes[0], ids, &count, count + (size_t)rand_r(&seed) % 400 + 1);
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		ids = read_ids(pipes[0], ids, &count, SIZE_MAX);
		close(pipes[0]);
		fixture_start(f);
		for (; checked < count; checked++) {
			RESULT r = CALL(f, store_event_payload, &ids[checked]);

			assert_int_equal(r->err.cls, ERR_NONE);
			assert_string_equal(r->bytes, "payload");
		}
		{ /* counts and records agree after recovery */
			RESULT r = CALL(f, store_event_counts, NULL);
			assert_true(r->answer.counts[EVENT_QUEUED] >= count);
		}
		fixture_stop(f);
	}
	fixture_start(f);
	for (size_t i = 0; i < count; i++) /* and later kills took nothing away */
		assert_int_equal(DO(f, store_event_get, &ids[i], "p1"), ERR_NONE);
	fixture_stop(f);
	free(ids);
}

/* ---- A disk that is full ---- */

struct outcome {
	struct loop *loop;
	bool done;
	struct err err;
};

static void
take_outcome(void *arg, const struct store_answer *a, const struct err *e)
{
	struct outcome *o = arg;

	(void)a;
	o->done = true;
	o->err = e ? *e : (struct err){0};
	loop_stop(o->loop);
}

static enum err_class
create_in_child(struct fixture *f, struct event *ev, size_t len, struct err *err)
{
	struct outcome o = {.loop = f->loop};
	struct store_bytes b = {.owned = calloc(1, len), .len = len, .fd = -1};
	struct err e;

	b.data = b.owned;
	*ev = event_of("p1", 1);
	store_event_create(f->store, ev, b, NULL, NULL, take_outcome, &o);
	while (!o.done)
		MUST(!loop_run(f->loop, &e));
	*err = o.err;
	return o.err.cls;
}

static void
stop_when_healthy(void *arg)
{
	struct fixture *f = arg;

	if (store_healthy(f->store))
		loop_stop(f->loop);
	else
		loop_timer_after(f->deadline, 20 * NS_PER_MS);
}

static void
child_fills_the_disk(struct fixture *f)
{
	struct rlimit limit = {.rlim_cur = 4 << 20, .rlim_max = RLIM_INFINITY};
	struct outcome o = {0};
	struct event first, ev;
	struct err e;

	signal(SIGXFSZ, SIG_IGN);
	f->loop = o.loop = loop_new(&e);
	f->store = store_open(f->spec, f->dir_fd, f->loop, &e);
	MUST(f->store && store_healthy(f->store));
	MUST(create_in_child(f, &first, 100, &e) == ERR_NONE);
	MUST(!setrlimit(RLIMIT_FSIZE, &limit)); /* no file beyond 4 MiB: as good as a full disk */
	MUST(create_in_child(f, &ev, 8 << 20, &e) == ERR_AGAIN);
	MUST(!strcmp(e.step, "store_unavailable") && strstr(e.text, "unavailable"));
	MUST(!store_healthy(f->store));
	store_event_payload(f->store, &first.id, take_outcome, &o); /* reading goes on */
	while (!o.done)
		MUST(!loop_run(f->loop, &e));
	MUST(o.err.cls == ERR_NONE);
	o.done = false;
	store_event_payload(f->store, &ev.id, take_outcome, &o);
	while (!o.done)
		MUST(!loop_run(f->loop, &e));
	MUST(o.err.cls == ERR_NOT_FOUND);
	limit.rlim_cur = RLIM_INFINITY;
	MUST(!setrlimit(RLIMIT_FSIZE, &limit));
	f->deadline = loop_timer_add(f->loop, stop_when_healthy, f, &e);
	loop_timer_after(f->deadline, 1);
	alarm(30);
	MUST(!loop_run(f->loop, &e)); /* by itself, without a request that would try */
	MUST(create_in_child(f, &ev, 8 << 20, &e) == ERR_NONE);
	store_close(f->store);
	_exit(0);
}

static void
test_full_disk(void **state)
{
	struct fixture *f = *state;
	pid_t pid = fork_child();

	if (!pid)
		child_fills_the_disk(f);
	assert_exits_0(pid);
	fixture_start(f);
	RESULT r = CALL(f, store_event_counts, NULL);
	assert_int_equal(r->answer.counts[EVENT_QUEUED], 2);
	fixture_stop(f);
}

/* ---- A small disk ---- */

static void
settle_in_child(struct fixture *f, struct event *ev)
{
	struct outcome o = {.loop = f->loop};
	struct store_bytes b = {.owned = calloc(1, 20000), .len = 20000, .fd = -1};
	struct err e;

	b.data = b.owned;
	ev->state = EVENT_SUCCEEDED;
	store_event_settle(f->store, ev, b, no_bytes, take_outcome, &o);
	while (!o.done)
		MUST(!loop_run(f->loop, &e));
	MUST(o.err.cls == ERR_NONE);
}

static void
child_on_a_small_disk(struct fixture *f)
{
	static struct event events[64];
	size_t count = 0;
	struct err e;

	MUST(!mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	MUST(!mount("none", f->path, "tmpfs", 0, "size=32m"));
	f->dir_fd = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	f->loop = loop_new(&e);
	f->store = store_open(f->spec, f->dir_fd, f->loop, &e);
	MUST(f->store);
	while (create_in_child(f, &events[count], 700000, &e) == ERR_NONE)
		MUST(++count < 64);
	MUST(count > 5 && e.cls == ERR_AGAIN && !strcmp(e.step, "store_unavailable") &&
	     strstr(e.text, "nearly full"));
	MUST(store_healthy(f->store));
	for (size_t i = 0; i < count; i++)
		settle_in_child(f, &events[i]);
	store_close(f->store);
	_exit(0);
}

/* What was accepted also ends there. */
static void
test_small_disk(void **state)
{
	struct fixture *f = *state;
	pid_t pid = fork_child();

	if (!pid) {
		if (unshare(CLONE_NEWNS))
			_exit(77);
		child_on_a_small_disk(f);
	}
	assert_exits_0(pid);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_sqlite, fixture_end)

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(test_one_process_only),
		TEST(test_without_privileges),
		TEST(test_kill_at_any_moment),
		TEST(test_full_disk),
		TEST(test_small_disk),
	};

	if (crypto_init(NULL))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
