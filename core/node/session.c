/*
 * Two states: registering (a request is under way, or a pause before the next one) and
 * open (sockets, heartbeats).  The sockets of a session that went silent stay open until
 * the next one begins: a scheduler that was only slow still gets what it is owed.
 */
#include "core/node/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/base/str.h"
#include "netio/http_client.h"
#include "netio/loop.h"
#include "netio/mq.h"

enum { ENDPOINT_MAX = 256, ANSWER_MAX = 16 << 10, SILENT_BEATS = 3 };

static const uint64_t FIRST_PAUSE_NS = 100 * NS_PER_MS, LAST_PAUSE_NS = 2 * NS_PER_S,
		      REGISTER_MAX_NS = 10 * NS_PER_S, BUSY_PAUSE_NS = 20 * NS_PER_MS;

struct session {
	struct session_config c;
	bool open;
	struct id id;
	char node_id[EVENT_NODE_MAX];
	char dispatch_at[ENDPOINT_MAX], collect_at[ENDPOINT_MAX];
	uint64_t heartbeat_ns, heard_ns, pause_ns;
	struct mq_socket *dispatch, *collect;
	struct loop_timer *timer; /* the next request, or the next heartbeat */
	struct loop_timer *soon;  /* a heartbeat before its time */
	struct http_call *call;
	char complaint[160]; /* the last one that was logged */
	uint64_t dropped;    /* messages that were none */
};

static void
complain(struct session *s, const char *what)
{
	if (!strncmp(s->complaint, what, sizeof s->complaint - 1))
		return;
	snprintf(s->complaint, sizeof s->complaint, "%s", what);
	log_warning("cannot register, trying again", "reason", what, NULL);
}

static void
again_later(struct session *s)
{
	loop_timer_after(s->timer, s->pause_ns);
	s->pause_ns = s->pause_ns * 2 < LAST_PAUSE_NS ? s->pause_ns * 2 : LAST_PAUSE_NS;
}

static void
begin_again(struct session *s, const char *why)
{
	if (!s->open)
		return;
	log_warning("registering again", "reason", why, NULL);
	s->open = false;
	s->pause_ns = FIRST_PAUSE_NS;
	loop_timer_clear(s->soon);
	loop_timer_after(s->timer, 0);
}

/* ---- Open ---- */

static int
send_message(struct session *s, struct mq_socket *to, struct message *m, const void *second,
	     size_t second_len, const void *third, size_t third_len)
{
	struct mq_frame frames[3] = { { NULL, 0 }, { second, second_len }, { third, third_len } };
	struct err e = { 0 };
	char *text;
	int rc;

	if (!s->open || !to)
		return -1;
	m->session = s->id;
	text = message_encode(m);
	if (!text)
		return -1;
	frames[0].data = text;
	frames[0].len = strlen(text);
	rc = mq_send(to, frames, m->type == MSG_RESULT ? 3 : 1, &e);
	if (rc && e.cls != ERR_AGAIN)
		log_err("cannot send a message", &e);
	free(text);
	return rc;
}

static void
heartbeat(struct session *s)
{
	struct message m = { .type = MSG_HEARTBEAT };
	int rc;

	s->c.fill(s->c.arg, &m);
	rc = send_message(s, s->dispatch, &m, NULL, 0, NULL, 0);
	message_clear(&m);
	/* Not connected yet, most often: the scheduler waits for the first one. */
	if (rc)
		loop_timer_after(s->soon, BUSY_PAUSE_NS);
}

static void
on_soon(void *arg)
{
	struct session *s = arg;

	if (s->open)
		heartbeat(s);
}

void
session_heartbeat_soon(struct session *s)
{
	if (s->open && !loop_timer_pending(s->soon))
		loop_timer_after(s->soon, 0);
}

static void
on_message(void *arg, const struct mq_frame *frames, size_t n)
{
	struct session *s = arg;
	struct message m;
	struct err e = { 0 };
	bool none;

	if (!n || message_decode(frames[0].data, frames[0].len, &m, &e)) {
		if (!s->dropped++)
			log_err("a message was dropped", &e);
		return;
	}
	s->heard_ns = loop_now(s->c.loop);
	none = !m.lease.term && !m.lease.seq;
	if (none && m.type == MSG_CANCEL)
		begin_again(s, "the scheduler does not know the session");
	else if (!none && (m.type == MSG_JOB || m.type == MSG_SETTLED || m.type == MSG_CANCEL))
		s->c.message(s->c.arg, &m, n > 1 ? frames[1].data : NULL, n > 1 ? frames[1].len : 0);
	message_clear(&m);
}

static void
close_sockets(struct session *s)
{
	mq_close(s->dispatch);
	mq_close(s->collect);
	s->dispatch = s->collect = NULL;
}

static int
open_sockets(struct session *s, struct err *e)
{
	struct mq_options dispatch = { .connect = s->dispatch_at, .routing_id = s->id.b,
				       .routing_id_len = sizeof s->id.b };
	struct mq_options collect = { .connect = s->collect_at };

	close_sockets(s);
	s->dispatch = mq_open(s->c.mq, MQ_DEALER, &dispatch, on_message, s, e);
	s->collect = s->dispatch ? mq_open(s->c.mq, MQ_PUSH, &collect, NULL, NULL, e) : NULL;
	return s->collect ? 0 : -1;
}

static int
read_answer(struct session *s, const struct json *j, struct err *e)
{
	const char *id = json_str(j, "session"), *node = json_str(j, "node_id");
	const char *dispatch = json_str(j, "dispatch"), *collect = json_str(j, "collect");
	int64_t beat = json_int(j, "heartbeat_ms", 1000);

	if (!id || id_parse(id, &s->id) || id_is_zero(&s->id))
		return err_set(e, ERR_INPUT, "the answer has no 'session'");
	if (!node || str_copy(s->node_id, sizeof s->node_id, node))
		return err_set(e, ERR_INPUT, "the answer has no 'node_id'");
	if (!dispatch || str_copy(s->dispatch_at, sizeof s->dispatch_at, dispatch) || !collect ||
	    str_copy(s->collect_at, sizeof s->collect_at, collect))
		return err_set(e, ERR_INPUT, "the answer has no endpoints");
	if (beat < 10 || beat > 60000)
		return err_set(e, ERR_INPUT, "the answer's 'heartbeat_ms' is not 10 to 60000");
	s->heartbeat_ns = (uint64_t)beat * NS_PER_MS;
	return 0;
}

/* In the words of its problem document, if it is one. */
static int
refused(const struct http_answer *a, struct err *e)
{
	struct json *problem = json_parse(a->body, a->len, NULL);
	const char *detail = json_str(problem, "detail");

	if (a->status == 401 || a->status == 403)
		detail = "the join token is wrong";
	err_set(e, ERR_AGAIN, "the control plane answered %d: %.200s", a->status,
		detail ? detail : a->body);
	json_free(problem);
	return -1;
}

static int
begin(struct session *s, const struct http_answer *a, struct err *e)
{
	struct json *j;
	int rc;

	if (a->status != 200)
		return refused(a, e);
	j = json_parse(a->body, a->len, e);
	rc = j ? read_answer(s, j, e) : -1;
	json_free(j);
	return rc || open_sockets(s, e) ? -1 : 0;
}

static void
on_answer(void *arg, const struct http_answer *a, const struct err *why)
{
	struct session *s = arg;
	struct err e = { 0 };
	char text[ID_TEXT_MAX];

	s->call = NULL;
	if (!a || begin(s, a, &e)) {
		complain(s, a ? e.text : why->text);
		again_later(s);
		return;
	}
	s->open = true;
	s->complaint[0] = '\0';
	s->heard_ns = loop_now(s->c.loop);
	id_format(&s->id, text);
	log_info("registered", "node", s->node_id, "session", text, NULL);
	s->c.opened(s->c.arg);
	heartbeat(s);
	loop_timer_after(s->timer, s->heartbeat_ns);
}

static void
ask(struct session *s)
{
	struct http_field fields[] = { { "X-Pratai-Join", s->c.token },
				       { "Content-Type", "application/json" },
				       { NULL, NULL } };
	struct http_ask q = { .method = "POST", .fields = fields, .body = s->c.body,
			      .body_len = strlen(s->c.body), .body_fd = -1, .out_fd = -1,
			      .answer_max = ANSWER_MAX, .total_ns = REGISTER_MAX_NS };
	char url[2048];
	struct err e = { 0 };

	snprintf(url, sizeof url, "%s/v1/node/register", s->c.join);
	q.url = url;
	s->call = http_client_ask(s->c.http, &q, on_answer, s, &e);
	if (!s->call) {
		complain(s, e.text);
		again_later(s);
	}
}

static void
on_timer(void *arg)
{
	struct session *s = arg;

	if (s->open && loop_now(s->c.loop) - s->heard_ns > SILENT_BEATS * s->heartbeat_ns)
		begin_again(s, "the scheduler is silent");
	else if (!s->open && !s->call)
		ask(s);
	else if (s->open) {
		heartbeat(s);
		loop_timer_after(s->timer, s->heartbeat_ns);
	}
}

/* ---- Life ---- */

struct session *
session_new(const struct session_config *config, struct err *e)
{
	struct session *s = calloc(1, sizeof *s);

	if (!s) {
		err_set(e, ERR_NODE, "session: out of memory");
		return NULL;
	}
	s->c = *config;
	s->pause_ns = FIRST_PAUSE_NS;
	s->timer = loop_timer_add(s->c.loop, on_timer, s, e);
	s->soon = s->timer ? loop_timer_add(s->c.loop, on_soon, s, e) : NULL;
	if (!s->soon) {
		session_free(s);
		return NULL;
	}
	loop_timer_after(s->timer, 0);
	return s;
}

void
session_free(struct session *s)
{
	if (!s)
		return;
	if (s->call)
		http_call_cancel(s->call);
	close_sockets(s);
	loop_timer_remove(s->timer);
	loop_timer_remove(s->soon);
	free(s);
}

const struct id *
session_id(const struct session *s)
{
	return &s->id;
}

int
session_tell(struct session *s, struct message *m)
{
	return send_message(s, s->dispatch, m, NULL, 0, NULL, 0);
}

int
session_send_result(struct session *s, struct message *m, const void *response,
		    size_t response_len, const void *logs, size_t logs_len)
{
	return send_message(s, s->collect, m, response, response_len, logs, logs_len);
}
