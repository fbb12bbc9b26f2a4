"""Uses the CPU for as many seconds as the payload says, or for ever."""
import time


def main(payload=None):
    end = time.monotonic() + payload if payload else None
    while end is None or time.monotonic() < end:
        pass
    return "spun"
