/*
 * Waiting for a build: the newest version's state is asked for again and again, at first
 * every 50 ms (a function without requirements is ready that soon), later every half
 * second.  A control plane that goes away for a moment is waited for.
 *
 * On a terminal what the build prints is shown as it comes.  What is asked for is the end of
 * it, so what is new is what follows the end of what was shown.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/client/client.h"

enum { TAIL_LINES = 20, KNOWN_AGAIN = 256 };
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

struct view {
	bool terminal, drawn; /* drawn: our line is there, and goes before another */
	uint64_t since_ns;
	char *shown; /* the whole lines of the log that have been, or NULL */
};

static void
wipe(struct view *v)
{
	if (v->drawn)
		fputs("\r\033[K", stderr);
	v->drawn = false;
}

static void
draw(struct view *v)
{
	uint64_t seconds = (clock_mono_ns() - v->since_ns) / NS_PER_S;

	if (!v->terminal || !seconds)
		return;
	fprintf(stderr, "\rbuilding, %llu s", (unsigned long long)seconds);
	v->drawn = true;
}

/* Where in log that begins which was not shown. */
static const char *
what_is_new(const char *shown, const char *log)
{
	size_t known = shown ? strlen(shown) : 0;
	const char *end, *at;

	if (!known || !strncmp(shown, log, known))
		return log + known;
	end = shown + (known > KNOWN_AGAIN ? known - KNOWN_AGAIN : 0);
	at = strstr(log, end);
	return at ? at + strlen(end) : log;
}

/* Its whole lines; at the end all of it. */
static void
show(struct view *v, struct span build, bool end)
{
	char *log = v->terminal ? span_text(span_member(build, "log")) : NULL;
	char *last = log ? strrchr(log, '\n') : NULL;
	const char *from;

	if (log && last && !end)
		last[1] = '\0';
	from = log && (last || end) ? what_is_new(v->shown, log) : "";
	if (!*from) {
		free(log);
		return;
	}
	wipe(v);
	render_escaped(stderr, from, strlen(from));
	if (from[strlen(from) - 1] != '\n')
		fputc('\n', stderr);
	free(v->shown);
	v->shown = log;
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
ask(struct client *c, const char *path, struct view *v, struct err *e)
{
	struct api_answer a;
	struct span build;
	int rc;

	if (api_expect(c->api, &(struct api_request){ .method = "GET", .path = path }, &a, e))
		return -1;
	rc = api_json(&a, &build, e);
	if (rc == 0)
		rc = judge(build, e);
	/* A build that is over at once has nothing to tell but what failed. */
	if (rc > 0 || v->shown)
		show(v, build, rc <= 0);
	if (rc > 0)
		draw(v);
	else
		wipe(v);
	if (rc < 0 && !v->shown)
		print_tail(build);
	api_answer_clear(&a);
	return rc;
}

int
build_wait(struct client *c, const char *function_id, struct err *e)
{
	struct view view = { .terminal = isatty(STDERR_FILENO), .since_ns = clock_mono_ns() };
	uint64_t heard = view.since_ns, pause = PAUSE_FIRST_NS;
	struct buf path = { 0 };
	int rc;

	if (client_path(&path, "/v1/functions/", function_id, "/build", e)) {
		buf_free(&path);
		return -1;
	}
	for (;;) {
		err_clear(e);
		rc = ask(c, path.data, &view, e);
		if (rc >= 0)
			heard = clock_mono_ns();
		if (rc == 0)
			break;
		if (rc < 0 && (e->cls != ERR_AGAIN || clock_mono_ns() - heard > AWAY_NS))
			break;
		api_pause(c->api, pause);
		pause = pause * 5 / 4 > PAUSE_MOST_NS ? PAUSE_MOST_NS : pause * 5 / 4;
	}
	wipe(&view);
	free(view.shown);
	buf_free(&path);
	return rc;
}
