/*
 * What the spawner takes from its driver: every field out of bounds, lengths, counts of
 * descriptors, strings; then a great many mutations, none of which may be read past its
 * end (the sanitizers look on) or be accepted with a number out of bounds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/err.h"
#include "sandbox/wire.h"

static const struct wire_bounds bounds = { .memory_max_bytes = 1 << 30, .tmp_max_bytes = 1 << 28 };
static struct err e;

static union wire_message
good(void)
{
	union wire_message m = { 0 };

	wire_head_set(&m.head, WIRE_REQUEST);
	m.request.memory_bytes = 64 << 20;
	m.request.tmp_bytes = 16 << 20;
	m.request.timeout_ns = 1000000000;
	m.request.cpu_millis = 1000;
	m.request.pids = 64;
	m.request.argc = 2;
	m.request.envc = 1;
	m.request.strings_bytes = 22;
	strcpy(m.request.runtime, "python3");
	return m;
}

static int
check(const union wire_message *m)
{
	err_clear(&e);
	return wire_check(m, sizeof m->request, 1, &bounds, &e);
}

#define REFUSED(change)                                        \
	do {                                                   \
		union wire_message bad = good();               \
		bad.change;                                    \
		assert_int_equal(check(&bad), -1);             \
		assert_non_null(strstr(e.text, "malformed"));  \
	} while (0)

static void
test_fields(void **state)
{
	union wire_message m = good();

	(void)state;
	assert_int_equal(check(&m), 0);
	REFUSED(head.magic = 1);
	REFUSED(head.version = 1);
	REFUSED(head.type = WIRE_RESULT);
	REFUSED(head.type = 0);
	REFUSED(request.memory_bytes = 0);
	REFUSED(request.memory_bytes = bounds.memory_max_bytes + 1);
	REFUSED(request.tmp_bytes = bounds.tmp_max_bytes + 1);
	REFUSED(request.tmp_bytes = 1);
	REFUSED(request.timeout_ns = 0);
	REFUSED(request.timeout_ns = WIRE_TIMEOUT_MAX_NS + 1);
	REFUSED(request.cpu_millis = 0);
	REFUSED(request.cpu_millis = UINT32_MAX);
	REFUSED(request.pids = 0);
	REFUSED(request.network = SPAWN_NET_BUILD + 1);
	REFUSED(request.allow.count = 1); /* without a network */
	REFUSED(request.layer_count = SPAWN_LAYERS_MAX + 1);
	REFUSED(request.image_count = SPAWN_IMAGE_MAX + 1);
	REFUSED(request.argc = 0);
	REFUSED(request.argc = WIRE_ARGS_MAX + 1);
	REFUSED(request.envc = WIRE_ARGS_MAX + 1);
	REFUSED(request.strings_bytes = 0);
	REFUSED(request.strings_bytes = SPAWN_STRINGS_MAX + 1);
	REFUSED(request.fds = 16);
	REFUSED(request.fds = WIRE_FD_STDIN); /* and there is one descriptor only */
	REFUSED(request.runtime[0] = '.');
	REFUSED(request.runtime[3] = '/');
	REFUSED(request.runtime[3] = 'A');
	memset(m.request.runtime, 'a', sizeof m.request.runtime);
	assert_int_equal(check(&m), -1);
}

static void
test_allow(void **state)
{
	union wire_message m = good();

	(void)state;
	m.request.network = SPAWN_NET_EGRESS;
	assert_int_equal(check(&m), 0);
	m.request.allow.count = NET_RULES_MAX + 1;
	assert_int_equal(check(&m), -1);
	m.request.allow.count = UINT32_MAX;
	assert_int_equal(check(&m), -1);
	m.request.allow.count = NET_RULES_MAX;
	assert_int_equal(check(&m), 0);
	m.request.allow.list[NET_RULES_MAX - 1].prefix = 33;
	assert_int_equal(check(&m), -1);
	m.request.allow.count--;
	assert_int_equal(check(&m), 0);
	m.request.network = SPAWN_NET_BUILD; /* the operator's settings say what that may reach */
	assert_int_equal(check(&m), -1);
}

static void
test_lengths(void **state)
{
	union wire_message m = good();
	union wire_message k = { 0 };

	(void)state;
	for (size_t len = 0; len < sizeof m; len++)
		assert_int_equal(wire_check(&m, len, 1, &bounds, &e), len == sizeof m.request ? 0 : -1);
	for (unsigned fds = 0; fds < 8; fds++)
		assert_int_equal(wire_check(&m, sizeof m.request, fds, &bounds, &e), fds == 1 ? 0 : -1);
	wire_head_set(&k.head, WIRE_KILL);
	k.kill.why = SPAWN_KILL_OUTPUT;
	assert_int_equal(wire_check(&k, sizeof k.kill, 0, &bounds, &e), 0);
	assert_int_equal(wire_check(&k, sizeof k.kill, 1, &bounds, &e), -1);
	k.kill.why = 3;
	assert_int_equal(wire_check(&k, sizeof k.kill, 0, &bounds, &e), -1);
}

static int
strings(uint32_t argc, uint32_t envc, const char *text, size_t len)
{
	static struct wire_strings out;
	struct wire_request r = { .argc = argc, .envc = envc, .strings_bytes = (uint32_t)len };
	/* Of exactly that size, so that a read past it is seen. */
	char *copy = malloc(len);
	int rc;

	memcpy(copy, text, len);
	rc = wire_strings(&r, copy, &out, &e);
	if (rc == 0) {
		assert_null(out.argv[argc]);
		assert_null(out.envp[envc]);
	}
	free(copy);
	return rc;
}

static void
test_strings(void **state)
{
	static const char text[] = "/bin/x\0-a\0A=b\0/work";

	(void)state;
	assert_int_equal(strings(2, 1, text, sizeof text), 0);
	assert_int_equal(strings(1, 1, text, sizeof text), -1);     /* "-a" is no variable */
	assert_int_equal(strings(2, 1, text, sizeof text - 1), -1); /* no NUL at the end */
	assert_int_equal(strings(3, 1, text, sizeof text), -1);
	assert_int_equal(strings(2, 0, text, sizeof text), -1); /* something follows */
	assert_int_equal(strings(1, 1, "x\0A=b\0/", 8), -1);    /* not absolute */
	assert_int_equal(strings(1, 1, "/x\0=b\0/", 8), -1);
	assert_int_equal(strings(4096, 4096, text, sizeof text), -1);
}

static uint64_t
random64(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static void
test_mutations(void **state)
{
	uint64_t seed = 0x9e3779b97f4a7c15;

	(void)state;
	for (int i = 0; i < 200000; i++) {
		union wire_message m = good();
		unsigned changes = 1 + (unsigned)random64(&seed) % 4;

		for (unsigned k = 0; k < changes; k++)
			((uint8_t *)&m)[random64(&seed) % sizeof m.request] = (uint8_t)random64(&seed);
		if (wire_check(&m, sizeof m.request, (unsigned)random64(&seed) % 6, &bounds, &e))
			continue;
		if (m.head.type != WIRE_REQUEST)
			continue;
		assert_true(m.request.memory_bytes <= bounds.memory_max_bytes);
		assert_true(m.request.layer_count <= SPAWN_LAYERS_MAX);
		assert_true(m.request.image_count <= SPAWN_IMAGE_MAX);
		assert_true(m.request.argc <= WIRE_ARGS_MAX && m.request.envc <= WIRE_ARGS_MAX);
		assert_true(memchr(m.request.runtime, 0, sizeof m.request.runtime) != NULL);
		assert_null(strchr(m.request.runtime, '/'));
	}
	for (int i = 0; i < 100000; i++) {
		char text[64];
		size_t len = 1 + random64(&seed) % sizeof text;

		for (size_t k = 0; k < len; k++)
			text[k] = "\0\0=/ab"[random64(&seed) % 6];
		strings((uint32_t)(1 + random64(&seed) % 4), (uint32_t)(random64(&seed) % 4), text, len);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_allow),
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_strings),
		cmocka_unit_test(test_mutations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
