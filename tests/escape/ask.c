/*
 * `ask STORE DIGEST SPAWNER`: the program SPAWNER with STORE as its own, and we its driver.
 *
 * Standard input is a SEQPACKET socket.  A message asks for one sandbox with the layer DIGEST:
 * "TAG", "WORKDIR", "NAME=VALUE" for its environment and the words of its command, each ended by
 * NUL, with its three standard descriptors.  When it has ended, "TAG CODE SENTENCE" comes back:
 * the code is the command's as a shell gives it, and 125 where there was none, and why.  The
 * socket's end is ours and the spawner's.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "rootfs/host.h"
#include "sandbox/spawner.h"

enum { FAILED = 125, WORDS_MAX = 64, UID_BASE = 0x78000000, SLOTS = 8 };
#define MIB (1ull << 20)

static int
complain(const char *text)
{
	fprintf(stderr, "ask: %s\n", text);
	return FAILED;
}

/* The words of a message and its descriptors: how many words; 0: the end. */
static unsigned
hear(char *text, size_t size, const char **words, int fds[3])
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(3 * sizeof(int))];
	} control;
	struct iovec io = { text, size - 1 };
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = &control,
			    .msg_controllen = sizeof control };
	ssize_t n = recvmsg(0, &m, MSG_CMSG_CLOEXEC);
	const struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	unsigned count = 0;

	if (n <= 0 || !c || c->cmsg_len != CMSG_LEN(3 * sizeof(int)))
		return 0;
	memcpy(fds, CMSG_DATA(c), 3 * sizeof(int));
	text[n] = '\0';
	for (const char *at = text; at < text + n && count < WORDS_MAX; at += strlen(at) + 1)
		words[count++] = at;
	words[count] = NULL;
	return count;
}

/* 1; 0: nobody asks any more; -1 with e. */
static int
ask(struct spawner *sp, const char *digest, struct err *e)
{
	char text[8192];
	const char *words[WORDS_MAX + 1];
	const char *envp[] = { "PATH=/usr/bin:/bin", NULL, NULL };
	struct spawn_request r = {
		.layers = { digest }, .layer_count = 1, .argv = words + 3, .envp = envp,
		.memory_bytes = 128 * MIB, .tmp_bytes = 16 * MIB, .timeout_ns = 60 * NS_PER_S,
		.cpu_millis = 1000, .pids = 64, .channel = -1,
	};
	int rc;

	if (hear(text, sizeof text, words, r.stdio) < 4)
		return 0;
	r.tag = strtoull(words[0], NULL, 10);
	r.workdir = words[1];
	envp[1] = words[2];
	rc = spawner_request(sp, &r, e);
	for (int i = 0; i < 3; i++)
		close(r.stdio[i]);
	return rc ? -1 : 1;
}

static int
answer(const struct spawn_result *r)
{
	char text[512];
	int code = r->reason == SPAWN_EXITED	 ? r->code
		   : r->reason == SPAWN_SIGNALED ? 128 + r->code
		   : r->reason == SPAWN_TIMEOUT	 ? 124
		   : r->reason == SPAWN_MEMORY_EXCEEDED ? 137
							: FAILED;

	snprintf(text, sizeof text, "%" PRIu64 " %d %s", r->tag, code,
		 r->reason == SPAWN_SETUP_FAILED ? r->text : "");
	return send(0, text, strlen(text), MSG_NOSIGNAL) < 0 ? -1 : 0;
}

static int
serve(struct spawner *sp, const char *digest, struct err *e)
{
	struct pollfd p[] = { { .fd = 0, .events = POLLIN }, { .fd = sp->fd, .events = POLLIN } };
	struct spawn_result res;
	int rc;

	for (;;) {
		if (poll(p, 2, -1) < 0)
			return err_sys(e, ERR_NODE, "wait");
		while ((rc = spawner_result(sp, &res, e)) == 1)
			if (answer(&res))
				return err_sys(e, ERR_NODE, "answer");
		if (rc < 0)
			return -1;
		if (p[0].revents && (rc = ask(sp, digest, e)) <= 0)
			return rc;
	}
}

int
main(int argc, char **argv)
{
	char instance[17];
	struct spawner_config c = {
		.instance = instance, .uid_base = UID_BASE, .slots = SLOTS,
		.memory_max_bytes = 128 * MIB, .tmp_max_bytes = 16 * MIB,
	};
	struct spawner sp;
	struct err e;
	int rc, status = 0;

	umask(022);
	if (argc != 4)
		return complain("STORE DIGEST SPAWNER");
	c.runtimes = argv[1];
	c.program = argv[3];
	snprintf(instance, sizeof instance, "e%d", (int)getpid());
	c.store_fd = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (c.store_fd < 0)
		return complain(strerror(errno));
	if (host_prepare(c.store_fd, &e) || spawner_start(&c, &sp, &e))
		return complain(e.text);
	rc = serve(&sp, argv[2], &e);
	close(sp.fd);
	if (rc)
		return complain(e.text);
	return waitpid(sp.pid, &status, 0) == sp.pid && !status ? 0 : complain("the spawner failed");
}
