"""Does not parse: line 5."""


def main(payload=None):
    return (
