/*
 * Probes of kernel features.  Each is asked by doing the thing in a harmless way, not by
 * the kernel's version: distributions backport, and filters around us take away.
 *
 * The answers are kept in a static table (one of the two mutable globals that the
 * conventions allow).  A process that will fork asks before it does.
 */
#include "core/base/probe.h"

#include <errno.h>
#include <linux/landlock.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

static const char *const names[] = {
	[PROBE_CLONE3] = "clone3",
	[PROBE_TMPFS_XATTR] = "tmpfs.xattr",
	[PROBE_LANDLOCK] = "landlock",
	[PROBE_TIME_NAMESPACE] = "time.namespace",
};
_Static_assert(sizeof names / sizeof names[0] == PROBE_COUNT, "a name for each");

enum answer { UNKNOWN, NO, YES };
static enum answer answers[PROBE_COUNT];

bool
probe_disabled(const char *word)
{
	const char *list = getenv("PRATAI_DISABLE");
	size_t len = strlen(word);

	while (list && *list) {
		size_t n = strcspn(list, ",");

		if (n == len && !memcmp(list, word, len))
			return true;
		list += n + (list[n] == ',');
	}
	return false;
}

/* A structure of no size is invalid where the call exists. */
static bool
has_clone3(void)
{
	return syscall(SYS_clone3, NULL, 0) < 0 && errno == EINVAL;
}

/* A memfd is a file of the kernel's own tmpfs mount, with the same attribute handlers. */
static bool
has_tmpfs_xattr(void)
{
	int fd = memfd_create("pratai-probe", MFD_CLOEXEC);
	bool yes;

	if (fd < 0)
		return false;
	yes = !fsetxattr(fd, "user.pratai", "", 0, 0);
	close(fd);
	return yes;
}

static bool
has_landlock(void)
{
	return syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) >= 2;
}

static bool
has_time_namespace(void)
{
	return !access("/proc/self/ns/time_for_children", F_OK);
}

bool
probe_has(enum probe feature)
{
	static bool (*const ask[])(void) = {
		[PROBE_CLONE3] = has_clone3,
		[PROBE_TMPFS_XATTR] = has_tmpfs_xattr,
		[PROBE_LANDLOCK] = has_landlock,
		[PROBE_TIME_NAMESPACE] = has_time_namespace,
	};
	_Static_assert(sizeof ask / sizeof ask[0] == PROBE_COUNT, "a question for each");

	if (answers[feature] == UNKNOWN)
		answers[feature] = !probe_disabled(names[feature]) && ask[feature]() ? YES : NO;
	return answers[feature] == YES;
}
