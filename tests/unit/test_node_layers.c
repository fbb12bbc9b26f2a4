/*
 * Which layers a node keeps: those in use always, others as long as they are not idle for
 * too long, too many, or in the way of a disk that is nearly full.
 */
#include "core/node/layers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/base/crypto.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "netio/loop.h"

static struct {
	char path[64];
	struct loop *loop;
	struct loop_timer *look, *deadline;
	struct layers *layers;
	struct layers_config config;
	char expected[8];
} w;

/* Layers are named by a letter, all over their digest. */
static const char *
digest_of(char name)
{
	static char digest[2][65];
	static int turn;

	turn = !turn;
	memset(digest[turn], name, 64);
	return digest[turn];
}

static void
make_layer(char name)
{
	char path[100];

	snprintf(path, sizeof path, "sha256/%s", digest_of(name));
	assert_int_equal(mkdirat(w.config.dir_fd, path, 0755), 0);
}

/* The letters of those that are there, in order. */
static void
list_layers(char out[8])
{
	char path[100], *end = out;

	for (char name = 'a'; name <= 'f'; name++) {
		snprintf(path, sizeof path, "sha256/%s", digest_of(name));
		if (!faccessat(w.config.dir_fd, path, F_OK, 0))
			*end++ = name;
	}
	*end = '\0';
}

static void
start(void)
{
	struct err e = { 0 };

	w.layers = layers_new(&w.config, &e);
	if (!w.layers)
		fail_msg("%s", e.text);
}

static void
on_look(void *arg)
{
	char now[8];

	(void)arg;
	list_layers(now);
	if (!strcmp(now, w.expected))
		loop_stop(w.loop);
	else
		loop_timer_after(w.look, 5 * NS_PER_MS);
}

static void
on_late(void *arg)
{
	(void)arg;
	fprintf(stderr, "the layers never became '%s'\n", w.expected);
	abort();
}

static void
become(const char *expected)
{
	struct err e;

	snprintf(w.expected, sizeof w.expected, "%s", expected);
	loop_timer_after(w.look, 0);
	loop_timer_after(w.deadline, 20 * NS_PER_S);
	assert_int_equal(loop_run(w.loop, &e), 0);
	loop_timer_clear(w.deadline);
}

/* For as long as several passes take. */
static void
stay(const char *expected)
{
	uint64_t until = clock_mono_ns() + 20 * w.config.pass_ns;
	char now[8];

	while (clock_mono_ns() < until)
		become(expected);
	list_layers(now);
	assert_string_equal(now, expected);
}

static int
set_up(void **state)
{
	struct err e = { 0 };

	(void)state;
	memset(&w, 0, sizeof w);
	strcpy(w.path, "/tmp/pratai-layers.XXXXXX");
	assert_non_null(mkdtemp(w.path));
	w.loop = loop_new(&e);
	w.look = loop_timer_add(w.loop, on_look, NULL, &e);
	w.deadline = loop_timer_add(w.loop, on_late, NULL, &e);
	w.config = (struct layers_config){
		.loop = w.loop,
		.dir_fd = open(w.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
		.self_fd = open("/bin/true", O_PATH | O_CLOEXEC), /* what is doomed is out of the way */
		.unpack_fd = -1,
		.idle_ns = 3600 * NS_PER_S,
		.pass_ns = NS_PER_MS,
		.max_count = 100,
	};
	start(); /* makes the directory */
	layers_free(w.layers);
	for (char name = 'a'; name <= 'd'; name++)
		make_layer(name);
	return 0;
}

static int
tear_down(void **state)
{
	struct err e;

	(void)state;
	layers_free(w.layers);
	loop_timer_remove(w.look);
	loop_timer_remove(w.deadline);
	loop_free(w.loop);
	close(w.config.dir_fd);
	close(w.config.self_fd);
	assert_int_equal(dir_remove(AT_FDCWD, w.path, &e), 0);
	return 0;
}

static void
idle_ones_go(void **state)
{
	(void)state;
	w.config.idle_ns = 50 * NS_PER_MS;
	start();
	assert_true(layers_use(w.layers, digest_of('b')));
	assert_true(layers_use(w.layers, digest_of('b')));
	assert_false(layers_use(w.layers, digest_of('e')));
	become("b");
	layers_unuse(w.layers, digest_of('b'));
	stay("b"); /* one use is left */
	layers_unuse(w.layers, digest_of('b'));
	become("");
	assert_false(layers_use(w.layers, digest_of('b')));
}

static void
the_oldest_of_too_many_go(void **state)
{
	struct err e;
	char name[LAYER_NAME_MAX];

	(void)state;
	start();
	for (const char *p = "cadb"; *p; p++) {
		assert_true(layers_use(w.layers, digest_of(*p)));
		layers_unuse(w.layers, digest_of(*p));
	}
	stay("abcd");
	layers_free(w.layers);
	w.config.max_count = 3;
	start();
	assert_true(layers_use(w.layers, digest_of('a')));
	for (const char *p = "dbc"; *p; p++)
		if (layers_use(w.layers, digest_of(*p)))
			layers_unuse(w.layers, digest_of(*p));
	become("abc");
	/* A build's counts as used when it came. */
	close(layers_temp(w.layers, name, &e));
	assert_int_equal(layers_commit(w.layers, name, digest_of('e'), &e), 0);
	become("ace");
}

static void
a_full_disk_keeps_what_is_in_use(void **state)
{
	(void)state;
	w.config.free_min_bytes = UINT64_MAX;
	start();
	assert_true(layers_use(w.layers, digest_of('a')));
	assert_true(layers_use(w.layers, digest_of('d')));
	become("ad");
	stay("ad");
}

int
main(void)
{
#define EACH(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	static const struct CMUnitTest tests[] = {
		EACH(idle_ones_go),
		EACH(the_oldest_of_too_many_go),
		EACH(a_full_disk_keeps_what_is_in_use),
	};

	return crypto_init(NULL) || cmocka_run_group_tests(tests, NULL, NULL);
}
