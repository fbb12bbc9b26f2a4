/*
 * Events, one at a time: creation, the compare-and-sets of their life, and reads by id.
 *
 * Whether an update applies is decided in its own WHERE (not ended, no newer lease), so
 * that there is no moment between looking and writing.  sqlite3_changes says what came of
 * it; the second question, whether there is such an event at all, is only asked when
 * nothing changed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/sqlite_impl.h"

#include "core/base/clock.h"

/* These numbers are in databases: add at the end, never in between. */
_Static_assert(EVENT_QUEUED == 0 && EVENT_RUNNING == 1 && EVENT_SUCCEEDED == 2 &&
		       EVENT_CANCELLED == 3 && EVENT_DEAD == 4 && EVENT_FAILED == 5 &&
		       EVENT_TIMEOUT == 6 && EVENT_MEMORY_EXCEEDED == 7,
	       "states on disk; the schema's indexes say 2 for succeeded and < 2 for not ended");
_Static_assert(REASON_NONE == 0 && REASON_FUNCTION_FAILED == 1 && REASON_TIMEOUT == 2 &&
		       REASON_MEMORY_EXCEEDED == 3 && REASON_OUTPUT_EXCEEDED == 4 &&
		       REASON_NODE_LOST == 5 && REASON_EXPIRED == 6 &&
		       REASON_CHAIN_TOO_DEEP == 7 && REASON_CANCELLED == 8 &&
		       REASON_BUILD_FAILED == 9,
	       "reasons on disk");
_Static_assert(SOURCE_WEBHOOK == 0 && SOURCE_MESSAGE == 1 && SOURCE_TIMER == 2 &&
		       SOURCE_DATABASE == 3 && SOURCE_CHAIN == 4 && SOURCE_REPLAY == 5,
	       "sources on disk");
_Static_assert(TYPE_ASYNC == 0 && TYPE_WAIT == 1 && PAYLOAD_NONE == 0 && PAYLOAD_JSON == 1 &&
		       PAYLOAD_TEXT == 2 && PAYLOAD_BYTES == 3 && START_COLD == 0 &&
		       START_ZYGOTE == 1 && START_SPARE == 2 && START_PRELOAD == 3,
	       "types, payload kinds and starts on disk");
_Static_assert(STORE_FUNCTION == 0 && STORE_VERSION == 1 && STORE_TOKEN == 2 &&
		       STORE_BUILD == 3 && STORE_META == 4 && STORE_IMAGE == 5 && STORE_UPLOAD == 6 &&
		       STORE_DEPENDENCIES == 7 && STORE_RUNTIME == 8,
	       "kinds of documents on disk");

static const int64_t key_life_us = 24 * 3600 * US_PER_S;
static const int64_t key_sweep_every_us = 60 * US_PER_S;

static int
bind_id(sqlite3_stmt *st, int param, const struct id *id)
{
	return sqlite3_bind_blob(st, param, id->b, sizeof(id->b), SQLITE_STATIC);
}

static int
no_such_event(struct request *r)
{
	char text[ID_TEXT_MAX];

	id_format(&r->event_id, text);
	err_set(&r->done.err, ERR_NOT_FOUND, "event %s does not exist", text);
	r->done.answer.events = NULL;
	r->done.answer.event_count = 0;
	return SQLITE_OK;
}

/* A file's bytes come into memory here, in the worker: only for as long as it takes. */
static int
load(struct store_bytes *b, struct request *r)
{
	size_t got = 0;

	if (b->data || b->fd < 0 || !b->len)
		return 0;
	b->owned = malloc(b->len);
	if (!b->owned)
		return err_set(&r->done.err, ERR_AGAIN, "out of memory for %zu bytes", b->len);
	while (got < b->len) {
		ssize_t n = pread(b->fd, (char *)b->owned + got, b->len - got,
				  (off_t)(b->offset + got));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			free(b->owned);
			b->owned = NULL;
			return n < 0 ? err_sys(&r->done.err, ERR_NODE, "read an event's bytes") :
				       err_set(&r->done.err, ERR_NODE,
					       "an event's file ends after %zu of %zu bytes", got,
					       b->len);
		}
		got += (size_t)n;
	}
	b->data = b->owned;
	return 0;
}

/* ?2 is the bytes; ?1 the event's id, or its n where by_n is not 0. */
static int
put_bytes(struct db *db, enum statement which, int64_t by_n, const struct id *id,
	  const struct store_bytes *b)
{
	int rc;
	sqlite3_stmt *st;

	if (!b->len)
		return SQLITE_OK;
	st = db_statement(db, which, &rc);
	if (!st)
		return rc;
	if (by_n)
		sqlite3_bind_int64(st, 1, by_n);
	else
		bind_id(st, 1, id);
	rc = sqlite3_bind_blob64(st, 2, b->data, b->len, SQLITE_STATIC);
	return db_end(st, rc == SQLITE_OK ? sqlite3_step(st) : rc);
}

/* ---- Idempotency keys ---- */

/* Looks the key up; *known when nothing is to be created: the answer says what is. */
static int
key_look(struct db *db, struct request *r, bool *known)
{
	int rc;
	sqlite3_stmt *st = db_statement(db, ST_KEY_GET, &rc);
	const char *digest;

	*known = false;
	if (!st)
		return rc;
	bind_id(st, 1, &r->event->function_id);
	sqlite3_bind_text(st, 2, r->key, -1, SQLITE_STATIC);
	rc = sqlite3_step(st);
	if (rc == SQLITE_ROW &&
	    sqlite3_column_int64(st, 2) > r->event->created_us - key_life_us &&
	    sqlite3_column_bytes(st, 0) == sizeof(struct id)) {
		*known = true;
		memcpy(&r->done.answer.existing, sqlite3_column_blob(st, 0), sizeof(struct id));
		digest = (const char *)sqlite3_column_text(st, 1);
		if (!digest || strcmp(digest, r->digest))
			err_set(&r->done.err, ERR_CONFLICT,
				"the idempotency key was used with another payload");
	}
	return db_end(st, rc);
}

static int
key_put(struct db *db, struct request *r)
{
	int rc;
	sqlite3_stmt *st = db_statement(db, ST_KEY_PUT, &rc);

	if (!st)
		return rc;
	bind_id(st, 1, &r->event->function_id);
	sqlite3_bind_text(st, 2, r->key, -1, SQLITE_STATIC);
	bind_id(st, 3, &r->event->id);
	sqlite3_bind_text(st, 4, r->digest, -1, SQLITE_STATIC);
	sqlite3_bind_int64(st, 5, r->event->created_us);
	rc = db_end(st, sqlite3_step(st));
	if (rc != SQLITE_OK || r->event->created_us < db->keys_swept_us + key_sweep_every_us)
		return rc;
	/* Who adds keys pays for the old ones, a bounded number at a time. */
	st = db_statement(db, ST_KEY_SWEEP, &rc);
	if (!st)
		return rc;
	db->keys_swept_us = r->event->created_us;
	sqlite3_bind_int64(st, 1, r->event->created_us - key_life_us);
	return db_end(st, sqlite3_step(st));
}

/* ---- Creation ---- */

int
event_create(struct db *db, struct request *r)
{
	sqlite3_stmt *st;
	bool known = false;
	int64_t n;
	int rc;

	if (load(&r->payload, r))
		return SQLITE_OK;
	if (r->key && ((rc = key_look(db, r, &known)) != SQLITE_OK || known))
		return rc;
	st = db_statement(db, ST_EVENT_CREATE, &rc);
	if (!st)
		return rc;
	rc = columns_bind(st, ST_EVENT_CREATE, r->event);
	rc = db_end(st, rc == SQLITE_OK ? sqlite3_step(st) : rc);
	if (rc != SQLITE_OK)
		return rc;
	if (!sqlite3_changes(db->handle)) {
		char text[ID_TEXT_MAX];

		id_format(&r->event->id, text);
		err_set(&r->done.err, ERR_CONFLICT, "event %s exists already", text);
		return SQLITE_OK;
	}
	n = sqlite3_last_insert_rowid(db->handle);
	r->done.answer.changed = true;
	rc = put_bytes(db, ST_PAYLOAD_PUT, n, NULL, &r->payload);
	if (rc == SQLITE_OK && r->key)
		rc = key_put(db, r);
	return rc;
}

/* ---- The updates ---- */

static int
exists(struct db *db, struct request *r)
{
	int rc;
	sqlite3_stmt *st = db_statement(db, ST_EVENT_EXISTS, &rc);

	if (!st)
		return rc;
	bind_id(st, 1, &r->event_id);
	rc = sqlite3_step(st);
	if (rc == SQLITE_DONE)
		no_such_event(r);
	return db_end(st, rc);
}

static int
update(struct db *db, struct request *r, enum statement which)
{
	int rc;
	sqlite3_stmt *st = db_statement(db, which, &rc);

	if (!st)
		return rc;
	rc = columns_bind(st, which, r->event);
	rc = db_end(st, rc == SQLITE_OK ? sqlite3_step(st) : rc);
	if (rc != SQLITE_OK)
		return rc;
	r->done.answer.changed = sqlite3_changes(db->handle) > 0;
	return r->done.answer.changed ? SQLITE_OK : exists(db, r);
}

int
event_running(struct db *db, struct request *r)
{
	r->event->state = EVENT_RUNNING;
	return update(db, r, ST_EVENT_RUNNING);
}

int
event_requeue(struct db *db, struct request *r)
{
	int rc;

	if (load(&r->logs, r))
		return SQLITE_OK;
	r->event->state = EVENT_QUEUED;
	r->event->logs_bytes = r->logs.len;
	rc = update(db, r, ST_EVENT_REQUEUE);
	if (rc == SQLITE_OK && r->done.answer.changed)
		rc = put_bytes(db, ST_LOGS_PUT, 0, &r->event_id, &r->logs);
	return rc;
}

int
event_settle(struct db *db, struct request *r)
{
	int rc;

	if (load(&r->response, r) || load(&r->logs, r))
		return SQLITE_OK;
	r->event->logs_bytes = r->logs.len;
	r->event->response_bytes = r->response.len;
	r->event->has_response |= r->response.len > 0;
	rc = update(db, r, ST_EVENT_SETTLE);
	if (rc == SQLITE_OK && r->done.answer.changed)
		rc = put_bytes(db, ST_RESPONSE_PUT, 0, &r->event_id, &r->response);
	if (rc == SQLITE_OK && r->done.answer.changed)
		rc = put_bytes(db, ST_LOGS_PUT, 0, &r->event_id, &r->logs);
	return rc;
}

/* ---- Reads by id ---- */

/* Appends to the answer's bytes.  SQLITE_ROW: go on. */
static int
take_bytes(struct request *r, const void *data, size_t more)
{
	size_t have = r->done.answer.len;
	char *to;

	if (have + more > STORE_BYTES_MAX) {
		err_set(&r->done.err, ERR_LIMIT, "the event has more than %d bytes of logs",
			STORE_BYTES_MAX);
		return SQLITE_DONE;
	}
	to = realloc(r->bytes, have + more + 1); /* never NULL for what is there but empty */
	if (!to)
		return SQLITE_NOMEM;
	if (more)
		memcpy(to + have, data, more);
	r->bytes = to;
	r->done.answer.bytes = to;
	r->done.answer.len = have + more;
	r->result_bytes += more;
	return SQLITE_ROW;
}

static int
read_bytes(struct db *db, struct request *r, enum statement which)
{
	int rc;
	sqlite3_stmt *st = db_statement(db, which, &rc);

	if (!st)
		return rc;
	bind_id(st, 1, &r->event_id);
	for (;;) {
		rc = sqlite3_step(st);
		if (rc == SQLITE_DONE && !r->bytes)
			no_such_event(r);
		if (rc == SQLITE_ROW)
			rc = take_bytes(r, sqlite3_column_blob(st, 0),
					(size_t)sqlite3_column_bytes(st, 0));
		if (rc != SQLITE_ROW)
			return db_end(st, rc);
	}
}

int
event_payload(struct db *db, struct request *r)
{
	return read_bytes(db, r, ST_PAYLOAD_GET);
}

int
event_logs(struct db *db, struct request *r)
{
	return read_bytes(db, r, ST_LOGS_GET);
}

static int
read_response(struct db *db, struct request *r, int64_t n)
{
	int rc;
	sqlite3_stmt *st = db_statement(db, ST_RESPONSE_GET, &rc);

	if (!st)
		return rc;
	sqlite3_bind_int64(st, 1, n);
	rc = sqlite3_step(st);
	if (rc == SQLITE_ROW)
		rc = take_bytes(r, sqlite3_column_blob(st, 0), (size_t)sqlite3_column_bytes(st, 0));
	else if (rc == SQLITE_DONE)
		rc = take_bytes(r, NULL, 0); /* a response of no bytes */
	return db_end(st, rc);
}

int
event_get(struct db *db, struct request *r)
{
	int rc;
	int64_t n = 0;
	sqlite3_stmt *st = db_statement(db, ST_EVENT_GET, &rc);

	if (!st)
		return rc;
	bind_id(st, 1, &r->event_id);
	rc = sqlite3_step(st);
	if (rc == SQLITE_ROW) {
		r->events = calloc(1, sizeof(*r->events));
		rc = r->events ? columns_read(st, r->events, &n, &r->result_bytes) : SQLITE_NOMEM;
		r->done.answer.events = r->events;
		r->done.answer.event_count = rc == SQLITE_OK;
		rc = rc == SQLITE_OK ? SQLITE_ROW : rc;
	}
	rc = db_end(st, rc);
	if (rc != SQLITE_OK)
		return rc;
	/* Another project's event is as if it were not there. */
	if (!r->events || (r->project && strcmp(r->project, r->events->project_id)))
		return no_such_event(r);
	return r->events->has_response ? read_response(db, r, n) : SQLITE_OK;
}

/* ---- Expiry ---- */

static int
expire_one(struct db *db, int64_t n)
{
	static const enum statement from[] = {ST_EXPIRE_PAYLOAD, ST_EXPIRE_RESPONSE, ST_EXPIRE_LOGS,
					      ST_EXPIRE_EVENT};

	for (size_t i = 0; i < sizeof(from) / sizeof(from[0]); i++) {
		int rc;
		sqlite3_stmt *st = db_statement(db, from[i], &rc);

		if (!st)
			return rc;
		sqlite3_bind_int64(st, 1, n);
		rc = db_end(st, sqlite3_step(st));
		if (rc != SQLITE_OK)
			return rc;
	}
	return SQLITE_OK;
}

int
event_expire(struct db *db, struct request *r)
{
	int64_t found[STORE_LIST_MAX], end_ms = r->time_us / 1000 + 1;
	struct id before = {{0}};
	unsigned count = 0;
	int rc;
	sqlite3_stmt *st = db_statement(db, ST_EXPIRE_FIND, &rc);

	if (!st)
		return rc;
	/* What ended before a time was made before it, and its id says when: the index of
	 * ids leads to the oldest at once, and the scan ends at that time. */
	for (int i = 0; i < 6; i++)
		before.b[i] = (uint8_t)(end_ms >> (40 - 8 * i));
	bind_id(st, 1, &before);
	sqlite3_bind_int64(st, 2, r->time_us);
	sqlite3_bind_int64(st, 3, r->limit);
	while (count < r->limit && (rc = sqlite3_step(st)) == SQLITE_ROW)
		found[count++] = sqlite3_column_int64(st, 0);
	rc = db_end(st, rc);
	for (unsigned i = 0; i < count && rc == SQLITE_OK; i++)
		rc = expire_one(db, found[i]);
	r->done.answer.len = count;
	r->done.answer.changed = count > 0;
	return rc;
}
