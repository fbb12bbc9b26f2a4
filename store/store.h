/*
 * The store: one interface, asynchronous; SQLite behind it (Elasticsearch later).
 *
 * Requests go in, completions come back on the loop, in any order between kinds, but a
 * write is seen by every later request of the same process about the same record.
 * Callbacks are never called before the request returned.  e is NULL on success.
 * What a callback is given is valid during the callback only.
 *
 * Durable: a write's callback means that it is on disk (SQLite: WAL with
 * synchronous=FULL; concurrent writes share a commit).
 */
#ifndef PRATAI_STORE_H
#define PRATAI_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/model/event.h"

struct completions;
struct err;
struct loop;
struct store;

/*
 * spec: "sqlite:PATH" or "sqlite:" (pratai.db in the directory).  dir_fd: the directory
 * for database, blobs and spool, owned by the running user; paths are below it and used
 * through it only (/proc/self/fd/N), since the process may not see the path above it.
 * Runs the schema's migrations; refuses (ERR_NODE) a database of a newer version.
 */
struct store *store_open(const char *spec, int dir_fd, struct loop *l, struct err *e);
/* Completes what was asked for (searches that wait and long copies may fail), then closes.  Callbacks still
 * come, from here.  Not to be called from a callback of the store. */
void store_close(struct store *s);

/* ---- Documents: what there are few of ---- */

enum store_kind {
	STORE_FUNCTION, /* name: unique within the project */
	STORE_VERSION,  /* id: "<function id>.<version>", parent: the function's id */
	STORE_TOKEN,    /* id: the token's id; name: SHA-256 of the secret, unique */
	STORE_BUILD,    /* id as the version's: the build's output for the owner */
	STORE_META,     /* the cluster's own: id "scheduler" … */
	STORE_IMAGE,    /* name: unique within the project, parent: its manifest's digest */
	STORE_UPLOAD,   /* that the project has uploaded a blob, whose digest is the name */
	STORE_DEPENDENCIES, /* id: a key (64 hex digits); layer_digest: what was made for it */
	STORE_RUNTIME,  /* a project's own; name: unique within the project; blobs: of its image */
	STORE_KIND_COUNT
};

enum {
	STORE_ID_MAX = 96,
	STORE_NAME_MAX = 255,
	STORE_JSON_MAX = 4 << 20,
	STORE_LIST_MAX = 1000,
	STORE_KEY_MAX = 255,          /* an idempotency key */
	STORE_QUERY_MAX = 256,        /* the text of a search */
	STORE_TEXT_MAX = 1 << 20,     /* an event's error texts and response fields, each */
	STORE_BYTES_MAX = 64 << 20,   /* payload, response, logs of an attempt */
};

struct store_doc {
	enum store_kind kind;
	const char *id;      /* unique within the kind; lists are ordered by it */
	const char *project; /* "" for none */
	const char *name;    /* NULL: none; else unique within (kind, project) */
	const char *parent;  /* NULL: none; for lists by parent */
	uint64_t rev;        /* set by the store: 1, 2, … */
	const char *json;
};

struct store_answer {
	const struct store_doc *docs;
	size_t doc_count;
	const struct event *events;
	size_t event_count;
	const char *next;  /* cursor of the next page, or NULL */
	const void *bytes; /* payload, response or logs */
	size_t len;
	int fd;            /* store_blob_open: the callback's to close; else -1 */
	uint64_t rev;      /* of the document written */
	const int64_t *sizes; /* store_blob_keep: of each, -1: not there */
	bool changed;      /* settle, …: the write applied; false: it had ended before */
	struct id existing; /* event_create: zero, or the event that holds the idempotency key */
	uint64_t counts[EVENT_STATE_COUNT];
};
typedef void (*store_fn)(void *arg, const struct store_answer *a, const struct err *e);

/* ERR_CONFLICT: the id, or the name in the project, is taken. */
void store_doc_create(struct store *s, const struct store_doc *d, store_fn fn, void *arg);
/* Replaces json and name (and the parent, unless NULL) where rev is still d->rev (0: any): else ERR_CONFLICT;
 * ERR_NOT_FOUND. */
void store_doc_update(struct store *s, const struct store_doc *d, store_fn fn, void *arg);
/* One document in the answer, or ERR_NOT_FOUND.  By id, or by project and name. */
void store_doc_get(struct store *s, enum store_kind kind, const char *id, store_fn fn, void *arg);
void store_doc_find(struct store *s, enum store_kind kind, const char *project, const char *name,
		    store_fn fn, void *arg);
/* By id, after cursor (NULL: from the start), at most limit.  project, parent NULL: all. */
void store_doc_list(struct store *s, enum store_kind kind, const char *project,
		    const char *parent, const char *cursor, unsigned limit, store_fn fn, void *arg);
/* Success also when it was not there (changed says). */
void store_doc_delete(struct store *s, enum store_kind kind, const char *id, store_fn fn,
		      void *arg);
/*
 * answer.docs: ids, with their kind, of versions that nothing can run any more and no event that has not ended
 * names, at most STORE_LIST_MAX.  Those are superseded (older than the one that serves and
 * the keep versions before it, or failed and not the latest), or of a function that is not
 * there and whose id is older than before_us: a create writes its version first.  And of
 * dependencies written last (made_us) before before_us whose layer no version has.
 */
void store_version_unused(struct store *s, int64_t before_us, unsigned keep, store_fn fn,
			  void *arg);

/* ---- Blobs: packages and layers, by SHA-256 ---- */

/*
 * Keeps the file fd (a regular file; the descriptor stays the caller's and must stay open
 * until the callback) under digest (64 hex digits), which is verified: ERR_INPUT when it
 * differs, also when the blob is there already, which counts as put now then.  Others are
 * served while a large one is copied.  fd -1: one that is there counts as put now, nothing else;
 * ERR_NOT_FOUND when it is not.
 */
void store_blob_put(struct store *s, const char *digest, int fd, store_fn fn, void *arg);
/* answer.fd, read-only, and answer.len, its size; ERR_NOT_FOUND. */
void store_blob_open(struct store *s, const char *digest, store_fn fn, void *arg);
/* Removes the blobs that neither a function nor a version names and that were put last before
 * real time before_us: who puts one has until then to name it.  None that may be another store's.
 * What an image's "blobs" ([{"digest"}]), a version's "image_blobs" or an upload's name says is
 * named, too.  answer.len: how many. */
void store_blob_sweep(struct store *s, int64_t before_us, store_fn fn, void *arg);
/*
 * Those of count (at most STORE_LIST_MAX) blobs that project may use count as put now: it has
 * uploaded them, or one of its images or versions names them.  digests: 64 hex digits of each,
 * with nothing between.  answer.sizes: in their order; -1: it is not there, or another's.
 */
void store_blob_keep(struct store *s, const char *project, const char *digests, size_t count,
		     store_fn fn, void *arg);
/* Removes the uploads with an "at_us" before before_us whose blob no image or version of their
 * project names.  answer.len: how many. */
void store_upload_expire(struct store *s, int64_t before_us, store_fn fn, void *arg);

/* ---- Events ---- */

/* Bytes that the store takes over: owned is free()d and fd closed by it, always. */
struct store_bytes {
	void *owned;      /* malloc'd block that data points into, or NULL */
	const void *data; /* NULL when fd is used */
	int fd;           /* a file that holds them from offset; -1: none */
	uint64_t offset;
	size_t len;
};

/*
 * A new event.  ERR_CONFLICT: the id exists (create-if-absent).  idempotency_key NULL, or
 * at most 255 bytes: when the function saw it within a day, nothing is created: the answer
 * has `existing` and success if payload_sha256 is the same, else ERR_CONFLICT.
 */
void store_event_create(struct store *s, const struct event *ev, struct store_bytes payload,
			const char *idempotency_key, const char *payload_sha256, store_fn fn,
			void *arg);

/* running: attempts, node, lease, version, start times.  Not applied (changed false) to an
 * ended event, nor over a newer lease.  fn may be NULL. */
void store_event_running(struct store *s, const struct event *ev, store_fn fn, void *arg);
/* queued again: attempts, failures, not_before, reason and error of the attempt; logs of it.
 * Not applied to an ended event, nor over a newer lease. */
void store_event_requeue(struct store *s, const struct event *ev, struct store_bytes logs,
			 store_fn fn, void *arg);
/* The end state with all of the outcome: one compare-and-set on "not ended and no newer
 * lease".  changed false: it had ended. ERR_NOT_FOUND. */
void store_event_settle(struct store *s, const struct event *ev, struct store_bytes response,
			struct store_bytes logs, store_fn fn, void *arg);

/* One event, and the response's bytes.  project NULL: any. */
void store_event_get(struct store *s, const struct id *id, const char *project, store_fn fn,
		     void *arg);
void store_event_payload(struct store *s, const struct id *id, store_fn fn, void *arg);
/* JSON lines: {"t":"RFC 3339","s":"stdout|stderr|log","l":"text"} as they were collected */
void store_event_logs(struct store *s, const struct id *id, store_fn fn, void *arg);

struct store_event_filter {
	const char *project;      /* NULL: all */
	struct id function_id;    /* zero: all */
	int state, source;        /* -1: all */
	int64_t since_us;         /* created at or after */
	const char *query;        /* text in payload, logs, error, reason; NULL: none */
	const char *cursor;       /* from the answer before */
	unsigned limit;
};
/* Newest first.  ERR_LIMIT: it took longer than a second (step "search"), or too many searches
 * and lists by state or source wait (step "searches"). */
void store_event_list(struct store *s, const struct store_event_filter *f, store_fn fn, void *arg);
/* Events that have not ended, oldest first by id after `after` (zero: from the start), without
 * their error texts.  Fewer than limit: there are no more. */
void store_event_unended(struct store *s, const struct id *after, unsigned limit, store_fn fn,
			 void *arg);
/* answer.counts by state; project NULL: all. */
void store_event_counts(struct store *s, const char *project, store_fn fn, void *arg);

/* Removes events that ended before real time end_us, at most limit; answer.len tells how
 * many. */
void store_event_expire(struct store *s, int64_t end_us, unsigned limit, store_fn fn, void *arg);

/* True while the store answers (for /readyz). */
bool store_healthy(const struct store *s);

/* ---- For the backends ---- */

struct store_ops;
struct store_ops {
	const char *scheme;
	struct store *(*open)(const char *rest, int dir_fd, struct loop *l, struct err *e);
	void (*close)(struct store *s);
	void (*doc_create)(struct store *, const struct store_doc *, store_fn, void *);
	void (*doc_update)(struct store *, const struct store_doc *, store_fn, void *);
	void (*doc_get)(struct store *, enum store_kind, const char *, store_fn, void *);
	void (*doc_find)(struct store *, enum store_kind, const char *, const char *, store_fn,
			 void *);
	void (*doc_list)(struct store *, enum store_kind, const char *, const char *, const char *,
			 unsigned, store_fn, void *);
	void (*doc_delete)(struct store *, enum store_kind, const char *, store_fn, void *);
	void (*version_unused)(struct store *, int64_t, unsigned, store_fn, void *);
	void (*blob_put)(struct store *, const char *, int, store_fn, void *);
	void (*blob_open)(struct store *, const char *, store_fn, void *);
	void (*blob_sweep)(struct store *, int64_t, store_fn, void *);
	void (*blob_keep)(struct store *, const char *, const char *, size_t, store_fn, void *);
	void (*upload_expire)(struct store *, int64_t, store_fn, void *);
	void (*event_create)(struct store *, const struct event *, struct store_bytes, const char *,
			     const char *, store_fn, void *);
	void (*event_running)(struct store *, const struct event *, store_fn, void *);
	void (*event_requeue)(struct store *, const struct event *, struct store_bytes, store_fn,
			      void *);
	void (*event_settle)(struct store *, const struct event *, struct store_bytes,
			     struct store_bytes, store_fn, void *);
	void (*event_get)(struct store *, const struct id *, const char *, store_fn, void *);
	void (*event_payload)(struct store *, const struct id *, store_fn, void *);
	void (*event_logs)(struct store *, const struct id *, store_fn, void *);
	void (*event_list)(struct store *, const struct store_event_filter *, store_fn, void *);
	void (*event_unended)(struct store *, const struct id *, unsigned, store_fn, void *);
	void (*event_counts)(struct store *, const char *, store_fn, void *);
	void (*event_expire)(struct store *, int64_t, unsigned, store_fn, void *);
	bool (*healthy)(const struct store *);
};
struct store {
	const struct store_ops *ops;
	struct completions *completions;
};

#endif
