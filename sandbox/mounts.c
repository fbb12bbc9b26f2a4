/*
 * The root of a sandbox, as mounts.
 *
 * One tmpfs, the scratch, holds everything that the sandbox can write, so that one size
 * bounds it and the sandbox's memory cgroup pays for it (its pages are first touched from
 * inside):
 *
 *   upper/ work/   the writable side of the root's overlay; or disk/upper/ and disk/work/, when
 *                  it is to be on disk, bounded by whoever gave it
 *   tmp/ shm/      seen as /tmp and /dev/shm
 *   l0/ l1/ ...    where the layers are attached while the overlay is mounted
 *   usr/ empty/    the machine's /usr, and the second lower layer an overlay without a
 *                  writable side must have
 *   root/          where the overlay is mounted, until pivot_root
 *   proc/ dev/     the same, in a sandbox that is made ahead without a root, until there is one
 *
 * The scratch is mounted on the machine's /tmp (in the child's own mount namespace; any
 * directory would do, this one is everywhere), and the working directory is in it: relative
 * paths are ours, absolute ones still the machine's.
 *
 * An image may be a trap: its /proc, /dev, /tmp or /usr may be a symbolic link.  Those
 * directories are therefore made in upper/ before the overlay is mounted: a directory
 * there covers whatever the layers have, and the image has no say.  Other targets (of
 * binds) are found with RESOLVE_IN_ROOT and mounted on as descriptors.
 *
 * The overlays are the sandbox's own superblocks: a shared one shares file locks and
 * leases between its users.  The layers below are read-only copies (MOUNT_ATTR_RDONLY).
 *
 * ROOT_PREMOUNT (Linux below 6.6, as root): the same is done by the caller, outside of
 * the user namespace, in a mount namespace of the caller's own, and the finished parts are
 * moved in.  ROOT_READONLY (the same, without root): no upper side.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/base/fdio.h"
#include "sandbox/child.h"
#include "sandbox/egress.h"
#include "sandbox/idmap.h"
#include "sandbox/tree.h"

#define SAFE (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)

/* Where the scratch is mounted until the machine's root goes, and it with it. */
#define PLACE "/tmp"

static int
clone_tree(const struct sandbox_tree *from, bool recursive, uint64_t attributes, struct err *e)
{
	CLEAN_FD int place = tree_open(from);
	CLEAN_FD int tree = -1;

	if (place < 0)
		return err_sys(e, errno == ENOENT || errno == EACCES ? ERR_INPUT : ERR_NODE, "open %s",
			       from->path);
	tree = tree_clone(place, "", recursive);
	/* Below a mount that hides others (a container's), a copy must take them along. */
	if (tree < 0 && errno == EINVAL && !recursive)
		tree = tree_clone(place, "", recursive = true);
	if (tree < 0 || tree_restrict(tree, attributes, recursive))
		return err_sys(e, ERR_NODE, "copy the mount of %s", from->path);
	return fd_steal(&tree);
}

/* Layers (and what is written on them) whose files are to be seen as the sandbox's own ids: one
 * map for all of them. */
static int
map_tree(const struct child *c, int *ids, int tree, const struct sandbox_tree *of, bool must,
	 struct err *e)
{
	if (*ids < 0 && (*ids = idmap_open(of->ids, c->spec->uid_base, SANDBOX_IDS, e)) < 0)
		return -1;
	if (idmap_apply(tree, *ids) && (errno != EINVAL || must))
		return err_sys(e, ERR_NODE, "map the ids of %s", of->path);
	return 0;
}

static int
map_layers(struct child *c, struct err *e)
{
	const struct sandbox_spec *spec = c->spec;
	CLEAN_FD int ids = -1;
	uint32_t from = spec->disk.path ? spec->disk.ids : 0;

	for (unsigned i = 0; i < spec->layer_count && !c->rootless; i++) {
		if (!spec->layers[i].ids)
			continue;
		if (from && spec->layers[i].ids != from)
			return err_set(e, ERR_INPUT, "layers of different id ranges");
		from = spec->layers[i].ids;
		if (map_tree(c, &ids, c->layers[i], &spec->layers[i], false, e))
			return -1;
	}
	return spec->disk.path ? map_tree(c, &ids, c->disk, &spec->disk, true, e) : 0;
}

int
step_trees(struct child *c, unsigned index, struct err *e)
{
	const struct sandbox_spec *spec = c->spec;

	(void)index;
	for (unsigned i = 0; i < spec->layer_count; i++) {
		c->layers[i] = clone_tree(&spec->layers[i], false, SAFE | MOUNT_ATTR_RDONLY, e);
		if (c->layers[i] < 0)
			return -1;
	}
	if (spec->disk.path && (c->disk = clone_tree(&spec->disk, false, SAFE, e)) < 0)
		return -1;
	if (map_layers(c, e))
		return -1;
	if (spec->usr) {
		struct sandbox_tree usr = { .at = AT_FDCWD, .path = spec->usr };

		c->usr = clone_tree(&usr, false, SAFE | MOUNT_ATTR_RDONLY, e);
		if (c->usr < 0)
			return -1;
	}
	for (unsigned i = 0; i < spec->bind_count; i++) {
		const struct sandbox_bind *b = &spec->binds[i];

		c->binds[i] = clone_tree(&b->source, true,
					 SAFE | (b->writable ? 0 : MOUNT_ATTR_RDONLY), e);
		if (c->binds[i] < 0)
			return -1;
	}
	return 0;
}

/* What is on disk may be there already, but for what is in no overlay. */
static int
make_directories(struct child *c, struct err *e)
{
	static const struct {
		const char *name;
		mode_t mode;
		bool side;
	} dirs[] = {
		{ "upper", 0755, true },      { "work", 0755, true },      { "tmp", 01777, false },
		{ "shm", 01777, false },      { "usr", 0755, false },      { "empty", 0555, false },
		{ "root", 0755, false },      { "upper/proc", 0755, true }, { "upper/dev", 0755, true },
		{ "upper/tmp", 0755, true },
	};

	for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++)
		if (mkdirat(dirs[i].side ? c->sides : c->scratch, dirs[i].name, dirs[i].mode) &&
		    !(errno == EEXIST && dirs[i].side && c->disk >= 0))
			return err_sys(e, ERR_NODE, "make %s in the sandbox's tmpfs", dirs[i].name);
	if (c->plan.late_root && (mkdirat(c->scratch, "proc", 0755) || mkdirat(c->scratch, "dev", 0755)))
		return err_sys(e, ERR_NODE, "make proc and dev in the sandbox's tmpfs");
	return 0;
}

struct size {
	char bytes[24], inodes[24];
};

/* As options of tmpfs.  A file costs about a kilobyte of kernel memory that size= does not
 * count. */
static void
scratch_size(uint64_t bytes, struct size *s)
{
	uint64_t files = bytes / 2048;

	snprintf(s->bytes, sizeof s->bytes, "%llu", (unsigned long long)bytes);
	snprintf(s->inodes, sizeof s->inodes, "%llu", (unsigned long long)(files < 1024 ? 1024 : files));
}

int
step_scratch(struct child *c, unsigned index, struct err *e)
{
	struct size size;
	const char *options[] = { "mode", "0700", "size", size.bytes, "nr_inodes", size.inodes, NULL };

	(void)index;
	scratch_size(c->spec->tmp_bytes, &size);
	if (!c->spec->tmp_bytes)
		options[2] = NULL;
	/* Nothing done here reaches the machine: a mount namespace of another user namespace
	 * has the shared mounts of the one it was copied from as slaves. */
	c->scratch = tree_new("tmpfs", options, SAFE);
	if (c->scratch < 0 || tree_attach_at(c->scratch, AT_FDCWD, PLACE))
		return err_sys(e, ERR_NODE, "mount the sandbox's tmpfs");
	c->sides = c->scratch;
	if (c->disk >= 0) {
		if (mkdirat(c->scratch, "disk", 0755) || tree_attach_at(c->disk, c->scratch, "disk"))
			return err_sys(e, ERR_NODE, "attach the writable side of the root");
		c->sides = c->disk;
	}
	return make_directories(c, e);
}

/* Of one that was made ahead, when its event has come. */
static int
resize_scratch(struct child *c, struct err *e)
{
	struct size size;
	const char *options[] = { "size", size.bytes, "nr_inodes", size.inodes, NULL };

	scratch_size(c->spec->tmp_bytes, &size);
	if (c->spec->tmp_bytes && tree_configure(c->scratch, options))
		return err_sys(e, ERR_NODE, "set the size of the sandbox's tmpfs");
	return 0;
}

/* ---- Targets that no layer has, made in the upper directory ahead of the overlay ---- */

/*
 * What the layers have at prefix: 1 a directory (its mode in *mode), 0 nothing, -1
 * anything else (a file, a link, a whiteout), which is left to the overlay.
 */
static int
layers_have(const struct child *c, const char *prefix, mode_t *mode)
{
	for (unsigned i = 0; i < c->spec->layer_count; i++) {
		struct stat st;
		CLEAN_FD int fd = root_resolve(c->layers[i], prefix, false);

		if (fd < 0 && errno == ENOENT)
			continue;
		if (fd < 0 || fstat(fd, &st) || !S_ISDIR(st.st_mode))
			return -1;
		*mode = st.st_mode & 01777;
		return 1;
	}
	return 0;
}

/*
 * A directory of an image belongs to an id that the sandbox does not have, so nothing can
 * be made in it through the overlay; in the upper directory, which is the sandbox's, it
 * can.  Directories that are made there for the path's sake keep their mode.
 */
static int
prepare_target(const struct child *c, const char *target, bool directory)
{
	char prefix[PATH_MAX], upper[PATH_MAX + 8];
	mode_t mode = 0755;

	if (layers_have(c, target + 1, &mode) != 0)
		return 0;
	for (size_t at = strspn(target, "/"); target[at]; at += strspn(target + at, "/")) {
		int have;
		bool last;

		at += strcspn(target + at, "/");
		last = !target[at + strspn(target + at, "/")];
		snprintf(prefix, sizeof prefix, "%.*s", (int)at - 1, target + 1);
		snprintf(upper, sizeof upper, "upper/%s", prefix);
		mode = 0755;
		have = layers_have(c, prefix, &mode);
		if (have < 0)
			return 0;
		if ((last && !directory ? mknodat(c->sides, upper, S_IFREG | 0644, 0)
					: mkdirat(c->sides, upper, mode)) &&
		    errno != EEXIST)
			return -1;
	}
	return 0;
}

static bool
is_directory(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && S_ISDIR(st.st_mode);
}

static int
prepare_targets(const struct child *c, struct err *e)
{
	for (unsigned i = 0; i < c->spec->bind_count; i++) {
		const char *target = c->spec->binds[i].target;

		target += strspn(target, "/") - 1;
		if (!strncmp(target, "/tmp/", 5) || (c->spec->usr && !strncmp(target, "/usr/", 5)))
			continue; /* another mount will be there */
		if (prepare_target(c, target, is_directory(c->binds[i])))
			return err_sys(e, ERR_NODE, "make the bind target %s", target);
	}
	return 0;
}

/* Names are asked of the way out.  In the upper directory it covers what the image has there,
 * be it a link. */
static int
make_resolver(const struct child *c, struct err *e)
{
	static const char text[] = "nameserver " EGRESS_RESOLVER "\n";
	CLEAN_FD int fd = -1;
	mode_t mode = 0755;

	if (layers_have(c, "etc", &mode) < 0)
		return err_set(e, ERR_INPUT, "/etc: is no directory");
	if (mkdirat(c->sides, "upper/etc", mode) && errno != EEXIST)
		return err_sys(e, ERR_NODE, "make /etc");
	fd = open_beneath(c->sides, "upper/etc/resolv.conf", O_WRONLY | O_CREAT, 0644,
			  RESOLVE_NO_SYMLINKS);
	if (fd < 0 || fd_write_all(fd, text, sizeof text - 1))
		return err_sys(e, ERR_NODE, "make /etc/resolv.conf");
	return 0;
}

/* ---- The root ---- */

static int
attach_layers(struct child *c, char *lower, size_t size, struct err *e)
{
	size_t used = 0;
	char name[16];

	for (unsigned i = 0; i < c->spec->layer_count; i++) {
		snprintf(name, sizeof name, "l%u", i);
		if (mkdirat(c->scratch, name, 0755) || tree_attach_at(c->layers[i], c->scratch, name))
			return err_sys(e, ERR_NODE, "attach layer %s", c->spec->layers[i].path);
		used += (size_t)snprintf(lower + used, size - used, "%s%s", i ? ":" : "", name);
	}
	return 0;
}

/*
 * The options: userxattr, because trusted.* attributes are out of a user namespace's reach
 * (and what a layer says in them must not count); the features that would store or follow
 * such attributes are off.  Not "volatile": it saves syncs, which tmpfs does not have, and
 * costs a directory.
 */
#define OVERLAY_SAFE "redirect_dir=nofollow,metacopy=off,index=off,xino=off"

static bool
has_image(const struct child *c)
{
	for (unsigned i = 0; i < c->spec->layer_count; i++)
		if (c->spec->layers[i].ids)
			return true;
	return false;
}

/* A layer with mounts below it that the caller may not leave out is none to the kernel; nor is a
 * third overlay, one on another. */
static int
overlay_failed(const struct child *c, const char *what, struct err *e)
{
	const char *why = "";

	if (errno == EINVAL && c->rootless)
		why = " (for an ordinary user nothing may be mounted below it)";
	else if (errno == EINVAL && c->plan.root == ROOT_PREMOUNT && has_image(c))
		why = " (below Linux 6.6 the image store cannot be on an overlay)";
	return err_sys(e, ERR_NODE, "mount the overlay of %s%s", what, why);
}

/*
 * ROOT_PREMOUNT: an overlay that writes into a tmpfs without user.* attributes looks for opaque
 * directories in trusted.*, which no layer has.  So an image's layers are put together first, by
 * one that writes nothing and therefore may look in user.*.
 */
static int
merge_layers(struct child *c, const char *lower, struct err *e)
{
	char options[1024];

	snprintf(options, sizeof options, "lowerdir=%s,userxattr," OVERLAY_SAFE, lower);
	if (mkdirat(c->scratch, "merged", 0755) ||
	    mount("overlay", "merged", "overlay", MS_NOSUID | MS_NODEV | MS_RDONLY, options))
		return overlay_failed(c, "the image's layers", e);
	return 0;
}

static int
mount_overlay(struct child *c, const char *lower, struct err *e)
{
	char options[1024];
	bool writable = c->plan.root != ROOT_READONLY;
	const char *sides = c->disk >= 0 ? ",upperdir=disk/upper,workdir=disk/work"
					 : ",upperdir=upper,workdir=work";

	if (c->plan.root == ROOT_PREMOUNT && c->spec->layer_count > 1 && has_image(c)) {
		if (merge_layers(c, lower, e))
			return -1;
		lower = "merged";
	}
	/* One layer alone is no overlay to the kernel; a mount of the layer itself would share
	 * locks, leases and inotify with all others of it. */
	if (!writable)
		sides = c->spec->layer_count == 1 ? ":empty" : "";
	snprintf(options, sizeof options, "lowerdir=%s%s," OVERLAY_SAFE "%s", lower, sides,
		 c->plan.root == ROOT_PREMOUNT ? "" : ",userxattr");
	if (mount("overlay", "root", "overlay",
		  MS_NOSUID | MS_NODEV | (writable ? 0 : MS_RDONLY), options))
		return overlay_failed(c, "the root", e);
	return 0;
}

/* With the scratch as the working directory: mount(2) wants strings, these are ours. */
static int
build_root(struct child *c, struct err *e)
{
	char lower[5 * SANDBOX_LAYERS_MAX]; /* ":l131" */

	if (fchdir(c->scratch))
		return err_sys(e, ERR_NODE, "enter the sandbox's tmpfs");
	if (c->spec->usr && mkdirat(c->sides, "upper/usr", 0755) &&
	    !(errno == EEXIST && c->disk >= 0))
		return err_sys(e, ERR_NODE, "make upper/usr in the sandbox's tmpfs");
	if (c->plan.root != ROOT_READONLY && prepare_targets(c, e))
		return -1;
	if (c->spec->network == SANDBOX_NET_EGRESS && make_resolver(c, e))
		return -1;
	if (attach_layers(c, lower, sizeof lower, e))
		return -1;
	if (mount_overlay(c, lower, e))
		return -1;
	c->root = openat(c->scratch, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return c->root < 0 ? err_sys(e, ERR_NODE, "open the root") : 0;
}

int
step_root(struct child *c, unsigned index, struct err *e)
{
	(void)index;
	if (c->plan.root != ROOT_PREMOUNT)
		return (c->plan.late_root && resize_scratch(c, e)) || build_root(c, e) ? -1 : 0;
	if (tree_attach_at(c->root, AT_FDCWD, "/") || fchdir(c->root))
		return err_sys(e, ERR_NODE, "attach the root");
	return 0;
}

int
step_usr(struct child *c, unsigned index, struct err *e)
{
	CLEAN_FD int target = -1;

	(void)index;
	if (!c->spec->usr)
		return 0; /* made ahead, before it was known */
	target = root_resolve(c->root, "usr", false);
	if (target < 0)
		return err_sys(e, ERR_NODE, "find /usr in the root");
	if (tree_attach_at(c->usr, c->scratch, "usr"))
		return err_sys(e, ERR_NODE, "attach the machine's /usr");
	/* root/usr was just found to be no link, and nobody else can change it. */
	if (mount("overlay", "root/usr", "overlay", MS_NOSUID | MS_NODEV | MS_RDONLY,
		  c->plan.root == ROOT_PREMOUNT ? "lowerdir=usr:empty," OVERLAY_SAFE
						: "lowerdir=usr:empty,userxattr," OVERLAY_SAFE))
		return overlay_failed(c, "/usr", e);
	return 0;
}

/* The directory of the scratch, as a mount of its own. */
static int
scratch_part(const struct child *c, const char *name)
{
	return tree_clone(c->scratch, name, false);
}

/*
 * In the caller, which is root in the initial user namespace and has a mount namespace of
 * its own (sandbox_prepare_caller), so that the rest of the machine sees nothing of this.
 */
int
step_premount(struct child *c, unsigned index, struct err *e)
{
	static const char *const owned[] = { "upper", "work", "tmp", "shm", "upper/proc",
					     "upper/dev", "upper/tmp" };
	uid_t base = c->spec->uid_base;
	mode_t mask;
	int rc;
	CLEAN_FD int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);

	(void)index;
	if (here < 0)
		return err_sys(e, ERR_NODE, "open the working directory");
	mask = umask(0);
	rc = step_scratch(c, 0, e);
	umask(mask);
	if (rc)
		return -1;
	rc = -1;
	for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++)
		if (fchownat(c->scratch, owned[i], base, base, AT_SYMLINK_NOFOLLOW))
			return err_sys(e, ERR_NODE, "give %s to the sandbox", owned[i]);
	if (!build_root(c, e) && (!c->spec->usr || !step_usr(c, 0, e))) {
		int root = tree_clone(c->root, "", true);

		fd_close(&c->root);
		c->root = root;
		c->tmp = scratch_part(c, "tmp");
		c->shm = scratch_part(c, "shm");
		rc = root < 0 || c->tmp < 0 || c->shm < 0
			     ? err_sys(e, ERR_NODE, "take the root out of the caller's mounts")
			     : 0;
	}
	if (fchdir(here) || (umount2(PLACE, MNT_DETACH) && rc == 0))
		rc = err_sys(e, ERR_NODE, "take the scratch tmpfs away");
	return rc;
}

/* ---- In the root ---- */

static int
attach(struct child *c, int tree, const char *target, bool links, struct err *e)
{
	CLEAN_FD int at = root_resolve(c->root, target, links);

	if (at < 0)
		return err_sys(e, ERR_INPUT, "%s: cannot be mounted on", target);
	if (tree_attach(tree, at))
		return err_sys(e, ERR_NODE, "mount on %s", target);
	return 0;
}

int
place_ahead(struct child *c, int tree, const char *name, struct err *e)
{
	if (tree_attach_at(tree, c->scratch, name))
		return err_sys(e, ERR_NODE, "mount %s in the sandbox's tmpfs", name);
	return 0;
}

/* Read-only roots: the working directory is promised to be writable. */
static int
writable_workdir(struct child *c, struct err *e)
{
	const char *dir = c->spec->workdir + strspn(c->spec->workdir, "/");
	CLEAN_FD int part = -1;

	if (!*dir || !strcmp(dir, "tmp") || !strncmp(dir, "tmp/", 4))
		return 0;
	if (mkdirat(c->scratch, "workdir", 01777))
		return err_sys(e, ERR_NODE, "make workdir in the sandbox's tmpfs");
	part = scratch_part(c, "workdir");
	if (part < 0)
		return err_sys(e, ERR_NODE, "take workdir out of the sandbox's tmpfs");
	return attach(c, part, dir, true, e);
}

int
step_tmp(struct child *c, unsigned index, struct err *e)
{
	CLEAN_FD int part = c->plan.root == ROOT_PREMOUNT ? fd_steal(&c->tmp) : scratch_part(c, "tmp");

	(void)index;
	if (part < 0)
		return err_sys(e, ERR_NODE, "take tmp out of the sandbox's tmpfs");
	if (attach(c, part, "tmp", false, e))
		return -1;
	return c->plan.root == ROOT_READONLY ? writable_workdir(c, e) : 0;
}

int
step_bind(struct child *c, unsigned index, struct err *e)
{
	const char *target = c->spec->binds[index].target;
	int at = root_resolve(c->root, target, true);

	if (at < 0 && errno == ENOENT) {
		if (root_make(c->root, target, is_directory(c->binds[index])))
			return err_sys(e, ERR_INPUT, "bind target %s is not in the image and cannot be made",
				       target);
	} else if (at < 0) {
		return err_sys(e, ERR_INPUT, "bind target %s", target);
	} else {
		bool directory = is_directory(at);

		close(at);
		if (directory != is_directory(c->binds[index]))
			return err_set(e, ERR_INPUT, "bind target %s is %s directory, its source is %s", target,
				       directory ? "a" : "no", directory ? "none" : "one");
	}
	return attach(c, c->binds[index], target, true, e);
}

static int
attach_shm(struct child *c, struct err *e)
{
	CLEAN_FD int part = c->plan.root == ROOT_PREMOUNT ? fd_steal(&c->shm) : scratch_part(c, "shm");

	if (part < 0 || tree_attach_at(part, c->dev, "shm"))
		return err_sys(e, ERR_NODE, "mount /dev/shm");
	return 0;
}

int
step_dev(struct child *c, unsigned index, struct err *e)
{
	(void)index;
	if (c->dev < 0 && c->rootless && devices_bind(c, e))
		return -1;
	if (c->dev < 0 && (c->dev = child_receive(c)) < 0)
		return err_sys(e, ERR_NODE, "take /dev over");
	if (c->plan.late_root ? place_ahead(c, c->dev, "dev", e) : attach(c, c->dev, "dev", false, e))
		return -1;
	if (!(c->plan.late_root && c->plan.root == ROOT_PREMOUNT) && attach_shm(c, e))
		return -1;
	if (tree_restrict(c->dev, MOUNT_ATTR_RDONLY, false))
		return err_sys(e, ERR_NODE, "make /dev read-only");
	return 0;
}

/* What was mounted ahead, beside the root, with all that covers parts of it. */
int
step_attach(struct child *c, unsigned index, struct err *e)
{
	(void)index;
	if (attach(c, c->dev, "dev", false, e) || attach(c, c->proc, "proc", false, e))
		return -1;
	return c->plan.root == ROOT_PREMOUNT ? attach_shm(c, e) : 0;
}

/*
 * A descriptor of this mount namespace, into the socket to the caller, who does not take it out:
 * as long as it is there, the end of init leaves the mounts, and their end is the caller's to
 * time.
 */
static int
hold_mounts(const struct child *c, struct err *e)
{
	CLEAN_FD int ns = openat(c->proc, "self/ns/mnt", O_RDONLY | O_CLOEXEC);

	return ns < 0 || child_send(c->go_r, ns) ? err_sys(e, ERR_NODE, "hold the mounts") : 0;
}

int
step_pivot(struct child *c, unsigned index, struct err *e)
{
	struct statx ours, now;

	(void)index;
	if (c->spec->remains_later && hold_mounts(c, e))
		return -1;
	if (fchdir(c->root) || syscall(SYS_pivot_root, ".", "."))
		return err_sys(e, ERR_NODE, "pivot_root");
	/* Made ahead: the command's process goes on meanwhile, as far as its next gate. */
	if (c->plan.late_root && statx(c->root, "", AT_EMPTY_PATH, STATX_MNT_ID, &ours) == 0) {
		c->progress->root_mount = ours.stx_mnt_id;
		child_open_gate(c);
	}
	/* The old root ends up on top of the new one, and leaves after a grace period of RCU. */
	if (umount2(".", MNT_DETACH))
		return err_sys(e, ERR_NODE, "take the old root away");
	/* "/.." is the topmost mount on "/": only ours may be left. */
	if (chdir("/") || statx(c->root, "", AT_EMPTY_PATH, STATX_MNT_ID, &ours) ||
	    statx(AT_FDCWD, "/..", 0, STATX_MNT_ID, &now))
		return err_sys(e, ERR_NODE, "look at the new root");
	if (ours.stx_mnt_id != now.stx_mnt_id)
		return err_set(e, ERR_NODE, "the old root is still there after pivot_root");
	return 0;
}
