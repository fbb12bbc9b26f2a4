/*
 * One event in one sandbox:
 *
 *   image, then layers there? ──no──► fetched ─┐
 *        └──────────yes────────────────────────┴► sandbox ordered ──► channel, output ──► it is gone ──► outcome
 *
 * The outcome is made when nothing of the sandbox is left, so that its usage is the final
 * one.  Which reason counts, in this order: more output than allowed (a property of the
 * function, however the race between pipe and channel went); a complete answer, but a failure
 * when a process of the sandbox was killed for memory, which then is the cause; what the sandbox
 * ended of.  A runtime that has answered and does not end is ended after LINGER_NS.
 */
#include "core/node/native.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/node/env.h"
#include "core/node/images.h"
#include "core/node/layers.h"
#include "core/node/output.h"
#include "core/node/runtime.h"
#include "core/node/runtimes.h"
#include "core/node/sandbox_run.h"
#include "netio/loop.h"

static const uint64_t LINGER_NS = NS_PER_S;

struct event_run {
	struct driver_run base; /* first */
	struct event event;
	struct function_version version;
	const struct runtime *runtime;
	struct runtime *own_runtime; /* that is it, for a version that has one */
	void *payload;
	size_t payload_len;
	struct env env;
	bool egress;
	struct net_rules allow; /* with egress: of what is near */
	const struct node_image *image; /* NULL: host, or not there yet */
	struct image_wait *image_wait;
	struct layer_wait *wait;
	const char *fetched; /* which it waits for */
	struct sandbox_run *sandbox;
	struct loop_timer *linger;
	struct output output;
	struct buf response;
	struct runtime_reply imported, reply;
	bool replied, complete, cancelled;
	bool uses[2]; /* the version's layers */
	struct err malformed; /* class ERR_NONE: it was not */
	uint64_t accepted_ns, ordered_ns;
};

/* The function's own, and below it that of its dependencies: "" for none. */
static const char *
layer_of(const struct event_run *run, size_t i)
{
	return i ? run->version.dependencies_digest : run->version.layer_digest;
}

static void
run_free(struct event_run *run)
{
	sandbox_run_free(run->sandbox);
	for (size_t i = 0; i < 2; i++)
		if (run->uses[i])
			layers_unuse(run->base.native->c.layers, layer_of(run, i));
	images_unuse(run->base.native->c.images, run->image);
	image_wait_cancel(run->image_wait);
	layer_wait_cancel(run->wait);
	loop_timer_remove(run->linger);
	output_free(&run->output);
	buf_free(&run->response);
	env_free(&run->env);
	runtime_free(run->own_runtime);
	event_clear(&run->event);
	function_version_clear(&run->version);
	free(run->payload);
	free(run);
}

/* ---- The outcome ---- */

static void
set_error(struct event *ev, const char *type, const char *message)
{
	free(ev->error_message);
	free(ev->error_traceback);
	ev->error_traceback = NULL;
	ev->error_message = strdup(message);
	snprintf(ev->error_type, sizeof ev->error_type, "%s", type);
}

static void
set_reason(struct event *ev, enum event_reason reason, const char *type, const char *message)
{
	ev->reason = reason;
	ev->has_response = false;
	ev->response_bytes = 0;
	set_error(ev, type, message);
}

/* The process ended, and there was no answer. */
static void
explain_end(struct event *ev, const struct spawn_result *r)
{
	const char *name = r->reason == SPAWN_SIGNALED ? sigabbrev_np(r->code) : NULL;
	char text[160];

	if (r->reason == SPAWN_SIGNALED)
		snprintf(text, sizeof text,
			 "the function's process ended (signal %s%s) before it answered",
			 name ? "SIG" : "", name ? name : "unknown");
	else
		snprintf(text, sizeof text,
			 "the function's process ended (exit status %d) before it answered", r->code);
	set_reason(ev, REASON_FUNCTION_FAILED, "ProcessEnded", text);
}

static void
explain_limit(struct event_run *run, const struct spawn_result *r)
{
	struct event *ev = &run->event;
	char text[160];

	if (r->reason == SPAWN_TIMEOUT) {
		snprintf(text, sizeof text, "the function did not end within %u s",
			 run->version.timeout_s);
		set_reason(ev, REASON_TIMEOUT, "Timeout", text);
	} else {
		snprintf(text, sizeof text, "the function needed more than its %u MiB of memory",
			 run->version.memory_mib);
		set_reason(ev, REASON_MEMORY_EXCEEDED, "MemoryExceeded", text);
	}
}

static void
explain(struct event_run *run, const struct spawn_result *r)
{
	struct event *ev = &run->event;
	char text[160], setup[600];

	if (run->output.exceeded) {
		snprintf(text, sizeof text, "the function printed more than %llu bytes",
			 (unsigned long long)run->output.limit_bytes);
		set_reason(ev, REASON_OUTPUT_EXCEEDED, "OutputExceeded", text);
	} else if (run->complete && (run->reply.ok || r->reason != SPAWN_MEMORY_EXCEEDED)) {
		if (ev->reason == REASON_FUNCTION_FAILED && !ev->error_message)
			ev->error_message = strdup("the function failed and did not say why");
	} else if (r->reason == SPAWN_TIMEOUT || r->reason == SPAWN_MEMORY_EXCEEDED) {
		explain_limit(run, r);
	} else if (native_is_lost(r) || run->malformed.cls == ERR_NODE) {
		set_reason(ev, REASON_NODE_LOST, "NodeLost",
			   r->text[0]                ? r->text
			   : run->malformed.text[0] ? run->malformed.text
						     : "the sandbox was lost");
	} else if (r->reason == SPAWN_SETUP_FAILED) {
		snprintf(setup, sizeof setup, "the runtime '%s' cannot start in the image '%s': %s",
			 run->version.runtime, run->version.image, r->text);
		set_reason(ev, REASON_FUNCTION_FAILED, "SetupFailed", setup);
	} else if (run->malformed.cls != ERR_NONE) {
		set_reason(ev, REASON_FUNCTION_FAILED, "MalformedAnswer", run->malformed.text);
	} else if (run->cancelled) {
		set_reason(ev, REASON_CANCELLED, "Cancelled", "the event was cancelled");
	} else {
		explain_end(ev, r);
	}
}

static uint32_t
microseconds(uint64_t value, uint64_t max)
{
	if (value > max)
		value = max;
	return value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

static void
account(struct event_run *run, const struct spawn_result *r)
{
	struct event *ev = &run->event;
	uint64_t wall_us = r->wall_ns / NS_PER_US, before_ns = run->ordered_ns - run->accepted_ns;

	ev->wall_us = wall_us;
	ev->cpu_us = r->cpu_ns / NS_PER_US;
	ev->memory_peak_bytes = r->memory_peak_bytes;
	ev->timeline_us[PHASE_SANDBOX] = microseconds(before_ns / NS_PER_US + r->setup_us, UINT64_MAX);
	/* The runtime's own words: never more than what we saw pass. */
	ev->timeline_us[PHASE_IMPORT] = microseconds(
		run->imported.start_us + run->imported.import_us + run->reply.import_us, wall_us);
	ev->timeline_us[PHASE_RUN] = microseconds(run->reply.run_us, wall_us);
}

/* Everything is over: the outcome goes out, the run goes away. */
static void
finish(struct event_run *run)
{
	struct driver_outcome o = { 0 };

	run->event.finished_us = clock_real_us();
	output_end(&run->output, run->event.finished_us);
	run->event.logs_bytes = run->output.records.len;
	run->event.logs_truncated = run->output.truncated;
	run->event.start = START_COLD;
	o.event = run->event; /* lent */
	o.node_lost = run->event.reason == REASON_NODE_LOST;
	if (run->event.has_response) {
		o.response = run->response.data;
		o.response_len = run->response.len;
	}
	o.logs = run->output.records.data;
	o.logs_len = run->output.records.len;
	native_leave(&run->base);
	run->base.done(run->base.arg, &o);
	run_free(run);
}

/* The end of a run that never had a sandbox. */
static void
finish_without_sandbox(struct event_run *run, const struct err *e)
{
	struct event *ev = &run->event;

	if (run->cancelled)
		set_reason(ev, REASON_CANCELLED, "Cancelled", "the event was cancelled");
	else if (e->cls == ERR_NOT_FOUND || e->cls == ERR_FUNCTION || e->cls == ERR_INPUT)
		set_reason(ev, REASON_FUNCTION_FAILED, "SetupFailed", e->text);
	else
		set_reason(ev, REASON_NODE_LOST, "NodeLost", e->text);
	if (ev->reason == REASON_NODE_LOST)
		log_err("cannot start an event", e);
	finish(run);
}

/* ---- What the sandbox says ---- */

static void
on_output(void *arg, enum output_stream s, const char *data, size_t len)
{
	struct event_run *run = arg;
	bool before = run->output.exceeded;

	output_feed(&run->output, s, data, len, clock_real_us());
	if (run->output.exceeded && !before)
		sandbox_run_kill(run->sandbox, SPAWN_KILL_OUTPUT);
}

static void
reject(struct event_run *run, const struct err *e)
{
	run->malformed = *e;
	sandbox_run_kill(run->sandbox, SPAWN_KILL_CANCELLED);
}

static void
answered(struct event_run *run)
{
	run->complete = true;
	loop_timer_after(run->linger, LINGER_NS);
}

static int64_t
on_line(void *arg, const char *line, size_t len)
{
	struct event_run *run = arg;
	struct runtime_reply reply;
	struct err e = { 0 };

	if (runtime_reply_parse(line, len, &reply, &run->event, &e)) {
		reject(run, &e);
		return CHANNEL_STOP;
	}
	if (reply.type != RUNTIME_IMPORTED && reply.type != RUNTIME_RESULT) {
		err_set(&e, ERR_FUNCTION, "the runtime's answer is malformed: a build's, to an event");
		reject(run, &e);
		return CHANNEL_STOP;
	}
	if (reply.type == RUNTIME_IMPORTED) {
		run->imported = reply;
		return CHANNEL_LINE;
	}
	run->reply = reply;
	run->replied = true;
	if (reply.ok && reply.bytes)
		return (int64_t)reply.bytes; /* at most EVENT_RESPONSE_MAX */
	answered(run);
	return CHANNEL_STOP;
}

static void
on_bytes(void *arg, const char *data, size_t len, uint64_t left)
{
	struct event_run *run = arg;
	struct err e = { 0 };

	if (run->complete)
		return;
	if (buf_put(&run->response, data, len)) {
		err_set(&e, ERR_NODE, "the node ran out of memory for the answer");
		reject(run, &e);
	} else if (!left) {
		answered(run);
	}
}

static void
on_channel_end(void *arg, const struct err *e)
{
	struct event_run *run = arg;
	struct err cut = { 0 };

	if (run->complete || run->malformed.cls != ERR_NONE)
		return;
	if (e)
		reject(run, e);
	else if (run->replied) {
		err_set(&cut, ERR_FUNCTION, "the answer ended after %zu of %llu bytes",
			run->response.len, (unsigned long long)run->reply.bytes);
		run->malformed = cut;
	}
}

static void
on_done(void *arg, const struct spawn_result *r)
{
	struct event_run *run = arg;
	char id[ID_TEXT_MAX];

	explain(run, r);
	account(run, r);
	id_format(&run->event.id, id);
	if (run->event.reason == REASON_NODE_LOST)
		log_warning("a sandbox was lost", "event", id, "step", r->step[0] ? r->step : NULL,
			    "reason", r->text, NULL);
	finish(run);
}

static const struct sandbox_run_fns sandbox_fns = {
	.output = on_output,
	.channel = { .line = on_line, .bytes = on_bytes, .end = on_channel_end },
	.done = on_done,
};

/* ---- Start ---- */

static int
make_env(struct event_run *run, struct err *e)
{
	char id[ID_TEXT_MAX], function[ID_TEXT_MAX];
	const char *text = run->version.env;
	char memory[16];
	struct json *own = text && *text ? json_parse(text, strlen(text), e) : NULL;
	int rc;

	id_format(&run->event.id, id);
	id_format(&run->event.function_id, function);
	snprintf(memory, sizeof memory, "%u", run->version.memory_mib);
	rc = (text && *text && !own) || env_base(&run->env, e) ||
	     (run->image && images_env(run->image, &run->env, e)) ||
	     env_set_all(&run->env, run->runtime->env, e) || env_set_all(&run->env, own, e) ||
	     env_set(&run->env, "PRATAI_EVENT_ID", id, e) ||
	     env_set(&run->env, "PRATAI_FUNCTION_ID", function, e);
	/* For a runtime that sizes a heap by it. */
	if (rc == 0 && json_get(run->runtime->env, "PRATAI_MEMORY_MIB"))
		rc = env_set(&run->env, "PRATAI_MEMORY_MIB", memory, e);
	json_free(own);
	return rc ? -1 : 0;
}

static int
order(struct event_run *run, struct err *e)
{
	const struct function_version *v = &run->version;
	struct native *n = run->base.native;
	struct spawn_request r = {
		.image = run->image ? &run->image->spawn : NULL,
		.runtime = run->runtime->name,
		.layers = { v->layer_digest, v->dependencies_digest },
		.layer_count = v->dependencies_digest[0] ? 2 : 1,
		.argv = (const char *const *)run->runtime->command,
		.workdir = "/function",
		.memory_bytes = (uint64_t)v->memory_mib << 20,
		.tmp_bytes = (uint64_t)v->tmp_size_mib << 20,
		.timeout_ns = (uint64_t)v->timeout_s * NS_PER_S,
		.cpu_millis = v->cpu_millis,
		.pids = v->pids,
		.network = run->egress ? SPAWN_NET_EGRESS : SPAWN_NET_NONE,
		.allow = run->egress ? &run->allow : NULL,
	};
	struct buf line = { 0 };
	int rc;

	if (make_env(run, e))
		return -1;
	r.envp = (const char *const *)run->env.list;
	run->sandbox = sandbox_run_start(n->c.loop, n->c.launcher, &r, &sandbox_fns, run, e);
	if (!run->sandbox)
		return -1;
	rc = runtime_event_line(&run->event, (uint64_t)v->timeout_s * 1000, &line);
	if (rc)
		err_set(e, ERR_NODE, "event: out of memory");
	else
		rc = sandbox_run_send(run->sandbox, line.data, line.len, run->payload,
				      run->payload_len, e);
	buf_free(&line);
	run->ordered_ns = clock_mono_ns();
	if (rc) { /* no input: it would wait for ever; its end carries the reason */
		run->malformed = *e;
		sandbox_run_kill(run->sandbox, SPAWN_KILL_CANCELLED);
	}
	return 0;
}

/* NULL: all of its layers are here, and stay.  Else one that is not. */
static const char *
use_layers(struct event_run *run)
{
	for (size_t i = 0; i < 2; i++) {
		const char *digest = layer_of(run, i);

		if (!run->uses[i] && *digest)
			run->uses[i] = layers_use(run->base.native->c.layers, digest);
		if (!run->uses[i] && *digest)
			return digest;
	}
	return NULL;
}

static void on_layer(void *arg, const struct err *why);

static int
fetch(struct event_run *run, const char *digest, struct err *e)
{
	run->fetched = digest;
	run->wait = layers_fetch(run->base.native->c.layers, digest, on_layer, run, e);
	return run->wait ? 0 : -1;
}

static int proceed(struct event_run *run, struct err *e);

/* What was waited for is there. */
static void
go_on(struct event_run *run, const struct err *why)
{
	struct err e = { 0 };

	if (why)
		finish_without_sandbox(run, why);
	else if (proceed(run, &e))
		finish_without_sandbox(run, &e);
}

static void
on_image(void *arg, const struct err *why)
{
	struct event_run *run = arg;

	run->image_wait = NULL;
	go_on(run, why);
}

static void
on_layer(void *arg, const struct err *why)
{
	struct event_run *run = arg;

	run->wait = NULL;
	go_on(run, why);
}

/* As far as it goes now; what is waited for brings it on. */
static int
proceed(struct event_run *run, struct err *e)
{
	const struct native_config *c = &run->base.native->c;
	const char *image = run->version.image_digest, *missing;

	if (image[0] && !run->image && !(run->image = images_use(c->images, image))) {
		run->image_wait = images_fetch(c->images, image, on_image, run, e);
		return run->image_wait ? 0 : -1;
	}
	missing = use_layers(run);
	if (!missing)
		return order(run, e);
	if (missing == run->fetched)
		return err_set(e, ERR_NODE, "the layer that was fetched is not there");
	return fetch(run, missing, e);
}

/* One timer for both: before there is a sandbox it brings the end of a cancelled run (done
 * never comes from inside cancel); after the answer it ends a sandbox that does not end by
 * itself. */
static void
on_timer(void *arg)
{
	static const struct err none;
	struct event_run *run = arg;

	if (run->sandbox)
		sandbox_run_kill(run->sandbox, SPAWN_KILL_CANCELLED);
	else
		finish_without_sandbox(run, &none);
}

static void
event_cancel(struct driver_run *base)
{
	struct event_run *run = (struct event_run *)base;

	run->cancelled = true;
	if (run->sandbox) {
		sandbox_run_kill(run->sandbox, SPAWN_KILL_CANCELLED);
	} else {
		image_wait_cancel(run->image_wait);
		layer_wait_cancel(run->wait);
		run->image_wait = NULL;
		run->wait = NULL;
		loop_timer_after(run->linger, 0);
	}
}

static void
event_free(struct driver_run *base)
{
	run_free((struct event_run *)base);
}

static const struct run_ops event_ops = { .cancel = event_cancel, .free = event_free };

/* Whether it may have that is for the spawner to say. */
static int
read_network(struct event_run *run, struct err *e)
{
	const struct function_version *v = &run->version;
	const char *word = v->network;
	struct json *list;
	int rc;

	if (!*word || !strcmp(word, "none"))
		return 0;
	if (strcmp(word, "egress"))
		return err_set(e, ERR_INPUT, "the node has no network '%s' for functions", word);
	run->egress = true;
	if (!v->allow)
		return 0;
	list = json_parse(v->allow, strlen(v->allow), e);
	rc = list ? function_allow_parse(list, &run->allow, e) : -1;
	json_free(list);
	return rc;
}

static int
prepare(struct event_run *run, const struct message *job, const void *payload, size_t len,
	struct err *e)
{
	struct native *n = run->base.native;

	run->accepted_ns = run->ordered_ns = clock_mono_ns();
	run->response.max = EVENT_RESPONSE_MAX;
	if (event_copy(&run->event, &job->event) || function_version_copy(&run->version, &job->version))
		return err_set(e, ERR_NODE, "event: out of memory");
	output_init(&run->output, run->version.output_bytes);
	run->event.started_us = clock_real_us();
	run->event.payload_bytes = len;
	run->payload = malloc(len ? len : 1);
	run->linger = loop_timer_add(n->c.loop, on_timer, run, e);
	if (!run->payload || !run->linger)
		return err_set(e, ERR_NODE, "event: out of memory");
	if (len)
		memcpy(run->payload, payload, len);
	run->payload_len = len;
	run->runtime = runtime_use(n->c.runtimes, run->version.runtime, run->version.own_runtime,
				 &run->own_runtime, e);
	if (!run->runtime)
		return -1;
	return read_network(run, e);
}

struct driver_run *
native_event_start(struct native *n, const struct message *job, const void *payload, size_t len,
		   driver_done_fn done, void *arg, struct err *e)
{
	struct event_run *run = calloc(1, sizeof *run);

	if (!run) {
		err_set(e, ERR_NODE, "event: out of memory");
		return NULL;
	}
	if (native_enter(n, &run->base, &event_ops, job->version.memory_mib, done, arg, e)) {
		free(run);
		return NULL;
	}
	if (prepare(run, job, payload, len, e) || proceed(run, e)) {
		native_leave(&run->base);
		run_free(run);
		return NULL;
	}
	return &run->base;
}
