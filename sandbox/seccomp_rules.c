/*
 * Which system calls a sandbox has, and why not the others.
 *
 * The measure is what interpreters, their libraries and ordinary static programs use in
 * a process without capabilities, from the experience that other containers' public
 * allow-lists hold; what is left out is what has broken sandboxes:
 *
 *   - ways to new namespaces and mounts, where most of the kernel's privileged code opens
 *     up to the unprivileged (mount, unshare, setns, clone with namespaces; clone3 hides
 *     its flags in memory, so it "does not exist" and callers use clone);
 *   - other processes' memory and descriptors (ptrace, process_vm_*, pidfd_getfd, kcmp);
 *   - whole subsystems with a history and no use here: keyrings, bpf, perf, userfaultfd,
 *     io_uring, legacy AIO, NUMA policy, memfd_secret, file handles, fanotify;
 *   - what puts pages of files into pipes: splice, tee, vmsplice, and sendfile, which can
 *     do the same.  Pages of layers are shared by all sandboxes; such pages in a pipe were
 *     the whole of Dirty Pipe (CVE-2022-0847).  copy_file_range has no pipe for the caller
 *     to hold and stays.  ENOSYS makes every runtime we know copy with read and write;
 *   - what tells about pages of shared layers: cachestat;
 *   - pages of the machine's huge page pool, which no memory limit counts;
 *   - writing out whole disks: sync, and syncfs of a bind's or of /usr's, wait for and disturb
 *     everybody on the machine.  A sandbox's own files are in memory; those of a writable bind
 *     have fsync;
 *   - TIOCSTI and TIOCLINUX (input for the terminal outside), TIOCSETD and TCP_ULP (both
 *     load kernel modules on demand).
 */
#include "sandbox/seccomp_rules.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/socket.h>

#define CALL(name) {#name, -1}
#define END {NULL, -1}

static const struct seccomp_call allowed[] = {
	/* files by descriptor */
	CALL(read), CALL(write), CALL(readv), CALL(writev), CALL(pread64), CALL(pwrite64),
	CALL(preadv), CALL(pwritev), CALL(preadv2), CALL(pwritev2), CALL(lseek), CALL(close),
	CALL(close_range), CALL(dup), CALL(dup2), CALL(dup3), CALL(fcntl), CALL(flock),
	CALL(fsync), CALL(fdatasync), CALL(sync_file_range),
	CALL(ftruncate), CALL(fallocate), CALL(fadvise64), CALL(readahead),
	CALL(copy_file_range), CALL(fstat), CALL(fstatfs), CALL(fchmod), CALL(fchown),
	CALL(fchdir), CALL(getdents), CALL(getdents64), CALL(pipe), CALL(pipe2),
	/* files by name */
	CALL(open), CALL(openat), CALL(openat2), CALL(creat), CALL(stat), CALL(lstat),
	CALL(newfstatat), CALL(statx), CALL(statfs), CALL(access), CALL(faccessat),
	CALL(faccessat2), CALL(readlink), CALL(readlinkat), CALL(truncate), CALL(chmod),
	CALL(fchmodat), {"fchmodat2", 452}, CALL(chown), CALL(lchown), CALL(fchownat),
	CALL(umask), CALL(utime), CALL(utimes), CALL(futimesat), CALL(utimensat), CALL(mkdir),
	CALL(mkdirat), CALL(rmdir), CALL(link), CALL(linkat), CALL(symlink), CALL(symlinkat),
	CALL(unlink), CALL(unlinkat), CALL(rename), CALL(renameat), CALL(renameat2),
	CALL(mknod), CALL(mknodat), CALL(chdir), CALL(getcwd),
	/* extended attributes */
	CALL(getxattr), CALL(lgetxattr), CALL(fgetxattr), CALL(setxattr), CALL(lsetxattr),
	CALL(fsetxattr), CALL(listxattr), CALL(llistxattr), CALL(flistxattr),
	CALL(removexattr), CALL(lremovexattr), CALL(fremovexattr), {"setxattrat", 463},
	{"getxattrat", 464}, {"listxattrat", 465}, {"removexattrat", 466},
	/* waiting */
	CALL(poll), CALL(ppoll), CALL(select), CALL(pselect6), CALL(epoll_create),
	CALL(epoll_create1), CALL(epoll_ctl), CALL(epoll_wait), CALL(epoll_pwait),
	CALL(epoll_pwait2), CALL(eventfd), CALL(eventfd2), CALL(signalfd), CALL(signalfd4),
	CALL(timerfd_create), CALL(timerfd_settime), CALL(timerfd_gettime),
	CALL(inotify_init), CALL(inotify_init1), CALL(inotify_add_watch),
	CALL(inotify_rm_watch), CALL(pause),
	/* memory */
	CALL(munmap), CALL(mremap), CALL(mprotect), CALL(pkey_mprotect),
	CALL(pkey_alloc), CALL(pkey_free), CALL(brk), CALL(madvise), CALL(msync), CALL(mincore),
	CALL(mlock), CALL(mlock2), CALL(munlock), CALL(mlockall), CALL(munlockall),
	CALL(membarrier), {"map_shadow_stack", 453}, {"mseal", 462},
	/* processes and threads */
	CALL(fork), CALL(vfork), CALL(execve), CALL(execveat), CALL(exit), CALL(exit_group),
	CALL(wait4), CALL(waitid), CALL(pidfd_open), CALL(pidfd_send_signal),
	CALL(set_tid_address), CALL(set_robust_list), CALL(get_robust_list), CALL(rseq),
	CALL(futex), CALL(futex_waitv), {"futex_wake", 454}, {"futex_wait", 455},
	{"futex_requeue", 456}, CALL(arch_prctl), CALL(restart_syscall),
	CALL(getpid), CALL(getppid), CALL(gettid), CALL(getpgid), CALL(setpgid), CALL(getpgrp),
	CALL(getsid), CALL(setsid), CALL(getpriority), CALL(setpriority), CALL(ioprio_get),
	CALL(ioprio_set), CALL(getrlimit), CALL(setrlimit), CALL(prlimit64), CALL(getrusage),
	CALL(times), CALL(landlock_create_ruleset), CALL(landlock_add_rule),
	CALL(landlock_restrict_self),
	/* users and capabilities: of no effect without privileges, but asked for */
	CALL(getuid), CALL(geteuid), CALL(getgid), CALL(getegid), CALL(getresuid),
	CALL(getresgid), CALL(getgroups), CALL(setuid), CALL(setgid), CALL(setreuid),
	CALL(setregid), CALL(setresuid), CALL(setresgid), CALL(setgroups), CALL(setfsuid),
	CALL(setfsgid), CALL(capget), CALL(capset),
	/* the scheduler */
	CALL(sched_yield), CALL(sched_getaffinity), CALL(sched_setaffinity),
	CALL(sched_getparam), CALL(sched_setparam), CALL(sched_getscheduler),
	CALL(sched_setscheduler), CALL(sched_getattr), CALL(sched_setattr),
	CALL(sched_get_priority_max), CALL(sched_get_priority_min),
	CALL(sched_rr_get_interval), CALL(getcpu),
	/* signals */
	CALL(rt_sigaction), CALL(rt_sigprocmask), CALL(rt_sigpending), CALL(rt_sigsuspend),
	CALL(rt_sigtimedwait), CALL(rt_sigqueueinfo), CALL(rt_tgsigqueueinfo),
	CALL(rt_sigreturn), CALL(sigaltstack), CALL(kill), CALL(tkill), CALL(tgkill),
	/* time */
	CALL(time), CALL(gettimeofday), CALL(clock_gettime), CALL(clock_getres),
	CALL(clock_nanosleep), CALL(nanosleep), CALL(alarm), CALL(getitimer), CALL(setitimer),
	CALL(timer_create), CALL(timer_settime), CALL(timer_gettime), CALL(timer_getoverrun),
	CALL(timer_delete),
	/* sockets, of the families that the rules let through */
	CALL(connect), CALL(bind), CALL(listen), CALL(accept), CALL(accept4),
	CALL(getsockname), CALL(getpeername), CALL(getsockopt), CALL(shutdown), CALL(sendto),
	CALL(recvfrom), CALL(sendmsg), CALL(recvmsg), CALL(sendmmsg), CALL(recvmmsg),
	/* IPC, each sandbox has its own namespace of it */
	CALL(shmat), CALL(shmdt), CALL(shmctl), CALL(semget), CALL(semop),
	CALL(semtimedop), CALL(semctl), CALL(msgget), CALL(msgsnd), CALL(msgrcv), CALL(msgctl),
	CALL(mq_open), CALL(mq_unlink), CALL(mq_timedsend), CALL(mq_timedreceive),
	CALL(mq_notify), CALL(mq_getsetattr),
	/* the machine */
	CALL(uname), CALL(sysinfo), CALL(getrandom),
	END,
};

static const struct seccomp_call refused[] = {
	/* mounts and roots */
	CALL(mount), CALL(umount2), CALL(pivot_root), CALL(chroot), CALL(move_mount),
	CALL(open_tree), CALL(fsopen), CALL(fsconfig), CALL(fsmount), CALL(fspick),
	CALL(mount_setattr), {"open_tree_attr", 467}, {"statmount", 457}, {"listmount", 458},
	/* namespaces */
	CALL(unshare), CALL(setns), CALL(sethostname), CALL(setdomainname),
	/* other processes */
	CALL(ptrace), CALL(process_vm_readv), CALL(process_vm_writev), CALL(pidfd_getfd),
	CALL(kcmp), CALL(process_madvise), CALL(process_mrelease),
	/* keyrings are not namespaced */
	CALL(keyctl), CALL(add_key), CALL(request_key),
	/* subsystems */
	CALL(bpf), CALL(perf_event_open), CALL(userfaultfd), CALL(io_uring_setup),
	CALL(io_uring_enter), CALL(io_uring_register), CALL(fanotify_init),
	CALL(fanotify_mark), CALL(name_to_handle_at), CALL(open_by_handle_at),
	CALL(lookup_dcookie), CALL(quotactl), CALL(quotactl_fd),
	/* the machine */
	CALL(reboot), CALL(kexec_load), CALL(kexec_file_load), CALL(init_module),
	CALL(finit_module), CALL(delete_module), CALL(swapon), CALL(swapoff), CALL(acct),
	CALL(syslog), CALL(iopl), CALL(ioperm), CALL(vhangup), CALL(settimeofday),
	CALL(clock_settime), CALL(clock_adjtime), CALL(adjtimex), CALL(nfsservctl),
	CALL(sync), CALL(syncfs),
	END,
};

#define ALL 0xffffffffu
#define LENGTH(a) (sizeof(a) / sizeof(a)[0])
#define IS(arg, mask, value, action) {arg, SECCOMP_IS, action, mask, value}
#define IS_NOT(arg, mask, value, action) {arg, SECCOMP_IS_NOT, action, mask, value}
#define OK SECCOMP_ALLOW

#define NAMESPACES                                                                                 \
	(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |             \
	 CLONE_NEWPID | CLONE_NEWNET)
static const struct seccomp_case clone_cases[] = {IS_NOT(0, NAMESPACES, 0, EPERM)};

/* Linux, Linux32 reporting and UNAME26; READ_IMPLIES_EXEC and no randomisation are not. */
static const struct seccomp_case personality_cases[] = {
	IS(0, ALL, 0, OK),       IS(0, ALL, 0x8, OK), IS(0, ALL, 0x20000, OK),
	IS(0, ALL, 0x20008, OK), IS(0, ALL, ALL, OK),
};

static const struct seccomp_case ioctl_cases[] = {
	IS(1, ALL, TIOCSTI, EPERM),
	IS(1, ALL, TIOCLINUX, EPERM),
	IS(1, ALL, TIOCSETD, EPERM),
};

/*
 * Known operations only; an unknown one fails as on an older kernel.  PR_SET_MM moves the
 * traces in /proc, PR_SET_PTRACER opens a process to others, the rest is privilege.
 */
static const struct seccomp_case prctl_cases[] = {
	IS(0, ALL, PR_SET_NAME, OK),
	IS(0, ALL, PR_GET_NAME, OK),
	IS(0, ALL, PR_SET_VMA, OK),
	IS(0, ALL, PR_SET_PDEATHSIG, OK),
	IS(0, ALL, PR_GET_PDEATHSIG, OK),
	IS(0, ALL, PR_GET_DUMPABLE, OK),
	IS(0, ALL, PR_SET_DUMPABLE, OK),
	IS(0, ALL, PR_GET_KEEPCAPS, OK),
	IS(0, ALL, PR_SET_KEEPCAPS, OK),
	IS(0, ALL, PR_GET_SECCOMP, OK),
	IS(0, ALL, PR_SET_SECCOMP, OK),
	IS(0, ALL, PR_CAPBSET_READ, OK),
	IS(0, ALL, PR_GET_TSC, OK),
	IS(0, ALL, PR_GET_SECUREBITS, OK),
	IS(0, ALL, PR_SET_TIMERSLACK, OK),
	IS(0, ALL, PR_GET_TIMERSLACK, OK),
	IS(0, ALL, PR_SET_CHILD_SUBREAPER, OK),
	IS(0, ALL, PR_GET_CHILD_SUBREAPER, OK),
	IS(0, ALL, PR_SET_NO_NEW_PRIVS, OK),
	IS(0, ALL, PR_GET_NO_NEW_PRIVS, OK),
	IS(0, ALL, PR_GET_TID_ADDRESS, OK),
	IS(0, ALL, PR_SET_THP_DISABLE, OK),
	IS(0, ALL, PR_GET_THP_DISABLE, OK),
	IS(0, ALL, PR_GET_SPECULATION_CTRL, OK),
	IS(0, ALL, PR_SET_SPECULATION_CTRL, OK),
	IS(0, ALL, 65 /* PR_SET_MDWE, Linux 6.3 */, OK),
	IS(0, ALL, 66 /* PR_GET_MDWE */, OK),
	IS(0, ALL, 0x41555856 /* PR_GET_AUXV, Linux 6.4 */, OK),
	IS(0, ALL, PR_SET_MM, EPERM),
	IS(0, ALL, PR_SET_PTRACER, EPERM),
	IS(0, ALL, PR_CAPBSET_DROP, EPERM),
	IS(0, ALL, PR_SET_SECUREBITS, EPERM),
	IS(0, ALL, PR_CAP_AMBIENT, EPERM),
};

/* More filters may be added, which only takes away; a listener would hand decisions (and
 * descriptors) to somebody else. */
static const struct seccomp_case seccomp_cases[] = {
	IS_NOT(1, 8 /* SECCOMP_FILTER_FLAG_NEW_LISTENER */, 0, EPERM),
};

/* As when the pool is empty: allocators then take ordinary pages, THP included. */
static const struct seccomp_case mmap_cases[] = {IS_NOT(3, MAP_HUGETLB, 0, ENOMEM)};
static const struct seccomp_case memfd_cases[] = {IS_NOT(1, MFD_HUGETLB, 0, ENOMEM)};
static const struct seccomp_case shmget_cases[] = {IS_NOT(2, SHM_HUGETLB, 0, ENOMEM)};

/*
 * Unix, IPv4 and IPv6; of the latter two TCP and UDP, so that no protocol's module is
 * loaded on demand (SCTP, DCCP, MPTCP, ...), and nothing raw.  AF_INET is 2 and AF_INET6
 * is 10: one bit apart.
 */
_Static_assert(AF_INET == 2 && AF_INET6 == 10, "one bit apart");
#define TYPE_BITS 0xf /* the others are SOCK_CLOEXEC and SOCK_NONBLOCK */
#define INTERNET_CASES                                                                             \
	IS_NOT(0, ~8u, AF_INET, EAFNOSUPPORT), IS_NOT(1, TYPE_BITS & ~3u, 0, EPERM),               \
		IS(1, TYPE_BITS, SOCK_RAW, EPERM), IS(2, ALL, 0, OK), IS(2, ALL, IPPROTO_TCP, OK), \
		IS(2, ALL, IPPROTO_UDP, OK)
static const struct seccomp_case socket_cases[] = {IS(0, ALL, AF_UNIX, OK), INTERNET_CASES};
static const struct seccomp_case socketpair_cases[] = {IS(0, ALL, AF_UNIX, OK)};

static const struct seccomp_case setsockopt_cases[] = {
	IS_NOT(1, ALL, IPPROTO_TCP, OK),
	IS(2, ALL, TCP_ULP, ENOPROTOOPT),
};

#define RULE(name, cases, otherwise) {#name, cases, LENGTH(cases), otherwise}
static const struct seccomp_rule default_rules[] = {
	RULE(clone, clone_cases, OK),
	RULE(personality, personality_cases, EPERM),
	RULE(ioctl, ioctl_cases, OK),
	RULE(prctl, prctl_cases, EINVAL),
	RULE(seccomp, seccomp_cases, OK),
	RULE(socket, socket_cases, EPROTONOSUPPORT),
	RULE(socketpair, socketpair_cases, EAFNOSUPPORT),
	RULE(setsockopt, setsockopt_cases, OK),
	RULE(mmap, mmap_cases, OK),
	RULE(memfd_create, memfd_cases, OK),
	RULE(shmget, shmget_cases, OK),
	{NULL, NULL, 0, 0},
};

/*
 * What strict does not have: privileges that are not there, IPC by number, locked memory,
 * scheduling, what tells about the page cache, further filters, special files; and, so that
 * they are not the end of a program that only asks whether they are there, io_uring and
 * file handles.
 */
static const char *const strict_without[] = {
	"setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups",
	"setfsuid", "setfsgid", "capset", "shmget", "shmat", "shmdt", "shmctl", "semget", "semop",
	"semtimedop", "semctl", "msgget", "msgsnd", "msgrcv", "msgctl", "mq_open", "mq_unlink",
	"mq_timedsend", "mq_timedreceive", "mq_notify", "mq_getsetattr", "mlock", "mlock2",
	"munlock", "mlockall", "munlockall", "pkey_mprotect", "pkey_alloc", "pkey_free",
	"sched_setparam", "sched_setscheduler", "sched_setattr", "setpriority", "ioprio_get",
	"ioprio_set", "mincore", "sync", "syncfs", "personality", "seccomp", "mknod", "mknodat",
	"io_uring_setup", "io_uring_enter", "io_uring_register", "name_to_handle_at", NULL,
};

static const struct seccomp_call of_init[] = {
	CALL(wait4), CALL(write), CALL(close), CALL(clock_gettime), CALL(exit_group),
	CALL(rt_sigreturn), CALL(restart_syscall), END,
};
static const struct seccomp_call no_calls[] = {END};
static const struct seccomp_rule no_rules[] = {{NULL, NULL, 0, 0}};

const struct seccomp_policy seccomp_policies[SECCOMP_VARIANTS] = {
	{"default", allowed, refused, default_rules, NULL, false},
	{"strict", allowed, refused, default_rules, strict_without, true},
	{"init", of_init, no_calls, no_rules, NULL, false},
};
