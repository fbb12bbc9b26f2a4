/*
 * See tree.h.  All calls are of the mount API of Linux 5.2 (5.12: mount_setattr) and of
 * openat2 (5.6); nothing here depends on the caller's working directory.
 */
#include "sandbox/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stddef.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/base/fdio.h"
#include "sandbox/sandbox.h"

static int
open_how(int at, const char *path, int flags, uint64_t resolve)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
		.resolve = resolve,
	};
	long fd;

	/* EAGAIN: something above was renamed while the kernel looked. */
	for (int tries = 0; tries < 32; tries++) {
		fd = syscall(SYS_openat2, at, path, &how, sizeof how);
		if (fd >= 0 || errno != EAGAIN)
			break;
	}
	return (int)fd;
}

int
tree_open(const struct sandbox_tree *t)
{
	if (t->path[0] == '\0')
		return fcntl(t->at, F_DUPFD_CLOEXEC, 3);
	return open_how(t->at, t->path, O_PATH,
			t->strict ? RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS : 0);
}

int
tree_clone(int at, const char *path, bool recursive)
{
	return open_tree(at, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH |
					   AT_SYMLINK_NOFOLLOW | (recursive ? AT_RECURSIVE : 0u));
}

int
tree_restrict(int tree, uint64_t attributes, bool recursive)
{
	struct mount_attr attr = { .attr_set = attributes };

	return mount_setattr(tree, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0u), &attr,
			     sizeof attr);
}

int
tree_attach(int tree, int at)
{
	return move_mount(tree, "", at, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

int
tree_attach_at(int tree, int at, const char *name)
{
	return move_mount(tree, "", at, name, MOVE_MOUNT_F_EMPTY_PATH);
}

static int
set_options(int context, const char *const *options)
{
	for (; *options; options += 2)
		if (fsconfig(context, FSCONFIG_SET_STRING, options[0], options[1], 0))
			return -1;
	return 0;
}

int
tree_configure(int tree, const char *const *options)
{
	CLEAN_FD int context = fspick(tree, "", FSPICK_CLOEXEC | FSPICK_EMPTY_PATH);

	return context < 0 || set_options(context, options) ||
			       fsconfig(context, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0)
		       ? -1
		       : 0;
}

int
tree_new(const char *type, const char *const *options, uint64_t attributes)
{
	CLEAN_FD int context = fsopen(type, FSOPEN_CLOEXEC);

	if (context < 0)
		return -1;
	if (set_options(context, options) || fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		return -1;
	return fsmount(context, FSMOUNT_CLOEXEC, (unsigned)attributes);
}

int
root_resolve(int root, const char *path, bool links)
{
	return open_how(root, path, O_PATH,
			RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | (links ? 0 : RESOLVE_NO_SYMLINKS));
}

/* The next '/' of path after at, or its end. */
static size_t
component_end(const char *path, size_t at)
{
	while (path[at] == '/')
		at++;
	return at + strcspn(path + at, "/");
}

int
root_make(int root, const char *path, bool directory)
{
	char prefix[PATH_MAX];
	CLEAN_FD int parent = fcntl(root, F_DUPFD_CLOEXEC, 3);

	if (parent < 0)
		return -1;
	for (size_t start = 0, end; path[start + strspn(path + start, "/")]; start = end) {
		const char *name;
		bool last;
		int made, fd;

		start += strspn(path + start, "/");
		end = component_end(path, start);
		last = path[end + strspn(path + end, "/")] == '\0';
		if (end >= sizeof prefix) {
			errno = ENAMETOOLONG;
			return -1;
		}
		memcpy(prefix, path, end);
		prefix[end] = '\0';
		name = prefix + start;
		/* mkdirat and mknodat never follow a link in the last component. */
		made = last && !directory ? mknodat(parent, name, S_IFREG | 0644, 0)
					  : mkdirat(parent, name, 0755);
		if (made && errno != EEXIST)
			return -1;
		fd = root_resolve(root, prefix, true);
		if (fd < 0)
			return -1;
		close(parent);
		parent = fd;
	}
	return 0;
}
