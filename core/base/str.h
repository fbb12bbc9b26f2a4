/*
 * Text: checks and conversions that have one right answer.
 */
#ifndef PRATAI_STR_H
#define PRATAI_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

/* Copies with truncation refused: 0, or -1 when src does not fit into size bytes. */
int str_copy(char *dst, size_t size, const char *src);

/* A whole decimal number, no sign but '-', within [min, max].  -1: not that. */
int str_int(const char *text, int64_t min, int64_t max, int64_t *out);

/* A decimal fraction such as 0.5 within [min, max].  -1: not that. */
int str_double(const char *text, double min, double max, double *out);

/*
 * "64M", "16K", "1G", "512B" or "512": bytes (powers of 1024).  what names the option
 * in the error ("--memory").
 */
int str_size(const char *what, const char *text, uint64_t min, uint64_t max, uint64_t *bytes,
	     struct err *e);

/* "500us", "20ms", "5s", "2m", "1h", fractions allowed: nanoseconds.  A unit is needed. */
int str_duration(const char *what, const char *text, uint64_t min_ns, uint64_t max_ns,
		 uint64_t *ns, struct err *e);

/* Well-formed UTF-8 (RFC 3629: no surrogates, shortest forms, up to U+10FFFF). */
bool str_is_utf8(const void *data, size_t len);

/* 2*len lower-case hex digits and a NUL to out. */
void str_hex(const void *data, size_t len, char *out);
/* The reverse; -1 unless text is exactly 2*len hex digits. */
int str_unhex(const char *text, void *out, size_t len);
/* The value of a hex digit, or -1. */
int str_hex_digit(int c);

/* The bytes that the base64 (RFC 4648, padded) of len bytes takes, with its NUL. */
#define STR_BASE64_MAX(len) (((len) + 2) / 3 * 4 + 1)
/* out has STR_BASE64_MAX(len) bytes. */
void str_base64(const void *data, size_t len, char *out);

bool str_starts(const char *s, const char *prefix);
/* Whether text is one of words ("a|b|c"). */
bool str_is_word(const char *words, const char *text);

#endif
