/* What a function's metadata may say, field by field; versions and records. */
#include "core/model/function.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/str.h"
#include "core/model/function_record.h"

#define DIGEST "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static struct json *
parse(const char *text)
{
	struct err e = { 0 };
	struct json *j = json_parse(text, strlen(text), &e);

	if (!j)
		print_error("%.200s: %s\n", text, e.text);
	assert_non_null(j);
	return j;
}

/* The settings, or NULL with e. */
static struct json *
create(const char *metadata, struct err *e)
{
	struct json *j = parse(metadata), *settings;

	memset(e, 0, sizeof *e);
	settings = function_settings_new(j, e);
	json_free(j);
	return settings;
}

static void
taken(const char *metadata)
{
	struct err e;
	struct json *settings = create(metadata, &e);

	if (!settings)
		print_error("%.300s: %s\n", metadata, e.text);
	assert_non_null(settings);
	json_free(settings);
}

static void
refused(const char *metadata, const char *named)
{
	struct err e;
	struct json *settings = create(metadata, &e);

	if (settings || !strstr(e.text, named))
		print_error("%.300s: '%s' should name '%s'\n", metadata, settings ? "taken" : e.text, named);
	assert_null(settings);
	assert_int_equal(e.cls, ERR_INPUT);
	assert_non_null(strstr(e.text, named));
	assert_true(str_is_utf8(e.text, strlen(e.text)));
	assert_null(strchr(e.text, '\n'));
}

static void
test_defaults(void **state)
{
	struct err e;
	struct json *s = create("{\"name\":\"echo\"}", &e);
	static const char *const nulls[] = { "frequency", "limit", "subscribe_to", "cron", "timezone",
					     "source", "endpoint" };

	(void)state;
	assert_non_null(s);
	assert_string_equal(json_str(s, "runtime"), "python3");
	assert_string_equal(json_str(s, "image"), "host");
	assert_string_equal(json_str(s, "type"), "async");
	assert_string_equal(json_str(s, "event"), "webhook");
	assert_string_equal(json_str(s, "network"), "none");
	assert_string_equal(json_str(s, "description"), "");
	assert_int_equal(json_int(s, "memory", 0), 128);
	assert_int_equal(json_int(s, "pids", 0), 64);
	assert_int_equal(json_int(s, "timeout", 0), 60);
	assert_int_equal(json_int(s, "tmp_size", 0), 64);
	assert_int_equal(json_int(s, "retries", 0), 2);
	assert_true(json_number_value(json_get(s, "cpus")) == 1.0);
	assert_int_equal(json_count(json_get(s, "env")), 0);
	assert_true(json_is_object(json_get(s, "env")));
	assert_true(json_is_array(json_get(s, "tags")));
	assert_false(json_bool(s, "public", true));
	assert_false(json_bool(s, "preload", true));
	for (size_t i = 0; i < sizeof nulls / sizeof nulls[0]; i++)
		assert_true(json_is_null(json_get(s, nulls[i])));
	json_free(s);
}

/* A record reads the same whichever options were given, and in which order. */
static void
test_order_of_settings(void **state)
{
	struct err e;
	struct json *a = create("{\"memory\":64,\"name\":\"f\",\"type\":\"async\",\"tags\":[]}", &e);
	struct json *b = create("{\"name\":\"f\"}", &e);
	const struct json *x = json_first(a), *y = json_first(b);

	(void)state;
	assert_non_null(x);
	for (; x && y; x = json_next(x), y = json_next(y))
		assert_string_equal(json_key(x), json_key(y));
	assert_true(!x && !y);
	json_free(a);
	json_free(b);
}

static void
test_names(void **state)
{
	static const char *const good[] = { "a", "Z9", "0", "a.b-c_d", "music_tag", "a--", "a.." };
	static const char *const bad[] = { "", "-a", ".a", "_a", "a/b", "../x", "a b", "a\\n", "a\\t", "é",
					   "a\\u00e9", "a\\ud83d\\ude00", "a%", "a*", "a:b", "a\\u007f" };
	char text[20000], name[16000];

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		snprintf(text, sizeof text, "{\"name\":\"%s\"}", good[i]);
		taken(text);
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		snprintf(text, sizeof text, "{\"name\":\"%s\"}", bad[i]);
		refused(text, "'name'");
	}
	for (size_t len = 62; len <= 65; len++) {
		snprintf(name, sizeof name, "%0*d", (int)len, 0);
		snprintf(text, sizeof text, "{\"name\":\"%s\"}", name);
		if (len <= 63)
			taken(text);
		else
			refused(text, "'name'");
	}
	snprintf(name, sizeof name, "%010240d", 0);
	snprintf(text, sizeof text, "{\"name\":\"%s\"}", name);
	refused(text, "10240");
	/* It would be looked up as an id, and never found. */
	refused("{\"name\":\"01931100-0001-7001-8001-000000000000\"}", "'name'");
	taken("{\"name\":\"01931100-0001-7001-8001-00000000000\"}");
	refused("{}", "'name': missing");
	refused("{\"name\":null}", "'name'");
	refused("{\"name\":5}", "'name'");
	refused("{\"name\":[\"a\"]}", "'name'");
}

/* JSON cannot smuggle a NUL into a C string: the parser says no before we look. */
static void
test_an_encoded_nul_is_refused(void **state)
{
	static const char text[] = "{\"name\":\"a\\u0000b\"}";
	struct err e = { 0 };

	(void)state;
	assert_null(json_parse(text, strlen(text), &e));
	assert_int_equal(e.cls, ERR_INPUT);
	assert_non_null(strstr(e.text, "NUL"));
}

static void
test_numbers_at_their_bounds(void **state)
{
	static const struct {
		const char *name;
		const char *min, *max, *below, *above;
		bool whole, nullable;
	} table[] = {
		{ "memory", "16", "8192", "15", "8193", true, false },
		{ "pids", "2", "4096", "1", "4097", true, false },
		{ "timeout", "1", "3600", "0", "3601", true, false },
		{ "tmp_size", "1", "128", "0", "8193", true, false },
		{ "limit", "1", "100000", "0", "100001", true, true },
		{ "retries", "0", "100", "-1", "101", true, false },
		{ "cpus", "0.01", "64", "0.009", "64.01", false, false },
	};
	static const char *const wrong[] = { "\"abc\"", "\"128\"", "true", "[]", "{}", "[128]", "-1e9", "1e9",
					     "1e300", "-0.5" };
	char text[200];

	(void)state;
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
		const char *const good[] = { table[i].min, table[i].max };
		const char *const bad[] = { table[i].below, table[i].above };

#define WITH(value) snprintf(text, sizeof text, "{\"name\":\"f\",\"%s\":%s}", table[i].name, value)
		for (int k = 0; k < 2; k++) {
			WITH(good[k]);
			taken(text);
			WITH(bad[k]);
			refused(text, table[i].name);
		}
		for (size_t k = 0; k < sizeof wrong / sizeof wrong[0]; k++) {
			WITH(wrong[k]);
			refused(text, table[i].name);
		}
		WITH("2.5");
		if (table[i].whole)
			refused(text, "whole");
		else
			taken(text);
		WITH("null");
		if (table[i].nullable)
			taken(text);
		else
			refused(text, table[i].name);
	}
	for (size_t k = 0; k < 3; k++) { /* the issue's own list */
		static const char *const memory[] = { "0", "-1", "1e9" };

		snprintf(text, sizeof text, "{\"name\":\"f\",\"memory\":%s}", memory[k]);
		refused(text, "16 to 8192");
	}
	taken("{\"name\":\"f\",\"memory\":64.0}");
	taken("{\"name\":\"f\",\"memory\":1e2}");
}

static void
test_texts(void **state)
{
	static const struct {
		const char *name, *good, *bad[8];
	} table[] = {
		{ "description", "\"\"", { "5", "null", "[]", "{}", "false" } },
		{ "runtime", "\"python3\"", { "\"\"", "5", "\"a/b\"", "\"../x\"", "\".hidden\"", "null",
					      "\"01234567890123456789012345678901\"" } },
		{ "image", "\"debian/base:12\"", { "\"\"", "\"-x\"", "\"a b\"", "\"a//b\"", "1", "\"ho|st\"",
						   "\"../x\"", "null" } },
		{ "image", "\"host\"", { "\"x/\"" } },
		{ "image", "\"sha256:" DIGEST "\"", { "\"/" DIGEST "\"" } },
		{ "type", "\"wait_for_response\"", { "\"sync\"", "\"async|\"", "\"\"", "\"asyn\"", "7",
						     "\"async|wait_for_response\"" } },
		{ "event", "\"webhook\"", { "\"message\"", "\"cron\"", "\"\"", "null" } },
		{ "network", "\"egress\"", { "\"internet\"", "\"host\"", "\"\"", "true" } },
	};
	char text[8192], name[8000];

	(void)state;
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
		snprintf(text, sizeof text, "{\"name\":\"f\",\"%s\":%s}", table[i].name, table[i].good);
		taken(text);
		for (int k = 0; k < 8 && table[i].bad[k]; k++) {
			snprintf(text, sizeof text, "{\"name\":\"f\",\"%s\":%s}", table[i].name, table[i].bad[k]);
			refused(text, table[i].name);
		}
	}
	for (int len = 200; len <= 201; len++) {
		snprintf(text, sizeof text, "{\"name\":\"f\",\"image\":\"%0*d\"}", len, 0);
		if (len == 200)
			taken(text);
		else
			refused(text, "'image'");
	}
	for (size_t len = 4096; len <= 4097; len++) {
		snprintf(name, sizeof name, "%0*d", (int)len, 0);
		snprintf(text, sizeof text, "{\"name\":\"f\",\"description\":\"%s\"}", name);
		if (len == 4096)
			taken(text);
		else
			refused(text, "description");
	}
}

static void
test_unknown_fields_and_those_for_later(void **state)
{
	static const char *const later[] = { "subscribe_to", "cron", "timezone", "source", "endpoint",
					     "public", "secrets", "preload" };
	char text[2000], key[600] = "";

	(void)state;
	refused("{\"name\":\"f\",\"colour\":1}", "'colour': unknown");
	refused("{\"name\":\"f\",\"Memory\":128}", "'Memory': unknown");
	refused("{\"name\":\"f\",\"\":1}", "'': unknown");
	refused("{\"name\":\"f\",\"function_id\":\"x\"}", "unknown");
	/* A long name is cut in the error, and never inside a character. */
	for (int i = 0; i < 100; i++)
		snprintf(key + strlen(key), sizeof key - strlen(key), "%s", i ? "\xc3\xa9" : "x");
	snprintf(text, sizeof text, "{\"name\":\"f\",\"%s\":1}", key);
	refused(text, "unknown");
	for (size_t i = 0; i < sizeof later / sizeof later[0]; i++) {
		static const char *const nothing[] = { "null", "false", "[]" };

		for (int k = 0; k < 3; k++) {
			snprintf(text, sizeof text, "{\"name\":\"f\",\"%s\":%s}", later[i], nothing[k]);
			taken(text);
		}
		snprintf(text, sizeof text, "{\"name\":\"f\",\"%s\":\"x\"}", later[i]);
		refused(text, "not supported");
		snprintf(text, sizeof text, "{\"name\":\"f\",\"%s\":true}", later[i]);
		refused(text, later[i]);
	}
	refused("[]", "object");
	refused("null", "object");
	refused("\"name\"", "object");
}

static void
test_env(void **state)
{
	static const char *const good[] = { "{}", "{\"A\":\"\"}", "{\"_\":\"x\"}", "{\"a9_Z\":\"\\n=é\"}",
					    "{\"PRATAI\":\"x\"}" };
	static const char *const bad[] = { "null", "[]", "\"A=b\"", "{\"\":\"x\"}", "{\"9A\":\"x\"}",
					   "{\"A-B\":\"x\"}", "{\"A=B\":\"x\"}", "{\"A B\":\"x\"}",
					   "{\"é\":\"x\"}", "{\"A\":1}", "{\"A\":null}", "{\"A\":[\"x\"]}",
					   "{\"PRATAI_EVENT_ID\":\"x\"}", "{\"A\":\"x\",\"-\":\"y\"}" };
	char text[80000], value[40000], *p;

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		snprintf(text, sizeof text, "{\"name\":\"f\",\"env\":%s}", good[i]);
		taken(text);
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		snprintf(text, sizeof text, "{\"name\":\"f\",\"env\":%s}", bad[i]);
		refused(text, "'env'");
	}
	for (int n = 64; n <= 65; n++) {
		p = text + snprintf(text, sizeof text, "{\"name\":\"f\",\"env\":{");
		for (int i = 0; i < n; i++)
			p += snprintf(p, 64, "%s\"V%d\":\"x\"", i ? "," : "", i);
		snprintf(p, 8, "}}");
		if (n == 64)
			taken(text);
		else
			refused(text, "64");
	}
	for (int n = 255; n <= 256; n++) {
		snprintf(value, sizeof value, "A%0*d", n - 1, 0);
		snprintf(text, sizeof text, "{\"name\":\"f\",\"env\":{\"%s\":\"x\"}}", value);
		if (n == 255)
			taken(text);
		else
			refused(text, "'env'");
	}
	for (int n = (32 << 10) - 3; n <= (32 << 10) - 2; n++) { /* "A", "=", NUL */
		snprintf(value, sizeof value, "%0*d", n, 0);
		snprintf(text, sizeof text, "{\"name\":\"f\",\"env\":{\"A\":\"%s\"}}", value);
		if (n == (32 << 10) - 3)
			taken(text);
		else
			refused(text, "in all");
	}
}

static void
test_allow(void **state)
{
	static const char *const bad[] = {
		"null", "\"10.0.0.1\"", "{}", "[1]", "[\"\"]", "[\"x\"]", "[\"10.0.0.1/8\"]", "[[]]",
		"[\"10.0.0.1\",\"10.0.0.1:0\"]", "[\"::1\"]",
	};
	char text[4096];
	size_t n;

	(void)state;
	taken("{\"name\":\"f\",\"allow\":[]}");
	taken("{\"name\":\"f\",\"network\":\"egress\",\"allow\":[\"10.0.0.0/8:1-2\",\"127.0.0.1\"]}");
	refused("{\"name\":\"f\",\"allow\":[\"10.0.0.1\"]}", "network 'egress'");
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		snprintf(text, sizeof text, "{\"name\":\"f\",\"network\":\"egress\",\"allow\":%s}", bad[i]);
		refused(text, "'allow'");
	}
	for (int count = 64; count <= 65; count++) {
		n = (size_t)snprintf(text, sizeof text, "{\"name\":\"f\",\"network\":\"egress\",\"allow\":[\"1.1.1.1\"");
		for (int i = 1; i < count; i++)
			n += (size_t)snprintf(text + n, sizeof text - n, ",\"1.1.1.1\"");
		snprintf(text + n, sizeof text - n, "]}");
		if (count == 64)
			taken(text);
		else
			refused(text, "'allow'");
	}
}

static void
test_tags(void **state)
{
	char text[8192], *p;

	(void)state;
	taken("{\"name\":\"f\",\"tags\":[]}");
	taken("{\"name\":\"f\",\"tags\":[\"a\",\"b c\",\"é\"]}");
	refused("{\"name\":\"f\",\"tags\":\"a\"}", "'tags'");
	refused("{\"name\":\"f\",\"tags\":{\"a\":\"b\"}}", "'tags'");
	refused("{\"name\":\"f\",\"tags\":[1]}", "'tags'");
	refused("{\"name\":\"f\",\"tags\":[\"\"]}", "'tags'");
	refused("{\"name\":\"f\",\"tags\":null}", "'tags'");
	for (int n = 64; n <= 65; n++) {
		snprintf(text, sizeof text, "{\"name\":\"f\",\"tags\":[\"%0*d\"]}", n, 0);
		if (n == 64)
			taken(text);
		else
			refused(text, "'tags'");
	}
	for (int n = 32; n <= 33; n++) {
		p = text + snprintf(text, sizeof text, "{\"name\":\"f\",\"tags\":[");
		for (int i = 0; i < n; i++)
			p += snprintf(p, 64, "%s\"t\"", i ? "," : "");
		snprintf(p, 8, "]}");
		if (n == 32)
			taken(text);
		else
			refused(text, "32");
	}
}

static void
test_what_no_single_field_can_tell(void **state)
{
	struct err e;
	struct json *s;

	(void)state;
	taken("{\"name\":\"f\",\"event\":\"timer\",\"frequency\":5}");
	refused("{\"name\":\"f\",\"event\":\"timer\"}", "'frequency'");
	refused("{\"name\":\"f\",\"event\":\"timer\",\"frequency\":null}", "'frequency'");
	refused("{\"name\":\"f\",\"frequency\":5}", "'frequency'");
	refused("{\"name\":\"f\",\"event\":\"timer\",\"frequency\":0}", "'frequency'");
	refused("{\"name\":\"f\",\"event\":\"timer\",\"frequency\":527041}", "'frequency'");
	refused("{\"name\":\"f\",\"event\":\"timer\",\"frequency\":5,\"type\":\"wait_for_response\"}", "'type'");
	refused("{\"name\":\"f\",\"memory\":32,\"tmp_size\":33}", "'tmp_size'");
	taken("{\"name\":\"f\",\"memory\":32,\"tmp_size\":32}");
	/* A small function gets a small /tmp by itself. */
	s = create("{\"name\":\"f\",\"memory\":32}", &e);
	assert_non_null(s);
	assert_int_equal(json_int(s, "tmp_size", 0), 32);
	json_free(s);
}

/* ---- updates ---- */

static struct json *
update(const char *before, const char *change, bool *needs_version, struct err *e)
{
	struct json *old = create(before, e), *metadata = parse(change), *new;

	assert_non_null(old);
	memset(e, 0, sizeof *e);
	new = function_settings_update(old, metadata, e);
	if (new && needs_version)
		*needs_version = function_settings_need_version(old, new);
	json_free(old);
	json_free(metadata);
	return new;
}

static void
test_updates_change_what_they_name(void **state)
{
	static const char before[] = "{\"name\":\"f\",\"memory\":256,\"env\":{\"A\":\"1\"},\"limit\":3}";
	static const struct {
		const char *change;
		bool needs_version;
	} table[] = {
		{ "{}", false },
		{ "{\"name\":\"f\"}", false },
		{ "{\"description\":\"new\"}", false },
		{ "{\"tags\":[\"x\"]}", false },
		{ "{\"memory\":256}", false }, /* as it is */
		{ "{\"env\":{\"A\":\"1\"}}", false },
		{ "{\"image\":\"host\"}", false },
		{ "{\"image\":\"debian\"}", true },
		{ "{\"memory\":512}", true },
		{ "{\"memory\":32}", true },
		{ "{\"env\":{}}", true },
		{ "{\"limit\":null}", true },
		{ "{\"limit\":4}", true },
		{ "{\"timeout\":1}", true },
		{ "{\"type\":\"wait_for_response\"}", true },
		{ "{\"event\":\"timer\",\"frequency\":1}", true },
		{ "{\"description\":\"new\",\"pids\":65}", true },
	};
	struct err e;
	struct json *s;

	(void)state;
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
		bool needs = !table[i].needs_version;

		s = update(before, table[i].change, &needs, &e);
		assert_non_null(s);
		if (needs != table[i].needs_version)
			print_error("%s\n", table[i].change);
		assert_int_equal(needs, table[i].needs_version);
		json_free(s);
	}
	s = update(before, "{\"memory\":512}", NULL, &e);
	assert_int_equal(json_int(s, "memory", 0), 512);
	assert_int_equal(json_int(s, "limit", 0), 3);
	assert_string_equal(json_str(json_get(s, "env"), "A"), "1");
	json_free(s);
	s = update(before, "{\"memory\":32}", NULL, &e); /* /tmp shrinks with it */
	assert_int_equal(json_int(s, "tmp_size", 0), 32);
	json_free(s);
}

static void
test_updates_are_checked_like_creates(void **state)
{
	static const struct {
		const char *change, *named;
	} table[] = {
		{ "{\"name\":\"g\"}", "cannot be changed" }, { "{\"name\":5}", "'name'" },
		{ "{\"name\":null}", "'name'" }, { "{\"memory\":0}", "'memory'" },
		{ "{\"colour\":1}", "'colour'" }, { "{\"frequency\":5}", "'frequency'" },
		{ "{\"event\":\"timer\"}", "'frequency'" }, { "[]", "object" }, { "null", "object" },
		{ "{\"tmp_size\":8192}", "'tmp_size'" }, { "{\"cron\":\"* * * * *\"}", "'cron'" },
	};
	struct err e;

	(void)state;
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
		struct json *s = update("{\"name\":\"f\"}", table[i].change, NULL, &e);

		if (s || !strstr(e.text, table[i].named))
			print_error("%s: %s\n", table[i].change, s ? "taken" : e.text);
		assert_null(s);
		assert_int_equal(e.cls, ERR_INPUT);
		assert_non_null(strstr(e.text, table[i].named));
	}
}

/* ---- versions and records ---- */

static struct function_version
version_of(struct json *settings)
{
	static const struct id function = { { 1, 2, 3 } };
	struct function_version v;
	struct err e;
	char digest[65];

	snprintf(digest, sizeof digest, "%064d", 7);
	assert_int_equal(function_version_from_settings(settings, &function, "p", 4, digest, &v, &e), 0);
	return v;
}

static void
reads_back(const struct function_version *v)
{
	struct json *j = function_version_encode(v), *again;
	char *text = json_print(j), *text_again;
	struct function_version back;
	struct err e = { 0 };

	json_free(j);
	j = parse(text);
	if (function_version_parse(j, &back, &e))
		print_error("%s\n", e.text);
	assert_int_equal(e.cls, ERR_NONE);
	again = function_version_encode(&back);
	text_again = json_print(again);
	assert_string_equal(text, text_again);
	json_free(j);
	json_free(again);
	function_version_clear(&back);
	free(text);
	free(text_again);
}

static void
test_a_version_is_what_the_settings_say(void **state)
{
	struct err e;
	struct json *s = create("{\"name\":\"f\",\"cpus\":0.01,\"memory\":8192,\"tmp_size\":8192,\"pids\":4096,"
				"\"timeout\":3600,\"retries\":100,\"limit\":100000,\"env\":{\"A\":\"b\"},"
				"\"type\":\"wait_for_response\"}", &e);
	struct function_version v = version_of(s), copy;

	(void)state;
	assert_int_equal(v.cpu_millis, 10);
	assert_int_equal(v.memory_mib, 8192);
	assert_int_equal(v.type, TYPE_WAIT);
	assert_int_equal(v.state, VERSION_BUILDING);
	assert_int_equal(v.limit, 100000);
	assert_int_equal(v.version, 4);
	assert_string_equal(v.env, "{\"A\":\"b\"}");
	reads_back(&v);
	v.own_runtime = strdup("{\"command\":[\"/x\",\"y\"],\"env\":{\"A\":\"b\"}}");
	reads_back(&v);
	assert_int_equal(function_version_copy(&copy, &v), 0);
	assert_ptr_not_equal(copy.env, v.env);
	assert_string_equal(copy.own_runtime, v.own_runtime);
	reads_back(&copy);
	function_version_clear(&copy);
	function_version_clear(&v);
	json_free(s);
}

/* Whatever is accepted can be built: its version passes through a message. */
static void
test_the_largest_env_makes_a_version_that_reads(void **state)
{
	static char text[300000];
	char *p = text + snprintf(text, 64, "{\"name\":\"f\",\"env\":{\"A\":\"");
	struct function_version v;
	struct json *s;
	struct err e;

	(void)state;
	for (int i = 0; i < (32 << 10) - 3; i++)
		p += snprintf(p, 64, "\\u0001");
	snprintf(p, 8, "\"}}");
	s = create(text, &e);
	assert_non_null(s);
	v = version_of(s);
	reads_back(&v);
	function_version_clear(&v);
	json_free(s);
}

static void
test_a_record_survives_the_store(void **state)
{
	struct function f = { .id = { { 9 } }, .project_id = "p", .user_id = "u", .serving = 2, .latest = 3,
			      .state = VERSION_FAILED, .package_bytes = 1ull << 26,
			      .created_us = 1700000000000001, .updated_us = 1700000000000002 };
	struct function back;
	struct json *j, *record;
	struct err e;
	char *text;

	(void)state;
	f.settings = create("{\"name\":\"tick\",\"event\":\"timer\",\"frequency\":5,\"limit\":2}", &e);
	f.state_reason = strdup("pip said no");
	snprintf(f.image_digest, sizeof f.image_digest, DIGEST);
	function_settle(&f);
	assert_string_equal(f.name, "tick");
	assert_int_equal(f.frequency_min, 5);
	j = function_encode(&f);
	text = json_print(j);
	json_free(j);
	assert_int_equal(function_decode(text, strlen(text), &back, &e), 0);
	assert_true(id_equal(&back.id, &f.id));
	assert_int_equal(back.serving, 2);
	assert_int_equal(back.latest, 3);
	assert_int_equal(back.state, VERSION_FAILED);
	assert_string_equal(back.state_reason, "pip said no");
	assert_int_equal(back.limit, 2);
	assert_int_equal(back.package_bytes, 1ull << 26);
	assert_int_equal(back.created_us, f.created_us);
	assert_string_equal(back.image_digest, DIGEST);
	record = function_record(&back);
	assert_string_equal(json_str(record, "image_digest"), DIGEST);
	assert_string_equal(json_str(record, "name"), "tick");
	assert_string_equal(json_str(record, "tenant_id"), "p");
	assert_int_equal(json_int(record, "version", 0), 2);
	assert_string_equal(json_str(record, "created_at"), "2023-11-14T22:13:20.000001Z");
	json_free(record);
	for (size_t cut = 0; cut < strlen(text); cut++) {
		struct function broken;

		assert_int_equal(function_decode(text, cut, &broken, &e), -1);
		assert_int_equal(e.cls, ERR_NODE);
	}
	free(text);
	function_clear(&back);
	function_clear(&f);
}

/* The way back to a version is the way back to its image, wherever its name leads now. */
static void
test_a_version_keeps_its_image(void **state)
{
	struct function f = { .id = { { 9 } }, .latest = 1 };
	struct function_version v;
	struct json *blobs = parse("[\"" DIGEST "\"]"), *document, *record;
	struct version_layers layers;
	struct err e;

	(void)state;
	f.settings = create("{\"name\":\"f\",\"image\":\"debian\"}", &e);
	function_settle(&f);
	assert_int_equal(function_version_from_settings(f.settings, &f.id, "p", 1, DIGEST, &v, &e), 0);
	memcpy(v.image_digest, DIGEST, sizeof v.image_digest);
	memcpy(v.layer_digest, DIGEST, sizeof v.layer_digest);
	v.state = VERSION_READY;
	document = function_version_document(&v, &f, blobs, 1);
	assert_string_equal(json_string_value(json_first(json_get(document, "image_blobs"))), DIGEST);
	record = function_version_record(document, 1);
	assert_string_equal(json_str(record, "image"), "debian");
	assert_string_equal(json_str(record, "image_digest"), DIGEST);
	json_free(record);
	json_free(f.settings);
	f.settings = create("{\"name\":\"f\"}", &e);
	assert_int_equal(function_restore(&f, document, &layers, &e), 0);
	assert_string_equal(json_str(f.settings, "image"), "debian");
	assert_string_equal(f.image_digest, DIGEST);
	json_remove(document, "image_digest"); /* of an earlier release */
	assert_int_equal(function_restore(&f, document, &layers, &e), 0);
	assert_string_equal(f.image_digest, "");
	json_free(document);
	document = function_version_document(&v, &f, NULL, 1);
	assert_int_equal(json_count(json_get(document, "image_blobs")), 0);
	json_free(document);
	json_free(blobs);
	function_version_clear(&v);
	function_clear(&f);
}

static void
test_ids_of_versions_and_builds(void **state)
{
	struct id one = { { 1, 0x93 } }, two = { { 1, 0x94 } }, builds[200];
	char text[VERSION_ID_MAX];

	(void)state;
	function_version_id(&one, UINT32_MAX, text);
	assert_string_equal(text, "01930000-0000-0000-0000-000000000000.4294967295");
	for (unsigned i = 0; i < 200; i++) {
		builds[i] = function_build_id(i < 100 ? &one : &two, i % 100 + 1);
		assert_true(id_time_ms(&builds[i]) == id_time_ms(i < 100 ? &one : &two));
		for (unsigned k = 0; k < i; k++)
			assert_false(id_equal(&builds[i], &builds[k]));
	}
	one = function_build_id(&two, 1);
	assert_true(id_equal(&one, &builds[100])); /* computed, not drawn */
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_order_of_settings),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_an_encoded_nul_is_refused),
		cmocka_unit_test(test_numbers_at_their_bounds),
		cmocka_unit_test(test_texts),
		cmocka_unit_test(test_unknown_fields_and_those_for_later),
		cmocka_unit_test(test_env),
		cmocka_unit_test(test_allow),
		cmocka_unit_test(test_tags),
		cmocka_unit_test(test_what_no_single_field_can_tell),
		cmocka_unit_test(test_updates_change_what_they_name),
		cmocka_unit_test(test_updates_are_checked_like_creates),
		cmocka_unit_test(test_a_version_is_what_the_settings_say),
		cmocka_unit_test(test_the_largest_env_makes_a_version_that_reads),
		cmocka_unit_test(test_a_record_survives_the_store),
		cmocka_unit_test(test_a_version_keeps_its_image),
		cmocka_unit_test(test_ids_of_versions_and_builds),
	};

	return cmocka_run_group_tests_name("function", tests, NULL, NULL);
}
