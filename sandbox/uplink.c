/*
 * See uplink.h.  What happens here, in order:
 *
 *   made ahead: a child makes the namespaces, and hands them over
 *   the machine's network namespace
 *   a child without powers asks getent(1) for the addresses of hosts that are allowed by name
 *   which addresses the machine has, which resolvers it asks
 *   a /dev of its own with a tun that its user may open
 *   a child enters the sandbox's user and network namespace, makes the tap device there and
 *   runs nft
 *   the user: without root's powers from here on
 *   slirp4netns, which opens the tap device inside, and writes the byte that init waits for
 *
 * Who parses what strangers say (answers of a resolver, the sandbox's packets) has no powers.
 *
 * What goes wrong before the last step is told to init, whose error it becomes.
 */
#include "sandbox/uplink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/capability.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/caps.h"
#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "sandbox/sandbox.h"

#define GETENT "/usr/bin/getent"
#define NFT "/usr/sbin/nft"
#define STACK "/usr/bin/slirp4netns"

/* Where the descriptors are in the process; of the first three there is nothing to read, and
 * nobody reads what is written. */
enum { READY_FD = 3, END_FD, USER_FD, NET_FD, OURS_END };

enum {
	RULES_MAX = 32 << 10,
	RESOLVERS_MAX = 8,
	ADDRESSES_MAX = 8,    /* of one name */
	LOOKUP_MS = 10000,    /* for one name */
	NO_TAP = 125,         /* the exit status of who would have executed nft */
	SOCKETS_MAX = 1024,   /* the most connections at a time, less a few */
};

static _Noreturn void
fail(int ready_w, struct err *e)
{
	err_wrap(e, "egress");
	fd_write_all(ready_w, e, sizeof *e);
	_exit(1);
}

/* ---- The machine ---- */

static unsigned
own_addresses(uint32_t out[EGRESS_OWN_MAX])
{
	struct ifaddrs *all, *i;
	unsigned count = 0;

	if (getifaddrs(&all))
		return 0;
	for (i = all; i && count < EGRESS_OWN_MAX; i = i->ifa_next)
		if (i->ifa_addr && i->ifa_addr->sa_family == AF_INET)
			out[count++] = ntohl(((struct sockaddr_in *)(void *)i->ifa_addr)->sin_addr.s_addr);
	freeifaddrs(all);
	return count;
}

static unsigned
resolvers(uint32_t out[RESOLVERS_MAX])
{
	struct buf text = { 0 };
	unsigned count = 0;
	char *line, *rest;

	if (file_slurp(AT_FDCWD, "/etc/resolv.conf", 64 << 10, &text, NULL) == 0)
		for (rest = text.data; count < RESOLVERS_MAX && (line = strsep(&rest, "\n"));) {
			struct in_addr in;
			char address[64];

			if (sscanf(line, " nameserver %63s", address) == 1 &&
			    inet_pton(AF_INET, address, &in) == 1)
				out[count++] = ntohl(in.s_addr);
		}
	buf_free(&text);
	return count;
}

/* ---- Names ---- */

/* The ids only: the sandbox's own, which own nothing of the machine's. */
static int
become_nobody(uid_t uid)
{
	return syscall(SYS_setresgid, uid, uid, uid) || syscall(SYS_setgroups, 0, NULL) ||
	       syscall(SYS_setresuid, uid, uid, uid) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static _Noreturn void
run_getent(const char *host, uid_t uid, int out)
{
	char *const argv[] = { (char *)"getent", (char *)"ahostsv4", (char *)"--",
			       (char *)(uintptr_t)host, NULL };
	static char *const envp[] = { (char *)"LC_ALL=C", NULL };

	if (become_nobody(uid) || prctl(PR_SET_PDEATHSIG, SIGKILL) || dup2(out, 1) < 0)
		_exit(126);
	execve(GETENT, argv, envp);
	_exit(errno == ENOENT ? 127 : 126);
}

/* What it prints until it ends, at most size - 1 bytes; its end is not waited for longer. */
static void
read_answer(int fd, char *out, size_t size)
{
	uint64_t until_ns = clock_mono_ns() + LOOKUP_MS * NS_PER_MS;
	struct pollfd p = { .fd = fd, .events = POLLIN };
	size_t len = 0;
	ssize_t n;

	while (len < size - 1) {
		uint64_t now_ns = clock_mono_ns();

		if (now_ns >= until_ns || poll(&p, 1, (int)((until_ns - now_ns) / NS_PER_MS) + 1) <= 0)
			break;
		n = read(fd, out + len, size - 1 - len);
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	out[len] = '\0';
}

static int
add_address(struct net_rules *allow, uint32_t address, uint16_t port, struct err *e)
{
	const struct net_rule r = { .address = address, .prefix = 32, .first = port, .last = port };

	if (!address || net_rule_is_within(&r, allow))
		return 0;
	if (allow->count == NET_RULES_MAX)
		return err_set(e, ERR_INPUT, "more than %d addresses are to be allowed", NET_RULES_MAX);
	allow->list[allow->count++] = r;
	return 0;
}

/* A name that has no address is none to be allowed: who asks for it will be told the same. */
static int
look_up(struct net_rules *allow, const char *host, uint16_t port, uid_t uid, struct err *e)
{
	char answer[4096], *line, *rest = answer;
	int out[2], status;
	unsigned found = 0;
	pid_t pid;

	if (pipe2(out, O_CLOEXEC))
		return err_sys(e, ERR_NODE, "make a pipe");
	pid = fork();
	if (pid == 0)
		run_getent(host, uid, out[1]);
	close(out[1]);
	read_answer(out[0], answer, sizeof answer);
	close(out[0]);
	if (pid < 0 || kill(pid, SIGKILL) || waitpid(pid, &status, 0) != pid)
		return err_sys(e, ERR_NODE, "run getent");
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		return err_set(e, ERR_INPUT, "there is no " GETENT " on this node (Debian: libc-bin)");
	while (found < ADDRESSES_MAX && (line = strsep(&rest, "\n"))) {
		struct in_addr in;

		line[strcspn(line, " \t")] = '\0';
		if (inet_pton(AF_INET, line, &in) != 1)
			continue;
		if (add_address(allow, ntohl(in.s_addr), port, e))
			return -1;
		found++;
	}
	return 0;
}

static int
add_names(struct net_rules *allow, const struct uplink_spec *spec, struct err *e)
{
	for (uint32_t i = 0; spec->names && i < spec->names->count; i++) {
		const char *host = spec->names->list[i].host;
		uint16_t port = spec->names->list[i].port;
		struct in_addr in;

		/* getent finds no localhost on a machine that has nothing but a loopback. */
		if (inet_pton(AF_INET, strcasecmp(host, "localhost") ? host : "127.0.0.1", &in) == 1
			    ? add_address(allow, ntohl(in.s_addr), port, e)
			    : look_up(allow, host, port, spec->uid, e))
			return -1;
	}
	return 0;
}

/* ---- The rules ---- */

static int
put_rules(const struct net_rules *allow, struct err *e)
{
	uint32_t own[EGRESS_OWN_MAX], asked[RESOLVERS_MAX];
	unsigned own_count = own_addresses(own), asked_count = resolvers(asked);
	struct buf text = { .max = RULES_MAX };
	CLEAN_FD int fd = memfd_create("pratai-egress", MFD_CLOEXEC);
	int rc = egress_ruleset(allow, own, own_count, asked, asked_count, &text);

	if (fd < 0 || rc || fd_write_all(fd, text.data, text.len) || lseek(fd, 0, SEEK_SET))
		rc = err_sys(e, ERR_NODE, "write the rules");
	buf_free(&text);
	return rc ? -1 : fd_steal(&fd);
}

/* ---- The tap device ---- */

/* The machine's tun may be root's alone; as root there can be another one. */
static int
make_dev(struct err *e)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("none", "/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "size=64k,mode=755") ||
	    mkdir("/dev/net", 0755) || mknod("/dev/net/tun", S_IFCHR | 0666, makedev(10, 200)) ||
	    chmod("/dev/net/tun", 0666))
		return err_sys(e, ERR_NODE, "make /dev/net/tun");
	return 0;
}

/*
 * In the sandbox's network namespace, for the stack to find.  It stays when the stack ends: to
 * remove it takes the kernel 15 to 50 ms, for which the stack's end would wait; with the
 * namespace it goes without anybody waiting.
 */
static int
make_tap(void)
{
	struct ifreq tap = { .ifr_name = EGRESS_DEVICE, .ifr_flags = IFF_TAP | IFF_NO_PI };
	CLEAN_FD int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	return fd < 0 || ioctl(fd, TUNSETIFF, &tap) || ioctl(fd, TUNSETPERSIST, 1) ? -1 : 0;
}

/* In the namespaces: the child has every capability there, and hands one on to nft. */
static _Noreturn void
run_nft(const struct net_rules *allow, int rules)
{
	static char *const argv[] = { (char *)"nft", (char *)"-f", (char *)"-", NULL };
	static char *const envp[] = { (char *)"LC_ALL=C", NULL };
	CLEAN_FD int turn = -1;

	if (setns(USER_FD, CLONE_NEWUSER) || setns(NET_FD, CLONE_NEWNET))
		_exit(126);
	if (make_tap())
		_exit(NO_TAP);
	if (egress_allows_loopback(allow)) {
		turn = open("/proc/sys/net/ipv4/conf/all/route_localnet", O_WRONLY | O_CLOEXEC);
		if (turn < 0 || write(turn, "1", 1) != 1)
			_exit(126);
	}
	if (caps_pass_on(1ull << CAP_NET_ADMIN) || dup2(rules, 0) < 0)
		_exit(126);
	execve(NFT, argv, envp);
	_exit(errno == ENOENT ? 127 : 126);
}

static int
set_rules(const struct net_rules *allow, struct err *e)
{
	CLEAN_FD int rules = put_rules(allow, e);
	int status;
	pid_t pid;

	if (rules < 0)
		return -1;
	pid = fork();
	if (pid == 0)
		run_nft(allow, rules);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return err_sys(e, ERR_NODE, "run nft");
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		return err_set(e, ERR_INPUT, "there is no " NFT " on this node (Debian: nftables)");
	if (WIFEXITED(status) && WEXITSTATUS(status) == NO_TAP)
		return err_set(e, ERR_INPUT, "a tap device cannot be made with /dev/net/tun (the kernel's "
					     "tun; its user must be allowed to open it)");
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		return err_set(e, ERR_NODE, "nft did not take the rules");
	return 0;
}

/* ---- The stack ---- */

static int
become(uid_t uid, struct err *e)
{
	const struct rlimit sockets = { SOCKETS_MAX, SOCKETS_MAX };

	if (uid && become_nobody(uid))
		return err_sys(e, ERR_NODE, "become uid %u", uid);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_PDEATHSIG, SIGKILL) ||
	    setrlimit(RLIMIT_NOFILE, &sockets))
		return err_sys(e, ERR_NODE, "set the stack's process up");
	return 0;
}

static _Noreturn void
run_stack(const struct net_rules *allow, const struct uplink_spec *spec)
{
	static const char self[] = "/proc/self/fd/";
	char ready[24], end[24], user[48], net[48];
	const char *argv[16];
	static char *const envp[] = { NULL };
	struct err e = { 0 };
	unsigned n = 0;

	snprintf(ready, sizeof ready, "--ready-fd=%d", READY_FD);
	snprintf(end, sizeof end, "--exit-fd=%d", END_FD);
	snprintf(user, sizeof user, "--userns-path=%s%d", self, USER_FD);
	snprintf(net, sizeof net, "%s%d", self, NET_FD);
	argv[n++] = "slirp4netns";
	argv[n++] = "--configure";
	argv[n++] = "--mtu=65520";
	argv[n++] = "--enable-seccomp";
	if (!egress_allows_loopback(allow))
		argv[n++] = "--disable-host-loopback";
	argv[n++] = ready;
	argv[n++] = end;
	argv[n++] = user;
	argv[n++] = "--netns-type=path";
	argv[n++] = net;
	argv[n++] = EGRESS_DEVICE;
	argv[n] = NULL;
	if (become(spec->uid, &e))
		fail(READY_FD, &e);
	for (int fd = READY_FD; fd < OURS_END; fd++)
		fd_set_inheritable(fd);
	execve(STACK, (char *const *)(uintptr_t)argv, envp);
	if (errno == ENOENT)
		err_set(&e, ERR_INPUT, "there is no " STACK " on this node (Debian: slirp4netns)");
	else
		err_sys(&e, ERR_NODE, "execute " STACK);
	fail(READY_FD, &e);
}

/* ---- Namespaces of its own ---- */

/* The child is in both, with every capability there. */
static pid_t
clone_namespaces(uid_t creator)
{
	long pid = -1;

	if (syscall(SYS_setresuid, -1, creator, 0))
		return -1;
	if (!caps_raise())
		pid = syscall(SYS_clone, CLONE_NEWUSER | CLONE_NEWNET | SIGCHLD, NULL, NULL, NULL, 0);
	/* The saved id is root's: this cannot fail. */
	if (pid != 0 && syscall(SYS_setresuid, -1, 0, -1))
		abort();
	return (pid_t)pid;
}

/* The same descriptors that a sandbox's init offers, by a process that is there for nothing else. */
static int
make_namespaces(uid_t creator, int *user, int *net, struct err *e)
{
	int pair[2], status;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return err_sys(e, ERR_NODE, "make a socket");
	pid = clone_namespaces(creator);
	if (pid == 0)
		_exit(loopback_up(e) || uplink_offer(pair[1], e) ? 1 : 0);
	close(pair[1]);
	*user = pid < 0 ? -1 : fd_receive(pair[0], 0);
	*net = *user < 0 ? -1 : fd_receive(pair[0], 0);
	close(pair[0]);
	if (pid < 0 || waitpid(pid, &status, 0) != pid || *net < 0)
		return err_sys(e, ERR_NODE, "make a network namespace");
	return 0;
}

/* ---- The process ---- */

static int
take_namespaces(const struct uplink_spec *spec, int *user, int *net, struct err *e)
{
	if (spec->ahead)
		return make_namespaces(spec->uid, user, net, e) || fd_send(spec->ready_w, *net) ? -1 : 0;
	*user = fd_receive(spec->ready_w, 0);
	*net = fd_receive(spec->ready_w, 0);
	return 0;
}

static int
place_descriptors(const struct uplink_spec *spec, int end_r, struct err *e)
{
	int from[OURS_END] = { -1, -1, -1, spec->ready_w, end_r, -1, -1 };
	int empty[2], deaf[2];

	if (pipe2(empty, O_CLOEXEC) || pipe2(deaf, O_CLOEXEC))
		return err_sys(e, ERR_NODE, "make a pipe");
	from[0] = empty[0];
	from[1] = from[2] = deaf[1];
	if (take_namespaces(spec, &from[USER_FD], &from[NET_FD], e))
		return -1;
	for (int i = 0; i < OURS_END; i++)
		if (from[i] < 0 || (from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, 16)) < 0)
			return err_sys(e, ERR_NODE, "take the sandbox's namespaces");
	if (spec->host_netns >= 0 && setns(spec->host_netns, CLONE_NEWNET))
		return err_sys(e, ERR_NODE, "enter the machine's network namespace");
	for (int i = 0; i < OURS_END; i++)
		if (i < 3 ? dup2(from[i], i) < 0 : dup3(from[i], i, O_CLOEXEC) < 0)
			return err_sys(e, ERR_NODE, "place descriptor %d", i);
	return close_range(OURS_END, ~0u, 0) ? err_sys(e, ERR_NODE, "close descriptors") : 0;
}

static _Noreturn void
uplink_main(const struct uplink_spec *spec, int end_r)
{
	struct net_rules allow = *spec->allow;
	int keep[] = { spec->ready_w, end_r, spec->host_netns };
	struct err e = { 0 };
	sigset_t none;

	prctl(PR_SET_NAME, "pratai-uplink");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_IGN);
	/* First, since it waits for the sandbox then. */
	if (fd_close_but(keep, sizeof keep / sizeof keep[0]))
		err_sys(&e, ERR_NODE, "close what is the caller's");
	if (e.cls || place_descriptors(spec, end_r, &e))
		fail(spec->ready_w, &e); /* which may be elsewhere still */
	if (add_names(&allow, spec, &e) || (spec->uid && make_dev(&e)) || set_rules(&allow, &e))
		fail(READY_FD, &e);
	run_stack(&allow, spec);
}

int
uplink_start(struct uplink *u, const struct uplink_spec *spec, struct err *e)
{
	const unsigned long own_pids = spec->uid ? CLONE_NEWPID : 0;
	int end[2];
	long pid;

	u->pidfd = u->end = -1;
	if (pipe2(end, O_CLOEXEC))
		return err_sys(e, ERR_NODE, "make a pipe");
	pid = syscall(SYS_clone, CLONE_PIDFD | own_pids | SIGCHLD, NULL, &u->pidfd, NULL, 0);
	if (pid == 0)
		uplink_main(spec, end[0]);
	close(end[0]);
	u->end = end[1];
	if (pid > 0)
		return 0;
	fd_close(&u->end);
	return err_sys(e, ERR_AGAIN, "fork the process of the network");
}

void
uplink_kill(struct uplink *u)
{
	fd_close(&u->end);
	if (u->pidfd >= 0)
		pidfd_send_signal(u->pidfd, SIGKILL, NULL, 0);
}

int
uplink_reap(struct uplink *u)
{
	siginfo_t info = { 0 };

	if (u->pidfd < 0)
		return 1;
	if (waitid(P_PIDFD, (id_t)u->pidfd, &info, WEXITED | WNOHANG) == 0 && !info.si_pid)
		return 0;
	fd_close(&u->pidfd);
	return 1;
}

void
uplink_wait_end(struct uplink *u)
{
	while (!uplink_reap(u))
		poll(&(struct pollfd){ .fd = u->pidfd, .events = POLLIN }, 1, -1);
}

int
uplink_offer(int ready_r, struct err *e)
{
	CLEAN_FD int user = open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC);
	CLEAN_FD int net = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

	if (user < 0 || net < 0 || fd_send(ready_r, user) || fd_send(ready_r, net))
		return err_sys(e, ERR_NODE, "hand the namespaces over");
	return 0;
}

int
uplink_wait(int ready_r, struct err *e)
{
	struct err said;
	ssize_t n;

	n = fd_read_all(ready_r, &said, 1);
	if (n == 1 && *(const char *)&said == '1')
		return 0;
	if (n == 1 && fd_read_all(ready_r, (char *)&said + 1, sizeof said - 1) == sizeof said - 1) {
		*e = said;
		return -1;
	}
	return err_set(e, ERR_NODE, "egress: slirp4netns ended before the network was up "
				    "(see its manual)");
}
