#include "core/agent/agent.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/crypto.h"
#include "core/base/err.h"
#include "core/base/log.h"
#include "core/model/function_record.h"
#include "core/model/message.h"
#include "core/model/timer.h"
#include "netio/loop.h"
#include "netio/mq.h"
#include "store/store.h"

/* The list of timers is read again now and then, for changes that nobody told of. */
enum { REREAD_S = 30, TIMERS_MAX = 100000 };

struct timer {
	struct function f;
	int64_t next_us;
};

struct agent {
	struct agent_config config;
	struct mq_socket *events;
	struct loop_timer *wake, *reread;
	struct timer *timers, *fresh;
	size_t count, fresh_count;
	bool reading, read_again;
};

static void read_functions(struct agent *a, const char *cursor);

static void
free_timers(struct timer *t, size_t n)
{
	for (size_t i = 0; i < n; i++)
		function_clear(&t[i].f);
	free(t);
}

/* The soonest tick, by the real-time clock, looked at again at least every second: a step
 * of the clock is noticed then. */
static void
set_wake(struct agent *a)
{
	int64_t next = INT64_MAX, now = clock_real_us(), wait;

	for (size_t i = 0; i < a->count; i++)
		if (a->timers[i].next_us < next)
			next = a->timers[i].next_us;
	if (next == INT64_MAX) {
		loop_timer_clear(a->wake);
		return;
	}
	wait = next > now ? next - now : 0;
	loop_timer_after(a->wake, (uint64_t)(wait < US_PER_S ? wait : US_PER_S) * NS_PER_US);
}

/* ---- a tick ---- */

struct tick {
	struct agent *a;
	struct event event;
};

static void
on_created(void *arg, const struct store_answer *answer, const struct err *e)
{
	struct tick *t = arg;
	struct message m = { .type = MSG_EVENT, .event = t->event };
	struct mq_frame frame;
	struct err lost;
	char *envelope;

	(void)answer;
	if (e && e->cls != ERR_CONFLICT) {
		log_err("a tick could not be stored", e); /* tried again: it is still due */
	} else if (!e) {
		envelope = message_encode(&m);
		frame.data = envelope;
		frame.len = envelope ? strlen(envelope) : 0;
		if (!envelope || mq_send(t->a->events, &frame, 1, &lost))
			log_debug("a hint was lost; the sweep finds the event", NULL);
		free(envelope);
	}
	free(t);
}

static void
tick(struct agent *a, const struct timer *timer)
{
	const struct function *f = &timer->f;
	struct tick *t = calloc(1, sizeof *t);
	struct store_bytes nothing = { .fd = -1 };
	uint8_t key[sizeof f->id.b + sizeof timer->next_us], digest[SHA256_BYTES];

	if (!t)
		return;
	memcpy(key, f->id.b, sizeof f->id.b);
	memcpy(key + sizeof f->id.b, &timer->next_us, sizeof timer->next_us);
	sha256(key, sizeof key, digest);
	t->a = a;
	t->event.id = t->event.root = id_computed(timer->next_us, digest);
	t->event.function_id = f->id;
	t->event.function_version = f->serving;
	t->event.source = SOURCE_TIMER;
	t->event.type = TYPE_ASYNC;
	memcpy(t->event.project_id, f->project_id, sizeof t->event.project_id);
	memcpy(t->event.function_name, f->name, sizeof t->event.function_name);
	t->event.created_us = t->event.queued_us = clock_real_us();
	store_event_create(a->config.store, &t->event, nothing, NULL, NULL, on_created, t);
}

static void
on_wake(void *arg)
{
	struct agent *a = arg;
	int64_t now = clock_real_us();

	for (size_t i = 0; i < a->count; i++) {
		struct timer *t = &a->timers[i];

		if (t->next_us > now)
			continue;
		tick(a, t);
		t->next_us = timer_next_us(t->f.created_us, t->f.frequency_min, now);
	}
	set_wake(a);
}

/* ---- the list of timers ---- */

static void
take_fresh(struct agent *a)
{
	free_timers(a->timers, a->count);
	a->timers = a->fresh;
	a->count = a->fresh_count;
	a->fresh = NULL;
	a->fresh_count = 0;
	a->reading = false;
	set_wake(a);
	if (a->read_again) {
		a->read_again = false;
		a->reading = true;
		read_functions(a, NULL);
	}
}

static void
add_fresh(struct agent *a, const char *json)
{
	struct timer *grown;
	struct function f;
	int64_t due;

	if (function_decode(json, strlen(json), &f, NULL))
		return;
	if (!f.frequency_min || a->fresh_count == TIMERS_MAX ||
	    !(grown = realloc(a->fresh, (a->fresh_count + 1) * sizeof *grown))) {
		function_clear(&f);
		return;
	}
	a->fresh = grown;
	due = timer_next_us(f.created_us, f.frequency_min, clock_real_us());
	/* A tick that is due and not made yet must not be passed over by reading the list again. */
	for (size_t i = 0; i < a->count; i++)
		if (id_equal(&a->timers[i].f.id, &f.id) && a->timers[i].next_us < due &&
		    a->timers[i].f.frequency_min == f.frequency_min)
			due = a->timers[i].next_us;
	grown[a->fresh_count].next_us = due;
	grown[a->fresh_count++].f = f;
}

static void
on_functions(void *arg, const struct store_answer *answer, const struct err *e)
{
	struct agent *a = arg;

	if (e) {
		log_err("the timers could not be read", e);
		free_timers(a->fresh, a->fresh_count);
		a->fresh = NULL;
		a->fresh_count = 0;
		a->reading = false;
		return;
	}
	for (size_t i = 0; i < answer->doc_count; i++)
		add_fresh(a, answer->docs[i].json);
	if (answer->next)
		read_functions(a, answer->next);
	else
		take_fresh(a);
}

static void
read_functions(struct agent *a, const char *cursor)
{
	store_doc_list(a->config.store, STORE_FUNCTION, NULL, NULL, cursor, STORE_LIST_MAX, on_functions, a);
}

static void
on_reread(void *arg)
{
	struct agent *a = arg;

	agent_function_changed(a, NULL);
	loop_timer_after(a->reread, REREAD_S * NS_PER_S);
}

void
agent_function_changed(struct agent *a, const struct id *function)
{
	(void)function;
	if (a->reading) {
		a->read_again = true;
		return;
	}
	a->reading = true;
	read_functions(a, NULL);
}

/* ---- life ---- */

struct agent *
agent_new(const struct agent_config *c, struct err *e)
{
	struct agent *a = calloc(1, sizeof *a);
	struct mq_options o = { .connect = c->events, .high_water = 10000 };

	if (!a) {
		err_set(e, ERR_NODE, "out of memory");
		return NULL;
	}
	a->config = *c;
	a->wake = loop_timer_add(c->loop, on_wake, a, e);
	a->reread = a->wake ? loop_timer_add(c->loop, on_reread, a, e) : NULL;
	a->events = a->reread ? mq_open(c->mq, MQ_PUSH, &o, NULL, NULL, e) : NULL;
	if (!a->events) {
		agent_free(a);
		return NULL;
	}
	on_reread(a);
	return a;
}

void
agent_free(struct agent *a)
{
	if (!a)
		return;
	loop_timer_remove(a->wake);
	loop_timer_remove(a->reread);
	mq_close(a->events);
	free_timers(a->timers, a->count);
	free_timers(a->fresh, a->fresh_count);
	free(a);
}
