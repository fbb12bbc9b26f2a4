"""The store stays whole: killed imports, two at a time, a full disk, removal while in use."""
import os
import random
import signal
import subprocess
import tarfile
import threading
import time

import pytest

from images import Layout, entry, hard, link, sha, tar
from sandboxes import wait_for

BIG = [entry("d%d" % i) for i in range(50)] + [
    entry("d%d/f%d" % (i % 50, i), random.Random(i).randbytes(3000)) for i in range(4000)]


@pytest.fixture(scope="module")
def big():
    return tar(*BIG)


def start(images, path, name):
    return subprocess.Popen([*images.client, "image-import", str(path), "--name", name, "--root", str(images.root)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def whole(images, name="x"):
    """Whatever the name means is complete, and its files are what the archive has."""
    p = images.command("image-verify", "-f", "json")
    assert p.returncode == 0, p.err
    top = images.layers(name)[0]
    assert sum(1 for f in top.rglob("f*") if f.is_file() and f.stat().st_size == 3000) == 4000


@pytest.mark.parametrize("moment", range(8))
def test_L19_kill_9(images, big, moment):
    """At moments spread over the time that it takes; the worker dies with its parent, and the
    next import removes what is left."""
    path = images.write(big)
    images.take(tar(entry("other", "x")), "other")
    begin = time.monotonic()
    p = start(images, path, "x")
    if moment:
        # Polls for the progress of the unpacking, not for the time.
        wait_for(lambda: p.poll() is not None or sum(1 for _ in images.store.glob("tmp.*/layers/*/*")) >= moment * 7 - 6
                 or list((images.store / "refs").glob("x")), 30, "a part of the layer")
    p.send_signal(signal.SIGKILL)
    p.communicate()
    assert time.monotonic() - begin < 60
    names = images.command("image-list", "-f", "value", "-c", "name").out.split()
    assert names in (["other"], ["other", "x"])
    if "x" in names:
        whole(images)
    images.take(path)
    whole(images)
    images.check()


def test_L19_kill_9_of_the_worker(images, big):
    path = images.write(big)
    p = start(images, path, "x")
    children = wait_for(lambda: open(f"/proc/{p.pid}/task/{p.pid}/children").read().split(), what="the worker")
    wait_for(lambda: list(images.store.glob("tmp.*/layers/*")), what="a layer")
    os.kill(int(children[0]), signal.SIGKILL)
    out, err = p.communicate()
    assert p.returncode == 1 and b"unpacker ended with status 137" in err and not out
    images.check()
    assert images.listing() == []


def test_L19_two_at_once(images, big):
    path = images.write(big)
    ps = [start(images, path, "x%d" % i) for i in range(4)]
    for p in ps:
        out, err = p.communicate(timeout=120)
        assert p.returncode == 0, err
    for i in range(4):
        whole(images, "x%d" % i)
    assert len(list((images.store / "layers").iterdir())) == 1
    images.check()


def test_a_full_disk(images, big):
    images.root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24M", "tmpfs", images.root], check=True)
    try:
        images.take(tar(entry("small", "x")), "small")
        before = images.listing()
        p = images.try_to_take(big)
        assert p.returncode == 1 and "No space left on device" in p.err, p.err
        images.check()
        assert images.listing() == before
        assert images.command("image-verify").returncode == 0
        # Neither does it go on with too few inodes.
        subprocess.run(["mount", "-o", "remount,size=100M,nr_inodes=2000", images.root], check=True)
        p = images.try_to_take(big)
        assert p.returncode == 1 and "No space left on device" in p.err, p.err
        images.check()
        assert images.listing() == before
        subprocess.run(["mount", "-o", "remount,size=100M,nr_inodes=20000", images.root], check=True)
        images.take(big)
        whole(images)
    finally:
        subprocess.run(["umount", images.root], check=True)


def test_layers_are_shared(images):
    a, b, c = (tar(entry(n, n)) for n in "abc")
    images.take(Layout(a, b), "ab")
    inode = images.layers("ab")[0].stat().st_ino
    images.take(Layout(a, c), "ac")
    assert images.layers("ac")[0] == images.layers("ab")[0] and images.layers("ac")[0].stat().st_ino == inode
    assert len(list((images.store / "layers").iterdir())) == 3


def test_delete_and_gc(images):
    a, b, c = (tar(entry(n, n * 100)) for n in "abc")
    images.take(Layout(a, b), "ab")
    images.take(Layout(a, c), "ac")
    images.take(Layout(a, c), "same")
    assert images.command("image-gc", "-f", "value", "-c", "layers").out == "0\n"
    assert images.command("image-delete", "ab", "same").returncode == 0
    assert images.command("image-delete", "ab").returncode == 1
    assert {p.name for p in (images.store / "layers").iterdir()} == {sha(x) for x in (a, b, c)}
    p = images.command("image-gc", "-f", "csv")
    assert p.out.splitlines()[0] == "images,layers,blobs,blob_bytes,layers_in_use"
    assert p.out.splitlines()[1].startswith("1,1,3,") and p.out.splitlines()[1].endswith(",0")
    assert {p.name for p in (images.store / "layers").iterdir()} == {sha(a), sha(c)}
    assert images.command("image-verify").returncode == 0
    images.command("image-delete", "ac")
    images.command("image-gc")
    assert images.listing() == []
    # A name that comes again is another image's.
    images.take(a, "ac")
    images.take(b, "ac")
    assert [l.name for l in images.layers("ac")] == [sha(b)]


def test_gc_leaves_what_runs(images, busybox):
    data = subprocess.run(["tar", "-c", "-C", busybox, "."], capture_output=True, check=True).stdout
    images.take(data)
    p = images.run.start("--root", images.root, "--image", "x", argv=["/bin/sh", "-c", "echo go; read x; ls /bin/busybox"],
                         stdin=subprocess.PIPE)
    assert p.stdout.read(3) == b"go\n"
    images.command("image-delete", "x")
    assert images.command("image-gc", "-f", "value", "-c", "layers_in_use").out == "1\n"
    r = images.run.finish(p, b"\n")
    assert r.code == 0 and "busybox" in r.out
    assert images.command("image-gc", "-f", "value", "-c", "layers").out == "1\n"
    assert images.listing() == []


def test_gc_waits_for_an_import(images, big):
    """And the import's parts do not vanish: it has everything when it ends."""
    images.take(tar(entry("a", "a")), "a")
    images.command("image-delete", "a")
    p = start(images, images.write(big), "x")
    wait_for(lambda: list(images.store.glob("tmp.*/layers/*")), what="a layer")
    ended = []
    gc = threading.Thread(target=lambda: ended.append((images.command("image-gc", "-f", "value", "-c", "layers"),
                                                       p.poll())))
    gc.start()
    assert p.wait() == 0
    p.communicate()
    gc.join()
    assert ended[0][0].out == "1\n"
    whole(images)


def test_verify(images):
    l = Layout(tar(entry("a", "a")), tar(entry("b", "b")))
    images.take(l)
    assert images.command("image-verify", "-f", "value", "-c", "blobs", "-c", "faults").out.split() == ["4", "0"]
    blob = images.store / "blobs/sha256" / sha(l.layers[0])
    data = blob.read_bytes()
    blob.write_bytes(data[:-1] + b"x")
    (images.store / "layers" / sha(tar(entry("b", "b")))).rename(images.tmp / "away")
    p = images.command("image-verify", "-f", "value", "-c", "faults")
    assert p.returncode == 1 and p.out == "2\n"
    assert f"the blob sha256:{blob.name} has the digest" in p.err and "cannot be opened" in p.err
    blob.write_bytes(data[:30] + b"x" + data[31:])
    assert f"the unpacked layer {sha(tar(entry('a', 'a')))}: " in images.command("image-verify").err
    blob.unlink()
    assert "cannot be read" in images.command("image-verify").err


def test_verify_of_what_is_unpacked(images):
    base = tar(entry("d", mode=0o711, uid=3), entry("d/f", "text", pax={"SCHILY.xattr.user.a": "1"}), entry("d/g", "text"),
               link("l", "x"), entry("h", "x"), hard("h2", "h"), entry("p", b"", type=tarfile.FIFOTYPE), entry("gone", "x"),
               entry("sub"), entry("sub/" + "/".join("x" * 200)))
    images.take(Layout(base, tar(entry("d/new", "n"), entry(".wh.gone", ""), entry("sub/.wh..wh..opq", ""), hard("h3", "h"))))
    assert images.command("image-verify", "-f", "value", "-c", "faults").out == "0\n"
    low, high = images.layers()
    changes = {
        "'d/f' has other content": lambda: (low / "d/f").write_text("TEXT"),
        "'d/g' has another size": lambda: (low / "d/g").write_text("texts"),
        "'d/f' has other attributes": lambda: os.setxattr(low / "d/f", "user.b", b""),
        "'d' has another owner or mode": lambda: os.chmod(low / "d", 0o755),
        "'l' leads elsewhere": lambda: ((low / "l").unlink(), (low / "l").symlink_to("y")),
        "'h' has other hard links": lambda: (low / "h2").unlink(),
        "'p' is something else": lambda: ((low / "p").unlink(), (low / "p").mkdir()),
        "'evil\\x1b' does not belong there": lambda: (low / "evil\x1b").touch(),
        "'gone' is missing": lambda: (high / "gone").unlink(),
        "'d/new' has another time": lambda: os.utime(high / "d/new"),
        "'/' has another owner or mode": lambda: os.chown(high, 0, 0),
    }
    for change in changes.values():
        change()
    p = images.command("image-verify")
    for sentence in [*changes, "'h2' is missing", "'d/f' has another time"]:
        assert ": " + sentence in p.err, (sentence, p.err)
    assert p.returncode == 1 and "\x1b" not in p.err
    images.check()


def test_a_damaged_record_stops_gc(images):
    images.take(tar(entry("a", "a")))
    record = next((images.store / "records").iterdir())
    text = record.read_text()
    for bad in "", text[:-5], text.replace("layer ", "layer ../"), text.replace("pratai-image 1", "pratai-image 2"), \
            text + "\0", text.replace("base 0", "base 9"), text + "x y\n":
        record.write_text(bad)
        before = images.listing()
        for words in (["image-gc"], ["image-verify"], ["image-list"]):
            p = images.command(*words)
            assert p.returncode == 1 and "damaged" in p.err, (bad, p.err)
        assert images.listing() == before
    record.write_text(text)
    assert images.command("image-gc").returncode == 0


def test_a_missing_record_stops_gc(images):
    """What a name leads to is not known then, so nothing may go."""
    images.take(tar(entry("a", "a")))
    next((images.store / "records").iterdir()).unlink()
    before = images.listing()
    for words in (["image-gc"], ["image-verify"], ["image-list"]):
        p = images.command(*words)
        assert p.returncode == 1 and "records/" in p.err, p.err
    assert images.listing() == before
    images.command("image-delete", "x")
    assert images.command("image-gc").returncode == 0 and images.listing() == []


def test_everything_at_once(images, busybox):
    """Imports (some killed), deletions, gc, verify, lists and runs beside each other: each does what it
    says or finds that there is no such image."""
    base = subprocess.run(["tar", "-c", "-C", busybox, "."], capture_output=True, check=True).stdout
    paths = [Layout(base, *(tar(entry("f%d" % j, str(j) * 5000)) for j in range(i, i + 3))) for i in range(3)]
    for i, layout in enumerate(paths):
        paths[i] = layout.write(images.tmp / f"l{i}")
    wrong, end = [], time.monotonic() + 6

    def again(seed, *words):
        r = random.Random(seed)
        while time.monotonic() < end:
            i = r.randrange(3)
            if words[0] == "run":
                p = subprocess.run([*images.client, "run", "--root", images.root, "--image", f"n{i}", "--",
                                    "/bin/sh", "-c", f"read x </f{i + 1}; test -f /f{i} -a ! -f /f9"], capture_output=True,
                                   text=True, check=False)
            else:
                p = images.command(*(str(w).replace("PATH", str(paths[i])).replace("NAME", f"n{i}") for w in words))
            error = p.stderr if isinstance(p.stderr, str) else p.err
            if p.returncode and "no image" not in error:
                wrong.append((words, p.returncode, error))
            if words[0] == "image-import" and r.random() < 0.3:
                q = start(images, paths[i], f"n{i}")
                time.sleep(r.random() / 50)
                q.kill()
                q.communicate()

    threads = [threading.Thread(target=again, args=(n, *words)) for n, words in enumerate(
        [["image-import", "PATH", "--name", "NAME"]] * 2 + [["run"]] * 2 +
        [["image-gc"], ["image-delete", "NAME"], ["image-verify"], ["image-list"]])]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong, wrong[:3]
    assert images.command("image-gc").returncode == 0
    assert images.command("image-verify", "-f", "value", "-c", "faults").out == "0\n"


def test_an_empty_store(images):
    for words in (["image-list"], ["image-gc"], ["image-verify"]):
        assert images.command(*words).returncode == 0
    assert images.command("image-delete", "x").returncode == 1
    assert not images.root.exists()


def test_nobody_else_gets_in(images):
    """Not to files that the image means for its root alone, nor to others."""
    images.root.mkdir(mode=0o755)
    images.take(tar(entry("f", "x", mode=0o644)))
    p = subprocess.run(["setpriv", "--reuid=1001", "--regid=1001", "--clear-groups", "cat",
                        images.layers()[0] / "f"], capture_output=True, check=False)
    assert p.returncode == 1 and b"Permission denied" in p.stderr
