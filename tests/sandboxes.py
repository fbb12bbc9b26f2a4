"""`pratai run` as a user has it: the built program, real namespaces, real limits.  What
tests/sandbox and tests/escape share; their conftest.py takes all of it.

Every test ends with the leak gate: nothing that carries the test's mark is left running, no
cgroup, no mount, no network namespace, no file.  A denial asserts its errno, and a control
shows that the same probe can succeed outside.  PRATAI_BUILD names the build directory.
"""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = ROOT / os.environ.get("PRATAI_BUILD", "build")
PRATAI = BUILD / "pratai"
BUSYBOX = pathlib.Path("/bin/busybox")

# Faults can be injected in test builds only (SAN=, DEBUG=).
TEST_BUILD = b"PRATAI_FAIL_AT" in PRATAI.read_bytes()
# Without its v2 tree a hybrid host is a v1 one; a pure v2 host would have none at all.
HYBRID = " cgroup cgroup " in open("/proc/self/mountinfo").read().replace(" - ", " ")


def has_writable_root():
    """Whether an ordinary user's root is writable, and egress can be: Linux 6.6."""
    if "tmpfs.xattr" in os.environ.get("PRATAI_DISABLE", "").split(","):
        return False
    fd = os.memfd_create("probe")
    try:
        os.setxattr(fd, "user.probe", b"")
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


WRITABLE_ROOT = has_writable_root()

# Whoever runs the tests may ignore it (nohup does); `pratai run` would respect that.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def pytest_configure(config):
    config.addinivalue_line("markers", "nothing_like(feature): what has no fallback")


def pytest_collection_modifyitems(config, items):
    disabled = os.environ.get("PRATAI_DISABLE", "").split(",")
    for item in items:
        item.add_marker(needs_root)
    without = [i for i in items if any(m.args[0] in disabled
                                       for m in i.iter_markers("nothing_like"))]
    items[:] = [i for i in items if i not in without]
    config.hook.pytest_deselected(items=without)


class Result:
    def __init__(self, code, out, err, report):
        self.code, self.out, self.err, self.report = code, out, err, report


class Runner:
    """Runs `pratai run`, with a mark in the command's environment by which what is left of it
    is found."""

    def __init__(self, tmp):
        self.mark = "PRATAI_TEST_MARK=" + uuid.uuid4().hex
        self.tmp, self.pids, self.count = tmp, [], 0
        self.program = [str(PRATAI)]
        self.variables = {}

    def command(self, options, argv, report=None):
        words = [*self.program, "run", "--env", self.mark, *map(str, options)]
        if report:
            words += ["--report", str(report)]
        return words + ["--", *map(str, argv)]

    def environment(self, extra=None):
        env = {k: v for k, v in os.environ.items()
               if not k.startswith("PRATAI_") or k in ("PRATAI_ROOT", "PRATAI_DISABLE")}
        env.update(self.variables, **(extra or {}))
        return env

    def start(self, *options, argv, env=None, **kw):
        self.count += 1
        report = self.tmp / ("report.%d" % self.count)
        p = subprocess.Popen(self.command(options, argv, report), stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, env=self.environment(env), **kw)
        p.report_path = report
        self.pids.append(p.pid)
        return p

    def finish(self, p, stdin=b"", timeout=60):
        out, err = p.communicate(stdin if p.stdin else None, timeout=timeout)
        report = json.loads(p.report_path.read_text()) if p.report_path.exists() else None
        return Result(p.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"),
                      report)

    def __call__(self, *options, argv, stdin=b"", env=None, timeout=60, **kw):
        return self.finish(self.start(*options, argv=argv, env=env, stdin=subprocess.PIPE, **kw),
                           stdin, timeout)

    def sh(self, script, *options, **kw):
        return self(*options, argv=["/bin/sh", "-c", script], **kw)

    def python(self, script, *options, **kw):
        return self(*options, argv=["/usr/bin/python3", "-I", "-c", script], **kw)

    def processes(self, ours=False):
        """Of all processes of the machine those that carry the mark; ours: our own programs, too."""
        found = []
        for d in pathlib.Path("/proc").iterdir():
            if d.name.isdigit():
                try:
                    if self.mark.encode() in (d / "environ").read_bytes().split(b"\0"):
                        if ours or b"pratai" not in (d / "comm").read_bytes():
                            found.append(int(d.name))
                except OSError:
                    pass
        return found

    def cgroups(self):
        names = {"pratai-run-%d-" % pid for pid in self.pids}
        return [os.path.join(top, d) for top, dirs, _ in os.walk("/sys/fs/cgroup") for d in dirs
                if any(d.startswith(n) for n in names)]


def wait_for(condition, seconds=10, what="the condition"):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited %gs for %s" % (seconds, what)
        time.sleep(0.002)
    return value


def own_mounts():
    """Those that a sandbox makes, should one get out: overlays of its layers, its tmpfs on /tmp, its
    root on /.  The machine may have others that come and go."""
    lines = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
    return sorted(line for line in lines if "lowerdir=l0" in line or "lowerdir=usr:empty" in line or
                  line.split()[4] in ("/", "/tmp"))


@pytest.fixture(scope="session", autouse=True)
def store():
    """Where the host image is made, once for all tests and not in the machine's own place."""
    path = tempfile.mkdtemp(prefix="pratai-test-store-", dir="/tmp")
    os.chmod(path, 0o755)
    os.environ["PRATAI_ROOT"] = path
    yield path
    shutil.rmtree(path)


@pytest.fixture
def tmp(tmp_path_factory):
    """A directory that a sandbox's user can reach, unlike pytest's own (0700)."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="pratai-test-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    subprocess.run(["chattr", "-R", "-i", str(path)], stderr=subprocess.DEVNULL, check=False)
    shutil.rmtree(path)


@pytest.fixture
def run(tmp):
    runner = Runner(tmp)
    mounts, fds = own_mounts(), set(os.listdir("/proc/self/fd"))
    yield runner
    wait_for(lambda: not runner.processes(), what="the end of what ran in the sandbox")
    wait_for(lambda: not runner.cgroups(), what="the end of its cgroups")
    assert own_mounts() == mounts
    assert set(os.listdir("/proc/self/fd")) == fds


def become_ordinary(run, cgroup=None):
    """From here on `run` is an ordinary user's; in a cgroup that was delegated to it."""
    home = run.tmp / "home"
    home.mkdir()
    os.chown(home, 1001, 1001)
    program = home / "pratai"
    shutil.copy(PRATAI, program)
    program.chmod(0o755)
    run.tmp = home
    run.variables = {"HOME": str(home), "PRATAI_ROOT": ""}
    run.program = ["setpriv", "--reuid=1001", "--regid=1001", "--clear-groups", str(program)]
    if cgroup:
        for name in ".", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads":
            os.chown(cgroup / name, 1001, 1001)
        # As a service manager would start it again: in the group itself, and once that has
        # sandboxes and so may have no process of its own, in the leaf that was made for them.
        enter = 'leaf=$0/pratai-supervisor; [ -d "$leaf" ] || leaf=$0; echo 0 >"$leaf/cgroup.procs" && exec "$@"'
        run.program = ["/bin/sh", "-c", enter, str(cgroup), *run.program]


@pytest.fixture
def delegated():
    """A cgroup that can be given away.  Pure v2."""
    path = pathlib.Path("/sys/fs/cgroup/test-user-" + uuid.uuid4().hex[:8])
    path.mkdir()
    yield path
    for directory in sorted(path.rglob("*/"), reverse=True):
        directory.rmdir()
    path.rmdir()


@pytest.fixture
def busybox(tmp):
    """A root with a static busybox and nothing else."""
    root = tmp / "busybox"
    (root / "bin").mkdir(parents=True)
    for d in root, root / "bin":
        d.chmod(0o755)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for name in "sh", "true", "cat", "ls", "echo", "sleep", "id":
        (root / "bin" / name).symlink_to("busybox")
    return root


# A python program that tries one thing and prints the name of the errno, or "OK".  The same
# text runs outside (control) and inside.
PROBE = """
import ctypes, errno, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*args):
    ctypes.set_errno(0)
    if libc.syscall(*args) < 0:
        raise OSError(ctypes.get_errno(), "")
def attempt(name, fn):
    try:
        fn()
        print(name, "OK")
    except OSError as e:
        print(name, errno.errorcode.get(e.errno, e.errno))
"""


def probe(text):
    return PROBE + text


def outside(text):
    """The same probe without a sandbox, as root."""
    p = subprocess.run([sys.executable, "-I", "-c", probe(text)], capture_output=True, text=True,
                       check=True)
    return dict(line.rsplit(" ", 1) for line in p.stdout.splitlines())


def inside(run, text, *options, **kw):
    r = run.python(probe(text), *options, **kw)
    assert r.code == 0, r.err
    return dict(line.rsplit(" ", 1) for line in r.out.splitlines())
