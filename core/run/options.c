/*
 * The options of `pratai run`, and from their texts to what sandbox.h takes.  Whatever is wrong
 * is one sentence that names it, before anything has been made.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/fdio.h"
#include "core/base/str.h"
#include "core/run/run.h"
#include "rootfs/host.h"
#include "rootfs/store.h"
#include "sandbox/slots.h"

static const struct opt options[] = {
	{ "rootfs", 0, "DIR", "directory that becomes the root, unchanged", 0, NULL },
	{ "image", 0, "REF", "image to run in", 0, "host" },
	{ "memory", 'm', "SIZE", "memory limit, such as 64M", 0, NULL },
	{ "cpus", 0, "N", "CPU limit, such as 0.5", 0, NULL },
	{ "pids", 0, "N", "limit of processes and threads", 0, "1024" },
	{ "no-limits", 0, NULL, "no memory, CPU and pids limit, no cgroup", 0, NULL },
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
	r->no_limits = opt_given(&r->opts, "no-limits");
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
	r->spec.allow = &r->allow;
	for (size_t i = 0; (text = opt_nth(&r->opts, "allow", i)); i++) {
		if (r->spec.network != SANDBOX_NET_EGRESS)
			return err_set(e, ERR_INPUT, "--allow goes with --network egress");
		if (i == NET_RULES_MAX)
			return err_set(e, ERR_INPUT, "--allow: more than %d", NET_RULES_MAX);
		if (net_rule_parse(text, &r->allow.list[r->allow.count++], e))
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

/* Unless a variable of that name is there; there is room. */
static void
add_default(struct run *r, size_t *count, const char *text)
{
	size_t name = strcspn(text, "=") + 1, k = 0;

	while (k < *count && strncmp(r->env[k], text, name))
		k++;
	if (k == *count && text[name - 1] == '=' && name > 1)
		r->env[(*count)++] = text;
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
		if (count == RUN_ENV_MAX)
			return err_set(e, ERR_INPUT, "more than %d variables", RUN_ENV_MAX);
		/* The last one of a name counts. */
		for (size_t k = 0; k < count; k++)
			if (!strncmp(r->env[k], text, (size_t)(equals - text) + 1))
				r->env[k] = r->env[--count];
		r->env[count++] = text;
	}
	for (size_t i = 0; i < r->image.env.count; i++)
		add_default(r, &count, r->image.env.list[i]);
	for (size_t i = 0; i < sizeof defaults / sizeof defaults[0]; i++)
		add_default(r, &count, defaults[i]);
	r->spec.envp = r->env;
	return 0;
}

static int
open_store(struct run *r, const char *root, struct err *e)
{
	if (snprintf(r->host_root, sizeof r->host_root, "%s/" HOST_ROOT, root) >=
	    (int)sizeof r->host_root)
		return err_set(e, ERR_INPUT, "the image store's path is too long");
	r->store = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r->store < 0 && errno == ENOENT) {
		if (dir_make(AT_FDCWD, root, 0755, e))
			return -1;
		r->store = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	return r->store < 0 ? err_sys(e, ERR_INPUT, "image store %s", root) : 0;
}

static int
read_image(struct run *r, struct err *e)
{
	const char *rootfs = opt_get(&r->opts, "rootfs"), *image = opt_get(&r->opts, "image");
	struct sandbox_tree *layer = &r->spec.layers[0];
	char root[PATH_MAX];

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
	if (store_root(opt_get(&r->opts, "root"), root, e))
		return -1;
	if (strcmp(image, "host"))
		return run_open_image(r, root, image, e);
	if (open_store(r, root, e))
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

int
run_read_options(struct run *r, struct err *e)
{
	struct sandbox_spec *spec = &r->spec;

	r->report = opt_get(&r->opts, "report");
	if (r->opts.operand_count == 0 && !strcmp(opt_get(&r->opts, "image"), "host"))
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
	    read_image(r, e) || read_environment(r, e) || read_filter(r, e))
		return -1;
	spec->uid_base = geteuid() ? 0 : SLOTS_UID_BASE;
	if (read_stdio(spec, e))
		return -1;
	spec->channel = spec->netns = spec->netns_home = spec->uplink_netns = spec->devices = -1;
	return 0;
}

int
run_parse(struct run *r, int argc, char **argv, struct err *e)
{
	return opt_parse(&r->opts, options, argc, argv, 2, true, e);
}

void
run_print_help(void)
{
	puts("usage: pratai run [OPTIONS] -- CMD [ARG...]\n");
	opt_print_help(options);
}
