/*
 * The node between the control plane and its driver: takes jobs, runs each once, keeps
 * results until they are settled.
 */
#ifndef PRATAI_NODE_NODE_H
#define PRATAI_NODE_NODE_H

#include <stdint.h>

#include "core/base/id.h"

struct driver;
struct err;
struct http_client;
struct loop;
struct mq;
struct node;
struct runtimes;

struct node_setup {
	struct loop *loop;
	struct mq *mq;
	struct http_client *http;
	struct driver *driver;
	const struct runtimes *runtimes;
	int spool_fd; /* a directory for results that wait */
	const char *join, *token, *name;
	unsigned slots;
	uint64_t memory_mib;
	int ready_fd; /* one byte goes there at the first registration; then it is closed; -1: none */
};

/* Everything in setup stays the caller's and outlives the node, but ready_fd. */
struct node *node_new(const struct node_setup *setup, struct err *e);
void node_free(struct node *n);

#endif
