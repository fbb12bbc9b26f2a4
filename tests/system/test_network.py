"""Functions with network `egress`: the Internet is reached, and what is near is not.

The machine gets a neighbour for the time of these tests: a network namespace with an address
that counts as the Internet (198.51.100.2) and a private one (10.77.99.2).
"""
import http.server
import os
import pathlib
import re
import signal
import subprocess
import threading

import pytest

from conftest import BUILD, Platform, wait_for
from namespaces import serve_there

INTERNET, PRIVATE, OWN = "198.51.100.2", "10.77.99.2", "198.51.100.1"
FETCH = '''
import urllib.request


def main(payload=None):
    try:
        return urllib.request.urlopen(payload, timeout=10).read().decode()
    except Exception as e:
        return str(e)
'''
SLEEPER = "import time\n\n\ndef main(payload=None):\n    time.sleep(60)\n"


class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello from %s:%d" % (self.server.server_address[0].encode(),
                                                self.server.server_address[1]))

    def log_message(self, *_):
        pass


def listen(address, port=0):
    server = http.server.ThreadingHTTPServer((address, port), Hello)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def stacks():
    """Without what they fork for a moment."""
    found = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, name, _, parent = re.match(r"(\d+) \((.*)\) (\S) (\d+)", path.read_text()).groups()
        except OSError:
            continue
        if name in ("slirp4netns", "pratai-uplink"):
            found[pid] = parent
    return {pid for pid, parent in found.items() if parent not in found}


@pytest.fixture(scope="module")
def neighbour():
    """Its server on the machine's own loopback and address."""
    holder = subprocess.Popen(["unshare", "--net", "sleep", "900"])
    own = os.stat("/proc/self/ns/net").st_ino
    wait_for(lambda: os.stat(f"/proc/{holder.pid}/ns/net").st_ino != own, what="a namespace")
    near, there = f"ptest{os.getpid() % 100000}", ["nsenter", "-t", str(holder.pid), "-n"]
    subprocess.run(["ip", "link", "add", near, "type", "veth", "peer", "far", "netns",
                    str(holder.pid)], check=True)
    for words in ([["ip", "addr", "add", a + "/24", "dev", near] for a in (OWN, "10.77.99.1")] +
                  [["ip", "link", "set", near, "up"]] +
                  [[*there, "ip", "addr", "add", a + "/24", "dev", "far"] for a in
                   (INTERNET, PRIVATE)] + [[*there, "ip", "link", "set", "far", "up"]]):
        subprocess.run(words, check=True)
    pipe = serve_there(holder.pid, lambda: [listen(*a) for a in ((INTERNET, 80), (PRIVATE, 80),
                                                              (PRIVATE, 81))])
    servers = [listen("127.0.0.1"), listen("127.0.0.1"), listen(OWN)]
    yield [s.server_address[1] for s in servers]
    for s in servers:
        s.shutdown()
        s.server_close()
    os.close(pipe)
    os.wait()
    holder.kill()
    holder.wait()
    subprocess.run(["ip", "link", "del", near], capture_output=True)


@pytest.fixture(scope="module")
def there(neighbour):
    """A platform whose operator lets functions reach two things near."""
    before = stacks()
    p = Platform()
    try:
        config = p.dir / "pratai.conf"
        config.write_text(f"egress-allow = {PRIVATE}:81, 127.0.0.1:{neighbour[1]}\n")
        yield p.start("--config", str(config))
    finally:
        p.close()
    wait_for(lambda: not stacks() - before, what="the end of those made ahead")


@pytest.fixture(scope="module")
def fetches(there):
    return there.wait_function(FETCH, network="egress")


def fetch(platform, function, url):
    r = platform.call(function, url)
    assert r.status_code == 200, r.text
    return r.json() if r.headers["content-type"].startswith("application/json") else r.text


def outside(url):
    return subprocess.run(["curl", "-sf", "--noproxy", "*", url], capture_output=True,
                          text=True).stdout


def test_the_internet(there, fetches):
    assert fetch(there, fetches, f"http://{INTERNET}/") == f"hello from {INTERNET}:80"


def test_what_is_near(there, fetches, neighbour):
    first, second, own = neighbour
    for url in (f"http://127.0.0.1:{first}/", f"http://127.0.0.1:{second}/",
                f"http://{OWN}:{own}/", f"http://{PRIVATE}/", f"http://{PRIVATE}:81/"):
        assert outside(url).startswith("hello"), "the control"
        assert "refused" in fetch(there, fetches, url), url
    for url in ("http://10.0.2.2/", "http://169.254.169.254/", "http://172.16.0.1/",
                "http://192.168.0.1/", "http://100.64.0.1/", "http://[::1]/",
                "http://[2001:db8::1]/", "http://[fd00::1]/", "http://[fe80::1]/"):
        said = fetch(there, fetches, url)
        assert any(w in said for w in ("refused", "unreachable", "Invalid argument")), said


def test_what_is_allowed(there, neighbour):
    first, second, _ = neighbour
    f = there.wait_function(FETCH, network="egress",
                            allow=[f"{PRIVATE}:81", f"127.0.0.1:{second}"])
    assert there.get(f"/v1/functions/{f}")["allow"] == [f"{PRIVATE}:81", f"127.0.0.1:{second}"]
    assert fetch(there, f, f"http://{PRIVATE}:81/") == f"hello from {PRIVATE}:81"
    assert fetch(there, f, f"http://127.0.0.1:{second}/") == f"hello from 127.0.0.1:{second}"
    for url in (f"http://{PRIVATE}/", f"http://127.0.0.1:{first}/"):
        assert "refused" in fetch(there, f, url)
    # Without the network there is nothing to allow, and no way out.
    there.ok("function-update", f, "--network", "none")
    record = there.get(f"/v1/functions/{f}")
    assert (record["network"], record["allow"]) == ("none", [])
    assert "unreachable" in fetch(there, f, f"http://{INTERNET}/")


@pytest.mark.parametrize("rule", [f"{PRIVATE}:80", f"{PRIVATE}", "10.0.0.0/8:81", "0.0.0.0/0",
                                  "127.0.0.0/8", "169.254.169.254"])
def test_what_the_operator_does_not_allow(there, rule):
    f = there.wait_function(FETCH, network="egress", allow=[rule])
    r = there.call(f, f"http://{INTERNET}/")
    there.problem(r, 502, "function_failed")
    assert f"allow: '{rule}' is not within" in r.text and "egress-allow" in r.text


OTHERS = stacks()
AHEAD = 4  # SPAWN_WAYS_MAX, once egress has been asked for


def only_those_ahead():
    return len(stacks() - OTHERS) == AHEAD


def test_nothing_is_left(there):
    """Neither of one that ended, nor of one that ran out of time."""
    f = there.wait_function(SLEEPER, network="egress", timeout=1)
    there.problem(there.call(f), 504, "timeout")
    wait_for(only_those_ahead, what="the end of the network's process")


def test_a_burst(there, neighbour):
    f = there.create(FETCH, network="egress", memory=64, tmp_size=8)
    events = [there.send(f, f"http://{INTERNET}/") for _ in range(64)]
    for e in events:
        assert there.ended(e)["response"] == f"hello from {INTERNET}:80"
    wait_for(only_those_ahead, what="the end of the networks' processes")


def test_kill_9(neighbour, new_platform):
    before = stacks()
    new_platform.start()
    f = new_platform.create(SLEEPER, network="egress")
    new_platform.send(f)
    wait_for(lambda: stacks() - before, what="the sandbox's network")
    new_platform.end(signal.SIGKILL)
    wait_for(lambda: not stacks() - before, what="the end of the network's process")


def test_no_egress_on_this_node(new_platform):
    config = new_platform.dir / "pratai.conf"
    config.write_text("egress = none\n")
    new_platform.start("--config", str(config))
    f = new_platform.wait_function(FETCH, network="egress")
    r = new_platform.call(f, f"http://{INTERNET}/")
    new_platform.problem(r, 502, "function_failed")
    assert "this node gives functions none" in r.text


@pytest.mark.parametrize("words, says", [
    (["--egress", "host"], "option '--egress': 'host' is not none or internet"),
    (["--egress-allow", "10.0.0.1/8"], "'10.0.0.1/8' has bits of its address beyond its prefix"),
    (["--egress-allow", "10.0.0.1, x"], "'x' is not an IPv4 ADDRESS"),
    (["--egress-allow", "10.0.0.1:99999"], "'10.0.0.1:99999' is not an IPv4 ADDRESS"),
    (["--egress-allow", "10.0.0.1 " * 65], "more than 64"),
])
def test_bad_settings(tmp_path, words, says):
    p = subprocess.run([BUILD / "pratai-node", "--state", tmp_path, *words], capture_output=True,
                       text=True, env=dict(os.environ, PRATAI_JOIN_TOKEN="x"), timeout=60)
    assert p.returncode == 2 and p.stderr.count("\n") == 1 and says in p.stderr, p.stderr
