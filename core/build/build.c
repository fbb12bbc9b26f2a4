/*
 * A build, step by step; each step starts the next from its callback:
 *
 *   0 the image, if it is not the host's      on_image
 *   1 package: blob → unnamed file            on_package
 *   2 unpacked below function/ of a layer     on_unpacked      (pratai-unpack zip)
 *   3 the runtime's build command over it, in a sandbox (sandbox.c), which checks, and
 *     writes the version's layer as a tar to its channel; that goes into another unnamed
 *     file                                    build_answered
 *   4 tar unpacked, which gives its digest    on_layer         (pratai-unpack tar)
 *   5 layer in the store, tar uploaded        on_uploaded
 *   6 if the build has said what packages of others it needs: the layer that was made for
 *     the same before; or else a sandbox without the package makes it, as 3, 4 and 5
 *                                             on_dependencies  (dependencies.h)
 *
 * After 2, for a runtime without a build command, or after 3, when that has nothing to add,
 * the package itself is the layer, under its own digest: its zip is a blob already.  When the
 * build asks for network, 3 begins again with it, and there is one layer for all.
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

#include "core/base/fdio.h"
#include "core/base/log.h"
#include "core/build/run.h"
#include "core/node/blob.h"
#include "core/node/runtimes.h"
#include "core/node/sandbox_run.h"
#include "netio/helper.h"
#include "netio/loop.h"

static void
run_free(struct build_run *b)
{
	struct layers *layers = b->base.native->c.layers;

	sandbox_run_free(b->sandbox);
	images_unuse(b->base.native->c.images, b->image);
	image_wait_cancel(b->image_wait);
	blob_cancel(b->blob);
	claim_free(b->claim);
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
	buf_free(&b->needs);
	runtime_free(b->own_runtime);
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
		const struct made_layer *own = &b->layers[BUILD_OWN], *below = own + 1;

		memcpy(o.layer_digest, own->digest, sizeof o.layer_digest);
		memcpy(o.dependencies_digest, below->digest, sizeof o.dependencies_digest);
		o.layer_bytes = own->bytes + below->bytes;
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

/* ---- The end of a good one ---- */

static void
end(struct build_run *b)
{
	const struct made_layer *own = &b->layers[BUILD_OWN], *below = own + 1;
	struct err e = { 0 };
	int rc = 0;

	if (own->bytes + below->bytes > FUNCTION_LAYER_MAX_BYTES)
		rc = err_set(&e, ERR_FUNCTION, "the function and its dependencies are larger than %d MiB",
			     FUNCTION_LAYER_MAX_BYTES >> 20);
	if (rc == 0 && b->as_it_is && b->package_layer[0]) {
		rc = layers_publish(b->base.native->c.layers, b->package_layer, own->digest, &e);
		b->package_layer[0] = '\0';
	}
	finish(b, rc ? &e : NULL);
}

static void
use_package_as_it_is(struct build_run *b)
{
	struct made_layer *own = &b->layers[BUILD_OWN];

	b->as_it_is = true;
	memcpy(own->digest, b->version.package_digest, sizeof own->digest);
	own->bytes = b->package_bytes;
}

/* ---- 6: dependencies ---- */

static void
on_remembered(void *arg, const struct made_layer *found, const struct err *e)
{
	struct build_run *b = arg;

	(void)found;
	if (e)
		finish(b, e);
	else
		end(b);
}

static void
on_dependencies(void *arg, const struct made_layer *found, const struct err *why)
{
	static const char said[] =
		"pratai: dependencies: those of an earlier build with the same requirements\n";
	struct build_run *b = arg;
	struct err e = { 0 };

	if (why) {
		finish(b, why);
	} else if (found) {
		b->layers[BUILD_DEPENDENCIES] = *found;
		tail_add(&b->log, said, sizeof said - 1);
		end(b);
	} else {
		b->stage = BUILD_DEPENDENCIES;
		if (build_order(b, &e))
			finish(b, &e);
	}
}

static int
claim(struct build_run *b, struct err *e)
{
	b->claim = claim_new(b->base.native, &b->version, b->needs.data, b->needs.len, on_dependencies,
			     b, e);
	return b->claim ? 0 : -1;
}

/* The layer of this stage is made and kept. */
static void
made(struct build_run *b)
{
	struct err e = { 0 };
	int rc;

	if (b->stage == BUILD_DEPENDENCIES)
		rc = claim_keep(b->claim, &b->layers[b->stage], on_remembered, &e);
	else if (b->needs.len)
		rc = claim(b, &e);
	else
		rc = 1;
	if (rc < 0)
		finish(b, &e);
	else if (rc > 0)
		end(b);
}

/* ---- 5: the layer is kept ---- */

static void
on_uploaded(void *arg, int fd, const struct err *e)
{
	struct build_run *b = arg;

	(void)fd;
	b->blob = NULL;
	if (e)
		finish(b, e);
	else
		made(b);
}

static int
keep_layer(struct build_run *b, int status, const char *text, struct err *e)
{
	struct native *n = b->base.native;
	char *digest = b->layers[b->stage].digest;

	if (layers_unpacked(status, text, digest, e) || layers_commit(n->c.layers, b->temp, digest, e))
		return err_wrap(e, "the version's layer");
	b->temp[0] = '\0';
	b->blob = blob_put(n->c.blobs, digest, b->file, on_uploaded, b, e);
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

/* ---- 3: the sandbox's end ---- */

void
build_answered(struct build_run *b, const struct err *why)
{
	struct err e = { 0 };

	if (why) {
		finish(b, why);
	} else if (b->reply.type == RUNTIME_LAYER) {
		b->as_it_is = false;
		if (unpack_layer(b, &e))
			finish(b, &e);
	} else if (b->stage == BUILD_OWN) {
		use_package_as_it_is(b);
		made(b);
	} else {
		end(b); /* nothing was to be installed */
	}
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
		use_package_as_it_is(b);
		finish(b, NULL);
		return 0;
	}
	if (layers_commit_private(layers, b->temp, b->package_layer, e)) {
		b->package_layer[0] = '\0';
		return -1;
	}
	b->temp[0] = '\0';
	return build_order(b, e);
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
	b->package_bytes = fd < 0 || fstat(fd, &st) ? 0 : (uint64_t)st.st_size;
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
	claim_free(b->claim);
	if (b->helper)
		helper_cancel(b->helper);
	b->image_wait = NULL;
	b->blob = NULL;
	b->claim = NULL;
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
	b->telling = b->timer ? loop_timer_add(n->c.loop, build_tell, b, e) : NULL;
	if (!b->telling)
		return -1;
	b->runtime = runtime_use(n->c.runtimes, b->version.runtime, b->version.own_runtime,
				 &b->own_runtime, e);
	if (!b->runtime)
		return -1;
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
