/*
 * See build_env.h.  pip merges, in rising order: /etc/xdg/pip/pip.conf, /etc/pip.conf, the
 * user's file, PIP_CONFIG_FILE, and variables.  In a sandbox there is no such user, so the
 * user's file takes the place of PIP_CONFIG_FILE, unless the operator has set that.
 *
 * The values of settings that may name files are split at white space; each word that is
 * an absolute path or a file:// URL of something that exists is shown at the same place, and
 * each that is the URL of a host lets builds reach that host.  no_proxy names none: it says
 * which of them are asked directly.
 *
 * How names are looked up is the sandbox's own, but for what the machine's hosts and
 * nsswitch.conf say.
 */
#include "sandbox/build_env.h"

#include <ctype.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <fcntl.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/str.h"

enum { CONFIG_BYTES_MAX = 256 << 10, VALUE_MAX = 32 << 10 };

/* Where the user's pip.conf is shown. */
#define USER_CONFIG "/etc/pratai-pip.conf"

static const char *const other_vars[] = {
	"http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
	"NODE_EXTRA_CA_CERTS",
};

/* They would lead pip elsewhere, or name a private key that builds shall not read. */
static const char *const refused_vars[] = {
	"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_LOG", "PIP_CACHE_DIR", "PIP_SRC",
	"PIP_REQUIRE_VIRTUALENV", "PIP_CLIENT_CERT", "PIP_DRY_RUN",
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static int
no_memory(struct err *e)
{
	return err_set(e, ERR_NODE, "no memory for the build environment");
}

static int
add_var(struct build_env *b, const char *text, struct err *e)
{
	if (b->var_count == BUILD_ENV_VARS || strlen(text) > VALUE_MAX)
		return 0;
	b->vars[b->var_count] = strdup(text);
	if (!b->vars[b->var_count])
		return no_memory(e);
	b->vars[++b->var_count] = NULL;
	return 0;
}

/* Whether a sandbox of the host image shows it anyway. */
static bool
is_shown(const char *real, const char *target)
{
	return str_starts(real, "/usr/") && str_starts(target, "/usr/");
}

/* Once per target, resolved now: the spawner will not see these directories. */
static int
add_bind(struct build_env *b, const char *source, const char *target, struct err *e)
{
	char real[PATH_MAX];

	if (target[0] != '/' || !realpath(source, real) || !strcmp(real, "/") || is_shown(real, target))
		return 0;
	if (str_starts(target, "/proc/") || str_starts(target, "/dev/") || strstr(target, "/../"))
		return 0;
	for (size_t i = 0; i < b->bind_count; i++)
		if (!strcmp(b->binds[i].target, target))
			return 0;
	if (b->bind_count == BUILD_ENV_BINDS)
		return 0;
	b->binds[b->bind_count].source = strdup(real);
	b->binds[b->bind_count].target = strdup(target);
	b->bind_count++;
	if (!b->binds[b->bind_count - 1].source || !b->binds[b->bind_count - 1].target)
		return no_memory(e);
	return 0;
}

/* Every word of value that names something on this machine, or a host. */
static int
add_named(struct build_env *b, const char *value, bool is_proxy, struct err *e)
{
	while (*value) {
		char word[PATH_MAX];
		const char *path = word;
		size_t n;

		value += strspn(value, " \t\r\n");
		n = strcspn(value, " \t\r\n");
		egress_names_add(&b->names, value, n, is_proxy);
		if (n > 0 && n < sizeof word) {
			memcpy(word, value, n);
			word[n] = '\0';
			if (str_starts(word, "file://"))
				path = word + strlen("file://");
			if (path[0] == '/' && add_bind(b, path, path, e))
				return -1;
		}
		value += n;
	}
	return 0;
}

/* "proxy", and nothing else, before the value. */
static bool
is_proxy_key(const char *line)
{
	return str_starts(line, "proxy") && strcspn(line, " \t=:") == strlen("proxy");
}

static bool
is_proxy_var(const char *var)
{
	size_t n = strcspn(var, "=");

	return n > 6 && !strncasecmp(var + n - 6, "_proxy", 6) && strncasecmp(var, "no_", 3);
}

/* `key = value` with further lines of value indented: enough of the INI form to find
 * names of files; pip itself reads the whole. */
static int
add_config_line(struct build_env *b, const char *line, struct err *e)
{
	const char *value = strpbrk(line, "=:");

	if (line[0] == '#' || line[0] == ';' || line[0] == '[')
		return 0;
	if (isspace((unsigned char)line[0]))
		return add_named(b, line, false, e);
	if (!value || str_starts(line, "client-cert") || str_starts(line, "client_cert"))
		return 0;
	return add_named(b, value + 1, is_proxy_key(line), e);
}

static int
add_config(struct build_env *b, const char *path, const char *target, bool *found, struct err *e)
{
	struct buf text = { .max = CONFIG_BYTES_MAX + 65536 };
	char *line, *rest;
	int rc;

	*found = file_slurp(AT_FDCWD, path, CONFIG_BYTES_MAX, &text, NULL) == 0;
	rc = *found ? add_bind(b, path, target, e) : 0;
	for (rest = text.data; *found && rc == 0 && (line = strsep(&rest, "\n"));)
		rc = add_config_line(b, line, e);
	buf_free(&text);
	return rc;
}

static bool
is_wanted(const char *var)
{
	size_t n = strcspn(var, "=");

	for (size_t i = 0; i < COUNT(refused_vars); i++)
		if (strlen(refused_vars[i]) == n && !strncmp(var, refused_vars[i], n))
			return false;
	if (str_starts(var, "PIP_"))
		return true;
	for (size_t i = 0; i < COUNT(other_vars); i++)
		if (strlen(other_vars[i]) == n && !strncasecmp(var, other_vars[i], n))
			return true;
	return false;
}

static int
collect_variables(struct build_env *b, char *const *environment, bool *has_config, struct err *e)
{
	for (; *environment; environment++) {
		const char *equals = strchr(*environment, '=');
		bool ignored;

		if (!equals || !is_wanted(*environment))
			continue;
		if (add_var(b, *environment, e) || add_named(b, equals + 1, is_proxy_var(*environment), e))
			return -1;
		if (str_starts(*environment, "PIP_CONFIG_FILE=")) {
			*has_config = true;
			if (add_config(b, equals + 1, equals + 1, &ignored, e))
				return -1;
		}
	}
	return 0;
}

static int
collect_user_config(struct build_env *b, const char *home, bool has_config, struct err *e)
{
	static const char *const places[] = { ".config/pip/pip.conf", ".pip/pip.conf" };
	char path[PATH_MAX];

	for (size_t i = 0; home && i < COUNT(places); i++) {
		bool found = false;

		snprintf(path, sizeof path, "%s/%s", home, places[i]);
		/* Below the operator's own PIP_CONFIG_FILE, as pip would have it. */
		if (add_config(b, path, has_config ? "/etc/xdg/pip/pip.conf" : USER_CONFIG, &found, e))
			return -1;
		if (found)
			return has_config ? 0 : add_var(b, "PIP_CONFIG_FILE=" USER_CONFIG, e);
	}
	return 0;
}

int
build_env_collect(struct build_env *b, char *const *environment, const char *home,
		  const char *etc, struct err *e)
{
	static const char *const names[] = { "hosts", "nsswitch.conf" };
	char path[PATH_MAX], target[64];
	bool has_config = false, ignored;

	memset(b, 0, sizeof *b);
	for (size_t i = 0; i < COUNT(names); i++) {
		snprintf(path, sizeof path, "%s/%s", etc, names[i]);
		snprintf(target, sizeof target, "/etc/%s", names[i]);
		if (add_bind(b, path, target, e))
			return -1;
	}
	snprintf(path, sizeof path, "%s/pip.conf", etc);
	if (add_config(b, path, "/etc/pip.conf", &ignored, e) ||
	    collect_variables(b, environment, &has_config, e) ||
	    collect_user_config(b, home, has_config, e))
		return -1;
	return 0;
}

void
build_env_free(struct build_env *b)
{
	for (size_t i = 0; i < b->var_count; i++)
		free(b->vars[i]);
	for (size_t i = 0; i < b->bind_count; i++) {
		free(b->binds[i].source);
		free(b->binds[i].target);
	}
	memset(b, 0, sizeof *b);
}
