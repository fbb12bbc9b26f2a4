/*
 * The cgroup interface against the kernel that is there: v2, hybrid or v1, and on each the
 * fallbacks that PRATAI_DISABLE forces.  Needs root (or a delegated cgroup) and says so.
 *
 * What is asserted is what a sandbox relies on: who is in the group, that each limit
 * bites, that an OOM kill is told from none and from somebody else's, that kill ends
 * whatever hides, that usage is counted, and that nothing is left.
 */
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
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
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

static int
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

static int
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

static int
each_before(void **state)
{
	(void)state;
	err_clear(&e);
	fds_before = count_fds();
	return 0;
}

static int
each_after(void **state)
{
	(void)state;
	left_over = 0;
	nftw(top, look, 32, FTW_PHYS);
	assert_int_equal(left_over, 0);
	assert_int_equal(count_fds(), fds_before);
	return 0;
}

static struct cgroup_manager *
manager(uint64_t memory, uint32_t pids, uint32_t cpu)
{
	const struct cgroup_limits need = {memory, pids, cpu};
	struct cgroup_manager *m = cgroup_manager_new(instance, NULL, &need, &e);

	if (!m)
		fail_msg("%s", e.text);
	return m;
}

static struct cgroup *
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
static pid_t
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

static int
reap(pid_t pid)
{
	int status = -1;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

/* Polls fd (or by time, when it is -1) until the group is empty. */
static void
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

static void
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

/* ---- What the processes do ---- */

static void
idle(int arg)
{
	(void)arg;
	for (;;)
		pause();
}

static void
touch_mib(int mib)
{
	size_t n = (size_t)mib * MIB;
	char *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		_exit(98);
	memset(p, 1, n);
}

/* The child eats, the parent stays: v1 kills only one of them by itself. */
static void
child_touches_mib(int mib)
{
	if (fork() == 0) {
		touch_mib(mib);
		_exit(0);
	}
	idle(0);
}

/* Exits with the number of forks that worked. */
static void
fork_until_refused(int max)
{
	int n = 0;

	while (n < max && fork() != 0) {
		if (errno == EAGAIN)
			_exit(n);
		n++;
	}
	idle(0);
}

static void
daemons(int count)
{
	for (int i = 0; i < count; i++) {
		if (fork() == 0) {
			setsid();
			signal(SIGTERM, SIG_IGN);
			if (fork() == 0)
				for (;;)
					;
			_exit(0);
		}
	}
	idle(0);
}

static void
fork_bomb(int arg)
{
	(void)arg;
	signal(SIGCHLD, SIG_IGN);
	for (;;)
		fork();
}

/* Spins for so many milliseconds of CPU time. */
static void
spin_ms(int ms)
{
	struct timespec t;

	do
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	while (t.tv_sec * 1000 + t.tv_nsec / 1000000 < ms);
}

/* ---- Tests ---- */

static void
test_names(void **state)
{
	static const char *const bad_instances[] = {"", "..", "../x", "Big", "a-b", "a/b",
						    "seventeenletters1"};
	static const char *const bad_groups[] = {
		"", ".", "..", "-a", "a/b", "A", "a b", "a\n",
		"0123456789012345678901234567890123456789012345678"};
	struct cgroup_manager *m;

	(void)state;
	for (unsigned i = 0; i < sizeof bad_instances / sizeof *bad_instances; i++) {
		assert_null(cgroup_manager_new(bad_instances[i], NULL, NULL, &e));
		assert_int_equal(e.cls, ERR_INPUT);
	}
	assert_null(cgroup_manager_new(instance, "/a/../b", NULL, &e));
	assert_null(cgroup_manager_new(instance, "a//b", NULL, &e));
	m = manager(0, 0, 0);
	for (unsigned i = 0; i < sizeof bad_groups / sizeof *bad_groups; i++) {
		assert_null(cgroup_create(m, bad_groups[i], &e));
		assert_int_equal(e.cls, ERR_INPUT);
	}
	cgroup_manager_free(m);
}

static void
test_kind(void **state)
{
	const char *disabled = getenv("PRATAI_DISABLE");
	struct cgroup_manager *m = manager(64 * MIB, 10, 1000);

	(void)state;
	if (is_v2)
		assert_string_equal(cgroup_manager_kind(m), "v2");
	else if (disabled && strstr(disabled, "cgroup2"))
		assert_string_equal(cgroup_manager_kind(m), "v1");
	else
		assert_true(strcmp(cgroup_manager_kind(m), "hybrid") == 0 ||
			    strcmp(cgroup_manager_kind(m), "v1") == 0);
	cgroup_manager_free(m);
}

static void
test_twice_the_same_name(void **state)
{
	struct cgroup_manager *m = manager(0, 0, 0);
	struct cgroup *g = cgroup_create(m, "same", &e);

	(void)state;
	assert_non_null(g);
	assert_null(cgroup_create(m, "same", &e));
	assert_int_equal(e.cls, ERR_CONFLICT);
	finish(g);
	cgroup_manager_free(m);
}

/* The process is in every hierarchy's group, and was never moved by us. */
static void
test_place(void **state)
{
	struct cgroup_manager *m = manager(64 * MIB, 10, 1000);
	struct cgroup *g = group(m, "place", 64 * MIB, 10, 1000);
	pid_t pid = start(g, idle, 0);
	char path[64], line[4096], want[64];
	int found = 0, v1 = 0;
	FILE *f;

	(void)state;
	snprintf(path, sizeof path, "/proc/%d/cgroup", (int)pid);
	snprintf(want, sizeof want, "/pratai-%s/place\n", instance);
	f = fopen(path, "re");
	assert_non_null(f);
	while (fgets(line, sizeof line, f)) {
		bool in = strstr(line, want) != NULL;

		found += in;
		if (strstr(line, ":memory:") || strstr(line, ":pids:") || strstr(line, ":cpu:")) {
			v1++;
			assert_true(in);
		}
	}
	fclose(f);
	assert_true(is_v2 ? found == 1 : v1 >= 2 && found >= v1);
	finish(g);
	cgroup_manager_free(m);
}

static void
test_no_limits(void **state)
{
	struct cgroup_manager *m = manager(0, 0, 0);
	struct cgroup *g = group(m, "free", 0, 0, 0);
	struct cgroup_usage u;
	short events;

	(void)state;
	assert_int_equal(cgroup_oom_fd(g, &events), -1);
	assert_int_equal(reap(start(g, touch_mib, 16)), 0);
	assert_false(cgroup_oom(g));
	assert_int_equal(cgroup_usage(g, &u, &e), 0);
	assert_true(u.cpu_ns > 0);
	assert_int_equal(u.oom_kills, 0);
	finish(g);
	cgroup_manager_free(m);
}

static bool
readable(struct cgroup *g, int timeout_ms)
{
	struct pollfd p = {0};

	p.fd = cgroup_oom_fd(g, &p.events);
	assert_true(p.fd >= 0);
	return poll(&p, 1, timeout_ms) == 1;
}

static void
test_memory(void **state)
{
	struct cgroup_manager *m = manager(32 * MIB, 0, 0);
	struct cgroup *g = group(m, "memory", 32 * MIB, 0, 0);
	uint64_t deadline = clock_mono_ns() + DEADLINE_MS * NS_PER_MS;
	struct cgroup_usage u;

	(void)state;
	assert_false(readable(g, 0));
	start(g, child_touches_mib, 64);
	while (!cgroup_oom(g)) {
		assert_true(clock_mono_ns() < deadline);
		readable(g, 1000);
	}
	/* All of the group ends, the parent that ate nothing as well. */
	assert_int_equal(cgroup_kill(g, &e), 0);
	wait_until_empty(g);
	assert_true(cgroup_oom(g));
	assert_int_equal(cgroup_usage(g, &u, &e), 0);
	assert_true(u.memory_peak_bytes <= 32 * MIB);
	if (!getenv("PRATAI_DISABLE") || !is_v2)
		assert_true(u.memory_peak_bytes > 31 * MIB);
	finish(g);
	cgroup_manager_free(m);
}

static void
test_memory_within(void **state)
{
	struct cgroup_manager *m = manager(64 * MIB, 0, 0);
	struct cgroup *g = group(m, "within", 64 * MIB, 0, 0);
	struct cgroup_usage u;

	(void)state;
	assert_int_equal(reap(start(g, touch_mib, 40)), 0);
	assert_false(readable(g, 0));
	assert_false(cgroup_oom(g));
	assert_int_equal(cgroup_usage(g, &u, &e), 0);
	assert_int_equal(u.oom_kills, 0);
	if (!getenv("PRATAI_DISABLE") || !is_v2)
		assert_in_range(u.memory_peak_bytes, 40 * MIB, 60 * MIB);
	finish(g);
	cgroup_manager_free(m);
}

/* A limit around us is reached, not ours: someone is killed, but it is not our OOM. */
static void
test_memory_of_parent(void **state)
{
	const struct cgroup_limits need = {64 * MIB, 0, 0};
	char parent[64], path[256];
	struct cgroup_manager *m;
	struct cgroup *g;
	int fd, status;

	(void)state;
	if (getuid() != 0)
		skip();
	snprintf(parent, sizeof parent, "/%s-parent", instance);
	m = cgroup_manager_new(instance, parent, &need, &e);
	if (!m)
		fail_msg("%s", e.text);
	snprintf(path, sizeof path, "%s%s%s/%s", top, is_v2 ? "" : "/memory", parent,
		 is_v2 ? "memory.max" : "memory.limit_in_bytes");
	fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "33554432", 8), 8);
	close(fd);
	g = group(m, "inner", 64 * MIB, 0, 0);
	status = reap(start(g, touch_mib, 48));
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_false(cgroup_oom(g));
	finish(g);
	cgroup_manager_free(m);
	for (const char *const *sub = (const char *const[]){"", "/memory", "/pids", "/cpu",
							    "/cpuacct", "/unified", NULL};
	     *sub; sub++) {
		snprintf(path, sizeof path, "%s%s%s", top, *sub, parent);
		rmdir(path);
	}
}

static void
test_bad_limits(void **state)
{
	struct cgroup_manager *m = manager(0, 0, 0);
	struct cgroup *g = cgroup_create(m, "bad", &e);

	(void)state;
	assert_non_null(g);
	assert_int_equal(cgroup_limit(g, &(struct cgroup_limits){.memory_bytes = 100}, &e), -1);
	assert_int_equal(e.cls, ERR_INPUT);
	assert_int_equal(
		cgroup_limit(g, &(struct cgroup_limits){.memory_bytes = UINT64_MAX}, &e), -1);
	assert_int_equal(e.cls, ERR_INPUT);
	assert_int_equal(
		cgroup_limit(g, &(struct cgroup_limits){.cpu_millis = UINT32_MAX}, &e), -1);
	assert_int_equal(e.cls, ERR_INPUT);
	finish(g);
	cgroup_manager_free(m);
}

static void
test_pids(void **state)
{
	struct cgroup_manager *m = manager(0, 7, 0);
	struct cgroup *g = group(m, "pids", 0, 7, 0);
	struct cgroup_usage u;
	int status;

	(void)state;
	status = reap(start(g, fork_until_refused, 50));
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 6);
	assert_int_equal(cgroup_usage(g, &u, &e), 0);
	assert_true(u.pids_limit_hits >= 1);
	assert_true(u.pids_peak == 7 || u.pids_peak == 0);
	finish(g);
	cgroup_manager_free(m);
}

/* 10 % of a CPU: 60 ms of work take 500 ms at least (the first slice of 10 ms comes with
 * the first period, the sixth with the sixth). */
static void
test_cpu(void **state)
{
	struct cgroup_manager *m = manager(0, 0, 100);
	struct cgroup *g = group(m, "cpu", 0, 0, 100);
	uint64_t from = clock_mono_ns(), wall;
	struct cgroup_usage u;

	(void)state;
	assert_int_equal(reap(start(g, spin_ms, 70)), 0);
	wall = clock_mono_ns() - from;
	assert_true(wall > 350 * NS_PER_MS);
	assert_int_equal(cgroup_usage(g, &u, &e), 0);
	assert_in_range(u.cpu_ns, 50 * NS_PER_MS, wall / 2);
	finish(g);
	cgroup_manager_free(m);
}

static void
test_tiny_cpu(void **state)
{
	struct cgroup_manager *m = manager(0, 0, 1);
	struct cgroup *g = group(m, "tiny", 0, 0, 1);

	(void)state;
	finish(g);
	cgroup_manager_free(m);
}

static void
test_kill_daemons(void **state)
{
	struct cgroup_manager *m = manager(0, 100, 50);
	struct cgroup *g = group(m, "daemons", 0, 100, 50);
	struct cgroup_usage u;

	(void)state;
	start(g, daemons, 20);
	while (cgroup_usage(g, &u, &e) == 0 && u.cpu_ns < 20 * NS_PER_MS)
		poll(NULL, 0, 1); /* until they spin */
	assert_int_equal(cgroup_populated(g, &e), 1);
	assert_int_equal(cgroup_remove(g, &e), -1);
	assert_int_equal(e.cls, ERR_AGAIN);
	finish(g);
	cgroup_manager_free(m);
}

static void
test_kill_fork_bomb(void **state)
{
	struct cgroup_manager *m = manager(0, 40, 500);
	struct cgroup *g = group(m, "bomb", 0, 40, 500);
	struct cgroup_usage u;

	(void)state;
	start(g, fork_bomb, 0);
	while (cgroup_usage(g, &u, &e) == 0 && u.pids_limit_hits == 0)
		poll(NULL, 0, 1); /* until it has reached its limit */
	finish(g);
	cgroup_manager_free(m);
}

/* A manager's life in a process of its own, which ends without removing anything. */
static void __attribute__((noreturn))
leave_groups(void)
{
	const struct cgroup_limits l = {64 * MIB, 10, 100};
	struct cgroup_manager *m = cgroup_manager_new(instance, NULL, &l, &e);
	struct cgroup *g;

	if (!m || !cgroup_create(m, "empty", &e) || !(g = cgroup_create(m, "full", &e)) ||
	    cgroup_limit(g, &l, &e) < 0)
		_exit(1);
	outlive = true;
	start(g, idle, 0);
	_exit(0);
}

/* A manager that was killed leaves groups, one with a process; the next one sweeps. */
static void
test_sweep(void **state)
{
	struct cgroup_manager *next;
	pid_t maker;
	int status;

	(void)state;
	fflush(NULL);
	maker = fork();
	if (maker == 0)
		leave_groups();
	status = reap(maker);
	assert_int_equal(status, 0);
	next = manager(64 * MIB, 10, 100);
	assert_int_equal(cgroup_sweep(next, &e), 2);
	assert_int_equal(cgroup_sweep(next, &e), 0);
	cgroup_manager_free(next);
}

/* Instance "run": only groups whose process is gone are swept. */
static void
test_sweep_run(void **state)
{
	struct cgroup_manager *m = cgroup_manager_new(CGROUP_INSTANCE_RUN, NULL, NULL, &e);
	char mine[CGROUP_NAME_MAX];
	struct cgroup *g;
	pid_t maker;
	int swept;

	(void)state;
	assert_non_null(m);
	assert_true(cgroup_sweep(m, &e) >= 0);
	assert_int_equal(cgroup_run_name(mine, &e), 0);
	g = cgroup_create(m, mine, &e);
	assert_non_null(g);
	fflush(NULL);
	maker = fork();
	if (maker == 0) {
		char name[CGROUP_NAME_MAX];

		_exit(cgroup_run_name(name, &e) < 0 || !cgroup_create(m, name, &e));
	}
	assert_int_equal(reap(maker), 0);
	swept = cgroup_sweep(m, &e);
	/* another `pratai run` of the machine may sweep at the same time */
	assert_in_range(swept, 0, 1);
	assert_int_equal(cgroup_populated(g, &e), 0);
	assert_null(cgroup_create(m, mine, &e)); /* ours is still there */
	finish(g);
	cgroup_manager_free(m);
}

static void
test_slow_place(void **state)
{
	struct cgroup_manager *m = manager(0, 0, 0);
	struct cgroup *g = group(m, "slow", 0, 0, 0);
	int fd = cgroup_place_slow(g, &e);
	pid_t pid;

	(void)state;
	if (fd < 0) {
		assert_int_equal(e.cls, ERR_NONE);
		assert_string_equal(cgroup_manager_kind(m), "v1");
	} else {
		fflush(NULL);
		pid = fork();
		if (pid == 0) {
			if (write(fd, "0", 1) != 1)
				_exit(1);
			idle(0);
		}
		close(fd);
		while (cgroup_populated(g, &e) == 0)
			poll(NULL, 0, 1);
	}
	finish(g);
	cgroup_manager_free(m);
}

/* Without the file system, or the controller, a limit is an error that says so. */
static void
test_missing_controller(void **state)
{
	const struct cgroup_limits need = {64 * MIB, 0, 0};
	pid_t pid;

	(void)state;
	if (getuid() != 0)
		skip();
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		struct cgroup_manager *m;

		if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		    umount2(is_v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory", MNT_DETACH) < 0)
			_exit(2);
		m = cgroup_manager_new(instance, NULL, &need, &e);
		if (m || e.cls != ERR_NODE || !strstr(e.text, is_v2 ? "cgroup" : "memory"))
			_exit(3);
		_exit(0);
	}
	assert_int_equal(reap(pid), 0);
}

/* ---- v2: how our own group comes to give controllers ---- */

static void
write_file(const char *dir, const char *file, const char *text)
{
	char path[256];
	int fd;

	snprintf(path, sizeof path, "%s/%s", dir, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) < 0) {
		fprintf(stderr, "%s to %s: %s\n", text, path, strerror(errno));
		_exit(10);
	}
	close(fd);
}

/* In a group of its own, with or without somebody beside and a mark of delegation: makes
 * a limited group.  Exits with 0 if that worked. */
static void
manage_from(const char *dir, bool beside, bool delegated, bool want_leaf)
{
	const struct cgroup_limits l = {64 * MIB, 10, 500};
	struct cgroup_manager *m;
	struct cgroup *g;
	char leaf[256];
	pid_t other = 0;

	write_file(dir, "cgroup.procs", "0");
	if (beside && (other = fork()) == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		idle(0);
	}
	if (delegated && setxattr(dir, "trusted.delegate", "1", 1, 0) < 0)
		_exit(11);
	m = cgroup_manager_new(instance, NULL, &l, &e);
	if (!m || !(g = cgroup_create(m, "leaf", &e)) || cgroup_limit(g, &l, &e) < 0 ||
	    cgroup_remove(g, &e) < 0) {
		fprintf(stderr, "%s\n", e.text);
		_exit(12);
	}
	cgroup_manager_free(m);
	/* A second manager finds its way from the leaf. */
	m = cgroup_manager_new(instance, NULL, &l, &e);
	if (!m)
		_exit(13);
	cgroup_manager_free(m);
	snprintf(leaf, sizeof leaf, "%s/pratai-supervisor", dir);
	if ((access(leaf, F_OK) == 0) != want_leaf)
		_exit(14);
	if (other) {
		kill(other, SIGKILL);
		waitpid(other, NULL, 0);
	}
	_exit(0);
}

static void
test_own_group(void **state)
{
	static const struct {
		bool beside, delegated, leaf;
	} cases[] = {{false, false, true}, {true, true, true}, {true, false, false}};
	char dir[64], leaf[128];

	(void)state;
	if (!is_v2 || getuid() != 0)
		skip();
	snprintf(dir, sizeof dir, "%s/own-%s", top, instance);
	snprintf(leaf, sizeof leaf, "%s/pratai-supervisor", dir);
	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		pid_t pid;
		int status;

		assert_int_equal(mkdir(dir, 0755), 0);
		fflush(NULL);
		pid = fork();
		if (pid == 0)
			manage_from(dir, cases[i].beside, cases[i].delegated, cases[i].leaf);
		status = reap(pid);
		rmdir(leaf);
		assert_int_equal(rmdir(dir), 0);
		assert_int_equal(status, 0);
	}
}

#define T(f) cmocka_unit_test_setup_teardown(f, each_before, each_after)
static const struct CMUnitTest tests[] = {
	T(test_names),
	T(test_kind),
	T(test_twice_the_same_name),
	T(test_place),
	T(test_slow_place),
	T(test_no_limits),
	T(test_memory),
	T(test_memory_within),
	T(test_memory_of_parent),
	T(test_bad_limits),
	T(test_pids),
	T(test_cpu),
	T(test_tiny_cpu),
	T(test_kill_daemons),
	T(test_kill_fork_bomb),
	T(test_sweep),
	T(test_sweep_run),
	T(test_missing_controller),
	T(test_own_group),
};

/* The first says whether this machine lets us at all. */
static bool
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

static void
test_skipped(void **state)
{
	(void)state;
	print_message("needs limits for a cgroup of its own: %s\n", e.text);
	skip();
}

int
main(void)
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
		if (is_v2 && disabled[i] && strcmp(disabled[i], "cgroup2") == 0)
			continue; /* nothing would be left */
		if (disabled[i])
			setenv("PRATAI_DISABLE", disabled[i], 1);
		failed += cmocka_run_group_tests_name(disabled[i] ? disabled[i] : "cgroup", tests,
						      NULL, NULL);
	}
	return failed;
}
