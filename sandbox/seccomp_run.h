/*
 * Runs a filter as the kernel would: for the proof of a compiled one, and for who answers
 * in a filter's place (watch.c).
 */
#ifndef PRATAI_SECCOMP_RUN_H
#define PRATAI_SECCOMP_RUN_H

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdint.h>

/* What seccomp_compile makes; for anything else, SECCOMP_RET_KILL_PROCESS. */
uint32_t seccomp_run(const struct sock_filter *code, unsigned length,
		     const struct seccomp_data *data);

#endif
