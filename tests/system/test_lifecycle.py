"""Functions and events as records: made, changed, listed, deleted."""
import re
import threading

import pytest

from conftest import END_STATES, make_zip, wait_for

RECORD = {
    "function_id": str, "name": str, "project_id": str, "tenant_id": str, "user_id": str,
    "description": str, "tags": list, "state": str, "state_reason": (str, type(None)),
    "version": int, "runtime": str, "image": str, "type": str, "event": str,
    "subscribe_to": type(None), "frequency": (int, type(None)), "cron": type(None),
    "timezone": type(None), "source": type(None), "endpoint": type(None), "public": bool,
    "memory": int, "cpus": (int, float), "pids": int, "timeout": int, "tmp_size": int,
    "limit": (int, type(None)), "retries": int, "network": str, "env": dict, "secrets": list,
    "package_digest": str, "package_bytes": int, "created_at": str, "updated_at": str,
}
EVENT = {
    "event_id": str, "project_id": str, "function_id": str, "function_name": str,
    "function_version": int, "source": str, "type": str, "state": str, "attempts": int,
    "reason": (str, type(None)), "node_id": (str, type(None)), "parent_event_id": type(None),
    "root_event_id": str, "created_at": str, "queued_at": str, "started_at": str,
    "finished_at": str, "timeline_us": dict, "payload_bytes": int,
    "response_content_type": (str, type(None)), "logs_bytes": int, "logs_truncated": bool,
    "usage": dict, "error": (dict, type(None)),
}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
ANSWER = "def main(payload=None):\n    import time\n    time.sleep(%s)\n    return %r\n"


def check(record, shape):
    for name, kind in shape.items():
        assert name in record, name
        assert isinstance(record[name], kind), (name, record[name])
        if name.endswith("_at"):
            assert TIME.fullmatch(record[name]), record[name]


def test_a_functions_record(platform):
    name = platform.create("echo", description="text", tags=["a", "b"], env={"K": "v"})
    f = platform.get(f"/v1/functions/{name}")
    check(f, RECORD)
    assert (f["tags"], f["env"], f["tenant_id"]) == (["a", "b"], {"K": "v"}, f["project_id"])
    assert (f["memory"], f["timeout"], f["cpus"], f["pids"]) == (128, 60, 1, 64)
    assert (f["tmp_size"], f["retries"], f["network"], f["limit"]) == (64, 2, "none", None)
    assert re.fullmatch("[0-9a-f]{64}", f["package_digest"]) and f["version"] == 1
    assert platform.get(f"/v1/functions/{f['function_id']}") == f
    made = platform.upload({"name": name + "-2"}, "echo")
    assert made.status_code == 201 and made.json()["state"] in ("building", "ready")
    assert made.headers["Location"] == "/v1/functions/" + made.json()["function_id"]


def test_an_events_record(platform):
    name = platform.create("logs")
    record = platform.ended(platform.send(name, {"n": 1}))
    check(record, EVENT)
    assert set(record["timeline_us"]) == {"accept", "persist", "queue", "sandbox", "import", "run",
                                          "collect"}
    assert all(isinstance(v, int) for v in record["timeline_us"].values()), record["timeline_us"]
    assert record["created_at"] <= record["queued_at"] <= record["started_at"] \
        <= record["finished_at"]
    assert record["response"] == "logged" and record["root_event_id"] == record["event_id"]
    assert record["payload_bytes"] == len('{"n": 1}') and record["node_id"]


def test_lists_and_their_filters(platform):
    good, bad = platform.create("echo"), platform.create("fails", retries=0)
    ids = [platform.send(good, {"needle": n}) for n in range(5)]
    failed = platform.send(bad, 1)
    assert platform.ended(failed)["response"] is None  # of one without, too
    for e in ids + [failed]:
        platform.ended(e)
    items = platform.get(f"/v1/events?function={good}")["items"]
    assert [e["event_id"] for e in items] == ids[::-1]
    first = platform.get(f"/v1/events?function={good}&limit=2")
    second = platform.get(f"/v1/events?function={good}&limit=3&cursor={first['next']}")
    assert [e["event_id"] for e in first["items"] + second["items"]] == ids[::-1]
    newest = platform.get("/v1/events?state=dead&limit=1")["items"]
    assert [e["event_id"] for e in newest] == [failed]
    assert platform.get(f"/v1/events?function={bad}&state=succeeded")["items"] == []
    since = platform.event(ids[3])["created_at"]
    found = platform.get(f"/v1/events?function={good}&since={since}")["items"]
    assert {e["event_id"] for e in found} == set(ids[3:])
    assert platform.get(f"/v1/events?function={bad}&source=timer")["items"] == []
    r = platform.ok("event-list", "--function", bad, "--state", "dead", "-f", "value",
                    "-c", "state", "-c", "reason")
    assert r.out.split() == ["dead", "function_failed"]
    found = platform.ok("event-list", "--query", "ValueError", "--only-id").out.split()
    assert failed in found


def test_an_update_while_the_old_one_serves(platform):
    """Callers never see anything but the one or the other."""
    name = platform.wait_function(ANSWER % (0, "old"))
    answers, stop = [], threading.Event()

    def calls():
        while not stop.is_set():
            r = platform.call(name)
            answers.append((r.status_code, r.text))
    t = threading.Thread(target=calls)
    t.start()
    try:
        wait_for(lambda: answers, what="an answer")
        r = platform.upload({}, ANSWER % (0, "new"), "PATCH", f"/v1/functions/{name}")
        assert r.status_code == 200, r.text
        wait_for(lambda: answers[-1] == (200, '"new"'), what="the new version")
    finally:
        stop.set()
        t.join()
    assert set(answers) == {(200, '"old"'), (200, '"new"')}
    assert platform.get(f"/v1/functions/{name}")["version"] == 2


def test_a_broken_update_changes_nothing(platform):
    name = platform.wait_function("echo")
    r = platform.upload({}, "syntax_error", "PATCH", f"/v1/functions/{name}")
    assert r.status_code == 200
    f = platform.settled(name)
    assert f["state"] == "failed" and f["version"] == 1 and f["state_reason"]
    assert platform.call(name, 5).json() == 5
    r = platform.upload({"memory": 96}, "echo", "PATCH", f"/v1/functions/{name}")
    f = platform.settled(name)
    assert (f["state"], f["version"], f["memory"]) == ("ready", 3, 96)


def test_update_by_the_command_line(platform, tmp_path):
    name = platform.wait_function("echo", description="before", env={"A": "1"})
    made = platform.ok("function-update", name, "--description", "after", "-f", "json").json()
    assert (made["description"], made["version"], made["env"]) == ("after", 1, {"A": "1"})
    made = platform.ok("function-update", name, "--timeout", "7", "--env", "B=2",
                       "-f", "json").json()
    assert (made["timeout"], made["version"], made["env"]) == (7, 2, {"B": "2"})
    (tmp_path / "main.py").write_text("def main(payload=None):\n    return 'updated'\n")
    platform.ok("function-update", name, "--file", tmp_path)
    assert platform.call(name).json() == "updated"
    for words in (["--memory", "5"], ["--type", "nope"], ["--timeout", "0"]):
        r = platform.cli("function-update", name, *words)
        assert r.code in (1, 2) and r.err.count("\n") == 1, r.err
    assert platform.call(name).json() == "updated"


def test_delete(platform):
    name = platform.wait_function("echo")
    event = platform.call(name, 1).headers["Pratai-Event-Id"]
    platform.ended(event)
    assert platform.http("DELETE", f"/v1/functions/{name}").status_code == 204
    for method in ("GET", "POST", "DELETE"):
        platform.problem(platform.http(method, f"/v1/functions/{name}"), 404, "not_found")
    assert platform.event(event)["state"] == "succeeded"
    again = platform.wait_function("echo", name=name)
    assert platform.call(again, 2).json() == 2


def test_delete_with_events_in_the_queue(platform):
    """What runs may end; what waits is cancelled; all is recorded."""
    name = platform.create("sleeper", limit=1)
    events = [platform.send(name, 0.5) for _ in range(6)]
    wait_for(lambda: platform.event(events[0])["state"] == "running", what="a start")
    platform.ok("function-delete", name)
    states = [platform.ended(e)["state"] for e in events]
    assert set(states) <= {"succeeded", "cancelled"} and "cancelled" in states, states


@pytest.mark.slow
def test_events_wait_for_the_first_version(platform):
    """async ones queue, wait_for_response ones wait."""
    source = make_zip({"main.py": "import six\ndef main(payload=None):\n    return payload\n",
                       "requirements.txt": "six==1.16.0\n"})
    r = platform.upload({"name": "early"}, source)
    assert r.status_code == 201
    early = platform.send("early", 1)
    r = platform.upload({"name": "early-wait", "type": "wait_for_response"}, source)
    assert r.status_code == 201
    answer = platform.call("early-wait", 2, timeout=90)
    assert (answer.status_code, answer.json()) == (200, 2)
    assert platform.ended(early, 90)["response"] == 1


@pytest.mark.slow
def test_a_limit_of_one_at_a_time(platform):
    name = platform.create(ANSWER % (0.2, 1), limit=1)
    events = [platform.send(name) for _ in range(5)]
    records = sorted((platform.ended(e) for e in events), key=lambda e: e["started_at"])
    assert {e["state"] for e in records} == {"succeeded"} <= END_STATES
    for one, after in zip(records, records[1:]):
        assert after["started_at"] >= one["finished_at"][:-4]
