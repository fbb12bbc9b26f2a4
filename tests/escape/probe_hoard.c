/*
 * `hoard=KIND` takes as many descriptors of a kind as it gets and keeps them; its result is the
 * errno that ended it, or ERANGE when nothing did up to a bound that none should reach.
 */
#include "tests/escape/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { BOUND = 20000, BATCH = 253 /* SCM_MAX_FD */ };

static int
take_file(void)
{
	return open("/dev/null", O_RDONLY);
}

static int
take_memory(void)
{
	int fd = memfd_create("hoard", 0);

	return fd < 0 || ftruncate(fd, 1 << 30) ? -1 : fd;
}

static int
take_pipe(void)
{
	int fds[2];

	return pipe(fds) ? -1 : fds[1];
}

static int
take_full_pipe(void)
{
	static char bytes[4096];
	int fd = take_pipe();

	if (fd < 0 || fcntl(fd, F_SETFL, O_NONBLOCK))
		return -1;
	while (write(fd, bytes, sizeof bytes) > 0)
		;
	return fd;
}

static int
take_socket(void)
{
	return socket(AF_UNIX, SOCK_STREAM, 0);
}

static int
take_event(void)
{
	return eventfd(0, 0);
}

static int
take_timer(void)
{
	return timerfd_create(CLOCK_MONOTONIC, 0);
}

static int
take_epoll(void)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int fd = epoll_create1(0), event = eventfd(0, 0);

	return fd < 0 || event < 0 || epoll_ctl(fd, EPOLL_CTL_ADD, event, &ev) ? -1 : fd;
}

static int
take_inotify(void)
{
	return inotify_init1(0);
}

/* BATCH copies of a file, on their way from one socket to another and in nobody's table. */
static int
take_in_flight(void)
{
	static int ends[2] = { -1, -1 }, file;
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(BATCH * sizeof(int))];
	} control = { .head = { CMSG_LEN(BATCH * sizeof(int)), SOL_SOCKET, SCM_RIGHTS } };
	struct iovec io = { "", 1 };
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = &control,
			    .msg_controllen = sizeof control };
	int fds[BATCH];

	for (int i = 0; i < BATCH; i++)
		fds[i] = file;
	memcpy(CMSG_DATA(&control.head), fds, sizeof fds);
	if (ends[0] < 0 && (socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) || (file = take_file()) < 0))
		return -1;
	if (sendmsg(ends[0], &m, MSG_DONTWAIT) >= 0)
		return ends[0];
	if (errno != EAGAIN)
		return -1;
	/* That one is full. */
	return socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) ? -1 : ends[0];
}

/* A pair of sockets, each on its way to the other, and no other descriptor of them: only the
 * kernel's search for what nobody can reach ever ends them. */
static int
take_cycle(void)
{
	int ends[2];
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control = { .head = { CMSG_LEN(2 * sizeof(int)), SOL_SOCKET, SCM_RIGHTS } };
	struct iovec io = { "", 1 };
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = &control,
			    .msg_controllen = sizeof control };
	int rc = -1;

	if (socketpair(AF_UNIX, SOCK_DGRAM, 0, ends))
		return -1;
	memcpy(CMSG_DATA(&control.head), ends, sizeof ends);
	if (sendmsg(ends[0], &m, MSG_DONTWAIT) >= 0 && sendmsg(ends[1], &m, MSG_DONTWAIT) >= 0)
		rc = 0;
	close(ends[0]);
	close(ends[1]);
	return rc;
}

int
probe_hoard(const char *kind, long *rc)
{
	static const struct {
		const char *kind;
		int (*take)(void);
	} kinds[] = {
		{ "files", take_file },	    { "memory", take_memory },	   { "pipes", take_pipe },
		{ "sockets", take_socket }, { "events", take_event },	   { "timers", take_timer },
		{ "epoll", take_epoll },    { "inotify", take_inotify },   { "cycles", take_cycle },
		{ "full_pipes", take_full_pipe }, { "in_flight", take_in_flight },
	};
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files))
		return -1;
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
		if (strcmp(kind, kinds[i].kind))
			continue;
		for (int n = 0; n < BOUND; n++)
			if (kinds[i].take() < 0)
				return *rc = -1, 0;
		errno = ERANGE;
		return *rc = -1, 0;
	}
	return -1;
}
