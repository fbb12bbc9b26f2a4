"""`pratai run --image`: what the layers show through the overlay, and what the configuration says."""
import io
import os
import shutil
import subprocess
import tarfile

import pytest

from images import Layout, entry, hard, link, sha, tar
from sandboxes import BUILD, WRITABLE_ROOT, become_ordinary


@pytest.fixture
def base(busybox):
    """The layer of a root with a shell."""
    accounts = busybox / "etc"
    accounts.mkdir(exist_ok=True)
    (accounts / "passwd").write_text("root:x:0:0::/root:/bin/sh\nweb:x:33:34::/:/bin/sh\n")
    (accounts / "group").write_text("root:x:0:\nweb:x:34:\n")
    return subprocess.run(["tar", "-c", "--owner=0", "--group=0", "-C", busybox, "."], capture_output=True,
                          check=True).stdout


def test_owners_and_modes(images, base):
    images.take(Layout(base, tar(entry("secret", "s\n", mode=0o600), entry("ours", "o\n", mode=0o600, uid=1000, gid=7),
                                 entry("root", mode=0o700), entry("home"), entry("home/u", mode=0o700, uid=1000, gid=1000))))
    r = images.sh("stat -c '%u %g %a' /secret /ours /root /home/u; cat /ours; cat /secret; echo x >/home/u/f && echo w; "
                  "echo x >/root/f")
    assert r.out.splitlines() == ["0 0 600", "1000 7 600", "0 0 700", "1000 1000 700", "o", "w"]
    assert r.err.count("Permission denied") == 2
    r = images.sh("cat /secret; echo more >>/secret && cat /secret; chown 5 /secret 2>&1", "--uid", "0")
    assert r.out.startswith("s\ns\nmore\n") and "not permitted" in r.out
    # Nothing was written to the layer, whose next sandbox is as the first.
    assert images.sh("cat /secret", "--uid", "0").out == "s\n"


def test_whiteouts_and_opaque_directories(images, base):
    images.take(Layout(base, tar(entry("f", "1"), entry("d"), entry("d/old", "x"), entry("e"), entry("e/old", "x"),
                                 entry("g"), entry("g/x", "x"), entry("k"), entry("k/a", "a"), entry("k/b", "b")),
                       tar(entry(".wh.f", ""), entry("d"), entry("d/.wh..wh..opq", ""), entry("d/new", "x"),
                           entry(".wh.e", ""), entry("e"), entry("e/new", "x"), entry(".wh.g", ""),
                           entry("k/.wh.a", ""))))
    assert images.sh("ls /f; ls /g; ls -A /d /e /k").out.split() == ["/d:", "new", "/e:", "new", "/k:", "b"]
    # Deleted in one layer, back in the next.
    images.take(Layout(base, tar(entry("f", "1")), tar(entry(".wh.f", "")), tar(entry("f", "3"))))
    assert images.sh("cat /f").out == "3"


def test_a_root_that_is_opaque(images, base):
    images.take(Layout(tar(entry("old", "x")), tar_append(base, entry(".wh..wh..opq", "")), tar(entry("top", "x"))))
    assert images.sh("ls /old /top").out == "/top\n"


def tar_append(data, *entries):
    out = io.BytesIO(data)
    with tarfile.open(fileobj=out, mode="a") as t:
        for info, content in entries:
            t.addfile(info, io.BytesIO(content) if content else None)
    return out.getvalue()


def test_forged_marks_are_nothing(images, base):
    """L10 as a sandbox sees it: an image's own attributes and devices hide nothing."""
    pax = {"SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.trusted.overlay.opaque": "y"}
    images.take(Layout(base, tar(entry("d"), entry("d/f", "x"), entry("g", "x")),
                       tar(entry("d", pax=pax), entry("g", b"", type=tarfile.CHRTYPE, devmajor=0, devminor=0))))
    assert images.sh("ls /d /g").out.split() == ["/g", "/d:", "f"]


def test_hard_links_over_layers(images, base):
    images.take(Layout(base, tar(entry("a", "text")), tar(hard("b", "a"))))
    a, b = images.sh("stat -c '%i %h' /a /b; ").out.splitlines()
    assert a == b and a.endswith(" 2")


def test_devices_and_set_user_id(images, base):
    """L08, L09: none is there, and nothing changes the user."""
    images.take(Layout(base, tar(entry("null", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
                                 entry("su", "x", mode=0o6755), link("dev", "/etc"))))
    r = images.sh("ls /null; stat -c %a /su; ls /dev/null; grep ' / ' /proc/self/mountinfo")
    assert r.out.splitlines()[:2] == ["755", "/dev/null"] and "nosuid" in r.out and "nodev" in r.out


CONFIG = {"Env": ["PATH=/opt/bin:/bin", "A=image", "B=image"], "WorkingDir": "/work", "User": "web",
          "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["pwd; id -u; id -g; echo $PATH $A $HOME"]}


def test_the_configuration(images, base):
    images.take(Layout(base, tar(entry("work")), config=CONFIG))
    words = [*images.run.program, "run", "--root", str(images.root), "--image", "x"]

    def out(*more):
        return subprocess.run([*words, *more], capture_output=True, text=True, check=True).stdout.splitlines()

    assert out() == ["/work", "33", "34", "/opt/bin:/bin image /tmp"]
    assert out("--workdir", "/etc", "--uid", "5", "--env", "A=mine", "--env", "HOME=/h") == [
        "/etc", "5", "5", "/opt/bin:/bin mine /h"]
    # A command is run instead of the image's own, entry point included.
    assert out("--", "/bin/echo", "hello") == ["hello"]
    plain = images.take(base, "plain")
    assert plain["layers"] == 1
    r = images.sh("id -u; pwd; echo $PATH", image="plain")
    assert r.out.splitlines()[:2] == ["1000", "/"] and "/usr/local/sbin" in r.out
    p = subprocess.run([*words[:-1], "plain"], capture_output=True, text=True, check=False)
    assert p.returncode == 125 and "no command" in p.stderr and p.stderr.count("\n") == 1


def test_a_store_that_cannot_map_ids(images, base, tmp):
    """On an overlay: files are nobody's, permissions for others apply, and marks still count."""
    for name in "lower", "upper", "work", "root":
        (tmp / name).mkdir()
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={tmp}/lower,upperdir={tmp}/upper,workdir={tmp}/work",
                    images.root], check=True)
    try:
        images.take(Layout(base, tar(entry("secret", "s", mode=0o600), entry("open", "o\n"), entry("d"), entry("d/old", "x")),
                           tar(entry("d"), entry("d/.wh..wh..opq", ""), entry("d/new", "x"))))
        r = images.sh("stat -c %u /open; cat /open; ls /d; cat /secret")
        if r.code == 125:  # one overlay too many: below Linux 6.6 the sandbox needs two of its own
            assert "below Linux 6.6 the image store cannot be on an overlay" in r.err
            assert not WRITABLE_ROOT
        else:
            assert r.out.split() == ["65534", "o", "new"] and "Permission denied" in r.err
        p = images.try_to_take(Layout(base, tar(entry(".wh.bin", ""))), "y")
        assert p.returncode == 1 and "cannot hold whiteouts" in p.err
    finally:
        subprocess.run(["umount", images.root], check=True)


def test_an_image_that_is_not_there(images, base):
    images.take(base, "there")
    for name, word in {"none": "there is: host, there", "../x": "no name", "": "characters"}.items():
        r = images.sh("true", image=name)
        assert r.code == 125 and word in r.err and r.err.count("\n") == 1
    shutil.rmtree(images.layers("there")[0])
    r = images.sh("true", image="there")
    assert r.code == 125 and "the layer" in r.err


@pytest.mark.parametrize("count", [1, 4, 20, 127])
def test_many_layers(images, base, count):
    images.take(Layout(base, *(tar(entry("n", str(i)), entry("f%d" % i, "")) for i in range(1, count)), how="none"))
    r = images.sh("echo $(cat /n) $(ls / | grep -c '^f[0-9]')")
    assert r.out.split() == [str(count - 1)] * (1 + (count > 1)), r.err


def test_the_plan_names_the_layers(images, base):
    images.take(base)
    p = subprocess.run([*images.run.program, "run", "--root", images.root, "--image", "x", "--print-plan", "--", "/x"],
                       capture_output=True, text=True, check=True)
    assert str(images.layers()[0]) in p.stdout


def test_an_ordinary_user(images, base):
    """In a store of its own: all files are the user's, everything else is the same."""
    archive = images.write(Layout(base, tar(entry("tmp"), entry("proc"), entry("dev"), entry("etc/new", "n", mode=0o600, uid=55), entry(".wh.bin2", ""),
                                            entry("k"), entry("k/.wh..wh..opq", ""), entry("su", "x", mode=0o4755)),
                                  config={"User": "33"}).tar())
    become_ordinary(images.run)
    home = images.run.tmp
    for name in "pratai-client", "pratai-unpack":
        shutil.copy(BUILD / name, home / name)
    os.chown(home, 1001, 1001)
    command = [*images.run.program]
    root = home / "store"
    p = subprocess.run([*command, "image-import", str(archive), "--name", "x", "--root", str(root), "-f", "json"],
                       capture_output=True, text=True, check=False)
    assert p.returncode == 0, p.stderr
    layers = list((root / "images/layers").iterdir())
    assert len(layers) == 2 and {f.lstat().st_uid for d in layers for f in [d, *d.rglob("*")]} == {1001}
    r = images.run.sh("id -u; cat /etc/new; echo; ls -A /k; stat -c %a /su; echo y >/etc/new && echo w",
                      "--root", root, "--image", "x")
    # Below Linux 6.6 the root of an ordinary user's sandbox is read-only.
    written = [] if "tmpfs.xattr" in os.environ.get("PRATAI_DISABLE", "") else ["w"]
    assert r.out.split() == ["33", "n", "755", *written], r.err
    p = subprocess.run([*command, "image-gc", "--root", str(root)], capture_output=True, check=False)
    assert p.returncode == 0
