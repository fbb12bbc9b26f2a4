/*
 * What cgroup.c and its two drivers share; nobody else includes this.
 *
 * A tree is one mounted hierarchy that we use: v1 hierarchies hold one or more
 * controllers each, the v2 one holds those that no v1 hierarchy took (all of them on a
 * unified host, none on the usual hybrid one).  Each controller belongs to exactly one
 * tree, and the tree's driver knows the names of its files.  So every mixture works, and
 * "v1", "hybrid" and "v2" are only names for what was found.
 */
#ifndef PRATAI_CGROUP_DRIVER_H
#define PRATAI_CGROUP_DRIVER_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sandbox/cgroup.h"

enum cgroup_controller {
	CGROUP_MEMORY = 1,
	CGROUP_PIDS = 2,
	CGROUP_CPU = 4,
	CGROUP_CPUACCT = 8, /* v1 only: v2 counts CPU time without a controller */
	CGROUP_LIMITED = CGROUP_MEMORY | CGROUP_PIDS | CGROUP_CPU,
};

enum {
	CGROUP_CONTROLLERS = 4,
	CGROUP_TREES_MAX = CGROUP_CONTROLLERS + 1,
	CGROUP_FILE_MAX = 2048, /* bytes of a control file that we read */
	CGROUP_PERIOD_US = 100000, /* of CPU quotas */
};

struct cgroup_driver;

struct cgroup_tree {
	const struct cgroup_driver *driver;
	unsigned controllers; /* those that groups here have */
	int base;             /* directory: the group below which we work */
	int root;             /* directory: base/pratai-<instance>, or base when flat */
	char path[PATH_MAX];  /* of base, for errors and nothing else */
};

struct cgroup_manager {
	struct cgroup_tree trees[CGROUP_TREES_MAX];
	unsigned tree_count;
	int unified;           /* index of the v2 tree, or -1 */
	int lock;              /* on the first tree's root; -1: instance "run" */
	bool flat;             /* instance "run": groups stand in base */
	bool can_kill;         /* v2: cgroup.kill */
	bool has_memory_peak;  /* v2: memory.peak */
	bool has_pids_peak;
	struct cgroup_limits need;
	char instance[CGROUP_INSTANCE_MAX];
};

/* At the same place as m (which on v2 depends on what m needs), in every tree that limits can
 * be in.  Instance "run". */
struct cgroup_manager *cgroup_manager_everywhere(const struct cgroup_manager *m, struct err *e);

/* "pratai-run-…": a group's directory in a tree's root. */
enum { CGROUP_DIR_MAX = CGROUP_NAME_MAX + 8 };

/*
 * A child of the instance's root in the tree of the cpu controller, without a process but
 * with a quota.  The kernel patches its own code when the first quota of the machine is
 * set and when the last one goes; that took 130 and 100 µs of an event, with this one in
 * place 10 and 2.  No group's name can begin with '_'.
 */
#define CGROUP_KEEPER "_quota"

/*
 * Files of a group that are kept open.  The first open of a file in a new group makes the
 * kernel's inode for it, 10 µs each; so cgroup_create opens those that the manager's needs
 * name, and the event's path only writes and reads.
 */
enum cgroup_slot {
	/* until cgroup_placed */
	SLOT_MEMORY, /* the limit */
	SLOT_SWAP,
	SLOT_TCP,
	SLOT_PIDS,
	SLOT_CPU,
	SLOT_WRITTEN, /* the number of those */
	/* until the end */
	SLOT_MEMORY_PEAK = SLOT_WRITTEN,
	SLOT_CPU_TIME,
	SLOT_PIDS_EVENTS,
	SLOT_PIDS_PEAK,
	SLOT_COUNT
};

struct cgroup {
	struct cgroup_manager *m;
	unsigned trees; /* it is made in so many of the manager's */
	char dir[CGROUP_DIR_MAX];
	int into;        /* v2: the directory */
	int events;      /* v2: cgroup.events */
	int tasks[CGROUP_TREES_MAX];
	int slot[SLOT_COUNT]; /* -1: not open (yet) */
	int oom;         /* v1: an eventfd; v2: memory.events */
	int oom_control; /* v1: memory.oom_control */
	bool quota;      /* a CPU quota is set */
	bool memory_guarded; /* v2: swap off, whole group killed */
	bool oom_signalled;
	bool oom_real;
	uint64_t memory_limit; /* bytes; 0: none */
	uint64_t peak_seen;
};

struct cgroup_driver {
	bool v2;
	/* Makes children of tree's base able to have controllers (want: may; need: must). */
	int (*prepare)(struct cgroup_manager *m, struct cgroup_tree *t, unsigned want,
		       unsigned need, struct err *e);
	/* Opens what a group needs in this tree, its directory exists.  prepared: the
	 * controllers that limits will be asked for. */
	int (*open)(struct cgroup *g, unsigned tree, unsigned prepared, struct err *e);
	/* Writes the limits of this tree's controllers. */
	int (*limit)(struct cgroup *g, const struct cgroup_tree *t,
		     const struct cgroup_limits *l, struct err *e);
	int (*lift_quota)(struct cgroup *g, const struct cgroup_tree *t, struct err *e);
	int (*watch_oom)(struct cgroup *g, const struct cgroup_tree *t, struct err *e);
	bool (*oom)(struct cgroup *g, const struct cgroup_tree *t);
	/* Adds what this tree's controllers know. */
	int (*usage)(struct cgroup *g, const struct cgroup_tree *t, struct cgroup_usage *u,
		     struct err *e);
	int (*kill)(struct cgroup *g, const struct cgroup_tree *t, struct err *e);
	int (*populated)(struct cgroup *g, const struct cgroup_tree *t, struct err *e);
};

extern const struct cgroup_driver cgroup_v1_driver;
extern const struct cgroup_driver cgroup_v2_driver;

/* ---- cgroup_host.c: what is mounted, and where we are in it ---- */

struct cgroup_host {
	struct {
		bool v2;
		unsigned controllers;      /* v1: of the mount */
		char mount[PATH_MAX];      /* where */
		char root[PATH_MAX];       /* what part of the hierarchy is seen there */
		char own[PATH_MAX];        /* the caller's group in the hierarchy; "": unknown */
	} at[CGROUP_TREES_MAX];
	unsigned count;
};

int cgroup_host_read(struct cgroup_host *h, struct err *e);
/* The caller's group (or parent, when not NULL) as a path from the top of mount i, "" for
 * the top itself, else "/a/b". */
int cgroup_host_path(const struct cgroup_host *h, unsigned i, const char *parent,
		     char out[PATH_MAX], struct err *e);

/* ---- cgroup_file.c: control files ---- */

/* Names of controllers, for errors: "memory", ... */
const char *cgroup_controller_name(unsigned controller);

/* group NULL or "": files of the directory itself.  0, or -1 with errno. */
int cgroup_write(int dir, const char *group, const char *file, const char *text);
/* A descriptor; flags as for open, close-on-exec is added. */
int cgroup_open(int dir, const char *group, const char *file, int flags);
/* The bytes read, ended by NUL in buf; -1 with errno. */
int cgroup_read(int dir, const char *group, const char *file, char buf[CGROUP_FILE_MAX]);
/* The same from an open file, from its start. */
int cgroup_reread(int fd, char buf[CGROUP_FILE_MAX]);
/* A number; "max" is UINT64_MAX. */
int cgroup_read_u64(int dir, const char *group, const char *file, uint64_t *value);
/* "key value" lines: the value, or missing. */
uint64_t cgroup_key(const char *text, const char *key, uint64_t missing);
/* Whether one of the words of text (separated by spaces) is word. */
bool cgroup_word(const char *text, const char *word);

/* The descriptor of slot, opened now if it is not; -1 with errno. */
int cgroup_slot(struct cgroup *g, const struct cgroup_tree *t, enum cgroup_slot slot,
		const char *file);
/* Writes value to slot's file, reads it back, and errs (ERR_NODE) if the kernel holds
 * another.  _text: the same for what is not a number. */
int cgroup_set(struct cgroup *g, const struct cgroup_tree *t, enum cgroup_slot slot,
	       const char *file, uint64_t value, struct err *e);
int cgroup_set_text(struct cgroup *g, const struct cgroup_tree *t, enum cgroup_slot slot,
		    const char *file, const char *text, struct err *e);
/* Reads slot's file: the bytes, or -1 with errno. */
int cgroup_get(struct cgroup *g, const struct cgroup_tree *t, enum cgroup_slot slot,
	       const char *file, char buf[CGROUP_FILE_MAX]);
int cgroup_get_u64(struct cgroup *g, const struct cgroup_tree *t, enum cgroup_slot slot,
		   const char *file, uint64_t *value);
/* What both kinds of tree have: the counters of the pids controller. */
void cgroup_get_pids(struct cgroup *g, const struct cgroup_tree *t, struct cgroup_usage *u);

/*
 * SIGKILL to each process that file (cgroup.procs) lists.  A pidfd is opened for each,
 * then the list is read again: only who is in both is killed, so a number that was
 * reused between can hit nobody else.  The number killed, or -1 with errno.
 */
int cgroup_kill_listed(int dir, const char *group);

/* Whether the machine swaps at all. */
bool cgroup_host_swaps(void);

/* The quota per period, both in microseconds, that millis thousandths of a CPU are. */
void cgroup_cpu_quota(uint32_t millis, uint64_t *quota_us, uint64_t *period_us);

/* ---- cgroup_base.c, cgroup_v2.c: who gives controllers on v2 ---- */

/* Opens t->base and sets t->path: the place in mount i below which our groups stand,
 * giving the controllers of need (and those of want that it can). */
int cgroup_v2_base(const struct cgroup_host *h, unsigned i, const char *parent,
		   struct cgroup_tree *t, unsigned want, unsigned need, struct err *e);
/* Makes dir (called path in errors) give controllers to its children; *given: those of
 * want that it now does.  An error when one of need is missing; errnum is EBUSY when
 * processes are in the way. */
int cgroup_v2_give(int dir, const char *path, unsigned want, unsigned need, unsigned *given,
		   struct err *e);

#endif
