/*
 * The OCI layout of an image that we have built: what image_import then takes, like any other's.
 */
#ifndef PRATAI_OCI_MAKE_H
#define PRATAI_OCI_MAKE_H

struct err;
struct image;

/*
 * Writes index.json, manifest and configuration below the directory dir (blobs/sha256 is made),
 * from i's layers (blob, diff, bytes, media) and configuration; sets i's digests of both.  The
 * same image gives the same bytes.
 */
int oci_make_layout(int dir, struct image *i, struct err *e);

#endif
