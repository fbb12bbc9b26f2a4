"""build.js of nodejs: checks, packages by npm without a registry, the layer."""
import io
import json
import os
import subprocess
import tarfile
import time

import pytest

from conftest import Process, command_of, stage_of

GOOD = "exports.main = (payload) => payload;\n"
ACCEPTED = {"v": 1, "type": "result", "ok": True}


@pytest.fixture(scope="session")
def stage():
    return stage_of("nodejs")


def members(r):
    return {m.name: m for m in tarfile.open(fileobj=io.BytesIO(r.tar))}


def content(r, name):
    return tarfile.open(fileobj=io.BytesIO(r.tar)).extractfile(name).read()


def package(**members_of):
    return json.dumps({"name": "function", "version": "1.0.0", **members_of})


def tgz(path, name, files, **members_of):
    """A package as npm packs it."""
    with tarfile.open(path, "w:gz") as tar:
        for file, text in {"package.json": json.dumps({"name": name, "version": "1.0.0", **members_of}), **files}.items():
            info = tarfile.TarInfo("package/" + file)
            info.size, info.mode = len(text.encode()), 0o755 if file.startswith("bin/") else 0o644
            tar.addfile(info, io.BytesIO(text.encode()))


OFFLINE = {"npm_config_registry": "http://127.0.0.1:9/", "npm_config_fetch_retries": "0", "npm_config_prefix": "/nowhere"}


@pytest.mark.parametrize("files", [
    {"main.js": GOOD}, {"index.mjs": "export default (p) => p"}, {"main.js": "export const main = await 5"},
    {"main.js": "export default 1", "package.json": '{"type": "module"}'},
    {"main.js": GOOD, "package.json": package(dependencies={}, devDependencies={"nosuch": "1"})},
    {"main.js": GOOD, "package.json": package(dependencies={"nosuch": "1"}), "node_modules/nosuch/index.js": ""}])
def test_package_is_used_as_it_is(build, files):
    r = build(files, network=False)
    assert r.result == ACCEPTED and r.tar == b"" and r.code == 0, (r.out, r.err)
    assert r.out == f"pratai: the function is main in {next(iter(files))}\n" and r.err == ""


@pytest.mark.parametrize("files,kind,words", [
    ({"other.js": GOOD}, "NoMain", "no main.js or index.js at the root"),
    ({"dir/main.mjs": GOOD}, "NoMain", "(there is one in dir/: zip what is in that directory"),
    ({"main.js": "const x = 1;"}, "NoMain", "main.js exports no main"),
    ({"main.js": "exports.main = 1;\nfunction ( {"}, "SyntaxError", "main.js, line 2: Function statements require a function name"),
    ({"main.mjs": "import x from 'x';\nexport const;"}, "SyntaxError", "main.mjs, line 2: Unexpected token ';'"),
    ({"main.js": GOOD, "package.json": "{"}, "BadPackage", "package.json cannot be read: "),
    ({"main.js": GOOD, "package.json": "[]"}, "BadPackage", "package.json is not an object")])
def test_refused(build, files, kind, words):
    r = build(files)
    assert not r.ok and r.type == kind and words in r.message, r.result
    assert r.tar == b"" and r.code == 1 and r.message in r.out


def test_code_is_not_run(build, root):
    run = f"require('fs').writeFileSync({str(root / 'ran')!r}, '');"
    assert build({"main.js": run + GOOD}).ok and not (root / "ran").exists()


def test_packages(build, root):
    tgz(root / "function/small.tgz", "small", {"index.js": "exports.x = 'small'", "bin/tool.js": "#!/usr/bin/env node\n",
        "a" * 90 + "/ü" + "b" * 90: "long"}, bin={"small-tool": "bin/tool.js"},
        scripts={"install": "node -e \"require('fs').writeFileSync('made.txt', process.cwd())\"; echo a script"})
    files = {"main.js": "const { x } = require('small');" + GOOD, "lib/index.js": "exports.y = 1",
             "lib/package.json": json.dumps({"name": "lib", "version": "1.0.0"}),
             "package.json": package(dependencies={"small": "file:small.tgz", "lib": "file:lib"})}
    r = build(files, network=False, env=OFFLINE)
    assert r.result == {"v": 1, "type": "network"} and r.code == 0 and r.tar == b""
    r = build({}, env=OFFLINE)
    assert r.ok and r.result["type"] == "layer", (r.result, r.out, r.err)
    m = members(r)
    assert list(m) == sorted(m, key=str.encode)
    assert content(r, "function/node_modules/small/index.js") == b"exports.x = 'small'"
    assert content(r, "function/node_modules/small/made.txt").endswith(b"/node_modules/small")
    assert content(r, "function/node_modules/small/" + "a" * 90 + "/ü" + "b" * 90) == b"long"
    assert m["function/node_modules/lib"].linkname == "../lib" and m["function/lib/index.js"].mode == 0o444
    link = m["function/node_modules/.bin/small-tool"]
    assert link.issym() and link.linkname == "../small/bin/tool.js"
    assert m["function/node_modules/small/bin/tool.js"].mode == 0o555 and m["function"].mode == 0o555
    assert {(x.uid, x.gid, x.mtime) for x in m.values()} == {(0, 0, 315532800)}
    assert "pratai: npm install" in r.out and not (root / "function/node_modules").exists()


def test_lock(build, root):
    """npm ci, which wants package.json and lock to agree."""
    tgz(root / "function/small.tgz", "small", {"index.js": ""})
    files = {"main.js": GOOD, "package.json": package(dependencies={"small": "file:small.tgz"})}
    for name, text in files.items():
        (root / "function" / name).write_text(text)
    (root / "home").mkdir()
    subprocess.run(["npm", "install", "--package-lock-only", "--offline"], cwd=root / "function", check=True,
                   capture_output=True, env={**os.environ, **OFFLINE, "HOME": str(root / "home")})
    assert (root / "function/package-lock.json").exists()
    r = build({}, env=OFFLINE)
    assert r.ok and "pratai: npm ci" in r.out and "function/node_modules/small/index.js" in members(r), r.err
    for left in (root / "tmp").iterdir():
        subprocess.run(["rm", "-rf", left], check=True)
    r = build({"package.json": package(dependencies={"lib": "file:lib"}),
               "lib/package.json": json.dumps({"name": "lib", "version": "1.0.0"})}, env=OFFLINE)
    assert r.type == "PackagesFailed" and "in sync" in r.message


@pytest.mark.parametrize("dependency,words", [
    ("file:nosuch.tgz", "nosuch.tgz"), ("no such:thing", "no such:thing"), ("1.0.0", "ECONNREFUSED")])
def test_packages_that_cannot_be_had(build, dependency, words):
    r = build({"main.js": GOOD, "package.json": package(dependencies={"thing": dependency})}, env=OFFLINE)
    assert r.type == "PackagesFailed" and r.message.startswith("npm could not install package.json: "), r.err
    assert words in r.message and "npm error" not in r.message and "npm" in r.err and r.code == 1


def test_script_that_fails(build, root):
    tgz(root / "function/bad.tgz", "bad", {}, scripts={"install": "echo something is wrong >&2; exit 7"})
    r = build({"main.js": GOOD, "package.json": package(dependencies={"bad": "file:bad.tgz"})}, env=OFFLINE)
    assert r.type == "PackagesFailed" and "something is wrong" in r.message and "/tmp" not in r.message


def test_image_without_npm(build, root):
    (root / "bin").mkdir()
    for program in "node", "sh":
        os.symlink(f"/usr/bin/{program}", root / "bin" / program)
    r = build({"main.js": GOOD, "package.json": package(dependencies={"x": "1"})}, env={"PATH": str(root / "bin")})
    assert r.message == "npm could not install package.json: this image has no npm"


def test_npm_that_hangs_is_ended(build, root):
    tgz(root / "function/slow.tgz", "slow", {}, scripts={"install": "sleep 601 & sleep 600"})
    began = time.monotonic()
    r = build({"main.js": GOOD, "package.json": package(dependencies={"slow": "file:slow.tgz"})}, env=OFFLINE, timeout_s=4)
    assert r.message == "npm did not finish within 4 seconds" and time.monotonic() - began < 60


def test_same_package_same_bytes(build, root):
    tgz(root / "function/small.tgz", "small", {"index.js": ""})
    tars = []
    for _ in range(2):
        tars.append(build({"main.js": GOOD, "package.json": package(dependencies={"small": "file:small.tgz"})}, env=OFFLINE).tar)
        subprocess.run(["rm", "-rf", root / "tmp/npm"], check=True)
    assert tars[0] == tars[1] != b""


def test_links_and_special_files(build, root):
    tgz(root / "function/small.tgz", "small", {"index.js": ""})
    files = {"main.js": GOOD, "package.json": package(dependencies={"small": "file:small.tgz"})}
    os.symlink("/etc/hostname", root / "function/outside")
    assert members(build(files, env=OFFLINE))["function/outside"].isreg()
    for name, words in ("dangling", "leads to ../../nowhere"), ("pipe", "function/pipe is neither"):
        subprocess.run(["rm", "-rf", root / "tmp/npm", root / "function/dangling"], check=True)
        if name == "pipe":
            os.mkfifo(root / "function/pipe")
        else:
            os.symlink("../../nowhere", root / "function/dangling")
        r = build({}, env=OFFLINE)
        assert r.type == "BadPackage" and words in r.message


def test_too_large(build, root):
    tgz(root / "function/small.tgz", "small", {"index.js": ""})
    with open(root / "function/big", "wb") as f:
        f.truncate((512 << 20) + 1)
    r = build({"main.js": GOOD, "package.json": package(dependencies={"small": "file:small.tgz"})}, env=OFFLINE)
    assert r.type == "TooLarge" and "513 MiB; at most 512" in r.message


def test_build_that_never_comes(stage, root):
    p = Process(command_of(stage, "build", root), root)
    p.socket.shutdown(1)
    assert p.line() is None and p.end()[2] == 0


def said(build, files=None, **members_of):
    r = build({"main.js": GOOD, "package.json": package(**members_of), **(files or {})}, network=False)
    if r.needs is None:
        assert r.result == {"v": 1, "type": "network"}
    else:
        assert r.result == ACCEPTED
    return r.needs


@pytest.mark.parametrize("spec", ["1.0.0", "^1 || ~2.0", "latest", "*", "npm:@a/other@^1", "https://example.com/x.tgz"])
def test_needs_that_can_be_shared(build, spec):
    one = said(build, dependencies={"b": "1", "a": spec})
    assert json.loads(one)["package"] == {"dependencies": {"b": "1", "a": spec}}
    assert said(build, name="another", dependencies={"a": spec, "b": "1"}, scripts={"test": "x"}) == one
    assert said(build, dependencies={"a": spec, "b": "2"}) != one


@pytest.mark.parametrize("spec", ["file:lib", "./lib", "../x", "lib.tgz", "~/lib", "git+https://example.com/x", "user/repo",
                                  "github:user/repo", "workspace:*", "link:lib", 5])
def test_needs_of_its_own(build, spec):
    assert said(build, dependencies={"a": spec}) is None
    assert said(build, dependencies={"a": "1"}, overrides={"b": {"c": spec}}) is None


@pytest.mark.parametrize("files,more", [
    ({}, {"workspaces": ["lib"]}), ({}, {"scripts": {"postinstall": "x"}}), ({".npmrc": ""}, {}), ({"binding.gyp": ""}, {}),
    ({"package-lock.json": "{"}, {}), ({"package-lock.json": '{"packages": {"node_modules/a": {"hasInstallScript": true}}}'}, {}),
    ({"npm-shrinkwrap.json": '{"packages": {"node_modules/a": {"resolved": "file:a.tgz"}}}'}, {}),
    ({"package-lock.json": '{"packages": {"node_modules/a": {"resolved": "lib", "link": true}}}'}, {})])
def test_what_else_decides(build, files, more):
    assert said(build, files, dependencies={"a": "1"}, **more) is None


def test_dependencies_that_cannot_be_had(build, root):
    needs = said(build, dependencies={"thing": "1.0.0"})
    subprocess.run(["rm", "-rf", root / "function"], check=True)
    r = build({}, needs=needs, env=OFFLINE)
    assert r.type == "PackagesFailed" and "ECONNREFUSED" in r.message and r.code == 1
