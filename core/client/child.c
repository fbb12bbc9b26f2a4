#include "core/client/child.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/err.h"
#include "core/base/fdio.h"

/* Between fork and exec: async-signal-safe calls only. */
static void
become(char *const argv[], const int *keep, pid_t parent, int null_fd, int error_fd)
{
	sigset_t none;
	int error;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent) /* it died before the line above */
		_exit(1);
	setpgid(0, 0);
	for (int signo = 1; signo < NSIG; signo++)
		signal(signo, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	dup2(null_fd, STDIN_FILENO);
	dup2(STDERR_FILENO, STDOUT_FILENO);
	/* Also what was here before us, and what libraries opened (curl's wakeup sockets). */
	syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_CLOEXEC);
	for (int i = 0; i < CHILD_KEEP_MAX; i++)
		if (keep[i] > STDERR_FILENO)
			fcntl(keep[i], F_SETFD, 0);
	execv(argv[0], argv);
	error = errno;
	if (write(error_fd, &error, sizeof error) < 0)
		_exit(126);
	_exit(127);
}

pid_t
child_start(char *const argv[], const int keep[CHILD_KEEP_MAX], struct err *e)
{
	CLEAN_FD int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int pipe_fds[2], error = 0;
	ssize_t n;
	pid_t pid, self = getpid();

	if (null_fd < 0 || pipe2(pipe_fds, O_CLOEXEC))
		return err_sys(e, ERR_NODE, "cannot start %s", argv[0]);
	pid = fork();
	if (pid == 0)
		become(argv, keep, self, null_fd, pipe_fds[1]);
	if (pid < 0)
		err_sys(e, ERR_NODE, "cannot start %s", argv[0]);
	close(pipe_fds[1]);
	n = pid < 0 ? 0 : fd_read_all(pipe_fds[0], &error, sizeof error);
	close(pipe_fds[0]);
	if (n == (ssize_t)sizeof error) {
		waitpid(pid, NULL, 0);
		errno = error;
		return err_sys(e, ERR_NODE, "cannot execute %s", argv[0]);
	}
	return pid;
}
