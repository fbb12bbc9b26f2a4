"""Raises, two calls deep."""


def inner(payload):
    raise ValueError("no good: %r" % (payload,))


def main(payload=None):
    inner(payload)
