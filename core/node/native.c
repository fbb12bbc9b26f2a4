/*
 * The native driver's books: slots and memory.  A sandbox's memory limit is promised in
 * full from its start to its end; what cannot be promised is refused at once, so that the
 * job goes to another node instead of waiting here.
 */
#include "core/node/native.h"

#include <stdlib.h>

#include "core/base/err.h"
#include "sandbox/spawner.h"

static struct driver_run *
native_start(struct driver *d, const struct message *job, const void *payload, size_t len,
	     driver_done_fn done, void *arg, struct err *e)
{
	struct native *n = (struct native *)d;

	if (job->kind == JOB_BUILD)
		return n->c.build(n, job, payload, len, done, arg, e);
	return native_event_start(n, job, payload, len, done, arg, e);
}

static void
native_cancel(struct driver_run *run)
{
	run->ops->cancel(run);
}

static uint64_t
native_memory_free(const struct driver *d)
{
	const struct native *n = (const struct native *)d;

	return n->c.memory_mib - n->memory_mib;
}

static void
native_free(struct driver *d)
{
	struct native *n = (struct native *)d;
	struct driver_run *run;

	while ((run = LIST_FIRST(&n->runs))) {
		native_leave(run);
		run->ops->free(run);
	}
	free(n);
}

static const struct driver_ops native_ops = {
	.name = "native",
	.start = native_start,
	.cancel = native_cancel,
	.memory_free_mib = native_memory_free,
	.free = native_free,
};

struct driver *
native_new(const struct native_config *config, struct err *e)
{
	struct native *n = calloc(1, sizeof *n);

	if (!n) {
		err_set(e, ERR_NODE, "driver: out of memory");
		return NULL;
	}
	n->driver.ops = &native_ops;
	LIST_INIT(&n->runs);
	TAILQ_INIT(&n->claims);
	n->c = *config;
	return &n->driver;
}

int
native_enter(struct native *n, struct driver_run *run, const struct run_ops *ops,
	     uint64_t memory_mib, driver_done_fn done, void *arg, struct err *e)
{
	if (memory_mib > n->c.memory_mib)
		return err_set(e, ERR_AGAIN, "%llu MiB are more than the node's %llu MiB",
			       (unsigned long long)memory_mib, (unsigned long long)n->c.memory_mib);
	if (n->count == n->c.slots)
		return err_set(e, ERR_AGAIN, "no free slot");
	if (memory_mib > n->c.memory_mib - n->memory_mib)
		return err_set(e, ERR_AGAIN, "%llu MiB are asked for, %llu MiB are free",
			       (unsigned long long)memory_mib,
			       (unsigned long long)(n->c.memory_mib - n->memory_mib));
	run->ops = ops;
	run->native = n;
	run->memory_mib = memory_mib;
	run->done = done;
	run->arg = arg;
	n->memory_mib += memory_mib;
	n->count++;
	LIST_INSERT_HEAD(&n->runs, run, link);
	return 0;
}

void
native_leave(struct driver_run *run)
{
	run->native->memory_mib -= run->memory_mib;
	run->native->count--;
	LIST_REMOVE(run, link);
}

int
native_is_lost(const struct spawn_result *r)
{
	if (r->reason == SPAWN_LOST)
		return 1;
	return r->reason == SPAWN_SETUP_FAILED &&
	       (r->err_class == ERR_NODE || r->err_class == ERR_AGAIN ||
		r->err_class == ERR_NONE || r->err_class == ERR_DENIED);
}
