/*
 * From the driver's message to a running sandbox.  The driver is taken for an attacker:
 * wire.c has checked every number against our own bounds before anything here uses it,
 * strings come in a sealed memfd and are copied, layers are digests that become paths
 * below our own descriptor of the store, and descriptors are files, never directories.
 *
 * -1 means that the peer broke the protocol.  Everything else that goes wrong (a layer
 * that is not there, a limit that cannot be set) is the sandbox's result.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/str.h"
#include "sandbox/spawner_state.h"

static int
malformed(struct err *e, const char *what)
{
	return err_set(e, ERR_INPUT, "malformed message: %s", what);
}

/* Sealed, of the size that was said, and read into our own memory. */
static int
read_strings(struct spawner_state *s, const struct wire_request *r, int fd, struct err *e)
{
	const int sealed = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || (seals & sealed) != sealed || fstat(fd, &st) ||
	    st.st_size != (off_t)r->strings_bytes ||
	    pread(fd, s->text, r->strings_bytes, 0) != (ssize_t)r->strings_bytes)
		return malformed(e, "strings");
	return wire_strings(r, s->text, &s->strings, e);
}

/* A sandbox gets files to read and write, never a directory, nor a handle on one. */
static int
check_descriptors(const int *fds, unsigned count, struct err *e)
{
	for (unsigned i = 1; i < count; i++) {
		struct stat st;
		int flags = fcntl(fds[i], F_GETFL);

		if (flags < 0 || (flags & O_PATH) || fstat(fds[i], &st) || S_ISDIR(st.st_mode))
			return malformed(e, "descriptor of the wrong kind");
	}
	return 0;
}

/* The next one down, a tree below at; its path is to be written. */
static char *
add_layer(struct spawner_state *s, struct sandbox_spec *spec, int at, uint32_t ids)
{
	char *path = s->paths[spec->layer_count];

	spec->layers[spec->layer_count++] =
		(struct sandbox_tree){ .at = at, .path = path, .strict = true, .ids = ids };
	return path;
}

static void
add_stored(struct spawner_state *s, struct sandbox_spec *spec, const char *place,
	   const uint8_t digest[32], uint32_t ids)
{
	char *path = add_layer(s, spec, s->in->store, ids);

	str_hex(digest, 32, path + snprintf(path, sizeof s->paths[0], "%s/", place));
}

void
spawner_fill_layers(struct spawner_state *s, const struct ahead_root *root,
		    struct sandbox_spec *spec)
{
	for (unsigned i = 0; i < root->layer_count; i++)
		add_stored(s, spec, "layers/sha256", root->layers[i], 0);
	if (root->runtime[0])
		snprintf(add_layer(s, spec, s->in->runtimes, 0), sizeof s->paths[0], "%s/layer",
			 root->runtime);
	for (unsigned i = 0; i < root->image_count; i++)
		add_stored(s, spec, "images/layers", root->image[i], s->in->boot->image_ids);
	if (!root->image_count) {
		snprintf(add_layer(s, spec, s->in->store, 0), sizeof s->paths[0], "host/root");
		spec->usr = "/usr";
	}
	_Static_assert(SPAWN_LAYERS_MAX + SPAWN_IMAGE_MAX + 1 <= SANDBOX_LAYERS_MAX, "all of them fit");
}

static bool
is_set(const struct wire_strings *w, const char *var)
{
	size_t n = strcspn(var, "=") + 1;

	for (const char *const *v = w->envp; *v; v++)
		if (!strncmp(*v, var, n))
			return true;
	return false;
}

/* Only here do the operator's settings come in: a build with network. */
static void
fill_build(struct spawner_state *s, struct wire_request *r, struct sandbox_spec *spec)
{
	const struct build_env *b = &s->in->build;

	for (size_t i = 0; i < b->var_count && r->envc < WIRE_ARGS_MAX; i++) {
		if (is_set(&s->strings, b->vars[i]))
			continue;
		s->strings.envp[r->envc++] = b->vars[i];
		s->strings.envp[r->envc] = NULL;
	}
	for (size_t i = 0; i < b->bind_count; i++) {
		snprintf(s->build[i], sizeof s->build[i], "/build/%zu", i);
		spec->binds[spec->bind_count++] = (struct sandbox_bind){
			.source = { .at = AT_FDCWD, .path = s->build[i], .strict = false },
			.target = b->binds[i].target,
		};
	}
	_Static_assert((int)BUILD_ENV_BINDS <= (int)SANDBOX_BINDS_MAX, "all of them fit");
	spec->allow_names = &b->names;
}

/*
 * Which network a sandbox gets is decided here, by our own configuration.  What is near stays
 * near whatever a request says: it can only choose among what the operator has allowed.
 */
static int
fill_network(struct spawner_state *s, struct wire_request *r, struct sandbox_spec *spec,
	     struct err *e)
{
	const struct spawner_boot *boot = s->in->boot;
	bool build = r->network == SPAWN_NET_BUILD;
	char text[NET_RULE_TEXT_MAX];

	spec->netns = -1;
	spec->uplink_netns = s->in->host_netns;
	if (r->network == SPAWN_NET_NONE)
		return 0;
	if (build ? !boot->build_network : !boot->egress)
		return err_set(e, ERR_INPUT, "network: this node gives %s none",
			       build ? "builds" : "functions");
	for (uint32_t i = 0; i < r->allow.count; i++) {
		if (net_rule_is_within(&r->allow.list[i], &boot->allow))
			continue;
		net_rule_format(&r->allow.list[i], text);
		return err_set(e, ERR_INPUT, "allow: '%s' is not within what this node's operator "
			       "lets functions reach (egress-allow)", text);
	}
	spec->network = SANDBOX_NET_EGRESS;
	spec->allow = &r->allow;
	if (build)
		fill_build(s, r, spec);
	return 0;
}

void
spawner_fill_common(const struct spawner_state *s, unsigned slot, struct sandbox_spec *spec)
{
	memset(spec, 0, sizeof *spec);
	spec->hostname = "sandbox";
	spec->uid = 1000;
	spec->uid_base = s->in->boot->uid_base + slot * SANDBOX_IDS;
	spec->netns_home = s->in->own_netns;
	spec->devices = s->device_count ? s->devices[s->device_count - 1] : -1;
	spec->remains_later = true;
}

static int
fill_spec(struct spawner_state *s, struct wire_request *r, const int *fds, unsigned slot,
	  struct sandbox_spec *spec, struct err *e)
{
	unsigned next = 1;

	spawner_fill_common(s, slot, spec);
	spawner_fill_layers(s, &s->root, spec);
	spec->argv = s->strings.argv;
	spec->envp = s->strings.envp;
	spec->workdir = s->strings.workdir;
	for (int i = 0; i < 3; i++)
		spec->stdio[i] = r->fds & 1u << i ? fds[next++] : -1;
	spec->channel = r->fds & WIRE_FD_CHANNEL ? fds[next] : -1;
	spec->tmp_bytes = r->tmp_bytes;
	spec->limits = (struct cgroup_limits){ .memory_bytes = r->memory_bytes, .pids = r->pids,
					       .cpu_millis = r->cpu_millis };
	spec->deadline_ns = clock_mono_ns() + r->timeout_ns;
	return fill_network(s, r, spec, e);
}

void
spawner_spend(struct spawner_state *s, struct sandbox_spec *spec)
{
	if (spec->devices >= 0)
		fd_close(&s->devices[--s->device_count]);
	fd_close(&spec->netns);
}

static int
start_sandbox(struct spawner_state *s, struct wire_request *r, const int *fds, unsigned slot,
	      struct err *e)
{
	struct live *l = &s->slots[slot];
	struct sandbox_spec spec;
	int rc;

	if (fill_spec(s, r, fds, slot, &spec, e)) {
		err_step(e, "network");
		return -1;
	}
	if (s->way.netns >= 0) {
		spec.netns = fd_steal(&s->way.netns);
		spec.uplink = &s->way.uplink;
	}
	if (l->sandbox.state == SANDBOX_HELD) {
		spec.group = l->sandbox.group;
		sandbox_start_held(&l->sandbox, &spec);
		return 0;
	}
	if (spec.network == SANDBOX_NET_NONE)
		spec.netns = netpool_take(&s->in->nets);
	spec.group = spawner_take_group(s, e);
	rc = spec.group ? sandbox_start(&l->sandbox, &spec, e) : -1;
	if (spec.uplink && !spec.group)
		spawner_way_drop(s, &s->way);
	if (rc && spec.group)
		spawner_discard_group(s, spec.group);
	spawner_spend(s, &spec);
	return rc;
}

unsigned
spawner_find_slot(struct spawner_state *s)
{
	unsigned slot = s->last_slot;

	do
		slot = (slot + 1) % s->slot_count;
	while (s->slots[slot].used || s->slots[slot].kept);
	return s->last_slot = slot;
}

/* -1: malformed.  What fails otherwise is a result. */
static int
on_request(struct spawner_state *s, struct wire_request *r, const int *fds, unsigned fd_count,
	   struct err *e)
{
	struct err why = { 0 };
	struct live *l;
	int slot;

	if (check_descriptors(fds, fd_count, e) || read_strings(s, r, fds[0], e))
		return -1;
	if (s->request_count == s->in->boot->slots)
		return malformed(e, "more requests than slots");
	ahead_root_of(&s->root, r);
	s->way.netns = -1;
	slot = spawner_take_held(s, r, &s->root);
	if (slot < 0 && spawner_way_take(s, r)) {
		slot = (int)s->way.slot;
		s->slots[slot].sandbox.state = SANDBOX_DONE;
	} else if (slot < 0) {
		slot = (int)spawner_find_slot(s);
		s->slots[slot].sandbox.state = SANDBOX_DONE;
	}
	l = &s->slots[slot];
	s->request_count++;
	l->used = true;
	l->held = l->done = false;
	l->generation++;
	l->tag = r->tag;
	l->until_ns = UINT64_MAX;
	memset(&l->result, 0, sizeof l->result);
	wire_head_set(&l->result.head, WIRE_RESULT);
	l->result.result.tag = r->tag;
	if (start_sandbox(s, r, fds, (unsigned)slot, &why))
		spawner_failed(s, (unsigned)slot, &why);
	else
		spawner_started(s, (unsigned)slot);
	if (r->network == SPAWN_NET_NONE)
		ahead_asked(&s->ahead, &s->root, clock_mono_ns());
	/* Environments hold secrets: the next child shall not inherit them. */
	explicit_bzero(s->text, r->strings_bytes);
	return 0;
}

/* What recvmsg has room for: the kernel fills the padding of the buffer, too. */
enum { FDS_ROOM = (CMSG_SPACE(sizeof(int) * WIRE_FDS_MAX) - CMSG_LEN(0)) / sizeof(int) };

/* The descriptors of a message; more than there is room for are closed by the kernel. */
static unsigned
take_fds(struct msghdr *m, int fds[FDS_ROOM])
{
	unsigned count = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		count = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(c), count * sizeof(int));
		break;
	}
	return count;
}

/* 1: a message was served; 0: there is none; -1: the connection is over. */
int
spawner_receive(struct spawner_state *s, struct err *e)
{
	const struct wire_bounds bounds = {
		.memory_max_bytes = s->in->boot->memory_max_bytes,
		.tmp_max_bytes = s->in->boot->tmp_max_bytes,
	};
	union wire_message msg;
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int) * WIRE_FDS_MAX)];
	} control;
	struct iovec iov = { .iov_base = &msg, .iov_len = sizeof msg };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space,
			    .msg_controllen = sizeof control.space };
	int fds[FDS_ROOM], rc;
	unsigned fd_count;
	ssize_t n = recvmsg(SPAWNER_FD_DRIVER, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return err_set(e, ERR_NONE, "the driver is gone");
	fd_count = take_fds(&m, fds);
	if (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
		rc = malformed(e, "too long");
	else
		rc = wire_check(&msg, (size_t)n, fd_count, &bounds, e);
	if (rc == 0 && msg.head.type == WIRE_REQUEST)
		rc = on_request(s, &msg.request, fds, fd_count, e);
	else if (rc == 0)
		spawner_end_tag(s, msg.kill.tag, msg.kill.why == SPAWN_KILL_OUTPUT
							 ? SANDBOX_OUTPUT_EXCEEDED
							 : SANDBOX_CANCELLED);
	for (unsigned i = 0; i < fd_count; i++)
		close(fds[i]);
	return rc ? -1 : 1;
}
