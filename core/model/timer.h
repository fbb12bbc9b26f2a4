/*
 * When timers tick: pure.  A function with `frequency` F minutes ticks at its creation
 * plus 1·F, 2·F, … minutes, so that restarts move nothing.
 */
#ifndef PRATAI_TIMER_H
#define PRATAI_TIMER_H

#include <stdint.h>

/* The first tick after now_us; INT64_MAX, never, when frequency_min is 0. */
int64_t timer_next_us(int64_t created_us, uint32_t frequency_min, int64_t now_us);

#endif
