"""Help and wrong command lines: one line on stderr, exit 2, nothing sent."""
import os
import re
import subprocess

import pytest

from conftest import CLIENT, ROOT


def commands(client):
    text = client("help").out
    return re.findall(r"^  ([a-z-]+) ", text.split("those of all commands")[0], re.M)


def options(text):
    return re.findall(r"^  (?:-\w, )?--([a-z-]+)", text, re.M)


@pytest.mark.parametrize("args, says", [
    ([], "no command given"),
    (["function-lst"], "did you mean 'function-list'"),
    (["zzzzzzzz"], "no command 'zzzzzzzz'"),
    (["--nope", "event-list"], "unknown option '--nope'"),
    (["event-list", "--nope"], "unknown option '--nope'"),
    (["function-create"], "needs NAME"),
    (["function-create", "x"], "needs --file"),
    (["function-create", "x", "--file", "/nonexistent"], "/nonexistent: No such file"),
    (["function-create", "x", "--file", ""], "--file '': No such file"),
    (["function-execute", "x", "--file", ""], "--file '': No such file"),
    (["function-execute", "x", "--file", "/dev/zero"], "/dev/zero: more than 67108864 bytes"),
    (["function-create", "x", "--file", "/dev/null"], "neither a zip nor a directory"),
    (["function-create", "x", "--file", "a", "--zip", "b"], "--file and --zip"),
    (["function-create", "x", "--file", "a", "--memory", "abc"], "'abc' is not a whole number"),
    (["function-create", "x", "--file", "a", "--memory", "1e9"], "'1e9' is not a whole number"),
    (["function-create", "x", "--file", "a", "--memory"], "'--memory' needs a value"),
    (["function-create", "x", "--file", "a", "--cpus", "fast"], "'fast' is not a number"),
    (["function-create", "x", "--file", "a", "--env", "novalue"], "--env"),
    (["function-create", "x", "--file", "a", "--env", "=v"], "--env"),
    (["function-create", "x", "--file", "a", "--allow", "10.0.0.1/33"], "--allow: '10.0.0.1/33' is not"),
    (["function-update", "x", "--allow", "a.example"], "--allow: 'a.example' is not"),
    (["function-update", "x"], "nothing to change"),
    (["function-show"], "needs F"),
    (["function-show", "a", "b"], "'b' is one word too many"),
    (["function-show", ".."], "'..' is not a name"),
    (["function-show", ""], "'' is not a name"),
    (["function-delete", "."], "'.' is not a name"),
    (["function-list", "-f", "xml"], "'xml' is not table"),
    (["function-execute", "f", "--data", "1", "--file", "x"], "not both"),
    (["function-execute", "f", "--file", "/nonexistent"], "/nonexistent: No such file"),
    (["function-execute", "f", "--file", "/tmp"], "is a directory"),
    (["event-list", "--limit", "0"], "--limit"),
    (["event-list", "--since", "yesterday"], "'yesterday' is not a time"),
    (["--os-pratai-url", "ftp://x", "event-list"], "http://"),
    (["--os-pratai-url", "http://", "event-list"], "'http://' is not http://HOST"),
    (["--os-pratai-url", "https:///v1", "event-list"], "is not http://HOST"),
    (["--os-token", "a\nb", "event-list"], "token"),
    (["help", "function-lsit"], "did you mean 'function-list'"),
    (["help", "--completion", "fish"], "'fish' is not bash"),
    (["-f", "json", "run", "true"], "has to be the first word: pratai run [OPTIONS]"),
])
def test_wrong_command_lines(client, args, says):
    r = client(*args)
    assert r.code == 2
    assert r.out == ""
    assert r.err.startswith("pratai: ") and r.err.count("\n") == 1
    assert says in r.err


def test_control_characters_of_an_argument_are_escaped(client):
    r = client("\x1b[31mred")
    assert "\x1b" not in r.err and "\\x1b" in r.err


def test_every_command_has_help(client):
    for name in commands(client):
        if name == "run":
            continue
        by_help, by_option = client("help", name), client(name, "--help")
        assert by_help.code == by_option.code == 0
        assert by_help.out == by_option.out
        assert by_help.out.startswith(f"usage: pratai {name}")
        assert "help" in options(by_help.out)


def test_underscores_are_dashes(client):
    assert client("help", "function_create").code == 0
    r = client("function_create", "x", "--file", "a", "--tmp_size", "zzz")
    assert "--tmp-size" in r.err


def test_version(client):
    version = client("version").out
    assert re.fullmatch(r"pratai \d+\.\d+\.\d+\n", version)
    assert client("--version").out == version


def manual():
    """Commands, and the options of each, as pratai(1) has them."""
    found, shared, section = {}, [], None
    for line in (ROOT / "man/pratai.1").read_text().splitlines():
        if line.startswith(".Ss "):
            section = line[4:]
            if section != "Options of all commands":
                found[section] = []
        elif line.startswith(".Sh "):
            section = None
        elif line.startswith(".It Fl") and section:
            names = re.findall(r"(?:^\.It Fl|Fl) -([a-z-]+)", line)
            (shared if section == "Options of all commands" else found[section]).extend(names)
    return found, shared


def test_manual_and_help_name_the_same(client):
    found, shared = manual()
    names = [c for c in commands(client) if c != "run"]
    assert sorted(found) == sorted(names)
    assert set(shared) == set(options(client("help").out))
    # The manual says of function-update that it takes the options of function-create.
    found["function-update"] = found["function-create"]
    for name in names:
        own = [o for o in options(client("help", name).out) if o not in shared]
        assert sorted(own) == sorted(found[name]), name


@pytest.mark.parametrize("line, words", [
    ("function-create --mem", ["--memory"]), ("function-d", ["function-delete"]),
    ("-f json event-list --q", ["--query"]), ("--os-token json event-list --q", ["--query"]),
    ("help function-d", ["function-delete"]), ("--vers", ["--version"]),
    ("event-list -f ", ["table", "json", "value", "csv"]),
])
def test_completion_is_bash(client, line, words):
    script = client("help", "--completion", "bash").out
    ask = "COMP_WORDS=(pratai \"$@\"); COMP_CWORD=$#; _pratai; echo ${COMPREPLY[@]}"
    r = subprocess.run(["bash", "-c", script + ask, "bash", *line.split(" ")], capture_output=True,
                       text=True, check=True)
    assert r.stdout.split() == words


def test_completion_knows_all(client):
    script = client("help", "--completion", "bash").out
    for name in commands(client):
        assert f"\t{name}) words=" in script


def test_nobody_there_names_url_and_variable(client):
    r = client("event-list", env={"OS_PRATAI_URL": "http://127.0.0.1:1"})
    assert r.code == 1
    assert r.err.count("\n") == 1
    assert "http://127.0.0.1:1" in r.err and "OS_PRATAI_URL" in r.err


def test_a_full_stdout_is_an_error(client):
    with open("/dev/full", "wb") as full:
        r = subprocess.run([CLIENT, "help"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert r.returncode == 1
    assert b"stdout" in r.stderr


def test_up_leaves_a_directory_of_others_alone(client, tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "theirs").write_text("x")
    r = client("up", "--state", str(tmp_path))
    assert r.code in (1, 2) and r.err.count("\n") == 1
    assert tmp_path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("args, says", [
    (["--listen", "nonsense"], "HOST:PORT"),
    (["--listen", "127.0.0.1:99999"], "HOST:PORT"),
    (["--listen", "::1:9096"], "HOST:PORT"),
    (["--user", "root"], "UID"),
    (["--user", "0"], "UID"),
    (["--node-user", "5:0"], "UID"),
    (["--log-level", "loud"], "'loud'"),
    (["--state", "/dev/null"], "not a directory"),
])
def test_up_checks_its_options(client, tmp_path, args, says):
    if os.geteuid() != 0:
        pytest.skip("up needs root")
    r = client("up", "--state", str(tmp_path / "s"), *args)
    assert r.code == 2
    assert says in r.err
