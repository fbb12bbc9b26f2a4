"""Writes where it may and tries where it may not: {path: "written" or the errno's name}.
What an earlier event wrote must not be there."""
import errno
import os

PLACES = ("/tmp/mark", "/dev/shm/mark", "/function/mark", "/opt/mark", "/etc/mark", "/usr/mark",
          "/mark")


def attempt(path):
    if os.path.exists(path):
        return "was there"
    try:
        with open(path, "w") as f:
            f.write("mark")
    except OSError as error:
        return errno.errorcode[error.errno]
    return "written"


def main(payload=None):
    return {path: attempt(path) for path in PLACES}
