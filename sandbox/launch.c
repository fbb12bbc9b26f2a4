/*
 * The caller's side of a sandbox's start: what has to be done from outside.
 *
 * One clone3 makes the process in its namespaces, and on v2 in its cgroup; two namespaces it
 * makes itself: cgroup's, which must be made from inside the group, and the network's, which
 * takes as long as all else here: meanwhile the caller makes the group's v1 part and writes the
 * limits.  Then the child waits for its way into the group and for the id maps, which only a
 * process of the parent user namespace may write.  Signals are blocked during the clone, so
 * that no handler of the caller's runs in the child.
 *
 * clone3 has a fallback, clone, for where a filter around us refuses the new call.
 *
 * What the kernel counts by user (inotify instances, POSIX timers and queued signals, message
 * queues) it counts for the creator of a user namespace too, against the creator's limits.  If
 * root were the creator, all sandboxes and the machine's own services would share one count:
 * sixteen sandboxes with 8 inotify instances each, or one with 100,000 timers, and nobody else
 * gets any.  So the creator is the first id of the sandbox's own range, as an effective id for
 * the moment of the clone.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/caps.h"
#include "core/base/clock.h"
#include "core/base/fdio.h"
#include "core/base/probe.h"
#include "sandbox/child.h"
#include "sandbox/userns.h"

/* Of the group as it is before the clone; the child may have to get some of it later. */
static int
find_place(struct child *c, struct err *e)
{
	if (!c->spec->group)
		return 0;
	cgroup_place(c->spec->group, &c->place);
	if (!probe_has(PROBE_CLONE3)) {
		err_clear(e);
		c->place_slow = cgroup_place_slow(c->spec->group, e);
		c->place.into_fd = -1;
		if (c->place_slow < 0 && e->cls != ERR_NONE)
			return -1;
	}
	return 0;
}

int
step_limits(struct child *c, unsigned index, struct err *e)
{
	struct cgroup *group = c->spec->group;
	struct cgroup_place now;

	(void)index;
	if (cgroup_complete(group, e) || cgroup_limit(group, &c->spec->limits, e))
		return -1;
	cgroup_place(group, &now);
	for (unsigned i = 0; i < now.task_count; i++)
		if (c->place.tasks[i] < 0 && child_send(c->go_w, now.tasks[i]))
			return err_sys(e, ERR_NODE, "hand the cgroup over");
	return 0;
}

static int
step_devices(struct child *c, unsigned index, struct err *e)
{
	(void)index;
	c->dev = devices_make(e);
	if (c->dev >= 0 && child_send(c->go_w, c->dev))
		return err_sys(e, ERR_NODE, "hand /dev over");
	return c->dev < 0 ? -1 : 0;
}

static int
step_network(struct child *c, unsigned index, struct err *e)
{
	(void)index;
	if (setns(c->spec->netns, CLONE_NEWNET))
		return err_sys(e, ERR_NODE, "enter the prepared network namespace");
	return 0;
}

static int
step_egress(struct child *c, unsigned index, struct err *e)
{
	const struct uplink_spec spec = {
		.allow = c->spec->allow,
		.names = c->spec->allow_names,
		.host_netns = c->spec->uplink_netns,
		.uid = c->spec->uid_base,
		.ready_w = c->ready_w,
	};

	(void)index;
	return uplink_start(&c->uplink, &spec, e);
}

static long
clone_child(struct child *c, uint64_t flags)
{
	struct clone_args args = {
		.flags = flags | CLONE_PIDFD,
		.pidfd = (uint64_t)(uintptr_t)&c->pidfd,
		.exit_signal = SIGCHLD,
	};

	if (!probe_has(PROBE_CLONE3))
		return syscall(SYS_clone, args.flags | SIGCHLD, NULL, &c->pidfd, NULL, 0);
	if (c->place.into_fd >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)c->place.into_fd;
	}
	return syscall(SYS_clone3, &args, sizeof args);
}

/*
 * The capabilities are for the cgroup, and for machines where only root may do this.  A
 * change of the effective id takes more away, which is put back.
 */
static long
clone_as_creator(struct child *c, uint64_t flags)
{
	int dumpable = prctl(PR_GET_DUMPABLE), death_signal = 0, saved;
	pid_t parent = getppid();
	long pid = -1;

	prctl(PR_GET_PDEATHSIG, &death_signal);
	if (syscall(SYS_setresuid, -1, c->spec->uid_base, 0))
		return -1;
	if (!caps_raise())
		pid = clone_child(c, flags);
	if (pid == 0)
		return 0;
	saved = errno;
	/* The saved id is root's: this cannot fail, and without it nothing else would work. */
	if (syscall(SYS_setresuid, -1, 0, -1))
		abort();
	prctl(PR_SET_DUMPABLE, dumpable);
	prctl(PR_SET_PDEATHSIG, death_signal);
	if (death_signal && getppid() != parent)
		raise(death_signal); /* it died meanwhile */
	errno = saved;
	return pid;
}

static int
step_clone(struct child *c, unsigned index, struct err *e)
{
	uint64_t flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS;
	sigset_t all, before;
	long pid;
	int saved;

	(void)index;
	/* The uplink's process needs it as soon as there is a child. */
	if (c->spec->network == SANDBOX_NET_EGRESS && c->spec->netns < 0)
		flags |= CLONE_NEWNET;
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &before);
	pid = c->rootless ? clone_child(c, flags) : clone_as_creator(c, flags);
	if (pid == 0)
		child_main(c);
	saved = errno;
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (c->spec->netns >= 0 && setns(c->spec->netns_home, CLONE_NEWNET))
		return err_sys(e, ERR_NODE, "return to the own network namespace");
	errno = saved;
	if (pid < 0) {
		err_sys(e, errno == ENOSPC || errno == EAGAIN ? ERR_AGAIN : ERR_NODE,
			"make a user namespace and others in it%s",
			errno == EPERM ? " (a container's or service's own rules may forbid it)" : "");
		if (c->rootless)
			userns_explain("/proc/sys", e);
		return -1;
	}
	c->pid = (pid_t)pid;
	return 0;
}

static int
write_proc(pid_t pid, const char *file, const char *text, struct err *e)
{
	if (proc_write(pid, file, text))
		return err_sys(e, ERR_NODE, "write %s of the sandbox", file);
	return 0;
}

/*
 * When the machine (not the sandbox's group) runs out of memory, sandboxes go first:
 * an event can be run again, the node and its neighbours cannot.  Written from outside,
 * where CAP_SYS_RESOURCE makes it a floor that the sandbox cannot lower again.
 */
static int
step_maps(struct child *c, unsigned index, struct err *e)
{
	char uids[64], gids[64];

	(void)index;
	if (c->rootless) {
		snprintf(uids, sizeof uids, "%u %u 1", c->spec->uid, geteuid());
		snprintf(gids, sizeof gids, "%u %u 1", sandbox_gid(c->spec), getegid());
		if (write_proc(c->pid, "setgroups", "deny", e))
			return -1;
	} else {
		snprintf(uids, sizeof uids, "0 %u %u", c->spec->uid_base, SANDBOX_IDS);
		memcpy(gids, uids, sizeof gids);
	}
	if (write_proc(c->pid, "oom_score_adj", "1000", e) || write_proc(c->pid, "uid_map", uids, e) ||
	    write_proc(c->pid, "gid_map", gids, e))
		return -1;
	if (fd_write_all(c->go_w, "", 1))
		return err_sys(e, ERR_NODE, "let the sandbox go");
	return 0;
}

static int
run_steps(struct child *c, struct err *e)
{
	static int (*const steps[STEP_COUNT])(struct child *, unsigned, struct err *) = {
		[STEP_LIMITS] = step_limits,     [STEP_TREES] = step_trees,
		[STEP_DEVICES] = step_devices,   [STEP_PREMOUNT] = step_premount,
		[STEP_NETWORK] = step_network,   [STEP_CLONE] = step_clone,
		[STEP_MAPS] = step_maps,         [STEP_EGRESS] = step_egress,
	};

	for (unsigned i = 0; i < c->plan.count; i++) {
		const struct plan_step *s = &c->plan.steps[i];

		if (s->side == SIDE_CALLER && child_step(c, s, steps[s->step], e))
			return -1;
	}
	return 0;
}

static int
make_pipes(struct child *c, struct err *e)
{
	int status[2], go[2];

	if (pipe2(status, O_CLOEXEC))
		return err_sys(e, ERR_NODE, "make a pipe");
	c->status_r = status[0];
	c->status_w = status[1];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, go))
		return err_sys(e, ERR_NODE, "make a socket");
	c->go_r = go[0];
	c->go_w = go[1];
	if (c->spec->network == SANDBOX_NET_EGRESS && !c->spec->uplink) {
		int ready[2];

		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ready))
			return err_sys(e, ERR_NODE, "make a socket");
		c->ready_r = ready[0];
		c->ready_w = ready[1];
	}
	if (fd_set_nonblocking(c->status_r))
		return err_sys(e, ERR_NODE, "set up a pipe");
	return 0;
}

static int
make_progress(struct sandbox *sb, struct err *e)
{
	void *page = mmap(NULL, sizeof *sb->progress, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return err_sys(e, ERR_NODE, "share a page with the sandbox");
	sb->progress = page;
	return 0;
}

void
child_init(struct child *c, const struct sandbox_spec *spec)
{
	memset(c, 0, sizeof *c);
	c->spec = spec;
	c->rootless = spec->uid_base == 0;
	c->status_r = c->status_w = c->go_r = c->go_w = c->place_slow = -1;
	c->usr = c->disk = c->sides = c->dev = c->pidfd = c->scratch = c->root = c->tmp = c->shm = c->proc = c->sys_user = -1;
	c->gate_r = c->gate_w = c->ready_r = c->ready_w = c->word_r = c->word_w = -1;
	memcpy(c->stdio, spec->stdio, sizeof c->stdio);
	c->channel = spec->channel;
	c->uplink = spec->uplink ? *spec->uplink : (struct uplink){ .pidfd = -1, .end = -1 };
	c->place.into_fd = -1;
	for (unsigned i = 0; i < SANDBOX_LAYERS_MAX; i++)
		c->layers[i] = -1;
	for (unsigned i = 0; i < SANDBOX_BINDS_MAX; i++)
		c->binds[i] = -1;
}

/* The caller's copies of what the child has now. */
void
child_close_copies(struct child *c)
{
	int *const fds[] = { &c->status_w, &c->go_r, &c->place_slow, &c->usr,     &c->disk,
			     &c->dev,      &c->scratch,
			     &c->root,     &c->tmp,  &c->shm,        &c->ready_r, &c->ready_w, &c->word_r };

	for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
		fd_close(fds[i]);
	for (unsigned i = 0; i < c->spec->layer_count; i++)
		fd_close(&c->layers[i]);
	for (unsigned i = 0; i < c->spec->bind_count; i++)
		fd_close(&c->binds[i]);
}

/* The child's own failure, where that is why ours went wrong: nothing can be written to a process
 * that has ended. */
static void
take_cause(const struct child *c, struct err *e)
{
	struct record r;

	if (c->status_r < 0 || read(c->status_r, &r, sizeof r) != (ssize_t)sizeof r ||
	    r.kind != RECORD_FAILED)
		return;
	*e = r.error;
	e->step[sizeof e->step - 1] = e->text[sizeof e->text - 1] = '\0';
}

static void
undo(struct child *c, struct err *e)
{
	/* Between the two steps we are in the sandbox's. */
	if (c->spec->netns >= 0 && setns(c->spec->netns_home, CLONE_NEWNET))
		abort();
	if (c->pidfd >= 0) {
		siginfo_t info;

		pidfd_send_signal(c->pidfd, SIGKILL, NULL, 0);
		while (waitid(P_PIDFD, (id_t)c->pidfd, &info, WEXITED) < 0 && errno == EINTR)
			;
	}
	take_cause(c, e);
	uplink_kill(&c->uplink);
	uplink_wait_end(&c->uplink);
	fd_close(&c->pidfd);
	fd_close(&c->status_r);
	fd_close(&c->go_w);
	fd_close(&c->word_w);
}

int
sandbox_prepare_caller(struct err *e)
{
	if (geteuid() != 0 || probe_has(PROBE_TMPFS_XATTR))
		return 0;
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return err_sys(e, ERR_NODE, "leave the mount namespace");
	return 0;
}

void
sandbox_init(struct sandbox *sb)
{
	memset(sb, 0, sizeof *sb);
	sb->start_ns = clock_mono_ns();
	sb->state = SANDBOX_DONE; /* until it runs */
	sb->pidfd = sb->status = sb->go = sb->word = sb->uplink.pidfd = sb->uplink.end = -1;
	/* Asked here, so that the child finds the answer. */
	probe_has(PROBE_CLONE3);
	probe_has(PROBE_LANDLOCK);
	probe_has(PROBE_TIME_NAMESPACE);
}

int
child_launch(struct sandbox *sb, struct child *c, struct err *e)
{
	const struct sandbox_spec *spec = c->spec;
	int rc = make_pipes(c, e) || make_progress(sb, e) ? -1 : 0;

	c->progress = sb->progress;
	c->orders = sb->orders;
	if (rc == 0 && spec->devices >= 0 &&
	    (c->dev = fcntl(spec->devices, F_DUPFD_CLOEXEC, 3)) < 0)
		rc = err_sys(e, ERR_NODE, "take the prepared /dev");
	if (rc == 0)
		rc = find_place(c, e) || run_steps(c, e) ? -1 : 0;
	child_close_copies(c);
	if (rc) {
		undo(c, e);
		sandbox_release(sb);
		return -1;
	}
	/* Other sandboxes' inits, forked while this one runs, do not get it. */
	madvise(sb->progress, sizeof *sb->progress, MADV_DONTFORK);
	if (spec->group)
		cgroup_placed(spec->group);
	sb->pid = c->pid;
	sb->pidfd = c->pidfd;
	sb->status = c->status_r;
	sb->go = c->go_w;
	sb->word = c->word_w;
	sb->uplink = c->uplink;
	sb->group = spec->group;
	sb->remains_later = spec->remains_later;
	return 0;
}

int
sandbox_start(struct sandbox *sb, const struct sandbox_spec *spec, struct err *e)
{
	struct child c;

	sandbox_init(sb);
	child_init(&c, spec);
	if (plan_make(&c.plan, spec, probe_has(PROBE_TMPFS_XATTR), e)) {
		err_step(e, "plan");
		undo(&c, e);
		return -1;
	}
	if (child_launch(sb, &c, e))
		return -1;
	sb->watch_status = spec->limits.cpu_millis != 0;
	sb->state = SANDBOX_RUNNING;
	sb->deadline_ns = spec->deadline_ns;
	return 0;
}
