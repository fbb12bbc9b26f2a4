"""The whole system: `pratai up` with the built programs, real sandboxes, a real client.

A platform is one `pratai up` on a state directory of its own and a port that the kernel
chose.  Most tests share one for the session; a test that kills or restarts something takes
one of its own (`new_platform`).  Each ends at the leak gate: nothing that carries the state
directory or the instance id is left running, mounted, or as a cgroup, no network namespace
of its processes is still held by anybody, and no file lies where temporary files do.

PRATAI_BUILD names the build directory.  In a sanitizer build the programs write what they
find into files that the gate reads, because most of their processes have no terminal.
"""
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import zipfile

import pytest
import requests

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("PRATAI_BUILD", "build")
PRATAI = BUILD / "pratai"
sys.path.insert(0, str(ROOT / "tests"))
FUNCTIONS = ROOT / "tests/functions"

# The ids of those who are not root: the control plane, the driver, the sandboxes' ranges.
OUR_IDS = range(1878982657, 1879048192 + 65536 * 4096)
SANITIZER_WORDS = re.compile(r"ERROR: \w+Sanitizer|runtime error:|WARNING: \w+Sanitizer")
# Every bound of time is a multiple of this: an emulated machine (tests/vm) needs it.
PATIENCE = 20 if os.environ.get("PRATAI_EMULATED") else 1
END_STATES = {"succeeded", "cancelled", "dead", "failed", "timeout", "memory_exceeded"}


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes long, or much of the machine")
    config.addinivalue_line("markers", "index: needs a package index")


def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.skipif(os.geteuid() != 0, reason="needs root"))


def wait_for(condition, seconds=20, what="the condition", pause=0.02):
    """Polls until condition() is true, and returns what it gave."""
    seconds *= PATIENCE
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(pause)
    return value


def make_zip(files):
    """{name: text or bytes} as a zip's bytes; a name that ends in / is a directory."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for name, content in files.items():
            z.writestr(name, content)
    return out.getvalue()


def package(source):
    """The zip of: bytes as they are, {name: content}, a sample function's name, or the text
    of a main.py."""
    if isinstance(source, bytes):
        return source
    if isinstance(source, dict):
        return make_zip(source)
    if re.fullmatch(r"\w+", source):
        directory = FUNCTIONS / source
        return make_zip({str(p.relative_to(directory)): p.read_bytes()
                         for p in sorted(directory.rglob("*"))
                         if p.is_file() and "__pycache__" not in p.parts})
    return make_zip({"main.py": source})


def number_of(pid, field):
    """A number of /proc/PID/status; None when the process is gone."""
    try:
        text = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    return int(re.search(rf"^{field}:\s*([0-9a-f]+)", text, re.M)[1],
               16 if field.startswith("Cap") else 10)


def pids():
    return [int(d) for d in os.listdir("/proc") if d.isdigit()]


def is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except OSError:
        return False


def read_bytes(path):
    try:
        return pathlib.Path(path).read_bytes()
    except OSError:
        return b""


def network_namespaces(pid):
    """Those the process is in or holds a descriptor of, as `net:[…]`."""
    found = set()
    try:
        found.add(os.readlink(f"/proc/{pid}/ns/net"))
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{fd}")
            except OSError:
                continue
            if target.startswith("net:["):
                found.add(target)
    except OSError:
        pass
    return found


def temporary_files():
    found = set()
    for top in ("/tmp", "/var/tmp", "/dev/shm", "/run"):
        for entry in os.scandir(top):
            try:
                if entry.stat(follow_symlinks=False).st_uid in OUR_IDS:
                    found.add(entry.path)
            except FileNotFoundError:
                pass
    return found


class Result:
    def __init__(self, p):
        self.code, self.out_bytes = p.returncode, p.stdout
        self.out, self.err = p.stdout.decode(), p.stderr.decode()

    def json(self):
        return json.loads(self.out)


class Platform:
    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="pratai-system-", dir="/tmp"))
        self.dir.chmod(0o755)
        self.state = self.dir / "state"
        self.reports = self.dir / "reports"
        self.temporary = self.dir / "tmp"
        for d in (self.reports, self.temporary):
            d.mkdir()
            d.chmod(0o1777)
        self.log_path = self.dir / "log"
        self.process = self.url = self.token = None
        self.namespaces = set()
        self.files = temporary_files()
        self.mark = b"SYSTEM_TEST=" + uuid.uuid4().hex.encode()
        self.descriptors = len(os.listdir("/proc/self/fd"))
        self.web = None

    # ---- life ----

    def environment(self):
        env = {k: v for k, v in os.environ.items() if not k.startswith(("OS_", "PRATAI_"))}
        env["TMPDIR"] = str(self.temporary)
        for name in ("ASAN", "UBSAN", "LSAN"):
            env[f"{name}_OPTIONS"] = f"log_path={self.reports}/{name.lower()}:print_stacktrace=1"
        return env

    def start(self, *options, seconds=60):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [str(PRATAI), "up", "--state", str(self.state), "--listen", "127.0.0.1:0",
                 *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                env=dict(self.environment(), **dict([self.mark.decode().split("=")])), text=True)
        line = self.process.stdout.readline()
        assert line.startswith("ready http://"), self.log()
        self.url = line.split()[1]
        self.token = (self.state / "token").read_text().strip()
        if self.web:
            self.web.close()
        self.web = requests.Session()
        self.web.trust_env = False
        self.web.headers["X-Auth-Token"] = self.token
        return self

    def end(self, how=signal.SIGTERM, seconds=30):
        """Ends `up`, and waits until nothing of it runs."""
        self.note_namespaces()
        self.process.send_signal(how)
        code = self.process.wait(seconds * PATIENCE)
        self.process.stdout.close()
        assert code == (0 if how == signal.SIGTERM else -how), self.log()
        wait_for(lambda: not self.everything(), 15, "the end of all processes")
        self.web.close()
        return code

    def close(self):
        """The leak gate, after the end; then the directory goes."""
        try:
            if self.process and self.process.returncode is None:
                self.end()
            self.gate()
        finally:
            if self.process and self.process.returncode is None:
                self.process.kill()
                self.process.wait()
                self.process.stdout.close()
            try:
                self.check_sanitizers()
            finally:
                shutil.rmtree(self.dir)

    def gate(self):
        assert not self.everything()
        assert not self.mounted(), "mounts are left"
        assert temporary_files() <= self.files
        assert not list(self.temporary.iterdir())
        assert not list((self.state / "node/tmp").iterdir())
        held = {n: pid for pid in pids() for n in network_namespaces(pid) & self.namespaces}
        assert not held, "network namespaces are left"
        assert len(os.listdir("/proc/self/fd")) <= self.descriptors

    def check_sanitizers(self):
        for report in self.reports.iterdir():
            pytest.fail(report.read_text(errors="replace")[:20000])
        found = SANITIZER_WORDS.search(self.log())
        assert not found, self.log()[found.start():][:20000]

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    # ---- what belongs to it ----

    @property
    def instance(self):
        return (self.state / "instance").read_text().strip()

    def cgroups(self):
        name = "pratai-" + self.instance
        return [pathlib.Path(top, d) for top, dirs, _ in os.walk("/sys/fs/cgroup") for d in dirs
                if d == name]

    def sandboxes(self):
        """Pids of what runs in its cgroups, but the node itself."""
        mark = f"/pratai-{self.instance}/".encode()
        return [p for p in pids() if mark in read_bytes(f"/proc/{p}/cgroup")]

    def processes(self, name=None, root=None):
        """Those that have its environment, so all but what runs in sandboxes; name: of the
        program; root: True, False, or None for both."""
        found = []
        for p in pids():
            if self.mark in read_bytes(f"/proc/{p}/environ").split(b"\0") and is_alive(p):
                program = read_bytes(f"/proc/{p}/cmdline").split(b"\0")[0].decode()
                if name in (None, program.rpartition("/")[2]) and \
                        root in (None, number_of(p, "Uid") == 0):
                    found.append(p)
        return found

    def everything(self):
        return self.processes() + self.sandboxes() + self.cgroups()

    def control(self):
        return self.processes("pratai-control")

    def driver(self):
        """The node's process that talks to the network: the child of `up`."""
        return [p for p in self.processes("pratai-node")
                if number_of(p, "PPid") == self.process.pid]

    def spawner(self):
        drivers = self.driver()
        return [p for p in self.processes(root=True) if number_of(p, "PPid") in drivers]

    def inits(self):
        """The first process of each sandbox in use or ready, which runs our own code."""
        inside = set(self.sandboxes())
        return [p for p in inside if number_of(p, "PPid") not in inside]

    def mounted(self):
        """Processes (of the machine) whose mounts name the state directory or the instance."""
        marks = str(self.state).encode(), self.instance.encode()
        return [p for p in pids() if any(m in read_bytes(f"/proc/{p}/mountinfo") for m in marks)]

    def note_namespaces(self):
        own = network_namespaces(os.getpid())
        for p in self.processes() + self.sandboxes():
            self.namespaces |= network_namespaces(p) - own

    # ---- using it ----

    def cli(self, *words, stdin=b"", env=None, timeout=120):
        variables = self.environment()
        variables.update({"OS_PRATAI_URL": self.url, "OS_TOKEN": self.token}, **(env or {}))
        return Result(subprocess.run([str(PRATAI), *map(str, words)], input=stdin,
                                     capture_output=True, env=variables,
                                     timeout=timeout * PATIENCE, check=False))

    def ok(self, *words, **kw):
        r = self.cli(*words, **kw)
        assert r.code == 0, r.err
        return r

    def http(self, method, path, timeout=60, **kw):
        return self.web.request(method, self.url + path, timeout=timeout * PATIENCE, **kw)

    def get(self, path, **kw):
        r = self.http("GET", path, **kw)
        assert r.status_code == 200, r.text
        return r.json()

    def upload(self, metadata, source=b"", method="POST", path="/v1/functions"):
        """The request alone: whatever it answers."""
        text = metadata if isinstance(metadata, (str, bytes)) else json.dumps(metadata)
        parts = {"metadata": (None, text, "application/json")}
        if source:
            parts["zip_file"] = ("f.zip", package(source), "application/zip")
        return self.http(method, path, files=parts)

    def settled(self, name, seconds=60):
        """The function, once its newest version is ready or failed."""
        return wait_for(lambda: (f := self.get(f"/v1/functions/{name}"))["state"] != "building"
                        and f, seconds, f"the build of {name}")

    def create(self, source, state="ready", seconds=60, **metadata):
        """A new function with a name of its own; its name."""
        metadata.setdefault("name", "f-" + uuid.uuid4().hex[:12])
        r = self.upload(metadata, source)
        assert r.status_code == 201, r.text
        f = self.settled(metadata["name"], seconds)
        assert f["state"] == state, f
        return metadata["name"]

    def wait_function(self, source, **metadata):
        return self.create(source, type="wait_for_response", **metadata)

    def call(self, name, payload=None, **kw):
        """The webhook.  payload: a value for JSON, or bytes as they are."""
        body = payload if isinstance(payload, bytes) else \
            b"" if payload is None else json.dumps({"payload": payload}).encode()
        return self.http("POST", f"/v1/functions/{name}", data=body, **kw)

    def send(self, name, payload=None, **kw):
        """An async event's id."""
        r = self.call(name, payload, **kw)
        assert r.status_code == 202, r.text
        return r.json()["event_id"]

    def event(self, event_id):
        return self.get(f"/v1/events/{event_id}")

    def ended(self, event_id, seconds=60):
        """The event's record, once it ended."""
        def look():
            r = self.http("GET", f"/v1/events/{event_id}")
            return r.status_code == 200 and r.json()["state"] in END_STATES and r.json()
        return wait_for(look, seconds, f"the end of {event_id}")

    def log_of(self, event_id):
        return "\n".join(line["l"] for line in self.get(f"/v1/events/{event_id}/logs")["items"])

    def counts(self):
        return self.get("/v1/cluster")["events"]

    def problem(self, r, status, kind):
        """Asserts that r is this refusal, in one clear sentence, which it gives."""
        assert r.status_code == status, (r.status_code, r.text)
        assert r.headers["Content-Type"].startswith("application/problem+json")
        p = r.json()
        assert (p["type"], p["status"]) == (kind, status)
        assert p["title"] and p["detail"] and len(p["detail"]) < 4096
        return p["detail"]


@pytest.fixture(scope="session")
def platform():
    p = Platform()
    try:
        p.start()
        yield p
        p.ok("cluster-status")
    finally:
        p.close()


@pytest.fixture
def new_platform():
    p = Platform()
    try:
        yield p
    finally:
        p.close()


@pytest.fixture(scope="session")
def echo(platform):
    return platform.wait_function("echo")


@pytest.fixture
def serves(platform, echo):
    """After the test the platform still does its job."""
    yield
    r = platform.call(echo, {"still": "here"}, timeout=15)
    assert (r.status_code, r.json()) == (200, {"still": "here"})
