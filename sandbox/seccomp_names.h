/*
 * Names and numbers of system calls: libseccomp's, which no other file includes, and those
 * that are newer than the library.
 */
#ifndef PRATAI_SECCOMP_NAMES_H
#define PRATAI_SECCOMP_NAMES_H

#include <stdbool.h>
#include <stdint.h>

enum { SECCOMP_NAME_MAX = 32 }; /* with its NUL */

enum {
	SECCOMP_NUMBER_ELSEWHERE = -1, /* another architecture's call */
	SECCOMP_NUMBER_UNKNOWN = -2,
};

/* The number on this architecture, or one of the two above. */
int seccomp_number(const char *name);
/* False: nobody knows a call of this number. */
bool seccomp_name(int number, char name[SECCOMP_NAME_MAX]);

/* AUDIT_ARCH_... of this machine. */
uint32_t seccomp_architecture(void);

#endif
