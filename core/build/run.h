/*
 * One build, for the files that are it: build.c (its steps) and sandbox.c (its sandboxes).
 */
#ifndef PRATAI_BUILD_RUN_H
#define PRATAI_BUILD_RUN_H

#include <stdbool.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/build/dependencies.h"
#include "core/build/tail.h"
#include "core/node/env.h"
#include "core/node/images.h"
#include "core/node/layers.h"
#include "core/node/native.h"
#include "core/node/runtime.h"

/* What is being made: the version's own layer, or the one below it. */
enum build_stage { BUILD_OWN, BUILD_DEPENDENCIES, BUILD_STAGES };

struct build_run {
	struct driver_run base; /* first */
	struct function_version version;
	const struct runtime *runtime;
	struct runtime *own_runtime; /* that is it, for a version that has one */
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
	uint64_t package_bytes;
	bool as_it_is;            /* the package is the version's own layer */
	bool network;
	struct buf needs;         /* as the runtime said it; empty: nothing to share */
	bool needing;             /* it is saying it */
	struct claim *claim;
	enum build_stage stage;
	struct sandbox_run *sandbox;
	struct tail log;
	struct runtime_reply reply;
	struct event failure;     /* the runtime's error, in an event's members */
	bool again; /* with network */
	bool replied, cancelled;
	struct err error;         /* ours or the runtime's, found while it ran */
	struct made_layer layers[BUILD_STAGES];
};

/* ---- sandbox.c ---- */

/* Runs the runtime's build command in a new sandbox, for b->stage.  build_answered comes. */
int build_order(struct build_run *b, struct err *e);
/* For b->telling: tells what has been printed, again and again while there is a sandbox. */
void build_tell(void *b);

/* ---- build.c ---- */

/* e NULL: the runtime's answer is in b->reply, and its tar, if it is one, in b->file. */
void build_answered(struct build_run *b, const struct err *e);

#endif
