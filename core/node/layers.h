/*
 * The node's layers: DIR/layers/sha256/<hex>/, each an unpacked tar, or a package's zip that
 * needed no build, used read-only by the sandboxes.  A cache: the control plane keeps every layer as a blob.
 *
 * A layer appears whole or not at all: it is unpacked as tmp.<id> and renamed.  Content is
 * not synced to disk; instead a start after a reboot throws away what the boot before had
 * (the file `boot` names it), as a crash of the machine may have left any of it half
 * written.  What an earlier process left unfinished (tmp.*, layers of builds) is removed at
 * start, by a helper.
 *
 * Which layers may go is decided here alone, by use: the control plane still has what is
 * needed again.  One that no sandbox uses goes when it was not used for idle_ns; and, the one
 * that was not used for longest first, while there are more than max_count or the disk has
 * less than free_min_bytes left.
 */
#ifndef PRATAI_NODE_LAYERS_H
#define PRATAI_NODE_LAYERS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/clock.h"
#include "core/base/id.h"

struct blobs;
struct err;
struct helper;
struct layer_wait;
struct layers;
struct loop;

enum { LAYER_NAME_MAX = 8 + ID_TEXT_MAX };

struct layers_config {
	struct loop *loop;
	struct blobs *blobs;
	int dir_fd;    /* DIR/layers; the caller's */
	int unpack_fd; /* pratai-unpack */
	int self_fd;   /* pratai-node, which removes trees when called with LAYERS_REMOVE */
	uint64_t idle_ns, pass_ns, free_min_bytes; /* pass_ns: how often is looked what may go */
	unsigned max_count;
};
#define LAYERS_LIMITS                                                                              \
	.idle_ns = 6 * 3600 * NS_PER_S, .pass_ns = 30 * NS_PER_S, .free_min_bytes = 1ull << 30,    \
	.max_count = 1024

struct layers *layers_new(const struct layers_config *c, struct err *e);
void layers_free(struct layers *s); /* fetches under way end without an answer */

/* True: the layer is there, and stays until layers_unuse, once for each use. */
bool layers_use(struct layers *s, const char *digest);
void layers_unuse(struct layers *s, const char *digest);

/*
 * e NULL: the layer is there.  Else ERR_NOT_FOUND: the control plane does not have it;
 * ERR_FUNCTION: its content is refused; other classes: this node failed, now.
 */
typedef void (*layer_fn)(void *arg, const struct err *e);

/* Gets it from the control plane; many may wait for one fetch.  fn comes later.  NULL: not
 * started. */
struct layer_wait *layers_fetch(struct layers *s, const char *digest, layer_fn fn, void *arg,
				struct err *e);
void layer_wait_cancel(struct layer_wait *w); /* NULL is fine; the fetch goes on */

/* ---- For builds ---- */

/* A new empty directory; its descriptor, and its name for what follows. */
int layers_temp(struct layers *s, char name[LAYER_NAME_MAX], struct err *e);
/* Makes it the layer digest.  One that is there already is as good: then name is removed. */
int layers_commit(struct layers *s, const char *name, const char *digest, struct err *e);
/* Removes it, in time. */
void layers_discard(struct layers *s, const char *name);
/* Makes it a layer for one build's sandbox, under a name of its own that looks like a digest:
 * 32 noughts and 32 random digits, by which a later start knows what to remove. */
int layers_commit_private(struct layers *s, const char *name, char digest[65], struct err *e);
/* Makes the private layer, which no sandbox uses, the layer digest.  It is gone in any case. */
int layers_publish(struct layers *s, const char *private, const char *digest, struct err *e);
/* Forgets a private layer that no sandbox uses. */
void layers_remove(struct layers *s, const char *digest);

/*
 * Unpacks fd (an archive at its start) below dir, see helper_fn.  kind: "zip" or "tar".
 */
struct helper *layers_unpack(struct layers *s, const char *kind, int fd, int dir,
			     void (*fn)(void *arg, int status, const char *text), void *arg,
			     struct err *e);
/*
 * What the unpacker's end means.  0: sha256 of the archive is digest ("" : any; then it is
 * given back there).  -1: ERR_FUNCTION (the archive's content) or ERR_NODE.
 */
int layers_unpacked(int status, const char *text, char digest[65], struct err *e);

/* pratai-node LAYERS_REMOVE NAME: removes NAME below descriptor 3.  The exit status. */
#define LAYERS_REMOVE "--remove-tree"
int layers_remove_main(const char *name);

#endif
