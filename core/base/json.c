/*
 * JSON as a tree: cJSON behind our names.
 *
 * cJSON alone is too kind for input that decides something: it takes bytes below 0x20 in
 * strings, any UTF-8, ends strings at an encoded NUL, and lets the first of two equal
 * keys win where other readers let the last one.  So json_parse asks json_scan first and
 * refuses the rest itself.
 *
 * cJSON keeps numbers as double and prints 15 digits of them.  Whole numbers beyond
 * 32 bits are therefore kept as "raw" values, the digits themselves; the readers below
 * know that a raw value that begins like a number is one.
 */
#include "core/base/json.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/str.h"

/* 2^53 - 1: the last whole number that a double cannot confuse with its neighbour. */
#define WHOLE_MAX 9007199254740991.0

static const cJSON *
c(const struct json *j)
{
	return (const cJSON *)j;
}

static cJSON *
m(struct json *j)
{
	return (cJSON *)j;
}

static struct json *
j(cJSON *item)
{
	return (struct json *)item;
}

static bool
is_raw_number(const cJSON *item)
{
	const char *text = cJSON_IsRaw(item) ? item->valuestring : NULL;

	return text && (*text == '-' || (*text >= '0' && *text <= '9'));
}

/* Turns a whole number beyond 32 bits into its digits, see above. */
static int
keep_digits(cJSON *item, struct err *e)
{
	char digits[32];
	double d = item->valuedouble;

	if (!isfinite(d))
		return err_set(e, ERR_INPUT, "the JSON holds a number out of range");
	if (fabs(d) > WHOLE_MAX || floor(d) != d || d == (double)item->valueint)
		return 0;
	snprintf(digits, sizeof(digits), "%lld", (long long)d);
	item->valuestring = strdup(digits);
	if (!item->valuestring)
		return err_set(e, ERR_NODE, "out of memory for a JSON value");
	item->type = (item->type & ~0xff) | cJSON_Raw;
	return 0;
}

static int
compare_keys(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Two equal keys: readers differ in which counts, so that one may see what another
 * checked not.  Sorting keeps an object with a million members from taking a day. */
static int
refuse_double_keys(const cJSON *object, struct err *e)
{
	size_t n = 0, i = 0;
	const cJSON *member;
	CLEAN_FREE const char **keys = NULL;

	cJSON_ArrayForEach(member, object)
		n++;
	if (n < 2)
		return 0;
	keys = calloc(n, sizeof(*keys));
	if (!keys)
		return err_set(e, ERR_NODE, "out of memory for JSON of %zu members", n);
	cJSON_ArrayForEach(member, object)
		keys[i++] = member->string;
	qsort(keys, n, sizeof(*keys), compare_keys);
	for (i = 1; i < n; i++)
		if (strcmp(keys[i - 1], keys[i]) == 0)
			return err_set(e, ERR_INPUT,
				       "the JSON has the key \"%.100s\" twice in one object",
				       keys[i]);
	return 0;
}

/* Depth is bounded by json_check, and with it this recursion. */
static int
refine(cJSON *item, struct err *e)
{
	cJSON *child;

	if (cJSON_IsNumber(item))
		return keep_digits(item, e);
	if (cJSON_IsObject(item) && refuse_double_keys(item, e) < 0)
		return -1;
	cJSON_ArrayForEach(child, item)
		if (refine(child, e) < 0)
			return -1;
	return 0;
}

/* An encoded NUL, which would end a C string before its time.  text is valid JSON. */
static const char *
find_encoded_nul(const char *text, size_t len)
{
	const char *p = text, *end = text + len;

	while (p < end && (p = memchr(p, '\\', (size_t)(end - p)))) {
		if (p[1] == 'u' && memcmp(p + 2, "0000", 4) == 0)
			return p;
		p += 2; /* over "\\" too: what follows that is no escape */
	}
	return NULL;
}

struct json *
json_parse(const void *data, size_t len, struct err *e)
{
	size_t at;
	const char *stop = NULL, *nul, *end = (const char *)data + len;
	cJSON *root;

	switch (json_scan(data, len, &at)) {
	case JSON_FORM_BAD:
		if (!len)
			err_set(e, ERR_INPUT, "not JSON: empty");
		else
			err_set(e, ERR_INPUT, "not JSON at byte %zu%s", at,
				at == len ? ", its end" : "");
		return NULL;
	case JSON_FORM_DEEP:
		err_set(e, ERR_INPUT, "JSON nested deeper than %d, at byte %zu", JSON_DEPTH_MAX,
			at);
		return NULL;
	case JSON_FORM_OK:
		break;
	}
	nul = find_encoded_nul(data, len);
	if (nul) {
		err_set(e, ERR_INPUT, "the JSON has an encoded NUL in a string at byte %zu",
			(size_t)(nul - (const char *)data));
		return NULL;
	}
	root = cJSON_ParseWithLengthOpts(data, len, &stop, 0);
	if (root && stop != end && *stop > ' ') {
		cJSON_Delete(root); /* some versions read 63 characters of a number */
		root = NULL;
	}
	if (!root) {
		/* Half a surrogate pair, or a longer number than that. */
		err_set(e, ERR_INPUT,
			"the JSON has a string or a number that cannot be kept, at byte %zu",
			stop ? (size_t)(stop - (const char *)data) : 0);
		return NULL;
	}
	if (refine(root, e) < 0) {
		cJSON_Delete(root);
		return NULL;
	}
	return j(root);
}

void
json_free(struct json *value)
{
	cJSON_Delete(m(value));
}

char *
json_print(const struct json *value)
{
	return value ? cJSON_PrintUnformatted(c(value)) : NULL;
}

/* ---- Reading ---- */

const struct json *
json_get(const struct json *object, const char *key)
{
	return cJSON_IsObject(c(object)) ? j(cJSON_GetObjectItemCaseSensitive(c(object), key))
					 : NULL;
}

bool
json_is_object(const struct json *value)
{
	return cJSON_IsObject(c(value));
}

bool
json_is_array(const struct json *value)
{
	return cJSON_IsArray(c(value));
}

bool
json_is_string(const struct json *value)
{
	return cJSON_IsString(c(value));
}

bool
json_is_number(const struct json *value)
{
	return cJSON_IsNumber(c(value)) || is_raw_number(c(value));
}

bool
json_is_bool(const struct json *value)
{
	return cJSON_IsBool(c(value));
}

bool
json_is_null(const struct json *value)
{
	return cJSON_IsNull(c(value));
}

const char *
json_string_value(const struct json *value)
{
	return cJSON_IsString(c(value)) ? c(value)->valuestring : NULL;
}

double
json_number_value(const struct json *value)
{
	if (cJSON_IsNumber(c(value)))
		return c(value)->valuedouble;
	return is_raw_number(c(value)) ? strtod(c(value)->valuestring, NULL) : 0;
}

bool
json_bool_value(const struct json *value)
{
	return cJSON_IsTrue(c(value));
}

const char *
json_key(const struct json *member)
{
	return member ? c(member)->string : NULL;
}

int
json_count(const struct json *value)
{
	return value ? cJSON_GetArraySize(c(value)) : 0;
}

const struct json *
json_first(const struct json *value)
{
	return value ? j(c(value)->child) : NULL;
}

const struct json *
json_next(const struct json *value)
{
	return value ? j(c(value)->next) : NULL;
}

const char *
json_str(const struct json *object, const char *key)
{
	return json_string_value(json_get(object, key));
}

static bool
whole(const cJSON *item, int64_t *out)
{
	double d;

	if (is_raw_number(item) && str_int(item->valuestring, INT64_MIN, INT64_MAX, out) == 0)
		return true;
	if (!json_is_number((const struct json *)item))
		return false;
	d = json_number_value((const struct json *)item);
	if (!(fabs(d) <= WHOLE_MAX) || floor(d) != d)
		return false;
	*out = (int64_t)d;
	return true;
}

int64_t
json_int(const struct json *object, const char *key, int64_t missing)
{
	int64_t value;

	return whole(c(json_get(object, key)), &value) ? value : missing;
}

bool
json_bool(const struct json *object, const char *key, bool missing)
{
	const struct json *value = json_get(object, key);

	return json_is_bool(value) ? json_bool_value(value) : missing;
}

bool
json_whole(const struct json *object, const char *key, int64_t *out)
{
	return whole(c(json_get(object, key)), out);
}

/* ---- Building ---- */

/*
 * The text with U+FFFD in place of what is not UTF-8: a program's own output or a file's
 * name may be anything, what we print is always JSON.  NULL when s is fine as it is.
 */
static char *
repaired(const char *s)
{
	size_t len = strlen(s), at = 0, n;
	struct buf b = {.max = 3 * len + 1};

	if (str_is_utf8(s, len))
		return NULL;
	while (at < len) {
		for (n = 1; n <= 4 && at + n <= len && !str_is_utf8(s + at, n); n++)
			;
		if (n <= 4 && at + n <= len) {
			buf_put(&b, s + at, n);
			at += n;
		} else {
			buf_puts(&b, "\xef\xbf\xbd");
			at++;
		}
	}
	return buf_steal(&b);
}

struct json *
json_object(void)
{
	return j(cJSON_CreateObject());
}

struct json *
json_array(void)
{
	return j(cJSON_CreateArray());
}

struct json *
json_new_string(const char *s)
{
	CLEAN_FREE char *better = repaired(s);

	return j(cJSON_CreateString(better ? better : s));
}

struct json *
json_new_int(int64_t i)
{
	char digits[32];

	if (i >= INT32_MIN && i <= INT32_MAX)
		return j(cJSON_CreateNumber((double)i));
	snprintf(digits, sizeof(digits), "%lld", (long long)i);
	return j(cJSON_CreateRaw(digits));
}

struct json *
json_copy(const struct json *value)
{
	return value ? j(cJSON_Duplicate(c(value), 1)) : NULL;
}

/* Replaces a member of that name: an object never gets a key twice. */
void
json_put(struct json *object, const char *key, struct json *value)
{
	CLEAN_FREE char *better = repaired(key);
	cJSON_bool done;

	if (!value)
		return;
	if (better)
		key = better;
	if (json_get(object, key))
		done = cJSON_ReplaceItemInObjectCaseSensitive(m(object), key, m(value));
	else
		done = cJSON_AddItemToObject(m(object), key, m(value));
	if (!done)
		cJSON_Delete(m(value));
}

void
json_put_str(struct json *object, const char *key, const char *s)
{
	json_put(object, key, s ? json_new_string(s) : j(cJSON_CreateNull()));
}

void
json_put_int(struct json *object, const char *key, int64_t i)
{
	json_put(object, key, json_new_int(i));
}

void
json_put_double(struct json *object, const char *key, double d)
{
	json_put(object, key, j(cJSON_CreateNumber(d)));
}

void
json_put_bool(struct json *object, const char *key, bool b)
{
	json_put(object, key, j(cJSON_CreateBool(b)));
}

void
json_put_null(struct json *object, const char *key)
{
	json_put(object, key, j(cJSON_CreateNull()));
}

void
json_put_raw(struct json *object, const char *key, const void *data, size_t len)
{
	CLEAN_FREE char *text = len ? strndup(data, len) : strdup("null");

	if (text)
		json_put(object, key, j(cJSON_CreateRaw(text)));
}

void
json_add(struct json *array, struct json *value)
{
	if (value && !cJSON_AddItemToArray(m(array), m(value)))
		cJSON_Delete(m(value));
}

void
json_add_str(struct json *array, const char *s)
{
	json_add(array, s ? json_new_string(s) : j(cJSON_CreateNull()));
}

void
json_remove(struct json *object, const char *key)
{
	cJSON_DeleteItemFromObjectCaseSensitive(m(object), key);
}
