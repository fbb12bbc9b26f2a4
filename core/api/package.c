/*
 * A package on its way in: copied out of the request into a file without a name, checked
 * by the helper program (this process never parses an archive, and never waits for one),
 * then kept as a blob.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/api/internal.h"
#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/json.h"
#include "core/base/str.h"
#include "netio/helper.h"

enum { CHECK_SECONDS = 120 };

struct check {
	struct api *api;
	int file; /* the zip */
	struct package_info info;
	package_fn fn;
	void *arg;
};

static void
finish(struct check *k, const struct err *e)
{
	k->fn(k->arg, e ? NULL : &k->info, e);
	fd_close(&k->file);
	free(k);
}

static void
on_stored(void *arg, const struct store_answer *a, const struct err *e)
{
	(void)a;
	finish(arg, e);
}

/* status 1: the package is wrong, and text says how. */
static int
read_verdict(struct check *k, int status, const char *text, struct err *e)
{
	struct json *j;
	const char *digest;
	int rc;

	if (status == 1)
		return err_set(e, ERR_INPUT, "%s", *text ? text : "zip_file: not a package");
	if (status != 0)
		return err_set(e, ERR_AGAIN, "the package could not be checked: %.300s",
			       *text ? text : "the checker was ended");
	j = json_parse(text, strlen(text), e);
	if (!j)
		return err_wrap(e, "the package's check");
	digest = json_str(j, "sha256");
	rc = digest && strlen(digest) == 64 ? str_copy(k->info.digest, sizeof k->info.digest, digest)
					    : err_set(e, ERR_AGAIN, "the package's check gave no digest");
	json_free(j);
	return rc;
}

static void
on_checked(void *arg, int status, const char *text)
{
	struct check *k = arg;
	struct err e;

	if (read_verdict(k, status, text, &e))
		finish(k, &e);
	else
		store_blob_put(k->api->config.store, k->info.digest, k->file, on_stored, k);
}

void
package_store(struct api *a, const void *zip, size_t len, package_fn fn, void *arg)
{
	static const char *const argv[] = { "pratai-unpack", "check", NULL };
	struct helper_task task = { .program_fd = a->config.unpack_fd, .argv = argv, .dir = -1,
				    .timeout_ns = CHECK_SECONDS * NS_PER_S };
	struct check *k = calloc(1, sizeof *k);
	struct err e;

	if (!k) {
		err_set(&e, ERR_AGAIN, "out of memory");
		fn(arg, NULL, &e);
		return;
	}
	k->api = a;
	k->fn = fn;
	k->arg = arg;
	k->info.bytes = len;
	k->file = openat(a->config.spool_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (k->file < 0) {
		err_sys(&e, ERR_AGAIN, "the package could not be kept");
		finish(k, &e);
		return;
	}
	if (fd_write_all(k->file, zip, len) || lseek(k->file, 0, SEEK_SET)) {
		err_sys(&e, ERR_AGAIN, "the package could not be kept");
		finish(k, &e);
		return;
	}
	task.input = k->file;
	if (!helper_start(a->config.loop, &task, on_checked, k, &e))
		finish(k, &e);
}
