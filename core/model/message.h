/*
 * Messages between the parts: a small JSON envelope frame (version first) and raw frames.
 *
 *   EVENT      API, agent → scheduler   hint: an event was accepted; frame 1: payload, if
 *                                       it is small or not stored yet
 *   BUILD      API → scheduler          hint: a version is to be built
 *   JOB        scheduler → node         run this event (frame 1: payload) or build
 *   SETTLED    scheduler → node         this lease's result is recorded (or void): forget it
 *   CANCEL     scheduler → node         end this lease's job
 *              API → scheduler          end this event (member event): nobody waits for it
 *   HEARTBEAT  node → scheduler         each second, and when capacity changes
 *   STARTED    node → scheduler         this job was accepted and its sandbox ordered
 *   PRINTED    node → scheduler         what this build has printed so far, its end
 *   RESULT     node → collector         outcome; frame 1: response (event) or layer digest's
 *                                       nothing (build), frame 2: logs (JSON lines)
 *   WATCH      API → scheduler          reply_to wants to hear when the event ends
 *   ANSWER     collector → API          outcome of an event that somebody waits for; frame 1: response
 *
 * A message is a hint: only an acknowledged record counts.  Whatever does not decode is
 * counted, logged and dropped by its receiver.  Times and credit are absolute or
 * cumulative, never increments.
 */
#ifndef PRATAI_MESSAGE_H
#define PRATAI_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/model/event.h"
#include "core/model/function.h"

enum { MESSAGE_VERSION = 1, MESSAGE_ENVELOPE_MAX = 1 << 20, MESSAGE_LEASES_MAX = 4096 };

enum message_type {
	MSG_EVENT,
	MSG_BUILD,
	MSG_JOB,
	MSG_SETTLED,
	MSG_CANCEL,
	MSG_WATCH,
	MSG_HEARTBEAT,
	MSG_STARTED,
	MSG_PRINTED,
	MSG_RESULT,
	MSG_ANSWER,
	MSG_TYPE_COUNT
};

enum job_kind { JOB_EVENT, JOB_BUILD };

/* One struct for all; each type uses the members that its comment names. */
struct message {
	enum message_type type;

	/* JOB, SETTLED, CANCEL, STARTED, PRINTED, RESULT */
	struct lease lease;
	enum job_kind kind;
	uint64_t accept_by_ms; /* JOB: ms from its sending; not STARTED by then: sent elsewhere */
	struct id session;     /* HEARTBEAT, STARTED, PRINTED, RESULT, JOB: the node's session */

	/*
	 * EVENT, JOB (kind event), RESULT, ANSWER: id, function, version, state, reason, and what
	 * the type needs of the rest.  RESULT: reason REASON_NONE is success; usage, timeline,
	 * error, response fields.  Owned.
	 */
	struct event event;
	bool has_payload;      /* EVENT: frame 1 is the payload (an empty payload has none) */
	char reply_to[48];     /* EVENT, WATCH, ANSWER: "<api id>.<boot id>" that waits, or "" */

	/* JOB, BUILD, RESULT of a build: the version.  Owned. */
	struct function_version version;
	char *build_log;       /* PRINTED, RESULT of a build: the output's end, owned, or NULL */
	uint64_t build_layer_bytes;

	/* HEARTBEAT */
	struct id incarnation; /* drawn when the node process started */
	uint64_t granted;      /* cumulative: jobs that the session may have been sent in all */
	uint64_t received;     /* cumulative: jobs received in this session */
	uint64_t memory_free_mib;
	struct lease *leases;  /* held: running, or result not yet settled; owned */
	struct id *lease_events; /* parallel to leases: their events (zero: a build); owned */
	size_t lease_count;
};

void message_clear(struct message *m);

/* The envelope, malloc'd, NUL-terminated; NULL: out of memory. */
char *message_encode(const struct message *m);

/* -1: ERR_INPUT names what is wrong.  *m is cleared then. */
int message_decode(const void *data, size_t len, struct message *m, struct err *e);

#endif
