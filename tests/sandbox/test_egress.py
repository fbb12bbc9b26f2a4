"""`--network egress`: the Internet is reached, and what is near is not.

The machine here is a network namespace with two neighbours' addresses: one that counts as the
Internet (198.51.100.2), one that is private (10.9.0.2).
"""
import os
import pathlib
import socket
import struct
import subprocess
import threading
import http.server

import pytest

from conftest import wait_for
from namespaces import serve_there

INTERNET, PRIVATE, OWN = "198.51.100.2", "10.9.0.2", "198.51.100.1"
FETCH = ("import sys, urllib.request\n"
         "try: print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())\n"
         "except Exception as e: print(e)")


class Names(threading.Thread):
    """A resolver that knows one answer."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 53))

    def run(self):
        while True:
            try:
                ask, peer = self.socket.recvfrom(512)
            except OSError:
                return
            question = ask[12:ask.index(b"\0", 12) + 5]
            is_a = question[-4:-2] == b"\0\1"
            head = ask[:2] + struct.pack(">HHHHH", 0x8180, 1, is_a, 0, 0)
            answer = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton(INTERNET) if is_a else b""
            self.socket.sendto(head + question + answer, peer)


class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello from " + self.server.server_address[0].encode())

    def log_message(self, *_):
        pass


def serve(namespace, addresses, names):
    def start():
        for address, port in addresses:
            server = http.server.ThreadingHTTPServer((address, port), Hello)
            threading.Thread(target=server.serve_forever, daemon=True).start()
        if names:
            Names(names).start()

    return serve_there(namespace, start)


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """Words that put a command into the machine."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it makes network namespaces")
    holders = [subprocess.Popen(["unshare", "--net", "sleep", "600"]) for _ in range(2)]
    own = os.stat("/proc/self/ns/net").st_ino
    ours, theirs = (str(h.pid) for h in holders)
    wait_for(lambda: all(os.stat(f"/proc/{h.pid}/ns/net").st_ino != own for h in holders),
             what="two network namespaces")
    subprocess.run(["ip", "link", "add", "near", "netns", ours, "type", "veth", "peer", "far",
                    "netns", theirs], check=True)
    for pid, device, addresses in ((ours, "near", (OWN, "10.9.0.1")),
                                   (theirs, "far", (INTERNET, PRIVATE))):
        for words in (["link", "set", "lo", "up"], ["link", "set", device, "up"],
                      *(["addr", "add", a + "/24", "dev", device] for a in addresses)):
            subprocess.run(["nsenter", "-t", pid, "-n", "ip", *words], check=True)
    pipes = [serve(theirs, [(INTERNET, 80), (PRIVATE, 80), (PRIVATE, 81)], PRIVATE),
             serve(ours, [("127.0.0.1", 80), ("127.0.0.1", 81), (OWN, 80)], None)]
    resolv = tmp_path_factory.mktemp("egress") / "resolv.conf"
    resolv.write_text(f"nameserver {PRIVATE}\n")
    script = f"mount --bind {resolv} \"$(realpath /etc/resolv.conf)\" && exec \"$@\""
    yield ["nsenter", "-t", ours, "-n", "unshare", "-m", "sh", "-c", script, "sh"]
    for pipe in pipes:
        os.close(pipe)
    for _ in pipes:
        os.wait()
    for h in holders:
        h.kill()
        h.wait()


@pytest.fixture
def fetch(run, machine):
    def get(url, *options):
        words = run.command(["--network", "egress", *options],
                            ["/usr/bin/python3", "-c", FETCH, url])
        p = subprocess.run([*machine, *words], capture_output=True, text=True, timeout=60,
                           env=run.environment())
        assert p.returncode == 0, p.stderr
        return p.stdout.strip()
    return get


def outside(machine, url):
    return subprocess.run([*machine, "/usr/bin/python3", "-c", FETCH, url], capture_output=True,
                          text=True, check=True).stdout.strip()


def test_the_internet_is_reached(fetch):
    assert fetch(f"http://{INTERNET}/") == f"hello from {INTERNET}"


def test_names_are_looked_up(fetch):
    assert fetch("http://name.example/") == f"hello from {INTERNET}"


@pytest.mark.parametrize("url", [f"http://{PRIVATE}/", f"http://{OWN}/", "http://10.0.2.2/",
                                 "http://127.0.0.1/", "http://169.254.169.254/",
                                 "http://[::1]/", "http://[fe80::1]/", "http://[fd00::1]/",
                                 "http://[2001:db8::1]/"])
def test_what_is_near_is_refused_at_once(fetch, machine, url):
    said = fetch(url)
    assert "refused" in said or "unreachable" in said or "Invalid argument" in said, said
    if PRIVATE in url or OWN in url or "127.0.0.1" in url:
        assert outside(machine, url).startswith("hello"), "the control"


def test_what_is_allowed(fetch):
    assert fetch(f"http://{PRIVATE}:81/", "--allow", PRIVATE) == f"hello from {PRIVATE}"
    assert fetch(f"http://{PRIVATE}:81/", "--allow", "10.9.0.0/24:80-81") == f"hello from {PRIVATE}"
    assert "refused" in fetch(f"http://{PRIVATE}:81/", "--allow", f"{PRIVATE}:80")
    assert fetch("http://127.0.0.1:81/", "--allow", "127.0.0.1:81") == "hello from 127.0.0.1"
    assert "refused" in fetch("http://127.0.0.1:80/", "--allow", "127.0.0.1:81")
    assert "refused" in fetch("http://10.0.2.2:80/", "--allow", "127.0.0.1:81")
    assert fetch(f"http://{OWN}/", "--allow", f"{OWN}:80") == f"hello from {OWN}"


def test_the_rules_hold_inside(run, machine):
    """Not even the sandbox's uid 0 changes them, or the interface."""
    words = run.command(["--network", "egress", "--uid", "0"], [
        "/bin/sh", "-c", "/usr/sbin/nft flush ruleset; ip link set tap0 down; "
        "cat /proc/net/dev | grep -c tap0"])
    p = subprocess.run([*machine, *words], capture_output=True, text=True, env=run.environment())
    assert p.stdout == "1\n" and p.stderr.count("\n") >= 2, p.stderr


def test_the_way_out_ends_with_the_sandbox(run, machine):
    def stacks():
        found = []
        for path in pathlib.Path("/proc").glob("[0-9]*/comm"):
            try:
                if path.read_text() in ("slirp4netns\n", "pratai-uplink\n"):
                    found.append(path.parent.name)
            except OSError:
                pass
        return found
    before = set(stacks())
    words = run.command(["--network", "egress", "--timeout", "1s"], ["/bin/sleep", "60"])
    p = subprocess.run([*machine, *words], capture_output=True, text=True, env=run.environment())
    assert p.returncode == 124 and not set(stacks()) - before
    # And with its caller, however that ends.
    p = subprocess.Popen([*machine, *run.command(["--network", "egress"], ["/bin/sleep", "60"])],
                         env=run.environment())
    wait_for(lambda: set(stacks()) - before and run.processes(), what="the sandbox")
    p.kill()
    p.wait()
    wait_for(lambda: not set(stacks()) - before, what="the end of the network's process")


@pytest.mark.parametrize("program", ["/usr/sbin/nft", "/usr/bin/slirp4netns"])
def test_a_program_that_is_missing(run, program):
    """It is named, and nothing runs without the network or its rules."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it takes a program away")
    name, top = os.path.basename(program), os.path.dirname(program)
    hide = (f'd="$0" && mount -t tmpfs none "$d" && mkdir "$d/u" "$d/w" && mknod "$d/u/{name}" c 0 0 && '
            f'mount -t overlay -o "lowerdir={top},upperdir=$d/u,workdir=$d/w" none {top} && exec "$@"')
    words = run.command(["--network", "egress"], ["/bin/echo", "it ran"])
    p = subprocess.run(["unshare", "--mount", "/bin/sh", "-c", hide, str(run.tmp), *words],
                       capture_output=True, text=True, env=run.environment())
    assert (p.returncode, p.stdout) == (125, "")
    assert p.stderr.count("\n") == 1 and f"there is no {program} on this node" in p.stderr


@pytest.mark.parametrize("words", [["--network", "egress", "--allow", "x"],
                                   ["--network", "egress", "--allow", "1.2.3.4/33"],
                                   ["--network", "egress", "--allow", "1.2.3.4:0"],
                                   ["--network", "egress", "--allow", "1.2.3.4:9-8"],
                                   ["--network", "egress", "--allow", "1.2.3.4/8"],
                                   ["--network", "egress", "--allow", "::1"],
                                   ["--allow", "1.2.3.4"], ["--network", "internet"]])
def test_bad_options(run, words):
    r = run(*words, argv=["/bin/true"])
    assert r.code == 125 and r.err.count("\n") == 1 and words[-2] in r.err
