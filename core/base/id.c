#include "core/base/id.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "core/base/clock.h"
#include "core/base/str.h"

static void
set_time(struct id *id, int64_t ms)
{
	for (int i = 0; i < 6; i++)
		id->b[i] = (uint8_t)(ms >> (40 - 8 * i));
}

static void
set_version(struct id *id, uint8_t version)
{
	id->b[6] = (uint8_t)((id->b[6] & 0x0f) | version << 4);
	id->b[8] = (uint8_t)((id->b[8] & 0x3f) | 0x80);
}

struct id
id_new(void)
{
	static int64_t last_ms;
	static uint32_t sequence;
	int64_t ms = clock_real_us() / 1000;
	struct id id;

	if (getrandom(id.b, sizeof id.b, 0) != sizeof id.b)
		abort(); /* only an interrupted boot can do this; ids must not repeat */
	/* RFC 9562, 6.2, method 1: a counter in the 12 bits after the time. */
	if (ms > last_ms) {
		last_ms = ms;
		sequence = id.b[7]; /* starts in the lower half: room to count */
	} else if (++sequence > 0xfff) {
		last_ms++;
		sequence = 0;
	}
	set_time(&id, last_ms);
	id.b[6] = (uint8_t)(sequence >> 8);
	id.b[7] = (uint8_t)sequence;
	set_version(&id, 7);
	return id;
}

struct id
id_computed(int64_t real_us, const uint8_t *digest)
{
	struct id id;

	memcpy(id.b + 6, digest, 10);
	set_time(&id, real_us / 1000);
	set_version(&id, 8);
	return id;
}

void
id_format(const struct id *id, char out[ID_TEXT_MAX])
{
	char hex[33];

	str_hex(id->b, 16, hex);
	snprintf(out, ID_TEXT_MAX, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16,
		 hex + 20);
}

int
id_parse(const char *text, struct id *id)
{
	char hex[33];
	int n = 0;

	if (strlen(text) != 36)
		return -1;
	for (int i = 0; i < 36; i++) {
		if (i == 8 || i == 13 || i == 18 || i == 23) {
			if (text[i] != '-')
				return -1;
		} else {
			hex[n++] = text[i];
		}
	}
	hex[n] = '\0';
	return str_unhex(hex, id->b, 16);
}

int64_t
id_time_ms(const struct id *id)
{
	int64_t ms = 0;

	for (int i = 0; i < 6; i++)
		ms = ms << 8 | id->b[i];
	return ms;
}

bool
id_equal(const struct id *a, const struct id *b)
{
	return !memcmp(a->b, b->b, sizeof a->b);
}

bool
id_is_zero(const struct id *id)
{
	static const struct id zero;

	return id_equal(id, &zero);
}

uint64_t
id_hash(const struct id *id)
{
	uint64_t high, low;

	memcpy(&high, id->b, 8);
	memcpy(&low, id->b + 8, 8);
	high ^= low;
	high ^= high >> 33; /* the finalizer of MurmurHash3 (public domain) */
	high *= 0xff51afd7ed558ccdull;
	high ^= high >> 33;
	return high;
}
