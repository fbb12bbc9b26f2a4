/*
 * For tests of the store: a loop, a store in a directory of its own, and calls that wait
 * for their callback and keep a copy of what it was given.
 */
#ifndef PRATAI_TEST_STORE_FIXTURE_H
#define PRATAI_TEST_STORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/base/clock.h"
#include "core/base/crypto.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "netio/loop.h"
#include "store/store.h"

enum { FIXTURE_LIST_MAX = 1000 };

struct fixture {
	char path[64];
	int dir_fd;
	struct loop *loop;
	struct loop_timer *deadline;
	struct store *store;
	const char *spec;
};

/* What a callback was given, kept. */
struct result {
	struct fixture *f;
	bool done;
	struct err err; /* cls 0: success */
	struct store_answer answer;
	char id[FIXTURE_LIST_MAX][97]; /* of documents */
	char json[4096], name[256], parent[97], next[128];
	struct event event;
	struct id event_ids[FIXTURE_LIST_MAX];
	char *bytes;
};

static inline void
fixture_late(void *arg)
{
	(void)arg;
	fprintf(stderr, "the store did not answer in time\n");
	abort();
}

static inline void
fixture_start(struct fixture *f)
{
	struct err e = {0};

	f->loop = loop_new(&e);
	assert_non_null(f->loop);
	f->deadline = loop_timer_add(f->loop, fixture_late, NULL, &e);
	f->store = store_open(f->spec, f->dir_fd, f->loop, &e);
	if (!f->store)
		fail_msg("%s", e.text);
}

static inline void
fixture_stop(struct fixture *f)
{
	store_close(f->store);
	loop_free(f->loop);
	f->store = NULL;
	f->loop = NULL;
}

static inline void
fixture_reopen(struct fixture *f)
{
	fixture_stop(f);
	fixture_start(f);
}

static inline void
fixture_dir(struct fixture *f)
{
	strcpy(f->path, "/tmp/pratai-store.XXXXXX");
	assert_non_null(mkdtemp(f->path));
	f->dir_fd = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(f->dir_fd >= 0);
}

static inline void
fixture_remove(struct fixture *f)
{
	struct err e;

	close(f->dir_fd);
	assert_int_equal(dir_remove(AT_FDCWD, f->path, &e), 0);
}

static inline void
result_clear(struct result *r)
{
	event_clear(&r->event);
	free(r->bytes);
	free(r);
}

/* The callback of all calls here. */
static inline void
result_take(void *arg, const struct store_answer *a, const struct err *e)
{
	struct result *r = arg;

	r->done = true;
	r->answer = *a;
	if (e)
		r->err = *e;
	for (size_t i = 0; i < a->doc_count && i < FIXTURE_LIST_MAX; i++)
		strcpy(r->id[i], a->docs[i].id);
	if (a->doc_count) {
		snprintf(r->json, sizeof(r->json), "%s", a->docs[0].json);
		snprintf(r->name, sizeof(r->name), "%s", a->docs[0].name ? a->docs[0].name : "");
		snprintf(r->parent, sizeof(r->parent), "%s",
			 a->docs[0].parent ? a->docs[0].parent : "");
		r->answer.rev = a->docs[0].rev;
	}
	for (size_t i = 0; i < a->event_count && i < FIXTURE_LIST_MAX; i++)
		r->event_ids[i] = a->events[i].id;
	if (a->event_count)
		event_copy(&r->event, &a->events[0]);
	if (a->next)
		strcpy(r->next, a->next);
	if (a->sizes) {
		r->bytes = malloc(a->len * sizeof(*a->sizes));
		memcpy(r->bytes, a->sizes, a->len * sizeof(*a->sizes));
	}
	if (a->bytes) {
		r->bytes = malloc(a->len + 1);
		memcpy(r->bytes, a->bytes, a->len);
		r->bytes[a->len] = '\0';
	}
	loop_stop(r->f->loop);
}

static inline struct result *
result_new(struct fixture *f)
{
	struct result *r = calloc(1, sizeof(*r));

	r->f = f;
	return r;
}

static inline struct result *
result_wait(struct result *r)
{
	struct err e;

	loop_timer_after(r->f->deadline, 60 * NS_PER_S);
	while (!r->done)
		assert_int_equal(loop_run(r->f->loop, &e), 0);
	loop_timer_clear(r->f->deadline);
	return r;
}

/* RESULT(f, store_doc_get, kind, id): the call, waited for; cleared at the scope's end. */
static inline void
result_cleanup(struct result **r)
{
	result_clear(*r);
}
#define RESULT __attribute__((cleanup(result_cleanup))) struct result *
#define CALL(f, function, ...)                                                                     \
	({                                                                                         \
		struct result *r_ = result_new(f);                                                 \
		function((f)->store, ##__VA_ARGS__, result_take, r_);                              \
		assert_false(r_->done); /* never before the request returned */                    \
		result_wait(r_);                                                                   \
	})
/* The same where only success or the class of the error counts. */
#define DO(f, function, ...)                                                                       \
	({                                                                                         \
		struct result *r__ = CALL(f, function, ##__VA_ARGS__);                             \
		enum err_class cls_ = r__->err.cls;                                                \
		if (cls_ != ERR_NONE)                                                              \
			assert_true(r__->err.text[0] != '\0');                                     \
		result_clear(r__);                                                                 \
		cls_;                                                                              \
	})

static inline int
file_of(struct fixture *f, const void *data, size_t len)
{
	int fd = openat(f->dir_fd, "upload", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(fd_write_all(fd, data, len), 0); /* the offset is left at the end */
	return fd;
}

static inline struct store_bytes
bytes_of(const char *text)
{
	return (struct store_bytes){.data = text, .len = strlen(text), .fd = -1};
}

/* ---- The table of backends: suites written against store.h run once for each ---- */

static const char *const fixture_specs[] = {"sqlite:"};
static const char *fixture_spec;

static inline int
fixture_set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->spec = fixture_spec;
	fixture_dir(f);
	fixture_start(f);
	*state = f;
	return 0;
}

static inline int
fixture_tear_down(void **state)
{
	struct fixture *f = *state;

	fixture_stop(f);
	fixture_remove(f);
	free(f);
	return 0;
}

#define FIXTURE_TEST(name) cmocka_unit_test_setup_teardown(name, fixture_set_up, fixture_tear_down)

#define fixture_main(tests)                                                                        \
	({                                                                                         \
		int failed_ = crypto_init(NULL);                                                   \
		for (size_t i_ = 0; i_ < sizeof(fixture_specs) / sizeof(fixture_specs[0]); i_++) { \
			fixture_spec = fixture_specs[i_];                                          \
			failed_ += cmocka_run_group_tests_name(fixture_specs[i_], tests, NULL, NULL); \
		}                                                                                  \
		failed_;                                                                           \
	})

static const struct store_bytes no_bytes = {.fd = -1};

/* A queued event of function number fn in project. */
static inline struct event
event_of(const char *project, uint8_t fn)
{
	struct event ev = {.id = id_new(), .state = EVENT_QUEUED, .created_us = clock_real_us()};

	ev.function_id.b[15] = fn;
	ev.function_id.b[0] = 1;
	strcpy(ev.project_id, project);
	strcpy(ev.function_name, "music_tag");
	return ev;
}

static inline enum err_class
create(struct fixture *f, const struct event *ev, const char *payload)
{
	return DO(f, store_event_create, ev, bytes_of(payload), NULL, NULL);
}

static inline struct store_event_filter
filter_of(const char *project)
{
	return (struct store_event_filter){
		.project = project, .state = -1, .source = -1, .limit = 100};
}

static inline size_t
count_of(struct fixture *f, const struct store_event_filter *filter)
{
	RESULT r = CALL(f, store_event_list, filter);

	assert_int_equal(r->err.cls, ERR_NONE);
	return r->answer.event_count;
}

static inline struct store_doc
doc_of(enum store_kind kind, const char *id, const char *project, const char *name,
       const char *json)
{
	return (struct store_doc){
		.kind = kind, .id = id, .project = project, .name = name, .json = json};
}

/* Set-up and tear-down of an SQLite store that is not yet open. */
static inline int
fixture_sqlite(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->spec = "sqlite:";
	fixture_dir(f);
	*state = f;
	return 0;
}

static inline int
fixture_end(void **state)
{
	fixture_remove(*state);
	free(*state);
	return 0;
}

#endif
