"""requirements.txt, by pip: once per version, into a directory of its own that becomes
/opt/deps.

pip's settings are the operator's: pip.conf and PIP_* as the sandbox's environment has
them, but for what would lead it away from --target.  What pip prints is the build's log
as it is; its standard error passes through here, because the reason that the function's
owner is told stands there.
"""
import os
import select
import signal
import subprocess
import sys
import time

from pratai_runner import Failure

# They contradict --target, or ask for an environment that is not there.
DROPPED = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIRE_VIRTUALENV",
           "PIP_DRY_RUN", "PIP_LOG")


def install(function, scratch, timeout_s, say):
    """The directory below scratch with what was installed, or None; Failure
    RequirementsFailed."""
    if not are_wanted(function):
        return None
    path = os.path.join(function, "requirements.txt")
    say("installing requirements.txt")
    target = scratch + "/pratai-deps"
    os.mkdir(target, 0o755)
    code, reason = run_pip(function, path, target, scratch, timeout_s)
    if code is None:
        raise Failure("RequirementsFailed", "pip did not finish within %d seconds" % timeout_s)
    if code != 0:
        raise Failure("RequirementsFailed", "pip could not install requirements.txt: " + (
            reason or "it ended with %s %d" % ("signal" if code < 0 else "status", abs(code))))
    return target


def are_wanted(function):
    path = os.path.join(function, "requirements.txt")
    return os.path.isfile(path) and not is_empty(path)


def find_wheels(function):
    """The directory of the package that has the wheels along, or None."""
    for name in ("wheels", "vendor"):
        path = os.path.join(function, name)
        if os.path.isdir(path) and any(f.endswith(".whl") for f in os.listdir(path)):
            return path
    return None


def need_network(function):
    return are_wanted(function) and find_wheels(function) is None


def is_empty(path):
    with open(path, "rb") as f:
        return all(not line.strip() or line.lstrip().startswith(b"#") for line in f)


def pip_environment(scratch):
    env = {k: v for k, v in os.environ.items()
           if k not in DROPPED and not k.startswith("PYTHON")}
    env.update(HOME=scratch, TMPDIR=scratch)
    return env


def run_pip(function, path, target, scratch, timeout_s):
    """(exit status or None after the timeout, what it says went wrong or None)."""
    command = [sys.executable, "-I", "-m", "pip", "install", "--no-input", "--no-cache-dir",
               "--no-color", "--disable-pip-version-check", "--no-warn-script-location",
               "--root-user-action=ignore", "--progress-bar", "off", "--no-compile", "--no-user",
               "--target", target, "-r", path]
    wheels = find_wheels(function)
    if wheels:
        command += ["--no-index", "--find-links", wheels]
    deadline = time.monotonic() + timeout_s
    # In the package's directory, since requirements may name files of it.
    with subprocess.Popen(command, cwd=function, env=pip_environment(scratch),
                          stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          start_new_session=True) as pip:
        try:
            reason = copy_errors(pip, deadline)
            ended = has_ended(pip)
        finally:
            # What it left running, and itself after the timeout.  It is not reaped yet,
            # so that the group is still its own.
            os.killpg(pip.pid, signal.SIGKILL)
    return (pip.returncode if ended else None), reason


def has_ended(pip):
    return os.waitid(os.P_PID, pip.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def copy_errors(pip, deadline):
    """pip's standard error to ours until pip ends; what went wrong, by its last error or
    its first diagnosis.  A child that holds the pipe longer does not hold up the build."""
    fd, rest, reasons = pip.stderr.fileno(), b"", {}
    open_end = True
    os.set_blocking(fd, False)
    while time.monotonic() < deadline:
        ended = has_ended(pip)
        ready = select.select([fd] if open_end else [], [], [], 0 if ended else 0.05)[0]
        data = os.read(fd, 65536) if ready else b""
        if ready and not data:
            open_end = False
        if ended and not data:
            break
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()
        *lines, rest = (rest + data).split(b"\n")
        rest = rest[-65536:]
        for line in lines:
            note_reason(reasons, line)
    note_reason(reasons, rest)
    return reasons.get("error") or reasons.get("diagnosis")


def note_reason(reasons, line):
    text = line.decode("utf-8", "replace").strip()
    if text.lower().startswith("error:"):
        text = text[6:].strip()
        # One word is the name of a kind of error; and where to read on is no reason.
        if " " in text and not text.startswith("ResolutionImpossible:"):
            reasons["error"] = text[:1000]
    elif text.startswith("\N{MULTIPLICATION SIGN} "):
        reasons.setdefault("diagnosis", text[2:1000])
    elif text.endswith(": No module named pip"):
        reasons["error"] = "this image has no pip"
