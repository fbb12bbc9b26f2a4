/*
 * A build, step by step; each step starts the next from its callback:
 *
 *   0 the image, if it is not the host's      on_image
 *   1 package: blob → unnamed file            on_package
 *   2 unpacked below function/ of a layer     on_unpacked      (pratai-unpack zip)
 *   3 the runtime's build command over it, in a sandbox, which checks, installs
 *     requirements and writes the version's layer as a tar to its channel; that goes
 *     into another unnamed file               on_line, on_bytes, on_done
 *   4 tar unpacked, which gives its digest    on_layer         (pratai-unpack tar)
 *   5 layer in the store, tar uploaded        on_uploaded
 *
 * After 2, for a runtime without a build command, or after 3, when that has nothing to add,
 * the package itself is the layer, under its own digest: its zip is a blob already.  When the
 * build asks for network, 3 begins again with it.
 *
 * Everything that the package, the build or the tar can do wrong fails the version with one
 * sentence; what this machine does wrong is node_lost, and the build runs again.
 */
#include "core/build/build.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/log.h"
#include "core/build/tail.h"
#include "core/node/blob.h"
#include "core/node/env.h"
#include "core/node/images.h"
#include "netio/helper.h"
#include "core/node/layers.h"
#include "core/node/runtime.h"
#include "core/node/runtimes.h"
#include "core/node/sandbox_run.h"
#include "netio/loop.h"

enum { BUILD_PIDS = 256, BUILD_CPU_MILLIS = 2000, BUILD_TMP_MIB = 768 };
#define BUILD_OUTPUT_MAX (64ull << 20)
#define TELL_NS NS_PER_S

struct build_run {
	struct driver_run base; /* first */
	struct function_version version;
	const struct runtime *runtime;
	const struct node_image *image; /* NULL: host, or not there yet */
	struct image_wait *image_wait;
	struct env env;
	struct blob_call *blob;
	struct helper *helper;
	struct loop_timer *timer; /* brings the end of a cancelled one */
	struct loop_timer *telling; /* what is printed, while it is */
	uint64_t told_bytes;
	int file, dir;            /* package or tar; directory that is being filled */
	char temp[LAYER_NAME_MAX];
	char package_layer[65];   /* while it is there */
	bool network;
	struct sandbox_run *sandbox;
	struct tail log;
	struct runtime_reply reply;
	struct event failure;     /* the runtime's error, in an event's members */
	bool again; /* with network */
	bool replied, cancelled;
	struct err error;         /* ours or the runtime's, found while it ran */
	uint64_t layer_bytes;     /* of the tar, or the package */
	char layer[65];
};

static void
run_free(struct build_run *b)
{
	struct layers *layers = b->base.native->c.layers;

	sandbox_run_free(b->sandbox);
	images_unuse(b->base.native->c.images, b->image);
	image_wait_cancel(b->image_wait);
	blob_cancel(b->blob);
	if (b->helper)
		helper_cancel(b->helper);
	loop_timer_remove(b->timer);
	loop_timer_remove(b->telling);
	fd_close(&b->file);
	fd_close(&b->dir);
	if (b->temp[0])
		layers_discard(layers, b->temp);
	if (b->package_layer[0])
		layers_remove(layers, b->package_layer);
	env_free(&b->env);
	tail_free(&b->log);
	event_clear(&b->failure);
	function_version_clear(&b->version);
	free(b);
}

/* e NULL: ready.  Its class tells whose fault it is. */
static void
finish(struct build_run *b, const struct err *e)
{
	struct driver_outcome o = { .version_state = VERSION_READY };
	char *log = tail_text(&b->log);

	o.build_log = log;
	if (!e) {
		memcpy(o.layer_digest, b->layer, sizeof o.layer_digest);
		o.layer_bytes = b->layer_bytes;
	} else if (b->cancelled || e->cls == ERR_NODE || e->cls == ERR_AGAIN) {
		o.node_lost = true;
		o.version_state = VERSION_BUILDING;
		if (!b->cancelled)
			log_err("a build failed on this node", e);
	} else {
		o.version_state = VERSION_FAILED;
		o.build_reason = e->text;
	}
	native_leave(&b->base);
	b->base.done(b->base.arg, &o);
	free(log);
	run_free(b);
}

/* ---- 5: the layer is kept ---- */

static void
on_uploaded(void *arg, int fd, const struct err *e)
{
	struct build_run *b = arg;

	(void)fd;
	b->blob = NULL;
	finish(b, e);
}

static int
keep_layer(struct build_run *b, int status, const char *text, struct err *e)
{
	struct native *n = b->base.native;

	if (layers_unpacked(status, text, b->layer, e) ||
	    layers_commit(n->c.layers, b->temp, b->layer, e))
		return err_wrap(e, "the version's layer");
	b->temp[0] = '\0';
	b->blob = blob_put(n->c.blobs, b->layer, b->file, on_uploaded, b, e);
	return b->blob ? 0 : -1;
}

static void
on_layer(void *arg, int status, const char *text)
{
	struct build_run *b = arg;
	struct err e = { 0 };

	b->helper = NULL;
	if (keep_layer(b, status, text, &e))
		finish(b, &e);
}

/* ---- Or: the package is the layer ---- */

static void
finish_with_package(struct build_run *b)
{
	memcpy(b->layer, b->version.package_digest, sizeof b->layer);
	finish(b, NULL);
}

static void
accept_package(struct build_run *b)
{
	struct err e = { 0 };
	int rc = layers_publish(b->base.native->c.layers, b->package_layer,
				b->version.package_digest, &e);

	b->package_layer[0] = '\0';
	if (rc)
		finish(b, &e);
	else
		finish_with_package(b);
}

/* ---- 4: the tar is unpacked ---- */

static int
unpack_layer(struct build_run *b, struct err *e)
{
	struct native *n = b->base.native;

	fd_close(&b->dir);
	b->dir = layers_temp(n->c.layers, b->temp, e);
	if (b->dir < 0) {
		b->temp[0] = '\0';
		return -1;
	}
	b->helper = layers_unpack(n->c.layers, "tar", b->file, b->dir, on_layer, b, e);
	return b->helper ? 0 : -1;
}

/* ---- 3: the sandbox ---- */

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

static void
on_telling(void *arg)
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
	b->replied = true;
	if (b->reply.type == RUNTIME_RESULT || !b->reply.ok)
		return CHANNEL_STOP;
	b->layer_bytes = 0;
	return CHANNEL_STREAM;
}

static void
on_bytes(void *arg, const char *data, size_t len, uint64_t left)
{
	struct build_run *b = arg;
	struct err e = { 0 };

	(void)left;
	if (b->error.cls != ERR_NONE)
		return;
	b->layer_bytes += len;
	if (b->layer_bytes > FUNCTION_LAYER_MAX_BYTES) {
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
		return err_set(e, ERR_FUNCTION, "the build cannot start: %s", r->text);
	if (r->reason == SPAWN_SIGNALED)
		return err_set(e, ERR_FUNCTION, "the build was ended by signal %s%s",
			       name ? "SIG" : "", name ? name : "unknown");
	if (r->code || !b->replied || !b->layer_bytes)
		return err_set(e, ERR_FUNCTION, "the build ended (exit status %d) without a layer",
			       r->code);
	return 0;
}

static int order(struct build_run *b, struct err *e);

static void
on_done(void *arg, const struct spawn_result *r)
{
	struct build_run *b = arg;
	struct err e = { 0 };
	int rc;

	sandbox_run_free(b->sandbox);
	b->sandbox = NULL;
	if (b->again && !b->cancelled && b->error.cls == ERR_NONE) {
		b->again = false;
		b->network = true;
		rc = order(b, &e);
	} else {
		rc = judge(b, r, &e);
		if (rc == 0 && b->reply.type == RUNTIME_RESULT) {
			accept_package(b);
			return;
		}
		rc = rc ? rc : unpack_layer(b, &e);
	}
	if (rc)
		finish(b, &e);
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

static int
order(struct build_run *b, struct err *e)
{
	const struct native_config *c = &b->base.native->c;
	struct spawn_request r = {
		.image = b->image ? &b->image->spawn : NULL,
		.runtime = b->runtime->name,
		.layers = { b->package_layer },
		.layer_count = 1,
		.argv = (const char *const *)b->runtime->build,
		.envp = (const char *const *)b->env.list,
		.workdir = "/tmp",
		.memory_bytes = c->build_memory_mib << 20,
		.tmp_bytes = (uint64_t)BUILD_TMP_MIB << 20,
		.timeout_ns = c->build_timeout_s * NS_PER_S,
		.cpu_millis = BUILD_CPU_MILLIS,
		.pids = BUILD_PIDS,
		.network = b->network ? SPAWN_NET_BUILD : SPAWN_NET_NONE,
	};
	char line[128];
	int n;

	if (open_tar(b, e))
		return -1;
	b->sandbox = sandbox_run_start(c->loop, c->launcher, &r, &sandbox_fns, b, e);
	if (!b->sandbox)
		return -1;
	loop_timer_after(b->telling, TELL_NS);
	/* A tenth is left for what comes after pip: compilation and the tar. */
	n = snprintf(line, sizeof line,
		     "{\"v\":1,\"type\":\"build\",\"network\":%s,\"requirements_timeout_s\":%llu}\n",
		     b->network ? "true" : "false",
		     (unsigned long long)(c->build_timeout_s - c->build_timeout_s / 10));
	if (sandbox_run_send(b->sandbox, line, (size_t)n, NULL, 0, e))
		give_up(b, e);
	return 0;
}

/* ---- 2: the package is a layer ---- */

static int
use_package(struct build_run *b, int status, const char *text, struct err *e)
{
	struct layers *layers = b->base.native->c.layers;
	char digest[65];

	memcpy(digest, b->version.package_digest, sizeof digest);
	if (layers_unpacked(status, text, digest, e))
		return -1;
	if (!b->runtime->build[0]) {
		if (layers_commit(layers, b->temp, digest, e))
			return -1;
		b->temp[0] = '\0';
		finish_with_package(b);
		return 0;
	}
	if (layers_commit_private(layers, b->temp, b->package_layer, e)) {
		b->package_layer[0] = '\0';
		return -1;
	}
	b->temp[0] = '\0';
	return order(b, e);
}

static void
on_unpacked(void *arg, int status, const char *text)
{
	struct build_run *b = arg;
	struct err e = { 0 };

	b->helper = NULL;
	if (use_package(b, status, text, &e))
		finish(b, &e);
}

/* ---- 1: the package is here ---- */

static void on_image(void *arg, const struct err *why);

static int
unpack_package(struct build_run *b, struct err *e)
{
	struct layers *layers = b->base.native->c.layers;

	b->dir = layers_temp(layers, b->temp, e);
	if (b->dir < 0) {
		b->temp[0] = '\0';
		return -1;
	}
	b->helper = layers_unpack(layers, "zip", b->file, b->dir, on_unpacked, b, e);
	return b->helper ? 0 : -1;
}

static void
on_package(void *arg, int fd, const struct err *why)
{
	struct build_run *b = arg;
	struct err e = { 0 };
	struct stat st;

	b->blob = NULL;
	b->file = fd;
	b->layer_bytes = fd < 0 || fstat(fd, &st) ? 0 : (uint64_t)st.st_size;
	if (why && why->cls == ERR_NOT_FOUND) {
		err_set(&e, ERR_NOT_FOUND, "the version's package is not in the control plane's store");
		finish(b, &e);
	} else if (why) {
		finish(b, why);
	} else if (unpack_package(b, &e)) {
		finish(b, &e);
	}
}

/* ---- 0: the image is here ---- */

static int
use_image(struct build_run *b, struct err *e)
{
	const struct native_config *c = &b->base.native->c;
	const char *digest = b->version.image_digest;

	if (digest[0] && !(b->image = images_use(c->images, digest))) {
		b->image_wait = images_fetch(c->images, digest, on_image, b, e);
		return b->image_wait ? 0 : -1;
	}
	if (env_base(&b->env, e) || (b->image && images_env(b->image, &b->env, e)) ||
	    env_set_all(&b->env, b->runtime->env, e))
		return -1;
	b->blob = blob_get(c->blobs, b->version.package_digest, FUNCTION_PACKAGE_MAX_BYTES, on_package,
			   b, e);
	return b->blob ? 0 : -1;
}

static void
on_image(void *arg, const struct err *why)
{
	struct build_run *b = arg;
	struct err e = { 0 };

	b->image_wait = NULL;
	if (why)
		finish(b, why);
	else if (use_image(b, &e))
		finish(b, &e);
}

/* ---- Start and end ---- */

static void
on_cancelled(void *arg)
{
	struct err e = { 0 };

	err_set(&e, ERR_AGAIN, "cancelled");
	finish(arg, &e);
}

static void
build_cancel(struct driver_run *base)
{
	struct build_run *b = (struct build_run *)base;

	if (b->cancelled)
		return;
	b->cancelled = true;
	if (b->sandbox) {
		sandbox_run_kill(b->sandbox, SPAWN_KILL_CANCELLED);
		return;
	}
	image_wait_cancel(b->image_wait);
	blob_cancel(b->blob);
	if (b->helper)
		helper_cancel(b->helper);
	b->image_wait = NULL;
	b->blob = NULL;
	b->helper = NULL;
	loop_timer_after(b->timer, 0);
}

static void
build_free(struct driver_run *base)
{
	run_free((struct build_run *)base);
}

static const struct run_ops build_ops = { .cancel = build_cancel, .free = build_free };

static int
prepare(struct build_run *b, const struct message *job, struct err *e)
{
	struct native *n = b->base.native;

	if (function_version_copy(&b->version, &job->version))
		return err_set(e, ERR_NODE, "build: out of memory");
	b->timer = loop_timer_add(n->c.loop, on_cancelled, b, e);
	b->telling = b->timer ? loop_timer_add(n->c.loop, on_telling, b, e) : NULL;
	if (!b->telling)
		return -1;
	b->runtime = runtimes_find(n->c.runtimes, b->version.runtime);
	if (!b->runtime)
		return err_set(e, ERR_INPUT, "the node has no runtime '%s'", b->version.runtime);
	return use_image(b, e);
}

struct driver_run *
build_start(struct native *n, const struct message *job, const void *payload, size_t len,
	    driver_done_fn done, void *arg, struct err *e)
{
	struct build_run *b = calloc(1, sizeof *b);

	(void)payload;
	(void)len;
	if (!b) {
		err_set(e, ERR_NODE, "build: out of memory");
		return NULL;
	}
	b->file = b->dir = -1;
	if (native_enter(n, &b->base, &build_ops, n->c.build_memory_mib, done, arg, e)) {
		free(b);
		return NULL;
	}
	if (prepare(b, job, e)) {
		native_leave(&b->base);
		run_free(b);
		return NULL;
	}
	return &b->base;
}
