/*
 * The HTTP server: libmicrohttpd without threads, its epoll descriptor in our loop.
 *
 * The moments of a request, as the daemon calls us: on_target (the request line), then
 * on_request for the headers (first_call), for each piece of the body (take_data), and for
 * the complete request (last_call), which either queues the answer or suspends the
 * connection until http_reply; last, on_completed.  Traps on the way:
 *
 * - An answer that is queued in first_call closes the connection, whatever is unread
 *   resets a client that still sends: early answers wait, and the body is thrown away.
 * - Between first_call and last_call the daemon takes no answer at all.
 * - A connection that was about to read when it was suspended reads first when it is
 *   resumed, and ends without an answer when its client has closed its sending side.  So
 *   it is suspended in the second call for the complete request, which finds it waiting
 *   for us; and what arrives while it is held is taken into memory, as long as may be.
 * - After MHD_resume_connection MHD_run must be called before waiting.
 * - A chunk's line that fills its buffer is left to us, as if it were data that we did not
 *   take, and the daemon asks to be run again at once for as long: see run_daemon.
 */
#include "netio/http_server.h"

#include "netio/http_private.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/log.h"
#include "core/base/str.h"

enum {
	POOL_BYTES = 32 << 10, /* a connection's headers and buffers, at most */
	IDLE_SECONDS = 60,
	BARREN_RUNS_MAX = 100,
};

/* ---- The headers ---- */

struct header_check {
	unsigned lengths, encodings, hosts;
	bool malformed;
};

static enum MHD_Result
check_field(void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
	struct header_check *check = arg;

	(void)kind;
	/* "Content-Length : 5" is no length to us and may be one to a proxy before us. */
	if (!*name || name[strcspn(name, " \t()<>@,;:\\\"/[]?={}\x7f")])
		check->malformed = true;
	for (const char *p = value; p && *p; p++)
		if (((unsigned char)*p < 0x20 && *p != '\t') || *p == 0x7f)
			check->malformed = true;
	if (strcasecmp(name, "Content-Length") == 0)
		check->lengths++;
	else if (strcasecmp(name, "Transfer-Encoding") == 0)
		check->encodings++;
	else if (strcasecmp(name, "Host") == 0)
		check->hosts++;
	return MHD_YES;
}

/* True when it has answered: where this request ends is in doubt, so the connection ends. */
static bool
refuse_headers(struct http_request *r, const char *version)
{
	struct header_check check = {0};
	const union MHD_ConnectionInfo *info;
	const char *encoding = http_header(r, "Transfer-Encoding");

	MHD_get_connection_values(r->mhd, MHD_HEADER_KIND, check_field, &check);
	info = MHD_get_connection_info(r->mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
	if (info && info->header_size > HTTP_HEADERS_MAX)
		http_reply_problem(r, 431, "invalid_request",
				   "the header fields are longer than 16 KiB");
	else if (check.malformed || check.hosts > 1)
		http_reply_problem(r, 400, "invalid_request", "a header field is malformed");
	else if (!check.hosts && strcmp(version, "HTTP/1.0") != 0)
		http_reply_problem(r, 400, "invalid_request", "the header field Host is missing");
	else if (check.lengths > 1 || check.encodings > 1 || (check.lengths && check.encodings))
		http_reply_problem(r, 400, "invalid_request",
				   "the length of the body is stated twice");
	else if (encoding && strcmp(version, "HTTP/1.1") != 0)
		http_reply_problem(r, 400, "invalid_request", "HTTP/1.0 has no Transfer-Encoding");
	else if (encoding && strcasecmp(encoding, "chunked") != 0)
		http_reply_problem(r, 501, "invalid_request",
				   "the only Transfer-Encoding is chunked");
	return r->replied;
}

/* -1: chunked; else the bytes to come. */
static int64_t
stated_length(const struct http_request *r)
{
	const char *text = http_header(r, "Content-Length");
	int64_t len = 0;

	if (http_header(r, "Transfer-Encoding"))
		return -1;
	if (text && str_int(text, 0, INT64_MAX, &len) < 0)
		len = INT64_MAX; /* digits they are: the daemon looked */
	return len;
}

static void
too_large(struct http_request *r)
{
	if (r->server->handler.too_large)
		r->server->handler.too_large(r->server->arg, r, r->limit_bytes);
	if (!r->replied)
		http_reply_problem(r, 413, "too_large", "the body is larger than allowed here");
}

static enum MHD_Result
suspend(struct http_request *r)
{
	r->suspended = true;
	MHD_suspend_connection(r->mhd);
	return MHD_YES;
}

static bool
asks_first(const struct http_request *r)
{
	const char *expect = http_header(r, "Expect");

	return expect && strcasecmp(expect, "100-continue") == 0;
}

static enum MHD_Result
begin_body(struct http_request *r)
{
	int64_t len = stated_length(r);

	if (r->held && len && (asks_first(r) || len > r->limit_bytes))
		return suspend(r);
	if (!r->replied && len > r->limit_bytes)
		too_large(r);
	r->stage = HTTP_BODY;
	if (!len)
		return MHD_YES; /* last_call comes at once */
	if (!r->replied)
		http_conn_put_off(r->conn);
	else if (asks_first(r))
		return http_reply_queue(r) ? MHD_YES : MHD_NO;
	else
		http_body_discard(r);
	return MHD_YES;
}

static enum MHD_Result
first_call(struct http_request *r, const char *version)
{
	struct http_server *s = r->server;

	r->stage = HTTP_BEGINNING;
	http_conn_busy(r->conn);
	loop_timer_clear(r->conn->deadline);
	if (refuse_headers(r, version))
		return http_reply_queue(r) ? MHD_YES : MHD_NO;
	r->has_body = stated_length(r) != 0;
	if (r->target_fault) {
		http_reply_problem(r, 400, "invalid_request", r->target_fault);
	} else {
		r->known = true;
		r->limit_bytes = s->handler.begin(s->arg, r);
		if (r->limit_bytes < 0)
			r->limit_bytes = 0;
	}
	return begin_body(r);
}

/* ---- The body ---- */

/* While it is held, a body is kept in memory, and waits where it cannot be. */
static bool
must_wait(const struct http_request *r, size_t len)
{
	return r->held && (len > (uint64_t)r->limit_bytes - r->body.len ||
			   r->server->bodies_memory_bytes + len > HTTP_BODIES_MEMORY_MAX);
}

static enum MHD_Result
take_data(struct http_request *r, const char *data, size_t len)
{
	if (!r->replied) {
		if (len > (uint64_t)r->limit_bytes - r->body.len)
			too_large(r);
		else if (http_body_put(r, data, len) < 0)
			http_reply_problem(r, 503, "store_unavailable",
					   "there is no room for the body now");
	}
	if (r->replied) {
		r->discarded_bytes += len;
		if (r->discarded_bytes <= HTTP_DISCARD_MAX)
			return MHD_YES;
		http_reply_last_words(r);
		return MHD_NO;
	}
	if (r->body.len - r->progress_bytes >= HTTP_PROGRESS_BYTES) {
		r->progress_bytes = r->body.len;
		http_conn_put_off(r->conn);
	}
	return MHD_YES;
}

static enum MHD_Result
last_call(struct http_request *r)
{
	if (r->stage == HTTP_BODY) {
		r->stage = HTTP_COMPLETE;
		loop_timer_clear(r->conn->deadline);
		buf_free(&r->words);
	}
	if (!r->replied && !r->held && !r->handled) {
		r->handled = true;
		r->server->handler.handle(r->server->arg, r);
	}
	if (r->replied)
		return http_reply_queue(r) ? MHD_YES : MHD_NO;
	if (r->waits)
		return suspend(r);
	r->waits = true; /* the daemon calls again at once */
	return MHD_YES;
}

/* ---- The daemon's calls ---- */

static void *
on_target(void *arg, const char *raw, struct MHD_Connection *mhd)
{
	struct http_server *s = arg;
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct http_conn *conn = info ? info->socket_context : NULL;
	struct http_request *r = conn ? calloc(1, sizeof(*r)) : NULL;

	if (!r)
		return NULL;
	*r = (struct http_request){.server = s, .conn = conn, .mhd = mhd, .body.fd = -1};
	r->body.memory.max = HTTP_BODIES_MEMORY_MAX;
	http_target_parse(&r->target, raw ? raw : "", &r->target_fault);
	conn->request = r;
	return r;
}

/* The target is decoded by http_target.c: the daemon is to leave it alone. */
static size_t
leave_escaped(void *arg, struct MHD_Connection *mhd, char *text)
{
	(void)arg;
	(void)mhd;
	return strlen(text);
}

static enum MHD_Result
on_request(void *arg, struct MHD_Connection *mhd, const char *url, const char *method,
	   const char *version, const char *data, size_t *len, void **context)
{
	struct http_server *s = arg;
	struct http_request *r = *context;
	size_t n = *len;

	(void)mhd;
	(void)url;
	s->barren_runs = 0;
	if (!r)
		return MHD_NO; /* out of memory in on_target */
	r->method = method;
	if (r->stage == HTTP_HEADERS)
		return first_call(r, version);
	if (r->stage == HTTP_BEGINNING) /* resumed; it is still about the headers */
		return begin_body(r);
	if (!n)
		return last_call(r);
	if (must_wait(r, n))
		return suspend(r);
	*len = 0;
	return take_data(r, data, n);
}

static void
on_completed(void *arg, struct MHD_Connection *mhd, void **context,
	     enum MHD_RequestTerminationCode code)
{
	struct http_server *s = arg;
	struct http_request *r = *context;

	(void)mhd;
	(void)code;
	*context = NULL;
	if (!r)
		return;
	if (r->known)
		s->handler.gone(s->arg, r);
	r->conn->request = NULL;
	http_conn_waiting(r->conn);
	if (r->response)
		MHD_destroy_response(r->response);
	http_body_drop(r);
	buf_free(&r->words);
	free(r->target.text);
	free(r);
}

/* ---- The daemon on the loop ---- */

static void
daemon_ready(void *arg, uint32_t events)
{
	struct http_server *s = arg;

	(void)events;
	s->run = true;
	s->barren_runs = 0;
}

static uint64_t
run_daemon(void *arg)
{
	struct http_server *s = arg;
	unsigned long long wait_ms;

	if (s->run || clock_mono_ns() >= s->due_ns) {
		s->run = false;
		MHD_run(s->daemon);
	}
	s->due_ns = UINT64_MAX;
	if (s->run)
		return 0;
	if (MHD_get_timeout(s->daemon, &wait_ms) != MHD_YES)
		return UINT64_MAX;
	/* It counts whole milliseconds, and something is due after its time, not at it.  When
	 * many runs have called for nothing, no hurry helps it. */
	if (wait_ms || ++s->barren_runs > BARREN_RUNS_MAX)
		wait_ms++;
	else
		s->run = true;
	s->due_ns = clock_mono_ns() + wait_ms * NS_PER_MS;
	return wait_ms * NS_PER_MS;
}

static int
start_daemon(struct http_server *s, struct err *e)
{
	const union MHD_DaemonInfo *info;

	/* clang-format off */
	s->daemon = MHD_start_daemon(
		MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_NO_LISTEN_SOCKET, 0, NULL, NULL,
		on_request, s,
		/* Kept in http_conn_listen; the daemon counts closed ones a little longer. */
		MHD_OPTION_CONNECTION_LIMIT, s->config.connections_max + HTTP_ACCEPT_BATCH,
		MHD_OPTION_CONNECTION_TIMEOUT, s->config.idle_seconds,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)POOL_BYTES,
		MHD_OPTION_NOTIFY_CONNECTION, http_conn_notify, s,
		MHD_OPTION_NOTIFY_COMPLETED, on_completed, s,
		MHD_OPTION_URI_LOG_CALLBACK, on_target, s,
		MHD_OPTION_UNESCAPE_CALLBACK, leave_escaped, NULL,
		/* What it lets pass is refused here, with an answer like all others. */
		MHD_OPTION_STRICT_FOR_CLIENT, 0,
		MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
		MHD_OPTION_END);
	/* clang-format on */
	info = s->daemon ? MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
	if (!info)
		return err_set(e, ERR_NODE, "cannot start the HTTP server");
	s->daemon_watch = loop_fd_add(s->loop, info->epoll_fd, EPOLLIN, daemon_ready, s, e);
	s->hook = loop_hook_add(s->loop, run_daemon, s, e);
	return s->daemon_watch && s->hook ? 0 : -1;
}

struct http_server *
http_server_new(struct loop *l, const struct http_server_config *c, const struct http_handler *h,
		void *arg, struct err *e)
{
	struct http_server *s = calloc(1, sizeof(*s));

	if (!s) {
		err_set(e, ERR_NODE, "out of memory for the HTTP server");
		return NULL;
	}
	*s = (struct http_server){.loop = l, .config = *c, .handler = *h, .arg = arg, .run = true};
	TAILQ_INIT(&s->waiting);
	TAILQ_INIT(&s->busy);
	if (!s->config.idle_seconds)
		s->config.idle_seconds = IDLE_SECONDS;
	if (!s->config.discard_seconds)
		s->config.discard_seconds = HTTP_DISCARD_SECONDS;
	signal(SIGPIPE, SIG_IGN); /* sendfile has no MSG_NOSIGNAL */
	s->config.spool_fd = fcntl(c->spool_fd, F_DUPFD_CLOEXEC, 3);
	s->config.listen_fd = fcntl(c->listen_fd, F_DUPFD_CLOEXEC, 3);
	if (s->config.spool_fd < 0 || s->config.listen_fd < 0 ||
	    fd_set_nonblocking(s->config.listen_fd) < 0) {
		err_sys(e, ERR_NODE, "cannot listen for HTTP");
		goto fail;
	}
	s->accept_again = loop_timer_add(l, http_conn_accept_again, s, e);
	if (!s->accept_again || start_daemon(s, e) < 0)
		goto fail;
	s->listen_watch = loop_fd_add(l, s->config.listen_fd, EPOLLIN, http_conn_listen, s, e);
	if (!s->listen_watch)
		goto fail;
	s->accepting = true;
	return s;
fail:
	http_server_free(s);
	return NULL;
}

static void
close_door(struct http_server *s)
{
	loop_fd_remove(s->listen_watch);
	s->listen_watch = NULL;
	loop_timer_remove(s->accept_again);
	s->accept_again = NULL;
	fd_close(&s->config.listen_fd);
}

static void
grace_is_over(void *arg)
{
	struct http_server *s = arg;

	if (s->stopped)
		loop_defer(s->loop, s->stopped, s->stopped_arg);
	s->stopped = NULL;
}

void
http_server_stop(struct http_server *s, uint64_t grace_ns, void (*done)(void *arg), void *arg)
{
	struct http_conn *conn;

	if (s->stopping)
		return;
	close_door(s);
	s->stopping = true;
	s->stopped = done;
	s->stopped_arg = arg;
	s->grace = loop_timer_add(s->loop, grace_is_over, s, NULL);
	if (!s->busy_count)
		grace_ns = 0;
	TAILQ_FOREACH(conn, &s->waiting, link)
		http_conn_end(conn);
	if (s->grace)
		loop_timer_after(s->grace, grace_ns);
	else
		grace_is_over(s);
}

void
http_server_free(struct http_server *s)
{
	struct http_conn *conn;

	if (!s)
		return;
	s->stopping = s->freeing = true;
	s->stopped = NULL;
	close_door(s);
	loop_timer_remove(s->grace);
	loop_hook_remove(s->hook);
	loop_fd_remove(s->daemon_watch);
	TAILQ_FOREACH(conn, &s->busy, link)
		if (conn->request->suspended)
			MHD_resume_connection(conn->request->mhd);
	if (s->daemon)
		MHD_stop_daemon(s->daemon);
	fd_close(&s->config.spool_fd);
	loop_defer(s->loop, free, s);
}

const char *
http_method(const struct http_request *r)
{
	return r->method;
}

const char *
http_header(const struct http_request *r, const char *name)
{
	return MHD_lookup_connection_value(r->mhd, MHD_HEADER_KIND, name);
}

void
http_request_set(struct http_request *r, void *user)
{
	r->user = user;
}

void *
http_request_get(const struct http_request *r)
{
	return r->user;
}
