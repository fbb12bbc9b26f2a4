/*
 * A state machine over a stream socket: LINE gathers up to a newline, BYTES and STREAM
 * hand on raw bytes, DONE reads no more.  A peer that does not read fills its socket
 * buffer and no memory of ours: the body is sent from where it lies.
 */
#include "core/node/channel.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/node/runtime.h"
#include "netio/loop.h"

enum { CHUNK_BYTES = 64 << 10 };

enum channel_state { CHANNEL_IN_LINE, CHANNEL_IN_BYTES, CHANNEL_IN_STREAM, CHANNEL_DONE };

struct channel {
	int fd;
	struct loop_fd *watch;
	const struct channel_fns *fns;
	void *arg;
	enum channel_state state;
	struct buf line;
	uint64_t left; /* of the raw bytes */
	struct buf head;
	size_t head_sent, body_sent, body_len;
	const char *body;
};

static bool
has_more_to_send(const struct channel *c)
{
	return c->head_sent < c->head.len || c->body_sent < c->body_len;
}

static void
watch(struct channel *c)
{
	uint32_t events = 0;

	if (c->state != CHANNEL_DONE)
		events |= EPOLLIN;
	if (has_more_to_send(c))
		events |= EPOLLOUT;
	if (c->watch && !events) {
		/* Level-triggered EPOLLHUP is reported whatever is asked for. */
		loop_fd_remove(c->watch);
		c->watch = NULL;
	} else if (c->watch) {
		loop_fd_set(c->watch, events);
	}
}

static void
finish(struct channel *c, const struct err *e)
{
	if (c->state == CHANNEL_DONE)
		return;
	c->state = CHANNEL_DONE;
	c->fns->end(c->arg, e);
}

static void
line_complete(struct channel *c)
{
	int64_t follows = c->fns->line(c->arg, c->line.data ? c->line.data : "", c->line.len);

	buf_consume(&c->line, c->line.len);
	if (c->state == CHANNEL_DONE)
		return;
	if (follows == CHANNEL_STOP) {
		c->state = CHANNEL_DONE;
	} else if (follows == CHANNEL_STREAM) {
		c->state = CHANNEL_IN_STREAM;
		c->left = UINT64_MAX;
	} else if (follows > 0) {
		c->state = CHANNEL_IN_BYTES;
		c->left = (uint64_t)follows;
	}
}

static size_t
take_line(struct channel *c, const char *data, size_t len)
{
	const char *newline = memchr(data, '\n', len);
	size_t n = newline ? (size_t)(newline - data) : len;
	struct err e = { 0 };

	if (c->line.len + n >= RUNTIME_LINE_MAX || buf_put(&c->line, data, n)) {
		err_set(&e, ERR_FUNCTION, "the runtime's answer has a line over %d bytes",
			RUNTIME_LINE_MAX);
		finish(c, &e);
		return len;
	}
	if (newline)
		line_complete(c);
	return n + (newline != NULL);
}

static size_t
take_bytes(struct channel *c, const char *data, size_t len)
{
	size_t n = len;

	if (c->state == CHANNEL_IN_BYTES) {
		if (n > c->left)
			n = (size_t)c->left;
		c->left -= n;
		if (!c->left)
			c->state = CHANNEL_IN_LINE;
	}
	c->fns->bytes(c->arg, data, n, c->left);
	return n;
}

/* One read.  True when there may be more. */
static bool
receive(struct channel *c)
{
	char chunk[CHUNK_BYTES];
	ssize_t n = recv(c->fd, chunk, sizeof chunk, MSG_DONTWAIT);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return errno == EINTR;
	if (n <= 0) { /* ECONNRESET: it ended with unread input of ours; the same to us */
		finish(c, NULL);
		return false;
	}
	for (size_t at = 0; at < (size_t)n && c->state != CHANNEL_DONE;)
		at += c->state == CHANNEL_IN_LINE ? take_line(c, chunk + at, (size_t)n - at)
						  : take_bytes(c, chunk + at, (size_t)n - at);
	return c->state != CHANNEL_DONE;
}

static void
drop_output(struct channel *c)
{
	c->head_sent = c->head.len;
	c->body_sent = c->body_len;
}

static void
transmit(struct channel *c)
{
	while (has_more_to_send(c)) {
		bool in_head = c->head_sent < c->head.len;
		const char *from = in_head ? c->head.data + c->head_sent : c->body + c->body_sent;
		size_t len = in_head ? c->head.len - c->head_sent : c->body_len - c->body_sent;
		ssize_t n = send(c->fd, from, len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			/* Whether it wants its input or not, its answer decides. */
			if (errno != EAGAIN)
				drop_output(c);
			return;
		}
		*(in_head ? &c->head_sent : &c->body_sent) += (size_t)n;
	}
}

static void
on_events(void *arg, uint32_t events)
{
	struct channel *c = arg;

	if (events & EPOLLOUT)
		transmit(c);
	if (events & (EPOLLHUP | EPOLLERR))
		drop_output(c);
	if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && c->state != CHANNEL_DONE)
		receive(c);
	watch(c);
}

struct channel *
channel_new(struct loop *l, int fd, const struct channel_fns *fns, void *arg, struct err *e)
{
	struct channel *c = calloc(1, sizeof *c);

	if (!c) {
		err_set(e, ERR_NODE, "channel: out of memory");
		close(fd);
		return NULL;
	}
	c->fd = fd;
	c->fns = fns;
	c->arg = arg;
	c->line.max = RUNTIME_LINE_MAX;
	c->watch = loop_fd_add(l, fd, EPOLLIN, on_events, c, e);
	if (!c->watch) {
		channel_free(c);
		return NULL;
	}
	return c;
}

void
channel_free(struct channel *c)
{
	if (!c)
		return;
	loop_fd_remove(c->watch);
	fd_close(&c->fd);
	buf_free(&c->line);
	buf_free(&c->head);
	free(c);
}

int
channel_send(struct channel *c, const void *head, size_t head_len, const void *body,
	     size_t body_len, struct err *e)
{
	if (buf_put(&c->head, head, head_len))
		return err_set(e, ERR_NODE, "channel: out of memory");
	c->body = body;
	c->body_len = body_len;
	transmit(c);
	watch(c);
	return 0;
}

void
channel_drain(struct channel *c)
{
	/* The peer is gone, so that what is there is bounded by the socket's buffer. */
	while (c->state != CHANNEL_DONE && receive(c))
		;
	finish(c, NULL);
	drop_output(c);
	watch(c);
}
