#include "core/base/clock.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

uint64_t
clock_mono_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

int64_t
clock_real_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * US_PER_S + ts.tv_nsec / 1000;
}

void
clock_format(int64_t real_us, char out[CLOCK_RFC3339_MAX])
{
	int64_t s = real_us / US_PER_S, us = real_us % US_PER_S;
	struct tm tm;
	time_t t;

	if (us < 0) {
		us += US_PER_S;
		s--;
	}
	t = (time_t)s;
	/* An RFC 3339 year has four digits: other times are no records of ours. */
	if (!gmtime_r(&t, &tm) || tm.tm_year < -1900 || tm.tm_year > 9999 - 1900) {
		snprintf(out, CLOCK_RFC3339_MAX, "1970-01-01T00:00:00.000000Z");
		return;
	}
	strftime(out, CLOCK_RFC3339_MAX, "0000-%m-%dT%H:%M:%S", &tm);
	for (int i = 3, year = tm.tm_year + 1900; i >= 0; i--, year /= 10)
		out[i] = (char)('0' + year % 10);
	snprintf(out + 19, CLOCK_RFC3339_MAX - 19, ".%06dZ", (int)us);
}

static int
days_in(int year, int month)
{
	static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return days[month - 1] + (month == 2 && leap);
}

static int
digits(const char **p, int n, int *out)
{
	int value = 0;

	for (int i = 0; i < n; i++, (*p)++) {
		if (!isdigit((unsigned char)**p))
			return -1;
		value = value * 10 + (**p - '0');
	}
	*out = value;
	return 0;
}

static int
offset_seconds(const char **p, int *out)
{
	int sign, hours, minutes;

	*out = 0;
	if (**p == 'Z' || **p == 'z') {
		(*p)++;
		return 0;
	}
	if (**p != '+' && **p != '-')
		return -1;
	sign = *(*p)++ == '-' ? -1 : 1;
	if (digits(p, 2, &hours) || *(*p)++ != ':' || digits(p, 2, &minutes))
		return -1;
	*out = sign * (hours * 3600 + minutes * 60);
	return hours > 23 || minutes > 59 ? -1 : 0;
}

int
clock_parse(const char *text, int64_t *real_us)
{
	const char *p = text;
	struct tm tm = { 0 };
	int64_t us = 0;
	int year, offset = 0;

	if (digits(&p, 4, &year) || *p++ != '-' || digits(&p, 2, &tm.tm_mon) || *p++ != '-' ||
	    digits(&p, 2, &tm.tm_mday))
		return -1;
	if (*p) {
		int scale = 100000;

		if ((*p != 'T' && *p != 't' && *p != ' ') || (p++, digits(&p, 2, &tm.tm_hour)) ||
		    *p++ != ':' || digits(&p, 2, &tm.tm_min) || *p++ != ':' || digits(&p, 2, &tm.tm_sec))
			return -1;
		if (*p == '.') {
			if (!isdigit((unsigned char)*++p))
				return -1;
			for (; isdigit((unsigned char)*p); p++, scale /= 10)
				us += (*p - '0') * scale;
		}
		if (offset_seconds(&p, &offset) || *p)
			return -1;
	}
	if (tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > days_in(year, tm.tm_mon) ||
	    tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60)
		return -1;
	tm.tm_year = year - 1900;
	tm.tm_mon--;
	*real_us = ((int64_t)timegm(&tm) - offset) * US_PER_S + us;
	return 0;
}
