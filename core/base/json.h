/*
 * JSON values, over cJSON, which no other file includes.  Text from outside is checked
 * by json_check first: depth and form are bounded before a tree is built.
 */
#ifndef PRATAI_JSON_H
#define PRATAI_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct json; /* a value; belongs to its parent once put into one */

enum { JSON_DEPTH_MAX = 512 };

/* ---- Bytes, without a tree ---- */

enum json_form {
	JSON_FORM_OK,
	JSON_FORM_BAD,  /* not JSON (RFC 8259), or not UTF-8, or something follows */
	JSON_FORM_DEEP, /* nested deeper than JSON_DEPTH_MAX */
};
enum json_form json_check(const void *data, size_t len);
/* As json_check; *at is the offset of the fault, len when the text ends too early. */
enum json_form json_scan(const void *data, size_t len, size_t *at);

/*
 * When data is a JSON object whose only member is key: true, and the bytes of its
 * value, as they stand, at data[*at .. *at+*n).  False: *at and *n are as they were.  data
 * has passed json_check.
 */
bool json_only_member(const void *data, size_t len, const char *key, size_t *at, size_t *n);

/* The bytes of the member's value, the first of that name, in the JSON object data, which has
 * passed json_check.  False: it is not there, and *at and *n are as they were. */
bool json_member(const void *data, size_t len, const char *key, size_t *at, size_t *n);

/* ---- Trees ---- */

/* The value, to be freed with json_free.  NULL: not JSON; e (ERR_INPUT) says where. */
struct json *json_parse(const void *data, size_t len, struct err *e);
void json_free(struct json *j);

/* One line; malloc'd.  NULL when memory ran out. */
char *json_print(const struct json *j);

/* Reading.  All take NULL and give "not there". */
const struct json *json_get(const struct json *object, const char *key);
bool json_is_object(const struct json *j);
bool json_is_array(const struct json *j);
bool json_is_string(const struct json *j);
bool json_is_number(const struct json *j);
bool json_is_bool(const struct json *j);
bool json_is_null(const struct json *j); /* a JSON null, not a missing value */
const char *json_string_value(const struct json *j); /* NULL unless a string */
double json_number_value(const struct json *j);      /* 0 unless a number */
bool json_bool_value(const struct json *j);          /* false unless true */
const char *json_key(const struct json *member);     /* of an object's member */
int json_count(const struct json *j);
/* for (m = json_first(j); m; m = json_next(m)): members or items in order */
const struct json *json_first(const struct json *j);
const struct json *json_next(const struct json *j);

/* The member as a type.  The first NULL / the default when missing or of another type. */
const char *json_str(const struct json *object, const char *key);
int64_t json_int(const struct json *object, const char *key, int64_t missing);
bool json_bool(const struct json *object, const char *key, bool missing);
/* True when the member is a whole number that fits *out. */
bool json_whole(const struct json *object, const char *key, int64_t *out);

/*
 * Building.  A put that fails for want of memory marks nothing: json_print then gives
 * NULL or the rest; memory of this size does not run out on the machines we serve.
 * json_put and json_add take ownership of value, also when they fail.
 */
struct json *json_object(void);
struct json *json_array(void);
struct json *json_new_string(const char *s);
struct json *json_new_int(int64_t i);
struct json *json_copy(const struct json *j);
void json_put(struct json *object, const char *key, struct json *value);
void json_put_str(struct json *object, const char *key, const char *s); /* NULL: null */
void json_put_int(struct json *object, const char *key, int64_t i);
void json_put_double(struct json *object, const char *key, double d);
void json_put_bool(struct json *object, const char *key, bool b);
void json_put_null(struct json *object, const char *key);
/* Bytes that are JSON already, printed as they are: numbers keep their digits. */
void json_put_raw(struct json *object, const char *key, const void *data, size_t len);
void json_add(struct json *array, struct json *value);
void json_add_str(struct json *array, const char *s);
void json_remove(struct json *object, const char *key);

#endif
