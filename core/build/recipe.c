#include "core/build/recipe.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/json.h"
#include "core/base/str.h"

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

/* ---- What several members have ---- */

static int
no_memory(struct err *e)
{
	return err_set(e, ERR_NODE, "no memory for a recipe");
}

static int
wrong(const char *member, const char *what, struct err *e)
{
	return err_set(e, ERR_INPUT, "'%.60s' %s", member, what);
}

static int
take_text(const char *member, const struct json *j, char **out, struct err *e)
{
	if (!json_is_string(j) || !*json_string_value(j))
		return wrong(member, "is not a text, or empty", e);
	*out = strdup(json_string_value(j));
	return *out ? 0 : no_memory(e);
}

static int
take_words(const char *member, const struct json *j, struct image_words *w, struct err *e)
{
	if (!json_is_array(j))
		return wrong(member, "is not a list of texts", e);
	for (const struct json *x = json_first(j); x; x = json_next(x)) {
		if (!json_is_string(x))
			return wrong(member, "is not a list of texts", e);
		if (image_word(w, json_string_value(x)))
			return wrong(member, "has too many words", e);
	}
	return 0;
}

/* No empty part, "." or ".." in path, of which a first '/' is left out. */
static bool
is_clean(const char *path)
{
	if (!*path || strlen(path) >= PATH_MAX)
		return false;
	for (;; path++) {
		size_t n = strcspn(path, "/");

		if (!n || n > NAME_MAX || (n == 1 && path[0] == '.') ||
		    (n == 2 && !strncmp(path, "..", 2)))
			return false;
		path += n;
		if (!*path)
			return true;
	}
}

/* ---- The members ---- */

static int
take_base(struct recipe *r, const struct json *j, struct err *e)
{
	return take_text("base", j, &r->base, e) ||
			       (strcmp(r->base, "host") && image_check_name(r->base, e)) ? -1
	       : strcmp(r->base, "host") ? 0
					 : wrong("base", "is 'host', which is no image that can be built on", e);
}

static int
take_packages(struct recipe *r, const struct json *j, struct err *e)
{
	if (take_words("packages", j, &r->packages, e))
		return -1;
	for (size_t i = 0; i < r->packages.count; i++) {
		const char *name = r->packages.list[i];

		if (!strchr(LOWER DIGITS, name[0]) || !name[0] ||
		    name[strspn(name, LOWER UPPER DIGITS "+-.:=~")])
			return err_set(e, ERR_INPUT, "'packages' has '%.80s', which is no package's name",
				       name);
	}
	return 0;
}

/* "0644" */
static int
take_mode(const struct json *j, int *mode, struct err *e)
{
	const char *text = json_string_value(j);
	unsigned value = 0;

	if (!text || strlen(text) != 4 || text[0] != '0' || strspn(text, "01234567") != 4)
		return err_set(e, ERR_INPUT, "'files' has a mode that is not four octal digits as text, such "
			       "as \"0644\"");
	for (; *text; text++)
		value = value * 8 + (unsigned)(*text - '0');
	*mode = (int)value;
	return 0;
}

static int
take_file(const struct json *j, struct recipe_file *f, struct err *e)
{
	f->mode = -1;
	if (!json_is_object(j))
		return wrong("files", "is not a list of objects {\"from\":…, \"to\":…}", e);
	for (const struct json *m = json_first(j); m; m = json_next(m)) {
		const char *key = json_key(m);
		int rc;

		if (!strcmp(key, "from"))
			rc = take_text("from' of 'files", m, &f->from, e);
		else if (!strcmp(key, "to"))
			rc = take_text("to' of 'files", m, &f->to, e);
		else if (!strcmp(key, "mode"))
			rc = take_mode(m, &f->mode, e);
		else
			rc = err_set(e, ERR_INPUT, "'files' has '%.60s', which is none of from, to, mode",
				     key);
		if (rc)
			return -1;
	}
	if (!f->from || !f->to)
		return wrong("files", "has an entry without 'from' or 'to'", e);
	if (f->from[0] == '/' || !is_clean(f->from))
		return err_set(e, ERR_INPUT, "'files': from '%.200s' is not a path below the recipe's "
			       "directory (relative, without '..')", f->from);
	if (f->to[0] != '/' || !is_clean(f->to + 1))
		return err_set(e, ERR_INPUT, "'files': to '%.200s' is not an absolute path without '..'",
			       f->to);
	return 0;
}

static int
take_files(struct recipe *r, const struct json *j, struct err *e)
{
	if (!json_is_array(j) || json_count(j) > RECIPE_FILES_MAX)
		return wrong("files", "is not a list of at most 1000 objects", e);
	r->files = calloc((size_t)json_count(j) + 1, sizeof *r->files);
	if (!r->files)
		return no_memory(e);
	for (const struct json *x = json_first(j); x; x = json_next(x))
		if (take_file(x, &r->files[r->file_count++], e))
			return -1;
	return 0;
}

static int
take_command(const struct json *j, struct recipe_command *c, struct err *e)
{
	if (json_is_string(j))
		return !*json_string_value(j) ? wrong("commands", "has an empty text", e)
		       : image_word(&c->argv, "/bin/sh") || image_word(&c->argv, "-c") ||
				       image_word(&c->argv, json_string_value(j)) ? no_memory(e) : 0;
	if (!json_is_array(j))
		return wrong("commands", "has what is neither a text nor a list of texts", e);
	if (take_words("commands", j, &c->argv, e))
		return -1;
	return c->argv.count && c->argv.list[0][0] ? 0 : wrong("commands", "has an empty list", e);
}

static int
take_commands(struct recipe *r, const struct json *j, struct err *e)
{
	if (!json_is_array(j) || json_count(j) > RECIPE_COMMANDS_MAX)
		return wrong("commands", "is not a list of at most 100 commands", e);
	r->commands = calloc((size_t)json_count(j) + 1, sizeof *r->commands);
	if (!r->commands)
		return no_memory(e);
	for (const struct json *x = json_first(j); x; x = json_next(x))
		if (take_command(x, &r->commands[r->command_count++], e))
			return -1;
	return 0;
}

static int
take_env(struct recipe *r, const struct json *j, struct err *e)
{
	if (!json_is_object(j))
		return wrong("env", "is not an object of texts", e);
	for (const struct json *m = json_first(j); m; m = json_next(m)) {
		const char *key = json_key(m);
		struct buf text = { 0 };
		int rc;

		if (!*key || strchr(DIGITS, key[0]) || key[strspn(key, LOWER UPPER DIGITS "_")])
			return err_set(e, ERR_INPUT, "'env' has '%.60s', which is no name of a variable", key);
		if (!json_is_string(m))
			return err_set(e, ERR_INPUT, "'env': '%.60s' is not a text", key);
		buf_printf(&text, "%s=%s", key, json_string_value(m));
		rc = text.failed || image_word(&r->env, text.data);
		buf_free(&text);
		if (rc)
			return wrong("env", "has too many variables", e);
	}
	return 0;
}

static int
take_workdir(struct recipe *r, const struct json *j, struct err *e)
{
	if (take_text("workdir", j, &r->workdir, e))
		return -1;
	return r->workdir[0] == '/' && (!r->workdir[1] || is_clean(r->workdir + 1))
		       ? 0 : wrong("workdir", "is not an absolute path without '..'", e);
}

static int
take_user(struct recipe *r, const struct json *j, struct err *e)
{
	if (take_text("user", j, &r->user, e))
		return -1;
	return r->user[strspn(r->user, LOWER UPPER DIGITS "_.:-")] || strlen(r->user) > 100
		       ? wrong("user", "is no name or number (or two, with ':' between)", e) : 0;
}

static int
take_cmd(struct recipe *r, const struct json *j, struct err *e)
{
	r->has_cmd = true;
	return take_words("cmd", j, &r->cmd, e);
}

static int
take_entrypoint(struct recipe *r, const struct json *j, struct err *e)
{
	r->has_entrypoint = true;
	return take_words("entrypoint", j, &r->entrypoint, e);
}

static const struct {
	const char *name;
	int (*take)(struct recipe *r, const struct json *j, struct err *e);
} members[] = {
	{ "base", take_base },       { "packages", take_packages }, { "files", take_files },
	{ "commands", take_commands }, { "env", take_env },         { "workdir", take_workdir },
	{ "user", take_user },       { "cmd", take_cmd },           { "entrypoint", take_entrypoint },
};
enum { MEMBERS = sizeof members / sizeof members[0] };

static int
take_member(struct recipe *r, const struct json *m, struct err *e)
{
	const char *key = json_key(m);

	for (size_t i = 0; i < MEMBERS; i++)
		if (!strcmp(members[i].name, key))
			return members[i].take(r, m, e);
	return err_set(e, ERR_INPUT, "'%.60s' is no member of a recipe (those are: base, packages, files, "
		       "commands, env, workdir, user, cmd, entrypoint)", key);
}

static int
take_all(struct recipe *r, const struct json *j, struct err *e)
{
	if (!json_is_object(j))
		return err_set(e, ERR_INPUT, "it is not a JSON object");
	for (const struct json *m = json_first(j); m; m = json_next(m))
		if (take_member(r, m, e))
			return -1;
	return r->base ? 0 : err_set(e, ERR_INPUT, "'base' is missing");
}

int
recipe_load(struct recipe *r, const char *path, struct err *e)
{
	struct buf text = { .max = RECIPE_BYTES_MAX + 65536 };
	const char *slash = strrchr(path, '/');
	struct json *j = NULL;
	int rc;

	memset(r, 0, sizeof *r);
	if (str_copy(r->path, sizeof r->path, path))
		return err_set(e, ERR_INPUT, "the recipe's path is too long");
	snprintf(r->dir, sizeof r->dir, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
	rc = file_slurp(AT_FDCWD, path, RECIPE_BYTES_MAX, &text, e);
	if (rc == 0) {
		j = json_parse(text.data ? text.data : "", text.len, e);
		rc = j ? take_all(r, j, e) : -1;
		if (rc)
			err_wrap(e, "%.200s", path);
	}
	json_free(j);
	buf_free(&text);
	return rc;
}

/* image_words of an image that is nothing else. */
static void
free_words(struct image_words *w)
{
	for (size_t i = 0; i < w->count; i++)
		free(w->list[i]);
	free(w->list);
}

void
recipe_free(struct recipe *r)
{
	struct image_words *const words[] = { &r->packages, &r->env, &r->cmd, &r->entrypoint };

	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
		free_words(words[i]);
	for (size_t i = 0; i < r->file_count; i++) {
		free(r->files[i].from);
		free(r->files[i].to);
	}
	for (size_t i = 0; i < r->command_count; i++)
		free_words(&r->commands[i].argv);
	free(r->files);
	free(r->commands);
	free(r->base);
	free(r->workdir);
	free(r->user);
	memset(r, 0, sizeof *r);
}

/* ---- Those that are shipped ---- */

bool
recipe_is_shipped(const char *name, const char *shipped, char path[PATH_MAX])
{
	if (!*name || name[strspn(name, LOWER UPPER DIGITS "_-")])
		return false;
	return snprintf(path, PATH_MAX, "%s/%s.json", shipped, name) < PATH_MAX && !access(path, R_OK);
}

static int
not_found(const char *file, const char *shipped, struct err *e)
{
	DIR *dir = opendir(shipped);
	struct dirent *entry;
	char names[200] = "";
	size_t at = 0;

	while (dir && (entry = readdir(dir))) {
		size_t n = strlen(entry->d_name);

		if (n > 5 && !strcmp(entry->d_name + n - 5, ".json") && at + n < sizeof names - 4)
			at += (size_t)snprintf(names + at, sizeof names - at, "%s%.*s", at ? ", " : "",
					       (int)n - 5, entry->d_name);
	}
	if (dir)
		closedir(dir);
	return err_set(e, ERR_NOT_FOUND, "no recipe '%.100s': there is no such file, and those that are "
		       "shipped are: %s", file, at ? names : "none");
}

int
recipe_find(const char *file, const char *shipped, char path[PATH_MAX], struct err *e)
{
	if (!access(file, F_OK) || strchr(file, '/'))
		return str_copy(path, PATH_MAX, file) ? err_set(e, ERR_INPUT, "the recipe's path is too long")
						      : 0;
	return recipe_is_shipped(file, shipped, path) ? 0 : not_found(file, shipped, e);
}
