/*
 * Inside the spawner's process: what spawner.c (which forks it), spawner_setup.c (which
 * makes it small) and spawner_loop.c (its life) share.
 */
#ifndef PRATAI_SANDBOX_SPAWNER_PROCESS_H
#define PRATAI_SANDBOX_SPAWNER_PROCESS_H

#include "sandbox/build_env.h"
#include "sandbox/netpool.h"
#include "sandbox/spawner.h"

struct cgroup_manager;
struct err;

struct spawner_inside {
	const struct spawner_config *config;
	int driver;     /* our end of the socket, non-blocking */
	int ready;      /* where the starter waits for a struct err */
	int host_netns; /* the machine's, for builds; -1: no builds with network */
	int store;      /* the layer store: a detached mount, then a directory in our root */

	/* Of the setup: */
	int own_netns;  /* the spawner's: empty */
	int runtimes;
	struct cgroup_manager *cgroups;
	struct build_env build;
	struct netpool nets;
};

/* The spawner's life, in the new process. */
_Noreturn void spawner_process(struct spawner_inside *in);

/* Descriptors, cgroups, mounts, powers: in that order.  0 or -1. */
int spawner_setup(struct spawner_inside *in, struct err *e);

/* Until the driver is gone or has sent nonsense. */
void spawner_loop(struct spawner_inside *in);

#endif
