/*
 * Versions: settings made ready for those who run them, and their document.
 */
#include "core/model/function.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/net_rule.h"
#include "core/base/str.h"
#include "core/model/runtime_rule.h"

static const char *const state_words[] = {
	[VERSION_BUILDING] = "building",
	[VERSION_READY] = "ready",
	[VERSION_FAILED] = "failed",
};

/* An env of 32 KiB has six bytes of JSON for each when all are control characters. */
enum { REASON_TEXT_MAX = 4096, ENV_TEXT_MAX = 256 << 10 };

void
function_version_clear(struct function_version *v)
{
	free(v->env);
	free(v->own_runtime);
	free(v->allow);
	free(v->reason);
	memset(v, 0, sizeof *v);
}

int
function_version_copy(struct function_version *to, const struct function_version *from)
{
	*to = *from;
	to->env = from->env ? strdup(from->env) : NULL;
	to->reason = from->reason ? strdup(from->reason) : NULL;
	to->allow = from->allow ? strdup(from->allow) : NULL;
	to->own_runtime = from->own_runtime ? strdup(from->own_runtime) : NULL;
	if ((from->own_runtime && !to->own_runtime) || (from->env && !to->env) || (from->allow && !to->allow) || (from->reason && !to->reason)) {
		function_version_clear(to);
		return -1;
	}
	return 0;
}

const char *
version_state_name(enum version_state s)
{
	return state_words[s];
}

int
version_state_parse(const char *word)
{
	for (int i = 0; i <= VERSION_FAILED; i++)
		if (!strcmp(word, state_words[i]))
			return i;
	return -1;
}

int
function_version_from_settings(const struct json *s, const struct id *function_id,
			       const char *project, uint32_t version, const char *package_digest,
			       struct function_version *out, struct err *e)
{
	memset(out, 0, sizeof *out);
	out->function_id = *function_id;
	out->version = version;
	out->state = VERSION_BUILDING;
	out->type = (enum event_type)event_type_parse(json_str(s, "type"));
	out->memory_mib = (uint32_t)json_int(s, "memory", 0);
	out->tmp_size_mib = (uint32_t)json_int(s, "tmp_size", 0);
	out->cpu_millis = (uint32_t)lround(json_number_value(json_get(s, "cpus")) * 1000);
	out->pids = (uint32_t)json_int(s, "pids", 0);
	out->timeout_s = (uint32_t)json_int(s, "timeout", 0);
	out->retries = (uint32_t)json_int(s, "retries", 0);
	out->limit = (uint32_t)json_int(s, "limit", 0);
	out->output_bytes = FUNCTION_OUTPUT_BYTES;
	out->env = json_print(json_get(s, "env"));
	/* Settings of an earlier release have none. */
	out->allow = json_get(s, "allow") ? json_print(json_get(s, "allow")) : strdup("[]");
	if (!out->env || !out->allow || str_copy(out->project_id, sizeof out->project_id, project) ||
	    str_copy(out->name, sizeof out->name, json_str(s, "name")) ||
	    str_copy(out->runtime, sizeof out->runtime, json_str(s, "runtime")) ||
	    str_copy(out->image, sizeof out->image, json_str(s, "image")) ||
	    str_copy(out->network, sizeof out->network, json_str(s, "network")) ||
	    str_copy(out->package_digest, sizeof out->package_digest, package_digest)) {
		function_version_clear(out);
		return err_set(e, ERR_INPUT, "version: a text is too long");
	}
	return 0;
}

struct json *
function_version_encode(const struct function_version *v)
{
	struct json *j = json_object();
	char id[ID_TEXT_MAX];

	id_format(&v->function_id, id);
	json_put_str(j, "function_id", id);
	json_put_str(j, "project_id", v->project_id);
	json_put_str(j, "name", v->name);
	json_put_int(j, "version", v->version);
	json_put_str(j, "state", state_words[v->state]);
	json_put_str(j, "type", event_type_name(v->type));
	json_put_str(j, "runtime", v->runtime);
	json_put_str(j, "image", v->image);
	json_put_str(j, "image_digest", v->image_digest);
	json_put_str(j, "package_digest", v->package_digest);
	json_put_str(j, "layer_digest", v->layer_digest);
	json_put_str(j, "dependencies_digest", v->dependencies_digest);
	json_put_int(j, "memory_mib", v->memory_mib);
	json_put_int(j, "tmp_size_mib", v->tmp_size_mib);
	json_put_int(j, "cpu_millis", v->cpu_millis);
	json_put_int(j, "pids", v->pids);
	json_put_int(j, "timeout_s", v->timeout_s);
	json_put_int(j, "retries", v->retries);
	json_put_int(j, "limit", v->limit);
	json_put_int(j, "output_bytes", v->output_bytes);
	json_put_str(j, "network", v->network);
	if (v->allow)
		json_put_raw(j, "allow", v->allow, strlen(v->allow));
	if (v->env)
		json_put_raw(j, "env", v->env, strlen(v->env));
	if (v->own_runtime)
		json_put_raw(j, "own_runtime", v->own_runtime, strlen(v->own_runtime));
	json_put_str(j, "reason", v->reason);
	return j;
}

static int
get_number(const struct json *j, const char *key, int64_t max, uint32_t *out)
{
	int64_t value;

	if (!json_whole(j, key, &value) || value < 0 || value > max)
		return -1;
	*out = (uint32_t)value;
	return 0;
}

static int
get_text(const struct json *j, const char *key, char *out, size_t size)
{
	const char *text = json_str(j, key);

	return !text || str_copy(out, size, text) ? -1 : 0;
}

static bool
is_digest(const char *text)
{
	return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

/* Empty, or a digest; documents of an earlier release have no such member. */
static int
get_late_digest(const struct json *j, const char *key, char out[65])
{
	if (!json_get(j, key))
		return 0;
	return get_text(j, key, out, 65) || (out[0] && !is_digest(out)) ? -1 : 0;
}

static const char *
parse_texts(const struct json *j, struct function_version *v)
{
	const char *id = json_str(j, "function_id"), *state = json_str(j, "state");
	const char *type = json_str(j, "type"), *reason = json_str(j, "reason");
	int number;

	if (!id || id_parse(id, &v->function_id))
		return "function_id";
	if (!state || (number = version_state_parse(state)) < 0)
		return "state";
	v->state = (enum version_state)number;
	if (!type || (number = event_type_parse(type)) < 0)
		return "type";
	v->type = (enum event_type)number;
	if (get_text(j, "project_id", v->project_id, sizeof v->project_id))
		return "project_id";
	if (get_text(j, "name", v->name, sizeof v->name))
		return "name";
	if (get_text(j, "runtime", v->runtime, sizeof v->runtime) || strspn(v->runtime, "/.") > 0 ||
	    strchr(v->runtime, '/'))
		return "runtime";
	if (get_text(j, "image", v->image, sizeof v->image))
		return "image";
	if (get_late_digest(j, "image_digest", v->image_digest))
		return "image_digest";
	if (get_late_digest(j, "dependencies_digest", v->dependencies_digest))
		return "dependencies_digest";
	if (get_text(j, "network", v->network, sizeof v->network))
		return "network";
	if (get_text(j, "package_digest", v->package_digest, sizeof v->package_digest) ||
	    !is_digest(v->package_digest))
		return "package_digest";
	if (get_text(j, "layer_digest", v->layer_digest, sizeof v->layer_digest) ||
	    (v->layer_digest[0] && !is_digest(v->layer_digest)))
		return "layer_digest";
	if (reason && (strlen(reason) > REASON_TEXT_MAX || !(v->reason = strdup(reason))))
		return "reason";
	return NULL;
}

static const char *
parse_numbers(const struct json *j, struct function_version *v)
{
	const struct {
		const char *key;
		int64_t max;
		uint32_t *out;
	} numbers[] = {
		{ "version", UINT32_MAX, &v->version },
		{ "memory_mib", 1 << 20, &v->memory_mib },
		{ "tmp_size_mib", 1 << 20, &v->tmp_size_mib },
		{ "cpu_millis", 1 << 20, &v->cpu_millis },
		{ "pids", 1 << 22, &v->pids },
		{ "timeout_s", 86400, &v->timeout_s },
		{ "retries", 1000, &v->retries },
		{ "limit", 1000000, &v->limit },
		{ "output_bytes", 1 << 30, &v->output_bytes },
	};

	for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
		if (get_number(j, numbers[i].key, numbers[i].max, numbers[i].out))
			return numbers[i].key;
	return NULL;
}

int
function_version_parse(const struct json *j, struct function_version *v, struct err *e)
{
	const struct json *env = json_get(j, "env"), *allow = json_get(j, "allow");
	const struct json *own = json_get(j, "own_runtime");
	struct net_rules rules;
	const char *wrong;

	memset(v, 0, sizeof *v);
	wrong = json_is_object(j) ? parse_texts(j, v) : "version";
	if (!wrong)
		wrong = parse_numbers(j, v);
	if (!wrong && env) {
		v->env = json_is_object(env) ? json_print(env) : NULL;
		if (!v->env || strlen(v->env) > ENV_TEXT_MAX)
			wrong = "env";
	}
	if (!wrong && allow) {
		v->allow = json_is_array(allow) && function_allow_parse(allow, &rules, NULL) == 0
				   ? json_print(allow)
				   : NULL;
		if (!v->allow)
			wrong = "allow";
	}
	if (!wrong && own) {
		v->own_runtime = runtime_rule_check(own, NULL) == 0 ? json_print(own) : NULL;
		if (!v->own_runtime)
			wrong = "own_runtime";
	}
	if (wrong) {
		function_version_clear(v);
		return err_set(e, ERR_INPUT, "version: member '%s' is missing or wrong", wrong);
	}
	return 0;
}
