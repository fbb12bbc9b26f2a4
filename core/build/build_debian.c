/*
 * A Debian image's lowest layer, in two sandboxes (rootfs/recipes/debian.sh): mmdebstrap, in the
 * image "host", fetches and extracts packages and runs nothing of them; what it extracted becomes
 * the root of the second, without network, in which dpkg installs them.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/str.h"
#include "core/build/image_build_private.h"
#include "rootfs/host.h"

#define SCRIPT "/tmp/pratai/recipes/debian.sh"
#define OS_RELEASE "/etc/os-release"

/* PRATAI_MACHINE_SUITE=bookworm: what the machine's own sources are for. */
int
build_machine_suite(char *out, size_t size)
{
	struct buf text = { 0 };
	const char *line = file_slurp(AT_FDCWD, OS_RELEASE, 65536, &text, NULL)
				   ? NULL : strstr(text.data ? text.data : "", "\nVERSION_CODENAME=");
	int rc = -1;

	if (line) {
		line += strlen("\nVERSION_CODENAME=");
		line += *line == '"';
		snprintf(out, size, "PRATAI_MACHINE_SUITE=%.*s", (int)strcspn(line, "\"\n"), line);
		rc = 0;
	}
	buf_free(&text);
	return rc;
}

static int
fetch(struct build_step *st, const char *suite, const char *disk, struct err *e)
{
	const char *argv[] = { "/bin/sh", SCRIPT, "fetch", suite, NULL };
	struct step_run *r = calloc(1, sizeof *r);
	CLEAN_FD int root = open(st->w->b->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char host[PATH_MAX], target[PATH_MAX], variable[80];
	struct step_command c = { .argv = argv, .disk = disk, .workdir = "/", .network = true,
				  .apt = true };
	int rc = r ? 0 : err_set(e, ERR_NODE, "no memory for a step");

	if (rc == 0)
		rc = build_path(host, st->w->b->root, HOST_ROOT, e) ||
		     build_path(target, disk, "upper/target", e) ? -1 : 0;
	if (rc == 0 && access("/usr/bin/mmdebstrap", X_OK))
		rc = err_set(e, ERR_NOT_FOUND, "mmdebstrap is not on this machine (package mmdebstrap)");
	if (rc == 0 && (root < 0 || mkdir(target, 0755) || chown(target, IMAGE_ID_BASE, IMAGE_ID_BASE)))
		rc = err_sys(e, ERR_NODE, "make %.200s", target);
	if (rc == 0)
		rc = host_prepare(root, e);
	if (rc == 0) {
		if (!build_machine_suite(variable, sizeof variable))
			c.variable = variable;
		r->spec.layers[0] = (struct sandbox_tree){ .at = AT_FDCWD, .path = host };
		r->spec.layer_count = 1;
		r->spec.usr = HOST_USR;
		rc = step_command_on(st, r, &c, e);
	}
	free(r);
	return rc;
}

static int
configure(struct build_step *st, const char *disk, struct err *e)
{
	const char *argv[] = { "/bin/sh", SCRIPT, "configure", NULL };
	struct step_run *r = calloc(1, sizeof *r);
	char empty[PATH_MAX];
	const struct step_command c = { .argv = argv, .disk = disk, .workdir = "/" };
	int rc = r ? 0 : err_set(e, ERR_NODE, "no memory for a step");

	if (rc == 0)
		rc = build_path(empty, st->path, "empty", e);
	if (rc == 0 && (mkdir(empty, 0755) || chown(empty, IMAGE_ID_BASE, IMAGE_ID_BASE)))
		rc = err_sys(e, ERR_NODE, "make %.200s", empty);
	if (rc == 0) {
		r->spec.layers[0] = (struct sandbox_tree){ .at = AT_FDCWD, .path = empty,
							   .ids = IMAGE_ID_BASE };
		r->spec.layer_count = 1;
		rc = step_command_on(st, r, &c, e);
	}
	free(r);
	return rc;
}

static int
make(struct build_step *st, struct tar_writer *t, void *arg, struct err *e)
{
	char fetched[PATH_MAX], disk[PATH_MAX], from[PATH_MAX], to[PATH_MAX];

	if (step_disk(st, "fetched", fetched, e) || fetch(st, arg, fetched, e) ||
	    step_disk(st, "disk", disk, e))
		return -1;
	if (build_path(from, fetched, "upper/target", e) || build_path(to, disk, "upper", e))
		return -1;
	if (rmdir(to) || rename(from, to))
		return err_sys(e, ERR_NODE, "rename %.200s", from);
	return configure(st, disk, e) || step_pack(st, disk, true, t, e) ? -1 : 0;
}

int
build_debian(struct work *w, struct image *image, const char *suite, struct err *e)
{
	char what[100];
	struct build_step st;

	if (!*suite || suite[strspn(suite, "abcdefghijklmnopqrstuvwxyz-")])
		return err_set(e, ERR_INPUT, "base: 'debian:%.60s' names no suite of Debian", suite);
	snprintf(what, sizeof what, "Debian %s", suite);
	step_begin(&st, w, image, "debian", what);
	step_word(&st, suite);
	if (step_script(&st, "debian.sh", e) || step_script(&st, "sources.sh", e) ||
	    step_script(&st, "tidy.sh", e))
		return -1;
	return step_done(&st, make, (void *)(uintptr_t)suite, e);
}
