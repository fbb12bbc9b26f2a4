#include "sandbox/seccomp_names.h"

#include <seccomp.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/str.h"

/* From 424 on all architectures share a number (the kernel's scripts/syscall.tbl). */
static const struct {
	const char *name;
	int number;
} newer[] = {
	{"cachestat", 451}, {"fchmodat2", 452}, {"map_shadow_stack", 453}, {"futex_wake", 454},
	{"futex_wait", 455}, {"futex_requeue", 456}, {"statmount", 457}, {"listmount", 458},
	{"lsm_get_self_attr", 459}, {"lsm_set_self_attr", 460}, {"lsm_list_modules", 461},
	{"mseal", 462}, {"setxattrat", 463}, {"getxattrat", 464}, {"listxattrat", 465},
	{"removexattrat", 466}, {"open_tree_attr", 467}, {"file_getattr", 468},
	{"file_setattr", 469}, {"listns", 470},
#ifdef __x86_64__
	{"uretprobe", 335}, {"uprobe", 336},
#else
	{"uretprobe", SECCOMP_NUMBER_ELSEWHERE}, {"uprobe", SECCOMP_NUMBER_ELSEWHERE},
#endif
	/* s390's, riscv's and the like, which the library may not know everywhere */
	{"riscv_hwprobe", SECCOMP_NUMBER_ELSEWHERE}, {"riscv_flush_icache", SECCOMP_NUMBER_ELSEWHERE},
	{"sync_file_range2", SECCOMP_NUMBER_ELSEWHERE},
};
enum { NEWER = sizeof newer / sizeof newer[0] };

int
seccomp_number(const char *name)
{
	int n = seccomp_syscall_resolve_name(name);

	for (unsigned i = 0; n == __NR_SCMP_ERROR && i < NEWER; i++)
		if (!strcmp(newer[i].name, name))
			return newer[i].number;
	if (n == __NR_SCMP_ERROR)
		return SECCOMP_NUMBER_UNKNOWN;
	return n < 0 ? SECCOMP_NUMBER_ELSEWHERE : n;
}

bool
seccomp_name(int number, char name[SECCOMP_NAME_MAX])
{
	char *known = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, number);
	bool found = known && str_copy(name, SECCOMP_NAME_MAX, known) == 0;

	free(known);
	for (unsigned i = 0; !found && i < NEWER; i++)
		if (newer[i].number == number)
			found = str_copy(name, SECCOMP_NAME_MAX, newer[i].name) == 0;
	return found;
}

uint32_t
seccomp_architecture(void)
{
	return seccomp_arch_native();
}
