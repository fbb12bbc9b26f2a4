/*
 * Loading the filter: one system call, with a program that is part of our own text.
 *
 * SECCOMP_FILTER_FLAG_SPEC_ALLOW stays off: on kernels before 5.16 that costs speed, and
 * buys protection against speculative reads between sandboxes.
 */
#include "sandbox/seccomp.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/base/err.h"
#include "sandbox/seccomp_filter.inc"

static int
load(const struct sock_filter *code, unsigned short length, struct err *e)
{
	/* The kernel only reads it; its interface has no const. */
	struct sock_fprog program = {.len = length, .filter = (struct sock_filter *)code};

	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
		return err_sys(e, ERR_NODE, "cannot load the system call filter");
	return 0;
}

int
seccomp_install(struct err *e)
{
	return load(seccomp_default, sizeof seccomp_default / sizeof seccomp_default[0], e);
}

int
seccomp_install_init(struct err *e)
{
	return load(seccomp_init, sizeof seccomp_init / sizeof seccomp_init[0], e);
}

const struct sock_filter *
seccomp_builtin(const char *list, unsigned *length)
{
	bool strict = !strcmp(list, "strict");

	*length = strict ? sizeof seccomp_strict / sizeof seccomp_strict[0] : seccomp_length();
	return strict ? seccomp_strict : seccomp_default;
}

int
seccomp_install_other(const struct sock_filter *code, unsigned length, struct err *e)
{
	return load(code, (unsigned short)length, e);
}

int
seccomp_install_listener(const struct sock_filter *code, unsigned length, struct err *e)
{
	struct sock_fprog program = {.len = (unsigned short)length,
				     .filter = (struct sock_filter *)(uintptr_t)code};
	/* A signal that is handled does not take a question back that was read already. */
	long fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
			  SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
			  &program);

	if (fd < 0 && errno == EBUSY)
		return err_set(e, ERR_NODE, "system calls are watched from outside already");
	return fd < 0 ? err_sys(e, ERR_NODE, "cannot load the system call filter") : (int)fd;
}

unsigned
seccomp_length(void)
{
	return sizeof seccomp_default / sizeof seccomp_default[0];
}
