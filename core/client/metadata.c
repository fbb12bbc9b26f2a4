#include "core/client/metadata.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/net_rule.h"
#include "core/base/opt.h"
#include "core/base/str.h"

enum kind { KIND_TEXT, KIND_WHOLE, KIND_FRACTION };

static const struct {
	const char *option, *field;
	enum kind kind;
} fields[] = {
	{ "description", "description", KIND_TEXT },
	{ "runtime", "runtime", KIND_TEXT },
	{ "image", "image", KIND_TEXT },
	{ "type", "type", KIND_TEXT },
	{ "event", "event", KIND_TEXT },
	{ "network", "network", KIND_TEXT },
	{ "frequency", "frequency", KIND_WHOLE },
	{ "memory", "memory", KIND_WHOLE },
	{ "pids", "pids", KIND_WHOLE },
	{ "timeout", "timeout", KIND_WHOLE },
	{ "tmp-size", "tmp_size", KIND_WHOLE },
	{ "limit", "limit", KIND_WHOLE },
	{ "retries", "retries", KIND_WHOLE },
	{ "cpus", "cpus", KIND_FRACTION },
};

static int
put_field(struct json *out, size_t i, const char *value, struct err *e)
{
	const char *option = fields[i].option, *field = fields[i].field;
	int64_t whole;
	double fraction;

	switch (fields[i].kind) {
	case KIND_TEXT:
		if (!str_is_utf8(value, strlen(value)))
			return err_set(e, ERR_INPUT, "--%s: is not UTF-8", option);
		json_put_str(out, field, value);
		return 0;
	case KIND_WHOLE:
		if (str_int(value, -INT32_MAX, INT64_C(1) << 53, &whole))
			return err_set(e, ERR_INPUT, "--%s: '%.40s' is not a whole number", option,
				       value);
		json_put_int(out, field, whole);
		return 0;
	case KIND_FRACTION:
		if (str_double(value, -1e9, 1e9, &fraction))
			return err_set(e, ERR_INPUT, "--%s: '%.40s' is not a number", option, value);
		json_put_double(out, field, fraction);
		return 0;
	}
	return 0;
}

int
metadata_put_env(struct json *out, const struct opt_values *v, struct err *e)
{
	struct json *env = json_object();
	const char *pair;

	for (size_t i = 0; (pair = opt_nth(v, "env", i)); i++) {
		const char *equals = strchr(pair, '=');
		char *name;

		if (!equals || equals == pair || !str_is_utf8(pair, strlen(pair))) {
			json_free(env);
			return err_set(e, ERR_INPUT, "--env: '%.80s' is not NAME=VALUE in UTF-8", pair);
		}
		name = strndup(pair, (size_t)(equals - pair));
		if (name) {
			json_remove(env, name); /* the last one counts */
			json_put_str(env, name, equals + 1);
		}
		free(name);
	}
	json_put(out, "env", env);
	return 0;
}

static int
put_tags(struct json *out, const struct opt_values *v, struct err *e)
{
	struct json *tags = json_array();
	const char *list;

	for (size_t i = 0; (list = opt_nth(v, "tags", i)); i++) {
		if (!str_is_utf8(list, strlen(list))) {
			json_free(tags);
			return err_set(e, ERR_INPUT, "--tags: is not UTF-8");
		}
		while (*list) {
			size_t n = strcspn(list, ",");
			char *tag = strndup(list, n);

			if (n && tag)
				json_add_str(tags, tag);
			free(tag);
			list += n + (list[n] == ',');
		}
	}
	json_put(out, "tags", tags);
	return 0;
}

static int
put_allow(struct json *out, const struct opt_values *v, struct err *e)
{
	struct json *list = json_array();
	const char *text;

	for (size_t i = 0; (text = opt_nth(v, "allow", i)); i++) {
		struct net_rule rule;

		if (net_rule_parse(text, &rule, e)) {
			json_free(list);
			return err_wrap(e, "--allow");
		}
		json_add_str(list, text);
	}
	json_put(out, "allow", list);
	return 0;
}

char *
metadata_make(const struct opt_values *v, const char *name, struct err *e)
{
	struct json *out = json_object();
	char *text = NULL;
	int rc = 0;

	if (name && !str_is_utf8(name, strlen(name)))
		rc = err_set(e, ERR_INPUT, "the name is not UTF-8");
	else if (name)
		json_put_str(out, "name", name);
	for (size_t i = 0; rc == 0 && i < sizeof fields / sizeof *fields; i++)
		if (opt_given(v, fields[i].option))
			rc = put_field(out, i, opt_get(v, fields[i].option), e);
	if (rc == 0 && opt_given(v, "env"))
		rc = metadata_put_env(out, v, e);
	if (rc == 0 && opt_given(v, "tags"))
		rc = put_tags(out, v, e);
	if (rc == 0 && opt_given(v, "allow"))
		rc = put_allow(out, v, e);
	if (rc == 0 && !(text = json_print(out)))
		err_set(e, ERR_NODE, "no memory");
	json_free(out);
	return text;
}
