/*
 * Descriptors and files: whole reads and writes, files that appear complete or not at
 * all, and the one way into a tree that somebody else wrote.
 */
#ifndef PRATAI_FDIO_H
#define PRATAI_FDIO_H

#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

struct buf;
struct err;

/* CLEAN_FD int fd = open(...);  closes at the end of the scope; fd_steal keeps it. */
static inline void
fd_cleanup(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}
#define CLEAN_FD __attribute__((cleanup(fd_cleanup)))

static inline int
fd_steal(int *fd)
{
	int stolen = *fd;

	*fd = -1;
	return stolen;
}

static inline void
free_cleanup(void *p)
{
	free(*(void **)p);
}
#define CLEAN_FREE __attribute__((cleanup(free_cleanup)))

/* Sets *fd to -1 after closing it, if it is open. */
void fd_close(int *fd);

/*
 * First of all in a program: where standard input, output or error are closed, puts something
 * there that can be neither read nor written, as before.  Otherwise the next file or directory
 * that is opened becomes one of the three: written to, or handed to whoever inherits them.
 */
int fd_keep_standard(struct err *e);

int fd_set_nonblocking(int fd);
/* Closes every descriptor from 3 on but those in keep, of which numbers below 3 are none.  Sorts
 * keep; allocates nothing.  0, or -1 with errno. */
int fd_close_but(int *keep, unsigned count);
/* For a descriptor that is to survive exec. */
int fd_set_inheritable(int fd);

/* All len bytes, or -1 with errno (EPIPE at the end of a socket's life). */
int fd_write_all(int fd, const void *data, size_t len);
/* Up to len bytes until the end of the file: the count, or -1 with errno. */
ssize_t fd_read_all(int fd, void *data, size_t len);

/* A copy of fd over a Unix socket, with one byte.  0, or -1 with errno. */
int fd_send(int socket, int fd);
/* The next such copy, the caller's to close; flags as recvmsg's.  -1 with errno: EPIPE when the
 * other end is closed, EPROTO for a message that carries no descriptor. */
int fd_receive(int socket, int flags);

/* The whole file, at most max bytes (else ERR_LIMIT).  name is for errors. */
int fd_slurp(int fd, const char *name, size_t max, struct buf *out, struct err *e);
int file_slurp(int dirfd, const char *path, size_t max, struct buf *out, struct err *e);

/* Writes text to /proc/PID/file, by one call.  0, or -1 with errno. */
int proc_write(pid_t pid, const char *file, const char *text);

/* Writes path's new content beside it, syncs it, renames it over path, syncs the directory. */
int file_replace(int dirfd, const char *path, mode_t mode, const void *data, size_t len,
		 struct err *e);

/* mkdir -p below dirfd, with mode for each directory made.  For trees of our own. */
int dir_make(int dirfd, const char *path, mode_t mode, struct err *e);

/* Removes path and all below it, unreadable directories included; never follows a link,
 * never leaves the file system.  A path that is not there is success. */
int dir_remove(int dirfd, const char *path, struct err *e);

/*
 * Opens path below dirfd and nowhere else, for trees with content that others wrote:
 * no link, no "..", no mount leads out (openat2 with RESOLVE_BENEATH |
 * RESOLVE_NO_MAGICLINKS, plus what resolve adds).  O_CLOEXEC is added.  The
 * descriptor, or -1 with errno.
 */
int open_beneath(int dirfd, const char *path, int flags, mode_t mode, uint64_t resolve);

#endif
