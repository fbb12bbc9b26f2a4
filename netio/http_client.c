/*
 * libcurl's multi interface on the loop: curl says which descriptors to watch and when to
 * wake it; we tell it what happened and collect what has ended.
 *
 * curl must not be entered again from within its own callbacks (a progress callback may
 * want to cancel): such a call is only marked, and ended when curl has returned.
 */
#include "netio/http_client.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/str.h"
#include "netio/loop.h"

enum {
	ANSWER_MAX = 64 << 20,
	CONNECT_SECONDS = 5,
	KEPT_CONNECTIONS = 64,
	PEER_MAX = 300, /* host:port */
};

struct http_client {
	struct loop *loop;
	CURLM *multi;
	struct loop_timer *timer;
	bool in_curl;
	LIST_HEAD(, http_call) calls;
	LIST_HEAD(, watch) watches;
};

struct watch {
	struct http_client *client;
	curl_socket_t fd;
	struct loop_fd *on_loop;
	LIST_ENTRY(watch) link;
};

struct http_call {
	struct http_client *client;
	CURL *easy;
	struct curl_slist *fields;
	char peer[PEER_MAX];
	char *body;
	int body_fd, out_fd;
	off_t body_at;
	struct buf answer;
	size_t answer_len, answer_max;
	int write_errnum; /* of out_fd */
	bool too_long, finished, cancelled;
	void (*progress)(void *arg, uint64_t sent, uint64_t total);
	http_answer_fn fn;
	void *arg;
	LIST_ENTRY(http_call) link;
};

/* ---- The end of a call ---- */

static void
free_call(struct http_call *call)
{
	if (call->easy) {
		curl_multi_remove_handle(call->client->multi, call->easy);
		curl_easy_cleanup(call->easy);
		LIST_REMOVE(call, link);
	}
	curl_slist_free_all(call->fields);
	free(call->body);
	fd_close(&call->body_fd);
	fd_close(&call->out_fd);
	buf_free(&call->answer);
	free(call);
}

static void
explain_timeout(const struct http_call *call, struct err *e)
{
	long sent = 0;

	curl_easy_getinfo(call->easy, CURLINFO_REQUEST_SIZE, &sent);
	err_set(e, ERR_AGAIN, sent ? "%s did not answer in time" : "cannot reach %s: no answer",
		call->peer);
}

static void
explain(const struct http_call *call, CURLcode code, struct err *e)
{
	long errnum = 0;

	curl_easy_getinfo(call->easy, CURLINFO_OS_ERRNO, &errnum);
	switch (code) {
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
		err_set(e, ERR_AGAIN,
			"cannot reach %s: there is no such host, or no answer about it",
			call->peer);
		break;
	case CURLE_COULDNT_CONNECT:
		errno = errnum ? (int)errnum : EHOSTUNREACH;
		err_sys(e, ERR_AGAIN, "cannot reach %s", call->peer);
		break;
	case CURLE_OPERATION_TIMEDOUT:
		explain_timeout(call, e);
		break;
	case CURLE_GOT_NOTHING:
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_PARTIAL_FILE:
		err_set(e, ERR_AGAIN, "%s closed the connection before its answer was complete",
			call->peer);
		break;
	case CURLE_WEIRD_SERVER_REPLY:
	case CURLE_UNSUPPORTED_PROTOCOL:
		err_set(e, ERR_AGAIN, "what answers at %s does not speak HTTP", call->peer);
		break;
	case CURLE_WRITE_ERROR:
		errno = call->write_errnum;
		if (call->too_long)
			err_set(e, ERR_LIMIT, "the answer of %s is longer than %zu bytes",
				call->peer, call->answer_max);
		else
			err_sys(e, ERR_NODE, "cannot keep the answer of %s", call->peer);
		break;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_ISSUER_ERROR:
		err_set(e, ERR_DENIED, "%s is not to be trusted: %s", call->peer,
			curl_easy_strerror(code));
		break;
	default:
		err_set(e, ERR_AGAIN, "no answer from %s: %s", call->peer,
			curl_easy_strerror(code));
	}
}

static void
finish(struct http_call *call, CURLcode code)
{
	struct http_answer a = {.body = call->answer.data ? call->answer.data : "",
				.len = call->answer_len,
				.content_type = "",
				.call = call};
	struct err e = {0};
	const char *type = NULL;
	long status = 0;

	call->finished = true;
	curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(call->easy, CURLINFO_CONTENT_TYPE, &type);
	a.status = (int)status;
	if (type)
		a.content_type = type;
	if (code != CURLE_OK)
		explain(call, code, &e);
	if (!call->cancelled)
		call->fn(call->arg, code == CURLE_OK ? &a : NULL, code == CURLE_OK ? NULL : &e);
	free_call(call);
}

/* Callbacks may ask and cancel as they like: curl is not running now. */
static void
collect(struct http_client *c)
{
	struct http_call *call, *next;
	CURLMsg *message;
	int left;

	for (call = LIST_FIRST(&c->calls); call; call = next) {
		next = LIST_NEXT(call, link);
		if (call->cancelled && !call->finished)
			free_call(call);
	}
	while ((message = curl_multi_info_read(c->multi, &left))) {
		CURLcode code = message->data.result;
		char *private = NULL;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &private);
		finish((struct http_call *)(void *)private, code);
	}
}

static void
act(struct http_client *c, curl_socket_t fd, int events)
{
	int running;

	c->in_curl = true;
	curl_multi_socket_action(c->multi, fd, events, &running);
	c->in_curl = false;
	collect(c);
}

/* ---- The loop's side ---- */

static void
on_socket(void *arg, uint32_t events)
{
	struct watch *w = arg;

	act(w->client, w->fd,
	    (events & EPOLLIN ? CURL_CSELECT_IN : 0) | (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
		    (events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0));
}

static void
on_timer(void *arg)
{
	act(arg, CURL_SOCKET_TIMEOUT, 0);
}

static void
unwatch(struct http_client *c, struct watch *w)
{
	loop_fd_remove(w->on_loop);
	LIST_REMOVE(w, link);
	loop_defer(c->loop, free, w); /* on_socket may be running for it */
}

static int
set_watch(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
	struct http_client *c = arg;
	struct watch *w = known;
	uint32_t events = 0;

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		if (w)
			unwatch(c, w);
		return 0;
	}
	if (what & CURL_POLL_IN)
		events |= EPOLLIN;
	if (what & CURL_POLL_OUT)
		events |= EPOLLOUT;
	if (w)
		return loop_fd_set(w->on_loop, events);
	w = calloc(1, sizeof(*w));
	if (!w)
		return -1;
	*w = (struct watch){.client = c, .fd = fd};
	w->on_loop = loop_fd_add(c->loop, fd, events, on_socket, w, NULL);
	if (!w->on_loop) {
		free(w);
		return -1;
	}
	LIST_INSERT_HEAD(&c->watches, w, link);
	curl_multi_assign(c->multi, fd, w);
	return 0;
}

static int
set_timer(CURLM *multi, long timeout_ms, void *arg)
{
	struct http_client *c = arg;

	(void)multi;
	if (timeout_ms < 0)
		loop_timer_clear(c->timer);
	else
		loop_timer_after(c->timer, (uint64_t)timeout_ms * NS_PER_MS);
	return 0;
}

/* ---- The client ---- */

struct http_client *
http_client_new(struct loop *l, struct err *e)
{
	struct http_client *c = calloc(1, sizeof(*c));

	if (!c) {
		err_set(e, ERR_NODE, "out of memory for the HTTP client");
		return NULL;
	}
	c->loop = l;
	LIST_INIT(&c->calls);
	LIST_INIT(&c->watches);
	c->timer = loop_timer_add(l, on_timer, c, e);
	if (!c->timer)
		goto fail;
	signal(SIGPIPE, SIG_IGN); /* TLS libraries write without MSG_NOSIGNAL */
	if (curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK)
		c->multi = curl_multi_init();
	if (!c->multi) {
		err_set(e, ERR_NODE, "cannot start the HTTP client");
		goto fail;
	}
	curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, set_watch);
	curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
	curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
	curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, (long)KEPT_CONNECTIONS);
	return c;
fail:
	loop_timer_remove(c->timer);
	free(c);
	return NULL;
}

void
http_client_free(struct http_client *c)
{
	if (!c)
		return;
	while (!LIST_EMPTY(&c->calls))
		free_call(LIST_FIRST(&c->calls));
	curl_multi_cleanup(c->multi);
	while (!LIST_EMPTY(&c->watches))
		unwatch(c, LIST_FIRST(&c->watches));
	loop_timer_remove(c->timer);
	free(c);
	curl_global_cleanup();
}

/* ---- curl's callbacks for one call ---- */

static size_t
keep_answer(char *data, size_t size, size_t n, void *arg)
{
	struct http_call *call = arg;
	size_t len = size * n;

	if (len > call->answer_max - call->answer_len) {
		call->too_long = true;
		return CURL_WRITEFUNC_ERROR;
	}
	if (call->out_fd >= 0 ? fd_write_all(call->out_fd, data, len)
			      : buf_put(&call->answer, data, len)) {
		call->write_errnum = errno;
		return CURL_WRITEFUNC_ERROR;
	}
	call->answer_len += len;
	return len;
}

static size_t
read_body(char *to, size_t size, size_t n, void *arg)
{
	struct http_call *call = arg;
	ssize_t got = pread(call->body_fd, to, size * n, call->body_at);

	if (got < 0)
		return CURL_READFUNC_ABORT;
	call->body_at += got;
	return (size_t)got;
}

static int
seek_body(void *arg, curl_off_t offset, int origin)
{
	struct http_call *call = arg;

	if (origin != SEEK_SET)
		return CURL_SEEKFUNC_CANTSEEK;
	call->body_at = offset;
	return CURL_SEEKFUNC_OK;
}

static int
report_progress(void *arg, curl_off_t down_total, curl_off_t down, curl_off_t total,
		curl_off_t sent)
{
	struct http_call *call = arg;

	(void)down_total;
	(void)down;
	if (!call->cancelled)
		call->progress(call->arg, (uint64_t)sent, (uint64_t)total);
	return call->cancelled; /* 1 ends it */
}

/* ---- Asking ---- */

static bool
is_loopback(const char *host)
{
	size_t len = strlen(host);

	return strcasecmp(host, "localhost") == 0 || str_starts(host, "127.") ||
	       strcmp(host, "[::1]") == 0 ||
	       (len > 10 && strcasecmp(host + len - 10, ".localhost") == 0);
}

/* Checks the URL, notes whom it names, and whether a proxy may stand between. */
static int
set_url(struct http_call *call, const char *url, struct err *e)
{
	CURLU *parts = curl_url();
	char *host = NULL, *port = NULL, *scheme = NULL;
	CURLUcode code = CURLUE_OUT_OF_MEMORY;
	int rc = 0;

	if (parts)
		code = curl_url_set(parts, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME);
	if (code || curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) ||
	    curl_url_get(parts, CURLUPART_HOST, &host, 0) || !*host)
		rc = err_set(e, ERR_INPUT, "not a URL: %.200s", url);
	else if (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0)
		rc = err_set(e, ERR_INPUT, "a URL of http or https is needed, not %.200s", url);
	else if (curl_url_get(parts, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT))
		rc = err_set(e, ERR_INPUT, "no port in the URL %.200s", url);
	if (rc == 0) {
		snprintf(call->peer, sizeof(call->peer), "%.280s:%s", host, port);
		curl_easy_setopt(call->easy, CURLOPT_URL, url);
		if (is_loopback(host))
			curl_easy_setopt(call->easy, CURLOPT_PROXY, "");
	}
	curl_free(scheme);
	curl_free(host);
	curl_free(port);
	curl_url_cleanup(parts);
	return rc;
}

static bool
is_field_text(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 && *s != '\t')
			return false;
	return true;
}

static int
add_field(struct http_call *call, const char *name, const char *value, struct err *e)
{
	struct buf line = {.max = 64 << 10};
	struct curl_slist *longer;

	if (!*name || strpbrk(name, " \t:;\r\n") || !is_field_text(name) || !is_field_text(value))
		return err_set(e, ERR_INPUT, "not a header field: %.100s",
			       is_field_text(name) ? name : "");
	/* "Name;" is curl's way to send a field without a value, "Name:" to send none. */
	if (*value)
		buf_printf(&line, "%s: %s", name, value);
	else
		buf_printf(&line, "%s;", name);
	longer = line.failed ? NULL : curl_slist_append(call->fields, line.data);
	buf_free(&line);
	if (!longer)
		return err_set(e, ERR_INPUT, "a header field is too long: %.100s", name);
	call->fields = longer;
	return 0;
}

static int
set_fields(struct http_call *call, const struct http_field *fields, struct err *e)
{
	bool typed = false;
	struct curl_slist *longer;

	for (const struct http_field *f = fields; f && f->name; f++) {
		if (add_field(call, f->name, f->value, e) < 0)
			return -1;
		typed = typed || strcasecmp(f->name, "Content-Type") == 0;
	}
	if (!typed) {
		/* Else curl says that the body is a form. */
		longer = curl_slist_append(call->fields, "Content-Type:");
		if (!longer)
			return err_set(e, ERR_NODE, "out of memory for a request");
		call->fields = longer;
	}
	curl_easy_setopt(call->easy, CURLOPT_HTTPHEADER, call->fields);
	return 0;
}

static int
set_file_body(struct http_call *call, int fd, struct err *e)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return err_set(e, ERR_NODE, "the body of a request is no regular file");
	call->body_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (call->body_fd < 0)
		return err_sys(e, ERR_NODE, "cannot keep the body of a request");
	curl_easy_setopt(call->easy, CURLOPT_UPLOAD, 1L);
	curl_easy_setopt(call->easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)st.st_size);
	curl_easy_setopt(call->easy, CURLOPT_READFUNCTION, read_body);
	curl_easy_setopt(call->easy, CURLOPT_READDATA, call);
	curl_easy_setopt(call->easy, CURLOPT_SEEKFUNCTION, seek_body);
	curl_easy_setopt(call->easy, CURLOPT_SEEKDATA, call);
	return 0;
}

static int
set_method_and_body(struct http_call *call, const struct http_ask *ask, struct err *e)
{
	const char *method = ask->method ? ask->method : "GET";

	if (!*method || method[strspn(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")])
		return err_set(e, ERR_INPUT, "not a method: %.20s", method);
	if (ask->body_fd > 0) {
		if (set_file_body(call, ask->body_fd, e) < 0)
			return -1;
	} else if (ask->body_len || strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0 ||
		   strcmp(method, "PATCH") == 0) {
		call->body = malloc(ask->body_len + 1);
		if (!call->body)
			return err_set(e, ERR_NODE, "out of memory for the body of a request");
		if (ask->body_len)
			memcpy(call->body, ask->body, ask->body_len);
		curl_easy_setopt(call->easy, CURLOPT_POSTFIELDSIZE_LARGE,
				 (curl_off_t)ask->body_len);
		curl_easy_setopt(call->easy, CURLOPT_POSTFIELDS, call->body);
	} else if (strcmp(method, "HEAD") == 0) {
		curl_easy_setopt(call->easy, CURLOPT_NOBODY, 1L);
	}
	curl_easy_setopt(call->easy, CURLOPT_CUSTOMREQUEST, method);
	return 0;
}

static int
set_answer(struct http_call *call, const struct http_ask *ask, struct err *e)
{
	call->answer_max = ask->answer_max ? ask->answer_max : ANSWER_MAX;
	call->answer.max = call->answer_max;
	if (ask->out_fd > 0) {
		call->out_fd = fcntl(ask->out_fd, F_DUPFD_CLOEXEC, 3);
		if (call->out_fd < 0)
			return err_sys(e, ERR_NODE, "cannot keep the file of an answer");
	}
	curl_easy_setopt(call->easy, CURLOPT_WRITEFUNCTION, keep_answer);
	curl_easy_setopt(call->easy, CURLOPT_WRITEDATA, call);
	if (ask->progress) {
		call->progress = ask->progress;
		curl_easy_setopt(call->easy, CURLOPT_XFERINFOFUNCTION, report_progress);
		curl_easy_setopt(call->easy, CURLOPT_XFERINFODATA, call);
		curl_easy_setopt(call->easy, CURLOPT_NOPROGRESS, 0L);
	}
	return 0;
}

static long
milliseconds(uint64_t ns)
{
	uint64_t ms = (ns + NS_PER_MS - 1) / NS_PER_MS;

	return ms > INT32_MAX ? INT32_MAX : (long)ms;
}

static void
set_manners(struct http_call *call, const struct http_ask *ask)
{
	CURL *easy = call->easy;
	uint64_t connect_ns = ask->connect_ns ? ask->connect_ns : CONNECT_SECONDS * NS_PER_S;

	curl_easy_setopt(easy, CURLOPT_PRIVATE, call);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "pratai/" PRATAI_VERSION);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, milliseconds(connect_ns));
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, milliseconds(ask->total_ns));
}

struct http_call *
http_client_ask(struct http_client *c, const struct http_ask *ask, http_answer_fn fn, void *arg,
		struct err *e)
{
	struct http_call *call = calloc(1, sizeof(*call));

	if (!call) {
		err_set(e, ERR_NODE, "out of memory for a request");
		return NULL;
	}
	*call = (struct http_call){.client = c, .fn = fn, .arg = arg, .body_fd = -1, .out_fd = -1};
	call->easy = curl_easy_init();
	if (!call->easy) {
		err_set(e, ERR_NODE, "out of memory for a request");
		free(call);
		return NULL;
	}
	LIST_INSERT_HEAD(&c->calls, call, link);
	set_manners(call, ask);
	if (set_url(call, ask->url, e) < 0 || set_method_and_body(call, ask, e) < 0 ||
	    set_fields(call, ask->fields, e) < 0 || set_answer(call, ask, e) < 0)
		goto fail;
	if (curl_multi_add_handle(c->multi, call->easy) != CURLM_OK) {
		err_set(e, ERR_NODE, "cannot begin a request to %s", call->peer);
		goto fail;
	}
	return call;
fail:
	free_call(call);
	return NULL;
}

void
http_call_cancel(struct http_call *call)
{
	if (!call || call->finished || call->cancelled)
		return;
	call->cancelled = true;
	if (!call->client->in_curl)
		free_call(call);
}

const char *
http_answer_field(const struct http_answer *a, const char *name)
{
	struct curl_header *field;

	if (curl_easy_header(a->call->easy, name, 0, CURLH_HEADER, -1, &field) != CURLHE_OK)
		return NULL;
	return field->value;
}
