"""The installed unit under systemd, in a virtual machine that `make check-vm` boots.

Nothing here is for a machine that somebody uses: it installs below /usr/local and starts the
service.
"""
import json
import os
import pathlib
import re
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("PRATAI_BUILD", "build")
GROUP = pathlib.Path("/sys/fs/cgroup/system.slice/pratai.service")
PATIENCE = 300

pytestmark = pytest.mark.skipif("vm_systemd=1" not in open("/proc/cmdline").read(),
                                reason="not in the virtual machine with systemd")


def wait_for(condition, what):
    end = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {PATIENCE} s for {what}"
        time.sleep(0.1)
    return value


def run(*words, check=True):
    p = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=PATIENCE,
                       check=False)
    assert p.returncode == 0 or not check, (words, p.stdout, p.stderr, journal())
    return p


def journal():
    return subprocess.run(["journalctl", "-u", "pratai", "-n", "50", "--no-pager"],
                          capture_output=True, text=True, check=False).stdout


def state():
    return run("systemctl", "is-active", "pratai", check=False).stdout.strip()


def cli(*words, check=True):
    token = pathlib.Path("/var/lib/pratai/token").read_text().strip()
    return run("env", f"OS_TOKEN={token}", "/usr/local/bin/pratai", *words, check=check)


def is_serving():
    try:
        return cli("cluster-status", check=False).returncode == 0
    except OSError:
        return False


def groups():
    return [pathlib.Path(top) / d for top, dirs, _ in os.walk("/sys/fs/cgroup") for d in dirs
            if d.startswith("pratai-") and d != "pratai-supervisor"]


@pytest.fixture(scope="module")
def service():
    run("make", "-C", ROOT, f"B={BUILD}", "install", "PREFIX=/usr/local")
    run("systemctl", "daemon-reload")
    run("systemctl", "start", "pratai")
    wait_for(is_serving, "the platform")
    yield
    run("systemctl", "stop", "pratai")
    assert state() in ("inactive", "failed")
    assert not groups()
    assert not GROUP.exists()


def execute(name, payload):
    r = cli("function-execute", name, "--data", json.dumps(payload), check=False)
    assert r.returncode == 0, (r.stdout, r.stderr, journal())
    return r.stdout


def test_a_function(service, tmp_path):
    (tmp_path / "main.py").write_text("import time\ndef main(payload=None):\n"
                                      "    time.sleep(payload)\n    return 'slept'\n")
    cli("function-create", "naps", "--file", tmp_path, "--type", "wait_for_response",
        "--memory", "64")
    assert "slept" in execute("naps", 0)


def test_the_nodes_groups_are_below_the_services(service):
    """Delegate=: all that the service makes is in its own sub-tree, itself in a leaf."""
    main = int(run("systemctl", "show", "-p", "MainPID", "--value", "pratai").stdout)
    mine = pathlib.Path(f"/proc/{main}/cgroup").read_text()
    assert mine.startswith("0::/system.slice/pratai.service"), mine
    assert {"cpu", "memory", "pids"} <= set((GROUP / "cgroup.controllers").read_text().split())
    assert {"cpu", "memory", "pids"} <= set((GROUP / "cgroup.subtree_control").read_text().split())
    assert (GROUP / "cgroup.procs").read_text() == ""  # no internal processes
    assert groups() and all(GROUP in g.parents for g in groups())


def test_a_sandbox_has_its_limits(service):
    p = subprocess.Popen(["env", "OS_TOKEN=" + pathlib.Path("/var/lib/pratai/token").read_text()
                          .strip(), "/usr/local/bin/pratai", "function-execute", "naps",
                          "--data", "20"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        used = wait_for(lambda: [g for g in GROUP.rglob("memory.max")
                                 if g.read_text().strip() == str(64 << 20)
                                 and (g.parent / "cgroup.procs").read_text()], "its group")
        group = used[0].parent
        assert (group / "memory.oom.group").read_text() == "1\n"
        assert (group / "pids.max").read_text() == "64\n"
        assert re.match(r"(\d+) \1\n", (group / "cpu.max").read_text())  # one processor
    finally:
        p.communicate(timeout=PATIENCE)


def test_systemd_starts_it_again(service):
    main = int(run("systemctl", "show", "-p", "MainPID", "--value", "pratai").stdout)
    os.kill(main, 9)
    wait_for(lambda: int(run("systemctl", "show", "-p", "MainPID", "--value", "pratai").stdout)
             not in (0, main), "another main process")
    wait_for(is_serving, "the platform, again")
    assert "slept" in execute("naps", 0)
