/*
 * The command line: what every command gets, and the table of commands that drives
 * parsing, help, completion and the check of the man page.
 *
 * A command returns the program's exit code.  Its errors go through client_fail: one line
 * on stderr.
 */
#ifndef PRATAI_CLIENT_H
#define PRATAI_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/err.h"
#include "core/base/opt.h"
#include "core/client/api.h"
#include "core/client/render.h"

enum client_exit {
	CLIENT_OK = 0,
	CLIENT_REFUSED = 1,         /* the platform said no, or cannot be reached */
	CLIENT_USAGE = 2,           /* the command line is wrong */
	CLIENT_FUNCTION_FAILED = 3, /* the function ran and failed */
};

struct client;

struct image;

enum command_flags {
	COMMAND_SERVER = 1, /* talks to the control plane: --os-pratai-url, --os-token */
	COMMAND_OUTPUT = 2, /* prints records: -f, -c, --only-id */
	COMMAND_MAY_ASK = 4, /* may talk to it, by client_connect: the same options */
};

struct command {
	const char *name;
	const char *operands; /* for the help: "F..." or "" */
	int operands_min, operands_max;
	unsigned flags;
	const struct opt *options; /* its own, ends with .name == NULL; NULL: none */
	const char *help;          /* one line */
	const char *detail;        /* what the help says further, lines, or NULL */
	int (*run)(struct client *c);
};

struct client {
	const struct command *command;
	struct opt_values v; /* all options of the command, and its operands */
	struct render out;
	const char *url, *token;
	bool url_given;  /* by an option or the environment */
	struct api *api; /* with COMMAND_SERVER, or after client_connect */
};

/* Ends with .name == NULL, in the order in which help lists them. */
const struct command *command_table(void);
const struct command *command_find(const char *name); /* underscores are dashes; NULL */
/* The name that is meant by a word that is none, or NULL. */
const char *command_nearest(const char *word);

enum { COMMAND_OPTIONS_MAX = 64 };
/* All options that the command takes, with the ones it shares with others. */
void command_options(const struct command *cmd, struct opt out[COMMAND_OPTIONS_MAX]);
/* Those that may stand before the command's name. */
extern const struct opt client_global_options[];

/* Opens c->api. */
int client_connect(struct client *c, struct err *e);

/* "pratai: text" to stderr; the exit code of its class. */
int client_fail(const struct err *e);
/* client_fail of ERR_INPUT with this text. */
int client_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Help to stdout: the list of commands; one command; bash's completion. */
void help_overview(void);
void help_command(const struct command *cmd);
void help_completion_bash(void);

/* ---- what the commands do ---- */

int cmd_up(struct client *c);
int cmd_function_create(struct client *c);
int cmd_function_list(struct client *c);
int cmd_function_show(struct client *c);
int cmd_function_update(struct client *c);
int cmd_function_delete(struct client *c);
int cmd_function_execute(struct client *c);
int cmd_function_logs(struct client *c);
int cmd_function_versions(struct client *c);
int cmd_function_rollback(struct client *c);
int cmd_event_list(struct client *c);
int cmd_event_show(struct client *c);
int cmd_event_logs(struct client *c);
int cmd_runtime_list(struct client *c);
int cmd_runtime_show(struct client *c);
int cmd_runtime_create(struct client *c);
int cmd_runtime_delete(struct client *c);
int cmd_cluster_status(struct client *c);
int cmd_node_list(struct client *c);
int cmd_token_create(struct client *c);
int cmd_token_list(struct client *c);
int cmd_token_delete(struct client *c);
int cmd_image_import(struct client *c);
int cmd_image_upload(struct client *c);
int cmd_image_build(struct client *c);
int cmd_image_export(struct client *c);
int cmd_image_list(struct client *c);
int cmd_image_delete(struct client *c);
int cmd_image_gc(struct client *c);
int cmd_image_verify(struct client *c);
int cmd_help(struct client *c);
int cmd_version(struct client *c);

/* ---- what several of them share ---- */

/* GET path and print the record. */
int client_show(struct client *c, const char *path, const char *id_key);
/* GET a list of at most max records and print it. */
int client_list(struct client *c, const char *path, size_t max, const char *const *columns,
		const char *id_key);
/* Says on stderr that there is more than a limit that was not asked for let through. */
void client_tell_more(const struct client *c, const struct api_rows *rows);
/* DELETE prefix/operand for each operand; goes on after a failure. */
int client_delete(struct client *c, const char *prefix);
/* prefix, operand as a segment, suffix.  ERR_INPUT. */
int client_path(struct buf *path, const char *prefix, const char *segment, const char *suffix,
		struct err *e);

/* After image-import and image-build made the image that --name says: to the control plane, if one
 * who is known there asked for it. */
int client_upload_made(struct client *c, const struct image *i, bool *uploaded, struct err *e);

/* Waits until the newest version of the function is built; draws a line on a terminal.
 * 0: ready; -1: *e, after the last lines of the build's log went to stderr. */
int build_wait(struct client *c, const char *function_id, struct err *e);
/* Prints the events' log lines of an answer, each after prefix ("" or an id and a space). */
int logs_print(const struct api_answer *a, const char *prefix, struct err *e);
/* Whether the options ask for records instead. */
bool logs_as_records(const struct client *c);
/* Adds them to the array in out, whose end is not there yet, with event_id (JSON) first. */
int logs_collect(const struct api_answer *a, struct span event_id, struct buf *out, struct err *e);
/* Prints an array of such records; the first column is the id. */
int logs_list(const struct client *c, struct span items, const char *const *columns, struct err *e);

#endif
