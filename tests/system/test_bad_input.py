"""What is wrong from outside: each a status, one clear sentence, and a platform that goes on."""
import io
import json
import socket
import subprocess
import zipfile

import pytest

from conftest import FUNCTIONS, make_zip, package

pytestmark = pytest.mark.usefixtures("serves")

GOOD = "def main(payload=None):\n    return payload\n"


def refused(platform, metadata, source="echo", words=(), status=400, kind="invalid_request"):
    """Asserts the refusal, and that no function was left."""
    before = len(platform.get("/v1/functions")["items"])
    detail = platform.problem(platform.upload(metadata, source), status, kind)
    assert "\n" not in detail.strip()
    for word in words:
        assert word in detail, detail
    assert len(platform.get("/v1/functions")["items"]) == before
    return detail


# ---- packages ----

def test_no_zip(platform):
    refused(platform, {"name": "no-zip"}, b"", ["zip_file"])


@pytest.mark.parametrize("content", [b"x", b"PK\x03\x04", b"\x1f\x8b" + b"\0" * 100,
                                     b"#!/usr/bin/python3\n" * 100, b"\0" * 70000])
def test_not_a_zip(platform, content):
    refused(platform, {"name": "not-zip"}, content, ["zip"])


def test_a_zip_that_is_cut(platform):
    whole = make_zip({"main.py": GOOD, "data": bytes(range(256)) * 100})
    for size in (len(whole) - 1, len(whole) // 2, 50):
        refused(platform, {"name": "cut"}, whole[:size])


@pytest.mark.parametrize("name", ["../outside.py", "/etc/absolute.py", "a/../../x", "a//../../x",
                                  "bad\x01name", "x" * 5000])
def test_names_in_a_zip(platform, name):
    detail = refused(platform, {"name": "bad-entry"}, make_zip({"main.py": GOOD, name: "x"}))
    assert name[:10] in detail or "\\" in detail or "name" in detail


def test_links_and_doubles_in_a_zip(platform):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr("main.py", GOOD)
        link = zipfile.ZipInfo("out")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        z.writestr(link, "../../../etc/passwd")
    refused(platform, {"name": "link-out"}, out.getvalue(), ["out"])
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr("main.py", GOOD)
        with pytest.warns(UserWarning):
            z.writestr("main.py", "other")
    refused(platform, {"name": "double"}, out.getvalue(), ["main.py"])


def test_a_bomb(platform):
    refused(platform, {"name": "bomb"}, make_zip({"main.py": GOOD, "zeros": b"\0" * (64 << 20)}),
            ["zeros"])


@pytest.mark.slow
def test_a_bomb_of_names(platform):
    refused(platform, {"name": "many"},
            make_zip({"main.py": GOOD, **{f"d/{n}": "" for n in range(70000)}}))


@pytest.mark.parametrize("source, words", [
    ("no_main", ["main"]),
    ("main_takes_nothing", ["payload"]),
    ("missing_module", ["not_installed_anywhere"]),
    ("syntax_error", ["main.py", "5"]),
    ({"other.py": GOOD}, ["main.py"]),
    ({"code/main.py": GOOD}, ["main.py"]),
    ("main = 5\n", ["main"]),
    (GOOD + "import sys\nsys.exit(3)\n", ["SystemExit"]),
    (GOOD + "raise RuntimeError('at import')\n", ["at import"]),
])
def test_code_that_cannot_run(platform, source, words):
    """Found by the build or at the first event, whichever can know: said clearly by both."""
    metadata = {"name": "cannot-run", "type": "wait_for_response"}
    r = platform.upload(metadata, source)
    assert r.status_code == 201, r.text
    f = platform.settled("cannot-run")
    r = platform.call("cannot-run", 1)
    if f["state"] == "failed":
        text = platform.problem(r, 409, "build_failed") + f["state_reason"]
    else:
        text = platform.problem(r, 502, "function_failed")
    for word in words:
        assert word in text, text
    platform.ok("function-delete", "cannot-run")


@pytest.mark.index
def test_requirements_that_do_not_exist(platform):
    r = platform.cli("function-create", "needs", "--file", FUNCTIONS / "needs_missing",
                     timeout=200)
    assert r.code == 1
    assert "this-package-does-not-exist-in-any-index" in r.err
    assert "this-package-does-not-exist" in platform.ok("function-logs", "needs", "--build").out
    platform.problem(platform.call("needs", 1), 409, "build_failed")
    platform.ok("function-delete", "needs")


# ---- metadata ----

@pytest.mark.parametrize("field, value", [
    ("memory", 0), ("memory", -1), ("memory", 1e9), ("memory", "abc"), ("memory", 15),
    ("memory", 8193), ("memory", 64.5), ("memory", None), ("memory", []), ("memory", 1e308),
    ("timeout", 0), ("timeout", 3601), ("timeout", "60"), ("cpus", 0), ("cpus", -0.5),
    ("pids", 0), ("tmp_size", 0), ("retries", -1), ("limit", 0), ("type", "sync"),
    ("runtime", "cobol"), ("runtime", ""), ("event", "smoke"), ("network", "host"),
    ("allow", "10.0.0.1"), ("allow", [1]), ("allow", ["x"]), ("allow", ["10.0.0.1/33"]),
    ("allow", ["10.0.0.1/8"]), ("allow", ["10.0.0.1:0"]), ("allow", ["::1"]), ("allow", None),
    ("allow", ["10.0.0.1"] * 65), ("allow", ["10.0.0.1"]),
    ("env", {"A=B": "x"}), ("env", {"A": 1}), ("env", ["A=1"]), ("env", {"PRATAI_X": "1"}),
    ("env", {"A": "x" * 200000}), ("tags", "x"), ("tags", [1]), ("description", 5),
    ("description", "x" * 10000), ("frequency", 1), ("frequency", 0), ("surprise", 1),
    ("x" * 10000, 1), ("function_id", "mine"), ("state", "ready"),
])
def test_fields(platform, field, value):
    refused(platform, {"name": "bad-field", field: value}, words=[field[:50]])


@pytest.mark.parametrize("name", ["", "a/b", "../up", ".", "..", "-dash", "_under", "a b", "a\0b",
                                  "ü", "x" * 64, "n" * 10240, "a\nb", "<b>", 5, None, ["a"]])
def test_names(platform, name):
    refused(platform, {"name": name}, words=["NUL" if name == "a\0b" else "name"])


def test_names_that_are_fine(platform):
    for name in ("a", "9", "A.b_c-d", "x" * 63):
        platform.create("echo", name=name)
        platform.ok("function-delete", name)


def test_names_on_the_command_line(platform):
    for name in ("a/b", "n" * 10240, "ü", "a b", "-"):
        r = platform.cli("function-create", "--file", FUNCTIONS / "echo", "--", name)
        assert r.code in (1, 2) and r.err.strip().count("\n") == 0, r.err
    for memory in ("0", "-1", "1e9", "abc", "128M", ""):
        r = platform.cli("function-create", "bad", "--file", FUNCTIONS / "echo", "--memory",
                         memory)
        assert r.code in (1, 2) and "memory" in r.err, r.err
    r = platform.cli("function-create", "bad", "--file", "/nonexistent.zip")
    assert r.code != 0 and "/nonexistent.zip" in r.err
    r = platform.cli("function-create", "bad")
    assert r.code == 2 and "file" in r.err


def test_a_name_that_is_taken(platform, echo):
    refused(platform, {"name": echo}, words=[echo], status=409, kind="conflict")
    r = platform.cli("function-create", echo, "--file", FUNCTIONS / "echo")
    assert r.code == 1 and echo in r.err and r.err.count("\n") == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '"x"', '{"name": "a"', "nope", '{"name": a}',
                                  '{"name": "a"}{"name": "b"}', "\x00", '{"name": "a\x01"}',
                                  "[" * 100000 + "]" * 100000,
                                  '{"a":' * 100000 + "1" + "}" * 100000,
                                  '{"name":"x","description":"' + "y" * 2000000 + '"}'])
def test_metadata_that_is_no_object(platform, text):
    refused(platform, text)


def test_metadata_that_is_not_utf8(platform):
    refused(platform, b'{"name": "\xff\xfe"}')


# ---- bodies ----

def test_json_of_depth_100000(platform, echo):
    deep = b"[" * 100000 + b"]" * 100000
    for body in (deep, b'{"payload":' + deep + b"}", b'{"a":' * 100000 + b"1" + b"}" * 100000):
        r = platform.http("POST", f"/v1/functions/{echo}", data=body)
        assert "deep" in platform.problem(r, 400, "invalid_request")
    r = platform.http("POST", f"/v1/functions/{echo}", data=b"[" * 100000)
    assert r.status_code in (200, 400)
    r = platform.http("POST", "/v1/tokens", data=deep)
    platform.problem(r, 400, "invalid_request")
    r = platform.http("PATCH", f"/v1/functions/{echo}", data=deep)
    platform.problem(r, 400, "invalid_request")


BOUNDARY = "multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n{"name":"m"}\r\n'


@pytest.mark.parametrize("kind, body", [
    (BOUNDARY, b""),
    (BOUNDARY, PART),
    (BOUNDARY, PART[:-20]),
    (BOUNDARY, PART + b'--b\r\nContent-Disposition: form-data; name="zip_file"\r\n\r\nPK'),
    (BOUNDARY, PART + b"--b"),
    (BOUNDARY, PART + PART + b"--b--\r\n"),
    (BOUNDARY, b"--b\r\n\r\nno disposition\r\n--b--\r\n"),
    (BOUNDARY, b'--b\r\nContent-Disposition: form-data; name="surprise"\r\n\r\nx\r\n--b--\r\n'),
    ("multipart/form-data", PART + b"--b--\r\n"),
    ("multipart/form-data; boundary=" + "b" * 500, PART),
    ("application/json", b'{"name": "m"}'),
    ("text/plain", b"hello"),
])
def test_multipart(platform, kind, body):
    r = platform.http("POST", "/v1/functions", data=body, headers={"Content-Type": kind})
    detail = platform.problem(r, 400, "invalid_request")
    assert "\n" not in detail


def test_a_multipart_that_ends_early(platform):
    """The connection closes in the middle of what Content-Length promised."""
    before = platform.get("/v1/functions")["items"]
    host, port = platform.url.removeprefix("http://").split(":")
    for _ in range(20):
        with socket.create_connection((host, int(port)), timeout=10) as s:
            s.sendall(f"POST /v1/functions HTTP/1.1\r\nHost: x\r\n"
                      f"X-Auth-Token: {platform.token}\r\nContent-Type: {BOUNDARY}\r\n"
                      "Content-Length: 100000\r\n\r\n".encode() + PART)
    assert platform.get("/v1/functions")["items"] == before


# ---- requests ----

def test_wrong_methods_and_paths(platform, echo):
    for method, path in (("PUT", "/v1/functions"), ("DELETE", "/v1/events"), ("POST", "/healthz"),
                         ("PATCH", "/v1/cluster"), ("BREW", f"/v1/functions/{echo}")):
        r = platform.http(method, path)
        detail = platform.problem(r, 405, "method_not_allowed")
        assert method in detail
        allowed = r.headers["Allow"].split(", ")
        assert method not in allowed and ("GET" in allowed) == ("HEAD" in allowed)
    for path in ("/v1", "/v2/functions", "/v1/functions/", "/v1/functions/a/b", "/nothing",
                 f"/v1/functions/{echo}/nothing", "/v1/events//", "/%00", "/v1/functions/%2e%2e"):
        r = platform.http("GET", path)
        assert r.status_code in (400, 404), (path, r.text)
        assert r.json()["type"] in ("not_found", "invalid_request")


@pytest.mark.parametrize("ref", ["unknown", "0" * 36, "01a2063c-4dfc-701b-bf30-5d7baba99c7c",
                                 "x" * 120, "%ff", "a%00b", "..%2f..%2fetc", "x" * 10000])
def test_unknown_functions_and_events(platform, ref):
    for method, path in (("POST", "/v1/functions/" + ref), ("GET", "/v1/functions/" + ref),
                         ("DELETE", "/v1/functions/" + ref), ("PATCH", "/v1/functions/" + ref),
                         ("GET", "/v1/events/" + ref), ("GET", f"/v1/events/{ref}/logs"),
                         ("GET", f"/v1/events/{ref}/response"),
                         ("GET", f"/v1/functions/{ref}/build"), ("DELETE", "/v1/tokens/" + ref)):
        r = platform.http(method, path, data=b"{}" if method == "PATCH" else None)
        assert r.status_code in (404, 400, 414, 431), (method, path, r.status_code, r.text)
        assert r.headers["Content-Type"].startswith("application/problem+json")


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "cursor=garbage", "state=queued", "lmit=3"])
def test_lists_know_their_parameters(platform, query):
    """A mistyped one would be answered with everything."""
    for path in "/v1/functions", "/v1/tokens":
        detail = platform.problem(platform.http("GET", f"{path}?{query}"), 400, "invalid_request")
        assert query.partition("=")[0] in detail
    detail = platform.problem(platform.http("GET", "/v1/events?functions=x"), 400, "invalid_request")
    assert "'functions'" in detail and "function|state" in detail
    platform.problem(platform.http("GET", "/v1/cluster?x"), 400, "invalid_request")
    assert len(platform.get("/v1/tokens?limit=1")["items"]) == 1


def test_a_webhook_may_carry_any_query(platform, echo):
    r = platform.http("POST", f"/v1/functions/{echo}?utm_source=x&limit=y", json={"a": 1})
    assert r.status_code in (200, 202)
    assert platform.http("GET", "/healthz?probe=1").status_code == 200


@pytest.mark.parametrize("query", ["state=nope", "source=nope", "since=yesterday", "limit=0",
                                   "limit=-1", "limit=1e9", "limit=x", "cursor=garbage",
                                   "q=%ff%00"])
def test_queries(platform, query):
    r = platform.http("GET", "/v1/events?" + query)
    detail = platform.problem(r, 400, "invalid_request")
    assert query.split("=")[0] in detail or "query" in detail


@pytest.mark.parametrize("text", [
    b"\0\0\0\0\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100000 + b"\r\n\r\n",
    b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /v1/functions/x HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    b"POST /v1/functions/x HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n123456",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n"
    b"0\r\n\r\n",
])
def test_what_is_hardly_http(platform, text):
    """Refused, or closed; what could still become a request is waited for in silence."""
    host, port = platform.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=1) as s:
        try:
            s.sendall(text)
            answer = s.recv(65536)
        except OSError:
            answer = b""
    assert answer[:10] in (b"", b"HTTP/1.1 4", b"HTTP/1.0 4") or b" 505 " in answer[:20], answer


def test_what_a_state_directory_must_not_be(platform, tmp_path):
    """A second `up` on the same directory, and one on a directory of others."""
    from conftest import PRATAI
    r = subprocess.run([PRATAI, "up", "--state", platform.state, "--listen", "127.0.0.1:0"],
                       capture_output=True, text=True, timeout=30, check=False)
    assert r.returncode == 1 and str(platform.process.pid) in r.stderr
    (tmp_path / "others").write_text("x")
    tmp_path.chmod(0o755)
    r = subprocess.run([PRATAI, "up", "--state", tmp_path, "--listen", "127.0.0.1:0"],
                       capture_output=True, text=True, timeout=30, check=False)
    assert r.returncode == 2 and r.stderr.count("\n") == 1
