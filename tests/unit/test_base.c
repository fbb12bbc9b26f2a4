/* The small things that all build on: errors, growing strings, text, ids, clocks. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/crypto.h"
#include "core/base/err.h"
#include "core/base/id.h"
#include "core/base/str.h"

/* ---- err ---- */

static void
test_errors_keep_class_errno_and_step(void **state)
{
	struct err e = { 0 };

	(void)state;
	errno = EACCES;
	assert_int_equal(err_sys(&e, ERR_NODE, "open %s", "x"), -1);
	assert_int_equal(errno, EACCES);
	assert_string_equal(e.text, "open x: Permission denied");
	err_step(&e, "rootfs");
	assert_int_equal(err_wrap(&e, "layer %d", 3), -1);
	assert_string_equal(e.text, "layer 3: open x: Permission denied");
	assert_int_equal(e.cls, ERR_NODE);
	assert_int_equal(e.errnum, EACCES);
	assert_string_equal(e.step, "rootfs");
	assert_int_equal(err_set(&e, ERR_INPUT, "no"), -1);
	assert_int_equal(e.errnum, 0);
	assert_string_equal(e.step, "");
	err_step(&e, "a step whose name is longer than there is room for it");
	assert_int_equal(strlen(e.step), sizeof e.step - 1);
	err_clear(&e);
	assert_int_equal(e.cls, ERR_NONE);
	for (int c = 0; c < ERR_CLASS_COUNT; c++)
		assert_string_not_equal(err_class_name((enum err_class)c), "unknown");
	assert_string_equal(err_class_name((enum err_class)99), "unknown");
	/* Nobody wants to know: nothing happens. */
	assert_int_equal(err_set(NULL, ERR_INPUT, "x"), -1);
	assert_int_equal(err_sys(NULL, ERR_INPUT, "x"), -1);
	assert_int_equal(err_wrap(NULL, "x"), -1);
	err_step(NULL, "x");
	err_clear(NULL);
}

static void
test_an_error_is_one_clean_line(void **state)
{
	char hostile[2000] = "";
	struct err e;

	(void)state;
	err_set(&e, ERR_INPUT, "a\nb\r\tc\x1b[31m\x7f");
	assert_string_equal(e.text, "a?b??c?[31m?");
	err_set(&e, ERR_INPUT, "a\xc2\x9b" "31m\xc2\x80\xc2\xa0");
	assert_string_equal(e.text, "a??31m??\xc2\xa0");
	err_set(&e, ERR_INPUT, "%s", "\xff\xc3 \xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xed\xa0\x80");
	assert_string_equal(e.text, "?? \xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80???");
	/* Wherever a long text is cut, no half character stays. */
	for (size_t shift = 0; shift < 4; shift++) {
		memset(hostile, 'x', shift);
		for (size_t i = shift; i + 4 < sizeof hostile; i += 4)
			memcpy(hostile + i, "\xf0\x9f\x98\x80", 5);
		err_set(&e, ERR_INPUT, "%s", hostile);
		assert_true(str_is_utf8(e.text, strlen(e.text)));
		assert_int_equal(strlen(e.text), sizeof e.text - 1);
		err_wrap(&e, "%s", hostile);
		assert_true(str_is_utf8(e.text, strlen(e.text)));
		errno = ENOENT;
		err_sys(&e, ERR_INPUT, "%s", hostile);
		assert_true(str_is_utf8(e.text, strlen(e.text)));
	}
}

/* ---- buf ---- */

static void
test_buf_grows_to_its_maximum_and_no_further(void **state)
{
	struct buf b = { .max = 1000 };
	char part[300];
	char *kept;

	(void)state;
	memset(part, 'p', sizeof part);
	for (int i = 0; i < 3; i++)
		assert_int_equal(buf_put(&b, part, sizeof part), 0);
	assert_int_equal(buf_put(&b, part, sizeof part), -1);
	assert_true(b.failed);
	assert_int_equal(b.len, 900); /* nothing of what did not fit */
	assert_int_equal(b.data[900], 0);
	b.failed = false;
	assert_int_equal(buf_put(&b, part, 100), 0);
	assert_int_equal(buf_puts(&b, "x"), -1);
	assert_int_equal(buf_puts(&b, ""), 0);
	assert_null(buf_steal(&b)); /* failed: half a text is no text */
	assert_null(b.data);
	assert_int_equal(buf_printf(&b, "%s-%d", "a", 7), 0);
	assert_string_equal(b.data, "a-7");
	kept = buf_steal(&b);
	assert_string_equal(kept, "a-7");
	free(kept);
	kept = buf_steal(&b);
	assert_string_equal(kept, ""); /* empty is a text, too */
	free(kept);
}

static void
test_buf_consumes_and_reserves(void **state)
{
	struct buf b = { 0 };
	char *to;

	(void)state;
	buf_consume(&b, 5);
	assert_int_equal(b.len, 0);
	buf_puts(&b, "hello world");
	buf_consume(&b, 6);
	assert_string_equal(b.data, "world");
	buf_consume(&b, 100);
	assert_string_equal(b.data, "");
	to = buf_reserve(&b, 3);
	memcpy(to, "abc", 3);
	b.len += 3;
	buf_terminate(&b);
	assert_string_equal(b.data, "abc");
	assert_null(buf_reserve(&b, SIZE_MAX));
	assert_null(buf_reserve(&b, SIZE_MAX - 2));
	assert_true(b.failed);
	buf_free(&b);
	assert_int_equal(buf_put(&b, "\0\0", 2), 0);
	assert_int_equal(b.len, 2);
	buf_free(&b);
	buf_free(&b);
}

/* ---- str ---- */

static void
test_whole_numbers(void **state)
{
	static const struct {
		const char *text;
		int64_t min, max, value;
		int rc;
	} table[] = {
		{ "0", 0, 9, 0, 0 }, { "9", 0, 9, 9, 0 }, { "10", 0, 9, 0, -1 }, { "-1", 0, 9, 0, -1 },
		{ "-5", -5, 5, -5, 0 }, { "007", 0, 9, 7, 0 }, { "", 0, 9, 0, -1 }, { " 1", 0, 9, 0, -1 },
		{ "1 ", 0, 9, 0, -1 }, { "+1", 0, 9, 0, -1 }, { "-", -9, 9, 0, -1 }, { "--1", -9, 9, 0, -1 },
		{ "0x1", 0, 9, 0, -1 }, { "1e1", 0, 99, 0, -1 }, { "1.0", 0, 9, 0, -1 },
		{ "9223372036854775807", 0, INT64_MAX, INT64_MAX, 0 },
		{ "9223372036854775808", 0, INT64_MAX, 0, -1 },
		{ "-9223372036854775808", INT64_MIN, 0, INT64_MIN, 0 },
		{ "99999999999999999999999", 0, INT64_MAX, 0, -1 },
	};
	int64_t value;

	(void)state;
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
		assert_int_equal(str_int(table[i].text, table[i].min, table[i].max, &value), table[i].rc);
		if (!table[i].rc)
			assert_true(value == table[i].value);
	}
}

static void
test_fractions(void **state)
{
	static const char *const bad[] = { "", ".", ".5", "-1", "+1", "1e3", "0x1p3", "inf", "nan", "1.2.3",
					   " 1", "1 ", "1,5", "9999999999999999999999999999999" };
	double d;

	(void)state;
	assert_int_equal(str_double("0.5", 0, 64, &d), 0);
	assert_true(d == 0.5);
	assert_int_equal(str_double("64", 0.01, 64, &d), 0);
	assert_int_equal(str_double("1.", 0, 64, &d), 0);
	assert_int_equal(str_double("64.1", 0, 64, &d), -1);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_equal(str_double(bad[i], 0, 1e300, &d), -1);
}

static void
test_sizes_and_times(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes; /* 0: refused */
	} sizes[] = {
		{ "512", 512 }, { "512B", 512 }, { "16K", 16384 }, { "64M", 64u << 20 }, { "1g", 1u << 30 },
		{ "2T", 2ull << 40 }, { "", 0 }, { "M", 0 }, { "-1", 0 }, { "-1M", 0 }, { "1.5M", 0 },
		{ "64MB", 0 }, { "64 M", 0 }, { "64X", 0 }, { "0", 0 }, { "18446744073709551616", 0 },
		{ "99999999999T", 0 }, { "1e6", 0 }, { "0x10", 0 },
	};
	static const struct {
		const char *text;
		uint64_t ns; /* 0: refused */
	} times[] = {
		{ "500us", 500000 }, { "20ms", 20000000 }, { "5s", 5000000000 }, { "0.5s", 500000000 },
		{ "2m", 120000000000 }, { "1h", 3600000000000 }, { "5", 0 }, { "s", 0 }, { "-5s", 0 },
		{ "5 s", 0 }, { "5d", 0 }, { "5sec", 0 }, { "2h", 0 }, { "1us", 0 }, { "1e3s", 0 },
		{ "0x5s", 0 }, { "infs", 0 }, { "5S", 0 }, { "", 0 },
	};
	uint64_t value;
	struct err e;

	(void)state;
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		int rc = str_size("--memory", sizes[i].text, 1, 4ull << 40, &value, &e);

		assert_int_equal(rc, sizes[i].bytes ? 0 : -1);
		if (rc)
			assert_non_null(strstr(e.text, "--memory"));
		else
			assert_true(value == sizes[i].bytes);
	}
	for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
		int rc = str_duration("--timeout", times[i].text, 10000, 3600 * NS_PER_S, &value, &e);

		assert_int_equal(rc, times[i].ns ? 0 : -1);
		if (rc)
			assert_non_null(strstr(e.text, "--timeout"));
		else
			assert_true(value == times[i].ns);
	}
}

static void
test_utf8(void **state)
{
	static const struct {
		const char *text;
		bool good;
	} table[] = {
		{ "", true }, { "plain", true }, { "\xc2\x80", true }, { "\xdf\xbf", true },
		{ "\xe0\xa0\x80", true }, { "\xef\xbf\xbf", true }, { "\xf0\x90\x80\x80", true },
		{ "\xf4\x8f\xbf\xbf", true }, { "\xed\x9f\xbf", true }, { "\x80", false }, { "\xbf", false },
		{ "\xc0\x80", false }, { "\xc1\xbf", false }, { "\xe0\x9f\xbf", false },
		{ "\xed\xa0\x80", false }, { "\xed\xbf\xbf", false }, { "\xf0\x8f\xbf\xbf", false },
		{ "\xf4\x90\x80\x80", false }, { "\xf5\x80\x80\x80", false }, { "\xff", false },
		{ "\xc3", false }, { "\xe2\x82", false }, { "\xf0\x9f\x98", false }, { "\xc3(", false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
		assert_int_equal(str_is_utf8(table[i].text, strlen(table[i].text)), table[i].good);
	assert_true(str_is_utf8("a\0b", 3));
}

static void
test_copies_hex_base64_and_words(void **state)
{
	static const char *const base64[][2] = { { "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" }, { "foo", "Zm9v" },
						 { "foob", "Zm9vYg==" }, { "fooba", "Zm9vYmE=" },
						 { "foobar", "Zm9vYmFy" }, { "\xfb\xff", "+/8=" } };
	char out[32];
	unsigned char bytes[4];

	(void)state;
	assert_int_equal(str_copy(out, 4, "abc"), 0);
	assert_int_equal(str_copy(out, 3, "abc"), -1);
	assert_int_equal(str_copy(out, 0, ""), -1);
	str_hex("\x00\xff\x10", 3, out);
	assert_string_equal(out, "00ff10");
	assert_int_equal(str_unhex("00FF10", bytes, 3), 0);
	assert_memory_equal(bytes, "\x00\xff\x10", 3);
	assert_int_equal(str_unhex("00ff1", bytes, 3), -1);
	assert_int_equal(str_unhex("00ff1g", bytes, 3), -1);
	assert_int_equal(str_unhex("00ff10aa", bytes, 3), -1);
	for (size_t i = 0; i < sizeof base64 / sizeof base64[0]; i++) {
		assert_true(STR_BASE64_MAX(strlen(base64[i][0])) == strlen(base64[i][1]) + 1);
		str_base64(base64[i][0], strlen(base64[i][0]), out);
		assert_string_equal(out, base64[i][1]);
	}
	assert_true(str_starts("PRATAI_X", "PRATAI_"));
	assert_false(str_starts("PRATAI", "PRATAI_"));
}

/* ---- id ---- */

static void
test_drawn_ids_rise(void **state)
{
	struct id last = id_new(), next;

	(void)state;
	/* More in a millisecond than its counter holds. */
	for (int i = 0; i < 20000; i++) {
		next = id_new();
		assert_true(memcmp(last.b, next.b, 8) < 0);
		assert_int_equal(next.b[6] >> 4, 7);
		assert_int_equal(next.b[8] >> 6, 2);
		last = next;
	}
	assert_true(id_time_ms(&last) >= clock_real_us() / 1000 - 1000);
	assert_true(id_time_ms(&last) <= clock_real_us() / 1000 + 1000);
}

static void
test_computed_ids_are_the_same_for_all(void **state)
{
	static const uint8_t digest[10] = { 0xff, 0xff, 0xff, 0xff, 4, 5, 6, 7, 8, 9 };
	int64_t us = 1767323045123456;
	struct id one = id_computed(us, digest), two = id_computed(us + 1, digest);
	char text[ID_TEXT_MAX];

	(void)state;
	assert_true(id_equal(&one, &two)); /* the same millisecond */
	assert_true(id_time_ms(&one) == us / 1000);
	id_format(&one, text);
	assert_string_equal(text, "019b7ca9-8d03-8fff-bfff-040506070809");
	two = id_computed(us + 1000, digest);
	assert_true(memcmp(one.b, two.b, sizeof one.b) < 0);
}

static void
test_ids_as_text(void **state)
{
	static const char *const bad[] = { "", "0", "019b7ca8b4838fffbfff040506070809",
					   "019b7ca8-b483-8fff-bfff-04050607080", "019b7ca8-b483-8fff-bfff-0405060708090",
					   "019b7ca8-b483-8fff-bfff_040506070809", "g19b7ca8-b483-8fff-bfff-040506070809",
					   "{19b7ca8-b483-8fff-bfff-04050607080}", "019b7ca8-b4838-fff-bfff-040506070809" };
	struct id id, back;
	char text[ID_TEXT_MAX];

	(void)state;
	assert_int_equal(id_parse("019B7CA8-B483-8FFF-BFFF-040506070809", &id), 0);
	id_format(&id, text);
	assert_string_equal(text, "019b7ca8-b483-8fff-bfff-040506070809");
	assert_int_equal(id_parse(text, &back), 0);
	assert_true(id_equal(&id, &back));
	assert_int_equal(id_hash(&id), id_hash(&back));
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_equal(id_parse(bad[i], &back), -1);
	assert_int_equal(id_parse("00000000-0000-0000-0000-000000000000", &id), 0);
	assert_true(id_is_zero(&id));
}

/* ---- clock ---- */

static void
test_times_as_text(void **state)
{
	static const struct {
		const char *text;
		int64_t us;
	} good[] = {
		{ "1970-01-01T00:00:00Z", 0 },
		{ "2026-01-02T03:04:05.678901Z", 1767323045678901 },
		{ "2026-01-02t03:04:05.678901z", 1767323045678901 },
		{ "2026-01-02 03:04:05.6789019Z", 1767323045678901 },
		{ "2026-01-02T03:04:05.5Z", 1767323045500000 },
		{ "2026-01-02T05:34:05+02:30", 1767323045000000 },
		{ "2026-01-01T22:04:05-05:00", 1767323045000000 },
		{ "2026-01-02", 1767312000000000 },
		{ "2024-02-29", 1709164800000000 },
		{ "1969-12-31T23:59:59.999999Z", -1 },
		{ "2016-12-31T23:59:60Z", 1483228800000000 }, /* a leap second */
	};
	static const char *const bad[] = {
		"", "2026", "2026-1-2", "2026-01-02T", "2026-01-02T03:04Z", "2026-01-02T03:04:05",
		"2026-01-02T03:04:05.Z", "2026-01-02T03:04:05+2", "2026-01-02T03:04:05+24:00",
		"2026-01-02T24:00:00Z", "2026-01-02T03:60:00Z", "2026-01-02T03:04:61Z", "2026-13-01",
		"2026-00-01", "2026-01-00", "2026-01-32", "2026-02-29", "2026-02-30", "2026-04-31",
		"2026-01-02T03:04:05Zx", "2026-01-02Z", "yesterday", "-026-01-02", "1767323045",
	};
	int64_t us;

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		if (clock_parse(good[i].text, &us) || us != good[i].us)
			print_error("%s\n", good[i].text);
		assert_int_equal(clock_parse(good[i].text, &us), 0);
		assert_true(us == good[i].us);
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		if (!clock_parse(bad[i], &us))
			print_error("taken: %s\n", bad[i]);
		assert_int_equal(clock_parse(bad[i], &us), -1);
	}
}

static void
test_times_go_out_and_back(void **state)
{
	static const int64_t table[] = { 0, 1, -1, 1767323045678901, 253402300799999999, -62135596800000000 };
	static const int64_t extremes[] = { INT64_MAX, INT64_MIN };
	char text[CLOCK_RFC3339_MAX];
	int64_t us;
	uint64_t before = clock_mono_ns();

	(void)state;
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
		clock_format(table[i], text);
		assert_int_equal(strlen(text), 27);
		assert_int_equal(clock_parse(text, &us), 0);
		assert_true(us == table[i]);
	}
	for (size_t i = 0; i < 2; i++) {
		clock_format(extremes[i], text);
		assert_true(strlen(text) < sizeof text);
		assert_int_equal(text[strlen(text) - 1], 'Z');
	}
	assert_true(clock_mono_ns() >= before);
}

/* ---- SHA-256 ---- */

/* FIPS 180-2, appendix B; the million in pieces of every length around a block's. */
static void
test_digests(void **state)
{
	static const struct { const char *text, *hex; } known[] = {
		{ "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
		{ "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
		{ "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
		  "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1" },
	};
	uint8_t digest[SHA256_BYTES];
	char hex[SHA256_HEX_MAX], piece[130];
	struct sha256 h;
	size_t left = 1000000;

	(void)state;
	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		sha256_hex(known[i].text, strlen(known[i].text), hex);
		assert_string_equal(hex, known[i].hex);
	}
	memset(piece, 'a', sizeof piece);
	sha256_init(&h);
	sha256_update(&h, piece, 0);
	for (size_t n = 0; left; n = (n + 1) % sizeof piece) {
		size_t len = n < left ? n : left;

		sha256_update(&h, piece, len);
		left -= len;
	}
	sha256_final(&h, digest);
	str_hex(digest, sizeof digest, hex);
	assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_errors_keep_class_errno_and_step),
		cmocka_unit_test(test_an_error_is_one_clean_line),
		cmocka_unit_test(test_buf_grows_to_its_maximum_and_no_further),
		cmocka_unit_test(test_buf_consumes_and_reserves),
		cmocka_unit_test(test_whole_numbers),
		cmocka_unit_test(test_fractions),
		cmocka_unit_test(test_sizes_and_times),
		cmocka_unit_test(test_utf8),
		cmocka_unit_test(test_copies_hex_base64_and_words),
		cmocka_unit_test(test_drawn_ids_rise),
		cmocka_unit_test(test_computed_ids_are_the_same_for_all),
		cmocka_unit_test(test_ids_as_text),
		cmocka_unit_test(test_times_as_text),
		cmocka_unit_test(test_times_go_out_and_back),
		cmocka_unit_test(test_digests),
	};

	return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
