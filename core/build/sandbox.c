/*
 * A build's sandboxes: one for the version's own layer, with the package; if the runtime then
 * says so, another with the network instead; and one for dependencies, with the network and
 * without the package.  All run the runtime's build command, which answers on its channel.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/fdio.h"
#include "core/build/run.h"
#include "core/node/blob.h"
#include "core/node/runtimes.h"
#include "core/node/sandbox_run.h"
#include "netio/loop.h"

enum { BUILD_PIDS = 256, BUILD_CPU_MILLIS = 2000, BUILD_TMP_MIB = 768 };
#define BUILD_OUTPUT_MAX (64ull << 20)
#define TELL_NS NS_PER_S

/* e of no class: only this sandbox. */
static void
give_up(struct build_run *b, const struct err *e)
{
	if (b->error.cls == ERR_NONE)
		b->error = *e;
	sandbox_run_kill(b->sandbox, SPAWN_KILL_CANCELLED);
}

static void
on_output(void *arg, enum output_stream s, const char *data, size_t len)
{
	struct build_run *b = arg;
	struct err e = { 0 };

	(void)s; /* one text, in the order in which it came */
	if (b->log.bytes > BUILD_OUTPUT_MAX || tail_add(&b->log, data, len)) {
		err_set(&e, ERR_FUNCTION, "the build printed more than %llu bytes", BUILD_OUTPUT_MAX);
		give_up(b, &e);
	}
}

void
build_tell(void *arg)
{
	struct build_run *b = arg;
	const struct driver *d = &b->base.native->driver;
	char *text = b->log.bytes > b->told_bytes && d->printed ? tail_text(&b->log) : NULL;

	if (text)
		d->printed(b->base.arg, text);
	free(text);
	b->told_bytes = b->log.bytes;
	if (b->sandbox)
		loop_timer_after(b->telling, TELL_NS);
}

/* What is needed comes as raw bytes; where it has been heard, or makes no difference, it is an
 * error of the runtime's. */
static int64_t
take_needs(struct build_run *b)
{
	struct err e = { 0 };

	if (b->network || b->stage != BUILD_OWN || b->needs.len) {
		err_set(&e, ERR_FUNCTION, "the build asks for dependencies %s",
			b->needs.len ? "twice" : "and has the network");
		give_up(b, &e);
		return CHANNEL_STOP;
	}
	b->needs.max = RUNTIME_NEEDS_MAX;
	b->needing = true;
	return (int64_t)b->reply.bytes;
}

static int64_t
on_line(void *arg, const char *line, size_t len)
{
	struct build_run *b = arg;
	struct err e = { 0 };

	if (runtime_reply_parse(line, len, &b->reply, &b->failure, &e)) {
		give_up(b, &e);
		return CHANNEL_STOP;
	}
	if (b->reply.type == RUNTIME_IMPORTED)
		return CHANNEL_LINE;
	if (b->reply.type == RUNTIME_NETWORK) {
		b->again = !b->network;
		if (b->network)
			err_set(&e, ERR_FUNCTION, "the build asks for the network that it has");
		give_up(b, &e);
		return CHANNEL_STOP;
	}
	if (b->reply.type == RUNTIME_DEPENDENCIES)
		return take_needs(b);
	b->replied = true;
	return b->reply.type == RUNTIME_RESULT || !b->reply.ok ? CHANNEL_STOP : CHANNEL_STREAM;
}

static void
on_bytes(void *arg, const char *data, size_t len, uint64_t left)
{
	struct build_run *b = arg;
	struct made_layer *made = &b->layers[b->stage];
	struct err e = { 0 };

	if (b->error.cls != ERR_NONE)
		return;
	if (b->needing) {
		b->needing = left > 0;
		if (buf_put(&b->needs, data, len)) {
			err_set(&e, ERR_NODE, "build: out of memory");
			give_up(b, &e);
		}
		return;
	}
	made->bytes += len;
	if (made->bytes > FUNCTION_LAYER_MAX_BYTES) {
		err_set(&e, ERR_FUNCTION, "what the build made is larger than %d MiB",
			FUNCTION_LAYER_MAX_BYTES >> 20);
		give_up(b, &e);
	} else if (fd_write_all(b->file, data, len)) {
		err_sys(&e, ERR_NODE, "write a layer");
		give_up(b, &e);
	}
}

static void
on_channel_end(void *arg, const struct err *e)
{
	if (e)
		give_up(arg, e);
}

/* The sandbox's end as an error; 0: it built a layer, or has nothing to add. */
static int
judge(const struct build_run *b, const struct spawn_result *r, struct err *e)
{
	const struct native_config *c = &b->base.native->c;
	const char *name = r->reason == SPAWN_SIGNALED ? sigabbrev_np(r->code) : NULL;

	if (b->replied && !b->reply.ok)
		return err_set(e, ERR_FUNCTION, "%.470s",
			       b->failure.error_message ? b->failure.error_message
							: b->failure.error_type);
	if (b->error.cls != ERR_NONE) {
		*e = b->error;
		return -1;
	}
	if (r->reason == SPAWN_TIMEOUT)
		return err_set(e, ERR_FUNCTION, "the build did not end within %llu s",
			       (unsigned long long)c->build_timeout_s);
	if (r->reason == SPAWN_MEMORY_EXCEEDED)
		return err_set(e, ERR_FUNCTION, "the build needed more than %llu MiB of memory",
			       (unsigned long long)c->build_memory_mib);
	if (native_is_lost(r) || r->reason == SPAWN_CANCELLED)
		return err_set(e, ERR_NODE, "the build's sandbox: %s: %s", r->step,
			       r->text[0] ? r->text : "lost");
	if (r->reason == SPAWN_SETUP_FAILED)
		return err_set(e, ERR_FUNCTION, "the runtime '%s' cannot start in the image '%s': %s",
			       b->version.runtime, b->version.image, r->text);
	if (r->reason == SPAWN_SIGNALED)
		return err_set(e, ERR_FUNCTION, "the build was ended by signal %s%s",
			       name ? "SIG" : "", name ? name : "unknown");
	if (r->code || !b->replied ||
	    (b->reply.type == RUNTIME_LAYER && !b->layers[b->stage].bytes))
		return err_set(e, ERR_FUNCTION, "the build ended (exit status %d) without a layer",
			       r->code);
	return 0;
}

static void
on_done(void *arg, const struct spawn_result *r)
{
	struct build_run *b = arg;
	struct err e = { 0 };
	int rc;

	sandbox_run_free(b->sandbox);
	b->sandbox = NULL;
	if (b->again && !b->cancelled && b->error.cls == ERR_NONE) {
		/* What the needs alone do not give is installed with the package. */
		b->again = false;
		b->network = true;
		b->stage = BUILD_OWN;
		claim_free(b->claim);
		b->claim = NULL;
		buf_consume(&b->needs, b->needs.len);
		rc = build_order(b, &e);
		if (rc)
			build_answered(b, &e);
		return;
	}
	rc = judge(b, r, &e);
	build_answered(b, rc ? &e : NULL);
}

static const struct sandbox_run_fns sandbox_fns = {
	.output = on_output,
	.channel = { .line = on_line, .bytes = on_bytes, .end = on_channel_end },
	.done = on_done,
};

/* The package's file makes room for the tar's. */
static int
open_tar(struct build_run *b, struct err *e)
{
	fd_close(&b->file);
	b->file = blob_temp(b->base.native->c.blobs, e);
	return b->file < 0 ? -1 : 0;
}

/* The line that the runtime reads first. */
static int
send_order(struct build_run *b, struct err *e)
{
	/* A tenth is left for what comes after pip: compilation and the tar. */
	uint64_t timeout_s = b->base.native->c.build_timeout_s, most_s = timeout_s - timeout_s / 10;
	bool needs = b->stage == BUILD_DEPENDENCIES;
	char line[128];
	int n;

	if (needs)
		n = snprintf(line, sizeof line,
			     "{\"v\":1,\"type\":\"dependencies\",\"requirements_timeout_s\":%llu,"
			     "\"bytes\":%zu}\n",
			     (unsigned long long)most_s, b->needs.len);
	else
		n = snprintf(line, sizeof line,
			     "{\"v\":1,\"type\":\"build\",\"network\":%s,"
			     "\"requirements_timeout_s\":%llu}\n",
			     b->network ? "true" : "false", (unsigned long long)most_s);
	return sandbox_run_send(b->sandbox, line, (size_t)n, needs ? b->needs.data : NULL,
				needs ? b->needs.len : 0, e);
}

/* For dependencies nothing of the package is there: what comes out depends on the needs. */
int
build_order(struct build_run *b, struct err *e)
{
	const struct native_config *c = &b->base.native->c;
	bool network = b->network || b->stage == BUILD_DEPENDENCIES;
	struct spawn_request r = {
		.image = b->image ? &b->image->spawn : NULL,
		.runtime = b->runtime->name,
		.layers = { b->package_layer },
		.layer_count = b->stage == BUILD_OWN,
		.argv = (const char *const *)b->runtime->build,
		.envp = (const char *const *)b->env.list,
		.workdir = "/tmp",
		.memory_bytes = c->build_memory_mib << 20,
		.tmp_bytes = (uint64_t)BUILD_TMP_MIB << 20,
		.timeout_ns = c->build_timeout_s * NS_PER_S,
		.cpu_millis = BUILD_CPU_MILLIS,
		.pids = BUILD_PIDS,
		.network = network ? SPAWN_NET_BUILD : SPAWN_NET_NONE,
	};

	if (open_tar(b, e))
		return -1;
	b->replied = b->needing = false;
	b->layers[b->stage] = (struct made_layer){ 0 };
	b->sandbox = sandbox_run_start(c->loop, c->launcher, &r, &sandbox_fns, b, e);
	if (!b->sandbox)
		return -1;
	loop_timer_after(b->telling, TELL_NS);
	if (send_order(b, e))
		give_up(b, e);
	return 0;
}
