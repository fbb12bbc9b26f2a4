/*
 * Making the spawner small: what a process that stays root may see and do.
 *
 * Mounts: its root is a tmpfs with the store, the runtimes, /usr (host image), what builds
 * were promised (/build/N), and /proc of its own pid namespace; all but /proc read-only.
 * Where sandboxes have network there are also an empty /dev, in which the process of an
 * uplink makes its tun, the links to the loader of the programs that it executes (nft,
 * slirp4netns, getent), and the three files of /etc that tell how names are looked up, as
 * they were at the start.
 * Few mounts also make every sandbox's copy of the mount namespace cheap.  The cgroup
 * directories are descriptors by then.
 *
 * Powers, and what each is for:
 *   SYS_ADMIN       namespaces (the machine's network for an uplink), mounts, writing id maps
 *   SETUID, SETGID  id maps of a range
 *   MKNOD           the devices of a sandbox's /dev; the tun of an uplink
 *   DAC_OVERRIDE    layers below directories of the driver's; the instance's cgroup, whose
 *                   parent may be mode 0555 (the top of a v1 hierarchy)
 *   CHOWN           only where older kernels make the caller mount the root: premount
 *   KILL            sandboxes, by pidfd, under ids that are not ours
 *   NET_ADMIN       loopback of network namespaces (the filler's)
 *   SYS_RESOURCE    where root has it: an oom_score_adj that the sandbox cannot lower
 *   SETPCAP         to give up others in what is forked
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/fdio.h"
#include "core/base/log.h"
#include "core/base/probe.h"
#include "core/base/caps.h"
#include "sandbox/cgroup.h"
#include "sandbox/sandbox.h"
#include "sandbox/spawner_process.h"
#include "sandbox/tree.h"
#include "sandbox/wire.h"

#define SAFE (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)

/* The driver's process executed us with the agreed descriptors; nothing else is kept. */
static int
take_descriptors(struct spawner_inside *in, struct err *e)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || close_range(SPAWNER_FD_END, ~0u, 0))
		return err_sys(e, ERR_NODE, "close what is not the spawner's");
	for (int fd = SPAWNER_FD_DRIVER; fd < SPAWNER_FD_END; fd++)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	in->host_netns = in->boot->build_network || in->boot->egress ? SPAWNER_FD_NETNS : -1;
	in->own_netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	return in->own_netns < 0 ? err_sys(e, ERR_NODE, "open the own network namespace") : 0;
}

/* Each sandbox has about a dozen descriptors here: pidfd, pipes, files of its cgroup. */
static int
take_files(const struct spawner_inside *in, struct err *e)
{
	const rlim_t each = 16, own = 128 + 2 * SANDBOX_LAYERS_MAX; /* of the one that is being made */
	const rlim_t need = own + each * (in->boot->slots + SPAWN_SPARE_MAX);
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return err_sys(e, ERR_NODE, "read the limit of open files");
	if (limit.rlim_max < need)
		return err_set(e, ERR_NODE,
			       "%u slots need %llu open files, and %llu are allowed (LimitNOFILE=)",
			       in->boot->slots, (unsigned long long)need,
			       (unsigned long long)limit.rlim_max);
	limit.rlim_cur = limit.rlim_max;
	return setrlimit(RLIMIT_NOFILE, &limit) ? err_sys(e, ERR_NODE, "raise the limit of open files")
						: 0;
}

static int
take_cgroups(struct spawner_inside *in, struct err *e)
{
	char number[16];
	int swept;

	in->cgroups = spawner_cgroups(in->boot->instance,
				      in->boot->cgroup_root[0] ? in->boot->cgroup_root : NULL, e);
	if (!in->cgroups)
		return -1;
	swept = cgroup_sweep(in->cgroups, e);
	if (swept < 0)
		return -1;
	if (swept > 0) {
		snprintf(number, sizeof number, "%d", swept);
		log_info("removed what an earlier spawner left", "cgroups", number, NULL);
	}
	return 0;
}

/* ---- Mounts ---- */

/* A copy of what path names, or the detached tree when that is not -1, at name below the
 * new root, with what is mounted below it. */
static int
place(int root, const char *name, int detached, const char *path, struct err *e)
{
	CLEAN_FD int tree = detached >= 0 ? fcntl(detached, F_DUPFD_CLOEXEC, 3)
					  : tree_clone(AT_FDCWD, path, true);
	struct stat st;

	if (tree < 0 || fstat(tree, &st) || tree_restrict(tree, SAFE | MOUNT_ATTR_RDONLY, true))
		return err_sys(e, ERR_NODE, "copy the mount of %s", path);
	if (S_ISDIR(st.st_mode) ? mkdirat(root, name, 0755) : mknodat(root, name, S_IFREG | 0444, 0))
		return err_sys(e, ERR_NODE, "make %s in the spawner's root", name);
	if (tree_attach_at(tree, root, name))
		return err_sys(e, ERR_NODE, "mount %s in the spawner's root", name);
	return 0;
}

/* A copy, for those who may not read the file itself: such as hold a password are root's alone. */
static int
place_copy(int root, const char *name, const char *path, struct err *e)
{
	struct buf text = { .max = BUILD_ENV_SETTINGS_MAX + 65536 };
	CLEAN_FD int fd = -1;
	int rc = file_slurp(AT_FDCWD, path, BUILD_ENV_SETTINGS_MAX, &text, e);

	if (rc == 0) {
		fd = openat(root, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
		if (fd < 0 || fd_write_all(fd, text.data, text.len))
			rc = err_sys(e, ERR_NODE, "copy %s", path);
	}
	if (text.data)
		explicit_bzero(text.data, text.cap);
	buf_free(&text);
	return rc;
}

static int
place_build(const struct spawner_inside *in, int root, struct err *e)
{
	char name[32];

	if (mkdirat(root, "build", 0755))
		return err_sys(e, ERR_NODE, "make build in the spawner's root");
	for (size_t i = 0; i < in->build.bind_count; i++) {
		snprintf(name, sizeof name, "build/%zu", i);
		if (in->build.binds[i].settings ? place_copy(root, name, in->build.binds[i].source, e)
						: place(root, name, -1, in->build.binds[i].source, e))
			return -1;
	}
	return 0;
}

/* The loader is asked for by its path in /lib or /lib64, which a merged /usr has as a link. */
static int
place_loader(int root, const char *name, struct err *e)
{
	char path[16], target[PATH_MAX];
	struct stat st;
	ssize_t n;

	snprintf(path, sizeof path, "/%s", name);
	if (lstat(path, &st))
		return 0;
	if (S_ISDIR(st.st_mode))
		return place(root, name, -1, path, e);
	n = readlink(path, target, sizeof target - 1);
	if (n < 0)
		return err_sys(e, ERR_NODE, "read the link %s", path);
	target[n] = '\0';
	return symlinkat(target, root, name) ? err_sys(e, ERR_NODE, "make %s in the spawner's root", name)
					     : 0;
}

static int
place_uplink(int root, struct err *e)
{
	static const char *const files[] = { "etc/resolv.conf", "etc/hosts", "etc/nsswitch.conf" };

	if (mkdirat(root, "dev", 0755) || mkdirat(root, "etc", 0755))
		return err_sys(e, ERR_NODE, "make dev and etc in the spawner's root");
	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
		char path[32], real[PATH_MAX];

		snprintf(path, sizeof path, "/%s", files[i]);
		if (realpath(path, real) && place(root, files[i], -1, real, e))
			return -1;
	}
	return place_loader(root, "lib", e) || place_loader(root, "lib64", e) ? -1 : 0;
}

static int
place_proc(int root, struct err *e)
{
	static const char *const none[] = { NULL };
	CLEAN_FD int proc = tree_new("proc", none, SAFE | MOUNT_ATTR_NOEXEC);

	if (proc < 0 || mkdirat(root, "proc", 0555) || tree_attach_at(proc, root, "proc"))
		return err_sys(e, ERR_NODE, "mount the spawner's /proc");
	return 0;
}

static int
enter_root(int root, struct err *e)
{
	if (fchdir(root) || syscall(SYS_pivot_root, ".", "."))
		return err_sys(e, ERR_NODE, "enter the spawner's root");
	/* The old root is on top of the new one. */
	if (umount2(".", MNT_DETACH) || chdir("/"))
		return err_sys(e, ERR_NODE, "take the machine's root away");
	return 0;
}

static int
take_mounts(struct spawner_inside *in, struct err *e)
{
	static const char *const options[] = { "mode", "0755", "size", "1m", NULL };
	CLEAN_FD int root = -1;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return err_sys(e, ERR_NODE, "make the mounts private");
	root = tree_new("tmpfs", options, SAFE);
	/* tmp: where sandboxes mount their scratch, each in its own namespace. */
	if (root < 0 || tree_attach_at(root, AT_FDCWD, "/") || mkdirat(root, "tmp", 0700))
		return err_sys(e, ERR_NODE, "mount the spawner's root");
	if (place(root, "store", SPAWNER_FD_STORE, "the store", e) || place(root, "runtimes", -1, in->boot->runtimes, e) ||
	    place(root, "usr", -1, "/usr", e) || place_build(in, root, e) || place_proc(root, e))
		return -1;
	if (in->host_netns >= 0 && place_uplink(root, e))
		return -1;
	if (enter_root(root, e))
		return -1;
	in->store = open("/store", O_PATH | O_DIRECTORY | O_CLOEXEC);
	in->runtimes = open("/runtimes", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (in->store < 0 || in->runtimes < 0)
		return err_sys(e, ERR_NODE, "open the store");
	return 0;
}

static int
check_host_image(const struct spawner_inside *in, struct err *e)
{
	struct sandbox_tree host = { .at = in->store, .path = "host/root", .strict = true };
	CLEAN_FD int fd = tree_open(&host);

	return fd < 0 ? err_sys(e, ERR_NODE, "the host image below the store (host/root)") : 0;
}

/* ---- Powers ---- */

static int
drop_powers(struct err *e)
{
	static const unsigned char keep[] = {
		CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID, CAP_MKNOD, CAP_DAC_OVERRIDE,
		CAP_KILL, CAP_NET_ADMIN, CAP_SYS_RESOURCE, CAP_SETPCAP,
	};
	uint64_t mask = 0;

	for (size_t i = 0; i < sizeof keep; i++)
		mask |= 1ull << keep[i];
	if (!probe_has(PROBE_TMPFS_XATTR))
		mask |= 1ull << CAP_CHOWN;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return err_sys(e, ERR_NODE, "forbid new privileges");
	return caps_keep(mask, e);
}

static void
reset_signals(void)
{
	sigset_t none;

	for (int sig = 1; sig < 32; sig++)
		if (sig != SIGKILL && sig != SIGSTOP)
			signal(sig, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* What is made ahead holds the machine's addresses of that moment. */
static int
watch_addresses(struct spawner_inside *in, struct err *e)
{
	const struct sockaddr_nl changes = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_IPV4_IFADDR };

	in->addresses = -1;
	if (in->host_netns < 0)
		return 0;
	if (setns(in->host_netns, CLONE_NEWNET))
		return err_sys(e, ERR_NODE, "enter the machine's network namespace");
	in->addresses = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (in->addresses < 0 ||
	    bind(in->addresses, (const struct sockaddr *)(const void *)&changes, sizeof changes))
		return err_sys(e, ERR_NODE, "watch the machine's addresses");
	if (setns(in->own_netns, CLONE_NEWNET))
		return err_sys(e, ERR_NODE, "return to the own network namespace");
	return 0;
}

int
spawner_setup(struct spawner_inside *in, struct err *e)
{
	reset_signals();
	prctl(PR_SET_NAME, "pratai-spawner");
	/* The starter may be gone already; the loop sees that by the end of the socket. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL))
		return err_sys(e, ERR_NODE, "ask for a death signal");
	if (take_descriptors(in, e) || take_files(in, e))
		return -1;
	umask(0);
	/* The machine's paths, while they can be seen. */
	if (in->boot->build_network && build_env_collect(&in->build, environ, getenv("HOME"), "/etc", e))
		return -1;
	if (take_cgroups(in, e) || take_mounts(in, e) || check_host_image(in, e))
		return -1;
	if (watch_addresses(in, e) || netpool_start(&in->nets, e))
		return -1;
	return drop_powers(e);
}
