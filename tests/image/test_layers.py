"""Attacks on whoever unpacks a layer, by the ids of the list of attacks (L01 to L21), and what
ordinary layers must become.  Each refusal is one sentence that names the entry, and leaves
nothing; controls show that the innocent form is taken."""
import os
import stat
import struct
import subprocess
import tarfile

import pytest

from images import BASE, Layout, entry, hard, link, node, sha, tar, tree

ETC = "/etc/pratai-test-escape"


@pytest.fixture(autouse=True)
def nothing_outside(tmp):
    yield
    assert not os.path.exists(ETC) and not (tmp / "x").exists() and not (tmp.parent / "x").exists()


def one(images, *entries, **kw):
    images.take(tar(*entries), **kw)
    return images.layers()[0]


def test_an_ordinary_tree(images):
    top = one(images, entry("./", mode=0o750, uid=1, gid=2), entry("a"), entry("a/f", "text", mode=0o640,
              uid=33, gid=65535, mtime=1234567890.123456789), entry("a/empty", "", mode=0),
              link("a/l", "/etc/passwd", uid=7), hard("h", "a/f"), node("p", tarfile.FIFOTYPE, mode=0o620),
              entry("d", mode=0o1777, mtime=5), entry("sub", mode=0o2775))
    found = tree(top)
    assert found["."]["mode"] == 0o750 and (found["."]["uid"], found["."]["gid"]) == (1, 2)
    f = found["a/f"]
    assert (f["mode"], f["uid"], f["gid"], f["size"], f["links"]) == (0o640, 33, 65535, 4, 2)
    assert abs(f["mtime"] - 1234567890123456789) < 1000  # Python's float
    assert found["h"]["inode"] == f["inode"] and found["a/empty"]["mode"] == 0
    assert found["a/l"]["target"] == "/etc/passwd" and found["a/l"]["uid"] == 7
    assert stat.S_ISFIFO(found["p"]["kind"]) and found["p"]["mode"] == 0o620
    assert found["d"]["mode"] == 0o1777 and found["d"]["mtime"] == 5 * 10**9 and found["sub"]["mode"] == 0o2775


@pytest.mark.parametrize("name", ["../x", "../../../../../../etc/pratai-test-escape", "a/../../x", "a/..", ".."])
def test_L01_dots(images, name):
    images.refuse(tar(entry("a"), entry(name, "x")), "..")


def test_L02_absolute_names_are_of_the_images_root(images):
    assert (one(images, entry("/etc"), entry(ETC, "x")) / ETC[1:]).read_text() == "x"
    assert (one(images, entry("//a//.//b", "y")) / "a/b").read_text() == "y"


@pytest.mark.parametrize("target", ["/etc", "..", "../../../../../../etc", "real", "/proc/self/root/etc"])
def test_L03_through_a_link(images, target):
    images.refuse(tar(entry("real"), link("d", target), entry("d/pratai-test-escape", "x")),
                  "'d' is a symbolic link")
    images.refuse(tar(entry("real"), link("d", target), entry("d/a/b", "x")), "'d' is a symbolic link")
    images.refuse(tar(entry("real"), link("d", target), link("d/x", "y")), "'d' is a symbolic link")


def test_L03_a_link_and_then_a_directory(images):
    """The entry replaces the link, as in every tool; it does not follow it."""
    top = one(images, link("d", "/etc"), entry("d"), entry("d/pratai-test-escape", "x"))
    assert (top / "d").is_dir() and not (top / "d").is_symlink()
    top = one(images, link("f", ETC), entry("f", "x"))
    assert (top / "f").read_text() == "x" and not (top / "f").is_symlink()


@pytest.mark.parametrize("target,word", [
    ("../../etc/shadow", ".."), ("../x", ".."), ("/etc/shadow", "not there"), ("none", "not there"),
    ("d", "directory"), ("l/shadow", "not there"), ("", "cannot be linked"), (".", "cannot be linked")])
def test_L04_targets_of_hard_links(images, target, word):
    images.refuse(tar(entry("d"), link("l", "/etc"), hard("h", target)), word)


def test_L05_a_hard_link_to_a_link(images):
    top = one(images, link("l", "/etc/shadow"), hard("h", "l"))
    found = tree(top)
    assert os.readlink(top / "h") == "/etc/shadow" and found["h"]["inode"] == found["l"]["inode"]
    # Nothing is written through it.
    top = one(images, link("l", ETC), hard("h", "l"), entry("h", "x"))
    assert (top / "h").read_text() == "x" and os.readlink(top / "l") == ETC


def test_L06_a_hard_link_and_then_a_link_in_its_way(images):
    top = one(images, entry("d"), entry("d/f", "x"), hard("h", "d/f"), link("d", "/etc"))
    assert os.readlink(top / "d") == "/etc" and (top / "h").read_text() == "x"
    images.refuse(tar(entry("d"), entry("d/f", "x"), link("d", "/etc"), hard("h", "d/passwd")), "not there")


@pytest.mark.parametrize("name", [".", "/", "./", "//", "./."])
def test_L07_the_root_is_a_directory(images, name):
    images.refuse(tar(link(name, "/etc")), "root")
    images.refuse(tar(entry("a", "x"), hard(name, "a")), "root")
    images.refuse(tar(node(name, tarfile.FIFOTYPE)), "root")


def test_L08_devices(images):
    r = images.take(tar(entry("dev"), node("dev/null", tarfile.CHRTYPE, 1, 3), node("sda", tarfile.BLKTYPE, 8, 0),
                        node("zero", tarfile.CHRTYPE, 0, 0)))
    assert r["devices_left_out"] == 3
    assert set(tree(images.layers()[0])) == {".", "dev"}


def test_L09_set_user_id(images):
    top = one(images, entry("su", "x", mode=0o4755), entry("sg", "x", mode=0o2755), entry("t", "x", mode=0o1755),
              entry("cap", "x", pax={"SCHILY.xattr.security.capability": "\x01\x00\x00\x02"}),
              hard("su2", "su", mode=0o6755))
    found = tree(top)
    assert {n: f["mode"] for n, f in found.items() if n != "."} == {
        "su": 0o755, "sg": 0o755, "t": 0o1755, "cap": 0o644, "su2": 0o755}
    assert found["cap"]["xattr"] == {} and found["su"]["uid"] == 0 and (top / "su").stat().st_uid == BASE


def test_L10_attributes_of_the_overlays(images):
    pax = {"SCHILY.xattr." + n: "y" for n in (
        "user.overlay.opaque", "user.overlay.redirect", "user.overlay.whiteout", "user.overlay.overlay.opaque",
        "trusted.overlay.opaque", "trusted.x", "security.selinux", "system.posix_acl_access")}
    pax["SCHILY.xattr.user.kept"] = "value"
    r = images.take(Layout(tar(entry("d"), entry("d/below", "x")), tar(entry("d", pax=pax), entry("f", "x", pax=pax))))
    top = images.layers()[1]
    assert {os.getxattr(top / n, "user.kept") for n in "df"} == {b"value"}
    assert os.listxattr(top / "d") == os.listxattr(top / "f") == ["user.kept"]
    assert r["attributes_left_out"] >= 14
    # And a forged whiteout is a device.
    images.take(Layout(tar(entry("secret", "x")), tar(node("secret", tarfile.CHRTYPE))), "y")
    assert list(images.layers("y")[1].iterdir()) == []


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh.", "d/.wh..", "d/.wh...", ".wh..wh."])
def test_L11_whiteouts_of_nothing(images, name):
    images.refuse(tar(entry("d"), entry(name, "")), "deletes no name")


def test_L11_below_a_whiteout(images):
    images.refuse(tar(entry(".wh.d"), entry(".wh.d/x", "x")), ".wh.")
    # aufs' own is passed over.
    assert list(one(images, entry(".wh..wh.plnk"), entry(".wh..wh.plnk/1.2", "x"), entry(".wh..wh.aufs", "")
                    ).iterdir()) == []


@pytest.mark.parametrize("mark", [entry(".wh.f", ""), entry(".wh.f"), link(".wh.f", "/etc"),
                                  node(".wh.f", tarfile.CHRTYPE), entry(".wh.f", "data")],
                         ids=["file", "directory", "link", "device", "full"])
def test_L12_whiteouts_of_every_type(images, mark):
    if mark[0].type == tarfile.CHRTYPE:
        pass  # named as a whiteout it is one, whatever it is
    images.take(Layout(tar(entry("f", "x"), entry("g", "x")), tar(mark)))
    assert images.sh("ls", image="x").code != 0  # no shell in it; the layer is what counts
    s = (images.layers()[1] / "f").lstat()
    assert stat.S_ISCHR(s.st_mode) and s.st_rdev == 0


@pytest.mark.parametrize("order", [1, -1])
def test_L13_deletions_below_what_is_no_directory_any_more(images, order):
    """As umoci writes them when a directory becomes a link, or goes."""
    base = tar(*(entry(n) for n in ("log", "log/a", "gone", "gone/a", "file")), entry("file/x", "x"))
    marks = [link("log", "/tmp"), entry("log/.wh.a", ""), entry("log/a/.wh.b", ""), entry("log/.wh..wh..opq", ""),
             entry(".wh.gone", ""), entry("gone/.wh.a", ""), entry("gone/a/.wh..wh..opq", ""),
             entry("file", "now"), entry("file/.wh.x", "")]
    images.take(Layout(base, tar(*marks[::order])))
    found = tree(images.layers()[1])
    assert set(found) == {".", "log", "gone", "file"}
    assert found["log"]["target"] == "/tmp" and stat.S_ISCHR(found["gone"]["kind"])


@pytest.mark.parametrize("order", [1, -1])
def test_L13_opaque_and_whiteouts_in_any_order(images, order):
    marks = [entry("d/.wh..wh..opq", ""), entry("d/new", "n"), entry("d/sub/.wh.x", ""), entry("d/sub/y", "y"),
             entry(".wh.gone", ""), entry(".wh.again", ""), entry("again/new", "n")]
    images.take(Layout(tar(entry("d"), entry("d/old", "o"), entry("gone"), entry("gone/x", "x"), entry("again"),
                           entry("again/old", "x")), tar(*marks[::order])))
    top = images.layers()[1]
    assert os.getxattr(top / "d", "user.overlay.opaque") == b"y"
    assert os.getxattr(top / "again", "user.overlay.opaque") == b"y"
    assert (top / "d/new").read_text() == "n" and (top / "again/new").read_text() == "n"
    assert stat.S_ISCHR((top / "gone").lstat().st_mode) and stat.S_ISCHR((top / "d/sub/x").lstat().st_mode)


def test_L13_a_root_that_is_opaque(images):
    images.take(Layout(tar(entry("old", "x")), tar(entry(".wh..wh..opq", ""), entry("new", "x")), tar(entry("top", ""))))
    assert images.record()["base"] == ["1"]


def test_L14_access_control_lists(images):
    acl = {"SCHILY.acl.access": "user::rwx,user:1000:rwx,group::r-x,mask::rwx,other::r-x"}
    r = images.take(tar(entry("f", "x", pax=acl), link("l", "f", pax=acl)))
    assert r["attributes_left_out"] == 2
    assert os.listxattr(images.layers()[0] / "f") == []


def test_L15_bombs(images, tmp):
    zeros = bytes(1 << 20)
    # 600 MiB of zeros are some 100 kB of xz, and a few kB of zstd.
    for how in "zstd", "xz":
        path = tmp / "bomb"
        with open(path, "wb") as out:
            p = subprocess.Popen([how, "-q", "-1", "-c"], stdin=subprocess.PIPE, stdout=out)
            info, _ = entry("zeros", "")
            info.size = 600 << 20
            p.stdin.write(info.tobuf())
            for _ in range(600):
                p.stdin.write(zeros)
            p.stdin.write(bytes(1024))
            p.stdin.close()
            assert p.wait() == 0
        images.refuse(path, "1100 times its size")
        path.unlink()


def test_L15_depth_and_length(images):
    images.refuse(tar(entry("/".join(["d"] * 300))), "too many directories")
    images.refuse(tar(entry("/".join(["d" * 250] * 17))), "more than 4095 bytes")
    images.refuse(tar(entry("d" * 256, "x")), "more than 255 bytes")
    assert (one(images, entry("/".join(["d"] * 250) + "/f", "x")) / "/".join(["d"] * 250) / "f").is_file()


def test_L15_packed_twice(images):
    import gzip
    import lzma
    images.refuse(gzip.compress(lzma.compress(tar(entry("a", "x")))), "packed more than once")


def header(name, size=0, **fields):
    """A tar header with fields as raw bytes."""
    h = bytearray(entry(name, "")[0].tobuf(tarfile.USTAR_FORMAT))
    places = {"uid": (108, 8), "gid": (116, 8), "size": (124, 12), "mtime": (136, 12)}
    for field, raw in {"size": b"%011o\0" % size, **fields}.items():
        at, n = places[field]
        h[at:at + n] = raw.ljust(n, b"\0")[:n]
    h[148:156] = b"        "
    h[148:156] = b"%06o\0 " % sum(h)
    return bytes(h)


def base256(value, n):
    return bytes([0x80]) + value.to_bytes(n - 1, "big") if value >= 0 else value.to_bytes(n, "big", signed=True)


END = bytes(1024)


def test_L16_owners(images):
    images.refuse(header("f", uid=base256(2**55 - 1, 8)) + END, "no user id")
    images.refuse(tar(entry("f", "x", pax={"uid": str(2**63)})), "")
    images.refuse(tar(entry("f", "x", uid=2**32 - 1)), "no user id")
    r = images.take(tar(entry("f", "x", uid=65536), entry("g", "x", gid=2**31), entry("h", "x", uid=65535)))
    assert r["owners_changed"] == 2
    found = tree(images.layers()[0])
    assert (found["f"]["uid"], found["g"]["gid"], found["h"]["uid"]) == (65534, 65534, 65535)


def test_L16_times(images):
    top = one(images, entry("old", "x", pax={"mtime": "-86400"}), entry("far", "x", pax={"mtime": "99999999999999"}))
    assert (top / "old").lstat().st_mtime_ns == -86400 * 10**9
    assert (top / "far").lstat().st_mtime > 2**31


def test_L16_sizes(images):
    images.refuse(header("f", size=100) + b"x" * 10, "damaged")
    images.refuse(header("f", size=0o77777777777) + b"x" * 2048, "damaged")
    sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "f",
              "GNU.sparse.realsize": str(2**63 - 1)}
    images.refuse(tar(entry("f", b"1\n0\n1\n".ljust(512, b"\0") + b"x", pax=sparse)), "larger than any file")
    sparse["GNU.sparse.realsize"] = "10"
    images.refuse(tar(entry("f", b"1\n%d\n5\n".ljust(512, b"\0") % 2**40 + b"x" * 5, pax=sparse)), "'f'")


def test_sparse_files(images, tmp):
    source = tmp / "sparse"
    source.mkdir()
    with open(source / "f", "wb") as f:
        f.write(b"begin")
        f.seek(300 << 20)
        f.write(b"middle")
        f.truncate(1 << 30)
    for form in "gnu", "posix":
        data = subprocess.run(["tar", "-cS", "--format", form, "-C", source, "f"], capture_output=True, check=True)
        images.take(data.stdout, form)
        f = images.layers(form)[0] / "f"
        s = f.stat()
        assert s.st_size == 1 << 30 and s.st_blocks * 512 < 1 << 20
        with open(f, "rb") as r:
            assert r.read(6) == b"begin\0" and r.seek(300 << 20) and r.read(7) == b"middle\0"


def test_L17_names(images):
    name = os.fsdecode(b"caf\xe9\x01\n\\\x1b[2J")
    raw = tar(entry(name, "x"), format=tarfile.GNU_FORMAT)
    assert os.listdir(os.fsencode(one_of(images, raw))) == [os.fsencode(name)]
    err = images.refuse(tar(entry("bad\x1b[2J/../x", "x"), format=tarfile.GNU_FORMAT), "bad\\x1b[2J")
    assert "\x1b" not in err
    images.refuse(tar(entry("n" * 70000, "x")), "")
    # A header that says of itself that it goes on for ever.
    images.refuse(header("pax", size=8 << 30)[:156] + b"x" + header("pax")[157:], "damaged")


def one_of(images, data):
    images.take(data)
    return images.layers()[0]


def test_L18_digests(images):
    good = tar(entry("f", "x"))
    images.refuse(Layout(good, diff=[sha(b"other")]), "diff id")
    for part in "layer", "config", "manifest":
        l = Layout(good)
        digest = {"layer": l.manifest["layers"][0]["digest"], "config": l.manifest["config"]["digest"],
                  "manifest": l.index["manifests"][0]["digest"]}[part][7:]
        l.blobs[digest] = bytes([l.blobs[digest][0] ^ 1]) + l.blobs[digest][1:]
        images.refuse(l, "has the digest sha256:")
        images.refuse(l.tar(), "has the digest sha256:")
        l.blobs[digest] += b"\n"
        images.refuse(l, "sha256:")
        del l.blobs[digest]
        images.refuse(l, digest)
    l = Layout(good)
    l.index["manifests"][0]["size"] += 1
    images.refuse(l, "its descriptor says")
    images.take(Layout(good))


def test_L20_case(images):
    found = tree(one(images, entry("a", "1"), entry("A", "2"), entry("ss", "3"), entry("\u00df", "4"),
                     entry("e\u0301", "5"), entry("\u00e9", "6")))
    assert len(found) == 7 and len({f["inode"] for n, f in found.items() if n != "."}) == 6


def test_L21_nothing_is_copied_out_of_the_store(images, tmp):
    """The store on a file system of its own, with links in the image at every name of ours."""
    images.root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", images.root], check=True)
    try:
        images.take(tar(*(link(n, "/etc") for n in ("layers", "blobs", "refs", "new", "tmp", "sha256"))))
        assert {p.name for p in images.layers()[0].iterdir()} == {"blobs", "layers", "refs", "new", "tmp", "sha256"}
        images.check()
    finally:
        subprocess.run(["umount", images.root], check=True)


def test_entries_that_replace_each_other(images):
    found = tree(one(images, entry("a", "1"), entry("a", "22"), entry("d"), entry("d/x", "x"), entry("d/s"),
                     entry("d/s/y", "y"), entry("d", "file"), entry("f", "x"), entry("f"), entry("f/y", "y"),
                     entry("d2", mode=0o700, mtime=7), entry("d2/z", "z"), entry("d2", mode=0o711, mtime=9)))
    assert set(found) == {".", "a", "d", "f", "f/y", "d2", "d2/z"}
    assert found["a"]["size"] == 2 and stat.S_ISREG(found["d"]["kind"]) and stat.S_ISDIR(found["f"]["kind"])
    assert found["f"]["xattr"] == {"user.overlay.opaque": b"y"}
    assert (found["d2"]["mode"], found["d2"]["mtime"]) == (0o711, 9 * 10**9)


def test_a_directory_that_is_only_implied(images):
    base = tar(entry("d", mode=0o700, uid=5, gid=6, mtime=77, pax={"SCHILY.xattr.user.k": "v"}), entry("d/e", mode=0o711, mtime=78))
    images.take(Layout(base, tar(entry("d/e/f", "x"), entry("new/f", "x"))))
    lower, upper = images.layers()
    found = tree(upper)
    assert (found["d"]["mode"], found["d"]["uid"], found["d"]["gid"]) == (0o700, 5, 6)
    assert found["d"]["xattr"] == {"user.k": b"v"} and found["new"]["xattr"] == {}
    assert found["d"]["mtime"] == 77 * 10**9 and found["d/e"]["mode"] == 0o711
    assert (found["new"]["mode"], found["new"]["uid"]) == (0o755, 0)
    blob, diff, key = images.record()["layer"][1].split()[:3]
    assert key != diff  # it depends on what is below, and is kept by its chain id
    assert images.record()["layer"][0].split()[1] == images.record()["layer"][0].split()[2]


def test_a_hard_link_into_a_lower_layer(images):
    base = tar(entry("a", "text", mode=0o640, uid=9, mtime=3, pax={"SCHILY.xattr.user.k": "v"}), link("l", "a"),
               entry("gone", "x"))
    images.take(Layout(base, tar(hard("b", "a"), hard("m", "l"))))
    found = tree(images.layers()[1])
    assert found["a"]["inode"] == found["b"]["inode"] and found["b"]["links"] == 2
    assert (found["b"]["mode"], found["b"]["uid"], found["b"]["mtime"]) == (0o640, 9, 3 * 10**9)
    assert found["b"]["xattr"] == {"user.k": b"v"} and found["m"]["target"] == "a"
    # What is deleted between is not there; what the layer itself deletes goes after the link.
    for order in 1, -1:
        images.take(Layout(base, tar(*[entry(".wh.gone", ""), hard("h", "gone")][::order])))
        top = images.layers()[1]
        assert stat.S_ISCHR((top / "gone").lstat().st_mode) and (top / "h").read_text() == "x"
    images.refuse(Layout(base, tar(entry(".wh.gone", "")), tar(hard("h", "gone"))), "not there")
    # A lower link is not followed.
    images.refuse(Layout(tar(link("e", "/etc")), tar(hard("h", "e/passwd"))), "not there")


def test_names_over_links_of_lower_layers(images):
    """As umoci has it: inside the image, wherever the links say they lead."""
    base = tar(entry("usr"), entry("usr/lib", mode=0o711), link("lib", "usr/lib"), link("abs", "/usr/../usr/./lib"),
               link("up", "../../../../lib"), link("out", "/../../../../etc"), link("loop", "loop"), entry("f", "x"),
               link("none", "/not/there"))
    images.take(Layout(base, tar(entry("lib/a", "a"), entry("abs/b", "b"), entry("up/c", "c"), link("lib/l", "a"),
                                 hard("h", "lib/a"), entry("lib/.wh.gone", ""), entry("none/n", "n"))))
    found = tree(images.layers()[1])
    assert set(found) == {".", "usr", "usr/lib", "h", "not", "not/there", "not/there/n",
                          *("usr/lib/" + n for n in ("a", "b", "c", "l", "gone"))}
    assert found["usr/lib"]["mode"] == 0o711 and found["h"]["inode"] == found["usr/lib/a"]["inode"] or \
        found["usr/lib/a"]["inode"] == "h"
    key, diff = images.record()["layer"][1].split()[2], images.record()["layer"][1].split()[1]
    assert key != diff
    # A directory of the layer's own takes a link's place.
    images.take(Layout(base, tar(entry("lib"), entry("lib/a", "a"))), "y")
    assert set(tree(images.layers("y")[1])) == {".", "lib", "lib/a"}
    images.refuse(Layout(base, tar(entry("loop/x", "x"))), "leads to itself")
    images.refuse(Layout(base, tar(link("lib", "/usr/lib"), entry("lib/x", "x"))), "symbolic link")
    assert not os.path.exists("/etc/pratai-test-escape")
    images.take(Layout(base, tar(entry("out/pratai-test-escape", "x"))), "z")
    assert set(tree(images.layers("z")[1])) == {".", "etc", "etc/pratai-test-escape"}
