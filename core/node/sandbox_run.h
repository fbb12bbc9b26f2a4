/*
 * One sandbox with its pipes and its channel, as events and builds use it: started, fed,
 * listened to, and over when nothing of it is left and all that it wrote was read.
 */
#ifndef PRATAI_NODE_SANDBOX_RUN_H
#define PRATAI_NODE_SANDBOX_RUN_H

#include <stddef.h>

#include "core/node/channel.h"
#include "core/node/output.h"
#include "sandbox/spawner.h"

struct err;
struct launcher;
struct loop;
struct sandbox_run;

struct sandbox_run_fns {
	void (*output)(void *arg, enum output_stream s, const char *data, size_t len);
	struct channel_fns channel;
	/* Once, last: the sandbox is gone and everything has been read.  The run is freed with
	 * sandbox_run_free here or later. */
	void (*done)(void *arg, const struct spawn_result *r);
};

/*
 * r without stdio, channel and tag; what it points to stays valid until done.  Nothing is
 * called before this returns.
 */
struct sandbox_run *sandbox_run_start(struct loop *l, struct launcher *launcher,
				      const struct spawn_request *r,
				      const struct sandbox_run_fns *fns, void *arg,
				      struct err *e);
void sandbox_run_free(struct sandbox_run *run); /* only before start's turn ends, or from done on */

/* channel_send to it. */
int sandbox_run_send(struct sandbox_run *run, const void *head, size_t head_len,
		     const void *body, size_t body_len, struct err *e);

/* Ends it soon.  Only the first reason counts. */
void sandbox_run_kill(struct sandbox_run *run, enum spawn_kill why);

#endif
