/*
 * Where the groups stand in the v2 tree, and how that place comes to give controllers.
 *
 * "No internal processes": a group other than the real root cannot both hold processes
 * and give controllers to children.  Our own group holds at least us.  What may be done
 * about that depends on whose group it is:
 *
 *   - we are alone in it, or it was delegated to us with all that is in it (systemd marks
 *     the directory): its processes move to a leaf below it, `pratai-supervisor`;
 *   - we are root beside processes of others (a shell in a session's scope): nobody
 *     else's process is moved; the top of the hierarchy is used, which other managers of
 *     containers do as well;
 *   - else it is refused, with what to do.
 *
 * This happens once per manager, never for an event.
 */
#include "sandbox/cgroup_driver.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"

#define LEAF "pratai-supervisor"

enum { MOVE_ROUNDS = 16, MOVE_LIST_MAX = 1 << 20 };

static int
open_dir(int at, const char *path)
{
	return openat(at, *path ? path : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static bool
is_delegated(int dir)
{
	char value[8];

	return (fgetxattr(dir, "user.delegate", value, sizeof value) == 1 && *value == '1') ||
	       (fgetxattr(dir, "trusted.delegate", value, sizeof value) == 1 && *value == '1');
}

static int
list_procs(int dir, struct buf *out, struct err *e)
{
	buf_consume(out, out->len);
	return file_slurp(dir, "cgroup.procs", MOVE_LIST_MAX, out, e);
}

/* Whether this process is the only one in dir. */
static bool
is_alone(int dir)
{
	struct buf list = {.max = MOVE_LIST_MAX};
	struct err e;
	char me[32];
	bool alone;

	snprintf(me, sizeof me, "%d\n", (int)getpid());
	alone = list_procs(dir, &list, &e) == 0 && list.data && strcmp(list.data, me) == 0;
	buf_free(&list);
	return alone;
}

/* Moves what is in base to its leaf.  Again and again: what forks meanwhile stays. */
static int
empty_into_leaf(int base, const char *path, struct err *e)
{
	struct buf list = {.max = MOVE_LIST_MAX};
	int rc = -1;

	if (mkdirat(base, LEAF, 0755) < 0 && errno != EEXIST)
		return err_sys(e, ERR_NODE, "cannot make %s/" LEAF, path);
	for (unsigned round = 0; round < MOVE_ROUNDS; round++) {
		if (list_procs(base, &list, e) < 0)
			goto out;
		if (!list.len) {
			rc = 0;
			goto out;
		}
		for (char *pid = list.data, *next; *pid; pid = next) {
			next = pid + strcspn(pid, "\n");
			if (*next)
				*next++ = '\0';
			if (strcmp(pid, "0") == 0) {
				err_set(e, ERR_NODE,
					"in %s are processes of another pid namespace, which cannot "
					"be moved from here", path);
				goto out;
			}
			/* ESRCH: it is gone already */
			if (cgroup_write(base, LEAF, "cgroup.procs", pid) < 0 && errno != ESRCH) {
				err_sys(e, ERR_NODE, "cannot move process %s to %s/" LEAF, pid,
					path);
				goto out;
			}
		}
	}
	err_set(e, ERR_NODE, "%s does not become free of processes", path);
out:
	buf_free(&list);
	return rc;
}

/* Below a leaf made by an earlier manager, or by systemd, the place to work is its parent. */
static void
leave_leaf(int top, char path[PATH_MAX])
{
	char *slash = strrchr(path, '/');
	bool ours, systemds;
	int parent;

	if (!slash)
		return;
	ours = strcmp(slash + 1, LEAF) == 0;
	systemds = strcmp(slash + 1, "supervisor") == 0;
	if (!ours && !systemds)
		return;
	*slash = '\0';
	parent = open_dir(top, *path ? path + 1 : "");
	if (systemds && (parent < 0 || !is_delegated(parent)))
		*slash = '/';
	fd_close(&parent);
}

/* The named parent: made where it is missing, each level giving controllers to the next. */
static int
open_parent(int top, const char *mount, const char *path, unsigned want, unsigned need,
	    struct err *e)
{
	int dir = open_dir(top, "");
	unsigned given;

	while (dir >= 0 && *path) {
		size_t n = strcspn(path + 1, "/");
		char name[256];
		int next;

		snprintf(name, sizeof name, "%.*s", (int)n, path + 1);
		if (cgroup_v2_give(dir, mount, want, need, &given, e) < 0) {
			fd_close(&dir);
			return err_wrap(e, "above cgroup %s", name);
		}
		if (mkdirat(dir, name, 0755) < 0 && errno != EEXIST) {
			err_sys(e, ERR_NODE, "cannot make cgroup %s", name);
			fd_close(&dir);
			return -1;
		}
		next = open_dir(dir, name);
		fd_close(&dir);
		dir = next;
		path += n + 1;
	}
	if (dir < 0)
		err_sys(e, ERR_NODE, "cannot open a cgroup below %s", mount);
	return dir;
}

/* t->base, which is our own group: makes it give need, or takes the top instead. */
static int
make_own_give(int top, const char *mount, struct cgroup_tree *t, unsigned want, unsigned need,
	      struct err *e)
{
	unsigned given;
	int fd;

	if (cgroup_v2_give(t->base, t->path, want, need, &given, e) == 0)
		return 0;
	if (e->errnum == EBUSY && (is_delegated(t->base) || is_alone(t->base))) {
		if (empty_into_leaf(t->base, t->path, e) < 0)
			return -1;
		return cgroup_v2_give(t->base, t->path, want, need, &given, e);
	}
	if (geteuid() == 0) {
		struct err ignored;

		if (cgroup_v2_give(top, mount, want, need, &given, &ignored) == 0 &&
		    (fd = open_dir(top, "")) >= 0) {
			fd_close(&t->base);
			t->base = fd;
			snprintf(t->path, sizeof t->path, "%s", mount);
			return 0;
		}
	}
	if (e->errnum == EBUSY)
		return err_set(e, ERR_NODE,
			       "other processes are in %s, so it cannot give limits to sandboxes; "
			       "start in a cgroup of its own (systemd-run --scope -p Delegate=yes)",
			       t->path);
	return err_wrap(e, "this cgroup was not delegated (systemd-run --user --scope -p "
			   "Delegate=yes)");
}

int
cgroup_v2_base(const struct cgroup_host *h, unsigned i, const char *parent, struct cgroup_tree *t,
	       unsigned want, unsigned need, struct err *e)
{
	CLEAN_FD int top = open_dir(AT_FDCWD, h->at[i].mount);
	char path[PATH_MAX];
	unsigned given;

	if (top < 0)
		return err_sys(e, ERR_NODE, "cannot open %s", h->at[i].mount);
	if (cgroup_host_path(h, i, parent, path, e) < 0)
		return -1;
	if (parent)
		t->base = open_parent(top, h->at[i].mount, path, want, need, e);
	else
		leave_leaf(top, path);
	if (snprintf(t->path, sizeof t->path, "%s%s", h->at[i].mount, path) >=
	    (int)sizeof t->path)
		return err_set(e, ERR_NODE, "the path of a cgroup is too long");
	if (parent)
		return t->base < 0 ? -1
				   : cgroup_v2_give(t->base, t->path, want, need, &given, e);
	t->base = open_dir(top, *path ? path + 1 : "");
	if (t->base < 0)
		return err_sys(e, ERR_NODE, "cannot open %s", t->path);
	return make_own_give(top, h->at[i].mount, t, want, need, e);
}
