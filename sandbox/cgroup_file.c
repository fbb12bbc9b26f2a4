/*
 * Control files: small texts that are read and written whole, by one system call each.
 * Everything goes through directory descriptors, so that a mount namespace without the
 * cgroup file systems (the spawner's) works with the descriptors it was given.
 */
#include "sandbox/cgroup_driver.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"

enum {
	KILL_BATCH = 64,
	PROCS_MAX = 1 << 20, /* a hundred thousand processes in one group */
};

const char *
cgroup_controller_name(unsigned controller)
{
	switch (controller) {
	case CGROUP_MEMORY:
		return "memory";
	case CGROUP_PIDS:
		return "pids";
	case CGROUP_CPU:
		return "cpu";
	case CGROUP_CPUACCT:
		return "cpuacct";
	}
	return "";
}

int
cgroup_open(int dir, const char *group, const char *file, int flags)
{
	char path[CGROUP_DIR_MAX + 64];
	int n = group && *group ? snprintf(path, sizeof path, "%s/%s", group, file)
				: snprintf(path, sizeof path, "%s", file);

	if (n < 0 || (size_t)n >= sizeof path) {
		errno = ENAMETOOLONG;
		return -1;
	}
	return openat(dir, path, flags | O_CLOEXEC);
}

int
cgroup_write(int dir, const char *group, const char *file, const char *text)
{
	CLEAN_FD int fd = cgroup_open(dir, group, file, O_WRONLY);

	if (fd < 0)
		return -1;
	return write(fd, text, strlen(text)) < 0 ? -1 : 0;
}

int
cgroup_read(int dir, const char *group, const char *file, char buf[CGROUP_FILE_MAX])
{
	CLEAN_FD int fd = cgroup_open(dir, group, file, O_RDONLY);

	return fd < 0 ? -1 : cgroup_reread(fd, buf);
}

int
cgroup_reread(int fd, char buf[CGROUP_FILE_MAX])
{
	ssize_t n = pread(fd, buf, CGROUP_FILE_MAX - 1, 0);

	if (n < 0)
		return -1;
	buf[n] = '\0';
	return (int)n;
}

static int
parse_u64(const char *text, uint64_t *value)
{
	char *end;

	if (strncmp(text, "max", 3) == 0) {
		*value = UINT64_MAX;
		return 0;
	}
	errno = 0;
	*value = strtoull(text, &end, 10);
	if (errno || end == text || *text == '-') {
		errno = EBADMSG;
		return -1;
	}
	return 0;
}

int
cgroup_read_u64(int dir, const char *group, const char *file, uint64_t *value)
{
	char buf[CGROUP_FILE_MAX];

	return cgroup_read(dir, group, file, buf) < 0 ? -1 : parse_u64(buf, value);
}

uint64_t
cgroup_key(const char *text, const char *key, uint64_t missing)
{
	size_t len = strlen(key);

	for (const char *line = text; line && *line; line = strchr(line, '\n')) {
		uint64_t value;

		line += *line == '\n';
		if (strncmp(line, key, len) == 0 && line[len] == ' ' &&
		    parse_u64(line + len + 1, &value) == 0)
			return value;
	}
	return missing;
}

bool
cgroup_word(const char *text, const char *word)
{
	size_t len = strlen(word);

	while (*text) {
		size_t n = strcspn(text, " \n");

		if (n == len && memcmp(text, word, n) == 0)
			return true;
		text += n;
		text += strspn(text, " \n");
	}
	return false;
}

int
cgroup_slot(struct cgroup *g, const struct cgroup_tree *t, enum cgroup_slot slot,
	    const char *file)
{
	int flags = slot < SLOT_WRITTEN ? O_RDWR : O_RDONLY;

	if (g->slot[slot] < 0)
		g->slot[slot] = cgroup_open(t->root, g->dir, file, flags);
	return g->slot[slot];
}

int
cgroup_set_text(struct cgroup *g, const struct cgroup_tree *t, enum cgroup_slot slot,
		const char *file, const char *text, struct err *e)
{
	int fd = cgroup_slot(g, t, slot, file);
	size_t len = strlen(text);
	char held[CGROUP_FILE_MAX];

	if (fd < 0)
		return err_sys(e, ERR_NODE, "cannot open %s of cgroup %s (below %s)", file, g->dir,
			       t->path);
	if (pwrite(fd, text, len, 0) < 0)
		return err_sys(e, ERR_NODE, "cannot write %s to %s of cgroup %s (below %s)", text,
			       file, g->dir, t->path);
	if (cgroup_reread(fd, held) < 0)
		return err_sys(e, ERR_NODE, "cannot read %s of cgroup %s (below %s)", file, g->dir,
			       t->path);
	if (strncmp(held, text, len) != 0 || held[len] != '\n')
		return err_set(e, ERR_NODE, "%s of cgroup %s (below %s) is %.60s after writing %s",
			       file, g->dir, t->path, held, text);
	return 0;
}

int
cgroup_set(struct cgroup *g, const struct cgroup_tree *t, enum cgroup_slot slot,
	   const char *file, uint64_t value, struct err *e)
{
	char text[24];

	snprintf(text, sizeof text, "%" PRIu64, value);
	return cgroup_set_text(g, t, slot, file, text, e);
}

int
cgroup_get(struct cgroup *g, const struct cgroup_tree *t, enum cgroup_slot slot,
	   const char *file, char buf[CGROUP_FILE_MAX])
{
	int fd = cgroup_slot(g, t, slot, file);

	return fd < 0 ? -1 : cgroup_reread(fd, buf);
}

int
cgroup_get_u64(struct cgroup *g, const struct cgroup_tree *t, enum cgroup_slot slot,
	       const char *file, uint64_t *value)
{
	char buf[CGROUP_FILE_MAX];

	return cgroup_get(g, t, slot, file, buf) < 0 ? -1 : parse_u64(buf, value);
}

void
cgroup_get_pids(struct cgroup *g, const struct cgroup_tree *t, struct cgroup_usage *u)
{
	char buf[CGROUP_FILE_MAX];
	uint64_t n;

	if (cgroup_get(g, t, SLOT_PIDS_EVENTS, "pids.events", buf) >= 0)
		u->pids_limit_hits = (uint32_t)cgroup_key(buf, "max", 0);
	if (g->m->has_pids_peak && cgroup_get_u64(g, t, SLOT_PIDS_PEAK, "pids.peak", &n) == 0)
		u->pids_peak = (uint32_t)n;
}

/* Whether the lines of list, numbers, have this one. */
static bool
lists(const char *list, pid_t pid)
{
	char *end;

	for (; *list; list = end + (*end == '\n')) {
		long n = strtol(list, &end, 10);

		if (end == list)
			return false;
		if (n == pid)
			return true;
	}
	return false;
}

static int
read_procs(int dir, const char *group, struct buf *out)
{
	CLEAN_FD int fd = cgroup_open(dir, group, "cgroup.procs", O_RDONLY);
	struct err e;

	buf_consume(out, out->len);
	if (fd < 0)
		return -1;
	if (fd_slurp(fd, "cgroup.procs", PROCS_MAX, out, &e) < 0) {
		errno = e.errnum ? e.errnum : EFBIG;
		return -1;
	}
	return buf_puts(out, ""); /* an empty list is text, too */
}

/* Kills those of the next KILL_BATCH numbers at *at that are still listed afterwards. */
static int
kill_batch(int dir, const char *group, const char **at, struct buf *again)
{
	int fds[KILL_BATCH], killed = 0;
	pid_t pids[KILL_BATCH];
	unsigned count = 0;

	while (**at && count < KILL_BATCH) {
		char *end;
		long pid = strtol(*at, &end, 10);

		if (end == *at) { /* never in a list of the kernel's: the end of it */
			*at += strlen(*at);
			break;
		}
		*at = end + (*end == '\n');
		/* 0: a process of a pid namespace that we cannot see */
		if (pid <= 0 || (fds[count] = pidfd_open((pid_t)pid, 0)) < 0)
			continue;
		pids[count++] = (pid_t)pid;
	}
	if (count && read_procs(dir, group, again) < 0)
		killed = -1;
	for (unsigned i = 0; i < count; i++) {
		if (killed >= 0 && lists(again->data, pids[i]) &&
		    pidfd_send_signal(fds[i], SIGKILL, NULL, 0) == 0)
			killed++;
		close(fds[i]);
	}
	return killed;
}

int
cgroup_kill_listed(int dir, const char *group)
{
	struct buf first = {.max = PROCS_MAX}, again = {.max = PROCS_MAX};
	const char *at;
	int killed = -1, n = 0;

	if (read_procs(dir, group, &first) == 0) {
		at = first.data;
		killed = 0;
		while (*at && (n = kill_batch(dir, group, &at, &again)) >= 0)
			killed += n;
		if (n < 0)
			killed = -1;
	}
	buf_free(&first);
	buf_free(&again);
	return killed;
}

bool
cgroup_host_swaps(void)
{
	char buf[CGROUP_FILE_MAX], *line;

	/* a line of titles, then one for each swap area */
	return cgroup_read(AT_FDCWD, NULL, "/proc/swaps", buf) > 0 &&
	       (line = strchr(buf, '\n')) != NULL && line[1];
}

void
cgroup_cpu_quota(uint32_t millis, uint64_t *quota_us, uint64_t *period_us)
{
	/* The kernel takes no quota below 1 ms. */
	*period_us = millis < 10 ? 10 * CGROUP_PERIOD_US : CGROUP_PERIOD_US;
	*quota_us = *period_us * millis / 1000;
}
