/*
 * What builds need of the operator's settings: pip's and npm's configuration, proxies,
 * certificates.
 *
 * Read once, from root's environment and files, when the spawner starts.  Only builds with
 * network get it: variables, files and directories that the settings name, read-only, and
 * the way to the hosts that their URLs name.  Credentials in an index's or a proxy's URL are thereby
 * seen by what pip and npm run: that is what they are for.
 */
#ifndef PRATAI_SANDBOX_BUILD_ENV_H
#define PRATAI_SANDBOX_BUILD_ENV_H

#include <stdbool.h>
#include <stddef.h>

#include "sandbox/egress.h"

struct err;

enum { BUILD_ENV_VARS = 96, BUILD_ENV_BINDS = 32, BUILD_ENV_SETTINGS_MAX = 256 << 10 };

struct build_env {
	char *vars[BUILD_ENV_VARS + 1]; /* NAME=value, NULL-ended */
	size_t var_count;
	struct {
		char *source; /* absolute, on the machine; no links */
		char *target; /* absolute, in the sandbox */
		bool settings; /* a tool's own file, to be readable whatever its mode */
	} binds[BUILD_ENV_BINDS];
	size_t bind_count;
	struct egress_names names; /* of indexes and proxies */
};

/* environment: NULL-ended; home: of the operator ("/root"), or NULL; etc: "/etc".  What is
 * missing or too much is left out; -1 only when memory runs out. */
int build_env_collect(struct build_env *b, char *const *environment, const char *home,
		      const char *etc, struct err *e);
void build_env_free(struct build_env *b);

#endif
