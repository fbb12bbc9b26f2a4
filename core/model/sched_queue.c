/*
 * Who waits: a first-in-first-out queue for each function, a ring of the functions that
 * have something in theirs, and a heap of what waits for a time.  Hash tables with chains
 * that double find entries and functions by id; growth is skipped when memory is short.
 *
 * A function that cannot go on (its limit, no version) is not in the ring: what changes
 * that puts it back.
 */
#include "core/model/sched_impl.h"

#include <stdlib.h>
#include <string.h>

static void
grow_entries(struct sched *s)
{
	size_t n = s->entry_buckets * 2;
	struct sched_entry **table;

	if (s->entry_count < s->entry_buckets || !(table = calloc(n, sizeof *table)))
		return;
	for (size_t i = 0; i < s->entry_buckets; i++)
		for (struct sched_entry *e = s->entries[i], *next; e; e = next) {
			size_t at = id_hash(&e->id) & (n - 1);

			next = e->hash_next;
			e->hash_next = table[at];
			table[at] = e;
		}
	free(s->entries);
	s->entries = table;
	s->entry_buckets = n;
}

static void
grow_functions(struct sched *s)
{
	size_t n = s->function_buckets * 2;
	struct sched_function **table;

	if (s->function_count < s->function_buckets || !(table = calloc(n, sizeof *table)))
		return;
	for (size_t i = 0; i < s->function_buckets; i++)
		for (struct sched_function *f = s->functions[i], *next; f; f = next) {
			size_t at = id_hash(&f->id) & (n - 1);

			next = f->hash_next;
			f->hash_next = table[at];
			table[at] = f;
		}
	free(s->functions);
	s->functions = table;
	s->function_buckets = n;
}

/* ---- functions ---- */

static struct sched_function *
find_function(const struct sched *s, const struct id *id)
{
	struct sched_function *f = s->functions[id_hash(id) & (s->function_buckets - 1)];

	while (f && !id_equal(&f->id, id))
		f = f->hash_next;
	return f;
}

static struct sched_function *
get_function(struct sched *s, const struct id *id)
{
	struct sched_function *f = find_function(s, id);
	size_t at;

	if (f)
		return f;
	f = calloc(1, sizeof *f);
	if (!f)
		return NULL;
	f->id = *id;
	grow_functions(s);
	at = id_hash(id) & (s->function_buckets - 1);
	f->hash_next = s->functions[at];
	s->functions[at] = f;
	s->function_count++;
	return f;
}

void
sched_ring_append(struct sched *s, struct sched_function *f)
{
	if (f->in_ring)
		return;
	f->in_ring = true;
	f->ring_next = NULL;
	if (s->ring_tail)
		s->ring_tail->ring_next = f;
	else
		s->ring_head = f;
	s->ring_tail = f;
	s->ring_count++;
}

struct sched_function *
sched_ring_pop(struct sched *s)
{
	struct sched_function *f = s->ring_head;

	if (!f)
		return NULL;
	s->ring_head = f->ring_next;
	if (!s->ring_head)
		s->ring_tail = NULL;
	f->in_ring = false;
	s->ring_count--;
	return f;
}

void
sched_function(struct sched *s, const struct id *id, uint32_t version, uint32_t memory_mib,
	       uint32_t limit)
{
	struct sched_function *f = get_function(s, id);

	if (!f)
		return;
	f->known = true;
	f->version = version;
	f->memory_mib = memory_mib;
	f->limit = limit;
	if (f->head)
		sched_ring_append(s, f);
}

bool
sched_function_known(const struct sched *s, const struct id *id)
{
	const struct sched_function *f = find_function(s, id);

	return f && f->known;
}

size_t
sched_queued(const struct sched *s, const struct id *id)
{
	const struct sched_function *f = find_function(s, id);

	return f ? f->queued : 0;
}

size_t
sched_queued_total(const struct sched *s)
{
	return s->entry_count - s->job_count;
}

size_t
sched_running_total(const struct sched *s)
{
	return s->job_count;
}

/* ---- the heap of entries that wait for a time ---- */

static void
heap_place(struct sched *s, size_t at, struct sched_entry *e)
{
	s->heap[at] = e;
	e->heap_index = (uint32_t)at;
}

static void
heap_up(struct sched *s, size_t at, struct sched_entry *e)
{
	while (at > 0 && s->heap[(at - 1) / 2]->not_before_ns > e->not_before_ns) {
		heap_place(s, at, s->heap[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	heap_place(s, at, e);
}

static void
heap_down(struct sched *s, size_t at, struct sched_entry *e)
{
	for (;;) {
		size_t child = 2 * at + 1;

		if (child + 1 < s->heap_count &&
		    s->heap[child + 1]->not_before_ns < s->heap[child]->not_before_ns)
			child++;
		if (child >= s->heap_count || s->heap[child]->not_before_ns >= e->not_before_ns)
			break;
		heap_place(s, at, s->heap[child]);
		at = child;
	}
	heap_place(s, at, e);
}

static int
heap_push(struct sched *s, struct sched_entry *e)
{
	if (s->heap_count == s->heap_cap) {
		size_t cap = s->heap_cap ? s->heap_cap * 2 : 64;
		struct sched_entry **heap = realloc(s->heap, cap * sizeof *heap);

		if (!heap)
			return -1;
		s->heap = heap;
		s->heap_cap = cap;
	}
	heap_up(s, s->heap_count++, e);
	return 0;
}

static void
heap_remove(struct sched *s, struct sched_entry *e)
{
	size_t at = e->heap_index;
	struct sched_entry *last = s->heap[--s->heap_count];

	e->heap_index = NOT_IN_HEAP;
	if (last == e)
		return;
	if (at > 0 && s->heap[(at - 1) / 2]->not_before_ns > last->not_before_ns)
		heap_up(s, at, last);
	else
		heap_down(s, at, last);
}

/* ---- entries ---- */

static void
queue_append(struct sched *s, struct sched_entry *e)
{
	struct sched_function *f = e->function;

	e->next = NULL;
	if (f->tail)
		f->tail->next = e;
	else
		f->head = e;
	f->tail = e;
	sched_ring_append(s, f);
}

static void
queue_prepend(struct sched *s, struct sched_entry *e)
{
	struct sched_function *f = e->function;

	e->next = f->head;
	f->head = e;
	if (!f->tail)
		f->tail = e;
	sched_ring_append(s, f);
}

static void
queue_remove(struct sched_entry *e)
{
	struct sched_function *f = e->function;
	struct sched_entry *before = NULL;

	if (f->head == e) {
		f->head = e->next;
	} else {
		for (before = f->head; before && before->next != e; before = before->next)
			;
		if (!before)
			return;
		before->next = e->next;
	}
	if (f->tail == e)
		f->tail = before;
}

struct sched_entry *
sched_entry(const struct sched *s, const struct id *id)
{
	struct sched_entry *e = s->entries[id_hash(id) & (s->entry_buckets - 1)];

	while (e && !id_equal(&e->id, id))
		e = e->hash_next;
	return e;
}

struct sched_entry *
sched_entry_new(struct sched *s, const struct sched_add *a)
{
	struct sched_function *f = get_function(s, &a->function);
	struct sched_entry *e = f ? calloc(1, sizeof *e) : NULL;
	size_t at;

	if (!e)
		return NULL;
	e->id = a->id;
	e->function = f;
	e->attachment = a->attachment;
	e->version = a->version;
	e->memory_mib = (uint16_t)(a->memory_mib > UINT16_MAX ? UINT16_MAX : a->memory_mib);
	e->attempts = (uint16_t)(a->attempts > UINT16_MAX ? UINT16_MAX : a->attempts);
	e->failures = (uint16_t)(a->failures > UINT16_MAX ? UINT16_MAX : a->failures);
	e->kind = (uint8_t)a->kind;
	e->type = (uint8_t)a->type;
	e->not_before_ns = a->not_before_ns;
	e->heap_index = NOT_IN_HEAP;
	grow_entries(s);
	at = id_hash(&e->id) & (s->entry_buckets - 1);
	e->hash_next = s->entries[at];
	s->entries[at] = e;
	s->entry_count++;
	return e;
}

/* Memory too short for the heap: in line. */
void
sched_enqueue(struct sched *s, struct sched_entry *e, bool first)
{
	e->function->queued++;
	if (e->not_before_ns && heap_push(s, e) == 0)
		return;
	if (first)
		queue_prepend(s, e);
	else
		queue_append(s, e);
}

int
sched_add(struct sched *s, const struct sched_add *a)
{
	struct sched_entry *e;

	if (sched_entry(s, &a->id))
		return 0;
	e = sched_entry_new(s, a);
	if (!e)
		return -1;
	sched_enqueue(s, e, false);
	return 1;
}

void
sched_entry_delete(struct sched *s, struct sched_entry *e)
{
	struct sched_entry **p = &s->entries[id_hash(&e->id) & (s->entry_buckets - 1)];

	while (*p != e)
		p = &(*p)->hash_next;
	*p = e->hash_next;
	s->entry_count--;
	free(e);
}

void
sched_dequeue(struct sched *s, struct sched_entry *e)
{
	if (e->heap_index != NOT_IN_HEAP)
		heap_remove(s, e);
	else
		queue_remove(e);
	e->function->queued--;
	if (e->function->head) { /* another one is first now, and may be able to go on */
		sched_ring_append(s, e->function);
	} else {
		e->function->passed_ns = 0;
		if (s->starving == e->function)
			s->starving = NULL;
	}
}

void
sched_forget(struct sched *s, struct sched_entry *e)
{
	if (e->job)
		return;
	sched_dequeue(s, e);
	sched_entry_delete(s, e);
}

void
sched_ripen(struct sched *s, uint64_t now)
{
	while (s->heap_count && s->heap[0]->not_before_ns <= now) {
		struct sched_entry *e = s->heap[0];

		heap_remove(s, e);
		e->not_before_ns = 0;
		queue_append(s, e);
	}
}
