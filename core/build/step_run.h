/*
 * One command of an image's build, in a sandbox of its own: uid 0 of a user namespace, with the
 * capabilities that package managers need over the image's own files and none over the machine,
 * the sandboxes' filter and landlock, memory, process, time and disk limits.  What it writes goes
 * to a directory on disk and is bounded while it runs: several times a second the free space of
 * the file system is looked at; when it fell by more than the limit, the directory is measured.
 * Below a reserve of free space the step ends in any case.
 */
#ifndef PRATAI_BUILD_STEP_RUN_H
#define PRATAI_BUILD_STEP_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "core/build/tail.h"
#include "sandbox/build_env.h"
#include "sandbox/sandbox.h"

struct err;

struct step_limits {
	uint64_t memory_bytes, disk_bytes, timeout_ns;
};

struct step_run {
	/* Filled in by the caller: layers, usr, disk, binds, argv, envp, workdir. */
	struct sandbox_spec spec;
	const struct egress_names *names; /* with network: what is near and still allowed; NULL: no
					   * network */
	struct step_limits limits;
	bool live; /* what it prints goes to standard error at once */

	struct tail log; /* the end of it, in any case; the caller's to free */
};

/*
 * Runs it to its end.  -1: ERR_FUNCTION (it failed), ERR_LIMIT (named), ERR_AGAIN (a signal came
 * to us), ERR_NODE.  Nothing of it runs any more.
 */
int step_run(struct step_run *r, struct err *e);

#endif
