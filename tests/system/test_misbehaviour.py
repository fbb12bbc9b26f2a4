"""Functions that fail, take too much, or fight: each named as what it did, none in the way of
the next."""
import os
import time

import pytest

from conftest import wait_for

pytestmark = pytest.mark.usefixtures("serves")
MIB = 1 << 20


def failed(platform, r, status, kind, state, reason):
    """Asserts the answer and the record; the record."""
    platform.problem(r, status, kind)
    assert r.headers["Pratai-State"] == state
    record = platform.ended(r.headers["Pratai-Event-Id"])
    assert (record["state"], record["reason"]) == (state, reason), record
    assert record["error"]["message"]
    return record


def nothing_runs(platform):
    wait_for(lambda: platform.get("/v1/nodes")["items"][0]["running"] == 0, what="idle nodes")


@pytest.mark.parametrize("where", [None, "child", "/tmp", "/dev/shm"])
def test_eats_memory(platform, where):
    """In itself, in a child, in /tmp and in /dev/shm."""
    name = platform.wait_function("memory_hog", memory=64, tmp_size=64, timeout=30)
    r = platform.call(name, where)
    record = failed(platform, r, 502, "memory_exceeded", "memory_exceeded", "memory_exceeded")
    assert 32 * MIB < record["usage"]["memory_peak_bytes"] <= 65 * MIB
    nothing_runs(platform)


def test_fills_a_small_tmp(platform):
    """The writable side is bounded by itself: the function gets an error and may go on."""
    name = platform.wait_function("memory_hog", memory=128, tmp_size=16)
    r = platform.call(name, "/tmp")
    assert "No space left" in platform.problem(r, 502, "function_failed")


def test_prints_without_end(platform):
    name = platform.wait_function("prints", timeout=30)
    r = platform.call(name, 1 << 30)
    record = failed(platform, r, 502, "output_exceeded", "failed", "output_exceeded")
    assert record["logs_truncated"] is True and record["logs_bytes"] > MIB // 2
    log = platform.log_of(record["event_id"])
    assert len(log) <= MIB + 4096 and "x" * 1023 in log
    assert "cut" in log.splitlines()[-1] or "limit" in log.splitlines()[-1], log[-300:]


def test_prints_just_enough(platform):
    name = platform.wait_function("prints")
    r = platform.call(name, MIB // 2)
    assert (r.status_code, r.json()) == (200, MIB // 2)
    record = platform.ended(r.headers["Pratai-Event-Id"])
    assert record["logs_bytes"] >= MIB // 2 and record["logs_truncated"] is False


@pytest.mark.parametrize("source", ["sleeper", "spinner", "escapes", "fork_bomb"])
def test_never_returns(platform, source):
    name = platform.wait_function(source, timeout=1, pids=32)
    began = time.monotonic()
    r = platform.call(name)
    assert time.monotonic() - began < 8
    record = failed(platform, r, 504, "timeout", "timeout", "timeout")
    # The deadline starts before the sandbox is built, the usage after.
    assert 900_000 <= record["usage"]["wall_us"] < 2_500_000
    nothing_runs(platform)


@pytest.mark.slow
def test_forks_until_it_may_not(platform):
    name = platform.wait_function("fork_bomb", pids=16, timeout=20)
    r = platform.call(name, "return")
    assert (r.status_code, r.json()) == (200, "no more processes")
    nothing_runs(platform)


def test_leaves_daemons(platform):
    before = len(platform.sandboxes())
    name = platform.wait_function("escapes")
    r = platform.call(name, "return")
    assert (r.status_code, r.json()) == (200, "gone on without me")
    nothing_runs(platform)
    wait_for(lambda: len(platform.sandboxes()) <= max(before, 8), what="the daemons' end")


@pytest.mark.parametrize("how, word", [("sys.exit", "SystemExit"), (3, "3"), (0, "0"),
                                       ("signal", "SEGV"), ("parent", "")])
def test_exits(platform, how, word):
    name = platform.wait_function("exits")
    r = platform.call(name, how)
    if how == "parent" and r.status_code == 200:  # what it killed was not there to be killed
        assert r.json() == "parent lives"
        return
    detail = platform.problem(r, 502, "function_failed")
    assert word in detail or word == "SEGV" and "11" in detail, detail


def test_closes_its_descriptors(platform):
    name = platform.wait_function("closes")
    r = platform.call(name)
    if r.status_code == 200:
        assert r.json() == "closed"
    else:
        assert "before it answered" in platform.problem(r, 502, "function_failed")


def test_returns_what_json_cannot_hold(platform):
    r = platform.call(platform.wait_function("not_json"))
    detail = platform.problem(r, 502, "function_failed")
    assert "set" in detail


@pytest.mark.parametrize("value", ["float('nan')", "{1: {2: object()}}", "'\\ud800'", "lambda: 1",
                                   "(lambda a: a.append(a) or a)([])"])
def test_other_values_without_json(platform, value):
    r = platform.call(platform.wait_function(f"def main(payload=None):\n    return {value}\n"))
    platform.problem(r, 502, "function_failed")


def test_attacks_its_own_runtime(platform):
    """Writes garbage to every descriptor it finds, and kills everything it can see."""
    garbage = platform.wait_function('''
import os


def main(payload=None):
    for fd in range(3, 1024):
        try:
            os.write(fd, b'{"v":1,"type":"result","ok":true,"bytes":99999999999}\\n' * 100)
        except OSError:
            pass
    return "written"
''')
    r = platform.call(garbage)
    assert r.status_code in (200, 502), r.text
    killer = platform.wait_function('''
import os


def main(payload=None):
    os.kill(-1, 9)
    os.kill(1, 9)
    return "alive"
''')
    r = platform.call(killer)
    assert r.status_code in (200, 502), r.text
    assert platform.processes(root=True)


@pytest.mark.slow
def test_takes_no_more_cpu_than_it_may(platform):
    name = platform.wait_function("spinner", cpus=0.2, timeout=20)
    r = platform.call(name, 1.5)
    record = platform.ended(r.headers["Pratai-Event-Id"])
    assert r.status_code == 200
    assert record["usage"]["cpu_us"] < 0.6 * record["usage"]["wall_us"]


def test_no_file_of_it_is_left(platform):
    nothing_runs(platform)
    assert not os.listdir(platform.state / "node/tmp")


def test_attempts_and_their_pauses(platform):
    """Twice more after the first, later each time; the count is the function's to see."""
    name = platform.create("fails_sometimes", retries=2)
    began = time.monotonic()
    good = platform.send(name, 2)
    record = platform.ended(good)
    assert (record["state"], record["attempts"], record["response"]) == ("succeeded", 2, 2)
    assert time.monotonic() - began > 0.7
    assert record["reason"] is None and record["error"] is None
    none = platform.create("fails_sometimes", retries=0)
    record = platform.ended(platform.send(none, 5))
    assert (record["state"], record["attempts"], record["reason"]) == ("dead", 1,
                                                                      "function_failed")
    assert record["error"]["type"] == "RuntimeError"


@pytest.mark.slow
def test_an_event_waits_for_its_retry(platform):
    name = platform.create("fails_sometimes", retries=3)
    event = platform.send(name, 3)
    seen = wait_for(lambda: (e := platform.event(event))["retry_at"] and e,
                    what="a retry that waits")
    assert seen["state"] == "queued" and seen["attempts"] >= 1
    record = platform.ended(event)
    assert (record["state"], record["attempts"]) == ("succeeded", 3)


@pytest.mark.slow
def test_dead_after_its_last_attempt(platform):
    name = platform.create("fails", retries=2)
    event = platform.send(name, 1)
    record = platform.ended(event)
    assert (record["state"], record["attempts"], record["reason"]) == ("dead", 3,
                                                                      "function_failed")
    # 1 s and 2 s, a quarter less or more.
    assert record["finished_at"] > record["created_at"]
    r = platform.http("GET", f"/v1/events/{event}/response")
    platform.problem(r, 502, "function_failed")


@pytest.mark.parametrize("source, payload, memory, reason", [
    ("memory_hog", None, 32, "memory_exceeded")])
def test_memory_is_not_tried_again(platform, source, payload, memory, reason):
    name = platform.create(source, memory=memory, retries=5)
    record = platform.ended(platform.send(name, payload))
    assert (record["state"], record["attempts"], record["reason"]) == ("dead", 1, reason)
