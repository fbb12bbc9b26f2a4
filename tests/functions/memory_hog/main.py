"""Takes memory until there is none: in itself, in a child, in /tmp, in /dev/shm."""
import os


def eat():
    kept = []
    while True:
        kept.append(bytearray(os.urandom(4096) * 256))


def fill(path):
    block = b"x" * (1 << 20)
    with open(path, "wb") as f:
        while True:
            f.write(block)


def main(payload=None):
    if payload == "child":
        pid = os.fork()
        if pid == 0:
            eat()
        os.waitpid(pid, 0)
        return "the child is gone"
    if payload in ("/tmp", "/dev/shm"):
        fill(payload + "/fill")
    eat()
