#!/usr/bin/python3
"""Many sandboxes, one after another and 64 at a time, through `pratai run` and through a warm
spawner; then nothing may have grown: what is left of a sandbox is left ten thousand times.

    soak.py BUILD [--row N] [--seconds T]

Not a benchmark: how long it takes decides nothing.  Each count is taken after a warm-up, and
again after the load once it has come down (the kernel ends namespaces and cgroups later), for
at most SETTLE_S.  The allowances are for what others do on the machine meanwhile, and far below
one for each sandbox.  The last line is as every check's; the exit status is 1 on growth.
"""
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

AT_ONCE, WARM_UP, SETTLE_S = 64, 128, 60
LAYER = "layers/sha256/" + "a" * 64
BUILD = None


def number(path, pattern):
    found = re.search(pattern, pathlib.Path(path).read_text(), re.M)
    return int(found[1]) if found else None


def namespaces():
    """Those that some process is in."""
    found = set()
    for p in os.listdir("/proc"):
        if p.isdigit():
            try:
                found |= {os.readlink(f"/proc/{p}/ns/{n}") for n in os.listdir(f"/proc/{p}/ns")}
            except OSError:
                pass
    return len(found)


def slab(name):
    """Live objects of a kernel cache; None where it is not told, or is merged with others."""
    try:
        return number("/proc/slabinfo", rf"^{name}\s+(\d+)")
    except OSError:
        return None


class Counts:
    """Of the machine; of the spawner, too, when there is one."""

    # name: (how much more is none, one more for so many sandboxes)
    ALLOWED = {"cgroups": (32, 500), "dying cgroups": (32, 500), "mounts": (2, 0),
               "namespaces": (16, 0), "net namespaces": (32, 500), "open files": (512, 100),
               "kernel memory KiB": (49152, 1), "spawner KiB": (2048, 0),
               "spawner descriptors": (2, 0), "spawner mounts": (0, 0)}

    def __init__(self, spawner=None):
        self.spawner = spawner

    def take(self):
        now = {"mounts": len(pathlib.Path("/proc/self/mountinfo").read_text().splitlines()),
               "namespaces": namespaces(), "net namespaces": slab("net_namespace"),
               "open files": number("/proc/sys/fs/file-nr", r"^(\d+)"),
               "kernel memory KiB": sum(number("/proc/meminfo", rf"^{w}:\s+(\d+)") or 0
                                        for w in ("SUnreclaim", "KernelStack", "Percpu"))}
        stat = pathlib.Path("/sys/fs/cgroup/cgroup.stat")
        if stat.exists():
            now["cgroups"] = number(stat, r"^nr_descendants (\d+)")
            now["dying cgroups"] = number(stat, r"^nr_dying_descendants (\d+)")
        else:  # of v1, dying ones included
            now["cgroups"] = sum(int(line.split()[2]) for line in open("/proc/cgroups")
                                 if line.split()[0] in ("memory", "pids", "cpu"))
        if self.spawner:
            proc = f"/proc/{self.spawner}"
            now["spawner KiB"] = number(proc + "/status", r"^VmRSS:\s+(\d+)")
            now["spawner descriptors"] = len(os.listdir(proc + "/fd"))
            now["spawner mounts"] = len(pathlib.Path(proc + "/mountinfo").read_text().splitlines())
        return {k: v for k, v in now.items() if v is not None}

    def grown(self, before, now, sandboxes):
        def most(name):
            flat, each = self.ALLOWED[name]
            return before[name] + flat + (sandboxes // each if each else 0)
        return [name for name in before if now[name] > most(name)]

    def settle(self, before, sandboxes):
        end = time.monotonic() + SETTLE_S
        while self.grown(before, now := self.take(), sandboxes) and time.monotonic() < end:
            time.sleep(0.2)
        return now


class Runs:
    """`pratai run`, a process for each."""
    name = "pratai run"
    pid = None

    def __init__(self, place):
        self.env = dict(os.environ, PRATAI_ROOT=str(place / "root"))

    def burst(self, count):
        argv = [str(BUILD / "pratai"), "run", "--memory", "64M", "--", "true"]
        started = [subprocess.Popen(argv, env=self.env) for _ in range(count)]
        for p in started:
            if p.wait() != 0:
                sys.exit(f"soak: pratai run ended with {p.returncode}")

    def close(self):
        pass


class Spawner:
    """A node's spawner, by the program that benchmarks it."""
    name = "spawner"

    def __init__(self, place):
        store = place / "store"
        (store / LAYER / "bench").mkdir(parents=True)
        shutil.copy(BUILD / "bench/true", store / LAYER / "bench/true")
        for d in (store, *store.rglob("*/")):
            d.chmod(0o755)
        self.driver = subprocess.Popen([BUILD / "bench/spawn_bench", BUILD / "pratai-spawner",
                                        BUILD / "runtimes", store], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, text=True)
        self.burst(1)
        children = f"/proc/{self.driver.pid}/task/{self.driver.pid}/children"
        self.pid = int(pathlib.Path(children).read_text().split()[0])

    def burst(self, count):
        self.driver.stdin.write(f"true {count}\n")
        self.driver.stdin.flush()
        if not self.driver.stdout.readline():
            sys.exit("soak: the spawner's driver died")

    def close(self):
        self.driver.stdin.close()
        if self.driver.wait() != 0:
            sys.exit(f"soak: the spawner's driver ended with {self.driver.returncode}")
        self.driver.stdout.close()


def row(way, count):
    for _ in range(count):
        way.burst(1)
    return count


def parallel(way, seconds):
    done, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        way.burst(AT_ONCE)
        done += AT_ONCE
    return done


def main():
    global BUILD
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--row", type=int, default=10000, help="sandboxes one after another")
    parser.add_argument("--seconds", type=float, default=600, help=f"of {AT_ONCE} at a time")
    a = parser.parse_args()
    BUILD = a.build.resolve()
    passed = failed = 0
    lines = [f"{'':34} {'before':>10} {'after':>10}"]
    place = pathlib.Path(tempfile.mkdtemp(prefix="pratai-soak-", dir="/tmp"))
    place.chmod(0o755)
    try:
        for kind in Runs, Spawner:
            way = kind(place)
            counts = Counts(way.pid)
            for load, much in (row, a.row), (parallel, a.seconds):
                for _ in range(WARM_UP // AT_ONCE):
                    way.burst(AT_ONCE)
                time.sleep(2)  # for the kernel's own end of the warm-up
                before = counts.take()
                start = time.monotonic()
                sandboxes = load(way, much)
                spent = time.monotonic() - start
                after = counts.settle(before, sandboxes)
                grown = counts.grown(before, after, sandboxes)
                how = "in a row" if load is row else f"{AT_ONCE} at a time"
                lines.append(f"{way.name}, {sandboxes} {how} ({spent:.0f} s)")
                lines += [f"    {n:30} {before[n]:10} {after[n]:10}"
                          f"{'  GROWN' * (n in grown)}" for n in before]
                failed += len(grown)
                passed += len(before) - len(grown)
            way.close()
    finally:
        shutil.rmtree(place)
    print("\n".join(lines))
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
