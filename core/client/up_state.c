#include "core/client/up_state.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/crypto.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/str.h"

enum { BACKLOG = 4096, HOST_MAX = 256 };
#define ALIVE_WAIT_NS (10 * NS_PER_S) /* how long what was killed may take to be gone */

/* ---- the directory ---- */

static bool
is_empty(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *d;
	int names = 0;

	if (!dir) {
		fd_close(&fd);
		return false;
	}
	while ((d = readdir(dir)))
		names += strcmp(d->d_name, ".") && strcmp(d->d_name, "..");
	closedir(dir);
	return names == 0;
}

/*
 * Closes the directory to others.  One that is open to them and holds something that is
 * not ours is left alone: `--state /tmp` would otherwise lock everybody out of /tmp.
 */
static int
claim(struct up_state *s, struct err *e)
{
	struct stat st;

	if (fstat(s->dir_fd, &st))
		return err_sys(e, ERR_NODE, "%.200s", s->dir);
	if (st.st_uid != geteuid())
		return err_set(e, ERR_INPUT, "%.200s belongs to uid %u, not to this user", s->dir,
			       (unsigned)st.st_uid);
	if ((st.st_mode & 07777) == 0700)
		return 0;
	if (faccessat(s->dir_fd, "instance", F_OK, 0) && !is_empty(s->dir_fd))
		return err_set(e, ERR_INPUT,
			       "%.200s has files that are not Pratai's: give an empty directory or a new "
			       "name with --state", s->dir);
	if (fchmod(s->dir_fd, 0700))
		return err_sys(e, ERR_NODE, "%.200s: cannot set its mode", s->dir);
	return 0;
}

static int
open_dir(struct up_state *s, const char *dir, struct err *e)
{
	struct stat st;

	if (!*dir)
		return err_set(e, ERR_INPUT, "--state: is empty");
	if (stat(dir, &st) == 0 && !S_ISDIR(st.st_mode))
		return err_set(e, ERR_INPUT, "%.200s is not a directory", dir);
	if (dir_make(AT_FDCWD, dir, 0700, e))
		return -1;
	if (!realpath(dir, s->dir))
		return err_sys(e, ERR_NODE, "%.200s", dir);
	s->dir_fd = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dir_fd < 0)
		return err_sys(e, ERR_NODE, "%.200s", s->dir);
	return claim(s, e);
}

static int
take_lock(struct up_state *s, struct err *e)
{
	char pid[32] = "";
	ssize_t n;

	s->lock_fd = openat(s->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->lock_fd < 0)
		return err_sys(e, ERR_NODE, "%.200s/lock", s->dir);
	if (flock(s->lock_fd, LOCK_EX | LOCK_NB)) {
		n = pread(s->lock_fd, pid, sizeof pid - 1, 0);
		pid[n > 0 ? strspn(pid, "0123456789") : 0] = '\0';
		return err_set(e, ERR_CONFLICT, "another 'pratai up' (pid %s) runs on %.200s",
			       *pid ? pid : "unknown", s->dir);
	}
	n = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
	if (ftruncate(s->lock_fd, 0) || pwrite(s->lock_fd, pid, (size_t)n, 0) != n)
		return err_sys(e, ERR_NODE, "%.200s/lock", s->dir);
	return 0;
}

/* Waits for what a killed `up` left: its children die with it, but not before it. */
static int
take_alive(struct up_state *s, struct err *e)
{
	const struct timespec pause = { .tv_nsec = 10000000 };
	uint64_t end = clock_mono_ns() + ALIVE_WAIT_NS;

	s->alive_fd = openat(s->dir_fd, "alive", O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->alive_fd < 0)
		return err_sys(e, ERR_NODE, "%.200s/alive", s->dir);
	while (flock(s->alive_fd, LOCK_EX | LOCK_NB)) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return err_sys(e, ERR_NODE, "%.200s/alive", s->dir);
		if (clock_mono_ns() > end)
			return err_set(e, ERR_CONFLICT,
				       "processes of an earlier 'pratai up' still run on %.200s", s->dir);
		nanosleep(&pause, NULL);
	}
	return 0;
}

/* ---- what is made once ---- */

/* The file's one line into out: made with fresh text when it is not there, checked when it
 * is: exactly len characters of the alphabet. */
static int
made_once(struct up_state *s, const char *name, mode_t mode, const char *alphabet, size_t len,
	  char *out, struct err *e)
{
	size_t letters = strlen(alphabet);
	struct buf text = { 0 };
	unsigned char byte;
	bool whole;

	if (file_slurp(s->dir_fd, name, 4096, &text, e) == 0) {
		while (text.len && text.data[text.len - 1] == '\n')
			text.data[--text.len] = '\0';
		whole = text.len == len && strspn(text.data, alphabet) == len;
		if (whole)
			memcpy(out, text.data, len + 1);
		buf_free(&text);
		if (!whole)
			return err_set(e, ERR_INPUT, "%.200s/%s is damaged: remove it to get a new one",
				       s->dir, name);
		return 0;
	}
	buf_free(&text);
	if (e->cls != ERR_NOT_FOUND)
		return -1;
	err_clear(e);
	for (size_t i = 0; i < len;) {
		random_bytes(&byte, 1);
		if (byte < 256 / letters * letters) /* every letter as likely as the others */
			out[i++] = alphabet[byte % letters];
	}
	out[len] = '\n';
	if (file_replace(s->dir_fd, name, mode, out, len + 1, e))
		return -1;
	out[len] = '\0';
	return 0;
}

static int
make_run(struct up_state *s, uid_t uid, gid_t node_gid, struct err *e)
{
	if (mkdirat(s->dir_fd, "run", 0700) && errno != EEXIST)
		return err_sys(e, ERR_NODE, "%.200s/run", s->dir);
	s->run_fd = openat(s->dir_fd, "run", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (s->run_fd < 0 || fchown(s->run_fd, uid, node_gid) || fchmod(s->run_fd, 02750))
		return err_sys(e, ERR_NODE, "%.200s/run", s->dir);
	return 0;
}

int
up_state_open(struct up_state *s, const char *dir, uid_t control_uid,
	      gid_t node_gid, struct err *e)
{
	static const char hex[] = "0123456789abcdef";
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
	char join[UP_SECRET_MAX];

	s->dir_fd = s->lock_fd = s->alive_fd = s->run_fd = -1;
	if (crypto_init(e) || open_dir(s, dir, e) || take_lock(s, e) || take_alive(s, e) ||
	    made_once(s, "instance", 0600, letters, UP_INSTANCE_MAX - 1, s->instance, e) ||
	    made_once(s, "join", 0600, hex, UP_SECRET_MAX - 1, join, e) ||
	    made_once(s, "token", 0600, hex, UP_SECRET_MAX - 1, s->token, e) ||
	    make_run(s, control_uid, node_gid, e)) {
		up_state_close(s);
		return -1;
	}
	return 0;
}

void
up_state_close(struct up_state *s)
{
	fd_close(&s->run_fd);
	fd_close(&s->alive_fd);
	fd_close(&s->lock_fd);
	fd_close(&s->dir_fd);
}

/* VALUE as a shell reads it back: quoted where it must be. */
static void
put_export(struct buf *out, const char *name, const char *value)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				    "/.:_-+@%,";

	buf_printf(out, "export %s=", name);
	if (value[strspn(value, plain)] == '\0') {
		buf_puts(out, value);
	} else {
		buf_put(out, "'", 1);
		for (; *value; value++)
			buf_puts(out, *value == '\'' ? "'\\''" : (char[]){ *value, '\0' });
		buf_put(out, "'", 1);
	}
	buf_put(out, "\n", 1);
}

int
up_state_write_env(const struct up_state *s, const char *url, struct err *e)
{
	struct buf text = { 0 };
	int rc;

	put_export(&text, "OS_PRATAI_URL", url);
	put_export(&text, "OS_TOKEN", s->token);
	put_export(&text, "PRATAI_ROOT", s->dir);
	rc = text.failed ? err_set(e, ERR_NODE, "no memory")
			 : file_replace(s->dir_fd, "env", 0600, text.data, text.len, e);
	buf_free(&text);
	return rc;
}

/* ---- the listening socket ---- */

/* "HOST:PORT", "[ADDRESS]:PORT". */
static int
split_address(const char *address, char host[HOST_MAX], const char **port, struct err *e)
{
	const char *colon = strrchr(address, ':'), *given = address;
	size_t len = colon ? (size_t)(colon - address) : 0;
	bool brackets = len > 2 && address[0] == '[' && address[len - 1] == ']';
	int64_t number;

	if (brackets) {
		address++;
		len -= 2;
	}
	if (len == 0 || len >= HOST_MAX || (!brackets && memchr(address, ':', len)) ||
	    str_int(colon + 1, 0, 65535, &number))
		return err_set(e, ERR_INPUT,
			       "--listen: '%.80s' is not HOST:PORT (for IPv6 [ADDRESS]:PORT)", given);
	memcpy(host, address, len);
	host[len] = '\0';
	*port = colon + 1;
	return 0;
}

/* The bound address as a URL; a wildcard is reached by loopback. */
static int
make_url(int fd, char url[UP_URL_MAX], struct err *e)
{
	struct sockaddr_storage bound = { 0 };
	struct sockaddr_in *in = (struct sockaddr_in *)&bound;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&bound;
	socklen_t size = sizeof bound;
	char host[HOST_MAX], port[16];

	if (getsockname(fd, (struct sockaddr *)&bound, &size))
		return err_sys(e, ERR_NODE, "cannot tell the address that was bound");
	if (bound.ss_family == AF_INET && in->sin_addr.s_addr == htonl(INADDR_ANY))
		in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bound.ss_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr))
		in6->sin6_addr = in6addr_loopback;
	if (getnameinfo((struct sockaddr *)&bound, size, host, sizeof host, port, sizeof port,
			NI_NUMERICHOST | NI_NUMERICSERV))
		return err_set(e, ERR_NODE, "cannot tell the address that was bound");
	snprintf(url, UP_URL_MAX, bound.ss_family == AF_INET6 ? "http://[%s]:%s" : "http://%s:%s",
		 host, port);
	return 0;
}

int
up_listen(const char *address, char url[UP_URL_MAX], struct err *e)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
				  .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
	struct addrinfo *found = NULL;
	char host[HOST_MAX];
	const char *port = NULL;
	CLEAN_FD int fd = -1;
	int rc, one = 1;

	if (split_address(address, host, &port, e))
		return -1;
	rc = getaddrinfo(host, port, &hints, &found);
	if (rc)
		return err_set(e, ERR_INPUT, "--listen: %.80s: %s", host, gai_strerror(rc));
	fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) ||
	    bind(fd, found->ai_addr, found->ai_addrlen) || listen(fd, BACKLOG))
		rc = err_sys(e, ERR_NODE, "cannot listen on %.80s", address);
	else
		rc = make_url(fd, url, e);
	freeaddrinfo(found);
	return rc ? -1 : fd_steal(&fd);
}
