/*
 * The state of the spawner's loop: spawner_loop.c, which runs it, and spawner_request.c,
 * which turns messages into sandboxes.
 */
#ifndef PRATAI_SANDBOX_SPAWNER_STATE_H
#define PRATAI_SANDBOX_SPAWNER_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "sandbox/sandbox.h"
#include "sandbox/spawner_process.h"
#include "sandbox/wire.h"

enum {
	AHEAD_MAX = 4,  /* cgroups and /devs made ahead, each; sandboxes are SPAWN_HELD_MAX */
	TRASH_MAX = 64, /* cgroups to be removed when there is time */
};

struct live {
	bool used, done; /* done: its result is complete */
	bool held;       /* made ahead; no request's yet */
	uint32_t generation; /* tells an old event from a new one */
	uint64_t tag, until_ns;
	struct sandbox sandbox;
	struct wire_result result; /* when done, until it is sent */
};

struct spawner_state {
	struct spawner_inside *in;
	int epoll;
	bool ending, quiet; /* quiet: nothing has happened for a moment */
	struct live *slots; /* boot->slots for requests, and those that are held */
	unsigned slot_count, last_slot, unsent;
	unsigned held_count, request_count; /* used slots of each */
	uint64_t hold_again_ns; /* after one has failed; 0: now */
	struct cgroup *groups[AHEAD_MAX];
	int devices[AHEAD_MAX];
	unsigned group_count, device_count;
	struct cgroup *trash[TRASH_MAX];
	unsigned trash_count;
	uint64_t group_number;
	uint64_t filler_again_ns; /* 0: it runs */
	/* Of the request that is being served; no sandbox keeps a pointer to it. */
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

/* Makes a sandbox for no request yet.  -1: it cannot be (ERR_AGAIN: just now). */
int spawner_hold(struct spawner_state *s, struct err *e);

/* Cgroups: one made ahead, or a new one; NULL on an error. */
struct cgroup *spawner_take_group(struct spawner_state *s, struct err *e);
void spawner_discard_group(struct spawner_state *s, struct cgroup *g);

#endif
