/*
 * runtime-list, -show, -create and -delete.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/json.h"
#include "core/base/str.h"
#include "core/client/client.h"
#include "core/client/metadata.h"

enum { ROWS_MAX = 100000 };

int
cmd_runtime_list(struct client *c)
{
	static const char *const columns[] = { "name", "image", "description", NULL };

	return client_list(c, "/v1/runtimes", ROWS_MAX, columns, "name");
}

int
cmd_runtime_show(struct client *c)
{
	struct buf path = { 0 };
	struct err e = { 0 };
	int rc;

	if (client_path(&path, "/v1/runtimes/", c->v.operands[0], "", &e))
		rc = client_fail(&e);
	else
		rc = client_show(c, path.data, "name");
	buf_free(&path);
	return rc;
}

int
cmd_runtime_delete(struct client *c)
{
	return client_delete(c, "/v1/runtimes/");
}

/* A JSON list as it is; else words between blanks. */
static int
put_words(struct json *out, const struct opt_values *v, const char *option, struct err *e)
{
	const char *text = opt_get(v, option);
	struct json *words;

	if (!str_is_utf8(text, strlen(text)))
		return err_set(e, ERR_INPUT, "--%s: is not UTF-8", option);
	if (*text == '[') {
		words = json_parse(text, strlen(text), e);
		if (!words)
			return err_wrap(e, "--%s", option);
	} else {
		words = json_array();
		for (text += strspn(text, " "); *text; text += strspn(text, " ")) {
			size_t n = strcspn(text, " ");
			char *word = strndup(text, n);

			json_add_str(words, word ? word : "");
			free(word);
			text += n;
		}
	}
	json_put(out, option, words);
	return 0;
}

static int
put_text(struct json *out, const struct opt_values *v, const char *option, struct err *e)
{
	const char *text = opt_get(v, option);

	if (!str_is_utf8(text, strlen(text)))
		return err_set(e, ERR_INPUT, "--%s: is not UTF-8", option);
	json_put_str(out, option, text);
	return 0;
}

static char *
make_body(const struct client *c, struct err *e)
{
	static const char *const texts[] = { "image", "description" }, *const lists[] = { "command", "build" };
	struct json *out = json_object();
	char *text = NULL;
	int rc = 0;

	if (!str_is_utf8(c->v.operands[0], strlen(c->v.operands[0])))
		rc = err_set(e, ERR_INPUT, "the name is not UTF-8");
	else
		json_put_str(out, "name", c->v.operands[0]);
	for (size_t i = 0; i < 2 && rc == 0; i++)
		if (opt_given(&c->v, texts[i]))
			rc = put_text(out, &c->v, texts[i], e);
	for (size_t i = 0; i < 2 && rc == 0; i++)
		if (opt_given(&c->v, lists[i]))
			rc = put_words(out, &c->v, lists[i], e);
	if (rc == 0 && opt_given(&c->v, "env"))
		rc = metadata_put_env(out, &c->v, e);
	if (rc == 0 && !(text = json_print(out)))
		err_set(e, ERR_NODE, "no memory");
	json_free(out);
	return text;
}

int
cmd_runtime_create(struct client *c)
{
	struct api_answer a = { 0 };
	struct span record;
	struct err e = { 0 };
	int rc = CLIENT_OK;
	char *text;

	if (!opt_given(&c->v, "image") || !opt_given(&c->v, "command")) {
		err_set(&e, ERR_INPUT, "runtime-create needs --image and --command");
		return client_fail(&e);
	}
	text = make_body(c, &e);
	if (!text || api_expect(c->api, &(struct api_request){
				.method = "POST", .path = "/v1/runtimes", .content_type = "application/json",
				.body = text, .body_len = strlen(text) }, &a, &e) ||
	    api_json(&a, &record, &e) || render_record(&c->out, record, "name", &e))
		rc = client_fail(&e);
	api_answer_clear(&a);
	free(text);
	return rc;
}
