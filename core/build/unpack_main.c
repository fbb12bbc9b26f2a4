/*
 * pratai-unpack: the only program of ours that reads archives of strangers.  Control
 * plane and node start it with vfork and exec, so that their loops do not wait and a
 * mistake in an archive reader is one in a process that can do nothing.
 *
 *   pratai-unpack check   fd 0: a zip, a regular file
 *   pratai-unpack zip     the same, and unpacks it to function/ below the directory fd 3
 *   pratai-unpack tar     fd 0: a layer's tar, a pipe will do; unpacks it below fd 3
 *
 *   pratai-unpack image SELECT owners|plain    fd 0: an image (rootfs/image_source.h); takes
 *                         it in below fd 3, with what is already in the store fd 4; fd 5: the
 *                         broker of a directory.  "owners": as uid 0 of a user namespace with
 *                         all of an image's ids; "plain": with one id
 *
 *   pratai-unpack verify layers owners|plain   fd 0: a list (rootfs/image_unpack.h); unpacks
 *                         layers of the store again and compares; prints what differs
 *
 * Exit 0 and a line of JSON (of an image its record) on standard output; 1 and a sentence
 * there: the archive is at fault; 2 and a sentence: this machine is (a full disk, no
 * memory); 64: used wrongly.  Before an image's record come lines "+WHAT<tab>DONE<tab>TOTAL"
 * that tell how far it is, in bytes.
 *
 * Before the first byte is read the process locks itself in: unpack_lock.h.
 */
#include <locale.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/crypto.h"
#include "core/base/err.h"
#include "core/build/unpack_lock.h"
#include "rootfs/image_unpack.h"
#include "rootfs/layer_write.h"
#include "rootfs/unpack.h"

enum {
	DEST_FD = 3,
	STORE_FD = 4,
	BROKER_FD = 5,
	EXIT_ARCHIVE = 1,
	EXIT_MACHINE = 2,
	EXIT_USE = 64,
	PROGRESS_STEP = 4 << 20, /* bytes */
};

#ifdef __SANITIZE_ADDRESS__
/* The search for leaks wants a new process at the end, which is refused then; the unit
 * tests run the same code with it. */
const char *__asan_default_options(void);
const char *
__asan_default_options(void)
{
	return "detect_leaks=0";
}
#endif

/* ---- Packages and layers of functions ---- */

static int
is_directory(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

static int
prepare(const struct unpack_lock *l, struct err *e)
{
	if (l->dest >= 0 && !is_directory(l->dest))
		return err_set(e, ERR_NODE, "descriptor %d is not a directory", l->dest);
	/* Names are UTF-8, whatever the environment says; both open files. */
	if (!setlocale(LC_CTYPE, "C.UTF-8"))
		return err_set(e, ERR_NODE, "this machine has no locale C.UTF-8");
	return crypto_init(e) < 0 || unpack_lock_in(l, e) < 0 ? -1 : 0;
}

static int
run(const char *verb, struct unpack_result *r, struct err *e)
{
	int dest = strcmp(verb, "check") == 0 ? -1 : DEST_FD;
	const struct unpack_lock lock = {
		.dest = dest,
		.source = -1,
		.first_closed = dest >= 0 ? DEST_FD + 1 : DEST_FD,
		.memory_bytes = 768 << 20,
		.file_bytes = UNPACK_TAR_BYTES_MAX,
		.cpu_seconds = 120,
		.files = 16, /* the archive, the directory, its parent, and what a parent lookup opens */
	};

	if (prepare(&lock, e) < 0)
		return -1;
	return strcmp(verb, "tar") == 0 ? unpack_tar(STDIN_FILENO, dest, r, e)
					: unpack_zip(STDIN_FILENO, dest, r, e);
}

static int
print_result(const struct unpack_result *r)
{
	printf("{\"entries\":%llu,\"bytes\":%llu,\"archive_bytes\":%llu,\"sha256\":\"%s\"}\n",
	       (unsigned long long)r->entries, (unsigned long long)r->bytes,
	       (unsigned long long)r->archive_bytes, r->sha256);
	return fflush(stdout) ? EXIT_MACHINE : 0;
}

static int
print_error(const struct err *e)
{
	printf("%s\n", e->text);
	fflush(stdout);
	return e->cls == ERR_INPUT || e->cls == ERR_LIMIT ? EXIT_ARCHIVE : EXIT_MACHINE;
}

/* ---- Images ---- */

static void
on_progress(const char *what, uint64_t done, uint64_t total)
{
	static uint64_t printed;
	static char last[32];

	if (done >= printed && done - printed < PROGRESS_STEP && !strcmp(what, last))
		return;
	printed = done;
	snprintf(last, sizeof last, "%s", what);
	printf("+%s\t%llu\t%llu\n", what, (unsigned long long)done, (unsigned long long)total);
	fflush(stdout);
}

static void
on_fault(const char *sentence)
{
	printf("%s\n", sentence);
}

static int
run_image(const char *verb, const char *select, bool owners)
{
	const struct image_unpack u = {
		.source = STDIN_FILENO,
		.broker = BROKER_FD,
		.blobs = { .temp = DEST_FD, .store = STORE_FD, .progress = on_progress },
		.select = select,
		.owners = owners,
	};
	const struct unpack_lock lock = {
		.dest = DEST_FD,
		.source = STORE_FD,
		.first_closed = BROKER_FD + 1,
		.whole_trees = true,
		.memory_bytes = 1 << 30,
		.file_bytes = LAYER_FILE_MAX,
		.cpu_seconds = 4 * 3600,
		.files = 1200, /* the layers below, each a directory; four for each level that is compared */
	};
	static struct image image; /* large */
	struct buf text = { .max = IMAGE_RECORD_MAX + 65536 };
	struct err e = { 0 };
	int rc = 0;

	if (prepare(&lock, &e) < 0)
		return print_error(&e);
	if (!strcmp(verb, "verify"))
		return image_verify(&u, on_fault, &e) < 0 ? print_error(&e) : fflush(stdout) ? EXIT_MACHINE : 0;
	if (image_unpack(&u, &image, &e) < 0)
		rc = print_error(&e);
	else if (image_print(&image, &text))
		rc = print_error(&(struct err){ .cls = ERR_LIMIT,
						.text = "the image's configuration is too large" });
	else if (fwrite(text.data, 1, text.len, stdout) != text.len || fflush(stdout))
		rc = EXIT_MACHINE;
	buf_free(&text);
	image_free(&image);
	return rc;
}

int
main(int argc, char **argv)
{
	struct unpack_result result = { 0 };
	struct err e = { 0 };

	if (argc == 4 && (!strcmp(argv[1], "image") || !strcmp(argv[1], "verify")) &&
	    (!strcmp(argv[3], "owners") || !strcmp(argv[3], "plain")))
		return run_image(argv[1], argv[2], !strcmp(argv[3], "owners"));
	if (argc != 2 || (strcmp(argv[1], "check") != 0 && strcmp(argv[1], "zip") != 0 &&
			  strcmp(argv[1], "tar") != 0)) {
		fputs("pratai-unpack: usage: pratai-unpack check|zip|tar|image|verify\n", stderr);
		return EXIT_USE;
	}
	return run(argv[1], &result, &e) < 0 ? print_error(&e) : print_result(&result);
}
