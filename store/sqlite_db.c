/*
 * A connection to SQLite: opened through a directory's descriptor, with its settings and
 * its prepared statements.
 *
 * The process may have dropped its privileges and be unable to see the path above its
 * directory (0700, root's).  So the database is opened as /proc/self/fd/N/NAME: the kernel
 * goes through the descriptor and asks only about the directory itself.  SQLite's own
 * xFullPathname would resolve the links in that path, and so lead back to the path that
 * we cannot walk: a VFS that differs from the default one in that function alone takes
 * names as they are.  -wal and -shm are named after it and open the same way.
 *
 * NOMUTEX: one thread a connection.  Temporary tables stay in memory: there may be no
 * other place where we may write.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "store/sqlite_impl.h"

#include "core/base/clock.h"
#include "core/base/fdio.h"

#define VFS_NAME "pratai-dirfd"

/* Steps of SQLite's virtual machine between two looks at the clock: a few microseconds,
 * but a step may also look through megabytes for a text. */
enum { STEPS_PER_LOOK = 100 };

static int
name_as_it_is(sqlite3_vfs *vfs, const char *name, int size, char *out)
{
	(void)vfs;
	return snprintf(out, (size_t)size, "%s", name) < size ? SQLITE_OK : SQLITE_CANTOPEN;
}

static int
register_vfs(struct err *e)
{
	static sqlite3_vfs ours; /* SQLite keeps the pointer for the life of the process */
	sqlite3_vfs *base;

	if (sqlite3_vfs_find(VFS_NAME))
		return 0;
	base = sqlite3_vfs_find("unix");
	if (!base)
		return err_set(e, ERR_NODE, "SQLite has no file system layer");
	ours = *base;
	ours.zName = VFS_NAME;
	ours.xFullPathname = name_as_it_is;
	if (sqlite3_vfs_register(&ours, 0) != SQLITE_OK)
		return err_set(e, ERR_NODE, "SQLite refuses our file system layer");
	return 0;
}

/* SQLite would make it with what the umask leaves of 0644; -wal and -shm get its mode. */
static int
make_private(int dir_fd, const char *name, struct err *e)
{
	CLEAN_FD int fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	return fd < 0 ? err_sys(e, ERR_NODE, "open the database %s", name) : 0;
}

static int
on_steps(void *arg)
{
	const struct db *db = arg;

	return (db->look && db->look(db->look_arg)) || clock_mono_ns() > db->deadline_ns;
}

void
db_limit(struct db *db, uint64_t deadline_ns, bool (*look)(void *arg), void *arg)
{
	db->deadline_ns = deadline_ns;
	db->look = look;
	db->look_arg = arg;
	sqlite3_progress_handler(db->handle, deadline_ns ? STEPS_PER_LOOK : 0,
				 deadline_ns ? on_steps : NULL, db);
}

/* secure_delete: a distribution may have it on, which writes every freed page again. */
static const char common_settings[] = "PRAGMA temp_store = MEMORY;"
				      "PRAGMA trusted_schema = OFF;"
				      "PRAGMA busy_timeout = 5000;";
/* journal_mode first: the rest of the writer's settings concern the WAL. */
static const char writer_settings[] = "PRAGMA journal_mode = WAL;"
				      "PRAGMA synchronous = FULL;"
				      "PRAGMA wal_autocheckpoint = 4000;"
				      "PRAGMA journal_size_limit = 67108864;"
				      "PRAGMA secure_delete = FAST;"
				      "PRAGMA cache_size = -16384;";
static const char reader_settings[] = "PRAGMA query_only = ON;"
				      "PRAGMA cache_size = -4096;";

int
db_open(struct db *db, int dir_fd, const char *name, bool read_only, struct err *e)
{
	int flags = read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE;
	char path[512];
	int rc;

	if (register_vfs(e) || (!read_only && make_private(dir_fd, name, e)))
		return -1;
	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", dir_fd, name);
	rc = sqlite3_open_v2(path, &db->handle, flags | SQLITE_OPEN_NOMUTEX, VFS_NAME);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db->handle, common_settings, NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db->handle, read_only ? reader_settings : writer_settings, NULL,
				  NULL, NULL);
	if (rc == SQLITE_OK)
		return 0;
	db_error(db, rc, e);
	err_wrap(e, "open the database %s", name);
	e->cls = ERR_NODE;
	db_close(db);
	return -1;
}

void
db_close(struct db *db)
{
	for (int i = 0; i < ST_COUNT; i++)
		sqlite3_finalize(db->statements[i]);
	sqlite3_close(db->handle);
	memset(db, 0, sizeof(*db));
}

/* ---- Statements ---- */

static const char *const statement_text[ST_COUNT] = {
	[ST_BEGIN] = "BEGIN IMMEDIATE",
	[ST_COMMIT] = "COMMIT",
	[ST_ROLLBACK] = "ROLLBACK",
	[ST_SAVEPOINT] = "SAVEPOINT request",
	[ST_RELEASE] = "RELEASE request",
	[ST_UNDO] = "ROLLBACK TO request",
	[ST_PROBE] = "UPDATE probe SET n = n + 1",
	[ST_DOC_CREATE] = "INSERT INTO docs(kind, id, project, name, parent, rev, json)"
			  " VALUES(?1, ?2, ?3, ?4, ?5, 1, ?6)",
	[ST_DOC_UPDATE] = "UPDATE docs SET name = ?3, json = ?4, parent = coalesce(?6, parent),"
			  " rev = rev + 1"
			  " WHERE kind = ?1 AND id = ?2 AND (?5 = 0 OR rev = ?5) RETURNING rev",
	[ST_DOC_REV] = "SELECT rev FROM docs WHERE kind = ?1 AND id = ?2",
	[ST_DOC_GET] = "SELECT id, project, name, parent, rev, json FROM docs"
		       " WHERE kind = ?1 AND id = ?2",
	[ST_DOC_FIND] = "SELECT id, project, name, parent, rev, json FROM docs"
			" WHERE kind = ?1 AND project = ?2 AND name = ?3",
	[ST_DOC_DELETE] = "DELETE FROM docs WHERE kind = ?1 AND id = ?2",
	[ST_KEY_GET] = "SELECT event_id, payload_sha256, created_us FROM idempotency"
		       " WHERE function_id = ?1 AND key = ?2",
	[ST_KEY_PUT] = "INSERT OR REPLACE INTO idempotency"
		       "(function_id, key, event_id, payload_sha256, created_us)"
		       " VALUES(?1, ?2, ?3, ?4, ?5)",
	[ST_KEY_SWEEP] = "DELETE FROM idempotency WHERE (function_id, key) IN"
			 " (SELECT function_id, key FROM idempotency"
			 " WHERE created_us < ?1 LIMIT 1000)",
	[ST_EVENT_EXISTS] = "SELECT 1 FROM events WHERE id = ?1",
	[ST_COUNTS] = "SELECT state, sum(n) FROM counts WHERE ?1 IS NULL OR project_id = ?1"
		      " GROUP BY state",
	[ST_PAYLOAD_PUT] = "INSERT INTO payloads(n, data) VALUES(?1, ?2)",
	[ST_PAYLOAD_GET] = "SELECT data FROM events LEFT JOIN payloads USING (n) WHERE id = ?1",
	[ST_RESPONSE_PUT] = "INSERT INTO responses(n, data) SELECT n, ?2 FROM events WHERE id = ?1",
	[ST_RESPONSE_GET] = "SELECT data FROM responses WHERE n = ?1",
	[ST_LOGS_PUT] = "INSERT INTO logs(n, attempt, data) SELECT n, attempts, ?2 FROM events"
			" WHERE id = ?1 ON CONFLICT DO UPDATE"
			" SET data = CAST(data || excluded.data AS BLOB)",
	[ST_LOGS_GET] = "SELECT data FROM events LEFT JOIN logs USING (n) WHERE id = ?1"
			" ORDER BY attempt",
	[ST_EXPIRE_FIND] = "SELECT n FROM events WHERE id < ?1 AND state >= 2 AND finished_us < ?2"
			   " ORDER BY id LIMIT ?3",
	[ST_EXPIRE_EVENT] = "DELETE FROM events WHERE n = ?1",
	[ST_EXPIRE_PAYLOAD] = "DELETE FROM payloads WHERE n = ?1",
	[ST_EXPIRE_RESPONSE] = "DELETE FROM responses WHERE n = ?1",
	[ST_EXPIRE_LOGS] = "DELETE FROM logs WHERE n = ?1",
};

/* Those that are made from the table of an event's columns. */
static char *
made_text(enum statement which)
{
	CLEAN_FREE char *select = NULL;
	char *sql = NULL;

	if (which == ST_EVENT_CREATE)
		return columns_insert();
	if (which == ST_EVENT_RUNNING || which == ST_EVENT_REQUEUE || which == ST_EVENT_SETTLE)
		return columns_update(which);
	select = columns_select(which == ST_EVENT_GET);
	if (!select || asprintf(&sql, "%s%s", select,
				which == ST_EVENT_GET ?
					"WHERE id = ?1" :
					"WHERE state < 2 AND id > ?1 ORDER BY id LIMIT ?2") < 0)
		return NULL;
	return sql;
}

sqlite3_stmt *
db_prepare(struct db *db, const char *sql, int *rc)
{
	sqlite3_stmt *st = NULL;

	*rc = sqlite3_prepare_v3(db->handle, sql, -1, 0, &st, NULL);
	return st;
}

sqlite3_stmt *
db_statement(struct db *db, enum statement which, int *rc)
{
	sqlite3_stmt **st = &db->statements[which];

	*rc = SQLITE_OK;
	if (!*st) {
		CLEAN_FREE char *made = statement_text[which] ? NULL : made_text(which);
		const char *sql = statement_text[which] ? statement_text[which] : made;

		*rc = SQLITE_NOMEM;
		if (sql)
			*rc = sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, st,
						 NULL);
	}
	return *st;
}

int
db_end(sqlite3_stmt *st, int rc)
{
	sqlite3_reset(st);
	/* What was bound is the request's, and may be freed before the next use. */
	sqlite3_clear_bindings(st);
	return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

int
db_run(struct db *db, enum statement which)
{
	int rc;
	sqlite3_stmt *st = db_statement(db, which, &rc);

	return st ? db_end(st, sqlite3_step(st)) : rc;
}

/* ---- Errors ---- */

bool
db_is_fatal(int rc)
{
	switch (rc & 0xff) {
	case SQLITE_FULL:
	case SQLITE_IOERR:
	case SQLITE_CANTOPEN:
	case SQLITE_READONLY:
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
	case SQLITE_PERM:
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
	case SQLITE_PROTOCOL:
	case SQLITE_NOMEM:
		return true;
	default:
		return false;
	}
}

void
db_error(struct db *db, int rc, struct err *e)
{
	int errnum = db->handle ? sqlite3_system_errno(db->handle) : 0;

	if ((rc & 0xff) == SQLITE_INTERRUPT) {
		err_set(e, ERR_LIMIT,
			"the search took longer than a second: narrow it by function, state or "
			"time");
		err_step(e, "search");
	} else if ((rc & 0xff) == SQLITE_TOOBIG) {
		err_set(e, ERR_LIMIT, "too large for the store");
	} else if (db_is_fatal(rc)) {
		/* A damaged file does not heal by trying again. */
		bool damaged = (rc & 0xff) == SQLITE_CORRUPT || (rc & 0xff) == SQLITE_NOTADB;

		errno = errnum;
		if (errnum)
			err_sys(e, damaged ? ERR_NODE : ERR_AGAIN, "the store is unavailable: %s",
				sqlite3_errstr(rc));
		else
			err_set(e, damaged ? ERR_NODE : ERR_AGAIN, "the store is unavailable: %s",
				sqlite3_errstr(rc));
		err_step(e, "store_unavailable");
	} else {
		err_set(e, ERR_NODE, "the store failed: %s",
			db->handle ? sqlite3_errmsg(db->handle) : sqlite3_errstr(rc));
		err_step(e, "store_failed");
	}
}
