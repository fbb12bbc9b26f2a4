"""Debian as a layer: made by mmdebstrap once, and kept below build/images.  Packages come from
wherever apt has them from on this machine; where that is nowhere, Unreachable is raised."""
import hashlib
import json
import os
import pathlib
import subprocess

SECONDS = 600
# Of all builds: a sanitizer's makes none of its own.
CACHE = pathlib.Path(__file__).resolve().parent.parent / "build/images"


class Unreachable(Exception):
    pass


def own_suite():
    """(name, apt's sources for it) of this machine's release, if it is Debian, else of the stable one."""
    release = dict(l.split("=", 1) for l in pathlib.Path("/etc/os-release").read_text().splitlines() if "=" in l)
    if release.get("ID") != "debian":
        return "stable", []
    files = [pathlib.Path("/etc/apt/sources.list"), *sorted(pathlib.Path("/etc/apt/sources.list.d").glob("*"))]
    return release.get("VERSION_CODENAME", "stable").strip('"'), [str(p) for p in files if p.is_file() and any(
        l.strip() and not l.startswith("#") for l in p.read_text().splitlines())]


def layer(*packages, suite=None):
    """(path of a zstd-packed tar, its diff id in hex) of the smallest Debian and the packages."""
    own, sources = own_suite()
    suite = suite or own
    key = hashlib.sha256(json.dumps([suite, sorted(packages)]).encode()).hexdigest()[:12]
    path, about = CACHE / f"{suite}-{key}.tar.zst", CACHE / f"{suite}-{key}.json"
    if not about.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        new = CACHE / f"tmp-{os.getpid()}.tar.zst"
        p = subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", "--include=" + ",".join(packages), suite,
                            new, *(sources if suite == own else [])],
                           capture_output=True, text=True, check=False, timeout=SECONDS)
        if p.returncode:
            new.unlink(missing_ok=True)
            raise Unreachable(p.stderr[-1000:])
        with subprocess.Popen(["zstd", "-dqc", new], stdout=subprocess.PIPE) as unpacked:
            diff = hashlib.file_digest(unpacked.stdout, "sha256").hexdigest()
        new.rename(path)
        about.write_text(json.dumps({"diff": diff}))
    return path, json.loads(about.read_text())["diff"]
