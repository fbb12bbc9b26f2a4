/*
 * The table of commands.  An option that a command shares with others stands in a group
 * of its own; command_options puts a command's table together.
 */
#include <stdlib.h>
#include <string.h>

#include "core/client/client.h"
#include "core/client/up.h"

const struct opt client_global_options[] = {
	{ .name = "os-pratai-url", .arg = "URL",
	  .help = "the control plane (OS_PRATAI_URL; default " API_URL_DEFAULT ")" },
	{ .name = "os-token", .arg = "TOKEN", .help = "who you are (OS_TOKEN)" },
	{ .name = "format", .letter = 'f', .arg = "FORMAT",
	  .help = "table, json, value or csv (default table)" },
	{ .name = "column", .letter = 'c', .arg = "COLUMN", .flags = OPT_MANY,
	  .help = "only this column; repeat for more" },
	{ .name = "only-id", .help = "print ids alone" },
	{ .name = "help", .letter = 'h', .help = "print this help" },
	{ .name = "version", .help = "print the version" },
	{ 0 }
};
enum { GROUP_SERVER = 0, GROUP_OUTPUT = 2, GROUP_HELP = 5, GROUP_VERSION = 6 };

#define OPTIONS_OF_A_FUNCTION \
	{ .name = "file", .arg = "ZIP|DIR", .help = "the code: a zip, a directory, - for stdin" }, \
	{ .name = "zip", .arg = "ZIP", .help = "the same as --file" }, \
	{ .name = "description", .arg = "TEXT", .help = "for people" }, \
	{ .name = "runtime", .arg = "NAME", .help = "see runtime-list (default python3)" }, \
	{ .name = "image", .arg = "REF", \
	  .help = "host, or see image-list --uploaded (default host)" }, \
	{ .name = "type", .arg = "TYPE", \
	  .help = "async or wait_for_response (default async)" }, \
	{ .name = "event", .arg = "KIND", .help = "webhook or timer (default webhook)" }, \
	{ .name = "frequency", .arg = "MINUTES", .help = "of a timer's events" }, \
	{ .name = "memory", .arg = "MIB", .help = "16 to 8192 (default 128)" }, \
	{ .name = "cpus", .arg = "N", .help = "of processor time, a fraction is fine (default 1)" }, \
	{ .name = "pids", .arg = "N", .help = "processes and threads (default 64)" }, \
	{ .name = "timeout", .arg = "SECONDS", .help = "1 to 3600 (default 60)" }, \
	{ .name = "tmp-size", .arg = "MIB", .help = "of what it may write; is memory (default 64)" }, \
	{ .name = "limit", .arg = "N", .help = "sandboxes at a time (default none)" }, \
	{ .name = "retries", .arg = "N", .help = "of a failed async event (default 2)" }, \
	{ .name = "network", .arg = "KIND", .help = "none or egress (default none)" }, \
	{ .name = "allow", .arg = "NET[:PORTS]", .flags = OPT_MANY, \
	  .help = "an address near that egress may reach; repeat for more" }, \
	{ .name = "env", .arg = "K=V", .flags = OPT_MANY, .help = "a variable; repeat for more" }, \
	{ .name = "tags", .arg = "T,...", .flags = OPT_MANY, .help = "words to find it by" }, \
	{ .name = "no-wait", .help = "do not wait for the build" }

static const struct opt function_options[] = { OPTIONS_OF_A_FUNCTION, { 0 } };

static const struct opt execute_options[] = {
	{ .name = "data", .arg = "TEXT", .help = "the payload: JSON, or text" },
	{ .name = "file", .arg = "FILE", .help = "the payload from a file, - for stdin" },
	{ .name = "wait", .help = "wait for an async event and print its response" },
	{ 0 }
};

static const struct opt function_logs_options[] = {
	{ .name = "build", .help = "what the build of the newest version printed" },
	{ .name = "limit", .arg = "N", .help = "of the newest N events", .fallback = "20" },
	{ 0 }
};

static const struct opt rollback_options[] = {
	{ .name = "to", .arg = "VERSION", .help = "see function-versions" },
	{ 0 }
};

static const struct opt event_list_options[] = {
	{ .name = "function", .arg = "F", .help = "only of this function" },
	{ .name = "state", .arg = "STATE", .help = "only in this state" },
	{ .name = "source", .arg = "SOURCE", .help = "only from there: webhook, timer, ..." },
	{ .name = "since", .arg = "TIME", .help = "not older: 2026-01-02T03:04:05Z or a date" },
	{ .name = "query", .arg = "TEXT", .help = "only with this text in them" },
	{ .name = "limit", .arg = "N", .help = "the newest N", .fallback = "100" },
	{ 0 }
};

static const struct opt runtime_create_options[] = {
	{ .name = "image", .arg = "REF", .help = "what it is in, see image-list --uploaded" },
	{ .name = "command", .arg = "WORDS", .help = "runs an event: words between blanks, or a JSON list" },
	{ .name = "build", .arg = "WORDS", .help = "builds a version, likewise (default: nothing to do)" },
	{ .name = "env", .arg = "K=V", .flags = OPT_MANY, .help = "a variable; repeat for more" },
	{ .name = "description", .arg = "TEXT", .help = "for people" },
	{ 0 }
};

static const struct opt token_create_options[] = {
	{ .name = "description", .arg = "TEXT", .help = "for people" },
	{ 0 }
};

#define ROOT_OPTION \
	{ .name = "root", .arg = "DIR", .help = "image store (PRATAI_ROOT; /var/lib/pratai)" }

static const struct opt image_options[] = { ROOT_OPTION, { 0 } };

static const struct opt image_build_options[] = {
	{ .name = "name", .arg = "REF", .help = "what the image is called from now on" },
	{ .name = "memory", .arg = "SIZE", .help = "limit of each step's memory", .fallback = "2G" },
	{ .name = "disk", .arg = "SIZE", .help = "limit of what each step writes", .fallback = "10G" },
	{ .name = "timeout", .arg = "TIME", .help = "limit of each step's time", .fallback = "30m" },
	{ .name = "no-upload", .help = "keep it on this machine" },
	ROOT_OPTION,
	{ 0 },
};

static const struct opt image_import_options[] = {
	{ .name = "name", .arg = "REF", .help = "what the image is called from now on" },
	{ .name = "from", .arg = "NAME", .help = "which image of several there (default: as --name)" },
	{ .name = "no-upload", .help = "keep it on this machine" },
	ROOT_OPTION,
	{ 0 }
};

static const struct opt image_uploaded_options[] = {
	{ .name = "uploaded", .help = "those of the control plane, not this machine's" },
	ROOT_OPTION,
	{ 0 }
};

static const struct opt help_options[] = {
	{ .name = "completion", .arg = "SHELL", .help = "print the completion for bash" },
	{ 0 }
};

#define BOTH (COMMAND_SERVER | COMMAND_OUTPUT)

static const struct command commands[] = {
	{ "up", "", 0, 0, 0, up_options,
	  "a control plane and a node on this machine, in the foreground (root)",
	  "Prints `ready URL` when events can be run; DIR/env then has the variables to source.\n",
	  cmd_up },
	{ "function-create", "NAME", 1, 1, BOTH, function_options,
	  "make a function from a zip or a directory",
	  "Waits until it is built; exit 1 and the build's last lines when that fails.\n",
	  cmd_function_create },
	{ "function-list", "", 0, 0, BOTH, NULL, "the functions", NULL, cmd_function_list },
	{ "function-show", "F", 1, 1, BOTH, NULL, "one function, by name or id", NULL,
	  cmd_function_show },
	{ "function-update", "F", 1, 1, BOTH, function_options, "change a function",
	  "What is not given stays. --env and --tags replace all there were. New code or limits\n"
	  "make a new version; the old one serves until it is built.\n",
	  cmd_function_update },
	{ "function-delete", "F...", 1, OPT_OPERANDS_MAX, COMMAND_SERVER, NULL, "delete functions",
	  NULL, cmd_function_delete },
	{ "function-execute", "F", 1, 1, BOTH, execute_options, "run a function once",
	  "Prints the response of a wait_for_response function as it is, and the event's id of an\n"
	  "async one. Exit 3, with the traceback on stderr, when the function failed.\n",
	  cmd_function_execute },
	{ "function-logs", "F", 1, 1, BOTH, function_logs_options,
	  "what a function's newest events printed, or its build", NULL, cmd_function_logs },
	{ "function-versions", "F", 1, 1, BOTH, NULL, "the versions of a function that are kept", NULL,
	  cmd_function_versions },
	{ "function-rollback", "F", 1, 1, BOTH, rollback_options, "run an earlier version again",
	  "Makes a new version of its code and settings, which serves at once: nothing is built.\n",
	  cmd_function_rollback },
	{ "event-list", "", 0, 0, BOTH, event_list_options, "the newest events", NULL,
	  cmd_event_list },
	{ "event-show", "E", 1, 1, BOTH, NULL, "one event, by id", NULL, cmd_event_show },
	{ "event-logs", "E", 1, 1, BOTH, NULL, "what an event printed: time, stream, text", NULL,
	  cmd_event_logs },
	{ "runtime-list", "", 0, 0, BOTH, NULL, "the runtimes that functions can use", NULL,
	  cmd_runtime_list },
	{ "runtime-show", "R", 1, 1, BOTH, NULL, "one runtime, by name", NULL, cmd_runtime_show },
	{ "runtime-create", "NAME", 1, 1, BOTH, runtime_create_options,
	  "make a runtime of an uploaded image",
	  "Functions can then be made with --runtime NAME. See pratai-runtime(7).\n",
	  cmd_runtime_create },
	{ "runtime-delete", "R...", 1, OPT_OPERANDS_MAX, COMMAND_SERVER, NULL, "delete runtimes",
	  "Versions of functions that run on them go on.\n", cmd_runtime_delete },
	{ "cluster-status", "", 0, 0, BOTH, NULL, "the control plane, its nodes and events", NULL,
	  cmd_cluster_status },
	{ "node-list", "", 0, 0, BOTH, NULL, "the nodes", NULL, cmd_node_list },
	{ "image-import", "PATH", 1, 1, COMMAND_MAY_ASK | COMMAND_OUTPUT, image_import_options,
	  "take an image into this machine's store",
	  "PATH is an OCI layout (a directory or a tar), what `docker save` wrote, or the tar of a\n"
	  "root directory; - is standard input. With OS_PRATAI_URL and a token it is uploaded, too.\n",
	  cmd_image_import },
	{ "image-upload", "REF", 1, 1, BOTH, image_options,
	  "give an image of this machine's store to the control plane",
	  "Only the layers that it lacks are sent. Functions can then be made with --image REF.\n",
	  cmd_image_upload },
	{ "image-build", "FILE", 1, 1, COMMAND_MAY_ASK | COMMAND_OUTPUT, image_build_options,
	  "build an image by a recipe",
	  "FILE is a recipe, see pratai-recipe(5), or the name of one that is shipped: seed,\n"
	  "python3, nodejs.  Steps that were run before, on the same layers, are not run again.\n",
	  cmd_image_build },
	{ "image-export", "REF PATH", 2, 2, COMMAND_OUTPUT, image_options,
	  "write an image as an OCI layout",
	  "PATH becomes a directory, or a tar when it ends in .tar; - is a tar on standard output.\n",
	  cmd_image_export },
	{ "image-list", "", 0, 0, COMMAND_MAY_ASK | COMMAND_OUTPUT, image_uploaded_options,
	  "the images of this machine, or those that were uploaded", NULL, cmd_image_list },
	{ "image-delete", "REF...", 1, OPT_OPERANDS_MAX, COMMAND_MAY_ASK, image_uploaded_options,
	  "forget images",
	  "What they took on the disk is removed by image-gc; at the control plane, by and by.\n",
	  cmd_image_delete },
	{ "image-gc", "", 0, 0, COMMAND_OUTPUT, image_options, "remove what no image needs", NULL,
	  cmd_image_gc },
	{ "image-verify", "", 0, 0, COMMAND_OUTPUT, image_options,
	  "read and unpack all images again, and compare", NULL, cmd_image_verify },
	{ "token-create", "NAME", 1, 1, BOTH, token_create_options,
	  "make a token; it is shown once", NULL, cmd_token_create },
	{ "token-list", "", 0, 0, BOTH, NULL, "the tokens, without their secrets", NULL,
	  cmd_token_list },
	{ "token-delete", "TOKEN...", 1, OPT_OPERANDS_MAX, COMMAND_SERVER, NULL,
	  "delete tokens, by name or id", NULL, cmd_token_delete },
	{ "run", "[OPTIONS] -- CMD [ARG...]", 0, OPT_OPERANDS_MAX, 0, NULL,
	  "the sandbox alone; no daemon (see pratai-run(1))", NULL, NULL },
	{ "help", "[COMMAND]", 0, 1, 0, help_options, "the help of a command", NULL, cmd_help },
	{ "version", "", 0, 0, 0, NULL, "print the version", NULL, cmd_version },
	{ 0 }
};

const struct command *
command_table(void)
{
	return commands;
}

const struct command *
command_find(const char *name)
{
	for (const struct command *cmd = commands; cmd->name; cmd++)
		if (opt_same_name(name, strlen(name), cmd->name))
			return cmd;
	return NULL;
}

/* Levenshtein's distance, for words of at most 31 bytes; else far. */
static size_t
distance(const char *a, const char *b)
{
	size_t row[32], la = strlen(a), lb = strlen(b);

	if (la > 31 || lb > 31)
		return 32;
	for (size_t j = 0; j <= lb; j++)
		row[j] = j;
	for (size_t i = 1; i <= la; i++) {
		size_t corner = row[0];

		row[0] = i;
		for (size_t j = 1; j <= lb; j++) {
			size_t above = row[j], best = corner + (a[i - 1] != b[j - 1]);

			if (above + 1 < best)
				best = above + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			corner = above;
			row[j] = best;
		}
	}
	return row[lb];
}

const char *
command_nearest(const char *word)
{
	const char *best = NULL;
	size_t best_distance = 4; /* farther is another word, not a slip */

	for (const struct command *cmd = commands; cmd->name; cmd++) {
		size_t d = distance(word, cmd->name);

		if (d < best_distance && d < strlen(cmd->name)) {
			best = cmd->name;
			best_distance = d;
		}
	}
	return best;
}

void
command_options(const struct command *cmd, struct opt out[COMMAND_OPTIONS_MAX])
{
	size_t n = 0;

	for (const struct opt *o = cmd->options; o && o->name; o++)
		out[n++] = *o;
	for (int i = 0; client_global_options[i].name; i++) {
		unsigned needs = i < GROUP_OUTPUT ? COMMAND_SERVER | COMMAND_MAY_ASK : COMMAND_OUTPUT;

		if (i == GROUP_VERSION || (i < GROUP_HELP && !(cmd->flags & needs)))
			continue;
		out[n++] = client_global_options[i];
	}
	memset(&out[n], 0, sizeof out[n]);
}
