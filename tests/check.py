#!/usr/bin/python3
"""Runs the test suites one after another, and sums them up in one last line:

    N passed, N failed, N skipped

A skip that tests/skips.txt does not allow counts as a failure; so does a program that ends
without a word.  The whole output of a suite is in BUILD/check/SUITE.log; what failed is
shown at once.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as xml

TOP = pathlib.Path(__file__).resolve().parent.parent


# What an older kernel may lack, and those tests of tests/sandbox that meet it, which its
# fallback must pass as well.
FALLBACKS = {
    "clone3": ("run", "limits"), "cgroup2": ("run", "limits"), "cgroup.kill": ("limits",),
    "memory.peak,pids.peak": ("limits",), "tmpfs.xattr": ("run", "isolation"),
    "landlock": ("isolation",), "time.namespace": ("isolation",),
}


class Tally:
    def __init__(self):
        self.passed, self.failed, self.skipped = 0, 0, 0


def allowed_skips():
    lines = (TOP / "tests/skips.txt").read_text().splitlines()
    return [re.compile(l) for l in lines if l.strip() and not l.startswith("#")]


def run(argv, log, env):
    with open(log, "wb") as out:
        return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                              cwd=TOP, env=env).returncode


def show(log, most=60):
    lines = pathlib.Path(log).read_text(errors="replace").splitlines()
    print("\n".join("    " + l for l in lines[-most:]))


class Check:
    def __init__(self, build):
        self.build = build
        self.logs = build / "check"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.allowed = allowed_skips()
        self.tally = Tally()
        # Without the proxy that this machine may reach the world by.
        local = ",".join(filter(None, [os.environ.get("no_proxy"), "127.0.0.1,localhost,[::1]"]))
        self.env = dict(os.environ, PRATAI_BUILD=str(build), PYTHONDONTWRITEBYTECODE="1",
                        no_proxy=local, NO_PROXY=local)

    def count(self, suite, passed, failed, skips, log, start):
        bad = [s for s in skips if not any(a.search(s) for a in self.allowed)]
        self.tally.passed += passed
        self.tally.failed += failed + len(bad)
        self.tally.skipped += len(skips) - len(bad)
        word = "FAILED" if failed or bad else "ok"
        print(f"{word:6} {suite}: {passed} passed, {failed} failed, {len(skips)} skipped "
              f"({time.time() - start:.0f} s)", flush=True)
        for s in bad:
            print(f"    skipped, and tests/skips.txt does not allow it: {s}")
        if failed:
            show(log)

    def unit(self, only):
        for program in sorted((self.build / "tests/unit").glob("test_*")):
            if program.suffix or not os.access(program, os.X_OK) or \
                    only and f"unit/{program.name}" not in only:
                continue
            start, log = time.time(), self.logs / (program.name + ".log")
            code = run([str(program)], log, self.env)
            text = log.read_text(errors="replace")
            ok = set(re.findall(r"^\[       OK \] (\S+)", text, re.M))
            bad = set(re.findall(r"^\[  FAILED  \] (\S+)", text, re.M)) - ok
            bad = {b for b in bad if not b.isdigit()}
            skips = set(re.findall(r"^\[  SKIPPED \] ([A-Za-z_]\S*)", text, re.M))
            failed = len(bad) or (1 if code or not ok | skips else 0)
            self.count(f"unit/{program.name}", len(ok - skips), failed,
                       [f"unit/{program.name}::{s}" for s in sorted(skips)], log, start)

    def pytest(self, suite, *words, tests=None, env=None):
        start, log = time.time(), self.logs / (suite + ".log")
        report = self.logs / (suite + ".xml")
        report.unlink(missing_ok=True)
        code = run(["/usr/bin/python3", "-m", "pytest", "-q", "-ra",
                    "-p", "no:cacheprovider", f"--junitxml={report}", *(tests or [f"tests/{suite}"]), *words],
                   log, dict(self.env, **(env or {})))
        passed, failed, skips = 0, 0, []
        if report.exists():
            for case in xml.parse(report).getroot().iter("testcase"):
                name = f"{suite}/{case.get('classname', '').split('.')[-1]}::{case.get('name')}"
                if case.find("failure") is not None or case.find("error") is not None:
                    failed += 1
                elif case.find("skipped") is not None:
                    skips.append(f"{name}: {case.find('skipped').get('message')}")
                else:
                    passed += 1
        if code and not failed:
            failed = 1
        self.count(suite, passed, failed, skips, log, start)

    def fallbacks(self):
        pure_v2 = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
        for features, names in FALLBACKS.items():
            if features == "cgroup2" and pure_v2:
                continue  # nothing would be left
            self.pytest("fallback-" + features.replace(",", "-"),
                        "-k", "not test_every_exit_code and not options1",
                        tests=[f"tests/sandbox/test_{n}.py" for n in names],
                        env={"PRATAI_DISABLE": features})
        self.pytest("fallback-image", tests=["tests/image/test_run.py"], env={"PRATAI_DISABLE": "tmpfs.xattr"})

    def command(self, suite, *argv):
        start, log = time.time(), self.logs / (suite + ".log")
        failed = 1 if run(list(argv), log, self.env) else 0
        self.count(suite, 1 - failed, failed, [], log, start)

    def other(self, suite, *argv):
        """A whole check of another kind: its own last line is added to ours."""
        start, log = time.time(), self.logs / (suite + ".log")
        code = run(list(argv), log, self.env)
        text = log.read_text(errors="replace")
        found = re.findall(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", text, re.M)
        passed, failed, skipped = map(int, found[-1]) if found else (0, 1, 0)
        if code and not failed:
            failed = 1
        skips = re.findall(rf"^SKIPPED ({suite}: .*)$", text, re.M)
        self.tally.skipped += skipped - len(skips)
        self.count(suite, passed, failed, skips, log, start)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build")
    parser.add_argument("--quick", action="store_true", help="what needs no other server")
    parser.add_argument("suites", nargs="*", help="only these; unit/test_X is one program")
    a = parser.parse_args()
    c = Check((TOP / a.build).resolve())
    sanitized = "-san" in a.build

    def wanted(suite):
        return suite in a.suites if a.suites else True

    if wanted("unit"):
        c.unit(())
    elif any(s.startswith("unit/") for s in a.suites):
        c.unit(a.suites)
    for suite in ("structure", "runtime", "cli", "sandbox", "escape", "image"):
        # Loaded libraries and start-up times are another matter in a sanitizer build; the
        # sandbox suite runs there, too.
        if wanted(suite) and (TOP / "tests" / suite).is_dir() and not (
                sanitized and suite in ("structure", "cli")):
            c.pytest(suite, *(["-m", "not slow"] if a.quick and suite == "image" else []))
    if wanted("fallbacks") and not a.quick:
        c.fallbacks()
    if wanted("manuals") and not sanitized:
        c.command("manuals", "make", "check-man")
    if wanted("system"):
        # In an emulated machine (tests/vm) there is no network.
        left_out = ["slow"] * a.quick + ["index"] * ("PRATAI_EMULATED" in os.environ)
        c.pytest("system", "-m", " and ".join("not " + m for m in left_out))
    if "faults" in a.suites:  # of a test build, which has nothing else
        c.pytest("faults", tests=["tests/sandbox/test_faults.py"])
    if "service" in a.suites:
        c.pytest("service")
    if "soak" in a.suites or not a.quick and wanted("soak"):
        # In an emulated machine nobody else disturbs the counts, and fewer do; a stack for each
        # would take it longer than it has.
        emulated = "PRATAI_EMULATED" in os.environ
        if not emulated:
            c.pytest("soak-counts", tests=["tests/soak"])
        c.other("soak", "/usr/bin/python3", "tests/soak/soak.py", str(c.build), "--row",
                "300" if emulated else "900", "--seconds", "4", *["--no-egress"] * emulated)
    if not a.quick and wanted("vm"):
        c.other("vm", "make", "check-vm")
    if not a.quick and wanted("sanitizers"):
        c.other("sanitizers", "make", "SAN=address,undefined", "SUITES=", "check-quick")
    t = c.tally
    print(f"{t.passed} passed, {t.failed} failed, {t.skipped} skipped")
    return 1 if t.failed or not t.passed else 0


if __name__ == "__main__":
    sys.exit(main())
