/*
 * Ways out that are made ahead: the command sees no difference, each serves once, only where it
 * fits, and never with rules that are out of date; none outlives the spawner.
 */
#include "tests/unit/spawner_fixture.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

/* Whether it waited for an uplink of its own. */
static bool
was_ahead(const struct spawn_result *r)
{
	assert_true(has_step(r, "clone"));
	return !has_step(r, "uplink");
}

/* The spawner's children that are a stack (those that have ended have no command line); their
 * number. */
static unsigned
stacks(pid_t pids[64])
{
	struct buf b = { 0 };
	char path[64];
	unsigned n = 0;

	snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)sp.pid, (int)sp.pid);
	assert_int_equal(file_slurp(AT_FDCWD, path, 1 << 16, &b, &e), 0);
	assert_int_equal(buf_put(&b, "", 1), 0);
	for (char *p = strtok((char *)b.data, " "); p && n < 64; p = strtok(NULL, " ")) {
		static const char name[] = "slirp4netns";
		struct buf line = { 0 };

		snprintf(path, sizeof path, "/proc/%s/cmdline", p);
		if (file_slurp(AT_FDCWD, path, 4096, &line, NULL) == 0 && line.len >= sizeof name &&
		    !memcmp(line.data, name, sizeof name))
			pids[n++] = atoi(p);
		buf_free(&line);
	}
	buf_free(&b);
	return n;
}

/* Until there are so many, which have opened their device by then or soon will have. */
static void
wait_stacks(unsigned want, pid_t pids[64])
{
	uint64_t end = clock_mono_ns() + WAIT_MS * NS_PER_MS;
	unsigned n;

	while ((n = stacks(pids)) != want && clock_mono_ns() < end)
		usleep(1000);
	assert_int_equal(n, want);
}

static struct spawn_request
egress_request(void)
{
	struct spawn_request r = request(1, NULL);

	r.network = SPAWN_NET_EGRESS;
	return r;
}

/* By a way made ahead, however long the spawner takes until it has one. */
static struct spawn_result
run_ahead(struct spawn_request r, const char *script, char *out, size_t size)
{
	uint64_t end = clock_mono_ns() + WAIT_MS * NS_PER_MS;
	struct spawn_result res;

	do {
		usleep(20000);
		res = run(r, script, out, size);
	} while (!was_ahead(&res) && clock_mono_ns() < end);
	if (!was_ahead(&res))
		fail_msg("no way out was made ahead");
	return res;
}

static void
test_none_before_it_is_asked_for(void **state)
{
	struct spawn_request r = request(1, NULL);
	pid_t pids[64];
	char out[64];

	(void)state;
	run(r, "echo x", out, sizeof out);
	usleep(50000);
	assert_int_equal(stacks(pids), 0);
	r.network = SPAWN_NET_EGRESS;
	run(r, "echo x", out, sizeof out);
	wait_stacks(SPAWN_WAYS_MAX, pids);
}

/* What a command can see of its network, and what it is refused. */
static const char look[] =
	"cat /proc/net/route /proc/net/fib_trie; "
	"cat /proc/net/dev | cut -d: -f1; cat /etc/resolv.conf; ls /proc/sys/net /proc/sys/net/ipv4; "
	"cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range; "
	"cat /proc/net/tcp /proc/net/udp | wc -l; cat /proc/net/nf_conntrack 2>&1; "
	"/usr/sbin/ip link set tap0 down; /usr/sbin/ip addr add 10.9.9.9/8 dev tap0; /usr/sbin/nft flush ruleset 2>&1 | tail -n 1; "
	"for a in 10.1.2.3 192.168.1.1 169.254.169.254 127.0.0.1 10.0.2.2; do "
	"bash -c \"exec 4<>/dev/tcp/$a/80\" 2>&1 | sed 's/.*: //'; done";

static void
test_no_difference(void **state)
{
	static char fresh[16 << 10], ahead[16 << 10];
	struct spawn_result res;

	(void)state;
	res = run(egress_request(), look, fresh, sizeof fresh);
	assert_false(was_ahead(&res));
	run_ahead(egress_request(), look, ahead, sizeof ahead);
	assert_non_null(strstr(fresh, "10.0.2.100\n"));
	assert_non_null(strstr(fresh, "Connection refused"));
	assert_string_equal(ahead, fresh);
}

static void
test_each_serves_once(void **state)
{
	pid_t before[64], after[64];
	char out[64];

	(void)state;
	run(egress_request(), "true", out, sizeof out);
	for (int round = 0; round < 6; round++) {
		unsigned same = 0;

		wait_stacks(SPAWN_WAYS_MAX, before);
		run_ahead(egress_request(), "cat /proc/net/tcp | wc -l; cut -d: -f2 /proc/net/dev | grep -c ' 127 '",
			  out, sizeof out);
		wait_stacks(SPAWN_WAYS_MAX, after);
		for (unsigned i = 0; i < SPAWN_WAYS_MAX; i++)
			for (unsigned k = 0; k < SPAWN_WAYS_MAX; k++)
				same += before[i] == after[k];
		assert_true(same < SPAWN_WAYS_MAX);
	}
}

/* All slots at once: no two have the same ids or namespace, and all come to their end. */
static void
test_burst(void **state)
{
	static const char script[] = "cat /proc/self/uid_map >&3; readlink /proc/self/ns/net >&3; "
				     "while ! [ -e /dev/shm/no ] && read x; do :; done";
	const char *argv[] = { "/bin/sh", "-c", script, NULL };
	struct spawn_request r = egress_request();
	char said[SLOTS][256], out[64];
	struct spawn_result res;
	pid_t pids[64];
	int hold[2], fds[SLOTS][2];

	(void)state;
	run(r, "true", out, sizeof out);
	wait_stacks(SPAWN_WAYS_MAX, pids);
	assert_int_equal(pipe2(hold, O_CLOEXEC), 0);
	r.argv = argv;
	r.stdio[0] = hold[0];
	r.timeout_ns = 30 * NS_PER_S;
	for (unsigned i = 0; i < SLOTS; i++) {
		assert_int_equal(pipe2(fds[i], O_CLOEXEC), 0);
		r.channel = fds[i][1];
		r.tag = i;
		ask(&r);
		close(fds[i][1]);
	}
	for (unsigned i = 0; i < SLOTS; i++) {
		size_t len = 0;
		ssize_t n;

		memset(said[i], 0, sizeof said[i]);
		while (!strstr(said[i], "net:[") && (n = read(fds[i][0], said[i] + len, sizeof said[i] - 1 - len)) > 0)
			len += (size_t)n;
		for (unsigned k = 0; k < i; k++) {
			assert_string_not_equal(strstr(said[i], "net:["), strstr(said[k], "net:["));
			assert_true(strtoul(said[i] + strspn(said[i], " 0"), NULL, 10) !=
				    strtoul(said[k] + strspn(said[k], " 0"), NULL, 10));
		}
	}
	close(hold[0]);
	close(hold[1]);
	for (unsigned i = 0; i < SLOTS; i++) {
		result(&res);
		assert_int_equal(res.reason, SPAWN_EXITED);
		close(fds[i][0]);
	}
	wait_stacks(SPAWN_WAYS_MAX, pids);
}

/* What is allowed beside the Internet is in no rules made ahead, nor are a build's names. */
static void
test_others_get_their_own(void **state)
{
	struct net_rules wish = { .count = 1 };
	struct spawn_request r = egress_request();
	struct spawn_result res;
	pid_t pids[64];
	char out[64];

	(void)state;
	assert_int_equal(net_rule_parse("10.9.0.1:80", &wish.list[0], &e), 0);
	egress_allow = wish;
	start();
	run(r, "true", out, sizeof out);
	wait_stacks(SPAWN_WAYS_MAX, pids);
	run_ahead(r, "true", out, sizeof out);
	r.allow = &wish;
	res = run(r, "true", out, sizeof out);
	assert_false(was_ahead(&res));
	r.allow = NULL;
	r.network = SPAWN_NET_BUILD;
	res = run(r, "true", out, sizeof out);
	assert_false(was_ahead(&res));
	r.network = SPAWN_NET_NONE;
	run(r, "cut -d: -f1 /proc/net/dev | tail -n +3 | tr -d ' '", out, sizeof out);
	assert_string_equal(out, "lo\n");
	egress_allow.count = 0;
	stop();
}

/* Until its end is its parent's to hear. */
static void
kill_for_good(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd gone = { .fd = fd, .events = POLLIN };

	assert_true(fd >= 0);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(poll(&gone, 1, WAIT_MS), 1);
	close(fd);
}

static void
test_dead_ones_are_replaced(void **state)
{
	struct spawn_result res;
	pid_t pids[64], again[64];
	char out[64];

	(void)state;
	run(egress_request(), "true", out, sizeof out);
	wait_stacks(SPAWN_WAYS_MAX, pids);
	run_ahead(egress_request(), "true", out, sizeof out);
	wait_stacks(SPAWN_WAYS_MAX, pids);
	for (unsigned i = 0; i < SPAWN_WAYS_MAX; i++)
		kill_for_good(pids[i]);
	res = run(egress_request(), "cat /proc/net/dev | grep -c tap0", out, sizeof out);
	assert_false(was_ahead(&res));
	assert_string_equal(out, "1\n");
	wait_stacks(SPAWN_WAYS_MAX, again);
	run_ahead(egress_request(), "true", out, sizeof out);
}

static void
test_none_outlives_the_spawner(void **state)
{
	uint64_t end = clock_mono_ns() + WAIT_MS * NS_PER_MS;
	pid_t pids[64];
	char out[64];

	(void)state;
	for (int killed = 0; killed < 2; killed++) {
		start();
		run(egress_request(), "true", out, sizeof out);
		wait_stacks(SPAWN_WAYS_MAX, pids);
		if (!killed) {
			stop();
		} else {
			assert_int_equal(kill(sp.pid, SIGKILL), 0);
			assert_int_equal(waitpid(sp.pid, NULL, 0), sp.pid);
			close(sp.fd);
			close(sp.pidfd);
			start(); /* sweeps */
			stop();
		}
		for (unsigned i = 0; i < SPAWN_WAYS_MAX; i++)
			while (kill(pids[i], 0) == 0) {
				assert_true(clock_mono_ns() < end);
				usleep(1000);
			}
	}
}

/* The loopback's, of the network namespace that we are in. */
static void
set_address(const char *name, const char *address)
{
	struct ifreq request = { 0 };
	struct sockaddr_in in = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
	assert_int_equal(inet_pton(AF_INET, address, &in.sin_addr), 1);
	memcpy(&request.ifr_addr, &in, sizeof in);
	assert_true(fd >= 0 && ioctl(fd, SIOCSIFADDR, &request) == 0);
	close(fd);
}

/* An address that the machine has got meanwhile is refused as all of its own are. */
static void
test_rules_are_not_out_of_date(void **state)
{
	static const char probe[] = "bash -c 'exec 4<>/dev/tcp/198.51.100.7/9' 2>&1 | sed 's/.*: //'";
	int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	struct spawn_result res;
	pid_t old[64], now[64];
	char out[256];

	(void)state;
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	set_address("lo", "127.0.0.1");
	start();
	run(egress_request(), "true", out, sizeof out);
	wait_stacks(SPAWN_WAYS_MAX, old);
	run_ahead(egress_request(), "true", out, sizeof out);
	wait_stacks(SPAWN_WAYS_MAX, old);
	set_address("lo:1", "198.51.100.7");
	res = run(egress_request(), probe, out, sizeof out);
	assert_false(was_ahead(&res));
	assert_non_null(strstr(out, "Connection refused\n"));
	wait_stacks(SPAWN_WAYS_MAX, now);
	for (unsigned i = 0; i < SPAWN_WAYS_MAX; i++)
		for (unsigned k = 0; k < SPAWN_WAYS_MAX; k++)
			assert_int_not_equal(old[i], now[k]);
	run_ahead(egress_request(), probe, out, sizeof out);
	assert_non_null(strstr(out, "Connection refused\n"));
	stop();
	assert_int_equal(setns(home, CLONE_NEWNET), 0);
	close(home);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_none_before_it_is_asked_for, one_layer, stop_it),
		cmocka_unit_test_setup_teardown(test_no_difference, one_layer, stop_it),
		cmocka_unit_test_setup_teardown(test_each_serves_once, one_layer, stop_it),
		cmocka_unit_test_setup_teardown(test_burst, one_layer, stop_it),
		cmocka_unit_test(test_others_get_their_own),
		cmocka_unit_test_setup_teardown(test_dead_ones_are_replaced, one_layer, stop_it),
		cmocka_unit_test(test_none_outlives_the_spawner),
		cmocka_unit_test(test_rules_are_not_out_of_date),
	};

	if (geteuid() != 0) {
		printf("[  SKIPPED ] the spawner: not root\n");
		return 0;
	}
	return cmocka_run_group_tests_name("spawner, ways out", tests, set_up, tear_down);
}
