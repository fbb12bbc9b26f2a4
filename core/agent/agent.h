/*
 * The agent: events that nobody sends over HTTP.  Now: timers.
 *
 * A tick's event has a computed id, (function, tick time), and is created only if it is
 * not there: however many agents run, and whenever they are killed, it happens once.
 */
#ifndef PRATAI_AGENT_H
#define PRATAI_AGENT_H

struct agent;
struct err;
struct id;
struct loop;
struct mq;
struct store;

struct agent_config {
	struct loop *loop;
	struct mq *mq;
	struct store *store;
	const char *events; /* endpoint of the scheduler's PULL */
};

struct agent *agent_new(const struct agent_config *c, struct err *e);
void agent_free(struct agent *a); /* NULL is fine */

/* The function's document changed: its timer is read again. */
void agent_function_changed(struct agent *a, const struct id *function);

#endif
