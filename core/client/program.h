/*
 * Where the other programs and the runtimes are: beside this one in a build tree; installed,
 * in ../lib/pratai and ../bin of wherever the tree was put.
 */
#ifndef PRATAI_CLIENT_PROGRAM_H
#define PRATAI_CLIENT_PROGRAM_H

enum { PROGRAM_PATH_MAX = 4096 };

struct err;

/* The path of a program or directory by its name ("pratai-node", "runtimes").  ERR_NODE. */
int program_find(const char *name, char path[PROGRAM_PATH_MAX], struct err *e);

#endif
