"""What a build prints is told while it prints."""
import json
import os
import pty
import subprocess
import time

import pytest

from conftest import PRATAI, wait_for


@pytest.fixture
def runtime(tmp_path, new_platform):
    """A runtime whose build prints a line, waits, prints another, and says that it is ready."""
    home = tmp_path / "runtimes"
    here = home / "slow/layer/opt/slow"
    here.mkdir(parents=True)
    (home / "slow/runtime.json").write_text(json.dumps({
        "name": "slow", "description": "builds slowly",
        "command": ["/usr/bin/python3", "/opt/slow/event.py"],
        "build": ["/usr/bin/python3", "/opt/slow/build.py"]}))
    (here / "build.py").write_text('''
import io, socket, sys, tarfile, time
channel = socket.socket(fileno=3)
channel.makefile("rb").readline()
for i in range(4):
    print("step %d of the build" % i, flush=True)
    time.sleep(1.5)
if open("/function/main.py").read().startswith("fail"):
    channel.sendall(b'{"v":1,"type":"result","ok":false,"error":{"type":"No","message":"it will not do"}}\\n')
    sys.exit(1)
channel.sendall(b'{"v":1,"type":"layer","ok":true}\\n')
tar = tarfile.open(fileobj=channel.makefile("wb"), mode="w|", format=tarfile.PAX_FORMAT)
tar.add("/function/main.py", "function/main.py", filter=lambda i: i)
tar.close()
print("done", flush=True)
''')
    new_platform.start("--runtimes", str(home))
    return new_platform


def on_terminal(platform, *words):
    """(exit code, what the terminal showed, when each piece of it came)."""
    parent, child = pty.openpty()
    p = subprocess.Popen([str(PRATAI), *words], env=dict(
        platform.environment(), OS_PRATAI_URL=platform.url, OS_TOKEN=platform.token), stderr=child,
                         stdout=subprocess.PIPE)
    os.close(child)
    seen, pieces = b"", []
    while True:
        try:
            data = os.read(parent, 4096)
        except OSError:
            data = b""
        if not data:
            break
        seen += data
        pieces.append((time.monotonic(), data))
    os.close(parent)
    p.stdout.close()
    return p.wait(60), seen.decode(), pieces


def test_live(runtime, tmp_path):
    source = tmp_path / "f"
    source.mkdir()
    (source / "main.py").write_text("pass\n")
    code, seen, pieces = on_terminal(runtime, "function-create", "slow", "--file", str(source),
                                     "--runtime", "slow", "-f", "json")
    assert code == 0, seen
    for i in range(4):
        assert seen.count(f"step {i} of the build") == 1, seen
    when = [min(t for t, data in pieces if f"step {i}".encode() in data) for i in (0, 3)]
    assert when[1] - when[0] > 1
    log = runtime.get("/v1/functions/slow/build")["log"]
    assert log == "".join(f"step {i} of the build\n" for i in range(4)) + "done\n"

    # A failure: all of it has been shown, and is not shown again; the reason is the last line.
    (source / "main.py").write_text("fail\n")
    code, seen, _ = on_terminal(runtime, "function-update", "slow", "--file", str(source))
    assert code == 1 and "it will not do" in seen.strip().splitlines()[-1]
    for i in range(4):
        assert seen.count(f"step {i} of the build") == 1, seen


def test_asked_for_meanwhile(runtime, tmp_path):
    source = tmp_path / "f"
    source.mkdir()
    (source / "main.py").write_text("pass\n")
    runtime.ok("function-create", "slow", "--file", str(source), "--runtime", "slow", "--no-wait")
    log = wait_for(lambda: runtime.ok("function-logs", "slow", "--build").out, 20, "a line")
    assert log.startswith("step 0 of the build\n") and "done" not in log
    assert runtime.get("/v1/functions/slow")["state"] == "building"
    runtime.settled("slow")
    assert runtime.ok("function-logs", "slow", "--build").out.endswith("step 3 of the build\ndone\n")
