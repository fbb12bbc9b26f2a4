/*
 * Waiting for a build: the newest version's state is asked for again and again, at first
 * every 50 ms (a function without requirements is ready that soon), later every half
 * second.  A control plane that goes away for a moment is waited for.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/client/client.h"

enum { TAIL_LINES = 20 };
#define AWAY_NS (30 * NS_PER_S)
#define PAUSE_FIRST_NS (50 * NS_PER_MS)
#define PAUSE_MOST_NS (500 * NS_PER_MS)

/* The last lines of the log to stderr. */
static void
print_tail(struct span build)
{
	char *log = span_text(span_member(build, "log"));
	const char *from = log ? log + strlen(log) : "";
	int lines = 0;

	while (log && from > log) {
		if (from[-1] == '\n' && from[0] != '\0' && ++lines == TAIL_LINES)
			break;
		from--;
	}
	render_escaped(stderr, from, strlen(from));
	if (*from && from[strlen(from) - 1] != '\n')
		fputc('\n', stderr);
	free(log);
}

static void
draw(uint64_t since, bool end)
{
	uint64_t seconds = (clock_mono_ns() - since) / NS_PER_S;

	if (!isatty(STDERR_FILENO))
		return;
	if (end)
		fputs("\r\033[K", stderr);
	else if (seconds)
		fprintf(stderr, "\rbuilding, %llu s", (unsigned long long)seconds);
}

/* 1: still building; 0: ready; -1: failed. */
static int
judge(struct span build, struct err *e)
{
	char *state = span_text(span_member(build, "state"));
	char *reason = span_text(span_member(build, "state_reason"));
	char *version = span_text(span_member(build, "version"));
	int rc = 1;

	if (!state || !strcmp(state, "ready"))
		rc = 0;
	else if (!strcmp(state, "failed"))
		rc = err_set(e, ERR_NODE, "the build of version %.20s failed: %.*s",
			     version ? version : "", reason ? (int)strcspn(reason, "\n") : 0,
			     reason ? reason : "");
	free(state);
	free(reason);
	free(version);
	return rc;
}

static int
ask(struct client *c, const char *path, uint64_t since, struct err *e)
{
	struct api_answer a;
	struct span build;
	int rc;

	if (api_expect(c->api, &(struct api_request){ .method = "GET", .path = path }, &a, e))
		return -1;
	rc = api_json(&a, &build, e);
	if (rc == 0)
		rc = judge(build, e);
	draw(since, rc <= 0);
	if (rc < 0)
		print_tail(build);
	api_answer_clear(&a);
	return rc;
}

int
build_wait(struct client *c, const char *function_id, struct err *e)
{
	uint64_t since = clock_mono_ns(), heard = since, pause = PAUSE_FIRST_NS;
	struct buf path = { 0 };
	int rc;

	if (client_path(&path, "/v1/functions/", function_id, "/build", e)) {
		buf_free(&path);
		return -1;
	}
	for (;;) {
		err_clear(e);
		rc = ask(c, path.data, since, e);
		if (rc >= 0)
			heard = clock_mono_ns();
		if (rc == 0)
			break;
		if (rc < 0 && (e->cls != ERR_AGAIN || clock_mono_ns() - heard > AWAY_NS))
			break;
		api_pause(c->api, pause);
		pause = pause * 5 / 4 > PAUSE_MOST_NS ? PAUSE_MOST_NS : pause * 5 / 4;
	}
	draw(since, true);
	buf_free(&path);
	return rc;
}
