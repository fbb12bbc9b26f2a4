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

from conftest import PRATAI, PROBE, call

PLACES = ("dev", "proc", "tmp", "etc", "usr", "dev/null", "dev/console", "dev/pts/0", "dev/shm",
          "dev/fd", "dev/boot_id", "dev/empty", "proc/self", "proc/self/attr", "proc/sys")


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


IN_THE_WAY = 125, ""


def attempted(way, *verbs):
    """What is said; IN_THE_WAY: the root has no writable side, so the trap cannot be covered."""
    r = call(way, "/bin/probe", *verbs)
    if not way.covers and r.code == 125 and "mount" in r.err:
        return IN_THE_WAY
    return r.code, r.out, r.err


@pytest.mark.parametrize("kind", KINDS)
def test_E04_E05_E06_E07_cve_2021_30465_2025_31133_2025_52565_2025_52881_2019_19921(way, victim, kind):
    """A link or something else where we mount; each place in an image of its own."""
    for place in PLACES:
        path = way.image / place
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            path.rmdir()
        make(kind, path, victim)
        before = path.lstat()
        said = attempted(way, "places", "descriptors")
        # What is below another place is covered by that one.
        assert said == (0, "places OK\ndescriptors OK\n", "") or said == IN_THE_WAY and "/" not in place, (
            place, said)
        after = path.lstat()
        assert (before.st_mode, before.st_ino, before.st_mtime_ns) == (
            after.st_mode, after.st_ino, after.st_mtime_ns), place
        path.unlink()
        top = way.image / place.split("/")[0]
        shutil.rmtree(top, ignore_errors=True)
        top.mkdir()
    # The control: what the probe says where the places are not its own.
    p = subprocess.run([PROBE, "places"], capture_output=True, text=True, check=True)
    assert p.stdout != "places OK\n"


def test_E12_cve_2025_24965_no_file_of_an_image_is_read(way):
    """Whoever opened one of these would wait for ever."""
    (way.image / "etc").mkdir()
    for name in ("config.json", ".krun_config.json", "etc/passwd", "etc/group", "etc/hosts", "etc/hostname",
                 "etc/resolv.conf", "etc/nsswitch.conf", "etc/ld.so.preload", "etc/ld.so.cache"):
        os.mkfifo(way.image / name, 0o666)
    r = call(way, "/bin/probe", "descriptors")
    assert (r.code, r.out) == (0, "descriptors OK\n"), r.err


def test_E02_cve_2024_21626_a_link_as_the_working_directory(way):
    work = way.image / "work"
    for target in [*(f"/proc/self/fd/{n}" for n in range(16)), "../../../../proc/self/cwd"]:
        work.symlink_to(target)
        r = call(way, "/bin/probe", "descriptors", workdir="/work")
        said = "working directory" if way.covers else "work: cannot be mounted on"
        assert r.code == 125 and said in r.err, (target, r.err)
        work.unlink()


def test_E03_nothing_is_inherited(way, tmp):
    """Whoever makes the sandbox has a directory open; a spawner's driver always has, here."""
    fd = os.open(tmp, os.O_RDONLY)
    try:
        more = {} if way.name == "spawner" else {"pass_fds": [fd]}
        r = call(way, "/bin/probe", "descriptors", **more)
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


def our_program(way):
    """The file whose copy init is: one of the test's own."""
    if way.name == "spawner":
        return way.program
    program = way.run.tmp / "pratai"
    if way.name == "root":
        shutil.copy(PRATAI, program)
        way.run.program = [str(program)]
    else:
        os.chown(program, 1001, 1001)
    return program


def state_of(program):
    s = program.stat()
    return (hashlib.sha256(program.read_bytes()).digest(), s.st_mode, s.st_uid, s.st_mtime_ns, s.st_ctime_ns)


@pytest.mark.parametrize("text", [b"#!/proc/self/exe\n", b"#!/proc/self/exe run\n", b"#!/proc/1/exe\n", None])
def test_E01_cve_2019_5736_our_program_as_an_interpreter(way, text):
    """The first program of a sandbox is executed by a process that is still ours.  It may name
    our program as its interpreter; that one then runs inside, but is not changed."""
    program = our_program(way)
    evil = way.image / "evil"
    evil.write_bytes(text or with_interpreter("/proc/self/exe"))
    # What it hands unknown commands over to.
    client = pathlib.Path(str(way.image) + str(program)).with_name("pratai-client")
    client.parent.mkdir(parents=True)
    shutil.copy(PROBE, client)
    for path in evil, *client.parents:
        if path == way.image:
            break
        path.chmod(0o755)
    before = state_of(program)
    r = call(way, "/evil")
    assert r.code not in (0, 124), r.out
    assert state_of(program) == before


@pytest.mark.parametrize("landlock", [True, False])
def test_E01_our_program_is_not_written_by_who_has_it(way, landlock, monkeypatch):
    """Not even when it is given to the sandbox, readable: it is another's, and where it is the
    sandbox's own user's, init executes it as long as anything runs inside."""
    monkeypatch.setenv("PRATAI_DISABLE", os.environ.get("PRATAI_DISABLE", "") + ",landlock" * (not landlock))
    program, mine = our_program(way), way.run.tmp / "mine"
    mine.write_text("a file of the user's own")
    if way.name == "user":
        os.chown(mine, 1001, 1001)
    said, before = {}, state_of(program)
    for path in program, mine:
        with open(path) as given:
            said[path] = call(way, "/bin/probe", "write_input", stdin=given.fileno()).out.split()[1]
    # The control: a user may write what is its own.
    assert said == ({program: "ETXTBSY", mine: "OK"} if way.name == "user" else
                    {program: "EACCES", mine: "EACCES"})
    assert state_of(program) == before


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


by_run = pytest.mark.parametrize("way", ["root", "user"], indirect=True)  # a spawner binds nothing


@by_run
def test_E04_cve_2021_30465_a_target_that_moves_in_the_image(way, victim, tmp):
    source = tmp / "source"
    source.mkdir()
    with Swapper(*trap_of(way.image, victim)):
        codes = for_a_while(lambda: call(way, "/bin/probe", "places",
                                         options=["--bind", f"{source}:/spot/new"]).code)
    assert codes <= {0, 125}


@by_run
def test_E08_cve_2024_45310_a_target_that_moves_in_a_volume(way, victim, tmp):
    """Another sandbox that has the volume could do the swapping."""
    source, volume = tmp / "source", tmp / "volume"
    for d in source, volume:
        d.mkdir()
        d.chmod(0o777)
    binds = ["--bind", f"{volume}:/volume:rw", "--bind", f"{source}:/volume/spot/a/b"]
    with Swapper(*trap_of(volume, victim)):
        codes = for_a_while(lambda: call(way, "/bin/probe", "places", options=binds).code)
    assert codes <= {0, 125}


@pytest.mark.parametrize("place", ["proc", "dev", "tmp"])
def test_E07_a_place_that_moves(way, victim, place):
    (way.image / place).rmdir()
    with Swapper(*trap_of(way.image, victim, place)):
        said = for_a_while(lambda: attempted(way, "places"), 1)
    if way.covers:
        assert {s[:2] for s in said} <= {(0, "places OK\n"), (125, "")}, said
    else:  # what is mounted in the image itself moves with it, also later
        assert {s[0] for s in said} <= {0, 125}, said


def test_E02_a_working_directory_that_moves(way, victim):
    with Swapper(*trap_of(way.image, victim)):
        codes = for_a_while(lambda: call(way, "/bin/probe", "descriptors", workdir="/spot").code, 1)
    assert codes <= {0, 125}


# ---- pages that all sandboxes of an image share ----

def test_K15_cve_2016_5195_pages_of_a_layer(way):
    shared, written = way.image / "bin/shared", way.run.tmp / "written"
    shutil.copy(shared, written)
    r = call(way, "/bin/probe", "write_private", "map_shared")
    # An ordinary user may write the file, but for its copy there would have to be the directory's.
    said = "EACCES" if way.name != "user" else "EOVERFLOW" if way.covers else "EROFS"
    assert r.out == f"write_private OK\nmap_shared {said}\n"
    assert shared.read_bytes() == b"original" * 512
    # The control: outside, the page is the file's.
    p = subprocess.run([PROBE, f"at={written}", "map_shared"], capture_output=True, text=True, check=True)
    assert p.stdout.endswith("map_shared OK\n") and written.read_bytes() == b"Xriginal" + b"original" * 511
