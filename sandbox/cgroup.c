/*
 * The manager and the life of a group, over whatever trees the host has.
 *
 * A group is one directory of the same name in each tree that the manager uses.  Which
 * trees those are is decided once: those of the controllers that limits will need, the
 * memory controller's also without a limit (its peak is in every report), and the v2
 * tree.  cgroup_create does what can be done before an event is there (directories,
 * descriptors, the OOM watch), so that the event's path only writes numbers.
 */
#include "sandbox/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/probe.h"
#include "core/base/str.h"
#include "sandbox/cgroup_driver.h"

/* How long an earlier manager of the instance may take to end. */
#define LOCK_WAIT_NS (15 * NS_PER_S)

/* ---- The manager ---- */

static unsigned
needed(const struct cgroup_limits *l)
{
	return (l->memory_bytes ? CGROUP_MEMORY : 0) | (l->pids ? CGROUP_PIDS : 0) |
	       (l->cpu_millis ? CGROUP_CPU : 0);
}

static struct cgroup_tree *
add_tree(struct cgroup_manager *m, const struct cgroup_driver *driver, unsigned controllers)
{
	struct cgroup_tree *t = &m->trees[m->tree_count];

	*t = (struct cgroup_tree){
		.driver = driver, .controllers = controllers, .base = -1, .root = -1};
	return t;
}

static void
close_tree(struct cgroup_tree *t)
{
	fd_close(&t->root);
	fd_close(&t->base);
}

static int
open_v1_base(const struct cgroup_host *h, unsigned i, const char *parent, struct cgroup_tree *t,
	     struct err *e)
{
	char path[PATH_MAX];

	if (cgroup_host_path(h, i, parent, path, e) < 0)
		return -1;
	if (snprintf(t->path, sizeof t->path, "%s%s", h->at[i].mount, path) >= (int)sizeof t->path)
		return err_set(e, ERR_NODE, "the path of a cgroup is too long");
	if (parent && *path && dir_make(AT_FDCWD, t->path, 0755, e) < 0)
		return -1;
	t->base = open(t->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t->base < 0)
		return err_sys(e, ERR_NODE, "cannot open %s", t->path);
	return 0;
}

/* base/pratai-<instance>; the directory may be an earlier manager's. */
static int
make_root(const struct cgroup_manager *m, struct cgroup_tree *t, struct err *e)
{
	char name[CGROUP_DIR_MAX];

	snprintf(name, sizeof name, "pratai-%s", m->instance);
	if (mkdirat(t->base, name, 0755) < 0 && errno != EEXIST)
		return err_sys(e, ERR_NODE, "cannot make cgroup %s/%s", t->path, name);
	t->root = openat(t->base, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t->root < 0)
		return err_sys(e, ERR_NODE, "cannot open cgroup %s/%s", t->path, name);
	return 0;
}

/* 1: the instance is ours; 0: its root was removed meanwhile, or is somebody else's yet.
 * The file is one that nothing else opens: the lock would go with the first descriptor of it
 * that this process closes. */
static int
try_lock(struct cgroup_manager *m, const struct cgroup_tree *t, struct err *e)
{
	const char *file = t->driver->v2 ? "cgroup.max.descendants" : "cgroup.clone_children";
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	struct stat locked, now;

	m->lock = openat(t->root, file, O_RDWR | O_CLOEXEC);
	if (m->lock < 0)
		return errno == ENOENT || errno == ENODEV ?
			       0 :
			       err_sys(e, ERR_NODE, "cannot open %s below %s", file, t->path);
	if (fcntl(m->lock, F_SETLK, &whole) == 0) {
		char name[CGROUP_DIR_MAX];

		snprintf(name, sizeof name, "pratai-%s", m->instance);
		if (fstat(t->root, &locked) == 0 && fstatat(t->base, name, &now, 0) == 0 &&
		    locked.st_ino == now.st_ino)
			return 1;
	} else if (errno != EACCES && errno != EAGAIN) {
		return err_sys(e, ERR_NODE, "cannot lock %s below %s", file, t->path);
	}
	fd_close(&m->lock);
	return 0;
}

/*
 * The first tree's root, and the lock on it.  An earlier manager of the instance may be
 * ending just now: it removes every group below the roots, and then these, whosever they
 * are by then.  The lock is the process's own (no child of it inherits one) and goes with
 * it.
 */
static int
open_first_root(struct cgroup_manager *m, struct cgroup_tree *t, struct err *e)
{
	static const struct timespec pause = {.tv_nsec = 2 * (long)NS_PER_MS};
	uint64_t deadline = clock_mono_ns() + LOCK_WAIT_NS;
	int rc;

	for (;;) {
		if (make_root(m, t, e) < 0)
			return -1;
		rc = try_lock(m, t, e);
		if (rc != 0)
			return rc < 0 ? -1 : 0;
		fd_close(&t->root);
		if (clock_mono_ns() > deadline)
			return err_set(e, ERR_NODE, "another process manages the cgroups of "
						    "instance %s (below %s)", m->instance, t->path);
		nanosleep(&pause, NULL);
	}
}

static int
open_root(struct cgroup_manager *m, struct cgroup_tree *t, struct err *e)
{
	if (m->flat) {
		t->root = fcntl(t->base, F_DUPFD_CLOEXEC, 3);
		return t->root < 0 ? err_sys(e, ERR_NODE, "cannot copy a descriptor") : 0;
	}
	return m->lock < 0 ? open_first_root(m, t, e) : make_root(m, t, e);
}

/* Opens one hierarchy for the controllers of want; need: those without which it is an
 * error.  A tree that fails but is not needed is left out. */
static int
use_tree(struct cgroup_manager *m, const struct cgroup_host *h, unsigned i, const char *parent,
	 unsigned want, unsigned need, struct err *e)
{
	const struct cgroup_driver *driver =
		h->at[i].v2 ? &cgroup_v2_driver : &cgroup_v1_driver;
	struct cgroup_tree *t = add_tree(m, driver, want);
	int rc;

	rc = driver->v2 ? cgroup_v2_base(h, i, parent, t, want, need, e)
			: open_v1_base(h, i, parent, t, e);
	if (rc < 0 || open_root(m, t, e) < 0 || driver->prepare(m, t, want, need, e) < 0 ||
	    (faccessat(t->root, "cgroup.procs", W_OK, AT_EACCESS) < 0 &&
	     err_sys(e, ERR_NODE, "cannot write to cgroup %s", t->path))) {
		close_tree(t);
		if (!need)
			return 0;
		return err_wrap(e, "%s cgroup", cgroup_controller_name(need & -need));
	}
	m->tree_count++;
	return 0;
}

static int
use_host(struct cgroup_manager *m, const struct cgroup_host *h, const char *parent, unsigned want,
	 struct err *e)
{
	unsigned need = needed(&m->need), on_v1 = 0, have = 0;
	int v2 = -1;

	for (unsigned i = 0; i < h->count; i++) {
		on_v1 |= h->at[i].controllers;
		if (h->at[i].v2)
			v2 = (int)i;
	}
	/* The v2 tree comes first: whether it works decides what v1 has to do. */
	if (v2 >= 0) {
		unsigned here = (want | CGROUP_PIDS) & ~on_v1;

		if (use_tree(m, h, (unsigned)v2, parent, here, need & ~on_v1, e) < 0)
			return -1;
		m->unified = m->tree_count ? 0 : -1;
	}
	if (m->unified < 0)
		want |= CGROUP_CPUACCT | CGROUP_PIDS; /* time, and killing without cgroup.kill */
	for (unsigned i = 0; i < h->count; i++) {
		unsigned here = h->at[i].controllers & want;

		if (!h->at[i].v2 && here && use_tree(m, h, i, parent, here, need & here, e) < 0)
			return -1;
	}
	for (unsigned i = 0; i < m->tree_count; i++)
		have |= m->trees[i].controllers;
	need &= ~have;
	if (need)
		return err_set(e, ERR_NODE, "this machine has no %s cgroup controller mounted",
			       cgroup_controller_name(need & -need));
	if (!m->tree_count)
		return err_set(e, ERR_NODE, "no cgroup can be made here: none of the hierarchies "
					    "is writable for this process");
	return 0;
}

static bool
name_ok(const char *name, size_t max, bool dots)
{
	size_t n = 0;

	for (; name[n]; n++) {
		char c = name[n];
		bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');

		if (n == max || (!plain && !(dots && n && (c == '.' || c == '-'))))
			return false;
	}
	return n > 0;
}

/* Asked once: a feature of the kernel, forbidden or not by the environment. */
static void
probe(struct cgroup_manager *m)
{
	const struct cgroup_tree *t = m->unified >= 0 ? &m->trees[m->unified] : NULL;

	m->can_kill = t && !probe_disabled("cgroup.kill");
	m->has_memory_peak = !probe_disabled("memory.peak");
	m->has_pids_peak = !probe_disabled("pids.peak");
}

static struct cgroup_manager *
new_manager(const char *instance, const char *parent, const struct cgroup_limits *need,
	    unsigned want, struct err *e)
{
	CLEAN_FREE struct cgroup_host *host = malloc(sizeof *host);
	struct cgroup_manager *m = calloc(1, sizeof *m);

	if (!m || !host) {
		free(m);
		err_set(e, ERR_NODE, "out of memory");
		return NULL;
	}
	m->unified = m->lock = -1;
	if (!name_ok(instance, CGROUP_INSTANCE_MAX - 1, false)) {
		err_set(e, ERR_INPUT, "an instance's name is 1 to 16 of a-z and 0-9");
		goto fail;
	}
	str_copy(m->instance, sizeof m->instance, instance);
	m->flat = strcmp(instance, CGROUP_INSTANCE_RUN) == 0;
	m->need = *need;
	if (cgroup_host_read(host, e) < 0 || use_host(m, host, parent, want, e) < 0)
		goto fail;
	probe(m);
	return m;
fail:
	cgroup_manager_free(m);
	return NULL;
}

struct cgroup_manager *
cgroup_manager_new(const char *instance, const char *parent, const struct cgroup_limits *need,
		   struct err *e)
{
	static const struct cgroup_limits none;

	return new_manager(instance, parent, need ? need : &none,
			   need ? needed(need) | CGROUP_MEMORY : CGROUP_LIMITED, e);
}

struct cgroup_manager *
cgroup_manager_everywhere(const struct cgroup_manager *m, struct err *e)
{
	return new_manager(m->instance, NULL, &m->need, CGROUP_LIMITED, e);
}

void
cgroup_manager_free(struct cgroup_manager *m)
{
	char name[CGROUP_DIR_MAX];

	if (!m)
		return;
	snprintf(name, sizeof name, "pratai-%s", m->instance);
	/* The first last: whoever waits for the lock finds nothing of ours any more. */
	for (unsigned i = m->tree_count; i-- > 0;) {
		if (!m->flat) {
			unlinkat(m->trees[i].root, CGROUP_KEEPER, AT_REMOVEDIR);
			unlinkat(m->trees[i].base, name, AT_REMOVEDIR);
		}
		close_tree(&m->trees[i]);
	}
	fd_close(&m->lock);
	free(m);
}

const char *
cgroup_manager_kind(const struct cgroup_manager *m)
{
	if (m->unified < 0)
		return "v1";
	return m->tree_count == 1 ? "v2" : "hybrid";
}

/* ---- A group ---- */

static const struct cgroup_tree *
tree_of(const struct cgroup_manager *m, unsigned controller)
{
	for (unsigned i = 0; i < m->tree_count; i++)
		if (m->trees[i].controllers & controller)
			return &m->trees[i];
	return NULL;
}

void
cgroup_close(struct cgroup *g)
{
	fd_close(&g->oom);
	fd_close(&g->oom_control);
	fd_close(&g->events);
	cgroup_placed(g);
	for (unsigned i = SLOT_WRITTEN; i < SLOT_COUNT; i++)
		fd_close(&g->slot[i]);
}

void
cgroup_leave(struct cgroup *g)
{
	cgroup_close(g);
	free(g);
}

static int
make_directory(struct cgroup *g, const struct cgroup_tree *t, struct err *e)
{
	if (mkdirat(t->root, g->dir, 0755) == 0)
		return 0;
	return err_sys(e, errno == EEXIST ? ERR_CONFLICT : ERR_NODE,
		       "cannot make cgroup %s (below %s)", g->dir, t->path);
}

static int
watch_oom(struct cgroup *g, struct err *e)
{
	const struct cgroup_tree *t = tree_of(g->m, CGROUP_MEMORY);

	return t ? t->driver->watch_oom(g, t, e) : 0;
}

/* In the next tree. */
static int
make_next(struct cgroup *g, struct err *e)
{
	const struct cgroup_tree *t = &g->m->trees[g->trees];

	if (make_directory(g, t, e) < 0)
		return -1;
	return t->driver->open(g, g->trees++, needed(&g->m->need), e);
}

struct cgroup *
cgroup_begin(struct cgroup_manager *m, const char *name, struct err *e)
{
	struct cgroup *g;

	if (!name_ok(name, CGROUP_NAME_MAX - 1, true)) {
		err_set(e, ERR_INPUT, "the name of a cgroup is 1 to 47 of a-z, 0-9, '.' and '-'");
		return NULL;
	}
	g = calloc(1, sizeof *g);
	if (!g) {
		err_set(e, ERR_NODE, "out of memory");
		return NULL;
	}
	g->m = m;
	g->into = g->events = g->oom = g->oom_control = -1;
	for (unsigned i = 0; i < CGROUP_TREES_MAX; i++)
		g->tasks[i] = -1;
	for (unsigned i = 0; i < SLOT_COUNT; i++)
		g->slot[i] = -1;
	snprintf(g->dir, sizeof g->dir, "%s%s", m->flat ? "pratai-" : "", name);
	/* On v1 alone as well: a sweep finds nothing that is not in the first tree. */
	if (make_next(g, e) < 0) {
		cgroup_remove(g, NULL);
		return NULL;
	}
	return g;
}

int
cgroup_complete(struct cgroup *g, struct err *e)
{
	while (g->trees < g->m->tree_count)
		if (make_next(g, e) < 0)
			return -1;
	return g->m->need.memory_bytes && g->oom < 0 ? watch_oom(g, e) : 0;
}

struct cgroup *
cgroup_create(struct cgroup_manager *m, const char *name, struct err *e)
{
	struct cgroup *g = cgroup_begin(m, name, e);

	if (g && cgroup_complete(g, e) < 0) {
		cgroup_remove(g, NULL);
		return NULL;
	}
	return g;
}

int
cgroup_limit(struct cgroup *g, const struct cgroup_limits *limits, struct err *e)
{
	struct cgroup_limits l = *limits;
	unsigned need = needed(&l);

	l.memory_bytes &= ~(uint64_t)(sysconf(_SC_PAGESIZE) - 1);
	if (limits->memory_bytes && (!l.memory_bytes || l.memory_bytes > INT64_MAX / 2))
		return err_set(e, ERR_INPUT, "a memory limit of %" PRIu64 " bytes cannot be",
			       limits->memory_bytes);
	if (l.cpu_millis > CGROUP_CPU_MILLIS_MAX)
		return err_set(e, ERR_INPUT, "a limit of more than %u CPUs cannot be",
			       CGROUP_CPU_MILLIS_MAX / 1000);
	for (unsigned c = 1; c < 1u << CGROUP_CONTROLLERS; c <<= 1)
		if (need & c && !tree_of(g->m, c))
			return err_set(e, ERR_NODE, "no %s cgroup controller for the limit",
				       cgroup_controller_name(c));
	for (unsigned i = 0; i < g->m->tree_count; i++) {
		const struct cgroup_tree *t = &g->m->trees[i];

		if (t->driver->limit(g, t, &l, e) < 0)
			return -1;
	}
	g->memory_limit = l.memory_bytes;
	if (l.memory_bytes && g->oom < 0)
		return watch_oom(g, e);
	return 0;
}

void
cgroup_place(const struct cgroup *g, struct cgroup_place *out)
{
	out->into_fd = g->into;
	out->task_count = 0;
	for (unsigned i = 0; i < g->m->tree_count; i++)
		if (!g->m->trees[i].driver->v2)
			out->tasks[out->task_count++] = g->tasks[i];
}

void
cgroup_placed(struct cgroup *g)
{
	fd_close(&g->into);
	for (unsigned i = 0; i < CGROUP_TREES_MAX; i++)
		fd_close(&g->tasks[i]);
	for (unsigned i = 0; i < SLOT_WRITTEN; i++)
		fd_close(&g->slot[i]);
}

int
cgroup_place_slow(const struct cgroup *g, struct err *e)
{
	int fd;

	err_clear(e);
	if (g->m->unified < 0)
		return -1;
	fd = cgroup_open(g->m->trees[g->m->unified].root, g->dir, "cgroup.procs", O_WRONLY);
	if (fd < 0)
		err_sys(e, ERR_NODE, "cannot open cgroup.procs of cgroup %s", g->dir);
	return fd;
}

int
cgroup_oom_fd(const struct cgroup *g, short *events)
{
	const struct cgroup_tree *t = tree_of(g->m, CGROUP_MEMORY);

	*events = t && t->driver->v2 ? POLLPRI : POLLIN;
	return g->oom;
}

bool
cgroup_oom(struct cgroup *g)
{
	const struct cgroup_tree *t = tree_of(g->m, CGROUP_MEMORY);

	if (!g->oom_real && t && g->oom >= 0)
		g->oom_real = t->driver->oom(g, t);
	return g->oom_real;
}

/* The tree that knows the group's processes best. */
static const struct cgroup_tree *
process_tree(const struct cgroup_manager *m)
{
	const struct cgroup_tree *pids = tree_of(m, CGROUP_PIDS);

	if (m->unified >= 0)
		return &m->trees[m->unified];
	return pids ? pids : &m->trees[0];
}

int
cgroup_kill(struct cgroup *g, struct err *e)
{
	const struct cgroup_tree *cpu = tree_of(g->m, CGROUP_CPU), *t = process_tree(g->m);

	/* A process under a quota takes its time to die: 175 ms at 5 %, measured. */
	if (g->quota && cpu && cpu->driver->lift_quota(g, cpu, e) == 0)
		g->quota = false;
	return t->driver->kill(g, t, e);
}

int
cgroup_populated(struct cgroup *g, struct err *e)
{
	const struct cgroup_tree *t = process_tree(g->m);

	return t->driver->populated(g, t, e);
}

int
cgroup_populated_fd(const struct cgroup *g)
{
	return g->events;
}

int
cgroup_usage(struct cgroup *g, struct cgroup_usage *out, struct err *e)
{
	*out = (struct cgroup_usage){0};
	for (unsigned i = 0; i < g->m->tree_count; i++) {
		const struct cgroup_tree *t = &g->m->trees[i];

		if (t->driver->usage(g, t, out, e) < 0)
			return -1;
	}
	return 0;
}

int
cgroup_remove(struct cgroup *g, struct err *e)
{
	int rc = 0;

	/* The first tree comes last: a group that is anywhere is there, so that a sweep need look
	 * only there. */
	for (unsigned i = g->trees; i-- > 0;) {
		const struct cgroup_tree *t = &g->m->trees[i];

		if (unlinkat(t->root, g->dir, AT_REMOVEDIR) == 0 || errno == ENOENT)
			continue;
		if (errno == EBUSY)
			return err_set(e, ERR_AGAIN, "cgroup %s is still busy", g->dir);
		rc = err_sys(e, ERR_NODE, "cannot remove cgroup %s (below %s)", g->dir, t->path);
	}
	cgroup_leave(g);
	return rc;
}
