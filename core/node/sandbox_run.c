/*
 * The pipes are read at most CHUNK_BYTES a turn, so that a flood of output starves nobody.
 * When the spawner reports the end, nothing can write any more: what is in the pipes and in
 * the socket is read without waiting for their ends, so that a descriptor which leaked out
 * of the sandbox cannot keep its event open.
 */
#include "core/node/sandbox_run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/node/launcher.h"
#include "netio/loop.h"

enum { CHUNK_BYTES = 64 << 10 };

struct sandbox_pipe {
	struct sandbox_run *run;
	enum output_stream stream;
	int fd;       /* our end */
	int their_fd; /* until the request was sent */
	struct loop_fd *watch;
};

struct sandbox_run {
	struct loop *loop;
	const struct sandbox_run_fns *fns;
	void *arg;
	struct launch *launch; /* NULL once it is over */
	struct sandbox_pipe pipe[OUTPUT_STREAM_COUNT];
	struct channel *channel;
	int their_channel;
};

static void
pipe_close(struct sandbox_pipe *p)
{
	loop_fd_remove(p->watch);
	p->watch = NULL;
	fd_close(&p->fd);
	fd_close(&p->their_fd);
}

/* True when there may be more. */
static bool
pipe_read(struct sandbox_pipe *p)
{
	char chunk[CHUNK_BYTES];
	ssize_t n = read(p->fd, chunk, sizeof chunk);

	if (n < 0 && errno == EINTR)
		return true;
	if (n < 0 && errno == EAGAIN)
		return false;
	if (n <= 0) {
		pipe_close(p);
		return false;
	}
	p->run->fns->output(p->run->arg, p->stream, chunk, (size_t)n);
	return true;
}

static void
on_pipe(void *arg, uint32_t events)
{
	(void)events;
	pipe_read(arg);
}

static void
on_sent(void *arg)
{
	struct sandbox_run *run = arg;

	for (int s = 0; s < OUTPUT_STREAM_COUNT; s++)
		fd_close(&run->pipe[s].their_fd);
	fd_close(&run->their_channel);
}

static void
on_done(void *arg, const struct spawn_result *r)
{
	struct sandbox_run *run = arg;

	run->launch = NULL;
	for (int s = 0; s < OUTPUT_STREAM_COUNT; s++)
		while (run->pipe[s].fd >= 0 && pipe_read(&run->pipe[s]))
			;
	channel_drain(run->channel);
	run->fns->done(run->arg, r);
}

static const struct launch_fns launch_fns = { .sent = on_sent, .done = on_done };

static int
pipe_open(struct sandbox_run *run, enum output_stream s, struct err *e)
{
	struct sandbox_pipe *p = &run->pipe[s];
	int fds[2];

	if (pipe2(fds, O_CLOEXEC))
		return err_sys(e, ERR_NODE, "pipe");
	p->run = run;
	p->stream = s;
	p->fd = fds[0];
	p->their_fd = fds[1];
	/* Not pipe2's O_NONBLOCK: the writing end is the user's process's. */
	if (fd_set_nonblocking(p->fd))
		return err_sys(e, ERR_NODE, "pipe");
	/* Programs that log to /dev/stdout open it anew, with the sandbox's user's rights. */
	if (fchmod(p->their_fd, 0622))
		return err_sys(e, ERR_NODE, "pipe");
	p->watch = loop_fd_add(run->loop, p->fd, EPOLLIN, on_pipe, p, e);
	return p->watch ? 0 : -1;
}

static int
wire(struct sandbox_run *run, struct err *e)
{
	int pair[2];

	for (int s = 0; s < OUTPUT_STREAM_COUNT; s++)
		if (pipe_open(run, (enum output_stream)s, e))
			return -1;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return err_sys(e, ERR_NODE, "socketpair");
	run->their_channel = pair[1];
	run->channel = channel_new(run->loop, pair[0], &run->fns->channel, run->arg, e);
	return run->channel ? 0 : -1;
}

struct sandbox_run *
sandbox_run_start(struct loop *l, struct launcher *launcher, const struct spawn_request *r,
		  const struct sandbox_run_fns *fns, void *arg, struct err *e)
{
	struct sandbox_run *run = calloc(1, sizeof *run);
	struct spawn_request request = *r;

	if (!run) {
		err_set(e, ERR_NODE, "sandbox: out of memory");
		return NULL;
	}
	run->loop = l;
	run->fns = fns;
	run->arg = arg;
	run->their_channel = -1;
	for (int s = 0; s < OUTPUT_STREAM_COUNT; s++)
		run->pipe[s].fd = run->pipe[s].their_fd = -1;
	if (wire(run, e) == 0) {
		request.stdio[0] = -1;
		request.stdio[1] = run->pipe[OUTPUT_STDOUT].their_fd;
		request.stdio[2] = run->pipe[OUTPUT_STDERR].their_fd;
		request.channel = run->their_channel;
		run->launch = launcher_start(launcher, &request, &launch_fns, run, e);
	}
	if (!run->launch) {
		sandbox_run_free(run);
		return NULL;
	}
	return run;
}

void
sandbox_run_free(struct sandbox_run *run)
{
	if (!run)
		return;
	for (int s = 0; s < OUTPUT_STREAM_COUNT; s++)
		pipe_close(&run->pipe[s]);
	channel_free(run->channel);
	fd_close(&run->their_channel);
	free(run);
}

int
sandbox_run_send(struct sandbox_run *run, const void *head, size_t head_len, const void *body,
		 size_t body_len, struct err *e)
{
	return channel_send(run->channel, head, head_len, body, body_len, e);
}

void
sandbox_run_kill(struct sandbox_run *run, enum spawn_kill why)
{
	if (run->launch)
		launch_kill(run->launch, why);
}
