/* When timers tick. */
#include "core/model/timer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define MINUTE ((int64_t)60 * 1000000)
#define YEAR (365 * 24 * 60 * MINUTE)

static const int64_t created = 1767323045123456; /* 2026-01-02T03:04:05.123456Z */

static void
test_ticks(void **state)
{
	static const struct {
		uint32_t frequency;
		int64_t after, tick; /* since the creation */
	} table[] = {
		{ 1, 0, MINUTE },                        /* never at the creation itself */
		{ 1, 1, MINUTE },
		{ 1, MINUTE - 1, MINUTE },
		{ 1, MINUTE, 2 * MINUTE },               /* after now, not now */
		{ 1, MINUTE + 1, 2 * MINUTE },
		{ 5, 4 * MINUTE, 5 * MINUTE },
		{ 5, 12 * MINUTE, 15 * MINUTE },
		{ 5, -1, 5 * MINUTE },                   /* a clock that was set back */
		{ 5, -YEAR, 5 * MINUTE },
		{ 1, 10 * YEAR, 10 * YEAR + MINUTE },
		{ 527040, 0, 527040 * MINUTE },          /* the least often that is allowed */
		{ 527040, 527040 * MINUTE, 2 * 527040 * MINUTE },
		{ 7, 100 * YEAR, 100 * YEAR - 100 * YEAR % (7 * MINUTE) + 7 * MINUTE },
	};

	(void)state;
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
		assert_int_equal(timer_next_us(created, table[i].frequency, created + table[i].after),
				 created + table[i].tick);
}

/* Whenever the question is asked, the ticks are the same: restarts move nothing. */
static void
test_ticks_do_not_depend_on_who_asks_when(void **state)
{
	int64_t tick = created;

	(void)state;
	for (int n = 1; n < 1000; n++) {
		int64_t next = timer_next_us(created, 3, tick);

		assert_int_equal(next, created + n * 3 * MINUTE);
		for (int k = 1; k <= 5; k++)
			assert_int_equal(timer_next_us(created, 3, tick + k * 3 * MINUTE / 6), next);
		tick = next;
	}
}

static void
test_no_frequency_is_no_tick(void **state)
{
	(void)state;
	assert_int_equal(timer_next_us(created, 0, created), INT64_MAX);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ticks),
		cmocka_unit_test(test_ticks_do_not_depend_on_who_asks_when),
		cmocka_unit_test(test_no_frequency_is_no_tick),
	};

	return cmocka_run_group_tests_name("timer", tests, NULL, NULL);
}
