#!/usr/bin/python3
"""Many sandboxes, one after another and 64 at a time, through `pratai run` and through a warm
spawner; then nothing may have grown: what is left of a sandbox is left ten thousand times.  Those
with a way out (network egress) take longer, so there are fewer of them: a tenth.

    soak.py BUILD [--row N] [--seconds T] [--no-egress]

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
EGRESS_SHARE, EGRESS_ROW, EGRESS_SECONDS = 10, 300, 4  # the least
OPEN_FILES = 8192  # the spawner's hard limit, at least
LAYER = "layers/sha256/" + "a" * 64
NAMES = {"row": "in a row", "parallel": f"{AT_ONCE} at a time"}
BUILD = None


class Died(Exception):
    """A load could not be given: something may have grown until there was no more of it."""


class Runs:
    """`pratai run`, a process for each."""
    first = spawner = None

    def __init__(self, place, network):
        self.name, self.network = f"pratai run, {network}", network
        self.env = dict(os.environ, PRATAI_ROOT=str(place / "root"))

    def burst(self, count):
        argv = [str(BUILD / "pratai"), "run", "--memory", "64M", "--network", self.network,
                "--", "true"]
        started = [subprocess.Popen(argv, env=self.env) for _ in range(count)]
        for code in [p.wait() for p in started]:
            if code != 0:
                raise Died(f"one ended with {code}")

    def close(self):
        pass


class Spawner:
    """A node's spawner, by the program that benchmarks it."""

    def __init__(self, place, network):
        self.name = f"spawner, {network}"
        self.word = " egress" if network == "egress" else ""
        store = place / f"store-{network}"
        (store / LAYER / "bench").mkdir(parents=True)
        shutil.copy(BUILD / "bench/true", store / LAYER / "bench/true")
        for d in (store, *store.rglob("*/")):
            d.chmod(0o755)
        self.driver = subprocess.Popen([BUILD / "bench/spawn_bench", BUILD / "pratai-spawner",
                                        BUILD / "runtimes", store, *self.word.split()],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.burst(1)
        self.first = self.driver.pid
        children = f"/proc/{self.first}/task/{self.first}/children"
        self.spawner = int(pathlib.Path(children).read_text().split()[0])

    def burst(self, count):
        self.driver.stdin.write(f"true {count}{self.word}\n")
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
    parser.add_argument("--no-egress", action="store_true", help="leave network egress out")
    a = parser.parse_args()
    BUILD = a.build.resolve()
    small_pages()
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < OPEN_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    if a.row <= STAGES * NOISE["open files"]:
        parser.error("--row: so few that one left of each would not be seen")
    parts = {"none": {"row": a.row // STAGES, "parallel": a.seconds / STAGES},
             "egress": {"row": max(a.row // EGRESS_SHARE, EGRESS_ROW) // STAGES,
                        "parallel": max(a.seconds / EGRESS_SHARE, EGRESS_SECONDS) / STAGES}}
    if a.no_egress:
        del parts["egress"]
    tally = Tally()
    place = pathlib.Path(tempfile.mkdtemp(prefix="pratai-soak-", dir="/tmp"))
    place.chmod(0o755)
    print(f"{'':30}{'before':>10}" + "".join(f"{'stage ' + str(n + 1):>10}" for n in range(STAGES)))
    try:
        for network in parts:
            for kind in Runs, Spawner:
                try:
                    way = kind(place, network)
                    soak(way, Counts(place, way.first, way.spawner).take, parts[network], tally)
                    way.close()
                except Died as e:
                    print(f"FAILED: {kind.__name__}, {network}: {e}")
                    tally.failed += 1
    finally:
        shutil.rmtree(place)
    print(f"{tally.passed} passed, {tally.failed} failed, 0 skipped")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
