/*
 * Slow or dangerous work in a process of its own: the unpacking of archives
 * (pratai-unpack), the removal of large trees.  Started by vfork and exec from a descriptor
 * that was opened before privileges were dropped; it gets three descriptors and nothing
 * else, and does not outlive the process that started it.
 */
#ifndef PRATAI_HELPER_H
#define PRATAI_HELPER_H

#include <stddef.h>
#include <stdint.h>

struct err;
struct helper;
struct loop;

enum { HELPER_OUTPUT_MAX = 16 << 10, HELPER_ARGS_MAX = 4 };

struct helper_task {
	int program_fd;              /* O_PATH of the executable */
	const char *const *argv;     /* NULL-ended, at most HELPER_ARGS_MAX words */
	int input;                   /* its 0; -1: /dev/null */
	int dir;                     /* its 3; -1: none */
	uint64_t timeout_ns;         /* killed then */
};

/*
 * status: its exit status, or -1 when a signal (the timeout's, too) ended it.  text: what
 * it wrote to its 1, at most HELPER_OUTPUT_MAX bytes, terminated, without a newline at its end.
 */
typedef void (*helper_fn)(void *arg, int status, const char *text);

/* Descriptors stay the caller's.  The helper is freed after fn. */
struct helper *helper_start(struct loop *l, const struct helper_task *task, helper_fn fn,
			    void *arg, struct err *e);
/* Ends it; fn is not called. */
void helper_cancel(struct helper *h);

/*
 * Opens the program that is called name: beside the running one, in ../lib/pratai from
 * there, or in lib/pratai below the prefix of the build.
 */
int helper_open(const char *name, struct err *e);

#endif
