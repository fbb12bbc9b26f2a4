/*
 * The image "host": the machine's own /usr, and a root directory to put around it.
 *
 * A sandbox of this image sees /usr as it is, read-only.  The rest is a skeleton that is
 * made here, once, below a store directory: the links of a merged /usr (bin, lib, ...),
 * empty mount points, and an /etc with what programs need and nothing that is secret or
 * the machine's own business: generated passwd, group, hosts and nsswitch.conf; copies of
 * the loader's cache, alternatives, public certificates, time zone, and the like.
 *
 * The skeleton appears complete or not at all, and is made again when the machine has
 * changed (a copied file or directory is another one, or after a boot).  The one before
 * is kept until the next time, for those who still run on it.
 */
#ifndef PRATAI_ROOTFS_HOST_H
#define PRATAI_ROOTFS_HOST_H

struct err;

/* Below the store's directory: the skeleton's root. */
#define HOST_ROOT "host/root"
/* What a sandbox mounts at /usr of it. */
#define HOST_USR "/usr"

/*
 * Makes sure that <store>/host/root is there and describes this machine.  Needs no root;
 * store is a directory that the caller may write.  Cheap (some 30 calls of stat) when
 * nothing has changed.  0 or -1.
 */
int host_prepare(int store, struct err *e);

#endif
