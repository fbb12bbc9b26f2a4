/*
 * The spawner's process from its start to its end.  It is pid 1 of its pid namespace: when
 * it ends, however, the kernel ends every sandbox.
 */
#include "sandbox/spawner_process.h"

#include <unistd.h>

#include "core/base/err.h"
#include "core/base/fdio.h"

int
spawner_process(struct spawner_inside *in)
{
	struct err e = { 0 };
	int rc = spawner_setup(in, &e);

	if (rc)
		e.cls = e.cls == ERR_NONE ? ERR_NODE : e.cls;
	else
		err_clear(&e);
	/* The starter waits for exactly this. */
	if (fd_write_all(SPAWNER_FD_READY, &e, sizeof e) || rc)
		return 1;
	close(SPAWNER_FD_READY);
	spawner_loop(in);
	netpool_close(&in->nets);
	build_env_free(&in->build);
	return 0;
}
