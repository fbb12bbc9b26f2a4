/*
 * The runtimes of this node: <directory>/<name>/runtime.json, read once at start.
 */
#ifndef PRATAI_NODE_RUNTIMES_H
#define PRATAI_NODE_RUNTIMES_H

#include <stddef.h>

#include "core/model/runtime_rule.h"

struct err;
struct json;
struct runtimes;

enum { RUNTIMES_MAX = 64 };

struct runtime {
	char name[32]; /* of its directory; "": it has none */
	char *description;
	char *command[RUNTIME_ARGV_MAX + 1]; /* runs an event; NULL-ended */
	char *build[RUNTIME_ARGV_MAX + 1];   /* builds a version; empty: used as it is */
	struct json *env;                    /* object of texts, or NULL */
};

/* ERR_NODE or ERR_INPUT when the directory or a description in it is not readable. */
struct runtimes *runtimes_load(const char *directory, struct err *e);
void runtimes_free(struct runtimes *r);

const struct runtime *runtimes_find(const struct runtimes *r, const char *name);
/* What a version runs on: own (its own_runtime) becomes *made, for runtime_free; NULL: the
 * node's by name.  NULL: ERR_INPUT, ERR_NODE. */
const struct runtime *runtime_use(const struct runtimes *r, const char *name, const char *own,
				  struct runtime **made, struct err *e);
void runtime_free(struct runtime *r);
size_t runtimes_count(const struct runtimes *r);
const struct runtime *runtimes_nth(const struct runtimes *r, size_t i);

#endif
