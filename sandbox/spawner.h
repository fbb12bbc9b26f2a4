/*
 * The spawner: the small privileged process that makes sandboxes, and nothing else.
 *
 * Single-threaded, pid 1 of a pid namespace of its own (its death ends every sandbox),
 * in a mount namespace with only what sandboxes need, no network library, no access to
 * the driver's memory.  Its one peer is the driver, over a SEQPACKET socketpair, which
 * it takes for an attacker: fixed-size, versioned messages, every number checked against
 * the spawner's own configuration, layers named by digest and opened below the store's
 * directory, never a path, a pid or a uid.  A message that is not well formed ends the
 * connection, and with it the spawner.
 *
 * It is a program of its own, pratai-spawner: spawner_start() executes it while the caller
 * is still root; the rest is what the driver (no powers) uses to talk to it.
 */
#ifndef PRATAI_SPAWNER_H
#define PRATAI_SPAWNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/base/net_rule.h"

struct err;

enum {
	SPAWN_LAYERS_MAX = 4,  /* a function's */
	SPAWN_IMAGE_MAX = 127, /* an image's */
	SPAWN_STRINGS_MAX = 256 << 10, /* bytes of argv and environment together */
	SPAWN_LIVE_MAX = 1024,
	SPAWN_HELD_MAX = 8, /* made ahead, with ranges of ids of their own */
	SPAWN_WAYS_MAX = 4, /* ways out (network egress) made ahead, with the same */
	SPAWN_SPARE_MAX = SPAWN_HELD_MAX + SPAWN_WAYS_MAX,
};

struct spawner_config {
	int store_fd;          /* the layer store: <store>/layers/sha256/<hex>/ are layers, those
				* of images <store>/images/layers/<hex>/, and <store>/host/root,
				* made by the caller (host_prepare), is the host image's root */
	uint32_t image_ids;    /* the first of the 65536 host ids to which images' files belong */
	const char *runtimes;  /* directory of runtimes/<name>/layer, put above the image */
	const char *instance;  /* [a-z0-9]{1,16}: names the cgroups; swept at start and end */
	const char *cgroup_root; /* NULL: below the cgroup of the caller */
	uid_t uid_base;        /* of slots + SPAWN_SPARE_MAX ranges of 65536 ids each */
	unsigned slots;        /* the most sandboxes alive at once, <= SPAWN_LIVE_MAX */
	uint64_t memory_max_bytes, tmp_max_bytes; /* the most that one sandbox may ask for */
	bool build_network;    /* builds may reach the Internet and the operator's index */
	bool egress;           /* functions may reach the Internet */
	const struct net_rules *allow; /* what is near and a function may be allowed; NULL: nothing */
	const char *program;   /* pratai-spawner; NULL: beside this program */
};

struct spawner {
	int fd;    /* the driver's end, non-blocking, close-on-exec */
	pid_t pid; /* for the parent to wait on; the driver may not signal it */
	int pidfd;
};

/*
 * Starts the spawner.  Call as root, single-threaded, before privileges are dropped.
 * It has swept what an earlier one of this instance left, probed what the kernel can
 * do, and is ready when this returns 0.
 */
int spawner_start(const struct spawner_config *config, struct spawner *out, struct err *e);

/* BUILD is EGRESS with the operator's settings of pip and what they name. */
enum spawn_network { SPAWN_NET_NONE, SPAWN_NET_EGRESS, SPAWN_NET_BUILD };

struct spawn_image {
	unsigned layer_count;
	char layers[SPAWN_IMAGE_MAX][65]; /* keys, sha256 hex, topmost first */
};

struct spawn_request {
	uint64_t tag;           /* the driver's name for it; comes back in the result */
	const struct spawn_image *image; /* NULL: the host image */
	const char *runtime;    /* a directory below runtimes, or NULL */
	const char *layers[SPAWN_LAYERS_MAX]; /* sha256 hex, topmost first; above the runtime */
	unsigned layer_count;
	const char *const *argv; /* NULL-ended, absolute argv[0] */
	const char *const *envp; /* NULL-ended, complete */
	const char *workdir;
	uint64_t memory_bytes, tmp_bytes, timeout_ns; /* all needed */
	unsigned cpu_millis;     /* 1000 = one cpu */
	unsigned pids;
	enum spawn_network network;
	const struct net_rules *allow; /* with EGRESS: of what is near; NULL: nothing */
	int stdio[3];            /* given to the sandbox as 0, 1, 2; -1: /dev/null */
	int channel;             /* given as 3; -1: none */
};

/*
 * Sends the request (copies everything; the descriptors stay the caller's to close).
 * 0; -1 with ERR_AGAIN (socket full: wait for writability), ERR_INPUT or ERR_NODE.
 */
int spawner_request(struct spawner *s, const struct spawn_request *r, struct err *e);

/* Why a sandbox is to be ended by the driver. */
enum spawn_kill { SPAWN_KILL_CANCELLED = 1, SPAWN_KILL_OUTPUT };

/* Ends the sandbox of tag, whatever it does.  Unknown tags are ignored. */
int spawner_kill(struct spawner *s, uint64_t tag, enum spawn_kill why, struct err *e);

enum spawn_reason {
	SPAWN_EXITED,          /* code is the exit status */
	SPAWN_SIGNALED,        /* code is the signal */
	SPAWN_TIMEOUT,         /* the deadline passed */
	SPAWN_MEMORY_EXCEEDED, /* the memory cgroup killed a process of it */
	SPAWN_OUTPUT_EXCEEDED, /* the driver said so */
	SPAWN_CANCELLED,       /* the driver said so */
	SPAWN_SETUP_FAILED,    /* step and text say what; the command never ran */
	SPAWN_LOST,            /* its init died and nobody ordered that */
	SPAWN_REASON_COUNT
};

enum { SPAWN_STEPS_MAX = 40 };

struct spawn_result {
	uint64_t tag;
	enum spawn_reason reason;
	int code;
	uint64_t wall_ns, cpu_ns;   /* of the command, and of all in the sandbox */
	uint64_t memory_peak_bytes;
	uint32_t pids_peak, pids_limit_hits, oom_kills;
	uint32_t setup_us;          /* from the request's arrival to exec */
	unsigned step_count;
	struct {
		char name[24];
		uint32_t us;
	} steps[SPAWN_STEPS_MAX];
	int err_class;              /* enum err_class, when SETUP_FAILED */
	char step[32], text[256];   /* when SETUP_FAILED */
};

/*
 * Reads one result.  1: *out is filled; 0: none now; -1: the spawner is gone.  A result
 * comes once per request, when no process of the sandbox is left.  Its mounts, which nobody
 * can reach any more, go right after it; its cgroup is empty and read, and removed as soon as
 * the spawner has time for it.
 */
int spawner_result(struct spawner *s, struct spawn_result *out, struct err *e);

#endif
