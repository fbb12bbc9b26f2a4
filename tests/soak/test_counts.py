"""The soak can fail.  What judges its counts is given series; and each count is taken beside a
process that leaves something real behind for each of as many rounds as check's short soak has
sandboxes in a stage: that count has grown.
"""
import ctypes
import mmap
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

from counts import NOISE, STAGES, Counts, grown, settle, small_pages, watch

STAGE = 300
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET, MS_REC_PRIVATE = 0x20000, 0x10000000, 0x40000000, 0x44000
ADD_KEY, PROCESS_KEYRING = 248, -2


# ---- The judge ----

def counted(name, *values):
    return [{name: v, "mounts": 24} for v in values]


def test_a_leak_is_growth_in_every_stage():
    assert grown(counted("spawner mappings", 60, 63, 66, 69)) == ["spawner mappings"]
    assert grown(counted("spawner mounts", 5, 6, 7, 8)) == ["spawner mounts"]
    assert grown(counted("open files", 425, 525, 625, 725)) == ["open files"]


def test_noise_is_not():
    assert not grown(counted("open files", 425, 489, 553, 617))
    assert not grown(counted("spawner descriptors", 90, 154, 218, 282))


def test_a_step_is_not():
    """What others do once, in any of the stages."""
    assert not grown(counted("open files", 425, 1425, 1425, 1425))
    assert not grown(counted("open files", 425, 425, 425, 1425))
    assert not grown(counted("kernel memory KiB", 100000, 104000, 108000, 108000))


def test_what_comes_down_is_not():
    assert not grown(counted("net namespaces", 20, 300, 200, 400))


def test_nothing_that_one_sandbox_leaves_is_within_the_noise():
    """But for memory: of it, ten KiB of the kernel's and a hundred bytes of the spawner's."""
    per_sandbox = {"kernel memory KiB": 10, "spawner memory KiB": 0.11}
    for name, noise in NOISE.items():
        assert STAGE * per_sandbox.get(name, 1) > noise, name


def test_it_is_waited_for_what_comes_down():
    left = [500]

    def take():
        left[0] = max(left[0] - 90, 10)
        return {"net namespaces": left[0]}
    assert settle(take, {"net namespaces": 10}, quiet_s=1) == {"net namespaces": 50}


# ---- Real leaks ----

class Leaker:
    """Leaves `what` for each sandbox; what it left ends with close()."""

    def __init__(self, what, place):
        self.leak, self.place = getattr(self, what), place
        self.kept, self.made, self.children, self.count = [], [], [], 0
        self.mounts = 0

    def rounds(self, count):
        for _ in range(count):
            self.count += 1
            self.leak()

    def nothing(self):
        pass

    def process(self):
        pid = os.fork()
        if pid == 0:
            libc.pause()
        self.children.append(pid)

    def descriptor(self):
        self.kept.append(os.open("/dev/null", os.O_RDONLY))

    def memory(self):
        """As an allocator's would: 128 bytes more of a heap are touched.  One of this
        interpreter's could be where something was freed."""
        if not self.made:
            heap = mmap.mmap(-1, 16 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            heap.madvise(mmap.MADV_NOHUGEPAGE)
            self.made.append(heap)
        self.made[0][self.count * 128] = 1

    def mapping(self):
        self.made.append(mmap.mmap(-1, 4096))

    def mount(self):
        target = str(self.place)
        assert libc.mount(b"leak", target.encode(), b"tmpfs", 0, b"size=4k") == 0
        self.mounts += 1

    def mount_of_machine(self):
        """Seen by who counts, too: this process has no mount namespace of its own then."""
        self.mount()

    def namespace(self, flag):
        """Held by a descriptor alone."""
        kind = {CLONE_NEWNET: "net", CLONE_NEWUSER: "user"}[flag]
        before, after = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            ok = libc.unshare(flag) == 0
            os.write(before[1], b"x" if ok else b"-")
            os.close(after[1])
            os.read(after[0], 1)
            os._exit(0)
        assert os.read(before[0], 1) == b"x"
        self.kept.append(os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY))
        for fd in *before, *after:
            os.close(fd)
        os.waitpid(pid, 0)

    def net_namespace(self):
        self.namespace(CLONE_NEWNET)

    def user_namespace(self):
        self.namespace(CLONE_NEWUSER)

    def pid_namespace(self):
        """With its processes, and those of its namespaces."""
        self.children.append(subprocess.Popen(["unshare", "-pf", "--kill-child", "sleep", "1000"]))

    def directory_of_cgroup(self):
        top = pathlib.Path("/sys/fs/cgroup/memory")
        return (top if top.is_dir() else top.parent) / f"soak-leak-{os.getpid()}-{self.count}"

    def cgroup(self):
        self.made.append(self.directory_of_cgroup())
        self.made[-1].mkdir()

    def dying_cgroup(self):
        """A page of it outlives its directory."""
        d = self.directory_of_cgroup()
        d.mkdir()
        fd = os.memfd_create("leak")
        pid = os.fork()
        if pid == 0:
            (d / "cgroup.procs").write_text("0")
            os.write(fd, b"x" * 4096)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        d.rmdir()
        self.kept.append(fd)

    def key(self):
        name = b"soak-leak-%d" % self.count
        assert libc.syscall(ADD_KEY, b"user", name, b"x", 1, PROCESS_KEYRING) > 0

    def file(self):
        self.made.append(pathlib.Path(tempfile.mkdtemp(prefix="soak-leak-", dir="/tmp")))

    def close(self):
        for child in self.children:
            pid = child if isinstance(child, int) else child.pid
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        while self.mounts:
            libc.umount2(str(self.place).encode(), 0)
            self.mounts -= 1
        for path in self.made:
            if isinstance(path, pathlib.Path):
                path.rmdir()


def serve(what, place):
    """The process that leaks, in a mount namespace of its own: a number of rounds on each line of
    standard input.  Runs as `test_counts.py WHAT PLACE`."""
    if what != "mount_of_machine":
        assert libc.unshare(CLONE_NEWNS) == 0
        assert libc.mount(None, b"/", None, MS_REC_PRIVATE, None) == 0
    small_pages()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    leaker = Leaker(what, pathlib.Path(place))
    try:
        print(flush=True)
        for line in sys.stdin:
            leaker.rounds(int(line))
            print(flush=True)
    finally:
        leaker.close()


@pytest.fixture
def place():
    path = pathlib.Path(tempfile.mkdtemp(prefix="pratai-soak-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def found(what, place):
    p = subprocess.Popen([sys.executable, __file__, what, place], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True)

    def rounds(count):
        p.stdin.write(f"{count}\n")
        p.stdin.flush()
        assert p.stdout.readline() == "\n"
    try:
        assert p.stdout.readline() == "\n"
        rounds(STAGE)
        take = Counts(place, p.pid, p.pid).take
        watch(series := [], take, rounds, [STAGE] * STAGES, quiet_s=0.5)
        return set(grown(series))
    finally:
        p.stdin.close()
        p.stdout.close()
        try:
            assert p.wait(60) == 0
        finally:
            p.kill()


LEAKS = {
    "process": {"processes", "spawner processes", "kernel memory KiB"},
    "descriptor": {"spawner descriptors", "open files"},
    "memory": {"spawner memory KiB"},
    "mapping": {"spawner mappings"},
    "mount": {"spawner mounts", "mounts of all namespaces"},
    "net_namespace": {"net namespaces", "kernel memory KiB"},
    "user_namespace": {"user namespaces"},
    "pid_namespace": {"pid namespaces", "namespaces of processes"},
    "mount_of_machine": {"mounts", "mounts of all namespaces"},
    "cgroup": {"cgroups", "cgroups with dying ones"},
    "dying_cgroup": {"cgroups with dying ones"},
    "key": {"keys"},
    "file": {"files left"},
}


@pytest.mark.parametrize("what", LEAKS)
def test_a_leak_is_found(what, place):
    assert LEAKS[what] <= found(what, place)


def test_every_count_finds_one():
    assert set.union(*LEAKS.values()) == set(NOISE)


def test_without_a_leak_nothing_is_found(place):
    assert not found("nothing", place)


if __name__ == "__main__":
    serve(*sys.argv[1:])
