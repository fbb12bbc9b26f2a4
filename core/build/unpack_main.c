/*
 * pratai-unpack: the only program of ours that reads archives of strangers.  Control
 * plane and node start it with vfork and exec, so that their loops do not wait and a
 * mistake in an archive reader is one in a process that can do nothing.
 *
 *   pratai-unpack check   fd 0: a zip, a regular file
 *   pratai-unpack zip     the same, and unpacks it to function/ below the directory fd 3
 *   pratai-unpack tar     fd 0: a layer's tar, a pipe will do; unpacks it below fd 3
 *
 * Exit 0 and a line of JSON on standard output; 1 and a sentence there: the archive is at
 * fault; 2 and a sentence: this machine is (a full disk, no memory); 64: used wrongly.
 *
 * Before the first byte is read the process gives up everything that reading needs not:
 * no_new_privs; limits on memory, CPU time, file size and descriptors; by landlock (where
 * the kernel has it) all paths but those below fd 3; by seccomp everything that sandboxes
 * may not call, and of the rest sockets, new processes, exec and signals.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <locale.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/base/crypto.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "rootfs/unpack.h"
#include "sandbox/seccomp.h"

enum { DEST_FD = 3, EXIT_ARCHIVE = 1, EXIT_MACHINE = 2, EXIT_USE = 64 };

enum {
	MEMORY_BYTES = 768 << 20,
	CPU_SECONDS = 120,
	FILES = 16, /* the archive, the directory, its parent, and what a parent lookup opens */
};

#ifdef __SANITIZE_ADDRESS__
/* The search for leaks wants a new process at the end, which is refused then; the unit
 * tests run the same code with it. */
const char *__asan_default_options(void);
const char *
__asan_default_options(void)
{
	return "detect_leaks=0";
}
#endif

/* ---- Locking in ---- */

static int
limit(int resource, rlim_t value, struct err *e)
{
	struct rlimit now, want = { value, value };

	if (getrlimit(resource, &now) < 0)
		return err_sys(e, ERR_NODE, "cannot read a limit");
	if (want.rlim_max > now.rlim_max) /* what is lower already stays */
		want.rlim_cur = want.rlim_max = now.rlim_max;
	return setrlimit(resource, &want) < 0 ? err_sys(e, ERR_NODE, "cannot set a limit") : 0;
}

static int
set_limits(struct err *e)
{
#ifndef __SANITIZE_ADDRESS__ /* whose shadow memory is larger than any machine's */
	if (limit(RLIMIT_AS, MEMORY_BYTES, e) < 0)
		return -1;
#endif
	return limit(RLIMIT_CPU, CPU_SECONDS, e) < 0 ||
	       limit(RLIMIT_FSIZE, UNPACK_TAR_BYTES_MAX, e) < 0 ||
	       limit(RLIMIT_NOFILE, FILES, e) < 0 || limit(RLIMIT_CORE, 0, e) < 0 ? -1 : 0;
}

/* All rights over files that this kernel's landlock knows. */
static uint64_t
landlock_rights(int version)
{
	uint64_t rights = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1; /* version 1: bits 0 to 12 */

	if (version >= 2)
		rights |= 1ull << 13; /* REFER */
	if (version >= 3)
		rights |= 1ull << 14; /* TRUNCATE */
	if (version >= 5)
		rights |= 1ull << 15; /* IOCTL_DEV */
	return rights;
}

/* No path but below dest (-1: none at all), and there only what making a tree needs. */
static int
lock_paths(int dest, struct err *e)
{
	int version = (int)syscall(SYS_landlock_create_ruleset, NULL, 0,
				   LANDLOCK_CREATE_RULESET_VERSION);
	struct landlock_ruleset_attr attr = { .handled_access_fs = landlock_rights(version) };
	struct landlock_path_beneath_attr beneath = {
		.parent_fd = dest,
		.allowed_access = LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_WRITE_FILE |
				  LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |
				  LANDLOCK_ACCESS_FS_MAKE_SYM,
	};
	CLEAN_FD int rules = -1;

	if (version < 1)
		return 0; /* not in this kernel, or not switched on */
	rules = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr.handled_access_fs), 0);
	if (rules < 0 ||
	    (dest >= 0 &&
	     syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) < 0) ||
	    syscall(SYS_landlock_restrict_self, rules, 0) < 0)
		return err_sys(e, ERR_NODE, "cannot restrict paths by landlock");
	return 0;
}

/* What the sandboxes' filter, which follows, allows to functions, and nobody needs here.
 * That one ends processes of other architectures, so that numbers are this one's. */
static int
lock_calls(struct err *e)
{
	static const struct { uint16_t nr; } refused[] = {
		{ SYS_socket }, { SYS_socketpair }, { SYS_connect }, { SYS_bind },
		{ SYS_clone }, { SYS_clone3 }, { SYS_execve }, { SYS_execveat },
		{ SYS_kill }, { SYS_tkill }, { SYS_memfd_create },
#ifdef SYS_fork
		{ SYS_fork }, { SYS_vfork },
#endif
	};
	enum { COUNT = sizeof(refused) / sizeof(refused[0]) };
	struct sock_filter code[COUNT + 3];
	struct sock_fprog program = { .len = COUNT + 3, .filter = code };
	size_t n = 0;

	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
						 offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < COUNT; i++)
		code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, refused[i].nr,
							 (uint8_t)(COUNT - i), 0);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
		return err_sys(e, ERR_NODE, "cannot load the system call filter");
	return seccomp_install(e);
}

static int
lock_in(int dest, struct err *e)
{
	/* A write beyond RLIMIT_FSIZE is an error, and so is a reader that has gone. */
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	umask(022);
	if (close_range(dest >= 0 ? DEST_FD + 1 : DEST_FD, ~0u, 0) < 0)
		return err_sys(e, ERR_NODE, "cannot close inherited descriptors");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return err_sys(e, ERR_NODE, "cannot give up privileges");
	if (set_limits(e) < 0 || lock_paths(dest, e) < 0)
		return -1;
	return lock_calls(e);
}

/* ---- The program ---- */

static int
is_directory(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

static int
run(const char *verb, struct unpack_result *r, struct err *e)
{
	int dest = strcmp(verb, "check") == 0 ? -1 : DEST_FD;

	if (dest >= 0 && !is_directory(dest))
		return err_set(e, ERR_NODE, "descriptor %d is not a directory", DEST_FD);
	/* Names are UTF-8, whatever the environment says; both open files. */
	if (!setlocale(LC_CTYPE, "C.UTF-8"))
		return err_set(e, ERR_NODE, "this machine has no locale C.UTF-8");
	if (crypto_init(e) < 0 || lock_in(dest, e) < 0)
		return -1;
	return strcmp(verb, "tar") == 0 ? unpack_tar(STDIN_FILENO, dest, r, e)
					: unpack_zip(STDIN_FILENO, dest, r, e);
}

static void
print_result(const struct unpack_result *r)
{
	printf("{\"entries\":%llu,\"bytes\":%llu,\"archive_bytes\":%llu,\"sha256\":\"%s\","
	       "\"has_requirements\":%s}\n",
	       (unsigned long long)r->entries, (unsigned long long)r->bytes,
	       (unsigned long long)r->archive_bytes, r->sha256,
	       r->has_requirements ? "true" : "false");
}

int
main(int argc, char **argv)
{
	struct unpack_result result = { 0 };
	struct err e = { 0 };

	if (argc != 2 || (strcmp(argv[1], "check") != 0 && strcmp(argv[1], "zip") != 0 &&
			  strcmp(argv[1], "tar") != 0)) {
		fputs("pratai-unpack: usage: pratai-unpack check|zip|tar\n", stderr);
		return EXIT_USE;
	}
	if (run(argv[1], &result, &e) < 0) {
		printf("%s\n", e.text);
		fflush(stdout);
		return e.cls == ERR_INPUT || e.cls == ERR_LIMIT ? EXIT_ARCHIVE : EXIT_MACHINE;
	}
	print_result(&result);
	return fflush(stdout) ? EXIT_MACHINE : 0;
}
