/*
 * A function's record and its versions: what may be in them, and the defaults.  Pure:
 * JSON in, JSON out.
 *
 * A *function* is the record that its owner sees (CONTRACT.md).  A *version* is what one
 * create or update made of it: immutable settings and package, plus a build state.  An
 * event runs one version.
 */
#ifndef PRATAI_FUNCTION_H
#define PRATAI_FUNCTION_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/id.h"
#include "core/base/image_name.h"
#include "core/model/event.h"

struct err;
struct json;

enum {
	FUNCTION_NAME_MAX = 64, /* with the NUL */
	FUNCTION_MEMORY_MIN_MIB = 16,
	FUNCTION_MEMORY_MAX_MIB = 8192,
	FUNCTION_TIMEOUT_MAX_S = 3600,
	FUNCTION_OUTPUT_BYTES = 1 << 20,
	FUNCTION_PACKAGE_MAX_BYTES = 64 << 20,
	FUNCTION_UNPACKED_MAX_BYTES = 512 << 20,
	/* The tar of a version's layer: that, what is compiled from it, headers and padding. */
	FUNCTION_LAYER_MAX_BYTES = 768 << 20,
	FUNCTION_PACKAGE_ENTRIES_MAX = 20000,
	FUNCTION_METADATA_MAX_BYTES = 256 << 10,
	FUNCTION_QUEUE_MAX = 100000, /* queued events of one function */
};

enum version_state { VERSION_BUILDING, VERSION_READY, VERSION_FAILED };

/* [A-Za-z0-9][A-Za-z0-9_.-]{0,62} */
int function_name_check(const char *name, struct err *e);

/*
 * Checks a create's metadata (unknown fields, types and ranges are ERR_INPUT, naming the
 * field) and returns the settings, complete with defaults.
 */
struct json *function_settings_new(const struct json *metadata, struct err *e);
/* The same for an update: metadata's fields over the settings in force. */
struct json *function_settings_update(const struct json *settings, const struct json *metadata,
				      struct err *e);
/* True when the change needs a new version (anything but description and tags). */
bool function_settings_need_version(const struct json *before, const struct json *after);

/* Whether a change of the setting makes a version.  The name does not change. */
bool function_setting_is_versioned(const char *name);

struct net_rules;
/* A list of texts as net_rule.h has them.  -1: ERR_INPUT. */
int function_allow_parse(const struct json *list, struct net_rules *out, struct err *e);

/* What the scheduler, the API and a node need of a version, parsed once. */
struct function_version {
	struct id function_id;
	char project_id[EVENT_PROJECT_MAX];
	char name[FUNCTION_NAME_MAX];
	uint32_t version;
	enum version_state state;
	enum event_type type;
	char runtime[32];
	char image[IMAGE_NAME_MAX + 1];
	char image_digest[65]; /* hex, of the image's manifest, which never changes; "": host */
	char package_digest[65], layer_digest[65]; /* hex; layer: what the build made, "" before */
	char dependencies_digest[65]; /* hex, of a layer below it that other versions may have, too;
				       * "": none, or in the same layer */
	uint32_t memory_mib, tmp_size_mib, cpu_millis, pids, timeout_s, retries, limit;
	uint32_t output_bytes;
	char network[16];
	char *allow; /* with network "egress", a JSON array for function_allow_parse, owned, or NULL */
	char *env; /* JSON object, owned */
	char *own_runtime; /* of the project's own, a JSON object as runtime_rule.h has it, owned;
			    * NULL: a node's, by its name */
	char *reason; /* state_reason, owned, or NULL */
};
void function_version_clear(struct function_version *v);
/* -1: out of memory */
int function_version_copy(struct function_version *to, const struct function_version *from);

/*
 * The version that settings make: everything but its state's outcome.  settings has passed
 * function_settings_new.
 */
int function_version_from_settings(const struct json *settings, const struct id *function_id,
				   const char *project, uint32_t version,
				   const char *package_digest, struct function_version *out,
				   struct err *e);

/* A version's document (also inside messages), and back. */
struct json *function_version_encode(const struct function_version *v);
int function_version_parse(const struct json *document, struct function_version *out,
			   struct err *e);
const char *version_state_name(enum version_state s);
int version_state_parse(const char *word);

#endif
