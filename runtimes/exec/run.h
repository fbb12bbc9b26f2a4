/*
 * One run of a function's program: payload in, answer out.
 *
 *   channel ──payload──► 64 KiB ──► its 0        its 1 ──► answer, at most RUN_ANSWER_MAX
 *
 * The payload passes through, whatever its size; the answer is kept, since the channel wants
 * its length first.  The program may do as it likes: read nothing, close its input, write
 * before it reads, leave children behind that hold its output.  The answer is what it and its
 * children had written when the program itself ended.
 */
#ifndef PRATAI_RUNTIMES_EXEC_RUN_H
#define PRATAI_RUNTIMES_EXEC_RUN_H

#include <stddef.h>
#include <stdint.h>

#include "runtimes/exec/program.h"

enum { RUN_ANSWER_MAX = 6 << 20, RUN_CHUNK = 64 << 10 };

struct run {
	const char *path;      /* of the program */
	int channel;           /* the payload comes from there, */
	char *early;           /* after what was read of it already, RUN_CHUNK bytes of room, */
	size_t early_len;
	uint64_t payload_left; /* not counting that */
	/* set by run_program: */
	const char *answer;
	size_t answer_len;
	uint64_t run_us;
};

/* 0, or -1 and why in *f.  Afterwards the payload is off the channel.  Ends the process when
 * the node is gone, and when the program was killed: see run.c. */
int run_program(struct run *r, struct failure *f);

#endif
