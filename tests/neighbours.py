"""What one sandbox could leave or hold for another to find: pairs of verbs of tests/escape/probe.

Each is a name, what the first does, what the second then tries, what the second is told in
another sandbox, and outside, where the two share everything: the control.
"""
import contextlib
import os
import subprocess

PAIRS = [
    ("System V shared memory", "shm_make", "shm_find", "ENOENT", "OK"),
    ("System V semaphores", "sem_make", "sem_find", "ENOENT", "OK"),
    ("System V messages", "msg_make", "msg_find", "ENOENT", "OK"),
    ("POSIX messages", "mq_make", "mq_find", "ENOENT", "OK"),
    ("abstract sockets", "listen", "connect", "ECONNREFUSED", "OK"),
    ("socket files", "listen_file", "connect_file", "ENOENT", "OK"),
    ("the loopback", "listen_tcp", "connect_tcp", "ECONNREFUSED", "OK"),
    ("/tmp", "tmp_make", "tmp_find", "ENOENT", "OK"),
    ("/dev/shm", "dev_shm_make", "dev_shm_find", "ENOENT", "OK"),
    ("locks", "flock", "flock", "OK", "EAGAIN"),
]
# A lease can be had by a file's owner alone.
LEASE = ("leases", "lease", "open", "OK", "EAGAIN")

ALONE = """
mount -t tmpfs none /tmp && mount -t tmpfs none /dev/shm && ip link set lo up && exec "$@"
"""


def words(text):
    return [line.split()[1] for line in text.splitlines()]


@contextlib.contextmanager
def outside(probe, shared, verb):
    """A process without a sandbox that has done verb and holds what it took, alone with who is
    called: tries verbs beside it, and gives what they said."""
    # By descriptor, because there is another /tmp.  O_PATH: a file that is open cannot be leased.
    fds = [os.open(p, os.O_PATH) for p in (probe, shared)]
    program, at = (f"/proc/self/fd/{fd}" for fd in fds)
    first = subprocess.Popen(
        ["unshare", "-i", "-n", "-m", "--propagation", "private", "/bin/sh", "-c", ALONE, "sh", program,
         f"at={at}", verb, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=fds)

    def second(*verbs):
        p = subprocess.run(["nsenter", "-i", "-n", "-m", "-t", str(first.pid), program, f"at={at}", *verbs],
                           stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, pass_fds=fds)
        return words(p.stdout)[1:]
    try:
        assert [first.stdout.readline().split()[1] for _ in range(2)] == [b"OK"] * 2
        yield second
    finally:
        first.communicate()
        for fd in fds:
            os.close(fd)
