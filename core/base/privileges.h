/*
 * How a program that talks to the network gives up root.
 */
#ifndef PRATAI_PRIVILEGES_H
#define PRATAI_PRIVILEGES_H

#include <stdbool.h>
#include <sys/types.h>

struct err;

/* The soft limit of open files to the hard one. */
int privileges_raise_files(struct err *e);

/*
 * Becomes uid:gid without supplementary groups, capabilities, the hope of new ones, core
 * dumps, or being traced; checks that root is not to be had again.  parent: dies with that
 * process (0: not).  Before any thread.
 */
int privileges_drop(uid_t uid, gid_t gid, pid_t parent, struct err *e);

#endif
