/*
 * The native driver: jobs become sandboxes of the spawner's.  What is here is for its two
 * kinds of run, events (native_event.c) and builds (core/build/build.c).
 */
#ifndef PRATAI_NODE_NATIVE_H
#define PRATAI_NODE_NATIVE_H

#include <sys/queue.h>

#include "core/node/driver.h"

struct blobs;
struct claim;
struct images;
struct launcher;
struct layers;
struct runtimes;

/* Starts one; the run is freed by its kind.  As driver_ops.start. */
struct native;
typedef struct driver_run *(*native_start_fn)(struct native *n, const struct message *job,
					      const void *payload, size_t len,
					      driver_done_fn done, void *arg, struct err *e);

struct native_config {
	struct loop *loop;
	struct launcher *launcher;
	struct layers *layers;
	struct images *images;
	struct blobs *blobs;
	const struct runtimes *runtimes;
	int tmp_fd;               /* a directory for temporary files; the caller's */
	uint64_t memory_mib;      /* what may be promised to all sandboxes together */
	unsigned slots;           /* sandboxes at once */
	uint64_t build_memory_mib, build_timeout_s;
	native_start_fn build;    /* starts a JOB_BUILD */
};

struct native {
	struct driver driver; /* first: the driver is the native */
	struct native_config c;
	uint64_t memory_mib;  /* promised now */
	unsigned count;
	LIST_HEAD(, driver_run) runs;
	TAILQ_HEAD(, claim) claims; /* core/build/dependencies.c */
};

/* Nothing of config is owned. */
struct driver *native_new(const struct native_config *config, struct err *e);

/* ---- For its kinds of run ---- */

struct run_ops {
	void (*cancel)(struct driver_run *run);
	void (*free)(struct driver_run *run); /* at the driver's end: without done */
};

/* The first member of each kind's own. */
struct driver_run {
	const struct run_ops *ops;
	struct native *native;
	uint64_t memory_mib;
	driver_done_fn done;
	void *arg;
	LIST_ENTRY(driver_run) link;
};

/* Takes a slot and memory for it.  -1: ERR_AGAIN, none is free. */
int native_enter(struct native *n, struct driver_run *run, const struct run_ops *ops,
		 uint64_t memory_mib, driver_done_fn done, void *arg, struct err *e);
/* Gives them back, for a run that ends without done or just before it. */
void native_leave(struct driver_run *run);

struct driver_run *native_event_start(struct native *n, const struct message *job,
				      const void *payload, size_t len, driver_done_fn done,
				      void *arg, struct err *e);

/* True when a sandbox's end is the node's own fault, and the job is to be run elsewhere. */
struct spawn_result;
int native_is_lost(const struct spawn_result *r);

#endif
