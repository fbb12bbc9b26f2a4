/*
 * Of several rules for one call the first that holds decides; libseccomp leaves that open,
 * and profiles in use have no two that overlap with different answers.  The sandbox has no
 * capability: what a profile includes for a capability is not included here, what it
 * excludes for one is.
 *
 * What is not understood is an error, never passed over: a profile that does less than its
 * author meant is worse than none.
 */
#include "sandbox/profile.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/json.h"
#include "core/base/str.h"
#include "sandbox/seccomp_compile.h"
#include "sandbox/seccomp_names.h"

#ifdef __x86_64__
#define NATIVE "SCMP_ARCH_X86_64"
#define NATIVE_GO "amd64"
#else
#define NATIVE "SCMP_ARCH_AARCH64"
#define NATIVE_GO "arm64"
#endif

enum { ERRNO_MAX = 4095, MASKED_EQ = -1 };

struct reader {
	struct seccomp_table *table;
	const char *kernel;
	uint32_t otherwise;
	int highest; /* number that a rule names */
	bool decided[SECCOMP_NUMBERS]; /* by a rule without conditions: later ones say nothing */
};

/* ---- Numbers ---- */

/*
 * JSON trees hold numbers as doubles, which have 53 bits; arguments have 64.  So whole
 * numbers of many digits become strings that begin with '#' before the tree is made.
 */
static int
keep_long_numbers(const char *text, size_t len, struct buf *out)
{
	bool in_string = false;
	size_t n;

	for (size_t i = 0; i < len; i += n) {
		n = 1;
		if (in_string) {
			n = text[i] == '\\' ? 2 : 1;
			in_string = text[i] != '"';
		} else if (text[i] == '"') {
			in_string = true;
		} else if (text[i] == '-' || isdigit((unsigned char)text[i])) {
			n = strspn(text + i, "+-.eE0123456789");
			if (n >= 16 && strspn(text + i, "0123456789") == n) {
				buf_printf(out, "\"#%.*s\"", (int)n, text + i);
				continue;
			}
		}
		buf_put(out, text + i, n);
	}
	return out->failed ? -1 : 0;
}

/* A missing member is 0. */
static int
read_u64(const struct json *object, const char *key, uint64_t *out, struct err *e)
{
	const struct json *j = json_get(object, key);
	const char *text = json_string_value(j);
	int64_t small;
	char *end;

	*out = 0;
	if (!j)
		return 0;
	if (text && text[0] == '#' && text[1]) {
		errno = 0;
		*out = strtoull(text + 1, &end, 10);
		if (!errno && !*end)
			return 0;
	} else if (json_whole(object, key, &small) && small >= 0) {
		*out = (uint64_t)small;
		return 0;
	}
	return err_set(e, ERR_INPUT, "%s is not a whole number from 0 to 18446744073709551615", key);
}

/* ---- Small checks ---- */

static int
check_members(const struct json *object, const char *what, const char *words, struct err *e)
{
	for (const struct json *m = json_first(object); m; m = json_next(m))
		if (!str_is_word(words, json_key(m)))
			return err_set(e, ERR_INPUT, "%s has an unknown member \"%.60s\"", what,
				       json_key(m));
	return 0;
}

/* A list of strings, or not there (null is how Go writes that). */
static int
check_strings(const struct json *object, const char *key, struct err *e)
{
	const struct json *list = json_get(object, key);

	if (!list || json_is_null(list))
		return 0;
	if (!json_is_array(list))
		return err_set(e, ERR_INPUT, "%s is not a list", key);
	for (const struct json *s = json_first(list); s; s = json_next(s))
		if (!json_is_string(s))
			return err_set(e, ERR_INPUT, "%s has something that is not a string", key);
	return 0;
}

static bool
has_string(const struct json *list, const char *text)
{
	for (const struct json *s = json_first(list); s; s = json_next(s))
		if (!strcmp(json_string_value(s) ? json_string_value(s) : "", text))
			return true;
	return false;
}

static bool
has_items(const struct json *object, const char *key)
{
	const struct json *list = json_get(object, key);

	return json_is_array(list) && json_count(list) > 0;
}

/* ---- Actions ---- */

static int
read_errno(const struct json *object, const char *number, const char *name, uint32_t *out,
	   struct err *e)
{
	const struct json *j = json_get(object, number);
	const char *word = json_str(object, name);
	int64_t value;

	*out = EPERM;
	if (j && !json_is_null(j)) {
		if (!json_whole(object, number, &value) || value < 0 || value > ERRNO_MAX)
			return err_set(e, ERR_INPUT, "%s is not a number from 0 to %d", number, ERRNO_MAX);
		*out = (uint32_t)value;
		return 0;
	}
	for (int i = 1; word && *word; i++) {
		const char *known = strerrorname_np(i);

		if (i > 200)
			return err_set(e, ERR_INPUT, "%s: no such errno as \"%.40s\"", name, word);
		if (known && !strcmp(known, word)) {
			*out = (uint32_t)i;
			break;
		}
	}
	return 0;
}

static int
read_action(const struct json *object, const char *key, uint32_t errnum, uint32_t *out,
	    struct err *e)
{
	static const struct {
		const char *name;
		uint32_t answer;
	} known[] = {
		{"SCMP_ACT_ALLOW", SECCOMP_RET_ALLOW},
		{"SCMP_ACT_LOG", SECCOMP_RET_LOG},
		{"SCMP_ACT_ERRNO", SECCOMP_RET_ERRNO},
		{"SCMP_ACT_TRAP", SECCOMP_RET_TRAP},
		{"SCMP_ACT_KILL", SECCOMP_RET_KILL_THREAD},
		{"SCMP_ACT_KILL_THREAD", SECCOMP_RET_KILL_THREAD},
		{"SCMP_ACT_KILL_PROCESS", SECCOMP_RET_KILL_PROCESS},
	};
	const char *name = json_str(object, key);

	if (!name)
		return err_set(e, ERR_INPUT, "%s is missing or not a string", key);
	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
		if (!strcmp(known[i].name, name)) {
			*out = known[i].answer;
			if (*out == SECCOMP_RET_ERRNO)
				*out |= errnum;
			return 0;
		}
	if (str_is_word("SCMP_ACT_TRACE|SCMP_ACT_NOTIFY", name))
		return err_set(e, ERR_INPUT, "%s %s needs a tracer, which a sandbox does not have",
			       key, name);
	return err_set(e, ERR_INPUT, "%s: no such action as \"%.40s\"", key, name);
}

/* ---- Includes and excludes ---- */

/* A kernel's version as one number; 0: none. */
static unsigned
version(const char *text)
{
	unsigned major, minor;

	if (sscanf(text, "%4u.%4u", &major, &minor) != 2)
		return 0;
	return major << 16 | minor;
}

static int
check_filter(const struct json *filter, const char *key, struct err *e)
{
	const char *kernel = json_str(filter, "minKernel");

	if (!filter || json_is_null(filter))
		return 0;
	if (!json_is_object(filter))
		return err_set(e, ERR_INPUT, "%s is not an object", key);
	if (check_members(filter, key, "arches|caps|minKernel", e) ||
	    check_strings(filter, "arches", e) || check_strings(filter, "caps", e))
		return -1;
	if (json_get(filter, "minKernel") && (!kernel || (*kernel && !version(kernel))))
		return err_set(e, ERR_INPUT, "minKernel is not a version such as 4.8");
	return 0;
}

static bool
is_this_architecture(const struct json *filter)
{
	const struct json *arches = json_get(filter, "arches");

	return has_string(arches, NATIVE_GO);
}

static bool
is_this_kernel(const struct reader *r, const struct json *filter)
{
	const char *least = json_str(filter, "minKernel");

	return least && *least && version(r->kernel) >= version(least);
}

static bool
is_included(const struct reader *r, const struct json *rule)
{
	const struct json *in = json_get(rule, "includes"), *out = json_get(rule, "excludes");
	const char *least = json_str(in, "minKernel");

	if (has_items(in, "caps") || (has_items(in, "arches") && !is_this_architecture(in)))
		return false;
	if (least && *least && !is_this_kernel(r, in))
		return false;
	return !is_this_architecture(out) && !is_this_kernel(r, out);
}

/* ---- Rules ---- */

static int
read_condition(const struct json *arg, struct seccomp_condition *c, struct err *e)
{
	static const struct {
		const char *name;
		int test;
	} known[] = {
		{"SCMP_CMP_NE", TEST_NE}, {"SCMP_CMP_LT", TEST_LT}, {"SCMP_CMP_LE", TEST_LE},
		{"SCMP_CMP_EQ", TEST_EQ}, {"SCMP_CMP_GE", TEST_GE}, {"SCMP_CMP_GT", TEST_GT},
		{"SCMP_CMP_MASKED_EQ", MASKED_EQ},
	};
	const char *op = json_str(arg, "op");
	uint64_t value, second;
	int64_t index;
	size_t i = 0;

	if (!json_is_object(arg))
		return err_set(e, ERR_INPUT, "args has something that is not an object");
	if (check_members(arg, "an argument", "index|value|valueTwo|op", e) ||
	    read_u64(arg, "value", &value, e) || read_u64(arg, "valueTwo", &second, e))
		return -1;
	if (!json_whole(arg, "index", &index) || index < 0 || index >= SECCOMP_ARGS)
		return err_set(e, ERR_INPUT, "index is not a number from 0 to %d", SECCOMP_ARGS - 1);
	while (op && i < sizeof known / sizeof known[0] && strcmp(known[i].name, op) != 0)
		i++;
	if (!op || i == sizeof known / sizeof known[0])
		return err_set(e, ERR_INPUT, "op: no such operator as \"%.40s\"", op ? op : "");
	*c = (struct seccomp_condition){(uint8_t)index, (uint8_t)known[i].test, UINT64_MAX, value};
	if (known[i].test == MASKED_EQ) /* value is the mask */
		*c = (struct seccomp_condition){(uint8_t)index, TEST_EQ, value, second};
	return 0;
}

static int
add(struct reader *r, unsigned number, const struct seccomp_entry *entry, struct err *e)
{
	if (r->decided[number])
		return 0;
	if (entry->count > 0)
		return seccomp_table_add(r->table, number, entry, e);
	r->decided[number] = true;
	r->table->calls[number].otherwise = entry->answer;
	return 0;
}

/* The conditions of one rule hold together; but as runc and crun have it, when one argument is
 * there twice, each condition is a rule of its own. */
static int
add_rule(struct reader *r, unsigned number, const struct json *args, uint32_t answer,
	 struct err *e)
{
	struct seccomp_entry entry = {.answer = answer};
	unsigned seen = 0, many = 0;

	for (const struct json *a = json_first(args); a; a = json_next(a)) {
		int64_t index = json_int(a, "index", 0);

		many |= seen & 1u << (index & 7);
		seen |= 1u << (index & 7);
	}
	for (const struct json *a = json_first(args); a; a = json_next(a)) {
		struct seccomp_condition c;

		if (read_condition(a, &c, e))
			return -1;
		if (many)
			entry.count = 0;
		entry.all[entry.count++] = c;
		if (many && add(r, number, &entry, e))
			return -1;
	}
	return many ? 0 : add(r, number, &entry, e);
}

static int
read_names(struct reader *r, const struct json *rule, bool included, uint32_t answer,
	   struct err *e)
{
	const struct json *args = json_get(rule, "args"), *names = json_get(rule, "names");
	const struct json *name = json_is_array(names) ? json_first(names) : json_get(rule, "name");

	for (; name; name = json_next(name)) {
		const char *text = json_string_value(name);
		int number = text ? seccomp_number(text) : 0;

		if (number == SECCOMP_NUMBER_UNKNOWN || number >= SECCOMP_NUMBERS)
			return err_set(e, ERR_INPUT, "no such system call as \"%.60s\"", text);
		if (number >= 0 && number > r->highest)
			r->highest = number;
		if (number >= 0 && included && add_rule(r, (unsigned)number, args, answer, e))
			return err_wrap(e, "%.60s", text);
		if (!json_is_array(names))
			break;
	}
	return 0;
}

static int
read_rule(struct reader *r, const struct json *rule, struct err *e)
{
	const struct json *args = json_get(rule, "args"), *names = json_get(rule, "names");
	uint32_t errnum, answer;
	struct seccomp_condition c;

	if (!json_is_object(rule))
		return err_set(e, ERR_INPUT, "it is not an object");
	if (check_members(rule, "it",
			  "names|name|action|errnoRet|errno|args|comment|includes|excludes", e) ||
	    check_strings(rule, "names", e) ||
	    read_errno(rule, "errnoRet", "errno", &errnum, e) ||
	    read_action(rule, "action", errnum, &answer, e) ||
	    check_filter(json_get(rule, "includes"), "includes", e) ||
	    check_filter(json_get(rule, "excludes"), "excludes", e))
		return -1;
	if (!has_items(rule, "names") == !json_str(rule, "name"))
		return err_set(e, ERR_INPUT, "it needs names, a list with one at least");
	if (json_is_null(names) && !json_str(rule, "name"))
		return err_set(e, ERR_INPUT, "names is null");
	if (args && !json_is_null(args) && !json_is_array(args))
		return err_set(e, ERR_INPUT, "args is not a list");
	for (const struct json *a = json_first(args); a; a = json_next(a))
		if (read_condition(a, &c, e)) /* also where it does not apply here */
			return -1;
	return read_names(r, rule, is_included(r, rule), answer, e);
}

/* ---- The whole ---- */

static int
check_architectures(const struct json *root, struct err *e)
{
	const struct json *map = json_get(root, "archMap");
	bool found = !has_items(root, "architectures") && !has_items(root, "archMap");

	if (check_strings(root, "architectures", e))
		return -1;
	if (map && !json_is_null(map) && !json_is_array(map))
		return err_set(e, ERR_INPUT, "archMap is not a list");
	for (const struct json *m = json_first(map); m; m = json_next(m)) {
		const char *name = json_str(m, "architecture");

		if (!name || check_strings(m, "subArchitectures", e))
			return err_set(e, ERR_INPUT, "archMap has something without an architecture");
		found = found || !strcmp(name, NATIVE);
	}
	if (!found && !has_string(json_get(root, "architectures"), NATIVE))
		return err_set(e, ERR_INPUT, "it is for other architectures than this machine's, %s",
			       NATIVE);
	return 0;
}

/*
 * Numbers that the profile's author cannot have known fail with ENOSYS, as runc has it, so
 * that newer C libraries fall back; and x32's, which would be the native calls by other
 * numbers, are never let through by a default that allows.
 */
static void
set_beyond(struct reader *r)
{
	uint32_t action = r->otherwise & SECCOMP_RET_ACTION_FULL;

	if (action == SECCOMP_RET_ERRNO)
		for (int n = r->highest + 1; n < SECCOMP_NUMBERS; n++)
			r->table->calls[n].otherwise = SECCOMP_RET_ERRNO | ENOSYS;
	if (action == SECCOMP_RET_ERRNO || action == SECCOMP_RET_ALLOW || action == SECCOMP_RET_LOG)
		r->table->beyond = SECCOMP_RET_ERRNO | ENOSYS;
}

static int
read_root(struct reader *r, const struct json *root, struct err *e)
{
	const struct json *rules = json_get(root, "syscalls");
	uint32_t errnum;
	int i = 0;

	if (!json_is_object(root))
		return err_set(e, ERR_INPUT, "it is not a JSON object");
	if (json_get(root, "listenerPath") || json_get(root, "listenerMetadata"))
		return err_set(e, ERR_INPUT, "listenerPath: a sandbox has no listener outside");
	if (check_members(root, "it",
			  "defaultAction|defaultErrnoRet|defaultErrno|architectures|archMap|flags|"
			  "syscalls|comment", e) ||
	    check_architectures(root, e) || check_strings(root, "flags", e) ||
	    read_errno(root, "defaultErrnoRet", "defaultErrno", &errnum, e) ||
	    read_action(root, "defaultAction", errnum, &r->otherwise, e))
		return -1;
	seccomp_table_init(r->table, seccomp_architecture(), r->otherwise);
	if (rules && !json_is_null(rules) && !json_is_array(rules))
		return err_set(e, ERR_INPUT, "syscalls is not a list");
	for (const struct json *j = json_first(rules); j; j = json_next(j), i++)
		if (read_rule(r, j, e))
			return err_wrap(e, "syscalls[%d]", i);
	set_beyond(r);
	return 0;
}

int
profile_read(struct seccomp_table *t, const char *text, size_t len, const char *kernel,
	     struct err *e)
{
	struct reader r = {.table = t, .kernel = kernel, .highest = -1};
	struct buf kept = {.max = 2 * PROFILE_BYTES_MAX};
	struct json *root = NULL;
	size_t at;
	int rc;

	if (json_scan(text, len, &at) != JSON_FORM_OK)
		rc = err_set(e, ERR_INPUT, "it is not JSON (byte %zu)", at + 1);
	else if (keep_long_numbers(text, len, &kept))
		rc = err_set(e, ERR_LIMIT, "it is too long");
	else
		rc = (root = json_parse(kept.data, kept.len, e)) ? read_root(&r, root, e) : -1;
	json_free(root);
	buf_free(&kept);
	return rc;
}
