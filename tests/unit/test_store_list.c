/*
 * Lists, searches, counts and expiry of events, through store.h alone: what every backend
 * must do.
 */
#include "store_fixture.h"

/* 60 events in three projects and two functions; even ones of p0 have succeeded. */
static void
fill(struct fixture *f, struct event *events)
{
	static const char *const projects[] = {"p0", "p1", "p2"};

	for (int i = 0; i < 60; i++) {
		events[i] = event_of(projects[i % 3], (uint8_t)(i % 2));
		events[i].created_us = 1000000 + i / 2 * 10; /* pairs of the same time */
		events[i].source = i % 5 ? SOURCE_WEBHOOK : SOURCE_TIMER;
		assert_int_equal(create(f, &events[i], i == 33 ? "find the needle" : "hay"), ERR_NONE);
		if (i % 3 == 0 && i % 2 == 0) {
			struct event end = events[i];

			end.state = i % 4 ? EVENT_DEAD : EVENT_SUCCEEDED;
			end.reason = i % 4 ? REASON_NODE_LOST : REASON_NONE;
			end.finished_us = 2000000 + i;
			end.error_message = i == 6 ? "a pin in it" : NULL;
			assert_int_equal(DO(f, store_event_settle, &end, no_bytes,
					    bytes_of(i == 12 ? "cotton\n" : "")), ERR_NONE);
		}
	}
}

static void
test_event_list(void **state)
{
	struct fixture *f = *state;
	struct event events[60];
	struct store_event_filter filter = filter_of(NULL);
	int seen = 0;
	char cursor[128] = "";

	fill(f, events);
	filter.limit = 7;
	do { /* pages of all, newest first, none twice */
		RESULT r = NULL;

		filter.cursor = *cursor ? cursor : NULL;
		r = CALL(f, store_event_list, &filter);
		assert_int_equal(r->err.cls, ERR_NONE);
		for (size_t i = 0; i < r->answer.event_count; i++)
			assert_true(id_equal(&r->event_ids[i], &events[59 - seen++].id));
		strcpy(cursor, r->next);
	} while (*cursor);
	assert_int_equal(seen, 60);
	filter = filter_of("p0");
	assert_int_equal(count_of(f, &filter), 20);
	filter.state = EVENT_SUCCEEDED;
	assert_int_equal(count_of(f, &filter), 5);
	filter.state = EVENT_DEAD;
	assert_int_equal(count_of(f, &filter), 5);
	filter.state = EVENT_QUEUED;
	assert_int_equal(count_of(f, &filter), 10);
	filter.state = -1;
	filter.since_us = 1000000 + 15 * 10;
	assert_int_equal(count_of(f, &filter), 10);
	filter.since_us = 0;
	filter.function_id = events[0].function_id;
	assert_int_equal(count_of(f, &filter), 10);
	filter.project = NULL;
	assert_int_equal(count_of(f, &filter), 30);
	filter.source = SOURCE_TIMER;
	assert_int_equal(count_of(f, &filter), 6);
	filter = filter_of("nobody");
	assert_int_equal(count_of(f, &filter), 0);
	filter.cursor = "x'y";
	assert_int_equal(DO(f, store_event_list, &filter), ERR_INPUT);
	filter = filter_of(NULL);
	filter.state = EVENT_STATE_COUNT;
	assert_int_equal(DO(f, store_event_list, &filter), ERR_INPUT);
}

static void
test_search(void **state)
{
	static const struct {
		const char *query;
		size_t count;
	} cases[] = {
		{"needle", 1}, {"pin in", 1}, {"cotton", 1}, {"node_lost", 5}, {"hay", 59},
		{"nowhere", 0}, {"%", 0}, {"' OR 1", 0}, {"", 60},
	};
	struct fixture *f = *state;
	struct event events[60];
	struct store_event_filter filter = filter_of(NULL);

	fill(f, events);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		filter.query = cases[i].query;
		assert_int_equal(count_of(f, &filter), cases[i].count);
	}
	filter.query = "needle";
	filter.project = "p1"; /* 33 is p0's */
	assert_int_equal(count_of(f, &filter), 0);
}

static void
test_unended(void **state)
{
	struct fixture *f = *state;
	struct event events[60];
	struct id after = {{0}};
	int seen = 0;

	fill(f, events);
	for (;;) {
		RESULT r = CALL(f, store_event_unended, &after, 9);

		assert_int_equal(r->err.cls, ERR_NONE);
		if (!r->answer.event_count)
			break;
		for (size_t i = 0; i < r->answer.event_count; i++, seen++) {
			assert_true(memcmp(&r->event_ids[i], &after, sizeof(after)) > 0);
			after = r->event_ids[i];
		}
	}
	assert_int_equal(seen, 50);
}

/* The scheduler takes a short page for the last one: texts must not shorten it. */
static void
test_unended_pages_are_full(void **state)
{
	struct fixture *f = *state;
	struct id start = {{0}};

	for (int i = 0; i < 40; i++) {
		struct event ev = event_of("p1", 1);

		ev.error_traceback = malloc(1 << 20);
		memset(ev.error_traceback, 'x', (1 << 20) - 1);
		ev.error_traceback[(1 << 20) - 1] = '\0';
		assert_int_equal(create(f, &ev, "x"), ERR_NONE);
		event_clear(&ev);
	}
	RESULT r = CALL(f, store_event_unended, &start, 40);
	assert_int_equal(r->answer.event_count, 40);
	assert_null(r->event.error_traceback);
}

static void
test_counts_and_expiry(void **state)
{
	struct fixture *f = *state;
	struct event events[60];

	fill(f, events);
	{
		RESULT r = CALL(f, store_event_counts, NULL);
		assert_int_equal(r->answer.counts[EVENT_QUEUED], 50);
		assert_int_equal(r->answer.counts[EVENT_SUCCEEDED], 5);
		assert_int_equal(r->answer.counts[EVENT_DEAD], 5);
		assert_int_equal(r->answer.counts[EVENT_RUNNING], 0);
	}
	{
		RESULT r = CALL(f, store_event_counts, "p1");
		assert_int_equal(r->answer.counts[EVENT_QUEUED], 20);
		assert_int_equal(r->answer.counts[EVENT_DEAD], 0);
	}
	/* Ids say today; nothing of today ended before 1970-01-01T00:00:02. */
	{
		RESULT r = CALL(f, store_event_expire, 2000006, 100);
		assert_int_equal(r->answer.len, 0);
	}
	for (int i = 0; i < 3; i++) { /* made long ago, as their ids say */
		uint8_t digest[10] = {(uint8_t)i};
		struct event ev = event_of("old", 1);

		ev.id = id_computed(1000000, digest);
		assert_int_equal(create(f, &ev, "gone soon"), ERR_NONE);
		ev.state = EVENT_SUCCEEDED;
		ev.finished_us = 2000000 + i;
		assert_int_equal(DO(f, store_event_settle, &ev, bytes_of("r"), bytes_of("l")), ERR_NONE);
		events[i] = ev;
	}
	{
		RESULT r = CALL(f, store_event_expire, 2000002, 1);
		assert_int_equal(r->answer.len, 1); /* the limit */
	}
	{
		RESULT r = CALL(f, store_event_expire, 2000002, 100);
		assert_int_equal(r->answer.len, 1);
	}
	assert_int_equal(DO(f, store_event_get, &events[0].id, NULL), ERR_NOT_FOUND);
	assert_int_equal(DO(f, store_event_payload, &events[1].id), ERR_NOT_FOUND);
	assert_int_equal(DO(f, store_event_logs, &events[2].id), ERR_NONE);
	{
		RESULT r = CALL(f, store_event_counts, "old");
		assert_int_equal(r->answer.counts[EVENT_SUCCEEDED], 1);
	}
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		FIXTURE_TEST(test_event_list),
		FIXTURE_TEST(test_search),
		FIXTURE_TEST(test_unended),
		FIXTURE_TEST(test_unended_pages_are_full),
		FIXTURE_TEST(test_counts_and_expiry),
	};

	return fixture_main(tests);
}
