"""Runtimes other than python3, and one that is added by its manual alone."""
import subprocess

import pytest

COPY = '#include <unistd.h>\nchar b[65536];\nint main(void){ ssize_t n;\n' \
    'while ((n = read(0, b, sizeof b)) > 0) if (write(1, b, n) != n) return 1;\nreturn n < 0; }\n'


def exec_function(platform, script, **metadata):
    main = script if isinstance(script, bytes) else "#!/bin/sh\n" + script + "\n"
    return platform.wait_function({"main": main}, runtime="exec", **metadata)


def failed(platform, source, runtime, **metadata):
    """Why the version could not be made."""
    name = platform.create(source, state="failed", runtime=runtime, **metadata)
    reason = platform.get(f"/v1/functions/{name}")["state_reason"]
    platform.ok("function-delete", name)
    return reason


# ---- exec ----

def test_exec_answers_byte_for_byte(platform, tmp_path):
    (tmp_path / "main.c").write_text(COPY)
    subprocess.run(["gcc", "-O1", "-static", "-o", tmp_path / "main", tmp_path / "main.c"], check=True)
    name = exec_function(platform, (tmp_path / "main").read_bytes(), memory=16)
    data = bytes(range(256)) * 24000
    r = platform.call(name, data, headers={"Content-Type": "application/octet-stream"})
    assert r.status_code == 200 and r.content == data
    assert r.headers["Content-Type"] == "application/octet-stream"
    r = platform.call(name, {"n": 12345678901234567890})
    assert r.json() == {"n": 12345678901234567890}
    assert r.headers["Content-Type"] == "application/json"
    r = platform.call(name, b"gr\xc3\xbc\xc3\x9fe\n", headers={"Content-Type": "text/plain"})
    assert r.content == b"gr\xc3\xbc\xc3\x9fe\n" and r.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_exec_log_and_context(platform):
    name = platform.create({"main": "#!/bin/sh\nenv | grep ^PRATAI_ | sort; id -u; pwd; echo to the log >&2\n"},
                           runtime="exec", timeout=7)
    e = platform.ended(platform.send(name, {"x": 1}))
    lines = e["response"].splitlines()
    assert f"PRATAI_EVENT_ID={e['event_id']}" in lines and f"PRATAI_FUNCTION_ID={e['function_id']}" in lines
    assert {"PRATAI_SOURCE=webhook", "PRATAI_ATTEMPT=1", "PRATAI_TIMEOUT_MS=7000"} <= set(lines)
    assert lines[-2:] == ["1000", "/function"]
    assert platform.log_of(e["event_id"]) == "to the log"


@pytest.mark.parametrize("script,metadata,status,kind,words", [
    ("exit 3", {}, 502, "function_failed", "main ended with exit status 3"),
    ("kill -SEGV $$", {}, 502, "function_failed", "SIGSEGV"),
    ("kill -KILL $$", {}, 502, "function_failed", "SIGKILL"),
    ("cat /dev/zero", {}, 502, "function_failed", "more than the 6291456 bytes"),
    ("cat /dev/zero >&2", {}, 502, "output_exceeded", "printed more than"),
    ("sleep 60", {"timeout": 1}, 504, "timeout", "within 1 s"),
    ("exec /usr/bin/python3 -c 'x = b\"x\" * (1 << 30)'", {}, 502, "memory_exceeded", "128 MiB"),
    ("/usr/bin/python3 -c 'x = b\"x\" * (1 << 30)'; exit 5", {}, 502, "memory_exceeded", "128 MiB")])
def test_exec_fails(platform, script, metadata, status, kind, words):
    name = exec_function(platform, script, **metadata)
    assert words in platform.problem(platform.call(name, {"x": 1}), status, kind)
    platform.ok("function-delete", name)


@pytest.mark.parametrize("source,reason", [
    ({"other": "x"}, "there is no main at the root of the zip"),
    ({"main": "echo\n"}, "main is neither an ELF program nor a script that begins with #!"),
    ({"main": "#!/no/such\n"}, "main's interpreter /no/such is not in the image")])
def test_exec_packages_that_cannot_work(platform, source, reason):
    assert failed(platform, source, "exec") == reason


def test_exec_create_says_why(platform, tmp_path):
    (tmp_path / "README").write_text("no main here\n")
    r = platform.cli("function-create", "no-main", "--file", tmp_path, "--runtime", "exec")
    assert r.code == 1 and "there is no main at the root of the zip" in r.err
    platform.ok("function-delete", "no-main")


def test_exec_layer_is_the_package(platform):
    """Nothing was added, so nothing is stored twice: the same zip serves two functions."""
    source = {"main": "#!/bin/sh\ncat data.txt\n", "data.txt": "shared"}
    for _ in range(2):
        name = platform.wait_function(source, runtime="exec")
        assert platform.call(name).content == b"shared"
        assert "the function is main, a script for /bin/sh" in \
            platform.get(f"/v1/functions/{name}/build")["log"]
        platform.ok("function-delete", name)
