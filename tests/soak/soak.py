#!/usr/bin/python3
"""Many sandboxes, one after another and 64 at a time, through `pratai run` and through a warm
spawner; then nothing may have grown: what is left of a sandbox is left ten thousand times.

    soak.py BUILD [--row N] [--seconds T]

Not a benchmark: how long it takes decides nothing.  What is counted, and when it has grown, is
in counts.py; that each count can find a leak is tried in test_counts.py.  The last line is as
every check's; the exit status is 1 on growth.
"""
import argparse
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time

from counts import NOISE, STAGES, Counts, grown, small_pages, watch

AT_ONCE, WARM_UP = 64, 256  # as many as the spawner has slots, so that each has been used
OPEN_FILES = 8192  # the spawner's hard limit, at least
LAYER = "layers/sha256/" + "a" * 64
NAMES = {"row": "in a row", "parallel": f"{AT_ONCE} at a time"}
BUILD = None


class Died(Exception):
    """A load could not be given: something may have grown until there was no more of it."""


class Runs:
    """`pratai run`, a process for each."""
    name = "pratai run"
    first = spawner = None

    def __init__(self, place):
        self.env = dict(os.environ, PRATAI_ROOT=str(place / "root"))

    def burst(self, count):
        argv = [str(BUILD / "pratai"), "run", "--memory", "64M", "--", "true"]
        started = [subprocess.Popen(argv, env=self.env) for _ in range(count)]
        for code in [p.wait() for p in started]:
            if code != 0:
                raise Died(f"one ended with {code}")

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
        self.first = self.driver.pid
        children = f"/proc/{self.first}/task/{self.first}/children"
        self.spawner = int(pathlib.Path(children).read_text().split()[0])

    def burst(self, count):
        self.driver.stdin.write(f"true {count}\n")
        self.driver.stdin.flush()
        if not self.driver.stdout.readline():
            raise Died(f"its driver ended with {self.driver.wait()}")

    def close(self):
        self.driver.stdin.close()
        self.driver.stdout.close()
        if self.driver.wait() != 0:
            raise Died(f"its driver ended with {self.driver.returncode}")


class Load:
    """What is done with a way in, and how many sandboxes and seconds it was."""

    def __init__(self, way):
        self.way, self.done, self.spent = way, 0, 0

    def burst(self, count):
        start = time.monotonic()
        self.way.burst(count)
        self.done += count
        self.spent += time.monotonic() - start

    def row(self, count):
        for _ in range(count):
            self.burst(1)

    def parallel(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.burst(AT_ONCE)


class Tally:
    """Of the counts of all loads, and of loads that came to their end."""

    def __init__(self):
        self.passed = self.failed = 0

    def show(self, title, series):
        bad = grown(series)
        print(title)
        for name in series[0]:
            print(f"    {name:26}" + "".join(f"{counts[name]:10}" for counts in series) +
                  "  GROWN" * (name in bad))
        sys.stdout.flush()
        self.passed += len(series[0]) - len(bad)
        self.failed += len(bad)


def soak(way, take, parts, tally):
    for _ in range(WARM_UP // AT_ONCE):
        way.burst(AT_ONCE)
    series = []
    for how, part in parts.items():
        load = Load(way)
        try:
            watch(series, take, getattr(load, how), [part] * STAGES)
        finally:
            tally.show(f"{way.name}, {load.done} {NAMES[how]} ({load.spent:.0f} s)", series)
        series = series[-1:]


def main():
    global BUILD
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--row", type=int, default=10000, help="sandboxes one after another")
    parser.add_argument("--seconds", type=float, default=600, help=f"of {AT_ONCE} at a time")
    a = parser.parse_args()
    BUILD = a.build.resolve()
    small_pages()
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < OPEN_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    if a.row <= STAGES * NOISE["open files"]:
        parser.error("--row: so few that one left of each would not be seen")
    tally = Tally()
    place = pathlib.Path(tempfile.mkdtemp(prefix="pratai-soak-", dir="/tmp"))
    place.chmod(0o755)
    print(f"{'':30}{'before':>10}" + "".join(f"{'stage ' + str(n + 1):>10}" for n in range(STAGES)))
    try:
        for kind in Runs, Spawner:
            try:
                way = kind(place)
                soak(way, Counts(place, way.first, way.spawner).take,
                     {"row": a.row // STAGES, "parallel": a.seconds / STAGES}, tally)
                way.close()
            except Died as e:
                print(f"FAILED: {kind.name}: {e}")
                tally.failed += 1
    finally:
        shutil.rmtree(place)
    print(f"{tally.passed} passed, {tally.failed} failed, 0 skipped")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
