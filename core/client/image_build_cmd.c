/*
 * image-build: another program builds (core/build/recipe_main.c), since it starts sandboxes; here
 * are its options, and the record of the image that came of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/json.h"
#include "core/base/str.h"
#include "core/client/client.h"
#include "core/client/image_record.h"
#include "core/client/program.h"
#include "rootfs/store.h"

enum { ANSWER_MAX = 4096 };

struct limits {
	char memory[24], disk[24], timeout[24];
};

static int
read_limits(struct client *c, struct limits *l, struct err *e)
{
	uint64_t memory, disk, timeout;

	if (str_size("--memory", opt_get(&c->v, "memory"), 64 << 20, 1ull << 50, &memory, e) ||
	    str_size("--disk", opt_get(&c->v, "disk"), 1 << 20, 1ull << 50, &disk, e) ||
	    str_duration("--timeout", opt_get(&c->v, "timeout"), NS_PER_S, 7 * 86400 * NS_PER_S, &timeout, e))
		return -1;
	snprintf(l->memory, sizeof l->memory, "%llu", (unsigned long long)memory);
	snprintf(l->disk, sizeof l->disk, "%llu", (unsigned long long)disk);
	snprintf(l->timeout, sizeof l->timeout, "%llu", (unsigned long long)(timeout / NS_PER_MS));
	return 0;
}

/* In our process group, so that a terminal's ^C ends the build, which then cleans up; we wait. */
static int
start(char *const argv[], int out, pid_t *pid, struct err *e)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t defaults;
	int rc;

	sigemptyset(&defaults);
	sigaddset(&defaults, SIGINT);
	sigaddset(&defaults, SIGQUIT);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setsigdefault(&attributes, &defaults);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
	signal(SIGINT, SIG_IGN);
	signal(SIGQUIT, SIG_IGN);
	rc = posix_spawn(pid, argv[0], &actions, &attributes, argv, environ);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	errno = rc;
	return rc ? err_sys(e, ERR_NODE, "cannot execute %s", argv[0]) : 0;
}

/* 0, and what it said; 1: it has said why not on standard error; -1. */
static int
run(char *const argv[], struct buf *answer, struct err *e)
{
	int pipe_fds[2], status = 0, rc;
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC))
		return err_sys(e, ERR_NODE, "make a pipe");
	rc = start(argv, pipe_fds[1], &pid, e);
	close(pipe_fds[1]);
	if (rc == 0) {
		rc = fd_slurp(pipe_fds[0], "pratai-build", ANSWER_MAX, answer, e);
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		if (WIFEXITED(status) && WEXITSTATUS(status) == 1)
			rc = 1;
		else if (rc == 0 && status)
			rc = err_set(e, ERR_NODE, "pratai-build ended with status %d",
				     WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	}
	close(pipe_fds[0]);
	return rc;
}

static int
build(struct client *c, char *root, struct buf *answer, struct err *e)
{
	char program[PROGRAM_PATH_MAX];
	struct limits l;
	char *const argv[] = { program, root, (char *)(uintptr_t)opt_get(&c->v, "name"), c->v.operands[0],
			       l.memory, l.disk, l.timeout, NULL };

	return read_limits(c, &l, e) || image_check_name(argv[2], e) ||
			       program_find("pratai-build", program, e) ? -1 : run(argv, answer, e);
}

static int
print(struct client *c, const char *root, const struct buf *answer, struct err *e)
{
	static struct image image; /* large */
	struct image_store s = { .dir = -1, .lock = -1 };
	struct json *counts = json_parse(answer->data, answer->len, e);
	bool uploaded = false;
	char *text = NULL;
	const char *name = opt_get(&c->v, "name");
	int rc = !counts || image_store_open(&s, root, STORE_READ, NULL, e) ||
		 store_image(&s, name, &image, e) ? -1 : 0;

	image_store_close(&s);
	if (rc == 0)
		rc = client_upload_made(c, &image, &uploaded, e);
	if (rc == 0 && !(text = image_record_built(name, &image, json_int(counts, "steps", 0),
						   json_int(counts, "cached", 0), uploaded)))
		rc = err_set(e, ERR_NODE, "no memory");
	if (rc == 0)
		rc = render_record(&c->out, span_of(text, strlen(text)), "digest", e);
	free(text);
	image_free(&image);
	json_free(counts);
	return rc;
}

int
cmd_image_build(struct client *c)
{
	struct buf answer = { .max = ANSWER_MAX + 65536 };
	struct err e = { 0 };
	char root[PATH_MAX];
	int rc;

	if (!opt_given(&c->v, "name"))
		return client_usage("image-build needs --name REF (see: pratai help image-build)");
	rc = store_root(opt_get(&c->v, "root"), root, &e) ? -1 : build(c, root, &answer, &e);
	if (rc == 0)
		rc = print(c, root, &answer, &e);
	buf_free(&answer);
	return rc == 0 ? CLIENT_OK : rc == 1 ? CLIENT_REFUSED : client_fail(&e);
}
