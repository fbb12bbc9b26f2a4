"""`pratai run --seccomp`, --seccomp-report and --seccomp-learn: lists, profiles, what was called."""
import errno
import json
import os
import platform
import shutil
import signal
import subprocess

import pytest

from conftest import BUILD, PRATAI, inside, probe, wait_for

MOUNT = "attempt('mount', lambda: call(165, 0, 0, 0, 0, 0))\n"
REFUSED = "pratai run: refused system calls: "

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86_64")


def profile(tmp, value, name="profile.json"):
    path = tmp / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def allow_all(*rules, **more):
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list(rules), **more}


def errno_rule(name, number, **more):
    return {"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": number, **more}


# ---- strict ----

def test_strict_runs_ordinary_programs(run):
    r = run.python("import json, socket, subprocess, sqlite3, tempfile, threading\n"
                   "t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()\n"
                   "subprocess.run(['/bin/sh', '-c', 'ls / >/dev/null; echo child'], check=True)\n"
                   "with tempfile.NamedTemporaryFile() as f: f.write(b'x')\n"
                   "a, b = socket.socketpair(); a.send(b'x'); b.recv(1)\n"
                   "sqlite3.connect('/tmp/x').execute('create table t (x)')\n",
                   "--seccomp", "strict")
    assert (r.code, sorted(r.out.split())) == (0, ["child", "thread"]), r.err
    assert run.sh("echo $((1 + 1)) | cat", "--seccomp", "strict").out == "2\n"


def test_strict_ends_who_tries_what_is_refused(run):
    assert inside(run, MOUNT)["mount"] == "EPERM"
    r = run.python(probe(MOUNT), "--seccomp", "strict")
    assert (r.code, r.report["reason"], r.report["signal"]) == (159, "signaled", signal.SIGSYS)
    # What is only asked for is not the end; the default has it.
    text = "attempt('seteuid', lambda: call(113, 1000, 1000))\n"
    assert inside(run, text)["seteuid"] == "OK"
    assert inside(run, text, "--seccomp", "strict")["seteuid"] == "ENOSYS"


# ---- profiles ----

def test_a_profile_is_in_place_of_the_default(run, tmp):
    text = "attempt('keyctl', lambda: call(250, 0, -4, 0))\nattempt('mkdir', lambda: os.mkdir('/tmp/x'))\n"
    assert inside(run, text) == {"keyctl": "EPERM", "mkdir": "OK"}
    path = profile(tmp, allow_all(errno_rule("mkdir", errno.EDOM)))
    found = inside(run, text, "--seccomp", path)
    assert found["mkdir"] == "EDOM" and found["keyctl"] != "EPERM"


def test_the_rest_of_the_sandbox_holds_whatever_a_profile_allows(run, tmp):
    status = run("--seccomp", profile(tmp, allow_all()), argv=["/bin/cat", "/proc/self/status"])
    fields = dict(line.split(":\t", 1) for line in status.out.splitlines())
    assert fields["NoNewPrivs"] == "1" and fields["Seccomp"] == "2"
    assert {fields[c] for c in ("CapEff", "CapPrm", "CapBnd")} == {"0" * 16}
    text = MOUNT + "attempt('unshare', lambda: call(272, 0x10000000))\n"
    found = inside(run, text, "--seccomp", tmp / "profile.json")
    assert found["mount"] in ("EPERM", "EFAULT") and found["unshare"] in ("EPERM", "ENOSPC")


def test_x32_is_never_let_through(run, tmp):
    path = profile(tmp, allow_all(errno_rule("getpid", errno.EDOM)))
    found = inside(run, "attempt('own', lambda: call(39))\nattempt('x32', lambda: call(0x40000000 | 39))\n",
                   "--seccomp", path)
    assert found == {"own": "EDOM", "x32": "ENOSYS"}


# (operator, value, valueTwo) and, of values of the argument, those for which it holds.
BIG = 1 << 63
VALUES = [0, 1, 7, 8, 9, 0xffffffff, 1 << 32, (1 << 32) + 8, (1 << 53) + 1, BIG, BIG + 8, (1 << 64) - 1]
OPERATORS = [
    ("NE", 8, 0, lambda v: v != 8), ("EQ", 8, 0, lambda v: v == 8), ("LT", 8, 0, lambda v: v < 8),
    ("LE", 8, 0, lambda v: v <= 8), ("GE", 8, 0, lambda v: v >= 8), ("GT", 8, 0, lambda v: v > 8),
    ("EQ", (1 << 53) + 1, 0, lambda v: v == (1 << 53) + 1),
    ("GT", (1 << 32) + 8, 0, lambda v: v > (1 << 32) + 8),
    ("LE", BIG, 0, lambda v: v <= BIG), ("LT", (1 << 64) - 1, 0, lambda v: v < (1 << 64) - 1),
    ("MASKED_EQ", 9, 8, lambda v: v & 9 == 8),
    ("MASKED_EQ", BIG | 8, BIG | 8, lambda v: v & (BIG | 8) == BIG | 8),
]


@pytest.mark.parametrize("op,value,two,holds", OPERATORS, ids=lambda o: None if callable(o) else str(o))
def test_operators(run, tmp, op, value, two, holds):
    """Judged in the kernel: a getpid with that argument fails, or does not."""
    path = profile(tmp, allow_all(errno_rule("getpid", errno.EDOM, args=[
        {"index": 1, "value": value, "valueTwo": two, "op": "SCMP_CMP_" + op}])))
    text = "for v in %r:\n    attempt(str(v), lambda: call(39, 0, ctypes.c_uint64(v)))\n" % VALUES
    found = inside(run, text, "--seccomp", path)
    assert found == {str(v): "EDOM" if holds(v) else "OK" for v in VALUES}


def test_conditions_hold_together_unless_they_are_of_one_argument(run, tmp):
    def eq(index, value):
        return {"index": index, "value": value, "op": "SCMP_CMP_EQ"}
    path = profile(tmp, allow_all(errno_rule("getpid", errno.EDOM, args=[eq(0, 1), eq(2, 3)]),
                                  errno_rule("getpid", errno.EXDEV, args=[eq(1, 1), eq(1, 2)])))
    text = "".join("attempt(%r, lambda: call(39, *%r))\n" % (str(a), a) for a in
                   [(1, 0, 3), (1, 0, 0), (0, 0, 3), (0, 1, 0), (0, 2, 0), (0, 3, 0), (1, 1, 3)])
    assert list(inside(run, text, "--seccomp", path).values()) == [
        "EDOM", "OK", "OK", "EXDEV", "EXDEV", "OK", "EDOM"]


def large_profile():
    """As container engines have it: an allow-list with 380 names, some of them of other
    architectures, conditions, capabilities, kernels."""
    p = subprocess.run([str(PRATAI), "run", "--seccomp-learn", "/dev/null", "--", "/bin/true"],
                       capture_output=True, check=False)
    assert p.returncode == 0, p.stderr
    names = """accept accept4 access adjtimex alarm arch_prctl arm_fadvise64_64 bind brk cachestat
        capget capset chdir chmod chown chown32 clock_adjtime clock_getres clock_getres_time64
        clock_gettime clock_gettime64 clock_nanosleep close close_range connect copy_file_range creat
        dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd
        eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fchdir fchmod fchmodat
        fchmodat2 fchown fcntl fcntl64 fdatasync fgetxattr flock fork fstat fstat64 fstatfs fsync
        ftruncate futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake getcpu getcwd
        getdents getdents64 getegid getegid32 geteuid getgid getgroups getitimer getpgid getpid getppid
        getrandom getresgid getresuid getrlimit get_robust_list getrusage getsid getsockname getsockopt
        get_thread_area gettid gettimeofday getuid getxattr io_setup ioctl ipc kill lchown listen lseek
        _llseek lstat lstat64 madvise map_shadow_stack membarrier memfd_create mincore mkdir mmap mmap2
        modify_ldt mprotect mseal munmap nanosleep newfstatat _newselect open openat openat2 pause pipe
        pipe2 poll ppoll prctl pread64 prlimit64 pselect6 pwrite64 read readlink readlinkat readv
        recvfrom recvmsg rename renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction
        rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigtimedwait sched_getaffinity sched_yield select
        sendfile sendmmsg sendmsg sendto set_robust_list set_tid_address set_tls setgid setgroups
        setitimer setpgid setresgid setresuid setsid setsockopt setuid shutdown sigaltstack sigreturn
        socketcall socketpair splice stat stat64 statfs statx symlink sync sync_file_range2 sysinfo tgkill
        time timer_create timerfd_create times truncate ugetrlimit umask uname unlink unlinkat uretprobe
        utime vfork wait4 waitid waitpid write writev""".split()
    personality = [{"names": ["personality"], "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 0, "value": v, "op": "SCMP_CMP_EQ"}]} for v in (0, 8, 0x20000)]
    return {
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64",
                     "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
                    {"architecture": "SCMP_ARCH_S390X", "subArchitectures": ["SCMP_ARCH_S390"]}],
        "syscalls": [
            {"names": names, "action": "SCMP_ACT_ALLOW"},
            {"names": ["process_vm_readv"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["process_vm_writev"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}},
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]},
            *personality,
            {"names": ["s390_pci_mmio_read"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390"]}},
            {"names": ["mount", "setns"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "comment": "no namespaces",
             "args": [{"index": 0, "value": 2114060288, "op": "SCMP_CMP_MASKED_EQ"}],
             "excludes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["s390", "s390x"]}},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "errno": "ENOSYS",
             "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        ],
    }


def test_the_profile_of_a_container_engine(run, tmp):
    path = profile(tmp, large_profile())
    text = (MOUNT + "attempt('clone3', lambda: call(435, 0, 0))\n"
            "attempt('newer', lambda: call(999))\n"
            "attempt('vsock', lambda: socket.socket(40, 1))\n"
            "attempt('unix', lambda: socket.socket(1, 1))\n"
            "attempt('personality', lambda: call(135, 0x20000))\n"
            "attempt('other', lambda: call(135, 0x40000))\n"
            "attempt('readv', lambda: call(310, -1, 0, 0, 0, 0, 1))\n"
            "attempt('writev', lambda: call(311, -1, 0, 0, 0, 0, 1))\n"
            "attempt('namespace', lambda: call(56, 0x10000000, 0, 0, 0, 0))\n"
            "import threading; t = threading.Thread(target=print, args=('thread OK',)); t.start(); t.join()\n")
    found = inside(run, text, "--seccomp", path)
    assert found.pop("readv") in ("EINVAL", "ESRCH")
    assert found == {"mount": "EPERM", "clone3": "ENOSYS", "newer": "ENOSYS", "vsock": "EPERM", "unix": "OK",
                     "personality": "OK", "other": "EPERM", "writev": "EPERM", "namespace": "EPERM",
                     "thread": "OK"}


def test_a_profile_for_many_calls_with_conditions(run, tmp):
    """So many that jumps need more than 255 instructions."""
    rules = [errno_rule("getpid", 1 + i % 100, args=[{"index": 0, "value": i, "op": "SCMP_CMP_EQ"}])
             for i in range(1, 301)]
    found = inside(run, "for v in 0, 1, 99, 150, 300, 301:\n    attempt(str(v), lambda: call(39, v))\n",
                   "--seccomp", profile(tmp, allow_all(*rules)))
    names = {str(v): errno.errorcode[1 + v % 100] for v in (1, 99, 150, 300)}
    assert found == {"0": "OK", **names, "301": "OK"}


BAD = {
    "not json": ("{", "not JSON"), "empty": ("", "not JSON"), "a list": ("[]", "not a JSON object"),
    "text after it": ("{} x", "not JSON"), "no default": ({}, "defaultAction is missing"),
    "default": ({"defaultAction": "ALLOW"}, 'no such action as "ALLOW"'),
    "member": (allow_all(syscals=[]), 'unknown member "syscals"'),
    "name": (allow_all({"names": ["read", "opennat"], "action": "SCMP_ACT_ALLOW"}),
             'syscalls[0]: no such system call as "opennat"'),
    "name not for us": (allow_all({"names": ["opennat"], "action": "SCMP_ACT_ALLOW",
                                   "includes": {"caps": ["CAP_BPF"]}}), '"opennat"'),
    "names": (allow_all({"names": "read", "action": "SCMP_ACT_ALLOW"}), "names is not a list"),
    "no names": (allow_all({"names": [], "action": "SCMP_ACT_ALLOW"}), "it needs names"),
    "number as name": (allow_all({"names": [1], "action": "SCMP_ACT_ALLOW"}), "names has something"),
    "action": (allow_all({"names": ["read"]}), "action is missing"),
    "notify": (allow_all({"names": ["read"], "action": "SCMP_ACT_NOTIFY"}), "SCMP_ACT_NOTIFY needs"),
    "errno": (allow_all(errno_rule("read", 4096)), "errnoRet is not a number from 0 to 4095"),
    "negative": (allow_all(errno_rule("read", -1)), "errnoRet"),
    "errno name": (allow_all({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errno": "EWHAT"}), "EWHAT"),
    "operator": (allow_all(errno_rule("read", 1, args=[{"index": 0, "op": "EQ"}])), 'operator as "EQ"'),
    "index": (allow_all(errno_rule("read", 1, args=[{"index": 6, "op": "SCMP_CMP_EQ"}])), "index is not"),
    "value": (allow_all(errno_rule("read", 1, args=[{"index": 0, "value": 1 << 64, "op": "SCMP_CMP_EQ"}])),
              "value is not a whole number"),
    "fraction": (allow_all(errno_rule("read", 1, args=[{"index": 0, "value": .5, "op": "SCMP_CMP_EQ"}])),
                 "value is not a whole number"),
    "architecture": (allow_all(architectures=["SCMP_ARCH_S390X"]), "other architectures"),
    "listener": (allow_all(listenerPath="/x"), "listenerPath"),
    "kernel": (allow_all(errno_rule("read", 1, includes={"minKernel": "new"})), "minKernel"),
    "deep": ("[" * 100000, "not JSON"),
    "too many": (allow_all(*[errno_rule("read", 1, args=[{"index": 0, "value": i, "op": "SCMP_CMP_EQ"}])
                             for i in range(3000)]), "more than 2048"),
    "too long": (allow_all(*[errno_rule("read", i, args=[
        {"index": k, "value": i << 33 | 1, "op": "SCMP_CMP_EQ"} for k in range(6)]) for i in range(400)]),
                 "more than the 4096 instructions"),
    "large": (" " * (2 << 20), "1048576"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_profiles(run, tmp, what):
    text, word = BAD[what]
    r = run("--seccomp", profile(tmp, text), argv=["/bin/true"])
    assert (r.code, r.out) == (125, "")
    assert r.err.startswith("pratai run: --seccomp ") and r.err.count("\n") == 1
    assert word in r.err
    assert r.report is None or r.report["reason"] == "setup_failed"


def test_bad_files(run, tmp):
    (tmp / "unreadable").mkdir()
    for path in tmp / "missing", tmp / "unreadable", "", "Strict":
        r = run("--seccomp", path, argv=["/bin/true"])
        assert r.code == 125 and r.err.startswith("pratai run: --seccomp") and r.err.count("\n") == 1
    r = run("--seccomp-learn", tmp / "missing/profile", argv=["/bin/true"])
    assert (r.code, r.err.count("\n")) == (125, 1) and "--seccomp-learn" in r.err


def test_a_profile_that_does_not_even_allow_the_start(run, tmp):
    for action in "ERRNO", "KILL_PROCESS", "TRAP":
        path = profile(tmp, {"defaultAction": "SCMP_ACT_" + action})
        r = run("--seccomp", path, argv=["/bin/true"])
        assert r.code == 125
        assert r.err == "pratai run: --seccomp %s: it does not allow execve, which starts the command\n" % path


@pytest.mark.parametrize("action", ["ERRNO", "KILL_PROCESS"])
def test_a_command_that_is_not_there_under_a_profile_that_allows_nothing_else(run, tmp, action):
    path = profile(tmp, {"defaultAction": "SCMP_ACT_" + action,
                         "syscalls": [{"names": ["execve"], "action": "SCMP_ACT_ALLOW"}]})
    for options in [], ["--seccomp-report"]:
        r = run("--seccomp", path, *options, argv=["/bin/nothing"])
        assert (r.code, r.report["reason"]) == (127, "not_found")
        assert "exec: /bin/nothing: not found\n" in r.err


# ---- reports ----

def test_report_names_and_counts(run):
    text = MOUNT * 3 + "attempt('clone3', lambda: call(435, 0, 0))\nattempt('x', lambda: call(1000))\n"
    r = run.python(probe(text), "--seccomp-report")
    assert r.out.split() == ["mount", "EPERM"] * 3 + ["clone3", "ENOSYS", "x", "ENOSYS"]
    assert r.report["refused_calls"] == {"mount": 3, "clone3": 1, "call 1000": 1}
    assert r.err == REFUSED + "mount 3, clone3 1, call 1000 1\n"
    r = run("--seccomp-report", argv=["/bin/true"])
    assert (r.code, r.err, r.report["refused_calls"]) == (0, REFUSED + "none\n", {})
    assert "refused_calls" not in run(argv=["/bin/true"]).report


def test_report_with_a_profile(run, tmp):
    path = profile(tmp, allow_all(errno_rule("mkdir", errno.EDOM), {"names": ["rmdir"], "action": "SCMP_ACT_KILL"},
                                  errno_rule("getpid", 0, args=[{"index": 0, "value": 5, "op": "SCMP_CMP_EQ"}])))
    text = ("attempt('mkdir', lambda: os.mkdir('/tmp/x'))\n"
            "attempt('getpid', lambda: call(39, 5))\nprint('plain', call(39, 4) or 'OK')\n")
    r = run.python(probe(text), "--seccomp", path, "--seccomp-report")
    assert r.out.split()[:4] == ["mkdir", "EDOM", "getpid", "OK"]
    assert r.report["refused_calls"]["mkdir"] == 1 and r.report["refused_calls"]["getpid"] == 1
    r = run.python("import os; os.rmdir('/tmp/x')", "--seccomp", path, "--seccomp-report")
    assert r.code == 137 and r.report["refused_calls"] == {"rmdir": 1}


def test_thousands_of_refused_calls_from_many_threads_and_processes(run):
    r = run.python("import ctypes, os, threading\n"
                   "libc = ctypes.CDLL(None)\n"
                   "def many():\n"
                   "    for i in range(2000): assert libc.mount(0, 0, 0, 0, 0) == -1\n"
                   "pids = []\n"
                   "for p in range(3):\n"
                   "    if (pid := os.fork()) == 0:\n"
                   "        ts = [threading.Thread(target=many) for t in range(3)]\n"
                   "        [t.start() for t in ts]; [t.join() for t in ts]; os._exit(0)\n"
                   "    pids.append(pid)\n"
                   "print(sum(os.waitpid(p, 0)[1] for p in pids))\n",
                   "--seccomp-report", "--output-max", "1M")
    assert (r.code, r.out) == (0, "0\n")
    assert r.report["refused_calls"]["mount"] == 18000


def test_callers_that_are_killed_or_interrupted_while_they_ask(run):
    """A call that is answered already is not made again for a signal's sake."""
    r = run.python("import ctypes, os, signal\n"
                   "libc = ctypes.CDLL(None, use_errno=True)\n"
                   "signal.signal(signal.SIGALRM, lambda *a: None)\n"
                   "signal.siginterrupt(signal.SIGALRM, False)\n"
                   "signal.setitimer(signal.ITIMER_REAL, .0005, .0005)\n"
                   "bad = 0\n"
                   "for i in range(3000):\n"
                   "    assert libc.mount(0, 0, 0, 0, 0) == -1\n"
                   "    bad += ctypes.get_errno() not in (1, 4)\n"
                   "signal.setitimer(signal.ITIMER_REAL, 0)\n"
                   "for i in range(30):\n"
                   "    if (pid := os.fork()) == 0:\n"
                   "        while True: libc.mount(0, 0, 0, 0, 0)\n"
                   "    os.kill(pid, 9); os.waitpid(pid, 0)\n"
                   "print(bad)\n", "--seccomp-report")
    assert (r.code, r.out) == (0, "0\n"), r.err
    assert r.report["refused_calls"]["mount"] >= 2900


@pytest.mark.parametrize("option", ["--seccomp-report", "--seccomp-learn"])
def test_limits_and_signals_hold_meanwhile(run, tmp, option):
    options = [option] if option == "--seccomp-report" else [option, tmp / "learned"]
    loop = "import ctypes\nwhile True: ctypes.CDLL(None).mount(0, 0, 0, 0, 0)"
    r = run.python(loop, "--timeout", "500ms", *options)
    assert (r.code, r.report["reason"]) == (124, "timeout")
    p = run.start(*options, argv=["/bin/sh", "-c", "echo ready; while :; do cd /; done"])
    assert p.stdout.readline() == b"ready\n"
    p.send_signal(signal.SIGTERM)
    assert run.finish(p).code == 128 + signal.SIGTERM
    p = run.start(*options, argv=["/bin/sh", "-c", "echo ready; while :; do cd /; done"])
    assert p.stdout.readline() == b"ready\n"
    p.kill()
    p.communicate()
    wait_for(lambda: not run.processes(), what="the end of the sandbox with its watcher")
    # What a killed run may leave is an empty cgroup, which the next one removes.
    assert run(argv=["/bin/true"]).code == 0


def test_no_other_process_is_the_commands_child(run):
    r = run.python("import os\ntry:\n    os.waitpid(-1, 0)\nexcept ChildProcessError: print('none')\n"
                   "print(sorted(os.listdir('/proc/self/fd')))\n", "--seccomp-report")
    assert r.out == "none\n['0', '1', '2', '3']\n"  # 3 is the listing's own


def test_what_is_watched_is_not_so_for_others(run):
    """A listener of the command's own is refused as ever."""
    text = ("class F(ctypes.Structure): _fields_ = [('c', ctypes.c_ushort), ('t', ctypes.c_ubyte), "
            "('f', ctypes.c_ubyte), ('k', ctypes.c_uint)]\n"
            "class P(ctypes.Structure): _fields_ = [('n', ctypes.c_ushort), ('p', ctypes.POINTER(F))]\n"
            "p = P(1, ctypes.pointer(F(6, 0, 0, 0x7fff0000)))\n"
            "attempt('listener', lambda: call(317, 1, 8, ctypes.byref(p)))\n"
            "attempt('filter', lambda: call(317, 1, 0, ctypes.byref(p)))\n")
    assert inside(run, text, "--seccomp-report") == {"listener": "EPERM", "filter": "OK"}


# ---- learning ----

SCRIPT = ("import ctypes, os, socket, threading\n"
          "t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()\n"
          "ctypes.CDLL(None).mount(0, 0, 0, 0, 0)\n"
          "socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()\n"
          "try: socket.socket(16, 3)\nexcept OSError: print('no netlink')\n")


def test_a_learned_profile_is_what_the_run_needs(run, tmp):
    path = tmp / "learned.json"
    path.write_text("x" * 100000)  # is replaced whole
    r = run.python(SCRIPT, "--seccomp-learn", path)
    assert (r.code, r.out, r.err) == (0, "thread\nno netlink\n", "")
    found = json.loads(path.read_text())
    assert found["defaultAction"] == "SCMP_ACT_ERRNO"
    by_name = {}
    for rule in found["syscalls"]:
        for name in rule["names"]:
            by_name.setdefault(name, []).append(rule)
    assert by_name["execve"][0]["action"] == "SCMP_ACT_ALLOW" and "mkdir" not in by_name
    assert (by_name["mount"][0]["action"], by_name["mount"][0]["errnoRet"]) == ("SCMP_ACT_ERRNO", 1)
    assert by_name["clone3"][0]["errnoRet"] == errno.ENOSYS
    assert all(rule["args"] for rule in by_name["clone"] + by_name["socket"] + by_name["mmap"])
    r = run.python(SCRIPT, "--seccomp", path)
    assert (r.code, r.out) == (0, "thread\nno netlink\n"), r.err
    # Nothing else: not another family of sockets, not another call.
    found = inside(run, "attempt('unix', lambda: socket.socket(1, 1))\nattempt('mkdir', lambda: os.mkdir('/tmp/x'))\n",
                   "--seccomp", path)
    assert found == {"unix": "EPERM", "mkdir": "EPERM"}


def test_a_profile_learned_in_strict_is_as_strict(run, tmp):
    path = tmp / "learned.json"
    r = run("--seccomp", "strict", "--seccomp-learn", path, argv=["/bin/echo", "x"])
    assert (r.code, r.out) == (0, "x\n")
    assert json.loads(path.read_text())["defaultAction"] == "SCMP_ACT_KILL_PROCESS"
    assert run("--seccomp", path, argv=["/bin/echo", "x"]).out == "x\n"
    assert run("--seccomp", path, argv=["/bin/mkdir", "/tmp/x"]).code == 159


def test_learning_from_a_profile_never_allows_more(run, tmp):
    base = profile(tmp, allow_all(errno_rule("getpid", errno.EDOM, args=[
        {"index": 0, "value": (1 << 64) - 2, "op": "SCMP_CMP_GE"}])))
    text = ("attempt('a', lambda: call(39, ctypes.c_uint64(2**64 - 1)))\nattempt('b', lambda: call(39, 7))\n"
            "attempt('c', lambda: call(39, *map(int, sys.argv[1:2] or [7])))\n")
    learned = tmp / "learned.json"
    r = run.python(probe(text), "--seccomp", base, "--seccomp-learn", learned)
    assert r.out.split() == ["a", "EDOM", "b", "OK", "c", "OK"]
    assert inside(run, text, "--seccomp", learned) == {"a": "EDOM", "b": "OK", "c": "OK"}
    r = run(argv=["/usr/bin/python3", "-I", "-c", probe(text), "8"], *["--seccomp", learned])
    assert r.out.split()[-1] == "EPERM"


def test_without_root(tmp):
    """An ordinary user's runs are watched as well."""
    if subprocess.run(["unshare", "-U", "true"], user=1001, capture_output=True, check=False).returncode:
        pytest.skip("this machine gives ordinary users no user namespaces")
    for name in "pratai", "pratai-seccomp":  # the build directory may be root's alone
        shutil.copy(BUILD / name, tmp)
    (tmp / "out").mkdir()
    os.chown(tmp / "out", 1001, 1001)
    learned = tmp / "out/learned.json"

    def ordinary(*options):
        return subprocess.run([str(tmp / "pratai"), "run", "--root", str(tmp / "out/store"), *map(str, options),
                               "--", "/usr/bin/python3", "-I", "-c", probe(MOUNT)], capture_output=True,
                              text=True, user=1001, group=1001, extra_groups=[], check=False)
    p = ordinary("--seccomp-report", "--seccomp-learn", learned)
    assert (p.returncode, p.stdout, p.stderr) == (0, "mount EPERM\n", REFUSED + "mount 1\n")
    p = ordinary("--seccomp", learned)
    assert (p.returncode, p.stdout) == (0, "mount EPERM\n")
