/*
 * The lists of seccomp_rules.c as the table that is compiled.
 */
#ifndef PRATAI_SECCOMP_POLICY_H
#define PRATAI_SECCOMP_POLICY_H

struct err;
struct seccomp_policy;
struct seccomp_table;

/* The list of this name, or NULL. */
const struct seccomp_policy *seccomp_policy_find(const char *variant);

/* Fills t.  ERR_INPUT: a name that nobody knows, or that is in the lists twice. */
int seccomp_policy_table(struct seccomp_table *t, const struct seccomp_policy *policy,
			 struct err *e);

#endif
