/*
 * The driver behind a node: how a job becomes a sandbox.  A struct of functions, so that
 * another way to make sandboxes (an OCI runtime) can stand in its place; the native one
 * (native.c) asks the spawner.
 */
#ifndef PRATAI_NODE_DRIVER_H
#define PRATAI_NODE_DRIVER_H

#include <stddef.h>
#include <stdint.h>

#include "core/model/message.h"

struct driver;
struct driver_run;
struct err;
struct loop;

/* What became of a run.  The strings and bytes are valid during the callback. */
struct driver_outcome {
	struct event event;        /* the job's; reason, error, usage, timeline, response set */
	const void *response;
	size_t response_len;
	const char *logs;          /* JSON lines */
	size_t logs_len;
	bool node_lost;            /* the node failed the event: to be run again, not the function's fault */
	/* builds */
	enum version_state version_state;
	char layer_digest[65], dependencies_digest[65];
	uint64_t layer_bytes;      /* of their tars, or zip */
	const char *build_log;     /* or NULL */
	const char *build_reason;  /* why it failed, one sentence, or NULL */
};
typedef void (*driver_done_fn)(void *arg, const struct driver_outcome *o);

struct driver_ops {
	const char *name;
	/* One job; payload is copied or taken over as the driver sees fit.  done is called once,
	 * later, when nothing of the sandbox is left.  NULL: not started (ERR_AGAIN: full;
	 * ERR_FUNCTION, ERR_INPUT: it never can be, and the text says why). */
	struct driver_run *(*start)(struct driver *d, const struct message *job, const void *payload,
				    size_t len, driver_done_fn done, void *arg, struct err *e);
	/* Ends it soon; done still comes. */
	void (*cancel)(struct driver_run *run);
	/* What may still be promised to sandboxes. */
	uint64_t (*memory_free_mib)(const struct driver *d);
	/* Ends all runs without their done. */
	void (*free)(struct driver *d);
};

struct driver {
	const struct driver_ops *ops;
	/* What a build has printed so far, its end, about once a second; arg is that of its start.
	 * Set by who uses the driver; NULL: nobody wants to know. */
	void (*printed)(void *arg, const char *text);
};

#endif
