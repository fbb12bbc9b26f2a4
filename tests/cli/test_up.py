"""`pratai up` as a keeper of processes, with children that misbehave on demand.

The children are scripts beside a copy of pratai-client: they notify readiness and serve
/readyz as the real ones do, write down what they were given, and crash, hang or refuse when
a file tells them to.  What the real ones do is in the whole-system tests.
"""
import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

import pytest

from conftest import CLIENT

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="up needs root")

CHILD = r'''#!/usr/bin/python3 -I
import http.server, json, os, pathlib, signal, socket, stat, sys, time
name = pathlib.Path(sys.argv[0]).name
here = pathlib.Path(sys.argv[0]).parent
args = dict(zip(sys.argv[1:], sys.argv[2:]))
def note(what):
    with open(here / "notes", "a") as f:
        f.write(json.dumps({"name": name, "pid": os.getpid(), "what": what,
                            "args": sys.argv[1:], "fds": fds}) + "\n")
fds = {}
for n in os.listdir("/proc/self/fd"):
    try:
        fds[n] = os.readlink("/proc/self/fd/" + n)
    except OSError:
        pass
note("start")
def term(*_):
    if (here / (name + ".deaf")).exists():
        return
    note("term")
    os._exit(0)
signal.signal(signal.SIGTERM, term)
if (here / (name + ".refuse")).exists():
    print(name, "refuses to start", file=sys.stderr)
    sys.exit(int((here / (name + ".refuse")).read_text() or 9))
ready = (here / "ready.json")
if name == "pratai-control":
    class H(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            ok = (here / "node-up").exists()
            self.send_response(200 if ok else 503)
            self.send_header("Content-Length", "0")
            self.end_headers()
        def log_message(self, *a): pass
    class S(http.server.HTTPServer):
        def __init__(self, fd):
            super().__init__(("127.0.0.1", 0), H, bind_and_activate=False)
            self.socket = socket.socket(fileno=fd)
    server = S(int(args["--listen-fd"]))
    server.socket.setblocking(True)
else:
    (here / "node-up").write_text("")
if not (here / (name + ".mute")).exists():
    os.write(int(args["--ready-fd"]), b"1")
if name == "pratai-control":
    server.serve_forever(0.02)
while True:
    time.sleep(60)
'''


class Up:
    def __init__(self, directory):
        self.dir = directory
        self.tree = directory / "tree"
        self.state = directory / "state"
        self.tree.mkdir()
        shutil.copy(CLIENT, self.tree / "pratai-client")
        for name in ("pratai-control", "pratai-node"):
            (self.tree / name).write_text(CHILD)
            (self.tree / name).chmod(0o755)
        (self.tree / "runtimes").mkdir()
        self.process = None

    def start(self, *args, listen="127.0.0.1:0", **popen):
        self.process = subprocess.Popen(
            [self.tree / "pratai-client", "up", "--state", self.state, "--listen", listen, *args],
            stdout=subprocess.PIPE, stderr=open(self.dir / "log", "ab"), text=True,
            env={"PATH": os.environ["PATH"]}, **popen)
        return self

    def ready(self):
        line = self.process.stdout.readline()
        assert re.fullmatch(r"ready http://\S+\n", line), (self.dir / "log").read_text()
        return line.split()[1]

    def notes(self, name=None, what="start"):
        path = self.tree / "notes"
        found = [json.loads(n) for n in path.read_text().splitlines()] if path.exists() else []
        return [n for n in found if n["what"] == what and name in (None, n["name"])]

    def tell(self, name, what, text=""):
        (self.tree / f"{name}.{what}").write_text(text)

    def log(self):
        return (self.dir / "log").read_text()


def wait_for(condition, seconds=15):
    # An emulated machine is some twenty times slower.
    end = time.monotonic() + seconds * (20 if os.environ.get("PRATAI_EMULATED") else 1)
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def is_gone(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture
def up(tmp_path):
    u = Up(tmp_path)
    yield u
    if u.process and u.process.poll() is None:
        u.process.kill()
        u.process.wait()
    wait_for(lambda: all(is_gone(n["pid"]) for n in u.notes()))


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_ready_then_an_orderly_end(up, signo):
    url = up.start(preexec_fn=lambda: signal.signal(signo, signal.SIG_DFL)).ready()
    assert urllib.request.urlopen(url + "/readyz").status == 200
    up.process.send_signal(signo)
    assert up.process.wait(10) == 0
    assert [n["name"] for n in up.notes(what="term")] == ["pratai-node", "pratai-control"]
    assert up.process.stdout.read() == ""


def test_nohup_keeps_it(up):
    url = up.start(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)).ready()
    up.process.send_signal(signal.SIGHUP)
    assert urllib.request.urlopen(url + "/readyz").status == 200
    assert up.process.poll() is None and not up.notes(what="term")


def test_the_state_directory(up):
    url = up.start().ready()
    modes = {p.name: (p.stat().st_mode & 0o7777, p.stat().st_uid, p.stat().st_gid)
             for p in up.state.iterdir()}
    assert up.state.stat().st_mode & 0o7777 == 0o700
    for name in ("lock", "instance", "join", "token", "env"):
        assert modes[name] == (0o600, 0, 0)
    assert modes["run"] == (0o2750, 1878982657, 1878982658)
    assert re.fullmatch(r"[a-z0-9]{8}\n", (up.state / "instance").read_text())
    lines = (up.state / "env").read_text().splitlines()
    token = (up.state / "token").read_text().strip()
    assert lines == [f"export OS_PRATAI_URL={url}", f"export OS_TOKEN={token}",
                     f"export PRATAI_ROOT={up.state}"]
    before = {n: (up.state / n).read_text() for n in ("instance", "join", "token")}
    up.process.terminate()
    up.process.wait(10)
    up.start().ready()
    assert before == {n: (up.state / n).read_text() for n in before}


def test_env_survives_a_directory_with_odd_characters(up):
    up.state = up.dir / "it's a $dir"
    up.start().ready()
    out = subprocess.run(["sh", "-c", '. "$1"; printf %s "$PRATAI_ROOT"', "sh", up.state / "env"],
                         capture_output=True, text=True, check=True).stdout
    assert out == str(up.state)


def test_what_children_are_given(up):
    extra = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(extra, True)
    url = up.start("--slots", "3", "--memory", "512", close_fds=False).ready()
    os.close(extra)
    control, = up.notes("pratai-control")
    node, = up.notes("pratai-node")
    for n in (control, node):
        args = dict(zip(n["args"], n["args"][1:]))
        kept = {k: v for k, v in n["fds"].items() if "/proc/" not in v and "tree" not in v}
        names = sorted(v.split(":")[0].replace(str(up.state), "") for k, v in kept.items()
                       if int(k) > 2)
        expected = ["/alive", "/run", "pipe"] + (["socket"] if n is control else [])
        assert names == sorted(expected)
        assert kept["0"] == "/dev/null"
        assert kept[args["--run-fd"]] == f"{up.state}/run"
        assert args["--state"] == str(up.state)
        assert (up.state / "join").samefile(args["--join-token-file"])
        assert "--with-parent" in n["args"]
        assert os.getpgid(n["pid"]) == n["pid"]
    args = dict(zip(node["args"], node["args"][1:]))
    assert args["--join"] == url and args["--slots"] == "3" and args["--memory"] == "512"
    assert args["--instance"] == (up.state / "instance").read_text().strip()
    assert args["--runtimes"] == str(up.tree / "runtimes")
    assert args["--user"] == "1878982658:1878982658"


@pytest.mark.parametrize("name", ["pratai-control", "pratai-node"])
def test_a_killed_child_is_back_within_a_second(up, name):
    url = up.start().ready()
    time.sleep(1.1)  # long enough a life to be started again at once
    os.kill(up.notes(name)[-1]["pid"], signal.SIGKILL)
    wait_for(lambda: len(up.notes(name)) == 2, 1.0)
    with urllib.request.urlopen(url + "/readyz", timeout=10) as answer:
        assert answer.status == 200
    assert "process ended" in up.log() and "signal=9" in up.log()


def test_the_port_stays_open_while_the_control_plane_is_away(up):
    url = up.start().ready()
    host, port = url[7:].split(":")
    up.tell("pratai-control", "refuse")
    os.kill(up.notes("pratai-control")[-1]["pid"], signal.SIGKILL)
    wait_for(lambda: len(up.notes("pratai-control")) >= 3)  # it goes on trying
    with socket.create_connection((host, int(port)), 5) as s:
        s.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
        (up.tree / "pratai-control.refuse").unlink()
        assert s.recv(100).startswith(b"HTTP/1.0 200")


def test_never_gives_up_and_never_spins(up):
    up.start().ready()
    up.tell("pratai-node", "refuse")
    before = time.monotonic()
    os.kill(up.notes("pratai-node")[-1]["pid"], signal.SIGKILL)
    wait_for(lambda: len(up.notes("pratai-node")) >= 5)
    # 0.2 + 0.4 + 0.8 s between the first four tries that fail
    assert time.monotonic() - before > 1.0
    (up.tree / "pratai-node.refuse").unlink()
    wait_for(lambda: not is_gone(up.notes("pratai-node")[-1]["pid"]))


def test_sigkill_takes_everything(up):
    up.start().ready()
    pids = [n["pid"] for n in up.notes()]
    up.process.kill()
    up.process.wait()
    wait_for(lambda: all(is_gone(p) for p in pids), 2)


def test_started_again_right_after_sigkill(up):
    for _ in range(3):
        up.start().ready()
        up.process.kill()
        up.process.wait()


def test_a_second_one_is_refused_at_once(up):
    up.start().ready()
    second = subprocess.run([up.tree / "pratai-client", "up", "--state", up.state, "--listen",
                             "127.0.0.1:0"], capture_output=True, text=True, timeout=10,
                            check=False)
    assert second.returncode == 1 and second.stderr.count("\n") == 1
    assert f"another 'pratai up' (pid {up.process.pid})" in second.stderr
    assert up.process.poll() is None


def test_waits_for_what_an_earlier_one_left(up):
    up.start().ready()
    up.process.terminate()
    up.process.wait(10)
    left = os.open(up.state / "alive", os.O_RDONLY)
    fcntl.flock(left, fcntl.LOCK_EX)
    starts = len(up.notes())
    up.start()
    time.sleep(0.3)
    assert len(up.notes()) == starts
    os.close(left)
    up.ready()


def test_a_child_that_refuses_at_first_is_the_end(up):
    for name in ("pratai-node", "pratai-control"):
        up.tell(name, "refuse")
        up.start()
        assert up.process.wait(20) == 1
        assert f"pratai: {name} did not start: it ended with exit code 9" in up.log()
        assert up.process.stdout.read() == ""
        assert not (up.state / "env").exists()
    wait_for(lambda: all(is_gone(n["pid"]) for n in up.notes()))


def test_a_setting_that_a_child_refuses_is_usage(up):
    up.tell("pratai-node", "refuse", "2")
    up.start()
    assert up.process.wait(20) == 2
    assert "pratai-node did not start: it ended with exit code 2" in up.log()


def test_a_deaf_child_is_killed(up):
    up.tell("pratai-node", "deaf")
    up.start().ready()
    before = time.monotonic()
    up.process.terminate()
    assert up.process.wait(15) == 0
    assert 4.5 < time.monotonic() - before < 8
    assert [n["name"] for n in up.notes(what="term")] == ["pratai-control"]


def test_a_second_signal_ends_patience(up):
    up.tell("pratai-node", "deaf")
    up.start().ready()
    up.process.send_signal(signal.SIGINT)
    wait_for(lambda: not is_gone(up.process.pid))
    time.sleep(0.2)
    before = time.monotonic()
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(10) == 0
    assert time.monotonic() - before < 2


def test_stopped_while_it_starts(up):
    up.tell("pratai-node", "mute")
    up.start()
    wait_for(lambda: up.notes("pratai-node"))
    up.process.terminate()
    assert up.process.wait(10) == 0
    assert up.process.stdout.read() == ""


def test_ipv6(up):
    url = up.start(listen="[::1]:0").ready()
    assert url.startswith("http://[::1]:")
    assert urllib.request.urlopen(url + "/readyz").status == 200


def test_a_wildcard_is_reached_by_loopback(up):
    assert up.start(listen="0.0.0.0:0").ready().startswith("http://127.0.0.1:")


@pytest.mark.parametrize("address", ["9096", "localhost", "[::1]:99999", "::1:80", ":80", "x:"])
def test_a_wrong_address(up, address):
    up.start(listen=address)
    assert up.process.wait(10) == 2
    assert up.log().count("\n") == 1 and f"--listen: '{address}' is not HOST:PORT" in up.log()


def test_a_taken_port(up):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        up.start(listen=f"127.0.0.1:{taken.getsockname()[1]}")
        assert up.process.wait(10) == 1
    assert "Address already in use" in up.log()
    assert not up.notes()


def test_nobody_reads_stdout(up):
    read, write = os.pipe()
    os.close(read)
    up.process = subprocess.Popen(
        [up.tree / "pratai-client", "up", "--state", up.state, "--listen", "127.0.0.1:0"],
        stdout=write, stderr=subprocess.DEVNULL)
    os.close(write)
    wait_for(lambda: (up.state / "env").exists())
    time.sleep(0.2)
    assert up.process.poll() is None


def test_settings_from_file_and_environment(up, tmp_path):
    conf = tmp_path / "pratai.conf"
    conf.write_text("listen = 127.0.0.2:0\nslots = 2\n")
    assert up.start("--config", str(conf), listen="127.0.0.3:0").ready().startswith(
        "http://127.0.0.3:")
    up.process.terminate()
    up.process.wait(10)
    up.process = subprocess.Popen(
        [up.tree / "pratai-client", "up", "--state", up.state, "--config", conf],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={"PATH": os.environ["PATH"]})
    assert up.ready().startswith("http://127.0.0.2:")
    conf.write_text("colour = blue\n")
    r = subprocess.run([up.tree / "pratai-client", "up", "--state", tmp_path / "s2", "--config",
                        conf], capture_output=True, text=True, check=False)
    assert r.returncode == 2 and "colour" in r.stderr


def test_a_damaged_instance_is_said_so(up):
    up.start().ready()
    up.process.terminate()
    up.process.wait(10)
    (up.state / "instance").write_text("../../x\n")
    up.start()
    assert up.process.wait(10) == 2
    assert "instance is damaged" in up.log()
