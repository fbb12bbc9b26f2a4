/*
 * The plan of a sandbox: which steps, in which order, and what cannot be planned.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "sandbox/plan.h"
#include "sandbox/report.h"
#include "sandbox/sandbox.h"

static const char *const argv[] = { "/bin/true", NULL }, *const envp[] = { NULL };
static struct err e;

static struct sandbox_spec
spec(void)
{
	struct sandbox_spec s = {
		.layers = { { .at = AT_FDCWD, .path = "/image" } }, .layer_count = 1,
		.argv = argv, .envp = envp, .workdir = "/", .hostname = "box", .uid = 1000,
		.uid_base = 0x70000000, .stdio = { 0, 1, 2 }, .channel = -1, .netns = -1,
		.netns_home = -1, .devices = -1,
	};

	return s;
}

/* "trees devices clone ..." */
static const char *
names(const struct sandbox_spec *s, bool user_xattr)
{
	static char text[2048];
	struct plan p;

	text[0] = '\0';
	if (plan_make(&p, s, user_xattr, &e))
		fail_msg("plan_make: %s", e.text);
	for (unsigned i = 0; i < p.count; i++) {
		strcat(text, i ? " " : "");
		strcat(text, step_name(p.steps[i].step));
	}
	return text;
}

#define AFTER_PIVOT "session caps landlock filter fork stdio workdir user exec"
#define INIT_END "proc mask clock quotas pivot " AFTER_PIVOT

static void
test_steps(void **state)
{
	struct sandbox_spec s = spec();

	(void)state;
	assert_string_equal(names(&s, true), "trees clone maps devices network loopback hostname identity "
					     "scratch root tmp dev " INIT_END);
	s.group = (struct cgroup *)(uintptr_t)1;
	s.usr = "/usr";
	s.netns = 5;
	s.bind_count = 2;
	s.binds[0].target = "/a";
	s.binds[1].target = "/b/c";
	assert_string_equal(names(&s, true),
			    "trees network clone limits maps devices hostname join identity scratch root "
			    "usr tmp bind bind dev " INIT_END);
	s.netns = -1;
	s.network = SANDBOX_NET_EGRESS;
	assert_string_equal(names(&s, true),
			    "trees clone limits maps devices egress loopback hostname join identity scratch "
			    "root usr tmp bind bind dev proc mask clock quotas pivot uplink " AFTER_PIVOT);
	s.network = SANDBOX_NET_HOST;
	assert_null(strstr(names(&s, true), "loopback"));
}

/*
 * What needs no word of the event comes before init waits for it; the command's process is in
 * the new root before it looks at a path.  With a root only the command's process waits, and has
 * its filter.
 */
static void
test_ahead(void **state)
{
	static const char *const want[2][2] = {
		{ "trees network clone maps hostname join identity scratch root usr tmp dev proc mask clock "
		  "quotas pivot session caps landlock fork filter orders stdio workdir user exec",
		  "network clone maps hostname join identity scratch dev proc mask clock quotas session caps "
		  "fork orders root usr tmp attach pivot filter orders stdio turn landlock workdir user exec" },
		{ "trees premount network clone maps hostname join identity root tmp dev proc mask clock "
		  "quotas pivot session caps landlock fork filter orders stdio workdir user exec",
		  "network clone maps hostname join identity scratch dev proc mask clock quotas session caps "
		  "fork orders root tmp attach pivot filter orders stdio turn landlock workdir user exec" },
	};
	struct sandbox_spec s = spec();
	char text[512] = "";
	struct plan p;

	(void)state;
	for (int i = 0; i < 4; i++) {
		plan_make_ahead(&p, i < 2, i % 2);
		text[0] = '\0';
		for (unsigned n = 0; n < p.count; n++) {
			strcat(text, n ? " " : "");
			strcat(text, step_name(p.steps[n].step));
		}
		assert_string_equal(text, want[i / 2][i % 2]);
	}
	assert_int_equal(plan_check_ahead(&s, &e), 0);
	s.workdir = "tmp";
	assert_int_equal(plan_check_ahead(&s, &e), -1);
	s = spec();
	s.bind_count = 1;
	s.binds[0].target = "/a";
	assert_int_equal(plan_check_ahead(&s, &e), -1);
	s = spec();
	s.network = SANDBOX_NET_EGRESS;
	assert_int_equal(plan_check_ahead(&s, &e), -1);
}

static void
test_older_kernels(void **state)
{
	struct sandbox_spec s = spec();

	(void)state;
	s.usr = "/usr";
	assert_string_equal(names(&s, false),
			    "trees premount clone maps devices network loopback hostname identity root tmp dev " INIT_END);
	s.uid_base = 0;
	assert_string_equal(names(&s, false),
			    "clone maps network loopback hostname identity trees scratch root usr tmp dev " INIT_END);
}

/* Everything that needs privilege before it is given up, whatever is asked for. */
static void
test_order(void **state)
{
	struct sandbox_spec s = spec();
	struct plan p;
	int at[STEP_COUNT];

	(void)state;
	s.usr = "/usr";
	s.bind_count = SANDBOX_BINDS_MAX;
	for (unsigned i = 0; i < s.bind_count; i++)
		s.binds[i].target = "/x";
	for (int rootless = 0; rootless < 2; rootless++) {
		enum step_side side = SIDE_CALLER;

		s.uid_base = rootless ? 0 : 0x70000000;
		assert_int_equal(plan_make(&p, &s, true, &e), 0);
		assert_true(p.count <= PLAN_STEPS_MAX);
		for (unsigned i = 0; i < p.count; i++) {
			at[p.steps[i].step] = (int)i;
			assert_true(p.steps[i].side >= side);
			side = p.steps[i].side;
		}
		assert_true(at[STEP_MAPS] < at[STEP_IDENTITY] && at[STEP_IDENTITY] < at[STEP_SCRATCH]);
		assert_true(at[STEP_BIND] < at[STEP_DEV] && at[STEP_BIND] < at[STEP_PROC]);
		assert_true(at[STEP_PROC] < at[STEP_MASK] && at[STEP_MASK] < at[STEP_PIVOT]);
		assert_true(at[STEP_PIVOT] < at[STEP_CAPS] && at[STEP_CAPS] < at[STEP_FILTER]);
		assert_true(at[STEP_FILTER] < at[STEP_FORK] && at[STEP_STDIO] < at[STEP_WORKDIR]);
		assert_int_equal(at[STEP_EXEC], p.count - 1);
	}
}

static void
refuse(struct sandbox_spec s, const char *what)
{
	struct plan p;

	err_clear(&e);
	assert_int_equal(plan_make(&p, &s, true, &e), -1);
	assert_int_equal(e.cls, ERR_INPUT);
	if (!strstr(e.text, what))
		fail_msg("'%s' does not say '%s'", e.text, what);
}

static void
test_refusals(void **state)
{
	static const char *const targets[] = { "/", "//", "/proc", "/proc/x", "//proc", "/dev", "/dev/shm/x" };
	static const char *const paths[] = { "", "x", "/a/../b", "/a/./b", "/..", "/a/.." };
	const char *nothing[] = { NULL }, *empty[] = { "", NULL };
	struct sandbox_spec s;
	char longest[8192], name[600];

	(void)state;
	memset(longest, 'a', sizeof longest - 1);
	longest[0] = '/';
	longest[sizeof longest - 1] = '\0';
	memset(name, 'b', sizeof name - 1);
	name[0] = '/';
	name[sizeof name - 1] = '\0';
	for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
		s = spec();
		s.bind_count = 1;
		s.binds[0].target = targets[i];
		refuse(s, "bind");
	}
	for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
		s = spec();
		s.workdir = paths[i];
		refuse(s, "working directory");
		s = spec();
		s.bind_count = 1;
		s.binds[0].target = paths[i];
		refuse(s, "bind target");
	}
	s = spec(), s.workdir = longest, refuse(s, "too long");
	s = spec(), s.workdir = name, refuse(s, "too long");
	s = spec(), s.layer_count = 0, refuse(s, "layers");
	s = spec(), s.layer_count = SANDBOX_LAYERS_MAX + 1, refuse(s, "layers");
	s = spec(), s.bind_count = SANDBOX_BINDS_MAX + 1, refuse(s, "binds");
	s = spec(), s.argv = nothing, refuse(s, "no command");
	s = spec(), s.argv = empty, refuse(s, "no command");
	s = spec(), s.uid = 65535, refuse(s, "uid");
	s = spec(), s.hostname = longest, refuse(s, "host name");
}

static void
test_near_names_are_allowed(void **state)
{
	static const char *const targets[] = { "/process", "/devices", "/tmp/x", "/a//b", "/...", "/a..b" };

	(void)state;
	for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
		struct sandbox_spec s = spec();

		s.bind_count = 1;
		s.binds[0].target = targets[i];
		names(&s, true);
	}
}

static void
test_print(void **state)
{
	struct sandbox_spec s = spec();
	struct plan p;
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	(void)state;
	assert_int_equal(plan_make(&p, &s, true, &e), 0);
	plan_print(&p, &s, out);
	fclose(out);
	assert_non_null(strstr(text, " 1 caller  trees    layer /image\n"));
	assert_non_null(strstr(text, "maps     0-65535 are 1879048192-1879113727 of the host\n"));
	assert_non_null(strstr(text, "command exec     /bin/true\n"));
	free(text);
}

static void
test_report(void **state)
{
	static const struct {
		enum sandbox_reason reason;
		int code, exit_code;
		const char *word;
	} cases[] = {
		{ SANDBOX_EXITED, 7, 7, "exited" },
		{ SANDBOX_SIGNALED, 9, 137, "signaled" },
		{ SANDBOX_CANCELLED, 2, 130, "signaled" },
		{ SANDBOX_TIMEOUT, 0, 124, "timeout" },
		{ SANDBOX_MEMORY_EXCEEDED, 0, 137, "memory_exceeded" },
		{ SANDBOX_OUTPUT_EXCEEDED, 0, 153, "output_exceeded" },
		{ SANDBOX_SETUP_FAILED, 0, 125, "setup_failed" },
		{ SANDBOX_LOST, 0, 125, "setup_failed" },
		{ SANDBOX_NOT_FOUND, 0, 127, "not_found" },
		{ SANDBOX_NOT_EXECUTABLE, 0, 126, "not_executable" },
	};
	struct sandbox_outcome o = { 0 };
	struct buf b = { 0 };

	(void)state;
	_Static_assert(sizeof cases / sizeof cases[0] == SANDBOX_REASON_COUNT, "all of them");
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		o.reason = cases[i].reason;
		o.code = cases[i].code;
		assert_int_equal(report_exit_code(&o), cases[i].exit_code);
		assert_string_equal(report_reason(&o), cases[i].word);
	}
	err_set(&o.error, ERR_INPUT, "a \"quoted\" \\ \xff name");
	o.steps_done = 1ull << STEP_CLONE;
	o.step_us[STEP_CLONE] = 42;
	assert_int_equal(report_json(&b, &o, 5, NULL), 0);
	assert_string_equal(b.data,
			    "{\"reason\":\"not_executable\",\"exit_code\":126,\"signal\":null,\"wall_us\":0,"
			    "\"cpu_us\":0,\"memory_peak_bytes\":0,\"pids_peak\":0,\"pids_limit_hits\":0,"
			    "\"oom_kills\":0,\"output_bytes\":5,\"steps_us\":{\"clone\":42},"
			    "\"error\":\"a \\\"quoted\\\" \\\\ ? name\"}\n");
	buf_free(&b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_steps),    cmocka_unit_test(test_ahead), cmocka_unit_test(test_older_kernels),
		cmocka_unit_test(test_order),    cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_near_names_are_allowed),
		cmocka_unit_test(test_print),    cmocka_unit_test(test_report),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
