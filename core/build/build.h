/*
 * Builds: a package (zip) becomes a version's layer, once per version.
 */
#ifndef PRATAI_BUILD_BUILD_H
#define PRATAI_BUILD_BUILD_H

#include "core/node/native.h"

/*
 * Starts a JOB_BUILD: as driver_ops.start, for native_config.build.  The outcome carries
 * version_state (ready: with layer_digest; failed: with build_reason, one sentence for the
 * function's owner) and build_log, the end of what the build printed; or node_lost.
 */
struct driver_run *build_start(struct native *n, const struct message *job, const void *payload,
			       size_t len, driver_done_fn done, void *arg, struct err *e);

#endif
