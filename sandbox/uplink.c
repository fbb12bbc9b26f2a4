/*
 * See uplink.h.  What happens here, in order:
 *
 *   the machine's network namespace; which addresses it has, which resolvers it asks
 *   a child enters the sandbox's user and network namespace and runs nft there
 *   a /dev of its own with a tun that its user may open
 *   the user: without root's powers from here on
 *   slirp4netns, which opens the tap device inside, and writes the byte that init waits for
 *
 * What goes wrong before the last step is told to init, whose error it becomes.
 */
#include "sandbox/uplink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/caps.h"
#include "core/base/err.h"
#include "core/base/fdio.h"

#define NFT "/usr/sbin/nft"
#define STACK "/usr/bin/slirp4netns"

/* Where the descriptors are in the process; the first three are /dev/null. */
enum { READY_FD = 3, END_FD, USER_FD, NET_FD, OURS_END };

enum { RULES_MAX = 32 << 10, RESOLVERS_MAX = 8 };

static _Noreturn void
fail(struct err *e)
{
	err_wrap(e, "egress");
	fd_write_all(READY_FD, e, sizeof *e);
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

/* ---- The rules ---- */

static int
put_rules(const struct egress_policy *policy, struct err *e)
{
	uint32_t own[EGRESS_OWN_MAX], asked[RESOLVERS_MAX];
	unsigned own_count = own_addresses(own), asked_count = resolvers(asked);
	struct buf text = { .max = RULES_MAX };
	CLEAN_FD int fd = memfd_create("pratai-egress", MFD_CLOEXEC);
	int rc = egress_ruleset(policy, own, own_count, asked, asked_count, &text);

	if (fd < 0 || rc || fd_write_all(fd, text.data, text.len) || lseek(fd, 0, SEEK_SET))
		rc = err_sys(e, ERR_NODE, "write the rules");
	buf_free(&text);
	return rc ? -1 : fd_steal(&fd);
}

/* In the namespaces: the child has every capability there, and hands one on to nft. */
static _Noreturn void
run_nft(const struct egress_policy *policy, int rules)
{
	static char *const argv[] = { (char *)"nft", (char *)"-f", (char *)"-", NULL };
	static char *const envp[] = { (char *)"LC_ALL=C", NULL };
	CLEAN_FD int turn = -1;

	if (setns(USER_FD, CLONE_NEWUSER) || setns(NET_FD, CLONE_NEWNET))
		_exit(126);
	if (egress_allows_loopback(policy)) {
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
set_rules(const struct egress_policy *policy, struct err *e)
{
	CLEAN_FD int rules = put_rules(policy, e);
	int status;
	pid_t pid;

	if (rules < 0)
		return -1;
	pid = fork();
	if (pid == 0)
		run_nft(policy, rules);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return err_sys(e, ERR_NODE, "run nft");
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		return err_set(e, ERR_NODE, "there is no " NFT " (Debian: nftables)");
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		return err_set(e, ERR_NODE, "nft did not take the rules");
	return 0;
}

/* ---- The stack ---- */

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

static int
become(uid_t uid, struct err *e)
{
	if (uid && (make_dev(e) || syscall(SYS_setresgid, uid, uid, uid) ||
		    syscall(SYS_setgroups, 0, NULL) || syscall(SYS_setresuid, uid, uid, uid)))
		return e->cls ? -1 : err_sys(e, ERR_NODE, "become uid %u", uid);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_PDEATHSIG, SIGKILL))
		return err_sys(e, ERR_NODE, "prctl");
	return 0;
}

static _Noreturn void
run_stack(const struct uplink_spec *spec)
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
	if (!egress_allows_loopback(spec->policy))
		argv[n++] = "--disable-host-loopback";
	argv[n++] = ready;
	argv[n++] = end;
	argv[n++] = user;
	argv[n++] = "--netns-type=path";
	argv[n++] = net;
	argv[n++] = EGRESS_DEVICE;
	argv[n] = NULL;
	if (become(spec->uid, &e))
		fail(&e);
	for (int fd = READY_FD; fd < OURS_END; fd++)
		fd_set_inheritable(fd);
	execve(STACK, (char *const *)(uintptr_t)argv, envp);
	if (errno == ENOENT)
		err_set(&e, ERR_NODE, "there is no " STACK " (Debian: slirp4netns)");
	else
		err_sys(&e, ERR_NODE, "execute " STACK);
	fail(&e);
}

/* ---- The process ---- */

static int
place_descriptors(const struct uplink_spec *spec, int end_r, struct err *e)
{
	char path[64];
	int from[OURS_END] = { -1, -1, -1, spec->ready_w, end_r, -1, -1 };
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	from[0] = from[1] = from[2] = null;
	snprintf(path, sizeof path, "/proc/%d/ns/user", (int)spec->sandbox);
	from[USER_FD] = open(path, O_RDONLY | O_CLOEXEC);
	snprintf(path, sizeof path, "/proc/%d/ns/net", (int)spec->sandbox);
	from[NET_FD] = open(path, O_RDONLY | O_CLOEXEC);
	for (int i = 0; i < OURS_END; i++)
		if (from[i] < 0 || (from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, 16)) < 0)
			return err_sys(e, ERR_NODE, "open the sandbox's namespaces");
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
	struct err e = { 0 };
	sigset_t none;

	prctl(PR_SET_NAME, "pratai-uplink");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_IGN);
	if (place_descriptors(spec, end_r, &e) || set_rules(spec->policy, &e))
		fail(&e);
	run_stack(spec);
}

int
uplink_start(struct uplink *u, const struct uplink_spec *spec, struct err *e)
{
	int end[2];
	long pid;

	u->pidfd = u->end = -1;
	if (pipe2(end, O_CLOEXEC))
		return err_sys(e, ERR_NODE, "make a pipe");
	pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, NULL, &u->pidfd, NULL, 0);
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
				    "(may its user open /dev/net/tun?)");
}
