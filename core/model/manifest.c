#include "core/model/manifest.h"

#include <string.h>

#include "core/base/err.h"
#include "core/base/image_name.h"
#include "core/base/json.h"
#include "core/base/str.h"

#define MANIFESTS "application/vnd.oci.image.manifest.v1+json|" \
		  "application/vnd.docker.distribution.manifest.v2+json"

static int
take_blob(const char *what, const struct json *j, struct manifest_blob *b, struct err *e)
{
	const char *digest = json_str(j, "digest"), *media = json_str(j, "mediaType");
	int64_t bytes;

	if (!digest || image_parse_digest(digest, b->digest))
		return err_set(e, ERR_INPUT, "the manifest: %s has no digest of the form sha256:…", what);
	if (!json_whole(j, "size", &bytes) || bytes < 0)
		return err_set(e, ERR_INPUT, "the manifest: %s has no size", what);
	if (bytes > IMAGE_BLOB_MAX_BYTES)
		return err_set(e, ERR_INPUT, "the manifest: %s has %lld bytes, at most %lld are allowed", what,
			       (long long)bytes, (long long)IMAGE_BLOB_MAX_BYTES);
	if (str_copy(b->media, sizeof b->media, media ? media : ""))
		return err_set(e, ERR_INPUT, "the manifest: %s has a media type that is too long", what);
	b->bytes = (uint64_t)bytes;
	return 0;
}

static int
take_layers(const struct json *list, struct manifest *m, struct err *e)
{
	int count = json_count(list);

	if (!json_is_array(list) || count == 0)
		return err_set(e, ERR_INPUT, "the manifest: the image has no layers");
	if (count > MANIFEST_LAYERS_MAX)
		return err_set(e, ERR_INPUT, "the manifest: the image has %d layers, at most %d are allowed",
			       count, MANIFEST_LAYERS_MAX);
	for (const struct json *l = json_first(list); l; l = json_next(l))
		if (take_blob("a layer", l, &m->layers[m->layer_count++], e))
			return -1;
	return 0;
}

static int
take(const struct json *j, struct manifest *m, struct err *e)
{
	const char *media = json_str(j, "mediaType");

	if (json_get(j, "manifests"))
		return err_set(e, ERR_INPUT, "the manifest is an index of several images, not that of one");
	if (!json_is_object(j) || json_int(j, "schemaVersion", 0) != 2 ||
	    !json_is_object(json_get(j, "config")) || (media && !str_is_word(MANIFESTS, media)))
		return err_set(e, ERR_INPUT, "the manifest is none of OCI's, nor of docker's schema 2");
	return take_blob("the configuration", json_get(j, "config"), &m->config, e) ||
	       take_layers(json_get(j, "layers"), m, e) ? -1 : 0;
}

int
manifest_parse(const void *text, size_t len, struct manifest *m, struct err *e)
{
	struct json *j;
	int rc;

	memset(m, 0, sizeof *m);
	if (len > MANIFEST_MAX_BYTES)
		return err_set(e, ERR_INPUT, "the manifest has %zu bytes, at most %d are allowed", len,
			       MANIFEST_MAX_BYTES);
	j = json_parse(text, len, e);
	if (!j)
		return err_wrap(e, "the manifest");
	rc = take(j, m, e);
	json_free(j);
	return rc;
}
