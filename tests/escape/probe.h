/*
 * The verbs of the probe that are more than one system call.
 */
#ifndef PRATAI_TESTS_ESCAPE_PROBE_H
#define PRATAI_TESTS_ESCAPE_PROBE_H

#include <stdbool.h>

/* Tries verb: its result in *rc (-1 with errno) and 0, or -1 when there is no such verb. */
int probe_other(const char *verb, long *rc);
/* The same of what is hoarded. */
int probe_hoard(const char *kind, long *rc);

#endif
