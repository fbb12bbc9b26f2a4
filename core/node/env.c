/*
 * A list as execve takes it.  Later values replace earlier ones: first the base, then the
 * runtime's, then the function's own, then what the platform alone may say.
 */
#include "core/node/env.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/err.h"
#include "core/base/json.h"

int
env_base(struct env *env, struct err *e)
{
	memset(env, 0, sizeof *env);
	if (env_set(env, "PATH", "/usr/local/bin:/usr/bin:/bin", e) ||
	    env_set(env, "HOME", "/tmp", e) || env_set(env, "LANG", "C.UTF-8", e))
		return -1;
	return 0;
}

static int
find(const struct env *env, const char *name, size_t len)
{
	for (int i = 0; i < env->count; i++)
		if (!strncmp(env->list[i], name, len) && env->list[i][len] == '=')
			return i;
	return env->count;
}

int
env_set(struct env *env, const char *name, const char *value, struct err *e)
{
	size_t len = strlen(name), bytes = len + strlen(value) + 2;
	int at = find(env, name, len);
	char *entry;

	if (!len || strchr(name, '='))
		return err_set(e, ERR_INPUT, "environment: '%.60s' is not a name", name);
	if (at == ENV_MAX || env->bytes + bytes > ENV_BYTES_MAX)
		return err_set(e, ERR_INPUT, "environment: more than %d names or %d bytes", ENV_MAX,
			       ENV_BYTES_MAX);
	entry = malloc(bytes);
	if (!entry)
		return err_set(e, ERR_NODE, "environment: out of memory");
	snprintf(entry, bytes, "%s=%s", name, value);
	free(env->list[at]);
	env->list[at] = entry;
	env->count += at == env->count;
	env->bytes += bytes;
	return 0;
}

int
env_set_all(struct env *env, const struct json *object, struct err *e)
{
	for (const struct json *m = json_first(object); m; m = json_next(m)) {
		const char *value = json_string_value(m);

		if (!value)
			return err_set(e, ERR_INPUT, "environment: '%.60s' is not a text",
				       json_key(m));
		if (env_set(env, json_key(m), value, e))
			return -1;
	}
	return 0;
}

void
env_free(struct env *env)
{
	for (int i = 0; i < env->count; i++)
		free(env->list[i]);
	memset(env, 0, sizeof *env);
}
