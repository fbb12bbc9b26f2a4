"""Each step of the plan fails in turn, and the caller is killed at each: nothing is left.

In test builds (SAN=, DEBUG=) only: PRATAI_FAIL_AT and PRATAI_STOP_AT are not known to others.
No process, cgroup, mount or file may stay; a namespace has no life of its own without one of
them.
"""
import os
import pathlib
import subprocess

import pytest

from conftest import HYBRID, become_ordinary, wait_for

# Who runs it, and which feature of the kernel is missing.
VARIANTS = [("root", ""), ("root", "tmpfs.xattr"), ("root", "clone3"), ("user", ""),
            ("user", "tmpfs.xattr")] + [("delegated", "")] * (not HYBRID)


@pytest.fixture(params=VARIANTS, ids="-".join)
def who(request, run):
    """`run` as that one, with what the tests here need."""
    name, disabled = request.param
    if name != "root":
        if subprocess.run(["unshare", "-U", "true"], user=1001, capture_output=True,
                          check=False).returncode:
            pytest.skip("this machine gives ordinary users no user namespaces")
        become_ordinary(run, request.getfixturevalue("delegated") if name == "delegated" else None)
    run.variables.update([run.mark.split("=")], PRATAI_DISABLE=disabled)
    run.options = ["--bind", "/usr:/mnt"] + ["--memory", "128M"] * (name != "user")
    r = run(*run.options, argv=["true"])
    assert r.code == 0, r.err
    return run


def steps(run):
    plan = run("--print-plan", *run.options, argv=["true"]).out
    found = list(dict.fromkeys(line.split()[2] for line in plan.splitlines()))
    assert len(found) > 20 and found[-1] == "exec", plan
    return found


def files(run):
    """Where a sandbox could leave any: the image's place, the slots', temporary ones."""
    tops = [os.environ["PRATAI_ROOT"], "/run/pratai", str(run.tmp)]
    return {os.path.join(top, n) for t in tops for top, dirs, names in os.walk(t)
            for n in dirs + names if not n.startswith("report.")} | \
        {n for t in ("/tmp", "/dev/shm", "/var/tmp") for n in os.listdir(t) if "pratai" in n
         and not n.startswith("pratai-test") and not n.startswith("pratai-system")}


def mine(run):
    found = {}
    for p in run.processes(ours=True):
        try:
            found[p] = pathlib.Path(f"/proc/{p}/comm").read_text()
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has ended meanwhile
    return found


def test_a_step_that_fails_leaves_nothing(who):
    before = files(who)
    for step in steps(who):
        r = who(*who.options, argv=["sleep", "4200"], env={"PRATAI_FAIL_AT": step})
        assert r.code == 125 and r.report["reason"] == "setup_failed", (step, r.code, r.err)
        assert r.err == f"pratai run: {step}: PRATAI_FAIL_AT\n"
        wait_for(lambda: not mine(who), what=f"the end of all after {step}")
        assert not who.cgroups(), step
    assert files(who) == before
    assert who(*who.options, argv=["true"]).code == 0


def test_the_caller_is_killed_at_each_step(who):
    """Its cgroup is left, empty; the next run removes it."""
    before = files(who)
    for step in steps(who):
        p = who.start(*who.options, argv=["sleep", "4200"], env={"PRATAI_STOP_AT": step})
        assert p.stderr.readline() == b"stopped at %s\n" % step.encode()
        p.kill()
        p.wait()
        wait_for(lambda: not mine(who), what=f"the end of all after {step}")
        p.stdout.close()
        p.stderr.close()
    assert files(who) == before
    assert who(*who.options, argv=["true"]).code == 0
    assert not who.cgroups()
