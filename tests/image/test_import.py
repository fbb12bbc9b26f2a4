"""What `image-import` takes, how it tells, and what it says of the rest."""
import io
import json
import os
import subprocess
import tarfile

import pytest

from images import MEDIA, Layout, entry, hard, link, pack, sha, tar, tree

LOWER = tar(entry("etc"), entry("etc/a", "a", mode=0o600), entry("bin", "b", mode=0o755))
UPPER = tar(entry("etc"), entry("etc/b", "bb"), entry("etc/.wh.a", ""))


@pytest.mark.parametrize("how", ["none", "gzip", "zstd", "xz"])
def test_a_layout(images, how):
    l = Layout(LOWER, UPPER, how=how, config={"Env": ["A=1"], "Cmd": ["x"]})
    r = images.take(l)
    assert r["layers"] == 2 and r["digest"] == l.index["manifests"][0]["digest"]
    assert {p.name for p in images.layers()} == {sha(LOWER), sha(UPPER)}
    for digest, data in l.blobs.items():
        assert (images.store / "blobs/sha256" / digest).read_bytes() == data
    assert images.record()["env"] == ["A=1"] and images.record()["cmd"] == ["x"]
    # As one file, however it is packed itself.
    for outer in "none", "gzip", "zstd", "xz":
        assert images.take(pack(l.tar(), outer), "y")["digest"] == r["digest"]


@pytest.mark.parametrize("order", [1, -1])
def test_docker_save(images, order):
    l = Layout(LOWER, UPPER, how="none", config={"User": "7"})
    r = images.take(l.docker(order=order))
    assert r["layers"] == 2 and images.record()["config"] == [l.config]
    assert [p.name for p in images.layers()] == [sha(LOWER), sha(UPPER)]
    manifest = json.loads((images.store / "blobs/sha256" / r["digest"][7:]).read_text())
    assert [d["digest"] for d in manifest["layers"]] == ["sha256:" + sha(d) for d in (LOWER, UPPER)]
    assert manifest["layers"][0]["mediaType"] == MEDIA + "layer.v1.tar"
    # Packed as a whole, and with a layer that is a link to another.
    assert images.take(pack(l.docker(), "gzip"), "y")["digest"] == r["digest"]
    same = tar(entry(l.config + ".json", l.blobs[l.config]), entry("a/layer.tar", LOWER),
               entry("c/layer.tar", UPPER), link("b/layer.tar", "../c/layer.tar"),
               entry("manifest.json", json.dumps([{"Config": l.config + ".json", "RepoTags": None,
                                                   "Layers": ["a/layer.tar", "b/layer.tar"]}])))
    images.take(tar_with_first(same, "manifest.json"), "z")
    assert images.record("z")["layer"] == images.record()["layer"]


def tar_with_first(data, name):
    """The same members with one of them first: what tells an archive from a root directory."""
    with tarfile.open(fileobj=io.BytesIO(data)) as t:
        members = [(m, t.extractfile(m).read() if m.isreg() else b"") for m in t.getmembers()]
    return tar(*sorted(members, key=lambda m: m[0].name != name))


@pytest.mark.parametrize("how", ["none", "gzip", "zstd", "xz"])
def test_the_tar_of_a_root(images, how):
    data = pack(LOWER, how)
    r = images.take(data)
    assert r["layers"] == 1 and r["size_bytes"] == len(data)
    again = images.take(images.write(data), "y")
    assert again["digest"] == r["digest"]
    p = subprocess.run([*images.client, "image-import", "-", "--name", "z", "--root", images.root, "--only-id"],
                       input=data, capture_output=True, check=True)
    assert p.stdout.decode().strip() == r["digest"]
    assert tree(images.layers()[0])["etc/a"]["mode"] == 0o600


def test_what_is_no_image(images, tmp):
    images.refuse(b"", "empty")
    images.refuse(b"hello" * 1000, "damaged")
    images.refuse(tar(entry("manifest.json", "[]"), entry("x", "y")), "0 images")
    images.refuse(tar(entry("index.json", "{}"), entry("oci-layout", "{}")), "no image")
    images.refuse(tar(entry("blobs"), entry("blobs/sha256/" + "0" * 64, "x")), "no index.json")
    images.refuse(tar(entry("index.json", "{"), entry("oci-layout", "{}")), "index.json")
    images.refuse(tar(entry("index.json", "[" * 600), entry("oci-layout", "{}")), "index.json")
    empty = tmp / "empty"
    empty.mkdir()
    images.refuse(empty, "index.json")
    p = images.try_to_take(tmp / "none")
    assert p.returncode == 2 and "No such file" in p.err
    for cut in 100, 600, 2000:
        images.refuse(pack(LOWER, "gzip")[:cut] if cut < len(pack(LOWER, "gzip")) else LOWER[:cut], "damaged")


@pytest.mark.parametrize("name", ["", "host", "../x", "a..b", "/x", "a//b", "x/", "a b", "a\nb", "n" * 201, "."])
def test_names(images, name):
    p = images.try_to_take(LOWER, name)
    assert p.returncode == 2 and not (images.root / "images/refs").exists()


def test_names_with_slashes(images):
    images.take(LOWER, "example.org:5000/a/b_c:1.0-x")
    p = images.command("image-list", "-f", "value", "-c", "name")
    assert p.out == "example.org:5000/a/b_c:1.0-x\n"


def test_several_images(images):
    l = Layout(LOWER, ref="1.0")
    l.manifest["annotations"] = {"a": "b"}
    l.add("2.0")
    second = l.index["manifests"][1]["digest"]
    assert "1.0, 2.0" in images.refuse(l, "2 images")
    assert images.take(l, "name:2.0")["digest"] == second
    assert images.take(l, "z", more=["--from", "2.0"])["digest"] == second
    # The processor decides, also in an index of an index.
    for i, arch in enumerate(["s390x", {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]]):
        l.index["manifests"][i]["platform"] = {"architecture": arch, "os": "linux"}
        del l.index["manifests"][i]["annotations"]
    assert images.take(l, "w")["digest"] == second
    inner = l.put(json.dumps(l.index).encode())
    l.index["manifests"] = [l.descriptor(inner, "index.v1+json")]
    assert images.take(l, "v")["digest"] == second
    images.refuse(Layout(LOWER, arch="s390x"), "s390x")
    docker = Layout(LOWER, how="none")
    assert images.take(docker.docker(tags=["a:1", "b:2"]), "u")["layers"] == 1


def test_what_a_manifest_may_not_say(images):
    l = Layout(LOWER)
    l.manifest["layers"] = []
    l.index["manifests"] = []
    l.add()
    images.refuse(l, "no layers")
    l = Layout(*[tar(entry(str(i), "")) for i in range(128)])
    images.refuse(l, "128 layers")
    l = Layout(LOWER, diff=[sha(LOWER)] * 2)
    images.refuse(l, "2 diff ids for 1 layers")
    l = Layout(LOWER)
    l.manifest["layers"][0]["digest"] = "sha512:" + "0" * 128
    l.index["manifests"] = []
    l.add()
    images.refuse(l, "none of sha256")
    for digest in "sha256:../../../etc/passwd", "sha256:" + "A" * 64, 7, None:
        l.index["manifests"][0]["digest"] = digest
        images.refuse(l, "")
    images.refuse(Layout(LOWER, config={"Env": "A=1"}), "no list")
    images.refuse(Layout(LOWER, config={"Env": ["x"] * 1001}), "more than 1000 words")
    images.refuse(Layout(LOWER, config={"User": "nobody-here"}), "/etc/passwd")
    deep = Layout(LOWER)
    for _ in range(6):
        inner = deep.put(json.dumps(deep.index).encode())
        deep.index["manifests"] = [deep.descriptor(inner, "index.v1+json")]
    images.refuse(deep, "nested deeper")


def test_a_layout_that_leads_elsewhere(images, tmp):
    """Links in a layout's directory are followed inside of it only."""
    secret = tmp / "secret"
    secret.write_bytes(b'{"schemaVersion":2,"manifests":[]}')
    l = Layout(LOWER).write(tmp / "l")
    (l / "index.json").unlink()
    (l / "index.json").symlink_to(secret)
    images.refuse(l, "index.json that can be read")
    l = Layout(LOWER).write(tmp / "m")
    (l / "blobs").rename(l / "other")
    (l / "blobs").symlink_to("other")
    images.take(l)
    os.mkfifo(tmp / "m/fifo")
    (tmp / "m/index.json").unlink()
    (tmp / "m/index.json").symlink_to("fifo")
    images.refuse(l, "index.json that can be read")


def test_users(images):
    accounts = tar(entry("etc"), entry("etc/passwd", "root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/bin/sh\n"),
                   entry("etc/group", "root:x:0:\nstaff:x:50:web\n"))
    for user, ids in {"web": "33 34", "web:staff": "33 50", "33": "33 34", "7": "7 0", "7:8": "7 8",
                      "web:9": "33 9", "0": "0 0", "7:staff": "7 50"}.items():
        images.take(Layout(accounts, config={"User": user}))
        assert images.record()["uid"] + images.record()["gid"] == ids.split(), user
    for user in "nope", "web:nope", "65535", "-1", "7:70000":
        images.refuse(Layout(accounts, config={"User": user}), "/etc/")
    # Not through links of the image.
    images.refuse(Layout(tar(entry("etc"), link("etc/passwd", "/etc/passwd")), config={"User": "root"}), "/etc/passwd")


def test_names_stay_bytes(images):
    """Two forms of one character are two names, in every form of header."""
    names = ["\u00e9", "e\u0301", "\u212a", "K"]
    for form in tarfile.PAX_FORMAT, tarfile.GNU_FORMAT:
        images.take(tar(*(entry(n, n) for n in names), hard("h", "e\u0301"), format=form))
        top = images.layers()[0]
        assert {p.name for p in top.iterdir()} == {*names, "h"}
        assert (top / "h").read_text() == "e\u0301"


def test_attributes_are_kept(images):
    value = bytes(range(1, 200))
    images.take(tar(entry("f", "x", mode=0o400, pax={"SCHILY.xattr.user.a": "1", "LIBARCHIVE.xattr.user.b": "Mg"}),
                    entry("d", pax={"SCHILY.xattr.user.c": value.decode("latin-1")})))
    found = tree(images.layers()[0])
    assert found["f"]["xattr"] == {"user.a": b"1", "user.b": b"2"}
    assert found["d"]["xattr"]["user.c"] == value.decode("latin-1").encode()


def test_progress_on_a_terminal(images, tmp):
    path = images.write(tar(*(entry(str(i), os.urandom(1 << 20)) for i in range(20))))
    master, slave = os.openpty()
    p = subprocess.Popen([*images.client, "image-import", path, "--name", "x", "--root", images.root],
                         stdout=subprocess.DEVNULL, stderr=slave, stdin=subprocess.DEVNULL)
    os.close(slave)
    seen = b""
    while True:
        try:
            data = os.read(master, 4096)
        except OSError:
            break
        seen += data
    os.close(master)
    assert p.wait() == 0 and b"layer 1 of 1" in seen and b"%" in seen and seen.endswith(b"\r\x1b[K")
