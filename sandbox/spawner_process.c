/*
 * The spawner's process from fork to end.  It is pid 1 of its pid namespace: when it ends,
 * however, the kernel ends every sandbox.
 */
#include "sandbox/spawner_process.h"

#include <unistd.h>

#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/log.h"

_Noreturn void
spawner_process(struct spawner_inside *in)
{
	struct err e = { 0 };
	int rc;

	log_open("spawner", LOG_INFO);
	rc = spawner_setup(in, &e);
	if (rc)
		e.cls = e.cls == ERR_NONE ? ERR_NODE : e.cls;
	else
		err_clear(&e);
	/* The starter waits for exactly this. */
	if (fd_write_all(in->ready, &e, sizeof e) == 0 && rc == 0) {
		fd_close(&in->ready);
		spawner_loop(in);
	}
	_exit(rc ? 1 : 0);
}
