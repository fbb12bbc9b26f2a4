"""The whole way: HTTP in, a new sandbox, python3, answer out.  Starts a platform of its own
in a temporary state directory, measures, takes it down.  Needs `hey` (Debian) for load."""
import argparse
import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile

from common import BUILD, bars, percentile, save, table

ASYNC_EVENTS = 64 * 50  # each is waited for afterwards
ECHO = "def main(payload=None):\n    return payload\n"


class Platform:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="pratai-bench-")
        self.process = subprocess.Popen(
            [os.path.join(BUILD, "pratai"), "up", "--state", self.dir, "--listen", "127.0.0.1:0",
             "--log-level", "error"], stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("ready "):
            raise RuntimeError("the platform did not start")
        self.url = line.split()[1]
        with open(os.path.join(self.dir, "env")) as f:
            env = dict(l[len("export "):].strip().split("=", 1) for l in f)
        self.token = env["OS_TOKEN"].strip("'\"")

    def call(self, method, path, body=None, headers=None):
        request = urllib.request.Request(self.url + path, data=body, method=method,
                                         headers={"X-Auth-Token": self.token, **(headers or {})})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def create(self, name, **settings):
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as z:
            z.writestr("main.py", ECHO)
        mark = "bench-boundary"
        body = (f'--{mark}\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n'
                + json.dumps({"name": name, **settings})
                + f'\r\n--{mark}\r\nContent-Disposition: form-data; name="zip_file"; '
                  'filename="f.zip"\r\n\r\n').encode() + data.getvalue() + f"\r\n--{mark}--\r\n".encode()
        self.call("POST", "/v1/functions", body,
                  {"Content-Type": f"multipart/form-data; boundary={mark}"})
        deadline = time.time() + 60
        while self.call("GET", f"/v1/functions/{name}")["state"] == "building":
            if time.time() > deadline:
                raise RuntimeError("the build does not end")
            time.sleep(0.05)

    def memory_kib(self):
        found, left = {}, [self.process.pid]
        while left:
            pid = left.pop(0)
            with open(f"/proc/{pid}/task/{pid}/children") as f:
                left += f.read().split()
            with open(f"/proc/{pid}/comm") as f:
                name = f.read().strip()
            with open(f"/proc/{pid}/smaps_rollup") as f:
                fields = dict(l.split(":", 1) for l in f if ":" in l)
            if "Rss" in fields:
                found[f"{name} {pid}"] = tuple(int(fields[k].split()[0]) for k in ("Rss", "Pss"))
        return found

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)
        shutil.rmtree(self.dir)


def hey(p, path, clients, *until):
    """until: -z TIME, or -n REQUESTS."""
    done = subprocess.run(
        ["hey", *until, "-c", str(clients), "-m", "POST", "-o", "csv", "-H",
         f"X-Auth-Token: {p.token}", "-T", "application/json", "-d", '{"payload":{"key":"value"}}',
         p.url + path], check=True, stdout=subprocess.PIPE, text=True)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    good = [r for r in rows if r["status-code"] in ("200", "202")]
    ms = [float(r["response-time"]) * 1000 for r in good]
    seconds = max(float(r["offset"]) + float(r["response-time"]) for r in rows)
    return {"p50": percentile(ms, 50), "p99": percentile(ms, 99), "per_second": len(ms) / seconds,
            "n": len(ms), "failed": len(rows) - len(good)}


def drained(p):
    start = time.time()
    while time.time() - start < 600:
        events = p.call("GET", "/v1/cluster")["events"]
        if not events["queued"] and not events["running"]:
            return time.time() - start
        time.sleep(0.2)
    raise RuntimeError("the queue does not drain")


def lag_ms(p, name, n):
    """From the request to the record's end state, one event at a time."""
    out = []
    for _ in range(n):
        start = time.perf_counter()
        e = p.call("POST", f"/v1/functions/{name}", b'{"payload":1}')["event_id"]
        p.call("GET", f"/v1/events/{e}/response?wait=30")
        out.append((time.perf_counter() - start) * 1000)
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=8)
    a = parser.parse_args()
    p = Platform()
    try:
        rest = p.memory_kib()
        p.create("waits", type="wait_for_response")
        p.create("async")
        hey(p, "/v1/functions/waits", 1, "-z", "1s")
        waits = {c: hey(p, "/v1/functions/waits", c, "-z", f"{a.seconds}s") for c in (1, 8, 64)}
        table("Webhook, wait_for_response, a new python3 sandbox each (ms)",
              ("clients", "p50", "p99", "events/s", "n", "failed"),
              [(str(c), r["p50"], r["p99"], r["per_second"], r["n"], r["failed"])
               for c, r in waits.items()])
        lag = lag_ms(p, "async", 50)
        accepted = hey(p, "/v1/functions/async", 64, "-n", str(ASYNC_EVENTS))
        wait_s = drained(p)
        table("async", ("what", "value"),
              [("accepted per second, durable, 64 clients", accepted["per_second"]),
               ("accept p50 (ms)", accepted["p50"]), ("accept p99 (ms)", accepted["p99"]),
               ("from accept to end state, p50 (ms)", percentile(lag, 50)),
               ("from accept to end state, p99 (ms)", percentile(lag, 99)),
               (f"draining the {accepted['n']} events (s)", wait_s)])
        table("Memory at rest (KiB)", ("process", "RSS", "PSS"), [(k, *v) for k, v in rest.items()])
        bars("webhook", "wait_for_response, new sandbox per event: p50, line to p99", "ms",
             [(f"pratai, {c} clients", r["p50"], r["p99"]) for c, r in waits.items()])
        print("\n" + save("webhook", {"wait_for_response": waits, "async": accepted,
                                      "end_to_end_ms": lag, "memory_kib": rest}))
    finally:
        p.close()


if __name__ == "__main__":
    sys.exit(main())
