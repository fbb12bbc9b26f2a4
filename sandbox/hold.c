/*
 * A sandbox in two halves: made ahead for nobody, and started when its event has come.
 *
 *   hold    the caller clones, init does all that needs no word of the event (plan.h) and forks
 *           the command's process; both wait.  With the root's layers that is all: init is nothing
 *           but a reaper then, and the command's process waits alone
 *   start   the spec goes into memory that all share (orders.h), layers over go to init, which
 *           makes the root; limits; then standard input and output over word to the command's
 *           process, which by that knows that the limits are there.  It places them while init
 *           mounts, and goes on at init's gate.  One that has a root needs none of init's part
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/fdio.h"
#include "core/base/probe.h"
#include "sandbox/child.h"

int
sandbox_hold(struct sandbox *sb, const struct sandbox_spec *spec, struct err *e)
{
	struct child c;
	int word[2];

	sandbox_init(sb);
	child_init(&c, spec);
	plan_make_ahead(&c.plan, probe_has(PROBE_TMPFS_XATTR), !spec->layer_count);
	sb->orders = orders_new();
	if (!sb->orders)
		return err_sys(e, ERR_NODE, "share memory with the sandbox");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, word)) {
		sandbox_release(sb);
		return err_sys(e, ERR_NODE, "make a socket");
	}
	c.word_r = word[0];
	c.word_w = word[1];
	if (child_launch(sb, &c, e))
		return -1;
	orders_keep_back(sb->orders);
	sb->has_root = spec->layer_count != 0;
	sb->state = SANDBOX_HELD;
	return 0;
}

static int
send_to(int socket, int fd, struct err *e)
{
	return child_send(socket, fd) ? err_sys(e, ERR_NODE, "hand over to the sandbox") : 0;
}

/* The root, or what init makes it of. */
static int
send_image(struct sandbox *sb, struct child *c, struct err *e)
{
	static const struct plan_step trees = { .step = STEP_TREES };
	const struct sandbox_spec *spec = c->spec;

	if (child_step(c, &trees, step_trees, e))
		return -1;
	if (c->plan.root == ROOT_PREMOUNT)
		return child_step(c, &(struct plan_step){ .step = STEP_PREMOUNT }, step_premount, e) ||
				       send_to(sb->go, c->root, e) || send_to(sb->go, c->tmp, e) ||
				       send_to(sb->go, c->shm, e)
			       ? -1
			       : 0;
	for (unsigned i = 0; i < spec->layer_count; i++)
		if (send_to(sb->go, c->layers[i], e))
			return -1;
	return spec->usr ? send_to(sb->go, c->usr, e) : 0;
}

/* Last, when the limits are there: with it the command can be executed. */
static int
send_command(struct sandbox *sb, const struct sandbox_spec *spec, struct err *e)
{
	for (int i = 0; i < 3; i++)
		if (spec->stdio[i] >= 0 && send_to(sb->word, spec->stdio[i], e))
			return -1;
	if (spec->channel >= 0 && send_to(sb->word, spec->channel, e))
		return -1;
	if (fd_write_all(sb->word, "", 1) && errno != EPIPE)
		return err_sys(e, ERR_NODE, "let the sandbox go");
	return 0;
}

void
sandbox_start_held(struct sandbox *sb, const struct sandbox_spec *spec)
{
	static const struct plan_step limits = { .step = STEP_LIMITS };
	struct err *e = &sb->outcome.error;
	struct child c;
	int rc;

	sb->start_ns = clock_mono_ns();
	child_init(&c, spec);
	plan_make_ahead(&c.plan, probe_has(PROBE_TMPFS_XATTR), !sb->has_root);
	c.progress = sb->progress;
	c.go_w = sb->go;
	/* What is told is what its event has waited for. */
	memset(c.progress, 0, sizeof *c.progress);
	sb->state = SANDBOX_RUNNING;
	sb->deadline_ns = spec->deadline_ns;
	sb->watch_status = spec->limits.cpu_millis != 0;
	rc = plan_check_ahead(spec, e) || orders_write(sb->orders, spec, e) ||
			     (!sb->has_root && send_image(sb, &c, e)) ||
			     child_step(&c, &limits, step_limits, e) || send_command(sb, spec, e)
		     ? -1
		     : 0;
	child_close_copies(&c);
	fd_close(&sb->word);
	if (rc) {
		sandbox_kill(sb, SANDBOX_SETUP_FAILED, clock_mono_ns());
		if (!e->step[0])
			err_step(e, step_name(STEP_ORDERS));
	}
}
