/*
 * The cgroup manager: names, what it finds and what it refuses, what a dead one left, and
 * on v2 how the caller's own group comes to give controllers.
 */
#include <sys/mount.h>
#include <sys/xattr.h>
#include <time.h>

#include "tests/unit/cgroup_fixture.h"

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

/* The manager before is at its end: it sweeps and removes what it finds, and the one that
 * comes has its own afterwards. */
static void
test_one_manager_at_a_time(void **state)
{
	static const struct timespec pause = {.tv_nsec = 100000000};
	const struct cgroup_limits l = {64 * MIB, 10, 100};
	struct cgroup_manager *next;
	struct cgroup *g;
	int told[2];
	pid_t before;
	char byte;

	(void)state;
	assert_int_equal(pipe(told), 0);
	fflush(NULL);
	before = fork();
	if (before == 0) {
		struct cgroup_manager *m = cgroup_manager_new(instance, NULL, &l, &e);

		if (!m || write(told[1], "x", 1) != 1)
			_exit(1);
		nanosleep(&pause, NULL); /* the other one waits meanwhile */
		if (cgroup_sweep(m, &e) != 0)
			_exit(2);
		cgroup_manager_free(m);
		_exit(0);
	}
	assert_int_equal(read(told[0], &byte, 1), 1);
	next = manager(64 * MIB, 10, 100);
	g = cgroup_create(next, "mine", &e);
	if (!g)
		fail_msg("%s", e.text);
	assert_int_equal(reap(before), 0);
	assert_int_equal(cgroup_remove(g, &e), 0);
	cgroup_manager_free(next);
	close(told[0]);
	close(told[1]);
}

static char looked_for[CGROUP_NAME_MAX];
static bool found;

static int
look_for(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	found |= type == FTW_D && strstr(path + ftw->base, looked_for);
	return 0;
}

/* Whether a group with this in its name is in any hierarchy. */
static bool
is_anywhere(const char *name)
{
	snprintf(looked_for, sizeof looked_for, "%s", name);
	found = false;
	nftw(top, look_for, 32, FTW_PHYS);
	return found;
}

/* Instance "run": only groups whose process is gone are swept, also those with other limits. */
static void
test_sweep_run(void **state)
{
	const struct cgroup_limits need = {0, 10, 0}, its = {64 * MIB, 10, 500};
	struct cgroup_manager *m = cgroup_manager_new(CGROUP_INSTANCE_RUN, NULL, &need, &e);
	char mine[CGROUP_NAME_MAX], left[CGROUP_NAME_MAX];
	struct cgroup *g;
	pid_t maker;
	int swept, told[2];

	(void)state;
	assert_non_null(m);
	assert_true(cgroup_sweep(m, &e) >= 0);
	assert_int_equal(cgroup_run_name(mine, &e), 0);
	g = cgroup_create(m, mine, &e);
	assert_non_null(g);
	fflush(NULL);
	assert_int_equal(pipe(told), 0);
	maker = fork();
	if (maker == 0) {
		struct cgroup_manager *other =
			cgroup_manager_new(CGROUP_INSTANCE_RUN, NULL, &its, &e);
		char name[CGROUP_NAME_MAX];

		_exit(!other || cgroup_run_name(name, &e) < 0 || !cgroup_create(other, name, &e) ||
		      write(told[1], name, sizeof name) != sizeof name);
	}
	assert_int_equal(reap(maker), 0);
	assert_int_equal(read(told[0], left, sizeof left), sizeof left);
	close(told[0]);
	close(told[1]);
	swept = cgroup_sweep(m, &e);
	/* another `pratai run` of the machine may sweep at the same time */
	assert_in_range(swept, 0, 1);
	assert_false(is_anywhere(left));
	assert_int_equal(cgroup_populated(g, &e), 0);
	assert_null(cgroup_create(m, mine, &e)); /* ours is still there */
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

static const struct CMUnitTest tests[] = {
	T(test_names),
	T(test_kind),
	T(test_twice_the_same_name),
	T(test_sweep),
	T(test_one_manager_at_a_time),
	T(test_sweep_run),
	T(test_missing_controller),
	T(test_own_group),
};

int
main(void)
{
	return run_everywhere(tests, sizeof tests / sizeof *tests);
}
