/*
 * The environment of a sandbox: complete, nothing of the host's.
 */
#ifndef PRATAI_NODE_ENV_H
#define PRATAI_NODE_ENV_H

struct err;
struct json;

enum { ENV_MAX = 512, ENV_BYTES_MAX = 128 << 10 };

struct env {
	char *list[ENV_MAX + 1]; /* "NAME=value", NULL-ended */
	int count;
	unsigned long bytes;
};

/* PATH, HOME=/tmp, LANG. */
int env_base(struct env *env, struct err *e);
/* Sets name, over an earlier value.  ERR_INPUT: not a name, or too much. */
int env_set(struct env *env, const char *name, const char *value, struct err *e);
/* Every member of an object of texts; NULL: none. */
int env_set_all(struct env *env, const struct json *object, struct err *e);
void env_free(struct env *env);

#endif
