/*
 * Builds by the built pratai-node, against a control plane in this process (node_peer.h):
 * package in, layer out, and everything that a package or a build can do wrong.  Needs root;
 * skipped, and said so, without.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/node_peer.h"

#define ECHO "def main(payload=None):\n    return payload\n"

static int wanted;

static bool
has_results(void)
{
	return peer.result_count >= wanted || peer.ended;
}

static bool
has_credit(void)
{
	return peer.granted > 0 || peer.ended;
}

static int
setup(void **state)
{
	static const char *const more[] = { "--build-memory", "96", "--build-timeout", "20s", NULL };

	*state = NULL;
	if (geteuid() != 0) {
		*state = (void *)1;
		return 0;
	}
	if (peer_start() || peer_node_start(more))
		fail_msg("cannot start");
	if (!peer_wait(has_credit, BIG_WAIT) || peer.ended) {
		peer_node_stop();
		peer_stop();
		fail_msg("the node does not register (status %d)", peer.status);
	}
	return 0;
}

static int
teardown(void **state)
{
	int status;

	if (*state)
		return 0;
	status = peer_wait(peer_is_swept, BIG_WAIT) ? 0 : 1;
	if (status)
		fprintf(stderr, "unfinished layers are left\n");
	status |= peer_node_stop();
	status |= peer_cgroups();
	peer_stop();
	return status;
}

#define NEEDS_ROOT()                                                                               \
	do {                                                                                       \
		if (*state) {                                                                      \
			print_message("needs root\n");                                             \
			skip();                                                                    \
		}                                                                                  \
	} while (0)

static void
fill_version(struct function_version *v, const char *runtime)
{
	v->function_id = id_new();
	v->version = 3;
	v->state = VERSION_BUILDING;
	v->memory_mib = 128;
	v->tmp_size_mib = 16;
	v->cpu_millis = 1000;
	v->pids = 64;
	v->timeout_s = 10;
	v->output_bytes = FUNCTION_OUTPUT_BYTES;
	snprintf(v->project_id, sizeof v->project_id, "project");
	snprintf(v->name, sizeof v->name, "built");
	snprintf(v->runtime, sizeof v->runtime, "%s", runtime);
	snprintf(v->image, sizeof v->image, "host");
	snprintf(v->network, sizeof v->network, "none");
}

static struct peer_result *
next_result(void)
{
	wanted = peer.result_count + 1;
	if (!peer_wait(has_results, 60 * NS_PER_S) || peer.ended)
		fail_msg("no result came (node ended: %d)", peer.ended);
	return &peer.results[wanted - 1];
}

static struct peer_result *
build_digest(const char *runtime, const char *digest)
{
	struct message m = { .type = MSG_JOB, .kind = JOB_BUILD, .session = peer.session,
			     .lease = { 1, ++peer.seq }, .accept_by_ms = 2000 };
	struct peer_result *r;

	fill_version(&m.version, runtime);
	snprintf(m.version.package_digest, sizeof m.version.package_digest, "%s", digest);
	assert_int_equal(peer_send(&m, NULL, 0), 0);
	r = next_result();
	assert_int_equal(r->m.kind, JOB_BUILD);
	assert_int_equal(r->m.version.version, 3);
	assert_true(id_equal(&r->m.version.function_id, &m.version.function_id));
	message_clear(&m);
	return r;
}

static struct peer_result *
build(const char *runtime, const struct peer_file *files)
{
	size_t len;
	char *data = peer_archive("zip", files, &len);

	return build_digest(runtime, peer_blob_add(NULL, data, len)->digest);
}

static void
assert_state(const struct peer_result *r, enum version_state state, const char *reason)
{
	const char *why = r->m.version.reason ? r->m.version.reason : "";

	if (r->m.version.state != state || !strstr(why, reason))
		fail_msg("state %s: %s\n%s", version_state_name(r->m.version.state), why,
			 r->m.build_log ? r->m.build_log : "");
}

static void
package_becomes_layer_and_runs(void **state)
{
	static const struct peer_file files[] = {
		{ "main.py", "import helper.part\n" ECHO },
		{ "helper/__init__.py", "" },
		{ "helper/part.py", "X = 1\n" },
		{ NULL, NULL },
	};
	struct message m = { .type = MSG_JOB, .kind = JOB_EVENT };
	struct peer_blob *layer;
	struct peer_result *r;
	char digest[65];

	NEEDS_ROOT();
	r = build("python3", files);
	assert_state(r, VERSION_READY, "");
	memcpy(digest, r->m.version.layer_digest, sizeof digest);
	assert_int_equal(strlen(digest), 64);
	layer = peer_blob_find(digest);
	assert_non_null(layer);
	assert_int_equal(layer->puts, 1);
	assert_int_equal(layer->len, r->m.build_layer_bytes);

	fill_version(&m.version, "python3");
	m.version.state = VERSION_READY;
	memcpy(m.version.layer_digest, digest, sizeof digest);
	memcpy(m.version.package_digest, digest, sizeof digest);
	m.session = peer.session;
	m.lease = (struct lease){ 1, ++peer.seq };
	m.event.id = id_new();
	m.event.function_id = m.version.function_id;
	m.event.payload_kind = PAYLOAD_JSON;
	m.event.payload_bytes = 4;
	assert_int_equal(peer_send(&m, "[41]", 4), 0);
	message_clear(&m);
	r = next_result();
	assert_int_equal(r->m.event.reason, REASON_NONE);
	assert_string_equal(r->response, "[41]");
	assert_int_equal(layer->gets, 0); /* the builder had it */

	/* the same package again gives the same layer */
	r = build("python3", files);
	assert_state(r, VERSION_READY, "");
	assert_string_equal(r->m.version.layer_digest, digest);
}

static void
two_builds_of_one_package_at_once(void **state)
{
	static const struct peer_file files[] = { { "main.py", ECHO }, { NULL, NULL } };
	struct message m = { .type = MSG_JOB, .kind = JOB_BUILD, .accept_by_ms = 2000 };
	const char *digest;
	char *data;
	size_t len;

	NEEDS_ROOT();
	data = peer_archive("zip", files, &len);
	digest = peer_blob_add(NULL, data, len)->digest;
	for (int i = 0; i < 2; i++) {
		fill_version(&m.version, "python3");
		m.session = peer.session;
		m.lease = (struct lease){ 1, ++peer.seq };
		memcpy(m.version.package_digest, digest, 65);
		assert_int_equal(peer_send(&m, NULL, 0), 0);
		message_clear(&m);
		m = (struct message){ .type = MSG_JOB, .kind = JOB_BUILD, .accept_by_ms = 2000 };
	}
	wanted = 2;
	assert_true(peer_wait(has_results, 60 * NS_PER_S));
	assert_state(&peer.results[0], VERSION_READY, "");
	assert_state(&peer.results[1], VERSION_READY, "");
}

static void
bad_packages(void **state)
{
	static const struct peer_file syntax[] = { { "main.py", "def main(:\n" }, { NULL, NULL } };
	static const struct peer_file no_main[] = { { "other.py", ECHO }, { NULL, NULL } };
	static const struct peer_file pip[] = {
		{ "main.py", ECHO },
		{ "requirements.txt", "nothing @ file:///no/such/file.whl\n" },
		{ NULL, NULL },
	};
	static const struct peer_file escape[] = { { "../main.py", ECHO }, { NULL, NULL } };
	struct peer_result *r;
	char digest[65], *data;
	size_t len;

	NEEDS_ROOT();
	r = build("python3", syntax);
	assert_state(r, VERSION_FAILED, "main.py");
	assert_state(build("python3", no_main), VERSION_FAILED, "main");
	r = build("python3", pip);
	assert_state(r, VERSION_FAILED, "requirements");
	if (!strstr(r->m.build_log, "ERROR: file.whl"))
		fail_msg("pip's output is not there: %s", r->m.build_log);
	assert_state(build("python3", escape), VERSION_FAILED, "..");
	assert_state(build_digest("python3", peer_blob_add(NULL, strdup("no zip at all"), 13)->digest),
		     VERSION_FAILED, "");
	memset(digest, 'c', 64);
	digest[64] = '\0';
	assert_state(build_digest("python3", digest), VERSION_FAILED, "not in the control plane's");
	assert_state(build("no-such", syntax), VERSION_FAILED, "no runtime 'no-such'");
	/* content that is not what its name says: this node's trouble, not the package's */
	data = peer_archive("zip", no_main, &len);
	peer_blob_add(digest, data, len);
	r = build_digest("python3", digest);
	assert_int_equal(r->m.version.state, VERSION_BUILDING);
}

static void
hostile_builds(void **state)
{
	static const struct {
		const char *code, *reason;
	} cases[] = {
		{ "sys.exit(3)", "exit status 3" },
		{ "sys.exit(0)", "exit status 0" },
		{ "os.kill(os.getpid(), 11)", "SIGSEGV" },
		{ "x = b'x' * (1 << 30)", "96 MiB of memory" },
		{ "time.sleep(99)", "within 20 s" },
		{ "c.sendall(b'rubbish\\n'); time.sleep(60)", "malformed" },
		{ "c.sendall(b'{\"v\":1,\"type\":\"result\",\"ok\":true}\\n'); sys.exit(4)", "exit status 4" },
		{ "c.sendall(b'{\"v\":1,\"type\":\"network\"}\\n'); time.sleep(60)",
		  "asks for the network that it has" },
		{ "c.sendall(b'{\"v\":1,\"type\":\"result\",\"ok\":false,\"error\":{\"type\":\"E\","
		  "\"message\":\"said so\"}}\\n'); sys.exit(1)", "said so" },
		{ "c.sendall(b'{\"v\":1,\"type\":\"layer\",\"ok\":true}\\n')", "without a layer" },
		{ "c.sendall(b'{\"v\":1,\"type\":\"layer\",\"ok\":true}\\n' + b'no tar' * 1000)", "" },
		{ "while True: os.write(1, b'y' * 65536)", "printed more than" },
	};
	char code[1024];
	struct peer_file files[] = { { "build.py", code }, { NULL, NULL } };

	NEEDS_ROOT();
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct peer_result *r;

		print_message("  %s\n", cases[i].code);
		snprintf(code, sizeof code, "import os, socket, sys, time\n"
			 "c = socket.socket(fileno=3)\nprint('begun', flush=True)\n%s\n", cases[i].code);
		r = build("raw", files);
		assert_state(r, VERSION_FAILED, cases[i].reason);
		assert_non_null(r->m.build_log);
		assert_true(strlen(r->m.build_log) < 300 << 10);
	}
}

/* Of an event without a payload. */
static const char *
answer_of(const char *runtime, const char *layer)
{
	struct message m = { .type = MSG_JOB, .kind = JOB_EVENT, .session = peer.session,
			     .lease = { 1, ++peer.seq } };
	struct peer_result *r;

	fill_version(&m.version, runtime);
	m.version.state = VERSION_READY;
	memcpy(m.version.package_digest, layer, 65);
	memcpy(m.version.layer_digest, layer, 65);
	m.event.id = id_new();
	m.event.function_id = m.version.function_id;
	assert_int_equal(peer_send(&m, NULL, 0), 0);
	message_clear(&m);
	r = next_result();
	assert_int_equal(r->m.event.reason, REASON_NONE);
	return r->response;
}

static void
package_that_needs_no_build(void **state)
{
	static const struct peer_file files[] = {
		{ "main.py", "import socket\nc = socket.socket(fileno=3)\n"
			     "c.sendall(b'{\"v\":1,\"type\":\"result\",\"ok\":true,\"bytes\":4}\\nmine')\n" },
		{ "build.py", "import socket\nc = socket.socket(fileno=3)\n"
			      "c.sendall(b'{\"v\":1,\"type\":\"result\",\"ok\":true}\\n')\n" },
		{ NULL, NULL },
	};
	static const struct peer_file other[] = {
		{ "main.py", "import socket\nc = socket.socket(fileno=3)\n"
			     "c.sendall(b'{\"v\":1,\"type\":\"result\",\"ok\":true,\"bytes\":5}\\nother')\n" },
		{ NULL, NULL },
	};
	struct peer_blob *package;
	struct peer_result *r;
	size_t len;
	char *data;

	NEEDS_ROOT();
	/* accepted by the build, then without one */
	for (int i = 0; i < 2; i++) {
		r = build(i ? "plain" : "raw", files);
		assert_state(r, VERSION_READY, "");
		package = peer_blob_find(r->m.version.layer_digest);
		assert_non_null(package);
		assert_int_equal(package->puts, 0);
		assert_int_equal(r->m.build_layer_bytes, package->len);
	}
	package->gets = 0;
	assert_string_equal(answer_of("plain", package->digest), "mine");
	assert_int_equal(package->gets, 0);
	/* on a node that did not build it */
	data = peer_archive("zip", other, &len);
	package = peer_blob_add(NULL, data, len);
	assert_string_equal(answer_of("plain", package->digest), "other");
	assert_int_equal(package->gets, 1);
}

static void
network_is_given_when_it_is_asked_for(void **state)
{
	static const struct peer_file files[] = {
		{ "build.py", "import socket, sys\nc = socket.socket(fileno=3)\n"
			      "asked = c.recv(4096)\n"
			      "links = len(open('/proc/net/dev').readlines()) - 2\nprint('links', links, asked)\n"
			      "if b'\"network\":false' in asked and links == 1:\n"
			      "    c.sendall(b'{\"v\":1,\"type\":\"network\"}\\n')\n"
			      "elif b'\"network\":true' in asked and links == 2:\n"
			      "    c.sendall(b'{\"v\":1,\"type\":\"result\",\"ok\":true}\\n')\n" },
		{ NULL, NULL },
	};

	NEEDS_ROOT();
	assert_state(build("raw", files), VERSION_READY, "");
}

static void
upload_that_is_refused_at_first(void **state)
{
	static const struct peer_file files[] = {
		{ "build.py", "import socket, tarfile, io\nc = socket.socket(fileno=3)\n"
			      "c.sendall(b'{\"v\":1,\"type\":\"layer\",\"ok\":true}\\n')\n"
			      "t = tarfile.open(fileobj=c.makefile('wb'), mode='w|')\n"
			      "i = tarfile.TarInfo('function/x'); i.size = 3\n"
			      "t.addfile(i, io.BytesIO(b'abc')); t.close()\n" },
		{ NULL, NULL },
	};
	struct peer_result *r;

	NEEDS_ROOT();
	r = build("raw", files);
	assert_state(r, VERSION_READY, "");
	peer.refuse_blobs = 1;
	r = build("raw", files);
	assert_state(r, VERSION_READY, "");
	assert_int_equal(peer_blob_find(r->m.version.layer_digest)->puts, 2);
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		EACH(package_becomes_layer_and_runs), EACH(two_builds_of_one_package_at_once),
		EACH(bad_packages),                   EACH(hostile_builds),
		EACH(upload_that_is_refused_at_first), EACH(package_that_needs_no_build),
		EACH(network_is_given_when_it_is_asked_for),
	};

	signal(SIGPIPE, SIG_IGN);
	log_open("test", LOG_ERROR);
	if (crypto_init(NULL))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
