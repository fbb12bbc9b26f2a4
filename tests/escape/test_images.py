"""Images and volumes that are traps, still and moving: whatever is where we mount, look or make
something, nothing outside is changed, and /proc, /dev and /tmp are the sandbox's own."""
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest

from conftest import BUILD, PRATAI

PROBE = BUILD / "tests/escape/probe"
PLACES = ("dev", "proc", "tmp", "etc", "usr", "dev/null", "dev/console", "dev/pts/0", "dev/shm",
          "dev/fd", "dev/boot_id", "dev/empty", "proc/self", "proc/self/attr", "proc/sys")


@pytest.fixture
def image(tmp):
    """A root with the probe and a file that all sandboxes of it share."""
    root = tmp / "image"
    (root / "bin").mkdir(parents=True)
    shutil.copy(PROBE, root / "bin/probe")
    (root / "bin/shared").write_bytes(b"original" * 512)
    return root


@pytest.fixture
def victim(tmp):
    """A directory outside that everybody could write; unchanged in the end."""
    directory = tmp / "victim"
    directory.mkdir()
    (directory / "file").write_text("untouched")
    for path, mode in (directory, 0o777), (directory / "file", 0o666):
        path.chmod(mode)
    before = state(directory)
    yield directory
    assert state(directory) == before


def state(directory):
    return [(p.name, p.read_bytes() if p.is_file() else None, p.stat().st_mode, p.stat().st_mtime_ns)
            for p in sorted([directory, *directory.rglob("*")])]


def make(kind, path, victim):
    target = victim if path.name in ("dev", "proc", "tmp", "etc", "usr", "self", "attr", "sys", "fd",
                                     "shm", "empty") else victim / "file"
    links = {"link": str(target), "link up": "../" * 20 + str(target).lstrip("/"),
             "link to a descriptor": "/proc/self/fd/5", "link to the root": f"/proc/self/root{target}",
             "link to init": f"/proc/1/root{target}", "link to itself": path.name,
             "link to the program": "/proc/self/exe"}
    if kind in links:
        path.symlink_to(links[kind])
    elif kind == "file":
        path.write_text("a trap")
    elif kind == "fifo":
        os.mkfifo(path, 0o666)
    else:
        os.mknod(path, 0o20666, os.makedev(1, 7))


KINDS = ("link", "link up", "link to a descriptor", "link to the root", "link to init",
         "link to itself", "link to the program", "file", "fifo", "device")


@pytest.mark.parametrize("kind", KINDS)
def test_E04_E05_E06_E07_cve_2021_30465_2025_31133_2025_52565_2025_52881_2019_19921(
        run, who, image, victim, kind):
    """A link or something else where we mount; each place in an image of its own."""
    for place in PLACES:
        path = image / place
        path.parent.mkdir(parents=True, exist_ok=True)
        make(kind, path, victim)
        before = path.lstat()
        r = run("--rootfs", image, "--timeout", "20s", argv=["/bin/probe", "places", "descriptors"])
        assert (r.code, r.out) == (0, "places OK\ndescriptors OK\n"), (place, r.err)
        after = path.lstat()
        assert (before.st_mode, before.st_ino, before.st_mtime_ns) == (
            after.st_mode, after.st_ino, after.st_mtime_ns), place
        path.unlink()
        for parent in path.parents:
            if parent in (image, image / "bin"):
                break
            parent.rmdir()
    # The control: what the probe says where the places are not its own.
    p = subprocess.run([PROBE, "places"], capture_output=True, text=True, check=True)
    assert p.stdout != "places OK\n"


def test_E12_cve_2025_24965_no_file_of_an_image_is_read(run, who, image):
    """Whoever opened one of these would wait for ever."""
    (image / "etc").mkdir()
    for name in ("config.json", ".krun_config.json", "etc/passwd", "etc/group", "etc/hosts", "etc/hostname",
                 "etc/resolv.conf", "etc/nsswitch.conf", "etc/ld.so.preload", "etc/ld.so.cache"):
        os.mkfifo(image / name, 0o666)
    r = run("--rootfs", image, "--timeout", "20s", argv=["/bin/probe", "descriptors"])
    assert (r.code, r.out) == (0, "descriptors OK\n"), r.err


def test_E02_cve_2024_21626_a_link_as_the_working_directory(run, who, image):
    for n in range(16):
        (image / "work").symlink_to(f"/proc/self/fd/{n}")
        r = run("--rootfs", image, "--workdir", "/work", argv=["/bin/probe", "descriptors"])
        assert r.code == 125 and "working directory" in r.err, (n, r.out)
        (image / "work").unlink()
    (image / "work").symlink_to("../../../../proc/self/cwd")
    assert run("--rootfs", image, "--workdir", "/work", argv=["/bin/probe"]).code == 125


def test_E03_nothing_is_inherited(run, who, image, tmp):
    fd = os.open(tmp, os.O_RDONLY)
    try:
        r = run("--rootfs", image, argv=["/bin/probe", "descriptors"], pass_fds=[fd])
        assert r.out == "descriptors OK\n"
        p = subprocess.run([PROBE, "descriptors"], pass_fds=[fd], capture_output=True, text=True, check=True)
        assert p.stdout == "descriptors EMFILE\n"  # the control
    finally:
        os.close(fd)


def with_interpreter(path):
    """A program whose loader is our own one; the kernel maps it, and starts it there."""
    program = pathlib.Path("/usr/bin/true").read_bytes()
    start = program.index(b"/lib64/ld-linux-x86-64.so.2\0") if b"/lib64/ld-l" in program else -1
    if start < 0:
        pytest.skip("not a program of x86_64's loader")
    name = path.encode().ljust(28, b"\0")
    return program[:start] + name + program[start + 28:]


@pytest.mark.parametrize("text", [b"#!/proc/self/exe\n", b"#!/proc/self/exe run\n", b"#!/proc/1/exe\n", None])
def test_E01_cve_2019_5736_our_program_as_an_interpreter(run, who, image, tmp, text):
    """The first program of a sandbox is executed by a process that is still ours.  It may name
    our program as its interpreter; that one then runs inside, but is not changed."""
    program = tmp / "home/pratai" if who == "user" else tmp / "pratai"
    if who == "root":
        shutil.copy(PRATAI, program)
        run.program = [str(program)]
    evil = image / "evil"
    evil.write_bytes(text or with_interpreter("/proc/self/exe"))
    evil.chmod(0o755)
    # What it hands unknown commands over to.
    client = pathlib.Path(str(image) + str(program)).with_name("pratai-client")
    client.parent.mkdir(parents=True)
    shutil.copy(PROBE, client)
    for path in client.parents:
        if path == image:
            break
        path.chmod(0o755)

    def now():
        s = program.stat()
        return (hashlib.sha256(program.read_bytes()).digest(), s.st_mode, s.st_uid, s.st_mtime_ns,
                s.st_ctime_ns)
    before = now()
    r = run("--rootfs", image, "--timeout", "20s", argv=["/evil"])
    assert r.code != 0 and r.code != 124, r.out
    assert now() == before


# ---- moving traps ----

SWAP = """
import ctypes, os, sys
libc, a, b = ctypes.CDLL(None), sys.argv[1].encode(), sys.argv[2].encode()
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1000):
        libc.renameat2(-100, a, -100, b, 2)
"""


class Swapper:
    """Exchanges two names as fast as it can."""

    def __init__(self, a, b):
        self.words = [sys.executable, "-I", "-c", SWAP, str(a), str(b)]
        self.name = a

    def __enter__(self):
        self.process = subprocess.Popen(self.words)
        end, seen = time.monotonic() + 10, set()
        while len(seen) < 2:  # the control: it is in fact both
            seen.add(self.name.is_symlink())
            assert time.monotonic() < end
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def trap_of(directory, victim, name="spot"):
    (directory / name).mkdir()
    (directory / name).chmod(0o777)
    (directory / (name + ".link")).symlink_to("../" * 20 + str(victim).lstrip("/"))
    return directory / name, directory / (name + ".link")


def for_a_while(attempt, seconds=1.5):
    end, codes = time.monotonic() + seconds, set()
    while time.monotonic() < end:
        codes.add(attempt())
    return codes


def test_E04_cve_2021_30465_a_target_that_moves_in_the_image(run, who, image, victim, tmp):
    source = tmp / "source"
    source.mkdir()
    with Swapper(*trap_of(image, victim)):
        codes = for_a_while(lambda: run("--rootfs", image, "--bind", f"{source}:/spot/new",
                                        argv=["/bin/probe", "places"]).code)
    assert codes <= {0, 125}


def test_E08_cve_2024_45310_a_target_that_moves_in_a_volume(run, who, image, victim, tmp):
    """Another sandbox that has the volume could do the swapping."""
    source, volume = tmp / "source", tmp / "volume"
    for d in source, volume:
        d.mkdir()
        d.chmod(0o777)
    with Swapper(*trap_of(volume, victim)):
        codes = for_a_while(lambda: run("--rootfs", image, "--bind", f"{volume}:/volume:rw", "--bind",
                                        f"{source}:/volume/spot/a/b", argv=["/bin/probe", "places"]).code)
    assert codes <= {0, 125}


@pytest.mark.parametrize("place", ["proc", "dev", "tmp"])
def test_E07_a_place_that_moves(run, who, image, victim, place):
    with Swapper(*trap_of(image, victim, place)):
        said = for_a_while(lambda: (lambda r: (r.code, r.out, r.err))(
            run("--rootfs", image, argv=["/bin/probe", "places"])), 1)
    assert {s[:2] for s in said} <= {(0, "places OK\n"), (125, "")}, said


def test_E02_a_working_directory_that_moves(run, who, image, victim):
    with Swapper(*trap_of(image, victim)):
        codes = for_a_while(lambda: run("--rootfs", image, "--workdir", "/spot",
                                        argv=["/bin/probe", "descriptors"]).code, 1)
    assert codes <= {0, 125}


# ---- pages that all sandboxes of an image share ----

def test_K15_cve_2016_5195_pages_of_a_layer(run, who, image):
    r = run("--rootfs", image, argv=["/bin/probe", "map_shared", "write_private"])
    # That private copies could be written, and were, is the control.
    assert r.out == "map_shared EACCES\nwrite_private OK\n"
    assert (image / "bin/shared").read_bytes() == b"original" * 512
    direct = os.open(image / "bin/shared", os.O_RDONLY)
    assert os.pread(direct, 4096, 0) == b"original" * 512
    os.close(direct)
