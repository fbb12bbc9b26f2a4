"""build.py: checks, requirements, the layer."""
import importlib.util
import io
import json
import marshal
import os
import shutil
import stat
import subprocess
import tarfile
import zipfile

import pytest

GOOD = "def main(payload=None): return payload\n"


def members(r):
    return {m.name: m for m in tarfile.open(fileobj=io.BytesIO(r.tar))}


def content(r, name):
    return tarfile.open(fileobj=io.BytesIO(r.tar)).extractfile(name).read()


def test_layer(build, root):
    os.mkdir(root / "function/sub")
    os.symlink("../main.py", root / "function/sub/link")
    os.symlink("/etc/hostname", root / "function/outside")
    (root / "function/__pycache__").mkdir()
    (root / "function/__pycache__/old.cpython-39.pyc").write_bytes(b"old")
    r = build({"main.py": GOOD, "sub/helper.py": "x = 1", "run": "#!/bin/sh", "broken.py": "def (",
               "data.bin": b"\0\1"})
    os.chmod(root / "function/run", 0o755)
    r = build({})
    assert r.result == {"v": 1, "type": "layer", "ok": True} and r.code == 0
    m = members(r)
    assert list(m) == sorted(m)
    pycs = [n for n in m if n.endswith(".pyc")]
    assert len(pycs) == 2 and all("/__pycache__/" in n for n in pycs)
    assert m["function/run"].mode == 0o555 and m["function/data.bin"].mode == 0o444
    assert m["function"].isdir() and m["function"].mode == 0o555
    assert m["function/sub/link"].issym() and m["function/sub/link"].linkname == "../main.py"
    assert m["function/outside"].isreg()
    assert {(x.uid, x.gid, x.uname, x.gname, x.mtime) for x in m.values()} == {
        (0, 0, "", "", 315532800)}
    code = marshal.loads(content(r, [n for n in pycs if "helper" in n][0])[16:])
    assert code.co_filename == "/function/sub/helper.py"
    assert "broken.py does not compile" in r.out and "the function is main in main.py" in r.out


def test_same_package_same_bytes(build):
    files = {"main.py": GOOD + "def f(x): return x in {'a', 'b', 'c', 'd', 'e'}\n",
             "b.py": "def f(x): return x in {'p', 'q', 'r', 's'}\n"}
    assert build(files).tar == build({}, env={"PYTHONHASHSEED": "17"}).tar


@pytest.mark.parametrize("files,kind,words", [
    ({"other.py": GOOD}, "NoMain", "no new_module.py or main.py at the root"),
    ({"dir/main.py": GOOD}, "NoMain", "there is one in dir/"),
    ({"main.py": "x = 1"}, "NoMain", "main.py defines no main"),
    ({"main.py": "class A:\n def main(self, p): pass"}, "NoMain", "defines no main"),
    ({"main.py": ""}, "NoMain", "defines no main"),
    ({"new_module.py": "", "main.py": GOOD}, "NoMain", "new_module.py defines no main"),
    ({"main.py": "def main(): pass"}, "BadMain", "main.py, line 1: main takes no payload"),
    ({"main.py": "\nasync def main(*, a): pass"}, "BadMain", "line 2"),
    ({"main.py": "def main(a, b, c): pass"}, "BadMain", "needs 3 arguments"),
    ({"main.py": "main = 5"}, "BadMain", "is a value and not a function"),
    ({"main.py": "x = 1\ndef main(p:\n"}, "SyntaxError", "main.py, line 2"),
    ({"main.py": "  x = 1"}, "SyntaxError", "line 1: unexpected indent"),
    ({"main.py": b"# -*- coding: nope -*-\n"}, "SyntaxError", "unknown encoding"),
    ({"main.py": b"x = 1\ny = '\xff'\n"}, "SyntaxError", "line 2: the file is not utf-8 text"),
    ({"main.py": b"x = '\0'\n"}, "SyntaxError", "NUL"),
    ({"main.py": "x = " + "(" * 5000 + ")" * 5000}, "SyntaxError", "main.py"),
    ({"main.py": "x = " + "-" * 20000 + "1"}, "SyntaxError", "main.py: an expression is nested"),
    ({"main.py": "x = a" + ".b" * 20000}, "SyntaxError", "main.py: an expression is nested")])
def test_refused(build, files, kind, words):
    r = build(files)
    assert not r.ok and r.type == kind and words in r.message, r.result
    assert r.tar == b"" and r.code == 1 and r.message in r.out


@pytest.mark.parametrize("source", [
    "from lib import main", "import lib as main", "from lib import *", "main = make()",
    "main = lambda p: p", "if 1:\n def main(): pass\nelse:\n def main(p): pass",
    "try:\n from a import main\nexcept ImportError:\n main = None", "@deco\ndef main(): pass",
    "class main:\n def __init__(self, p): pass", "globals()['main'] = print",
    "def __getattr__(name): return print", "def f():\n global main\n main = print\nf()",
    "async def main(payload, context): pass", "def main(*args): pass",
    "for main in [print]: pass", "if (main := print): pass", "(main, x) = print, 1",
    "with open('x') as main: pass"])
def test_accepted(build, source):
    r = build({"main.py": source})
    assert r.ok, r.result


def test_code_is_not_run(build, root):
    mark = root / "ran"
    run = f"open({str(mark)!r}, 'w')\n"
    r = build({"main.py": run + GOOD, "sitecustomize.py": run, "ast.py": run, "tarfile.py": run},
              env={"PYTHONPATH": str(root / "function")})
    assert r.ok and not mark.exists()


def wheel(path, name, files, needs=""):
    path.mkdir(exist_ok=True)
    with zipfile.ZipFile(path / f"{name}-1.0-py3-none-any.whl", "w") as z:
        info = f"{name}-1.0.dist-info/"
        for file, text in files.items():
            z.writestr(file, text)
        z.writestr(info + "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
                   + needs)
        z.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\n"
                   "Tag: py3-none-any\n")
        z.writestr(info + "RECORD", "".join(f"{f},,\n" for f in files))


def offline(root):
    """The operator's settings: no index, our wheels; and some that must not matter."""
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(root / "wheels"), "PIP_USER": "1",
            "PIP_TARGET": "/nowhere", "PIP_CONFIG_FILE": "/dev/null"}


def test_requirements(build, root):
    wheel(root / "wheels", "small", {"small.py": "x = 'small'\n", "bad.py": "def (\n"})
    r = build({"main.py": "import small\n" + GOOD, "requirements.txt": "small==1.0\n"},
              env=offline(root))
    assert r.ok, (r.result, r.out, r.err)
    m = members(r)
    assert {"opt/deps/small.py", "opt/deps/bad.py", "opt/deps"} <= set(m) and m["opt"].isdir()
    assert sum(n.endswith(".pyc") for n in m) == 2
    assert "Successfully installed small-1.0" in r.out and "bad.py" not in r.out
    pyc, = [n for n in m if "/small." in n and n.endswith(".pyc")]
    assert marshal.loads(content(r, pyc)[16:]).co_filename == "/opt/deps/small.py"


def needs(build, requirements):
    """What a build without network says to need, or None: it asks for the network."""
    r = build({"main.py": GOOD, "requirements.txt": requirements}, network=False)
    assert r.code == 0 and "pip" not in r.out
    if r.needs is None:
        assert r.result == {"v": 1, "type": "network"} and r.tar == b""
    else:
        assert r.ok and set(members(r)) > {"function/main.py"} and "opt" not in members(r)
    return r.needs


def test_nothing_is_needed(build):
    r = build({"main.py": GOOD, "requirements.txt": "# none\n"}, network=False)
    assert r.ok and r.result["type"] == "layer" and r.needs is None


@pytest.mark.parametrize("text", [
    "small==1.0\n", "small", "small[a,b] >= 1, != 1.5 ; python_version > '3'  # why\n",
    "--index-url https://index.example/simple\n--pre\nsmall ~= 1.0 --hash=sha256:abc\n",
    "small==1.0 \\\n    --hash=sha256:abc\n    # via x\n", "small @ https://example.com/x.whl\n",
    "-i https://index.example/\n--no-binary :all:\nsmall\n"])
def test_needs_that_can_be_shared(build, text):
    assert json.loads(needs(build, text))["requirements"]


@pytest.mark.parametrize("text", [
    "./pkg", "pkg/", "/function/pkg", "x-1.0-py3-none-any.whl", "x-1.0.tar.gz", "-r other.txt", "-c c.txt",
    "--requirement=other.txt", "-e .", "small @ file:///function/x.whl", "git+https://example.com/x",
    "small @ git+https://example.com/x", "small==${VERSION}", "--find-links wheels", "-f ./wheels",
    "--index-url file:///function/index", "small --global-option=x", "small \\\n -r other.txt",
    b"# coding: latin-1\nsmall\n", b"\xff\xfe", "\ufeffsmall"])
def test_needs_of_its_own(build, text):
    assert needs(build, text) is None


def test_needs_are_the_same_for_the_same(build):
    one = needs(build, "small==1.0\nother\n")
    assert needs(build, "# say\r\n\r\n  small==1.0 \r\nother") == one
    assert needs(build, "small==1.1\nother\n") != one


def test_dependencies_alone(build, root):
    wheel(root / "wheels", "small", {"small.py": "x = 'small'\n"})
    said = needs(build, "small==1.0\n")
    shutil.rmtree(root / "function")
    r = build({}, needs=said, env=offline(root))
    assert r.ok and r.code == 0, (r.result, r.err)
    m = members(r)
    assert "opt/deps/small.py" in m and all(n.startswith("opt") for n in m)
    assert sum(n.endswith(".pyc") for n in m) == 1 and "Successfully installed small-1.0" in r.out


def test_dependencies_that_do_not_exist(build, root):
    said = needs(build, "no-such-thing==9\n")
    r = build({}, needs=said, env=offline(root))
    assert r.type == "RequirementsFailed" and r.code == 1 and r.tar == b""
    assert r.message.endswith("No matching distribution found for no-such-thing==9")


@pytest.mark.parametrize("directory", ["wheels", "vendor"])
def test_wheels_that_came_along(build, root, directory):
    wheel(root / "function" / directory, "small", {"small.py": ""})
    files = {"main.py": GOOD, "requirements.txt": "small\n"}
    env = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0"}
    r = build(files, network=False, env=env)
    assert r.ok and "opt/deps/small.py" in members(r), (r.result, r.err)
    shutil.rmtree(root / "tmp/pratai-deps")
    r = build({"requirements.txt": "small\nother\n"}, network=False, env=env)
    assert r.type == "RequirementsFailed" and "No matching distribution found for other" in r.message


def test_vendored_modules_are_no_wheels(build):
    r = build({"main.py": GOOD, "requirements.txt": "small\n", "vendor/x.py": ""}, network=False)
    assert r.needs is not None


def test_file_of_the_package_as_requirement(build, root):
    wheel(root / "function", "inner", {"inner.py": ""})
    r = build({"main.py": GOOD, "requirements.txt": "./inner-1.0-py3-none-any.whl\n"},
              env=offline(root))
    assert r.ok and "opt/deps/inner.py" in members(r), r.out


def test_requirements_that_do_not_exist(build, root):
    r = build({"main.py": GOOD, "requirements.txt": "no-such-thing==9\n"}, env=offline(root))
    assert r.type == "RequirementsFailed" and r.code == 1
    assert r.message == ("pip could not install requirements.txt: No matching distribution found "
                         "for no-such-thing==9")
    assert "ERROR: Could not find a version" in r.err


def test_requirements_that_conflict(build, root):
    wheel(root / "wheels", "one", {"one.py": ""}, "Requires-Dist: two>2\n")
    wheel(root / "wheels", "two", {"two.py": ""})
    r = build({"main.py": GOOD, "requirements.txt": "one\ntwo==1.0\n"}, env=offline(root))
    assert r.message.startswith("pip could not install requirements.txt: Cannot install "), r.err
    assert r.message.endswith("because these package versions have conflicting dependencies.")


def test_requirement_that_does_not_build(build, root):
    r = build({"main.py": GOOD, "requirements.txt": "./broken\n",
               "broken/setup.py": "import sys\nsys.exit(3)\n"}, env=offline(root))
    assert "did not run successfully" in r.message and "failed" not in r.message, r.err


def test_malformed_requirements(build, root):
    r = build({"main.py": GOOD, "requirements.txt": "==\n"}, env=offline(root))
    assert r.type == "RequirementsFailed" and "requirement" in r.message.lower()


def test_empty_requirements(build):
    r = build({"main.py": GOOD, "requirements.txt": "\n  # nothing\n"})
    assert r.ok and "pip" not in r.out and "opt" not in members(r)


def test_pip_that_hangs_is_ended(build, root):
    """A source package whose setup.py sleeps, and leaves a child that does."""
    (root / "src").mkdir()
    setup = ("import subprocess, time\nsubprocess.Popen(['sleep', '600'])\n"
             "open(%r, 'w').close()\ntime.sleep(600)\n" % str(root / "hung"))
    with tarfile.open(root / "src/slow-1.0.tar.gz", "w:gz") as tar:
        info = "Metadata-Version: 1.0\nName: slow\nVersion: 1.0\n"
        for name, text in {"slow-1.0/setup.py": setup, "slow-1.0/PKG-INFO": info}.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    env = dict(offline(root), PIP_FIND_LINKS=str(root / "src"), PIP_NO_BUILD_ISOLATION="0")
    r = build({"main.py": GOOD, "requirements.txt": "slow\n"}, timeout_s=12, env=env)
    assert r.type == "RequirementsFailed" and "did not finish within 12 seconds" in r.message
    assert (root / "hung").exists(), r.err
    left = subprocess.run(["ps", "-eo", "args"], stdout=-1, check=True).stdout.decode()
    assert str(root) not in left


def test_too_large(build, root):
    with open(root / "function/big", "wb") as f:
        f.truncate((512 << 20) + 1)
    r = build({"main.py": GOOD})
    assert r.type == "TooLarge" and "513 MiB; at most 512" in r.message


def test_special_and_strange_files(build, root):
    os.mkfifo(root / "function/pipe")
    r = build({"main.py": GOOD})
    assert r.type == "BadPackage" and "function/pipe is neither" in r.message
    os.unlink(root / "function/pipe")
    os.symlink("../../nowhere", root / "function/dangling")
    r = build({})
    assert r.type == "BadPackage" and "leads to ../../nowhere" in r.message
    os.unlink(root / "function/dangling")
    (root / "function" / ("n" * 250 + ".py")).write_text("")  # no room for the name of its .pyc
    assert build({}).ok


@pytest.mark.parametrize("name", ["__pycache__", importlib.util.cache_from_source("main.py") + "/x"])
def test_something_else_where_compiled_code_goes(build, name):
    r = build({"main.py": GOOD, "a.py": "", "zz.py": "", name: "mine"})
    assert r.ok and content(r, "function/" + name) == b"mine"
    m = members(r)
    assert all(m[os.path.dirname(n)].isdir() for n in m if "/" in n), list(m)


def test_read_only_package(build, root):
    build({"main.py": GOOD})
    os.chmod(root / "function", stat.S_IRUSR | stat.S_IXUSR)
    before = sorted(os.listdir(root / "function"))
    assert build({}).ok and sorted(os.listdir(root / "function")) == before


def test_build_that_never_comes(stage, root):
    from conftest import Process, command_of
    p = Process(command_of(stage, "build", root), root)
    p.socket.shutdown(1)
    assert p.line() is None and p.end()[2] == 0
