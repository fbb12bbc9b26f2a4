#include "rootfs/image_worker.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/str.h"
#include "rootfs/image.h"
#include "rootfs/store.h"

enum { KEPT = 6, OUTPUT_LINE_MAX = 256 };

struct worker {
	pid_t pid;
	int out;    /* what it prints */
	int broker; /* what it asks for; -1: nothing */
	int go;
	struct buf line;  /* of progress */
	struct buf *text; /* the rest */
	bool text_began;
};

/* ---- In the child, before exec: async-signal-safe calls only ---- */

struct start {
	int program, temp, store, out, broker, go;
	pid_t parent;
	bool owners; /* its namespace is root's */
};

static _Noreturn void
become(const struct image_worker *m, const struct start *c)
{
	const int from[KEPT] = { m->source, c->out, STDERR_FILENO, c->temp, c->store, c->broker };
	char *const argv[] = { (char *)(uintptr_t)"pratai-unpack", (char *)(uintptr_t)m->verb,
			       (char *)(uintptr_t)m->word,
			       (char *)(uintptr_t)(c->owners ? "owners" : "plain"), NULL };
	char *const envp[] = { NULL };
	int moved[KEPT], program;
	sigset_t none;
	char byte;

	/* Above those that they become. */
	for (int i = 0; i < KEPT; i++)
		moved[i] = from[i] < 0 ? -1 : fcntl(from[i], F_DUPFD_CLOEXEC, KEPT + 2);
	program = fcntl(c->program, F_DUPFD_CLOEXEC, KEPT + 2);
	/* The ids are mapped when the byte comes; its end means that the parent has died. */
	if (read(c->go, &byte, 1) != 1 || (c->owners && setgroups(0, NULL)) || setresgid(0, 0, 0) ||
	    setresuid(0, 0, 0))
		_exit(2);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != c->parent)
		_exit(2);
	for (int i = 0; i < KEPT; i++) {
		close(i);
		if (moved[i] >= 0 && dup2(moved[i], i) < 0)
			_exit(2);
	}
	for (int signo = 1; signo < NSIG; signo++)
		signal(signo, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* By descriptor: the program may be below a directory that only its owner may search. */
	syscall(SYS_execveat, program, "", argv, envp, AT_EMPTY_PATH);
	_exit(2);
}

/* ---- Starting ---- */

/* The directory as a mount of its own, attached nowhere.  An ordinary user cannot have one: the
 * directory itself. */
static int
detach(int dir, uint64_t attributes, struct err *e)
{
	struct mount_attr attr = {
		.attr_set = attributes | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
	};
	CLEAN_FD int tree = -1;

	if (geteuid() != 0)
		tree = fcntl(dir, F_DUPFD_CLOEXEC, 3);
	else if ((tree = open_tree(dir, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH)) >= 0 &&
		 mount_setattr(tree, "", AT_EMPTY_PATH, &attr, sizeof attr))
		fd_close(&tree);
	if (tree < 0)
		err_sys(e, ERR_NODE, "make a mount of the image store for the unpacker");
	return fd_steal(&tree);
}

static int
write_maps(pid_t pid, struct err *e)
{
	char uids[64], gids[64];

	if (geteuid() == 0) {
		snprintf(uids, sizeof uids, "0 %u %u", IMAGE_ID_BASE, IMAGE_IDS);
		memcpy(gids, uids, sizeof gids);
	} else {
		snprintf(uids, sizeof uids, "0 %u 1", (unsigned)geteuid());
		snprintf(gids, sizeof gids, "0 %u 1", (unsigned)getegid());
		if (proc_write(pid, "setgroups", "deny"))
			return err_sys(e, ERR_NODE, "forbid changes of groups in a user namespace");
	}
	if (proc_write(pid, "uid_map", uids) || proc_write(pid, "gid_map", gids))
		return err_sys(e, ERR_NODE, "map user ids %s", uids);
	return 0;
}

static int
make_pipes(struct worker *w, int out[2], int broker[2], int go[2], bool directory, struct err *e)
{
	out[0] = out[1] = broker[0] = broker[1] = go[0] = go[1] = -1;
	if (pipe2(out, O_CLOEXEC) || pipe2(go, O_CLOEXEC) ||
	    (directory && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, broker)))
		err_sys(e, ERR_NODE, "make a pipe");
	w->out = out[0];
	w->go = go[1];
	w->broker = broker[0];
	return go[1] < 0 || (directory && broker[0] < 0) ? -1 : 0;
}

static int
start(struct worker *w, const struct image_worker *m, int temp, int store, bool directory,
      struct err *e)
{
	CLEAN_FD int program = open(m->program, O_RDONLY | O_CLOEXEC);
	struct start c = { .program = program, .parent = getpid(),
			   .owners = geteuid() == 0 };
	CLEAN_FD int own_temp = detach(temp, 0, e);
	CLEAN_FD int own_store = own_temp < 0 ? -1 : detach(store, MOUNT_ATTR_RDONLY, e);
	int out[2], broker[2], go[2], rc = -1;
	long pid = -1;

	if (program < 0)
		return err_sys(e, ERR_NODE, "open %s", m->program);
	if (own_store < 0)
		return -1;
	c.temp = own_temp;
	c.store = own_store;
	if (!make_pipes(w, out, broker, go, directory, e)) {
		pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, 0);
		if (pid == 0) {
			close(go[1]);
			c.out = out[1];
			c.broker = broker[1];
			c.go = go[0];
			become(m, &c);
		}
		if (pid < 0)
			err_sys(e, ERR_NODE, "make a user namespace for the unpacker%s",
				errno == EPERM || errno == ENOSPC ? " (see pratai-run(1), \"As an ordinary user\")"
								  : "");
	}
	w->pid = (pid_t)pid;
	fd_close(&out[1]);
	fd_close(&broker[1]);
	fd_close(&go[0]);
	if (pid > 0 && !write_maps(w->pid, e))
		rc = fd_write_all(w->go, "", 1) ? err_sys(e, ERR_NODE, "start the unpacker") : 0;
	fd_close(&w->go);
	return rc;
}

/* ---- Watching ---- */

static void
take_progress(struct worker *w, const struct image_worker *m)
{
	char *what = w->line.data + 1, *done = strchr(what, '\t'), *total;
	int64_t a, b;

	total = done ? strchr(done + 1, '\t') : NULL;
	if (!total || !m->progress)
		return;
	*done++ = *total++ = '\0';
	for (char *p = what; *p; p++) /* it goes to a terminal */
		if ((unsigned char)*p < 0x20 || (unsigned char)*p > 0x7e)
			return;
	if (!str_int(done, 0, INT64_MAX, &a) && !str_int(total, 0, INT64_MAX, &b))
		m->progress(m->arg, what, (uint64_t)a, (uint64_t)b);
}

/* Lines that begin with '+' first, then the text. */
static int
take_output(struct worker *w, const struct image_worker *m, const char *data, size_t len,
	    struct err *e)
{
	for (size_t i = 0; i < len; i++) {
		if (w->text_began || (!w->line.len && data[i] != '+')) {
			w->text_began = true;
			if (buf_put(w->text, data + i, len - i))
				return err_set(e, ERR_NODE, "the unpacker says too much");
			return 0;
		}
		if (data[i] == '\n') {
			take_progress(w, m);
			buf_consume(&w->line, w->line.len);
		} else if (buf_put(&w->line, data + i, 1)) {
			return err_set(e, ERR_NODE, "the unpacker says too much");
		}
	}
	return 0;
}

static bool
may_be_asked(const char *name)
{
	return !strcmp(name, "index.json") ||
	       (str_starts(name, "blobs/sha256/") && image_is_digest(name + 13));
}

/* False: it is gone, or asks for what it may not. */
static bool
answer(int socket, int directory)
{
	char name[128];
	ssize_t n = recv(socket, name, sizeof name - 1, MSG_DONTWAIT);
	CLEAN_FD int fd = -1;
	struct stat st;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (n <= 0)
		return false;
	name[n] = '\0';
	if (!may_be_asked(name))
		return false;
	fd = open_beneath(directory, name, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0, 0);
	if (fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode))
		return !fd_send(socket, fd);
	return send(socket, "", 1, MSG_NOSIGNAL) == 1;
}

static int
watch(struct worker *w, const struct image_worker *m, struct err *e)
{
	static char block[16 << 10];

	for (;;) {
		struct pollfd p[2] = { { .fd = w->out, .events = POLLIN },
				       { .fd = w->broker, .events = POLLIN } };
		ssize_t n;

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return err_sys(e, ERR_NODE, "wait for the unpacker");
		if (p[1].revents && !answer(w->broker, m->source))
			fd_close(&w->broker);
		if (!p[0].revents)
			continue;
		n = read(w->out, block, sizeof block);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return 0;
		if (take_output(w, m, block, (size_t)n, e))
			return -1;
	}
}

/* Its exit status, or 128 and a signal. */
static int
reap(struct worker *w, bool kill_it)
{
	int status = 0;

	if (kill_it)
		kill(w->pid, SIGKILL); /* our child, not yet waited for */
	while (waitpid(w->pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int
judge(struct worker *w, int status, struct err *e)
{
	const char *said = w->text->data ? w->text->data : "";
	size_t len = strcspn(said, "\n");

	if (status == 0)
		return 0;
	if ((status == 1 || status == 2) && len)
		return err_set(e, status == 1 ? ERR_INPUT : ERR_NODE, "%.*s", (int)(len < 440 ? len : 440),
			       said);
	if (status == 128 + SIGXCPU)
		return err_set(e, ERR_LIMIT, "it takes too much processor time to unpack");
	return err_set(e, ERR_NODE, "the unpacker ended with status %d", status);
}

int
image_worker_run(const struct image_worker *m, struct image_store *s, int *temp,
		 char name[STORE_TEMP_MAX], struct buf *text, struct err *e)
{
	struct worker w = { .out = -1, .broker = -1, .go = -1, .line = { .max = OUTPUT_LINE_MAX },
			    .text = text };
	struct stat st;
	int rc = -1, status;

	name[0] = '\0';
	*temp = store_temp(s, name, e);
	if (*temp < 0)
		return name[0] = '\0', -1;
	if (fstat(m->source, &st))
		return err_sys(e, ERR_NODE, "look at the image");
	/* The worker makes its things in it, as somebody else. */
	if (geteuid() == 0 && fchown(*temp, IMAGE_ID_BASE, IMAGE_ID_BASE))
		return err_sys(e, ERR_NODE, "give a directory to the unpacker");
	if (!start(&w, m, *temp, s->dir, S_ISDIR(st.st_mode), e))
		rc = watch(&w, m, e);
	if (w.pid > 0) {
		status = reap(&w, rc != 0);
		if (rc == 0)
			rc = judge(&w, status, e);
	}
	fd_close(&w.out);
	fd_close(&w.broker);
	buf_free(&w.line);
	return rc;
}
