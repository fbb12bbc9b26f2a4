/*
 * Sandboxes that are made ahead, with a root or without: the command sees no difference, each
 * serves once, and one that dies while it waits is nobody's loss.
 */
#include "tests/unit/spawner_fixture.h"

/* Of what is held when one root is asked for. */
enum { HELD_WITH_ROOT = SPAWN_HELD_MAX / 2 };

#define LAYER "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

/* By a sandbox made ahead, however long the spawner takes until it has one. */
static struct spawn_result
run_held(struct spawn_request r, const char *script, char *out, size_t size)
{
	uint64_t end = clock_mono_ns() + WAIT_MS * NS_PER_MS;
	struct spawn_result res;

	do {
		usleep(20000);
		res = run(r, script, out, size);
	} while (!was_held(&res) && clock_mono_ns() < end);
	if (!was_held(&res))
		fail_msg("no sandbox was made ahead");
	return res;
}

/* By one that had its root before. */
static struct spawn_result
run_rooted(struct spawn_request r, const char *script, char *out, size_t size)
{
	uint64_t end = clock_mono_ns() + WAIT_MS * NS_PER_MS;
	struct spawn_result res;

	do {
		usleep(20000);
		res = run(r, script, out, size);
	} while (!had_root(&res) && clock_mono_ns() < end);
	if (!had_root(&res))
		fail_msg("no sandbox was made ahead with its root");
	return res;
}

/* By one that had none: as nobody has asked for this size. */
static struct spawn_result
run_unrooted(struct spawn_request r, const char *script, char *out, size_t size)
{
	struct spawn_result res;

	do {
		r.tmp_bytes += 4096;
		res = run_held(r, script, out, size);
	} while (had_root(&res));
	return res;
}

/* What a command can see of its sandbox, but for what is another in each. */
static const char look[] =
	"id; pwd; env | sort; umask; ulimit -a; hostname; ls -l /proc/self/fd | tail -n +2 | cut -d'>' -f2 | "
	"sed 's/[0-9]\\+//g'; sort /proc/mounts | sed 's/lowerdir=[^ ,]*//;s/[ug]id=[0-9]*//g'; "
	"cut -d' ' -f4- /proc/self/mountinfo | sort | sed 's/lowerdir=[^ ,]*//;s/[ug]id=[0-9]*//g'; ls -lnA / /dev /tmp /dev/shm /sys 2>&1 "
	"| sed 's/ [A-Z][a-z][a-z] .*:[0-9][0-9] / /;s/^\\(d[^ ]*\\) *[0-9]*/\\1/;s/  */ /g'; grep -v '^\\(Pid\\|PPid\\|Tgid\\|Ngid\\|NS\\|Vm\\|Rss\\|vol\\|nonvol\\|"
	"Mems\\|Cpus\\|Hugetlb\\|x86\\|CoreD\\|Thread\\)' /proc/self/status; cut -d: -f2- /proc/self/cgroup | sort -u; "
	"cat /proc/sys/user/max_user_namespaces /proc/sys/user/max_inotify_instances /proc/self/timens_offsets 2>&1 | "
	"sed 's/-[0-9]*/-/'; df -k --output=size,itotal,target / /tmp /dev/shm; ps ax -o user,args 2>/dev/null | "
	"grep -v ps; cat /proc/net/dev | cut -d: -f1; cat /proc/sys/kernel/domainname; cat /proc/self/uid_map "
	"| awk '{print $1, $3}'; cat /proc/kallsyms /proc/keys /proc/cmdline | wc; cat /proc/self/oom_score_adj "
	"/proc/self/personality 2>&1; ls /proc/1 2>&1; ls -l /proc/fs /proc/bus | wc -l; "
	"grep -v '^\\(NS\\|Vm\\|Rss\\|vol\\|nonvol\\|Mems\\|Cpus\\|Hugetlb\\|x86\\)' /proc/1/status";

/* df of all but a known size. */
static void
expect_same_lines(const char *fresh, const char *held)
{
	static char copy[2][64 << 10];
	char *at[2];

	strcpy(copy[0], fresh);
	strcpy(copy[1], held);
	for (char *a = strtok_r(copy[0], "\n", &at[0]), *b = strtok_r(copy[1], "\n", &at[1]); a || b;
	     a = strtok_r(NULL, "\n", &at[0]), b = strtok_r(NULL, "\n", &at[1])) {
		assert_true(a && b);
		assert_string_equal(b, a);
	}
}

static void
test_no_difference(void **state)
{
	static char fresh[64 << 10], held[64 << 10];
	struct spawn_request r = request(1, NULL);
	struct spawn_result res;

	(void)state;
	r.workdir = "/var";
	setenv("PRATAI_DISABLE", "ahead", 1);
	start();
	unsetenv("PRATAI_DISABLE");
	usleep(50000);
	res = run(r, look, fresh, sizeof fresh);
	assert_false(was_held(&res));
	assert_int_equal(res.reason, SPAWN_EXITED);
	stop();
	assert_true(strlen(fresh) > 2000);
	start();
	await_held();
	/* The first of its root. */
	res = run(r, look, held, sizeof held);
	assert_true(was_held(&res) && !had_root(&res));
	expect_same_lines(fresh, held);
	run_rooted(r, look, held, sizeof held);
	expect_same_lines(fresh, held);
	stop();
}

/* Limits, layers, size, environment: all are the request's, not those of the one before. */
static void
expect_each_its_own(struct spawn_result (*by)(struct spawn_request, const char *, char *, size_t))
{
	struct spawn_request r = request(1, NULL);
	const char *const other[] = { "PATH=/usr/bin:/bin", "OTHER=1", NULL };
	struct spawn_result res;
	char out[512], box[2][128];

	for (int i = 0; i < 2; i++) {
		by(r, "readlink /proc/self/ns/user /proc/self/ns/mnt /proc/self/ns/net /proc/self/ns/pid; "
		      "ls -A /tmp /dev/shm; touch /tmp/left /dev/shm/left /left 2>/dev/null",
		   box[i], sizeof box[i]);
		assert_non_null(strstr(box[i], "/tmp:\n\n/dev/shm:\n") ? box[i] : strstr(box[i], "/dev/shm:\n"));
		assert_null(strstr(box[i], "left"));
	}
	assert_string_not_equal(box[0], box[1]);
	r.envp = other;
	by(r, "env | grep -c SECRET; echo $OTHER", out, sizeof out);
	assert_string_equal(out, "0\n1\n");
	r.memory_bytes = 32 * MIB;
	r.tmp_bytes = 256 * MIB;
	res = by(r, "head -c 100m /dev/zero >/tmp/x; exit 0", out, sizeof out);
	assert_int_equal(res.reason, SPAWN_MEMORY_EXCEEDED);
	r.pids = 3;
	res = by(r, "for i in 1 2 3 4 5 6; do sleep 1 & done 2>&1; wait", out, sizeof out);
	assert_true(res.pids_limit_hits > 0);
	r.pids = 64;
	r.timeout_ns = 100 * NS_PER_MS;
	res = by(r, "sleep 20", out, sizeof out);
	assert_int_equal(res.reason, SPAWN_TIMEOUT);
	r.timeout_ns = 5 * NS_PER_S;
	r.layers[0] = LAYER;
	r.layer_count = 1;
	by(r, "cat /function/code", out, sizeof out);
	assert_string_equal(out, "from the layer\n");
	r.workdir = "/nonexistent";
	res = by(r, "true", out, sizeof out);
	assert_int_equal(res.reason, SPAWN_SETUP_FAILED);
	assert_string_equal(res.step, "workdir");
}

static void
test_each_is_the_requests_own(void **state)
{
	(void)state;
	expect_each_its_own(run_held);
	expect_each_its_own(run_unrooted);
	expect_each_its_own(run_rooted);
}

/* Roots in turn: each event gets its own, of its size, however many there are of others. */
static void
test_roots_in_turn(void **state)
{
	static const char script[] = "cat /function/code /opt/runtime 2>/dev/null; df -k --output=size "
				     "/tmp | tail -1; ls -A /tmp; touch /tmp/left";
	struct spawn_request r[4];
	char want[4][64], out[512];
	unsigned rooted[4] = { 0 };

	(void)state;
	for (int i = 0; i < 4; i++)
		r[i] = request((uint64_t)i, NULL);
	r[1].layers[0] = LAYER;
	r[1].layer_count = 1;
	r[2].runtime = "test1";
	r[2].tmp_bytes = 8 * MIB;
	r[3].tmp_bytes = 4 * MIB;
	for (int i = 0; i < 4; i++)
		snprintf(want[i], sizeof want[i], "%s%s%9llu\n", i == 1 ? "from the layer\n" : "",
			 i == 2 ? "from the runtime\n" : "", (unsigned long long)r[i].tmp_bytes / 1024);
	for (int n = 0; n < 80; n++) {
		struct spawn_result res = run(r[n % 4], script, out, sizeof out);

		assert_string_equal(out, want[n % 4]);
		rooted[n % 4] += had_root(&res);
		usleep(10000);
	}
	for (int i = 0; i < 4; i++)
		assert_true(rooted[i] > 0);
}

static void
move_layer(const char *from, const char *to)
{
	char path[2][256];

	snprintf(path[0], sizeof path[0], "layers/sha256/%s", from);
	snprintf(path[1], sizeof path[1], "layers/sha256/%s", to);
	if (renameat(store, path[0], store, path[1]))
		fail_msg("%s to %s: %s", path[0], path[1], strerror(errno));
}

/* What is made of a layer is of no use when that has gone or is another, and says so itself. */
static void
test_layer_goes(void **state)
{
	struct spawn_request r = request(1, NULL);
	struct spawn_result res;
	char out[512];

	(void)state;
	put_file("layers/sha256/other/function/code", "from another\n");
	r.layers[0] = LAYER;
	r.layer_count = 1;
	run_rooted(r, "cat /function/code", out, sizeof out);
	usleep(50000);
	move_layer(LAYER, "away");
	for (int i = 0; i < 10; i++) {
		res = run(r, "cat /function/code", out, sizeof out);
		assert_int_equal(res.reason, SPAWN_SETUP_FAILED);
		assert_string_equal(res.step, "trees");
		assert_non_null(strstr(res.text, LAYER ": No such file or directory"));
		usleep(2000);
	}
	/* Nor does it stop others. */
	r.layer_count = 0;
	run_rooted(r, "true", out, sizeof out);
	r.layer_count = 1;
	move_layer("away", LAYER);
	run_rooted(r, "cat /function/code", out, sizeof out);
	assert_string_equal(out, "from the layer\n");
	usleep(50000);
	move_layer(LAYER, "away");
	move_layer("other", LAYER);
	for (int i = 0; i < 10; i++) {
		run(r, "cat /function/code", out, sizeof out);
		assert_string_equal(out, "from another\n");
		usleep(2000);
	}
	run_rooted(r, "cat /function/code", out, sizeof out);
	assert_string_equal(out, "from another\n");
	move_layer(LAYER, "other");
	move_layer("away", LAYER);
	assert_int_equal(dir_remove(store, "layers/sha256/other", &e), 0);
}

/* Of a process that may be gone. */
static bool
is_named(const char *pid, const char *name)
{
	char path[64], comm[32] = "";
	int fd;

	snprintf(path, sizeof path, "/proc/%s/comm", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && fd_read_all(fd, comm, sizeof comm - 1) > 0)
		comm[strcspn(comm, "\n")] = '\0';
	if (fd >= 0)
		close(fd);
	return !strcmp(comm, name);
}

/* The inits of sandboxes that wait: without a root they do so themselves, else their child does.
 * Their number, and how many of them have a root. */
static unsigned
children(int pids[64], unsigned *rooted)
{
	struct buf b = { 0 };
	char path[64], *at;
	unsigned n = 0;

	*rooted = 0;
	snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)sp.pid, (int)sp.pid);
	assert_int_equal(file_slurp(AT_FDCWD, path, 1 << 16, &b, &e), 0);
	assert_int_equal(buf_put(&b, "", 1), 0);
	for (char *p = strtok_r((char *)b.data, " ", &at); p && n < 64; p = strtok_r(NULL, " ", &at)) {
		struct buf own = { 0 };
		struct err gone;
		bool with = false;

		snprintf(path, sizeof path, "/proc/%s/task/%s/children", p, p);
		if (is_named(p, "pratai-init") && !file_slurp(AT_FDCWD, path, 1 << 16, &own, &gone) &&
		    !buf_put(&own, "", 1))
			with = is_named(strtok((char *)own.data, " "), "pratai-held");
		if (with || is_named(p, "pratai-held"))
			pids[n++] = atoi(p);
		*rooted += with;
		buf_free(&own);
	}
	buf_free(&b);
	return n;
}

static void
wait_children(unsigned want, unsigned want_rooted, int pids[64])
{
	uint64_t end = clock_mono_ns() + WAIT_MS * NS_PER_MS;
	unsigned n, rooted;

	while (((n = children(pids, &rooted)) != want || rooted != want_rooted) && clock_mono_ns() < end)
		usleep(1000);
	assert_int_equal(n, want);
	assert_int_equal(rooted, want_rooted);
}

static void
test_death_while_it_waits(void **state)
{
	struct spawn_request r = request(1, NULL);
	struct spawn_result res;
	int pids[64];
	char out[64];

	(void)state;
	wait_children(SPAWN_HELD_MAX / 2, 0, pids);
	for (int i = 0; i < 2; i++)
		run(r, "true", out, sizeof out);
	wait_children(SPAWN_HELD_MAX, HELD_WITH_ROOT, pids);
	for (unsigned i = 0; i < SPAWN_HELD_MAX; i++)
		kill(pids[i], SIGKILL);
	/* It may meet those that are just dying: that is node_lost, and nothing else. */
	for (unsigned i = 0; i <= SPAWN_HELD_MAX; i++) {
		res = run(r, "echo here", out, sizeof out);
		if (res.reason != SPAWN_LOST)
			break;
	}
	assert_int_equal(res.reason, SPAWN_EXITED);
	assert_string_equal(out, "here\n");
	run_rooted(r, "echo there", out, sizeof out);
	assert_string_equal(out, "there\n");
	wait_children(SPAWN_HELD_MAX, HELD_WITH_ROOT, pids);
}

static unsigned
open_files(int pid, const char *not_this)
{
	char path[64], target[256];
	struct dirent *d;
	unsigned n = 0;
	DIR *dir_;

	snprintf(path, sizeof path, "/proc/%d/fd", pid);
	dir_ = opendir(path);
	assert_non_null(dir_);
	while ((d = readdir(dir_))) {
		ssize_t len = readlinkat(dirfd(dir_), d->d_name, target, sizeof target - 1);

		if (len <= 0)
			continue;
		target[len] = '\0';
		assert_string_not_equal(target, not_this);
		n++;
	}
	closedir(dir_);
	return n;
}

/* It waits with what is its own: not the driver's socket, not other sandboxes' descriptors. */
static void
test_holds_nothing_else(void **state)
{
	const char *const sleep_argv[] = { "/bin/sleep", "30", NULL };
	struct spawn_request r = request(7, sleep_argv);
	struct spawn_result res;
	char path[64], driver[256];
	int pids[64];
	ssize_t n;

	(void)state;
	snprintf(path, sizeof path, "/proc/%d/fd/3", (int)sp.pid);
	n = readlink(path, driver, sizeof driver - 1);
	assert_true(n > 0);
	driver[n] = '\0';
	for (int i = 0; i < 4; i++)
		ask(&r);
	usleep(50000);
	wait_children(SPAWN_HELD_MAX, HELD_WITH_ROOT, pids);
	for (unsigned i = 0; i < SPAWN_HELD_MAX; i++)
		assert_true(open_files(pids[i], driver) <= 24);
	assert_int_equal(spawner_kill(&sp, 7, SPAWN_KILL_CANCELLED, &e), 0);
	for (int i = 0; i < 4; i++)
		result(&res);
}

int
main(void)
{
	const struct CMUnitTest difference[] = { cmocka_unit_test(test_no_difference) };
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_each_is_the_requests_own, one_layer, stop_it),
		cmocka_unit_test_setup_teardown(test_roots_in_turn, one_layer, stop_it),
		cmocka_unit_test_setup_teardown(test_layer_goes, one_layer, stop_it),
		cmocka_unit_test_setup_teardown(test_death_while_it_waits, one_layer, stop_it),
		cmocka_unit_test_setup_teardown(test_holds_nothing_else, one_layer, stop_it),
	};

	if (geteuid() != 0) {
		printf("[  SKIPPED ] the spawner: not root\n");
		return 0;
	}
	if (cmocka_run_group_tests(difference, set_up, tear_down) ||
	    cmocka_run_group_tests(tests, set_up, tear_down))
		return 1;
	setenv("PRATAI_DISABLE", "clone3,tmpfs.xattr", 1);
	return cmocka_run_group_tests_name("fallbacks", tests, set_up, tear_down);
}
