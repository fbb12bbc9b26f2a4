/*
 * Descriptors and files: whole reads and writes, files that appear complete, and trees
 * that somebody hostile left behind and that must go, whole, and nothing beside them.
 */
#include "core/base/fdio.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "core/base/buf.h"
#include "core/base/err.h"

static char base_path[64];
static int base = -1;

static int
set_up(void **state)
{
	(void)state;
	/* In memory if it can be: a disk takes a minute to make 100,000 directories. */
	snprintf(base_path, sizeof base_path, "%s/pratai-fdio-XXXXXX",
		 access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	if (!mkdtemp(base_path))
		return -1;
	base = open(base_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return base < 0 ? -1 : 0;
}

static int
tear_down(void **state)
{
	struct err e;

	(void)state;
	fd_close(&base);
	if (!dir_remove(AT_FDCWD, base_path, &e))
		return 0;
	print_error("%s\n", e.text);
	return -1;
}

static unsigned
open_descriptors(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 4096; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void
make_file(const char *path, mode_t mode)
{
	int fd = openat(base, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

static bool
exists(const char *path)
{
	struct stat st;

	return !fstatat(base, path, &st, AT_SYMLINK_NOFOLLOW);
}

static void
removed(const char *path)
{
	unsigned before = open_descriptors();
	struct err e = { 0 };

	if (dir_remove(base, path, &e))
		print_error("%s\n", e.text);
	assert_int_equal(e.cls, ERR_NONE);
	assert_false(exists(path));
	assert_int_equal(open_descriptors(), before);
}

/* n directories one in the other, by descriptors: no path could name the last.  Each has a
 * file beside the next one. */
static void
make_deep(const char *top, unsigned n, mode_t mode)
{
	int fd, next;

	assert_int_equal(mkdirat(base, top, 0700), 0);
	fd = openat(base, top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(mkdirat(fd, "d", 0700), 0);
		if (i % 1000 == 0) {
			int file = openat(fd, "file", O_CREAT | O_WRONLY | O_CLOEXEC, 0);

			assert_true(file >= 0);
			close(file);
		}
		next = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		assert_true(next >= 0);
		assert_int_equal(fchmod(fd, mode), 0);
		close(fd);
		fd = next;
	}
	close(fd);
}

static void
test_a_tree_of_100000_levels_goes(void **state)
{
	(void)state;
	make_deep("deep", 100000, 0700);
	removed("deep");
}

static void
test_what_is_not_there_is_gone(void **state)
{
	struct err e;

	(void)state;
	assert_int_equal(dir_remove(base, "nothing", &e), 0);
	assert_int_equal(dir_remove(base, "nothing/below", &e), 0);
	make_file("plain", 0);
	removed("plain");
	assert_int_equal(symlinkat("nowhere", base, "link"), 0);
	removed("link");
}

static void
test_links_out_are_not_followed(void **state)
{
	(void)state;
	assert_int_equal(mkdirat(base, "outside", 0700), 0);
	make_file("outside/kept", 0400);
	assert_int_equal(mkdirat(base, "tree", 0700), 0);
	assert_int_equal(mkdirat(base, "tree/a", 0700), 0);
	assert_int_equal(symlinkat("../outside", base, "tree/out"), 0);
	assert_int_equal(symlinkat("../../outside/kept", base, "tree/a/kept"), 0);
	assert_int_equal(symlinkat("..", base, "tree/a/up"), 0);
	assert_int_equal(symlinkat("/", base, "tree/a/root"), 0);
	assert_int_equal(linkat(base, "outside/kept", base, "tree/a/hard", 0), 0);
	removed("tree");
	assert_true(exists("outside/kept"));
	/* A link as the tree itself: the link goes. */
	assert_int_equal(symlinkat("outside", base, "tree"), 0);
	removed("tree");
	assert_true(exists("outside/kept"));
	removed("outside");
}

static void
test_odd_names_and_kinds_go(void **state)
{
	char longest[256];

	(void)state;
	memset(longest, 'n', 255);
	longest[255] = '\0';
	assert_int_equal(mkdirat(base, "odd", 0700), 0);
	assert_int_equal(mkdirat(base, "odd/ \n\xff", 0700), 0);
	assert_int_equal(mkdirat(base, "odd/...", 0700), 0);
	assert_int_equal(mkfifoat(base, "odd/fifo", 0600), 0);
	int top = openat(base, "odd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(mkdirat(top, longest, 0), 0);
	close(top);
	for (int i = 0; i < 3000; i++) {
		char name[32];

		snprintf(name, sizeof name, "odd/.../%d", i);
		make_file(name, 0);
	}
	removed("odd");
}

/* What removal calls its own may be there already: hostile, or of a removal that was killed. */
static void
test_names_of_its_own_are_taken(void **state)
{
	(void)state;
	make_deep("taken", 200, 0700);
	for (int i = 0; i < 20; i++) {
		char name[64];

		snprintf(name, sizeof name, "taken/.deep.%d.%d", (int)getpid(), i);
		if (i % 2) {
			make_file(name, 0600);
			continue;
		}
		assert_int_equal(mkdirat(base, name, 0700), 0);
		snprintf(name, sizeof name, "taken/.deep.%d.%d/x", (int)getpid(), i);
		make_file(name, 0600);
	}
	removed("taken");
}

/* As somebody whom modes do stop.  cmocka's asserts do not cross a fork: codes do. */
static int
as_nobody(void (*fn)(void))
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		if (geteuid() == 0 && (setgid(65534) || setuid(65534)))
			_exit(99);
		fn();
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void
remove_closed(void)
{
	struct err e = { 0 };
	int dir = open(base_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd, next;

	if (dir < 0 || mkdirat(dir, "closed", 0700))
		_exit(1);
	fd = openat(dir, "closed", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (unsigned i = 0; i < 300; i++) {
		/* 0, not searchable; 0111, not readable; 0555, not writable */
		static const mode_t modes[] = { 0, 0111, 0555 };

		if (mkdirat(fd, "d", 0700) || mkdirat(fd, "empty", 0))
			_exit(2);
		next = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (next < 0 || fchmod(fd, modes[i % 3]))
			_exit(3);
		close(fd);
		fd = next;
	}
	close(fd);
	if (dir_remove(dir, "closed", &e)) {
		fprintf(stderr, "%s\n", e.text);
		_exit(4);
	}
	if (!faccessat(dir, "closed", F_OK, 0))
		_exit(5);
}

static void
test_closed_directories_go_without_roots_powers(void **state)
{
	(void)state;
	assert_int_equal(chmod(base_path, 0777), 0);
	assert_int_equal(as_nobody(remove_closed), 0);
}

static void
test_another_file_system_is_left_alone(void **state)
{
	struct err e;
	char path[128];

	(void)state;
	assert_int_equal(mkdirat(base, "tree", 0700), 0);
	assert_int_equal(mkdirat(base, "tree/mounted", 0700), 0);
	snprintf(path, sizeof path, "%s/tree/mounted", base_path);
	if (mount("none", path, "tmpfs", MS_NOSUID | MS_NODEV, "size=64k")) {
		print_message("cannot mount: %s\n", strerror(errno));
		removed("tree");
		skip();
	}
	make_file("tree/mounted/kept", 0600);
	assert_int_equal(dir_remove(base, "tree", &e), -1);
	assert_int_equal(e.cls, ERR_NODE);
	assert_true(exists("tree/mounted/kept"));
	assert_int_equal(umount2(path, 0), 0);
	removed("tree");
}

/* ---- files ---- */

static void
test_reading_is_bounded(void **state)
{
	struct buf b = { 0 };
	struct err e;

	(void)state;
	assert_int_equal(file_replace(base, "f", 0640, "0123456789", 10, &e), 0);
	assert_int_equal(file_slurp(base, "f", 10, &b, &e), 0);
	assert_string_equal(b.data, "0123456789");
	buf_free(&b);
	assert_int_equal(file_slurp(base, "f", 9, &b, &e), -1);
	assert_int_equal(e.cls, ERR_LIMIT);
	buf_free(&b);
	assert_int_equal(file_slurp(AT_FDCWD, "/dev/zero", 100000, &b, &e), -1);
	assert_int_equal(e.cls, ERR_LIMIT);
	assert_true(b.len < 200000);
	buf_free(&b);
	assert_int_equal(file_slurp(base, "none", 9, &b, &e), -1);
	assert_int_equal(e.cls, ERR_NOT_FOUND);
	assert_int_equal(file_slurp(base, ".", 9, &b, &e), -1);
	assert_int_equal(e.cls, ERR_NODE);
	buf_free(&b);
	removed("f");
}

static void
test_a_file_is_replaced_whole(void **state)
{
	mode_t mask = umask(077);
	struct err e;
	struct stat st;

	(void)state;
	assert_int_equal(file_replace(base, "f", 0644, "old", 3, &e), 0);
	assert_int_equal(fstatat(base, "f", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0644); /* whatever the umask */
	umask(mask);
	assert_int_equal(symlinkat("f", base, "link"), 0);
	assert_int_equal(file_replace(base, "link", 0600, "new", 3, &e), 0);
	assert_int_equal(fstatat(base, "link", &st, AT_SYMLINK_NOFOLLOW), 0);
	assert_true(S_ISREG(st.st_mode)); /* the link itself, not what it led to */
	assert_int_equal(file_replace(base, "no/f", 0600, "", 0, &e), -1);
	assert_int_equal(mkdirat(base, "dir", 0700), 0);
	assert_int_equal(file_replace(base, "dir", 0600, "", 0, &e), -1);
	assert_int_equal(file_replace(base, "dir/g", 0600, "", 0, &e), 0);
	removed("f");
	removed("link");
	removed("dir/g");
	assert_int_equal(unlinkat(base, "dir", AT_REMOVEDIR), 0); /* no temporary file stays */
}

static void
test_directories_are_made(void **state)
{
	struct err e;
	struct stat st;

	(void)state;
	assert_int_equal(dir_make(base, "a/b//c/", 0700, &e), 0);
	assert_int_equal(dir_make(base, "a/b/c", 0700, &e), 0);
	assert_int_equal(fstatat(base, "a/b/c", &st, 0), 0);
	assert_true(S_ISDIR(st.st_mode));
	make_file("a/file", 0600);
	assert_int_equal(dir_make(base, "a/file/x", 0700, &e), -1);
	assert_int_equal(dir_make(base, "a/file", 0700, &e), -1);
	removed("a");
}

static void
test_closed_standard_descriptors_fail_as_before(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	pid = fork();
	if (pid == 0) {
		char byte;

		close(0);
		close(1);
		_exit(fd_keep_standard(NULL) ? 1 : read(0, &byte, 1) != -1 || errno != EBADF ? 2 :
		      write(1, "x", 1) != -1 || errno != EBADF ? 3 : fcntl(0, F_GETFD) ? 4 :
		      open("/dev/null", O_RDONLY) <= 2 ? 5 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void
test_nothing_leads_out_of_a_tree(void **state)
{
	static const struct {
		const char *path;
		int error;
	} out[] = {
		{ "..", EXDEV }, { "../tree/f", EXDEV }, { "sub/../../secret", EXDEV }, { "/etc/passwd", EXDEV },
		{ "up/secret", EXDEV }, { "abs", EXDEV }, { "sub/up2", EXDEV }, { "none", ENOENT },
		{ "loop", ELOOP },
	};
	int tree, fd;

	(void)state;
	assert_int_equal(mkdirat(base, "tree", 0700), 0);
	assert_int_equal(mkdirat(base, "tree/sub", 0700), 0);
	make_file("secret", 0600);
	make_file("tree/f", 0600);
	assert_int_equal(symlinkat("..", base, "tree/up"), 0);
	assert_int_equal(symlinkat("/etc/passwd", base, "tree/abs"), 0);
	assert_int_equal(symlinkat("../../secret", base, "tree/sub/up2"), 0);
	assert_int_equal(symlinkat("loop", base, "tree/loop"), 0);
	assert_int_equal(symlinkat("../f", base, "tree/sub/inside"), 0);
	tree = openat(base, "tree", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (size_t i = 0; i < sizeof out / sizeof out[0]; i++) {
		errno = 0;
		fd = open_beneath(tree, out[i].path, O_RDONLY, 0, 0);
		if (fd >= 0 || errno != out[i].error)
			print_error("%s: %d, %s\n", out[i].path, fd, strerror(errno));
		assert_int_equal(fd, -1);
		assert_int_equal(errno, out[i].error);
	}
	fd = open_beneath(tree, "sub/inside", O_RDONLY, 0, 0);
	assert_true(fd >= 0);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
	fd = open_beneath(tree, "sub/new", O_WRONLY | O_CREAT | O_EXCL, 0600, 0);
	assert_true(fd >= 0);
	close(fd);
	close(tree);
	removed("tree");
	removed("secret");
}

static void
test_pipes_give_all_or_say_so(void **state)
{
	char bytes[8] = { 0 };
	int p[2], fd;

	(void)state;
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(fd_write_all(p[1], "abc", 3), 0);
	assert_int_equal(fd_write_all(p[1], "", 0), 0);
	fd_close(&p[1]);
	assert_int_equal(p[1], -1);
	assert_int_equal(fd_read_all(p[0], bytes, sizeof bytes), 3);
	assert_int_equal(fd_read_all(p[0], bytes, sizeof bytes), 0);
	assert_int_equal(fd_set_nonblocking(p[0]), 0);
	assert_true(fcntl(p[0], F_GETFL) & O_NONBLOCK);
	assert_int_equal(fd_set_inheritable(p[0]), 0);
	assert_int_equal(fcntl(p[0], F_GETFD), 0);
	fd = fd_steal(&p[0]);
	assert_int_equal(p[0], -1);
	fd_close(&fd);
	assert_int_equal(fd_read_all(-1, bytes, 1), -1);
	assert_int_equal(fd_write_all(-1, bytes, 1), -1);
}

static void
test_descriptors_travel(void **state)
{
	int s[2], p[2], got;
	char byte = 1;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s), 0);
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(fd_receive(s[0], MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(fd_send(s[1], p[1]), 0);
	fd_close(&p[1]);
	got = fd_receive(s[0], 0);
	assert_true(got >= 0);
	assert_int_equal(fcntl(got, F_GETFD), FD_CLOEXEC);
	assert_int_equal(fd_write_all(got, "x", 1), 0);
	fd_close(&got);
	assert_int_equal(fd_read_all(p[0], &byte, 1), 1);
	assert_int_equal(byte, 'x');
	/* The copy in the socket was the last one. */
	assert_int_equal(fd_read_all(p[0], &byte, 1), 0);
	assert_int_equal(send(s[1], &byte, 1, 0), 1);
	assert_int_equal(fd_receive(s[0], 0), -1);
	assert_int_equal(errno, EPROTO);
	assert_int_equal(fd_send(s[1], -1), -1);
	assert_int_equal(errno, EBADF);
	fd_close(&s[1]);
	assert_int_equal(fd_receive(s[0], 0), -1);
	assert_int_equal(errno, EPIPE);
	assert_int_equal(fd_send(s[0], p[0]), -1);
	assert_int_equal(errno, EPIPE);
	fd_close(&s[0]);
	fd_close(&p[0]);
}

/* In a child, which may close what it likes: its exit status is the first that is wrong. */
static int
close_but(int *keep, unsigned count, const char *open_then)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		for (int fd = 3; fd < 20; fd++)
			dup2(2, fd);
		if (fd_close_but(keep, count))
			_exit(100);
		for (int fd = 0; fd < 20; fd++)
			if ((fcntl(fd, F_GETFD) >= 0) != (open_then[fd] == 'x'))
				_exit(50 + fd);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WEXITSTATUS(status);
}

static void
test_close_but(void **state)
{
	(void)state;
	assert_int_equal(close_but((int[]){ 7, 3, -1, 12, 7 }, 5, "xxxx...x....x......."), 0);
	assert_int_equal(close_but((int[]){ -1, -1, 1 }, 3, "xxx................."), 0);
	assert_int_equal(close_but((int[]){ 19, 18 }, 2, "xxx...............xx"), 0);
	assert_int_equal(close_but(NULL, 0, "xxx................."), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_tree_of_100000_levels_goes),
		cmocka_unit_test(test_what_is_not_there_is_gone),
		cmocka_unit_test(test_links_out_are_not_followed),
		cmocka_unit_test(test_odd_names_and_kinds_go),
		cmocka_unit_test(test_names_of_its_own_are_taken),
		cmocka_unit_test(test_closed_directories_go_without_roots_powers),
		cmocka_unit_test(test_another_file_system_is_left_alone),
		cmocka_unit_test(test_reading_is_bounded),
		cmocka_unit_test(test_a_file_is_replaced_whole),
		cmocka_unit_test(test_directories_are_made),
		cmocka_unit_test(test_closed_standard_descriptors_fail_as_before),
		cmocka_unit_test(test_nothing_leads_out_of_a_tree),
		cmocka_unit_test(test_pipes_give_all_or_say_so),
		cmocka_unit_test(test_descriptors_travel),
		cmocka_unit_test(test_close_but),
	};

	return cmocka_run_group_tests_name("fdio", tests, set_up, tear_down);
}
