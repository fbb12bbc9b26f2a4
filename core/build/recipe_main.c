/*
 * pratai-build: `pratai image-build` without its printing.  A program of its own, because it
 * starts sandboxes; pratai-client starts it and prints what came of it.
 *
 *   pratai-build ROOT NAME FILE MEMORY DISK TIMEOUT    bytes, bytes, milliseconds
 *
 * Exit 0 and {"steps":N,"cached":N} on standard output; 1 and a sentence on standard error, after
 * the last lines of a command that failed.  SIGKILL for its parent is one for it, too.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/crypto.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/str.h"
#include "core/build/image_build.h"
#include "rootfs/store.h"
#include "sandbox/sandbox.h"

/* Beside this program in a build tree; installed, PREFIX/lib/pratai and PREFIX/share/pratai. */
static int
find_places(char unpacker[PATH_MAX], char recipes[PATH_MAX], struct err *e)
{
	static const char *const places[] = { "recipes", "../../share/pratai/recipes" };
	char self[PATH_MAX - 64];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

	if (n <= 0 || n >= (ssize_t)sizeof self - 1)
		return err_sys(e, ERR_NODE, "cannot tell where this program is");
	self[n] = '\0';
	*strrchr(self, '/') = '\0';
	snprintf(unpacker, PATH_MAX, "%s/pratai-unpack", self);
	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		snprintf(recipes, PATH_MAX, "%s/%s", self, places[i]);
		if (!access(recipes, X_OK))
			return 0;
	}
	return err_set(e, ERR_NODE, "the recipes are not beside %.200s: is the installation whole?", self);
}

/* https://reproducible-builds.org/specs/source-date-epoch/ */
static int
take_epoch(struct image_build *b, struct err *e)
{
	const char *text = getenv("SOURCE_DATE_EPOCH");

	b->epoch = INT64_MAX;
	if (text && *text && str_int(text, 0, 253402300799, &b->epoch))
		return err_set(e, ERR_INPUT, "SOURCE_DATE_EPOCH: '%.40s' is not a number of seconds "
			       "since 1970", text);
	return 0;
}

static int
take_numbers(struct image_build *b, char **argv, struct err *e)
{
	int64_t memory, disk, ms;

	if (str_int(argv[4], 1, INT64_MAX, &memory) || str_int(argv[5], 1, INT64_MAX, &disk) ||
	    str_int(argv[6], 1, INT64_MAX / (int64_t)NS_PER_MS, &ms))
		return err_set(e, ERR_INPUT, "a limit is no number");
	b->limits = (struct step_limits){ (uint64_t)memory, (uint64_t)disk, (uint64_t)ms * NS_PER_MS };
	return 0;
}

static int
run(struct image_build *b, struct err *e)
{
	static char unpacker[PATH_MAX], recipes[PATH_MAX], root[PATH_MAX];
	struct image_store s = { .dir = -1, .lock = -1 };
	int rc;

	if (geteuid() != 0)
		return err_set(e, ERR_DENIED, "image-build needs root: a build has all users of its image, "
			       "which an ordinary user's sandbox cannot have");
	if (find_places(unpacker, recipes, e) || take_epoch(b, e) || crypto_init(e) ||
	    dir_make(AT_FDCWD, b->root, 0755, e))
		return -1;
	/* Sandboxes take paths from their own working directories. */
	if (!realpath(b->root, root))
		return err_sys(e, ERR_INPUT, "%.200s", b->root);
	b->root = root;
	b->unpacker = unpacker;
	b->recipes = recipes;
	rc = sandbox_prepare_caller(e) || image_store_open(&s, root, STORE_ADD, NULL, e) ||
	     image_build(b, &s, e) ? -1 : 0;
	image_store_close(&s);
	return rc;
}

int
main(int argc, char **argv)
{
	struct image_build b = { .live = isatty(STDERR_FILENO) };
	struct err e = { 0 };

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || fd_keep_standard(&e) || argc != 7) {
		fputs("pratai-build: usage: pratai-build ROOT NAME FILE MEMORY DISK TIMEOUT\n", stderr);
		return 64;
	}
	b.root = argv[1];
	b.name = argv[2];
	b.file = argv[3];
	if (take_numbers(&b, argv, &e) || run(&b, &e)) {
		fprintf(stderr, "pratai: %s\n", e.text);
		return 1;
	}
	printf("{\"steps\":%u,\"cached\":%u}\n", b.steps, b.cached);
	return fflush(stdout) ? 1 : 0;
}
