/*
 * The spawner for real: started as root with a store of our own, asked by its interface,
 * killed, lied to.  Each test ends with the same cgroups, processes and descriptors as it
 * found.  With --bench N it prints the time from request to result of a static program.
 */
#include <arpa/inet.h>
#include <netinet/in.h>

#include "sandbox/idmap.h"
#include "sandbox/tree.h"
#include "tests/unit/spawner_fixture.h"

static void
test_runs_a_command(void **state)
{
	char out[4096];
	struct spawn_result r = run(request(7, NULL), "id; echo $SECRET; pwd; exit 3", out, sizeof out);

	(void)state;
	assert_int_equal(r.tag, 7);
	assert_int_equal(r.reason, SPAWN_EXITED);
	assert_int_equal(r.code, 3);
	assert_non_null(strstr(out, "uid=1000(pratai) gid=1000(pratai) groups=1000(pratai)\n"));
	assert_non_null(strstr(out, "kept\n/tmp\n"));
	assert_true(r.wall_ns > 0 && r.cpu_ns > 0 && r.setup_us > 0 && r.step_count > 10);
	assert_true(r.memory_peak_bytes > 0 && r.memory_peak_bytes < 64 * MIB);
}

static void
test_channel_is_three_and_nothing_else(void **state)
{
	int pair[2];
	char out[256], byte = 0;
	struct spawn_request r = request(1, NULL);
	struct spawn_result res;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	r.channel = pair[1];
	/* ls has its directory open as a descriptor of its own: 4. */
	res = run(r, "printf x >&3; exec ls /proc/self/fd", out, sizeof out);
	assert_int_equal(res.code, 0);
	assert_string_equal(out, "0\n1\n2\n3\n4\n");
	assert_int_equal(read(pair[0], &byte, 1), 1);
	assert_int_equal(byte, 'x');
	close(pair[0]);
	close(pair[1]);
	res = run(request(2, NULL), "exec ls /proc/self/fd", out, sizeof out);
	assert_string_equal(out, "0\n1\n2\n3\n");
}

static void
test_layers_and_runtime(void **state)
{
	static const char digest[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
	struct spawn_request r = request(1, NULL);
	char out[256];
	struct spawn_result res;

	(void)state;
	r.layers[r.layer_count++] = digest;
	r.runtime = "test1";
	res = run(r, "cat /function/code /opt/runtime; echo changed 2>/dev/null >/function/code || echo no",
		  out, sizeof out);
	assert_int_equal(res.code, 0);
	assert_string_equal(out, "from the layer\nfrom the runtime\nno\n");
	r.layers[0] = "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
	res = run(r, "true", out, sizeof out);
	assert_int_equal(res.reason, SPAWN_SETUP_FAILED);
	assert_string_equal(res.step, "trees");
}

#define LOWER "11112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define UPPER "22222233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define IN_IMAGE(key, path) "images/layers/" key path

/* Of two layers: what is needed below, a file of the user's own and one of root's above. */
static void
make_image(struct spawn_image *image)
{
	char command[512];

	*image = (struct spawn_image){ .layer_count = 2, .layers = { UPPER, LOWER } };
	put_file(IN_IMAGE(LOWER, "/etc/release"), "lower\n");
	put_file(IN_IMAGE(UPPER, "/etc/release"), "upper\n");
	put_file(IN_IMAGE(UPPER, "/home/mine"), "mine\n");
	put_file(IN_IMAGE(UPPER, "/home/roots"), "roots\n");
	assert_int_equal(dir_make(store, IN_IMAGE(LOWER, "/bin"), 0755, &e), 0);
	snprintf(command, sizeof command,
		 "cp /bin/busybox %s/" IN_IMAGE(LOWER, "/bin/sh") " && chown -R %u:%u %s/images/layers && "
		 "chmod 0700 %s/images", dir, IMAGE_IDS_FROM, IMAGE_IDS_FROM, dir, dir);
	assert_int_equal(system(command), 0);
	assert_int_equal(fchownat(store, IN_IMAGE(UPPER, "/home/mine"), IMAGE_IDS_FROM + 1000,
				  IMAGE_IDS_FROM + 1000, 0), 0);
	assert_int_equal(fchmodat(store, IN_IMAGE(UPPER, "/home/mine"), 0600, 0), 0);
	assert_int_equal(fchmodat(store, IN_IMAGE(UPPER, "/home/roots"), 0600, 0), 0);
}

/* Whether the store's file system can show files as others' (tmpfs: since Linux 6.3). */
static bool
ids_can_be_mapped(void)
{
	int ids = idmap_open(IMAGE_IDS_FROM, UID_BASE, 65536, &e), tree = tree_clone(store, "", false), rc;

	assert_true(ids >= 0 && tree >= 0);
	rc = idmap_apply(tree, ids);
	close(tree);
	close(ids);
	return rc == 0;
}

/* Those that are made ahead serve first, then one is made at once; and then with the root.  Where
 * ids are not mapped, the files are nobody's, and permissions for others apply. */
static void
test_image(void **state)
{
	static const char script[] =
		"read a </etc/release; read b </home/mine; echo $a $b $0;"
		"read c 2>/dev/null </home/roots || echo no; [ -e /usr ] || echo no usr;"
		"echo x >/home/mine && echo written";
	uint64_t end = clock_mono_ns() + WAIT_MS * NS_PER_MS;
	struct spawn_image image;
	struct spawn_request r = request(1, NULL);
	struct spawn_result res;
	bool mapped = ids_can_be_mapped();
	unsigned rooted = 0;
	char out[1024];

	(void)state;
	make_image(&image);
	r.image = &image;
	for (int i = 0; i < 6 || (rooted < 2 && clock_mono_ns() < end); i++) {
		res = run(r, script, out, sizeof out);
		assert_int_equal(res.reason, SPAWN_EXITED);
		if (mapped)
			assert_string_equal(out, "upper mine /bin/sh\nno\nno usr\nwritten\n");
		else
			assert_non_null(strstr(out, "upper /bin/sh\nno\nno usr\n"));
		rooted += had_root(&res);
		usleep(i < 6 ? 0 : 20000);
	}
	assert_true(rooted >= 2);
	strcpy(image.layers[1], "33332233445566778899aabbccddeeff00112233445566778899aabbccddeeff");
	assert_int_equal(run(r, "true", out, sizeof out).reason, SPAWN_SETUP_FAILED);
}

static void
test_reasons(void **state)
{
	struct spawn_request r = request(1, NULL);
	char out[256];
	struct spawn_result res;
	uint64_t start_ns;
	const char *missing[] = { "/nonexistent", NULL };

	(void)state;
	res = run(r, "kill -9 $$", out, sizeof out);
	assert_int_equal(res.reason, SPAWN_SIGNALED);
	assert_int_equal(res.code, SIGKILL);

	r.timeout_ns = 200 * NS_PER_MS;
	start_ns = clock_mono_ns();
	res = run(r, "setsid sleep 30 & sleep 30", out, sizeof out);
	assert_int_equal(res.reason, SPAWN_TIMEOUT);
	assert_true(clock_mono_ns() - start_ns < 2 * NS_PER_S);

	r.timeout_ns = 20 * NS_PER_S;
	res = run(r, "head -c 200m /dev/zero | tail -c 199m >/dev/null; exit 0", out, sizeof out);
	assert_int_equal(res.reason, SPAWN_MEMORY_EXCEEDED);
	r.tmp_bytes = 256 * MIB;
	res = run(r, "head -c 100m /dev/zero >/tmp/x; exit 0", out, sizeof out);
	assert_int_equal(res.reason, SPAWN_MEMORY_EXCEEDED);

	r.argv = missing;
	ask(&r);
	result(&res);
	assert_int_equal(res.reason, SPAWN_SETUP_FAILED);
	assert_string_equal(res.step, "exec");
	assert_int_equal(res.err_class, ERR_INPUT);
}

static void
test_kills_when_told(void **state)
{
	const char *argv[] = { "/bin/sleep", "30", NULL };
	struct spawn_request r = request(5, argv);
	struct spawn_result res;

	(void)state;
	ask(&r);
	assert_int_equal(spawner_kill(&sp, 6, SPAWN_KILL_OUTPUT, &e), 0);
	assert_int_equal(spawner_kill(&sp, 5, SPAWN_KILL_CANCELLED, &e), 0);
	result(&res);
	assert_int_equal(res.tag, 5);
	assert_int_equal(res.reason, SPAWN_CANCELLED);
	r.tag = 8;
	ask(&r);
	assert_int_equal(spawner_kill(&sp, 8, SPAWN_KILL_OUTPUT, &e), 0);
	result(&res);
	assert_int_equal(res.reason, SPAWN_OUTPUT_EXCEEDED);
}

/* All slots at once, and then again: each has ids of its own. */
static void
test_all_slots(void **state)
{
	static const char script[] = "cut -c11-21 /proc/self/uid_map; read x";
	const char *argv[] = { "/bin/sh", "-c", script, NULL };
	char out[SLOTS][64];
	struct spawn_result res;

	(void)state;
	for (int round = 0; round < 3; round++) {
		int in[2], fds[SLOTS][2];
		uint64_t seen = 0;

		assert_int_equal(pipe2(in, O_CLOEXEC), 0);
		for (int i = 0; i < SLOTS; i++) {
			struct spawn_request r = request((uint64_t)i, argv);

			assert_int_equal(pipe2(fds[i], O_CLOEXEC), 0);
			r.stdio[0] = in[0];
			r.stdio[1] = fds[i][1];
			ask(&r);
			close(fds[i][1]);
		}
		for (int i = 0; i < SLOTS; i++) {
			ssize_t n = read(fds[i][0], out[i], sizeof out[i] - 1);

			assert_true(n > 0);
			out[i][n] = '\0';
			for (int k = 0; k < i; k++)
				assert_string_not_equal(out[i], out[k]);
		}
		close(in[0]);
		close(in[1]);
		for (int i = 0; i < SLOTS; i++) {
			result(&res);
			assert_int_equal(res.reason, SPAWN_EXITED);
			seen |= 1ull << res.tag;
			close(fds[i][0]);
		}
		assert_int_equal(seen, (1ull << SLOTS) - 1);
	}
}

/* They are removed after the answers, and without a further word of the driver's. */
static void
test_groups_go_after_the_answers(void **state)
{
	enum { AHEAD = 4 + SPAWN_HELD_MAX };
	static const char *const argv[] = { "/bin/true", NULL };
	uint64_t deadline = clock_mono_ns() + WAIT_MS * NS_PER_MS;
	struct spawn_result res;
	unsigned left;

	(void)state;
	for (int round = 0; round < 12; round++) {
		for (int i = 0; i < SLOTS; i++) {
			struct spawn_request r = request((uint64_t)i, argv);

			ask(&r);
		}
		for (int i = 0; i < SLOTS; i++) {
			result(&res);
			assert_int_equal(res.reason, SPAWN_EXITED);
		}
	}
	while ((left = count_groups("/[0-9]*/")) != AHEAD * count_groups("") && clock_mono_ns() < deadline)
		usleep(1000);
	assert_int_equal(left, AHEAD * count_groups(""));
}

static void
test_network(void **state)
{
	struct spawn_request r = request(1, NULL);
	struct spawn_result res;
	char out[8192];

	(void)state;
	run(r, "cat /proc/net/dev | tail -n +3 | cut -d: -f1 | tr -d ' '; cat /etc/resolv.conf; env | grep -c ^PIP_",
	    out, sizeof out);
	assert_string_equal(out, "lo\n0\n");
	r.network = SPAWN_NET_EGRESS;
	res = run(r, "cat /proc/net/dev | tail -n +3 | cut -d: -f1 | tr -d ' '; cat /etc/resolv.conf; env | grep -c ^PIP_",
		  out, sizeof out);
	if (res.reason != SPAWN_EXITED)
		fail_msg("reason %d: %s: %s", (int)res.reason, res.step, res.text);
	assert_string_equal(out, "lo\ntap0\nnameserver 10.0.2.3\n0\n");
	r.network = SPAWN_NET_BUILD;
	run(r, "cat /etc/resolv.conf; env", out, sizeof out);
	assert_non_null(strstr(out, "nameserver 10.0.2.3\n"));
	assert_non_null(strstr(out, "PIP_TEST_UNIT=1"));
}

/* On the machine's loopback; its descriptor. */
static int
listen_on(unsigned *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof a;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0 && bind(fd, (struct sockaddr *)&a, len) == 0 && listen(fd, 8) == 0 &&
		    getsockname(fd, (struct sockaddr *)&a, &len) == 0);
	*port = ntohs(a.sin_port);
	return fd;
}

static void
expect_reached(struct spawn_request r, unsigned port, bool reached)
{
	char script[128], out[512];
	struct spawn_result res;

	snprintf(script, sizeof script, "exec bash -c 'exec 4<>/dev/tcp/127.0.0.1/%u' 2>&1", port);
	res = run(r, script, out, sizeof out);
	if (res.reason != SPAWN_EXITED || (res.code == 0) != reached ||
	    (!reached && !strstr(out, "Connection refused")))
		fail_msg("port %u: %s %s", port, out, res.text);
}

/* What is near is reached where the operator's own settings name it, and nowhere else. */
static void
test_network_near(void **state)
{
	struct spawn_request r = request(1, NULL);
	struct net_rules wish = { .count = 1 };
	struct spawn_result res;
	unsigned number[4];
	int fds[4];
	char text[64], out[256];

	(void)state;
	for (int i = 0; i < 4; i++)
		fds[i] = listen_on(&number[i]);
	snprintf(text, sizeof text, "http://localhost:%u/simple", number[0]); /* by its name */
	setenv("PIP_INDEX_URL", text, 1);
	snprintf(text, sizeof text, "127.0.0.1:%u", number[1]);
	setenv("http_proxy", text, 1);
	snprintf(text, sizeof text, "127.0.0.1:%u", number[2]);
	assert_int_equal(net_rule_parse(text, &egress_allow.list[0], &e), 0);
	egress_allow.count = 1;
	start();
	unsetenv("PIP_INDEX_URL");
	unsetenv("http_proxy");
	r.network = SPAWN_NET_BUILD;
	for (int i = 0; i < 4; i++)
		expect_reached(r, number[i], i < 2);
	r.network = SPAWN_NET_EGRESS;
	for (int i = 0; i < 4; i++)
		expect_reached(r, number[i], false);
	wish.list[0] = egress_allow.list[0];
	r.allow = &wish;
	for (int i = 0; i < 4; i++)
		expect_reached(r, number[i], i == 2);
	wish.list[0].first = wish.list[0].last = (uint16_t)number[3];
	res = run(r, "true", out, sizeof out);
	assert_int_equal(res.reason, SPAWN_SETUP_FAILED);
	assert_int_equal(res.err_class, ERR_INPUT);
	snprintf(text, sizeof text, "'127.0.0.1:%u' is not within", number[3]);
	assert_non_null(strstr(res.text, text));
	stop();
	egress_allow.count = 0;
	for (int i = 0; i < 4; i++)
		close(fds[i]);
}

/* What a node does not give, nobody gets, and that is the end of that sandbox only. */
static void
test_network_refused(void **state)
{
	struct spawn_request r = request(1, NULL);
	struct spawn_result res;
	char out[256];

	(void)state;
	egress = false;
	start();
	r.network = SPAWN_NET_EGRESS;
	res = run(r, "true", out, sizeof out);
	assert_int_equal(res.reason, SPAWN_SETUP_FAILED);
	assert_int_equal(res.err_class, ERR_INPUT);
	assert_string_equal(res.text, "network: this node gives functions none");
	r.network = SPAWN_NET_NONE;
	assert_int_equal(run(r, "true", out, sizeof out).reason, SPAWN_EXITED);
	stop();
	egress = true;
}

static bool
is_alive(pid_t pid)
{
	return kill(pid, 0) == 0;
}

/* A process of the machine that runs marker; 0: none. */
static pid_t
find_process(const char *marker)
{
	DIR *proc = opendir("/proc");
	struct dirent *d;
	pid_t found = 0;

	while (!found && (d = readdir(proc))) {
		char path[300], line[256];
		int fd;
		ssize_t n;

		snprintf(path, sizeof path, "/proc/%s/cmdline", d->d_name);
		if (d->d_name[0] < '1' || d->d_name[0] > '9' || (fd = open(path, O_RDONLY)) < 0)
			continue;
		n = read(fd, line, sizeof line);
		close(fd);
		if (n > 0 && memmem(line, (size_t)n, marker, strlen(marker)))
			found = atoi(d->d_name);
	}
	closedir(proc);
	return found;
}

static void
wait_for(bool there, const char *marker)
{
	uint64_t end = clock_mono_ns() + WAIT_MS * NS_PER_MS;

	while (!!find_process(marker) != there && clock_mono_ns() < end)
		usleep(1000);
	assert_int_equal(!!find_process(marker), there);
}

/* Its death ends its sandboxes, and the next one cleans up. */
static void
test_killed_spawner(void **state)
{
	const char *argv[] = { "/bin/sh", "-c", "setsid sleep 4242.17 & sleep 4242.17", NULL };
	struct spawn_request r = request(1, argv);
	int status;

	(void)state;
	start();
	ask(&r);
	wait_for(true, "4242.17");
	assert_true(is_alive(sp.pid));
	kill(sp.pid, SIGKILL);
	waitpid(sp.pid, &status, 0);
	wait_for(false, "4242.17");
	close(sp.fd);
	close(sp.pidfd);
	assert_true(count_groups("") > 0);
	start();
	stop();
}

static void
test_driver_goes(void **state)
{
	const char *argv[] = { "/bin/sleep", "4242.18", NULL };
	struct spawn_request r = request(1, argv);

	(void)state;
	start();
	ask(&r);
	wait_for(true, "4242.18");
	stop();
	assert_int_equal(find_process("4242.18"), 0);
}

/* Sends bytes as they are, with so many descriptors; the spawner must end and say nothing. */
static void
expect_end(const void *data, size_t len, size_t fd_count)
{
	struct pollfd p = { .fd = sp.fd, .events = POLLIN };
	struct iovec iov = { .iov_base = (void *)(uintptr_t)data, .iov_len = len };
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int) * 16)];
	} control = { .head = { .cmsg_len = CMSG_LEN(sizeof(int) * fd_count),
				.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct spawn_result res;
	int status;

	start();
	p.fd = sp.fd;
	if (fd_count) { /* all of them standard input */
		m.msg_control = control.space;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
	}
	assert_int_equal(sendmsg(sp.fd, &m, 0), len);
	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	assert_int_equal(spawner_result(&sp, &res, &e), -1);
	waitpid(sp.pid, &status, 0);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	close(sp.fd);
	close(sp.pidfd);
	assert_int_equal(count_groups(""), 0);
}

static void
test_malformed(void **state)
{
	struct wire_request w = { 0 };
	struct wire_kill k = { .why = 77 };

	(void)state;
	expect_end("x", 1, 0);
	wire_head_set(&w.head, WIRE_REQUEST);
	expect_end(&w, sizeof w, 0);
	wire_head_set(&k.head, WIRE_KILL);
	expect_end(&k, sizeof k, 0);
	/* More descriptors than a request has, and than there is room for. */
	for (size_t n = WIRE_FDS_MAX; n <= WIRE_FDS_MAX + 3; n++)
		expect_end(&w, sizeof w, n);
}

static int
compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* As many at once as there are slots. */
static void
bench_throughput(const char *const *argv, unsigned n)
{
	uint64_t t = clock_mono_ns();
	struct spawn_result r;
	unsigned asked = 0;

	for (unsigned done = 0; done < n; done++) {
		while (asked < n && asked - done < SLOTS) {
			struct spawn_request q = request(asked++, argv);

			ask(&q);
		}
		result(&r);
		assert_int_equal(r.reason, SPAWN_EXITED);
	}
	printf("%d at once: %.0f sandboxes a second\n", SLOTS,
	       n / ((double)(clock_mono_ns() - t) / 1e9));
}

static void
bench(unsigned n)
{
	const char *argv[] = { access("/usr/bin/busybox", X_OK) ? "/bin/true" : "/usr/bin/busybox", "true",
			       NULL };
	uint64_t *ns = calloc(n, sizeof *ns), *setup = calloc(n, sizeof *setup);
	struct spawn_result r;
	struct {
		char name[24];
		uint64_t us;
	} steps[SPAWN_STEPS_MAX] = { 0 };

	set_up(NULL);
	start();
	bench_throughput(argv, n);
	for (unsigned i = 0; i < n + 20; i++) {
		struct spawn_request q = request(i, argv);
		uint64_t t = clock_mono_ns();

		ask(&q);
		result(&r);
		if (r.reason != SPAWN_EXITED)
			printf("reason %d %s\n", (int)r.reason, r.text);
		usleep(3000);
		if (i < 20)
			continue;
		ns[i - 20] = clock_mono_ns() - t - 3000000;
		setup[i - 20] = r.setup_us;
		for (unsigned k = 0; k < r.step_count; k++) {
			memcpy(steps[k].name, r.steps[k].name, sizeof steps[k].name);
			steps[k].us += r.steps[k].us;
		}
	}
	qsort(ns, n, sizeof *ns, compare);
	qsort(setup, n, sizeof *setup, compare);
	printf("request to result p50 %.2f ms p99 %.2f ms; setup p50 %llu us\n", (double)ns[n / 2] / 1e6,
	       (double)ns[n * 99 / 100] / 1e6, (unsigned long long)setup[n / 2]);
	for (unsigned k = 0; k < r.step_count; k++)
		printf("  %-10s %6.1f us\n", steps[k].name, (double)steps[k].us / n);
	stop();
	tear_down(NULL);
	free(ns);
	free(setup);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_runs_a_command, one_layer, stop_it),
		cmocka_unit_test_setup_teardown(test_channel_is_three_and_nothing_else, one_layer, stop_it),
		cmocka_unit_test_setup_teardown(test_layers_and_runtime, one_layer, stop_it),
		cmocka_unit_test_setup_teardown(test_image, one_layer, stop_it),
		cmocka_unit_test_setup_teardown(test_reasons, one_layer, stop_it),
		cmocka_unit_test_setup_teardown(test_kills_when_told, one_layer, stop_it),
		cmocka_unit_test_setup_teardown(test_all_slots, one_layer, stop_it),
		cmocka_unit_test_setup_teardown(test_groups_go_after_the_answers, one_layer, stop_it),
		cmocka_unit_test_setup_teardown(test_network, one_layer, stop_it),
		cmocka_unit_test(test_network_near),
		cmocka_unit_test(test_network_refused),
		cmocka_unit_test(test_killed_spawner),
		cmocka_unit_test(test_driver_goes),
		cmocka_unit_test(test_malformed),
	};

	if (geteuid() != 0) {
		printf("[  SKIPPED ] the spawner: not root\n");
		return 0;
	}
	if (argc == 3 && !strcmp(argv[1], "--bench")) {
		bench((unsigned)atoi(argv[2]));
		return 0;
	}
	if (cmocka_run_group_tests(tests, set_up, tear_down))
		return 1;
	/* And as on older kernels, or inside of somebody else's filter. */
	setenv("PRATAI_DISABLE", "clone3,tmpfs.xattr", 1);
	return cmocka_run_group_tests_name("fallbacks", tests, set_up, tear_down);
}
