/*
 * The operator's own files: an error in one ends the start, with its name, before a job
 * could meet it.
 */
#include "core/node/runtimes.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/json.h"
#include "core/base/str.h"
#include "core/model/runtime_rule.h"

enum { RUNTIME_JSON_MAX = 64 << 10 };

struct runtimes {
	size_t count;
	struct runtime item[RUNTIMES_MAX];
};

static int
read_argv(const struct json *j, const char *key, char **argv, struct err *e)
{
	int n = 0;

	for (const struct json *w = json_first(json_get(j, key)); w; w = json_next(w), n++) {
		argv[n] = strdup(json_string_value(w));
		if (!argv[n])
			return err_set(e, ERR_NODE, "out of memory");
	}
	return 0;
}

static int
read_description(const struct json *j, struct runtime *r, struct err *e)
{
	const char *description = json_str(j, "description");

	if (runtime_rule_check(j, e))
		return -1;
	r->description = strdup(description ? description : "");
	if (!r->description)
		return err_set(e, ERR_NODE, "out of memory");
	if (json_is_object(json_get(j, "env")))
		r->env = json_copy(json_get(j, "env"));
	return read_argv(j, "command", r->command, e) || read_argv(j, "build", r->build, e) ? -1 : 0;
}

static void
runtime_clear(struct runtime *r)
{
	free(r->description);
	for (int i = 0; i < RUNTIME_ARGV_MAX; i++) {
		free(r->command[i]);
		free(r->build[i]);
	}
	json_free(r->env);
	memset(r, 0, sizeof *r);
}

/* 1: read; 0: not a runtime's directory. */
static int
read_one(int dirfd, const char *name, struct runtime *r, struct err *e)
{
	struct buf text = { 0 };
	struct json *j;
	char path[300];
	int rc;

	if (snprintf(path, sizeof path, "%s/runtime.json", name) >= (int)sizeof path ||
	    str_copy(r->name, sizeof r->name, name))
		return 0;
	if (file_slurp(dirfd, path, RUNTIME_JSON_MAX, &text, e)) {
		buf_free(&text);
		if (e->cls != ERR_NOT_FOUND && e->errnum != ENOTDIR)
			return -1;
		err_clear(e);
		return 0;
	}
	j = json_parse(text.data, text.len, e);
	buf_free(&text);
	rc = j ? read_description(j, r, e) : -1;
	json_free(j);
	if (rc)
		return err_wrap(e, "%s", path);
	return 1;
}

static int
read_all(struct runtimes *rs, const char *directory, DIR *dir, struct err *e)
{
	struct dirent *entry;

	while ((entry = readdir(dir))) {
		int got;

		if (entry->d_name[0] == '.')
			continue;
		if (rs->count == RUNTIMES_MAX)
			return err_set(e, ERR_INPUT, "%s: more than %d runtimes", directory,
				       RUNTIMES_MAX);
		got = read_one(dirfd(dir), entry->d_name, &rs->item[rs->count], e);
		if (got < 0) {
			runtime_clear(&rs->item[rs->count]);
			return err_wrap(e, "%s", directory);
		}
		rs->count += (size_t)got;
	}
	return 0;
}

struct runtimes *
runtimes_load(const char *directory, struct err *e)
{
	struct runtimes *rs = calloc(1, sizeof *rs);
	DIR *dir = opendir(directory);
	int rc;

	if (!rs || !dir) {
		err_sys(e, ERR_NODE, "runtimes in %s", directory);
		if (dir)
			closedir(dir);
		free(rs);
		return NULL;
	}
	rc = read_all(rs, directory, dir, e);
	closedir(dir);
	if (rc) {
		runtimes_free(rs);
		return NULL;
	}
	return rs;
}

void
runtimes_free(struct runtimes *rs)
{
	if (!rs)
		return;
	for (size_t i = 0; i < rs->count; i++)
		runtime_clear(&rs->item[i]);
	free(rs);
}

const struct runtime *
runtimes_find(const struct runtimes *rs, const char *name)
{
	for (size_t i = 0; i < rs->count; i++)
		if (!strcmp(rs->item[i].name, name))
			return &rs->item[i];
	return NULL;
}

const struct runtime *
runtime_use(const struct runtimes *rs, const char *name, const char *own, struct runtime **made,
	    struct err *e)
{
	const struct runtime *r = own ? NULL : runtimes_find(rs, name);
	struct json *j;
	int rc;

	if (!own && !r)
		err_set(e, ERR_INPUT, "the node has no runtime '%s'", name);
	if (!own)
		return r;
	*made = calloc(1, sizeof **made);
	j = json_parse(own, strlen(own), e);
	rc = *made && j ? read_description(j, *made, e) : err_set(e, ERR_NODE, "runtime: out of memory");
	json_free(j);
	return rc ? NULL : *made;
}

void
runtime_free(struct runtime *r)
{
	if (r)
		runtime_clear(r);
	free(r);
}

size_t
runtimes_count(const struct runtimes *rs)
{
	return rs->count;
}

const struct runtime *
runtimes_nth(const struct runtimes *rs, size_t i)
{
	return &rs->item[i];
}
