/*
 * What only the SQLite backend promises: its files, its lock, its schema's versions, life
 * without privileges, a full disk, a kill at any moment, bounds on what waits.
 */
#include "store_fixture.h"

#include <dirent.h>
#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "store/sqlite_impl.h"

/* In a child, where an assertion of cmocka's would run the rest of the tests. */
#define MUST(condition)                                                                            \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);            \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)

static int
set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->spec = "sqlite:";
	fixture_dir(f);
	*state = f;
	return 0;
}

static int
tear_down(void **state)
{
	fixture_remove(*state);
	free(*state);
	return 0;
}

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
sql(struct fixture *f, const char *name, const char *text)
{
	char path[128];
	sqlite3 *handle;

	snprintf(path, sizeof(path), "%s/%s", f->path, name);
	assert_int_equal(sqlite3_open(path, &handle), SQLITE_OK);
	assert_int_equal(sqlite3_exec(handle, text, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(handle);
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

static int
open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* ---- Files and versions ---- */

static void
test_files(void **state)
{
	struct fixture *f = *state;
	static const char *const names[] = {"pratai.db", "pratai.db-wal", "pratai.db-shm",
					    "pratai.db.lock"};
	int before = open_descriptors();
	mode_t mask = umask(0);
	struct stat st;

	fixture_start(f);
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(fstatat(f->dir_fd, names[i], &st, 0), 0);
		assert_int_equal(st.st_mode & 07777, 0600);
	}
	assert_int_equal(fstatat(f->dir_fd, "blobs/sha256", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	fixture_stop(f);
	umask(mask);
	assert_int_equal(open_descriptors(), before);
	assert_int_equal(fstatat(f->dir_fd, "pratai.db-wal", &st, 0), -1); /* all is in the database */
}

static void
test_other_databases_are_refused(void **state)
{
	struct fixture *f = *state;
	struct err e;
	int before;

	f->loop = loop_new(&e);
	before = open_descriptors();
	sql(f, "theirs.db", "CREATE TABLE t(x)");
	f->spec = "sqlite:theirs.db";
	assert_refused(f, ERR_NODE, "not one of Pratai's");
	assert_int_equal(file_replace(f->dir_fd, "text.db", 0600, "no database, but long enough",
				      28, &e), 0);
	f->spec = "sqlite:text.db";
	assert_refused(f, ERR_NODE, "not a database");
	assert_int_equal(symlinkat("/etc/hostname", f->dir_fd, "link.db"), 0);
	f->spec = "sqlite:link.db";
	assert_refused(f, ERR_NODE, "link.db");
	f->spec = "sqlite:";
	fixture_start(f);
	fixture_stop(f);
	sql(f, "pratai.db", "PRAGMA user_version = 99");
	f->loop = loop_new(&e);
	assert_refused(f, ERR_NODE, "version 99");
	loop_free(f->loop);
	assert_int_equal(open_descriptors(), before - 1);
}

/* Steps that are made up; the last one fails half-way. */
static void
test_migrations(void **state)
{
	static const struct migration steps[] = {
		{"CREATE TABLE a(x); INSERT INTO a VALUES(1);"},
		{"ALTER TABLE a ADD COLUMN y; UPDATE a SET y = x + 1;"},
		{"CREATE TABLE b(x); INSERT INTO nowhere VALUES(1);"},
	};
	sqlite3 *handle;
	struct err e = {0};

	(void)state;
	assert_int_equal(sqlite3_open(":memory:", &handle), SQLITE_OK);
	assert_int_equal(schema_migrate(handle, steps, 1, &e), 0);
	assert_int_equal(schema_migrate(handle, steps, 1, &e), 0); /* nothing to do */
	assert_int_equal(schema_migrate(handle, steps, 3, &e), -1);
	assert_int_equal(e.cls, ERR_NODE);
	assert_non_null(strstr(e.text, "version 3"));
	/* The second step is in, of the third nothing. */
	assert_int_equal(sqlite3_exec(handle, "SELECT y FROM a", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_exec(handle, "SELECT x FROM b", NULL, NULL, NULL), SQLITE_ERROR);
	assert_int_equal(schema_migrate(handle, steps, 2, &e), 0);
	assert_int_equal(schema_migrate(handle, steps, 1, &e), -1); /* newer than this program */
	assert_non_null(strstr(e.text, "version 2"));
	sqlite3_close(handle);
}

static void
test_version_1_is_brought_to_today(void **state)
{
	struct fixture *f = *state;
	char path[128];
	sqlite3 *handle;
	struct err e = {0};

	snprintf(path, sizeof(path), "%s/pratai.db", f->path);
	assert_int_equal(sqlite3_open(path, &handle), SQLITE_OK);
	assert_int_equal(schema_migrate(handle, store_migrations, 1, &e), 0);
	assert_int_equal(sqlite3_exec(handle, "INSERT INTO docs(kind, id, project, rev, json)"
					      " VALUES(4, 'old', '', 1, '{}')", NULL, NULL, NULL),
			 SQLITE_OK);
	sqlite3_close(handle);
	fixture_start(f);
	assert_int_equal(DO(f, store_doc_get, STORE_META, "old"), ERR_NONE);
	fixture_stop(f);
}

static void
test_interrupted_blobs_are_swept(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	struct err e;

	assert_int_equal(dir_make(f->dir_fd, "blobs/sha256/ab", 0700, &e), 0);
	assert_int_equal(file_replace(f->dir_fd, "blobs/sha256/ab/tmp.cd", 0600, "x", 1, &e), 0);
	assert_int_equal(file_replace(f->dir_fd, "blobs/sha256/ab/cd", 0600, "x", 1, &e), 0);
	fixture_start(f);
	assert_int_equal(fstatat(f->dir_fd, "blobs/sha256/ab/tmp.cd", &st, 0), -1);
	assert_int_equal(fstatat(f->dir_fd, "blobs/sha256/ab/cd", &st, 0), 0);
	fixture_stop(f);
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

/* ---- Bounds ---- */

struct tally {
	struct fixture *f;
	size_t left, failed, busy;
};

static void
tally(void *arg, const struct store_answer *a, const struct err *e)
{
	struct tally *t = arg;

	(void)a;
	t->failed += e != NULL;
	t->busy += e && e->cls == ERR_AGAIN;
	if (!--t->left)
		loop_stop(t->f->loop);
}

static void
test_what_waits_is_bounded(void **state)
{
	enum { MORE = 50, LEN = 6 << 20 };
	struct fixture *f = *state;
	struct tally creates = {.f = f, .left = MORE}, settles = {.f = f, .left = 1};
	struct event ev;
	struct err e;

	fixture_start(f);
	for (int i = 0; i < MORE; i++) { /* 300 MiB at once */
		struct store_bytes b = {.owned = calloc(1, LEN), .len = LEN, .fd = -1};

		b.data = b.owned;
		ev = event_of("p1", 1);
		store_event_create(f->store, &ev, b, NULL, NULL, tally, &creates);
		assert_int_equal(creates.left, MORE); /* refusals come from the loop, too */
	}
	/* An outcome is taken where a new event is not. */
	ev.state = EVENT_SUCCEEDED;
	store_event_settle(f->store, &ev, no_bytes, no_bytes, tally, &settles);
	while (creates.left || settles.left)
		assert_int_equal(loop_run(f->loop, &e), 0);
	assert_int_equal(creates.failed, MORE - 42);
	assert_int_equal(creates.busy, MORE - 42);
	assert_int_equal(settles.busy, 0);
	assert_true(store_healthy(f->store));
	ev = event_of("p1", 1);
	assert_int_equal(DO(f, store_event_create, &ev, bytes_of("x"), NULL, NULL), ERR_NONE);
	fixture_stop(f);
}

/* Payloads that make each look for a text as slow as it can be. */
static char *
add_haystacks(struct fixture *f, int count, size_t len, struct event *ev)
{
	char *needle = malloc(STORE_QUERY_MAX + 1);

	for (int i = 0; i < count; i++) {
		struct store_bytes b = {.owned = malloc(len), .len = len, .fd = -1};

		memset(b.owned, 'a', len);
		b.data = b.owned;
		*ev = event_of("p1", 1);
		assert_int_equal(DO(f, store_event_create, ev, b, NULL, NULL), ERR_NONE);
	}
	memset(needle, 'a', STORE_QUERY_MAX - 1);
	strcpy(needle + STORE_QUERY_MAX - 1, "b");
	return needle;
}

static void
test_searches_are_limited(void **state)
{
	struct fixture *f = *state;
	struct store_event_filter filter = {.state = -1, .source = -1, .limit = 10};
	struct tally searches = {.f = f, .left = 3};
	char *needle;
	struct event ev;
	uint64_t start;

	fixture_start(f);
	needle = add_haystacks(f, 40, 4 << 20, &ev);
	filter.query = needle;
	start = clock_mono_ns();
	{
		RESULT r = CALL(f, store_event_list, &filter);
		assert_int_equal(r->err.cls, ERR_LIMIT);
		assert_non_null(strstr(r->err.text, "longer than a second"));
		assert_int_equal(r->answer.event_count, 0);
	}
	assert_true(clock_mono_ns() - start >= NS_PER_S);
	/* Behind three of them: neither reads by id nor lists wait for all, nor does closing. */
	for (int i = 0; i < 3; i++)
		store_event_list(f->store, &filter, tally, &searches);
	assert_int_equal(DO(f, store_event_get, &ev.id, NULL), ERR_NONE);
	assert_int_equal(searches.left, 3);
	filter.query = NULL;
	assert_int_equal(DO(f, store_event_list, &filter), ERR_NONE);
	assert_true(searches.left >= 2);
	fixture_stop(f);
	assert_int_equal(searches.left, 0);
	assert_true(searches.busy >= 1);
	free(needle);
}

static void
test_too_many_searches(void **state)
{
	struct fixture *f = *state;
	struct store_event_filter filter = {.state = -1, .source = -1, .limit = 10, .query = "x"};
	struct tally searches = {.f = f, .left = 100};

	fixture_start(f);
	for (int i = 0; i < 100; i++)
		store_event_list(f->store, &filter, tally, &searches);
	fixture_stop(f);
	assert_int_equal(searches.left, 0);
	assert_true(searches.busy >= 36); /* 64 may wait */
}

/* A page of large documents ends early, and the next one goes on where it ended. */
static void
test_large_pages_end_early(void **state)
{
	enum { DOCS = 12 };
	struct fixture *f = *state;
	char *json = malloc(STORE_JSON_MAX + 1), id[16], cursor[128] = "";
	int seen = 0, pages = 0;

	memset(json, ' ', STORE_JSON_MAX);
	json[STORE_JSON_MAX] = '\0';
	fixture_start(f);
	for (int i = 0; i < DOCS; i++) {
		struct store_doc d = {.kind = STORE_BUILD, .id = id, .project = "", .json = json};

		snprintf(id, sizeof(id), "b%02d", i);
		assert_int_equal(DO(f, store_doc_create, &d), ERR_NONE);
	}
	do {
		RESULT r = CALL(f, store_doc_list, STORE_BUILD, NULL, NULL, cursor, 1000);

		assert_int_equal(r->err.cls, ERR_NONE);
		for (size_t i = 0; i < r->answer.doc_count; i++, seen++) {
			snprintf(id, sizeof(id), "b%02d", seen);
			assert_string_equal(r->id[i], id);
		}
		strcpy(cursor, r->next);
		pages++;
	} while (*cursor);
	assert_int_equal(seen, DOCS);
	assert_true(pages >= 3);
	fixture_stop(f);
	free(json);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(test_files),
		TEST(test_other_databases_are_refused),
		TEST(test_migrations),
		TEST(test_version_1_is_brought_to_today),
		TEST(test_interrupted_blobs_are_swept),
		TEST(test_one_process_only),
		TEST(test_without_privileges),
		TEST(test_kill_at_any_moment),
		TEST(test_full_disk),
		TEST(test_what_waits_is_bounded),
		TEST(test_searches_are_limited),
		TEST(test_too_many_searches),
		TEST(test_large_pages_end_early),
	};

	if (crypto_init(NULL))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
