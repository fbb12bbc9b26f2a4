/*
 * pratai-node as built, root spawner and sandboxes included, against a control plane in
 * this process (node_peer.h).  Needs root; skipped, and said so, without.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/node_peer.h"

/* Speaks the protocol itself: FUNCTION is what it does with its channel c. */
#define RAW(body)                                                                                  \
	"import socket, sys, os, time\n"                                                           \
	"c = socket.socket(fileno=3)\n"                                                            \
	"def send(x): c.sendall(x if isinstance(x, bytes) else x.encode())\n"                      \
	"def answer(data, more=''):\n"                                                             \
	"    send('{\"v\":1,\"type\":\"result\",\"ok\":true,\"run_us\":5%s,\"bytes\":%d}\\n'"      \
	"         % (more, len(data)))\n"                                                          \
	"    send(data)\n" body

/* The layer of a function with this main.py: its digest. */
static const char *
peer_layer(const char *main_py)
{
	struct peer_file files[] = { { "function/main.py", main_py }, { NULL, NULL } };
	size_t len;
	char *data = peer_archive("ustar", files, &len);

	return peer_blob_add(NULL, data, len)->digest;
}

static void
fill_version(struct function_version *v, const char *runtime, const char *layer)
{
	v->function_id = id_new();
	v->version = 1;
	v->state = VERSION_READY;
	v->memory_mib = 128;
	v->tmp_size_mib = 16;
	v->cpu_millis = 1000;
	v->pids = 64;
	v->timeout_s = 10;
	v->output_bytes = FUNCTION_OUTPUT_BYTES;
	snprintf(v->project_id, sizeof v->project_id, "project");
	snprintf(v->name, sizeof v->name, "tested");
	snprintf(v->runtime, sizeof v->runtime, "%s", runtime);
	snprintf(v->image, sizeof v->image, "host");
	snprintf(v->network, sizeof v->network, "none");
	snprintf(v->layer_digest, sizeof v->layer_digest, "%s", layer);
	snprintf(v->package_digest, sizeof v->package_digest, "%064d", 0);
}

static void
fill_event(struct message *m, const char *runtime, const char *layer)
{
	memset(m, 0, sizeof *m);
	m->type = MSG_JOB;
	m->kind = JOB_EVENT;
	m->session = peer.session;
	m->lease = (struct lease){ 1, ++peer.seq };
	m->accept_by_ms = 2000;
	fill_version(&m->version, runtime, layer);
	m->event.id = id_new();
	m->event.function_id = m->version.function_id;
	m->event.function_version = 1;
	m->event.state = EVENT_RUNNING;
	m->event.attempts = 1;
	snprintf(m->event.project_id, sizeof m->event.project_id, "project");
	snprintf(m->event.function_name, sizeof m->event.function_name, "tested");
}

static void
send_event(struct message *m, const void *payload, size_t len)
{
	m->event.payload_bytes = len;
	m->event.payload_kind = len ? PAYLOAD_BYTES : PAYLOAD_NONE;
	assert_int_equal(peer_send(m, payload, len), 0);
}

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

static bool
has_nothing_left(void)
{
	return (peer.leases == 0 && peer.received > 0) || peer.ended;
}

/* The n-th result from now. */
static struct peer_result *
next_result(void)
{
	wanted = peer.result_count + 1;
	if (!peer_wait(has_results, BIG_WAIT) || peer.ended)
		fail_msg("no result came (node ended: %d)", peer.ended);
	return &peer.results[wanted - 1];
}

static struct peer_result *
run_raw(const char *main_py)
{
	struct message m;
	struct peer_result *r;

	fill_event(&m, "raw", peer_layer(main_py));
	send_event(&m, "hello", 5);
	message_clear(&m);
	r = next_result();
	assert_int_equal(r->m.kind, JOB_EVENT);
	assert_true(r->m.lease.seq == peer.seq);
	return r;
}

static void
assert_reason(const struct peer_result *r, enum event_reason reason, const char *text)
{
	const char *message = r->m.event.error_message ? r->m.event.error_message : "";
	const char *got = event_reason_name(r->m.event.reason);

	if (r->m.event.reason != reason || !strstr(message, text))
		fail_msg("reason %s: %s (%s)\n%s", got ? got : "none", message,
			 r->m.event.error_type, r->logs);
}

static int
up(int heartbeat_ms)
{
	if (geteuid() != 0)
		return 1;
	if (peer_start())
		fail_msg("cannot start");
	if (heartbeat_ms)
		peer.heartbeat_ms = heartbeat_ms;
	if (peer_node_start(NULL))
		fail_msg("cannot start");
	if (!peer_wait(has_credit, BIG_WAIT) || peer.ended) {
		peer_node_stop();
		peer_stop();
		fail_msg("the node does not register (status %d)", peer.status);
	}
	return 0;
}

static int
setup(void **state)
{
	*state = (void *)(intptr_t)up(0);
	return 0;
}

/* Of a node that is to hear silence soon. */
static int
setup_impatient(void **state)
{
	*state = (void *)(intptr_t)up(400);
	return 0;
}

static int
teardown(void **state)
{
	int status = 0;

	if (*state)
		return 0;
	if (!peer.ended) {
		status = peer_wait(peer_is_swept, BIG_WAIT) ? 0 : 1;
		status |= peer_node_stop();
		if (status)
			fprintf(stderr, "node ended with %d, or left something\n", status);
	}
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

/* ---- Registration ---- */

static void
registers_and_is_ready(void **state)
{
	char byte, path[128];
	struct stat st;

	NEEDS_ROOT();
	assert_int_equal(read(peer.ready_fd, &byte, 1), 1);
	assert_string_equal(peer.name, "tester");
	assert_true(peer.slots > 0 && peer.memory_mib > 0);
	assert_int_equal(peer.granted, peer.slots);
	assert_non_null(strstr(peer.runtimes, "\"python3\""));
	snprintf(path, sizeof path, "/proc/%d", peer.node);
	assert_int_equal(stat(path, &st), 0);
	snprintf(path, sizeof path, "%s/state", peer.dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
}

static void
driver_has_no_power(void **state)
{
	char path[64];
	struct buf text = { 0 };
	struct err e = { 0 };

	NEEDS_ROOT();
	snprintf(path, sizeof path, "/proc/%d/status", peer.node);
	assert_int_equal(file_slurp(AT_FDCWD, path, 1 << 16, &text, &e), 0);
	assert_non_null(strstr(text.data, "Uid:\t1878982658\t1878982658\t1878982658\t1878982658"));
	assert_non_null(strstr(text.data, "CapPrm:\t0000000000000000"));
	assert_non_null(strstr(text.data, "CapEff:\t0000000000000000"));
	assert_non_null(strstr(text.data, "CapBnd:\t0000000000000000"));
	assert_non_null(strstr(text.data, "NoNewPrivs:\t1"));
	assert_non_null(strstr(text.data, "Groups:\t \n"));
	buf_free(&text);
	snprintf(path, sizeof path, "/proc/%d/environ", peer.node);
	assert_int_equal(file_slurp(AT_FDCWD, path, 1 << 16, &text, &e), 0);
	buf_free(&text);
}

static bool
registered_again(void)
{
	return peer.registrations >= wanted && peer.granted > 0;
}

static void
registers_again_after_silence(void **state)
{
	struct id first = peer.session;
	struct message m;
	struct peer_result *r;

	NEEDS_ROOT();
	fill_event(&m, "raw", peer_layer(RAW("time.sleep(4); answer(b'slow')\n")));
	send_event(&m, NULL, 0);
	message_clear(&m);
	peer.mute = true;
	peer.heartbeat_ms = 1500; /* the next session lasts */
	wanted = 2;
	assert_true(peer_wait(registered_again, BIG_WAIT));
	peer.mute = false;
	assert_false(id_equal(&first, &peer.session));
	assert_true(id_equal(&peer.incarnations[0], &peer.incarnations[1]));
	r = next_result();
	assert_reason(r, REASON_NONE, "");
	assert_true(id_equal(&r->m.session, &peer.session));
	assert_string_equal(r->response, "slow");
}

static void
registers_again_when_not_known(void **state)
{
	struct message m = { .type = MSG_CANCEL, .session = peer.session };

	NEEDS_ROOT();
	assert_int_equal(peer_send(&m, NULL, 0), 0);
	wanted = 2;
	assert_true(peer_wait(registered_again, BIG_WAIT));
}

/* ---- Events ---- */

static void
runs_an_event(void **state)
{
	struct message m;
	struct peer_result *r;

	NEEDS_ROOT();
	fill_event(&m, "python3", peer_layer("def main(payload=None):\n"
					     "    print('seen', payload)\n    return payload\n"));
	m.event.payload_kind = PAYLOAD_JSON;
	m.event.payload_bytes = 9;
	assert_int_equal(peer_send(&m, "{\"n\": 17}", 9), 0);
	message_clear(&m);
	r = next_result();
	assert_reason(r, REASON_NONE, "");
	assert_true(peer.started > 0);
	assert_non_null(strstr(r->response, "17"));
	assert_string_equal(r->m.event.response_content_type, "application/json");
	assert_non_null(strstr(r->logs, "\"s\":\"stdout\",\"l\":\"seen {'n': 17}\"}"));
	assert_int_equal(r->m.event.start, START_COLD);
	assert_true(r->m.event.wall_us > 0 && r->m.event.cpu_us > 0);
	assert_true(r->m.event.memory_peak_bytes > 1 << 20);
	assert_true(r->m.event.timeline_us[PHASE_SANDBOX] > 0);
	assert_true(r->m.event.timeline_us[PHASE_IMPORT] > 0);
	assert_true(r->m.event.finished_us >= r->m.event.started_us);
	assert_true(peer_wait(has_nothing_left, BIG_WAIT));
}

static void
environment_is_only_what_it_should_be(void **state)
{
	struct message m;
	struct peer_result *r;
	char id[ID_TEXT_MAX];

	NEEDS_ROOT();
	fill_event(&m, "python3", peer_layer("import os\ndef main(payload=None):\n"
					     "    return dict(os.environ, cwd=os.getcwd())\n"));
	m.version.env = strdup("{\"MINE\":\"x y\",\"PRATAI_EVENT_ID\":\"forged\"}");
	id_format(&m.event.id, id);
	send_event(&m, NULL, 0);
	message_clear(&m);
	r = next_result();
	assert_reason(r, REASON_NONE, "");
	assert_non_null(strstr(r->response, id));
	assert_non_null(strstr(r->response, "x y"));
	assert_non_null(strstr(r->response, "\"/function\""));
	assert_non_null(strstr(r->response, "\"HOME\""));
	assert_null(strstr(r->response, "forged"));
	assert_null(strstr(r->response, JOIN_TOKEN));
}

static void
big_payload_and_answer(void **state)
{
	size_t len = EVENT_RESPONSE_MAX;
	char *payload = malloc(len);
	struct message m;
	struct peer_result *r;

	NEEDS_ROOT();
	for (size_t i = 0; i < len; i++)
		payload[i] = (char)(i * 7 >> 3);
	fill_event(&m, "python3", peer_layer("def main(payload=None):\n    return payload\n"));
	send_event(&m, payload, len);
	message_clear(&m);
	r = next_result();
	assert_reason(r, REASON_NONE, "");
	assert_int_equal(r->response_len, len);
	assert_memory_equal(r->response, payload, len);
	free(payload);
}

static void
one_fetch_for_many(void **state)
{
	const char *layer;
	struct message m;

	NEEDS_ROOT();
	layer = peer_layer(RAW("answer(b'one of many')\n"));
	for (int i = 0; i < 6; i++) {
		fill_event(&m, "raw", layer);
		send_event(&m, NULL, 0);
		message_clear(&m);
	}
	wanted = 6;
	assert_true(peer_wait(has_results, BIG_WAIT));
	for (int i = 0; i < 6; i++)
		assert_reason(&peer.results[i], REASON_NONE, "");
	assert_int_equal(peer_blob_find(layer)->gets, 1);
}

static void
a_lease_runs_once(void **state)
{
	struct message m;
	int started = peer.started;

	NEEDS_ROOT();
	fill_event(&m, "raw", peer_layer(RAW("time.sleep(0.3); answer(b'once')\n")));
	send_event(&m, NULL, 0);
	send_event(&m, NULL, 0);
	next_result();
	assert_int_equal(peer.started - started, 2);
	assert_true(peer_wait(has_nothing_left, BIG_WAIT));
	assert_int_equal(peer.result_count, 1);
	assert_int_equal(peer.received, 2);
	assert_int_equal(peer.granted, 2 + peer.slots);

	m.session = id_new(); /* not this session's: dropped */
	m.lease.seq = ++peer.seq;
	send_event(&m, NULL, 0);
	m.session = peer.session;
	m.lease.seq = ++peer.seq;
	send_event(&m, NULL, 0);
	message_clear(&m);
	assert_int_equal(next_result()->m.lease.seq, peer.seq);
	assert_int_equal(peer.result_count, 2);
}

static void
results_come_again_until_settled(void **state)
{
	struct peer_result *r;
	struct lease lease;

	NEEDS_ROOT();
	peer.unsettled = true;
	r = run_raw(RAW("print('log line'); answer(b'kept')\n"));
	lease = r->m.lease;
	for (int i = 0; i < 2; i++) {
		r = next_result();
		assert_true(r->m.lease.seq == lease.seq);
		assert_string_equal(r->response, "kept");
		assert_non_null(strstr(r->logs, "log line"));
	}
	assert_int_equal(peer.leases, 1);
	peer_settle(&lease);
	assert_true(peer_wait(has_nothing_left, BIG_WAIT));
}

static void
cancelled(void **state)
{
	struct message m, cancel = { .type = MSG_CANCEL };
	struct peer_result *r;

	NEEDS_ROOT();
	run_raw(RAW("answer(b'')\n")); /* the node is warm */
	fill_event(&m, "raw", peer_layer(RAW("time.sleep(60)\n")));
	send_event(&m, NULL, 0);
	cancel.lease = m.lease;
	cancel.session = peer.session;
	message_clear(&m);
	assert_int_equal(peer_send(&cancel, NULL, 0), 0);
	r = next_result();
	assert_reason(r, REASON_CANCELLED, ""); /* and not the end of its 10 s */
}

/* ---- What functions do wrong ---- */

static void
hostile_runtimes(void **state)
{
	static const struct {
		const char *code, *message;
		enum event_reason reason;
	} cases[] = {
		{ "answer(b'fine', ',\"status\":201')", "", REASON_NONE },
		{ "answer(b'fine'); send('more rubbish' * 1000); time.sleep(0.1)", "", REASON_NONE },
		{ "answer(b'fine'); time.sleep(60)", "", REASON_NONE },
		{ "answer(b'fine'); os.kill(os.getpid(), 9)", "", REASON_NONE },
		{ "send('rubbish\\n'); time.sleep(60)", "malformed", REASON_FUNCTION_FAILED },
		{ "send(b'\\x00\\xff' * 100000)", "line over", REASON_FUNCTION_FAILED },
		{ "send('{\"v\":1,\"type\":\"layer\",\"ok\":true}\\n')", "malformed",
		  REASON_FUNCTION_FAILED },
		{ "send('{\"v\":1,\"type\":\"result\",\"ok\":true,\"bytes\":99999999}\\n')",
		  "larger than 6291456 bytes", REASON_FUNCTION_FAILED },
		{ "send('{\"v\":1,\"type\":\"result\",\"ok\":true,\"bytes\":100}\\nshort')",
		  "ended after 5 of 100 bytes", REASON_FUNCTION_FAILED },
		{ "send('{\"v\":1,\"type\":\"result\",\"ok\":false,\"error\":{\"message\":\"why\"}}\\n')",
		  "why", REASON_FUNCTION_FAILED },
		{ "send('{\"v\":1,\"type\":\"result\",\"ok\":false}\\n')", "did not say why",
		  REASON_FUNCTION_FAILED },
		{ "sys.exit(7)", "exit status 7", REASON_FUNCTION_FAILED },
		{ "c.close(); sys.exit(0)", "exit status 0", REASON_FUNCTION_FAILED },
		{ "os.kill(os.getpid(), 11)", "signal SIGSEGV", REASON_FUNCTION_FAILED },
		{ "x = b'x' * (1 << 30)", "128 MiB of memory", REASON_MEMORY_EXCEEDED },
		{ "pid = os.fork() or [b'x' * (1 << 30)]; os.waitpid(pid, 0); send('{\"v\":1,\"type\":"
		  "\"result\",\"ok\":false,\"error\":{\"message\":\"a child ended\"}}\\n')",
		  "128 MiB of memory", REASON_MEMORY_EXCEEDED },
		{ "send('{\"v\":1,\"type\":\"network\"}\\n')", "malformed", REASON_FUNCTION_FAILED },
		{ "print('y' * (2 << 20)); answer(b'too late')", "more than 1048576 bytes",
		  REASON_OUTPUT_EXCEEDED },
		{ "os.write(2, b'z' * 70000); answer(b'')", "", REASON_NONE },
		{ "os.fork() or time.sleep(60); answer(b'daemon')", "", REASON_NONE },
		{ "[os.close(i) for i in (0, 1, 2)]; answer(b'closed')", "", REASON_NONE },
		{ "open('/tmp/x','w').write('x' * (8 << 20)); answer(b'wrote')", "", REASON_NONE },
	};
	char code[2048];

	NEEDS_ROOT();
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct peer_result *r;

		print_message("  %s\n", cases[i].code);
		snprintf(code, sizeof code, "%s%s\n", RAW(""), cases[i].code);
		r = run_raw(code);
		assert_reason(r, cases[i].reason, cases[i].message);
		assert_int_equal(r->m.event.has_response, cases[i].reason == REASON_NONE);
	}
}

static void
output_is_cut(void **state)
{
	struct peer_result *r;

	NEEDS_ROOT();
	r = run_raw("while True: print('y' * 1000)\n");
	assert_reason(r, REASON_OUTPUT_EXCEEDED, "1048576");
	assert_true(r->m.event.logs_truncated);
	assert_non_null(strstr(r->logs, "output limit of 1048576 bytes exceeded, cut here"));
	assert_true(r->logs_len > 1 << 20 && r->logs_len < 2 << 20);
}

static void
deadline(void **state)
{
	struct message m;
	struct peer_result *r;
	uint64_t before;

	NEEDS_ROOT();
	run_raw(RAW("answer(b'')\n"));
	fill_event(&m, "raw", peer_layer("import os, time\nprint('before', flush=True)\n"
					 "os.fork(); os.setsid() if os.fork() == 0 else 0\n"
					 "time.sleep(60)\n"));
	m.version.timeout_s = 1;
	before = clock_mono_ns();
	send_event(&m, NULL, 0);
	message_clear(&m);
	r = next_result();
	assert_reason(r, REASON_TIMEOUT, "within 1 s");
	assert_true(clock_mono_ns() - before < 3 * NS_PER_S);
	assert_non_null(strstr(r->logs, "before"));
}

/* ---- What goes wrong around it ---- */

static void
layers_that_are_not_right(void **state)
{
	char digest[65], *other = strdup("not what the digest says");
	struct message m;
	struct peer_result *r;

	NEEDS_ROOT();
	memset(digest, 'a', 64);
	digest[64] = '\0';
	fill_event(&m, "raw", digest); /* nobody has it */
	send_event(&m, NULL, 0);
	message_clear(&m);
	assert_reason(next_result(), REASON_FUNCTION_FAILED, "404");

	digest[0] = 'b';
	peer_blob_add(digest, other, strlen(other));
	fill_event(&m, "raw", digest);
	send_event(&m, NULL, 0);
	message_clear(&m);
	r = next_result();
	assert_true(r->m.event.reason == REASON_FUNCTION_FAILED ||
		    r->m.event.reason == REASON_NODE_LOST);

	peer.refuse_blobs = 2; /* passes */
	r = run_raw(RAW("answer(b'after two refusals')\n"));
	assert_reason(r, REASON_NONE, "");

	fill_event(&m, "no-such", digest);
	send_event(&m, NULL, 0);
	message_clear(&m);
	assert_reason(next_result(), REASON_FUNCTION_FAILED, "no runtime 'no-such'");

	fill_event(&m, "raw", digest);
	m.version.memory_mib = FUNCTION_MEMORY_MAX_MIB;
	peer.memory_mib = 0;
	send_event(&m, NULL, 0);
	message_clear(&m);
	next_result();
}

static void
garbage_is_dropped(void **state)
{
	static const char *const garbage[] = { "", "x", "{}", "{\"v\":1}", "[[[[", "\xff\xfe",
					       "{\"v\":1,\"t\":\"job\",\"lease\":[1,2]}",
					       "{\"v\":1,\"t\":\"settled\",\"lease\":[1,-2]}" };
	struct err e = { 0 };

	NEEDS_ROOT();
	for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
		struct mq_frame frames[2] = { { peer.session.b, sizeof peer.session.b },
					      { garbage[i], strlen(garbage[i]) } };

		assert_int_equal(mq_send(peer.dispatch, frames, 2, &e), 0);
	}
	assert_reason(run_raw(RAW("answer(b'')\n")), REASON_NONE, "");
	assert_int_equal(peer.registrations, 1);
}

/* The child of the node that has root: its spawner. */
static pid_t
spawner_pid(void)
{
	char path[64], text[256] = "";
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/task/%d/children", peer.node, peer.node);
	f = fopen(path, "r");
	if (!f || !fgets(text, sizeof text, f))
		text[0] = '\0';
	if (f)
		fclose(f);
	return (pid_t)strtol(text, NULL, 10);
}

static void
ends_with_its_spawner(void **state)
{
	pid_t spawner;

	NEEDS_ROOT();
	spawner = spawner_pid();
	assert_true(spawner > 1);
	kill(spawner, SIGKILL);
	assert_true(peer_wait(peer_has_ended, BIG_WAIT));
	assert_int_equal(peer.status, 1);
	/* What it left is the next one's to remove. */
	close(peer.ready_fd);
	peer.granted = 0;
	assert_int_equal(peer_node_start(NULL), 0);
	assert_true(peer_wait(has_credit, BIG_WAIT) && !peer.ended);
	assert_false(id_equal(&peer.incarnations[0], &peer.incarnations[1]));
	assert_reason(run_raw(RAW("answer(b'again')\n")), REASON_NONE, "");
}

static bool
has_no_spawner(void)
{
	return kill((pid_t)wanted, 0) && errno == ESRCH;
}

static void
spawner_ends_with_it(void **state)
{
	struct message m;

	NEEDS_ROOT();
	fill_event(&m, "raw", peer_layer(RAW("time.sleep(60)\n")));
	send_event(&m, NULL, 0);
	message_clear(&m);
	wanted = spawner_pid();
	assert_true(wanted > 1);
	kill(peer.node, SIGKILL);
	assert_true(peer_wait(peer_has_ended, BIG_WAIT));
	for (uint64_t until = clock_mono_ns() + 5 * NS_PER_S; !has_no_spawner();)
		assert_true(clock_mono_ns() < until);
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		EACH(registers_and_is_ready),
		EACH(driver_has_no_power),
		cmocka_unit_test_setup_teardown(registers_again_after_silence, setup_impatient,
						teardown),
		EACH(registers_again_when_not_known),
		EACH(runs_an_event),
		EACH(environment_is_only_what_it_should_be),
		EACH(big_payload_and_answer),
		EACH(one_fetch_for_many),
		EACH(a_lease_runs_once),
		EACH(results_come_again_until_settled),
		EACH(cancelled),
		EACH(hostile_runtimes),
		EACH(output_is_cut),
		EACH(deadline),
		EACH(layers_that_are_not_right),
		EACH(garbage_is_dropped),
		EACH(ends_with_its_spawner),
		EACH(spawner_ends_with_it),
	};

	signal(SIGPIPE, SIG_IGN);
	log_open("test", LOG_ERROR);
	if (crypto_init(NULL))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
