/*
 * Capabilities, without a library: libcap wants 40 kB, allocates, and does nothing here
 * that three system calls do not.
 *
 * The order matters.  Emptying the bounding set and setting securebits need CAP_SETPCAP,
 * so they come first; capset comes last and takes CAP_SETPCAP with it.  The sets are then
 * read back: a kernel or a filter around us that ignored a call is an error, not a hope.
 * A change of uid inside a user namespace drops nothing by itself, which is why
 * everything is dropped explicitly.
 */
#include "core/base/caps.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/base/err.h"

struct cap_sets {
	uint64_t effective, permitted, inheritable;
};

/* The locked bits say: no capability comes from being uid 0, from changing uids, or from
 * the ambient set, and nobody changes that. */
#define LOCKED_SECUREBITS                                                                          \
	(SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |                           \
	 SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |   \
	 SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED)

static int
get_sets(struct cap_sets *out)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {0};

	if (syscall(SYS_capget, &head, data) < 0)
		return -1;
	out->effective = data[0].effective | (uint64_t)data[1].effective << 32;
	out->permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
	out->inheritable = data[0].inheritable | (uint64_t)data[1].inheritable << 32;
	return 0;
}

static int
set_sets(const struct cap_sets *s)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	for (int i = 0; i < 2; i++) {
		data[i].effective = (uint32_t)(s->effective >> (32 * i));
		data[i].permitted = (uint32_t)(s->permitted >> (32 * i));
		data[i].inheritable = (uint32_t)(s->inheritable >> (32 * i));
	}
	return (int)syscall(SYS_capset, &head, data);
}

/* Every capability that this kernel knows and mask does not name leaves the bounding set.
 * EINVAL marks the first number that the kernel does not know. */
static int
bound(uint64_t mask, struct err *e)
{
	for (int cap = 0; cap < 64; cap++) {
		if (mask >> cap & 1 || prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0)
			continue;
		if (errno == EINVAL)
			return 0;
		/* Without CAP_SETPCAP all is well if it is not there: 0, or -1 past the last. */
		if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) != 1)
			continue;
		errno = EPERM;
		return err_sys(e, ERR_NODE, "cannot drop capability %d from the bounding set", cap);
	}
	return 0;
}

static int
empty_ambient(struct err *e)
{
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return err_sys(e, ERR_NODE, "cannot clear the ambient capabilities");
	return 0;
}

/* Nothing in the bounding set outside mask. */
static int
verify_bound(uint64_t mask, struct err *e)
{
	for (int cap = 0; cap < 64; cap++) {
		int there = mask >> cap & 1 ? 0 : prctl(PR_CAPBSET_READ, cap, 0, 0, 0);

		if (there < 0)
			break;
		if (there)
			return err_set(e, ERR_NODE, "capability %d is still in the bounding set",
				       cap);
	}
	return 0;
}

/* Exactly want.  The ambient set is a part of the inheritable one, which is empty. */
static int
verify_sets(const struct cap_sets *want, struct err *e)
{
	struct cap_sets now;

	if (get_sets(&now) < 0)
		return err_sys(e, ERR_NODE, "cannot read the capabilities back");
	if (now.effective != want->effective || now.permitted != want->permitted ||
	    now.inheritable != 0)
		return err_set(e, ERR_NODE, "the kernel kept capabilities that were dropped");
	return 0;
}

int
caps_lock(struct err *e)
{
	if (empty_ambient(e) < 0 || bound(0, e) < 0)
		return -1;
	if (prctl(PR_GET_SECUREBITS, 0, 0, 0, 0) != LOCKED_SECUREBITS &&
	    prctl(PR_SET_SECUREBITS, LOCKED_SECUREBITS, 0, 0, 0) < 0)
		return err_sys(e, ERR_NODE, "cannot lock the securebits");
	return verify_bound(0, e);
}

int
caps_clear(struct err *e)
{
	static const struct cap_sets none;

	if (set_sets(&none) < 0)
		return err_sys(e, ERR_NODE, "cannot drop the capabilities");
	return verify_sets(&none, e);
}

int
caps_raise(void)
{
	struct cap_sets s;

	if (get_sets(&s) < 0)
		return -1;
	s.effective = s.permitted;
	return set_sets(&s);
}

int
caps_drop_all(struct err *e)
{
	return caps_lock(e) < 0 ? -1 : caps_clear(e);
}

int
caps_bound(uint64_t mask, struct err *e)
{
	return empty_ambient(e) < 0 || bound(mask, e) < 0 ? -1 : verify_bound(mask, e);
}

int
caps_shrink(uint64_t mask, struct err *e)
{
	struct cap_sets now;

	if (get_sets(&now) < 0)
		return err_sys(e, ERR_NODE, "cannot read the capabilities");
	now.permitted &= mask;
	now.effective = now.permitted;
	now.inheritable = 0;
	if (set_sets(&now) < 0)
		return err_sys(e, ERR_NODE, "cannot set the capabilities");
	return verify_sets(&now, e);
}

int
caps_keep(uint64_t mask, struct err *e)
{
	return caps_bound(mask, e) < 0 ? -1 : caps_shrink(mask, e);
}

int
caps_pass_on(uint64_t mask)
{
	struct cap_sets s;

	if (get_sets(&s) < 0)
		return -1;
	s.inheritable |= mask;
	if (set_sets(&s) < 0)
		return -1;
	for (unsigned long cap = 0; cap < 64; cap++)
		if (mask >> cap & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0))
			return -1;
	return 0;
}

uint64_t
caps_effective(void)
{
	struct cap_sets now;

	return get_sets(&now) < 0 ? 0 : now.effective;
}
