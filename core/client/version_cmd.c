/*
 * The versions of a function, and the way back to one.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "core/base/str.h"
#include "core/client/client.h"

enum { VERSIONS_MAX = 1000 };

int
cmd_function_versions(struct client *c)
{
	static const char *const columns[] = { "version", "state", "serving", "runtime", "image", "memory",
					       "created_at", "package_digest", "state_reason", NULL };
	struct buf path = { 0 };
	struct err e = { 0 };
	int rc;

	if (client_path(&path, "/v1/functions/", c->v.operands[0], "/versions", &e))
		rc = client_fail(&e);
	else
		rc = client_list(c, path.data, VERSIONS_MAX, columns, "version");
	buf_free(&path);
	return rc;
}

int
cmd_function_rollback(struct client *c)
{
	const char *to = opt_get(&c->v, "to");
	struct api_answer a = { 0 };
	struct buf path = { 0 };
	struct span record;
	struct err e = { 0 };
	char body[48];
	int64_t version;
	int rc = CLIENT_OK;

	if (!to)
		return client_usage("function-rollback needs --to VERSION (see function-versions)");
	if (str_int(to, 1, UINT32_MAX, &version))
		return client_usage("--to '%.60s' is not a version's number", to);
	snprintf(body, sizeof body, "{\"version\":%lld}", (long long)version);
	if (client_path(&path, "/v1/functions/", c->v.operands[0], "/rollback", &e) ||
	    api_expect(c->api,
		       &(struct api_request){ .method = "POST", .path = path.data, .body = body,
					      .body_len = strlen(body), .content_type = "application/json" },
		       &a, &e) ||
	    api_json(&a, &record, &e) || render_record(&c->out, record, "function_id", &e))
		rc = client_fail(&e);
	api_answer_clear(&a);
	buf_free(&path);
	return rc;
}
