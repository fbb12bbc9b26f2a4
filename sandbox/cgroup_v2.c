/*
 * The driver of the v2 (unified) hierarchy, and of the v2 tree without controllers that
 * hybrid hosts have beside v1.
 *
 * Placement is CLONE_INTO_CGROUP on the group's directory.  memory.oom.group makes the
 * kernel end the whole group when its limit is reached; memory.events counts it and is
 * pollable, as is `populated` in cgroup.events.  cgroup.kill ends all, also processes
 * that fork while it works.  Everything here is in Linux 6.1; cgroup.kill (5.14) and
 * memory.peak (5.19) have fallbacks because a test may forbid them.
 *
 * A group can hold processes, or give controllers to children, not both (but for the real
 * root).  `base` gives controllers to the instance's root, which gives them to the
 * groups; how base comes to be free of processes is in cgroup.h (cgroup_manager_new) and
 * cgroup_base.c.
 */
#include "sandbox/cgroup_driver.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/fdio.h"

enum { KILL_ROUNDS = 8 };

static int
prepare(struct cgroup_manager *m, struct cgroup_tree *t, unsigned want, unsigned need,
	struct err *e)
{
	t->controllers &= want;
	if (cgroup_v2_give(t->root, t->path, t->controllers, need, &t->controllers, e) < 0)
		return -1;
	/* No groups below groups.  The instance "run" has no root: open_group says it there. */
	if (!m->flat && cgroup_write(t->root, NULL, "cgroup.max.depth", "1") < 0)
		return err_sys(e, ERR_NODE, "cannot write cgroup.max.depth below %s", t->path);
	if (need & t->controllers & CGROUP_CPU && !m->flat) {
		mkdirat(t->root, CGROUP_KEEPER, 0755);
		cgroup_write(t->root, CGROUP_KEEPER, "cpu.max", "100000");
	}
	return 0;
}

/*
 * Whether dir may give controllers to children: it holds no process, or is the real root
 * (which has no cgroup.type).  The kernel refuses that only for memory; given pids or cpu
 * it turns a group with processes into a "threaded" one, whose children can hold no
 * process at all.  So we ask first.
 */
static bool
may_give(int dir)
{
	char buf[CGROUP_FILE_MAX];

	if (faccessat(dir, "cgroup.type", F_OK, 0) < 0)
		return true;
	return cgroup_read(dir, NULL, "cgroup.procs", buf) == 0;
}

static int
give_one(int dir, const char *path, const char *name, bool needed, struct err *e)
{
	char text[16];

	snprintf(text, sizeof text, "+%s", name);
	errno = EBUSY;
	if (may_give(dir) && cgroup_write(dir, NULL, "cgroup.subtree_control", text) == 0)
		return 1;
	return needed ? err_sys(e, ERR_NODE, "cannot write %s to cgroup.subtree_control of %s",
				text, path)
		      : 0;
}

int
cgroup_v2_give(int dir, const char *path, unsigned want, unsigned need, unsigned *given,
	       struct err *e)
{
	char there[CGROUP_FILE_MAX], has[CGROUP_FILE_MAX];

	*given = 0;
	if (!want)
		return 0;
	if (cgroup_read(dir, NULL, "cgroup.controllers", there) < 0 ||
	    cgroup_read(dir, NULL, "cgroup.subtree_control", has) < 0)
		return err_sys(e, ERR_NODE, "cannot read cgroup.subtree_control of %s", path);
	for (unsigned c = 1; c < 1u << CGROUP_CONTROLLERS; c <<= 1) {
		const char *name = cgroup_controller_name(c);
		int gave = 0;

		if (!(want & c))
			continue;
		if (cgroup_word(has, name))
			gave = 1;
		else if (cgroup_word(there, name))
			gave = give_one(dir, path, name, need & c, e);
		else if (need & c)
			return err_set(e, ERR_NODE,
				       "the %s controller is not in cgroup.controllers of %s", name,
				       path);
		if (gave < 0)
			return -1;
		*given |= gave ? c : 0;
	}
	return 0;
}

/* What does not depend on the limit's number. */
static int
guard_memory(struct cgroup *g, const struct cgroup_tree *t, struct err *e)
{
	int rc;

	if (g->memory_guarded)
		return 0;
	if (cgroup_write(t->root, g->dir, "memory.oom.group", "1") < 0)
		return err_sys(e, ERR_NODE, "cannot write memory.oom.group of cgroup %s (below %s)",
			       g->dir, t->path);
	if (cgroup_slot(g, t, SLOT_SWAP, "memory.swap.max") >= 0 || errno != ENOENT) {
		rc = cgroup_set(g, t, SLOT_SWAP, "memory.swap.max", 0, e);
		fd_close(&g->slot[SLOT_SWAP]);
		if (rc < 0)
			return -1;
	} else if (cgroup_host_swaps()) {
		return err_set(e, ERR_NODE,
			       "memory: %s has no memory.swap.max but the machine swaps: boot with "
			       "swapaccount=1, or swapoff -a",
			       t->path);
	}
	g->memory_guarded = true;
	return 0;
}

static int
open_group(struct cgroup *g, unsigned tree, unsigned prepared, struct err *e)
{
	const struct cgroup_tree *t = &g->m->trees[tree];

	g->into = cgroup_open(t->root, NULL, g->dir, O_RDONLY | O_DIRECTORY);
	if (g->into < 0)
		return err_sys(e, ERR_NODE, "cannot open cgroup %s (below %s)", g->dir, t->path);
	g->events = cgroup_open(g->into, NULL, "cgroup.events", O_RDONLY);
	if (g->events < 0)
		return err_sys(e, ERR_NODE, "cannot open cgroup.events of cgroup %s", g->dir);
	if (g->m->flat && cgroup_write(g->into, NULL, "cgroup.max.descendants", "0") < 0)
		return err_sys(e, ERR_NODE, "cannot write cgroup.max.descendants of cgroup %s",
			       g->dir);
	/* What cannot be opened now is reported when it is used. */
	cgroup_slot(g, t, SLOT_CPU_TIME, "cpu.stat");
	prepared &= t->controllers;
	if (prepared & CGROUP_MEMORY) {
		cgroup_slot(g, t, SLOT_MEMORY, "memory.max");
		if (g->m->has_memory_peak &&
		    cgroup_slot(g, t, SLOT_MEMORY_PEAK, "memory.peak") < 0 && errno == ENOENT)
			g->m->has_memory_peak = false;
		if (guard_memory(g, t, e) < 0)
			return -1;
	}
	if (prepared & CGROUP_PIDS) {
		cgroup_slot(g, t, SLOT_PIDS, "pids.max");
		cgroup_slot(g, t, SLOT_PIDS_EVENTS, "pids.events");
		if (g->m->has_pids_peak)
			cgroup_slot(g, t, SLOT_PIDS_PEAK, "pids.peak");
	}
	if (prepared & CGROUP_CPU)
		cgroup_slot(g, t, SLOT_CPU, "cpu.max");
	return 0;
}

static int
limit_cpu(struct cgroup *g, const struct cgroup_tree *t, uint32_t millis, struct err *e)
{
	uint64_t quota, period;
	char text[48];

	cgroup_cpu_quota(millis, &quota, &period);
	snprintf(text, sizeof text, "%" PRIu64 " %" PRIu64, quota, period);
	g->quota = true;
	return cgroup_set_text(g, t, SLOT_CPU, "cpu.max", text, e);
}

static int
limit(struct cgroup *g, const struct cgroup_tree *t, const struct cgroup_limits *l, struct err *e)
{
	if (t->controllers & CGROUP_MEMORY && l->memory_bytes &&
	    (guard_memory(g, t, e) < 0 ||
	     cgroup_set(g, t, SLOT_MEMORY, "memory.max", l->memory_bytes, e) < 0))
		return -1;
	if (t->controllers & CGROUP_PIDS && l->pids &&
	    cgroup_set(g, t, SLOT_PIDS, "pids.max", l->pids, e) < 0)
		return -1;
	if (t->controllers & CGROUP_CPU && l->cpu_millis &&
	    limit_cpu(g, t, l->cpu_millis, e) < 0)
		return -1;
	return 0;
}

static int
lift_quota(struct cgroup *g, const struct cgroup_tree *t, struct err *e)
{
	if (cgroup_write(t->root, g->dir, "cpu.max", "max") < 0)
		return err_sys(e, ERR_NODE, "cannot lift cpu.max of cgroup %s", g->dir);
	return 0;
}

static int
watch_oom(struct cgroup *g, const struct cgroup_tree *t, struct err *e)
{
	char buf[CGROUP_FILE_MAX];

	g->oom = cgroup_open(t->root, g->dir, "memory.events", O_RDONLY);
	/* A descriptor that was never read counts as changed: read it now. */
	if (g->oom < 0 || cgroup_reread(g->oom, buf) < 0)
		return err_sys(e, ERR_NODE, "cannot watch memory.events of cgroup %s", g->dir);
	return 0;
}

static void
sample_memory(struct cgroup *g, const struct cgroup_tree *t)
{
	uint64_t now;

	if (!g->m->has_memory_peak && t->controllers & CGROUP_MEMORY &&
	    cgroup_read_u64(t->root, g->dir, "memory.current", &now) == 0 && now > g->peak_seen)
		g->peak_seen = now;
}

/* `oom`: this group's limit was reached and nothing could be freed; oom_kill alone may be
 * the work of a group around us, or of the whole machine. */
static bool
oom(struct cgroup *g, const struct cgroup_tree *t)
{
	char buf[CGROUP_FILE_MAX];

	sample_memory(g, t);
	return cgroup_reread(g->oom, buf) > 0 && cgroup_key(buf, "oom", 0) &&
	       cgroup_key(buf, "oom_kill", 0);
}

static int
usage_memory(struct cgroup *g, const struct cgroup_tree *t, struct cgroup_usage *u, struct err *e)
{
	char buf[CGROUP_FILE_MAX];

	sample_memory(g, t);
	u->memory_peak_bytes = g->peak_seen;
	if (g->m->has_memory_peak &&
	    cgroup_get_u64(g, t, SLOT_MEMORY_PEAK, "memory.peak", &u->memory_peak_bytes) < 0)
		return err_sys(e, ERR_NODE, "cannot read memory.peak of cgroup %s", g->dir);
	if ((g->oom >= 0 ? cgroup_reread(g->oom, buf)
			 : cgroup_read(t->root, g->dir, "memory.events", buf)) < 0)
		return err_sys(e, ERR_NODE, "cannot read memory.events of cgroup %s", g->dir);
	u->oom_kills = (uint32_t)cgroup_key(buf, "oom_kill", 0);
	return 0;
}

static int
usage(struct cgroup *g, const struct cgroup_tree *t, struct cgroup_usage *u, struct err *e)
{
	char buf[CGROUP_FILE_MAX];

	if (cgroup_get(g, t, SLOT_CPU_TIME, "cpu.stat", buf) < 0)
		return err_sys(e, ERR_NODE, "cannot read cpu.stat of cgroup %s", g->dir);
	u->cpu_ns = cgroup_key(buf, "usage_usec", 0) * 1000;
	if (t->controllers & CGROUP_MEMORY && usage_memory(g, t, u, e) < 0)
		return -1;
	if (t->controllers & CGROUP_PIDS)
		cgroup_get_pids(g, t, u);
	return 0;
}

/* Frozen processes cannot fork away from under us, and SIGKILL ends them all the same;
 * what was forking at the moment of freezing shows up in the next round.  Always thawed. */
static int
freeze_and_kill(struct cgroup *g, const struct cgroup_tree *t)
{
	int killed = 1, saved;

	cgroup_write(t->root, g->dir, "cgroup.freeze", "1");
	for (unsigned i = 0; killed > 0 && i < KILL_ROUNDS; i++)
		killed = cgroup_kill_listed(t->root, g->dir);
	saved = errno;
	cgroup_write(t->root, g->dir, "cgroup.freeze", "0");
	errno = saved;
	return killed < 0 ? -1 : 0;
}

static int
kill_group(struct cgroup *g, const struct cgroup_tree *t, struct err *e)
{
	int rc;

	sample_memory(g, t);
	rc = g->m->can_kill ? cgroup_write(t->root, g->dir, "cgroup.kill", "1")
			    : freeze_and_kill(g, t);
	if (rc < 0)
		return err_sys(e, ERR_NODE, "cannot end the processes of cgroup %s", g->dir);
	return 0;
}

static int
populated(struct cgroup *g, const struct cgroup_tree *t, struct err *e)
{
	char buf[CGROUP_FILE_MAX];

	(void)t;
	if (cgroup_reread(g->events, buf) < 0)
		return err_sys(e, ERR_NODE, "cannot read cgroup.events of cgroup %s", g->dir);
	return cgroup_key(buf, "populated", 1) != 0;
}

const struct cgroup_driver cgroup_v2_driver = {
	.v2 = true,
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
