/*
 * The sandboxes that the spawner holds: made ahead by the rule of ahead.h, each taken by one
 * request or ended unused.
 *
 * One with a root is right for a request only while the request's layers, looked up by their
 * paths now, are the directories that the root is made of.  Those are compared by device and
 * inode, which no other directory can have while a mount of ours keeps them from being reused.
 */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/log.h"
#include "core/base/probe.h"
#include "sandbox/spawner_state.h"
#include "sandbox/tree.h"

#define HOLD_AGAIN_NS (1ull * NS_PER_S)
#define HOLD_SOON_NS (10ull * NS_PER_MS)

/* The most that are held at once: of a small node fewer. */
static unsigned
most(const struct spawner_state *s)
{
	unsigned slots = s->in->boot->slots;

	return 2 * slots < SPAWN_HELD_MAX ? 2 * slots : SPAWN_HELD_MAX;
}

static unsigned
list(const struct spawner_state *s, struct ahead_held out[SPAWN_HELD_MAX])
{
	for (unsigned i = 0; i < s->held_count; i++)
		out[i] = (struct ahead_held){
			.root = s->held[i].has_root ? &s->held[i].root : NULL,
			.made_ns = s->held[i].made_ns,
		};
	return s->held_count;
}

/* Opens a layer and notes what it is.  A descriptor or -1. */
static int
open_layer(const struct sandbox_tree *layer, struct spawner_layer *is)
{
	CLEAN_FD int fd = tree_open(layer);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return -1;
	*is = (struct spawner_layer){ .dev = st.st_dev, .ino = st.st_ino };
	return fd_steal(&fd);
}

static bool
is_current(struct spawner_state *s, const struct spawner_held *h)
{
	struct sandbox_spec spec = { .layer_count = 0 };

	spawner_fill_layers(s, &h->root, &spec);
	for (unsigned i = 0; i < spec.layer_count; i++) {
		struct spawner_layer now;
		CLEAN_FD int fd = open_layer(&spec.layers[i], &now);

		if (fd < 0 || now.dev != h->layers[i].dev || now.ino != h->layers[i].ino)
			return false;
	}
	return true;
}

static void
remove_at(struct spawner_state *s, unsigned at)
{
	s->held[at] = s->held[--s->held_count];
}

/* What it was made with cannot be had, for the time being. */
static void
blame(struct spawner_state *s, const struct spawner_held *h)
{
	uint64_t now = clock_mono_ns();

	if (h->has_root)
		ahead_failed(&s->ahead, &h->root, now);
	else
		s->hold_again_ns = now + HOLD_AGAIN_NS;
}

/* Ended unused.  Its slot is free when it is gone. */
static void
retire(struct spawner_state *s, unsigned at)
{
	unsigned slot = s->held[at].slot;

	remove_at(s, at);
	s->retiring++;
	spawner_end_slot(s, slot, SANDBOX_CANCELLED);
}

int
spawner_take_held(struct spawner_state *s, const struct wire_request *r,
		  const struct ahead_root *root)
{
	if (r->network != SPAWN_NET_NONE)
		return -1;
	for (;;) {
		struct ahead_held held[SPAWN_HELD_MAX];
		int at = ahead_take(held, list(s, held), root, clock_mono_ns());
		struct spawner_held *h = &s->held[at < 0 ? 0 : at];
		unsigned slot = h->slot;

		if (at < 0)
			return -1;
		if (s->slots[slot].sandbox.state == SANDBOX_HELD && (!h->has_root || is_current(s, h))) {
			remove_at(s, (unsigned)at);
			return (int)slot;
		}
		/* It is dying, or not what it was; then all with that root are ended in turn. */
		blame(s, h);
		retire(s, (unsigned)at);
	}
}

/*
 * If it happens to all, there is no hurry: each event gets one that is made for it, and says
 * what is wrong.
 */
void
spawner_lost_held(struct spawner_state *s, unsigned slot)
{
	const struct err *why = &s->slots[slot].sandbox.outcome.error;

	for (unsigned i = 0; i < s->held_count; i++) {
		if (s->held[i].slot != slot)
			continue;
		if (!s->ending)
			log_warning("a sandbox made ahead died", "step", why->step, "reason", why->text, NULL);
		blame(s, &s->held[i]);
		remove_at(s, i);
		return;
	}
	s->retiring--; /* as it was told */
}

/* The layers are handed over as descriptors of what is noted in h. */
static int
open_root(struct spawner_state *s, struct spawner_held *h, struct sandbox_spec *spec, struct err *e)
{
	spawner_fill_layers(s, &h->root, spec);
	spec->tmp_bytes = h->root.tmp_bytes;
	for (unsigned i = 0; i < spec->layer_count; i++) {
		int fd = open_layer(&spec->layers[i], &h->layers[i]);

		if (fd < 0) {
			err_sys(e, ERR_INPUT, "open %s", spec->layers[i].path);
			spec->layer_count = i;
			return -1;
		}
		spec->layers[i] = (struct sandbox_tree){ .at = fd, .path = "", .ids = spec->layers[i].ids };
	}
	return 0;
}

static int
hold(struct spawner_state *s, unsigned slot, struct spawner_held *h, struct err *e)
{
	struct sandbox_spec spec;
	int rc;

	spawner_fill_common(s, slot, &spec);
	for (int i = 0; i < 3; i++)
		spec.stdio[i] = -1;
	spec.channel = -1;
	spec.netns = netpool_take(&s->in->nets);
	if (spec.netns < 0)
		return err_set(e, ERR_AGAIN, "no network namespace is ready");
	rc = h->has_root ? open_root(s, h, &spec, e) : 0;
	spec.group = rc ? NULL : spawner_take_group(s, e);
	if (spec.group && spec.devices < 0)
		spec.devices = s->devices[s->device_count++] = devices_make(e);
	rc = spec.devices < 0 || !spec.group ? -1 : sandbox_hold(&s->slots[slot].sandbox, &spec, e);
	if (rc && spec.group)
		spawner_discard_group(s, spec.group);
	for (unsigned i = 0; i < spec.layer_count; i++)
		close(spec.layers[i].at);
	spawner_spend(s, &spec);
	return rc;
}

/* root NULL: without. */
static int
make(struct spawner_state *s, const struct ahead_root *root, struct err *e)
{
	unsigned slot = spawner_find_slot(s);
	struct spawner_held *h = &s->held[s->held_count];
	struct live *l = &s->slots[slot];

	*h = (struct spawner_held){ .slot = slot, .has_root = root != NULL, .made_ns = clock_mono_ns() };
	if (root)
		h->root = *root;
	if (hold(s, slot, h, e))
		return -1;
	s->held_count++;
	l->used = l->held = true;
	l->done = false;
	l->generation++;
	l->until_ns = UINT64_MAX;
	spawner_started(s, slot);
	return 0;
}

static bool
make_or_wait(struct spawner_state *s, const struct ahead_root *root)
{
	struct err e = { 0 };

	if (s->held_count + s->retiring >= most(s))
		return false;
	if (make(s, root, &e) == 0)
		return true;
	if (e.cls == ERR_AGAIN) {
		s->hold_again_ns = clock_mono_ns() + HOLD_SOON_NS;
		return false;
	}
	log_err("a sandbox could not be made ahead", &e);
	blame(s, &s->held[s->held_count]);
	return false;
}

bool
spawner_keep_held(struct spawner_state *s)
{
	struct ahead_held held[SPAWN_HELD_MAX];
	uint64_t now = clock_mono_ns();
	struct ahead_choice next;

	if (s->ending || now < s->hold_again_ns || probe_disabled("ahead"))
		return false;
	next = ahead_next(&s->ahead, held, list(s, held), most(s), now);
	if (next.what == AHEAD_END)
		retire(s, next.index);
	return next.what == AHEAD_END || (next.what == AHEAD_MAKE && make_or_wait(s, next.root));
}

uint64_t
spawner_held_until_ns(const struct spawner_state *s)
{
	struct ahead_held held[SPAWN_HELD_MAX];

	return ahead_until_ns(held, list(s, held));
}
