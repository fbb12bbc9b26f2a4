/*
 * The order is part of it.  NO_SETUID_FIXUP keeps the capabilities over the change of uid,
 * so that there is one place which drops them, and checks (caps_drop_all).  PDEATHSIG is
 * cleared by a change of uid, hence comes after; a parent that died before shows in getppid.
 */
#include "core/base/privileges.h"

#include <errno.h>
#include <grp.h>
#include <linux/securebits.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/caps.h"

int
privileges_raise_files(struct err *e)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files))
		return err_sys(e, ERR_NODE, "read the limit of open files");
	files.rlim_cur = files.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &files))
		return err_sys(e, ERR_NODE, "raise the limit of open files");
	return 0;
}

static int
check(uid_t uid, gid_t gid, struct err *e)
{
	uid_t r, ef, s;
	gid_t rg, eg, sg;

	if (getresuid(&r, &ef, &s) || getresgid(&rg, &eg, &sg) || r != uid || ef != uid ||
	    s != uid || rg != gid || eg != gid || sg != gid || getgroups(0, NULL) != 0)
		return err_set(e, ERR_NODE, "the kernel kept ids that were given up");
	if (setuid(0) == 0 || errno != EPERM)
		return err_set(e, ERR_NODE, "root can be had again after it was given up");
	return 0;
}

int
privileges_drop(uid_t uid, gid_t gid, pid_t parent, struct err *e)
{
	struct rlimit none = { 0, 0 };

	if (setgroups(0, NULL) || setresgid(gid, gid, gid))
		return err_sys(e, ERR_NODE, "become group %u", gid);
	if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) || setresuid(uid, uid, uid))
		return err_sys(e, ERR_NODE, "become user %u", uid);
	if (caps_drop_all(e))
		return -1;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) ||
	    setrlimit(RLIMIT_CORE, &none))
		return err_sys(e, ERR_NODE, "no_new_privs, no core dumps");
	if (parent && prctl(PR_SET_PDEATHSIG, SIGKILL))
		return err_sys(e, ERR_NODE, "end with the parent");
	if (parent && getppid() != parent)
		return err_set(e, ERR_NODE, "the parent has ended");
	return check(uid, gid, e);
}
