/*
 * From a table of answers to a BPF program for seccomp(2).  Used while building
 * (gen_seccomp, for the lists that are part of `pratai`) and by pratai-seccomp, for a
 * profile of the user's.  Not linked into the programs that load filters.
 *
 * An answer is a return value of the kernel's: SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO | n, ...
 */
#ifndef PRATAI_SECCOMP_COMPILE_H
#define PRATAI_SECCOMP_COMPILE_H

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdint.h>

struct err;

enum {
	SECCOMP_NUMBERS = 1024, /* call numbers from 0 that have an answer of their own */
	SECCOMP_ENTRIES_MAX = 2048,
	SECCOMP_CODE_MAX = BPF_MAXINSNS,
	SECCOMP_ARGS = 6,
};

enum seccomp_test { TEST_EQ, TEST_NE, TEST_LT, TEST_LE, TEST_GT, TEST_GE };

/* (args[arg] & mask) test value, 64 bits without a sign. */
struct seccomp_condition {
	uint8_t arg, test;
	uint64_t mask, value;
};

/* The answer when all conditions hold. */
struct seccomp_entry {
	struct seccomp_condition all[SECCOMP_ARGS];
	unsigned count;
	uint32_t answer;
	int next; /* the call's next entry, -1: none */
};

/* Too large for a stack. */
struct seccomp_table {
	uint32_t architecture; /* AUDIT_ARCH_...: another one's calls end the process */
	uint32_t beyond;       /* the answer to numbers from SECCOMP_NUMBERS on, x32 among them */
	struct {
		int first, last;    /* entries: the first that holds decides; -1: none */
		uint32_t otherwise; /* when none does */
	} calls[SECCOMP_NUMBERS];
	struct seccomp_entry entries[SECCOMP_ENTRIES_MAX];
	unsigned count;
};

/* An empty table, in which every call has this answer. */
void seccomp_table_init(struct seccomp_table *t, uint32_t architecture, uint32_t answer);
/* Appends an entry to a call's; its next is set here.  ERR_LIMIT: the table is full. */
int seccomp_table_add(struct seccomp_table *t, unsigned number, const struct seccomp_entry *entry,
		      struct err *e);
/* What the table says, without any code. */
uint32_t seccomp_table_answer(const struct seccomp_table *t, const struct seccomp_data *data);

/*
 * Fills code and *length.  ERR_LIMIT: the program would be longer than the kernel takes.
 * The result is not believed: it is run over every call number with arguments around the
 * values of the table, and compared with the table.
 */
int seccomp_compile(const struct seccomp_table *t, struct sock_filter code[SECCOMP_CODE_MAX],
		    unsigned *length, struct err *e);

#endif
