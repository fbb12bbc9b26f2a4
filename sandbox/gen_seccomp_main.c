/*
 * Makes the filters that are part of `pratai`: reads the policy (seccomp_rules.c), writes C
 * text with the BPF programs to stdout.  Runs on the building machine.
 *
 * Because a mistake here would be a hole, neither the table that is compiled nor the
 * program is believed: each program is run over every call number with arguments around
 * every value of the rules, and compared with the policy read directly.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/err.h"
#include "sandbox/seccomp_compile.h"
#include "sandbox/seccomp_names.h"
#include "sandbox/seccomp_policy.h"
#include "sandbox/seccomp_rules.h"
#include "sandbox/seccomp_run.h"

enum { CASES_MAX = 64, PROBES_MAX = 2 + 7 * CASES_MAX };

/* What a call number leads to: a rule, or an action at once. */
struct answer {
	const struct seccomp_rule *rule;
	uint16_t action;
};

static void __attribute__((noreturn))
die(const char *what, const char *name)
{
	fprintf(stderr, "gen_seccomp: %s: %s\n", name, what);
	exit(1);
}

/* What the lists say, without any code. */
static struct answer
named(const struct seccomp_policy *policy, int number)
{
	const struct seccomp_call *const lists[] = {policy->allowed, policy->refused};

	for (const char *const *w = policy->without; w && *w; w++)
		if (seccomp_number(*w) == number)
			return (struct answer){NULL, ENOSYS};
	for (unsigned i = 0; i < 2; i++)
		for (const struct seccomp_call *c = lists[i]; c->name; c++)
			if (seccomp_number(c->name) == number)
				return (struct answer){NULL, i ? EPERM : SECCOMP_ALLOW};
	for (const struct seccomp_rule *r = policy->rules; r->name; r++)
		if (seccomp_number(r->name) == number)
			return (struct answer){r, r->otherwise};
	return (struct answer){NULL, ENOSYS};
}

static uint32_t
meant(const struct seccomp_policy *policy, const struct answer *a, const struct seccomp_data *data)
{
	const struct seccomp_rule *r = a->rule;
	uint16_t action = a->action;

	for (unsigned i = 0; r && i < r->case_count; i++) {
		const struct seccomp_case *c = &r->cases[i];
		bool is = ((uint32_t)data->args[c->arg] & c->mask) == c->value;

		if (is == (c->op == SECCOMP_IS)) {
			action = c->action;
			break;
		}
	}
	if (action == EPERM && policy->deadly)
		return SECCOMP_RET_KILL_PROCESS;
	return action == SECCOMP_ALLOW ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | action;
}

struct program {
	struct sock_filter code[SECCOMP_CODE_MAX];
	unsigned length;
};

static void
check_one(const struct program *p, const struct seccomp_policy *policy, const struct answer *a,
	  const struct seccomp_data *data)
{
	uint32_t want = meant(policy, a, data), got = seccomp_run(p->code, p->length, data);

	if (want == got)
		return;
	fprintf(stderr, "call %d (%#llx, %#llx, %#llx): %#x instead of %#x\n", data->nr,
		(unsigned long long)data->args[0], (unsigned long long)data->args[1],
		(unsigned long long)data->args[2], got, want);
	die("the program does not do what the lists say", policy->variant);
}

/* Values of one argument around those that the rule knows, with and without high bits. */
static unsigned
probes(const struct seccomp_rule *r, unsigned arg, uint64_t out[PROBES_MAX])
{
	unsigned n = 0;

	out[n++] = 0;
	out[n++] = UINT64_MAX;
	for (unsigned i = 0; r && i < r->case_count; i++) {
		const struct seccomp_case *c = &r->cases[i];

		if (c->arg != arg)
			continue;
		out[n++] = c->value;
		out[n++] = c->value | 1ull << 32;
		out[n++] = (uint64_t)c->value + 1;
		out[n++] = (uint32_t)(c->value - 1);
		out[n++] = c->value | (uint32_t)~c->mask;
		out[n++] = c->mask;
		out[n++] = c->value ^ (c->mask & -c->mask);
	}
	return n;
}

static void
verify(const struct program *p, const struct seccomp_policy *policy)
{
	static const struct answer unknown = {NULL, ENOSYS};
	static uint64_t values[3][PROBES_MAX];
	struct seccomp_data data = {.arch = seccomp_architecture()};
	unsigned n[3];

	for (int nr = 0; nr < SECCOMP_NUMBERS; nr++) {
		struct answer a = named(policy, nr);

		for (unsigned arg = 0; arg < 3; arg++)
			n[arg] = probes(a.rule, arg, values[arg]);
		for (unsigned i = 0; i < n[0] * n[1] * n[2]; i++) {
			data.nr = nr;
			data.args[0] = values[0][i % n[0]];
			data.args[1] = values[1][i / n[0] % n[1]];
			data.args[2] = values[2][i / n[0] / n[1]];
			check_one(p, policy, &a, &data);
			data.nr = nr | 0x40000000; /* x32 */
			check_one(p, policy, &unknown, &data);
		}
	}
	data.nr = -1;
	check_one(p, policy, &unknown, &data);
	data.nr = 1;
	data.arch ^= 1;
	if (seccomp_run(p->code, p->length, &data) != SECCOMP_RET_KILL_PROCESS)
		die("another architecture is let in", policy->variant);
}

static void
print(const struct program *p, const char *variant)
{
	printf("static const struct sock_filter seccomp_%s[] = {\n", variant);
	for (unsigned i = 0; i < p->length; i++)
		printf("\t{0x%02x, %u, %u, 0x%08x},\n", p->code[i].code, p->code[i].jt,
		       p->code[i].jf, p->code[i].k);
	printf("};\n");
}

int
main(void)
{
	static struct seccomp_table table;
	static struct program p;
	struct err e;

	printf("/* Made by gen_seccomp from seccomp_rules.c. */\n");
	for (unsigned i = 0; i < SECCOMP_VARIANTS; i++) {
		const struct seccomp_policy *policy = &seccomp_policies[i];

		if (seccomp_policy_table(&table, policy, &e) ||
		    seccomp_compile(&table, p.code, &p.length, &e))
			die(e.text, policy->variant);
		verify(&p, policy);
		print(&p, policy->variant);
	}
	return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
