/*
 * What of the operator's settings a build gets: variables, files that they name, and not
 * what would lead pip or npm astray.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/base/err.h"
#include "core/base/fdio.h"
#include "sandbox/build_env.h"

static char top[] = "/tmp/test_build_env.XXXXXX";
static int dir;
static struct err e;

static void
put(const char *path, const char *text)
{
	char parent[256];

	const char *slash = strrchr(path, '/');

	snprintf(parent, sizeof parent, "%.*s", slash ? (int)(slash - path) : 0, path);
	if (slash)
		assert_int_equal(dir_make(dir, parent, 0755, &e), 0);
	assert_int_equal(file_replace(dir, path, 0644, text, strlen(text), &e), 0);
}

static bool
has_var(const struct build_env *b, const char *var)
{
	for (size_t i = 0; i < b->var_count; i++)
		if (!strcmp(b->vars[i], var))
			return true;
	return false;
}

/* The source of target, or NULL. */
static const char *
bound(const struct build_env *b, const char *target)
{
	for (size_t i = 0; i < b->bind_count; i++)
		if (!strcmp(b->binds[i].target, target))
			return b->binds[i].source;
	return NULL;
}

static char *
at(const char *format)
{
	static char text[64][512];
	static int n;
	char *out = text[n++ % 64];

	/* "@" stands for the top directory. */
	for (*out = '\0'; *format; format++)
		snprintf(out + strlen(out), 512 - strlen(out), "%.*s", *format == '@' ? 100 : 1,
			 *format == '@' ? top : format);
	return out;
}

static int
set_up(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(top));
	dir = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	put("etc/resolv.conf", "nameserver 192.0.2.1\n");
	put("etc/hosts", "127.0.0.1 localhost\n");
	put("etc/pip.conf", at("[global]\ncert = @/ca.pem\nfind-links =\n  @/wheels\n  https://x/\n"));
	put("home/.config/pip/pip.conf", at("[global]\nindex-url = file://@/index\n"
					    "client-cert = @/key.pem\n"));
	put("own.conf", at("[install]\nextra-index-url: file://@/more\n"));
	put("ca.pem", "x");
	put("key.pem", "x");
	put("wheels/x", "x");
	put("index/x", "x");
	put("more/x", "x");
	return 0;
}

static int
tear_down(void **state)
{
	(void)state;
	close(dir);
	return dir_remove(AT_FDCWD, top, &e);
}

static void
test_files(void **state)
{
	char *none[] = { NULL };
	struct build_env b;

	(void)state;
	assert_int_equal(build_env_collect(&b, none, at("@/home"), at("@/etc"), &e), 0);
	assert_string_equal(bound(&b, "/etc/hosts"), at("@/etc/hosts"));
	assert_null(bound(&b, "/etc/nsswitch.conf")); /* there is none */
	assert_null(bound(&b, "/etc/resolv.conf")); /* it is the sandbox's own */
	assert_string_equal(bound(&b, "/etc/pip.conf"), at("@/etc/pip.conf"));
	assert_non_null(bound(&b, at("@/ca.pem")));
	assert_non_null(bound(&b, at("@/wheels")));
	assert_non_null(bound(&b, at("@/index")));
	assert_null(bound(&b, at("@/key.pem")));
	assert_string_equal(bound(&b, "/etc/pratai-pip.conf"), at("@/home/.config/pip/pip.conf"));
	assert_true(has_var(&b, "PIP_CONFIG_FILE=/etc/pratai-pip.conf"));
	build_env_free(&b);
	assert_int_equal(build_env_collect(&b, none, NULL, at("@/nothing"), &e), 0);
	assert_int_equal(b.bind_count + b.var_count, 0);
	build_env_free(&b);
}

static void
test_variables(void **state)
{
	char *env[] = { at("PIP_FIND_LINKS=@/wheels /usr/share /nonexistent relative"),
			at("PIP_CONFIG_FILE=@/own.conf"), "PIP_TARGET=/x", at("PIP_CLIENT_CERT=@/key.pem"),
			"https_proxy=http://proxy:1", "NO_PROXY=x", "HOME=/root", "AWS_SECRET=x",
			at("SSL_CERT_FILE=@/ca.pem"), "PIP_LINK=/ /proc/1 /dev/null", "MALFORMED", NULL };
	struct build_env b;

	(void)state;
	assert_int_equal(build_env_collect(&b, env, at("@/home"), at("@/etc"), &e), 0);
	assert_true(has_var(&b, env[0]) && has_var(&b, env[1]) && has_var(&b, env[4]) &&
		    has_var(&b, env[5]) && has_var(&b, env[8]) && has_var(&b, env[9]));
	assert_false(has_var(&b, env[2]) || has_var(&b, env[3]) || has_var(&b, env[6]) ||
		     has_var(&b, env[7]) || has_var(&b, env[10]));
	assert_non_null(bound(&b, at("@/own.conf")));
	assert_non_null(bound(&b, at("@/more")));
	/* The operator's own file wins over the user's, which is still there. */
	assert_string_equal(bound(&b, "/etc/xdg/pip/pip.conf"), at("@/home/.config/pip/pip.conf"));
	assert_null(bound(&b, "/usr/share")); /* seen anyway */
	assert_null(bound(&b, "/"));
	assert_null(bound(&b, "/proc/1"));
	assert_null(bound(&b, "/dev/null"));
	assert_null(bound(&b, at("@/key.pem")));
	build_env_free(&b);
}

static bool
reaches(const struct build_env *b, const char *host, uint16_t port)
{
	for (uint32_t i = 0; i < b->names.count; i++)
		if (!strcmp(b->names.list[i].host, host) && b->names.list[i].port == port)
			return true;
	return false;
}

/* Hosts that the operator's settings name, and no others. */
static void
test_names(void **state)
{
	char *env[] = { "PIP_INDEX_URL=https://u:p@index.example:8443/simple", "HTTPS_PROXY=proxy.example:3128",
			"all_proxy=socks5://socks.example", "no_proxy=localhost,near.example",
			"PIP_TRUSTED_HOST=trusted.example:80", "PIP_FIND_LINKS=http://a.example/ file:///x",
			"REQUESTS_CA_BUNDLE=/x", "OTHER=http://other.example", NULL };
	struct build_env b;

	(void)state;
	put("names/etc/pip.conf", "[global]\n# http://comment.example\nproxy = inside.example:8080\n"
				  "extra-index-url =\n  http://127.0.0.1:3141/x\n  https://b.example/y\n"
				  "proxy-or-so = none.example:1\n");
	assert_int_equal(build_env_collect(&b, env, NULL, at("@/names/etc"), &e), 0);
	assert_true(reaches(&b, "index.example", 8443) && reaches(&b, "proxy.example", 3128));
	assert_true(reaches(&b, "socks.example", 1080) && reaches(&b, "a.example", 80));
	assert_true(reaches(&b, "inside.example", 8080) && reaches(&b, "127.0.0.1", 3141));
	assert_true(reaches(&b, "b.example", 443));
	assert_int_equal(b.names.count, 7);
	build_env_free(&b);
}

/* npm: its files, what they name, and variables in them. */
static void
test_npm(void **state)
{
	char *env[] = { "npm_config_fetch_retries=5", "NPM_CONFIG_REGISTRY=https://var.example/", "TOKEN_OF_MINE=secret",
			"OTHER_TOKEN=secret", "npm_config_prefix=/x", "npm_config_omit=prod",
			"npm_config_https_proxy=http://proxy.example:3128", "npm_config_dry_run=true", NULL };
	char *own[] = { at("npm_config_userconfig=@/npm/own"), NULL };
	struct build_env b;

	(void)state;
	put("npm/usr/etc/npmrc", at("cafile = \"@/ca.pem\"\nproxy=inside.example:8080\nnodedir=/usr\n"));
	put("npm/etc/npmrc", "registry=http://not-read.example/\n");
	put("npm/home/.npmrc", at("; http://comment.example/\n@scope:registry=https://scope.example/x\n"
				  "//scope.example/:_authToken=${TOKEN_OF_MINE}\n//scope.example/:keyfile=@/key.pem\n"
				  "key=@/key.pem\nnokey\n=\n"));
	put("npm/own", "registry = http://own.example:4873/\n");
	assert_int_equal(build_env_collect(&b, env, at("@/npm/home"), at("@/npm/etc"), &e), 0);
	assert_string_equal(bound(&b, "/etc/npmrc"), at("@/npm/usr/etc/npmrc"));
	assert_null(bound(&b, "/usr"));
	assert_string_equal(bound(&b, "/etc/pratai-npmrc"), at("@/npm/home/.npmrc"));
	assert_true(has_var(&b, "npm_config_globalconfig=/etc/npmrc"));
	assert_true(has_var(&b, "npm_config_userconfig=/etc/pratai-npmrc"));
	assert_true(has_var(&b, env[0]) && has_var(&b, env[1]) && has_var(&b, env[2]) && has_var(&b, env[6]));
	assert_false(has_var(&b, env[3]) || has_var(&b, env[4]) || has_var(&b, env[5]) || has_var(&b, env[7]));
	assert_non_null(bound(&b, at("@/ca.pem")));
	assert_null(bound(&b, at("@/key.pem")));
	assert_true(reaches(&b, "inside.example", 8080) && reaches(&b, "scope.example", 443));
	assert_true(reaches(&b, "var.example", 443) && reaches(&b, "proxy.example", 3128));
	assert_int_equal(b.names.count, 4);
	for (size_t i = 0; i < b.bind_count; i++) /* settings are copied, what they name is shown */
		assert_int_equal(b.binds[i].settings, !!strstr(b.binds[i].source, "npmrc"));
	build_env_free(&b);
	/* The operator's own instead of the user's. */
	assert_int_equal(build_env_collect(&b, own, at("@/npm/home"), at("@/npm/etc"), &e), 0);
	assert_non_null(bound(&b, at("@/npm/own")));
	assert_null(bound(&b, "/etc/pratai-npmrc"));
	assert_true(reaches(&b, "own.example", 4873));
	build_env_free(&b);
}

static void
test_bounds(void **state)
{
	static char text[200][32];
	char *env[201] = { NULL };
	struct build_env b;

	(void)state;
	for (int i = 0; i < 200; i++) {
		snprintf(text[i], sizeof text[i], "PIP_X%d=1", i);
		env[i] = text[i];
	}
	assert_int_equal(build_env_collect(&b, env, NULL, at("@/etc"), &e), 0);
	assert_int_equal(b.var_count, BUILD_ENV_VARS);
	assert_null(b.vars[b.var_count]);
	build_env_free(&b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_variables),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_npm),
		cmocka_unit_test(test_bounds),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
