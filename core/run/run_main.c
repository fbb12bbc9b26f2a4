/*
 * `pratai`: the sandbox alone (`pratai run`), and a door to everything else.
 *
 * This program is small on purpose: a program linked with curl and friends takes 8 ms to
 * start, more than a whole sandbox.  Any other command is handed to pratai-client, found
 * beside this program or in PREFIX/lib/pratai, by executing it with the same arguments.
 *
 * As root the sandbox has a range of host ids of its own (slots.h).  As an ordinary user it has that user's id, and no limits unless a
 * delegated cgroup allows them.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/fdio.h"
#include "core/base/probe.h"
#include "core/run/run.h"
#include "sandbox/report.h"
#include "sandbox/slots.h"

/* ---- Everything else is pratai-client's ---- */

static int
hand_over(char **argv)
{
	char self[PATH_MAX], path[PATH_MAX + 32];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	char *slash;

	if (n > 0) {
		self[n] = '\0';
		slash = strrchr(self, '/');
		*slash = '\0';
		snprintf(path, sizeof path, "%s/pratai-client", self);
		execv(path, argv);
		/* PREFIX/bin/pratai: moved as a whole, the tree still works. */
		snprintf(path, sizeof path, "%s/../lib/pratai/pratai-client", self);
		execv(path, argv);
	}
	execv(PRATAI_PREFIX "/lib/pratai/pratai-client", argv);
	fprintf(stderr, "pratai: cannot execute pratai-client: %s\n", strerror(errno));
	return 1;
}

/* ---- What must be had first ---- */

static int
take_group(struct run *r, struct err *e)
{
	char name[CGROUP_NAME_MAX];

	if (r->no_limits || (geteuid() != 0 && !r->limits_asked)) {
		memset(&r->spec.limits, 0, sizeof r->spec.limits);
		return 0;
	}
	if (geteuid() != 0 && !opt_given(&r->opts, "pids"))
		r->spec.limits.pids = 0;
	r->manager = cgroup_manager_new(CGROUP_INSTANCE_RUN, NULL, &r->spec.limits, e);
	if (!r->manager)
		return err_wrap(e, geteuid() ? "limits need a cgroup that this user may manage, or "
					       "--no-limits" : "cgroup");
	/* What a killed run left; its failure is not ours. */
	cgroup_sweep(r->manager, NULL);
	if (cgroup_run_name(name, e))
		return -1;
	r->spec.group = cgroup_begin(r->manager, name, e);
	return r->spec.group ? 0 : -1;
}

static int
print_plan(struct run *r, struct err *e)
{
	struct plan plan;

	/* Only what the plan asks about is needed: whether there will be a group. */
	if (!r->no_limits && (geteuid() == 0 || r->limits_asked))
		r->spec.group = (struct cgroup *)(void *)r;
	if (plan_make(&plan, &r->spec, probe_has(PROBE_TMPFS_XATTR), e))
		return -1;
	plan_print(&plan, &r->spec, stdout);
	r->spec.group = NULL;
	return fflush(stdout) ? err_sys(e, ERR_NODE, "write the plan") : 0;
}

/* ---- The end ---- */

static int
open_report(struct run *r)
{
	if (r->report_fd < 0 && !strcmp(r->report, "-"))
		r->report_fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	else if (r->report_fd < 0)
		r->report_fd = open(r->report, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	return r->report_fd < 0 ? -1 : 0;
}

static int
write_report(struct run *r, const struct sandbox_outcome *o)
{
	struct buf text = { 0 };
	struct err e = { 0 };
	int rc = 0;

	if (!r->report)
		return 0;
	if (open_report(r) ||
	    report_json(&text, o, r->io.output_bytes, r->reports_calls ? &r->watch : NULL) ||
	    fd_write_all(r->report_fd, text.data, text.len)) {
		err_sys(&e, ERR_INPUT, "--report %s", r->report);
		fprintf(stderr, "pratai run: %s\n", e.text);
		rc = -1;
	}
	buf_free(&text);
	return rc;
}

/* What the watch has seen: a line, a profile. */
static int
write_calls(struct run *r)
{
	bool deadly = !strcmp(opt_get(&r->opts, "seccomp"), "strict");
	struct buf text = { 0 };
	struct err e = { 0 };
	int rc = 0;

	if (r->reports_calls) {
		watch_put_refused(&r->watch, &text);
		fprintf(stderr, "pratai run: refused system calls: %s\n", text.data ? text.data : "?");
		buf_consume(&text, text.len);
	}
	if (r->learn) {
		rc = watch_put_profile(&r->watch, deadly, &text, &e);
		if (rc == 0 && ((ftruncate(r->learn_fd, 0) && errno != EINVAL) ||
				fd_write_all(r->learn_fd, text.data, text.len)))
			rc = err_sys(&e, ERR_INPUT, "write");
		if (rc)
			fprintf(stderr, "pratai run: --seccomp-learn %s: %s\n", r->learn, e.text);
	}
	buf_free(&text);
	return rc;
}

static void
explain(const struct run *r, const struct sandbox_outcome *o)
{
	const char *value = NULL, *what = NULL;

	if (o->reason == SANDBOX_TIMEOUT)
		what = "the time limit was reached", value = opt_get(&r->opts, "timeout");
	else if (o->reason == SANDBOX_MEMORY_EXCEEDED)
		what = "the memory limit was exceeded", value = opt_get(&r->opts, "memory");
	else if (o->reason == SANDBOX_OUTPUT_EXCEEDED)
		what = "the output limit was exceeded, output was cut", value = opt_get(&r->opts, "output-max");
	if (what)
		fprintf(stderr, "pratai run: %s (%s)\n", what, value ? value : "the machine's");
	else if (o->error.cls != ERR_NONE && o->error.step[0])
		fprintf(stderr, "pratai run: %s: %s\n", o->error.step, o->error.text);
	else if (o->error.cls != ERR_NONE)
		fprintf(stderr, "pratai run: %s\n", o->error.text);
}

static int
start_and_wait(struct run *r, struct sandbox_outcome *o, struct err *e)
{
	struct sandbox sb;
	int rc = -1;

	if (r->report && open_report(r)) {
		err_sys(e, ERR_INPUT, "--report %s", r->report);
		r->report = NULL; /* said once */
		return -1;
	}
	if (r->learn && (r->learn_fd = open(r->learn, O_WRONLY | O_CREAT | O_CLOEXEC, 0644)) < 0)
		return err_sys(e, ERR_INPUT, "--seccomp-learn %s", r->learn);
	/* From here on, so that the time of the setup counts. */
	if (r->timeout_ns)
		r->spec.deadline_ns = clock_mono_ns() + r->timeout_ns;
	if (sandbox_prepare_caller(e) || take_group(r, e))
		return -1;
	if (geteuid() == 0 && (r->slots = slots_take(&r->spec.uid_base, e)) < 0)
		goto out;
	if (run_io_open(&r->io, r->spec.stdio, e))
		goto out;
	if (sandbox_start(&sb, &r->spec, e))
		goto out;
	r->spec.group = NULL;
	run_io_started(&r->io);
	rc = run_supervise(&sb, &r->io, e);
	r->ran = rc == 0;
	*o = sb.outcome;
	sandbox_release(&sb);
	run_io_close(&r->io);
out:
	if (r->spec.group)
		cgroup_remove(r->spec.group, NULL);
	return rc;
}

static void
clean_up(struct run *r)
{
	cgroup_manager_free(r->manager);
	fd_close(&r->slots);
	fd_close(&r->store);
	fd_close(&r->report_fd);
	fd_close(&r->learn_fd);
	watch_close(&r->watch);
	filter_free(&r->filter);
	run_close_image(r);
	for (unsigned i = 0; i < r->owned_count; i++)
		free(r->owned[i]);
	opt_free(&r->opts);
}

static int
print_help(void)
{
	run_print_help();
	if (!fflush(stdout))
		return 0;
	fprintf(stderr, "pratai run: cannot write to stdout: %s\n", strerror(errno));
	return REPORT_EXIT_ERROR;
}

static int
run(int argc, char **argv)
{
	static struct run r; /* zero, and too large for a stack */
	struct sandbox_outcome o = { .reason = SANDBOX_SETUP_FAILED };
	int rc;

	r.slots = r.store = r.report_fd = r.learn_fd = r.watch.listener = -1;
	rc = fd_keep_standard(&o.error) || run_parse(&r, argc, argv, &o.error);
	if (rc == 0 && opt_given(&r.opts, "help"))
		return print_help();
	if (rc == 0)
		rc = run_read_options(&r, &o.error);
	if (rc == 0 && opt_given(&r.opts, "print-plan")) {
		rc = print_plan(&r, &o.error);
		if (rc == 0) {
			clean_up(&r);
			return 0;
		}
	} else if (rc == 0) {
		rc = start_and_wait(&r, &o, &o.error);
	}
	explain(&r, &o);
	rc = write_report(&r, &o) || (r.ran && write_calls(&r)) ? REPORT_EXIT_ERROR
								: report_exit_code(&o);
	clean_up(&r);
	return rc;
}

int
main(int argc, char **argv)
{
	if (argc < 2 || strcmp(argv[1], "run"))
		return hand_over(argv);
	return run(argc, argv);
}
