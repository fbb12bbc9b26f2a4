/*
 * The spawner's socket may be full: requests then wait in a list, in order, and kills as a
 * mark on their launch, until it is writable.  Everything is sent from the loop's own turn,
 * so that nobody is called back while still inside launcher_start.
 */
#include "core/node/launcher.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>

#include "core/base/err.h"
#include "core/base/log.h"
#include "netio/loop.h"

enum { RESULTS_A_TURN = 64 };

struct launch {
	struct launcher *launcher;
	uint64_t tag;
	struct spawn_request request; /* until sent */
	bool sent;
	enum spawn_kill kill; /* 0: none, or it was sent */
	const struct launch_fns *fns;
	void *arg;
	TAILQ_ENTRY(launch) link;
};

struct launcher {
	struct loop *loop;
	struct spawner *spawner;
	struct loop_fd *watch, *pid_watch;
	launcher_gone_fn gone;
	void *arg;
	uint64_t last_tag;
	bool lost;
	TAILQ_HEAD(, launch) launches;
};

static void
lose(struct launcher *l)
{
	if (l->lost)
		return;
	l->lost = true;
	loop_fd_remove(l->watch);
	loop_fd_remove(l->pid_watch);
	l->watch = l->pid_watch = NULL;
	l->gone(l->arg);
}

static void
complete(struct launch *launch, const struct spawn_result *r)
{
	TAILQ_REMOVE(&launch->launcher->launches, launch, link);
	launch->fns->done(launch->arg, r);
	free(launch);
}

/* The spawner would not take it: a result of our own, so that there is one way to end. */
static void
refuse(struct launch *launch, enum spawn_reason reason, const struct err *e)
{
	struct spawn_result r = { .tag = launch->tag, .reason = reason };

	if (e) {
		r.err_class = e->cls;
		memcpy(r.text, e->text, sizeof r.text - 1);
		memcpy(r.step, "request", sizeof "request");
	}
	launch->fns->sent(launch->arg);
	complete(launch, &r);
}

/* False: the socket is full. */
static bool
push_one(struct launcher *l, struct launch *launch)
{
	struct err e = { 0 };

	if (!launch->sent && launch->kill) {
		refuse(launch, SPAWN_CANCELLED, NULL);
		return true;
	}
	if (!launch->sent) {
		if (spawner_request(l->spawner, &launch->request, &e)) {
			if (e.cls != ERR_AGAIN)
				refuse(launch, SPAWN_SETUP_FAILED, &e);
			return e.cls != ERR_AGAIN;
		}
		launch->sent = true;
		launch->fns->sent(launch->arg);
		return true;
	}
	if (launch->kill && spawner_kill(l->spawner, launch->tag, launch->kill, &e)) {
		if (e.cls != ERR_AGAIN)
			log_err("cannot tell the spawner to end a sandbox", &e);
		return e.cls != ERR_AGAIN;
	}
	launch->kill = 0;
	return true;
}

static void
push(struct launcher *l)
{
	struct launch *launch, *next;

	for (launch = TAILQ_FIRST(&l->launches); launch; launch = next) {
		next = TAILQ_NEXT(launch, link);
		if ((!launch->sent || launch->kill) && !push_one(l, launch))
			return;
	}
	if (!l->lost)
		loop_fd_set(l->watch, EPOLLIN);
}

static void
on_result(struct launcher *l, const struct spawn_result *r)
{
	struct launch *launch;

	TAILQ_FOREACH (launch, &l->launches, link) {
		if (launch->tag == r->tag && launch->sent) {
			complete(launch, r);
			return;
		}
	}
	log_error("the spawner reports a sandbox that nobody asked for", NULL);
}

static void
on_events(void *arg, uint32_t events)
{
	struct launcher *l = arg;
	struct spawn_result r;
	struct err e = { 0 };

	for (int i = 0; i < RESULTS_A_TURN && !l->lost; i++) {
		int got = spawner_result(l->spawner, &r, &e);

		if (got < 0) {
			log_err("the spawner is gone", &e);
			lose(l);
			return;
		}
		if (!got)
			break;
		on_result(l, &r);
	}
	if (events & EPOLLOUT)
		push(l);
}

static void
on_end(void *arg, uint32_t events)
{
	struct launcher *l = arg;

	(void)events;
	log_error("the spawner has ended", NULL);
	lose(l);
}

struct launcher *
launcher_new(struct loop *loop, struct spawner *s, launcher_gone_fn gone, void *arg,
	     struct err *e)
{
	struct launcher *l = calloc(1, sizeof *l);

	if (!l) {
		err_set(e, ERR_NODE, "launcher: out of memory");
		return NULL;
	}
	TAILQ_INIT(&l->launches);
	l->loop = loop;
	l->spawner = s;
	l->gone = gone;
	l->arg = arg;
	l->watch = loop_fd_add(loop, s->fd, EPOLLIN, on_events, l, e);
	l->pid_watch = l->watch ? loop_fd_add(loop, s->pidfd, EPOLLIN, on_end, l, e) : NULL;
	if (!l->pid_watch) {
		launcher_free(l);
		return NULL;
	}
	return l;
}

void
launcher_free(struct launcher *l)
{
	struct launch *launch;

	if (!l)
		return;
	loop_fd_remove(l->watch);
	loop_fd_remove(l->pid_watch);
	while ((launch = TAILQ_FIRST(&l->launches))) {
		TAILQ_REMOVE(&l->launches, launch, link);
		free(launch);
	}
	free(l);
}

struct launch *
launcher_start(struct launcher *l, const struct spawn_request *r, const struct launch_fns *fns,
	       void *arg, struct err *e)
{
	struct launch *launch;

	if (l->lost) {
		err_set(e, ERR_NODE, "the spawner is gone");
		return NULL;
	}
	launch = calloc(1, sizeof *launch);
	if (!launch) {
		err_set(e, ERR_NODE, "launch: out of memory");
		return NULL;
	}
	launch->launcher = l;
	launch->request = *r;
	launch->request.tag = launch->tag = ++l->last_tag;
	launch->fns = fns;
	launch->arg = arg;
	TAILQ_INSERT_TAIL(&l->launches, launch, link);
	loop_fd_set(l->watch, EPOLLIN | EPOLLOUT);
	return launch;
}

void
launch_kill(struct launch *launch, enum spawn_kill why)
{
	struct launcher *l = launch->launcher;

	if (!launch->kill)
		launch->kill = why;
	if (!l->lost)
		loop_fd_set(l->watch, EPOLLIN | EPOLLOUT);
}
