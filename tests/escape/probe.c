/*
 * Tries what a sandbox must refuse: `probe verb...` prints a line for each, `verb RESULT`,
 * where RESULT is OK, the errno's name, or the signal's that ended the attempt.  Each runs in a
 * process of its own, so that none spoils the next; those in held[] in the probe's own, which
 * keeps what they took until it ends.  `wait` waits for the end of the input, `hold` for a signal.
 * Arguments are chosen so that what gets through, outside, changes nothing of the machine.
 */
#include "tests/escape/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALLS(name, ...) {name, {SYS_##__VA_ARGS__}}

/* Those that are one system call with fixed arguments. */
static const struct {
	const char *verb;
	long call[7];
} calls[] = {
	CALLS("mount", mount, (long)"none", (long)"/tmp", (long)"tmpfs"),
	CALLS("umount", umount2, (long)"/proc", 2),
	CALLS("fsopen", fsopen, (long)"tmpfs"),
	CALLS("open_tree", open_tree, AT_FDCWD, (long)"/", 1),
	CALLS("move_mount", move_mount, -1, (long)"", -1, (long)"", 4),
	CALLS("mount_setattr", mount_setattr, -1, (long)"", 0, 0, 0),
	CALLS("pivot_root", pivot_root, (long)".", (long)"."),
	CALLS("remount", mount, 0, (long)"/proc", 0, MS_REMOUNT | MS_BIND),
	CALLS("mount_cgroup", mount, (long)"none", (long)"/tmp", (long)"cgroup", 0, (long)"no_such"),
	CALLS("fspick", fspick, -1, (long)"", 0),
	CALLS("fsconfig", fsconfig, -1, 0, 0, 0, 0),
	CALLS("fsmount", fsmount, -1, 0, 0),
	CALLS("chroot", chroot, (long)"/tmp"),
	CALLS("unshare_user", unshare, CLONE_NEWUSER),
	CALLS("unshare_mount", unshare, CLONE_NEWNS),
	CALLS("unshare_time", unshare, 0x80),
	CALLS("unshare_net", unshare, CLONE_NEWNET),
	CALLS("unshare_pid", unshare, CLONE_NEWPID),
	CALLS("unshare_uts", unshare, CLONE_NEWUTS),
	CALLS("unshare_ipc", unshare, CLONE_NEWIPC),
	CALLS("unshare_cgroup", unshare, CLONE_NEWCGROUP),
	CALLS("clone_user", clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0),
	CALLS("clone_mount", clone, CLONE_NEWNS | SIGCHLD, 0, 0, 0, 0),
	CALLS("sethostname", sethostname, (long)"x", 1),
	CALLS("setdomainname", setdomainname, (long)"x", 1),
	CALLS("clone3", clone3, 0, 0),
	CALLS("setns", setns, -1, 0),
	CALLS("ptrace", ptrace, 0),
	CALLS("process_vm_readv", process_vm_readv, 1),
	CALLS("pidfd_getfd", pidfd_getfd, -1),
	CALLS("kcmp", kcmp, 0, 0, 99),
	CALLS("process_vm_writev", process_vm_writev, 1),
	CALLS("process_madvise", process_madvise, -1, 0, 0, 0, 0),
	CALLS("process_mrelease", process_mrelease, -1, 0),
	CALLS("keyctl", keyctl, 0, -3, 0),
	CALLS("add_key", add_key, 0),
	CALLS("request_key", request_key, 0),
	CALLS("bpf", bpf, 0, 0, 0),
	CALLS("perf_event_open", perf_event_open, 0),
	CALLS("userfaultfd", userfaultfd, 0),
	CALLS("io_uring_setup", io_uring_setup, 0),
	CALLS("io_uring_enter", io_uring_enter, -1, 0, 0, 0, 0),
	CALLS("io_uring_register", io_uring_register, -1, 0, 0, 0),
	CALLS("io_setup", io_setup, 0, 0),
	CALLS("mbind", mbind, 1, 0, 0, 0, 0, 0),
	CALLS("migrate_pages", migrate_pages, -1, 0, 0, 0),
	CALLS("memfd_secret", memfd_secret, -1),
	{"cachestat", {451 /* Linux 6.5 */, -1}},
	CALLS("kexec_load", kexec_load, 0, 0, 0, -1),
	CALLS("kexec_file_load", kexec_file_load, -1, -1, 0, 0, -1),
	CALLS("init_module", init_module, 0, 0, 0),
	CALLS("finit_module", finit_module, -1, 0, 0),
	CALLS("delete_module", delete_module, (long)"no such", 0x800),
	CALLS("swapoff", swapoff, (long)"/nothing"),
	CALLS("acct", acct, (long)"/nothing"),
	CALLS("quotactl", quotactl, -1, 0, 0, 0),
	CALLS("clock_adjtime", clock_adjtime, 0, 0),
	CALLS("reboot", reboot, 0),
	CALLS("swapon", swapon, (long)"/nothing"),
	CALLS("syslog", syslog, 10),
	CALLS("settimeofday", settimeofday, 0, 0),
	CALLS("clock_settime", clock_settime, 0, 0),
	CALLS("adjtimex", adjtimex, 0),
	CALLS("open_by_handle_at", open_by_handle_at, -1, 0),
	CALLS("name_to_handle_at", name_to_handle_at, -1, 0),
	CALLS("fanotify_init", fanotify_init, 0),
	CALLS("fanotify_mark", fanotify_mark, -1),
	CALLS("syncfs", syncfs, -1),
	CALLS("personality", personality, 0x0400000),
	CALLS("no_randomize", personality, 0x0040000),
	CALLS("tiocsti", ioctl, 0, TIOCSTI, 0),
	CALLS("tiocsti_high", ioctl, 0, TIOCSTI | 1l << 32, 0),
	CALLS("tioclinux", ioctl, 0, TIOCLINUX, 0),
	CALLS("tioclinux_high", ioctl, 0, TIOCLINUX | 1l << 32, 0),
	CALLS("tiocsetd", ioctl, 0, TIOCSETD, 0),
	CALLS("listener", seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, 0),
	CALLS("set_mm", prctl, PR_SET_MM, 1, 0, 0, 1),
	CALLS("set_ptracer", prctl, PR_SET_PTRACER, -1),
	CALLS("ambient", prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0),
	CALLS("capbset_drop", prctl, PR_CAPBSET_DROP, 0),
	CALLS("securebits", prctl, PR_SET_SECUREBITS, 0),
	CALLS("vmsplice", vmsplice, -1),
	CALLS("splice", splice, -1, 0, -1, 0, 1),
	CALLS("tee", tee, -1, -1, 1),
	CALLS("sendfile", sendfile, -1, -1, 0, 1),
	CALLS("mknod_block", mknodat, AT_FDCWD, (long)"/tmp/probe-disk", S_IFBLK | 0600, 0x800),
	CALLS("mknod", mknodat, AT_FDCWD, (long)"/tmp/probe-null", S_IFCHR | 0666, 0x103),
	CALLS("alg", socket, AF_ALG, SOCK_SEQPACKET, 0),
	CALLS("vsock", socket, AF_VSOCK, SOCK_STREAM, 0),
	CALLS("bluetooth", socket, AF_BLUETOOTH, SOCK_RAW, 0),
	CALLS("tipc", socket, AF_TIPC, SOCK_RDM, 0),
	CALLS("rds", socket, AF_RDS, SOCK_SEQPACKET, 0),
	CALLS("key", socket, AF_KEY, SOCK_RAW, 2),
	CALLS("xdp", socket, AF_XDP, SOCK_RAW, 0),
	CALLS("sctp", socket, AF_INET, SOCK_STREAM, 132),
	CALLS("inet_pair", socketpair, AF_INET, SOCK_STREAM, 0, 0),
	CALLS("packet", socket, AF_PACKET, SOCK_RAW, 0),
	CALLS("netlink", socket, AF_NETLINK, SOCK_RAW, 0),
	CALLS("raw", socket, AF_INET, SOCK_RAW, 1),
	CALLS("mptcp", socket, AF_INET, SOCK_STREAM, 262),
#ifdef __x86_64__
	CALLS("modify_ldt", modify_ldt, 0, 0, 0),
	CALLS("ioperm", ioperm, -1, 1, 1),
	CALLS("iopl", iopl, 0),
	{"x32", {0x40000000 | SYS_getpid}},
#endif
	/* What is init's, and what is the machine's. */
	CALLS("init_exe", openat, AT_FDCWD, (long)"/proc/1/exe", O_RDONLY),
	CALLS("init_mem", openat, AT_FDCWD, (long)"/proc/1/mem", O_RDONLY),
	CALLS("init_root", openat, AT_FDCWD, (long)"/proc/1/root", O_RDONLY),
	CALLS("init_cwd", openat, AT_FDCWD, (long)"/proc/1/cwd", O_RDONLY),
	CALLS("init_fd", openat, AT_FDCWD, (long)"/proc/1/fd", O_RDONLY),
	CALLS("init_maps", openat, AT_FDCWD, (long)"/proc/1/maps", O_RDONLY),
	CALLS("init_environ", openat, AT_FDCWD, (long)"/proc/1/environ", O_RDONLY),
	CALLS("init_ns", openat, AT_FDCWD, (long)"/proc/1/ns/mnt", O_RDONLY),
	CALLS("sysrq", openat, AT_FDCWD, (long)"/proc/sysrq-trigger", O_WRONLY),
	CALLS("core_pattern", openat, AT_FDCWD, (long)"/proc/sys/kernel/core_pattern", O_WRONLY),
	CALLS("drop_caches", openat, AT_FDCWD, (long)"/proc/sys/vm/drop_caches", O_WRONLY),
	CALLS("modprobe", openat, AT_FDCWD, (long)"/proc/sys/kernel/modprobe", O_WRONLY),
	CALLS("kcore", openat, AT_FDCWD, (long)"/proc/kcore", O_RDONLY),
	CALLS("kmsg", openat, AT_FDCWD, (long)"/proc/kmsg", O_RDONLY),
	CALLS("cgroupfs", openat, AT_FDCWD, (long)"/sys/fs/cgroup", O_RDONLY),
	CALLS("firmware", openat, AT_FDCWD, (long)"/sys/kernel", O_RDONLY),
	/* What one sandbox may have left for the next. */
	CALLS("shm_make", shmget, 0x70726174, 4096, 01600),
	CALLS("shm_find", shmget, 0x70726174, 0, 0),
	CALLS("sem_make", semget, 0x70726174, 1, 01600),
	CALLS("sem_find", semget, 0x70726174, 0, 0),
	CALLS("msg_make", msgget, 0x70726174, 01600),
	CALLS("msg_find", msgget, 0x70726174, 0),
	CALLS("tmp_make", mkdirat, AT_FDCWD, (long)"/tmp/pratai-escape-left", 0700),
	CALLS("tmp_find", faccessat, AT_FDCWD, (long)"/tmp/pratai-escape-left", 0),
	CALLS("dev_shm_make", mkdirat, AT_FDCWD, (long)"/dev/shm/pratai-escape-test", 0700),
	CALLS("dev_shm_find", faccessat, AT_FDCWD, (long)"/dev/shm/pratai-escape-test", 0),
};

/* Numbers that name a system call, or a verb of another file; -1 with errno. */
static long
attempt(const char *verb)
{
	long rc;

	for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
		const long *c = calls[i].call;

		if (strcmp(verb, calls[i].verb))
			continue;
		rc = syscall(c[0], c[1], c[2], c[3], c[4], c[5], c[6]);
		if (rc == 0 && c[0] == SYS_clone)
			_exit(0);
		return rc;
	}
	if (!strncmp(verb, "hoard=", 6) ? !probe_hoard(verb + 6, &rc) : !probe_other(verb, &rc))
		return rc;
	fprintf(stderr, "probe: no verb %s\n", verb);
	exit(2);
}

static bool
is_held(const char *verb)
{
	static const char *const held[] = { "flock", "lease", "listen", "watch", "seen", "at=",
					    "hoard=" };

	for (size_t i = 0; i < sizeof held / sizeof held[0]; i++)
		if (!strncmp(verb, held[i], strlen(held[i])))
			return true;
	return false;
}

static void
say(const char *verb, const char *prefix, const char *word)
{
	printf("%s %s%s\n", verb, prefix, word);
	fflush(stdout);
}

static void
try_here(const char *verb)
{
	say(verb, "", attempt(verb) < 0 ? strerrorname_np(errno) : "OK");
}

int
main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		int status;
		pid_t pid;

		if (!strcmp(argv[i], "wait")) {
			char byte;

			while (read(0, &byte, 1) > 0)
				;
			continue;
		}
		if (!strcmp(argv[i], "hold")) {
			prctl(PR_SET_NAME, "probe-holds"); /* which is seen from outside */
			pause();
		}
		if (is_held(argv[i])) {
			try_here(argv[i]);
			continue;
		}
		pid = fork();
		if (pid == 0) {
			try_here(argv[i]);
			_exit(0);
		}
		if (waitpid(pid, &status, 0) != pid)
			return 3;
		if (WIFSIGNALED(status))
			say(argv[i], "SIG", sigabbrev_np(WTERMSIG(status)));
		else if (WEXITSTATUS(status))
			return WEXITSTATUS(status);
	}
	return 0;
}
