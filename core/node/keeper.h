/*
 * The keeper of images: a small process of the node's that stays root, with no network, and
 * looks after the machine's image store (rootfs/store.h) for the driver, which has no powers.
 *
 * It holds the layers of images that are in use against image-gc, and takes in what the driver
 * has fetched.  What strangers wrote it does not read: a worker without powers does
 * (rootfs/image_worker.h), which also verifies each digest.  The driver is taken for an
 * attacker: messages of a fixed size, digests instead of paths, and one directory of the
 * driver's, of which only index.json and blobs/sha256/HEX are opened.  A message that is not
 * well formed ends the connection, and with it keeper and node.
 *
 * What was fetched is called fetched/DIGEST in the store, until the driver says that it is not
 * used any more, or, if it was not there to say so, the next start but KEEPER_KEEP_S later.
 */
#ifndef PRATAI_NODE_KEEPER_H
#define PRATAI_NODE_KEEPER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/base/err.h"

enum {
	KEEPER_MAGIC = 0x5072496d, /* of programs built together */
	KEEPER_DIGESTS_MAX = 130,  /* a manifest, a configuration, 127 layers */
	KEEPER_IMAGES_MAX = 512,   /* held at once */
	KEEPER_KEEP_S = 24 * 3600, /* what was fetched and not used for so long goes at the start */
	KEEPER_TAKES_MAX = 2,      /* at once; more are ERR_AGAIN */
};

enum keeper_type {
	/* digests[0]: an image's manifest.  Its layers stay until KEEPER_RELEASE.  The answer has
	 * the record (rootfs/image.h) as a descriptor; ERR_NOT_FOUND. */
	KEEPER_HOLD = 1,
	KEEPER_RELEASE, /* no answer; one that is not held is fine */
	/* Which of the blobs digests does the store lack? */
	KEEPER_LACK,
	/* digests[0]: the manifest of an image in the directory that comes along, an OCI layout
	 * but for what the store has.  Answered when it is in the store, or not.  ERR_INPUT,
	 * ERR_LIMIT: its own fault; ERR_AGAIN: too many at once. */
	KEEPER_TAKE,
	KEEPER_FORGET, /* digests[0]: is not called fetched/DIGEST any more; no answer */
};

struct keeper_ask {
	uint32_t magic, type;
	uint64_t tag; /* comes back in the answer */
	uint32_t count, zero;
	uint8_t digests[KEEPER_DIGESTS_MAX][32];
};

struct keeper_answer {
	uint32_t magic, err_class; /* ERR_NONE: it went well */
	uint64_t tag;
	char text[sizeof((struct err *)0)->text];
	uint8_t lacking[KEEPER_DIGESTS_MAX];
};

struct keeper {
	int fd; /* the driver's end, non-blocking */
	pid_t pid;
	int pidfd;
};

/*
 * root: where images/ is, or is to be (made when something is taken in).  self_fd: this program,
 * unpack_fd: pratai-unpack.  As root, before any thread.
 */
int keeper_start(const char *root, int self_fd, int unpack_fd, struct keeper *out, struct err *e);

/* pratai-node KEEPER_WORD ROOT: the process.  Its exit status. */
#define KEEPER_WORD "--keep-images"
int keeper_main(const char *root);

#endif
