"""function-create and -update: what is sent, and how a build is waited for."""
import email.parser
import email.policy
import io
import json
import os
import zipfile

import pytest

MADE = {"function_id": "01", "name": "f", "state": "building", "version": 1}
READY = {**MADE, "state": "ready"}


def parts(request):
    head = b"Content-Type: " + request.headers["Content-Type"].encode() + b"\r\n\r\n"
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + request.body)
    return {p.get_param("name", header="content-disposition"): p.get_payload(decode=True)
            for p in message.iter_parts()}


def sent(plane):
    found = parts(plane.requests[0])
    return json.loads(found["metadata"]), zipfile.ZipFile(io.BytesIO(found["zip_file"]))


@pytest.fixture
def taker(plane):
    plane.on("POST", "/v1/functions", (201, MADE))
    plane.on("PATCH", "/v1/functions/f", (200, MADE))
    plane.on("GET", "/v1/functions/01/build",
             (200, {"version": 1, "state": "building", "state_reason": None, "log": ""}),
             (200, {"version": 1, "state": "ready", "state_reason": None, "log": ""}))
    plane.on("GET", "/v1/functions/01", (200, READY))
    return plane


@pytest.fixture
def code(tmp_path):
    (tmp_path / "main.py").write_text("def main(payload=None):\n    return payload\n")
    return tmp_path


def test_metadata(taker, code):
    r = taker.run("function-create", "f", "--file", str(code), "--description", "für \"Elise\"",
                  "--memory", "256", "--cpus", "0.5", "--pids", "9", "--timeout", "5",
                  "--tmp-size", "10", "--limit", "2", "--retries", "0", "--type",
                  "wait_for_response", "--event", "timer", "--frequency", "3", "--runtime",
                  "python3", "--network", "none", "--env", "A=1", "--env", "B=x=y", "--env", "A=2",
                  "--tags", "a,b", "--tags", "c,")
    assert r.code == 0 and r.err == ""
    assert sent(taker)[0] == {
        "name": "f", "description": 'für "Elise"', "memory": 256, "cpus": 0.5, "pids": 9,
        "timeout": 5, "tmp_size": 10, "limit": 2, "retries": 0, "type": "wait_for_response",
        "event": "timer", "frequency": 3, "runtime": "python3", "network": "none",
        "env": {"A": "2", "B": "x=y"}, "tags": ["a", "b", "c"]}


def test_out_of_range_is_the_control_planes_business(plane, code):
    plane.on("POST", "/v1/functions", (400, {"type": "invalid_request", "detail": "memory: no"}))
    for value in ("0", "-1", "1000000000"):
        r = plane.run("function-create", "f", "--file", str(code), "--memory", value)
        assert r.code == 1 and r.err == "pratai: memory: no\n"


def test_create_waits_until_it_is_built(taker, code):
    r = taker.run("function-create", "f", "--file", str(code), "-f", "json")
    assert json.loads(r.out) == READY
    assert len([q for q in taker.requests if q.path.endswith("/build")]) == 2


def test_no_wait(taker, code):
    r = taker.run("function-create", "f", "--file", str(code), "--no-wait", "-f", "json")
    assert json.loads(r.out) == MADE
    assert len(taker.requests) == 1


def test_a_failed_build_shows_its_end(taker, code):
    log = "".join(f"line {i}\n" for i in range(100))
    taker.on("GET", "/v1/functions/01/build",
             (200, {"version": 1, "state": "failed", "state_reason": "pip said no", "log": log}))
    r = taker.run("function-create", "f", "--file", str(code))
    assert r.code == 1 and r.out == ""
    lines = r.err.splitlines()
    assert lines[0] == "line 80" and lines[-2] == "line 99"
    assert lines[-1] == "pratai: the build of version 1 failed: pip said no"


def test_a_control_plane_that_is_away_for_a_moment(taker, code):
    taker.on("GET", "/v1/functions/01/build",
             (503, {"type": "store_unavailable", "detail": "busy"}),
             (200, {"version": 1, "state": "ready", "state_reason": None, "log": ""}))
    assert taker.run("function-create", "f", "--file", str(code)).code == 0


def test_update_sends_only_what_is_given(taker, code):
    assert taker.run("function-update", "f", "--memory", "64").code == 0
    assert taker.requests[0].headers["Content-Type"] == "application/json"
    assert taker.requests[0].json() == {"memory": 64}


def test_update_with_code(taker, code):
    assert taker.run("function-update", "f", "--file", str(code)).code == 0
    metadata, package = sent(taker)
    assert metadata == {} and package.namelist() == ["main.py"]


def test_a_zip_goes_as_it_is(taker, tmp_path):
    data = os.urandom(3 << 20)
    (tmp_path / "f.zip").write_bytes(data)
    taker.run("function-create", "f", "--zip", str(tmp_path / "f.zip"), "--no-wait")
    assert parts(taker.requests[0])["zip_file"] == data
    taker.run("function-create", "f", "--file", "-", "--no-wait", stdin=b"from stdin")
    assert parts(taker.requests[1])["zip_file"] == b"from stdin"


def test_an_empty_file_is_refused(client, tmp_path):
    (tmp_path / "f.zip").write_bytes(b"")
    r = client("function-create", "f", "--file", str(tmp_path / "f.zip"))
    assert r.code == 2 and "empty" in r.err


def test_a_directory_becomes_a_zip(taker, code):
    (code / "pkg").mkdir()
    (code / "pkg" / "__init__.py").write_text("")
    (code / "pkg" / "é.txt").write_text("x" * 100000)
    (code / "run.sh").write_text("#!/bin/sh\n")
    (code / "run.sh").chmod(0o700)
    (code / "alias.py").symlink_to("main.py")
    (code / "empty").mkdir()
    for left_out in (".git", "__pycache__", "pkg/__pycache__"):
        (code / left_out).mkdir()
        (code / left_out / "x").write_text("x")
    assert taker.run("function-create", "f", "--file", str(code), "--no-wait").code == 0
    package = sent(taker)[1]
    assert package.namelist() == ["alias.py", "main.py", "pkg/__init__.py", "pkg/é.txt", "run.sh"]
    assert package.testzip() is None
    assert package.read("alias.py") == package.read("main.py")
    modes = {i.filename: i.external_attr >> 16 & 0o777 for i in package.infolist()}
    assert modes["run.sh"] == 0o755 and modes["main.py"] == 0o644


def test_the_same_directory_is_the_same_zip(taker, code):
    for _ in range(2):
        taker.run("function-create", "f", "--file", str(code), "--no-wait")
        os.utime(code / "main.py", (1, 1))
    first, second = (parts(q)["zip_file"] for q in taker.requests)
    assert first == second


@pytest.mark.parametrize("what, says", [
    (lambda d: (d / "x").symlink_to("/etc/passwd"), "leads out"),
    (lambda d: (d / "x").symlink_to("../../etc/passwd"), "leads out"),
    (lambda d: (d / "x").symlink_to("."), "link to a directory"),
    (lambda d: (d / "x").symlink_to("nothing"), "x: cannot open"),
    (lambda d: (d / "x").symlink_to("x"), "x: cannot open"),
    (lambda d: os.mkfifo(d / "x"), "neither a file nor a directory"),
    (lambda d: os.close(os.open(os.fsencode(d) + b"/\xff", os.O_CREAT)), "not UTF-8"),
    (lambda d: os.truncate(os.open(d / "x", os.O_CREAT | os.O_RDWR), 1 << 40), "MiB in all"),
    (lambda d: os.makedirs(d / "/".join(["d"] * 70)), "nested deeper"),
])
def test_what_a_package_cannot_hold(client, code, what, says):
    what(code)
    r = client("function-create", "f", "--file", str(code))
    assert r.code == 2 and r.err.count("\n") == 1
    assert says in r.err


def test_a_zip_over_the_limit(client, code):
    with open(code / "noise", "wb") as f:
        for _ in range(65):
            f.write(os.urandom(1 << 20))
    r = client("function-create", "f", "--file", str(code), timeout=120)
    assert r.code == 2 and "64 MiB" in r.err
    r = client("function-create", "f", "--file", str(code / "noise"))
    assert r.code == 2 and "64 MiB" in r.err


def test_build_log(plane):
    plane.on("GET", "/v1/functions/f/build",
             (200, {"version": 2, "state": "ready", "state_reason": None, "log": "pip\nsays"}))
    assert plane.run("function-logs", "f", "--build").out == "pip\nsays\n"
    r = plane.run("function-logs", "f", "--build", "-f", "json")
    assert json.loads(r.out)["version"] == 2


def test_function_logs_oldest_first(plane):
    plane.on("GET", "/v1/events", (200, {"items": [{"event_id": "new"}, {"event_id": "old"}],
                                         "next": None}))
    for name in ("new", "old"):
        plane.on("GET", f"/v1/events/{name}/logs",
                 (200, {"items": [{"t": "T", "s": "stdout", "l": "text"}], "next": None}))
    assert plane.run("function-logs", "f").out == "old T stdout text\nnew T stdout text\n"
    records = json.loads(plane.run("function-logs", "f", "-f", "json").out)
    assert records == [{"event_id": i, "t": "T", "s": "stdout", "l": "text"}
                       for i in ("old", "new")]
    assert plane.run("function-logs", "f", "-f", "csv", "-c", "event_id", "-c", "l").out \
        == "event_id,l\r\nold,text\r\nnew,text\r\n"
    plane.on("GET", "/v1/events", (200, {"items": [], "next": None}))
    assert json.loads(plane.run("function-logs", "f", "-f", "json").out) == []
