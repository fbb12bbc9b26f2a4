/*
 * What the files that make a sandbox share: launch.c (in the caller), mounts.c, apply.c,
 * init.c and command.c (in the child).  Nobody else includes this.
 *
 * The child is a copy of a single-threaded caller: what it calls need not be
 * async-signal-safe, but it allocates nothing, because the caller may be anything.
 */
#ifndef PRATAI_SANDBOX_CHILD_H
#define PRATAI_SANDBOX_CHILD_H

#include <stdbool.h>
#include <stdint.h>

#include "sandbox/cgroup.h"
#include "sandbox/orders.h"
#include "sandbox/plan.h"
#include "sandbox/sandbox.h"

/* From init (or, until exec, the command's process) to the caller, one write each. */
enum record_kind { RECORD_FAILED = 1, RECORD_ENDED };

struct record {
	uint32_t kind;
	int32_t code;         /* FAILED: enum sandbox_reason; ENDED: wait status */
	uint64_t at_ns;
	struct err error;     /* FAILED */
};
_Static_assert(sizeof(struct record) <= 4096, "below PIPE_BUF: written whole");

/*
 * How far it is, in a page that the caller, init and the command's process share: nobody is
 * woken for it.  All run our code until exec, and nothing but a report depends on it.
 */
struct progress {
	uint64_t running_ns; /* when the command was about to be executed; 0: not yet */
	uint64_t steps_done; /* added to by all three, atomically */
	uint32_t step_us[STEP_COUNT];
	uint64_t root_mount; /* made ahead: the id of the mount that is the new root */
	int32_t listener; /* of a watched filter: its descriptor plus 1, -1 when there is none */
	uint32_t listener_sent;
	/* Why exec failed, where the command's filter may not let it write or even exit. */
	struct record failed;
};

struct child {
	const struct sandbox_spec *spec;
	struct plan plan;
	struct progress *progress;
	bool rootless;
	uint64_t clock_start_ns;  /* when the command's clocks began, by the machine's */
	uint64_t clock_behind_ns; /* this process's clock is: 0, but in the command's process */
	struct orders *orders;    /* of one that is made ahead; NULL */

	/* Descriptors of the caller's and, as copies, of the child's. */
	int status_r, status_w, go_r, go_w;
	int word_r, word_w; /* made ahead: what go is to init, to the command's process */
	int ready_r, ready_w; /* from the uplink to init */
	struct uplink uplink;
	struct cgroup_place place;
	int place_slow;
	int layers[SANDBOX_LAYERS_MAX]; /* detached, then attached below the scratch tmpfs */
	int binds[SANDBOX_BINDS_MAX];   /* detached */
	int usr;
	int disk;  /* detached, then attached below the scratch tmpfs */
	int sides; /* where upper/ and work/ are: disk, or scratch; not a descriptor of its own */
	int dev;
	int pidfd;
	pid_t pid;
	int stdio[3], channel; /* the command's */

	/* Of the root's mounts: the scratch tmpfs, the root, and (ROOT_PREMOUNT) parts of the
	 * scratch that the caller took out of it. */
	int scratch, root, tmp, shm;
	int proc, sys_user;
	int gate_r, gate_w;
};

/* The machine's monotonic clock, in the command's process as well. */
uint64_t child_now_ns(const struct child *c);

/* launch.c's parts: empty ones; the caller's side of c's plan, whose outcome is sb's (-1: nothing
 * is left of it); the caller's copies of what the child has now. */
void sandbox_init(struct sandbox *sb);
void child_init(struct child *c, const struct sandbox_spec *spec);
int child_launch(struct sandbox *sb, struct child *c, struct err *e);
void child_close_copies(struct child *c);
int step_limits(struct child *c, unsigned index, struct err *e);

/* Notes that step s was done, in us (but for waiting: it says nothing). */
void child_done(const struct child *c, enum step s, uint32_t us);
/* Runs step i of the plan by fn and notes its time. */
int child_step(struct child *c, const struct plan_step *s,
	       int (*fn)(struct child *, unsigned index, struct err *), struct err *e);
/* Init's word to the command's process that it may go on: before exec, and, made ahead, as soon
 * as it is in the new root. */
void child_open_gate(const struct child *c);
/* In test builds, after a step was done: -1 if it is to fail.  Others do nothing. */
int child_fault(struct child *c, const struct plan_step *s, struct err *e);

/* The steps, by name.  0 or -1. */
int step_trees(struct child *c, unsigned index, struct err *e);
int step_premount(struct child *c, unsigned index, struct err *e);
int step_scratch(struct child *c, unsigned index, struct err *e);
int step_root(struct child *c, unsigned index, struct err *e);
int step_usr(struct child *c, unsigned index, struct err *e);
int step_tmp(struct child *c, unsigned index, struct err *e);
int step_bind(struct child *c, unsigned index, struct err *e);
int step_dev(struct child *c, unsigned index, struct err *e);
int step_proc(struct child *c, unsigned index, struct err *e);
int step_mask(struct child *c, unsigned index, struct err *e);
int step_attach(struct child *c, unsigned index, struct err *e);
int step_pivot(struct child *c, unsigned index, struct err *e);

/* Made ahead: mounts tree at name in the scratch, until the root is there. */
int place_ahead(struct child *c, int tree, const char *name, struct err *e);

/* c->dev without CAP_MKNOD: a tmpfs with the machine's own nodes bound into it. */
int devices_bind(struct child *c, struct err *e);

/* Over the go socket, from either side.  A peer that is gone is no error: a child has said why,
 * or will be missed by its status.  -1 with errno. */
int child_send(int socket, int fd);
/* In the child, what the caller sends over the go socket: descriptors of the cgroup, the byte
 * that the ids are there, /dev.  A descriptor; -1.  It ends the child when the caller is
 * gone, or could not make it and says so itself. */
int child_receive(const struct child *c);
int step_network_own(struct child *c, unsigned index, struct err *e);
int step_orders(struct child *c, unsigned index, struct err *e);
int step_join(struct child *c, unsigned index, struct err *e);
int step_identity(struct child *c, unsigned index, struct err *e);
int step_uplink(struct child *c, unsigned index, struct err *e);
int step_loopback(struct child *c, unsigned index, struct err *e);
int step_hostname(struct child *c, unsigned index, struct err *e);
int step_clock(struct child *c, unsigned index, struct err *e);
int step_quotas(struct child *c, unsigned index, struct err *e);
int step_session(struct child *c, unsigned index, struct err *e);
int step_caps(struct child *c, unsigned index, struct err *e);
int step_landlock(struct child *c, unsigned index, struct err *e);
int step_filter(struct child *c, unsigned index, struct err *e);

int step_orders_command(struct child *c, unsigned index, struct err *e);
int step_stdio(struct child *c, unsigned index, struct err *e);
int step_turn(struct child *c, unsigned index, struct err *e);
int step_workdir(struct child *c, unsigned index, struct err *e);
int step_user(struct child *c, unsigned index, struct err *e);

/* Executes the command; returns only when it failed, with the reason. */
enum sandbox_reason command_exec(struct child *c, struct err *e);

/* Sends a record; the caller of the sandbox may be gone, which does not matter. */
void child_report(const struct child *c, struct record *r);
void child_report_failure(const struct child *c, enum sandbox_reason why, const struct err *e);

/* The child's life, from the clone on. */
_Noreturn void child_main(struct child *c);

#endif
