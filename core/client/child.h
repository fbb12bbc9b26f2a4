/*
 * A program started by fork and exec with exactly the descriptors that it is to have, in
 * a process group of its own (so that a terminal's ^C reaches only its parent), and bound
 * to its parent's life: it is killed when the parent dies.
 */
#ifndef PRATAI_CLIENT_CHILD_H
#define PRATAI_CLIENT_CHILD_H

#include <stddef.h>
#include <sys/types.h>

struct err;

enum { CHILD_KEEP_MAX = 8 };

/*
 * keep: descriptors that stay open in the child, with their numbers (-1 is passed over);
 * all others above 2 are closed.  stdin is /dev/null, stdout is stderr.  Returns
 * the pid, or -1: also when the program could not be executed.  A program that changes its
 * uid loses the bond and has to make it again.
 */
pid_t child_start(char *const argv[], const int keep[CHILD_KEEP_MAX], struct err *e);

#endif
