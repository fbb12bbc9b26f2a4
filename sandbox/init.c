/*
 * The life of the child: pid 1 of the sandbox.
 *
 * It makes the sandbox step by step, forks the command's process, and then is nothing but
 * a reaper: uid 0 of a user namespace without any capability, undumpable, under the same
 * filter as the command, with one descriptor, the pipe to the caller.  The command's
 * process waits at a gate until that is so, and executes only then: no code of the user's
 * ever runs beside a process that could still do something.
 *
 * It ends when the command ends, and with it, by the kernel's rule for pid 1, everything
 * else in the sandbox, however it was forked.  It ends by SIGKILL when its caller dies.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/fdio.h"
#include "core/base/caps.h"
#include "sandbox/child.h"
#include "sandbox/seccomp.h"
#include "sandbox/userns.h"

/*
 * Test builds only: at PRATAI_STOP_AT=step the process says so and waits, the caller for ever,
 * the child until its caller is gone; PRATAI_FAIL_AT=step makes that step fail after it was
 * done.  So tests can see what is left behind.
 */
#ifdef PRATAI_TEST_BUILD
static bool
is_named(const char *variable, enum step s)
{
	const char *at = getenv(variable);

	return at && !strcmp(at, step_name(s));
}

int
child_fault(struct child *c, const struct plan_step *s, struct err *e)
{
	struct pollfd gone = { .fd = c->status_w };

	if (is_named("PRATAI_STOP_AT", s->step)) {
		dprintf(STDERR_FILENO, "stopped at %s\n", step_name(s->step));
		if (s->side == SIDE_CALLER)
			raise(SIGSTOP);
		else
			poll(&gone, 1, -1);
	}
	return is_named("PRATAI_FAIL_AT", s->step) ? err_set(e, ERR_NODE, "PRATAI_FAIL_AT") : 0;
}
#else
int
child_fault(struct child *c, const struct plan_step *s, struct err *e)
{
	(void)c;
	(void)s;
	(void)e;
	return 0;
}
#endif

uint64_t
child_now_ns(const struct child *c)
{
	return clock_mono_ns() + c->clock_behind_ns;
}

void
child_done(const struct child *c, enum step s, uint32_t us)
{
	if (s == STEP_ORDERS || s == STEP_TURN)
		return;
	c->progress->step_us[s] += us;
	__atomic_fetch_or(&c->progress->steps_done, 1ull << s, __ATOMIC_RELAXED);
}

int
child_step(struct child *c, const struct plan_step *s,
	   int (*fn)(struct child *, unsigned, struct err *), struct err *e)
{
	uint64_t start = clock_mono_ns();
	int rc = fn(c, s->index, e);

	if (rc == 0)
		rc = child_fault(c, s, e);
	child_done(c, s->step, (uint32_t)((clock_mono_ns() - start) / NS_PER_US));
	if (rc)
		err_step(e, step_name(s->step));
	return rc;
}

int
child_send(int socket, int fd)
{
	return fd_send(socket, fd) && errno != EPIPE && errno != ECONNRESET ? -1 : 0;
}

int
child_receive(const struct child *c)
{
	int fd = fd_receive(c->go_r, 0);

	if (fd < 0 && (errno == EPIPE || errno == ECONNRESET))
		_exit(1);
	return fd;
}

void
child_report(const struct child *c, struct record *r)
{
	r->at_ns = child_now_ns(c);
	while (write(c->status_w, r, sizeof *r) < 0 && errno == EINTR)
		;
}

void
child_report_failure(const struct child *c, enum sandbox_reason why, const struct err *e)
{
	struct record r = { .kind = RECORD_FAILED, .code = (int32_t)why, .error = *e };

	child_report(c, &r);
}

static _Noreturn void
fail(const struct child *c, enum sandbox_reason why, const struct err *e)
{
	child_report_failure(c, why, e);
	_exit(1);
}

/*
 * Dispositions that the caller ignores survive exec: back to the default.  By the kernel's
 * own call, since the C library keeps two signals (32, 33) for itself.
 */
static void
reset_signals(void)
{
	const struct {
		void (*handler)(int);
		unsigned long flags;
		void (*restorer)(void);
		uint64_t mask;
	} dfl = { .handler = SIG_DFL };
	sigset_t none;

	for (int sig = 1; sig <= 64; sig++)
		if (sig != SIGKILL && sig != SIGSTOP)
			syscall(SYS_rt_sigaction, sig, &dfl, NULL, sizeof dfl.mask);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* The command's side of the plan, in a process of its own. */
static _Noreturn void
run_command(struct child *c)
{
	static int (*const steps[STEP_COUNT])(struct child *, unsigned, struct err *) = {
		[STEP_STDIO] = step_stdio,       [STEP_WORKDIR] = step_workdir,
		[STEP_USER] = step_user,         [STEP_ORDERS] = step_orders_command,
		[STEP_TURN] = step_turn,         [STEP_LANDLOCK] = step_landlock,
		[STEP_FILTER] = step_filter,
	};
	enum sandbox_reason why = SANDBOX_SETUP_FAILED;
	struct err e = { 0 };

	for (unsigned i = 0; i < c->plan.count; i++) {
		const struct plan_step *s = &c->plan.steps[i];

		if (s->side != SIDE_COMMAND)
			continue;
		if (s->step == STEP_EXEC)
			why = child_fault(c, s, &e) ? SANDBOX_SETUP_FAILED : command_exec(c, &e);
		else if (s->step == STEP_FILTER && c->spec->filter)
			continue; /* loaded by command_exec, in the last moment */
		else if (steps[s->step] && child_step(c, s, steps[s->step], &e))
			fail(c, SANDBOX_SETUP_FAILED, &e);
	}
	if (!e.step[0])
		err_step(&e, step_name(STEP_EXEC));
	fail(c, why, &e);
}

static int
drop_everything(struct child *c, struct err *e)
{
	/* Not even /proc/1 of a sandbox without root is readable by its command. */
	if (prctl(PR_SET_DUMPABLE, 0))
		return err_sys(e, ERR_NODE, "lock init");
	prctl(PR_SET_NAME, "pratai-init");
	if (dup3(c->status_w, 3, O_CLOEXEC) < 0)
		return err_sys(e, ERR_NODE, "keep the status pipe");
	c->status_w = 3;
	if (dup3(c->gate_w, 4, O_CLOEXEC) < 0)
		return err_sys(e, ERR_NODE, "keep the gate");
	c->gate_w = 4;
	/* Standard input and output too: a reader of the output shall see its end when the
	 * command closes it. */
	if (close_range(0, 2, 0) || close_range(5, ~0u, 0))
		return err_sys(e, ERR_NODE, "close init's descriptors");
	if (caps_clear(e))
		return -1;
	if (c->orders)
		return seccomp_install_init(e);
	return c->spec->filter ? seccomp_install(e) : 0; /* the other is the command's alone */
}

void
child_open_gate(const struct child *c)
{
	while (write(c->gate_w, "", 1) < 0 && errno == EINTR)
		;
}

static _Noreturn void
reap(struct child *c, pid_t command)
{
	for (;;) {
		int status;
		pid_t pid = wait4(-1, &status, 0, NULL);

		if (pid == command) {
			struct record r = { .kind = RECORD_ENDED, .code = status };

			child_report(c, &r);
			_exit(0);
		}
		if (pid < 0 && errno == ECHILD)
			_exit(1); /* cannot be; the caller sees an end without a record */
	}
}

/* STEP_FORK.  The command's process in init; 0 in the command's. */
static pid_t
fork_command(struct child *c, const struct plan_step *s)
{
	uint64_t start = clock_mono_ns();
	struct err e = { 0 };
	int gate[2];
	pid_t pid;

	err_step(&e, step_name(STEP_FORK));
	/* Numbers from 16 on: the low ones are about to be given away. */
	if (pipe2(gate, O_CLOEXEC) < 0 || (c->gate_r = fcntl(gate[0], F_DUPFD_CLOEXEC, 16)) < 0 ||
	    (c->gate_w = fcntl(gate[1], F_DUPFD_CLOEXEC, 16)) < 0 ||
	    (c->status_w = fcntl(c->status_w, F_DUPFD_CLOEXEC, 16)) < 0 ||
	    close(gate[0]) || close(gate[1]) || (pid = fork()) < 0) {
		err_sys(&e, ERR_NODE, "fork the command's process");
		err_step(&e, step_name(STEP_FORK));
		fail(c, SANDBOX_SETUP_FAILED, &e);
	}
	if (pid == 0) {
		c->clock_behind_ns = c->clock_start_ns;
		child_done(c, s->step, (uint32_t)((child_now_ns(c) - start) / NS_PER_US));
		return 0;
	}
	if (child_fault(c, s, &e)) {
		err_step(&e, step_name(STEP_FORK));
		fail(c, SANDBOX_SETUP_FAILED, &e);
	}
	return pid;
}

/* All is made: from here on init is nothing but a reaper. */
static _Noreturn void
become_init(struct child *c, pid_t command)
{
	struct err e = { 0 };

	if ((c->plan.late_root && step_landlock(c, 0, &e)) || drop_everything(c, &e)) {
		err_step(&e, step_name(STEP_FORK));
		fail(c, SANDBOX_SETUP_FAILED, &e);
	}
	child_open_gate(c);
	close(c->gate_w);
	reap(c, command);
}

/*
 * First of all, since it may wait, made ahead for hours: it shall not hold what else its caller
 * had open at the time, other sandboxes' pipes and files of their cgroups among it.
 */
static void
keep_own(struct child *c)
{
	const struct sandbox_spec *spec = c->spec;
	const int own[] = { c->status_w, c->go_r,    c->word_r,  c->ready_r, c->dev, c->place_slow,
			    c->usr,      c->disk,    c->scratch, c->root,    c->tmp, c->shm, c->channel,
			    c->stdio[0], c->stdio[1], c->stdio[2] };
	enum { OWN = sizeof own / sizeof own[0] };
	int keep[OWN + CGROUP_TASKS_MAX + SANDBOX_LAYERS_MAX + SANDBOX_BINDS_MAX];
	unsigned n = OWN;
	struct err e;

	memcpy(keep, own, sizeof own);
	for (unsigned i = 0; i < c->place.task_count; i++)
		keep[n++] = c->place.tasks[i];
	/* An ordinary user's child opens the trees itself. */
	for (unsigned i = 0; i < spec->layer_count; i++)
		keep[n++] = c->rootless ? spec->layers[i].at : c->layers[i];
	for (unsigned i = 0; i < spec->bind_count; i++)
		keep[n++] = c->rootless ? spec->binds[i].source.at : c->binds[i];
	if (fd_close_but(keep, n)) {
		err_sys(&e, ERR_NODE, "close what is the caller's");
		fail(c, SANDBOX_SETUP_FAILED, &e);
	}
}

/* The first step of all (the network, or the host name) needs a capability in the new namespace,
 * which a security module may have taken from an ordinary user's. */
static _Noreturn void
fail_step(const struct child *c, const struct plan_step *s, struct err *e)
{
	if (c->rootless && (s->step == STEP_NETWORK || s->step == STEP_HOSTNAME))
		userns_explain("/proc/sys", e);
	err_step(e, step_name(s->step));
	fail(c, SANDBOX_SETUP_FAILED, e);
}

_Noreturn void
child_main(struct child *c)
{
	static int (*const steps[STEP_COUNT])(struct child *, unsigned, struct err *) = {
		[STEP_NETWORK] = step_network_own,
		[STEP_JOIN] = step_join,         [STEP_IDENTITY] = step_identity,
		[STEP_TREES] = step_trees,       [STEP_SCRATCH] = step_scratch,
		[STEP_ROOT] = step_root,         [STEP_USR] = step_usr,
		[STEP_TMP] = step_tmp,           [STEP_BIND] = step_bind,
		[STEP_DEV] = step_dev,           [STEP_PROC] = step_proc,
		[STEP_QUOTAS] = step_quotas,     [STEP_MASK] = step_mask,
		[STEP_CLOCK] = step_clock,
		[STEP_PIVOT] = step_pivot,       [STEP_LOOPBACK] = step_loopback,
		[STEP_HOSTNAME] = step_hostname, [STEP_SESSION] = step_session,
		[STEP_CAPS] = step_caps,         [STEP_LANDLOCK] = step_landlock,
		[STEP_FILTER] = step_filter,     [STEP_UPLINK] = step_uplink,
		[STEP_ORDERS] = step_orders,     [STEP_ATTACH] = step_attach,
	};
	struct err e = { 0 };
	pid_t command = 0;

	if (c->orders)
		prctl(PR_SET_NAME, "pratai-held");
	keep_own(c);
	umask(0);
	reset_signals();
	for (unsigned i = 0; i < c->plan.count; i++) {
		const struct plan_step *s = &c->plan.steps[i];

		if (s->side != SIDE_INIT)
			continue;
		if (s->step == STEP_FORK && (command = fork_command(c, s)) == 0)
			run_command(c);
		if (s->step != STEP_FORK && child_step(c, s, steps[s->step], &e))
			fail_step(c, s, &e);
	}
	become_init(c, command);
}
