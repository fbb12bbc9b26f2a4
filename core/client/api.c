#include "core/client/api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/str.h"
#include "netio/http_client.h"
#include "netio/loop.h"

enum { PAGE_ROWS = 100, BAR_WIDTH = 30 };
#define BAR_FROM_BYTES ((uint64_t)1 << 20)

struct api {
	struct loop *loop;
	struct http_client *http;
	struct loop_timer *timer;
	char url[API_URL_MAX];
	char token[API_TOKEN_MAX];
};

static int
check_url(const char *url, char out[API_URL_MAX], struct err *e)
{
	const char *host = str_starts(url, "http://") ? url + 7 :
			   str_starts(url, "https://") ? url + 8 : "";
	size_t len;

	if (!*host || strchr("/:?#", *host))
		return err_set(e, ERR_INPUT,
			       "OS_PRATAI_URL '%.80s' is not http://HOST:PORT or https://HOST:PORT", url);
	if (str_copy(out, API_URL_MAX, url))
		return err_set(e, ERR_INPUT, "OS_PRATAI_URL is longer than %d bytes",
			       API_URL_MAX - 1);
	for (const char *p = out; *p; p++)
		if ((unsigned char)*p <= ' ' || *p == 0x7f)
			return err_set(e, ERR_INPUT, "OS_PRATAI_URL has a space or control character");
	len = strlen(out);
	while (len && out[len - 1] == '/')
		out[--len] = '\0';
	if (len > 3 && !strcmp(out + len - 3, "/v1"))
		out[len - 3] = '\0';
	return 0;
}

struct api *
api_open(const char *url, const char *token, struct err *e)
{
	struct api *api = calloc(1, sizeof *api);

	if (!api) {
		err_set(e, ERR_NODE, "no memory");
		return NULL;
	}
	if (check_url(url, api->url, e))
		goto fail;
	for (const char *p = token; *p; p++) {
		if (*p <= ' ' || *p > '~') {
			err_set(e, ERR_INPUT, "the token (OS_TOKEN) has a character that no token has");
			goto fail;
		}
	}
	if (str_copy(api->token, sizeof api->token, token)) {
		err_set(e, ERR_INPUT, "the token (OS_TOKEN) is longer than %d bytes",
			API_TOKEN_MAX - 1);
		goto fail;
	}
	api->loop = loop_new(e);
	if (!api->loop)
		goto fail;
	api->http = http_client_new(api->loop, e);
	if (!api->http)
		goto fail;
	return api;
fail:
	api_close(api);
	return NULL;
}

void
api_close(struct api *api)
{
	if (!api)
		return;
	if (api->timer)
		loop_timer_remove(api->timer);
	if (api->http)
		http_client_free(api->http);
	if (api->loop)
		loop_free(api->loop);
	free(api);
}

void
api_answer_clear(struct api_answer *a)
{
	buf_free(&a->body);
	memset(a, 0, sizeof *a);
}

/* ---- one call ---- */

struct pending {
	struct api *api;
	struct api_answer *answer;
	struct err *e;
	int rc;
	bool done;
	const char *progress;
	bool bar_drawn;
};

static void
keep_field(const struct http_answer *a, const char *name, char *out, size_t size)
{
	const char *value = http_answer_field(a, name);

	if (!value || str_copy(out, size, value))
		out[0] = '\0';
}

static bool
says_json(const char *content_type)
{
	size_t len = strcspn(content_type, ";");

	return (len >= 5 && !strncasecmp(content_type + len - 5, "/json", 5)) ||
	       (len >= 5 && !strncasecmp(content_type + len - 5, "+json", 5));
}

static void
on_answer(void *arg, const struct http_answer *a, const struct err *e)
{
	struct pending *p = arg;

	p->done = true;
	p->rc = -1;
	if (!a) {
		if (p->e)
			*p->e = *e;
	} else {
		p->rc = 0;
		p->answer->status = a->status;
		p->answer->is_json = says_json(a->content_type);
		p->answer->body.max = SIZE_MAX / 2;
		if (buf_put(&p->answer->body, a->body, a->len))
			p->rc = err_set(p->e, ERR_NODE, "no memory for an answer of %zu bytes", a->len);
		keep_field(a, "Pratai-Event-Id", p->answer->event_id, sizeof p->answer->event_id);
		keep_field(a, "Pratai-State", p->answer->state, sizeof p->answer->state);
		keep_field(a, "Location", p->answer->location, sizeof p->answer->location);
	}
	loop_stop(p->api->loop);
}

static void
on_progress(void *arg, uint64_t sent, uint64_t total)
{
	static const char full[] = "##############################";
	struct pending *p = arg;
	int cells;

	if (!p->progress || total < BAR_FROM_BYTES || !isatty(STDERR_FILENO))
		return;
	cells = (int)(sent * BAR_WIDTH / total);
	fprintf(stderr, "\r%s [%-*.*s] %3d%%", p->progress, BAR_WIDTH, cells, full,
		(int)(sent * 100 / total));
	p->bar_drawn = true;
}

static int
run(struct api *api, struct pending *p, const struct http_ask *ask, struct err *e)
{
	if (!http_client_ask(api->http, ask, on_answer, p, e))
		return -1;
	while (!p->done)
		if (loop_run(api->loop, e))
			return -1;
	if (p->bar_drawn)
		fprintf(stderr, "\r\033[K");
	return p->rc;
}

int
api_call(struct api *api, const struct api_request *r, struct api_answer *a, struct err *e)
{
	struct pending p = { .api = api, .answer = a, .e = e, .progress = r->progress };
	struct http_field fields[4] = { 0 };
	char *url = NULL;
	size_t n = 0;
	int rc;

	memset(a, 0, sizeof *a);
	if (asprintf(&url, "%s%s", api->url, r->path) < 0)
		return err_set(e, ERR_NODE, "no memory");
	if (api->token[0])
		fields[n++] = (struct http_field){ "X-Auth-Token", api->token };
	if (r->content_type)
		fields[n++] = (struct http_field){ "Content-Type", r->content_type };
	rc = run(api, &p, &(struct http_ask){
		.method = r->method, .url = url, .fields = fields,
		.body = r->body_fd > 0 ? NULL : r->body, .body_len = r->body_len,
		.body_fd = r->body_fd > 0 ? r->body_fd : -1, .out_fd = -1,
		.total_ns = r->total_ns ? r->total_ns : 60 * NS_PER_S,
		.progress = r->progress ? on_progress : NULL,
	}, e);
	free(url);
	if (rc) {
		api_answer_clear(a);
		if (e && e->cls == ERR_AGAIN)
			err_wrap(e, "no answer from %.200s (OS_PRATAI_URL)", api->url);
	}
	return rc;
}

int
api_expect(struct api *api, const struct api_request *r, struct api_answer *a, struct err *e)
{
	if (api_call(api, r, a, e))
		return -1;
	if (a->status / 100 == 2)
		return 0;
	api_refusal(api, a, e);
	api_answer_clear(a);
	return -1;
}

/* ---- answers ---- */

static struct span
problem(const struct api_answer *a)
{
	if (!a->is_json || json_check(a->body.data, a->body.len) != JSON_FORM_OK)
		return (struct span){ 0 };
	return span_of(a->body.data, a->body.len);
}

static enum err_class
status_class(int status)
{
	switch (status) {
	case 401:
	case 403:
		return ERR_DENIED;
	case 404:
		return ERR_NOT_FOUND;
	case 409:
		return ERR_CONFLICT;
	case 413:
		return ERR_LIMIT;
	case 429:
	case 503:
		return ERR_AGAIN;
	default:
		return ERR_NODE;
	}
}

int
api_refusal(const struct api *api, const struct api_answer *a, struct err *e)
{
	enum err_class cls = status_class(a->status);
	struct span p = problem(a);
	char *detail = span_text(span_member(p, "detail"));
	char *title = span_text(span_member(p, "title"));

	if (detail && *detail)
		err_set(e, cls, "%.*s", (int)strcspn(detail, "\n"), detail);
	else if (title && *title)
		err_set(e, cls, "%.*s", (int)strcspn(title, "\n"), title);
	else
		err_set(e, cls, "%.200s answered with status %d", api->url, a->status);
	if (a->status == 401 && !api->token[0])
		err_set(e, cls, "%.200s wants a token: set OS_TOKEN, or give --os-token", api->url);
	free(detail);
	free(title);
	return -1;
}

void
api_problem_type(const struct api_answer *a, char *out, size_t size)
{
	char *type = span_text(span_member(problem(a), "type"));
	const char *word = type ? type : "";

	for (const char *p = word; *p; p++)
		if (*p == '/' || *p == ':')
			word = p + 1;
	if (str_copy(out, size, word))
		out[0] = '\0';
	free(type);
}

int
api_json(const struct api_answer *a, struct span *value, struct err *e)
{
	if (json_check(a->body.data, a->body.len) != JSON_FORM_OK)
		return err_set(e, ERR_NODE, "the answer is not JSON: is OS_PRATAI_URL Pratai's?");
	*value = span_of(a->body.data, a->body.len);
	if (!span_is(*value, '{'))
		return err_set(e, ERR_NODE, "the answer is not a record: is OS_PRATAI_URL Pratai's?");
	return 0;
}

/* ---- lists ---- */

static int
add_rows(struct api_rows *out, struct span page, size_t max, struct err *e)
{
	struct span items = span_member(page, "items"), row;
	size_t at = 0, room = out->count;

	if (!span_is(items, '['))
		return err_set(e, ERR_NODE, "the answer is not a list: is OS_PRATAI_URL Pratai's?");
	while (span_next(items, &at, NULL, &row)) {
		if (out->count == max) {
			out->more = true;
			break;
		}
		if (out->count == room) {
			struct span *more;

			room = room ? room * 2 : PAGE_ROWS;
			more = reallocarray(out->rows, room, sizeof *more);
			if (!more)
				return err_set(e, ERR_NODE, "no memory for the list");
			out->rows = more;
		}
		out->rows[out->count++] = row;
	}
	return 0;
}

/* One page; *cursor (malloc'd or NULL) in: where it begins, out: the next one's. */
static int
get_page(struct api *api, const char *path, size_t want, char **cursor, struct api_rows *out,
	 size_t max, struct err *e)
{
	struct api_answer *pages = reallocarray(out->pages, out->page_count + 1, sizeof *pages);
	struct buf full = { 0 };
	struct span page;
	int rc;

	if (!pages)
		return err_set(e, ERR_NODE, "no memory for the list");
	out->pages = pages;
	buf_printf(&full, "%s%climit=%zu", path, strchr(path, '?') ? '&' : '?', want);
	if (*cursor) {
		buf_puts(&full, "&cursor=");
		api_encode(&full, *cursor);
	}
	free(*cursor);
	*cursor = NULL;
	rc = api_expect(api, &(struct api_request){ .method = "GET", .path = full.data },
			&pages[out->page_count], e);
	buf_free(&full);
	if (rc)
		return -1;
	out->page_count++;
	if (api_json(&pages[out->page_count - 1], &page, e) || add_rows(out, page, max, e))
		return -1;
	if (span_is(span_member(page, "next"), '"'))
		*cursor = span_text(span_member(page, "next"));
	return 0;
}

int
api_list(struct api *api, const char *path, size_t max, struct api_rows *out, struct err *e)
{
	char *cursor = NULL;
	int rc = 0;

	memset(out, 0, sizeof *out);
	do {
		size_t before = out->count, left = max - out->count;

		rc = get_page(api, path, left < PAGE_ROWS ? left : PAGE_ROWS, &cursor, out, max, e);
		if (rc || out->count == before) /* an empty page ends it, whatever its cursor says */
			break;
	} while (cursor && *cursor && out->count < max);
	out->more = out->more || (cursor && *cursor);
	free(cursor);
	if (rc)
		api_rows_free(out);
	return rc;
}

void
api_rows_free(struct api_rows *r)
{
	for (size_t i = 0; i < r->page_count; i++)
		api_answer_clear(&r->pages[i]);
	free(r->pages);
	free(r->rows);
	memset(r, 0, sizeof *r);
}

/* ---- small things ---- */

static void
on_pause_end(void *arg)
{
	struct api *api = arg;

	loop_stop(api->loop);
}

void
api_pause(struct api *api, uint64_t ns)
{
	struct err e;

	if (!api->timer)
		api->timer = loop_timer_add(api->loop, on_pause_end, api, &e);
	if (!api->timer)
		return;
	loop_timer_after(api->timer, ns);
	while (loop_timer_pending(api->timer) && !loop_run(api->loop, &e))
		;
}

void
api_encode(struct buf *path, const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		    strchr("-._~", c))
			buf_put(path, text, 1);
		else
			buf_printf(path, "%%%02X", c);
	}
}

int
api_segment(struct buf *path, const char *text, struct err *e)
{
	if (!*text || !strcmp(text, ".") || !strcmp(text, ".."))
		return err_set(e, ERR_INPUT, "'%s' is not a name or an id", text);
	api_encode(path, text);
	if (path->failed || path->len > API_PATH_MAX)
		return err_set(e, ERR_INPUT, "a name or id is at most %d bytes", API_PATH_MAX / 2);
	return 0;
}
