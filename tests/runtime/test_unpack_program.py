"""pratai-unpack, the program: real archives, its answers, and that it is locked in."""
import io
import json
import os
import random
import subprocess
import tarfile
import time
import zipfile

import pytest

SECONDS = 60


@pytest.fixture
def unpack(unpack_program, tmp_path):
    """unpack(verb, data): (status, what it said, the directory)."""
    dest = tmp_path / "dest"
    dest.mkdir()

    def run(verb, data):
        path = tmp_path / "archive"
        path.write_bytes(data)
        with open(path, "rb") as source:
            directory = os.open(dest, os.O_RDONLY | os.O_DIRECTORY)
            p = subprocess.run([unpack_program, verb], stdin=source, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, timeout=SECONDS, pass_fds=(3,), env={},
                               preexec_fn=lambda: os.dup2(directory, 3))
            os.close(directory)
        assert p.stderr == b"" and p.stdout.endswith(b"\n") and p.stdout.count(b"\n") == 1
        text = p.stdout.decode().strip()
        return p.returncode, json.loads(text) if p.returncode == 0 else text, dest

    return run


def zip_of(files, **options):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, **options) as z:
        for name, text in files.items():
            z.writestr(name, text)
    return out.getvalue()


def test_zip_of_python(unpack):
    data = zip_of({"main.py": "def main(p): pass", "a/b/c.txt": "x" * 3000,
                   "requirements.txt": "six"})
    status, said, dest = unpack("zip", data)
    assert status == 0
    assert (said["entries"], said["bytes"]) == (3, 3020)
    assert (dest / "function/a/b/c.txt").read_text() == "x" * 3000
    status, said, _ = unpack("check", zip_of({"x": ""}))
    assert status == 0 and said["entries"] == 1


def test_zip64_and_streamed_zips(unpack):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        with z.open("main.py", "w", force_zip64=True) as f:
            f.write(b"x = 1")

    class Pipe(io.RawIOBase):
        """Cannot seek: sizes come after the data."""
        data = b""

        def writable(self):
            return True

        def write(self, piece):
            Pipe.data += bytes(piece)
            return len(piece)

    with zipfile.ZipFile(Pipe(), "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("main.py", "x = 1" * 100)
        z.writestr("new_module.py", "x = 2")
    assert unpack("check", out.getvalue())[0] == 0
    assert unpack("check", Pipe.data)[1]["entries"] == 2


def test_bombs(unpack):
    status, said, _ = unpack("check", zip_of({"zeros": b"\0" * (20 << 20)}))
    assert status == 1
    assert said == "the entry 'zeros' unpacks to more than 1000 times its compressed size"
    # Below the bound on the ratio of one, above that on all.
    block = bytes(4096) + random.Random(1).randbytes(16)
    data = zip_of({f"f{i}": block * 8000 for i in range(17)})
    assert len(data) < 64 << 20
    status, said, _ = unpack("check", data)
    assert status == 1 and said == "the archive unpacks to more than 512 MiB"
    status, said, _ = unpack("check", zip_of({f"f{i}": b"" for i in range(20001)}))
    assert status == 1 and "20001 entries; at most 20000" in said
    status, said, _ = unpack("check", zip_of({"/".join("d%d_%d" % (i, j) for j in range(30)): b""
                                              for i in range(700)}))
    assert status == 1 and "more than 20000 files and directories" in said


def test_overlapping_entries(unpack):
    """The zip bomb without nesting: many directory entries for one piece of data."""
    data = zip_of({"a": "x" * 1000, "b": "y" * 1000})
    at = data.rindex(b"PK\1\2")
    moved = data[:at + 42] + b"\0\0\0\0" + data[at + 46:]
    status, said, _ = unpack("check", moved)
    assert status == 1 and said.startswith("the entry '")


def test_many_files_and_a_large_one(unpack):
    files = {f"d{i % 100}/f{i}": str(i) for i in range(5000)}
    files["big"] = random.Random(2).randbytes(20 << 20)
    status, said, dest = unpack("zip", zip_of(files))
    assert status == 0 and said["entries"] == 5001
    assert sum(len(f) for _, _, f in os.walk(dest / "function")) == 5001
    assert (dest / "function/big").read_bytes() == files["big"]


def test_not_zips(unpack):
    tar = io.BytesIO()
    tarfile.open(fileobj=tar, mode="w").close()
    for data, words in [(b"", "is empty"), (b"PK", "not a zip"),
                        (b"\x1f\x8b" + bytes(500), "not a zip"),
                        (tar.getvalue(), "not a zip"), (zip_of({}), "is empty"),
                        (zip_of({"a": "b"})[:-30], "truncated"),
                        (b"#!/bin/sh\n" + zip_of({"a": "b"}), "start of the file"),
                        (zip_of({"a": "b"}) + b"x", "something follows"),
                        (zip_of({"a": "b"}) * 2, "start of the file")]:
        status, said, dest = unpack("zip", data)
        assert status == 1 and words in said, said
        assert os.listdir(dest) == []


def test_random_damage(unpack_program, tmp_path):
    """Whatever the bytes: an answer, never a signal."""
    rng = random.Random(3)
    good = zip_of({"main.py": "x = 1\n" * 200, "d/e.txt": rng.randbytes(500), "f": ""})
    for i in range(150):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 5)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / "z").write_bytes(data)
        with open(tmp_path / "z", "rb") as f:
            p = subprocess.run([unpack_program, "check"], stdin=f, stdout=subprocess.PIPE,
                               timeout=SECONDS, env={})
        assert p.returncode in (0, 1), (i, p)


def tar_of(entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_tar(unpack, build):
    import hashlib
    data = tar_of({"function/main.py": b"x", "function/" + "long/" * 40 + "ü.py": b"y" * 100000})
    status, said, dest = unpack("tar", data)
    assert status == 0 and said["sha256"] == hashlib.sha256(data).hexdigest()
    assert (dest / ("function/" + "long/" * 40) / "ü.py").stat().st_size == 100000
    status, said, _ = unpack("tar", tar_of({"etc/passwd": b""}))
    assert status == 1 and said == "the entry 'etc/passwd' is not in function/ or opt/deps/"


def test_what_a_build_sends_is_taken(unpack, build):
    r = build({"main.py": "def main(p): pass\n", "sub/x.py": "", "t/ü" + "n" * 200: "data"})
    status, said, dest = unpack("tar", r.tar)
    assert status == 0, said
    assert (dest / "function/main.py").stat().st_mtime == 315532800


def test_full_disk_is_the_machines_fault(unpack_program, tmp_path):
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", mount]).returncode:
        pytest.skip("needs the right to mount")
    try:
        (tmp_path / "z").write_bytes(zip_of({"big": random.Random(4).randbytes(3 << 20)}))
        directory = os.open(mount, os.O_RDONLY)
        with open(tmp_path / "z", "rb") as f:
            p = subprocess.run([unpack_program, "zip"], stdin=f, stdout=subprocess.PIPE, env={},
                               pass_fds=(3,), preexec_fn=lambda: os.dup2(directory, 3))
        os.close(directory)
        assert p.returncode == 2 and b"No space left on device" in p.stdout
    finally:
        subprocess.run(["umount", mount], check=True)


def test_used_wrongly(unpack_program):
    for words in ([], ["zap"], ["check", "file"]):
        p = subprocess.run([unpack_program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert p.returncode == 64 and p.stderr.startswith(b"pratai-unpack: usage:")


def test_locked_in_before_the_first_byte(unpack_program, tmp_path):
    """While it waits for its input: what the kernel says of it."""
    reader, writer = os.pipe()
    directory = os.open(tmp_path, os.O_RDONLY)
    p = subprocess.Popen([unpack_program, "tar"], stdin=reader, stdout=subprocess.PIPE, env={},
                         pass_fds=(3,), preexec_fn=lambda: os.dup2(directory, 3))
    os.close(reader)
    try:
        deadline = time.monotonic() + SECONDS
        status = {}
        while status.get("Seccomp") != "2" or status.get("Seccomp_filters") != "2":
            assert time.monotonic() < deadline, status
            with open(f"/proc/{p.pid}/status") as f:
                status = dict(line[:-1].split(":\t", 1) for line in f)
        assert status["NoNewPrivs"] == "1"
        assert sorted(os.listdir(f"/proc/{p.pid}/fd")) == ["0", "1", "2", "3"]
        with open(f"/proc/{p.pid}/limits") as f:
            limits = f.read()
        assert "Max open files            16 " in limits
        assert "Max core file size        0 " in limits
    finally:
        os.close(writer)
        os.close(directory)
        assert p.wait(SECONDS) == 1
        p.stdout.close()
