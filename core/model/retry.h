/*
 * What becomes of an event after an attempt: an end state, or another attempt.  Pure.
 */
#ifndef PRATAI_RETRY_H
#define PRATAI_RETRY_H

#include <stdint.h>

#include "core/model/event.h"

struct retry_decision {
	enum event_state state; /* EVENT_QUEUED: again */
	uint64_t delay_us;      /* until then */
	bool counts;            /* the attempt counts as one of the function's failures */
};

/*
 * reason: of the attempt, REASON_NONE is success.  failures: attempts that counted before
 * this one.  random: 32 random bits for the jitter.
 *
 * node_lost is always run again and never counts (the caller adds retry_lost_delay_us; async; a wait_for_response
 * event is never sent twice and ends as failed).  function_failed, timeout and
 * output_exceeded are retried `retries` times, after 1 s, 2 s, 4 s … at most 60 s, each
 * 75 to 125 % of that.  memory_exceeded is not: it would only happen again.
 */
struct retry_decision retry_decide(enum event_type type, enum event_reason reason,
				   uint32_t failures, uint32_t retries, uint32_t random);

/*
 * The delay after a lost attempt, the lost-th of the event (from 1): none after the first,
 * then 100 ms, doubling, at most 10 s.  Lost attempts count against nobody, so without it
 * a node that can start nothing would be asked again and again without a pause.
 */
uint64_t retry_lost_delay_us(uint32_t lost);

/* No delay is longer: a clock that was set back makes no event wait for more. */
enum { RETRY_DELAY_MAX_US = 75000000 };

/* The delay before attempt failures + 1, without jitter. */
uint64_t retry_backoff_us(uint32_t failures);

#endif
