/*
 * The store's front: finds the backend by its scheme and checks once, for all of them,
 * what callers pass: lengths, ranges, forms.  A request that fails a check never reaches
 * the backend; its callback still comes from the loop, like every other one.
 *
 * Bytes that a request takes over are the store's from the call on, also when it is
 * refused.  Bytes without an owner are copied here, since the caller's may be gone when a
 * backend gets to them.
 */
#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/str.h"
#include "store/internal.h"

static const struct store_ops *const backends[] = {&store_sqlite_ops};

struct store *
store_open(const char *spec, int dir_fd, struct loop *l, struct err *e)
{
	size_t scheme = strcspn(spec, ":");

	if (!spec[scheme]) {
		err_set(e, ERR_INPUT, "store '%.80s': not of the form sqlite:PATH", spec);
		return NULL;
	}
	for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++)
		if (strlen(backends[i]->scheme) == scheme &&
		    !memcmp(backends[i]->scheme, spec, scheme))
			return backends[i]->open(spec + scheme + 1, dir_fd, l, e);
	err_set(e, ERR_INPUT, "store '%.80s': there is no kind of store named '%.*s'", spec,
		(int)(scheme < 40 ? scheme : 40), spec);
	return NULL;
}

void
store_close(struct store *s)
{
	if (s)
		s->ops->close(s);
}

bool
store_healthy(const struct store *s)
{
	return s->ops->healthy(s);
}

int
store_init(struct store *s, const struct store_ops *ops, struct loop *l, struct err *e)
{
	s->ops = ops;
	s->completions = completions_new(l, e);
	return s->completions ? 0 : -1;
}

void
store_fini(struct store *s)
{
	completions_free(s->completions);
	s->completions = NULL;
}

static void
release_refusal(struct completion *c)
{
	free(c);
}

void
store_refuse(struct store *s, store_fn fn, void *arg, const struct err *e)
{
	struct completion *c = store_alloc(sizeof(*c));

	completion_begin(s->completions, c, fn, arg);
	c->err = *e;
	c->release = release_refusal;
	completions_post(s->completions, c, c);
}

void
store_bytes_release(struct store_bytes *b)
{
	free(b->owned);
	if (b->fd > 0) /* 0: of a zeroed struct; it is never a payload's file */
		close(b->fd);
	*b = (struct store_bytes){.fd = -1};
}

/* ---- Checks ---- */

static int
check_word(const char *what, const char *s, size_t max, struct err *e)
{
	size_t len = strnlen(s, max + 1);

	if (!len)
		return err_set(e, ERR_INPUT, "%s is empty", what);
	if (len > max)
		return err_set(e, ERR_INPUT, "%s is longer than %zu bytes", what, max);
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
			return err_set(e, ERR_INPUT, "%s has a control character in it", what);
	if (!str_is_utf8(s, len))
		return err_set(e, ERR_INPUT, "%s is not UTF-8", what);
	return 0;
}

static int
check_optional(const char *what, const char *s, size_t max, struct err *e)
{
	return s && *s ? check_word(what, s, max, e) : 0;
}

static int
check_kind(enum store_kind kind, struct err *e)
{
	if ((unsigned)kind >= STORE_KIND_COUNT)
		return err_set(e, ERR_INPUT, "there is no kind %d of documents", (int)kind);
	return 0;
}

static int
check_limit(unsigned limit, struct err *e)
{
	if (!limit || limit > STORE_LIST_MAX)
		return err_set(e, ERR_INPUT, "limit is %u and must be 1 to %d", limit,
			       STORE_LIST_MAX);
	return 0;
}

static int
check_doc(const struct store_doc *d, struct err *e)
{
	if (check_kind(d->kind, e) || check_word("the document's id", d->id, STORE_ID_MAX, e) ||
	    check_optional("the project", d->project, EVENT_PROJECT_MAX - 1, e) ||
	    check_optional("the parent's id", d->parent, STORE_ID_MAX, e))
		return -1;
	if (d->name && check_word("the name", d->name, STORE_NAME_MAX, e))
		return -1;
	if (!d->project || !d->json)
		return err_set(e, ERR_INPUT, "the document lacks its project or its content");
	if (strnlen(d->json, STORE_JSON_MAX + 1) > STORE_JSON_MAX)
		return err_set(e, ERR_LIMIT, "the document is larger than %d bytes",
			       STORE_JSON_MAX);
	return 0;
}

/* Digests name files: anything but 64 lower-case hex digits must not get that far. */
static int
check_digest(const char *digest, struct err *e)
{
	if (strnlen(digest, 65) == 64 && strspn(digest, "0123456789abcdef") == 64)
		return 0;
	return err_set(e, ERR_INPUT, "'%.70s' is not a SHA-256 digest in lower-case hex", digest);
}

static int
check_id(const char *what, const struct id *id, struct err *e)
{
	return id_is_zero(id) ? err_set(e, ERR_INPUT, "the event lacks its %s", what) : 0;
}

static int
check_text(const char *what, const char *s, struct err *e)
{
	if (s && strnlen(s, STORE_TEXT_MAX + 1) > STORE_TEXT_MAX)
		return err_set(e, ERR_LIMIT, "the event's %s is longer than %d bytes", what,
			       STORE_TEXT_MAX);
	return 0;
}

static int
check_event(const struct event *ev, struct err *e)
{
	static const char what[] = "the event has a value out of range";

	if (check_id("id", &ev->id, e) || check_text("error message", ev->error_message, e) ||
	    check_text("traceback", ev->error_traceback, e) ||
	    check_text("header fields", ev->response_fields, e))
		return -1;
	if ((unsigned)ev->state >= EVENT_STATE_COUNT || (unsigned)ev->reason >= REASON_COUNT ||
	    (unsigned)ev->source >= SOURCE_COUNT || (unsigned)ev->type >= TYPE_COUNT ||
	    (unsigned)ev->start >= START_COUNT ||
	    (unsigned)ev->payload_kind >= PAYLOAD_KIND_COUNT)
		return err_set(e, ERR_INPUT, what);
	return 0;
}

static int
check_key(const char *key, const char *payload_sha256, struct err *e)
{
	if (!key)
		return 0;
	if (check_word("the idempotency key", key, STORE_KEY_MAX, e))
		return -1;
	if (!payload_sha256)
		return err_set(e, ERR_INPUT, "an idempotency key needs the payload's SHA-256");
	return check_digest(payload_sha256, e);
}

static int
take_bytes(struct store_bytes *b, struct err *e)
{
	if (!b->len)
		store_bytes_release(b);
	if (b->len > STORE_BYTES_MAX)
		return err_set(e, ERR_LIMIT,
			       "%zu bytes are more than the %d that an event may have", b->len,
			       STORE_BYTES_MAX);
	if (!b->len || b->owned || !b->data)
		return 0;
	b->owned = malloc(b->len);
	if (!b->owned)
		return err_set(e, ERR_AGAIN, "out of memory for %zu bytes of an event", b->len);
	memcpy(b->owned, b->data, b->len);
	b->data = b->owned;
	return 0;
}

/* ---- Documents ---- */

void
store_doc_create(struct store *s, const struct store_doc *d, store_fn fn, void *arg)
{
	struct err e;

	if (check_doc(d, &e))
		store_refuse(s, fn, arg, &e);
	else
		s->ops->doc_create(s, d, fn, arg);
}

void
store_doc_update(struct store *s, const struct store_doc *d, store_fn fn, void *arg)
{
	struct err e;

	if (check_doc(d, &e))
		store_refuse(s, fn, arg, &e);
	else
		s->ops->doc_update(s, d, fn, arg);
}

void
store_doc_get(struct store *s, enum store_kind kind, const char *id, store_fn fn, void *arg)
{
	struct err e;

	if (check_kind(kind, &e) || check_word("the document's id", id, STORE_ID_MAX, &e))
		store_refuse(s, fn, arg, &e);
	else
		s->ops->doc_get(s, kind, id, fn, arg);
}

void
store_doc_find(struct store *s, enum store_kind kind, const char *project, const char *name,
	       store_fn fn, void *arg)
{
	struct err e;

	if (check_kind(kind, &e) || check_word("the name", name, STORE_NAME_MAX, &e) ||
	    check_optional("the project", project, EVENT_PROJECT_MAX - 1, &e))
		store_refuse(s, fn, arg, &e);
	else
		s->ops->doc_find(s, kind, project, name, fn, arg);
}

void
store_doc_list(struct store *s, enum store_kind kind, const char *project, const char *parent,
	       const char *cursor, unsigned limit, store_fn fn, void *arg)
{
	struct err e;

	if (check_kind(kind, &e) || check_limit(limit, &e) ||
	    check_optional("the project", project, EVENT_PROJECT_MAX - 1, &e) ||
	    check_optional("the parent's id", parent, STORE_ID_MAX, &e) ||
	    check_optional("the cursor", cursor, STORE_ID_MAX, &e))
		store_refuse(s, fn, arg, &e);
	else
		s->ops->doc_list(s, kind, project, parent, cursor, limit, fn, arg);
}

void
store_doc_delete(struct store *s, enum store_kind kind, const char *id, store_fn fn, void *arg)
{
	struct err e;

	if (check_kind(kind, &e) || check_word("the document's id", id, STORE_ID_MAX, &e))
		store_refuse(s, fn, arg, &e);
	else
		s->ops->doc_delete(s, kind, id, fn, arg);
}

void
store_version_unused(struct store *s, int64_t before_us, unsigned keep, store_fn fn, void *arg)
{
	s->ops->version_unused(s, before_us, keep, fn, arg);
}

/* ---- Blobs ---- */

void
store_blob_put(struct store *s, const char *digest, int fd, store_fn fn, void *arg)
{
	struct err e;

	if (check_digest(digest, &e))
		store_refuse(s, fn, arg, &e);
	else
		s->ops->blob_put(s, digest, fd, fn, arg);
}

void
store_blob_open(struct store *s, const char *digest, store_fn fn, void *arg)
{
	struct err e;

	if (check_digest(digest, &e))
		store_refuse(s, fn, arg, &e);
	else
		s->ops->blob_open(s, digest, fn, arg);
}

void
store_blob_sweep(struct store *s, int64_t before_us, store_fn fn, void *arg)
{
	s->ops->blob_sweep(s, before_us, fn, arg);
}

void
store_blob_keep(struct store *s, const char *project, const char *digests, size_t count,
		store_fn fn, void *arg)
{
	struct err e;

	if (!count || count > STORE_LIST_MAX || strnlen(digests, count * 64 + 1) != count * 64 ||
	    strspn(digests, "0123456789abcdef") != count * 64) {
		err_set(&e, ERR_INPUT, "these are not 1 to %d SHA-256 digests in lower-case hex",
			STORE_LIST_MAX);
		store_refuse(s, fn, arg, &e);
	} else if (check_word("the project", project, EVENT_PROJECT_MAX - 1, &e)) {
		store_refuse(s, fn, arg, &e);
	} else {
		s->ops->blob_keep(s, project, digests, count, fn, arg);
	}
}

void
store_upload_expire(struct store *s, int64_t before_us, store_fn fn, void *arg)
{
	s->ops->upload_expire(s, before_us, fn, arg);
}

/* ---- Events ---- */

void
store_event_create(struct store *s, const struct event *ev, struct store_bytes payload,
		   const char *idempotency_key, const char *payload_sha256, store_fn fn, void *arg)
{
	struct err e;

	if (!check_event(ev, &e) && !check_id("function", &ev->function_id, &e) &&
	    !check_word("the event's project", ev->project_id, EVENT_PROJECT_MAX - 1, &e) &&
	    !check_key(idempotency_key, payload_sha256, &e) && !take_bytes(&payload, &e)) {
		s->ops->event_create(s, ev, payload, idempotency_key, payload_sha256, fn, arg);
		return;
	}
	store_bytes_release(&payload);
	store_refuse(s, fn, arg, &e);
}

void
store_event_running(struct store *s, const struct event *ev, store_fn fn, void *arg)
{
	struct err e;

	if (check_event(ev, &e))
		store_refuse(s, fn, arg, &e);
	else
		s->ops->event_running(s, ev, fn, arg);
}

void
store_event_requeue(struct store *s, const struct event *ev, struct store_bytes logs, store_fn fn,
		    void *arg)
{
	struct err e;

	if (!check_event(ev, &e) && !take_bytes(&logs, &e)) {
		s->ops->event_requeue(s, ev, logs, fn, arg);
		return;
	}
	store_bytes_release(&logs);
	store_refuse(s, fn, arg, &e);
}

static int
check_ended(const struct event *ev, struct err *e)
{
	if (event_state_ended(ev->state))
		return 0;
	return err_set(e, ERR_INPUT, "an event cannot be settled as %s",
		       event_state_name(ev->state));
}

void
store_event_settle(struct store *s, const struct event *ev, struct store_bytes response,
		   struct store_bytes logs, store_fn fn, void *arg)
{
	struct err e;

	if (!check_event(ev, &e) && !check_ended(ev, &e) && !take_bytes(&response, &e) &&
	    !take_bytes(&logs, &e)) {
		s->ops->event_settle(s, ev, response, logs, fn, arg);
		return;
	}
	store_bytes_release(&response);
	store_bytes_release(&logs);
	store_refuse(s, fn, arg, &e);
}

void
store_event_get(struct store *s, const struct id *id, const char *project, store_fn fn, void *arg)
{
	struct err e;

	if (check_optional("the project", project, EVENT_PROJECT_MAX - 1, &e))
		store_refuse(s, fn, arg, &e);
	else
		s->ops->event_get(s, id, project, fn, arg);
}

void
store_event_payload(struct store *s, const struct id *id, store_fn fn, void *arg)
{
	s->ops->event_payload(s, id, fn, arg);
}

void
store_event_logs(struct store *s, const struct id *id, store_fn fn, void *arg)
{
	s->ops->event_logs(s, id, fn, arg);
}

void
store_event_list(struct store *s, const struct store_event_filter *f, store_fn fn, void *arg)
{
	struct err e;

	if (check_limit(f->limit, &e) ||
	    check_optional("the project", f->project, EVENT_PROJECT_MAX - 1, &e) ||
	    check_optional("the cursor", f->cursor, STORE_ID_MAX, &e) ||
	    check_optional("the text to search for", f->query, STORE_QUERY_MAX, &e))
		store_refuse(s, fn, arg, &e);
	else if (f->state >= EVENT_STATE_COUNT || f->source >= SOURCE_COUNT) {
		err_set(&e, ERR_INPUT, "there is no such state or source of events");
		store_refuse(s, fn, arg, &e);
	} else {
		s->ops->event_list(s, f, fn, arg);
	}
}

void
store_event_unended(struct store *s, const struct id *after, unsigned limit, store_fn fn, void *arg)
{
	struct err e;

	if (check_limit(limit, &e))
		store_refuse(s, fn, arg, &e);
	else
		s->ops->event_unended(s, after, limit, fn, arg);
}

void
store_event_counts(struct store *s, const char *project, store_fn fn, void *arg)
{
	struct err e;

	if (check_optional("the project", project, EVENT_PROJECT_MAX - 1, &e))
		store_refuse(s, fn, arg, &e);
	else
		s->ops->event_counts(s, project, fn, arg);
}

void
store_event_expire(struct store *s, int64_t end_us, unsigned limit, store_fn fn, void *arg)
{
	struct err e;

	if (check_limit(limit, &e))
		store_refuse(s, fn, arg, &e);
	else
		s->ops->event_expire(s, end_us, limit, fn, arg);
}
