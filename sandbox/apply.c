/*
 * The steps of init that are not mounts: into the cgroup, the ids, the loopback, names,
 * session and limits, the locks.  Each says why it comes where it comes; the order is plan.c's.
 */
#include <errno.h>
#include <linux/keyctl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/base/caps.h"
#include "core/base/fdio.h"
#include "sandbox/child.h"
#include "sandbox/seccomp.h"

/* From <grp.h>, without the C library's loop over threads: there is one. */
static int
drop_groups(void)
{
	return (int)syscall(SYS_setgroups, 0, NULL);
}

int
step_network_own(struct child *c, unsigned index, struct err *e)
{
	(void)c;
	(void)index;
	if (unshare(CLONE_NEWNET))
		return err_sys(e, errno == ENOSPC ? ERR_AGAIN : ERR_NODE, "make a network namespace");
	return 0;
}

/*
 * Before there are ids, as soon as the caller has made the group: what comes after is charged
 * to the sandbox.  A write of "0" by a
 * process with one thread moves it without the grace period that moving another takes.
 * Only then the cgroup namespace, whose root is the group of that moment.
 */
int
step_join(struct child *c, unsigned index, struct err *e)
{
	(void)index;
	if (c->place_slow >= 0 && write(c->place_slow, "0", 1) != 1)
		return err_sys(e, ERR_NODE, "enter the cgroup");
	for (unsigned i = 0; i < c->place.task_count; i++) {
		int *tasks = &c->place.tasks[i];

		if (*tasks < 0 && (*tasks = child_receive(c)) < 0)
			return err_sys(e, ERR_NODE, "take the cgroup over");
		if (write(*tasks, "0", 1) != 1)
			return err_sys(e, ERR_NODE, "enter the cgroup (tasks file %u)", i);
	}
	if (unshare(CLONE_NEWCGROUP))
		return err_sys(e, ERR_NODE, "make a cgroup namespace");
	return 0;
}

static int
take_one(struct child *c, int *fd)
{
	return (*fd = child_receive(c)) < 0 ? -1 : 0;
}

/*
 * Made ahead: waits until there is an event for it.  A caller that is gone is the end of us, as
 * everywhere.
 */
int
step_orders(struct child *c, unsigned index, struct err *e)
{
	const struct sandbox_spec *spec = &c->orders->spec;
	struct pollfd word = { .fd = c->go_r, .events = POLLIN };
	bool failed = false;

	(void)index;
	while (poll(&word, 1, -1) < 0)
		;
	if (c->plan.root == ROOT_PREMOUNT)
		failed = take_one(c, &c->root) || take_one(c, &c->tmp) || take_one(c, &c->shm);
	else if (!take_one(c, &c->layers[0])) /* only now the spec is there to be read */
		for (unsigned i = 1; i < spec->layer_count && !failed; i++)
			failed = take_one(c, &c->layers[i]) != 0;
	else
		failed = true;
	if (!failed && c->plan.root == ROOT_OVERLAY && spec->usr)
		failed = take_one(c, &c->usr) != 0;
	if (failed)
		return err_sys(e, ERR_NODE, "take the image over");
	c->spec = spec;
	return 0;
}

/*
 * The caller writes the maps, then one byte.  No byte: the caller is gone, and so is the
 * reason to be.  The death signal comes after the change of uid, which clears it; and the
 * caller may have died before it was set, which the pipe tells.
 */
int
step_identity(struct child *c, unsigned index, struct err *e)
{
	struct pollfd gone = { .fd = c->go_r };
	char byte;

	(void)index;
	if (fd_read_all(c->go_r, &byte, 1) != 1)
		_exit(1);
	if (!c->rootless && (setresgid(0, 0, 0) || drop_groups() || setresuid(0, 0, 0)))
		return err_sys(e, ERR_NODE, "become uid 0 of the sandbox");
	if (prctl(PR_SET_PDEATHSIG, SIGKILL))
		return err_sys(e, ERR_NODE, "ask for a death signal");
	if (poll(&gone, 1, 0) > 0 && (gone.revents & POLLHUP))
		_exit(1);
	return 0;
}

int
loopback_up(struct err *e)
{
	struct ifreq lo = { .ifr_name = "lo" };
	CLEAN_FD int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &lo))
		return err_sys(e, ERR_NODE, "look at the loopback");
	lo.ifr_flags |= IFF_UP;
	if (ioctl(fd, SIOCSIFFLAGS, &lo))
		return err_sys(e, ERR_NODE, "bring the loopback up");
	return 0;
}

int
step_uplink(struct child *c, unsigned index, struct err *e)
{
	(void)index;
	return uplink_wait(c->ready_r, e);
}

int
step_loopback(struct child *c, unsigned index, struct err *e)
{
	(void)index;
	/* Early: the uplink's process begins with it. */
	if (c->ready_r >= 0 && uplink_offer(c->ready_r, e))
		return -1;
	return loopback_up(e);
}

int
step_hostname(struct child *c, unsigned index, struct err *e)
{
	static const char none[] = "(none)";

	(void)index;
	/* Both are inherited from the machine otherwise. */
	if (sethostname(c->spec->hostname, strlen(c->spec->hostname)) ||
	    setdomainname(none, sizeof none - 1))
		return err_sys(e, ERR_NODE, "set the host name");
	return 0;
}

static int
limit(int resource, rlim_t soft, rlim_t hard)
{
	struct rlimit now;

	/* What the caller has is never raised: not even root may, everywhere. */
	if (getrlimit((__rlimit_resource_t)resource, &now))
		return -1;
	now.rlim_max = now.rlim_max < hard ? now.rlim_max : hard;
	now.rlim_cur = now.rlim_max < soft ? now.rlim_max : soft;
	return setrlimit((__rlimit_resource_t)resource, &now);
}

int
step_session(struct child *c, unsigned index, struct err *e)
{
	(void)c;
	(void)index;
	umask(022);
	/* The caller may have it without random addresses, or with data that executes. */
	personality(PER_LINUX);
	/* No controlling terminal, no signals from one; the command makes a session again, so
	 * that kill(0) of its does not reach init. */
	setsid();
	/* A keyring of its own instead of the caller's, which may hold its secrets.  Where
	 * keyrings are missing or refused, there is none to inherit either; a full quota
	 * (the user's own, without root) leaves a reference that the filter makes useless. */
	syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
	if (limit(RLIMIT_CORE, 0, 0))
		return err_sys(e, ERR_NODE, "forbid core dumps");
	if (limit(RLIMIT_NOFILE, SANDBOX_NOFILE_SOFT, SANDBOX_NOFILE_HARD))
		return err_sys(e, ERR_NODE, "limit open files");
	return 0;
}

/*
 * From here on nothing can be gained, by exec or otherwise; what init still has, it and the
 * command's process give up right after the fork.
 */
int
step_caps(struct child *c, unsigned index, struct err *e)
{
	(void)index;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return err_sys(e, ERR_NODE, "forbid new privileges");
	return c->spec->caps ? caps_bound(c->spec->caps, e) : caps_lock(e);
}

/* Loaded once, for init and the command: a load costs as much as half a fork. */
int
step_filter(struct child *c, unsigned index, struct err *e)
{
	(void)c;
	(void)index;
	return seccomp_install(e);
}
