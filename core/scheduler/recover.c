/*
 * A start: the term is raised, then all functions, versions that were being built, and
 * events that have not ended come back into the queue.  What ran is not sent again before
 * the nodes had time to report it (sched.h, adopt_ns).
 *
 * The same reading, a page every two seconds, goes on for ever: it finds events whose hint
 * was lost.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/scheduler/internal.h"
#include "netio/loop.h"

static void load_functions(struct scheduler *s, const char *cursor);
static void load_versions(struct scheduler *s, const char *cursor);

/* A start that cannot read the store cannot go on: the supervisor tries again. */
static void
give_up(const char *what, const struct err *e)
{
	log_err(what, e);
	exit(1);
}

/* ---- 4. events ---- */

static void
load_event(struct scheduler *s, const struct event *ev, bool starting)
{
	struct sched_add add = {
		.id = ev->id,
		.function = ev->function_id,
		.kind = JOB_EVENT,
		.type = ev->type,
		.version = ev->function_version,
		.attempts = ev->attempts,
		.failures = ev->failures,
	};
	const struct function_version *v = version_find(s, &ev->function_id, ev->function_version);

	if (starting && !sched_function_known(s->sched, &ev->function_id))
		version_function_gone(s, &ev->function_id);
	if (ev->type == TYPE_WAIT) {
		/* Of an earlier process: its caller is gone, and it is never sent twice. */
		if (starting) {
			struct sched_entry *entry;
			struct work *w = work_new(s);

			if (!w || event_copy(&w->event, ev)) {
				work_free(s, w);
				return;
			}
			w->event_loaded = true;
			add.attachment = w;
			if (sched_add(s->sched, &add) != 1) {
				work_free(s, w);
				return;
			}
			entry = sched_entry(s->sched, &ev->id);
			collector_end_queued(s, entry, w, REASON_NODE_LOST, "NodeLost",
					     "the control plane was restarted");
		}
		return;
	}
	if (starting && ev->state == EVENT_RUNNING) {
		add.memory_mib = v ? v->memory_mib : 0;
		sched_add_running(s->sched, &add, &ev->lease, scheduler_now(s));
		return;
	}
	if (ev->state == EVENT_QUEUED)
		scheduler_queue(s, ev, NULL);
}

static void
on_events(void *arg, const struct store_answer *a, const struct err *e)
{
	struct scheduler *s = arg;

	if (e)
		give_up("the events that have not ended could not be read", e);
	for (size_t i = 0; i < a->event_count; i++)
		load_event(s, &a->events[i], true);
	if (a->event_count == STORE_LIST_MAX)
		store_event_unended(s->config.store, &a->events[a->event_count - 1].id, STORE_LIST_MAX,
				    on_events, s);
	else
		scheduler_recovered(s);
}

static void
on_sweep_page(void *arg, const struct store_answer *a, const struct err *e)
{
	static const struct id start;
	struct scheduler *s = arg;

	s->sweeping = false;
	if (e) {
		log_err("the queue could not be compared with the store", e);
		return;
	}
	for (size_t i = 0; i < a->event_count; i++)
		if (!sched_entry(s->sched, &a->events[i].id))
			load_event(s, &a->events[i], false);
	s->sweep_after = a->event_count == SWEEP_PAGE ? a->events[a->event_count - 1].id : start;
	if (a->event_count)
		scheduler_pump(s);
}

void
scheduler_sweep(struct scheduler *s)
{
	if (s->sweeping)
		return;
	s->sweeping = true;
	store_event_unended(s->config.store, &s->sweep_after, SWEEP_PAGE, on_sweep_page, s);
}

/* ---- 3. versions ---- */

static void
on_versions(void *arg, const struct store_answer *a, const struct err *e)
{
	static const struct id start;
	struct scheduler *s = arg;

	if (e)
		give_up("the versions could not be read", e);
	for (size_t i = 0; i < a->doc_count; i++) {
		struct function_version v;
		struct err bad;

		if (version_read(&v, a->docs[i].json, &bad)) {
			log_err("a version's record was passed over", &bad);
			continue;
		}
		if (v.state == VERSION_BUILDING)
			scheduler_queue_build(s, &v);
		function_version_clear(&v);
	}
	if (a->next)
		load_versions(s, a->next);
	else
		store_event_unended(s->config.store, &start, STORE_LIST_MAX, on_events, s);
}

static void
load_versions(struct scheduler *s, const char *cursor)
{
	store_doc_list(s->config.store, STORE_VERSION, NULL, NULL, cursor, STORE_LIST_MAX, on_versions, s);
}

/* ---- 2. functions ---- */

static void
on_told(void *arg, const struct err *e)
{
	(void)arg;
	if (e)
		log_err("the outcome of a build of before could not be stored", e);
}

/* The latest version of a function that is being built, says the function's document. */
static void
on_latest(void *arg, const struct store_answer *a, const struct err *e)
{
	struct scheduler *s = arg;
	struct function_version v;
	struct err bad;

	if (e) {
		if (e->cls != ERR_NOT_FOUND)
			log_err("a version's record could not be read", e);
	} else if (version_read(&v, a->docs[0].json, &bad)) {
		log_err("a version's record was passed over", &bad);
	} else {
		if (v.state != VERSION_BUILDING)
			version_built(s, &v, on_told, NULL);
		function_version_clear(&v);
	}
}

/* The outcome of a build is written to the version first: an end between the two writes left
 * a function that would be building for ever. */
static void
finish_build(struct scheduler *s, const struct function *f)
{
	char id[VERSION_ID_MAX];

	function_version_id(&f->id, f->latest, id);
	store_doc_get(s->config.store, STORE_VERSION, id, on_latest, s);
}

static void
on_functions(void *arg, const struct store_answer *a, const struct err *e)
{
	struct scheduler *s = arg;

	if (e)
		give_up("the functions could not be read", e);
	for (size_t i = 0; i < a->doc_count; i++) {
		struct function f;
		struct err bad;

		if (function_decode(a->docs[i].json, strlen(a->docs[i].json), &f, &bad)) {
			log_err("a function's record was passed over", &bad);
			continue;
		}
		version_apply(s, &f);
		if (f.state == VERSION_BUILDING)
			finish_build(s, &f);
		function_clear(&f);
	}
	if (a->next)
		load_functions(s, a->next);
	else
		load_versions(s, NULL);
}

static void
load_functions(struct scheduler *s, const char *cursor)
{
	store_doc_list(s->config.store, STORE_FUNCTION, NULL, NULL, cursor, STORE_LIST_MAX, on_functions, s);
}

/* ---- 1. the term ---- */

static void
on_term_written(void *arg, const struct store_answer *a, const struct err *e)
{
	struct scheduler *s = arg;
	struct err bad;

	(void)a;
	if (e)
		give_up("the scheduler's term could not be taken", e);
	if (scheduler_rules(s, &bad))
		give_up("the scheduler's state could not be made", &bad);
	load_functions(s, NULL);
}

static void
on_term_read(void *arg, const struct store_answer *a, const struct err *e)
{
	struct scheduler *s = arg;
	struct store_doc doc = { .kind = STORE_META, .id = "scheduler", .project = "" };
	struct json *j;
	char *text;

	if (e && e->cls != ERR_NOT_FOUND)
		give_up("the scheduler's term could not be read", e);
	if (!e) {
		j = json_parse(a->docs[0].json, strlen(a->docs[0].json), NULL);
		s->term = (uint64_t)json_int(j, "term", 0);
		doc.rev = a->docs[0].rev;
		json_free(j);
	}
	s->term++;
	j = json_object();
	json_put_int(j, "term", (int64_t)s->term);
	text = json_print(j);
	json_free(j);
	doc.json = text;
	if (e)
		store_doc_create(s->config.store, &doc, on_term_written, s);
	else
		store_doc_update(s->config.store, &doc, on_term_written, s);
	free(text);
}

int
scheduler_recover(struct scheduler *s, struct err *e)
{
	(void)e;
	store_doc_get(s->config.store, STORE_META, "scheduler", on_term_read, s);
	return 0;
}
