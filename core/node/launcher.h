/*
 * The spawner on the loop: requests out, as its socket takes them; results back to whoever
 * asked.
 */
#ifndef PRATAI_NODE_LAUNCHER_H
#define PRATAI_NODE_LAUNCHER_H

#include "sandbox/spawner.h"

struct err;
struct launch; /* one sandbox that was asked for; freed after its done */
struct launcher;
struct loop;

/* gone: the spawner has ended, and every sandbox with it.  Nothing is called after it. */
typedef void (*launcher_gone_fn)(void *arg);

/* s stays the caller's and outlives the launcher. */
struct launcher *launcher_new(struct loop *l, struct spawner *s, launcher_gone_fn gone, void *arg,
			      struct err *e);
void launcher_free(struct launcher *l); /* launches that are under way get no done */

struct launch_fns {
	void (*sent)(void *arg); /* the request's descriptors may be closed now */
	void (*done)(void *arg, const struct spawn_result *r);
};

/*
 * Asks for a sandbox.  What r points to stays valid until sent; r->tag is set here.  Neither
 * function is called before this returns.  NULL: the request is not one (ERR_INPUT), or the
 * node fails.
 */
struct launch *launcher_start(struct launcher *l, const struct spawn_request *r,
			      const struct launch_fns *fns, void *arg, struct err *e);

/* Ends it soon; done still comes. */
void launch_kill(struct launch *launch, enum spawn_kill why);

#endif
