/*
 * The image store of a machine, ROOT/images, for root alone (or for the user whose it is):
 *
 *   refs/NAME         the manifest digest that the name means; '/' in it is '%'
 *   records/DIGEST    what image.h calls a record, by manifest digest
 *   blobs/sha256/HEX  manifests, configurations and layers as they came
 *   layers/KEY/       unpacked layers
 *   builds/KEY        what a step of a build made, see store_steps.h
 *   tmp.ID/           an import in the making, or what is being removed
 *   lock
 *
 * How it stays consistent.  Nothing is changed in place.  A blob, a layer, a record and a
 * reference each appear by one rename, in this order, after all of them are on disk; so
 * whatever a name leads to is whole, also after a crash.  The lock (flock) is shared by
 * everybody who adds or reads and held alone by who removes, gc and the sweep of tmp.*: so
 * an import's parts do not vanish while it goes on, and under the exclusive lock every
 * tmp.* is a dead one's.  Two who add the same thing at once need not know of each other:
 * both have the same content, the first rename wins, the second is told that it is there.
 * A sandbox holds a shared flock on each layer's directory for its life, taken while it
 * holds the shared lock; gc leaves a layer that it cannot lock alone.
 *
 * Modes: nobody but its owner (and the unpacker) may search images/, since layers may hold
 * files that their image meant for its root only.  Owners of layers: IMAGE_ID_BASE in image.h.
 */
#ifndef PRATAI_STORE_H
#define PRATAI_STORE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rootfs/image.h"

struct err;

/* As --root and PRATAI_ROOT say (option: NULL or the former); else /var/lib/pratai for root, and
 * below XDG_CACHE_HOME or HOME for others.  ERR_INPUT. */
int store_root(const char *option, char path[PATH_MAX], struct err *e);

struct image_store {
	int dir;  /* ROOT/images */
	int lock; /* held while open */
	char path[PATH_MAX];
};

enum store_use {
	STORE_READ, /* shared; the store need not be there (dir -1: it is empty) */
	STORE_ADD,  /* shared; makes it, and sweeps what dead imports left when nobody is there */
	STORE_REMOVE, /* alone: waits for imports to end */
};

/* waiting: called once when STORE_REMOVE has to wait for others; or NULL. */
int image_store_open(struct image_store *s, const char *root, enum store_use use, void (*waiting)(void),
	       struct err *e);
void image_store_close(struct image_store *s);

enum { STORE_TEMP_MAX = 48, STORE_PATH_MAX = 256 };
/* A new tmp.ID: its descriptor, and its name for store_discard. */
int store_temp(struct image_store *s, char name[STORE_TEMP_MAX], struct err *e);
/* Removes it and what is below; what cannot be removed is left to the sweep. */
void store_discard(struct image_store *s, const char *name);

/*
 * Takes an image that is complete in the store and in the temporary directory temp (its
 * blobs/HEX and layers/KEY, made by somebody less trusted): moves what the store lacks,
 * writes the record and lets name mean it.  All is on disk when it returns.
 */
int store_commit(struct image_store *s, int temp, const char *name, const struct image *i,
		 struct err *e);
/* The layers alone, for an image that is not whole yet: until a name leads to them, they last while
 * the caller has the store open. */
int store_commit_layers(struct image_store *s, int temp, const struct image *i, struct err *e);

/* The image that the name means, to be freed.  ERR_NOT_FOUND names those that there are; who goes
 * through store_names may meet it: a name can be forgotten at any time. */
int store_image(struct image_store *s, const char *name, struct image *i, struct err *e);
int store_record(struct image_store *s, const char *manifest, struct image *i, struct err *e);

/* The names in order, each malloc'd; *count of them.  Freed by store_names_free. */
int store_names(struct image_store *s, char ***names, size_t *count, struct err *e);
void store_names_free(char **names, size_t count);
/* Forgets the name.  ERR_NOT_FOUND. */
int store_forget(struct image_store *s, const char *name, struct err *e);

/* Holds the layer for the life of the descriptor that is returned, a directory's. */
int store_hold_layer(struct image_store *s, const char *key, struct err *e);
/* Where the layer is, absolute when the root was. */
int store_layer_path(const struct image_store *s, const char *key, char path[PATH_MAX]);

struct store_gc {
	uint64_t images, layers, blobs, bytes; /* removed; bytes of blobs */
	uint64_t in_use;                       /* layers that sandboxes hold */
};
/* Removes what no name leads to.  The store is open with STORE_REMOVE. */
int store_collect(struct image_store *s, struct store_gc *done, struct err *e);

struct store_check {
	uint64_t images, blobs, layers, bytes;
	uint64_t bad;
};
/* Hashes every blob that a name leads to, and counts layers (image_verify_layers reads those);
 * tells of each fault by a sentence. */
int store_verify(struct image_store *s, struct store_check *done,
		 void (*fault)(void *arg, const char *sentence), void *arg, struct err *e);

#endif
