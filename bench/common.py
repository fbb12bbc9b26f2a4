"""What the benchmarks share: percentiles, tables, JSON, plots (SVG, no library)."""
import json
import os
import platform
import subprocess
import sys
import time

BUILD = os.environ.get("BUILD", "build")
OUT = os.path.join(BUILD, "bench")


def percentile(values, p):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))]


def table(title, header, rows):
    """Prints rows under header, columns aligned; numbers to the right."""
    text = [[c if isinstance(c, str) else f"{c:.2f}" if isinstance(c, float) else str(c)
             for c in row] for row in [header, *rows]]
    widths = [max(len(r[i]) for r in text) for i in range(len(header))]
    print(f"\n{title}")
    for n, row in enumerate(text):
        print("  " + "  ".join(c.ljust(w) if i == 0 else c.rjust(w)
                               for i, (c, w) in enumerate(zip(row, widths))))
        if n == 0:
            print("  " + "  ".join("-" * w for w in widths))


def save(name, data):
    os.makedirs(OUT, exist_ok=True)
    data = {"machine": machine(), "date": time.strftime("%Y-%m-%d"), **data}
    path = os.path.join(OUT, name + ".json")
    with open(path, "w") as f:
        json.dump(data, f)
        f.write("\n")
    return path


def machine():
    mem = next(l for l in open("/proc/meminfo") if l.startswith("MemTotal"))
    return {"kernel": platform.release(), "cpus": os.cpu_count(),
            "memory_gib": round(int(mem.split()[1]) / 2**20),
            "cgroups": "hybrid" if os.path.isdir("/sys/fs/cgroup/unified") else "v2"}


def where():
    m = machine()
    return (f"{time.strftime('%Y-%m-%d')}, {m['cpus']} cores, Linux {m['kernel'].split('-')[0]}, "
            f"{m['cgroups']} cgroups")


def bars(name, title, unit, items):
    """items: (label, p50, p99).  A horizontal bar to p50, a thin line on to p99."""
    left, width, step = 210, 420, 30
    most = max(p99 for _, _, p99 in items) * 1.02
    height = 62 + step * len(items)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 90}" height="{height}" '
           'font-family="sans-serif" font-size="13">',
           '<rect width="100%" height="100%" fill="white"/>',
           f'<text x="10" y="22" font-weight="bold">{title}</text>',
           f'<text x="10" y="40" fill="#555">{where()}</text>']
    for i, (label, p50, p99) in enumerate(items):
        y = 54 + step * i
        x50, x99 = left + width * p50 / most, left + width * p99 / most
        colour = "#2a6f97" if label.startswith("pratai") else "#a9b4bd"
        out += [f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{label}</text>',
                f'<rect x="{left}" y="{y}" width="{x50 - left:.1f}" height="18" fill="{colour}"/>',
                f'<line x1="{x50:.1f}" y1="{y + 9}" x2="{x99:.1f}" y2="{y + 9}" stroke="#555"/>',
                f'<line x1="{x99:.1f}" y1="{y + 4}" x2="{x99:.1f}" y2="{y + 14}" stroke="#555"/>',
                f'<text x="{x99 + 6:.1f}" y="{y + 13}">{p50:.2f} {unit}</text>']
    out.append("</svg>")
    os.makedirs(OUT, exist_ok=True)
    with open(os.path.join(OUT, name + ".svg"), "w") as f:
        f.write("\n".join(out) + "\n")


def spawn_ms(argvs):
    """Starts all of argvs at once.  Of each the wall time from its posix_spawn to its end, in
    ms; each must exit with 0."""
    null = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1, 2)]
    started, took = {}, []
    for argv in argvs:
        now = time.perf_counter()
        started[os.posix_spawn(argv[0], argv, os.environ, file_actions=null)] = (now, argv)
    while started:
        pid, status = os.waitpid(-1, 0)
        if pid not in started:
            continue
        begun, argv = started.pop(pid)
        took.append((time.perf_counter() - begun) * 1000)
        if status != 0:
            shown = subprocess.run(argv, capture_output=True, text=True)
            raise RuntimeError(f"{' '.join(argv)}: status {status}: {shown.stderr.strip()[:500]}")
    return took


class Server:
    """A process that answers each line by one of JSON."""

    def __init__(self, argv):
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args[0]} ended: {self.process.wait()}")
        return json.loads(line)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.read()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


if __name__ == "__main__":  # for launch.py: times the commands that come, one list a line
    for line in sys.stdin:
        print(json.dumps(spawn_ms(json.loads(line))), flush=True)
