/*
 * The layers that several versions have: what is installed for the same needs of one
 * project, with one runtime and image, is made once.  The control plane remembers which layer
 * that is, under a key that is the SHA-256 of all these.
 *
 * On one node nobody makes what another build makes already: the later one waits, and asks
 * the control plane when the first has ended, be it well or not.  Two nodes may make the same
 * at once; then the last one is remembered, and both are good.
 */
#ifndef PRATAI_BUILD_DEPENDENCIES_H
#define PRATAI_BUILD_DEPENDENCIES_H

#include <stddef.h>
#include <stdint.h>

struct claim;
struct err;
struct function_version;
struct native;

struct made_layer {
	char digest[65]; /* "": none */
	uint64_t bytes;  /* of its tar, or the package's zip */
};

/* found: what was made before; NULL, e NULL: nothing, so that it is the caller's to make.
 * Else as blob_fn. */
typedef void (*claim_fn)(void *arg, const struct made_layer *found, const struct err *e);

/* fn comes once, later, when it is this claim's turn, which it is until claim_free.  NULL: not
 * started. */
struct claim *claim_new(struct native *n, const struct function_version *v, const void *needs,
			size_t len, claim_fn fn, void *arg, struct err *e);
/* Its turn: has the control plane remember what was made; fn comes once, without found. */
int claim_keep(struct claim *c, const struct made_layer *made, claim_fn fn, struct err *e);
void claim_free(struct claim *c); /* NULL is fine */

#endif
