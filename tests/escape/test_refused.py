"""Each system call and file that a sandbox must refuse, with its exact errno or signal, by `pratai
run` as root and as an ordinary user and through the spawner; and the control: outside, each fares
otherwise.

Outside is root in namespaces made for it, so that nothing of the machine is changed.
"""
import ctypes
import os
import subprocess

import pytest

from conftest import PROBE, call

LANDLOCK = (ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1) > 0 and
            "landlock" not in os.environ.get("PRATAI_DISABLE", ""))

# By the ids of the project's list of attacks.  What has no "=" is EPERM.
REFUSED = {
    "E01_cve_2019_5736": "init_exe=ENOENT init_mem=ENOENT init_maps=ENOENT",
    "E02_cve_2024_21626": "init_fd=ENOENT init_cwd=ENOENT init_root=ENOENT init_ns=ENOENT",
    "K01": "mount umount fsopen fsconfig fsmount fspick open_tree move_mount mount_setattr "
           "pivot_root chroot",
    "K02": "setns clone3=ENOSYS unshare_mount unshare_net unshare_pid unshare_uts unshare_ipc "
           "unshare_cgroup unshare_time clone_mount sethostname setdomainname",
    "K03": "unshare_user clone_user",
    "K04": "ptrace process_vm_readv process_vm_writev process_madvise process_mrelease "
           "pidfd_getfd kcmp",
    "K05": "keyctl add_key request_key",
    "K06": "bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register "
           "io_setup=ENOSYS",
    "K07": "kexec_load kexec_file_load init_module finit_module delete_module reboot swapon swapoff "
           "acct quotactl iopl ioperm syslog settimeofday clock_settime clock_adjtime adjtimex "
           "syncfs modify_ldt=ENOSYS",
    "K08": "open_by_handle_at name_to_handle_at fanotify_init fanotify_mark",
    "K09": "alg=EAFNOSUPPORT vsock=EAFNOSUPPORT netlink=EAFNOSUPPORT packet=EAFNOSUPPORT raw "
           "bluetooth=EAFNOSUPPORT tipc=EAFNOSUPPORT rds=EAFNOSUPPORT key=EAFNOSUPPORT "
           "xdp=EAFNOSUPPORT mptcp=EPROTONOSUPPORT sctp=EPROTONOSUPPORT inet_pair=EAFNOSUPPORT",
    "K10": "personality no_randomize",
    "K11": "int80=SIGSYS x32=ENOSYS",
    "K12_cve_2019_10063": "tiocsti tiocsti_high tioclinux tioclinux_high tiocsetd",
    "K13": "listener",
    "K14": "set_mm set_ptracer capbset_drop ambient securebits",
    "K15_cve_2022_0847": "vmsplice=ENOSYS splice=ENOSYS tee=ENOSYS sendfile=ENOSYS",
    "page_cache_of_others": "mbind=ENOSYS migrate_pages=ENOSYS memfd_secret=ENOSYS "
                            "cachestat=ENOSYS",
    "P01": "init_environ=ENOENT core_pattern=EACCES drop_caches=EACCES",
    "P02_cve_2022_0492": "mount_cgroup cgroupfs=ENOENT firmware=ENOENT kmsg=EACCES",
    "P03": "remount",
    "P05": "mknod=MKNOD mknod_block=MKNOD",
}
# EACCES is landlock's.
WANT = {a: {v: {"MKNOD": "EACCES" if LANDLOCK else "EPERM"}.get(r or "EPERM", r or "EPERM")
            for v, _, r in (w.partition("=") for w in words.split())}
        for a, words in REFUSED.items()}
# To ask for such a socket makes the kernel load a module.
LOADS = "vsock", "bluetooth", "tipc", "rds", "key", "xdp", "sctp", "alg"


def parse(text):
    return dict(line.split() for line in text.splitlines())


def outside(verbs):
    program = os.open(PROBE, os.O_RDONLY)
    script = 'mount -t tmpfs -o dev none /tmp && exec "$@"'
    p = subprocess.run(["unshare", "-m", "-i", "-n", "-u", "--propagation", "private", "/bin/sh", "-c",
                        script, "sh", f"/proc/self/fd/{program}", *verbs], stdin=subprocess.DEVNULL,
                       capture_output=True, text=True, timeout=60, pass_fds=[program], check=True)
    os.close(program)
    return parse(p.stdout)


@pytest.mark.parametrize("attack", WANT)
@pytest.mark.parametrize("way", ["root", "uid 0", "user", "spawner"], indirect=True)
def test_refused(way, attack):
    r = call(way, "/bin/probe", *WANT[attack])
    assert (r.code, parse(r.out)) == (0, WANT[attack]), r.err


@pytest.mark.parametrize("verb", [v for want in WANT.values() for v in want])
def test_outside(run, verb):
    if verb in LOADS:
        pytest.skip("outside, this would load a kernel module")
    want = next(w[verb] for w in WANT.values() if verb in w)
    said = outside([verb])[verb]
    if said in ("ENOSYS", "EPERM", "ENOENT") and said == want:
        pytest.skip("this kernel or machine refuses it to everybody")
    assert said != want
