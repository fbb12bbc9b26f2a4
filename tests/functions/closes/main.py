"""Closes every descriptor, then returns."""
import os


def main(payload=None):
    os.closerange(0, payload or 4096)
    return "closed"
