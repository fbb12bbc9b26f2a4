"""Sleeps as many seconds as the payload says."""
import time


def main(payload=None):
    time.sleep(payload or 3600)
    return "slept"
