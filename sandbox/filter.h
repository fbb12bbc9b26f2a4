/*
 * A command's system call filter that is not the default: the list strict, or a profile of
 * the user's; and what is needed to watch one (watch.h).
 *
 * Profiles are read by a program of its own, pratai-seccomp, without privileges: `pratai`
 * has no JSON parser and no list of names.  This is also what it writes to us: a struct
 * filter_head, the code, the calls.
 */
#ifndef PRATAI_SANDBOX_FILTER_H
#define PRATAI_SANDBOX_FILTER_H

#include <linux/filter.h>
#include <stdbool.h>
#include <stdint.h>

struct err;

enum { FILTER_MAGIC = 0x50534601, FILTER_ARGS = 6, FILTER_CALLS_MAX = 1024 };

struct filter_head {
	uint32_t magic, length, call_count, zero;
};

/* A call that has a name. */
struct filter_call {
	char name[32];
	uint64_t masks[FILTER_ARGS]; /* of each argument the bits that the filter looks at */
	uint32_t number, zero;
};

struct filter {
	struct sock_filter *code; /* length of them */
	unsigned length;
	const struct filter_call *calls; /* by number; NULL when pratai-seccomp was not needed */
	unsigned call_count;
	void *owned; /* what both are in */
};

/*
 * what: "default", "strict", or the name of a file.  watched: names and masks are needed.
 * ERR_INPUT: what the file is not.  filter_free also after a failure.
 */
int filter_load(struct filter *f, const char *what, bool watched, struct err *e);
void filter_free(struct filter *f);

#endif
