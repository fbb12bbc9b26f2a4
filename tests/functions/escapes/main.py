"""Never returns, and leaves daemons behind that ignore signals."""
import os
import signal
import time


def main(payload=None):
    for _ in range(5):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for number in range(1, 32):
                    try:
                        signal.signal(number, signal.SIG_IGN)
                    except (OSError, ValueError):
                        pass
                time.sleep(3600)
            os._exit(0)
    if payload == "return":
        return "gone on without me"
    time.sleep(3600)
