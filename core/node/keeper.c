/*
 * One loop over the driver's socket and the ends of its children.  What takes long, taking an
 * image in and removing what nobody needs, is a child's work; it answers by itself.
 */
#include "core/node/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/queue.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/caps.h"
#include "core/base/clock.h"
#include "core/base/crypto.h"
#include "core/base/fdio.h"
#include "core/base/log.h"
#include "core/base/str.h"
#include "rootfs/image_import.h"
#include "rootfs/store.h"

enum { FD_DRIVER = 3, FD_UNPACK = 4, NAME_ROOM = 16 + SHA256_HEX_MAX };

struct held {
	char digest[SHA256_HEX_MAX];
	int layers[IMAGE_LAYERS_MAX];
	unsigned count;
	LIST_ENTRY(held) link;
};

struct child {
	pid_t pid;
	uint64_t tag;
	bool takes; /* an image in; else it removes */
};

struct state {
	const char *root;
	LIST_HEAD(, held) held;
	unsigned held_count;
	struct child children[KEEPER_TAKES_MAX + 1];
};

/* ---- Answers ---- */

static int
answer(uint64_t tag, const struct err *e, const uint8_t *lacking, int fd)
{
	struct keeper_answer a = { .magic = KEEPER_MAGIC, .tag = tag };
	struct iovec iov = { .iov_base = &a, .iov_len = sizeof a };
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof fd)];
	} control = { .head = { .cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET,
				.cmsg_type = SCM_RIGHTS } };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (e) {
		a.err_class = e->cls;
		memcpy(a.text, e->text, sizeof a.text);
	}
	if (lacking)
		memcpy(a.lacking, lacking, sizeof a.lacking);
	if (fd >= 0) {
		memcpy(CMSG_DATA(&control.head), &fd, sizeof fd);
		m.msg_control = control.space;
		m.msg_controllen = sizeof control.space;
	}
	do
		n = sendmsg(FD_DRIVER, &m, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)sizeof a ? 0 : -1;
}

/* ---- Images in use ---- */

static void
drop(struct state *s, struct held *h)
{
	for (unsigned i = 0; i < h->count; i++)
		close(h->layers[i]);
	LIST_REMOVE(h, link);
	s->held_count--;
	free(h);
}

static struct held *
find(struct state *s, const char *digest)
{
	struct held *h;

	LIST_FOREACH (h, &s->held, link)
		if (!strcmp(h->digest, digest))
			break;
	return h;
}

/* When it was last used, for the next start. */
static void
touch(struct image_store *store, const char *digest)
{
	char path[NAME_ROOM + 8];

	snprintf(path, sizeof path, "refs/fetched%%%.64s", digest);
	utimensat(store->dir, path, NULL, AT_SYMLINK_NOFOLLOW);
}

/* The record, opened; -1. */
static int
open_record(struct image_store *store, const char *digest, struct err *e)
{
	char path[96];
	int fd;

	snprintf(path, sizeof path, "records/%.64s", digest);
	fd = store->dir < 0 ? -1 : openat(store->dir, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? err_set(e, ERR_NOT_FOUND, "the image sha256:%.12s... is not in this node's store",
				digest)
		      : fd;
}

static int
take_layers(struct state *s, struct image_store *store, const char *digest, struct err *e)
{
	static struct image image; /* large */
	struct held *h = s->held_count < KEEPER_IMAGES_MAX ? calloc(1, sizeof *h) : NULL;
	int rc = h ? store_record(store, digest, &image, e)
		   : err_set(e, ERR_AGAIN, "more than %d images are in use", KEEPER_IMAGES_MAX);

	if (!h)
		return -1;
	memcpy(h->digest, digest, sizeof h->digest);
	LIST_INSERT_HEAD(&s->held, h, link);
	s->held_count++;
	for (unsigned i = 0; rc == 0 && i < image.layer_count; i++) {
		int fd = store_hold_layer(store, image.layers[i].key, e);

		if (fd < 0) { /* image-gc has taken some of it: it is to be fetched again */
			rc = -1;
			e->cls = ERR_NOT_FOUND;
		} else {
			h->layers[h->count++] = fd;
		}
	}
	image_free(&image);
	if (rc)
		drop(s, h);
	return rc;
}

static int
on_hold(struct state *s, uint64_t tag, const char *digest)
{
	struct image_store store;
	struct err e = { 0 };
	CLEAN_FD int record = -1;
	int rc = image_store_open(&store, s->root, STORE_READ, NULL, &e);

	if (rc == 0) {
		record = open_record(&store, digest, &e);
		rc = record < 0 ? -1 : find(s, digest) ? 0 : take_layers(s, &store, digest, &e);
		if (rc == 0)
			touch(&store, digest);
		image_store_close(&store);
	}
	return answer(tag, rc ? &e : NULL, NULL, rc ? -1 : record);
}

static int
on_lack(struct state *s, const struct keeper_ask *ask)
{
	uint8_t lacking[KEEPER_DIGESTS_MAX] = { 0 };
	struct image_store store;
	struct err e = { 0 };

	if (image_store_open(&store, s->root, STORE_READ, NULL, &e))
		return answer(ask->tag, &e, NULL, -1);
	for (uint32_t i = 0; i < ask->count; i++) {
		char path[96] = "blobs/sha256/";

		str_hex(ask->digests[i], 32, path + strlen(path));
		lacking[i] = store.dir < 0 || faccessat(store.dir, path, F_OK, AT_SYMLINK_NOFOLLOW);
	}
	image_store_close(&store);
	return answer(ask->tag, NULL, lacking, -1);
}

/* ---- Children ---- */

static void
fetched_name(const char *digest, char name[NAME_ROOM])
{
	snprintf(name, NAME_ROOM, "fetched/%.64s", digest);
}

static _Noreturn void
take(const struct state *s, uint64_t tag, const char *digest, int dir)
{
	static struct image image; /* large */
	char name[NAME_ROOM], program[32];
	struct image_import m = { .program = program, .source = dir, .name = name };
	struct image_store store;
	struct err e = { 0 };
	int rc;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	rc = image_store_open(&store, s->root, STORE_ADD, NULL, &e);

	fetched_name(digest, name);
	snprintf(program, sizeof program, "/proc/self/fd/%d", FD_UNPACK);
	if (rc == 0) {
		rc = image_import(&store, &m, &image, &e);
		image_store_close(&store);
	}
	_exit(answer(tag, rc ? &e : NULL, NULL, -1) ? 1 : 0);
}

static _Noreturn void
collect(const struct state *s)
{
	struct image_store store;
	struct store_gc done;
	struct err e = { 0 };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (image_store_open(&store, s->root, STORE_REMOVE, NULL, &e) || store_collect(&store, &done, &e)) {
		log_err("images that nobody needs could not be removed", &e);
		_exit(1);
	}
	_exit(0);
}

/* A place in the list; NULL: none is free. */
static struct child *
place_for(struct state *s, bool takes)
{
	struct child *free_one = NULL;
	unsigned same = 0;

	for (size_t i = 0; i < sizeof s->children / sizeof *s->children; i++) {
		if (!s->children[i].pid)
			free_one = &s->children[i];
		else
			same += s->children[i].takes == takes;
	}
	return same < (takes ? KEEPER_TAKES_MAX : 1) ? free_one : NULL;
}

static int
on_take(struct state *s, uint64_t tag, const char *digest, int dir)
{
	struct child *c = place_for(s, true);
	struct err e = { 0 };

	if (!c) {
		err_set(&e, ERR_AGAIN, "%d images are being taken in already", KEEPER_TAKES_MAX);
		return answer(tag, &e, NULL, -1);
	}
	*c = (struct child){ .pid = fork(), .tag = tag, .takes = true };
	if (c->pid == 0)
		take(s, tag, digest, dir);
	if (c->pid > 0)
		return 0;
	c->pid = 0;
	err_sys(&e, ERR_NODE, "fork");
	return answer(tag, &e, NULL, -1);
}

/* What no name leads to goes. */
static void
start_collecting(struct state *s)
{
	struct child *c = place_for(s, false);

	if (!c) /* one is at it, or all are busy: the next time does it */
		return;
	*c = (struct child){ .pid = fork() };
	if (c->pid == 0)
		collect(s);
	if (c->pid < 0)
		c->pid = 0;
}

/* Only the name that is ours: others that lead to the image are the operator's. */
static void
on_forget(struct state *s, const char *digest)
{
	struct image_store store;
	char name[NAME_ROOM];
	struct err e = { 0 };

	fetched_name(digest, name);
	if (image_store_open(&store, s->root, STORE_READ, NULL, &e)) {
		log_err("cannot forget an image", &e);
		return;
	}
	if (store_forget(&store, name, &e) && e.cls != ERR_NOT_FOUND)
		log_err("cannot forget an image", &e);
	image_store_close(&store);
	start_collecting(s);
}

/* Names of what an earlier process has fetched and not used lately. */
static void
forget_old(struct state *s)
{
	struct image_store store;
	struct err e = { 0 };
	char **names = NULL, path[NAME_ROOM + 8];
	size_t count = 0, gone = 0;
	struct stat st;

	if (image_store_open(&store, s->root, STORE_READ, NULL, &e) || store_names(&store, &names, &count, &e))
		log_err("cannot look through the images", &e);
	for (size_t i = 0; i < count; i++) {
		if (!str_starts(names[i], "fetched/") || !image_is_digest(names[i] + 8))
			continue;
		snprintf(path, sizeof path, "refs/fetched%%%s", names[i] + 8);
		if (!fstatat(store.dir, path, &st, AT_SYMLINK_NOFOLLOW) &&
		    clock_real_us() / US_PER_S - st.st_mtim.tv_sec > KEEPER_KEEP_S)
			gone += store_forget(&store, names[i], &e) == 0;
	}
	store_names_free(names, count);
	image_store_close(&store);
	if (gone)
		start_collecting(s);
}

/* -1: the driver is gone. */
static int
reap(struct state *s)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (size_t i = 0; i < sizeof s->children / sizeof *s->children; i++) {
			struct child *c = &s->children[i];
			struct err e = { 0 };

			if (c->pid != pid)
				continue;
			c->pid = 0;
			if (!c->takes || (WIFEXITED(status) && WEXITSTATUS(status) == 0))
				continue;
			err_set(&e, ERR_NODE, "the process that takes an image in was killed");
			if (answer(c->tag, &e, NULL, -1))
				return -1;
		}
	return 0;
}

/* ---- Messages ---- */

static bool
is_sound(const struct keeper_ask *ask, ssize_t len, int fd)
{
	struct stat st;

	if (len != (ssize_t)sizeof *ask || ask->magic != KEEPER_MAGIC || ask->zero ||
	    ask->count == 0 || ask->count > KEEPER_DIGESTS_MAX)
		return false;
	if (ask->type == KEEPER_TAKE)
		return ask->count == 1 && fd >= 0 && !fstat(fd, &st) && S_ISDIR(st.st_mode);
	return fd < 0 && (ask->type == KEEPER_LACK || ask->count == 1) && ask->type >= KEEPER_HOLD &&
	       ask->type <= KEEPER_FORGET;
}

static int
serve(struct state *s, const struct keeper_ask *ask, int fd)
{
	char digest[SHA256_HEX_MAX];
	struct held *h;

	str_hex(ask->digests[0], 32, digest);
	switch ((enum keeper_type)ask->type) {
	case KEEPER_HOLD: return on_hold(s, ask->tag, digest);
	case KEEPER_LACK: return on_lack(s, ask);
	case KEEPER_TAKE: return on_take(s, ask->tag, digest, fd);
	case KEEPER_FORGET: on_forget(s, digest); return 0;
	case KEEPER_RELEASE:
		h = find(s, digest);
		if (h)
			drop(s, h);
		return 0;
	}
	return -1;
}

/* -1: the driver is gone, or as good as. */
static int
on_message(struct state *s)
{
	static struct keeper_ask ask;
	struct iovec iov = { .iov_base = &ask, .iov_len = sizeof ask };
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	/* Room for one: the kernel closes what a sender adds to it. */
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space,
			    .msg_controllen = CMSG_LEN(sizeof(int)) };
	ssize_t n = recvmsg(FD_DRIVER, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
	int fd = -1, rc;

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (n <= 0)
		return -1;
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(c), sizeof fd);
	if (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC) || !is_sound(&ask, n, fd)) {
		log_error("the driver broke the protocol of images", NULL);
		rc = -1;
	} else {
		rc = serve(s, &ask, fd);
	}
	fd_close(&fd);
	return rc;
}

/* ---- The process ---- */

static int
give_up_powers(struct err *e)
{
	static const unsigned char keep[] = {
		CAP_SYS_ADMIN, /* mounts for the worker, its user namespace */
		CAP_SETUID, CAP_SETGID, CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_KILL,
		CAP_SETPCAP,
	};
	uint64_t mask = 0;

	for (size_t i = 0; i < sizeof keep; i++)
		mask |= 1ull << keep[i];
	if (unshare(CLONE_NEWNET | CLONE_NEWIPC))
		return err_sys(e, ERR_NODE, "leave the machine's network");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return err_sys(e, ERR_NODE, "forbid new privileges");
	return caps_keep(mask, e);
}

static int
watch_children(struct err *e)
{
	sigset_t chld;
	int fd;

	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_SETMASK, &chld, NULL);
	fd = signalfd(-1, &chld, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? err_sys(e, ERR_NODE, "signalfd") : fd;
}

static void
loop(struct state *s, int signals)
{
	for (;;) {
		struct pollfd p[2] = { { .fd = FD_DRIVER, .events = POLLIN },
				       { .fd = signals, .events = POLLIN } };
		struct signalfd_siginfo info;

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return;
		if (p[1].revents) {
			while (read(signals, &info, sizeof info) > 0)
				;
			if (reap(s))
				return;
		}
		if (p[0].revents && on_message(s))
			return;
	}
}

/* What is being taken in is not wanted any more; the store sweeps what is left of it. */
static void
end_children(struct state *s)
{
	for (size_t i = 0; i < sizeof s->children / sizeof *s->children; i++)
		if (s->children[i].pid) {
			kill(s->children[i].pid, SIGKILL); /* ours, not yet waited for */
			waitpid(s->children[i].pid, NULL, 0);
		}
}

int
keeper_main(const char *root)
{
	static struct state s;
	struct err e = { 0 };
	int signals;

	log_open("keeper", LOG_INFO);
	prctl(PR_SET_NAME, "pratai-keeper");
	s.root = root;
	LIST_INIT(&s.held);
	umask(022);
	signals = prctl(PR_SET_PDEATHSIG, SIGKILL) || crypto_init(&e) || give_up_powers(&e)
			  ? -1
			  : watch_children(&e);
	if (signals < 0) {
		log_err("the keeper of images cannot start", &e);
		return 1;
	}
	if (fcntl(FD_DRIVER, F_SETFD, FD_CLOEXEC) || fcntl(FD_UNPACK, F_SETFD, FD_CLOEXEC))
		return 1;
	forget_old(&s);
	loop(&s, signals);
	end_children(&s);
	return 0;
}

/* ---- Its start ---- */

static _Noreturn void
become(const char *root, int self_fd, int unpack_fd, int socket)
{
	char *const argv[] = { (char *)(uintptr_t)"pratai-node", (char *)(uintptr_t)KEEPER_WORD,
			       (char *)(uintptr_t)root, NULL };
	char *const envp[] = { NULL };
	int keep[] = { FD_DRIVER, FD_UNPACK, 0 };

	/* Above those that they become. */
	socket = fcntl(socket, F_DUPFD_CLOEXEC, FD_UNPACK + 1);
	unpack_fd = fcntl(unpack_fd, F_DUPFD_CLOEXEC, FD_UNPACK + 1);
	self_fd = fcntl(self_fd, F_DUPFD_CLOEXEC, FD_UNPACK + 1);
	if (dup2(socket, FD_DRIVER) < 0 || dup2(unpack_fd, FD_UNPACK) < 0)
		_exit(1);
	keep[2] = self_fd; /* O_CLOEXEC */
	if (fd_close_but(keep, 3))
		_exit(1);
	syscall(SYS_execveat, self_fd, "", argv, envp, AT_EMPTY_PATH);
	_exit(1);
}

int
keeper_start(const char *root, int self_fd, int unpack_fd, struct keeper *out, struct err *e)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return err_sys(e, ERR_NODE, "make a socket");
	*out = (struct keeper){ .fd = pair[0], .pid = fork(), .pidfd = -1 };
	if (out->pid == 0)
		become(root, self_fd, unpack_fd, pair[1]);
	close(pair[1]);
	if (out->pid > 0)
		out->pidfd = pidfd_open(out->pid, 0);
	if (out->pid < 0 || out->pidfd < 0 || fd_set_nonblocking(out->fd)) {
		err_sys(e, ERR_NODE, "start the keeper of images");
		fd_close(&out->fd);
		return -1;
	}
	return 0;
}
