/*
 * The floor: what the kernel alone asks for one sandbox, step by step, with nothing of
 * ours around it.  As root:
 *
 *   floor ROOT           prints the names of its steps, one line of JSON
 *
 * then answers each line "STEP COUNT" on standard input (COUNT at once) by a line of JSON,
 * {"us": [...]}: for each process from just before the clone until it has been waited for.
 * Each step is the one before plus something.  Its mounts are few, as the spawner's are:
 * the copy of a long table is not the floor.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { AT_ONCE_MAX = 256 };

static uint64_t
now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static void
must(int ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
	_exit(1);
}

/* A root of few mounts: a tmpfs, the image at /root, and /proc. */
static void
enter_root(const char *root)
{
	char image[64];
	int fd;

	must(!unshare(CLONE_NEWNS) && !mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), "unshare");
	must((fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC)) >= 0, root);
	must(!mount("tmpfs", "/tmp", "tmpfs", 0, "size=1m,mode=755"), "tmpfs");
	must(!mkdir("/tmp/root", 0755) && !mkdir("/tmp/mnt", 0755) && !mkdir("/tmp/proc", 0755) &&
		     !mkdir("/tmp/old", 0755), "mkdir");
	must(!mount("/proc", "/tmp/proc", NULL, MS_BIND | MS_REC, NULL), "/proc");
	snprintf(image, sizeof image, "/proc/self/fd/%d", fd);
	must(!mount(image, "/tmp/root", NULL, MS_BIND, NULL), root);
	close(fd);
	must(!chdir("/tmp") && !syscall(SYS_pivot_root, ".", "old"), "pivot_root");
	must(!chdir("/") && !umount2("/old", MNT_DETACH), "umount");
}

static void
make_root(void)
{
	must(!mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), "private mounts");
	must(!mount("tmpfs", "/mnt", "tmpfs", 0, "size=16m,mode=700"), "tmpfs");
	must(!mkdir("/mnt/u", 0755) && !mkdir("/mnt/w", 0755) && !mkdir("/mnt/m", 0755), "mkdir");
	must(!mount("overlay", "/mnt/m", "overlay", 0,
		    "lowerdir=/root,upperdir=/mnt/u,workdir=/mnt/w,userxattr"), "overlay");
	must(!chdir("/mnt/m") && (!mkdir("old", 0755) || errno == EEXIST) &&
		     (!mkdir("proc", 0755) || errno == EEXIST), "prepare");
	must(!mount("proc", "proc", "proc", 0, NULL), "proc");
	must(!syscall(SYS_pivot_root, ".", "old"), "pivot_root");
	must(!chdir("/") && !umount2("/old", MNT_DETACH), "umount");
}

enum { WITH_ROOT = 1, WITH_EXEC = 2 };
#define FEW (CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWUSER | CLONE_NEWCGROUP)

static const struct {
	const char *name;
	uint64_t flags;
	int what;
} steps[] = {
	{ "clone, exit", 0, 0 },
	{ "+ pid, ipc, uts, cgroup, user namespaces", FEW, 0 },
	{ "+ mount namespace", FEW | CLONE_NEWNS, 0 },
	{ "+ tmpfs, overlay, proc, pivot_root", FEW | CLONE_NEWNS, WITH_ROOT },
	{ "+ exec of a static binary", FEW | CLONE_NEWNS, WITH_ROOT | WITH_EXEC },
	{ "+ network namespace", FEW | CLONE_NEWNS | CLONE_NEWNET, WITH_ROOT | WITH_EXEC },
};
enum { STEPS = sizeof steps / sizeof steps[0] };

static void
write_map(pid_t pid, const char *file)
{
	char path[64];
	int fd;

	snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	must(fd >= 0 && write(fd, "0 0 65536", 9) == 9, path);
	close(fd);
}

static pid_t
start(unsigned step)
{
	struct clone_args args = { .flags = steps[step].flags, .exit_signal = SIGCHLD };
	int go[2], what = steps[step].what;
	char byte;
	long pid;

	must(!pipe2(go, O_CLOEXEC), "pipe");
	pid = syscall(SYS_clone3, &args, sizeof args);
	must(pid >= 0, "clone3");
	if (pid == 0) {
		if ((args.flags & CLONE_NEWUSER) && read(go[0], &byte, 1) != 1)
			_exit(1);
		if (what & WITH_ROOT)
			make_root();
		if (what & WITH_EXEC)
			execl("/bin/true", "true", NULL);
		_exit(what & WITH_EXEC ? 1 : 0);
	}
	if (args.flags & CLONE_NEWUSER) {
		write_map((pid_t)pid, "uid_map");
		write_map((pid_t)pid, "gid_map");
		must(write(go[1], "g", 1) == 1, "go");
	}
	close(go[0]);
	close(go[1]);
	return (pid_t)pid;
}

static void
burst(unsigned step, unsigned count)
{
	static uint64_t begun[AT_ONCE_MAX], took[AT_ONCE_MAX];
	static pid_t pids[AT_ONCE_MAX];

	for (unsigned i = 0; i < count; i++) {
		begun[i] = now_ns();
		pids[i] = start(step);
	}
	for (unsigned left = count; left; left--) {
		int status;
		pid_t pid = wait(&status);

		must(pid > 0 && status == 0, "a child failed");
		for (unsigned i = 0; i < count; i++)
			if (pids[i] == pid)
				took[i] = now_ns() - begun[i];
	}
	printf("{\"us\": [");
	for (unsigned i = 0; i < count; i++)
		printf("%s%.1f", i ? ", " : "", (double)took[i] / 1e3);
	printf("]}\n");
	fflush(stdout);
}

int
main(int argc, char **argv)
{
	unsigned step, count;
	char line[64];

	if (argc != 2) {
		fprintf(stderr, "usage: floor ROOT\n");
		return 2;
	}
	printf("[");
	for (unsigned s = 0; s < STEPS; s++)
		printf("%s\"%s\"", s ? ", " : "", steps[s].name);
	printf("]\n");
	fflush(stdout);
	enter_root(argv[1]);
	while (fgets(line, sizeof line, stdin)) {
		if (sscanf(line, "%u %u", &step, &count) != 2 || step >= STEPS || count == 0 ||
		    count > AT_ONCE_MAX)
			return 2;
		burst(step, count);
	}
	return 0;
}
