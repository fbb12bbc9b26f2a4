/*
 * What nobody needs any more goes, and nothing else: versions by what their function, their
 * state and the queue say, blobs by what documents name and by their age.
 */
#include <sys/stat.h>
#include <time.h>

#include "tests/unit/store_fixture.h"

#define OLD_FUNCTION "01900000-0000-7000-8000-0000000000aa"
#define HOUR_US (3600 * US_PER_S)

static void
put_function(struct fixture *f, const char *id, int serving, int latest, const char *package)
{
	char json[300];
	struct store_doc d = doc_of(STORE_FUNCTION, id, "p", id, json);

	snprintf(json, sizeof(json),
		 "{\"serving\":%d,\"latest\":%d,\"package_digest\":\"%s\"}", serving, latest, package);
	DO(f, store_doc_delete, STORE_FUNCTION, id);
	assert_int_equal(DO(f, store_doc_create, &d), ERR_NONE);
}

static void
put_version(struct fixture *f, const char *function, int version, const char *state,
	    const char *package, const char *layer)
{
	char json[400], id[STORE_ID_MAX];
	struct store_doc d = doc_of(STORE_VERSION, id, "p", NULL, json);

	d.parent = function;
	snprintf(id, sizeof(id), "%s.%d", function, version);
	snprintf(json, sizeof(json),
		 "{\"version\":%d,\"state\":\"%s\",\"package_digest\":\"%s\",\"layer_digest\":\"%s\"}",
		 version, state, package, layer);
	assert_int_equal(DO(f, store_doc_create, &d), ERR_NONE);
}

static bool
is_unused_but(struct fixture *f, const char *function, int version, unsigned keep)
{
	RESULT r = CALL(f, store_version_unused, clock_real_us() - HOUR_US, keep);
	char id[STORE_ID_MAX];
	bool found = false;

	assert_int_equal(r->err.cls, ERR_NONE);
	snprintf(id, sizeof(id), "%s.%d", function, version);
	for (size_t i = 0; i < r->answer.doc_count; i++)
		found = found || !strcmp(r->id[i], id);
	return found;
}

static bool
is_unused(struct fixture *f, const char *function, int version)
{
	return is_unused_but(f, function, version, 0);
}

static void
test_superseded_versions(void **state)
{
	struct fixture *f = *state;
	static const struct {
		int version;
		const char *state;
		bool unused;
	} versions[] = {
		{1, "ready", true},	/* older than what serves */
		{2, "failed", true},
		{3, "building", false}, /* somebody is at it */
		{4, "ready", false},	/* serves */
		{5, "failed", true},	/* never served, never will */
		{6, "ready", false},	/* built, and the function's document is not there yet */
		{7, "failed", false},	/* the latest: its owner asks why */
		{8, "building", false}, /* of an update that has not ended */
	};

	put_function(f, OLD_FUNCTION, 4, 7, "");
	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++)
		put_version(f, OLD_FUNCTION, versions[i].version, versions[i].state, "", "");
	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++)
		assert_int_equal(is_unused(f, OLD_FUNCTION, versions[i].version), versions[i].unused);
	/* What served lately is kept, what failed is not. */
	assert_true(is_unused_but(f, OLD_FUNCTION, 1, 2));
	assert_false(is_unused_but(f, OLD_FUNCTION, 1, 3));
	assert_true(is_unused_but(f, OLD_FUNCTION, 2, 3));
}

static void
test_versions_of_events_that_have_not_ended(void **state)
{
	struct fixture *f = *state;
	struct event ev = event_of("p", 1), other = event_of("p", 2);

	put_function(f, OLD_FUNCTION, 3, 3, "");
	put_version(f, OLD_FUNCTION, 1, "ready", "", "");
	put_version(f, OLD_FUNCTION, 2, "ready", "", "");
	assert_int_equal(id_parse(OLD_FUNCTION, &ev.function_id), 0);
	ev.function_version = 2;
	other.function_version = 1; /* another function's */
	assert_int_equal(create(f, &ev, "{}"), ERR_NONE);
	assert_int_equal(create(f, &other, "{}"), ERR_NONE);
	assert_true(is_unused(f, OLD_FUNCTION, 1));
	assert_false(is_unused(f, OLD_FUNCTION, 2));
	/* While it runs, while it waits for another attempt: until it has ended. */
	ev.lease.term = ev.lease.seq = 1;
	assert_int_equal(DO(f, store_event_running, &ev), ERR_NONE);
	assert_false(is_unused(f, OLD_FUNCTION, 2));
	assert_int_equal(DO(f, store_event_requeue, &ev, no_bytes), ERR_NONE);
	assert_false(is_unused(f, OLD_FUNCTION, 2));
	ev.state = EVENT_SUCCEEDED;
	assert_int_equal(DO(f, store_event_settle, &ev, no_bytes, no_bytes), ERR_NONE);
	assert_true(is_unused(f, OLD_FUNCTION, 2));
}

static void
test_versions_without_a_function(void **state)
{
	struct fixture *f = *state;
	struct id now = id_new();
	char fresh[ID_TEXT_MAX];

	id_format(&now, fresh);
	put_version(f, OLD_FUNCTION, 1, "ready", "", "");
	put_version(f, fresh, 1, "ready", "", "");
	assert_true(is_unused(f, OLD_FUNCTION, 1));
	assert_false(is_unused(f, fresh, 1)); /* its function may be on its way */
}

/* ---- Blobs ---- */

static int
put_blob(struct fixture *f, const char *text, char digest[SHA256_HEX_MAX])
{
	int fd = file_of(f, text, strlen(text)), rc;

	sha256_hex(text, strlen(text), digest);
	rc = DO(f, store_blob_put, digest, fd);
	close(fd);
	return rc;
}

static bool
has_blob(struct fixture *f, const char *digest)
{
	RESULT r = CALL(f, store_blob_open, digest);

	if (r->err.cls == ERR_NONE)
		close(r->answer.fd);
	else
		assert_int_equal(r->err.cls, ERR_NOT_FOUND);
	return r->err.cls == ERR_NONE;
}

static size_t
sweep(struct fixture *f, int64_t before_us)
{
	RESULT r = CALL(f, store_blob_sweep, before_us);

	assert_int_equal(r->err.cls, ERR_NONE);
	return r->answer.len;
}

static void
test_blobs_that_no_document_names(void **state)
{
	struct fixture *f = *state;
	char package[SHA256_HEX_MAX], layer[SHA256_HEX_MAX], old[SHA256_HEX_MAX], lost[SHA256_HEX_MAX];
	int64_t later = clock_real_us() + 2 * US_PER_S;

	assert_int_equal(put_blob(f, "package", package), ERR_NONE);
	assert_int_equal(put_blob(f, "layer", layer), ERR_NONE);
	assert_int_equal(put_blob(f, "the function's own", old), ERR_NONE);
	assert_int_equal(put_blob(f, "nobody's", lost), ERR_NONE);
	put_function(f, OLD_FUNCTION, 1, 1, old);
	put_version(f, OLD_FUNCTION, 1, "ready", package, layer);
	assert_int_equal(sweep(f, clock_real_us() - HOUR_US), 0); /* none is old enough */
	assert_true(has_blob(f, lost));
	assert_int_equal(sweep(f, later), 1);
	assert_true(has_blob(f, package) && has_blob(f, layer) && has_blob(f, old));
	assert_false(has_blob(f, lost));
	assert_int_equal(DO(f, store_doc_delete, STORE_VERSION, OLD_FUNCTION ".1"), ERR_NONE);
	fixture_reopen(f); /* killed in between, say */
	assert_int_equal(sweep(f, later), 2);
	assert_true(has_blob(f, old));
	assert_int_equal(put_blob(f, "layer", layer), ERR_NONE);
	assert_true(has_blob(f, layer));
}

static void
put_dependencies(struct fixture *f, char digit, const char *layer, int64_t made_us)
{
	char json[200], key[SHA256_HEX_MAX];
	struct store_doc d = doc_of(STORE_DEPENDENCIES, key, "", NULL, json);

	memset(key, digit, sizeof(key) - 1);
	key[sizeof(key) - 1] = '\0';
	snprintf(json, sizeof(json), "{\"layer_digest\":\"%s\",\"made_us\":%lld}", layer,
		 (long long)made_us);
	assert_int_equal(DO(f, store_doc_create, &d), ERR_NONE);
}

static void
name_dependencies(struct fixture *f, int version, const char *layer)
{
	char json[300], id[STORE_ID_MAX];
	struct store_doc d = doc_of(STORE_VERSION, id, "p", NULL, json);

	d.parent = OLD_FUNCTION;
	snprintf(id, sizeof(id), OLD_FUNCTION ".%d", version);
	snprintf(json, sizeof(json), "{\"version\":%d,\"state\":\"ready\",\"layer_digest\":\"\","
		 "\"dependencies_digest\":\"%s\"}", version, layer);
	assert_int_equal(DO(f, store_doc_create, &d), ERR_NONE);
}

/* The first digits of the keys that nobody needs. */
static void
unused_dependencies(struct fixture *f, char out[8])
{
	RESULT r = CALL(f, store_version_unused, clock_real_us() - HOUR_US, 0);
	size_t n = 0;

	assert_int_equal(r->err.cls, ERR_NONE);
	for (size_t i = 0; i < r->answer.doc_count && n < 7; i++)
		if (strlen(r->id[i]) == SHA256_HEX_MAX - 1)
			out[n++] = r->id[i][0];
	out[n] = '\0';
}

/* Two versions have one layer; it goes with the second.  What was made just now waits to be
 * named.  Their document keeps no blob. */
static void
test_dependencies(void **state)
{
	struct fixture *f = *state;
	int64_t old = clock_real_us() - 2 * HOUR_US, later = clock_real_us() + HOUR_US;
	char shared[SHA256_HEX_MAX], lost[SHA256_HEX_MAX], found[8];

	put_function(f, OLD_FUNCTION, 1, 2, "");
	assert_int_equal(put_blob(f, "shared", shared), ERR_NONE);
	assert_int_equal(put_blob(f, "lost", lost), ERR_NONE);
	put_dependencies(f, 'a', shared, old);
	put_dependencies(f, 'b', lost, old);
	put_dependencies(f, 'c', lost, clock_real_us());
	name_dependencies(f, 1, shared);
	name_dependencies(f, 2, shared);
	unused_dependencies(f, found);
	assert_string_equal(found, "b");
	assert_int_equal(sweep(f, later), 1);
	assert_true(has_blob(f, shared));
	assert_false(has_blob(f, lost));
	assert_int_equal(DO(f, store_blob_put, lost, -1), ERR_NOT_FOUND);
	assert_int_equal(DO(f, store_blob_put, shared, -1), ERR_NONE);
	assert_int_equal(DO(f, store_doc_delete, STORE_VERSION, OLD_FUNCTION ".1"), ERR_NONE);
	unused_dependencies(f, found);
	assert_string_equal(found, "b");
	assert_int_equal(sweep(f, later), 0);
	assert_int_equal(DO(f, store_doc_delete, STORE_VERSION, OLD_FUNCTION ".2"), ERR_NONE);
	unused_dependencies(f, found);
	assert_string_equal(found, "ab");
	assert_int_equal(sweep(f, later), 1);
	assert_false(has_blob(f, shared));
}

/* Put again, an old one is as good as new: the document that names it is on its way. */
static void
test_old_blobs(void **state)
{
	struct fixture *f = *state;
	const struct timespec long_ago[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
	char digest[SHA256_HEX_MAX], path[100];
	struct stat st;

	assert_int_equal(put_blob(f, "again", digest), ERR_NONE);
	snprintf(path, sizeof(path), "blobs/sha256/%.2s/%s", digest, digest + 2);
	assert_int_equal(utimensat(f->dir_fd, path, long_ago, 0), 0);
	/* Older than the database: of another one. */
	assert_int_equal(sweep(f, INT64_MAX), 0);
	assert_int_equal(DO(f, store_blob_put, digest, -1), ERR_NONE);
	assert_int_equal(fstatat(f->dir_fd, path, &st, 0), 0);
	assert_true(st.st_mtim.tv_sec > long_ago[0].tv_sec);
	assert_int_equal(sweep(f, INT64_MAX), 1);
}

static void
test_blobs_of_two_databases(void **state)
{
	struct fixture *f = *state;
	char digest[SHA256_HEX_MAX];

	assert_int_equal(put_blob(f, "shared", digest), ERR_NONE);
	f->spec = "sqlite:another.db";
	fixture_reopen(f);
	assert_int_equal(sweep(f, INT64_MAX), 0);
	assert_true(has_blob(f, digest));
}

/* ---- Images ---- */

#define DAY_US (24 * HOUR_US)

static void
put_upload(struct fixture *f, const char *project, const char *digest, int64_t at_us)
{
	char json[60], text[200], id[SHA256_HEX_MAX];
	struct store_doc d = doc_of(STORE_UPLOAD, id, project, digest, json);

	snprintf(json, sizeof(json), "{\"at_us\":%lld}", (long long)at_us);
	snprintf(text, sizeof(text), "%s %s", project, digest);
	sha256_hex(text, strlen(text), id);
	assert_int_equal(DO(f, store_doc_create, &d), ERR_NONE);
}

static void
put_image_as(struct fixture *f, enum store_kind kind, const char *project, const char *id, const char *one,
	     const char *other)
{
	char json[400];
	struct store_doc d = doc_of(kind, id, project, id, json);

	snprintf(json, sizeof(json), "{\"blobs\":[{\"digest\":\"%s\"},{\"digest\":\"%s\"}]}", one,
		 other);
	assert_int_equal(DO(f, store_doc_create, &d), ERR_NONE);
}

static void
put_image(struct fixture *f, const char *project, const char *id, const char *one, const char *other)
{
	put_image_as(f, STORE_IMAGE, project, id, one, other);
}

static void
put_image_version(struct fixture *f, const char *project, const char *id, const char *digest)
{
	char json[300];
	struct store_doc d = doc_of(STORE_VERSION, id, project, NULL, json);

	d.parent = OLD_FUNCTION;
	snprintf(json, sizeof(json),
		 "{\"version\":1,\"state\":\"building\",\"package_digest\":\"\",\"layer_digest\":\"\","
		 "\"image_blobs\":[\"%s\"]}", digest);
	assert_int_equal(DO(f, store_doc_create, &d), ERR_NONE);
}

static size_t
expire(struct fixture *f, int64_t before_us)
{
	RESULT r = CALL(f, store_upload_expire, before_us);

	assert_int_equal(r->err.cls, ERR_NONE);
	return r->answer.len;
}

static void
test_blobs_of_images(void **state)
{
	struct fixture *f = *state;
	int64_t now = clock_real_us(), later = now + 2 * US_PER_S;
	char manifest[SHA256_HEX_MAX], layer[SHA256_HEX_MAX], run[SHA256_HEX_MAX];
	char fresh[SHA256_HEX_MAX], stale[SHA256_HEX_MAX];

	assert_int_equal(put_blob(f, "manifest", manifest), ERR_NONE);
	assert_int_equal(put_blob(f, "layer", layer), ERR_NONE);
	assert_int_equal(put_blob(f, "of a version", run), ERR_NONE);
	assert_int_equal(put_blob(f, "on its way", fresh), ERR_NONE);
	assert_int_equal(put_blob(f, "given up", stale), ERR_NONE);
	put_image(f, "p", "image", manifest, layer);
	put_image_version(f, "p", OLD_FUNCTION ".1", run);
	put_upload(f, "p", manifest, now - 2 * DAY_US);
	put_upload(f, "p", run, now - 2 * DAY_US);
	put_upload(f, "p", fresh, now);
	put_upload(f, "p", stale, now - 2 * DAY_US);
	put_upload(f, "q", manifest, now - 2 * DAY_US); /* p's image is not q's */
	assert_int_equal(sweep(f, later), 0);
	assert_int_equal(expire(f, now - DAY_US), 2);
	assert_int_equal(expire(f, now - DAY_US), 0);
	assert_int_equal(sweep(f, later), 1);
	assert_false(has_blob(f, stale));
	/* A runtime keeps it without its name. */
	put_image_as(f, STORE_RUNTIME, "p", "runtime", manifest, layer);
	assert_int_equal(DO(f, store_doc_delete, STORE_IMAGE, "image"), ERR_NONE);
	assert_int_equal(expire(f, now - DAY_US), 0);
	assert_int_equal(sweep(f, later), 0);
	assert_int_equal(DO(f, store_doc_delete, STORE_RUNTIME, "runtime"), ERR_NONE);
	/* Without either an image is gone, what a version runs on is not. */
	assert_int_equal(expire(f, now - DAY_US), 1);
	assert_int_equal(sweep(f, later), 2);
	assert_true(has_blob(f, run) && has_blob(f, fresh));
	assert_int_equal(DO(f, store_doc_delete, STORE_VERSION, OLD_FUNCTION ".1"), ERR_NONE);
	assert_int_equal(expire(f, now - DAY_US), 1);
	assert_int_equal(sweep(f, later), 1);
	assert_true(has_blob(f, fresh));
}

/* What a project may use, and that it is kept from the sweep then. */
static void
test_kept_blobs(void **state)
{
	static const char *const projects[] = {"p", "q", "r"};
	static const int64_t sizes[][5] = {{8, 5, -1, 12, -1}, {-1, -1, 7, -1, -1}, {-1, -1, -1, -1, -1}};
	const struct timespec yesterday[2] = {{.tv_sec = time(NULL) - 86400}, {.tv_sec = time(NULL) - 86400}};
	struct fixture *f = *state;
	char digests[5 * SHA256_HEX_MAX] = "", one[5][SHA256_HEX_MAX], path[100];
	struct stat st;

	assert_int_equal(put_blob(f, "manifest", one[0]), ERR_NONE);
	assert_int_equal(put_blob(f, "layer", one[1]), ERR_NONE);
	assert_int_equal(put_blob(f, "another", one[2]), ERR_NONE);
	assert_int_equal(put_blob(f, "of a version", one[3]), ERR_NONE);
	sha256_hex("never put", 9, one[4]);
	for (int i = 0; i < 5; i++)
		strcat(digests, one[i]);
	put_image(f, "p", "image", one[0], one[4]);
	put_upload(f, "p", one[1], clock_real_us());
	put_upload(f, "q", one[2], clock_real_us());
	put_image_version(f, "p", OLD_FUNCTION ".1", one[3]);
	for (int i = 0; i < 5; i++) {
		snprintf(path, sizeof(path), "blobs/sha256/%.2s/%s", one[i], one[i] + 2);
		utimensat(f->dir_fd, path, yesterday, 0);
	}
	for (int p = 0; p < 3; p++) {
		RESULT r = result_new(f);

		store_blob_keep(f->store, projects[p], digests, 5, result_take, r);
		result_wait(r);
		assert_int_equal(r->err.cls, ERR_NONE);
		assert_int_equal(r->answer.len, 5);
		assert_memory_equal(r->bytes, sizes[p], sizeof(sizes[p]));
		for (int i = 0; p == 0 && i < 4; i++) {
			snprintf(path, sizeof(path), "blobs/sha256/%.2s/%s", one[i], one[i] + 2);
			assert_int_equal(fstatat(f->dir_fd, path, &st, 0), 0);
			assert_int_equal(st.st_mtim.tv_sec > yesterday->tv_sec, sizes[p][i] >= 0);
		}
	}
	assert_int_equal(DO(f, store_blob_keep, "p", digests, 6), ERR_INPUT);
	assert_int_equal(DO(f, store_blob_keep, "p", digests, 0), ERR_INPUT);
	assert_int_equal(DO(f, store_blob_keep, "", digests, 5), ERR_INPUT);
	digests[70] = 'X';
	assert_int_equal(DO(f, store_blob_keep, "p", digests, 5), ERR_INPUT);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		FIXTURE_TEST(test_superseded_versions),
		FIXTURE_TEST(test_versions_of_events_that_have_not_ended),
		FIXTURE_TEST(test_versions_without_a_function),
		FIXTURE_TEST(test_blobs_that_no_document_names),
		FIXTURE_TEST(test_old_blobs),
		FIXTURE_TEST(test_dependencies),
		FIXTURE_TEST(test_blobs_of_two_databases),
		FIXTURE_TEST(test_blobs_of_images),
		FIXTURE_TEST(test_kept_blobs),
	};

	return fixture_main(tests);
}
