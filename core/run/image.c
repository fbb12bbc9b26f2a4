/*
 * An image of the store's, for one run.  Each layer is held by a shared flock until this
 * process ends, so that image-gc leaves it alone; the store's own lock is only held while
 * they are taken (store.h).
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/run/run.h"
#include "rootfs/store.h"

/* By paths: without root, init opens them in its own mount namespace. */
static int
take_layers(struct run *r, struct image_store *s, struct err *e)
{
	struct sandbox_spec *spec = &r->spec;
	char path[PATH_MAX];

	spec->layer_count = 0;
	for (unsigned k = r->image.layer_count; k-- > r->image.base;) {
		const char *key = r->image.layers[k].key;
		int fd = store_hold_layer(s, key, e);
		char **copy = &r->layer_paths[spec->layer_count];

		if (fd < 0)
			return -1;
		r->held[r->held_count++] = fd;
		if (store_layer_path(s, key, path) || !(*copy = strdup(path)))
			return err_set(e, ERR_NODE, "no memory for the path of a layer");
		spec->layers[spec->layer_count++] = (struct sandbox_tree){
			.at = AT_FDCWD, .path = *copy, .ids = geteuid() ? 0 : IMAGE_ID_BASE,
		};
	}
	return 0;
}

static int
take_command(struct run *r, struct err *e)
{
	size_t n = 0;

	if (r->opts.operand_count)
		return 0;
	for (size_t i = 0; i < r->image.entrypoint.count; i++)
		r->argv[n++] = r->image.entrypoint.list[i];
	for (size_t i = 0; i < r->image.cmd.count; i++)
		r->argv[n++] = r->image.cmd.list[i];
	r->spec.argv = r->argv;
	return n ? 0 : err_set(e, ERR_INPUT, "no command, and the image has none of its own (pratai run "
			       "[OPTIONS] -- CMD [ARG...])");
}

int
run_open_image(struct run *r, const char *root, const char *name, struct err *e)
{
	struct image_store s;
	int rc;

	if (image_store_open(&s, root, STORE_READ, NULL, e))
		return -1;
	r->has_image = true;
	rc = store_image(&s, name, &r->image, e) || take_layers(r, &s, e) || take_command(r, e);
	image_store_close(&s);
	if (rc)
		return err_wrap(e, "--image");
	if (r->image.workdir && !opt_given(&r->opts, "workdir"))
		r->spec.workdir = r->image.workdir;
	if (r->image.uid >= 0 && !opt_given(&r->opts, "uid")) {
		r->spec.uid = (uid_t)r->image.uid;
		r->gid = (gid_t)r->image.gid;
		r->spec.gid = &r->gid;
	}
	return 0;
}

void
run_close_image(struct run *r)
{
	for (unsigned i = 0; i < r->held_count; i++)
		close(r->held[i]);
	for (unsigned i = 0; i < IMAGE_LAYERS_MAX; i++)
		free(r->layer_paths[i]);
	if (r->has_image)
		image_free(&r->image);
}
