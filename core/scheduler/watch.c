/*
 * Watches: API processes that want to hear when an event ends (`?wait=`).
 *
 * A watch is a hint, too: what is lost costs its caller the rest of its wait, then it reads
 * the store.  So there are at most WATCH_MAX; the oldest goes first.
 */
#include <stdlib.h>
#include <string.h>

#include "core/scheduler/internal.h"

struct watch {
	struct id event;
	char reply_to[REPLY_MAX];
	struct watch *next;             /* in its bucket */
	struct watch *older, *newer;
};

static struct watch **
bucket(struct scheduler *s, const struct id *event)
{
	return &s->watches[id_hash(event) % WATCH_BUCKETS];
}

static void
remove_watch(struct scheduler *s, struct watch *w)
{
	struct watch **p = bucket(s, &w->event);

	while (*p != w)
		p = &(*p)->next;
	*p = w->next;
	*(w->older ? &w->older->newer : &s->watch_oldest) = w->newer;
	*(w->newer ? &w->newer->older : &s->watch_newest) = w->older;
	s->watch_count--;
	free(w);
}

static bool
known(struct scheduler *s, const struct id *event, const char *reply_to)
{
	struct watch *w = *bucket(s, event);

	while (w && (!id_equal(&w->event, event) || strcmp(w->reply_to, reply_to)))
		w = w->next;
	return w != NULL;
}

void
watch_add(struct scheduler *s, const struct id *event, const char *reply_to)
{
	struct watch **head = bucket(s, event), *w;

	if (known(s, event, reply_to))
		return;
	if (s->watch_count >= WATCH_MAX)
		remove_watch(s, s->watch_oldest);
	w = calloc(1, sizeof *w);
	if (!w)
		return;
	w->event = *event;
	memcpy(w->reply_to, reply_to, sizeof w->reply_to);
	w->next = *head;
	*head = w;
	w->older = s->watch_newest;
	*(s->watch_newest ? &s->watch_newest->newer : &s->watch_oldest) = w;
	s->watch_newest = w;
	s->watch_count++;
}

void
watch_tell(struct scheduler *s, const struct event *ev)
{
	struct watch *w = *bucket(s, &ev->id), *next;

	for (; w; w = next) {
		next = w->next;
		if (!id_equal(&w->event, &ev->id))
			continue;
		collector_answer(s, w->reply_to, ev, NULL, 0);
		remove_watch(s, w);
	}
}

void
watches_free(struct scheduler *s)
{
	while (s->watch_oldest)
		remove_watch(s, s->watch_oldest);
}
