/*
 * A package on its way in: copied out of the request into a file without a name, checked
 * by the helper program (this process never parses an archive, and never waits for one),
 * then kept as a blob.
 */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/api/internal.h"
#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/json.h"
#include "core/base/str.h"
#include "netio/loop.h"

enum { VERDICT_MAX = 64 << 10 };

struct check {
	struct api *api;
	int file;   /* the zip */
	int pipe;   /* the helper's stdout */
	struct loop_fd *watch;
	struct buf verdict;
	bool ended, read_all;
	int code, status;
	struct package_info info;
	package_fn fn;
	void *arg;
};

static void
finish(struct check *k, const struct err *e)
{
	k->fn(k->arg, e ? NULL : &k->info, e);
	loop_fd_remove(k->watch);
	fd_close(&k->file);
	fd_close(&k->pipe);
	buf_free(&k->verdict);
	free(k);
}

static void
on_stored(void *arg, const struct store_answer *a, const struct err *e)
{
	(void)a;
	finish(arg, e);
}

static int
read_verdict(struct check *k, struct err *e)
{
	struct json *j;
	const char *digest;
	int rc;

	if (k->code != CLD_EXITED || k->status > 1)
		return err_set(e, ERR_AGAIN, "the package could not be checked: %.300s",
			       k->verdict.len ? k->verdict.data : "the checker died");
	if (k->status == 1) {
		for (char *p = k->verdict.data; p && *p; p++)
			if (*p == '\n')
				*p = '\0';
		return err_set(e, ERR_INPUT, "%s", k->verdict.len ? k->verdict.data : "not a package");
	}
	j = json_parse(k->verdict.data, k->verdict.len, e);
	if (!j)
		return err_wrap(e, "the package's check");
	digest = json_str(j, "sha256");
	rc = digest && strlen(digest) == 64 ? str_copy(k->info.digest, sizeof k->info.digest, digest)
					    : err_set(e, ERR_AGAIN, "the package's check gave no digest");
	json_free(j);
	return rc;
}

static void
proceed(struct check *k)
{
	struct err e;

	if (!k->ended || !k->read_all)
		return;
	if (read_verdict(k, &e))
		finish(k, &e);
	else
		store_blob_put(k->api->config.store, k->info.digest, k->file, on_stored, k);
}

static void
on_output(void *arg, uint32_t events)
{
	struct check *k = arg;
	char bytes[4096];
	ssize_t n = read(k->pipe, bytes, sizeof bytes);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0) {
		if (k->verdict.len + (size_t)n <= VERDICT_MAX)
			buf_put(&k->verdict, bytes, (size_t)n);
		return;
	}
	loop_fd_remove(k->watch);
	k->watch = NULL;
	k->read_all = true;
	proceed(k);
}

static void
on_child(void *arg, pid_t pid, int code, int status)
{
	struct check *k = arg;

	(void)pid;
	k->ended = true;
	k->code = code;
	k->status = status;
	proceed(k);
}

static int
start_helper(struct check *k, struct err *e)
{
	char *argv[] = { (char *)(uintptr_t)"pratai-unpack", (char *)(uintptr_t)"check", NULL };
	char *envp[] = { (char *)(uintptr_t)"LANG=C.UTF-8", NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none;
	int out[2], rc;
	pid_t pid;

	if (pipe2(out, O_CLOEXEC))
		return err_sys(e, ERR_NODE, "pipe");
	k->pipe = out[0];
	fd_set_nonblocking(k->pipe);
	sigemptyset(&none);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, k->file, 0);
	posix_spawn_file_actions_adddup2(&actions, out[1], 1);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
	posix_spawnattr_setsigmask(&attributes, &none);
	rc = posix_spawn(&pid, k->api->config.unpack_path, &actions, &attributes, argv, envp);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attributes);
	close(out[1]);
	if (rc) {
		errno = rc;
		return err_sys(e, ERR_NODE, "start %s", k->api->config.unpack_path);
	}
	k->watch = loop_fd_add(k->api->config.loop, k->pipe, EPOLLIN, on_output, k, e);
	if (!k->watch)
		return -1;
	return loop_child(k->api->config.loop, pid, on_child, k, e);
}

void
package_store(struct api *a, const void *zip, size_t len, package_fn fn, void *arg)
{
	struct check *k = calloc(1, sizeof *k);
	struct err e;

	if (!k) {
		err_set(&e, ERR_AGAIN, "out of memory");
		fn(arg, NULL, &e);
		return;
	}
	k->api = a;
	k->fn = fn;
	k->arg = arg;
	k->pipe = -1;
	k->info.bytes = len;
	k->file = openat(a->config.spool_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (k->file < 0) {
		err_sys(&e, ERR_AGAIN, "the package could not be kept");
		finish(k, &e);
		return;
	}
	if (fd_write_all(k->file, zip, len) || lseek(k->file, 0, SEEK_SET)) {
		err_sys(&e, ERR_AGAIN, "the package could not be kept");
		finish(k, &e);
		return;
	}
	if (start_helper(k, &e))
		finish(k, &e);
}
