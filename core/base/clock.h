/*
 * Clocks.  Monotonic nanoseconds for deadlines and durations; real time, in
 * microseconds since 1970, only for records and logs.
 */
#ifndef PRATAI_CLOCK_H
#define PRATAI_CLOCK_H

#include <stdint.h>

enum { CLOCK_RFC3339_MAX = 32 };

#define NS_PER_US 1000ull
#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull
#define US_PER_S 1000000ll

uint64_t clock_mono_ns(void);
int64_t clock_real_us(void);

/* RFC 3339 in UTC with microseconds: 2026-01-02T03:04:05.678901Z.  1970 for a time whose year
 * has not four digits. */
void clock_format(int64_t real_us, char out[CLOCK_RFC3339_MAX]);

/*
 * Reads RFC 3339 (any offset, fraction optional) or a bare date.  0, or -1 when the
 * text is not a time.
 */
int clock_parse(const char *text, int64_t *real_us);

#endif
