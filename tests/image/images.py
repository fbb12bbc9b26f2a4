"""Archives, layouts, and a store to take them into."""
import gzip
import hashlib
import io
import json
import lzma
import os
import pathlib
import stat
import subprocess
import tarfile

from sandboxes import BUILD, PRATAI

BASE = 0x78000000  # what an image's uid 0 is on disk
MEDIA = "application/vnd.oci.image."


def sha(data):
    return hashlib.sha256(data).hexdigest()


def entry(name, data=None, **more):
    """(TarInfo, data) of a tar's member; more: its fields, or pax={...}."""
    t = tarfile.TarInfo()
    t.name = name
    t.mode = 0o644 if data is not None else 0o755
    t.type = tarfile.REGTYPE if data is not None else tarfile.DIRTYPE
    t.mtime = 1600000000
    if isinstance(data, str):
        data = data.encode()
    t.size = len(data or b"")
    t.pax_headers = more.pop("pax", {})
    for key, value in more.items():
        setattr(t, key, value)
    return t, data


def link(name, target, **more):
    return entry(name, b"", type=tarfile.SYMTYPE, linkname=target, mode=0o777, **more)


def hard(name, target, **more):
    return entry(name, b"", type=tarfile.LNKTYPE, linkname=target, **more)


def node(name, kind, major=0, minor=0, **more):
    return entry(name, b"", type=kind, devmajor=major, devminor=minor, **more)


def tar(*entries, format=tarfile.PAX_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format, encoding="utf-8",
                      errors="surrogateescape") as t:
        for info, data in entries:
            t.addfile(info, io.BytesIO(data) if data else None)
    return out.getvalue()


def pack(data, how):
    if how == "gzip":
        return gzip.compress(data, 1, mtime=0)
    if how == "xz":
        return lzma.compress(data, preset=0)
    if how == "zstd":
        return subprocess.run(["zstd", "-q", "-1", "-c"], input=data, capture_output=True, check=True).stdout
    return data


class Layout:
    """An OCI image layout, or the parts of a docker archive."""

    def __init__(self, *layers, config=None, how="gzip", diff=None, arch="amd64", ref=None):
        self.blobs, self.how = {}, how
        self.layers = [pack(l, how) for l in layers]
        self.diffs = diff or [sha(l) for l in layers]
        arch = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine] if arch == "amd64" else arch
        self.config = self.put(json.dumps({
            "architecture": arch, "os": "linux", "config": config or {},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + d for d in self.diffs]}}).encode())
        suffix = "" if how == "none" else "+" + how
        self.manifest = {
            "schemaVersion": 2, "mediaType": MEDIA + "manifest.v1+json",
            "config": self.descriptor(self.config, "config.v1+json"),
            "layers": [self.descriptor(self.put(l), "layer.v1.tar" + suffix) for l in self.layers]}
        self.index = {"schemaVersion": 2, "manifests": []}
        self.add(ref)

    def put(self, data):
        self.blobs[sha(data)] = data
        return sha(data)

    def descriptor(self, digest, media, **more):
        return {"mediaType": MEDIA + media, "digest": "sha256:" + digest,
                "size": len(self.blobs[digest]), **more}

    def add(self, ref=None, **more):
        """self.manifest into the index."""
        d = self.descriptor(self.put(json.dumps(self.manifest).encode()), "manifest.v1+json", **more)
        if ref:
            d["annotations"] = {"org.opencontainers.image.ref.name": ref}
        self.index["manifests"].append(d)

    def files(self):
        return {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(self.index).encode(),
                **{"blobs/sha256/" + d: b for d, b in self.blobs.items()}}

    def write(self, path):
        for name, data in self.files().items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        return path

    def tar(self):
        return tar(*(entry(n, d) for n, d in self.files().items()))

    def docker(self, tags=("x:latest",), order=1):
        """What `docker save` writes: its members in either order."""
        members = [entry(self.config + ".json", self.blobs[self.config])]
        names = []
        for i, l in enumerate(self.layers):
            names.append("%064x/layer.tar" % (i + 1))
            members += [entry("%064x" % (i + 1)), entry(names[-1], l)]
        members.append(entry("manifest.json", json.dumps(
            [{"Config": self.config + ".json", "RepoTags": list(tags), "Layers": names}])))
        return tar(*members[::order])


class Images:
    def __init__(self, tmp, run):
        self.tmp, self.run, self.root = tmp, run, tmp / "root"
        self.client = [str(PRATAI)]
        self.count = 0

    @property
    def store(self):
        return self.root / "images"

    def command(self, *words, **kw):
        kw.setdefault("timeout", 120)
        p = subprocess.run([*self.client, words[0], "--root", str(self.root), *map(str, words[1:])],
                           capture_output=True, check=False, **kw)
        p.out, p.err = p.stdout.decode(), p.stderr.decode("utf-8", "replace")
        assert p.err.count("\n") <= 1 or words[0] == "image-verify", p.err
        return p

    def write(self, data):
        self.count += 1
        path = self.tmp / f"archive.{self.count}"
        path.write_bytes(data)
        return path

    def take(self, what, name="x", **kw):
        """Imports bytes, a layout or a path; the record."""
        p = self.try_to_take(what, name, **kw)
        assert p.returncode == 0, p.err
        return json.loads(p.out)

    def try_to_take(self, what, name="x", more=(), **kw):
        if isinstance(what, Layout):
            self.count += 1
            what = what.write(self.tmp / f"layout.{self.count}")
        elif isinstance(what, bytes):
            what = self.write(what)
        return self.command("image-import", what, "--name", name, "-f", "json", *more, **kw)

    def refuse(self, what, word, name="x", **kw):
        """The one sentence, which has the word in it; nothing was taken in."""
        before = self.listing()
        p = self.try_to_take(what, name, **kw)
        assert p.returncode == 1 and p.out == "" and p.err.startswith("pratai: "), (p.out, p.err)
        assert word in p.err, p.err
        assert self.listing() == before
        self.check()
        return p.err

    def listing(self):
        if not self.store.exists():
            return []
        return sorted(str(p.relative_to(self.store)) for d in ("refs", "records", "blobs/sha256", "layers")
                      for p in (self.store / d).iterdir())

    def check(self):
        """Nothing of an import is left, and nothing was written beside the store."""
        if self.store.exists():
            assert not list(self.store.glob("tmp.*"))
            assert {p.name for p in self.store.iterdir()} == {"refs", "records", "blobs", "layers", "builds", "lock"}
            for p in (self.store / "layers").iterdir():
                assert p.is_dir() and not p.is_symlink()

    def record(self, name="x"):
        """The store's own: {key: [values]}."""
        manifest = (self.store / "refs" / name.replace("/", "%")).read_text().strip()
        lines = (self.store / "records" / manifest).read_text().splitlines()[1:]
        found = {}
        for line in lines:
            key, value = line.split(" ", 1)
            found.setdefault(key, []).append(value)
        return found

    def layers(self, name="x"):
        """Directories of the unpacked layers, the lowest first."""
        return [self.store / "layers" / l.split()[2] for l in self.record(name)["layer"]]

    def sh(self, script, *options, image="x", **kw):
        r = self.run.sh(script, "--root", self.root, "--image", image, *options, **kw)
        return r


def tree(top, base=BASE):
    """{path: what is to be the same of it}; hard links by the first path of their inode."""
    found, inodes = {}, {}
    for path in [top, *sorted(top.rglob("*"))]:
        s = path.lstat()
        name = str(path.relative_to(top))
        kind = stat.S_IFMT(s.st_mode)
        what = {"kind": kind, "mode": stat.S_IMODE(s.st_mode), "uid": s.st_uid - base, "gid": s.st_gid - base,
                "mtime": s.st_mtime_ns}
        if kind == stat.S_IFREG:
            what.update(size=s.st_size, sha=sha(path.read_bytes()))
        elif kind == stat.S_IFLNK:
            what["target"] = os.readlink(path)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            what["rdev"] = s.st_rdev
        if kind != stat.S_IFDIR:
            what["links"] = s.st_nlink
            what["inode"] = inodes.setdefault(s.st_ino, name)
        what["xattr"] = {n: os.getxattr(path, n, follow_symlinks=False)
                         for n in os.listxattr(path, follow_symlinks=False)}
        found[name] = what
    return found
