/*
 * The state of the spawner's loop: spawner_loop.c, which runs it, spawner_request.c, which
 * turns messages into sandboxes, and spawner_held.c, which has some made ahead.
 */
#ifndef PRATAI_SANDBOX_SPAWNER_STATE_H
#define PRATAI_SANDBOX_SPAWNER_STATE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "sandbox/ahead.h"
#include "sandbox/sandbox.h"
#include "sandbox/spawner_process.h"
#include "sandbox/wire.h"

enum {
	AHEAD_MAX = 4,  /* cgroups and /devs made ahead, each; sandboxes are SPAWN_HELD_MAX */
	TRASH_MAX = 64, /* cgroups to be removed when there is time */
};

/* A way out made ahead: an uplink, and the network namespace in which it ends. */
struct way {
	struct uplink uplink;
	int ready; /* from the uplink: the namespace, then the word that it is up */
	int netns; /* -1: not yet */
	bool up;
	unsigned slot; /* whose ids it has */
};

struct live {
	bool used, done; /* done: its result is complete */
	bool held;       /* made ahead; no request's (yet) */
	bool kept;       /* not used, and not to be: a way out made ahead has its ids */
	uint32_t generation; /* tells an old event from a new one */
	uint64_t tag, until_ns;
	struct sandbox sandbox;
	struct wire_result result; /* when done, until it is sent */
};

/* A layer as it was found at its path. */
struct spawner_layer {
	dev_t dev;
	ino_t ino;
};

/* A sandbox that may be taken. */
struct spawner_held {
	unsigned slot;
	bool has_root;
	uint64_t made_ns;
	struct ahead_root root;
	struct spawner_layer layers[SANDBOX_LAYERS_MAX];
};

struct spawner_state {
	struct spawner_inside *in;
	int epoll;
	bool ending, quiet; /* quiet: nothing has happened for a moment */
	struct live *slots; /* boot->slots for requests, and those that are held */
	unsigned slot_count, last_slot, unsent;
	unsigned request_count; /* slots that requests use */
	struct ahead ahead;
	struct spawner_held held[SPAWN_HELD_MAX];
	unsigned held_count, retiring; /* retiring: others that are ending unused */
	uint64_t hold_again_ns; /* after one has failed; 0: now */
	struct way ways[SPAWN_WAYS_MAX]; /* the oldest first */
	unsigned way_count;
	bool ways_wanted;      /* egress has been asked for */
	uint64_t way_again_ns; /* after one has failed */
	struct stat resolvers; /* of the file, when the ways were made */
	struct cgroup *groups[AHEAD_MAX];
	int devices[AHEAD_MAX];
	unsigned group_count, device_count;
	struct cgroup *trash[TRASH_MAX];
	unsigned trash_count;
	uint64_t group_number;
	uint64_t filler_again_ns; /* 0: it runs */
	/* Of the request that is being served; no sandbox keeps a pointer to it. */
	struct ahead_root root;
	struct way way; /* netns -1: none was ready for it */
	struct wire_strings strings;
	char text[SPAWN_STRINGS_MAX];
	char paths[SPAWN_LAYERS_MAX + SPAWN_IMAGE_MAX + 1][128], build[BUILD_ENV_BINDS][32];
};

/* 1: a message was served; 0: there is none; -1: the connection is over (e: class NONE when
 * the driver is gone, else what was wrong). */
int spawner_receive(struct spawner_state *s, struct err *e);

/* A slot's sandbox has started, or its result is complete. */
void spawner_started(struct spawner_state *s, unsigned slot);
void spawner_failed(struct spawner_state *s, unsigned slot, const struct err *why);
/* Ends the sandboxes of tag. */
void spawner_end_tag(struct spawner_state *s, uint64_t tag, enum sandbox_reason why);

/* The same of a slot. */
void spawner_end_slot(struct spawner_state *s, unsigned slot, enum sandbox_reason why);

/* A free slot: there is one as long as requests and held ones are within their bounds. */
unsigned spawner_find_slot(struct spawner_state *s);
/* What is the same for every sandbox. */
void spawner_fill_common(const struct spawner_state *s, unsigned slot, struct sandbox_spec *spec);
/* The layers of root and /usr; paths are in s. */
void spawner_fill_layers(struct spawner_state *s, const struct ahead_root *root,
			 struct sandbox_spec *spec);
/* What was made ahead for it, but for the group, is the sandbox's now, or nobody's. */
void spawner_spend(struct spawner_state *s, struct sandbox_spec *spec);

/* The slot of a sandbox made ahead that serves r, whose root is root: the request's now; -1. */
int spawner_take_held(struct spawner_state *s, const struct wire_request *r,
		      const struct ahead_root *root);
/* The held sandbox of slot is gone, of itself or as it was told. */
void spawner_lost_held(struct spawner_state *s, unsigned slot);
/* Makes one ahead, or ends one.  False: there is nothing to be done, or just now it cannot be. */
bool spawner_keep_held(struct spawner_state *s);
/* When one is to be ended; UINT64_MAX. */
uint64_t spawner_held_until_ns(const struct spawner_state *s);

/* Ways out made ahead (spawner_ways.c).  make: false when there is nothing to do.  take: 1, and
 * s->way is for r, in the slot that it names; 0: there is none that serves it. */
bool spawner_way_make(struct spawner_state *s);
int spawner_way_take(struct spawner_state *s, const struct wire_request *r);
void spawner_way_drop(struct spawner_state *s, struct way *w);

/* Cgroups: one made ahead, or a new one; NULL on an error. */
struct cgroup *spawner_take_group(struct spawner_state *s, struct err *e);
void spawner_discard_group(struct spawner_state *s, struct cgroup *g);

#endif
