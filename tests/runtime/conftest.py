"""Drives a runtime (python3, where a module says no other) as a node does, over the channel, without a sandbox.

The programs are those that were built: PRATAI_BUILD names the directory (default: build).
"""
import json
import os
import pathlib
import socket
import subprocess
import threading
import types

import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("PRATAI_BUILD", TOP / "build")).resolve()
SECONDS = 60


def stage_of(runtime):
    stage = BUILD / "runtimes" / runtime
    assert stage.is_dir(), f"{stage} is not there: make runtimes"
    return stage


# Modules that test another runtime have these two of their own.
@pytest.fixture(scope="session")
def stage():
    return stage_of("python3")


@pytest.fixture(scope="session")
def entry():
    return "main.py"


@pytest.fixture(scope="session")
def unpack_program():
    program = BUILD / "pratai-unpack"
    assert program.is_file(), f"{program} is not there: make"
    return str(program)


@pytest.fixture
def root(tmp_path):
    """What would be / in a sandbox: function/, opt/deps/ if a test makes it, tmp/."""
    (tmp_path / "function").mkdir()
    (tmp_path / "tmp").mkdir()
    return tmp_path


def write_files(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        if path.name == "main":
            path.chmod(0o555)


def command_of(stage, key, root):
    command = json.loads((stage / "runtime.json").read_text())[key]
    return [str(stage / "layer") + word if word.startswith("/opt/") else word
            for word in command] + [str(root)]


class Process:
    """A runtime's process, with its channel."""

    def __init__(self, command, cwd, env=None):
        ours, theirs = socket.socketpair()
        ours.settimeout(SECONDS)
        self.process = subprocess.Popen(
            command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, pass_fds=(3,), preexec_fn=lambda: os.dup2(theirs.fileno(), 3),
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/tmp",
                 "PRATAI_MEMORY_MIB": "128", **(env or {})})
        theirs.close()
        self.socket = ours
        self.stream = ours.makefile("rwb")
        self.written = {}  # read all along, as a node does
        self.readers = [threading.Thread(target=self.read, args=(name,), daemon=True)
                        for name in ("stdout", "stderr")]
        for reader in self.readers:
            reader.start()

    def read(self, name):
        self.written[name] = getattr(self.process, name).read()

    def line(self):
        try:
            line = self.stream.readline()
        except ConnectionResetError:  # it ended with something unread
            return None
        assert len(line) <= 64 << 10
        return json.loads(line) if line else None

    def write(self, data):
        try:
            self.stream.write(data)
            self.stream.flush()
        except (BrokenPipeError, ConnectionResetError):
            pass

    def end(self):
        self.process.wait(timeout=SECONDS)
        for reader in self.readers:
            reader.join(SECONDS)
            assert not reader.is_alive(), "something holds its standard output or error"
        self.process.stdout.close()
        self.process.stderr.close()
        self.stream.close()
        self.socket.close()
        return *(self.written[name].decode() for name in ("stdout", "stderr")), self.process.returncode


@pytest.fixture
def event(stage, entry, root):
    """event(files, payload…): what became of one event."""

    def run(files, payload=None, kind=None, env=None, **members):
        if isinstance(files, str):
            files = {entry: files}
        write_files(root, {"function/" + name: text for name, text in files.items()})
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        kind = kind or ("none" if payload is None else "json")
        data = b"" if kind == "none" else data
        p = Process(command_of(stage, "command", root), root / "function", env)
        first = p.line()
        result, body = first, b""
        if first and first["type"] == "imported":
            line = {"v": 1, "type": "event", "event_id": "E1", "function_id": "F1",
                    "request_id": "R1", "source": "webhook", "attempt": 2, "timeout_ms": 5000,
                    "payload": kind, "bytes": len(data), "unknown": [1], **members}
            p.write(json.dumps(line).encode() + b"\n" + data)
            result = p.line()
            body = p.stream.read(result.get("bytes", 0)) if result else b""
        out, err, code = p.end()
        error = (result or {}).get("error") or {}
        return types.SimpleNamespace(
            first=first, result=result, body=body, out=out, err=err, code=code, error=error,
            ok=bool(result and result.get("ok")), type=error.get("type"),
            message=error.get("message"), traceback=error.get("traceback"))

    return run


@pytest.fixture
def build(stage, root):
    """build(files): the result line, what it said to need before, the tar, the log, the exit
    status.  needs: the build of dependencies instead."""

    def run(files, timeout_s=50, env=None, network=True, needs=None):
        write_files(root, {"function/" + name: text for name, text in files.items()})
        p = Process(command_of(stage, "build", root), root / "tmp", env)
        request = {"v": 1, "type": "build", "network": network, "requirements_timeout_s": timeout_s}
        if needs is not None:
            request = {"v": 1, "type": "dependencies", "requirements_timeout_s": timeout_s,
                       "bytes": len(needs)}
        p.write(json.dumps(request).encode() + b"\n" + (needs or b""))
        result = p.line()
        said = None
        if result and result["type"] == "dependencies":
            said = p.stream.read(result["bytes"])
            result = p.line()
        tar = p.stream.read()
        out, err, code = p.end()
        error = (result or {}).get("error") or {}
        return types.SimpleNamespace(result=result, needs=said, tar=tar, out=out, err=err, code=code,
                                     ok=bool(result and result.get("ok")), type=error.get("type"),
                                     message=error.get("message"))

    return run
