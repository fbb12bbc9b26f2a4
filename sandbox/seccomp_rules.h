/*
 * The policy of system calls as a table: data, from which gen_seccomp makes the filter
 * and tests ask what is meant.  Not linked into the programs.
 *
 * A call that is in no list gets ENOSYS, as on a kernel that does not have it, so that
 * newer C libraries fall back.  A call that exists and is refused by policy gets EPERM.
 */
#ifndef PRATAI_SECCOMP_RULES_H
#define PRATAI_SECCOMP_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is done: 0 allows, another number is the errno that the call fails with. */
enum { SECCOMP_ALLOW = 0 };

enum seccomp_op {
	SECCOMP_IS,
	SECCOMP_IS_NOT,
};

/*
 * (low 32 bits of argument arg & mask) is, or is not, value → action.  Only the low 32
 * bits: each argument judged here is an int for the kernel, which ignores the high ones (a
 * filter that compared 64 bits let 1<<32 | TIOCSTI pass: CVE-2019-10063), or has the flags
 * in question there.
 */
struct seccomp_case {
	uint8_t arg;
	uint8_t op;
	uint16_t action;
	uint32_t mask;
	uint32_t value;
};

struct seccomp_rule {
	const char *name;
	const struct seccomp_case *cases; /* the first that holds decides */
	unsigned case_count;
	uint16_t otherwise;
};

/* A call; number -1: the library knows the name.  Else the number that all architectures
 * share, for calls newer than the library. */
struct seccomp_call {
	const char *name;
	int number;
};

struct seccomp_policy {
	const char *variant;
	const struct seccomp_call *allowed; /* end with a NULL name */
	const struct seccomp_call *refused; /* EPERM */
	const struct seccomp_rule *rules;
	const char *const *without; /* NULL, or names whose calls get ENOSYS whatever the lists say */
	bool deadly;                /* an EPERM is instead the end of the process */
};

/*
 * "default"; "strict": the default less what ordinary programs can do without, and refused
 * calls end the process; "init": what pid 1 of a sandbox made ahead needs in the end, to wait and
 * to say how it ended.
 */
enum { SECCOMP_VARIANTS = 3 };
extern const struct seccomp_policy seccomp_policies[SECCOMP_VARIANTS];

#endif
