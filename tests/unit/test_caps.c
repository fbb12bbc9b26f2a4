/*
 * Capabilities dropped and kept, seen from outside: /proc/self/status and what a privileged
 * call says afterwards, also after exec as uid 0 and inside a user namespace.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/base/err.h"
#include "core/base/caps.h"

#define BIT(cap) (1ull << (cap))

/* The number of a "CapEff:"-like line in f. */
static uint64_t
field(const char *path, const char *name)
{
	FILE *f = fopen(path, "re");
	char line[256];
	uint64_t value = UINT64_MAX;

	while (f && fgets(line, sizeof line, f))
		if (strncmp(line, name, strlen(name)) == 0)
			value = strtoull(line + strlen(name) + 1, NULL, 16);
	if (f)
		fclose(f);
	return value;
}

static int
run(int (*what)(void))
{
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0)
		_exit(what());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int
all_are_gone(void)
{
	static const char *const sets[] = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"};

	for (unsigned i = 0; i < sizeof sets / sizeof *sets; i++)
		if (field("/proc/self/status", sets[i]) != 0)
			return 10 + (int)i;
	return caps_effective() ? 20 : 0;
}

static int
drop(void)
{
	struct err e;
	int rc;

	if (chroot("/") < 0)
		return 1; /* the control: it works before */
	if (caps_drop_all(&e) < 0) {
		fprintf(stderr, "%s\n", e.text);
		return 2;
	}
	if ((rc = all_are_gone()) != 0)
		return rc;
	if (chroot("/") == 0 || errno != EPERM)
		return 3;
	/* The securebits are locked, and dropping again is no error. */
	if (prctl(PR_SET_SECUREBITS, 0, 0, 0, 0) == 0 || errno != EPERM)
		return 4;
	if (caps_drop_all(&e) < 0) {
		fprintf(stderr, "%s\n", e.text);
		return 5;
	}
	return 0;
}

static int
drop_in_user_namespace(void)
{
	struct err e;

	if (unshare(CLONE_NEWUSER) < 0)
		return 77;
	if (caps_effective() == 0)
		return 1;
	return caps_drop_all(&e) < 0 ? 2 : all_are_gone();
}

/* Being uid 0 gives nothing back when a program is executed. */
static int
drop_and_exec(void)
{
	struct err e;

	if (caps_drop_all(&e) < 0)
		return 2;
	execl("/bin/sh", "sh", "-c", "grep -q 'CapEff:.0000000000000000' /proc/self/status", NULL);
	return 3;
}

static int
keep(void)
{
	const uint64_t mask = BIT(CAP_KILL) | BIT(CAP_SYS_CHROOT);
	struct err e;

	if (caps_keep(mask, &e) < 0) {
		fprintf(stderr, "%s\n", e.text);
		return 2;
	}
	if (field("/proc/self/status", "CapEff") != mask ||
	    field("/proc/self/status", "CapPrm") != mask ||
	    field("/proc/self/status", "CapBnd") != mask ||
	    field("/proc/self/status", "CapInh") != 0 || caps_effective() != mask)
		return 3;
	if (chroot("/") < 0)
		return 4;
	return sethostname("x", 1) == 0 || errno != EPERM ? 5 : 0;
}

/* Without CAP_SETPCAP the bounding set cannot be emptied, which is said. */
static int
drop_without_the_right_to(void)
{
	struct err e;

	if (setresuid(65534, 65534, 65534) < 0)
		return 77;
	if (caps_drop_all(&e) == 0)
		return 1;
	return e.cls == ERR_NODE && e.errnum == EPERM && strstr(e.text, "bounding") ? 0 : 2;
}

static void
test_caps(void **state)
{
	static const struct {
		const char *name;
		int (*what)(void);
	} all[] = {{"drop", drop},
		   {"drop_in_user_namespace", drop_in_user_namespace},
		   {"drop_and_exec", drop_and_exec},
		   {"keep", keep},
		   {"drop_without_the_right_to", drop_without_the_right_to}};

	(void)state;
	if (getuid() != 0) {
		print_message("needs root\n");
		skip();
	}
	for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
		int rc = run(all[i].what);

		if (rc == 77)
			print_message("%s: not possible here\n", all[i].name);
		else if (rc)
			fail_msg("%s: failed at %d", all[i].name, rc);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_caps)};

	return cmocka_run_group_tests_name("caps", tests, NULL, NULL);
}
