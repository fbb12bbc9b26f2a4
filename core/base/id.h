/*
 * Ids: RFC 9562 UUIDs that sort by time.  Drawn ones are version 7; those that must not
 * double (a timer's tick, a chained event) are version 8: 48 bits of a time, then bits
 * of a hash of what they stand for, so that everybody who computes one gets the same.
 */
#ifndef PRATAI_ID_H
#define PRATAI_ID_H

#include <stdbool.h>
#include <stdint.h>

enum { ID_TEXT_MAX = 37 }; /* 36 characters and the NUL */

struct id {
	uint8_t b[16];
};

/* Version 7, of this moment.  Ids of one process never go backwards. */
struct id id_new(void);

/* Version 8 from a time and the first 10 bytes of a digest. */
struct id id_computed(int64_t real_us, const uint8_t *digest);

void id_format(const struct id *id, char out[ID_TEXT_MAX]);
/* 0, or -1 when text is not a UUID in its usual form (upper case is taken, too). */
int id_parse(const char *text, struct id *id);

/* The milliseconds since 1970 in a version 7 or 8 id. */
int64_t id_time_ms(const struct id *id);

bool id_equal(const struct id *a, const struct id *b);
bool id_is_zero(const struct id *id);

/* A well-spread 64-bit value for hash tables. */
uint64_t id_hash(const struct id *id);

#endif
