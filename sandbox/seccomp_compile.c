/*
 * Why the programs are not libseccomp's: it makes two instructions for each of the 300
 * calls, and the kernel, when it loads a filter, checks, compiles and then tries it for
 * every call number; that is on the path of every event.  Here neighbouring numbers with
 * the same answer are one range, found by a binary search: a quarter of the instructions,
 * at most nine comparisons for a call.  It also says what libseccomp cannot: several
 * conditions on one argument, in an order, with an "otherwise".
 *
 * Layout of a program: architecture check, search tree, a block for each call that has
 * conditions, the returns.  Jumps go forward only.  Conditional ones reach 255
 * instructions; where that is too short, all is made again with a jump of 32 bits behind
 * each.
 */
#include "sandbox/seccomp_compile.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "core/base/err.h"
#include "sandbox/seccomp_run.h"

enum {
	LABELS_MAX = 4 * SECCOMP_CODE_MAX,
	NEXT = -1,     /* the label of the next instruction */
	NOTHING = -1,  /* no word is known to be loaded */
	SHORT_MAX = 255,
};

struct program {
	const struct seccomp_table *table;
	struct sock_filter *code;
	/* per instruction, the labels of its jumps: resolved when all is placed */
	int if_true[SECCOMP_CODE_MAX], if_false[SECCOMP_CODE_MAX];
	unsigned length;
	unsigned label_at[LABELS_MAX];
	int labels;
	/* different answers, and where they are returned */
	uint32_t answers[SECCOMP_ENTRIES_MAX + SECCOMP_NUMBERS];
	int answer_label[SECCOMP_ENTRIES_MAX + SECCOMP_NUMBERS];
	unsigned answer_count;
	int block_label[SECCOMP_NUMBERS];
	bool far, too_long, too_far;
	int held;           /* offset of the word in the accumulator, or NOTHING */
	uint32_t held_mask; /* that it was masked with */
};

/* ---- The table ---- */

void
seccomp_table_init(struct seccomp_table *t, uint32_t architecture, uint32_t answer)
{
	t->architecture = architecture;
	t->beyond = answer;
	t->count = 0;
	for (unsigned n = 0; n < SECCOMP_NUMBERS; n++) {
		t->calls[n].first = t->calls[n].last = -1;
		t->calls[n].otherwise = answer;
	}
}

int
seccomp_table_add(struct seccomp_table *t, unsigned number, const struct seccomp_entry *entry,
		  struct err *e)
{
	int at = (int)t->count;

	if (t->count == SECCOMP_ENTRIES_MAX)
		return err_set(e, ERR_LIMIT, "more than %d conditional rules", SECCOMP_ENTRIES_MAX);
	t->entries[t->count] = *entry;
	t->entries[t->count++].next = -1;
	if (t->calls[number].first < 0)
		t->calls[number].first = at;
	else
		t->entries[t->calls[number].last].next = at;
	t->calls[number].last = at;
	return 0;
}

static bool
condition_holds(const struct seccomp_condition *c, const struct seccomp_data *data)
{
	uint64_t v = data->args[c->arg] & c->mask;

	switch ((enum seccomp_test)c->test) {
	case TEST_EQ: return v == c->value;
	case TEST_NE: return v != c->value;
	case TEST_LT: return v < c->value;
	case TEST_LE: return v <= c->value;
	case TEST_GT: return v > c->value;
	case TEST_GE: return v >= c->value;
	}
	return false;
}

uint32_t
seccomp_table_answer(const struct seccomp_table *t, const struct seccomp_data *data)
{
	unsigned number = (unsigned)data->nr;

	if (data->arch != t->architecture)
		return SECCOMP_RET_KILL_PROCESS;
	if (number >= SECCOMP_NUMBERS)
		return t->beyond;
	for (int i = t->calls[number].first; i >= 0; i = t->entries[i].next) {
		const struct seccomp_entry *entry = &t->entries[i];
		unsigned held = 0;

		while (held < entry->count && condition_holds(&entry->all[held], data))
			held++;
		if (held == entry->count)
			return entry->answer;
	}
	return t->calls[number].otherwise;
}

/* ---- Code ---- */

static int
new_label(struct program *p)
{
	if (p->labels == LABELS_MAX) {
		p->too_long = true;
		return 0;
	}
	return p->labels++;
}

static void
place(struct program *p, int label)
{
	p->label_at[label] = p->length;
}

static void
put(struct program *p, uint16_t code, uint32_t k, int if_true, int if_false)
{
	if (p->length == SECCOMP_CODE_MAX) {
		p->too_long = true;
		return;
	}
	p->code[p->length] = (struct sock_filter){code, 0, 0, k};
	p->if_true[p->length] = if_true;
	p->if_false[p->length] = if_false;
	p->length++;
}

static void
put_goto(struct program *p, int label)
{
	put(p, BPF_JMP | BPF_JA, 0, label, NEXT);
}

static void
put_test(struct program *p, uint16_t op, uint32_t k, int if_true, int if_false)
{
	uint16_t code = (uint16_t)(BPF_JMP | op | BPF_K);
	int on = NEXT, off;

	if (!p->far) {
		put(p, code, k, if_true, if_false);
		return;
	}
	off = new_label(p);
	if (if_true == NEXT)
		on = new_label(p);
	put(p, code, k, on, off);
	if (if_true != NEXT)
		put_goto(p, if_true);
	place(p, off);
	if (if_false != NEXT)
		put_goto(p, if_false);
	if (on != NEXT)
		place(p, on);
}

static int
label_of(struct program *p, uint32_t answer)
{
	unsigned i = 0;

	while (i < p->answer_count && p->answers[i] != answer)
		i++;
	if (i == p->answer_count) {
		p->answers[i] = answer;
		p->answer_label[i] = new_label(p);
		p->answer_count++;
	}
	return p->answer_label[i];
}

static int
target_of(struct program *p, unsigned number)
{
	if (number >= SECCOMP_NUMBERS)
		return label_of(p, p->table->beyond);
	if (p->table->calls[number].first >= 0)
		return p->block_label[number];
	return label_of(p, p->table->calls[number].otherwise);
}

/* starts[from..to) are where ranges of one answer begin. */
static void
put_tree(struct program *p, const unsigned *starts, unsigned from, unsigned to)
{
	unsigned mid = from + (to - from) / 2;
	int upper, lower;

	if (to - from == 1) { /* only when the whole tree is one range */
		put_goto(p, target_of(p, starts[from]));
		return;
	}
	upper = to - mid == 1 ? target_of(p, starts[mid]) : new_label(p);
	lower = mid - from == 1 ? target_of(p, starts[from]) : NEXT;
	put_test(p, BPF_JGE, starts[mid], upper, lower);
	if (mid - from > 1)
		put_tree(p, starts, from, mid);
	if (to - mid > 1) {
		place(p, upper);
		put_tree(p, starts, mid, to);
	}
}

/* One half of an argument, unless it is in the accumulator already. */
static void
put_load(struct program *p, unsigned arg, bool high, uint32_t mask)
{
	bool second = high == (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);
	int at = (int)(offsetof(struct seccomp_data, args) + 8 * arg + (second ? 4 : 0));

	if (p->held == at && p->held_mask == mask)
		return;
	put(p, BPF_LD | BPF_W | BPF_ABS, (uint32_t)at, NEXT, NEXT);
	if (mask != UINT32_MAX)
		put(p, BPF_ALU | BPF_AND | BPF_K, mask, NEXT, NEXT);
	p->held = at;
	p->held_mask = mask;
}

/* Only the halves that the mask looks at; without a sign, so that the high one decides first. */
static void
put_condition(struct program *p, const struct seccomp_condition *c, int yes, int no)
{
	uint32_t mask_high = (uint32_t)(c->mask >> 32), mask_low = (uint32_t)c->mask;
	uint32_t high = (uint32_t)(c->value >> 32), low = (uint32_t)c->value;
	bool inverse = c->test == TEST_NE || c->test == TEST_LT || c->test == TEST_LE;
	bool ordered = c->test != TEST_EQ && c->test != TEST_NE;
	uint16_t op = c->test == TEST_EQ || c->test == TEST_NE ? BPF_JEQ
		      : c->test == TEST_GT || c->test == TEST_LE ? BPF_JGT : BPF_JGE;

	if (inverse) { /* of ==, >= and > */
		int swap = yes;

		yes = no;
		no = swap;
	}
	if (mask_high || high) {
		put_load(p, c->arg, true, mask_high);
		if (ordered)
			put_test(p, BPF_JGT, high, yes, NEXT);
		put_test(p, BPF_JEQ, high, NEXT, no);
	}
	put_load(p, c->arg, false, mask_low);
	put_test(p, op, low, yes, no);
}

/* Whether every way out of it leaves the same word in the accumulator. */
static bool
has_one_load(const struct seccomp_entry *entry)
{
	return entry->count == 1 && !((entry->all[0].mask | entry->all[0].value) >> 32);
}

static void
put_block(struct program *p, unsigned number)
{
	const struct seccomp_table *t = p->table;

	p->held = NOTHING;
	for (int i = t->calls[number].first; i >= 0; i = t->entries[i].next) {
		const struct seccomp_entry *entry = &t->entries[i];
		bool more = entry->next >= 0;
		int next = more ? new_label(p) : label_of(p, t->calls[number].otherwise);

		for (unsigned k = 0; k < entry->count; k++) {
			bool last = k + 1 == entry->count;
			int yes = last ? label_of(p, entry->answer) : new_label(p);

			put_condition(p, &entry->all[k], yes, next);
			if (last)
				continue;
			place(p, yes);
			p->held = NOTHING;
		}
		if (entry->count == 0)
			put_goto(p, label_of(p, entry->answer));
		if (more)
			place(p, next);
		if (!has_one_load(entry))
			p->held = NOTHING;
	}
}

static uint32_t
distance(struct program *p, unsigned from, int label, uint32_t max)
{
	uint32_t d;

	if (label == NEXT)
		return 0;
	d = p->label_at[label] - (from + 1);
	if (d > max) {
		p->too_far = true;
		return 0;
	}
	return d;
}

static void
resolve(struct program *p)
{
	for (unsigned i = 0; i < p->length; i++) {
		struct sock_filter *f = &p->code[i];

		if (f->code == (BPF_JMP | BPF_JA)) {
			f->k = distance(p, i, p->if_true[i], UINT32_MAX);
		} else if (BPF_CLASS(f->code) == BPF_JMP) {
			f->jt = (uint8_t)distance(p, i, p->if_true[i], SHORT_MAX);
			f->jf = (uint8_t)distance(p, i, p->if_false[i], SHORT_MAX);
		}
	}
}

static void
put_program(struct program *p, bool far)
{
	const struct seccomp_table *t = p->table;
	unsigned starts[SECCOMP_NUMBERS + 1], count = 0;
	int mine;

	p->far = far;
	p->too_long = p->too_far = false;
	p->length = p->answer_count = 0;
	p->labels = 0;
	for (unsigned n = 0; n < SECCOMP_NUMBERS; n++) {
		if (t->calls[n].first >= 0)
			p->block_label[n] = new_label(p);
		if (n == 0 || target_of(p, n) != target_of(p, n - 1))
			starts[count++] = n;
	}
	if (target_of(p, SECCOMP_NUMBERS) != target_of(p, SECCOMP_NUMBERS - 1))
		starts[count++] = SECCOMP_NUMBERS;

	mine = new_label(p);
	put(p, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch), NEXT, NEXT);
	put(p, BPF_JMP | BPF_JEQ | BPF_K, t->architecture, mine, NEXT); /* near: never far */
	put(p, BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, NEXT, NEXT);
	place(p, mine);
	put(p, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr), NEXT, NEXT);
	put_tree(p, starts, 0, count);
	for (unsigned n = 0; n < SECCOMP_NUMBERS; n++) {
		if (t->calls[n].first < 0)
			continue;
		place(p, p->block_label[n]);
		put_block(p, n);
	}
	for (unsigned i = 0; i < p->answer_count; i++) {
		place(p, p->answer_label[i]);
		put(p, BPF_RET | BPF_K, p->answers[i], NEXT, NEXT);
	}
	if (!p->too_long)
		resolve(p);
}

/* ---- The proof ---- */

/* A value that tells one side of a condition from the other, chosen by r. */
static uint64_t
probe(const struct seccomp_condition *c, uint64_t r)
{
	switch (r % 8) {
	case 0: return c->value | (~c->mask & r >> 8);
	case 1: return c->value + 1;
	case 2: return c->value - 1;
	case 3: return c->value ^ 1ull << 32;
	case 4: return c->value ^ (c->mask & -c->mask);
	case 5: return (uint32_t)c->value;
	case 6: return r;
	default: return c->value;
	}
}

static uint64_t
next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static bool
is_same(const struct seccomp_table *t, const struct sock_filter *code, unsigned length,
	const struct seccomp_data *data)
{
	return seccomp_run(code, length, data) == seccomp_table_answer(t, data);
}

/* One call: around each of its entries' values, others' too, many times. */
static bool
is_proven(const struct seccomp_table *t, const struct sock_filter *code, unsigned length,
	  unsigned number, uint64_t *state)
{
	struct seccomp_data data = {.nr = (int)number, .arch = t->architecture};

	if (!is_same(t, code, length, &data))
		return false;
	for (int i = t->calls[number].first; i >= 0; i = t->entries[i].next) {
		const struct seccomp_entry *entry = &t->entries[i];

		for (unsigned round = 0; round < 24; round++) {
			for (unsigned k = 0; k < entry->count; k++)
				data.args[entry->all[k].arg] =
					probe(&entry->all[k], round < 4 ? 7 : next_random(state));
			if (!is_same(t, code, length, &data))
				return false;
		}
	}
	data.nr = (int)(number | 0x40000000); /* x32 */
	return is_same(t, code, length, &data);
}

static int
prove(const struct seccomp_table *t, const struct sock_filter *code, unsigned length, struct err *e)
{
	struct seccomp_data data = {.nr = -1, .arch = t->architecture};
	uint64_t state = 0x9e3779b97f4a7c15;
	bool proven = is_same(t, code, length, &data);

	for (unsigned n = 0; proven && n < SECCOMP_NUMBERS; n++)
		proven = is_proven(t, code, length, n, &state);
	data.nr = 1;
	data.arch ^= 1;
	if (!proven || !is_same(t, code, length, &data))
		return err_set(e, ERR_NODE, "the program does not do what the table says");
	return 0;
}

int
seccomp_compile(const struct seccomp_table *t, struct sock_filter code[SECCOMP_CODE_MAX],
		unsigned *length, struct err *e)
{
	static struct program p;

	p.table = t;
	p.code = code;
	put_program(&p, false);
	if (!p.too_long && p.too_far)
		put_program(&p, true);
	if (p.too_long || p.too_far)
		return err_set(e, ERR_LIMIT, "more than the %d instructions that the kernel takes",
			       SECCOMP_CODE_MAX);
	*length = p.length;
	return prove(t, code, p.length, e);
}
