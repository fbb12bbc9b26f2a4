/*
 * Events, and the order of things, through store.h alone: what every backend must do.
 */
#include "store_fixture.h"

/* A member added to struct event needs a place in every backend: look there, then here. */
_Static_assert(sizeof(struct event) == 672, "struct event has changed: does every backend keep it?");

/* ---- Events ---- */

/* Every member has a value of its own, and comes back as it went in. */
static void
test_event_keeps_all(void **state)
{
	struct fixture *f = *state;
	struct event ev = event_of("p1", 7), got;

	ev.parent = id_new();
	ev.root = id_new();
	ev.function_version = 4000000000u;
	ev.source = SOURCE_REPLAY;
	ev.type = TYPE_WAIT;
	ev.state = EVENT_FAILED;
	ev.reason = REASON_BUILD_FAILED;
	ev.start = START_PRELOAD;
	ev.attempts = 11;
	ev.failures = 12;
	ev.lease = (struct lease){13, 1ull << 62};
	strcpy(ev.node_id, "node-1");
	ev.queued_us = 14;
	ev.started_us = 15;
	ev.finished_us = 16;
	ev.not_before_us = 17;
	for (int i = 0; i < PHASE_COUNT; i++)
		ev.timeline_us[i] = UINT32_MAX - (uint32_t)i;
	ev.payload_kind = PAYLOAD_BYTES;
	ev.payload_bytes = 18;
	ev.wall_us = 19;
	ev.cpu_us = 20;
	ev.memory_peak_bytes = 1ull << 40;
	ev.logs_bytes = 22;
	ev.logs_truncated = true;
	ev.response_bytes = 23;
	ev.response_status = 418;
	strcpy(ev.response_content_type, "text/plain; charset=utf-8");
	strcpy(ev.error_type, "ValueError");
	ev.response_fields = strdup("{\"X-Y\":\"z\"}");
	ev.error_message = strdup("\xc3\xa9 'quoted'");
	ev.error_traceback = strdup("line\nline");
	assert_int_equal(create(f, &ev, "payload"), ERR_NONE);
	{
		RESULT r = CALL(f, store_event_get, &ev.id, "p1");
		assert_int_equal(r->err.cls, ERR_NONE);
		got = r->event;
		assert_string_equal(got.response_fields, ev.response_fields);
		assert_string_equal(got.error_message, ev.error_message);
		assert_string_equal(got.error_traceback, ev.error_traceback);
		got.response_fields = ev.response_fields;
		got.error_message = ev.error_message;
		got.error_traceback = ev.error_traceback;
		assert_memory_equal(&got, &ev, sizeof(ev));
		assert_null(r->answer.bytes); /* has_response is not set */
	}
	event_clear(&ev);
}

static void
test_event_create_once(void **state)
{
	struct fixture *f = *state;
	struct event ev = event_of("p1", 1);

	assert_int_equal(create(f, &ev, "first"), ERR_NONE);
	assert_int_equal(create(f, &ev, "second"), ERR_CONFLICT);
	{
		RESULT r = CALL(f, store_event_payload, &ev.id);
		assert_string_equal(r->bytes, "first");
	}
	assert_int_equal(DO(f, store_event_get, &ev.id, "p2"), ERR_NOT_FOUND); /* another's */
	assert_int_equal(DO(f, store_event_get, &ev.id, "p1"), ERR_NONE);
	assert_int_equal(DO(f, store_event_get, &ev.id, NULL), ERR_NONE);
	ev.id = id_new();
	assert_int_equal(DO(f, store_event_get, &ev.id, NULL), ERR_NOT_FOUND);
	assert_int_equal(DO(f, store_event_payload, &ev.id), ERR_NOT_FOUND);
	assert_int_equal(DO(f, store_event_logs, &ev.id), ERR_NOT_FOUND);
	assert_int_equal(create(f, &ev, ""), ERR_NONE);
	{
		RESULT r = CALL(f, store_event_payload, &ev.id);
		assert_int_equal(r->err.cls, ERR_NONE);
		assert_non_null(r->bytes);
		assert_int_equal(r->answer.len, 0);
	}
}

static void
test_payload_from_memory_and_file(void **state)
{
	struct fixture *f = *state;
	size_t len = 6 << 20;
	char *data = malloc(len);
	struct event ev = event_of("p1", 1);
	struct store_bytes b = {.fd = -1, .len = len};

	random_bytes(data, len);
	b.owned = malloc(len + 10); /* data somewhere inside the block */
	b.data = (char *)b.owned + 10;
	memcpy((char *)b.owned + 10, data, len);
	assert_int_equal(DO(f, store_event_create, &ev, b, NULL, NULL), ERR_NONE);
	{
		RESULT r = CALL(f, store_event_payload, &ev.id);
		assert_int_equal(r->answer.len, len);
		assert_memory_equal(r->bytes, data, len);
	}
	ev.id = id_new();
	b = (struct store_bytes){.fd = file_of(f, data, len), .offset = 100, .len = len - 100};
	assert_int_equal(DO(f, store_event_create, &ev, b, NULL, NULL), ERR_NONE);
	assert_int_equal(fcntl(b.fd, F_GETFD), -1); /* closed by the store */
	{
		RESULT r = CALL(f, store_event_payload, &ev.id);
		assert_int_equal(r->answer.len, len - 100);
		assert_memory_equal(r->bytes, data + 100, len - 100);
	}
	ev.id = id_new(); /* a file that is shorter than said: nothing is created */
	b = (struct store_bytes){.fd = file_of(f, data, 10), .len = 11};
	assert_int_equal(DO(f, store_event_create, &ev, b, NULL, NULL), ERR_NODE);
	assert_int_equal(DO(f, store_event_get, &ev.id, NULL), ERR_NOT_FOUND);
	free(data);
}

static void
test_idempotency_keys(void **state)
{
	struct fixture *f = *state;
	struct event ev = event_of("p1", 1), again = event_of("p1", 1), other = event_of("p1", 2);
	char one[SHA256_HEX_MAX], two[SHA256_HEX_MAX];

	sha256_hex("1", 1, one);
	sha256_hex("2", 1, two);
	{
		RESULT r = CALL(f, store_event_create, &ev, bytes_of("1"), "key", one);
		assert_int_equal(r->err.cls, ERR_NONE);
		assert_true(id_is_zero(&r->answer.existing));
	}
	{ /* the same: the first one's id, and nothing new */
		RESULT r = CALL(f, store_event_create, &again, bytes_of("1"), "key", one);
		assert_int_equal(r->err.cls, ERR_NONE);
		assert_true(id_equal(&r->answer.existing, &ev.id));
	}
	{
		RESULT r = CALL(f, store_event_create, &again, bytes_of("2"), "key", two);
		assert_int_equal(r->err.cls, ERR_CONFLICT);
	}
	assert_int_equal(DO(f, store_event_get, &again.id, NULL), ERR_NOT_FOUND);
	{ /* keys are the function's */
		RESULT r = CALL(f, store_event_create, &other, bytes_of("1"), "key", one);
		assert_true(id_is_zero(&r->answer.existing));
	}
	again.created_us = ev.created_us + 24 * 3600 * US_PER_S - 1;
	{
		RESULT r = CALL(f, store_event_create, &again, bytes_of("1"), "key", one);
		assert_true(id_equal(&r->answer.existing, &ev.id));
	}
	again.created_us++; /* a day later the key is new again */
	{
		RESULT r = CALL(f, store_event_create, &again, bytes_of("2"), "key", two);
		assert_int_equal(r->err.cls, ERR_NONE);
		assert_true(id_is_zero(&r->answer.existing));
	}
	ev.id = id_new();
	assert_int_equal(DO(f, store_event_create, &ev, no_bytes, "key", NULL), ERR_INPUT);
	assert_int_equal(DO(f, store_event_create, &ev, no_bytes, "", one), ERR_INPUT);
}

static void
test_event_life(void **state)
{
	struct fixture *f = *state;
	struct event ev = event_of("p1", 1), run = {.id = ev.id}, end;

	ev.timeline_us[PHASE_ACCEPT] = 5;
	ev.queued_us = ev.created_us;
	assert_int_equal(create(f, &ev, "x"), ERR_NONE);
	/* The scheduler knows only this much when it sends the job. */
	run.attempts = 1;
	run.lease = (struct lease){2, 3};
	run.function_version = 4;
	run.started_us = 1000;
	run.start = START_SPARE;
	strcpy(run.node_id, "n1");
	{
		RESULT r = CALL(f, store_event_running, &run);
		assert_true(r->answer.changed);
	}
	{
		RESULT r = CALL(f, store_event_get, &ev.id, NULL);
		assert_int_equal(r->event.state, EVENT_RUNNING);
		assert_int_equal(r->event.start, START_SPARE);
		assert_string_equal(r->event.node_id, "n1");
		assert_string_equal(r->event.function_name, "music_tag");
		assert_int_equal(r->event.timeline_us[PHASE_ACCEPT], 5);
		assert_int_equal(r->event.queued_us, ev.queued_us);
	}
	run.failures = 1;
	run.not_before_us = 5000;
	run.reason = REASON_FUNCTION_FAILED;
	strcpy(run.error_type, "KeyError");
	{
		RESULT r = CALL(f, store_event_requeue, &run, bytes_of("first try\n"));
		assert_true(r->answer.changed);
	}
	{
		RESULT r = CALL(f, store_event_get, &ev.id, NULL);
		assert_int_equal(r->event.state, EVENT_QUEUED);
		assert_int_equal(r->event.not_before_us, 5000);
		assert_int_equal(r->event.failures, 1);
		assert_string_equal(r->event.error_type, "KeyError");
		assert_int_equal(r->event.logs_bytes, 10);
	}
	event_copy(&end, &run);
	end.state = EVENT_SUCCEEDED;
	end.attempts = 2;
	end.lease.seq = 4;
	end.reason = REASON_NONE;
	end.error_type[0] = '\0';
	end.has_response = true;
	strcpy(end.response_content_type, "application/json");
	end.finished_us = 2000;
	end.wall_us = 9;
	{
		RESULT r = CALL(f, store_event_settle, &end, bytes_of("{\"a\":1}"), bytes_of("second\n"));
		assert_int_equal(r->err.cls, ERR_NONE);
		assert_true(r->answer.changed);
	}
	{
		RESULT r = CALL(f, store_event_get, &ev.id, "p1");
		assert_int_equal(r->event.state, EVENT_SUCCEEDED);
		assert_int_equal(r->event.reason, REASON_NONE);
		assert_string_equal(r->event.error_type, "");
		assert_int_equal(r->event.attempts, 2);
		assert_int_equal(r->event.failures, 1);
		assert_int_equal(r->event.response_bytes, 7);
		assert_int_equal(r->event.logs_bytes, 17);
		assert_int_equal(r->event.wall_us, 9);
		assert_string_equal(r->bytes, "{\"a\":1}");
	}
	{
		RESULT r = CALL(f, store_event_logs, &ev.id);
		assert_string_equal(r->bytes, "first try\nsecond\n");
	}
}

static void
test_settle_compares(void **state)
{
	struct fixture *f = *state;
	struct event ev = event_of("p1", 1), end;

	ev.lease = (struct lease){5, 10};
	assert_int_equal(create(f, &ev, "x"), ERR_NONE);
	event_copy(&end, &ev);
	end.state = EVENT_SUCCEEDED;
	end.finished_us = 1;
	static const struct lease older[] = {{5, 9}, {4, 11}, {0, 0}};
	for (size_t i = 0; i < 3; i++) { /* the holder of an older lease may not */
		end.lease = older[i];
		{
			RESULT r = CALL(f, store_event_settle, &end, bytes_of("late"), bytes_of("log\n"));
			assert_int_equal(r->err.cls, ERR_NONE);
			assert_false(r->answer.changed);
		}
		RESULT again = CALL(f, store_event_requeue, &end, bytes_of("log\n"));
		assert_false(again->answer.changed);
		RESULT running = CALL(f, store_event_running, &end);
		assert_false(running->answer.changed);
	}
	end.lease = (struct lease){6, 1};
	{
		RESULT r = CALL(f, store_event_settle, &end, no_bytes, no_bytes);
		assert_true(r->answer.changed);
	}
	end.state = EVENT_DEAD; /* an end is final, whoever comes */
	end.lease = (struct lease){7, 1};
	{
		RESULT r = CALL(f, store_event_settle, &end, bytes_of("x"), bytes_of("log\n"));
		assert_false(r->answer.changed);
	}
	{
		RESULT r = CALL(f, store_event_requeue, &end, bytes_of("log\n"));
		assert_false(r->answer.changed);
	}
	{
		RESULT r = CALL(f, store_event_get, &ev.id, NULL);
		assert_int_equal(r->event.state, EVENT_SUCCEEDED);
		assert_int_equal(r->event.lease.term, 6);
		assert_int_equal(r->event.logs_bytes, 0);
		assert_null(r->bytes);
	}
	{
		RESULT r = CALL(f, store_event_logs, &ev.id); /* what did not apply left nothing */
		assert_int_equal(r->answer.len, 0);
	}
	end.id = id_new();
	assert_int_equal(DO(f, store_event_settle, &end, no_bytes, no_bytes), ERR_NOT_FOUND);
	assert_int_equal(DO(f, store_event_running, &end), ERR_NOT_FOUND);
	end.state = EVENT_RUNNING;
	assert_int_equal(DO(f, store_event_settle, &end, no_bytes, no_bytes), ERR_INPUT);
}

static void
test_response_of_no_bytes(void **state)
{
	struct fixture *f = *state;
	struct event ev = event_of("p1", 1);

	assert_int_equal(create(f, &ev, "x"), ERR_NONE);
	ev.state = EVENT_SUCCEEDED;
	ev.has_response = true;
	assert_int_equal(DO(f, store_event_settle, &ev, no_bytes, no_bytes), ERR_NONE);
	RESULT r = CALL(f, store_event_get, &ev.id, NULL);
	assert_non_null(r->bytes);
	assert_int_equal(r->answer.len, 0);
}

/* ---- Order, persistence, refusals ---- */

struct order {
	struct fixture *f;
	unsigned next, wrong, left;
};

static void
take_in_order(void *arg, const struct store_answer *a, const struct err *e)
{
	struct order *o = arg;

	(void)a;
	o->wrong += e != NULL;
	if (!--o->left)
		loop_stop(o->f->loop);
}

/* A read that is asked for right after a write, with no wait, sees it. */
static void
test_reads_follow_writes(void **state)
{
	struct fixture *f = *state;
	struct order o = {.f = f, .left = 6 * 200};
	struct err e;

	for (int i = 0; i < 200; i++) {
		struct event ev = event_of("p1", 1);
		char id[16];
		struct store_doc d = doc_of(STORE_META, id, "", id, "{}");

		snprintf(id, sizeof(id), "m%d", i);
		store_event_create(f->store, &ev, bytes_of("x"), NULL, NULL, take_in_order, &o);
		store_event_get(f->store, &ev.id, NULL, take_in_order, &o);
		store_event_payload(f->store, &ev.id, take_in_order, &o);
		store_doc_create(f->store, &d, take_in_order, &o);
		store_doc_get(f->store, STORE_META, id, take_in_order, &o);
		store_doc_find(f->store, STORE_META, "", id, take_in_order, &o);
	}
	assert_int_equal(loop_run(f->loop, &e), 0);
	assert_int_equal(o.wrong, 0);
	for (int i = 0; i < 20; i++) { /* also a list */
		struct event ev = event_of("listed", 1);
		struct store_event_filter filter = filter_of("listed");

		store_event_create(f->store, &ev, bytes_of("x"), NULL, NULL, NULL, NULL);
		assert_int_equal(count_of(f, &filter), (size_t)i + 1);
	}
}

/* What fails in a batch does not take its neighbours along. */
static void
test_failures_stay_alone(void **state)
{
	struct fixture *f = *state;
	struct order good = {.f = f, .left = 300}, bad = {.f = f, .left = 300};
	struct err e;
	struct event twice = event_of("p1", 1);

	assert_int_equal(create(f, &twice, "x"), ERR_NONE);
	for (int i = 0; i < 300; i++) {
		struct event ev = event_of("p1", 1);

		store_event_create(f->store, &ev, bytes_of("x"), NULL, NULL, take_in_order, &good);
		store_event_create(f->store, &twice, bytes_of("y"), NULL, NULL, take_in_order, &bad);
	}
	while (good.left || bad.left)
		assert_int_equal(loop_run(f->loop, &e), 0);
	assert_int_equal(good.wrong, 0);
	assert_int_equal(bad.wrong, 300);
	RESULT r = CALL(f, store_event_counts, NULL);
	assert_int_equal(r->answer.counts[EVENT_QUEUED], 301);
	assert_true(store_healthy(f->store));
}

static void
test_all_of_it_survives_closing(void **state)
{
	struct fixture *f = *state;
	struct order o = {.f = f, .left = 500};
	struct event first = event_of("p1", 1);

	for (int i = 0; i < 500; i++) {
		struct event ev = i ? event_of("p1", 1) : first;

		store_event_create(f->store, &ev, bytes_of("x"), NULL, NULL, take_in_order, &o);
	}
	fixture_stop(f); /* completes what was asked for */
	assert_int_equal(o.left, 0);
	assert_int_equal(o.wrong, 0);
	fixture_start(f);
	RESULT r = CALL(f, store_event_counts, "p1");
	assert_int_equal(r->answer.counts[EVENT_QUEUED], 500);
	RESULT got = CALL(f, store_event_get, &first.id, "p1");
	assert_int_equal(got->answer.event_count, 1);
}

static void
test_bad_events(void **state)
{
	struct fixture *f = *state;
	struct event ev = event_of("p1", 1);
	struct store_bytes b = bytes_of("x");

	ev.project_id[0] = '\0';
	assert_int_equal(create(f, &ev, "x"), ERR_INPUT);
	ev = event_of("p1", 1);
	ev.id = (struct id){{0}};
	assert_int_equal(create(f, &ev, "x"), ERR_INPUT);
	ev = event_of("p1", 1);
	ev.function_id = (struct id){{0}};
	assert_int_equal(create(f, &ev, "x"), ERR_INPUT);
	ev = event_of("p1", 1);
	ev.state = (enum event_state)99;
	assert_int_equal(create(f, &ev, "x"), ERR_INPUT);
	ev.state = EVENT_QUEUED;
	b.len = (size_t)STORE_BYTES_MAX + 1; /* refused before anybody reads it */
	assert_int_equal(DO(f, store_event_create, &ev, b, NULL, NULL), ERR_LIMIT);
	b = (struct store_bytes){.fd = open("/dev/null", O_RDONLY), .len = b.len};
	assert_int_equal(DO(f, store_event_create, &ev, b, NULL, NULL), ERR_LIMIT);
	assert_int_equal(fcntl(b.fd, F_GETFD), -1); /* taken over all the same */
	ev.error_message = malloc(STORE_TEXT_MAX + 2);
	memset(ev.error_message, 'x', STORE_TEXT_MAX + 1);
	ev.error_message[STORE_TEXT_MAX + 1] = '\0';
	assert_int_equal(create(f, &ev, "x"), ERR_LIMIT);
	event_clear(&ev);
}

static void
test_bad_specs(void **state)
{
	static const char *const specs[] = {"", "sqlite", "mysql:x", "sqlite:../x", "sqlite:/etc/x",
					    "sqlite:blobs", ":"};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(specs) / sizeof(specs[0]); i++) {
		struct err e = {0};

		assert_null(store_open(specs[i], f->dir_fd, f->loop, &e));
		assert_int_equal(e.cls, ERR_INPUT);
		assert_true(e.text[0] != '\0');
	}
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		FIXTURE_TEST(test_event_keeps_all),
		FIXTURE_TEST(test_event_create_once),
		FIXTURE_TEST(test_payload_from_memory_and_file),
		FIXTURE_TEST(test_idempotency_keys),
		FIXTURE_TEST(test_event_life),
		FIXTURE_TEST(test_settle_compares),
		FIXTURE_TEST(test_response_of_no_bytes),
		FIXTURE_TEST(test_reads_follow_writes),
		FIXTURE_TEST(test_failures_stay_alone),
		FIXTURE_TEST(test_all_of_it_survives_closing),
		FIXTURE_TEST(test_bad_events),
		FIXTURE_TEST(test_bad_specs),
	};

	return fixture_main(tests);
}
