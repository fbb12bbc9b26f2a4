/*
 * An event's columns: one table from which the statements are made and by which events are
 * bound and read, so that a member cannot be written and not read.
 *
 * Each column says what the three updates do with it:
 *   '='  takes the given value
 *   '?'  takes it unless it is zero or empty: who reports may know only a part
 *   '>'  keeps the larger one (counters of attempts never fall)
 *   '+'  adds (logs of several attempts), '|' ors
 *   '-'  leaves it alone
 * Each update is one compare-and-set: not ended, and no newer lease.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "store/sqlite_impl.h"

#include "core/base/buf.h"
#include "core/base/str.h"

enum column_type { COL_INT, COL_ID, COL_TEXT, COL_OWNED };

struct column {
	const char *name;
	size_t at;
	unsigned short size;
	unsigned char type;
	char rules[4]; /* running, requeue, settle */
};

#define MEMBER_SIZE(member) ((unsigned short)sizeof(((struct event *)NULL)->member))
#define COLUMN(name, member, type, rules)                                                          \
	{name, offsetof(struct event, member), MEMBER_SIZE(member), type, rules}
#define INT(name, member, rules) COLUMN(name, member, COL_INT, rules)

static const struct column columns[] = {
	COLUMN("id", id, COL_ID, "---"),
	COLUMN("function_id", function_id, COL_ID, "---"),
	COLUMN("project_id", project_id, COL_TEXT, "---"),
	INT("state", state, "==="),
	INT("source", source, "---"),
	INT("created_us", created_us, "---"),
	INT("lease_term", lease.term, "==="),
	INT("lease_seq", lease.seq, "==="),
	INT("type", type, "---"),
	INT("reason", reason, "-=="),
	INT("start", start, "=-?"),
	INT("function_version", function_version, "???"),
	INT("attempts", attempts, ">>>"),
	INT("failures", failures, ">>>"),
	INT("queued_us", queued_us, "???"),
	INT("started_us", started_us, "?-?"),
	INT("finished_us", finished_us, "--="),
	INT("not_before_us", not_before_us, "==-"),
	INT("accept_us", timeline_us[PHASE_ACCEPT], "???"),
	INT("persist_us", timeline_us[PHASE_PERSIST], "???"),
	INT("queue_us", timeline_us[PHASE_QUEUE], "???"),
	INT("sandbox_us", timeline_us[PHASE_SANDBOX], "???"),
	INT("import_us", timeline_us[PHASE_IMPORT], "???"),
	INT("run_us", timeline_us[PHASE_RUN], "???"),
	INT("collect_us", timeline_us[PHASE_COLLECT], "???"),
	INT("payload_kind", payload_kind, "---"),
	INT("payload_bytes", payload_bytes, "---"),
	INT("wall_us", wall_us, "-??"),
	INT("cpu_us", cpu_us, "-??"),
	INT("memory_peak_bytes", memory_peak_bytes, "-??"),
	INT("logs_bytes", logs_bytes, "-++"),
	INT("logs_truncated", logs_truncated, "-||"),
	INT("has_response", has_response, "--="),
	INT("response_bytes", response_bytes, "--="),
	INT("response_status", response_status, "--="),
	COLUMN("parent", parent, COL_ID, "---"),
	COLUMN("root", root, COL_ID, "---"),
	COLUMN("function_name", function_name, COL_TEXT, "---"),
	COLUMN("node_id", node_id, COL_TEXT, "???"),
	COLUMN("response_content_type", response_content_type, COL_TEXT, "--="),
	COLUMN("error_type", error_type, COL_TEXT, "-=="),
	COLUMN("response_fields", response_fields, COL_OWNED, "--="),
	COLUMN("error_message", error_message, COL_OWNED, "-=="),
	COLUMN("error_traceback", error_traceback, COL_OWNED, "-=="),
};
enum { COLUMN_COUNT = sizeof(columns) / sizeof(columns[0]) };

static int
rule_index(enum statement which)
{
	return which == ST_EVENT_RUNNING ? 0 : which == ST_EVENT_REQUEUE ? 1 : 2;
}

static bool
is_key(const struct column *c)
{
	return !strcmp(c->name, "id") || !strncmp(c->name, "lease_", 6);
}

/* ---- Text ---- */

char *
columns_insert(void)
{
	struct buf sql = {0};

	buf_puts(&sql, "INSERT INTO events(");
	for (int i = 0; i < COLUMN_COUNT; i++)
		buf_printf(&sql, "%s%s", i ? ", " : "", columns[i].name);
	buf_puts(&sql, ") VALUES(");
	for (int i = 0; i < COLUMN_COUNT; i++)
		buf_printf(&sql, "%s?%d", i ? ", " : "", i + 1);
	buf_puts(&sql, ") ON CONFLICT(id) DO NOTHING");
	return buf_steal(&sql);
}

char *
columns_select(bool texts)
{
	struct buf sql = {0};

	buf_puts(&sql, "SELECT ");
	for (int i = 0; i < COLUMN_COUNT; i++)
		buf_printf(&sql, "%s, ",
			   columns[i].type == COL_OWNED && !texts ? "NULL" : columns[i].name);
	buf_puts(&sql, "n FROM events ");
	return buf_steal(&sql);
}

static void
put_assignment(struct buf *sql, const struct column *c, int param, char rule)
{
	const char *name = c->name;

	buf_printf(sql, "%s%s = ", sql->data[sql->len - 1] == ' ' ? "" : ", ", name);
	if (rule == '?')
		buf_printf(sql, "ifnull(nullif(?%d, %s), %s)", param,
			   c->type == COL_TEXT ? "''" : "0", name);
	else if (rule == '>')
		buf_printf(sql, "max(%s, ?%d)", name, param);
	else if (rule == '+' || rule == '|')
		buf_printf(sql, "%s %c ?%d", name, rule, param);
	else
		buf_printf(sql, "?%d", param);
}

char *
columns_update(enum statement which)
{
	struct buf sql = {0};
	int id = 0, term = 0, seq = 0;

	buf_puts(&sql, "UPDATE events SET ");
	for (int i = 0; i < COLUMN_COUNT && !sql.failed; i++) {
		const struct column *c = &columns[i];
		char rule = c->rules[rule_index(which)];

		if (rule != '-')
			put_assignment(&sql, c, i + 1, rule);
		id = c->at == offsetof(struct event, id) ? i + 1 : id;
		term = c->at == offsetof(struct event, lease.term) ? i + 1 : term;
		seq = c->at == offsetof(struct event, lease.seq) ? i + 1 : seq;
	}
	buf_printf(&sql, " WHERE id = ?%d AND state < 2", id);
	buf_printf(&sql, " AND (lease_term, lease_seq) <= (?%d, ?%d)", term, seq);
	return buf_steal(&sql);
}

/* ---- Values ---- */

/* Signed and unsigned members alike: none of ours is negative or above 2^63. */
static int64_t
int_of(const struct column *c, const void *member)
{
	int64_t i64;
	uint32_t u32;
	uint8_t u8;

	switch (c->size) {
	case 8:
		memcpy(&i64, member, 8);
		return i64;
	case 4:
		memcpy(&u32, member, 4);
		return u32;
	default:
		memcpy(&u8, member, 1);
		return u8;
	}
}

static void
set_int(const struct column *c, void *member, int64_t i64)
{
	uint32_t u32 = (uint32_t)i64;
	uint8_t u8 = i64 != 0; /* the single bytes are bools */

	memcpy(member, c->size == 8 ? (void *)&i64 : c->size == 4 ? (void *)&u32 : (void *)&u8,
	       c->size);
}

static int
bind_column(sqlite3_stmt *st, int param, const struct column *c, const struct event *ev)
{
	const char *member = (const char *)ev + c->at;
	const char *text;

	switch (c->type) {
	case COL_INT:
		return sqlite3_bind_int64(st, param, int_of(c, member));
	case COL_ID:
		if (id_is_zero((const struct id *)(const void *)member))
			return SQLITE_OK; /* NULL */
		return sqlite3_bind_blob(st, param, member, c->size, SQLITE_STATIC);
	case COL_TEXT:
		return sqlite3_bind_text(st, param, member, (int)strnlen(member, c->size - 1u),
					 SQLITE_STATIC);
	default:
		memcpy(&text, member, sizeof(text));
		return sqlite3_bind_text(st, param, text, -1, SQLITE_STATIC);
	}
}

int
columns_bind(sqlite3_stmt *st, enum statement which, const struct event *ev)
{
	int rc = SQLITE_OK;

	for (int i = 0; i < COLUMN_COUNT && rc == SQLITE_OK; i++) {
		const struct column *c = &columns[i];

		if (which == ST_EVENT_CREATE || c->rules[rule_index(which)] != '-' || is_key(c))
			rc = bind_column(st, i + 1, c, ev);
	}
	return rc;
}

static int
read_owned(sqlite3_stmt *st, int i, void *member, size_t *size)
{
	const char *text = (const char *)sqlite3_column_text(st, i);
	char *copy = text ? strdup(text) : NULL;

	if (!copy)
		return sqlite3_column_type(st, i) == SQLITE_NULL ? SQLITE_OK : SQLITE_NOMEM;
	memcpy(member, &copy, sizeof(copy));
	*size += (size_t)sqlite3_column_bytes(st, i);
	return SQLITE_OK;
}

int
columns_read(sqlite3_stmt *st, struct event *ev, int64_t *n, size_t *size)
{
	int rc = SQLITE_OK;

	memset(ev, 0, sizeof(*ev));
	for (int i = 0; i < COLUMN_COUNT && rc == SQLITE_OK; i++) {
		const struct column *c = &columns[i];
		char *member = (char *)ev + c->at;
		const char *text;

		if (c->type == COL_INT) {
			set_int(c, member, sqlite3_column_int64(st, i));
		} else if (c->type == COL_ID) {
			if (sqlite3_column_bytes(st, i) == c->size)
				memcpy(member, sqlite3_column_blob(st, i), c->size);
		} else if (c->type == COL_TEXT) {
			text = (const char *)sqlite3_column_text(st, i);
			if (text && str_copy(member, c->size, text))
				rc = SQLITE_CORRUPT; /* longer than we ever wrote */
		} else {
			rc = read_owned(st, i, member, size);
		}
	}
	*n = sqlite3_column_int64(st, COLUMN_COUNT);
	*size += sizeof(*ev);
	if (rc != SQLITE_OK)
		event_clear(ev);
	return rc;
}
