/*
 * Makes the filter: reads the policy (seccomp_rules.c), writes C text with the BPF
 * programs to stdout.  Runs on the building machine; libseccomp knows the numbers of
 * calls there, and no program of ours needs it afterwards.
 *
 * Why the programs are not libseccomp's own: it makes two instructions for each of the
 * 300 calls, and the kernel, when it loads a filter, checks, compiles and then tries it
 * for every call number; that is on the path of every event.  Here neighbouring numbers
 * with the same answer are one range, found by a binary search: a quarter of the
 * instructions, at most eight comparisons for a call.  It also says what libseccomp
 * cannot: conditions on 32 of 64 bits with an "otherwise".
 *
 * Because a mistake here would be a hole, the result is not believed: each program is
 * run, by the interpreter below, over every call number with arguments around every value
 * of the rules, and compared with the policy read directly from the table.
 *
 * Layout of a program: architecture check, search tree, the blocks of rules, the returns.
 * Jumps go forward only; conditional ones reach 255 instructions, which is checked.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sandbox/seccomp_rules.h"

enum {
	NUMBERS = 1024,    /* call numbers from 0 that are looked at */
	ANSWERS_MAX = 64,  /* different answers: allow, errnos, rules */
	CODE_MAX = 1024,
	LABELS_MAX = 512,
	CASES_MAX = 64,
	PROBES_MAX = 2 + 7 * CASES_MAX,
};

/* What a call number leads to: a rule, or an action at once. */
struct answer {
	const struct seccomp_rule *rule;
	uint16_t action;
};

struct program {
	struct sock_filter code[CODE_MAX];
	/* per instruction, the labels of its jumps: resolved when all is placed; -1: next */
	int if_true[CODE_MAX], if_false[CODE_MAX];
	unsigned length;
	unsigned label_at[LABELS_MAX];
	unsigned labels;
	struct answer answers[ANSWERS_MAX];
	int answer_label[ANSWERS_MAX];
	unsigned answer_count;
	uint8_t of[NUMBERS]; /* index into answers; 0: in no list */
	uint32_t architecture;
};

static void __attribute__((noreturn))
die(const char *what, const char *name)
{
	fprintf(stderr, "gen_seccomp: %s: %s\n", name, what);
	exit(1);
}

/* ---- From names to numbers ---- */

static uint8_t
answer_index(struct program *p, struct answer a)
{
	for (unsigned i = 0; i < p->answer_count; i++)
		if (p->answers[i].rule == a.rule && p->answers[i].action == a.action)
			return (uint8_t)i;
	if (p->answer_count == ANSWERS_MAX)
		die("too many answers", "policy");
	p->answers[p->answer_count] = a;
	return (uint8_t)p->answer_count++;
}

/* The number of a call here, or -1: another architecture's call. */
static int
number_of(const char *name, int number)
{
	int n = seccomp_syscall_resolve_name(name);

	if (n == __NR_SCMP_ERROR)
		n = number;
	else if (number >= 0 && n >= 0 && n != number)
		die("has another number in libseccomp", name);
	if (n == __NR_SCMP_ERROR)
		die("no such system call", name);
	return n < 0 ? -1 : n;
}

static void
assign(struct program *p, const char *name, int number, struct answer a)
{
	int n = number_of(name, number);

	if (n < 0)
		return;
	if (n >= NUMBERS)
		die("its number is out of bounds", name);
	if (p->of[n] != 0)
		die("is in the policy twice", name);
	p->of[n] = answer_index(p, a);
}

static void
read_policy(struct program *p, const struct seccomp_policy *policy)
{
	answer_index(p, (struct answer){NULL, ENOSYS}); /* 0: what is not named */
	for (const struct seccomp_call *c = policy->allowed; c->name; c++)
		assign(p, c->name, c->number, (struct answer){NULL, SECCOMP_ALLOW});
	for (const struct seccomp_call *c = policy->refused; c->name; c++)
		assign(p, c->name, c->number, (struct answer){NULL, EPERM});
	for (const struct seccomp_rule *r = policy->rules; r->name; r++)
		assign(p, r->name, -1, (struct answer){r, r->otherwise});
}

/* ---- Code ---- */

static unsigned
new_label(struct program *p)
{
	if (p->labels == LABELS_MAX)
		die("too many labels", "program");
	return p->labels++;
}

static void
put(struct program *p, uint16_t code, uint32_t k, int if_true, int if_false)
{
	if (p->length == CODE_MAX)
		die("too long", "program");
	p->code[p->length] = (struct sock_filter){code, 0, 0, k};
	p->if_true[p->length] = if_true;
	p->if_false[p->length] = if_false;
	p->length++;
}

static int
label_of(struct program *p, struct answer a)
{
	return p->answer_label[answer_index(p, a)];
}

/* starts[from..to) are where ranges of one answer begin. */
static void
put_tree(struct program *p, const unsigned *starts, unsigned from, unsigned to)
{
	unsigned mid = from + (to - from) / 2;
	int upper, lower;

	if (to - from == 1) { /* only when the whole tree is one range */
		put(p, BPF_JMP | BPF_JA, 0, p->answer_label[p->of[starts[from]]], -1);
		return;
	}
	upper = to - mid == 1 ? p->answer_label[p->of[starts[mid]]] : (int)new_label(p);
	lower = mid - from == 1 ? p->answer_label[p->of[starts[from]]] : -1;
	put(p, BPF_JMP | BPF_JGE | BPF_K, starts[mid], upper, lower);
	if (mid - from > 1)
		put_tree(p, starts, from, mid);
	if (to - mid > 1) {
		p->label_at[upper] = p->length;
		put_tree(p, starts, mid, to);
	}
}

static uint32_t
low_word(unsigned arg)
{
	uint32_t at = (uint32_t)(offsetof(struct seccomp_data, args) + 8 * arg);

	return at + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? 4 : 0);
}

/* Whether an earlier case may skip to this one, so that nothing is known to be loaded. */
static bool
is_skipped_to(const struct seccomp_rule *r, unsigned i)
{
	for (unsigned j = 0; j < i; j++)
		if (r->cases[j].op == SECCOMP_UNLESS && j + 1 + r->cases[j].action == i)
			return true;
	return false;
}

/* The cases of a rule: load, mask, compare; what the case before loaded is kept. */
static void
put_rule(struct program *p, const struct seccomp_rule *r)
{
	int label[CASES_MAX + 1], otherwise = label_of(p, (struct answer){NULL, r->otherwise});

	if (r->case_count > CASES_MAX)
		die("too many cases", r->name);
	for (unsigned i = 0; i < r->case_count; i++)
		label[i] = (int)new_label(p);
	label[r->case_count] = otherwise;
	for (unsigned i = 0; i < r->case_count; i++) {
		const struct seccomp_case *c = &r->cases[i], *before = i ? c - 1 : NULL;
		int next = i + 1 == r->case_count ? otherwise : -1, then;

		p->label_at[label[i]] = p->length;
		if (!before || before->arg != c->arg || before->mask != c->mask ||
		    is_skipped_to(r, i)) {
			put(p, BPF_LD | BPF_W | BPF_ABS, low_word(c->arg), -1, -1);
			if (c->mask != 0xffffffffu)
				put(p, BPF_ALU | BPF_AND | BPF_K, c->mask, -1, -1);
		}
		if (c->op == SECCOMP_UNLESS) {
			if (i + 1 + c->action > r->case_count)
				die("skips past its end", r->name);
			put(p, BPF_JMP | BPF_JEQ | BPF_K, c->value, -1, label[i + 1 + c->action]);
			continue;
		}
		then = label_of(p, (struct answer){NULL, c->action});
		put(p, BPF_JMP | BPF_JEQ | BPF_K, c->value, c->op == SECCOMP_IS ? then : next,
		    c->op == SECCOMP_IS ? next : then);
	}
}

static unsigned
distance(const struct program *p, unsigned from, int label, unsigned max)
{
	unsigned d;

	if (label < 0)
		return 0;
	d = p->label_at[label] - (from + 1);
	if (p->label_at[label] <= from || d > max)
		die("a jump is too long", "program");
	return d;
}

static void
resolve(struct program *p)
{
	for (unsigned i = 0; i < p->length; i++) {
		struct sock_filter *f = &p->code[i];

		if (f->code == (BPF_JMP | BPF_JA)) {
			f->k = distance(p, i, p->if_true[i], CODE_MAX);
		} else if (BPF_CLASS(f->code) == BPF_JMP) {
			f->jt = (uint8_t)distance(p, i, p->if_true[i], 255);
			f->jf = (uint8_t)distance(p, i, p->if_false[i], 255);
		}
	}
}

static void
put_program(struct program *p)
{
	unsigned starts[NUMBERS], count = 0;
	int mine;

	/* Every action that a rule may take needs a return of its own. */
	for (unsigned i = 0; i < p->answer_count; i++) {
		const struct seccomp_rule *r = p->answers[i].rule;

		for (unsigned j = 0; r && j < r->case_count; j++)
			if (r->cases[j].op != SECCOMP_UNLESS)
				answer_index(p, (struct answer){NULL, r->cases[j].action});
		if (r)
			answer_index(p, (struct answer){NULL, r->otherwise});
	}
	for (unsigned i = 0; i < p->answer_count; i++)
		p->answer_label[i] = (int)new_label(p);
	for (unsigned n = 0; n < NUMBERS; n++)
		if (n == 0 || p->of[n] != p->of[n - 1])
			starts[count++] = n;

	mine = (int)new_label(p);
	put(p, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch), -1, -1);
	put(p, BPF_JMP | BPF_JEQ | BPF_K, p->architecture, mine, -1);
	put(p, BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, -1, -1);
	p->label_at[mine] = p->length;
	put(p, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr), -1, -1);
	put_tree(p, starts, 0, count);
	for (unsigned i = 0; i < p->answer_count; i++) {
		if (!p->answers[i].rule)
			continue;
		p->label_at[p->answer_label[i]] = p->length;
		put_rule(p, p->answers[i].rule);
	}
	for (unsigned i = 0; i < p->answer_count; i++) {
		uint16_t action = p->answers[i].action;

		if (p->answers[i].rule)
			continue;
		p->label_at[p->answer_label[i]] = p->length;
		put(p, BPF_RET | BPF_K,
		    action == SECCOMP_ALLOW ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | action, -1, -1);
	}
	resolve(p);
}

/* ---- The proof ---- */

static uint32_t
interpret(const struct program *p, const struct seccomp_data *data)
{
	uint32_t a = 0;

	for (unsigned i = 0; i < p->length; i++) {
		const struct sock_filter *f = &p->code[i];

		switch (f->code) {
		case BPF_LD | BPF_W | BPF_ABS:
			memcpy(&a, (const char *)data + f->k, sizeof a);
			break;
		case BPF_ALU | BPF_AND | BPF_K:
			a &= f->k;
			break;
		case BPF_JMP | BPF_JA:
			i += f->k;
			break;
		case BPF_JMP | BPF_JEQ | BPF_K:
			i += a == f->k ? f->jt : f->jf;
			break;
		case BPF_JMP | BPF_JGE | BPF_K:
			i += a >= f->k ? f->jt : f->jf;
			break;
		case BPF_RET | BPF_K:
			return f->k;
		default:
			die("an instruction that nobody put there", "program");
		}
	}
	die("runs off its end", "program");
}

/* What the table says, without any code. */
static uint32_t
meant(const struct answer *a, const struct seccomp_data *data)
{
	const struct seccomp_rule *r = a->rule;
	uint16_t action = a->action;

	for (unsigned i = 0; r && i < r->case_count; i++) {
		const struct seccomp_case *c = &r->cases[i];
		bool is = ((uint32_t)data->args[c->arg] & c->mask) == c->value;

		if (c->op == SECCOMP_UNLESS) {
			i += is ? 0 : c->action;
		} else if (is == (c->op == SECCOMP_IS)) {
			action = c->action;
			break;
		}
	}
	return action == SECCOMP_ALLOW ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | action;
}

static void
check_one(const struct program *p, const struct answer *a, const struct seccomp_data *data)
{
	uint32_t want = meant(a, data), got = interpret(p, data);

	if (want == got)
		return;
	fprintf(stderr, "call %d (%#llx, %#llx, %#llx): %#x instead of %#x\n", data->nr,
		(unsigned long long)data->args[0], (unsigned long long)data->args[1],
		(unsigned long long)data->args[2], got, want);
	die("the program does not do what the table says", "program");
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
verify(const struct program *p)
{
	static uint64_t values[3][PROBES_MAX];
	struct seccomp_data data = {.arch = p->architecture};
	unsigned n[3];

	for (unsigned nr = 0; nr < NUMBERS; nr++) {
		const struct answer *a = &p->answers[p->of[nr]];

		for (unsigned arg = 0; arg < 3; arg++)
			n[arg] = probes(a->rule, arg, values[arg]);
		for (unsigned i = 0; i < n[0] * n[1] * n[2]; i++) {
			data.nr = (int)nr;
			data.args[0] = values[0][i % n[0]];
			data.args[1] = values[1][i / n[0] % n[1]];
			data.args[2] = values[2][i / n[0] / n[1]];
			check_one(p, a, &data);
			data.nr = (int)(nr | 0x40000000); /* x32 */
			check_one(p, &p->answers[0], &data);
		}
	}
	data.nr = -1;
	check_one(p, &p->answers[0], &data);
	data.nr = 1;
	data.arch = p->architecture ^ 1;
	if (interpret(p, &data) != SECCOMP_RET_KILL_PROCESS)
		die("another architecture is let in", "program");
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
	static struct program p;

	printf("/* Made by gen_seccomp from seccomp_rules.c. */\n");
	for (unsigned i = 0; i < SECCOMP_VARIANTS; i++) {
		memset(&p, 0, sizeof p);
		p.architecture = seccomp_arch_native();
		read_policy(&p, &seccomp_policies[i]);
		put_program(&p);
		verify(&p);
		print(&p, seccomp_policies[i].variant);
	}
	return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
