/*
 * The floor: what the kernel alone asks for one sandbox, step by step, with nothing of
 * ours around it.  Prints JSON: {"step": [p50_us, p99_us], ...}.  As root.
 *
 * Each step is the one before plus something; its cost is the difference.  Between runs
 * there is a pause, since some costs (RCU grace periods) hide in hot loops.
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

enum { RUNS_MAX = 10000 };

static const char *root;

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

static void
make_root(void)
{
	char options[512];

	must(!mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), "private mounts");
	must(!mount("tmpfs", "/mnt", "tmpfs", 0, "size=16m,mode=700"), "tmpfs");
	must(!mkdir("/mnt/u", 0755) && !mkdir("/mnt/w", 0755) && !mkdir("/mnt/m", 0755), "mkdir");
	snprintf(options, sizeof options, "lowerdir=%s,upperdir=/mnt/u,workdir=/mnt/w,userxattr", root);
	must(!mount("overlay", "/mnt/m", "overlay", 0, options), "overlay");
	must(!chdir("/mnt/m") && (!mkdir("old", 0755) || errno == EEXIST) &&
		     (!mkdir("proc", 0755) || errno == EEXIST), "prepare");
	must(!mount("proc", "proc", "proc", 0, NULL), "proc");
	must(!syscall(SYS_pivot_root, ".", "old"), "pivot_root");
	must(!chdir("/") && !umount2("/old", MNT_DETACH), "umount");
}

enum { WITH_ROOT = 1, WITH_EXEC = 2 };

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

static uint64_t
one(uint64_t flags, int what)
{
	struct clone_args args = { .flags = flags, .exit_signal = SIGCHLD };
	uint64_t start = now_ns();
	int go[2], status;
	char byte;
	long pid;

	must(!pipe2(go, O_CLOEXEC), "pipe");
	pid = syscall(SYS_clone3, &args, sizeof args);
	must(pid >= 0, "clone3");
	if (pid == 0) {
		if ((flags & CLONE_NEWUSER) && read(go[0], &byte, 1) != 1)
			_exit(1);
		if (what & WITH_ROOT)
			make_root();
		if (what & WITH_EXEC)
			execl("/bin/true", "true", NULL);
		_exit(what & WITH_EXEC ? 1 : 0);
	}
	if (flags & CLONE_NEWUSER) {
		write_map((pid_t)pid, "uid_map");
		write_map((pid_t)pid, "gid_map");
		must(write(go[1], "g", 1) == 1, "go");
	}
	must(waitpid((pid_t)pid, &status, 0) == pid && status == 0, "a child failed");
	close(go[0]);
	close(go[1]);
	return now_ns() - start;
}

static int
compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

int
main(int argc, char **argv)
{
	static uint64_t times[8][RUNS_MAX];
	static const struct {
		const char *name;
		uint64_t flags;
		int what;
	} steps[] = {
		{ "clone, exit", 0, 0 },
		{ "+ pid, ipc, uts, user namespaces",
		  CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWUSER, 0 },
		{ "+ mount namespace",
		  CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWUSER | CLONE_NEWNS, 0 },
		{ "+ tmpfs, overlay, proc, pivot_root",
		  CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWUSER | CLONE_NEWNS, WITH_ROOT },
		{ "+ exec of a static binary",
		  CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWUSER | CLONE_NEWNS,
		  WITH_ROOT | WITH_EXEC },
		{ "+ network namespace",
		  CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET,
		  WITH_ROOT | WITH_EXEC },
	};
	enum { STEPS = sizeof steps / sizeof steps[0] };
	struct timespec pause = { 0, 2000000 };
	int runs;

	if (argc != 3 || (runs = (int)strtol(argv[2], NULL, 10)) < 1 || runs > RUNS_MAX) {
		fprintf(stderr, "usage: floor ROOT RUNS\n");
		return 2;
	}
	root = argv[1];
	/* Mounts of ours alone: the copy of a long table is not the floor. */
	must(!unshare(CLONE_NEWNS), "unshare");
	for (int run = 0; run < runs; run++)
		for (int s = 0; s < STEPS; s++) {
			times[s][run] = one(steps[s].flags, steps[s].what);
			nanosleep(&pause, NULL);
		}
	printf("{");
	for (int s = 0; s < STEPS; s++) {
		qsort(times[s], (size_t)runs, sizeof times[s][0], compare);
		printf("%s\"%s\": [%.1f, %.1f]", s ? ", " : "", steps[s].name,
		       (double)times[s][runs / 2] / 1e3, (double)times[s][runs * 99 / 100] / 1e3);
	}
	printf("}\n");
	return 0;
}
