/*
 * Names that lead over a link of a lower layer: "lib/x", where only layers below have "lib",
 * and have it as a link to "usr/lib".  Tools that make layers without a base write such names,
 * and mean the file in usr/lib.  So the name is replaced by what it means in the image, worked
 * out here part by part; nothing is followed by the kernel.  A link of the same layer is not
 * followed: that is for layer_parent to refuse.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/fdio.h"
#include "rootfs/layer_write_private.h"

enum { LINKS_MAX = 40 }; /* as the kernel has it */

/* Whether this layer has the directory that path is in: the usual case. */
static bool
is_here(struct layer_writer *w, const char *path)
{
	const char *slash = strrchr(path, '/');
	char parent[LAYER_PATH_MAX + 1];
	CLEAN_FD int fd = -1;

	if (!slash)
		return true;
	snprintf(parent, sizeof parent, "%.*s", (int)(slash - path), path);
	if (w->dir >= 0 && !strcmp(w->parent, parent))
		return true;
	fd = open_beneath(w->stack.dirs[0], parent, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0,
			  RESOLVE_NO_SYMLINKS);
	return fd >= 0;
}

/* target, seen from the directory that the first `at` bytes of path name, and then rest, in
 * place of path.  -1: too long. */
static int
insert_target(char path[LAYER_PATH_MAX + 1], size_t at, const char *target, const char *rest)
{
	char text[2 * LAYER_PATH_MAX + 2], out[LAYER_PATH_MAX + 1];
	size_t n = 0;

	if (target[0] == '/')
		at = 0;
	snprintf(text, sizeof text, "%s%s", target, rest);
	memcpy(out, path, at);
	n = at;
	for (const char *p = text; *p;) {
		size_t len = strcspn(p, "/");

		if (len == 2 && p[0] == '.' && p[1] == '.') {
			while (n && out[n - 1] != '/')
				n--;
			n -= n > 0;
		} else if (len && !(len == 1 && *p == '.')) {
			if (n + len + 2 > LAYER_PATH_MAX)
				return -1;
			if (n)
				out[n++] = '/';
			memcpy(out + n, p, len);
			n += len;
		}
		p += len + (p[len] == '/');
	}
	out[n] = '\0';
	memcpy(path, out, n + 1);
	return 0;
}

/* The first link of a lower layer on the way: replaces it.  1: done, look again; 0: none; -1. */
static int
replace_one(struct layer_writer *w, char path[LAYER_PATH_MAX + 1], struct err *e)
{
	const struct layer_stack lower = { w->stack.dirs + 1, w->stack.count - 1 };
	const struct layer_stack here = { w->stack.dirs, 1 };
	char prefix[LAYER_PATH_MAX + 1], target[LAYER_PATH_MAX + 1], rest[LAYER_PATH_MAX + 1];
	size_t before = 0;

	for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
		CLEAN_FD int own = -1, fd = -1;
		struct stat st;
		ssize_t n;

		snprintf(prefix, sizeof prefix, "%.*s", (int)(slash - path), path);
		own = layer_lookup(&here, prefix, &st);
		if (own < 0)
			fd = layer_lookup(&lower, prefix, &st);
		if (own < 0 && fd < 0)
			return 0;
		if (own < 0 && S_ISLNK(st.st_mode)) {
			n = readlinkat(fd, "", target, LAYER_PATH_MAX);
			if (n < 0)
				return layer_cannot(path, e);
			target[n] = '\0';
			snprintf(rest, sizeof rest, "%s", slash);
			return insert_target(path, before, target, rest)
				       ? layer_refuse(path, "is below links that make its name too long", e)
				       : 1;
		}
		before = (size_t)(slash - path);
	}
	return 0;
}

int
layer_resolve(struct layer_writer *w, char path[LAYER_PATH_MAX + 1], struct err *e)
{
	int rc = 1;

	for (int i = 0; rc > 0 && !is_here(w, path); i++) {
		if (i == LINKS_MAX)
			return layer_refuse(path, "is below a link that leads to itself", e);
		rc = replace_one(w, path, e);
		if (rc > 0)
			w->depends = true;
	}
	return rc < 0 ? -1 : 0;
}
