/*
 * Completions: finished requests on their way from any thread to the loop.
 *
 * A list under a lock and an eventfd.  The poster writes to the eventfd only when the list
 * was empty: one wake-up for a whole batch.  The loop takes the list whole, so that the
 * lock is held for two assignments, never during a callback.
 */
#include "store/internal.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/base/log.h"
#include "netio/loop.h"

struct completions {
	int fd; /* eventfd */
	struct loop_fd *watch;
	size_t outstanding; /* the loop's thread alone */
	pthread_mutex_t lock;
	struct completion *first, *last; /* under lock */
};

void *
store_alloc(size_t size)
{
	void *p = calloc(1, size);

	if (!p) {
		log_error("out of memory for a request to the store", NULL);
		abort();
	}
	return p;
}

static void
deliver(struct completions *cs)
{
	struct completion *c, *next;
	uint64_t count;

	/* Before the list is taken: a post after that writes again. */
	if (read(cs->fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		log_error("the store's eventfd cannot be read", NULL);
	pthread_mutex_lock(&cs->lock);
	c = cs->first;
	cs->first = cs->last = NULL;
	pthread_mutex_unlock(&cs->lock);
	for (; c; c = next) {
		next = c->next;
		if (c->fn)
			c->fn(c->arg, &c->answer, c->err.cls == ERR_NONE ? NULL : &c->err);
		c->release(c);
		cs->outstanding--;
	}
}

static void
on_posted(void *arg, uint32_t events)
{
	(void)events;
	deliver(arg);
}

struct completions *
completions_new(struct loop *l, struct err *e)
{
	struct completions *cs = calloc(1, sizeof(*cs));

	if (!cs) {
		err_set(e, ERR_NODE, "out of memory for the store");
		return NULL;
	}
	pthread_mutex_init(&cs->lock, NULL);
	cs->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (cs->fd < 0)
		err_sys(e, ERR_NODE, "cannot make an eventfd for the store");
	else
		cs->watch = loop_fd_add(l, cs->fd, EPOLLIN, on_posted, cs, e);
	if (cs->watch)
		return cs;
	completions_free(cs);
	return NULL;
}

void
completions_free(struct completions *cs)
{
	if (!cs)
		return;
	loop_fd_remove(cs->watch);
	if (cs->fd >= 0)
		close(cs->fd);
	pthread_mutex_destroy(&cs->lock);
	free(cs);
}

void
completion_begin(struct completions *cs, struct completion *c, store_fn fn, void *arg)
{
	c->fn = fn;
	c->arg = arg;
	c->answer.fd = -1;
	cs->outstanding++;
}

void
completions_post(struct completions *cs, struct completion *first, struct completion *last)
{
	static const uint64_t one = 1;
	bool wake;

	last->next = NULL;
	pthread_mutex_lock(&cs->lock);
	wake = !cs->first;
	if (wake)
		cs->first = first;
	else
		cs->last->next = first;
	cs->last = last;
	pthread_mutex_unlock(&cs->lock);
	/* Can only fail when the counter is at its end, and then it is readable. */
	if (wake && write(cs->fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_error("the store's eventfd cannot be written", NULL);
}

size_t
completions_outstanding(const struct completions *cs)
{
	return cs->outstanding;
}

void
completions_drain(struct completions *cs)
{
	struct pollfd wait = {.fd = cs->fd, .events = POLLIN};

	while (cs->outstanding) {
		poll(&wait, 1, -1);
		deliver(cs);
	}
}
