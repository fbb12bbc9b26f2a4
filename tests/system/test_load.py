"""Many at once: callers, events, connections that do nothing."""
import concurrent.futures
import contextlib
import os
import resource
import socket
import subprocess
import sys
import time

import pytest
import requests

from conftest import wait_for

# Opens connections, says how many, and holds them until its stdin ends: none of the test's
# own descriptors is spent on them.  What each sends is the second argument's business.
HOLDER = r'''
import resource, socket, sys
host, port, count, what = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
held = []
begin = {"idle": b"", "half": b"POST /v1/functions/x HT",
         "headers": b"POST /v1/functions/x HTTP/1.1\r\nHost: x\r\nX-Auth-Token: ",
         "body": b"POST /v1/functions/x HTTP/1.1\r\nHost: x\r\nX-Auth-Token: y\r\n"
                 b"Content-Length: 1000000\r\n\r\nslow"}
for n in range(count):
    s = socket.create_connection((host, port), timeout=30)
    s.sendall(begin[what])
    held.append(s)
print(len(held), flush=True)
for byte in iter(lambda: sys.stdin.buffer.read(1), b""):
    for s in held:  # a byte each: slow, never silent
        try:
            s.sendall(b"x")
        except OSError:
            pass
    print("sent", flush=True)
'''


@contextlib.contextmanager
def holding(platform, count, what):
    host, port = platform.url.removeprefix("http://").split(":")
    p = subprocess.Popen([sys.executable, "-I", "-c", HOLDER, host, port, str(count), what],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert int(p.stdout.readline()) == count
        yield p
    finally:
        p.kill()
        p.communicate()


def quick(platform, name, seconds=5):
    """A new connection's webhook answers soon."""
    began = time.monotonic()
    r = requests.post(f"{platform.url}/v1/functions/{name}", json=1, timeout=seconds,
                      headers={"X-Auth-Token": platform.token})
    assert (r.status_code, r.json()) == (200, 1)
    assert time.monotonic() - began < seconds


@pytest.mark.parametrize("what", ["idle", "half", "headers", "body"])
def test_a_thousand_that_do_not_go_on(platform, echo, what):
    with holding(platform, 1000, what) as holder:
        for _ in range(3):
            quick(platform, echo)
            holder.stdin.write(b"x")
            holder.stdin.flush()
            assert holder.stdout.readline() == b"sent\n"
        quick(platform, echo)
    quick(platform, echo)


@pytest.mark.slow
def test_ten_thousand_connections(platform, echo):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < 4096:
        pytest.skip(f"RLIMIT_NOFILE allows {hard} descriptors")
    count = min(10000, hard - 500)
    with holding(platform, count, "idle"):
        for _ in range(5):
            quick(platform, echo)
    wait_for(lambda: len(os.listdir(f"/proc/{platform.control()[0]}/fd")) < 200, 20,
             "the connections' end")


def test_sixty_four_callers(platform, echo):
    """Each gets its own answer, from a sandbox of its own."""
    name = platform.wait_function(
        "import os\ndef main(payload):\n    assert not os.path.exists('/tmp/used')\n"
        "    open('/tmp/used', 'w')\n    return payload\n", memory=64)

    def call(n):
        r = requests.post(f"{platform.url}/v1/functions/{name}", json={"payload": n}, timeout=60,
                          headers={"X-Auth-Token": platform.token})
        return r.status_code, r.json() if r.status_code == 200 else r.text
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(call, range(128)))
    assert answers == [(200, n) for n in range(128)]


@pytest.mark.slow
def test_two_thousand_events(platform):
    name = platform.create("echo", memory=64, timeout=20)
    before = platform.counts()

    def send(n):
        with requests.Session() as s:
            s.headers["X-Auth-Token"] = platform.token
            return [s.post(f"{platform.url}/v1/functions/{name}", json=i, timeout=60)
                    .json()["event_id"] for i in range(n, 2000, 16)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        ids = [e for some in pool.map(send, range(16)) for e in some]
    assert len(set(ids)) == 2000
    wait_for(lambda: (c := platform.counts())["queued"] == c["running"] == 0 and c, 150,
             "the end of all events", pause=0.2)
    after = platform.counts()
    assert after["succeeded"] - before["succeeded"] == 2000
    assert after["accepted"] - before["accepted"] == 2000
    assert platform.event(ids[0])["state"] == platform.event(ids[-1])["state"] == "succeeded"


def test_one_waits_for_many(platform):
    """Watchers of the same response are all told."""
    name = platform.create("sleeper")
    event = platform.send(name, 1)

    def ask(_):
        return requests.get(f"{platform.url}/v1/events/{event}/response?wait=20", timeout=30,
                            headers={"X-Auth-Token": platform.token}).json()
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        assert list(pool.map(ask, range(20))) == ["slept"] * 20


def test_pipelined_and_split_requests(platform, echo):
    host, port = platform.url.removeprefix("http://").split(":")
    request = (f"POST /v1/functions/{echo} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
               f"X-Auth-Token: {platform.token}\r\n\r\n5").encode()
    with socket.create_connection((host, int(port)), timeout=20) as s:
        s.sendall(request * 3)
        answer = b""
        while answer.count(b"HTTP/1.1 200 OK") < 3:
            more = s.recv(65536)
            assert more, answer
            answer += more
    with socket.create_connection((host, int(port)), timeout=20) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request:
            s.sendall(bytes([byte]))
        assert s.recv(65536).startswith(b"HTTP/1.1 200 OK")
