/*
 * The plan of a sandbox: the list of steps that makes it, in order, a pure function of
 * what was asked for.  `pratai run --print-plan` prints it, unit tests read it, and
 * launch.c, apply.c and init.c execute it, with a time per step.
 */
#ifndef PRATAI_SANDBOX_PLAN_H
#define PRATAI_SANDBOX_PLAN_H

#include <stdbool.h>
#include <stdio.h>

struct err;
struct sandbox_spec;

/* In the order in which they are executed, but for two that are init's without a prepared
 * namespace (STEP_NETWORK, its first) or without root's powers (STEP_TREES, after
 * STEP_IDENTITY). */
enum step {
	/* the caller */
	STEP_TREES,    /* detached copies of layers and binds */
	STEP_PREMOUNT, /* older kernels: the root is mounted outside of the user namespace */
	STEP_NETWORK,  /* into a network namespace made ahead; an own one */
	STEP_CLONE,    /* the process, in its namespaces */
	STEP_LIMITS,   /* the cgroup's limits, and those of its parts that were not needed yet */
	STEP_MAPS,     /* its ids */
	STEP_DEVICES,  /* a detached /dev */
	STEP_EGRESS,   /* the process that is the sandbox's way out */
	/* the sandbox's init */
	STEP_LOOPBACK, /* lo up */
	STEP_HOSTNAME,
	STEP_JOIN,     /* into the cgroup; cgroup namespace */
	STEP_IDENTITY, /* waits for the ids; becomes uid 0 of them */
	STEP_SCRATCH,  /* the tmpfs that holds all that is written */
	STEP_ROOT,     /* the overlay over the layers */
	STEP_USR,      /* the host's /usr */
	STEP_TMP,      /* /tmp */
	STEP_BIND,     /* each bind */
	STEP_DEV,      /* /dev, /dev/shm */
	STEP_PROC,     /* /proc */
	STEP_MASK,     /* what of /proc is hidden or read-only */
	STEP_CLOCK,    /* the time since boot begins, where the kernel has time namespaces */
	STEP_QUOTAS,   /* no further namespaces; inotify bounded */
	STEP_PIVOT,    /* the new root; the old one goes */
	STEP_UPLINK,   /* waits for the way out */
	STEP_SESSION,  /* session, keyring, resource limits, umask */
	STEP_CAPS,     /* no capability can be gained any more */
	STEP_LANDLOCK, /* the second wall, where the kernel has it */
	STEP_FILTER,   /* system calls; one of its own the command loads just before exec */
	STEP_FORK,     /* the command's process; init drops its capabilities */
	STEP_ORDERS,   /* made ahead: waits for what its event is (the command, too) */
	STEP_ATTACH,   /* made ahead: /dev and /proc into the root */
	/* the command's process */
	STEP_STDIO,    /* 0, 1, 2 (and 3); all others closed */
	STEP_TURN,     /* made ahead: waits for init's root */
	STEP_WORKDIR,
	STEP_USER,     /* uid, gid, no capability */
	STEP_EXEC,
	STEP_COUNT
};

enum step_side { SIDE_CALLER, SIDE_INIT, SIDE_COMMAND };

/* A stable word, as reports and errors print it. */
const char *step_name(enum step s);
const char *step_side_name(enum step_side s);

enum plan_root {
	ROOT_OVERLAY,  /* writable, mounted inside */
	ROOT_PREMOUNT, /* writable, mounted by the caller and moved in */
	ROOT_READONLY, /* no writable overlay: layers, and a tmpfs where one is promised */
};

enum { PLAN_STEPS_MAX = 128 };

struct plan {
	enum plan_root root;
	bool late_root; /* made ahead: after STEP_ORDERS */
	unsigned count;
	struct plan_step {
		enum step step;
		enum step_side side;
		unsigned index; /* of the bind; else 0 */
	} steps[PLAN_STEPS_MAX];
};

/* user_xattr: what probe_has(PROBE_TMPFS_XATTR) says.  ERR_INPUT: spec cannot be. */
int plan_make(struct plan *p, const struct sandbox_spec *spec, bool user_xattr, struct err *e);

/*
 * The plan of one that is made ahead, for sandboxes of root's with a network namespace of their
 * own, without binds, in no filter but the default.  late_root: init does all that it can do
 * without knowing for what, forks the command's process, and both wait at STEP_ORDERS.  Else the
 * root is known, init does all that it has to do, and the command's process alone waits.
 */
void plan_make_ahead(struct plan *p, bool user_xattr, bool late_root);
/* Whether spec can be had from a sandbox of such a plan, and is right: 0; ERR_INPUT. */
int plan_check_ahead(const struct sandbox_spec *spec, struct err *e);

/* One line a step: number, side, step, detail. */
void plan_print(const struct plan *p, const struct sandbox_spec *spec, FILE *out);

#endif
