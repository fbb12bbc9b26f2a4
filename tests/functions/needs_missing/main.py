"""Its requirement does not exist."""


def main(payload=None):
    return None
