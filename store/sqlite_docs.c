/*
 * Documents: the few records that have names and revisions.  Two constraints refuse a
 * write: the id within the kind, and the name within kind and project.
 */
#include <stdlib.h>
#include <string.h>

#include "store/sqlite_impl.h"

static int
bind_text(sqlite3_stmt *st, int param, const char *text)
{
	return sqlite3_bind_text(st, param, text, -1, SQLITE_STATIC);
}

/* Of the request's document: its kind and id are bound. */
static sqlite3_stmt *
statement_by_id(struct db *db, enum statement which, const struct request *r, int *rc)
{
	sqlite3_stmt *st = db_statement(db, which, rc);

	if (st) {
		sqlite3_bind_int(st, 1, r->doc_kind);
		bind_text(st, 2, r->id);
	}
	return st;
}

/* SQLite names the first constraint that it happens to check: so the id is asked for, that
 * two who make the same document learn it, and not that its name is taken. */
static int
explain_create(struct db *db, struct request *r)
{
	int rc;
	sqlite3_stmt *st = statement_by_id(db, ST_DOC_REV, r, &rc);

	if (!st)
		return rc;
	rc = sqlite3_step(st);
	if (rc == SQLITE_ROW)
		err_set(&r->done.err, ERR_CONFLICT, "%s exists already", r->id);
	else if (rc == SQLITE_DONE)
		err_set(&r->done.err, ERR_CONFLICT, "the name '%s' is taken", r->name);
	return db_end(st, rc);
}

int
doc_create(struct db *db, struct request *r)
{
	int rc;
	sqlite3_stmt *st = statement_by_id(db, ST_DOC_CREATE, r, &rc);

	if (!st)
		return rc;
	bind_text(st, 3, r->project);
	bind_text(st, 4, r->name);
	bind_text(st, 5, r->parent);
	bind_text(st, 6, r->json);
	rc = db_end(st, sqlite3_step(st));
	if ((rc & 0xff) == SQLITE_CONSTRAINT)
		return explain_create(db, r);
	r->done.answer.rev = 1;
	return rc;
}

/* Why an update found nothing to update. */
static int
explain_update(struct db *db, struct request *r)
{
	int rc;
	sqlite3_stmt *st = statement_by_id(db, ST_DOC_REV, r, &rc);

	if (!st)
		return rc;
	rc = sqlite3_step(st);
	if (rc == SQLITE_ROW)
		err_set(&r->done.err, ERR_CONFLICT,
			"%s has revision %lld, not %llu: read it again", r->id,
			(long long)sqlite3_column_int64(st, 0), (unsigned long long)r->rev);
	else if (rc == SQLITE_DONE)
		err_set(&r->done.err, ERR_NOT_FOUND, "%s does not exist", r->id);
	return db_end(st, rc);
}

int
doc_update(struct db *db, struct request *r)
{
	int rc;
	sqlite3_stmt *st = statement_by_id(db, ST_DOC_UPDATE, r, &rc);

	if (!st)
		return rc;
	bind_text(st, 3, r->name);
	bind_text(st, 4, r->json);
	sqlite3_bind_int64(st, 5, (sqlite3_int64)r->rev);
	bind_text(st, 6, r->parent);
	rc = sqlite3_step(st);
	if (rc == SQLITE_ROW) {
		r->done.answer.rev = (uint64_t)sqlite3_column_int64(st, 0);
		r->done.answer.changed = true;
	} else if (rc == SQLITE_DONE) {
		db_end(st, rc);
		return explain_update(db, r);
	} else if ((rc & 0xff) == SQLITE_CONSTRAINT) {
		err_set(&r->done.err, ERR_CONFLICT, "the name '%s' is taken", r->name);
		rc = SQLITE_DONE;
	}
	return db_end(st, rc);
}

int
doc_delete(struct db *db, struct request *r)
{
	int rc;
	sqlite3_stmt *st = statement_by_id(db, ST_DOC_DELETE, r, &rc);

	if (!st)
		return rc;
	rc = sqlite3_step(st);
	r->done.answer.changed = rc == SQLITE_DONE && sqlite3_changes(db->handle) > 0;
	return db_end(st, rc);
}

/* ---- Reading ---- */

static char *
column_copy(sqlite3_stmt *st, int i, size_t *size, int *rc)
{
	const char *text = (const char *)sqlite3_column_text(st, i);
	char *copy = text ? strdup(text) : NULL;

	if (copy)
		*size += (size_t)sqlite3_column_bytes(st, i) + 1;
	else if (sqlite3_column_type(st, i) != SQLITE_NULL)
		*rc = SQLITE_NOMEM;
	return copy;
}

/* The row as one more of r->docs, which has room for it. */
static int
add_row(sqlite3_stmt *st, struct request *r)
{
	struct store_doc *d = &r->docs[r->done.answer.doc_count++];
	int rc = SQLITE_OK;

	d->kind = r->doc_kind;
	d->id = column_copy(st, 0, &r->result_bytes, &rc);
	d->project = column_copy(st, 1, &r->result_bytes, &rc);
	d->name = column_copy(st, 2, &r->result_bytes, &rc);
	d->parent = column_copy(st, 3, &r->result_bytes, &rc);
	d->rev = (uint64_t)sqlite3_column_int64(st, 4);
	d->json = column_copy(st, 5, &r->result_bytes, &rc);
	return rc;
}

static int
read_one(sqlite3_stmt *st, struct request *r, const char *what)
{
	int rc = sqlite3_step(st);

	if (rc == SQLITE_DONE) {
		err_set(&r->done.err, ERR_NOT_FOUND, "%s does not exist", what);
	} else if (rc == SQLITE_ROW) {
		r->docs = calloc(1, sizeof(*r->docs));
		rc = r->docs ? add_row(st, r) : SQLITE_NOMEM;
		r->done.answer.docs = r->docs;
		rc = rc == SQLITE_OK ? SQLITE_DONE : rc;
	}
	return db_end(st, rc);
}

int
doc_get(struct db *db, struct request *r)
{
	int rc;
	sqlite3_stmt *st = statement_by_id(db, ST_DOC_GET, r, &rc);

	if (!st)
		return rc;
	return read_one(st, r, r->id);
}

int
doc_find(struct db *db, struct request *r)
{
	int rc;
	sqlite3_stmt *st = db_statement(db, ST_DOC_FIND, &rc);

	if (!st)
		return rc;
	sqlite3_bind_int(st, 1, r->doc_kind);
	bind_text(st, 2, r->project);
	bind_text(st, 3, r->name);
	return read_one(st, r, r->name);
}

/* One row more than the page is asked for: whether there is a next one is known then. */
static int
read_page(sqlite3_stmt *st, struct request *r)
{
	int rc;

	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		size_t count = r->done.answer.doc_count;

		if (count == r->limit || r->result_bytes > PAGE_BYTES_MAX) {
			r->next = strdup(r->docs[count - 1].id);
			r->done.answer.next = r->next;
			return r->next ? SQLITE_DONE : SQLITE_NOMEM;
		}
		rc = add_row(st, r);
		if (rc != SQLITE_OK)
			return rc;
	}
	return rc;
}

int
doc_list(struct db *db, struct request *r)
{
	/* Two texts, so that each finds its index: SQLite plans before it sees values. */
	static const char by_kind[] = "SELECT id, project, name, parent, rev, json FROM docs"
				      " WHERE kind = ?1 AND id > ?2"
				      " AND (?3 IS NULL OR project = ?3)"
				      " ORDER BY id LIMIT ?5";
	static const char by_parent[] = "SELECT id, project, name, parent, rev, json FROM docs"
					" WHERE kind = ?1 AND parent = ?4 AND id > ?2"
					" AND (?3 IS NULL OR project = ?3) ORDER BY id LIMIT ?5";
	int rc;
	sqlite3_stmt *st = db_prepare(db, r->parent ? by_parent : by_kind, &rc);

	if (!st)
		return rc;
	sqlite3_bind_int(st, 1, r->doc_kind);
	bind_text(st, 2, r->cursor ? r->cursor : "");
	bind_text(st, 3, r->project);
	if (r->parent)
		bind_text(st, 4, r->parent);
	sqlite3_bind_int64(st, 5, (sqlite3_int64)r->limit + 1);
	r->docs = calloc(r->limit, sizeof(*r->docs));
	rc = r->docs ? read_page(st, r) : SQLITE_NOMEM;
	r->done.answer.docs = r->docs;
	sqlite3_finalize(st);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}
