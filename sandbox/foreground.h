/*
 * One sandbox in the foreground: signals end it, its output may be counted and cut.
 *
 * Without a limit of output the command has the caller's own descriptors and nothing is
 * counted.  With one, stdout and stderr go through two pipes and through us.
 */
#ifndef PRATAI_SANDBOX_FOREGROUND_H
#define PRATAI_SANDBOX_FOREGROUND_H

#include <stddef.h>
#include <stdint.h>

struct err;
struct sandbox;
struct watch;

enum { PUMP_BYTES = 65536 };

struct run_io {
	uint64_t output_max;   /* bytes of both streams; UINT64_MAX: not counted */
	uint64_t output_bytes; /* that were passed on */
	struct watch *watch;   /* or NULL */
	int signals;           /* signalfd */
	int input;             /* the command's, if it is not the caller's own; -1 */
	int ends[2];           /* the command's, until it has them */
	struct pump {
		int from, to; /* from -1: at its end */
		size_t at, len;
		char data[PUMP_BYTES];
	} pumps[2];
};

/*
 * Before the start.  Blocks SIGINT, SIGTERM, SIGHUP and SIGQUIT (those not ignored) for the
 * rest of the process's life, ignores SIGPIPE, and with a limit puts pipes into stdio, and a
 * standard input that cannot be written.
 */
int run_io_open(struct run_io *io, int stdio[3], struct err *e);
/* The command has its ends. */
void run_io_started(struct run_io *io);

/* Until the sandbox is done and its output is passed on.  A signal ends it: the reason is
 * then SANDBOX_CANCELLED, the code its number. */
int run_supervise(struct sandbox *sb, struct run_io *io, struct err *e);

void run_io_close(struct run_io *io);

#endif
