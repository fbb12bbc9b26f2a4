#include "rootfs/oci_make.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/json.h"
#include "rootfs/image.h"

#define MEDIA "application/vnd.oci.image."

static void
put_digest(struct json *o, const char *hex)
{
	char text[SHA256_HEX_MAX + 8];

	snprintf(text, sizeof text, "sha256:%s", hex);
	json_put_str(o, "digest", text);
}

static struct json *
descriptor(const char *media, const char *hex, uint64_t bytes)
{
	struct json *o = json_object();

	json_put_str(o, "mediaType", media);
	put_digest(o, hex);
	json_put_int(o, "size", (int64_t)bytes);
	return o;
}

/* Frees j. */
static int
write_json(int dir, const char *name, struct json *j, char hex[SHA256_HEX_MAX], uint64_t *bytes,
	   struct err *e)
{
	char path[SHA256_HEX_MAX + 16], *text = json_print(j);
	CLEAN_FD int fd = -1;
	int rc = 0;

	json_free(j);
	if (!text)
		return err_set(e, ERR_NODE, "no memory for a manifest");
	*bytes = strlen(text);
	sha256_hex(text, *bytes, hex);
	snprintf(path, sizeof path, "blobs/sha256/%s", hex);
	fd = openat(dir, name ? name : path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || fd_write_all(fd, text, *bytes))
		rc = err_sys(e, ERR_NODE, "write %s of an image", name ? name : "a blob");
	free(text);
	return rc;
}

static void
put_words(struct json *o, const char *key, const struct image_words *w)
{
	struct json *list;

	if (!w->count)
		return;
	list = json_array();
	for (size_t i = 0; i < w->count; i++)
		json_add_str(list, w->list[i]);
	json_put(o, key, list);
}

static struct json *
configuration(const struct image *i)
{
	struct json *j = json_object(), *c = json_object(), *rootfs = json_object(), *diffs = json_array();

	if (i->created[0])
		json_put_str(j, "created", i->created);
	json_put_str(j, "architecture", i->arch);
	json_put_str(j, "os", i->os);
	put_words(c, "Env", &i->env);
	put_words(c, "Entrypoint", &i->entrypoint);
	put_words(c, "Cmd", &i->cmd);
	if (i->workdir)
		json_put_str(c, "WorkingDir", i->workdir);
	if (i->user)
		json_put_str(c, "User", i->user);
	json_put(j, "config", c);
	json_put_str(rootfs, "type", "layers");
	for (unsigned k = 0; k < i->layer_count; k++) {
		char text[SHA256_HEX_MAX + 8];

		snprintf(text, sizeof text, "sha256:%s", i->layers[k].diff);
		json_add_str(diffs, text);
	}
	json_put(rootfs, "diff_ids", diffs);
	json_put(j, "rootfs", rootfs);
	return j;
}

int
oci_make_layout(int dir, struct image *i, struct err *e)
{
	struct json *j, *list;
	uint64_t bytes = 0;
	char index[SHA256_HEX_MAX];

	if (dir_make(dir, "blobs/sha256", 0755, e) ||
	    write_json(dir, NULL, configuration(i), i->config, &bytes, e))
		return -1;
	j = json_object();
	list = json_array();
	json_put_int(j, "schemaVersion", 2);
	json_put_str(j, "mediaType", MEDIA "manifest.v1+json");
	json_put(j, "config", descriptor(MEDIA "config.v1+json", i->config, bytes));
	for (unsigned k = 0; k < i->layer_count; k++)
		json_add(list, descriptor(i->layers[k].media, i->layers[k].blob, i->layers[k].blob_bytes));
	json_put(j, "layers", list);
	if (write_json(dir, NULL, j, i->manifest, &bytes, e))
		return -1;
	j = json_object();
	list = json_array();
	json_put_int(j, "schemaVersion", 2);
	json_add(list, descriptor(MEDIA "manifest.v1+json", i->manifest, bytes));
	json_put(j, "manifests", list);
	return write_json(dir, "index.json", j, index, &bytes, e);
}
