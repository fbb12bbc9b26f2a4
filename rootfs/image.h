/*
 * What the store knows of an image: a record, a short text beside the blobs that it was
 * made from.  It holds everything that a sandbox needs, so that who starts one reads no
 * JSON and no archive.
 *
 * The text has a line for each item, "KEY VALUE ..."; a value's bytes that are control
 * characters, '%' or (in a word of several on a line) spaces are %XX.  It comes from a
 * process that has read what strangers wrote: image_parse believes nothing.
 *
 * Layers are known by three SHA-256: of the blob, as it came; of the tar in it (the diff
 * id); and the key under which the unpacked tree is kept: the diff id, or, when the tree
 * depends on the layers below, the chain id (oci.h).
 */
#ifndef PRATAI_IMAGE_H
#define PRATAI_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/crypto.h"
#include "core/base/image_name.h"

struct buf;
struct err;

enum {
	IMAGE_LAYERS_MAX = 127, /* as other tools have it */
	IMAGE_RECORD_MAX = 1 << 20, /* bytes */
	IMAGE_WORDS_MAX = 1000,     /* variables, words of a command */
	IMAGE_MEDIA_MAX = 128,
};

/*
 * On disk the files of layers belong to the 65536 host ids from here on, which nobody else
 * has: neither `pratai run` (0x74000000 to 0x77ffffff) nor a node (from 0x70000000).  The
 * sandbox sees them as 0 to 65535, by a mount that maps ids.  So nothing in the store is
 * root's on the machine, whatever an image says, and no sandbox owns it either.
 */
#define IMAGE_ID_BASE 0x78000000u
#define IMAGE_IDS 65536u
#define IMAGE_ID_NOBODY 65534u

struct image_words {
	char **list; /* NULL-ended, or NULL */
	size_t count;
};

struct image_layer {
	char blob[SHA256_HEX_MAX], diff[SHA256_HEX_MAX], key[SHA256_HEX_MAX];
	uint64_t blob_bytes;
	char media[IMAGE_MEDIA_MAX];
};

struct image {
	char manifest[SHA256_HEX_MAX], config[SHA256_HEX_MAX];
	char os[32], arch[32], created[64]; /* "" when not said */
	struct image_layer layers[IMAGE_LAYERS_MAX]; /* the lowest first */
	unsigned layer_count;
	unsigned base; /* layers below this one are hidden by a root that is opaque */
	struct image_words env, entrypoint, cmd;
	char *workdir, *user; /* NULL: not said */
	int64_t uid, gid;     /* what user means in this image; -1: not said */
	/* Left out of the trees, see layer_write.h. */
	uint64_t devices, attributes, owners;
};

void image_free(struct image *i);
/* A word, copied.  -1: too many, or no memory. */
int image_word(struct image_words *w, const char *word);

int image_print(const struct image *i, struct buf *out);
/* i is zeroed first, and is to be freed whatever comes back.  ERR_NODE: not such a text. */
int image_parse(struct image *i, const char *text, size_t len, struct err *e);

/* Whether text is 64 lower-case hex digits. */
bool image_is_digest(const char *text);
#endif
