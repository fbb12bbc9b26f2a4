/*
 * See wire.h.  No allocation, no system call: fuzzed as a function of bytes.
 */
#include "sandbox/wire.h"

#include <string.h>

#include "core/base/err.h"
#include "sandbox/cgroup.h"

void
wire_head_set(struct wire_head *h, enum wire_type type)
{
	*h = (struct wire_head){ .magic = WIRE_MAGIC, .version = WIRE_VERSION, .type = (uint16_t)type };
}

bool
wire_is_name(const char *name)
{
	size_t len = strnlen(name, WIRE_NAME_MAX);

	if (len == 0 || len == WIRE_NAME_MAX)
		return false;
	for (size_t i = 0; i < len; i++) {
		char c = name[i];
		bool word = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');

		if (!word && (i == 0 || !strchr("._-", c)))
			return false;
	}
	return true;
}

static int
bad(struct err *e, const char *what)
{
	return err_set(e, ERR_INPUT, "malformed message: %s", what);
}

static int
check_allow(const struct wire_request *r)
{
	if (r->allow.count > (r->network == SPAWN_NET_EGRESS ? NET_RULES_MAX : 0))
		return -1;
	for (uint32_t i = 0; i < r->allow.count; i++)
		if (!net_rule_is_valid(&r->allow.list[i]))
			return -1;
	return 0;
}

static int
check_request(const struct wire_request *r, unsigned fd_count, const struct wire_bounds *b,
	      struct err *e)
{
	if (r->runtime[0] && !wire_is_name(r->runtime))
		return bad(e, "runtime");
	if (r->layer_count > SPAWN_LAYERS_MAX)
		return bad(e, "number of layers");
	if (r->image_count > SPAWN_IMAGE_MAX)
		return bad(e, "number of an image's layers");
	if (r->memory_bytes < 1 << 20 || r->memory_bytes > b->memory_max_bytes)
		return bad(e, "memory");
	if (r->tmp_bytes < 64 << 10 || r->tmp_bytes > b->tmp_max_bytes)
		return bad(e, "tmp");
	if (r->timeout_ns == 0 || r->timeout_ns > WIRE_TIMEOUT_MAX_NS)
		return bad(e, "timeout");
	if (r->cpu_millis < 10 || r->cpu_millis > CGROUP_CPU_MILLIS_MAX)
		return bad(e, "cpu");
	if (r->pids == 0 || r->pids > 4194304)
		return bad(e, "pids");
	if (r->network > SPAWN_NET_BUILD)
		return bad(e, "network");
	if (check_allow(r))
		return bad(e, "addresses to allow");
	if (r->argc == 0 || r->argc > WIRE_ARGS_MAX || r->envc > WIRE_ARGS_MAX)
		return bad(e, "number of strings");
	if (r->strings_bytes == 0 || r->strings_bytes > SPAWN_STRINGS_MAX)
		return bad(e, "size of strings");
	if (r->fds > 15 || fd_count != 1 + (unsigned)__builtin_popcount(r->fds))
		return bad(e, "descriptors");
	return 0;
}

int
wire_check(const union wire_message *m, size_t len, unsigned fd_count,
	   const struct wire_bounds *bounds, struct err *e)
{
	if (len < sizeof m->head || m->head.magic != WIRE_MAGIC)
		return bad(e, "not one of ours");
	if (m->head.version != WIRE_VERSION)
		return bad(e, "version");
	switch (m->head.type) {
	case WIRE_REQUEST:
		if (len != sizeof m->request)
			return bad(e, "size of a request");
		return check_request(&m->request, fd_count, bounds, e);
	case WIRE_KILL:
		if (len != sizeof m->kill || fd_count != 0 || m->kill.zero)
			return bad(e, "size of a kill");
		if (m->kill.why != SPAWN_KILL_CANCELLED && m->kill.why != SPAWN_KILL_OUTPUT)
			return bad(e, "reason of a kill");
		return 0;
	default: return bad(e, "type");
	}
}

/* The next string of text, and moves on; NULL: none is left. */
static const char *
next(const char **text, const char *end)
{
	const char *s = *text, *nul = s < end ? memchr(s, '\0', (size_t)(end - s)) : NULL;

	if (!nul)
		return NULL;
	*text = nul + 1;
	return s;
}

int
wire_strings(const struct wire_request *r, const char *text, struct wire_strings *out,
	     struct err *e)
{
	const char *end = text + r->strings_bytes;

	for (uint32_t i = 0; i < r->argc; i++)
		if (!(out->argv[i] = next(&text, end)))
			return bad(e, "arguments");
	out->argv[r->argc] = NULL;
	for (uint32_t i = 0; i < r->envc; i++) {
		const char *s = out->envp[i] = next(&text, end);

		if (!s || s[0] == '=' || !strchr(s, '='))
			return bad(e, "environment");
	}
	out->envp[r->envc] = NULL;
	out->workdir = next(&text, end);
	if (!out->workdir || text != end)
		return bad(e, "working directory");
	if (out->argv[0][0] != '/')
		return bad(e, "the command is not absolute");
	return 0;
}
