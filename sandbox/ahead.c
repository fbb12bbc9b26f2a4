#include "sandbox/ahead.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "core/base/clock.h"

#define HALF_NS (AHEAD_HALF_S * NS_PER_S)
#define AGE_MAX_NS (AHEAD_AGE_MAX_S * NS_PER_S)
#define AGAIN_NS (1ull * NS_PER_S)

/* A second time within AHEAD_HALF_S. */
#define ASKED_AGAIN 1.5

void
ahead_root_of(struct ahead_root *root, const struct wire_request *r)
{
	_Static_assert(sizeof *root == 16 + sizeof root->layers + sizeof root->image + WIRE_NAME_MAX,
		       "no padding");

	memset(root, 0, sizeof *root);
	root->tmp_bytes = r->tmp_bytes;
	root->layer_count = r->layer_count;
	root->image_count = r->image_count;
	memcpy(root->layers, r->layers, r->layer_count * sizeof root->layers[0]);
	memcpy(root->image, r->image, r->image_count * sizeof root->image[0]);
	memcpy(root->runtime, r->runtime, strnlen(r->runtime, sizeof r->runtime));
}

static bool
is_same(const struct ahead_root *a, const struct ahead_root *b)
{
	return !memcmp(a, b, sizeof *a);
}

/* How much it is asked for, now. */
static double
asked(const struct ahead_known *k, uint64_t now_ns)
{
	return k->asked * exp2(-(double)(now_ns - k->asked_ns) / (double)HALF_NS);
}

static bool
is_wanted(const struct ahead_known *k, uint64_t now_ns)
{
	return k->asked >= ASKED_AGAIN && now_ns - k->asked_ns < AGE_MAX_NS &&
	       now_ns >= k->not_before_ns;
}

static struct ahead_known *
find(struct ahead *a, const struct ahead_root *root)
{
	for (unsigned i = 0; i < AHEAD_ROOTS_MAX; i++)
		if (a->known[i].asked_ns && is_same(&a->known[i].root, root))
			return &a->known[i];
	return NULL;
}

/* A free entry, or that of the root that is asked for least. */
static struct ahead_known *
take_entry(struct ahead *a, uint64_t now_ns)
{
	struct ahead_known *least = &a->known[0];

	for (unsigned i = 1; i < AHEAD_ROOTS_MAX; i++)
		if (asked(&a->known[i], now_ns) < asked(least, now_ns))
			least = &a->known[i];
	return least;
}

void
ahead_asked(struct ahead *a, const struct ahead_root *root, uint64_t now_ns)
{
	struct ahead_known *k = find(a, root);

	if (!k) {
		k = take_entry(a, now_ns);
		*k = (struct ahead_known){ .root = *root, .asked_ns = now_ns };
	}
	k->asked = asked(k, now_ns) + 1;
	k->asked_ns = now_ns;
}

void
ahead_failed(struct ahead *a, const struct ahead_root *root, uint64_t now_ns)
{
	struct ahead_known *k = find(a, root);

	if (!k)
		return;
	k->asked = 0;
	k->not_before_ns = now_ns + AGAIN_NS;
}

static unsigned
count_of(const struct ahead_held *held, unsigned count, const struct ahead_root *root)
{
	unsigned n = 0;

	for (unsigned i = 0; i < count; i++)
		n += root ? held[i].root && is_same(held[i].root, root) : !held[i].root;
	return n;
}

static const struct ahead_known *
known_of(const struct ahead *a, const struct ahead_root *root)
{
	for (unsigned i = 0; i < AHEAD_ROOTS_MAX; i++)
		if (a->known[i].asked > 0 && is_same(&a->known[i].root, root))
			return &a->known[i];
	return NULL;
}

static bool
is_old(const struct ahead_held *h, uint64_t now_ns)
{
	return now_ns - h->made_ns >= AGE_MAX_NS;
}

static bool
is_over(const struct ahead *a, const struct ahead_held *h, uint64_t now_ns)
{
	const struct ahead_known *k;

	if (!h->root)
		return false;
	k = known_of(a, h->root);
	return !k || !is_wanted(k, now_ns) || is_old(h, now_ns);
}

struct gain {
	const struct ahead_root *root; /* NULL: none */
	double each; /* what is asked for by each of its own, with one more */
};

/* The root that gains most by one more. */
static struct gain
best(const struct ahead *a, const struct ahead_held *held, unsigned count, unsigned of_one_max,
     uint64_t now_ns)
{
	struct gain g = { 0 };

	for (unsigned i = 0; i < AHEAD_ROOTS_MAX; i++) {
		const struct ahead_known *k = &a->known[i];
		unsigned have;
		double each;

		if (!is_wanted(k, now_ns))
			continue;
		have = count_of(held, count, &k->root);
		each = asked(k, now_ns) / (have + 1);
		if (have < of_one_max && each > g.each) {
			g.root = &k->root;
			g.each = each;
		}
	}
	return g;
}

/* Which of held gives way to that; -1: none. */
static int
worst(const struct ahead *a, const struct ahead_held *held, unsigned count, const struct gain *g,
      uint64_t now_ns)
{
	double least = g->each / 2;
	int at = -1;

	for (unsigned i = 0; i < count; i++) {
		double each;

		if (!held[i].root)
			continue;
		each = asked(known_of(a, held[i].root), now_ns) / count_of(held, count, held[i].root);
		if (each <= least) {
			least = each;
			at = (int)i;
		}
	}
	return at;
}

struct ahead_choice
ahead_next(const struct ahead *a, const struct ahead_held *held, unsigned count, unsigned most,
	   uint64_t now_ns)
{
	unsigned plain = count_of(held, count, NULL), plain_least = most / 4, half = (most + 1) / 2;
	struct gain g;
	int at = -1;

	for (unsigned i = 0; i < count; i++)
		if (is_over(a, &held[i], now_ns))
			return (struct ahead_choice){ .what = AHEAD_END, .index = i };
	g = best(a, held, count, half, now_ns);
	if (count < most) {
		bool more = plain < (g.root ? plain_least : half);

		return (struct ahead_choice){ .what = more || g.root ? AHEAD_MAKE : AHEAD_NOTHING,
					      .root = more ? NULL : g.root };
	}
	if (g.root && plain > plain_least)
		at = ahead_take(held, count, NULL, now_ns);
	else if (g.root)
		at = worst(a, held, count, &g, now_ns);
	return (struct ahead_choice){ .what = at < 0 ? AHEAD_NOTHING : AHEAD_END,
				      .index = at < 0 ? 0 : (unsigned)at };
}

int
ahead_take(const struct ahead_held *held, unsigned count, const struct ahead_root *root,
	   uint64_t now_ns)
{
	int at = -1;

	for (unsigned i = 0; i < count; i++) {
		const struct ahead_root *mine = held[i].root;

		if (mine && (!root || !is_same(mine, root) || is_old(&held[i], now_ns)))
			continue;
		if (at < 0 || (mine && !held[at].root) ||
		    (!mine == !held[at].root && held[i].made_ns < held[at].made_ns))
			at = (int)i;
	}
	return at;
}

uint64_t
ahead_until_ns(const struct ahead_held *held, unsigned count)
{
	uint64_t until = UINT64_MAX;

	for (unsigned i = 0; i < count; i++)
		if (held[i].root && held[i].made_ns + AGE_MAX_NS < until)
			until = held[i].made_ns + AGE_MAX_NS;
	return until;
}
