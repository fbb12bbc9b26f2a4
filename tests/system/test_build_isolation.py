"""What code in a build can reach.  A build with requirements runs code of packages, in the
network namespace of the host: abstract unix sockets there belong to others."""
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

NAME = "\\0" + %r


def attempt():
    try:
        s = socket.socket(socket.AF_UNIX)
        s.connect(NAME)
        return s.recv(100).decode()
    except OSError as error:
        return error.errno


def build_wheel(directory, settings=None, metadata=None):
    name = "probe-1-py3-none-any.whl"
    with zipfile.ZipFile(directory + "/" + name, "w") as z:
        z.writestr("probe_result.json", json.dumps([attempt(), len(socket.socketpair())]))
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
EAFNOSUPPORT = 97


def test_abstract_sockets_of_the_host(platform):
    name = "pratai-test-" + uuid.uuid4().hex
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0" + name)
        server.listen(2)

        def serve():
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    peer.sendall(b"a secret")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with socket.socket(socket.AF_UNIX) as control:  # outside the same attempt succeeds
            control.connect("\0" + name)
            assert control.recv(100) == b"a secret"
        f = platform.wait_function({"main.py": MAIN, "requirements.txt": "/function/pkg\n",
                                    "pkg/pyproject.toml": PROJECT,
                                    "pkg/probe.py": BACKEND % name})
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    r = platform.call(f)
    assert (r.status_code, json.loads(r.text)) == (200, [EAFNOSUPPORT, 2])
