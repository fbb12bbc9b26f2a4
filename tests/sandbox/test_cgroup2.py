"""Pure cgroup v2, as `make check-vm` has it: what a sandbox's group is set to, and that it works.

Elsewhere the same suites run on hybrid machines, where none of this is there.
"""
import pathlib
import re
import subprocess

import pytest

from conftest import become_ordinary, wait_for

MIB = 1 << 20
OPTIONS = ("--memory", "64M", "--pids", "17", "--cpus", "0.25")
HOG = "x = []\nwhile True: x.append(bytearray(1 << 20))"


@pytest.fixture
def group(run):
    """A running sandbox's."""
    p = run.start(*OPTIONS, argv=["/bin/sh", "-c", "sleep 4200 & sleep 4200"])
    wait_for(lambda: len(run.processes()) >= 2, 60, "the command")
    paths = run.cgroups()
    assert len(paths) == 1, paths
    yield pathlib.Path(paths[0])
    p.kill()
    p.communicate()
    wait_for(lambda: not read(pathlib.Path(paths[0]) / "cgroup.procs"), 60, "the end")
    assert run(argv=["true"]).code == 0  # sweeps


def read(path):
    return path.read_text().strip()


def test_it_is_pure(run):
    assert pathlib.Path("/proc/self/cgroup").read_text().startswith("0::/")
    assert pathlib.Path("/sys/fs/cgroup/cgroup.controllers").exists()


def test_what_the_group_is_set_to(run, group):
    assert read(group / "memory.max") == str(64 * MIB)
    assert read(group / "memory.oom.group") == "1"
    assert read(group / "pids.max") == "17"
    quota, period = read(group / "cpu.max").split()
    assert int(quota) * 4 == int(period)
    if (group / "memory.swap.max").exists():
        assert read(group / "memory.swap.max") == "0"
    inside = {int(p) for p in read(group / "cgroup.procs").split()}
    assert set(run.processes()) < inside  # and init
    assert len(inside) == len(run.processes()) + 1


def test_memory_peak(run):
    """Linux 5.19; without it the report does not invent one."""
    code = "x = bytearray(32 << 20)"
    r = run.python(code, "--memory", "128M")
    assert r.code == 0 and 32 * MIB < r.report["memory_peak_bytes"] <= 128 * MIB, r.report
    r = run.python(code, "--memory", "128M", env={"PRATAI_DISABLE": "memory.peak"})
    assert r.code == 0 and 0 <= r.report["memory_peak_bytes"] <= 128 * MIB


def test_memory_takes_the_whole_group(run):
    """memory.oom.group: whichever process is chosen, all go."""
    r = run.sh("sleep 4200 & (python3 -c '%s'; echo survived) & wait" % HOG, "--memory", "64M",
               timeout=300)
    assert r.report["reason"] == "memory_exceeded" and r.code == 137, r.err
    assert "survived" not in r.out
    assert r.report["memory_peak_bytes"] <= 64 * MIB


def test_pids(run):
    r = run.sh("for i in $(seq 40); do sleep 5 & done 2>&1; exit 0", "--pids", "17", timeout=300)
    assert r.report["pids_limit_hits"] > 0 and r.report["pids_peak"] <= 17, r.report


def test_cpu(run):
    r = run.python("import time\nend = time.process_time() + 0.5\n"
                   "while time.process_time() < end: pass", "--cpus", "0.25", timeout=300)
    assert r.code == 0 and r.report["wall_us"] > 1.2e6, r.report


def strace(run, tmp, *options, argv, env=None):
    log = tmp / "strace"
    p = subprocess.run(["strace", "-f", "-qq", "-o", log, "-e", "trace=clone3,clone,openat,write",
                        *run.command(options, argv)], env=run.environment(env), timeout=300,
                       capture_output=True, check=False)
    return p.returncode, log.read_text()


def test_it_is_cloned_into_its_group(run, tmp):
    """And never moved there, which takes milliseconds in a machine that has rested."""
    code, log = strace(run, tmp, "--memory", "64M", argv=["true"])
    assert code == 0, log
    assert re.search(r"clone3\(.*CLONE_INTO_CGROUP.*cgroup=\d+", log), log
    code, log = strace(run, tmp, "--memory", "64M", argv=["true"], env={"PRATAI_DISABLE": "clone3"})
    assert code == 0 and "CLONE_INTO_CGROUP" not in log


def test_it_is_killed_by_its_group(run, tmp):
    words = {"options": ["--timeout", "3s"], "argv": ["sleep", "4200"]}
    code, log = strace(run, tmp, *words["options"], argv=words["argv"])
    assert code == 124 and re.search(r'openat\(.*cgroup\.kill"', log), log
    code, log = strace(run, tmp, *words["options"], argv=words["argv"],
                       env={"PRATAI_DISABLE": "cgroup.kill"})
    assert code == 124 and 'cgroup.kill"' not in log


def test_a_user_with_a_delegated_group(run, delegated):
    become_ordinary(run, delegated)
    code = "import time; x = bytearray(32 << 20); print(open('/proc/self/cgroup').read())"
    r = run.python(code, "--memory", "128M", "--pids", "17", timeout=300)
    assert r.code == 0 and r.out.startswith("0::/\n"), r.err
    assert 32 * MIB < r.report["memory_peak_bytes"] <= 128 * MIB
    assert [d.name for d in delegated.iterdir() if d.is_dir()] == ["pratai-supervisor"]
