/*
 * Which sandboxes a spawner makes ahead: a rule, a pure function of what was asked for lately and
 * of what there is.  It knows a root by what it is made of and nothing of how one is made.
 *
 * Some are made without a root, for any event.  A root that is asked for again within AHEAD_HALF_S
 * is wanted for the next AHEAD_AGE_MAX_S: sandboxes are made ahead with it.  (Older requests count
 * less, half as much for each AHEAD_HALF_S.)  The places for those are dealt out in proportion to
 * what roots were asked for, one at a time to who has the fewest for it (D'Hondt's way), and one
 * that is there gives way to another root only if that gains twice what is lost: functions that
 * are called in turn do not push each other out.
 *
 * Times are clock_mono_ns.
 */
#ifndef PRATAI_SANDBOX_AHEAD_H
#define PRATAI_SANDBOX_AHEAD_H

#include <stdint.h>

#include "sandbox/spawner.h"
#include "sandbox/wire.h"

enum {
	AHEAD_ROOTS_MAX = 32,  /* that are remembered */
	AHEAD_HALF_S = 30,
	AHEAD_AGE_MAX_S = 60,  /* and none with a root gets older */
};
/* All that decides what a root is made of and how, but the range of ids.  No padding: compared
 * byte by byte. */
struct ahead_root {
	uint64_t tmp_bytes;
	uint32_t layer_count, image_count; /* 0: the host image */
	uint8_t layers[SPAWN_LAYERS_MAX][32], image[SPAWN_IMAGE_MAX][32]; /* after the last: 0 */
	char runtime[WIRE_NAME_MAX];          /* after its end: 0 */
};

void ahead_root_of(struct ahead_root *root, const struct wire_request *r);

struct ahead {
	struct ahead_known {
		struct ahead_root root;
		double asked; /* at asked_ns; 0: the entry is free */
		uint64_t asked_ns, not_before_ns;
	} known[AHEAD_ROOTS_MAX];
};

/* It was asked for. */
void ahead_asked(struct ahead *a, const struct ahead_root *root, uint64_t now_ns);
/* It could not be made, or is not what it was: forgotten, and not made for a second. */
void ahead_failed(struct ahead *a, const struct ahead_root *root, uint64_t now_ns);

/* One that is held: root NULL: without; made_ns: when. */
struct ahead_held {
	const struct ahead_root *root;
	uint64_t made_ns;
};

enum ahead_what { AHEAD_NOTHING, AHEAD_MAKE, AHEAD_END };
struct ahead_choice {
	enum ahead_what what;
	const struct ahead_root *root; /* MAKE: with that; NULL: without */
	unsigned index;                /* END: of held */
};

/*
 * The next thing to do, of several; to be asked again when it was done.  Of most places, half is
 * for those without a root, a quarter where roots want the rest, and one root has half at most.
 */
struct ahead_choice ahead_next(const struct ahead *a, const struct ahead_held *held,
			       unsigned count, unsigned most, uint64_t now_ns);

/* Which of held serves root: the oldest with the very same that is not too old, else the oldest
 * without; -1. */
int ahead_take(const struct ahead_held *held, unsigned count, const struct ahead_root *root,
	       uint64_t now_ns);

/* When one of held is to be ended for its age; UINT64_MAX: never. */
uint64_t ahead_until_ns(const struct ahead_held *held, unsigned count);

#endif
