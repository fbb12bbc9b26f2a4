"""The two ways to give a sandbox the Internet: a user-mode stack, which is ours, and a veth pair
with nftables.  bench/README.md says what was found, and why the first was chosen.  As root.

All of it happens in a network namespace that stands for the machine's, so nothing of the real
one's is changed.  The processes that make veth pairs are there before, and speak rtnetlink and
(by libnftables, as nft does) nf_tables themselves: what is measured is the kernel's work and no
start of a program.  Their rules are those of sandbox/egress.c, and refuse the same.
"""
import argparse
import ctypes
import multiprocessing
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

from common import BUILD, Server, percentile, save, spawn_ms, table

PRATAI = os.path.join(BUILD, "pratai")
CLONE_NEWNET = 0x40000000
AT_ONCE, MIB, ECHOES = 64, 256, 1000
libc = ctypes.CDLL(None, use_errno=True)

RULES = """
table inet pratai {{
 chain refuse {{
  meta l4proto 6 reject with tcp reset
  reject with icmpx admin-prohibited
 }}
 chain out {{
  type filter hook output priority filter; policy drop;
  oifname "lo" accept
  ct state established,related accept
  meta l4proto {{ 6, 17 }} th dport 53 ip daddr 192.0.2.53 accept
  {allowed}
  ip daddr {{ 0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12,
              192.0.0.0/24, 192.168.0.0/16, 198.18.0.0/15, 224.0.0.0/3 }} goto refuse
  ip6 daddr {{ fc00::/7, fe80::/10 }} goto refuse
  ip daddr 192.0.2.1 goto refuse
  meta nfproto ipv4 accept
  goto refuse
 }}
}}
"""
MASQUERADE = """
table ip pratai {
 chain leave {
  type nat hook postrouting priority srcnat;
  ip saddr 10.200.0.0/16 masquerade
 }
}
"""


def check(rc, what):
    if rc:
        raise OSError(ctypes.get_errno(), what)


def enter(fd):
    check(libc.setns(fd, CLONE_NEWNET), "setns")


def new_namespace(home):
    """A descriptor of a fresh network namespace with lo up; we stay at home."""
    check(libc.unshare(CLONE_NEWNET), "unshare")
    fd = os.open("/proc/self/ns/net", os.O_RDONLY)
    with Link() as link:
        link.up("lo")
    enter(home)
    return fd


# ---- rtnetlink and nf_tables ----

def attribute(kind, data):
    if isinstance(data, str):
        data = data.encode() + b"\0"
    return struct.pack("=HH", len(data) + 4, kind) + data + b"\0" * (-len(data) % 4)


class Link:
    """rtnetlink in the network namespace where it was made."""
    NEWLINK, DELLINK, NEWADDR, NEWROUTE = 16, 17, 20, 24
    MAKE = 0x605  # request, acknowledged, create, and only if new

    def __enter__(self):
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        return self

    def __exit__(self, *_):
        self.socket.close()

    def ask(self, kind, body, flags=0x5):
        self.socket.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
        error = struct.unpack_from("=i", self.socket.recv(8192), 16)[0]
        if error:
            raise OSError(-error, f"rtnetlink {kind}: {os.strerror(-error)}")

    def veth(self, name, peer, namespace):
        of_peer = bytes(16) + attribute(3, peer) + attribute(28, struct.pack("=I", namespace))
        kind = attribute(1, "veth") + attribute(2, attribute(1, of_peer))
        self.ask(self.NEWLINK, bytes(16) + attribute(3, name) + attribute(18, kind), self.MAKE)

    def address(self, name, address):
        four = socket.inet_aton(address)
        self.ask(self.NEWADDR, struct.pack("=BBBBI", 2, 30, 0, 0, socket.if_nametoindex(name)) +
                 attribute(2, four) + attribute(1, four), self.MAKE)

    def up(self, name):
        self.ask(self.NEWLINK, struct.pack("=BxHiII", 0, 0, socket.if_nametoindex(name), 1, 1))

    def route(self, gateway):
        self.ask(self.NEWROUTE, struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0) +
                 attribute(5, socket.inet_aton(gateway)), self.MAKE)

    def delete(self, name):
        self.ask(self.DELLINK, struct.pack("=BxHiII", 0, 0, socket.if_nametoindex(name), 0, 0))


nftables = ctypes.CDLL("libnftables.so.1")
nftables.nft_ctx_new.restype = ctypes.c_void_p


def set_rules(text):
    context = ctypes.c_void_p(nftables.nft_ctx_new(0))
    rc = nftables.nft_run_cmd_from_buffer(context, text.encode())
    nftables.nft_ctx_free(context)
    if rc:
        raise RuntimeError("nf_tables did not take the rules")


# ---- The two ways ----

def make_veth(number, inside, home, allowed=""):
    """Both ends, addresses, route and rules: the machine's end is .1, the sandbox's .2."""
    net = f"10.200.{number // 64}.{number % 64 * 4}"
    ours, theirs = (net.rsplit(".", 1)[0] + f".{int(net.rsplit('.', 1)[1]) + n}" for n in (1, 2))
    with Link() as link:
        link.veth(f"v{number}", "eth0", inside)
        link.address(f"v{number}", ours)
        link.up(f"v{number}")
    enter(inside)
    with Link() as link:
        link.address("eth0", theirs)
        link.up("eth0")
        link.route(ours)
    set_rules(RULES.format(allowed=allowed.replace("GATEWAY", ours)))
    enter(home)
    return ours


def veth_worker(number, pipe, home):
    while pipe.recv():
        inside = new_namespace(home)
        pipe.send(None)
        pipe.recv()
        start = time.perf_counter()
        make_veth(number, inside, home)
        made = time.perf_counter()
        with Link() as link:
            link.delete(f"v{number}")
        gone = time.perf_counter()
        os.close(inside)
        pipe.send(((made - start) * 1000, (gone - made) * 1000))


class Veths:
    """Processes that make a veth pair each when told to, all at once."""

    def __init__(self, count, home):
        self.workers = []
        for number in range(count):
            ours, theirs = multiprocessing.Pipe()
            p = multiprocessing.Process(target=veth_worker, args=(number, theirs, home),
                                        daemon=True)
            p.start()
            self.workers.append((p, ours))

    def burst(self, count):
        """Of each, how long to make and to remove, in ms."""
        some = [pipe for _, pipe in self.workers[:count]]
        for stage in True, None:
            for pipe in some:
                pipe.send(stage)
            answers = [pipe.recv() for pipe in some]
        return answers

    def close(self):
        for p, pipe in self.workers:
            pipe.send(False)
            p.join()


def neighbour(pipe):
    """How long it waits for the kernel's network lock, in a namespace of its own: every ms, until
    there is a word on pipe."""
    check(libc.unshare(CLONE_NEWNET), "unshare")
    while pipe.recv():
        waits = []
        while not pipe.poll(0.001):
            start = time.perf_counter()
            with Link() as link:
                link.up("lo")
            waits.append((time.perf_counter() - start) * 1000)
        pipe.recv()
        pipe.send(waits)


class Neighbour:
    def __init__(self):
        self.pipe, theirs = multiprocessing.Pipe()
        multiprocessing.Process(target=neighbour, args=(theirs,), daemon=True).start()

    def meanwhile(self, what):
        """What `what` gives, and the waits."""
        self.pipe.send(True)
        found = what()
        self.pipe.send(True)
        return found, self.pipe.recv()


def run_argv(network, *options, command=("true",)):
    return [PRATAI, "run", "--memory", "64M", "--network", network, *options, "--", *command]


def stack_ms():
    """From the start of slirp4netns until it says that the network is up."""
    r, w = os.pipe()
    with subprocess.Popen(["unshare", "-n", "sleep", "100"]) as held:
        while os.readlink(f"/proc/{held.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            time.sleep(0.001)
        start = time.perf_counter()
        with subprocess.Popen(["slirp4netns", "--configure", "--mtu=65520", f"--ready-fd={w}",
                               str(held.pid), "tap0"], pass_fds=[w], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL) as stack:
            os.close(w)
            up = os.read(r, 1)
            took = (time.perf_counter() - start) * 1000
            os.close(r)
            stack.kill()
        held.kill()
    if up != b"1":
        raise RuntimeError("slirp4netns ended before the network was up")
    return took


def starts(count, rounds, veths, other):
    """Interleaved; each sandbox's time in ms, and what a neighbour waited."""
    times, waits = {}, {}

    def note(way, names, what):
        found, waited = other.meanwhile(what)
        waits.setdefault(way, []).extend(waited)
        for name, ms in zip(names, zip(*found)):
            times.setdefault(name, []).extend(ms)
        time.sleep(0.02)

    for _ in range(rounds):
        for network in "none", "egress":
            way = f"run, {network}"
            note(way, [way], lambda: [(ms,) for ms in spawn_ms([run_argv(network)] * count)])
        note("veth", ["veth: made", "veth: removed"], lambda: veths.burst(count))
        if count == 1:
            note("slirp4netns alone", ["slirp4netns alone"], lambda: [(stack_ms(),)])
    return {"ms": times, "neighbour_ms": waits}


# ---- The warm spawner ----

LAYER = "layers/sha256/" + "a" * 64


class Spawner:
    """A node's, which may give sandboxes egress."""

    def __init__(self):
        self.store = tempfile.mkdtemp(prefix="pratai-bench-egress-", dir="/tmp")
        os.makedirs(os.path.join(self.store, LAYER, "bench"))
        shutil.copy(os.path.join(BUILD, "bench/true"), os.path.join(self.store, LAYER, "bench"))
        for place, _, _ in os.walk(self.store):
            os.chmod(place, 0o755)
        self.server = Server([os.path.join(BUILD, "bench/spawn_bench"),
                              os.path.join(BUILD, "pratai-spawner"),
                              os.path.join(BUILD, "runtimes"), self.store, "egress"])

    def ask(self, count, network):
        word = " egress" if network == "egress" else ""
        return self.server.ask(f"true {count}{word}")

    def close(self):
        self.server.close()
        shutil.rmtree(self.store)


def processor_s():
    """Time that the machine's processors were busy, and all of it, in s."""
    with open("/proc/stat") as f:
        times = [int(t) / os.sysconf("SC_CLK_TCK") for t in f.readline().split()[1:9]]
    return sum(times) - times[3] - times[4], sum(times)


def warm_starts(spawner, rounds, other):
    """Each sandbox's time in ms, 1 and 64 at once, with a moment in between for what is made
    ahead; of 64 also until the last had ended, how busy the processors were meanwhile, in per
    cent, and what a neighbour waited."""
    data = {}
    for count, times in ((1, rounds), (AT_ONCE, 6)):
        for network in ("none", "egress") * times:
            of = data.setdefault(f"{count} at once, {network}",
                                 {"ms": [], "all_ms": [], "busy": [], "neighbour_ms": []})
            time.sleep(0.1 if count == 1 else 1)
            before = processor_s()
            answer, waits = other.meanwhile(lambda: spawner.ask(count, network))
            busy, whole = (b - a for a, b in zip(before, processor_s()))
            of["ms"] += [us / 1000 for us in answer["us"]]
            of["all_ms"].append(answer["all_us"] / 1000)
            of["busy"].append(100 * busy / whole if whole else 0.0)
            of["neighbour_ms"] += waits
    return data


def show_warm(data):
    rows = []
    for name, of in data.items():
        many = not name.startswith("1 ")
        rows.append((name, percentile(of["ms"], 50), percentile(of["ms"], 99), len(of["ms"]),
                     percentile(of["all_ms"], 50), percentile(of["busy"], 50) if many else "-",
                     percentile(of["neighbour_ms"], 99) if of["neighbour_ms"] else "-"))
    table("A warm spawner", ("name", "p50 ms", "p99 ms", "n", "the last, ms", "busy %",
                             "neighbour p99 ms"), rows)


# ---- Throughput ----

CLIENT = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
times = []
for _ in range(ECHOES):
    start = time.perf_counter()
    s.send(b"x"); s.recv(1)
    times.append((time.perf_counter() - start) * 1e6)
data, start = bytes(1 << 20), time.perf_counter()
for _ in range(MIB):
    s.sendall(data)
s.shutdown(socket.SHUT_WR); s.recv(1)
print(MIB / (time.perf_counter() - start), sorted(times)[ECHOES // 2])
""".replace("MIB", str(MIB)).replace("ECHOES", str(ECHOES))


def serve(listener):
    """Answers ECHOES single bytes, takes what comes then, and says that it has ended."""
    while True:
        s, _ = listener.accept()
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(ECHOES):
            s.send(s.recv(1))
        while s.recv(1 << 20):
            pass
        s.send(b".")
        s.close()


def throughput(home, rounds):
    listener = socket.create_server(("0.0.0.0", 0))
    port = listener.getsockname()[1]
    server = multiprocessing.Process(target=serve, args=(listener,), daemon=True)
    server.start()
    client = ["/usr/bin/python3", "-I", "-c", CLIENT]
    inside = new_namespace(home)
    gateway = make_veth(200, inside, home, allowed=f"ip daddr GATEWAY th dport {port} accept")
    ways = {
        "loopback itself": lambda: [*client, "127.0.0.1", str(port)],
        "run, egress": lambda: run_argv("egress", "--allow", f"127.0.0.1:{port}",
                                        command=[*client, "127.0.0.1", str(port)]),
        "veth + nftables": lambda: ["nsenter", f"--net=/proc/{os.getpid()}/fd/{inside}", *client,
                                    gateway, str(port)],
    }
    found = {name: [] for name in ways}
    for _ in range(rounds):
        for name, argv in ways.items():
            done = subprocess.run(argv(), stdout=subprocess.PIPE, check=True, text=True)
            found[name].append(tuple(map(float, done.stdout.split())))
    server.terminate()
    server.join()
    with Link() as link:
        link.delete("v200")
    os.close(inside)
    return found


# ---- ----

def show(title, data):
    times = data["ms"]
    rows = [(name, percentile(ms, 50), percentile(ms, 99), len(ms), "ms")
            for name, ms in times.items()]
    extra = percentile(times["run, egress"], 50) - percentile(times["run, none"], 50)
    rows.append(("egress minus none", extra, "-", "-", "ms"))
    rows += [(f"neighbour meanwhile: {name}", percentile(ms, 50), percentile(ms, 99), len(ms), "ms")
             for name, ms in data["neighbour_ms"].items()]
    table(title, ("name", "p50", "p99", "n", "unit"), rows)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=50, help="rounds of the first table")
    a = parser.parse_args()
    check(libc.unshare(CLONE_NEWNET), "unshare")
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    with Link() as link:
        link.up("lo")
    set_rules(MASQUERADE)
    veths, other = Veths(AT_ONCE, home), Neighbour()
    veths.burst(1)
    spawn_ms([run_argv("egress"), run_argv("none")])
    data = {"one": starts(1, a.runs, veths, other)}
    show("Network for one sandbox, one at a time", data["one"])
    data["many"] = starts(AT_ONCE, 3, veths, other)
    show(f"{AT_ONCE} at a time: each one's own time", data["many"])
    spawner = Spawner()
    for network in "none", "egress":
        spawner.ask(AT_ONCE, network)
    data["warm"] = warm_starts(spawner, a.runs, other)
    show_warm(data["warm"])
    spawner.close()
    data["throughput"] = throughput(home, 3)
    table("From inside to a server of the machine, one TCP connection",
          ("name", "MiB/s", "echo us", "n"),
          [(name, *(statistics.median(pair[i] for pair in of) for i in (0, 1)), len(of))
           for name, of in data["throughput"].items()])
    veths.close()
    print("\n" + save("egress", data))


if __name__ == "__main__":
    sys.exit(main())
