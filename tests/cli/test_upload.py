"""image-upload against a control plane of canned answers: what is sent, and in which order."""
import hashlib
import io
import json
import os
import pty
import subprocess
import tarfile

import pytest

from conftest import CLIENT, run_client

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def missing(*digests):
    return 409, {"type": "missing_blobs", "status": 409, "detail": "not there",
                 "missing": ["sha256:" + d for d in digests]}


class Local:
    """An image of one layer in a store of its own; blobs: all that it is made of."""

    def __init__(self, tmp_path):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as t:
            info = tarfile.TarInfo("file")
            info.size = 3 << 20
            t.addfile(info, io.BytesIO(bytes(3 << 20)))
        (tmp_path / "x.tar").write_bytes(out.getvalue())
        self.env = {"PRATAI_ROOT": str(tmp_path / "root")}
        r = run_client("image-import", tmp_path / "x.tar", "--name", "a/b:1", "-f", "json", env=self.env)
        assert r.code == 0, r.err
        self.manifest = json.loads(r.out)["digest"].removeprefix("sha256:")
        blobs = tmp_path / "root/images/blobs/sha256"
        self.blobs = {p.name: p.read_bytes() for p in blobs.iterdir()}
        fields = json.loads(self.blobs[self.manifest])
        self.config = fields["config"]["digest"].removeprefix("sha256:")
        self.layer = fields["layers"][0]["digest"].removeprefix("sha256:")
        self.record = {"name": "a/b:1", "digest": "sha256:" + self.manifest}

    def upload(self, plane, *words):
        r = plane.run("image-upload", "a/b:1", *words, env=self.env)
        assert r.err.count("\n") == (r.code != 0), r.err
        return r


@pytest.fixture
def local(tmp_path):
    return Local(tmp_path)


NAME = "/v1/images/a%2Fb%3A1"


def test_what_is_missing_is_sent(plane, local):
    plane.on("PUT", NAME, missing(local.manifest), missing(local.config, local.layer), (201, local.record))
    for digest in local.blobs:
        plane.on("PUT", "/v1/images/blobs/" + digest, (204, b""))
    r = local.upload(plane, "-f", "json")
    assert r.code == 0 and json.loads(r.out) == local.record, r.err
    assert [q.path.rpartition("/")[2] for q in plane.requests] == \
        [NAME[11:], local.manifest, NAME[11:], local.config, local.layer, NAME[11:]]
    for q in plane.requests:
        assert q.headers["X-Auth-Token"] == "secret"
        if q.path == NAME:
            assert q.json() == {"digest": "sha256:" + local.manifest}
        else:
            assert q.path.endswith(hashlib.sha256(q.body).hexdigest())


def test_a_bar_on_a_terminal(plane, local):
    plane.on("PUT", NAME, missing(local.layer), (201, local.record))
    plane.on("PUT", "/v1/images/blobs/" + local.layer, (204, b""))
    ours, theirs = pty.openpty()
    env = {**os.environ, **local.env, "OS_PRATAI_URL": plane.url, "OS_TOKEN": "secret"}
    p = subprocess.Popen([str(CLIENT), "image-upload", "a/b:1"], stdout=subprocess.DEVNULL, stderr=theirs, env=env)
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 4096):
            shown += block
    except OSError:  # EIO: the other end is closed
        pass
    os.close(ours)
    assert p.wait() == 0
    shown = shown.decode()
    assert "uploading layer 1 of 1 [" in shown and shown.endswith("\r\033[K")


def test_a_damaged_blob_of_ours(plane, local, tmp_path):
    """Is what the control plane finds: here it is only sent."""
    def put(request):
        found = hashlib.sha256(request.body).hexdigest()
        return 400, {"type": "invalid_request", "status": 400, "detail": f"the content's SHA-256 is {found}"}
    path = tmp_path / "root/images/blobs/sha256" / local.layer
    path.chmod(0o600)
    path.write_bytes(b"damaged")
    plane.on("PUT", NAME, missing(local.layer))
    plane.on("PUT", "/v1/images/blobs/" + local.layer, put)
    r = local.upload(plane)
    assert r.code == 1 and "layer 1 of 1: the content's SHA-256 is" in r.err
    path.unlink()
    r = local.upload(plane)
    assert r.code == 1 and "No such file" in r.err


def test_nothing_is_sent_that_is_there(plane, local):
    plane.on("PUT", NAME, (200, local.record))
    assert local.upload(plane).code == 0
    assert len(plane.requests) == 1


@pytest.mark.parametrize("answer,word", [
    (missing("0" * 64), "none of the image"), (missing("x"), "none of the image"), (missing(), "misses"),
    ((409, {"type": "missing_blobs", "status": 409, "missing": 5}), "misses"),
    ((409, {"type": "conflict", "status": 409, "detail": "somebody else"}), "somebody else"),
    ((400, {"type": "invalid_request", "status": 400, "detail": "no such thing"}), "no such thing"),
    ((401, {"type": "unauthorized", "status": 401, "detail": "the token is not valid"}), "token"),
    ((404, b"<html>"), "404"), ((500, b""), "500"), ((200, b"x"), "JSON")])
def test_answers_that_are_of_no_use(plane, local, answer, word):
    plane.on("PUT", NAME, answer)
    r = local.upload(plane)
    assert r.code == 1 and word in r.err and r.out == "", r.err


def test_a_blob_that_is_refused(plane, local):
    plane.on("PUT", NAME, missing(local.layer))
    plane.on("PUT", "/v1/images/blobs/" + local.layer,
             (503, {"type": "store_unavailable", "status": 503, "detail": "the disk is full"}))
    r = local.upload(plane)
    assert r.code == 1 and "layer 1 of 1: the disk is full" in r.err


def test_a_blob_that_is_forgotten_again_and_again(plane, local):
    plane.on("PUT", NAME, missing(local.manifest))
    plane.on("PUT", "/v1/images/blobs/" + local.manifest, (204, b""))
    r = local.upload(plane)
    assert r.code == 1 and "again and again" in r.err
    assert len(plane.requests) == 8


def test_nobody_there(local):
    env = {"OS_PRATAI_URL": "http://127.0.0.1:1", "OS_TOKEN": "x", **local.env}
    r = run_client("image-upload", "a/b:1", env=env)
    assert r.code == 1 and "OS_PRATAI_URL" in r.err and r.err.count("\n") == 1
    r = run_client("image-import", env["PRATAI_ROOT"] + "/../x.tar", "--name", "c", env=env)
    assert r.code == 1 and "but was not uploaded" in r.err and r.err.count("\n") == 1
    assert "c" in run_client("image-list", "--only-id", env=env).out.split()
    r = run_client("image-import", env["PRATAI_ROOT"] + "/../x.tar", "--name", "d", "--no-upload", "-f", "json",
                   env={**env, "OS_PRATAI_URL": "nonsense"})
    assert r.code == 0 and json.loads(r.out)["uploaded"] is False
