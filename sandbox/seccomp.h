/*
 * The system call filter, compiled at build time (gen_seccomp.c, from the rules in
 * seccomp_rules.c) so that a sandbox only loads it.
 */
#ifndef PRATAI_SECCOMP_H
#define PRATAI_SECCOMP_H

struct err;

/* Loads the filter into the calling thread, which has no_new_privs.  Async-signal-safe. */
int seccomp_install(struct err *e);

/* The number of BPF instructions, for reports. */
unsigned seccomp_length(void);

#endif
