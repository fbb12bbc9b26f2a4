"""Ends its process by itself: with a status, a signal, or by its parent's end."""
import os
import signal
import sys


def main(payload=None):
    if payload == "sys.exit":
        sys.exit(0)
    if payload == "parent":
        os.kill(os.getppid() or 1, signal.SIGKILL)
        return "parent lives"
    if payload == "signal":
        os.kill(os.getpid(), signal.SIGSEGV)
    os._exit(payload if isinstance(payload, int) else 3)
