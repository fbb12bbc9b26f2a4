/*
 * A job is known by its lease, from its arrival until its result is settled: it is in
 * `jobs` while the driver runs it, then in the spool.  A lease that is in either is not run
 * twice.  What the driver will not take becomes a result at once, so that the scheduler
 * learns of it and every job that came is in the heartbeats' list or settled.
 *
 * Credit is cumulative: received in this session + what could be started now.
 */
#include "core/node/node.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/node/driver.h"
#include "core/node/runtimes.h"
#include "core/node/session.h"
#include "core/node/spool.h"

struct job {
	struct node *node;
	struct lease lease;
	struct id event; /* zero: a build */
	enum job_kind kind;
	struct function_version version; /* builds: goes back with the result */
	struct driver_run *run;
	LIST_ENTRY(job) link;
};

struct node {
	struct node_setup c;
	struct id incarnation;
	char *registration;
	struct session *session;
	struct spool *spool;
	uint64_t received; /* in this session */
	unsigned running;
	LIST_HEAD(, job) jobs;
};

static bool
lease_equal(const struct lease *a, const struct lease *b)
{
	return a->term == b->term && a->seq == b->seq;
}

static struct job *
job_find(const struct node *n, const struct lease *lease)
{
	struct job *j;

	LIST_FOREACH (j, &n->jobs, link)
		if (lease_equal(&j->lease, lease))
			return j;
	return NULL;
}

static void
job_free(struct job *j)
{
	function_version_clear(&j->version);
	free(j);
}

/* ---- Results ---- */

static void
keep_result(struct node *n, struct message *m, const struct driver_outcome *o)
{
	struct err e = { 0 };

	/* Lost for want of memory: the scheduler sees the lease vanish and runs the job again. */
	if (spool_add(n->spool, m, o->response, o->response_len, o->logs, o->logs_len, &e))
		log_err("a result is lost", &e);
	session_heartbeat_soon(n->session);
}

static int
build_result(struct message *m, const struct function_version *v, const struct driver_outcome *o)
{
	if (function_version_copy(&m->version, v))
		return -1;
	/* Still building: this node could not, another one is to try. */
	m->version.state = o->node_lost ? VERSION_BUILDING : o->version_state;
	memcpy(m->version.layer_digest, o->layer_digest, sizeof m->version.layer_digest);
	memcpy(m->version.dependencies_digest, o->dependencies_digest,
	       sizeof m->version.dependencies_digest);
	m->build_layer_bytes = o->layer_bytes;
	free(m->version.reason);
	m->version.reason = o->build_reason ? strdup(o->build_reason) : NULL;
	m->build_log = o->build_log ? strdup(o->build_log) : NULL;
	return 0;
}

static void
on_done(void *arg, const struct driver_outcome *o)
{
	struct job *j = arg;
	struct node *n = j->node;
	struct message m = { .type = MSG_RESULT, .lease = j->lease, .kind = j->kind };
	int rc;

	LIST_REMOVE(j, link);
	n->running--;
	rc = j->kind == JOB_BUILD ? build_result(&m, &j->version, o)
				  : event_copy(&m.event, &o->event);
	m.event.lease = j->kind == JOB_EVENT ? j->lease : m.event.lease;
	job_free(j);
	if (rc) {
		log_error("a result is lost: out of memory", NULL);
		message_clear(&m);
		session_heartbeat_soon(n->session);
		return;
	}
	keep_result(n, &m, o);
}

static void
on_printed(void *arg, const char *text)
{
	const struct job *j = arg;
	struct message m = { .type = MSG_PRINTED, .lease = j->lease, .kind = JOB_BUILD,
			     .build_log = (char *)(uintptr_t)text };

	session_tell(j->node->session, &m);
}

/* The driver would not start it. */
static void
refuse(struct node *n, struct message *job, const struct err *e)
{
	struct message m = { .type = MSG_RESULT, .lease = job->lease, .kind = job->kind };
	struct driver_outcome o = { .node_lost = e->cls != ERR_INPUT && e->cls != ERR_FUNCTION,
				    .version_state = VERSION_FAILED, .build_reason = e->text };
	int rc;

	log_info("job refused", "reason", e->text, NULL);
	if (job->kind == JOB_BUILD) {
		rc = build_result(&m, &job->version, &o);
	} else {
		rc = event_copy(&m.event, &job->event);
		m.event.reason = o.node_lost ? REASON_NODE_LOST : REASON_FUNCTION_FAILED;
		m.event.lease = job->lease;
		m.event.started_us = m.event.finished_us = clock_real_us();
		memcpy(m.event.error_type, "NotStarted", sizeof "NotStarted");
		free(m.event.error_message);
		m.event.error_message = strdup(e->text);
	}
	if (rc == 0)
		keep_result(n, &m, &o);
	else
		message_clear(&m);
}

/* ---- What the scheduler says ---- */

static void
say_started(struct node *n, const struct lease *lease)
{
	struct message m = { .type = MSG_STARTED, .lease = *lease };

	session_tell(n->session, &m);
}

static void
run_job(struct node *n, struct message *m, const void *payload, size_t len)
{
	struct job *j = calloc(1, sizeof *j);
	struct err e = { 0 };

	if (!j || (m->kind == JOB_BUILD && function_version_copy(&j->version, &m->version))) {
		err_set(&e, ERR_NODE, "out of memory");
		free(j);
		refuse(n, m, &e);
		return;
	}
	j->node = n;
	j->lease = m->lease;
	j->kind = m->kind;
	if (m->kind == JOB_EVENT)
		j->event = m->event.id;
	j->run = n->c.driver->ops->start(n->c.driver, m, payload, len, on_done, j, &e);
	if (!j->run) {
		job_free(j);
		refuse(n, m, &e);
		return;
	}
	LIST_INSERT_HEAD(&n->jobs, j, link);
	n->running++;
	say_started(n, &m->lease);
}

static void
on_job(struct node *n, struct message *m, const void *payload, size_t len)
{
	if (!id_equal(&m->session, session_id(n->session))) {
		log_debug("a job of another session was dropped", NULL);
		return;
	}
	n->received++;
	/* What an earlier attempt left in the record is not the outcome of this one. */
	event_forget_outcome(&m->event);
	if (job_find(n, &m->lease))
		say_started(n, &m->lease);
	else if (spool_has(n->spool, &m->lease))
		spool_resend(n->spool);
	else
		run_job(n, m, payload, len);
}

static void
on_message(void *arg, struct message *m, const void *payload, size_t len)
{
	struct node *n = arg;
	struct job *j;

	switch (m->type) {
	case MSG_JOB:
		on_job(n, m, payload, len);
		break;
	case MSG_SETTLED:
		if (spool_remove(n->spool, &m->lease))
			break;
		/* Void while it runs: somebody else has, or nobody wants, its outcome. */
		/* fallthrough */
	case MSG_CANCEL:
		j = job_find(n, &m->lease);
		if (j)
			n->c.driver->ops->cancel(j->run);
		break;
	default:
		break;
	}
}

static void
on_opened(void *arg)
{
	struct node *n = arg;

	n->received = 0;
	spool_resend(n->spool);
	if (n->c.ready_fd >= 0 && write(n->c.ready_fd, "\n", 1) < 0)
		log_warning("nobody waits for this node to be ready", NULL);
	fd_close(&n->c.ready_fd);
}

static unsigned
free_slots(const struct node *n)
{
	uint64_t memory = n->c.driver->ops->memory_free_mib(n->c.driver);

	if (spool_is_full(n->spool) || memory < FUNCTION_MEMORY_MIN_MIB)
		return 0;
	return n->running < n->c.slots ? n->c.slots - n->running : 0;
}

static void
on_fill(void *arg, struct message *m)
{
	struct node *n = arg;
	struct job *j;

	m->incarnation = n->incarnation;
	m->received = n->received;
	m->granted = n->received + free_slots(n);
	m->memory_free_mib = n->c.driver->ops->memory_free_mib(n->c.driver);
	m->leases = calloc(n->running + spool_count(n->spool) + 1, sizeof *m->leases);
	m->lease_events = calloc(n->running + spool_count(n->spool) + 1, sizeof *m->lease_events);
	if (!m->leases || !m->lease_events)
		return;
	LIST_FOREACH (j, &n->jobs, link) {
		m->lease_events[m->lease_count] = j->event;
		m->leases[m->lease_count++] = j->lease;
	}
	spool_leases(n->spool, m->leases + m->lease_count, m->lease_events + m->lease_count);
	m->lease_count += spool_count(n->spool);
}

static int
send_result(void *arg, struct message *m, const void *response, size_t response_len,
	    const void *logs, size_t logs_len)
{
	struct node *n = arg;

	return session_send_result(n->session, m, response, response_len, logs, logs_len);
}

/* ---- Life ---- */

static char *
describe(const struct node *n)
{
	struct json *j = json_object(), *list = json_array();
	char incarnation[ID_TEXT_MAX], *text;

	id_format(&n->incarnation, incarnation);
	json_put_int(j, "v", MESSAGE_VERSION);
	json_put_str(j, "name", n->c.name);
	json_put_str(j, "incarnation", incarnation);
	json_put_int(j, "slots", n->c.slots);
	json_put_int(j, "memory_mib", (int64_t)n->c.memory_mib);
	json_put_str(j, "version", PRATAI_VERSION);
	for (size_t i = 0; i < runtimes_count(n->c.runtimes); i++) {
		const struct runtime *r = runtimes_nth(n->c.runtimes, i);
		struct json *one = json_object();

		json_put_str(one, "name", r->name);
		json_put_str(one, "description", r->description);
		json_add(list, one);
	}
	json_put(j, "runtimes", list);
	text = json_print(j);
	json_free(j);
	return text;
}

struct node *
node_new(const struct node_setup *setup, struct err *e)
{
	struct node *n = calloc(1, sizeof *n);
	struct session_config session = { .loop = setup->loop, .mq = setup->mq,
					  .http = setup->http, .join = setup->join,
					  .token = setup->token, .opened = on_opened,
					  .message = on_message, .fill = on_fill, .arg = n };

	if (!n) {
		err_set(e, ERR_NODE, "node: out of memory");
		return NULL;
	}
	LIST_INIT(&n->jobs);
	n->c = *setup;
	n->c.driver->printed = on_printed;
	n->incarnation = id_new();
	n->registration = describe(n);
	session.body = n->registration ? n->registration : "";
	n->spool = spool_new(setup->loop, setup->spool_fd, send_result, n, e);
	n->session = n->spool ? session_new(&session, e) : NULL;
	if (!n->session) {
		node_free(n);
		return NULL;
	}
	return n;
}

/* The driver's runs have been ended by its own free. */
void
node_free(struct node *n)
{
	struct job *j;

	if (!n)
		return;
	session_free(n->session);
	spool_free(n->spool);
	while ((j = LIST_FIRST(&n->jobs))) {
		LIST_REMOVE(j, link);
		job_free(j);
	}
	fd_close(&n->c.ready_fd);
	free(n->registration);
	free(n);
}
