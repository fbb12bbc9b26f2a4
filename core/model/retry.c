#include "core/model/retry.h"

enum { BACKOFF_FIRST_US = 1000000, BACKOFF_MAX_US = 60000000 };
enum { LOST_FIRST_US = 100000, LOST_MAX_US = 10000000 };

uint64_t
retry_backoff_us(uint32_t failures)
{
	uint32_t doublings = failures ? failures - 1 : 0;

	/* 2^6 s is over the maximum already. */
	return doublings > 6 ? BACKOFF_MAX_US
	       : (uint64_t)BACKOFF_FIRST_US << doublings > BACKOFF_MAX_US
		       ? BACKOFF_MAX_US
		       : (uint64_t)BACKOFF_FIRST_US << doublings;
}

uint64_t
retry_lost_delay_us(uint32_t lost)
{
	if (lost < 2)
		return 0;
	/* 2^7 times 100 ms is over the maximum already. */
	return lost - 2 >= 7 ? LOST_MAX_US : (uint64_t)LOST_FIRST_US << (lost - 2);
}

/* The end of an event whose last attempt did not succeed. */
static enum event_state
end_state(enum event_type type, enum event_reason reason)
{
	if (reason == REASON_CANCELLED)
		return EVENT_CANCELLED;
	if (type == TYPE_ASYNC)
		return EVENT_DEAD;
	if (reason == REASON_TIMEOUT)
		return EVENT_TIMEOUT;
	if (reason == REASON_MEMORY_EXCEEDED)
		return EVENT_MEMORY_EXCEEDED;
	return EVENT_FAILED;
}

struct retry_decision
retry_decide(enum event_type type, enum event_reason reason, uint32_t failures, uint32_t retries,
	     uint32_t random)
{
	struct retry_decision d = { .state = EVENT_SUCCEEDED };
	uint64_t backoff;

	if (reason == REASON_NONE)
		return d;
	if (reason == REASON_NODE_LOST && type == TYPE_ASYNC) {
		d.state = EVENT_QUEUED;
		return d;
	}
	d.counts = reason != REASON_NODE_LOST && reason != REASON_CANCELLED;
	if (type == TYPE_ASYNC && failures < retries &&
	    (reason == REASON_FUNCTION_FAILED || reason == REASON_TIMEOUT ||
	     reason == REASON_OUTPUT_EXCEEDED)) {
		backoff = retry_backoff_us(failures + 1);
		d.state = EVENT_QUEUED;
		d.delay_us = backoff * 3 / 4 + backoff / 2 * random / UINT32_MAX;
		return d;
	}
	d.state = end_state(type, reason);
	return d;
}
