/*
 * The schema and its history: step i brings a database of version i to version i + 1.
 * The version is SQLite's user_version, written in the step's own transaction: a step
 * that was interrupted has not happened.  A step that was released never changes again.
 *
 * Events have an integer key n, the order of acceptance, so that the tables that grow
 * fastest (events, payloads, responses, logs) are appended to; ids, which others compute,
 * are found through an index of 20 bytes an entry.  Each index is paid for at every
 * accept.  Why these:
 *   id                     single reads, create-if-absent
 *   function, project, created   lists, newest first, with `since` as a range
 *   open                   lists by a state other than "succeeded", which most end as
 *   unended                the scheduler's recovery, by id; leaves when the event ends
 * Numbers of states and the like are on disk: sqlite_events.c holds the enums to them.
 * Counts by state are kept by triggers: counting a table of millions takes too long for
 * a status page.
 */
#include <stdio.h>

#include "store/sqlite_impl.h"

enum { APPLICATION_ID = 0x50524149 }; /* "PRAI": file(1) and we know the file by it */

const struct migration store_migrations[] = {
	{
		"CREATE TABLE docs("
		" kind INTEGER NOT NULL, id TEXT NOT NULL, project TEXT NOT NULL, name TEXT,"
		" parent TEXT, rev INTEGER NOT NULL, json TEXT NOT NULL,"
		" PRIMARY KEY(kind, id));"
		"CREATE UNIQUE INDEX docs_name ON docs(kind, project, name) WHERE name IS NOT NULL;"
		"CREATE INDEX docs_parent ON docs(kind, parent, id) WHERE parent IS NOT NULL;"

		"CREATE TABLE events("
		" n INTEGER PRIMARY KEY, id BLOB NOT NULL, function_id BLOB NOT NULL,"
		" project_id TEXT NOT NULL, state INTEGER NOT NULL, source INTEGER NOT NULL,"
		" created_us INTEGER NOT NULL, lease_term INTEGER NOT NULL,"
		" lease_seq INTEGER NOT NULL, type INTEGER NOT NULL, reason INTEGER NOT NULL,"
		" start INTEGER NOT NULL, function_version INTEGER NOT NULL,"
		" attempts INTEGER NOT NULL, failures INTEGER NOT NULL, queued_us INTEGER NOT NULL,"
		" started_us INTEGER NOT NULL, finished_us INTEGER NOT NULL,"
		" not_before_us INTEGER NOT NULL,"
		" accept_us INTEGER NOT NULL, persist_us INTEGER NOT NULL,"
		" queue_us INTEGER NOT NULL,"
		" sandbox_us INTEGER NOT NULL, import_us INTEGER NOT NULL, run_us INTEGER NOT NULL,"
		" collect_us INTEGER NOT NULL,"
		" payload_kind INTEGER NOT NULL, payload_bytes INTEGER NOT NULL,"
		" wall_us INTEGER NOT NULL, cpu_us INTEGER NOT NULL,"
		" memory_peak_bytes INTEGER NOT NULL, logs_bytes INTEGER NOT NULL,"
		" logs_truncated INTEGER NOT NULL, has_response INTEGER NOT NULL,"
		" response_bytes INTEGER NOT NULL, response_status INTEGER NOT NULL,"
		" parent BLOB, root BLOB, function_name TEXT NOT NULL, node_id TEXT NOT NULL,"
		" response_content_type TEXT NOT NULL, error_type TEXT NOT NULL,"
		" response_fields TEXT, error_message TEXT, error_traceback TEXT);"
		"CREATE UNIQUE INDEX events_id ON events(id);"
		"CREATE INDEX events_function ON events(function_id, created_us);"
		"CREATE INDEX events_project ON events(project_id, created_us);"
		"CREATE INDEX events_created ON events(created_us);"
		"CREATE INDEX events_open ON events(project_id, created_us) WHERE state <> 2;"
		"CREATE INDEX events_unended ON events(id) WHERE state < 2;"

		"CREATE TABLE payloads(n INTEGER PRIMARY KEY, data BLOB NOT NULL);"
		"CREATE TABLE responses(n INTEGER PRIMARY KEY, data BLOB NOT NULL);"
		"CREATE TABLE logs(n INTEGER NOT NULL, attempt INTEGER NOT NULL,"
		" data BLOB NOT NULL, PRIMARY KEY(n, attempt)) WITHOUT ROWID;"

		"CREATE TABLE idempotency(function_id BLOB NOT NULL, key TEXT NOT NULL,"
		" event_id BLOB NOT NULL, payload_sha256 TEXT NOT NULL,"
		" created_us INTEGER NOT NULL,"
		" PRIMARY KEY(function_id, key)) WITHOUT ROWID;"
		"CREATE INDEX idempotency_created ON idempotency(created_us);"

		"CREATE TABLE counts(project_id TEXT NOT NULL, state INTEGER NOT NULL,"
		" n INTEGER NOT NULL, PRIMARY KEY(project_id, state)) WITHOUT ROWID;"
		"CREATE TRIGGER events_created AFTER INSERT ON events BEGIN"
		" INSERT INTO counts VALUES(new.project_id, new.state, 1)"
		" ON CONFLICT DO UPDATE SET n = n + 1; END;"
		"CREATE TRIGGER events_moved AFTER UPDATE OF state ON events"
		" WHEN old.state <> new.state BEGIN"
		" UPDATE counts SET n = n - 1"
		" WHERE project_id = old.project_id AND state = old.state;"
		" INSERT INTO counts VALUES(new.project_id, new.state, 1)"
		" ON CONFLICT DO UPDATE SET n = n + 1; END;"
		"CREATE TRIGGER events_removed AFTER DELETE ON events BEGIN"
		" UPDATE counts SET n = n - 1"
		" WHERE project_id = old.project_id AND state = old.state;"
		" END;"

		"CREATE TABLE probe(n INTEGER NOT NULL);"
		"INSERT INTO probe VALUES(0);",
	},
	{
		/* With rowids: a search in a table without them reads the whole row of each
		 * key that it compares with, here up to 16 MiB at each level of the tree. */
		"ALTER TABLE logs RENAME TO logs_1;"
		"CREATE TABLE logs(n INTEGER NOT NULL, attempt INTEGER NOT NULL,"
		" data BLOB NOT NULL, PRIMARY KEY(n, attempt));"
		"INSERT INTO logs SELECT n, attempt, data FROM logs_1;"
		"DROP TABLE logs_1;",
	},
	{
		/* Since when blobs may have been put for this database: sqlite_unused.c. */
		"CREATE TABLE birth(at INTEGER NOT NULL);"
		"INSERT INTO birth VALUES(strftime('%s', 'now'));",
	},
	{
		/* Nothing but the number: versions may name a second layer, which an older
		 * program's sweep would take for one that nobody names. */
		"",
	},
};
const int store_migration_count = sizeof(store_migrations) / sizeof(store_migrations[0]);

static int
read_int(sqlite3 *handle, const char *sql, int *value, struct err *e)
{
	sqlite3_stmt *st = NULL;
	int rc = sqlite3_prepare_v2(handle, sql, -1, &st, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_step(st);
	if (rc == SQLITE_ROW)
		*value = sqlite3_column_int(st, 0);
	sqlite3_finalize(st);
	if (rc == SQLITE_ROW)
		return 0;
	return err_set(e, ERR_NODE, "the store's version cannot be read: %s",
		       sqlite3_errmsg(handle));
}

static int
migrate_step(sqlite3 *handle, const struct migration *step, int version, struct err *e)
{
	char done[96];
	int rc = sqlite3_exec(handle, "BEGIN IMMEDIATE", NULL, NULL, NULL);

	snprintf(done, sizeof(done), "PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT",
		 APPLICATION_ID, version);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(handle, step->sql, NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(handle, done, NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		return 0;
	err_set(e, ERR_NODE, "the store cannot be brought to version %d: %s", version,
		sqlite3_errmsg(handle));
	if (!sqlite3_get_autocommit(handle))
		sqlite3_exec(handle, "ROLLBACK", NULL, NULL, NULL);
	return -1;
}

int
schema_migrate(sqlite3 *handle, const struct migration *steps, int count, struct err *e)
{
	int version, application, tables;

	if (read_int(handle, "PRAGMA user_version", &version, e) ||
	    read_int(handle, "PRAGMA application_id", &application, e) ||
	    read_int(handle, "SELECT count(*) FROM sqlite_schema", &tables, e))
		return -1;
	if (tables && application != APPLICATION_ID)
		return err_set(e, ERR_NODE,
			       "the file is an SQLite database, but not one of Pratai's");
	if (version < 0 || version > count)
		return err_set(e, ERR_NODE,
			       "the store has version %d, and this program knows versions up to %d "
			       "only: use the newer program that wrote it", version, count);
	for (; version < count; version++)
		if (migrate_step(handle, &steps[version], version + 1, e))
			return -1;
	return 0;
}
