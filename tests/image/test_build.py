"""`pratai image-build`: recipes, on a root that is made here (busybox), and on Debian's packages where
this machine has a source of them."""
import json
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import threading
import time

import pytest

from images import BASE, Images, Layout, entry, link, tar
from sandboxes import BUSYBOX, PRATAI, Runner, wait_for
from test_compare import compare, must

SECONDS = 300


class Builds:
    """A store, and recipes in a directory."""

    def __init__(self, images, tmp):
        self.images, self.tmp = images, tmp
        self.dir = tmp / "recipes"
        self.dir.mkdir()

    def start(self, recipe, *more, name="built", **kw):
        if isinstance(recipe, dict):
            recipe = json.dumps(recipe)
        path = recipe
        if recipe.startswith("{") or recipe.startswith("["):
            path = self.dir / "recipe.json"
            path.write_text(recipe)
        return subprocess.Popen([*self.images.client, "image-build", str(path), "--name", name, "--root",
                                 str(self.images.root), "-f", "json", *more],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kw)

    def run(self, recipe, *more, **kw):
        p = self.start(recipe, *more, **kw)
        p.out, p.err = p.communicate(timeout=SECONDS)
        return p

    def make(self, recipe, *more, **kw):
        """The record; what was left out would be a failure."""
        p = self.run(recipe, *more, **kw)
        assert p.returncode == 0 and p.err == "", (p.out, p.err)
        return json.loads(p.out)

    def refuse(self, recipe, word, *more, **kw):
        """The last line, which has the word in it; no image of that name came of it."""
        p = self.run(recipe, *more, **kw)
        assert p.returncode == 1 and p.out == "", (p.returncode, p.out, p.err)
        lines = p.err.splitlines()
        assert lines[-1].startswith("pratai: ") and word in lines[-1], p.err
        assert not (self.images.store / "refs" / kw.get("name", "built")).exists()
        self.images.check()
        return lines


@pytest.fixture(scope="session")
def root_layer():
    """All of busybox."""
    applets = must(BUSYBOX, "--list").split()
    return tar(entry("bin"), entry("bin/busybox", BUSYBOX.read_bytes(), mode=0o755),
               *(link("bin/" + a, "busybox") for a in applets if a != "busybox"))


@pytest.fixture
def builds(images, root_layer, tmp):
    images.take(Layout(root_layer, tar(entry("etc"), entry("etc/passwd", "root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/bin/sh\n"),
                                       entry("d"), entry("d/a", "a"), entry("d/b", "b"), entry("gone", "g"),
                                       entry("whole"), entry("whole/x", "x")),
                       config={"Env": ["A=base", "B=base"], "Cmd": ["/bin/sh"]}), "base")
    return Builds(images, tmp)


def layer_names(images, name="built", k=-1):
    """Names in the layer's blob, as GNU tar has them."""
    blob = images.record(name)["layer"][k].split()[0]
    return must("tar", "-tzf", images.store / "blobs/sha256" / blob).splitlines()


def test_a_layer_for_each_step(builds):
    (builds.dir / "app").mkdir()
    (builds.dir / "app/run").write_text("#!/bin/sh\necho ran\n")
    (builds.dir / "app/run").chmod(0o700)
    (builds.dir / "note").write_text("note\n")
    recipe = {"base": "base", "files": [{"from": "app", "to": "/srv/app"}, {"from": "note", "to": "/etc/note", "mode": "0600"}],
              "commands": ["echo $A $B $C >/srv/env; id -u >>/srv/env; pwd >>/srv/env", ["/bin/chown", "33:34", "/srv/env"]],
              "env": {"B": "recipe", "C": "c"}, "workdir": "/srv", "user": "web", "entrypoint": ["/bin/cat"], "cmd": ["/srv/env"]}
    r = builds.make(recipe)
    assert (r["name"], r["layers"], r["steps"], r["cached"]) == ("built", 5, 3, 0)
    i = builds.images
    out = subprocess.run([*i.run.program, "run", "--root", i.root, "--image", "built"], capture_output=True, text=True,
                         check=True).stdout
    assert out == "base recipe c\n0\n/srv\n"
    record = i.record("built")
    assert record["uid"] == ["33"] and sorted(record["env"]) == ["A=base", "B=recipe", "C=c"]
    assert i.sh("/srv/app/run; stat -c '%u %a' /etc/note /srv/env /srv/app/run", image="built").out.split() == [
        "ran", "0", "600", "33", "644", "0", "755"]
    # Nothing of the build's own is in it.
    assert layer_names(i) == ["srv/", "srv/env"]
    # The same again: nothing is run, and the image is the same, byte for byte.
    before = i.listing()
    again = builds.make(recipe)
    assert again["cached"] == again["steps"] == 3 and again["digest"] == r["digest"] and i.listing() == before
    # Under another name nothing is run either.  What changes runs from there on.
    assert builds.make(recipe, name="other")["cached"] == 3
    (builds.dir / "note").touch()
    assert builds.make(recipe)["cached"] == 3
    (builds.dir / "note").write_text("more\n")
    assert builds.make(recipe)["cached"] == 0
    recipe["commands"][1][1] = "33:33"
    assert builds.make(recipe)["cached"] == 2


CHANGES = """
rm /gone; rm /d/a; rm -r /whole; mkdir /whole; echo n >/whole/new
echo h >/d/one; ln /d/one /d/two; ln -s one /d/link; mkfifo -m 640 /d/pipe; chmod 4755 /d/b
mkdir -p /deep/er; touch -d '2001-02-03 04:05:06' /deep/er/old; chown 1000:7 /deep/er; chmod 2750 /deep/er
i=0; long=; while [ $i -lt 12 ]; do long=$long/long-directory-name-$i; i=$((i+1)); done; mkdir -p $long; echo l >$long/file
dd if=/dev/zero of=/zeros bs=1k count=300 2>/dev/null; truncate -s 5000001 /sparse
"""


@pytest.fixture
def merged(images, tmp):
    at = tmp / "merged"
    at.mkdir()
    yield at
    subprocess.run(["umount", at], stderr=subprocess.DEVNULL, check=False)


def test_what_is_exported_is_what_a_sandbox_sees(builds, merged, tmp):
    """Whiteouts, opaque directories, hard links, owners, times: against `umoci unpack`."""
    i = builds.images
    builds.make({"base": "base", "commands": [CHANGES]})
    names = layer_names(i)
    assert {".wh.gone", "d/.wh.a", "whole/.wh..wh..opq", "whole/new"} <= set(names)
    assert i.command("image-export", "built", tmp / "layout").returncode == 0
    must("umoci", "unpack", "--image", f"{tmp}/layout:latest", tmp / "bundle")
    must("mount", "-t", "overlay", "overlay", "-o", "ro,userxattr,xino=off,index=off,lowerdir=" +
         ":".join(str(l.relative_to(i.root)) for l in reversed(i.layers("built"))), merged, cwd=i.root)
    found = compare(merged, tmp / "bundle/rootfs")
    assert "gone" not in found and "whole/x" not in found and found["d/two"]["inode"] == "d/one"
    assert found["deep/er"]["uid"] == 1000 and found["deep/er"]["mode"] == 0o2750
    assert i.command("image-verify", "-f", "json").returncode == 0
    # Imported from there it is the same image.
    assert i.take(tmp / "layout", "again")["digest"] == json.loads(i.command("image-list", "-f", "json").out)[2]["digest"]


def test_the_same_bytes_with_an_epoch(builds, tmp):
    env = dict(os.environ, SOURCE_DATE_EPOCH="1000000000")
    recipe = {"base": "base", "commands": ["echo x >/new; mkdir /dir"]}
    one = builds.make(recipe, env=env)
    assert one["created"] == "2001-09-09T01:46:40Z"
    assert (builds.images.layers("built")[-1] / "new").stat().st_mtime == 1000000000
    builds.images.command("image-delete", "built")
    builds.images.command("image-gc")
    two = builds.make(recipe, env=env)
    assert two["cached"] == 0 and two["digest"] == one["digest"]
    p = builds.run(recipe, env=dict(os.environ, SOURCE_DATE_EPOCH="x"))
    assert p.returncode == 1 and "SOURCE_DATE_EPOCH" in p.err


def test_gc_and_the_cache(builds):
    """A step's layer is remembered as long as an image has it."""
    i = builds.images
    recipe = {"base": "base", "commands": ["echo x >/new"]}
    builds.make(recipe)
    i.command("image-gc")
    assert len(list((i.store / "builds").iterdir())) == 1 and builds.make(recipe)["cached"] == 1
    i.command("image-delete", "built")
    i.command("image-gc")
    assert not list((i.store / "builds").iterdir()) and builds.make(recipe)["cached"] == 0
    # A record that is damaged is no record.
    (next((i.store / "builds").iterdir())).write_text("x")
    assert builds.make(recipe)["cached"] == 0


def test_a_failed_command(builds):
    lines = builds.refuse({"base": "base", "commands": ["echo one >/1", "seq 100; echo the end >&2; exit 7", "true"]},
                          "command 2 of 3: it ended with exit status 7")
    assert len(lines) <= 22 and lines[-2] == "the end" and lines[-3] == "100" and "recipe.json" in lines[-1]
    # The step before is kept until image-gc.
    r = builds.make({"base": "base", "commands": ["echo one >/1"]})
    assert r["cached"] == 1
    assert "not found" in builds.refuse({"base": "base", "commands": [["/no/such"]]}, "/no/such", name="x")[-1]
    assert "SIGKILL" in builds.refuse({"base": "base", "commands": ["kill -9 $$"]}, "signal", name="x")[-1]


ESCAPES = """
t() { "$@" >/dev/null 2>&1 && echo "DONE: $*"; }
t mknod /null c 1 3; t mknod /mark c 0 0; t mknod /disk b 259 0
t mount -t tmpfs none /d; t mount --bind / /d; t umount /proc; t chroot /d /bin/true; t unshare -m true
t sh -c 'echo x >/proc/sys/kernel/hostname'; t hostname other; t sh -c 'echo 1 >/proc/sys/vm/drop_caches'
t ls /sys/fs; t cat /proc/1/environ; t sh -c 'echo c >/proc/sysrq-trigger'
t nc -w1 127.0.0.1 22; t sh -c ': >/tmp/pratai/recipes/tidy.sh'; t chmod 777 /tmp/pratai/recipes
t setuidgid 0 mount -t proc none /d
ls /host 2>/dev/null; grep CapEff /proc/self/status; grep NoNewPrivs /proc/self/status; grep Seccomp: /proc/self/status
"""


def test_what_a_command_may(builds):
    """Its capabilities are over the image's files; nothing of the machine can be had."""
    builds.make({"base": "base", "commands": [f"({ESCAPES}) >/said"]})
    said = builds.images.sh("cat /said", image="built").out
    assert "DONE" not in said, said
    # CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID
    assert said.split() == ["CapEff:", "00000000000000fb"[:0] + "%016x" % (1 | 2 | 8 | 16 | 32 | 64 | 128), "NoNewPrivs:", "1",
                            "Seccomp:", "2"]
    layer = builds.images.layers("built")[-1]
    assert sorted(p.name for p in layer.iterdir()) == ["said"]
    assert (layer / "said").stat().st_uid == BASE


def test_odd_files(builds):
    """set-user-ID bits are in the archive and not in the tree; names that layers cannot hold are refused."""
    i = builds.images
    builds.make({"base": "base", "commands": ["echo x >/su; chmod 6755 /su; mkfifo /p; ln /p /q"]})
    assert stat.S_IMODE((i.layers("built")[-1] / "su").stat().st_mode) == 0o755
    assert "-rwsr-sr-x" in must("tar", "-tvzf", i.store / "blobs/sha256" / i.record("built")["layer"][-1].split()[0])
    i.command("image-delete", "built")
    for command, word in {"echo >/.wh.d": "begins with '.wh.'", "mkdir /.wh..wh..opq": "begins with '.wh.'"}.items():
        builds.refuse({"base": "base", "commands": [command]}, word)


def test_what_is_left_running_ends(builds):
    start = time.monotonic()
    builds.make({"base": "base", "commands": ["(while :; do sleep 1; done) & setsid sh -c 'while :; do echo x >/loop; sleep 1; done' "
                                              ">/dev/null 2>&1 & echo done >/done"]})
    assert time.monotonic() - start < 60


def test_limits(builds):
    many = "i=0; while :; do (sleep 100) 2>/dev/null & i=$((i+1)); [ $i -lt 4000 ] || break; done; echo $(ps | wc -l)"
    p = builds.run({"base": "base", "commands": [many]}, "--timeout", "60s")  # whatever comes of it, it ends
    assert p.returncode in (0, 1)
    builds.images.command("image-delete", "built")
    builds.refuse({"base": "base", "commands": ["sleep 100"]}, "did not end within 1 s (--timeout)", "--timeout", "1s")
    builds.refuse({"base": "base", "commands": ["tail /dev/zero"]}, "more than 64 MiB of memory (--memory)", "--memory", "64M")
    disk = "--disk", "20M"
    builds.refuse({"base": "base", "commands": ["dd if=/dev/zero of=/x bs=1M count=3000; sleep 100"]},
                  "wrote more than 20 MiB (--disk)", *disk)
    builds.refuse({"base": "base", "commands": ["truncate -s 1099511627776 /x"]}, "larger than 20 MiB", *disk)
    builds.make({"base": "base", "commands": ["dd if=/dev/zero of=/x bs=1M count=10"]}, *disk)


RECIPES = {
    "[]": "not a JSON object", "{": "recipe.json", "{}": "'base' is missing", '{"base": 1}': "'base' is not a text",
    '{"base": "x", "bases": 1}': "'bases' is no member", '{"base": "a", "base": "b"}': '"base" twice',
    '{"base": "host"}': "'host'", '{"base": "../x"}': "no name", '{"base": "nothing"}': "no image 'nothing'",
    '{"base": "debian:"}': "no suite", '{"base": "debian:no such"}': "no name", '{"base": "debian:x/y"}': "no suite",
    '{"base": "base", "packages": "x"}': "'packages' is not a list", '{"base": "base", "packages": ["-o"]}': "no package's name",
    '{"base": "base", "packages": ["a;b"]}': "no package's name", '{"base": "base", "packages": [""]}': "no package's name",
    '{"base": "base", "files": {}}': "'files' is not a list", '{"base": "base", "files": ["x"]}': "list of objects",
    '{"base": "base", "files": [{"from": "x"}]}': "without 'from' or 'to'",
    '{"base": "base", "files": [{"from": "../x", "to": "/x"}]}': "not a path below",
    '{"base": "base", "files": [{"from": "/etc/passwd", "to": "/x"}]}': "not a path below",
    '{"base": "base", "files": [{"from": "a/../x", "to": "/x"}]}': "not a path below",
    '{"base": "base", "files": [{"from": "x", "to": "x"}]}': "not an absolute path",
    '{"base": "base", "files": [{"from": "x", "to": "/../x"}]}': "not an absolute path",
    '{"base": "base", "files": [{"from": "x", "to": "/x", "mode": "4755"}]}': "four octal digits",
    '{"base": "base", "files": [{"from": "x", "to": "/x", "mode": 420}]}': "four octal digits",
    '{"base": "base", "files": [{"from": "x", "to": "/x", "user": 1}]}': "none of from, to, mode",
    '{"base": "base", "files": [{"from": "none", "to": "/x"}]}': "No such file",
    '{"base": "base", "files": [{"from": "link", "to": "/x"}]}': "symbolic link",
    '{"base": "base", "files": [{"from": "out/passwd", "to": "/x"}]}': "symbolic link",
    '{"base": "base", "files": [{"from": "tree", "to": "/x"}]}': "symbolic link",
    '{"base": "base", "files": [{"from": "pipe", "to": "/x"}]}': "neither a file nor a directory",
    '{"base": "base", "files": [{"from": "dir", "to": "/x", "mode": "0644"}]}': "no mode can be given",
    '{"base": "base", "commands": "x"}': "'commands' is not a list", '{"base": "base", "commands": [[]]}': "empty list",
    '{"base": "base", "commands": [""]}': "empty text", '{"base": "base", "commands": [1]}': "neither a text nor a list",
    '{"base": "base", "env": []}': "'env' is not an object", '{"base": "base", "env": {"a b": "c"}}': "no name of a variable",
    '{"base": "base", "env": {"A": 1}}': "'A' is not a text", '{"base": "base", "env": {"A": "1", "A": "2"}}': '"A" twice',
    '{"base": "base", "workdir": "x"}': "'workdir' is not an absolute", '{"base": "base", "user": "a b"}': "'user' is no name",
    '{"base": "base", "user": "nobody-there"}': "not in its /etc/passwd", '{"base": "base", "cmd": "x"}': "'cmd' is not a list",
    '{"base": "base", "entrypoint": [1]}': "'entrypoint' is not a list",
}


def test_bad_recipes(builds):
    (builds.dir / "link").symlink_to("/etc/passwd")
    (builds.dir / "out").symlink_to("/etc")
    for name in "tree", "dir":
        (builds.dir / name).mkdir()
    (builds.dir / "tree/sub").mkdir()
    (builds.dir / "tree/sub/link").symlink_to("/etc/shadow")
    os.mkfifo(builds.dir / "pipe")
    (builds.dir / "x").write_text("x")
    for recipe, word in RECIPES.items():
        lines = builds.refuse(recipe, word)
        assert len(lines) == 1 and "recipe.json" in lines[0], (recipe, lines)
    assert "no recipe 'none': there is no such file, and those that are shipped are: " in builds.refuse("none", "seed")[-1]
    assert "No such file" in builds.refuse("./none", "none")[-1]
    p = subprocess.run([PRATAI, "image-build", "seed"], capture_output=True, text=True, check=False)
    assert p.returncode == 2 and "--name" in p.stderr
    for option, value in ("--memory", "1"), ("--disk", "x"), ("--timeout", "5"):
        p = builds.run({"base": "base"}, option, value)
        assert p.returncode == 2 and option in p.err and p.err.count("\n") == 1


def leftovers(images):
    return list(images.store.glob("tmp.*"))


def test_kill_9(builds):
    """The sandbox ends with it, and what is left of it in the store goes with the next build."""
    i = builds.images
    mark = "mark-%d" % os.getpid()
    p = builds.start({"base": "base", "commands": [f"echo {mark} >/x; exec sleep 1000.{os.getpid()}"]})
    wait_for(lambda: any((t / "disk/upper/x").exists() for t in leftovers(i)), 30, "the command")
    p.kill()
    p.communicate()

    def gone():
        for d in pathlib.Path("/proc").iterdir():
            try:
                if d.name.isdigit() and b"sleep\0001000.%d" % os.getpid() in (d / "cmdline").read_bytes():
                    return False
            except OSError:
                pass
        return True

    wait_for(gone, 20, "its end")
    assert leftovers(i) and not (i.store / "refs/built").exists()

    def swept():
        assert builds.make({"base": "base", "commands": ["true"]})["steps"] == 1
        return not leftovers(i)

    wait_for(swept, 20, "the sweep")


def test_a_signal_ends_it_in_order(builds):
    i = builds.images
    p = builds.start({"base": "base", "commands": ["echo x >/x; exec sleep 1000"]}, start_new_session=True)
    wait_for(lambda: any((t / "disk/upper/x").exists() for t in leftovers(i)), 30, "the command")
    os.killpg(p.pid, signal.SIGINT)
    out, err = p.communicate(timeout=30)
    assert p.returncode == 1 and err.splitlines()[-1].endswith("interrupted by signal 2") and not leftovers(i)


def test_two_at_once(builds):
    """The same recipe and others, into one store."""
    results = []

    def build(k):
        p = builds.start(str(builds.dir / f"r{k % 2}.json"), name=f"built{k}")
        p.out, p.err = p.communicate(timeout=SECONDS)
        results.append((p.returncode, p.err))

    for k in 0, 1:
        (builds.dir / f"r{k}.json").write_text(json.dumps({"base": "base", "commands": ["echo same >/same", f"echo {k} >/own"]}))
    threads = [threading.Thread(target=build, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == [(0, "")] * 4
    assert [builds.images.sh("cat /own", image=f"built{k}").out for k in range(4)] == ["0\n", "1\n", "0\n", "1\n"]
    assert builds.images.command("image-verify", "-f", "json").returncode == 0


def test_an_ordinary_user(builds):
    """Who cannot reach the build directory either."""
    for name in "pratai", "pratai-client", "pratai-build":
        shutil.copy(PRATAI.parent / name, builds.tmp)
    p = subprocess.run([builds.tmp / "pratai", "image-build", "seed", "--name", "x", "--root", builds.tmp / "mine"],
                       capture_output=True, text=True, check=False, user=1001, group=1001, extra_groups=[])
    assert p.returncode == 1 and "needs root" in p.stderr and p.stderr.count("\n") == 1


def test_no_source_of_packages(builds):
    """A machine whose apt has none says so."""
    (builds.tmp / "apt").mkdir()
    for recipe in ({"base": "debian:bookworm"}, {"base": "base", "packages": ["hello"]}):
        path = builds.dir / "recipe.json"
        path.write_text(json.dumps(recipe))
        p = subprocess.run(["unshare", "-m", "sh", "-c", 'mount --bind "$1" /etc/apt && shift && exec "$@"', "-",
                            builds.tmp / "apt", PRATAI, "image-build", path, "--name", "x", "--root", builds.images.root],
                           capture_output=True, text=True, check=False)
        assert p.returncode == 1 and "this machine has no source of Debian packages" in p.stderr
        assert p.stderr.count("\n") == 1


def test_sources_for_another_suite(tmp):
    """The machine's suite becomes the image's, wherever it stands as one."""
    for name in "from", "to":
        (tmp / name).mkdir()
    (tmp / "from/a.sources").write_text("URIs: http://own.example/own x\nSuites: own own-updates own-security own\nComponents: main\n")
    (tmp / "from/b.list").write_text("deb http://h.example/ own/updates main\ndeb http://h.example/own myown main own2\n")
    script = (PRATAI.parent / "recipes/sources.sh").read_text().replace("/tmp/pratai/apt/sources", str(tmp / "from"))
    must("sh", "-c", script, "-", "new", tmp / "to", env=dict(os.environ, PRATAI_MACHINE_SUITE="own"))
    assert (tmp / "to/a.sources").read_text() == (
        "URIs: http://own.example/own x\nSuites: new new-updates new-security new\nComponents: main\n")
    assert (tmp / "to/b.list").read_text() == (
        "deb http://h.example/ new/updates main\ndeb http://h.example/own myown main own2\n")
    must("sh", "-c", script, "-", "new", tmp / "to", env={k: v for k, v in os.environ.items() if k != "PRATAI_MACHINE_SUITE"})
    assert "own-updates" in (tmp / "to/a.sources").read_text()


# ---- Debian ----

@pytest.fixture(scope="session")
def debian():
    """A store in which seed, python3 and nodejs were built, once."""
    tmp = pathlib.Path(must("mktemp", "-d", "/tmp/pratai-build.XXXXXX").strip())
    images = Images(tmp, Runner(tmp))
    p = subprocess.run([PRATAI, "image-build", "seed", "--name", "seed", "--root", images.root], capture_output=True,
                       text=True, check=False, timeout=SECONDS)
    if p.returncode and ("no source of Debian packages" in p.stderr or "Failed to fetch" in p.stderr or
                         "Could not resolve" in p.stderr or "Could not connect" in p.stderr):
        shutil.rmtree(tmp)
        pytest.skip("no source of Debian packages can be reached")
    assert p.returncode == 0, p.stderr
    yield images
    shutil.rmtree(tmp)


def shipped(debian, name, **kw):
    p = subprocess.run([PRATAI, "image-build", name, "--name", name, "--root", debian.root, "-f", "json"],
                       capture_output=True, text=True, check=False, timeout=SECONDS, **kw)
    assert p.returncode == 0 and p.stderr == "", p.stderr
    return json.loads(p.stdout)


@pytest.mark.slow
def test_seed(debian):
    """A Debian that works, carries nothing of this machine's apt, and is not built twice."""
    assert shipped(debian, "seed")["cached"] == 1
    top = debian.layers("seed")[0]
    assert not list((top / "etc/apt/sources.list.d").iterdir()) and not (top / "etc/apt/sources.list").exists()
    assert not (top / "tmp/pratai").exists() and not (top / "etc/resolv.conf").exists()
    r = debian.sh("dpkg --audit; dpkg -l | grep -c ^ii; cat /etc/debian_version; perl -e 'print 6*7'; id -un 0; ls -d /proc /dev /tmp",
                  image="seed")
    assert int(r.out.split()[0]) > 60 and "42" in r.out and "/proc" in r.out, r.err
    assert debian.sh("dpkg --verify 2>&1 | grep -v ' c ' | head", "--uid", "0", image="seed").out == ""
    owners = {p.lstat().st_uid - BASE for p in top.rglob("*")}
    assert 0 in owners and max(owners) < 65536 and min(owners) >= 0


@pytest.mark.slow
def test_python3(debian):
    r = shipped(debian, "python3")
    assert r["layers"] == 2 and r["steps"] == 1
    p = debian.run("--root", debian.root, "--image", "python3",
                   argv=["python3", "-c", "import ssl, sqlite3, json; print(json.dumps(6 * 7))"])
    assert p.out == "42\n", p.err
    assert shipped(debian, "python3")["cached"] == 1


@pytest.mark.slow
def test_nodejs(debian):
    assert shipped(debian, "nodejs")["layers"] == 2
    p = debian.run("--root", debian.root, "--image", "nodejs", argv=["node", "-e", "console.log(6 * 7)"])
    assert p.out == "42\n", p.err
    assert debian.sh("npm --version", image="nodejs").code == 0


@pytest.mark.slow
def test_a_recipe_on_debian(debian, tmp):
    """adduser, setcap, alternatives and services: what packages do when they are installed."""
    (tmp / "r.json").write_text(json.dumps({
        "base": "seed", "packages": ["iputils-ping", "dbus"],
        "commands": ["useradd -m -u 1234 u && echo hi >/home/u/x && chown u:u /home/u/x", "getent passwd messagebus"]}))
    p = subprocess.run([PRATAI, "image-build", tmp / "r.json", "--name", "r", "--root", debian.root], capture_output=True,
                       text=True, check=False, timeout=SECONDS)
    assert p.returncode == 0, p.stderr
    assert debian.sh("stat -c %u:%g /home/u/x; ls /usr/sbin/policy-rc.d", image="r").out == "1234:1234\n"
    assert not [n for n in layer_names(debian, "r", 1) if n.startswith(("proc/", "dev/", "tmp/", "etc/resolv.conf"))]
    (tmp / "r.json").write_text('{"base": "seed", "packages": ["no-such-package-at-all"]}')
    p = subprocess.run([PRATAI, "image-build", tmp / "r.json", "--name", "r2", "--root", debian.root], capture_output=True,
                       text=True, check=False, timeout=SECONDS)
    assert p.returncode == 1 and "Unable to locate package no-such-package-at-all" in p.stderr


@pytest.mark.slow
def test_debian_exported(debian, tmp):
    """What a sandbox sees of it is what `umoci unpack` makes of the exported image."""
    assert debian.command("image-export", "seed", tmp / "layout").returncode == 0
    must("umoci", "unpack", "--image", f"{tmp}/layout:latest", tmp / "bundle")
    assert len(compare(debian.layers("seed")[0], tmp / "bundle/rootfs")) > 1000
