"""Dependencies: the same are made once, for one project, and stay while a version has them."""
import json

import pytest

RUNTIME = '''
import io, json, os, socket, sys, tarfile
channel = socket.socket(fileno=3)
stream = channel.makefile("rwb")
order = json.loads(stream.readline())

def layer(name, data):
    stream.write(b'{"v":1,"type":"layer","ok":true}\\n')
    tar = tarfile.open(fileobj=stream, mode="w|")
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
    tar.close()
    stream.flush()

if order["type"] == "dependencies":
    needs = stream.read(order["bytes"])
    print("installing", needs.decode(), os.path.exists("/function/main.py"), flush=True)
    if needs == b"bad":
        stream.write(b'{"v":1,"type":"result","ok":false,"error":{"message":"there is no bad"}}\\n')
        stream.flush()
        sys.exit(1)
    layer("opt/deps/installed", needs)
else:
    needs = open("/function/needs", "rb").read()
    stream.write(b'{"v":1,"type":"dependencies","bytes":%d}\\n' % len(needs) + needs)
    layer("function/mine", open("/function/main.py", "rb").read())
'''
EVENT = '''
import socket
channel = socket.socket(fileno=3)
body = (open("/function/mine").read() + " " + open("/opt/deps/installed").read()).encode()
channel.sendall(b'{"v":1,"type":"imported"}\\n')
channel.makefile("rb").readline()
channel.sendall(b'{"v":1,"type":"result","ok":true,"bytes":%d}\\n' % len(body) + body)
'''
SERVED = "dependencies: those of an earlier build with the same requirements\n"


@pytest.fixture
def sharing(tmp_path, new_platform):
    home = tmp_path / "runtimes"
    here = home / "sharing/layer/opt/sharing"
    here.mkdir(parents=True)
    (home / "sharing/runtime.json").write_text(json.dumps({
        "name": "sharing", "description": "says what it needs",
        "command": ["/usr/bin/python3", "/opt/sharing/event.py"],
        "build": ["/usr/bin/python3", "/opt/sharing/build.py"]}))
    (here / "build.py").write_text(RUNTIME)
    (here / "event.py").write_text(EVENT)
    new_platform.options = "--runtimes", str(home)
    return new_platform.start(*new_platform.options)


def make(p, text, needs, **more):
    return p.wait_function({"main.py": text, "needs": needs}, runtime="sharing", **more)


def log_of(p, name):
    return p.get(f"/v1/functions/{name}/build")["log"]


def digest_of(p, name):
    return p.get(f"/v1/functions/{name}/versions")["items"][-1]["dependencies_digest"]


def test_once_for_all(sharing):
    p = sharing
    names = [make(p, f"f{i}", "same") for i in range(10)]
    assert [log_of(p, n).count("installing same False") for n in names] == [1] + [0] * 9
    assert all(log_of(p, n).endswith(SERVED) for n in names[1:])
    assert len({digest_of(p, n) for n in names}) == 1
    assert [p.call(n).text for n in names] == [f"f{i} same" for i in range(10)]
    # Others, and back to the version before, whose layer is still there.
    p.upload({}, {"main.py": "new", "needs": "other"}, "PATCH", f"/v1/functions/{names[0]}")
    p.settled(names[0])
    assert "installing other" in log_of(p, names[0]) and p.call(names[0]).text == "new other"
    p.ok("function-rollback", names[0], "--to", "1")
    assert p.call(names[0]).text == "f0 same"
    # Without the function that had it made; and after a restart.
    p.ok("function-delete", names[0])
    p.end()
    p.start(*p.options)
    assert p.call(names[1]).text == "f1 same"
    assert log_of(p, make(p, "later", "same")).endswith(SERVED)


def test_failed_and_lost_ones(sharing):
    p = sharing
    for _ in range(2):
        name = p.create({"main.py": "x", "needs": "bad"}, "failed", runtime="sharing")
        assert "installing bad" in log_of(p, name)
        assert p.get(f"/v1/functions/{name}")["state_reason"] == "there is no bad"
    digest = digest_of(p, make(p, "one", "same"))
    blob, = p.state.rglob(f"blobs/sha256/{digest[:2]}/{digest[2:]}")
    blob.unlink()
    assert "installing same" in log_of(p, make(p, "two", "same"))
    assert blob.exists()
