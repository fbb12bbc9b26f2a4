/*
 * Control groups: one interface over v2 (unified) and v1 or hybrid hosts.
 *
 * A manager knows one instance's root, `<own cgroup>/pratai-<instance>`; a group is one
 * sandbox's, used once and removed.  A limit that is asked for and cannot be enforced
 * is an error, never a silent run without it.  Nothing is moved through cgroup.procs
 * for a sandbox: the new process is born in its group (v2) or writes itself into it
 * (v1), see cgroup_place.
 */
#ifndef PRATAI_CGROUP_H
#define PRATAI_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

struct err;
struct cgroup_manager;
struct cgroup;

enum { CGROUP_TASKS_MAX = 8 };

struct cgroup_limits {
	uint64_t memory_bytes; /* 0: no limit; swap is always off */
	uint32_t pids;         /* 0: no limit */
	uint32_t cpu_millis;   /* 1000 = one cpu; 0: no limit */
};

struct cgroup_usage {
	uint64_t memory_peak_bytes; /* 0: this host cannot tell */
	uint64_t cpu_ns;
	uint32_t pids_peak;       /* 0: this kernel cannot tell */
	uint32_t pids_limit_hits; /* forks refused */
	uint32_t oom_kills;       /* processes that the memory limit killed */
};

/* How a new process gets into its group. */
struct cgroup_place {
	int into_fd; /* v2: for clone3's CLONE_INTO_CGROUP; -1: not v2 */
	int tasks[CGROUP_TASKS_MAX]; /* v1 (and hybrid): write "0" to each, in order */
	unsigned task_count;
};

/*
 * Finds what the host has and makes the instance's root.  parent: the group below which
 * to work, as a path below the mount points, or NULL for the caller's own.  need: the
 * limits that will be asked for (non-zero members), so that a missing controller is
 * said now.
 */
struct cgroup_manager *cgroup_manager_new(const char *instance, const char *parent,
					  const struct cgroup_limits *need, struct err *e);
/* Removes the root if it is empty, frees all. */
void cgroup_manager_free(struct cgroup_manager *m);
/* "v2", "hybrid" or "v1". */
const char *cgroup_manager_kind(const struct cgroup_manager *m);

/* Kills and removes every group of this instance; waits at most 2 s.  The number removed, or -1. */
int cgroup_sweep(struct cgroup_manager *m, struct err *e);

/* A new group without limits, for later; name is unique, [a-z0-9.-]{1,40}. */
struct cgroup *cgroup_create(struct cgroup_manager *m, const char *name, struct err *e);
/* Writes the limits and reads them back.  Once, before a process is in it. */
int cgroup_limit(struct cgroup *g, const struct cgroup_limits *limits, struct err *e);
void cgroup_place(const struct cgroup *g, struct cgroup_place *out);

/*
 * A descriptor that becomes readable (POLLIN or POLLPRI: see events) when memory ran
 * out in the group; -1: none (no memory limit).  cgroup_oom tells whether it really
 * did, and clears the condition.
 */
int cgroup_oom_fd(const struct cgroup *g, short *events);
bool cgroup_oom(struct cgroup *g);

/* Ends all processes in it, now: CPU quota lifted, then killed.  May be called again. */
int cgroup_kill(struct cgroup *g, struct err *e);
/* 1: processes (or unreaped ones) are in it; 0: none; -1: error. */
int cgroup_populated(struct cgroup *g, struct err *e);
/* Changes (POLLPRI) when populated changes; -1: poll by time. */
int cgroup_populated_fd(const struct cgroup *g);

int cgroup_usage(struct cgroup *g, struct cgroup_usage *out, struct err *e);

/* Removes it and frees g: 0.  ERR_AGAIN: still busy, g stays; try again soon. */
int cgroup_remove(struct cgroup *g, struct err *e);

#endif
