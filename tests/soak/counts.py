"""What sandboxes could leave behind, counted, and whether it grows with their number.

A load is run in STAGES equal parts.  Before the first and after each one everything is counted
once it has come down: the kernel ends namespaces and cgroups later than their last user.  What
grew in every stage by more than its noise has grown.  What happens once (a cache that fills, a
neighbour's process) makes a step in one stage only, so the noise may be small: for most
counts well below what a hundred sandboxes would leave, if each left one.
"""
import ctypes
import os
import pathlib
import re
import time

STAGES = 3
QUIET_S, SETTLE_S = 3, 60

# Name: what it may grow by in a stage, because of others or of how it is counted.  A count of
# the kernel's objects is one of slabs, some of them half empty.
NOISE = {
    "processes": 16,
    "cgroups": 16,
    "cgroups with dying ones": 32,
    "mounts": 2,
    "mounts of all namespaces": 64,
    "namespaces of processes": 16,
    "net namespaces": 64,
    "user namespaces": 64,
    "pid namespaces": 64,
    "open files": 64,
    "keys": 32,
    "files left": 16,
    "kernel memory KiB": 2048,
    "spawner processes": 8,
    "spawner descriptors": 64,
    "spawner mappings": 2,
    "spawner memory KiB": 32,
    "spawner mounts": 0,
}
SLABS = {"mounts of all namespaces": "mnt_cache", "net namespaces": "net_namespace",
         "user namespaces": "user_namespace", "pid namespaces": "pid_namespace"}
# Where a program may forget a file.  Of the loads' own place all of it is counted.
TEMPORARY = "tmp", "var/tmp", "run", "dev/shm", "dev/mqueue"


def text(path):
    return pathlib.Path(path).read_text()


def number(path, pattern):
    return int(re.search(pattern, text(path), re.M)[1])


def lines(path):
    return len(text(path).splitlines())


def namespaces():
    """Those that some process is in."""
    found = set()
    for p in os.listdir("/proc"):
        if p.isdigit():
            try:
                found |= {os.readlink(f"/proc/{p}/ns/{n}") for n in os.listdir(f"/proc/{p}/ns")}
            except OSError:
                pass
    return len(found)


def cgroups():
    """Directories, in all hierarchies; and what the kernel has, those included whose
    directory is gone."""
    there = sum(len(dirs) for _, dirs, _ in os.walk("/sys/fs/cgroup"))
    hierarchies = {}  # of v1; several controllers may share one
    for line in text("/proc/cgroups").splitlines()[1:]:
        _, hierarchy, count, _ = line.split()
        if hierarchy != "0":
            hierarchies[hierarchy] = int(count)
    kept = sum(hierarchies.values())
    for stat in "/sys/fs/cgroup/cgroup.stat", "/sys/fs/cgroup/unified/cgroup.stat":
        if os.path.exists(stat):
            kept += number(stat, r"^nr_descendants (\d+)")
            kept += number(stat, r"^nr_dying_descendants (\d+)")
    return there, kept


def temporary(root):
    return sum(len(os.listdir(root + d)) for d in TEMPORARY if os.path.isdir(root + d))


def kernel_objects():
    """Live objects of the kernel's caches, where it tells."""
    try:
        found = dict(re.findall(r"^(\S+)\s+(\d+)", text("/proc/slabinfo"), re.M))
    except OSError:
        return {}
    return {name: int(found[slab]) for name, slab in SLABS.items() if slab in found}


def of(p, name, count):
    """count of a process's file; 0 where the process has ended."""
    try:
        return count(f"/proc/{p}/{name}")
    except (FileNotFoundError, ProcessLookupError):
        return 0


def family(pid):
    """The process, and all that descend from it."""
    found = [pid]
    for p in found:
        for task in of(p, "task", os.listdir) or ():
            found += map(int, (of(p, f"task/{task}/children", text) or "").split())
    return found


def memory_kib(path):
    """Not from status, whose counters lag behind by some hundred KiB."""
    return sum(number(path, rf"^{w}:\s+(\d+)") for w in ("Pss_Anon", "Pss_Shmem"))


class Counts:
    """Of the machine; and where there is one, of a spawner with the process that started it,
    first, and what descends from them."""

    def __init__(self, place, first=None, spawner=None):
        self.place, self.first, self.spawner = place, first, spawner

    def take(self):
        there, kept = cgroups()
        now = {
            "processes": number("/proc/loadavg", r"/(\d+)"),
            "cgroups": there, "cgroups with dying ones": kept,
            "mounts": lines("/proc/self/mountinfo"), "namespaces of processes": namespaces(),
            **kernel_objects(),
            "open files": number("/proc/sys/fs/file-nr", r"^(\d+)"),
            "keys": sum(map(int, re.findall(r"^\s*\d+:\s+\d+ (\d+)/", text("/proc/key-users"),
                                            re.M))),
            "files left": sum(1 for _ in self.place.rglob("*")) + temporary("/"),
            "kernel memory KiB": sum(number("/proc/meminfo", rf"^{w}:\s+(\d+)")
                                     for w in ("SUnreclaim", "KernelStack", "Percpu")),
        }
        if self.first:
            now["files left"] += temporary(f"/proc/{self.spawner}/root/")
            pids = family(self.first)
            now["spawner processes"] = len(pids)
            # Not of the sandboxes that were made ahead, which have a namespace of their own.
            kinds = {of(p, "ns/pid", os.readlink) for p in (self.first, self.spawner)}
            lasting = [p for p in pids if of(p, "ns/pid", os.readlink) in kinds]
            now["spawner descriptors"] = sum(len(of(p, "fd", os.listdir) or ()) for p in lasting)
            now["spawner mappings"] = sum(of(p, "maps", lines) for p in lasting)
            now["spawner memory KiB"] = sum(of(p, "smaps_rollup", memory_kib) for p in lasting)
            now["spawner mounts"] = lines(f"/proc/{self.spawner}/mountinfo")
        return now


def give_back():
    """Makes the kernel drop the names and inodes that it keeps in case they are asked for again,
    as it does when memory is short; those of a cgroup hold some of what SUnreclaim counts."""
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("2")


def small_pages():
    """For this process and all that it starts, so that memory does not grow by 2 MiB at a time."""
    PR_SET_THP_DISABLE = 41
    ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)


def over(before, now):
    return [name for name in before if now[name] - before[name] > NOISE[name]]


def grown(series):
    """The names of what grew in every stage.  series: counts before the first and after each."""
    stages = [over(before, now) for before, now in zip(series, series[1:])]
    return [name for name in series[0] if stages and all(name in s for s in stages)]


def settle(take, before=None, quiet_s=QUIET_S):
    """The lowest of each count, taken until none is over what it was before, or those that are
    have not come down for a while."""
    low = take()
    if before is None or "kernel memory KiB" in over(before, low):
        give_back()
    lowered, end = time.monotonic(), time.monotonic() + SETTLE_S
    while (left := over(before, low) if before else list(low)) and \
            time.monotonic() < min(lowered + quiet_s, end):
        time.sleep(0.1)
        now = take()
        if any(now[name] < low[name] for name in left):
            lowered = time.monotonic()
        low = {name: min(low[name], now[name]) for name in low}
    return low


def watch(series, take, load, parts, quiet_s=QUIET_S):
    """Gives a load each of parts, and adds to its series, which may have its first already."""
    if not series:
        series.append(settle(take, quiet_s=quiet_s))
    for part in parts:
        load(part)
        series.append(settle(take, series[-1], quiet_s))
