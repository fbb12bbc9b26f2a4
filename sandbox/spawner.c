/*
 * The driver's side of the spawner: it is started here, while still root, and asked by
 * messages.  What runs in the spawner is a program of its own, spawner_main.c.
 */
#include "sandbox/spawner.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/fdio.h"
#include "core/base/probe.h"
#include "core/base/str.h"
#include "sandbox/cgroup.h"
#include "sandbox/sandbox.h"
#include "sandbox/spawner_process.h"
#include "sandbox/tree.h"
#include "sandbox/wire.h"

static int
check_config(const struct spawner_config *c, struct err *e)
{
	uint64_t last = (uint64_t)c->uid_base + (uint64_t)(c->slots + SPAWN_SPARE_MAX) * SANDBOX_IDS;
	size_t n = strlen(c->instance);

	if (geteuid() != 0)
		return err_set(e, ERR_NODE, "the spawner must be started by root");
	if (c->slots == 0 || c->slots > SPAWN_LIVE_MAX)
		return err_set(e, ERR_INPUT, "slots: %u is not from 1 to %d", c->slots, SPAWN_LIVE_MAX);
	if (c->uid_base < SANDBOX_IDS || last > UINT32_MAX)
		return err_set(e, ERR_INPUT, "uid base %u does not leave room for %u slots", c->uid_base,
			       c->slots);
	if (c->image_ids && c->image_ids < last && (uint64_t)c->image_ids + SANDBOX_IDS > c->uid_base)
		return err_set(e, ERR_INPUT, "uid base %u: images' files have some of its ids", c->uid_base);
	if (n == 0 || n >= CGROUP_INSTANCE_MAX || !wire_is_name(c->instance) ||
	    !strcmp(c->instance, CGROUP_INSTANCE_RUN))
		return err_set(e, ERR_INPUT, "instance '%.20s' is not [a-z0-9]{1,16}", c->instance);
	return 0;
}

/* The first message on the ready pipe is the spawner's struct err: class NONE, or why not. */
static int
wait_ready(int fd, struct err *e)
{
	struct err said;

	if (fd_read_all(fd, &said, sizeof said) != (ssize_t)sizeof said)
		return err_set(e, ERR_NODE, "the spawner died while it started");
	if (said.cls == ERR_NONE)
		return 0;
	said.text[sizeof said.text - 1] = said.step[sizeof said.step - 1] = '\0';
	if (e)
		*e = said;
	return -1;
}

static pid_t
clone_spawner(int *pidfd)
{
	struct clone_args args = {
		.flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_PIDFD,
		.pidfd = (uint64_t)(uintptr_t)pidfd,
		.exit_signal = SIGCHLD,
	};

	if (!probe_has(PROBE_CLONE3))
		return (pid_t)syscall(SYS_clone, args.flags | SIGCHLD, NULL, pidfd, NULL, 0);
	return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

/* The program, beside ours, or in PREFIX/lib/pratai when ours is in PREFIX/bin. */
static int
open_program(const struct spawner_config *c, struct err *e)
{
	static const char *const places[] = { "pratai-spawner", "../lib/pratai/pratai-spawner" };
	char self[PATH_MAX - 64], path[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	int fd = -1;

	if (c->program) {
		fd = open(c->program, O_PATH | O_CLOEXEC);
		return fd < 0 ? err_sys(e, ERR_NODE, "open %s", c->program) : fd;
	}
	if (n <= 0 || n == (ssize_t)sizeof self - 1)
		return err_set(e, ERR_NODE, "cannot tell where this program is");
	self[n] = '\0';
	*strrchr(self, '/') = '\0';
	for (size_t i = 0; fd < 0 && i < sizeof places / sizeof places[0]; i++) {
		snprintf(path, sizeof path, "%s/%s", self, places[i]);
		fd = open(path, O_PATH | O_CLOEXEC);
	}
	return fd < 0 ? err_sys(e, ERR_NODE, "find pratai-spawner beside %s", self) : fd;
}

/* The configuration as bytes, in a memfd at its start. */
static int
make_boot(const struct spawner_config *c, struct err *e)
{
	struct spawner_boot b = {
		.magic = SPAWNER_BOOT_MAGIC,
		.uid_base = (uint32_t)c->uid_base,
		.slots = c->slots,
		.image_ids = c->image_ids,
		.build_network = c->build_network,
		.egress = c->egress,
		.allow = c->allow ? *c->allow : (struct net_rules){ .count = 0 },
		.memory_max_bytes = c->memory_max_bytes,
		.tmp_max_bytes = c->tmp_max_bytes,
	};
	CLEAN_FD int fd = -1;

	if (str_copy(b.instance, sizeof b.instance, c->instance) ||
	    !realpath(c->runtimes, b.runtimes) ||
	    str_copy(b.cgroup_root, sizeof b.cgroup_root, c->cgroup_root ? c->cgroup_root : ""))
		return err_sys(e, ERR_INPUT, "runtimes %s", c->runtimes);
	fd = memfd_create("pratai-boot", MFD_CLOEXEC);
	if (fd < 0 || fd_write_all(fd, &b, sizeof b) || lseek(fd, 0, SEEK_SET))
		return err_sys(e, ERR_NODE, "write the spawner's configuration");
	return fd_steal(&fd);
}

/* In the child: the descriptors at their numbers, then the program.  Its starter learns of
 * a failure by the end of the ready pipe. */
static _Noreturn void
exec_spawner(int program, const int fds[SPAWNER_FD_END])
{
	static char name[] = "pratai-spawner", empty[] = "";
	char *const argv[] = { name, NULL };
	int high[SPAWNER_FD_END];

	program = fcntl(program, F_DUPFD_CLOEXEC, 32);
	for (int i = SPAWNER_FD_DRIVER; i < SPAWNER_FD_END; i++)
		high[i] = fds[i] < 0 ? -1 : fcntl(fds[i], F_DUPFD_CLOEXEC, 32);
	for (int i = SPAWNER_FD_DRIVER; i < SPAWNER_FD_END; i++) {
		if (high[i] < 0)
			close(i);
		else if (dup2(high[i], i) < 0)
			_exit(1);
	}
	syscall(SYS_execveat, program, empty, argv, environ, AT_EMPTY_PATH);
	_exit(1);
}

static int
wait_start(struct spawner *out, int ready, struct err *e)
{
	if (wait_ready(ready, e) == 0)
		return 0;
	pidfd_send_signal(out->pidfd, SIGKILL, NULL, 0);
	waitpid(out->pid, NULL, 0);
	fd_close(&out->pidfd);
	return -1;
}

/*
 * In a service's own group (Delegate=yes) the processes that are there move to a leaf below
 * it.  The spawner could not move them: its pid namespace does not see them.
 */
static int
make_room(const struct spawner_config *c, struct err *e)
{
	struct cgroup_manager *m = spawner_cgroups(c->instance, c->cgroup_root, e);

	cgroup_manager_free(m);
	return m ? 0 : -1;
}

int
spawner_start(const struct spawner_config *config, struct spawner *out, struct err *e)
{
	int fds[SPAWNER_FD_END] = { -1, -1, -1, -1, -1, -1, -1, -1 };
	int pair[2] = { -1, -1 }, ready[2] = { -1, -1 }, program, rc = -1;

	*out = (struct spawner){ .fd = -1, .pid = -1, .pidfd = -1 };
	if (check_config(config, e) || make_room(config, e) ||
	    (program = open_program(config, e)) < 0)
		return -1;
	/* A descriptor of this mount namespace cannot be mounted in another one; a detached
	 * copy can. */
	fds[SPAWNER_FD_STORE] = tree_clone(config->store_fd, "", true);
	fds[SPAWNER_FD_BOOT] = make_boot(config, e);
	if (config->build_network || config->egress)
		fds[SPAWNER_FD_NETNS] = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (fds[SPAWNER_FD_BOOT] < 0)
		goto out;
	if (fds[SPAWNER_FD_STORE] < 0) {
		err_sys(e, ERR_NODE, "copy the mount of the store");
		goto out;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) ||
	    pipe2(ready, O_CLOEXEC)) {
		err_sys(e, ERR_NODE, "make the spawner's socket");
		goto out;
	}
	fds[SPAWNER_FD_DRIVER] = pair[1];
	fds[SPAWNER_FD_READY] = ready[1];
	out->pid = clone_spawner(&out->pidfd);
	if (out->pid == 0)
		exec_spawner(program, fds);
	fd_close(&pair[1]);
	fd_close(&ready[1]);
	rc = out->pid < 0 ? err_sys(e, ERR_NODE, "fork the spawner") : wait_start(out, ready[0], e);
	if (rc == 0)
		out->fd = fd_steal(&pair[0]);
out:
	close(program);
	for (int i = 0; i < 2; i++) {
		fd_close(&pair[i]);
		fd_close(&ready[i]);
	}
	fd_close(&fds[SPAWNER_FD_STORE]);
	fd_close(&fds[SPAWNER_FD_BOOT]);
	fd_close(&fds[SPAWNER_FD_NETNS]);
	return rc;
}

/* ---- Requests ---- */

static int
count(const char *const *list, uint32_t *n, size_t *bytes)
{
	for (*n = 0; list && list[*n]; (*n)++) {
		*bytes += strlen(list[*n]) + 1;
		if (*n == WIRE_ARGS_MAX || *bytes > SPAWN_STRINGS_MAX)
			return -1;
	}
	return 0;
}

static int
put(int fd, const char *s)
{
	return fd_write_all(fd, s, strlen(s) + 1);
}

/* The strings in a memfd that nobody can change any more. */
static int
make_strings(const struct spawn_request *r, struct wire_request *w, struct err *e)
{
	size_t bytes = strlen(r->workdir) + 1;
	CLEAN_FD int fd = -1;

	if (count(r->argv, &w->argc, &bytes) || count(r->envp, &w->envc, &bytes) ||
	    bytes > SPAWN_STRINGS_MAX) {
		err_set(e, ERR_INPUT, "arguments and environment exceed %d bytes or %d entries",
			SPAWN_STRINGS_MAX, WIRE_ARGS_MAX);
		return -1;
	}
	w->strings_bytes = (uint32_t)bytes;
	fd = memfd_create("pratai-request", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0) {
		err_sys(e, ERR_NODE, "memfd_create");
		return -1;
	}
	for (uint32_t i = 0; i < w->argc; i++)
		if (put(fd, r->argv[i]))
			goto failed;
	for (uint32_t i = 0; i < w->envc; i++)
		if (put(fd, r->envp[i]))
			goto failed;
	if (put(fd, r->workdir) ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE))
		goto failed;
	return fd_steal(&fd);
failed:
	err_sys(e, ERR_NODE, "write the request's strings");
	return -1;
}

static int
fill_digest(const char *hex, uint8_t out[32], struct err *e)
{
	return str_unhex(hex, out, 32) ? err_set(e, ERR_INPUT, "layer '%.70s' is not a sha256 digest", hex)
				       : 0;
}

static int
fill_request(const struct spawn_request *r, struct wire_request *w, struct err *e)
{
	wire_head_set(&w->head, WIRE_REQUEST);
	w->tag = r->tag;
	w->memory_bytes = r->memory_bytes;
	w->tmp_bytes = r->tmp_bytes;
	w->timeout_ns = r->timeout_ns;
	w->cpu_millis = r->cpu_millis;
	w->pids = r->pids;
	w->network = r->network;
	if (r->allow)
		w->allow = *r->allow;
	if (str_copy(w->runtime, sizeof w->runtime, r->runtime ? r->runtime : ""))
		return err_set(e, ERR_INPUT, "runtime: the name is too long");
	if (r->layer_count > SPAWN_LAYERS_MAX)
		return err_set(e, ERR_INPUT, "more than %d layers", SPAWN_LAYERS_MAX);
	w->layer_count = r->layer_count;
	for (unsigned i = 0; i < r->layer_count; i++)
		if (fill_digest(r->layers[i], w->layers[i], e))
			return -1;
	if (r->image && (r->image->layer_count == 0 || r->image->layer_count > SPAWN_IMAGE_MAX))
		return err_set(e, ERR_INPUT, "image: not 1 to %d layers", SPAWN_IMAGE_MAX);
	w->image_count = r->image ? r->image->layer_count : 0;
	for (unsigned i = 0; i < w->image_count; i++)
		if (fill_digest(r->image->layers[i], w->image[i], e))
			return -1;
	return 0;
}

static int
send_message(int fd, const void *data, size_t len, const int *fds, unsigned fd_count, struct err *e)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)data, .iov_len = len };
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int) * WIRE_FDS_MAX)];
	} control = { 0 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (fd_count) {
		m.msg_control = control.space;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
		control.head = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int) * fd_count),
						 .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
		memcpy(CMSG_DATA(&control.head), fds, sizeof(int) * fd_count);
	}
	do
		n = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n == (ssize_t)len)
		return 0;
	if (errno == EAGAIN || errno == ENOBUFS)
		return err_set(e, ERR_AGAIN, "the spawner is busy");
	return err_sys(e, ERR_NODE, "ask the spawner");
}

int
spawner_request(struct spawner *s, const struct spawn_request *r, struct err *e)
{
	struct wire_request w = { 0 };
	int fds[WIRE_FDS_MAX];
	unsigned n = 1;
	CLEAN_FD int strings = -1;

	if (fill_request(r, &w, e))
		return -1;
	if (!r->argv || !r->argv[0] || r->argv[0][0] != '/')
		return err_set(e, ERR_INPUT, "the command is not an absolute path");
	strings = make_strings(r, &w, e);
	if (strings < 0)
		return -1;
	fds[0] = strings;
	for (int i = 0; i < 4; i++) {
		int fd = i < 3 ? r->stdio[i] : r->channel;

		if (fd >= 0) {
			w.fds |= 1u << i;
			fds[n++] = fd;
		}
	}
	return send_message(s->fd, &w, sizeof w, fds, n, e);
}

int
spawner_kill(struct spawner *s, uint64_t tag, enum spawn_kill why, struct err *e)
{
	struct wire_kill w = { .tag = tag, .why = why };

	wire_head_set(&w.head, WIRE_KILL);
	return send_message(s->fd, &w, sizeof w, NULL, 0, e);
}

int
spawner_result(struct spawner *s, struct spawn_result *out, struct err *e)
{
	struct wire_result w;
	ssize_t n;

	do
		n = recv(s->fd, &w, sizeof w, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return 0;
	if (n == 0 || (n < 0 && errno == ECONNRESET))
		return err_set(e, ERR_NODE, "the spawner is gone");
	if (n < 0)
		return err_sys(e, ERR_NODE, "hear from the spawner");
	if (n != (ssize_t)sizeof w || w.head.magic != WIRE_MAGIC || w.head.version != WIRE_VERSION ||
	    w.head.type != WIRE_RESULT || w.result.step_count > SPAWN_STEPS_MAX)
		return err_set(e, ERR_NODE, "the spawner sent what is not a result");
	*out = w.result;
	return 1;
}
