/* What is said where user namespaces are restricted: settings from a directory of our own. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/err.h"
#include "sandbox/userns.h"

static const char *const settings[] = {
	"kernel/unprivileged_userns_clone",
	"user/max_user_namespaces",
	"kernel/apparmor_restrict_unprivileged_userns",
};
enum { CLONE, MAX, APPARMOR, COUNT };

static char dir[64];

static int
make_dir(void **state)
{
	char path[128];

	(void)state;
	snprintf(dir, sizeof dir, "/tmp/pratai-test-userns-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof path, "%s/kernel", dir);
	if (mkdir(path, 0755))
		return -1;
	snprintf(path, sizeof path, "%s/user", dir);
	return mkdir(path, 0755);
}

static void
set(int which, const char *value)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof path, "%s/%s", dir, settings[which]);
	unlink(path);
	if (!value)
		return;
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(value, f);
	assert_int_equal(fclose(f), 0);
}

static int
remove_dir(void **state)
{
	char path[128];

	(void)state;
	for (int i = 0; i < COUNT; i++)
		set(i, NULL);
	snprintf(path, sizeof path, "%s/kernel", dir);
	rmdir(path);
	snprintf(path, sizeof path, "%s/user", dir);
	rmdir(path);
	return rmdir(dir);
}

/* The text for a failure with errnum under these settings. */
static const char *
said(int errnum, const char *clone, const char *max, const char *apparmor)
{
	static struct err e;

	set(CLONE, clone);
	set(MAX, max);
	set(APPARMOR, apparmor);
	errno = errnum;
	err_sys(&e, ERR_NODE, "as it was");
	userns_explain(dir, &e);
	return e.text;
}

static void
test_named(void **state)
{
	(void)state;
	assert_non_null(strstr(said(EPERM, "0\n", "63000\n", NULL), "kernel.unprivileged_userns_clone=1"));
	assert_non_null(strstr(said(ENOSPC, NULL, "0\n", NULL), "user.max_user_namespaces=10000"));
	assert_non_null(strstr(said(EPERM, "1\n", "63000\n", "1\n"), "userns,"));
	assert_non_null(strstr(said(EACCES, NULL, "63000\n", "1\n"),
			       "kernel.apparmor_restrict_unprivileged_userns=0"));
	/* The first that the kernel meets. */
	assert_non_null(strstr(said(EPERM, "0\n", "0\n", "1\n"), "unprivileged_userns_clone"));
}

static void
test_left_alone(void **state)
{
	(void)state;
	assert_string_equal(said(EPERM, NULL, NULL, NULL), "as it was: Operation not permitted");
	assert_string_equal(said(EPERM, "1\n", "63000\n", "0\n"), "as it was: Operation not permitted");
	assert_string_equal(said(EPERM, "", "", ""), "as it was: Operation not permitted");
	assert_string_equal(said(ENOMEM, "0\n", "0\n", "1\n"), "as it was: Cannot allocate memory");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_named),
		cmocka_unit_test(test_left_alone),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
