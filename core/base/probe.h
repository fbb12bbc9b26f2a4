/*
 * What this kernel can do, asked once and remembered.  PRATAI_DISABLE=name,name says no
 * for a feature that is there, so that tests can force what older kernels do.
 */
#ifndef PRATAI_PROBE_H
#define PRATAI_PROBE_H

#include <stdbool.h>

enum probe {
	/* clone3(2).  A filter around us may refuse it: then clone(2), and the slow way into a
	 * v2 cgroup. */
	PROBE_CLONE3,
	/* user.* attributes on tmpfs (Linux 6.6): without them an overlay that a user namespace
	 * mounts with its upper directory there cannot remove lower directories. */
	PROBE_TMPFS_XATTR,
	/* landlock(7) that can allow links between directories (Linux 5.19), in a kernel that
	 * has it switched on. */
	PROBE_LANDLOCK,
	/* time_namespaces(7) (Linux 5.6, where configured). */
	PROBE_TIME_NAMESPACE,
	PROBE_COUNT
};

bool probe_has(enum probe feature);
/* Whether PRATAI_DISABLE has the word. */
bool probe_disabled(const char *word);

#endif
