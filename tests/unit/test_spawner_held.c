/*
 * Sandboxes that are made ahead: the command sees no difference, each serves once, and one that
 * dies while it waits is nobody's loss.
 */
#include "tests/unit/spawner_fixture.h"

static bool
was_held(const struct spawn_result *r)
{
	assert_true(r->step_count > 0);
	for (unsigned i = 0; i < r->step_count; i++)
		if (!strcmp(r->steps[i].name, "clone"))
			return false;
	return true;
}

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

/* What a command can see of its sandbox, but for what is another in each. */
static const char look[] =
	"id; pwd; env | sort; umask; ulimit -a; hostname; ls -l /proc/self/fd | tail -n +2 | cut -d'>' -f2 | "
	"sed 's/[0-9]\\+//g'; sort /proc/mounts | sed 's/lowerdir=[^ ,]*//;s/[ug]id=[0-9]*//g'; ls -lnA / /dev /tmp /dev/shm /sys 2>&1 "
	"| sed 's/ [A-Z][a-z][a-z] .*:[0-9][0-9] / /;s/^\\(d[^ ]*\\) *[0-9]*/\\1/;s/  */ /g'; grep -v '^\\(Pid\\|PPid\\|Tgid\\|Ngid\\|NS\\|Vm\\|Rss\\|vol\\|nonvol\\|"
	"Mems\\|Cpus\\|Hugetlb\\|x86\\|CoreD\\|Thread\\)' /proc/self/status; cut -d: -f2- /proc/self/cgroup | sort -u; "
	"cat /proc/sys/user/max_user_namespaces /proc/sys/user/max_inotify_instances /proc/self/timens_offsets 2>&1 | "
	"sed 's/-[0-9]*/-/'; df -k --output=size,itotal,target / /tmp /dev/shm; ps ax -o user,args 2>/dev/null | "
	"grep -v ps; cat /proc/net/dev | cut -d: -f1; cat /proc/sys/kernel/domainname; cat /proc/self/uid_map "
	"| awk '{print $1, $3}'; cat /proc/kallsyms /proc/keys /proc/cmdline | wc; cat /proc/self/oom_score_adj "
	"/proc/self/personality 2>&1; ls /proc/1 2>&1; ls -l /proc/fs /proc/bus | wc -l";

static void
test_no_difference(void **state)
{
	static char fresh[64 << 10], held[64 << 10];
	struct spawn_request r = request(1, NULL);
	struct spawn_result res;
	char *at[2];

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
	start();
	run_held(r, look, held, sizeof held);
	stop();
	assert_true(strlen(fresh) > 2000);
	for (char *a = strtok_r(fresh, "\n", &at[0]), *b = strtok_r(held, "\n", &at[1]); a || b;
	     a = strtok_r(NULL, "\n", &at[0]), b = strtok_r(NULL, "\n", &at[1])) {
		assert_true(a && b);
		assert_string_equal(b, a);
	}
}

/* Limits, layers, size, environment: all are the request's, not those of the one before. */
static void
test_each_is_the_requests_own(void **state)
{
	struct spawn_request r = request(1, NULL);
	const char *const other[] = { "PATH=/usr/bin:/bin", "OTHER=1", NULL };
	struct spawn_result res;
	char out[512], box[2][128];

	(void)state;
	for (int i = 0; i < 2; i++) {
		run_held(r, "readlink /proc/self/ns/user /proc/self/ns/mnt /proc/self/ns/net /proc/self/ns/pid; "
			    "ls -A /tmp /dev/shm; touch /tmp/left /dev/shm/left /left 2>/dev/null",
			 box[i], sizeof box[i]);
		assert_non_null(strstr(box[i], "/tmp:\n\n/dev/shm:\n") ? box[i] : strstr(box[i], "/dev/shm:\n"));
		assert_null(strstr(box[i], "left"));
	}
	assert_string_not_equal(box[0], box[1]);
	r.tmp_bytes = 4 * MIB;
	r.envp = other;
	run_held(r, "df -k --output=size /tmp | tail -1; env | grep -c SECRET; echo $OTHER", out, sizeof out);
	assert_string_equal(out, "     4096\n0\n1\n");
	r.memory_bytes = 32 * MIB;
	r.tmp_bytes = 256 * MIB;
	res = run_held(r, "head -c 100m /dev/zero >/tmp/x; exit 0", out, sizeof out);
	assert_int_equal(res.reason, SPAWN_MEMORY_EXCEEDED);
	r.pids = 3;
	res = run_held(r, "for i in 1 2 3 4 5 6; do sleep 1 & done 2>&1; wait", out, sizeof out);
	assert_true(res.pids_limit_hits > 0);
	r.pids = 64;
	r.timeout_ns = 100 * NS_PER_MS;
	res = run_held(r, "sleep 20", out, sizeof out);
	assert_int_equal(res.reason, SPAWN_TIMEOUT);
	r.timeout_ns = 5 * NS_PER_S;
	r.layers[0] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
	r.layer_count = 1;
	run_held(r, "cat /function/code", out, sizeof out);
	assert_string_equal(out, "from the layer\n");
	r.workdir = "/nonexistent";
	res = run_held(r, "true", out, sizeof out);
	assert_int_equal(res.reason, SPAWN_SETUP_FAILED);
	assert_string_equal(res.step, "workdir");
}

/* The spawner's children that are not its maker of network namespaces; their number. */
static unsigned
children(int pids[64])
{
	struct buf b = { 0 };
	char path[64];
	unsigned n = 0;

	snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)sp.pid, (int)sp.pid);
	assert_int_equal(file_slurp(AT_FDCWD, path, 1 << 16, &b, &e), 0);
	assert_int_equal(buf_put(&b, "", 1), 0);
	for (char *p = strtok((char *)b.data, " "); p && n < 64; p = strtok(NULL, " ")) {
		char comm[32] = "";
		int fd;

		snprintf(path, sizeof path, "/proc/%s/comm", p);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0 && fd_read_all(fd, comm, sizeof comm - 1) > 0 && !strcmp(comm, "pratai-held\n"))
			pids[n++] = atoi(p);
		if (fd >= 0)
			close(fd);
	}
	buf_free(&b);
	return n;
}

static unsigned
wait_children(unsigned want, int pids[64])
{
	uint64_t end = clock_mono_ns() + WAIT_MS * NS_PER_MS;
	unsigned n;

	while ((n = children(pids)) != want && clock_mono_ns() < end)
		usleep(1000);
	return n;
}

static void
test_death_while_it_waits(void **state)
{
	struct spawn_request r = request(1, NULL);
	struct spawn_result res;
	int pids[64];
	char out[64];

	(void)state;
	assert_int_equal(wait_children(SPAWN_HELD_MAX, pids), SPAWN_HELD_MAX);
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
	run_held(r, "echo there", out, sizeof out);
	assert_string_equal(out, "there\n");
	assert_int_equal(wait_children(SPAWN_HELD_MAX, pids), SPAWN_HELD_MAX);
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
	assert_int_equal(wait_children(SPAWN_HELD_MAX, pids), SPAWN_HELD_MAX);
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
