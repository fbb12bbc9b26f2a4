"""Versions: each change makes one, an event says which ran, and there is a way back."""
import json
import time

from conftest import package


def answer(value, wait=0):
    return f"import time\ndef main(payload=None):\n    time.sleep({wait})\n    return {value!r}\n"


def change(platform, name, source=None, **settings):
    platform.upload(settings, source or b"", "PATCH", f"/v1/functions/{name}") if source else \
        platform.http("PATCH", f"/v1/functions/{name}", data=json.dumps(settings),
                      headers={"Content-Type": "application/json"})
    return platform.settled(name)


def versions(platform, name):
    return {v["version"]: v for v in platform.ok("function-versions", name, "-f", "json").json()}


def test_back_to_a_version(platform):
    name = platform.wait_function(answer("first"), memory=64, env={"A": "1"}, description="old")
    change(platform, name, answer("second"), memory=96, env={"A": "2"})
    change(platform, name, description="new")  # makes none
    r = platform.call(name)
    assert r.json() == "second" and set(versions(platform, name)) == {1, 2}
    builds = [e for e in versions(platform, name).values() if e["serving"]]
    assert [v["version"] for v in builds] == [2]

    start = time.monotonic()
    record = platform.ok("function-rollback", name, "--to", "1", "-f", "json").json()
    assert (record["version"], record["state"], record["memory"], record["env"],
            record["description"]) == (3, "ready", 64, {"A": "1"}, "new")
    r = platform.call(name)
    assert r.json() == "first"
    assert time.monotonic() - start < 60
    assert platform.event(r.headers["Pratai-Event-Id"])["function_version"] == 3
    all_of_them = versions(platform, name)
    assert all_of_them[3]["serving"] and not all_of_them[1]["serving"]
    assert all_of_them[3]["package_digest"] == all_of_them[1]["package_digest"]
    assert all_of_them[3]["memory"] == 64 and all_of_them[2]["memory"] == 96
    assert platform.ok("function-versions", name, "--only-id").out.split() == ["1", "2", "3"]

    # And forward again, from there; then an update over it all.
    platform.ok("function-rollback", name, "--to", "2")
    assert platform.call(name).json() == "second"
    change(platform, name, answer("fifth"))
    assert platform.call(name).json() == "fifth" and set(versions(platform, name)) == {1, 2, 3, 4, 5}


def test_events_finish_on_their_version(platform):
    name = platform.create(answer("old", wait=2))
    event = platform.send(name)
    while platform.event(event)["state"] == "queued":
        time.sleep(0.02)
    change(platform, name, answer("new"))
    later = platform.send(name)
    assert platform.ended(later)["response"] == "new"
    old = platform.ended(event)
    assert (old["state"], old["response"], old["function_version"]) == ("succeeded", "old", 1)
    assert platform.event(later)["function_version"] == 2


def test_no_way_back(platform):
    name = platform.wait_function(answer("fine"))
    platform.upload({}, "def nothing(): pass\n", "PATCH", f"/v1/functions/{name}")
    assert platform.settled(name)["state"] == "failed"
    assert versions(platform, name)[2]["state"] == "failed" and versions(platform, name)[2]["state_reason"]
    for to, text in (("2", "version 2 is not ready: failed"), ("7", "there is no version 7")):
        r = platform.cli("function-rollback", name, "--to", to)
        assert r.code == 1 and text in r.err and r.err.count("\n") == 1
    for to in ("0", "x", "-1", "4294967296", "1.5"):
        r = platform.cli("function-rollback", name, "--to", to)
        assert r.code == 2 and r.err.count("\n") == 1
    assert platform.cli("function-rollback", name).code == 2
    for body in (b"", b"{}", b"[1]", b'{"version":0}', b'{"version":1.5}', b'{"version":"1"}',
                 b'{"version":1,"x":1}', b"{" * 700):
        platform.problem(platform.http("POST", f"/v1/functions/{name}/rollback", data=body), 400,
                         "invalid_request")
    platform.problem(platform.http("POST", "/v1/functions/nobody/rollback", data=b'{"version":1}'),
                     404, "not_found")
    platform.problem(platform.http("GET", "/v1/functions/nobody/versions"), 404, "not_found")
    # The one that serves can be made anew, which ends the failed one's story.
    assert platform.ok("function-rollback", name, "--to", "1", "-f", "json").json()["state"] == "ready"
    assert platform.call(name).json() == "fine"


def test_a_rollback_outlives_a_restart(new_platform):
    p = new_platform
    p.start()
    name = p.wait_function(answer("first"))
    change(p, name, answer("second"))
    p.ok("function-rollback", name, "--to", "1")
    p.end()
    p.start()
    assert p.call(name).json() == "first"
    assert versions(p, name)[3]["serving"]
