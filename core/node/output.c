/*
 * Lines are gathered per stream in a buffer of OUTPUT_LINE_MAX bytes and written out as
 * records when their newline comes or the buffer is full (then without cutting a
 * character).  Memory is bounded by OUTPUT_RECORDS_MAX whatever is printed.
 */
#include "core/node/output.h"

#include <stdio.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/node/utf8.h"

static const char *const stream_words[] = { [OUTPUT_STDOUT] = "stdout",
					    [OUTPUT_STDERR] = "stderr" };
_Static_assert(sizeof stream_words / sizeof *stream_words == OUTPUT_STREAM_COUNT, "each");

/* Kept free for the last record, which says what was cut. */
enum { LAST_RECORD_MAX = 256 };

void
output_init(struct output *o, uint64_t limit_bytes)
{
	memset(o, 0, sizeof *o);
	o->limit_bytes = limit_bytes;
	o->records.max = OUTPUT_RECORDS_MAX;
}

void
output_free(struct output *o)
{
	buf_free(&o->records);
}

static int
put_record(struct buf *to, enum output_stream s, const char *line, size_t len, int64_t now_us)
{
	char when[CLOCK_RFC3339_MAX];

	clock_format(now_us, when);
	if (buf_printf(to, "{\"t\":\"%s\",\"s\":\"%s\",\"l\":\"", when, stream_words[s]) ||
	    utf8_put_json(to, line, len) || buf_puts(to, "\"}\n"))
		return -1;
	return 0;
}

/* The whole record or nothing of it. */
static void
add_record(struct output *o, enum output_stream s, const char *line, size_t len, int64_t now_us)
{
	size_t before = o->records.len;

	if (o->full)
		return;
	o->records.max = OUTPUT_RECORDS_MAX - LAST_RECORD_MAX;
	if (put_record(&o->records, s, line, len, now_us) == 0)
		return;
	o->records.len = before;
	o->records.failed = false;
	buf_terminate(&o->records);
	o->full = true;
}

static void
flush(struct output *o, enum output_stream s, size_t len, int64_t now_us)
{
	add_record(o, s, o->line[s], len, now_us);
	o->line_len[s] -= len;
	memmove(o->line[s], o->line[s] + len, o->line_len[s]);
}

void
output_feed(struct output *o, enum output_stream s, const char *data, size_t len, int64_t now_us)
{
	if (len > o->limit_bytes - o->bytes) {
		len = (size_t)(o->limit_bytes - o->bytes);
		o->exceeded = true;
	}
	o->bytes += len;
	while (len) {
		const char *newline = memchr(data, '\n', len);
		size_t n = newline ? (size_t)(newline - data) : len;
		size_t room = OUTPUT_LINE_MAX - o->line_len[s];

		if (n > room) { /* full: the line goes on in another record */
			memcpy(o->line[s] + o->line_len[s], data, room);
			o->line_len[s] += room;
			data += room;
			len -= room;
			flush(o, s, utf8_cut(o->line[s], OUTPUT_LINE_MAX, OUTPUT_LINE_MAX - 4),
			      now_us);
			continue;
		}
		memcpy(o->line[s] + o->line_len[s], data, n);
		o->line_len[s] += n;
		if (newline) {
			flush(o, s, o->line_len[s], now_us);
			n++;
		}
		data += n;
		len -= n;
	}
}

void
output_end(struct output *o, int64_t now_us)
{
	char last[LAST_RECORD_MAX / 2];

	for (int s = 0; s < OUTPUT_STREAM_COUNT; s++)
		if (o->line_len[s])
			flush(o, (enum output_stream)s, o->line_len[s], now_us);
	o->truncated = o->exceeded || o->full;
	if (!o->truncated)
		return;
	if (o->exceeded)
		snprintf(last, sizeof last, "output limit of %llu bytes exceeded, cut here",
			 (unsigned long long)o->limit_bytes);
	else
		snprintf(last, sizeof last, "the log's records exceed %d bytes, cut here",
			 OUTPUT_RECORDS_MAX);
	o->records.max = OUTPUT_RECORDS_MAX;
	put_record(&o->records, OUTPUT_STDERR, last, strlen(last), now_us);
}
