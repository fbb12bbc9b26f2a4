"""How long a sandbox takes to start, run and be gone: ours, peers and the kernel's floor,
interleaved.  bench/README.md says what is measured and how to read it."""
import argparse
import atexit
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

from common import BUILD, OUT, Server, bars, percentile, save, spawn_ms, table

LAYER = "layers/sha256/" + "a" * 64
PYTHON = ["/usr/bin/python3", "-c", "pass"]
NATIVE = ["/bench/true"]
BUILD = os.path.abspath(BUILD)
HERE = os.path.dirname(os.path.abspath(__file__))
UID_BASE = 0x7b000000  # of runc and crun with a user namespace


def make_place():
    """A directory that sandboxes of any user can search, for the time of the measuring."""
    path = tempfile.mkdtemp(prefix="pratai-bench-", dir="/tmp")
    os.chmod(path, 0o755)
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


PLACE = make_place()


def place(name):
    return os.path.join(PLACE, name)


def make_roots():
    """For the peers a root directory with the static program, and the links and mount points
    of a host image; for the spawner a store with the program as a layer."""
    root, store = place("root"), place("store")
    for d in ("bench", "bin", "proc", "dev", "tmp", "sys", "etc", "run", "usr"):
        os.makedirs(os.path.join(root, d), exist_ok=True)
    os.rmdir(os.path.join(root, "bin"))
    for d in ("bin", "lib", "lib64", "sbin"):
        if os.path.isdir("/usr/" + d) and not os.path.lexists(os.path.join(root, d)):
            os.symlink("usr/" + d, os.path.join(root, d))
    with open(os.path.join(root, "etc/os-release"), "w") as f:  # nspawn asks for it
        f.write("ID=bench\n")
    os.makedirs(os.path.join(store, LAYER, "bench"), exist_ok=True)
    for d in (root, os.path.join(store, LAYER)):
        shutil.copy(os.path.join(BUILD, "bench/true"), os.path.join(d, "bench/true"))
    floor = place("floor-root")
    for d in ("bin", "old", "proc"):
        os.makedirs(os.path.join(floor, d), exist_ok=True)
    shutil.copy(os.path.join(BUILD, "bench/true"), os.path.join(floor, "bin/true"))
    return root, store, floor


def oci_filter():
    """The calls that our filter lets through, by name, in a profile of OCI."""
    with open(os.path.join(HERE, "../sandbox/seccomp_rules.c")) as f:
        text = f.read()
    allowed = text.split("allowed[] = {", 1)[1].split("END,", 1)[0]
    rules = text.split("default_rules[] = {", 1)[1].split("{NULL", 1)[0]
    names = re.findall(r"CALL\((\w+)\)", allowed) + re.findall(r"RULE\((\w+),", rules)
    return {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64"] if os.uname().machine == "x86_64" else [],
            "syscalls": [{"names": sorted(names), "action": "SCMP_ACT_ALLOW"}]}


def oci_bundle(name, tool, root, command, net, full):
    """full: with a user namespace, limits and a filter, as our sandboxes have."""
    path = place(name)
    os.makedirs(path)
    subprocess.run([tool, "spec"], cwd=path, check=True)
    with open(os.path.join(path, "config.json")) as f:
        config = json.load(f)
    config["process"].update(terminal=False, args=command)
    config["root"] = {"path": root, "readonly": True}
    config["mounts"].append({"destination": "/usr", "source": "/usr", "type": "bind",
                             "options": ["rbind", "ro"]})
    if full:
        ids = [{"containerID": 0, "hostID": UID_BASE, "size": 65536}]
        config["linux"].update(uidMappings=ids, gidMappings=ids)
        config["linux"]["namespaces"].append({"type": "user"})
        config["linux"]["seccomp"] = oci_filter()
        config["linux"]["resources"].update(
            memory={"limit": 64 << 20}, pids={"limit": 64}, cpu={"quota": 100000, "period": 100000})
        config["mounts"] = [m for m in config["mounts"] if not m["destination"].startswith("/sys")]
    if not net:
        config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"]
                                         if n["type"] != "network"]
    with open(os.path.join(path, "config.json"), "w") as f:
        json.dump(config, f)
    return path


class Program:
    """A tool that is a program: a burst is that many processes."""

    def __init__(self, name, argv, run=spawn_ms):
        self.name, self.argv, self.run, self.number = name, argv, run, 0

    def burst(self, count):
        argvs = []
        for _ in range(count):
            self.number += 1
            argvs.append([f"b{os.getpid()}-{self.number}" if w == "NAME" else w for w in self.argv])
        return self.run(argvs)


class Asked:
    """A warm server, which is asked by a line; its times are in us."""

    def __init__(self, name, server, word):
        self.name, self.server, self.word, self.last = name, server, word, None

    def burst(self, count):
        self.last = self.server.ask(f"{self.word} {count}")
        return [us / 1000 for us in self.last["us"]]


def crun_starter():
    """Debian's crun refuses hybrid hosts: there it runs where the v2 tree is not seen."""
    if not os.path.isdir("/sys/fs/cgroup/unified"):
        return spawn_ms
    server = Server(["unshare", "-m", "sh", "-c",
                     'umount /sys/fs/cgroup/unified && exec "$0" "$@"', sys.executable,
                     os.path.join(HERE, "common.py")])
    return lambda argvs: server.ask(json.dumps(argvs))


def peers(root, command, net, crun):
    """The other tools that are installed, each with what is nearest to our sandbox."""
    def have(tool):
        return shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/sbin")

    if have("bwrap"):
        yield Program("bwrap", [have("bwrap"), "--unshare-all", *([] if net else ["--share-net"]),
                                "--ro-bind", root, "/", "--ro-bind", "/usr", "/usr",
                                "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", *command])
    kind = f"{os.path.basename(command[0])}-{'net' if net else 'host'}"
    for tool, full, start in (("crun", False, crun), ("runc", False, spawn_ms),
                              ("crun, as ours", True, crun), ("runc, as ours", True, spawn_ms)):
        program = have(tool.split(",")[0])
        if program and (net or not full):
            bundle = oci_bundle(f"{tool}-{kind}", program, root, command, net, full)
            yield Program(tool, [program, "run", "--bundle", bundle, "NAME"], start)
    if have("systemd-nspawn"):
        yield Program("systemd-nspawn", [
            have("systemd-nspawn"), "-q", "--register=no", "--keep-unit", "--machine=NAME",
            "--read-only", "--pipe", "--bind-ro=/usr", *(["--private-network"] if net else []),
            "-D", root, *command])
    if have("firejail"):
        seen = command if command[0].startswith("/usr/") else [root + command[0]]
        yield Program("firejail", [have("firejail"), "--quiet", "--noprofile", "--private-dev",
                                   "--caps.drop=all", "--nonewprivs", "--seccomp",
                                   *(["--net=none"] if net else []), *seen])


def ours(root, command, net):
    pratai = os.path.join(BUILD, "pratai")
    image = [] if command[0].startswith("/usr/") else ["--rootfs", root]
    return [pratai, "run", *image, "--memory", "64M", "--cpus", "1", "--pids", "64",
            *([] if net else ["--network", "host"]), "--", *command]


def working(tools):
    """Those that run here at all; the others are named, once."""
    for tool in tools:
        try:
            tool.burst(1)
            yield tool
        except (RuntimeError, OSError) as e:
            print(f"  (left out: {tool.name}: {str(e)[:200]})")


def measure(tools, rounds, pause, count=1):
    """Every tool once a round, the first one another each time."""
    times = {tool.name: [] for tool in tools}
    for n in range(rounds):
        for i in range(len(tools)):
            tool = tools[(n + i) % len(tools)]
            times[tool.name] += [round(ms, 3) for ms in tool.burst(count)]
            time.sleep(pause)
    return times


def show(title, times, against):
    base = {name: percentile(times[name], 50) for name in against if name in times}
    rows = []
    for name, ms in times.items():
        p50 = percentile(ms, 50)
        rows.append((name, p50, percentile(ms, 99), len(ms), "ms",
                     *(f"{p50 / b:.2f}" for b in base.values())))
    table(title, ("name", "p50", "p99", "n", "unit", *("/" + b for b in base)), rows)


def our_steps(root, spawner, rounds):
    steps = {}

    def note(way, report):
        for name, us in report.items():
            steps.setdefault(name, {}).setdefault(way, []).append(us)

    for _ in range(rounds):
        argv = ours(root, NATIVE, True)
        done = subprocess.run([*argv[:2], "--report", "/dev/stderr", *argv[2:]],
                              stderr=subprocess.PIPE, check=True)
        note("run", json.loads(done.stderr)["steps_us"])
        time.sleep(0.003)
        spawner.burst(1)
        note("spawner", {**spawner.last["steps"], "total": spawner.last["setup_us"][0]})
        time.sleep(0.003)
    return steps


def step_rows(steps):
    def cell(values, p):
        return percentile(values, p) if values else "-"

    for name, of in steps.items():
        run, spawner = of.get("run"), of.get("spawner")
        yield (name, cell(run, 50), cell(run, 99), cell(spawner, 50), cell(spawner, 99))


def parser():
    p = argparse.ArgumentParser()
    p.add_argument("--runs", type=int, default=100, help="rounds of the first table")
    p.add_argument("--save", metavar="DIR", help="where to copy the JSON and the plot")
    return p


def main():
    a = parser().parse_args()
    few = max(a.runs // 4, 5)
    root, store, floor_root = make_roots()
    spawn_server = Server([os.path.join(BUILD, "bench/spawn_bench"),
                           os.path.join(BUILD, "pratai-spawner"), os.path.join(BUILD, "runtimes"),
                           store])
    floor_server = Server([os.path.join(BUILD, "bench/floor"), floor_root])
    step_names = floor_server.read()
    net_step = len(step_names) - 1
    spawner = Asked("pratai, warm spawner", spawn_server, "true")
    python = Asked("pratai, warm spawner", spawn_server, "python")
    floors = [Asked("floor", floor_server, net_step),
              Asked("floor, no net", floor_server, net_step - 1)]
    crun = crun_starter()
    data = {}

    run = Program("pratai run", ours(root, NATIVE, True))
    others = list(working(peers(root, NATIVE, True, crun)))
    data["true"] = measure([run, spawner, *others, *floors], a.runs, 0.005)
    show("A static program, every namespace, 5 ms apart", data["true"],
         ("bwrap", "runc", "runc, as ours", "floor", "floor, no net"))

    tools = [Program("pratai run", ours(root, NATIVE, False)),
             *working(peers(root, NATIVE, False, crun)), floors[1]]
    data["true_host_network"] = measure(tools, few, 0.005)
    show("The same on the machine's network", data["true_host_network"], ("bwrap", "runc"))

    tools = [Program("pratai run", ours(root, PYTHON, True)), python,
             *working(peers(root, PYTHON, True, crun)), Program("the command alone", PYTHON)]
    data["python"] = measure(tools, few, 0.005)
    show("python3 -c pass, every namespace", data["python"], ("bwrap", "runc", "the command alone"))

    fast = [run, spawner, *(t for t in others if t.name in ("bwrap", "crun", "runc")), floors[0]]
    for count, rounds in ((8, max(few // 3, 3)), (64, 3)):
        data[f"true_{count}"] = measure(fast, rounds, 0.05, count)
        show(f"{count} at a time: each one's own time", data[f"true_{count}"], ("bwrap", "floor"))

    quick = [run, spawner, *(t for t in others if t.name == "bwrap"), *floors]
    slow = [t for t in others if t.name in ("runc", "runc, as ours")]
    for label, tools, rounds, pause in (("one after another, no pause", quick, a.runs, 0),
                                        ("100 ms apart", quick + slow, few, 0.1)):
        data[label] = measure(tools, rounds, pause)
        show("A static program, " + label, data[label], ("bwrap", "runc", "runc, as ours", "floor"))

    steps = our_steps(root, spawner, few)
    table("Ours by step (us; steps of several processes overlap)",
          ("step", "run p50", "p99", "spawner p50", "p99"), list(step_rows(steps)))
    cumulative = [(Asked(name, floor_server, i)) for i, name in enumerate(step_names)]
    data["floor_steps"] = measure(cumulative, a.runs // 2, 0.003)
    show("The floor, cumulative", data["floor_steps"], ())

    bars("launch", "A sandbox for a static program, start to gone: p50, line to p99", "ms",
         [(name, percentile(ms, 50), percentile(ms, 99)) for name, ms in data["true"].items()])
    spawn_server.close()
    floor_server.close()
    path = save("launch", {"ms": data, "steps_us": steps})
    print("\n" + path)
    if a.save:
        os.makedirs(a.save, exist_ok=True)
        for name in ("launch.json", "launch.svg"):
            shutil.copy(os.path.join(OUT, name), a.save)


if __name__ == "__main__":
    sys.exit(main())
