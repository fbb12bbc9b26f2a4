#include "sandbox/watch.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "sandbox/sandbox.h"
#include "sandbox/seccomp_run.h"

/* Questions at a time, before output and signals have their turn. */
enum { AT_ONCE = 64, ROOM = 512 };

static bool
is_allowed(uint32_t answer)
{
	uint32_t action = answer & SECCOMP_RET_ACTION_FULL;

	return action == SECCOMP_RET_ALLOW || action == SECCOMP_RET_LOG;
}

/* What cannot be answered for a filter, a signal that can be caught among it, stays its own. */
static bool
is_asked(uint32_t answer, bool learns)
{
	uint32_t action = answer & SECCOMP_RET_ACTION_FULL;

	return action == SECCOMP_RET_ERRNO || action == SECCOMP_RET_KILL_PROCESS ||
	       action == SECCOMP_RET_KILL_THREAD || (learns && is_allowed(answer));
}

int
watch_init(struct watch *w, const struct filter *filter, bool learns, struct err *e)
{
	size_t bytes = filter->length * sizeof *filter->code;

	w->filter = filter;
	w->learns = learns;
	w->listener = -1;
	for (unsigned i = 0; i < WATCH_NUMBERS; i++)
		w->first[i] = -1;
	w->asking.owned = w->asking.code = malloc(bytes);
	w->asking.length = filter->length;
	if (!w->asking.code)
		return err_set(e, ERR_NODE, "out of memory");
	memcpy(w->asking.code, filter->code, bytes);
	/* The third instruction ends other architectures' processes: their numbers are not ours. */
	for (unsigned i = 3; i < filter->length; i++) {
		struct sock_filter *f = &w->asking.code[i];

		if (f->code == (BPF_RET | BPF_K) && is_asked(f->k, learns))
			f->k = SECCOMP_RET_USER_NOTIF;
	}
	return 0;
}

void
watch_close(struct watch *w)
{
	if (w->listener >= 0)
		fd_close(&w->listener);
	w->over = true;
	filter_free(&w->asking);
}

/* ---- What was called ---- */

static const struct filter_call *
known_call(const struct watch *w, uint32_t number)
{
	for (unsigned i = 0; i < w->filter->call_count; i++)
		if (w->filter->calls[i].number == number)
			return &w->filter->calls[i];
	return NULL;
}

static void
note(struct watch *w, const struct seccomp_data *data, uint32_t answer)
{
	struct watch_call call = { .number = (uint32_t)data->nr, .answer = answer, .count = 1 };
	int *first = &w->first[call.number % WATCH_NUMBERS];
	const struct filter_call *known = w->learns ? known_call(w, call.number) : NULL;

	for (unsigned i = 0; known && i < FILTER_ARGS; i++)
		call.args[i] = data->args[i] & known->masks[i];
	for (int i = *first; i >= 0; i = w->calls[i].next)
		if (w->calls[i].number == call.number && w->calls[i].answer == answer &&
		    !memcmp(w->calls[i].args, call.args, sizeof call.args)) {
			w->calls[i].count++;
			return;
		}
	if (w->call_count == WATCH_CALLS_MAX) {
		w->lost++;
		return;
	}
	call.next = *first;
	*first = (int)w->call_count;
	w->calls[w->call_count++] = call;
}

/* ---- Questions and answers ---- */

static void
answer_one(struct watch *w)
{
	union {
		struct seccomp_notif n;
		char room[ROOM]; /* a later kernel may say more */
	} asked = { .room = { 0 } };
	union {
		struct seccomp_notif_resp r;
		char room[ROOM];
	} said = { .room = { 0 } };
	uint32_t answer;

	/* ENOENT: who asked is dead, or was interrupted and asks again. */
	if (ioctl(w->listener, SECCOMP_IOCTL_NOTIF_RECV, &asked))
		return;
	answer = seccomp_run(w->filter->code, w->filter->length, &asked.n.data);
	note(w, &asked.n.data, answer);
	said.r.id = asked.n.id;
	if (is_allowed(answer))
		said.r.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
	else if ((answer & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ERRNO)
		said.r.error = -(int)(answer & SECCOMP_RET_DATA);
	/* It is to die, and waits: its number is its own for as long as the question is open. */
	else if (asked.n.pid > 1 && !ioctl(w->listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &asked.n.id))
		kill((pid_t)asked.n.pid, SIGKILL);
	if (!said.r.flags && !said.r.error && (answer & SECCOMP_RET_ACTION_FULL) != SECCOMP_RET_ERRNO)
		said.r.error = -EPERM;
	ioctl(w->listener, SECCOMP_IOCTL_NOTIF_SEND, &said);
}

unsigned
watch_events(const struct watch *w, const struct sandbox *sb, struct pollfd *p)
{
	if (w->over || sb->state == SANDBOX_DONE || (w->listener < 0 && sb->go < 0))
		return 0;
	*p = (struct pollfd){ .fd = w->listener >= 0 ? w->listener : sb->go, .events = POLLIN };
	return 1;
}

void
watch_step(struct watch *w, const struct sandbox *sb, short revents)
{
	struct pollfd more = { .events = POLLIN };

	if (!revents || w->over)
		return;
	if (w->listener < 0) {
		w->listener = revents & POLLIN ? fd_receive(sb->go, MSG_DONTWAIT) : -1;
		w->over = w->listener < 0 && errno != EAGAIN;
		return;
	}
	more.fd = w->listener;
	for (unsigned i = 0; i < AT_ONCE && (revents & POLLIN); i++) {
		answer_one(w);
		revents = poll(&more, 1, 0) > 0 ? more.revents : 0;
	}
	if (revents & (POLLHUP | POLLERR) && !(revents & POLLIN)) {
		fd_close(&w->listener);
		w->over = true;
	}
}

/* ---- Results ---- */

static uint64_t
refused_count(const struct watch *w, uint32_t number)
{
	uint64_t count = 0;

	for (int i = w->first[number % WATCH_NUMBERS]; i >= 0; i = w->calls[i].next)
		if (w->calls[i].number == number && !is_allowed(w->calls[i].answer))
			count += w->calls[i].count;
	return count;
}

/* Whether this one stands for its number: the earliest of it that was refused. */
static bool
is_first_refused(const struct watch *w, unsigned at)
{
	if (is_allowed(w->calls[at].answer))
		return false;
	for (unsigned i = 0; i < at; i++)
		if (w->calls[i].number == w->calls[at].number && !is_allowed(w->calls[i].answer))
			return false;
	return true;
}

static void
put_refused(const struct watch *w, struct buf *out, const char *quote, const char *colon,
	    const char *comma)
{
	const char *between = "";

	for (unsigned i = 0; i < w->call_count; i++) {
		uint32_t number = w->calls[i].number;
		const struct filter_call *known = known_call(w, number);

		if (!is_first_refused(w, i))
			continue;
		if (known)
			buf_printf(out, "%s%s%s%s", between, quote, known->name, quote);
		else
			buf_printf(out, "%s%scall %" PRIu32 "%s", between, quote, number, quote);
		buf_printf(out, "%s%" PRIu64, colon, refused_count(w, number));
		between = comma;
	}
	if (w->lost > 0)
		buf_printf(out, "%s%sothers%s%s%" PRIu64, between, quote, quote, colon, w->lost);
}

void
watch_put_refused(const struct watch *w, struct buf *out)
{
	size_t before = out->len;

	put_refused(w, out, "", " ", ", ");
	if (out->len == before)
		buf_puts(out, "none");
}

void
watch_put_refused_json(const struct watch *w, struct buf *out)
{
	buf_puts(out, "{");
	put_refused(w, out, "\"", ":", ",");
	buf_puts(out, "}");
}

static bool
has_conditions(const struct filter_call *known)
{
	for (unsigned i = 0; i < FILTER_ARGS; i++)
		if (known->masks[i])
			return true;
	return false;
}

static void
put_action(struct buf *out, uint32_t answer)
{
	uint32_t action = answer & SECCOMP_RET_ACTION_FULL;

	if (action == SECCOMP_RET_ERRNO)
		buf_printf(out, "\"action\":\"SCMP_ACT_ERRNO\",\"errnoRet\":%u",
			   (unsigned)(answer & SECCOMP_RET_DATA));
	else if (action == SECCOMP_RET_LOG)
		buf_puts(out, "\"action\":\"SCMP_ACT_LOG\"");
	else
		buf_printf(out, "\"action\":\"SCMP_ACT_%s\"",
			   action == SECCOMP_RET_ALLOW ? "ALLOW" : "KILL_PROCESS");
}

/* All calls without conditions that have this answer, as one rule. */
static void
put_names(const struct watch *w, unsigned at, struct buf *out)
{
	const char *comma = "";

	buf_puts(out, ",\n\t\t{\"names\":[");
	for (unsigned i = at; i < w->call_count; i++) {
		const struct filter_call *known = known_call(w, w->calls[i].number);

		if (!known || has_conditions(known) || w->calls[i].answer != w->calls[at].answer)
			continue;
		buf_printf(out, "%s\"%s\"", comma, known->name);
		comma = ",";
	}
	buf_puts(out, "],");
	put_action(out, w->calls[at].answer);
	buf_puts(out, "}");
}

static void
put_conditional(const struct watch_call *call, const struct filter_call *known, struct buf *out)
{
	const char *comma = "";

	buf_printf(out, ",\n\t\t{\"names\":[\"%s\"],", known->name);
	put_action(out, call->answer);
	buf_puts(out, ",\"args\":[");
	for (unsigned i = 0; i < FILTER_ARGS; i++) {
		if (!known->masks[i])
			continue;
		buf_printf(out,
			   "%s{\"index\":%u,\"value\":%" PRIu64 ",\"valueTwo\":%" PRIu64
			   ",\"op\":\"SCMP_CMP_MASKED_EQ\"}",
			   comma, i, known->masks[i], call->args[i]);
		comma = ",";
	}
	buf_puts(out, "]}");
}

/* Whether an earlier call's rule has this one's name already. */
static bool
is_named(const struct watch *w, unsigned at)
{
	for (unsigned i = 0; i < at; i++) {
		const struct filter_call *known = known_call(w, w->calls[i].number);

		if (known && !has_conditions(known) && w->calls[i].answer == w->calls[at].answer)
			return true;
	}
	return false;
}

int
watch_put_profile(const struct watch *w, bool deadly, struct buf *out, struct err *e)
{
	struct buf rules = { 0 };

	if (w->lost > 0)
		return err_set(e, ERR_LIMIT, "more than %d different system calls", WATCH_CALLS_MAX);
	for (unsigned i = 0; i < w->call_count; i++) {
		const struct filter_call *known = known_call(w, w->calls[i].number);

		if (known && has_conditions(known))
			put_conditional(&w->calls[i], known, &rules);
		else if (known && !is_named(w, i))
			put_names(w, i, &rules);
	}
	buf_printf(out, "{\n\t\"defaultAction\":\"%s\",\n\t\"architectures\":[\"%s\"],\n\t\"syscalls\":[",
		   deadly ? "SCMP_ACT_KILL_PROCESS" : "SCMP_ACT_ERRNO",
#ifdef __x86_64__
		   "SCMP_ARCH_X86_64"
#else
		   "SCMP_ARCH_AARCH64"
#endif
	);
	if (rules.len > 0)
		buf_puts(out, rules.data + 1); /* without the first comma */
	buf_puts(out, "\n\t]\n}\n");
	out->failed = out->failed || rules.failed;
	buf_free(&rules);
	return out->failed ? err_set(e, ERR_NODE, "out of memory") : 0;
}
