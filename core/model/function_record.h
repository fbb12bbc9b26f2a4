/*
 * The function itself: what the store keeps, and what its owner sees of it.
 *
 * Its settings are those of the latest version; `serving` is the latest version that was
 * built, so that the old one serves while a new one builds.
 */
#ifndef PRATAI_FUNCTION_RECORD_H
#define PRATAI_FUNCTION_RECORD_H

#include <stdint.h>

#include "core/model/function.h"

struct function {
	struct id id;
	char project_id[EVENT_PROJECT_MAX];
	char user_id[EVENT_PROJECT_MAX];
	struct json *settings;   /* owned; as function_settings_new made them */
	uint32_t serving, latest; /* versions; serving 0: none is ready yet */
	enum version_state state; /* of the latest */
	char *state_reason;      /* owned, or NULL */
	char package_digest[65];
	char image_digest[65]; /* of the latest version; "": host */
	uint64_t package_bytes;
	int64_t created_us, updated_us;

	/* From the settings, for those who ask often. */
	char name[FUNCTION_NAME_MAX];
	enum event_type type;
	uint32_t timeout_s, memory_mib, limit, frequency_min; /* frequency 0: no timer */
};

void function_clear(struct function *f);

/* Takes the settings out of f->settings into the members below.  After each change. */
void function_settle(struct function *f);

/* The store's document, and back (ERR_NODE: the store holds something else). */
struct json *function_encode(const struct function *f);
int function_decode(const void *text, size_t len, struct function *f, struct err *e);

/* CONTRACT's record.  The caller frees. */
struct json *function_record(const struct function *f);

/*
 * A version's document as the store keeps it: what those who run it need, what a rollback
 * needs to make it again (settings, package_bytes, created_us), and the digests of its image's
 * blobs (image_blobs: an array, or NULL for none), which the store keeps for it.  The caller
 * frees.
 */
struct json *function_version_document(const struct function_version *v, const struct function *f,
				       const struct json *image_blobs, int64_t created_us);
/* Puts the outcome of v's build into its document. */
void function_version_outcome(struct json *document, const struct function_version *v);
/* What a version's builds made, as its document names it. */
struct version_layers {
	char own[65], dependencies[65];
};
/*
 * f as it was at the version whose document this is, but for what makes no version (name,
 * description, tags), and its layers.  ERR_CONFLICT: it is not ready, or was made
 * before documents had settings.
 */
int function_restore(struct function *f, const struct json *document, struct version_layers *layers,
		     struct err *e);
/* What its owner sees of a version, in a list. */
struct json *function_version_record(const struct json *document, uint32_t serving);

/* "<function id>.<version>": the id of a version's document and of its build's. */
enum { VERSION_ID_MAX = ID_TEXT_MAX + 12 };
void function_version_id(const struct id *function, uint32_t version, char out[VERSION_ID_MAX]);

/* The id of the job that builds a version: computed, so that it is queued once. */
struct id function_build_id(const struct id *function, uint32_t version);

#endif
