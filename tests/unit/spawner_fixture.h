/*
 * A spawner for real, for tests: started as root with a store of our own, asked by its
 * interface.  set_up and tear_down are the group's; start and stop_it each test's.
 */
#ifndef PRATAI_TESTS_SPAWNER_FIXTURE_H
#define PRATAI_TESTS_SPAWNER_FIXTURE_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "rootfs/host.h"
#include "sandbox/spawner.h"
#include "sandbox/wire.h"

#define MIB (1ull << 20)
#ifndef SLOTS
#define SLOTS 8
#endif
enum { UID_BASE = 0x7a000000, IMAGE_IDS_FROM = 0x78000000 };
/* In an emulated machine (tests/vm) all takes longer. */
#define PATIENCE (getenv("PRATAI_EMULATED") ? 20 : 1)
#define WAIT_MS (10000 * PATIENCE)

static char dir[64], instance[17], runtimes[128], program[4096];
static int store;
static struct spawner sp;
static struct err e;

static struct net_rules egress_allow; /* the operator's; of those started from now on */
static bool egress = true;

static inline void
start(void)
{
	struct spawner_config c = {
		.store_fd = store, .runtimes = runtimes, .instance = instance,
		.image_ids = IMAGE_IDS_FROM, .uid_base = UID_BASE, .slots = SLOTS, .memory_max_bytes = 512 * MIB,
		.tmp_max_bytes = 512 * MIB, .build_network = true,
		.egress = egress, .allow = &egress_allow,
		.program = program,
	};

	if (spawner_start(&c, &sp, &e))
		fail_msg("spawner_start: %s", e.text);
}

static inline unsigned
count_glob(const char *pattern)
{
	glob_t g;
	unsigned n = glob(pattern, 0, NULL, &g) ? 0 : (unsigned)g.gl_pathc;

	if (n)
		globfree(&g);
	return n;
}

/* Groups of our instance, in whatever hierarchies there are; with a pattern for what is below
 * them, the sandboxes' own, made ahead or left. */
static inline unsigned
count_groups(const char *below)
{
	char pattern[128];
	unsigned n = 0;
	static const char *const depth[] = { "", "*/", "*/*/", "*/*/*/" };

	for (size_t i = 0; i < 4; i++) {
		snprintf(pattern, sizeof pattern, "/sys/fs/cgroup/%spratai-%s%s", depth[i], instance, below);
		n += count_glob(pattern);
	}
	return n;
}

static inline void
stop(void)
{
	int status;

	close(sp.fd);
	assert_int_equal(waitpid(sp.pid, &status, 0), sp.pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	close(sp.pidfd);
	assert_int_equal(count_groups(""), 0);
}

static inline int
one_layer(void **state)
{
	(void)state;
	start();
	return 0;
}

static inline int
stop_it(void **state)
{
	(void)state;
	stop();
	return 0;
}

static const char *const envp[] = { "PATH=/usr/bin:/bin", "SECRET=kept", NULL };

static inline struct spawn_request
request(uint64_t tag, const char *const *argv)
{
	struct spawn_request r = {
		.tag = tag, .argv = argv, .envp = envp, .workdir = "/tmp",
		.memory_bytes = 64 * MIB, .tmp_bytes = 16 * MIB, .timeout_ns = 30 * NS_PER_S * (unsigned)PATIENCE,
		.cpu_millis = 1000, .pids = 64, .stdio = { -1, -1, -1 }, .channel = -1,
	};

	return r;
}

static inline void
result(struct spawn_result *r)
{
	struct pollfd p = { .fd = sp.fd, .events = POLLIN };
	int rc;

	while ((rc = spawner_result(&sp, r, &e)) == 0)
		assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	if (rc < 0)
		fail_msg("spawner_result: %s", e.text);
}

static inline void
ask(const struct spawn_request *r)
{
	if (spawner_request(&sp, r, &e))
		fail_msg("spawner_request: %s", e.text);
}

/* Until a sandbox is made ahead: it has a group beside the four that are for none yet. */
static inline void
await_held(void)
{
	uint64_t end = clock_mono_ns() + (uint64_t)WAIT_MS * NS_PER_MS;

	while (count_groups("/[0-9]*/") <= 4 * count_groups("") && clock_mono_ns() < end)
		usleep(10000);
	assert_true(count_groups("/[0-9]*/") > 4 * count_groups(""));
}

/* Runs sh -c script; what it wrote to stdout. */
static inline struct spawn_result
run(struct spawn_request r, const char *script, char *out, size_t size)
{
	const char *argv[] = { "/bin/sh", "-c", script, NULL };
	struct spawn_result res;
	int fds[2];
	ssize_t n;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	r.argv = argv;
	r.stdio[1] = r.stdio[2] = fds[1];
	ask(&r);
	close(fds[1]);
	n = fd_read_all(fds[0], out, size - 1);
	assert_true(n >= 0);
	out[n] = '\0';
	close(fds[0]);
	result(&res);
	return res;
}

static inline bool
has_step(const struct spawn_result *r, const char *name)
{
	for (unsigned i = 0; i < r->step_count; i++)
		if (!strcmp(r->steps[i].name, name))
			return true;
	return false;
}

/* By a sandbox that was made ahead; with its root. */
static inline bool
was_held(const struct spawn_result *r)
{
	assert_true(r->step_count > 0);
	return !has_step(r, "clone");
}

static inline bool
had_root(const struct spawn_result *r)
{
	return was_held(r) && !has_step(r, "trees");
}

/* ---- The world around ---- */

static inline void
put_file(const char *path, const char *text)
{
	char parent[256];

	snprintf(parent, sizeof parent, "%.*s", (int)(strrchr(path, '/') - path), path);
	assert_int_equal(dir_make(store, parent, 0755, &e), 0);
	assert_int_equal(file_replace(store, path, 0644, text, strlen(text), &e), 0);
}

static inline int
set_up(void **state)
{
	(void)state;
	umask(022);
	assert_true(readlink("/proc/self/exe", program, sizeof program - 64) > 0);
	/* build/tests/unit/test_spawner: three up. */
	for (int i = 0; i < 3; i++)
		*strrchr(program, '/') = '\0';
	strcat(program, "/pratai-spawner");
	strcpy(dir, "/tmp/test_spawner.XXXXXX");
	assert_non_null(mkdtemp(dir));
	assert_int_equal(chmod(dir, 0755), 0);
	store = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	snprintf(instance, sizeof instance, "t%d", (int)getpid());
	snprintf(runtimes, sizeof runtimes, "%s/runtimes", dir);
	put_file("layers/sha256/00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff/"
		 "function/code", "from the layer\n");
	put_file("runtimes/test1/layer/opt/runtime", "from the runtime\n");
	setenv("PIP_TEST_UNIT", "1", 1);
	if (host_prepare(store, &e))
		fail_msg("host_prepare: %s", e.text);
	return 0;
}

static inline int
tear_down(void **state)
{
	(void)state;
	close(store);
	return dir_remove(AT_FDCWD, dir, &e);
}

#endif
