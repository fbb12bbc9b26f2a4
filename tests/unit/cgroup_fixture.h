/*
 * What the tests of cgroups share: an instance of their own, processes born in a group,
 * the leak gate around each test, and a run for each kind of host that this machine can
 * pass for.  Needs root (or a delegated cgroup) and says so.
 */
#ifndef PRATAI_TEST_CGROUP_FIXTURE_H
#define PRATAI_TEST_CGROUP_FIXTURE_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/magic.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "sandbox/cgroup.h"

#define MIB (1ull << 20)
#define DEADLINE_MS 10000

static char instance[CGROUP_INSTANCE_MAX];
static const char *top = "/sys/fs/cgroup";
static bool is_v2;
static struct err e;
static bool outlive; /* processes do not die with the one that started them */

/* What every test starts from and must come back to. */
static int fds_before;

static inline int
count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

static int left_over;

static inline int
look(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	const char *name = path + ftw->base;

	(void)st;
	if (type == FTW_D && strstr(name, instance)) {
		fprintf(stderr, "left over: %s\n", path);
		left_over++;
	}
	return 0;
}

static inline int
each_before(void **state)
{
	(void)state;
	err_clear(&e);
	fds_before = count_fds();
	return 0;
}

static inline int
each_after(void **state)
{
	(void)state;
	left_over = 0;
	nftw(top, look, 32, FTW_PHYS);
	assert_int_equal(left_over, 0);
	assert_int_equal(count_fds(), fds_before);
	return 0;
}

static inline struct cgroup_manager *
manager(uint64_t memory, uint32_t pids, uint32_t cpu)
{
	const struct cgroup_limits need = {memory, pids, cpu};
	struct cgroup_manager *m = cgroup_manager_new(instance, NULL, &need, &e);

	if (!m)
		fail_msg("%s", e.text);
	return m;
}

static inline struct cgroup *
group(struct cgroup_manager *m, const char *name, uint64_t memory, uint32_t pids, uint32_t cpu)
{
	const struct cgroup_limits limits = {memory, pids, cpu};
	struct cgroup *g = cgroup_create(m, name, &e);

	if (!g || cgroup_limit(g, &limits, &e) < 0)
		fail_msg("%s", e.text);
	return g;
}

/* Runs what in a new process that is in g before anything else, and has said so when
 * this returns. */
static inline pid_t
start(struct cgroup *g, void (*what)(int), int arg)
{
	struct clone_args args = {.exit_signal = SIGCHLD};
	struct cgroup_place place;
	int ready[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	cgroup_place(g, &place);
	if (place.into_fd >= 0) {
		args.flags = CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)place.into_fd;
	}
	fflush(NULL);
	pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
	assert_true(pid >= 0);
	if (pid == 0) {
		if (!outlive)
			prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (unsigned i = 0; i < place.task_count; i++)
			if (write(place.tasks[i], "0", 1) != 1)
				_exit(99);
		if (write(ready[1], "", 1) != 1)
			_exit(97);
		close(ready[0]);
		close(ready[1]);
		what(arg);
		_exit(0);
	}
	cgroup_placed(g);
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return pid;
}

static inline int
reap(pid_t pid)
{
	int status = -1;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

/* Polls fd (or by time, when it is -1) until the group is empty. */
static inline void
wait_until_empty(struct cgroup *g)
{
	uint64_t deadline = clock_mono_ns() + DEADLINE_MS * NS_PER_MS;
	int busy;

	while ((busy = cgroup_populated(g, &e)) == 1) {
		struct pollfd p = {.fd = cgroup_populated_fd(g), .events = POLLPRI};

		assert_true(clock_mono_ns() < deadline);
		poll(&p, 1, 10);
		if (p.fd < 0 || getenv("PRATAI_DISABLE"))
			cgroup_kill(g, &e);
	}
	assert_int_equal(busy, 0);
}

static inline void
finish(struct cgroup *g)
{
	uint64_t deadline = clock_mono_ns() + DEADLINE_MS * NS_PER_MS;

	assert_int_equal(cgroup_kill(g, &e), 0);
	wait_until_empty(g);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	while (cgroup_remove(g, &e) < 0) {
		if (e.cls != ERR_AGAIN)
			fail_msg("%s", e.text);
		assert_true(clock_mono_ns() < deadline);
		poll(NULL, 0, 1);
	}
}

static inline void
idle(int arg)
{
	(void)arg;
	for (;;)
		pause();
}

/* The first says whether this machine lets us at all. */
static inline bool
is_possible(void)
{
	const struct cgroup_limits need = {64 * MIB, 10, 500};
	struct cgroup_manager *m = cgroup_manager_new(instance, NULL, &need, &e);

	if (!m)
		return false;
	printf("cgroups: %s\n", cgroup_manager_kind(m));
	cgroup_manager_free(m);
	return true;
}

static inline void
test_skipped(void **state)
{
	(void)state;
	print_message("needs limits for a cgroup of its own: %s\n", e.text);
	skip();
}

/* Runs tests once for each set of forbidden features: main's whole work. */
static inline int
run_everywhere(const struct CMUnitTest *tests, size_t count)
{
	static const char *const disabled[] = {NULL, "cgroup.kill,memory.peak,pids.peak",
					       "cgroup2"};
	const struct CMUnitTest none[] = {cmocka_unit_test(test_skipped)};
	struct statfs fs;
	int failed = 0;

	alarm(300); /* no test waits for ever for the kernel */
	is_v2 = statfs(top, &fs) == 0 && fs.f_type == CGROUP2_SUPER_MAGIC;
	snprintf(instance, sizeof instance, "unit%d", (int)getpid());
	if (!is_possible())
		return cmocka_run_group_tests_name("cgroup", none, NULL, NULL);
	for (unsigned i = 0; i < sizeof disabled / sizeof *disabled; i++) {
		const char *name = disabled[i] ? disabled[i] : "everything";

		if (is_v2 && strcmp(name, "cgroup2") == 0)
			continue; /* nothing would be left */
		if (disabled[i])
			setenv("PRATAI_DISABLE", disabled[i], 1);
		failed += _cmocka_run_group_tests(name, tests, count, NULL, NULL);
	}
	return failed;
}

#define T(f) cmocka_unit_test_setup_teardown(f, each_before, each_after)

#endif
