"""What the manuals and the programs say of options and settings is the same."""
import re
import subprocess

import pytest

from conftest import BUILD, ROOT

PROGRAMS = ["pratai-control", "pratai-node"]


def run(program, *args):
    return subprocess.run([BUILD / program, *args], capture_output=True, text=True, check=False,
                          timeout=30)


def keys():
    text = (ROOT / "man/pratai.conf.5").read_text()
    return re.findall(r"^\.It Cm ([a-z-]+)$", text, re.M)


@pytest.mark.parametrize("program", PROGRAMS)
def test_options_of_manual_and_help(program):
    text = (ROOT / f"man/{program}.8").read_text()
    manual = {n for line in re.findall(r"^\.It Fl.*", text, re.M)
              for n in re.findall(r"-([a-z][a-z-]+)\b", line.split(" Ar ")[0])}
    helped = set(re.findall(r"^  (?:-\w, )?--([a-z-]+)", run(program, "--help").stdout, re.M))
    assert helped and manual == helped


def test_every_setting_is_in_the_manual():
    known = set()
    for program in PROGRAMS:
        shown = run(program, "--print-config", "--config", "/dev/null").stdout
        known |= set(re.findall(r"^(?:# )?([a-z-]+)(?: = | is not set)", shown, re.M))
    assert known | {"node-user"} == set(keys())
    assert len(keys()) == len(set(keys()))


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_key_of_one_program_is_no_error_in_another(program, tmp_path):
    values = {"state": str(tmp_path / "state"), "user": "5", "node-user": "6", "slots": "3",
              "memory": "256", "build-memory": "200", "build-timeout": "9s", "retention": "2h",
              "payload-max": "1M", "body-memory": "8K", "connections": "99", "log-level": "error",
              "uid-base": "1879048192", "instance": "abc", "name": "n",
              "join": "http://127.0.0.1:1", "listen": "127.0.0.1:0", "store": "sqlite:",
              "roles": "api,agent,scheduler", "join-token-file": str(tmp_path / "t"),
              "first-token-file": str(tmp_path / "t"), "cgroup-root": "/x",
              "runtimes": str(BUILD / "runtimes"), "egress": "none",
              "egress-allow": "10.1.2.0/24:443, 10.1.3.4"}
    (tmp_path / "t").write_text("0123456789abcdef0123456789abcdef\n")
    (tmp_path / "t").chmod(0o600)
    conf = tmp_path / "pratai.conf"
    conf.write_text("".join(f"{k} = {values[k]}\n" for k in keys()))
    r = run(program, "--config", conf, "--print-config")
    assert r.returncode == 0, r.stderr


def test_what_the_security_manual_names_is_there():
    """Its lines ".Dl FILE TEST ..." name tests."""
    text = (ROOT / "man/pratai-security.7").read_text()
    lines = [line.split()[1:] for line in re.findall(r"^\.Dl .*", text, re.M)]
    assert len(lines) > 30
    for path, *names in lines:
        source = (ROOT / "tests" / path).read_text()
        found = set(re.findall(r"^(?:def )?(test_\w+)\(", source, re.M))
        assert names and set(names) <= found, (path, set(names) - found)
