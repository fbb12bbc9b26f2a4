/*
 * The connections of the HTTP server.  They are accepted here and handed to the daemon, so
 * that running out of descriptors neither spins nor shuts the door for good, and a flood of
 * idle connections makes room for those that ask something.
 *
 * Each has a deadline of ours beside the daemon's own timeout, which only knows silence: a
 * client that sends a byte now and then keeps a connection for ever otherwise.
 */
#include "netio/http_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "core/base/clock.h"
#include "core/base/log.h"

enum { ACCEPT_PAUSE_MS = 100 };

static void
set_accepting(struct http_server *s, bool accepting)
{
	if (s->listen_watch && s->accepting != accepting) {
		s->accepting = accepting;
		loop_fd_set(s->listen_watch, accepting ? EPOLLIN : 0);
	}
}

/* The daemon sees the end of the stream, in its next run, and cleans up. */
void
http_conn_end(struct http_conn *conn)
{
	if (!conn->ended) {
		conn->ended = true;
		shutdown(conn->fd, SHUT_RDWR);
	}
}

static void
check_stopped(struct http_server *s)
{
	if (!s->stopping || s->busy_count || !s->stopped)
		return;
	if (s->grace)
		loop_timer_clear(s->grace);
	loop_defer(s->loop, s->stopped, s->stopped_arg);
	s->stopped = NULL;
}

void
http_conn_put_off(struct http_conn *conn)
{
	loop_timer_after(conn->deadline, 2 * conn->server->config.idle_seconds * NS_PER_S);
}

void
http_conn_busy(struct http_conn *conn)
{
	struct http_server *s = conn->server;

	if (!conn->waiting)
		return;
	conn->waiting = false;
	TAILQ_REMOVE(&s->waiting, conn, link);
	TAILQ_INSERT_TAIL(&s->busy, conn, link);
	s->busy_count++;
}

void
http_conn_waiting(struct http_conn *conn)
{
	struct http_server *s = conn->server;

	if (conn->waiting)
		return;
	conn->waiting = true;
	TAILQ_REMOVE(&s->busy, conn, link);
	TAILQ_INSERT_TAIL(&s->waiting, conn, link);
	s->busy_count--;
	http_conn_put_off(conn);
	if (s->stopping)
		http_conn_end(conn);
	else if (!loop_timer_pending(s->accept_again))
		set_accepting(s, true); /* at the limit it could make room now */
	check_stopped(s);
}

static void
on_deadline(void *arg)
{
	struct http_conn *conn = arg;

	if (conn->request && conn->request->discarding)
		http_reply_last_words(conn->request);
	http_conn_end(conn);
}

static struct http_conn *
new_connection(struct http_server *s, int fd)
{
	struct http_conn *conn = calloc(1, sizeof(*conn));

	if (!conn)
		return NULL;
	*conn = (struct http_conn){.server = s, .fd = fd, .waiting = true};
	conn->deadline = loop_timer_add(s->loop, on_deadline, conn, NULL);
	if (!conn->deadline) {
		free(conn);
		return NULL;
	}
	TAILQ_INSERT_TAIL(&s->waiting, conn, link);
	http_conn_put_off(conn);
	return conn;
}

void
http_conn_notify(void *arg, struct MHD_Connection *mhd, void **context,
		 enum MHD_ConnectionNotificationCode code)
{
	struct http_server *s = arg;
	struct http_conn *conn = *context;
	const union MHD_ConnectionInfo *info;

	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		s->connections++;
		info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
		/* Without memory for one, on_target finds none, and on_request ends it. */
		*context = new_connection(s, info->connect_fd);
		return;
	}
	s->connections--;
	if (conn) {
		http_conn_waiting(conn);
		TAILQ_REMOVE(&s->waiting, conn, link);
		loop_timer_remove(conn->deadline);
		free(conn);
		*context = NULL;
	}
	if (!s->stopping)
		set_accepting(s, true); /* also in a pause: there is a descriptor now */
}

void
http_conn_accept_again(void *arg)
{
	set_accepting(arg, true);
}

static void
make_room(struct http_server *s)
{
	struct http_conn *oldest = TAILQ_FIRST(&s->waiting);

	if (oldest) {
		http_conn_end(oldest);
		s->run = true;
		loop_again(s->loop);
	}
}

/* Neither spins on a full table of descriptors nor waits for one of ours to be freed. */
static void
pause_accepting(struct http_server *s, int errnum)
{
	if (clock_mono_ns() >= s->complain_ns) {
		log_warning("cannot take a connection", "error", strerror(errnum), NULL);
		s->complain_ns = clock_mono_ns() + NS_PER_S;
	}
	if (errnum == EMFILE || errnum == ENFILE)
		make_room(s);
	set_accepting(s, false);
	loop_timer_after(s->accept_again, ACCEPT_PAUSE_MS * NS_PER_MS);
}

void
http_conn_listen(void *arg, uint32_t events)
{
	struct http_server *s = arg;

	(void)events;
	for (int i = 0; i < HTTP_ACCEPT_BATCH; i++) {
		struct sockaddr_storage addr;
		socklen_t len = sizeof(addr);
		int fd;

		if (s->connections >= s->config.connections_max) {
			make_room(s);
			set_accepting(s, false); /* until a connection is closed */
			return;
		}
		fd = accept4(s->config.listen_fd, (struct sockaddr *)&addr, &len,
			     SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0) {
			if (errno == EINTR || errno == ECONNABORTED)
				continue;
			if (errno != EAGAIN)
				pause_accepting(s, errno);
			return;
		}
		/* Closes fd itself if it fails. */
		if (MHD_add_connection(s->daemon, fd, (struct sockaddr *)&addr, len) != MHD_YES)
			log_warning("connection refused", "error", strerror(errno), NULL);
		s->run = true;
	}
}
