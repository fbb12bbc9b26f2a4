/*
 * What is said between the node and the runtime inside a sandbox (the python3 bootstrap,
 * its build program, a user's own): pratai-runtime(7).
 *
 * The runtime starts with 0 = /dev/null, 1 and 2 = pipes that become the event's log, and
 * 3 = a stream socket, the channel.  A message on the channel is one line of JSON (at most
 * 64 KiB with its newline), then exactly as many raw bytes as its member "bytes" says
 * (absent: 0).  Unknown members are passed over; "v" is 1.
 *
 * node → runtime, once:
 *   {"v":1,"type":"event","event_id":…,"function_id":…,"request_id":…,"source":…,
 *    "attempt":1,"timeout_ms":60000,"payload":"none|json|text|bytes","bytes":N}  payload
 *   {"v":1,"type":"build","network":false,"requirements_timeout_s":N}
 *   {"v":1,"type":"dependencies","requirements_timeout_s":N,"bytes":N}  what is needed
 *
 * runtime → node, event:
 *   {"v":1,"type":"imported","start_us":N,"import_us":N}          once, before it reads
 *   {"v":1,"type":"result","ok":true,"run_us":N,"content_type":…,"status":200,
 *    "fields":{"Name":"value"},"bytes":N}  answer     (status, fields: only if chosen)
 *   {"v":1,"type":"result","ok":false,"run_us":N,"import_us":N,
 *    "error":{"type":…,"message":…,"traceback":…}}
 * The import happens before the event is read.  A failed import is a result with ok false,
 * sent without reading the event.  What follows a result is ignored.
 *
 * runtime → node, build (see runtimes/python3/build.py):
 *   {"v":1,"type":"result","ok":false,"error":{…}}               the version has failed
 *   {"v":1,"type":"result","ok":true}        the package is used as it is, if it then exits 0
 *   {"v":1,"type":"network"}                 the build begins again, with network
 *   {"v":1,"type":"dependencies","bytes":N}  what is needed: packages of others that depend on
 *   this text alone and make a layer of their own; another answer follows
 *   {"v":1,"type":"layer","ok":true}  then a tar (ustar or pax), until the end of the stream;
 *   it counts only if the build then exits 0.  Its entries are below function/ and opt/deps/.
 */
#ifndef PRATAI_NODE_RUNTIME_H
#define PRATAI_NODE_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/model/event.h"

struct buf;
struct err;

enum { RUNTIME_LINE_MAX = 64 << 10, RUNTIME_TRACEBACK_MAX = 32 << 10,
       RUNTIME_NEEDS_MAX = 4 << 20 };

/* The line that precedes the payload, with its newline. */
int runtime_event_line(const struct event *ev, uint64_t timeout_ms, struct buf *out);

enum runtime_message {
	RUNTIME_IMPORTED,
	RUNTIME_RESULT,
	RUNTIME_LAYER,
	RUNTIME_NETWORK,
	RUNTIME_DEPENDENCIES,
};

struct runtime_reply {
	enum runtime_message type;
	bool ok;
	uint64_t start_us, import_us, run_us;
	uint64_t bytes; /* that follow */
};

/* Reads one line (without its newline) of the runtime's, a user's process: everything is
 * checked.  A result's outcome goes into ev: response fields, error. */
int runtime_reply_parse(const char *line, size_t len, struct runtime_reply *out, struct event *ev,
			struct err *e);

#endif
