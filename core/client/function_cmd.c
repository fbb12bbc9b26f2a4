/*
 * function-create, -list, -show, -update, -delete and -logs.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/fdio.h"
#include "core/base/str.h"
#include "core/client/client.h"
#include "core/client/metadata.h"
#include "core/client/package.h"

enum { FUNCTIONS_MAX = 100000, LOGS_EVENTS_MAX = 1000 };
#define LOGS_BYTES_MAX ((size_t)1 << 30)
#define UPLOAD_NS (600 * NS_PER_S)

/* --file or --zip; both is ERR_INPUT; neither: *path is NULL. */
static int
package_option(const struct opt_values *v, const char **path, struct err *e)
{
	if (opt_given(v, "file") && opt_given(v, "zip"))
		return err_set(e, ERR_INPUT, "--file and --zip are the same: give one of them");
	*path = opt_get(v, opt_given(v, "zip") ? "zip" : "file");
	return 0;
}

/* Sends metadata, with the package when there is one. */
static int
upload(struct client *c, const char *method, const char *path, const char *file,
       const char *metadata, struct api_answer *a, struct err *e)
{
	struct api_request r = { .method = method, .path = path, .total_ns = UPLOAD_NS };
	struct package package = { .fd = -1 };
	int rc;

	if (file) {
		if (package_make(file, metadata, &package, e))
			return -1;
		r.content_type = package.content_type;
		r.body_fd = package.fd;
		r.progress = "uploading";
	} else {
		r.content_type = "application/json";
		r.body = metadata;
		r.body_len = strlen(metadata);
	}
	rc = api_expect(c->api, &r, a, e);
	fd_close(&package.fd);
	return rc;
}

/* The function that an upload made or changed: waited for, read again, printed. */
static int
finish(struct client *c, const struct api_answer *made)
{
	struct buf path = { 0 };
	struct err e = { 0 };
	struct span record;
	char *id;
	int rc = CLIENT_OK;

	if (api_json(made, &record, &e))
		return client_fail(&e);
	if (opt_given(&c->v, "no-wait"))
		return render_record(&c->out, record, "function_id", &e) ? client_fail(&e) : CLIENT_OK;
	id = span_text(span_member(record, "function_id"));
	if (!id || !*id)
		err_set(&e, ERR_NODE, "the answer names no function: is OS_PRATAI_URL Pratai's?");
	if (e.cls != ERR_NONE || client_path(&path, "/v1/functions/", id, "", &e) ||
	    build_wait(c, id, &e))
		rc = client_fail(&e);
	else
		rc = client_show(c, path.data, "function_id");
	buf_free(&path);
	free(id);
	return rc;
}

int
cmd_function_create(struct client *c)
{
	struct api_answer a = { 0 };
	struct err e = { 0 };
	const char *file;
	char *metadata;
	int rc;

	if (package_option(&c->v, &file, &e))
		return client_fail(&e);
	if (!file)
		return client_usage("function-create needs --file ZIP or DIR");
	metadata = metadata_make(&c->v, c->v.operands[0], &e);
	if (!metadata || upload(c, "POST", "/v1/functions", file, metadata, &a, &e))
		rc = client_fail(&e);
	else
		rc = finish(c, &a);
	api_answer_clear(&a);
	free(metadata);
	return rc;
}

int
cmd_function_update(struct client *c)
{
	struct api_answer a = { 0 };
	struct buf path = { 0 };
	struct err e = { 0 };
	const char *file;
	char *metadata;
	int rc;

	if (package_option(&c->v, &file, &e))
		return client_fail(&e);
	metadata = metadata_make(&c->v, NULL, &e);
	if (metadata && !file && !strcmp(metadata, "{}"))
		rc = client_usage("function-update: nothing to change was given");
	else if (!metadata || client_path(&path, "/v1/functions/", c->v.operands[0], "", &e) ||
		 upload(c, "PATCH", path.data, file, metadata, &a, &e))
		rc = client_fail(&e);
	else
		rc = finish(c, &a);
	api_answer_clear(&a);
	buf_free(&path);
	free(metadata);
	return rc;
}

int
cmd_function_list(struct client *c)
{
	static const char *const columns[] = { "function_id", "name", "state", "version", "runtime",
					       "type", "event", "memory", "updated_at", NULL };

	return client_list(c, "/v1/functions", FUNCTIONS_MAX, columns, "function_id");
}

int
cmd_function_show(struct client *c)
{
	struct buf path = { 0 };
	struct err e = { 0 };
	int rc;

	if (client_path(&path, "/v1/functions/", c->v.operands[0], "", &e))
		rc = client_fail(&e);
	else
		rc = client_show(c, path.data, "function_id");
	buf_free(&path);
	return rc;
}

int
cmd_function_delete(struct client *c)
{
	return client_delete(c, "/v1/functions/");
}

/* ---- logs ---- */

static int
build_logs(struct client *c)
{
	struct api_answer a = { 0 };
	struct buf path = { 0 };
	struct span build;
	struct err e = { 0 };
	char *log = NULL;
	int rc = CLIENT_OK;

	if (client_path(&path, "/v1/functions/", c->v.operands[0], "/build", &e) ||
	    api_expect(c->api, &(struct api_request){ .method = "GET", .path = path.data }, &a, &e) ||
	    api_json(&a, &build, &e)) {
		rc = client_fail(&e);
	} else if (c->out.format == RENDER_JSON || c->out.column_count) {
		rc = render_record(&c->out, build, "version", &e) ? client_fail(&e) : CLIENT_OK;
	} else if ((log = span_text(span_member(build, "log")))) {
		render_text(log, strlen(log));
		if (*log && log[strlen(log) - 1] != '\n')
			putchar('\n');
	}
	free(log);
	api_answer_clear(&a);
	buf_free(&path);
	return rc;
}

/* What an event printed: to stdout, or with records to that array. */
static int
event_lines(struct client *c, struct span event, struct buf *records, struct err *e)
{
	struct api_answer a = { 0 };
	struct buf path = { 0 };
	struct span json_id = span_member(event, "event_id");
	char *id = span_text(json_id);
	char prefix[80];
	int rc;

	snprintf(prefix, sizeof prefix, "%.70s ", id ? id : "");
	rc = client_path(&path, "/v1/events/", id ? id : "", "/logs", e);
	if (rc == 0)
		rc = api_expect(c->api, &(struct api_request){ .method = "GET", .path = path.data },
				&a, e);
	if (rc == 0)
		rc = records ? logs_collect(&a, json_id, records, e) : logs_print(&a, prefix, e);
	api_answer_clear(&a);
	buf_free(&path);
	free(id);
	return rc;
}

static int
events_logs(struct client *c, const struct api_rows *events, struct err *e)
{
	static const char *const columns[] = { "event_id", "t", "s", "l", NULL };
	struct buf array = { .max = LOGS_BYTES_MAX }, *records = logs_as_records(c) ? &array : NULL;
	int rc = 0;

	for (size_t i = events->count; rc == 0 && i-- > 0;) /* oldest first, as a log reads */
		rc = event_lines(c, events->rows[i], records, e);
	if (rc == 0 && records) {
		buf_puts(&array, array.len ? "]" : "[]");
		rc = logs_list(c, span_of(array.data, array.len), columns, e);
	}
	buf_free(&array);
	return rc;
}

int
cmd_function_logs(struct client *c)
{
	struct api_rows events;
	struct buf path = { 0 };
	struct err e = { 0 };
	int64_t limit;
	int rc;

	if (opt_given(&c->v, "build"))
		return build_logs(c);
	if (str_int(opt_get(&c->v, "limit"), 1, LOGS_EVENTS_MAX, &limit))
		return client_usage("--limit: '%.40s' is not a number from 1 to %d",
				    opt_get(&c->v, "limit"), LOGS_EVENTS_MAX);
	buf_puts(&path, "/v1/events?function=");
	api_encode(&path, c->v.operands[0]);
	rc = api_list(c->api, path.data, (size_t)limit, &events, &e);
	buf_free(&path);
	if (rc)
		return client_fail(&e);
	rc = events_logs(c, &events, &e);
	if (rc == 0)
		client_tell_more(c, &events);
	api_rows_free(&events);
	return rc ? client_fail(&e) : CLIENT_OK;
}
