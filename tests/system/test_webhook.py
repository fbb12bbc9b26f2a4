"""The webhook over HTTP: what a body becomes, what an answer carries, what is too much."""
import json
import socket
import time
import uuid

import pytest
import requests

from conftest import END_STATES, wait_for

MIB = 1 << 20
PAYLOAD_MAX = 6 * MIB

# What main got: its type, and the value as Python shows it.
SHOW = '''
def main(payload="nothing"):
    if isinstance(payload, bytes) and len(payload) > 1000:
        return ["bytes", len(payload), payload.count(payload[0])]
    return [type(payload).__name__, repr(payload)]
'''


@pytest.fixture(scope="module")
def show(platform):
    return platform.wait_function(SHOW)


@pytest.mark.parametrize("body, kind, shown", [
    (b'{"payload": {"a": [1, null]}}', "dict", "{'a': [1, None]}"),
    (b' { "payload" : "x" } ', "str", "'x'"),
    (b'{"payload": null}', "NoneType", "None"),
    (b'{"payload": 1, "more": 2}', "dict", "{'payload': 1, 'more': 2}"),
    (b'{"other": 1}', "dict", "{'other': 1}"),
    (b"[1, 2]", "list", "[1, 2]"),
    (b"12345678901234567890123", "int", "12345678901234567890123"),
    (b'{"payload": 0.1000000000000000055511151231257827}', "float", "0.1"),
    (b"1e400", "float", "inf"),
    (b'"\\u00fc\\ud83d\\ude00"', "str", "'ü😀'"),
    ("grüße".encode(), "str", "'grüße'"),
    (b"{not json", "str", "'{not json'"),
    (b"NaN", "str", "'NaN'"),
    (b"\xff\xfe\x00", "bytes", "b'\\xff\\xfe\\x00'"),
    (b"null", "NoneType", "None"),
    (b"", "str", "'nothing'"),
])
def test_what_a_body_becomes(platform, show, body, kind, shown):
    r = platform.http("POST", f"/v1/functions/{show}", data=body)
    assert (r.status_code, r.json()) == (200, [kind, shown])


def test_digits_are_kept_in_the_payload(platform):
    """The payload is cut out as bytes: not parsed and printed again."""
    body = b'{"payload": {"n" : 1.00000000000000000001,  "big":123456789012345678901234567890}}'
    name = platform.create("echo")
    event = platform.send(name, body)
    r = platform.http("GET", f"/v1/events/{event}/payload")
    assert r.content == b'{"n" : 1.00000000000000000001,  "big":123456789012345678901234567890}'
    assert r.headers["Content-Type"].startswith("application/json")
    record = platform.ended(event)
    assert record["payload_bytes"] == len(r.content)


def test_what_an_answer_carries(platform, echo):
    r = platform.call(echo, {"a": 1})
    assert r.status_code == 200 and r.headers["Content-Type"] == "application/json"
    assert r.headers["Pratai-State"] == "succeeded"
    assert r.headers["Pratai-Start"] in ("cold", "zygote", "spare", "preload")
    assert r.headers["Pratai-Node"]
    event = uuid.UUID(r.headers["Pratai-Event-Id"])
    assert event.version == 7 and abs((event.int >> 80) / 1000 - time.time()) < 60
    for name in ("Duration-Us", "Cpu-Us", "Memory-Peak-Bytes"):
        assert 0 < int(r.headers["Pratai-" + name]) < 1 << 40, name
    record = platform.ended(str(event))
    assert record["usage"] == {"wall_us": int(r.headers["Pratai-Duration-Us"]),
                               "cpu_us": int(r.headers["Pratai-Cpu-Us"]),
                               "memory_peak_bytes": int(r.headers["Pratai-Memory-Peak-Bytes"])}


def test_accepted_then_asked_for(platform):
    name = platform.create("echo")
    r = platform.call(name, {"a": 1})
    event = r.json()["event_id"]
    assert r.status_code == 202
    assert r.headers["Location"].startswith(f"/v1/events/{event}")
    assert r.headers["Pratai-Event-Id"] == event and r.headers["Pratai-State"] == "queued"
    r = platform.http("GET", f"/v1/events/{event}/response?wait=30")
    assert (r.status_code, r.json()) == (200, {"a": 1})
    assert r.headers["Pratai-State"] == "succeeded"
    r = platform.http("GET", f"/v1/events/{event}/response")
    assert (r.status_code, r.json()) == (200, {"a": 1})


def test_a_response_that_is_not_there_yet(platform):
    name = platform.create("sleeper", timeout=2, retries=0)
    event = platform.send(name, 60)
    began = time.monotonic()
    r = platform.http("GET", f"/v1/events/{event}/response?wait=1")
    assert r.status_code == 202 and 0.9 < time.monotonic() - began < 10
    assert r.json()["event_id"] == event and r.json()["state"] in ("queued", "running")
    r = platform.http("GET", f"/v1/events/{event}/response?wait=30")
    platform.problem(r, 504, "timeout")
    for wait in ("-1", "x", "100000"):
        r = platform.http("GET", f"/v1/events/{event}/response?wait={wait}")
        platform.problem(r, 400, "invalid_request")


def test_an_idempotency_key(platform):
    name, other = platform.create("echo"), platform.create("echo")
    key = {"Idempotency-Key": uuid.uuid4().hex}
    first = platform.send(name, 1, headers=key)
    assert platform.send(name, 1, headers=key) == first
    assert platform.send(other, 1, headers=key) != first
    assert platform.send(name, 1) != first
    platform.problem(platform.call(name, 2, headers=key), 409, "conflict")
    platform.ended(first)
    assert platform.send(name, 1, headers=key) == first
    for bad in ("k" * 300, "a\tb"):
        platform.problem(platform.call(name, 1, headers={"Idempotency-Key": bad}), 400,
                         "invalid_request")


def test_a_largest_payload(platform, show, serves):
    body = b"\xfe" + b"\xff" * (PAYLOAD_MAX - 2) + b"\xfe"
    r = platform.http("POST", f"/v1/functions/{show}", data=body)
    assert (r.status_code, r.json()) == (200, ["bytes", PAYLOAD_MAX, 2])
    text = json.dumps({"payload": "x" * (PAYLOAD_MAX - 15)}).encode()
    assert len(text) == PAYLOAD_MAX
    r = platform.http("POST", f"/v1/functions/{show}", data=text)
    assert r.status_code == 200 and r.json()[0] == "str"


def test_largest_answers(platform, serves):
    name = platform.wait_function("large_answer")
    r = platform.call(name, PAYLOAD_MAX)
    assert r.status_code == 200 and len(r.content) == PAYLOAD_MAX
    assert r.headers["Content-Type"] == "application/octet-stream"
    r = platform.call(name, PAYLOAD_MAX + 1)
    assert "6291456" in platform.problem(r, 502, "function_failed")


def raw(platform, name, headers, pieces, seconds=30):
    """Sends everything before it reads, as simple clients do; the answer's bytes."""
    host, port = platform.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as s:
        s.sendall((f"POST /v1/functions/{name} HTTP/1.1\r\nHost: {host}\r\n"
                   f"X-Auth-Token: {platform.token}\r\n{headers}\r\n").encode())
        for piece in pieces:
            s.sendall(piece)
        answer = b""
        while b"\r\n\r\n" not in answer and (more := s.recv(65536)):
            answer += more
        return answer


def test_too_large_for_who_asks_first(platform, echo, serves):
    answer = raw(platform, echo, f"Content-Length: {PAYLOAD_MAX + 1}\r\n"
                                 "Expect: 100-continue\r\n", [])
    assert answer.startswith(b"HTTP/1.1 413")
    answer = raw(platform, echo, "Content-Length: 0\r\nExpect: 100-continue\r\n", [])
    assert answer.startswith((b"HTTP/1.1 100", b"HTTP/1.1 200"))


@pytest.mark.parametrize("how", ["length", "chunked", "requests"])
def test_too_large_for_who_sends_before_it_reads(platform, echo, how, serves):
    block = b"x" * MIB
    if how == "length":
        answer = raw(platform, echo, f"Content-Length: {PAYLOAD_MAX + 1}\r\n",
                     [block] * 6 + [b"x"])
    elif how == "chunked":
        chunk = b"%x\r\n%s\r\n" % (len(block), block)
        answer = raw(platform, echo, "Transfer-Encoding: chunked\r\n",
                     [chunk] * 7 + [b"0\r\n\r\n"])
    else:
        r = platform.http("POST", f"/v1/functions/{echo}", data=b"x" * (PAYLOAD_MAX + 1))
        platform.problem(r, 413, "too_large")
        return
    assert answer.startswith(b"HTTP/1.1 413"), answer[:100]
    assert b"application/problem+json" in answer


def test_an_answer_of_its_own(platform):
    name = platform.wait_function("http")
    r = platform.call(name)
    assert (r.status_code, r.text) == (200, "<p>hello</p>")
    assert r.headers["Content-Type"] == "text/html" and r.headers["X-Mine"] == "yes"
    r = platform.call(name, {"status": 418, "headers": {}, "body": {"short": "stout"}})
    assert (r.status_code, r.json()) == (418, {"short": "stout"})
    assert r.headers["Pratai-State"] == "succeeded"
    r = platform.call(name, {"status": 302, "headers": {"Location": "https://example.org/"}},
                      allow_redirects=False)
    assert r.status_code == 302 and r.headers["Location"] == "https://example.org/"
    many = {f"X-{i}": str(i) for i in range(64)}
    assert many.items() <= dict(platform.call(name, {"headers": many}).headers).items()


def test_headers_that_are_not_its_to_set(platform, serves):
    name = platform.wait_function("http")
    for headers in ({"X-Bad": "a\r\nInjected: yes"}, {"Bad Name": "x"}, {"X\r\nInjected": "y"},
                    {"Pratai-State": "dead"}, {"pratai-state": "dead"}, {"Content-Length": "1"},
                    {"Transfer-Encoding": "chunked"}):
        r = platform.call(name, {"headers": headers, "body": "text"})
        assert "Injected" not in r.headers, headers
        assert r.headers["Pratai-State"] in ("succeeded", "failed")
        if r.status_code == 200:
            assert r.text == "text"
        else:
            platform.problem(r, 502, "function_failed")
    for status in (99, 1000, "x", None, 2.5, 101):
        r = platform.call(name, {"status": status})
        platform.problem(r, 502, "function_failed")


def test_all_its_headers_arrive(platform):
    name = platform.wait_function("http")
    mine = {f"X-Mine-{n}": "v" for n in range(64)}
    r = platform.call(name, {"headers": mine, "body": ""})
    assert r.status_code == 200 and mine.items() <= r.headers.items()


def test_bytes_out(platform):
    r = platform.call(platform.wait_function("binary"))
    assert r.content == bytes(range(256))
    assert r.headers["Content-Type"] == "application/octet-stream"


def test_many_on_one_connection(platform, echo):
    with requests.Session() as s:
        s.headers["X-Auth-Token"] = platform.token
        for n in range(20):
            r = s.post(f"{platform.url}/v1/functions/{echo}", json=n, timeout=30)
            assert (r.status_code, r.json()) == (200, n)


@pytest.mark.slow
def test_a_caller_that_leaves(platform, serves):
    """Its event is run, ended and recorded all the same."""
    name = platform.wait_function("sleeper")
    with pytest.raises(requests.exceptions.Timeout):
        platform.call(name, 1.5, timeout=0.3)
    record = wait_for(lambda: [e for e in platform.get(f"/v1/events?function={name}")["items"]
                               if e["state"] in END_STATES], what="the end of the event")
    assert record[0]["state"] in ("succeeded", "cancelled")
