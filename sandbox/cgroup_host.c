/*
 * Where the hierarchies are: /proc/self/mountinfo says what is mounted where and which
 * part of its hierarchy a mount shows; /proc/self/cgroup says in which group we are.
 *
 * Mount points lie: something may be mounted over them, and a container may be shown a
 * part of a hierarchy that its own path does not start with.  So a mount counts only if
 * statfs finds the right file system there, and paths are computed against the mount's
 * root.  Both files are written by the kernel, but the names in them are chosen by
 * others: blanks come escaped as octal, and everything is bounded.
 */
#include "sandbox/cgroup_driver.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/probe.h"
#include "core/base/str.h"

enum { PROC_FILE_MAX = 16 << 20 };

/* Cuts text at the next c; the rest, or NULL at the end. */
static char *
cut(char *text, char c)
{
	char *at = strchr(text, c);

	if (at)
		*at++ = '\0';
	return at;
}

/* "\040" and the like, in place. */
static void
unescape(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
		    s[3] >= '0' && s[3] <= '7') {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = '\0';
}

static unsigned
controllers_of(char *words)
{
	static const unsigned all[] = {CGROUP_MEMORY, CGROUP_PIDS, CGROUP_CPU, CGROUP_CPUACCT};
	unsigned found = 0;

	for (char *next; words; words = next) {
		next = cut(words, ',');
		for (unsigned i = 0; i < CGROUP_CONTROLLERS; i++)
			if (strcmp(words, cgroup_controller_name(all[i])) == 0)
				found |= all[i];
	}
	return found;
}

static bool
is_mounted(const char *path, bool v2)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 &&
	       fs.f_type == (__typeof__(fs.f_type))(v2 ? CGROUP2_SUPER_MAGIC : CGROUP_SUPER_MAGIC);
}

/* One mount; ignored when its controllers are known already (the first mount counts). */
static void
add_mount(struct cgroup_host *h, bool v2, unsigned controllers, char *root, char *mount)
{
	unescape(root);
	unescape(mount);
	for (unsigned i = 0; i < h->count; i++) {
		if (h->at[i].v2 == v2 && (v2 || h->at[i].controllers & controllers))
			return;
	}
	if (h->count == CGROUP_TREES_MAX || !is_mounted(mount, v2))
		return;
	if (str_copy(h->at[h->count].mount, PATH_MAX, mount) < 0 ||
	    str_copy(h->at[h->count].root, PATH_MAX, strcmp(root, "/") == 0 ? "" : root) < 0)
		return;
	h->at[h->count].v2 = v2;
	h->at[h->count].controllers = controllers;
	h->at[h->count].own[0] = '\0';
	h->count++;
}

/*
 * 36 35 98:0 ROOT MOUNT OPTIONS TAGS... - TYPE SOURCE SUPER_OPTIONS
 */
static void
read_mount(struct cgroup_host *h, char *line)
{
	char *type = strstr(line, " - "), *super, *field[5];
	unsigned controllers = 0;
	bool v2;

	if (!type)
		return;
	*type = '\0';
	type += 3;
	super = cut(type, ' ');
	super = super ? cut(super, ' ') : NULL;
	v2 = strcmp(type, "cgroup2") == 0;
	if (!super || (!v2 && strcmp(type, "cgroup") != 0))
		return;
	if (v2 && probe_disabled("cgroup2"))
		return;
	if (!v2 && !(controllers = controllers_of(super)))
		return;
	for (unsigned i = 0; i < 5; i++) {
		field[i] = line;
		if (!line || !(line = cut(line, ' ')))
			return;
	}
	add_mount(h, v2, controllers, field[3], field[4]);
}

/* 4:memory,pids:/a/b or 0::/a/b */
static void
read_own(struct cgroup_host *h, char *line)
{
	char *words = cut(line, ':'), *path = words ? cut(words, ':') : NULL;
	unsigned controllers;

	if (!path)
		return;
	controllers = controllers_of(words);
	for (unsigned i = 0; i < h->count; i++) {
		if (h->at[i].v2 ? strcmp(line, "0") == 0 : h->at[i].controllers & controllers)
			str_copy(h->at[i].own, PATH_MAX, path); /* too long: stays unknown */
	}
}

static int
each_line(const char *file, struct cgroup_host *h, void (*take)(struct cgroup_host *, char *),
	  struct err *e)
{
	struct buf text = {.max = PROC_FILE_MAX};

	if (file_slurp(AT_FDCWD, file, PROC_FILE_MAX, &text, e) < 0) {
		buf_free(&text);
		return -1;
	}
	for (char *line = text.data, *next; line && *line; line = next) {
		next = cut(line, '\n');
		take(h, line);
		if (!next)
			break;
	}
	buf_free(&text);
	return 0;
}

int
cgroup_host_read(struct cgroup_host *h, struct err *e)
{
	h->count = 0;
	if (each_line("/proc/self/mountinfo", h, read_mount, e) < 0 ||
	    each_line("/proc/self/cgroup", h, read_own, e) < 0)
		return err_wrap(e, "cgroups");
	if (!h->count)
		return err_set(e, ERR_NODE,
			       "no cgroup file system is mounted here; mount -t cgroup2 cgroup2 "
			       "/sys/fs/cgroup");
	return 0;
}

/* A path of ours: absolute or relative, no "..", no empty component. */
static int
check_parent(const char *parent, struct err *e)
{
	const char *p = parent + (*parent == '/');

	while (*p) {
		size_t n = strcspn(p, "/");

		if (n == 0 || n > 255 || (n == 1 && *p == '.') || strncmp(p, "..", n > 2 ? n : 2) == 0)
			return err_set(e, ERR_INPUT, "%.200s: not the path of a cgroup", parent);
		p += n;
		if (*p == '/' && !p[1])
			return err_set(e, ERR_INPUT, "%.200s: ends with a slash", parent);
		p += *p == '/';
	}
	return 0;
}

int
cgroup_host_path(const struct cgroup_host *h, unsigned i, const char *parent, char out[PATH_MAX],
		 struct err *e)
{
	const char *own = h->at[i].own, *root = h->at[i].root;
	size_t len = strlen(root);

	if (parent) {
		if (check_parent(parent, e) < 0)
			return -1;
		parent += *parent == '/';
		if (snprintf(out, PATH_MAX, "%s%s", *parent ? "/" : "", parent) >= PATH_MAX)
			return err_set(e, ERR_INPUT, "the path of a cgroup is too long");
		return 0;
	}
	if (!*own || str_starts(own, "/..") || strncmp(own, root, len) != 0 ||
	    (own[len] && own[len] != '/'))
		return err_set(e, ERR_NODE,
			       "%s does not show this process's own cgroup (%.100s); mount its "
			       "hierarchy, or name a cgroup to work below",
			       h->at[i].mount, *own ? own : "unknown");
	own += len;
	str_copy(out, PATH_MAX, strcmp(own, "/") == 0 ? "" : own);
	return 0;
}
