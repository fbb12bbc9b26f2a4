#include "sandbox/filter.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "sandbox/seccomp.h"
#include "sandbox/seccomp_run.h"

#ifdef __x86_64__
#define ARCHITECTURE AUDIT_ARCH_X86_64
#else
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

enum { ANSWER_MAX = 1 << 18, HELPER_FAULT = 1, NO_HELPER = 127 };

/* Beside us, or where the rest of the tree is.  Returns only when it is nowhere. */
static void
exec_helper(const char *what)
{
	char self[PATH_MAX], path[PATH_MAX + 32];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	char *const argv[] = { "pratai-seccomp", (char *)(uintptr_t)what, NULL };
	char *const envp[] = { NULL };

	if (n > 0) {
		self[n] = '\0';
		*strrchr(self, '/') = '\0';
		snprintf(path, sizeof path, "%s/pratai-seccomp", self);
		execve(path, argv, envp);
		snprintf(path, sizeof path, "%s/../lib/pratai/pratai-seccomp", self);
		execve(path, argv, envp);
	}
	execve(PRATAI_PREFIX "/lib/pratai/pratai-seccomp", argv, envp);
}

/* Standard input is the profile; all that it writes to standard output is the answer. */
static int
ask_helper(const char *what, int input, struct buf *answer, struct err *e)
{
	CLEAN_FD int from = -1;
	int out[2], status, rc;
	pid_t pid;

	if (pipe2(out, O_CLOEXEC))
		return err_sys(e, ERR_NODE, "make a pipe");
	from = out[0];
	pid = fork();
	if (pid == 0) {
		if (dup2(input, STDIN_FILENO) < 0 || dup2(out[1], STDOUT_FILENO) < 0)
			_exit(NO_HELPER);
		exec_helper(what);
		_exit(NO_HELPER);
	}
	close(out[1]);
	if (pid < 0)
		return err_sys(e, ERR_AGAIN, "start pratai-seccomp");
	rc = fd_slurp(from, "pratai-seccomp", ANSWER_MAX, answer, e);
	fd_close(&from);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (rc)
		return -1;
	if (WIFEXITED(status) && WEXITSTATUS(status) == HELPER_FAULT)
		return err_set(e, ERR_INPUT, "%.*s", (int)strcspn(answer->data ? answer->data : "", "\n"),
			       answer->data ? answer->data : "");
	if (WIFEXITED(status) && WEXITSTATUS(status) == NO_HELPER)
		return err_set(e, ERR_NODE, "cannot execute pratai-seccomp");
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return err_set(e, ERR_NODE, "pratai-seccomp failed (wait status %#x)", (unsigned)status);
	return 0;
}

/* It is ours, and its output is checked all the same: it has read what others wrote. */
static int
take_answer(struct filter *f, struct buf *answer, struct err *e)
{
	struct filter_head head = { 0 };
	size_t code_bytes, call_bytes;
	char *data;

	if (answer->len >= sizeof head)
		memcpy(&head, answer->data, sizeof head);
	code_bytes = (size_t)head.length * sizeof(struct sock_filter);
	call_bytes = (size_t)head.call_count * sizeof(struct filter_call);
	if (head.magic != FILTER_MAGIC || head.length == 0 || head.length > BPF_MAXINSNS ||
	    head.call_count > FILTER_CALLS_MAX || answer->len != sizeof head + code_bytes + call_bytes)
		return err_set(e, ERR_NODE, "pratai-seccomp answered something else");
	f->owned = data = buf_steal(answer);
	f->code = (struct sock_filter *)(void *)(data + sizeof head);
	f->length = head.length;
	f->calls = (const struct filter_call *)(void *)(data + sizeof head + code_bytes);
	f->call_count = head.call_count;
	for (unsigned i = 0; i < f->call_count; i++)
		if (!memchr(f->calls[i].name, 0, sizeof f->calls[i].name))
			return err_set(e, ERR_NODE, "pratai-seccomp answered a name without an end");
	return 0;
}

/* Else the command could not start, and what it failed with could not be said. */
static int
check_start(const struct filter *f, const char *what, struct err *e)
{
	struct seccomp_data data = { .nr = SYS_execve, .arch = ARCHITECTURE };
	uint32_t action = seccomp_run(f->code, f->length, &data) & SECCOMP_RET_ACTION_FULL;

	if (action == SECCOMP_RET_ALLOW || action == SECCOMP_RET_LOG)
		return 0;
	return err_set(e, ERR_INPUT,
		       "--seccomp %.200s: it does not allow execve, which starts the command", what);
}

int
filter_load(struct filter *f, const char *what, bool watched, struct err *e)
{
	bool ours = !strcmp(what, "default") || !strcmp(what, "strict");
	struct buf answer = { .max = ANSWER_MAX };
	CLEAN_FD int input = -1;
	int rc;

	memset(f, 0, sizeof *f);
	if (ours && !watched) {
		f->code = (struct sock_filter *)(uintptr_t)seccomp_builtin(what, &f->length);
		return 0;
	}
	input = open(ours ? "/dev/null" : what, O_RDONLY | O_NOCTTY | O_CLOEXEC);
	if (input < 0)
		return err_sys(e, ERR_INPUT, "--seccomp %.200s", what);
	/* A file called like that is ./strict, whose word here is any other. */
	rc = ask_helper(ours ? what : "file", input, &answer, e);
	if (rc)
		err_wrap(e, "--seccomp %.200s", what);
	if (rc == 0)
		rc = take_answer(f, &answer, e) || check_start(f, what, e) ? -1 : 0;
	buf_free(&answer);
	return rc;
}

void
filter_free(struct filter *f)
{
	free(f->owned);
	memset(f, 0, sizeof *f);
}
