"""The process that reads images: who it is, and what it may not."""
import os
import pathlib
import random
import signal
import subprocess

import pytest

from images import BASE, BUILD, Layout, entry, tar
from sandboxes import wait_for


@pytest.fixture
def stopped(images):
    """The worker's pid, stopped in the middle of a layer, and the import's process."""
    path = images.write(tar(entry("big", random.Random(1).randbytes(30 << 20)),
                            *(entry("f%d" % i, "x" * 5000) for i in range(3000))))
    p = subprocess.Popen([*images.client, "image-import", path, "--name", "x", "--root", images.root],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    children = wait_for(lambda: open(f"/proc/{p.pid}/task/{p.pid}/children").read().split(), what="the worker")
    pid = int(children[0])
    wait_for(lambda: list(images.store.glob("tmp.*/layers/new/f1*")), what="a layer")
    os.kill(pid, signal.SIGSTOP)
    yield pid, p
    os.kill(pid, signal.SIGCONT)
    out, err = p.communicate()
    assert p.returncode == 0, err


def status(pid):
    return dict(l.split(":\t", 1) for l in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in l)


def test_it_is_nobody(stopped):
    pid, p = stopped
    s = status(pid)
    assert set(s["Uid"].split() + s["Gid"].split()) == {str(BASE)} and s["Groups"].strip() == ""
    # CAP_CHOWN, DAC_OVERRIDE, FOWNER, FSETID, of its own user namespace.
    assert {int(s[k], 16) for k in ("CapEff", "CapPrm", "CapBnd")} == {0b11011} and int(s["CapAmb"], 16) == 0
    assert os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user")
    assert (s["NoNewPrivs"], s["Seccomp"]) == ("1", "2")
    assert pathlib.Path(f"/proc/{pid}/environ").read_bytes() == b""
    # The store is read-only for it, and its own directory is the root of a mount.
    flags = {n: os.statvfs(f"/proc/{pid}/fd/{n}").f_flag for n in (3, 4)}
    assert not flags[3] & os.ST_RDONLY and flags[4] & os.ST_RDONLY
    assert all(f & os.ST_NOSUID and f & os.ST_NODEV for f in flags.values())
    assert os.path.samefile(f"/proc/{pid}/fd/3/..", f"/proc/{pid}/fd/3")
    fds = {int(n): os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")}
    store = [v for n, v in fds.items() if n > 2]
    assert len(store) < 8 and not [v for v in store if v.startswith(("/root", "/etc", "socket"))], fds


def test_memory_is_flat(stopped):
    """It has read and written 30 MiB so far."""
    pid, p = stopped
    if b"__asan_init" not in (BUILD / "pratai-unpack").read_bytes():
        assert int(status(pid)["VmHWM"].split()[0]) < 16 << 10, status(pid)["VmHWM"]


def test_it_dies_with_its_parent(images):
    path = images.write(tar(*(entry("f%d" % i, "x" * 5000) for i in range(5000))))
    p = subprocess.Popen([*images.client, "image-import", path, "--name", "x", "--root", images.root])
    children = wait_for(lambda: open(f"/proc/{p.pid}/task/{p.pid}/children").read().split(), what="the worker")
    p.send_signal(signal.SIGKILL)
    p.wait()
    wait_for(lambda: not os.path.exists("/proc/" + children[0]) or status(children[0])["State"].startswith("Z"),
             what="the worker's end")
    images.take(tar(entry("a", "a")), "y")


def test_what_the_unpacker_may(images, tmp):
    """Nothing but the store's files is opened, by strace's account, from the first byte read on."""
    path = images.write(Layout(tar(entry("a", "a")), tar(entry("b", "b"))).tar())
    log = tmp / "trace"
    p = subprocess.run(["strace", "-f", "-o", log, *images.client, "image-import", path, "--name", "x", "--root",
                        images.root], capture_output=True, text=True, check=False,
                       env=dict(os.environ, ASAN_OPTIONS="detect_leaks=0"))
    assert p.returncode == 0, p.stderr
    lines = log.read_text().splitlines()
    start = next(i for i, l in enumerate(lines) if "landlock_restrict_self" in l)
    pid = lines[start].split()[0]
    after = [l.split(None, 1)[1] for l in lines[start + 1:] if l.split()[0] == pid]
    assert len(after) > 50
    assert not [l for l in after if l.startswith(("open(", "openat(AT_FDCWD")) and "EACCES" not in l]
    assert not [l for l in after if l.startswith(("socket(", "clone", "execve", "fork", "mount", "kill("))]


def worker(temp, store, source, *words):
    """The program by itself."""
    def become():
        os.dup2(temp, 100), os.dup2(store, 101)
        os.dup2(100, 3), os.dup2(101, 4)

    return subprocess.run([BUILD / "pratai-unpack", "image", *words], stdin=source, capture_output=True, check=False,
                          close_fds=False, preexec_fn=become, env={}, timeout=60)


def test_random_damage(images, tmp):
    """Whatever byte of an archive changes, there is an answer: it is taken, or a sentence says why not."""
    rng = random.Random(20261124)
    (tmp / "store/blobs/sha256").mkdir(parents=True)
    (tmp / "store/layers").mkdir()
    store = os.open(tmp / "store", os.O_RDONLY)
    layer = tar(entry("d"), entry("d/f", "x" * 3000, pax={"SCHILY.xattr.user.a": "b"}), entry("n" * 120, "long"),
                entry(".wh.g", ""), entry("d/.wh..wh..opq", ""))
    samples = [layer, Layout(layer, layer + bytes(512)).tar(), Layout(layer, how="none").docker()]
    for i in range(150):
        data = bytearray(samples[i % 3])
        for _ in range(rng.choice([1, 1, 3, 20])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        temp = tmp / f"temp.{i}"
        temp.mkdir()
        fd = os.open(temp, os.O_RDONLY)
        with open(images.write(bytes(data)), "rb") as source:
            p = worker(fd, store, source, "x", "owners")
        os.close(fd)
        assert p.returncode in (0, 1), (i, p)
        assert p.stderr == b"" and p.stdout.endswith(b"\n")
        text = [l for l in p.stdout.decode("utf-8", "replace").splitlines() if not l.startswith("+")]
        assert text and (p.returncode == 0 or len(text) == 1)
    os.close(store)
