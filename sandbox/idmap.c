/*
 * The kernel takes the map from a user namespace, and a user namespace is made by a process:
 * one that does nothing else, killed as soon as its namespace is open.
 */
#include "sandbox/idmap.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/fdio.h"

int
idmap_open(uint32_t from, uint32_t to, uint32_t count, struct err *e)
{
	char map[48], path[64];
	sigset_t all, before;
	int fd = -1, saved;
	long pid;

	snprintf(map, sizeof map, "%u %u %u", from, to, count);
	/* No handler of ours runs in it. */
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &before);
	pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, 0);
	if (pid == 0)
		for (;;)
			pause();
	saved = errno;
	sigprocmask(SIG_SETMASK, &before, NULL);
	errno = saved;
	if (pid < 0)
		return err_sys(e, ERR_NODE, "make a user namespace for an image's layers");
	if (!proc_write((pid_t)pid, "uid_map", map) && !proc_write((pid_t)pid, "gid_map", map)) {
		snprintf(path, sizeof path, "/proc/%ld/ns/user", pid);
		fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	if (fd < 0)
		err_sys(e, ERR_NODE, "map the ids of an image's layers (%s)", map);
	kill((pid_t)pid, SIGKILL); /* our child, not yet waited for */
	while (waitpid((pid_t)pid, NULL, 0) < 0 && errno == EINTR)
		;
	return fd;
}

int
idmap_apply(int tree, int ids)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)ids };

	return mount_setattr(tree, "", AT_EMPTY_PATH, &attr, sizeof attr);
}
