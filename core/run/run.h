/*
 * One `pratai run`: what was asked for, and what is held for it.  run_main.c has its life,
 * options.c its words, image.c what an image of the store brings.
 */
#ifndef PRATAI_RUN_H
#define PRATAI_RUN_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/opt.h"
#include "rootfs/image.h"
#include "sandbox/foreground.h"
#include "sandbox/sandbox.h"
#include "sandbox/watch.h"

enum {
	RUN_ENV_MAX = 1024, /* variables that can be given */
};

struct run {
	struct opt_values opts;
	struct sandbox_spec spec;
	struct cgroup_manager *manager;
	struct net_rules allow;
	struct run_io io;
	struct filter filter;
	struct watch watch;
	bool reports_calls;
	const char *learn; /* file, or NULL */
	int learn_fd;
	bool ran;
	const char *report; /* file, "-" or NULL */
	int report_fd;
	uint64_t timeout_ns;
	bool limits_asked;
	bool no_limits; /* none is enforced, whatever was asked for */
	int slots; /* the lock on our slot */
	int store;
	const char *env[RUN_ENV_MAX + IMAGE_WORDS_MAX + 4];
	char *owned[SANDBOX_BINDS_MAX];
	unsigned owned_count;
	char host_root[PATH_MAX];
	/* Of an image of the store's. */
	bool has_image;
	struct image image;
	gid_t gid;
	char *layer_paths[IMAGE_LAYERS_MAX];
	const char *argv[2 * IMAGE_WORDS_MAX + 1]; /* its own command */
	int held[IMAGE_LAYERS_MAX]; /* against image-gc, as long as we live */
	unsigned held_count;
};

/* argv of the whole program, with "run" at [1].  0, or -1: no such option. */
int run_parse(struct run *r, int argc, char **argv, struct err *e);
/* From options to spec; opens the image store and makes the host image.  0 or -1. */
int run_read_options(struct run *r, struct err *e);
/* The image that --image names, from the store at root: its layers, and what its configuration
 * says of user, directory and command, where no option does.  0 or -1. */
int run_open_image(struct run *r, const char *root, const char *name, struct err *e);
void run_close_image(struct run *r);
/* To standard output. */
void run_print_help(void);

#endif
