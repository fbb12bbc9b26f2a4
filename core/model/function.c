/*
 * What a function's metadata may say.  One table of fields holds name, type, range and
 * default; creating and updating differ only in what stands below the new fields.
 */
#include "core/model/function.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/err.h"
#include "core/base/image_name.h"
#include "core/base/json.h"
#include "core/base/net_rule.h"
#include "core/base/str.h"

enum field_type { FIELD_TEXT, FIELD_WHOLE, FIELD_FRACTION, FIELD_ENV, FIELD_TAGS, FIELD_NETS, FIELD_LATER };

struct field {
	const char *name;
	enum field_type type;
	double min, max; /* of a number; of a text's length */
	double number;   /* default; NAN: null */
	const char *text; /* default, or the words that a FIELD_TEXT may be, see words */
	const char *words; /* "a|b": one of these; NULL: any */
	bool record_only;  /* a change makes no new version */
};

/* FIELD_LATER: in the record (as null or false), refused in metadata unless it says just that. */
static const struct field fields[] = {
	{ "name", FIELD_TEXT, 1, 63, NAN, NULL, NULL, false },
	{ "description", FIELD_TEXT, 0, 4096, NAN, "", NULL, true },
	{ "tags", FIELD_TAGS, 0, 32, NAN, NULL, NULL, true },
	{ "runtime", FIELD_TEXT, 1, 31, NAN, "python3", NULL, false },
	{ "image", FIELD_TEXT, 1, IMAGE_NAME_MAX, NAN, "host", NULL, false },
	{ "type", FIELD_TEXT, 1, 31, NAN, "async", "async|wait_for_response", false },
	{ "event", FIELD_TEXT, 1, 31, NAN, "webhook", "webhook|timer", false },
	{ "frequency", FIELD_WHOLE, 1, 527040, NAN, NULL, NULL, false },
	{ "memory", FIELD_WHOLE, FUNCTION_MEMORY_MIN_MIB, FUNCTION_MEMORY_MAX_MIB, 128, NULL, NULL, false },
	{ "cpus", FIELD_FRACTION, 0.01, 64, 1, NULL, NULL, false },
	{ "pids", FIELD_WHOLE, 2, 4096, 64, NULL, NULL, false },
	{ "timeout", FIELD_WHOLE, 1, FUNCTION_TIMEOUT_MAX_S, 60, NULL, NULL, false },
	{ "tmp_size", FIELD_WHOLE, 1, FUNCTION_MEMORY_MAX_MIB, 64, NULL, NULL, false },
	{ "limit", FIELD_WHOLE, 1, 100000, NAN, NULL, NULL, false },
	{ "retries", FIELD_WHOLE, 0, 100, 2, NULL, NULL, false },
	{ "network", FIELD_TEXT, 1, 15, NAN, "none", "none|egress", false },
	{ "allow", FIELD_NETS, 0, NET_RULES_MAX, NAN, NULL, NULL, false },
	{ "env", FIELD_ENV, 0, 64, NAN, NULL, NULL, false },
	{ "subscribe_to", FIELD_LATER, 0, 0, NAN, NULL, NULL, false },
	{ "cron", FIELD_LATER, 0, 0, NAN, NULL, NULL, false },
	{ "timezone", FIELD_LATER, 0, 0, NAN, NULL, NULL, false },
	{ "source", FIELD_LATER, 0, 0, NAN, NULL, NULL, false },
	{ "endpoint", FIELD_LATER, 0, 0, NAN, NULL, NULL, false },
	{ "public", FIELD_LATER, 0, 0, NAN, NULL, NULL, false },
	{ "secrets", FIELD_LATER, 0, 0, NAN, NULL, NULL, false },
	{ "preload", FIELD_LATER, 0, 0, NAN, NULL, NULL, false },
};
enum { FIELD_COUNT = sizeof fields / sizeof fields[0], ENV_BYTES_MAX = 32 << 10, TAG_MAX = 64 };

static int
check_name(const char *field, const char *name, struct err *e)
{
	size_t len = strlen(name);

	if (len == 0)
		return err_set(e, ERR_INPUT, "field '%s': empty", field);
	if (len > 63)
		return err_set(e, ERR_INPUT, "field '%s': %zu characters, at most 63 are allowed", field,
			       len);
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)name[i];
		bool ok = isascii(c) && (isalnum(c) || (i > 0 && strchr("_.-", c)));
		if (!ok)
			return err_set(e, ERR_INPUT,
				       "field '%s': '%s' has a character that is not allowed (letters, "
				       "digits, and after the first also '_', '.', '-')",
				       field, name);
	}
	return 0;
}

int
function_name_check(const char *name, struct err *e)
{
	return check_name("name", name, e);
}

static const struct field *
find_field(const char *name)
{
	for (int i = 0; i < FIELD_COUNT; i++)
		if (!strcmp(name, fields[i].name))
			return &fields[i];
	return NULL;
}

/* By name, or by digest; whether there is such an image is for others to say. */
static int
check_image(const char *image, struct err *e)
{
	char hex[65];

	if (!strcmp(image, "host") || !image_parse_digest(image, hex))
		return 0;
	return image_check_name(image, e) ? err_wrap(e, "field 'image'") : 0;
}

static int
check_text(const struct field *f, const struct json *value, struct err *e)
{
	const char *text = json_string_value(value);
	size_t len = text ? strlen(text) : 0;
	struct id id;

	if (!text)
		return err_set(e, ERR_INPUT, "field '%s': must be a text", f->name);
	if (len < f->min || len > f->max)
		return err_set(e, ERR_INPUT, "field '%s': %zu bytes, %.15g to %.15g are allowed", f->name, len,
			       f->min, f->max);
	if (f->words && !str_is_word(f->words, text))
		return err_set(e, ERR_INPUT, "field '%s': '%.60s' is not one of %s", f->name, text, f->words);
	/* Names of files on nodes are made of both. */
	if (!strcmp(f->name, "runtime"))
		return check_name(f->name, text, e);
	if (!strcmp(f->name, "image"))
		return check_image(text, e);
	if (strcmp(f->name, "name"))
		return 0;
	if (!id_parse(text, &id))
		return err_set(e, ERR_INPUT, "field 'name': '%s' has the form of an id and would be taken for one",
			       text);
	return check_name(f->name, text, e);
}

static int
check_number(const struct field *f, const struct json *value, struct err *e)
{
	double number = json_number_value(value);

	if (!json_is_number(value))
		return err_set(e, ERR_INPUT, "field '%s': must be a number", f->name);
	if (f->type == FIELD_WHOLE && number != floor(number))
		return err_set(e, ERR_INPUT, "field '%s': must be a whole number", f->name);
	if (!(number >= f->min && number <= f->max))
		return err_set(e, ERR_INPUT, "field '%s': %.15g is out of range (%.15g to %.15g)", f->name, number, f->min,
			       f->max);
	return 0;
}

static int
check_env_name(const char *name, struct err *e)
{
	bool ok = isalpha((unsigned char)name[0]) || name[0] == '_';

	for (const char *p = name; *p; p++)
		ok = ok && isascii((unsigned char)*p) && (isalnum((unsigned char)*p) || *p == '_');
	if (!ok || strlen(name) > 255)
		return err_set(e, ERR_INPUT, "field 'env': '%.60s' is not a variable's name", name);
	if (str_starts(name, "PRATAI_"))
		return err_set(e, ERR_INPUT, "field 'env': '%.60s': names that start with PRATAI_ are taken", name);
	return 0;
}

static int
check_env(const struct field *f, const struct json *value, struct err *e)
{
	size_t bytes = 0;

	if (!json_is_object(value))
		return err_set(e, ERR_INPUT, "field 'env': must be an object of texts");
	if (json_count(value) > f->max)
		return err_set(e, ERR_INPUT, "field 'env': more than %.15g variables", f->max);
	for (const struct json *m = json_first(value); m; m = json_next(m)) {
		if (check_env_name(json_key(m), e))
			return -1;
		if (!json_is_string(m))
			return err_set(e, ERR_INPUT, "field 'env': '%.60s' must be a text", json_key(m));
		bytes += strlen(json_key(m)) + strlen(json_string_value(m)) + 2;
	}
	if (bytes > ENV_BYTES_MAX)
		return err_set(e, ERR_INPUT, "field 'env': %zu bytes in all, at most %d are allowed", bytes,
			       ENV_BYTES_MAX);
	return 0;
}

static int
check_tags(const struct field *f, const struct json *value, struct err *e)
{
	if (!json_is_array(value) || json_count(value) > f->max)
		return err_set(e, ERR_INPUT, "field 'tags': must be a list of at most %.15g texts", f->max);
	for (const struct json *m = json_first(value); m; m = json_next(m)) {
		const char *tag = json_string_value(m);
		if (!tag || !*tag || strlen(tag) > TAG_MAX)
			return err_set(e, ERR_INPUT, "field 'tags': a tag must be a text of 1 to %d bytes", TAG_MAX);
	}
	return 0;
}

static int
check_nets(const struct field *f, const struct json *value, struct err *e)
{
	struct net_rules rules;

	if (!json_is_array(value) || json_count(value) > f->max)
		return err_set(e, ERR_INPUT, "field 'allow': must be a list of at most %.15g texts", f->max);
	return function_allow_parse(value, &rules, e) ? err_wrap(e, "field 'allow'") : 0;
}

int
function_allow_parse(const struct json *list, struct net_rules *out, struct err *e)
{
	out->count = 0;
	for (const struct json *m = json_first(list); m; m = json_next(m)) {
		const char *text = json_string_value(m);

		if (!text || out->count == NET_RULES_MAX)
			return err_set(e, ERR_INPUT, "must be a list of at most %d texts", NET_RULES_MAX);
		if (net_rule_parse(text, &out->list[out->count], e))
			return -1;
		out->count++;
	}
	return 0;
}

static int
check_later(const struct field *f, const struct json *value, struct err *e)
{
	bool nothing = json_is_null(value) || (json_is_bool(value) && !json_bool_value(value)) ||
		       (json_is_array(value) && json_count(value) == 0);

	if (nothing)
		return 0;
	return err_set(e, ERR_INPUT, "field '%s': not supported by this version of Pratai", f->name);
}

static bool
may_be_null(const struct field *f)
{
	return (f->type == FIELD_WHOLE || f->type == FIELD_FRACTION) && isnan(f->number);
}

static int
check_field(const struct field *f, const struct json *value, struct err *e)
{
	if (json_is_null(value) && may_be_null(f))
		return 0;
	switch (f->type) {
	case FIELD_TEXT:
		return check_text(f, value, e);
	case FIELD_WHOLE:
	case FIELD_FRACTION:
		return check_number(f, value, e);
	case FIELD_ENV:
		return check_env(f, value, e);
	case FIELD_TAGS:
		return check_tags(f, value, e);
	case FIELD_NETS:
		return check_nets(f, value, e);
	case FIELD_LATER:
		return check_later(f, value, e);
	}
	return 0;
}

static void
put_default(struct json *settings, const struct field *f)
{
	if (f->type == FIELD_ENV)
		json_put(settings, f->name, json_object());
	else if (f->type == FIELD_TAGS || f->type == FIELD_NETS || !strcmp(f->name, "secrets"))
		json_put(settings, f->name, json_array());
	else if (f->type == FIELD_LATER && (!strcmp(f->name, "public") || !strcmp(f->name, "preload")))
		json_put_bool(settings, f->name, false);
	else if (f->text)
		json_put_str(settings, f->name, f->text);
	else if (isnan(f->number))
		json_put_null(settings, f->name);
	else if (f->type == FIELD_WHOLE)
		json_put_int(settings, f->name, (int64_t)f->number);
	else
		json_put_double(settings, f->name, f->number);
}

/* What no single field can tell. */
static int
check_together(const struct json *s, struct err *e)
{
	const char *event = json_str(s, "event");
	bool timer = event && !strcmp(event, "timer");

	if (!json_str(s, "name"))
		return err_set(e, ERR_INPUT, "field 'name': missing");
	if (timer && !json_is_number(json_get(s, "frequency")))
		return err_set(e, ERR_INPUT, "field 'frequency': a timer needs it (minutes)");
	if (!timer && json_is_number(json_get(s, "frequency")))
		return err_set(e, ERR_INPUT, "field 'frequency': only for event 'timer'");
	if (timer && !strcmp(json_str(s, "type"), "wait_for_response"))
		return err_set(e, ERR_INPUT, "field 'type': nobody waits for the answer of a timer; use async");
	if (json_count(json_get(s, "allow")) > 0 && strcmp(json_str(s, "network"), "egress"))
		return err_set(e, ERR_INPUT, "field 'allow': goes with network 'egress'");
	if (json_int(s, "tmp_size", 0) > json_int(s, "memory", 0))
		return err_set(e, ERR_INPUT, "field 'tmp_size': %lld MiB is more than the memory (%lld MiB), which it counts as",
			       (long long)json_int(s, "tmp_size", 0), (long long)json_int(s, "memory", 0));
	return 0;
}

static struct json *
apply(struct json *settings, const struct json *metadata, struct err *e)
{
	if (!json_is_object(metadata)) {
		err_set(e, ERR_INPUT, "metadata: must be a JSON object");
		goto fail;
	}
	for (const struct json *m = json_first(metadata); m; m = json_next(m)) {
		const struct field *f = find_field(json_key(m));

		if (!f) {
			err_set(e, ERR_INPUT, "field '%.80s': unknown", json_key(m));
			goto fail;
		}
		if (check_field(f, m, e))
			goto fail;
		if (f->type == FIELD_LATER)
			continue;
		json_put(settings, f->name, json_copy(m));
	}
	/* A small function gets a small /tmp, unless the user asked for one. */
	if (!json_get(metadata, "tmp_size") &&
	    json_int(settings, "tmp_size", 0) > json_int(settings, "memory", 0))
		json_put_int(settings, "tmp_size", json_int(settings, "memory", 0));
	/* Who takes the network away does not say again what it led to. */
	if (!json_get(metadata, "allow") && !strcmp(json_str(settings, "network"), "none"))
		json_put(settings, "allow", json_array());
	if (check_together(settings, e))
		goto fail;
	return settings;
fail:
	json_free(settings);
	return NULL;
}

struct json *
function_settings_new(const struct json *metadata, struct err *e)
{
	struct json *settings = json_object();

	for (int i = 0; i < FIELD_COUNT; i++)
		if (strcmp(fields[i].name, "name"))
			put_default(settings, &fields[i]);
	return apply(settings, metadata, e);
}

struct json *
function_settings_update(const struct json *settings, const struct json *metadata, struct err *e)
{
	const char *name = json_str(metadata, "name");

	if (name && strcmp(name, json_str(settings, "name"))) {
		err_set(e, ERR_INPUT, "field 'name': a function's name cannot be changed");
		return NULL;
	}
	return apply(json_copy(settings), metadata, e);
}

static bool
same_json(const struct json *a, const struct json *b)
{
	char *left = json_print(a), *right = json_print(b);
	bool same = left && right && !strcmp(left, right);

	free(left);
	free(right);
	return same;
}

bool
function_setting_is_versioned(const char *name)
{
	for (int i = 1; i < FIELD_COUNT; i++) /* 0: the name */
		if (!strcmp(fields[i].name, name))
			return !fields[i].record_only;
	return false;
}

bool
function_settings_need_version(const struct json *before, const struct json *after)
{
	for (int i = 0; i < FIELD_COUNT; i++)
		if (!fields[i].record_only &&
		    !same_json(json_get(before, fields[i].name), json_get(after, fields[i].name)))
			return true;
	return false;
}
