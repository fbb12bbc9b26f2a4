/*
 * pratai-client: every command of `pratai` but `run`.
 *
 * Options that all commands share may stand before or after the command's name; the ones
 * after it count.
 */
#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/fdio.h"
#include "core/client/client.h"

int
client_fail(const struct err *e)
{
	fputs("pratai: ", stderr);
	render_escaped(stderr, e->text, strcspn(e->text, "\n"));
	fputc('\n', stderr);
	return e->cls == ERR_INPUT ? CLIENT_USAGE :
	       e->cls == ERR_FUNCTION ? CLIENT_FUNCTION_FAILED : CLIENT_REFUSED;
}

int
client_usage(const char *fmt, ...)
{
	struct err e = { .cls = ERR_INPUT };
	va_list args;

	va_start(args, fmt);
	vsnprintf(e.text, sizeof e.text, fmt, args);
	va_end(args);
	return client_fail(&e);
}

/* The shared options in v over those in *c. */
static int
take_shared(struct client *c, const struct opt_values *v)
{
	const char *format = opt_get(v, "format"), *column;
	int parsed;

	if (format) {
		parsed = render_format_parse(format);
		if (parsed < 0)
			return client_usage("--format: '%.40s' is not table, json, value or csv", format);
		c->out.format = (enum render_format)parsed;
	}
	for (size_t i = 0; (column = opt_nth(v, "column", i)); i++) {
		if (c->out.column_count == RENDER_COLUMNS_MAX)
			return client_usage("more than %d times --column", RENDER_COLUMNS_MAX);
		c->out.columns[c->out.column_count++] = column;
	}
	if (opt_given(v, "only-id"))
		c->out.only_id = true;
	if (opt_given(v, "os-pratai-url")) {
		c->url = opt_get(v, "os-pratai-url");
		c->url_given = true;
	}
	if (opt_given(v, "os-token"))
		c->token = opt_get(v, "os-token");
	return CLIENT_OK;
}

int
client_connect(struct client *c, struct err *e)
{
	c->api = api_open(c->url, c->token, e);
	return c->api ? 0 : -1;
}

static int
check_operands(const struct client *c)
{
	const struct command *cmd = c->command;

	if (c->v.operand_count < cmd->operands_min)
		return client_usage("%s needs %s (see: pratai help %s)", cmd->name, cmd->operands,
				    cmd->name);
	if (c->v.operand_count > cmd->operands_max)
		return client_usage("%s: '%.80s' is one word too many (see: pratai help %s)",
				    cmd->name, c->v.operands[cmd->operands_max], cmd->name);
	return CLIENT_OK;
}

static int
run_command(struct client *c, int argc, char **argv)
{
	struct opt options[COMMAND_OPTIONS_MAX];
	struct err e = { 0 };
	int rc;

	command_options(c->command, options);
	if (opt_parse(&c->v, options, argc, argv, 1, false, &e)) {
		err_wrap(&e, "%s", c->command->name);
		return client_fail(&e);
	}
	if (opt_given(&c->v, "help")) {
		help_command(c->command);
		return CLIENT_OK;
	}
	rc = take_shared(c, &c->v);
	if (rc || (rc = check_operands(c)))
		return rc;
	if ((c->command->flags & COMMAND_SERVER) && client_connect(c, &e))
		return client_fail(&e);
	rc = c->command->run(c);
	api_close(c->api);
	return rc;
}

static int
find_command(struct client *c, const char *word)
{
	const char *nearest;

	c->command = command_find(word);
	if (c->command && c->command->run)
		return CLIENT_OK;
	if (c->command)
		return client_usage("'%s' has to be the first word: pratai %s %s", word, word,
				    c->command->operands);
	nearest = command_nearest(word);
	if (nearest)
		return client_usage("no command '%.60s'; did you mean '%s'?", word, nearest);
	return client_usage("no command '%.60s' (see: pratai help)", word);
}

static const char *
environment(const char *name, const char *missing)
{
	const char *value = getenv(name);

	return value && *value ? value : missing;
}

static int
run(int argc, char **argv)
{
	struct client c = {
		.url = environment("OS_PRATAI_URL", API_URL_DEFAULT),
		.url_given = *environment("OS_PRATAI_URL", ""),
		.token = environment("OS_TOKEN", ""),
	};
	struct opt_values global;
	struct err e = { 0 };
	int rc;

	if (opt_parse(&global, client_global_options, argc, argv, 1, true, &e))
		return client_fail(&e);
	if (opt_given(&global, "version"))
		return cmd_version(&c);
	if (opt_given(&global, "help")) {
		help_overview();
		return CLIENT_OK;
	}
	if (global.operand_count == 0)
		return client_usage("no command given (see: pratai help)");
	rc = take_shared(&c, &global);
	if (rc || (rc = find_command(&c, global.operands[0])))
		return rc;
	return run_command(&c, global.operand_count, global.operands);
}

int
main(int argc, char **argv)
{
	struct err e = { 0 };
	int rc;

	if (fd_keep_standard(&e))
		return client_fail(&e);
	signal(SIGPIPE, SIG_IGN); /* of sockets, too */
	if (!setlocale(LC_CTYPE, "C.UTF-8"))
		setlocale(LC_CTYPE, "");
	rc = run(argc, argv);
	if (rc != CLIENT_OK || (!fflush(stdout) && !ferror(stdout)))
		return rc;
	if (errno == EPIPE) /* head(1) has what it wanted */
		return CLIENT_REFUSED;
	err_sys(&e, ERR_NODE, "cannot write to stdout");
	return client_fail(&e);
}
