/*
 * A request's body: in memory while it is short and all bodies together are below their
 * sum, then in a file without a name, which the kernel's page cache takes as fast as
 * memory and gives back to the disk when memory is short.  Whoever wants the whole has
 * it mapped.
 */
#include "netio/http_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/id.h"
#include "core/base/log.h"

static void
count_memory(struct http_request *r)
{
	struct http_request_body *b = &r->body;

	r->server->bodies_memory_bytes += b->memory.cap - b->counted;
	b->counted = b->memory.cap;
}

/* An unlinked file.  Not every file system has O_TMPFILE. */
static int
open_spool(int dir)
{
	struct id id = id_new();
	char name[6 + ID_TEXT_MAX] = "spool-";
	int fd = openat(dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT))
		return fd;
	id_format(&id, name + strlen(name));
	fd = openat(dir, name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd >= 0)
		unlinkat(dir, name, 0);
	return fd;
}

static int
spill(struct http_request *r)
{
	struct http_request_body *b = &r->body;

	b->fd = open_spool(r->server->config.spool_fd);
	if (b->fd < 0)
		return -1;
	if (fd_write_all(b->fd, b->memory.data, b->memory.len) < 0)
		return -1;
	buf_free(&b->memory);
	count_memory(r);
	return 0;
}

int
http_body_put(struct http_request *r, const void *data, size_t len)
{
	const struct http_server *s = r->server;
	struct http_request_body *b = &r->body;
	struct err e;

	if (b->fd < 0 && !r->held &&
	    (b->len + len > s->config.body_memory_bytes ||
	     s->bodies_memory_bytes + len > HTTP_BODIES_MEMORY_MAX) &&
	    spill(r) < 0)
		goto fail;
	if (b->fd >= 0 ? fd_write_all(b->fd, data, len) : buf_put(&b->memory, data, len))
		goto fail;
	count_memory(r);
	b->len += len;
	return 0;
fail:
	err_sys(&e, ERR_NODE, "cannot keep a request's body");
	log_err("request refused", &e);
	return -1;
}

void
http_body_drop(struct http_request *r)
{
	struct http_request_body *b = &r->body;

	if (b->map)
		munmap(b->map, b->map_len);
	b->map = NULL;
	b->map_len = 0;
	fd_close(&b->fd);
	buf_free(&b->memory);
	count_memory(r);
	b->len = 0;
}

void
http_body_discard(struct http_request *r)
{
	r->discarding = true;
	http_body_drop(r);
	loop_timer_after(r->conn->deadline, r->server->config.discard_seconds * NS_PER_S);
}

const void *
http_body(struct http_request *r, size_t *len)
{
	struct http_request_body *b = &r->body;

	*len = b->len;
	if (!b->len)
		return "";
	if (b->fd < 0)
		return b->memory.data;
	if (!b->map) {
		void *map = mmap(NULL, b->len, PROT_READ, MAP_PRIVATE, b->fd, 0);
		struct err e;

		if (map == MAP_FAILED) {
			err_sys(&e, ERR_NODE, "cannot map a request's body");
			log_err("request refused", &e);
			*len = 0;
			return NULL;
		}
		b->map = map;
		b->map_len = b->len;
	}
	return b->map;
}

int
http_body_fd(struct http_request *r)
{
	return r->body.fd;
}

int
http_body_take(struct http_request *r, void **data, size_t *len, int *fd, struct err *e)
{
	struct http_request_body *b = &r->body;

	*data = NULL;
	*fd = -1;
	*len = b->len;
	if (b->fd >= 0) {
		*fd = fd_steal(&b->fd);
		if (lseek(*fd, 0, SEEK_SET) < 0) {
			fd_close(fd);
			return err_sys(e, ERR_NODE, "cannot read a request's body");
		}
	} else {
		*data = b->memory.data ? buf_steal(&b->memory) : calloc(1, 1);
		if (!*data)
			return err_set(e, ERR_NODE, "out of memory for a request's body");
	}
	http_body_drop(r);
	return 0;
}
