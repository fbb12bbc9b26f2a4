"""What the functions of two projects, on one node at the same time, see of each other: nothing.

The probe of tests/escape tries it, in one function that holds what it took and in another one of
another project, with the same package: one layer.  The controls, two processes outside of which
one finds what the other has, are the pairs' own.
"""
import contextlib
import hashlib
import os
import signal
import sqlite3

import pytest

from conftest import BUILD, number_of, read_bytes, wait_for
from neighbours import PAIRS, outside, words

PROBE = BUILD / "tests/escape/probe"
SHARED = b"original" * 512
MAIN = '''
import os
import shutil
import subprocess


def main(payload=None):
    if payload == "processes":
        return [int(d) for d in os.listdir("/proc") if d.isdigit()]
    shutil.copy("/function/probe", "/tmp/probe")
    os.chmod("/tmp/probe", 0o755)
    p = subprocess.run(["/tmp/probe", "at=/function/shared", *payload], capture_output=True, text=True)
    os.unlink("/tmp/probe")
    return p.stdout
'''


class Function:
    """Of a project, which is its token's."""

    def __init__(self, platform, secret):
        self.platform, self.secret = platform, secret
        package = {"main.py": MAIN, "probe": PROBE.read_bytes(), "shared": SHARED}
        with self.token():
            self.name = platform.create(package, timeout=600)

    @contextlib.contextmanager
    def token(self):
        headers = self.platform.web.headers
        before, headers["X-Auth-Token"] = headers["X-Auth-Token"], self.secret
        try:
            yield
        finally:
            headers["X-Auth-Token"] = before

    def send(self, payload):
        with self.token():
            return self.platform.send(self.name, payload)

    def ended(self, event):
        with self.token():
            record = self.platform.ended(event)
        assert record["state"] == "succeeded", record
        return record["response"]

    def tries(self, *verbs):
        return words(self.ended(self.send(verbs)))[1:]

    @contextlib.contextmanager
    def holding(self, *verbs):
        """Has done verbs, and stays: its process outside."""
        before = holders(self.platform)
        event = self.send([*verbs, "hold"])
        pid, = wait_for(lambda: holders(self.platform) - before, what="the function")
        try:
            yield pid
        finally:
            os.kill(pid, signal.SIGTERM)
            said = words(self.ended(event))[1:]
        assert said == ["OK"] * len(verbs)


def holders(platform):
    return {p for p in platform.sandboxes() if read_bytes(f"/proc/{p}/comm") == b"probe-holds\n"}


@pytest.fixture(scope="module")
def functions(platform):
    """In the first project and in another one.  Nothing makes projects yet but the store itself."""
    secret = platform.ok("token-create", "other", "-f", "json").json()["token"]
    with contextlib.closing(sqlite3.connect(platform.state / "control/pratai.db", timeout=60)) as db, db:
        changed = db.execute(
            "UPDATE docs SET json = json_set(json, '$.project_id', 'other', '$.user_id', 'other') WHERE name = ?",
            [hashlib.sha256(secret.encode()).hexdigest()])
        assert changed.rowcount == 1
    first, second = Function(platform, platform.token), Function(platform, secret)
    with second.token():
        assert platform.http("GET", f"/v1/functions/{first.name}").status_code == 404
    return first, second


@pytest.mark.parametrize("what, make, find, inside, control", PAIRS, ids=[p[0] for p in PAIRS])
def test_what_one_holds(functions, tmp_path, what, make, find, inside, control):
    first, second = functions
    shared = tmp_path / "shared"
    shared.write_bytes(SHARED)
    with outside(PROBE, shared, make) as beside:
        assert beside(find) == [control]
    with first.holding(make):
        assert second.tries(find) == [inside]


def test_what_one_leaves(functions):
    """When it has ended; its ids and places are used again."""
    first, second = functions
    pairs = [p for p in PAIRS if p[0] != "locks"]
    for _ in range(3):
        assert first.tries(*(p[1] for p in pairs)) == ["OK"] * len(pairs)
        assert second.tries(*(p[2] for p in pairs)) == [p[3] for p in pairs]


def test_processes(platform, functions):
    first, second = functions
    with first.holding() as pid:
        seen = second.ended(second.send("processes"))
        assert len(seen) < 6 and max(seen) < 32  # its own, by numbers of its own
        others = [pid, *platform.processes(), *platform.inits(), os.getpid()]
        assert second.tries(*(f"kill={p}" for p in others)) == ["ESRCH"] * len(others)
        os.kill(pid, 0)  # the control


def test_ranges_of_ids(functions):
    """Two that live at the same time have no id in common, though both are called 1000 inside."""
    first, second = functions
    with first.holding() as one, second.holding() as two:
        ids = [number_of(pid, "Uid") for pid in (one, two)]
        assert ids[0] // 65536 != ids[1] // 65536 and {i % 65536 for i in ids} == {1000}
        maps = [read_bytes(f"/proc/{pid}/uid_map").split() for pid in (one, two)]
        assert [int(m[2]) for m in maps] == [65536, 65536] and maps[0][1] != maps[1][1]


def test_pages_of_what_both_have(platform, functions):
    """One layer, so the same pages; neither changes what the other reads.  The control is that of
    escape/test_images.py."""
    first, second = functions
    layers = [p for p in platform.state.rglob("function/shared") if p.read_bytes() == SHARED]
    assert len({p.stat().st_ino for p in layers}) == len(layers) == 1, layers
    with first.holding("write_private"):
        assert second.tries("map_shared", "write_private") == ["EACCES", "OK"]
    assert layers[0].read_bytes() == SHARED
