"""Prints as many bytes as the payload says, or without end."""
import sys


def main(payload=None):
    line = "x" * 1023 + "\n"
    n = 0
    while payload is None or n < payload:
        sys.stdout.write(line)
        n += len(line)
    return n
