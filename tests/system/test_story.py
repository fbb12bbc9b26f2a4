"""What the first page promises, as a user types it: the command line, curl, a script."""
import csv
import io
import json
import subprocess

import pytest

from conftest import FUNCTIONS, wait_for

TAG = '''
import os


def main(payload=None):
    print("tagging", payload)
    return {"tag": payload["key"], "uid": os.getuid()}
'''


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code/main.py").write_text(TAG)
    return tmp_path


def test_create_call_execute_look(platform, directory):
    """The whole of it, in order."""
    zip_path = directory / "pkg.zip"
    subprocess.run(["/usr/bin/python3", "-m", "zipfile", "-c", zip_path,
                    directory / "code/main.py"], check=True)
    made = platform.ok("function-create", "music_tag", "--file", zip_path, "--description",
                       "tags music", "--memory", "128", "--type", "wait_for_response",
                       "-f", "json").json()
    assert (made["name"], made["state"], made["memory"]) == ("music_tag", "ready", 128)
    assert (made["description"], made["type"]) == ("tags music", "wait_for_response")

    r = subprocess.run(
        ["curl", "-sS", "--noproxy", "*", "-i", "-X", "POST", "-H",
         f"X-Auth-Token: {platform.token}", "-d", '{"payload":{"key":"value"}}',
         f"{platform.url}/v1/functions/music_tag"], capture_output=True, text=True, check=True)
    head, body = r.stdout.replace("\r", "").split("\n\n", 1)
    assert head.startswith("HTTP/1.1 200")
    assert json.loads(body) == {"tag": "value", "uid": 1000}

    made = platform.ok("function-create", "slow", "--file", zip_path, "-f", "json").json()
    assert made["type"] == "async"
    r = platform.ok("function-execute", "slow", "--data", '{"key": 3}', "--wait")
    assert json.loads(r.out) == {"tag": 3, "uid": 1000}
    sent = platform.ok("function-execute", "slow", "--data", '{"key": 4}', "--only-id").out.strip()

    platform.ended(sent)
    listed = platform.ok("event-list", "--function", "slow", "-f", "json").json()
    assert len(listed) == 2 and listed[0]["event_id"] == sent
    shown = platform.ok("event-show", sent, "-f", "json").json()
    assert shown["state"] == "succeeded" and shown["response"] == {"tag": 4, "uid": 1000}
    assert "tagging {'key': 4}" in platform.ok("event-logs", sent).out
    assert "tagging" in platform.ok("function-logs", "slow").out
    platform.ok("function-delete", "slow", "music_tag")
    assert platform.cli("function-show", "slow").code == 1


def test_a_directory_is_zipped(platform, directory):
    platform.ok("function-create", "from-dir", "--file", directory / "code", "--type",
                "wait_for_response")
    assert platform.ok("function-execute", "from-dir", "--data", '{"key": 1}').out == \
        '{"tag":1,"uid":1000}'
    platform.ok("function-delete", "from-dir")


def test_python_requests_as_a_client(platform, echo):
    """The plain way, without our fixtures' session."""
    import requests
    for header in ({"X-Auth-Token": platform.token}, {"Authorization": f"Bearer {platform.token}"}):
        r = requests.post(f"{platform.url}/v1/functions/{echo}", json={"payload": [1, "two"]},
                          headers=header, timeout=30)
        assert (r.status_code, r.json()) == (200, [1, "two"])


def test_exit_codes(platform, echo):
    failing = platform.wait_function("fails")
    slow_failing = platform.create("fails", retries=0)
    assert platform.cli("function-execute", echo, "--data", "1").code == 0
    for name, words in ((failing, ()), (slow_failing, ("--wait",))):
        r = platform.cli("function-execute", name, "--data", "1", *words)
        assert r.code == 3 and r.out == ""
        assert "ValueError: no good: 1" in r.err and "in inner" in r.err
    for words in (("function-show", "no-such"), ("event-show", "no-such"),
                  ("function-execute", "no-such"), ("function-delete", "no-such"),
                  ("token-delete", "no-such"), ("event-logs", "no-such")):
        r = platform.cli(*words)
        assert r.code == 1 and r.err.count("\n") == 1 and "no-such" in r.err, words
    for words in (("no-such-command",), ("function-show",), ("function-list", "--no-such"),
                  ("event-list", "-f", "xml"), ("function-create", "x", "--memory")):
        r = platform.cli(*words)
        assert r.code == 2 and r.err.count("\n") <= 2, (words, r.err)
    r = platform.cli("function-list", env={"OS_TOKEN": "wrong"})
    assert r.code == 1 and r.err.count("\n") == 1
    r = platform.cli("function-list", env={"OS_PRATAI_URL": "http://127.0.0.1:1"})
    assert r.code == 1 and r.err.count("\n") == 1


def test_formats(platform, echo):
    platform.call(echo, "for the list")
    one = platform.ok("function-show", echo, "-f", "json").json()
    assert one["name"] == echo
    assert platform.ok("function-show", echo, "-f", "value", "-c", "name").out == echo + "\n"
    assert platform.ok("function-show", echo, "--only-id").out == one["function_id"] + "\n"
    listed = platform.ok("function-list", "-f", "json").json()
    assert echo in [f["name"] for f in listed]
    rows = list(csv.DictReader(io.StringIO(platform.ok("function-list", "-f", "csv").out)))
    assert echo in [row["name"] for row in rows]
    table = platform.ok("function-list").out
    assert table.startswith("+--") and f" {echo} " in table
    ids = wait_for(lambda: platform.ok("event-list", "--function", echo, "--only-id").out.split(),
                   what="the record of an event")
    assert all(len(i) == 36 for i in ids)


def test_what_there_is(platform):
    runtimes = platform.ok("runtime-list", "-f", "json").json()
    assert "python3" in [r["name"] for r in runtimes]
    status = platform.ok("cluster-status", "-f", "json").json()
    assert status["store_healthy"] is True and status["nodes"][0]["state"] == "alive"
    nodes = platform.ok("node-list", "-f", "json").json()
    assert [n["state"] for n in nodes] == ["alive"]
    text = platform.ok("help", "function-create").out
    assert "--memory" in text and "wait_for_response" in text
    assert "pratai" in platform.ok("version").out


def test_a_build_that_fails_is_told(platform):
    r = platform.cli("function-create", "broken", "--file", FUNCTIONS / "syntax_error")
    assert r.code == 1 and "main.py, line 5" in r.err, r.err
    assert platform.get("/v1/functions/broken")["state"] == "failed"
    assert "main.py" in platform.ok("function-logs", "broken", "--build").out
    r = platform.call("broken", 1)
    assert "build failed" in platform.problem(r, 409, "build_failed")
    r = platform.cli("function-create", "later", "--file", FUNCTIONS / "echo", "--no-wait",
                     "-f", "json")
    assert r.code == 0 and r.json()["state"] in ("building", "ready")
    platform.settled("later")
    platform.ok("function-delete", "later", "broken")


def test_discovery_and_health(platform):
    import requests
    for path, member in (("/", "name"), ("/healthz", "status"), ("/readyz", "status")):
        r = requests.get(platform.url + path, timeout=10)
        assert r.status_code == 200 and member in r.json()
