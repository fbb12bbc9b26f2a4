#include "core/model/function_record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/str.h"

void
function_clear(struct function *f)
{
	json_free(f->settings);
	free(f->state_reason);
	memset(f, 0, sizeof *f);
}

void
function_settle(struct function *f)
{
	const char *name = json_str(f->settings, "name"), *type = json_str(f->settings, "type");
	int parsed = type ? event_type_parse(type) : -1;

	if (!name || str_copy(f->name, sizeof f->name, name))
		f->name[0] = '\0';
	f->type = parsed < 0 ? TYPE_ASYNC : (enum event_type)parsed;
	f->timeout_s = (uint32_t)json_int(f->settings, "timeout", 0);
	f->memory_mib = (uint32_t)json_int(f->settings, "memory", 0);
	f->limit = (uint32_t)json_int(f->settings, "limit", 0);
	f->frequency_min = (uint32_t)json_int(f->settings, "frequency", 0);
}

struct json *
function_encode(const struct function *f)
{
	struct json *j = json_object();
	char id[ID_TEXT_MAX];

	id_format(&f->id, id);
	json_put_str(j, "function_id", id);
	json_put_str(j, "project_id", f->project_id);
	json_put_str(j, "user_id", f->user_id);
	json_put(j, "settings", json_copy(f->settings));
	json_put_int(j, "serving", f->serving);
	json_put_int(j, "latest", f->latest);
	json_put_str(j, "state", version_state_name(f->state));
	json_put_str(j, "state_reason", f->state_reason);
	json_put_str(j, "package_digest", f->package_digest);
	json_put_int(j, "package_bytes", (int64_t)f->package_bytes);
	json_put_str(j, "image_digest", f->image_digest);
	json_put_int(j, "created_us", f->created_us);
	json_put_int(j, "updated_us", f->updated_us);
	return j;
}

static int
decode(const struct json *j, struct function *f)
{
	const char *id = json_str(j, "function_id"), *project = json_str(j, "project_id");
	const char *user = json_str(j, "user_id"), *state = json_str(j, "state");
	const char *digest = json_str(j, "package_digest"), *reason = json_str(j, "state_reason");
	const char *image = json_str(j, "image_digest"); /* an earlier release has none */
	int parsed = state ? version_state_parse(state) : -1;

	if (!id || id_parse(id, &f->id) || !project || !user || !digest || parsed < 0 ||
	    str_copy(f->project_id, sizeof f->project_id, project) ||
	    str_copy(f->user_id, sizeof f->user_id, user) ||
	    str_copy(f->package_digest, sizeof f->package_digest, digest) ||
	    str_copy(f->image_digest, sizeof f->image_digest, image ? image : "") ||
	    !json_is_object(json_get(j, "settings")))
		return -1;
	f->state = (enum version_state)parsed;
	f->settings = json_copy(json_get(j, "settings"));
	f->serving = (uint32_t)json_int(j, "serving", 0);
	f->latest = (uint32_t)json_int(j, "latest", 0);
	f->state_reason = reason ? strdup(reason) : NULL;
	f->package_bytes = (uint64_t)json_int(j, "package_bytes", 0);
	f->created_us = json_int(j, "created_us", 0);
	f->updated_us = json_int(j, "updated_us", 0);
	function_settle(f);
	return 0;
}

int
function_decode(const void *text, size_t len, struct function *f, struct err *e)
{
	struct json *j = json_parse(text, len, NULL);
	int rc;

	memset(f, 0, sizeof *f);
	rc = j ? decode(j, f) : -1;
	json_free(j);
	if (rc) {
		function_clear(f);
		return err_set(e, ERR_NODE, "the store's record of a function does not read");
	}
	return 0;
}

static void
put_time(struct json *j, const char *key, int64_t us)
{
	char text[CLOCK_RFC3339_MAX];

	clock_format(us, text);
	json_put_str(j, key, text);
}

struct json *
function_record(const struct function *f)
{
	struct json *j = json_object();
	char id[ID_TEXT_MAX];

	id_format(&f->id, id);
	json_put_str(j, "function_id", id);
	json_put_str(j, "name", f->name);
	json_put_str(j, "project_id", f->project_id);
	json_put_str(j, "tenant_id", f->project_id);
	json_put_str(j, "user_id", f->user_id);
	json_put_str(j, "state", version_state_name(f->state));
	json_put_str(j, "state_reason", f->state_reason);
	json_put_int(j, "version", f->serving ? f->serving : f->latest);
	json_put_int(j, "latest_version", f->latest);
	for (const struct json *m = json_first(f->settings); m; m = json_next(m))
		if (strcmp(json_key(m), "name"))
			json_put(j, json_key(m), json_copy(m));
	json_put_str(j, "image_digest", f->image_digest);
	json_put_str(j, "package_digest", f->package_digest);
	json_put_int(j, "package_bytes", (int64_t)f->package_bytes);
	put_time(j, "created_at", f->created_us);
	put_time(j, "updated_at", f->updated_us);
	return j;
}

struct json *
function_version_document(const struct function_version *v, const struct function *f,
			  const struct json *image_blobs, int64_t created_us)
{
	struct json *j = function_version_encode(v);

	json_put(j, "settings", json_copy(f->settings));
	json_put(j, "image_blobs", image_blobs ? json_copy(image_blobs) : json_array());
	json_put_int(j, "package_bytes", (int64_t)f->package_bytes);
	json_put_int(j, "created_us", created_us);
	return j;
}

static void
replace(struct json *j, const char *key, const char *text)
{
	json_remove(j, key);
	json_put_str(j, key, text);
}

void
function_version_outcome(struct json *document, const struct function_version *v)
{
	replace(document, "state", version_state_name(v->state));
	replace(document, "layer_digest", v->layer_digest);
	replace(document, "dependencies_digest", v->dependencies_digest);
	replace(document, "reason", v->reason);
}

int
function_restore(struct function *f, const struct json *document, struct version_layers *layers,
		 struct err *e)
{
	static const char *const kept[] = { "name", "description", "tags" };
	const char *state = json_str(document, "state"), *digest = json_str(document, "package_digest");
	const char *made = json_str(document, "layer_digest");
	const char *image = json_str(document, "image_digest");
	const char *below = json_str(document, "dependencies_digest"); /* NULL: of an earlier release */
	int64_t version = json_int(document, "version", 0);
	struct json *settings;

	if (!state || version_state_parse(state) != VERSION_READY || !made ||
	    str_copy(layers->own, sizeof layers->own, made) ||
	    str_copy(layers->dependencies, sizeof layers->dependencies, below ? below : ""))
		return err_set(e, ERR_CONFLICT, "version %lld is not ready: %.20s", (long long)version,
			       state ? state : "unknown");
	if (!json_is_object(json_get(document, "settings")) || !digest ||
	    str_copy(f->package_digest, sizeof f->package_digest, digest) ||
	    str_copy(f->image_digest, sizeof f->image_digest, image ? image : ""))
		return err_set(e, ERR_CONFLICT, "version %lld was made by an earlier release, which did not keep "
			       "its settings", (long long)version);
	settings = json_copy(json_get(document, "settings"));
	for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
		json_remove(settings, kept[i]);
		json_put(settings, kept[i], json_copy(json_get(f->settings, kept[i])));
	}
	json_free(f->settings);
	f->settings = settings;
	f->package_bytes = (uint64_t)json_int(document, "package_bytes", 0);
	function_settle(f);
	return 0;
}

/* Null: none. */
static void
put_digest(struct json *j, const char *key, const char *digest)
{
	if (digest && *digest)
		json_put_str(j, key, digest);
	else
		json_put_null(j, key);
}

struct json *
function_version_record(const struct json *document, uint32_t serving)
{
	const struct json *settings = json_get(document, "settings");
	int64_t version = json_int(document, "version", 0);
	struct json *j = json_object();

	json_put_str(j, "function_id", json_str(document, "function_id"));
	json_put_int(j, "version", version);
	json_put_str(j, "state", json_str(document, "state"));
	json_put_str(j, "state_reason", json_str(document, "reason"));
	json_put_bool(j, "serving", version == serving);
	for (const struct json *m = json_first(settings); m; m = json_next(m))
		if (function_setting_is_versioned(json_key(m)))
			json_put(j, json_key(m), json_copy(m));
	json_put_str(j, "image_digest",
		     json_str(document, "image_digest") ? json_str(document, "image_digest") : "");
	json_put_str(j, "package_digest", json_str(document, "package_digest"));
	json_put_int(j, "package_bytes", json_int(document, "package_bytes", 0));
	put_digest(j, "dependencies_digest", json_str(document, "dependencies_digest"));
	if (json_get(document, "created_us"))
		put_time(j, "created_at", json_int(document, "created_us", 0));
	else
		json_put_null(j, "created_at");
	return j;
}

void
function_version_id(const struct id *function, uint32_t version, char out[VERSION_ID_MAX])
{
	char id[ID_TEXT_MAX];

	id_format(function, id);
	snprintf(out, VERSION_ID_MAX, "%s.%u", id, version);
}

struct id
function_build_id(const struct id *function, uint32_t version)
{
	uint64_t digest[2] = { id_hash(function) ^ (uint64_t)version * 0x9e3779b97f4a7c15ull, version };
	uint8_t bytes[sizeof digest];

	memcpy(bytes, digest, sizeof bytes);
	return id_computed(id_time_ms(function) * 1000, bytes);
}
