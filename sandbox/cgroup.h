/*
 * Control groups: one interface over v2 (unified) and v1 or hybrid hosts.
 *
 * A manager knows one instance's root, `<own cgroup>/pratai-<instance>`, in each
 * hierarchy that it uses; a group is one sandbox's, used once and removed.  A limit that
 * is asked for and cannot be enforced is an error (ERR_NODE) that names the controller
 * and the file, never a silent run without it.  A limit of 0 needs no controller.
 *
 * Nothing is moved through cgroup.procs for a sandbox: outside a hot loop that waits for
 * an RCU grace period (8-16 ms).  The new process is born in its group (v2) or writes
 * itself into it (v1), see struct cgroup_place.  On a hybrid host each group also has a
 * v2 directory without controllers, for cgroup.kill, `populated` and the CPU time.
 *
 * No call blocks for longer than the kernel takes for a write; only cgroup_sweep waits.
 * One thread; the calls are not async-signal-safe.  All descriptors are close-on-exec.
 *
 * The life of a group:
 *   cgroup_create (ahead of time), cgroup_place, clone, cgroup_limit, cgroup_placed;
 *   poll cgroup_oom_fd; cgroup_kill until cgroup_populated is 0; cgroup_usage;
 *   cgroup_remove until it is not ERR_AGAIN.
 *
 * System calls, hybrid / v2, all three limits: create 23 / 19, limit 10 / 6 (three or five
 * files written and read back), placed 10 / 5, kill 6, usage 5, remove 4 / 1 and what it
 * closes.  Of these only limit, usage and remove are in an event's way when groups are
 * made ahead: 36, 16 and 190 us on a hybrid host (remove is the kernel's rmdir of four
 * directories, which the spawner does after the answer).
 *
 * Page cache that a sandbox was the first to read stays charged to its group, which then
 * lives on in the kernel, without a directory, as long as the pages do (12 KiB each,
 * measured).  It is not reclaimed before removal: memory.force_empty takes 3.3 ms (p99
 * 11 ms) for 64 KiB, because it waits for every CPU, and throws out the very pages that
 * the next sandbox of the same layers wants, which would then leave the next dying group
 * for ever.  Left alone, only the first reader of a page leaves one.  Who reads layers
 * ahead in a group of its own prevents that, too.
 *
 * PRATAI_DISABLE takes "cgroup2" (a hybrid host passes for v1), "cgroup.kill",
 * "memory.peak" and "pids.peak", so that tests can force what older kernels do.
 */
#ifndef PRATAI_CGROUP_H
#define PRATAI_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

struct err;
struct cgroup_manager;
struct cgroup;

enum {
	CGROUP_TASKS_MAX = 8,
	CGROUP_NAME_MAX = 48,     /* a group's name with its NUL */
	CGROUP_INSTANCE_MAX = 17, /* an instance's name with its NUL: [a-z0-9]{1,16} */
	CGROUP_CPU_MILLIS_MAX = 1000 * 1024,
};

/* The instance of `pratai run`; see cgroup_run_name. */
#define CGROUP_INSTANCE_RUN "run"

struct cgroup_limits {
	uint64_t memory_bytes; /* 0: no limit; swap is always off; rounded down to pages */
	uint32_t pids;         /* 0: no limit */
	uint32_t cpu_millis;   /* 1000 = one cpu; 0: no limit */
};

struct cgroup_usage {
	/* 0: this host cannot tell.  Without memory.peak (v2 before Linux 5.19): the most that
	 * was seen at the calls of cgroup_oom, cgroup_kill and cgroup_usage, a lower bound. */
	uint64_t memory_peak_bytes;
	uint64_t cpu_ns;
	uint32_t pids_peak;       /* 0: this kernel cannot tell */
	uint32_t pids_limit_hits; /* forks refused */
	uint32_t oom_kills;       /* processes of the group that the OOM killer killed */
};

/*
 * How a new process gets into its group.  Both may be set (hybrid).  The descriptors
 * stay the group's; a child made by clone has copies of them.
 */
struct cgroup_place {
	int into_fd; /* for clone3's CLONE_INTO_CGROUP; -1: no v2 tree here */
	int tasks[CGROUP_TASKS_MAX]; /* the new process writes "0" to each, in order, while
				      * it has one thread and before it unshares the
				      * cgroup namespace, then closes them; -1: not open
				      * before cgroup_complete */
	unsigned task_count;
};

/*
 * Finds what the host has and makes the instance's root.  An instance (but "run") has one
 * manager at a time: while the process of another one lives, this waits, at most 15 s, then
 * says so.  parent: the group below which
 * to work, as a path below the mount points ("/machine/pratai", made where it is
 * missing), or NULL for the caller's own.  need: the limits that will be asked for
 * (non-zero members), so that a missing controller is said now; NULL: none for sure.
 *
 * v2: controllers can be given to children only by a group that holds no process
 * ("no internal processes"; the real root is exempt).  So, where the caller's own group
 * does not give them yet: when the caller is alone in it, or it was delegated (systemd's
 * Delegate=yes: user.delegate or trusted.delegate on the directory), everything in it
 * moves to the leaf `pratai-supervisor` below it.  A caller found in a leaf of that name
 * (or `supervisor`, systemd's DelegateSubgroup=, in a delegated parent) works below the
 * leaf's parent.  Root beside other people's processes uses the top of the hierarchy
 * instead; anybody else gets an error that says what to do.
 */
struct cgroup_manager *cgroup_manager_new(const char *instance, const char *parent,
					  const struct cgroup_limits *need, struct err *e);
/* Removes the root if it is empty, closes and frees all.  NULL is allowed. */
void cgroup_manager_free(struct cgroup_manager *m);
/* "v2", "hybrid" or "v1". */
const char *cgroup_manager_kind(const struct cgroup_manager *m);

/*
 * Kills and removes every group of this instance; waits at most 2 s.  The number
 * removed, or -1 (some were left).  Of instance "run" only those whose process is gone;
 * those of another pid namespace are left to sweeps from there.
 */
int cgroup_sweep(struct cgroup_manager *m, struct err *e);

/*
 * The name of the calling process's group in the instance "run":
 * run-<pid>-<start time>-<pid namespace>, by which a later sweep knows whose it was.
 * That instance has no root of its own: its groups stand beside each other as
 * `<own cgroup>/pratai-run-…`, which saves two directories per hierarchy and run, and
 * the race between one that removes the root and one that uses it.
 */
int cgroup_run_name(char out[CGROUP_NAME_MAX], struct err *e);

/*
 * A new group without limits, ready for later: the event's path then only writes limits.
 * name is unique, [a-z0-9.-]{1,47}, starts with a letter or digit.  ERR_CONFLICT: exists.
 */
struct cgroup *cgroup_create(struct cgroup_manager *m, const char *name, struct err *e);
/*
 * The same in two parts, for who waits for it: cgroup_begin makes what a process can be born
 * in (v2), cgroup_complete what it has to move into (v1), while that process starts.  A
 * complete group is left as it is.
 */
struct cgroup *cgroup_begin(struct cgroup_manager *m, const char *name, struct err *e);
int cgroup_complete(struct cgroup *g, struct err *e);
/* Writes the limits and reads them back.  Once, before anything runs in it that they are for. */
int cgroup_limit(struct cgroup *g, const struct cgroup_limits *limits, struct err *e);
void cgroup_place(const struct cgroup *g, struct cgroup_place *out);
/* The process is in: closes the descriptors that only cgroup_place needed. */
void cgroup_placed(struct cgroup *g);
/*
 * Where clone3 is missing (a filter around us): a descriptor of cgroup.procs for the new
 * process to write "0" to, slow but right.  The caller closes it.  -1 without a v2 tree
 * (then e is clear) or on an error.
 */
int cgroup_place_slow(const struct cgroup *g, struct err *e);

/*
 * A descriptor that becomes readable (POLLIN or POLLPRI: see events) when memory ran
 * out in the group; -1: none (no memory limit).  cgroup_oom tells whether it really
 * did, at this group's own limit (not an enclosing one's), and clears the condition.
 * Once true, it stays true.  On v1 true comes before the kernel has killed anybody and
 * the caller ends the group (there is no memory.oom.group), which may leave oom_kills at
 * 0; removal signals the descriptor too, so it is of no meaning after cgroup_remove.
 */
int cgroup_oom_fd(const struct cgroup *g, short *events);
bool cgroup_oom(struct cgroup *g);

/*
 * Ends all processes in it, now: CPU quota lifted, then killed.  May be called again,
 * and where the host has no cgroup.kill must be, each 10 ms or so, until populated is 0.
 */
int cgroup_kill(struct cgroup *g, struct err *e);
/* 1: processes (or unreaped ones) are in it; 0: none; -1: error. */
int cgroup_populated(struct cgroup *g, struct err *e);
/*
 * Changes (POLLPRI) when populated changes, after a call of cgroup_populated; -1 (pure
 * v1): poll by time.  The kernel sends one notice in 10 ms at most, so the end of a
 * sandbox that lived shorter is told late: wait for init's pidfd (a pid namespace is empty
 * when its init has been reaped), and for this with a timeout of a millisecond.
 */
int cgroup_populated_fd(const struct cgroup *g);

int cgroup_usage(struct cgroup *g, struct cgroup_usage *out, struct err *e);

/* Nothing will be asked of it any more but its removal: closes its descriptors. */
void cgroup_close(struct cgroup *g);
/* Closes and frees g, and leaves its removal to the next sweep. */
void cgroup_leave(struct cgroup *g);
/* Removes it and frees g: 0.  ERR_AGAIN: still busy, g stays; try again soon.  Another
 * error: g is freed, what could not be removed is left to the next sweep. */
int cgroup_remove(struct cgroup *g, struct err *e);

#endif
