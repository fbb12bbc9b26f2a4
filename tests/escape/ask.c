/*
 * `ask STORE DIGEST argv...`: a spawner with STORE as its own, and as its driver one request:
 * argv in a sandbox with the layer DIGEST, with our standard input and output.  Ends as the
 * command does, and with 125 and a sentence when there was none.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "rootfs/host.h"
#include "sandbox/spawner.h"

enum { FAILED = 125, WAIT_MS = 30000, UID_BASE = 0x78000000 };
#define MIB (1ull << 20)

static int
complain(const char *text)
{
	fprintf(stderr, "ask: %s\n", text);
	return FAILED;
}

static int
ask(struct spawner *sp, const char *digest, const char *const *argv, struct spawn_result *res,
    struct err *e)
{
	static const char *const envp[] = { "PATH=/usr/bin:/bin", NULL };
	const struct spawn_request r = {
		.tag = 1, .image = "host", .layers = { digest }, .layer_count = 1, .argv = argv,
		.envp = envp, .workdir = "/", .memory_bytes = 128 * MIB, .tmp_bytes = 16 * MIB,
		.timeout_ns = 20 * NS_PER_S, .cpu_millis = 1000, .pids = 64, .stdio = { 0, 1, 2 },
		.channel = -1,
	};
	struct pollfd p = { .fd = sp->fd, .events = POLLIN };
	int rc;

	if (spawner_request(sp, &r, e))
		return -1;
	while ((rc = spawner_result(sp, res, e)) == 0)
		if (poll(&p, 1, WAIT_MS) != 1)
			return err_set(e, ERR_NODE, "no result");
	return rc < 0 ? -1 : 0;
}

int
main(int argc, char **argv)
{
	char instance[17], program[4096], *slash;
	struct spawner_config c = {
		.runtimes = argv[1], .instance = instance, .uid_base = UID_BASE, .slots = 1,
		.memory_max_bytes = 128 * MIB, .tmp_max_bytes = 16 * MIB, .program = program,
	};
	struct spawn_result res;
	struct spawner sp;
	struct err e;
	ssize_t n;
	int rc;

	umask(022);
	n = readlink("/proc/self/exe", program, sizeof program - 32);
	if (argc < 4 || n < 0)
		return complain("STORE DIGEST COMMAND [ARGUMENT ...]");
	program[n] = '\0';
	for (int i = 0; i < 3 && (slash = strrchr(program, '/')); i++)
		*slash = '\0';
	strcat(program, "/pratai-spawner");
	snprintf(instance, sizeof instance, "e%d", (int)getpid());
	c.store_fd = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (c.store_fd < 0)
		return complain(strerror(errno));
	if (host_prepare(c.store_fd, &e) || spawner_start(&c, &sp, &e))
		return complain(e.text);
	rc = ask(&sp, argv[2], (const char *const *)(argv + 3), &res, &e);
	close(sp.fd);
	waitpid(sp.pid, NULL, 0);
	if (rc)
		return complain(e.text);
	if (res.reason == SPAWN_EXITED)
		return res.code;
	return res.reason == SPAWN_SIGNALED ? 128 + res.code : complain(res.text);
}
