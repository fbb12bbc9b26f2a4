/*
 * The code of functions that were deleted and of versions that were superseded goes, and the
 * dependencies that only they had, a while after nothing can need it any more: first the
 * documents, then the blobs that only they named.  Each pass begins anew from what the store
 * says, so that a kill in between costs nothing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/log.h"
#include "core/base/str.h"
#include "core/scheduler/internal.h"
#include "netio/loop.h"

/* A start adopts builds of before, whose layers nothing names yet: the first pass comes when
 * that is long over.  Between a blob and the document that names it are seconds.  The last
 * versions before the serving one stay, so that its owner can look back. */
enum { PASS_S = 600, YOUNG_S = 3600, KEEP_VERSIONS = 10 };
/* Who uploads an image has so much longer than that to name it. */
enum { UPLOAD_S = 23 * 3600 };

static void
on_swept(void *arg, const struct store_answer *a, const struct err *e)
{
	char count[24];

	(void)arg;
	if (e) {
		log_err("packages and layers that nobody needs could not be removed", e);
	} else if (a->len) {
		snprintf(count, sizeof count, "%zu", a->len);
		log_info("removed packages and layers that nobody needs", "count", count, NULL);
	}
}

struct pass {
	struct scheduler *s;
	int64_t before_us;
};

static void
on_unused(void *arg, const struct store_answer *a, const struct err *e)
{
	struct pass *pass = arg;
	struct scheduler *s = pass->s;

	if (e)
		log_err("versions that nobody needs could not be found", e);
	for (size_t i = 0; !e && i < a->doc_count; i++) {
		store_doc_delete(s->config.store, a->docs[i].kind, a->docs[i].id, NULL, NULL);
		if (a->docs[i].kind != STORE_VERSION)
			continue;
		store_doc_delete(s->config.store, STORE_BUILD, a->docs[i].id, NULL, NULL);
		version_forget(s, a->docs[i].id);
	}
	store_upload_expire(s->config.store, pass->before_us - UPLOAD_S * US_PER_S, NULL, NULL);
	store_blob_sweep(s->config.store, pass->before_us, on_swept, s);
	free(pass);
}

void
scheduler_remove_unused(struct scheduler *s, int64_t before_us, unsigned keep)
{
	struct pass *pass = malloc(sizeof *pass);

	if (!pass)
		return;
	pass->s = s;
	pass->before_us = before_us;
	store_version_unused(s->config.store, before_us, keep, on_unused, pass);
}

static void
on_pass(void *arg)
{
	struct scheduler *s = arg;

	scheduler_remove_unused(s, clock_real_us() - YOUNG_S * US_PER_S, KEEP_VERSIONS);
	loop_timer_after(s->unused, PASS_S * NS_PER_S);
}

int
scheduler_watch_unused(struct scheduler *s, struct err *e)
{
	s->unused = loop_timer_add(s->config.loop, on_pass, s, e);
	if (s->unused)
		loop_timer_after(s->unused, PASS_S * NS_PER_S);
	return s->unused ? 0 : -1;
}
