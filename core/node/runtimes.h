/*
 * The runtimes of this node: <directory>/<name>/runtime.json, read once at start.
 */
#ifndef PRATAI_NODE_RUNTIMES_H
#define PRATAI_NODE_RUNTIMES_H

#include <stddef.h>

struct err;
struct json;
struct runtimes;

enum { RUNTIMES_MAX = 64, RUNTIME_ARGV_MAX = 64 };

struct runtime {
	char name[32]; /* of its directory */
	char *description;
	char *command[RUNTIME_ARGV_MAX + 1]; /* runs an event; NULL-ended */
	char *build[RUNTIME_ARGV_MAX + 1];   /* builds a version; empty: used as it is */
	struct json *env;                    /* object of texts, or NULL */
};

/* ERR_NODE or ERR_INPUT when the directory or a description in it is not readable. */
struct runtimes *runtimes_load(const char *directory, struct err *e);
void runtimes_free(struct runtimes *r);

const struct runtime *runtimes_find(const struct runtimes *r, const char *name);
size_t runtimes_count(const struct runtimes *r);
const struct runtime *runtimes_nth(const struct runtimes *r, size_t i);

#endif
