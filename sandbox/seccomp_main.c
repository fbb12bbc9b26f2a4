/*
 * pratai-seccomp: makes a system call filter from a list of ours or a profile of the user's,
 * for `pratai run`, which starts it.
 *
 *   pratai-seccomp default|strict   one of our lists
 *   pratai-seccomp file             fd 0: a profile as JSON (pratai-seccomp(5))
 *
 * Exit 0: what sandbox/filter.h says is on standard output.  1 and a sentence there: the
 * profile is at fault; 2 and a sentence: this machine is; 64: used wrongly.
 *
 * Before a byte is read the process gives up what reading needs not: the user root,
 * privileges, memory, time, descriptors, and all system calls but a dozen.
 */
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/caps.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "sandbox/filter.h"
#include "sandbox/profile.h"
#include "sandbox/seccomp_compile.h"
#include "sandbox/seccomp_names.h"
#include "sandbox/seccomp_policy.h"

enum { EXIT_PROFILE = 1, EXIT_MACHINE = 2, EXIT_USE = 64 };
enum { MEMORY_BYTES = 256 << 20, CPU_SECONDS = 10, NOBODY = 65534 };

static struct seccomp_table table;
static struct sock_filter code[SECCOMP_CODE_MAX];

static int
limit(int resource, rlim_t value, struct err *e)
{
	struct rlimit want = { value, value };

	if (setrlimit((__rlimit_resource_t)resource, &want))
		return err_sys(e, ERR_NODE, "cannot set a limit");
	return 0;
}

#ifndef __SANITIZE_ADDRESS__ /* which calls what it likes, and has more memory than any limit */
static int
lock_calls(struct err *e)
{
	static const char *const needed[] = {
		"read", "write", "brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "fstat",
		"newfstatat", "futex", "getrandom", "exit", "exit_group", "rt_sigreturn",
	};
	struct sock_fprog program = { .filter = code };
	unsigned length;

	seccomp_table_init(&table, seccomp_architecture(), SECCOMP_RET_KILL_PROCESS);
	for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
		int n = seccomp_number(needed[i]);

		if (n >= 0)
			table.calls[n].otherwise = SECCOMP_RET_ALLOW;
	}
	if (seccomp_compile(&table, code, &length, e))
		return -1;
	program.len = (unsigned short)length;
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
		return err_sys(e, ERR_NODE, "cannot load the system call filter");
	return 0;
}
#endif

static int
lock_in(struct err *e)
{
	if (close_range(STDERR_FILENO + 1, ~0u, 0))
		return err_sys(e, ERR_NODE, "cannot close inherited descriptors");
	if (geteuid() == 0 && (setgroups(0, NULL) || setresgid(NOBODY, NOBODY, NOBODY) ||
			       setresuid(NOBODY, NOBODY, NOBODY)))
		return err_sys(e, ERR_NODE, "cannot become an ordinary user");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		return err_sys(e, ERR_NODE, "cannot give up privileges");
	if (limit(RLIMIT_CPU, CPU_SECONDS, e) || limit(RLIMIT_CORE, 0, e) ||
	    limit(RLIMIT_FSIZE, 1 << 20, e))
		return -1;
#ifdef __SANITIZE_ADDRESS__
	return 0;
#else
	return limit(RLIMIT_AS, MEMORY_BYTES, e) || lock_calls(e) ? -1 : 0;
#endif
}

static int
read_table(const char *what, const char *kernel, struct err *e)
{
	const struct seccomp_policy *ours = seccomp_policy_find(what);
	struct buf text = { .max = PROFILE_BYTES_MAX + 1 };
	int rc;

	if (ours)
		return seccomp_policy_table(&table, ours, e);
	rc = fd_slurp(STDIN_FILENO, "the profile", PROFILE_BYTES_MAX, &text, e);
	if (rc && e->cls == ERR_NODE)
		e->cls = ERR_INPUT; /* a directory, say */
	if (rc == 0)
		rc = profile_read(&table, text.data ? text.data : "", text.len, kernel, e);
	buf_free(&text);
	return rc;
}

static void
put_calls(struct buf *out, struct filter_head *head)
{
	for (unsigned n = 0; n < SECCOMP_NUMBERS; n++) {
		struct filter_call call = { .number = n };

		if (!seccomp_name((int)n, call.name))
			continue;
		for (int i = table.calls[n].first; i >= 0; i = table.entries[i].next)
			for (unsigned k = 0; k < table.entries[i].count; k++)
				call.masks[table.entries[i].all[k].arg] |= table.entries[i].all[k].mask;
		buf_put(out, &call, sizeof call);
		head->call_count++;
	}
}

static int
run(const char *what, struct err *e)
{
	struct filter_head head = { .magic = FILTER_MAGIC };
	struct buf calls = { 0 };
	struct utsname machine;
	int rc;

	if (uname(&machine))
		return err_sys(e, ERR_NODE, "uname");
	if (lock_in(e) || read_table(what, machine.release, e) ||
	    seccomp_compile(&table, code, &head.length, e))
		return -1;
	put_calls(&calls, &head);
	rc = calls.failed || fd_write_all(STDOUT_FILENO, &head, sizeof head) ||
		     fd_write_all(STDOUT_FILENO, code, head.length * sizeof code[0]) ||
		     fd_write_all(STDOUT_FILENO, calls.data, calls.len)
		     ? err_sys(e, ERR_NODE, "cannot write the filter") : 0;
	buf_free(&calls);
	return rc;
}

int
main(int argc, char **argv)
{
	struct err e = { 0 };

	if (argc != 2 || (strcmp(argv[1], "default") != 0 && strcmp(argv[1], "strict") != 0 &&
			  strcmp(argv[1], "file") != 0)) {
		fputs("pratai-seccomp: usage: pratai-seccomp default|strict|file\n", stderr);
		return EXIT_USE;
	}
	if (run(argv[1], &e) == 0)
		return 0;
	if (fd_write_all(STDOUT_FILENO, e.text, strlen(e.text)))
		return EXIT_MACHINE;
	return e.cls == ERR_INPUT || e.cls == ERR_LIMIT ? EXIT_PROFILE : EXIT_MACHINE;
}
