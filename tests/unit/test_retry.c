/* What becomes of an event after an attempt: every type, every reason. */
#include "core/model/retry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void
test_the_delay_doubles_up_to_a_minute(void **state)
{
	static const struct {
		uint32_t failures;
		uint64_t us;
	} table[] = {
		{ 0, 1000000 }, { 1, 1000000 }, { 2, 2000000 }, { 3, 4000000 }, { 4, 8000000 },
		{ 5, 16000000 }, { 6, 32000000 }, { 7, 60000000 }, { 8, 60000000 }, { 9, 60000000 },
		{ 33, 60000000 }, { 64, 60000000 }, { 65, 60000000 }, { UINT32_MAX, 60000000 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
		assert_int_equal(retry_backoff_us(table[i].failures), table[i].us);
}

static void
test_the_delay_of_lost_attempts(void **state)
{
	static const struct {
		uint32_t lost;
		uint64_t us;
	} table[] = {
		{ 0, 0 }, { 1, 0 }, { 2, 100000 }, { 3, 200000 }, { 4, 400000 }, { 8, 6400000 },
		{ 9, 10000000 }, { 10, 10000000 }, { 40, 10000000 }, { UINT32_MAX, 10000000 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
		assert_int_equal(retry_lost_delay_us(table[i].lost), table[i].us);
}

static void
test_every_end(void **state)
{
	static const struct {
		enum event_reason reason;
		bool async_again; /* with retries left */
		enum event_state async_end, wait_end;
		bool counts;
	} table[] = {
		{ REASON_FUNCTION_FAILED, true, EVENT_DEAD, EVENT_FAILED, true },
		{ REASON_TIMEOUT, true, EVENT_DEAD, EVENT_TIMEOUT, true },
		{ REASON_MEMORY_EXCEEDED, false, EVENT_DEAD, EVENT_MEMORY_EXCEEDED, true },
		{ REASON_OUTPUT_EXCEEDED, true, EVENT_DEAD, EVENT_FAILED, true },
		{ REASON_EXPIRED, false, EVENT_DEAD, EVENT_FAILED, true },
		{ REASON_CHAIN_TOO_DEEP, false, EVENT_DEAD, EVENT_FAILED, true },
		{ REASON_CANCELLED, false, EVENT_CANCELLED, EVENT_CANCELLED, false },
		{ REASON_BUILD_FAILED, false, EVENT_DEAD, EVENT_FAILED, true },
	};
	struct retry_decision d;

	(void)state;
	_Static_assert(REASON_COUNT == 10, "a new reason needs its line here");
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
		d = retry_decide(TYPE_ASYNC, table[i].reason, 1, 2, 0);
		assert_int_equal(d.state, table[i].async_again ? EVENT_QUEUED : table[i].async_end);
		assert_int_equal(d.counts, table[i].counts);
		d = retry_decide(TYPE_ASYNC, table[i].reason, 2, 2, 0);
		assert_int_equal(d.state, table[i].async_end);
		assert_int_equal(d.delay_us, 0);
		d = retry_decide(TYPE_WAIT, table[i].reason, 0, 100, 0);
		assert_int_equal(d.state, table[i].wait_end);
		assert_int_equal(d.delay_us, 0);
	}
}

static void
test_success_is_the_end(void **state)
{
	(void)state;
	for (int type = 0; type < TYPE_COUNT; type++) {
		struct retry_decision d = retry_decide((enum event_type)type, REASON_NONE, 5, 9, 77);

		assert_int_equal(d.state, EVENT_SUCCEEDED);
		assert_false(d.counts);
		assert_int_equal(d.delay_us, 0);
	}
}

static void
test_a_lost_node_is_nobodys_failure(void **state)
{
	struct retry_decision d;

	(void)state;
	for (uint32_t failures = 0; failures < 200; failures += 50) {
		d = retry_decide(TYPE_ASYNC, REASON_NODE_LOST, failures, 0, UINT32_MAX);
		assert_int_equal(d.state, EVENT_QUEUED); /* at once, however often */
		assert_int_equal(d.delay_us, 0);
		assert_false(d.counts);
	}
	d = retry_decide(TYPE_WAIT, REASON_NODE_LOST, 0, 100, 0);
	assert_int_equal(d.state, EVENT_FAILED); /* never sent twice */
	assert_false(d.counts);
}

static void
test_the_jitter_stays_within_a_quarter(void **state)
{
	static const uint32_t random[] = { 0, 1, 1u << 31, UINT32_MAX - 1, UINT32_MAX };

	(void)state;
	for (uint32_t failures = 0; failures < 12; failures++) {
		uint64_t base = retry_backoff_us(failures + 1), last = 0;

		for (size_t i = 0; i < sizeof random / sizeof random[0]; i++) {
			struct retry_decision d = retry_decide(TYPE_ASYNC, REASON_TIMEOUT, failures, 100,
							       random[i]);

			assert_int_equal(d.state, EVENT_QUEUED);
			assert_in_range(d.delay_us, base * 3 / 4, base * 5 / 4);
			assert_true(d.delay_us >= last);
			last = d.delay_us;
		}
		assert_int_equal(last, base * 5 / 4);
	}
}

static void
test_retries_are_as_many_as_asked_for(void **state)
{
	static const uint32_t retries[] = { 0, 1, 2, 100 };

	(void)state;
	for (size_t i = 0; i < sizeof retries / sizeof retries[0]; i++) {
		uint32_t failures = 0, attempts = 0;
		struct retry_decision d;

		do {
			attempts++;
			d = retry_decide(TYPE_ASYNC, REASON_FUNCTION_FAILED, failures, retries[i], 0);
			failures += d.counts;
		} while (d.state == EVENT_QUEUED);
		assert_int_equal(attempts, retries[i] + 1);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_delay_doubles_up_to_a_minute),
		cmocka_unit_test(test_the_delay_of_lost_attempts),
		cmocka_unit_test(test_every_end),
		cmocka_unit_test(test_success_is_the_end),
		cmocka_unit_test(test_a_lost_node_is_nobodys_failure),
		cmocka_unit_test(test_the_jitter_stays_within_a_quarter),
		cmocka_unit_test(test_retries_are_as_many_as_asked_for),
	};

	return cmocka_run_group_tests_name("retry", tests, NULL, NULL);
}
