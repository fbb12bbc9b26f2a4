"""The runner and the leak gate are those of tests/sandbox, in tests/sandboxes.py.

A sandbox is made in one of several ways: by `pratai run` as root, as uid 0 or by an ordinary
user, and by a spawner, of which `ask` is the driver.  `way` hides which.
"""
import itertools
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
pytest.register_assert_rewrite("sandboxes")
from sandboxes import *  # noqa: E402,F403
from sandboxes import BUILD, BUSYBOX, WRITABLE_ROOT, Result, become_ordinary  # noqa: E402

PROBE, ASK = BUILD / "tests/escape/probe", BUILD / "tests/escape/ask"
# Images and stores are made to be read by others.
os.umask(0o022)
DIGEST = "00112233445566778899aabbccddeeff" * 2


class ByRun:
    def __init__(self, run, name):
        self.run, self.name, self.image = run, name, run.tmp / "image"
        self.options = ["--uid", "0"] if name == "uid 0" else []
        if name == "user":
            become_ordinary(run)
        # Without a writable side whatever is mounted on has to be in the image.
        self.covers = WRITABLE_ROOT or name != "user"

    def start(self, *argv, workdir="/", options=(), stdin=subprocess.PIPE, **kw):
        return self.run.start("--rootfs", self.image, "--workdir", workdir, "--timeout", "60s",
                              *self.options, *options, argv=argv, stdin=stdin, **kw)

    def finish(self, p):
        return self.run.finish(p)

    def close(self):
        pass


class Asked:
    """A sandbox that a spawner was asked for, with pipes to it."""

    def __init__(self):
        pipes = [os.pipe() for _ in range(3)]
        self.given = [pipes[0][0], pipes[1][1], pipes[2][1]]
        self.stdin, self.stdout, self.stderr = (
            os.fdopen(pipes[0][1], "wb", 0), os.fdopen(pipes[1][0], "rb", 0), os.fdopen(pipes[2][0], "rb", 0))
        self.code = None

    def poll(self):
        return self.code


class BySpawner:
    name, covers = "spawner", True

    def __init__(self, run, store):
        self.run, self.asked, self.tags = run, {}, itertools.count(1)
        self.image = store / "layers/sha256" / DIGEST
        self.image.mkdir(parents=True)
        # One of its own: a test may look whether it has been changed.
        self.program = run.tmp / "spawner"
        shutil.copy(BUILD / "pratai-spawner", self.program)
        self.errors = open(run.tmp / "ask.log", "w+b")
        self.socket, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Something that must not reach a sandbox.
        inherited = os.open(run.tmp, os.O_RDONLY | os.O_DIRECTORY)
        with its:
            self.process = subprocess.Popen([ASK, store, DIGEST, self.program], stdin=its, stderr=self.errors,
                                            pass_fds=[inherited])
        os.close(inherited)

    def start(self, *argv, workdir="/", stdin=None):
        asked, tag = Asked(), next(self.tags)
        if stdin is not None:
            os.close(asked.given[0])
            asked.given[0] = os.dup(stdin)
        words = [str(tag), workdir, self.run.mark, *map(str, argv)]
        socket.send_fds(self.socket, ["\0".join([*words, ""]).encode()], asked.given)
        for fd in asked.given:
            os.close(fd)
        self.asked[tag] = asked
        return asked

    def finish(self, asked):
        asked.stdin.close()
        out, err = (f.read().decode("utf-8", "replace") for f in (asked.stdout, asked.stderr))
        asked.stdout.close()
        asked.stderr.close()
        self.socket.settimeout(120)
        while asked.code is None:
            answer = self.socket.recv(1024).decode()
            assert answer, self.said()
            tag, code, text = answer.split(" ", 2)
            one = self.asked.pop(int(tag))
            one.code, one.text = int(code), text
        return Result(asked.code, out, err + asked.text, None)

    def said(self):
        self.errors.seek(0)
        return self.errors.read().decode()

    def close(self):
        self.socket.close()
        assert self.process.wait(60) == 0, self.said()
        self.errors.close()
        name = f"pratai-e{self.process.pid}"
        shutil.rmtree(self.image)
        left = [d for _, dirs, _ in os.walk("/sys/fs/cgroup") for d in dirs if d == name]
        assert not left


def make_image(way):
    """With the probe, a shell and a file that all sandboxes of it share, which a user owns."""
    image = way.image
    for name in "bin", "dev", "proc", "tmp":
        (image / name).mkdir(parents=True)
    shutil.copy(PROBE, image / "bin/probe")
    shutil.copy(BUSYBOX, image / "bin/busybox")
    for name in "sh", "ls", "cat":
        (image / "bin" / name).symlink_to("busybox")
    (image / "bin/shared").write_bytes(b"original" * 512)
    if way.name == "user":
        os.chown(image / "bin/shared", 1001, 1001)


def call(way, *argv, **kw):
    return way.finish(way.start(*argv, **kw))


@pytest.fixture(scope="session")
def spawner_store(store):
    """Of all spawners, one after the other: to make its host image takes a while."""
    path = pathlib.Path(store, "spawner")
    path.mkdir()
    return path


@pytest.fixture(params=["root", "user", "spawner"])
def way(request, run, spawner_store):
    """How the sandboxes of this test are made."""
    made = BySpawner(run, spawner_store) if request.param == "spawner" else ByRun(run, request.param)
    make_image(made)
    yield made
    made.close()
