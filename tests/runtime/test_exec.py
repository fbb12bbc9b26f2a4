"""The exec runtime: /function/main, whatever it is, between payload and answer."""
import json
import os
import re
import signal
import struct
import subprocess
import time

import pytest

from conftest import Process, command_of, stage_of, write_files

ANSWER_MAX = 6 << 20


@pytest.fixture(scope="session")
def stage():
    return stage_of("exec")


@pytest.fixture(scope="session")
def entry():
    return "main"


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """compiled(source, options…): the bytes of a C program."""
    made = {}

    def compile_it(source, *options):
        if (source, options) not in made:
            path = tmp_path_factory.mktemp("c")
            (path / "main.c").write_text(source)
            subprocess.run(["gcc", "-O1", *options, "-o", path / "main", path / "main.c"], check=True)
            made[source, options] = (path / "main").read_bytes()
        return made[source, options]

    return compile_it


COPY = '#include <unistd.h>\nchar b[65536];\nint main(void){ ssize_t n;\n' \
    'while ((n = read(0, b, sizeof b)) > 0) if (write(1, b, n) != n) return 1;\nreturn n < 0; }\n'


def sh(script):
    return "#!/bin/sh\n" + script + "\n"


def python(script):
    return "#!/usr/bin/python3 -IS\nimport os, signal, sys\n" + script + "\n"


def test_payload_in_answer_out(event):
    r = event(sh("cat; echo log >&2"), b'{"a": 1}\n', "json")
    assert r.first["type"] == "imported" and r.first["import_us"] > 0
    assert r.ok and r.body == b'{"a": 1}\n' and r.result["content_type"] == "application/json"
    assert r.result["run_us"] > 0 and (r.out, r.err, r.code) == ("", "log\n", 0)


@pytest.mark.parametrize("answer,kind", [
    (b"[1, 2]\n", "application/json"), (b"5", "application/json"), (b"null", "application/json"),
    (b"[1, 2] x", "text/plain; charset=utf-8"), ("grüße\n".encode(), "text/plain; charset=utf-8"),
    (b"", "text/plain; charset=utf-8"), (b"a\0b", "text/plain; charset=utf-8"),
    (b"\xff\xfe", "application/octet-stream"), (b'"\xff"', "application/octet-stream"),
    (b"[" * 600 + b"]" * 600, "text/plain; charset=utf-8")])
def test_content_type(event, answer, kind):
    r = event(sh("exec cat"), answer, "bytes")
    assert (r.body, r.result["content_type"]) == (answer, kind)


@pytest.mark.parametrize("options", [["-static"], ["-static-pie"], []])
def test_compiled_programs(event, compiled, options):
    data = os.urandom(ANSWER_MAX)
    r = event({"main": compiled(COPY, *options)}, data, "bytes")
    assert r.ok and r.body == data


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_image_with_nothing_else(stage, root, compiled):
    """Not even /proc or /dev."""
    if "san" in stage.parent.parent.name:
        pytest.skip("a sanitizer build is not static")
    write_files(root, {"function/main": compiled(COPY, "-static"),
                       "serve": (stage / "layer/opt/pratai/exec/serve").read_bytes()})
    (root / "serve").chmod(0o555)
    p = Process(["/usr/sbin/chroot", str(root), "/serve", "event"], root)
    assert p.line()["type"] == "imported"
    p.write(b'{"v":1,"type":"event","payload":"text","bytes":5}\nhello')
    result = p.line()
    assert result["ok"] and p.stream.read(result["bytes"]) == b"hello" and p.end() == ("", "", 0)


def test_context(event):
    r = event(sh("env; pwd; test ! -e /proc/$$/fd/3 || echo channel"), None, env={"OWN": "1"})
    lines = r.body.decode().splitlines()
    assert {"PRATAI_EVENT_ID=E1", "PRATAI_FUNCTION_ID=F1", "PRATAI_REQUEST_ID=R1",
            "PRATAI_SOURCE=webhook", "PRATAI_ATTEMPT=2", "PRATAI_TIMEOUT_MS=5000", "OWN=1"} <= set(lines)
    assert any(x.endswith("/function") for x in lines[-2:]) and "channel" not in lines


def test_what_main_inherits(event):
    """Its own three descriptors, no signal ignored or blocked, and no payload is an empty input."""
    r = event(python("print(sorted(os.listdir('/proc/self/fd'))[:-1])\n"
                     "print(str([l.split()[1] for l in open('/proc/self/status')"
                     " if l.startswith(('SigIgn', 'SigBlk'))]).replace(chr(39), chr(34)))\nprint(len(sys.stdin.read()))"))
    fds, signals, count = r.body.decode().splitlines()
    assert fds == "['0', '1', '2']" and count == "0"
    # But what Python itself ignores, SIGPIPE and SIGXFSZ, and what the C library keeps to itself.
    assert [int(x, 16) & ~(1 << 12 | 1 << 24 | 3 << 31) for x in json.loads(signals)] == [0, 0]


BIG = b"\xffpayload" * (ANSWER_MAX // 8)


@pytest.mark.parametrize("script,answer", [
    ("echo done", b"done\n"),
    ("exec 0<&-; sleep 0.2; echo closed", b"closed\n"),
    ("head -c 3 >/dev/null; echo early", b"early\n"),
    # 6 MiB out before anything is read
    ("head -c 6291450 /dev/zero; wc -c", b"\0" * 6291450 + b"%d\n" % 0)])
def test_inputs_that_are_not_read(event, script, answer):
    payload = BIG if b"\0" not in answer else b""
    r = event(sh(script), payload, "bytes")
    assert r.ok and r.body == answer


def test_writes_before_it_reads(event):
    r = event(sh("head -c 3000000 /dev/zero | tr '\\0' x; exec cat"), BIG[:3000000], "bytes")
    assert r.ok and r.body == b"x" * 3000000 + BIG[:3000000]


def test_closes_its_output(event):
    r = event(sh("printf first; exec 1>&-; sleep 0.2; cat >/dev/null; exit 0"), BIG, "bytes")
    assert r.ok and r.body == b"first"


def test_answer_ends_when_main_ends(event):
    """Whatever main left behind holds its output open, or goes on to write."""
    began = time.monotonic()
    r = event(sh("sleep 600 2>/dev/null & printf answer; echo $! >&2"), b"x", "text")
    os.kill(int(r.err), signal.SIGKILL)
    assert r.body == b"answer" and time.monotonic() - began < 60
    r = event(python("if os.fork(): sys.stdin.read(); os._exit(0)\nos.close(2)\n"
                     "signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
                     "while True: os.write(1, b'y' * 4096)"), b"x", "text")
    assert r.ok and set(r.body) <= {ord("y")}


@pytest.mark.parametrize("script,kind,message", [
    ("exit 3", "ExitStatus", "main ended with exit status 3"),
    ("echo half; exit 255", "ExitStatus", "main ended with exit status 255"),
    ("no-such-command", "ExitStatus", "main ended with exit status 127"),
    ("kill -SEGV $$", "Signal", "main was ended by signal SIGSEGV"),
    ("kill -TERM $$", "Signal", "main was ended by signal SIGTERM"),
    ("kill -50 $$", "Signal", "main was ended by signal unknown")])
def test_failures(event, script, kind, message):
    r = event(sh(script), BIG, "bytes")
    assert not r.ok and (r.type, r.message) == (kind, message) and r.body == b"" and r.code == 1


def test_killed_main_takes_the_runtime_along(event):
    """The node then sees what it knows more of: whether memory was the reason."""
    r = event(sh("kill -KILL $$"))
    assert r.result is None and r.code == -signal.SIGKILL


@pytest.mark.parametrize("script", ["head -c 6291457 /dev/zero", "exec cat /dev/zero",
                                    "cat; cat /dev/zero & sleep 0.1"])
def test_too_large(event, script):
    r = event(sh(script), b"x", "text")
    assert r.type == "ResponseTooLarge" and "more than the 6291456 bytes" in r.message


def test_largest(event):
    r = event(sh("head -c 6291456 /dev/zero"))
    assert r.ok and len(r.body) == ANSWER_MAX


def test_memory_is_flat(stage, root):
    """64 MiB pass through a main that reads them, and one that does not."""
    size = 64 << 20
    for script, answer in ("wc -c", b"%d\n" % size), ("echo no", b"no\n"):
        write_files(root, {"function/main": sh(script)})
        p = Process(command_of(stage, "command", root), root)
        assert p.line()["type"] == "imported"
        p.write(b'{"v":1,"type":"event","payload":"bytes","bytes":%d}\n' % size)
        for _ in range(size >> 20):
            p.write(b"x" * (1 << 20))
        status = (open(f"/proc/{p.process.pid}/status").read())
        peak = re.search(r"VmHWM:\s*(\d+)", status)
        result = p.line()
        assert p.stream.read(result["bytes"]) == answer
        p.end()
        assert not peak or int(peak[1]) < (64 << 10 if "san" in str(stage) else 4 << 10)


def elf(machine=None, entry=1, kind=2, width=2):
    own = struct.unpack_from("<H", open("/bin/true", "rb").read(20), 18)[0]
    return b"\x7fELF" + bytes([width, 1, 1]) + bytes(9) + struct.pack(
        "<HHIQQQIHHHHHH", kind, own if machine is None else machine, 1, entry, 0, 0, 0, 64, 56, 0, 0, 0, 0)


BAD = [
    ({"other": ""}, "NoMain", "there is no main at the root of the zip"),
    ({"dir/main": sh("")}, "NoMain", "(there is one in dir/: zip what is in that directory"),
    ({"main/x": ""}, "BadMain", "main is a directory, not a file"),
    ({"main": ""}, "BadMain", "main is empty"),
    ({"main": "echo hello\n"}, "BadMain", "neither an ELF program nor a script that begins with #!"),
    ({"main": "#!\n"}, "BadMain", "names no interpreter"),
    ({"main": "#! \t"}, "BadMain", "names no interpreter"),
    ({"main": "#!sh\n"}, "BadMain", "main's interpreter 'sh' is not an absolute path"),
    ({"main": "#!/no/such -x\n"}, "BadMain", "main's interpreter /no/such is not in the image"),
    ({"main": '#!/no"\\\x01\n'}, "BadMain", "main's interpreter /no??? is not in the image"),
    ({"main": "#!/etc/passwd\n"}, "BadMain", "main's interpreter /etc/passwd is not executable"),
    ({"main": "#!/bin/sh\r\necho\r\n"}, "BadMain", "ends in a carriage return"),
    ({"main": "#!/" + "x" * 300}, "BadMain", "longer than 256 bytes"),
    ({"main": elf(machine=183 if os.uname().machine == "x86_64" else 62)}, "BadMain",
     "main is a program for"),
    ({"main": elf(machine=9999)}, "BadMain", "a program for another one, and this machine is"),
    ({"main": elf(width=1)}, "BadMain", "main is a program for 32 bits"),
    ({"main": elf(entry=0)}, "BadMain", "shared library"),
    ({"main": elf(kind=1)}, "BadMain", "not a program: link it"),
    ({"main": elf()[:40]}, "BadMain", "damaged"),
    ({"main": b"MZ\x90\0"}, "BadMain", "a program for Windows"),
    ({"main": b"\xcf\xfa\xed\xfe"}, "BadMain", "a program for macOS")]


@pytest.mark.parametrize("files,kind,words", BAD)
def test_refused(event, build, files, kind, words):
    r = build(files)
    assert not r.ok and r.type == kind and words in r.message and r.code == 1
    assert r.out == f"pratai: {r.message}\n"
    r = event({})
    assert r.first["type"] == "result" and r.type == kind and words in r.message


def test_loader_that_is_not_there(build, event, compiled):
    files = {"main": compiled(COPY, "-Wl,--dynamic-linker=/no/ld.so")}
    assert build(files).message == event({}).message == "main's loader /no/ld.so is not in the image"


def test_not_executable(build, root):
    write_files(root, {"function/main": sh("")})
    subprocess.run(["chmod", "0444", root / "function/main"], check=True)
    r = build({})
    assert r.type == "BadMain" and "main is not executable: Permission denied" in r.message


def test_what_cannot_be_executed_all_the_same(event):
    """Only execve itself finds out."""
    r = event({"main": elf()})
    assert r.first["type"] == "imported" and r.type == "BadMain"
    assert r.message.startswith("main cannot be executed: ")


@pytest.mark.parametrize("content,kind", [
    (sh(""), "a script for /bin/sh"), ("#! /usr/bin/env -S sh\n", "a script for /usr/bin/env"),
    ("#!/bin/sh", "a script for /bin/sh"), (elf(), "an ELF program")])
def test_build(build, content, kind):
    r = build({"main": content}, network=False)
    assert r.result == {"v": 1, "type": "result", "ok": True} and r.tar == b"" and r.code == 0
    assert r.out == f"pratai: the function is main, {kind}\n"


def test_main_may_be_a_link(build, event, root):
    (root / "function/bin").mkdir()
    os.symlink("bin/main", root / "function/main")
    assert build({"bin/main": sh("echo linked")}).ok and event({}).body == b"linked\n"


def test_streams_that_end_early(stage, root):
    write_files(root, {"function/main": sh("cat")})
    for key in "command", "build":
        p = Process(command_of(stage, key, root), root)
        p.socket.shutdown(1)
        if key == "command":
            assert p.line()["type"] == "imported"
        assert p.line() is None and p.end()[2] == 0
    p = Process(command_of(stage, "command", root), root)
    p.line()
    p.write(b'{"v":1,"type":"event","payload":"bytes","bytes":10}\nhalf')
    p.socket.shutdown(1)
    assert p.line() is None and p.end()[2] == 70


def test_unknown_members_and_values(event):
    r = event(sh("echo $PRATAI_SOURCE"), None, unknown={"source": "x"}, nested=[{"source": "y"}])
    assert r.body == b"webhook\n"


def test_it_is_static(stage):
    if "san" in stage.parent.parent.name:
        pytest.skip("a sanitizer build is not static")
    program = stage / "layer/opt/pratai/exec/serve"
    out = subprocess.run(["readelf", "-lW", program], capture_output=True, text=True, check=True).stdout
    assert "INTERP" not in out
    assert program.stat().st_size < 2 << 20 and json.loads((stage / "runtime.json").read_text())
