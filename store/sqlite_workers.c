/*
 * The two worker threads.
 *
 * The writer takes all that waits, up to a bound, as one batch: one transaction, one
 * fdatasync, then all the callbacks.  While it syncs the next batch gathers; so a lone
 * request waits for nobody, and many share a commit, with no delay added to make them.
 * Each write has a savepoint: one that fails is undone alone.  When the database itself
 * fails (disk full, an I/O error), every write of the batch fails, for none is durable,
 * and the store is unhealthy until a write succeeds; the writer tries one each second.
 *
 * Reads of single records go through the writer's queue too.  They see all that was
 * written before them, without a number to wait for, and cannot be held up by a search.
 *
 * The reader has a connection of its own for lists and counts, and copies blobs.  A
 * request of its waits until the writes that were issued before it are in.  What may take
 * a second (searches, and lists that pass over most of what they look at) has queues
 * behind the others and another connection: while one runs the reader turns to the quick
 * requests that come in, now and then.  A blob is copied in pieces: the first is a quick
 * request, the others take turns with the slow ones, so that neither waits for all of the other.
 *
 * The workers touch nothing of the loop's: a request is theirs from the queue until it is
 * posted.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "store/sqlite_impl.h"

#include "core/base/clock.h"
#include "core/base/log.h"

enum { BATCH_MAX = 1024 };
#define PROBE_NS NS_PER_S

enum lane { LANE_WRITER, LANE_QUICK, LANE_FILTER, LANE_SEARCH };

static const struct {
	request_fn run;
	enum lane lane;
	bool writes;
} kinds[] = {
	[REQ_DOC_CREATE] = {doc_create, LANE_WRITER, true},
	[REQ_DOC_UPDATE] = {doc_update, LANE_WRITER, true},
	[REQ_DOC_GET] = {doc_get, LANE_WRITER, false},
	[REQ_DOC_FIND] = {doc_find, LANE_WRITER, false},
	[REQ_DOC_LIST] = {doc_list, LANE_QUICK, false},
	[REQ_DOC_DELETE] = {doc_delete, LANE_WRITER, true},
	[REQ_VERSION_UNUSED] = {version_unused, LANE_QUICK, false},
	[REQ_BLOB_PUT] = {blob_put, LANE_QUICK, false},
	[REQ_BLOB_OPEN] = {blob_open, LANE_QUICK, false},
	[REQ_BLOB_SWEEP] = {blob_sweep, LANE_QUICK, false},
	[REQ_BLOB_KEEP] = {blob_keep, LANE_QUICK, false},
	[REQ_UPLOAD_EXPIRE] = {upload_expire, LANE_WRITER, true},
	[REQ_EVENT_CREATE] = {event_create, LANE_WRITER, true},
	[REQ_EVENT_RUNNING] = {event_running, LANE_WRITER, true},
	[REQ_EVENT_REQUEUE] = {event_requeue, LANE_WRITER, true},
	[REQ_EVENT_SETTLE] = {event_settle, LANE_WRITER, true},
	[REQ_EVENT_GET] = {event_get, LANE_WRITER, false},
	[REQ_EVENT_PAYLOAD] = {event_payload, LANE_WRITER, false},
	[REQ_EVENT_LOGS] = {event_logs, LANE_WRITER, false},
	[REQ_EVENT_LIST] = {event_list, LANE_QUICK, false},
	[REQ_EVENT_FILTER] = {event_list, LANE_FILTER, false},
	[REQ_EVENT_SEARCH] = {event_list, LANE_SEARCH, false},
	[REQ_EVENT_UNENDED] = {event_unended, LANE_QUICK, false},
	[REQ_EVENT_COUNTS] = {event_counts, LANE_QUICK, false},
	[REQ_EVENT_EXPIRE] = {event_expire, LANE_WRITER, true},
};
_Static_assert(sizeof(kinds) / sizeof(kinds[0]) == REQ_COUNT, "a worker for each request");

static struct request *
next_of(const struct request *r)
{
	return (struct request *)r->done.next;
}

static void
push(struct queue *q, struct request *r)
{
	r->done.next = NULL;
	if (q->first)
		q->last->done.next = &r->done;
	else
		q->first = r;
	q->last = r;
}

static struct request *
pop(struct queue *q)
{
	struct request *r = q->first;

	if (r)
		q->first = next_of(r);
	return r;
}

void
workers_give(struct sqlite_store *s, struct request *r)
{
	enum lane lane = kinds[r->kind].lane;

	pthread_mutex_lock(&s->lock);
	if (lane == LANE_WRITER) {
		s->issued++;
		push(&s->writes, r);
		pthread_cond_signal(&s->writer_wake);
	} else {
		r->after = s->issued;
		push(lane == LANE_QUICK	   ? &s->quick
		     : lane == LANE_FILTER ? &s->filters
					   : &s->searches,
		     r);
		pthread_cond_signal(&s->reader_wake);
	}
	pthread_mutex_unlock(&s->lock);
}

/* ---- The writer ---- */

/* Not fatal: the request alone has failed, the transaction goes on. */
static int
run_alone(struct db *db, struct request *r)
{
	int rc = kinds[r->kind].run(db, r);

	if (rc == SQLITE_OK || db_is_fatal(rc))
		return rc;
	request_reset(r);
	db_error(db, rc, &r->done.err);
	return SQLITE_OK;
}

static int
run_write(struct db *db, struct request *r)
{
	int rc = db_run(db, ST_SAVEPOINT);

	if (rc == SQLITE_OK)
		rc = run_alone(db, r);
	if (rc == SQLITE_OK && r->done.err.cls != ERR_NONE)
		rc = db_run(db, ST_UNDO);
	if (rc == SQLITE_OK)
		rc = db_run(db, ST_RELEASE);
	return rc;
}

/* The database has failed under these: no write of them is durable.  Reads need no
 * transaction, and are tried once more without. */
static void
fail_batch(struct sqlite_store *s, struct request *first, const struct request *end, int rc)
{
	struct db *db = &s->writer;
	struct err e;

	db_error(db, rc, &e);
	if (!sqlite3_get_autocommit(db->handle))
		db_run(db, ST_ROLLBACK);
	for (struct request *r = first; r != end; r = next_of(r)) {
		int again = SQLITE_OK;

		request_reset(r);
		if (kinds[r->kind].writes)
			r->done.err = e;
		else if ((again = run_alone(db, r)) != SQLITE_OK)
			db_error(db, again, &r->done.err);
	}
	if (atomic_exchange(&s->healthy, false))
		log_err("the store has failed", &e);
}

static void
say_healthy(struct sqlite_store *s)
{
	if (!atomic_exchange(&s->healthy, true))
		log_info("the store works again", NULL);
}

static void
post(struct sqlite_store *s, struct request *first, struct request *last, uint64_t writes)
{
	completions_post(s->store.completions, &first->done, &last->done);
	pthread_mutex_lock(&s->lock);
	s->written += writes;
	if (s->quick.first || s->filters.first || s->searches.first)
		pthread_cond_signal(&s->reader_wake);
	pthread_mutex_unlock(&s->lock);
}

/*
 * Runs the first requests of a batch, makes them durable, posts them, and returns the
 * rest.  Ends early where results have grown large, and before the first write after
 * reads alone, which need not wait for its sync.
 */
static struct request *
run_some(struct sqlite_store *s, struct request *first)
{
	struct db *db = &s->writer;
	struct request *r = first, *last = first;
	size_t result_bytes = 0;
	uint64_t count = 0;
	bool transaction = false;
	int rc = SQLITE_OK;

	while (r && rc == SQLITE_OK && result_bytes < BATCH_BYTES_MAX) {
		bool writes = kinds[r->kind].writes;

		if (writes && !transaction) {
			if (count)
				break;
			transaction = true;
			rc = db_run(db, ST_BEGIN);
		}
		if (rc == SQLITE_OK)
			rc = writes ? run_write(db, r) : run_alone(db, r);
		result_bytes += r->result_bytes;
		last = r;
		count++;
		r = next_of(r);
	}
	if (rc == SQLITE_OK && transaction && (rc = db_run(db, ST_COMMIT)) == SQLITE_OK)
		say_healthy(s);
	if (rc != SQLITE_OK)
		fail_batch(s, first, r, rc);
	post(s, first, last, count);
	return r;
}

static void
probe(struct sqlite_store *s)
{
	struct db *db = &s->writer;

	if (db_run(db, ST_PROBE) == SQLITE_OK)
		say_healthy(s);
}

/* Under the lock: up to a bound of requests and of bytes, linked and ended by NULL. */
static struct request *
take_batch(struct queue *q)
{
	struct request *first = q->first, *last = NULL;
	size_t bytes = 0;

	for (int i = 0; q->first && i < BATCH_MAX && bytes < BATCH_BYTES_MAX; i++) {
		last = pop(q);
		bytes += last->payload.len + last->response.len + last->logs.len + last->charge;
	}
	if (last)
		last->done.next = NULL;
	return first;
}

static void
wait_for_work(struct sqlite_store *s)
{
	struct timespec until;

	if (atomic_load(&s->healthy)) {
		pthread_cond_wait(&s->writer_wake, &s->lock);
		return;
	}
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += PROBE_NS / NS_PER_S;
	if (pthread_cond_timedwait(&s->writer_wake, &s->lock, &until) == ETIMEDOUT) {
		pthread_mutex_unlock(&s->lock);
		probe(s);
		pthread_mutex_lock(&s->lock);
	}
}

static void *
write_forever(void *arg)
{
	struct sqlite_store *s = arg;
	struct request *batch;

	pthread_setname_np(pthread_self(), "store-write");
	pthread_mutex_lock(&s->lock);
	for (;;) {
		while (!s->writes.first && !s->stop)
			wait_for_work(s);
		batch = take_batch(&s->writes);
		if (!batch)
			break;
		pthread_mutex_unlock(&s->lock);
		while (batch)
			batch = run_some(s, batch);
		pthread_mutex_lock(&s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* ---- The reader ---- */

/* Under the lock. */
static struct request *
take_quick(struct sqlite_store *s)
{
	return s->quick.first && s->quick.first->after <= s->written ? pop(&s->quick) : NULL;
}

static struct request *
take_readable(struct sqlite_store *s)
{
	struct queue *queues[] = {&s->copies, &s->filters, &s->searches, &s->copies};
	struct request *r = take_quick(s);

	for (int i = s->copy_next ? 0 : 1; !r && i < 4; i++)
		if (queues[i]->first && queues[i]->first->after <= s->written) {
			r = pop(queues[i]);
			s->copy_next = queues[i] != &s->copies;
		}
	return r;
}

static bool on_look(void *arg);

static void
run_read(struct sqlite_store *s, struct request *r)
{
	bool slow = kinds[r->kind].lane != LANE_QUICK;
	struct db *db = slow ? &s->searcher : &s->reader;
	int rc = SQLITE_INTERRUPT;

	if (!slow || !atomic_load(&s->closing)) {
		db_limit(db, clock_mono_ns() + s->list_ns, slow ? on_look : NULL, s);
		rc = kinds[r->kind].run(db, r);
		db_limit(db, 0, NULL, NULL);
	}
	if (rc != SQLITE_OK) {
		request_reset(r);
		if (rc == SQLITE_INTERRUPT && atomic_load(&s->closing))
			err_set(&r->done.err, ERR_AGAIN, "the store is closing");
		else
			db_error(db, rc, &r->done.err);
	}
	if (r->again) {
		r->again = false;
		pthread_mutex_lock(&s->lock);
		push(&s->copies, r);
		pthread_mutex_unlock(&s->lock);
		return;
	}
	completions_post(s->store.completions, &r->done, &r->done);
}

/* During a slow request, whose time goes on.  True: it is to end. */
static bool
on_look(void *arg)
{
	struct sqlite_store *s = arg;
	struct request *r;

	for (;;) {
		pthread_mutex_lock(&s->lock);
		r = take_quick(s);
		pthread_mutex_unlock(&s->lock);
		if (!r)
			return atomic_load(&s->closing);
		run_read(s, r);
	}
}

static void *
read_forever(void *arg)
{
	struct sqlite_store *s = arg;
	struct request *r;

	pthread_setname_np(pthread_self(), "store-read");
	pthread_mutex_lock(&s->lock);
	for (;;) {
		while (!(r = take_readable(s)) && !s->stop)
			pthread_cond_wait(&s->reader_wake, &s->lock);
		if (!r)
			break;
		pthread_mutex_unlock(&s->lock);
		run_read(s, r);
		pthread_mutex_lock(&s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* ---- Start and stop ---- */

static void
init_condition(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

int
workers_start(struct sqlite_store *s, struct err *e)
{
	sigset_t all, before;
	int error;

	pthread_mutex_init(&s->lock, NULL);
	init_condition(&s->writer_wake);
	init_condition(&s->reader_wake);
	/* A signal is the loop's (signalfd): none may choose a worker. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&s->writer_thread, NULL, write_forever, s);
	if (!error) {
		error = pthread_create(&s->reader_thread, NULL, read_forever, s);
		s->threads = !error;
		if (error) {
			pthread_mutex_lock(&s->lock);
			s->stop = true;
			pthread_cond_signal(&s->writer_wake);
			pthread_mutex_unlock(&s->lock);
			pthread_join(s->writer_thread, NULL);
		}
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	errno = error;
	return error ? err_sys(e, ERR_NODE, "cannot start the store's threads") : 0;
}

void
workers_stop(struct sqlite_store *s)
{
	if (!s->threads)
		return;
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_signal(&s->writer_wake);
	pthread_cond_signal(&s->reader_wake);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->writer_thread, NULL);
	pthread_join(s->reader_thread, NULL);
	s->threads = false;
}
