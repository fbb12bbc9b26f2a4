"""R06: descriptors by the thousand.  Each hoard ends at a limit that is the sandbox's own, so another
one gets as many at the same time, and all is gone with the sandbox."""
import pathlib

import pytest

from conftest import call, wait_for

# In a sandbox, EMFILE is the limit of open files, and of inotify instances.
HOARDS = {kind: "EMFILE" for kind in ("files", "memory", "pipes", "sockets", "events", "timers", "epoll",
                                      "inotify")}
HOARDS["in_flight"] = "ETOOMANYREFS"


def open_files():
    """Of the whole machine."""
    return int(pathlib.Path("/proc/sys/fs/file-nr").read_text().split()[0])


@pytest.mark.parametrize("kind", HOARDS)
def test_R06_a_hoard_has_an_end_and_is_nobody_elses(way, kind):
    if way.name == "user" and kind == "in_flight":
        pytest.skip("the kernel counts what is in flight by user, and this is one user")
    before, said = open_files(), f"hoard={kind} {HOARDS[kind]}\n"
    first = way.start("/bin/probe", f"hoard={kind}", "wait")
    assert first.stdout.readline().decode() == said
    if kind not in ("inotify", "in_flight"):  # few instances, and one file many times
        assert open_files() > before + 2000  # the control: it is a hoard
    assert call(way, "/bin/probe", f"hoard={kind}").out == said
    assert way.finish(first).code == 0
    wait_for(lambda: open_files() < before + 2000, 60, "the end of the hoard")
