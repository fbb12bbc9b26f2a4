/*
 * The rule of runtimes' descriptions.
 */
#include "core/model/runtime_rule.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/err.h"
#include "core/base/json.h"

static int
check_words(const struct json *j, const char *key, struct err *e)
{
	const struct json *list = json_get(j, key);

	if (!list || json_is_null(list))
		return 0;
	if (!json_is_array(list) || json_count(list) > RUNTIME_ARGV_MAX)
		return err_set(e, ERR_INPUT, "'%s' is not a list of at most %d words", key, RUNTIME_ARGV_MAX);
	for (const struct json *w = json_first(list); w; w = json_next(w)) {
		const char *word = json_string_value(w);

		if (!word || (w == json_first(list) && *word != '/'))
			return err_set(e, ERR_INPUT, "'%s' is not a list of words that begins with "
				       "an absolute path", key);
	}
	return 0;
}

int
runtime_rule_check(const struct json *runtime, struct err *e)
{
	const struct json *env = json_get(runtime, "env");
	char *text;
	size_t len;

	if (!json_is_object(runtime))
		return err_set(e, ERR_INPUT, "not an object");
	if (check_words(runtime, "command", e) || check_words(runtime, "build", e))
		return -1;
	if (json_count(json_get(runtime, "command")) == 0)
		return err_set(e, ERR_INPUT, "no 'command'");
	if (env && !json_is_null(env) && !json_is_object(env))
		return err_set(e, ERR_INPUT, "'env' is not an object");
	for (const struct json *m = json_first(env); m; m = json_next(m)) {
		if (!json_is_string(m))
			return err_set(e, ERR_INPUT, "'env': '%.60s' is not a text", json_key(m));
		if (!*json_key(m) || strchr(json_key(m), '='))
			return err_set(e, ERR_INPUT, "'env': '%.60s' is not a variable's name", json_key(m));
	}
	text = json_print(runtime);
	len = text ? strlen(text) : 0;
	free(text);
	return len <= RUNTIME_TEXT_MAX ? 0 : err_set(e, ERR_INPUT, "more than %d bytes in all", RUNTIME_TEXT_MAX);
}

struct json *
runtime_rule_inline(const struct json *runtime)
{
	static const char *const members[] = { "command", "build", "env" };
	struct json *j = json_object();

	for (size_t i = 0; i < sizeof members / sizeof *members; i++)
		if (json_get(runtime, members[i]))
			json_put(j, members[i], json_copy(json_get(runtime, members[i])));
	return j;
}
