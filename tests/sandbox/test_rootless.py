"""`pratai run` of an ordinary user: what it has, and what is said where it cannot be."""
import os
import socket
import stat
import subprocess

import pytest

from conftest import HYBRID, WRITABLE_ROOT, become_ordinary

NO_EGRESS = "pratai run: plan: network egress needs root here, or Linux 6.6\n"
SETTING = "/proc/sys/user/max_user_namespaces"


@pytest.fixture
def user(run):
    become_ordinary(run)
    return run


def test_it_works_without_a_cgroup(user):
    r = user(argv=["/usr/bin/id", "-u"])
    assert (r.code, r.out, r.err) == (0, "1000\n", "")
    assert r.report["memory_peak_bytes"] == r.report["pids_peak"] == 0


@pytest.mark.parametrize("limit", [("--memory", "64M"), ("--pids", "64"), ("--cpus", "1")])
def test_a_limit_that_cannot_be_is_an_error(user, limit):
    """It names the controller, what would have to be writable, and the way without."""
    r = user(*limit, argv=["/bin/true"])
    assert r.code == 125 and r.err.count("\n") == 1
    for word in "limits need a cgroup that this user may manage", "--no-limits", "cgroup":
        assert word in r.err
    if HYBRID:
        assert {"--memory": "memory", "--pids": "pids", "--cpus": "cpu"}[limit[0]] + " cgroup" in r.err


def test_no_limits(user):
    r = user("--no-limits", "--memory", "1M", "--pids", "1", "--cpus", "0.01",
             argv=["/bin/sh", "-c", "head -c 9000000 /dev/zero | sort -z | wc -c"])
    assert (r.code, r.out) == (0, "9000000\n"), r.err


def test_no_limits_of_root(run):
    r = run("--no-limits", argv=["/bin/cat", "/proc/self/cgroup"])
    here = open("/proc/self/cgroup").read()
    assert r.code == 0 and len(r.out.splitlines()) == len(here.splitlines())
    assert "pratai" not in r.out and r.report["memory_peak_bytes"] == 0
    assert "limits" not in run("--no-limits", "--print-plan", argv=["/bin/true"]).out.split()


def test_a_machine_without_user_namespaces(user):
    """A user namespace of root's stands for the machine: the setting is its own."""
    machine = subprocess.Popen(["unshare", "--user", "/bin/sh", "-c", "echo; read _"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert machine.stdout.read(1) == b"\n"
        for ids in "uid_map", "gid_map":
            with open(f"/proc/{machine.pid}/{ids}", "w") as f:
                f.write("0 0 65536")
        user.program = ["nsenter", "--user", "--target", str(machine.pid), *user.program]
        r = user(argv=["/bin/true"])  # the control
        assert r.code == 0, r.err
        enter = user.program[:4]
        subprocess.run([*enter, "/bin/sh", "-c", f"echo 0 >{SETTING}"], check=True)
        r = user(argv=["/bin/true"])
        assert (r.code, r.err) == (125, (
            "pratai run: clone: this machine gives no user namespaces (user.max_user_namespaces is 0); "
            "to allow them, as root: sysctl -w user.max_user_namespaces=10000\n"))
        assert int(open(SETTING).read()) > 0
    finally:
        machine.communicate(b"\n")


def test_files_are_the_users(user):
    """Whatever the id inside, what is written outside belongs to the caller."""
    out = user.tmp / "out"
    out.mkdir()
    os.chown(out, 1001, 1001)
    r = user("--bind", f"{out}:/mnt:rw", "--uid", "0", argv=["/bin/sh", "-c", "id -u >/mnt/it"])
    assert r.code == 0, r.err
    made = (out / "it").stat()
    assert ((out / "it").read_text(), made.st_uid, made.st_gid) == ("0\n", 1001, 1001)


def test_egress(user):
    """Where users may open /dev/net/tun, as distributions have it.  Services on the machine's
    loopback are what slirp4netns itself would show at 10.0.2.2."""
    tun = user.tmp / "tun"
    os.mknod(tun, 0o666 | stat.S_IFCHR, os.makedev(10, 200))
    os.chmod(tun, 0o666)
    user.program = ["unshare", "--mount", "/bin/sh", "-c",
                    'mount --bind "$0" /dev/net/tun && exec "$@"', str(tun), *user.program]
    code = ("import socket, sys\n"
            "print(sum(line.startswith('tap0') for line in open('/proc/net/route')))\n"
            "for address in '127.0.0.1', '10.0.2.2':\n"
            "    try: print(socket.create_connection((address, int(sys.argv[1])), 5))\n"
            "    except OSError as e: print(type(e).__name__)")
    for _ in range(10):  # two processes, whichever is first
        r = user("--network", "egress", argv=["/bin/true"])
        assert (r.code, r.err) == ((0, "") if WRITABLE_ROOT else (125, NO_EGRESS))
    if not WRITABLE_ROOT:
        return
    with socket.create_server(("127.0.0.1", 0)) as server:
        r = user("--network", "egress",
                 argv=["/usr/bin/python3", "-I", "-c", code, str(server.getsockname()[1])])
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert r.code == 0, r.err
    assert r.out.split() == ["2", "ConnectionRefusedError", "ConnectionRefusedError"]


def test_egress_without_a_tun(user):
    r = user("--network", "egress", argv=["/bin/true"])
    if not WRITABLE_ROOT:
        assert (r.code, r.err) == (125, NO_EGRESS)
    elif os.stat("/dev/net/tun").st_mode & 2:
        assert r.code == 0, r.err
    else:
        assert r.code == 125 and "/dev/net/tun" in r.err and r.err.count("\n") == 1
