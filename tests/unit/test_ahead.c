/*
 * The rule of what is made ahead, driven as a spawner would drive it, on a clock of our own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/clock.h"
#include "sandbox/ahead.h"

enum { MOST = 8 };

static struct ahead a;
static struct ahead_held held[MOST];
static struct ahead_root roots[64];
static unsigned count, made, ended;
static uint64_t now;

static int
set_up(void **state)
{
	struct wire_request r = { .layer_count = 1, .tmp_bytes = 1 << 20, .runtime = "python3" };

	(void)state;
	memset(&a, 0, sizeof a);
	count = made = ended = 0;
	now = 1000 * NS_PER_S;
	for (unsigned i = 0; i < 64; i++) {
		r.layers[0][31] = (uint8_t)i;
		ahead_root_of(&roots[i], &r);
	}
	return 0;
}

static void
remove_at(unsigned at)
{
	held[at] = held[--count];
}

/* All that is to be done, of so many places; each step has one less to do. */
static void
settle_in(unsigned most)
{
	for (unsigned i = 0; i < 100; i++) {
		struct ahead_choice next = ahead_next(&a, held, count, most, now);

		if (next.what == AHEAD_NOTHING)
			return;
		if (next.what == AHEAD_END) {
			assert_true(next.index < count);
			remove_at(next.index);
			ended++;
			continue;
		}
		assert_true(count < most);
		held[count] = (struct ahead_held){ .made_ns = now };
		for (unsigned r = 0; next.root && r < 64; r++)
			if (!memcmp(&roots[r], next.root, sizeof roots[r]))
				held[count].root = &roots[r];
		assert_true(!next.root == !held[count].root);
		count++;
		made++;
	}
	fail_msg("it never ends");
}

static void
settle(void)
{
	settle_in(MOST);
}

/* -1: without a root. */
static unsigned
held_of(int root)
{
	unsigned n = 0;

	for (unsigned i = 0; i < count; i++)
		n += held[i].root == (root < 0 ? NULL : &roots[root]);
	return n;
}

/* An event; true: there was one with its root. */
static bool
event(int root)
{
	int at = ahead_take(held, count, &roots[root], now);
	bool with = at >= 0 && held[at].root;

	if (at >= 0)
		remove_at((unsigned)at);
	ahead_asked(&a, &roots[root], now);
	return with;
}

static void
test_what_decides_a_root(void **state)
{
	struct wire_request r = { .layer_count = 1, .tmp_bytes = 1 << 20, .runtime = "python3" };
	struct ahead_root root;

	(void)state;
	/* What is behind the end of a string or list is the sender's, and no part of it. */
	memset(r.layers[1], 7, sizeof r.layers[1]);
	strcpy(r.runtime + 20, "x");
	r.memory_bytes = 5;
	ahead_root_of(&root, &r);
	assert_memory_equal(&root, &roots[0], sizeof root);
	r.tmp_bytes++;
	ahead_root_of(&root, &r);
	assert_memory_not_equal(&root, &roots[0], sizeof root);
	r.tmp_bytes--;
	r.runtime[6] = '2';
	ahead_root_of(&root, &r);
	assert_memory_not_equal(&root, &roots[0], sizeof root);
	r.runtime[6] = '3';
	r.layer_count = 2;
	ahead_root_of(&root, &r);
	assert_memory_not_equal(&root, &roots[0], sizeof root);
	r.layer_count = 1;
	r.image[0][0] = 1;
	ahead_root_of(&root, &r);
	assert_memory_equal(&root, &roots[0], sizeof root);
	r.image_count = 1;
	ahead_root_of(&root, &r);
	assert_memory_not_equal(&root, &roots[0], sizeof root);
}

static void
test_none_is_wanted(void **state)
{
	(void)state;
	settle();
	assert_int_equal(held_of(-1), MOST / 2);
	assert_int_equal(count, MOST / 2);
	/* Once is not often enough; another one that comes once each minute is not, either. */
	for (int i = 0; i < 10; i++) {
		assert_false(event(i % 5));
		settle();
		assert_int_equal(count, held_of(-1));
		assert_int_equal(count, MOST / 2);
		now += 30 * NS_PER_S;
	}
}

static void
test_one_that_repeats(void **state)
{
	unsigned before;

	(void)state;
	settle();
	event(0);
	now += NS_PER_S;
	event(0);
	settle();
	assert_int_equal(held_of(0), MOST / 2);
	assert_true(held_of(-1) >= MOST / 4);
	before = made;
	for (int i = 0; i < 1000; i++) {
		now += NS_PER_S / 100;
		assert_true(event(0));
		settle();
	}
	assert_int_equal(made, before + 1000);
	assert_int_equal(ended, 0);
	/* A stranger gets one without a root. */
	assert_true(ahead_take(held, count, &roots[1], now) >= 0);
	assert_false(event(1));
}

/* The places are dealt by how much is asked for, and nobody pushes anybody out in turn. */
static void
test_several_in_turn(void **state)
{
	unsigned with = 0;

	(void)state;
	settle();
	for (int i = 0; i < 3000; i++) {
		now += NS_PER_S / 100;
		with += event(i % 3);
		settle();
		assert_true(held_of(-1) >= MOST / 4);
	}
	assert_true(with > 2950);
	assert_int_equal(held_of(0) + held_of(1) + held_of(2), MOST - MOST / 4);
	assert_true(held_of(0) >= 1 && held_of(1) >= 1 && held_of(2) >= 1);
	assert_true(ended <= MOST);
	/* More of them than places: those that have one keep it. */
	ended = 0;
	for (int i = 0; i < 4000; i++) {
		now += NS_PER_S / 100;
		event(i % 20);
		settle();
	}
	assert_true(ended <= 3 * MOST);
	assert_int_equal(held_of(-1), MOST / 4);
	assert_int_equal(count, MOST);
}

/* A thousand functions, each once in a while: no work for it. */
static void
test_too_many_to_remember(void **state)
{
	(void)state;
	settle();
	for (int i = 0; i < 1000; i++) {
		now += NS_PER_S / 100;
		assert_false(event(i % 64));
		settle();
	}
	assert_int_equal(ended, 0);
	assert_int_equal(count, held_of(-1));
}

static void
test_busy_one_pushes_out(void **state)
{
	(void)state;
	settle();
	for (int i = 0; i < 12; i++) {
		event(i % 6);
		settle();
	}
	for (int i = 0; i < 6; i++)
		assert_int_equal(held_of(i), 1);
	for (int i = 0; i < 100; i++) {
		now += NS_PER_S / 100;
		event(7);
		settle();
	}
	assert_int_equal(held_of(7), MOST / 2);
	assert_int_equal(held_of(-1), MOST / 4);
	assert_int_equal(count, MOST);
}

static void
test_age(void **state)
{
	(void)state;
	settle();
	for (int i = 0; i < 200; i++)
		event(0);
	settle();
	assert_int_equal(held_of(0), MOST / 2);
	assert_int_equal(ahead_until_ns(held, count), now + AHEAD_AGE_MAX_S * NS_PER_S);
	now += (AHEAD_AGE_MAX_S - 1) * NS_PER_S;
	event(0);
	settle();
	assert_int_equal(ended, 0);
	/* Old ones are replaced while the root is asked for, */
	now += NS_PER_S;
	settle();
	assert_int_equal(ended, MOST / 2 - 1);
	assert_int_equal(held_of(0), MOST / 2);
	/* and gone when it is not. */
	now += AHEAD_AGE_MAX_S * NS_PER_S;
	settle();
	assert_int_equal(held_of(0), 0);
	assert_int_equal(count, MOST / 2);
	assert_int_equal(ahead_until_ns(held, count), UINT64_MAX);
}

static void
test_failure(void **state)
{
	(void)state;
	event(0);
	event(0);
	settle();
	assert_int_equal(held_of(0), MOST / 2);
	ahead_failed(&a, &roots[0], now);
	settle();
	assert_int_equal(held_of(0), 0);
	for (int i = 0; i < 99; i++) {
		now += NS_PER_S / 100;
		event(0);
		settle();
		assert_int_equal(held_of(0), 0);
	}
	now += NS_PER_S / 100;
	settle();
	assert_int_equal(held_of(0), MOST / 2);
	/* Nobody knows it: nothing. */
	ahead_failed(&a, &roots[63], now);
}

static void
test_which_is_taken(void **state)
{
	(void)state;
	now = 6;
	held[0] = (struct ahead_held){ .made_ns = 1 };
	held[1] = (struct ahead_held){ .root = &roots[1], .made_ns = 5 };
	held[2] = (struct ahead_held){ .root = &roots[2], .made_ns = 4 };
	held[3] = (struct ahead_held){ .root = &roots[1], .made_ns = 3 };
	assert_int_equal(ahead_take(held, 4, &roots[1], now), 3);
	assert_int_equal(ahead_take(held, 3, &roots[1], now), 1);
	assert_int_equal(ahead_take(held, 4, &roots[3], now), 0);
	assert_int_equal(ahead_take(held + 1, 3, &roots[3], now), -1);
	assert_int_equal(ahead_take(held, 4, NULL, now), 0);
	assert_int_equal(ahead_take(held, 0, &roots[1], now), -1);
	/* However long nobody had the time to end it. */
	now = 3 + AHEAD_AGE_MAX_S * NS_PER_S;
	assert_int_equal(ahead_take(held, 4, &roots[1], now), 1);
	now = 5 + AHEAD_AGE_MAX_S * NS_PER_S;
	assert_int_equal(ahead_take(held, 4, &roots[1], now), 0);
}

/* With one slot there are two places: one of any, one more that soon has the root. */
static void
test_few_places(void **state)
{
	(void)state;
	for (unsigned most = 1; most < MOST; most++) {
		set_up(NULL);
		settle_in(most);
		assert_int_equal(count, (most + 1) / 2);
		for (int i = 0; i < 50; i++) {
			now += NS_PER_S / 10;
			event(0);
			settle_in(most);
			assert_true(count <= most);
		}
		assert_int_equal(held_of(0), (most + 1) / 2);
		assert_true(held_of(-1) >= most / 4);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_what_decides_a_root, set_up),
		cmocka_unit_test_setup(test_none_is_wanted, set_up),
		cmocka_unit_test_setup(test_one_that_repeats, set_up),
		cmocka_unit_test_setup(test_several_in_turn, set_up),
		cmocka_unit_test_setup(test_too_many_to_remember, set_up),
		cmocka_unit_test_setup(test_busy_one_pushes_out, set_up),
		cmocka_unit_test_setup(test_age, set_up),
		cmocka_unit_test_setup(test_failure, set_up),
		cmocka_unit_test_setup(test_which_is_taken, set_up),
		cmocka_unit_test_setup(test_few_places, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
