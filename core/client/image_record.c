/*
 * The members: name, digest (the manifest's), layers, size_bytes (of its blobs), created,
 * architecture; in image-import what was left out; in image-build how many steps
 * there were, and were run before; in both whether it was uploaded.
 */
#include "core/client/image_record.h"

#include <stdio.h>

#include "core/base/json.h"
#include "rootfs/image.h"

static struct json *
describe(const char *name, const struct image *i)
{
	struct json *o = json_object();
	char digest[SHA256_HEX_MAX + 8];
	uint64_t bytes = 0;

	for (unsigned k = 0; k < i->layer_count; k++)
		bytes += i->layers[k].blob_bytes;
	snprintf(digest, sizeof digest, "sha256:%s", i->manifest);
	json_put_str(o, "name", name);
	json_put_str(o, "digest", digest);
	json_put_int(o, "layers", i->layer_count);
	json_put_int(o, "size_bytes", (int64_t)bytes);
	json_put_str(o, "created", i->created[0] ? i->created : NULL);
	json_put_str(o, "architecture", i->arch);
	return o;
}

static char *
finish(struct json *o)
{
	char *text = json_print(o);

	json_free(o);
	return text;
}

char *
image_record(const char *name, const struct image *i)
{
	return finish(describe(name, i));
}

char *
image_record_imported(const char *name, const struct image *i, bool uploaded)
{
	struct json *o = describe(name, i);

	json_put_int(o, "devices_left_out", (int64_t)i->devices);
	json_put_int(o, "attributes_left_out", (int64_t)i->attributes);
	json_put_int(o, "owners_changed", (int64_t)i->owners);
	json_put_bool(o, "uploaded", uploaded);
	return finish(o);
}

char *
image_record_built(const char *name, const struct image *i, int64_t steps, int64_t cached,
		   bool uploaded)
{
	struct json *o = describe(name, i);

	json_put_int(o, "steps", steps);
	json_put_int(o, "cached", cached);
	json_put_bool(o, "uploaded", uploaded);
	return finish(o);
}
