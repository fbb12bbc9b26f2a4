"""How long one sandbox takes to start, run a static `true`, and be gone: ours and peers,
interleaved, with pauses between starts; then our own steps beside the kernel's floor."""
import argparse
import json
import os
import shutil
import subprocess
import sys
import time

from common import BUILD, OUT, bars, percentile, save, spawn_ms, table


def make_root(path):
    os.makedirs(os.path.join(path, "bin"), exist_ok=True)
    for d in ("proc", "dev", "tmp", "sys", "etc", "run"):
        os.makedirs(os.path.join(path, d), exist_ok=True)
    shutil.copy("/bin/busybox", os.path.join(path, "bin/busybox"))
    for name in ("true", "sh"):
        link = os.path.join(path, "bin", name)
        if not os.path.islink(link):
            os.symlink("busybox", link)


def oci_bundle(path, root, tool):
    os.makedirs(path, exist_ok=True)
    if os.path.exists(os.path.join(path, "config.json")):
        os.unlink(os.path.join(path, "config.json"))
    subprocess.run([tool, "spec"], cwd=path, check=True)
    with open(os.path.join(path, "config.json")) as f:
        config = json.load(f)
    config["process"].update(terminal=False, args=["/bin/true"])
    config["root"] = {"path": os.path.abspath(root), "readonly": True}
    with open(os.path.join(path, "config.json"), "w") as f:
        json.dump(config, f)


def contenders(root):
    pratai = os.path.abspath(os.path.join(BUILD, "pratai"))
    yield "pratai run", lambda n: [pratai, "run", "--rootfs", root, "--memory", "64M",
                                   "--cpus", "1", "--pids", "64", "--", "/bin/true"]
    if shutil.which("bwrap"):
        yield "bwrap", lambda n: [shutil.which("bwrap"), "--unshare-all", "--ro-bind", root, "/",
                                  "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",
                                  "/bin/true"]
    for tool in ("crun", "runc"):
        if not shutil.which(tool):
            continue
        bundle = os.path.abspath(os.path.join(OUT, tool))
        oci_bundle(bundle, root, tool)
        run = [shutil.which(tool), "run", "--bundle", bundle]
        yield tool, lambda n, r=run: [*r, f"bench-{os.getpid()}-{n}"]
    yield "exec alone", lambda n: [os.path.join(root, "bin/true")]


def starter(name):
    """How this tool is timed: here; crun on a hybrid host by a process that does not see the
    v2 tree, since Debian's refuses such hosts."""
    if name != "crun" or not os.path.isdir("/sys/fs/cgroup/unified"):
        return spawn_ms
    server = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", 'umount /sys/fs/cgroup/unified && exec "$0" "$@"',
         sys.executable, os.path.join(os.path.dirname(__file__), "common.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def remote(argv):
        server.stdin.write(json.dumps(argv) + "\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())
    return remote


def measure(root, runs, pause):
    tools = [(name, starter(name), argv) for name, argv in contenders(root)]
    times = {name: [] for name, _, _ in tools}
    for n in range(runs):
        for name, start, argv in tools:
            times[name].append(start(argv(n)))
            time.sleep(pause)
    return times


def our_steps(root, runs):
    pratai = os.path.abspath(os.path.join(BUILD, "pratai"))
    steps = {}
    for _ in range(runs):
        done = subprocess.run([pratai, "run", "--rootfs", root, "--memory", "64M", "--cpus", "1",
                               "--pids", "64", "--report", "/dev/stderr", "--", "/bin/true"],
                              stderr=subprocess.PIPE, check=True)
        report = json.loads(done.stderr)
        for name, us in report["steps_us"].items():
            steps.setdefault(name, []).append(us)
        time.sleep(0.002)
    return {name: (percentile(v, 50), percentile(v, 99)) for name, v in steps.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=200)
    a = parser.parse_args()
    root = os.path.abspath(os.path.join(OUT, "root"))
    make_root(root)
    times = measure(root, a.runs, 0.005)
    base = percentile(times["bwrap"], 50) if "bwrap" in times else None
    rows = [(name, percentile(v, 50), percentile(v, 99), len(v),
             f"{percentile(v, 50) / base:.2f}" if base else "-") for name, v in times.items()]
    table("One sandbox, static true (ms)", ("tool", "p50", "p99", "n", "/bwrap"), rows)
    steps = our_steps(root, 100)
    table("pratai run by step (us)", ("step", "p50", "p99"), [(k, *v) for k, v in steps.items()])
    floor = json.loads(subprocess.run([os.path.join(BUILD, "bench/floor"), root, "200"], check=True,
                                      stdout=subprocess.PIPE).stdout)
    table("The kernel's floor, cumulative (us)", ("steps", "p50", "p99"),
          [(k, *v) for k, v in floor.items()])
    bars("launch", "One sandbox for a static `true`: p50, line to p99", "ms",
         [(r[0], r[1], r[2]) for r in rows])
    print("\n" + save("launch", {"ms": times, "steps_us": steps, "floor_us": floor}))


if __name__ == "__main__":
    sys.exit(main())
