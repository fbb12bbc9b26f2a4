/*
 * Message queues: ZeroMQ sockets on the loop.  A message is a list of frames.
 *
 * Endpoints: "inproc://name"; "ipc:name" is a socket called name in the directory run_fd
 * (so that a process without rights on the path above it, or a long path, can use it);
 * "tcp://host:port" as ZeroMQ has it.
 *
 * What is in flight when a process dies is lost (PUSH, PULL, ROUTER and DEALER alike):
 * a message is a hint, only a record that was acknowledged counts.
 */
#ifndef PRATAI_MQ_H
#define PRATAI_MQ_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct err;
struct loop;
struct mq;
struct mq_socket;

enum { MQ_FRAMES_MAX = 8, MQ_FRAME_BYTES_MAX = 64 << 20 };

/* One context per process.  run_fd: the directory of "ipc:" endpoints, or -1; kept by mq
 * as a duplicate.  After every fork that this process needs: ZeroMQ has a thread. */
struct mq *mq_new(struct loop *l, int run_fd, struct err *e);
void mq_free(struct mq *m); /* after its sockets, before its loop; does not linger */

enum mq_type { MQ_PUSH, MQ_PULL, MQ_ROUTER, MQ_DEALER };

struct mq_frame {
	const void *data;
	size_t len;
};

/*
 * frames are valid during the call only.  A ROUTER gets the sender's routing id as
 * frame 0.  More than MQ_FRAMES_MAX frames, or a longer one: counted, logged, dropped.
 */
typedef void (*mq_fn)(void *arg, const struct mq_frame *frames, size_t n);

struct mq_options {
	const char *bind, *connect; /* one of them */
	const void *routing_id;     /* DEALER */
	size_t routing_id_len;
	int high_water; /* messages kept per peer; 0: 1000 */
	mode_t socket_mode; /* of a bound "ipc:" socket; 0: 0600 */
};

/*
 * Opened without waiting: a connection that cannot be made now is tried again, 50 ms to 2 s
 * apart, for ever.  fn NULL for sockets that only send.  PUSH and DEALER are ZMQ_IMMEDIATE,
 * ROUTER is ZMQ_ROUTER_MANDATORY and hands over a routing id to the newer connection.
 */
struct mq_socket *mq_open(struct mq *m, enum mq_type type, const struct mq_options *o, mq_fn fn,
			  void *arg, struct err *e);
void mq_close(struct mq_socket *s); /* safe in its own callback; NULL is fine */

/*
 * Sends without waiting.  0; -1 with ERR_AGAIN (no peer, or its queue is full: not sent,
 * nothing kept) or ERR_NOT_FOUND (ROUTER: no such peer).  A ROUTER's frame 0 is the
 * routing id.
 */
int mq_send(struct mq_socket *s, const struct mq_frame *frames, size_t n, struct err *e);

/* As mq_send, but the last frame is not copied: done(hint) is called, possibly in another
 * thread, when ZeroMQ needs it no more; also on failure. */
int mq_send_last(struct mq_socket *s, const struct mq_frame *frames, size_t n,
		 void (*done)(void *data, void *hint), void *hint, struct err *e);

#endif
