"""function-execute: payloads byte for byte, answers as they are, failures as exit 3."""
import json

import pytest

DONE = {"Pratai-State": "succeeded", "Pratai-Event-Id": "e1"}
PENDING = (202, {"event_id": "e1", "state": "running"})


@pytest.mark.parametrize("data, kind", [
    ('{"payload": {"n": 12345678901234567890}}', "application/json"),
    ("[1, 2]", "application/json"),
    ("plain text, ü", "text/plain; charset=utf-8"),
    ("{not json", "text/plain; charset=utf-8"),
    ("", None),
])
def test_data_goes_as_it_is(plane, data, kind):
    plane.on("POST", "/v1/functions/f", (200, b"ok", DONE))
    assert plane.run("function-execute", "f", "--data", data).out == "ok"
    assert plane.requests[0].body == data.encode()
    assert plane.requests[0].headers["Content-Type"] == kind


def test_bytes_from_a_file_and_from_stdin(plane, tmp_path):
    plane.on("POST", "/v1/functions/f", lambda q: (200, q.body, DONE))
    data = bytes(range(256)) * 20000
    (tmp_path / "payload").write_bytes(data)
    assert plane.run("function-execute", "f", "--file", str(tmp_path / "payload")).out_bytes == data
    assert plane.run("function-execute", "f", "--file", "-", stdin=data).out_bytes == data
    assert plane.requests[0].headers["Content-Type"] == "application/octet-stream"


def test_no_payload(plane):
    plane.on("POST", "/v1/functions/f", (200, b"null", DONE))
    assert plane.run("function-execute", "f").out == "null"
    assert plane.requests[0].body == b""


@pytest.mark.parametrize("status", [200, 202, 204, 404, 500])
def test_a_functions_own_status_is_no_failure(plane, status):
    plane.on("POST", "/v1/functions/f", (status, b"" if status == 204 else b"mine", DONE))
    r = plane.run("function-execute", "f", "--wait")
    assert r.code == 0 and r.err == ""
    assert r.out == ("" if status == 204 else "mine")


def test_async_prints_the_event(plane):
    plane.on("POST", "/v1/functions/f", (202, {"event_id": "e1"}, {"Location": "/v1/events/e1"}))
    assert "| /v1/events/e1 |" in plane.run("function-execute", "f").out
    assert plane.run("function-execute", "f", "--only-id").out == "e1\n"
    assert json.loads(plane.run("function-execute", "f", "-f", "json").out)["event_id"] == "e1"


def test_async_waited_for(plane):
    plane.on("POST", "/v1/functions/f", (202, {"event_id": "e1"}, {"Pratai-State": "queued"}))
    plane.on("GET", "/v1/events/e1/response", PENDING, (503, {"type": "not_ready"}), PENDING,
             (200, b'{"done": 1.0}', DONE))
    r = plane.run("function-execute", "f", "--wait")
    assert r.code == 0 and r.out == '{"done": 1.0}' and r.err == ""
    assert "wait=30" in plane.requests[-1].path


TRACE = "Traceback (most recent call last):\n  File \"/function/main.py\"\nValueError: no \x1b[1m\n"
FAILED = {"type": "function_failed", "title": "ValueError", "status": 502, "detail": TRACE,
          "message": "no", "event_id": "e1"}


@pytest.mark.parametrize("wait", [False, True])
def test_a_failure_is_exit_3_with_the_traceback(plane, wait):
    failure = (502, FAILED, {"Pratai-State": "failed"})
    if wait:
        plane.on("POST", "/v1/functions/f", (202, {"event_id": "e1"}))
        plane.on("GET", "/v1/events/e1/response", failure)
    else:
        plane.on("POST", "/v1/functions/f", failure)
    r = plane.run("function-execute", "f", *(["--wait"] if wait else []))
    assert r.code == 3 and r.out == ""
    lines = r.err.splitlines()
    assert lines[0] == "pratai: function_failed: ValueError: no"
    assert lines[1].startswith("Traceback") and "\x1b" not in r.err


@pytest.mark.parametrize("kind, status, code", [
    ("memory_exceeded", 502, 3), ("output_exceeded", 502, 3), ("timeout", 504, 3),
    ("node_lost", 502, 1), ("no_node", 503, 1), ("queue_full", 429, 1), ("build_failed", 409, 1),
    ("not_found", 404, 1), ("too_large", 413, 1),
])
def test_whose_fault_it_is(plane, kind, status, code):
    plane.on("POST", "/v1/functions/f",
             (status, {"type": kind, "title": kind, "status": status, "detail": "so it is"}))
    r = plane.run("function-execute", "f", "--data", "1")
    assert r.code == code and r.out == ""
    assert r.err.startswith("pratai: ")


def test_an_answer_of_something_else(plane):
    plane.on("POST", "/v1/functions/f", (202, {"hello": "world"}))
    r = plane.run("function-execute", "f")
    assert r.code == 1 and "OS_PRATAI_URL" in r.err
