/*
 * Documents and blobs, through store.h alone: what every backend must do.
 */
#include "store_fixture.h"

/* ---- Documents ---- */

static void
test_doc_life(void **state)
{
	struct fixture *f = *state;
	struct store_doc d = doc_of(STORE_FUNCTION, "f1", "p1", "music_tag", "{\"a\":1}");

	{
		RESULT r = CALL(f, store_doc_create, &d);
		assert_int_equal(r->err.cls, ERR_NONE);
		assert_int_equal(r->answer.rev, 1);
	}
	{
		RESULT r = CALL(f, store_doc_get, STORE_FUNCTION, "f1");
		assert_int_equal(r->answer.doc_count, 1);
		assert_string_equal(r->json, "{\"a\":1}");
		assert_string_equal(r->name, "music_tag");
		assert_string_equal(r->parent, "");
		assert_int_equal(r->answer.rev, 1);
	}
	{
		RESULT r = CALL(f, store_doc_find, STORE_FUNCTION, "p1", "music_tag");
		assert_string_equal(r->id[0], "f1");
	}
	assert_int_equal(DO(f, store_doc_find, STORE_FUNCTION, "p2", "music_tag"), ERR_NOT_FOUND);
	assert_int_equal(DO(f, store_doc_get, STORE_VERSION, "f1"), ERR_NOT_FOUND);
	{
		RESULT r = CALL(f, store_doc_delete, STORE_FUNCTION, "f1");
		assert_int_equal(r->err.cls, ERR_NONE);
		assert_true(r->answer.changed);
	}
	{
		RESULT r = CALL(f, store_doc_delete, STORE_FUNCTION, "f1");
		assert_int_equal(r->err.cls, ERR_NONE);
		assert_false(r->answer.changed);
	}
	assert_int_equal(DO(f, store_doc_get, STORE_FUNCTION, "f1"), ERR_NOT_FOUND);
}

static void
test_doc_unique(void **state)
{
	struct fixture *f = *state;
	struct store_doc d = doc_of(STORE_FUNCTION, "f1", "p1", "name", "{}");

	assert_int_equal(DO(f, store_doc_create, &d), ERR_NONE);
	{
		RESULT r = CALL(f, store_doc_create, &d);
		assert_int_equal(r->err.cls, ERR_CONFLICT);
		assert_non_null(strstr(r->err.text, "f1 exists"));
	}
	d.id = "f2";
	{
		RESULT r = CALL(f, store_doc_create, &d);
		assert_int_equal(r->err.cls, ERR_CONFLICT);
		assert_non_null(strstr(r->err.text, "'name' is taken"));
	}
	d.project = "p2"; /* names are the project's */
	assert_int_equal(DO(f, store_doc_create, &d), ERR_NONE);
	d.kind = STORE_TOKEN; /* ids and names are the kind's */
	assert_int_equal(DO(f, store_doc_create, &d), ERR_NONE);
	for (int i = 0; i < 3; i++) { /* no name clashes with no name */
		char id[16];

		snprintf(id, sizeof(id), "n%d", i);
		d = doc_of(STORE_BUILD, id, "", NULL, "{}");
		assert_int_equal(DO(f, store_doc_create, &d), ERR_NONE);
	}
}

static void
test_doc_update_compares_revisions(void **state)
{
	struct fixture *f = *state;
	struct store_doc d = doc_of(STORE_FUNCTION, "f1", "p1", "one", "{\"v\":1}");
	struct store_doc other = doc_of(STORE_FUNCTION, "f2", "p1", "two", "{}");

	assert_int_equal(DO(f, store_doc_create, &d), ERR_NONE);
	assert_int_equal(DO(f, store_doc_create, &other), ERR_NONE);
	d.json = "{\"v\":2}";
	d.rev = 1;
	{
		RESULT r = CALL(f, store_doc_update, &d);
		assert_int_equal(r->err.cls, ERR_NONE);
		assert_int_equal(r->answer.rev, 2);
	}
	assert_int_equal(DO(f, store_doc_update, &d), ERR_CONFLICT); /* it has 2 now */
	d.rev = 0;
	d.name = "renamed";
	{
		RESULT r = CALL(f, store_doc_update, &d);
		assert_int_equal(r->answer.rev, 3);
	}
	{
		RESULT r = CALL(f, store_doc_find, STORE_FUNCTION, "p1", "renamed");
		assert_string_equal(r->json, "{\"v\":2}");
	}
	d.name = "two";
	assert_int_equal(DO(f, store_doc_update, &d), ERR_CONFLICT);
	d.name = "renamed";
	d.parent = "above";
	assert_int_equal(DO(f, store_doc_update, &d), ERR_NONE);
	d.parent = NULL; /* which leaves it */
	assert_int_equal(DO(f, store_doc_update, &d), ERR_NONE);
	{
		RESULT r = CALL(f, store_doc_list, STORE_FUNCTION, "p1", "above", NULL, 10);
		assert_int_equal(r->answer.doc_count, 1);
		assert_string_equal(r->name, "renamed");
	}
	{
		RESULT r = CALL(f, store_doc_get, STORE_FUNCTION, "f1");
		assert_string_equal(r->name, "renamed");
		assert_int_equal(r->answer.rev, 5);
	}
	d.id = "f9";
	assert_int_equal(DO(f, store_doc_update, &d), ERR_NOT_FOUND);
}

static void
test_doc_list(void **state)
{
	struct fixture *f = *state;
	char id[16], cursor[128] = "";
	int seen = 0;

	for (int i = 0; i < 25; i++) {
		struct store_doc d = doc_of(STORE_VERSION, id, i % 2 ? "odd" : "even", NULL, "{}");

		snprintf(id, sizeof(id), "v%02d", i);
		d.parent = i < 20 ? "f1" : "f2";
		assert_int_equal(DO(f, store_doc_create, &d), ERR_NONE);
	}
	do { /* all of f1, seven at a time, in the order of ids */
		RESULT r = CALL(f, store_doc_list, STORE_VERSION, NULL, "f1", *cursor ? cursor : NULL, 7);

		assert_int_equal(r->err.cls, ERR_NONE);
		assert_true(r->answer.doc_count <= 7);
		for (size_t i = 0; i < r->answer.doc_count; i++) {
			snprintf(id, sizeof(id), "v%02d", seen++);
			assert_string_equal(r->id[i], id);
		}
		strcpy(cursor, r->next);
	} while (*cursor);
	assert_int_equal(seen, 20);
	{
		RESULT r = CALL(f, store_doc_list, STORE_VERSION, "odd", NULL, NULL, 1000);
		assert_int_equal(r->answer.doc_count, 12);
		assert_string_equal(r->next, "");
	}
	{
		RESULT r = CALL(f, store_doc_list, STORE_VERSION, "even", "f2", NULL, 3);
		assert_int_equal(r->answer.doc_count, 3);
		assert_string_equal(r->next, ""); /* exactly as many as asked: no next page */
	}
	{
		RESULT r = CALL(f, store_doc_list, STORE_META, NULL, NULL, NULL, 10);
		assert_int_equal(r->err.cls, ERR_NONE);
		assert_int_equal(r->answer.doc_count, 0);
	}
}

static void
test_bad_documents(void **state)
{
	struct fixture *f = *state;
	char *large = malloc(STORE_JSON_MAX + 2), id[STORE_ID_MAX + 2];
	struct store_doc d = doc_of(STORE_FUNCTION, "", "p", NULL, "{}");

	memset(id, 'x', sizeof(id));
	id[STORE_ID_MAX + 1] = '\0';
	assert_int_equal(DO(f, store_doc_create, &d), ERR_INPUT);
	d.id = id;
	assert_int_equal(DO(f, store_doc_create, &d), ERR_INPUT);
	assert_int_equal(DO(f, store_doc_get, STORE_FUNCTION, id), ERR_INPUT);
	id[STORE_ID_MAX] = '\0';
	assert_int_equal(DO(f, store_doc_create, &d), ERR_NONE);
	d.id = "a\nb";
	assert_int_equal(DO(f, store_doc_create, &d), ERR_INPUT);
	d.id = "\xff";
	assert_int_equal(DO(f, store_doc_create, &d), ERR_INPUT);
	d.id = "ok";
	d.name = "";
	assert_int_equal(DO(f, store_doc_create, &d), ERR_INPUT);
	d.name = NULL;
	d.kind = STORE_KIND_COUNT;
	assert_int_equal(DO(f, store_doc_create, &d), ERR_INPUT);
	d.kind = STORE_FUNCTION;
	memset(large, ' ', STORE_JSON_MAX + 1);
	large[STORE_JSON_MAX + 1] = '\0';
	d.json = large;
	assert_int_equal(DO(f, store_doc_create, &d), ERR_LIMIT);
	large[STORE_JSON_MAX] = '\0';
	assert_int_equal(DO(f, store_doc_create, &d), ERR_NONE);
	free(large);
	assert_int_equal(DO(f, store_doc_list, STORE_FUNCTION, NULL, NULL, NULL, 0), ERR_INPUT);
	assert_int_equal(DO(f, store_doc_list, STORE_FUNCTION, NULL, NULL, NULL, 1001), ERR_INPUT);
	/* Text is text, whatever it looks like. */
	d = doc_of(STORE_FUNCTION, "'; DROP TABLE docs; --", "p", "%", "{}");
	assert_int_equal(DO(f, store_doc_create, &d), ERR_NONE);
	assert_int_equal(DO(f, store_doc_find, STORE_FUNCTION, "p", "%"), ERR_NONE);
	assert_int_equal(DO(f, store_doc_find, STORE_FUNCTION, "p", "_"), ERR_NOT_FOUND);
}

/* ---- Blobs ---- */

static void
test_blobs(void **state)
{
	struct fixture *f = *state;
	size_t len = (3 << 20) + 17;
	char *data = malloc(len), *back = malloc(len), digest[SHA256_HEX_MAX];
	int fd;

	random_bytes(data, len);
	sha256_hex(data, len, digest);
	fd = file_of(f, data, len);
	assert_int_equal(DO(f, store_blob_open, digest), ERR_NOT_FOUND);
	assert_int_equal(DO(f, store_blob_put, digest, fd), ERR_NONE);
	assert_int_equal(DO(f, store_blob_put, digest, fd), ERR_NONE); /* again is fine */
	fixture_reopen(f);
	{
		RESULT r = CALL(f, store_blob_open, digest);
		assert_int_equal(r->err.cls, ERR_NONE);
		assert_int_equal(r->answer.len, len);
		assert_int_equal(fd_read_all(r->answer.fd, back, len), len);
		assert_memory_equal(data, back, len);
		assert_int_equal(write(r->answer.fd, "x", 1), -1);
		close(r->answer.fd);
	}
	{ /* another content than its name says */
		RESULT r = NULL;

		data[0] ^= 1;
		close(fd);
		fd = file_of(f, data, len);
		/* Nor is it believed where the right one is there. */
		assert_int_equal(DO(f, store_blob_put, digest, fd), ERR_INPUT);
		assert_int_equal(DO(f, store_blob_sweep, INT64_MAX), ERR_NONE);
		r = CALL(f, store_blob_put, digest, fd);
		assert_int_equal(r->err.cls, ERR_INPUT);
		assert_non_null(strstr(r->err.text, "SHA-256"));
	}
	assert_int_equal(DO(f, store_blob_open, digest), ERR_NOT_FOUND);
	assert_int_equal(DO(f, store_blob_open, "../../../../etc/passwd"), ERR_INPUT);
	digest[5] = 'A'; /* digests are lower case: a file has one name */
	assert_int_equal(DO(f, store_blob_open, digest), ERR_INPUT);
	close(fd);
	free(data);
	free(back);
}

/* A large one is copied in pieces, between which others are served: two puts of the same one. */
static void
test_large_blobs(void **state)
{
	struct fixture *f = *state;
	size_t len = (40 << 20) + 17;
	char *data = malloc(len), digest[SHA256_HEX_MAX];
	RESULT one = result_new(f);
	RESULT two = result_new(f);
	int fd;

	random_bytes(data, len);
	sha256_hex(data, len, digest);
	fd = file_of(f, data, len);
	store_blob_put(f->store, digest, fd, result_take, one);
	store_blob_put(f->store, digest, fd, result_take, two);
	assert_int_equal(DO(f, store_doc_list, STORE_FUNCTION, NULL, NULL, NULL, 10), ERR_NONE);
	result_wait(one);
	result_wait(two);
	assert_int_equal(one->err.cls, ERR_NONE);
	assert_int_equal(two->err.cls, ERR_NONE);
	{
		RESULT r = CALL(f, store_blob_open, digest);
		assert_int_equal(r->answer.len, len);
		close(r->answer.fd);
	}
	/* A store that is closed does not wait for the end of one, and nothing is left of it. */
	data[0] ^= 1;
	sha256_hex(data, len, digest);
	close(fd);
	fd = file_of(f, data, len);
	two->done = false;
	store_blob_put(f->store, digest, fd, result_take, two);
	fixture_reopen(f);
	assert_true(two->done);
	if (two->err.cls != ERR_NONE) {
		assert_int_equal(two->err.cls, ERR_AGAIN);
		assert_int_equal(DO(f, store_blob_open, digest), ERR_NOT_FOUND);
	}
	close(fd);
	free(data);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		FIXTURE_TEST(test_doc_life),
		FIXTURE_TEST(test_doc_unique),
		FIXTURE_TEST(test_doc_update_compares_revisions),
		FIXTURE_TEST(test_doc_list),
		FIXTURE_TEST(test_bad_documents),
		FIXTURE_TEST(test_blobs),
		FIXTURE_TEST(test_large_blobs),
	};

	return fixture_main(tests);
}
