/*
 * See host.h.  Layout below the store: host/fingerprint and host/root/.  A new pair is
 * made in host.new/, under a lock, and exchanged for the old one in one step
 * (renameat2); the old one becomes host.old/.
 *
 * The fingerprint is a text with a line for each source: its path, inode, size and times.
 * It has the boot's id in it, so nothing needs to be synced: what a crash may have left
 * half-written is made again.
 *
 * What is copied is chosen by name: nothing where operators keep credentials, such as
 * pip.conf and npmrc, whoever may read it on the machine.  Of a directory, only regular files
 * that everybody may read, links as they are, and nothing that holds a private key.  All bounded.
 */
#include "rootfs/host.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"

enum {
	FORMAT = 3, /* of the skeleton: raise when this file makes another one */
	DEPTH_MAX = 8,
	ENTRIES_MAX = 20000,
	FILE_BYTES_MAX = 16 << 20,
	FINGERPRINT_MAX = 64 << 10,
};

static const char *const mount_points[] = {
	"usr", "proc", "dev",  "tmp",  "run",  "sys", "function",
	"opt", "home", "root", "mnt",  "srv",  "var", "etc",
};

/* Below /etc; a pattern takes what there is of it. */
static const char *const sources[] = {
	"ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives",
	"ssl/certs", "ssl/openssl.cnf", "ca-certificates.conf", "ca-certificates", "pki/tls/certs",
	"localtime", "timezone", "mime.types", "services", "protocols", "rpc", "networks",
	"gai.conf", "os-release", "debian_version", "lsb-release", "magic", "magic.mime",
	"python3*", "perl", "java-*", "fonts", "terminfo", "OpenCL", "ImageMagick-*", "R",
	"bash.bashrc", "nodejs",
};

static const struct {
	const char *path, *text;
} generated[] = {
	{ "passwd", "root:x:0:0:root:/root:/bin/sh\n"
		    "pratai:x:1000:1000:pratai:/tmp:/bin/sh\n"
		    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n" },
	{ "group", "root:x:0:\npratai:x:1000:\nnogroup:x:65534:\n" },
	{ "hosts", "127.0.0.1\tlocalhost sandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n" },
	{ "nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"
			   "networks: files\nprotocols: files\nservices: files\n" },
	{ "host.conf", "multi on\n" },
	{ "resolv.conf", "" },
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* ---- The fingerprint ---- */

static void
fingerprint_path(struct buf *out, const char *path)
{
	struct stat st;

	if (lstat(path, &st)) {
		buf_printf(out, "%s -\n", path);
		return;
	}
	buf_printf(out, "%s %llu %llu %lld.%ld %lld.%ld\n", path, (unsigned long long)st.st_ino,
		   (unsigned long long)st.st_size, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
		   (long long)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
}

static bool
is_pattern(const char *source)
{
	return strpbrk(source, "*?[") != NULL;
}

/* Calls fn for each path below /etc that source stands for. */
static int
each_source(const char *source, int (*fn)(const char *path, void *arg), void *arg)
{
	char path[PATH_MAX];
	glob_t found;
	int rc = 0;

	snprintf(path, sizeof path, "/etc/%s", source);
	if (!is_pattern(source))
		return fn(path, arg);
	if (glob(path, 0, NULL, &found))
		return 0;
	for (size_t i = 0; rc == 0 && i < found.gl_pathc && i < 64; i++)
		rc = fn(found.gl_pathv[i], arg);
	globfree(&found);
	return rc;
}

static int
fingerprint_source(const char *path, void *arg)
{
	fingerprint_path(arg, path);
	return 0;
}

static int
fingerprint(struct buf *out, struct err *e)
{
	static const char *const links[] = { "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32" };

	buf_printf(out, "pratai host image %d\n", FORMAT);
	if (file_slurp(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 128, out, e))
		return -1;
	for (size_t i = 0; i < COUNT(links); i++)
		fingerprint_path(out, links[i]);
	/* Patterns are looked up in /etc itself, so its time tells whether they changed;
	 * reading it each time would cost more than all else here. */
	fingerprint_path(out, "/etc");
	for (size_t i = 0; i < COUNT(sources); i++)
		if (!is_pattern(sources[i]))
			each_source(sources[i], fingerprint_source, out);
	return out->failed ? err_set(e, ERR_NODE, "no memory for the host image's fingerprint") : 0;
}

static bool
is_current(int store, const struct buf *want)
{
	struct buf have = { .max = FINGERPRINT_MAX };
	bool same;

	same = !file_slurp(store, "host/fingerprint", FINGERPRINT_MAX, &have, NULL) &&
	       have.len == want->len && !memcmp(have.data, want->data, want->len);
	buf_free(&have);
	return same;
}

/* ---- Copies ---- */

struct copy {
	int etc;          /* of the new skeleton */
	unsigned entries; /* so far */
	struct err *e;
};

static bool
holds_private_key(const struct buf *text)
{
	return memmem(text->data, text->len, "PRIVATE KEY-----", 16) != NULL;
}

/* 0 also for what is passed over: it is not there, not for everybody, or a secret. */
static int
copy_file(struct copy *c, int from, const char *name, int to, const struct stat *st)
{
	CLEAN_FD int in = -1;
	CLEAN_FD int out = -1;
	struct buf text = { .max = FILE_BYTES_MAX + 65536 };
	int rc = -1;

	if ((st->st_mode & 0444) != 0444 || st->st_size > FILE_BYTES_MAX)
		return 0;
	in = openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (in < 0)
		return 0;
	if (fd_slurp(in, name, FILE_BYTES_MAX, &text, c->e))
		goto out;
	rc = 0;
	if (text.len && holds_private_key(&text))
		goto out;
	out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (out < 0 || (text.len && fd_write_all(out, text.data, text.len)) ||
	    fchmod(out, (st->st_mode & 0111) ? 0755 : 0644))
		rc = err_sys(c->e, ERR_NODE, "copy %s into the host image", name);
out:
	buf_free(&text);
	return rc;
}

static int
copy_link(struct copy *c, int from, const char *name, int to)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(from, name, target, sizeof target - 1);

	if (n < 0)
		return 0;
	target[n] = '\0';
	if (symlinkat(target, to, name))
		return err_sys(c->e, ERR_NODE, "copy the link %s into the host image", name);
	return 0;
}

static int copy_entry(struct copy *c, int from, const char *name, int to, int depth);

static int
copy_directory(struct copy *c, int from, const char *name, int to, int depth)
{
	CLEAN_FD int below = -1;
	int in = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = in < 0 ? NULL : fdopendir(in);
	struct dirent *entry;
	int rc = 0;

	if (!dir) {
		fd_close(&in);
		return 0;
	}
	if ((mkdirat(to, name, 0755) && errno != EEXIST) ||
	    (below = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) < 0 ||
	    fchmod(below, 0755))
		rc = err_sys(c->e, ERR_NODE, "make %s in the host image", name);
	while (rc == 0 && (entry = readdir(dir)))
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			rc = copy_entry(c, dirfd(dir), entry->d_name, below, depth + 1);
	closedir(dir);
	return rc;
}

static int
copy_entry(struct copy *c, int from, const char *name, int to, int depth)
{
	struct stat st;

	if (++c->entries > ENTRIES_MAX)
		return err_set(c->e, ERR_NODE, "more than %d files for the host image's /etc", ENTRIES_MAX);
	if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW))
		return 0;
	if (S_ISREG(st.st_mode))
		return copy_file(c, from, name, to, &st);
	if (S_ISLNK(st.st_mode))
		return copy_link(c, from, name, to);
	if (S_ISDIR(st.st_mode) && (st.st_mode & 0005) == 0005 && depth < DEPTH_MAX)
		return copy_directory(c, from, name, to, depth);
	return 0;
}

/* path is "/etc/" and at most two components, as in the table. */
static int
copy_source(const char *path, void *arg)
{
	struct copy *c = arg;
	const char *below = path + strlen("/etc/"), *slash = strrchr(below, '/');
	char parent[PATH_MAX];
	CLEAN_FD int from = -1;
	CLEAN_FD int to = -1;

	snprintf(parent, sizeof parent, "/etc/%.*s", slash ? (int)(slash - below) : 0, below);
	from = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (from < 0 || faccessat(from, slash ? slash + 1 : below, F_OK, AT_SYMLINK_NOFOLLOW))
		return 0;
	if (slash) {
		snprintf(parent, sizeof parent, "%.*s", (int)(slash - below), below);
		if (dir_make(c->etc, parent, 0755, c->e))
			return -1;
		to = openat(c->etc, parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
	} else {
		to = fcntl(c->etc, F_DUPFD_CLOEXEC, 3);
	}
	if (to < 0)
		return err_sys(c->e, ERR_NODE, "open %s in the host image", parent);
	return copy_entry(c, from, slash ? slash + 1 : below, to, 0);
}

/* ---- The skeleton ---- */

/* bin -> usr/bin and so on, as the machine has them. */
static int
make_usr_links(int root, struct err *e)
{
	static const char *const names[] = { "bin", "sbin", "lib", "lib32", "lib64", "libx32" };

	for (size_t i = 0; i < COUNT(names); i++) {
		char path[16], target[64];
		ssize_t n;

		snprintf(path, sizeof path, "/%s", names[i]);
		n = readlink(path, target, sizeof target - 1);
		if (n < 0 && errno == ENOENT)
			continue;
		if (n < 0)
			return err_set(e, ERR_NODE,
				       "%s is not a link into /usr: the host image needs a machine with a "
				       "merged /usr", path);
		target[n] = '\0';
		if (symlinkat(target[0] == '/' ? target + 1 : target, root, names[i]))
			return err_sys(e, ERR_NODE, "make %s in the host image", path);
	}
	return 0;
}

static int
make_etc(int root, struct err *e)
{
	CLEAN_FD int etc = openat(root, "etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct copy c = { .etc = etc, .e = e };

	if (etc < 0)
		return err_sys(e, ERR_NODE, "open etc of the host image");
	for (size_t i = 0; i < COUNT(generated); i++) {
		CLEAN_FD int fd = openat(etc, generated[i].path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

		if (fd < 0 || fd_write_all(fd, generated[i].text, strlen(generated[i].text)) ||
		    fchmod(fd, 0644))
			return err_sys(e, ERR_NODE, "write /etc/%s of the host image", generated[i].path);
	}
	if (symlinkat("/proc/self/mounts", etc, "mtab"))
		return err_sys(e, ERR_NODE, "make /etc/mtab of the host image");
	for (size_t i = 0; i < COUNT(sources); i++)
		if (each_source(sources[i], copy_source, &c))
			return -1;
	return 0;
}

static int
make_root(int root, struct err *e)
{
	for (size_t i = 0; i < COUNT(mount_points); i++)
		if (mkdirat(root, mount_points[i], 0755))
			return err_sys(e, ERR_NODE, "make /%s in the host image", mount_points[i]);
	/* One place to write to, with one bound. */
	if (symlinkat("../tmp", root, "var/tmp"))
		return err_sys(e, ERR_NODE, "make /var/tmp in the host image");
	return make_usr_links(root, e) ? -1 : make_etc(root, e);
}

static int
make_host(int at, const struct buf *print, struct err *e)
{
	CLEAN_FD int root = -1;

	if (mkdirat(at, "root", 0755) ||
	    (root = openat(at, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		return err_sys(e, ERR_NODE, "make the host image");
	if (make_root(root, e))
		return -1;
	return file_replace(at, "fingerprint", 0644, print->data, print->len, e);
}

/* The new one takes the old one's name; the old one is kept for one round. */
static int
put_in_place(int store, const char *temp, struct err *e)
{
	if (!renameat2(store, temp, store, "host", RENAME_NOREPLACE))
		return 0;
	if (errno != EEXIST || dir_remove(store, "host.old", e) ||
	    renameat2(store, temp, store, "host", RENAME_EXCHANGE) ||
	    renameat(store, temp, store, "host.old"))
		return err_sys(e, ERR_NODE, "put the new host image in its place");
	return 0;
}

static int
make_again(int store, const struct buf *print, struct err *e)
{
	char temp[32];
	CLEAN_FD int at = -1;
	mode_t mask = umask(0022);
	int rc = -1;

	/* One that was killed left its name: whoever holds the lock may clean up. */
	snprintf(temp, sizeof temp, "host.new");
	if (dir_remove(store, temp, e) == 0) {
		if (mkdirat(store, temp, 0755) ||
		    (at = openat(store, temp, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
			err_sys(e, ERR_NODE, "make the host image's directory");
		else
			rc = make_host(at, print, e) ? -1 : put_in_place(store, temp, e);
		if (rc)
			dir_remove(store, temp, NULL);
	}
	umask(mask);
	return rc;
}

int
host_prepare(int store, struct err *e)
{
	struct buf print = { .max = FINGERPRINT_MAX };
	CLEAN_FD int lock = -1;
	int rc = -1;

	if (fingerprint(&print, e))
		goto out;
	rc = 0;
	if (is_current(store, &print))
		goto out;
	rc = -1;
	lock = openat(store, "host.lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (lock < 0 || flock(lock, LOCK_EX))
		err_sys(e, ERR_NODE, "lock the host image");
	else
		rc = is_current(store, &print) ? 0 : make_again(store, &print, e);
out:
	buf_free(&print);
	return rc ? err_wrap(e, "host image") : 0;
}
