/*
 * Network namespaces made ahead, by a process of its own: making one takes longer than the
 * rest of a sandbox (0.3-0.6 ms).  Each is used once: a used one shows its next user the
 * counters and half-closed connections of the one before.
 */
#ifndef PRATAI_SANDBOX_NETPOOL_H
#define PRATAI_SANDBOX_NETPOOL_H

#include <sys/types.h>

struct err;

/* A burst of so many starts does not wait for the kernel's network lock; 9 MiB. */
enum { NETPOOL_READY = 64 };

struct netpool {
	int fd;    /* our end; -1: there is no filler */
	int pidfd; /* the filler's, readable when it has died */
};

/* Forks the filler.  It ends with its parent. */
int netpool_start(struct netpool *p, struct err *e);
/* A namespace with its loopback up, the caller's to close; -1: none is ready. */
int netpool_take(struct netpool *p);
/* Closes; the filler ends by itself. */
void netpool_close(struct netpool *p);

#endif
