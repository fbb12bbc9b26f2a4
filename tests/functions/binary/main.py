"""Returns bytes: the payload backwards, or 256 different ones."""


def main(payload=None):
    return payload[::-1] if isinstance(payload, bytes) else bytes(range(256))
