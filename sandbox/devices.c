/*
 * /dev of a sandbox: a small tmpfs with seven devices, the usual links, and nothing else.
 *
 * As root it is made in the caller, detached: the nodes work inside because the file
 * system belongs to the initial user namespace.  Without root the machine's own nodes are
 * bound into a tmpfs of the sandbox's.  Either way it is the sandbox's own (a shared one
 * would share locks), and read-only when the command runs.  No console, no ptys: the
 * image's idea of /dev/console or /dev/null is never looked at (CVE-2025-31133,
 * CVE-2025-52565).  "empty" and "boot_id" are there to cover others with.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "core/base/fdio.h"
#include "sandbox/child.h"
#include "sandbox/tree.h"

static const struct {
	const char *name;
	unsigned minor, major;
} nodes[] = {
	{ "null", 3, 1 },   { "zero", 5, 1 },    { "full", 7, 1 },
	{ "random", 8, 1 }, { "urandom", 9, 1 }, { "tty", 0, 5 },
};

static const struct {
	const char *name, *to;
} links[] = {
	{ "fd", "/proc/self/fd" },
	{ "stdin", "/proc/self/fd/0" },
	{ "stdout", "/proc/self/fd/1" },
	{ "stderr", "/proc/self/fd/2" },
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static int
new_dev(struct err *e)
{
	static const char *const options[] = { "mode", "0755", "size", "64k", "nr_inodes", "32", NULL };
	int dev = tree_new("tmpfs", options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);

	if (dev < 0)
		err_sys(e, ERR_NODE, "make the tmpfs of /dev");
	return dev;
}

/* A random UUID (version 4), which nothing else has. */
static int
make_boot_id(int dev, struct err *e)
{
	CLEAN_FD int fd = openat(dev, "boot_id", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
	unsigned char r[16];
	char text[40];
	int n;

	if (fd < 0 || getrandom(r, sizeof r, 0) != (ssize_t)sizeof r)
		return err_sys(e, ERR_NODE, "make /dev/boot_id");
	r[6] = (r[6] & 0x0f) | 0x40;
	r[8] = (r[8] & 0x3f) | 0x80;
	n = snprintf(text, sizeof text,
		     "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x\n", r[0], r[1],
		     r[2], r[3], r[4], r[5], r[6], r[7], r[8], r[9], r[10], r[11], r[12], r[13], r[14], r[15]);
	return write(fd, text, (size_t)n) == n ? 0 : err_sys(e, ERR_NODE, "write /dev/boot_id");
}

static int
fill(int dev, struct err *e)
{
	for (size_t i = 0; i < COUNT(links); i++)
		if (symlinkat(links[i].to, dev, links[i].name))
			return err_sys(e, ERR_NODE, "make /dev/%s", links[i].name);
	if (mkdirat(dev, "shm", 0755) || mkdirat(dev, "empty", 0555))
		return err_sys(e, ERR_NODE, "make the directories of /dev");
	return make_boot_id(dev, e);
}

int
devices_make(struct err *e)
{
	CLEAN_FD int dev = new_dev(e);
	mode_t mask;
	int rc = 0;

	if (dev < 0)
		return -1;
	mask = umask(0);
	for (size_t i = 0; rc == 0 && i < COUNT(nodes); i++)
		rc = mknodat(dev, nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor));
	umask(mask);
	if (rc) {
		err_sys(e, ERR_NODE, "make the devices of /dev (CAP_MKNOD)");
		return -1;
	}
	return fill(dev, e) ? -1 : fd_steal(&dev);
}

int
devices_bind(struct child *c, struct err *e)
{
	CLEAN_FD int host = open("/dev", O_PATH | O_DIRECTORY | O_CLOEXEC);

	c->dev = new_dev(e);
	if (c->dev < 0)
		return -1;
	if (host < 0)
		return err_sys(e, ERR_NODE, "open the machine's /dev");
	/* A mount can only be put into one that is attached itself. */
	if (mkdirat(c->scratch, "dev", 0755) || tree_attach_at(c->dev, c->scratch, "dev"))
		return err_sys(e, ERR_NODE, "attach the tmpfs of /dev");
	for (size_t i = 0; i < COUNT(nodes); i++) {
		CLEAN_FD int node = tree_clone(host, nodes[i].name, false);

		if (node < 0 || mknodat(c->dev, nodes[i].name, S_IFREG | 0666, 0) ||
		    tree_attach_at(node, c->dev, nodes[i].name))
			return err_sys(e, ERR_NODE, "bind the machine's /dev/%s", nodes[i].name);
	}
	return fill(c->dev, e);
}
