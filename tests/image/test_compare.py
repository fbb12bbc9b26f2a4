"""What a sandbox sees of an image is what `umoci unpack` makes of it: type, mode, owner, size,
content, mtime, attributes, link count and which names are one file; but for what
pratai-image(5) names: set-user-ID bits, devices, attributes other than user.*.

On images that umoci, buildah and mmdebstrap make.  Debian packages come from wherever apt has
them from on this machine.
"""
import os
import pathlib
import shutil
import stat
import subprocess

import pytest

from images import Layout, entry, tar, tree

SECONDS = 300
pytestmark = pytest.mark.slow


def must(*words, **kw):
    p = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False, timeout=SECONDS, **kw)
    assert p.returncode == 0, (words, p.stderr[-2000:])
    return p.stdout


@pytest.fixture(scope="session")
def work():
    path = pathlib.Path(subprocess.run(["mktemp", "-d", "/tmp/pratai-compare.XXXXXX"], capture_output=True, text=True,
                                       check=True).stdout.strip())
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def debian(work):
    """The tar of a small Debian."""
    release = dict(l.split("=", 1) for l in pathlib.Path("/etc/os-release").read_text().splitlines() if "=" in l)
    suite = release.get("VERSION_CODENAME", "stable").strip('"')
    sources = [p for p in [pathlib.Path("/etc/apt/sources.list"), *sorted(pathlib.Path("/etc/apt/sources.list.d").glob("*"))]
               if p.is_file() and any(l.strip() and not l.startswith("#") for l in p.read_text().splitlines())]
    out = work / "debian.tar"
    p = subprocess.run(["mmdebstrap", "--quiet", "--variant=essential", "--include=iputils-ping", suite, out,
                        *(sources if release.get("ID") == "debian" else [])],
                       capture_output=True, text=True, check=False, timeout=SECONDS)
    if p.returncode:
        pytest.skip("no source of Debian packages can be reached")
    return out


@pytest.fixture
def merged(images, tmp):
    """The layers of an image put together as a sandbox has them, but on disk's own ids."""
    at = tmp / "merged"
    at.mkdir()

    def merge(name="x"):
        layers = images.layers(name)[int(images.record(name)["base"][0]):]
        if len(layers) == 1:
            return layers[0]
        must("mount", "-t", "overlay", "overlay", "-o", "ro,userxattr,xino=off,index=off,lowerdir=" +
             ":".join(str(l.relative_to(images.root)) for l in reversed(layers)), at, cwd=images.root)
        return at

    yield merge
    subprocess.run(["umount", at], stderr=subprocess.DEVNULL, check=False)


def compare(ours, theirs):
    ours, theirs = tree(ours), tree(theirs, 0)
    for found in ours, theirs:
        for name, what in list(found.items()):
            what["xattr"] = {n: v for n, v in what["xattr"].items() if n.startswith("user.")
                             and not n.startswith("user.overlay.")}
            if stat.S_ISREG(what["kind"]):
                what["mode"] &= ~0o6000
            if what["kind"] in (stat.S_IFCHR, stat.S_IFBLK):
                del found[name]
    # A sandbox's root directory is its own; umoci's has what the tool's own directory had.
    ours.pop("."), theirs.pop(".")
    assert sorted(set(ours) ^ set(theirs)) == []
    wrong = {n: (ours[n], theirs[n]) for n in ours if ours[n] != theirs[n]}
    assert not wrong, "%d differ: %r" % (len(wrong), list(wrong.items())[:3])
    return ours


def unpacked(layout, tag, tmp):
    must("umoci", "unpack", "--image", f"{layout}:{tag}", tmp / "bundle")
    return tmp / "bundle/rootfs"


def test_mmdebstrap(images, debian, merged, tmp):
    """A tar of a root directory, against GNU tar, and as an image of one layer by umoci."""
    images.take(debian)
    plain = tmp / "plain"
    plain.mkdir()
    must("tar", "-x", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-p", "-f", debian, "-C", plain)
    found = compare(merged(), plain)
    assert len(found) > 1000 and "usr/bin/ping" in found


def change(root):
    """As a second layer would, with everything that is hard about layers."""
    shutil.rmtree(root / "usr/share/doc")
    (root / "usr/share/doc").mkdir()
    (root / "usr/share/doc/new").write_text("new\n")
    (root / "etc/debian_version").unlink()
    (root / "etc/hostname").write_text("h\n")
    shutil.rmtree(root / "var/log")
    (root / "var/log").symlink_to("/tmp")
    os.link(root / "etc/hostname", root / "etc/hostname.2")
    os.link(root / "etc/hostname", root / "etc/hostname.3")
    (root / "srv/file").mkdir()
    (root / "srv/file/deep").mkdir()
    (root / "srv/file/deep/x").write_text("x")
    os.chown(root / "srv/file/deep", 1000, 33)
    os.chmod(root / "srv/file/deep", 0o2750)
    os.setxattr(root / "srv/file/deep/x", "user.note", b"kept")
    os.setxattr(root / "srv/file", "user.dir", b"\x00\xff")
    os.utime(root / "srv/file/deep/x", ns=(0, 1234567890_987654321))
    with open(root / "srv/sparse", "wb") as f:
        f.seek(200 << 20)
        f.write(b"end")
    os.mkfifo(root / "srv/pipe", 0o640)
    (root / "srv/caf\u00e9").write_text("1")
    (root / "srv/cafe\u0301").write_text("2")
    (root / "srv/empty").touch()
    os.symlink("no/where", root / "srv/dangling")
    os.lchown(root / "srv/dangling", 5, 6)


def test_umoci(images, debian, merged, tmp):
    layout = tmp / "layout"
    must("umoci", "init", "--layout", layout)
    must("umoci", "new", "--image", f"{layout}:empty")
    must("umoci", "unpack", "--image", f"{layout}:empty", tmp / "work")
    root = tmp / "work/rootfs"
    must("tar", "-x", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-p", "--exclude=./dev/*", "-f", debian, "-C", root)
    must("umoci", "repack", "--refresh-bundle", "--image", f"{layout}:one", tmp / "work")
    change(root)
    must("umoci", "repack", "--refresh-bundle", "--image", f"{layout}:two", tmp / "work")
    (root / "srv/file/deep/x").unlink()
    (root / "usr/share/doc/new").unlink()
    (root / "etc/hostname.4").hardlink_to(root / "etc/hostname.2")
    must("umoci", "repack", "--refresh-bundle", "--image", f"{layout}:three", tmp / "work")
    for tag in "one", "two", "three":
        at = tmp / tag
        at.mkdir()
        images.take(layout, "x:" + tag)
        found = compare(merged("x:" + tag), unpacked(layout, tag, at))
        subprocess.run(["umount", tmp / "merged"], stderr=subprocess.DEVNULL, check=False)
        assert len(found) > 1000
    assert found["etc/hostname.4"]["inode"] == found["etc/hostname"]["inode"] and "srv/file/deep/x" not in found
    # And the other tools' view of the same: a tar of the layout, docker's form.
    for kind in "oci-archive", "docker-archive":
        must("skopeo", "--insecure-policy", "copy", f"oci:{layout}:three", f"{kind}:{tmp}/{kind}.tar:x:3")
        images.take(tmp / f"{kind}.tar", kind)
        assert compare(merged(kind), tmp / "three/bundle/rootfs") == found
        subprocess.run(["umount", tmp / "merged"], stderr=subprocess.DEVNULL, check=False)


def test_buildah(images, debian, merged, tmp):
    store = ["--storage-driver", "vfs", "--root", str(tmp / "storage"), "--runroot", str(tmp / "runroot")]
    layout = tmp / "layout"

    def buildah(*words):
        return must("buildah", *store, *words).strip()

    try:
        c = buildah("from", "scratch")
        buildah("add", c, debian, "/")
        buildah("commit", "--format", "oci", c, "localhost/one")
        d = buildah("from", "--pull-never", "localhost/one")
        root = pathlib.Path(buildah("mount", d))
        change(root)
        buildah("config", "--env", "A=b", "--cmd", "/bin/true", "--user", "www-data", d)
        buildah("commit", "--format", "oci", d, f"oci:{layout}:two")
        buildah("umount", d)
    finally:
        subprocess.run(["buildah", *store, "rm", "-a"], capture_output=True, check=False)
        subprocess.run(["umount", "-R", tmp / "storage"], stderr=subprocess.DEVNULL, check=False)
    images.take(layout, "x:two")
    record = images.record("x:two")
    assert len(record["layer"]) == 2 and record["uid"] == record["gid"] == ["33"] and "A=b" in record["env"]
    found = compare(merged("x:two"), unpacked(layout, "two", tmp))
    assert "usr/share/doc/new" in found and "etc/debian_version" not in found


def test_marks_by_their_names(images, merged, tmp):
    """The names of deletions are what the OCI specification says, not only what we make of them."""
    layout = tmp / "layout"
    images.take(Layout(tar(entry("d"), entry("d/old", "o"), entry("d/sub"), entry("d/sub/old", "o"), entry("f", "f")),
                       tar(entry("d"), entry("d/.wh..wh..opq", ""), entry("d/new", "n"), entry(".wh.f", "")),
                       ref="two").write(layout), "x:two")
    found = compare(merged("x:two"), unpacked(layout, "two", tmp))
    assert sorted(found) == ["d", "d/new"]


def test_a_command_in_it(images, debian):
    images.take(debian)
    r = images.sh("dpkg -s base-files | head -2; echo x >/root/x && ls /root", "--uid", "0")
    assert "Package: base-files" in r.out and r.out.endswith("x\n"), r.err
