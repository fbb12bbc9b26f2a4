"""What a command can see and do: nothing of the machine's but what was given to it.

The ids (E01, K02, P05, ...) are those of the project's list of attacks.  Each denial states
its errno, and has a control: the same probe outside, where it succeeds or fails otherwise.
"""
import ctypes
import os
import pathlib
import re
import socket
import stat
import subprocess
import sys
import uuid

import pytest

from conftest import PRATAI, become_ordinary, inside, outside, wait_for

NAMESPACES = "user", "mnt", "pid", "ipc", "uts", "cgroup", "net", "time"


def links(text):
    return dict(line.split(" ") for line in text.splitlines())


NS_PROBE = "\n".join("print(%r, os.readlink('/proc/self/ns/%s'))" % (n, n) for n in NAMESPACES)


@pytest.mark.nothing_like("time.namespace")
def test_every_namespace_is_its_own(run):
    first = links(run.python("import os\n" + NS_PROBE).out)
    second = links(run.python("import os\n" + NS_PROBE).out)
    here = {n: os.readlink("/proc/self/ns/" + n) for n in NAMESPACES}
    for n in NAMESPACES:
        assert first[n] != here[n], n
    assert set(first) == set(second) == set(here)


@pytest.mark.nothing_like("time.namespace")
def test_network_host_shares_only_the_network(run):
    got = links(run.python("import os\n" + NS_PROBE, "--network", "host").out)
    here = {n: os.readlink("/proc/self/ns/" + n) for n in NAMESPACES}
    assert got["net"] == here["net"]
    assert all(got[n] != here[n] for n in NAMESPACES if n != "net")


def test_status(run):
    r = run(argv=["/bin/cat", "/proc/self/status"])
    status = dict(line.split(":\t") for line in r.out.splitlines() if ":\t" in line)
    assert status["Uid"] == "1000\t1000\t1000\t1000" == status["Gid"]
    assert status["Groups"].strip() == ""
    for name in "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb":
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    for name in "SigBlk", "SigIgn", "SigCgt":
        assert int(status[name], 16) == 0, name
    assert (status["NSpid"], status["PPid"], status["Umask"]) == ("2", "1", "0022")
    assert status["NSsid"] == "2"


@pytest.mark.parametrize("uid", [0, 1000, 65534])
def test_no_capability_whatever_the_uid(run, uid):
    r = run.sh("grep Cap /proc/self/status", "--uid", uid)
    assert set(re.findall("[0-9a-f]{16}", r.out)) == {"0" * 16}


def test_host_ids_are_unprivileged_and_not_shared(run):
    maps = set()
    for _ in range(4):
        r = run.sh("cat /proc/self/uid_map /proc/self/gid_map")
        lines = [tuple(map(int, line.split())) for line in r.out.splitlines()]
        assert lines[0] == lines[1] and lines[0][0] == 0 and lines[0][2] == 65536
        assert lines[0][1] >= 0x70000000
    p = [run.start(argv=["/bin/sh", "-c", "cat /proc/self/uid_map; read x"], stdin=subprocess.PIPE)
         for _ in range(6)]
    for one in p:
        maps.add(one.stdout.readline())
    for one in p:
        run.finish(one)
    assert len(maps) == 6


def test_descriptors(run, tmp):
    """E02, E03: nothing above 2, whatever the caller had open."""
    fd = os.open(tmp, os.O_RDONLY)
    os.set_inheritable(fd, True)
    # ls holds the directory that it reads as 3.
    r = run(argv=["/bin/ls", "/proc/self/fd"], pass_fds=[fd])
    assert r.out.split() == ["0", "1", "2", "3"]
    r = run.python("import os; print(os.getcwd())\n"
                   "for i in range(3, 64):\n"
                   "    try: os.stat('/proc/self/fd/%d/..' % i); print('open', i)\n"
                   "    except OSError: pass", pass_fds=[fd])
    assert r.out == "/\n"
    os.close(fd)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-"])
@pytest.mark.parametrize("options", [[], ["--network", "host"], ["--rootfs", "/"]])
def test_closed_descriptors_of_the_caller(run, closed, options):
    """What `pratai run` opens for itself (its store, cgroups) does not take their place: through
    a directory of the machine's everything could be reached.  They stay unusable."""
    script = "ls /proc/self/fd/0/.. /proc/self/fd/1/..; cat; /bin/echo x; exit 5"
    words = run.command(options, ["/bin/sh", "-c", script])
    p = subprocess.run(["/bin/sh", "-c", 'exec "$@" ' + closed, "sh", *words], text=True,
                       env=run.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, timeout=60, check=False)
    assert p.returncode == 5
    assert p.stderr.count("Not a directory") == 2
    assert p.stderr.count("Bad file descriptor") == closed.count("&")
    assert p.stdout == ("" if ">" in closed else "x\n")


@pytest.mark.parametrize("n", range(3))
def test_a_directory_is_no_standard_descriptor(run, n):
    directory = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    files = {("stdin", "stdout", "stderr")[n]: directory}
    p = subprocess.Popen(run.command([], ["/bin/true"]), env=run.environment(), **files)
    os.close(directory)
    assert p.wait(60) == 125


@pytest.mark.parametrize("n", range(3, 12))
def test_workdir_through_a_descriptor(run, n):
    """E02, CVE-2024-21626: the working directory may not be one of the runner's."""
    r = run("--workdir", "/proc/self/fd/%d" % n, argv=["/bin/pwd"])
    assert r.code == 125 and "working directory" in r.err


def test_root_directory(run):
    r = run.sh("ls -A / /root /run /home; ls /sys | wc -l; ls /.. | sort | tail -1")
    assert "var" in r.out and r.out.splitlines()[-2] == "0"
    r = run(argv=["/bin/cat", "/proc/self/mountinfo"])
    types = {line.split(" - ")[1].split()[0] for line in r.out.splitlines()}
    assert types == {"overlay", "tmpfs", "proc"}
    for line in r.out.splitlines():
        point, options = line.split()[4:6]
        assert "nosuid" in options, line
        assert "nodev" in options or point.startswith(("/dev", "/proc")), line


def test_etc_has_no_credentials(run):
    """Nor what is known to hold them: registries' tokens are in npmrc and pip.conf."""
    r = run.sh("ls -A /etc; find /etc -type f | xargs grep -l 'PRIVATE KEY'")
    names = set(r.out.split())
    assert {"passwd", "ld.so.cache"} <= names
    assert not names & {"shadow", "gshadow", "ssh", "npmrc", "pip.conf", "environment", "fstab"}
    assert "/etc/" not in r.out


def test_layers_are_read_only(run, busybox):
    """P07: what a run changes, the next does not see."""
    (busybox / "etc").mkdir()
    (busybox / "etc").chmod(0o777)
    (busybox / "etc/file").write_text("original\n")
    (busybox / "etc/file").chmod(0o666)
    script = "cat /etc/file; echo changed >/etc/file; echo new >/etc/new; cat /etc/file"
    for _ in range(2):
        r = run("--rootfs", busybox, argv=["/bin/sh", "-c", script])
        assert r.out.splitlines()[0] == "original"
    assert (busybox / "etc/file").read_text() == "original\n"
    assert sorted(os.listdir(busybox / "etc")) == ["file"]


def test_usr_is_read_only(run):
    r = run.python("import errno\n"
                   "for p in '/usr/x', '/usr/bin/python3', '/etc/passwd', '/x', '/dev/x', '/proc/x':\n"
                   "    try: open(p, 'w'); print(p, 'OK')\n"
                   "    except OSError as e: print(p, errno.errorcode[e.errno])", "--uid", "0")
    got = dict(line.split() for line in r.out.splitlines())
    assert got["/usr/x"] == got["/usr/bin/python3"] == got["/dev/x"] == "EROFS"
    assert got["/etc/passwd"] == "EACCES"
    assert got["/x"] == "OK"  # the writable layer: seen by nobody else
    assert not os.path.exists("/x")


def test_tmp_and_shm_are_fresh(run):
    """P07, K16."""
    for _ in range(2):
        r = run.sh("ls -A /tmp /dev/shm /var/tmp; echo x >/tmp/a && echo x >/dev/shm/b && "
                   "echo x >/var/tmp/c && ls /tmp /dev/shm")
        assert r.code == 0 and r.out.count("a\n") == 1 and r.out.count("b\n") == 1
    r = run.sh("stat -c %a /tmp /dev/shm; touch /tmp/x; chmod u+s /tmp/x; grep ' /tmp ' /proc/mounts")
    assert r.out.splitlines()[:2] == ["1777", "1777"]
    assert "nosuid" in r.out and "nodev" in r.out


def test_dev(run):
    r = run.python("import os, stat\n"
                   "for n in sorted(os.listdir('/dev')):\n"
                   "    s = os.lstat('/dev/' + n)\n"
                   "    print(n, stat.S_IFMT(s.st_mode) >> 12, os.major(s.st_rdev), os.minor(s.st_rdev))")
    assert r.out.splitlines() == [
        "boot_id 8 0 0", "empty 4 0 0", "fd 10 0 0", "full 2 1 7", "null 2 1 3", "random 2 1 8", "shm 4 0 0",
        "stderr 10 0 0", "stdin 10 0 0", "stdout 10 0 0", "tty 2 5 0", "urandom 2 1 9",
        "zero 2 1 5"]
    r = run.sh("echo x >/dev/null && head -c 3 /dev/zero | wc -c && head -c 3 /dev/urandom | wc -c")
    assert r.out.split() == ["3", "3"]
    assert inside(run, "attempt('full', lambda: open('/dev/full', 'wb', 0).write(b'x'))") == {
        "full": "ENOSPC"}


def test_proc_hides_other_processes(run):
    """K18, P01: init is not seen, and nothing of the machine's."""
    r = run.sh("ls -d /proc/[0-9]* | wc -l; ls /proc/1; cat /proc/1/environ")
    assert int(r.out.split()[0]) <= 3
    assert r.err.count("No such file or directory") == 2


def test_proc_is_masked(run):
    """P02: of those files that this kernel has.  locks shows OFD locks of all sandboxes."""
    names = [n for n in ("keys", "key-users", "kallsyms", "interrupts", "locks", "sched_debug",
                         "latency_stats", "cmdline", "diskstats", "modules", "partitions")
             if os.path.exists("/proc/" + n)]
    assert {"keys", "interrupts"} <= set(names) and open("/proc/interrupts").read(1)
    r = run.sh("cd /proc; for f in %s; do stat -c %%t.%%T $f; cat $f; done" % " ".join(names),
               "--uid", "0")
    assert r.out == "1.3\n" * len(names)
    assert os.listdir("/proc/bus") and os.listdir("/proc/fs")
    assert run.sh("ls /proc/bus /proc/fs").out.split() == ["/proc/bus:", "/proc/fs:"]


CLOCKS = """
import os, time
def field(file, name):
    return next(line.split()[1] for line in open(file) if line.startswith(name))
ticks = int(open("/proc/self/stat").read().rsplit(")", 1)[1].split()[19])
for value in (open("/proc/uptime").read().split()[0], time.monotonic(),
              time.clock_gettime(time.CLOCK_BOOTTIME), time.clock_gettime(time.CLOCK_MONOTONIC_RAW),
              ticks / os.sysconf("SC_CLK_TCK"), time.time() - int(field("/proc/stat", "btime"))):
    print(float(value))
"""


@pytest.mark.nothing_like("time.namespace")
@pytest.mark.parametrize("who", ["root", "user"])
def test_how_long_the_machine_runs_is_not_seen(run, who):
    """The control: outside, all of these are the machine's."""
    control = subprocess.run([sys.executable, "-I", "-c", CLOCKS], capture_output=True, text=True,
                             check=True)
    up = float(open("/proc/uptime").read().split()[0])
    assert all(abs(float(v) - up) < 30 for v in control.stdout.split())
    if who == "user":
        become_ordinary(run)
    r = run.python(CLOCKS)
    assert r.code == 0 and len(r.out.split()) == 6, r.err
    assert all(-1 <= float(v) < min(60, up / 2) for v in r.out.split()), r.out


def test_the_clocks_of_a_report_are_the_machines(run):
    """The command's own clocks begin anew; the report's durations know it."""
    r = run.sh("sleep 0.3")
    assert 0.3e6 <= r.report["wall_us"] < 30e6, r.report
    assert sum(us for step, us in r.report["steps_us"].items() if step != "total") < 30e6
    r = run.sh("sleep 0.3", env={"PRATAI_DISABLE": "time.namespace"})
    assert 0.3e6 <= r.report["wall_us"] < 30e6, r.report


@pytest.mark.parametrize("who", ["root", "user"])
def test_a_boot_id_of_its_own(run, who):
    if who == "user":
        become_ordinary(run)
    name = "/proc/sys/kernel/random/boot_id"
    seen = [open(name).read(), *(run(argv=["/bin/cat", name]).out for _ in range(2))]
    assert len(set(seen)) == 3
    for text in seen:
        assert str(uuid.UUID(text.strip(), version=4)) + "\n" == text
    assert run.sh("echo x >" + name).code != 0


def test_proc_of_root_alone(run):
    """P02: root's files, whose id no sandbox has."""
    names = [n for n in ("kcore", "timer_list", "kmsg", "kpagecount", "vmallocinfo", "slabinfo")
             if os.path.exists("/proc/" + n)]
    assert len(names) > 2
    text = "\n".join("attempt(%r, lambda: open('/proc/%s', 'rb'))" % (n, n) for n in names)
    assert set(outside(text).values()) == {"OK"}
    assert set(inside(run, text, "--uid", "0").values()) == {"EACCES"}


def test_proc_cannot_be_written(run):
    """P01: the control is that root outside may open them."""
    files = ["/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches",
             "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/hostname"]
    text = "\n".join("attempt(%r, lambda: os.close(os.open(%r, os.O_WRONLY)))" % (f, f) for f in files)
    assert set(outside(text).values()) == {"OK"}
    assert set(inside(run, text, "--uid", "0").values()) <= {"EACCES", "EROFS"}


def test_nothing_of_the_machine_in_proc_can_be_written(run):
    """Whatever this kernel has there: pressure once had triggers that no limit counted."""
    text = """
import os, stat
def walk(top):
    for e in os.scandir(top):
        if e.name.isdigit() or e.is_symlink():
            continue
        if e.is_dir():
            try:
                walk(e.path)
            except OSError:
                pass
        elif stat.S_ISREG(e.stat().st_mode):
            try:
                os.close(os.open(e.path, os.O_WRONLY | os.O_NONBLOCK))
                print(e.path)
            except OSError:
                pass
walk("/proc")
"""
    control = subprocess.run([sys.executable, "-I", "-c", text], capture_output=True, text=True)
    assert "/proc/sysrq-trigger" in control.stdout or "/proc/sys/" in control.stdout
    for uid in 0, 1000:
        r = run.python(text, "--uid", uid)
        assert (r.code, r.out, r.err) == (0, "", "")


def test_no_further_namespaces(run):
    """K02, K03."""
    flags = {"user": 0x10000000, "mnt": 0x20000, "pid": 0x20000000, "net": 0x40000000,
             "ipc": 0x8000000, "uts": 0x4000000, "cgroup": 0x2000000}
    text = "\n".join("attempt(%r, lambda: call(272, %d))" % (n, f) for n, f in flags.items())
    got = inside(run, text)
    assert set(got.values()) == {"EPERM"}
    # The control, in a child so that the tests stay where they are.
    assert set(outside("if os.fork() == 0:\n" +
                       "\n".join("    " + line for line in text.splitlines()) +
                       "\n    sys.stdout.flush(); os._exit(0)\nos.wait()").values()) == {"OK"}
    r = run.sh("cat /proc/sys/user/max_user_namespaces /proc/sys/user/max_inotify_instances")
    assert r.out == "0\n8\n"


def test_mounts_are_refused(run):
    """K01, P03, P05, P06."""
    text = """
attempt("mount", lambda: call(165, b"none", b"/tmp", b"tmpfs", 0, 0))
attempt("umount", lambda: call(166, b"/proc", 2))
attempt("chroot", lambda: os.chroot("/tmp"))
attempt("pivot", lambda: call(155, b"/tmp", b"/tmp"))
attempt("mknod", lambda: os.mknod("/tmp/null", 0o20666, os.makedev(1, 3)))
attempt("sethostname", lambda: socket.sethostname("x"))
attempt("ptrace", lambda: call(101, 16, 1, 0, 0))
attempt("setns", lambda: call(308, os.open("/proc/self/ns/net", 0), 0))
"""
    for disable in "", "landlock":
        got = inside(run, text, "--uid", "0", env={"PRATAI_DISABLE": disable})
        assert got.pop("mknod") in (("EPERM",) if disable else ("EACCES", "EPERM"))  # landlock: EACCES
        assert set(got.values()) == {"EPERM"}, got


def test_kernel_surface(run):
    """K05 to K09: some of each class; the filter's own tests have all."""
    text = """
attempt("keyctl", lambda: call(250, 0, -3, 1))
attempt("bpf", lambda: call(321, 0, 0, 0))
attempt("io_uring", lambda: call(425, 8, 0))
attempt("handle", lambda: call(304, -100, 0, 0))
for name, family in ("alg", 38), ("vsock", 40), ("packet", 17), ("netlink", 16):
    attempt(name, lambda: socket.socket(family, socket.SOCK_RAW if name == "netlink" else socket.SOCK_DGRAM).close())
attempt("unix", lambda: socket.socket(socket.AF_UNIX).close())
attempt("inet", lambda: socket.socket(socket.AF_INET).close())
"""
    got = inside(run, text)
    assert got.pop("unix") == got.pop("inet") == "OK"
    assert set(got.values()) <= {"EPERM", "ENOSYS", "EAFNOSUPPORT"}, got


def test_setuid_program_stays(run, tmp):
    """P04, E09."""
    program = tmp / "id"
    program.write_bytes(pathlib.Path("/usr/bin/id").read_bytes())
    program.chmod(0o4755)
    r = run("--bind", "%s:/work" % tmp, argv=["/work/id", "-u"])
    assert r.out == "1000\n"
    p = subprocess.run([str(program), "-u"], user=1001, capture_output=True, text=True)
    assert p.stdout == "0\n"  # the control: outside it works


@pytest.mark.parametrize("name", ["tmp", "proc", "dev"])
@pytest.mark.parametrize("to", ["/etc", "../../../../etc", "/proc/self/root/etc", "etc"])
def test_image_with_links_for_directories(run, busybox, name, to):
    """E04 to E07: a link where we mount is covered, not followed."""
    (busybox / "etc").mkdir()
    (busybox / name).symlink_to(to)
    r = run("--rootfs", busybox, argv=["/bin/sh", "-c", "ls -A /etc; echo x >/tmp/x; cat /tmp/x; ls -d /" +
                                       name + "/..; ls /proc/self/fd | cat"])
    assert r.code == 0, r.err
    assert r.out.startswith("x\n")
    assert (busybox / name).is_symlink() and os.listdir(busybox / "etc") == []


def test_image_with_links_in_dev(run, busybox, tmp):
    """E05, E06: the image's /dev is never looked at."""
    victim = tmp / "victim"
    victim.write_text("untouched")
    (busybox / "dev").mkdir()
    for name in "null", "console", "pts", "shm", "tty":
        (busybox / "dev" / name).symlink_to(victim)
    r = run("--rootfs", busybox, argv=["/bin/sh", "-c", "echo x >/dev/null; ls /dev"])
    assert r.code == 0 and "console" not in r.out
    assert victim.read_text() == "untouched"


def test_bind_target_that_is_a_link(run, busybox, tmp):
    """E04, E08: stays below the root, makes nothing outside."""
    (tmp / "source").mkdir()
    (tmp / "source/f").write_text("here\n")
    (tmp / "outside").mkdir()
    for target in str(tmp / "outside"), "../../../../.." + str(tmp / "outside"):
        link = busybox / "link"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        run("--rootfs", busybox, "--bind", "%s:/link/new" % (tmp / "source"),
            argv=["/bin/cat", "/link/new/f"])
        assert os.listdir(tmp / "outside") == []
    r = run("--rootfs", busybox, "--bind", "%s:/link" % (tmp / "source"), argv=["/bin/cat", "/link/f"])
    assert os.listdir(tmp / "outside") == [] and (r.code, r.out) in ((0, "here\n"), (125, ""))


def test_the_runner_is_not_reachable(run):
    """E01: neither its program nor its memory."""
    before = PRATAI.stat()
    r = run.python("import os\n"
                   "for p in '/proc/1/exe', '/proc/1/mem', '/proc/1/root', '/proc/1/maps':\n"
                   "    try: open(p, 'r+b'); print('OK')\n"
                   "    except OSError as e: print(e.errno)\n"
                   "for s in 9, 19, 15:\n"
                   "    try: os.kill(1, s)\n"
                   "    except OSError as e: print(e.errno)", "--uid", "0")
    assert set(r.out.split()) <= {"2", "13", "1", "3"} and r.code == 0, r.out
    after = PRATAI.stat()
    assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)


def test_signals_do_not_leave(run):
    """K18: kill(-1) and kill(0) reach the sandbox's own."""
    p = run.start(argv=["/bin/sleep", "30"])
    wait_for(lambda: run.processes(), what="the other sandbox")
    r = run.python("import os, signal\nsignal.signal(15, signal.SIG_IGN)\n"
                   "for target in -1, 0:\n"
                   "    try: os.kill(target, 15)\n"
                   "    except ProcessLookupError: print('ESRCH')\nprint('alive')")
    assert r.code == 0 and r.out.endswith("alive\n")
    assert p.poll() is None
    p.terminate()
    run.finish(p)


def test_loopback_only(run):
    """P09: names fail at once, the loopback works, nothing else is there."""
    r = run.python("""
import socket, time
t = time.monotonic()
try: socket.getaddrinfo("example.com", 80)
except OSError as e: print("gai", time.monotonic() - t < 1)
s = socket.create_server(("127.0.0.1", 0)); c = socket.create_connection(s.getsockname()); print("lo")
print(open("/proc/net/dev").read().count(":"), len(socket.if_nameindex()) if hasattr(socket, "x") else 1)
for a in "169.254.169.254", "10.0.0.1", "8.8.8.8":
    try: socket.create_connection((a, 80), 1)
    except OSError as e: print(e.errno)
""")
    assert r.code == 0, r.err
    assert r.out.split() == ["gai", "True", "lo", "1", "1", "101", "101", "101"]


def test_abstract_sockets_are_apart(run):
    """E10, K17."""
    name = "\0pratai-test-%d" % os.getpid()
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(name)
        s.listen()
        text = "attempt('c', lambda: socket.socket(socket.AF_UNIX).connect(%r))" % name
        assert outside(text) == {"c": "OK"}
        assert inside(run, text) == {"c": "ECONNREFUSED"}


def test_no_core_no_terminal(run, tmp):
    """P08, K12."""
    r = run.sh("ulimit -c; ulimit -n; ulimit -Hn; ulimit -Hc; cat /proc/self/oom_score_adj; tty; "
               "echo x >/dev/tty")
    lines = r.out.splitlines()
    assert lines[0] == "0" and int(lines[1]) <= 1024 and int(lines[2]) <= 4096 and lines[3] == "0"
    assert lines[4] == "1000" and "No such device or address" in r.err


def test_cgroup_is_its_own_root(run):
    r = run(argv=["/bin/cat", "/proc/self/cgroup"])
    assert {line.rsplit(":", 1)[1] for line in r.out.splitlines() if "memory" in line or "pids" in line
            or line.startswith("0::")} == {"/"}


def test_a_user_without_root(run, tmp):
    """Through a user namespace: everything but limits."""
    home = tmp / "home"
    home.mkdir()
    os.chown(home, 1001, 1001)
    kw = {"user": 1001, "group": 1001, "extra_groups": [], "cwd": "/",
          "env": {"HOME": str(home), "PATH": os.environ["PATH"]}}
    program = tmp / "pratai"
    program.write_bytes(PRATAI.read_bytes())
    program.chmod(0o755)
    if subprocess.run(["unshare", "-U", "true"], user=1001, capture_output=True).returncode:
        pytest.skip("this machine gives ordinary users no user namespaces")
    words = [str(program), "run", "--"]
    p = subprocess.run(words + ["/bin/sh", "-c", "id -u; cat /proc/self/uid_map; touch /tmp/x; "
                                "ls -d /proc/1; grep CapBnd /proc/self/status; ls /proc/self/fd"],
                       capture_output=True, text=True, **kw)
    out = p.stdout.split()
    assert p.returncode == 0, p.stderr
    assert out[:4] == ["1000", "1000", "1001", "1"] and out[5] == "0" * 16 and out[6:] == list("0123")
    assert "/proc/1" in p.stderr
    p = subprocess.run(words[:2] + ["--memory", "64M", "--", "true"], capture_output=True, text=True, **kw)
    assert p.returncode == 125 and "cgroup" in p.stderr and p.stderr.count("\n") == 1
