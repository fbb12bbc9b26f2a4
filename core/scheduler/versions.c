/*
 * Versions are immutable once built, so they are kept; a function's document changes by
 * compare-and-set, since the API writes it, too.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/base/str.h"
#include "core/scheduler/internal.h"

static size_t
bucket(const struct id *function, uint32_t version)
{
	return (id_hash(function) + version) % VERSION_BUCKETS;
}

const struct function_version *
version_find(const struct scheduler *s, const struct id *function, uint32_t version)
{
	struct cached_version *c = s->versions[bucket(function, version)];

	while (c && (c->v.version != version || !id_equal(&c->v.function_id, function)))
		c = c->next;
	return c ? &c->v : NULL;
}

void
version_keep(struct scheduler *s, const struct function_version *v)
{
	struct function_version *known =
		(struct function_version *)(uintptr_t)version_find(s, &v->function_id, v->version);
	struct cached_version *c;
	size_t at = bucket(&v->function_id, v->version);

	if (known) {
		struct function_version copy;

		if (function_version_copy(&copy, v))
			return;
		function_version_clear(known);
		*known = copy;
		return;
	}
	c = calloc(1, sizeof *c);
	if (!c || function_version_copy(&c->v, v)) {
		free(c);
		return;
	}
	c->next = s->versions[at];
	s->versions[at] = c;
}

static void
free_cached(struct cached_version **p)
{
	struct cached_version *c = *p;

	*p = c->next;
	function_version_clear(&c->v);
	free(c);
}

void
versions_free(struct scheduler *s)
{
	for (int i = 0; i < VERSION_BUCKETS; i++)
		while (s->versions[i])
			free_cached(&s->versions[i]);
}

void
version_apply(struct scheduler *s, const struct function *f)
{
	/* Events that waited for a first version that failed are let through, to be ended. */
	uint32_t version = !f->serving && f->state == VERSION_FAILED ? f->latest : f->serving;

	sched_function(s->sched, &f->id, version, f->memory_mib, f->limit);
}

void
version_forget(struct scheduler *s, const char *id)
{
	const char *dot = strrchr(id, '.');
	char text[ID_TEXT_MAX];
	struct id function;
	int64_t version;

	if (!dot || dot - id != ID_TEXT_MAX - 1 || str_int(dot + 1, 0, UINT32_MAX, &version))
		return;
	snprintf(text, sizeof text, "%s", id);
	if (id_parse(text, &function))
		return;
	for (struct cached_version **p = &s->versions[bucket(&function, (uint32_t)version)]; *p;)
		if ((*p)->v.version == version && id_equal(&(*p)->v.function_id, &function))
			free_cached(p);
		else
			p = &(*p)->next;
}

void
version_function_gone(struct scheduler *s, const struct id *function)
{
	for (int i = 0; i < VERSION_BUCKETS; i++)
		for (struct cached_version **p = &s->versions[i]; *p;)
			if (id_equal(&(*p)->v.function_id, function))
				free_cached(p);
			else
				p = &(*p)->next;
	sched_function(s->sched, function, 1, 0, 0);
}

void
scheduler_function_gone(struct scheduler *s, const struct id *function)
{
	if (!s->sched)
		return;
	version_function_gone(s, function);
	if (s->config.function_changed)
		s->config.function_changed(s->config.arg, function);
	scheduler_pump(s);
}

int
version_read(struct function_version *v, const char *json, struct err *e)
{
	struct json *j = json_parse(json, strlen(json), e);
	int rc = j ? function_version_parse(j, v, e) : -1;

	json_free(j);
	return rc;
}

/* ---- what a build came to ---- */

struct built {
	struct scheduler *s;
	struct function_version v;
	void (*done)(void *arg, const struct err *e);
	void *arg;
};

static void
built_end(struct built *b, const struct err *e)
{
	b->done(b->arg, e);
	function_version_clear(&b->v);
	free(b);
}

static void read_function(struct built *b);

static void
on_function_written(void *arg, const struct store_answer *a, const struct err *e)
{
	struct built *b = arg;

	(void)a;
	if (e && e->cls == ERR_CONFLICT) {
		read_function(b); /* the owner changed it meanwhile: once more */
		return;
	}
	if (!e && b->s->config.function_changed)
		b->s->config.function_changed(b->s->config.arg, &b->v.function_id);
	built_end(b, e);
}

static void
change_function(struct built *b, struct function *f)
{
	if (b->v.state == VERSION_READY && b->v.version > f->serving && b->v.version <= f->latest)
		f->serving = b->v.version;
	if (b->v.version == f->latest) {
		f->state = b->v.state;
		free(f->state_reason);
		f->state_reason = b->v.reason ? strdup(b->v.reason) : NULL;
		f->updated_us = clock_real_us();
	}
}

static void
on_function_read(void *arg, const struct store_answer *a, const struct err *e)
{
	struct built *b = arg;
	struct store_doc doc;
	struct function f;
	struct err bad;
	struct json *j;
	char *text;

	if (e && e->cls == ERR_NOT_FOUND) { /* deleted while it was built */
		version_function_gone(b->s, &b->v.function_id);
		built_end(b, NULL);
		return;
	}
	if (e || function_decode(a->docs[0].json, strlen(a->docs[0].json), &f, &bad)) {
		built_end(b, e ? e : &bad);
		return;
	}
	change_function(b, &f);
	version_apply(b->s, &f);
	j = function_encode(&f);
	text = json_print(j);
	json_free(j);
	doc = a->docs[0];
	doc.json = text;
	store_doc_update(b->s->config.store, &doc, on_function_written, b);
	free(text);
	function_clear(&f);
}

static void
read_function(struct built *b)
{
	char id[ID_TEXT_MAX];

	id_format(&b->v.function_id, id);
	store_doc_get(b->s->config.store, STORE_FUNCTION, id, on_function_read, b);
}

static void
on_version_written(void *arg, const struct store_answer *a, const struct err *e)
{
	struct built *b = arg;

	(void)a;
	if (e && e->cls != ERR_NOT_FOUND) {
		built_end(b, e);
		return;
	}
	read_function(b);
}

/* Only the outcome is written: the document has more than we know. */
static void
on_version_read(void *arg, const struct store_answer *a, const struct err *e)
{
	struct built *b = arg;
	struct store_doc doc;
	struct json *j;
	struct err bad;
	char *text;

	if (e && e->cls == ERR_NOT_FOUND) {
		read_function(b); /* deleted while it was built */
		return;
	}
	if (e || !(j = json_parse(a->docs[0].json, strlen(a->docs[0].json), &bad))) {
		built_end(b, e ? e : &bad);
		return;
	}
	function_version_outcome(j, &b->v);
	text = json_print(j);
	json_free(j);
	doc = a->docs[0];
	doc.json = text;
	store_doc_update(b->s->config.store, &doc, on_version_written, b);
	free(text);
}

void
version_built(struct scheduler *s, const struct function_version *v,
	      void (*done)(void *arg, const struct err *e), void *arg)
{
	struct built *b = calloc(1, sizeof *b);
	char id[VERSION_ID_MAX];

	if (!b || function_version_copy(&b->v, v)) {
		struct err e;

		free(b);
		err_set(&e, ERR_AGAIN, "out of memory");
		done(arg, &e);
		return;
	}
	b->s = s;
	b->done = done;
	b->arg = arg;
	version_keep(s, v);
	function_version_id(&v->function_id, v->version, id);
	store_doc_get(s->config.store, STORE_VERSION, id, on_version_read, b);
}

void
version_serve(struct scheduler *s, const struct function_version *v)
{
	version_keep(s, v);
	sched_function(s->sched, &v->function_id, v->version, v->memory_mib, v->limit);
}
