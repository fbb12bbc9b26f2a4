/*
 * A sandbox: one command, run once, in namespaces, a cgroup and a filter of its own.
 *
 * The caller (`pratai run`, the spawner) fills a struct sandbox_spec, then
 *
 *   sandbox_start     plans (plan.h), makes the process, gives it its ids, lets it go
 *   sandbox_events    what to poll for, and until when
 *   sandbox_step      after each wake-up, whatever woke; until it says DONE
 *   sandbox_release   closes what is left
 *
 * Nothing here blocks but sandbox_start, for as long as the kernel takes to clone.  One
 * caller thread: the child is a copy of the caller's memory and goes on running our code
 * (apply.c, init.c) until it executes the command.
 *
 * Processes: the caller; pid 1 of the sandbox (init: mounts, then no privilege at all,
 * reaps, reports); pid 2, the command.  Init speaks to the caller over one pipe whose
 * records are written whole (below PIPE_BUF).  An end of that pipe without a record of
 * how the command ended means that init died: LOST, unless the caller had ordered it.
 *
 * As root the sandbox owns a range of 65536 host ids from uid_base.  An ordinary user's
 * sandbox (uid_base 0) has one id, the user's own, called uid inside: init and the
 * command then share it, and are kept apart by pid namespace rules and dumpability only.
 */
#ifndef PRATAI_SANDBOX_H
#define PRATAI_SANDBOX_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/base/err.h"
#include "sandbox/cgroup.h"
#include "sandbox/plan.h"
#include "sandbox/uplink.h"

struct cgroup;
struct filter;

enum {
	SANDBOX_LAYERS_MAX = 132, /* an image's 127, a runtime, a function's 4 */
	SANDBOX_BINDS_MAX = 64,
	SANDBOX_IDS = 65536,
	SANDBOX_NOFILE_SOFT = 1024,
	SANDBOX_NOFILE_HARD = 4096,
};

enum sandbox_network {
	SANDBOX_NET_NONE, /* a network namespace of its own: a loopback, nothing else */
	SANDBOX_NET_EGRESS, /* the same with a way out, see egress.h */
	SANDBOX_NET_HOST, /* the caller's */
};

/* A directory or file of the host: path below the directory at (AT_FDCWD: the caller's),
 * where no component may be a link when strict (a path made by somebody less trusted). */
struct sandbox_tree {
	int at;
	const char *path;
	bool strict;
	/* Of a layer: its files belong to SANDBOX_IDS host ids from here on, and the sandbox sees
	 * them as 0 and on.  0: as they are.  Only for root's sandboxes; where the layer's file
	 * system cannot do it, they are nobody's and permissions for others apply. */
	uint32_t ids;
};

struct sandbox_bind {
	struct sandbox_tree source;
	const char *target; /* absolute, in the sandbox; made where the image lacks it */
	bool writable;
};

struct sandbox_spec {
	struct sandbox_tree layers[SANDBOX_LAYERS_MAX]; /* topmost first; never written */
	unsigned layer_count;
	/* A directory that becomes the root's writable side in place of memory: upper/ (empty if there
	 * are binds beside those below /tmp, or a network) and work/, on a file system with user.*
	 * attributes, owned by ids.  Path NULL: none. */
	struct sandbox_tree disk;
	const char *usr; /* the host's directory to be seen, read-only, at /usr; or NULL */
	struct sandbox_bind binds[SANDBOX_BINDS_MAX];
	unsigned bind_count;
	uint64_t tmp_bytes; /* all that can be written: root, /tmp, /dev/shm; 0: the kernel's
			     * default, half of the memory */

	const char *const *argv; /* a name without '/' is searched in the PATH of envp */
	const char *const *envp; /* complete */
	const char *workdir;     /* absolute */
	const char *hostname;
	uid_t uid; /* inside */
	const gid_t *gid; /* inside; NULL: the same number as uid */
	uint64_t caps; /* of the sandbox's own user namespace (1ull << CAP_...), that uid 0 keeps */
	uint32_t uid_base; /* first host id of the range; 0: the caller's own uid only */
	int stdio[3];      /* become 0, 1, 2; -1: /dev/null */
	int channel;       /* becomes 3; -1: none */

	enum sandbox_network network;
	const struct net_rules *allow; /* with SANDBOX_NET_EGRESS: what is near and still allowed */
	const struct egress_names *allow_names; /* the same by name; NULL: none.  Only as root */
	int uplink_netns; /* where the way out leads to; -1: the caller's own */
	const struct filter *filter; /* the command's, in place of the default; or NULL */
	bool watched; /* the filter asks a listener, which comes over go (watch.h) */
	int netns;      /* a namespace made ahead to be used, or -1: make one */
	struct uplink *uplink; /* with egress and netns: what is up in it, the sandbox's from
				* sandbox_start on, whatever comes of that */
	int netns_home; /* the caller's own, to return to; with netns only */
	int devices;    /* a /dev made ahead (devices_make), or -1 */

	struct cgroup *group; /* without limits yet, or NULL: none */
	bool remains_later;   /* When DONE, and after sandbox_release, sb->group (empty) and sb->go,
			       * which holds the mounts, are the owner's to remove and close: the
			       * kernel takes long for both, and nobody need wait. */
	struct cgroup_limits limits;
	uint64_t deadline_ns; /* clock_mono_ns; 0: none */
};

static inline gid_t
sandbox_gid(const struct sandbox_spec *spec)
{
	return spec->gid ? *spec->gid : spec->uid;
}

enum sandbox_reason {
	SANDBOX_EXITED,
	SANDBOX_SIGNALED,
	SANDBOX_TIMEOUT,
	SANDBOX_MEMORY_EXCEEDED,
	SANDBOX_OUTPUT_EXCEEDED,
	SANDBOX_CANCELLED,
	SANDBOX_SETUP_FAILED,
	SANDBOX_NOT_FOUND,      /* the command */
	SANDBOX_NOT_EXECUTABLE, /* the command */
	SANDBOX_LOST,           /* init died, and nobody here ordered it */
	SANDBOX_REASON_COUNT
};
/* "exited", ... as reports print them. */
const char *sandbox_reason_name(enum sandbox_reason r);

struct sandbox_outcome {
	enum sandbox_reason reason;
	int code;         /* exit status, or signal */
	uint64_t wall_ns; /* of the command, from just before exec */
	uint64_t setup_ns; /* from sandbox_start (or _start_held) to just before exec */
	struct cgroup_usage usage;
	uint32_t step_us[STEP_COUNT];
	uint64_t steps_done; /* bit STEP_x: it was run */
	struct err error; /* of SETUP_FAILED, NOT_FOUND, NOT_EXECUTABLE, LOST */
};

enum sandbox_state {
	SANDBOX_HELD,    /* made ahead, waits for what it is for */
	SANDBOX_RUNNING,
	SANDBOX_ENDING, /* killed, or init has reported: waits until all are gone */
	SANDBOX_DONE,
};

struct progress;

/* One running sandbox.  Its owner reads state and outcome; the rest is supervise.c's. */
struct sandbox {
	enum sandbox_state state;
	struct sandbox_outcome outcome; /* complete when DONE */

	pid_t pid;
	int pidfd;   /* -1 after init was reaped */
	int status;  /* records from init; -1 after its end */
	int go;      /* our word to init */
	int word;    /* HELD: that to the command's process; else -1 */
	struct orders *orders; /* made ahead: shared with the child; NULL */
	bool has_root;         /* made ahead: with its root */
	struct uplink uplink;
	struct cgroup *group;
	struct progress *progress; /* shared with the child; NULL after release */
	bool remains_later;
	bool watch_status; /* init's end may be held up (a CPU quota): its word wakes us */
	uint64_t start_ns, deadline_ns;
	uint64_t kill_again_ns; /* when to order the end (again); 0: not */
	bool ordered;           /* we killed it: reason is set */
	bool reported;          /* how the command ended is known */
	bool failed;            /* an error record came */
	bool counted;           /* what the group counted was read: only its removal is left */
};

/*
 * Once per process, before anything is opened for a sandbox: on kernels where the root has
 * to be mounted by the caller (below Linux 6.6, as root) it moves the caller to a mount
 * namespace of its own.  One that has its own already need not call it.
 */
int sandbox_prepare_caller(struct err *e);

/*
 * Starts it.  0: sb runs and sb->group has taken over spec->group.  -1: it could not be
 * made at all; nothing is left but spec->group, which stays the caller's, and *e has the
 * step.  Descriptors of spec stay the caller's and may be closed after this.
 */
int sandbox_start(struct sandbox *sb, const struct sandbox_spec *spec, struct err *e);

/*
 * The same in two halves.  sandbox_hold makes a sandbox that is not for anything yet, with two
 * processes of ours that wait: all of it but its root, or, if spec has layers, with that root.
 * sandbox_start_held then starts it in half the time or less.  It serves once, like any other;
 * nothing of anybody's has been in it before.
 *
 * Of spec hold looks at group (complete), uid_base (not 0), uid, hostname, netns (made ahead),
 * netns_home, devices (made ahead) and remains_later, and start_held at the others, which
 * may not be binds, a filter, or another network.  With layers, hold looks at usr and tmp_bytes,
 * too, and what start_held says of these three is not looked at.  While it is HELD, sandbox_events
 * and sandbox_step go on as for one that runs: its init may die.
 *
 * sandbox_hold: 0; -1 as for sandbox_start.  What fails in start_held is the outcome
 * (SETUP_FAILED).
 */
int sandbox_hold(struct sandbox *sb, const struct sandbox_spec *spec, struct err *e);
void sandbox_start_held(struct sandbox *sb, const struct sandbox_spec *spec);

enum { SANDBOX_POLL_MAX = 5 };
/* Fills p and gives the count; *until_ns: when to step at the latest (UINT64_MAX: never). */
unsigned sandbox_events(const struct sandbox *sb, struct pollfd p[SANDBOX_POLL_MAX],
			uint64_t *until_ns);

/* Moves on as far as it can without waiting.  Gives the state. */
enum sandbox_state sandbox_step(struct sandbox *sb, uint64_t now_ns);

/* Orders the end; the first reason counts.  sandbox_step goes on until DONE. */
void sandbox_kill(struct sandbox *sb, enum sandbox_reason why, uint64_t now_ns);

/* Closes what is open.  Of a sandbox that is not DONE, everything is killed. */
void sandbox_release(struct sandbox *sb);

/*
 * A /dev, detached, ready to be moved into a sandbox: null zero full random urandom tty,
 * the usual links, an empty shm.  Each is used once (a shared one would share locks).
 * Needs CAP_MKNOD in the initial user namespace.  A descriptor, or -1.
 */
int devices_make(struct err *e);

/* Brings the loopback of the caller's network namespace up. */
int loopback_up(struct err *e);

#endif
