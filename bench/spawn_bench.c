/*
 * Times sandboxes as a node makes them: a warm spawner, asked by messages.  As root.
 *
 *   spawn_bench SPAWNER RUNTIMES STORE [egress]
 *
 * STORE is an empty directory; the layer of STORE/layers/sha256/aa…a is what launch.py put
 * there.  A line "true 8" on standard input asks for eight sandboxes of /bench/true at once
 * ("python": /usr/bin/python3 -c pass; "true 8 egress": with that network, for a spawner that
 * may give it; "@NAME 1": of /bench/true on the store's image NAME) and is answered by one
 * line of JSON:
 *
 *   us        from just before each request is sent until its result is read: by then no
 *             process of that sandbox is left
 *   setup_us  from the request's arrival at the spawner to just before exec, as it says
 *   all_us    from the first request to the last result
 *   steps     of the last sandbox, as the spawner says
 *
 * So whoever measures decides about pauses and about what else runs in between.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "rootfs/host.h"
#include "rootfs/image.h"
#include "rootfs/store.h"
#include "sandbox/spawner.h"

enum { AT_ONCE_MAX = 256, UID_BASE = 0x7a000000, WAIT_MS = 30000 };
#define LAYER "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static struct spawner spawner;
static const char *root; /* of the store */

static _Noreturn void
die(const char *what, const struct err *e)
{
	fprintf(stderr, "spawn_bench: %s: %s\n", what, e ? e->text : strerror(errno));
	exit(1);
}

static void
start(char **argv, bool egress)
{
	char instance[17];
	int store = open(argv[3], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct err e = { 0 };
	struct spawner_config c = {
		.store_fd = store,
		.runtimes = argv[2],
		.instance = instance,
		.uid_base = UID_BASE,
		.slots = AT_ONCE_MAX,
		.memory_max_bytes = 1ull << 30,
		.tmp_max_bytes = 1ull << 30,
		.egress = egress,
		.program = argv[1],
	};

	snprintf(instance, sizeof instance, "bench%d", (int)getpid());
	if (store < 0)
		die(argv[3], NULL);
	if (host_prepare(store, &e))
		die("host image", &e);
	if (spawner_start(&c, &spawner, &e))
		die("start", &e);
}

/* The layers of the store's image, as a node names them to its spawner. */
static const struct spawn_image *
find_image(const char *name)
{
	static struct spawn_image found;
	static struct image image; /* large */
	struct image_store store;
	struct err e = { 0 };

	if (image_store_open(&store, root, STORE_READ, NULL, &e) || store_image(&store, name, &image, &e))
		die(name, &e);
	found.layer_count = 0;
	for (unsigned k = image.layer_count; k-- > image.base;)
		memcpy(found.layers[found.layer_count++], image.layers[k].key, sizeof found.layers[0]);
	image_free(&image);
	image_store_close(&store);
	return &found;
}

static void
ask(const char *command, const struct spawn_image *image, enum spawn_network network, uint64_t tag)
{
	static const char *const native[] = { "/bench/true", NULL };
	static const char *const python[] = { "/usr/bin/python3", "-c", "pass", NULL };
	static const char *const env[] = { "PATH=/usr/bin", "HOME=/tmp", "LANG=C.UTF-8", NULL };
	struct spawn_request r = {
		.tag = tag,
		.image = image,
		.layers = { LAYER },
		.layer_count = image ? 0 : 1,
		.argv = strcmp(command, "python") ? native : python,
		.envp = env,
		.workdir = "/",
		.memory_bytes = 64 << 20,
		.tmp_bytes = 64 << 20,
		.timeout_ns = 30 * NS_PER_S,
		.cpu_millis = 1000,
		.pids = 64,
		.network = network,
		.stdio = { -1, -1, -1 },
		.channel = -1,
	};
	struct err e = { 0 };

	while (spawner_request(&spawner, &r, &e)) {
		struct pollfd room = { .fd = spawner.fd, .events = POLLOUT };

		if (e.cls != ERR_AGAIN)
			die("request", &e);
		poll(&room, 1, WAIT_MS);
	}
}

static void
hear(struct spawn_result *out)
{
	struct err e = { 0 };
	int rc;

	while ((rc = spawner_result(&spawner, out, &e)) == 0) {
		struct pollfd answer = { .fd = spawner.fd, .events = POLLIN };

		if (poll(&answer, 1, WAIT_MS) == 0) {
			err_set(&e, ERR_NODE, "no result in time");
			die("result", &e);
		}
	}
	if (rc < 0)
		die("result", &e);
	if (out->reason != SPAWN_EXITED || out->code != 0) {
		err_set(&e, ERR_NODE, "reason %d, code %d: %s", out->reason, out->code, out->text);
		die("sandbox", &e);
	}
}

static void
burst(const char *command, enum spawn_network network, unsigned count)
{
	static uint64_t asked[AT_ONCE_MAX], us[AT_ONCE_MAX];
	static uint32_t setup_us[AT_ONCE_MAX];
	struct spawn_result r = { 0 };
	const struct spawn_image *image = *command == '@' ? find_image(command + 1) : NULL;
	uint64_t first = clock_mono_ns(), last;

	for (unsigned i = 0; i < count; i++) {
		asked[i] = clock_mono_ns();
		ask(command, image, network, i);
	}
	for (unsigned i = 0; i < count; i++) {
		hear(&r);
		us[r.tag] = (clock_mono_ns() - asked[r.tag]) / NS_PER_US;
		setup_us[r.tag] = r.setup_us;
	}
	last = clock_mono_ns();
	printf("{\"all_us\": %llu, \"us\": [", (unsigned long long)((last - first) / NS_PER_US));
	for (unsigned i = 0; i < count; i++)
		printf("%s%llu", i ? ", " : "", (unsigned long long)us[i]);
	printf("], \"setup_us\": [");
	for (unsigned i = 0; i < count; i++)
		printf("%s%u", i ? ", " : "", setup_us[i]);
	printf("], \"steps\": {");
	for (unsigned i = 0; i < r.step_count; i++)
		printf("%s\"%s\": %u", i ? ", " : "", r.steps[i].name, r.steps[i].us);
	printf("}}\n");
	fflush(stdout);
}

int
main(int argc, char **argv)
{
	char line[64], command[16], network[16];
	unsigned count;

	if (argc != 4 && (argc != 5 || strcmp(argv[4], "egress"))) {
		fprintf(stderr, "usage: spawn_bench SPAWNER RUNTIMES STORE [egress]\n");
		return 2;
	}
	root = argv[3];
	start(argv, argc == 5);
	while (fgets(line, sizeof line, stdin)) {
		int words = sscanf(line, "%15s %u %15s", command, &count, network);

		if (words < 2 || (words == 3 && strcmp(network, "egress")) || count == 0 ||
		    count > AT_ONCE_MAX) {
			fprintf(stderr, "spawn_bench: not COMMAND COUNT [egress]: %s", line);
			return 2;
		}
		burst(command, words == 3 ? SPAWN_NET_EGRESS : SPAWN_NET_NONE, count);
	}
	/* Its death signal would leave cgroups behind: it ends by itself, and removes them. */
	close(spawner.fd);
	waitpid(spawner.pid, NULL, 0);
	return 0;
}
