"""Returns as many bytes as the payload says."""


def main(payload=None):
    return b"x" * payload
