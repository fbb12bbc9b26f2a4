/*
 * pratai-spawner: the spawner's program.  Users never call it: a driver's spawner_start()
 * executes it, in new pid, mount and network namespaces, with descriptors at agreed numbers
 * and a struct spawner_boot to read.
 *
 * A program of its own, small and static, and not only a fork of the driver: nothing of the
 * driver's memory comes along, no network library is mapped into a process that stays root,
 * and each sandbox starts as a copy of little (a fork of a process with curl and friends
 * mapped takes 0.4 ms longer, twice per sandbox).
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/log.h"
#include "sandbox/spawner_process.h"

static bool
is_terminated(const char *s, size_t size)
{
	return memchr(s, '\0', size) != NULL;
}

static int
read_boot(struct spawner_boot *b)
{
	if (fd_read_all(SPAWNER_FD_BOOT, b, sizeof *b) != (ssize_t)sizeof *b ||
	    b->magic != SPAWNER_BOOT_MAGIC)
		return -1;
	return is_terminated(b->instance, sizeof b->instance) &&
			       is_terminated(b->runtimes, sizeof b->runtimes) &&
			       is_terminated(b->cgroup_root, sizeof b->cgroup_root) &&
			       b->slots > 0 && b->slots <= SPAWN_LIVE_MAX
		       ? 0
		       : -1;
}

int
main(void)
{
	static struct spawner_boot boot;
	struct spawner_inside in = { .boot = &boot };

	if (getpid() != 1 || read_boot(&boot)) {
		fputs("pratai-spawner: is started by pratai-node, not by hand\n", stderr);
		return 2;
	}
	close(SPAWNER_FD_BOOT);
	log_open("spawner", LOG_INFO);
	return spawner_process(&in);
}
