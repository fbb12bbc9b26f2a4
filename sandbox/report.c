/*
 * The report is written by hand: its form is fixed, the only text in it that others chose
 * is an error's sentence, and `pratai` shall load no JSON library for it.
 */
#include "sandbox/report.h"

#include <inttypes.h>
#include <stdbool.h>

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/str.h"
#include "sandbox/sandbox.h"
#include "sandbox/watch.h"

int
report_exit_code(const struct sandbox_outcome *o)
{
	switch (o->reason) {
	case SANDBOX_EXITED: return o->code;
	case SANDBOX_SIGNALED:
	case SANDBOX_CANCELLED: return REPORT_EXIT_SIGNAL + o->code;
	case SANDBOX_TIMEOUT: return REPORT_EXIT_TIMEOUT;
	case SANDBOX_MEMORY_EXCEEDED: return REPORT_EXIT_MEMORY;
	case SANDBOX_OUTPUT_EXCEEDED: return REPORT_EXIT_OUTPUT;
	case SANDBOX_NOT_FOUND: return REPORT_EXIT_NOT_FOUND;
	case SANDBOX_NOT_EXECUTABLE: return REPORT_EXIT_NOT_EXECUTABLE;
	case SANDBOX_SETUP_FAILED:
	case SANDBOX_LOST:
	case SANDBOX_REASON_COUNT: break;
	}
	return REPORT_EXIT_ERROR;
}

const char *
report_reason(const struct sandbox_outcome *o)
{
	switch (o->reason) {
	case SANDBOX_CANCELLED: return sandbox_reason_name(SANDBOX_SIGNALED);
	case SANDBOX_LOST: return sandbox_reason_name(SANDBOX_SETUP_FAILED);
	default: return sandbox_reason_name(o->reason);
	}
}

/* A JSON string.  Bytes that are not UTF-8 (a file name in an error) become '?'. */
static void
put_string(struct buf *out, const char *s)
{
	bool utf8 = str_is_utf8(s, __builtin_strlen(s));

	buf_puts(out, "\"");
	for (; *s; s++) {
		unsigned char ch = (unsigned char)*s;

		if (ch == '"' || ch == '\\')
			buf_printf(out, "\\%c", ch);
		else if (ch < 0x20)
			buf_printf(out, "\\u%04x", ch);
		else if (ch >= 0x80 && !utf8)
			buf_puts(out, "?");
		else
			buf_put(out, s, 1);
	}
	buf_puts(out, "\"");
}

static uint64_t
us(uint64_t ns)
{
	return ns / NS_PER_US;
}

static void
put_steps(struct buf *out, const struct sandbox_outcome *o)
{
	const char *comma = "";

	buf_puts(out, ",\"steps_us\":{");
	for (int s = 0; s < STEP_COUNT; s++) {
		/* exec itself ends our clock: it is the command's time. */
		if (!(o->steps_done >> s & 1) || s == STEP_EXEC)
			continue;
		buf_printf(out, "%s\"%s\":%" PRIu32, comma, step_name((enum step)s), o->step_us[s]);
		comma = ",";
	}
	if (o->setup_ns)
		buf_printf(out, "%s\"total\":%" PRIu64, comma, us(o->setup_ns));
	buf_puts(out, "}");
}

int
report_json(struct buf *out, const struct sandbox_outcome *o, uint64_t output_bytes,
	    const struct watch *watch)
{
	bool by_signal = o->reason == SANDBOX_SIGNALED || o->reason == SANDBOX_CANCELLED;

	buf_printf(out, "{\"reason\":\"%s\",\"exit_code\":%d,\"signal\":", report_reason(o),
		   report_exit_code(o));
	if (by_signal)
		buf_printf(out, "%d", o->code);
	else
		buf_puts(out, "null");
	buf_printf(out,
		   ",\"wall_us\":%" PRIu64 ",\"cpu_us\":%" PRIu64 ",\"memory_peak_bytes\":%" PRIu64
		   ",\"pids_peak\":%" PRIu32 ",\"pids_limit_hits\":%" PRIu32 ",\"oom_kills\":%" PRIu32
		   ",\"output_bytes\":%" PRIu64,
		   us(o->wall_ns), us(o->usage.cpu_ns), o->usage.memory_peak_bytes,
		   o->usage.pids_peak, o->usage.pids_limit_hits, o->usage.oom_kills, output_bytes);
	put_steps(out, o);
	if (watch) {
		buf_puts(out, ",\"refused_calls\":");
		watch_put_refused_json(watch, out);
	}
	buf_puts(out, ",\"error\":");
	if (o->error.cls != ERR_NONE)
		put_string(out, o->error.text);
	else
		buf_puts(out, "null");
	buf_puts(out, "}\n");
	return out->failed ? -1 : 0;
}
