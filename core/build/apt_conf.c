#include "core/build/apt_conf.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/str.h"
#include "sandbox/egress.h"

enum { FILE_BYTES_MAX = 4 << 20, LINE_PATH_MAX = 1024 };

struct collect {
	int to;
	struct egress_names *names;
	unsigned sources, keys;
};

static int
put_file(struct collect *c, const char *name, const void *data, size_t len, struct err *e)
{
	CLEAN_FD int fd = openat(c->to, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);

	return fd < 0 || fd_write_all(fd, data, len) ? err_sys(e, ERR_NODE, "write %s", name) : 0;
}

/* One that is not there, or cannot be read, is passed over. */
static int
copy_file(struct collect *c, const char *from, const char *to, struct err *e)
{
	struct buf text = { .max = FILE_BYTES_MAX + 65536 };
	int rc = file_slurp(AT_FDCWD, from, FILE_BYTES_MAX, &text, NULL)
			 ? 0 : put_file(c, to, text.data ? text.data : "", text.len, e);

	buf_free(&text);
	return rc;
}

/* ---- Files below a directory, in the order of their names ---- */

static bool
ends(const char *name, const char *suffix)
{
	size_t n = strlen(name), k = strlen(suffix);

	return n > k && !strcmp(name + n - k, suffix);
}

static int
each_file(struct collect *c, const char *etc, const char *part, const char *const *suffixes,
	  int (*take)(struct collect *c, const char *path, const char *name, struct err *e), struct err *e)
{
	char dir[PATH_MAX], path[PATH_MAX + NAME_MAX + 2];
	struct dirent **names = NULL;
	int count, rc = 0;

	snprintf(dir, sizeof dir, "%s/%s", etc, part);
	count = scandir(dir, &names, NULL, alphasort);
	for (int i = 0; i < count; i++) {
		for (const char *const *s = suffixes; rc == 0 && *s; s++) {
			if (!ends(names[i]->d_name, *s))
				continue;
			snprintf(path, sizeof path, "%s/%s", dir, names[i]->d_name);
			rc = take(c, path, names[i]->d_name, e);
			break;
		}
		free(names[i]);
	}
	free(names);
	return rc;
}

static int
take_trusted(struct collect *c, const char *path, const char *name, struct err *e)
{
	char to[NAME_MAX + 32];

	snprintf(to, sizeof to, "trusted.gpg.d/%s", name);
	return copy_file(c, path, to, e);
}

static int
take_auth(struct collect *c, const char *path, const char *name, struct err *e)
{
	char to[NAME_MAX + 32];

	snprintf(to, sizeof to, "auth/%s", name);
	return copy_file(c, path, to, e);
}

/* ---- Sources ---- */

/* The key at path, as it is shown; the text grows by its new name. */
static int
take_key(struct collect *c, const char *path, struct buf *out, struct err *e)
{
	const char *dot = strrchr(path, '.');
	char name[64];

	snprintf(name, sizeof name, "keys/%u%s", c->keys++,
		 dot && str_is_word(".asc|.gpg|.crt|.pem", dot) ? dot : "");
	if (copy_file(c, path, name, e))
		return -1;
	return buf_printf(out, APT_CONF_SHOWN "/%s", name) ? err_set(e, ERR_NODE, "no memory for sources") : 0;
}

/* text, in which paths of keys become what they are shown as. */
static int
put_keys(struct collect *c, const char *text, size_t len, struct buf *out, struct err *e)
{
	for (size_t at = 0; at < len;) {
		char path[LINE_PATH_MAX];
		size_t n = 0;

		if (text[at] == '/' && (at == 0 || strchr(" \t=,:\"", text[at - 1]))) {
			n = strcspn(text + at, " \t,]\"\n;");
			n = n > len - at ? len - at : n;
		}
		if (!n || n >= sizeof path) {
			buf_put(out, text + at++, 1);
			continue;
		}
		memcpy(path, text + at, n);
		path[n] = '\0';
		if (take_key(c, path, out, e))
			return -1;
		at += n;
	}
	return 0;
}

static void
add_hosts(struct collect *c, const char *line, size_t len)
{
	for (size_t at = 0; at < len;) {
		size_t n;

		at += strspn(line + at, " \t\n");
		n = strcspn(line + at, " \t\n");
		if (at < len)
			egress_names_add(c->names, line + at, n < len - at ? n : len - at, 0);
		at += n;
	}
}

/* One-line style: "deb [signed-by=/x] URI SUITE ..."; the other: "Signed-By: /x".  A key within
 * the text has no path. */
static int
put_source_line(struct collect *c, const char *line, size_t len, struct buf *out, struct err *e)
{
	const char *options, *end;

	if (line[0] == '#')
		return 0;
	if (str_starts(line, "deb ") || str_starts(line, "deb\t") || !strncasecmp(line, "types:", 6))
		c->sources++;
	add_hosts(c, line, len);
	if (!strncasecmp(line, "signed-by:", 10))
		return put_keys(c, line, len, out, e);
	options = memchr(line, '[', len);
	end = options ? memchr(options, ']', (size_t)(line + len - options)) : NULL;
	if (!str_starts(line, "deb") || !end)
		return buf_put(out, line, len);
	buf_put(out, line, (size_t)(options - line));
	if (put_keys(c, options, (size_t)(end - options), out, e))
		return -1;
	return buf_put(out, end, (size_t)(line + len - end));
}

static int
take_source(struct collect *c, const char *path, const char *name, struct err *e)
{
	struct buf text = { .max = FILE_BYTES_MAX + 65536 }, out = { .max = 4 * FILE_BYTES_MAX };
	char to[NAME_MAX + 32];
	int rc = 0;

	if (file_slurp(AT_FDCWD, path, FILE_BYTES_MAX, &text, NULL))
		text.len = 0;
	for (size_t at = 0; rc == 0 && at < text.len;) {
		const char *newline = memchr(text.data + at, '\n', text.len - at);
		size_t n = newline ? (size_t)(newline - text.data) + 1 - at : text.len - at;

		rc = put_source_line(c, text.data + at, n, &out, e);
		at += n;
	}
	snprintf(to, sizeof to, "sources/%s", name);
	if (rc == 0 && out.failed)
		rc = err_set(e, ERR_NODE, "no memory for sources");
	if (rc == 0 && out.len)
		rc = put_file(c, to, out.data, out.len, e);
	buf_free(&text);
	buf_free(&out);
	return rc;
}

/* ---- apt.conf ---- */

static int
dump(struct buf *out, struct err *e)
{
	char *const argv[] = { (char *)(uintptr_t)"apt-config", (char *)(uintptr_t)"dump", NULL };
	posix_spawn_file_actions_t actions;
	int pipe_fds[2], rc, status = 0;
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC))
		return err_sys(e, ERR_NODE, "make a pipe");
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], STDOUT_FILENO);
	rc = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(pipe_fds[1]);
	if (rc) {
		close(pipe_fds[0]);
		return err_set(e, ERR_NOT_FOUND, "this machine has no apt: %s", strerror(rc));
	}
	rc = fd_slurp(pipe_fds[0], "apt-config", FILE_BYTES_MAX, out, e);
	close(pipe_fds[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (rc == 0 && status)
		rc = err_set(e, ERR_NODE, "apt-config dump failed on this machine");
	return rc;
}

static bool
names(const char *line, size_t name, const char *word)
{
	return memmem(line, name, word, strlen(word));
}

/* Of Acquire:: what says how a source is reached and believed, but no private key. */
static bool
is_taken(const char *line)
{
	static const char *const wanted[] = { "Acquire::http", "Acquire::https", "Acquire::ftp",
					      "Acquire::Check-", "Acquire::Retries", "Acquire::Max-",
					      "Acquire::Min-", "Acquire::ForceIP", "Acquire::Allow",
					      "Acquire::Queue-Mode", "Acquire::By-Hash", "Acquire::tor" };
	size_t name = strcspn(line, " ");

	for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
		size_t n = strlen(wanted[i]);

		if (!strncasecmp(line, wanted[i], n))
			return !names(line, name, "SslKey") && !names(line, name, "SslCert") &&
			       !names(line, name, "AutoDetect") && !names(line, name, "Auto-Detect");
	}
	return false;
}

static int
put_setting(struct collect *c, const char *line, size_t len, struct buf *out, struct err *e)
{
	const char *quote = memchr(line, '"', len), *end;

	if (!quote || !is_taken(line))
		return 0;
	end = memchr(quote + 1, '"', (size_t)(line + len - quote) - 1);
	if (end && names(line, (size_t)(quote - line), "::Proxy"))
		egress_names_add(c->names, quote + 1, (size_t)(end - quote) - 1, 1);
	/* Certificates are shown, too. */
	if (names(line, (size_t)(quote - line), "CaInfo") || names(line, (size_t)(quote - line), "CAInfo"))
		return put_keys(c, line, len, out, e) || buf_puts(out, "\n") ? -1 : 0;
	return buf_put(out, line, len) || buf_puts(out, "\n") ? -1 : 0;
}

static int
put_settings(struct collect *c, struct err *e)
{
	static const char places[] =
		"Dir::Etc::main \"/dev/null\";\nDir::Etc::parts \"/dev/null\";\n"
		"Dir::Etc::sourcelist \"/dev/null\";\nDir::Etc::sourceparts \"/tmp/sources.d/\";\n"
		"Dir::Etc::trusted \"/dev/null\";\n"
		"Dir::Etc::trustedparts \"" APT_CONF_SHOWN "/trusted.gpg.d/\";\n"
		"Dir::Etc::netrc \"/dev/null\";\nDir::Etc::netrcparts \"" APT_CONF_SHOWN "/auth/\";\n";
	struct buf text = { .max = FILE_BYTES_MAX + 65536 }, out = { .max = FILE_BYTES_MAX };
	int rc = dump(&text, e);

	for (char *line = text.data, *next; rc == 0 && line && *line; line = next) {
		size_t n = strcspn(line, "\n");

		next = line + n + (line[n] == '\n');
		rc = put_setting(c, line, n, &out, e);
	}
	if (rc == 0)
		rc = put_file(c, "fetch.conf", out.data ? out.data : "", out.len, e);
	buf_puts(&out, places);
	if (rc == 0 && out.failed)
		rc = err_set(e, ERR_NODE, "no memory for apt's settings");
	if (rc == 0)
		rc = put_file(c, "apt.conf", out.data, out.len, e);
	buf_free(&text);
	buf_free(&out);
	return rc;
}

/* ---- All of it ---- */

int
apt_conf_collect(const char *etc, const char *path, struct egress_names *names, struct err *e)
{
	static const char *const parts[] = { "sources", "keys", "trusted.gpg.d", "auth" };
	static const char *const lists[] = { ".list", ".sources", NULL };
	static const char *const keys[] = { ".gpg", ".asc", NULL };
	static const char *const conf[] = { ".conf", NULL };
	CLEAN_FD int to = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct collect c = { .to = to, .names = names };
	char file[PATH_MAX];

	if (to < 0)
		return err_sys(e, ERR_NODE, "open %.200s", path);
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		if (mkdirat(to, parts[i], 0755))
			return err_sys(e, ERR_NODE, "make %s", parts[i]);
	snprintf(file, sizeof file, "%s/apt/sources.list", etc);
	if (take_source(&c, file, "sources.list", e) ||
	    each_file(&c, etc, "apt/sources.list.d", lists, take_source, e))
		return -1;
	if (!c.sources)
		return err_set(e, ERR_NOT_FOUND, "this machine has no source of Debian packages "
			       "(%s/apt/sources.list, sources.list.d)", etc);
	snprintf(file, sizeof file, "%s/apt/trusted.gpg", etc);
	if (copy_file(&c, file, "trusted.gpg.d/machine.gpg", e) ||
	    each_file(&c, etc, "apt/trusted.gpg.d", keys, take_trusted, e))
		return -1;
	snprintf(file, sizeof file, "%s/apt/auth.conf", etc);
	if (copy_file(&c, file, "auth/machine.conf", e) ||
	    each_file(&c, etc, "apt/auth.conf.d", conf, take_auth, e))
		return -1;
	return put_settings(&c, e);
}
