/*
 * The SQLite backend: opening, closing, and the making of requests.
 *
 * One process has a store: it holds a lock on NAME.lock as long as it lives.  The lock is
 * the process's own (fcntl), so that the kernel drops it with the process however that
 * ends, and a child that outlives a killed parent does not keep it.
 *
 * What waits is bounded: a request beyond the bound is refused at once, new events
 * before outcomes of old ones, so that a flood of accepts cannot keep results from being
 * stored.
 */
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "store/sqlite_impl.h"

#include "core/base/clock.h"
#include "core/base/fdio.h"
#include "core/base/str.h"

#define DEFAULT_NAME "pratai.db"

enum {
	DB_NAME_MAX = 200,
	WAITING_MAX = 100000,
	/* Each may take a second, one after the other. */
	FILTERS_MAX = 64,
	SEARCHES_MAX = 16,
	/* Bytes of the disk.  What is in the write-ahead log, a batch and a checkpoint's worth,
	 * needs its place in the database once more. */
	RESERVE_MIN = 16 << 20,
	RESERVE_MAX = 64 << 20,
};
static const size_t waiting_bytes_max = (size_t)256 << 20;

/* ---- Requests ---- */

void
request_reset(struct request *r)
{
	struct store_answer *a = &r->done.answer;

	for (size_t i = 0; i < a->doc_count; i++) {
		free((char *)r->docs[i].id);
		free((char *)r->docs[i].project);
		free((char *)r->docs[i].name);
		free((char *)r->docs[i].parent);
		free((char *)r->docs[i].json);
	}
	for (size_t i = 0; i < a->event_count; i++)
		event_clear(&r->events[i]);
	free(r->docs);
	free(r->events);
	free(r->bytes);
	free(r->sizes);
	free(r->next);
	r->docs = NULL;
	r->events = NULL;
	r->bytes = NULL;
	r->sizes = NULL;
	r->next = NULL;
	r->result_bytes = 0;
	*a = (struct store_answer){.fd = -1};
	r->done.err.cls = ERR_NONE;
}

static void
release(struct completion *c)
{
	struct request *r = (struct request *)c;

	if (!c->fn && c->answer.fd >= 0)
		close(c->answer.fd);
	r->store->charged -= r->charge;
	r->store->waiting[r->kind] -= !r->refused;
	request_reset(r);
	if (r->event) {
		event_clear(r->event);
		free(r->event);
	}
	store_bytes_release(&r->payload);
	store_bytes_release(&r->response);
	store_bytes_release(&r->logs);
	free(r->text);
	free(r);
}

static struct request *
request_new(struct store *s, enum request_kind kind)
{
	struct request *r = store_alloc(sizeof(*r));

	r->store = (struct sqlite_store *)s;
	r->kind = kind;
	r->charge = sizeof(*r);
	r->fd = -1;
	r->dir_fd = r->store->dir_fd;
	r->payload.fd = r->response.fd = r->logs.fd = -1;
	r->done.release = release;
	return r;
}

/* The struct's strings become copies in one block of the request's own. */
static void
keep_texts(struct request *r)
{
	const char **texts[] = {&r->id,     &r->project, &r->name, &r->parent,
				&r->json,   &r->cursor,  &r->query, &r->key};
	size_t total = 0;
	char *to;

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		total += *texts[i] ? strlen(*texts[i]) + 1 : 0;
	to = r->text = malloc(total + 1);
	if (!to) {
		err_set(&r->done.err, ERR_AGAIN, "out of memory for %zu bytes of a request", total);
		return;
	}
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (*texts[i]) {
			const char *copy = to;

			to = stpcpy(to, *texts[i]) + 1;
			*texts[i] = copy;
		}
	r->charge += total;
}

static void
keep_event(struct request *r, const struct event *ev)
{
	r->event = store_alloc(sizeof(*ev));
	r->event_id = ev->id;
	if (event_copy(r->event, ev))
		err_set(&r->done.err, ERR_AGAIN, "out of memory for an event");
	r->charge += sizeof(*ev);
}

/* What is in a file takes no memory before its turn. */
static size_t
in_memory(const struct store_bytes *b)
{
	return b->data ? b->len : 0;
}

static bool
is_too_much(const struct sqlite_store *s, const struct request *r)
{
	/* An outcome that is refused makes work twice; an event that is refused, none. */
	size_t share = r->kind == REQ_EVENT_CREATE ? 4 : 5;

	return completions_outstanding(s->store.completions) > WAITING_MAX / 4 * share ||
	       s->charged + r->charge > waiting_bytes_max / 4 * share;
}

/* Room is kept for what becomes of the events that were accepted: a disk that they filled to
 * the last byte would take no outcome, and so get no room again. */
static bool
disk_is_low(const struct sqlite_store *s, const struct request *r)
{
	struct statvfs fs;
	uint64_t reserve, left;

	if (r->kind != REQ_EVENT_CREATE || event_state_ended(r->event->state) ||
	    fstatvfs(s->dir_fd, &fs))
		return false;
	reserve = (uint64_t)fs.f_blocks * fs.f_frsize / 8;
	reserve = reserve < RESERVE_MIN ? RESERVE_MIN : reserve > RESERVE_MAX ? RESERVE_MAX : reserve;
	left = (uint64_t)fs.f_bavail * fs.f_frsize;
	return left < reserve + s->charged + r->charge;
}

static bool
is_one_too_many(const struct sqlite_store *s, const struct request *r)
{
	return (r->kind == REQ_EVENT_SEARCH && s->waiting[r->kind] >= SEARCHES_MAX) ||
	       (r->kind == REQ_EVENT_FILTER && s->waiting[r->kind] >= FILTERS_MAX);
}

static void
submit(struct request *r, store_fn fn, void *arg)
{
	struct sqlite_store *s = r->store;

	r->charge += in_memory(&r->payload) + in_memory(&r->response) + in_memory(&r->logs);
	if (r->done.err.cls == ERR_NONE && is_too_much(s, r)) {
		err_set(&r->done.err, ERR_AGAIN, "the store is busy: too much waits for it");
		err_step(&r->done.err, "store_busy");
	} else if (r->done.err.cls == ERR_NONE && disk_is_low(s, r)) {
		err_set(&r->done.err, ERR_AGAIN,
			"the disk is nearly full: the rest is for the events that it has");
		err_step(&r->done.err, "store_unavailable");
	} else if (r->done.err.cls == ERR_NONE && is_one_too_many(s, r)) {
		err_set(&r->done.err, ERR_LIMIT,
			"%u searches wait for their turn already: try again later",
			s->waiting[r->kind]);
		err_step(&r->done.err, "searches");
	}
	completion_begin(s->store.completions, &r->done, fn, arg);
	r->refused = r->done.err.cls != ERR_NONE;
	s->charged += r->charge;
	s->waiting[r->kind] += !r->refused;
	if (r->refused)
		completions_post(s->store.completions, &r->done, &r->done);
	else
		workers_give(s, r);
}

/* ---- Documents ---- */

static void
submit_doc(struct store *s, enum request_kind kind, const struct store_doc *d, store_fn fn,
	   void *arg)
{
	struct request *r = request_new(s, kind);

	r->doc_kind = d->kind;
	r->id = d->id;
	r->project = d->project;
	r->name = d->name;
	r->parent = d->parent;
	r->json = d->json;
	r->rev = d->rev;
	keep_texts(r);
	submit(r, fn, arg);
}

static void
sqlite_doc_create(struct store *s, const struct store_doc *d, store_fn fn, void *arg)
{
	submit_doc(s, REQ_DOC_CREATE, d, fn, arg);
}

static void
sqlite_doc_update(struct store *s, const struct store_doc *d, store_fn fn, void *arg)
{
	submit_doc(s, REQ_DOC_UPDATE, d, fn, arg);
}

static void
sqlite_doc_get(struct store *s, enum store_kind kind, const char *id, store_fn fn, void *arg)
{
	submit_doc(s, REQ_DOC_GET, &(struct store_doc){.kind = kind, .id = id}, fn, arg);
}

static void
sqlite_doc_find(struct store *s, enum store_kind kind, const char *project, const char *name,
		store_fn fn, void *arg)
{
	struct store_doc d = {.kind = kind, .project = project ? project : "", .name = name};

	submit_doc(s, REQ_DOC_FIND, &d, fn, arg);
}

static void
sqlite_doc_list(struct store *s, enum store_kind kind, const char *project, const char *parent,
		const char *cursor, unsigned limit, store_fn fn, void *arg)
{
	struct request *r = request_new(s, REQ_DOC_LIST);

	r->doc_kind = kind;
	r->project = project;
	r->parent = parent;
	r->cursor = cursor;
	r->limit = limit;
	keep_texts(r);
	submit(r, fn, arg);
}

static void
sqlite_doc_delete(struct store *s, enum store_kind kind, const char *id, store_fn fn, void *arg)
{
	submit_doc(s, REQ_DOC_DELETE, &(struct store_doc){.kind = kind, .id = id}, fn, arg);
}

static void
submit_sweep(struct store *s, enum request_kind kind, int64_t before_us, unsigned keep,
	     store_fn fn, void *arg)
{
	struct request *r = request_new(s, kind);

	r->time_us = before_us;
	r->limit = keep;
	submit(r, fn, arg);
}

static void
sqlite_version_unused(struct store *s, int64_t before_us, unsigned keep, store_fn fn, void *arg)
{
	submit_sweep(s, REQ_VERSION_UNUSED, before_us, keep, fn, arg);
}

/* ---- Blobs ---- */

static void
submit_blob(struct store *s, enum request_kind kind, const char *digest, int fd, store_fn fn,
	    void *arg)
{
	struct request *r = request_new(s, kind);

	memcpy(r->digest, digest, sizeof(r->digest));
	r->fd = fd;
	submit(r, fn, arg);
}

static void
sqlite_blob_put(struct store *s, const char *digest, int fd, store_fn fn, void *arg)
{
	submit_blob(s, REQ_BLOB_PUT, digest, fd, fn, arg);
}

static void
sqlite_blob_open(struct store *s, const char *digest, store_fn fn, void *arg)
{
	submit_blob(s, REQ_BLOB_OPEN, digest, -1, fn, arg);
}

static void
sqlite_blob_sweep(struct store *s, int64_t before_us, store_fn fn, void *arg)
{
	submit_sweep(s, REQ_BLOB_SWEEP, before_us, 0, fn, arg);
}

static void
sqlite_blob_keep(struct store *s, const char *project, const char *digests, size_t count,
		 store_fn fn, void *arg)
{
	struct request *r = request_new(s, REQ_BLOB_KEEP);

	r->project = project;
	r->query = digests;
	r->limit = (unsigned)count;
	keep_texts(r);
	submit(r, fn, arg);
}

static void
sqlite_upload_expire(struct store *s, int64_t before_us, store_fn fn, void *arg)
{
	submit_sweep(s, REQ_UPLOAD_EXPIRE, before_us, 0, fn, arg);
}

/* ---- Events ---- */

static void
sqlite_event_create(struct store *s, const struct event *ev, struct store_bytes payload,
		    const char *idempotency_key, const char *payload_sha256, store_fn fn, void *arg)
{
	struct request *r = request_new(s, REQ_EVENT_CREATE);

	r->payload = payload;
	r->key = idempotency_key;
	if (r->key) {
		memcpy(r->digest, payload_sha256, sizeof(r->digest));
		keep_texts(r);
	}
	keep_event(r, ev);
	submit(r, fn, arg);
}

static void
sqlite_event_running(struct store *s, const struct event *ev, store_fn fn, void *arg)
{
	struct request *r = request_new(s, REQ_EVENT_RUNNING);

	keep_event(r, ev);
	submit(r, fn, arg);
}

static void
sqlite_event_requeue(struct store *s, const struct event *ev, struct store_bytes logs, store_fn fn,
		     void *arg)
{
	struct request *r = request_new(s, REQ_EVENT_REQUEUE);

	r->logs = logs;
	keep_event(r, ev);
	submit(r, fn, arg);
}

static void
sqlite_event_settle(struct store *s, const struct event *ev, struct store_bytes response,
		    struct store_bytes logs, store_fn fn, void *arg)
{
	struct request *r = request_new(s, REQ_EVENT_SETTLE);

	r->response = response;
	r->logs = logs;
	keep_event(r, ev);
	submit(r, fn, arg);
}

static void
submit_event_read(struct store *s, enum request_kind kind, const struct id *id, const char *project,
		  store_fn fn, void *arg)
{
	struct request *r = request_new(s, kind);

	r->event_id = *id;
	r->project = project;
	if (project)
		keep_texts(r);
	submit(r, fn, arg);
}

static void
sqlite_event_get(struct store *s, const struct id *id, const char *project, store_fn fn, void *arg)
{
	submit_event_read(s, REQ_EVENT_GET, id, project, fn, arg);
}

static void
sqlite_event_payload(struct store *s, const struct id *id, store_fn fn, void *arg)
{
	submit_event_read(s, REQ_EVENT_PAYLOAD, id, NULL, fn, arg);
}

static void
sqlite_event_logs(struct store *s, const struct id *id, store_fn fn, void *arg)
{
	submit_event_read(s, REQ_EVENT_LOGS, id, NULL, fn, arg);
}

static void
sqlite_event_list(struct store *s, const struct store_event_filter *f, store_fn fn, void *arg)
{
	bool search = f->query && *f->query;
	bool filter = f->state >= 0 || f->source >= 0; /* no index has all of it */
	struct request *r = request_new(s, search   ? REQ_EVENT_SEARCH
					   : filter ? REQ_EVENT_FILTER
						    : REQ_EVENT_LIST);

	r->project = f->project;
	r->function_id = f->function_id;
	r->state = f->state;
	r->source = f->source;
	r->time_us = f->since_us;
	r->query = search ? f->query : NULL;
	r->cursor = f->cursor && *f->cursor ? f->cursor : NULL;
	r->limit = f->limit;
	keep_texts(r);
	submit(r, fn, arg);
}

static void
sqlite_event_unended(struct store *s, const struct id *after, unsigned limit, store_fn fn,
		     void *arg)
{
	struct request *r = request_new(s, REQ_EVENT_UNENDED);

	r->event_id = *after;
	r->limit = limit;
	submit(r, fn, arg);
}

static void
sqlite_event_counts(struct store *s, const char *project, store_fn fn, void *arg)
{
	struct request *r = request_new(s, REQ_EVENT_COUNTS);

	r->project = project;
	keep_texts(r);
	submit(r, fn, arg);
}

static void
sqlite_event_expire(struct store *s, int64_t end_us, unsigned limit, store_fn fn, void *arg)
{
	struct request *r = request_new(s, REQ_EVENT_EXPIRE);

	r->time_us = end_us;
	r->limit = limit;
	submit(r, fn, arg);
}

static bool
sqlite_healthy(const struct store *s)
{
	return atomic_load(&((const struct sqlite_store *)(const void *)s)->healthy);
}

/* ---- Opening and closing ---- */

static int
take_lock(struct sqlite_store *s, const char *name, struct err *e)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	char path[DB_NAME_MAX + 8];

	snprintf(path, sizeof(path), "%s.lock", name);
	s->lock_fd = openat(s->dir_fd, path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->lock_fd < 0)
		return err_sys(e, ERR_NODE, "open the store's lock %s", path);
	if (!fcntl(s->lock_fd, F_SETLK, &lock))
		return 0;
	if (errno != EACCES && errno != EAGAIN)
		return err_sys(e, ERR_NODE, "lock the store's %s", path);
	/* 0: it has just gone, or is in a pid namespace that we do not see into. */
	if (fcntl(s->lock_fd, F_GETLK, &lock) || lock.l_type == F_UNLCK || lock.l_pid <= 0)
		return err_set(e, ERR_NODE,
			       "the store is in use by another process: SQLite serves one");
	return err_set(e, ERR_NODE, "the store is in use by process %d: SQLite serves one process",
		       (int)lock.l_pid);
}

static int
check_name(const char *name, struct err *e)
{
	if (strlen(name) <= DB_NAME_MAX && !strchr(name, '/') && name[0] != '.' &&
	    strcmp(name, "blobs"))
		return 0;
	return err_set(e, ERR_INPUT,
		       "sqlite:%.80s: not the name of a file in the store's directory", name);
}

static int
open_all(struct sqlite_store *s, const char *name, int dir_fd, struct loop *l, struct err *e)
{
	if (check_name(name, e))
		return -1;
	s->dir_fd = fcntl(dir_fd, F_DUPFD_CLOEXEC, 3);
	if (s->dir_fd < 0)
		return err_sys(e, ERR_NODE, "keep the store's directory");
	if (take_lock(s, name, e) || db_open(&s->writer, s->dir_fd, name, false, e))
		return -1;
	if (schema_migrate(s->writer.handle, store_migrations, store_migration_count, e))
		return err_wrap(e, "%s", name);
	if (db_open(&s->reader, s->dir_fd, name, true, e) ||
	    db_open(&s->searcher, s->dir_fd, name, true, e) || blob_start(s->dir_fd, e))
		return -1;
	/* The names of what was just made must outlast a crash, too. */
	if (fsync(s->dir_fd))
		return err_sys(e, ERR_NODE, "sync the store's directory");
	return store_init(&s->store, &store_sqlite_ops, l, e) || workers_start(s, e) ? -1 : 0;
}

static void
close_all(struct sqlite_store *s)
{
	workers_stop(s);
	store_fini(&s->store);
	/* The writer last: it can put the WAL into the database and remove it. */
	db_close(&s->reader);
	db_close(&s->searcher);
	db_close(&s->writer);
	fd_close(&s->lock_fd);
	fd_close(&s->dir_fd);
	free(s);
}

static struct store *
sqlite_open(const char *rest, int dir_fd, struct loop *l, struct err *e)
{
	struct sqlite_store *s = store_alloc(sizeof(*s));

	s->dir_fd = s->lock_fd = -1;
	s->list_ns = NS_PER_S;
	atomic_init(&s->healthy, true);
	if (!open_all(s, *rest ? rest : DEFAULT_NAME, dir_fd, l, e))
		return &s->store;
	close_all(s);
	return NULL;
}

static void
sqlite_close(struct store *store)
{
	struct sqlite_store *s = (struct sqlite_store *)store;

	atomic_store(&s->closing, true);
	completions_drain(store->completions);
	close_all(s);
}

const struct store_ops store_sqlite_ops = {
	.scheme = "sqlite",
	.open = sqlite_open,
	.close = sqlite_close,
	.doc_create = sqlite_doc_create,
	.doc_update = sqlite_doc_update,
	.doc_get = sqlite_doc_get,
	.doc_find = sqlite_doc_find,
	.doc_list = sqlite_doc_list,
	.doc_delete = sqlite_doc_delete,
	.version_unused = sqlite_version_unused,
	.blob_put = sqlite_blob_put,
	.blob_open = sqlite_blob_open,
	.blob_sweep = sqlite_blob_sweep,
	.blob_keep = sqlite_blob_keep,
	.upload_expire = sqlite_upload_expire,
	.event_create = sqlite_event_create,
	.event_running = sqlite_event_running,
	.event_requeue = sqlite_event_requeue,
	.event_settle = sqlite_event_settle,
	.event_get = sqlite_event_get,
	.event_payload = sqlite_event_payload,
	.event_logs = sqlite_event_logs,
	.event_list = sqlite_event_list,
	.event_unended = sqlite_event_unended,
	.event_counts = sqlite_event_counts,
	.event_expire = sqlite_event_expire,
	.healthy = sqlite_healthy,
};
