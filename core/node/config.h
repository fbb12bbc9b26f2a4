/*
 * The settings of pratai-node: pratai.conf, the environment, the options, in rising order.
 */
#ifndef PRATAI_NODE_CONFIG_H
#define PRATAI_NODE_CONFIG_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/base/net_rule.h"
#include "core/base/opt.h"
#include "core/model/event.h"

struct err;

enum { NODE_INSTANCE_MAX = 17, NODE_TOKEN_MAX = 257, NODE_URL_MAX = 1024 };

struct node_config {
	struct opt_values values; /* what the strings below are in */
	char state[PATH_MAX], runtimes[PATH_MAX]; /* absolute, no links */
	char join[NODE_URL_MAX]; /* without a slash at its end */
	char token[NODE_TOKEN_MAX];
	char name[EVENT_NODE_MAX];
	char instance[NODE_INSTANCE_MAX];
	const char *cgroup_root; /* NULL: the caller's own */
	int run_fd, ready_fd;    /* -1: none */
	uid_t user;
	gid_t group;
	uint32_t uid_base;
	unsigned slots;
	uint64_t memory_mib, build_memory_mib, build_timeout_s;
	int log_level;
	bool with_parent;
	bool egress;            /* functions may reach the Internet */
	struct net_rules allow; /* and of what is near, this */
};

extern const struct opt node_options[];

/*
 * Makes the state directory (0700) if it is missing.  0; 1: --help, --version or
 * --print-config was answered; -1: ERR_INPUT or ERR_NODE.
 */
int node_config_read(struct node_config *c, int argc, char **argv, struct err *e);
void node_config_free(struct node_config *c);

#endif
