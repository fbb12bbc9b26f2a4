/*
 * ZeroMQ on the loop.
 *
 * ZMQ_FD is no socket to read from but a bell: it rings (becomes readable) when ZeroMQ's
 * thread has put something into the socket's mailbox, and every call on the socket may
 * empty that mailbox.  So after a send, "there is something to receive" may already be
 * true while the descriptor stays silent for ever.  The rule that follows from it, and the
 * only place that knows it: every call marks the socket as one to look at, and the hook
 * looks at marked ones before each wait, until ZMQ_EVENTS itself says that there is nothing.
 *
 * A look takes at most BATCH messages, then comes round again by way of epoll, so that one
 * busy socket does not starve the others.
 *
 * "ipc:name" becomes /proc/self/fd/N/name: short whatever the state directory's path is, and
 * reachable after privileges are dropped.  ZeroMQ's thread connects again by that path, so
 * that the directory stays open as long as the context lives.
 */
#include "netio/mq.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <zmq.h>

#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/log.h"
#include "core/base/str.h"
#include "netio/loop.h"

enum {
	BATCH = 64,
	HIGH_WATER = 1000,
	BACKLOG = 1024,
	RECONNECT_MS = 50,
	RECONNECT_MAX_MS = 2000,
	/* A peer on TCP that vanished without a word is noticed after this. */
	HEARTBEAT_MS = 5000,
	HEARTBEAT_LOST_MS = 15000,
	ENDPOINT_MAX = 256,
	IPC_NAME_MAX = 64, /* with /proc/self/fd/N/ below the 108 bytes of a socket's path */
};

struct mq {
	struct loop *loop;
	void *context;
	int run_fd;
	struct loop_hook *hook;
	TAILQ_HEAD(, mq_socket) sockets;
};

struct mq_socket {
	struct mq *mq;
	enum mq_type type;
	void *zmq;
	struct loop_fd *bell;
	mq_fn fn;
	void *arg;
	bool look, closed;
	uint64_t dropped;
	TAILQ_ENTRY(mq_socket) link;
};

static const int zmq_types[] = {
	[MQ_PUSH] = ZMQ_PUSH,
	[MQ_PULL] = ZMQ_PULL,
	[MQ_ROUTER] = ZMQ_ROUTER,
	[MQ_DEALER] = ZMQ_DEALER,
};

/* ZeroMQ has error numbers of its own, which strerror does not know. */
static int
zmq_failed(struct err *e, enum err_class cls, const char *what)
{
	int errnum = zmq_errno();

	err_set(e, cls, "%s: %s", what, zmq_strerror(errnum));
	if (e)
		e->errnum = errnum;
	return -1;
}

static void
look_later(struct mq_socket *s)
{
	s->look = true;
	loop_again(s->mq->loop);
}

/* ---- Receiving ---- */

/* Bad messages come in floods: the first is logged, then each time their number doubles. */
static void
drop(struct mq_socket *s, const char *why)
{
	char count[24];

	s->dropped++;
	if (s->dropped & (s->dropped - 1))
		return;
	snprintf(count, sizeof(count), "%llu", (unsigned long long)s->dropped);
	log_warning("message dropped", "reason", why, "dropped", count, NULL);
}

/* One message.  False: there is none, or the socket is broken. */
static bool
receive(struct mq_socket *s)
{
	zmq_msg_t parts[MQ_FRAMES_MAX], spare;
	struct mq_frame frames[MQ_FRAMES_MAX];
	size_t n = 0, have;
	bool more, fits = true;

	do {
		zmq_msg_t *part = n < MQ_FRAMES_MAX ? &parts[n] : &spare;

		zmq_msg_init(part);
		if (zmq_msg_recv(part, s->zmq, ZMQ_DONTWAIT) < 0) {
			zmq_msg_close(part);
			more = fits = false; /* before the first frame: they arrive whole */
			break;
		}
		more = zmq_msg_more(part);
		if (zmq_msg_size(part) > MQ_FRAME_BYTES_MAX)
			fits = false;
		if (n < MQ_FRAMES_MAX)
			frames[n] = (struct mq_frame){zmq_msg_data(part), zmq_msg_size(part)};
		else
			zmq_msg_close(part);
		n++;
	} while (more);
	have = n < MQ_FRAMES_MAX ? n : MQ_FRAMES_MAX;
	if (n > MQ_FRAMES_MAX)
		drop(s, "too many frames");
	else if (n && !fits)
		drop(s, "a frame is too long");
	else if (n)
		s->fn(s->arg, frames, n);
	for (size_t i = 0; i < have; i++)
		zmq_msg_close(&parts[i]);
	return n > 0;
}

/* True: there is more, come again. */
static bool
drain(struct mq_socket *s)
{
	int events = 0;
	size_t size = sizeof(events);
	bool receives = s->fn && s->type != MQ_PUSH;

	for (int i = 0; receives && i < BATCH; i++)
		if (!receive(s) || s->closed)
			break;
	if (s->closed)
		return false;
	if (zmq_getsockopt(s->zmq, ZMQ_EVENTS, &events, &size) < 0) {
		log_error("message queue is broken", "error", zmq_strerror(zmq_errno()), NULL);
		events = 0;
	}
	return receives && (events & ZMQ_POLLIN);
}

static uint64_t
look_at_sockets(void *arg)
{
	struct mq *m = arg;
	struct mq_socket *s;
	uint64_t wait_ns = UINT64_MAX;

	TAILQ_FOREACH(s, &m->sockets, link) {
		if (s->closed || !s->look)
			continue;
		s->look = false; /* a callback that sends on s sets it again */
		if (drain(s))
			s->look = true;
		if (s->look)
			wait_ns = 0;
	}
	return wait_ns;
}

static void
bell_rang(void *arg, uint32_t events)
{
	(void)events;
	look_later(arg);
}

/* ---- The context ---- */

struct mq *
mq_new(struct loop *l, int run_fd, struct err *e)
{
	struct mq *m = calloc(1, sizeof(*m));

	if (!m) {
		err_set(e, ERR_NODE, "out of memory for message queues");
		return NULL;
	}
	m->loop = l;
	m->run_fd = -1;
	TAILQ_INIT(&m->sockets);
	m->context = zmq_ctx_new();
	if (!m->context) {
		zmq_failed(e, ERR_NODE, "cannot start ZeroMQ");
		goto fail;
	}
	zmq_ctx_set(m->context, ZMQ_IO_THREADS, 1);
	zmq_ctx_set(m->context, ZMQ_BLOCKY, 0);
	if (run_fd >= 0) {
		m->run_fd = fcntl(run_fd, F_DUPFD_CLOEXEC, 3);
		if (m->run_fd < 0) {
			err_sys(e, ERR_NODE, "cannot keep the directory of sockets");
			goto fail;
		}
	}
	m->hook = loop_hook_add(l, look_at_sockets, m, e);
	if (!m->hook)
		goto fail;
	return m;
fail:
	fd_close(&m->run_fd);
	if (m->context)
		zmq_ctx_term(m->context);
	free(m);
	return NULL;
}

/* Deferred calls keep their order: the closed sockets of m are freed before it. */
void
mq_free(struct mq *m)
{
	struct mq_socket *s;

	if (!m)
		return;
	TAILQ_FOREACH(s, &m->sockets, link)
		mq_close(s);
	loop_hook_remove(m->hook);
	while (zmq_ctx_term(m->context) < 0 && zmq_errno() == EINTR)
		;
	fd_close(&m->run_fd);
	loop_defer(m->loop, free, m);
}

/* ---- Sockets ---- */

static int
set_int(struct mq_socket *s, int option, int value, struct err *e)
{
	if (zmq_setsockopt(s->zmq, option, &value, sizeof(value)) == 0)
		return 0;
	return zmq_failed(e, ERR_NODE, "cannot set a message queue's option");
}

static int
set_options(struct mq_socket *s, const struct mq_options *o, struct err *e)
{
	const char *endpoint = o->bind ? o->bind : o->connect;
	int high_water = o->high_water ? o->high_water : HIGH_WATER;
	int64_t bytes_max = MQ_FRAME_BYTES_MAX;

	if (set_int(s, ZMQ_LINGER, 0, e) < 0 || set_int(s, ZMQ_SNDHWM, high_water, e) < 0 ||
	    set_int(s, ZMQ_RCVHWM, high_water, e) < 0 || set_int(s, ZMQ_BACKLOG, BACKLOG, e) < 0 ||
	    set_int(s, ZMQ_RECONNECT_IVL, RECONNECT_MS, e) < 0 ||
	    set_int(s, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS, e) < 0)
		return -1;
	if (zmq_setsockopt(s->zmq, ZMQ_MAXMSGSIZE, &bytes_max, sizeof(bytes_max)) < 0)
		return zmq_failed(e, ERR_NODE, "cannot bound a message queue's frames");
	if (str_starts(endpoint, "tcp:") &&
	    (set_int(s, ZMQ_HEARTBEAT_IVL, HEARTBEAT_MS, e) < 0 ||
	     set_int(s, ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_LOST_MS, e) < 0 ||
	     set_int(s, ZMQ_HEARTBEAT_TTL, HEARTBEAT_LOST_MS, e) < 0))
		return -1;
	if (s->type == MQ_ROUTER && (set_int(s, ZMQ_ROUTER_MANDATORY, 1, e) < 0 ||
				     set_int(s, ZMQ_ROUTER_HANDOVER, 1, e) < 0))
		return -1;
	if ((s->type == MQ_PUSH || s->type == MQ_DEALER) && set_int(s, ZMQ_IMMEDIATE, 1, e) < 0)
		return -1;
	if (o->routing_id_len &&
	    zmq_setsockopt(s->zmq, ZMQ_ROUTING_ID, o->routing_id, o->routing_id_len) < 0)
		return zmq_failed(e, ERR_INPUT, "cannot use this routing id");
	return 0;
}

/* ZeroMQ takes 99999 for 34463. */
static bool
tcp_port_is_good(const char *endpoint, bool binds)
{
	const char *colon = strrchr(endpoint, ':');
	int64_t port;

	return (binds && strcmp(colon, ":*") == 0) || str_int(colon + 1, !binds, 65535, &port) == 0;
}

/* "ipc:name" as ZeroMQ takes it; anything else as it is. */
static int
resolve(const struct mq *m, const struct mq_options *o, const char **name, char out[ENDPOINT_MAX],
	struct err *e)
{
	const char *endpoint = o->bind ? o->bind : o->connect;

	*name = NULL;
	if (!str_starts(endpoint, "ipc:")) {
		if (!str_starts(endpoint, "inproc://") && !str_starts(endpoint, "tcp://"))
			return err_set(e, ERR_INPUT, "no such kind of endpoint: %.100s", endpoint);
		if (str_starts(endpoint, "tcp://") && !tcp_port_is_good(endpoint, o->bind != NULL))
			return err_set(e, ERR_INPUT, "no port from 1 to 65535: %.100s", endpoint);
		if (str_copy(out, ENDPOINT_MAX, endpoint) < 0)
			return err_set(e, ERR_INPUT, "endpoint is too long: %.100s", endpoint);
		return 0;
	}
	*name = endpoint + strlen("ipc:");
	if (!**name || **name == '.' || strchr(*name, '/') || strlen(*name) > IPC_NAME_MAX)
		return err_set(e, ERR_INPUT, "not a socket's name: %.100s", endpoint);
	if (m->run_fd < 0)
		return err_set(e, ERR_NODE, "there is no directory for %s", endpoint);
	snprintf(out, ENDPOINT_MAX, "ipc:///proc/self/fd/%d/%s", m->run_fd, *name);
	return 0;
}

/* Removes what a process that was killed has left; and nothing that is no socket. */
static int
remove_stale(const struct mq *m, const char *name, struct err *e)
{
	struct stat st;

	if (fstatat(m->run_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : err_sys(e, ERR_NODE, "cannot look at ipc:%s", name);
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, ERR_CONFLICT, "ipc:%s is there and is no socket", name);
	if (unlinkat(m->run_fd, name, 0) < 0 && errno != ENOENT)
		return err_sys(e, ERR_NODE, "cannot remove the old ipc:%s", name);
	return 0;
}

static int
bind_or_connect(struct mq_socket *s, const struct mq_options *o, struct err *e)
{
	const char *endpoint = o->bind ? o->bind : o->connect, *name;
	char address[ENDPOINT_MAX];
	mode_t mask;
	int rc;

	if (resolve(s->mq, o, &name, address, e) < 0)
		return -1;
	if (!o->bind) {
		if (zmq_connect(s->zmq, address) < 0)
			return zmq_failed(e, ERR_INPUT, endpoint);
		return 0;
	}
	if (name && remove_stale(s->mq, name, e) < 0)
		return -1;
	/* Nobody else gets in between bind and chmod.  ZeroMQ binds in this thread. */
	mask = umask(0177);
	rc = zmq_bind(s->zmq, address);
	umask(mask);
	if (rc < 0) {
		zmq_failed(e, ERR_NODE, endpoint);
		return err_wrap(e, "cannot listen on");
	}
	if (name && o->socket_mode && fchmodat(s->mq->run_fd, name, o->socket_mode, 0) < 0)
		return err_sys(e, ERR_NODE, "cannot set the mode of %s", endpoint);
	return 0;
}

struct mq_socket *
mq_open(struct mq *m, enum mq_type type, const struct mq_options *o, mq_fn fn, void *arg,
	struct err *e)
{
	struct mq_socket *s;
	size_t size = sizeof(int);
	int fd;

	if (!o->bind == !o->connect) {
		err_set(e, ERR_INPUT, "a message queue either binds or connects");
		return NULL;
	}
	s = calloc(1, sizeof(*s));
	if (!s) {
		err_set(e, ERR_NODE, "out of memory for a message queue");
		return NULL;
	}
	*s = (struct mq_socket){.mq = m, .type = type, .fn = fn, .arg = arg};
	s->zmq = zmq_socket(m->context, zmq_types[type]);
	if (!s->zmq) {
		zmq_failed(e, ERR_NODE, "cannot make a message queue");
		free(s);
		return NULL;
	}
	if (set_options(s, o, e) < 0 || bind_or_connect(s, o, e) < 0)
		goto fail;
	if (zmq_getsockopt(s->zmq, ZMQ_FD, &fd, &size) < 0) {
		zmq_failed(e, ERR_NODE, "a message queue has no descriptor");
		goto fail;
	}
	s->bell = loop_fd_add(m->loop, fd, EPOLLIN, bell_rang, s, e);
	if (!s->bell)
		goto fail;
	TAILQ_INSERT_TAIL(&m->sockets, s, link);
	look_later(s);
	return s;
fail:
	zmq_close(s->zmq);
	free(s);
	return NULL;
}

static void
free_socket(void *arg)
{
	struct mq_socket *s = arg;

	TAILQ_REMOVE(&s->mq->sockets, s, link);
	free(s);
}

/* The hook may be in the middle of s, or about to go on from it to the next one: s stays
 * in the list until the end of the iteration. */
void
mq_close(struct mq_socket *s)
{
	if (!s || s->closed)
		return;
	s->closed = true;
	loop_fd_remove(s->bell);
	zmq_close(s->zmq);
	loop_defer(s->mq->loop, free_socket, s);
}

/* ---- Sending ---- */

static int
not_sent(struct mq_socket *s, struct err *e)
{
	int errnum = zmq_errno();

	look_later(s);
	if (errnum == EAGAIN)
		return err_set(e, ERR_AGAIN, "nobody takes messages at the other end");
	if (errnum == EHOSTUNREACH)
		return err_set(e, ERR_NOT_FOUND, "no peer with this routing id is connected");
	return zmq_failed(e, ERR_NODE, "cannot send a message");
}

static int
send_frames(struct mq_socket *s, const struct mq_frame *frames, size_t n, bool more)
{
	for (size_t i = 0; i < n; i++) {
		int flags = ZMQ_DONTWAIT | (more || i + 1 < n ? ZMQ_SNDMORE : 0);

		if (zmq_send(s->zmq, frames[i].data, frames[i].len, flags) < 0)
			return -1; /* a message that was begun is taken back by ZeroMQ */
	}
	return 0;
}

int
mq_send(struct mq_socket *s, const struct mq_frame *frames, size_t n, struct err *e)
{
	if (s->closed)
		return err_set(e, ERR_AGAIN, "the message queue is closed");
	if (send_frames(s, frames, n, false) < 0)
		return not_sent(s, e);
	look_later(s);
	return 0;
}

int
mq_send_last(struct mq_socket *s, const struct mq_frame *frames, size_t n,
	     void (*done)(void *data, void *hint), void *hint, struct err *e)
{
	const struct mq_frame *last = &frames[n - 1];
	void *data = (void *)(uintptr_t)last->data;
	zmq_msg_t message;

	if (s->closed) {
		done(data, hint);
		return err_set(e, ERR_AGAIN, "the message queue is closed");
	}
	if (zmq_msg_init_data(&message, data, last->len, done, hint) < 0) {
		done(data, hint);
		return zmq_failed(e, ERR_NODE, "out of memory for a message");
	}
	if (send_frames(s, frames, n - 1, true) < 0 ||
	    zmq_msg_send(&message, s->zmq, ZMQ_DONTWAIT) < 0) {
		int errnum = zmq_errno();

		zmq_msg_close(&message); /* calls done */
		errno = errnum;
		return not_sent(s, e);
	}
	look_later(s);
	return 0;
}
