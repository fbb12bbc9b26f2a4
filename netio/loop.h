/*
 * The event loop: one epoll, level-triggered, per process.  Everything else of a
 * process hangs on it: descriptors, timers, signals, ended processes.
 *
 * A callback may remove anything, itself included: what is removed is never called
 * again, and its memory is freed at the end of the iteration.
 */
#ifndef PRATAI_LOOP_H
#define PRATAI_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct err;
struct loop;
struct loop_fd;
struct loop_timer;
struct loop_hook;

struct loop *loop_new(struct err *e);
void loop_free(struct loop *l);

/* Until loop_stop, whose iteration is completed.  0, or -1 when epoll itself fails. */
int loop_run(struct loop *l, struct err *e);
void loop_stop(struct loop *l);

/* Monotonic time of this iteration, ns. */
uint64_t loop_now(const struct loop *l);

/* events: EPOLLIN, EPOLLOUT, EPOLLPRI.  Does not own fd. */
typedef void (*loop_fd_fn)(void *arg, uint32_t events);
struct loop_fd *loop_fd_add(struct loop *l, int fd, uint32_t events, loop_fd_fn fn, void *arg,
			    struct err *e);
int loop_fd_set(struct loop_fd *f, uint32_t events);
void loop_fd_remove(struct loop_fd *f); /* before fd is closed; NULL is fine */

/* One-shot; set again for more.  A timer that is not set waits for nothing. */
typedef void (*loop_fn)(void *arg);
struct loop_timer *loop_timer_add(struct loop *l, loop_fn fn, void *arg, struct err *e);
void loop_timer_at(struct loop_timer *t, uint64_t mono_ns);
void loop_timer_after(struct loop_timer *t, uint64_t ns);
void loop_timer_clear(struct loop_timer *t);
bool loop_timer_pending(const struct loop_timer *t);
void loop_timer_remove(struct loop_timer *t); /* NULL is fine */

/* Blocks signo for the process and delivers it here (signalfd).  Before any thread.  What
 * is forked later inherits the block: it resets its mask before exec. */
typedef void (*loop_signal_fn)(void *arg, int signo);
int loop_signal(struct loop *l, int signo, loop_signal_fn fn, void *arg, struct err *e);

/* When the child pid ends: si_code and si_status of waitid (CLD_EXITED and the exit code, ...;
 * 0 and 0 when somebody else reaped it), reaped; then removed by itself. */
typedef void (*loop_child_fn)(void *arg, pid_t pid, int code, int status);
int loop_child(struct loop *l, pid_t pid, loop_child_fn fn, void *arg, struct err *e);
/* fn is not called any more; the child's end is waited for, and it is reaped, all the same. */
void loop_child_unheard(struct loop *l, pid_t pid);

/*
 * Before every wait.  The hook does what it can without waiting and returns how long the
 * loop may wait at most, in ns: 0: come round again at once; UINT64_MAX: as long as you
 * like.  For libraries that keep their own idea of what is ready (ZMQ_FD, libmicrohttpd).
 */
typedef uint64_t (*loop_hook_fn)(void *arg);
struct loop_hook *loop_hook_add(struct loop *l, loop_hook_fn fn, void *arg, struct err *e);
void loop_hook_remove(struct loop_hook *h);

/* The next wait takes no time: every hook is asked again before the loop may sleep.  For
 * what makes work for a hook that may have had its turn already. */
void loop_again(struct loop *l);

/* fn(arg) at the end of this iteration: for freeing what a caller up the stack may hold. */
void loop_defer(struct loop *l, loop_fn fn, void *arg);

#endif
