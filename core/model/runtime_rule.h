/*
 * What a runtime is described by, whoever does it: an operator's runtime.json or a project's
 * own document.  An object with
 *   command  a list of 1 to 64 texts that begins with an absolute path
 *   build    the same, or absent, null or empty: a package is used as it is
 *   env      an object of texts, or absent or null
 */
#ifndef PRATAI_MODEL_RUNTIME_RULE_H
#define PRATAI_MODEL_RUNTIME_RULE_H

struct err;
struct json;

enum { RUNTIME_ARGV_MAX = 64, RUNTIME_TEXT_MAX = 32 << 10 };

/* -1: ERR_INPUT, naming the member. */
int runtime_rule_check(const struct json *runtime, struct err *e);

/* The three members alone, those that are there. */
struct json *runtime_rule_inline(const struct json *runtime);

#endif
