/*
 * What the driver and the spawner say to each other, byte for byte, and the checks of it.
 *
 * One SEQPACKET message each, of a fixed size by its type.  A request carries descriptors:
 * first a sealed memfd with the strings (argv, environment, working directory, each ended
 * by NUL, in this order), then those of WIRE_FD_* that its mask names, in that order.
 *
 * Everything here is a pure function of bytes: what comes from the driver is a stranger's.
 */
#ifndef PRATAI_SANDBOX_WIRE_H
#define PRATAI_SANDBOX_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sandbox/spawner.h"

struct err;

enum {
	WIRE_MAGIC = 0x50725370, /* "PrSp" */
	WIRE_VERSION = 3,
	WIRE_NAME_MAX = 64,
	WIRE_ARGS_MAX = 4096, /* argv and environment entries, each */
	WIRE_FDS_MAX = 5,     /* strings, three standard ones, channel */
};
#define WIRE_TIMEOUT_MAX_NS (24ull * 3600 * 1000000000)

enum wire_type { WIRE_REQUEST = 1, WIRE_KILL, WIRE_RESULT };
enum { WIRE_FD_STDIN = 1, WIRE_FD_STDOUT = 2, WIRE_FD_STDERR = 4, WIRE_FD_CHANNEL = 8 };

struct wire_head {
	uint32_t magic;
	uint16_t version, type;
};

struct wire_request {
	struct wire_head head;
	uint64_t tag;
	uint64_t memory_bytes, tmp_bytes, timeout_ns;
	uint32_t cpu_millis, pids, network;
	uint32_t layer_count, image_count; /* of layers; image_count 0: the host image */
	uint32_t argc, envc, strings_bytes;
	uint32_t fds; /* WIRE_FD_* */
	struct net_rules allow; /* of what is near; only with SPAWN_NET_EGRESS */
	char runtime[WIRE_NAME_MAX]; /* "": none */
	uint8_t layers[SPAWN_LAYERS_MAX][32], image[SPAWN_IMAGE_MAX][32];
};

struct wire_kill {
	struct wire_head head;
	uint64_t tag;
	uint32_t why;
	uint32_t zero;
};

struct wire_result {
	struct wire_head head;
	struct spawn_result result;
};

union wire_message {
	struct wire_head head;
	struct wire_request request;
	struct wire_kill kill;
};

/* What a spawner allows of numbers; what it allows of networks is a question of its own. */
struct wire_bounds {
	uint64_t memory_max_bytes, tmp_max_bytes;
};

void wire_head_set(struct wire_head *h, enum wire_type type);

/*
 * Whether len bytes at m, with fd_count descriptors, are a message that may come from a
 * driver.  0; -1: they are not (e says why), and the connection is to be ended.
 */
int wire_check(const union wire_message *m, size_t len, unsigned fd_count,
	       const struct wire_bounds *bounds, struct err *e);

/* The strings of a request, pointing into its text. */
struct wire_strings {
	const char *argv[WIRE_ARGS_MAX + 1], *envp[WIRE_ARGS_MAX + 1]; /* NULL-ended */
	const char *workdir;
};
/* text: r->strings_bytes bytes.  -1 as above. */
int wire_strings(const struct wire_request *r, const char *text, struct wire_strings *out,
		 struct err *e);

/* [a-z0-9][a-z0-9._-]*, shorter than WIRE_NAME_MAX. */
bool wire_is_name(const char *name);

#endif
