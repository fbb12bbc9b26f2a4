/*
 * An event: one call of one function, from its acceptance to its end state.
 *
 * queued ──► running ──► succeeded | dead | failed | timeout | memory_exceeded
 *   ▲  └────────┬──────► cancelled
 *   └── retry ──┘
 *
 * async events end as succeeded, cancelled or dead; wait_for_response events as
 * succeeded, cancelled, failed, timeout or memory_exceeded.  An end state is final.
 */
#ifndef PRATAI_EVENT_H
#define PRATAI_EVENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/id.h"

struct json;

enum event_state {
	EVENT_QUEUED, /* also while it waits for a retry */
	EVENT_RUNNING,
	EVENT_SUCCEEDED,
	EVENT_CANCELLED,
	EVENT_DEAD,
	EVENT_FAILED,
	EVENT_TIMEOUT,
	EVENT_MEMORY_EXCEEDED,
	EVENT_STATE_COUNT
};

enum event_reason {
	REASON_NONE, /* null in the record: it succeeded, or has not ended */
	REASON_FUNCTION_FAILED,
	REASON_TIMEOUT,
	REASON_MEMORY_EXCEEDED,
	REASON_OUTPUT_EXCEEDED,
	REASON_NODE_LOST,
	REASON_EXPIRED,
	REASON_CHAIN_TOO_DEEP,
	REASON_CANCELLED,
	REASON_BUILD_FAILED, /* the version that it waited for cannot be built */
	REASON_COUNT
};

enum event_source {
	SOURCE_WEBHOOK,
	SOURCE_MESSAGE,
	SOURCE_TIMER,
	SOURCE_DATABASE,
	SOURCE_CHAIN,
	SOURCE_REPLAY,
	SOURCE_COUNT
};

enum event_type { TYPE_ASYNC, TYPE_WAIT, TYPE_COUNT };

/* How the function gets the payload. */
enum payload_kind { PAYLOAD_NONE, PAYLOAD_JSON, PAYLOAD_TEXT, PAYLOAD_BYTES, PAYLOAD_KIND_COUNT };

/* How the sandbox was started. */
enum event_start { START_COLD, START_ZYGOTE, START_SPARE, START_PRELOAD, START_COUNT };

/* timeline_us: how long each part took, in microseconds */
enum event_phase {
	PHASE_ACCEPT,  /* headers to body complete and checked */
	PHASE_PERSIST, /* until the record was durable (async) */
	PHASE_QUEUE,   /* until a node had it */
	PHASE_SANDBOX, /* until the runtime's first instruction */
	PHASE_IMPORT,  /* the runtime's start and the function's import */
	PHASE_RUN,     /* main() */
	PHASE_COLLECT, /* from the end of the run until the outcome was known */
	PHASE_COUNT
};

/* The right to run and settle an event: only its current holder's result counts. */
struct lease {
	uint64_t term; /* rises at every start of the scheduler */
	uint64_t seq;  /* rises with every job of a term */
};

enum {
	EVENT_PROJECT_MAX = 65,
	EVENT_NAME_MAX = 64,
	EVENT_NODE_MAX = 65,
	EVENT_CONTENT_TYPE_MAX = 128,
	EVENT_FIELDS_MAX = 64, /* header fields of a function's own answer */
	EVENT_RESPONSE_MAX = 6 << 20, /* bytes of an answer */
	EVENT_ERROR_TYPE_MAX = 64,
};

struct event {
	struct id id;
	struct id function_id;
	struct id parent, root; /* zero: none */
	char project_id[EVENT_PROJECT_MAX];
	char function_name[EVENT_NAME_MAX];
	uint32_t function_version; /* 0: the first that gets ready */
	enum event_source source;
	enum event_type type;
	enum event_state state;
	enum event_reason reason;
	enum event_start start;
	uint32_t attempts;  /* started so far, from 1 once it ran */
	uint32_t failures;  /* attempts that count against `retries` */
	struct lease lease; /* of the current or last attempt */
	char node_id[EVENT_NODE_MAX];
	int64_t created_us, queued_us, started_us, finished_us; /* real time; 0: not yet */
	int64_t not_before_us; /* a retry waits until then; 0: at once */
	uint32_t timeline_us[PHASE_COUNT];
	enum payload_kind payload_kind;
	uint64_t payload_bytes;

	/* The outcome of the last attempt. */
	uint64_t wall_us, cpu_us, memory_peak_bytes;
	uint64_t logs_bytes;
	bool logs_truncated;
	bool has_response;
	uint64_t response_bytes;
	int response_status; /* HTTP status that the function chose; 0: none */
	char response_content_type[EVENT_CONTENT_TYPE_MAX];
	char *response_fields;            /* JSON object of header fields, or NULL; owned */
	char error_type[EVENT_ERROR_TYPE_MAX]; /* "" if none */
	char *error_message, *error_traceback; /* owned, or NULL */
};

void event_clear(struct event *e); /* frees what it owns, zeroes it */
/* Before another attempt: reason, error, response, logs and usage as if it had never run. */
void event_forget_outcome(struct event *e);
/* Deep copy. -1: out of memory (to is cleared). */
int event_copy(struct event *to, const struct event *from);

bool event_state_ended(enum event_state s);
const char *event_state_name(enum event_state s);
const char *event_reason_name(enum event_reason r); /* NULL for REASON_NONE */
const char *event_source_name(enum event_source s);
const char *event_type_name(enum event_type t);
const char *event_start_name(enum event_start s);
const char *payload_kind_name(enum payload_kind k);
/* -1: no such word */
int event_state_parse(const char *word);
int event_reason_parse(const char *word);
int event_source_parse(const char *word);
int event_type_parse(const char *word);
int event_start_parse(const char *word);
int payload_kind_parse(const char *word);

/*
 * CONTRACT's record.  response: the answer's bytes (NULL: left out, as in lists); JSON goes
 * in as it is when content type says so and it is well-formed, text as a string, the rest
 * as {"base64": "…"}.  The caller frees.
 */
struct json *event_record(const struct event *e, const void *response, size_t len);

#endif
