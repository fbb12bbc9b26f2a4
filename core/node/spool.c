/*
 * Entries are in a list ordered by when they are due, so that one timer serves all: a
 * result is due again 1, 2, 4, then each 5 s after it was sent.
 */
#include "core/node/spool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/queue.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/log.h"
#include "netio/loop.h"

enum { SENDS_A_TURN = 64, FILE_NAME_MAX = 64, HASH_SIZE = 1024 };

static const uint64_t FIRST_PAUSE_NS = NS_PER_S, LAST_PAUSE_NS = 5 * NS_PER_S,
		      BUSY_PAUSE_NS = 50 * NS_PER_MS;

struct entry {
	struct message message;
	char *data; /* response, then logs; NULL: in its file */
	size_t response_len, logs_len;
	uint64_t due_ns, pause_ns;
	TAILQ_ENTRY(entry) link;
	LIST_ENTRY(entry) hash_link;
};

struct spool {
	struct loop *loop;
	int dir_fd;
	struct loop_timer *timer;
	spool_send_fn send;
	void *arg;
	size_t count;
	uint64_t bytes, memory_bytes;
	TAILQ_HEAD(entries, entry) entries;
	LIST_HEAD(, entry) hash[HASH_SIZE];
};

static unsigned
bucket(const struct lease *l)
{
	return (unsigned)((l->seq ^ l->term * 31) % HASH_SIZE);
}

static struct entry *
find(const struct spool *s, const struct lease *l)
{
	struct entry *x;

	LIST_FOREACH (x, &s->hash[bucket(l)], hash_link)
		if (x->message.lease.term == l->term && x->message.lease.seq == l->seq)
			return x;
	return NULL;
}

static void
file_name(const struct entry *x, char name[FILE_NAME_MAX])
{
	snprintf(name, FILE_NAME_MAX, "result.%llu.%llu", (unsigned long long)x->message.lease.term,
		 (unsigned long long)x->message.lease.seq);
}

static int
file_write(struct spool *s, const struct entry *x, const void *response, const void *logs)
{
	char name[FILE_NAME_MAX];
	CLEAN_FD int fd = -1;

	file_name(x, name);
	fd = openat(s->dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd >= 0 && fd_write_all(fd, response, x->response_len) == 0 &&
	    fd_write_all(fd, logs, x->logs_len) == 0)
		return 0;
	log_warning("cannot write a result to a file, it stays in memory", "reason",
		    strerror(errno), NULL);
	unlinkat(s->dir_fd, name, 0);
	return -1;
}

/* The bytes of an entry; unmap with munmap when *mapped. */
static const char *
entry_data(const struct spool *s, const struct entry *x, void **mapped)
{
	size_t len = x->response_len + x->logs_len;
	char name[FILE_NAME_MAX];
	CLEAN_FD int fd = -1;
	void *map;

	*mapped = NULL;
	if (x->data || !len)
		return x->data ? x->data : "";
	file_name(x, name);
	fd = openat(s->dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	map = fd < 0 ? MAP_FAILED : mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0);
	if (map == MAP_FAILED) {
		log_error("cannot read a result's file", "reason", strerror(errno), NULL);
		return NULL;
	}
	*mapped = map;
	return map;
}

static void
insert_due(struct spool *s, struct entry *x)
{
	struct entry *after = TAILQ_LAST(&s->entries, entries);

	while (after && after->due_ns > x->due_ns)
		after = TAILQ_PREV(after, entries, link);
	if (after)
		TAILQ_INSERT_AFTER(&s->entries, after, x, link);
	else
		TAILQ_INSERT_HEAD(&s->entries, x, link);
}

static void
send_one(struct spool *s, struct entry *x)
{
	void *mapped;
	const char *data = entry_data(s, x, &mapped);
	uint64_t pause = x->pause_ns;

	if (data && s->send(s->arg, &x->message, data, x->response_len, data + x->response_len,
			    x->logs_len))
		pause = BUSY_PAUSE_NS;
	else
		x->pause_ns = pause * 2 < LAST_PAUSE_NS ? pause * 2 : LAST_PAUSE_NS;
	if (mapped)
		munmap(mapped, x->response_len + x->logs_len);
	TAILQ_REMOVE(&s->entries, x, link);
	x->due_ns = clock_mono_ns() + pause;
	insert_due(s, x);
}

static void
rearm(struct spool *s)
{
	struct entry *first = TAILQ_FIRST(&s->entries);

	if (first)
		loop_timer_at(s->timer, first->due_ns);
	else
		loop_timer_clear(s->timer);
}

static void
on_timer(void *arg)
{
	struct spool *s = arg;
	struct entry *x;

	for (int i = 0; i < SENDS_A_TURN; i++) {
		x = TAILQ_FIRST(&s->entries);
		if (!x || x->due_ns > loop_now(s->loop))
			break;
		send_one(s, x);
	}
	rearm(s);
}

static int
sweep(int dir_fd, struct err *e)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!dir) {
		fd_close(&fd);
		return err_sys(e, ERR_NODE, "read the spool's directory");
	}
	while ((entry = readdir(dir)))
		if (!strncmp(entry->d_name, "result.", 7))
			unlinkat(dir_fd, entry->d_name, 0);
	closedir(dir);
	return 0;
}

struct spool *
spool_new(struct loop *l, int dir_fd, spool_send_fn send, void *arg, struct err *e)
{
	struct spool *s = calloc(1, sizeof *s);

	if (!s) {
		err_set(e, ERR_NODE, "spool: out of memory");
		return NULL;
	}
	TAILQ_INIT(&s->entries);
	s->loop = l;
	s->dir_fd = dir_fd;
	s->send = send;
	s->arg = arg;
	s->timer = loop_timer_add(l, on_timer, s, e);
	if (!s->timer || sweep(dir_fd, e)) {
		spool_free(s);
		return NULL;
	}
	return s;
}

static void
entry_free(struct spool *s, struct entry *x)
{
	size_t len = x->response_len + x->logs_len;
	char name[FILE_NAME_MAX];

	TAILQ_REMOVE(&s->entries, x, link);
	LIST_REMOVE(x, hash_link);
	s->count--;
	s->bytes -= len;
	if (x->data) {
		s->memory_bytes -= len;
	} else if (len) {
		file_name(x, name);
		unlinkat(s->dir_fd, name, 0);
	}
	message_clear(&x->message);
	free(x->data);
	free(x);
}

void
spool_free(struct spool *s)
{
	if (!s)
		return;
	while (!TAILQ_EMPTY(&s->entries))
		entry_free(s, TAILQ_FIRST(&s->entries));
	loop_timer_remove(s->timer);
	free(s);
}

static int
keep_data(struct spool *s, struct entry *x, const void *response, const void *logs)
{
	size_t len = x->response_len + x->logs_len;

	if (!len || (s->memory_bytes + len > SPOOL_MEMORY_MAX && !file_write(s, x, response, logs)))
		return 0;
	x->data = malloc(len);
	if (!x->data)
		return -1;
	if (x->response_len)
		memcpy(x->data, response, x->response_len);
	if (x->logs_len)
		memcpy(x->data + x->response_len, logs, x->logs_len);
	s->memory_bytes += len;
	return 0;
}

int
spool_add(struct spool *s, struct message *m, const void *response, size_t response_len,
	  const void *logs, size_t logs_len, struct err *e)
{
	struct entry *x = calloc(1, sizeof *x);

	if (!x) {
		message_clear(m);
		return err_set(e, ERR_NODE, "spool: out of memory");
	}
	x->message = *m;
	memset(m, 0, sizeof *m);
	x->response_len = response_len;
	x->logs_len = logs_len;
	x->pause_ns = FIRST_PAUSE_NS;
	if (keep_data(s, x, response, logs)) {
		message_clear(&x->message);
		free(x);
		return err_set(e, ERR_NODE, "spool: out of memory");
	}
	s->count++;
	s->bytes += response_len + logs_len;
	LIST_INSERT_HEAD(&s->hash[bucket(&x->message.lease)], x, hash_link);
	insert_due(s, x);
	send_one(s, x);
	rearm(s);
	return 0;
}

bool
spool_remove(struct spool *s, const struct lease *lease)
{
	struct entry *x = find(s, lease);

	if (!x)
		return false;
	entry_free(s, x);
	rearm(s);
	return true;
}

bool
spool_has(const struct spool *s, const struct lease *lease)
{
	return find(s, lease) != NULL;
}

void
spool_resend(struct spool *s)
{
	struct entry *x;

	TAILQ_FOREACH (x, &s->entries, link) {
		x->due_ns = 0;
		x->pause_ns = FIRST_PAUSE_NS;
	}
	rearm(s);
}

size_t
spool_count(const struct spool *s)
{
	return s->count;
}

bool
spool_is_full(const struct spool *s)
{
	return s->count >= SPOOL_ENTRIES_MAX || s->bytes >= SPOOL_BYTES_MAX;
}

void
spool_leases(const struct spool *s, struct lease *leases, struct id *events)
{
	struct entry *x;

	TAILQ_FOREACH (x, &s->entries, link) {
		*leases++ = x->message.lease;
		*events++ = x->message.event.id;
	}
}
