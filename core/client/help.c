/*
 * Help and completion, from the table of commands alone.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/base/fdio.h"
#include "core/client/client.h"
#include "core/client/program.h"

void
help_overview(void)
{
	puts("usage: pratai COMMAND [OPTIONS] [OPERANDS]\n");
	for (const struct command *cmd = command_table(); cmd->name; cmd++)
		printf("  %-18s %s\n", cmd->name, cmd->help);
	puts("\n`pratai help COMMAND` prints a command's options; those of all commands:\n");
	opt_print_help(client_global_options);
	puts("\nExit codes: 0 done, 1 the platform said no, 2 usage, 3 the function failed.\n"
	     "The manual is pratai(1).");
}

void
help_command(const struct command *cmd)
{
	struct opt options[COMMAND_OPTIONS_MAX];

	command_options(cmd, options);
	printf("usage: pratai %s%s%s%s\n\n%c%s.\n", cmd->name, options[0].name ? " [OPTIONS]" : "",
	       *cmd->operands ? " " : "", cmd->operands, cmd->help[0] - ('a' - 'A'),
	       cmd->help + 1);
	if (cmd->detail)
		fputs(cmd->detail, stdout);
	putchar('\n');
	opt_print_help(options);
}

static void
put_words(const struct opt *options)
{
	for (; options->name; options++)
		printf(" --%s", options->name);
}

/*
 * Values of options are completed by bash's own means: file names, or nothing.
 */
void
help_completion_bash(void)
{
	fputs("# bash completion for pratai(1)\n"
	      "_pratai()\n"
	      "{\n"
	      "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words i cmd=\n"
	      "\tlocal commands='", stdout);
	for (const struct command *cmd = command_table(); cmd->name; cmd++)
		printf("%s%s", cmd == command_table() ? "" : " ", cmd->name);
	puts("'\n"
	     "\tfor ((i = 1; i < COMP_CWORD; i++)); do\n"
	     "\t\t[[ \" $commands \" == *\" ${COMP_WORDS[i]} \"* ]] && { cmd=${COMP_WORDS[i]}; break; }\n"
	     "\tdone\n"
	     "\tcase $prev in\n"
	     "\t--file|--zip|--state|--config) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n"
	     "\t-f|--format) COMPREPLY=($(compgen -W 'table json value csv' -- \"$cur\")); return ;;\n"
	     "\t--type) COMPREPLY=($(compgen -W 'async wait_for_response' -- \"$cur\")); return ;;\n"
	     "\t--event) COMPREPLY=($(compgen -W 'webhook timer' -- \"$cur\")); return ;;\n"
	     "\tesac\n"
	     "\tcase $cmd in");
	for (const struct command *cmd = command_table(); cmd->name; cmd++) {
		struct opt options[COMMAND_OPTIONS_MAX];

		printf("\t%s) words=\"%s", cmd->name, cmd->run == cmd_help ? "$commands" : "");
		command_options(cmd, options);
		if (cmd->run)
			put_words(options);
		puts("\" ;;");
	}
	fputs("\t*) words=\"$commands", stdout);
	put_words(client_global_options);
	puts("\" ;;\n"
	     "\tesac\n"
	     "\tCOMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
	     "}\n"
	     "complete -o default -F _pratai pratai");
}

/* `run` is in the program `pratai` alone, and so is its help. */
static int
help_of_run(void)
{
	char path[PROGRAM_PATH_MAX];
	struct err e = { 0 };

	if (program_find("pratai", path, &e))
		return client_fail(&e);
	execl(path, "pratai", "run", "--help", (char *)NULL);
	err_sys(&e, ERR_NODE, "%s", path);
	return client_fail(&e);
}

int
cmd_help(struct client *c)
{
	const char *shell = opt_get(&c->v, "completion");
	const struct command *cmd;
	const char *nearest;

	if (shell && strcmp(shell, "bash"))
		return client_usage("--completion: '%.40s' is not bash", shell);
	if (shell) {
		help_completion_bash();
	} else if (c->v.operand_count == 0) {
		help_overview();
	} else {
		cmd = command_find(c->v.operands[0]);
		if (cmd && !cmd->run)
			return help_of_run();
		if (!cmd) {
			nearest = command_nearest(c->v.operands[0]);
			return client_usage("no command '%.60s'%s%s%s", c->v.operands[0],
					    nearest ? "; did you mean '" : "", nearest ? nearest : "",
					    nearest ? "'?" : "");
		}
		help_command(cmd);
	}
	return CLIENT_OK;
}

int
cmd_version(struct client *c)
{
	(void)c;
	puts("pratai " PRATAI_VERSION);
	return CLIENT_OK;
}
