#include "core/base/opt.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"

bool
opt_same_name(const char *word, size_t len, const char *name)
{
	if (strlen(name) != len)
		return false;
	for (size_t i = 0; i < len; i++) {
		char c = word[i] == '_' ? '-' : word[i];
		if (c != name[i])
			return false;
	}
	return true;
}

static const struct opt *
find(const struct opt *table, const char *name, size_t len)
{
	for (; table->name; table++)
		if (opt_same_name(name, len, table->name))
			return table;
	return NULL;
}

static int
add(struct opt_values *v, const struct opt *opt, const char *value, int source, struct err *e)
{
	if (v->count == OPT_VALUES_MAX)
		return err_set(e, ERR_INPUT, "more than %d options", OPT_VALUES_MAX);
	v->given[v->count].opt = opt;
	v->given[v->count].value = value;
	v->given[v->count].source = source;
	v->count++;
	return 0;
}

static int
parse_one(struct opt_values *v, int argc, char **argv, int *i, struct err *e)
{
	const char *word = argv[*i], *equals = NULL;
	const struct opt *opt = NULL;

	if (word[1] == '-') {
		equals = strchr(word, '=');
		opt = find(v->table, word + 2, equals ? (size_t)(equals - word - 2) : strlen(word + 2));
	} else if (word[2] == '\0') {
		for (const struct opt *o = v->table; o->name && !opt; o++)
			if (o->letter && o->letter == word[1])
				opt = o;
	}
	if (!opt)
		return err_set(e, ERR_INPUT, "unknown option '%.80s'", word);
	if (!opt->arg) {
		if (equals)
			return err_set(e, ERR_INPUT, "option '--%s' takes no value", opt->name);
		return add(v, opt, "", OPT_FROM_ARGV, e);
	}
	if (equals)
		return add(v, opt, equals + 1, OPT_FROM_ARGV, e);
	if (*i + 1 >= argc)
		return err_set(e, ERR_INPUT, "option '--%s' needs a value (%s)", opt->name, opt->arg);
	return add(v, opt, argv[++*i], OPT_FROM_ARGV, e);
}

int
opt_parse(struct opt_values *v, const struct opt *table, int argc, char **argv, int first,
	  bool stop_at_operand, struct err *e)
{
	int operands = first;

	memset(v, 0, sizeof *v);
	v->table = table;
	v->operands = argv + first;
	for (int i = first; i < argc; i++) {
		bool is_option = argv[i][0] == '-' && argv[i][1] != '\0';

		if (is_option && strcmp(argv[i], "--")) {
			if (parse_one(v, argc, argv, &i, e))
				return -1;
			continue;
		}
		if (is_option || stop_at_operand) { /* all that follows are operands */
			i += is_option;
			/* Operands found so far stay in front. */
			memmove(argv + operands, argv + i, (size_t)(argc - i) * sizeof *argv);
			operands += argc - i;
			break;
		}
		argv[operands++] = argv[i];
	}
	v->operand_count = operands - first;
	return 0;
}

static char *
own(struct opt_values *v, const char *text, size_t len, struct err *e)
{
	char *copy;

	if (v->owned_count == OPT_VALUES_MAX || !(copy = strndup(text, len))) {
		err_set(e, ERR_INPUT, "more than %d settings", OPT_VALUES_MAX);
		return NULL;
	}
	v->owned[v->owned_count++] = copy;
	return copy;
}

static bool
is_known(const char *const *known, const char *name, size_t len)
{
	for (; known && *known; known++)
		if (opt_same_name(name, len, *known))
			return true;
	return false;
}

static int
parse_line(struct opt_values *v, const char *path, int number, const char *line, size_t len,
	   const char *const *known, struct err *e)
{
	const char *end = line + len, *equals, *name_end;
	const struct opt *opt;
	char *value;

	while (line < end && isspace((unsigned char)*line))
		line++;
	while (end > line && isspace((unsigned char)end[-1]))
		end--;
	if (line == end || *line == '#')
		return 0;
	equals = memchr(line, '=', (size_t)(end - line));
	if (!equals)
		return err_set(e, ERR_INPUT, "%s:%d: not 'key = value'", path, number);
	for (name_end = equals; name_end > line && isspace((unsigned char)name_end[-1]); name_end--)
		;
	opt = find(v->table, line, (size_t)(name_end - line));
	if (!opt || !(opt->flags & OPT_CONFIG)) {
		if (is_known(known, line, (size_t)(name_end - line)))
			return 0;
		return err_set(e, ERR_INPUT, "%s:%d: unknown key '%.*s'", path, number,
			       (int)(name_end - line > 80 ? 80 : name_end - line), line);
	}
	for (equals++; equals < end && isspace((unsigned char)*equals); equals++)
		;
	value = own(v, equals, (size_t)(end - equals), e);
	return value ? add(v, opt, value, OPT_FROM_FILE, e) : -1;
}

static int
read_file(struct opt_values *v, const char *path, bool must_exist, const char *const *known,
	  struct err *e)
{
	struct buf text = { 0 };
	int rc = 0, number = 1;

	if (file_slurp(AT_FDCWD, path, 1 << 20, &text, e)) {
		buf_free(&text);
		if (e && e->cls == ERR_NOT_FOUND && !must_exist) {
			err_clear(e);
			return 0;
		}
		if (e && must_exist)
			e->cls = ERR_INPUT; /* the one who named it can name another */
		return -1;
	}
	for (size_t at = 0; rc == 0 && at < text.len; number++) {
		const char *line = text.data + at, *nl = memchr(line, '\n', text.len - at);
		size_t len = nl ? (size_t)(nl - line) : text.len - at;

		rc = parse_line(v, path, number, line, len, known, e);
		at += len + 1;
	}
	buf_free(&text);
	return rc;
}

static int
read_environment(struct opt_values *v, struct err *e)
{
	for (const struct opt *opt = v->table; opt->name; opt++) {
		char name[64] = "PRATAI_";
		const char *value;
		size_t n = 7;

		if (!(opt->flags & OPT_CONFIG))
			continue;
		for (const char *p = opt->name; *p && n + 1 < sizeof name; p++)
			name[n++] = *p == '-' ? '_' : (char)toupper((unsigned char)*p);
		name[n] = '\0';
		value = getenv(name);
		if (value && add(v, opt, value, OPT_FROM_ENV, e))
			return -1;
	}
	return 0;
}

int
opt_config(struct opt_values *v, const char *path, bool must_exist, const char *const *known,
	   struct err *e)
{
	if (path && read_file(v, path, must_exist, known, e))
		return -1;
	return read_environment(v, e);
}

void
opt_free(struct opt_values *v)
{
	for (size_t i = 0; i < v->owned_count; i++)
		free(v->owned[i]);
	v->owned_count = v->count = 0;
}

const char *
opt_get(const struct opt_values *v, const char *name)
{
	const char *best = NULL;
	int source = -1;
	const struct opt *opt = find(v->table, name, strlen(name));

	for (size_t i = 0; i < v->count; i++) {
		if (v->given[i].opt == opt && v->given[i].source >= source) {
			best = v->given[i].value;
			source = v->given[i].source;
		}
	}
	return best ? best : opt ? opt->fallback : NULL;
}

bool
opt_given(const struct opt_values *v, const char *name)
{
	const struct opt *opt = find(v->table, name, strlen(name));

	for (size_t i = 0; i < v->count; i++)
		if (v->given[i].opt == opt)
			return true;
	return false;
}

const char *
opt_nth(const struct opt_values *v, const char *name, size_t n)
{
	const struct opt *opt = find(v->table, name, strlen(name));

	for (size_t i = 0; i < v->count; i++)
		if (v->given[i].opt == opt && n-- == 0)
			return v->given[i].value;
	return NULL;
}

void
opt_print_help(const struct opt *table)
{
	for (; table->name; table++) {
		char left[64];
		int n = 0;

		if (table->letter)
			n = snprintf(left, sizeof left, "-%c, ", table->letter);
		snprintf(left + n, sizeof left - (size_t)n, "--%s%s%s", table->name, table->arg ? " " : "",
			 table->arg ? table->arg : "");
		printf("  %-28s %s", left, table->help);
		if (table->fallback)
			printf(" (default %s)", table->fallback);
		putchar('\n');
	}
}

void
opt_print_config(const struct opt_values *v)
{
	for (const struct opt *opt = v->table; opt->name; opt++) {
		const char *value;

		if (!(opt->flags & OPT_CONFIG))
			continue;
		value = opt_get(v, opt->name);
		if (!value)
			printf("# %s is not set\n", opt->name);
		else
			printf("%s = %s\n", opt->name, (opt->flags & OPT_SECRET) ? "(set)" : value);
	}
}
