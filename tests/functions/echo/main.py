"""Returns its payload."""


def main(payload=None):
    return payload
