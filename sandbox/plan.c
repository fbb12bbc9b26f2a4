/*
 * From what was asked for to the list of steps.  Nothing here touches the system, so the
 * plan of a sandbox can be printed and tested without making one.
 *
 * The order is part of the security.  Everything that needs privilege comes before the
 * command's process drops it; targets in the image are resolved before /proc is there;
 * /proc comes while the old one is still visible, as the kernel demands of a user
 * namespace.  The bounding set, no_new_privs, landlock and the filter come before the fork of the
 * command's process, so that it and init have one and the same; what follows the filter
 * needs no call that it refuses.
 */
#include "sandbox/plan.h"

#include <limits.h>
#include <string.h>

#include "core/base/err.h"
#include "sandbox/sandbox.h"

static const char *const names[] = {
	[STEP_LIMITS] = "limits",     [STEP_TREES] = "trees",       [STEP_DEVICES] = "devices",
	[STEP_PREMOUNT] = "premount", [STEP_NETWORK] = "network",   [STEP_CLONE] = "clone",
	[STEP_EGRESS] = "egress",     [STEP_UPLINK] = "uplink",
	[STEP_MAPS] = "maps",         [STEP_JOIN] = "join",         [STEP_IDENTITY] = "identity",
	[STEP_SCRATCH] = "scratch",   [STEP_ROOT] = "root",         [STEP_USR] = "usr",
	[STEP_TMP] = "tmp",           [STEP_BIND] = "bind",         [STEP_DEV] = "dev",
	[STEP_PROC] = "proc",         [STEP_MASK] = "mask",         [STEP_PIVOT] = "pivot",
	[STEP_LOOPBACK] = "loopback", [STEP_HOSTNAME] = "hostname", [STEP_QUOTAS] = "quotas",
	[STEP_SESSION] = "session",   [STEP_FORK] = "fork",         [STEP_STDIO] = "stdio",
	[STEP_WORKDIR] = "workdir",   [STEP_USER] = "user",         [STEP_CAPS] = "caps",
	[STEP_FILTER] = "filter",     [STEP_EXEC] = "exec",         [STEP_LANDLOCK] = "landlock",
	[STEP_CLOCK] = "clock",       [STEP_ORDERS] = "orders",     [STEP_ATTACH] = "attach",
	[STEP_TURN] = "turn",
};
_Static_assert(sizeof names / sizeof names[0] == STEP_COUNT, "a name for each");

const char *
step_name(enum step s)
{
	return names[s];
}

const char *
step_side_name(enum step_side s)
{
	static const char *const sides[] = { "caller", "init", "command" };

	return sides[s];
}

/* Absolute, shorter than a page, no component "." or "..". */
static int
check_path(const char *what, const char *path, struct err *e)
{
	if (path[0] != '/')
		return err_set(e, ERR_INPUT, "%s '%.100s' is not absolute", what, path);
	if (strlen(path) >= PATH_MAX)
		return err_set(e, ERR_INPUT, "%s '%.100s…' is too long", what, path);
	for (const char *p = path; *p; p += strcspn(p, "/")) {
		size_t n;

		p += strspn(p, "/");
		n = strcspn(p, "/");
		if ((n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
			return err_set(e, ERR_INPUT, "%s '%.100s' has a component '%.*s'", what, path, (int)n,
				       p);
		if (n > NAME_MAX)
			return err_set(e, ERR_INPUT, "%s '%.100s…' has a component that is too long", what,
				       path);
	}
	return 0;
}

/* Whether path is top or below it: a "/tmpfile" is not below "/tmp". */
static bool
is_below(const char *path, const char *top)
{
	size_t n = strlen(top);

	path += strspn(path, "/") - 1;
	return !strncmp(path, top, n) && (path[n] == '/' || path[n] == '\0');
}

static int
check_bind(const struct sandbox_bind *b, struct err *e)
{
	if (check_path("bind target", b->target, e))
		return -1;
	if (!b->target[strspn(b->target, "/")])
		return err_set(e, ERR_INPUT, "a bind cannot replace the root: its target is '/'");
	/* /proc and /dev are made by us, whole, after the binds. */
	if (is_below(b->target, "/proc") || is_below(b->target, "/dev"))
		return err_set(e, ERR_INPUT, "bind target '%.100s' is below %s, which is the sandbox's own",
			       b->target, is_below(b->target, "/proc") ? "/proc" : "/dev");
	return 0;
}

static int
check(const struct sandbox_spec *spec, struct err *e)
{
	if (spec->layer_count == 0 || spec->layer_count > SANDBOX_LAYERS_MAX)
		return err_set(e, ERR_INPUT, "a sandbox needs 1 to %d layers", SANDBOX_LAYERS_MAX);
	if (spec->bind_count > SANDBOX_BINDS_MAX)
		return err_set(e, ERR_INPUT, "more than %d binds", SANDBOX_BINDS_MAX);
	if (!spec->argv[0] || !spec->argv[0][0])
		return err_set(e, ERR_INPUT, "no command");
	if (check_path("working directory", spec->workdir, e))
		return -1;
	for (unsigned i = 0; i < spec->bind_count; i++)
		if (check_bind(&spec->binds[i], e))
			return -1;
	if (spec->uid_base ? spec->uid >= SANDBOX_IDS - 1 : spec->uid >= UINT32_MAX - 1)
		return err_set(e, ERR_INPUT, "uid %u is out of range (0 to %d)", spec->uid,
			       SANDBOX_IDS - 2);
	if (spec->uid_base && sandbox_gid(spec) >= SANDBOX_IDS - 1)
		return err_set(e, ERR_INPUT, "gid %u is out of range (0 to %d)", sandbox_gid(spec),
			       SANDBOX_IDS - 2);
	if ((spec->caps || spec->disk.path) && !spec->uid_base)
		return err_set(e, ERR_INPUT, "a root on disk and capabilities are for root's sandboxes");
	if (spec->caps && spec->uid)
		return err_set(e, ERR_INPUT, "only uid 0 keeps capabilities");
	if (strlen(spec->hostname) > 64)
		return err_set(e, ERR_INPUT, "the host name is longer than 64 characters");
	return 0;
}

static void
add(struct plan *p, enum step_side side, enum step step, unsigned index)
{
	p->steps[p->count++] = (struct plan_step){ .step = step, .side = side, .index = index };
}

static void
add_caller(struct plan *p, const struct sandbox_spec *spec)
{
	bool rootless = spec->uid_base == 0;

	if (!rootless)
		add(p, SIDE_CALLER, STEP_TREES, 0);
	if (p->root == ROOT_PREMOUNT)
		add(p, SIDE_CALLER, STEP_PREMOUNT, 0);
	if (spec->netns >= 0)
		add(p, SIDE_CALLER, STEP_NETWORK, 0);
	add(p, SIDE_CALLER, STEP_CLONE, 0);
	/* While init makes the network: the child runs nothing but our code before the maps. */
	if (spec->group)
		add(p, SIDE_CALLER, STEP_LIMITS, 0);
	add(p, SIDE_CALLER, STEP_MAPS, 0);
	/* While init mounts the root. */
	if (!rootless && spec->devices < 0)
		add(p, SIDE_CALLER, STEP_DEVICES, 0);
	if (spec->network == SANDBOX_NET_EGRESS && !spec->uplink)
		add(p, SIDE_CALLER, STEP_EGRESS, 0);
}

static void
add_init(struct plan *p, const struct sandbox_spec *spec)
{
	/* These need no ids, so they fill the time in which the caller makes the group and writes
	 * limits and maps. */
	if (spec->network == SANDBOX_NET_NONE && spec->netns < 0)
		add(p, SIDE_INIT, STEP_NETWORK, 0);
	if (spec->network != SANDBOX_NET_HOST && spec->netns < 0)
		add(p, SIDE_INIT, STEP_LOOPBACK, 0);
	add(p, SIDE_INIT, STEP_HOSTNAME, 0);
	if (spec->group)
		add(p, SIDE_INIT, STEP_JOIN, 0);
	add(p, SIDE_INIT, STEP_IDENTITY, 0);
	if (spec->uid_base == 0)
		add(p, SIDE_INIT, STEP_TREES, 0);
	if (p->root != ROOT_PREMOUNT)
		add(p, SIDE_INIT, STEP_SCRATCH, 0);
	add(p, SIDE_INIT, STEP_ROOT, 0);
	if (spec->usr && p->root != ROOT_PREMOUNT)
		add(p, SIDE_INIT, STEP_USR, 0);
	add(p, SIDE_INIT, STEP_TMP, 0);
	for (unsigned i = 0; i < spec->bind_count; i++)
		add(p, SIDE_INIT, STEP_BIND, i);
	add(p, SIDE_INIT, STEP_DEV, 0);
	add(p, SIDE_INIT, STEP_PROC, 0);
	add(p, SIDE_INIT, STEP_MASK, 0);
	add(p, SIDE_INIT, STEP_CLOCK, 0);
	add(p, SIDE_INIT, STEP_QUOTAS, 0);
	add(p, SIDE_INIT, STEP_PIVOT, 0);
	if (spec->network == SANDBOX_NET_EGRESS && !spec->uplink)
		add(p, SIDE_INIT, STEP_UPLINK, 0);
	add(p, SIDE_INIT, STEP_SESSION, 0);
	add(p, SIDE_INIT, STEP_CAPS, 0);
	add(p, SIDE_INIT, STEP_LANDLOCK, 0);
	if (!spec->filter)
		add(p, SIDE_INIT, STEP_FILTER, 0);
	add(p, SIDE_INIT, STEP_FORK, 0);
}

int
plan_make(struct plan *p, const struct sandbox_spec *spec, bool user_xattr, struct err *e)
{
	p->count = 0;
	if (check(spec, e))
		return -1;
	p->root = user_xattr || spec->disk.path ? ROOT_OVERLAY : spec->uid_base ? ROOT_PREMOUNT : ROOT_READONLY;
	if (p->root == ROOT_READONLY && spec->network == SANDBOX_NET_EGRESS)
		return err_set(e, ERR_NODE, "network egress needs root here, or Linux 6.6");
	add_caller(p, spec);
	add_init(p, spec);
	add(p, SIDE_COMMAND, STEP_STDIO, 0);
	add(p, SIDE_COMMAND, STEP_WORKDIR, 0);
	add(p, SIDE_COMMAND, STEP_USER, 0);
	if (spec->filter)
		add(p, SIDE_COMMAND, STEP_FILTER, 0);
	add(p, SIDE_COMMAND, STEP_EXEC, 0);
	_Static_assert(STEP_COUNT + SANDBOX_BINDS_MAX <= PLAN_STEPS_MAX, "all of them fit");
	return 0;
}

/* Of init's, /usr is the caller's business where that mounts the root. */
static void
add_list(struct plan *p, enum step_side side, const enum step *list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (list[i] != STEP_USR || p->root == ROOT_OVERLAY)
			add(p, side, list[i], 0);
}

/*
 * In two halves.  What init does after the fork it does with all its powers, so the filter and
 * landlock, which would refuse it, are the command's own business here; what init keeps of
 * system calls in the end is less.  The command's process loads its filter while there is
 * time; landlock only in the new root, whose paths its rule is for.
 */
static void
make_late(struct plan *p)
{
	static const enum step before[] = {
		STEP_HOSTNAME, STEP_JOIN,  STEP_IDENTITY, STEP_SCRATCH, STEP_DEV,  STEP_PROC,
		STEP_MASK,     STEP_CLOCK, STEP_QUOTAS,   STEP_SESSION, STEP_CAPS, STEP_FORK,
	};
	static const enum step after[] = { STEP_ORDERS, STEP_ROOT,   STEP_USR,
					   STEP_TMP,    STEP_ATTACH, STEP_PIVOT };
	static const enum step command[] = { STEP_FILTER,   STEP_ORDERS,  STEP_STDIO, STEP_TURN,
					     STEP_LANDLOCK, STEP_WORKDIR, STEP_USER,  STEP_EXEC };

	add_list(p, SIDE_INIT, before, sizeof before / sizeof before[0]);
	add_list(p, SIDE_INIT, after, sizeof after / sizeof after[0]);
	add_list(p, SIDE_COMMAND, command, sizeof command / sizeof command[0]);
}

/* In the order of one that is made at once, and init is done when it has forked; only the filter
 * is the command's own again, since init can have a smaller one. */
static void
make_with_root(struct plan *p)
{
	static const enum step init[] = {
		STEP_HOSTNAME, STEP_JOIN,   STEP_IDENTITY, STEP_SCRATCH, STEP_ROOT,  STEP_USR,
		STEP_TMP,      STEP_DEV,    STEP_PROC,     STEP_MASK,    STEP_CLOCK, STEP_QUOTAS,
		STEP_PIVOT,    STEP_SESSION, STEP_CAPS,    STEP_LANDLOCK, STEP_FORK,
	};
	static const enum step command[] = { STEP_FILTER,  STEP_ORDERS, STEP_STDIO,
					     STEP_WORKDIR, STEP_USER,   STEP_EXEC };

	for (size_t i = 0; i < sizeof init / sizeof init[0]; i++)
		if (init[i] != STEP_SCRATCH || p->root == ROOT_OVERLAY)
			add_list(p, SIDE_INIT, &init[i], 1);
	add_list(p, SIDE_COMMAND, command, sizeof command / sizeof command[0]);
}

void
plan_make_ahead(struct plan *p, bool user_xattr, bool late_root)
{
	*p = (struct plan){ .root = user_xattr ? ROOT_OVERLAY : ROOT_PREMOUNT,
			    .late_root = late_root };
	if (!late_root)
		add(p, SIDE_CALLER, STEP_TREES, 0);
	if (!late_root && p->root == ROOT_PREMOUNT)
		add(p, SIDE_CALLER, STEP_PREMOUNT, 0);
	add(p, SIDE_CALLER, STEP_NETWORK, 0);
	add(p, SIDE_CALLER, STEP_CLONE, 0);
	add(p, SIDE_CALLER, STEP_MAPS, 0);
	if (late_root)
		make_late(p);
	else
		make_with_root(p);
}

int
plan_check_ahead(const struct sandbox_spec *spec, struct err *e)
{
	if (spec->bind_count || spec->filter || spec->disk.path || spec->caps ||
	    spec->network != SANDBOX_NET_NONE)
		return err_set(e, ERR_INPUT, "a sandbox made ahead has no network, binds, disk, capabilities or "
			       "filter of its own");
	return check(spec, e);
}

static void
print_trees(const struct sandbox_spec *spec, FILE *out)
{
	for (unsigned i = 0; i < spec->layer_count; i++)
		fprintf(out, "%slayer %s", i ? ", " : "", spec->layers[i].path);
	if (spec->usr)
		fprintf(out, ", %s", spec->usr);
	if (spec->disk.path)
		fprintf(out, ", written to %s", spec->disk.path);
}

static void
print_limits(const struct cgroup_limits *l, FILE *out)
{
	const char *comma = "";

	if (l->memory_bytes)
		fprintf(out, "memory %llu bytes", (unsigned long long)l->memory_bytes), comma = ", ";
	if (l->pids)
		fprintf(out, "%spids %u", comma, l->pids), comma = ", ";
	if (l->cpu_millis)
		fprintf(out, "%scpu %u.%03u", comma, l->cpu_millis / 1000, l->cpu_millis % 1000);
}

static void
print_detail(const struct plan *p, const struct plan_step *s, const struct sandbox_spec *spec,
	     FILE *out)
{
	static const char *const roots[] = { "overlay, writable", "overlay, writable, mounted outside",
					     "read-only" };
	const struct sandbox_bind *b = &spec->binds[s->index];

	switch (s->step) {
	case STEP_LIMITS: print_limits(&spec->limits, out); break;
	case STEP_TREES: print_trees(spec, out); break;
	case STEP_CLONE:
		fprintf(out, "user mount pid ipc uts%s",
			spec->network == SANDBOX_NET_EGRESS ? " net" : "");
		break;
	case STEP_NETWORK: fputs(s->side == SIDE_INIT ? "a new one" : "one made ahead", out); break;
	case STEP_JOIN: fputs("cgroup namespace", out); break;
	case STEP_MAPS:
		if (spec->uid_base)
			fprintf(out, "0-%d are %u-%u of the host", SANDBOX_IDS - 1, spec->uid_base,
				spec->uid_base + SANDBOX_IDS - 1);
		else
			fprintf(out, "%u is the caller", spec->uid);
		break;
	case STEP_EGRESS:
		fprintf(out, "slirp4netns, exceptions: %u", spec->allow->count + (spec->allow_names ? spec->allow_names->count : 0));
		break;
	case STEP_SCRATCH:
		if (spec->tmp_bytes)
			fprintf(out, "%llu bytes", (unsigned long long)spec->tmp_bytes);
		break;
	case STEP_ROOT: fputs(roots[p->root], out); break;
	case STEP_BIND:
		fprintf(out, "%s on %s, %s", b->source.path, b->target,
			b->writable ? "writable" : "read-only");
		break;
	case STEP_HOSTNAME: fputs(spec->hostname, out); break;
	case STEP_LANDLOCK:
		fputs("mounts, device nodes, signals, abstract sockets; where the kernel has it", out);
		break;
	case STEP_WORKDIR: fputs(spec->workdir, out); break;
	case STEP_USER: fprintf(out, "uid %u, gid %u", spec->uid, sandbox_gid(spec)); break;
	case STEP_EXEC: fputs(spec->argv[0], out); break;
	default: break;
	}
}

void
plan_print(const struct plan *p, const struct sandbox_spec *spec, FILE *out)
{
	for (unsigned i = 0; i < p->count; i++) {
		const struct plan_step *s = &p->steps[i];

		fprintf(out, "%2u %-7s %-8s ", i + 1, step_side_name(s->side), step_name(s->step));
		print_detail(p, s, spec, out);
		fputc('\n', out);
	}
}
