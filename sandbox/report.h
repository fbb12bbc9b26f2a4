/*
 * The report of a run, one line of JSON (CONTRACT.md, pratai-run(1)), and the one table from
 * a reason to an exit code.
 */
#ifndef PRATAI_SANDBOX_REPORT_H
#define PRATAI_SANDBOX_REPORT_H

#include <stdint.h>

struct buf;
struct watch;
struct sandbox_outcome;

enum {
	REPORT_EXIT_TIMEOUT = 124,
	REPORT_EXIT_ERROR = 125, /* pratai's own */
	REPORT_EXIT_NOT_EXECUTABLE = 126,
	REPORT_EXIT_NOT_FOUND = 127,
	REPORT_EXIT_SIGNAL = 128, /* plus the signal */
	REPORT_EXIT_MEMORY = 137,
	REPORT_EXIT_OUTPUT = 153,
};

/* What `pratai run` exits with.  CANCELLED: code is the signal that was the order. */
int report_exit_code(const struct sandbox_outcome *o);

/* The word in the report: of the reasons in pratai-run(1), which are fewer. */
const char *report_reason(const struct sandbox_outcome *o);

/* Appends the report with its newline.  watch: whose refused calls are in it, or NULL. */
int report_json(struct buf *out, const struct sandbox_outcome *o, uint64_t output_bytes,
		const struct watch *watch);

#endif
