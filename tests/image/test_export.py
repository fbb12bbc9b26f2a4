"""What `image-export` writes is what other tools, and `image-import`, take."""
import json
import subprocess
import tarfile

import pytest

from images import MEDIA, Layout, entry, hard, link, tar, tree

LOWER = tar(entry("etc"), entry("etc/a", "a", mode=0o600, uid=7), entry("bin", "b", mode=0o755),
            hard("etc/h", "bin"), link("l", "etc"))
UPPER = tar(entry("etc"), entry("etc/b", "bb"), entry("etc/.wh.a", ""))


@pytest.fixture
def layout(images):
    l = Layout(LOWER, UPPER, UPPER, config={"Env": ["A=1"], "Cmd": ["/bin"]})
    images.take(l, "team/demo:1.5")
    return l


def export(images, path, name="team/demo:1.5"):
    p = images.command("image-export", name, path, "-f", "json")
    assert p.returncode == 0, p.err
    return p.out and json.loads(p.out)


@pytest.mark.parametrize("form", ["layout", "layout.tar", "-"])
def test_there_and_back(images, layout, tmp, form):
    path = tmp / form
    if form == "-":
        path = tmp / "out.tar"
        p = subprocess.run([*images.client, "image-export", "--root", images.root, "team/demo:1.5", "-"],
                           capture_output=True, check=True)
        path.write_bytes(p.stdout)
    else:
        record = export(images, path)
        assert record["digest"] == layout.index["manifests"][0]["digest"] and record["layers"] == 3
    before = [tree(p) for p in images.layers("team/demo:1.5")]
    assert images.take(path, "again")["digest"] == layout.index["manifests"][0]["digest"]
    assert [tree(p) for p in images.layers("again")] == before
    assert images.command("image-verify").returncode == 0


def test_other_tools_take_it(images, layout, tmp):
    export(images, tmp / "d")
    export(images, tmp / "t.tar")
    digest = layout.index["manifests"][0]["digest"]
    for source in f"oci:{tmp}/d:1.5", f"oci-archive:{tmp}/t.tar:1.5":
        p = subprocess.run(["skopeo", "inspect", source], capture_output=True, check=True)
        assert json.loads(p.stdout)["Digest"] == digest
    subprocess.run(["umoci", "unpack", "--image", f"{tmp}/d:1.5", tmp / "bundle"], capture_output=True,
                   check=True)
    assert (tmp / "bundle/rootfs/etc/b").read_text() == "bb"
    assert not (tmp / "bundle/rootfs/etc/a").exists()


def test_what_is_in_it(images, layout, tmp):
    export(images, tmp / "d")
    index = json.loads((tmp / "d/index.json").read_text())
    (m,) = index["manifests"]
    assert m["annotations"] == {"org.opencontainers.image.ref.name": "1.5"}
    assert m["mediaType"] == MEDIA + "manifest.v1+json" and m["platform"]["os"] == "linux"
    assert json.loads((tmp / "d/oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    for digest, data in layout.blobs.items():
        assert (tmp / "d/blobs/sha256" / digest).read_bytes() == data
    export(images, tmp / "t.tar")
    with tarfile.open(tmp / "t.tar") as t:
        assert t.getnames()[:2] == ["blobs", "blobs/sha256"] and t.getnames()[-1] == "oci-layout"
        assert len(t.getnames()) == len(set(t.getnames()))
    images.take(Layout(LOWER), "plain")
    export(images, tmp / "p", "plain")
    assert json.loads((tmp / "p/index.json").read_text())["manifests"][0]["annotations"] == {
        "org.opencontainers.image.ref.name": "latest"}


def refuse(images, word, *words):
    p = images.command("image-export", *words)
    assert p.returncode == 1 and p.out == "" and word in p.err, p.err


def test_refused_and_nothing_left(images, layout, tmp):
    (tmp / "there").mkdir()
    (tmp / "there.tar").write_text("mine")
    for name in "there", "there.tar":
        refuse(images, "is there already", "team/demo:1.5", tmp / name)
    assert (tmp / "there.tar").read_text() == "mine"
    refuse(images, "no image 'nobody'", "nobody", tmp / "x")
    refuse(images, "no/where", "team/demo:1.5", tmp / "no/where")
    blob = images.store / "blobs/sha256" / layout.index["manifests"][0]["digest"][7:]
    layer = max(images.store.glob("blobs/sha256/*"), key=lambda p: p.stat().st_size)
    data = layer.read_bytes()
    layer.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    for name in "x", "x.tar":
        refuse(images, "is damaged", "team/demo:1.5", tmp / name)
    layer.unlink()
    refuse(images, "blob", "team/demo:1.5", tmp / "x")
    layer.write_bytes(data)
    assert blob.exists() and not (tmp / "x").exists() and not (tmp / "x.tar").exists()
    export(images, tmp / "x")
    p = images.command("image-export", "team/demo:1.5")
    assert p.returncode == 2


def test_a_full_disk(images, layout, tmp):
    p = subprocess.run(f"{images.client[0]} image-export --root {images.root} team/demo:1.5 - >/dev/full",
                       shell=True, capture_output=True, check=False)
    assert p.returncode == 1 and b"No space left" in p.stderr and p.stderr.count(b"\n") == 1
