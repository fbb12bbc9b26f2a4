/*
 * A real server in a process of its own, and a client that writes bytes, for the tests of
 * the HTTP server and client.  The server's process ends through its whole clean-up, so
 * that a leak or a wild access in it fails the test that started it.  Include cmocka.h before.
 */
#ifndef PRATAI_TEST_HTTP_FIXTURE_H
#define PRATAI_TEST_HTTP_FIXTURE_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/log.h"
#include "netio/http_server.h"
#include "netio/loop.h"

enum { LIMIT_BYTES = 1 << 20, MEMORY_BYTES = 4096, PATIENCE_SECONDS = 20 };

/* ---- The server ---- */

struct site {
	struct loop *loop;
	struct http_server *server;
	unsigned begun, handled, gone;
};

struct later {
	struct site *site;
	struct http_request *request;
	struct loop_timer *timer;
};

static inline void
reply_text(struct http_request *r, int status, const char *text)
{
	http_reply(r, &(struct http_reply){.status = status,
					   .content_type = "text/plain",
					   .body = text,
					   .len = strlen(text)});
}

static inline void
wait_a_little(struct site *site, struct http_request *r, uint64_t ns, void (*fn)(void *later))
{
	struct later *later = calloc(1, sizeof(*later));

	*later = (struct later){site, r, loop_timer_add(site->loop, fn, later, NULL)};
	if (ns)
		loop_timer_after(later->timer, ns);
	http_request_set(r, later);
}

/* "/ask/…" is decided a little later: "/ask/no" refused, the others as they are. */
static inline void
decide_later(void *arg)
{
	struct later *later = arg;
	struct http_request *r = later->request;

	loop_timer_remove(later->timer);
	free(later);
	http_request_set(r, NULL);
	if (strcmp(http_path(r), "/ask/no") == 0)
		reply_text(r, 401, "who are you?");
	else
		http_go_on(r);
}

static inline int64_t
site_begin(void *arg, struct http_request *r)
{
	struct site *site = arg;

	site->begun++;
	if (strncmp(http_path(r), "/ask/", 5) == 0) {
		http_hold(r);
		wait_a_little(site, r, 20 * NS_PER_MS, decide_later);
	}
	if (strcmp(http_path(r), "/deny") == 0)
		reply_text(r, 401, "who are you?");
	if (strcmp(http_path(r), "/none") == 0)
		return 0;
	return strcmp(http_path(r), "/huge") == 0 ? 100 << 20 : LIMIT_BYTES;
}

static inline void
site_too_large(void *arg, struct http_request *r, int64_t limit)
{
	char text[64];

	(void)arg;
	snprintf(text, sizeof(text), "at most %lld bytes", (long long)limit);
	reply_text(r, 413, text);
}

static inline void
site_gone(void *arg, struct http_request *r)
{
	struct site *site = arg;
	struct later *later = http_request_get(r);

	site->gone++;
	if (later) {
		loop_timer_remove(later->timer);
		free(later);
	}
}

static inline void
reply_later(void *arg)
{
	struct later *later = arg;
	size_t len;
	const void *body = http_body(later->request, &len);

	http_reply(later->request, &(struct http_reply){.status = 200, .body = body, .len = len});
}

static inline void
reply_body(struct http_request *r)
{
	const char *spooled = http_body_fd(r) >= 0 ? "yes" : "no";
	struct http_field fields[] = {
		{"X-Spooled", spooled}, {"X-Method", http_method(r)}, {NULL, NULL}};
	size_t len;
	const void *body = http_body(r, &len);

	http_reply(r, &(struct http_reply){.status = 200,
					   .fields = fields,
					   .body = body,
					   .len = len,
					   .content_type = http_header(r, "Content-Type")});
}

static inline void
reply_taken(struct http_request *r)
{
	struct http_reply reply = {.status = 200};
	struct err e;
	void *data;
	int fd;

	if (http_body_take(r, &data, &reply.len, &fd, &e) < 0) {
		reply_text(r, 500, e.text);
		return;
	}
	reply.body = data;
	reply.file_fd = fd > 0 ? fd : 0;
	http_reply(r, &reply);
	free(data);
}

static inline void
reply_form(struct http_request *r)
{
	struct http_part parts[HTTP_PARTS_MAX];
	struct buf b = {0};
	struct err e = {0};
	size_t len;
	const void *body = http_body(r, &len);
	int n = http_multipart(http_header(r, "Content-Type"), body, len, parts, &e);

	for (int i = 0; i < n; i++)
		buf_printf(&b, "%s|%s|%.*s;", parts[i].name,
			   parts[i].filename ? parts[i].filename : "-", (int)parts[i].len,
			   (const char *)parts[i].data);
	reply_text(r, n < 0 ? 400 : 200, n < 0 ? e.text : b.data ? b.data : "");
	http_multipart_free(parts, n);
	buf_free(&b);
}

static inline void
reply_fields(struct http_request *r)
{
	static const struct http_field fields[] = {
		{"X-Good", "yes \xc3\xa9"},
		{"X-Split", "a\r\nX-Evil: 1"},
		{"X Bad", "1"},
		{"", "1"},
		{"Content-Length", "5"},
		{"Transfer-Encoding", "chunked"},
		{"connection", "upgrade"},
		{"X-Twice", "1"},
		{"X-Twice", "2"},
		{"content-type", "text/second"},
		{NULL, NULL},
	};

	http_reply(r, &(struct http_reply){.status = 700, .content_type = "text/first",
					   .fields = fields, .body = "ok", .len = 2});
}

/* Ten bytes of a file, or the part that is asked for. */
static inline void
reply_range(struct http_request *r)
{
	struct http_reply reply = {.status = 200, .file_fd = memfd_create("range", MFD_CLOEXEC)};
	int part = http_range(r, 10, &reply.file_offset);

	if (fd_write_all(reply.file_fd, "0123456789", 10))
		abort();
	if (part)
		reply.status = part;
	reply.len = part == 416 ? 0 : 10 - reply.file_offset;
	http_reply(r, &reply);
}

static inline void
reply_stats(struct site *site, struct http_request *r)
{
	char text[64];

	snprintf(text, sizeof(text), "%u %u %u", site->begun, site->handled, site->gone);
	reply_text(r, 200, text);
}

static inline void
site_handle(void *arg, struct http_request *r)
{
	struct site *site = arg;
	const char *path = http_path(r), *a = http_query(r, "a");

	site->handled++;
	if (strcmp(path, "/later") == 0)
		wait_a_little(site, r, 20 * NS_PER_MS, reply_later);
	else if (strcmp(path, "/never") == 0)
		wait_a_little(site, r, 0, reply_later);
	else if (strcmp(path, "/take") == 0)
		reply_taken(r);
	else if (strcmp(path, "/form") == 0)
		reply_form(r);
	else if (strcmp(path, "/fields") == 0)
		reply_fields(r);
	else if (strcmp(path, "/range") == 0)
		reply_range(r);
	else if (strcmp(path, "/stats") == 0)
		reply_stats(site, r);
	else if (strcmp(path, "/empty") == 0)
		http_reply(r, &(struct http_reply){.status = 204});
	else if (strcmp(path, "/close") == 0)
		http_reply(r, &(struct http_reply){
				      .status = 200, .body = "bye", .len = 3, .close = true});
	else if (strcmp(path, "/twice") == 0)
		reply_text(r, 200, "once"), reply_text(r, 500, "twice");
	else if (strncmp(path, "/path/", 6) == 0)
		reply_text(r, 200, path);
	else if (strcmp(path, "/query") == 0)
		reply_text(r, a ? 200 : 404, a ? a : "");
	else
		reply_body(r);
}

static inline void
site_stopped(void *arg)
{
	struct site *site = arg;

	loop_stop(site->loop);
}

static inline void
site_stop(void *arg, int signo)
{
	struct site *site = arg;

	(void)signo;
	http_server_stop(site->server, 300 * NS_PER_MS, site_stopped, site);
}

static inline void
site_run(int listen_fd, struct http_server_config config)
{
	static const struct http_handler handler = {site_begin, site_handle, site_too_large,
						    site_gone};
	struct site site = {0};
	struct err e;

	log_open("site", LOG_ERROR);
	config.listen_fd = listen_fd;
	config.spool_fd = open("/tmp", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	if (!config.body_memory_bytes)
		config.body_memory_bytes = MEMORY_BYTES;
	if (!config.connections_max)
		config.connections_max = 100;
	site.loop = loop_new(&e);
	site.server = http_server_new(site.loop, &config, &handler, &site, &e);
	close(listen_fd);
	close(config.spool_fd);
	if (!site.server || loop_signal(site.loop, SIGTERM, site_stop, &site, &e) < 0 ||
	    loop_run(site.loop, &e) < 0)
		_exit(9);
	http_server_free(site.server);
	loop_free(site.loop);
	exit(site.begun == site.gone ? 0 : 8); /* leak checks run at exit */
}

static pid_t site_pid;
static int site_port;

static inline int
listen_somewhere(int *port)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (bind(fd, (struct sockaddr *)&addr, len) < 0 || listen(fd, 4096) < 0 ||
	    getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
		abort();
	*port = ntohs(addr.sin_port);
	return fd;
}

/* before runs in the server's process first.  SIGTERM waits until its loop takes it. */
static inline void
site_start(struct http_server_config config, void (*before)(void))
{
	int fd = listen_somewhere(&site_port);
	sigset_t term;

	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, NULL);
	fflush(NULL);
	site_pid = fork();
	if (!site_pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that failed does not end it */
		if (before)
			before();
		site_run(fd, config);
	}
	sigprocmask(SIG_UNBLOCK, &term, NULL);
	close(fd);
}

/* The server's exit code after SIGTERM; 0 means that every begun request was let go. */
static inline int
site_end(void)
{
	int status = -1;

	kill(site_pid, SIGTERM);
	waitpid(site_pid, &status, 0);
	site_pid = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* For cmocka. */
static inline int
site_setup(void **state)
{
	(void)state;
	site_start((struct http_server_config){.idle_seconds = 30, .discard_seconds = 1}, NULL);
	return 0;
}

static inline int
site_teardown(void **state)
{
	(void)state;
	assert_int_equal(site_end(), 0);
	return 0;
}

/* ---- A client that writes bytes ---- */

static inline int
dial(void)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_port = htons((uint16_t)site_port),
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct timeval patience = {.tv_sec = PATIENCE_SECONDS};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		abort();
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	return fd;
}

static inline int
put(int fd, const char *text)
{
	return send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text) ? 0 : -1;
}

/* count bytes of 'x'.  -1 when the other end is gone. */
static inline int
put_many(int fd, size_t count)
{
	static char block[65536];

	memset(block, 'x', sizeof(block));
	while (count) {
		size_t n = count < sizeof(block) ? count : sizeof(block);
		ssize_t sent = send(fd, block, n, MSG_NOSIGNAL);

		if (sent <= 0)
			return -1;
		count -= (size_t)sent;
	}
	return 0;
}

struct got {
	int status;      /* 0: the connection ended without an answer; -1: silence */
	char head[8192]; /* with the status line */
	char *body;
	size_t len;
};

static inline void
got_free(struct got *g)
{
	free(g->body);
	g->body = NULL;
}

/* One answer, byte by byte up to the body so that a pipelined next one stays unread. */
static inline struct got
get(int fd)
{
	struct got g = {0};
	size_t n = 0;
	const char *length;
	ssize_t rc = 1;

	while (n < sizeof(g.head) - 1 && (rc = recv(fd, g.head + n, 1, 0)) == 1)
		if (++n >= 4 && memcmp(g.head + n - 4, "\r\n\r\n", 4) == 0)
			break;
	if (rc != 1) {
		g.status = rc < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? -1 : 0;
		return g;
	}
	sscanf(g.head, "HTTP/1.1 %d", &g.status);
	length = strcasestr(g.head, "\r\nContent-Length: ");
	if (length && g.status >= 200)
		g.len = strtoul(length + 18, NULL, 10);
	g.body = calloc(1, g.len + 1);
	if (g.len && recv(fd, g.body, g.len, MSG_WAITALL) != (ssize_t)g.len)
		g.status = -2;
	return g;
}

static inline bool
at_end(int fd)
{
	char c;
	ssize_t n = recv(fd, &c, 1, 0);

	return n == 0 || (n < 0 && errno != EAGAIN);
}

#define H "Host: x\r\n"

/* Sends text on a connection of its own and wants status, and body unless NULL. */
static inline void
expect(const char *text, int status, const char *body)
{
	int fd = dial();
	struct got g;

	assert_int_equal(put(fd, text), 0);
	g = get(fd);
	if (g.status != status || (body && (!g.body || strcmp(g.body, body) != 0)))
		fail_msg("%.60s...: %d %s", text, g.status, g.body ? g.body : "");
	got_free(&g);
	close(fd);
}

static inline void
want_answer(int fd, int status, const char *body)
{
	struct got g = get(fd);

	assert_int_equal(g.status, status);
	assert_string_equal(g.body, body);
	got_free(&g);
}

#endif
