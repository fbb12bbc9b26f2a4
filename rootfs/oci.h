/*
 * OCI's and docker's JSON: from an image's source to a record without trees, and the
 * manifest of an image that came without one.
 *
 * Formats: the OCI image specification 1.0 (index, manifest, configuration, of which
 * docker's schema 2 is a dialect) and `docker save`'s manifest.json.
 */
#ifndef PRATAI_OCI_H
#define PRATAI_OCI_H

#include "rootfs/image.h"
#include "rootfs/image_source.h"

/*
 * Of several images that the source has: the one whose name in it is `select` or the tag in
 * select, then the one for this machine.  Fills i but for keys, base, ids and the
 * counts; the blobs are there, verified.  For SOURCE_ROOTFS only the layer's blob is known.
 */
int oci_resolve(struct image_source *s, const char *select, struct image *i, struct err *e);

/* When all diff ids are known: what SOURCE_ROOTFS and SOURCE_DOCKER lack. */
int oci_complete(struct image_source *s, struct image *i, struct err *e);

/* This machine's architecture, as images have it. */
const char *oci_arch(void);

/* The chain id of a layer on others: below is theirs, or NULL for the lowest layer. */
void oci_chain(const char *below, const char *diff, char out[SHA256_HEX_MAX]);

#endif
