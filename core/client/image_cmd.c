/*
 * image-*: the image store of this machine, and what of it the control plane has.  What reads
 * the images themselves is another process (rootfs/image_import.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/crypto.h"
#include "core/base/fdio.h"
#include "core/base/json.h"
#include "core/client/client.h"
#include "core/client/image_record.h"
#include "core/client/image_upload.h"
#include "core/client/program.h"
#include "rootfs/image_export.h"
#include "rootfs/image_import.h"
#include "rootfs/store.h"

enum { BAR_WIDTH = 30, UPLOADED_MAX = 100000 };

static void
say_waiting(void)
{
	fputs("pratai: waiting for others who use the image store\n", stderr);
}

static int
open_store(struct client *c, struct image_store *s, enum store_use use, struct err *e)
{
	char root[PATH_MAX];

	return store_root(opt_get(&c->v, "root"), root, e) || image_store_open(s, root, use, say_waiting, e) ? -1
												       : 0;
}

static int
no_memory(void)
{
	struct err e = { 0 };

	err_set(&e, ERR_NODE, "no memory");
	return client_fail(&e);
}

/* ---- image-import ---- */

/* On a terminal: "layer 2 of 3 [=====     ]  47 %". */
static void
draw(void *arg, const char *what, uint64_t done, uint64_t total)
{
	int percent = total ? (int)(done * 100 / total) : 0, filled;

	(void)arg;
	if (percent > 100)
		percent = 100;
	filled = percent * BAR_WIDTH / 100;
	if (total)
		fprintf(stderr, "\r\033[K%-16s [%.*s%*s] %3d %%", what, filled,
			"==============================", BAR_WIDTH - filled, "", percent);
	else
		fprintf(stderr, "\r\033[K%-16s %" PRIu64 " MiB", what, done >> 20);
}

static void
wipe(bool drawn)
{
	if (drawn)
		fputs("\r\033[K", stderr);
}

static int
open_source(const char *path, struct err *e)
{
	int fd = strcmp(path, "-") ? open(path, O_RDONLY | O_CLOEXEC) : fcntl(0, F_DUPFD_CLOEXEC, 3);

	return fd < 0 ? err_sys(e, ERR_INPUT, "%s", path) : fd;
}

static int
import(struct client *c, struct image *i, struct err *e)
{
	struct image_import m = { .name = opt_get(&c->v, "name"), .select = opt_get(&c->v, "from") };
	char program[PROGRAM_PATH_MAX];
	struct image_store s = { .dir = -1, .lock = -1 };
	const char *path = c->v.operands[0];
	bool terminal = isatty(STDERR_FILENO);
	int rc;

	if (image_check_name(m.name, e) || program_find("pratai-unpack", program, e))
		return -1;
	m.program = program;
	m.source = open_source(path, e);
	if (m.source < 0)
		return -1;
	if (terminal)
		m.progress = draw;
	rc = open_store(c, &s, STORE_ADD, e);
	if (rc == 0) {
		rc = image_import(&s, &m, i, e);
		wipe(terminal);
		if (rc && (e->cls == ERR_INPUT || e->cls == ERR_LIMIT)) {
			err_wrap(e, "%.200s", path);
			e->cls = ERR_LIMIT; /* the command was right: exit 1 */
		}
	}
	image_store_close(&s);
	close(m.source);
	return rc;
}

/* ---- image-upload ---- */

static int
upload(struct client *c, const char *name, const struct image *i, struct api_answer *a, struct err *e)
{
	struct image_store s = { .dir = -1, .lock = -1 };
	int rc = open_store(c, &s, STORE_READ, e) || image_upload(c->api, &s, name, i, a, e);

	image_store_close(&s);
	return rc ? -1 : 0;
}

int
client_upload_made(struct client *c, const struct image *i, bool *uploaded, struct err *e)
{
	struct api_answer a = { 0 };

	*uploaded = c->url_given && *c->token && !opt_given(&c->v, "no-upload");
	if (!*uploaded)
		return 0;
	if (client_connect(c, e) || upload(c, opt_get(&c->v, "name"), i, &a, e)) {
		err_wrap(e, "the image is in this machine's store, but was not uploaded");
		return -1;
	}
	api_answer_clear(&a);
	return 0;
}

int
cmd_image_upload(struct client *c)
{
	static struct image image; /* large */
	struct image_store s = { .dir = -1, .lock = -1 };
	const char *name = c->v.operands[0];
	struct api_answer a = { 0 };
	struct span record;
	struct err e = { 0 };
	int rc = open_store(c, &s, STORE_READ, &e) || store_image(&s, name, &image, &e) ||
		 image_upload(c->api, &s, name, &image, &a, &e) || api_json(&a, &record, &e) ||
		 render_record(&c->out, record, "digest", &e);

	image_store_close(&s);
	api_answer_clear(&a);
	image_free(&image);
	return rc ? client_fail(&e) : CLIENT_OK;
}

int
cmd_image_import(struct client *c)
{
	static struct image image; /* large */
	bool uploaded = false;
	struct err e = { 0 };
	char *text;
	int rc = CLIENT_OK;

	if (!opt_given(&c->v, "name"))
		return client_usage("image-import needs --name REF (see: pratai help image-import)");
	if (crypto_init(&e) || import(c, &image, &e) ||
	    client_upload_made(c, &image, &uploaded, &e)) {
		image_free(&image);
		return client_fail(&e);
	}
	text = image_record_imported(opt_get(&c->v, "name"), &image, uploaded);
	if (!text)
		rc = no_memory();
	else if (render_record(&c->out, span_of(text, strlen(text)), "digest", &e))
		rc = client_fail(&e);
	free(text);
	image_free(&image);
	return rc;
}

/* ---- image-export ---- */

int
cmd_image_export(struct client *c)
{
	static struct image image; /* large */
	bool terminal = isatty(STDERR_FILENO);
	struct image_export x = { .name = c->v.operands[0], .path = c->v.operands[1],
				  .progress = terminal ? draw : NULL };
	struct image_store s = { .dir = -1, .lock = -1 };
	struct err e = { 0 };
	char *text = NULL;
	int rc = crypto_init(&e) || open_store(c, &s, STORE_READ, &e) ||
		 image_export(&s, &x, &image, &e);

	wipe(terminal);
	image_store_close(&s);
	if (rc)
		rc = client_fail(&e);
	else if (!strcmp(x.path, "-")) /* standard output is the image */
		rc = CLIENT_OK;
	else if (!(text = image_record(x.name, &image)))
		rc = no_memory();
	else if (render_record(&c->out, span_of(text, strlen(text)), "digest", &e))
		rc = client_fail(&e);
	free(text);
	image_free(&image);
	return rc;
}

/* ---- image-list ---- */

static int
list(struct client *c, struct image_store *s, char *const *names, size_t count, struct err *e)
{
	static const char *const columns[] = { "name", "digest", "layers", "size_bytes", "created", NULL };
	struct span *rows = calloc(count + 1, sizeof *rows);
	static struct image image;
	int rc = rows ? 0 : err_set(e, ERR_NODE, "no memory");
	size_t kept = 0;

	for (size_t i = 0; rc == 0 && i < count; i++) {
		char *text = NULL;

		rc = store_image(s, names[i], &image, e);
		if (rc && e->cls == ERR_NOT_FOUND) {
			rc = 0; /* forgotten meanwhile */
			continue;
		}
		if (rc == 0 && !(text = image_record(names[i], &image)))
			rc = err_set(e, ERR_NODE, "no memory");
		if (text)
			rows[kept++] = span_of(text, strlen(text));
		image_free(&image);
	}
	if (rc == 0)
		rc = render_list(&c->out, rows, kept, columns, "name", e);
	for (size_t i = 0; i < kept; i++)
		free((char *)(uintptr_t)rows[i].p);
	free(rows);
	return rc;
}

static int
list_uploaded(struct client *c)
{
	static const char *const columns[] = { "name", "digest", "layers", "size_bytes", "updated_at", NULL };
	struct err e = { 0 };

	if (client_connect(c, &e))
		return client_fail(&e);
	return client_list(c, "/v1/images", UPLOADED_MAX, columns, "name");
}

int
cmd_image_list(struct client *c)
{
	struct image_store s = { .dir = -1, .lock = -1 };
	struct err e = { 0 };
	char **names = NULL;
	size_t count = 0;
	int rc;

	if (opt_given(&c->v, "uploaded"))
		return list_uploaded(c);
	rc = open_store(c, &s, STORE_READ, &e) || store_names(&s, &names, &count, &e) ||
		 list(c, &s, names, count, &e);

	store_names_free(names, count);
	image_store_close(&s);
	return rc ? client_fail(&e) : CLIENT_OK;
}

/* ---- image-delete, image-gc, image-verify ---- */

int
cmd_image_delete(struct client *c)
{
	struct image_store s = { .dir = -1, .lock = -1 };
	struct err e = { 0 };
	int rc = CLIENT_OK;

	if (opt_given(&c->v, "uploaded"))
		return client_connect(c, &e) ? client_fail(&e) : client_delete(c, "/v1/images/");
	if (open_store(c, &s, STORE_READ, &e))
		return client_fail(&e);
	for (int i = 0; i < c->v.operand_count; i++)
		if (store_forget(&s, c->v.operands[i], &e))
			rc = client_fail(&e);
	image_store_close(&s);
	return rc;
}

static int
print_counts(struct client *c, struct json *o)
{
	struct err e = { 0 };
	char *text = json_print(o);
	int rc = CLIENT_OK;

	json_free(o);
	if (!text)
		return no_memory();
	if (render_record(&c->out, span_of(text, strlen(text)), "layers", &e))
		rc = client_fail(&e);
	free(text);
	return rc;
}

int
cmd_image_gc(struct client *c)
{
	struct image_store s = { .dir = -1, .lock = -1 };
	struct store_gc done = { 0 };
	struct err e = { 0 };
	struct json *o;
	int rc;

	rc = crypto_init(&e) || open_store(c, &s, STORE_REMOVE, &e) || store_collect(&s, &done, &e);
	image_store_close(&s);
	if (rc)
		return client_fail(&e);
	o = json_object();
	json_put_int(o, "images", (int64_t)done.images);
	json_put_int(o, "layers", (int64_t)done.layers);
	json_put_int(o, "blobs", (int64_t)done.blobs);
	json_put_int(o, "blob_bytes", (int64_t)done.bytes);
	json_put_int(o, "layers_in_use", (int64_t)done.in_use);
	return print_counts(c, o);
}

static void
tell(void *arg, const char *sentence)
{
	(void)arg;
	wipe(isatty(STDERR_FILENO));
	fputs("pratai: ", stderr);
	render_escaped(stderr, sentence, strlen(sentence));
	fputc('\n', stderr);
}

/* The layers are read by the unpacker, which needs a place to write. */
static int
verify(struct client *c, struct store_check *done, struct err *e)
{
	struct image_store s = { .dir = -1, .lock = -1 };
	char program[PROGRAM_PATH_MAX];
	bool terminal = isatty(STDERR_FILENO), empty;
	int rc = crypto_init(e) || program_find("pratai-unpack", program, e) ||
		 open_store(c, &s, STORE_READ, e);

	empty = s.dir < 0;
	image_store_close(&s);
	if (rc || empty)
		return rc ? -1 : 0;
	rc = open_store(c, &s, STORE_ADD, e) || store_verify(&s, done, tell, NULL, e) ||
	     image_verify_layers(&s, program, terminal ? draw : NULL, tell, NULL, &done->bad, e);
	wipe(terminal);
	image_store_close(&s);
	return rc ? -1 : 0;
}

int
cmd_image_verify(struct client *c)
{
	struct store_check done = { 0 };
	struct err e = { 0 };
	struct json *o;
	int rc;

	if (verify(c, &done, &e))
		return client_fail(&e);
	o = json_object();
	json_put_int(o, "images", (int64_t)done.images);
	json_put_int(o, "layers", (int64_t)done.layers);
	json_put_int(o, "blobs", (int64_t)done.blobs);
	json_put_int(o, "blob_bytes", (int64_t)done.bytes);
	json_put_int(o, "faults", (int64_t)done.bad);
	rc = print_counts(c, o);
	return rc == CLIENT_OK && done.bad ? CLIENT_REFUSED : rc;
}
