/*
 * See build_env.h.  Each tool merges several files and its variables.
 *
 * pip, in rising order: /etc/xdg/pip/pip.conf, /etc/pip.conf, the user's file,
 * PIP_CONFIG_FILE, and variables.  npm: the global file, the user's, both of which variables
 * may name, and variables.  In a sandbox there is no such user, so the user's file takes the
 * place that the variable names, unless the operator has set that.
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

enum { CONFIG_BYTES_MAX = BUILD_ENV_SETTINGS_MAX, VALUE_MAX = 32 << 10 };

static const char *const other_vars[] = {
	"http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
	"NODE_EXTRA_CA_CERTS", NULL,
};

struct tool {
	const char *prefix;       /* of its variables, in any case */
	const char *config;       /* the variable that names the user's file, */
	const char *config_shown; /* where that is shown then, */
	const char *config_below; /* and where when the operator has set it; NULL: not at all */
	const char *global;       /* the variable that names the machine's file; NULL: none does */
	const char *global_shown;
	const char *const *users, *const *globals; /* the files, below home and etc; NULL-ended */
	const char *const *refused, *const *keys;  /* names of variables and settings: see below */
	bool ini;                 /* "key: value" too, and a value goes on in further lines */
};

/* Refused would lead the tool elsewhere, or name a private key, which builds shall not read;
 * what keys name is not shown. */
static const struct tool tools[] = {
	{
		.prefix = "PIP_",
		.config = "PIP_CONFIG_FILE",
		.config_shown = "/etc/pratai-pip.conf",
		.config_below = "/etc/xdg/pip/pip.conf",
		.global_shown = "/etc/pip.conf",
		.users = (const char *const[]){ ".config/pip/pip.conf", ".pip/pip.conf", NULL },
		.globals = (const char *const[]){ "pip.conf", NULL },
		.refused = (const char *const[]){
			"target", "prefix", "root", "user", "log", "cache_dir", "src",
			"require_virtualenv", "client_cert", "dry_run", NULL },
		.keys = (const char *const[]){ "client-cert", "client_cert", NULL },
		.ini = true,
	},
	{
		.prefix = "npm_config_",
		.config = "npm_config_userconfig",
		.config_shown = "/etc/pratai-npmrc",
		.global = "npm_config_globalconfig",
		.global_shown = "/etc/npmrc",
		.users = (const char *const[]){ ".npmrc", NULL },
		/* npm's own depends on where it lies. */
		.globals = (const char *const[]){
			"../usr/local/etc/npmrc", "../usr/etc/npmrc", "npmrc", NULL },
		.refused = (const char *const[]){
			"prefix", "global", "location", "cache", "dry_run", "package_lock_only",
			"omit", "include", "only", "logs_dir", "key", NULL },
		.keys = (const char *const[]){ "key", "keyfile", NULL },
	},
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

static bool
is_one_of(const char *const *list, const char *word, size_t n)
{
	for (; *list; list++)
		if (strlen(*list) == n && !strncasecmp(*list, word, n))
			return true;
	return false;
}

/* What an image is made of: shown at its own place it would take the machine's for the image's
 * (npm's nodedir=/usr, say). */
static bool
is_system(const char *target)
{
	static const char *const tops[] = { "/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/var",
					    "/run", "/root", "/home", "/boot", "/tmp", NULL };
	size_t n = strlen(target);

	while (n && target[n - 1] == '/')
		n--;
	return is_one_of(tops, target, n);
}

/* Once per target, resolved now: the spawner will not see these directories. */
static int
add_bind(struct build_env *b, const char *source, const char *target, bool settings, struct err *e)
{
	char real[PATH_MAX];

	if (target[0] != '/' || is_system(target) || !realpath(source, real) || !strcmp(real, "/") ||
	    is_shown(real, target))
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
	b->binds[b->bind_count].settings = settings;
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

		value += strspn(value, " \t\r\n\"");
		n = strcspn(value, " \t\r\n\"");
		egress_names_add(&b->names, value, n, is_proxy);
		if (n > 0 && n < sizeof word) {
			memcpy(word, value, n);
			word[n] = '\0';
			if (str_starts(word, "file://"))
				path = word + strlen("file://");
			if (path[0] == '/' && add_bind(b, path, path, false, e))
				return -1;
		}
		value += n;
	}
	return 0;
}

static bool
is_proxy_key(const char *key, size_t n)
{
	static const char *const keys[] = { "proxy", "http-proxy", "https-proxy", NULL };

	return is_one_of(keys, key, n);
}

static bool
is_proxy_var(const char *var)
{
	size_t n = strcspn(var, "=");

	return n > 6 && !strncasecmp(var + n - 6, "_proxy", 6) && strncasecmp(var, "no_", 3);
}

/* `key = value`: enough of the INI form to find names of files; the tool itself reads the
 * whole.  npm's keys may be of a scope or a host: `@scope:registry`, `//host/:keyfile`. */
static int
add_config_line(struct build_env *b, const struct tool *t, const char *line, struct err *e)
{
	const char *value = strpbrk(line, t->ini ? "=:" : "="), *key = line;
	size_t n;

	if (line[0] == '#' || line[0] == ';' || line[0] == '[')
		return 0;
	if (t->ini && isspace((unsigned char)line[0]))
		return add_named(b, line, false, e);
	if (!value)
		return 0;
	for (const char *p = line; !t->ini && p < value; p++)
		if (*p == ':')
			key = p + 1;
	key += strspn(key, " \t");
	n = value > key ? (size_t)(value - key) : 0;
	while (n && isspace((unsigned char)key[n - 1]))
		n--;
	return is_one_of(t->keys, key, n) ? 0 : add_named(b, value + 1, is_proxy_key(key, n), e);
}

/* NAME=value of the environment. */
static const char *
find_var(char *const *environment, const char *name, size_t n)
{
	for (; *environment; environment++)
		if (!strncasecmp(*environment, name, n) && (*environment)[n] == '=')
			return *environment;
	return NULL;
}

/* npm's files may say ${NAME}, a token mostly. */
static int
add_expanded(struct build_env *b, const char *text, char *const *environment, struct err *e)
{
	while ((text = strstr(text, "${"))) {
		size_t n = strcspn(text += 2, "}\n");
		const char *var = n ? find_var(environment, text, n) : NULL;

		if (var && !strncmp(var, text, n) && add_var(b, var, e))
			return -1;
	}
	return 0;
}

static int
add_config(struct build_env *b, const struct tool *t, char *const *environment, const char *path,
	   const char *target, bool *found, struct err *e)
{
	struct buf text = { .max = CONFIG_BYTES_MAX + 65536 };
	char *line, *rest;
	int rc;

	*found = file_slurp(AT_FDCWD, path, CONFIG_BYTES_MAX, &text, NULL) == 0;
	rc = *found ? add_bind(b, path, target, true, e) : 0;
	if (*found && rc == 0 && !t->ini)
		rc = add_expanded(b, text.data, environment, e);
	for (rest = text.data; *found && rc == 0 && (line = strsep(&rest, "\n"));)
		rc = add_config_line(b, t, line, e);
	buf_free(&text);
	return rc;
}

/* Its tool: NULL in *t when it is every tool's. */
static bool
is_wanted(const char *var, const struct tool **t)
{
	size_t n = strcspn(var, "=");

	*t = NULL;
	for (size_t i = 0; i < COUNT(tools); i++) {
		size_t prefix = strlen(tools[i].prefix);

		if (n < prefix || strncasecmp(var, tools[i].prefix, prefix))
			continue;
		*t = &tools[i];
		return !is_one_of(tools[i].refused, var + prefix, n - prefix);
	}
	return is_one_of(other_vars, var, n);
}

static bool
is_var(const char *text, const char *name)
{
	return name && strcspn(text, "=") == strlen(name) && !strncasecmp(text, name, strlen(name));
}

static int
collect_variables(struct build_env *b, char *const *environment, struct err *e)
{
	for (char *const *v = environment; *v; v++) {
		const char *value = strchr(*v, '=');
		const struct tool *t;
		bool ignored;

		if (!value++ || !is_wanted(*v, &t))
			continue;
		if (add_var(b, *v, e))
			return -1;
		if (t && (is_var(*v, t->config) || is_var(*v, t->global))) {
			if (add_config(b, t, environment, value, value, &ignored, e))
				return -1;
		} else if (add_named(b, value, is_proxy_var(*v), e)) {
			return -1;
		}
	}
	return 0;
}

/* The first of files below directory that is there, shown as target; then var says so. */
static int
collect_first(struct build_env *b, const struct tool *t, char *const *environment,
	      const char *directory, const char *const *files, const char *target, const char *var,
	      struct err *e)
{
	char path[PATH_MAX];
	bool found = false;

	for (; !found && *files; files++) {
		snprintf(path, sizeof path, "%s/%s", directory, *files);
		if (add_config(b, t, environment, path, target, &found, e))
			return -1;
	}
	snprintf(path, sizeof path, "%s=%s", var ? var : "", target);
	return found && var ? add_var(b, path, e) : 0;
}

static int
collect_tool(struct build_env *b, const struct tool *t, char *const *environment, const char *home,
	     const char *etc, struct err *e)
{
	bool has_config = find_var(environment, t->config, strlen(t->config));
	bool has_global = t->global && find_var(environment, t->global, strlen(t->global));

	if (!has_global &&
	    collect_first(b, t, environment, etc, t->globals, t->global_shown, t->global, e))
		return -1;
	if (!home || (has_config && !t->config_below))
		return 0;
	/* Below the operator's own, as the tool would have it. */
	return has_config
		? collect_first(b, t, environment, home, t->users, t->config_below, NULL, e)
		: collect_first(b, t, environment, home, t->users, t->config_shown, t->config, e);
}

int
build_env_collect(struct build_env *b, char *const *environment, const char *home,
		  const char *etc, struct err *e)
{
	static const char *const names[] = { "hosts", "nsswitch.conf" };
	char path[PATH_MAX], target[64];

	memset(b, 0, sizeof *b);
	for (size_t i = 0; i < COUNT(names); i++) {
		snprintf(path, sizeof path, "%s/%s", etc, names[i]);
		snprintf(target, sizeof target, "/etc/%s", names[i]);
		if (add_bind(b, path, target, false, e))
			return -1;
	}
	if (collect_variables(b, environment, e))
		return -1;
	for (size_t i = 0; i < COUNT(tools); i++)
		if (collect_tool(b, &tools[i], environment, home, etc, e))
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
