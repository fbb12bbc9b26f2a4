/*
 * Watching a sandbox's system calls, for `pratai run --seccomp-report` and --seccomp-learn.
 *
 * The command's filter asks us (SECCOMP_RET_USER_NOTIF) where it would refuse, or, to learn,
 * always.  We run the filter as it was on the same numbers and arguments and answer what it
 * says: nothing is decided here, and no memory of the command's is looked at, so there is
 * nothing that it could change between the question and the answer.  A call is let on only
 * when the filter allows it.
 *
 * Who asks waits for the answer in a sleep that only a fatal signal ends.  When we are gone,
 * so is the sandbox; until then calls of a lost listener fail with ENOSYS.
 */
#ifndef PRATAI_SANDBOX_WATCH_H
#define PRATAI_SANDBOX_WATCH_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "sandbox/filter.h"

struct buf;
struct err;
struct sandbox;

enum { WATCH_CALLS_MAX = 2048, WATCH_NUMBERS = 1024 };

struct watch {
	const struct filter *filter; /* as it was loaded, with names */
	struct filter asking;        /* the command's */
	bool learns;
	int listener;   /* -1: not yet, or no more */
	bool over;      /* nobody asks any more */
	uint64_t lost;  /* calls that calls[] has no room for */
	struct watch_call {
		uint64_t count, args[FILTER_ARGS]; /* masked: what the filter looks at */
		uint32_t number, answer;
		int next;
	} calls[WATCH_CALLS_MAX];
	unsigned call_count;
	int first[WATCH_NUMBERS]; /* by number, modulo */
};

/* The filter is the caller's and outlives w. */
int watch_init(struct watch *w, const struct filter *filter, bool learns, struct err *e);
void watch_close(struct watch *w);

/* What to poll for: a count, 0 or 1.  Then watch_step with what poll said. */
unsigned watch_events(const struct watch *w, const struct sandbox *sb, struct pollfd *p);
void watch_step(struct watch *w, const struct sandbox *sb, short revents);

/* "ptrace 3, mount 1", or "none". */
void watch_put_refused(const struct watch *w, struct buf *out);
/* {"ptrace":3,"mount":1} */
void watch_put_refused_json(const struct watch *w, struct buf *out);

/* A profile that answers what was called as it was answered, and refuses all else: with EPERM,
 * or by the end of the process.  ERR_LIMIT: more different calls than are remembered. */
int watch_put_profile(const struct watch *w, bool deadly, struct buf *out, struct err *e);

#endif
