/*
 * The spawner's process: what spawner.c (which executes it), spawner_main.c (its program),
 * spawner_setup.c (which makes it small) and spawner_loop.c (its life) share.
 */
#ifndef PRATAI_SANDBOX_SPAWNER_PROCESS_H
#define PRATAI_SANDBOX_SPAWNER_PROCESS_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "sandbox/build_env.h"
#include "sandbox/cgroup.h"
#include "sandbox/netpool.h"
#include "sandbox/spawner.h"

struct err;

/* The descriptors it starts with, beside 0 to 2. */
enum {
	SPAWNER_FD_DRIVER = 3, /* its end of the socket, non-blocking */
	SPAWNER_FD_READY,      /* takes one struct err: class NONE, or why it cannot start */
	SPAWNER_FD_STORE,      /* the layer store, a detached mount */
	SPAWNER_FD_NETNS,      /* the machine's network namespace; only if it is for any sandbox */
	SPAWNER_FD_BOOT,       /* a struct spawner_boot to read */
	SPAWNER_FD_END,
};

enum { SPAWNER_BOOT_MAGIC = 0x50725331 }; /* of programs built together */

struct spawner_boot {
	uint32_t magic, uid_base, slots, image_ids, build_network, egress;
	uint64_t memory_max_bytes, tmp_max_bytes;
	struct net_rules allow;
	char instance[CGROUP_INSTANCE_MAX];
	char runtimes[PATH_MAX], cgroup_root[PATH_MAX]; /* cgroup_root "": the caller's own */
};

struct spawner_inside {
	const struct spawner_boot *boot;
	/* Of the setup: */
	int host_netns; /* the machine's, where egress leads to; -1: there is none */
	int own_netns;  /* the spawner's: empty */
	int store;      /* the layer store, a directory in our root */
	int runtimes;
	struct cgroup_manager *cgroups;
	struct build_env build;
	struct netpool nets;
	int addresses; /* hears when an address of the machine comes or goes; -1 without egress */
};

/* All three limits will be asked for; the numbers do not matter. */
static inline struct cgroup_manager *
spawner_cgroups(const char *instance, const char *parent, struct err *e)
{
	static const struct cgroup_limits need = { .memory_bytes = 1 << 20, .pids = 1,
						   .cpu_millis = 1000 };

	return cgroup_manager_new(instance, parent, &need, e);
}

/* The spawner's life.  Gives the exit status. */
int spawner_process(struct spawner_inside *in);

/* Descriptors, cgroups, mounts, powers: in that order.  0 or -1. */
int spawner_setup(struct spawner_inside *in, struct err *e);

/* Until the driver is gone or has sent nonsense. */
void spawner_loop(struct spawner_inside *in);

#endif
