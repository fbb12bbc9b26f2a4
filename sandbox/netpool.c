/*
 * The filler: unshare, lo up, send the descriptor, again.  The socket is the bound: its
 * send buffer has room for some NETPOOL_READY messages, and the send of the next one
 * blocks until one has been taken.  A namespace in the socket is in nobody's table of
 * descriptors, so the spawner's children do not copy it.
 *
 * It holds CAP_SYS_ADMIN (unshare) and CAP_NET_ADMIN (loopback) and nothing else, runs at a
 * lower priority than what waits for it, and dies with the spawner.
 */
#include "sandbox/netpool.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/base/fdio.h"
#include "core/base/caps.h"
#include "sandbox/sandbox.h"

/* A message of one byte costs its socket about this much of its send buffer. */
enum { MESSAGE_COST = 832 };

/*
 * Waits for room.  As long as a socket's buffer is more than a quarter full it does not count as
 * writable: then there is no hurry, and the next is made a moment later, since whoever took one
 * starts a sandbox now and wants the processor and the kernel's locks more than we do.
 */
static int
deliver(int fd)
{
	static const struct timespec moment = { .tv_nsec = 4000000 };
	struct pollfd room = { .fd = 3, .events = POLLOUT };
	bool hurry = poll(&room, 1, 0) != 0;

	if (fd_send(3, fd))
		return -1;
	if (!hurry)
		nanosleep(&moment, NULL);
	return 0;
}

static _Noreturn void
fill(int to)
{
	struct err e;

	prctl(PR_SET_NAME, "pratai-netfill");
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || dup3(to, 3, O_CLOEXEC) < 0 || close_range(4, ~0u, 0) ||
	    caps_keep(1ull << CAP_SYS_ADMIN | 1ull << CAP_NET_ADMIN, &e))
		_exit(1);
	setpriority(PRIO_PROCESS, 0, 5);
	for (;;) {
		int fd;

		if (unshare(CLONE_NEWNET) || loopback_up(&e) ||
		    (fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC)) < 0 || deliver(fd))
			_exit(1);
		close(fd);
	}
}

int
netpool_start(struct netpool *p, struct err *e)
{
	int pair[2], size = NETPOOL_READY * MESSAGE_COST / 2; /* the kernel doubles it */
	pid_t pid;

	p->fd = p->pidfd = -1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return err_sys(e, ERR_NODE, "socketpair");
	setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	pid = fork();
	if (pid == 0)
		fill(pair[1]);
	close(pair[1]);
	if (pid < 0 || (p->pidfd = (int)syscall(SYS_pidfd_open, pid, 0)) < 0) {
		err_sys(e, ERR_NODE, "start the maker of network namespaces");
		close(pair[0]);
		return -1;
	}
	p->fd = pair[0];
	return 0;
}

int
netpool_take(struct netpool *p)
{
	return p->fd < 0 ? -1 : fd_receive(p->fd, MSG_DONTWAIT);
}

void
netpool_close(struct netpool *p)
{
	siginfo_t info;

	fd_close(&p->fd);
	if (p->pidfd >= 0)
		waitid(P_PIDFD, (id_t)p->pidfd, &info, WEXITED | WNOHANG);
	fd_close(&p->pidfd);
}
