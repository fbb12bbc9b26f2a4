/*
 * The control plane as a node sees it, for the node's tests: registration and blobs over
 * HTTP, a ROUTER for jobs, a PULL for results, all on a loop in the test's own process; and
 * the built pratai-node as a child.
 */
#ifndef PRATAI_TESTS_NODE_PEER_H
#define PRATAI_TESTS_NODE_PEER_H

#include <archive.h>
#include <archive_entry.h>
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/crypto.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/model/message.h"
#include "netio/http_server.h"
#include "netio/loop.h"
#include "netio/mq.h"

enum { BLOBS_MAX = 64, RESULTS_MAX = 512, PEER_SESSIONS = 16 };

#define JOIN_TOKEN "join-token-of-the-test"
#define BIG_WAIT (20 * NS_PER_S)

struct peer_blob {
	char digest[65];
	char *data;
	size_t len;
	int gets, puts;
	size_t from; /* of the last get: where a part began; 0: the whole */
};

struct peer_result {
	struct message m;
	char *response, *logs;
	size_t response_len, logs_len;
	struct id session;
};

/* Everything that the peer saw; tests read it. */
static struct peer {
	char dir[64];
	int run_fd, listen_fd, port;
	struct loop *loop;
	struct mq *mq;
	struct mq_socket *dispatch, *collect;
	struct http_server *http;
	struct loop_timer *deadline;
	struct loop_hook *hook;
	bool (*until)(void);
	bool met;

	int heartbeat_ms; /* of the sessions to come; three without an answer end one */
	bool mute;     /* answers no heartbeat */
	bool unsettled; /* acknowledges no result */
	int refuse_blobs; /* that many requests are answered 503 */
	struct id session, incarnation;
	int registrations, heartbeats, started;
	struct id incarnations[PEER_SESSIONS];
	uint64_t granted, received;
	size_t leases;
	char runtimes[512], name[64];
	int64_t slots, memory_mib;
	struct peer_blob blobs[BLOBS_MAX];
	int blob_count;
	struct peer_result results[RESULTS_MAX];
	int result_count;
	uint64_t seq;

	pid_t node;
	int ready_fd;
	bool ended;
	int status;
} peer;

/* ---- Waiting ---- */

static uint64_t
peer_hook(void *arg)
{
	(void)arg;
	if (peer.until && peer.until()) {
		peer.met = true;
		loop_stop(peer.loop);
		return 0;
	}
	return UINT64_MAX;
}

static void
peer_late(void *arg)
{
	(void)arg;
	loop_stop(peer.loop);
}

/* Runs the loop until the condition holds; false: it did not in time. */
static bool
peer_wait(bool (*until)(void), uint64_t ns)
{
	struct err e = { 0 };

	peer.until = until;
	peer.met = false;
	loop_timer_after(peer.deadline, ns);
	loop_run(peer.loop, &e);
	loop_timer_clear(peer.deadline);
	peer.until = NULL;
	return peer.met;
}

/* ---- Blobs ---- */

static struct peer_blob *
peer_blob_find(const char *digest)
{
	for (int i = 0; i < peer.blob_count; i++)
		if (!strcmp(peer.blobs[i].digest, digest))
			return &peer.blobs[i];
	return NULL;
}

/* Takes data over.  digest NULL: its own. */
static struct peer_blob *
peer_blob_add(const char *digest, char *data, size_t len)
{
	struct peer_blob *b = digest ? peer_blob_find(digest) : NULL;
	char own[65];

	if (!digest) {
		sha256_hex(data, len, own);
		b = peer_blob_find(own);
	}
	if (b) {
		free(data);
		return b;
	}
	b = &peer.blobs[peer.blob_count++];
	snprintf(b->digest, sizeof b->digest, "%s", digest ? digest : own);
	b->data = data;
	b->len = len;
	return b;
}

struct peer_file {
	const char *path;
	const char *text;
};

/* An archive of files (ends with path NULL); format "zip" or "ustar". */
static char *
peer_archive(const char *format, const struct peer_file *files, size_t *len)
{
	enum { MAX = 1 << 20 };
	char *data = malloc(MAX);
	struct archive *a = archive_write_new();

	archive_write_set_format_by_name(a, format);
	archive_write_set_bytes_in_last_block(a, 1);
	if (!strcmp(format, "zip"))
		archive_write_zip_set_compression_store(a);
	archive_write_open_memory(a, data, MAX, len);
	for (; files->path; files++) {
		struct archive_entry *entry = archive_entry_new();

		archive_entry_set_pathname(entry, files->path);
		archive_entry_set_size(entry, (la_int64_t)strlen(files->text));
		archive_entry_set_filetype(entry, AE_IFREG);
		archive_entry_set_perm(entry, 0444);
		archive_write_header(a, entry);
		archive_write_data(a, files->text, strlen(files->text));
		archive_entry_free(entry);
	}
	archive_write_close(a);
	archive_write_free(a);
	return data;
}

/* ---- HTTP ---- */

static void
peer_reply(struct http_request *r, int status, const char *type, const void *body, size_t len)
{
	struct http_reply reply = { .status = status, .content_type = type, .body = body, .len = len };

	http_reply(r, &reply);
}

static int64_t
peer_begin(void *arg, struct http_request *r)
{
	const char *token = http_header(r, "X-Pratai-Join");

	(void)arg;
	if (!token || strcmp(token, JOIN_TOKEN))
		peer_reply(r, 401, NULL, NULL, 0);
	return 1 << 30;
}

static void
peer_register(struct http_request *r)
{
	char text[ID_TEXT_MAX], answer[512];
	size_t len;
	const void *body = http_body(r, &len);
	struct json *j = json_parse(body, len, NULL);
	char *runtimes = json_print(json_get(j, "runtimes"));

	snprintf(peer.runtimes, sizeof peer.runtimes, "%s", runtimes);
	snprintf(peer.name, sizeof peer.name, "%s", json_str(j, "name"));
	peer.slots = json_int(j, "slots", 0);
	peer.memory_mib = json_int(j, "memory_mib", 0);
	id_parse(json_str(j, "incarnation"), &peer.incarnation);
	peer.incarnations[peer.registrations++ % PEER_SESSIONS] = peer.incarnation;
	free(runtimes);
	json_free(j);
	peer.session = id_new();
	peer.granted = peer.received = 0;
	id_format(&peer.session, text);
	snprintf(answer, sizeof answer,
		 "{\"v\":1,\"node_id\":\"node-1\",\"session\":\"%s\",\"dispatch\":\"ipc:dispatch\","
		 "\"collect\":\"ipc:collect\",\"heartbeat_ms\":%d,\"lease_ms\":15000}", text,
		 peer.heartbeat_ms);
	peer_reply(r, 200, "application/json", answer, strlen(answer));
}

static void
peer_blob_request(struct http_request *r, const char *digest)
{
	struct peer_blob *b = peer_blob_find(digest);
	char hex[65], *copy;
	const void *body;
	size_t len;

	if (peer.refuse_blobs > 0) {
		peer.refuse_blobs--;
		peer_reply(r, 503, NULL, NULL, 0);
	} else if (!strcmp(http_method(r), "PUT")) {
		body = http_body(r, &len);
		sha256_hex(body, len, hex);
		copy = malloc(len);
		memcpy(copy, body, len);
		b = peer_blob_add(digest, copy, len);
		b->puts++;
		peer_reply(r, strcmp(hex, digest) ? 400 : 201, NULL, NULL, 0);
	} else if (b) {
		const char *range = http_header(r, "Range");

		b->gets++;
		b->from = range && !strncmp(range, "bytes=", 6) ? strtoul(range + 6, NULL, 10) : 0;
		if (b->from >= b->len && b->from)
			peer_reply(r, 416, NULL, NULL, 0);
		else
			peer_reply(r, b->from ? 206 : 200, "application/octet-stream", b->data + b->from,
				   b->len - b->from);
	} else {
		peer_reply(r, 404, NULL, NULL, 0);
	}
}

static void
peer_handle(void *arg, struct http_request *r)
{
	const char *path = http_path(r), blobs[] = "/v1/node/blobs/";

	(void)arg;
	if (!strcmp(path, "/v1/node/register"))
		peer_register(r);
	else if (!strncmp(path, blobs, sizeof blobs - 1))
		peer_blob_request(r, path + sizeof blobs - 1);
	else
		peer_reply(r, 404, NULL, NULL, 0);
}

static void
peer_too_large(void *arg, struct http_request *r, int64_t limit)
{
	(void)arg;
	(void)limit;
	peer_reply(r, 413, NULL, NULL, 0);
}

static void
peer_gone(void *arg, struct http_request *r)
{
	(void)arg;
	(void)r;
}

/* ---- Queues ---- */

static int
peer_send(struct message *m, const void *payload, size_t len)
{
	char *text;
	struct mq_frame frames[3] = { { peer.session.b, sizeof peer.session.b }, { NULL, 0 },
				      { payload, len } };
	struct err e = { 0 };
	int rc;

	text = message_encode(m);
	frames[1].data = text;
	frames[1].len = strlen(text);
	rc = mq_send(peer.dispatch, frames, 3, &e);
	free(text);
	return rc;
}

static void
peer_settle(const struct lease *lease)
{
	struct message m = { .type = MSG_SETTLED, .lease = *lease, .session = peer.session };

	peer_send(&m, NULL, 0);
}

static void
peer_on_dispatch(void *arg, const struct mq_frame *frames, size_t n)
{
	static const struct lease none;
	struct message m;
	struct err e = { 0 };

	(void)arg;
	if (n < 2 || message_decode(frames[1].data, frames[1].len, &m, &e))
		return;
	if (m.type == MSG_STARTED)
		peer.started++;
	if (m.type == MSG_HEARTBEAT && id_equal(&m.session, &peer.session)) {
		peer.heartbeats++;
		peer.granted = m.granted;
		peer.received = m.received;
		peer.leases = m.lease_count;
		if (!peer.mute)
			peer_settle(&none);
	}
	message_clear(&m);
}

static char *
peer_copy(const struct mq_frame *f)
{
	char *copy = malloc(f->len + 1);

	memcpy(copy, f->len ? f->data : "", f->len);
	copy[f->len] = '\0';
	return copy;
}

/*
 * A result comes again when its settling takes its time, as it may on a busy machine.  A lease
 * that ran twice has two results: they do not begin and end at the same microseconds.
 */
static bool
peer_knows(const struct message *m)
{
	for (int i = 0; i < peer.result_count; i++) {
		const struct message *r = &peer.results[i].m;

		if (r->lease.seq == m->lease.seq && r->kind == m->kind &&
		    r->event.started_us == m->event.started_us &&
		    r->event.finished_us == m->event.finished_us)
			return true;
	}
	return false;
}

static void
peer_on_collect(void *arg, const struct mq_frame *frames, size_t n)
{
	struct peer_result *r = &peer.results[peer.result_count];
	struct err e = { 0 };

	(void)arg;
	if (n != 3 || peer.result_count == RESULTS_MAX ||
	    message_decode(frames[0].data, frames[0].len, &r->m, &e))
		return;
	if (!peer.unsettled && peer_knows(&r->m)) {
		peer_settle(&r->m.lease);
		message_clear(&r->m);
		return;
	}
	r->response = peer_copy(&frames[1]);
	r->response_len = frames[1].len;
	r->logs = peer_copy(&frames[2]);
	r->logs_len = frames[2].len;
	peer.result_count++;
	if (!peer.unsettled)
		peer_settle(&r->m.lease);
}

/* ---- Life ---- */

static void
peer_listen(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof at;

	peer.listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (bind(peer.listen_fd, (struct sockaddr *)&at, len) || listen(peer.listen_fd, 64) ||
	    getsockname(peer.listen_fd, (struct sockaddr *)&at, &len))
		abort();
	peer.port = ntohs(at.sin_port);
}

static int
peer_start(void)
{
	static const struct http_handler handler = { peer_begin, peer_handle, peer_too_large,
						     peer_gone };
	struct http_server_config http = { .body_memory_bytes = 256 << 10, .connections_max = 64,
					   .idle_seconds = 30 };
	struct mq_options dispatch = { .bind = "ipc:dispatch", .socket_mode = 0666 };
	struct mq_options collect = { .bind = "ipc:collect", .socket_mode = 0666 };
	struct err e = { 0 };

	memset(&peer, 0, sizeof peer);
	peer.heartbeat_ms = 1500; /* a busy machine is not a silent one */
	strcpy(peer.dir, "/tmp/pratai-node-test.XXXXXX");
	if (!mkdtemp(peer.dir) || chmod(peer.dir, 0755))
		return -1;
	peer.run_fd = open(peer.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	peer_listen();
	http.listen_fd = peer.listen_fd;
	http.spool_fd = peer.run_fd;
	peer.loop = loop_new(&e);
	peer.mq = mq_new(peer.loop, peer.run_fd, &e);
	peer.http = http_server_new(peer.loop, &http, &handler, NULL, &e);
	peer.dispatch = mq_open(peer.mq, MQ_ROUTER, &dispatch, peer_on_dispatch, NULL, &e);
	peer.collect = mq_open(peer.mq, MQ_PULL, &collect, peer_on_collect, NULL, &e);
	peer.deadline = loop_timer_add(peer.loop, peer_late, NULL, &e);
	peer.hook = loop_hook_add(peer.loop, peer_hook, NULL, &e);
	if (!peer.http || !peer.dispatch || !peer.collect || !peer.deadline || !peer.hook) {
		fprintf(stderr, "peer: %s\n", e.text);
		return -1;
	}
	return 0;
}

static void
peer_stop(void)
{
	struct err e = { 0 };

	mq_close(peer.dispatch);
	mq_close(peer.collect);
	http_server_free(peer.http);
	mq_free(peer.mq);
	loop_hook_remove(peer.hook);
	loop_timer_remove(peer.deadline);
	loop_free(peer.loop);
	close(peer.listen_fd);
	close(peer.run_fd);
	for (int i = 0; i < peer.blob_count; i++)
		free(peer.blobs[i].data);
	for (int i = 0; i < peer.result_count; i++) {
		message_clear(&peer.results[i].m);
		free(peer.results[i].response);
		free(peer.results[i].logs);
	}
	if (dir_remove(AT_FDCWD, peer.dir, &e))
		fprintf(stderr, "peer: %s\n", e.text);
}

/* ---- The node ---- */

static void
peer_node_end(void *arg, pid_t pid, int code, int status)
{
	(void)arg;
	(void)pid;
	peer.ended = true;
	peer.status = code == CLD_EXITED ? status : 256 + status;
}

/* $B, from $B/tests/unit/test_x. */
static void
peer_build_dir(char out[4096])
{
	ssize_t n = readlink("/proc/self/exe", out, 4095);

	out[n > 0 ? n : 0] = '\0';
	for (int i = 0; i < 3; i++)
		*strrchr(out, '/') = '\0';
}

/* Runtimes of the tests' own: the function itself speaks on the channel; plain has no build. */
static void
peer_own_runtimes(const char *runtimes, const char *build)
{
	static const char raw[] = "{\"name\":\"raw\",\"command\":[\"/usr/bin/python3\",\"-I\",\"-S\","
				  "\"/function/main.py\"],\"build\":[\"/usr/bin/python3\",\"-I\","
				  "\"/function/build.py\"]}";
	static const char plain[] = "{\"command\":[\"/usr/bin/python3\",\"-I\",\"-S\",\"/function/main.py\"],"
				    "\"build\":[]}";
	static const char shell[] = "{\"command\":[\"/bin/sh\",\"/function/main.sh\"]}";
	char command[9000];
	FILE *f;

	snprintf(command, sizeof command, "mkdir -p %s/raw/layer %s/plain/layer %s/shell/layer && "
		 "cp -r %s/runtimes/python3 %s/", runtimes, runtimes, runtimes, build, runtimes);
	if (system(command))
		abort();
	snprintf(command, sizeof command, "%s/raw/runtime.json", runtimes);
	f = fopen(command, "w");
	fputs(raw, f);
	fclose(f);
	snprintf(command, sizeof command, "%s/plain/runtime.json", runtimes);
	f = fopen(command, "w");
	fputs(plain, f);
	fclose(f);
	snprintf(command, sizeof command, "%s/shell/runtime.json", runtimes);
	f = fopen(command, "w");
	fputs(shell, f);
	fclose(f);
}

static int
peer_node_start(const char *const *more)
{
	char build[4096], program[4200], state[128], runtimes[128], join[64], run[16], ready[16];
	const char *argv[40] = { program, "--state", state, "--join", join, "--run-fd", run,
				 "--ready-fd", ready, "--runtimes", runtimes, "--name", "tester",
				 "--with-parent", "--log-level", getenv("NODE_LOG") ? "debug" : "warning" };
	int n = 0, pipe_fds[2];
	struct err e = { 0 };

	while (argv[n])
		n++;
	while (more && *more)
		argv[n++] = *more++;
	peer_build_dir(build);
	snprintf(program, sizeof program, "%s/pratai-node", build);
	snprintf(state, sizeof state, "%s/state", peer.dir);
	snprintf(runtimes, sizeof runtimes, "%s/runtimes", peer.dir);
	peer_own_runtimes(runtimes, build);
	snprintf(join, sizeof join, "http://127.0.0.1:%d", peer.port);
	if (pipe2(pipe_fds, O_CLOEXEC))
		return -1;
	snprintf(run, sizeof run, "%d", peer.run_fd);
	snprintf(ready, sizeof ready, "%d", pipe_fds[1]);
	setenv("PRATAI_JOIN_TOKEN", JOIN_TOKEN, 1);
	peer.ended = false;
	peer.node = fork();
	if (peer.node == 0) {
		sigset_t none;

		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		fd_set_inheritable(peer.run_fd);
		fd_set_inheritable(pipe_fds[1]);
		execv(program, (char *const *)argv);
		_exit(127);
	}
	close(pipe_fds[1]);
	peer.ready_fd = pipe_fds[0];
	return loop_child(peer.loop, peer.node, peer_node_end, NULL, &e);
}

static bool
peer_has_ended(void)
{
	return peer.ended;
}

/* SIGTERM; its exit status, or -1. */
static int
peer_node_stop(void)
{
	if (!peer.ended)
		kill(peer.node, SIGTERM);
	if (!peer_wait(peer_has_ended, 10 * NS_PER_S)) {
		kill(peer.node, SIGKILL);
		peer_wait(peer_has_ended, 10 * NS_PER_S);
		peer.status = -1;
	}
	close(peer.ready_fd);
	return peer.status;
}

/* The cgroups of the node's instance that are there. */
static int
peer_cgroups(void)
{
	char state[PATH_MAX], hex[SHA256_HEX_MAX], pattern[128];
	glob_t found;
	int n;

	snprintf(state, sizeof state, "%s/state", peer.dir);
	sha256_hex(state, strlen(state), hex);
	snprintf(pattern, sizeof pattern, "/sys/fs/cgroup/*/pratai-%.12s", hex);
	n = glob(pattern, 0, NULL, &found) ? 0 : (int)found.gl_pathc;
	if (n)
		fprintf(stderr, "left: %s\n", found.gl_pathv[0]);
	globfree(&found);
	snprintf(pattern, sizeof pattern, "/sys/fs/cgroup/pratai-%.12s", hex);
	return n + (access(pattern, F_OK) == 0);
}

/* Nothing unfinished below the layers. */
static bool
peer_swept(const char *part)
{
	char path[128];
	DIR *dir;
	struct dirent *d;
	int n = 0;

	snprintf(path, sizeof path, "%s/state/layers%s", peer.dir, part);
	dir = opendir(path);
	while (dir && (d = readdir(dir)))
		n += !strncmp(d->d_name, "tmp.", 4) ||
		     !strncmp(d->d_name, "0000000000000000000000", 22);
	if (dir)
		closedir(dir);
	return n == 0;
}

static bool
peer_is_swept(void)
{
	return peer_swept("") && peer_swept("/sha256");
}

#endif
