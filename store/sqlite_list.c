/*
 * Lists and searches of events, newest first.
 *
 * The statement's text is made for each filter, because SQLite plans before it sees
 * values: a condition such as "?1 IS NULL OR …" would cost the index.  Which index serves
 * which filter is said by INDEXED BY, so that a plan cannot change with the data.  Values
 * are bound, never printed; the text holds our own constants only.
 *
 * The order is (created_us, n); a cursor is that pair of the last row that was given.
 * A search looks at bytes (instr), row by row in that order, and is ended by the clock.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/sqlite_impl.h"

#include "core/base/buf.h"
#include "core/base/fdio.h"
#include "core/base/str.h"

struct position {
	int64_t created_us, n;
};

static int
cursor_parse(const char *cursor, struct position *p)
{
	char copy[STORE_ID_MAX + 1], *dot;

	if (str_copy(copy, sizeof(copy), cursor) || !(dot = strchr(copy, '.')))
		return -1;
	*dot = '\0';
	return str_int(copy, INT64_MIN, INT64_MAX, &p->created_us) ||
			       str_int(dot + 1, 0, INT64_MAX, &p->n) ?
		       -1 :
		       0;
}

static const char *
index_for(const struct request *r)
{
	if (!id_is_zero(&r->function_id))
		return "events_function";
	if (!r->project)
		return "events_created";
	return r->state >= 0 && r->state != EVENT_SUCCEEDED ? "events_open" : "events_project";
}

/* The reasons whose words have the text in them: the words are ours, not the database's. */
static void
put_reasons(struct buf *sql, const char *query)
{
	buf_puts(sql, " OR reason IN (-1");
	for (int i = REASON_NONE + 1; i < REASON_COUNT; i++)
		if (strstr(event_reason_name((enum event_reason)i), query))
			buf_printf(sql, ", %d", i);
	buf_puts(sql, ")");
}

enum { P_PROJECT = 1, P_FUNCTION, P_SINCE, P_CREATED, P_N, P_TEXT, P_BYTES, P_LIMIT };

static char *
list_text(const struct request *r)
{
	CLEAN_FREE char *select = columns_select(true);
	struct buf sql = {0};

	buf_printf(&sql, "%sINDEXED BY %s WHERE 1", select ? select : "", index_for(r));
	if (r->project)
		buf_puts(&sql, " AND project_id = ?1");
	if (!id_is_zero(&r->function_id))
		buf_puts(&sql, " AND function_id = ?2");
	if (r->state >= 0)
		buf_printf(&sql, " AND state = %d AND state %s 2", r->state,
			   r->state == EVENT_SUCCEEDED ? "=" : "<>");
	if (r->source >= 0)
		buf_printf(&sql, " AND source = %d", r->source);
	if (r->time_us)
		buf_puts(&sql, " AND created_us >= ?3");
	if (r->cursor)
		buf_puts(&sql, " AND (created_us, n) < (?4, ?5)");
	if (r->query) {
		buf_puts(&sql, " AND (instr(error_message, ?6) OR instr(error_traceback, ?6)"
			       " OR EXISTS (SELECT 1 FROM payloads p WHERE p.n = events.n"
			       " AND instr(p.data, ?7))"
			       " OR EXISTS (SELECT 1 FROM logs l WHERE l.n = events.n"
			       " AND instr(l.data, ?7))");
		put_reasons(&sql, r->query);
		buf_puts(&sql, ")");
	}
	buf_puts(&sql, " ORDER BY created_us DESC, n DESC LIMIT ?8");
	return buf_steal(&sql);
}

static void
bind_filter(sqlite3_stmt *st, const struct request *r, const struct position *p)
{
	/* What the text does not mention may be bound all the same. */
	if (r->project)
		sqlite3_bind_text(st, P_PROJECT, r->project, -1, SQLITE_STATIC);
	sqlite3_bind_blob(st, P_FUNCTION, r->function_id.b, sizeof(r->function_id.b),
			  SQLITE_STATIC);
	sqlite3_bind_int64(st, P_SINCE, r->time_us);
	sqlite3_bind_int64(st, P_CREATED, p->created_us);
	sqlite3_bind_int64(st, P_N, p->n);
	if (r->query) {
		sqlite3_bind_text(st, P_TEXT, r->query, -1, SQLITE_STATIC);
		sqlite3_bind_blob(st, P_BYTES, r->query, (int)strlen(r->query), SQLITE_STATIC);
	}
	sqlite3_bind_int64(st, P_LIMIT, (sqlite3_int64)r->limit + 1);
}

/* Where the page ends before the rows do, *p is the last one taken and *more is set. */
static int
read_page(sqlite3_stmt *st, struct request *r, struct position *p, bool *more)
{
	int rc;

	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		size_t *count = &r->done.answer.event_count;

		*more = *count == r->limit || r->result_bytes > PAGE_BYTES_MAX;
		if (*more)
			return SQLITE_DONE;
		rc = columns_read(st, &r->events[*count], &p->n, &r->result_bytes);
		if (rc != SQLITE_OK)
			return rc;
		p->created_us = r->events[*count].created_us;
		++*count;
	}
	return rc;
}

static int
read_rows(sqlite3_stmt *st, struct request *r)
{
	struct position p;
	bool more = false;
	int rc;

	r->events = calloc(r->limit, sizeof(*r->events));
	if (!r->events)
		return SQLITE_NOMEM;
	rc = read_page(st, r, &p, &more);
	r->done.answer.events = r->events;
	if (rc != SQLITE_DONE || !more)
		return rc;
	if (asprintf(&r->next, "%" PRId64 ".%" PRId64, p.created_us, p.n) < 0) {
		r->next = NULL;
		return SQLITE_NOMEM;
	}
	r->done.answer.next = r->next;
	return rc;
}

int
event_list(struct db *db, struct request *r)
{
	CLEAN_FREE char *sql = NULL;
	struct position after = {0};
	sqlite3_stmt *st;
	int rc;

	if (r->cursor && cursor_parse(r->cursor, &after)) {
		err_set(&r->done.err, ERR_INPUT, "'%.60s' is not a cursor that a list gave",
			r->cursor);
		return SQLITE_OK;
	}
	sql = list_text(r);
	if (!sql)
		return SQLITE_NOMEM;
	st = db_prepare(db, sql, &rc);
	if (!st)
		return rc;
	bind_filter(st, r, &after);
	rc = read_rows(st, r);
	sqlite3_finalize(st);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

int
event_unended(struct db *db, struct request *r)
{
	int rc;
	sqlite3_stmt *st = db_statement(db, ST_EVENT_UNENDED, &rc);

	if (!st)
		return rc;
	sqlite3_bind_blob(st, 1, r->event_id.b, sizeof(r->event_id.b), SQLITE_STATIC);
	sqlite3_bind_int64(st, 2, r->limit);
	return db_end(st, read_rows(st, r));
}

int
event_counts(struct db *db, struct request *r)
{
	int rc;
	sqlite3_stmt *st = db_statement(db, ST_COUNTS, &rc);

	if (!st)
		return rc;
	if (r->project)
		sqlite3_bind_text(st, 1, r->project, -1, SQLITE_STATIC);
	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		int state = sqlite3_column_int(st, 0);

		if (state >= 0 && state < EVENT_STATE_COUNT)
			r->done.answer.counts[state] = (uint64_t)sqlite3_column_int64(st, 1);
	}
	return db_end(st, rc);
}
