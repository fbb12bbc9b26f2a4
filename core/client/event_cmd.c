/*
 * event-list, event-show, event-logs.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/str.h"
#include "core/client/client.h"

enum { EVENTS_MAX = 100000 };

static int
add_filters(struct client *c, struct buf *path, struct err *e)
{
	static const struct {
		const char *option, *field;
	} filters[] = {
		{ "function", "function" }, { "state", "state" }, { "source", "source" },
		{ "since", "since" }, { "query", "q" },
	};
	const char *since = opt_get(&c->v, "since");
	int64_t us;
	char separator = '?';

	if (since && clock_parse(since, &us))
		return err_set(e, ERR_INPUT,
			       "--since: '%.60s' is not a time like 2026-01-02T03:04:05Z or 2026-01-02",
			       since);
	for (size_t i = 0; i < sizeof filters / sizeof *filters; i++) {
		if (!opt_given(&c->v, filters[i].option))
			continue;
		buf_printf(path, "%c%s=", separator, filters[i].field);
		api_encode(path, opt_get(&c->v, filters[i].option));
		separator = '&';
	}
	return path->failed ? err_set(e, ERR_NODE, "no memory") : 0;
}

int
cmd_event_list(struct client *c)
{
	static const char *const columns[] = { "event_id", "function_name", "source", "state",
					       "reason", "attempts", "created_at", "usage.wall_us",
					       NULL };
	const char *text = opt_get(&c->v, "limit");
	struct buf path = { 0 };
	struct err e = { 0 };
	int64_t limit;
	int rc;

	if (str_int(text, 1, EVENTS_MAX, &limit))
		return client_usage("--limit: '%.40s' is not a number from 1 to %d", text, EVENTS_MAX);
	buf_puts(&path, "/v1/events");
	if (add_filters(c, &path, &e))
		rc = client_fail(&e);
	else
		rc = client_list(c, path.data, (size_t)limit, columns, "event_id");
	buf_free(&path);
	return rc;
}

int
cmd_event_show(struct client *c)
{
	struct buf path = { 0 };
	struct err e = { 0 };
	int rc;

	if (client_path(&path, "/v1/events/", c->v.operands[0], "", &e))
		rc = client_fail(&e);
	else
		rc = client_show(c, path.data, "event_id");
	buf_free(&path);
	return rc;
}

/* ---- logs ---- */

static void
print_line(const char *prefix, struct span record)
{
	char *time = span_text(span_member(record, "t"));
	char *stream = span_text(span_member(record, "s"));
	char *text = span_text(span_member(record, "l"));

	if (time && stream && text) {
		printf("%s%s %s ", prefix, time, stream);
		render_text(text, strlen(text));
		putchar('\n');
	}
	free(time);
	free(stream);
	free(text);
}

int
logs_print(const struct api_answer *a, const char *prefix, struct err *e)
{
	struct span answer, items, record;
	size_t at = 0;

	if (api_json(a, &answer, e))
		return -1;
	items = span_member(answer, "items");
	while (span_next(items, &at, NULL, &record))
		print_line(prefix, record);
	return 0;
}

int
logs_collect(const struct api_answer *a, struct span event_id, struct buf *out, struct err *e)
{
	struct span answer, record;
	size_t at = 0;

	if (api_json(a, &answer, e))
		return -1;
	while (span_next(span_member(answer, "items"), &at, NULL, &record)) {
		if (!span_is(span_member(record, "l"), '"'))
			continue;
		buf_printf(out, "%c{\"event_id\":", out->len ? ',' : '[');
		buf_put(out, event_id.p, event_id.n);
		buf_puts(out, ",");
		buf_put(out, record.p + 1, record.n - 1);
	}
	return out->failed ? err_set(e, ERR_NODE, "no memory for the log") : 0;
}

int
logs_list(const struct client *c, struct span items, const char *const *columns, struct err *e)
{
	struct span *rows = NULL;
	size_t at = 0, count = 0, room = 0;
	int rc = 0;

	for (struct span row; rc == 0 && span_next(items, &at, NULL, &row);) {
		if (count == room) {
			struct span *more;

			room = room ? room * 2 : 256;
			more = reallocarray(rows, room, sizeof *rows);
			if (!more) {
				rc = err_set(e, ERR_NODE, "no memory for the log");
				break;
			}
			rows = more;
		}
		rows[count++] = row;
	}
	if (rc == 0)
		rc = render_list(&c->out, rows, count, columns, columns[0], e);
	free(rows);
	return rc;
}

bool
logs_as_records(const struct client *c)
{
	return c->out.format != RENDER_TABLE || c->out.column_count || c->out.only_id;
}

static int
show_logs(const struct client *c, const struct api_answer *a, struct err *e)
{
	static const char *const columns[] = { "t", "s", "l", NULL };
	struct span answer;

	if (!logs_as_records(c))
		return logs_print(a, "", e);
	return api_json(a, &answer, e) || logs_list(c, span_member(answer, "items"), columns, e);
}

int
cmd_event_logs(struct client *c)
{
	struct api_answer a = { 0 };
	struct buf path = { 0 };
	struct err e = { 0 };
	int rc = CLIENT_OK;

	if (client_path(&path, "/v1/events/", c->v.operands[0], "/logs", &e) ||
	    api_expect(c->api, &(struct api_request){ .method = "GET", .path = path.data }, &a, &e) ||
	    show_logs(c, &a, &e))
		rc = client_fail(&e);
	api_answer_clear(&a);
	buf_free(&path);
	return rc;
}
