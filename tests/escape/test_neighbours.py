"""What a sandbox sees and feels of another one that runs at the same time, of the same image and,
for an ordinary user, of the same user id: nothing.  Each has its control: within one sandbox, or
outside, the same is there."""
import os
import shutil
import subprocess

import pytest

from conftest import BUILD, wait_for

PROBE = BUILD / "tests/escape/probe"


@pytest.fixture
def image(busybox, who):
    """With a file that is the user's own, who then may do more with it."""
    shutil.copy(PROBE, busybox / "bin/probe")
    (busybox / "bin/shared").write_text("shared\n")
    if who == "user":
        os.chown(busybox / "bin/shared", 1001, 1001)
    return busybox


@pytest.fixture
def first(run, image):
    """Starts a sandbox that tries verbs and then waits; what they said."""
    started = []

    def start(*verbs, more=()):
        p = run.start("--rootfs", image, argv=["/bin/probe", *verbs, "wait", *more], stdin=subprocess.PIPE)
        started.append(p)
        return p, [p.stdout.readline().decode().split()[1] for _ in verbs]
    yield start
    for p in started:
        if p.poll() is None:
            run.finish(p)


@pytest.fixture
def second(run, image):
    def attempt(*verbs):
        r = run("--rootfs", image, argv=["/bin/probe", *verbs])
        assert r.code == 0, r.err
        return [line.split()[1] for line in r.out.splitlines()]
    return attempt


def outside(*verbs, root="/"):
    p = subprocess.run(["unshare", "-i", "chroot", root, "/bin/probe", *verbs], capture_output=True,
                       text=True, check=True, stdin=subprocess.DEVNULL)
    return [line.split()[1] for line in p.stdout.splitlines()]


@pytest.mark.parametrize("kind", ["shm", "sem", "msg", "mq"])
def test_K16_objects_by_name(first, second, image, kind):
    # The control: who made it finds it.
    _, said = first(f"{kind}_make", f"{kind}_find")
    if said == ["ENOSYS"] * 2:
        pytest.skip("this kernel has no such objects")
    assert said == ["OK", "OK"]
    assert second(f"{kind}_find", f"{kind}_make") == ["ENOENT", "OK"]


def test_K16_nothing_is_left_for_the_next(second):
    for _ in range(2):
        assert second("shm_find", "shm_make", "sem_find", "sem_make", "msg_find", "msg_make") == [
            "ENOENT", "OK"] * 3


def test_locks_of_a_shared_layer(first, second, image):
    assert first("flock")[1] == second("flock") == ["OK"]
    # Nor do those of the machine's reach in.
    with open(image / "bin/shared") as file:
        subprocess.run(["flock", "-n", str(file.fileno())], pass_fds=[file.fileno()], check=True)
        assert outside("flock", root=image) == ["EAGAIN"]  # the control
        assert second("flock") == ["OK"]


def test_leases_of_a_shared_layer(run, first, second, image, who):
    """Who opens a file that is leased waits, or is told EAGAIN; and a lease of that kind tells
    whether somebody else has the file open."""
    want = ["OK" if who == "user" else "EACCES"]
    p, said = first("lease")
    assert said == second("lease") == want
    assert second("open") == ["OK"]
    os.close(os.open(image / "bin/shared", os.O_RDWR | os.O_NONBLOCK))
    run.finish(p)
    assert outside("lease", "open", root=image) == ["OK", "EAGAIN"]  # the control


def test_what_is_opened_is_not_seen(first, second, run, image):
    p, said = first("watch", more=["seen", "open", "seen"])
    assert said == ["OK"]
    assert second("open") == ["OK"]
    (image / "bin/shared").read_text()
    r = run.finish(p)
    # The control: what is opened in the same sandbox is.
    assert r.out.split() == ["seen", "EAGAIN", "open", "OK", "seen", "OK"]


def test_K17_E10_cve_2020_15257_abstract_sockets(first, second):
    _, said = first("listen", "connect")
    assert said == ["OK", "OK"]
    assert second("connect") == ["ECONNREFUSED"]


def test_K18_signals(run, first, second):
    first("flock")
    others = wait_for(lambda: run.processes(ours=True), what="the other sandbox")
    for pid in [*others, os.getpid(), os.getppid()]:
        assert second(f"kill={pid}") == ["ESRCH"]
    p = subprocess.run([PROBE, f"kill={others[0]}"], capture_output=True, text=True, check=True)
    assert p.stdout.split()[1] == "OK"


def test_ids_are_used_again_and_nothing_with_them(run, image):
    """The second has the same pids, names and perhaps host ids as the first."""
    script = ("ls -A / /tmp /dev/shm; echo $$; for d in /tmp /dev/shm /; do echo left >$d/left; done; "
              "ls / /tmp /dev/shm; cat /proc/self/cgroup")
    seen = {run("--rootfs", image, argv=["/bin/sh", "-c", script]).out for _ in range(3)}
    assert len(seen) == 1, seen
