/*
 * Every value is checked here, with the option's name in the error; the rest of the program
 * relies on it.
 */
#include "core/node/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>

#include "core/base/buf.h"
#include "core/base/crypto.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/log.h"
#include "core/base/str.h"
#include "core/model/function.h"
#include "sandbox/spawner.h"

#define DEFAULT_CONFIG "/etc/pratai/pratai.conf"

enum { MEMORY_SHARE_PERCENT = 80, SLOTS_DEFAULT_MAX = 64, SLOT_MEMORY_MIB = 128 };

const struct opt node_options[] = {
	{ .name = "state", .arg = "DIR", .help = "where the node keeps layers and results",
	  .flags = OPT_CONFIG, .fallback = "/var/lib/pratai" },
	{ .name = "join", .arg = "URL", .help = "the control plane", .flags = OPT_CONFIG,
	  .fallback = "http://127.0.0.1:9096" },
	{ .name = "join-token-file", .arg = "FILE",
	  .help = "its join token (or PRATAI_JOIN_TOKEN)", .flags = OPT_CONFIG },
	{ .name = "name", .arg = "NAME", .help = "the node's name (default: the host's)",
	  .flags = OPT_CONFIG },
	{ .name = "user", .arg = "UID[:GID]", .help = "whom the driver becomes",
	  .flags = OPT_CONFIG, .fallback = "1878982658" },
	{ .name = "slots", .arg = "N", .help = "sandboxes at once (default: as memory allows, at most 64)",
	  .flags = OPT_CONFIG },
	{ .name = "memory", .arg = "MIB",
	  .help = "for all sandboxes together (default: 80 % of the machine's)",
	  .flags = OPT_CONFIG },
	{ .name = "build-memory", .arg = "MIB", .help = "for one build", .flags = OPT_CONFIG,
	  .fallback = "1024" },
	{ .name = "build-timeout", .arg = "TIME", .help = "for one build", .flags = OPT_CONFIG,
	  .fallback = "600s" },
	{ .name = "runtimes", .arg = "DIR", .help = "the runtimes (default: beside the program)",
	  .flags = OPT_CONFIG },
	{ .name = "instance", .arg = "ID",
	  .help = "names the node's cgroups (default: from the state directory)",
	  .flags = OPT_CONFIG },
	{ .name = "cgroup-root", .arg = "PATH", .help = "the cgroup to work below",
	  .flags = OPT_CONFIG },
	{ .name = "uid-base", .arg = "UID", .help = "the first host id of the sandboxes",
	  .flags = OPT_CONFIG, .fallback = "1879048192" },
	{ .name = "egress", .arg = "KIND", .help = "none or internet: what functions may reach",
	  .flags = OPT_CONFIG, .fallback = "internet" },
	{ .name = "egress-allow", .arg = "LIST",
	  .help = "what is near and functions may be allowed (default: nothing)",
	  .flags = OPT_CONFIG },
	{ .name = "log-level", .arg = "LEVEL", .help = "error, warning, info or debug",
	  .flags = OPT_CONFIG, .fallback = "info" },
	{ .name = "run-fd", .arg = "N", .help = "directory of the control plane's local sockets" },
	{ .name = "ready-fd", .arg = "N", .help = "gets one byte when the node is registered" },
	{ .name = "with-parent", .help = "ends when its parent does" },
	{ .name = "config", .arg = "FILE", .help = "settings (default " DEFAULT_CONFIG ")" },
	{ .name = "print-config", .help = "shows the settings in force and ends" },
	{ .name = "help", .letter = 'h', .help = "shows this and ends" },
	{ .name = "version", .help = "shows the version and ends" },
	{ 0 },
};

/* Keys of pratai.conf that other programs read. */
static const char *const others[] = {
	"store", "listen", "roles", "node-user", "first-token-file", "retention", "payload-max",
	"body-memory", "connections", NULL,
};

static const struct opt_values *
values(const struct node_config *c)
{
	return &c->values;
}

static int
wrong(struct err *e, const char *option, const char *text, const char *want)
{
	return err_set(e, ERR_INPUT, "option '--%s': '%.80s' is not %s", option, text, want);
}

static int
read_whole(const struct node_config *c, const char *option, int64_t min, int64_t max,
	   int64_t *out, struct err *e)
{
	const char *text = opt_get(values(c), option);

	if (text && str_int(text, min, max, out))
		return err_set(e, ERR_INPUT,
			       "option '--%s': '%.80s' is not a whole number from %lld to %lld",
			       option, text, (long long)min, (long long)max);
	return 0;
}

/* A bare number is MiB; else a size with its unit. */
static int
read_mib(const struct node_config *c, const char *option, uint64_t missing, uint64_t *mib,
	 struct err *e)
{
	const char *text = opt_get(values(c), option);
	char what[64];
	int64_t whole;
	uint64_t bytes;

	*mib = missing;
	if (!text)
		return 0;
	if (str_int(text, FUNCTION_MEMORY_MIN_MIB, 1ll << 32, &whole) == 0) {
		*mib = (uint64_t)whole;
		return 0;
	}
	snprintf(what, sizeof what, "option '--%s'", option);
	if (str_size(what, text, (uint64_t)FUNCTION_MEMORY_MIN_MIB << 20, 1ull << 52, &bytes, e))
		return -1;
	*mib = bytes >> 20;
	return 0;
}

static int
read_user(struct node_config *c, struct err *e)
{
	const char *text = opt_get(values(c), "user"), *colon = strchr(text, ':');
	char first[32];
	int64_t uid, gid;

	snprintf(first, sizeof first, "%.*s", colon ? (int)(colon - text) : 31, text);
	if (str_int(first, 1, UINT32_MAX - 1, &uid))
		return wrong(e, "user", text, "UID[:GID] (numbers from 1)");
	gid = uid;
	if (colon && str_int(colon + 1, 1, UINT32_MAX - 1, &gid))
		return wrong(e, "user", text, "UID[:GID] (numbers from 1)");
	c->user = (uid_t)uid;
	c->group = (gid_t)gid;
	return 0;
}

static int
read_descriptor(const struct node_config *c, const char *option, int *fd, struct err *e)
{
	const char *text = opt_get(values(c), option);
	int64_t number = -1;

	*fd = -1;
	if (!text)
		return 0;
	if (str_int(text, 3, 1 << 20, &number) || fcntl((int)number, F_SETFD, FD_CLOEXEC))
		return wrong(e, option, text, "an open descriptor from 3 up");
	*fd = (int)number;
	return 0;
}

static int
read_token(struct node_config *c, struct err *e)
{
	const char *path = opt_get(values(c), "join-token-file");
	const char *token = getenv("PRATAI_JOIN_TOKEN");
	struct buf text = { 0 };
	int rc;

	if (!path && !token)
		return err_set(e, ERR_INPUT, "no join token: give --join-token-file or "
			       "PRATAI_JOIN_TOKEN");
	if (path ? file_slurp(AT_FDCWD, path, NODE_TOKEN_MAX, &text, e) : buf_puts(&text, token)) {
		buf_free(&text);
		return -1;
	}
	while (text.len && strchr(" \t\r\n", text.data[text.len - 1]))
		text.len--;
	buf_terminate(&text);
	rc = !text.len || strspn(text.data, "0123456789abcdefghijklmnopqrstuvwxyz"
			      "ABCDEFGHIJKLMNOPQRSTUVWXYZ-_.~+/=") != text.len ||
	     str_copy(c->token, sizeof c->token, text.data);
	buf_free(&text);
	/* Nothing of this process's environment goes to a helper, but it shows in /proc. */
	unsetenv("PRATAI_JOIN_TOKEN");
	return rc ? err_set(e, ERR_INPUT, "the join token is empty, too long, or has characters "
			    "that no token has") : 0;
}

static int
read_name(struct node_config *c, struct err *e)
{
	const char *given = opt_get(values(c), "name");
	char host[EVENT_NODE_MAX] = "";

	if (!given) {
		if (gethostname(host, sizeof host - 1))
			return err_sys(e, ERR_NODE, "the host's name");
		/* What a kernel says that nobody has told a name. */
		given = *host && strcmp(host, "(none)") ? host : "localhost";
	}
	if (function_name_check(given, NULL) || str_copy(c->name, sizeof c->name, given))
		return wrong(e, "name", given, "a name of letters, digits, '_', '.' and '-', "
			     "at most 63");
	return 0;
}

static int
read_state(struct node_config *c, struct err *e)
{
	const char *path = opt_get(values(c), "state");

	if (mkdir(path, 0700) && errno != EEXIST)
		return err_sys(e, ERR_NODE, "option '--state': make %s", path);
	if (!realpath(path, c->state))
		return err_sys(e, ERR_NODE, "option '--state': %s", path);
	return 0;
}

static int
read_instance(struct node_config *c, struct err *e)
{
	const char *given = opt_get(values(c), "instance");
	char hex[SHA256_HEX_MAX];

	if (!given) {
		sha256_hex(c->state, strlen(c->state), hex);
		hex[12] = '\0';
		given = hex;
	}
	if (!*given || strspn(given, "0123456789abcdefghijklmnopqrstuvwxyz") != strlen(given) ||
	    str_copy(c->instance, sizeof c->instance, given))
		return wrong(e, "instance", given, "1 to 16 small letters and digits");
	return 0;
}

/* As given, or `runtimes` beside this program, or lib/pratai/runtimes of its prefix. */
static int
read_runtimes(struct node_config *c, struct err *e)
{
	const char *given = opt_get(values(c), "runtimes");
	char self[3900], path[PATH_MAX];
	ssize_t n;

	if (given) {
		if (!realpath(given, c->runtimes))
			return err_sys(e, ERR_INPUT, "option '--runtimes': %s", given);
		return 0;
	}
	n = readlink("/proc/self/exe", self, sizeof self - 1);
	if (n > 0) {
		self[n] = '\0';
		*strrchr(self, '/') = '\0';
		snprintf(path, sizeof path, "%s/runtimes", self);
		if (realpath(path, c->runtimes))
			return 0;
		snprintf(path, sizeof path, "%s/../lib/pratai/runtimes", self);
		if (realpath(path, c->runtimes))
			return 0;
	}
	if (realpath(PRATAI_PREFIX "/lib/pratai/runtimes", c->runtimes))
		return 0;
	return err_set(e, ERR_INPUT, "no runtimes: neither beside this program nor in "
		       "lib/pratai/runtimes; give --runtimes");
}

static int
read_capacity(struct node_config *c, struct err *e)
{
	int64_t slots, uid_base;
	uint64_t ns;
	struct sysinfo machine;

	if (sysinfo(&machine))
		return err_sys(e, ERR_NODE, "sysinfo");
	if (read_mib(c, "memory",
		     (uint64_t)machine.totalram * machine.mem_unit / 100 * MEMORY_SHARE_PERCENT >> 20,
		     &c->memory_mib, e) ||
	    read_mib(c, "build-memory", 0, &c->build_memory_mib, e))
		return -1;
	if (c->build_memory_mib > c->memory_mib)
		c->build_memory_mib = c->memory_mib;
	slots = (int64_t)(c->memory_mib / SLOT_MEMORY_MIB);
	slots = slots < 1 ? 1 : slots > SLOTS_DEFAULT_MAX ? SLOTS_DEFAULT_MAX : slots;
	if (read_whole(c, "slots", 1, SPAWN_LIVE_MAX, &slots, e))
		return -1;
	c->slots = (unsigned)slots;
	if (str_duration("option '--build-timeout'", opt_get(values(c), "build-timeout"),
			 1000000000ull, 7200ull * 1000000000ull, &ns, e))
		return -1;
	c->build_timeout_s = ns / 1000000000ull;
	uid_base = 0;
	if (read_whole(c, "uid-base", 65536, UINT32_MAX - (int64_t)(SPAWN_LIVE_MAX + SPAWN_SPARE_MAX) * 65536, &uid_base, e))
		return -1;
	c->uid_base = (uint32_t)uid_base;
	if (c->user >= c->uid_base && c->user - c->uid_base < (uint64_t)(c->slots + SPAWN_SPARE_MAX) * 65536)
		return err_set(e, ERR_INPUT, "option '--user': %u is one of the sandboxes' ids",
			       c->user);
	return 0;
}

/* NET[:PORTS], separated by commas or spaces. */
static int
read_egress(struct node_config *c, struct err *e)
{
	const char *kind = opt_get(values(c), "egress"), *list = opt_get(values(c), "egress-allow");

	c->egress = !strcmp(kind, "internet");
	if (!c->egress && strcmp(kind, "none"))
		return wrong(e, "egress", kind, "none or internet");
	while (list && *list) {
		size_t n = strcspn(list, ", \t");
		char word[64];

		if (n) {
			snprintf(word, sizeof word, "%.*s", (int)(n < 63 ? n : 63), list);
			if (c->allow.count == NET_RULES_MAX)
				return err_set(e, ERR_INPUT, "option '--egress-allow': more than %d",
					       NET_RULES_MAX);
			if (net_rule_parse(word, &c->allow.list[c->allow.count++], e))
				return err_wrap(e, "option '--egress-allow'");
		}
		list += n + (list[n] != '\0');
	}
	return 0;
}

static int
read_all(struct node_config *c, struct err *e)
{
	const char *level = opt_get(values(c), "log-level"), *join = opt_get(values(c), "join");

	c->cgroup_root = opt_get(values(c), "cgroup-root");
	c->with_parent = opt_given(values(c), "with-parent");
	c->log_level = log_level_parse(level);
	if (c->log_level < 0)
		return wrong(e, "log-level", level, "error, warning, info or debug");
	if ((!str_starts(join, "http://") && !str_starts(join, "https://")) ||
	    str_copy(c->join, sizeof c->join, join))
		return wrong(e, "join", join, "an http:// or https:// URL");
	for (size_t n = strlen(c->join); c->join[n - 1] == '/'; n--)
		c->join[n - 1] = '\0';
	if (c->cgroup_root && *c->cgroup_root != '/')
		return wrong(e, "cgroup-root", c->cgroup_root, "an absolute path");
	if (read_capacity(c, e) || read_egress(c, e) || read_user(c, e) || read_name(c, e) ||
	    read_descriptor(c, "run-fd", &c->run_fd, e) ||
	    read_descriptor(c, "ready-fd", &c->ready_fd, e) || read_runtimes(c, e) ||
	    read_token(c, e) || read_state(c, e) || read_instance(c, e))
		return -1;
	return 0;
}

int
node_config_read(struct node_config *c, int argc, char **argv, struct err *e)
{
	const char *path;

	memset(c, 0, sizeof *c);
	c->run_fd = c->ready_fd = -1;
	if (opt_parse(&c->values, node_options, argc, argv, 1, false, e))
		return -1;
	if (c->values.operand_count)
		return err_set(e, ERR_INPUT, "'%.80s' is not an option", c->values.operands[0]);
	if (opt_given(&c->values, "help")) {
		printf("Usage: pratai-node [OPTION]...\nRuns functions for a Pratai control plane.\n\n");
		opt_print_help(node_options);
		return 1;
	}
	if (opt_given(&c->values, "version")) {
		printf("pratai-node %s\n", PRATAI_VERSION);
		return 1;
	}
	path = opt_get(&c->values, "config");
	if (opt_config(&c->values, path ? path : DEFAULT_CONFIG, path != NULL, others, e))
		return -1;
	if (opt_given(&c->values, "print-config")) {
		opt_print_config(&c->values);
		return 1;
	}
	return read_all(c, e);
}

void
node_config_free(struct node_config *c)
{
	opt_free(&c->values);
	memset(c->token, 0, sizeof c->token);
}
