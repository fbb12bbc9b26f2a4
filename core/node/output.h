/*
 * What a sandbox prints, as the event's log: a JSON line for each line of text,
 *
 *   {"t":"2026-01-02T03:04:05.678901Z","s":"stdout","l":"text"}
 *
 * in the order in which lines were complete.  Bytes that are not UTF-8 become U+FFFD; a
 * line over OUTPUT_LINE_MAX bytes is continued in another record.  Pure: bytes and times
 * in, text out.
 */
#ifndef PRATAI_NODE_OUTPUT_H
#define PRATAI_NODE_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/buf.h"

enum {
	OUTPUT_LINE_MAX = 8 << 10,
	OUTPUT_RECORDS_MAX = 16 << 20, /* bytes of JSON: a line of one byte costs sixty */
};

enum output_stream { OUTPUT_STDOUT, OUTPUT_STDERR, OUTPUT_STREAM_COUNT };

struct output {
	uint64_t limit_bytes; /* of both streams together */
	uint64_t bytes;       /* so far, at most the limit */
	bool exceeded;        /* more came than limit_bytes: the sandbox is to end */
	bool full;            /* records reached OUTPUT_RECORDS_MAX: no more are kept */
	bool truncated;       /* after output_end: exceeded or full */
	struct buf records;
	char line[OUTPUT_STREAM_COUNT][OUTPUT_LINE_MAX]; /* not complete yet */
	size_t line_len[OUTPUT_STREAM_COUNT];
};

void output_init(struct output *o, uint64_t limit_bytes);
void output_free(struct output *o);

/* Takes what was read at now_us (real time).  Beyond the limit nothing is kept. */
void output_feed(struct output *o, enum output_stream s, const char *data, size_t len,
		 int64_t now_us);

/* Nothing more comes: unfinished lines become records, and a last one says what is missing. */
void output_end(struct output *o, int64_t now_us);

#endif
