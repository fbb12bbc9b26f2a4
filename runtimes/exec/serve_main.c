/*
 * The runtime of any executable: serve event|build [ROOT].
 *
 * It runs in images that have nothing else, so it is static, and small: it is started for
 * every event.  It speaks pratai-runtime(7) on descriptor 3 and executes /function/main (below
 * ROOT, which tests use) with the payload on its standard input.
 */
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/fdio.h"
#include "core/base/json.h"
#include "core/base/str.h"
#include "runtimes/exec/program.h"
#include "runtimes/exec/run.h"

enum { CHANNEL_FD = 3, EXIT_FAILED = 1, EXIT_USE = 64, EXIT_NODE_GONE = 70 };

/* A line of the node's; what came after it follows. */
static char input[RUN_CHUNK];
static size_t input_len;

#ifdef __SANITIZE_ADDRESS__
/* The search for leaks wants what a sandbox does not give. */
const char *__asan_default_options(void);
const char *
__asan_default_options(void)
{
	return "detect_leaks=0";
}
#endif

static void
send_bytes(const void *data, size_t len)
{
	if (fd_write_all(CHANNEL_FD, data, len) < 0)
		_exit(EXIT_NODE_GONE); /* nobody is left to tell */
}

static void
send_failure(const struct failure *f, uint64_t run_us, uint64_t import_us)
{
	char line[1024];
	int n = snprintf(line, sizeof line,
			 "{\"v\":1,\"type\":\"result\",\"ok\":false,\"run_us\":%llu,\"import_us\":%llu,"
			 "\"error\":{\"type\":\"%s\",\"message\":\"%s\"}}\n",
			 (unsigned long long)run_us, (unsigned long long)import_us, f->type,
			 f->message);

	send_bytes(line, (size_t)n);
}

/* The length of the node's next line, with its newline.  0: the stream ended. */
static size_t
read_line(void)
{
	for (;;) {
		char *end = memchr(input, '\n', input_len);
		ssize_t n;

		if (end)
			return (size_t)(end + 1 - input);
		if (input_len == sizeof input)
			return 0;
		n = read(CHANNEL_FD, input + input_len, sizeof input - input_len);
		if (n <= 0)
			return 0;
		input_len += (size_t)n;
	}
}

/* A member of the line as text: numbers as they stand, strings without their quotes. */
static void
member_text(size_t line, const char *key, char *out, size_t size)
{
	size_t at = 0, n = 0;

	out[0] = '\0';
	if (!json_member(input, line, key, &at, &n))
		return;
	if (n >= 2 && input[at] == '"') {
		at++;
		n -= 2;
	}
	if (n < size) {
		memcpy(out, input + at, n);
		out[n] = '\0';
	}
}

/* What main may know of its event. */
static void
tell_context(size_t line)
{
	static const struct {
		const char *key, *variable;
	} known[] = {
		{ "event_id", "PRATAI_EVENT_ID" },       { "function_id", "PRATAI_FUNCTION_ID" },
		{ "request_id", "PRATAI_REQUEST_ID" },   { "source", "PRATAI_SOURCE" },
		{ "attempt", "PRATAI_ATTEMPT" },         { "timeout_ms", "PRATAI_TIMEOUT_MS" },
	};
	char text[128];

	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
		member_text(line, known[i].key, text, sizeof text);
		if (text[0])
			setenv(known[i].variable, text, 1);
	}
}

static const char *
content_type(const char *data, size_t len)
{
	if (json_check(data, len) == JSON_FORM_OK)
		return "application/json";
	return str_is_utf8(data, len) ? "text/plain; charset=utf-8" : "application/octet-stream";
}

static void
send_answer(const struct run *r)
{
	char line[256];
	int n = snprintf(line, sizeof line,
			 "{\"v\":1,\"type\":\"result\",\"ok\":true,\"run_us\":%llu,"
			 "\"content_type\":\"%s\",\"bytes\":%zu}\n",
			 (unsigned long long)r->run_us,
			 content_type(r->answer, r->answer_len), r->answer_len);

	send_bytes(line, (size_t)n);
	send_bytes(r->answer, r->answer_len);
}

static uint64_t
cpu_us(void)
{
	struct timespec t = { 0 };

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* The line is the node's; that it is JSON at all is what json_member relies on. */
static int
take_event(struct run *r)
{
	size_t line = read_line();
	char bytes[32];
	int64_t count = 0;

	if (!line)
		return -1;
	if (json_check(input, line) != JSON_FORM_OK)
		_exit(EXIT_NODE_GONE);
	tell_context(line);
	member_text(line, "bytes", bytes, sizeof bytes);
	if (bytes[0] && str_int(bytes, 0, INT64_MAX, &count) < 0)
		_exit(EXIT_NODE_GONE);
	memmove(input, input + line, input_len - line);
	input_len -= line;
	r->channel = CHANNEL_FD;
	r->early = input;
	r->early_len = input_len < (uint64_t)count ? input_len : (size_t)count;
	r->payload_left = (uint64_t)count - r->early_len;
	return 0;
}

static int
serve_event(const char *directory, const char *path)
{
	uint64_t start_us = cpu_us(), began_ns = clock_mono_ns(), import_us;
	struct run r = { .path = path };
	struct failure f;
	char kind[128], line[128];
	int rc = program_check(directory, kind, &f);

	import_us = (clock_mono_ns() - began_ns) / NS_PER_US;
	if (rc) {
		send_failure(&f, 0, import_us);
		return EXIT_FAILED;
	}
	snprintf(line, sizeof line,
		 "{\"v\":1,\"type\":\"imported\",\"start_us\":%llu,\"import_us\":%llu}\n",
		 (unsigned long long)start_us, (unsigned long long)import_us);
	send_bytes(line, strlen(line));
	if (take_event(&r))
		return 0;
	if (run_program(&r, &f)) {
		send_failure(&f, r.run_us, import_us);
		return EXIT_FAILED;
	}
	send_answer(&r);
	return 0;
}

static int
serve_build(const char *directory)
{
	static const char accepted[] = "{\"v\":1,\"type\":\"result\",\"ok\":true}\n";
	struct failure f;
	char kind[128];

	if (!read_line())
		return 0;
	if (program_check(directory, kind, &f)) {
		printf("pratai: %s\n", f.message);
		fflush(stdout);
		send_failure(&f, 0, 0);
		return EXIT_FAILED;
	}
	printf("pratai: the function is main, %s\n", kind);
	fflush(stdout);
	send_bytes(accepted, strlen(accepted));
	return 0;
}

int
main(int argc, char **argv)
{
	const char *root = argc > 2 ? argv[2] : "";
	char directory[PATH_MAX], path[PATH_MAX + 8];

	if (argc < 2 || (strcmp(argv[1], "event") != 0 && strcmp(argv[1], "build") != 0) ||
	    strlen(root) > PATH_MAX / 2) {
		fputs("serve: usage: serve event|build [ROOT]\n", stderr);
		return EXIT_USE;
	}
	snprintf(directory, sizeof directory, "%s/function", root);
	snprintf(path, sizeof path, "%s/main", directory);
	signal(SIGPIPE, SIG_IGN);
	fcntl(CHANNEL_FD, F_SETFD, FD_CLOEXEC);
	return strcmp(argv[1], "build") == 0 ? serve_build(directory)
					      : serve_event(directory, path);
}
