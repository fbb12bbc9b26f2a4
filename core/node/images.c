/*
 * An image on its way:
 *
 *   HOLD ──there──────────────────────────────────────────────────────────► ready
 *     └─lacking─► manifest ─► LACK ─► parts, fetched ─► TAKE ─► HOLD ──there──┘
 *
 * Words in capitals are asked of the keeper, one at a time for an image.
 */
#include "core/node/images.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/statvfs.h>

#include "core/base/buf.h"
#include "core/base/fdio.h"
#include "core/base/log.h"
#include "core/base/str.h"
#include "core/node/blob.h"
#include "core/node/env.h"
#include "core/node/image_fetch.h"
#include "netio/loop.h"
#include "rootfs/image.h"

_Static_assert((int)SPAWN_IMAGE_MAX >= (int)IMAGE_LAYERS_MAX, "every image can run");
_Static_assert((int)KEEPER_DIGESTS_MAX >= (int)IMAGE_FETCH_PARTS_MAX, "all parts are asked for at once");

#define TAKE_AGAIN_NS (500 * NS_PER_MS)
#define FREE_MIN_BYTES (1ull << 30) /* of the disk; below that what is not used goes sooner */

struct image_wait {
	image_fn fn;
	void *arg;
	struct entry *entry;
	TAILQ_ENTRY(image_wait) link;
};

struct entry {
	struct node_image image; /* first */
	struct images *images;
	char digest[65];
	bool ready, taken;
	bool whole; /* every part is fetched, whatever the store has */
	unsigned uses;
	uint64_t used_ns; /* when a use last began or ended */
	uint64_t tag;     /* of what the keeper was asked; 0: nothing */
	enum keeper_type asked;
	struct image_fetch *fetch;
	struct image_parts parts;
	struct loop_timer *again; /* TAKE */
	TAILQ_HEAD(wait_list, image_wait) waits;
	TAILQ_ENTRY(entry) link;
};

struct images {
	struct images_config c;
	struct loop_fd *watch;
	struct loop_timer *pass;
	uint64_t last_tag;
	TAILQ_HEAD(entry_list, entry) entries; /* the one that was used last is last */
};

static void
clear_image(struct node_image *i)
{
	for (char **p = i->env; p && *p; p++)
		free(*p);
	free(i->env);
	memset(i, 0, sizeof *i);
}

static void
entry_free(struct entry *n)
{
	struct image_wait *w;

	while ((w = TAILQ_FIRST(&n->waits))) {
		TAILQ_REMOVE(&n->waits, w, link);
		free(w);
	}
	image_fetch_free(n->fetch);
	loop_timer_remove(n->again);
	clear_image(&n->image);
	TAILQ_REMOVE(&n->images->entries, n, link);
	free(n);
}

/* Everybody who waits is told; with an error the entry is gone. */
static void
settle(struct entry *n, const struct err *e)
{
	struct wait_list waits = TAILQ_HEAD_INITIALIZER(waits);
	struct image_wait *w;

	TAILQ_CONCAT(&waits, &n->waits, link);
	TAILQ_FOREACH (w, &waits, link)
		w->entry = NULL;
	if (e)
		entry_free(n);
	while ((w = TAILQ_FIRST(&waits))) {
		TAILQ_REMOVE(&waits, w, link);
		if (w->fn)
			w->fn(w->arg, e);
		free(w);
	}
}

static void
fail(struct entry *n, struct err *e)
{
	err_wrap(e, "image sha256:%.12s...", n->digest);
	settle(n, e);
}

/* ---- Asking the keeper ---- */

static int
send_ask(struct images *s, const struct keeper_ask *ask, int fd, struct err *e)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)ask, .iov_len = sizeof *ask };
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof fd)];
	} control = { .head = { .cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET,
				.cmsg_type = SCM_RIGHTS } };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (fd >= 0) {
		memcpy(CMSG_DATA(&control.head), &fd, sizeof fd);
		m.msg_control = control.space;
		m.msg_controllen = sizeof control.space;
	}
	do
		n = sendmsg(s->c.keeper->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)sizeof *ask ? 0 : err_sys(e, ERR_AGAIN, "ask the keeper of images");
}

/* About the image itself. */
static int
ask_about(struct entry *n, enum keeper_type type, int fd, struct err *e)
{
	struct keeper_ask ask = { .magic = KEEPER_MAGIC, .type = type, .count = 1 };
	bool answered = type != KEEPER_RELEASE && type != KEEPER_FORGET;

	if (answered) {
		ask.tag = n->tag = ++n->images->last_tag;
		n->asked = type;
	}
	str_unhex(n->digest, ask.digests[0], sizeof ask.digests[0]);
	return send_ask(n->images, &ask, fd, e);
}

static int
ask_what_lacks(struct entry *n, struct err *e)
{
	struct keeper_ask ask = { .magic = KEEPER_MAGIC, .type = KEEPER_LACK,
				  .tag = n->tag = ++n->images->last_tag, .count = n->parts.count };

	n->asked = KEEPER_LACK;
	for (unsigned i = 0; i < n->parts.count; i++)
		str_unhex(n->parts.list[i].digest, ask.digests[i], sizeof ask.digests[i]);
	return send_ask(n->images, &ask, -1, e);
}

/* ---- Fetching ---- */

static int
take(struct entry *n, struct err *e)
{
	return ask_about(n, KEEPER_TAKE, image_fetch_dir(n->fetch), e);
}

static void
on_again(void *arg)
{
	struct entry *n = arg;
	struct err e = { 0 };

	if (take(n, &e))
		fail(n, &e);
}

static void
on_fetched(void *arg, const struct err *why)
{
	struct entry *n = arg;
	struct err e = { 0 };
	int rc = 0;

	if (why) {
		e = *why;
		rc = -1;
	} else if (!n->asked) { /* the manifest */
		rc = ask_what_lacks(n, &e);
	} else {
		rc = take(n, &e);
	}
	if (rc)
		fail(n, &e);
}

static int
fetch_parts(struct entry *n, const uint8_t *wanted, struct err *e)
{
	int rc = image_fetch_parts(n->fetch, wanted, e);

	return rc == 0 ? take(n, e) : rc < 0 ? -1 : 0;
}

static int
fetch(struct entry *n, struct err *e)
{
	log_info("fetching an image", "digest", n->digest, NULL);
	n->asked = 0;
	n->fetch = image_fetch_manifest(n->images->c.blobs, n->images->c.dir_fd, n->digest, &n->parts,
					on_fetched, n, e);
	return n->fetch ? 0 : -1;
}

/* ---- What the keeper answers ---- */

static int
copy_env(struct node_image *to, const struct image *from)
{
	size_t count = 0;

	to->env = calloc(from->env.count + 1, sizeof *to->env);
	for (size_t i = 0; to->env && i < from->env.count; i++)
		if (!(to->env[count++] = strdup(from->env.list[i])))
			return -1;
	return to->env ? 0 : -1;
}

static int
read_record(struct entry *n, int fd, struct err *e)
{
	static struct image image; /* large */
	struct buf text = { .max = IMAGE_RECORD_MAX + 65536 };
	struct spawn_image *spawn = &n->image.spawn;
	int rc = fd_slurp(fd, "record of an image", IMAGE_RECORD_MAX, &text, e);

	if (rc == 0)
		rc = image_parse(&image, text.data ? text.data : "", text.len, e);
	if (rc == 0) {
		for (unsigned k = image.layer_count; k-- > image.base;)
			memcpy(spawn->layers[spawn->layer_count++], image.layers[k].key, 65);
		if (!spawn->layer_count)
			rc = err_set(e, ERR_FUNCTION, "it has no layers");
		else if (copy_env(&n->image, &image))
			rc = err_set(e, ERR_NODE, "out of memory");
		image_free(&image);
	}
	buf_free(&text);
	return rc;
}

static int
on_hold(struct entry *n, int fd, struct err *e)
{
	if (fd < 0 && e->cls == ERR_NOT_FOUND && !n->taken)
		return fetch(n, e);
	if (fd < 0) {
		e->cls = e->cls == ERR_NOT_FOUND ? ERR_NODE : e->cls;
		return -1;
	}
	if (read_record(n, fd, e))
		return -1;
	n->ready = true;
	n->used_ns = clock_mono_ns();
	settle(n, NULL);
	return 0;
}

/* The store may have lost since what it had: then all of it is fetched, once. */
static int
on_refused(struct entry *n, struct err *e)
{
	uint8_t all[IMAGE_FETCH_PARTS_MAX];

	if (n->whole) {
		image_fetch_discard(n->fetch);
		n->fetch = NULL;
		e->cls = ERR_FUNCTION;
		return -1;
	}
	n->whole = true;
	memset(all, 1, sizeof all);
	return fetch_parts(n, all, e);
}

static int
on_taken(struct entry *n, struct err *e)
{
	if (e->cls == ERR_AGAIN) {
		loop_timer_after(n->again, TAKE_AGAIN_NS);
		return 0;
	}
	if (e->cls == ERR_INPUT || e->cls == ERR_LIMIT)
		return on_refused(n, e);
	if (e->cls != ERR_NONE)
		return -1;
	log_info("an image was fetched", "digest", n->digest, NULL);
	image_fetch_discard(n->fetch);
	n->fetch = NULL;
	n->taken = true;
	return ask_about(n, KEEPER_HOLD, -1, e);
}

static void
on_answer(struct images *s, const struct keeper_answer *a, int fd)
{
	struct err e = { .cls = (enum err_class)a->err_class };
	struct entry *n;
	int rc;

	TAILQ_FOREACH (n, &s->entries, link)
		if (n->tag == a->tag)
			break;
	if (!n)
		return; /* it was given up */
	n->tag = 0;
	snprintf(e.text, sizeof e.text, "%.*s", (int)sizeof a->text - 1, a->text);
	if (n->asked == KEEPER_HOLD)
		rc = on_hold(n, fd, &e);
	else if (n->asked == KEEPER_TAKE)
		rc = on_taken(n, &e);
	else
		rc = e.cls == ERR_NONE ? fetch_parts(n, a->lacking, &e) : -1;
	if (rc)
		fail(n, &e);
}

static void
lose(struct images *s)
{
	loop_fd_remove(s->watch);
	s->watch = NULL;
	s->c.gone(s->c.arg);
}

static void
on_readable(void *arg, uint32_t events)
{
	struct images *s = arg;
	struct keeper_answer a;
	struct iovec iov = { .iov_base = &a, .iov_len = sizeof a };
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space,
			    .msg_controllen = CMSG_LEN(sizeof(int)) };
	ssize_t n = recvmsg(s->c.keeper->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
	int fd = -1;

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(c), sizeof fd);
	if (n != (ssize_t)sizeof a || a.magic != KEEPER_MAGIC || a.err_class >= ERR_CLASS_COUNT)
		lose(s);
	else
		on_answer(s, &a, fd);
	fd_close(&fd);
}

/* ---- Which may go ---- */

static void
touch(struct entry *n)
{
	n->used_ns = clock_mono_ns();
	TAILQ_REMOVE(&n->images->entries, n, link);
	TAILQ_INSERT_TAIL(&n->images->entries, n, link);
}

static void
let_go(struct entry *n)
{
	struct err e = { 0 };

	/* A message that is lost costs disk until the keeper's next start. */
	if (ask_about(n, KEEPER_RELEASE, -1, &e) || ask_about(n, KEEPER_FORGET, -1, &e))
		log_err("an image that is not used stays", &e);
	entry_free(n);
}

static void
on_pass(void *arg)
{
	struct images *s = arg;
	struct entry *n = TAILQ_FIRST(&s->entries), *next;
	struct statvfs fs;
	bool low = !fstatvfs(s->c.dir_fd, &fs) && (uint64_t)fs.f_bavail * fs.f_frsize < FREE_MIN_BYTES;

	for (; n; n = next) {
		next = TAILQ_NEXT(n, link);
		if (!n->ready || n->uses || (!low && clock_mono_ns() - n->used_ns < s->c.idle_ns))
			continue;
		low = false; /* removal takes its time: for want of room one goes each pass */
		let_go(n);
	}
	loop_timer_after(s->pass, s->c.pass_ns);
}

/* ---- For runs ---- */

struct images *
images_new(const struct images_config *c, struct err *e)
{
	struct images *s = calloc(1, sizeof *s);

	if (!s) {
		err_set(e, ERR_NODE, "images: out of memory");
		return NULL;
	}
	s->c = *c;
	TAILQ_INIT(&s->entries);
	s->pass = loop_timer_add(c->loop, on_pass, s, e);
	s->watch = s->pass ? loop_fd_add(c->loop, c->keeper->fd, EPOLLIN, on_readable, s, e) : NULL;
	if (!s->watch) {
		images_free(s);
		return NULL;
	}
	loop_timer_after(s->pass, c->pass_ns);
	return s;
}

void
images_free(struct images *s)
{
	if (!s)
		return;
	while (!TAILQ_EMPTY(&s->entries))
		entry_free(TAILQ_FIRST(&s->entries));
	loop_fd_remove(s->watch);
	loop_timer_remove(s->pass);
	free(s);
}

static struct entry *
find(struct images *s, const char *digest)
{
	struct entry *n;

	TAILQ_FOREACH_REVERSE (n, &s->entries, entry_list, link)
		if (!strcmp(n->digest, digest))
			break;
	return n;
}

const struct node_image *
images_use(struct images *s, const char *digest)
{
	struct entry *n = find(s, digest);

	if (!n || !n->ready)
		return NULL;
	n->uses++;
	touch(n);
	return &n->image;
}

void
images_unuse(struct images *s, const struct node_image *image)
{
	struct entry *n = (struct entry *)(uintptr_t)image;

	(void)s;
	if (!n)
		return;
	n->uses--;
	touch(n);
}

static struct entry *
entry_new(struct images *s, const char *digest, struct err *e)
{
	struct entry *n = blob_is_digest(digest) ? calloc(1, sizeof *n) : NULL;

	if (!n) {
		err_set(e, ERR_NODE, "image: out of memory");
		return NULL;
	}
	n->images = s;
	memcpy(n->digest, digest, sizeof n->digest);
	TAILQ_INIT(&n->waits);
	TAILQ_INSERT_TAIL(&s->entries, n, link);
	n->again = loop_timer_add(s->c.loop, on_again, n, e);
	if (n->again && !ask_about(n, KEEPER_HOLD, -1, e))
		return n;
	entry_free(n);
	return NULL;
}

struct image_wait *
images_fetch(struct images *s, const char *digest, image_fn fn, void *arg, struct err *e)
{
	struct image_wait *w = calloc(1, sizeof *w);
	struct entry *n = find(s, digest);

	if (!w) {
		err_set(e, ERR_NODE, "image: out of memory");
		return NULL;
	}
	if (!n)
		n = entry_new(s, digest, e);
	if (!n) {
		free(w);
		return NULL;
	}
	*w = (struct image_wait){ .fn = fn, .arg = arg, .entry = n };
	TAILQ_INSERT_TAIL(&n->waits, w, link);
	return w;
}

void
image_wait_cancel(struct image_wait *w)
{
	if (!w)
		return;
	w->fn = NULL; /* freed by settle, when that is at it */
	if (!w->entry)
		return;
	TAILQ_REMOVE(&w->entry->waits, w, link);
	free(w);
}

int
images_env(const struct node_image *image, struct env *env, struct err *e)
{
	for (char **p = image->env; *p; p++) {
		char *equals = strchr(*p, '='), *name;
		int rc;

		if (!equals || equals == *p || str_starts(*p, "HOME="))
			continue;
		name = strndup(*p, (size_t)(equals - *p));
		rc = name ? env_set(env, name, equals + 1, e) : err_set(e, ERR_NODE, "out of memory");
		free(name);
		if (rc)
			return -1;
	}
	return 0;
}
