/*
 * Options of a command line, from one grammar table that also gives the help, the
 * configuration file's keys, the environment's names and the check of the man page.
 *
 * `--name value`, `--name=value`, `-n value`; `--a_b` is `--a-b`; `--` ends options.
 */
#ifndef PRATAI_OPT_H
#define PRATAI_OPT_H

#include <stdbool.h>
#include <stddef.h>

struct err;

enum opt_flags {
	OPT_MANY = 1,   /* may be given more than once; else the last one counts */
	OPT_CONFIG = 2, /* also a key of pratai.conf and an environment variable */
	OPT_STOP = 4,   /* what follows are operands, whatever they look like */
	OPT_SECRET = 8, /* --print-config shows "(set)" */
};

struct opt {
	const char *name; /* "tmp-size" */
	char letter;      /* 'h', or 0 */
	const char *arg;  /* "SIZE" for the help; NULL: a switch */
	const char *help; /* one line */
	unsigned flags;
	const char *fallback; /* the default, or NULL */
};

enum { OPT_VALUES_MAX = 512, OPT_OPERANDS_MAX = 4096 };

struct opt_values {
	const struct opt *table; /* ends with .name == NULL */
	struct {
		const struct opt *opt;
		const char *value; /* "" for a switch */
		int source;        /* enum opt_source */
	} given[OPT_VALUES_MAX];
	size_t count;
	char **operands; /* into argv */
	int operand_count;
	char *owned[OPT_VALUES_MAX]; /* text read from a file */
	size_t owned_count;
};

/* Whether len bytes of word are this name: "tmp_size" is "tmp-size". */
bool opt_same_name(const char *word, size_t len, const char *name);

enum opt_source { OPT_FROM_FILE, OPT_FROM_ENV, OPT_FROM_ARGV };

/*
 * Reads argv[first..] into v (zeroed by this).  stop_at_operand: the first operand ends
 * the options (for `pratai run CMD -x`).  Strings stay argv's.  ERR_INPUT names the
 * option that is unknown, or lacks its value.
 */
int opt_parse(struct opt_values *v, const struct opt *table, int argc, char **argv, int first,
	      bool stop_at_operand, struct err *e);

/*
 * Adds the settings of a configuration file (`key = value`, `#` comments) and of the
 * environment (PRATAI_ and the name in capitals, dashes to underscores) to those of
 * argv, which win, the environment over the file.  path NULL: no file; must_exist: a
 * missing one is an error.  Keys of other programs' tables are in known (NULL-ended
 * list of names) and passed over; any other unknown key is an error with its line.
 */
int opt_config(struct opt_values *v, const char *path, bool must_exist,
	       const char *const *known, struct err *e);

void opt_free(struct opt_values *v);

/* The value that counts: given, else fallback, else NULL. */
const char *opt_get(const struct opt_values *v, const char *name);
bool opt_given(const struct opt_values *v, const char *name);
/* The i-th of an OPT_MANY option, NULL after the last. */
const char *opt_nth(const struct opt_values *v, const char *name, size_t i);

/* The table as help text to stdout. */
void opt_print_help(const struct opt *table);
/* `key = value` lines of all OPT_CONFIG options as they are in force. */
void opt_print_config(const struct opt_values *v);

#endif
