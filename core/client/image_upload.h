/*
 * An image of this machine's store, given to the control plane.
 */
#ifndef PRATAI_CLIENT_IMAGE_UPLOAD_H
#define PRATAI_CLIENT_IMAGE_UPLOAD_H

struct api;
struct api_answer;
struct err;
struct image;
struct image_store;

/*
 * Lets name mean the image i of the store s there, after the blobs that it lacks have been sent;
 * on a terminal a bar shows each.  *a: the image's record, to be cleared.  -1: what was sent
 * whole is there, so that another try goes on with the rest; *a is cleared.
 */
int image_upload(struct api *api, struct image_store *s, const char *name, const struct image *i,
		 struct api_answer *a, struct err *e);

#endif
