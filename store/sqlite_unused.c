/*
 * What nobody needs any more: versions that were superseded, dependencies that no version has,
 * blobs that no document names, and uploads that nothing came of.  All but the last are found in
 * the reader's thread.  The document of dependencies keeps no blob: one whose blob is gone is
 * void, and who asks for it makes the blob young again, in this thread, or learns that.
 *
 * A blob is put before the document that names it is written, so that a look at the
 * documents may come in between: what was put lately stays.  Puts run in this thread, too,
 * and make an old blob young again.  Nothing is marked: a kill at any moment leaves blobs
 * that the next sweep finds.
 *
 * Blobs that another database names must stay, too: what is older than ours was not put for
 * it (the other one was moved away, and will be back), and where there are several in the
 * directory, which share its blobs, nothing is removed.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/sqlite_impl.h"

#include "core/base/clock.h"
#include "core/base/fdio.h"

/* ---- Versions ---- */

/* The rows' numbers are of enum version_state's words and of a function's document. */
static const char superseded_sql[] =
	"SELECT v.id, v.parent, json_extract(v.json, '$.version') AS n, f.id"
	" FROM docs v LEFT JOIN docs f ON f.kind = 0 AND f.id = v.parent"
	" WHERE v.kind = 1 AND json_extract(v.json, '$.state') <> 'building' AND (f.id IS NULL OR"
	" (n < json_extract(f.json, '$.latest') AND (n < json_extract(f.json, '$.serving') - ?2"
	" OR json_extract(v.json, '$.state') = 'failed'))) ORDER BY v.id LIMIT ?1";
static const char in_use_sql[] = "SELECT DISTINCT function_id, function_version"
				 " FROM events INDEXED BY events_unended WHERE state < 2";

static const char dependencies_sql[] =
	"SELECT d.id FROM docs d WHERE d.kind = 7 AND json_extract(d.json, '$.made_us') < ?2"
	" AND json_extract(d.json, '$.layer_digest') NOT IN"
	" (SELECT coalesce(json_extract(json, '$.dependencies_digest'), '') FROM docs WHERE kind = 1)"
	" ORDER BY d.id LIMIT ?1";

struct candidate {
	struct id function;
	int64_t version;
	bool in_use;
};

/* SQLITE_DONE, with r->docs and candidates side by side. */
static int
find_superseded(struct db *db, struct request *r, struct candidate *candidates)
{
	int rc;
	sqlite3_stmt *st = db_prepare(db, superseded_sql, &rc);
	size_t count = 0;

	if (!st)
		return rc;
	sqlite3_bind_int(st, 1, STORE_LIST_MAX);
	sqlite3_bind_int64(st, 2, r->limit);
	while (count < STORE_LIST_MAX && (rc = sqlite3_step(st)) == SQLITE_ROW) {
		const char *parent = (const char *)sqlite3_column_text(st, 1);
		struct candidate *c = &candidates[count];
		struct store_doc *d = &r->docs[count];

		if (!parent || id_parse(parent, &c->function))
			continue;
		c->version = sqlite3_column_int64(st, 2);
		c->in_use = sqlite3_column_type(st, 3) == SQLITE_NULL &&
			    id_time_ms(&c->function) >= r->time_us / 1000;
		d->kind = STORE_VERSION;
		d->id = strdup((const char *)sqlite3_column_text(st, 0));
		r->done.answer.doc_count = ++count;
		if (!d->id)
			rc = SQLITE_NOMEM;
		if (rc == SQLITE_NOMEM)
			break;
	}
	sqlite3_finalize(st);
	return rc == SQLITE_ROW ? SQLITE_DONE : rc;
}

static int
find_in_use(struct db *db, struct candidate *candidates, size_t count)
{
	int rc;
	sqlite3_stmt *st = count ? db_prepare(db, in_use_sql, &rc) : NULL;

	if (!st)
		return count ? rc : SQLITE_DONE;
	while ((rc = sqlite3_step(st)) == SQLITE_ROW)
		for (size_t i = 0; i < count; i++)
			if (sqlite3_column_int64(st, 1) == candidates[i].version &&
			    sqlite3_column_bytes(st, 0) == sizeof(struct id) &&
			    !memcmp(sqlite3_column_blob(st, 0), &candidates[i].function,
				    sizeof(struct id)))
				candidates[i].in_use = true;
	sqlite3_finalize(st);
	return rc;
}

/* After the versions, as far as there is room. */
static int
find_dependencies(struct db *db, struct request *r)
{
	size_t count = r->done.answer.doc_count;
	int rc;
	sqlite3_stmt *st = db_prepare(db, dependencies_sql, &rc);

	if (!st)
		return rc;
	sqlite3_bind_int64(st, 1, STORE_LIST_MAX - (int64_t)count);
	sqlite3_bind_int64(st, 2, r->time_us);
	while (count < STORE_LIST_MAX && (rc = sqlite3_step(st)) == SQLITE_ROW) {
		struct store_doc *d = &r->docs[count];

		d->kind = STORE_DEPENDENCIES;
		d->id = strdup((const char *)sqlite3_column_text(st, 0));
		r->done.answer.doc_count = ++count;
		if (!d->id) {
			rc = SQLITE_NOMEM;
			break;
		}
	}
	sqlite3_finalize(st);
	return rc == SQLITE_ROW ? SQLITE_DONE : rc;
}

int
version_unused(struct db *db, struct request *r)
{
	struct candidate *candidates = calloc(STORE_LIST_MAX, sizeof(*candidates));
	size_t kept = 0;
	int rc = SQLITE_NOMEM;

	r->docs = calloc(STORE_LIST_MAX, sizeof(*r->docs));
	if (candidates && r->docs)
		rc = find_superseded(db, r, candidates);
	if (rc == SQLITE_DONE)
		rc = find_in_use(db, candidates, r->done.answer.doc_count);
	for (size_t i = 0; rc == SQLITE_DONE && i < r->done.answer.doc_count; i++)
		if (candidates[i].in_use)
			free((char *)r->docs[i].id);
		else
			r->docs[kept++] = r->docs[i];
	if (rc == SQLITE_DONE) {
		r->done.answer.doc_count = kept;
		rc = find_dependencies(db, r);
	}
	r->done.answer.docs = r->docs;
	free(candidates);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* ---- Blobs ---- */

struct named {
	int64_t since_us, before_us;
	char (*digests)[SHA256_HEX_MAX]; /* sorted */
	size_t count, room;
};

static int
compare(const void *a, const void *b)
{
	return strcmp(a, b);
}

static int
add_named(struct named *n, const char *digest)
{
	if (!digest || strlen(digest) != SHA256_HEX_MAX - 1)
		return SQLITE_OK; /* not built yet */
	if (n->count == n->room) {
		size_t room = n->room ? n->room * 2 : 256;
		void *grown = realloc(n->digests, room * sizeof(*n->digests));

		if (!grown)
			return SQLITE_NOMEM;
		n->digests = grown;
		n->room = room;
	}
	memcpy(n->digests[n->count++], digest, SHA256_HEX_MAX);
	return SQLITE_OK;
}

/* What images are made of: of all projects, or of one. */
static int
read_images(struct db *db, struct named *n, const char *project)
{
	static const char sql[] =
		"SELECT name FROM docs WHERE kind = ?2 AND (?1 IS NULL OR project = ?1)"
		" UNION ALL SELECT json_extract(b.value, '$.digest')"
		" FROM docs i, json_each(i.json, '$.blobs') b"
		" WHERE i.kind IN (?3, ?5) AND (?1 IS NULL OR i.project = ?1)"
		" UNION ALL SELECT b.value FROM docs v, json_each(v.json, '$.image_blobs') b"
		" WHERE v.kind = ?4 AND (?1 IS NULL OR v.project = ?1)";
	int rc, added = SQLITE_OK;
	sqlite3_stmt *st = db_prepare(db, sql, &rc);

	if (!st)
		return rc;
	sqlite3_bind_text(st, 1, project, -1, SQLITE_STATIC);
	sqlite3_bind_int(st, 2, STORE_UPLOAD);
	sqlite3_bind_int(st, 3, STORE_IMAGE);
	sqlite3_bind_int(st, 4, STORE_VERSION);
	sqlite3_bind_int(st, 5, STORE_RUNTIME);
	while (added == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW)
		added = add_named(n, (const char *)sqlite3_column_text(st, 0));
	sqlite3_finalize(st);
	return added != SQLITE_OK ? added : rc;
}

static void
sort_named(struct named *n)
{
	if (n->count)
		qsort(n->digests, n->count, sizeof(*n->digests), compare);
}

static bool
is_named(const struct named *n, const char *digest)
{
	return n->count && bsearch(digest, n->digests, n->count, sizeof(*n->digests), compare);
}

static int
read_named(struct db *db, struct named *n)
{
	int rc, added = SQLITE_OK;
	sqlite3_stmt *st = db_prepare(db,
				      "SELECT json_extract(json, '$.package_digest'),"
				      " json_extract(json, '$.layer_digest'),"
				      " json_extract(json, '$.dependencies_digest')"
				      " FROM docs WHERE kind IN (0, 1)",
				      &rc);

	if (!st)
		return rc;
	while (added == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW)
		for (int i = 0; i < 3 && added == SQLITE_OK; i++)
			added = add_named(n, (const char *)sqlite3_column_text(st, i));
	sqlite3_finalize(st);
	return added != SQLITE_OK ? added : rc;
}

static int
read_birth(struct db *db, int64_t *us)
{
	int rc;
	sqlite3_stmt *st = db_prepare(db, "SELECT at FROM birth", &rc);

	if (!st)
		return rc;
	rc = sqlite3_step(st);
	*us = sqlite3_column_int64(st, 0) * US_PER_S;
	sqlite3_finalize(st);
	return rc == SQLITE_ROW ? SQLITE_DONE : rc == SQLITE_DONE ? SQLITE_CORRUPT : rc;
}

/* Each database has its lock beside it. */
static bool
is_alone(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), locks = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!dir) {
		fd_close(&fd);
		return false;
	}
	while ((entry = readdir(dir))) {
		size_t len = strlen(entry->d_name);

		locks += len > 5 && !strcmp(entry->d_name + len - 5, ".lock");
	}
	closedir(dir);
	return locks == 1;
}

static bool
is_unnamed(void *arg, const char *digest, int64_t put_us)
{
	const struct named *n = arg;

	return put_us >= n->since_us && put_us < n->before_us && !is_named(n, digest);
}

int
blob_sweep(struct db *db, struct request *r)
{
	struct named named = {.before_us = r->time_us};
	int rc = read_birth(db, &named.since_us), removed = 0;

	if (rc == SQLITE_DONE)
		rc = read_named(db, &named);
	if (rc == SQLITE_DONE)
		rc = read_images(db, &named, NULL);
	sort_named(&named);
	/* Without all of the names nothing is removed. */
	if (rc == SQLITE_DONE && is_alone(r->dir_fd))
		removed = blob_remove_if(r->dir_fd, is_unnamed, &named, &r->done.err);
	if (removed > 0)
		r->done.answer.len = (size_t)removed;
	free(named.digests);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

int
blob_keep(struct db *db, struct request *r)
{
	struct named named = {0};
	int rc = SQLITE_NOMEM;

	r->sizes = calloc(r->limit, sizeof(*r->sizes));
	if (r->sizes)
		rc = read_images(db, &named, r->project);
	sort_named(&named);
	for (unsigned i = 0; rc == SQLITE_DONE && i < r->limit; i++) {
		char digest[SHA256_HEX_MAX];

		snprintf(digest, sizeof(digest), "%.64s", r->query + (size_t)i * 64);
		r->sizes[i] = is_named(&named, digest) ? blob_touch(r->dir_fd, digest) : -1;
	}
	r->done.answer.sizes = r->sizes;
	r->done.answer.len = r->limit;
	free(named.digests);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* ---- Uploads ---- */

int
upload_expire(struct db *db, struct request *r)
{
	static const char sql[] =
		"DELETE FROM docs WHERE kind = ?1 AND json_extract(json, '$.at_us') < ?2"
		" AND (project, name) NOT IN (SELECT i.project, json_extract(b.value, '$.digest')"
		" FROM docs i, json_each(i.json, '$.blobs') b WHERE i.kind IN (?3, ?5))"
		" AND (project, name) NOT IN (SELECT v.project, b.value"
		" FROM docs v, json_each(v.json, '$.image_blobs') b WHERE v.kind = ?4)";
	int rc;
	sqlite3_stmt *st = db_prepare(db, sql, &rc);

	if (!st)
		return rc;
	sqlite3_bind_int(st, 1, STORE_UPLOAD);
	sqlite3_bind_int64(st, 2, r->time_us);
	sqlite3_bind_int(st, 3, STORE_IMAGE);
	sqlite3_bind_int(st, 4, STORE_VERSION);
	sqlite3_bind_int(st, 5, STORE_RUNTIME);
	rc = sqlite3_step(st);
	if (rc == SQLITE_DONE)
		r->done.answer.len = (size_t)sqlite3_changes(db->handle);
	sqlite3_finalize(st);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}
