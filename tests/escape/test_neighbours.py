"""What a sandbox sees and feels of another one that runs at the same time, of the same image and,
for an ordinary user, of the same user id: nothing.  Each has its control: outside the same is
there.  What two functions of two projects see of each other is in system/test_projects.py."""
import os
import subprocess

import pytest

from conftest import PROBE, call, wait_for
from neighbours import LEASE, PAIRS, outside, words


@pytest.fixture
def first(way):
    """Starts a sandbox that tries verbs and then waits; what they said."""
    started = []

    def start(*verbs, more=()):
        p = way.start("/bin/probe", *verbs, "wait", *more)
        started.append(p)
        return p, [p.stdout.readline().decode().split()[1] for _ in verbs]
    yield start
    for p in started:
        if p.poll() is None:
            way.finish(p)


@pytest.fixture
def second(way):
    def attempt(*verbs):
        r = call(way, "/bin/probe", *verbs)
        assert r.code == 0, r.err
        return words(r.out)
    return attempt


@pytest.mark.parametrize("what, make, find, inside, control", PAIRS, ids=[p[0] for p in PAIRS])
def test_K16_K17_E10_cve_2020_15257(way, first, second, what, make, find, inside, control):
    """What is found by name, by path, by port, or on a file that both have."""
    with outside(PROBE, way.image / "bin/shared", make) as beside:
        assert beside(find) == [control]
    _, said = first(make)
    assert said == ["OK"]
    assert second(*dict.fromkeys([find, make])) == list(dict.fromkeys([inside, "OK"]))


@pytest.mark.parametrize("what, make, find, inside, control", PAIRS, ids=[p[0] for p in PAIRS])
def test_nothing_is_left_for_the_next(second, what, make, find, inside, control):
    for _ in range(2):
        assert second(*dict.fromkeys([find, make])) == list(dict.fromkeys([inside, "OK"]))


def test_locks_from_outside(way, second):
    with open(way.image / "bin/shared") as file:
        subprocess.run(["flock", "-n", str(file.fileno())], pass_fds=[file.fileno()], check=True)
        assert second("flock") == ["OK"]


def test_leases_of_a_shared_layer(way, first, second):
    """Who opens a file that is leased waits, or is told EAGAIN; and a lease of that kind tells
    whether somebody else has the file open."""
    _, make, find, inside, control = LEASE
    with outside(PROBE, way.image / "bin/shared", make) as beside:
        assert beside(find) == [control]
    want = ["OK" if way.name == "user" else "EACCES"]  # by the file's owner alone
    p, said = first(make)
    assert said == second(make) == want
    assert second(find) == [inside]
    os.close(os.open(way.image / "bin/shared", os.O_RDWR | os.O_NONBLOCK))
    way.finish(p)


def test_what_is_opened_is_not_seen(way, first, second):
    p, said = first("watch", more=["seen", "open", "seen"])
    assert said == ["OK"]
    assert second("open") == ["OK"]
    (way.image / "bin/shared").read_text()
    r = way.finish(p)
    # The control: what is opened in the same sandbox is.
    assert r.out.split() == ["seen", "EAGAIN", "open", "OK", "seen", "OK"]


def test_K18_signals(way, run, first, second):
    first("flock")
    others = wait_for(lambda: run.processes(ours=True), what="the other sandbox")
    for pid in [*others, os.getpid(), os.getppid()]:
        assert second(f"kill={pid}") == ["ESRCH"]
    p = subprocess.run([PROBE, f"kill={others[0]}"], capture_output=True, text=True, check=True)
    assert words(p.stdout) == ["OK"]


def test_ids_are_used_again_and_nothing_with_them(way):
    """The second has the same pids, names and perhaps host ids as the first."""
    script = ("ls -A / /tmp /dev/shm; echo $$; for d in /tmp /dev/shm /; do echo left >$d/left; done; "
              "ls / /tmp /dev/shm; cat /proc/self/cgroup")
    seen = {call(way, "/bin/sh", "-c", script).out for _ in range(3)}
    assert len(seen) == 1, seen
