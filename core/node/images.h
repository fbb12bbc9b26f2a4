/*
 * The images that functions run on, as the driver knows them: by the digest of the manifest.
 *
 * Where the machine's image store has one (it was imported here, or fetched before) it is held
 * there by the keeper (keeper.h).  Else manifest, configuration and the layers that the store
 * lacks are fetched from the control plane, several at a time, into DIR/<digest>; what a broken
 * connection or an end of this process left there is gone on with.  Then the keeper takes it in.
 *
 * An image that no run has used for idle_ns is let go, and forgotten by the store unless it has
 * a name of the operator's there.
 */
#ifndef PRATAI_NODE_IMAGES_H
#define PRATAI_NODE_IMAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/clock.h"
#include "core/node/keeper.h"
#include "sandbox/spawner.h"

struct blobs;
struct env;
struct images;
struct image_wait;
struct loop;

struct images_config {
	struct loop *loop;
	struct blobs *blobs;
	int dir_fd; /* for what is fetched; the caller's */
	const struct keeper *keeper;
	/* The keeper is gone, or sends nonsense. */
	void (*gone)(void *arg);
	void *arg;
	uint64_t idle_ns, pass_ns; /* pass_ns: how often is looked what may go */
};
#define IMAGES_LIMITS .idle_ns = 6 * 3600 * NS_PER_S, .pass_ns = 60 * NS_PER_S

struct node_image {
	struct spawn_image spawn;
	char **env; /* "NAME=value", NULL-ended */
};

struct images *images_new(const struct images_config *c, struct err *e);
void images_free(struct images *s); /* fetches under way end without an answer */

/* The image, which stays until images_unuse, once for each use; NULL: it is to be fetched. */
const struct node_image *images_use(struct images *s, const char *digest);
void images_unuse(struct images *s, const struct node_image *image);

/* e NULL: images_use has it now.  Else as layer_fn: ERR_NOT_FOUND, ERR_FUNCTION (its content is
 * refused), or this node's fault. */
typedef void (*image_fn)(void *arg, const struct err *e);

/* Many may wait for one fetch.  fn comes later.  NULL: not started. */
struct image_wait *images_fetch(struct images *s, const char *digest, image_fn fn, void *arg,
				struct err *e);
void image_wait_cancel(struct image_wait *w); /* NULL is fine; the fetch goes on */

/* What the image says of the environment, but for HOME. */
int images_env(const struct node_image *image, struct env *env, struct err *e);

#endif
