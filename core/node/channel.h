/*
 * The node's end of a sandbox's channel: lines of JSON, each followed by raw bytes if its
 * reader says so (runtime.h).  The other end is a user's process: it may write garbage,
 * endless lines, or never read.  One read or write a turn of the loop, both bounded.
 */
#ifndef PRATAI_NODE_CHANNEL_H
#define PRATAI_NODE_CHANNEL_H

#include <stddef.h>
#include <stdint.h>

struct channel;
struct err;
struct loop;

/* What channel_fns.line says about what follows its line; from 1 up: so many raw bytes. */
enum {
	CHANNEL_LINE = 0,    /* another line */
	CHANNEL_STREAM = -1, /* raw bytes until the end */
	CHANNEL_STOP = -2,   /* nothing that counts: reading ends here */
};

struct channel_fns {
	/* A line without its newline, at most RUNTIME_LINE_MAX - 1 bytes, not terminated. */
	int64_t (*line)(void *arg, const char *line, size_t len);
	/* Some of the raw bytes; left: how many are still to come (streams: UINT64_MAX). */
	void (*bytes)(void *arg, const char *data, size_t len, uint64_t left);
	/* Nothing more comes: the end of the stream (e NULL), or a line was too long.  Once;
	 * not after CHANNEL_STOP. */
	void (*end)(void *arg, const struct err *e);
};

/* Takes over fd.  A callback may not free the channel, but anything else. */
struct channel *channel_new(struct loop *l, int fd, const struct channel_fns *fns, void *arg,
			    struct err *e);
void channel_free(struct channel *c); /* NULL is fine */

/* Sends head (copied), then body (which stays the caller's, valid until channel_free). Once. */
int channel_send(struct channel *c, const void *head, size_t head_len, const void *body,
		 size_t body_len, struct err *e);

/* The other side is gone: reads what it left, without waiting. */
void channel_drain(struct channel *c);

#endif
