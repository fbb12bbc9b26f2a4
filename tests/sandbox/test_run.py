"""What `pratai run` promises its user: exit codes, options, report, output."""
import json
import os
import pathlib
import re
import signal
import socket
import subprocess

import pytest

from conftest import HYBRID, PRATAI, ROOT, wait_for

FIELDS = {"reason", "exit_code", "signal", "wall_us", "cpu_us", "memory_peak_bytes", "pids_peak",
          "pids_limit_hits", "oom_kills", "output_bytes", "steps_us", "error"}


@pytest.mark.parametrize("code", [0, 1, 2, 63, 64, 77, 123, 124, 125, 126, 127, 128, 137, 153, 254,
                                  255])
def test_exit_code_is_the_commands(run, code):
    r = run.sh("exit %d" % code)
    assert r.code == code
    assert r.report["reason"] == "exited" and r.report["exit_code"] == code
    assert r.report["signal"] is None and r.err == ""


def test_every_exit_code(run, busybox):
    for code in range(256):
        r = run("--rootfs", busybox, argv=["/bin/sh", "-c", "exit %d" % code])
        assert r.code == code, r.err


@pytest.mark.parametrize("name", ["KILL", "TERM", "SEGV", "ABRT", "HUP", "PIPE"])
def test_signals(run, name):
    r = run.sh("kill -%s $$" % name)
    number = getattr(signal, "SIG" + name)
    assert r.code == 128 + number
    assert (r.report["reason"], r.report["signal"]) == ("signaled", number)


def test_not_found(run):
    r = run(argv=["/nonexistent/command"])
    assert (r.code, r.report["reason"]) == (127, "not_found")
    assert r.err == "pratai run: exec: /nonexistent/command: not found\n"
    r = run(argv=["nosuchcommand"])
    assert (r.code, r.report["reason"]) == (127, "not_found")


def test_not_executable(run, tmp):
    (tmp / "plain").write_text("#!/bin/sh\n")
    (tmp / "plain").chmod(0o644)
    (tmp / "garbage").write_bytes(b"\0\1\2 not a program")
    (tmp / "interpreter").write_text("#!/nonexistent/interpreter\n")
    for name in "garbage", "interpreter":
        (tmp / name).chmod(0o755)
    for name, word in ("plain", "Permission denied"), ("garbage", "Exec format error"), (
            "interpreter", "interpreter"):
        r = run("--bind", "%s:/work" % tmp, argv=["/work/" + name])
        assert (r.code, r.report["reason"]) == (126, "not_executable")
        assert word in r.err and r.err.count("\n") == 1
    assert run(argv=["/tmp"]).code == 126


def test_path_is_searched_inside(run):
    assert run(argv=["true"]).code == 0
    assert run("--env", "PATH=/nonexistent", argv=["true"]).code == 127


def test_stdio_is_the_callers(run):
    r = run(argv=["/bin/cat"], stdin=b"in and out\n")
    assert (r.code, r.out) == (0, "in and out\n")
    assert r.report["output_bytes"] == 0
    r = run.sh("echo to stderr >&2")
    assert r.err == "to stderr\n"


@pytest.mark.parametrize("options", [[], ["--output-max", "1M"]])
def test_a_closed_descriptor_is_not_replaced_by_one_of_ours(run, options):
    """The command would have a directory of the machine as its standard input."""
    words = run.command(options, ["/bin/readlink", "/proc/self/fd/0", "/proc/self/fd/2"])
    p = subprocess.run(["/bin/sh", "-c", 'exec "$@" <&- 2>&-', "sh", *words], check=False,
                       env=run.environment(), stdout=subprocess.PIPE, text=True)
    stdin, stderr = p.stdout.splitlines()
    assert (p.returncode, stdin) == (0, "/dev/null")
    assert stderr.startswith("pipe:") if options else stderr == "/dev/null"


# 0 where the kernel cannot tell.
WITH_PIDS_PEAK = "pids.peak" not in os.environ.get("PRATAI_DISABLE", "")


def test_report(run):
    r = run.python("x = bytearray(30 << 20); sum(range(10**6))")
    assert set(r.report) == FIELDS
    assert r.report["wall_us"] > 0 and r.report["cpu_us"] > 0
    assert 30 << 20 < r.report["memory_peak_bytes"] < 200 << 20
    assert r.report["pids_peak"] >= WITH_PIDS_PEAK and r.report["oom_kills"] == 0
    assert r.report["error"] is None
    steps = r.report["steps_us"]
    for name in "clone", "maps", "root", "proc", "pivot", "fork", "caps", "filter", "total":
        assert steps[name] >= 0
    assert sum(v for k, v in steps.items() if k != "total") <= steps["total"] * 3


def test_report_to_stdout(run):
    p = subprocess.run([str(PRATAI), "run", "--report", "-", "--", "echo", "hi"],
                       capture_output=True, text=True, check=True)
    first, second = p.stdout.splitlines()
    assert first == "hi" and json.loads(second)["reason"] == "exited"


def test_report_that_cannot_be_written(run):
    """Nothing is run whose report would be lost."""
    for to, ran in ("/nonexistent/r", ""), ("/dev/full", "ran\n"):
        p = subprocess.run([str(PRATAI), "run", "--report", to, "--", "echo", "ran"],
                           capture_output=True, text=True)
        assert p.returncode == 125 and p.stderr.count("\n") == 1 and f"--report {to}" in p.stderr
        assert p.stdout == ran


@pytest.mark.parametrize("words", [
    ["--memory", "x"], ["--memory", "0"], ["--memory", "-1"], ["--memory", "1e9"],
    ["--memory", "99999999999999999999"], ["--cpus", "0"], ["--cpus", "-1"], ["--cpus", "nan"],
    ["--pids", "0"], ["--pids", "1.5"], ["--timeout", "5"], ["--timeout", "0s"],
    ["--timeout", "-1s"], ["--tmp-size", "abc"], ["--output-max", "1X"], ["--network", "maybe"],
    ["--allow", "1.2.3.4"], ["--bind", "x"], ["--bind", ":/x"], ["--bind", "/tmp:rel"],
    ["--bind", "/tmp:/"], ["--bind", "/tmp:/proc/x"], ["--bind", "/tmp:/dev"],
    ["--bind", "/tmp:/a/../b"], ["--bind", "/tmp:/x:rwx"], ["--bind", "/nonexistent:/x"],
    ["--env", "=x"], ["--env", "NAME"], ["--workdir", "relative"], ["--workdir", "/nonexistent"],
    ["--workdir", "/proc/self/fd/9"], ["--uid", "-1"], ["--uid", "65536"], ["--uid", "abc"],
    ["--hostname", "x" * 65], ["--hostname", ""], ["--hostname", "a\nb"], ["--hostname", "../x"], ["--image", "nosuch"], ["--rootfs", "/nonexistent"],
    ["--rootfs", "/etc/passwd"], ["--rootfs", "/tmp", "--image", "host"], ["--nosuchoption"],
    ["--memory"], ["--memory=", "true"], ["--help=x"],
])
def test_wrong_options(run, words):
    p = subprocess.run([str(PRATAI), "run", *words, "--", "true"], capture_output=True, text=True)
    assert p.returncode == 125
    assert p.stderr.startswith("pratai run: ") and p.stderr.count("\n") == 1 and p.stdout == ""


def test_no_command(run):
    p = subprocess.run([str(PRATAI), "run"], capture_output=True, text=True)
    assert p.returncode == 125 and p.stderr.count("\n") == 1


def test_environment_is_clean(run):
    r = run(argv=["/usr/bin/env"], env={"HOST_SECRET": "x"})
    names = {line.split("=")[0] for line in r.out.splitlines()}
    assert names == {"PATH", "HOME", "LANG", "PRATAI_TEST_MARK"}
    r = run("--env", "A=1", "--env", "B=two words", "--env", "A=2", "--env", "HOME=/x",
            argv=["/usr/bin/env"])
    lines = r.out.splitlines()
    assert "A=2" in lines and "A=1" not in lines and "B=two words" in lines and "HOME=/x" in lines


def test_workdir_hostname_uid(run):
    r = run.sh("pwd; cat /proc/sys/kernel/hostname; id -u; id -g; id -G", "--workdir", "/usr/lib",
               "--hostname", "box", "--uid", "1234")
    assert r.out == "/usr/lib\nbox\n1234\n1234\n1234\n"
    assert socket.gethostname() != "box"


def test_bind(run, tmp):
    (tmp / "ro").mkdir()
    (tmp / "ro/file").write_text("content\n")
    (tmp / "rw").mkdir()
    (tmp / "rw").chmod(0o777)
    r = run.sh("cat /data/file; echo x >/data/new; echo y >/deep/er/out/new; cat /etc/one",
               "--bind", "%s:/data" % (tmp / "ro"), "--bind", "%s:/deep/er/out:rw" % (tmp / "rw"),
               "--bind", "%s:/etc/one:ro" % (tmp / "ro/file"))
    assert r.out == "content\ncontent\n"
    assert "Read-only file system" in r.err or "Permission denied" in r.err
    assert (tmp / "rw/new").read_text() == "y\n"
    assert not (tmp / "ro/new").exists()
    assert run.sh("test -e /data || echo gone").out == "gone\n"


def test_bind_is_read_only_for_its_owner_too(run, tmp):
    (tmp / "d").mkdir()
    (tmp / "d").chmod(0o777)
    options = "--bind", "%s:/d" % (tmp / "d"), "--uid", "0"
    r = run.python("import os, errno\ntry: open('/d/x', 'w')\nexcept OSError as e: "
                   "print(errno.errorcode[e.errno])", *options)
    assert r.out == "EROFS\n"
    open(tmp / "d/x", "w").close()  # the control


def test_bind_has_no_devices_and_no_setuid(run, tmp):
    (tmp / "d").mkdir()
    os.mknod(tmp / "d/null", 0o666 | 0o020000, os.makedev(1, 3))
    os.chmod(tmp / "d/null", 0o666)
    r = run.python("import os, errno\ntry: open('/d/null')\nexcept OSError as e: "
                   "print(errno.errorcode[e.errno])", "--bind", "%s:/d:rw" % (tmp / "d"))
    assert r.out == "EACCES\n"
    open(tmp / "d/null").close()  # the control


def test_rootfs(run, busybox):
    before = sorted(str(p) for p in busybox.rglob("*"))
    r = run("--rootfs", busybox, argv=["/bin/sh", "-c", "ls /; echo x >/tmp/x; cat /tmp/x"])
    assert (r.code, r.out) == (0, "bin\ndev\nproc\ntmp\nx\n")
    assert sorted(str(p) for p in busybox.rglob("*")) == before


def test_rootfs_for_nobody(run, busybox):
    """As mktemp -d makes them: said at once and by its name."""
    busybox.chmod(0o700)
    r = run("--rootfs", busybox, argv=["/bin/true"])
    assert r.code == 125 and "0700" in r.err and str(busybox) in r.err and r.err.count("\n") == 1


def test_a_terminal_as_input_is_no_way_out(run):
    """It can be written to, too: past the limit of the output."""
    ours, theirs = os.openpty()
    words = run.command(["--output-max", "10"], ["/bin/sh", "-c", "{ echo loud >&0; } 2>/dev/null; echo fine"])
    p = subprocess.run(words, stdin=theirs, capture_output=True, text=True, env=run.environment())
    os.close(theirs)
    os.set_blocking(ours, False)
    try:
        seen = os.read(ours, 100)
    except OSError:
        seen = b""
    os.close(ours)
    assert (p.returncode, p.stdout, seen) == (0, "fine\n", b"")


def test_the_callers_personality_stays_outside(run):
    words = run.command([], ["/bin/cat", "/proc/self/personality"])
    p = subprocess.run(["setarch", "-R", "-X", *words], capture_output=True, text=True,
                       env=run.environment())
    assert (p.returncode, p.stdout) == (0, "00000000\n")


def test_a_bind_of_another_kind(run, tmp_path):
    (tmp_path / "f").write_text("")
    for source, target in (tmp_path / "f", "/tmp"), (tmp_path, "/etc/passwd"):
        r = run("--bind", f"{source}:{target}", argv=["/bin/true"])
        assert r.code == 125 and "directory" in r.err and target in r.err and r.err.count("\n") == 1


def test_stdout_by_its_name(run):
    """Programs log to /dev/stdout; with --output-max it is a pipe of ours."""
    r = run.sh("echo out >/dev/stdout; echo err >/dev/stderr", "--output-max", "1M")
    assert (r.code, r.out, r.err) == (0, "out\n", "err\n")


def test_output_max(run):
    r = run.sh("printf 12345; printf 67890 >&2", "--output-max", "10")
    assert (r.code, r.out, r.err) == (0, "12345", "67890")
    assert r.report["output_bytes"] == 10
    r = run.sh("printf 12345678901", "--output-max", "10")
    assert (r.code, r.out, r.report["reason"]) == (153, "1234567890", "output_exceeded")
    assert r.report["output_bytes"] == 10
    r = run.sh("printf x", "--output-max", "0")
    assert (r.code, r.out) == (153, "")


def test_output_flood_is_cut(run):
    r = run(argv=["/usr/bin/yes"], *["--output-max", "1M"])
    assert r.code == 153 and len(r.out) == 1 << 20 and r.report["output_bytes"] == 1 << 20
    assert r.err == "pratai run: the output limit was exceeded, output was cut (1M)\n"


def test_output_with_a_slow_reader(run):
    p = run.start("--output-max", "10M", "--timeout", "30s", argv=["/bin/sh", "-c",
                  "head -c 3000000 /dev/zero"])
    wait_for(lambda: run.processes(), what="the command")
    r = run.finish(p)
    assert r.code == 0 and len(r.out) == 3000000


def test_output_that_nobody_reads(run):
    p = run.start("--output-max", "1G", argv=["/usr/bin/yes"])
    p.stdout.read(10)
    p.stdout.close()
    assert p.wait(10) == 128 + signal.SIGPIPE
    p.stderr.close()


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it(run, sig):
    # What is started in the background of a script has SIGINT ignored, which `run` respects.
    p = run.start(argv=["/bin/sleep", "60"], preexec_fn=lambda: signal.signal(sig, signal.SIG_DFL))
    wait_for(lambda: run.processes(), what="the command")
    p.send_signal(sig)
    r = run.finish(p, timeout=5)
    assert (r.code, r.report["reason"], r.report["signal"]) == (128 + sig, "signaled", sig)


def test_print_plan(run):
    p = subprocess.run([str(PRATAI), "run", "--print-plan", "--memory", "64M", "--bind", "/tmp:/x",
                        "--", "/bin/true"], capture_output=True, text=True, check=True)
    steps = [line.split()[2] for line in p.stdout.splitlines()]
    if "premount" in steps:  # Linux below 6.6
        steps.remove("premount")
        steps[steps.index("root"):steps.index("root") + 1] = ["scratch", "root", "usr"]
    assert steps == ["trees", "clone", "limits", "maps", "devices", "network", "loopback", "hostname",
                     "join", "identity", "scratch", "root", "usr", "tmp", "bind", "dev", "proc", "mask",
                     "clock", "quotas", "pivot", "session", "caps", "landlock", "filter", "fork", "stdio", "workdir",
                     "user", "exec"]
    assert "memory 67108864 bytes" in p.stdout and "/tmp on /x, read-only" in p.stdout


def test_threads_and_processes(run):
    r = run.python("import threading, subprocess, multiprocessing\n"
                   "t = threading.Thread(target=print, args=(45,))\n"
                   "t.start(); t.join()\n"
                   "print(subprocess.run(['echo', 'sub'], capture_output=True, text=True).stdout)\n"
                   "print(multiprocessing.Pool(2).map(abs, [-1, -2]))\n"
                   "print(open('/proc/meminfo').read(8), open('/proc/cpuinfo').read(9))")
    assert r.code == 0, r.err
    assert r.out == "45\nsub\n\n[1, 2]\nMemTotal processor\n"


@pytest.mark.parametrize("disabled", ["clone3", "tmpfs.xattr", "clone3,tmpfs.xattr",
                                      "cgroup.kill"] + ["cgroup2"] * HYBRID)
def test_fallbacks(run, tmp, disabled):
    (tmp / "f").write_text("bound\n")
    r = run.sh("id -u; echo x >/tmp/x && cat /tmp/x /f; rmdir /home 2>&1; ls /proc/self/fd | wc -l",
               "--bind", "%s:/f" % (tmp / "f"), "--memory", "64M",
               env={"PRATAI_DISABLE": disabled})
    assert r.code == 0, r.err
    assert r.out.splitlines()[:3] == ["1000", "x", "bound"] and r.out.splitlines()[-1] == "4"
    r = run.sh("sleep 60 & sleep 60", "--timeout", "200ms", env={"PRATAI_DISABLE": disabled})
    assert r.code == 124


def processes_of(cgroup):
    try:
        return pathlib.Path(cgroup, "cgroup.procs").read_text()
    except FileNotFoundError:  # another run of the machine's swept it
        return ""


@pytest.mark.parametrize("options", [(), ("--cpus", "0.5", "--memory", "64M")])
def test_kill_9_of_the_caller_ends_it(run, options):
    p = run.start(*options,
                  argv=["/bin/sh", "-c", "setsid sleep 4200 & (sleep 4200 &) ; sleep 4200"])
    wait_for(lambda: len(run.processes()) >= 3, what="the commands")
    p.kill()
    p.wait()
    wait_for(lambda: not run.processes(), 1, "the sandbox's end")
    p.stdout.close()
    p.stderr.close()
    # Only an empty cgroup is left (init, too, ends in a moment), and the next run sweeps it,
    # from the hierarchies as well that it does not use itself.
    wait_for(lambda: not any(processes_of(g) for g in run.cgroups()), 2, "the end of init")
    assert run(argv=["true"]).code == 0
    assert not run.cgroups()


def test_every_other_command_is_handed_on(run):
    p = subprocess.run([str(PRATAI), "no-such-command"], capture_output=True, text=True)
    assert p.returncode != 0 and "pratai" in p.stderr


def test_manual_and_help_have_the_same_options(run):
    p = subprocess.run([str(PRATAI), "run", "--help"], capture_output=True, text=True, check=True)
    options = set(re.findall(r"--([a-z-]+)", p.stdout))
    manual = (ROOT / "man/pratai-run.1").read_text()
    assert options == set(re.findall(r"^\.It Fl -([a-z-]+)", manual, re.M))
