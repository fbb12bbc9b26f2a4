/*
 * Results that the collector has not acknowledged: each is kept, and sent again, until it
 * is settled.  Up to SPOOL_MEMORY_MAX bytes of responses and logs stay in memory, later
 * ones lie in files; a file of an earlier process is of no use (its leases ended with its
 * incarnation) and is removed at start.
 */
#ifndef PRATAI_NODE_SPOOL_H
#define PRATAI_NODE_SPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/model/message.h"

struct err;
struct loop;
struct spool;

enum {
	SPOOL_MEMORY_MAX = 64 << 20,
	SPOOL_ENTRIES_MAX = MESSAGE_LEASES_MAX / 2, /* a heartbeat lists them and what runs */
};
#define SPOOL_BYTES_MAX (1ull << 30) /* then no more jobs are asked for */

/* Sends one result; -1: not now.  m is of the session in force, set by the callee. */
typedef int (*spool_send_fn)(void *arg, struct message *m, const void *response,
			     size_t response_len, const void *logs, size_t logs_len);

/* dir_fd: where files go; the caller's. */
struct spool *spool_new(struct loop *l, int dir_fd, spool_send_fn send, void *arg, struct err *e);
void spool_free(struct spool *s);

/* Takes m's content over (m is zeroed), copies the rest, and sends it for the first time.
 * -1: out of memory; m is cleared. */
int spool_add(struct spool *s, struct message *m, const void *response, size_t response_len,
	      const void *logs, size_t logs_len, struct err *e);

/* Settled: forgotten.  False: it is not here. */
bool spool_remove(struct spool *s, const struct lease *lease);
bool spool_has(const struct spool *s, const struct lease *lease);
/* All are sent again now, a few a turn (a new session, or the scheduler asks for one again). */
void spool_resend(struct spool *s);

size_t spool_count(const struct spool *s);
bool spool_is_full(const struct spool *s);
/* The leases and their events (zero: a build), to [0..spool_count()) of each. */
void spool_leases(const struct spool *s, struct lease *leases, struct id *events);

#endif
