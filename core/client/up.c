/*
 * `pratai up` holds what must outlive its children: the listening socket (no restart
 * closes the port), the locks and the directory of local sockets; and starts
 * pratai-control, then pratai-node, each of which says by one byte on a pipe that it
 * works.
 *
 * A child that ends is started again: at once when it had lived a second, later and later
 * (to one second) when not.  Only before the first `ready` is a child that exits by itself
 * the end of it all: its settings are wrong, and trying again would not help.
 *
 * Nothing survives this process: children ask the kernel for SIGKILL at its death, and what
 * they start is bound to them in the same way.
 */
#include "core/client/up.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/fdio.h"
#include "core/base/log.h"
#include "core/base/str.h"
#include "core/client/child.h"
#include "core/client/client.h"
#include "core/client/program.h"
#include "core/client/up_state.h"
#include "netio/http_client.h"
#include "netio/loop.h"

#define START_NS (60 * NS_PER_S)      /* until `ready`, or it is given up */
#define STOP_NS (5 * NS_PER_S)        /* from SIGTERM to SIGKILL */
#define LONG_LIFE_NS NS_PER_S         /* a child that lived so long starts again at once */
#define RESTART_FIRST_NS (200 * NS_PER_MS)
#define RESTART_MOST_NS NS_PER_S
#define READY_POLL_NS (20 * NS_PER_MS)

const struct opt up_options[] = {
	{ .name = "state", .arg = "DIR", .help = "where everything is kept", .flags = OPT_CONFIG,
	  .fallback = "/var/lib/pratai" },
	{ .name = "listen", .arg = "HOST:PORT", .help = "the only TCP port that is opened; 0: any",
	  .flags = OPT_CONFIG, .fallback = "127.0.0.1:9096" },
	{ .name = "store", .arg = "SPEC", .help = "sqlite:PATH (default: in the state directory)" },
	{ .name = "user", .arg = "UID[:GID]", .help = "whom the control plane becomes",
	  .flags = OPT_CONFIG },
	{ .name = "node-user", .arg = "UID[:GID]", .help = "whom the node's driver becomes",
	  .flags = OPT_CONFIG },
	{ .name = "slots", .arg = "N", .help = "sandboxes at a time" },
	{ .name = "memory", .arg = "MIB", .help = "for all sandboxes together" },
	{ .name = "runtimes", .arg = "DIR", .help = "the runtimes, instead of the installed ones",
	  .flags = OPT_CONFIG },
	{ .name = "log-level", .arg = "LEVEL", .help = "error, warning, info or debug",
	  .flags = OPT_CONFIG, .fallback = "info" },
	{ .name = "config", .arg = "FILE", .help = "settings (default /etc/pratai/pratai.conf)" },
	{ 0 }
};

/* Keys of pratai.conf that only the processes themselves read. */
static const char *const others[] = {
	"store", "roles", "slots", "memory", "name", "join", "join-token-file", "first-token-file",
	"build-memory", "build-timeout", "instance", "cgroup-root", "uid-base",
	"egress", "egress-allow",
	"retention", "payload-max", "body-memory", "connections", NULL,
};

enum { CONTROL, NODE, CHILDREN, ARGS_MAX = 40 };
enum child_state { CHILD_DOWN, CHILD_STARTING, CHILD_READY, CHILD_STOPPING };
enum up_phase { UP_STARTING, UP_RUNNING, UP_STOPPING };

struct up;

struct child {
	struct up *up;
	int which;
	const char *name;
	char path[PROGRAM_PATH_MAX];
	enum child_state state;
	pid_t pid;
	uint64_t started_ns, delay_ns;
	int ready_fd;
	struct loop_fd *ready_watch;
	struct loop_timer *restart;
};

struct up {
	struct opt_values *v;
	struct up_state state;
	struct loop *loop;
	struct http_client *http;
	struct loop_timer *deadline, *poll;
	struct child children[CHILDREN];
	enum up_phase phase;
	int listen_fd, exit_code;
	uint32_t uid[CHILDREN], gid[CHILDREN];
	char url[UP_URL_MAX];
	char runtimes[PROGRAM_PATH_MAX];
};

static void stop(struct up *up, int exit_code);

/* ---- a child's command line ---- */

struct args {
	char *v[ARGS_MAX + 1];
	size_t n;
};

static void
add_arg(struct args *a, const char *word)
{
	if (a->n < ARGS_MAX && (a->v[a->n] = strdup(word)))
		a->n++;
}

static void __attribute__((format(printf, 3, 4)))
add_option(struct args *a, const char *option, const char *fmt, ...)
{
	char *value = NULL;
	va_list list;

	va_start(list, fmt);
	if (vasprintf(&value, fmt, list) >= 0) {
		add_arg(a, option);
		add_arg(a, value);
	}
	va_end(list);
	free(value);
}

static void
free_args(struct args *a)
{
	for (size_t i = 0; i < a->n; i++)
		free(a->v[i]);
}

/* What was given to `up` itself for a child; the rest the child finds in the file and the
 * environment. */
static void
pass_on(const struct up *up, struct args *a, const char *name, const char *option)
{
	if (opt_given(up->v, name) && opt_get(up->v, name))
		add_option(a, option, "%s", opt_get(up->v, name));
}

static void
child_args(const struct child *c, struct args *a, int ready_fd)
{
	const struct up *up = c->up;

	add_arg(a, c->path);
	add_option(a, "--state", "%s", up->state.dir);
	add_option(a, "--run-fd", "%d", up->state.run_fd);
	add_option(a, "--ready-fd", "%d", ready_fd);
	add_option(a, "--join-token-file", "%s/join", up->state.dir);
	add_option(a, "--user", "%u:%u", up->uid[c->which], up->gid[c->which]);
	add_arg(a, "--with-parent");
	pass_on(up, a, "config", "--config");
	pass_on(up, a, "log-level", "--log-level");
	if (c->which == CONTROL) {
		add_option(a, "--listen-fd", "%d", up->listen_fd);
		add_option(a, "--first-token-file", "%s/token", up->state.dir);
		pass_on(up, a, "store", "--store");
	} else {
		add_option(a, "--join", "%s", up->url);
		add_option(a, "--instance", "%s", up->state.instance);
		add_option(a, "--runtimes", "%s", up->runtimes);
		pass_on(up, a, "slots", "--slots");
		pass_on(up, a, "memory", "--memory");
	}
}

/* ---- a child's life ---- */

static void on_child_end(void *arg, pid_t pid, int code, int status);

static void
forget_ready(struct child *c)
{
	loop_fd_remove(c->ready_watch);
	c->ready_watch = NULL;
	fd_close(&c->ready_fd);
}

static void start_child(struct child *c);

static void
on_child_ready(void *arg, uint32_t events)
{
	struct child *c = arg;
	struct up *up = c->up;
	char byte;
	ssize_t n = read(c->ready_fd, &byte, 1);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	forget_ready(c);
	if (n != 1 || c->state != CHILD_STARTING)
		return; /* closed without a word: it is ending, which is told elsewhere */
	c->state = CHILD_READY;
	log_debug("process is ready", "name", c->name, NULL);
	if (c->which == CONTROL && up->children[NODE].pid == 0 &&
	    !loop_timer_pending(up->children[NODE].restart))
		start_child(&up->children[NODE]);
	if (c->which == NODE && up->phase == UP_STARTING)
		loop_timer_after(up->poll, 0);
}

static void
restart_later(struct child *c)
{
	bool long_life = clock_mono_ns() - c->started_ns > LONG_LIFE_NS;

	if (long_life)
		c->delay_ns = 0;
	loop_timer_after(c->restart, c->delay_ns);
	c->delay_ns = c->delay_ns ? c->delay_ns * 2 : RESTART_FIRST_NS;
	if (c->delay_ns > RESTART_MOST_NS)
		c->delay_ns = RESTART_MOST_NS;
}

static void
start_child(struct child *c)
{
	struct up *up = c->up;
	int keep[CHILD_KEEP_MAX] = { -1, -1, -1, -1, -1, -1, -1, -1 };
	struct args args = { 0 };
	struct err e = { 0 };
	int ready[2] = { -1, -1 };

	c->started_ns = clock_mono_ns();
	c->state = CHILD_STARTING;
	if (pipe2(ready, O_CLOEXEC | O_NONBLOCK)) {
		err_sys(&e, ERR_NODE, "pipe");
		goto fail;
	}
	keep[0] = ready[1];
	keep[1] = up->state.run_fd;
	keep[2] = up->state.alive_fd;
	keep[3] = c->which == CONTROL ? up->listen_fd : -1;
	child_args(c, &args, ready[1]);
	c->pid = child_start(args.v, keep, &e);
	fd_close(&ready[1]);
	if (c->pid < 0)
		goto fail;
	c->ready_fd = ready[0];
	c->ready_watch = loop_fd_add(up->loop, c->ready_fd, EPOLLIN, on_child_ready, c, &e);
	if (!c->ready_watch || loop_child(up->loop, c->pid, on_child_end, c, &e))
		log_err("cannot watch a process", &e); /* it goes on, unwatched until it is stopped */
	free_args(&args);
	return;
fail:
	log_err("cannot start a process", &e);
	free_args(&args);
	fd_close(&ready[0]);
	fd_close(&ready[1]);
	c->pid = 0;
	c->state = CHILD_DOWN;
	if (up->phase == UP_STARTING)
		stop(up, CLIENT_REFUSED);
	else
		restart_later(c);
}

static void
on_restart(void *arg)
{
	struct child *c = arg;

	if (c->up->phase != UP_STOPPING && c->pid == 0)
		start_child(c);
}

static void
stop_next(struct up *up)
{
	for (int i = CHILDREN - 1; i >= 0; i--) { /* the node before the control plane */
		struct child *c = &up->children[i];

		loop_timer_clear(c->restart);
		if (c->pid == 0)
			continue;
		c->state = CHILD_STOPPING;
		kill(c->pid, SIGTERM);
		loop_timer_after(up->deadline, STOP_NS);
		return;
	}
	loop_stop(up->loop);
}

static void
on_child_end(void *arg, pid_t pid, int code, int status)
{
	struct child *c = arg;
	struct up *up = c->up;
	bool was_starting = c->state == CHILD_STARTING;
	char number[16];

	(void)pid;
	forget_ready(c);
	c->pid = 0;
	c->state = CHILD_DOWN;
	if (up->phase == UP_STOPPING) {
		stop_next(up);
		return;
	}
	snprintf(number, sizeof number, "%d", status);
	log_warning("process ended", "name", c->name, code == CLD_EXITED ? "exit" : "signal", number,
		    NULL);
	if (up->phase == UP_STARTING && was_starting && code == CLD_EXITED) {
		fprintf(stderr, "pratai: %s did not start: it ended with exit code %d (its reason is above)\n",
			c->name, status);
		/* The children's codes are ours: 2 says that a setting is wrong. */
		stop(up, status == CLIENT_USAGE ? CLIENT_USAGE : CLIENT_REFUSED);
		return;
	}
	restart_later(c);
}

/* ---- the whole ---- */

static void
stop(struct up *up, int exit_code)
{
	if (up->phase == UP_STOPPING)
		return;
	up->phase = UP_STOPPING;
	up->exit_code = exit_code;
	loop_timer_clear(up->poll);
	stop_next(up);
}

static void
on_signal(void *arg, int signo)
{
	struct up *up = arg;

	(void)signo;
	if (up->phase == UP_STOPPING) { /* asked twice: no more patience */
		for (int i = 0; i < CHILDREN; i++)
			if (up->children[i].pid > 0)
				kill(up->children[i].pid, SIGKILL);
		return;
	}
	stop(up, CLIENT_OK);
}

static void
on_deadline(void *arg)
{
	struct up *up = arg;

	if (up->phase == UP_STARTING) {
		fprintf(stderr, "pratai: not ready after %llu s: see the log above\n", START_NS / NS_PER_S);
		stop(up, CLIENT_REFUSED);
	} else if (up->phase == UP_STOPPING) {
		for (int i = 0; i < CHILDREN; i++) {
			if (up->children[i].state != CHILD_STOPPING || up->children[i].pid <= 0)
				continue;
			log_warning("process does not end: killed", "name", up->children[i].name, NULL);
			kill(up->children[i].pid, SIGKILL);
		}
	}
}

static void
announce(struct up *up)
{
	char line[UP_URL_MAX + 16];
	struct err e = { 0 };
	int n;

	if (up_state_write_env(&up->state, up->url, &e)) {
		client_fail(&e);
		stop(up, CLIENT_REFUSED);
		return;
	}
	up->phase = UP_RUNNING;
	loop_timer_clear(up->deadline);
	n = snprintf(line, sizeof line, "ready %s\n", up->url);
	if (fd_write_all(STDOUT_FILENO, line, (size_t)n))
		log_warning("cannot write to stdout", NULL); /* nobody reads it; serve nevertheless */
}

static void
on_readyz(void *arg, const struct http_answer *a, const struct err *e)
{
	struct up *up = arg;

	(void)e;
	if (up->phase != UP_STARTING)
		return;
	if (a && a->status == 200)
		announce(up);
	else
		loop_timer_after(up->poll, READY_POLL_NS);
}

static void
on_poll(void *arg)
{
	struct up *up = arg;
	struct err e = { 0 };
	char url[UP_URL_MAX + 16];

	snprintf(url, sizeof url, "%s/readyz", up->url);
	if (!http_client_ask(up->http, &(struct http_ask){
			.method = "GET", .url = url, .body_fd = -1, .out_fd = -1,
			.total_ns = 5 * NS_PER_S }, on_readyz, up, &e))
		loop_timer_after(up->poll, READY_POLL_NS);
}

/* "UID[:GID]", without powers; the gid is the uid's number when it is not given. */
static int
parse_user(const char *option, const char *text, uint32_t missing, uint32_t *uid, uint32_t *gid,
	   struct err *e)
{
	char number[16] = "";
	const char *colon = text ? strchr(text, ':') : NULL;
	int64_t u = missing, g = missing;

	if (text) {
		size_t len = colon ? (size_t)(colon - text) : strlen(text);

		if (len < sizeof number)
			memcpy(number, text, len);
		if (str_int(number, 1, UINT32_MAX - 1, &u))
			return err_set(e, ERR_INPUT, "--%s: '%.40s' is not UID[:GID], numbers from 1",
				       option, text);
		g = u;
		if (colon && str_int(colon + 1, 1, UINT32_MAX - 1, &g))
			return err_set(e, ERR_INPUT, "--%s: '%.40s' is not UID[:GID], numbers from 1",
				       option, text);
	}
	*uid = (uint32_t)u;
	*gid = (uint32_t)g;
	return 0;
}

/* A terminal that closes ends it like the others, unless nohup(1) said that it must not. */
static int
watch_signals(struct up *up, struct err *e)
{
	struct sigaction now;

	if (loop_signal(up->loop, SIGTERM, on_signal, up, e) ||
	    loop_signal(up->loop, SIGINT, on_signal, up, e))
		return -1;
	if (!sigaction(SIGHUP, NULL, &now) && now.sa_handler == SIG_IGN)
		return 0;
	return loop_signal(up->loop, SIGHUP, on_signal, up, e);
}

static int
open_loop(struct up *up, struct err *e)
{
	up->loop = loop_new(e);
	if (!up->loop)
		return -1;
	up->http = http_client_new(up->loop, e);
	up->deadline = loop_timer_add(up->loop, on_deadline, up, e);
	up->poll = loop_timer_add(up->loop, on_poll, up, e);
	if (!up->http || !up->deadline || !up->poll || watch_signals(up, e))
		return -1;
	for (int i = 0; i < CHILDREN; i++) {
		struct child *c = &up->children[i];

		c->up = up;
		c->which = i;
		c->name = i == CONTROL ? "pratai-control" : "pratai-node";
		c->ready_fd = -1;
		c->restart = loop_timer_add(up->loop, on_restart, c, e);
		if (!c->restart || program_find(c->name, c->path, e))
			return -1;
	}
	if (!opt_get(up->v, "runtimes"))
		return program_find("runtimes", up->runtimes, e);
	return str_copy(up->runtimes, sizeof up->runtimes, opt_get(up->v, "runtimes"))
		       ? err_set(e, ERR_INPUT, "--runtimes: too long")
		       : 0;
}

static int
prepare(struct up *up, struct err *e)
{
	struct opt_values *v = up->v;
	const char *config = opt_get(v, "config");
	int level;

	if (geteuid() != 0)
		return err_set(e, ERR_DENIED, "up makes sandboxes for others and needs root");
	if (opt_config(v, config ? config : "/etc/pratai/pratai.conf", config != NULL, others, e))
		return -1;
	level = log_level_parse(opt_get(v, "log-level"));
	if (level < 0)
		return err_set(e, ERR_INPUT, "--log-level: '%.40s' is not a level",
			       opt_get(v, "log-level"));
	log_open("up", (enum log_level)level);
	if (parse_user("user", opt_get(v, "user"), UP_CONTROL_UID, &up->uid[CONTROL],
		       &up->gid[CONTROL], e) ||
	    parse_user("node-user", opt_get(v, "node-user"), UP_NODE_UID, &up->uid[NODE],
		       &up->gid[NODE], e))
		return -1;
	if (up->uid[CONTROL] == up->uid[NODE])
		return err_set(e, ERR_INPUT, "--user and --node-user: both %u; one that is taken over must "
			       "not rule the other", up->uid[NODE]);
	if (up_state_open(&up->state, opt_get(v, "state"), up->uid[CONTROL], up->gid[NODE], e))
		return -1;
	up->listen_fd = up_listen(opt_get(v, "listen"), up->url, e);
	return up->listen_fd < 0 ? -1 : open_loop(up, e);
}

static void
finish(struct up *up)
{
	if (up->http)
		http_client_free(up->http);
	if (up->loop)
		loop_free(up->loop);
	fd_close(&up->listen_fd);
	up_state_close(&up->state);
	opt_free(up->v);
	free(up);
}

int
cmd_up(struct client *c)
{
	struct up *up = calloc(1, sizeof *up);
	struct err e = { 0 };
	int rc;

	if (!up)
		return CLIENT_REFUSED;
	up->v = &c->v;
	up->listen_fd = -1;
	up->state.dir_fd = up->state.lock_fd = up->state.alive_fd = up->state.run_fd = -1;
	if (prepare(up, &e)) {
		finish(up);
		return client_fail(&e);
	}
	loop_timer_after(up->deadline, START_NS);
	loop_timer_after(up->children[CONTROL].restart, 0);
	rc = loop_run(up->loop, &e) ? client_fail(&e) : up->exit_code;
	finish(up);
	return rc;
}
