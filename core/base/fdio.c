#include "core/base/fdio.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "core/base/buf.h"
#include "core/base/err.h"

void
fd_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

int
fd_keep_standard(struct err *e)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 &&
		    open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
			return err_sys(e, ERR_NODE, "descriptor %d is closed, and /dev/null", fd);
	return 0;
}

/* Not qsort, which may allocate.  They are few, or in order almost. */
static void
sort(int *list, unsigned count)
{
	for (unsigned i = 1; i < count; i++) {
		int fd = list[i];
		unsigned k = i;

		for (; k > 0 && list[k - 1] > fd; k--)
			list[k] = list[k - 1];
		list[k] = fd;
	}
}

int
fd_close_but(int *keep, unsigned count)
{
	unsigned next = 3;

	sort(keep, count);
	for (unsigned i = 0; i < count; i++) {
		unsigned number = (unsigned)keep[i];

		if (keep[i] < 3)
			continue;
		if (number > next && close_range(next, number - 1, 0))
			return -1;
		next = number + 1;
	}
	return close_range(next, ~0u, 0);
}

int
fd_set_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

int
fd_set_inheritable(int fd)
{
	return fcntl(fd, F_SETFD, 0);
}

int
fd_write_all(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		ssize_t n = write(fd, p, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

ssize_t
fd_read_all(int fd, void *data, size_t len)
{
	size_t got = 0;

	while (got < len) {
		ssize_t n = read(fd, (char *)data + got, len - got);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		got += (size_t)n;
	}
	return (ssize_t)got;
}

union one_fd {
	struct cmsghdr head;
	char space[CMSG_SPACE(sizeof(int))];
};

int
fd_send(int socket, int fd)
{
	struct iovec data = { .iov_base = (char[1]){ 0 }, .iov_len = 1 };
	union one_fd control = { .head = { .cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET,
					   .cmsg_type = SCM_RIGHTS } };
	struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.space,
			    .msg_controllen = sizeof control.space };
	ssize_t n;

	memcpy(CMSG_DATA(&control.head), &fd, sizeof fd);
	do
		n = sendmsg(socket, &m, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n == 1 ? 0 : -1;
}

int
fd_receive(int socket, int flags)
{
	int fd;
	struct iovec data = { .iov_base = (char[1]){ 0 }, .iov_len = 1 };
	union one_fd control = { 0 };
	/* Exactly one: the kernel closes what a sender adds to it. */
	struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.space,
			    .msg_controllen = CMSG_LEN(sizeof fd) };
	struct cmsghdr *head;
	ssize_t n;

	do
		n = recvmsg(socket, &m, flags | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	head = n == 1 ? CMSG_FIRSTHDR(&m) : NULL;
	if (n < 0)
		return -1;
	if (!head || head->cmsg_type != SCM_RIGHTS || head->cmsg_len != CMSG_LEN(sizeof fd)) {
		errno = n == 0 ? EPIPE : EPROTO;
		return -1;
	}
	memcpy(&fd, CMSG_DATA(head), sizeof fd);
	return fd;
}

int
proc_write(pid_t pid, const char *file, const char *text)
{
	char path[64];
	CLEAN_FD int fd = -1;

	snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 || write(fd, text, strlen(text)) < 0 ? -1 : 0;
}

int
fd_slurp(int fd, const char *name, size_t max, struct buf *out, struct err *e)
{
	size_t total = 0;

	for (;;) {
		char *to = buf_reserve(out, 16384);
		ssize_t n;

		if (!to)
			return err_set(e, ERR_LIMIT, "%s: more than %zu bytes", name, max);
		n = read(fd, to, 16384);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, ERR_NODE, "read %s", name);
		out->len += (size_t)n;
		buf_terminate(out);
		total += (size_t)n;
		if (total > max)
			return err_set(e, ERR_LIMIT, "%s: more than %zu bytes", name, max);
		if (n == 0)
			return 0;
	}
}

int
file_slurp(int dirfd, const char *path, size_t max, struct buf *out, struct err *e)
{
	CLEAN_FD int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return err_sys(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_NODE, "open %s", path);
	return fd_slurp(fd, path, max, out, e);
}

static int
sync_parent(int dirfd, const char *path)
{
	const char *slash = strrchr(path, '/');
	CLEAN_FREE char *parent = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
	CLEAN_FD int fd = -1;

	if (!parent)
		return -1;
	fd = openat(dirfd, parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -1 : fsync(fd);
}

int
file_replace(int dirfd, const char *path, mode_t mode, const void *data, size_t len, struct err *e)
{
	char temp[4096];
	CLEAN_FD int fd = -1;

	if (snprintf(temp, sizeof temp, "%s.%d.new", path, (int)getpid()) >= (int)sizeof temp)
		return err_set(e, ERR_INPUT, "%.100s…: path too long", path);
	unlinkat(dirfd, temp, 0);
	fd = openat(dirfd, temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(e, ERR_NODE, "create %s", temp);
	/* fchmod and not the mode of open: the umask has no say. */
	if (fchmod(fd, mode) || fd_write_all(fd, data, len) || fsync(fd) ||
	    renameat(dirfd, temp, dirfd, path) || sync_parent(dirfd, path)) {
		err_sys(e, ERR_NODE, "write %s", path);
		unlinkat(dirfd, temp, 0);
		return -1;
	}
	return 0;
}

int
dir_make(int dirfd, const char *path, mode_t mode, struct err *e)
{
	char part[4096];
	size_t len = strlen(path);
	struct stat st;

	if (len >= sizeof part)
		return err_set(e, ERR_INPUT, "%.100s…: path too long", path);
	for (size_t i = 1; i <= len; i++) {
		if (path[i] != '/' && path[i] != '\0')
			continue;
		memcpy(part, path, i);
		part[i] = '\0';
		if (mkdirat(dirfd, part, mode) && errno != EEXIST)
			return err_sys(e, ERR_NODE, "mkdir %s", part);
	}
	if (fstatat(dirfd, path, &st, 0) || !S_ISDIR(st.st_mode)) {
		errno = ENOTDIR; /* EEXIST above was of something else */
		return err_sys(e, ERR_NODE, "mkdir %s", path);
	}
	return 0;
}

/* Recursion would let a deep tree overflow the stack: directories are emptied in place,
 * with one open descriptor a level, bounded by flattening what lies too deep. */
enum { REMOVE_DEPTH_MAX = 64, NAMES_TAKEN_MAX = 1 << 20 };

/* Moves a directory to the top of the tree, under a name that nothing there has. */
static int
flatten(int dirfd, const char *name, int top, unsigned *moved)
{
	char to[40];

	/* Its ".." changes: that takes the right to write to it. */
	if (fchmodat(dirfd, name, 0700, 0))
		return -1;
	for (int tries = 0; tries < NAMES_TAKEN_MAX; tries++) {
		snprintf(to, sizeof to, ".deep.%d.%u", (int)getpid(), (*moved)++);
		if (!renameat2(dirfd, name, top, to, RENAME_NOREPLACE))
			return 0;
		if (errno != EEXIST)
			return -1;
	}
	return -1;
}

static int remove_below(int dirfd, int top, int depth, dev_t dev, unsigned *moved);

static int
remove_entry(int dirfd, const char *name, int top, int depth, dev_t dev, unsigned *moved)
{
	struct stat st;
	CLEAN_FD int fd = -1;

	if (!unlinkat(dirfd, name, 0))
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return errno == ENOENT ? 0 : -1;
	if (!unlinkat(dirfd, name, AT_REMOVEDIR))
		return 0;
	if (errno == ENOENT)
		return 0;
	if (errno != ENOTEMPTY && errno != EEXIST)
		return -1;
	if (depth >= REMOVE_DEPTH_MAX)
		return flatten(dirfd, name, top, moved);
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == EACCES && !fchmodat(dirfd, name, 0700, 0))
		fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		return -1;
	if (st.st_dev != dev) {
		errno = EXDEV;
		return -1;
	}
	if ((st.st_mode & 0700) != 0700 && fchmod(fd, 0700))
		return -1;
	if (remove_below(fd, top, depth + 1, dev, moved))
		return -1;
	return unlinkat(dirfd, name, AT_REMOVEDIR);
}

static int
remove_below(int dirfd, int top, int depth, dev_t dev, unsigned *moved)
{
	int copy = fcntl(dirfd, F_DUPFD_CLOEXEC, 3);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *entry;
	int rc = 0;

	if (!dir) {
		if (copy >= 0)
			close(copy);
		return -1;
	}
	while (rc == 0 && (errno = 0, entry = readdir(dir))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		rc = remove_entry(dirfd, entry->d_name, top, depth, dev, moved);
	}
	if (rc == 0 && errno)
		rc = -1;
	closedir(dir);
	return rc;
}

int
dir_remove(int dirfd, const char *path, struct err *e)
{
	struct stat st;
	unsigned moved = 0, before;

	if (fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? 0 : err_sys(e, ERR_NODE, "stat %s", path);
	if (!S_ISDIR(st.st_mode)) {
		if (unlinkat(dirfd, path, 0))
			return err_sys(e, ERR_NODE, "remove %s", path);
		return 0;
	}
	/* Each pass moves what lies deeper than the bound up to the top of the tree. */
	do {
		CLEAN_FD int top = -1;

		before = moved;
		if ((st.st_mode & 0700) != 0700 && fchmodat(dirfd, path, 0700, 0))
			return err_sys(e, ERR_NODE, "chmod %s", path);
		top = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (top < 0 || remove_below(top, top, 0, st.st_dev, &moved))
			return err_sys(e, ERR_NODE, "remove what is below %s", path);
	} while (moved != before);
	if (unlinkat(dirfd, path, AT_REMOVEDIR) && errno != ENOENT)
		return err_sys(e, ERR_NODE, "remove %s", path);
	return 0;
}

int
open_beneath(int dirfd, const char *path, int flags, mode_t mode, uint64_t resolve)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
		.mode = (flags & (O_CREAT | __O_TMPFILE)) ? mode : 0,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | resolve,
	};
	long fd;

	/* EAGAIN: somebody renamed a directory above while the kernel looked. */
	for (int tries = 0; tries < 32; tries++) {
		fd = syscall(SYS_openat2, dirfd, path, &how, sizeof how);
		if (fd >= 0 || errno != EAGAIN)
			break;
	}
	return (int)fd;
}
