/*
 * `pratai`: the sandbox alone (`pratai run`), and a door to everything else.
 *
 * This program is small on purpose: a program linked with curl and friends takes 8 ms to
 * start, more than a whole sandbox.  Any other command is handed to pratai-client, found
 * beside this program or in PREFIX/lib/pratai, by executing it with the same arguments.
 *
 * As root the sandbox has a range of host ids of its own: slots of 65536 from
 * RUN_UID_BASE, each held by a lock on one byte of a file below /run, so that two runs
 * never share one.  As an ordinary user it has that user's id, and no limits unless a
 * delegated cgroup allows them.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/fdio.h"
#include "core/base/opt.h"
#include "core/base/probe.h"
#include "core/base/str.h"
#include "rootfs/host.h"
#include "sandbox/foreground.h"
#include "sandbox/report.h"
#include "sandbox/sandbox.h"
#include "sandbox/watch.h"

enum {
	/* Above what systemd-nspawn uses (up to 0x6fffffff) and what a node does by default
	 * (1024 slots from 0x70000000), below the sign bit. */
	RUN_UID_BASE = 0x74000000,
	RUN_SLOTS = 1024,
	ENV_MAX = 1024,
};

static const struct opt options[] = {
	{ "rootfs", 0, "DIR", "directory that becomes the root, unchanged", 0, NULL },
	{ "image", 0, "REF", "image to run in", 0, "host" },
	{ "memory", 'm', "SIZE", "memory limit, such as 64M", 0, NULL },
	{ "cpus", 0, "N", "CPU limit, such as 0.5", 0, NULL },
	{ "pids", 0, "N", "limit of processes and threads", 0, "1024" },
	{ "timeout", 't', "TIME", "wall clock limit, such as 5s", 0, NULL },
	{ "tmp-size", 0, "SIZE", "limit of what can be written: root, /tmp, /dev/shm", 0, NULL },
	{ "output-max", 0, "SIZE", "limit of stdout and stderr together", 0, NULL },
	{ "network", 0, "none|egress|host", "no network, the Internet, or the caller's", 0, "none" },
	{ "allow", 0, "NET[:PORTS]", "an address near that egress may reach", OPT_MANY, NULL },
	{ "bind", 'b', "SRC:DST[:ro|rw]", "show SRC of the host at DST (default ro)", OPT_MANY, NULL },
	{ "seccomp", 0, "default|strict|FILE", "allowed system calls; FILE: an OCI profile", 0, "default" },
	{ "seccomp-report", 0, NULL, "say which system calls were refused", 0, NULL },
	{ "seccomp-learn", 0, "FILE", "write a profile of what was called", 0, NULL },
	{ "env", 'e', "K=V", "environment variable", OPT_MANY, NULL },
	{ "workdir", 'w', "DIR", "working directory", 0, "/" },
	{ "uid", 'u', "N", "user and group id inside", 0, "1000" },
	{ "hostname", 0, "NAME", "host name inside", 0, "sandbox" },
	{ "report", 0, "FILE|-", "write a report as JSON", 0, NULL },
	{ "print-plan", 0, NULL, "print the steps, do nothing", 0, NULL },
	{ "root", 0, "DIR", "image store (PRATAI_ROOT; /var/lib/pratai)", 0, NULL },
	{ "help", 'h', NULL, "this text", 0, NULL },
	{ 0 },
};

struct run {
	struct opt_values opts;
	struct sandbox_spec spec;
	struct cgroup_manager *manager;
	struct egress_policy egress;
	struct run_io io;
	struct filter filter;
	struct watch watch;
	bool reports_calls;
	const char *learn; /* file, or NULL */
	int learn_fd;
	bool ran;
	const char *report; /* file, "-" or NULL */
	int report_fd;
	uint64_t timeout_ns;
	bool limits_asked;
	int slots; /* the lock on our slot */
	int store;
	const char *env[ENV_MAX + 4];
	char *owned[SANDBOX_BINDS_MAX];
	unsigned owned_count;
	char host_root[PATH_MAX];
};

/* ---- Everything else is pratai-client's ---- */

static int
hand_over(char **argv)
{
	char self[PATH_MAX], path[PATH_MAX + 32];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	char *slash;

	if (n > 0) {
		self[n] = '\0';
		slash = strrchr(self, '/');
		*slash = '\0';
		snprintf(path, sizeof path, "%s/pratai-client", self);
		execv(path, argv);
		/* PREFIX/bin/pratai: moved as a whole, the tree still works. */
		snprintf(path, sizeof path, "%s/../lib/pratai/pratai-client", self);
		execv(path, argv);
	}
	execv(PRATAI_PREFIX "/lib/pratai/pratai-client", argv);
	fprintf(stderr, "pratai: cannot execute pratai-client: %s\n", strerror(errno));
	return 1;
}

/* ---- Options ---- */

static int
read_sizes(struct run *r, struct err *e)
{
	static const struct {
		const char *name, *what;
		uint64_t min, max;
		size_t at;
	} sizes[] = {
		{ "memory", "--memory", 1 << 20, 1ull << 50, offsetof(struct run, spec.limits.memory_bytes) },
		{ "tmp-size", "--tmp-size", 64 << 10, 1ull << 50, offsetof(struct run, spec.tmp_bytes) },
		{ "output-max", "--output-max", 0, 1ull << 50, offsetof(struct run, io.output_max) },
	};

	r->io.output_max = UINT64_MAX;
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		const char *text = opt_get(&r->opts, sizes[i].name);

		if (text && str_size(sizes[i].what, text, sizes[i].min, sizes[i].max,
				     (uint64_t *)(void *)((char *)r + sizes[i].at), e))
			return -1;
	}
	return 0;
}

static int
read_numbers(struct run *r, struct err *e)
{
	const char *text;
	int64_t number;
	double cpus;

	text = opt_get(&r->opts, "cpus");
	if (text && str_double(text, 0.01, CGROUP_CPU_MILLIS_MAX / 1000, &cpus))
		return err_set(e, ERR_INPUT, "--cpus: '%.40s' is not a number from 0.01 to %d", text,
			       CGROUP_CPU_MILLIS_MAX / 1000);
	if (text)
		r->spec.limits.cpu_millis = (uint32_t)(cpus * 1000 + 0.5);
	text = opt_get(&r->opts, "pids");
	if (str_int(text, 1, 4194304, &number))
		return err_set(e, ERR_INPUT, "--pids: '%.40s' is not a number from 1 to 4194304", text);
	r->spec.limits.pids = (uint32_t)number;
	text = opt_get(&r->opts, "uid");
	if (str_int(text, 0, SANDBOX_IDS - 2, &number))
		return err_set(e, ERR_INPUT, "--uid: '%.40s' is not a number from 0 to %d", text,
			       SANDBOX_IDS - 2);
	r->spec.uid = (uid_t)number;
	text = opt_get(&r->opts, "timeout");
	if (text && str_duration("--timeout", text, NS_PER_MS, 366 * 86400 * NS_PER_S, &r->timeout_ns, e))
		return -1;
	r->limits_asked = opt_given(&r->opts, "memory") || opt_given(&r->opts, "cpus") ||
			  opt_given(&r->opts, "pids");
	return 0;
}

static int
read_network(struct run *r, struct err *e)
{
	const char *text = opt_get(&r->opts, "network");

	if (!strcmp(text, "host"))
		r->spec.network = SANDBOX_NET_HOST;
	else if (!strcmp(text, "egress"))
		r->spec.network = SANDBOX_NET_EGRESS;
	else if (strcmp(text, "none"))
		return err_set(e, ERR_INPUT, "--network: '%.40s' is none of none, egress, host", text);
	r->spec.egress = &r->egress;
	for (size_t i = 0; (text = opt_nth(&r->opts, "allow", i)); i++) {
		if (r->spec.network != SANDBOX_NET_EGRESS)
			return err_set(e, ERR_INPUT, "--allow goes with --network egress");
		if (i == EGRESS_ALLOW_MAX)
			return err_set(e, ERR_INPUT, "--allow: more than %d", EGRESS_ALLOW_MAX);
		if (egress_rule_parse(text, &r->egress.allow[r->egress.allow_count++], e))
			return err_wrap(e, "--allow");
	}
	return 0;
}

static int
add_bind(struct run *r, const char *source, const char *target, bool writable, struct err *e)
{
	struct sandbox_bind *b = &r->spec.binds[r->spec.bind_count];

	if (r->spec.bind_count == SANDBOX_BINDS_MAX)
		return err_set(e, ERR_INPUT, "more than %d binds", SANDBOX_BINDS_MAX);
	b->source = (struct sandbox_tree){ .at = AT_FDCWD, .path = source };
	b->target = target;
	b->writable = writable;
	r->spec.bind_count++;
	return 0;
}

/* SRC:DST[:ro|rw] */
static int
read_bind(struct run *r, const char *text, struct err *e)
{
	char *copy, *target, *mode;
	bool writable = false;

	if (r->owned_count == SANDBOX_BINDS_MAX)
		return err_set(e, ERR_INPUT, "more than %d binds", SANDBOX_BINDS_MAX);
	copy = r->owned[r->owned_count++] = strdup(text);
	target = copy ? strchr(copy, ':') : NULL;
	if (!target || target == copy || !target[1])
		return err_set(e, ERR_INPUT, "--bind: '%.200s' is not SRC:DST[:ro|rw]", text);
	*target++ = '\0';
	mode = strchr(target, ':');
	if (mode) {
		*mode++ = '\0';
		writable = !strcmp(mode, "rw");
		if (!writable && strcmp(mode, "ro"))
			return err_set(e, ERR_INPUT, "--bind: '%.200s' does not end in ro or rw", text);
	}
	return add_bind(r, copy, target, writable, e);
}

static int
read_binds(struct run *r, struct err *e)
{
	static const char *const machine[] = { "/etc/resolv.conf", "/etc/hosts" };
	const char *text;

	/* Names are looked up as the machine does it; without these they are not at all. */
	for (size_t i = 0; r->spec.network == SANDBOX_NET_HOST && i < 2; i++)
		if (!access(machine[i], R_OK) && add_bind(r, machine[i], machine[i], false, e))
			return -1;
	for (size_t i = 0; (text = opt_nth(&r->opts, "bind", i)); i++)
		if (read_bind(r, text, e))
			return -1;
	return 0;
}

static int
read_environment(struct run *r, struct err *e)
{
	static const char *const defaults[] = {
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/tmp", "LANG=C.UTF-8",
	};
	size_t count = 0;
	const char *text;

	for (size_t i = 0; (text = opt_nth(&r->opts, "env", i)); i++) {
		const char *equals = strchr(text, '=');

		if (!equals || equals == text)
			return err_set(e, ERR_INPUT, "--env: '%.80s' is not K=V", text);
		if (count == ENV_MAX)
			return err_set(e, ERR_INPUT, "more than %d variables", ENV_MAX);
		/* The last one of a name counts. */
		for (size_t k = 0; k < count; k++)
			if (!strncmp(r->env[k], text, (size_t)(equals - text) + 1))
				r->env[k] = r->env[--count];
		r->env[count++] = text;
	}
	for (size_t i = 0; i < sizeof defaults / sizeof defaults[0]; i++) {
		size_t name = strcspn(defaults[i], "=") + 1, k = 0;

		while (k < count && strncmp(r->env[k], defaults[i], name))
			k++;
		if (k == count)
			r->env[count++] = defaults[i];
	}
	r->spec.envp = r->env;
	return 0;
}

static int
open_store(struct run *r, struct err *e)
{
	const char *root = opt_get(&r->opts, "root"), *cache = getenv("XDG_CACHE_HOME");
	const char *home = getenv("HOME");
	char path[PATH_MAX];
	int n;

	if (!root)
		root = getenv("PRATAI_ROOT");
	if (root && *root)
		n = snprintf(path, sizeof path, "%s", root);
	else if (geteuid() == 0)
		n = snprintf(path, sizeof path, "/var/lib/pratai");
	else if (cache && cache[0] == '/')
		n = snprintf(path, sizeof path, "%s/pratai", cache);
	else if (home && home[0] == '/')
		n = snprintf(path, sizeof path, "%s/.cache/pratai", home);
	else
		return err_set(e, ERR_INPUT, "no place for the host image: HOME is not set (see --root)");
	if (n >= (int)sizeof path ||
	    snprintf(r->host_root, sizeof r->host_root, "%.*s/" HOST_ROOT, n, path) >=
		    (int)sizeof r->host_root)
		return err_set(e, ERR_INPUT, "the image store's path is too long");
	r->store = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r->store < 0 && errno == ENOENT) {
		if (dir_make(AT_FDCWD, path, 0755, e))
			return -1;
		r->store = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	return r->store < 0 ? err_sys(e, ERR_INPUT, "image store %s", path) : 0;
}

static int
read_image(struct run *r, struct err *e)
{
	const char *rootfs = opt_get(&r->opts, "rootfs"), *image = opt_get(&r->opts, "image");
	struct sandbox_tree *layer = &r->spec.layers[0];

	if (rootfs && opt_given(&r->opts, "image"))
		return err_set(e, ERR_INPUT, "--rootfs and --image exclude each other");
	r->spec.layer_count = 1;
	if (rootfs) {
		struct stat st;

		if (stat(rootfs, &st))
			return err_sys(e, ERR_INPUT, "--rootfs %s", rootfs);
		if (!S_ISDIR(st.st_mode))
			return err_set(e, ERR_INPUT, "--rootfs %s: not a directory", rootfs);
		if (geteuid() == 0 && !(st.st_mode & S_IXOTH))
			return err_set(e, ERR_INPUT,
				       "--rootfs %s: not searchable by others (mode %04o): the sandbox has "
				       "none of the machine's ids", rootfs, st.st_mode & 07777);
		*layer = (struct sandbox_tree){ .at = AT_FDCWD, .path = rootfs };
		return 0;
	}
	if (strcmp(image, "host"))
		return err_set(e, ERR_INPUT, "--image: no image '%.100s' (there is: host)", image);
	if (open_store(r, e))
		return -1;
	if (!opt_given(&r->opts, "print-plan") && host_prepare(r->store, e))
		return -1;
	/* By its path: without root, init opens it in its own mount namespace. */
	*layer = (struct sandbox_tree){ .at = AT_FDCWD, .path = r->host_root };
	r->spec.usr = HOST_USR;
	return 0;
}

/* From a directory "/proc/self/fd/0/.." leads anywhere: a sandbox gets files only. */
static int
read_stdio(struct sandbox_spec *spec, struct err *e)
{
	static const char *const names[] = { "input", "output", "error" };

	for (int i = 0; i < 3; i++) {
		struct stat st;

		if (fstat(i, &st))
			return err_sys(e, ERR_INPUT, "standard %s", names[i]);
		if (S_ISDIR(st.st_mode))
			return err_set(e, ERR_INPUT,
				       "standard %s is a directory, which leads out of a sandbox",
				       names[i]);
		spec->stdio[i] = i;
	}
	return 0;
}

static int
read_filter(struct run *r, struct err *e)
{
	const char *what = opt_get(&r->opts, "seccomp");
	bool watched;

	r->learn = opt_get(&r->opts, "seccomp-learn");
	r->reports_calls = opt_given(&r->opts, "seccomp-report");
	watched = r->learn || r->reports_calls;
	if (!strcmp(what, "default") && !watched)
		return 0;
	if (filter_load(&r->filter, what, watched, e))
		return -1;
	r->spec.filter = &r->filter;
	if (!watched)
		return 0;
	r->spec.filter = &r->watch.asking;
	r->spec.watched = true;
	r->io.watch = &r->watch;
	return watch_init(&r->watch, &r->filter, r->learn != NULL, e);
}

static int
read_options(struct run *r, struct err *e)
{
	struct sandbox_spec *spec = &r->spec;

	r->report = opt_get(&r->opts, "report");
	if (r->opts.operand_count == 0)
		return err_set(e, ERR_INPUT, "no command (pratai run [OPTIONS] -- CMD [ARG...])");
	/* argv was moved together; its old end is beyond the last operand. */
	r->opts.operands[r->opts.operand_count] = NULL;
	spec->argv = (const char *const *)r->opts.operands;
	spec->workdir = opt_get(&r->opts, "workdir");
	spec->hostname = opt_get(&r->opts, "hostname");
	if (strspn(spec->hostname, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") !=
		    strlen(spec->hostname) || !*spec->hostname)
		return err_set(e, ERR_INPUT,
			       "--hostname: '%.70s' is not a host name (letters, digits, '-' and '.')",
			       spec->hostname);
	if (read_sizes(r, e) || read_numbers(r, e) || read_network(r, e) || read_binds(r, e) ||
	    read_environment(r, e) || read_filter(r, e))
		return -1;
	spec->uid_base = geteuid() ? 0 : RUN_UID_BASE;
	if (read_stdio(spec, e))
		return -1;
	spec->channel = spec->netns = spec->netns_home = spec->devices = -1;
	return read_image(r, e);
}

/* ---- What must be had first ---- */

/* A range of ids that nobody else has, held until we end. */
static int
take_slot(struct run *r, struct err *e)
{
	unsigned first = (unsigned)getpid() % RUN_SLOTS;

	if (mkdir("/run/pratai", 0755) && errno != EEXIST)
		return err_sys(e, ERR_NODE, "make /run/pratai");
	r->slots = open("/run/pratai/run-slots", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (r->slots < 0)
		return err_sys(e, ERR_NODE, "open /run/pratai/run-slots");
	for (unsigned i = 0; i < RUN_SLOTS; i++) {
		unsigned slot = (first + i) % RUN_SLOTS;
		struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = slot, .l_len = 1 };

		if (!fcntl(r->slots, F_OFD_SETLK, &lock)) {
			r->spec.uid_base = RUN_UID_BASE + slot * SANDBOX_IDS;
			return 0;
		}
		if (errno != EAGAIN && errno != EACCES)
			return err_sys(e, ERR_NODE, "lock /run/pratai/run-slots");
	}
	return err_set(e, ERR_AGAIN, "%d sandboxes are running already", RUN_SLOTS);
}

static int
take_group(struct run *r, struct err *e)
{
	char name[CGROUP_NAME_MAX];

	if (geteuid() != 0 && !r->limits_asked) {
		memset(&r->spec.limits, 0, sizeof r->spec.limits);
		return 0;
	}
	if (geteuid() != 0 && !opt_given(&r->opts, "pids"))
		r->spec.limits.pids = 0;
	r->manager = cgroup_manager_new(CGROUP_INSTANCE_RUN, NULL, &r->spec.limits, e);
	if (!r->manager)
		return err_wrap(e, geteuid() ? "limits need a cgroup that this user may manage" : "cgroup");
	/* What a killed run left; its failure is not ours. */
	cgroup_sweep(r->manager, NULL);
	if (cgroup_run_name(name, e))
		return -1;
	r->spec.group = cgroup_begin(r->manager, name, e);
	return r->spec.group ? 0 : -1;
}

static int
print_plan(struct run *r, struct err *e)
{
	struct plan plan;

	/* Only what the plan asks about is needed: whether there will be a group. */
	if (geteuid() == 0 || r->limits_asked)
		r->spec.group = (struct cgroup *)(void *)r;
	if (plan_make(&plan, &r->spec, probe_has(PROBE_TMPFS_XATTR), e))
		return -1;
	plan_print(&plan, &r->spec, stdout);
	r->spec.group = NULL;
	return fflush(stdout) ? err_sys(e, ERR_NODE, "write the plan") : 0;
}

/* ---- The end ---- */

static int
open_report(struct run *r)
{
	if (r->report_fd < 0 && !strcmp(r->report, "-"))
		r->report_fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	else if (r->report_fd < 0)
		r->report_fd = open(r->report, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	return r->report_fd < 0 ? -1 : 0;
}

static int
write_report(struct run *r, const struct sandbox_outcome *o)
{
	struct buf text = { 0 };
	struct err e = { 0 };
	int rc = 0;

	if (!r->report)
		return 0;
	if (open_report(r) ||
	    report_json(&text, o, r->io.output_bytes, r->reports_calls ? &r->watch : NULL) ||
	    fd_write_all(r->report_fd, text.data, text.len)) {
		err_sys(&e, ERR_INPUT, "--report %s", r->report);
		fprintf(stderr, "pratai run: %s\n", e.text);
		rc = -1;
	}
	buf_free(&text);
	return rc;
}

/* What the watch has seen: a line, a profile. */
static int
write_calls(struct run *r)
{
	bool deadly = !strcmp(opt_get(&r->opts, "seccomp"), "strict");
	struct buf text = { 0 };
	struct err e = { 0 };
	int rc = 0;

	if (r->reports_calls) {
		watch_put_refused(&r->watch, &text);
		fprintf(stderr, "pratai run: refused system calls: %s\n", text.data ? text.data : "?");
		buf_consume(&text, text.len);
	}
	if (r->learn) {
		rc = watch_put_profile(&r->watch, deadly, &text, &e);
		if (rc == 0 && ((ftruncate(r->learn_fd, 0) && errno != EINVAL) ||
				fd_write_all(r->learn_fd, text.data, text.len)))
			rc = err_sys(&e, ERR_INPUT, "write");
		if (rc)
			fprintf(stderr, "pratai run: --seccomp-learn %s: %s\n", r->learn, e.text);
	}
	buf_free(&text);
	return rc;
}

static void
explain(const struct run *r, const struct sandbox_outcome *o)
{
	const char *value = NULL, *what = NULL;

	if (o->reason == SANDBOX_TIMEOUT)
		what = "the time limit was reached", value = opt_get(&r->opts, "timeout");
	else if (o->reason == SANDBOX_MEMORY_EXCEEDED)
		what = "the memory limit was exceeded", value = opt_get(&r->opts, "memory");
	else if (o->reason == SANDBOX_OUTPUT_EXCEEDED)
		what = "the output limit was exceeded, output was cut", value = opt_get(&r->opts, "output-max");
	if (what)
		fprintf(stderr, "pratai run: %s (%s)\n", what, value ? value : "the machine's");
	else if (o->error.cls != ERR_NONE && o->error.step[0])
		fprintf(stderr, "pratai run: %s: %s\n", o->error.step, o->error.text);
	else if (o->error.cls != ERR_NONE)
		fprintf(stderr, "pratai run: %s\n", o->error.text);
}

static int
start_and_wait(struct run *r, struct sandbox_outcome *o, struct err *e)
{
	struct sandbox sb;
	int rc = -1;

	if (r->report && open_report(r)) {
		err_sys(e, ERR_INPUT, "--report %s", r->report);
		r->report = NULL; /* said once */
		return -1;
	}
	if (r->learn && (r->learn_fd = open(r->learn, O_WRONLY | O_CREAT | O_CLOEXEC, 0644)) < 0)
		return err_sys(e, ERR_INPUT, "--seccomp-learn %s", r->learn);
	/* From here on, so that the time of the setup counts. */
	if (r->timeout_ns)
		r->spec.deadline_ns = clock_mono_ns() + r->timeout_ns;
	if (sandbox_prepare_caller(e) || take_group(r, e))
		return -1;
	if (geteuid() == 0 && take_slot(r, e))
		goto out;
	if (run_io_open(&r->io, r->spec.stdio, e))
		goto out;
	if (sandbox_start(&sb, &r->spec, e))
		goto out;
	r->spec.group = NULL;
	run_io_started(&r->io);
	rc = run_supervise(&sb, &r->io, e);
	r->ran = rc == 0;
	*o = sb.outcome;
	sandbox_release(&sb);
	run_io_close(&r->io);
out:
	if (r->spec.group)
		cgroup_remove(r->spec.group, NULL);
	return rc;
}

static void
clean_up(struct run *r)
{
	cgroup_manager_free(r->manager);
	fd_close(&r->slots);
	fd_close(&r->store);
	fd_close(&r->report_fd);
	fd_close(&r->learn_fd);
	watch_close(&r->watch);
	filter_free(&r->filter);
	for (unsigned i = 0; i < r->owned_count; i++)
		free(r->owned[i]);
	opt_free(&r->opts);
}

static int
print_help(void)
{
	puts("usage: pratai run [OPTIONS] -- CMD [ARG...]\n");
	opt_print_help(options);
	if (!fflush(stdout))
		return 0;
	fprintf(stderr, "pratai run: cannot write to stdout: %s\n", strerror(errno));
	return REPORT_EXIT_ERROR;
}

static int
run(int argc, char **argv)
{
	static struct run r; /* zero, and too large for a stack */
	struct sandbox_outcome o = { .reason = SANDBOX_SETUP_FAILED };
	int rc;

	r.slots = r.store = r.report_fd = r.learn_fd = r.watch.listener = -1;
	rc = fd_keep_standard(&o.error) || opt_parse(&r.opts, options, argc, argv, 2, true, &o.error);
	if (rc == 0 && opt_given(&r.opts, "help"))
		return print_help();
	if (rc == 0)
		rc = read_options(&r, &o.error);
	if (rc == 0 && opt_given(&r.opts, "print-plan")) {
		rc = print_plan(&r, &o.error);
		if (rc == 0) {
			clean_up(&r);
			return 0;
		}
	} else if (rc == 0) {
		rc = start_and_wait(&r, &o, &o.error);
	}
	explain(&r, &o);
	rc = write_report(&r, &o) || (r.ran && write_calls(&r)) ? REPORT_EXIT_ERROR
								: report_exit_code(&o);
	clean_up(&r);
	return rc;
}

int
main(int argc, char **argv)
{
	if (argc < 2 || strcmp(argv[1], "run"))
		return hand_over(argv);
	return run(argc, argv);
}
