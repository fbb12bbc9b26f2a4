/*
 * pratai-node: three kinds of process.
 *
 *   root, one thread:  settings, directories, programs opened ──► spawner (stays root)
 *                                                             ├─► keeper of images (stays root)
 *                                                             └─► driver: this process, which
 *   gives up root, then opens its loop, its sockets and its threads (ZeroMQ's).
 *
 * The driver ends when one of the others does (its supervisor starts all again, as a new
 * incarnation); they end when the driver does (the end of their socket).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/crypto.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/log.h"
#include "core/build/build.h"
#include "core/node/blob.h"
#include "core/node/config.h"
#include "core/node/images.h"
#include "core/node/keeper.h"
#include "netio/helper.h"
#include "core/node/launcher.h"
#include "core/node/layers.h"
#include "core/node/native.h"
#include "core/node/node.h"
#include "core/base/privileges.h"
#include "core/node/runtimes.h"
#include "netio/http_client.h"
#include "netio/loop.h"
#include "netio/mq.h"
#include "rootfs/image.h"
#include "rootfs/host.h"

enum { SPAWNER_END_MS = 3000, TMP_MIN_MIB = 1024 };

struct program {
	struct node_config config;
	pid_t parent;
	int state_fd, node_fd, tmp_fd, fetched_fd, layers_fd; /* DIR, its node, node/tmp, node/images, layers */
	int unpack_fd, self_fd;
	struct runtimes *runtimes;
	struct spawner spawner;
	struct keeper keeper;

	struct loop *loop;
	struct mq *mq;
	struct http_client *http;
	struct launcher *launcher;
	struct blobs *blobs;
	struct layers *layers;
	struct images *images;
	struct driver *driver;
	struct node *node;
	const char *lost; /* who has ended without an order */
};

/* ---- As root ---- */

/* DIR/path, owned by the driver's user; made if it is missing.  Its descriptor. */
static int
open_part(struct program *p, const char *path, mode_t mode, struct err *e)
{
	int fd;

	if (mkdirat(p->state_fd, path, mode) && errno != EEXIST)
		return err_sys(e, ERR_NODE, "make %s/%s", p->config.state, path);
	fd = openat(p->state_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fchown(fd, p->config.user, p->config.group) || fchmod(fd, mode)) {
		err_sys(e, ERR_NODE, "open %s/%s", p->config.state, path);
		fd_close(&fd);
	}
	return fd;
}

static int
open_state(struct program *p, struct err *e)
{
	p->state_fd = open(p->config.state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (p->state_fd < 0)
		return err_sys(e, ERR_NODE, "open %s", p->config.state);
	/* layers: 0755, since sandboxes read below it under ids of their own. */
	if ((p->node_fd = open_part(p, "node", 0700, e)) < 0 ||
	    (p->tmp_fd = open_part(p, "node/tmp", 0700, e)) < 0 ||
	    (p->fetched_fd = open_part(p, "node/images", 0700, e)) < 0 ||
	    (p->layers_fd = open_part(p, "layers", 0755, e)) < 0)
		return -1;
	p->unpack_fd = helper_open("pratai-unpack", e);
	if (p->unpack_fd < 0)
		return -1;
	p->self_fd = open("/proc/self/exe", O_PATH | O_CLOEXEC);
	return p->self_fd < 0 ? err_sys(e, ERR_NODE, "open /proc/self/exe") : 0;
}

static int
start_as_root(struct program *p, struct err *e)
{
	const struct node_config *c = &p->config;
	uint64_t tmp_mib = c->memory_mib > TMP_MIN_MIB ? c->memory_mib : TMP_MIN_MIB;
	struct spawner_config spawner = {
		.runtimes = c->runtimes,
		.instance = c->instance,
		.cgroup_root = c->cgroup_root,
		.image_ids = IMAGE_ID_BASE,
		.uid_base = c->uid_base,
		.slots = c->slots,
		.memory_max_bytes = c->memory_mib << 20,
		.tmp_max_bytes = tmp_mib << 20,
		.build_network = true,
		.egress = c->egress,
		.allow = &c->allow,
	};

	if (geteuid() != 0)
		return err_set(e, ERR_NODE, "must be started as root: it makes sandboxes");
	if (chdir("/") || privileges_raise_files(e))
		return e->cls ? -1 : err_sys(e, ERR_NODE, "chdir /");
	if (open_state(p, e))
		return -1;
	p->runtimes = runtimes_load(c->runtimes, e);
	if (!p->runtimes)
		return -1;
	spawner.store_fd = p->state_fd;
	if (host_prepare(p->state_fd, e))
		return -1;
	if (spawner_start(&spawner, &p->spawner, e)) {
		p->spawner = (struct spawner){ .fd = -1, .pidfd = -1 };
		return err_wrap(e, "spawner");
	}
	if (keeper_start(c->state, p->self_fd, p->unpack_fd, &p->keeper, e))
		return -1;
	/* Not before: sandboxes have the usual way. */
	signal(SIGPIPE, SIG_IGN);
	return privileges_drop(c->user, c->group, c->with_parent ? p->parent : 0, e);
}

/* ---- As the driver ---- */

static void
on_signal(void *arg, int signo)
{
	struct program *p = arg;

	log_info("ending", "signal", sigabbrev_np(signo), NULL);
	loop_stop(p->loop);
}

static void
on_spawner_gone(void *arg)
{
	struct program *p = arg;

	p->lost = "the spawner";
	loop_stop(p->loop);
}

static void
on_keeper_gone(void *arg)
{
	struct program *p = arg;

	p->lost = "the keeper of images";
	loop_stop(p->loop);
}

static int
start_loop(struct program *p, struct err *e)
{
	static const int signals[] = { SIGTERM, SIGINT, SIGHUP };

	p->loop = loop_new(e);
	for (size_t i = 0; p->loop && i < sizeof signals / sizeof *signals; i++)
		if (loop_signal(p->loop, signals[i], on_signal, p, e))
			return -1;
	p->mq = p->loop ? mq_new(p->loop, p->config.run_fd, e) : NULL;
	p->http = p->mq ? http_client_new(p->loop, e) : NULL;
	return p->http ? 0 : -1;
}

static int
start_driver(struct program *p, struct err *e)
{
	const struct node_config *c = &p->config;
	struct layers_config layers = { .loop = p->loop, .dir_fd = p->layers_fd,
					.unpack_fd = p->unpack_fd, .self_fd = p->self_fd,
					LAYERS_LIMITS };
	struct images_config images = { .loop = p->loop, .dir_fd = p->fetched_fd, .keeper = &p->keeper,
					.gone = on_keeper_gone, .arg = p, IMAGES_LIMITS };
	struct native_config native = { .loop = p->loop, .runtimes = p->runtimes,
					.tmp_fd = p->tmp_fd, .memory_mib = c->memory_mib,
					.slots = c->slots, .build_memory_mib = c->build_memory_mib,
					.build_timeout_s = c->build_timeout_s,
					.build = build_start };

	p->launcher = launcher_new(p->loop, &p->spawner, on_spawner_gone, p, e);
	p->blobs = p->launcher ? blobs_new(p->loop, p->http, c->join, c->token, p->tmp_fd, e) : NULL;
	layers.blobs = p->blobs;
	p->layers = p->blobs ? layers_new(&layers, e) : NULL;
	images.blobs = p->blobs;
	p->images = p->layers ? images_new(&images, e) : NULL;
	native.images = p->images;
	native.launcher = p->launcher;
	native.layers = p->layers;
	native.blobs = p->blobs;
	p->driver = p->images ? native_new(&native, e) : NULL;
	return p->driver ? 0 : -1;
}

static int
run(struct program *p, struct err *e)
{
	const struct node_config *c = &p->config;
	struct node_setup setup = { .spool_fd = p->node_fd, .runtimes = p->runtimes,
				    .join = c->join, .token = c->token, .name = c->name,
				    .slots = c->slots, .memory_mib = c->memory_mib,
				    .ready_fd = c->ready_fd };

	if (start_loop(p, e) || start_driver(p, e))
		return -1;
	setup.loop = p->loop;
	setup.mq = p->mq;
	setup.http = p->http;
	setup.driver = p->driver;
	p->node = node_new(&setup, e);
	if (!p->node || loop_run(p->loop, e))
		return -1;
	return p->lost ? err_set(e, ERR_NODE, "%s has ended", p->lost) : 0;
}

/* Sandboxes end with the spawner's socket; it is waited for, so that nothing of this
 * instance is left when this process has ended. */
static void
end_spawner(struct program *p)
{
	struct pollfd end = { .fd = p->spawner.pidfd, .events = POLLIN };

	if (p->spawner.pidfd < 0)
		return;
	fd_close(&p->spawner.fd);
	if (poll(&end, 1, SPAWNER_END_MS) == 1)
		waitpid(p->spawner.pid, NULL, 0);
	else
		log_error("the spawner does not end", NULL);
}

/* With its socket. */
static void
end_keeper(struct program *p)
{
	if (p->keeper.pid <= 0)
		return;
	fd_close(&p->keeper.fd);
	waitpid(p->keeper.pid, NULL, 0);
	fd_close(&p->keeper.pidfd);
}

static void
stop(struct program *p)
{
	if (p->driver)
		p->driver->ops->free(p->driver);
	node_free(p->node);
	layers_free(p->layers);
	images_free(p->images);
	blobs_free(p->blobs);
	launcher_free(p->launcher);
	if (p->http)
		http_client_free(p->http);
	if (p->mq)
		mq_free(p->mq);
	if (p->loop)
		loop_free(p->loop);
	end_keeper(p);
	end_spawner(p);
	runtimes_free(p->runtimes);
	node_config_free(&p->config);
}

int
main(int argc, char **argv)
{
	static struct program p = { .state_fd = -1, .node_fd = -1, .tmp_fd = -1, .layers_fd = -1,
				    .unpack_fd = -1, .self_fd = -1, .fetched_fd = -1,
				    .keeper = { .fd = -1, .pidfd = -1 },
				    .spawner = { .fd = -1, .pidfd = -1 } };
	struct err e = { 0 };
	int rc;

	if (fd_keep_standard(&e)) {
		fprintf(stderr, "pratai-node: %s\n", e.text);
		return 1;
	}
	if (argc == 3 && !strcmp(argv[1], LAYERS_REMOVE))
		return layers_remove_main(argv[2]);
	if (argc == 3 && !strcmp(argv[1], KEEPER_WORD))
		return keeper_main(argv[2]);
	p.parent = getppid();
	umask(022);
	if (crypto_init(&e) || (rc = node_config_read(&p.config, argc, argv, &e)) < 0) {
		fprintf(stderr, "pratai-node: %s\n", e.text);
		return e.cls == ERR_INPUT ? 2 : 1;
	}
	if (rc)
		return 0;
	log_open("node", (enum log_level)p.config.log_level);
	rc = start_as_root(&p, &e) || run(&p, &e);
	if (rc)
		log_err("the node ends", &e);
	stop(&p);
	return rc;
}
