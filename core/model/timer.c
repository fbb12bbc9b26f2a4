#include "core/model/timer.h"

int64_t
timer_next_us(int64_t created_us, uint32_t frequency_min, int64_t now_us)
{
	int64_t period = (int64_t)frequency_min * 60 * 1000000;

	if (!period)
		return INT64_MAX;
	if (now_us < created_us)
		return created_us + period;
	return created_us + ((now_us - created_us) / period + 1) * period;
}
