/*
 * What commands share, and the ones that are nothing else.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/json.h"
#include "core/client/client.h"

enum { ROWS_MAX = 100000 };

int
client_path(struct buf *path, const char *prefix, const char *segment, const char *suffix,
	    struct err *e)
{
	buf_puts(path, prefix);
	if (api_segment(path, segment, e))
		return -1;
	return buf_puts(path, suffix) ? err_set(e, ERR_NODE, "no memory") : 0;
}

int
client_show(struct client *c, const char *path, const char *id_key)
{
	struct api_answer a = { 0 };
	struct span record;
	struct err e = { 0 };
	int rc = CLIENT_OK;

	if (api_expect(c->api, &(struct api_request){ .method = "GET", .path = path }, &a, &e) ||
	    api_json(&a, &record, &e) || render_record(&c->out, record, id_key, &e))
		rc = client_fail(&e);
	api_answer_clear(&a);
	return rc;
}

void
client_tell_more(const struct client *c, const struct api_rows *rows)
{
	if (rows->more && !opt_given(&c->v, "limit"))
		fprintf(stderr, "pratai: there are more than these %zu%s\n", rows->count,
			opt_get(&c->v, "limit") ? " (see --limit)" : "");
}

int
client_list(struct client *c, const char *path, size_t max, const char *const *columns,
	    const char *id_key)
{
	struct api_rows rows;
	struct err e = { 0 };
	int rc = CLIENT_OK;

	if (api_list(c->api, path, max, &rows, &e))
		return client_fail(&e);
	if (render_list(&c->out, rows.rows, rows.count, columns, id_key, &e))
		rc = client_fail(&e);
	else
		client_tell_more(c, &rows);
	api_rows_free(&rows);
	return rc;
}

int
client_delete(struct client *c, const char *prefix)
{
	int rc = CLIENT_OK;

	for (int i = 0; i < c->v.operand_count; i++) {
		struct buf path = { 0 };
		struct api_answer a = { 0 };
		struct err e = { 0 };

		if (client_path(&path, prefix, c->v.operands[i], "", &e) ||
		    api_expect(c->api, &(struct api_request){ .method = "DELETE", .path = path.data },
			       &a, &e))
			rc = client_fail(&e);
		api_answer_clear(&a);
		buf_free(&path);
	}
	return rc;
}

int
cmd_cluster_status(struct client *c)
{
	return client_show(c, "/v1/cluster", "version");
}

int
cmd_node_list(struct client *c)
{
	static const char *const columns[] = { "node_id", "name", "state", "running", "slots",
					       "memory_used_mib", "memory_mib", "last_seen", NULL };

	return client_list(c, "/v1/nodes", ROWS_MAX, columns, "node_id");
}

int
cmd_token_create(struct client *c)
{
	struct json *body = json_object();
	struct api_answer a = { 0 };
	struct span record;
	struct err e = { 0 };
	char *text;
	int rc = CLIENT_OK;

	json_put_str(body, "name", c->v.operands[0]);
	if (opt_given(&c->v, "description"))
		json_put_str(body, "description", opt_get(&c->v, "description"));
	text = json_print(body);
	json_free(body);
	if (!text) {
		err_set(&e, ERR_NODE, "no memory");
		return client_fail(&e);
	}
	if (api_expect(c->api, &(struct api_request){
			.method = "POST", .path = "/v1/tokens", .content_type = "application/json",
			.body = text, .body_len = strlen(text) }, &a, &e) ||
	    api_json(&a, &record, &e) || render_record(&c->out, record, "token_id", &e))
		rc = client_fail(&e);
	api_answer_clear(&a);
	free(text);
	return rc;
}

int
cmd_token_list(struct client *c)
{
	static const char *const columns[] = { "token_id", "name", "created_at", NULL };

	return client_list(c, "/v1/tokens", ROWS_MAX, columns, "token_id");
}

int
cmd_token_delete(struct client *c)
{
	return client_delete(c, "/v1/tokens/");
}
