/*
 * Functions on images, by the built pratai-node against a control plane in this process
 * (node_peer.h): what is fetched, once and no more than is lacking, and what can be wrong with
 * it.  Needs root; skipped, and said so, without.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <poll.h>

#include <cmocka.h>

#include "core/node/images.h"
#include "core/node/keeper.h"
#include "tests/unit/node_peer.h"

#define SHELL "#!/bin/sh\nread -r event <&3\n"
/* The answer is what the script has put into $a. */
#define ANSWER "printf '{\"v\":1,\"type\":\"result\",\"ok\":true,\"bytes\":%d}\\n%s' ${#a} \"$a\" >&3\n"

static int wanted;
static char layer_digest[65]; /* of the function */

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

static void
start_node(void)
{
	peer.granted = 0;
	if (peer_node_start(NULL) || !peer_wait(has_credit, BIG_WAIT) || peer.ended)
		fail_msg("the node does not register (status %d)", peer.status);
}

static void
add_function(const char *script)
{
	const struct peer_file files[] = { { "function/main.sh", script }, { NULL, NULL } };
	size_t len;
	char *data = peer_archive("ustar", files, &len);

	memcpy(layer_digest, peer_blob_add(NULL, data, len)->digest, 65);
}

static int
setup(void **state)
{
	*state = NULL;
	if (geteuid() != 0) {
		*state = (void *)1;
		return 0;
	}
	if (peer_start())
		fail_msg("cannot start");
	start_node();
	add_function(SHELL "read -r a </etc/release; a=\"$a $COLOUR $HOME $PATH\"\n" ANSWER);
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

/* ---- Images ---- */

struct parts {
	struct peer_blob *manifest, *config, *layers[2];
};

static void
add_file(struct archive *a, const char *path, const char *data, size_t len, int mode)
{
	struct archive_entry *entry = archive_entry_new();

	archive_entry_set_pathname(entry, path);
	archive_entry_set_size(entry, (la_int64_t)len);
	archive_entry_set_filetype(entry, AE_IFREG);
	archive_entry_set_perm(entry, (mode_t)mode);
	archive_write_header(a, entry);
	archive_write_data(a, data, len);
	archive_entry_free(entry);
}

/* A layer: /etc/release, and a shell when it is the lowest one. */
static struct peer_blob *
add_layer(const char *release, bool shell)
{
	enum { MAX = 4 << 20 };
	struct archive *a = archive_write_new();
	struct buf busybox = { .max = MAX };
	char *data = malloc(MAX);
	size_t len;
	struct err e;

	archive_write_set_format_by_name(a, "ustar");
	archive_write_open_memory(a, data, MAX, &len);
	add_file(a, "etc/release", release, strlen(release), 0644);
	if (shell) {
		assert_int_equal(file_slurp(AT_FDCWD, "/bin/busybox", MAX / 2, &busybox, &e), 0);
		add_file(a, "bin/sh", busybox.data, busybox.len, 0755);
	}
	archive_write_close(a);
	archive_write_free(a);
	buf_free(&busybox);
	return peer_blob_add(NULL, data, len);
}

static struct peer_blob *
add_text(char *text)
{
	return peer_blob_add(NULL, text, strlen(text));
}

/* release: of the upper layer, by which images differ. */
static struct parts
add_image(const char *release)
{
	struct parts p = { .layers = { add_layer("lower\n", true), add_layer(release, false) } };
	char *text;

	assert_true(asprintf(&text,
			     "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Env\":[\"COLOUR=red\","
			     "\"HOME=/root\",\"PATH=/bin\"]},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":"
			     "[\"sha256:%s\",\"sha256:%s\"]}}", p.layers[0]->digest, p.layers[1]->digest) > 0);
	p.config = add_text(text);
	assert_true(asprintf(&text,
			     "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1"
			     "+json\",\"digest\":\"sha256:%s\",\"size\":%zu},\"layers\":["
			     "{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"sha256:%s\","
			     "\"size\":%zu},{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\","
			     "\"digest\":\"sha256:%s\",\"size\":%zu}]}", p.config->digest, p.config->len,
			     p.layers[0]->digest, p.layers[0]->len, p.layers[1]->digest, p.layers[1]->len) > 0);
	p.manifest = add_text(text);
	return p;
}

/* ---- Events ---- */

static void
order(const char *image)
{
	struct message m = { .type = MSG_JOB, .kind = JOB_EVENT, .session = peer.session,
			     .lease = { 1, ++peer.seq } };
	struct function_version *v = &m.version;

	v->function_id = id_new();
	v->version = 1;
	v->state = VERSION_READY;
	v->memory_mib = 32;
	v->tmp_size_mib = 16;
	v->cpu_millis = 1000;
	v->pids = 64;
	v->timeout_s = 10;
	v->output_bytes = FUNCTION_OUTPUT_BYTES;
	strcpy(v->project_id, "project");
	strcpy(v->name, "imaged");
	strcpy(v->runtime, "shell");
	strcpy(v->image, "some/image");
	strcpy(v->network, "none");
	memcpy(v->image_digest, image, 65);
	memcpy(v->package_digest, layer_digest, 65);
	memcpy(v->layer_digest, layer_digest, 65);
	m.event.id = id_new();
	m.event.function_id = v->function_id;
	assert_int_equal(peer_send(&m, NULL, 0), 0);
	message_clear(&m);
}

static struct peer_result *
run_on(const char *image)
{
	wanted = peer.result_count + 1;
	order(image);
	if (!peer_wait(has_results, 60 * NS_PER_S) || peer.ended)
		fail_msg("no result came (node ended: %d)", peer.ended);
	return &peer.results[wanted - 1];
}

static void
answers(const char *image, const char *text)
{
	struct peer_result *r = run_on(image);

	if (r->m.event.reason != REASON_NONE)
		fail_msg("%s: %s", r->m.event.error_type, r->m.event.error_message);
	assert_string_equal(r->response, text);
}

static void
fails(const char *image, enum event_reason reason, const char *text)
{
	struct peer_result *r = run_on(image);
	const char *said = r->m.event.error_message ? r->m.event.error_message : "";

	if (r->m.event.reason != reason || !strstr(said, text))
		fail_msg("reason %d: %s", (int)r->m.event.reason, said);
}

#define ZEROS "0000000000000000000000000000000000000000000000000000000000000000"
#define UPPER "upper red /tmp /bin"

static void
test_fetched_once(void **state)
{
	struct parts p;

	NEEDS_ROOT();
	p = add_image("upper\n");
	answers(p.manifest->digest, UPPER);
	answers(p.manifest->digest, UPPER);
	assert_int_equal(p.manifest->gets, 1);
	assert_int_equal(p.config->gets, 1);
	assert_int_equal(p.layers[0]->gets, 1);
	assert_int_equal(p.layers[1]->gets, 1);
	/* Another one needs no more than what is its own, */
	p = add_image("other\n");
	answers(p.manifest->digest, "other red /tmp /bin");
	assert_int_equal(p.layers[0]->gets, 1);
	assert_int_equal(p.layers[1]->gets, 1);
	/* nor does the node's next life. */
	assert_int_equal(peer_node_stop(), 0);
	start_node();
	answers(p.manifest->digest, "other red /tmp /bin");
	assert_int_equal(p.manifest->gets, 1);
	assert_int_equal(p.layers[1]->gets, 1);
}

static void
test_many_at_once(void **state)
{
	struct parts p, q;

	NEEDS_ROOT();
	p = add_image("upper\n");
	q = add_image("other\n");
	wanted = 6;
	for (int i = 0; i < 3; i++) {
		order(p.manifest->digest);
		order(q.manifest->digest);
	}
	assert_true(peer_wait(has_results, 60 * NS_PER_S) && !peer.ended);
	for (int i = 0; i < 6; i++)
		assert_int_equal(peer.results[i].m.event.reason, REASON_NONE);
	assert_int_equal(p.manifest->gets, 1);
	assert_int_equal(p.layers[1]->gets, 1);
	assert_int_equal(q.layers[1]->gets, 1);
}

static void
fetched_path(char out[512], const struct parts *p, const char *rest)
{
	snprintf(out, 512, "%s/state/node/images/%s%s", peer.dir, p->manifest->digest, rest);
}

static void
test_goes_on_where_it_broke(void **state)
{
	struct parts p;
	char path[512], part[128];
	struct err e;
	int fd;

	NEEDS_ROOT();
	p = add_image("upper\n");
	snprintf(part, sizeof part, "/blobs/sha256/%s", p.layers[0]->digest);
	fetched_path(path, &p, "/blobs/sha256");
	assert_int_equal(dir_make(AT_FDCWD, path, 0777, &e), 0);
	fetched_path(path, &p, part);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	assert_int_equal(fd_write_all(fd, p.layers[0]->data, 5000), 0);
	close(fd);
	fetched_path(path, &p, "");
	/* They are the driver's. */
	{
		char command[700];
		struct stat st;

		snprintf(part, sizeof part, "%s/state/node", peer.dir);
		assert_int_equal(stat(part, &st), 0);
		snprintf(command, sizeof command, "chown -R %u:%u %s", st.st_uid, st.st_gid, path);
		assert_int_equal(system(command), 0);
	}
	answers(p.manifest->digest, UPPER);
	assert_int_equal(p.layers[0]->gets, 1);
	assert_int_equal(p.layers[0]->from, 5000);
	assert_int_equal(access(path, F_OK), -1);
}

static void
test_lacking(void **state)
{
	struct parts p;

	NEEDS_ROOT();
	p = add_image("upper\n");
	fails("0000000000000000000000000000000000000000000000000000000000000001",
	      REASON_FUNCTION_FAILED, "image sha256:000000000000...");
	p.layers[1]->digest[0] ^= 1; /* is not found under its name */
	fails(p.manifest->digest, REASON_FUNCTION_FAILED, "answered 404");
	p.layers[1]->digest[0] ^= 1;
	answers(p.manifest->digest, UPPER);
	assert_int_equal(p.layers[0]->gets, 1); /* it was there already */
	/* A control plane that is just away is no fault of the function's. */
	p = add_image("away\n");
	peer.refuse_blobs = 4;
	fails(p.manifest->digest, REASON_NODE_LOST, "answered 503");
	answers(p.manifest->digest, "away red /tmp /bin");
}

static void
test_no_image(void **state)
{
	static const char *const descriptors[] = {
		"{\"digest\":\"sha256:xyz\",\"size\":1}", "1", "{}",
		"{\"digest\":\"sha256:" ZEROS "\",\"size\":-1}",
		"{\"digest\":\"sha256:" ZEROS "\",\"size\":1e30}",
		"{\"digest\":\"md5:" ZEROS "\",\"size\":1}",
		"{\"digest\":\"sha256:../" ZEROS "\",\"size\":1}",
	};
	static const char *const texts[] = { "", "{", "{}", "[]", "null" };

	NEEDS_ROOT();
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		fails(add_text(strdup(texts[i]))->digest, REASON_FUNCTION_FAILED, "manifest");
	for (size_t i = 0; i < sizeof descriptors / sizeof *descriptors; i++) {
		char *text;

		assert_true(asprintf(&text, "{\"config\":%s,\"layers\":[]}", descriptors[i]) > 0);
		fails(add_text(text)->digest, REASON_FUNCTION_FAILED, "manifest");
	}
}

/* What comes is not what its name says: the keeper's worker finds that, and nothing of it stays;
 * what is right the next time is taken. */
static void
test_damaged(void **state)
{
	struct parts p;
	char path[512];

	NEEDS_ROOT();
	p = add_image("upper\n");
	p.layers[1]->data[0] ^= 1;
	fails(p.manifest->digest, REASON_FUNCTION_FAILED, "has the digest");
	fetched_path(path, &p, "");
	assert_int_equal(access(path, F_OK), -1);
	p.layers[1]->data[0] ^= 1;
	answers(p.manifest->digest, UPPER);
}

/* The operator's image-gc takes what no name leads to, but for what is held. */
static void
test_collected(void **state)
{
	struct parts p;
	char command[9000], build[4096];

	NEEDS_ROOT();
	p = add_image("upper\n");
	answers(p.manifest->digest, UPPER);
	peer_build_dir(build);
	snprintf(command, sizeof command, "PRATAI_ROOT=%s/state %s/pratai image-list -f value -c name", peer.dir,
		 build);
	{
		FILE *f = popen(command, "r");
		char name[128] = "";

		assert_non_null(fgets(name, sizeof name, f));
		pclose(f);
		assert_memory_equal(name, "fetched/", 8);
		assert_memory_equal(name + 8, p.manifest->digest, 64);
	}
	snprintf(command, sizeof command,
		 "export PRATAI_ROOT=%s/state; %s/pratai image-delete fetched/%s && %s/pratai image-gc >/dev/null",
		 peer.dir, build, p.manifest->digest, build);
	assert_int_equal(system(command), 0);
	answers(p.manifest->digest, UPPER);
	assert_int_equal(p.manifest->gets, 1);
	assert_int_equal(peer_node_stop(), 0);
	snprintf(command, sizeof command, "PRATAI_ROOT=%s/state %s/pratai image-gc >/dev/null", peer.dir, build);
	assert_int_equal(system(command), 0);
	start_node();
	answers(p.manifest->digest, UPPER);
	assert_int_equal(p.manifest->gets, 2);
	assert_int_equal(p.layers[0]->gets, 2);
}

static pid_t
keeper_of(pid_t node)
{
	char path[64], name[64] = "";
	struct err e;
	struct buf text = { 0 };
	pid_t pid, found = 0;

	snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)node, (int)node);
	assert_int_equal(file_slurp(AT_FDCWD, path, 4096, &text, &e), 0);
	for (char *p = strtok(text.data, " "); p; p = strtok(NULL, " ")) {
		struct buf comm = { 0 };

		pid = (pid_t)strtol(p, NULL, 10);
		snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
		if (file_slurp(AT_FDCWD, path, 64, &comm, &e) == 0)
			snprintf(name, sizeof name, "%s", comm.data);
		if (!strncmp(name, "pratai-keeper", 13))
			found = pid;
		buf_free(&comm);
	}
	buf_free(&text);
	return found;
}

static void
test_keeper_killed(void **state)
{
	struct parts p;
	pid_t keeper;

	NEEDS_ROOT();
	p = add_image("upper\n");
	answers(p.manifest->digest, UPPER);
	keeper = keeper_of(peer.node);
	assert_true(keeper > 0);
	kill(keeper, SIGKILL); /* the child of a child of ours */
	assert_true(peer_wait(peer_has_ended, BIG_WAIT));
	assert_int_equal(peer.status, 1);
	close(peer.ready_fd);
	start_node();
	answers(p.manifest->digest, UPPER);
	assert_int_equal(p.layers[0]->gets, 1);
}

/* ---- The keeper by itself: what a driver that was taken over could say ---- */

static int
start_keeper(struct keeper *k)
{
	char build[4096], program[4200], unpack[4200];
	struct err e = { 0 };
	int self, unpack_fd, rc;

	peer_build_dir(build);
	snprintf(program, sizeof program, "%s/pratai-node", build);
	snprintf(unpack, sizeof unpack, "%s/pratai-unpack", build);
	self = open(program, O_PATH | O_CLOEXEC);
	unpack_fd = open(unpack, O_PATH | O_CLOEXEC);
	rc = keeper_start(peer.dir, self, unpack_fd, k, &e);
	close(self);
	close(unpack_fd);
	return rc;
}

static void
expect_end(struct keeper *k)
{
	struct pollfd p = { .fd = k->pidfd, .events = POLLIN };
	int status;

	assert_int_equal(poll(&p, 1, 10000), 1);
	assert_int_equal(waitpid(k->pid, &status, 0), k->pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	close(k->fd);
	close(k->pidfd);
}

static void
test_keeper_refuses(void **state)
{
	struct keeper_ask good = { .magic = KEEPER_MAGIC, .type = KEEPER_HOLD, .tag = 7, .count = 1 };
	const struct {
		size_t len;
		uint32_t magic, type, count, zero;
		int fd;
	} bad[] = {
		{ sizeof good - 1, KEEPER_MAGIC, KEEPER_HOLD, 1, 0, -1 },
		{ 1, KEEPER_MAGIC, KEEPER_HOLD, 1, 0, -1 },
		{ sizeof good, 1, KEEPER_HOLD, 1, 0, -1 },
		{ sizeof good, KEEPER_MAGIC, 0, 1, 0, -1 },
		{ sizeof good, KEEPER_MAGIC, KEEPER_FORGET + 1, 1, 0, -1 },
		{ sizeof good, KEEPER_MAGIC, KEEPER_HOLD, 0, 0, -1 },
		{ sizeof good, KEEPER_MAGIC, KEEPER_HOLD, 2, 0, -1 },
		{ sizeof good, KEEPER_MAGIC, KEEPER_LACK, KEEPER_DIGESTS_MAX + 1, 0, -1 },
		{ sizeof good, KEEPER_MAGIC, KEEPER_HOLD, 1, 1, -1 },
		{ sizeof good, KEEPER_MAGIC, KEEPER_TAKE, 1, 0, -1 },
		{ sizeof good, KEEPER_MAGIC, KEEPER_TAKE, 1, 0, STDERR_FILENO },
		{ sizeof good, KEEPER_MAGIC, KEEPER_HOLD, 1, 0, STDERR_FILENO },
	};

	NEEDS_ROOT();
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct keeper_ask ask = good;
		struct iovec iov = { .iov_base = &ask, .iov_len = bad[i].len };
		char space[CMSG_SPACE(sizeof(int))] = "";
		struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
		struct keeper k;

		assert_int_equal(start_keeper(&k), 0);
		ask.magic = bad[i].magic;
		ask.type = bad[i].type;
		ask.count = bad[i].count;
		ask.zero = bad[i].zero;
		if (bad[i].fd >= 0) {
			struct cmsghdr *c = (struct cmsghdr *)space;

			*c = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET,
					       .cmsg_type = SCM_RIGHTS };
			memcpy(CMSG_DATA(c), &bad[i].fd, sizeof(int));
			m.msg_control = space;
			m.msg_controllen = sizeof space;
		}
		assert_true(sendmsg(k.fd, &m, MSG_NOSIGNAL) > 0);
		expect_end(&k);
	}
}

/* One that was read by poll. */
static void
hear(struct keeper *k, struct keeper_answer *a)
{
	struct pollfd p = { .fd = k->fd, .events = POLLIN };

	assert_int_equal(poll(&p, 1, 20000), 1);
	assert_int_equal(recv(k->fd, a, sizeof *a, 0), sizeof *a);
}

/* A layout whose files are links, out of the directory and to devices: none is followed. */
static void
test_keeper_opens_files_only(void **state)
{
	struct keeper_ask ask = { .magic = KEEPER_MAGIC, .type = KEEPER_TAKE, .tag = 9, .count = 1 };
	static const char *const targets[] = { "/etc/passwd", "../../../../etc/passwd", "/dev/zero" };

	NEEDS_ROOT();
	for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
		char path[128], link_path[160], space[CMSG_SPACE(sizeof(int))] = "";
		struct iovec iov = { .iov_base = &ask, .iov_len = sizeof ask };
		struct cmsghdr *c = (struct cmsghdr *)space;
		struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = space,
				    .msg_controllen = sizeof space };
		struct keeper_answer a;
		struct keeper k;
		struct err e;
		int fd;

		snprintf(path, sizeof path, "%s/layout", peer.dir);
		assert_int_equal(mkdir(path, 0755), 0);
		snprintf(link_path, sizeof link_path, "%s/index.json", path);
		assert_int_equal(symlink(targets[i], link_path), 0);
		fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		*c = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET,
				       .cmsg_type = SCM_RIGHTS };
		memcpy(CMSG_DATA(c), &fd, sizeof fd);
		assert_int_equal(start_keeper(&k), 0);
		assert_true(sendmsg(k.fd, &m, MSG_NOSIGNAL) > 0);
		hear(&k, &a);
		assert_int_equal(a.tag, 9);
		assert_int_equal(a.err_class, ERR_INPUT);
		if (!strstr(a.text, "no file index.json"))
			fail_msg("%s", a.text);
		close(fd);
		shutdown(k.fd, SHUT_RDWR);
		expect_end(&k);
		assert_int_equal(dir_remove(AT_FDCWD, path, &e), 0);
	}
}

/* ---- Images that are not used ---- */

/* One in the store of the peer's directory, as if it had been fetched. */
static void
put_image(char digest[65], char ref[256])
{
	char command[9000], build[4096];
	struct buf text = { 0 };
	struct err e;

	peer_build_dir(build);
	snprintf(command, sizeof command,
		 "export PRATAI_ROOT=%s; tar cf - -C / bin/busybox | %s/pratai image-import - --name x --no-upload "
		 ">/dev/null", peer.dir, build);
	assert_int_equal(system(command), 0);
	snprintf(command, sizeof command, "%s/images/refs/x", peer.dir);
	assert_int_equal(file_slurp(AT_FDCWD, command, 100, &text, &e), 0);
	snprintf(digest, 65, "%.64s", text.data);
	buf_free(&text);
	snprintf(ref, 256, "%s/images/refs/fetched%%%s", peer.dir, digest);
	assert_int_equal(rename(command, ref), 0);
}

static char awaited[300];

static bool
is_gone(void)
{
	return access(awaited, F_OK) != 0;
}

static void
come_round(void *arg)
{
	loop_timer_after(*(struct loop_timer **)arg, 5 * NS_PER_MS);
}

/* The layers of the image, when there are some. */
static void
await_layers_gone(void)
{
	char pattern[200];
	glob_t g;

	snprintf(pattern, sizeof pattern, "%s/images/layers/*", peer.dir);
	if (glob(pattern, 0, NULL, &g))
		return;
	snprintf(awaited, sizeof awaited, "%s", g.gl_pathv[0]);
	globfree(&g);
	assert_true(peer_wait(is_gone, BIG_WAIT));
}

static void
on_there(void *arg, const struct err *why)
{
	*(const struct err **)arg = why;
	loop_stop(peer.loop);
}

static void
test_unused_goes(void **state)
{
	struct keeper k;
	struct images_config c = { .loop = NULL, .keeper = &k, .idle_ns = NS_PER_MS, .pass_ns = NS_PER_MS };
	const struct err *why = (void *)1;
	const struct node_image *image;
	struct loop_timer *round;
	struct images *images;
	char digest[65], ref[256];
	struct err e = { 0 };

	NEEDS_ROOT();
	put_image(digest, ref);
	assert_int_equal(start_keeper(&k), 0);
	c.loop = peer.loop;
	c.dir_fd = peer.run_fd;
	round = loop_timer_add(peer.loop, come_round, &round, &e);
	images = images_new(&c, &e);
	assert_non_null(images);
	assert_null(images_use(images, digest));
	assert_non_null(images_fetch(images, digest, on_there, &why, &e));
	loop_run(peer.loop, &e);
	assert_null(why);
	image = images_use(images, digest);
	assert_non_null(image);
	assert_int_equal(image->spawn.layer_count, 1);
	/* In use it stays, whatever the time; */
	snprintf(awaited, sizeof awaited, "%s", ref);
	come_round(&round);
	assert_false(peer_wait(is_gone, 100 * NS_PER_MS));
	/* else not. */
	images_unuse(images, image);
	assert_true(peer_wait(is_gone, BIG_WAIT));
	await_layers_gone();
	loop_timer_remove(round);
	images_free(images);
	shutdown(k.fd, SHUT_RDWR);
	expect_end(&k);
}

static void
test_old_names_go(void **state)
{
	const struct timespec old[2] = { { .tv_sec = time(NULL) - KEEPER_KEEP_S - 60 },
					 { .tv_sec = time(NULL) - KEEPER_KEEP_S - 60 } };
	struct loop_timer *round;
	char digest[65], ref[256];
	struct err e = { 0 };
	struct keeper k;

	NEEDS_ROOT();
	put_image(digest, ref);
	round = loop_timer_add(peer.loop, come_round, &round, &e);
	come_round(&round);
	snprintf(awaited, sizeof awaited, "%s", ref);
	assert_int_equal(start_keeper(&k), 0);
	assert_false(peer_wait(is_gone, 300 * NS_PER_MS)); /* a young one */
	shutdown(k.fd, SHUT_RDWR);
	expect_end(&k);
	assert_int_equal(utimensat(AT_FDCWD, ref, old, 0), 0);
	assert_int_equal(start_keeper(&k), 0);
	assert_true(peer_wait(is_gone, BIG_WAIT));
	await_layers_gone();
	loop_timer_remove(round);
	shutdown(k.fd, SHUT_RDWR);
	expect_end(&k);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_fetched_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_goes_on_where_it_broke, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lacking, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_image, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
		cmocka_unit_test_setup_teardown(test_collected, setup, teardown),
		cmocka_unit_test_setup_teardown(test_keeper_killed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_keeper_refuses, setup, teardown),
		cmocka_unit_test_setup_teardown(test_keeper_opens_files_only, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unused_goes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_old_names_go, setup, teardown),
	};
	struct err e = { 0 };

	signal(SIGPIPE, SIG_IGN);
	log_open("test", LOG_ERROR);
	if (crypto_init(&e))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
