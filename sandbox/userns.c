/*
 * The settings, in the order in which the kernel meets them:
 *
 *   kernel.unprivileged_userns_clone   Debian's and Arch's patch; 0: EPERM
 *   user.max_user_namespaces           0 (as Red Hat once shipped it): ENOSPC
 *   kernel.apparmor_restrict_unprivileged_userns
 *                                      Ubuntu since 23.10; 1: the namespace is made, but a
 *                                      profile takes every capability in it
 */
#include "sandbox/userns.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/fdio.h"

/* The setting's number; -1: there is none. */
static long
setting(const char *sysctls, const char *name)
{
	char path[256], text[32];
	CLEAN_FD int fd = -1;
	ssize_t n;

	snprintf(path, sizeof path, "%s/%s", sysctls, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (n <= 0)
		return -1;
	text[n] = '\0';
	return strtol(text, NULL, 10);
}

void
userns_explain(const char *sysctls, struct err *e)
{
	if (e->errnum != EPERM && e->errnum != EACCES && e->errnum != ENOSPC)
		return;
	if (setting(sysctls, "kernel/unprivileged_userns_clone") == 0)
		err_set(e, ERR_NODE, "this machine gives ordinary users no user namespaces "
				     "(kernel.unprivileged_userns_clone is 0); to allow them, as root: "
				     "sysctl -w kernel.unprivileged_userns_clone=1");
	else if (setting(sysctls, "user/max_user_namespaces") == 0)
		err_set(e, ERR_NODE, "this machine gives no user namespaces "
				     "(user.max_user_namespaces is 0); to allow them, as root: "
				     "sysctl -w user.max_user_namespaces=10000");
	else if (setting(sysctls, "kernel/apparmor_restrict_unprivileged_userns") > 0)
		err_set(e, ERR_NODE, "AppArmor takes what a user namespace of an ordinary user could do "
				     "(kernel.apparmor_restrict_unprivileged_userns is 1); to allow it, as "
				     "root: a profile with \"userns,\" for this program (pratai-run(1)), or "
				     "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0");
}
