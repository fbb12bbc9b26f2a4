/*
 * The verbs that need more than one call: what one sandbox could leave for another on shared
 * layers, and what writes to pages that are shared.  The file that they share is /bin/shared of
 * the image; `at=PATH` names another.
 */
#include "tests/escape/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

static const char *shared = "/bin/shared";
enum { PROC_MAGIC = 0x9fa0, TMPFS_MAGIC = 0x01021994, TRIES = 2000 };

static long
fail(int errnum)
{
	errno = errnum;
	return -1;
}

static long
take_flock(void)
{
	return flock(open(shared, O_RDONLY), LOCK_EX | LOCK_NB);
}

/* Whoever opens the file then waits until the lease is given back, or for 45 s; we are told by
 * a signal. */
static long
take_lease(void)
{
	signal(SIGIO, SIG_IGN);
	return fcntl(open(shared, O_RDONLY), F_SETLEASE, F_WRLCK);
}

static long
open_shared(void)
{
	return open(shared, O_RDONLY | O_NONBLOCK);
}

static int watching = -1;

static long
watch(void)
{
	watching = inotify_init1(IN_NONBLOCK);
	return inotify_add_watch(watching, shared, IN_ALL_EVENTS);
}

/* What has been seen since; EAGAIN: nothing. */
static long
seen(void)
{
	char buffer[4096];

	return read(watching, buffer, sizeof buffer);
}

static long
meet(bool listening, const void *address, socklen_t size)
{
	int fd = socket(*(const sa_family_t *)address, SOCK_STREAM, 0);

	if (!listening)
		return connect(fd, address, size);
	return bind(fd, address, size) ? -1 : listen(fd, 1);
}

/* `listen` and `connect`: a name, `…_file`: a path, `…_tcp`: a port of the loopback. */
static long
meet_by(const char *how, bool listening)
{
	static const struct sockaddr_un name = { AF_UNIX, "\0pratai-escape-test" },
					file = { AF_UNIX, "/tmp/pratai-escape-test" };
	const struct sockaddr_in tcp = { .sin_family = AF_INET,
					 .sin_port = htons(47999),
					 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	if (!strcmp(how, "_tcp"))
		return meet(listening, &tcp, sizeof tcp);
	return meet(listening, *how ? &file : &name, sizeof name);
}

/* In a small sandbox the default of ten messages of 8 KiB is fine, too. */
static long
queue(int flags)
{
	return mq_open("/pratai-escape-test", O_RDWR | flags, 0600, NULL);
}

/*
 * A private copy of a file's page is written through /proc/self/mem, which overrides the
 * protection, while the page is given back again and again (CVE-2016-5195 raced the two).
 */
static long
write_private(void)
{
	int file = open(shared, O_RDONLY), mem = open("/proc/self/mem", O_RDWR);
	char *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, file, 0);

	if (page == MAP_FAILED || mem < 0)
		return -1;
	for (int i = 0; i < TRIES; i++) {
		if (pwrite(mem, "X", 1, (off_t)(uintptr_t)page) != 1)
			return -1;
		if (*page != 'X')
			return fail(EIO);
		madvise(page, 4096, MADV_DONTNEED);
	}
	return *page == 'X' ? fail(EIO) : 0;
}

static long
map_shared(void)
{
	int file = open(shared, O_RDWR);
	char *page;

	if (file < 0)
		return -1;
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (page == MAP_FAILED)
		return -1;
	*page = 'X';
	return 0;
}

static bool
is_on(const char *path, long magic)
{
	struct statfs s;

	return !statfs(path, &s) && s.f_type == magic;
}

/* Whether /proc, /dev and /tmp are the sandbox's own, whatever the image has there. */
static long
own_places(void)
{
	struct stat st;

	if (!is_on("/proc", PROC_MAGIC) || !is_on("/proc/self/", PROC_MAGIC) ||
	    !is_on("/proc/self/attr/", PROC_MAGIC))
		return fail(ENOTDIR);
	if (!is_on("/dev", TMPFS_MAGIC) || !is_on("/tmp", TMPFS_MAGIC) || !is_on("/dev/shm", TMPFS_MAGIC))
		return fail(ENODEV);
	if (lstat("/dev/null", &st) || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
		return fail(ENXIO);
	if (!lstat("/dev/console", &st) || !lstat("/dev/pts", &st) || !lstat("/dev/trap", &st))
		return fail(EEXIST);
	return mkdir("/tmp/made", 0700);
}

/* Descriptors other than 0 to 2. */
static long
descriptors(void)
{
	for (int fd = 3; fd < 1024; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			return fail(EMFILE);
	return 0;
}

/* What was given as standard input, opened once more. */
static long
write_input(void)
{
	return open("/proc/self/fd/0", O_WRONLY);
}

static long
other_architecture(void)
{
	long got = 20; /* getpid of i386 */

#ifdef __x86_64__
	__asm__ volatile("int $0x80" : "+a"(got) : : "memory", "r8", "r9", "r10", "r11");
#endif
	return got < 0 ? fail((int)-got) : got;
}

int
probe_other(const char *verb, long *rc)
{
	static const struct {
		const char *verb;
		long (*attempt)(void);
	} others[] = {
		{ "flock", take_flock },       { "lease", take_lease },      { "open", open_shared },
		{ "watch", watch },            { "seen", seen },             { "write_private", write_private },
		{ "map_shared", map_shared },  { "places", own_places },     { "descriptors", descriptors },
		{ "int80", other_architecture }, { "write_input", write_input },
	};

	for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
		if (!strcmp(verb, others[i].verb))
			return *rc = others[i].attempt(), 0;
	if (!strncmp(verb, "listen", 6))
		return *rc = meet_by(verb + 6, true), 0;
	if (!strncmp(verb, "connect", 7))
		return *rc = meet_by(verb + 7, false), 0;
	if (!strncmp(verb, "at=", 3))
		return *rc = access(shared = verb + 3, R_OK), 0;
	if (!strcmp(verb, "mq_make") || !strcmp(verb, "mq_find"))
		return *rc = queue(verb[3] == 'm' ? O_CREAT | O_EXCL : 0), 0;
	if (!strncmp(verb, "kill=", 5))
		return *rc = kill((pid_t)strtol(verb + 5, NULL, 10), 0), 0;
	return -1;
}
