/*
 * The state directory of `pratai up`: who may use it, the secrets in it, the listening
 * socket, and the file that shells read.
 *
 *   lock       held (flock) by the one `up` that runs here; has its pid
 *   alive      held by it and by the processes that it starts: while one of an earlier
 *              `up` still ends, a new one waits
 *   instance   eight of [a-z0-9], made once: names what belongs to this directory
 *   join       0600, made once: what a node shows to be let in
 *   token      0600, made once: the first token's secret
 *   run/       02750, the control plane's user, the node's group, which sockets made in it get
 *   env        0600: `export NAME=VALUE` lines
 */
#ifndef PRATAI_CLIENT_UP_STATE_H
#define PRATAI_CLIENT_UP_STATE_H

#include <limits.h>
#include <sys/types.h>

struct err;

enum { UP_INSTANCE_MAX = 9, UP_SECRET_MAX = 65, UP_URL_MAX = 320 };

struct up_state {
	char dir[PATH_MAX]; /* absolute */
	int dir_fd, lock_fd, alive_fd, run_fd;
	char instance[UP_INSTANCE_MAX];
	char token[UP_SECRET_MAX];
};

/* Makes what is missing.  ERR_INPUT: not a directory for this; ERR_CONFLICT: in use. */
int up_state_open(struct up_state *s, const char *dir, uid_t control_uid,
		  gid_t node_gid, struct err *e);
void up_state_close(struct up_state *s);

int up_state_write_env(const struct up_state *s, const char *url, struct err *e);

/*
 * Binds HOST:PORT ([ADDRESS]:PORT for IPv6; port 0: any) and listens.  url: how to reach it
 * from this machine.  The descriptor, or -1.
 */
int up_listen(const char *address, char url[UP_URL_MAX], struct err *e);

#endif
