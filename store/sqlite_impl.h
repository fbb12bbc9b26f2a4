/*
 * Inside the SQLite backend: the connection, the request, and what executes requests.
 *
 * A request is made on the loop's thread, executed by one worker, and freed on the loop's
 * thread after its callback.  In between nobody else touches it.  Everything that takes a
 * struct db is called by the one thread that uses that connection.
 */
#ifndef PRATAI_STORE_SQLITE_IMPL_H
#define PRATAI_STORE_SQLITE_IMPL_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>

#include "core/base/crypto.h"
#include "store/internal.h"

/* ---- A connection ---- */

enum statement {
	ST_BEGIN,
	ST_COMMIT,
	ST_ROLLBACK,
	ST_SAVEPOINT,
	ST_RELEASE,
	ST_UNDO,
	ST_PROBE,
	ST_DOC_CREATE,
	ST_DOC_UPDATE,
	ST_DOC_REV,
	ST_DOC_GET,
	ST_DOC_FIND,
	ST_DOC_DELETE,
	ST_KEY_GET,
	ST_KEY_PUT,
	ST_KEY_SWEEP,
	ST_EVENT_CREATE,
	ST_EVENT_RUNNING,
	ST_EVENT_REQUEUE,
	ST_EVENT_SETTLE,
	ST_EVENT_EXISTS,
	ST_EVENT_GET,
	ST_EVENT_UNENDED,
	ST_COUNTS,
	ST_PAYLOAD_PUT,
	ST_PAYLOAD_GET,
	ST_RESPONSE_PUT,
	ST_RESPONSE_GET,
	ST_LOGS_PUT,
	ST_LOGS_GET,
	ST_EXPIRE_FIND,
	ST_EXPIRE_EVENT,
	ST_EXPIRE_PAYLOAD,
	ST_EXPIRE_RESPONSE,
	ST_EXPIRE_LOGS,
	ST_COUNT
};

struct db {
	sqlite3 *handle;
	sqlite3_stmt *statements[ST_COUNT];
	uint64_t deadline_ns;    /* monotonic, see db_limit */
	bool (*look)(void *arg); /* see db_limit */
	void *look_arg;
	int64_t keys_swept_us;   /* created_us of the last event that swept old keys */
};

/* name: the database's file in the directory dir_fd, which stays open as long as db.
 * 0, or -1 and e. */
int db_open(struct db *db, int dir_fd, const char *name, bool read_only, struct err *e);
void db_close(struct db *db);

/* The prepared statement, reset and without bindings; NULL: *rc says why. */
sqlite3_stmt *db_statement(struct db *db, enum statement which, int *rc);
/* The same for text of the moment: the caller finalizes it. */
sqlite3_stmt *db_prepare(struct db *db, const char *sql, int *rc);
/* Runs a statement that gives no rows: SQLITE_OK, or the error. */
int db_run(struct db *db, enum statement which);
/* Ends a statement: SQLITE_OK for ROW and DONE, else the error. */
int db_end(sqlite3_stmt *st, int rc);

/* From here on statements end with SQLITE_INTERRUPT at deadline_ns (0: never), or when look
 * (NULL: none), which is called now and then while one runs, says so.  It must not use db. */
void db_limit(struct db *db, uint64_t deadline_ns, bool (*look)(void *arg), void *arg);

/* True when rc concerns the database and not one request: disk, file, lock, memory. */
bool db_is_fatal(int rc);
/* Fills e for rc. */
void db_error(struct db *db, int rc, struct err *e);

/* ---- The schema ---- */

struct migration {
	const char *sql; /* from version i to i + 1 in the table */
};
extern const struct migration store_migrations[];
extern const int store_migration_count;

/* Brings the database to version count.  Each step is one transaction. */
int schema_migrate(sqlite3 *handle, const struct migration *steps, int count, struct err *e);

/* ---- Requests ---- */

struct blob_copy;
struct sqlite_store;

enum request_kind {
	REQ_DOC_CREATE,
	REQ_DOC_UPDATE,
	REQ_DOC_GET,
	REQ_DOC_FIND,
	REQ_DOC_LIST,
	REQ_DOC_DELETE,
	REQ_VERSION_UNUSED,
	REQ_BLOB_PUT,
	REQ_BLOB_OPEN,
	REQ_BLOB_SWEEP,
	REQ_BLOB_KEEP,
	REQ_UPLOAD_EXPIRE,
	REQ_EVENT_CREATE,
	REQ_EVENT_RUNNING,
	REQ_EVENT_REQUEUE,
	REQ_EVENT_SETTLE,
	REQ_EVENT_GET,
	REQ_EVENT_PAYLOAD,
	REQ_EVENT_LOGS,
	REQ_EVENT_LIST,
	REQ_EVENT_FILTER, /* a list that may have to look at many events for one that it takes */
	REQ_EVENT_SEARCH, /* a list with a text to look for */
	REQ_EVENT_UNENDED,
	REQ_EVENT_COUNTS,
	REQ_EVENT_EXPIRE,
	REQ_COUNT
};

struct request {
	struct completion done; /* first: a completion is its request */
	struct sqlite_store *store;
	enum request_kind kind;
	uint64_t after; /* for the reader: the writes that must be in before it */
	size_t charge;  /* bytes of memory that it takes while it waits */
	bool refused;   /* never given to a worker */

	/* What is asked.  text is one block that the strings point into. */
	char *text;
	enum store_kind doc_kind;
	const char *id, *project, *name, *parent, *json, *cursor, *query, *key;
	char digest[SHA256_HEX_MAX];
	struct blob_copy *copy; /* blob_put: what was begun */
	bool again;             /* it is to run once more, after others */
	uint64_t rev;
	unsigned limit;
	int fd;      /* blob_put: the caller's */
	int dir_fd;  /* blobs: the store's directory */
	int64_t time_us;
	int state, source;
	struct id event_id, function_id;
	struct event *event;
	struct store_bytes payload, response, logs;

	/* What is found: released after the callback. */
	struct store_doc *docs;
	struct event *events;
	size_t result_bytes;
	void *bytes;
	int64_t *sizes;
	char *next;
};

/*
 * Executes a request on a connection.  SQLITE_OK when it was answered, be it by a refusal
 * in r->done.err; otherwise the error, and the caller decides what becomes of the others.
 */
typedef int (*request_fn)(struct db *db, struct request *r);

int doc_create(struct db *db, struct request *r);
int doc_update(struct db *db, struct request *r);
int doc_get(struct db *db, struct request *r);
int doc_find(struct db *db, struct request *r);
int doc_list(struct db *db, struct request *r);
int doc_delete(struct db *db, struct request *r);

int event_create(struct db *db, struct request *r);
int event_running(struct db *db, struct request *r);
int event_requeue(struct db *db, struct request *r);
int event_settle(struct db *db, struct request *r);
int event_get(struct db *db, struct request *r);
int event_payload(struct db *db, struct request *r);
int event_logs(struct db *db, struct request *r);
int event_expire(struct db *db, struct request *r);

int event_list(struct db *db, struct request *r);
int event_unended(struct db *db, struct request *r);
int event_counts(struct db *db, struct request *r);

/* Files; db is not used.  blob_put copies a piece, and asks to be called again for the next one. */
int blob_put(struct db *db, struct request *r);
/* Lets the blob count as put now: its size; -1: there is none. */
int64_t blob_touch(int dir_fd, const char *digest);
int blob_open(struct db *db, struct request *r);
/* Makes the directories, removes what an interrupted put left. */
int blob_start(int dir_fd, struct err *e);
/* Calls fn for each blob with its 64 digits; when it says so the blob is removed.  The number
 * of those; -1 and e. */
int blob_remove_if(int dir_fd, bool (*fn)(void *arg, const char *digest, int64_t put_us), void *arg,
		   struct err *e);

/* What nobody needs any more (sqlite_unused.c). */
int version_unused(struct db *db, struct request *r);
int blob_sweep(struct db *db, struct request *r);
int blob_keep(struct db *db, struct request *r);
int upload_expire(struct db *db, struct request *r);

/* Empties the result, for a second execution and for the end. */
void request_reset(struct request *r);

/* ---- The columns of an event (sqlite_columns.c) ---- */

/* The statement's text, made from the table of columns; the caller frees.  NULL: memory. */
char *columns_insert(void);
char *columns_update(enum statement which);
/* "SELECT id, …, n FROM events "; without texts: NULL for what has no fixed size. */
char *columns_select(bool texts);
/* Binds the columns that the statement (CREATE, RUNNING, REQUEUE, SETTLE) takes. */
int columns_bind(sqlite3_stmt *st, enum statement which, const struct event *ev);
/* A row of columns_select; *size grows by what it holds.  SQLITE_OK or SQLITE_NOMEM. */
int columns_read(sqlite3_stmt *st, struct event *ev, int64_t *n, size_t *size);

/* ---- The store and its workers ---- */

struct queue {
	struct request *first, *last;
};

struct sqlite_store {
	struct store store; /* first */
	int dir_fd, lock_fd;
	struct db writer, reader, searcher; /* each its worker's, once that runs */
	pthread_t writer_thread, reader_thread;
	bool threads;
	uint64_t list_ns; /* the time that a list or a search may take */
	atomic_bool healthy, closing;

	/* The loop's thread alone: what was asked for and not yet delivered. */
	size_t charged;  /* bytes */
	unsigned waiting[REQ_COUNT];

	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t writer_wake, reader_wake;
	struct queue writes, quick, filters, searches;
	struct queue copies; /* blobs of which there is more to copy */
	bool copy_next;      /* the last slow thing that was done was none of them */
	uint64_t issued, written; /* requests of the writer's, given and done */
	bool stop;
};

/* Starts both workers.  Signals stay with the thread that calls. */
int workers_start(struct sqlite_store *s, struct err *e);
/* Ends them; their queues must be empty. */
void workers_stop(struct sqlite_store *s);
/* Loop's thread: to the queue of its kind. */
void workers_give(struct sqlite_store *s, struct request *r);

/* A list answer must not grow without bound: a page ends early here. */
enum { PAGE_BYTES_MAX = 16 << 20, BATCH_BYTES_MAX = 8 << 20 };

#endif
