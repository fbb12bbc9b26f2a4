#include "rootfs/oci.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/str.h"

#define MEDIA_INDEX "application/vnd.oci.image.index.v1+json"
#define MEDIA_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define MEDIA_CONFIG "application/vnd.oci.image.config.v1+json"
#define MEDIA_LAYER "application/vnd.oci.image.layer.v1.tar"
#define DOCKER_LIST "application/vnd.docker.distribution.manifest.list.v2+json"
#define DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"

enum { INDEX_DEPTH_MAX = 4 };

void
oci_chain(const char *below, const char *diff, char out[SHA256_HEX_MAX])
{
	char text[160];

	if (below) {
		snprintf(text, sizeof text, "sha256:%.64s sha256:%.64s", below, diff);
		sha256_hex(text, strlen(text), out);
	} else {
		snprintf(out, SHA256_HEX_MAX, "%.64s", diff);
	}
}

/* This machine, in the words of images. */
const char *
oci_arch(void)
{
	static const char *const words[][2] = {
		{ "x86_64", "amd64" },   { "aarch64", "arm64" }, { "armv7l", "arm" },
		{ "i686", "386" },       { "ppc64le", "ppc64le" }, { "riscv64", "riscv64" },
		{ "s390x", "s390x" },
	};
	static struct utsname name;

	if (uname(&name))
		return "amd64";
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (!strcmp(name.machine, words[i][0]))
			return words[i][1];
	return name.machine;
}

/* "sha256:HEX" */
static int
read_digest(const char *what, const char *text, char hex[SHA256_HEX_MAX], struct err *e)
{
	if (!text)
		return err_set(e, ERR_INPUT, "the %s has no digest", what);
	if (!str_starts(text, "sha256:"))
		return err_set(e, ERR_INPUT, "the %s has a digest that is none of sha256: '%.40s'", what, text);
	if (!image_is_digest(text + 7))
		return err_set(e, ERR_INPUT, "the %s has a digest that is none: '%.80s'", what, text);
	memcpy(hex, text + 7, SHA256_HEX_MAX);
	return 0;
}

/* The blob of a descriptor. */
static int
take_blob(struct image_source *s, const char *what, const struct json *descriptor,
	  char hex[SHA256_HEX_MAX], struct err *e)
{
	int64_t bytes;

	if (read_digest(what, json_str(descriptor, "digest"), hex, e))
		return -1;
	if (!json_whole(descriptor, "size", &bytes) || bytes < 0)
		return err_set(e, ERR_INPUT, "the descriptor of the %s has no size", what);
	return source_blob(s, what, hex, bytes, e);
}

static struct json *
parse(const char *what, const struct buf *text, struct err *e)
{
	struct json *j = json_parse(text->data ? text->data : "", text->len, e);

	if (!j) {
		err_wrap(e, "%s", what);
	} else if (!json_is_object(j) && !json_is_array(j)) {
		json_free(j);
		err_set(e, ERR_INPUT, "the %s is no JSON object", what);
		return NULL;
	}
	return j;
}

static struct json *
parse_blob(struct image_source *s, const char *what, const char *hex, struct err *e)
{
	struct buf text = { 0 };
	struct json *j = blobs_slurp(s->blobs, hex, SOURCE_TEXT_MAX, &text, e) ? NULL
									       : parse(what, &text, e);

	buf_free(&text);
	return j;
}

static struct json *
parse_file(struct image_source *s, const char *name, struct err *e)
{
	struct buf text = { 0 };
	struct json *j = source_text(s, name, &text, e) ? NULL : parse(name, &text, e);

	buf_free(&text);
	return j;
}

/* ---- The configuration ---- */

static int
take_words(const char *what, const struct json *array, struct image_words *w, struct err *e)
{
	if (!array || json_is_null(array))
		return 0;
	if (!json_is_array(array))
		return err_set(e, ERR_INPUT, "the configuration's %s is no list", what);
	for (const struct json *word = json_first(array); word; word = json_next(word)) {
		if (!json_is_string(word))
			return err_set(e, ERR_INPUT, "the configuration's %s is no list of words", what);
		if (image_word(w, json_string_value(word)))
			return err_set(e, ERR_LIMIT, "the configuration's %s has more than %d words", what,
				       IMAGE_WORDS_MAX);
	}
	return 0;
}

static int
take_string(const char *text, char **out, struct err *e)
{
	if (!text || !*text)
		return 0;
	*out = strdup(text);
	return *out ? 0 : err_set(e, ERR_NODE, "no memory for an image's configuration");
}

static int
take_diffs(const struct json *config, struct image *i, struct err *e)
{
	const struct json *list = json_get(json_get(config, "rootfs"), "diff_ids");
	unsigned k = 0;

	if (json_count(list) != (int)i->layer_count)
		return err_set(e, ERR_INPUT, "the configuration has %d diff ids for %u layers",
			       list ? json_count(list) : 0, i->layer_count);
	for (const struct json *d = json_first(list); d; d = json_next(d))
		if (read_digest("diff id", json_string_value(d), i->layers[k++].diff, e))
			return -1;
	return 0;
}

/* i has its layers. */
static int
take_config(struct image_source *s, struct image *i, struct err *e)
{
	struct json *j = parse_blob(s, "configuration", i->config, e);
	const struct json *c = json_get(j, "config");
	const char *os = json_str(j, "os"), *arch = json_str(j, "architecture"), *created;
	int rc = -1;

	if (!j)
		return -1;
	created = json_str(j, "created");
	snprintf(i->os, sizeof i->os, "%s", os ? os : "linux");
	snprintf(i->arch, sizeof i->arch, "%s", arch ? arch : "");
	snprintf(i->created, sizeof i->created, "%s", created ? created : "");
	if (strcmp(i->os, "linux") != 0)
		err_set(e, ERR_INPUT, "the image is for %s, not for linux", i->os);
	else if (i->arch[0] && strcmp(i->arch, oci_arch()) != 0)
		err_set(e, ERR_INPUT, "the image is for %s; this machine is %s", i->arch, oci_arch());
	else if (!take_diffs(j, i, e) && !take_words("Env", json_get(c, "Env"), &i->env, e) &&
		 !take_words("Entrypoint", json_get(c, "Entrypoint"), &i->entrypoint, e) &&
		 !take_words("Cmd", json_get(c, "Cmd"), &i->cmd, e) &&
		 !take_string(json_str(c, "WorkingDir"), &i->workdir, e) &&
		 !take_string(json_str(c, "User"), &i->user, e))
		rc = 0;
	json_free(j);
	return rc;
}

/* ---- A manifest ---- */

static int
check_count(int count, struct err *e)
{
	if (count <= 0)
		return err_set(e, ERR_INPUT, "the image has no layers");
	if (count > IMAGE_LAYERS_MAX)
		return err_set(e, ERR_LIMIT, "the image has %d layers, more than %d", count, IMAGE_LAYERS_MAX);
	return 0;
}

static int
take_layers(struct image_source *s, const struct json *list, struct image *i, struct err *e)
{
	if (check_count(json_count(list), e))
		return -1;
	for (const struct json *d = json_first(list); d; d = json_next(d)) {
		struct image_layer *l = &i->layers[i->layer_count];
		const char *media = json_str(d, "mediaType");

		if (str_copy(l->media, sizeof l->media, media ? media : MEDIA_LAYER))
			return err_set(e, ERR_INPUT, "a layer has a media type that is too long");
		if (take_blob(s, "layer", d, l->blob, e))
			return -1;
		l->blob_bytes = (uint64_t)json_int(d, "size", 0);
		i->layer_count++;
	}
	return 0;
}

static int
take_manifest(struct image_source *s, const struct json *m, struct image *i, struct err *e)
{
	if (json_int(m, "schemaVersion", 0) != 2 || !json_is_object(json_get(m, "config")))
		return err_set(e, ERR_INPUT, "the manifest is none of OCI's, nor of docker's schema 2");
	return take_blob(s, "configuration", json_get(m, "config"), i->config, e) ||
	       take_layers(s, json_get(m, "layers"), i, e) || take_config(s, i, e) ? -1 : 0;
}

/* ---- An index: which one ---- */

static bool
is_index(const struct json *descriptor)
{
	const char *media = json_str(descriptor, "mediaType");

	return media && (!strcmp(media, MEDIA_INDEX) || !strcmp(media, DOCKER_LIST));
}

static bool
is_image(const struct json *d)
{
	const char *media = json_str(d, "mediaType");

	return !media || is_index(d) || !strcmp(media, MEDIA_MANIFEST) || !strcmp(media, DOCKER_MANIFEST);
}

static const char *
ref_name(const struct json *d)
{
	return json_str(json_get(d, "annotations"), "org.opencontainers.image.ref.name");
}

static bool
is_named(const char *name, const char *select)
{
	const char *tag = select ? strrchr(select, ':') : NULL;

	return name && select && (!strcmp(name, select) || (tag && !strcmp(name, tag + 1)));
}

static bool
is_for_us(const struct json *d)
{
	const struct json *p = json_get(d, "platform");
	const char *os = json_str(p, "os"), *arch = json_str(p, "architecture");

	return (!os || !strcmp(os, "linux")) && (!arch || !strcmp(arch, oci_arch()));
}

/* How many differ, of those that are images, named (if named) and for us (if ours). */
static unsigned
count(const struct json *list, const char *select, bool named, bool ours, const struct json **one)
{
	unsigned n = 0;
	const char *digest = NULL;

	for (const struct json *d = json_first(list); d; d = json_next(d)) {
		const char *this = json_str(d, "digest");

		if (!is_image(d) || !this || (named && !is_named(ref_name(d), select)) ||
		    (ours && !is_for_us(d)) || (digest && !strcmp(this, digest)))
			continue;
		if (!n)
			*one = d;
		digest = this;
		n++;
	}
	return n;
}

static int
say_names(const struct json *list, unsigned n, struct err *e)
{
	char names[240] = "";
	size_t at = 0;

	for (const struct json *d = json_first(list); d; d = json_next(d)) {
		const char *name = ref_name(d);

		if (name && at < sizeof names - 44)
			at += (size_t)snprintf(names + at, sizeof names - at, "%s%.40s", at ? ", " : "", name);
	}
	return err_set(e, ERR_INPUT, "it has %u images; say which one by --from NAME (names there: %s)", n,
		       at ? names : "none");
}

static const struct json *
pick(const struct json *index, const char *select, struct err *e)
{
	const struct json *list = json_get(index, "manifests"), *one = NULL;
	bool named = count(list, select, true, false, &one) > 0;
	unsigned all = count(list, select, named, false, &one), ours;

	if (!all) {
		err_set(e, ERR_INPUT, "the index has no image");
		return NULL;
	}
	ours = count(list, select, named, true, &one);
	if (ours == 1)
		return one;
	if (!ours)
		err_set(e, ERR_INPUT, "the index has no image for linux on %s", oci_arch());
	else
		say_names(list, ours, e);
	return NULL;
}

static int
resolve_index(struct image_source *s, struct json *index, const char *select, unsigned depth,
	      struct image *i, struct err *e)
{
	const struct json *d = pick(index, select, e);
	bool again = d && is_index(d);
	struct json *j;
	int rc;

	if (!d || take_blob(s, again ? "index" : "manifest", d, i->manifest, e))
		return -1;
	if (again && depth == INDEX_DEPTH_MAX)
		return err_set(e, ERR_INPUT, "indexes are nested deeper than %d", INDEX_DEPTH_MAX);
	j = parse_blob(s, again ? "index" : "manifest", i->manifest, e);
	/* A name is of the outermost index. */
	rc = !j ? -1 : again ? resolve_index(s, j, NULL, depth + 1, i, e) : take_manifest(s, j, i, e);
	json_free(j);
	return rc;
}

/* ---- docker save ---- */

static const struct json *
pick_docker(const struct json *list, const char *select, struct err *e)
{
	const struct json *one = NULL;
	unsigned n = 0;

	if (json_count(list) == 1)
		return json_first(list);
	for (const struct json *d = json_first(list); d; d = json_next(d))
		for (const struct json *t = json_first(json_get(d, "RepoTags")); t; t = json_next(t))
			if (json_is_string(t) && select && !strcmp(json_string_value(t), select))
				one = d, n++;
	if (n != 1)
		err_set(e, ERR_INPUT, "it has %d images; say which one by --from NAME:TAG", json_count(list));
	return n == 1 ? one : NULL;
}

/* HEX.json and blobs/sha256/HEX promise what they hold. */
static int
check_config_name(const char *name, const char *hex, struct err *e)
{
	const char *base = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;

	if (strspn(base, "0123456789abcdef") == 64 && strncmp(base, hex, 64) != 0)
		return err_set(e, ERR_INPUT, "the configuration sha256:%.64s has the digest sha256:%s", base,
			       hex);
	return 0;
}

static int
take_docker(struct image_source *s, const struct json *d, struct image *i, struct err *e)
{
	const char *config = json_str(d, "Config");
	const struct json *list = json_get(d, "Layers");
	uint64_t bytes;

	if (!config || source_member(s, config, i->config, &bytes, e))
		return config ? -1 : err_set(e, ERR_INPUT, "manifest.json names no configuration");
	if (check_config_name(config, i->config, e) || check_count(json_count(list), e))
		return -1;
	for (const struct json *l = json_first(list); l; l = json_next(l)) {
		struct image_layer *layer = &i->layers[i->layer_count];

		if (!json_is_string(l))
			return err_set(e, ERR_INPUT, "manifest.json has a layer that is no name");
		if (source_member(s, json_string_value(l), layer->blob, &layer->blob_bytes, e))
			return -1;
		i->layer_count++;
	}
	return take_config(s, i, e);
}

int
oci_resolve(struct image_source *s, const char *select, struct image *i, struct err *e)
{
	const struct json *d;
	struct json *j;
	int rc;

	i->uid = i->gid = -1;
	if (s->kind == SOURCE_ROOTFS) {
		i->layer_count = 1;
		i->layers[0].blob_bytes = s->rootfs_bytes;
		memcpy(i->layers[0].blob, s->rootfs, SHA256_HEX_MAX);
		snprintf(i->os, sizeof i->os, "linux");
		snprintf(i->arch, sizeof i->arch, "%.31s", oci_arch());
		return 0;
	}
	j = parse_file(s, s->kind == SOURCE_LAYOUT ? "index.json" : "manifest.json", e);
	if (!j)
		return -1;
	if (s->kind == SOURCE_LAYOUT) {
		rc = resolve_index(s, j, select, 0, i, e);
	} else {
		d = pick_docker(j, select, e);
		rc = d ? take_docker(s, d, i, e) : -1;
	}
	json_free(j);
	return rc;
}

/* ---- What was not there ---- */

static void
put_digest(struct json *o, const char *key, const char *hex)
{
	char text[SHA256_HEX_MAX + 8];

	snprintf(text, sizeof text, "sha256:%s", hex);
	json_put_str(o, key, text);
}

static struct json *
descriptor(const char *media, const char *hex, uint64_t bytes)
{
	struct json *o = json_object();

	json_put_str(o, "mediaType", media);
	put_digest(o, "digest", hex);
	json_put_int(o, "size", (int64_t)bytes);
	return o;
}

static int
put_json(struct image_source *s, struct json *j, char hex[SHA256_HEX_MAX], uint64_t *bytes,
	 struct err *e)
{
	char *text = json_print(j);
	int rc;

	json_free(j);
	if (!text)
		return err_set(e, ERR_NODE, "no memory for a manifest");
	*bytes = strlen(text);
	rc = blobs_put(s->blobs, text, strlen(text), hex, e);
	free(text);
	return rc;
}

static int
make_config(struct image_source *s, struct image *i, uint64_t *bytes, struct err *e)
{
	struct json *j = json_object(), *rootfs = json_object(), *diffs = json_array();

	json_put_str(j, "architecture", i->arch);
	json_put_str(j, "os", i->os);
	json_put(j, "config", json_object());
	json_put_str(rootfs, "type", "layers");
	for (unsigned k = 0; k < i->layer_count; k++) {
		char text[SHA256_HEX_MAX + 8];

		snprintf(text, sizeof text, "sha256:%s", i->layers[k].diff);
		json_add_str(diffs, text);
	}
	json_put(rootfs, "diff_ids", diffs);
	json_put(j, "rootfs", rootfs);
	return put_json(s, j, i->config, bytes, e);
}

int
oci_complete(struct image_source *s, struct image *i, struct err *e)
{
	struct json *j, *layers;
	struct buf text = { 0 };
	uint64_t bytes = 0;

	if (s->kind == SOURCE_LAYOUT)
		return 0;
	if (s->kind == SOURCE_ROOTFS && make_config(s, i, &bytes, e))
		return -1;
	if (s->kind == SOURCE_DOCKER) {
		if (blobs_slurp(s->blobs, i->config, SOURCE_TEXT_MAX, &text, e))
			return buf_free(&text), -1;
		bytes = text.len;
		buf_free(&text);
	}
	j = json_object();
	layers = json_array();
	json_put_int(j, "schemaVersion", 2);
	json_put_str(j, "mediaType", MEDIA_MANIFEST);
	json_put(j, "config", descriptor(MEDIA_CONFIG, i->config, bytes));
	for (unsigned k = 0; k < i->layer_count; k++)
		json_add(layers, descriptor(i->layers[k].media, i->layers[k].blob, i->layers[k].blob_bytes));
	json_put(j, "layers", layers);
	return put_json(s, j, i->manifest, &bytes, e);
}
