/*
 * The filter in the kernel: each class of calls is tried in a child that has it, and the
 * same call in a child that has not, which must fare otherwise, or the test could not
 * fail.  Arguments are chosen so that a call that gets through does no harm (a descriptor
 * of -1, a null pointer): the filter answers before the kernel looks at them.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/base/err.h"
#include "sandbox/seccomp.h"
#include "sandbox/seccomp_rules.h"

enum filter { NO_FILTER, DEFAULT };

/* Allowed calls end in this "errno" when they succeed. */
#define WORKS 0
/* Flags: this kernel or machine may answer the same without a filter. */
#define MAYBE 1
/* Never try it outside. */
#define INSIDE_ONLY 2

struct probe {
	const char *what;
	long number;
	int want;
	int flags;
	unsigned long args[6];
};

static struct sock_filter allow_all[] = {{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}};
static struct sock_fprog one_more = {1, allow_all};
#define PTR(p) ((unsigned long)(uintptr_t)(p))
#define HIGH (1ul << 32)
#define NO_FD (~0ul)

/* In a child: the test framework's handlers would go on with its tests there. */
static int
install(enum filter filter)
{
	static const int caught[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGSYS};
	struct err e;

	for (unsigned i = 0; i < sizeof caught / sizeof *caught; i++)
		signal(caught[i], SIG_DFL);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -1;
	if (filter == NO_FILTER)
		return 0;
	return seccomp_install(&e);
}

/* The errno of the call (0: success) in a new process with filter; -signal if it died. */
static int
try_call(const struct probe *p, enum filter filter)
{
	int *result = mmap(NULL, sizeof *result, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status, errnum;
	pid_t pid;

	assert_true(result != MAP_FAILED);
	*result = -999;
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		const unsigned long *a = p->args;
		long rc;

		if (install(filter) < 0)
			_exit(1);
		rc = syscall(p->number, a[0], a[1], a[2], a[3], a[4], a[5]);
		if (rc == 0 && (p->number == SYS_clone || p->number == SYS_clone3))
			_exit(0);
		*result = rc < 0 ? errno : 0;
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	errnum = WIFSIGNALED(status) ? -WTERMSIG(status) : *result;
	munmap(result, sizeof *result);
	return errnum;
}

static void
try_all(const struct probe *probes, size_t count, enum filter filter)
{
	int bad = 0;

	for (size_t i = 0; i < count; i++) {
		const struct probe *p = &probes[i];
		int inside = try_call(p, filter);
		int outside = p->flags & INSIDE_ONLY ? 0 : try_call(p, NO_FILTER);

		if (inside != p->want) {
			print_error("%s: %s instead of %s\n", p->what, strerror(inside),
				    strerror(p->want));
			bad++;
		} else if (p->want != WORKS && outside == p->want && !(p->flags & MAYBE)) {
			print_error("%s: %s without the filter as well\n", p->what,
				    strerror(outside));
			bad++;
		}
	}
	assert_int_equal(bad, 0);
}

static void
test_refused(void **state)
{
	static const struct probe probes[] = {
		{"mount", SYS_mount, EPERM, 0, {0}},
		{"umount2", SYS_umount2, EPERM, 0, {0}},
		{"pivot_root", SYS_pivot_root, EPERM, 0, {0}},
		{"chroot", SYS_chroot, EPERM, 0, {0}},
		{"move_mount", SYS_move_mount, EPERM, 0, {NO_FD, 0, NO_FD, 0, ~0ul}},
		{"fsopen", SYS_fsopen, EPERM, 0, {0}},
		{"open_tree", SYS_open_tree, EPERM, 0, {NO_FD, 0, ~0ul}},
		{"unshare", SYS_unshare, EPERM, 0, {0}},
		{"setns", SYS_setns, EPERM, 0, {NO_FD}},
		{"clone, user namespace", SYS_clone, EPERM, 0, {CLONE_NEWUSER | SIGCHLD}},
		{"clone, net namespace", SYS_clone, EPERM, 0, {CLONE_NEWNET | SIGCHLD}},
		{"clone, high bits", SYS_clone, EPERM, 0, {CLONE_NEWUTS | HIGH | SIGCHLD}},
		{"clone3", SYS_clone3, ENOSYS, 0, {0}},
		{"ptrace", SYS_ptrace, EPERM, 0, {0}},
		{"process_vm_readv", SYS_process_vm_readv, EPERM, 0, {1, 0, 0, 0, 0, ~0ul}},
		{"process_vm_writev", SYS_process_vm_writev, EPERM, 0, {1, 0, 0, 0, 0, ~0ul}},
		{"pidfd_getfd", SYS_pidfd_getfd, EPERM, 0, {NO_FD, 0, 0}},
		{"kcmp", SYS_kcmp, EPERM, 0, {0, 0, 99}},
		{"keyctl", SYS_keyctl, EPERM, 0, {9999}},
		{"add_key", SYS_add_key, EPERM, 0, {0}},
		{"request_key", SYS_request_key, EPERM, 0, {0}},
		{"bpf", SYS_bpf, EPERM, 0, {9999}},
		{"perf_event_open", SYS_perf_event_open, EPERM, 0, {0}},
		{"userfaultfd", SYS_userfaultfd, EPERM, 0, {~0ul}},
		{"io_uring_setup", SYS_io_uring_setup, EPERM, 0, {0}},
		{"io_uring_enter", SYS_io_uring_enter, EPERM, 0, {NO_FD}},
		{"io_uring_register", SYS_io_uring_register, EPERM, 0, {NO_FD}},
		{"fanotify_init", SYS_fanotify_init, EPERM, 0, {~0ul}},
		{"fanotify_mark", SYS_fanotify_mark, EPERM, 0, {NO_FD}},
		{"name_to_handle_at", SYS_name_to_handle_at, EPERM, 0, {NO_FD, 0, 0, 0, ~0ul}},
		{"open_by_handle_at", SYS_open_by_handle_at, EPERM, 0, {NO_FD}},
		{"quotactl", SYS_quotactl, EPERM, 0, {~0ul}},
		{"reboot", SYS_reboot, EPERM, 0, {0}},
		{"kexec_load", SYS_kexec_load, EPERM, MAYBE, {0, 99999, 0, 0}},
		{"init_module", SYS_init_module, EPERM, MAYBE, {0}},
		{"finit_module", SYS_finit_module, EPERM, MAYBE, {NO_FD}},
		{"delete_module", SYS_delete_module, EPERM, MAYBE, {0}},
		{"swapon", SYS_swapon, EPERM, 0, {0, ~0ul}},
		{"acct", SYS_acct, EPERM, MAYBE, {1}},
		{"syslog", SYS_syslog, EPERM, 0, {99}},
		{"settimeofday", SYS_settimeofday, EPERM, 0, {0}},
		{"clock_settime", SYS_clock_settime, EPERM, 0, {99}},
		{"adjtimex", SYS_adjtimex, EPERM, 0, {0}},
		{"sethostname", SYS_sethostname, EPERM, 0, {0, ~0ul}},
#ifdef __x86_64__
		{"iopl", SYS_iopl, EPERM, 0, {9}},
		{"ioperm", SYS_ioperm, EPERM, 0, {~0ul, ~0ul}},
#endif
	};

	(void)state;
	try_all(probes, sizeof probes / sizeof *probes, DEFAULT);
}

/* What "does not exist", so that programs take another way. */
static void
test_unknown(void **state)
{
	static const struct probe probes[] = {
		{"splice", SYS_splice, ENOSYS, 0, {NO_FD, 0, NO_FD}},
		{"tee", SYS_tee, ENOSYS, 0, {NO_FD, NO_FD, 1}},
		{"vmsplice", SYS_vmsplice, ENOSYS, 0, {NO_FD}},
		{"sendfile", SYS_sendfile, ENOSYS, 0, {NO_FD, NO_FD, 0, 1}},
		{"io_setup", SYS_io_setup, ENOSYS, 0, {0}},
		{"mbind", SYS_mbind, ENOSYS, 0, {1}},
		{"migrate_pages", SYS_migrate_pages, ENOSYS, 0, {~0ul}},
		{"memfd_secret", SYS_memfd_secret, ENOSYS, MAYBE, {~0ul}},
		{"cachestat", 451, ENOSYS, MAYBE, {NO_FD}},
		{"number 1000", 1000, ENOSYS, MAYBE, {0}},
		{"number -1", -1, ENOSYS, MAYBE, {0}},
#ifdef __x86_64__
		{"x32 getpid", 0x40000000 | SYS_getpid, ENOSYS, MAYBE, {0}},
		{"x32 mount", 0x40000000 | SYS_mount, ENOSYS, MAYBE, {0}},
#endif
	};

	(void)state;
	try_all(probes, sizeof probes / sizeof *probes, DEFAULT);
}

static void
test_arguments(void **state)
{
	static const struct probe probes[] = {
		{"TIOCSTI", SYS_ioctl, EPERM, 0, {NO_FD, TIOCSTI, 0}},
		{"TIOCSTI, high bits", SYS_ioctl, EPERM, 0, {NO_FD, TIOCSTI | HIGH, 0}},
		{"TIOCLINUX", SYS_ioctl, EPERM, 0, {NO_FD, TIOCLINUX, 0}},
		{"TIOCLINUX, high bits", SYS_ioctl, EPERM, 0, {NO_FD, TIOCLINUX | 7 * HIGH, 0}},
		{"TIOCSETD", SYS_ioctl, EPERM, 0, {NO_FD, TIOCSETD, 0}},
		{"another ioctl", SYS_ioctl, EBADF, MAYBE, {NO_FD, TIOCGWINSZ, 0}},
		{"personality 0", SYS_personality, WORKS, 0, {0}},
		{"personality query", SYS_personality, WORKS, 0, {0xffffffff}},
		{"READ_IMPLIES_EXEC", SYS_personality, EPERM, 0, {0x0400000}},
		{"ADDR_NO_RANDOMIZE", SYS_personality, EPERM, 0, {0x0040000}},
		{"PR_SET_MM", SYS_prctl, EPERM, MAYBE, {PR_SET_MM, 1}},
		{"PR_SET_PTRACER", SYS_prctl, EPERM, 0, {PR_SET_PTRACER, ~0ul}},
		{"PR_CAPBSET_DROP", SYS_prctl, EPERM, 0, {PR_CAPBSET_DROP, 99}},
		{"PR_SET_SECUREBITS", SYS_prctl, EPERM, 0, {PR_SET_SECUREBITS, 0}},
		{"PR_CAP_AMBIENT", SYS_prctl, EPERM, 0, {PR_CAP_AMBIENT, 4}},
		{"PR_CAP_AMBIENT, high bits", SYS_prctl, EPERM, 0, {PR_CAP_AMBIENT | HIGH, 4}},
		{"an unknown prctl", SYS_prctl, EINVAL, MAYBE, {123456}},
		{"PR_TASK_PERF_EVENTS_DISABLE", SYS_prctl, EINVAL, MAYBE, {31}},
		{"PR_GET_DUMPABLE", SYS_prctl, WORKS, 0, {PR_GET_DUMPABLE}},
		{"one more filter", SYS_seccomp, WORKS, 0,
		 {SECCOMP_SET_MODE_FILTER, 0, PTR(&one_more)}},
		{"a listener", SYS_seccomp, EPERM, 0,
		 {SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, PTR(&one_more)}},
		{"clone of a process", SYS_clone, WORKS, 0, {SIGCHLD}},
		{"mmap", SYS_mmap, WORKS, 0, {0, 4096, 0, MAP_PRIVATE | MAP_ANONYMOUS, NO_FD}},
		{"MAP_HUGETLB", SYS_mmap, ENOMEM, 0,
		 {0, 0, 0, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, NO_FD}},
		{"MFD_HUGETLB", SYS_memfd_create, ENOMEM, 0, {0, MFD_HUGETLB | MFD_CLOEXEC}},
		{"SHM_HUGETLB", SYS_shmget, ENOMEM, 0, {IPC_PRIVATE, 0, SHM_HUGETLB | IPC_CREAT}},
	};

	(void)state;
	try_all(probes, sizeof probes / sizeof *probes, DEFAULT);
}

static void
test_sockets(void **state)
{
	int pair[2];
	const struct probe probes[] = {
		{"unix", SYS_socket, WORKS, 0, {AF_UNIX, SOCK_STREAM, 0}},
		{"unix seqpacket", SYS_socket, WORKS, 0, {AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC}},
		{"unix pair", SYS_socketpair, WORKS, 0, {AF_UNIX, SOCK_STREAM, 0, PTR(pair)}},
		{"tcp", SYS_socket, WORKS, 0, {AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0}},
		{"udp", SYS_socket, WORKS, 0, {AF_INET, SOCK_DGRAM, IPPROTO_UDP}},
		{"tcp over IPv6", SYS_socket, WORKS, 0, {AF_INET6, SOCK_STREAM, IPPROTO_TCP}},
		{"raw", SYS_socket, EPERM, 0, {AF_INET, SOCK_RAW, IPPROTO_ICMP}},
		{"raw over IPv6", SYS_socket, EPERM, 0, {AF_INET6, SOCK_RAW | SOCK_CLOEXEC, 58}},
		{"inet packet", SYS_socket, EPERM, 0, {AF_INET, SOCK_PACKET, 0}},
		{"inet seqpacket", SYS_socket, EPERM, 0, {AF_INET, SOCK_SEQPACKET, 0}},
		{"sctp", SYS_socket, EPROTONOSUPPORT, MAYBE, {AF_INET, SOCK_STREAM, 132}},
		{"mptcp", SYS_socket, EPROTONOSUPPORT, MAYBE, {AF_INET, SOCK_STREAM, 262}},
		{"icmp", SYS_socket, EPROTONOSUPPORT, MAYBE, {AF_INET, SOCK_DGRAM, IPPROTO_ICMP}},
		{"packet", SYS_socket, EAFNOSUPPORT, MAYBE, {AF_PACKET, SOCK_RAW, 0}},
		{"netlink route", SYS_socket, EAFNOSUPPORT, 0, {AF_NETLINK, SOCK_RAW, NETLINK_ROUTE}},
		{"netlink audit", SYS_socket, EAFNOSUPPORT, 0, {AF_NETLINK, SOCK_RAW, 15}},
		{"netlink, high bits", SYS_socket, EAFNOSUPPORT, 0,
		 {AF_NETLINK | HIGH, SOCK_RAW, 15}},
		{"vsock", SYS_socket, EAFNOSUPPORT, INSIDE_ONLY, {AF_VSOCK, SOCK_STREAM}},
		{"alg", SYS_socket, EAFNOSUPPORT, INSIDE_ONLY, {38, SOCK_SEQPACKET}},
		{"key", SYS_socket, EAFNOSUPPORT, INSIDE_ONLY, {15, SOCK_RAW, 2}},
		{"bluetooth", SYS_socket, EAFNOSUPPORT, INSIDE_ONLY, {31, SOCK_RAW}},
		{"tipc", SYS_socket, EAFNOSUPPORT, INSIDE_ONLY, {30, SOCK_RDM}},
		{"rds", SYS_socket, EAFNOSUPPORT, INSIDE_ONLY, {21, SOCK_SEQPACKET}},
		{"xdp", SYS_socket, EAFNOSUPPORT, INSIDE_ONLY, {44, SOCK_RAW}},
		{"family 3", SYS_socket, EAFNOSUPPORT, INSIDE_ONLY, {3, SOCK_DGRAM}},
		{"tipc pair", SYS_socketpair, EAFNOSUPPORT, INSIDE_ONLY, {30, SOCK_RDM}},
		{"inet pair", SYS_socketpair, EAFNOSUPPORT, 0, {AF_INET, SOCK_STREAM}},
		{"TCP_ULP", SYS_setsockopt, ENOPROTOOPT, 0, {NO_FD, IPPROTO_TCP, TCP_ULP}},
		{"TCP_NODELAY", SYS_setsockopt, EBADF, MAYBE, {NO_FD, IPPROTO_TCP, TCP_NODELAY}},
		{"SO_REUSEADDR", SYS_setsockopt, EBADF, MAYBE, {NO_FD, SOL_SOCKET, SO_REUSEADDR}},
	};

	(void)state;
	try_all(probes, sizeof probes / sizeof *probes, DEFAULT);
}

static int
number_of(const struct seccomp_call *c)
{
	int n = seccomp_syscall_resolve_name(c->name);

	return n == __NR_SCMP_ERROR ? c->number : n;
}

static bool
names(const struct seccomp_call *list, int number)
{
	for (; list->name; list++)
		if (number_of(list) == number)
			return true;
	return false;
}

/* Every number: what the policy refuses or does not name never reaches the kernel. */
static void
test_every_number(void **state)
{
	const struct seccomp_policy *policy = &seccomp_policies[0];
	int bad = 0;

	(void)state;
	for (int n = 0; n < 600; n++) {
		struct probe p = {"", n, ENOSYS, INSIDE_ONLY, {~0ul, ~0ul, ~0ul, ~0ul, ~0ul, ~0ul}};
		const struct seccomp_rule *r = policy->rules;
		int got;

		/* uretprobe and uprobe: since Linux 6.14 the kernel lets them past every
		 * filter, and kills who is not in one of its trampolines. */
		if (n == 335 || n == 336)
			continue;
		while (r->name && seccomp_syscall_resolve_name(r->name) != n)
			r++;
		if (r->name || names(policy->allowed, n))
			continue;
		if (names(policy->refused, n))
			p.want = EPERM;
		got = try_call(&p, DEFAULT);
		if (got != p.want) {
			print_error("call %d: %s instead of %s\n", n, strerror(got),
				    strerror(p.want));
			bad++;
		}
	}
	assert_int_equal(bad, 0);
}

#ifdef __x86_64__
static int
call_i386(enum filter filter)
{
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		long rc;

		if (install(filter) < 0)
			_exit(1);
		/* 20 is getpid there and writev here */
		__asm__ volatile("int $0x80" : "=a"(rc) : "a"(20) : "memory");
		_exit(rc == getpid() ? 0 : 2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void
test_other_architecture(void **state)
{
	int outside = call_i386(NO_FILTER), inside = call_i386(DEFAULT);

	(void)state;
	if (outside != 0) {
		print_message("this kernel has no 32-bit calls\n");
		skip();
	}
	assert_true(WIFSIGNALED(inside));
	assert_int_equal(WTERMSIG(inside), SIGSYS);
}
#else
static void
test_other_architecture(void **state)
{
	(void)state;
	skip();
}
#endif

/* Without no_new_privs and without privileges the kernel refuses, and we say so. */
static void
test_needs_no_new_privs(void **state)
{
	struct err e;
	int status;
	pid_t pid;

	(void)state;
	if (getuid() != 0)
		skip();
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		if (setresuid(65534, 65534, 65534) < 0)
			_exit(1);
		if (seccomp_install(&e) == 0 || e.cls != ERR_NODE || e.errnum != EACCES)
			_exit(2);
		_exit(install(DEFAULT) < 0 || install(DEFAULT) < 0 ? 3 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_true(seccomp_length() > 10 && seccomp_length() < 256);
}

/* Runs a program under the filter: its exit status. */
static int
run_inside(char *const argv[])
{
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		if (install(DEFAULT) < 0)
			_exit(120);
		execv(argv[0], argv);
		_exit(121);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

/* What functions do every day goes on working. */
static void
test_programs(void **state)
{
	static char script[] =
		"import asyncio, concurrent.futures, ctypes, hashlib, json, multiprocessing\n"
		"import os, shutil, signal, socket, sqlite3, subprocess, tempfile, threading\n"
		"with concurrent.futures.ThreadPoolExecutor(4) as pool:\n"
		"    assert sum(pool.map(lambda x: x * x, range(10))) == 285\n"
		"assert subprocess.run(['/bin/echo', 'x'], capture_output=True).stdout == b'x\\n'\n"
		"with tempfile.TemporaryDirectory() as d:\n"
		"    a, b = d + '/a', d + '/b'\n"
		"    open(a, 'wb').write(os.urandom(300000))\n"
		"    shutil.copyfile(a, b)\n"
		"    assert open(a, 'rb').read() == open(b, 'rb').read()\n"
		"    db = sqlite3.connect(d + '/db')\n"
		"    db.execute('create table t (x)')\n"
		"    db.commit()\n"
		"s = socket.create_server(('127.0.0.1', 0))\n"
		"c = socket.create_connection(s.getsockname())\n"
		"x, _ = s.accept()\n"
		"x.sendfile(open('/bin/sh', 'rb'), count=5000)\n"
		"assert len(c.recv(5000, socket.MSG_WAITALL)) == 5000\n"
		"async def main():\n"
		"    p = await asyncio.create_subprocess_exec('/bin/true')\n"
		"    assert await p.wait() == 0\n"
		"asyncio.run(main())\n"
		"q = multiprocessing.get_context('fork').SimpleQueue()\n"
		"p = multiprocessing.get_context('fork').Process(target=q.put, args=(7,))\n"
		"p.start(); p.join(); assert q.get() == 7\n";
	static char node[] = "const fs = require('fs'), os = require('os');"
			     "const d = fs.mkdtempSync(os.tmpdir() + '/x');"
			     "fs.writeFileSync(d + '/a', 'x'.repeat(100000));"
			     "fs.copyFileSync(d + '/a', d + '/b');"
			     "if (fs.readFileSync(d + '/b').length !== 100000) process.exit(3);"
			     "fs.rmSync(d, {recursive: true});"
			     "require('crypto').pbkdf2('a', 'b', 10, 8, 'sha1', () => {});"
			     "if (require('child_process').spawnSync('/bin/true').status !== 0)"
			     "  process.exit(4);";
	static char *const python3[] = {"/usr/bin/python3", "-c", script, NULL};
	static char *const nodejs[] = {"/usr/bin/node", "-e", node, NULL};
	static char *const busybox[] = {
		"/bin/busybox", "sh", "-c",
		"d=$(mktemp -d) && busybox cp /bin/busybox $d/x && busybox cat $d/x | busybox "
		"cmp - /bin/busybox && rm -r $d",
		NULL};
	char *const *const programs[] = {python3, nodejs, busybox};

	(void)state;
	for (unsigned i = 0; i < sizeof programs / sizeof *programs; i++) {
		if (access(programs[i][0], X_OK) < 0)
			print_message("%s is not here\n", programs[i][0]);
		else if (run_inside(programs[i]) != 0)
			fail_msg("%s does not work", programs[i][0]);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_unknown),
		cmocka_unit_test(test_arguments),
		cmocka_unit_test(test_sockets),
		cmocka_unit_test(test_every_number),
		cmocka_unit_test(test_other_architecture),
		cmocka_unit_test(test_needs_no_new_privs),
		cmocka_unit_test(test_programs),
	};

	return cmocka_run_group_tests_name("seccomp", tests, NULL, NULL);
}
