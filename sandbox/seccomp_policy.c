#include "sandbox/seccomp_policy.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "core/base/err.h"
#include "sandbox/seccomp_compile.h"
#include "sandbox/seccomp_names.h"
#include "sandbox/seccomp_rules.h"

const struct seccomp_policy *
seccomp_policy_find(const char *variant)
{
	for (unsigned i = 0; i < SECCOMP_VARIANTS; i++)
		if (!strcmp(seccomp_policies[i].variant, variant))
			return &seccomp_policies[i];
	return NULL;
}

static bool
is_without(const struct seccomp_policy *policy, const char *name)
{
	for (const char *const *w = policy->without; w && *w; w++)
		if (!strcmp(*w, name))
			return true;
	return false;
}

static uint32_t
answer_of(const struct seccomp_policy *policy, uint16_t action)
{
	if (action == SECCOMP_ALLOW)
		return SECCOMP_RET_ALLOW;
	if (action == EPERM && policy->deadly)
		return SECCOMP_RET_KILL_PROCESS;
	return SECCOMP_RET_ERRNO | action;
}

/* The number, or -1: nothing is to be said about it.  0 or -1. */
static int
number_of(const struct seccomp_policy *policy, const char *name, int number, int *out,
	  struct err *e)
{
	int known = seccomp_number(name), n = known == SECCOMP_NUMBER_UNKNOWN ? number : known;

	if (known == SECCOMP_NUMBER_UNKNOWN && number < 0)
		return err_set(e, ERR_INPUT, "%s: no such system call", name);
	if (known >= 0 && number >= 0 && known != number)
		return err_set(e, ERR_INPUT, "%s has another number in libseccomp", name);
	if (n >= SECCOMP_NUMBERS)
		return err_set(e, ERR_INPUT, "%s: its number is out of bounds", name);
	*out = n < 0 || is_without(policy, name) ? -1 : n;
	return 0;
}

static int
assign(struct seccomp_table *t, bool taken[SECCOMP_NUMBERS], const struct seccomp_policy *policy,
       const struct seccomp_call *call, uint16_t action, struct err *e)
{
	int n;

	if (number_of(policy, call->name, call->number, &n, e))
		return -1;
	if (n < 0)
		return 0;
	if (taken[n])
		return err_set(e, ERR_INPUT, "%s is in the policy twice", call->name);
	taken[n] = true;
	t->calls[n].otherwise = answer_of(policy, action);
	return 0;
}

static int
add_cases(struct seccomp_table *t, const struct seccomp_policy *policy, unsigned number,
	  const struct seccomp_rule *r, struct err *e)
{
	for (unsigned i = 0; i < r->case_count; i++) {
		const struct seccomp_case *c = &r->cases[i];
		struct seccomp_entry entry = {.answer = answer_of(policy, c->action)};

		entry.all[entry.count++] = (struct seccomp_condition){
			c->arg, c->op == SECCOMP_IS ? TEST_EQ : TEST_NE, c->mask, c->value};
		if (seccomp_table_add(t, number, &entry, e))
			return -1;
	}
	return 0;
}

int
seccomp_policy_table(struct seccomp_table *t, const struct seccomp_policy *policy, struct err *e)
{
	bool taken[SECCOMP_NUMBERS] = {false};
	int n;

	seccomp_table_init(t, seccomp_architecture(), SECCOMP_RET_ERRNO | ENOSYS);
	for (const struct seccomp_call *c = policy->allowed; c->name; c++)
		if (assign(t, taken, policy, c, SECCOMP_ALLOW, e))
			return -1;
	for (const struct seccomp_call *c = policy->refused; c->name; c++)
		if (assign(t, taken, policy, c, EPERM, e))
			return -1;
	for (const struct seccomp_rule *r = policy->rules; r->name; r++) {
		struct seccomp_call call = {r->name, -1};

		if (assign(t, taken, policy, &call, r->otherwise, e) ||
		    number_of(policy, r->name, -1, &n, e) ||
		    (n >= 0 && add_cases(t, policy, (unsigned)n, r, e)))
			return -1;
	}
	return 0;
}
