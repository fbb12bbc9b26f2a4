/*
 * The option parser: what a command line, a file and the environment make together.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/opt.h"

static const struct opt table[] = {
	{ .name = "tmp-size", .arg = "SIZE", .help = "a size", .flags = OPT_CONFIG,
	  .fallback = "64M" },
	{ .name = "env", .letter = 'e', .arg = "K=V", .help = "many", .flags = OPT_MANY },
	{ .name = "wait", .letter = 'w', .help = "a switch" },
	{ .name = "listen", .arg = "ADDR", .help = "an address", .flags = OPT_CONFIG },
	{ .name = "token", .arg = "T", .help = "a secret", .flags = OPT_CONFIG | OPT_SECRET },
	{ 0 }
};

enum { WORDS_MAX = 16 };

struct line {
	char *argv[WORDS_MAX];
	int argc;
	struct opt_values v;
	struct err e;
};

/* Splits words at spaces; "prog" goes before them. */
static int
parse(struct line *l, const char *words, bool stop)
{
	static char copy[256];
	char *rest = copy, *word;

	memset(l, 0, sizeof *l);
	snprintf(copy, sizeof copy, "%s", words);
	l->argv[l->argc++] = (char *)"prog";
	while ((word = strsep(&rest, " ")))
		if (*word && l->argc < WORDS_MAX)
			l->argv[l->argc++] = word;
	return opt_parse(&l->v, table, l->argc, l->argv, 1, stop, &l->e);
}

static void
values_in_every_spelling(void **state)
{
	static const char *const lines[] = { "--tmp-size 5M", "--tmp-size=5M", "--tmp_size 5M",
					     "--tmp_size=5M", "--tmp-size 1M --tmp-size 5M" };
	struct line l;

	(void)state;
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
		assert_int_equal(parse(&l, lines[i], false), 0);
		assert_string_equal(opt_get(&l.v, "tmp-size"), "5M");
	}
	assert_int_equal(parse(&l, "", false), 0);
	assert_string_equal(opt_get(&l.v, "tmp-size"), "64M");
	assert_false(opt_given(&l.v, "tmp-size"));
	assert_null(opt_get(&l.v, "listen"));
}

static void
many_values_keep_their_order(void **state)
{
	struct line l;

	(void)state;
	assert_int_equal(parse(&l, "-e a=1 --env b=2 --env=c=3", false), 0);
	assert_string_equal(opt_nth(&l.v, "env", 0), "a=1");
	assert_string_equal(opt_nth(&l.v, "env", 1), "b=2");
	assert_string_equal(opt_nth(&l.v, "env", 2), "c=3");
	assert_null(opt_nth(&l.v, "env", 3));
}

static void
operands_and_options_mix(void **state)
{
	struct line l;

	(void)state;
	assert_int_equal(parse(&l, "one --wait two - three", false), 0);
	assert_true(opt_given(&l.v, "wait"));
	assert_int_equal(l.v.operand_count, 4);
	assert_string_equal(l.v.operands[0], "one");
	assert_string_equal(l.v.operands[2], "-");

	assert_int_equal(parse(&l, "one -- --wait -e", false), 0);
	assert_false(opt_given(&l.v, "wait"));
	assert_int_equal(l.v.operand_count, 3);
	assert_string_equal(l.v.operands[1], "--wait");

	assert_int_equal(parse(&l, "-w cmd --env x", true), 0);
	assert_int_equal(l.v.operand_count, 3);
	assert_string_equal(l.v.operands[0], "cmd");
	assert_null(opt_nth(&l.v, "env", 0));
}

static void
what_is_wrong_is_named(void **state)
{
	static const struct {
		const char *line, *names;
	} cases[] = {
		{ "--nope", "'--nope'" },         { "--tmp-siz 3", "'--tmp-siz'" },
		{ "--tmp-size", "'--tmp-size'" }, { "-e", "'--env'" },
		{ "--wait=yes", "'--wait'" },     { "-x", "'-x'" },
		{ "-wx", "'-wx'" },               { "--=3", "'--=3'" },
	};
	struct line l;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_int_equal(parse(&l, cases[i].line, false), -1);
		assert_int_equal(l.e.cls, ERR_INPUT);
		assert_non_null(strstr(l.e.text, cases[i].names));
	}
}

static void
too_many_are_refused(void **state)
{
	char *argv[OPT_VALUES_MAX + 2];
	struct opt_values v;
	struct err e = { 0 };

	(void)state;
	argv[0] = (char *)"prog";
	for (int i = 1; i <= OPT_VALUES_MAX + 1; i++)
		argv[i] = (char *)"--wait";
	assert_int_equal(opt_parse(&v, table, OPT_VALUES_MAX + 1, argv, 1, false, &e), 0);
	assert_int_equal(opt_parse(&v, table, OPT_VALUES_MAX + 2, argv, 1, false, &e), -1);
	assert_int_equal(e.cls, ERR_INPUT);
}

/* A file with this text; its name in path. */
static void
write_file(char path[64], const char *text)
{
	int fd;

	strcpy(path, "/tmp/test_opt.XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static int
configure(struct line *l, const char *words, const char *text)
{
	static const char *const known[] = { "others-key", NULL };
	char path[64];
	int rc;

	assert_int_equal(parse(l, words, false), 0);
	write_file(path, text);
	rc = opt_config(&l->v, path, true, known, &l->e);
	unlink(path);
	return rc;
}

static void
file_environment_options_in_rising_order(void **state)
{
	struct line l;

	(void)state;
	assert_int_equal(configure(&l, "", "# a comment\n\n tmp_size = 1M \nothers-key=x\n"), 0);
	assert_string_equal(opt_get(&l.v, "tmp-size"), "1M");
	opt_free(&l.v);

	setenv("PRATAI_TMP_SIZE", "2M", 1);
	assert_int_equal(configure(&l, "", "tmp-size = 1M"), 0);
	assert_string_equal(opt_get(&l.v, "tmp-size"), "2M");
	opt_free(&l.v);

	assert_int_equal(configure(&l, "--tmp-size 3M", "tmp-size = 1M\n"), 0);
	assert_string_equal(opt_get(&l.v, "tmp-size"), "3M");
	opt_free(&l.v);
	unsetenv("PRATAI_TMP_SIZE");
}

static void
bad_files_name_the_line(void **state)
{
	struct line l;

	(void)state;
	assert_int_equal(configure(&l, "", "listen = a\nnonsense\n"), -1);
	assert_non_null(strstr(l.e.text, ":2: "));
	opt_free(&l.v);
	assert_int_equal(configure(&l, "", "\n\ncolour = blue\n"), -1);
	assert_non_null(strstr(l.e.text, ":3: unknown key 'colour'"));
	opt_free(&l.v);
	/* An option that is not a setting is none in a file either. */
	assert_int_equal(configure(&l, "", "env = a=1\n"), -1);
	opt_free(&l.v);
}

static void
a_missing_file_matters_only_if_asked_for(void **state)
{
	struct line l;

	(void)state;
	assert_int_equal(parse(&l, "", false), 0);
	assert_int_equal(opt_config(&l.v, "/nonexistent/pratai.conf", false, NULL, &l.e), 0);
	assert_int_equal(opt_config(&l.v, "/nonexistent/pratai.conf", true, NULL, &l.e), -1);
	assert_int_equal(l.e.cls, ERR_INPUT);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_in_every_spelling),
		cmocka_unit_test(many_values_keep_their_order),
		cmocka_unit_test(operands_and_options_mix),
		cmocka_unit_test(what_is_wrong_is_named),
		cmocka_unit_test(too_many_are_refused),
		cmocka_unit_test(file_environment_options_in_rising_order),
		cmocka_unit_test(bad_files_name_the_line),
		cmocka_unit_test(a_missing_file_matters_only_if_asked_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
