/*
 * What an earlier process of the same instance left: groups whose maker was killed.
 *
 * An instance has one manager at a time, so everything below its root is left over.  The
 * instance "run" has as many managers as there are `pratai run`s; there a group's name
 * says which process made it: pid, start time (a pid may be used again) and the pid
 * namespace that the pid belongs to.  From another pid namespace nothing can be said about a
 * pid, so those groups are left to sweeps from their own.
 *
 * A leftover group may exist in some trees only.  It is killed in all first, then waited
 * for and removed, so that the waiting of many happens at once.
 */
#include "sandbox/cgroup_driver.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/str.h"

enum { SWEEP_BATCH = 256, SWEEP_POLL_MS = 2 };
#define SWEEP_NS (2 * NS_PER_S)

struct batch {
	unsigned count;
	char dir[SWEEP_BATCH][CGROUP_DIR_MAX];
};

/* Field 22 of /proc/<pid>/stat, in clock ticks since boot; the name in field 2 may hold
 * anything, so it counts from the last ')'. */
static int
start_time(pid_t pid, uint64_t *ticks)
{
	char path[64], text[CGROUP_FILE_MAX], *at;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	if (cgroup_read(AT_FDCWD, NULL, path, text) < 0 || !(at = strrchr(text, ')')))
		return -1;
	for (unsigned field = 2; field < 22; field++) {
		at = strchr(at, ' ');
		if (!at)
			return -1;
		at++;
	}
	*ticks = strtoull(at, NULL, 10);
	return 0;
}

static int
pid_namespace(uint64_t *ino)
{
	struct stat st;

	if (stat("/proc/self/ns/pid", &st) < 0)
		return -1;
	*ino = st.st_ino;
	return 0;
}

int
cgroup_run_name(char out[CGROUP_NAME_MAX], struct err *e)
{
	uint64_t ticks, ns;

	if (start_time(getpid(), &ticks) < 0 || pid_namespace(&ns) < 0)
		return err_sys(e, ERR_NODE, "cannot read /proc/self");
	snprintf(out, CGROUP_NAME_MAX, "run-%d-%" PRIu64 "-%" PRIu64, (int)getpid(), ticks, ns);
	return 0;
}

/* Whether a group of the instance "run" has lost its maker. */
static bool
is_orphan(const char *dir)
{
	uint64_t ticks, ns, then, its;
	char end;
	int pid;

	if (sscanf(dir, "pratai-run-%d-%" SCNu64 "-%" SCNu64 "%c", &pid, &then, &its, &end) != 3)
		return false;
	if (pid_namespace(&ns) < 0 || ns != its || pid <= 0)
		return false;
	return start_time(pid, &ticks) < 0 ? errno == ENOENT || errno == ESRCH : ticks != then;
}

static int
list_groups(const struct cgroup_manager *m, const struct cgroup_tree *t, struct batch *b,
	    struct err *e)
{
	int fd = openat(t->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *d;

	b->count = 0;
	if (!dir) {
		fd_close(&fd);
		return err_sys(e, ERR_NODE, "cannot list the cgroups below %s", t->path);
	}
	while (b->count < SWEEP_BATCH && (d = readdir(dir)) != NULL) {
		if (d->d_type != DT_DIR || d->d_name[0] == '.' ||
		    strcmp(d->d_name, CGROUP_KEEPER) == 0)
			continue;
		if (m->flat && !is_orphan(d->d_name))
			continue;
		if (str_copy(b->dir[b->count], CGROUP_DIR_MAX, d->d_name) == 0)
			b->count++;
	}
	closedir(dir);
	return 0;
}

static void
kill_everywhere(const struct cgroup_manager *m, const char *dir)
{
	for (unsigned i = 0; i < m->tree_count; i++) {
		const struct cgroup_tree *t = &m->trees[i];

		if (t->controllers & CGROUP_CPU)
			cgroup_write(t->root, dir, t->driver->v2 ? "cpu.max" : "cpu.cfs_quota_us",
				     t->driver->v2 ? "max" : "-1");
		if (!t->driver->v2 || !m->can_kill ||
		    cgroup_write(t->root, dir, "cgroup.kill", "1") < 0)
			cgroup_kill_listed(t->root, dir);
	}
}

/* 0: gone from every tree; -1: something still holds it. */
static int
remove_everywhere(const struct cgroup_manager *m, const char *dir)
{
	for (unsigned i = m->tree_count; i-- > 0;)
		if (unlinkat(m->trees[i].root, dir, AT_REMOVEDIR) < 0 && errno != ENOENT)
			return -1;
	return 0;
}

/* The number of groups of b that are gone. */
static int
sweep_batch(const struct cgroup_manager *m, const struct batch *b, uint64_t deadline)
{
	static const struct timespec pause = {.tv_nsec = SWEEP_POLL_MS * (long)NS_PER_MS};
	int removed = 0;

	for (unsigned i = 0; i < b->count; i++)
		kill_everywhere(m, b->dir[i]);
	for (unsigned i = 0; i < b->count; i++) {
		bool gone;

		while (!(gone = remove_everywhere(m, b->dir[i]) == 0) &&
		       clock_mono_ns() < deadline) {
			nanosleep(&pause, NULL);
			kill_everywhere(m, b->dir[i]);
		}
		removed += gone;
	}
	return removed;
}

static int
sweep_trees(const struct cgroup_manager *m, struct batch *b, struct err *e)
{
	uint64_t deadline = clock_mono_ns() + SWEEP_NS;
	int removed = 0, left = 0;

	for (unsigned i = 0; i < m->tree_count; i++) {
		int n;

		do {
			if (list_groups(m, &m->trees[i], b, e) < 0)
				return -1;
			n = sweep_batch(m, b, deadline);
			removed += n;
			left += (int)b->count - n;
		} while (n > 0 && b->count == SWEEP_BATCH);
	}
	if (left)
		return err_set(e, ERR_AGAIN, "%d cgroups of an earlier run cannot be removed yet",
			       left);
	return removed;
}

/*
 * The earlier manager may have had other trees, so all are looked at.  For the instance "run"
 * only when there is something in the first one, where a group is made first and removed last:
 * this is done at every run.  Its own manager may lack trees that another run used (--cpus).
 */
int
cgroup_sweep(struct cgroup_manager *m, struct err *e)
{
	CLEAN_FREE struct batch *b = malloc(sizeof *b);
	struct cgroup_manager *all;
	struct err unasked; /* to make a manager, errors are looked at */
	int rc;

	if (!b)
		return err_set(e, ERR_NODE, "out of memory");
	if (!m->flat)
		return sweep_trees(m, b, e);
	if (list_groups(m, &m->trees[0], b, e) < 0)
		return -1;
	if (b->count == 0)
		return 0;
	all = cgroup_manager_everywhere(m, e ? e : &unasked);
	rc = all ? sweep_trees(all, b, e) : -1;
	cgroup_manager_free(all);
	return rc;
}
