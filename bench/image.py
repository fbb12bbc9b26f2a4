"""Images: how long a layer takes to unpack, beside other tools; a first start; a second function
on the same layers; starts on many layers.  bench/README.md says what is measured.

All of it happens on a fresh ext4 of its own, in a file: how fast files are made depends on what
was deleted from a file system before, and on whether it has a journal."""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from common import BUILD, Server, percentile, save, spawn_ms, table

BUILD = os.path.abspath(BUILD)
PRATAI = os.path.join(BUILD, "pratai")
HERE = os.path.dirname(os.path.abspath(__file__))
MIB = 1 << 20
GIB = 1 << 30
PLACE = os.environ.get("PRATAI_BENCH_IMAGE")  # the fresh file system, in the inner process
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
LAYERS = (1, 4, 20, 100)
MAIN = "def main(payload=None):\n    return payload\n"


def place(*names):
    path = os.path.join(PLACE, *names)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def must(*argv, **kw):
    done = subprocess.run([str(w) for w in argv], capture_output=True, check=False, **kw)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, argv))}: {done.stderr.decode()[-500:]}")
    return done.stdout.decode()


class Peak(threading.Thread):
    """The largest resident memory (KiB) of the processes called name while it runs."""

    def __init__(self, name):
        super().__init__(daemon=True)
        self.of, self.kib, self.curve, self.over = name, 0, [], threading.Event()

    def run(self):
        while not self.over.wait(0.1):
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    with open(f"/proc/{pid}/status") as f:
                        text = f.read()
                except OSError:
                    continue
                if text.startswith(f"Name:\t{self.of}\n") and "VmHWM:" in text:
                    self.kib = max(self.kib, int(text.split("VmHWM:")[1].split()[0]))
                    self.curve.append(int(text.split("VmRSS:")[1].split()[0]))

    def stop(self):
        self.over.set()
        self.join()


# ---- 1. One layer ----

def debian_tar(given):
    """The root of a Debian with python3; made from wherever apt has its packages."""
    if given:
        return given
    path = place("debian.tar")
    print("making a Debian by mmdebstrap ...", flush=True)
    must("mmdebstrap", "--variant=minbase", "--include=python3", "--skip=check/empty",
         with_release(), path)
    return path


def with_release():
    with open("/etc/os-release") as f:
        names = dict(l.rstrip("\n").split("=", 1) for l in f if "=" in l)
    return names["VERSION_CODENAME"].strip('"')


def packed(tar, how):
    """The tar as it is, by gzip -6 or by zstd -3."""
    out = place("tars", "debian.tar" + {"plain": "", "gzip": ".gz", "zstd": ".zst"}[how])
    if how == "plain":
        shutil.copy(tar, out)
    else:
        with open(out, "wb") as f:
            subprocess.run({"gzip": ["gzip", "-6nc", tar], "zstd": ["zstd", "-q3c", tar]}[how],
                           stdout=f, check=True)
    return out


def digest(path):
    return must("sha256sum", path).split()[0]


def layout(name, blob, how, diff):
    """An OCI layout of one layer, tagged x."""
    top = place("layouts", name)
    blobs = os.path.join(top, "blobs/sha256")
    os.makedirs(blobs)

    def put(value, media):
        data = json.dumps(value).encode()
        spare = os.path.join(top, "new")
        with open(spare, "wb") as f:
            f.write(data)
        d = digest(spare)
        os.rename(spare, os.path.join(blobs, d))
        return {"mediaType": f"application/vnd.oci.image.{media}", "digest": "sha256:" + d,
                "size": len(data)}

    d = digest(blob)
    shutil.copy(blob, os.path.join(blobs, d))
    suffix = "" if how == "plain" else "+" + how
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar" + suffix,
             "digest": "sha256:" + d, "size": os.path.getsize(blob)}
    config = put({"architecture": ARCH, "os": "linux", "config": {},
                  "rootfs": {"type": "layers", "diff_ids": ["sha256:" + diff]}}, "config.v1+json")
    manifest = put({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "config": config, "layers": [layer]}, "manifest.v1+json")
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "x"}
    with open(os.path.join(top, "index.json"), "w") as f:
        json.dump({"schemaVersion": 2, "manifests": [manifest]}, f)
    with open(os.path.join(top, "oci-layout"), "w") as f:
        f.write('{"imageLayoutVersion":"1.0.0"}')
    return top


def unpackers(how, tar, oci):
    """(name, argv for a fresh directory).  BEFORE=DIR: another build, to compare with."""
    flag = {"plain": [], "gzip": ["--gzip"], "zstd": ["--zstd"]}[how]
    before = os.path.join(os.environ.get("BEFORE", ""), "pratai")
    words = ["image-import", "--no-upload", "--name", "x", tar, "--root"]
    yield "pratai image-import", lambda to: [PRATAI, *words, to]
    yield "pratai, before", lambda to: [before, *words, to]
    yield "tar -x", lambda to: ["tar", "-C", to, *flag, "-xpf", tar]
    yield "umoci unpack", lambda to: ["umoci", "unpack", "--image", oci + ":x", to + "/bundle"]
    # Into a containers-storage of overlays, as podman and buildah have it.
    yield "skopeo copy", lambda to: ["skopeo", "--insecure-policy", "copy", "-q", f"oci:{oci}:x",
                                     f"containers-storage:[overlay@{to}/graph+{to}/run]x:1"]


def have(name):
    if name == "pratai, before":
        return "BEFORE" in os.environ
    tool = name.split()[0]
    return tool == "pratai" or shutil.which(tool)


def timed(argv, to):
    """Wall time until the result is on disk, user and system time, peak memory of the largest
    process."""
    os.makedirs(to)
    os.sync()
    start = time.perf_counter()
    with open(os.devnull, "r+b") as null, tempfile.TemporaryFile() as err:
        pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=[
            (os.POSIX_SPAWN_DUP2, null.fileno(), 0), (os.POSIX_SPAWN_DUP2, null.fileno(), 1),
            (os.POSIX_SPAWN_DUP2, err.fileno(), 2)])
        _, status, usage = os.wait4(pid, 0)
        err.seek(0)
        if status:
            raise RuntimeError(f"{' '.join(argv)}: {err.read().decode()[-300:]}")
    ended = time.perf_counter()
    must("sync", "-f", to)
    return {"s": time.perf_counter() - start, "to_end_s": ended - start,
            "user_s": usage.ru_utime, "system_s": usage.ru_stime, "rss_kib": usage.ru_maxrss}


def clear(to):
    mounted = os.path.join(to, "graph/overlay")  # by skopeo's storage, on itself
    if os.path.exists(mounted):
        must("umount", mounted)
    shutil.rmtree(to)


def measure_unpack(tar, rounds):
    found = {}
    size, diff = os.path.getsize(tar), digest(tar)
    for how in ("plain", "gzip", "zstd"):
        blob = packed(tar, how)
        oci = layout(how, blob, how, diff)
        tools = [t for t in unpackers(how, blob, oci) if have(t[0])]
        times, failed, rows = {name: [] for name, _ in tools}, set(), []
        for n in range(rounds):
            for i in range(len(tools)):
                name, argv = tools[(n + i) % len(tools)]
                to = place("unpacked", f"{how}-{n}-{i}")
                if name not in failed:
                    try:
                        times[name].append(timed(argv(to), to))
                    except RuntimeError as e:  # Debian's umoci knows no zstd
                        print(f"  (left out: {how}: {name}: {str(e)[-160:].strip()})")
                        failed.add(name)
                    clear(to)
        base = percentile([t["s"] for t in times["tar -x"]], 50)
        times = {name: all_ for name, all_ in times.items() if name not in failed}
        for name, all_ in times.items():
            mid = {key: percentile([t[key] for t in all_], 50) for key in all_[0]}
            rows.append((name, mid["s"], size / MIB / mid["s"],
                         f"{mid['s'] / base:.2f}", mid["to_end_s"], mid["user_s"],
                         mid["system_s"], mid["rss_kib"] / 1024, len(all_)))
        found[how] = {"blob_bytes": os.path.getsize(blob), "times": times}
        table(f"A layer of {size / MIB:.0f} MiB, {how}, until it is on disk (MiB: largest process)",
              ("tool", "s", "MiB/s", "/ tar", "to its end", "user s", "system s", "MiB", "n"), rows)
    return {"tar_bytes": size, **found}


# ---- 2. A larger image's first start ----

def padded(tar, size):
    """A root directory's tar of that size: real files of this machine's /usr beside it."""
    out = place("tars", "padded.tar")
    shutil.copy(tar, out)
    names = []
    left = size - os.path.getsize(tar)
    for top, dirs, files in os.walk("/usr/lib"):
        dirs.sort()
        for f in sorted(files):
            path = os.path.join(top, f)
            if left > 0 and os.path.isfile(path) and not os.path.islink(path):
                names.append(path)
                left -= os.path.getsize(path) + 1024
    listing = place("tars", "names")
    with open(listing, "w") as f:
        f.write("\n".join(names))
    must("tar", "-rf", out, "--transform", "s,^,opt/pad/,", "-P", "--no-recursion", "-T", listing)
    return out


def measure_first(tar, rounds):
    big = padded(tar, 300 * MIB)
    rows, steps = [], []
    for n in range(rounds):
        root, report = place("first", str(n)), place("first", f"report.{n}")
        os.makedirs(root)
        os.sync()
        # From the disk, as the first time is.
        with open(big, "rb") as f:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        start = time.perf_counter()
        must(PRATAI, "image-import", "--no-upload", "--root", root, "--name", "x", big)
        taken = time.perf_counter()
        run = [PRATAI, "run", "--root", root, "--image", "x", "--report", report, "--",
               "/usr/bin/python3", "-c", "pass"]
        must(*run)
        first = time.perf_counter()
        with open(report) as f:
            steps.append(json.load(f)["steps_us"])
        must(*run)
        rows.append((taken - start, first - taken, time.perf_counter() - first))
    size = os.path.getsize(big)
    of = [percentile([r[i] for r in rows], 50) for i in range(3)]
    table(f"An image of {size / MIB:.0f} MiB (plain), and python3 -c pass on it; n {rounds}",
          ("step", "ms"), [("import", of[0] * 1000), ("first start, to its end", of[1] * 1000),
                           ("second start", of[2] * 1000)])
    last = steps[-1]
    table("The first start's setup by step (us)", ("step", "us"), list(last.items()))
    shutil.rmtree(place("first"))
    return {"bytes": size, "s": rows, "first_steps_us": steps}


# ---- 3. A second function ----

def used(path):
    must("sync", "-f", path)
    return int(must("du", "-sk", path).split()[0]) * 1024


class Up:
    def __init__(self):
        self.dir = place("up", "state")
        self.process = subprocess.Popen(
            [PRATAI, "up", "--state", self.dir, "--listen", "127.0.0.1:0", "--log-level", "error"],
            stdout=subprocess.PIPE, text=True)
        if not self.process.stdout.readline().startswith("ready "):
            raise RuntimeError("the platform did not start")
        with open(os.path.join(self.dir, "env")) as f:
            env = dict(l[len("export "):].strip().split("=", 1) for l in f)
        self.env = {**os.environ, **{k: v.strip("'\"") for k, v in env.items()}}

    def __call__(self, *words):
        return must(PRATAI, *words, env=self.env)

    def close(self):
        self.process.terminate()
        self.process.wait(timeout=60)


def measure_functions(tar):
    up = Up()
    code = place("up", "code")
    os.makedirs(code)
    with open(os.path.join(code, "main.py"), "w") as f:
        f.write(MAIN)
    rows, found, before = [], [], used(up.dir)
    try:
        start = time.perf_counter()
        up("image-import", tar, "--name", "debian")
        took = time.perf_counter() - start
        rows.append(("image-import and upload", took, (used(up.dir) - before) / MIB))
        for name in ("first", "second", "third", "fourth"):
            before = used(up.dir)
            start = time.perf_counter()
            up("function-create", name, "--file", code, "--image", "debian", "--memory", "64")
            made = time.perf_counter()
            up("function-execute", name, "--data", "{}", "--wait")
            end = time.perf_counter()
            grown = used(up.dir) - before
            found.append({"create_s": made - start, "answer_s": end - made, "bytes": grown})
            rows.append((f"{name} function: create, to the first answer", end - start, grown / MIB))
        for _ in range(5):
            start = time.perf_counter()
            up("function-execute", "second", "--data", "{}", "--wait")
            found[1].setdefault("warm_s", []).append(time.perf_counter() - start)
        rows.append(("a later answer", percentile(found[1]["warm_s"], 50), 0.0))
    finally:
        up.close()
    table("Functions on one image, `pratai up`", ("what", "s", "MiB more on disk"), rows)
    shutil.rmtree(place("up"))
    return found


# ---- 4. Many layers ----

def make_layers(root, count):
    """An image of count layers, the static program in the lowest, files of each in the others."""
    name = f"l{count}"
    top = place("many", name)
    layers = []
    for k in range(count):
        d = place("many", name + f".{k}")
        for sub in ("bench", "etc", f"opt/{k}"):
            os.makedirs(os.path.join(d, sub))
        if k == 0:
            shutil.copy(os.path.join(BUILD, "bench/true"), os.path.join(d, "bench/true"))
        with open(os.path.join(d, f"opt/{k}/file"), "w") as f:
            f.write(f"layer {k} of {count}\n")
        os.makedirs(os.path.join(top, str(k)))
        must("tar", "-C", d, "--sort=name", "-cf", os.path.join(top, str(k), "layer.tar"), ".")
        layers.append(f"{k}/layer.tar")
    diffs = ["sha256:" + digest(os.path.join(top, l)) for l in layers]
    config = {"architecture": ARCH, "os": "linux", "config": {},
              "rootfs": {"type": "layers", "diff_ids": diffs}}
    manifest = [{"Config": "config.json", "RepoTags": [name + ":latest"], "Layers": layers}]
    for file, value in (("config.json", config), ("manifest.json", manifest)):
        with open(os.path.join(top, file), "w") as f:
            json.dump(value, f)
    must("tar", "-C", top, "-cf", top + ".tar", *sorted(os.listdir(top), reverse=True))
    must(PRATAI, "image-import", "--no-upload", "--root", root, "--name", name, top + ".tar")
    return name


def measure_starts(rounds):
    root = place("store")
    os.makedirs(root)
    names = {count: make_layers(root, count) for count in LAYERS}
    plain = place("many", "l1.0")
    for d in ("proc", "dev", "tmp"):
        os.makedirs(os.path.join(plain, d), exist_ok=True)
    server = Server([*(os.path.join(BUILD, name) for name in
                       ("bench/spawn_bench", "pratai-spawner", "runtimes")), root])
    limits = ["--memory", "64M", "--cpus", "1", "--pids", "64"]
    tools = []
    for count, name in names.items():
        argv = [PRATAI, "run", "--root", root, "--image", name, *limits, "--", "/bench/true"]
        tools += [(f"pratai run, {count} layers", lambda argv=argv: spawn_ms([argv])),
                  (f"warm spawner, {count} layers",
                   lambda name=name: [us / 1000 for us in server.ask(f"@{name} 1")["us"]])]
    if shutil.which("bwrap"):
        bwrap = [shutil.which("bwrap"), "--unshare-all", "--ro-bind", plain, "/", "--proc", "/proc",
                 "--dev", "/dev", "--tmpfs", "/tmp", "/bench/true"]
        tools.append(("bwrap, one directory", lambda: spawn_ms([bwrap])))
    times = {name: [] for name, _ in tools}
    for n in range(rounds + 1):
        for i in range(len(tools)):
            name, ask = tools[(n + i) % len(tools)]
            ms = ask()
            times[name] += ms if n else []  # the first one is not of a warm spawner
            time.sleep(0.01)
    server.close()
    base = percentile(times.get("bwrap, one directory") or [1], 50)
    table("A static program on an image, start to gone, 10 ms apart",
          ("name", "p50", "p99", "n", "unit", "/ bwrap"),
          [(name, percentile(ms, 50), percentile(ms, 99), len(ms), "ms",
            f"{percentile(ms, 50) / base:.2f}" if "bwrap, one directory" in times else "-")
           for name, ms in sorted(times.items())])
    return times


# ---- 5. A large layer ----

LARGE = r"""
import sys, tarfile, random
size, out, r = int(sys.argv[1]), sys.stdout.buffer, random.Random(5)
block = r.randbytes(1 << 20)
t = tarfile.TarInfo("large")
t.size = size
out.write(t.tobuf())
for n in range(size >> 20):
    at = r.randrange(1 << 20)
    out.write(block[at:] + block[:at])
out.write(bytes(1024))
"""


def measure_large():
    if shutil.disk_usage("/tmp").free < 15 * GIB:
        return print("\n(no large layer: it needs 15 GiB)")
    found, rows = {}, []
    for gib in (1, 5):
        root, peak = place("large", str(gib)), Peak("pratai-unpack")
        os.makedirs(root)
        peak.start()
        start = time.perf_counter()
        with subprocess.Popen([sys.executable, "-c", LARGE, str(gib * GIB)],
                              stdout=subprocess.PIPE) as made:
            must(PRATAI, "image-import", "--no-upload", "--root", root, "--name", "x", "-",
                 stdin=made.stdout)
        took = time.perf_counter() - start
        peak.stop()
        found[gib] = {"s": took, "rss_kib": peak.kib, "curve_kib": peak.curve[::10]}
        rows.append((f"{gib} GiB", took, gib * 1024 / took, peak.kib / 1024))
        shutil.rmtree(root)
    table("A layer from a pipe, pseudo-random",
          ("layer", "s", "MiB/s", "MiB of memory, the worker's peak"), rows)
    return found


# ---- ----

def inside(a):
    tar = debian_tar(a.tar)
    data = {"unpack": measure_unpack(tar, a.rounds), "first": measure_first(tar, a.rounds),
            "functions": measure_functions(tar), "starts_ms": measure_starts(a.runs)}
    if a.large:
        data["large"] = measure_large()
    print("\n" + save("image", data))


def outside():
    """The file system, mounted for us alone; it is gone with us."""
    top = tempfile.mkdtemp(prefix="pratai-bench-", dir="/tmp")
    os.chmod(top, 0o755)
    try:
        disk, mnt = os.path.join(top, "disk"), os.path.join(top, "mnt")
        os.mkdir(mnt)
        with open(disk, "wb") as f:
            f.truncate(40 * GIB)  # a hole
        # Nothing is left to be initialized in the background, beside what is measured.
        must("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard",
             "-m", "0", "-i", "65536", disk)
        return subprocess.run(
            ["unshare", "-m", "sh", "-c",
             'mount -o loop,discard "$0" "$1" && shift && exec "$@"', disk, mnt, sys.executable,
             os.path.abspath(__file__), *sys.argv[1:]],
            env={**os.environ, "BUILD": BUILD, "PRATAI_BENCH_IMAGE": mnt}, check=False).returncode
    finally:
        shutil.rmtree(top)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--tar", help="the layer; without, a Debian is made by mmdebstrap")
    p.add_argument("--rounds", type=int, default=3, help="of each tool and form of the layer")
    p.add_argument("--runs", type=int, default=30, help="starts on each number of layers")
    p.add_argument("--large", action="store_true", help="a layer of 5 GiB, too")
    a = p.parse_args()
    if not PLACE:
        return outside()
    return inside(a)


if __name__ == "__main__":
    sys.exit(main())
