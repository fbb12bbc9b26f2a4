/*
 * The local identity: tokens.  Only a token's SHA-256 is stored, as the name of its
 * document, and looked up; nothing compares secrets byte by byte.  Identities are kept
 * for a few seconds, so that a busy client costs the store nothing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/api/internal.h"
#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/str.h"

enum { IDENTITY_SECONDS = 10, IDENTITIES_MAX = 10000, TOKEN_TEXT_MAX = 4096, SECRET_BYTES = 32 };

int
auth_token(struct http_request *r, char hex[SHA256_HEX_MAX])
{
	const char *token = http_header(r, "X-Auth-Token");
	const char *bearer = http_header(r, "Authorization");

	if (!token && bearer && !strncasecmp(bearer, "Bearer ", 7))
		token = bearer + 7;
	if (!token || !*token || strlen(token) > TOKEN_TEXT_MAX)
		return -1;
	sha256_hex(token, strlen(token), hex);
	return 0;
}

static size_t
bucket_of(const char *hex)
{
	size_t at = 0;

	for (int i = 0; i < 8; i++)
		at = at * 31 + (unsigned char)hex[i];
	return at % CACHE_BUCKETS;
}

static const struct identity *
cached(struct api *a, const char *hex)
{
	struct identity *i = a->identities[bucket_of(hex)];

	while (i && strcmp(i->hash, hex))
		i = i->next;
	return i && i->until_ns > clock_mono_ns() ? i : NULL;
}

void
auth_forget_all(struct api *a)
{
	for (int b = 0; b < CACHE_BUCKETS; b++) {
		for (struct identity *i = a->identities[b], *next; i; i = next) {
			next = i->next;
			free(i);
		}
		a->identities[b] = NULL;
	}
	a->identity_count = 0;
}

static void
remember(struct api *a, const char *hex, const char *project, const char *user)
{
	size_t at = bucket_of(hex);
	struct identity *i = a->identities[at];

	while (i && strcmp(i->hash, hex))
		i = i->next;
	if (!i) {
		if (a->identity_count >= IDENTITIES_MAX)
			auth_forget_all(a);
		i = calloc(1, sizeof *i);
		if (!i)
			return;
		memcpy(i->hash, hex, sizeof i->hash);
		i->next = a->identities[at];
		a->identities[at] = i;
		a->identity_count++;
	}
	snprintf(i->project, sizeof i->project, "%s", project);
	snprintf(i->user, sizeof i->user, "%s", user);
	i->until_ns = clock_mono_ns() + IDENTITY_SECONDS * NS_PER_S;
}

static void
on_token(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	struct json *j;
	const char *project, *user;
	char hex[SHA256_HEX_MAX];

	if (e && e->cls == ERR_NOT_FOUND) {
		call_problem(c, 401, "unauthorized", "the token is not valid");
	} else if (e) {
		call_error(c, e);
	} else if (c->request) {
		j = json_parse(a->docs[0].json, strlen(a->docs[0].json), NULL);
		project = json_str(j, "project_id");
		user = json_str(j, "user_id");
		if (!project || !user || str_copy(c->project, sizeof c->project, project) ||
		    str_copy(c->user, sizeof c->user, user)) {
			call_problem(c, 500, "internal", "the token's record does not read");
		} else {
			if (!auth_token(c->request, hex))
				remember(c->api, hex, project, user);
			http_go_on(c->request);
		}
		json_free(j);
	}
	call_release(c);
}

void
auth_find(struct call *c, const char *hex)
{
	const struct identity *i = cached(c->api, hex);

	if (i) {
		memcpy(c->project, i->project, sizeof c->project);
		memcpy(c->user, i->user, sizeof c->user);
		return;
	}
	http_hold(c->request);
	call_hold(c);
	store_doc_find(c->api->config.store, STORE_TOKEN, "", hex, on_token, c);
}

/* ---- tokens as records ---- */

static struct json *
token_record(const struct id *id, const char *name, const char *description, const char *project,
	     const char *user, int64_t now_us)
{
	struct json *j = json_object();
	char text[ID_TEXT_MAX], created[CLOCK_RFC3339_MAX];

	id_format(id, text);
	clock_format(now_us, created);
	json_put_str(j, "token_id", text);
	json_put_str(j, "name", name);
	json_put_str(j, "description", description);
	json_put_str(j, "project_id", project);
	json_put_str(j, "user_id", user);
	json_put_str(j, "created_at", created);
	return j;
}

static void
create_token(struct store *store, struct json *record, const char *secret, store_fn fn, void *arg)
{
	char hash[SHA256_HEX_MAX];
	char *text = json_print(record);
	struct store_doc doc = { .kind = STORE_TOKEN, .id = json_str(record, "token_id"), .project = "",
				 .name = hash, .json = text };

	sha256_hex(secret, strlen(secret), hash);
	store_doc_create(store, &doc, fn, arg);
	free(text);
}

/*
 * The first token is made once for a secret: a note of its hash stays when the token is
 * deleted, or every start would bring a token back that was taken away.  The note is written
 * after the token, so that a crash between the two cannot leave nobody with a token.
 */
struct first_token {
	struct store *store;
	void (*done)(void *arg, const struct err *e);
	void *arg;
	char note[sizeof "first-token." + SHA256_HEX_MAX];
	const char *secret; /* the caller's */
};

static void
first_token_done(struct first_token *f, const struct err *e)
{
	f->done(f->arg, e);
	free(f);
}

static void
on_first_noted(void *arg, const struct store_answer *a, const struct err *e)
{
	(void)a;
	first_token_done(arg, e && e->cls == ERR_CONFLICT ? NULL : e);
}

static void
on_first_token(void *arg, const struct store_answer *a, const struct err *e)
{
	struct first_token *f = arg;
	struct store_doc doc = { .kind = STORE_META, .id = f->note, .project = "", .json = "{}" };

	(void)a;
	if (e && e->cls != ERR_CONFLICT) /* there since an earlier start */
		first_token_done(f, e);
	else
		store_doc_create(f->store, &doc, on_first_noted, f);
}

static void
on_first_looked(void *arg, const struct store_answer *a, const struct err *e)
{
	struct first_token *f = arg;
	struct id id = id_new();
	struct json *record;

	(void)a;
	if (!e || e->cls != ERR_NOT_FOUND) {
		first_token_done(f, e);
		return;
	}
	record = token_record(&id, "first", "made at the first start", "admin", "admin", clock_real_us());
	create_token(f->store, record, f->secret, on_first_token, f);
	json_free(record);
}

void
api_first_token(struct store *store, const char *secret, void (*done)(void *arg, const struct err *e),
		void *arg)
{
	struct first_token *f = malloc(sizeof *f);
	char hash[SHA256_HEX_MAX];
	struct err e;

	if (!f) {
		err_set(&e, ERR_NODE, "out of memory");
		done(arg, &e);
		return;
	}
	f->store = store;
	f->done = done;
	f->arg = arg;
	f->secret = secret;
	sha256_hex(secret, strlen(secret), hash);
	snprintf(f->note, sizeof f->note, "first-token.%s", hash);
	store_doc_get(store, STORE_META, f->note, on_first_looked, f);
}

static void
drop_json(void *data)
{
	json_free(data);
}

static void
on_token_created(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;

	(void)a;
	if (e) {
		call_error(c, e);
	} else {
		call_json(c, 201, c->data);
		c->data = NULL;
	}
	call_release(c);
}

void
tokens_create(struct call *c)
{
	size_t len;
	const char *body = http_body(c->request, &len);
	unsigned char random[SECRET_BYTES];
	char secret[2 * SECRET_BYTES + 8] = "prt_";
	const char *name, *description;
	struct json *ask, *record;
	struct id id = id_new();
	struct err e;

	ask = json_parse(body, len, &e);
	if (!ask) {
		call_error(c, &e);
		return;
	}
	name = json_str(ask, "name");
	description = json_str(ask, "description");
	for (const struct json *m = json_first(ask); m; m = json_next(m))
		if (strcmp(json_key(m), "name") && strcmp(json_key(m), "description")) {
			call_problem(c, 400, "invalid_request", "field '%.80s': unknown", json_key(m));
			json_free(ask);
			return;
		}
	if (!name || function_name_check(name, &e)) {
		if (!name)
			err_set(&e, ERR_INPUT, "field 'name': missing");
		call_error(c, &e);
		json_free(ask);
		return;
	}
	random_bytes(random, sizeof random);
	str_hex(random, sizeof random, secret + 4);
	record = token_record(&id, name, description ? description : "", c->project, c->user, clock_real_us());
	call_hold(c);
	create_token(c->api->config.store, record, secret, on_token_created, c);
	json_put_str(record, "token", secret);
	c->data = record;
	c->drop = drop_json;
	json_free(ask);
}

static void
on_tokens(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	struct json *list;

	if (e) {
		call_error(c, e);
		call_release(c);
		return;
	}
	list = json_array();
	for (size_t i = 0; i < a->doc_count; i++) {
		struct json *j = json_parse(a->docs[i].json, strlen(a->docs[i].json), NULL);
		const char *project = json_str(j, "project_id");

		if (project && !strcmp(project, c->project))
			json_add(list, j);
		else
			json_free(j);
	}
	call_items(c, list, a->next);
	call_release(c);
}

void
tokens_list(struct call *c)
{
	unsigned limit = STORE_LIST_MAX;
	const char *cursor;

	if (call_limit(c, &limit) || call_cursor(c, &cursor))
		return;
	call_hold(c);
	store_doc_list(c->api->config.store, STORE_TOKEN, NULL, NULL, cursor, limit, on_tokens, c);
}

static void
on_token_deleted(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;

	(void)a;
	if (e)
		call_error(c, e);
	else
		call_status(c, 204);
	auth_forget_all(c->api);
	call_release(c);
}

/* By id or by name: the list is short. */
static void
on_tokens_to_delete(void *arg, const struct store_answer *a, const struct err *e)
{
	struct call *c = arg;
	char id[ID_TEXT_MAX] = "";
	unsigned found = 0;

	for (size_t i = 0; !e && i < a->doc_count; i++) {
		struct json *j = json_parse(a->docs[i].json, strlen(a->docs[i].json), NULL);
		const char *project = json_str(j, "project_id"), *name = json_str(j, "name");

		if (project && name && !strcmp(project, c->project) &&
		    (!strcmp(name, c->param) || !strcmp(a->docs[i].id, c->param))) {
			snprintf(id, sizeof id, "%.36s", a->docs[i].id);
			found++;
		}
		json_free(j);
	}
	if (e)
		call_error(c, e);
	else if (!found)
		call_problem(c, 404, "not_found", "no token is called '%s'", c->param);
	else if (found > 1)
		call_problem(c, 409, "conflict", "%u tokens are called '%s': name one by its id", found,
			     c->param);
	if (found == 1) {
		call_hold(c);
		store_doc_delete(c->api->config.store, STORE_TOKEN, id, on_token_deleted, c);
	}
	call_release(c);
}

void
tokens_delete(struct call *c)
{
	call_hold(c);
	store_doc_list(c->api->config.store, STORE_TOKEN, NULL, NULL, NULL, STORE_LIST_MAX,
		       on_tokens_to_delete, c);
}
