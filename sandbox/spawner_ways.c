/*
 * Ways out made ahead: for a request with egress that may reach nothing beside the Internet, an
 * uplink is up already, rules, tap device, stack and all, in a network namespace that the sandbox
 * is then cloned into.  Each is used once, by the sandbox that has its ids.
 *
 * Few, and none before egress has been asked for: each is a process of 3 MiB.  They are made when
 * nothing happens.  Whoever finds none makes its own, as `pratai run` does.
 *
 * The rules name the machine's addresses and its resolvers.  So nothing that was made before a
 * change of either is used after it.
 *
 * They end with the spawner, whose pid namespace is above theirs.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/fdio.h"
#include "core/base/log.h"
#include "core/base/probe.h"
#include "sandbox/spawner_state.h"

#define WAY_AGAIN_NS (1ull * NS_PER_S)

void
spawner_way_drop(struct spawner_state *s, struct way *w)
{
	uplink_kill(&w->uplink);
	uplink_wait_end(&w->uplink);
	fd_close(&w->ready);
	fd_close(&w->netns);
	s->slots[w->slot].kept = false;
}

static struct way
pull(struct spawner_state *s, unsigned index)
{
	struct way w = s->ways[index];

	memmove(&s->ways[index], &s->ways[index + 1], (--s->way_count - index) * sizeof w);
	return w;
}

static bool
is_there(int fd)
{
	return poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, 0) > 0;
}

/* 1: it is up; 0: not yet; -1: it will not be. */
static int
look(struct way *w, struct err *e)
{
	if (is_there(w->uplink.pidfd))
		return err_set(e, ERR_NODE, "its process died");
	if (w->netns < 0 && is_there(w->ready) && (w->netns = fd_receive(w->ready, 0)) < 0)
		return err_set(e, ERR_NODE, "it has no network namespace");
	if (w->netns >= 0 && !w->up && is_there(w->ready)) {
		if (uplink_wait(w->ready, e))
			return -1;
		w->up = true;
	}
	return w->up;
}

/* Whether the rules that were written until now may be out of date. */
static bool
has_changed(struct spawner_state *s)
{
	struct stat now = { 0 }, *then = &s->resolvers;
	bool changed = false;
	char message[4096];

	/* ENOBUFS: more than there was room for. */
	while (recv(s->in->addresses, message, sizeof message, MSG_DONTWAIT) >= 0 || errno == ENOBUFS)
		changed = true;
	stat("/etc/resolv.conf", &now);
	changed |= now.st_ino != then->st_ino || now.st_size != then->st_size ||
		   now.st_mtim.tv_sec != then->st_mtim.tv_sec ||
		   now.st_mtim.tv_nsec != then->st_mtim.tv_nsec;
	*then = now;
	return changed;
}

/* Takes away what cannot be used. */
static void
sift(struct spawner_state *s)
{
	bool all = has_changed(s);

	for (unsigned i = s->way_count; i-- > 0;) {
		struct err e = { 0 };
		struct way w;

		if (!all && look(&s->ways[i], &e) >= 0)
			continue;
		w = pull(s, i);
		spawner_way_drop(s, &w);
		if (all)
			continue;
		log_warning("a way out made ahead is lost", "reason", e.text, NULL);
		s->way_again_ns = clock_mono_ns() + WAY_AGAIN_NS;
	}
}

static int
start(struct spawner_state *s, struct err *e)
{
	static const struct net_rules nothing = { .count = 0 };
	struct way w = { .netns = -1, .slot = spawner_find_slot(s) };
	struct uplink_spec spec = {
		.allow = &nothing,
		.host_netns = s->in->host_netns,
		.uid = s->in->boot->uid_base + w.slot * SANDBOX_IDS,
		.ahead = true,
	};
	int pair[2], rc;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return err_sys(e, ERR_NODE, "make a socket");
	spec.ready_w = pair[1];
	rc = uplink_start(&w.uplink, &spec, e);
	close(pair[1]);
	if (rc) {
		close(pair[0]);
		return -1;
	}
	w.ready = pair[0];
	s->slots[w.slot].kept = true;
	s->ways[s->way_count++] = w;
	return 0;
}

bool
spawner_way_make(struct spawner_state *s)
{
	struct err e;

	if (!s->ways_wanted || s->ending || probe_disabled("ahead"))
		return false;
	sift(s);
	if (s->way_count == SPAWN_WAYS_MAX || s->way_count == s->in->boot->slots ||
	    clock_mono_ns() < s->way_again_ns)
		return false;
	if (start(s, &e) == 0)
		return true;
	s->way_again_ns = clock_mono_ns() + WAY_AGAIN_NS;
	log_err("a way out could not be made ahead", &e);
	return false;
}

int
spawner_way_take(struct spawner_state *s, const struct wire_request *r)
{
	/* What else r may reach is in the rules and in the stack's start: its way is made for it. */
	if (r->network != SPAWN_NET_EGRESS || r->allow.count)
		return 0;
	s->ways_wanted = true;
	sift(s);
	for (unsigned i = 0; i < s->way_count; i++) {
		if (!s->ways[i].up)
			continue;
		s->way = pull(s, i);
		s->slots[s->way.slot].kept = false;
		fd_close(&s->way.ready);
		return 1;
	}
	return 0;
}
