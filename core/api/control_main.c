/*
 * pratai-control: the control plane, in one process with one loop.
 *
 * In the order of time: settings; as root, directories and sockets are opened; root is
 * given up for good; then the store, the scheduler, the API.  From the second step on
 * nothing is reached but what is open.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/agent/agent.h"
#include "core/api/api.h"
#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/crypto.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/log.h"
#include "core/base/opt.h"
#include "core/base/privileges.h"
#include "core/base/str.h"
#include "core/scheduler/scheduler.h"
#include "netio/helper.h"
#include "netio/loop.h"
#include "netio/mq.h"
#include "store/store.h"

enum { DEFAULT_ID = 1878982657, SECRET_MAX = 4096 };
enum { STORE_SPEC_MAX = 512 };
enum { RETENTION_PASS_S = 60, RETENTION_PAGE = 1000 };

static const struct opt options[] = {
	{ "state", 0, "DIR", "where everything is kept", OPT_CONFIG, "/var/lib/pratai" },
	{ "store", 0, "SPEC", "sqlite: or sqlite:PATH (a bare name is in the state directory)", OPT_CONFIG, "sqlite:" },
	{ "listen", 0, "HOST:PORT", "where HTTP is served", OPT_CONFIG, "127.0.0.1:9096" },
	{ "listen-fd", 0, "N", "an inherited listening socket instead", 0, NULL },
	{ "run-fd", 0, "N", "an inherited directory for local sockets (default STATE/run)", 0, NULL },
	{ "roles", 0, "ROLE,...", "api, agent, scheduler; SQLite wants all in one process", OPT_CONFIG,
	  "api,agent,scheduler" },
	{ "user", 0, "UID[:GID]", "whom to become", OPT_CONFIG, "1878982657" },
	{ "join-token-file", 0, "FILE", "the secret that nodes show", OPT_CONFIG, NULL },
	{ "first-token-file", 0, "FILE", "the secret of the first token", OPT_CONFIG, NULL },
	{ "retention", 0, "TIME", "how long ended events are kept", OPT_CONFIG, "168h" },
	{ "payload-max", 0, "SIZE", "the largest payload", OPT_CONFIG, "6M" },
	{ "body-memory", 0, "SIZE", "larger bodies go to disk", OPT_CONFIG, "256K" },
	{ "connections", 0, "N", "the most at a time", OPT_CONFIG, "20000" },
	{ "build-memory", 0, "MIB", "what a build counts as", OPT_CONFIG, "1024" },
	{ "ready-fd", 0, "N", "gets one byte when requests are served", 0, NULL },
	{ "with-parent", 0, NULL, "end when the parent process does", 0, NULL },
	{ "log-level", 0, "LEVEL", "error, warning, info or debug", OPT_CONFIG, "info" },
	{ "config", 0, "FILE", "settings (default /etc/pratai/pratai.conf)", 0, NULL },
	{ "print-config", 0, NULL, "show the settings in force, and end", 0, NULL },
	{ "help", 'h', NULL, "show this, and end", 0, NULL },
	{ "version", 0, NULL, "show the version, and end", 0, NULL },
	{ NULL, 0, NULL, NULL, 0, NULL },
};

/* Keys of pratai.conf that other programs read. */
static const char *const other_keys[] = {
	"node-user", "join", "name", "slots", "memory", "instance", "cgroup-root",
	"runtimes", "build-timeout", "uid-base", "egress", "egress-allow", NULL,
};

struct control {
	struct opt_values v;
	bool api, agent, scheduler_role;
	pid_t parent;
	uid_t uid;
	gid_t gid;
	uint64_t retention_ns, payload_max, body_memory;
	int64_t connections, build_memory;
	int state_fd, store_fd, run_fd, listen_fd, ready_fd, unpack_fd;
	char store_spec[STORE_SPEC_MAX]; /* as store_open wants it: a name in store_fd */
	char join_token[SECRET_MAX], first_token[SECRET_MAX];
	int64_t started_us;
	struct loop *loop;
	struct mq *mq;
	struct store *store;
	struct scheduler *scheduler;
	struct api *api_role;
	struct agent *agent_role;
	struct loop_timer *retention;
};

static void
die(const struct err *e, int code)
{
	fprintf(stderr, "pratai-control: %s\n", e->text);
	exit(code);
}

/* ---- settings ---- */

static int
read_user(struct control *c, const char *text, struct err *e)
{
	char uid[24];
	const char *colon = strchr(text, ':');
	int64_t number;

	if (str_copy(uid, sizeof uid, text))
		return err_set(e, ERR_INPUT, "user: '%.40s' is not UID[:GID]", text);
	if (colon)
		uid[colon - text] = '\0';
	if (str_int(uid, 1, UINT32_MAX - 1, &number))
		return err_set(e, ERR_INPUT, "user: '%.40s' is not UID[:GID], and not root", text);
	c->uid = (uid_t)number;
	c->gid = (gid_t)number;
	if (colon && str_int(colon + 1, 1, UINT32_MAX - 1, &number))
		return err_set(e, ERR_INPUT, "user: '%.40s' is not UID[:GID], and not root", text);
	c->gid = (gid_t)number;
	return 0;
}

static int
read_roles(struct control *c, const char *text, struct err *e)
{
	char *copy = strdup(text), *save = NULL;
	int rc = 0;

	for (char *role = copy ? strtok_r(copy, ",", &save) : NULL; role; role = strtok_r(NULL, ",", &save)) {
		if (!strcmp(role, "api"))
			c->api = true;
		else if (!strcmp(role, "agent"))
			c->agent = true;
		else if (!strcmp(role, "scheduler"))
			c->scheduler_role = true;
		else
			rc = err_set(e, ERR_INPUT, "roles: '%.40s' is none of api, agent, scheduler", role);
	}
	free(copy);
	if (rc)
		return rc;
	if (!c->api && !c->agent && !c->scheduler_role)
		return err_set(e, ERR_INPUT, "roles: none given");
	/* One process may write to a SQLite store. */
	if (!c->scheduler_role)
		return err_set(e, ERR_INPUT, "roles: with a sqlite: store the scheduler must be in this process");
	return 0;
}

static int
read_secret(const char *file, char out[SECRET_MAX], struct err *e)
{
	struct buf text = { 0 };
	int rc;

	out[0] = '\0';
	if (!file)
		return 0;
	rc = file_slurp(AT_FDCWD, file, SECRET_MAX - 1, &text, e);
	if (rc == 0) {
		size_t len = strcspn(text.data ? text.data : "", "\r\n");

		if (len == 0)
			rc = err_set(e, ERR_INPUT, "%s: empty", file);
		else
			snprintf(out, SECRET_MAX, "%.*s", (int)len, text.data);
	}
	buf_free(&text);
	return rc;
}

static int
read_settings(struct control *c, struct err *e)
{
	const struct opt_values *v = &c->v;

	if (read_user(c, opt_get(v, "user"), e) || read_roles(c, opt_get(v, "roles"), e))
		return -1;
	if (str_duration("retention", opt_get(v, "retention"), NS_PER_S, 10ull * 365 * 86400 * NS_PER_S,
			 &c->retention_ns, e))
		return -1;
	if (str_size("payload-max", opt_get(v, "payload-max"), 1 << 10, 64 << 20, &c->payload_max, e) ||
	    str_size("body-memory", opt_get(v, "body-memory"), 4 << 10, 64 << 20, &c->body_memory, e))
		return -1;
	if (str_int(opt_get(v, "connections"), 16, 1000000, &c->connections))
		return err_set(e, ERR_INPUT, "connections: 16 to 1000000");
	if (str_int(opt_get(v, "build-memory"), 64, 1 << 20, &c->build_memory))
		return err_set(e, ERR_INPUT, "build-memory: 64 to 1048576 (MiB)");
	if (log_level_parse(opt_get(v, "log-level")) < 0)
		return err_set(e, ERR_INPUT, "log-level: '%.40s' is none of error, warning, info, debug",
			       opt_get(v, "log-level"));
	if (strncmp(opt_get(v, "store"), "sqlite:", 7))
		return err_set(e, ERR_INPUT, "store: '%.80s': only sqlite: is supported by this version",
			       opt_get(v, "store"));
	if (read_secret(opt_get(v, "join-token-file"), c->join_token, e) ||
	    read_secret(opt_get(v, "first-token-file"), c->first_token, e))
		return -1;
	return 0;
}

/* ---- as root: what is opened before root is given up ---- */

static int
inherited_fd(const struct opt_values *v, const char *name, int *fd, struct err *e)
{
	const char *text = opt_get(v, name);
	int64_t number;

	*fd = -1;
	if (!text)
		return 0;
	if (str_int(text, 3, 1 << 20, &number) || fcntl((int)number, F_SETFD, FD_CLOEXEC))
		return err_set(e, ERR_INPUT, "%s: '%.20s' is not an open descriptor", name, text);
	*fd = (int)number;
	return 0;
}

/* STATE/control belongs to the user that we become; what is above may be root's alone. */
static int
open_state(struct control *c, struct err *e)
{
	const char *dir = opt_get(&c->v, "state");
	CLEAN_FD int top = -1;

	if (mkdir(dir, 0700) && errno != EEXIST)
		return err_sys(e, ERR_NODE, "make %s", dir);
	top = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (top < 0)
		return err_sys(e, ERR_NODE, "open %s", dir);
	if (mkdirat(top, "control", 0700) && errno != EEXIST)
		return err_sys(e, ERR_NODE, "make %s/control", dir);
	c->state_fd = openat(top, "control", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (c->state_fd < 0)
		return err_sys(e, ERR_NODE, "open %s/control", dir);
	if (geteuid() == 0 && (fchown(c->state_fd, c->uid, c->gid) || fchmod(c->state_fd, 0700)))
		return err_sys(e, ERR_NODE, "give %s/control to user %u", dir, c->uid);
	if (c->run_fd >= 0)
		return 0;
	if (mkdirat(top, "run", 0750) && errno != EEXIST)
		return err_sys(e, ERR_NODE, "make %s/run", dir);
	c->run_fd = openat(top, "run", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (c->run_fd < 0)
		return err_sys(e, ERR_NODE, "open %s/run", dir);
	if (geteuid() == 0 && fchown(c->run_fd, c->uid, c->gid))
		return err_sys(e, ERR_NODE, "give %s/run to user %u", dir, c->uid);
	return 0;
}

/*
 * The store's directory: ours, or that of sqlite:PATH, which is made if it is missing and
 * must otherwise belong to the user that we become already: nobody's directory is taken.
 */
static int
open_store_dir(struct control *c, struct err *e)
{
	const char *path = opt_get(&c->v, "store") + strlen("sqlite:"), *slash = strrchr(path, '/');
	CLEAN_FREE char *dir = slash ? strndup(path, slash > path ? (size_t)(slash - path) : 1) : NULL;
	struct stat st;

	if (snprintf(c->store_spec, sizeof c->store_spec, "sqlite:%s", slash ? slash + 1 : path) >=
	    (int)sizeof c->store_spec)
		return err_set(e, ERR_INPUT, "store: the name is too long");
	if (!slash) {
		c->store_fd = c->state_fd;
		return 0;
	}
	if (mkdir(dir, 0700) == 0) {
		if (geteuid() == 0 && chown(dir, c->uid, c->gid))
			return err_sys(e, ERR_NODE, "give %s to user %u", dir, c->uid);
	} else if (errno != EEXIST) {
		return err_sys(e, ERR_NODE, "make %s", dir);
	}
	c->store_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (c->store_fd < 0 || fstat(c->store_fd, &st))
		return err_sys(e, ERR_NODE, "open %s", dir);
	if (geteuid() == 0 && st.st_uid != c->uid)
		return err_set(e, ERR_INPUT, "store: %s must belong to user %u (chown), or not be there yet",
			       dir, c->uid);
	return 0;
}

static int
open_listener(struct control *c, struct err *e)
{
	const char *address = opt_get(&c->v, "listen"), *colon = strrchr(address, ':');
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
				  .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE };
	struct addrinfo *found = NULL;
	char host[128];
	int one = 1, rc;

	if (c->listen_fd >= 0 || !c->api)
		return 0;
	if (!colon || (size_t)(colon - address) >= sizeof host)
		return err_set(e, ERR_INPUT, "listen: '%.80s' is not HOST:PORT", address);
	snprintf(host, sizeof host, "%.*s", (int)(colon - address), address);
	if (host[0] == '[' && host[strlen(host) - 1] == ']') {
		host[strlen(host) - 1] = '\0';
		memmove(host, host + 1, strlen(host));
	}
	rc = getaddrinfo(host, colon + 1, &hints, &found);
	if (rc)
		return err_set(e, ERR_INPUT, "listen: '%.80s': %s", address, gai_strerror(rc));
	c->listen_fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->listen_fd < 0 || setsockopt(c->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) ||
	    bind(c->listen_fd, found->ai_addr, found->ai_addrlen) || listen(c->listen_fd, 4096))
		rc = err_sys(e, ERR_NODE, "listen on %.80s", address);
	freeaddrinfo(found);
	return rc;
}

/* ---- running ---- */

static void
on_signal(void *arg, int signo)
{
	struct control *c = arg;

	(void)signo;
	log_info("ending", NULL);
	loop_stop(c->loop);
}

static void
on_function_changed(void *arg, const struct id *function)
{
	struct control *c = arg;

	if (c->api_role)
		api_function_changed(c->api_role, function);
	if (c->agent_role)
		agent_function_changed(c->agent_role, function);
}

static void
on_expired(void *arg, const struct store_answer *a, const struct err *e)
{
	struct control *c = arg;

	if (e)
		log_err("old events could not be removed", e);
	/* A full page: there are more. */
	loop_timer_after(c->retention, !e && a->len >= RETENTION_PAGE ? NS_PER_MS * 50
								      : RETENTION_PASS_S * NS_PER_S);
}

static void
on_retention(void *arg)
{
	struct control *c = arg;
	int64_t before = clock_real_us() - (int64_t)(c->retention_ns / NS_PER_US);

	store_event_expire(c->store, before, RETENTION_PAGE, on_expired, c);
}

static void
on_first_token(void *arg, const struct err *e)
{
	struct control *c = arg;

	if (e)
		die(e, 1);
	if (c->ready_fd >= 0) {
		if (write(c->ready_fd, "1", 1) != 1)
			log_warning("nobody waits for the ready byte", NULL);
		fd_close(&c->ready_fd);
	}
	log_info("serving", NULL);
}

static int
start_roles(struct control *c, struct err *e)
{
	struct scheduler_config scheduler = {
		.loop = c->loop, .mq = c->mq, .store = c->store,
		.events = "inproc://events", .dispatch = "ipc:dispatch", .collect = "ipc:collect",
		.build_memory_mib = (uint32_t)c->build_memory,
		.function_changed = on_function_changed, .arg = c,
	};
	struct api_config api = {
		.loop = c->loop, .mq = c->mq, .store = c->store, .events = "inproc://events",
		.listen_fd = c->listen_fd, .spool_fd = c->state_fd,
		.join_token = c->join_token, .unpack_fd = c->unpack_fd,
		.roles = opt_get(&c->v, "roles"),
		.payload_max = c->payload_max, .body_memory_bytes = c->body_memory,
		.connections_max = (unsigned)c->connections, .started_us = c->started_us,
	};
	struct agent_config agent = { .loop = c->loop, .mq = c->mq, .store = c->store,
				      .events = "inproc://events" };

	if (c->scheduler_role && !(c->scheduler = scheduler_new(&scheduler, e)))
		return -1;
	api.scheduler = c->scheduler;
	if (c->api && !(c->api_role = api_new(&api, e)))
		return -1;
	if (c->agent && !(c->agent_role = agent_new(&agent, e)))
		return -1;
	c->retention = loop_timer_add(c->loop, on_retention, c, e);
	if (!c->retention)
		return -1;
	loop_timer_after(c->retention, RETENTION_PASS_S * NS_PER_S);
	if (c->first_token[0])
		api_first_token(c->store, c->first_token, on_first_token, c);
	else
		on_first_token(c, NULL);
	return 0;
}

static int
run(struct control *c, struct err *e)
{
	int rc;

	c->loop = loop_new(e);
	if (!c->loop || loop_signal(c->loop, SIGTERM, on_signal, c, e) ||
	    loop_signal(c->loop, SIGINT, on_signal, c, e))
		return -1;
	signal(SIGPIPE, SIG_IGN);
	c->mq = mq_new(c->loop, c->run_fd, e);
	c->store = c->mq ? store_open(c->store_spec, c->store_fd, c->loop, e) : NULL;
	if (!c->store || start_roles(c, e))
		return -1;
	rc = loop_run(c->loop, e);
	/* First: it completes what was asked for, and those who asked must still be there. */
	store_close(c->store);
	api_free(c->api_role);
	agent_free(c->agent_role);
	loop_timer_remove(c->retention);
	scheduler_free(c->scheduler);
	mq_free(c->mq);
	loop_free(c->loop);
	return rc;
}

static void
usage(void)
{
	puts("usage: pratai-control [OPTIONS]\n\n"
	     "The control plane of Pratai: API, agent and scheduler.  See pratai-control(8).\n");
	opt_print_help(options);
}

int
main(int argc, char **argv)
{
	static struct control c = { .state_fd = -1, .run_fd = -1, .listen_fd = -1, .ready_fd = -1 };
	const char *config;
	struct err e = { 0 };

	if (fd_keep_standard(&e))
		die(&e, 1);
	c.started_us = clock_real_us();
	if (opt_parse(&c.v, options, argc, argv, 1, false, &e))
		die(&e, 2);
	if (c.v.operand_count) {
		err_set(&e, ERR_INPUT, "unexpected word '%.80s'", c.v.operands[0]);
		die(&e, 2);
	}
	if (opt_given(&c.v, "help"))
		return usage(), 0;
	if (opt_given(&c.v, "version"))
		return puts("pratai-control " PRATAI_VERSION), 0;
	config = opt_get(&c.v, "config");
	if (opt_config(&c.v, config ? config : "/etc/pratai/pratai.conf", config != NULL, other_keys, &e))
		die(&e, 2);
	if (opt_given(&c.v, "print-config"))
		return opt_print_config(&c.v), 0;
	if (read_settings(&c, &e))
		die(&e, 2);
	log_open("control", (enum log_level)log_level_parse(opt_get(&c.v, "log-level")));
	c.parent = opt_given(&c.v, "with-parent") ? getppid() : 0;
	umask(077);
	if (inherited_fd(&c.v, "listen-fd", &c.listen_fd, &e) ||
	    inherited_fd(&c.v, "run-fd", &c.run_fd, &e) ||
	    inherited_fd(&c.v, "ready-fd", &c.ready_fd, &e) || open_state(&c, &e) ||
	    open_store_dir(&c, &e) ||
	    open_listener(&c, &e) || (c.unpack_fd = helper_open("pratai-unpack", &e)) < 0 ||
	    privileges_raise_files(&e))
		die(&e, 1);
	if (geteuid() == 0 && privileges_drop(c.uid, c.gid, c.parent, &e))
		die(&e, 1);
	if (crypto_init(&e) || run(&c, &e))
		die(&e, 1);
	opt_free(&c.v);
	return 0;
}
