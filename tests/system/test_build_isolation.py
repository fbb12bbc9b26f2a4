"""What code in a build can reach.  A build with requirements runs code of packages: it gets to the
Internet and to what the operator's settings name, and to nothing else of the machine."""
import errno
import json
import socket
import threading
import uuid

# A package whose own build backend, in the zip itself, tries to reach a name and prints what
# came of it; nothing is fetched.
PROJECT = '''
[build-system]
requires = []
build-backend = "probe"
backend-path = ["."]
[project]
name = "probe"
version = "1"
'''
BACKEND = '''
import json
import socket
import zipfile

NAME, PORT = "\\0" + %r, %d


def attempt(family, address):
    try:
        s = socket.socket(family)
        s.connect(address)
        return s.recv(100).decode()
    except OSError as error:
        return error.errno


def interfaces():
    return [line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]]


def build_wheel(directory, settings=None, metadata=None):
    name = "probe-1-py3-none-any.whl"
    with zipfile.ZipFile(directory + "/" + name, "w") as z:
        z.writestr("probe_result.json", json.dumps([
            attempt(socket.AF_UNIX, NAME), attempt(socket.AF_INET, ("127.0.0.1", PORT)),
            interfaces()]))
        z.writestr("probe-1.dist-info/METADATA",
                   "Metadata-Version: 2.1\\nName: probe\\nVersion: 1\\n")
        z.writestr("probe-1.dist-info/WHEEL",
                   "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        z.writestr("probe-1.dist-info/RECORD", "")
    return name
'''
MAIN = '''
import json


def main(payload=None):
    return json.load(open("/opt/deps/probe_result.json"))
'''


def serve(server):
    while True:
        try:
            peer, _ = server.accept()
        except OSError:
            return
        with peer:
            peer.sendall(b"a secret")


def test_the_machine_of_a_build(platform):
    name = "pratai-test-" + uuid.uuid4().hex
    with socket.socket(socket.AF_UNIX) as local, socket.socket(socket.AF_INET) as tcp:
        local.bind("\0" + name)
        tcp.bind(("127.0.0.1", 0))
        for server in (local, tcp):
            server.listen(2)
            threading.Thread(target=serve, args=(server,), daemon=True).start()
            with socket.socket(server.family) as control:  # outside the same attempt succeeds
                control.connect(server.getsockname())
                assert control.recv(100) == b"a secret"
        port = tcp.getsockname()[1]
        f = platform.wait_function({"main.py": MAIN, "requirements.txt": "/function/pkg\n",
                                    "pkg/pyproject.toml": PROJECT,
                                    "pkg/probe.py": BACKEND % (name, port)})
        for server in (local, tcp):
            server.shutdown(socket.SHUT_RDWR)
    r = platform.call(f)
    assert (r.status_code, json.loads(r.text)) == (
        200, [errno.ECONNREFUSED, errno.ECONNREFUSED, ["lo", "tap0"]])
