/*
 * What of a machine's apt a build is shown: sources with their keys, hosts that are named.
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

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/build/apt_conf.h"
#include "sandbox/egress.h"

static char top[] = "/tmp/test_apt_conf.XXXXXX";
static int dir;
static struct err e;

static char *
at(const char *path)
{
	static char text[8][256];
	static int n;
	char *out = text[n++ % 8];

	snprintf(out, sizeof text[0], "%s/%s", top, path);
	return out;
}

static void
put(const char *path, const char *text)
{
	char parent[256];

	snprintf(parent, sizeof parent, "%.*s", (int)(strrchr(path, '/') - path), path);
	assert_int_equal(dir_make(dir, parent, 0755, &e), 0);
	assert_int_equal(file_replace(dir, path, 0600, text, strlen(text), &e), 0);
}

static char *
got(const char *path)
{
	struct buf text = { 0 };

	if (file_slurp(dir, path, 65536, &text, &e))
		return NULL;
	buf_puts(&text, "");
	return buf_steal(&text);
}

static bool
is_named(const struct egress_names *names, const char *host, unsigned port)
{
	for (uint32_t i = 0; i < names->count; i++)
		if (!strcmp(names->list[i].host, host) && names->list[i].port == port)
			return true;
	return false;
}

static void
check(const char *path, const char *expected)
{
	char *text = got(path);

	assert_non_null(text);
	assert_string_equal(text, expected);
	free(text);
}

static int
set_up(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(top));
	dir = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return dir < 0 ? -1 : 0;
}

static int
tear_down(void **state)
{
	(void)state;
	close(dir);
	return dir_remove(AT_FDCWD, top, &e);
}

static void
test_sources(void **state)
{
	struct egress_names names = { 0 };
	char text[1024];

	(void)state;
	snprintf(text, sizeof text, "# deb http://comment.example/ x main\n"
		 "deb [arch=amd64 signed-by=%s/k/a.gpg] http://one.example/debian/ s main\n"
		 "deb http://two.example:8080/x s main", top);
	put("etc/apt/sources.list", text);
	snprintf(text, sizeof text, "Types: deb\nURIs: https://three.example/d\nSuites: s s-updates\n"
		 "Signed-By: %s/k/b.asc %s/k/none\n", top, top);
	put("etc/apt/sources.list.d/x.sources", text);
	put("etc/apt/sources.list.d/x.list.disabled", "deb http://disabled.example/ s main\n");
	put("etc/apt/auth.conf", "machine one.example login l password p\n");
	put("etc/apt/trusted.gpg.d/t.gpg", "t");
	put("k/a.gpg", "a");
	put("k/b.asc", "b");
	assert_int_equal(mkdirat(dir, "out", 0755), 0);
	assert_int_equal(apt_conf_collect(at("etc"), at("out"), &names, &e), 0);
	check("out/sources/sources.list",
	      "deb [arch=amd64 signed-by=" APT_CONF_SHOWN "/keys/0.gpg] http://one.example/debian/ s main\n"
	      "deb http://two.example:8080/x s main");
	check("out/sources/x.sources", "Types: deb\nURIs: https://three.example/d\nSuites: s s-updates\n"
	      "Signed-By: " APT_CONF_SHOWN "/keys/1.asc " APT_CONF_SHOWN "/keys/2\n");
	check("out/keys/0.gpg", "a");
	check("out/keys/1.asc", "b");
	check("out/trusted.gpg.d/t.gpg", "t");
	check("out/auth/machine.conf", "machine one.example login l password p\n");
	assert_null(got("out/keys/2"));
	assert_null(got("out/sources/x.list.disabled"));
	assert_true(is_named(&names, "one.example", 80) && is_named(&names, "two.example", 8080));
	assert_true(is_named(&names, "three.example", 443));
	assert_false(is_named(&names, "comment.example", 80) || is_named(&names, "disabled.example", 80));
}

static void
test_none(void **state)
{
	struct egress_names names = { 0 };

	(void)state;
	put("empty/apt/sources.list", "# deb http://comment.example/ x main\n\n");
	assert_int_equal(mkdirat(dir, "nothing", 0755), 0);
	assert_int_equal(apt_conf_collect(at("empty"), at("nothing"), &names, &e), -1);
	assert_int_equal(e.cls, ERR_NOT_FOUND);
	assert_non_null(strstr(e.text, "no source of Debian packages"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sources),
		cmocka_unit_test(test_none),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
