/*
 * Answers.  A handler may answer from within the daemon's callbacks or much later; either
 * way http_reply only makes the answer and notes it.  The daemon takes it in its own time:
 * when it calls for the complete request, again after having been resumed if need be.
 *
 * What an answer says may come from a user's function.  Fields that would change where
 * the answer ends, or add a second one, do not get through.
 */
#include "netio/http_private.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "core/base/fdio.h"
#include "core/base/log.h"

/* Longer ones are not worth copying for a client that sends and does not read. */
enum { WORDS_BODY_MAX = 64 << 10 };

static bool
is_token(const char *s)
{
	size_t n = strspn(s, "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
			     "abcdefghijklmnopqrstuvwxyz");

	return n && !s[n];
}

/* A value that fits on its line.  Bytes above 0x7f are allowed, as RFC 9110 has it. */
static bool
is_field_value(const char *s)
{
	for (; *s; s++)
		if (((unsigned char)*s < 0x20 && *s != '\t') || *s == 0x7f)
			return false;
	return true;
}

static bool
is_of_connection(const char *name)
{
	static const char *const names[] = {
		"Connection", "Content-Length",    "Date",
		"Keep-Alive", "Proxy-Connection",  "TE",
		"Trailer",    "Transfer-Encoding", "Upgrade",
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (strcasecmp(name, names[i]) == 0)
			return true;
	return false;
}

static bool
field_is_good(const char *name, const char *value)
{
	if (value && is_token(name) && is_field_value(value) && !is_of_connection(name))
		return true;
	log_warning("field of an answer dropped", "name", is_token(name) ? name : "(no token)",
		    NULL);
	return false;
}

/* The response closes the file; if there is none, it is closed here. */
static struct MHD_Response *
make_response(const struct http_reply *reply)
{
	struct MHD_Response *response;
	int fd = reply->file_fd;

	if (fd > 0 && reply->len) {
		response = MHD_create_response_from_fd_at_offset64(reply->len, fd, reply->file_offset);
		if (!response)
			fd_close(&fd);
		return response;
	}
	if (fd > 0)
		fd_close(&fd);
	return MHD_create_response_from_buffer(reply->len, (void *)(uintptr_t)reply->body,
					       MHD_RESPMEM_MUST_COPY);
}

static void
add_fields(struct http_request *r, const struct http_reply *reply)
{
	if (reply->content_type && field_is_good("Content-Type", reply->content_type))
		MHD_add_response_header(r->response, "Content-Type", reply->content_type);
	for (const struct http_field *f = reply->fields; f && f->name; f++)
		/* One of a kind: with two, each reader of the answer chooses another one. */
		if (!(reply->content_type && !strcasecmp(f->name, "Content-Type")) &&
		    field_is_good(f->name, f->value))
			MHD_add_response_header(r->response, f->name, f->value);
	if (reply->close || r->server->stopping)
		MHD_add_response_header(r->response, "Connection", "close");
}

static enum MHD_Result
put_field(void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
	(void)kind;
	if (!is_of_connection(name))
		buf_printf(arg, "%s: %s\r\n", name, value);
	return MHD_YES;
}

/* The body still arrives, and may never end: see http_reply_last_words. */
static void
keep_words(struct http_request *r, const struct http_reply *reply)
{
	size_t len = reply->file_fd > 0 || reply->len > WORDS_BODY_MAX ? 0 : reply->len;

	buf_printf(&r->words, "HTTP/1.1 %u %s\r\nContent-Length: %zu\r\nConnection: close\r\n",
		   r->status, MHD_get_reason_phrase_for(r->status), len);
	MHD_get_response_headers(r->response, put_field, &r->words);
	buf_puts(&r->words, "\r\n");
	buf_put(&r->words, reply->body, len);
}

static void
resume(struct http_request *r)
{
	if (!r->suspended)
		return;
	r->suspended = false;
	MHD_resume_connection(r->mhd);
	/* MHD_get_timeout does not tell of a resumed connection. */
	r->server->run = true;
	loop_again(r->server->loop);
}

void
http_hold(struct http_request *r)
{
	r->held = true;
}

void
http_go_on(struct http_request *r)
{
	r->held = false;
	if (!r->server->freeing)
		resume(r);
}

void
http_reply(struct http_request *r, const struct http_reply *reply)
{
	static const struct http_reply none = {.status = 500};
	int fd = reply->file_fd;

	if (r->replied || r->server->freeing) {
		if (!r->server->freeing)
			log_error("a request was answered twice", "path", r->target.path, NULL);
		if (fd > 0)
			fd_close(&fd);
		return;
	}
	r->replied = true;
	r->held = false;
	r->status = reply->status < 200 || reply->status > 599 ? 500 : (unsigned)reply->status;
	r->response = make_response(reply);
	if (!r->response) {
		log_error("out of memory for an answer", NULL);
		reply = &none;
		r->status = 500;
		r->response = make_response(reply); /* if not: the connection is closed */
	}
	if (r->response) {
		add_fields(r, reply);
		if (r->has_body && r->stage != HTTP_COMPLETE)
			keep_words(r, reply);
	}
	if (r->stage == HTTP_BODY)
		http_body_discard(r);
	resume(r);
}

void
http_reply_problem(struct http_request *r, int status, const char *type, const char *detail)
{
	static const struct http_field retry_soon[] = {{"Retry-After", "1"}, {NULL, NULL}};
	char body[512];
	int len = snprintf(body, sizeof(body),
			   "{\"type\":\"%s\",\"title\":\"%s\",\"status\":%d,\"detail\":\"%s\"}\n",
			   type, MHD_get_reason_phrase_for((unsigned)status), status, detail);

	http_reply(r, &(struct http_reply){.status = status,
					   .content_type = "application/problem+json",
					   .fields = status == 503 ? retry_soon : NULL,
					   .body = body,
					   .len = (size_t)len});
}

bool
http_reply_queue(struct http_request *r)
{
	bool taken;

	if (!r->response)
		return false;
	taken = MHD_queue_response(r->mhd, r->status, r->response) == MHD_YES;
	MHD_destroy_response(r->response);
	r->response = NULL;
	return taken;
}

/*
 * The daemon answers before the body or after it, not in its midst.  So the answer goes to
 * the socket directly, as much as it takes at once; the connection ends after that.
 */
void
http_reply_last_words(struct http_request *r)
{
	if (r->words.len &&
	    send(r->conn->fd, r->words.data, r->words.len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		log_debug("a client did not take its answer", NULL);
	buf_free(&r->words);
}
