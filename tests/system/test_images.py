"""Images at the control plane: uploaded by project, named, moved, deleted; and which of them a
version of a function is for.  What runs on them is another matter: nothing in here is unpacked."""
import contextlib
import gzip
import hashlib
import io
import json
import os
import signal
import socket
import sqlite3
import subprocess
import tarfile
import threading
import uuid

import pytest
import requests

from conftest import BUILD, PRATAI, wait_for

OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker."
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def sha(data):
    return hashlib.sha256(data).hexdigest()


def layer(data):
    """A tar with one file: its bytes packed, and its diff id."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as t:
        info = tarfile.TarInfo("file")
        info.size = len(data)
        t.addfile(info, io.BytesIO(data))
    return gzip.compress(out.getvalue(), 1, mtime=0), sha(out.getvalue())


class Image:
    """Blobs of an image that nobody else has."""

    def __init__(self, count=2, layer_bytes=30, docker=False, **manifest):
        layers = [layer(os.urandom(layer_bytes)) for i in range(count)]
        self.config = json.dumps({"architecture": MACHINE, "os": "linux", "rootfs": {
            "type": "layers", "diff_ids": ["sha256:" + d for _, d in layers]}}).encode()
        self.layers = [data for data, _ in layers]
        kinds = (DOCKER + "distribution.manifest.v2+json", DOCKER + "container.image.v1+json",
                 DOCKER + "image.rootfs.diff.tar.gzip") if docker else \
            (OCI + "manifest.v1+json", OCI + "config.v1+json", OCI + "layer.v1.tar+gzip")
        self.fields = {"schemaVersion": 2, "mediaType": kinds[0],
                       "config": self.describe(self.config, kinds[1]),
                       "layers": [self.describe(data, kinds[2]) for data in self.layers], **manifest}
        self.manifest = json.dumps(self.fields).encode()

    @staticmethod
    def describe(data, media):
        return {"mediaType": media, "digest": "sha256:" + sha(data), "size": len(data)}

    @property
    def digest(self):
        return "sha256:" + sha(self.manifest)

    @property
    def parts(self):
        return [self.config, *self.layers]

    def write(self, path, ref=None):
        """As an OCI layout."""
        (path / "blobs/sha256").mkdir(parents=True)
        for data in (self.manifest, *self.parts):
            (path / "blobs/sha256" / sha(data)).write_bytes(data)
        (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        one = self.describe(self.manifest, OCI + "manifest.v1+json")
        (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [one]}))
        return path


class Project:
    def __init__(self, platform, secret):
        self.platform, self.secret = platform, secret

    def http(self, method, path, **kw):
        return self.platform.http(method, path, headers={"X-Auth-Token": self.secret, **kw.pop("headers", {})},
                                  **kw)

    def put_blob(self, data, digest=None, **kw):
        return self.http("PUT", "/v1/images/blobs/" + (digest or sha(data)), data=data, **kw)

    def push_blobs(self, *blobs):
        for data in blobs:
            r = self.put_blob(data)
            assert r.status_code == 204 and not r.content, r.text

    def name(self, name, digest):
        return self.http("PUT", "/v1/images/" + requests.utils.quote(name, safe=""), json={"digest": digest})

    def push(self, image, name):
        self.push_blobs(image.manifest, *image.parts)
        r = self.name(name, image.digest)
        assert r.status_code in (200, 201), r.text
        return r.json()

    def missing(self, r):
        """What r, a refusal, says is not there."""
        detail = self.platform.problem(r, 409, "missing_blobs")
        assert str(len(r.json()["missing"])) in detail
        return r.json()["missing"]

    def names(self):
        return [i["name"] for i in self.http("GET", "/v1/images").json()["items"]]


@pytest.fixture(scope="module")
def project(platform):
    return Project(platform, platform.token)


@pytest.fixture(scope="module")
def other(platform):
    """Nothing makes projects yet but the store itself."""
    secret = platform.ok("token-create", "images", "-f", "json").json()["token"]
    with store(platform) as db:
        db.execute("UPDATE docs SET json = json_set(json, '$.project_id', 'images') WHERE name = ?",
                   [sha(secret.encode())])
    return Project(platform, secret)


@contextlib.contextmanager
def store(platform):
    with contextlib.closing(sqlite3.connect(platform.state / "control/pratai.db", timeout=60)) as db, db:
        yield db


def fresh():
    return "i-" + uuid.uuid4().hex[:12]


def quoted(name):
    return "/v1/images/" + requests.utils.quote(name, safe="")


# ---- Upload and name ----

@pytest.mark.parametrize("docker", [False, True])
def test_an_image(platform, project, docker):
    image, name = Image(docker=docker), f"example.org:5000/{fresh()}/base:12"
    assert project.missing(project.name(name, image.digest)) == [image.digest]
    project.push_blobs(image.manifest)
    assert project.missing(project.name(name, image.digest)) == ["sha256:" + sha(d) for d in image.parts]
    project.push_blobs(image.layers[1])
    missing = ["sha256:" + sha(d) for d in (image.config, image.layers[0])]
    assert project.missing(project.name(name, image.digest)) == missing
    platform.problem(project.http("GET", quoted(name)), 404, "not_found")
    project.push_blobs(image.config, image.layers[0], image.layers[0])
    r = project.name(name, image.digest)
    assert r.status_code == 201, r.text
    made = r.json()
    assert made["name"] == name and made["digest"] == image.digest and made["architecture"] == MACHINE
    assert made["layers"] == 2 and made["size_bytes"] == sum(map(len, image.layers))
    assert made["project_id"] and made["created_at"] == made["updated_at"]
    assert project.http("GET", quoted(name)).json() == made
    assert made in platform.get("/v1/images")["items"]
    assert project.http("DELETE", quoted(name)).status_code == 204
    for method in ("GET", "DELETE"):
        assert name in platform.problem(project.http(method, quoted(name)), 404, "not_found")
    assert name not in project.names()
    assert project.name(name, image.digest).status_code == 201  # its blobs are there yet


def test_a_moved_name(project):
    one, two, name = Image(), Image(count=3), fresh()
    first = project.push(one, name)
    second = project.push(two, name)
    assert second["image_id"] == first["image_id"] and second["created_at"] == first["created_at"]
    assert second["digest"] == two.digest and second["layers"] == 3
    assert second["updated_at"] > first["updated_at"]
    again = project.name(name, one.digest)
    assert again.status_code == 200 and again.json()["digest"] == one.digest
    assert project.names().count(name) == 1


def test_lists_in_pages(platform, project):
    image = Image()
    names = [fresh() for _ in range(5)]
    for name in names:
        project.push(image, name)
    found, cursor = [], ""
    while cursor is not None:
        page = platform.get("/v1/images?limit=2" + (f"&cursor={cursor}" if cursor else ""))
        assert len(page["items"]) <= 2
        found += [i["name"] for i in page["items"]]
        cursor = page["next"]
    assert [n for n in found if n in names] == names and len(found) == len(set(found))
    for query in ("limit=0", "cursor=x", "name=x"):
        platform.problem(platform.http("GET", "/v1/images?" + query), 400, "invalid_request")


def test_one_layer_many_times(project):
    """An empty layer is often there several times; "missing" names it once."""
    image = Image(count=1)
    image.fields["layers"] *= 127
    image.manifest = json.dumps(image.fields).encode()
    project.push_blobs(image.manifest)
    assert len(project.missing(project.name("many", image.digest))) == 2
    assert project.push(image, "many")["layers"] == 127


@pytest.mark.parametrize("name", ["host", "-a", ".", "a b", "a//b", "../a", "a/", "é", "a" * 201, "a%b",
                                  "sha256:" + "0" * 64])
def test_names(platform, project, name):
    image = Image()
    project.push_blobs(image.manifest, *image.parts)
    r = project.name(name, image.digest)
    if name == ".":
        r = project.http("PUT", "/v1/images/%2e", json={"digest": image.digest})
    assert r.status_code in (400, 404), r.text
    assert r.json()["type"] in ("invalid_request", "not_found")
    assert platform.http("GET", "/v1/images/").status_code == 404


def test_the_longest_name(project):
    image, name = Image(), ("a/" * 100)[:199] + "b"
    assert project.push(image, name)["name"] == name
    assert project.http("DELETE", quoted(name)).status_code == 204


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"5", b'{"digest":5}', b'{"digest":"sha256:abc"}',
                                  b'{"digest":"%s"}' % (b"0" * 64), b'{"digest":"sha256:%s"}' % (b"A" * 64),
                                  b'{"digest":"sha512:%s"}' % (b"0" * 128),
                                  b'{"digest":"sha256:%s","x":1}' % (b"0" * 64)])
def test_bad_bodies(platform, project, body):
    platform.problem(project.http("PUT", "/v1/images/x", data=body), 400, "invalid_request")


# ---- Manifests that are none ----

def refused(platform, project, manifest):
    """As a manifest, when all that the image is made of is there."""
    project.push_blobs(manifest)
    name = fresh()
    detail = platform.problem(project.name(name, "sha256:" + sha(manifest)), 400, "invalid_request")
    assert name not in project.names()
    return detail


def test_garbage(platform, project):
    image = Image()
    project.push_blobs(*image.parts)
    good = image.fields
    bad = [b"", b"\0" * 100, b"{", b"[]", b"5", b"null", b'"x"', b"[" * 5000, image.layers[0], b"{}",
           b"\xff\xfe", json.dumps(good).encode()[:-1]]
    for fields in ({"schemaVersion": 1}, {"schemaVersion": "2"}, {"config": None}, {"config": []},
                   {"layers": None}, {"layers": {}}, {"layers": []}, {"layers": [5]},
                   {"mediaType": OCI + "index.v1+json"}, {"manifests": []},
                   {"layers": [{**good["layers"][0], "digest": "sha256:../../etc/passwd"}]},
                   {"layers": [{**good["layers"][0], "digest": "sha512:" + "0" * 128}]},
                   {"layers": [{**good["layers"][0], "digest": 5}]},
                   {"layers": [{**good["layers"][0], "size": -1}]},
                   {"layers": [{**good["layers"][0], "size": 1.5}]},
                   {"layers": [{**good["layers"][0], "size": "7"}]},
                   {"layers": [{**good["layers"][0], "size": 1e300}]},
                   {"layers": [{**good["layers"][0], "size": 2 ** 63}]},
                   {"layers": [{**good["layers"][0], "size": good["layers"][0]["size"] + 1}]},
                   {"layers": [{**good["layers"][0], "mediaType": "x" * 128}]},
                   {"config": {**good["config"], "size": good["config"]["size"] - 1}},
                   {"layers": good["layers"][:1] * 128}, {"layers": good["layers"][:1] * 10000}):
        bad.append(json.dumps({**good, **fields}).encode())
    for manifest in bad:
        refused(platform, project, manifest)


def test_too_large_a_manifest(platform, project):
    image = Image(padding="x" * (4 << 20))
    project.push_blobs(*image.parts)
    assert "4194304" in refused(platform, project, image.manifest)
    largest = Image(padding="x" * (3 << 20))
    project.push(largest, fresh())


@pytest.mark.parametrize("config", [b"[]", b"{", b"\0", b'{"architecture":"%s"}' % (b"x" * 100)])
def test_a_configuration_that_is_none(platform, project, config):
    image = Image(config=Image.describe(config, OCI + "config.v1+json"))
    project.push_blobs(config, *image.layers)
    refused(platform, project, image.manifest)


# ---- Blobs ----

def test_wrong_digests(platform, project):
    data = os.urandom(1000)
    for body in (b"", data[:-1], data + b"x"):
        assert "SHA-256" in platform.problem(project.put_blob(body, sha(data)), 400, "invalid_request")
    project.push_blobs(data, data)
    # That it is there makes nobody believe in the content.
    platform.problem(project.put_blob(b"", sha(data)), 400, "invalid_request")
    for digest in ("x", "0" * 63, "0" * 65, sha(data).upper(), "sha256:" + sha(data), "..%2f..%2fx"):
        platform.problem(project.http("PUT", "/v1/images/blobs/" + digest, data=data), 400, "invalid_request")
    for method in ("GET", "DELETE", "POST"):
        r = project.http(method, "/v1/images/blobs/" + sha(data))
        platform.problem(r, 405, "method_not_allowed")
        assert r.headers["Allow"] == "PUT"


def test_the_token_comes_first(platform):
    """Nothing is read for somebody whose token is none."""
    host, port = platform.url.split("//")[1].split(":")
    for field in ("", "X-Auth-Token: wrong\r\n"):
        with socket.create_connection((host, int(port)), timeout=30) as s:
            s.sendall(f"PUT /v1/images/blobs/{'0' * 64} HTTP/1.1\r\nHost: x\r\n{field}"
                      "Content-Length: 5000000000\r\nExpect: 100-continue\r\n\r\n".encode())
            assert s.recv(4096).startswith(b"HTTP/1.1 401 ")
    with socket.create_connection((host, int(port)), timeout=30) as s:
        s.sendall(f"PUT /v1/images/blobs/{sha(b'hello')} HTTP/1.1\r\nHost: x\r\n"
                  f"X-Auth-Token: {platform.token}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n".encode())
        assert s.recv(4096).startswith(b"HTTP/1.1 100 ")
        s.sendall(b"hello")
        assert s.recv(4096).startswith(b"HTTP/1.1 204 ")
    with socket.create_connection((host, int(port)), timeout=30) as s:
        s.sendall(f"PUT /v1/images/blobs/{'0' * 64} HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {platform.token}\r\n"
                  f"Content-Length: {(8 << 30) + 1}\r\nExpect: 100-continue\r\n\r\n".encode())
        assert s.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_ranges_for_nodes(platform, project):
    data = os.urandom(300000)
    project.push_blobs(data)
    join = {"X-Pratai-Join": (platform.state / "join").read_text().strip()}

    def ask(value):
        return platform.http("GET", "/v1/node/blobs/" + sha(data), headers={**join, "Range": value})
    whole = platform.http("GET", "/v1/node/blobs/" + sha(data), headers=join)
    assert whole.content == data and whole.headers["Accept-Ranges"] == "bytes"
    for n in (0, 1, 123456, 299999):
        r = ask(f"bytes={n}-")
        assert r.status_code == 206 and r.content == data[n:]
        assert r.headers["Content-Range"] == f"bytes {n}-299999/300000"
    r = ask("bytes=300000-")
    platform.problem(r, 416, "invalid_request")
    assert r.headers["Content-Range"] == "bytes */300000"
    for value in ("bytes=5-9", "bytes=-5", "bytes=1-,5-", "x=1-"):
        r = ask(value)
        assert r.status_code == 200 and r.content == data and "Content-Range" not in r.headers
    r = platform.http("GET", "/v1/node/blobs/" + sha(data), headers={"Range": "bytes=0-"})
    platform.problem(r, 401, "unauthorized")


@pytest.mark.slow
def test_memory_stays_flat(platform, project):
    """While 300 MiB go in by several at once."""
    control, = platform.control()

    def peak():
        with open(f"/proc/{control}/status", encoding="ascii") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmHWM"))
    data = [os.urandom(1 << 20) * 100 for _ in range(3)]
    before = peak()
    threads = [threading.Thread(target=project.put_blob, args=(d,)) for d in data]
    with contextlib.ExitStack() as stack:
        for t in threads:
            t.start()
            stack.callback(t.join)
    grown = peak() - before
    image = Image(count=1)
    for d in data:
        image.fields["layers"].append(Image.describe(d, OCI + "layer.v1.tar"))
    image.manifest = json.dumps(image.fields).encode()
    project.push(image, "large")
    assert project.http("DELETE", "/v1/images/large").status_code == 204
    if "san" not in BUILD.name:
        assert grown < 30 << 10


def test_a_disk_that_is_nearly_full(new_platform):
    """A blob that would fill it is refused before it is sent; a small one is taken."""
    platform = new_platform.start()
    platform.end()
    control = platform.state / "control"
    owner = control.stat()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=96m,mode=700,uid={owner.st_uid},gid={owner.st_gid}",
                    "pratai-test", control], check=True)
    try:
        platform.start()
        project = Project(platform, platform.token)
        host, port = platform.url.split("//")[1].split(":")
        with socket.create_connection((host, int(port)), timeout=30) as s:
            s.sendall(f"PUT /v1/images/blobs/{'0' * 64} HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {platform.token}\r\n"
                      "Content-Length: 30000000\r\nExpect: 100-continue\r\n\r\n".encode())
            answer = s.recv(4096)
            assert answer.startswith(b"HTTP/1.1 503 ") and b"no room" in answer
        detail = platform.problem(project.put_blob(iter([bytes(1 << 20)] * 30), "0" * 64), 503,
                                  "store_unavailable")
        assert "no room" in detail
        project.push(Image(), "small")
        platform.end()
    finally:
        subprocess.run(["umount", control], check=True)


def test_many_at_once(platform, project):
    """Two images of some layers in common, by several clients, under one name."""
    one, name = Image(count=3), fresh()
    other = Image(count=1)
    other.fields["layers"] += one.fields["layers"]
    other.manifest = json.dumps(other.fields).encode()
    other.layers += one.layers
    made = []

    def client(image):
        mine = Project(platform, platform.token)
        with requests.Session() as session:
            session.trust_env = False
            for data in (*image.parts, image.manifest):
                r = session.put(f"{platform.url}/v1/images/blobs/{sha(data)}", data=data, timeout=60,
                                headers={"X-Auth-Token": mine.secret})
                assert r.status_code == 204, r.text
            r = session.put(platform.url + quoted(name), json={"digest": image.digest}, timeout=60,
                            headers={"X-Auth-Token": mine.secret})
            made.append((r.status_code, r.json()))
    threads = [threading.Thread(target=client, args=(image,)) for image in (one, other) * 5]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted({status for status, _ in made}) in ([200, 201], [201]) and len(made) == 10
    assert [status for status, _ in made].count(201) == 1
    assert len({record["image_id"] for _, record in made}) == 1
    assert project.http("GET", quoted(name)).json()["digest"] in (one.digest, other.digest)
    assert project.names().count(name) == 1


# ---- Two projects ----

def test_another_projects(platform, project, other):
    image, name = Image(), fresh()
    project.push(image, name)
    assert name not in other.names()
    for method in ("GET", "DELETE"):
        platform.problem(other.http(method, quoted(name)), 404, "not_found")
    # Its digests, which are no secrets, give no access to it: by name, one by one, all but one.
    assert other.missing(other.name(name, image.digest)) == [image.digest]
    other.push_blobs(image.manifest)
    wanted = ["sha256:" + sha(d) for d in image.parts]
    assert other.missing(other.name(name, image.digest)) == wanted
    platform.problem(other.put_blob(b"", sha(image.layers[0])), 400, "invalid_request")
    assert other.missing(other.name(name, image.digest)) == wanted
    other.push_blobs(*image.parts[:-1])
    assert other.missing(other.name(name, image.digest)) == wanted[-1:]
    # It is what somebody without it would be told.
    unknown = Image()
    other.push_blobs(unknown.manifest, *unknown.parts[:-1])
    assert other.name(name, unknown.digest).json().keys() == other.name(name, image.digest).json().keys()
    for ref in (name, image.digest):
        r = platform.upload({"name": fresh(), "image": ref}, "echo")
        assert r.status_code == 201
        assert platform.http("DELETE", "/v1/functions/" + r.json()["function_id"]).status_code == 204
        r = other.http("POST", "/v1/functions", files={
            "metadata": (None, json.dumps({"name": fresh(), "image": ref})), "zip_file": ("f", b"PK")})
        detail = platform.problem(r, 400, "invalid_request")
        assert detail == f"field 'image': '{ref}' is not an image of this project (see image-list --uploaded)"
    mine = other.push(Image(), name)  # a name of its own
    assert project.http("GET", quoted(name)).json()["image_id"] != mine["image_id"]
    assert other.http("DELETE", quoted(name)).status_code == 204
    assert project.http("GET", quoted(name)).json()["digest"] == image.digest


# ---- Functions ----

def versions(platform, name):
    return platform.get(f"/v1/functions/{name}/versions")["items"]


def image_blobs(platform, function, version):
    with store(platform) as db:
        text, = db.execute("SELECT json_extract(json, '$.image_blobs') FROM docs WHERE kind = 1 AND id = ?",
                           [f"{function['function_id']}.{version}"]).fetchone()
    return json.loads(text)


def create_on(platform, ref):
    r = platform.upload({"name": fresh(), "image": ref}, "echo")
    assert r.status_code == 201, r.text
    return r.json()


def update(platform, name, **changes):
    """The end of a build changes a function, too: one is told then to try again."""
    def attempt():
        r = platform.upload(changes, method="PATCH", path="/v1/functions/" + name)
        assert r.status_code == 200 or (r.status_code == 409 and "meanwhile" in r.text), r.text
        return r.status_code == 200 and r.json()
    return wait_for(attempt, what="an update")


def test_a_version_keeps_its_image(platform, project):
    one, two, name = Image(), Image(), fresh()
    project.push(one, name)
    f = create_on(platform, name)
    assert (f["image"], f["image_digest"]) == (name, sha(one.manifest))
    assert image_blobs(platform, f, 1) == [sha(d) for d in (one.manifest, *one.parts)]
    project.push(two, name)
    assert platform.get("/v1/functions/" + f["name"])["image_digest"] == sha(one.manifest)
    # What makes no version moves no image; what makes one takes what the name means now.
    f = update(platform, f["name"], description="x")
    assert (f["latest_version"], f["image_digest"]) == (1, sha(one.manifest))
    f = update(platform, f["name"], memory=64)
    assert (f["latest_version"], f["image_digest"]) == (2, sha(two.manifest))
    assert image_blobs(platform, f, 2) == [sha(d) for d in (two.manifest, *two.parts)]
    assert [(v["image"], v["image_digest"]) for v in versions(platform, f["name"])] == \
        [(name, sha(one.manifest)), (name, sha(two.manifest))]
    # Who names the image asks where it is now.
    f = update(platform, f["name"], image=name)
    assert f["latest_version"] == 2
    project.push(one, name)
    f = update(platform, f["name"], image=name)
    assert (f["latest_version"], f["image_digest"]) == (3, sha(one.manifest))
    f = update(platform, f["name"], image=one.digest)
    assert (f["latest_version"], f["image"], f["image_digest"]) == (4, one.digest, sha(one.manifest))
    f = update(platform, f["name"], image="host")
    assert (f["latest_version"], f["image"], f["image_digest"]) == (5, "host", "")
    assert image_blobs(platform, f, 5) == []
    assert platform.http("DELETE", "/v1/functions/" + f["name"]).status_code == 204


def test_unknown_images(platform, project):
    f = create_on(platform, "host")
    assert (f["image"], f["image_digest"]) == ("host", "")
    for ref in ("unknown", "sha256:" + "0" * 64):
        wanted = f"field 'image': '{ref}' is not an image of this project (see image-list --uploaded)"
        r = platform.upload({"name": fresh(), "image": ref}, "echo")
        assert platform.problem(r, 400, "invalid_request") == wanted
        r = platform.upload({"image": ref}, method="PATCH", path="/v1/functions/" + f["name"])
        assert platform.problem(r, 400, "invalid_request") == wanted
    for ref in ("", "-x", "a b", "x" * 201, 5, None, "sha256:"):
        r = platform.upload({"name": fresh(), "image": ref}, "echo")
        assert "'image'" in platform.problem(r, 400, "invalid_request")
    assert platform.get("/v1/functions/" + f["name"])["latest_version"] == 1
    assert platform.http("DELETE", "/v1/functions/" + f["name"]).status_code == 204


def test_a_deleted_image_and_the_way_back(platform, project):
    image, name = Image(), fresh()
    project.push(image, name)
    f = create_on(platform, name)
    assert project.http("DELETE", quoted(name)).status_code == 204
    # The version goes on; another one of it cannot be made.
    assert platform.get("/v1/functions/" + f["name"])["image_digest"] == sha(image.manifest)
    r = platform.upload({"memory": 64}, method="PATCH", path="/v1/functions/" + f["name"])
    assert "'image'" in platform.problem(r, 400, "invalid_request")
    f = update(platform, f["name"], image="host")
    platform.settled(f["name"])

    def back():  # whatever a node makes of an image that holds nothing
        with store(platform) as db:
            db.execute("UPDATE docs SET json = json_set(json, '$.state', 'ready') WHERE kind = 1 AND id = ?",
                       [f["function_id"] + ".1"])
        r = platform.http("POST", f"/v1/functions/{f['name']}/rollback", json={"version": 1})
        assert r.status_code in (200, 409), r.text
        return r.status_code == 200 and r.json()
    f = wait_for(back, what="the way back")
    assert (f["latest_version"], f["image"], f["image_digest"]) == (3, name, sha(image.manifest))
    assert image_blobs(platform, f, 3) == [sha(d) for d in (image.manifest, *image.parts)]
    # A version names the blobs, too: who lost the name alone need upload nothing.
    with store(platform) as db:
        db.execute("DELETE FROM docs WHERE kind = (SELECT kind FROM docs WHERE name = ?) AND name IN "
                   "(SELECT value FROM json_each(?))",
                   [sha(image.manifest), json.dumps([sha(d) for d in (image.manifest, *image.parts)])])
    assert project.name(name, image.digest).status_code == 201
    assert platform.http("DELETE", "/v1/functions/" + f["name"]).status_code == 204


# ---- Breaks ----

def test_an_upload_that_breaks_off(platform, project):
    """Leaves nothing, and the next one is as if there had been none."""
    host, port = platform.url.split("//")[1].split(":")
    image = Image()
    with socket.create_connection((host, int(port)), timeout=30) as s:
        s.sendall(f"PUT /v1/images/blobs/{sha(image.layers[0])} HTTP/1.1\r\nHost: x\r\n"
                  f"X-Auth-Token: {platform.token}\r\nContent-Length: {len(image.layers[0])}\r\n\r\n".encode()
                  + image.layers[0][:-1])
    project.push_blobs(image.manifest, image.config, image.layers[1])
    assert project.missing(project.name("broken", image.digest)) == ["sha256:" + sha(image.layers[0])]
    project.push(image, "broken")
    assert project.http("DELETE", "/v1/images/broken").status_code == 204


@pytest.fixture
def machine(platform, tmp_path):
    """The command line, with an image store of its own."""
    def run(*words, **env):
        r = platform.cli(*words, env={"PRATAI_ROOT": str(tmp_path / "root"), **env})
        assert r.err.count("\n") == (r.code != 0), r.err
        return r
    return run


def test_import_uploads(project, machine, tmp_path):
    image, name = Image(), f"debian/{fresh()}:12"
    layout = image.write(tmp_path / "layout")
    r = machine("image-import", layout, "--name", name, "-f", "json")
    assert r.code == 0 and r.json()["uploaded"] is True and r.json()["digest"] == image.digest, r.err
    there = project.http("GET", quoted(name)).json()
    assert there["digest"] == image.digest
    listed = machine("image-list", "--uploaded", "-f", "json").json()
    assert there in listed
    lines = machine("image-list", "--uploaded", "-f", "value", "-c", "name", "-c", "digest").out.splitlines()
    assert f"{name} {image.digest}" in lines
    assert name in machine("image-list", "--uploaded", "--only-id").out.split()
    assert [i["name"] for i in machine("image-list", "-f", "json").json()] == [name]
    assert machine("image-import", layout, "--name", name, "-f", "json").json()["uploaded"] is True
    assert project.http("GET", quoted(name)).json()["image_id"] == there["image_id"]
    assert machine("image-delete", "--uploaded", name).code == 0
    assert name not in project.names()
    r = machine("image-delete", "--uploaded", name)
    assert r.code == 1 and f"'{name}'" in r.err
    assert [i["name"] for i in machine("image-list", "-f", "json").json()] == [name]


def test_build_uploads(project, machine, tmp_path):
    image, name = Image(), fresh()
    machine("image-import", image.write(tmp_path / "layout"), "--name", name, "--no-upload")
    (tmp_path / "note").write_text("note")
    (tmp_path / "r.json").write_text(json.dumps({"base": name, "files": [{"from": "note", "to": "/note"}]}))
    words = "image-build", tmp_path / "r.json", "--name", name + "-built", "-f", "json"
    assert machine(*words, "--no-upload").json()["uploaded"] is False and name + "-built" not in project.names()
    built = machine(*words).json()
    assert built["uploaded"] is True and built["cached"] == 1
    assert project.http("GET", quoted(name + "-built")).json()["digest"] == built["digest"]


def test_an_image_that_stays_here(project, machine, tmp_path):
    image, name = Image(), fresh()
    layout = image.write(tmp_path / "layout")
    for words, env in ((["--no-upload"], {}), ([], {"OS_TOKEN": ""}), ([], {"OS_PRATAI_URL": ""})):
        r = machine("image-import", layout, "--name", name, "-f", "json", *words, **env)
        assert r.code == 0 and r.json()["uploaded"] is False, r.err
    assert name not in project.names()
    r = machine("image-upload", name, "-f", "json")
    assert r.code == 0 and r.json()["digest"] == image.digest, r.err
    assert project.http("GET", quoted(name)).json() == r.json()
    r = machine("image-upload", "unknown")
    assert r.code == 1 and "unknown" in r.err
    r = machine("image-upload", name, OS_TOKEN="wrong")
    assert r.code == 1 and "token" in r.err
    # Taken in all the same.
    r = machine("image-import", layout, "--name", "another", OS_TOKEN="wrong")
    assert r.code == 1 and "is in this machine's store, but was not uploaded" in r.err
    assert "another" in machine("image-list", "--only-id").out.split()


def test_a_client_that_is_killed(platform, project, machine, tmp_path):
    """What it has sent whole is not sent again."""
    image, name = Image(count=4, layer_bytes=8 << 20), fresh()
    machine("image-import", image.write(tmp_path / "layout"), "--name", name, "--no-upload")
    env = {**platform.environment(), "OS_PRATAI_URL": platform.url, "OS_TOKEN": platform.token,
           "PRATAI_ROOT": str(tmp_path / "root")}
    names = [sha(d) for d in image.layers]

    def arrived():
        with store(platform) as db:
            return {n for n, in db.execute("SELECT name FROM docs WHERE name IN (SELECT value FROM json_each(?))",
                                           [json.dumps(names)])}
    with subprocess.Popen([str(PRATAI), "image-upload", name], env=env, stdout=subprocess.DEVNULL) as p:
        wait_for(arrived, what="the first layer")
        p.kill()
    before = arrived()
    missing = project.name(name, image.digest)
    if missing.status_code == 409:
        assert not set(project.missing(missing)) & {"sha256:" + n for n in before}
    r = machine("image-upload", name)
    assert r.code == 0, r.err
    assert project.http("GET", quoted(name)).json()["digest"] == image.digest


def test_functions_by_the_command_line(platform, project, machine, tmp_path):
    image, name, function = Image(), f"a/{fresh()}", fresh()
    project.push(image, name)
    code = tmp_path / "code"
    code.mkdir()
    (code / "main.py").write_text("def main(payload=None):\n    return payload\n")
    words = ["function-create", function, "--file", code, "--no-wait", "-f", "json"]
    r = machine(*words, "--image", "unknown")
    assert r.code == 1 and "field 'image': 'unknown' is not an image of this project" in r.err
    f = machine(*words, "--image", name).json()
    assert (f["image"], f["image_digest"]) == (name, sha(image.manifest))

    def update_to(ref):
        r = machine("function-update", function, "--image", ref, "--no-wait", "-f", "json")
        assert r.code == 0 or "meanwhile" in r.err, r.err
        return r.code == 0 and r.json()
    f = wait_for(lambda: update_to("host"), what="an update")
    assert (f["image"], f["image_digest"]) == ("host", "")
    f = wait_for(lambda: update_to(image.digest), what="an update")
    assert f["image_digest"] == sha(image.manifest)
    r = machine("function-versions", function, "-f", "value", "-c", "image")
    assert r.out.split() == [name, "host", image.digest]
    assert machine("function-delete", function).code == 0


def test_a_control_plane_that_is_killed(new_platform):
    """In the midst of uploads, and between them: what was acknowledged is there, nothing else is."""
    platform = new_platform.start()
    project = Project(platform, platform.token)
    image = Image(count=4)
    project.push_blobs(image.manifest, image.config, image.layers[0])
    host, port = platform.url.split("//")[1].split(":")
    body = os.urandom(20 << 20)
    with socket.create_connection((host, int(port)), timeout=30) as s:
        s.sendall(f"PUT /v1/images/blobs/{sha(body)} HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {platform.token}\r\n"
                  f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:-1])
        control, = platform.control()
        os.kill(control, signal.SIGKILL)
        with contextlib.suppress(ConnectionError):
            assert s.recv(100) == b""
    wait_for(lambda: control not in platform.control() and is_ready(platform), 30, "another one")
    assert project.missing(project.name("x", image.digest)) == ["sha256:" + sha(d) for d in image.layers[1:]]
    project.push(image, "x")
    control, = platform.control()
    os.kill(control, signal.SIGKILL)
    wait_for(lambda: control not in platform.control() and is_ready(platform), 30, "another one")
    assert project.http("GET", "/v1/images/x").json()["digest"] == image.digest
    names = {p.name for p in (platform.state / "control").rglob("*")}
    assert not [n for n in names if n.startswith(("tmp.", "spool-"))]
    assert sha(body)[2:] not in names


def is_ready(platform):
    with contextlib.suppress(requests.exceptions.RequestException):
        return platform.http("GET", "/readyz", timeout=5).status_code == 200
    return False
