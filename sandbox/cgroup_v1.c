/*
 * The driver of v1 hierarchies (pure v1 hosts, and the limits of hybrid ones).
 *
 * Placement: the new process writes "0" to `tasks`, which moves only the calling thread
 * and takes no lock that waits for a grace period; writing a pid to cgroup.procs does.
 *
 * Out of memory: v1 cannot kill a whole group.  An eventfd registered on
 * memory.oom_control tells that the group is in trouble, before the kernel has chosen
 * whom to kill; our caller then ends the group.  It is signalled for every group below
 * the one whose limit was reached, and at rmdir; so the group's peak, at its limit or not,
 * decides whether the trouble was its own.
 *
 * Swap: memory+swap (memsw) is limited to the same number as memory, so swapping gains
 * nothing; the kernel wants the two written in that order, the smaller first.  Buffers of
 * TCP sockets are counted apart on v1 and unlimited by default, and every sandbox has a
 * loopback to hoard them on: they get the same limit once more.
 *
 * The CPU time is cpuacct's only where there is no v2 tree beside.
 */
#include "sandbox/cgroup_driver.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/fdio.h"

/* In pages: the largest allocation for which the kernel calls the OOM killer. */
enum { LAST_ALLOCATION = 8 };

#define LIMIT "memory.limit_in_bytes"
#define MEMSW "memory.memsw.limit_in_bytes"
#define TCP "memory.kmem.tcp.limit_in_bytes"
#define PEAK "memory.max_usage_in_bytes"
#define QUOTA "cpu.cfs_quota_us"

static int
prepare(struct cgroup_manager *m, struct cgroup_tree *t, unsigned want, unsigned need,
	struct err *e)
{
	(void)e;
	t->controllers &= want; /* a v1 hierarchy's controllers are there for every group */
	if (need & CGROUP_CPU && !m->flat) {
		mkdirat(t->root, CGROUP_KEEPER, 0755);
		cgroup_write(t->root, CGROUP_KEEPER, QUOTA, "100000");
	}
	return 0;
}

static int
set_period(struct cgroup *g, const struct cgroup_tree *t, uint64_t us, struct err *e)
{
	char text[24];

	snprintf(text, sizeof text, "%" PRIu64, us);
	if (cgroup_write(t->root, g->dir, "cpu.cfs_period_us", text) < 0)
		return err_sys(e, ERR_NODE, "cannot write %s to cpu.cfs_period_us of cgroup %s",
			       text, g->dir);
	return 0;
}

static int
open_group(struct cgroup *g, unsigned tree, unsigned prepared, struct err *e)
{
	const struct cgroup_tree *t = &g->m->trees[tree];

	g->tasks[tree] = cgroup_open(t->root, g->dir, "tasks", O_WRONLY);
	if (g->tasks[tree] < 0)
		return err_sys(e, ERR_NODE, "cannot open tasks of cgroup %s (below %s)", g->dir,
			       t->path);
	/* What cannot be opened now is reported when it is used. */
	prepared &= t->controllers;
	if (prepared & CGROUP_MEMORY) {
		cgroup_slot(g, t, SLOT_MEMORY, LIMIT);
		cgroup_slot(g, t, SLOT_SWAP, MEMSW);
		cgroup_slot(g, t, SLOT_TCP, TCP);
		cgroup_slot(g, t, SLOT_MEMORY_PEAK, PEAK);
	}
	if (prepared & CGROUP_PIDS) {
		cgroup_slot(g, t, SLOT_PIDS, "pids.max");
		cgroup_slot(g, t, SLOT_PIDS_EVENTS, "pids.events");
		cgroup_slot(g, t, SLOT_PIDS_PEAK, "pids.peak");
	}
	if (prepared & CGROUP_CPU)
		cgroup_slot(g, t, SLOT_CPU, QUOTA);
	return 0;
}

static int
limit_memory(struct cgroup *g, const struct cgroup_tree *t, uint64_t bytes, struct err *e)
{
	if (cgroup_set(g, t, SLOT_MEMORY, LIMIT, bytes, e) < 0)
		return -1;
	if (cgroup_slot(g, t, SLOT_SWAP, MEMSW) >= 0 || errno != ENOENT) {
		if (cgroup_set(g, t, SLOT_SWAP, MEMSW, bytes, e) < 0)
			return -1;
	} else if (cgroup_host_swaps()) {
		return err_set(e, ERR_NODE,
			       "memory: %s has no " MEMSW " but the machine swaps: boot with "
			       "swapaccount=1, or swapoff -a",
			       t->path);
	}
	if (cgroup_slot(g, t, SLOT_TCP, TCP) >= 0 || errno != ENOENT)
		return cgroup_set(g, t, SLOT_TCP, TCP, bytes, e);
	return 0;
}

static int
limit(struct cgroup *g, const struct cgroup_tree *t, const struct cgroup_limits *l, struct err *e)
{
	uint64_t period, quota;

	if (t->controllers & CGROUP_MEMORY && l->memory_bytes &&
	    limit_memory(g, t, l->memory_bytes, e) < 0)
		return -1;
	if (t->controllers & CGROUP_PIDS && l->pids &&
	    cgroup_set(g, t, SLOT_PIDS, "pids.max", l->pids, e) < 0)
		return -1;
	if (!(t->controllers & CGROUP_CPU) || !l->cpu_millis)
		return 0;
	cgroup_cpu_quota(l->cpu_millis, &quota, &period);
	g->quota = true;
	/* A group is born with a period of 100 ms. */
	if (period != CGROUP_PERIOD_US && set_period(g, t, period, e) < 0)
		return -1;
	return cgroup_set(g, t, SLOT_CPU, QUOTA, quota, e);
}

static int
lift_quota(struct cgroup *g, const struct cgroup_tree *t, struct err *e)
{
	if (cgroup_write(t->root, g->dir, QUOTA, "-1") < 0)
		return err_sys(e, ERR_NODE, "cannot lift " QUOTA " of cgroup %s", g->dir);
	return 0;
}

static int
watch_oom(struct cgroup *g, const struct cgroup_tree *t, struct err *e)
{
	char text[64];

	g->oom_control = cgroup_open(t->root, g->dir, "memory.oom_control", O_RDONLY);
	g->oom = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (g->oom_control < 0 || g->oom < 0)
		return err_sys(e, ERR_NODE, "cannot watch memory.oom_control of cgroup %s", g->dir);
	snprintf(text, sizeof text, "%d %d", g->oom, g->oom_control);
	if (cgroup_write(t->root, g->dir, "cgroup.event_control", text) < 0)
		return err_sys(e, ERR_NODE, "cannot register with cgroup.event_control of cgroup %s",
			       g->dir);
	return 0;
}

/*
 * Whether the group was ever at its own limit.  memory.failcnt would say so, but newer
 * kernels (6.18) leave it at 0.  When the OOM killer is called, the allocation that did
 * not fit is of at most 8 pages (larger ones fail instead), so the peak is that close.
 */
static bool
reached_limit(struct cgroup *g, const struct cgroup_tree *t)
{
	uint64_t peak;

	return cgroup_get_u64(g, t, SLOT_MEMORY_PEAK, PEAK, &peak) == 0 &&
	       peak + LAST_ALLOCATION * (uint64_t)sysconf(_SC_PAGESIZE) >= g->memory_limit;
}

static uint64_t
oom_kills(const struct cgroup *g, const struct cgroup_tree *t)
{
	char buf[CGROUP_FILE_MAX];
	int n = g->oom_control >= 0 ? cgroup_reread(g->oom_control, buf)
				    : cgroup_read(t->root, g->dir, "memory.oom_control", buf);

	return n < 0 ? 0 : cgroup_key(buf, "oom_kill", 0);
}

static bool
oom(struct cgroup *g, const struct cgroup_tree *t)
{
	uint64_t count;

	if (read(g->oom, &count, sizeof count) == sizeof count)
		g->oom_signalled = true;
	return (g->oom_signalled || oom_kills(g, t)) && reached_limit(g, t);
}

static int
usage(struct cgroup *g, const struct cgroup_tree *t, struct cgroup_usage *u, struct err *e)
{
	if (t->controllers & CGROUP_MEMORY) {
		if (cgroup_get_u64(g, t, SLOT_MEMORY_PEAK, PEAK, &u->memory_peak_bytes) < 0)
			return err_sys(e, ERR_NODE, "cannot read " PEAK " of cgroup %s", g->dir);
		u->oom_kills = (uint32_t)oom_kills(g, t);
	}
	if (t->controllers & CGROUP_CPUACCT && g->m->unified < 0 &&
	    cgroup_get_u64(g, t, SLOT_CPU_TIME, "cpuacct.usage", &u->cpu_ns) < 0)
		return err_sys(e, ERR_NODE, "cannot read cpuacct.usage of cgroup %s", g->dir);
	if (t->controllers & CGROUP_PIDS)
		cgroup_get_pids(g, t, u);
	return 0;
}

/* Without a v2 tree: no fork succeeds from here on where the pids controller is, so the
 * list of processes can only shrink. */
static int
kill_group(struct cgroup *g, const struct cgroup_tree *t, struct err *e)
{
	if (t->controllers & CGROUP_PIDS)
		cgroup_write(t->root, g->dir, "pids.max", "0");
	if (cgroup_kill_listed(t->root, g->dir) < 0)
		return err_sys(e, ERR_NODE, "cannot end the processes of cgroup %s", g->dir);
	return 0;
}

static int
populated(struct cgroup *g, const struct cgroup_tree *t, struct err *e)
{
	char buf[CGROUP_FILE_MAX];
	int n = cgroup_read(t->root, g->dir, "cgroup.procs", buf);

	if (n < 0)
		return err_sys(e, ERR_NODE, "cannot read cgroup.procs of cgroup %s", g->dir);
	return n > 0;
}

const struct cgroup_driver cgroup_v1_driver = {
	.v2 = false,
	.prepare = prepare,
	.open = open_group,
	.limit = limit,
	.lift_quota = lift_quota,
	.watch_oom = watch_oom,
	.oom = oom,
	.usage = usage,
	.kill = kill_group,
	.populated = populated,
};
