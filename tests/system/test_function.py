"""What a function finds in its sandbox, and what of it comes out."""
import re

import pytest

from conftest import FUNCTIONS


def test_environment_identity_and_context(platform):
    name = platform.wait_function("context", env={"GREETING": "hello wörld", "EMPTY": ""},
                                  timeout=30)
    r = platform.call(name, 1)
    inside = r.json()
    event, function = r.headers["Pratai-Event-Id"], platform.get(f"/v1/functions/{name}")
    assert (inside["uid"], inside["gid"], inside["cwd"]) == (1000, 1000, "/function")
    assert inside["event_id"] == event and inside["function_id"] == function["function_id"]
    assert inside["request_id"] and inside["source"] == "webhook" and inside["attempt"] == 1
    assert 20000 < inside["remaining_ms"] <= 30000
    assert inside["environ"] == {
        "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8",
        "PRATAI_EVENT_ID": event, "PRATAI_FUNCTION_ID": function["function_id"],
        "GREETING": "hello wörld", "EMPTY": ""}


ISOLATION = '''
import os, socket


def attempt(what):
    try:
        what()
        return "done"
    except OSError as e:
        return type(e).__name__


def main(payload=None):
    status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
    return {
        "caps": [status[k].strip() for k in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
        "no_new_privs": status["NoNewPrivs"].strip(), "seccomp": status["Seccomp"].strip(),
        "interfaces": sorted(line.split(":")[0].strip()
                             for line in open("/proc/net/dev") if ":" in line),
        "connect": attempt(lambda: socket.create_connection(("192.0.2.1", 80), 2)),
        "local": attempt(lambda: socket.create_connection(("127.0.0.1", payload["port"]), 2)),
        "state": attempt(lambda: os.listdir(payload["state"])),
        "shadow": attempt(lambda: open("/etc/shadow").read()),
        "sys": attempt(lambda: os.listdir("/sys/kernel")),
        "processes": [int(d) for d in os.listdir("/proc") if d.isdigit()],
        "hostname": os.uname().nodename,
        "groups": os.getgroups(),
    }
'''


def test_shut_in(platform):
    name = platform.wait_function(ISOLATION)
    port = int(platform.url.rsplit(":", 1)[1])
    r = platform.call(name, {"port": port, "state": str(platform.state)})
    inside = r.json()
    assert set(inside["caps"]) == {"0" * 16}
    assert (inside["no_new_privs"], inside["seccomp"]) == ("1", "2")
    assert inside["interfaces"] == ["lo"]
    for what in ("connect", "local", "state", "shadow", "sys"):
        assert inside[what] != "done", what
    assert len(inside["processes"]) <= 3
    assert inside["groups"] in ([], [1000])


def test_where_it_may_write(platform):
    """Twice: nothing of the first is there for the second."""
    name = platform.wait_function("writes")
    for _ in range(2):
        wrote = platform.call(name).json()
        assert wrote["/tmp/mark"] == wrote["/dev/shm/mark"] == "written"
        for path in ("/function/mark", "/etc/mark", "/usr/mark"):
            assert wrote[path] in ("EROFS", "EACCES"), path
        assert "was there" not in wrote.values()


def test_its_log(platform):
    name = platform.wait_function("logs")
    event = platform.call(name).headers["Pratai-Event-Id"]
    record = platform.ended(event)
    items = platform.get(f"/v1/events/{event}/logs")["items"]
    lines = [line["l"] for line in items]
    assert [re.sub(r".*?(\d [a-z]+)", r"\1", line)[:1] for line in lines] == list("12345")
    assert lines[0] == "1 printed" and lines[1] == "2 on standard error"
    assert lines[3] == "4 from a child"
    # 2018's line: asctime - function_id - request_id - levelname - message.
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
    m = re.fullmatch(rf"({stamp}) - (\S+) - (\S+) - INFO - 3 logged", lines[2])
    assert m and m[2] == record["function_id"] and m[3] == event
    assert re.fullmatch(rf"{stamp} - \S+ - \S+ - ERROR - 5 grüße", lines[4])
    assert [line["s"] for line in items[:2]] == ["stdout", "stderr"] or \
        {line["s"] for line in items} <= {"stdout", "stderr", "log"}
    assert record["logs_bytes"] > 0 and record["logs_truncated"] is False
    printed = platform.ok("event-logs", event).out.splitlines()
    assert len(printed) == 5 and printed[0].endswith("1 printed")


def test_output_that_is_opened_by_name(platform):
    """As programs do that are told to log to /dev/stdout; it cannot be read back."""
    name = platform.wait_function(
        "import os\ndef main(payload):\n"
        " open('/dev/stdout', 'w').write('by name\\n')\n"
        " os.system('echo by shell > /dev/stderr')\n"
        " try: open('/dev/stdout')\n"
        " except OSError as error: return error.strerror\n")
    r = platform.call(name)
    assert r.json() == "Permission denied", r.text
    record = platform.ended(r.headers["Pratai-Event-Id"])
    assert sorted(platform.log_of(record["event_id"]).splitlines()) == ["by name", "by shell"]


def test_a_failure_shows_where(platform):
    name = platform.wait_function("fails")
    r = platform.call(name, 7)
    detail = platform.problem(r, 502, "function_failed")
    assert "ValueError: no good: 7" in detail
    assert 'File "/function/main.py", line 5, in inner' in detail
    assert "bootstrap" not in detail and "runner" not in detail
    record = platform.ended(r.headers["Pratai-Event-Id"])
    assert (record["state"], record["reason"]) == ("failed", "function_failed")
    assert record["error"]["type"] == "ValueError"
    assert record["error"]["message"] == "no good: 7"
    assert "in inner" in record["error"]["traceback"]


@pytest.mark.parametrize("source, payload, answer", [
    ("two_modules", None, ["new_module", "helper"]),
    ("asynchronous", 4, 6),
    ("def main(payload): return payload", None, None),
    ("main = lambda payload=None: 'lambda'", None, "lambda"),
    ("class C:\n    def __call__(self, payload): return 'object'\nmain = C()", 1, "object"),
    ("def main(*args): return len(args)", 1, 2),
    ("def main(payload, *, context): return context.attempt", 1, 1),
])
def test_kinds_of_main(platform, source, payload, answer):
    if source.isidentifier():
        assert (FUNCTIONS / source).is_dir()
    r = platform.call(platform.wait_function(source), payload)
    assert (r.status_code, r.json()) == (200, answer)


@pytest.mark.index
def test_requirements(platform):
    """One that any index has, small and pure."""
    name = platform.wait_function("needs_small", seconds=120)
    assert platform.call(name).json() == "1.16.0"
    build = platform.get(f"/v1/functions/{name}/build")
    assert build["state"] == "ready" and "six" in build["log"]


def test_packages_of_the_image_are_seen(platform):
    r = platform.call(platform.wait_function(
        "import json, sqlite3, ssl, hashlib\n"
        "def main(payload=None):\n"
        "    return sqlite3.connect('/tmp/x').execute('select 6*7').fetchone()\n"))
    assert (r.status_code, r.json()) == (200, [42])
