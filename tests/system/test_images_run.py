"""Functions on images: Debian's, and what is made of it by a small layer above it; and images of
next to nothing."""
import gzip
import json
import os
import signal
import subprocess
import sys

import pytest
import requests

from conftest import BUILD, ROOT, Platform, make_zip, wait_for

sys.path.insert(0, str(ROOT / "tests/image"))
import debian  # noqa: E402
from images import MEDIA, entry, link, sha, tar  # noqa: E402

pytestmark = pytest.mark.slow
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
TELL = """import json, os, subprocess, sys
def main(payload=None):
    release = dict(l.strip().split("=", 1) for l in open("/etc/os-release") if "=" in l)
    return {"version": sys.version.split()[0], "prefix": sys.prefix, "path": os.environ.get("PATH"),
            "home": os.environ.get("HOME"), "word": os.environ.get("WORD"), "own": os.environ.get("OWN"),
            "mark": os.path.exists("/etc/mark") and open("/etc/mark").read(), "release": release["ID"],
            "uid": os.getuid(), "got": payload}
"""


@pytest.fixture(scope="module")
def platform():
    """A node of its own, which is restarted and counted in."""
    p = Platform()
    try:
        yield p.start()
    finally:
        p.close()


@pytest.fixture(scope="module")
def base():
    """(bytes, diff id) of the layer of a Debian."""
    try:
        path, diff = debian.layer("python3", "python3-pip", "nodejs")
    except debian.Unreachable:
        pytest.skip("no source of Debian packages can be reached")
    return path.read_bytes(), diff, "zstd"


def small(*entries):
    """The same of a layer made here."""
    data = tar(*entries)
    return gzip.compress(data, 1, mtime=0), sha(data), "gzip"


def push(platform, name, *layers, architecture=MACHINE, **config):
    """Layers as an image of the project's; its digest."""
    def put(data):
        r = platform.http("PUT", "/v1/images/blobs/" + sha(data), data=data)
        assert r.status_code == 204, r.text
        return {"digest": "sha256:" + sha(data), "size": len(data)}
    about = json.dumps({"architecture": architecture, "os": "linux", "config": config, "rootfs": {
        "type": "layers", "diff_ids": ["sha256:" + diff for _, diff, _ in layers]}}).encode()
    manifest = {"schemaVersion": 2, "mediaType": MEDIA + "manifest.v1+json",
                "config": {"mediaType": MEDIA + "config.v1+json", **put(about)},
                "layers": [{"mediaType": f"{MEDIA}layer.v1.tar+{how}", **put(data)} for data, _, how in layers]}
    digest = put(json.dumps(manifest).encode())["digest"]
    r = platform.http("PUT", "/v1/images/" + requests.utils.quote(name, safe=""), json={"digest": digest})
    assert r.status_code in (200, 201), r.text
    return digest


def reason(platform, source, **metadata):
    """Why the version could not be made."""
    name = platform.create(source, state="failed", seconds=120, **metadata)
    text = platform.get(f"/v1/functions/{name}")["state_reason"]
    platform.ok("function-delete", name)
    return text


def answer(platform, name, payload=None, **kw):
    r = platform.call(name, payload, **kw)
    assert r.status_code == 200, r.text
    return r.json()


@pytest.fixture(scope="module")
def image(platform, base):
    """Its name."""
    push(platform, "debian", base, Env=["WORD=image's", "OWN=image's", "HOME=/root",
                                        "PATH=/opt/own:/usr/bin:/bin"])
    return "debian"


@pytest.fixture(scope="module")
def static(tmp_path_factory):
    """A program that needs nothing: it copies its input.  Nor does what starts it."""
    if "san" in BUILD.name:
        pytest.skip("a sanitizer build is not static")
    d = tmp_path_factory.mktemp("static")
    (d / "main.c").write_text("#include <unistd.h>\nchar b[65536];\nint main(void){ ssize_t n;\n"
                              "while ((n = read(0, b, sizeof b)) > 0) if (write(1, b, n) != n) return 1;\n"
                              "return n < 0; }\n")
    subprocess.run(["gcc", "-O1", "-static", "-o", d / "main", d / "main.c"], check=True)
    return (d / "main").read_bytes()


@pytest.fixture(scope="module")
def version(platform, image):
    """Of the image's Python, as 3.11."""
    name = platform.wait_function(TELL, image=image, memory=32, seconds=120)
    return answer(platform, name)["version"].rpartition(".")[0]


# ---- Languages ----

def test_python(platform, image):
    name = platform.wait_function(TELL, image=image, memory=32, env={"OWN": "function's"}, seconds=120)
    got = answer(platform, name, {"x": 1})
    assert got["release"] == "debian" and got["prefix"] == "/usr" and got["uid"] == 1000
    assert got["path"] == "/opt/own:/usr/bin:/bin" and got["home"] == "/tmp"
    assert got["word"] == "image's" and got["own"] == "function's" and got["got"] == {"x": 1}
    f = platform.get(f"/v1/functions/{name}")
    assert f["image"] == image


def test_the_images_own_pip(platform, image):
    """It installs what the package has along; without pip, one sentence."""
    wheel = {"small/__init__.py": "word = 'here'\n", "small-1.0.dist-info/WHEEL":
             "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
             "small-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: small\nVersion: 1.0\n",
             "small-1.0.dist-info/RECORD": ""}
    files = {"main.py": "import small\ndef main(payload=None):\n    return [small.word, small.__file__]\n",
             "requirements.txt": "small\n", "wheels/small-1.0-py3-none-any.whl": make_zip(wheel)}
    name = platform.wait_function(files, image=image, seconds=120)
    assert answer(platform, name) == ["here", "/opt/deps/small/__init__.py"]


@pytest.mark.parametrize("gone,files,words", [
    ("usr/lib/python3/dist-packages/.wh.pip", {"requirements.txt": "x\n", "wheels/x-1-py3-none-any.whl": b""},
     "pip could not install requirements.txt: this image has no pip"),
    ("usr/bin/.wh.python3", {},
     "the runtime 'python3' cannot start in the image 'lacking': /usr/bin/python3: not found"),
    ("usr/lib/python3.N/.wh.json", {}, "the image's python3 has no module json: install the whole standard "
     "library (Debian's package python3, not python3-minimal alone)"),
    ("usr/lib/python3.N/.wh.importlib", {}, "the image's python3 has no module importlib: install"),
    ("usr/lib/python3.N/.wh.tarfile.py", {}, "the image's python3 has no module tarfile: install")])
def test_what_python_lacks(platform, base, version, gone, files, words):
    push(platform, "lacking", base, small(entry(gone.replace("3.N", version), b"")))
    text = reason(platform, {"main.py": "def main(p=None): pass\n", **files}, image="lacking")
    assert words in text and "\n" not in text and len(text) < 300, text


def test_exec_in_an_image_with_nothing(platform, static):
    push(platform, "nothing", small(entry("etc"), entry("etc/mark", "x")), Env=["WORD=x"])
    name = platform.wait_function({"main": static}, runtime="exec", image="nothing", memory=16)
    data = bytes(range(256)) * 1000
    assert platform.call(name, data).content == data
    text = reason(platform, {"main": "#!/bin/sh\necho\n"}, runtime="exec", image="nothing")
    assert text == "main's interpreter /bin/sh is not in the image"
    text = reason(platform, "echo", image="nothing")
    assert text == "the runtime 'python3' cannot start in the image 'nothing': /usr/bin/python3: not found"
    text = reason(platform, {"main.js": "exports.main = () => 1"}, runtime="nodejs", image="nothing")
    assert text == "the runtime 'nodejs' cannot start in the image 'nothing': /bin/sh: not found"


def test_a_script_with_the_images_shell(platform, base, image):
    push(platform, "marked", base, small(entry("etc/mark", "image's")))
    name = platform.wait_function({"main": "#!/bin/sh\ncat /etc/mark; id -u\n"}, runtime="exec", image="marked",
                                  memory=16)
    assert platform.call(name).text == "image's1000\n"


def test_nodejs(platform, image):
    source = "exports.main = (payload) => [payload, process.version, process.env.WORD, process.env.HOME]"
    name = platform.wait_function({"main.js": source}, runtime="nodejs", image=image)
    got = answer(platform, name, {"x": 1})
    assert got[0] == {"x": 1} and got[1].startswith("v") and got[2:] == ["image's", "/tmp"]


def test_nodejs_where_the_image_has_none(platform, base):
    push(platform, "nodeless", base, small(entry("usr/bin/.wh.node", b""), entry("usr/bin/.wh.nodejs", b"")))
    text = reason(platform, {"main.js": "exports.main = () => 1"}, runtime="nodejs", image="nodeless")
    assert text == "the image has no node"


def test_memory_means_the_same(platform, image):
    hog = "def main(n):\n    x = b'x' * (n << 20)\n    return len(x) >> 20\n"
    for where in ({}, {"image": image}):
        name = platform.wait_function(hog, memory=48, **where)
        assert answer(platform, name, 24) == 24
        assert "48 MiB" in platform.problem(platform.call(name, 64), 502, "memory_exceeded")


# ---- Images that are wrong, or strange ----

def test_another_machines(platform, static):
    other = {"amd64": "arm64", "arm64": "amd64"}[MACHINE]
    push(platform, "other", small(entry("etc")), architecture=other)
    text = reason(platform, {"main": static}, runtime="exec", image="other")
    assert other in text and "\n" not in text, text


STRANGE = {
    "empty": [],
    "tmp_is_a_link": [link("tmp", "etc"), entry("etc")],
    "tmp_leads_out": [link("tmp", "/../../../etc"), entry("etc")],
    "tmp_is_a_file": [entry("tmp", "x")],
    "function_is_a_file": [entry("function", "x")],
    "function_is_a_link": [link("function", "/etc"), entry("etc")],
    "opt_is_a_link": [link("opt", "/tmp")],
    "opt_is_a_file": [entry("opt", "x")],
    "proc_and_dev_are_files": [entry("proc", "x"), entry("dev", "x"), entry("sys", "x")],
    "proc_and_dev_are_links": [link("proc", "etc"), link("dev", "/nowhere"), entry("etc")],
    "function_has_content": [entry("function"), entry("function/main", "#!/no\n"), entry("function/old", "x")],
    "nothing_may_be_read": [entry("etc", mode=0o700), entry("function", mode=0), entry("opt", mode=0)],
}


@pytest.mark.parametrize("kind", STRANGE)
def test_strange_images(platform, static, kind):
    """It runs as on any other."""
    push(platform, "strange", small(entry("mark", "x"), *STRANGE[kind]))
    name = "s-" + kind.replace("_", "-")
    r = platform.upload({"name": name, "type": "wait_for_response", "runtime": "exec", "image": "strange",
                         "memory": 16}, {"main": static})
    assert r.status_code == 201, r.text
    f = platform.settled(name, 120)
    assert f["state"] == "ready", f["state_reason"]
    assert platform.call(name, b"hello").text == "hello"
    platform.ok("function-delete", name)


def test_what_its_user_may_read(platform, base):
    """Files of root's are readable by mode alone, and those of uid 1000 are the function's own."""
    push(platform, "modes", base, small(
        entry("srv/all", "all", mode=0o644), entry("srv/root", "root", mode=0o600),
        entry("srv/own", "own", mode=0o400, uid=1000, gid=1000), entry("srv/group", "group", mode=0o640, gid=1000)))
    script = "#!/bin/sh\ncd /srv; for f in all root own group; do echo $f:$(cat $f 2>/dev/null); done; stat -c %u:%g own\n"
    name = platform.wait_function({"main": script}, runtime="exec", image="modes", memory=32)
    assert platform.call(name).text.split() == ["all:all", "root:", "own:own", "group:group", "1000:1000"]


# ---- Names, versions, the store ----

def test_a_moved_name(platform, base):
    """The old version goes on with the old image, an update takes the new one, a rollback the old."""
    def marked(text):
        return push(platform, "moving", base, small(entry("etc/mark", text)))
    one = marked("one")
    name = platform.wait_function(TELL, image="moving", memory=32)
    assert answer(platform, name)["mark"] == "one"
    two = marked("two")
    assert one != two and answer(platform, name)["mark"] == "one"
    r = platform.upload({"description": "another"}, "def main(p=None):\n    return {'mark': open('/etc/mark').read()}\n",
                        method="PATCH", path=f"/v1/functions/{name}")
    assert r.status_code == 200, r.text
    wait_for(lambda: answer(platform, name)["mark"] == "two", 60, "the new version")
    platform.ok("function-rollback", name, "--to", 1)
    wait_for(lambda: answer(platform, name)["mark"] == "one", 60, "the old one again")
    platform.ok("image-delete", "--uploaded", "moving")
    assert answer(platform, name)["mark"] == "one"


def layers_of(platform):
    return {p.name for p in (platform.state / "images/layers").iterdir()}


def test_layers_are_there_once(platform, base, image):
    names = []
    before = None
    for text in ("a", "b"):
        push(platform, "shared-" + text, base, small(entry("etc/mark", text)))
        names.append(platform.wait_function(TELL, image="shared-" + text, memory=32))
        assert answer(platform, names[-1])["mark"] == text
        now = layers_of(platform)
        assert before is None or len(now - before) == 1
        before = now


def test_restart_of_the_node(platform, image):
    name = platform.wait_function(TELL, image=image, memory=32)
    answer(platform, name)
    before = layers_of(platform)
    old = platform.driver()[0]
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: platform.driver() and platform.driver() != [old], 30, "another node")
    wait_for(lambda: platform.http("GET", "/readyz").status_code == 200, 30, "readiness")
    assert answer(platform, name)["release"] == "debian" and layers_of(platform) == before


# ---- A runtime of the project's own, by pratai-runtime(7) ----

RUN = r"""#!/bin/sh
set -e
. /function/main.sh
printf '{"v":1,"type":"imported"}\n' >&3
read -r event <&3 || exit 0
bytes=$(printf %s "$event" | sed -n 's/.*"bytes":\([0-9]*\).*/\1/p')
if head -c "${bytes:-0}" <&3 | main >/tmp/answer; then
    printf '{"v":1,"type":"result","ok":true,"content_type":"text/plain","bytes":%d}\n' $(wc -c </tmp/answer) >&3
    cat /tmp/answer >&3
else
    printf '{"v":1,"type":"result","ok":false,"error":{"type":"Failed","message":"main failed"}}\n' >&3
fi
"""
CHECK = r"""#!/bin/sh
read -r request <&3
[ -f /function/main.sh ] && echo '{"v":1,"type":"result","ok":true}' >&3 && exit
echo '{"v":1,"type":"result","ok":false,"error":{"type":"NoMain","message":"there is no main.sh"}}' >&3
"""


@pytest.fixture(scope="module")
def shell(platform, base):
    """The runtime's name."""
    push(platform, "example/shell:1", base, small(
        entry("opt/shell/run", RUN, mode=0o755), entry("opt/shell/check", CHECK, mode=0o755)), Env=["WORD=image's"])
    made = platform.ok("runtime-create", "shell", "--image", "example/shell:1", "--command", "/opt/shell/run",
                       "--build", "/opt/shell/check", "--env", "OWN=runtime's", "--env", "BOTH=runtime's",
                       "--description", "main of main.sh", "-f", "json").json()
    assert made["command"] == ["/opt/shell/run"] and made["image"] == "example/shell:1"
    return "shell"


SHOUT = "main() { tr a-z A-Z; echo \" $WORD $OWN $BOTH\"; echo said >&2; }\n"


def test_own_runtime(platform, shell):
    shown = platform.ok("runtime-show", shell, "-f", "json").json()
    listed = {r["name"]: r for r in platform.ok("runtime-list", "-f", "json").json()}
    assert {"exec", "nodejs", "python3", "shell"} == set(listed) and listed["python3"]["image"] == "host"
    assert listed["shell"]["image"] == "example/shell:1" and shown["description"] == "main of main.sh"
    assert platform.ok("runtime-show", "exec", "-f", "json").json()["name"] == "exec"
    name = platform.wait_function({"main.sh": SHOUT}, runtime=shell, memory=32, env={"BOTH": "function's"})
    r = platform.call(name, b"hello", headers={"Content-Type": "text/plain"})
    assert r.text == "HELLO image's runtime's function's\n"
    assert platform.log_of(r.headers["Pratai-Event-Id"]) == "said"
    assert platform.get(f"/v1/functions/{name}")["image_digest"] == shown["image_digest"].partition(":")[2]
    assert reason(platform, {"main": "x"}, runtime=shell) == "there is no main.sh"
    bad = platform.wait_function({"main.sh": "main() { return 1; }\n"}, runtime=shell, memory=32)
    assert "main failed" in platform.problem(platform.call(bad), 502, "function_failed")


def test_own_runtime_on_another_image(platform, base, shell):
    """The function's image counts; one that has not what the runtime starts is named."""
    push(platform, "other-shell", base, small(entry("opt/shell/run", RUN.replace("text/plain", "text/html"), mode=0o755),
                                              entry("opt/shell/check", CHECK, mode=0o755)))
    name = platform.wait_function({"main.sh": "main() { cat; }\n"}, runtime=shell, image="other-shell", memory=32)
    assert platform.call(name, b"x").headers["Content-Type"] == "text/html"
    push(platform, "bare", base)
    text = reason(platform, {"main.sh": SHOUT}, runtime=shell, image="bare")
    assert text == "the runtime 'shell' cannot start in the image 'bare': /opt/shell/check: not found"


def test_own_runtime_goes(platform, base):
    """What runs on it goes on, also back to an earlier version; a new version is not to be had."""
    layer = small(entry("opt/shell/run", RUN, mode=0o755))
    push(platform, "going", base, layer)
    platform.ok("runtime-create", "going", "--image", "going", "--command", '["/opt/shell/run"]')
    name = platform.wait_function({"main.sh": "main() { echo one; }\n"}, runtime="going", memory=32)
    r = platform.upload({}, {"main.sh": "main() { echo two; }\n"}, method="PATCH", path=f"/v1/functions/{name}")
    assert r.status_code == 200, r.text
    wait_for(lambda: platform.call(name).text == "two\n", 60, "the new version")
    platform.ok("image-delete", "--uploaded", "going")
    platform.ok("runtime-delete", "going")
    assert platform.call(name).text == "two\n"
    platform.ok("function-rollback", name, "--to", 1)
    wait_for(lambda: platform.call(name).text == "one\n", 60, "the old version")
    r = platform.upload({"description": "only this"}, method="PATCH", path=f"/v1/functions/{name}")
    assert r.status_code == 200, r.text
    r = platform.upload({"memory": 64}, method="PATCH", path=f"/v1/functions/{name}")
    assert "'going'" in platform.problem(r, 400, "invalid_request")
    assert "'going'" in platform.problem(platform.http("GET", "/v1/runtimes/going"), 404, "not_found")


@pytest.mark.parametrize("fields,status,words", [
    ({"name": "python3"}, 409, "a runtime of the nodes"), ({"name": "shell"}, 409, "exists already"),
    ({"name": "a/b"}, 400, "name"), ({"name": "x" * 32}, 400, "31"), ({"name": None}, 400, "name"),
    ({"image": "no-such"}, 400, "no-such"), ({"image": "host"}, 400, "host"), ({"image": None}, 400, "image"),
    ({"command": None}, 400, "command"), ({"command": []}, 400, "command"), ({"command": "x"}, 400, "command"),
    ({"command": ["sh"]}, 400, "absolute"), ({"command": ["/x", 5]}, 400, "command"),
    ({"command": ["/x"] * 65}, 400, "64"), ({"build": ["x"]}, 400, "build"), ({"env": []}, 400, "env"),
    ({"env": {"A": 5}}, 400, "'A'"), ({"env": {"A=B": "x"}}, 400, "A=B"), ({"env": {"A": "x" * 40000}}, 400, "32768"),
    ({"description": 5}, 400, "description"), ({"other": 1}, 400, "other")])
def test_bad_runtimes(platform, shell, fields, status, words):
    ask = {"name": "bad", "image": "example/shell:1", "command": ["/x"], **fields}
    r = platform.http("POST", "/v1/runtimes", json={k: v for k, v in ask.items() if v is not None})
    assert words in platform.problem(r, status, "conflict" if status == 409 else "invalid_request")
    assert "bad" not in [r["name"] for r in platform.get("/v1/runtimes")["items"]]


def test_runtimes_of_nodes_stay(platform):
    platform.problem(platform.http("DELETE", "/v1/runtimes/python3"), 403, "forbidden")
    platform.problem(platform.http("DELETE", "/v1/runtimes/no-such"), 404, "not_found")
    r = platform.cli("runtime-create", "x", "--image", "y")
    assert r.code != 0 and "--command" in r.err
