/*
 * The scheduler and collector: takes hints of accepted events, sends jobs to nodes,
 * takes their results, records outcomes, and tells the API process that asked.  The rules
 * are core/model/sched.h and retry.h; here are the sockets and the store.
 *
 * A scheduler start raises the term in the store, then reads what has not ended.
 */
#ifndef PRATAI_SCHEDULER_H
#define PRATAI_SCHEDULER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/model/function.h"

struct err;
struct id;
struct json;
struct loop;
struct mq;
struct scheduler;
struct store;

struct scheduler_config {
	struct loop *loop;
	struct mq *mq;
	struct store *store;
	const char *events;   /* endpoint to bind: hints of accepted events (PULL) */
	const char *dispatch; /* endpoint to bind: nodes' DEALERs (ROUTER) */
	const char *collect;  /* endpoint to bind: nodes' results (PULL) */
	uint32_t build_memory_mib;
	/* What API processes of this process want to know; NULL where there is none. */
	void (*function_changed)(void *arg, const struct id *function);
	void *arg;
};

struct scheduler *scheduler_new(const struct scheduler_config *c, struct err *e);
void scheduler_free(struct scheduler *s);

/* True once the term is taken and all that has not ended is in the queue. */
bool scheduler_ready(const struct scheduler *s);
/* Nodes that were heard of lately and may be sent jobs. */
unsigned scheduler_nodes_alive(const struct scheduler *s);
size_t scheduler_queued(const struct scheduler *s, const struct id *function);
/* The function and its versions were deleted from the store: its events that wait end as
 * cancelled; what runs goes on. */
void scheduler_function_gone(struct scheduler *s, const struct id *function);

/*
 * A node's registration (its JSON body, checked here).  On success the answer's JSON object,
 * the caller's to free: node_id, session, endpoints, heartbeat_ms, lease_ms.
 */
struct json *scheduler_register(struct scheduler *s, const struct json *body, struct err *e);

/* An array of nodes, and of the runtimes that they offer; and the term. */
struct json *scheduler_node_list(const struct scheduler *s);
struct json *scheduler_runtime_list(const struct scheduler *s);
bool scheduler_has_runtime(const struct scheduler *s, const char *name);
uint64_t scheduler_term(const struct scheduler *s);

#endif
