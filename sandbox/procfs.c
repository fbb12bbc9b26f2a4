/*
 * /proc of a sandbox: a new procfs of its pid namespace, mounted by its init.
 *
 * hidepid=invisible: the command sees its own processes and not init, which is another
 * uid's (as root).  Not subset=pid: it would take /proc/meminfo, cpuinfo, stat and
 * uptime away, which interpreters, psutil, JVMs and thread pools read.  Instead, what
 * everybody may read and tells about the machine or its other users is covered: files by
 * /dev/null, directories by an empty one, the boot id by another; so is what everybody may
 * write (pressure, whose
 * triggers are kernel memory and work of the machine's).  Files of root's alone (kcore,
 * kmsg, timer_list, sysrq-trigger, ...) need no cover: that root is no id of the sandbox's,
 * and no capability of a user namespace reaches them.  /proc/sys has files that belong to
 * the sandbox's own namespaces, hence to its uid 0: it is read-only.
 *
 * Everything here is found by the descriptor of the new mount, or by a path of fixed names
 * below it where it has been put, on a directory of ours: an image that fakes a /proc redirects
 * nothing (CVE-2019-19921, CVE-2025-52881).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/fdio.h"
#include "core/base/probe.h"
#include "sandbox/child.h"
#include "sandbox/tree.h"

#define QUIET (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)

int
step_proc(struct child *c, unsigned index, struct err *e)
{
	static const char *const options[] = { "hidepid", "invisible", NULL };
	CLEAN_FD int at = c->plan.late_root ? -1 : root_resolve(c->root, "proc", false);

	(void)index;
	if (at < 0 && !c->plan.late_root)
		return err_sys(e, ERR_INPUT, "/proc: cannot be mounted on");
	c->proc = tree_new("proc", options, QUIET);
	if (c->proc < 0)
		return err_sys(e, ERR_NODE,
			       "mount /proc (is the machine's own /proc covered in part, as in a container?)");
	if (c->plan.late_root ? place_ahead(c, c->proc, "proc", e) : tree_attach(c->proc, at))
		return err_sys(e, ERR_NODE, "mount on /proc");
	/* For step_quotas: by then /proc/sys is read-only. */
	c->sys_user = openat(c->proc, "sys/user", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return c->sys_user < 0 && errno != ENOENT ? err_sys(e, ERR_NODE, "open /proc/sys/user") : 0;
}

/*
 * -1 with errno for a failure, 0 otherwise: what is not there need not be covered.  One call,
 * where descriptors of a detached copy would take seven; its two paths are below mounts of
 * ours, of names that no link can take, from the root as the working directory.  The copy has
 * the flags of /dev's own mount (read-only, nothing executes), but for devices that without
 * root are mounts of their own.
 */
static int
cover(struct child *c, const char *name, const char *by)
{
	struct mount_attr locked = { .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOEXEC };
	char target[64];

	snprintf(target, sizeof target, "proc/%s", name);
	if (mount(by, target, NULL, MS_BIND, NULL))
		return errno == ENOENT && faccessat(c->proc, name, F_OK, AT_SYMLINK_NOFOLLOW) &&
				       errno == ENOENT ?
			       0 :
			       -1;
	return c->rootless ? mount_setattr(AT_FDCWD, target, AT_SYMLINK_NOFOLLOW, &locked, sizeof locked)
			   : 0;
}

static int
make_readonly(struct child *c, const char *name)
{
	CLEAN_FD int at = openat(c->proc, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	CLEAN_FD int with = -1;

	if (at < 0)
		return errno == ENOENT ? 0 : -1;
	with = tree_clone(at, "", false);
	if (with < 0 || tree_restrict(with, MOUNT_ATTR_RDONLY, false))
		return -1;
	return tree_attach(with, at);
}

int
step_mask(struct child *c, unsigned index, struct err *e)
{
	static const char nothing[] = "dev/null", empty[] = "dev/empty";
	static const struct {
		const char *name, *by;
	} covered[] = {
		{ "acpi", empty },        { "asound", empty },    { "bus", empty },
		{ "cmdline", nothing },   { "diskstats", nothing }, { "fs", empty },
		{ "interrupts", nothing }, { "kallsyms", nothing }, { "key-users", nothing },
		{ "keys", nothing },      { "latency_stats", nothing }, { "locks", nothing },
		{ "modules", nothing },   { "partitions", nothing }, { "pressure", empty },
		{ "sched_debug", nothing }, { "scsi", empty },
		{ "sys/kernel/random/boot_id", "dev/boot_id" },
	};

	(void)index;
	if (fchdir(c->plan.late_root ? c->scratch : c->root))
		return err_sys(e, ERR_NODE, "enter the root");
	/* First, or it would lie over what covers a part of it. */
	if (make_readonly(c, "sys"))
		return err_sys(e, ERR_NODE, "make /proc/sys read-only");
	for (size_t i = 0; i < sizeof covered / sizeof covered[0]; i++)
		if (cover(c, covered[i].name, covered[i].by))
			return err_sys(e, ERR_NODE, "cover /proc/%s", covered[i].name);
	return 0;
}

/*
 * Its clocks of the time since boot begin now: for the processes that init will have, not for
 * init.  The file belongs to who may trace us, which is nobody (the ids have changed) but for
 * this moment, in which nobody else is in the sandbox.
 */
int
step_clock(struct child *c, unsigned index, struct err *e)
{
	uint64_t start = clock_mono_ns() / NS_PER_S;
	struct timespec boot;
	char text[128];
	CLEAN_FD int fd = -1;
	int n, traceable;

	(void)index;
	if (!probe_has(PROBE_TIME_NAMESPACE))
		return 0;
	if (unshare(CLONE_NEWTIME) || clock_gettime(CLOCK_BOOTTIME, &boot))
		return err_sys(e, ERR_NODE, "make a time namespace");
	n = snprintf(text, sizeof text, "monotonic -%" PRIu64 " 0\nboottime -%lld 0\n", start,
		     (long long)boot.tv_sec);
	traceable = prctl(PR_GET_DUMPABLE);
	prctl(PR_SET_DUMPABLE, 1);
	fd = openat(c->proc, "self/timens_offsets", O_WRONLY | O_CLOEXEC);
	/* An ordinary user's init still is; its own steps may need it, too. */
	prctl(PR_SET_DUMPABLE, traceable);
	if (fd < 0 || write(fd, text, (size_t)n) != n)
		return err_sys(e, ERR_NODE, "write timens_offsets");
	c->clock_start_ns = start * NS_PER_S;
	return 0;
}

/*
 * Per-user limits of this user namespace.  No user namespace can be made in it, whatever
 * the filter says, and every other kind needs a capability, which nobody in it has; after
 * the mounts, because a detached copy of a mount counts as a mount namespace while it lives.  Inotify instances and watches are counted for the creator of the
 * namespace as well (without root, the user's own 128 instances by default), hence small.
 */
int
step_quotas(struct child *c, unsigned index, struct err *e)
{
	static const struct {
		const char *name, *value;
	} quotas[] = {
		{ "max_user_namespaces", "0" },
		{ "max_inotify_instances", "8" },
		{ "max_inotify_watches", "8192" },
	};

	(void)index;
	if (c->sys_user < 0)
		return 0;
	for (size_t i = 0; i < sizeof quotas / sizeof quotas[0]; i++) {
		CLEAN_FD int fd = openat(c->sys_user, quotas[i].name, O_WRONLY | O_CLOEXEC);

		if (fd < 0 && errno == ENOENT)
			continue;
		if (fd < 0 || write(fd, quotas[i].value, strlen(quotas[i].value)) < 0)
			return err_sys(e, ERR_NODE, "write /proc/sys/user/%s", quotas[i].name);
	}
	return 0;
}
