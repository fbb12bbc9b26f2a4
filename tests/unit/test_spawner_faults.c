/*
 * Each step of a sandbox's start fails in turn (PRATAI_FAIL_AT, test builds only): that is
 * the result of that sandbox alone, the spawner lives on as it was: no descriptor, mount or
 * process more, in the same network namespace.
 */
#include "tests/unit/spawner_fixture.h"

static const char *const true_argv[] = { "/bin/true", NULL };

/* root: another number, another root. */
static struct spawn_result
one(enum spawn_network network, unsigned root)
{
	struct spawn_request r = request(1, true_argv);
	struct spawn_result res;

	r.network = network;
	r.tmp_bytes += root * 4096;
	ask(&r);
	result(&res);
	return res;
}

#ifdef PRATAI_TEST_BUILD

static unsigned
count_dir(const char *what)
{
	char path[64];
	unsigned n = 0;
	DIR *d;

	snprintf(path, sizeof path, "/proc/%d/%s", (int)sp.pid, what);
	d = opendir(path);
	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

struct holdings {
	unsigned fds, mounts, children;
	char netns[64];
};

/* Lines of a file of the spawner's; words, when it has no lines. */
static unsigned
count_words(const char *file, const char *between)
{
	struct buf b = { 0 };
	char path[64];
	unsigned n = 0;

	snprintf(path, sizeof path, "/proc/%d/%s", (int)sp.pid, file);
	assert_int_equal(file_slurp(AT_FDCWD, path, 1 << 20, &b, &e), 0);
	for (size_t i = 0; i < b.len; i++)
		n += b.data[i] == *between;
	buf_free(&b);
	return n;
}

static void
look(struct holdings *h)
{
	char path[64], children[64];
	ssize_t n;

	memset(h, 0, sizeof *h);
	snprintf(path, sizeof path, "/proc/%d/ns/net", (int)sp.pid);
	n = readlink(path, h->netns, sizeof h->netns - 1);
	assert_true(n > 0);
	snprintf(children, sizeof children, "task/%d/children", (int)sp.pid);
	h->fds = count_dir("fd");
	h->mounts = count_words("mountinfo", "\n");
	h->children = count_words(children, " ");
}

/* What is made ahead is being made again for a moment. */
static void
expect_as_before(const struct holdings *before, const char *step)
{
	uint64_t end = clock_mono_ns() + WAIT_MS * NS_PER_MS;
	struct holdings now;

	do {
		usleep(1000);
		look(&now);
	} while (memcmp(&now, before, sizeof now) && clock_mono_ns() < end);
	if (memcmp(&now, before, sizeof now))
		fail_msg("after %s: %u descriptors, %u mounts, %u children, %s; before: %u, %u, %u, %s", step,
			 now.fds, now.mounts, now.children, now.netns, before->fds, before->mounts,
			 before->children, before->netns);
}

/* Some of the sandboxes are made ahead, with a root and without; a build's has binds. */
static unsigned
fail_at(const char *step)
{
	unsigned failed = 0;
	struct holdings before, now;

	setenv("PRATAI_FAIL_AT", step, 1);
	start();
	unsetenv("PRATAI_FAIL_AT");
	for (int i = 0; i < 4; i++)
		one(SPAWN_NET_NONE, 0);
	/* Until all is made ahead: two looks alike. */
	look(&now);
	do {
		before = now;
		usleep(50000);
		look(&now);
	} while (memcmp(&now, &before, sizeof now));
	for (unsigned i = 0; i < 9; i++) {
		struct spawn_result r = one(i % 3 ? SPAWN_NET_NONE : SPAWN_NET_BUILD, i % 3 == 2 ? i : 0);

		if (r.reason == SPAWN_SETUP_FAILED) {
			assert_string_equal(r.step, step);
			assert_string_equal(r.text, "PRATAI_FAIL_AT");
			failed++;
		} else {
			assert_int_equal(r.reason, SPAWN_EXITED);
			assert_int_equal(r.code, 0);
		}
	}
	expect_as_before(&before, step);
	stop();
	return failed;
}

static void
add_steps(struct spawn_result *to, const struct spawn_result *from)
{
	for (unsigned i = 0; i < from->step_count; i++)
		if (!has_step(to, from->steps[i].name))
			to->steps[to->step_count++] = from->steps[i];
}

/* Those of sandboxes made at once, made ahead, and of builds; but a /dev of a spawner's is
 * hardly ever made then ("devices": tests/sandbox/test_faults.py). */
static void
test_each_step(void **state)
{
	uint64_t end = clock_mono_ns() + WAIT_MS * NS_PER_MS;
	static const char *const untold[] = { "exec", "orders", "turn" };
	struct spawn_result all = { 0 }, r;

	(void)state;
	start();
	r = one(SPAWN_NET_BUILD, 0);
	assert_true(r.step_count > 20);
	add_steps(&all, &r);
	/* More at once than are ever made ahead. */
	while (!(has_step(&all, "network") && has_step(&all, "attach")) && clock_mono_ns() < end) {
		struct spawn_request many = request(1, true_argv);

		usleep(30000);
		for (int i = 0; i < SLOTS; i++)
			ask(&many);
		for (int i = 0; i < SLOTS; i++) {
			result(&r);
			add_steps(&all, &r);
		}
	}
	stop();
	assert_true(has_step(&all, "network") && has_step(&all, "attach"));
	for (size_t i = 0; i < sizeof untold / sizeof untold[0]; i++)
		snprintf(all.steps[all.step_count++].name, sizeof all.steps[0].name, "%s", untold[i]);
	for (unsigned i = 0; i < all.step_count; i++)
		if (strcmp(all.steps[i].name, "devices") && fail_at(all.steps[i].name) == 0)
			fail_msg("%s did not fail", all.steps[i].name);
}

/* ---- What the spawner's children hold while sandboxes start ---- */

enum { MANY = 6, LINKS_MAX = 128 };

struct held {
	pid_t pid;
	unsigned count;
	char links[LINKS_MAX][256]; /* pipes, sockets, files of cgroups; not 0 to 2 */
};

static bool
is_ones_own(const char *target)
{
	return !strncmp(target, "pipe:", 5) || !strncmp(target, "socket:", 7) ||
	       strstr(target, instance) != NULL;
}

/* False: it has ended meanwhile. */
static bool
list_links(struct held *h)
{
	char path[64], target[256];
	struct dirent *d;
	DIR *fds;

	h->count = 0;
	snprintf(path, sizeof path, "/proc/%d/fd", (int)h->pid);
	fds = opendir(path);
	if (!fds)
		return false;
	while ((d = readdir(fds))) {
		ssize_t n = readlinkat(dirfd(fds), d->d_name, target, sizeof target - 1);

		target[n < 0 ? 0 : n] = '\0';
		if (atoi(d->d_name) >= 3 && is_ones_own(target) && h->count < LINKS_MAX)
			strcpy(h->links[h->count++], target);
	}
	closedir(fds);
	return true;
}

/* All that wait in the stopped step, and their uplinks. */
static unsigned
list_children(struct held list[64])
{
	struct buf b = { 0 };
	char path[64];
	unsigned n = 0;

	snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)sp.pid, (int)sp.pid);
	assert_int_equal(file_slurp(AT_FDCWD, path, 1 << 16, &b, &e), 0);
	assert_int_equal(buf_put(&b, "", 1), 0);
	for (char *p = strtok((char *)b.data, " "); p && n < 64; p = strtok(NULL, " ")) {
		list[n].pid = atoi(p);
		n += list_links(&list[n]);
	}
	buf_free(&b);
	return n;
}

/* What two of them have of one sandbox's, or one has of two groups: its name; NULL. */
static const char *
shared(const struct held *a, const struct held *b)
{
	for (unsigned i = 0; i < a->count; i++)
		for (unsigned k = 0; k < b->count; k++) {
			const char *x = strstr(a->links[i], instance), *y = strstr(b->links[k], instance);
			size_t len = x ? strlen(instance) + 1 + strcspn(x + strlen(instance) + 1, "/") : 0;
			bool same = x && y ? !strncmp(x, y, len + 1) : !strcmp(a->links[i], b->links[k]);

			if (a == b ? x && y && !same : same)
				return b->links[k];
		}
	return NULL;
}

static void
test_children_hold_their_own(void **state)
{
	static struct held list[64];
	uint64_t end = clock_mono_ns() + WAIT_MS * NS_PER_MS;
	struct spawn_request r = request(0, true_argv);
	const char *disable = getenv("PRATAI_DISABLE"), *what = NULL;
	char before[64], more[96];
	struct spawn_result res;
	unsigned n;
	int p[2];

	(void)state;
	snprintf(before, sizeof before, "%s", disable ? disable : "");
	snprintf(more, sizeof more, "ahead,%s", before);
	setenv("PRATAI_DISABLE", more, 1);
	setenv("PRATAI_STOP_AT", "identity", 1);
	start();
	unsetenv("PRATAI_STOP_AT");
	r.timeout_ns = 60 * NS_PER_S;
	for (unsigned i = 0; i < MANY; i++) {
		assert_int_equal(pipe2(p, O_CLOEXEC), 0);
		r.tag = i;
		r.stdio[0] = p[0];
		r.channel = p[1];
		r.network = i % 2 ? SPAWN_NET_EGRESS : SPAWN_NET_NONE;
		ask(&r);
		close(p[0]);
		close(p[1]);
	}
	do {
		usleep(2000);
		what = NULL;
		n = list_children(list);
		for (unsigned i = 0; i < n && !what; i++)
			for (unsigned k = 0; k <= i && !what; k++)
				what = shared(&list[i], &list[k]);
		/* The maker of network namespaces, inits, and uplinks. */
	} while ((what || n < 1 + MANY + MANY / 2) && clock_mono_ns() < end);
	if (what)
		fail_msg("%s is held by who does not own it", what);
	assert_true(n >= 1 + MANY + MANY / 2);
	for (unsigned i = 0; i < MANY; i++)
		assert_int_equal(spawner_kill(&sp, i, SPAWN_KILL_CANCELLED, &e), 0);
	for (unsigned i = 0; i < MANY; i++) {
		result(&res);
		assert_int_equal(res.reason, SPAWN_CANCELLED);
	}
	stop();
	setenv("PRATAI_DISABLE", before, 1);
}

#else

/* Who could set a variable of the node's shall not be able to break it. */
static void
test_other_builds_do_not_know_it(void **state)
{
	(void)state;
	setenv("PRATAI_FAIL_AT", "join", 1);
	start();
	unsetenv("PRATAI_FAIL_AT");
	assert_int_equal(one(SPAWN_NET_NONE, 0).reason, SPAWN_EXITED);
	stop();
}

#endif

int
main(void)
{
#ifdef PRATAI_TEST_BUILD
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_each_step),
					    cmocka_unit_test(test_children_hold_their_own) };
#else
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_other_builds_do_not_know_it) };
#endif

	if (geteuid() != 0) {
		printf("[  SKIPPED ] the spawner: not root\n");
		return 0;
	}
	if (cmocka_run_group_tests(tests, set_up, tear_down))
		return 1;
	setenv("PRATAI_DISABLE", "clone3,tmpfs.xattr", 1);
	return cmocka_run_group_tests_name("fallbacks", tests, set_up, tear_down);
}
