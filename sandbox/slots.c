#include "sandbox/slots.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/fdio.h"
#include "sandbox/sandbox.h"

int
slots_take(uint32_t *uid_base, struct err *e)
{
	unsigned first = (unsigned)getpid() % SLOTS_MAX;
	CLEAN_FD int fd = -1;

	if (mkdir("/run/pratai", 0755) && errno != EEXIST)
		return err_sys(e, ERR_NODE, "make /run/pratai");
	fd = open("/run/pratai/run-slots", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(e, ERR_NODE, "open /run/pratai/run-slots");
	for (unsigned i = 0; i < SLOTS_MAX; i++) {
		unsigned slot = (first + i) % SLOTS_MAX;
		struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = slot, .l_len = 1 };

		if (!fcntl(fd, F_OFD_SETLK, &lock)) {
			*uid_base = SLOTS_UID_BASE + slot * SANDBOX_IDS;
			return fd_steal(&fd);
		}
		if (errno != EAGAIN && errno != EACCES)
			return err_sys(e, ERR_NODE, "lock /run/pratai/run-slots");
	}
	return err_set(e, ERR_AGAIN, "%d sandboxes are running already", SLOTS_MAX);
}
