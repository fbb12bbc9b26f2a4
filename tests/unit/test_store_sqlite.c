/*
 * What only the SQLite backend promises of itself: its files, its schema's versions, its
 * bounds.
 */
#include "store_fixture.h"

#include <dirent.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include "store/sqlite_impl.h"

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
	int before = open_descriptors();
	struct err e;

	f->loop = loop_new(&e);
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
	loop_free(f->loop);
	f->spec = "sqlite:";
	fixture_start(f);
	fixture_stop(f);
	sql(f, "pratai.db", "PRAGMA user_version = 99");
	f->loop = loop_new(&e);
	assert_refused(f, ERR_NODE, "version 99");
	loop_free(f->loop);
	assert_int_equal(open_descriptors(), before);
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

static int
number(sqlite3 *handle, const char *sql)
{
	sqlite3_stmt *st = NULL;
	int n;

	assert_int_equal(sqlite3_prepare_v2(handle, sql, -1, &st, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(st), SQLITE_ROW);
	n = sqlite3_column_int(st, 0);
	sqlite3_finalize(st);
	return n;
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
					      " VALUES(4, 'old', '', 1, '{}');"
					      "INSERT INTO logs VALUES(7, 1, x'61'), (7, 2, x'62')",
				      NULL, NULL, NULL),
			 SQLITE_OK);
	sqlite3_close(handle);
	fixture_start(f);
	assert_int_equal(DO(f, store_doc_get, STORE_META, "old"), ERR_NONE);
	fixture_stop(f);
	assert_int_equal(sqlite3_open(path, &handle), SQLITE_OK);
	assert_int_equal(number(handle, "SELECT count(*) FROM logs"
					" WHERE n = 7 AND data IN (x'61', x'62')"), 2);
	sqlite3_close(handle);
}

static int
pages_used(sqlite3 *handle)
{
	int hits, misses, most;

	sqlite3_db_status(handle, SQLITE_DBSTATUS_CACHE_HIT, &hits, &most, 0);
	sqlite3_db_status(handle, SQLITE_DBSTATUS_CACHE_MISS, &misses, &most, 0);
	return hits + misses;
}

/* Finding a place among logs reads keys, not the logs: one of 16 MiB is 4096 pages. */
static void
test_large_logs_do_not_slow_others(void **state)
{
	sqlite3 *handle;
	struct err e = {0};
	int before;

	(void)state;
	assert_int_equal(sqlite3_open(":memory:", &handle), SQLITE_OK);
	assert_int_equal(schema_migrate(handle, store_migrations, store_migration_count, &e), 0);
	assert_int_equal(sqlite3_exec(handle, "INSERT INTO logs VALUES(1, 1, zeroblob(16777216)),"
					      " (3, 1, zeroblob(16777216))", NULL, NULL, NULL),
			 SQLITE_OK);
	before = pages_used(handle);
	assert_int_equal(sqlite3_exec(handle, "INSERT INTO logs VALUES(2, 1, x'61'), (4, 1, x'62')",
				      NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(number(handle, "SELECT count(*) FROM logs WHERE n = 2"), 1);
	assert_true(pages_used(handle) - before < 100);
	sqlite3_close(handle);
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

/* ---- Bounds ---- */

struct tally {
	struct fixture *f;
	size_t left, failed, busy, limited;
};

static void
tally(void *arg, const struct store_answer *a, const struct err *e)
{
	struct tally *t = arg;

	(void)a;
	t->failed += e != NULL;
	t->busy += e && e->cls == ERR_AGAIN;
	t->limited += e && e->cls == ERR_LIMIT;
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
	struct tally searches = {.f = f, .left = 5};
	char *needle;
	struct event ev;

	fixture_start(f);
	needle = add_haystacks(f, 20, 4 << 20, &ev);
	filter.query = needle;
	((struct sqlite_store *)f->store)->list_ns = 20 * NS_PER_MS;
	{
		RESULT r = CALL(f, store_event_list, &filter);
		assert_int_equal(r->err.cls, ERR_LIMIT);
		assert_non_null(strstr(r->err.text, "longer than a second"));
		assert_int_equal(r->answer.event_count, 0);
	}
	((struct sqlite_store *)f->store)->list_ns = 60 * NS_PER_S;
	/* Neither a read by id, nor a list, nor closing waits for the search that runs. */
	for (int i = 0; i < 5; i++)
		store_event_list(f->store, &filter, tally, &searches);
	filter.query = NULL;
	for (int i = 0; i < 5; i++) {
		assert_int_equal(DO(f, store_event_get, &ev.id, NULL), ERR_NONE);
		assert_int_equal(DO(f, store_event_list, &filter), ERR_NONE);
	}
	assert_true(searches.left >= 4); /* of a second each */
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
	for (int i = 0; i < 100; i++) {
		store_event_list(f->store, &filter, tally, &searches);
		assert_true(((struct sqlite_store *)f->store)->waiting[REQ_EVENT_SEARCH] <= 16);
	}
	fixture_stop(f);
	assert_int_equal(searches.left, 0);
	assert_true(searches.limited >= 84); /* 16 may wait */
	searches = (struct tally){.f = f, .left = 100};
	filter.query = NULL;
	filter.source = SOURCE_TIMER;
	fixture_start(f);
	for (int i = 0; i < 100; i++)
		store_event_list(f->store, &filter, tally, &searches);
	fixture_stop(f);
	assert_int_equal(searches.left, 0);
	assert_true(searches.limited >= 36); /* 64 may wait */
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_sqlite, fixture_end)

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(test_files),
		TEST(test_other_databases_are_refused),
		TEST(test_migrations),
		TEST(test_large_logs_do_not_slow_others),
		TEST(test_version_1_is_brought_to_today),
		TEST(test_interrupted_blobs_are_swept),
		TEST(test_what_waits_is_bounded),
		TEST(test_searches_are_limited),
		TEST(test_too_many_searches),
		TEST(test_large_pages_end_early),
	};

	if (crypto_init(NULL))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
