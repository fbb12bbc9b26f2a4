"""What commands print, in each format, of what the control plane says."""
import csv
import io
import json
import os
import pty
import subprocess

import pytest

from conftest import BUILD

RECORD = {
    "function_id": "01", "name": "music_tag", "state": "ready", "version": 3, "runtime": "python3",
    "type": "async", "event": "webhook", "memory": 128, "updated_at": "2026-01-02T03:04:05.000006Z",
    "description": None, "tags": ["a", "b"], "env": {"K": "v"}, "cpus": 0.5,
}


@pytest.fixture
def functions(plane):
    plane.on("GET", "/v1/functions", (200, {"items": [RECORD, {**RECORD, "name": "naïve ☃",
             "function_id": "02", "state": "two\nlines"}], "next": None}))
    plane.on("GET", "/v1/functions/music_tag", (200, RECORD))
    return plane


def test_the_token_is_sent(functions):
    functions.run("function-list")
    assert functions.requests[0].headers["X-Auth-Token"] == "secret"
    functions.run("--os-token", "other", "function-list")
    assert functions.requests[-1].headers["X-Auth-Token"] == "other"


def test_url_with_version_and_slash(functions):
    for tail in ("/", "/v1", "/v1/"):
        assert functions.run("function-list", "--os-pratai-url", functions.url + tail).code == 0


def test_list_as_table(functions):
    lines = functions.run("function-list").out.splitlines()
    assert lines[0] == lines[2] == lines[-1] and set(lines[0]) == {"+", "-"}
    assert [c.strip() for c in lines[1].split("|")[1:4]] == ["function_id", "name", "state"]
    assert "| music_tag |" in lines[3]
    assert "| naïve ☃   | two " in lines[4] and "| lines " in lines[5]
    assert len({len(line) for line in lines}) == 1


def test_list_as_json_is_the_records(functions):
    r = functions.run("function-list", "-f", "json")
    assert json.loads(r.out)[0] == RECORD
    assert len(json.loads(r.out)) == 2


def test_show_in_every_format(functions):
    table = functions.run("function-show", "music_tag").out
    assert "| Field " in table and "| K=v " in table and "| a, b " in table
    assert json.loads(functions.run("function-show", "music_tag", "-f", "json").out) == RECORD
    values = functions.run("function-show", "music_tag", "-f", "value").out.splitlines()
    assert values[1] == "music_tag" and values[9] == "" and values[11] == '{"K":"v"}'
    rows = list(csv.reader(io.StringIO(functions.run("function-show", "music_tag", "-f", "csv").out)))
    assert rows[0] == list(RECORD) and rows[1][1] == "music_tag"


def test_columns(functions):
    r = functions.run("function-show", "music_tag", "-f", "value", "-c", "memory", "-c", "env.K")
    assert r.out == "128\nv\n"
    r = functions.run("function-list", "-f", "value", "-c", "name", "-c", "memory")
    assert r.out == "music_tag 128\nnaïve ☃ 128\n"
    r = functions.run("function-list", "-f", "json", "-c", "name")
    assert json.loads(r.out) == [{"name": "music_tag"}, {"name": "naïve ☃"}]
    r = functions.run("function-list", "-c", "colour")
    assert r.code == 2 and "no column 'colour'" in r.err and "function_id" in r.err


def test_only_id(functions):
    assert functions.run("function-list", "--only-id").out == "01\n02\n"
    assert functions.run("function-show", "music_tag", "--only-id").out == "01\n"


def test_an_empty_list(plane):
    plane.on("GET", "/v1/events", (200, {"items": [], "next": None}))
    assert plane.run("event-list", "-f", "json").out == "[]\n"
    assert plane.run("event-list", "-f", "value").out == ""
    assert plane.run("event-list").out.count("\n") == 4


def test_numbers_keep_their_digits(plane):
    body = b'{"event_id":"1","response":{"n":12345678901234567890.123456789,"e":1E400}}'
    plane.on("GET", "/v1/events/1", (200, body))
    out = plane.run("event-show", "1", "-f", "json").out
    assert "12345678901234567890.123456789" in out and "1E400" in out
    assert "".join(out.split()) == body.decode()


def test_control_characters_do_not_reach_a_terminal(plane):
    plane.on("GET", "/v1/functions/f", (200, {"name": "\x1b]0;title\x07", "tab": "a\tb"}))
    out = plane.run("function-show", "f").out
    assert "\x1b" not in out and "\x07" not in out and "\\x1b]0;title\\x07" in out


def test_a_long_cell_says_what_is_missing(plane):
    plane.on("GET", "/v1/functions/f", (200, {"text": "é" * 50000}))
    out = plane.run("function-show", "f").out
    assert "bytes more: -f json shows all" in out and len(out) < 200000
    assert plane.run("function-show", "f", "-f", "value").out == "é" * 50000 + "\n"


def test_pages_are_followed_to_the_limit(plane):
    def page(request):
        query = dict(p.split("=") for p in request.path.split("?")[1].split("&"))
        start, limit = int(query.get("cursor", 0)), int(query["limit"])
        end = min(start + limit, 250)
        return 200, {"items": [{"event_id": str(i)} for i in range(start, end)],
                     "next": str(end) if end < 250 else None}

    plane.on("GET", "/v1/events", page)
    r = plane.run("event-list", "--only-id", "--limit", "120")
    assert r.out.split() == [str(i) for i in range(120)] and r.err == ""
    r = plane.run("event-list", "--only-id")
    assert r.out.split() == [str(i) for i in range(100)]
    assert r.err == "pratai: there are more than these 100 (see --limit)\n"
    ids = plane.run("event-list", "--only-id", "--limit", "1000").out.split()
    assert len(ids) == 250


def test_event_filters_are_encoded(plane):
    plane.on("GET", "/v1/events", (200, {"items": [], "next": None}))
    plane.run("event-list", "--function", "a b&c", "--state", "dead", "--since", "2026-01-02",
              "--query", "é", "--source", "timer")
    path = plane.requests[0].path
    assert path.startswith("/v1/events?function=a%20b%26c&state=dead&source=timer&"
                           "since=2026-01-02&q=%C3%A9&")


def test_event_logs(plane):
    lines = [{"t": "2026-01-02T03:04:05.000006Z", "s": "stdout", "l": "hello, Wörld"},
             {"t": "2026-01-02T03:04:06.000006Z", "s": "stderr", "l": "oh"}]
    plane.on("GET", "/v1/events/1/logs", (200, {"items": lines, "next": None}))
    assert plane.run("event-logs", "1").out == (
        "2026-01-02T03:04:05.000006Z stdout hello, Wörld\n2026-01-02T03:04:06.000006Z stderr oh\n")
    assert json.loads(plane.run("event-logs", "1", "-f", "json").out) == lines
    assert plane.run("event-logs", "1", "-f", "value", "-c", "l").out == "hello, Wörld\noh\n"


@pytest.mark.parametrize("status, body, says", [
    (401, {"type": "unauthorized", "status": 401, "detail": "the token is not valid"},
     "the token is not valid"),
    (404, {"type": "not_found", "status": 404, "detail": "there is no event '1'"},
     "there is no event '1'"),
    (400, {"type": "invalid_request", "status": 400, "detail": "one\ntwo"}, "one"),
    (500, b"<html>", "answered with status 500"),
    (200, b"<html>", "not JSON"),
    (200, b'{"a":', "not JSON"),
])
def test_refusals_are_one_line(plane, status, body, says):
    plane.on("GET", "/v1/events/1", (status, body))
    r = plane.run("event-show", "1")
    assert r.code == 1 and r.out == ""
    assert says in r.err and r.err.count("\n") == 1


def test_no_token_says_so(plane):
    plane.on("GET", "/v1/events/1", (401, {"type": "unauthorized", "detail": "no token"}))
    r = plane.run("event-show", "1", env={"OS_TOKEN": ""})
    assert "OS_TOKEN" in r.err
    assert plane.requests[0].headers["X-Auth-Token"] is None


def test_delete_goes_on_after_a_failure(plane):
    plane.on("DELETE", "/v1/functions/b", (204, b""))
    r = plane.run("function-delete", "a", "b")
    assert r.code == 1 and r.err.count("\n") == 1
    assert [q.path for q in plane.requests] == ["/v1/functions/a", "/v1/functions/b"]


def test_names_are_one_segment(plane):
    plane.run("function-show", "a/b?c#d%")
    assert plane.requests[0].path == "/v1/functions/a%2Fb%3Fc%23d%25"


def test_tokens(plane):
    plane.on("POST", "/v1/tokens", (201, {"token_id": "7", "name": "ci", "token": "s3cret"}))
    plane.on("GET", "/v1/tokens", (200, {"items": [{"token_id": "7", "name": "ci"}], "next": None}))
    plane.on("DELETE", "/v1/tokens/ci", (204, b""))
    assert plane.run("token-create", "ci", "--description", "d", "-f", "value", "-c", "token").out \
        == "s3cret\n"
    assert plane.requests[0].json() == {"name": "ci", "description": "d"}
    assert plane.run("token-list", "--only-id").out == "7\n"
    assert plane.run("token-delete", "ci").code == 0


@pytest.mark.parametrize("body", [42, None, "text", [], [1], {}])
def test_an_answer_that_is_not_pratais(plane, tmp_path, body):
    (tmp_path / "main.py").write_text("def main(payload=None): pass\n")
    for method, path in ("GET", ""), ("GET", "/f"), ("POST", ""):
        plane.on(method, "/v1/functions" + path, (200, body))
    plane.on("GET", "/v1/events/e/logs", (200, body))
    commands = [["function-list"], ["function-create", "f", "--file", tmp_path]]
    commands += [["function-show", "f"], ["event-logs", "e"]] if body != {} else []
    for words in commands:
        r = plane.run(*map(str, words))
        assert (r.code, r.out) == (1, "") and r.err.count("\n") == 1
        assert "is OS_PRATAI_URL Pratai's?" in r.err


def with_stdout(plane, redirection, *words):
    env = {**os.environ, "OS_PRATAI_URL": plane.url, "OS_TOKEN": "secret"}
    return subprocess.run(["/bin/sh", "-c", f'exec "$@" {redirection}', "sh", BUILD / "pratai",
                           *words], env=env, stderr=subprocess.PIPE, text=True, check=False)


@pytest.mark.parametrize("words", [["help"], ["--help"], ["--version"], ["function-list", "--help"],
                                   ["function-list"], ["function-list", "-f", "json"],
                                   ["help", "run"], ["run", "--help"]])
def test_output_that_cannot_be_written_is_said(functions, words):
    for redirection, why in (">/dev/full", "No space left on device"), (">&-", "Bad file"):
        r = with_stdout(functions, redirection, *words)
        assert r.returncode == (125 if "run" in words else 1)
        assert "cannot write to stdout: " + why in r.stderr and r.stderr.count("\n") == 1


def test_a_reader_that_has_enough_is_no_error_to_tell(functions):
    read, write = os.pipe()
    os.close(read)
    r = subprocess.run([BUILD / "pratai", "function-list"], stdout=write, stderr=subprocess.PIPE,
                       env={**os.environ, "OS_PRATAI_URL": functions.url}, check=False)
    os.close(write)
    assert (r.returncode, r.stderr) == (1, b"")


def on_a_terminal(plane, *words):
    ours, theirs = pty.openpty()
    p = subprocess.Popen([BUILD / "pratai", *words], stdout=theirs, stderr=theirs,
                         env={**os.environ, "OS_PRATAI_URL": plane.url, "OS_TOKEN": "secret"})
    os.close(theirs)
    out = b""
    try:
        while block := os.read(ours, 4096):
            out += block
    except OSError:  # EIO: the other end is closed
        pass
    os.close(ours)
    assert p.wait() == 0
    return out.decode()


@pytest.mark.parametrize("format", ["table", "json", "value", "csv"])
def test_a_terminal_gets_no_control_characters(plane, format):
    evil = "\x1b]0;title\x07\x1b[2J \x7f \x9b31m"
    record = {**RECORD, "description": evil, "env": {"K": evil}}
    line = {"t": "T", "s": "stdout", "l": evil}
    for path, body in ("functions", {"items": [record]}), ("functions/f", record), (
            "events/e/logs", {"items": [line]}):
        plane.on("GET", "/v1/" + path, (200, json.dumps(body, ensure_ascii=False).encode()))
    columns = ["-f", format, "-c", "description", "-c", "env"]
    for words in ["function-list", *columns], ["function-show", "f", *columns], [
            "event-logs", "e", "-f", format]:
        out = on_a_terminal(plane, *words)
        assert "title" in out and not set(out) & set(map(chr, [*range(10), *range(14, 32),
                                                               *range(127, 160)]))
        if format == "json":
            shown = json.loads(out)
            assert evil in (shown if isinstance(shown, dict) else shown[0]).values()
    assert evil in plane.run("function-show", "f", "-f", "value", "-c", "description").out
